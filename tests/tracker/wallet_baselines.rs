//! Named lives of descriptors whose scripts own more than is told at once, or than the node can
//! tell; and uses that are taken back.

use std::sync::Arc;

use satwatch::tracker::{
    Baseline, DescriptorRow, Event, EventKind, Input, Keychain, Portion, ScanEnd, ScanId,
    ScriptHash, SubjectId, Transition, WatchRequest,
};

use crate::pretended::descriptors::Wallet;
use crate::shorthand::{coin, told};
use crate::world::{World, tx};

const A: Wallet = Wallet(1);
const B: Wallet = Wallet(2);
const EXTERNAL: Keychain = Keychain::External;

/// What a descriptor hears of its balance.
fn balances(events: &[Event], wallet: Wallet) -> Vec<String> {
    let subject = Some(SubjectId::Descriptor(wallet.id()));
    let of_wallet = events.iter().filter(|it| it.kind.subject_id() == subject);
    let mut told = told(&of_wallet.cloned().collect::<Vec<_>>());
    told.retain(|it| it.starts_with("balance"));
    told
}

impl World {
    /// Somebody pays so many times 700 to an external script of the first wallet.
    fn pay_wallet(&mut self, vout: u32, index: u32, count: usize, is_mined: bool) {
        let mut payment = tx(&[coin(self, vout)], &vec![(9, 700); count]);
        for output in &mut payment.output {
            output.script_pubkey = A.spk(EXTERNAL, index);
        }
        match is_mined {
            true => drop(self.mine(9, &[payment])),
            false => drop(self.accept(&payment)),
        }
    }

    fn portion(&mut self, portion: Portion, script: ScriptHash, some: std::ops::Range<usize>) {
        let found = self.found(&[script]);
        let _ = self.apply(Input::BaselinePart {
            block: self.tip(),
            script,
            portion,
            outputs: found.get(some).unwrap_or_default().to_vec(),
            now: self.now,
        });
        self.check();
    }

    /// All but these, which the node cannot tell.
    fn scan_without(&mut self, script: ScriptHash) {
        let watches = self.view.watches.iter();
        let pending = watches.filter(|(it, row)| row.coverage.pending && **it != script);
        let scripts: Vec<ScriptHash> = pending.map(|(script, _)| *script).collect();
        let outputs = self.found(&scripts);
        let _ = self.apply(Input::Baseline {
            block: self.tip(),
            scripts,
            outputs,
            now: self.now,
        });
        self.check();
    }

    fn leave_out(&mut self, script: ScriptHash) -> Transition {
        let now = self.now;
        let left = self.apply(Input::LeaveOut { script, now });
        self.check();
        left
    }
}

/// The script is one that was derived after a use, or one of the first that another wallet's
/// baseline has made whole.
#[test]
fn outputs_that_come_in_portions_move_the_balance_of_a_wallet_once() {
    for dies in [false, true] {
        let mut world = World::new();
        world.pay_wallet(0, 10, 4, true);
        let _ = world.add_wallet(A, 3, Baseline::IfMissing);
        world.slow_scans = true;
        world.pay_wallet(1, 4, 1, true);
        let script = A.script(EXTERNAL, 10);
        let row = world.row(A);
        assert!(row.keychains[0].first <= 10 && row.keychains[0].derived > 10);
        assert!(!row.is_pending() && world.view.watches[&script].coverage.pending);
        let before = world.events.len();
        world.portion(Portion::First, script, 0..0);
        world.portion(Portion::Next, script, 0..2);
        if dies {
            world.restart();
            world.pay_wallet(2, 0, 1, false);
            world.portion(Portion::First, script, 0..0);
            world.portion(Portion::Next, script, 0..2);
        } else {
            world.pay_wallet(2, 0, 1, false);
        }
        world.portion(Portion::Next, script, 2..3);
        while world.view.watches[&script].coverage.pending {
            assert!(world.row(A).is_pending());
            world.portion(Portion::Last, script, 3..4);
        }
        assert_eq!(balances(&world.events[before..], A), ["balance 700>4200"]);
        // The window reaches scripts that have not been asked about yet.
        assert!(world.row(A).is_pending() && world.row(A).held.is_none());
        world.slow_scans = false;
        world.scan();
        assert!(!world.row(A).is_pending());
        world.kept().check_change_sets();
    }
}

#[test]
fn a_wallet_goes_on_without_a_script_whose_outputs_cannot_be_told() {
    let mut world = World::new();
    world.pay_wallet(0, 2, 3, true);
    world.pay_wallet(1, 1, 1, true);
    world.slow_scans = true;
    let _ = world.add_wallet(A, 3, Baseline::IfMissing);
    let bad = A.script(EXTERNAL, 2);
    world.scan_without(bad);
    let before = world.events.len();
    assert!(world.row(A).is_pending() && world.told_of(A).total() == 0);
    let left = world.leave_out(bad);
    assert!(!left.changes.is_empty());
    assert_eq!(balances(&left.events, A), ["balance 0>700"]);
    assert!(world.leave_out(bad).changes.is_empty(), "once");
    let whole = |row: &DescriptorRow| (row.is_pending(), row.keychains[0].watched_to);
    assert_eq!(whole(world.row(A)), (false, 6), "the window");
    assert_eq!(world.row(A).keychains[0].next_index(), 3, "it is used");
    assert_eq!(world.row(A).left_out, [A.place(EXTERNAL, 2)]);

    // Another wallet that has it does not wait for it either.
    let _ = world.add_wallet(B, 3, Baseline::IfMissing);
    world.scan_without(bad);
    assert_eq!(whole(world.row(B)), (false, 5));
    assert_eq!(world.row(B).keychains[0].next_index(), 2);
    assert_eq!(world.row(B).left_out, [B.place(EXTERNAL, 1)]);
    world.restart();
    world.check();

    // What it is paid from now on counts; and the past does when it is known after all.
    world.pay_wallet(2, 2, 1, true);
    assert_eq!(
        balances(&world.events[before..], A).last().unwrap(),
        "balance 700>1400"
    );
    world.scan();
    world.check();
    for wallet in [A, B] {
        assert!(world.row(wallet).left_out.is_empty());
        assert_eq!(world.row(wallet).awaited, 0);
    }
    assert_eq!(world.told_of(A).total(), 3500);
    assert_eq!(world.told_of(B).total(), 2800);
    world.kept().check_change_sets();
}

