//! The encrypted channel against a real server, with certificates as people make them.

use std::path::{Path, PathBuf};
use std::process::Command;

use backstay_postgres::{Connection, Mode, PostgresError};
use backstay_testkit::pg::{Listen, PgOptions, PgServer, Stop, parse, run_to_end};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const RSA: &[&str] = &["-newkey", "rsa:2048", "-sha256"];
const ECDSA_SHA384: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha384"];
const ED25519: &[&str] = &["-newkey", "ed25519"];
const PSS_SHA512: &[&str] = &[
    "-newkey",
    "rsa:2048",
    "-sha512",
    "-sigopt",
    "rsa_padding_mode:pss",
];
const LOCALHOST: &[&str] = &["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];

struct Served {
    server: PgServer,
}

impl Served {
    async fn new() -> Self {
        let server = PgServer::start_with(PgOptions {
            listen: Listen::Loopback,
            hba: vec![
                "hostssl all scram 127.0.0.1/32 scram-sha-256".to_owned(),
                "host all any 127.0.0.1/32 trust".to_owned(),
            ],
            ..PgOptions::default()
        })
        .await;
        server
            .sql("CREATE ROLE scram LOGIN PASSWORD 'secret'; CREATE ROLE \"any\" LOGIN")
            .await;
        Self { server }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.server.room().path().join(name)
    }

    /// A self-signed certificate; its path.
    fn make(&self, name: &str, kind: &[&str], more: &[&str]) -> PathBuf {
        let (certificate, key) = (
            self.file(&format!("{name}.crt")),
            self.file(&format!("{name}.key")),
        );
        let mut openssl = Command::new("openssl");
        openssl
            .args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=localhost"])
            .args(kind)
            .args(more);
        run_to_end(openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate));
        self.take(&key);
        certificate
    }

    /// A certificate signed by `authority`.
    fn sign(&self, name: &str, authority: &Path, extensions: &str) -> PathBuf {
        let (certificate, key, request) = (
            self.file(&format!("{name}.crt")),
            self.file(&format!("{name}.key")),
            self.file(&format!("{name}.csr")),
        );
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-nodes",
            "-subj",
            &format!("/CN={name}"),
            "-newkey",
            "rsa:2048",
            "-addext",
            extensions,
        ]);
        run_to_end(openssl.arg("-keyout").arg(&key).arg("-out").arg(&request));
        let mut openssl = Command::new("openssl");
        openssl
            .args([
                "x509",
                "-req",
                "-days",
                "30",
                "-copy_extensions",
                "copy",
                "-CAcreateserial",
                "-in",
            ])
            .arg(&request);
        openssl
            .arg("-CA")
            .arg(authority)
            .arg("-CAkey")
            .arg(authority.with_extension("key"));
        run_to_end(openssl.arg("-out").arg(&certificate));
        self.take(&key);
        certificate
    }

    fn take(&self, key: &Path) {
        std::fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        self.server.room().owner().take(key).unwrap();
    }

    async fn serve(&mut self, certificate: &Path) {
        let key = certificate.with_extension("key");
        self.server.append_conf(&[
            "ssl = on",
            &format!("ssl_cert_file = '{}'", certificate.display()),
            &format!("ssl_key_file = '{}'", key.display()),
        ]);
        self.server.stop(Stop::Fast).await;
        self.server.run().await;
    }

    /// Logs in as `scram` and says whether the session is encrypted.
    async fn ask(&self, more: &str) -> Result<String, PostgresError> {
        let text = format!(
            "{} password=secret {more}",
            self.server.tcp_conninfo_text("scram")
        );
        let mut connection = Connection::connect(&parse(&text), Mode::Sql).await?;
        let sql = "SELECT ssl::text AS ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let sets = connection.simple_query(sql).await?;
        Ok(sets[0].value(0, "ssl").unwrap().to_owned())
    }

    async fn refusal(&self, more: &str) -> String {
        let said = self.ask(more).await.unwrap_err().to_string();
        said.replace(&format!("127.0.0.1:{}", self.server.port()), "SERVER")
    }
}

