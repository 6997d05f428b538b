//! Random lives with history scans: whatever the node did meanwhile, what a scan brings to light is
//! what watching from the first block on would have seen. After every operation the rows must agree
//! with the naive model (`laws.rs`); at the end also with a tracker that watched the same chain
//! from its first block on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bitcoin::{BlockHash, OutPoint, Txid};
use proptest::prelude::*;
use satwatch::tracker::{
    Balance, Baseline, Input, OutputRow, ScanEnd, ScriptHash, Status, WatchRequest,
};

use crate::operations::{Op, node_op, pick, run};
use crate::runner::Stretch;
use crate::world::{World, script, spk};

#[derive(Debug, Clone)]
pub enum Act {
    Live(Op),
    /// A script is added; `past`: whether its baseline is asked for.
    Add {
        number: u8,
        past: bool,
    },
    /// Of these scripts, from a height on that is this share of the chain.
    Open {
        numbers: Vec<u8>,
        from: Option<u8>,
        length: Option<u8>,
    },
    /// A stretch of one of the scans, and of those that are as far.
    Step {
        scan: u16,
        stretch: Stretch,
    },
    /// A stretch is read now and handed later.
    Read {
        scan: u16,
        stretch: Stretch,
    },
    Deliver,
    Skip {
        scan: u16,
        horizon: u8,
    },
    Cancel {
        scan: u16,
    },
    /// Said to be complete, which it may be or not.
    CloseEarly {
        scan: u16,
    },
    Grow {
        blocks: Vec<u16>,
    },
    /// `slowly`: what it leaves goes when [`Act::Forget`] says so.
    Remove {
        number: u8,
        slowly: bool,
    },
    /// Some of a large add.
    AddPart {
        numbers: Vec<u8>,
        is_last: bool,
    },
    /// One portion of the end of a scan, which may be complete or not.
    ClosePart {
        scan: u16,
    },
    Forget,
    /// For a tracker that hears late: so many of the news arrive, or are lost.
    Hear {
        count: u8,
        lost: bool,
    },
    /// Its chain catches up with the node's, and the baselines that wait are made.
    Follow {
        baselines: bool,
    },
}

fn stretch() -> impl Strategy<Value = Stretch> {
    (1u32..6, prop::bool::weighted(0.2)).prop_map(|(blocks, too_much)| Stretch { blocks, too_much })
}

/// While news come late.
fn late_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        20 => node_op(true).prop_map(Act::Live),
        1 => grow(),
        1 => Just(Act::Live(Op::Restart)),
        12 => scan_act(true),
        6 => (1u8..30, prop::bool::weighted(0.1)).prop_map(|(count, lost)| Act::Hear { count, lost }),
        4 => any::<bool>().prop_map(|baselines| Act::Follow { baselines }),
        4 => Just(Act::Live(Op::ScanPortion)),
    ]
}

/// `partial`: also scans that do not begin at the first block, or end early, or are cut short.
fn act(partial: bool) -> impl Strategy<Value = Act> {
    let live = prop_oneof![
        20 => node_op(true),
        1 => Just(Op::Scan),
        4 => Just(Op::ScanPortion),
        1 => Just(Op::Again),
        1 => Just(Op::Restart),
        1 => Just(Op::Snapshot),
        1 => (0u8..4).prop_map(|after| Op::Crash { after }),
    ];
    prop_oneof![10 => live.prop_map(Act::Live), 1 => grow(), 9 => scan_act(partial)]
}

/// Some blocks at once, so that there is something to scan.
fn grow() -> impl Strategy<Value = Act> {
    prop::collection::vec(any::<u16>(), 1..8).prop_map(|blocks| Act::Grow { blocks })
}

