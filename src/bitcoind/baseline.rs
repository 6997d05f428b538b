//! The confirmed unspent outputs of scripts that were just added: `scantxoutset`, one scan for all that wait.
//!
//! A scan speaks for the block that was the node's tip when it began; on a full chain it takes minutes, and blocks come
//! meanwhile. So its result is carried forward over the blocks that we have connected since, until it speaks for our tip.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, Block, Denomination, OutPoint, ScriptBuf};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::rpc::{Rpc, Scan, Unspent};
use super::{Cause, NodeError};
use crate::clock::now_ms;
use crate::indexer::{Handle, Refused, Stopped};
use crate::store::{Reader, StoreError};
use crate::tracker::input::FoundOutput;
use crate::tracker::{ApplyError, BlockId, Input, ScriptHash};

/// Scripts of one scan: it costs the same for one and for many, and ten thousand are parsed in 0.1 s.
const SCRIPTS: usize = 10_000;
/// Scripts that are added one after the other share a scan.
const GATHER: Duration = Duration::from_millis(20);
/// Pause after something that only time mends.
const PAUSE: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(200);
/// Between two looks at the store without being told.
const LOOK: Duration = Duration::from_secs(10);
/// Over more blocks than this a new scan is cheaper.
const CARRY: u32 = 500;

const SCAN_RUNS: i32 = -8;

/// Where the follower is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) tip: Option<BlockId>,
    /// Monitoring is on and our tip was the node's when we looked last.
    pub(super) at_node_tip: bool,
}

pub(super) struct Baselines {
    pub(super) rpc: Rpc,
    pub(super) reader: Reader,
    pub(super) indexer: Handle,
    pub(super) wake: Arc<Notify>,
    pub(super) place: watch::Receiver<Place>,
}

/// Why a round did not end with a merged baseline.
enum Again {
    /// Our chain or the node's moved on: scan again.
    Now,
    Node(NodeError),
    /// The follower has ended.
    Over,
    Stopped,
    Store(StoreError),
}

impl From<NodeError> for Again {
    fn from(error: NodeError) -> Self {
        Self::Node(error)
    }
}

