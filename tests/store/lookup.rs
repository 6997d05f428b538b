//! Lookup rows and counts follow the changes exactly, forwards and backwards; snapshots read them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;
use satwatch::store::{HistoryCursor, RowCounts, StoreReader, Writer};
use satwatch::tracker::{
    BlockRow, ChangeSet, MemoryView, Overlay, Rows, ScanId, ScanRow, ScanState, ScriptHash, Spend,
    Status, SubjectId, Transition, View,
};
use tempfile::tempdir;

use super::{
    Change, block_id, changes, dump, events, open, outpoint, output_row, raw_tx, script, tx_row,
    txid, watch_row,
};

/// A new state of one row of a small world; `None` deletes it.
#[derive(Debug, Clone)]
enum Step {
    /// Whether it waits for its baseline, and the height its coverage begins at.
    Watch(u8, Option<(bool, u32)>),
    /// Script, the spend (not at all, unconfirmed, confirmed), and the height of a coinbase.
    Output(u8, Option<(u8, u8, Option<u32>)>),
    /// Status, order, touched scripts.
    Tx(u8, Option<(u8, u64, Vec<u8>)>),
    Block(u32, Option<u8>),
    Tip(Option<u32>),
    /// Its next height.
    Scan(u64, Option<u32>),
    /// Whether the script is in the scan.
    ScanScript(u64, u8, bool),
    Forgetting(u8, bool),
    Adding(BTreeSet<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let touched = proptest::sample::subsequence(vec![1_u8, 2, 3], 0..=3);
    prop_oneof![
        (
            1..4_u8,
            proptest::option::of((
                any::<bool>(),
                prop_oneof![Just(0), Just(100), Just(u32::MAX)]
            ))
        )
            .prop_map(|(n, pending)| Step::Watch(n, pending)),
        (
            1..5_u8,
            proptest::option::of((1..4_u8, 0..3_u8, proptest::option::of(0..3_u32)))
        )
            .prop_map(|(n, row)| Step::Output(n, row)),
        (1..5_u8, proptest::option::of((0..5_u8, 0..4_u64, touched)))
            .prop_map(|(n, row)| Step::Tx(n, row)),
        (0..3_u32, proptest::option::of(any::<u8>()))
            .prop_map(|(height, row)| Step::Block(height, row)),
        proptest::option::of(0..3_u32).prop_map(Step::Tip),
        (0..4_u64, proptest::option::of(any::<u32>()))
            .prop_map(|(scan, row)| Step::Scan(scan_number(scan), row)),
        (0..4_u64, 1..4_u8, any::<bool>()).prop_map(|(scan, script, is_in)| Step::ScanScript(
            scan_number(scan),
            script,
            is_in
        )),
        (1..4_u8, any::<bool>()).prop_map(|(n, is_so)| Step::Forgetting(n, is_so)),
        prop::collection::btree_set(1..4_u8, 0..3).prop_map(Step::Adding),
    ]
}

/// Ids whose first and whose last bytes differ.
fn scan_number(n: u64) -> u64 {
    [0, 1, 1 << 56, u64::MAX][usize::try_from(n).expect("it is small")]
}

fn scan_row(next: u32) -> ScanRow {
    ScanRow {
        created: 5,
        updated: 6,
        state: ScanState::Open,
        from: 0,
        to: Some(next),
        horizon: None,
        next,
        scripts: 1,
        found: 2,
    }
}

fn spend(kind: u8) -> Option<Spend> {
    let height = (kind == 2).then_some(9);
    (kind > 0).then_some(Spend {
        txid: txid(kind),
        height,
    })
}

fn status(kind: u8) -> Status {
    match kind {
        0 => Status::Mempool,
        1 => Status::Confirmed {
            block: block_id(4),
            position: 2,
        },
        2 => Status::Replaced { by: txid(9) },
        3 => Status::Conflicted { by: txid(9) },
        _ => Status::Evicted,
    }
}

fn change(view: &MemoryView, step: &Step) -> Change {
    match step {
        Step::Watch(n, new) => {
            let new = new.map(|(pending, from_height)| {
                let mut row = watch_row(*n);
                row.coverage.from_height = from_height;
                row.coverage.pending = pending;
                row
            });
            Change::Watch {
                script: script(*n),
                old: view.watch(&script(*n)).unwrap(),
                new,
            }
        }
        Step::Output(n, new) => {
            let new = new.map(|(script, kind, coinbase)| {
                let mut row = output_row(script, 1_000 + u64::from(*n));
                row.spent = spend(kind);
                row.coinbase = coinbase.is_some();
                row.height = coinbase.or(row.height);
                row
            });
            Change::Output {
                outpoint: outpoint(*n, 3),
                old: view.output(&outpoint(*n, 3)).unwrap(),
                new,
            }
        }
        Step::Tx(n, new) => {
            let new = new
                .as_ref()
                .map(|(kind, order, scripts)| tx_row(status(*kind), *order, scripts));
            Change::Tx {
                txid: txid(*n),
                old: view.tx(&txid(*n)).unwrap(),
                new,
            }
        }
        Step::Block(height, new) => {
            let row = |n| BlockRow {
                hash: block_id(*height).hash,
                time: 5,
                touched: vec![txid(n)],
                found: vec![outpoint(n, 0)],
            };
            Change::Block {
                height: *height,
                old: view.block(height).unwrap(),
                new: new.map(row),
            }
        }
        Step::Tip(new) => Change::Tip {
            old: view.tip_row(&()).unwrap(),
            new: new.map(block_id),
        },
        Step::Scan(scan, new) => Change::Scan {
            scan: ScanId(*scan),
            old: view.scan(&ScanId(*scan)).unwrap(),
            new: new.map(scan_row),
        },
        Step::ScanScript(scan, n, new) => Change::ScanScript {
            scan: ScanId(*scan),
            script: script(*n),
            old: view.scan_scripts.contains_key(&(ScanId(*scan), script(*n))),
            new: *new,
        },
        Step::Adding(numbers) => Change::Adding {
            old: view.adding.get(&()).cloned().unwrap_or_default(),
            new: numbers.iter().map(|n| script(*n)).collect(),
        },
        Step::Forgetting(n, new) => Change::Forgetting {
            script: script(*n),
            old: view.forgetting.contains_key(&script(*n)),
            new: *new,
        },
    }
}

/// The change set of `steps` on `view`, which is brought up to date. A row changes at most once.
fn change_set(view: &mut MemoryView, steps: &[Step]) -> ChangeSet {
    let mut rows = HashSet::new();
    let mut set = Vec::new();
    for step in steps {
        let row = match step {
            Step::Watch(n, _) => (0, u64::from(*n)),
            Step::Output(n, _) => (1, u64::from(*n)),
            Step::Tx(n, _) => (2, u64::from(*n)),
            Step::Block(height, _) => (3, u64::from(*height)),
            Step::Tip(_) => (4, 0),
            Step::Scan(scan, _) => (5, *scan),
            Step::ScanScript(scan, n, _) => (6 + u64::from(*n), *scan),
            Step::Forgetting(n, _) => (20, u64::from(*n)),
            Step::Adding(_) => (21, 0),
        };
        if rows.insert(row) {
            set.push(change(view, step));
        }
    }
    let set = super::change_set(set);
    view.commit(&set);
    set
}

type Entries = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// The lookup rows that the schema asks for, built from the rows without looking at changes.
fn expected_lookups(view: &MemoryView) -> Entries {
    let mut entries = Entries::new();
    let mut add =
        |family: &str, key: Vec<u8>| drop(entries.insert((family.to_owned(), key), Vec::new()));
    for (script, _) in view.watches.iter().filter(|(_, row)| row.coverage.pending) {
        add("pending", script.0.to_vec());
    }
    for script in view.forgetting.keys() {
        add("forgetting", script.0.to_vec());
    }
    for (scan, script) in view.scan_scripts.keys() {
        let scan = scan.0.to_be_bytes();
        add("scan_scripts", [&scan[..], &script.0].concat());
        add("script_scans", [&script.0[..], &scan].concat());
    }
    for (script, row) in &view.watches {
        add(
            "since",
            [&row.coverage.from_height.to_be_bytes()[..], &script.0].concat(),
        );
    }
    for (outpoint, row) in view
        .outputs
        .iter()
        .filter(|(_, row)| row.spent.is_none_or(|spend| spend.height.is_none()))
    {
        add(
            "unspent",
            [
                &row.script.0[..],
                outpoint.txid.as_ref(),
                &outpoint.vout.to_be_bytes(),
            ]
            .concat(),
        );
    }
    for (outpoint, row) in &view.outputs {
        if let Some(height) = row.height.filter(|_| row.coinbase && row.spent.is_none()) {
            let key = [
                &row.script.0[..],
                &height.to_be_bytes(),
                outpoint.txid.as_ref(),
                &outpoint.vout.to_be_bytes(),
            ];
            let value = [&[1], &row.value.to_le_bytes()[..]].concat();
            entries.insert(("coinbases".to_owned(), key.concat()), value);
        }
    }
    let mut add =
        |family: &str, key: Vec<u8>| drop(entries.insert((family.to_owned(), key), Vec::new()));
    for (txid, row) in &view.txs {
        if row.status == Status::Mempool {
            add("mempool", AsRef::<[u8]>::as_ref(txid).to_vec());
        }
        for touch in &row.touches {
            add(
                "history",
                [
                    &touch.script.0[..],
                    &(u64::MAX - row.order).to_be_bytes(),
                    txid.as_ref(),
                ]
                .concat(),
            );
        }
    }
    entries
}

fn check_against_the_model(
    path: &std::path::Path,
    writer: &Writer,
    reader: &StoreReader,
    view: &MemoryView,
) {
    let lookups: Entries = dump(path)
        .into_iter()
        .filter(|((family, _), _)| {
            [
                "pending",
                "since",
                "unspent",
                "coinbases",
                "mempool",
                "history",
                "scan_scripts",
                "script_scans",
                "forgetting",
            ]
            .contains(&family.as_str())
        })
        .collect();
    assert_eq!(lookups, expected_lookups(view));
    let unspent = view
        .outputs
        .values()
        .filter(|row| row.spent.is_none())
        .count() as u64;
    let counts = RowCounts {
        addresses: view.watches.len() as u64,
        derived: 0,
        utxos: unspent,
        transactions: view.txs.len() as u64,
    };
    let snapshot = reader.snapshot();
    let tip = view.tip();
    assert_eq!(
        (
            snapshot.counts().unwrap(),
            snapshot.tip().unwrap(),
            writer.tip_row(&()).unwrap()
        ),
        (counts, tip, tip)
    );
    for height in [0, 9, 99, 100, 101, u32::MAX - 1, u32::MAX] {
        assert_eq!(
            sorted(writer.watches_above(height).unwrap()),
            sorted(view.watches_above(height).unwrap()),
            "above {height}"
        );
    }
    check_scans(writer, reader, view);
    let adding = view.adding.get(&()).cloned();
    assert_eq!(snapshot.adding().unwrap(), adding.unwrap_or_default());
    for n in 0..6 {
        check_pages(&script(n), writer, view);
        for height in 0..4 {
            assert_eq!(
                snapshot.coinbase_value(&script(n), height).unwrap(),
                coinbase_value(view, n, height),
                "of script {n} from {height} on"
            );
        }
        let (script, outpoint, txid) = (script(n), outpoint(n, 3), txid(n));
        assert_eq!(
            (
                snapshot.watch(&script).unwrap(),
                writer.watch(&script).unwrap()
            ),
            (view.watch(&script).unwrap(), view.watch(&script).unwrap())
        );
        assert_eq!(
            writer.output(&outpoint).unwrap(),
            view.output(&outpoint).unwrap()
        );
        assert_eq!(
            (snapshot.tx(&txid).unwrap(), writer.tx(&txid).unwrap()),
            (view.tx(&txid).unwrap(), view.tx(&txid).unwrap())
        );
        let raw = view.raw_tx(&txid).unwrap();
        assert_eq!(snapshot.raw_tx(&txid).unwrap(), raw);
        assert_eq!(writer.raw_tx(&txid).unwrap(), raw);
        let block = view.block(&u32::from(n)).unwrap();
        assert_eq!(
            (
                snapshot.block(&u32::from(n)).unwrap(),
                writer.block(&u32::from(n)).unwrap()
            ),
            (block.clone(), block)
        );
    }
}

/// The sum over all outputs.
fn coinbase_value(view: &MemoryView, n: u8, height: u32) -> u64 {
    view.outputs
        .values()
        .filter(|row| row.script == script(n) && row.coinbase && row.spent.is_none())
        .filter(|row| row.height.is_some_and(|it| it >= height))
        .map(|row| row.value)
        .sum()
}

fn check_scans(writer: &Writer, reader: &StoreReader, view: &MemoryView) {
    let snapshot = reader.snapshot();
    for scan in (0..4).map(|n| ScanId(scan_number(n))) {
        let row = view.scan(&scan).unwrap();
        assert_eq!(
            (snapshot.scan(&scan).unwrap(), writer.scan(&scan).unwrap()),
            (row.clone(), row)
        );
        let scripts = view.scan_scripts(&scan, usize::MAX).unwrap();
        assert_eq!(
            (
                snapshot.scan_scripts(&scan).unwrap(),
                writer.scan_scripts(&scan, usize::MAX).unwrap()
            ),
            (scripts.clone(), scripts)
        );
        let after: Vec<_> = snapshot.scans(Some(scan)).map(|row| row.unwrap()).collect();
        assert_eq!(
            after,
            view.scans
                .clone()
                .into_iter()
                .filter(|(other, _)| *other > scan)
                .collect::<BTreeMap<_, _>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
    }
    let all: BTreeMap<_, _> = snapshot.scans(None).map(|row| row.unwrap()).collect();
    assert_eq!(all, view.scans.clone().into_iter().collect());
    assert_eq!(sorted(snapshot.open_scans().unwrap()), {
        let open = view
            .scans
            .iter()
            .filter(|(_, row)| row.state == satwatch::tracker::ScanState::Open);
        open.map(|(scan, _)| *scan).collect()
    });
}

/// The lists of a script are the model's, in their order, from wherever they are read.
fn check_pages(script: &ScriptHash, writer: &impl View, view: &MemoryView) {
    let unspent = view.unspent(script, None, usize::MAX).unwrap();
    assert_eq!(writer.unspent(script, None, usize::MAX).unwrap(), unspent);
    for (place, after) in unspent.iter().enumerate() {
        let page = writer.unspent(script, Some(*after), 2).unwrap();
        assert!(unspent[place + 1..].iter().take(2).eq(&page));
    }
    let history = view.history(script, None, usize::MAX).unwrap();
    assert_eq!(writer.history(script, None, usize::MAX).unwrap(), history);
    for (place, after) in history.iter().enumerate() {
        let page = writer.history(script, Some(*after), 2).unwrap();
        assert!(history[place + 1..].iter().take(2).eq(&page));
    }
}

fn sorted<T: Ord>(items: Vec<T>) -> BTreeSet<T> {
    items.into_iter().collect()
}

/// Everything but what only rises: the events and their numbers.
fn state(path: &std::path::Path) -> Entries {
    let rising = |family: &str, key: &[u8]| {
        family == "events" || (family == "meta" && (key == b"next_seq" || key == b"reserved"))
    };
    dump(path)
        .into_iter()
        .filter(|((family, key), _)| !rising(family, key))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Commits of one to three transitions each, then all of them taken back one by one.
    #[test]
    fn the_database_follows_every_change_and_its_inverse(
        commits in prop::collection::vec(prop::collection::vec(prop::collection::vec(step(), 0..12), 1..4), 1..5),
    ) {
        let folder = tempdir().unwrap();
        let (mut writer, reader) = open(folder.path());
        let mut view = MemoryView::default();
        let mut past = Vec::new();
        for steps in commits {
            past.push((state(folder.path()), Vec::new()));
            let sets: Vec<_> = steps.iter().map(|steps| change_set(&mut view, steps)).collect();
            let transitions: Vec<_> =
                sets.iter().map(|set| Transition { changes: set.clone(), ..events(1, 1) }).collect();
            let mut overlay = Overlay::new(&writer);
            sets.iter().for_each(|set| overlay.add(set.clone()));
            (0..6).for_each(|n| check_pages(&script(n), &overlay, &view));
            writer.commit(&transitions, false).unwrap();
            check_against_the_model(folder.path(), &writer, &reader, &view);
            past.last_mut().expect("it was pushed").1 = sets;
        }
        for (before, sets) in past.into_iter().rev() {
            let inverse: Vec<_> = sets.iter().rev().map(|set| Transition { changes: set.clone().inverse(), ..Transition::default() }).collect();
            inverse.iter().for_each(|transition| view.commit(&transition.changes));
            writer.commit(&inverse, false).unwrap();
            check_against_the_model(folder.path(), &writer, &reader, &view);
            prop_assert_eq!(state(folder.path()), before);
        }
    }
}

fn tx(n: u8, order: u64, scripts: &[u8]) -> Change {
    Change::Tx {
        txid: txid(n),
        old: None,
        new: Some(tx_row(Status::Mempool, order, scripts)),
    }
}

fn output(n: u8, owner: u8, kind: u8) -> Change {
    let mut row = output_row(owner, u64::from(n));
    row.spent = spend(kind);
    Change::Output {
        outpoint: outpoint(n, 0),
        old: None,
        new: Some(row),
    }
}

#[test]
fn history_pages_are_newest_first_and_join() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    // Equal orders stay apart by txid; script 2 has a transaction of its own in between.
    writer
        .commit(
            &[changes(vec![
                tx(1, 5, &[1]),
                tx(2, 300, &[1]),
                tx(3, 5, &[1]),
                tx(4, 1 << 40, &[1, 2]),
                tx(5, 7, &[2]),
            ])],
            false,
        )
        .unwrap();
    let snapshot = reader.snapshot();
    let all = snapshot
        .history(&SubjectId::Script(script(1)), None, 10)
        .unwrap();
    let order: Vec<_> = all.transactions.iter().map(|(txid, _)| *txid).collect();
    assert_eq!(
        (order.clone(), all.next),
        (vec![txid(4), txid(2), txid(1), txid(3)], None)
    );
    assert_eq!(
        all.transactions[0].1,
        tx_row(Status::Mempool, 1 << 40, &[1, 2])
    );
    for limit in 1..=4 {
        let (mut seen, mut before) = (Vec::new(), None);
        loop {
            let page = snapshot
                .history(&SubjectId::Script(script(1)), before.as_ref(), limit)
                .unwrap();
            assert!(page.transactions.len() <= limit);
            seen.extend(page.transactions.iter().map(|(txid, _)| *txid));
            // Through its text, as clients hold it.
            before = page
                .next
                .map(|next| next.to_string().parse::<HistoryCursor>().unwrap());
            if before.is_none() {
                break;
            }
        }
        assert_eq!(seen, order, "pages of {limit}");
    }
    assert_eq!(
        snapshot
            .history(&SubjectId::Script(script(3)), None, 10)
            .unwrap()
            .transactions,
        []
    );
}

#[test]
fn text_that_is_no_place_in_a_history_is_refused() {
    for text in [
        "",
        "00",
        "é",
        &"0".repeat(79),
        &"0".repeat(81),
        &"0".repeat(82),
        &"g".repeat(80),
        &"é".repeat(40),
    ] {
        assert!(text.parse::<HistoryCursor>().is_err(), "{text}");
    }
    assert_eq!(
        "0f".repeat(40)
            .parse::<HistoryCursor>()
            .unwrap()
            .to_string(),
        "0f".repeat(40)
    );
}

#[test]
fn utxos_are_those_whose_spend_is_not_confirmed() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    writer
        .commit(
            &[changes(vec![
                output(1, 1, 0),
                output(2, 1, 1),
                output(3, 1, 2),
                output(4, 2, 0),
            ])],
            false,
        )
        .unwrap();
    let snapshot = reader.snapshot();
    let of = |owner, spent| {
        snapshot
            .utxos(&script(owner), spent, None, 9)
            .unwrap()
            .utxos
            .into_iter()
            .map(|(point, _)| point)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(1, false), [outpoint(1, 0)]);
    assert_eq!(of(1, true), [outpoint(1, 0), outpoint(2, 0)]);
    assert_eq!(of(2, true), [outpoint(4, 0)]);
    assert_eq!(of(3, true), []);
    assert_eq!(
        snapshot.utxos(&script(2), false, None, 9).unwrap().utxos[0].1,
        output_row(2, 4)
    );
}