fn scan_act(partial: bool) -> BoxedStrategy<Act> {
    let share = || match partial {
        true => prop::option::weighted(0.7, any::<u8>()).boxed(),
        false => Just(None).boxed(),
    };
    let open = (prop::collection::vec(1u8..8, 1..5), share(), share());
    let numbers = 1u8..8;
    let whole = prop_oneof![
        2 => (numbers.clone(), prop::bool::weighted(0.8)).prop_map(|(number, past)| Act::Add { number, past }),
        2 => open.prop_map(|(numbers, from, length)| Act::Open { numbers, from, length }),
        10 => (any::<u16>(), stretch()).prop_map(|(scan, stretch)| Act::Step { scan, stretch }),
        2 => (any::<u16>(), stretch()).prop_map(|(scan, stretch)| Act::Read { scan, stretch }),
        2 => Just(Act::Deliver),
        1 => any::<u16>().prop_map(|scan| Act::CloseEarly { scan }),
        1 => any::<u16>().prop_map(|scan| Act::ClosePart { scan }),
        1 => (prop::collection::vec(1u8..8, 1..4), prop::bool::weighted(0.3))
            .prop_map(|(numbers, is_last)| Act::AddPart { numbers, is_last }),
        1 => (numbers, any::<bool>()).prop_map(|(number, slowly)| Act::Remove { number, slowly }),
        2 => Just(Act::Forget),
    ];
    let cut_short = prop_oneof![
        (any::<u16>(), any::<u8>()).prop_map(|(scan, horizon)| Act::Skip { scan, horizon }),
        any::<u16>().prop_map(|scan| Act::Cancel { scan }),
    ];
    match partial {
        true => prop_oneof![20 => whole, 1 => cut_short].boxed(),
        false => whole.boxed(),
    }
}

/// A life with scans.
pub struct Life {
    pub world: World,
    /// What was read and is not delivered yet.
    read: Vec<Input>,
}

impl Life {
    /// The node lives for a while before the daemon starts, which then knows the last `window`
    /// blocks.
    pub fn begin(before: &[Op], window: usize, slow: bool) -> Self {
        let mut world = World::before_the_start();
        world.late = Some(VecDeque::new());
        before
            .iter()
            .filter(|op| !matches!(op, Op::Reorg { .. }))
            .for_each(|op| run(&mut world, op));
        world.late = None;
        world.start(window);
        world.snapshot();
        world.slow_scans = slow;
        for number in [1, 2] {
            world.watch(number, &[1, 3]);
        }
        Self {
            world,
            read: Vec::new(),
        }
    }

