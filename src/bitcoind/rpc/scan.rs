//! Scans: `scantxoutset`, the confirmed unspent outputs of output scripts, and `scanblocks`, the
//! blocks that block filters name. They take as long as they take, so they are watched instead of
//! limited.

use std::pin::{Pin, pin};
use std::time::Duration;

use bitcoin::{BlockHash, ScriptBuf, Txid};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::client::{Rpc, body, cut_short, shape};
use super::method::Method;
use crate::bitcoind::http::Limit;
use crate::bitcoind::{NodeError, NodeErrorKind};

/// While a scan runs, the node is asked whether it does. Silence after so many looks that found
/// none is the end of it.
const LOOK: Duration = Duration::from_secs(5);
const LOOKS: u32 = 5;
/// A scan beside a running one is refused within this time.
const REFUSAL: Duration = Duration::from_secs(1);
/// A scan that is not wanted any more should have ended within this time.
const END: Duration = Duration::from_secs(2);

/// `scantxoutset start`.
#[derive(Debug, Deserialize)]
pub struct UtxoScan {
    /// False: it was aborted.
    #[serde(default)]
    pub success: bool,
    #[serde(default)]
    pub height: u32,
    pub bestblock: Option<BlockHash>,
    #[serde(default)]
    pub unspents: Vec<Unspent>,
}

/// An output that a scan found.
#[derive(Debug, Deserialize)]
pub struct Unspent {
    pub txid: Txid,
    pub vout: u32,
    #[serde(rename = "scriptPubKey")]
    pub script: ScriptBuf,
    /// In bitcoin, kept as text so that no floating point comes between.
    pub amount: Box<RawValue>,
    pub height: u32,
    #[serde(default)]
    pub coinbase: bool,
}

/// `scanblocks start`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FilterScan {
    #[serde(default)]
    pub relevant_blocks: Vec<BlockHash>,
    /// False: it was aborted.
    #[serde(default)]
    pub completed: bool,
}

impl Rpc {
    /// The confirmed unspent outputs of these output scripts. Minutes on a full chain; it waits for
    /// other scans of ours. When the answer is not wanted any more (the future is dropped), the
    /// node's scan is ended too: see [`Rpc::scans_ended`].
    pub async fn scan(&self, scripts: Vec<ScriptBuf>) -> Result<UtxoScan, NodeError> {
        let method = Method::ScanTxOutSet;
        let body = spawn_blocking(move || body(method, &params(&scripts)?)).await;
        let body = body.map_err(|_| cut_short())?;
        self.watched(method, body.map_err(|error| shape(method, &error))?)
            .await
    }

    /// Blocks from height `from` to height `to` that may pay or spend from one of the scripts, by
    /// their filters: maybe too many, never too few. `objects` are descriptors. Otherwise as
    /// [`Rpc::scan`].
    pub async fn scan_blocks(
        &self,
        objects: Value,
        from: u32,
        to: u32,
    ) -> Result<FilterScan, NodeError> {
        let method = Method::ScanBlocks;
        let params = to_raw_value(&json!(["start", objects, from, to]));
        let body = params.and_then(|params| body(method, &params));
        self.watched(method, body.map_err(|error| shape(method, &error))?)
            .await
    }

    /// Waits, some seconds at most, until no scan of ours runs at the node.
    pub async fn scans_ended(&self) {
        let _ = tokio::time::timeout(2 * END, self.turn.lock()).await;
    }

    async fn watched<T: DeserializeOwned + Send + 'static>(
        &self,
        method: Method,
        body: Vec<u8>,
    ) -> Result<T, NodeError> {
        let turn = self.turn.clone().lock_owned().await;
        let (mut answer, answered) = oneshot::channel();
        let rpc = self.clone();
        tokio::spawn(async move {
            let mut scan = pin!(rpc.ask(method, body, Limit::WATCHED));
            tokio::select! {
                result = rpc.while_it_runs(method, scan.as_mut()) => drop(answer.send(result)),
                () = answer.closed() => rpc.give_up(method, scan).await,
            }
            drop(turn);
        });
        answered.await.unwrap_or_else(|_| Err(cut_short()))
    }

    /// The scan's result, unless the node knows nothing of it.
    async fn while_it_runs<T>(
        &self,
        method: Method,
        mut scan: Pin<&mut impl Future<Output = Result<T, NodeError>>>,
    ) -> Result<T, NodeError> {
        let mut idle = 0;
        while idle < LOOKS {
            if let Ok(result) = tokio::time::timeout(LOOK, scan.as_mut()).await {
                return result;
            }
            idle = if self.scan_runs(method).await {
                0
            } else {
                idle + 1
            };
        }
        // The node has long forgotten it, or was restarted behind a line that did not say so.
        Err(NodeError::new(
            NodeErrorKind::TimedOut,
            format!(
                "bitcoind at {} never answered a scan; starting it again",
                self.url()
            ),
        ))
    }

    /// Ends a scan that nobody waits for: the node would go on for minutes, and refuse the next
    /// one.
    async fn give_up<T>(&self, method: Method, mut scan: Pin<&mut impl Future<Output = T>>) {
        let ends = async {
            // One that is refused because another program's runs comes back at once, and the other
            // one is left alone.
            while tokio::time::timeout(REFUSAL, scan.as_mut()).await.is_err() {
                let abort = self.call(method, json!(["abort"]), Limit::LIGHT).await;
                let _: Result<IgnoredAny, _> = abort;
            }
        };
        let _ = tokio::time::timeout(END, ends).await;
    }

    /// Whether the node runs a scan, ours or not, or is too busy to say. An unreachable node does
    /// not.
    async fn scan_runs(&self, method: Method) -> bool {
        let state: Result<Option<IgnoredAny>, _> =
            self.call(method, json!(["status"]), Limit::LIGHT).await;
        match state {
            Ok(progress) => progress.is_some(),
            Err(error) => matches!(error.kind, NodeErrorKind::Busy | NodeErrorKind::TimedOut),
        }
    }
}

/// The parameters of `scantxoutset start`, written at once: of hundreds of thousands of scripts
/// every copy counts.
fn params(scripts: &[ScriptBuf]) -> serde_json::Result<Box<RawValue>> {
    let mut text = String::with_capacity(scripts.iter().map(scan_bytes).sum::<usize>() + 16);
    text.push_str(r#"["start",["#);
    for (n, script) in scripts.iter().enumerate() {
        text.push_str(if n == 0 { "\"raw(" } else { ",\"raw(" });
        text.push_str(&script.to_hex_string());
        text.push_str(")\"");
    }
    text.push_str("]]");
    RawValue::from_string(text)
}

/// Bytes that a script takes in the request of a scan.
pub fn scan_bytes(script: &ScriptBuf) -> usize {
    2 * script.len() + r#","raw()""#.len()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Condvar, Mutex};

    use serde_json::Value;

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
        let params = params(&scripts).unwrap();
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

    /// A node that scans until it is told that this is done, or is to be ended.
    #[derive(Default)]
    struct FakeNode {
        /// What it was called for: `start`, `refused`, `abort`.
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
            self.calls.lock().unwrap().push(what);
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
        tokio::spawn(async move { rpc.scan(vec![ScriptBuf::new()]).await })
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
            rpc.scan(Vec::new()).await.unwrap_err().kind,
            NodeErrorKind::Rpc(-8)
        );
        node.finish();
        assert!(other.await.unwrap().unwrap().success);
        assert!(!node.calls().contains(&"abort"), "{:?}", node.calls());
    }
}
