//! What can go wrong with a PostgreSQL server, as values that a caller can act on.
//!
//! Promise: no message contains a password. `retry` is a property of the error, never a guess from text.
//! Not here: logging and exit codes (engine, the binary).

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::time::Duration;

use backstay_clock::print_duration;
use backstay_source::{Retry, SourceError, SourceErrorKind};

use crate::conninfo::ConninfoError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The connection string cannot be used.
    #[error("connection string: {0}")]
    Conninfo(#[from] ConninfoError),
    /// No connection to the address.
    #[error("cannot connect to {host}: {source}")]
    Connect {
        /// Address as in the connection string.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// The peer did not answer in time.
    #[error("{host} did not answer within {} while {doing}", print_duration(*.waited))]
    Timeout {
        /// Address as in the connection string.
        host: String,
        /// How long we waited.
        waited: Duration,
        /// What we were doing.
        doing: &'static str,
    },
    /// The encrypted channel could not be made, or the certificate was refused.
    #[error("TLS with {host}: {reason}")]
    Tls {
        /// Address as in the connection string.
        host: String,
        /// What was refused.
        reason: String,
    },
    /// Nobody who is trusted stands behind the server's certificate.
    #[error("TLS with {host}: the server's certificate {certificate} {trusted}")]
    TlsUntrusted {
        /// Address as in the connection string.
        host: String,
        /// What it is instead.
        certificate: Untrusted,
        /// Where the trusted ones came from: a file, or words for the system's.
        trusted: String,
    },
    /// The server's certificate names no host in a subject alternative name.
    #[error("TLS with {host}: the certificate has only a common name, no subject alternative name")]
    TlsCommonNameOnly {
        /// Address as in the connection string.
        host: String,
    },
    /// The server does not offer TLS and the mode asks for it.
    #[error("{host} does not offer TLS, and sslmode={mode} asks for it")]
    TlsRefused {
        /// Address as in the connection string.
        host: String,
        /// The mode in force.
        mode: &'static str,
    },
    /// The server asks for a password and none was found.
    #[error(
        "{host} asks for a password for user \"{user}\" and none was found{}",
        After(passfile)
    )]
    PasswordMissing {
        /// Address as in the connection string.
        host: String,
        /// The role.
        user: String,
        /// Why the password file was not used; empty: it was, or there is none.
        passfile: String,
    },
    /// Authentication cannot go on, for a reason on our side.
    #[error("authentication at {host}: {reason}")]
    Authentication {
        /// Address as in the connection string.
        host: String,
        /// What we refuse or do not know.
        reason: String,
    },
    /// The server answered with an error.
    #[error("server: {severity}: {message} ({sqlstate}){}", Tail(detail, hint))]
    Server {
        /// ERROR, FATAL or PANIC.
        severity: Severity,
        /// The five characters of PostgreSQL's appendix A.
        sqlstate: SqlState,
        /// Primary message.
        message: String,
        /// Second line, if any.
        detail: Option<String>,
        /// What the server suggests, if anything.
        hint: Option<String>,
    },
    /// The server is set up to take no replication connection at all.
    #[error("{host} takes no replication connections: wal_level is {wal_level}, max_wal_senders is 0")]
    NoReplication {
        /// Address as in the connection string.
        host: String,
        /// The setting in force.
        wal_level: String,
    },
    /// The server has replication connections, and others use them all.
    #[error("every WAL sender of {host} is in use: max_wal_senders is {limit}")]
    WalSendersBusy {
        /// Address as in the connection string.
        host: String,
        /// How many there are.
        limit: u32,
    },
    /// The server can never have as many replication connections at once as a base backup takes.
    #[error("a base backup takes two WAL senders of {host}, and max_wal_senders is {limit}")]
    WalSendersTooFew {
        /// Address as in the connection string.
        host: String,
        /// How many there are.
        limit: u32,
    },
    /// The role may log in and may not replicate.
    #[error("the role \"{user}\" has no right to replicate: {message} (42501)")]
    ReplicationDenied {
        /// The role.
        user: String,
        /// What the server said.
        message: String,
    },
    /// The server closed the connection, or the network did.
    #[error("the connection to {host} was lost: {source}")]
    Lost {
        /// Address as in the connection string.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server sent what the protocol does not allow here.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// The server is of a version that we do not know.
    #[error("PostgreSQL server version {0} is not supported")]
    Version(u32),
    /// An archive of a base backup holds an entry that we refuse to store.
    #[error("base backup: entry \"{path}\" refused: {reason}")]
    Entry {
        /// Name in the archive, with control characters escaped.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What arrived is not what the server's own manifest lists.
    #[error("base backup: the server's manifest disagrees: {0}")]
    Manifest(String),
    /// Tablespaces that the server leaves out of its base backups.
    #[error("{}: a base backup of PostgreSQL {major} leaves out what lies in pg_tblspc itself (allow_in_place_tablespaces)", tablespaces(.names))]
    InPlaceTablespaces {
        /// Their names.
        names: Vec<String>,
        /// The server's major version.
        major: u32,
    },
    /// A base backup was asked of a standby. It writes no record that ends the backup (xlog.c, do_pg_backup_stop), so nothing
    /// says where the backup alone is consistent, or which log goes on from it.
    #[error(
        "base backup: the server is a standby, and nothing in its log ends a backup of it: it could not be recovered for certain"
    )]
    Standby,
    /// WAL that the backup needs could not be read.
    #[error("base backup: WAL from {from} to {to}: {reason}")]
    BackupWal {
        /// First position wanted, as PostgreSQL writes it.
        from: String,
        /// Position to reach, as PostgreSQL writes it.
        to: String,
        /// What happened.
        reason: String,
    },
    /// The scratch directory failed.
    #[error("scratch file {path}: {source}")]
    Scratch {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl PostgresError {
    /// What the person can do.
    pub fn advice(&self) -> Cow<'static, str> {
        match self {
            Self::NoReplication { wal_level, .. } => no_replication_advice(wal_level).into(),
            Self::WalSendersBusy { limit, .. } => format!(
                "run again when one is free (SELECT pid, application_name FROM pg_stat_replication names who has them), or \
                 ALTER SYSTEM SET max_wal_senders = {}; then restart the server",
                limit.saturating_add(WALSENDERS_MORE)
            )
            .into(),
            Self::ReplicationDenied { user, .. } => {
                format!("ALTER ROLE \"{}\" REPLICATION;", user.replace('"', "\"\"")).into()
            }
            Self::PasswordMissing { passfile, .. } if !passfile.is_empty() => {
                "make the password file readable for its owner alone, as the message says, or set PGPASSWORD".into()
            }
            other => other.fixed_advice().into(),
        }
    }

    /// The advice that is the same for every server.
    pub(crate) fn fixed_advice(&self) -> &'static str {
        match self {
            Self::Conninfo(error) => error.advice(),
            Self::Connect { .. } => "check that the server runs and that host and port are right",
            Self::Timeout { .. } | Self::Lost { .. } => {
                "check the network and the server's log, then run again"
            }
            Self::Tls { .. } => {
                "set sslrootcert to the authority that signed the server's certificate, and use the host name in it"
            }
            Self::TlsUntrusted {
                certificate: Untrusted::SelfSigned,
                ..
            } => {
                "copy that certificate here (at the server, SHOW ssl_cert_file names it) and add sslrootcert=FILE to the connection string"
            }
            Self::TlsUntrusted {
                certificate: Untrusted::Foreign,
                ..
            } => {
                "add sslrootcert=FILE to the connection string, with the certificate of the authority that signed the server's"
            }
            Self::TlsCommonNameOnly { .. } => {
                "make a certificate with a name: openssl req -x509 -addext subjectAltName=DNS:HOST …"
            }
            Self::TlsRefused { .. } => {
                "set ssl = on at the server, or choose sslmode=disable for a network that you trust"
            }
            Self::PasswordMissing { .. } => {
                "put a line host:port:database:user:password into ~/.pgpass with mode 0600, or set PGPASSWORD"
            }
            Self::Authentication { .. } => {
                "set password_encryption = scram-sha-256 and a matching line in pg_hba.conf"
            }
            Self::Server { sqlstate, .. } => server_advice(*sqlstate),
            Self::NoReplication { .. } | Self::WalSendersBusy { .. } | Self::WalSendersTooFew { .. } => {
                "ALTER SYSTEM SET max_wal_senders = 10; then restart the server"
            }
            Self::ReplicationDenied { .. } => {
                "give the role the right to replicate: ALTER ROLE … REPLICATION"
            }
            Self::Protocol(_) => {
                "check that the address is a PostgreSQL server and not a pooler; report this if it is"
            }
            Self::Version(_) => "use a server of version 13 to 18",
            Self::Entry { .. } => "remove the named file or link from the data directory of the server",
            Self::Manifest(_) => {
                "run the backup again; if it repeats, the network or the server changes bytes"
            }
            Self::InPlaceTablespaces { .. } => {
                "move what is in them, in each database: ALTER TABLE ALL IN TABLESPACE name SET TABLESPACE pg_default, the same with INDEX and MATERIALIZED VIEW; then DROP TABLESPACE name and back up again; or use PostgreSQL 16 or newer"
            }
            Self::Standby => {
                "name the primary in the connection string, or several hosts with target_session_attrs=read-write"
            }
            Self::BackupWal { .. } => {
                "raise max_wal_senders and max_slot_wal_keep_size at the server, then run again"
            }
            Self::Scratch { .. } => "free space in the scratch directory, or name another",
        }
    }

    /// Whether the same call can succeed later without a person's help.
    pub fn retry(&self) -> Retry {
        match self.kind() {
            SourceErrorKind::Unreachable | SourceErrorKind::Conflict => Retry::Later,
            _ => Retry::Never,
        }
    }

    /// The same in the words of the ports.
    pub fn kind(&self) -> SourceErrorKind {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Lost { .. } => SourceErrorKind::Unreachable,
            Self::PasswordMissing { .. } | Self::Authentication { .. } | Self::ReplicationDenied { .. } => {
                SourceErrorKind::Unauthenticated
            }
            Self::WalSendersBusy { .. } => SourceErrorKind::Conflict,
            Self::NoReplication { .. } | Self::WalSendersTooFew { .. } => SourceErrorKind::Refused,
            Self::Conninfo(_)
            | Self::Tls { .. }
            | Self::TlsUntrusted { .. }
            | Self::TlsCommonNameOnly { .. }
            | Self::TlsRefused { .. } => SourceErrorKind::Refused,
            Self::Server { sqlstate, .. } => sqlstate.kind(),
            Self::Version(_) | Self::Entry { .. } | Self::InPlaceTablespaces { .. } | Self::Standby => {
                SourceErrorKind::Refused
            }
            Self::Protocol(_) => SourceErrorKind::Protocol,
            Self::Manifest(_) => SourceErrorKind::Damaged,
            Self::BackupWal { .. } => SourceErrorKind::LogGone,
            Self::Scratch { source, .. } => SourceErrorKind::of_local(source),
        }
    }

    /// The server's SQLSTATE, where the server spoke.
    pub fn sqlstate(&self) -> Option<SqlState> {
        match self {
            Self::Server { sqlstate, .. } => Some(*sqlstate),
            _ => None,
        }
    }

    /// A failed read or write: the network's fault, or that of a peer whose frames are not the protocol's.
    pub(crate) fn lost(host: &str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Self::Protocol(source.to_string()),
            _ => Self::Lost {
                host: host.to_owned(),
                source,
            },
        }
    }

    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol(what.into())
    }
}