#[tokio::test]
async fn scram_is_tied_to_the_channel_by_the_hash_of_each_kind_of_certificate() {
    let mut served = Served::new().await;
    for (name, kind) in [("rsa", RSA), ("ecdsa", ECDSA_SHA384), ("pss", PSS_SHA512)] {
        let certificate = served.make(name, kind, LOCALHOST);
        served.serve(&certificate).await;
        let verified = format!(
            "sslmode=verify-full channel_binding=require sslrootcert={}",
            certificate.display()
        );
        assert_eq!(served.ask(&verified).await.unwrap(), "true", "{name}");
    }
}

#[tokio::test]
async fn ed25519_has_no_binding_and_plain_scram_works() {
    let mut served = Served::new().await;
    let certificate = served.make("ed", ED25519, LOCALHOST);
    served.serve(&certificate).await;
    let root = format!("sslmode=verify-full sslrootcert={}", certificate.display());
    assert_eq!(served.ask(&root).await.unwrap(), "true");
    assert_eq!(
        served.refusal(&format!("{root} channel_binding=require")).await,
        "authentication at SERVER: channel_binding=require, and this connection cannot have it"
    );
}

#[tokio::test]
async fn certificates_are_accepted_and_refused_as_the_mode_says() {
    let mut served = Served::new().await;
    let authority = served.make("authority", RSA, &[]);
    // Another authority of the same name.
    let other = served.make("other", RSA, LOCALHOST);
    let signed = served.sign("elsewhere", &authority, "subjectAltName=DNS:elsewhere");
    served.serve(&signed).await;
    let by = |mode: &str, root: &Path| format!("sslmode={mode} sslrootcert={}", root.display());
    assert_eq!(served.ask(&by("verify-ca", &authority)).await.unwrap(), "true");
    assert_eq!(served.ask("sslmode=require").await.unwrap(), "true");
    assert_eq!(
        served.ask("").await.unwrap(),
        "true",
        "prefer is the default on this machine"
    );
    let foreign = format!(
        "TLS with SERVER: the server's certificate was signed by none of those in {}",
        other.display()
    );
    for mode in ["verify-ca", "verify-full", "require"] {
        assert_eq!(served.refusal(&by(mode, &other)).await, foreign, "{mode}");
    }
    let wrong_name = served.refusal(&by("verify-full", &authority)).await;
    assert!(
        wrong_name.starts_with("TLS with SERVER: invalid peer certificate: certificate not valid for name"),
        "{wrong_name}"
    );
    assert!(
        served
            .refusal("sslmode=verify-full sslrootcert=/nowhere")
            .await
            .contains("/nowhere")
    );
}

/// One made by `openssl req -x509` is an authority's too, which is another reason to refuse it, and not the one that helps.
#[tokio::test]
async fn a_self_signed_certificate_that_is_not_trusted_is_called_one_with_what_to_type() {
    let mut served = Served::new().await;
    let other = served.make("other", RSA, LOCALHOST);
    let no_authority = [LOCALHOST, &["-addext", "basicConstraints=critical,CA:FALSE"]].concat();
    let advice = "copy that certificate here (at the server, SHOW ssl_cert_file names it) and add sslrootcert=FILE to the connection string";
    for (name, more) in [("authority", LOCALHOST), ("leaf", &no_authority)] {
        let certificate = served.make(name, RSA, more);
        served.serve(&certificate).await;
        for (root, trusted) in [
            (
                format!("sslrootcert={}", other.display()),
                format!("those in {}", other.display()),
            ),
            (String::new(), "the system's authorities".to_owned()),
        ] {
            let error = served
                .ask(&format!("sslmode=verify-full {root}"))
                .await
                .unwrap_err();
            let told = error
                .to_string()
                .replace(&served.server.port().to_string(), "PORT");
            assert_eq!(
                told,
                format!(
                    "TLS with 127.0.0.1:PORT: the server's certificate is self-signed, and is not one of {trusted}"
                ),
                "{name}"
            );
            assert_eq!(error.advice(), advice);
        }
        let advised = format!("sslmode=verify-full sslrootcert={}", certificate.display());
        assert_eq!(served.ask(&advised).await.unwrap(), "true", "{name}");
    }
}

