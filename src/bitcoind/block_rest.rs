//! The node's REST interface: blocks and what they spend, as bytes over kept connections.
//!
//! A scan does little with a block, so what it takes to receive it decides how fast it is. `ureq`
//! ([`super::http`]) hands a megabyte from buffer to buffer in small pieces, and each call has a
//! thread change on both sides; hyper reads it in a few large ones, on the runtime.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::http::is_out_of_files;
use super::url::{authority, with_port};
use super::{NodeError, NodeErrorKind};
use crate::remedy::Remedy;

/// From the request to the last byte.
const TIME: Duration = Duration::from_secs(60);
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// A block is at most 4 MB, and what it spends about as much.
const MOST_BYTES: usize = 16 << 20;
/// bitcoind closes idle connections after 30 s (`-rpcservertimeout`).
const IDLE: Duration = Duration::from_secs(25);

type KeptConnection = SendRequest<Empty<Bytes>>;

pub(super) struct BlockRest {
    /// `host:port`, or `host`.
    authority: String,
    idle: Mutex<Vec<(KeptConnection, Instant)>>,
    end: CancellationToken,
}

/// What ends an exchange before its answer.
enum Broken {
    /// A kept connection that the node closed in this moment looks like this.
    KeptConnection,
    TooLong,
}

impl From<hyper::Error> for Broken {
    fn from(_: hyper::Error) -> Self {
        Self::KeptConnection
    }
}

impl BlockRest {
    /// `url`: `http://host:port[/path]`. Connects at the first call.
    pub(super) fn new(url: &str) -> Self {
        Self {
            authority: authority(url).to_owned(),
            idle: Mutex::default(),
            end: CancellationToken::new(),
        }
    }

    /// Ends all calls; later ones fail.
    pub(super) fn close(&self) {
        self.end.cancel();
    }

    /// `GET` of a path under `/rest/`, into `room`, whose content does not matter. `None`: the node
    /// does not have it, or offers no REST.
    pub(super) async fn get(
        &self,
        path: &str,
        room: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, NodeError> {
        tokio::select! {
            answer = timeout(TIME, self.get_at_last(path, room)) => {
                answer.unwrap_or_else(|_| Err(self.failed(NodeErrorKind::TimedOut, "did not answer in time")))
            }
            () = self.end.cancelled() => Err(self.failed(NodeErrorKind::Unreachable, "is not asked any more: the daemon stops")),
        }
    }

    async fn get_at_last(
        &self,
        path: &str,
        mut room: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, NodeError> {
        loop {
            let kept = self.take();
            let may_be_stale = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            match self.exchange(&mut connection, path, &mut room).await {
                Ok(status) => {
                    self.keep(connection);
                    return match status {
                        StatusCode::OK => Ok(Some(room)),
                        StatusCode::SERVICE_UNAVAILABLE => Err(self
                            .failed(
                                NodeErrorKind::Busy,
                                "has no room for a block over REST (rpcworkqueue is full)",
                            )
                            .advise(Remedy::EnlargeWorkQueue)),
                        _ => Ok(None),
                    };
                }
                Err(Broken::KeptConnection) if may_be_stale => {}
                Err(Broken::KeptConnection) => {
                    return Err(self.failed(NodeErrorKind::Unreachable, "broke the connection"));
                }
                Err(Broken::TooLong) => {
                    return Err(self.failed(
                        NodeErrorKind::Shape,
                        "answered with more than a block can hold",
                    ));
                }
            }
        }
    }

    async fn exchange(
        &self,
        connection: &mut KeptConnection,
        path: &str,
        room: &mut Vec<u8>,
    ) -> Result<StatusCode, Broken> {
        let request = Request::get(format!("/rest/{path}"))
            .header(HOST, &self.authority)
            .body(Empty::new());
        let request = request.map_err(|_| Broken::KeptConnection)?;
        connection.ready().await?;
        let (head, mut body) = connection.send_request(request).await?.into_parts();
        room.clear();
        let size = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if size > MOST_BYTES {
            return Err(Broken::TooLong);
        }
        room.reserve(size);
        while let Some(frame) = body.frame().await {
            let Ok(bytes) = frame?.into_data() else {
                continue;
            };
            if room.len().saturating_add(bytes.len()) > MOST_BYTES {
                return Err(Broken::TooLong);
            }
            room.extend_from_slice(&bytes);
        }
        Ok(head.status)
    }

    async fn connect(&self) -> Result<KeptConnection, NodeError> {
        let unreachable = |error: std::io::Error| match is_out_of_files(&error) {
            true => self
                .failed(
                    NodeErrorKind::TooManyFiles,
                    "cannot be connected to: satwatch has too many open files",
                )
                .advise(Remedy::RaiseFileLimit),
            false => self
                .failed(NodeErrorKind::Unreachable, "does not answer")
                .advise(Remedy::StartServer),
        };
        let address = with_port(&self.authority);
        let stream = match timeout(CONNECT_TIME, TcpStream::connect(address)).await {
            Ok(stream) => stream.map_err(unreachable)?,
            Err(_) => {
                return Err(self.failed(NodeErrorKind::Unreachable, "gives no connection in time"));
            }
        };
        // A request is one small packet; the answer to it must not wait for anything.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|_| self.failed(NodeErrorKind::Unreachable, "broke the connection"))?;
        let end = self.end.clone();
        tokio::spawn(async move {
            tokio::select! {
                // However it ends, whoever waits for an answer hears of it.
                _ = connection => {}
                () = end.cancelled() => {}
            }
        });
        Ok(sender)
    }

    fn take(&self) -> Option<KeptConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(connection, since)| !connection.is_closed() && since.elapsed() < IDLE);
        idle.pop().map(|(connection, _)| connection)
    }

