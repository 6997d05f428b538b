//! What happens in a life, drawn from a seed. Removing any part of a script leaves a script.

use crate::pretended::descriptors::WALLETS;
use crate::random::Random;

#[derive(Debug, Clone)]
pub struct Script {
    /// Also decides what is chosen while the life is lived: which of the things that are ready
    /// comes first, where a batch ends.
    pub seed: u64,
    pub wiring: Wiring,
    pub weather: Weather,
    pub store: Store,
    /// Blocks before the process starts for the first time, with payments to the scripts that are
    /// watched then and later.
    pub past: u8,
    pub steps: Vec<Step>,
}

/// Where the node publishes what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// Everything at one address, so in order.
    Shared,
    /// Each topic at its own address.
    Apart,
    NoSequence,
    NoBlocks,
    /// No ZMQ at all.
    Nothing,
    /// At one address, which the settings name and the node does not list.
    Hinted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Nothing is lost and nobody dies; everything is heard within moments, and there is time
    /// between two things that the node does. Then the story that is told is exact.
    Calm,
    Rough,
    /// Rough, with many history scans, and reorgs below where they are.
    Scans,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    Memory,
    /// RocksDB, with the event log and its readers.
    Disk,
}

#[derive(Debug, Clone)]
pub enum Step {
    /// So many milliseconds.
    Pass(u64),

    // What the node does.
    Pay {
        inputs: Vec<u16>,
        to: Vec<u8>,
    },
    Replace {
        victims: Vec<u16>,
        to: u8,
    },
    Evict {
        victim: u16,
    },
    /// A transaction that left comes back, if its inputs allow it.
    Return {
        index: u16,
    },
    /// Those of the mempool whose bit is set; perhaps with a double spend of another one.
    Mine {
        bits: u16,
        double_spend: Option<(u16, u8)>,
        to: u8,
    },
    /// Another branch, longer by so many blocks.
    Reorg {
        depth: u8,
        longer: u8,
        bits: u16,
        same_coinbases: bool,
    },
    /// `invalidateblock`.
    Rollback {
        depth: u8,
    },
    /// `reconsiderblock`: those that were rolled back last, if nothing came since.
    Reconsider,
    /// The chain state is built again from this share of the chain, which takes so long.
    Rebuild {
        share: u8,
        ms: u64,
    },
    /// It throws away this part of the blocks that we have, or of all, which is our end if we
    /// have not come so far.
    Prune {
        share: u8,
        is_careless: bool,
    },
    RestartNode {
        ms: u64,
        keeps_mempool: bool,
    },

    // The way to us.
    /// What is published of this topic from now on comes so much later.
    Late {
        topic: u8,
        ms: u64,
    },
    Lose {
        topic: u8,
        count: u8,
    },
    Double {
        topic: u8,
    },
    /// A connection breaks, for so long.
    Cut {
        link: u8,
        ms: u64,
    },
    /// The node takes so long for each question, and the answer as long again.
    SlowCalls {
        ms: u64,
    },
    FailCalls {
        count: u8,
    },

    // What we do.
    Watch {
        number: u8,
    },
    Unwatch {
        number: u8,
    },
    AddWallet {
        wallet: u8,
        gap_limit: u8,
    },
    RemoveWallet {
        wallet: u8,
    },
    /// An address of a wallet is given to somebody.
    Reserve {
        wallet: u8,
        is_change: bool,
    },
    /// The history of the scripts whose bit is set, from this part of the chain on, up to this part
    /// of the rest.
    Scan {
        bits: u8,
        from: u8,
        to: Option<u8>,
    },
    /// One of the open ones.
    CancelScan {
        index: u16,
    },
    Monitoring(bool),
    /// The follower's task gets no time.
    Stall {
        ms: u64,
    },
    /// So many of the tracker's questions find the queue full.
    DropAsks {
        count: u8,
    },
    /// The process dies at a commit. `loses`: with the machine's power, and so with up to that many
    /// of the commits that were not synced.
    Die {
        after: u8,
        loses: Option<u8>,
        ms: u64,
    },

