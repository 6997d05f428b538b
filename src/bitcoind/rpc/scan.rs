//! Scans: `scantxoutset`, the confirmed unspent outputs of output scripts, and `scanblocks`, the
//! blocks that block filters name. They take as long as they take, so they are watched instead of
//! limited.

use std::ops::Range;
use std::pin::{Pin, pin};
use std::time::Duration;

use bitcoin::{BlockHash, ScriptBuf, Txid};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::client::{Rpc, body, shape};
use super::method::Method;
use crate::bitcoind::http::{Limit, cut_short};
use crate::bitcoind::{NodeError, NodeErrorKind};

/// While a scan runs, the node is asked whether it does. So many looks in a row that found none,
/// and no byte on its way to or fro, are the end of it; or so many that the node did not answer.
const LOOK: Duration = Duration::from_secs(5);
const IDLE_LOOKS: u32 = 5;
const UNANSWERED_LOOKS: u32 = 60;
/// A scan beside a running one is refused within this time.
const REFUSAL: Duration = Duration::from_secs(1);
/// A scan that is not wanted any more should have ended within this time.
const END: Duration = Duration::from_secs(2);

/// Scripts of a descriptor that the node derives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRange {
    /// Without multipath.
    pub descriptor: String,
    /// At most a million, below 2^31.
    pub indexes: Range<u32>,
}

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
    /// The confirmed unspent outputs of these output scripts and of those in the ranges. Minutes on
    /// a full chain; it waits for other scans of ours. When the answer is not wanted any more (the
    /// future is dropped), the node's scan is ended too: see [`Rpc::scans_ended`].
    pub async fn scan(
        &self,
        scripts: Vec<ScriptBuf>,
        ranges: Vec<ScanRange>,
    ) -> Result<UtxoScan, NodeError> {
        let method = Method::ScanTxOutSet;
        let body = spawn_blocking(move || body(method, &params(&scripts, &ranges)?)).await;
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
        let mut lost = self.turn.clone().lock_owned().await;
        let (mut answer, answered) = oneshot::channel();
        let rpc = self.clone();
        tokio::spawn(async move {
            if lost.contains(&method) {
                if let Err(error) = rpc.end(method).await {
                    drop(answer.send(Err(error)));
                    return;
                }
                lost.retain(|ended| *ended != method);
            }
            let (begun, moved) = (Instant::now(), rpc.http.moved());
            let mut scan = pin!(rpc.ask(method, body, Limit::WATCHED));
            let ended = tokio::select! {
                result = rpc.while_it_runs(method, scan.as_mut()) => {
                    let is_lost = begun.elapsed() > REFUSAL && result.as_ref().is_err_and(is_lost);
                    let ended = !is_lost || rpc.http.moved() == moved || rpc.end(method).await.is_ok();
                    drop(answer.send(result));
                    ended
                }
                () = answer.closed() => {
                    rpc.give_up(method, scan, begun).await || rpc.http.moved() == moved
                }
            };
            if !ended {
                lost.push(method);
            }
        });
        answered.await.unwrap_or_else(|_| Err(cut_short()))
    }

    /// The scan's result, unless the node knows nothing of it.
    async fn while_it_runs<T>(
        &self,
        method: Method,
        mut scan: Pin<&mut impl Future<Output = Result<T, NodeError>>>,
    ) -> Result<T, NodeError> {
        let (mut idle, mut unanswered, mut moved) = (0, 0, self.http.moved());
        while idle < IDLE_LOOKS && unanswered < UNANSWERED_LOOKS {
            if let Ok(result) = tokio::time::timeout(LOOK, scan.as_mut()).await {
                return result;
            }
            let state = self.scan_runs(method).await;
            let before = std::mem::replace(&mut moved, self.http.moved());
            match state {
                _ if moved != before => (idle, unanswered) = (0, 0),
                Ok(true) => (idle, unanswered) = (0, 0),
                Err(error)
                    if matches!(error.kind, NodeErrorKind::Busy | NodeErrorKind::TimedOut) =>
                {
                    unanswered += 1;
                }
                Ok(false) | Err(_) => idle += 1,
            }
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
    /// one. One that is refused because another program's runs comes back at once, and the other
    /// one is left alone. False: the node did not hear of it.
    async fn give_up<T>(
        &self,
        method: Method,
        mut scan: Pin<&mut impl Future<Output = T>>,
        begun: Instant,
    ) -> bool {
        let mut is_heard = false;
        let ends = async {
            let mut refusal = REFUSAL.saturating_sub(begun.elapsed());
            while tokio::time::timeout(refusal, scan.as_mut()).await.is_err() {
                is_heard |= self.abort(method).await.is_ok();
                refusal = REFUSAL;
            }
        };
        tokio::time::timeout(END, ends).await.is_ok() || is_heard
    }

    /// Ends a scan whose answer is lost: the node would go on for minutes, and refuse the next one.
    /// It is told so once, because what runs later may be another program's.
    async fn end(&self, method: Method) -> Result<(), NodeError> {
        self.abort(method).await?;
        let begun = Instant::now();
        while begun.elapsed() < END && matches!(self.scan_runs(method).await, Ok(true)) {
            tokio::time::sleep(END / 10).await;
        }
        Ok(())
    }

    async fn abort(&self, method: Method) -> Result<Value, NodeError> {
        self.call(method, json!(["abort"]), Limit::LIGHT).await
    }

    /// Whether the node runs a scan, ours or not.
    async fn scan_runs(&self, method: Method) -> Result<bool, NodeError> {
        let progress: Option<IgnoredAny> =
            self.call(method, json!(["status"]), Limit::LIGHT).await?;
        Ok(progress.is_some())
    }
}

/// Whether it says nothing of a scan that was sent.
fn is_lost(error: &NodeError) -> bool {
    use NodeErrorKind::{Busy, TimedOut, Unreachable};
    matches!(error.kind, Busy | TimedOut | Unreachable)
}

/// The parameters of `scantxoutset start`, written at once: of hundreds of thousands of scripts
/// every copy counts.
fn params(scripts: &[ScriptBuf], ranges: &[ScanRange]) -> serde_json::Result<Box<RawValue>> {
    let mut text = String::with_capacity(scripts.iter().map(scan_bytes).sum::<usize>() + 16);
    text.push_str(r#"["start",["#);
    for (n, script) in scripts.iter().enumerate() {
        text.push_str(if n == 0 { "\"raw(" } else { ",\"raw(" });
        text.push_str(&script.to_hex_string());
        text.push_str(")\"");
    }
    for range in ranges.iter().filter(|range| !range.indexes.is_empty()) {
        // Both ends of the node's ranges are in them.
        let ends = [range.indexes.start, range.indexes.end.saturating_sub(1)];
        let object = json!({ "desc": range.descriptor, "range": ends });
        text.push_str(if text.ends_with('[') { "" } else { "," });
        text.push_str(&object.to_string());
    }
    text.push_str("]]");
    RawValue::from_string(text)
}

/// Bytes that a script takes in the request of a scan.
pub fn scan_bytes(script: &ScriptBuf) -> usize {
    2 * script.len() + r#","raw()""#.len()
}

#[cfg(test)]
mod tests;
