//! Scans that go together, with what has to be in memory for it. All of it is made from the store,
//! anew whenever other scans go together, so it can be dropped at any time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bitcoin::{OutPoint, ScriptBuf};

use super::block_fetcher::{BlockFetcher, Fetched, Spent};
use super::block_matcher::{BlockMatcher, Hit, MalformedBlock};
use crate::bitcoind::{NodeError, Rpc};
use crate::history::{Interrupted, blocking};
use crate::store::{StoreError, StoreReader};
use crate::tracker::input::FoundOutput;
use crate::tracker::{
    BlockId, ScanId, ScanRow, ScannedBlock, ScannedTx, ScriptHash, Status, SubjectId,
};

/// Above this many scripts block filters name nearly every block.
const FILTERED: usize = 20_000;
/// Transactions of a history that are read at once.
const PAGE: usize = 500;

pub(super) struct ScanBatch {
    /// With the number of scripts that the row counted: fewer later means that some are not watched
    /// any more.
    pub(super) members: Vec<(ScanId, u32)>,
    /// Of each member.
    pub(super) scripts: Vec<Arc<HashSet<ScriptHash>>>,
    /// Outputs from before the first scanned block matter, or from before one at which scripts came
    /// into a scan: only the node knows them.
    pub(super) needs_prevouts: bool,
    /// For block filters, if they can tell which blocks matter.
    pub(super) spks: Option<Vec<ScriptBuf>>,
    /// First height that is not searched.
    pub(super) next: u32,
    /// The last block that was searched, once there is one.
    pub(super) below: Option<BlockId>,
    pub(super) fetcher: Option<BlockFetcher>,
    matcher: BlockMatcher,
}

impl From<MalformedBlock> for Interrupted {
    fn from(MalformedBlock(what): MalformedBlock) -> Self {
        Self::Node(NodeError::no_node(what))
    }
}

impl ScanBatch {
    /// For these scans, all of which have come to height `next`.
    pub(super) fn load(
        reader: &StoreReader,
        scans: &[(ScanId, ScanRow)],
        next: u32,
        key: &[u8; 16],
    ) -> Result<Self, StoreError> {
        let mut batch = Self {
            members: members(scans),
            scripts: Vec::with_capacity(scans.len()),
            needs_prevouts: scans.iter().any(|(_, row)| row.first() > 0),
            spks: Some(Vec::new()),
            next,
            below: None,
            fetcher: None,
            matcher: BlockMatcher::new(key),
        };
        for (scan, _) in scans {
            let descriptor = reader.snapshot().descriptor_scan(scan)?;
            batch.needs_prevouts |= descriptor.is_some_and(|it| it.late.is_some());
            let scripts = reader.snapshot().scan_scripts(scan)?;
            for script in &scripts {
                if let Some(row) = reader.snapshot().watch(script)? {
                    batch.watch(reader, script, row.spk)?;
                }
            }
            batch.scripts.push(Arc::new(scripts.into_iter().collect()));
        }
        Ok(batch)
    }

    fn watch(
        &mut self,
        reader: &StoreReader,
        script: &ScriptHash,
        spk: ScriptBuf,
    ) -> Result<(), StoreError> {
        self.matcher.watch(&spk);
        if self.next > 0 {
            track_unspent(reader, &mut self.matcher, script, &spk, self.next)?;
        }
        // Filters leave some scripts out.
        let filtered = !spk.is_op_return() && !spk.is_empty();
        self.spks
            .take_if(|spks| !filtered || spks.len() >= FILTERED);
        if let Some(spks) = &mut self.spks {
            spks.push(spk);
        }
        Ok(())
    }

    /// Nothing up to this block is left to be searched.
    pub(super) fn advance(&mut self, block: BlockId) {
        (self.below, self.next) = (Some(block), block.height.saturating_add(1));
    }

    /// Searches the next block, beside the runtime.
    pub(super) async fn search(
        mut self,
        fetched: Fetched,
    ) -> Result<(Self, Fetched, Vec<Hit>), Interrupted> {
        blocking(move || {
            if !fetched.follows(self.below) {
                return Err(Interrupted::Moved);
            }
            let spends = match &fetched.spent {
                None => None,
                Some(Spent::Raw(raw)) => Some(self.matcher.spends(raw)?),
                Some(Spent::Told(told)) => Some(
                    told.iter()
                        .map(|prevout| self.matcher.watches(&prevout.spk))
                        .collect(),
                ),
            };
            let hits = self.matcher.scan(fetched.raw.bytes(), spends.as_deref())?;
            self.advance(fetched.block);
            Ok((self, fetched, hits))
        })
        .await
    }
}

pub(super) fn members(scans: &[(ScanId, ScanRow)]) -> Vec<(ScanId, u32)> {
    scans
        .iter()
        .map(|(scan, row)| (*scan, row.scripts))
        .collect()
}

/// The block for the tracker. What only the node knows of outputs that it spends is asked for.
pub(super) async fn past_block(
    rpc: &Rpc,
    fetched: Fetched,
    hits: Vec<Hit>,
) -> Result<ScannedBlock, Interrupted> {
    let told = match fetched.spent {
        Some(Spent::Told(told)) => told,
        _ if hits.iter().any(|hit| !hit.unknown_prevouts.is_empty()) => {
            rpc.prevouts(fetched.block.hash).await?
        }
        _ => Vec::new(),
    };
    let told = told.into_iter().map(|prevout| {
        let output = FoundOutput {
            outpoint: prevout.outpoint,
            spk: prevout.spk,
            value: prevout.value,
            height: prevout.height,
            coinbase: prevout.coinbase,
        };
        (output.outpoint, output)
    });
    let told: HashMap<_, _> = told.collect();
    let transactions = hits.into_iter().map(|hit| {
        let spent = hit.unknown_prevouts.iter();
        Some(ScannedTx {
            position: hit.position,
            tx: hit.tx,
            spent: spent
                .map(|outpoint| told.get(outpoint).cloned())
                .collect::<Option<_>>()?,
        })
    });
    let transactions = transactions.collect::<Option<_>>();
    Ok(ScannedBlock {
        block: fetched.block,
        time: fetched.raw.header().time,
        transactions: transactions.ok_or(MalformedBlock("a block without an input that it has"))?,
    })
}

/// Outputs of a script that were created below `next` and that no transaction below it spends, as
/// far as its history says. Those that the baseline found are of no interest: no block of the past
/// spends them.
fn track_unspent(
    reader: &StoreReader,
    matcher: &mut BlockMatcher,
    script: &ScriptHash,
    spk: &ScriptBuf,
    next: u32,
) -> Result<(), StoreError> {
    let (mut spent, mut place) = (HashSet::new(), None);
    loop {
        // Newest first, so what spends an output comes before what created it; inside a block too.
        let snapshot = reader.snapshot();
        let page = snapshot.history(&SubjectId::Script(*script), place.as_ref(), PAGE)?;
        for (txid, row) in page.transactions {
            if !matches!(row.status, Status::Confirmed { block, .. } if block.height < next) {
                continue;
            }
            let tx = snapshot.transaction(&txid)?;
            spent.extend(tx.input.iter().map(|input| input.previous_output));
            for (vout, output) in (0..).zip(&tx.output) {
                let outpoint = OutPoint { txid, vout };
                if output.script_pubkey == *spk && !spent.remove(&outpoint) {
                    matcher.track_output(&outpoint);
                }
            }
        }
        place = page.next;
        if place.is_none() {
            return Ok(());
        }
    }
}
