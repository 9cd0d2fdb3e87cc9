//! The encrypted channel: rustls with an explicit provider.
//!
//! Promise: verify-full and verify-ca never accept a certificate that no configured authority signed; a certificate
//! file or key that was named and cannot be used is an error, never ignored.
//! Not here: whether to encrypt (connection).

mod binding;
mod der;
mod verifier;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, OtherError, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::conninfo::{Host, HostAddress, SslMode, TlsFiles};
use crate::error::PostgresError;
use verifier::{Check, CommonNameOnly, Verifier};

/// Encrypts a socket; also gives the hash that ties SCRAM to this channel, where one is defined.
pub(crate) async fn handshake(
    stream: TcpStream,
    host: &Host,
    mode: SslMode,
    files: &TlsFiles,
) -> Result<(TlsStream<TcpStream>, Option<Vec<u8>>), PostgresError> {
    let failed = |reason: String| PostgresError::Tls {
        host: host.display(),
        reason,
    };
    let config = config(mode, files).map_err(failed)?;
    let name = server_name(host).map_err(failed)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let stream = stream.map_err(|error| refused(host, files, &error))?;
    let leaf = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let binding = leaf.and_then(|leaf| binding::end_point_hash(leaf));
    Ok((stream, binding))
}

fn refused(host: &Host, files: &TlsFiles, error: &std::io::Error) -> PostgresError {
    let host = host.display();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) = inner else {
        let reason = error.to_string();
        return PostgresError::Tls { host, reason };
    };
    if why.is::<CommonNameOnly>() {
        return PostgresError::TlsCommonNameOnly { host };
    }
    match why.downcast_ref() {
        Some(untrusted) => PostgresError::TlsUntrusted {
            host,
            certificate: *untrusted,
            trusted: trusted(files),
        },
        None => PostgresError::Tls {
            host,
            reason: format!("the server's certificate cannot be used: {why}"),
        },
    }
}

/// Where the roots came from, in words.
fn trusted(files: &TlsFiles) -> String {
    match root_file(files) {
        Some(path) => format!("those in {}", path.display()),
        None => "the system's authorities".to_owned(),
    }
}

/// The file of the roots; none: the system's.
fn root_file(files: &TlsFiles) -> Option<&Path> {
    files.root.as_deref().filter(|path| path.as_os_str() != "system")
}

fn server_name(host: &Host) -> Result<ServerName<'static>, String> {
    let name = match &host.address {
        HostAddress::Tcp(name) => name.clone(),
        HostAddress::Unix(_) => return Err("a unix socket is never encrypted".to_owned()),
    };
    ServerName::try_from(name).map_err(|_| "the host is neither a name nor an address".to_owned())
}

fn config(mode: SslMode, files: &TlsFiles) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Verifier::new(check(mode, files), roots(mode, files)?, provider.clone());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| format!("client certificate {}: {error}", certificate.display())),
        (Some(certificate), None) => Err(format!(
            "client certificate {} has no sslkey",
            certificate.display()
        )),
        _ => Ok(builder.with_no_client_auth()),
    }
}

// libpq: with a root file, `require` looks at the certificate as `verify-ca` does.
fn check(mode: SslMode, files: &TlsFiles) -> Check {
    match mode {
        SslMode::VerifyFull => Check::AuthorityAndName,
        SslMode::VerifyCa => Check::Authority,
        SslMode::Require if files.root.is_some() => Check::Authority,
        _ => Check::Nothing,
    }
}

fn roots(mode: SslMode, files: &TlsFiles) -> Result<Vec<CertificateDer<'static>>, String> {
    match (check(mode, files), root_file(files)) {
        (Check::Nothing, _) => Ok(Vec::new()),
        (_, Some(path)) => certificates(path),
        (_, None) => {
            let found = rustls_native_certs::load_native_certs();
            match found.certs.is_empty() {
                true => Err("the system has no trusted authorities; set sslrootcert".to_owned()),
                false => Ok(found.certs),
            }
        }
    }
}

fn store(roots: &[CertificateDer<'static>]) -> RootCertStore {
    let mut store = RootCertStore::empty();
    // A system's store may hold certificates that no verifier accepts as authorities: they are left out.
    store.add_parsable_certificates(roots.iter().cloned());
    store
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |error: rustls::pki_types::pem::Error| format!("certificates {}: {error}", path.display());
    let found = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    match found.is_empty() {
        true => Err(format!("certificates {}: the file holds none", path.display())),
        false => Ok(found),
    }
}

// libpq: nobody but the owner may read the key; one that root owns may be readable by its group.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let facts = std::fs::metadata(path).map_err(|error| format!("sslkey {}: {error}", path.display()))?;
    let forbidden = if facts.uid() == 0 { 0o037 } else { 0o077 };
    if facts.mode() & forbidden != 0 {
        return Err(format!(
            "sslkey {} can be read by others; chmod 600 {}",
            path.display(),
            path.display()
        ));
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| format!("sslkey {}: {error}", path.display()))
}
