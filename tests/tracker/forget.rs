//! Scripts that are forgotten: afterwards the rows are as if they had never been watched.

use satwatch::tracker::{
    ApplyError, Balance, Baseline, DescriptorId, EventKind, FollowUp, Input, MemoryView, ScanEnd,
    ScanId, ScanState, ScriptHash, Seen, SubjectId, View, WatchRequest, WatchRow,
};

use crate::pretended::laws::script_of;
use crate::runner::Stretch;
use crate::shorthand::{coin, out, told};
use crate::world::{World, script, spk, tx};

/// The rows without a script, as somebody would make them who knows nothing of how the tracker does
/// it.
fn without(view: &MemoryView, script: &ScriptHash) -> MemoryView {
    let mut view = view.clone();
    view.watches.remove(script);
    view.forgetting.remove(script);
    view.outputs.retain(|_, row| row.script != *script);
    for row in view.txs.values_mut() {
        row.touches.retain(|touch| touch.script != *script);
    }
    view.txs.retain(|_, row| !row.touches.is_empty());
    let (rows, raw) = (&view.txs, &mut view.raw_txs);
    raw.retain(|txid, _| rows.contains_key(txid));
    view.adding.retain(|(), adding| {
        adding.retain(|adding| adding != script);
        !adding.is_empty()
    });
    for scan in view.scans_of(script, None, usize::MAX).unwrap() {
        view.scan_scripts.remove(&(scan, *script));
        let row = view.scans.get_mut(&scan);
        if let Some(row) = row.filter(|row| row.state == ScanState::Open) {
            row.scripts -= 1;
            if row.scripts == 0 {
                row.state = ScanState::Cancelled;
            }
        }
    }
    view
}

/// The same of a descriptor. Its scripts stay.
fn without_descriptor(view: &MemoryView, id: &DescriptorId) -> MemoryView {
    let mut view = view.clone();
    view.leaving.remove(id);
    view.derivations.retain(|place, _| place.descriptor != *id);
    view.joining.retain(|place, ()| place.descriptor != *id);
    view.owned_outputs.retain(|(of, _), ()| of != id);
    for row in view.txs.values_mut() {
        row.nets.retain(|net| net.descriptor != *id);
    }
    for row in view.watches.values_mut() {
        row.derivations.retain(|place| place.descriptor != *id);
    }
    view
}

impl World {
    /// The rows as they are when all is forgotten.
    fn lasting(&self) -> MemoryView {
        let mut view = self.visible();
        let rows = view.watches.iter();
        let is_gone = |row: &WatchRow| !row.listed && row.derivations.is_empty();
        let gone = rows.filter(|(_, row)| is_gone(row));
        let gone: Vec<ScriptHash> = gone.map(|(script, _)| *script).collect();
        for script in gone {
            view = without(&view, &script);
        }
        view
    }

    /// The rows without what is being forgotten. Scripts that only a removed descriptor had are
    /// watched until it is their turn.
    pub fn visible(&self) -> MemoryView {
        let forgetting = self.view.forgetting.keys();
        let mut view = forgetting.fold(self.view.clone(), |view, script| without(&view, script));
        for id in self.view.leaving.keys() {
            view = without_descriptor(&view, id);
        }
        let open = self.view.open_scans();
        view.scan_scripts
            .retain(|(scan, _), ()| open.contains(scan));
        view
    }

    pub fn forget(&mut self, number: u8) {
        let gone = script(number);
        self.begin_to_forget(number);
        let expected = self.lasting();
        self.forget_all();
        if self.view.joining.is_empty() {
            assert_eq!(
                self.view, expected,
                "only what the script made matter is gone"
            );
        }
        self.check_memory();
        let again = self
            .try_send(Input::Unwatch {
                scripts: vec![gone],
                now: self.now,
            })
            .expect("it may always come");
        assert!(again.changes.is_empty() && again.events.is_empty() && again.follow_ups.is_empty());
    }

    /// It is not watched any more. What it has many rows of goes in portions.
    pub fn begin_to_forget(&mut self, number: u8) {
        let gone = script(number);
        let mut expected = self.visible();
        let of_descriptors = expected.watches.get(&gone);
        let of_descriptors = of_descriptors.is_some_and(|row| !row.derivations.is_empty());
        match expected.watches.get_mut(&gone) {
            // Only a descriptor had it, whose removal has not come to it yet.
            Some(row) if !row.listed => {}
            Some(row) if of_descriptors => {
                (row.listed, row.depths) = (false, vec![1]);
                expected.adding.retain(|(), adding| {
                    adding.retain(|adding| *adding != gone);
                    !adding.is_empty()
                });
            }
            _ => expected = without(&expected, &gone),
        }
        let was_watched = self.watched.remove(&number);
        self.merging.take_if(|merging| merging.number == number);
        let was_told = !self.unfinished.remove(&number) || {
            let row = &self.view.watches[&gone];
            (row.tx_count, row.utxo_count) != (0, 0)
        };
        let transition = self
            .try_send(Input::Unwatch {
                scripts: vec![gone],
                now: self.now,
            })
            .expect("it may always come");
        if self.view.joining.is_empty() {
            assert_eq!(
                self.visible(),
                expected,
                "what the others know stays as it is"
            );
        }
        let told: Vec<_> = transition
            .events
            .iter()
            // A script that joins a descriptor may bring it news.
            .filter(|event| self.view.joining.is_empty() || event.kind.script().is_some())
            .map(
                |event| matches!(&event.kind, EventKind::Unwatched { subject } if script_of(subject) == gone),
            )
            .collect();
        assert_eq!(
            told,
            vec![true; usize::from(was_watched && was_told)],
            "it is told once, and nothing else is"
        );
    }

