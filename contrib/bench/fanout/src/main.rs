//! What `run.py` measures with. Each is a process of its own that takes its orders as lines on
//! standard input and ends when that ends:
//!
//! - `load PORT [ZMQ_PORT]`: many Socket.IO clients over WebSocket, see [`load`];
//! - `bare`: a server that does as little as can be, see [`bare`];
//! - `socketioxide`: the same with that crate, see [`oxide`].
//!
//! The servers print their port. A line to them is a payment: a JSON array of the texts of its
//! packets, as satwatch sent them.

mod bare;
mod load;
mod oxide;
mod ws;
mod zmtp;

use std::io::{self, BufRead};
use std::sync::mpsc;

use mio::{Poll, Token, Waker};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port = |at: usize| arguments.get(at).and_then(|text| text.parse().ok());
    match (arguments.first().map(String::as_str), port(1)) {
        (Some("load"), Some(server)) => load::run(server, port(2)),
        (Some("bare"), _) => bare::run(),
        (Some("socketioxide"), _) => oxide::run(),
        _ => Err(io::Error::other(
            "load PORT [ZMQ_PORT], bare or socketioxide",
        )),
    }
}

/// The lines of standard input, each told to `poll`; the channel is closed at its end.
fn orders(poll: &Poll, token: Token) -> io::Result<mpsc::Receiver<String>> {
    let waker = Waker::new(poll.registry(), token)?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
            waker.wake().ok();
        }
        drop(sender);
        waker.wake().ok();
    });
    Ok(receiver)
}