    pub fn act(&mut self, act: &Act) {
        let world = &mut self.world;
        let open = world.open_scans();
        match act {
            Act::Live(op) => run(world, op),
            Act::Add { number, past } => add(world, *number, *past),
            Act::Open {
                numbers,
                from,
                length,
            } => {
                let height = world.tip().height;
                let from = from.map_or(0, |share| height * u32::from(share) / 255);
                let to = length.map(|share| from + (height - from) * u32::from(share) / 255);
                let _ = world.open_scan(numbers, from, to);
            }
            Act::Step { scan, stretch } => {
                let Some(scan) = pick(&open, *scan) else {
                    return;
                };
                match world.late {
                    None => drop(world.step_scan(scan, *stretch)),
                    // The runner reads a chain that is not the tracker's.
                    Some(_) => drop(
                        world
                            .next_step(scan, *stretch)
                            .map(|input| world.deliver(input)),
                    ),
                }
            }
            Act::Read { scan, stretch } => self
                .read
                .extend(pick(&open, *scan).and_then(|scan| world.next_step(scan, *stretch))),
            Act::Deliver => {
                if let Some(input) = self.read.pop() {
                    let _ = world.deliver(input);
                }
            }
            Act::Skip { scan, horizon } => {
                let Some(scan) = pick(&open, *scan) else {
                    return;
                };
                let horizon = world.tip().height * u32::from(*horizon) / 255;
                let _ = world.apply(Input::SkipPruned {
                    scans: vec![scan],
                    horizon,
                    now: world.now,
                });
                let again = world
                    .try_send(Input::SkipPruned {
                        scans: vec![scan],
                        horizon,
                        now: world.now,
                    })
                    .expect("it may come twice");
                assert!(again.changes.is_empty());
            }
            Act::Cancel { scan } => {
                let Some(scan) = pick(&open, *scan) else {
                    return;
                };
                let _ = world.deliver(Input::CloseScan {
                    scan,
                    end: ScanEnd::Cancelled(None),
                    now: world.now,
                });
            }
            Act::CloseEarly { scan } => {
                let Some(scan) = pick(&open, *scan) else {
                    return;
                };
                let end = ScanEnd::Complete(world.tip());
                let _ = world.deliver(Input::CloseScan {
                    scan,
                    end,
                    now: world.now,
                });
            }
            Act::Grow { blocks } => {
                for bits in blocks {
                    let txs = world.minable(*bits);
                    let _ = world.mine((bits % 9) as u8, &txs);
                }
            }
            Act::Remove {
                number,
                slowly: false,
            } => world.forget(*number),
            Act::Remove { number, .. } => world.begin_to_forget(*number),
            Act::Forget => world.forget_portion(),
            Act::AddPart { numbers, is_last } => world.add_part(numbers, *is_last),
            Act::ClosePart { scan } => {
                let Some(scan) = pick(&open, *scan) else {
                    return;
                };
                let (end, now) = (ScanEnd::Complete(world.tip()), world.now);
                let _ = world.try_send(Input::CloseScan { scan, end, now });
            }
            Act::Hear { count, lost } => world.hear(usize::from(*count), *lost),
            Act::Follow { baselines } => {
                world.follow();
                if *baselines {
                    world.scan_if_wanted();
                }
            }
        }
    }

    /// The tracker's chain is the node's from now on, and what it did not hear is read.
    fn catch_up(&mut self, lost: bool) {
        self.world.hear(usize::MAX, lost);
        self.world.follow();
        self.world.scan_if_wanted();
        self.world.read();
        self.world.late = None;
    }

    pub fn live(&mut self, acts: &[Act]) {
        for act in acts {
            self.act(act);
            self.world.check();
        }
    }

    /// Everything is caught up with, and every scan made.
    pub fn end(&mut self) {
        let world = &mut self.world;
        world.dies_after = None;
        world.restart();
        world.forget_all();
        world.finish_scans(Stretch {
            blocks: 3,
            too_much: false,
        });
        world.check();
    }
}

fn add(world: &mut World, number: u8, past: bool) {
    let baseline = if past {
        Baseline::IfMissing
    } else {
        Baseline::Skip
    };
    let request = WatchRequest {
        spk: spk(number),
        label: None,
        depths: vec![2],
        baseline,
    };
    world.forget_all();
    world.watched.insert(number);
    world.unfinished.remove(&number);
    let _ = world.send(Input::Watch {
        scripts: vec![request],
        now: world.now,
    });
}

/// What a script's rows say, without when anything was seen.
#[derive(Debug, PartialEq)]
struct Story {
    balance: Balance,
    utxo_count: u64,
    outputs: BTreeMap<OutPoint, OutputRow>,
    /// Those in a block or in the mempool, with what they move and their place.
    transactions: BTreeMap<Txid, (Status, u64, u64, u64)>,
    /// For each block.
    order: BTreeMap<u32, Vec<Txid>>,
}

