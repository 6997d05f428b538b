//! Scans that go the same way, with what has to be in memory for it. All of it is read from the
//! store, so it can be dropped at any time.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bitcoin::{OutPoint, ScriptBuf};
use serde_json::{Value, json};

use super::block_matcher::BlockMatcher;
use crate::store::{StoreError, StoreReader};
use crate::tracker::{BlockId, ScanId, ScanRow, ScriptHash, Status};

/// Above this many scripts block filters name nearly every block.
const FILTERED: usize = 20_000;
/// Transactions of a history that are read at once.
const PAGE: usize = 500;

struct BatchMember {
    scan: ScanId,
    /// Scripts that its row counted: fewer later means that some are not watched any more.
    count: u32,
    first: u32,
    scripts: Arc<HashSet<ScriptHash>>,
}

pub(super) struct ScanBatch {
    members: Vec<BatchMember>,
    /// First height that is not scanned.
    pub(super) next: u32,
    /// The last block that was scanned, once there is one.
    pub(super) below: Option<BlockId>,
    /// Lent out while it searches.
    pub(super) matcher: Option<BlockMatcher>,
    /// Of all members; given up when there are too many for filters.
    spks: Option<Vec<ScriptBuf>>,
    /// Scripts that the matcher knows, those of members that have left included.
    loaded: usize,
}

impl ScanBatch {
    pub(super) fn new(next: u32, key: &[u8; 16]) -> Self {
        Self {
            members: Vec::new(),
            next,
            below: None,
            matcher: Some(BlockMatcher::new(key)),
            spks: Some(Vec::new()),
            loaded: 0,
        }
    }

    pub(super) fn scans(&self) -> Vec<ScanId> {
        self.members.iter().map(|member| member.scan).collect()
    }

    /// The scripts of each of [`Self::scans`].
    pub(super) fn scripts(&self) -> Vec<Arc<HashSet<ScriptHash>>> {
        self.members
            .iter()
            .map(|member| member.scripts.clone())
            .collect()
    }

    /// Whether outputs from before the first scanned block matter, which only the node knows.
    pub(super) fn needs_prevouts(&self) -> bool {
        self.members.iter().any(|member| member.first > 0)
    }

    /// Whether block filters can tell which blocks matter.
    pub(super) fn is_filtered(&self) -> bool {
        self.spks.is_some()
    }

    /// For `scanblocks`.
    pub(super) fn descriptors(&self) -> Value {
        self.spks
            .iter()
            .flatten()
            .map(|spk| json!(format!("raw({})", spk.to_hex_string())))
            .collect()
    }

    /// Makes these scans, all of which have come to [`Self::next`], the members. False when it is
    /// better to begin with a new batch.
    pub(super) fn set_members(
        &mut self,
        reader: &StoreReader,
        scans: &[(ScanId, ScanRow)],
    ) -> Result<bool, StoreError> {
        let mut wanted: BTreeMap<_, _> = scans.iter().map(|(scan, row)| (*scan, row)).collect();
        self.members.retain(|member| {
            let stays = wanted
                .get(&member.scan)
                .is_some_and(|row| row.scripts == member.count);
            stays && wanted.remove(&member.scan).is_some()
        });
        for (scan, row) in wanted {
            self.add(reader, scan, row)?;
        }
        let live: usize = self.members.iter().map(|member| member.scripts.len()).sum();
        Ok(self.loaded <= 2 * live.max(100))
    }

    fn add(&mut self, reader: &StoreReader, scan: ScanId, row: &ScanRow) -> Result<(), StoreError> {
        let scripts = reader.snapshot().scan_scripts(&scan)?;
        for script in &scripts {
            let Some(spk) = reader.snapshot().watch(script)?.map(|row| row.spk) else {
                continue;
            };
            if let Some(matcher) = &mut self.matcher {
                matcher.watch(&spk);
                if self.next > 0 {
                    track_unspent(reader, matcher, script, &spk, self.next)?;
                }
            }
            // Filters leave some scripts out.
            let filtered = !spk.is_op_return() && !spk.is_empty();
            self.spks = self
                .spks
                .take()
                .filter(|spks| filtered && spks.len() < FILTERED);
            self.spks
                .as_mut()
                .into_iter()
                .for_each(|spks| spks.push(spk.clone()));
        }
        self.loaded += scripts.len();
        let scripts = Arc::new(scripts.into_iter().collect());
        self.members.push(BatchMember {
            scan,
            count: row.scripts,
            first: row.first(),
            scripts,
        });
        Ok(())
    }
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
        let page = reader.snapshot().history(script, place.as_ref(), PAGE)?;
        for (txid, row) in page.transactions {
            if !matches!(row.status, Status::Confirmed { block, .. } if block.height < next) {
                continue;
            }
            spent.extend(row.tx.input.iter().map(|input| input.previous_output));
            for (vout, output) in (0..).zip(&row.tx.output) {
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
