//! Opening a store: creating it, bringing an earlier format up, and going on with the numbers.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{ReadOptions, WriteBatch};

use super::codec::keys::{
    coinbase_entry, parse_number_key, parse_outpoint_key, scan_script_key, script_scan_key,
};
use super::codec::rows::tx_of_format_5;
use super::codec::{Malformed, StoredValue};
use super::db::{Db, whole_family};
use super::families::{
    COINBASES, FAMILIES, META, MIB, OUTPUTS, RAW_TXS, SCAN_SCRIPTS, SCRIPT_SCANS, TXS, WATCHES,
    meta,
};
use super::log::Numbers;
use super::{ChainInfo, FORMAT, RowCounts, Starts, StoreError, folder, random_hex};
use crate::tracker::{OutputRow, ScanId, ScriptHash, WatchRow};

/// Rows of one batch while a store is brought up.
const BATCH: usize = 10_000;
/// Transactions after which the log says how many are brought up.
const TOLD: u64 = 100_000;

/// The database of [`super::open_at_boot`], with the numbers that are given next and the totals.
pub(super) fn open(
    path: &Path,
    chain: Option<ChainInfo>,
    now: u64,
    boot: &str,
) -> Result<(Db, Numbers, RowCounts), StoreError> {
    let mut db = open_folder(path, chain.is_some(), boot)?;
    let format = db.meta::<u32>(meta::FORMAT)?;
    match format {
        None if is_empty(&db)? => create(&db, path, chain, now)?,
        None => {
            return Err(StoreError::Damaged {
                path: path.to_owned(),
                what: "rows without a format".to_owned(),
            });
        }
        Some(1..=FORMAT) => {}
        Some(found) => {
            return Err(StoreError::Format {
                path: path.to_owned(),
                found,
                expected: FORMAT,
            });
        }
    }
    db.chain = db.required(meta::CHAIN)?;
    if let Some(expected) = chain.filter(|expected| *expected != db.chain) {
        return Err(StoreError::WrongChain {
            path: path.to_owned(),
            found: Box::new(db.chain),
            expected: Box::new(expected),
        });
    }
    if let Some(format) = format.filter(|format| *format < FORMAT) {
        upgrade(&db, format)?;
    }
    let numbers = resume(&db, boot, format.is_none())?;
    db.starts = Arc::new(db.required(meta::STARTS)?);
    let counts = db.required(meta::COUNTS)?;
    Ok((db, numbers, counts))
}

/// Locks the folder and opens the database in it, a new one only when its chain is known.
fn open_folder(path: &Path, chain_is_known: bool, boot: &str) -> Result<Db, StoreError> {
    let database = path.join("db");
    let exists = database.join("CURRENT").exists();
    if !exists {
        folder::refuse_remains(path, &database)?;
    }
    if !chain_is_known && !exists {
        return Err(StoreError::UnknownChain {
            path: path.to_owned(),
        });
    }
    let lock = folder::lock(path)?;
    if database.join("CURRENT").exists() {
        folder::refuse_what_is_not_ours(path, &database)?;
    }
    folder::make_private(&database)
        .map_err(|error| StoreError::io(path, "create the store", error))?;
    let raw = folder::open_database(&database, boot)
        .map_err(|error| folder::failed_open(path, &error))?;
    Ok(Db::new(raw, lock, path))
}

