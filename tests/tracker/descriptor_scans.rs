//! Random wallets whose past a history scan looks for: with gaps and jumps up to the lookahead, in
//! both keychains, all of it spent or some. While it goes blocks come and go, scripts are derived
//! sooner or later, their baselines are merged sooner or later. In the end the rows must be those
//! of a tracker that knew all scripts from the first block on.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, ScriptBuf, TxOut, Txid};
use proptest::prelude::*;
use satwatch::tracker::{
    ApplyError, Balance, Baseline, Derivation, DescriptorId, DescriptorRequest, Event, EventKind,
    FollowUp, FoundOutput, Input, Keychain, MemoryView, Net, OutputRow, ScanEnd, ScanId, ScanState,
    ScriptHash, Subject, SubjectId, Tracker, Transition, View, WatchRequest,
};

use crate::pretended::scans::{Stretch, next_step};
use crate::pretended::{Node, load, tx};

const WALLET: DescriptorId = DescriptorId([5; 32]);
const SCAN: ScanId = ScanId(3);
const NOW: u64 = 1_000_000;
const KEYCHAINS: [Keychain; 2] = [Keychain::External, Keychain::Internal];
/// So far beyond the last used index a use may be: within the lookahead.
const FARTHEST: i32 = 950;

fn spk(keychain: Keychain, index: u32) -> ScriptBuf {
    let mut program = [9; 20];
    program[0] = keychain as u8;
    program[1..5].copy_from_slice(&index.to_le_bytes());
    ScriptBuf::from_bytes([&[0, 20][..], &program].concat())
}

/// What happens in one block.
#[derive(Debug, Clone)]
enum Deed {
    /// Somebody pays an index that is so far above the used ones, or below their end.
    Pay {
        internal: bool,
        at: i32,
    },
    /// A coin is spent, with change or without.
    Spend {
        coin: u16,
        change: Option<i32>,
    },
    Nothing,
}

#[derive(Debug, Clone)]
enum Step {
    /// Of the scan.
    Blocks(u32),
    Derive,
    Merge,
    Enter,
    Mine(Deed),
    /// The last blocks go, and they or another one with all of their payments comes.
    Reorg {
        depth: u8,
        same: bool,
    },
}

fn at() -> impl Strategy<Value = i32> {
    prop_oneof![6 => -40..40, 1 => 0..FARTHEST]
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (any::<bool>(), at()).prop_map(|(internal, at)| Deed::Pay { internal, at }),
        4 => (any::<u16>(), prop::option::of(at()))
            .prop_map(|(coin, change)| Deed::Spend { coin, change }),
        1 => Just(Deed::Nothing),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1u32..5).prop_map(Step::Blocks),
        3 => Just(Step::Derive),
        3 => Just(Step::Merge),
        3 => Just(Step::Enter),
        1 => deed().prop_map(Step::Mine),
        1 => (1u8..4, any::<bool>()).prop_map(|(depth, same)| Step::Reorg { depth, same }),
    ]
}

/// A wallet as it lives in the chain.
struct Wallet {
    node: Node,
    coins: Vec<(OutPoint, u64)>,
    /// First index of each keychain above all used ones.
    used: [u32; 2],
    payments: u64,
}

impl Wallet {
    fn new() -> Self {
        Self {
            node: Node::new(),
            coins: Vec::new(),
            used: [0; 2],
            payments: 0,
        }
    }

    fn pay_to(&mut self, keychain: Keychain, at: i32, value: u64) -> TxOut {
        let used = &mut self.used[keychain as usize];
        let index = used.saturating_add_signed(at);
        *used = (*used).max(index + 1);
        TxOut {
            value: bitcoin::Amount::from_sat(value),
            script_pubkey: spk(keychain, index),
        }
    }

