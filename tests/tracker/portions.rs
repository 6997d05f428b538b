//! The outputs of a script that has very many come in portions: the balance moves with the last of
//! them, and with live payments meanwhile.

use std::collections::HashSet;

use bitcoin::OutPoint;
use satwatch::tracker::{
    ApplyError, Balance, FoundOutput, Input, Portion, ScriptHash, Staged, Transition,
};

use crate::shorthand::{balance, coin, out, told};
use crate::world::{World, script, tx};

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
        let merging = self.merging.take();
        let waits = |number: &u8| self.view.watches[&script(*number)].coverage.pending;
        let merging = merging
            .filter(|(number, block, _)| is_ours(self, block.height, block.hash) && waits(number));
        let first = || self.watched.iter().copied().filter(waits).min();
        let (number, portion, sent) = match merging {
            Some((number, _, sent)) => (number, Portion::Next, sent),
            None => match first() {
                Some(number) => (number, Portion::First, HashSet::new()),
                None => return,
            },
        };
        let _ = self.send_portion(number, portion, sent);
    }

    /// Sends one of the outputs that were not sent; all that are left of them, if that is one.
    fn send_portion(
        &mut self,
        number: u8,
        portion: Portion,
        mut sent: HashSet<OutPoint>,
    ) -> Transition {
        let mut rest = self.found(&[script(number)]);
        rest.retain(|found| !sent.contains(&found.outpoint));
        rest.sort_by_key(|found| found.outpoint);
        let portion = match portion {
            Portion::Next if rest.len() <= 1 => Portion::Last,
            portion => portion,
        };
        rest.truncate(1);
        sent.extend(rest.iter().map(|found| found.outpoint));
        // Before it is sent: a process that dies of it begins anew.
        self.merging = Some((number, self.tip(), sent));
        let input = self.part(script(number), portion, rest);
        let transition = self.apply(input);
        let row = self.view.watches.get(&script(number));
        if row.is_none_or(|row| !row.coverage.pending) {
            self.merging = None;
        }
        transition
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
    let (_, _, sent) = world.merging.clone().expect("there are more");
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
