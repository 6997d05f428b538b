//! The bytes on disk, letter by letter. A failure here means that stores out there could not be
//! read any more: do not change a vector, give the value a new version.
//!
//! Vectors are hex, their fields apart; `65*32` is byte 65 thirty-two times.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use satwatch::store::{self, FORMAT, RowCounts, open_at_boot};
use satwatch::tracker::{
    Balance, BlockRow, Cause, Coverage, Event, EventKind, OutputRow, Phase, Rows, ScanId, ScanRow,
    ScanState, Spend, Staged, Status, SubjectId, Transition, TxRow, TxSummary, View, WatchRow,
};
use tempfile::{TempDir, tempdir};

use super::format_8::{in_eighth, seventh_entries, seventh_format};
use super::{
    Change, block_id, chain, changes, dump, open, outpoint, output_row, raw_tx, script, subject,
    tamper, tx_row, txid, watch_row,
};

/// What a store of format 1 holds: family, key, value; keys of `meta` are text.
pub(super) const VECTORS: &[(&str, &str, &str)] = &[
    (
        "blocks",
        "00000065",
        "01 65*32 29ab5f49 02 01*32 02*32 01 03*32 07000000",
    ),
    (
        "events",
        "0000000000000001",
        "01 888a010000000000 01 65000000 65*32 00 03 001401 01*32 02 \
         02*32 581b000000000000 0100000000000000 01 65000000 65*32 03000000 01 29ab5f49 0368e5cf8b010000 01 \
         01*32 0000000000000000 0200000000000000 00 00 0368e5cf8b010000 00",
    ),
    (
        "events",
        "0000000000000002",
        "01 888a010000000000 01 65000000 65*32 01 03 001401 01*32 \
         fbffffffffffffff 0600000000000000 0700000000000000 f8ffffffffffffff 00 02*32",
    ),
    (
        "events",
        "0000000000000003",
        "01 888a010000000000 01 65000000 65*32 01 03 001401 01*32 \
         fbffffffffffffff 0600000000000000 0700000000000000 f8ffffffffffffff 01 65*32",
    ),
    (
        "events",
        "0000000000000004",
        "01 888a010000000000 01 65000000 65*32 01 03 001401 01*32 \
         fbffffffffffffff 0600000000000000 0700000000000000 f8ffffffffffffff 02 65*32",
    ),
    (
        "events",
        "0000000000000005",
        "01 888a010000000000 01 65000000 65*32 01 03 001401 01*32 \
         fbffffffffffffff 0600000000000000 0700000000000000 f8ffffffffffffff 03 02*32",
    ),
    (
        "events",
        "0000000000000006",
        "01 888a010000000000 01 65000000 65*32 01 03 001401 01*32 \
         fbffffffffffffff 0600000000000000 0700000000000000 f8ffffffffffffff 04 65*32",
    ),
    (
        "events",
        "0000000000000007",
        "01 888a010000000000 01 65000000 65*32 02 03 001401 01*32 00 \
         02*32 581b000000000000 0100000000000000 01 65000000 65*32 03000000 01 29ab5f49 0368e5cf8b010000 01 06000000",
    ),
    (
        "events",
        "0000000000000008",
        "01 888a010000000000 01 65000000 65*32 02 03 001401 01*32 01 \
         02*32 581b000000000000 0100000000000000 01 65000000 65*32 03000000 01 29ab5f49 0368e5cf8b010000 01 06000000",
    ),
    (
        "events",
        "0000000000000009",
        "01 888a010000000000 01 65000000 65*32 02 03 001401 01*32 02 \
         02*32 581b000000000000 0100000000000000 01 65000000 65*32 03000000 01 29ab5f49 0368e5cf8b010000 01 06000000",
    ),
    (
        "events",
        "000000000000000a",
        "01 888a010000000000 01 65000000 65*32 02 03 001401 01*32 03 \
         02*32 581b000000000000 0100000000000000 01 65000000 65*32 03000000 01 29ab5f49 0368e5cf8b010000 01 06000000",
    ),
    (
        "events",
        "000000000000000b",
        "01 888a010000000000 01 65000000 65*32 02 03 001401 01*32 04 \
         02*32 581b000000000000 0100000000000000 01 65000000 65*32 03000000 01 29ab5f49 0368e5cf8b010000 01 06000000",
    ),
    (
        "events",
        "000000000000000c",
        "01 888a010000000000 00 03 65000000 65*32 29ab5f49 03000000",
    ),
    (
        "events",
        "000000000000000d",
        "01 888a010000000000 01 65000000 65*32 04 65000000 65*32 63000000 63*32 02000000",
    ),
    ("history", "01*32 00000000fffffff8 01*32", ""),
    ("history", "01*32 ffffff9afffffffd 02*32", ""),
    ("history", "01*32 fffffffffffffffe 05*32", ""),
    ("history", "01*32 fffffffffffffffe 06*32", ""),
    ("history", "02*32 00000000fffffff8 01*32", ""),
    ("mempool", "01*32", ""),
    ("meta", "boot", "01 06 626f6f742d31"),
    ("meta", "chain", "01 07 72656774657374 9e*32"),
    ("meta", "clean", "01 00"),
    (
        "meta",
        "counts",
        "01 0200000000000000 0100000000000000 0500000000000000",
    ),
    ("meta", "created", "01 0068e5cf8b010000"),
    ("meta", "first_seq", "01 0100000000000000"),
    ("meta", "format", "01 01000000"),
    ("meta", "log_id", "01 10 30313233343536373839616263646566"),
    ("meta", "monitoring", "01 01"),
    ("meta", "next_seq", "01 0e00000000000000"),
    ("meta", "reserved", "01 0100100000000000"),
    ("meta", "tip", "01 65000000 65*32"),
    (
        "outputs",
        "01*32 00000000",
        "01 01*32 50c3000000000000 00 00 00",
    ),
    (
        "outputs",
        "01*32 00000100",
        "01 02*32 0100000000000000 01 65000000 01 01 02*32 00",
    ),
    (
        "outputs",
        "02*32 00000001",
        "01 01*32 0200000000000000 01 65000000 00 01 03*32 01 66000000",
    ),
    ("pending", "02*32", ""),
    ("since", "00000065 01*32", ""),
    ("since", "ffffffff 02*32", ""),
    (
        "txs",
        "01*32",
        "01 00 0368e5cf8b010000 07000000ffffffff \
         02 01*32 581b000000000000 0000000000000000 02*32 581b000000000000 0000000000000000 \
         02000000 0001 01 01*32 01000000 00 fdffffff 01 581b000000000000 03 001401 01 02 0101 00000000",
    ),
    (
        "txs",
        "02*32",
        "01 01 65000000 65*32 02000000 0368e5cf8b010000 0200000065000000 01 01*32 581b000000000000 0000000000000000 \
         02000000 0001 01 02*32 01000000 00 fdffffff 01 581b000000000000 03 001402 01 02 0202 00000000",
    ),
    (
        "txs",
        "05*32",
        "01 02 02*32 0368e5cf8b010000 0100000000000000 01 01*32 581b000000000000 0000000000000000 \
         02000000 0001 01 05*32 01000000 00 fdffffff 01 581b000000000000 03 001405 01 02 0505 00000000",
    ),
    (
        "txs",
        "06*32",
        "01 03 02*32 0368e5cf8b010000 0100000000000000 01 01*32 581b000000000000 0000000000000000 \
         02000000 0001 01 06*32 01000000 00 fdffffff 01 581b000000000000 03 001406 01 02 0606 00000000",
    ),
    (
        "txs",
        "07*32",
        "01 04 0368e5cf8b010000 0100000000000000 00 \
         02000000 0001 01 07*32 01000000 00 fdffffff 01 581b000000000000 03 001407 01 02 0707 00000000",
    ),
    ("unspent", "01*32 01*32 00000000", ""),
    ("unspent", "02*32 01*32 00000100", ""),
    (
        "watches",
        "01*32",
        "01 03 001401 06 74696c6c2031 0168e5cf8b010000 02 0106 65000000 01 \
         8813000000000000 30f8ffffffffffff 0200000000000000 0300000000000000 0268e5cf8b010000",
    ),
    (
        "watches",
        "02*32",
        "01 03 001402 06 74696c6c2032 0168e5cf8b010000 02 0106 ffffffff 02 \
         8813000000000000 30f8ffffffffffff 0200000000000000 0300000000000000 0268e5cf8b010000",
    ),
];

