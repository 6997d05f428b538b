//! Listening on the addresses of a name.

use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket};

/// Bytes that the system takes for a connection before its client has read them (it doubles the
/// figure). Left to itself it takes megabytes: nothing that knows of a client that reads slowly
/// would notice, and pings would wait behind all of it.
const SEND_BUFFER: u32 = 128 * 1024;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

pub(super) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    // Each connection that is accepted has it from here.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Of the addresses of a name, with what came of listening on each, those that count: not the ones
/// that this machine does not have, unless it has none of them.
pub fn of_this_machine<T>(
    mut tried: Vec<(SocketAddr, io::Result<T>)>,
) -> Vec<(SocketAddr, io::Result<T>)> {
    let is_absent =
        |(_, result): &(SocketAddr, io::Result<T>)| result.as_ref().is_err_and(is_absent);
    if !tried.iter().all(is_absent) {
        tried.retain(|one| !is_absent(one));
    }
    tried
}

/// The machine does not have the address, or nothing of its family: `::1` stands in `/etc/hosts`
/// also where the kernel has no IPv6.
fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_the_machine_does_not_have_are_left_out_if_there_is_another() {
        let [v4, v6] = ["127.0.0.1:5005", "[::1]:5005"].map(|text| text.parse().expect("one"));
        let fails = |errno: Errno| Err(io::Error::from_raw_os_error(errno.raw_os_error()));
        let count = |tried: Vec<(SocketAddr, io::Result<()>)>| {
            let counting = of_this_machine(tried).into_iter();
            counting
                .map(|(address, result)| (address, result.err().and_then(|it| it.raw_os_error())))
                .collect::<Vec<_>>()
        };
        let taken = Errno::ADDRINUSE;
        for absent in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            let code = |errno: Errno| Some(errno.raw_os_error());
            assert_eq!(count(vec![(v6, fails(absent)), (v4, Ok(()))]), [(v4, None)]);
            assert_eq!(
                count(vec![(v4, fails(taken)), (v6, fails(absent))]),
                [(v4, code(taken))]
            );
            assert_eq!(count(vec![(v6, fails(absent))]), [(v6, code(absent))]);
        }
        assert_eq!(
            count(vec![(v6, Ok(())), (v4, fails(taken))]).len(),
            2,
            "one that is taken is no reason to go without it"
        );
    }
}
