//! Where a server is and how to log in: libpq's connection strings and variables.
//!
//! Promise: a string that libpq accepts means the same here, or is refused by name; nothing is ignored silently.
//! The password never shows in `Debug` and is wiped when dropped.
//! Not here: reading the environment (the binary passes a lookup), name resolution and sockets (wire).

mod pairs;
mod passfile;
mod secret;
#[cfg(test)]
mod tests;
mod uri;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use passfile::{PassfileAnswer, PassfileQuery};
pub use secret::Secret;

use pairs::Pairs;

const PORT_DEFAULT: u16 = 5432;
const SOCKET_DIRECTORY_DEFAULT: &str = "/var/run/postgresql";
const APPLICATION_NAME_DEFAULT: &str = "backstay";
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

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

/// The string first, then the environment.
struct Settings<'a> {
    pairs: Pairs,
    environment: &'a dyn Fn(&str) -> Option<String>,
}

impl Settings<'_> {
    fn get(&self, keyword: &str, variable: &str) -> Option<String> {
        let given = self.pairs.get(keyword).map(str::to_owned);
        given
            .or_else(|| self.variable(variable))
            .filter(|value| !value.is_empty())
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    fn home(&self) -> Option<PathBuf> {
        self.variable("HOME").map(PathBuf::from)
    }

    fn file(&self, keyword: &str, variable: &str, default: &str) -> Option<PathBuf> {
        let given = self.get(keyword, variable).map(PathBuf::from);
        given.or_else(|| {
            self.home()
                .map(|home| home.join(default))
                .filter(|path| path.exists())
        })
    }
}

fn build(settings: &Settings<'_>) -> Result<Conninfo, ConninfoError> {
    let user = settings
        .get("user", "PGUSER")
        .or_else(|| settings.variable("USER"))
        .or_else(|| settings.variable("LOGNAME"))
        .ok_or(ConninfoError::UserMissing)?;
    Ok(Conninfo {
        hosts: hosts(settings)?,
        database: settings
            .get("dbname", "PGDATABASE")
            .unwrap_or_else(|| user.clone()),
        user,
        password: settings.get("password", "PGPASSWORD").map(Secret::new),
        passfile: settings
            .get("passfile", "PGPASSFILE")
            .map(PathBuf::from)
            .or_else(|| settings.home().map(|home| home.join(".pgpass"))),
        ssl_mode: settings
            .get("sslmode", "PGSSLMODE")
            .as_deref()
            .map(ssl_mode)
            .transpose()?,
        tls: tls_files(settings),
        connect_timeout: connect_timeout(settings)?,
        application_name: settings
            .get("application_name", "PGAPPNAME")
            .or_else(|| settings.get("fallback_application_name", ""))
            .unwrap_or_else(|| APPLICATION_NAME_DEFAULT.to_owned()),
        target_session: target_session(
            settings
                .get("target_session_attrs", "PGTARGETSESSIONATTRS")
                .as_deref(),
        )?,
        channel_binding: channel_binding(settings.get("channel_binding", "PGCHANNELBINDING").as_deref())?,
        options: settings.get("options", "PGOPTIONS"),
        keepalive: keepalive(settings)?,
    })
}

fn tls_files(settings: &Settings<'_>) -> TlsFiles {
    TlsFiles {
        root: settings.file("sslrootcert", "PGSSLROOTCERT", ".postgresql/root.crt"),
        certificate: settings.file("sslcert", "PGSSLCERT", ".postgresql/postgresql.crt"),
        key: settings.file("sslkey", "PGSSLKEY", ".postgresql/postgresql.key"),
    }
}

// Zero, negative or absent means "for ever" to libpq. A backup that waits for ever is not noticed, so absent is 15 s here.
fn connect_timeout(settings: &Settings<'_>) -> Result<Option<Duration>, ConninfoError> {
    let Some(text) = settings.get("connect_timeout", "PGCONNECT_TIMEOUT") else {
        return Ok(Some(CONNECT_TIMEOUT_DEFAULT));
    };
    let seconds = number::<i32>("connect_timeout", &text)?;
    // libpq rounds 1 up to 2.
    Ok(u64::try_from(seconds)
        .ok()
        .filter(|s| *s > 0)
        .map(|s| Duration::from_secs(s.max(2))))
}

fn number<T: std::str::FromStr>(keyword: &'static str, text: &str) -> Result<T, ConninfoError> {
    text.trim().parse().map_err(|_| ConninfoError::Value {
        keyword,
        value: text.to_owned(),
        expected: "a whole number in range",
    })
}

