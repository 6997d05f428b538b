//! The rows: everything the tracker remembers about the past. Their list is in [`super::tables`].
//!
//! Amounts are in satoshi, times in milliseconds since the Unix epoch. How rows become bytes is the
//! business of `crate::store`; lookup rows (a script's unspent outputs, a script's history) are
//! derived there from these.

use std::fmt;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{BlockHash, OutPoint, Script, ScriptBuf, Transaction, Txid, transaction};

use super::descriptors::{Derivation, DescriptorId};

/// A block's height and hash together: the only way a block is named, since a height alone does not
/// survive a reorg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockId {
    pub height: u32,
    pub hash: BlockHash,
}

/// SHA-256 of a script pubkey; the key under which a watched script is known everywhere below the
/// API.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScriptHash(pub [u8; 32]);

impl ScriptHash {
    pub fn of(spk: &Script) -> Self {
        Self(sha256::Hash::hash(spk.as_bytes()).to_byte_array())
    }
}

impl fmt::Debug for ScriptHash {
    /// Byte-reversed hex, as Electrum servers print it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .rev()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What to find out about a script's past. While a baseline ([`Input::Baseline`](super::Input)) is
/// to come, its coverage says `pending`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Baseline {
    /// Nothing: watched from now on.
    Skip,
    /// Its unspent outputs, unless they are known.
    IfMissing,
    /// Its unspent outputs, even if they are known.
    Refresh,
}

/// What is known so far of an address's past.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Coverage {
    /// First height from which every transaction of the script is known; 0 when its whole history
    /// is, `u32::MAX` while no block is.
    pub from_height: u32,
    /// The confirmed unspent outputs that existed before `from_height` are known too, so the
    /// balance is whole.
    pub utxos_complete: bool,
    /// A baseline was asked for and is not merged yet.
    pub pending: bool,
    /// Set with the first `pending`, until the baseline is whole: what it has brought so far, which
    /// is not shown.
    pub staged: Option<Staged>,
    /// The node cannot tell what the baseline asks for: no descriptor waits for it.
    pub left_out: bool,
    /// Its baseline comes in portions: its descriptors tell no balance before it is whole.
    pub in_portions: bool,
}

impl Coverage {
    /// Whether an output at this height counts in `staged`, and not in the balance. Nothing else
    /// that is known stands below `from_height` before the baseline is whole.
    pub fn is_staged(&self, height: Option<u32>) -> bool {
        self.staged.is_some() && height.is_some_and(|height| height < self.from_height)
    }

    /// What is known after a baseline.
    pub fn whole(from_height: u32) -> Self {
        Self {
            from_height,
            utxos_complete: true,
            ..Self::default()
        }
    }

    /// Whether a baseline is to come.
    pub fn is_awaited(&self) -> bool {
        self.pending && !self.left_out
    }
}

/// What the outputs of a baseline add up to. It may go below zero when what was found is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Staged {
    pub balance: crate::tracker::Balance,
    pub utxo_count: i64,
}

/// One watched script. The balances are kept running, so reading one is one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRow {
    pub spk: ScriptBuf,
    /// It was added by itself. If not, it is watched for its descriptors alone.
    pub listed: bool,
    /// Where it stands in descriptors, ascending.
    pub derivations: Vec<Derivation>,
    pub label: String,
    pub added: u64,
    /// Confirmation depths that subscribers asked to be told about, ascending; 1 is always among
    /// them.
    pub depths: Vec<u8>,
    pub coverage: Coverage,
    pub balance: crate::tracker::Balance,
    /// Outputs that no transaction we know of spends.
    pub utxo_count: u64,
    /// Outputs that have a row, spent or not: without any it is not used.
    pub outputs: u64,
    pub tx_count: u64,
    /// Time of the last change of balance or history.
    pub updated: u64,
}

/// Who spends an output, and in which block (`None`: unconfirmed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spend {
    pub txid: Txid,
    pub height: Option<u32>,
}

/// An output that pays a watched script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRow {
    pub script: ScriptHash,
    pub value: u64,
    /// Height of the block it is in (`None`: unconfirmed).
    pub height: Option<u32>,
    pub coinbase: bool,
    pub spent: Option<Spend>,
    /// What earlier blocks had created in its place (`super::repeats`), ascending.
    pub earlier: Vec<EarlierOutput>,
}

