//! RocksDB: the rows, the lookup rows derived from them, and the event log. The only module that
//! knows key bytes.
//!
//! # Laws
//!
//! 1. What must be true together is written together: one commit is one batch with rows, lookup
//!    rows, events, tip, numbers and counts. A reader sees all of a commit or nothing of it.
//! 2. There is one [`Writer`], owned by the indexer thread, and any number of [`StoreReader`]s;
//!    what must agree is read from one [`Snapshot`].
//! 3. Lookup rows are derived here from a change's old and new row and from nothing else, so the
//!    inverse of a change takes its lookup rows back too.
//! 4. Event numbers start at 1 and are never given twice, not even when the machine loses power
//!    (see [`log`]). A copy of the folder that is put back gives them again, under another start
//!    (see [`starts`]).
//! 5. Bytes written by one release are read by the next, or refused with a sentence that says so.
//!    Every value starts with its version; a change of keys or families raises [`FORMAT`].
//! 6. Damage is refused, never worked around: a file that is missing, short or altered, also in the
//!    write-ahead log, is an error, and the folder stays as it is. Only what a death may leave
//!    behind is forgiven: half a creation, half a batch at the end of the log, and after a power
//!    loss whatever was not synced.
//!
//! # Folder
//!
//! ```text
//! <store.path>/lock    held while a daemon runs; holds its process id
//! <store.path>/db/     RocksDB
//! ```
//!
//! # Files, each importing only those above it
//!
//! ```text
//! error, codec (keys, rows, events), starts      bytes and what they mean
//! families, folder                               RocksDB's options; lock, permissions, whose folder it is
//! db                                             the open database: rows, ranges, batches
//! reader (and Snapshot), log                     reading; numbers and events
//! writer, open                                   one commit; creating, upgrading, going on
//! retention, consumers, auth, owners             what else is read and written, each in one place
//! inspect                                        a look from outside, for doctor
//! ```
//!
//! # Families
//!
//! Keys are of fixed width; numbers in keys are big-endian, so that the order of bytes is the order
//! of numbers; hashes are in their internal byte order. A value is one version byte (1 if no other
//! is given) and then fields in Bitcoin's consensus encoding: integers little-endian, lists and
//! texts led by a compact size, `x?` is a byte 0, or a byte 1 and x. An empty value is really
//! empty.
//!
//! | family | key | value | read for |
//! |---|---|---|---|
//! | `meta` | name, see below | | start; tip, head and counts of a snapshot |
//! | `blocks` | height u32 | hash, time u32, touched txids, found (txid, vout u32) | fork point, disconnect, times of blocks |
//! | `watches` | script hash | version 2: spk, listed, derivations (see `derivations`), label, added u64, depths, from_height u32, flags u8 (bits: 1 unspent outputs complete, 2 pending, 8 staged, 16 left out, 32 in portions), (confirmed i64, unconfirmed i64, utxo_count i64, only with bit 8), confirmed i64, unconfirmed i64, utxo_count u64, outputs u64, tx_count u64, updated u64 | balance |
//! | `listed` (8) | script hash | empty | list of addresses: scripts that were added by themselves |
//! | `outputs` | txid, vout u32 | script hash, value u64, height u32?, coinbase, (txid, height u32?)? spend, (6) unless empty: earlier ones (height u32, txid and height u32 of the spend) | matching inputs |
//! | `unspent` | script hash, txid, vout u32 | empty | outputs of a script whose spend is not confirmed |
//! | `coinbases` (4) | script hash, height u32, txid, vout u32 | value u64 | immature part of a balance: coinbase outputs that nothing spends, by height |
//! | `txs` | txid | version 3: status, signals, inherits, first_seen u64, order u64, touches (script hash, received u64, sent u64), nets (descriptor id, received u64, sent u64), unless empty: heights u32 of earlier blocks that hold it | what is known of one transaction |
//! | `raw_txs` (6) | txid | transaction | matching it again, loading the mempool |
//! | `history` | script hash or descriptor id, inverted order u64, txid | empty | the transactions of a script or a descriptor, newest first |
//! | `mempool` | txid | empty | transactions with status mempool, at start |
//! | `since` | from_height u32, script hash | empty | scripts whose coverage a reorg cuts |
//! | `pending` | script hash | empty | scripts that wait for their baseline |
//! | `scans` (2) | id u64 | created u64, updated u64, state u8 (0 open, 1 complete, 2 cancelled), from u32, to u32?, horizon u32?, next u32, scripts u32, found u64 | history scans, and the newest of those that have ended |
//! | `scan_scripts` (5) | id u64, script hash | empty | the scripts of a history scan that is open or about to be, or has ended and is being emptied |
//! | `script_scans` (5) | script hash, id u64 | empty | the same by script |
//! | `descriptor_scans` (8) | id u64 | descriptor id, entered u32s, late u32?, (upto u32, then u32)? back, from_height u32 | history scans that are for a descriptor |
//! | `forgetting` (5) | script hash | empty | scripts that are not watched any more, whose rows are going |
//! | `open_scans` (2) | id u64 | empty | history scans that are open |
//! | `descriptors` (8) | descriptor id | keychains (last_used u32?, reserved u32, window u32, watched_to u32, derived u32, first u32), is_ranged, gap_limit u32, depths, from_height u32, awaited u64, (confirmed i64, unconfirmed i64)? held, confirmed i64, unconfirmed i64, utxo_count u64, tx_count u64, updated u64, unless empty: places (see `derivations`) of scripts that are left out | balance of a descriptor |
//! | `wallets` (8) | descriptor id | text, label, added u64, baseline u8 (0 skip, 1 if missing, 2 refresh) | what was asked for |
//! | `derivations` (8) | descriptor id, keychain u8 (0 external, 1 internal), index u32 | script hash | addresses of a descriptor |
//! | `owned_outputs` (8) | descriptor id, txid, vout u32 | empty | outputs of a descriptor whose spend is not confirmed |
//! | `joining` (8) | as in `derivations` | empty | scripts whose past does not count for a descriptor yet |
//! | `leaving` (8) | descriptor id | empty | descriptors that are not watched any more, whose rows are going |
//! | `events` | number u64 | see [`codec::events`] | subscribers |
//! | `cursors` | name of a consumer, then see [`consumers`] | | named readers of the log |
//! | `auth` (7) | see [`auth`] | | what was seen of the tokens file last; when tokens were used last; what they own; sessions of the page |
//!
//! A status is a byte: 0 mempool; 1 confirmed, then height u32, hash, position u32; 2 replaced,
//! then by; 3 conflicted, then by; 4 evicted. `signals`: it says itself that it may be replaced;
//! `inherits`: it is in the mempool, and an unconfirmed ancestor does. `inverted` means all bits
//! flipped.
//!
//! Families marked (2) came with format 2, and nothing else did but bit 4 of a watch's flags (how
//! many scans it is in follows, u32), a `scan_scripts` whose key was the id and whose value the
//! list of its scripts, and the kinds 5 and 6 of events. Format 3 has `starts` in `meta` where the
//! others had `log_id`, a text, which is the id of the first start now, and in `cursors` a webhook
//! with expiring secrets and headers, and the entries `f`, `r` and `s`. Format 4 added the family
//! marked (4), which is filled from `outputs` once. Format 5 has a row for each script of a scan,
//! both ways, and so no bit 4, and what is marked (5). Format 6 has transactions in a family of
//! their own, where those before had them behind their rows (version 1: status, which was 5 for one
//! that inherits since format 3, first_seen, order, touches, transaction). Format 7 has the family
//! marked (7); it is raised for that alone so that no earlier release, which knows no tokens,
//! serves the folder to everybody. Format 8 has what is marked (8), the versions of rows that are
//! given above, and the kind 7 of events. A folder of an earlier format is read and brought up; a
//! later one is refused.
//!
//! | `meta` key | value | |
//! |---|---|---|
//! | `format` | u32 | [`FORMAT`] |
//! | `upgrading` (6) | u32 | the format that the rows are brought up from, while they are; an earlier release sees `format` and refuses the folder |
//! | `chain` | text, hash | network as `bitcoind -chain` names it; genesis |
//! | `starts` | list of (id text, first u64, held u64) | each start of the daemon, see [`starts`]; an id is 16 hex digits, random |
//! | `created` | u64 | milliseconds since the Unix epoch |
//! | `tip` | height u32, hash | absent before the first block |
//! | `next_seq` | u64 | number of the next event |
//! | `first_seq` | u64 | no event below it is kept |
//! | `reserved` | u64 | every number that was ever given is below it; synced |
//! | `boot` | text | boot id of the machine when the store was opened last |
//! | `clean` | bool | the store was closed in order |
//! | `counts` | version 2: 4 × u64 | scripts that were added by themselves, other watched scripts, unspent outputs, transactions |
//! | `monitoring` | bool | absent until it was started or stopped by a person |
//! | `adding` (5) | list of script hashes, ascending | those that are new in an add which is not finished; absent without any |

