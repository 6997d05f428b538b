//! The outputs of a script that has very many come in portions: the balance moves with the last of
//! them, and with live payments meanwhile.

use std::collections::HashSet;

use bitcoin::Transaction;
use satwatch::tracker::{
    ApplyError, Balance, BlockId, ChangeSet, Event, FoundOutput, Input, Portion, ScriptHash,
    Staged, Status, Transition,
};

use crate::shorthand::{balance, coin, out, told};
use crate::world::{Heard, Merging, World, script, tx};

impl World {
    /// One more output of a script that waits for its outputs, if the tracker is at the node's tip.
    pub fn scan_portion(&mut self) {
        if self.view.tip() != Some(self.tip()) {
            return;
        }
        let is_ours = |world: &Self, height: u32, hash| {
            let block = world.chain.get(height as usize);
            block.is_some_and(|block| block.block_hash() == hash)
        };
        let waits = |number: &u8| self.view.watches[&script(*number)].coverage.pending;
        let begun = self.merging.take().filter(|merging| {
            let BlockId { height, hash } = merging.block;
            is_ours(self, height, hash) && waits(&merging.number)
        });
        let (merging, portion) = match begun {
            Some(merging) => (merging, Portion::Next),
            None => match self.watched.iter().copied().filter(waits).min() {
                Some(number) => {
                    let merging = Merging {
                        number,
                        block: self.tip(),
                        sent: HashSet::new(),
                        is_last: false,
                    };
                    (merging, Portion::First)
                }
                None => return,
            },
        };
        let _ = self.send_portion(merging, portion);
    }

    /// Sends one of the outputs that were not sent; all that are left of them, if that is one.
    fn send_portion(&mut self, mut merging: Merging, portion: Portion) -> Transition {
        let number = merging.number;
        let mut rest = self.found(&[script(number)]);
        rest.retain(|found| !merging.sent.contains(&found.outpoint));
        rest.sort_by_key(|found| found.outpoint);
        merging.is_last |= portion == Portion::Next && rest.len() <= 1;
        let portion = match portion {
            Portion::Next if merging.is_last => Portion::Last,
            portion => portion,
        };
        if !merging.is_last {
            rest.truncate(1);
            merging.sent.extend(rest.iter().map(|found| found.outpoint));
        }
        merging.block = self.tip();
        // Before it is sent: a process that dies of it begins anew.
        self.merging = Some(merging);
        let input = self.part(script(number), portion, rest);
        let transition = self.apply(input);
        let row = self.view.watches.get(&script(number));
        if row.is_none_or(|row| !row.coverage.pending) {
            self.merging = None;
        }
        transition
    }

    /// All that is left of a baseline of which the last portion has been sent.
    pub fn finish_last_portion(&mut self) {
        while self.merging.as_ref().is_some_and(|it| it.is_last) {
            self.scan_portion();
        }
    }

    fn part(&self, script: ScriptHash, portion: Portion, outputs: Vec<FoundOutput>) -> Input {
        Input::BaselinePart {
            block: self.tip(),
            script,
            portion,
            outputs,
            now: self.now,
        }
    }
}

/// Script 1 owns four outputs of 700 in one block, and waits for them.
fn waiting() -> World {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(1, 700); 4]);
    let _ = world.mine(9, &[payment]);
    world.slow_scans = true;
    world.watch(1, &[]);
    world
}

fn payment_of(world: &World) -> bitcoin::Transaction {
    world.chain[1].txdata[1].clone()
}

#[test]
fn the_balance_moves_once_for_a_baseline_in_portions_and_for_live_payments_meanwhile() {
    let mut world = waiting();
    let before = world.events.len();
    world.scan_portion();
    world.scan_portion();
    assert_eq!(balance(&world, 1), Balance::default());
    let staged = world.view.watches[&script(1)].coverage.staged;
    assert_eq!(staged.map(|staged| staged.utxo_count), Some(2));
    // It is paid, and what was found is spent, by a transaction that pays it too.
    let live = tx(&[coin(&world, 1)], &[(1, 50)]);
    let _ = world.accept(&live);
    let payment = payment_of(&world);
    for vout in 0..3 {
        let _ = world.accept(&tx(&[out(&payment, vout)], &[(1, 600)]));
    }
    world.check();
    let spend = world.mempool[1].clone();
    let _ = world.mine(9, &[live, spend]);
    world.check();
    while world.merging.is_some() {
        world.scan_portion();
        world.check();
    }
    let all: Vec<_> = told(&world.events[before..]);
    let balances: Vec<_> = all
        .iter()
        .filter(|told| told.starts_with("balance"))
        .collect();
    assert_eq!(
        balances,
        [
            "balance 0>50",
            "balance 50>650",
            "balance 650>1250",
            "balance 1250>1850",
            "balance 1850>2550"
        ],
    );
    assert!(!world.view.watches[&script(1)].coverage.pending);
}