    fn deed(&mut self, deed: &Deed) {
        let mut txs = Vec::new();
        self.payments += 1;
        let n = self.payments;
        match deed {
            Deed::Pay { internal, at } => {
                let mut foreign = [0; 32];
                foreign[..8].copy_from_slice(&n.to_le_bytes());
                let foreign = OutPoint::new(Txid::from_byte_array(foreign), 0);
                let keychain = KEYCHAINS[usize::from(*internal)];
                let mut pays = tx(&[foreign], &[(100, 7)]);
                let out = self.pay_to(keychain, *at, 1000 + n);
                pays.output.push(out);
                self.coins
                    .push((OutPoint::new(pays.compute_txid(), 1), 1000 + n));
                txs.push(pays);
            }
            Deed::Spend { coin, change } if !self.coins.is_empty() => {
                let (coin, value) = self.coins.remove(usize::from(*coin) % self.coins.len());
                let mut spends = tx(&[coin], &[(101, 1)]);
                if let Some(at) = change
                    && value > 10
                {
                    let out = self.pay_to(Keychain::Internal, *at, value - 10);
                    spends.output.push(out);
                    self.coins
                        .push((OutPoint::new(spends.compute_txid(), 1), value - 10));
                }
                txs.push(spends);
            }
            Deed::Spend { .. } | Deed::Nothing => {}
        }
        let coinbase = self.node.coinbase(&[(200, 50)]);
        let block = self.node.next_block(coinbase, &txs);
        self.node.chain.push(block);
    }
}

/// A tracker with its rows.
struct Daemon {
    tracker: Tracker,
    view: MemoryView,
    events: Vec<Event>,
}

impl Daemon {
    /// It knows the blocks from this height on.
    fn start(node: &Node, first: usize) -> Self {
        let blocks = node.chain[first..].iter();
        let blocks = blocks.map(|block| (block.block_hash(), block.header.time));
        let mut daemon = Self {
            tracker: Tracker::new([7; 16]).in_portions_of(200),
            view: MemoryView::default(),
            events: Vec::new(),
        };
        daemon.send(Input::Start {
            first_height: first as u32,
            blocks: blocks.collect(),
            now: NOW,
        });
        daemon
    }

    fn apply(&mut self, input: Input) -> Result<Transition, ApplyError> {
        let transition = self.tracker.apply(&self.view, input)?;
        self.view.commit(&transition.changes);
        self.events.extend(transition.events.clone());
        Ok(transition)
    }

    fn send(&mut self, input: Input) {
        let _ = self.apply(input).expect("it is taken");
        while self.tracker.has_to_join() {
            let _ = self.apply(Input::Join { now: NOW }).expect("it is taken");
        }
    }

    fn add(&mut self, range: u32) {
        let request = DescriptorRequest {
            text: "a wallet".to_owned(),
            keychains: 2,
            is_ranged: true,
            label: None,
            gap_limit: Some(20),
            range,
            depths: Vec::new(),
            baseline: Baseline::IfMissing,
        };
        self.send(Input::AddDescriptor {
            descriptor: WALLET,
            request,
            now: NOW,
        });
    }

    /// An external script by itself.
    fn watch(&mut self, index: u32) {
        let request = WatchRequest {
            spk: spk(Keychain::External, index),
            label: None,
            depths: Vec::new(),
            baseline: Baseline::IfMissing,
        };
        self.send(Input::Watch {
            scripts: vec![request],
            now: NOW,
        });
    }

    fn forget(&mut self) {
        while self.tracker.has_to_forget() {
            self.send(Input::Forget { now: NOW });
        }
    }

    /// All scripts that are wanted.
    fn derive(&mut self) {
        for keychain in KEYCHAINS {
            while let Some(to) = self.view.descriptors[&WALLET].wants(keychain) {
                let row = &self.view.descriptors[&WALLET];
                let first = row.keychain(keychain).expect("it has it").derived;
                let to = to.min(first + 500);
                self.send(Input::Derived {
                    descriptor: WALLET,
                    keychain,
                    first,
                    spks: (first..to).map(|index| spk(keychain, index)).collect(),
                    now: NOW,
                });
            }
        }
    }