#[cfg(test)]
mod arbitrary;
mod auth;
mod codec;
mod consumers;
mod db;
mod descriptors;
mod error;
mod families;
mod folder;
mod inspect;
mod log;
mod open;
mod owners;
mod reader;
mod retention;
mod scans;
mod starts;
mod writer;

use std::path::Path;

use bitcoin::{BlockHash, Network};

pub use auth::{AuthEdit, AuthMark, RememberedAuth, SessionKey, SessionRow};
pub use consumers::{
    ConsumerEdit, ConsumerPlace, ConsumerRow, DeadLetter, Delivery, Failing, SigningSecret,
    Webhook, WebhookStop,
};
pub use error::StoreError;
pub use inspect::{Inspected, inspect, is_in_use, remembered_auth};
pub use owners::{Owned, OwnerEdits, TokenKey};
pub use reader::{HeldSnapshot, HistoryCursor, HistoryPage, Snapshot, StoreReader, UtxoPage};
pub use retention::{Cutoff, PRUNE_LIMIT};
pub use starts::Starts;
pub use writer::Writer;

/// No part of the interface: for the fuzz targets alone.
#[doc(hidden)]
pub mod internals {
    pub use super::codec::rows::{tx_of_format_5, tx_of_format_7, watch_of_format_7};
    pub use super::codec::{Malformed, StoredValue, keys};
}