/// What format 2 added.
const SECOND: &[(&str, &str, &str)] = &[
    (
        "events",
        "000000000000000e",
        "01 888a010000000000 01 65000000 65*32 05 03 001401 01*32 efcdab8967452301 07000000 65000000 0900000000000000",
    ),
    (
        "events",
        "000000000000000f",
        "01 888a010000000000 01 65000000 65*32 06 03 001401 01*32",
    ),
    ("open_scans", "0123456789abcdef", ""),
    ("scan_scripts", "0123456789abcdef", "01 02 01*32 02*32"),
    (
        "scans",
        "0000000000000001",
        "01 0168e5cf8b010000 0268e5cf8b010000 01 07000000 01 09000000 01 08000000 0a000000 01000000 0300000000000000",
    ),
    (
        "scans",
        "0000000000000002",
        "01 0168e5cf8b010000 0268e5cf8b010000 02 07000000 00 00 07000000 01000000 0000000000000000",
    ),
    (
        "scans",
        "0123456789abcdef",
        "01 0168e5cf8b010000 0268e5cf8b010000 00 07000000 00 00 08000000 02000000 0300000000000000",
    ),
    ("since", "00000065 03*32", ""),
    (
        "watches",
        "03*32",
        "01 03 001403 06 74696c6c2033 0168e5cf8b010000 02 0106 65000000 05 02000000 \
         8813000000000000 30f8ffffffffffff 0200000000000000 0300000000000000 0268e5cf8b010000",
    ),
];

/// A transaction of the mempool that inherits: what format 3 added besides the starts.
const INHERITS: (&str, &str, &str) = (
    "txs",
    "08*32",
    "01 05 0368e5cf8b010000 07000000ffffffff 01 01*32 581b000000000000 0000000000000000 \
     02000000 0001 01 08*32 01000000 00 fdffffff 01 581b000000000000 03 001408 01 02 0808 00000000",
);

