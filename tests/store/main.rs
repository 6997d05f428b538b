//! The store as its users and its files see it: whole databases in temporary folders.

mod auth;
mod consumers;
mod crash;
mod damage;
mod format;
mod format_8;
mod library;
mod life;
mod log;
mod lookup;
mod open;
mod operations;
mod owners;
#[path = "../common/pretended/mod.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod pretended;
mod retention;
mod starts;
mod upgrade;

use std::collections::BTreeMap;
use std::hash::Hash;
use std::path::Path;
use std::sync::Arc;

use bitcoin::hashes::Hash as _;
use bitcoin::{
    Amount, BlockHash, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness, absolute, transaction,
};
use satwatch::store::{ChainInfo, Cutoff, StoreReader, Writer, open_at_boot};
use satwatch::tracker::{
    Balance, BlockId, BlockRow, ChangeSet, Coverage, Diff, Diffs, Event, EventKind, OutputRow,
    ScanId, ScanRow, ScriptHash, Status, Subject, Touch, Transition, TxRow, WatchRow,
};

const BOOT: &str = "boot-1";
const OTHER_BOOT: &str = "boot-2";

fn chain() -> ChainInfo {
    ChainInfo {
        network: Network::Regtest,
        genesis: BlockHash::from_byte_array([0x9e; 32]),
    }
}

fn open(path: &Path) -> (Writer, StoreReader) {
    open_at(path, BOOT)
}

fn open_at(path: &Path, boot: &str) -> (Writer, StoreReader) {
    open_at_boot(path, Some(chain()), 1_700_000_000_000, boot).expect("the store opens")
}

/// Every entry of the database by family and key, as a second reader of its files sees it.
fn dump(path: &Path) -> BTreeMap<(String, Vec<u8>), Vec<u8>> {
    let folder = path.join("db");
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, &folder).expect("the folder holds a database");
    let raw = rocksdb::DB::open_cf_for_read_only(&options, &folder, &families, false)
        .expect("the database opens");
    let mut entries = BTreeMap::new();
    for family in families {
        let handle = raw.cf_handle(&family).expect("it was opened");
        for entry in raw.iterator_cf(handle, rocksdb::IteratorMode::Start) {
            let (key, value) = entry.expect("the database reads");
            entries.insert((family.clone(), key.to_vec()), value.to_vec());
        }
    }
    entries
}

/// Opens the files for writing what no release of ours would write.
fn tamper(path: &Path, work: impl FnOnce(&mut rocksdb::DB)) {
    let folder = path.join("db");
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    let families = rocksdb::DB::list_cf(&options, &folder).unwrap_or_default();
    let mut raw = rocksdb::DB::open_cf(&options, &folder, families).expect("the database opens");
    work(&mut raw);
}

fn txid(n: u8) -> Txid {
    Txid::from_byte_array([n; 32])
}

fn block_id(height: u32) -> BlockId {
    BlockId {
        height,
        hash: BlockHash::from_byte_array([u8::try_from(height % 251).expect("below 251"); 32]),
    }
}

fn script(n: u8) -> ScriptHash {
    ScriptHash([n; 32])
}

fn outpoint(n: u8, vout: u32) -> OutPoint {
    OutPoint {
        txid: txid(n),
        vout,
    }
}

/// What events about a script are about.
fn subject(n: u8) -> Subject {
    Subject::Script {
        spk: ScriptBuf::from_bytes(vec![0, 20, n]),
        script: script(n),
        derivations: Vec::new(),
    }
}

fn watch_row(n: u8) -> WatchRow {
    WatchRow {
        spk: ScriptBuf::from_bytes(vec![0, 20, n]),
        listed: true,
        derivations: Vec::new(),
        label: format!("till {n}"),
        added: 1_700_000_000_001,
        depths: vec![1, 6],
        coverage: Coverage {
            from_height: 101,
            utxos_complete: true,
            pending: false,
            ..Coverage::default()
        },
        balance: Balance {
            confirmed: 5_000,
            unconfirmed: -2_000,
        },
        utxo_count: 2,
        outputs: [0, 2, 1].get(usize::from(n)).copied().unwrap_or_default(),
        tx_count: 3,
        updated: 1_700_000_000_002,
    }
}

fn output_row(n: u8, value: u64) -> OutputRow {
    OutputRow {
        script: script(n),
        value,
        height: Some(101),
        coinbase: false,
        spent: None,
        earlier: Vec::new(),
    }
}

fn transaction(n: u8) -> Transaction {
    let input = TxIn {
        previous_output: outpoint(n, 1),
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::from_slice(&[[n; 2]]),
    };
    let output = TxOut {
        value: Amount::from_sat(7_000),
        script_pubkey: ScriptBuf::from_bytes(vec![0, 20, n]),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![input],
        output: vec![output],
    }
}

