//! Rows of the store, and their keys.

use std::fmt::Debug;

use bitcoin::Transaction;
use satwatch::store::internals::{Malformed, StoredValue, keys, tx_of_format_5};
use satwatch::store::{
    AuthMark, ChainInfo, ConsumerPlace, ConsumerRow, DeadLetter, Failing, Owned, RowCounts,
    SessionRow, Starts, WebhookStop,
};
use satwatch::tracker::{
    BlockId, BlockRow, Event, OutputRow, ScanRow, ScriptHash, TxRow, WatchRow,
};

const ROWS: &[fn(&[u8])] = &[
    row::<WatchRow>,
    row::<OutputRow>,
    row::<TxRow>,
    row::<Transaction>,
    row::<BlockRow>,
    row::<ScanRow>,
    row::<Vec<ScriptHash>>,
    row::<Event>,
    row::<ConsumerRow>,
    row::<ConsumerPlace>,
    row::<DeadLetter>,
    row::<Failing>,
    row::<WebhookStop>,
    row::<AuthMark>,
    row::<SessionRow>,
    row::<Owned>,
    row::<Starts>,
    row::<ChainInfo>,
    row::<RowCounts>,
    row::<BlockId>,
    row::<String>,
    row::<u32>,
    row::<u64>,
    row::<bool>,
    row::<()>,
    tx_with_row,
    key,
];

/// The first byte says of which table, the others are a value of it, or a key.
pub fn rows(data: &[u8]) {
    if let Some((which, bytes)) = data.split_first() {
        ROWS[usize::from(*which) % ROWS.len()](bytes);
    }
}

/// What is a value is written so that it is read again; all else is said to be none.
fn row<T: StoredValue + PartialEq + Debug>(bytes: &[u8]) {
    match T::from_bytes(bytes) {
        Ok(value) => assert_eq!(T::from_bytes(&value.to_bytes()), Ok(value)),
        Err(error) => check(&error, bytes),
    }
}

fn check(Malformed(why): &Malformed, bytes: &[u8]) {
    assert!(!why.is_empty() && why.len() <= 500 + bytes.len(), "{why}");
}

/// Of the format that had the transaction in its row.
fn tx_with_row(bytes: &[u8]) {
    match tx_of_format_5(bytes) {
        Ok((row, tx)) => {
            assert_eq!(TxRow::from_bytes(&row.to_bytes()), Ok(row));
            assert_eq!(Transaction::from_bytes(&tx.to_bytes()), Ok(tx));
        }
        Err(error) => check(&error, bytes),
    }
}

/// Bytes of the right number are a key, and it is written as it was read.
fn key(bytes: &[u8]) {
    let read = [
        (
            36,
            keys::parse_outpoint_key(bytes).map(|it| keys::outpoint_key(&it).to_vec()),
        ),
        (32, keys::parse_hash_key(bytes).map(|it| it.to_vec())),
        (
            8,
            keys::parse_number_key(bytes).map(|it| it.to_be_bytes().to_vec()),
        ),
    ];
    for (length, written) in read {
        match &written {
            Ok(written) => assert_eq!(written, bytes),
            Err(error) => check(error, bytes),
        }
        assert_eq!(written.is_ok(), bytes.len() == length);
    }
    let lengths = [
        (40, keys::parse_scan_script_key(bytes).is_ok()),
        (40, keys::parse_script_scan_key(bytes).is_ok()),
        (36, keys::parse_since_key(bytes).is_ok()),
        (68, keys::parse_unspent_key(bytes).is_ok()),
        (32 + keys::PLACE, keys::parse_history_key(bytes).is_ok()),
    ];
    for (length, is_one) in lengths {
        assert_eq!(is_one, bytes.len() == length);
    }
    assert_eq!(keys::parse_scan_of_key(bytes).is_ok(), bytes.len() >= 8);
}