    /// The baselines that are awaited.
    fn merge(&mut self, node: &Node) {
        let watches = self.view.watches.iter();
        let pending = watches.filter(|(_, row)| row.coverage.pending);
        let scripts: BTreeSet<ScriptHash> = pending.map(|(script, _)| *script).collect();
        let unspent = node.unspent().into_iter();
        let found = unspent.map(|(outpoint, (out, height, coinbase))| FoundOutput {
            outpoint,
            spk: out.script_pubkey,
            value: out.value,
            height,
            coinbase,
        });
        let outputs = found.filter(|found| scripts.contains(&ScriptHash::of(&found.spk)));
        self.send(Input::Baseline {
            block: node.tip(),
            outputs: outputs.collect(),
            scripts: scripts.into_iter().collect(),
            now: NOW,
        });
    }

    fn follow(&mut self, node: &Node) {
        let from = self.view.tip().expect("there is one").height as usize + 1;
        for (height, block) in (from..).zip(&node.chain[from..]) {
            self.send(Input::Connect {
                block: block.into(),
                height: height as u32,
                now: NOW,
            });
        }
    }

    fn is_open(&self) -> bool {
        self.view.scans[&SCAN].state == ScanState::Open
    }

    /// A step of the scan, if nothing holds it up.
    fn scan(&mut self, node: &Node, blocks: u32) {
        let stretch = Stretch {
            blocks,
            too_much: false,
        };
        match next_step(node, &self.view, SCAN, stretch, NOW) {
            Some(input) => match self.apply(input) {
                Ok(_) | Err(ApplyError::ScanMoved { .. }) => {}
                Err(error) => panic!("{error}"),
            },
            None => self.merge(node),
        }
    }

    fn enter(&mut self) {
        while self.is_open() {
            let input = Input::EnterScan { scan: SCAN };
            let transition = self.apply(input).expect("it is open");
            if transition.changes.is_empty() {
                return;
            }
        }
    }
}

/// What the rows say of the wallet.
#[derive(Debug, PartialEq)]
struct Story {
    balance: Balance,
    counts: (u64, u64),
    from_height: u32,
    last_used: Vec<Option<u32>>,
    outputs: BTreeMap<OutPoint, OutputRow>,
    history: Vec<(Txid, Vec<Net>)>,
}

fn story(view: &MemoryView) -> Story {
    let row = &view.descriptors[&WALLET];
    let history = view.descriptor_history(&WALLET, None, usize::MAX);
    let history = history.expect("it reads").into_iter();
    Story {
        balance: row.balance,
        counts: (row.utxo_count, row.tx_count),
        from_height: row.from_height,
        last_used: row.keychains.iter().map(|it| it.last_used).collect(),
        outputs: view
            .outputs
            .iter()
            .map(|(at, row)| (*at, row.clone()))
            .collect(),
        history: history
            .map(|(_, txid)| (txid, view.txs[&txid].nets.clone()))
            .collect(),
    }
}

/// All scripts are known from the first block on.
fn reference(wallet: &Wallet) -> Story {
    let mut node = wallet.node.clone();
    let chain = node.chain.split_off(1);
    let mut daemon = Daemon::start(&node, 0);
    daemon.add(*wallet.used.iter().max().expect("two"));
    daemon.derive();
    daemon.merge(&node);
    node.chain.extend(chain);
    daemon.follow(&node);
    Story {
        // Nothing pays it in the first one.
        from_height: 0,
        ..story(&daemon.view)
    }
}

fn open(daemon: &mut Daemon) {
    daemon.send(Input::OpenDescriptorScan {
        scan: SCAN,
        descriptor: WALLET,
        from: 0,
        to: None,
        now: NOW,
    });
}