#[test]
fn utxos_are_listed_in_pages_that_join() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    // Every third is spent in the mempool, every other third in a block.
    let outputs = (1..=30).map(|n| output(n, 1, n % 3));
    let others = [output(40, 2, 0), output(41, 0, 0)];
    writer
        .commit(&[changes(outputs.chain(others).collect())], false)
        .unwrap();
    // What happens afterwards is not in it.
    let held = reader.held_snapshot();
    writer
        .commit(&[changes(vec![output(50, 1, 0)])], false)
        .unwrap();
    drop((writer, reader));
    let snapshot = held.get();
    for (spent, expected) in [(false, 10), (true, 20)] {
        let all = snapshot.utxos(&script(1), spent, None, usize::MAX).unwrap();
        assert_eq!((all.utxos.len(), all.next), (expected, None));
        for limit in 0..=expected + 1 {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = snapshot
                    .utxos(&script(1), spent, after.as_ref(), limit)
                    .unwrap();
                assert!(page.utxos.len() <= limit.max(1));
                seen.extend(page.utxos);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(seen, all.utxos, "pages of {limit}");
        }
    }
    assert_eq!(snapshot.count_unspent(&script(1)).unwrap(), 20);
    assert_eq!(snapshot.count_unspent(&script(3)).unwrap(), 0);
}

