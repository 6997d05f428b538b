//! What enters [`Tracker::apply`](super::Tracker::apply) and what leaves it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};

use super::{
    Baseline, BlockId, ChangeSet, Derivation, DescriptorId, DescriptorRow, Event, Keychain,
    RawBlock, RawTx, Replacement, ScanId, ScriptHash, SubjectId, ViewError,
};

/// Unused addresses in a row, beyond which a new descriptor does not look.
const GAP_LIMIT_DEFAULT: u32 = 20;

/// A script to watch, as a caller asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRequest {
    pub spk: ScriptBuf,
    /// `None` leaves the label of an already watched script as it is.
    pub label: Option<String>,
    /// Confirmation depths to add; empty adds none (1 is always told).
    pub depths: Vec<u8>,
    pub baseline: Baseline,
}

/// A descriptor to watch, as a caller asks for it. Only the first time text, keychains and baseline
/// count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptorRequest {
    /// Public, with checksum.
    pub text: String,
    /// One or two.
    pub keychains: usize,
    /// Without, it has one script in each keychain.
    pub is_ranged: bool,
    /// `None` leaves the label as it is.
    pub label: Option<String>,
    /// `None`: as it is, or [`GAP_LIMIT_DEFAULT`] of a new one.
    pub gap_limit: Option<u32>,
    /// Indexes that are watched at least, from 0 on.
    pub range: u32,
    /// Confirmation depths to add; 1 is always told.
    pub depths: Vec<u8>,
    pub baseline: Baseline,
}

impl DescriptorRequest {
    /// What holds once it is fulfilled: a gap limit never shrinks.
    pub fn gap_limit(&self, known: Option<&DescriptorRow>) -> u32 {
        match known {
            Some(row) => row.gap_limit.max(self.gap_limit.unwrap_or(0)),
            None => self.gap_limit.unwrap_or(GAP_LIMIT_DEFAULT),
        }
    }
}

/// One confirmed unspent output, as `scantxoutset` reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundOutput {
    pub outpoint: OutPoint,
    pub spk: ScriptBuf,
    pub value: Amount,
    pub height: u32,
    pub coinbase: bool,
}

/// A block of our chain in which a history scan found something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedBlock {
    pub block: BlockId,
    pub time: u32,
    /// Those that may matter, in block order. One too many does no harm.
    pub transactions: Vec<ScannedTx>,
}

/// A confirmed transaction that a history scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedTx {
    /// Its place in the block, 0 for the coinbase.
    pub position: u32,
    pub tx: Transaction,
    /// Outputs that it spends and that were created before the scan's first block: nobody else can
    /// know them.
    pub spent: Vec<FoundOutput>,
}

/// Which part of the outputs of one script comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Portion {
    First,
    Next,
    Last,
}

/// How a history scan ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanEnd {
    /// Everything is in the rows, up to this block.
    Complete(BlockId),
    /// With the last height that it had to come to, if that is known.
    Cancelled(Option<u32>),
}

/// How a transaction came to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Over `rawtx` alone, which also carries the transactions of blocks: if it matters, the answer
    /// asks for a check ([`FollowUp::Check`]) and nothing changes.
    Rawtx,
    /// The node just said that its mempool holds it, so what it conflicts with is gone.
    Accepted,
    /// Fetched from the mempool after [`FollowUp::Fetch`], so it may be stale: it displaces only
    /// what is marked as leaving.
    Fetched,
}