/// An unspent output of a coinbase, and what format 4 added for it.
const COINBASE: &[(&str, &str, &str)] = &[
    (
        "outputs",
        "04*32 00000002",
        "01 03*32 00f2052a01000000 01 65000000 01 00",
    ),
    ("unspent", "03*32 04*32 00000002", ""),
    (
        "coinbases",
        "03*32 00000065 04*32 00000002",
        "01 00f2052a01000000",
    ),
];

/// What a store of format 5 has in place of the lists of scans' scripts, and of how many scans a
/// script is in.
const FIFTH: &[(&str, &str, &str)] = &[
    ("scan_scripts", "0123456789abcdef 01*32", ""),
    ("scan_scripts", "0123456789abcdef 02*32", ""),
    ("script_scans", "01*32 0123456789abcdef", ""),
    ("script_scans", "02*32 0123456789abcdef", ""),
    (
        "watches",
        "03*32",
        "01 03 001403 06 74696c6c2033 0168e5cf8b010000 02 0106 65000000 01 \
         8813000000000000 30f8ffffffffffff 0200000000000000 0300000000000000 0268e5cf8b010000",
    ),
];

/// What is there only while something is worked off.
const UNFINISHED: &[(&str, &str, &str)] = &[
    ("meta", "adding", "01 02 01*32 02*32"),
    ("forgetting", "04*32", ""),
    (
        "watches",
        "03*32",
        "01 03 001403 06 74696c6c2033 0168e5cf8b010000 02 0106 65000000 0a \
         e803000000000000 ffffffffffffffff feffffffffffffff \
         8813000000000000 30f8ffffffffffff 0200000000000000 0300000000000000 0268e5cf8b010000",
    ),
];

/// What becomes of the scans of an earlier format.
fn in_fifth(mut held: Entries) -> Entries {
    let list = entries(&[("scan_scripts", "0123456789abcdef", "")]);
    if list.into_keys().all(|list| held.remove(&list).is_some()) {
        held.extend(entries(FIFTH));
    }
    held
}

/// What a store of format 6 has in place of rows with their transactions.
const SIXTH: &[(&str, &str, &str)] = &[
    (
        "txs",
        "01*32",
        "02 00 01 00 0368e5cf8b010000 07000000ffffffff \
         02 01*32 581b000000000000 0000000000000000 02*32 581b000000000000 0000000000000000",
    ),
    (
        "txs",
        "02*32",
        "02 01 65000000 65*32 02000000 01 00 0368e5cf8b010000 0200000065000000 \
         01 01*32 581b000000000000 0000000000000000",
    ),
    (
        "txs",
        "05*32",
        "02 02 02*32 01 00 0368e5cf8b010000 0100000000000000 01 01*32 581b000000000000 0000000000000000",
    ),
    (
        "txs",
        "06*32",
        "02 03 02*32 01 00 0368e5cf8b010000 0100000000000000 01 01*32 581b000000000000 0000000000000000",
    ),
    (
        "txs",
        "07*32",
        "02 04 01 00 0368e5cf8b010000 0100000000000000 00",
    ),
    (
        "txs",
        "08*32",
        "02 00 01 01 0368e5cf8b010000 07000000ffffffff 01 01*32 581b000000000000 0000000000000000",
    ),
    (
        "raw_txs",
        "01*32",
        "01 02000000 0001 01 01*32 01000000 00 fdffffff 01 581b000000000000 03 001401 01 02 0101 00000000",
    ),
    (
        "raw_txs",
        "02*32",
        "01 02000000 0001 01 02*32 01000000 00 fdffffff 01 581b000000000000 03 001402 01 02 0202 00000000",
    ),
    (
        "raw_txs",
        "05*32",
        "01 02000000 0001 01 05*32 01000000 00 fdffffff 01 581b000000000000 03 001405 01 02 0505 00000000",
    ),
    (
        "raw_txs",
        "06*32",
        "01 02000000 0001 01 06*32 01000000 00 fdffffff 01 581b000000000000 03 001406 01 02 0606 00000000",
    ),
    (
        "raw_txs",
        "07*32",
        "01 02000000 0001 01 07*32 01000000 00 fdffffff 01 581b000000000000 03 001407 01 02 0707 00000000",
    ),
    (
        "raw_txs",
        "08*32",
        "01 02000000 0001 01 08*32 01000000 00 fdffffff 01 581b000000000000 03 001408 01 02 0808 00000000",
    ),
];

/// What becomes of the transactions of an earlier format.
fn in_sixth(mut held: Entries) -> Entries {
    for ((family, key), value) in entries(SIXTH) {
        if held.contains_key(&("txs".to_owned(), key.clone())) {
            held.insert((family, key), value);
        }
    }
    held
}

fn coinbase_row() -> OutputRow {
    OutputRow {
        coinbase: true,
        ..output_row(3, 5_000_000_000)
    }
}

pub(super) fn bytes(vector: &str) -> Vec<u8> {
    let hex = |digits: &str| -> Vec<u8> {
        (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("two hex digits"))
            .collect()
    };
    let field = |field: &str| match field.split_once('*') {
        Some((byte, times)) => hex(byte).repeat(times.parse().expect("a number")),
        None => hex(field),
    };
    vector.split_whitespace().flat_map(field).collect()
}

pub(super) type Entries = BTreeMap<(String, Vec<u8>), Vec<u8>>;

