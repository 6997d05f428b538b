//! A pretended runner of history scans: reads from the rows how far an open scan is, reads the
//! node's blocks, and says what is to be sent next.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use bitcoin::OutPoint;
use satwatch::tracker::{
    BlockId, FoundOutput, Input, MemoryView, ScanEnd, ScanId, ScannedBlock, ScannedTx, ScriptHash,
    View,
};

use super::Node;

/// How one stretch is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stretch {
    /// At most so many blocks.
    pub blocks: u32,
    /// Hand every transaction of a block, and every output that they spend.
    pub too_much: bool,
}

/// What is next for a scan and all that are as far: a stretch of blocks, or its end. `None` while a
/// baseline is to come.
pub fn next_step(
    node: &Node,
    view: &MemoryView,
    scan: ScanId,
    stretch: Stretch,
    now: u64,
) -> Option<Input> {
    let own = scripts_of(view, &scan);
    let end = first_covered(view, &own)?;
    let (row, tip) = (&view.scans[&scan], view.tip().expect("there is a tip"));
    let back = view.descriptor_scans.get(&scan).and_then(|it| it.back);
    let end = back
        .map_or(end, |back| back.upto)
        .min(row.to.map_or(u32::MAX, |to| to + 1))
        .min(tip.height + 1);
    if row.next >= end {
        let upto = node.nearest(end.max(row.next).saturating_sub(1));
        let end = ScanEnd::Complete(upto);
        return Some(Input::CloseScan { scan, end, now });
    }
    let as_far = view.open_scans().into_iter();
    let as_far = as_far.filter(|other| *other != scan && view.scans[other].next == row.next);
    let others = as_far
        .map(|other| (other, scripts_of(view, &other)))
        .filter(|(_, scripts)| first_covered(view, scripts).is_some());
    let mut all: Vec<(ScanId, Vec<ScriptHash>)> = others.chain([(scan, own)]).collect();
    all.sort_unstable_by_key(|(scan, _)| *scan);
    let scans: Vec<ScanId> = all.iter().map(|(scan, _)| *scan).collect();
    let scripts: Vec<Arc<HashSet<ScriptHash>>> = all
        .into_iter()
        .map(|(_, scripts)| Arc::new(scripts.into_iter().collect()))
        .collect();
    let upto = node.nearest((end - 1).min(row.next.saturating_add(stretch.blocks.max(1) - 1)));
    // Only who began above the first block needs to be told what was created below.
    let firsts = scans.iter().map(|scan| view.scans[scan].first());
    // Or those into which scripts came on their way.
    let of_descriptor = |scan: &ScanId| view.descriptor_scans.get(scan);
    let is_late = |scan: &ScanId| of_descriptor(scan).is_some_and(|it| it.late.is_some());
    let told_below = match stretch.too_much || scans.iter().any(is_late) {
        true => u32::MAX,
        false => firsts.max().unwrap_or(0),
    };
    let matters = |script: ScriptHash| {
        stretch.too_much || scripts.iter().any(|scripts| scripts.contains(&script))
    };
    Some(Input::ScanBlocks {
        first: row.next,
        blocks: node.past(matters, told_below, row.next..=upto.height),
        upto,
        now,
        scans,
        scripts,
    })
}

fn scripts_of(view: &MemoryView, scan: &ScanId) -> Vec<ScriptHash> {
    view.scan_scripts(scan, usize::MAX).expect("it reads")
}

/// From this height on these scripts of a scan are covered; `None` while a baseline is to come. One
/// that is just being removed may still stand in it.
fn first_covered(view: &MemoryView, scripts: &[ScriptHash]) -> Option<u32> {
    let rows = scripts.iter().filter_map(|script| view.watches.get(script));
    let firsts = rows.map(|row| (!row.coverage.pending).then_some(row.coverage.from_height));
    firsts
        .collect::<Option<Vec<_>>>()
        .map(|firsts| firsts.into_iter().max().unwrap_or(0))
}

impl Node {
    /// The block at this height, or the tip below it.
    fn nearest(&self, height: u32) -> BlockId {
        self.id((height as usize).min(self.chain.len() - 1))
    }

    /// What the blocks of these heights did for scripts that matter, with what that spends of
    /// outputs that were created below `told_below`.
    fn past(
        &self,
        matters: impl Fn(ScriptHash) -> bool,
        told_below: u32,
        heights: RangeInclusive<u32>,
    ) -> Vec<ScannedBlock> {
        let mut created: HashMap<OutPoint, FoundOutput> = HashMap::new();
        let mut past = Vec::new();
        for (height, block) in (0..=*heights.end()).zip(&self.chain) {
            let mut transactions = Vec::new();
            for (position, tx) in (0..).zip(&block.txdata) {
                let spent = tx
                    .input
                    .iter()
                    .filter_map(|input| created.get(&input.previous_output));
                let mut spent: Vec<FoundOutput> = spent.cloned().collect();
                let paid = tx.output.iter().map(|out| &out.script_pubkey);
                let mut spks = paid.chain(spent.iter().map(|output| &output.spk));
                if spks.any(|spk| matters(ScriptHash::of(spk))) {
                    spent.retain(|output| output.height < told_below);
                    let tx = tx.clone();
                    transactions.push(ScannedTx {
                        position,
                        tx,
                        spent,
                    });
                }
                let (txid, coinbase) = (tx.compute_txid(), tx.is_coinbase());
                created.extend((0..).zip(&tx.output).map(|(vout, out)| {
                    let outpoint = OutPoint { txid, vout };
                    let output = FoundOutput {
                        outpoint,
                        spk: out.script_pubkey.clone(),
                        value: out.value,
                        height,
                        coinbase,
                    };
                    (outpoint, output)
                }));
            }
            if heights.contains(&height) && !transactions.is_empty() {
                past.push(ScannedBlock {
                    block: self.id(height as usize),
                    time: block.header.time,
                    transactions,
                });
            }
        }
        past
    }
}
