//! Whether the restored server could listen where it is to.
//!
//! A port that somebody else has ends a start only after hours of restoring. So the very addresses are bound once, before
//! anything is touched: those of localhost, where alone a copy listens (settings), and a socket in a room as the server
//! would have it.
//! Promise: leaves nothing behind. Whoever takes the port afterwards is not foreseen.
//! Not here: starting it (server).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::error::RestoreError;
use super::owner::Owner;
use super::proof::ProofRoom;

/// Refuses a port or a directory of sockets that cannot be used.
pub(super) fn refuse_if_taken(port: u16, sockets: &Path, owner: Owner) -> Result<(), RestoreError> {
    for address in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    ] {
        match TcpListener::bind((address, port)) {
            Ok(_) => {}
            // A machine need not have IPv6.
            Err(error) if is_absent(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(RestoreError::PortTaken { port, address });
            }
            Err(source) => return Err(RestoreError::Port { port, source }),
        }
    }
    let refuse = |source| RestoreError::Sockets {
        directory: sockets.to_owned(),
        source,
    };
    let room = match ProofRoom::make(sockets, owner) {
        Err(RestoreError::Io { source, .. }) => return Err(refuse(source)),
        room => room?,
    };
    let bound = UnixListener::bind(room.path().join(format!(".s.PGSQL.{port}")));
    room.remove();
    bound.map(drop).map_err(refuse)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}
