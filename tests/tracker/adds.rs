//! Large adds come in parts, and count as a whole or not at all.

use std::collections::BTreeSet;

use satwatch::tracker::{ApplyError, Baseline, EventKind, Input, ScriptHash, WatchRequest};

use crate::pretended::laws::script_of;
use crate::shorthand::{balance, coin};
use crate::world::{World, script, spk, tx};

impl World {
    /// Some of a large add.
    pub fn add_part(&mut self, numbers: &[u8], is_last: bool) {
        self.forget_all();
        let fresh = numbers
            .iter()
            .filter(|number| !self.watched.contains(number));
        match is_last {
            true => self.unfinished.clear(),
            false => self.unfinished.extend(fresh.copied().collect::<Vec<_>>()),
        }
        self.watched.extend(numbers);
        let request = |number: &u8| WatchRequest {
            spk: spk(*number),
            label: None,
            depths: Vec::new(),
            baseline: Baseline::IfMissing,
        };
        let _ = self.apply(Input::WatchPart {
            scripts: numbers.iter().map(request).collect(),
            is_last,
            now: self.now,
        });
    }

    pub fn check_unfinished_add(&self) {
        let expected: BTreeSet<ScriptHash> = self.unfinished.iter().map(|n| script(*n)).collect();
        assert!(
            expected.iter().eq(self.view.adding.values().flatten()),
            "what is new in an add that is not finished is known to be"
        );
    }

    /// What a process does at its start: nothing is left of an add that the last one did not
    /// finish, and nobody is told of what nobody was told about.
    pub fn undo_unfinished_add(&mut self) {
        self.check_unfinished_add();
        let rows = self.view.watches.clone();
        let input = Input::Unwatch {
            scripts: self.view.adding.values().flatten().copied().collect(),
            now: self.now,
        };
        let transition = self.try_send(input).expect("it may always come");
        // A script that joins a descriptor may bring it news.
        let of_scripts = transition.events.iter();
        for event in of_scripts.filter(|event| event.kind.script().is_some()) {
            let EventKind::Unwatched { subject } = &event.kind else {
                panic!("{event:?}");
            };
            let script = script_of(subject);
            assert_ne!((rows[&script].tx_count, rows[&script].utxo_count), (0, 0));
        }
        for number in std::mem::take(&mut self.unfinished) {
            self.watched.remove(&number);
            let row = self.view.watches.get(&script(number));
            let is_derived = row.is_some_and(|row| !row.derivations.is_empty());
            assert!(row.is_none() || is_derived && row.is_some_and(|row| !row.listed));
        }
    }
}

#[test]
fn nothing_is_left_of_an_add_that_was_not_finished_but_what_others_added() {
    let mut world = World::new();
    world.watch(1, &[]);
    let payment = tx(&[coin(&world, 0)], &[(2, 700), (3, 5)]);
    let _ = world.accept(&payment);
    world.add_part(&[1, 2, 3], false);
    world.add_part(&[4, 5], false);
    // Somebody else adds one of them, and removes another.
    world.watch(3, &[]);
    world.forget(5);
    let _ = world.mine(9, &[]);
    world.check();
    let before = world.events.len();
    world.restart();
    world.forget_all();
    assert_eq!(world.watched, [1, 3].into());
    let told: Vec<_> = world.events[before..]
        .iter()
        .map(|event| &event.kind)
        .collect();
    assert!(
        matches!(&told[..], [EventKind::Unwatched { subject }] if script_of(subject) == script(2)),
        "of script 4 nobody was told anything: {told:?}"
    );
    assert_eq!(balance(&world, 3).unconfirmed, 5);
    world.check();
    world.kept().check_change_sets();
}

#[test]
fn the_last_part_of_an_add_makes_all_of_it_last() {
    let mut world = World::new();
    world.slow_scans = true;
    world.add_part(&[1, 2], false);
    assert!(world.view.watches[&script(1)].coverage.pending);
    world.add_part(&[3], true);
    world.restart();
    assert_eq!(world.watched, [1, 2, 3].into());
    world.check();
}

#[test]
fn a_seventeenth_depth_of_a_script_is_refused_and_nothing_of_the_input_is_done() {
    let mut world = World::new();
    let has: Vec<u8> = (1..=16).collect();
    let (first, second) = has.split_at(8);
    world.watch(1, first);
    world.watch(1, second);
    let requests = [2, 1].map(|number| WatchRequest {
        spk: spk(number),
        label: Some("shop".to_owned()),
        depths: vec![16, 17],
        baseline: Baseline::Skip,
    });
    let too_many = ApplyError::TooManyDepths {
        spk: Some(spk(1)),
        has: has.clone(),
        asked: vec![16, 17],
    };
    let (scripts, now) = (requests.to_vec(), 1);
    assert_eq!(world.refused(Input::Watch { scripts, now }), too_many);
    for is_last in [false, true] {
        let part = Input::WatchPart {
            scripts: requests.to_vec(),
            is_last,
            now,
        };
        assert_eq!(world.refused(part), too_many);
    }
    assert!(!world.view.watches.contains_key(&script(2)));
    assert!(world.view.adding.is_empty());
    world.watch(1, &has[3..9]);
    assert_eq!(world.view.watches[&script(1)].depths, has);
    world.check();
}
