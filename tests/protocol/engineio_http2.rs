//! Polling over HTTP/2 without TLS (h2c), where requests of one connection overlap and a request is
//! cancelled without its connection.
//!
//! The client writes its frames by hand (RFC 9113, RFC 7541): header fields as plain literals, and
//! of an answer's it reads only the status, which is a byte of the static table.

use std::collections::HashMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::engineio_rig::{Server, sid_of, within};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

#[derive(Debug, Default, Clone)]
struct Answer {
    status: u16,
    body: String,
    whole: bool,
}

struct Client {
    stream: TcpStream,
    next: u32,
    answers: HashMap<u32, Answer>,
}

impl Client {
    async fn connect(server: &Server) -> Self {
        let mut client = Self {
            stream: server.raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await,
            next: 1,
            answers: HashMap::new(),
        };
        client.frame(SETTINGS, 0, 0, &[]).await;
        client
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).expect("short").to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.stream
            .write_all(&frame)
            .await
            .expect("the server reads");
    }

    /// Gives the stream of the request.
    async fn request(&mut self, method: &str, query: &str, body: Option<&str>) -> u32 {
        let id = self.next;
        self.next += 2;
        // The indexes of the static table: method GET 2 or POST 3, scheme http 6, then the names
        // path 4 and authority 1.
        let mut fields = vec![if method == "POST" { 0x83 } else { 0x82 }, 0x86];
        for (name, value) in [
            (4, format!("/engine.io/?EIO=4&transport=polling{query}")),
            (1, "x".to_owned()),
        ] {
            fields.extend([name, u8::try_from(value.len()).expect("under 127")]);
            fields.extend(value.as_bytes());
        }
        let flags = if body.is_none() {
            END_HEADERS | END_STREAM
        } else {
            END_HEADERS
        };
        self.frame(HEADERS, flags, id, &fields).await;
        if let Some(body) = body {
            self.frame(DATA, END_STREAM, id, body.as_bytes()).await;
        }
        id
    }

    async fn cancel(&mut self, id: u32) {
        const CANCEL: u32 = 8;
        self.frame(RST_STREAM, 0, id, &CANCEL.to_be_bytes()).await;
    }

    async fn answer(&mut self, id: u32) -> (u16, String) {
        while !self.answers.get(&id).is_some_and(|answer| answer.whole) {
            self.read_frame().await;
        }
        let answer = self.answers.remove(&id).expect("seen above");
        (answer.status, answer.body)
    }

    async fn read_frame(&mut self) {
        let mut head = [0; 9];
        within(self.stream.read_exact(&mut head))
            .await
            .expect("a frame");
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        within(self.stream.read_exact(&mut payload))
            .await
            .expect("its payload");
        let (kind, flags, id) = (
            head[3],
            head[4],
            u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
        );
        let answer = self.answers.entry(id).or_default();
        match kind {
            SETTINGS if flags & ACK == 0 => return self.frame(SETTINGS, ACK, 0, &[]).await,
            HEADERS => {
                let status = payload
                    .iter()
                    .find(|byte| **byte & 0xe0 != 0x20)
                    .expect("behind the table's size");
                answer.status = match status {
                    0x88 => 200,
                    0x8c => 400,
                    other => panic!("{other:#x} stands for neither 200 nor 400"),
                };
            }
            DATA => answer
                .body
                .push_str(str::from_utf8(&payload).expect("text")),
            _ => return,
        }
        answer.whole |= flags & END_STREAM != 0;
    }

    async fn open(&mut self) -> String {
        let id = self.request("GET", "", None).await;
        let (status, body) = self.answer(id).await;
        assert_eq!(status, 200);
        sid_of(&body)
    }
}

#[tokio::test]
async fn a_poll_and_a_post_overlap_on_one_connection() {
    let server = Server::start(|_| {}).await;
    let mut client = Client::connect(&server).await;
    let (one, other) = (client.open().await, client.open().await);
    let poll = client.request("GET", &format!("&sid={one}"), None).await;
    let other_poll = client.request("GET", &format!("&sid={other}"), None).await;
    let post = client
        .request("POST", &format!("&sid={one}"), Some("4hellö\x1ebAQI="))
        .await;
    assert_eq!(client.answer(post).await, (200, "ok".to_owned()));
    assert_eq!(
        client.answer(poll).await,
        (200, "4hellö\x1ebAQI=".to_owned())
    );
    let post = client
        .request("POST", &format!("&sid={other}"), Some("1"))
        .await;
    assert_eq!(client.answer(other_poll).await, (200, "6".to_owned()));
    assert_eq!(client.answer(post).await, (200, "ok".to_owned()));
    let late = client.request("GET", &format!("&sid={other}"), None).await;
    assert_eq!(client.answer(late).await.0, 400);
    assert_eq!(server.service.session_count(), 1);
}

#[tokio::test]
async fn a_cancelled_poll_ends_its_session_and_not_the_connection() {
    let server = Server::start(|_| {}).await;
    let mut client = Client::connect(&server).await;
    let (one, other) = (client.open().await, client.open().await);
    let poll = client.request("GET", &format!("&sid={one}"), None).await;
    // Answered, so the poll before it has arrived.
    let post = client
        .request("POST", &format!("&sid={other}"), Some("4a"))
        .await;
    assert_eq!(client.answer(post).await, (200, "ok".to_owned()));
    client.cancel(poll).await;
    server.echo().wait_for("close transport close").await;
    let poll = client.request("GET", &format!("&sid={other}"), None).await;
    assert_eq!(client.answer(poll).await, (200, "4a".to_owned()));
    assert_eq!(server.service.session_count(), 1);
}

#[tokio::test]
async fn two_polls_on_one_connection_end_the_session() {
    let server = Server::start(|_| {}).await;
    let mut client = Client::connect(&server).await;
    let sid = client.open().await;
    let first = client.request("GET", &format!("&sid={sid}"), None).await;
    let second = client.request("GET", &format!("&sid={sid}"), None).await;
    assert_eq!(client.answer(first).await, (200, "1".to_owned()));
    assert_eq!(client.answer(second).await.0, 400);
}
