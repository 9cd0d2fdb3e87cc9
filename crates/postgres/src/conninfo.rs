//! Where a server is and how to log in: libpq's connection strings and variables.
//!
//! Promise: a string that libpq accepts means the same here, or is refused by name; nothing is ignored silently.
//! The password never shows in `Debug` and is wiped when dropped.
//! Not here: reading the environment (the binary passes a lookup), name resolution and sockets (wire).

mod build;
mod pairs;
mod passfile;
mod secret;
#[cfg(test)]
mod tests;
mod uri;

use std::path::PathBuf;
use std::time::Duration;

pub use passfile::{PassfileAnswer, PassfileQuery};
pub use secret::Secret;

use build::{Settings, build};
use pairs::Pairs;

const SOCKET_DIRECTORY_DEFAULT: &str = "/var/run/postgresql";

/// What is wrong with a connection string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConninfoError {
    /// Not `keyword=value` and not a URI.
    #[error("{0}")]
    Syntax(String),
    /// A keyword that libpq does not know either.
    #[error("unknown keyword \"{keyword}\"{}", .meant.map(|word| format!(", did you mean \"{word}\"?")).unwrap_or_default())]
    Unknown {
        /// As written.
        keyword: String,
        /// The nearest keyword that we know.
        meant: Option<&'static str>,
    },
    /// A keyword of libpq whose promise we could not keep.
    #[error("keyword \"{0}\" is not supported")]
    Unsupported(String),
    /// A value that its keyword does not allow.
    #[error("{keyword}=\"{value}\" is not {expected}")]
    Value {
        /// The keyword or variable.
        keyword: &'static str,
        /// As written.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// As many ports as hosts, or one, or none.
    #[error("{ports} ports for {hosts} hosts")]
    PortCount {
        /// How many ports were given.
        ports: usize,
        /// How many hosts were given.
        hosts: usize,
    },
    /// No user in the string, PGUSER or USER.
    #[error("no user is named")]
    UserMissing,
}

impl ConninfoError {
    /// What the person can do.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::UserMissing => "add user=NAME",
            Self::PortCount { .. } => "give one port for all hosts, or one for each",
            _ => "write it as \"host=HOST user=NAME dbname=postgres\" or postgresql://NAME@HOST/postgres",
        }
    }
}

/// One place where the server may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What to connect to.
    pub address: HostAddress,
    /// Numeric address to use instead of resolving the name (`hostaddr`).
    pub numeric: Option<std::net::IpAddr>,
    /// TCP port, and the number in the socket's file name.
    pub port: u16,
}

/// A name or a socket directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostAddress {
    /// Directory of a unix socket.
    Unix(PathBuf),
    /// Host name or address.
    Tcp(String),
}

impl Host {
    /// As a person would write it: `name:port`, or the socket's directory and port.
    pub fn display(&self) -> String {
        match &self.address {
            HostAddress::Unix(directory) => format!("{}:{}", directory.display(), self.port),
            HostAddress::Tcp(name) if name.contains(':') => format!("[{name}]:{}", self.port),
            HostAddress::Tcp(name) => format!("{name}:{}", self.port),
        }
    }

    /// Whether bytes stay on this machine.
    pub fn is_local(&self) -> bool {
        match &self.address {
            HostAddress::Unix(_) => true,
            HostAddress::Tcp(name) => self
                .numeric
                .or_else(|| name.parse().ok())
                .map_or(name == "localhost", |address: std::net::IpAddr| {
                    address.is_loopback()
                }),
        }
    }
}

/// How far the channel must be encrypted and proven; libpq's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only when the server refuses without.
    Allow,
    /// When the server offers it; the certificate is not looked at.
    Prefer,
    /// Always; the certificate is looked at only when `sslrootcert` is given.
    Require,
    /// Always, signed by a known authority.
    VerifyCa,
    /// Always, signed by a known authority for this very host.
    VerifyFull,
}

impl SslMode {
    /// The word in a connection string.
    pub fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Which of several servers is wanted. Parsed, not acted on yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSession {
    /// Any.
    Any,
    /// One that accepts writes.
    ReadWrite,
    /// One that does not accept writes.
    ReadOnly,
    /// Not in recovery.
    Primary,
    /// In recovery.
    Standby,
    /// In recovery if there is one.
    PreferStandby,
}

/// Whether SCRAM must be tied to the TLS channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBindingWanted {
    /// Never.
    Disable,
    /// When both sides can.
    Prefer,
    /// Or do not log in.
    Require,
}

/// TCP settings that find a dead peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Probes without an answer before the connection is lost.
    pub count: u32,
}

/// Files for TLS; `None` means libpq's default place, where that exists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Authorities to trust; the word `system` asks for the system's.
    pub root: Option<PathBuf>,
    /// Our certificate, PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
}

/// Everything needed to connect; valid by construction.
#[derive(Debug, Clone)]
pub struct Conninfo {
    pub(crate) hosts: Vec<Host>,
    pub(crate) user: String,
    pub(crate) password: Option<Secret>,
    pub(crate) passfile: Option<PathBuf>,
    pub(crate) database: String,
    pub(crate) ssl_mode: Option<SslMode>,
    pub(crate) tls: TlsFiles,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) application_name: String,
    pub(crate) target_session: TargetSession,
    pub(crate) channel_binding: ChannelBindingWanted,
    pub(crate) options: Option<String>,
    pub(crate) keepalive: Option<Keepalive>,
}

impl Conninfo {
    /// Reads a keyword string or a URI; what it leaves open comes from `environment` (PG* variables, HOME, USER), then
    /// from libpq's defaults.
    ///
    /// # Errors
    /// The first thing that is wrong, by name. A password is never part of the error.
    pub fn parse(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConninfoError> {
        let pairs = match text
            .strip_prefix("postgresql://")
            .or_else(|| text.strip_prefix("postgres://"))
        {
            Some(rest) => uri::pairs(rest)?,
            None => Pairs::from_words(text)?,
        };
        build(&Settings { pairs, environment })
    }

    /// The same server under another name: what `synchronous_standby_names` and `pg_stat_activity` show.
    #[must_use]
    pub fn with_application_name(mut self, name: &str) -> Self {
        self.application_name = name.to_owned();
        self
    }

    /// The same server with one more command-line option for the session, for instance `-c wal_sender_timeout=0`.
    #[must_use]
    pub fn with_option(mut self, option: &str) -> Self {
        self.options = Some(match self.options.take() {
            Some(options) => format!("{options} {option}"),
            None => option.to_owned(),
        });
        self
    }

    /// The servers, in the order in which they are tried.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The role.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database of ordinary connections.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Name shown to the server.
    pub fn application_name(&self) -> &str {
        &self.application_name
    }

    /// Which of several servers is wanted. Not acted on yet.
    pub fn target_session(&self) -> TargetSession {
        self.target_session
    }

    /// The mode in force for one host: as given, else `prefer` where bytes stay on this machine and `verify-full` elsewhere.
    pub fn ssl_mode(&self, host: &Host) -> SslMode {
        match (&host.address, self.ssl_mode) {
            (HostAddress::Unix(_), _) => SslMode::Disable,
            (_, Some(mode)) => mode,
            (_, None) if host.is_local() => SslMode::Prefer,
            (_, None) => SslMode::VerifyFull,
        }
    }
}