#[test]
fn watched_scripts_are_listed_in_pages() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let watch = |n, pending| {
        let mut row = watch_row(n);
        row.coverage.pending = pending;
        Change::Watch {
            script: script(n),
            old: None,
            new: Some(row),
        }
    };
    writer
        .commit(
            &[changes((1..=5).map(|n| watch(n, n % 2 == 0)).collect())],
            true,
        )
        .unwrap();
    let snapshot = reader.snapshot();
    let page = |after: Option<u8>, limit| -> Vec<_> {
        snapshot
            .watches(after.map(script).as_ref(), limit)
            .unwrap()
            .into_iter()
            .map(|(script, _)| script)
            .collect()
    };
    assert_eq!(page(None, 2), [script(1), script(2)]);
    assert_eq!(page(Some(2), 2), [script(3), script(4)]);
    assert_eq!(page(Some(4), 2), [script(5)]);
    assert_eq!(page(Some(5), 2), []);
    assert_eq!(page(Some(0), 9).len(), 5, "the place itself need not exist");
    let pending: Vec<_> = snapshot
        .pending_baselines()
        .map(|row| row.unwrap())
        .map(|(script, row)| (script, row.spk))
        .collect();
    assert_eq!(
        pending,
        [(script(2), watch_row(2).spk), (script(4), watch_row(4).spk)]
    );
}