pub(super) fn entries(vectors: &[(&str, &str, &str)]) -> Entries {
    let key = |family: &str, key: &str| {
        if family == "meta" {
            key.as_bytes().to_vec()
        } else {
            bytes(key)
        }
    };
    vectors
        .iter()
        .map(|(family, name, value)| (((*family).to_owned(), key(family, name)), bytes(value)))
        .collect()
}

pub(super) fn meta(name: &str) -> (String, Vec<u8>) {
    ("meta".to_owned(), name.as_bytes().to_vec())
}

fn pending_watch() -> WatchRow {
    let mut row = watch_row(2);
    row.coverage.from_height = u32::MAX;
    row.coverage.utxos_complete = false;
    row.coverage.pending = true;
    row
}

fn confirmed() -> Status {
    Status::Confirmed {
        block: block_id(101),
        position: 3,
    }
}

fn tx_rows() -> Vec<(u8, TxRow)> {
    let by = txid(2);
    vec![
        (1, tx_row(Status::Mempool, 0xffff_ffff_0000_0007, &[1, 2])),
        (
            2,
            tx_row(
                Status::Confirmed {
                    block: block_id(101),
                    position: 2,
                },
                0x65_0000_0002,
                &[1],
            ),
        ),
        (5, tx_row(Status::Replaced { by }, 1, &[1])),
        (6, tx_row(Status::Conflicted { by }, 1, &[1])),
        (7, tx_row(Status::Evicted, 1, &[])),
    ]
}

fn output_rows() -> Vec<(bitcoin::OutPoint, OutputRow)> {
    let unconfirmed = OutputRow {
        height: None,
        ..output_row(1, 50_000)
    };
    let spending = OutputRow {
        coinbase: true,
        spent: Some(Spend {
            txid: txid(2),
            height: None,
        }),
        ..output_row(2, 1)
    };
    let spent = OutputRow {
        spent: Some(Spend {
            txid: txid(3),
            height: Some(102),
        }),
        ..output_row(1, 2)
    };
    vec![
        (outpoint(1, 0), unconfirmed),
        (outpoint(1, 256), spending),
        (outpoint(2, 1), spent),
    ]
}

fn block_row() -> BlockRow {
    BlockRow {
        hash: block_id(101).hash,
        time: 1_231_006_505,
        touched: vec![txid(1), txid(2)],
        found: vec![outpoint(3, 7)],
    }
}

fn events() -> Vec<Event> {
    let transaction = |n, status, block_time, received, sent| {
        let first_seen = 1_700_000_000_003;
        TxSummary {
            txid: txid(n),
            received,
            sent,
            status,
            block_time,
            first_seen,
            replaceable: block_time.is_some(),
        }
    };
    let mined = transaction(2, confirmed(), Some(1_231_006_505), 7_000, 1);
    let transactions = vec![mined.clone(), transaction(1, Status::Mempool, None, 0, 2)];
    let hash = block_id(101).hash;
    let causes = [
        Cause::Transaction(txid(2)),
        Cause::Block(hash),
        Cause::Reorg(hash),
        Cause::Removed(txid(2)),
        Cause::Baseline(hash),
    ];
    let phases = [
        Phase::Mempool,
        Phase::Confirmed,
        Phase::Replaced,
        Phase::Conflicted,
        Phase::Evicted,
    ];
    let (old, new) = (
        Balance {
            confirmed: -5,
            unconfirmed: 6,
        },
        Balance {
            confirmed: 7,
            unconfirmed: -8,
        },
    );
    let mut kinds = vec![EventKind::NewTransactions {
        subject: subject(1),
        transactions,
    }];
    kinds.extend(causes.map(|cause| EventKind::BalanceChange {
        subject: subject(1),
        old,
        new,
        cause,
    }));
    kinds.extend(phases.map(|previous| EventKind::TransactionUpdate {
        subject: subject(1),
        previous,
        transaction: mined.clone(),
        confirmations: 6,
    }));
    kinds.push(EventKind::Block {
        block: block_id(101),
        time: 1_231_006_505,
        transactions: 3,
    });
    kinds.push(EventKind::Reorg {
        old_tip: block_id(101),
        fork_point: block_id(99),
        depth: 2,
    });
    let mut events: Vec<_> = kinds
        .into_iter()
        .map(|kind| Event {
            time: 101_000,
            tip: Some(block_id(101)),
            kind,
        })
        .collect();
    events[11].tip = None;
    events
}

fn scan_id() -> ScanId {
    ScanId(0x0123_4567_89ab_cdef)
}

fn scan_row() -> ScanRow {
    ScanRow {
        created: 1_700_000_000_001,
        updated: 1_700_000_000_002,
        state: ScanState::Open,
        from: 7,
        to: None,
        horizon: None,
        next: 8,
        scripts: 2,
        found: 3,
    }
}