#[tokio::test]
async fn a_certificate_with_a_common_name_only_gets_its_own_error() {
    let mut served = Served::new().await;
    let certificate = served.make("old", RSA, &[]);
    served.serve(&certificate).await;
    let error = served
        .ask(&format!(
            "sslmode=verify-full sslrootcert={}",
            certificate.display()
        ))
        .await
        .unwrap_err();
    assert!(
        matches!(error, PostgresError::TlsCommonNameOnly { .. }),
        "{error}"
    );
    assert!(error.advice().contains("subjectAltName"));
}

#[tokio::test]
async fn a_client_certificate_is_shown_when_its_key_is_private() {
    let mut served = Served::new().await;
    let authority = served.make("authority", RSA, &[]);
    let server = served.sign("localhost", &authority, "subjectAltName=IP:127.0.0.1");
    let client = served.sign("any", &authority, "subjectAltName=DNS:client");
    let hba = served.server.data_dir().join("pg_hba.conf");
    std::fs::write(&hba, "local all all trust\nhostssl all any 127.0.0.1/32 cert\n").unwrap();
    served
        .server
        .append_conf(&[&format!("ssl_ca_file = '{}'", authority.display())]);
    served.serve(&server).await;
    let key = client.with_extension("key");
    let text = format!(
        "{} sslmode=verify-full sslrootcert={} sslcert={} sslkey={}",
        served.server.tcp_conninfo_text("any"),
        authority.display(),
        client.display(),
        key.display()
    );
    Connection::connect(&parse(&text), Mode::Sql).await.unwrap();
    let path = key.display();
    let refused = format!(": sslkey {path} can be read by others; chmod 600 {path}");
    // Of a key that root owns the group may read, so the group's right to write stands for it here.
    for mode in [0o644, 0o604, 0o660] {
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let error = Connection::connect(&parse(&text), Mode::Sql)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.ends_with(&refused), "{mode:o}: {error}");
    }
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    Connection::connect(&parse(&text), Mode::Sql).await.unwrap();
}

#[tokio::test]
async fn without_tls_at_the_server_only_the_lax_modes_connect() {
    let served = Served::new().await;
    for mode in ["disable", "allow", "prefer"] {
        let text = format!("{} sslmode={mode}", served.server.tcp_conninfo_text("any"));
        Connection::connect(&parse(&text), Mode::Sql).await.unwrap();
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        assert!(
            served
                .refusal(&format!("sslmode={mode}"))
                .await
                .ends_with(&format!(
                    "SERVER does not offer TLS, and sslmode={mode} asks for it"
                ))
        );
    }
}

#[tokio::test]
async fn allow_turns_to_tls_when_the_server_insists() {
    let mut served = Served::new().await;
    let certificate = served.make("rsa", RSA, LOCALHOST);
    served.serve(&certificate).await;
    assert_eq!(served.ask("sslmode=allow").await.unwrap(), "true");
    let refused = served.refusal("sslmode=disable").await;
    assert!(
        refused.contains("no pg_hba.conf entry") && refused.ends_with("(28000)"),
        "{refused}"
    );
}

#[tokio::test]
async fn bytes_before_the_handshake_are_refused() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let attacker = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.unwrap();
        stream.write_all(b"SE\0\0\0\x20hello").await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest, b"", "nothing is sent to such a server");
    };
    let conninfo = parse(&format!("host=127.0.0.1 port={port} user=x sslmode=require"));
    let connect = Connection::connect(&conninfo, Mode::Sql);
    let (error, ()) = tokio::join!(async { connect.await.unwrap_err() }, attacker);
    assert_eq!(
        error.to_string(),
        format!("TLS with 127.0.0.1:{port}: the server sent bytes before the handshake")
    );
}
