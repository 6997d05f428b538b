//! Many connections: of one address, of many, silent ones and such that ask once and stay. Who is
//! there already hears everything, and who comes new is answered while any place can be made free.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::Duration;

use serde_json::Value;

use super::raw;
use super::well_behaved::WellBehaved;
use crate::common::http::connect_from;
use crate::common::{Daemon, wait_until};

const ASK: &str = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// All connections; half of them unfinished at most.
const CONNECTIONS: usize = 300;
const OF_ONE: usize = 50;
const UNFINISHED: usize = 100;

fn limits(daemon: &Daemon) -> Value {
    daemon.get("/status").json["limits"].clone()
}

/// The status of the answer on a connection that stays open; 0 if there is none.
fn asked(stream: &TcpStream) -> u16 {
    raw::send(stream, ASK);
    raw::statuses(&raw::head(stream))
        .first()
        .copied()
        .unwrap_or(0)
}

/// Opens connections without a break, the newest hundreds held, until it is told to stop.
fn keep_coming(
    port: u16,
    address: impl Fn(usize) -> [u8; 4] + Send + 'static,
) -> impl FnOnce() -> usize {
    let is_over = Arc::new(AtomicBool::new(false));
    let own = is_over.clone();
    let flood = spawn(move || {
        let (mut held, mut count) = (std::collections::VecDeque::new(), 0);
        while !own.load(Ordering::Relaxed) {
            held.extend(connect_from(address(count), port).ok());
            count += 1;
            if held.len() > 2 * CONNECTIONS {
                held.pop_front();
            }
            // A thousand a second or so.
            sleep(Duration::from_micros(500));
        }
        count
    });
    move || {
        is_over.store(true, Ordering::Relaxed);
        flood.join().expect("it does not panic")
    }
}

#[test]
fn floods_of_connections_keep_nobody_out_who_means_well() {
    let node = super::node();
    let (all, of_one, unfinished) = (
        CONNECTIONS.to_string(),
        OF_ONE.to_string(),
        UNFINISHED.to_string(),
    );
    let settings = [
        ("limits.connections", &*all),
        ("limits.connections_per_address", &*of_one),
        ("limits.unfinished_handshakes", &*unfinished),
    ];
    let daemon = Daemon::with(&node, &settings);
    let port = daemon.port();
    let well_behaved = WellBehaved::begin(&node, &daemon);

    // One address that asks, and stays: as many as it may have, and not one more.
    let crowd: Vec<_> = (0..2 * CONNECTIONS)
        .map(|_| connect_from([127, 0, 0, 2], port).expect("it listens"))
        .collect();
    let statuses: Vec<u16> = crowd.iter().map(asked).collect();
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(served, OF_ONE, "{statuses:?}");
    assert!(
        statuses.iter().all(|status| [200, 429, 0].contains(status)),
        "{statuses:?}"
    );
    assert_eq!(daemon.get("/health/ready").status, 200, "somebody new");
    assert_eq!(
        asked(&connect_from([127, 0, 0, 3], port).expect("it listens")),
        200
    );
    assert_eq!(limits(&daemon)["connections_per_address"]["used"], OF_ONE);
    well_behaved.hear();
    drop(crowd);
    well_behaved.given_back();

    // Silent ones, without a break, of one address, of this machine's own, and of many.
    let addresses: [fn(usize) -> [u8; 4]; 3] = [
        |_| [127, 0, 0, 2],
        |_| [127, 0, 0, 1],
        |count| [127, 1, (count / 200 % 200) as u8, (count % 200) as u8 + 1],
    ];
    for (place, address) in addresses.into_iter().enumerate() {
        let stop = keep_coming(port, address);
        for _ in 0..20 {
            let limits = limits(&daemon);
            let used = |name: &str| limits[name]["used"].as_u64().unwrap_or(u64::MAX) as usize;
            assert!(used("unfinished_handshakes") <= UNFINISHED, "{limits}");
            assert!(used("connections") < CONNECTIONS, "{limits}");
            assert_eq!(
                asked(&connect_from([127, 0, 0, 3], port).expect("it listens")),
                200
            );
        }
        well_behaved.hear();
        let count = stop();
        println!("flood {place}: {count} connections");
        well_behaved.given_back();
    }
    let refused = limits(&daemon);
    for name in ["connections_per_address", "unfinished_handshakes"] {
        assert_ne!(refused[name]["refused"], 0, "it is said: {refused}");
        assert!(
            daemon.log().contains(&format!("limits.{name} is reached")),
            "{name}"
        );
    }

    // Many addresses that ask, and stay, until no place is left.
    let crowd: Vec<_> = (0..2 * CONNECTIONS)
        .map(|count| {
            let from = [127, 2, (count / 4 / 200) as u8, (count / 4 % 200) as u8 + 1];
            let stream = connect_from(from, port).expect("the system queues it");
            raw::send(&stream, ASK);
            stream
        })
        .collect();
    wait_until("it is said that there are too many", || {
        daemon
            .log()
            .contains("the limit of open connections is reached")
            .then_some(())
    });
    // Who is there hears everything; who comes new is answered when some have left.
    well_behaved.hear();
    let late = raw::connect(port);
    raw::send(&late, ASK);
    drop(crowd);
    assert!(raw::head(&late).starts_with("HTTP/1.1 200"));
    drop(late);
    well_behaved.end();
}