impl From<PostgresError> for SourceError {
    fn from(error: PostgresError) -> Self {
        SourceError::new(error.kind(), error.to_string(), error.advice())
    }
}

/// So many WAL senders more than there are is what a person is told to set.
const WALSENDERS_MORE: u32 = 5;

fn no_replication_advice(wal_level: &str) -> &'static str {
    match wal_level {
        "minimal" => {
            "ALTER SYSTEM SET wal_level = 'replica'; ALTER SYSTEM SET max_wal_senders = 10; then restart the server"
        }
        _ => "ALTER SYSTEM SET max_wal_senders = 10; then restart the server",
    }
}

fn server_advice(sqlstate: SqlState) -> &'static str {
    match &sqlstate.0 {
        b"28P01" => "check the password: PGPASSWORD, the connection string or ~/.pgpass",
        b"28000" => {
            "see that the role exists and may log in, and add a line for it and this address to pg_hba.conf, for the database \"replication\" too"
        }
        b"42501" => "grant the role what it lacks: ALTER ROLE … REPLICATION, GRANT pg_monitor",
        b"53300" => {
            "run again when a connection is free, or raise max_connections or max_wal_senders at the server"
        }
        b"53400" => {
            "drop a slot that nobody needs (SELECT slot_name, active FROM pg_replication_slots), or raise max_replication_slots and restart the server"
        }
        b"58P01" => "the server has removed this WAL: take a new base backup",
        b"55006" => "another client uses the replication slot: stop it, or name another slot",
        b"XX001" => "the server found damaged pages: repair or restore the named files",
        b"57P03" => "wait until the server accepts connections",
        _ => "read the server's message and log",
    }
}

