//! A SOCKS 5 proxy (RFC 1928) that leads every name to one port of this machine and keeps what it
//! was asked for.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

const NAME: u8 = 3;

pub struct Socks {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Socks {
    /// `target`: the port to which everything leads.
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let all = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let all = all.clone();
                thread::spawn(move || serve(stream, target, &all));
            }
        });
        Self { port, asked }
    }

    /// As `webhooks.proxy` has it.
    pub fn url(&self) -> String {
        format!("socks5h://127.0.0.1:{}", self.port)
    }

    /// Names (or kinds of address) and ports that it was asked to connect to.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics with it").clone()
    }
}

fn serve(mut client: TcpStream, target: u16, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut bytes = |count: usize| {
        let mut bytes = vec![0; count];
        client.read_exact(&mut bytes).map(|()| bytes)
    };
    // Version and methods; no authentication is needed.
    let methods = bytes(2)?[1];
    bytes(methods.into())?;
    client.write_all(&[5, 0])?;
    let mut bytes = |count: usize| {
        let mut bytes = vec![0; count];
        client.read_exact(&mut bytes).map(|()| bytes)
    };
    // Version, command, reserved, kind of address.
    let kind = bytes(4)?[3];
    let name = match kind {
        NAME => {
            let length = bytes(1)?[0];
            String::from_utf8_lossy(&bytes(length.into())?).into_owned()
        }
        other => format!("address of kind {other}"),
    };
    let port = bytes(2)?;
    let port = u16::from_be_bytes([port[0], port[1]]);
    let all = format!("{name}:{port}");
    asked.lock().expect("nobody panics with it").push(all);
    let server = TcpStream::connect(("127.0.0.1", target))?;
    client.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0])?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Write)
    });
    let (mut from, mut to) = (server, client);
    io::copy(&mut from, &mut to).map(|_| ())
}