/// The blocks above this height go, and they or another one with all of their payments comes.
fn reorg(daemon: &mut Daemon, wallet: &mut Wallet, height: usize, same: bool) {
    let node = &mut wallet.node;
    let stale = node.chain.split_off(height + 1);
    let to = node.tip();
    daemon.send(Input::Disconnect { to, now: NOW });
    match same {
        true => node.chain.extend(stale),
        false => {
            let payments = stale.iter().flat_map(|block| &block.txdata[1..]);
            let payments: Vec<_> = payments.cloned().collect();
            let coinbase = node.coinbase(&[(200, 50)]);
            let block = node.next_block(coinbase, &payments);
            node.chain.push(block);
        }
    }
    daemon.follow(node);
}

/// The scan is made, and everything that it waits for.
fn finish(daemon: &mut Daemon, node: &Node) {
    for _ in 0..1_000 {
        if !daemon.is_open() {
            return;
        }
        daemon.derive();
        daemon.merge(node);
        daemon.enter();
        daemon.scan(node, 7);
    }
    panic!("it ends: {:?}", daemon.view.descriptor_scans[&SCAN]);
}

fn ends(events: &[Event]) -> Vec<&Subject> {
    let ends = events.iter().filter_map(|event| match &event.kind {
        EventKind::ScanComplete { subject, .. } => Some(subject),
        _ => None,
    });
    ends.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_scan_of_a_descriptor_brings_what_knowing_all_its_scripts_from_the_first_block_would_have(
        before in prop::collection::vec(deed(), 1..50), known in 1usize..6,
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut wallet = Wallet::new();
        before.iter().for_each(|deed| wallet.deed(deed));
        let first = wallet.node.chain.len().saturating_sub(known);
        let mut daemon = Daemon::start(&wallet.node, first);
        daemon.add(0);
        open(&mut daemon);
        for step in &steps {
            if !daemon.is_open() {
                break;
            }
            match step {
                Step::Blocks(blocks) => daemon.scan(&wallet.node, *blocks),
                Step::Derive => daemon.derive(),
                Step::Merge => daemon.merge(&wallet.node),
                Step::Enter => daemon.enter(),
                Step::Mine(deed) => {
                    wallet.deed(deed);
                    daemon.follow(&wallet.node);
                }
                Step::Reorg { depth, same } => {
                    let height = wallet.node.chain.len() - 1;
                    let to = height.saturating_sub(usize::from(*depth)).max(first);
                    reorg(&mut daemon, &mut wallet, to, *same);
                }
            }
        }
        finish(&mut daemon, &wallet.node);
        let whole = reference(&wallet);
        prop_assert_eq!(story(&daemon.view), whole);
        prop_assert_eq!(ends(&daemon.events), [&Subject::Descriptor(WALLET)]);
        let scripts = daemon.view.scan_scripts(&SCAN, 1).expect("it reads");
        prop_assert!(scripts.is_empty());
    }
}

/// A wallet of one address after the other, each payment spent at once.
fn long_wallet(uses: u32) -> Wallet {
    let mut wallet = Wallet::new();
    for _ in 0..uses {
        wallet.deed(&Deed::Pay {
            internal: false,
            at: 0,
        });
        wallet.deed(&Deed::Spend {
            coin: 0,
            change: None,
        });
    }
    wallet
}

#[test]
fn scripts_that_come_while_a_scan_goes_enter_it_on_its_way() {
    let wallet = long_wallet(1300);
    assert_eq!(wallet.used[0], 1300);
    let mut daemon = Daemon::start(&wallet.node, wallet.node.chain.len() - 1);
    daemon.add(0);
    open(&mut daemon);
    let (mut ways, mut next) = (1, 0);
    for _ in 0..10_000 {
        if !daemon.is_open() {
            break;
        }
        daemon.derive();
        daemon.merge(&wallet.node);
        daemon.enter();
        daemon.scan(&wallet.node, 100);
        let now = daemon.view.scans[&SCAN].next;
        ways += u32::from(now < next);
        next = now;
    }
    assert!(!daemon.is_open());
    assert_eq!(
        ways, 2,
        "the whole chain, and once more what was below the last that entered"
    );
    let row = &daemon.view.descriptors[&WALLET];
    assert_eq!(row.keychains[0].last_used, Some(wallet.used[0] - 1));
    assert_eq!((row.from_height, row.tx_count), (0, 2600));
}