    // Who reads. Only lives on the disk have readers.
    Join {
        topics: u8,
    },
    Read {
        reader: u8,
        count: u8,
    },
    /// It vanishes; perhaps it comes back where it was.
    Leave {
        reader: u8,
        comes_back: bool,
    },
}

impl Script {
    pub fn draw(seed: u64, weather: Weather, store: Store) -> Self {
        let mut random = Random::of(seed);
        let wiring = match (random.below(12), weather) {
            (0..=4, _) => Wiring::Shared,
            (5..=7, _) | (_, Weather::Calm) => Wiring::Apart,
            (8, _) => Wiring::NoSequence,
            (9, _) => Wiring::NoBlocks,
            (10, _) => Wiring::Nothing,
            (_, _) => Wiring::Hinted,
        };
        let past = match random.below(2) {
            0 if weather != Weather::Scans => 0,
            _ => random.within(1, 12) as u8,
        };
        let count = random.within(3, 40);
        let mut steps = Vec::new();
        for _ in 0..count {
            match weather {
                Weather::Calm => {
                    steps.push(calm_step(&mut random));
                    steps.push(Step::Pass(random.within(2500, 6000)));
                }
                Weather::Rough => {
                    steps.push(rough_step(&mut random));
                    steps.push(Step::Pass(pause(&mut random)));
                }
                Weather::Scans => match random.below(3) {
                    0 => steps.extend(overtaken_scans(&mut random)),
                    1 => steps.push(node_step(&mut random)),
                    _ => {
                        steps.push(rough_step(&mut random));
                        steps.push(Step::Pass(pause(&mut random)));
                    }
                },
            }
            if store == Store::Disk && random.once_in(2) {
                steps.push(reading(&mut random));
            }
        }
        Self {
            seed,
            wiring,
            weather,
            store,
            past,
            steps,
        }
    }
}

fn pause(random: &mut Random) -> u64 {
    match random.below(10) {
        0..=4 => random.below(30),
        5..=7 => random.below(400),
        8 => random.below(3000),
        _ => random.below(20_000),
    }
}

fn several(random: &mut Random, most: u64) -> Vec<u16> {
    let count = random.within(1, most);
    (0..count).map(|_| random.next() as u16).collect()
}

fn number(random: &mut Random) -> u8 {
    random.within(1, 7) as u8
}

/// One of the scripts with a small number, or of a wallet's first ones.
fn payee(drawn: u16) -> u8 {
    let (place, is_of_wallet) = (drawn / 2, drawn % 2 == 1);
    match is_of_wallet {
        true => WALLETS.start() + (place % 96) as u8,
        false => (place % 9) as u8,
    }
}

fn node_step(random: &mut Random) -> Step {
    let index = random.next() as u16;
    match random.below(20) {
        0..=6 => Step::Pay {
            inputs: several(random, 3),
            to: several(random, 4).into_iter().map(payee).collect(),
        },
        7..=9 => Step::Replace {
            victims: several(random, 2),
            to: number(random),
        },
        10 => Step::Evict { victim: index },
        11 => Step::Return { index },
        12..=16 => Step::Mine {
            bits: random.next() as u16,
            double_spend: random
                .once_in(4)
                .then(|| (random.next() as u16, number(random))),
            to: random.within(1, 9) as u8,
        },
        _ => Step::Reorg {
            depth: match random.below(4) {
                0 => random.next() as u8,
                _ => random.within(1, 3) as u8,
            },
            longer: random.below(3) as u8,
            bits: random.next() as u16,
            same_coinbases: random.once_in(4),
        },
    }
}

fn calm_step(random: &mut Random) -> Step {
    match random.below(14) {
        0 => Step::Late {
            topic: random.below(3) as u8,
            ms: random.below(40),
        },
        // A block may follow its transactions, and what it conflicts with, so late.
        1 => Step::Late {
            topic: 1,
            ms: random.below(700),
        },
        2 => Step::SlowCalls {
            ms: random.below(15),
        },
        3..=4 => scan_step(random),
        5 => wallet_step(random),
        _ => node_step(random),
    }
}