/// What the second release added.
fn more() -> Transition {
    let scanned = watch_row(3);
    let complete = ScanRow {
        state: ScanState::Complete,
        to: Some(9),
        horizon: Some(8),
        next: 10,
        scripts: 1,
        ..scan_row()
    };
    let cancelled = ScanRow {
        state: ScanState::Cancelled,
        next: 7,
        scripts: 1,
        found: 0,
        ..scan_row()
    };
    let scans = [
        (ScanId(1), complete),
        (ScanId(2), cancelled),
        (scan_id(), scan_row()),
    ];
    let mut set: Vec<_> = scans
        .into_iter()
        .map(|(scan, row)| Change::Scan {
            scan,
            old: None,
            new: Some(row),
        })
        .collect();
    set.extend([1, 2].map(|n| Change::ScanScript {
        scan: scan_id(),
        script: script(n),
        old: false,
        new: true,
    }));
    set.push(Change::Watch {
        script: script(3),
        old: None,
        new: Some(scanned),
    });
    let complete = EventKind::ScanComplete {
        subject: subject(1),
        scan: scan_id(),
        from: 7,
        to: 101,
        transactions: 9,
    };
    let kinds = [
        complete,
        EventKind::Unwatched {
            subject: subject(1),
        },
    ];
    let events = kinds
        .map(|kind| Event {
            time: 101_000,
            tip: Some(block_id(101)),
            kind,
        })
        .to_vec();
    Transition {
        events,
        ..changes(set)
    }
}

fn everything() -> Transition {
    let mut set = vec![
        Change::Watch {
            script: script(1),
            old: None,
            new: Some(watch_row(1)),
        },
        Change::Watch {
            script: script(2),
            old: None,
            new: Some(pending_watch()),
        },
        Change::Block {
            height: 101,
            old: None,
            new: Some(block_row()),
        },
        Change::Tip {
            old: None,
            new: Some(block_id(101)),
        },
    ];
    set.extend(tx_rows().into_iter().map(|(n, row)| Change::Tx {
        txid: txid(n),
        old: None,
        new: Some(row),
    }));
    set.extend(
        output_rows()
            .into_iter()
            .map(|(outpoint, row)| Change::Output {
                outpoint,
                old: None,
                new: Some(row),
            }),
    );
    Transition {
        events: events(),
        ..changes(set)
    }
}

#[test]
fn what_is_written_has_the_bytes_of_the_schema() {
    let folder = tempdir().unwrap();
    drop(open(folder.path()));
    let (mut writer, reader) = open(folder.path());
    writer.remember_monitoring(true).unwrap();
    writer.commit(&[everything(), more()], false).unwrap();
    let mut expected = entries(VECTORS);
    expected.extend(entries(SECOND));
    expected = in_fifth(expected);
    // The start that made the store, and this one.
    let (id, _) = reader.starts().cursor(1);
    bring_up(&mut expected, reader.starts().cursor(0).0, (id, 1, 0));
    expected.insert(
        meta("counts"),
        bytes("02 0300000000000000 0000000000000000 0100000000000000 0500000000000000"),
    );
    expected.insert(meta("next_seq"), bytes("01 1000000000000000"));
    let found = dump(folder.path());
    for (entry, value) in &expected {
        assert_eq!(
            found.get(entry).map(|bytes| hex(bytes)),
            Some(hex(value)),
            "{} {}",
            entry.0,
            hex(&entry.1)
        );
    }
    assert_eq!(found.len(), expected.len(), "entries that no vector names");
}

#[test]
fn what_is_unfinished_has_the_bytes_of_the_fifth_format() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let adding = vec![script(1), script(2)];
    let mut staged = watch_row(3);
    staged.coverage = Coverage {
        from_height: 101,
        utxos_complete: false,
        pending: true,
        staged: Some(Staged {
            balance: Balance {
                confirmed: 1000,
                unconfirmed: -1,
            },
            utxo_count: -2,
        }),
        ..Coverage::default()
    };
    let set = |adding: Vec<_>, old: Vec<_>| {
        changes(vec![
            Change::Adding { old, new: adding },
            Change::Forgetting {
                script: script(4),
                old: false,
                new: true,
            },
            Change::Watch {
                script: script(3),
                old: None,
                new: Some(staged.clone()),
            },
        ])
    };
    let begun = set(adding.clone(), Vec::new());
    writer.commit(std::slice::from_ref(&begun), false).unwrap();
    assert_eq!(reader.snapshot().adding().unwrap(), adding);
    let held = reader.snapshot().watch(&script(3)).unwrap();
    assert_eq!(held.unwrap().coverage, staged.coverage);
    let found = dump(folder.path());
    for (entry, value) in in_eighth(entries(UNFINISHED)) {
        assert_eq!(
            found.get(&entry).map(|bytes| hex(bytes)),
            Some(hex(&value)),
            "{}",
            entry.0
        );
    }
    let back = Transition {
        changes: begun.changes.clone().inverse(),
        ..Transition::default()
    };
    writer.commit(&[back], false).unwrap();
    assert_eq!(reader.snapshot().adding().unwrap(), []);
    let left = dump(folder.path());
    assert!(
        !entries(UNFINISHED)
            .keys()
            .any(|entry| left.contains_key(entry))
    );
}