/// Everything that can happen. `now` is in milliseconds since the Unix epoch.
#[derive(Debug, Clone)]
pub enum Input {
    /// The first blocks that an empty store knows, ascending from `first_height`; the last one is
    /// the node's tip, and following starts above it. A window of them (2016, or all there are), so
    /// that a reorg soon after the start finds its fork point.
    Start {
        first_height: u32,
        blocks: Vec<(BlockHash, u32)>,
        now: u64,
    },
    /// A block on top of our tip. That it is whole is checked here ([`ApplyError::BadBlock`]).
    Connect {
        block: RawBlock,
        height: u32,
        now: u64,
    },
    /// Take back every block above `to`, which is in our chain.
    Disconnect { to: BlockId, now: u64 },
    /// A transaction, and how it is known.
    TxSeen { tx: RawTx, seen: Seen, now: u64 },
    /// The node said that these left its mempool, not why: marked as leaving until a successor, a
    /// block or `EvictMissing`.
    TxRemoved { txids: Vec<Txid> },
    /// The time for successors is over: what is still marked as leaving was evicted, but for
    /// `spared`, which left too short a while ago.
    EvictMissing { spared: Vec<Txid>, now: u64 },
    /// A portion of what `EvictMissing` has left to be evicted goes. To be sent while the tracker
    /// [has some](super::Tracker::is_evicting).
    EvictMore,
    /// The node's whole mempool while `tip` was its tip. Ignored unless that is our tip too. What
    /// it lacks is marked as leaving, what we lack, or asked for and did not get, is asked for
    /// ([`FollowUp::Fetch`]): send that first and `EvictMissing` after it, or replacements look
    /// like evictions.
    MempoolSnapshot {
        tip: BlockHash,
        txids: BTreeSet<Txid>,
        now: u64,
    },
    /// Watch these scripts from now on. Already watched ones only get the new label and depths.
    /// Refused ([`ApplyError::StillForgetting`]) while one of them has rows from before, and if one
    /// would have too many depths ([`ApplyError::TooManyDepths`]).
    Watch {
        scripts: Vec<WatchRequest>,
        now: u64,
    },
    /// Some of the scripts of a large add, which counts when `is_last` has come: what is new in one
    /// that never is finished is to be [unwatched](Self::Unwatch) at the next start, and of one of
    /// which a part is refused, as `Watch` is, at once.
    WatchPart {
        scripts: Vec<WatchRequest>,
        is_last: bool,
        now: u64,
    },
    /// The confirmed unspent outputs of `scripts` at `block`. Refused ([`ApplyError::NotOurTip`])
    /// unless that is our tip.
    Baseline {
        block: BlockId,
        scripts: Vec<ScriptHash>,
        outputs: Vec<FoundOutput>,
        now: u64,
    },
    /// Some of the outputs of a script that has very many; it is as with `Baseline` when the last
    /// of them have come, which are to be sent until they are refused: each time some of what
    /// spends any of them is matched. Refused ([`ApplyError::NotMerging`]) for one that does not
    /// wait, or was watched anew, or whose outputs a reorg may have changed, since the first.
    BaselinePart {
        block: BlockId,
        script: ScriptHash,
        portion: Portion,
        outputs: Vec<FoundOutput>,
        now: u64,
    },
    /// Forget these scripts and all that is known of them alone. They are not watched any more
    /// after this input; if they have many rows, these go with [`Input::Forget`].
    Unwatch { scripts: Vec<ScriptHash>, now: u64 },
    /// A portion of the rows goes that forgotten scripts, removed descriptors and ended scans have
    /// left; nothing happens without any. To be sent while the tracker [has
    /// some](super::Tracker::has_to_forget).
    Forget { now: u64 },
    /// Watch a descriptor from now on; its scripts come with `Derived`. One that is watched gets
    /// what is new in the request. Refused ([`ApplyError::StillLeaving`]) while it has rows from
    /// before, and if it would have too many depths ([`ApplyError::TooManyDepths`]).
    AddDescriptor {
        descriptor: DescriptorId,
        request: DescriptorRequest,
        now: u64,
    },
    /// Scripts of a descriptor, from index `first` on, which must be the first that is lacking
    /// ([`ApplyError::NotDerivedTo`]). Refused ([`ApplyError::StillForgetting`]) while one of them
    /// has rows from before.
    Derived {
        descriptor: DescriptorId,
        keychain: Keychain,
        first: u32,
        spks: Vec<ScriptBuf>,
        now: u64,
    },
    /// An index is given to somebody. Refused if it was before, or is used, or has no script yet.
    Reserve {
        place: Derivation,
        label: Option<String>,
        now: u64,
    },
    /// This index of a descriptor, which may have no script yet, is used: its window reaches there.
    /// Until its first baseline is over, the scripts up to it are part of that.
    Reach { place: Derivation, now: u64 },
    /// The node cannot tell what this script, which waits for its baseline, owned: its descriptors
    /// go on without. It goes on waiting, so that a later baseline puts that right. If some of it
    /// has come in portions, a portion of that goes: to be sent until its coverage is not
    /// `in_portions` any more.
    LeaveOut { script: ScriptHash, now: u64 },
    /// What is watched is called so from now on; nothing takes the label away. Refused
    /// ([`ApplyError::NotWatched`], [`ApplyError::NoSuchDescriptor`]) if it is not watched.
    Label {
        subject: SubjectId,
        label: String,
        now: u64,
    },
    /// A portion of the past of scripts comes to count for the descriptors that they joined. To be
    /// sent while the tracker [has some](super::Tracker::has_to_join).
    Join { now: u64 },
    /// A descriptor is not watched any more after this input; its rows, and the scripts that only
    /// it had, go with [`Input::Forget`].
    RemoveDescriptor { descriptor: DescriptorId, now: u64 },
    /// Some of the scripts of a scan that is to be opened: the rest comes with `OpenScan`. Those of
    /// a scan that never is opened go after the next start.
    ScanScripts {
        scan: ScanId,
        scripts: Vec<ScriptHash>,
    },
    /// A history scan of `scripts` (those that are watched) is to be made, from height `from` on.
    /// Its id must be new.
    OpenScan {
        scan: ScanId,
        scripts: Vec<ScriptHash>,
        from: u32,
        to: Option<u32>,
        now: u64,
    },
    /// A history scan of all scripts of a descriptor, which come with `EnterScan`. Otherwise as
    /// `OpenScan`.
    OpenDescriptorScan {
        scan: ScanId,
        descriptor: DescriptorId,
        from: u32,
        to: Option<u32>,
        now: u64,
    },
    /// A portion of the scripts of its descriptor enters a scan, of those whose baseline is merged.
    /// Nothing happens when all of these are in it.
    EnterScan { scan: ScanId },
    /// The node has no blocks below `horizon` any more: these scans leave them out.
    SkipPruned {
        scans: Vec<ScanId>,
        horizon: u32,
        now: u64,
    },
    /// What the blocks from height `first` up to `upto` did for the scripts of `scans` (`scripts`:
    /// those of each, in the same order), all of which have come to `first` (or the input is
    /// refused, [`ApplyError::ScanMoved`]). Scans that have ended are left out. Blocks ascending;
    /// those without a find are not named.
    ScanBlocks {
        scans: Vec<ScanId>,
        scripts: Vec<Arc<HashSet<ScriptHash>>>,
        first: u32,
        blocks: Vec<ScannedBlock>,
        upto: BlockId,
        now: u64,
    },
    /// The end of a history scan. A complete one must have come to where its scripts are covered or
    /// to where it was told to; it is that for a portion of its scripts at a time, and to be sent
    /// until there is no such scan any more ([`ApplyError::NoSuchScan`]). One of a descriptor may
    /// go back or on instead, once for each such input (`super::descriptor_scans`).
    CloseScan {
        scan: ScanId,
        end: ScanEnd,
        now: u64,
    },
    /// Which transactions the node lets be replaced, from now on; until it is told, any.
    Policy(Replacement),
}

