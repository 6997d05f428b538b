//! Scripts that are forgotten: afterwards the rows are as if they had never been watched.

use satwatch::tracker::{Balance, EventKind, Input, MemoryView, ScanState, ScriptHash, Seen, View};

use crate::runner::Stretch;
use crate::told::{coin, out, told};
use crate::world::{World, script, tx};

/// The rows without a script, as somebody would make them who knows nothing of how the tracker does
/// it.
fn without(view: &MemoryView, script: &ScriptHash) -> MemoryView {
    let mut view = view.clone();
    view.watches.remove(script);
    view.outputs.retain(|_, row| row.script != *script);
    for row in view.txs.values_mut() {
        row.touches.retain(|touch| touch.script != *script);
    }
    view.txs.retain(|_, row| !row.touches.is_empty());
    for scan in view.scans_of(script).unwrap() {
        view.scan_scripts.remove(&(scan, *script));
        let left = view.scan_scripts(&scan).unwrap();
        let row = view
            .scans
            .get_mut(&scan)
            .expect("a scan with scripts has a row");
        row.scripts -= 1;
        if left.is_empty() {
            row.state = ScanState::Cancelled;
        }
    }
    view
}

impl World {
    pub fn forget(&mut self, number: u8) {
        let gone = script(number);
        let expected = without(&self.view, &gone);
        let was_watched = self.watched.remove(&number);
        let transition = self
            .try_send(Input::Unwatch {
                scripts: vec![gone],
                now: self.now,
            })
            .expect("it may always come");
        assert_eq!(
            self.view, expected,
            "only what the script made matter is gone"
        );
        let told: Vec<_> = transition
            .events
            .iter()
            .map(
                |event| matches!(event.kind, EventKind::Unwatched { script, .. } if script == gone),
            )
            .collect();
        assert_eq!(
            told,
            vec![true; usize::from(was_watched)],
            "it is told once, and nothing else is"
        );
        self.check_memory();
        let again = self
            .try_send(Input::Unwatch {
                scripts: vec![gone],
                now: self.now,
            })
            .expect("it may always come");
        assert!(again.changes.is_empty() && again.events.is_empty() && again.asks.is_empty());
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
        tx: payment,
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