/// What later formats have otherwise: the log's id is that of its first start, and a second one
/// follows.
fn bring_up(entries: &mut Entries, first: &str, (id, number, held): (&str, u64, u64)) {
    *entries = in_eighth(in_sixth(std::mem::take(entries)));
    entries.remove(&meta("log_id"));
    entries.insert(meta("format"), bytes("01 08000000"));
    let numbers = [number.to_le_bytes(), held.to_le_bytes()].concat();
    let first = [&[16], first.as_bytes(), &[0; 16]].concat();
    let second = [&[16], id.as_bytes(), &numbers].concat();
    let starts = [vec![1, 2], first, second].concat();
    entries.insert(meta("starts"), starts);
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The families of format 1; `default` comes with the database.
pub(super) const FIRST_FAMILIES: [&str; 12] = [
    "meta", "blocks", "watches", "outputs", "unspent", "txs", "history", "mempool", "since",
    "pending", "events", "cursors",
];

/// Those that format 2 added.
pub(super) const SECOND_FAMILIES: [&str; 3] = ["scans", "scan_scripts", "open_scans"];

/// `log_id` in the vectors.
const LOG_ID: &str = "0123456789abcdef";

/// A folder as the first release left it.
pub(super) fn first_format() -> TempDir {
    folder_of(&FIRST_FAMILIES, &entries(VECTORS))
}

/// A folder of format 2.
pub(super) fn second_format() -> TempDir {
    let families = [&FIRST_FAMILIES[..], &SECOND_FAMILIES[..]].concat();
    folder_of(&families, &second_entries())
}

fn second_entries() -> Entries {
    let mut held = entries(VECTORS);
    held.extend(entries(SECOND));
    held.insert(meta("format"), bytes("01 02000000"));
    held.insert(
        meta("counts"),
        bytes("01 0300000000000000 0100000000000000 0500000000000000"),
    );
    held.insert(meta("next_seq"), bytes("01 1000000000000000"));
    held
}

/// A folder of format 3, with an unspent coinbase.
pub(super) fn third_format() -> TempDir {
    let families = [&FIRST_FAMILIES[..], &SECOND_FAMILIES[..]].concat();
    folder_of(&families, &third_entries())
}

fn third_entries() -> Entries {
    let mut held = second_entries();
    held.remove(&meta("log_id"));
    let starts = [&[1, 1, 16], LOG_ID.as_bytes(), &[0; 16]].concat();
    held.insert(meta("starts"), starts);
    held.insert(meta("format"), bytes("01 03000000"));
    held.extend(entries(&COINBASE[..2]));
    held
}

/// A folder of format 4.
pub(super) fn fourth_format() -> TempDir {
    let families = [&FIRST_FAMILIES[..], &SECOND_FAMILIES, &["coinbases"]].concat();
    folder_of(&families, &fourth_entries())
}

fn fourth_entries() -> Entries {
    let mut held = third_entries();
    held.extend(entries(COINBASE));
    held.insert(meta("format"), bytes("01 04000000"));
    held
}

/// A folder of format 5, with an add, a removal and a baseline that are not finished.
pub(super) fn fifth_format() -> TempDir {
    let added = ["coinbases", "script_scans", "forgetting"];
    let families = [&FIRST_FAMILIES[..], &SECOND_FAMILIES, &added].concat();
    folder_of(&families, &fifth_entries())
}

fn fifth_entries() -> Entries {
    let mut held = in_fifth(fourth_entries());
    held.extend(entries(UNFINISHED));
    held.extend(entries(&[
        INHERITS,
        ("mempool", "08*32", ""),
        ("history", "01*32 00000000fffffff8 08*32", ""),
        ("pending", "03*32", ""),
    ]));
    held.insert(meta("format"), bytes("01 05000000"));
    held.insert(
        meta("counts"),
        bytes("01 0300000000000000 0200000000000000 0600000000000000"),
    );
    held
}

/// A folder of format 6.
pub(super) fn sixth_format() -> TempDir {
    let added = ["coinbases", "script_scans", "forgetting", "raw_txs"];
    let families = [&FIRST_FAMILIES[..], &SECOND_FAMILIES, &added].concat();
    folder_of(&families, &sixth_entries())
}

pub(super) fn sixth_entries() -> Entries {
    let mut held = in_sixth(fifth_entries());
    held.insert(meta("format"), bytes("01 06000000"));
    held
}

pub(super) fn folder_of(families: &[&str], held: &Entries) -> TempDir {
    let folder = tempdir().unwrap();
    tamper(folder.path(), |raw| {
        for family in families {
            raw.create_cf(family, &rocksdb::Options::default()).unwrap();
        }
        for ((family, key), value) in held {
            raw.put_cf(raw.cf_handle(family).unwrap(), key, value)
                .unwrap();
        }
    });
    folder
}

#[test]
fn stores_of_the_first_release_are_read() {
    let folder = first_format();
    let (writer, reader) = open(folder.path());
    assert_eq!(
        (
            reader.starts().cursor(13),
            reader.monitoring().unwrap(),
            reader.first_seq().unwrap()
        ),
        ((LOG_ID, 13), Some(true), 1)
    );
    let snapshot = reader.snapshot();
    assert_eq!(
        (
            snapshot.tip().unwrap(),
            snapshot.head().unwrap(),
            writer.head()
        ),
        (Some(block_id(101)), 13, 13)
    );
    assert_eq!(
        snapshot.counts().unwrap(),
        RowCounts {
            addresses: 2,
            derived: 0,
            utxos: 1,
            transactions: 5
        }
    );
    assert_eq!(
        snapshot.watches(None, 9).unwrap(),
        [(script(1), watch_row(1)), (script(2), pending_watch())]
    );
    assert_eq!(
        snapshot
            .pending_baselines()
            .map(|row| row.unwrap())
            .collect::<Vec<_>>(),
        [(script(2), pending_watch())]
    );
    assert_eq!(writer.watches_above(101).unwrap(), [script(2)]);
    assert_eq!(snapshot.block(&101).unwrap(), Some(block_row()));
    let rows = tx_rows();
    for (n, row) in &rows {
        assert_eq!(snapshot.tx(&txid(*n)).unwrap().as_ref(), Some(row));
    }
    let history: Vec<_> = rows
        .iter()
        .take(4)
        .map(|(n, row)| (txid(*n), row.clone()))
        .collect();
    assert_eq!(
        snapshot
            .history(&SubjectId::Script(script(1)), None, 9)
            .unwrap()
            .transactions,
        history
    );
    for (outpoint, row) in output_rows() {
        assert_eq!(writer.output(&outpoint).unwrap(), Some(row));
    }
    assert_eq!(
        snapshot.utxos(&script(2), true, None, 9).unwrap().utxos,
        output_rows()[1..2]
    );
    assert_eq!(
        reader
            .unconfirmed_txs()
            .map(|row| row.unwrap())
            .collect::<Vec<_>>(),
        [(txid(1), rows[0].1.clone(), raw_tx(&txid(1)))]
    );
    let numbered: Vec<_> = (1..).zip(events()).collect();
    assert_eq!(reader.read_events(0, 99).unwrap(), numbered);
    assert_eq!(
        (snapshot.open_scans().unwrap(), snapshot.scans(None).count()),
        (vec![], 0)
    );
}

#[test]
fn a_row_that_inherits_has_the_bytes_of_the_sixth_format() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let row = TxRow {
        inherits: true,
        ..tx_row(Status::Mempool, 0xffff_ffff_0000_0007, &[1])
    };
    let change = Change::Tx {
        txid: txid(8),
        old: None,
        new: Some(row.clone()),
    };
    writer.commit(&[changes(vec![change])], true).unwrap();
    assert_eq!(reader.snapshot().tx(&txid(8)).unwrap(), Some(row));
    drop((writer, reader));
    for (entry, value) in in_eighth(in_sixth(entries(&[INHERITS]))) {
        assert_eq!(dump(folder.path()).get(&entry), Some(&value));
    }
}