fn tablespaces(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    match quoted.len() {
        1 => format!("tablespace {}", quoted.concat()),
        _ => format!("tablespaces {}", quoted.join(", ")),
    }
}

/// A reason that may be empty.
struct After<'a>(&'a str);

impl fmt::Display for After<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            reason => write!(f, "; {reason}"),
        }
    }
}

struct Tail<'a>(&'a Option<String>, &'a Option<String>);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(detail) = self.0 {
            write!(f, "; {detail}")?;
        }
        match self.1 {
            Some(hint) => write!(f, "; hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// What a certificate is that no configured authority stands behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// It is signed with its own key.
    #[error("is self-signed, and is not one of")]
    SelfSigned,
    /// Somebody else signed it.
    #[error("was signed by none of")]
    Foreign,
}

/// How bad a server's message is. Source: PostgreSQL manual, "Error and Notice Message Fields", field V.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The command failed.
    Error,
    /// The session ended.
    Fatal,
    /// All sessions ended.
    Panic,
    /// Something is wrong and the command went on.
    Warning,
    /// NOTICE, INFO, LOG and DEBUG.
    Notice,
}

impl Severity {
    pub(crate) fn from_field(text: &str) -> Self {
        match text {
            "ERROR" => Self::Error,
            "FATAL" => Self::Fatal,
            "PANIC" => Self::Panic,
            "WARNING" => Self::Warning,
            _ => Self::Notice,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Panic => "PANIC",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        })
    }
}