impl From<StoreError> for Again {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Merges baselines until `shutdown`; ends a running scan of ours then. A store that cannot be read ends it at once.
pub(super) async fn run(baselines: Baselines, shutdown: CancellationToken) -> Result<(), StoreError> {
    let rpc = baselines.rpc.clone();
    let scanning = Arc::new(std::sync::atomic::AtomicBool::new(false));
    tokio::select! {
        ended = baselines.serve(&scanning) => ended,
        () = shutdown.cancelled() => {
            if scanning.load(std::sync::atomic::Ordering::Relaxed) {
                // The node would go on scanning for minutes, and refuse the scan of our next start.
                let _ = tokio::time::timeout(PAUSE, rpc.abort_scan()).await;
            }
            Ok(())
        }
    }
}

impl Baselines {
    async fn serve(mut self, scanning: &std::sync::atomic::AtomicBool) -> Result<(), StoreError> {
        let mut told = None;
        loop {
            match self.round(scanning).await {
                Ok(()) => told = None,
                Err(Again::Now) => tokio::time::sleep(AGAIN).await,
                Err(Again::Over | Again::Stopped) => return Ok(()),
                Err(Again::Store(error)) => {
                    tracing::error!("cannot read which addresses wait for their outputs: {error}");
                    return Err(error);
                }
                Err(Again::Node(error)) => {
                    let text = error.to_string();
                    if told.as_ref() != Some(&text) {
                        tracing::warn!("the unspent outputs of added addresses are not known yet: {text}");
                        told = Some(text);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Waits for work, scans, merges.
    async fn round(&mut self, scanning: &std::sync::atomic::AtomicBool) -> Result<(), Again> {
        self.place.wait_for(|place| place.at_node_tip).await.map_err(|_| Again::Over)?;
        if self.reader.snapshot().pending_baselines(1)?.is_empty() {
            // A wake-up may be dropped when very many come at once.
            let _ = tokio::time::timeout(LOOK, self.wake.notified()).await;
        }
        tokio::time::sleep(GATHER).await;
        let pending = self.reader.snapshot().pending_baselines(SCRIPTS)?;
        if pending.is_empty() {
            return Ok(());
        }
        let (scripts, spks): (Vec<_>, Vec<_>) = pending.into_iter().map(|(script, row)| (script, row.spk)).unzip();
        tracing::info!("scanning the node's unspent outputs for {} added addresses", spks.len());
        scanning.store(true, std::sync::atomic::Ordering::Relaxed);
        let scan = self.rpc.scan(spks.clone()).await;
        scanning.store(false, std::sync::atomic::Ordering::Relaxed);
        let (block, outputs) = read_scan(scan.map_err(explain)?)?;
        self.merge(block, scripts, &spks.into_iter().collect(), outputs).await
    }

    async fn merge(
        &mut self,
        mut block: BlockId,
        scripts: Vec<ScriptHash>,
        spks: &HashSet<ScriptBuf>,
        mut outputs: HashMap<OutPoint, FoundOutput>,
    ) -> Result<(), Again> {
        loop {
            let tip = self.tip_from(block).await?;
            if self.our_block(block.height, tip)? != Some(block) || tip.height - block.height > CARRY {
                return Err(Again::Now);
            }
            while block.height < tip.height {
                let next = self.our_block(block.height + 1, tip)?.ok_or(Again::Now)?;
                let body = self.rpc.block(next.hash).await?;
                if body.header.prev_blockhash != block.hash {
                    return Err(Again::Now);
                }
                carry(&mut outputs, spks, &body, next.height);
                block = next;
            }
            let found = outputs.values().cloned().collect();
            let input = Input::Baseline { block, scripts: scripts.clone(), outputs: found, now: now_ms() };
            match self.indexer.apply(input).await {
                Ok(_) => {
                    tracing::info!(
                        "merged {} unspent outputs of {} added addresses at block {}",
                        outputs.len(),
                        scripts.len(),
                        block.height
                    );
                    return Ok(());
                }
                Err(Refused::Apply(ApplyError::NotOurTip { .. })) => tokio::task::yield_now().await,
                Err(Refused::Apply(error)) => return Err(NodeError::persistent(Cause::Shape, error.to_string()).into()),
                Err(Refused::Stopped(Stopped)) => return Err(Again::Stopped),
            }
        }
    }

    /// Our tip, once it is as high as the scan's block. We may never come there: the node may take the block back.
    async fn tip_from(&mut self, block: BlockId) -> Result<BlockId, Again> {
        loop {
            let there = self.place.wait_for(|place| place.tip.is_some_and(|tip| tip.height >= block.height));
            if let Ok(place) = tokio::time::timeout(PAUSE, there).await {
                return place.ok().and_then(|place| place.tip).ok_or(Again::Over);
            }
            if self.rpc.hashes(vec![block.height]).await?.pop().flatten() != Some(block.hash) {
                return Err(Again::Now);
            }
        }
    }

    fn our_block(&self, height: u32, tip: BlockId) -> Result<Option<BlockId>, StoreError> {
        if height == tip.height {
            return Ok(Some(tip));
        }
        Ok(self.reader.snapshot().block(height)?.map(|row| BlockId { height, hash: row.hash }))
    }
}

fn explain(error: NodeError) -> NodeError {
    if error.cause == Cause::Rpc(SCAN_RUNS) && error.message.contains("in progress") {
        return NodeError::transient(Cause::Busy, "bitcoind runs another scan of its unspent outputs; waiting for its end".into());
    }
    error
}

fn read_scan(scan: Scan) -> Result<(BlockId, HashMap<OutPoint, FoundOutput>), NodeError> {
    let hash = scan.bestblock.filter(|_| scan.success);
    let hash =
        hash.ok_or_else(|| NodeError::transient(Cause::Busy, "somebody ended the scan of the unspent outputs; starting it again".into()))?;
    let outputs = scan.unspents.into_iter().map(found_output).collect::<Option<_>>();
    let outputs = outputs.ok_or_else(|| NodeError::persistent(Cause::Shape, "bitcoind's scan names an amount that is none".into()))?;
    Ok((BlockId { height: scan.height, hash }, outputs))
}

fn found_output(unspent: Unspent) -> Option<(OutPoint, FoundOutput)> {
    let outpoint = OutPoint { txid: unspent.txid, vout: unspent.vout };
    let value = Amount::from_str_in(unspent.amount.get(), Denomination::Bitcoin).ok()?;
    Some((outpoint, FoundOutput { outpoint, spk: unspent.script, value, height: unspent.height, coinbase: unspent.coinbase }))
}

/// The unspent outputs of `spks` after one more block.
fn carry(outputs: &mut HashMap<OutPoint, FoundOutput>, spks: &HashSet<ScriptBuf>, block: &Block, height: u32) {
    for (position, tx) in block.txdata.iter().enumerate() {
        for input in &tx.input {
            outputs.remove(&input.previous_output);
        }
        if !tx.output.iter().any(|output| spks.contains(&output.script_pubkey)) {
            continue;
        }
        let txid = tx.compute_txid();
        for (vout, output) in (0u32..).zip(&tx.output) {
            if spks.contains(&output.script_pubkey) {
                let outpoint = OutPoint { txid, vout };
                let spk = output.script_pubkey.clone();
                outputs.insert(outpoint, FoundOutput { outpoint, spk, value: output.value, height, coinbase: position == 0 });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::block::{Header, Version};
    use bitcoin::hashes::Hash;
    use bitcoin::{BlockHash, CompactTarget, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness, transaction};

    use super::*;

    fn spk(n: u8) -> ScriptBuf {
        ScriptBuf::from_bytes(vec![0, 1, n])
    }

    fn tx(spends: &[OutPoint], pays: &[(u8, u64)]) -> Transaction {
        Transaction {
            version: transaction::Version(2),
            lock_time: LockTime::ZERO,
            input: spends
                .iter()
                .map(|outpoint| TxIn {
                    previous_output: *outpoint,
                    script_sig: ScriptBuf::new(),
                    sequence: Sequence::MAX,
                    witness: Witness::new(),
                })
                .collect(),
            output: pays.iter().map(|(n, value)| TxOut { value: Amount::from_sat(*value), script_pubkey: spk(*n) }).collect(),
        }
    }

    fn block(txdata: Vec<Transaction>) -> Block {
        let header = Header {
            version: Version::TWO,
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: 0,
            bits: CompactTarget::from_consensus(0),
            nonce: 0,
        };
        Block { header, txdata }
    }

    #[test]
    fn a_scan_is_carried_over_spends_and_payments_of_a_block() {
        let old = OutPoint { txid: tx(&[], &[(9, 9)]).compute_txid(), vout: 0 };
        let found = FoundOutput { outpoint: old, spk: spk(1), value: Amount::from_sat(9), height: 1, coinbase: false };
        let mut outputs = HashMap::from([(old, found)]);
        let coinbase = tx(&[OutPoint::null()], &[(1, 50)]);
        let pays = tx(&[old], &[(2, 5), (1, 6), (1, 7)]);
        let pays_at = |vout| OutPoint { txid: pays.compute_txid(), vout };
        let spends_within = tx(&[pays_at(1)], &[(3, 6)]);
        let all = block(vec![coinbase.clone(), pays.clone(), spends_within]);
        carry(&mut outputs, &HashSet::from([spk(1)]), &all, 7);
        let mut left: Vec<_> =
            outputs.values().map(|output| (output.outpoint, output.value.to_sat(), output.height, output.coinbase)).collect();
        left.sort_by_key(|(_, value, _, _)| *value);
        assert_eq!(left, [(pays_at(2), 7, 7, false), (OutPoint { txid: coinbase.compute_txid(), vout: 0 }, 50, 7, true)]);
    }

    #[test]
    fn amounts_are_read_from_the_text() {
        let text = r#"{"success":true,"height":3,"bestblock":"0000000000000000000000000000000000000000000000000000000000000001",
            "unspents":[{"txid":"0000000000000000000000000000000000000000000000000000000000000002","vout":1,"scriptPubKey":"51",
            "desc":"x","amount":20999999.97690001,"coinbase":true,"height":2,"more":[]}],"total_amount":1}"#;
        let (block, outputs) = read_scan(serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(block.height, 3);
        let output = outputs.values().next().unwrap();
        assert_eq!((output.value.to_sat(), output.height, output.coinbase), (2_099_999_997_690_001, 2, true));
    }

    #[test]
    fn an_aborted_scan_is_no_result() {
        let scan: Scan = serde_json::from_str(r#"{"success":false,"unspents":[]}"#).unwrap();
        assert_eq!(read_scan(scan).unwrap_err().cause, Cause::Busy);
    }
}
