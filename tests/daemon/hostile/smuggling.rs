//! Requests whose end a proxy in front and the daemon may see in different places, so that what is
//! the body of one to the one is a request of its own to the other; and requests that name another
//! host than they are sent to. Each is answered once, and what it carries is never done.

use super::raw;
use super::well_behaved::WellBehaved;
use crate::common::Daemon;

/// What is carried: if it were taken for a request, it would stop the daemon's following the node.
const CARRIED: &str = "POST /stop HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// The last request of each connection.
const LAST: &str = "GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
/// The end of a body in chunks.
const END: &str = "0\r\n\r\n";

/// A request with these headers and this body; `LENGTH` stands for the body's.
fn post(headers: &str, body: &str) -> String {
    let headers = headers.replace("LENGTH", &body.len().to_string());
    format!("POST /add_address HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{body}")
}

/// Both lengths: that of `Content-Length` is the longer one.
fn lengths() -> Vec<String> {
    let body = format!("{END}{CARRIED}");
    let both = |headers: &str| post(headers, &body);
    let mut shapes: Vec<String> = [
        "Content-Length: LENGTH\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: LENGTH",
        "Transfer-Encoding: chunked\r\nContent-Length: LENGTH\r\nContent-Length: LENGTH",
        "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\ncontent-length: LENGTH",
    ]
    .map(both)
    .into();
    // Whoever does not take one of these for `chunked` goes by the other header.
    for encoding in [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: CHUNKED",
        "Transfer-Encoding: chunked \t",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding:chunked",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chunked\x0c",
        "Transfer-Encoding: chunked\0",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer\0-Encoding: chunked",
        "Transfer_Encoding: chunked",
        " Transfer-Encoding: chunked",
        "X: a\r\n Transfer-Encoding: chunked",
        "X: a\rTransfer-Encoding: chunked",
        "X: a\nTransfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:\r\nTransfer-Encoding: chunked",
    ] {
        shapes.push(both(&format!("{encoding}\r\nContent-Length: LENGTH")));
        shapes.push(both(&format!("Content-Length: LENGTH\r\n{encoding}")));
    }
    // Two lengths, or one that is none.
    for length in [
        "Content-Length: 0\r\nContent-Length: LENGTH",
        "Content-Length: LENGTH\r\nContent-Length: 0",
        "Content-Length: 0, LENGTH",
        "Content-Length: LENGTH, LENGTH",
        "Content-Length: +LENGTH",
        "Content-Length: -1",
        "Content-Length: 0x10",
        "Content-Length: LENGTH.0",
        "Content-Length: 1e1",
        "Content-Length: LENGTH;",
        "Content-Length:",
        "Content-Length : LENGTH",
        "Content-Length\r\n: LENGTH",
        "Content-Length: \r\n LENGTH",
        "Content-Length: 18446744073709551616",
        "Content-Length: 99999999999999999999999999999999",
        "X: a\nContent-Length: LENGTH",
        "X: a\rContent-Length: LENGTH",
    ] {
        shapes.push(post(length, CARRIED));
    }
    shapes.push(
        post("Content-Length: LENGTH", CARRIED).replace("HTTP/1.1\r\nHost", "HTTP/1.0\r\nHost"),
    );
    shapes.push(both("Transfer-Encoding: chunked").replace(
        "1.1\r\nHost: localhost\r\nTr",
        "1.0\r\nHost: localhost\r\nTr",
    ));
    shapes
}

/// Chunks of which not everybody finds the end.
fn chunks() -> Vec<String> {
    let body = CARRIED.len();
    [
        // Behind an extension, or a size, that a line feed alone may end.
        format!("2;x\n{{}}\r\n{END}{CARRIED}"),
        format!("2\n{{}}\r\n{END}{CARRIED}"),
        format!("0\n\n{CARRIED}"),
        format!("2;x=\"\r\n\"\r\n{{}}\r\n{END}{CARRIED}"),
        format!("2 ;x\r\n{{}}{END}{CARRIED}"),
        // Sizes that are none.
        format!("+2\r\n{{}}\r\n{END}{CARRIED}"),
        format!("-2\r\n{{}}\r\n{END}{CARRIED}"),
        format!("0x2\r\n{{}}\r\n{END}{CARRIED}"),
        format!(" 2\r\n{{}}\r\n{END}{CARRIED}"),
        format!("\r\n{{}}\r\n{END}{CARRIED}"),
        format!("2 2\r\n{{}}\r\n{END}{CARRIED}"),
        format!("10000000000000002\r\n{{}}\r\n{END}{CARRIED}"),
        format!("2_2\r\n{{}}\r\n{END}{CARRIED}"),
        // Data that is longer, or shorter, than its size.
        format!("2\r\n{{}}x\r\n{END}{CARRIED}"),
        format!("2\r\n{{}}{END}{CARRIED}"),
        format!("{body:x}\r\n{CARRIED}\r\n{END}"),
        // Trailers that would be headers.
        format!("0\r\nContent-Length: {body}\r\n\r\n"),
        "0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        format!("0\r\nX: a\n\n{CARRIED}"),
        format!("0\r\n{CARRIED}\r\n"),
    ]
    .map(|chunks| post("Transfer-Encoding: chunked", &chunks))
    .into()
}