/// What the follower should do for the tracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowUp {
    /// Ask the node whether its mempool holds this transaction; if so, send it again as
    /// [`Seen::Accepted`].
    Check(RawTx),
    /// Fetch these transactions from the node's mempool and send them as [`Seen::Fetched`]. May be
    /// as many as the mempool holds.
    Fetch(Vec<Txid>),
    /// Scripts wait for their baseline: read which from the store (their coverage says `pending`)
    /// and scan. May come without need.
    Baseline,
    /// Descriptors want more of their scripts: read which from the store and send
    /// [`Input::Derived`]. May come without need.
    Derive,
    /// History scans were opened or ended: read which from the store. May come without need.
    Scans,
}

/// What an input did. Nothing of it counts before it is committed.
#[must_use = "a transition that is not committed is a lost change"]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Transition {
    pub changes: ChangeSet,
    pub events: Vec<Event>,
    pub follow_ups: Vec<FollowUp>,
}

/// Why an input was refused; the tracker is as it was before, unless the error [is
/// fatal](ApplyError::is_fatal).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("the block builds on {previous}, but our tip is {tip:?}: walk back to the fork point")]
    DoesNotConnect {
        tip: Option<BlockId>,
        previous: BlockHash,
    },
    #[error("block {0} is damaged: fetch it again")]
    BadBlock(BlockHash),
    #[error("transaction {0} is damaged")]
    BadTransaction(Txid),
    /// In a block that is whole, and half applied.
    #[error("transaction {0} of a block cannot be read")]
    Unreadable(Txid),
    #[error("the chain is already followed from {tip:?}")]
    AlreadyStarted { tip: BlockId },
    #[error("block {to:?} is not in our chain below the tip {tip:?}: walk further back")]
    NotInChain { tip: Option<BlockId>, to: BlockId },
    #[error("the scan speaks for block {block:?}, our tip is {tip:?}: scan again")]
    NotOurTip {
        tip: Option<BlockId>,
        block: BlockId,
    },
    #[error("{0:?} does not wait for these outputs")]
    NotMerging(ScriptHash),
    #[error("{0:?} is not watched")]
    NotWatched(ScriptHash),
    #[error("there is no open history scan {0}")]
    NoSuchScan(ScanId),
    #[error("there is a history scan {0} already")]
    ScanExists(ScanId),
    #[error("history scan {scan} has not come to height {height}: read from the store where it is")]
    ScanMoved { scan: ScanId, height: u32 },
    #[error("the blocks of a stretch must ascend from height {first} up to {upto:?}")]
    BadStretch { first: u32, upto: BlockId },
    #[error("{0:?} is still being forgotten: watch it when nothing is any more")]
    StillForgetting(ScriptHash),
    #[error("descriptor {0} is still being forgotten: add it when nothing is any more")]
    StillLeaving(DescriptorId),
    /// `spk`: of a script, or else of the descriptor.
    #[error("told with {has:?}, and with {asked:?} these would be too many depths")]
    TooManyDepths {
        spk: Option<ScriptBuf>,
        has: Vec<u8>,
        asked: Vec<u8>,
    },
    #[error("there is no descriptor {0}")]
    NoSuchDescriptor(DescriptorId),
    #[error("{0:?} is not the next script: read from the store which is")]
    NotDerivedTo(Derivation),
    #[error("{0:?} was given away or used: take the next index")]
    AlreadyGiven(Derivation),
    #[error("amounts of {0:?} do not add up")]
    Amount(ScriptHash),
    #[error("amounts of descriptor {0} do not add up")]
    DescriptorAmount(DescriptorId),
    #[error(transparent)]
    View(#[from] ViewError),
}

impl ApplyError {
    /// Not a refusal but a broken store or an impossible chain: the tracker must not be used any
    /// more.
    pub fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::View(_) | Self::Amount(_) | Self::DescriptorAmount(_) | Self::Unreadable(_)
        )
    }
}
