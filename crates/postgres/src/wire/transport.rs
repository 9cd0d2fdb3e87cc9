//! The socket: unix or TCP, plain or encrypted.
//!
//! Promise: keepalive is on for TCP, so that a dead peer ends every wait.
//! Not here: whether encryption is wanted (connection), certificates (tls).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::conninfo::{Host, HostAddress, Keepalive};

/// One connected socket.
pub(crate) enum Transport {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to a host, trying each of its addresses for at most `wait`.
pub(crate) async fn open(
    host: &Host,
    wait: Option<Duration>,
    keepalive: Option<Keepalive>,
) -> io::Result<Transport> {
    match &host.address {
        HostAddress::Unix(directory) => {
            let path = directory.join(format!(".s.PGSQL.{}", host.port));
            Ok(Transport::Unix(within(wait, UnixStream::connect(path)).await?))
        }
        HostAddress::Tcp(name) => open_tcp(name, host, wait, keepalive).await.map(Transport::Tcp),
    }
}

async fn open_tcp(
    name: &str,
    host: &Host,
    wait: Option<Duration>,
    keepalive: Option<Keepalive>,
) -> io::Result<TcpStream> {
    let addresses: Vec<_> = match host.numeric {
        Some(numeric) => vec![(numeric, host.port).into()],
        None => within(wait, tokio::net::lookup_host((name, host.port)))
            .await?
            .collect(),
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match within(wait, TcpStream::connect(address)).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                keep_alive(&stream, keepalive)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn keep_alive(stream: &TcpStream, keepalive: Option<Keepalive>) -> io::Result<()> {
    use rustix::net::sockopt;
    let Some(keepalive) = keepalive else { return Ok(()) };
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, keepalive.idle)?;
    sockopt::set_tcp_keepintvl(stream, keepalive.interval)?;
    sockopt::set_tcp_keepcnt(stream, keepalive.count)?;
    Ok(())
}

async fn within<T>(wait: Option<Duration>, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match wait {
        None => work.await,
        Some(wait) => tokio::time::timeout(wait, work)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