/// Whether no family has a row: the process that created it died before its first write.
fn is_empty(db: &Db) -> Result<bool, StoreError> {
    for family in FAMILIES {
        if db
            .scan(family, &[], None, ReadOptions::default())
            .next()
            .transpose()?
            .is_some()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The first rows of a new store.
fn create(db: &Db, path: &Path, chain: Option<ChainInfo>, now: u64) -> Result<(), StoreError> {
    let chain = chain.ok_or_else(|| StoreError::UnknownChain {
        path: path.to_owned(),
    })?;
    let mut batch = WriteBatch::default();
    db.put_meta(&mut batch, meta::CHAIN, &chain);
    db.put_meta(&mut batch, meta::STARTS, &Starts::new(random_hex()));
    db.put_meta(&mut batch, meta::CREATED, &now);
    db.put_meta(&mut batch, meta::NEXT_SEQ, &1_u64);
    db.put_meta(&mut batch, meta::FIRST_SEQ, &1_u64);
    db.put_meta(&mut batch, meta::RESERVED, &1_u64);
    db.put_meta(&mut batch, meta::BOOT, &String::new());
    db.put_meta(&mut batch, meta::CLEAN, &true);
    db.put_meta(&mut batch, meta::COUNTS, &RowCounts::default());
    db.put_meta(&mut batch, meta::FORMAT, &FORMAT);
    db.write(batch, true)
}

/// From an earlier format. The families that it does not have were made when the database was
/// opened. A process that dies here leaves the earlier format, and the next start does it all
/// again.
fn upgrade(db: &Db, format: u32) -> Result<(), StoreError> {
    tracing::info!("the store has format {format}: bringing it up to format {FORMAT}");
    if format < 4 {
        list_coinbases(db)?;
    }
    if (2..5).contains(&format) {
        list_scans(db)?;
        forget_scan_counts(db)?;
    }
    part_transactions(db)?;
    let mut batch = WriteBatch::default();
    if format < 3 {
        let starts = Starts::new(db.required(meta::LOG_ID)?);
        db.put_meta(&mut batch, meta::STARTS, &starts);
        batch.delete_cf(db.family(META), meta::LOG_ID);
    }
    db.put_meta(&mut batch, meta::FORMAT, &FORMAT);
    db.write(batch, true)
}

/// The lookup rows that format 4 added.
fn list_coinbases(db: &Db) -> Result<(), StoreError> {
    let mut batch = WriteBatch::default();
    for entry in db.scan(OUTPUTS, &[], None, whole_family()) {
        let (key, value) = entry?;
        let row: OutputRow = db.decode(OUTPUTS, &key, &value)?;
        let outpoint =
            parse_outpoint_key(&key).map_err(|Malformed(what)| db.corrupt(OUTPUTS, &key, what))?;
        if let Some((key, value)) = coinbase_entry(&outpoint, &row) {
            batch.put_cf(db.family(COINBASES), key, value);
        }
        if batch.len() >= BATCH {
            db.write(std::mem::take(&mut batch), false)?;
        }
    }
    db.write(batch, false)
}

/// A row for each script of a scan, both ways, in place of one list.
fn list_scans(db: &Db) -> Result<(), StoreError> {
    for entry in db.scan(SCAN_SCRIPTS, &[], None, whole_family()) {
        let (key, value) = entry?;
        // Others are from before a process died here.
        let Ok(scan) = parse_number_key(&key).map(ScanId) else {
            continue;
        };
        let scripts: Vec<ScriptHash> = db.decode(SCAN_SCRIPTS, &key, &value)?;
        let mut batch = WriteBatch::default();
        for script in &scripts {
            let (both, back) = (scan_script_key(scan, script), script_scan_key(scan, script));
            batch.put_cf(db.family(SCAN_SCRIPTS), both, []);
            batch.put_cf(db.family(SCRIPT_SCANS), back, []);
        }
        batch.delete_cf(db.family(SCAN_SCRIPTS), key);
        db.write(batch, false)?;
    }
    Ok(())
}

/// Watched scripts whose rows say how many scans they are in, as they are written now.
fn forget_scan_counts(db: &Db) -> Result<(), StoreError> {
    let mut batch = WriteBatch::default();
    for entry in db.scan(WATCHES, &[], None, whole_family()) {
        let (key, value) = entry?;
        let row: WatchRow = db.decode(WATCHES, &key, &value)?;
        let now = row.to_bytes();
        if now[..] != value[..] {
            batch.put_cf(db.family(WATCHES), key, now);
        }
        if batch.len() >= BATCH {
            db.write(std::mem::take(&mut batch), false)?;
        }
    }
    db.write(batch, false)
}

/// Transactions in a family of their own, and rows without them.
fn part_transactions(db: &Db) -> Result<(), StoreError> {
    let mut batch = WriteBatch::default();
    for (count, entry) in (1_u64..).zip(db.scan(TXS, &[], None, whole_family())) {
        let (key, value) = entry?;
        // Others are from before a process died here.
        if value.first() == Some(&1) {
            let (row, tx) =
                tx_of_format_5(&value).map_err(|Malformed(what)| db.corrupt(TXS, &key, what))?;
            batch.put_cf(db.family(TXS), &key, row.to_bytes());
            batch.put_cf(db.family(RAW_TXS), &key, tx.to_bytes());
        }
        if batch.size_in_bytes() >= MIB {
            db.write(std::mem::take(&mut batch), false)?;
        }
        if count.is_multiple_of(TOLD) {
            tracing::info!("{count} transactions are brought up");
        }
    }
    db.write(batch, false)
}

/// Where numbering goes on, and the mark that the store is in use from now on, by this start:
/// the first one when the store is new.
fn resume(db: &Db, boot: &str, is_new: bool) -> Result<Numbers, StoreError> {
    let kept = db.required::<bool>(meta::CLEAN)? || db.required::<String>(meta::BOOT)? == boot;
    let next = db.required(meta::NEXT_SEQ)?;
    let numbers = Numbers::resume(next, db.required(meta::RESERVED)?, kept);
    let mut starts: Starts = db.required(meta::STARTS)?;
    if !is_new {
        starts.add(random_hex(), next, numbers.next);
    }
    let mut batch = WriteBatch::default();
    db.put_meta(&mut batch, meta::BOOT, &boot.to_owned());
    db.put_meta(&mut batch, meta::CLEAN, &false);
    db.put_meta(&mut batch, meta::NEXT_SEQ, &numbers.next);
    db.put_meta(&mut batch, meta::RESERVED, &numbers.reserved);
    db.put_meta(&mut batch, meta::STARTS, &starts);
    db.write(batch, true)?;
    Ok(numbers)
}