#[test]
fn a_reorg_or_a_restart_between_two_portions_begins_anew_and_counts_nothing_twice() {
    let mut world = waiting();
    world.scan_portion();
    world.scan_portion();
    let _ = world.disconnect(1);
    world.check();
    let staged = world.view.watches[&script(1)].coverage.staged;
    assert_eq!(
        staged,
        Some(Staged::default()),
        "they went with their block"
    );
    let again = world.mempool.clone();
    let _ = world.mine(9, &again);
    world.check();
    world.scan_portion();
    world.restart();
    world.check();
    for _ in 0..4 {
        world.scan_portion();
    }
    assert_eq!(balance(&world, 1).confirmed, 2800);
    world.check();
    world.kept().check_change_sets();
}

#[test]
fn a_script_that_is_removed_and_added_again_is_not_whole_with_the_rest_of_its_portions() {
    let mut world = waiting();
    world.scan_portion();
    let sent = world.merging.clone().expect("there are more").sent;
    world.forget(1);
    world.watch(1, &[]);
    let mut rest = world.found(&[script(1)]);
    rest.retain(|found| !sent.contains(&found.outpoint));
    for portion in [Portion::Next, Portion::Last] {
        let input = world.part(script(1), portion, rest.clone());
        assert_eq!(world.refused(input), ApplyError::NotMerging(script(1)));
    }
    let input = world.part(script(2), Portion::Last, Vec::new());
    assert_eq!(world.refused(input), ApplyError::NotMerging(script(2)));
    world.scan();
    assert_eq!(balance(&world, 1).confirmed, 2800);
    world.check();
}

/// All that is left of a baseline in portions.
fn finish(world: &mut World) {
    world.scan_portion();
    while world.merging.is_some() {
        world.scan_portion();
        world.check();
    }
    assert!(!world.view.watches[&script(1)].coverage.pending);
}

/// What was told besides balances.
fn told_of_transactions(events: &[Event]) -> Vec<String> {
    let mut told = told(events);
    told.retain(|told| !told.starts_with("balance"));
    told
}

/// What a transaction is known to receive and send for script 1.
fn amounts(world: &World, tx: &Transaction) -> Option<(u64, u64)> {
    let row = world.view.txs.get(&tx.compute_txid())?;
    let touch = row.touches.iter().find(|it| it.script == script(1))?;
    Some((touch.received, touch.sent))
}

/// [`waiting`], while the mempool holds a transaction that spends all that it owns, and pays it 50
/// if `change`.
fn swept(change: bool) -> (World, Transaction) {
    let mut world = waiting();
    let payment = payment_of(&world);
    let spends: Vec<_> = (0..4).map(|vout| out(&payment, vout)).collect();
    let sweep = match change {
        true => tx(&spends, &[(1, 50)]),
        false => tx(&spends, &[(9, 50)]),
    };
    let _ = world.accept(&sweep);
    (world, sweep)
}

#[test]
fn who_spends_outputs_of_many_portions_is_told_once_with_all_that_it_spends() {
    let (mut world, sweep) = swept(false);
    let before = world.events.len();
    finish(&mut world);
    assert_eq!(told_of_transactions(&world.events[before..]), ["new 1"]);
    assert_eq!(amounts(&world, &sweep), Some((0, 2800)));
    assert_eq!(balance(&world, 1).total(), 0);
    // What it pays the script was known before.
    let (mut world, sweep) = swept(true);
    let before = world.events.len();
    finish(&mut world);
    let told = told_of_transactions(&world.events[before..]);
    assert_eq!(told, ["mempool>mempool 0"]);
    assert_eq!(amounts(&world, &sweep), Some((50, 2800)));
    assert_eq!(balance(&world, 1).total(), 50);
}

#[test]
fn who_comes_while_portions_do_is_told_with_the_last() {
    let mut world = waiting();
    let payment = payment_of(&world);
    world.scan_portion();
    world.scan_portion();
    let before = world.events.len();
    let first = tx(&[out(&payment, 0), out(&payment, 1)], &[(9, 50)]);
    let _ = world.accept(&first);
    let spends: Vec<_> = (0..3).map(|vout| out(&payment, vout)).collect();
    let second = tx(&spends, &[(9, 60)]);
    let _ = world.accept(&second);
    world.check();
    assert_eq!(told(&world.events[before..]), [""; 0]);
    finish(&mut world);
    assert_eq!(told_of_transactions(&world.events[before..]), ["new 1"]);
    assert_eq!(amounts(&world, &first), None, "it was replaced meanwhile");
    assert_eq!(amounts(&world, &second), Some((0, 2100)));
    assert_eq!(balance(&world, 1).total(), 700);
}

#[test]
fn what_a_block_spends_between_two_portions_is_as_if_it_had_been_spent_before() {
    let (mut world, sweep) = swept(true);
    world.scan_portion();
    world.scan_portion();
    let _ = world.mine(9, std::slice::from_ref(&sweep));
    world.check();
    finish(&mut world);
    let known = amounts(&world, &sweep);
    assert_eq!(known, Some((50, 0)), "no part of what it spends is told");
    assert_eq!(balance(&world, 1).confirmed, 50);
    // Its block goes: then all that it spends is found, and told.
    let _ = world.disconnect(1);
    world.check();
    world.scan();
    world.check();
    assert_eq!(amounts(&world, &sweep), Some((50, 2800)));
    assert_eq!(balance(&world, 1).total(), 50);
}

