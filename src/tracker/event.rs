//! What subscribers hear, as domain values. `crate::api::json` gives them their wire form, once for
//! all subscribers.
//!
//! Legal changes of a transaction's [`Phase`] for one script; the tests and the soak read them from
//! this table, too:
//!
#![doc = include_str!("status_changes.md")]
//!
//! (1) When it turns out to spend an output of the script that was not known before. (2) At a
//! deeper confirmation depth that a subscriber asked for, or when a history scan finds that it
//! moves more for the script; or a coinbase that came again, or whose second block went
//! (`super::repeats`). (3) When its block went and the node had accepted what replaces it
//! before we heard of that. (4) A coinbase, or gone with its block.
//!
//! A script that was added late may hear of a transaction for the first time when that one returns
//! from a stale block; if it falls in the same reorg, with a coinbase, the first word about it is
//! that it was evicted. What a history scan found is known without a word, so that the first one
//! may be any.

use bitcoin::{BlockHash, ScriptBuf, Txid};

use super::{
    BlockId, Derivation, DescriptorId, Net, Replacement, ScanId, ScriptHash, Status, Touch, TxRow,
};

/// Balance of one script in satoshi. `unconfirmed` is the signed effect of the mempool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    pub confirmed: i64,
    pub unconfirmed: i64,
}

impl Balance {
    /// What the address will own when the mempool is mined: confirmed plus unconfirmed.
    pub fn total(&self) -> i64 {
        self.confirmed.saturating_add(self.unconfirmed)
    }
}

/// [`Status`] without its details: the word on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Mempool,
    Confirmed,
    Replaced,
    Conflicted,
    Evicted,
}

impl Status {
    pub fn phase(&self) -> Phase {
        match self {
            Self::Mempool => Phase::Mempool,
            Self::Confirmed { .. } => Phase::Confirmed,
            Self::Replaced { .. } => Phase::Replaced,
            Self::Conflicted { .. } => Phase::Conflicted,
            Self::Evicted => Phase::Evicted,
        }
    }
}

/// One transaction as one script sees it: an element of `new_transactions` and of `GET
/// /transactions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxSummary {
    pub txid: Txid,
    pub received: u64,
    pub sent: u64,
    pub status: Status,
    pub block_time: Option<u32>,
    pub first_seen: u64,
    /// It is unconfirmed, and the node lets it be replaced.
    pub replaceable: bool,
}

impl TxSummary {
    /// The summary of `row` for a script or a descriptor; zero amounts when it does not touch it.
    pub fn of(
        txid: Txid,
        row: &TxRow,
        subject: &SubjectId,
        block_time: Option<u32>,
        policy: Replacement,
    ) -> Self {
        let part = row.parts().find(|part| part.subject == *subject);
        let none = Part {
            subject: *subject,
            received: 0,
            sent: 0,
        };
        Self::of_part(txid, row, &part.unwrap_or(none), block_time, policy)
    }

    /// The same, by who has the row's part for the subject at hand.
    pub(super) fn of_part(
        txid: Txid,
        row: &TxRow,
        part: &Part,
        block_time: Option<u32>,
        policy: Replacement,
    ) -> Self {
        Self {
            txid,
            received: part.received,
            sent: part.sent,
            status: row.status,
            block_time,
            first_seen: row.first_seen,
            replaceable: row.is_replaceable(policy),
        }
    }
}

/// What a transaction does to one of those whom it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub subject: SubjectId,
    pub received: u64,
    pub sent: u64,
}

impl From<&Touch> for Part {
    fn from(touch: &Touch) -> Self {
        Self {
            subject: SubjectId::Script(touch.script),
            received: touch.received,
            sent: touch.sent,
        }
    }
}

impl From<&Net> for Part {
    fn from(net: &Net) -> Self {
        Self {
            subject: SubjectId::Descriptor(net.descriptor),
            received: net.received,
            sent: net.sent,
        }
    }
}

