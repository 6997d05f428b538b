//! The confirmed unspent outputs of scripts as the node knows them, at our tip.
//!
//! A scan (`scantxoutset`) speaks for the block that was the node's tip when it began; on a full
//! chain it takes minutes, and blocks come meanwhile. So its result is carried forward over the
//! blocks that we have connected since, until it speaks for our tip.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bitcoin::{Amount, Denomination, OutPoint, Script, ScriptBuf};

use super::{Interrupted, NodeContext, blocking};
use crate::bitcoind::rpc::{Rpc, ScanRange, Unspent, UtxoScan};
use crate::bitcoind::{NodeError, NodeErrorKind, cut_short};
use crate::tracker::input::FoundOutput;
use crate::tracker::raw::{TxPart, body, outpoint, walk};
use crate::tracker::{BlockId, RawBlock};

/// Over more blocks than this a new scan is cheaper.
const ROLL_FORWARD: u32 = 500;
/// Between two looks whether the node still has the block of a scan that we have not come to.
const LOOK: Duration = Duration::from_secs(1);

const SOON: Duration = Duration::from_millis(20);

const SCAN_RUNS: i32 = -8;

/// What the scripts of one scan own.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) block: BlockId,
    /// The scripts, in parts that can be merged one at a time.
    pub(super) parts: Vec<ScanPart>,
    /// What is none of theirs, but of the ranges. It is as of the block of the scan.
    pub(super) beyond: Vec<FoundOutput>,
}

#[derive(Debug, Default)]
pub(super) struct ScanPart {
    pub(super) spks: HashSet<ScriptBuf>,
    pub(super) found: HashMap<OutPoint, FoundOutput>,
    /// The tracker has been told to expect it in portions.
    pub(super) begun: bool,
    /// The outputs that are sent before the last portion, the next ones at the end.
    pub(super) order: Vec<(Reverse<u32>, OutPoint)>,
}

impl Outputs {
    /// Scans for these scripts, which all differ, and for those in the ranges, of which `of_ranges`
    /// are ours: the node is not told of them one by one, since it takes 32 MB in a request.
    /// `size`: the scripts and outputs of a part, unless one script has more.
    pub(super) async fn scan(
        rpc: &Rpc,
        mut spks: Vec<ScriptBuf>,
        ranges: Vec<ScanRange>,
        of_ranges: Vec<ScriptBuf>,
        size: usize,
    ) -> Result<Self, NodeError> {
        let scan = rpc.scan(spks.clone(), ranges).await.map_err(explain)?;
        spks.extend(of_ranges);
        let split = tokio::task::spawn_blocking(move || {
            let (block, found) = read_scan(scan)?;
            let (parts, beyond) = parts(spks, found, size);
            Ok(Self {
                block,
                parts,
                beyond,
            })
        });
        split.await.unwrap_or_else(|_| Err(cut_short()))
    }

    /// Brings them to our tip of now.
    pub(super) async fn roll_forward(
        &mut self,
        chain: &mut NodeContext,
    ) -> Result<(), Interrupted> {
        let way = chain.from(self.block).await?;
        for next in way {
            let block = chain.rpc.block(next.hash).await?;
            if block.header().prev_blockhash != self.block.hash {
                return Err(Interrupted::Moved);
            }
            let mut parts = std::mem::take(&mut self.parts);
            let connected = blocking(move || {
                let block = block.with_txids();
                let mut each = parts.iter_mut();
                let connected = each.try_for_each(|part| part.connect(&block, next.height));
                Ok(connected.map(|()| parts))
            });
            self.parts = connected.await?.ok_or_else(|| {
                NodeError::new(
                    NodeErrorKind::Shape,
                    format!("bitcoind answered with a damaged block {}", next.hash),
                )
            })?;
            self.block = next;
        }
        Ok(())
    }
}

