use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::bitcoind::Credentials;
use crate::bitcoind::url::NodeUrl;
use crate::config::Secret;

#[test]
fn the_request_is_as_long_as_its_scripts_are_counted() {
    let scripts: Vec<_> = [vec![0x51], vec![0; 34], vec![]]
        .into_iter()
        .map(ScriptBuf::from_bytes)
        .collect();
    let params = params(&scripts, &[]).unwrap();
    let zeros = "00".repeat(34);
    assert_eq!(
        params.get(),
        format!(r#"["start",["raw(51)","raw({zeros})","raw()"]]"#)
    );
    let counted: usize = scripts.iter().map(scan_bytes).sum();
    assert_eq!(
        params.get().len(),
        counted + r#"["start",[]]"#.len() - 1,
        "one comma less than scripts"
    );
}

#[test]
fn ranges_are_asked_for_beside_the_scripts() {
    let range = |indexes| ScanRange {
        descriptor: "wpkh(tpub/0/*)#abcdefgh".to_owned(),
        indexes,
    };
    let object = r#"{"desc":"wpkh(tpub/0/*)#abcdefgh","range":[1020,1029]}"#;
    let script = ScriptBuf::from_bytes(vec![0x51]);
    for (scripts, ranges, expected) in [
        (
            vec![],
            vec![range(1020..1030)],
            format!(r#"["start",[{object}]]"#),
        ),
        (
            vec![script],
            vec![range(1020..1030), range(7..7)],
            format!(r#"["start",["raw(51)",{object}]]"#),
        ),
    ] {
        assert_eq!(params(&scripts, &ranges).unwrap().get(), expected);
    }
}

/// A node that scans until it is told that this is done, or is to be ended.
#[derive(Default)]
struct FakeNode {
    /// The connection of a scan breaks while it runs.
    cuts: AtomicBool,
    /// The connection of an `abort` breaks before the node has read it.
    deaf: AtomicBool,
    /// What it was called for: `start`, `refused`, `abort` (once for several in a row).
    calls: Mutex<Vec<&'static str>>,
    /// Whether the scan that runs is to go on; `None` when none does. With what it ends.
    scan: Mutex<Option<Option<bool>>>,
    changed: Condvar,
}

impl FakeNode {
    fn start() -> (Arc<Self>, Rpc) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let node = Arc::new(Self::default());
        let serving = node.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let node = serving.clone();
                std::thread::spawn(move || node.serve(&connection.unwrap()));
            }
        });
        (
            node,
            Rpc::new(
                NodeUrl::parse(&url).unwrap(),
                Credentials::User {
                    user: "u".into(),
                    password: Secret("p".into()),
                    conf: None,
                },
            ),
        )
    }

    fn serve(&self, connection: &TcpStream) {
        let mut reader = BufReader::new(connection);
        loop {
            let mut length = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let request: Value = serde_json::from_slice(&body).unwrap();
            if self.cuts.load(Ordering::Relaxed) && request["params"][0] == "start" {
                let connection = connection.try_clone().unwrap();
                std::thread::spawn(move || {
                    std::thread::sleep(REFUSAL + Duration::from_millis(200));
                    connection.shutdown(Shutdown::Both)
                });
            }
            if self.deaf.load(Ordering::Relaxed) && request["params"][0] == "abort" {
                let _ = connection.shutdown(Shutdown::Both);
                return;
            }
            let (result, error) = self.answer(request["params"][0].as_str().unwrap());
            let answer =
                json!({ "result": result, "error": error, "id": request["id"] }).to_string();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            let mut writer = connection;
            // Who asked may be gone.
            let _ = writer.write_all((head + &answer).as_bytes());
        }
    }

    fn answer(&self, what: &str) -> (Value, Value) {
        let mut scan = self.scan.lock().unwrap();
        match what {
            "status" => (
                scan.map_or(Value::Null, |_| json!({ "progress": 1 })),
                Value::Null,
            ),
            "abort" => {
                self.call("abort");
                let runs = scan.is_some();
                *scan = scan.map(|_| Some(false));
                self.changed.notify_all();
                (json!(runs), Value::Null)
            }
            _ if scan.is_some() => {
                self.call("refused");
                (
                    Value::Null,
                    json!({ "code": -8, "message": "Scan already in progress, use action \"abort\" or \"status\"" }),
                )
            }
            _ => {
                self.call("start");
                *scan = Some(None);
                let mut scan = self
                    .changed
                    .wait_while(scan, |scan| *scan == Some(None))
                    .unwrap();
                let success = scan.take().flatten().unwrap();
                (
                    json!({ "success": success, "height": 5, "bestblock": "00".repeat(32), "unspents": [] }),
                    Value::Null,
                )
            }
        }
    }

    fn call(&self, what: &'static str) {
        let mut calls = self.calls.lock().unwrap();
        if what != "abort" || calls.last() != Some(&what) {
            calls.push(what);
        }
    }

    fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }

    /// The scan that runs comes to its end.
    fn finish(&self) {
        *self.scan.lock().unwrap() = Some(Some(true));
        self.changed.notify_all();
    }

    async fn wait_for(&self, what: impl Fn(&Self) -> bool) {
        for _ in 0..3000 {
            if what(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not within half a minute; {:?}", self.calls());
    }

    fn runs(&self) -> bool {
        *self.scan.lock().unwrap() == Some(None)
    }
}

fn scan_of(rpc: &Rpc) -> tokio::task::JoinHandle<Result<UtxoScan, NodeError>> {
    let rpc = rpc.clone();
    tokio::spawn(async move { rpc.scan(vec![ScriptBuf::new()], Vec::new()).await })
}

#[tokio::test]
async fn a_scan_that_nobody_waits_for_any_more_is_ended_at_the_node() {
    for of_filters in [false, true] {
        let (node, rpc) = FakeNode::start();
        let scan = match of_filters {
            false => scan_of(&rpc).abort_handle(),
            true => {
                let rpc = rpc.clone();
                let scan = async move { rpc.scan_blocks(json!([]), 0, 9).await };
                tokio::spawn(scan).abort_handle()
            }
        };
        node.wait_for(FakeNode::runs).await;
        scan.abort();
        rpc.scans_ended().await;
        assert!(!node.runs());
        assert_eq!(node.calls(), ["start", "abort"]);
    }
}

#[tokio::test]
async fn a_scan_whose_connection_breaks_is_ended_at_the_node_and_not_sent_again() {
    let (node, rpc) = FakeNode::start();
    node.cuts.store(true, Ordering::Relaxed);
    let error = scan_of(&rpc).await.unwrap().unwrap_err();
    assert_eq!(error.kind, NodeErrorKind::Unreachable);
    assert!(!node.runs());
    assert_eq!(node.calls(), ["start", "abort"]);
}

#[tokio::test]
async fn a_scan_that_could_not_be_ended_is_ended_before_the_next_one() {
    for is_dropped in [false, true] {
        let (node, rpc) = FakeNode::start();
        node.deaf.store(true, Ordering::Relaxed);
        node.cuts.store(!is_dropped, Ordering::Relaxed);
        let scan = scan_of(&rpc);
        node.wait_for(FakeNode::runs).await;
        if is_dropped {
            scan.abort();
        }
        assert!(!scan.await.is_ok_and(|result| result.is_ok()));
        // The node is still away: its scan is not known to have ended, and nothing is sent.
        let error = scan_of(&rpc).await.unwrap().unwrap_err();
        assert_eq!(error.kind, NodeErrorKind::Unreachable, "{error}");
        assert!(node.runs());
        assert_eq!(node.calls(), ["start"]);

        node.deaf.store(false, Ordering::Relaxed);
        node.cuts.store(false, Ordering::Relaxed);
        for scans in 1..=2 {
            let scan = scan_of(&rpc);
            let calls = [&["start", "abort"][..], &["start"].repeat(scans)].concat();
            node.wait_for(|node| node.calls() == calls && node.runs())
                .await;
            node.finish();
            assert!(scan.await.unwrap().unwrap().success);
        }
    }
}

/// A node that knows of no scan, and answers the first call after the status with one byte each
/// four seconds.
#[tokio::test(start_paused = true)]
async fn a_result_that_comes_slowly_is_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // The kernel's pauses are real ones, ours are not.
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut asked = vec![0; 4096];
                loop {
                    let length = stream.read(&mut asked).await.unwrap_or(0);
                    let text = String::from_utf8_lossy(&asked[..length]);
                    if text.is_empty() {
                        return;
                    }
                    let starts = text.contains("start");
                    let result = match starts {
                        true => r#"{"success":true,"unspents":[]}"#,
                        false => "null",
                    };
                    let body = format!(r#"{{"result":{result},"error":null,"id":0}}"#);
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    stream.write_all(head.as_bytes()).await.unwrap();
                    for byte in body.bytes() {
                        if starts {
                            tokio::time::sleep(Duration::from_secs(4)).await;
                        }
                        stream.write_all(&[byte]).await.unwrap();
                    }
                }
            });
        }
    });
    let credentials = Credentials::User {
        user: "u".into(),
        password: Secret("p".into()),
        conf: None,
    };
    let rpc = Rpc::new(NodeUrl::parse(&url).unwrap(), credentials);
    assert!(rpc.scan(Vec::new(), Vec::new()).await.unwrap().success);
}

