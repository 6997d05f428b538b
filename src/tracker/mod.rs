//! The pure core: what the chain and the mempool mean for the watched scripts.
//!
//! Nothing here reads a clock, a socket or a file, takes a lock, logs or waits. One [`Tracker`] is
//! owned by one thread (`crate::indexer`); it gets [`Input`]s, reads rows through a [`View`] and
//! answers with a [`Transition`]: the rows that change, the events that subscribers hear, and what
//! the follower should fetch or check.
//!
//! # Laws
//!
//! 1. `apply` either returns a transition or refuses the input and has changed nothing. (A fatal
//!    error, an unreadable row or amounts beyond all money, ends the process; so does a transition
//!    that cannot be committed.)
//! 2. State is the fold of the change sets; what a subscriber sees is the fold of the events. Each
//!    `balance_change` starts from the balance that the one before ended with.
//! 3. A transaction is announced once per script (`NewTransactions`), at first sight; whatever
//!    happens to it later is a [`EventKind::TransactionUpdate`]. Legal successions of its status
//!    are the table in [`event`].
//! 4. Confirmed means: in a block that is connected on our tip. Unconfirmed means: the node said
//!    that its mempool holds it. A coinbase is never unconfirmed.
//! 5. An input that says nothing new is an empty transition. Any input may come twice.
//! 6. Whatever news came late, early or never: one snapshot at the node's tip, and the answers to
//!    what it asks, put it right.
//! 7. Going back needs nothing from the node: `Disconnect` works from our own rows, to any depth.
//!
//! # Flow
//!
//! ```text
//! Connect      match every output against the watched scripts, every input against the watched outputs (in block order, so
//!              a spend inside the block works) and against what tracked unconfirmed transactions spend (conflicts)
//! Disconnect   per block, newest first: its transactions go back to the mempool view, coinbases and what spends them go
//!              (one that is in two blocks: [`repeats`])
//! TxSeen       match as above; what it displaces is replaced by it
//! TxRemoved    marked as leaving; the reason follows at once (a replacement, a block) or not at all (EvictMissing: evicted,
//!              very many in portions with EvictMore)
//! MempoolSnapshot
//!              the node's whole mempool at our tip: what it lacks is gone, what we lack (or asked for in vain) is asked for
//! Watch        live from this very input on; tracked unconfirmed transactions are matched again, others that pay it asked for;
//!              large adds come in WatchPart, and count as a whole or not at all;
//!              everybody's depths of one script, up to a bound: [`depths`]
//! Baseline     what it owned before, as of our tip: only what comes after that is covered; very many outputs come in
//!              BaselinePart, and are shown when all of them are there
//! OpenScan     (many scripts in ScanScripts before) its history before that is wanted; ScanBlocks brings it, ascending
//!              [`scan_blocks`]; CloseScan says that it is whole
//! OpenDescriptorScan, EnterScan
//!              the same for a descriptor, whose scripts enter as they come: [`descriptor_scans`]
//! Unwatch      as if it had never been watched; of very many rows the rest goes with Forget, in portions
//! Forget       a portion of what is to be taken away goes: rows of scripts, scripts of ended scans
//! AddDescriptor, Derived, Reserve, Reach, LeaveOut, Join, RemoveDescriptor
//!              wallets whose scripts are watched as one thing: [`descriptors`]
//! Label        another name for a script or a wallet: [`labels`]
//! Policy       which transactions the node lets be replaced
//! ```

mod change_builder;
mod connect;
mod depths;
mod descriptor_scans;
mod descriptors;
pub mod event;
mod event_builder;
pub mod fingerprints;
pub mod input;
mod labels;
mod mempool;
pub mod raw;
mod repeats;
pub mod rows;
mod scan_blocks;
mod scans;
pub mod state;
pub mod tables;
mod transition;
mod unwatch;
pub mod view;
mod watching;

pub use depths::{DEPTHS_MOST, all_depths};
pub use descriptors::{
    Derivation, DescriptorId, DescriptorRow, Keychain, KeychainRow, LOOKAHEAD, WalletRow,
};
pub use event::{Balance, Cause, Event, EventKind, Phase, Subject, SubjectId, TxSummary};
pub use input::{
    ApplyError, DescriptorRequest, FollowUp, FoundOutput, Input, Portion, ScanEnd, ScannedBlock,
    ScannedTx, Seen, Transition, WatchRequest,
};
pub use raw::{RawBlock, RawTx};
pub(crate) use rows::signals_replacement;
pub use rows::{
    Baseline, BlockId, BlockRow, Coverage, DescriptorScan, EarlierOutput, Net, OutputRow,
    Replacement, ScanId, ScanRow, ScanState, ScriptHash, Spend, Staged, Status, Touch, TxRow,
    WatchRow, WayBack,
};
pub use state::Tracker;
pub(crate) use tables::for_each_table;
pub use tables::{ChangeSet, Diff, Diffs};
pub use view::{MemoryView, Overlay, Place, Rows, View, ViewError};
