//! Which server certificates are accepted, by libpq's rules on top of rustls's.
//!
//! Promise: the handshake's signature is checked in every mode. A leaf that is itself a configured root is accepted as
//! libpq accepts it (webpki would refuse one made by `openssl req -x509`, which sets CA:TRUE), with dates and name checked.
//! Not here: where the roots come from (tls).

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use super::der;
use crate::error::Untrusted;

/// How much of a certificate is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    Nothing,
    Authority,
    AuthorityAndName,
}

#[derive(Debug)]
pub(super) struct Verifier {
    check: Check,
    roots: Vec<CertificateDer<'static>>,
    store: RootCertStore,
    provider: Arc<CryptoProvider>,
}

/// The certificate names its host only in the way of the last century.
#[derive(Debug, thiserror::Error)]
#[error("the certificate has only a common name")]
pub(super) struct CommonNameOnly;

fn refusal(reason: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(OtherError(Arc::new(reason))).into()
}

impl Verifier {
    pub(super) fn new(
        check: Check,
        roots: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self {
            check,
            store: super::store(&roots),
            roots,
            provider,
        }
    }

    fn check_authority(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.roots.iter().any(|root| root.as_ref() == leaf.as_ref()) {
            return check_dates(leaf, now);
        }
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(parsed, &self.store, intermediates, now, algorithms)
            .map_err(|error| untrusted(leaf, error))
    }
}

/// The chain's error, in words where it means that nobody trusted signed the leaf.
fn untrusted(leaf: &CertificateDer<'_>, error: Error) -> Error {
    let is_self_issued = der::certificate(leaf).and_then(|parts| der::is_self_issued(parts.body));
    match (&error, is_self_issued) {
        // What webpki says of one with CA:TRUE is among the others, and helps nobody.
        (
            Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature | CertificateError::Other(_),
            ),
            Some(true),
        ) => refusal(Untrusted::SelfSigned),
        // The signature is wrong where another authority bears the name of a trusted one.
        (Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature), _) => {
            refusal(Untrusted::Foreign)
        }
        _ => error,
    }
}

fn check_dates(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let validity = der::certificate(leaf).and_then(|parts| der::validity(parts.body));
    let now = i64::try_from(now.as_secs()).map_err(|_| CertificateError::BadEncoding)?;
    match validity {
        None => Err(CertificateError::BadEncoding.into()),
        Some((begins, _)) if now < begins => Err(CertificateError::NotValidYet.into()),
        Some((_, ends)) if now > ends => Err(CertificateError::Expired.into()),
        Some(_) => Ok(()),
    }
}

fn check_name(
    leaf: &CertificateDer<'_>,
    parsed: &ParsedCertificate<'_>,
    name: &ServerName<'_>,
) -> Result<(), Error> {
    // 2.5.29.17, subjectAltName, as it stands in an extension.
    const SUBJECT_ALTERNATIVE_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x11];
    let has_names = leaf.windows(5).any(|window| window == SUBJECT_ALTERNATIVE_NAME);
    match verify_server_name(parsed, name) {
        Err(_) if !has_names => Err(refusal(CommonNameOnly)),
        other => other,
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.check == Check::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let parsed = ParsedCertificate::try_from(leaf)?;
        self.check_authority(leaf, &parsed, intermediates, now)?;
        if self.check == Check::AuthorityAndName {
            check_name(leaf, &parsed, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            leaf,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            leaf,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
