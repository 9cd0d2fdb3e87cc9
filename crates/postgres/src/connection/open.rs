//! Finding a server that answers, and logging in.
//!
//! Promise: a refused login is final. Only `allow` and `prefer` ever fall back to another kind of channel.
//! Not here: proving certificates (tls), the login itself (wire), why a walsender is refused (refusal).

use std::time::Duration;

use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ANSWER_TIMEOUT_DEFAULT, Answer, Connection, Mode, State, refusal, unexpected};
use crate::conninfo::{Conninfo, Host, SslMode};
use crate::error::PostgresError;
use crate::tls;
use crate::wire::{Bound, Frames, Login, Transport, log_in, open};

/// One way to reach a host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Channel {
    Plain,
    EncryptedIfOffered,
    Encrypted,
}

pub(super) async fn connect(conninfo: &Conninfo, mode: Mode) -> Result<Connection, PostgresError> {
    match connect_any(conninfo, mode).await {
        Err(error) if mode == Mode::Replication => Err(refusal::explain(conninfo, error).await),
        answer => answer,
    }
}

/// Connects to the first host that answers; an error is the server's own.
pub(super) async fn connect_any(conninfo: &Conninfo, mode: Mode) -> Result<Connection, PostgresError> {
    let mut last = None;
    for host in &conninfo.hosts {
        match connect_host(conninfo, host, mode).await {
            Err(error) if another_host_may_help(&error) => last = Some(error),
            other => return other,
        }
    }
    Err(last.unwrap_or_else(|| PostgresError::protocol("the connection string names no host")))
}

fn another_host_may_help(error: &PostgresError) -> bool {
    match error {
        PostgresError::Server { sqlstate, .. } => !sqlstate.0.starts_with(b"28"),
        PostgresError::PasswordMissing { .. } | PostgresError::Authentication { .. } => false,
        _ => true,
    }
}

async fn connect_host(conninfo: &Conninfo, host: &Host, mode: Mode) -> Result<Connection, PostgresError> {
    let (first, second) = channels(conninfo.ssl_mode(host));
    let failed = match connect_channel(conninfo, host, mode, first).await {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    match second {
        Some(second) if another_channel_may_help(&failed) => {
            connect_channel(conninfo, host, mode, second).await
        }
        _ => Err(failed),
    }
}

fn channels(mode: SslMode) -> (Channel, Option<Channel>) {
    match mode {
        SslMode::Disable => (Channel::Plain, None),
        SslMode::Allow => (Channel::Plain, Some(Channel::EncryptedIfOffered)),
        SslMode::Prefer => (Channel::EncryptedIfOffered, Some(Channel::Plain)),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Channel::Encrypted, None),
    }
}

// pg_hba.conf may admit a user over one kind of channel only: 28000.
fn another_channel_may_help(error: &PostgresError) -> bool {
    match error {
        PostgresError::Tls { .. } => true,
        PostgresError::Server { sqlstate, .. } => sqlstate.0 == *b"28000",
        _ => false,
    }
}

async fn connect_channel(
    conninfo: &Conninfo,
    host: &Host,
    mode: Mode,
    channel: Channel,
) -> Result<Connection, PostgresError> {
    let wait = conninfo.connect_timeout;
    let transport = open(host, wait, conninfo.keepalive).await;
    let transport = transport.map_err(|source| PostgresError::Connect {
        host: host.display(),
        source,
    })?;
    let work = start(conninfo, host, mode, channel, transport);
    match wait {
        None => work.await,
        Some(wait) => tokio::time::timeout(wait, work)
            .await
            .unwrap_or_else(|_| Err(too_slow(host, wait))),
    }
}

fn too_slow(host: &Host, waited: Duration) -> PostgresError {
    PostgresError::Timeout {
        host: host.display(),
        waited,
        doing: "logging in",
    }
}