#[test]
fn the_tracker_loads_what_it_needs() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let confirmed = Change::Tx {
        txid: txid(2),
        old: None,
        new: Some(tx_row(status(1), 6, &[1])),
    };
    let watch = Change::Watch {
        script: script(1),
        old: None,
        new: Some(watch_row(1)),
    };
    writer
        .commit(
            &[changes(vec![
                watch,
                tx(1, 5, &[1]),
                confirmed,
                output(1, 1, 0),
                output(2, 1, 1),
                output(3, 1, 2),
            ])],
            true,
        )
        .unwrap();
    assert_eq!(
        reader.watches().collect::<Result<Vec<_>, _>>().unwrap(),
        [(script(1), watch_row(1))]
    );
    assert_eq!(
        reader
            .unspent_outpoints()
            .collect::<Result<Vec<_>, _>>()
            .unwrap(),
        [outpoint(1, 0), outpoint(2, 0)]
    );
    let unconfirmed = reader
        .unconfirmed_txs()
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    assert_eq!(
        unconfirmed,
        [(txid(1), tx_row(Status::Mempool, 5, &[1]), raw_tx(&txid(1)))]
    );
}

#[test]
fn the_tracker_loads_the_scans_that_are_open() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let scan = |n, state| Change::Scan {
        scan: ScanId(n),
        old: None,
        new: Some(ScanRow {
            state,
            ..scan_row(9)
        }),
    };
    let scripts = Change::ScanScript {
        scan: ScanId(7),
        script: script(1),
        old: false,
        new: true,
    };
    let row = watch_row(1);
    let watch = Change::Watch {
        script: script(1),
        old: None,
        new: Some(row),
    };
    writer
        .commit(
            &[changes(vec![
                watch,
                scan(5, ScanState::Complete),
                scan(6, ScanState::Cancelled),
                scan(7, ScanState::Open),
                scripts,
            ])],
            true,
        )
        .unwrap();
    assert_eq!(reader.snapshot().open_scans().unwrap(), [ScanId(7)]);
    let mut tracker = satwatch::indexer::load(&reader, [7; 16]).unwrap();
    // A tracker that did not know it would leave it in the scan, and the scan would speak for it
    // when it is added again.
    let done = tracker
        .apply(
            &writer,
            satwatch::tracker::Input::Unwatch {
                scripts: vec![script(1)],
                now: 5,
            },
        )
        .unwrap();
    writer.commit(&[done], true).unwrap();
    assert_eq!(reader.snapshot().scan_scripts(&ScanId(7)).unwrap(), []);
    assert_eq!(reader.snapshot().open_scans().unwrap(), []);
}