    /// All that is being forgotten goes, as before anything is watched again.
    pub fn forget_all(&mut self) {
        while self.tracker.has_to_forget() {
            self.forget_portion();
        }
    }

    /// Some of what is being forgotten goes, and nobody is told.
    pub fn forget_portion(&mut self) {
        let (lasting, had_some) = (self.lasting(), self.tracker.has_to_forget());
        let rows = self.view.watches.clone();
        let transition = self
            .try_send(Input::Forget { now: self.now })
            .expect("it may always come");
        let asks = transition.follow_ups.iter();
        assert!(asks.clone().all(|it| *it == FollowUp::Scans));
        for event in &transition.events {
            match &event.kind {
                EventKind::Unwatched { subject } => {
                    let row = &rows[&script_of(subject)];
                    assert!(!row.listed && (row.tx_count, row.utxo_count) != (0, 0));
                }
                EventKind::NewTransactions { subject, .. }
                | EventKind::TransactionUpdate { subject, .. } => {
                    let SubjectId::Descriptor(id) = subject.id() else {
                        panic!("{event:?}")
                    };
                    let mut joining = self.view.joining.keys();
                    assert!(joining.any(|place| place.descriptor == id));
                }
                _ => panic!("{event:?}"),
            }
        }
        assert_eq!(had_some, !transition.changes.is_empty(), "it goes on");
        assert!(transition.changes.len() <= 25, "it is bounded");
        if self.view.joining.is_empty() {
            assert_eq!(self.lasting(), lasting, "what counts stays as it is");
        }
        self.check_memory();
    }
}

#[test]
fn a_block_does_not_speak_for_what_only_a_forgotten_script_had_in_it() {
    let mut world = World::new();
    world.watch(1, &[2]);
    let payment = tx(&[coin(&world, 0)], &[(1, 700), (2, 40)]);
    let _ = world.mine(9, std::slice::from_ref(&payment));
    world.forget(1);
    // The node takes the block back for a moment, while script 2 waits for its baseline.
    world.slow_scans = true;
    world.watch(2, &[2]);
    let _ = world.send(Input::TxSeen {
        tx: (&payment).into(),
        seen: Seen::Accepted,
        now: 1,
    });
    assert_eq!(
        told(&world.mine(9, &[]).events),
        ["block"],
        "an unconfirmed transaction is not two deep"
    );
    world.snapshot();
    world.scan();
    world.check();
}

#[test]
fn what_a_forgotten_script_shares_stays_with_the_others() {
    let mut world = World::new();
    for number in [1, 2] {
        world.watch(number, &[3]);
    }
    let both = tx(&[coin(&world, 0)], &[(1, 700), (2, 40)]);
    let own = tx(&[coin(&world, 1)], &[(1, 5)]);
    let _ = world.mine(9, &[both.clone(), own.clone()]);
    let spend = tx(&[out(&both, 0), out(&both, 1)], &[(9, 600)]);
    let _ = world.accept(&spend);
    world.forget(1);
    assert_eq!(world.view.txs.len(), 2);
    assert_eq!(world.view.txs[&both.compute_txid()].touches.len(), 1);
    world.check();
    assert_eq!(
        told(&world.mine(9, &[spend]).events),
        ["mempool>confirmed 1", "block"]
    );
    world.check();
    world.watch(1, &[]);
    let _ = world.open_scan(&[1], 0, None);
    world.finish_scans(Stretch {
        blocks: 9,
        too_much: false,
    });
    assert_eq!(world.view.watches[&script(1)].tx_count, 3);
    world.check();
}

#[test]
fn a_script_that_is_forgotten_while_it_waits_for_its_baseline_is_not_given_one() {
    let mut world = World::new();
    let _ = world.mine(1, &[]);
    world.slow_scans = true;
    world.watch(1, &[]);
    world.forget(1);
    let baseline = Input::Baseline {
        block: world.tip(),
        scripts: vec![script(1)],
        outputs: Vec::new(),
        now: 1,
    };
    assert!(world.send(baseline).changes.is_empty());
    world.check();
}

#[test]
fn a_payment_that_mattered_to_a_forgotten_script_alone_matters_again_when_it_is_added() {
    let mut world = World::new();
    world.watch(1, &[]);
    let payment = tx(&[coin(&world, 0)], &[(1, 700)]);
    let _ = world.accept(&payment);
    world.forget(1);
    assert!(world.view.txs.is_empty());
    world.watch(1, &[]);
    assert_eq!(
        world.view.watches[&script(1)].balance,
        Balance {
            confirmed: 0,
            unconfirmed: 700
        }
    );
    world.check();
}