#[tokio::test]
async fn scans_of_ours_run_one_after_the_other() {
    let (node, rpc) = FakeNode::start();
    let scans = [scan_of(&rpc), scan_of(&rpc), scan_of(&rpc)];
    for count in 1..=scans.len() {
        node.wait_for(|node| node.runs() && node.calls().len() == count)
            .await;
        node.finish();
    }
    for scan in scans {
        assert!(scan.await.unwrap().unwrap().success);
    }
    assert_eq!(node.calls(), ["start", "start", "start"]);
}

#[tokio::test]
async fn one_that_waits_for_its_turn_and_is_given_up_ends_nothing() {
    let (node, rpc) = FakeNode::start();
    let first = scan_of(&rpc);
    node.wait_for(FakeNode::runs).await;
    let second = scan_of(&rpc);
    tokio::time::sleep(2 * REFUSAL).await;
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    tokio::time::sleep(2 * REFUSAL).await;
    node.finish();
    assert!(first.await.unwrap().unwrap().success);
    assert_eq!(node.calls(), ["start"]);
}

#[tokio::test]
async fn another_programs_scan_is_never_ended() {
    let (node, rpc) = FakeNode::start();
    let other = scan_of(&rpc.apart());
    node.wait_for(FakeNode::runs).await;
    // In the moment of its refusal, and before the node has had the request.
    for pause in [0, 1, 20] {
        let scan = scan_of(&rpc);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        scan.abort();
        rpc.scans_ended().await;
    }
    assert_eq!(
        rpc.scan(Vec::new(), Vec::new()).await.unwrap_err().kind,
        NodeErrorKind::Rpc(-8)
    );
    node.finish();
    assert!(other.await.unwrap().unwrap().success);
    assert!(!node.calls().contains(&"abort"), "{:?}", node.calls());
}
