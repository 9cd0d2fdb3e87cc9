//! From keywords and variables to a valid `Conninfo`.
//!
//! Promise: the string first, then the environment, then libpq's defaults; every refused value is named.
//! Not here: taking a string apart (pairs, uri).

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::pairs::Pairs;
use super::{
    ChannelBindingWanted, Conninfo, ConninfoError, Host, HostAddress, Keepalive, SOCKET_DIRECTORY_DEFAULT,
    Secret, SslMode, TargetSession, TlsFiles,
};

const PORT_DEFAULT: u16 = 5432;
const APPLICATION_NAME_DEFAULT: &str = "backstay";
const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// The string first, then the environment.
pub(super) struct Settings<'a> {
    pub(super) pairs: Pairs,
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
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

pub(super) fn build(settings: &Settings<'_>) -> Result<Conninfo, ConninfoError> {
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