async fn start(
    conninfo: &Conninfo,
    host: &Host,
    mode: Mode,
    channel: Channel,
    transport: Transport,
) -> Result<Connection, PostgresError> {
    let (transport, binding) = match (transport, channel) {
        (Transport::Tcp(stream), Channel::Encrypted | Channel::EncryptedIfOffered) => {
            encrypt(conninfo, host, channel, stream).await?
        }
        (transport, _) => (transport, None),
    };
    let mut frames = Frames::new(transport);
    log_in(&mut frames, &login(conninfo, host, mode, binding)).await?;
    frames.set_bound(Bound::Session);
    let mut connection = Connection {
        frames,
        host: host.display(),
        parameters: Default::default(),
        notices: Vec::new(),
        process_id: 0,
        answer_timeout: ANSWER_TIMEOUT_DEFAULT,
        state: State::Running,
    };
    settle(&mut connection).await?;
    Ok(connection)
}

fn login<'a>(conninfo: &'a Conninfo, host: &'a Host, mode: Mode, binding: Option<Vec<u8>>) -> Login<'a> {
    let mut parameters = vec![
        ("user", conninfo.user.as_str()),
        ("application_name", conninfo.application_name.as_str()),
        ("client_encoding", "UTF8"),
    ];
    match mode {
        // A database here would make it a logical walsender.
        Mode::Replication => parameters.push(("replication", "true")),
        Mode::Sql => parameters.extend([("database", conninfo.database.as_str()), ("DateStyle", "ISO")]),
    }
    parameters.extend(conninfo.options.as_deref().map(|options| ("options", options)));
    Login {
        host,
        user: &conninfo.user,
        password: conninfo.password.as_ref(),
        passfile: conninfo.passfile.as_ref(),
        passfile_database: match mode {
            Mode::Replication => "replication",
            Mode::Sql => &conninfo.database,
        },
        parameters,
        binding_wanted: conninfo.channel_binding,
        binding,
    }
}

async fn encrypt(
    conninfo: &Conninfo,
    host: &Host,
    channel: Channel,
    mut stream: TcpStream,
) -> Result<(Transport, Option<Vec<u8>>), PostgresError> {
    let mode = conninfo.ssl_mode(host);
    match offer(&mut stream).await.map_err(|reason| PostgresError::Tls {
        host: host.display(),
        reason,
    })? {
        Offer::Yes => {
            let (stream, binding) = tls::handshake(stream, host, mode, &conninfo.tls).await?;
            Ok((Transport::Tls(Box::new(stream)), binding))
        }
        Offer::No if channel == Channel::Encrypted => Err(PostgresError::TlsRefused {
            host: host.display(),
            mode: mode.word(),
        }),
        Offer::No => Ok((Transport::Tcp(stream), None)),
    }
}

enum Offer {
    Yes,
    No,
}

// The buffer has room for more than the one byte that the protocol allows: bytes sent in clear before the handshake
// must never be taken for bytes of the encrypted channel (the class of CVE-2021-23222).
async fn offer(stream: &mut TcpStream) -> Result<Offer, String> {
    let mut request = bytes::BytesMut::new();
    frontend::ssl_request(&mut request);
    stream
        .write_all(&request)
        .await
        .map_err(|error| error.to_string())?;
    let mut answer = [0; 16];
    let length = stream
        .read(&mut answer)
        .await
        .map_err(|error| error.to_string())?;
    match &answer[..length] {
        [] => Err("the server closed the connection when asked for TLS".to_owned()),
        b"S" => Ok(Offer::Yes),
        b"N" => Ok(Offer::No),
        [b'S' | b'N', ..] => Err("the server sent bytes before the handshake".to_owned()),
        _ => Err("the server did not understand the request for TLS".to_owned()),
    }
}

/// Reads what follows a login, up to the first `Ready`.
async fn settle(connection: &mut Connection) -> Result<(), PostgresError> {
    loop {
        match connection.next_message().await? {
            Answer::Ready => return Ok(()),
            Answer::Notice(notice) => connection.keep(notice),
            other => return Err(unexpected(&other)),
        }
    }
}