#[test]
fn a_script_that_was_added_by_itself_hears_of_the_end_too() {
    let mut wallet = Wallet::new();
    wallet.deed(&Deed::Pay {
        internal: false,
        at: 0,
    });
    let mut daemon = Daemon::start(&wallet.node, 1);
    daemon.add(0);
    daemon.watch(4);
    open(&mut daemon);
    finish(&mut daemon, &wallet.node);
    let ids: Vec<_> = ends(&daemon.events).iter().map(|it| it.id()).collect();
    let script = ScriptHash::of(&spk(Keychain::External, 4));
    assert_eq!(
        ids,
        [SubjectId::Script(script), SubjectId::Descriptor(WALLET)]
    );
}

/// Whether a script of it entered or not, and also when one of them stays watched.
#[test]
fn a_scan_whose_descriptor_is_removed_is_cancelled_and_takes_no_other_for_it() {
    for (is_listed, has_entered) in [(false, false), (false, true), (true, true)] {
        let wallet = long_wallet(3);
        let mut daemon = Daemon::start(&wallet.node, wallet.node.chain.len() - 1);
        daemon.add(0);
        if is_listed {
            daemon.watch(4);
        }
        open(&mut daemon);
        if has_entered {
            daemon.derive();
            daemon.merge(&wallet.node);
            daemon.enter();
        }
        let has_scripts = daemon.view.scans[&SCAN].scripts > 0;
        assert_eq!(has_scripts, has_entered);
        let followed = daemon.apply(Input::RemoveDescriptor {
            descriptor: WALLET,
            now: NOW,
        });
        assert!(followed.unwrap().follow_ups.contains(&FollowUp::Scans));
        assert_eq!(daemon.view.scans[&SCAN].state, ScanState::Cancelled);
        daemon.forget();
        assert!(daemon.view.scan_scripts.is_empty());
        // The same one again is another one for a scan.
        daemon.add(0);
        let enters = daemon.apply(Input::EnterScan { scan: SCAN });
        assert_eq!(enters, Err(ApplyError::NoSuchScan(SCAN)));
        assert_eq!(ends(&daemon.events), Vec::<&Subject>::new());
    }
}

#[test]
fn a_scan_of_a_descriptor_that_there_is_not_is_refused() {
    let mut daemon = Daemon::start(&Node::new(), 0);
    let open = |scan| Input::OpenDescriptorScan {
        scan,
        descriptor: WALLET,
        from: 0,
        to: None,
        now: NOW,
    };
    let before = daemon.view.clone();
    assert_eq!(
        daemon.apply(open(SCAN)),
        Err(ApplyError::NoSuchDescriptor(WALLET))
    );
    assert_eq!(
        daemon.apply(Input::EnterScan { scan: SCAN }),
        Err(ApplyError::NoSuchScan(SCAN))
    );
    assert_eq!(daemon.view, before);
    daemon.add(0);
    daemon.send(open(SCAN));
    assert_eq!(daemon.apply(open(SCAN)), Err(ApplyError::ScanExists(SCAN)));
}

