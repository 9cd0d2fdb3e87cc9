//! The hash that ties SCRAM to a TLS channel (`tls-server-end-point`, RFC 5929 section 4.1).
//!
//! Promise: the hash is the one that PostgreSQL computes: of the certificate's own signature algorithm, SHA-256 in
//! place of MD5 and SHA-1. Where none is defined (Ed25519) there is no binding.
//! Not here: the SCRAM exchange (wire).

use aws_lc_rs::digest;

use super::der::{self, Elements, OBJECT_IDENTIFIER, SEQUENCE};

/// Hash of a certificate, or `None` where no hash is defined for its signature.
pub(super) fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = hash_of(der::certificate(certificate)?.signature_algorithm)?;
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

fn hash_of(signature_algorithm: &[u8]) -> Option<&'static digest::Algorithm> {
    let mut fields = Elements(signature_algorithm);
    match fields.next_tagged(OBJECT_IDENTIFIER)? {
        // 1.2.840.113549.1.1.N: PKCS #1
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, kind] => match kind {
            4 | 5 | 11 => Some(&digest::SHA256),
            12 => Some(&digest::SHA384),
            13 => Some(&digest::SHA512),
            14 => Some(&digest::SHA224),
            10 => pss_hash(fields),
            _ => None,
        },
        // 1.2.840.10045.4.1: ECDSA with SHA-1
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01] => Some(&digest::SHA256),
        // 1.2.840.10045.4.3.N: ECDSA with SHA-2
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, kind] => match kind {
            1 => Some(&digest::SHA224),
            2 => Some(&digest::SHA256),
            3 => Some(&digest::SHA384),
            4 => Some(&digest::SHA512),
            _ => None,
        },
        _ => None,
    }
}

// RSASSA-PSS names its hash in field [0] of its parameters; SHA-1 when absent (RFC 4055, 3.1).
fn pss_hash(mut fields: Elements<'_>) -> Option<&'static digest::Algorithm> {
    let mut parameters = Elements(fields.next_tagged(SEQUENCE)?);
    let Some(hash) = parameters.next_tagged(0xa0) else {
        return Some(&digest::SHA256);
    };
    let mut algorithm = Elements(Elements(hash).next_tagged(SEQUENCE)?);
    match algorithm.next_tagged(OBJECT_IDENTIFIER)? {
        // 2.16.840.1.101.3.4.2.N
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, kind] => match kind {
            1 => Some(&digest::SHA256),
            2 => Some(&digest::SHA384),
            3 => Some(&digest::SHA512),
            4 => Some(&digest::SHA224),
            _ => None,
        },
        // 1.3.14.3.2.26: SHA-1
        [0x2b, 0x0e, 0x03, 0x02, 0x1a] => Some(&digest::SHA256),
        _ => None,
    }
}