/// The transaction that comes with a row.
fn raw_tx(txid: &Txid) -> Arc<Transaction> {
    Arc::new(transaction(txid.to_byte_array()[0]))
}

/// A transaction row that touches `scripts`.
fn tx_row(status: Status, order: u64, scripts: &[u8]) -> TxRow {
    let touches = scripts
        .iter()
        .map(|n| Touch {
            script: script(*n),
            received: 7_000,
            sent: 0,
        })
        .collect();
    TxRow {
        status,
        signals: true,
        inherits: false,
        first_seen: 1_700_000_000_003,
        order,
        touches,
        nets: Vec::new(),
        earlier: Vec::new(),
    }
}

fn block_event(height: u32) -> Event {
    let block = block_id(height);
    Event {
        time: u64::from(height) * 1_000,
        tip: Some(block),
        kind: EventKind::Block {
            block,
            time: height,
            transactions: 1,
        },
    }
}

/// A row of any table, before and after.
#[derive(Debug, Clone)]
enum Change {
    Watch {
        script: ScriptHash,
        old: Option<WatchRow>,
        new: Option<WatchRow>,
    },
    Output {
        outpoint: OutPoint,
        old: Option<OutputRow>,
        new: Option<OutputRow>,
    },
    Tx {
        txid: Txid,
        old: Option<TxRow>,
        new: Option<TxRow>,
    },
    Block {
        height: u32,
        old: Option<BlockRow>,
        new: Option<BlockRow>,
    },
    Tip {
        old: Option<BlockId>,
        new: Option<BlockId>,
    },
    Scan {
        scan: ScanId,
        old: Option<ScanRow>,
        new: Option<ScanRow>,
    },
    ScanScript {
        scan: ScanId,
        script: ScriptHash,
        old: bool,
        new: bool,
    },
    Forgetting {
        script: ScriptHash,
        old: bool,
        new: bool,
    },
    Adding {
        old: Vec<ScriptHash>,
        new: Vec<ScriptHash>,
    },
}

fn change_set(changes: impl IntoIterator<Item = Change>) -> ChangeSet {
    let mut set = ChangeSet::default();
    for change in changes {
        let there = |is: bool| is.then_some(());
        let list = |list: Vec<_>| Some(list).filter(|list| !list.is_empty());
        match change {
            Change::Watch { script, old, new } => put(&mut set.watches, script, old, new),
            Change::Output { outpoint, old, new } => put(&mut set.outputs, outpoint, old, new),
            Change::Tx { txid, old, new } => {
                let raw = |row: &Option<TxRow>| row.as_ref().map(|_| raw_tx(&txid));
                if old.is_some() != new.is_some() {
                    put(&mut set.raw_txs, txid, raw(&old), raw(&new));
                }
                put(&mut set.txs, txid, old, new);
            }
            Change::Block { height, old, new } => put(&mut set.blocks, height, old, new),
            Change::Tip { old, new } => put(&mut set.tip, (), old, new),
            Change::Scan { scan, old, new } => put(&mut set.scans, scan, old, new),
            Change::ScanScript {
                scan,
                script,
                old,
                new,
            } => {
                let key = (scan, script);
                put(&mut set.scan_scripts, key, there(old), there(new));
            }
            Change::Forgetting { script, old, new } => {
                put(&mut set.forgetting, script, there(old), there(new));
            }
            Change::Adding { old, new } => put(&mut set.adding, (), list(old), list(new)),
        }
    }
    set
}

fn put<K: Eq + Hash, R>(diffs: &mut Diffs<K, R>, key: K, old: Option<R>, new: Option<R>) {
    let known = diffs.insert(key, Diff { old, new });
    assert!(known.is_none(), "one change for a row");
}

fn changes(changes: Vec<Change>) -> Transition {
    Transition {
        changes: change_set(changes),
        ..Transition::default()
    }
}

/// A transition with `count` events, their times counting up from `first` seconds.
fn events(first: u32, count: u32) -> Transition {
    Transition {
        events: (first..first + count).map(block_event).collect(),
        ..Transition::default()
    }
}

/// The numbers of all events above `after`.
fn numbers(reader: &StoreReader, after: u64) -> Vec<u64> {
    reader
        .read_events(after, usize::MAX)
        .expect("the log reads")
        .into_iter()
        .map(|(number, _)| number)
        .collect()
}

/// What happened before this is old, whatever the chain says.
fn old_by_clock(before: u64) -> Cutoff {
    Cutoff {
        before,
        now: u64::MAX,
        young: u32::MAX,
    }
}