#[test]
fn an_unspent_coinbase_has_the_bytes_of_the_fourth_format() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let change = |old, new| Change::Output {
        outpoint: outpoint(4, 2),
        old,
        new,
    };
    let paid = change(None, Some(coinbase_row()));
    writer.commit(&[changes(vec![paid])], true).unwrap();
    let value = |height| reader.snapshot().coinbase_value(&script(3), height);
    assert_eq!(
        [value(0), value(101), value(102)].map(Result::unwrap),
        [5_000_000_000, 5_000_000_000, 0]
    );
    for (entry, value) in entries(COINBASE) {
        assert_eq!(dump(folder.path()).get(&entry), Some(&value));
    }
    let spent = Some(Spend {
        txid: txid(5),
        height: None,
    });
    let spent = OutputRow {
        spent,
        ..coinbase_row()
    };
    let spent = change(Some(coinbase_row()), Some(spent));
    writer.commit(&[changes(vec![spent])], true).unwrap();
    let (entry, _) = entries(&COINBASE[2..]).pop_first().unwrap();
    assert_eq!(dump(folder.path()).get(&entry), None);
}

#[test]
fn stores_of_earlier_formats_are_brought_up_with_all_that_they_hold() {
    for (folder, mut expected, head) in [
        (first_format(), entries(VECTORS), 13),
        (second_format(), in_fifth(second_entries()), 15),
        (third_format(), in_fifth(fourth_entries()), 15),
        (fourth_format(), in_fifth(fourth_entries()), 15),
        (fifth_format(), fifth_entries(), 15),
        (sixth_format(), sixth_entries(), 15),
        (seventh_format(), seventh_entries(), 15),
    ] {
        let (writer, reader) = open(folder.path());
        let id = reader.starts().cursor(head + 1).0.to_owned();
        // Cursors that clients have stay good; those of the numbers to come are of this start.
        for number in 0..=head {
            assert_eq!(reader.starts().cursor(number), (LOG_ID, number));
            assert!(reader.starts().knows(LOG_ID, number));
        }
        assert!(!reader.starts().knows(LOG_ID, head + 1));
        drop((writer, reader));
        bring_up(&mut expected, LOG_ID, (&id, head + 1, head));
        // What each start writes besides: the boot and the mark ahead of the numbers.
        expected.insert(
            meta("reserved"),
            dump(folder.path())[&meta("reserved")].clone(),
        );
        assert_eq!(dump(folder.path()), expected);
    }
}