fn story(world: &World, script: &ScriptHash) -> Story {
    let row = &world.view.watches[script];
    let outputs: BTreeMap<_, _> = world
        .view
        .outputs
        .iter()
        .filter(|(_, row)| row.script == *script)
        .map(|(outpoint, row)| (*outpoint, row.clone()))
        .collect();
    let mut transactions = BTreeMap::new();
    let mut dead = 0;
    for (txid, row) in &world.view.txs {
        let Some(touch) = row.touches.iter().find(|touch| touch.script == *script) else {
            continue;
        };
        let order = match row.status {
            Status::Confirmed { .. } => row.order,
            Status::Mempool => row.order >> 32,
            _ => {
                dead += 1;
                continue;
            }
        };
        transactions.insert(*txid, (row.status, order, touch.received, touch.sent));
    }
    assert_eq!(row.tx_count, transactions.len() as u64 + dead);
    let mine = |txids: &[Txid]| {
        txids
            .iter()
            .filter(|txid| transactions.contains_key(*txid))
            .copied()
            .collect::<Vec<_>>()
    };
    let order = world
        .view
        .blocks
        .iter()
        .map(|(height, block)| (*height, mine(&block.touched)))
        .filter(|(_, order)| !order.is_empty())
        .collect();
    Story {
        balance: row.balance,
        utxo_count: row.utxo_count,
        outputs,
        transactions,
        order,
    }
}

/// The same chain and mempool, followed from the first block on with all scripts watched.
fn reference(world: &World) -> World {
    let mut reference = World::new();
    for number in 1..8 {
        reference.watch(number, &[1]);
    }
    reference.chain = world.chain.clone();
    reference.follow();
    reference.mempool = world.mempool.clone();
    reference.read();
    reference
}

/// The scripts whose whole history a scan has brought.
fn whole(world: &World) -> BTreeSet<u8> {
    let is_whole = |number: &u8| world.view.watches[&script(*number)].coverage.from_height == 0;
    world.watched.iter().copied().filter(is_whole).collect()
}

fn check_reference(world: &World) {
    // What was overwritten by a block that went is known to those alone who saw it come.
    let is_there =
        |(hash, _): &(BlockHash, OutPoint)| world.chain.iter().any(|it| it.block_hash() == *hash);
    if world.overwritten.iter().any(is_there) {
        return;
    }
    let reference = reference(world);
    for number in whole(world) {
        assert_eq!(
            story(world, &script(number)),
            story(&reference, &script(number)),
            "the story of script {number}"
        );
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(node_op(false), 0..25)
}

proptest! {
    #[test]
    fn a_history_scan_brings_what_watching_from_the_first_block_would_have(
        before in ops(), window in 1usize..8, slow in any::<bool>(), acts in prop::collection::vec(act(false), 1..60),
    ) {
        let mut life = Life::begin(&before, window, slow);
        life.live(&acts);
        let _ = life.world.open_scan(&[1, 2, 3, 4, 5, 6, 7], 0, None);
        life.end();
        prop_assert_eq!(whole(&life.world).len(), 7, "every script's coverage reaches down to the first block");
        check_reference(&life.world);
        life.world.kept().check_change_sets();
    }

    #[test]
    fn what_scans_of_parts_bring_is_right_and_together_they_bring_everything(
        before in ops(), window in 1usize..8, slow in any::<bool>(), acts in prop::collection::vec(act(true), 1..60),
    ) {
        let mut life = Life::begin(&before, window, slow);
        life.live(&acts);
        life.end();
        check_reference(&life.world);
        life.world.kept().check_change_sets();
    }

    #[test]
    fn a_scan_that_reads_another_chain_than_the_trackers_is_refused_or_right(
        before in ops(), window in 1usize..8, acts in prop::collection::vec(late_act(), 1..60), lost in any::<bool>(),
    ) {
        let mut life = Life::begin(&before, window, true);
        life.world.late = Some(VecDeque::new());
        for act in &acts {
            life.act(act);
            life.world.check_memory();
        }
        life.catch_up(lost);
        life.world.check();
        let _ = life.world.open_scan(&[1, 2, 3, 4, 5, 6, 7], 0, None);
        life.end();
        prop_assert_eq!(whole(&life.world).len(), 7, "every script's coverage reaches down to the first block");
        check_reference(&life.world);
        life.world.kept().check_change_sets();
    }
}