impl TxRow {
    /// What it does to scripts, then to descriptors.
    pub(super) fn parts(&self) -> impl Iterator<Item = Part> {
        let touches = self.touches.iter().map(Part::from);
        touches.chain(self.nets.iter().map(Part::from))
    }
}

/// Why a balance changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A transaction entered the mempool (and displaced those it replaces).
    Transaction(Txid),
    /// A block was connected.
    Block(BlockHash),
    /// Blocks were disconnected down to this one.
    Reorg(BlockHash),
    /// Transactions left the mempool without a successor.
    Removed(Txid),
    /// The confirmed outputs from before the address was added were found.
    Baseline(BlockHash),
}

/// One entry of the event log. Its number is given by the store when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Milliseconds since the Unix epoch, when the input came that caused it.
    pub time: u64,
    /// Our tip after the input; `None` before the first block.
    pub tip: Option<BlockId>,
    pub kind: EventKind,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A watched script, and where it stands in descriptors.
    Script {
        spk: ScriptBuf,
        script: ScriptHash,
        derivations: Vec<Derivation>,
    },
    /// A descriptor: amounts are sums over its scripts.
    Descriptor(DescriptorId),
}

impl Subject {
    /// A script that is of no descriptor.
    pub fn script(spk: ScriptBuf) -> Self {
        Self::Script {
            script: ScriptHash::of(&spk),
            spk,
            derivations: Vec::new(),
        }
    }

    pub fn id(&self) -> SubjectId {
        match self {
            Self::Script { script, .. } => SubjectId::Script(*script),
            Self::Descriptor(descriptor) => SubjectId::Descriptor(*descriptor),
        }
    }
}

/// The same without what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SubjectId {
    Script(ScriptHash),
    Descriptor(DescriptorId),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    NewTransactions {
        subject: Subject,
        transactions: Vec<TxSummary>,
    },
    BalanceChange {
        subject: Subject,
        old: Balance,
        new: Balance,
        cause: Cause,
    },
    /// `transaction.status` is the new status; `confirmations` is 0 while not confirmed.
    TransactionUpdate {
        subject: Subject,
        previous: Phase,
        transaction: TxSummary,
        confirmations: u32,
    },
    /// A history scan of the script has ended: all its transactions from `from` up to `to` are in
    /// its history now, which holds `transactions` in all. What it found is told by this alone.
    ScanComplete {
        subject: Subject,
        scan: ScanId,
        from: u32,
        to: u32,
        transactions: u64,
    },
    /// The script is not watched any more; the last event about it, unless somebody adds it again.
    /// If it says where it stands in descriptors, it was taken off the list of addresses, and stays
    /// watched for these.
    Unwatched { subject: Subject },
    /// What is watched is called otherwise now. A new address's first label is not an event.
    LabelChange {
        subject: Subject,
        old: String,
        new: String,
    },
    /// A block was connected; the last event that it causes.
    Block {
        block: BlockId,
        time: u32,
        transactions: u32,
    },
    /// Blocks were disconnected: from the old tip down to the fork point, `depth` of them. The
    /// first event that it causes.
    Reorg {
        old_tip: BlockId,
        fork_point: BlockId,
        depth: u32,
    },
}

impl EventKind {
    /// What the event is about; `None` for events about the chain.
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Self::NewTransactions { subject, .. }
            | Self::BalanceChange { subject, .. }
            | Self::TransactionUpdate { subject, .. } => Some(subject),
            Self::ScanComplete { subject, .. } | Self::LabelChange { subject, .. } => Some(subject),
            Self::Unwatched { subject } => Some(subject),
            Self::Block { .. } | Self::Reorg { .. } => None,
        }
    }

    pub fn subject_id(&self) -> Option<SubjectId> {
        self.subject().map(Subject::id)
    }

    /// The script that the event is about, if it is one.
    pub fn script(&self) -> Option<&ScriptHash> {
        match self.subject()? {
            Subject::Script { script, .. } => Some(script),
            Subject::Descriptor(_) => None,
        }
    }
}