/// An output that a block at `height` created in the same place, and that was spent before it was
/// created again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EarlierOutput {
    pub height: u32,
    pub spender: Txid,
    /// Height of the spender's block.
    pub spent_at: u32,
}

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Mempool,
    /// `position` is its place in the block, 0 for the coinbase.
    Confirmed {
        block: BlockId,
        position: u32,
    },
    Replaced {
        by: Txid,
    },
    /// A block took an input of it or of an ancestor for another transaction.
    Conflicted {
        by: Txid,
    },
    /// Gone from the node's mempool without a successor that we know of.
    Evicted,
}

/// What one transaction does to one watched script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touch {
    pub script: ScriptHash,
    pub received: u64,
    pub sent: u64,
}

/// What one transaction does to one descriptor: the sum of what it does to its scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    pub descriptor: DescriptorId,
    pub received: u64,
    pub sent: u64,
}

/// Which unconfirmed transactions the node lets be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replacement {
    /// All of them (full RBF), which nodes do unless they are told otherwise.
    #[default]
    Any,
    /// Those that signal it (BIP 125, or version 3), or descend from an unconfirmed one that does.
    Signalled,
    Never,
}

/// Whether the transaction itself says that it may be replaced: by a sequence (BIP 125), or by
/// version 3 (BIP 431).
pub(crate) fn signals_replacement(tx: &Transaction) -> bool {
    tx.is_explicitly_rbf() || tx.version == transaction::Version(3)
}

/// What is known of a transaction that touches at least one watched script. The transaction itself
/// is a row of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxRow {
    pub status: Status,
    /// The transaction itself says that it may be replaced.
    pub signals: bool,
    /// It is unconfirmed, and so is an ancestor that signals that it may be replaced.
    pub inherits: bool,
    pub first_seen: u64,
    /// Place in the history of its scripts, larger is newer: height in the upper 32 bits
    /// (`u32::MAX` while unconfirmed; the tip's height plus one when it died), position in the
    /// block or arrival second in the lower.
    pub order: u64,
    pub touches: Vec<Touch>,
    /// What the touches add up to for each descriptor, ascending by its id.
    pub nets: Vec<Net>,
    /// Heights of earlier blocks that hold it too (`super::repeats`), ascending.
    pub earlier: Vec<u32>,
}

impl TxRow {
    /// It is in a block or in the mempool.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.status, Status::Confirmed { .. } | Status::Mempool)
    }

    /// Whether a node with this policy lets it be replaced.
    pub fn is_replaceable(&self, policy: Replacement) -> bool {
        let may_be = match policy {
            Replacement::Any => true,
            Replacement::Signalled => self.inherits || self.signals,
            Replacement::Never => false,
        };
        self.status == Status::Mempool && may_be
    }
}

/// One block of our chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRow {
    pub hash: BlockHash,
    pub time: u32,
    /// Transactions of this block that touch watched scripts, in block order: what a disconnect has
    /// to take back.
    pub touched: Vec<Txid>,
    /// Outputs of this block that a baseline found, so that their transactions are not known.
    pub found: Vec<OutPoint>,
}

/// Names a history scan; random, so that nobody meets an old one again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScanId(pub u64);

impl fmt::Display for ScanId {
    /// 16 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ScanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How far a history scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanState {
    Open,
    Complete,
    Cancelled,
}

/// One history scan. Its scripts are a table of their own, since this row is written with every
/// step of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRow {
    pub created: u64,
    /// Time of the last step.
    pub updated: u64,
    pub state: ScanState,
    /// First height that was asked for.
    pub from: u32,
    /// Last height that was asked for, or that a cancelled one had to come to; `None`: up to where
    /// its scripts are covered.
    pub to: Option<u32>,
    /// First height whose block the node still has, if that is above `from`: nothing below it is
    /// scanned.
    pub horizon: Option<u32>,
    /// What its scripts do in the blocks from the first on up to below this height is in the rows.
    pub next: u32,
    /// Scripts when it was created, without those that were forgotten since.
    pub scripts: u32,
    /// Places in histories that it filled: a transaction counts for each of its scripts.
    pub found: u64,
}

impl ScanRow {
    /// First height that is, or would be, scanned.
    pub fn first(&self) -> u32 {
        self.horizon
            .map_or(self.from, |horizon| horizon.max(self.from))
    }
}

/// What a history scan knows of the descriptor that it is for, beside its [`ScanRow`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptorScan {
    pub descriptor: DescriptorId,
    /// Of each keychain the first index whose script is not in it.
    pub entered: Vec<u32>,
    /// Below this height it has to look once more.
    pub late: Option<u32>,
    pub back: Option<WayBack>,
    /// From this height on all is known of the scripts that it has completed.
    pub from_height: u32,
}

/// A scan has gone back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WayBack {
    /// Below this height.
    pub upto: u32,
    /// There it goes on then.
    pub then: u32,
}
