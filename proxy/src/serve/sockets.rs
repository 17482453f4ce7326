//! Listening sockets: as many for an address as there are workers.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Connections that the kernel holds for us; it takes the least of this and `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// A peer that vanished without a word is found out.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Bind `count` sockets to one address, or none.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    // Sockets that share a port share it with another process of the same user, too, without a word from the kernel:
    // so first see that nobody else has it.
    check_free(address)?;
    (0..count).map(|_| socket(address, true)).collect()
}

/// Fail if an address is taken, or not of this machine.
pub fn check_free(address: SocketAddr) -> io::Result<()> {
    socket(address, false).map(drop)
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // Accepted connections inherit these.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_an_address_and_strangers_do_not() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let address = first[0].local_addr().unwrap();
        assert_eq!(
            bind(address, 2).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(first);
        assert_eq!(bind(address, 3).unwrap().len(), 3);
    }
}