#[test]
fn a_use_that_is_taken_back_is_followed_by_a_look_in_portions_for_the_one_before_it() {
    let mut wallet = long_wallet(1);
    let mut daemon = Daemon::start(&wallet.node, 0);
    daemon.add(1300);
    daemon.derive();
    daemon.follow(&wallet.node);
    daemon.merge(&wallet.node);
    wallet.used[0] = 1200;
    wallet.deed(&Deed::Pay {
        internal: false,
        at: 0,
    });
    let used = |daemon: &Daemon| {
        let row = daemon.view.descriptors[&WALLET].keychains[0];
        (row.last_used, row.next_index())
    };
    let block = wallet.node.chain.last().expect("it is mined").clone();
    let txids = vec![block.txdata[1].compute_txid()];
    let first = used(&daemon).0;
    daemon.follow(&wallet.node);
    assert_eq!(used(&daemon), (Some(1200), 1201));
    let to = wallet.node.id(wallet.node.chain.len() - 2);
    daemon.send(Input::Disconnect { to, now: NOW });
    assert_eq!(used(&daemon), (Some(1200), 1201), "it is unconfirmed");
    daemon.send(Input::TxRemoved { txids });
    let evicted = daemon.apply(Input::EvictMissing {
        spared: Vec::new(),
        now: NOW,
    });
    assert!(evicted.is_ok());
    assert_eq!(used(&daemon), (Some(1000), 1201), "a portion of it");
    // Also by who starts then.
    daemon.tracker = load(&daemon.view, [7; 16]).in_portions_of(200);
    let mut looks = 0;
    while daemon.tracker.has_to_join() {
        let joined = daemon.apply(Input::Join { now: NOW });
        assert!(joined.is_ok());
        looks += 1;
    }
    assert!(looks >= 5, "{looks}");
    assert_eq!(used(&daemon), (first, 1201));
}

#[test]
fn a_use_far_beyond_all_scripts_makes_the_wallet_want_those_up_to_it() {
    let mut wallet = Wallet::new();
    wallet.used[0] = 40_000;
    wallet.deed(&Deed::Pay {
        internal: false,
        at: 0,
    });
    let far = wallet.used[0] - 1;
    let mut daemon = Daemon::start(&wallet.node, 1);
    daemon.add(0);
    daemon.derive();
    let place = Derivation {
        descriptor: WALLET,
        keychain: Keychain::External,
        index: far,
    };
    daemon.send(Input::Reach { place, now: NOW });
    daemon.merge(&wallet.node);
    let row = &daemon.view.descriptors[&WALLET];
    assert!(
        row.is_pending(),
        "it is not called whole before the far use is known"
    );
    daemon.derive();
    daemon.merge(&wallet.node);
    let row = &daemon.view.descriptors[&WALLET];
    assert!(!row.is_pending());
    assert_eq!(row.keychains[0].last_used, Some(far));
    assert_eq!(row.keychains[0].window, far + 21);
    assert!(
        row.keychains[1].derived < 2000,
        "the other keychain is left alone"
    );
    assert_eq!(row.balance.confirmed, 1001);
    let other = DescriptorId([6; 32]);
    let place = Derivation {
        descriptor: other,
        ..place
    };
    assert_eq!(
        daemon.apply(Input::Reach { place, now: NOW }),
        Err(ApplyError::NoSuchDescriptor(other))
    );
}

/// The scan is on its second way, for scripts that came late, and above the fork point.
#[test]
fn another_branch_while_a_scan_goes_back_for_late_scripts_is_scanned_too() {
    let mut wallet = long_wallet(1300);
    let tip = wallet.node.chain.len() - 1;
    let mut daemon = Daemon::start(&wallet.node, tip - 20);
    daemon.add(0);
    open(&mut daemon);
    while daemon.view.descriptor_scans[&SCAN].back.is_none() {
        daemon.derive();
        daemon.merge(&wallet.node);
        daemon.enter();
        daemon.scan(&wallet.node, 100);
    }
    let next = |daemon: &Daemon| daemon.view.scans[&SCAN].next as usize;
    while next(&daemon) < tip - 10 {
        daemon.scan(&wallet.node, 10);
    }
    reorg(&mut daemon, &mut wallet, tip - 15, false);
    assert_eq!(next(&daemon), tip - 14, "what it found above is gone");
    finish(&mut daemon, &wallet.node);
    assert_eq!(story(&daemon.view), reference(&wallet));
}

