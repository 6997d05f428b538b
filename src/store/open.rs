//! Opening a store: creating it, bringing an earlier format up, and going on with the numbers.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rocksdb::{ReadOptions, WriteBatch};

use super::codec::keys::{
    coinbase_entry, parse_hash_key, parse_number_key, parse_outpoint_key, scan_script_key,
    script_scan_key,
};
use super::codec::rows::{counts_of_format_7, tx_of_format_5, tx_of_format_7, watch_of_format_7};
use super::codec::{Malformed, StoredValue};
use super::db::{Db, whole_family};
use super::families::{
    COINBASES, FAMILIES, LISTED, META, MIB, OUTPUTS, RAW_TXS, SCAN_SCRIPTS, SCRIPT_SCANS, TXS,
    WATCHES, meta,
};
use super::folder::FreeSpace;
use super::log::Numbers;
use super::owners::count_derived;
use super::{ChainInfo, FORMAT, RowCounts, Starts, StoreError, folder, random_hex};
use crate::tracker::{OutputRow, ScanId, ScriptHash, TxRow, WatchRow};

/// Rows after which the log says how far it is.
const TOLD: u64 = 100_000;

/// The database of [`super::open_at_boot`], with the numbers that are given next and the totals.
pub(super) fn open(
    path: &Path,
    chain: Option<ChainInfo>,
    now: u64,
    boot: &str,
    stopped: &dyn Fn() -> bool,
    free: FreeSpace,
) -> Result<(Db, Numbers, RowCounts), StoreError> {
    let mut db = open_folder(path, chain.is_some(), boot)?;
    let format = db.meta::<u32>(meta::FORMAT)?;
    match format {
        None => {
            db.make_families()?;
            create(&db, path, chain, now)?;
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
    if let Some(format) = format {
        upgrade(&mut db, format, stopped, free)?;
    }
    count_derived(&db)?;
    let numbers = resume(&db, boot, format.is_none())?;
    db.starts = Arc::new(db.required(meta::STARTS)?);
    let counts = db.required(meta::COUNTS)?;
    Ok((db, numbers, counts))
}

/// Locks the folder and opens the database in it, a new one only when its chain is known. One of an
/// earlier format has the families of that still.
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
    let families = match database.join("CURRENT").exists() {
        true => folder::refuse_what_is_not_ours(path, &database)?,
        false => Vec::new(),
    };
    folder::make_private(&database)
        .map_err(|error| StoreError::io(path, "create the store", error))?;
    let raw = folder::open_database(&database, boot, &families)
        .map_err(|error| folder::failed_open(path, &error))?;
    Ok(Db::new(raw, lock, path))
}

/// The first rows of a new store. No family has one: a process that created it and died before its
/// first write leaves none.
fn create(db: &Db, path: &Path, chain: Option<ChainInfo>, now: u64) -> Result<(), StoreError> {
    for family in FAMILIES {
        let mut entries = db.scan(family, &[], None, ReadOptions::default());
        if entries.next().transpose()?.is_some() {
            return Err(StoreError::Damaged {
                path: path.to_owned(),
                what: "rows without a format".to_owned(),
            });
        }
    }
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

/// What becomes of an entry: others with their values, `None` for one that goes.
type Entries = Vec<(&'static str, Vec<u8>, Option<Vec<u8>>)>;
/// What a later format has in place of an entry. Nothing for one that is of it already.
type Step = fn(&Outputs, &[u8], &[u8]) -> Result<Entries, Malformed>;
/// How many outputs of a script have a row.
/// Scripts whose outputs are counted at once: some 200 MB.
const COUNTED: usize = 2_000_000;

/// The formats before each change, the family that it is made from, and the change.
const STEPS: [(Range<u32>, &str, Step); 4] = [
    (1..4, OUTPUTS, list_coinbase),
    (2..5, SCAN_SCRIPTS, list_scan),
    (1..8, WATCHES, count_outputs),
    (1..8, TXS, part_transaction),
];

/// From an earlier format. Nothing is changed before all that must be read has been read: then the
/// release that wrote the folder still opens it. From the first write on it is of this format, for
/// every release, with a mark of where it came from; a process that dies here is gone on with.
fn upgrade(
    db: &mut Db,
    format: u32,
    stopped: &dyn Fn() -> bool,
    free: FreeSpace,
) -> Result<(), StoreError> {
    let begun = db.meta::<u32>(meta::UPGRADING)?;
    let from = begun.unwrap_or(format);
    if begun.is_none() && from == FORMAT {
        return Ok(());
    }
    if begun.is_none() {
        db.refuse_without_room(from, free)?;
    }
    let began = Instant::now();
    tracing::info!("the store has format {from}: bringing it up to format {FORMAT}");
    let log_id = (from < 3).then(|| db.required(meta::LOG_ID)).transpose()?;
    let counts = counts_before_format_8(db, from)?;
    if begun.is_none() {
        take_steps(db, from, false, stopped).map_err(|error| error.nothing_changed(from))?;
    }
    let mut batch = WriteBatch::default();
    db.put_meta(&mut batch, meta::FORMAT, &FORMAT);
    db.put_meta(&mut batch, meta::UPGRADING, &from);
    db.write(batch, true)?;
    db.make_families()?;
    take_steps(db, from, true, stopped)?;
    let mut batch = WriteBatch::default();
    if let Some(id) = log_id {
        db.put_meta(&mut batch, meta::STARTS, &Starts::new(id));
        batch.delete_cf(db.family(META), meta::LOG_ID);
    }
    if let Some(counts) = counts {
        db.put_meta(&mut batch, meta::COUNTS, &counts);
    }
    batch.delete_cf(db.family(META), meta::UPGRADING);
    db.write(batch, true)?;
    tracing::info!(
        "the store has format {FORMAT} now, after {:.0?}",
        began.elapsed()
    );
    Ok(())
}

/// The totals, in which there were no scripts of descriptors. They are written last of all.
fn counts_before_format_8(db: &Db, from: u32) -> Result<Option<RowCounts>, StoreError> {
    if from >= 8 {
        return Ok(None);
    }
    let key = meta::COUNTS.as_bytes();
    let corrupt = |what: String| db.corrupt(META, key, what);
    let bytes = db.bytes(META, key)?;
    let bytes = bytes.ok_or_else(|| corrupt("the row is missing".to_owned()))?;
    let counts = counts_of_format_7(&bytes);
    counts.map(Some).map_err(|Malformed(what)| corrupt(what))
}

/// `write`: what the steps make is written; otherwise only whether they can make it is seen.
fn take_steps(
    db: &Db,
    from: u32,
    write: bool,
    stopped: &dyn Fn() -> bool,
) -> Result<(), StoreError> {
    let done = if write { "brought up" } else { "checked" };
    let mut outputs = Outputs::default();
    if from < 8 && !write {
        owners(db, stopped).try_for_each(|owner| owner.map(drop))?;
    }
    for (_, family, step) in STEPS.iter().filter(|(formats, ..)| formats.contains(&from)) {
        let all = db.about(family);
        let mut batch = WriteBatch::default();
        for (count, entry) in (1_u64..).zip(db.scan(family, &[], None, whole_family())) {
            if stopped() {
                return Err(StoreError::Stopped);
            }
            let (key, value) = entry?;
            if write
                && *family == WATCHES
                && let Ok(script) = parse_hash_key(&key)
            {
                outputs.reach(&ScriptHash(script), COUNTED, owners(db, stopped))?;
            }
            let made = step(&outputs, &key, &value);
            let made = made.map_err(|Malformed(what)| db.corrupt(family, &key, what))?;
            for (family, key, value) in made.into_iter().filter(|_| write) {
                match value {
                    Some(value) => batch.put_cf(db.family(family), key, value),
                    None => batch.delete_cf(db.family(family), key),
                }
            }
            if batch.size_in_bytes() >= MIB {
                db.write(std::mem::take(&mut batch), false)?;
            }
            if count.is_multiple_of(TOLD) {
                tracing::info!("{family}: {count} of about {all} rows are {done}");
            }
        }
        db.write(batch, false)?;
    }
    Ok(())
}

/// The lookup row that format 4 added.
fn list_coinbase(_: &Outputs, key: &[u8], value: &[u8]) -> Result<Entries, Malformed> {
    let entry = coinbase_entry(&parse_outpoint_key(key)?, &OutputRow::from_bytes(value)?);
    Ok(entry.map_or_else(Vec::new, |(key, value)| {
        vec![(COINBASES, key.to_vec(), Some(value))]
    }))
}

/// A row for each script of a scan, both ways, in place of one list.
fn list_scan(_: &Outputs, key: &[u8], value: &[u8]) -> Result<Entries, Malformed> {
    let Ok(scan) = parse_number_key(key).map(ScanId) else {
        return Ok(Vec::new());
    };
    let mut made = vec![(SCAN_SCRIPTS, key.to_vec(), None)];
    for script in Vec::<ScriptHash>::from_bytes(value)? {
        let (both, back) = (
            scan_script_key(scan, &script),
            script_scan_key(scan, &script),
        );
        made.push((SCAN_SCRIPTS, both.to_vec(), Some(Vec::new())));
        made.push((SCRIPT_SCANS, back.to_vec(), Some(Vec::new())));
    }
    Ok(made)
}

/// How many outputs have a row, of each script up to one, from another one on. All of them would
/// take gigabytes in a store with tens of millions of outputs, so `count_outputs`, which meets the
/// scripts in their order, has some at a time, and the outputs are read once for each time.
#[derive(Debug, Default)]
struct Outputs {
    counts: BTreeMap<ScriptHash, u64>,
    /// Scripts behind it are not in it. `None`: none is.
    upto: Option<ScriptHash>,
}

impl Outputs {
    fn of(&self, script: &ScriptHash) -> u64 {
        self.counts.get(script).copied().unwrap_or_default()
    }

    /// Counts those of the scripts from this one on, `most` of them, if it is not among those that
    /// are counted.
    fn reach(
        &mut self,
        script: &ScriptHash,
        most: usize,
        all: impl Iterator<Item = Result<ScriptHash, StoreError>>,
    ) -> Result<(), StoreError> {
        if self.upto.is_some_and(|upto| *script <= upto) {
            return Ok(());
        }
        let mut upto = ScriptHash([u8::MAX; 32]);
        self.counts.clear();
        for owner in all {
            let owner = owner?;
            if !(*script..=upto).contains(&owner) {
                continue;
            }
            *self.counts.entry(owner).or_default() += 1;
            if self.counts.len() > most
                && let Some((last, _)) = self.counts.pop_last()
            {
                // It is behind all that are counted.
                upto = self.counts.last_key_value().map_or(last, |(upto, _)| *upto);
            }
        }
        self.upto = Some(upto);
        Ok(())
    }
}

/// The scripts of all outputs that have a row.
fn owners<'a>(
    db: &'a Db,
    stopped: &'a dyn Fn() -> bool,
) -> impl Iterator<Item = Result<ScriptHash, StoreError>> + 'a {
    let rows = db.scan(OUTPUTS, &[], None, whole_family());
    rows.map(move |entry| {
        if stopped() {
            return Err(StoreError::Stopped);
        }
        let (key, value) = entry?;
        let row: OutputRow = db.decode(OUTPUTS, &key, &value)?;
        Ok(row.script)
    })
}

/// A watched script that was added by itself, and is listed as such.
fn count_outputs(outputs: &Outputs, key: &[u8], value: &[u8]) -> Result<Entries, Malformed> {
    if value.first() == Some(&WatchRow::VERSION) {
        return Ok(Vec::new());
    }
    let script = ScriptHash(parse_hash_key(key)?);
    let row = watch_of_format_7(value, outputs.of(&script))?;
    Ok(vec![
        (WATCHES, key.to_vec(), Some(row.to_bytes())),
        (LISTED, key.to_vec(), Some(Vec::new())),
    ])
}

/// A transaction in a family of its own, and a row without it, that has room for descriptors.
fn part_transaction(_: &Outputs, key: &[u8], value: &[u8]) -> Result<Entries, Malformed> {
    if value.first() == Some(&TxRow::VERSION) {
        return Ok(Vec::new());
    }
    if value.first() == Some(&2) {
        let row = tx_of_format_7(value)?;
        return Ok(vec![(TXS, key.to_vec(), Some(row.to_bytes()))]);
    }
    let (row, tx) = tx_of_format_5(value)?;
    Ok(vec![
        (TXS, key.to_vec(), Some(row.to_bytes())),
        (RAW_TXS, key.to_vec(), Some(tx.to_bytes())),
    ])
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

#[cfg(test)]
mod tests {
    use bitcoin::{BlockHash, Network, hashes::Hash};

    use super::*;
    use crate::store::inspect::look;

    #[test]
    fn outputs_are_counted_for_some_scripts_at_a_time() {
        let script = |n: u8| ScriptHash([n; 32]);
        let owners: Vec<u8> = (0..200).map(|n: u8| n.wrapping_mul(37) % 23).collect();
        for most in [1, 3, 22, 23, 100] {
            let (mut outputs, mut readings) = (Outputs::default(), 0);
            for watched in 0..=u8::MAX {
                let all = owners.iter().map(|owner| {
                    readings += 1;
                    Ok(script(*owner))
                });
                outputs
                    .reach(&script(watched), most, all)
                    .expect("they are read");
                assert!(outputs.counts.len() <= most);
                let count = owners.iter().filter(|owner| **owner == watched).count();
                assert_eq!(
                    outputs.of(&script(watched)),
                    count as u64,
                    "{watched} {most}"
                );
            }
            assert_eq!(readings / owners.len(), 23_usize.div_ceil(most), "{most}");
        }
    }

    #[test]
    fn without_room_for_it_an_earlier_format_is_left_as_it_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path();
        let chain = ChainInfo {
            network: Network::Regtest,
            genesis: BlockHash::all_zeros(),
        };
        let opened = |free| open(path, Some(chain), 1, "boot", &|| false, free);
        let (db, ..) = opened(|_| None).expect("a new store");
        let mut batch = WriteBatch::default();
        db.put_meta(&mut batch, meta::FORMAT, &5_u32);
        let counts = [&[1][..], &[0; 24]].concat();
        batch.put_cf(db.family(META), meta::COUNTS, counts);
        // One that has been brought up is passed over.
        batch.put_cf(db.family(TXS), [7; 32], [TxRow::VERSION; 100]);
        db.write(batch, true).expect("written");
        drop(db);

        let narrow: FreeSpace = |_| Some(10);
        for refused in [opened(narrow).err(), look(path, None, narrow).err()] {
            let told = refused.expect("there is no room").to_string();
            assert!(told.contains("1 MiB more, and 0 MiB are free"), "{told}");
        }
        let known = look(path, None, |_| None).expect("it can be read");
        assert_eq!(known.map(|known| known.format), Some(5));
        // The database is on a disk of its own.
        let its_own: FreeSpace = |folder| Some(u64::from(folder.ends_with("db")) << 40);
        let (db, ..) = opened(its_own).expect("there is room");
        assert_eq!(db.meta(meta::FORMAT).expect("it is read"), Some(FORMAT));
    }
}