#[test]
fn what_came_in_a_portion_and_goes_back_to_the_mempool_is_matched_there() {
    let mut world = World::new();
    world.watch(2, &[]);
    let payment = tx(&[coin(&world, 0)], &[(1, 700), (2, 80), (1, 300)]);
    let _ = world.mine(9, std::slice::from_ref(&payment));
    world.slow_scans = true;
    world.watch(1, &[]);
    world.scan_portion();
    for vout in [0, 2] {
        let _ = world.accept(&tx(&[out(&payment, vout)], &[(9, 50)]));
    }
    let _ = world.disconnect(1);
    world.check();
    assert_eq!(balance(&world, 1), Balance::default());
}

#[test]
fn a_process_that_dies_between_two_portions_matches_what_came_before() {
    let (mut world, sweep) = swept(false);
    for _ in 0..3 {
        world.scan_portion();
    }
    world.restart();
    let before = world.events.len();
    world.slow_scans = false;
    world.scan();
    world.check();
    assert_eq!(told_of_transactions(&world.events[before..]), ["new 1"]);
    assert_eq!(amounts(&world, &sweep), Some((0, 2800)));
}

#[test]
fn who_was_told_before_the_portions_began_anew_is_told_what_becomes_of_it() {
    let (mut world, sweep) = swept(false);
    let payment = payment_of(&world);
    let status = |world: &World| Some(world.view.txs.get(&sweep.compute_txid())?.status);
    while status(&world).is_none() {
        world.scan_portion();
    }
    assert!(world.view.watches[&script(1)].coverage.pending);
    world.restart();
    world.scan_portion();
    let replacement = tx(&[out(&payment, 0)], &[(9, 60)]);
    let _ = world.accept(&replacement);
    assert!(matches!(status(&world), Some(Status::Replaced { .. })));
    let before = world.events.len();
    let _ = world.mine(9, std::slice::from_ref(&sweep));
    assert!(matches!(status(&world), Some(Status::Confirmed { .. })));
    let told = told_of_transactions(&world.events[before..]);
    assert_eq!(told, ["replaced>confirmed 1", "block"]);
    finish(&mut world);
    assert_eq!(balance(&world, 1), Balance::default());
}

#[test]
fn a_reorg_that_leads_back_to_the_same_block_ends_the_portions() {
    let mut world = waiting();
    world.scan_portion();
    let (_, stale) = world.disconnect_heard(1, Heard::Sequence);
    let _ = world.connect(stale[0].clone());
    let input = world.part(script(1), Portion::Next, Vec::new());
    assert_eq!(world.refused(input), ApplyError::NotMerging(script(1)));
}

#[test]
fn spenders_are_matched_a_few_at_a_time_before_anything_is_shown() {
    let mut world = World::new();
    let payment = tx(&[coin(&world, 0)], &[(1, 700); 12]);
    let _ = world.mine(9, std::slice::from_ref(&payment));
    world.slow_scans = true;
    world.watch(1, &[]);
    for vout in 0..12 {
        let _ = world.accept(&tx(&[out(&payment, vout)], &[(9, 300)]));
    }
    let before = world.past.len();
    finish(&mut world);
    let news = |(_, events): &(ChangeSet, Vec<Event>)| told_of_transactions(events).len();
    let told: Vec<usize> = world.past[before..].iter().map(news).collect();
    assert_eq!(told.iter().sum::<usize>(), 12);
    assert!(told.iter().all(|count| *count < 5), "{told:?} in one step");
    assert_eq!(balance(&world, 1).total(), 0);
}

#[test]
fn a_script_that_does_not_wait_is_refused_with_its_first_portion() {
    let mut world = waiting();
    world.forget(1);
    let input = world.part(script(1), Portion::First, Vec::new());
    assert_eq!(world.refused(input), ApplyError::NotMerging(script(1)));
    world.watch(1, &[]);
    world.scan();
    let input = world.part(script(1), Portion::First, Vec::new());
    assert_eq!(world.refused(input), ApplyError::NotMerging(script(1)));
}

#[test]
fn a_script_that_waited_in_a_folder_of_format_4_is_not_shown_in_portions() {
    for is_paid in [false, true] {
        let mut world = waiting();
        if is_paid {
            let payment = tx(&[coin(&world, 1)], &[(1, 50)]);
            let _ = world.accept(&payment);
        }
        let row = world
            .view
            .watches
            .get_mut(&script(1))
            .expect("it is watched");
        row.coverage.staged = None;
        let before = world.events.len();
        finish(&mut world);
        let told: Vec<_> = told(&world.events[before..])
            .into_iter()
            .filter(|told| told.starts_with("balance"))
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(balance(&world, 1).confirmed, 2800);
    }
}