#[test]
fn a_branch_that_ends_below_the_late_scripts_holds_no_scan_up() {
    for has_gone_back in [false, true] {
        let mut wallet = long_wallet(300);
        let tip = wallet.node.chain.len() - 1;
        let mut daemon = Daemon::start(&wallet.node, tip - 20);
        daemon.add(0);
        open(&mut daemon);
        daemon.derive();
        daemon.merge(&wallet.node);
        daemon.enter();
        while (daemon.view.scans[&SCAN].next as usize) < tip - 9 {
            daemon.scan(&wallet.node, 10);
        }
        daemon.derive();
        daemon.merge(&wallet.node);
        daemon.enter();
        let late = daemon.view.descriptor_scans[&SCAN].late;
        assert!(
            late.is_some_and(|late| late as usize >= tip - 9),
            "{late:?}"
        );
        while has_gone_back && daemon.view.descriptor_scans[&SCAN].back.is_none() {
            daemon.scan(&wallet.node, 10);
        }
        reorg(&mut daemon, &mut wallet, tip - 15, false);
        finish(&mut daemon, &wallet.node);
        assert_eq!(story(&daemon.view), reference(&wallet));
    }
}

/// What lies between these blocks and those from which on the wallet is known is not looked at.
#[test]
fn a_scan_of_some_blocks_says_which() {
    let wallet = long_wallet(10);
    let mut daemon = Daemon::start(&wallet.node, wallet.node.chain.len() - 1);
    daemon.add(0);
    daemon.send(Input::OpenDescriptorScan {
        scan: SCAN,
        descriptor: WALLET,
        from: 2,
        to: Some(6),
        now: NOW,
    });
    finish(&mut daemon, &wallet.node);
    let told = daemon.events.iter().find_map(|event| match &event.kind {
        EventKind::ScanComplete { from, to, .. } => Some((*from, *to)),
        _ => None,
    });
    assert_eq!(told, Some((2, 6)));
}

/// The past of one address of a wallet is looked for, and the wallet's baseline has found already
/// what the same transaction paid to another one.
#[test]
fn what_a_baseline_has_found_belongs_to_what_a_scan_of_one_address_brings() {
    let mut wallet = Wallet::new();
    let pay = Deed::Pay {
        internal: false,
        at: 0,
    };
    let spend = Deed::Spend {
        coin: 0,
        change: Some(0),
    };
    [pay, spend, Deed::Nothing]
        .iter()
        .for_each(|deed| wallet.deed(deed));
    let mut daemon = Daemon::start(&wallet.node, wallet.node.chain.len() - 1);
    daemon.add(0);
    daemon.derive();
    daemon.merge(&wallet.node);
    daemon.send(Input::OpenScan {
        scan: SCAN,
        scripts: vec![ScriptHash::of(&spk(Keychain::External, 0))],
        from: 0,
        to: None,
        now: NOW,
    });
    while daemon.is_open() {
        daemon.scan(&wallet.node, 7);
    }
    let history = |story: Story| -> Vec<(u64, u64)> {
        let nets = story.history.into_iter().flat_map(|(_, nets)| nets);
        nets.map(|net| (net.received, net.sent)).collect()
    };
    assert_eq!(history(story(&daemon.view)), [(991, 1001), (1001, 0)]);
    assert_eq!(history(reference(&wallet)), [(991, 1001), (1001, 0)]);
}