/// A SQLSTATE: five letters or digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub [u8; 5]);

impl SqlState {
    /// Page checksums did not match.
    pub const DATA_CORRUPTED: Self = Self(*b"XX001");
    /// A file, here nearly always a WAL segment, is not there any more.
    pub const UNDEFINED_FILE: Self = Self(*b"58P01");
    /// The slot or object is in use.
    pub const OBJECT_IN_USE: Self = Self(*b"55006");
    /// No such object, here a slot.
    pub const UNDEFINED_OBJECT: Self = Self(*b"42704");
    /// Every connection of the kind asked for is in use.
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    /// The role may not log in, or pg_hba.conf has no line that lets it in.
    pub const INVALID_AUTHORIZATION: Self = Self(*b"28000");
    /// The role may not.
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(*b"42501");

    /// The state in a message's field C; anything malformed becomes `XX000` (internal error).
    pub(crate) fn from_field(text: &[u8]) -> Self {
        match <[u8; 5]>::try_from(text) {
            Ok(code) if code.iter().all(u8::is_ascii_alphanumeric) => Self(code),
            _ => Self(*b"XX000"),
        }
    }

    fn kind(self) -> SourceErrorKind {
        match &self.0 {
            b"28P01" | b"28000" | b"42501" => SourceErrorKind::Unauthenticated,
            b"53300" | b"53400" => SourceErrorKind::Conflict,
            b"58P01" => SourceErrorKind::LogGone,
            b"XX001" | b"XX002" => SourceErrorKind::Damaged,
            _ if self == Self::OBJECT_IN_USE => SourceErrorKind::Conflict,
            _ if self.is_passing() => SourceErrorKind::Unreachable,
            _ => SourceErrorKind::Refused,
        }
    }

    // Classes 08 (connection), 53 (resources), 57P (shutdown, starting up) and 55006 (in use) pass by themselves.
    fn is_passing(self) -> bool {
        let class = &self.0[..2];
        class == b"08" || class == b"53" || &self.0[..3] == b"57P" || self == Self::OBJECT_IN_USE
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{}", *byte as char))
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