#[test]
fn a_script_with_many_rows_is_forgotten_in_portions_and_counts_for_nothing_meanwhile() {
    let mut world = World::new();
    for number in [1, 2] {
        world.watch(number, &[2]);
    }
    let payments: Vec<_> = (0..6)
        .map(|n| tx(&[coin(&world, n)], &[(1, 700), (1, 5)]))
        .collect();
    let _ = world.mine(1, &payments[..3]);
    for payment in &payments[3..] {
        let _ = world.accept(payment);
    }
    world.begin_to_forget(1);
    assert!(world.tracker.is_forgetting());
    world.check();
    // Its outputs are spent, to somebody who is watched and to nobody; a block takes some of it.
    let shared = tx(&[out(&payments[0], 0), out(&payments[5], 0)], &[(2, 40)]);
    let _ = world.accept(&shared);
    let own = tx(&[out(&payments[1], 0)], &[(9, 40)]);
    let _ = world.accept(&own);
    world.forget_portion();
    world.check();
    let _ = world.mine(9, &[payments[3].clone(), own.clone()]);
    world.check();
    let _ = world.disconnect(2);
    world.check();
    world.restart();
    while world.tracker.is_forgetting() {
        world.forget_portion();
        world.check();
    }
    assert_eq!(world.view.txs.len(), 1, "only what script 2 knows is left");
    world.kept().check_change_sets();
}

#[test]
fn a_script_is_not_added_while_it_is_being_forgotten_and_begins_without_anything_from_before() {
    let mut world = World::new();
    world.watch(1, &[]);
    for n in 0..6 {
        let payment = tx(&[coin(&world, n)], &[(1, 700)]);
        let _ = world.mine(9, &[payment]);
    }
    world.begin_to_forget(1);
    let add = Input::Watch {
        scripts: vec![WatchRequest {
            spk: spk(1),
            label: None,
            depths: Vec::new(),
            baseline: Baseline::Skip,
        }],
        now: 1,
    };
    let refused = world.refused(add.clone());
    assert_eq!(refused, ApplyError::StillForgetting(script(1)));
    world.forget_all();
    let _ = world.apply(add);
    let row = &world.view.watches[&script(1)];
    assert_eq!((row.balance, row.tx_count), (Balance::default(), 0));
    assert!(world.view.txs.is_empty() && world.view.outputs.is_empty());
    world.check_memory();
    world.kept().check_change_sets();
}

#[test]
fn what_moves_behind_the_place_of_a_removal_does_not_end_it() {
    let mut world = World::new();
    world.watch(2, &[]);
    for _ in 0..3 {
        let _ = world.mine(2, &[]);
    }
    let payment = tx(&[coin(&world, 0)], &[(2, 70), (9, 5), (9, 6)]);
    let _ = world.accept(&payment);
    world.begin_to_forget(2);
    // The payment, which is the newest.
    world.forget_portion();
    assert!(!world.view.txs.contains_key(&payment.compute_txid()));
    // Now the last coinbase is the next one, where it died.
    let _ = world.disconnect(1);
    world.forget_all();
    assert!(world.view.txs.is_empty());
}

/// The scans of these scripts are opened, then cancelled.
fn cancelled(world: &mut World, scans: &[&[u8]]) -> Vec<ScanId> {
    let open = |numbers: &&[u8]| world.open_scan(numbers, 0, None);
    let scans: Vec<ScanId> = scans.iter().map(open).collect();
    for scan in scans.clone() {
        let (end, now) = (ScanEnd::Cancelled(None), world.now);
        let _ = world.try_send(Input::CloseScan { scan, end, now });
    }
    scans
}

#[test]
fn a_cancelled_scan_is_in_memory_as_long_as_it_has_scripts() {
    let mut world = World::new();
    let scan = cancelled(&mut world, &[&[1, 2, 3]])[0];
    let left = world.view.scan_scripts(&scan, usize::MAX).unwrap();
    let left: Vec<u8> = (1..4).filter(|it| left.contains(&script(*it))).collect();
    assert_eq!(left.len(), 1);
    world.begin_to_forget(left[0]);
    world.check_memory();
    world.forget_all();
    world.check_memory();
    // As many are left together as go at once.
    let _ = cancelled(&mut world, &[&[4, 5, 6, 7, 8], &[4, 5, 6]]);
    while world.tracker.has_to_forget() {
        world.forget_portion();
        world.check_memory();
    }
}

#[test]
fn a_script_that_is_in_very_many_scans_leaves_them_in_portions() {
    let mut world = World::new();
    world.watch(1, &[]);
    world.watch(2, &[]);
    let shared = world.open_scan(&[1, 2], 0, None);
    for _ in 0..10 {
        let _ = world.open_scan(&[1], 0, None);
    }
    world.begin_to_forget(1);
    let first = world.past.last().expect("it was sent").0.len();
    assert!(first <= 20, "{first}");
    assert!(world.tracker.is_forgetting());
    world.forget_all();
    assert_eq!(world.view.open_scans(), [shared]);
    assert_eq!(world.view.scans[&shared].scripts, 1);
    world.check();
}
