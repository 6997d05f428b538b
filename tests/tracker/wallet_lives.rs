//! Random lives with descriptors: the laws of the tracker's rows and events, and those of
//! descriptors, after every step; and nothing is left of what was removed.

use std::collections::VecDeque;

use proptest::prelude::*;
use satwatch::tracker::{Baseline, Input, Keychain};

use crate::arbitrary_descriptors::label;
use crate::operations::{Op, heard, node_op, op, pick, run};
use crate::pretended::descriptors::{KEYCHAINS, WALLETS, Wallet};
use crate::runner::Stretch;
use crate::world::{Heard, World};

#[derive(Debug, Clone)]
enum Act {
    Live(Op),
    Add {
        wallet: u8,
        gap_limit: u32,
        baseline: Baseline,
    },
    /// Derived scripts, and joins, take their time from now on, or do not.
    Slow {
        derive: bool,
        joins: bool,
    },
    Derive,
    Join,
    /// To scripts of wallets.
    Pay {
        inputs: Vec<u16>,
        to: Vec<u8>,
        heard: Heard,
    },
    Reserve {
        wallet: u8,
        keychain: Keychain,
    },
    Remove {
        wallet: u8,
        slowly: bool,
    },
    Label {
        is_wallet: bool,
        number: u8,
        label: u8,
    },
    Forget,
    /// The node cannot tell what one of the scripts that wait owns.
    LeaveOut(u16),
    Unwatch {
        number: u8,
        slowly: bool,
    },
    AddPart {
        numbers: Vec<u8>,
        is_last: bool,
    },
    OpenScan {
        numbers: Vec<u8>,
    },
    StepScan {
        scan: u16,
        stretch: Stretch,
    },
}

fn wallet() -> impl Strategy<Value = u8> {
    1u8..4
}