impl NodeContext {
    /// Our blocks above `block`, once we have come to it. We may never do: the node may take it
    /// back.
    async fn from(&mut self, block: BlockId) -> Result<Vec<BlockId>, Interrupted> {
        while self
            .reader
            .snapshot()
            .tip()?
            .is_none_or(|tip| tip.height < block.height)
        {
            let there = self
                .wait_for(|position| position.tip.is_some_and(|tip| tip.height >= block.height));
            if let Ok(there) = tokio::time::timeout(LOOK, there).await {
                there?;
                // Otherwise it was, and is not any more: the follower has not said so yet.
                tokio::time::sleep(SOON).await;
            } else if self.rpc.hashes(vec![block.height]).await?.pop().flatten() != Some(block.hash)
            {
                return Err(Interrupted::Moved);
            }
        }
        let snapshot = self.reader.snapshot();
        let Some(tip) = snapshot.tip()?.filter(|tip| tip.height >= block.height) else {
            return Err(Interrupted::Moved);
        };
        if tip.height - block.height > ROLL_FORWARD {
            return Err(Interrupted::Moved);
        }
        let mut way = Vec::new();
        for height in block.height..=tip.height {
            // A store that has just begun knows its tip's row too, so a missing one is not ours.
            let hash = snapshot.block(&height)?.ok_or(Interrupted::Moved)?.hash;
            way.push(BlockId { height, hash });
        }
        match way.first() == Some(&block) {
            true => Ok(way.split_off(1)),
            false => Err(Interrupted::Moved),
        }
    }
}

impl ScanPart {
    /// What is unspent after one more block, but what that pays once the tracker has begun to
    /// merge: the tracker knows it from the block. `None`: it is damaged.
    fn connect(&mut self, block: &RawBlock, height: u32) -> Option<()> {
        let (_, mut rest) = body(block.bytes())?;
        for (position, txid) in block.txids()?.iter().enumerate() {
            let mut paid = Vec::new();
            walk(&mut rest, |part| match part {
                TxPart::Input(input) => _ = self.found.remove(&outpoint(input.prevout())),
                TxPart::Output(vout, output) => {
                    let spk = Script::from_bytes(output.script_pubkey());
                    if !self.begun && self.spks.contains(spk) {
                        paid.push((vout, spk.to_owned(), Amount::from_sat(output.value())));
                    }
                }
            })?;
            for (vout, spk, value) in paid {
                let outpoint = OutPoint { txid: *txid, vout };
                let output = FoundOutput {
                    outpoint,
                    spk,
                    value,
                    height,
                    coinbase: position == 0,
                };
                self.found.insert(outpoint, output);
            }
        }
        Some(())
    }
}

/// The scripts with their outputs, `size` of both in a part; and what else was found.
fn parts(
    spks: Vec<ScriptBuf>,
    found: Vec<FoundOutput>,
    size: usize,
) -> (Vec<ScanPart>, Vec<FoundOutput>) {
    let mut owned: HashMap<&ScriptBuf, usize> = HashMap::new();
    for output in &found {
        *owned.entry(&output.spk).or_default() += 1;
    }
    let (mut at, mut sum) = (0, 0);
    let mut places = HashMap::with_capacity(spks.len());
    for spk in spks {
        let more = 1 + owned.get(&spk).copied().unwrap_or(0);
        if sum > 0 && sum + more > size {
            (at, sum) = (at + 1, 0);
        }
        sum += more;
        places.insert(spk, at);
    }
    let mut parts: Vec<_> = (0..=at).map(|_| ScanPart::default()).collect();
    let mut beyond = Vec::new();
    for output in found {
        match places.get(&output.spk) {
            Some(at) => _ = parts[*at].found.insert(output.outpoint, output),
            None => beyond.push(output),
        }
    }
    for (spk, at) in places {
        parts[at].spks.insert(spk);
    }
    (parts, beyond)
}

/// The node's own words are neither passed on nor logged: they may repeat what it was asked, which
/// says what a wallet is, and have no bound.
fn explain(error: NodeError) -> NodeError {
    use NodeErrorKind::{Busy, Rpc, Shape, WarmingUp};
    let what = match error.kind {
        Rpc(SCAN_RUNS) if error.message.contains("in progress") => {
            let what = "bitcoind runs another scan of its unspent outputs; waiting for its end";
            return NodeError::new(Busy, what);
        }
        Rpc(code) => format!("bitcoind refuses the scan of its unspent outputs (code {code})"),
        Shape => {
            "bitcoind's answer to the scan of its unspent outputs is not understood".to_owned()
        }
        WarmingUp => "bitcoind is starting".to_owned(),
        _ => return error,
    };
    NodeError {
        message: what,
        ..error
    }
}