#[test]
fn a_snapshot_stays_at_its_instant() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let tip = |old, new| Change::Tip { old, new };
    let first = changes(vec![
        tip(None, Some(block_id(1))),
        tx(1, 1, &[1]),
        output(1, 1, 0),
    ]);
    writer.commit(&[first, events(1, 1)], true).unwrap();
    let snapshot = reader.snapshot();
    let mut spent = output_row(1, 1);
    spent.spent = spend(2);
    let second = changes(vec![
        tip(Some(block_id(1)), Some(block_id(2))),
        tx(2, 2, &[1]),
        Change::Output {
            outpoint: outpoint(1, 0),
            old: Some(output_row(1, 1)),
            new: Some(spent),
        },
    ]);
    writer.commit(&[second, events(2, 2)], true).unwrap();
    let seen = |snapshot: &satwatch::store::Snapshot<'_>| {
        let history = snapshot
            .history(&SubjectId::Script(script(1)), None, 9)
            .unwrap()
            .transactions
            .len();
        let utxos = snapshot.utxos(&script(1), true, None, 9).unwrap();
        let utxos = utxos.utxos.len();
        (
            snapshot.tip().unwrap(),
            snapshot.head().unwrap(),
            history,
            utxos,
            snapshot.counts().unwrap().utxos,
        )
    };
    assert_eq!(seen(&snapshot), (Some(block_id(1)), 1, 1, 1, 1));
    assert_eq!(seen(&reader.snapshot()), (Some(block_id(2)), 3, 2, 0, 0));
}

#[test]
fn changes_that_count_below_zero_are_refused_whole() {
    let folder = tempdir().unwrap();
    let (mut writer, reader) = open(folder.path());
    let gone = Change::Watch {
        script: script(1),
        old: Some(watch_row(1)),
        new: None,
    };
    assert!(
        writer
            .commit(&[changes(vec![gone]), events(1, 1)], false)
            .is_err()
    );
    assert_eq!((writer.head(), super::numbers(&reader, 0)), (0, vec![]));
}