fn of_wallets() -> impl Strategy<Value = Act> {
    let baseline = prop_oneof![8 => Just(Baseline::IfMissing), 1 => Just(Baseline::Refresh), 1 => Just(Baseline::Skip)];
    let keychain = prop_oneof![Just(KEYCHAINS[0]), Just(KEYCHAINS[1])];
    prop_oneof![
        6 => (wallet(), 1u32..4, baseline).prop_map(|(wallet, gap_limit, baseline)| Act::Add { wallet, gap_limit, baseline }),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(derive, joins)| Act::Slow { derive, joins }),
        4 => Just(Act::Derive),
        4 => Just(Act::Join),
        8 => (prop::collection::vec(any::<u16>(), 1..4), prop::collection::vec(WALLETS, 1..4), heard(true))
            .prop_map(|(inputs, to, heard)| Act::Pay { inputs, to, heard }),
        2 => (wallet(), keychain).prop_map(|(wallet, keychain)| Act::Reserve { wallet, keychain }),
        2 => (wallet(), any::<bool>()).prop_map(|(wallet, slowly)| Act::Remove { wallet, slowly }),
        1 => (any::<bool>(), 1u8..8, 0u8..4).prop_map(|(is_wallet, number, label)| Act::Label { is_wallet, number, label }),
        3 => Just(Act::Forget),
        3 => any::<u16>().prop_map(Act::LeaveOut),
        1 => (1u8..8, any::<bool>()).prop_map(|(number, slowly)| Act::Unwatch { number, slowly }),
        1 => (prop::collection::vec(1u8..8, 1..4), any::<bool>()).prop_map(|(numbers, is_last)| Act::AddPart { numbers, is_last }),
        1 => prop::collection::vec(1u8..8, 1..4).prop_map(|numbers| Act::OpenScan { numbers }),
        2 => (any::<u16>(), 1u32..6, any::<bool>()).prop_map(|(scan, blocks, too_much)| Act::StepScan { scan, stretch: Stretch { blocks, too_much } }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![3 => op().prop_map(Act::Live), 2 => of_wallets()]
}

fn act_on(world: &mut World, act: &Act) {
    match act {
        Act::Live(op) => run(world, op),
        Act::Add {
            wallet,
            gap_limit,
            baseline,
        } => drop(world.add_wallet(Wallet(*wallet), *gap_limit, *baseline)),
        Act::Slow { derive, joins } => {
            (world.slow_derive, world.slow_joins) = (*derive, *joins);
        }
        Act::Pay { inputs, to, heard } => {
            let (inputs, to, heard) = (inputs.clone(), to.clone(), *heard);
            let zero = false;
            run(
                world,
                &Op::Pay {
                    inputs,
                    to,
                    zero,
                    heard,
                },
            );
        }
        Act::Derive => _ = world.derive_portion(),
        Act::Join => drop(world.join()),
        Act::Reserve { wallet, keychain } => {
            if world.wallets.contains(&Wallet(*wallet)) {
                let _ = world.reserve(Wallet(*wallet), *keychain);
            }
        }
        Act::Remove { wallet, slowly } => world.remove_wallet(Wallet(*wallet), *slowly),
        Act::Label {
            is_wallet,
            number,
            label: text,
        } => world.label(*is_wallet, *number, &label(*text)),
        Act::Forget => world.forget_portion(),
        Act::LeaveOut(index) => {
            let watches = world.view.watches.iter();
            let pending = watches.filter(|(_, row)| row.coverage.pending);
            let pending: Vec<_> = pending.map(|(script, _)| *script).collect();
            if let Some(script) = pick(&pending, *index) {
                let now = world.now;
                // What has come of it goes.
                world
                    .merging
                    .take_if(|it| crate::world::script(it.number) == script);
                let _ = world.apply(Input::LeaveOut { script, now });
            }
        }
        Act::Unwatch {
            number,
            slowly: true,
        } => world.begin_to_forget(*number),
        Act::Unwatch { number, .. } => world.forget(*number),
        Act::AddPart { numbers, is_last } => world.add_part(numbers, *is_last),
        Act::OpenScan { numbers } => drop(world.open_scan(numbers, 0, None)),
        Act::StepScan { scan, stretch } => {
            if let Some(scan) = pick(&world.open_scans(), *scan) {
                world.step_scan(scan, *stretch);
            }
        }
    }
}

/// All that descriptors wait for is done.
fn settle_wallets(world: &mut World) {
    (world.slow_derive, world.slow_joins) = (false, false);
    world.forget_all();
    while world.tracker.has_to_join() {
        let _ = world.join();
    }
    world.derive();
    if !world.slow_scans {
        world.scan();
    }
}

/// All that waits is done.
fn settle(world: &mut World) {
    world.dies_after = None;
    world.slow_scans = false;
    world.restart();
    settle_wallets(world);
    world.check();
    for wallet in &world.wallets {
        let row = world.row(*wallet);
        assert!(
            !row.is_pending() && row.awaited == 0 && row.held.is_none(),
            "with everything settled nothing of {wallet:?} is awaited: {row:?}"
        );
    }
    assert!(world.view.joining.is_empty() && world.view.leaving.is_empty());
}

fn begin() -> World {
    let mut world = World::new();
    for number in [1, 3] {
        world.watch(number, &[1, 3]);
    }
    world
}

proptest! {
    #[test]
    fn descriptors_say_what_the_node_knows_of_their_scripts(acts in prop::collection::vec(act(), 1..60)) {
        let mut world = begin();
        for act in &acts {
            act_on(&mut world, act);
            world.check();
        }
        settle(&mut world);
        world.kept().check_change_sets();
    }

    #[test]
    fn one_reading_of_the_mempool_mends_descriptors_too(
        acts in prop::collection::vec(act(), 1..30), late in prop::collection::vec((node_op(true), 0u8..9), 1..30), lost in any::<bool>(),
    ) {
        let mut world = begin();
        acts.iter().filter(|act| !matches!(act, Act::Live(Op::Crash { .. }))).for_each(|act| act_on(&mut world, act));
        settle(&mut world);
        world.slow_scans = true;
        world.late = Some(VecDeque::new());
        for (op, count) in &late {
            run(&mut world, op);
            world.hear(usize::from(*count), false);
        }
        world.hear(usize::MAX, lost);
        world.follow();
        world.slow_scans = false;
        world.scan();
        world.read();
        world.late = None;
        settle(&mut world);
    }

    #[test]
    fn a_restart_at_any_commit_goes_on_with_descriptors_as_if_nothing_had_happened(
        before in prop::collection::vec(act(), 1..30), after in prop::collection::vec(node_op(true), 1..12),
    ) {
        let mut world = begin();
        before.iter().filter(|act| !matches!(act, Act::Live(Op::Crash { .. }) | Act::AddPart { .. })).for_each(|act| act_on(&mut world, act));
        world.finish_last_portion();
        settle_wallets(&mut world);
        let mut twin = world.restarted_twin();
        for op in &after {
            prop_assert_eq!(&world.view, &twin.view);
            prop_assert_eq!(&world.events, &twin.events);
            run(&mut world, op);
            run(&mut twin, op);
        }
        prop_assert_eq!(&world.view, &twin.view);
        prop_assert_eq!(&world.events, &twin.events);
    }
}