fn read_scan(scan: UtxoScan) -> Result<(BlockId, Vec<FoundOutput>), NodeError> {
    let hash = scan.bestblock.filter(|_| scan.success);
    let hash = hash.ok_or_else(|| {
        NodeError::new(
            NodeErrorKind::Busy,
            "somebody ended the scan of the unspent outputs; starting it again",
        )
    })?;
    let outputs = scan
        .unspents
        .into_iter()
        .map(found_output)
        .collect::<Option<_>>();
    let outputs = outputs.ok_or_else(|| {
        NodeError::new(
            NodeErrorKind::Shape,
            "bitcoind's scan names an amount that is none",
        )
    })?;
    Ok((
        BlockId {
            height: scan.height,
            hash,
        },
        outputs,
    ))
}

fn found_output(unspent: Unspent) -> Option<FoundOutput> {
    let outpoint = OutPoint {
        txid: unspent.txid,
        vout: unspent.vout,
    };
    let value = Amount::from_str_in(unspent.amount.get(), Denomination::Bitcoin).ok()?;
    Some(FoundOutput {
        outpoint,
        spk: unspent.script,
        value,
        height: unspent.height,
        coinbase: unspent.coinbase,
    })
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::block::{Header, Version};
    use bitcoin::hashes::Hash;
    use bitcoin::{
        Block, BlockHash, CompactTarget, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid,
        Witness, transaction,
    };

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
            output: pays
                .iter()
                .map(|(n, value)| TxOut {
                    value: Amount::from_sat(*value),
                    script_pubkey: spk(*n),
                })
                .collect(),
        }
    }

    fn block(txdata: Vec<Transaction>) -> RawBlock {
        let header = Header {
            version: Version::TWO,
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: 0,
            bits: CompactTarget::from_consensus(0),
            nonce: 0,
        };
        let mut block = Block { header, txdata };
        block.header.merkle_root = block.compute_merkle_root().unwrap();
        RawBlock::from(&block)
    }

    fn found(n: u8, owner: u8) -> FoundOutput {
        let outpoint = OutPoint {
            txid: Txid::from_byte_array([n; 32]),
            vout: 0,
        };
        FoundOutput {
            outpoint,
            spk: spk(owner),
            value: Amount::from_sat(9),
            height: 1,
            coinbase: false,
        }
    }

    #[test]
    fn what_the_node_says_of_a_scan_is_not_passed_on() {
        use NodeErrorKind::{Busy, Rpc, Shape, TimedOut, WarmingUp};
        let said = format!("key 'tpubD6{}' is not valid", "x".repeat(1 << 20));
        for kind in [Rpc(-5), Rpc(SCAN_RUNS), Shape, WarmingUp] {
            let told = explain(NodeError::new(kind, &said));
            assert_eq!(told.kind, kind);
            assert!(told.message.len() < 100 && !told.message.contains("tpub"));
        }
        assert!(
            explain(NodeError::new(Rpc(-5), &said))
                .message
                .contains("-5")
        );
        // What is ours is.
        let ours = NodeError::new(TimedOut, "it did not answer in time");
        assert_eq!(explain(ours.clone()), ours);
        let running = NodeError::new(Rpc(SCAN_RUNS), "Scan already in progress");
        assert_eq!(explain(running).kind, Busy);
    }

    #[test]
    fn a_scan_is_carried_over_spends_and_payments_of_a_block() {
        let old = found(9, 1);
        let spent = old.outpoint;
        let mut part = ScanPart {
            spks: HashSet::from([spk(1)]),
            found: HashMap::from([(spent, old)]),
            ..ScanPart::default()
        };
        let coinbase = tx(&[OutPoint::null()], &[(1, 50)]);
        let pays = tx(&[spent], &[(2, 5), (1, 6), (1, 7)]);
        let pays_at = |vout| OutPoint {
            txid: pays.compute_txid(),
            vout,
        };
        let spends_within = tx(&[pays_at(1)], &[(3, 6)]);
        let block = block(vec![coinbase.clone(), pays.clone(), spends_within]);
        assert_eq!(part.connect(&block, 7), Some(()));
        let mut left: Vec<_> = part
            .found
            .values()
            .map(|output| {
                (
                    output.outpoint,
                    output.value.to_sat(),
                    output.height,
                    output.coinbase,
                )
            })
            .collect();
        left.sort_by_key(|(_, value, _, _)| *value);
        assert_eq!(
            left,
            [
                (pays_at(2), 7, 7, false),
                (
                    OutPoint {
                        txid: coinbase.compute_txid(),
                        vout: 0
                    },
                    50,
                    7,
                    true
                )
            ]
        );
    }

    #[test]
    fn what_a_block_pays_while_outputs_are_merged_is_not_sent_with_the_last_of_them() {
        let (old, spent) = (found(9, 1), found(8, 1));
        let mut part = ScanPart {
            spks: HashSet::from([spk(1)]),
            found: [&old, &spent].map(|it| (it.outpoint, it.clone())).into(),
            begun: true,
            ..ScanPart::default()
        };
        let coinbase = tx(&[OutPoint::null()], &[(1, 50)]);
        let pays = tx(&[spent.outpoint], &[(1, 6)]);
        assert_eq!(part.connect(&block(vec![coinbase, pays]), 7), Some(()));
        assert_eq!(part.found, HashMap::from([(old.outpoint, old)]));
    }

    #[test]
    fn a_block_that_is_not_what_its_header_says_is_damaged() {
        let mut bytes = block(vec![tx(&[OutPoint::null()], &[(1, 50)])])
            .bytes()
            .to_vec();
        let amount = bytes.iter().position(|byte| *byte == 50).unwrap();
        bytes[amount] = 51;
        let damaged = RawBlock::parse(bytes.into()).unwrap();
        let mut part = ScanPart::default();
        assert_eq!(part.connect(&damaged, 7), None);
    }

    #[test]
    fn each_script_is_in_one_part_with_all_that_it_owns() {
        let all: Vec<_> = (0..40)
            .map(|n| found(n, [1, 2, 5][usize::from(n % 3)]))
            .collect();
        let (parts, beyond) = parts((0..8).map(spk).collect(), all, 16);
        assert!(beyond.is_empty());
        let sizes: Vec<_> = parts
            .iter()
            .map(|part| (part.spks.len(), part.found.len()))
            .collect();
        assert_eq!(sizes, [(2, 14), (3, 13), (3, 13)]);
        let spks: HashSet<_> = parts.iter().flat_map(|part| &part.spks).collect();
        assert_eq!(spks.len(), 8);
        for part in &parts {
            assert!(
                part.found
                    .iter()
                    .all(|(outpoint, output)| part.spks.contains(&output.spk)
                        && *outpoint == output.outpoint)
            );
        }
    }

    #[test]
    fn a_script_that_owns_more_than_a_part_may_hold_has_one_of_its_own() {
        let all: Vec<_> = (0..40).map(|n| found(n, 1)).collect();
        let (parts, _) = parts(vec![spk(0), spk(1), spk(2)], all, 10);
        assert_eq!(
            parts
                .iter()
                .map(|part| (part.spks.len(), part.found.len()))
                .collect::<Vec<_>>(),
            [(1, 0), (1, 40), (1, 0)]
        );
    }

    #[test]
    fn what_belongs_to_none_of_the_scripts_is_beyond_them() {
        let all = vec![found(1, 1), found(2, 7), found(3, 7), found(4, 8)];
        let (parts, beyond) = parts(vec![spk(1)], all, 10);
        assert_eq!((parts.len(), parts[0].found.len()), (1, 1));
        assert_eq!(beyond, [found(2, 7), found(3, 7), found(4, 8)]);
    }

    #[test]
    fn amounts_are_read_from_the_text() {
        let text = r#"{"success":true,"height":3,"bestblock":"0000000000000000000000000000000000000000000000000000000000000001",
            "unspents":[{"txid":"0000000000000000000000000000000000000000000000000000000000000002","vout":1,"scriptPubKey":"51",
            "desc":"x","amount":20999999.97690001,"coinbase":true,"height":2,"more":[]}],"total_amount":1}"#;
        let (block, outputs) = read_scan(serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(block.height, 3);
        assert_eq!(
            (
                outputs[0].value.to_sat(),
                outputs[0].height,
                outputs[0].coinbase
            ),
            (2_099_999_997_690_001, 2, true)
        );
    }

    #[test]
    fn an_aborted_scan_is_no_result() {
        let scan: UtxoScan = serde_json::from_str(r#"{"success":false,"unspents":[]}"#).unwrap();
        assert_eq!(read_scan(scan).unwrap_err().kind, NodeErrorKind::Busy);
    }
}