#[test]
fn a_store_of_the_first_format_takes_what_the_second_added() {
    let folder = first_format();

    let (mut writer, reader) = open(folder.path());
    writer.commit(&[more()], true).unwrap();
    drop((writer, reader));
    let (writer, reader) = open(folder.path());
    assert_eq!(
        reader.snapshot().scan(&scan_id()).unwrap(),
        Some(scan_row())
    );
    assert_eq!(
        reader.read_events(0, 99).unwrap(),
        (1..)
            .zip(events().into_iter().chain(more().events))
            .collect::<Vec<_>>()
    );
    drop((writer, reader));
    let found = dump(folder.path());
    for (entry, value) in in_eighth(in_fifth(entries(SECOND))) {
        assert_eq!(
            found.get(&entry).map(|bytes| hex(bytes)),
            Some(hex(&value)),
            "{} {}",
            entry.0,
            hex(&entry.1)
        );
    }
}

#[test]
fn a_process_that_died_while_it_brought_a_store_up_is_gone_on_with() {
    let folder = first_format();
    tamper(folder.path(), |raw| {
        raw.create_cf("scans", &rocksdb::Options::default())
            .unwrap()
    });
    let (mut writer, reader) = open(folder.path());
    writer.commit(&[more()], true).unwrap();
    assert_eq!(
        (
            reader.snapshot().open_scans().unwrap(),
            reader.snapshot().counts().unwrap().addresses
        ),
        (vec![scan_id()], 3)
    );
}

#[test]
fn a_process_that_died_while_it_listed_coinbases_is_gone_on_with() {
    let folder = third_format();
    tamper(folder.path(), |raw| {
        raw.create_cf("coinbases", &rocksdb::Options::default())
            .unwrap()
    });
    let (writer, reader) = open(folder.path());
    assert_eq!(
        writer.output(&outpoint(4, 2)).unwrap(),
        Some(coinbase_row())
    );
    let value = reader.snapshot().coinbase_value(&script(3), 101);
    assert_eq!(value.unwrap(), 5_000_000_000);
}

#[test]
fn a_process_that_died_while_it_listed_scans_is_gone_on_with() {
    let folder = fourth_format();
    tamper(folder.path(), |raw| {
        raw.create_cf("script_scans", &rocksdb::Options::default())
            .unwrap();
        // Another scan was brought up already.
        let other = [&[7; 8][..], &[1; 32]].concat();
        raw.put_cf(raw.cf_handle("scan_scripts").unwrap(), &other, [])
            .unwrap();
    });
    let (writer, reader) = open(folder.path());
    let both = vec![script(1), script(2)];
    assert_eq!(reader.snapshot().scan_scripts(&scan_id()).unwrap(), both);
    let other = ScanId(0x0707_0707_0707_0707);
    assert_eq!(reader.snapshot().scan_scripts(&other).unwrap(), both[..1]);
    assert_eq!(writer.scans_of(&script(2), None, 9).unwrap(), [scan_id()]);
    let in_scans = [1, 2, 3].map(|n| reader.snapshot().is_in_scan(&script(n)).unwrap());
    assert_eq!(in_scans, [true, true, false]);
}

#[test]
fn a_process_that_died_while_it_parted_transactions_is_gone_on_with() {
    let folder = fifth_format();
    tamper(folder.path(), |raw| {
        raw.create_cf("raw_txs", &rocksdb::Options::default())
            .unwrap();
        // These two were brought up already.
        for ((family, key), value) in entries(SIXTH) {
            if key[0] <= 2 {
                raw.put_cf(raw.cf_handle(&family).unwrap(), key, value)
                    .unwrap();
            }
        }
    });
    drop(open(folder.path()));
    let found = dump(folder.path());
    for (entry, value) in in_eighth(entries(SIXTH)) {
        assert_eq!(found.get(&entry), Some(&value), "{}", hex(&entry.1));
    }
}

#[test]
fn a_first_format_with_a_family_of_somebody_is_damage_not_another_format() {
    let folder = first_format();
    tamper(folder.path(), |raw| {
        raw.create_cf("parcels", &rocksdb::Options::default())
            .unwrap()
    });
    let told = open_at_boot(folder.path(), Some(super::chain()), 0, super::BOOT)
        .err()
        .expect("it is refused")
        .to_string();
    assert!(told.contains("parcels"), "{told}");
}

/// Name, bytes and time of change of everything in a folder and in its `db`.
fn state_of(folder: &Path) -> Vec<(PathBuf, Vec<u8>, SystemTime)> {
    let mut found = Vec::new();
    for folder in [folder.to_owned(), folder.join("db")] {
        let changed = |path: &Path| path.metadata().unwrap().modified().unwrap();
        found.push((folder.clone(), Vec::new(), changed(&folder)));
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let (bytes, changed) = (std::fs::read(&path).unwrap(), changed(&path));
                found.push((path, bytes, changed));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn case_22_looking_at_a_store_changes_nothing_whatever_its_format() {
    let latest = tempdir().unwrap();
    drop(store::open(latest.path(), Some(chain()), 0, &|| false).unwrap());
    for (folder, format) in [
        (first_format(), 1),
        (second_format(), 2),
        (third_format(), 3),
        (fourth_format(), 4),
        (fifth_format(), 5),
        (sixth_format(), 6),
        (latest, FORMAT),
    ] {
        let before = state_of(folder.path());
        let found = store::inspect(folder.path(), Some(chain())).unwrap();
        assert_eq!(found.unwrap().format, format);
        assert!(state_of(folder.path()) == before, "format {format}");
        // What was looked at is opened as ever.
        drop(store::open(folder.path(), Some(chain()), 0, &|| false).unwrap());
    }
}