/// Bodies that are not read, since the answer does not depend on them.
fn unread() -> Vec<String> {
    let host = "HTTP/1.1\r\nHost: localhost\r\n";
    let length = format!("Content-Length: {}\r\n\r\n{CARRIED}", CARRIED.len());
    let mut shapes = Vec::new();
    for line in [
        "GET /health/live",
        "GET /status",
        "HEAD /status",
        "GET /nowhere",
        "POST /nowhere",
        "PUT /status",
        "DELETE /status",
        "OPTIONS /status",
        "GET /",
        "POST /",
        "POST /socket.io/?EIO=4&transport=polling&sid=none",
        "POST /socket.io/?EIO=9",
        "GET /socket.io/?EIO=4&transport=polling&sid=none",
    ] {
        shapes.push(format!("{line} {host}{length}"));
        shapes.push(format!("{line} {host}Expect: 100-continue\r\n{length}"));
        shapes.push(format!(
            "{line} {host}Origin: http://elsewhere.example\r\n{length}"
        ));
    }
    shapes
}

/// The target names a host, or another protocol is asked for.
fn targets() -> Vec<(String, &'static [u16])> {
    let get = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\n{headers}\r\n\r\n");
    const REFUSED: &[u16] = &[400, 403, 404, 405];
    vec![
        (get("http://localhost/status", "Host: localhost"), &[200]),
        (
            get("http://elsewhere.example/status", "Host: localhost"),
            REFUSED,
        ),
        (
            get("http://localhost/status", "Host: elsewhere.example"),
            REFUSED,
        ),
        (
            get(
                "http://localhost@elsewhere.example/status",
                "Host: localhost",
            ),
            REFUSED,
        ),
        (
            get(
                "http://elsewhere.example:80@localhost/status",
                "Host: localhost",
            ),
            REFUSED,
        ),
        (
            get(
                "http://localhost.elsewhere.example/status",
                "Host: localhost",
            ),
            REFUSED,
        ),
        (
            get("//elsewhere.example/status", "Host: localhost"),
            REFUSED,
        ),
        (
            get("/status", "Host: localhost\r\nHost: elsewhere.example"),
            REFUSED,
        ),
        (
            get("/status", "Host: elsewhere.example\r\nHost: localhost"),
            REFUSED,
        ),
        (
            get("/status", "Host: localhost, elsewhere.example"),
            REFUSED,
        ),
        (get("/status", "Host: localhost elsewhere.example"), REFUSED),
        (get("/status", "Host: localhost/elsewhere.example"), REFUSED),
        (get("/status", "Host: elsewhere.example#localhost"), REFUSED),
        (get("/status", "Host:\r\n localhost"), REFUSED),
        (get("/status", "Host : localhost"), REFUSED),
        (get("/status", ""), REFUSED),
        (
            "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n".to_owned(),
            REFUSED,
        ),
        (
            "CONNECT elsewhere.example:80 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            REFUSED,
        ),
        (
            get(
                "/status",
                "Host: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            ),
            &[200],
        ),
        (
            get(
                "/status",
                "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: TLS/1.0",
            ),
            &[200],
        ),
        // Frames of HTTP/2 come back.
        (format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{CARRIED}"), &[]),
        (
            format!("GET /status HTTP/2.0\r\nHost: localhost\r\n\r\n{CARRIED}"),
            REFUSED,
        ),
        (
            format!("GET /status HTTP/0.9\r\nHost: localhost\r\n\r\n{CARRIED}"),
            REFUSED,
        ),
        (format!("GET /status\r\n{CARRIED}"), REFUSED),
        (
            format!("GET  /status  HTTP/1.1\r\nHost: localhost\r\n\r\n{CARRIED}"),
            REFUSED,
        ),
        (
            format!("GET\t/status\tHTTP/1.1\r\nHost: localhost\r\n\r\n{CARRIED}"),
            REFUSED,
        ),
    ]
}

/// All answers on a connection that begins with these bytes and, once they are answered, ends with
/// the last request.
fn answers(port: u16, bytes: &str) -> String {
    let stream = raw::connect(port);
    raw::send(&stream, bytes);
    let begun = raw::head(&stream);
    raw::send(&stream, LAST);
    begun + &raw::rest(&stream)
}

#[test]
fn a_request_is_answered_once_and_what_it_carries_is_not_done() {
    let node = super::node();
    let daemon = Daemon::start(&node);
    let well_behaved = WellBehaved::begin(&node, &daemon);
    let is_carried_out = |answers: &str| {
        answers.contains("onitoring stopped") || daemon.get("/status").json["is_running"] != true
    };
    let shapes = [lengths(), chunks(), unread()].concat();
    for shape in &shapes {
        let answers = answers(daemon.port(), shape);
        let mut statuses = raw::statuses(&answers);
        statuses.retain(|status| *status != 100);
        // Its own, and that of the last one if the connection could go on.
        assert!(
            (1..=2).contains(&statuses.len()) && statuses.get(1).is_none_or(|last| *last == 200),
            "{shape:?}: {answers}"
        );
        assert!(!is_carried_out(&answers), "{shape:?}: {answers}");
    }
    for (shape, expected) in targets() {
        let answers = answers(daemon.port(), &shape);
        let first = raw::statuses(&answers).first().copied();
        assert!(
            first.is_none_or(|it| expected.contains(&it)) && first.is_none() == expected.is_empty(),
            "{shape:?}: {answers}"
        );
        assert!(!is_carried_out(&answers), "{shape:?}: {answers}");
    }
    let watched = daemon.get("/addresses").json["total"].clone();
    assert_eq!(watched, 1, "that of those who mean well");
    well_behaved.end();
    // As a request of its own it would have been done.
    assert!(is_carried_out(&answers(
        daemon.port(),
        &post("Content-Length: 0", CARRIED)
    )));
}