fn keepalive(settings: &Settings<'_>) -> Result<Option<Keepalive>, ConninfoError> {
    let value = |keyword: &'static str, default: u32| match settings.pairs.get(keyword) {
        Some(text) => number::<u32>(keyword, text).map(|n| if n == 0 { default } else { n }),
        None => Ok(default),
    };
    if settings
        .pairs
        .get("keepalives")
        .map(|text| number::<i32>("keepalives", text))
        .transpose()?
        == Some(0)
    {
        return Ok(None);
    }
    Ok(Some(Keepalive {
        idle: Duration::from_secs(value("keepalives_idle", 30)?.into()),
        interval: Duration::from_secs(value("keepalives_interval", 10)?.into()),
        count: value("keepalives_count", 6)?,
    }))
}

fn hosts(settings: &Settings<'_>) -> Result<Vec<Host>, ConninfoError> {
    let list = |text: Option<String>| text.map(|t| t.split(',').map(str::to_owned).collect::<Vec<_>>());
    let numeric = list(settings.get("hostaddr", "PGHOSTADDR"));
    let names = list(settings.get("host", "PGHOST"));
    let count = names.as_ref().or(numeric.as_ref()).map_or(1, Vec::len);
    if numeric.as_ref().is_some_and(|addresses| addresses.len() != count) {
        return Err(ConninfoError::Syntax(
            "host and hostaddr name a different number of servers".to_owned(),
        ));
    }
    let ports = ports(settings, count)?;
    (0..count)
        .map(|at| {
            let name = names
                .as_ref()
                .and_then(|n| n.get(at))
                .map(|n| n.trim())
                .filter(|n| !n.is_empty());
            let numeric = numeric
                .as_ref()
                .and_then(|n| n.get(at))
                .map(|n| n.trim())
                .filter(|n| !n.is_empty());
            Ok(Host {
                address: address(name.or(numeric)),
                numeric: numeric.map(numeric_address).transpose()?,
                port: ports[at % ports.len()],
            })
        })
        .collect()
}

fn address(name: Option<&str>) -> HostAddress {
    match name {
        None => HostAddress::Unix(SOCKET_DIRECTORY_DEFAULT.into()),
        Some(path) if Path::new(path).is_absolute() => HostAddress::Unix(path.into()),
        Some(name) => HostAddress::Tcp(name.to_owned()),
    }
}

fn numeric_address(text: &str) -> Result<std::net::IpAddr, ConninfoError> {
    text.parse().map_err(|_| ConninfoError::Value {
        keyword: "hostaddr",
        value: text.to_owned(),
        expected: "a numeric address",
    })
}

fn ports(settings: &Settings<'_>, hosts: usize) -> Result<Vec<u16>, ConninfoError> {
    let text = settings.get("port", "PGPORT").unwrap_or_default();
    let ports = text.split(',').map(port).collect::<Result<Vec<_>, _>>()?;
    if ports.len() != 1 && ports.len() != hosts {
        return Err(ConninfoError::PortCount {
            ports: ports.len(),
            hosts,
        });
    }
    Ok(ports)
}

fn port(text: &str) -> Result<u16, ConninfoError> {
    if text.trim().is_empty() {
        return Ok(PORT_DEFAULT);
    }
    match text.trim().parse() {
        Ok(0) | Err(_) => Err(ConninfoError::Value {
            keyword: "port",
            value: text.to_owned(),
            expected: "a port from 1 to 65535",
        }),
        Ok(port) => Ok(port),
    }
}

fn ssl_mode(text: &str) -> Result<SslMode, ConninfoError> {
    use SslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
    let modes = [Disable, Allow, Prefer, Require, VerifyCa, VerifyFull];
    modes
        .into_iter()
        .find(|mode| mode.word() == text)
        .ok_or_else(|| ConninfoError::Value {
            keyword: "sslmode",
            value: text.to_owned(),
            expected: "disable, allow, prefer, require, verify-ca or verify-full",
        })
}

fn target_session(text: Option<&str>) -> Result<TargetSession, ConninfoError> {
    Ok(match text {
        None | Some("any") => TargetSession::Any,
        Some("read-write") => TargetSession::ReadWrite,
        Some("read-only") => TargetSession::ReadOnly,
        Some("primary") => TargetSession::Primary,
        Some("standby") => TargetSession::Standby,
        Some("prefer-standby") => TargetSession::PreferStandby,
        Some(other) => {
            return Err(ConninfoError::Value {
                keyword: "target_session_attrs",
                value: other.to_owned(),
                expected: "any, read-write, read-only, primary, standby or prefer-standby",
            });
        }
    })
}

fn channel_binding(text: Option<&str>) -> Result<ChannelBindingWanted, ConninfoError> {
    Ok(match text {
        None | Some("prefer") => ChannelBindingWanted::Prefer,
        Some("disable") => ChannelBindingWanted::Disable,
        Some("require") => ChannelBindingWanted::Require,
        Some(other) => {
            return Err(ConninfoError::Value {
                keyword: "channel_binding",
                value: other.to_owned(),
                expected: "disable, prefer or require",
            });
        }
    })
}
