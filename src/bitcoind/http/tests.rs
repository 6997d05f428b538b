use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::bitcoind::NodeErrorKind;

const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1";

async fn listener() -> (TcpListener, Arc<Http>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let credentials = Credentials::User {
        user: "user".into(),
        password: Secret("password".into()),
        conf: None,
    };
    let http = Http::new(NodeUrl::parse(&address).unwrap(), credentials);
    (listener, Arc::new(http))
}

/// Reads a request. `false`: the connection has ended.
async fn asked(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0; 1000]).await.unwrap_or(0) > 0
}

/// A server that gives each connection these answers, one for each request, and ends it at the
/// request after them; at once after an answer without an end.
async fn server(answers: &'static [&'static str]) -> Arc<Http> {
    let (listener, http) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            for answer in answers {
                asked(&mut stream).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            if !answers.contains(&HALF) {
                asked(&mut stream).await;
            }
        }
    });
    http
}

#[tokio::test]
async fn a_connection_is_kept_and_one_that_ends_unanswered_is_replaced() {
    let http = server(&[
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx",
    ])
    .await;
    for _ in 0..3 {
        let found = http.get("a").await;
        assert_eq!(found, Ok(Some("abc".into())));
        assert_eq!(http.get("a").await, Ok(None));
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_breaks_off_or_never_ends_is_none() {
    for (answers, kind, words) in [
        (&[][..], NodeErrorKind::Unreachable, "broke during uptime"),
        (&[HALF], NodeErrorKind::Unreachable, "broke during uptime"),
        (
            &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1,2,3,4]"],
            NodeErrorKind::TooLong,
            "answered uptime with more than 0 MB",
        ),
        (
            &["HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"],
            NodeErrorKind::Busy,
            "has no room for uptime",
        ),
    ] {
        let limit = Limit {
            bytes: 8,
            ..Limit::LIGHT
        };
        let http = server(answers).await;
        let error = http.post("uptime", Vec::new(), limit).await.unwrap_err();
        assert!(
            error.kind == kind && error.message.contains(words),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_used_again() {
    let (listener, http) = listener().await;
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                while asked(&mut stream).await {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    let calls = async || {
        for _ in 0..200 {
            http.get("a").await.unwrap();
        }
    };
    tokio::join!(calls(), calls(), calls());
    let all = accepted.load(Ordering::Relaxed);
    assert!(all <= 2 * CALLS, "{all}");
}

#[tokio::test]
async fn a_call_is_given_up_when_its_time_is_over() {
    let (_listener, http) = listener().await;
    let limit = Limit {
        time: Duration::from_millis(20),
        ..Limit::LIGHT
    };
    let error = http.post("uptime", Vec::new(), limit).await.unwrap_err();
    assert_eq!(error.kind, NodeErrorKind::TimedOut);
}

#[tokio::test]
async fn the_connection_of_a_short_call_that_nobody_waits_for_ends() {
    let (listener, http) = listener().await;
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(asked(&mut stream).await);
        stream
    };
    let mut stream = tokio::select! {
        _ = http.post("uptime", Vec::new(), Limit::LIGHT) => unreachable!("nobody answers"),
        stream = served => stream,
    };
    assert!(!asked(&mut stream).await);
}

/// `CALLS` connections that were asked, and that no further one comes.
async fn accepted(listener: &TcpListener) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    while streams.len() < CALLS {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(asked(&mut stream).await);
        streams.push(stream);
    }
    let more = timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(more.is_err(), "{more:?}");
    streams
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_counts_until_the_node_has_answered_it() {
    let (listener, http) = listener().await;
    let calls = || futures_util::future::join_all((0..2 * CALLS).map(|_| http.get("a")));
    let streams = tokio::select! {
        _ = calls() => unreachable!("nobody answers"),
        streams = accepted(&listener) => streams,
    };
    let mut again = std::pin::pin!(calls());
    let waited = timeout(Duration::from_millis(100), async {
        tokio::select! {
            _ = again.as_mut() => unreachable!("nobody answers"),
            more = listener.accept() => panic!("{more:?}"),
        }
    });
    assert!(waited.await.is_err());
    for mut stream in streams {
        let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx";
        stream.write_all(answer).await.unwrap();
    }
    tokio::select! {
        _ = again => unreachable!("nobody answers"),
        streams = accepted(&listener) => assert_eq!(streams.len(), CALLS),
    }
}

#[tokio::test(start_paused = true)]
async fn short_and_watched_calls_wait_for_no_other_and_the_wait_is_within_the_limit() {
    let (listener, http) = listener().await;
    let calls = futures_util::future::join_all((0..=CALLS).map(|_| http.get("a")));
    let answers = std::cell::Cell::new(0);
    let others = async {
        let _streams = accepted(&listener).await;
        for limit in [Limit::LIGHT, Limit::WATCHED] {
            let answered = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(asked(&mut stream).await);
                let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]";
                stream.write_all(answer).await.unwrap();
            };
            let (got, ()) = tokio::join!(http.post("uptime", Vec::new(), limit), answered);
            assert_eq!(got, Ok("[]".into()));
            answers.set(answers.get() + 1);
        }
        std::future::pending::<()>().await;
    };
    let begun = Instant::now();
    let ended = tokio::select! {
        ended = calls => ended,
        () = others => unreachable!("it never ends"),
    };
    for ended in ended {
        assert_eq!(ended.unwrap_err().kind, NodeErrorKind::TimedOut);
    }
    assert_eq!(answers.get(), 2);
    let took = begun.elapsed();
    assert!(took < Limit::REST.time + Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_pieces_takes_as_long_as_they_come() {
    let (listener, http) = listener().await;
    let pieces = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(asked(&mut stream).await);
        // The kernel's pauses are real ones, ours are not.
        stream.set_nodelay(true).unwrap();
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n";
        stream.write_all(head).await.unwrap();
        for _ in 0..3 {
            tokio::time::sleep(Limit::REST.time - Duration::from_secs(1)).await;
            stream.write_all(b"x").await.unwrap();
        }
        tokio::time::sleep(Limit::REST.time - Duration::from_secs(1)).await;
        stream.write_all(b"x").await.unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        got = http.get("a") => assert_eq!(got, Ok(Some("xxxx".into()))),
        () = pieces => unreachable!("it never ends"),
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed() {
    let (listener, http) = listener().await;
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(asked(&mut stream).await);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
        stream.write_all(answer).await.unwrap();
        stream
    };
    let (got, mut stream) = tokio::join!(http.get("a"), served);
    assert_eq!(got, Ok(Some("x".into())));
    let idle = timeout(3 * IDLE_LIMIT, asked(&mut stream)).await;
    assert_eq!(idle, Ok(false));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connection_whose_other_side_is_silently_gone_is_noticed() {
    let (listener, http) = listener().await;
    let served = async {
        let (mut stream, peer) = listener.accept().await.unwrap();
        assert!(asked(&mut stream).await);
        // Keepalive is timer 2 of a line.
        let port = format!(":{:04X} ", peer.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let line = table.lines().find(|line| {
            let local = line.split_whitespace().nth(1).unwrap_or_default();
            format!("{local} ").ends_with(&port)
        });
        line.unwrap().to_owned()
    };
    let line = tokio::select! {
        _ = http.get("a") => unreachable!("nobody answers"),
        line = served => line,
    };
    let timer = line.split_whitespace().nth(5).unwrap();
    assert!(timer.starts_with("02:"), "{line}");
}

#[tokio::test]
async fn what_is_no_web_server_and_a_proxy_without_its_node_are_told_apart() {
    for (answer, kind, words) in [
        (
            "SSH-2.0-OpenSSH\r\n\r\n",
            NodeErrorKind::Shape,
            "does not speak HTTP",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
            NodeErrorKind::Busy,
            "HTTP 502",
        ),
    ] {
        let http = server(Box::leak(Box::new([answer]))).await;
        let asked = http.post("uptime", Vec::new(), Limit::LIGHT).await;
        let error = asked.unwrap_err();
        assert!(
            error.kind == kind && error.message.contains(words),
            "{error}"
        );
    }
}