/// Some scripts are complete and out of the scan when blocks below its first one go.
#[test]
fn a_wallet_is_not_said_to_be_known_from_a_height_that_a_reorg_has_taken() {
    let mut wallet = Wallet::new();
    let pay = Deed::Pay {
        internal: false,
        at: 0,
    };
    (0..9).for_each(|_| wallet.deed(&Deed::Nothing));
    wallet.deed(&pay);
    (0..3).for_each(|_| wallet.deed(&Deed::Nothing));
    wallet.deed(&Deed::Spend {
        coin: 0,
        change: None,
    });
    let spend = wallet.node.chain.last().expect("a block").txdata[1].clone();
    (0..6).for_each(|_| wallet.deed(&Deed::Nothing));
    let mut daemon = Daemon::start(&wallet.node, 1);
    daemon.add(0);
    daemon.derive();
    daemon.merge(&wallet.node);
    daemon.send(Input::OpenDescriptorScan {
        scan: SCAN,
        descriptor: WALLET,
        from: 15,
        to: None,
        now: NOW,
    });
    daemon.enter();
    daemon.scan(&wallet.node, 100);
    let script = ScriptHash::of(&spk(Keychain::External, 0));
    let from = |daemon: &Daemon| daemon.view.watches[&script].coverage.from_height;
    while from(&daemon) > 15 {
        daemon.scan(&wallet.node, 100);
    }
    assert!(daemon.is_open(), "its end is in portions");

    wallet.node.chain.truncate(13);
    let to = wallet.node.tip();
    daemon.send(Input::Disconnect { to, now: NOW });
    (0..3).for_each(|_| wallet.deed(&Deed::Nothing));
    let coinbase = wallet.node.coinbase(&[(200, 50)]);
    let block = wallet.node.next_block(coinbase, &[spend]);
    wallet.node.chain.push(block);
    (0..9).for_each(|_| wallet.deed(&Deed::Nothing));
    daemon.follow(&wallet.node);
    finish(&mut daemon, &wallet.node);
    assert_eq!(from(&daemon), 26, "what happened before is not known of it");
    assert_eq!(daemon.view.descriptors[&WALLET].from_height, 26);
    let told = daemon.events.iter().find_map(|event| match &event.kind {
        EventKind::ScanComplete { from, .. } => Some(*from),
        _ => None,
    });
    assert_eq!(told, Some(26));
}

#[test]
fn a_cancelled_scan_is_told_to_nobody_and_another_one_brings_the_rest() {
    let wallet = long_wallet(40);
    let mut daemon = Daemon::start(&wallet.node, wallet.node.chain.len() - 1);
    daemon.add(0);
    daemon.derive();
    daemon.merge(&wallet.node);
    let cancelled = ScanId(2);
    daemon.send(Input::OpenDescriptorScan {
        scan: cancelled,
        descriptor: WALLET,
        from: 0,
        to: None,
        now: NOW,
    });
    let enter = Input::EnterScan { scan: cancelled };
    while !daemon
        .apply(enter.clone())
        .expect("it is open")
        .changes
        .is_empty()
    {}
    let stretch = Stretch {
        blocks: 20,
        too_much: false,
    };
    let blocks = next_step(&wallet.node, &daemon.view, cancelled, stretch, NOW);
    daemon.send(blocks.expect("nothing holds it up"));
    let found = daemon.view.descriptors[&WALLET].tx_count;
    assert!(found > 0 && found < 80, "{found}");

    daemon.send(Input::CloseScan {
        scan: cancelled,
        end: ScanEnd::Cancelled(None),
        now: NOW,
    });
    assert_eq!(daemon.view.scans[&cancelled].state, ScanState::Cancelled);
    assert_eq!(ends(&daemon.events).len(), 0);
    assert_eq!(daemon.apply(enter), Err(ApplyError::NoSuchScan(cancelled)));
    while daemon.tracker.has_to_forget() {
        daemon.send(Input::Forget { now: NOW });
    }
    let left = daemon.view.scan_scripts(&cancelled, 1).expect("it reads");
    assert!(left.is_empty(), "its scripts are out of it");
    let row = &daemon.view.descriptors[&WALLET];
    assert_eq!(row.tx_count, found, "what it found stays");
    assert!(row.from_height > 0, "it speaks for no more than before");

    open(&mut daemon);
    finish(&mut daemon, &wallet.node);
    assert_eq!(story(&daemon.view), reference(&wallet));
    assert_eq!(ends(&daemon.events), [&Subject::Descriptor(WALLET)]);
}