    fn keep(&self, connection: KeptConnection) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((connection, Instant::now()));
    }

    fn failed(&self, kind: NodeErrorKind, what: &str) -> NodeError {
        let message = format!("bitcoind at {} {what}", self.authority);
        if kind == NodeErrorKind::Shape {
            NodeError::persistent(kind, message)
        } else {
            NodeError::transient(kind, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives each connection these answers, one for each request, and closes it then.
    async fn server(answers: Vec<&'static str>) -> BlockRest {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 1000];
                for answer in &answers {
                    if stream.read(&mut request).await.unwrap_or(0) == 0 {
                        break;
                    }
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        BlockRest::new(&format!("http://{address}/"))
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_one_that_the_node_closed_meanwhile_is_replaced() {
        let rest = server(vec![
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx",
        ])
        .await;
        for _ in 0..3 {
            assert_eq!(rest.get("a", vec![9; 5]).await, Ok(Some(b"abc".to_vec())));
            assert_eq!(rest.get("a", Vec::new()).await, Ok(None));
        }
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_or_never_ends_is_no_block() {
        let rest = server(vec!["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"]).await;
        assert_eq!(
            rest.get("a", Vec::new())
                .await
                .expect_err("it is cut off")
                .kind,
            NodeErrorKind::Unreachable
        );
        let rest = server(vec![
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nab",
        ])
        .await;
        assert_eq!(
            rest.get("a", Vec::new())
                .await
                .expect_err("it is too long")
                .kind,
            NodeErrorKind::Shape
        );
        let rest = server(vec!["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"]).await;
        assert_eq!(
            rest.get("a", Vec::new())
                .await
                .expect_err("it is busy")
                .kind,
            NodeErrorKind::Busy
        );
    }

    #[tokio::test]
    async fn closing_ends_who_waits_and_who_comes_later() {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let rest = BlockRest::new(&format!(
            "http://{}",
            listener.local_addr().expect("it listens")
        ));
        let (answer, ()) = tokio::join!(rest.get("a", Vec::new()), async {
            let _stream = listener.accept().await.expect("it connects");
            rest.close();
        });
        assert_eq!(
            answer.expect_err("it is closed").kind,
            NodeErrorKind::Unreachable
        );
        assert!(rest.get("a", Vec::new()).await.is_err());
    }
}