fn rough_step(random: &mut Random) -> Step {
    match random.below(39) {
        0..=16 => node_step(random),
        17..=18 => Step::Late {
            topic: random.below(3) as u8,
            ms: match random.below(3) {
                0 => 0,
                1 => random.below(300),
                _ => random.below(4000),
            },
        },
        19 => Step::Lose {
            topic: random.below(3) as u8,
            count: random.within(1, 4) as u8,
        },
        20 => Step::Double {
            topic: random.below(3) as u8,
        },
        21 => Step::Cut {
            link: random.below(3) as u8,
            ms: random.below(3000),
        },
        22..=23 => Step::SlowCalls {
            ms: match random.below(4) {
                0 => 0,
                1 | 2 => random.below(100),
                _ => random.below(2000),
            },
        },
        24 => Step::FailCalls {
            count: random.within(1, 5) as u8,
        },
        25 => Step::Watch {
            number: number(random),
        },
        26 => our_step(random),
        27..=28 => Step::Die {
            after: random.below(6) as u8,
            loses: random.once_in(2).then(|| random.below(20) as u8),
            ms: random.below(2000),
        },
        29 => match random.below(3) {
            0 => Step::Reconsider,
            _ => Step::Rollback {
                depth: random.within(1, 4) as u8,
            },
        },
        30 => Step::RestartNode {
            ms: random.below(4000),
            keeps_mempool: random.once_in(2),
        },
        31..=33 => scan_step(random),
        34..=37 => wallet_step(random),
        _ => match random.below(12) {
            0..=3 => Step::Rebuild {
                share: random.next() as u8,
                ms: random.below(8000),
            },
            4 => Step::Prune {
                share: u8::MAX,
                is_careless: true,
            },
            _ => Step::Stall {
                ms: random.below(1500),
            },
        },
    }
}

fn wallet_step(random: &mut Random) -> Step {
    let wallet = random.within(1, 3) as u8;
    match random.below(6) {
        0 => Step::RemoveWallet { wallet },
        1 => Step::Reserve {
            wallet,
            is_change: random.once_in(2),
        },
        _ => Step::AddWallet {
            wallet,
            gap_limit: random.within(1, 3) as u8,
        },
    }
}

fn scan_step(random: &mut Random) -> Step {
    let share = random.next() as u8;
    match random.below(6) {
        0 => Step::Prune {
            share,
            is_careless: false,
        },
        1 => Step::CancelScan {
            index: random.next() as u16,
        },
        _ => Step::Scan {
            bits: random.next() as u8,
            from: share,
            to: random.once_in(3).then(|| random.next() as u8),
        },
    }
}

/// Scans, and while they go on a reorg below where they may be.
fn overtaken_scans(random: &mut Random) -> Vec<Step> {
    let scan = |random: &mut Random| Step::Scan {
        bits: random.next() as u8,
        from: random.below(160) as u8,
        to: random.once_in(2).then(|| random.next() as u8),
    };
    vec![
        scan(random),
        scan(random),
        Step::Pass(random.below(150)),
        Step::Reorg {
            depth: random.within(2, 10) as u8,
            longer: random.within(1, 2) as u8,
            bits: random.next() as u16,
            same_coinbases: random.once_in(2),
        },
        Step::Pass(random.below(15_000)),
    ]
}

fn our_step(random: &mut Random) -> Step {
    match random.below(4) {
        0 => Step::Unwatch {
            number: number(random),
        },
        1 => Step::DropAsks {
            count: random.within(1, 3) as u8,
        },
        _ => Step::Monitoring(random.once_in(2)),
    }
}

fn reading(random: &mut Random) -> Step {
    let reader = random.next() as u8;
    match random.below(6) {
        0..=1 => Step::Join {
            topics: random.next() as u8,
        },
        2 => Step::Leave {
            reader,
            comes_back: random.once_in(2),
        },
        _ => Step::Read {
            reader,
            count: random.below(30) as u8,
        },
    }
}