/// Version of keys, families and fields.
pub const FORMAT: u32 = 8;

/// Ended history scans that a start leaves, the newest.
const KEPT_SCANS: usize = 10_000;

/// Which chain a store belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainInfo {
    pub network: Network,
    pub genesis: BlockHash,
}

/// Totals for `/status`, kept by the writer from the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowCounts {
    /// Scripts that were added by themselves.
    pub addresses: u64,
    /// Scripts that are watched for descriptors alone.
    pub derived: u64,
    /// Outputs of watched scripts that no transaction we know of spends.
    pub utxos: u64,
    /// Transactions that touch a watched script, whatever became of them.
    pub transactions: u64,
}

/// Opens the store in folder `path`, or creates it. `chain` is what the node says it follows;
/// `None` (the node is down) trusts what the store remembers. `now` is in milliseconds since the
/// Unix epoch. `stopped` is asked row by row while an earlier format is brought up, which may take
/// minutes.
pub fn open(
    path: &Path,
    chain: Option<ChainInfo>,
    now: u64,
    stopped: &dyn Fn() -> bool,
) -> Result<(Writer, StoreReader), StoreError> {
    opened(open::open(
        path,
        chain,
        now,
        &boot_id(),
        stopped,
        folder::free_space,
    )?)
}

/// [`open`] with the boot id of the machine as an argument: another one than at the last opening,
/// without a clean stop in between, means that the machine may have lost what was not synced.
pub fn open_at_boot(
    path: &Path,
    chain: Option<ChainInfo>,
    now: u64,
    boot: &str,
) -> Result<(Writer, StoreReader), StoreError> {
    let free = folder::free_space;
    opened(open::open(path, chain, now, boot, &|| false, free)?)
}

fn opened(
    (db, numbers, counts): (db::Db, log::Numbers, RowCounts),
) -> Result<(Writer, StoreReader), StoreError> {
    let db = std::sync::Arc::new(db);
    let (writer, reader) = (
        Writer::new(db.clone(), numbers, counts),
        StoreReader::new(db),
    );
    writer.forget_ended_scans(KEPT_SCANS)?;
    Ok((writer, reader))
}

/// Where the system names its boot, that; elsewhere something random, so that every unclean stop
/// counts as a power loss.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .map(|id| id.trim().to_owned())
        .filter(|id| !id.is_empty())
        .unwrap_or_else(random_hex)
}

/// 16 hex digits.
fn random_hex() -> String {
    format!(
        "{:016x}",
        getrandom::u64().expect("the system has random numbers")
    )
}