#[test]
fn a_script_that_was_left_out_may_come_after_all() {
    let mut world = World::new();
    world.pay_wallet(0, 2, 3, true);
    world.slow_scans = true;
    let _ = world.add_wallet(A, 3, Baseline::IfMissing);
    let bad = A.script(EXTERNAL, 2);
    world.scan_without(bad);
    let _ = world.leave_out(bad);
    let before = world.events.len();
    world.portion(Portion::First, bad, 0..0);
    world.portion(Portion::Next, bad, 0..2);
    assert!(world.row(A).is_pending() && world.row(A).left_out.is_empty());
    while world.view.watches[&bad].coverage.pending {
        world.portion(Portion::Last, bad, 2..3);
    }
    assert_eq!(balances(&world.events[before..], A), ["balance 0>2100"]);
    assert_eq!(world.row(A).awaited, 0);
}

/// As when it is paid between two scans, of which the second began anew after a reorg or a restart.
#[test]
fn what_has_come_of_a_script_that_is_left_out_then_goes_in_portions_and_its_wallet_goes_on() {
    for dies in [false, true] {
        let mut world = World::new();
        world.pay_wallet(0, 2, 5, true);
        world.pay_wallet(1, 1, 1, true);
        world.slow_scans = true;
        let _ = world.add_wallet(A, 3, Baseline::IfMissing);
        let bad = A.script(EXTERNAL, 2);
        world.scan_without(bad);
        let before = world.events.len();
        world.portion(Portion::First, bad, 0..0);
        world.portion(Portion::Next, bad, 0..4);
        world.pay_wallet(2, 2, 1, true);
        world.tracker = world.loaded().in_portions_of(2);
        let _ = world.leave_out(bad);
        assert!(world.row(A).is_pending() && world.row(A).left_out.is_empty());
        if dies {
            world.restart();
        }
        let mut portions = 0..4;
        while world.view.watches[&bad].coverage.in_portions && portions.next().is_some() {
            let _ = world.leave_out(bad);
        }
        assert_eq!(balances(&world.events[before..], A), ["balance 0>1400"]);
        assert!(!world.row(A).is_pending() && world.row(A).awaited == 0);
        assert_eq!(world.row(A).left_out, [A.place(EXTERNAL, 2)]);
        let of_script = world.view.outputs.values().filter(|row| row.script == bad);
        assert_eq!(of_script.count(), 1, "what it was paid since is known");
        world.scan();
        world.check();
        assert_eq!(world.told_of(A).total(), 6 * 700 + 700);
        world.kept().check_change_sets();
    }
}

/// Of the script itself and of its wallet.
#[test]
fn a_history_scan_says_from_where_on_the_history_of_what_was_left_out_is_whole() {
    let mut world = World::new();
    world.pay_wallet(0, 2, 3, true);
    world.slow_scans = true;
    let _ = world.add_wallet(A, 3, Baseline::IfMissing);
    let bad = A.script(EXTERNAL, 2);
    let request = WatchRequest {
        spk: A.spk(EXTERNAL, 2),
        label: None,
        depths: Vec::new(),
        baseline: Baseline::IfMissing,
    };
    let (scan, now, upto) = (ScanId(1), world.now, world.tip());
    let _ = world.apply(Input::Watch {
        scripts: vec![request],
        now,
    });
    world.scan_without(bad);
    let _ = world.leave_out(bad);
    // Its window has brought more.
    world.scan_without(bad);
    let _ = world.apply(Input::OpenDescriptorScan {
        scan,
        descriptor: A.id(),
        from: 0,
        to: None,
        now,
    });
    while !world.apply(Input::EnterScan { scan }).changes.is_empty() {}
    let _ = world.apply(Input::ScanBlocks {
        scans: vec![scan],
        scripts: vec![Arc::default()],
        first: 0,
        blocks: Vec::new(),
        upto,
        now,
    });
    let end = ScanEnd::Complete(upto);
    let mut told = Vec::new();
    while let Ok(ended) = world.try_send(Input::CloseScan { scan, end, now }) {
        told.extend(ended.events.into_iter().map(|event| match event.kind {
            EventKind::ScanComplete { from, to, .. } => (from, to),
            kind => panic!("{kind:?}"),
        }));
    }
    let nothing = (upto.height + 1, upto.height);
    assert_eq!(told, [nothing, nothing]);
}

#[test]
fn an_index_whose_use_a_reorg_takes_back_is_given_to_nobody() {
    let mut world = World::new();
    let _ = world.add_wallet(A, 3, Baseline::IfMissing);
    // The coinbase goes with its block.
    let _ = world.mine(4, &[]);
    assert_eq!(world.row(A).keychains[0].last_used, Some(2));
    let _ = world.disconnect(1);
    world.check();
    let row = world.row(A).keychains[0];
    assert_eq!((row.last_used, row.next_index()), (None, 3));
    assert_eq!(world.reserve(A, EXTERNAL), Some(3));
    world.check();
}
