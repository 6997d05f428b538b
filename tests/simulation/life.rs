//! One life: what a script says happens, and in the end, when the node has fallen silent and all
//! was looked at again, the rows and the told story must be the node's.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use satwatch::bitcoind::Endpoints;
use satwatch::bitcoind::zmq::ZmqMessage;
use satwatch::config;
use satwatch::store::ChainInfo;
use satwatch::tracker::{Baseline, Event, Input, Keychain, ScanEnd, ScanId, WatchRequest};

use crate::bitcoind::{Bitcoind, State, index};
use crate::calls::Line;
use crate::clock::{Now, later, millis};
use crate::feed::{Lines, endpoints, listed};
use crate::laws::Witness;
use crate::pretended::descriptors::{KEYCHAINS, Wallet, check_places};
use crate::pretended::laws::Kept;
use crate::pretended::{pick, script, spk};
use crate::process::{Around, Doom, Process};
use crate::random::Random;
use crate::rows::Rows;
use crate::scan_laws::Tally;
use crate::script::{Script, Step, Store, Weather, Wiring};
use crate::seam::FollowerEvent;

const WALL: u64 = 1_700_000_000_000;
/// So many things at one moment, and it does not come to rest.
const MOST: usize = 20_000;
/// Until everything has been looked at again: a poll and the longest rest of the node, after the
/// longest wait for a chain that has lost blocks.
const SILENCE: u64 = 200_000;

pub struct Life {
    weather: Weather,
    now: Now,
    random: Random,
    settings: config::Bitcoind,
    endpoints: Endpoints,
    line: Line,
    lines: Lines,
    call_ms: u64,
    /// What the node is next, and when.
    node_next: Option<(Instant, State)>,
    process: Option<Process>,
    starts_at: Option<Instant>,
    monitoring: bool,
    stalled_until: Instant,
    drop_asks: u8,
    /// So many were opened.
    scans: u64,
    doom: Option<Doom>,
    rows: Rows,
    witness: Witness,
    trace: bool,
}

impl Life {
    pub fn begin(script: &Script, trace: bool) -> Self {
        let now = Now {
            instant: Instant::now(),
            ms: WALL,
        };
        let endpoints = endpoints(script.wiring);
        let mut settings = config::Bitcoind::default();
        let listed = match script.wiring {
            Wiring::Hinted => {
                settings.zmq_rawtx.clone_from(&endpoints.rawtx);
                settings.zmq_rawblock.clone_from(&endpoints.rawblock);
                settings.zmq_sequence.clone_from(&endpoints.sequence);
                Vec::new()
            }
            _ => listed(&endpoints),
        };
        let bitcoind = Bitcoind::new(WALL);
        let rows = match script.store {
            Store::Memory => Rows::in_memory(),
            Store::Disk => Rows::on_disk(ChainInfo {
                network: bitcoin::Network::Regtest,
                genesis: bitcoind.node.chain[0].block_hash(),
            }),
        };
        let line = Line {
            bitcoind: Rc::new(RefCell::new(bitcoind)),
            rows: rows.view.clone(),
            listed,
        };
        let mut life = Self {
            weather: script.weather,
            now,
            random: Random::of(!script.seed),
            settings,
            endpoints,
            line,
            lines: Lines::default(),
            call_ms: 1,
            node_next: None,
            process: None,
            starts_at: Some(now.instant),
            monitoring: true,
            stalled_until: now.instant,
            drop_asks: 0,
            scans: 0,
            doom: None,
            rows,
            witness: Witness::new(now),
            trace,
        };
        for _ in 0..script.past {
            life.mine_payments();
        }
        life.pass(3000);
        for number in [1, 2, 3] {
            life.watch(number);
        }
        life.pass(3000);
        life
    }

    /// A block of some payments, before anybody looks.
    fn mine_payments(&mut self) {
        let mut bitcoind = self.line.bitcoind.borrow_mut();
        for _ in 0..self.random.below(4) {
            let to = [
                self.random.within(1, 7) as u8,
                self.random.within(1, 9) as u8,
            ];
            let payment = bitcoind
                .node
                .payment(&[self.random.next() as u16], &to, false);
            payment.iter().for_each(|tx| bitcoind.accept(tx));
        }
        bitcoind.mine(u16::MAX, None, self.random.within(1, 9) as u8);
        bitcoind.published.clear();
    }

    pub fn live(mut self, script: &Script) -> Tally {
        for step in &script.steps {
            if self.trace {
                eprintln!("{:>8} {step:?}", self.witness.ms(self.now));
            }
            self.step(step);
        }
        self.end()
    }

    /// What was told in a life.
    pub fn told(mut self, script: &Script) -> Vec<(u64, Event)> {
        script.steps.iter().for_each(|step| self.step(step));
        self.pass(SILENCE);
        self.rows.log
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Pass(ms) => self.pass(*ms),
            Step::Late { topic, ms } => self.lines.late[usize::from(*topic)] = *ms,
            Step::Lose { topic, count } => self.lines.lose[usize::from(*topic)] = *count,
            Step::Double { topic } => self.lines.double[usize::from(*topic)] = true,
            Step::SlowCalls { ms } => self.call_ms = *ms,
            Step::FailCalls { count } => self.line.bitcoind.borrow_mut().failing = *count,
            Step::Cut { link, ms } => {
                if let Some(process) = &mut self.process {
                    let is_up = self.line.bitcoind.borrow().is_up();
                    let until = is_up.then(|| self.now.instant + millis(*ms));
                    process.feed.cut(Some(*link), until, self.now);
                }
            }
            Step::Watch { number } => self.watch(*number),
            Step::Unwatch { number } => {
                let now = self.now.ms;
                self.request(Input::Unwatch {
                    scripts: vec![script(*number)],
                    now,
                });
            }
            Step::AddWallet { wallet, gap_limit } => {
                let wallet = Wallet(*wallet);
                self.request(Input::AddDescriptor {
                    descriptor: wallet.id(),
                    request: wallet.request(u32::from(*gap_limit), Baseline::IfMissing),
                    now: self.now.ms,
                });
            }
            Step::RemoveWallet { wallet } => {
                self.request(Input::RemoveDescriptor {
                    descriptor: Wallet(*wallet).id(),
                    now: self.now.ms,
                });
            }
            Step::Reserve { wallet, is_change } => {
                self.reserve(Wallet(*wallet), KEYCHAINS[usize::from(*is_change)]);
            }
            Step::Scan { bits, from, to } => self.open_scan(*bits, *from, *to),
            Step::CancelScan { index } => {
                let open = self.rows.view.borrow().open_scans();
                if let (Some(process), Some(scan)) = (&mut self.process, pick(&open, *index)) {
                    self.witness.scans.cancels(scan);
                    let (end, now) = (ScanEnd::Cancelled(None), self.now.ms);
                    process.try_to(Input::CloseScan { scan, end, now });
                }
            }
            Step::Monitoring(on) => self.switch(*on),
            Step::Stall { ms } => self.stalled_until = self.now.instant + millis(*ms),
            Step::DropAsks { count } => self.drop_asks = *count,
            Step::Die { after, loses, ms } => {
                self.doom = Some(Doom {
                    after: *after,
                    loses: *loses,
                    ms: *ms,
                });
            }
            Step::Join { topics } => self.witness.readers.join(*topics),
            Step::Read { reader, count } => self.witness.readers.read(*reader, *count),
            Step::Leave { reader, comes_back } => {
                self.witness
                    .readers
                    .leave(*reader, *comes_back, &self.rows.log);
            }
            of_node => self.node_step(of_node),
        }
    }

    fn node_step(&mut self, step: &Step) {
        let mut bitcoind = self.line.bitcoind.borrow_mut();
        if !bitcoind.is_ready() {
            return;
        }
        match step {
            Step::Pay { inputs, to } => {
                if let Some(tx) = bitcoind.node.payment(inputs, to, false) {
                    bitcoind.accept(&tx);
                }
            }
            Step::Replace { victims, to } => {
                if let Some(tx) = bitcoind.node.replacement(victims, *to) {
                    bitcoind.accept(&tx);
                }
            }
            Step::Evict { victim } => bitcoind.evict(*victim),
            Step::Return { index } => {
                if let Some(tx) = bitcoind.returning(*index) {
                    bitcoind.accept(&tx);
                }
            }
            Step::Mine {
                bits,
                double_spend,
                to,
            } => bitcoind.mine(*bits, *double_spend, *to),
            Step::Reorg {
                depth,
                longer,
                bits,
                same_coinbases,
            } => bitcoind.reorganize(*depth, *longer, *bits, *same_coinbases),
            Step::Rollback { depth } => bitcoind.roll_back(*depth),
            Step::Reconsider => bitcoind.reconsider(),
            Step::Rebuild { share, ms } => {
                let height = bitcoind.node.chain.len() * usize::from(*share) / 256;
                bitcoind.stop(true);
                let next = State::Rebuilding(height.max(1));
                drop(bitcoind);
                self.node_is_down(*ms, next);
            }
            Step::Prune { share, is_careless } => {
                let top = match is_careless {
                    true => Some(bitcoind.node.chain.len() - 1),
                    false => bitcoind.last_known(&self.rows.view.borrow()),
                };
                let horizon = (top.unwrap_or(0) * usize::from(*share)).div_ceil(255);
                bitcoind.horizon = horizon.max(bitcoind.horizon);
            }
            Step::RestartNode { ms, keeps_mempool } => {
                bitcoind.stop(*keeps_mempool);
                drop(bitcoind);
                self.node_is_down(*ms, State::Loading);
            }
            other => unreachable!("{other:?} is not the node's"),
        }
    }

    fn node_is_down(&mut self, ms: u64, next: State) {
        if let Some(process) = &mut self.process {
            process.feed.cut(None, None, self.now);
        }
        self.node_next = Some((self.now.instant + millis(ms), next));
    }

    fn watch(&mut self, number: u8) {
        let now = self.now.ms;
        self.request(Input::Watch {
            scripts: vec![WatchRequest {
                spk: spk(number),
                label: None,
                depths: vec![2],
                baseline: Baseline::IfMissing,
            }],
            now,
        });
    }

    /// `POST /descriptors/{id}/next_address`: the next index that the rows say.
    fn reserve(&mut self, wallet: Wallet, keychain: Keychain) {
        let view = self.rows.view.borrow();
        let row = view.descriptors.get(&wallet.id());
        let Some(row) = row.and_then(|row| row.keychain(keychain)) else {
            return;
        };
        let place = wallet.place(keychain, row.next_index());
        drop(view);
        self.request(Input::Reserve {
            place,
            label: None,
            now: self.now.ms,
        });
    }

    /// `POST /scan_history`, which is refused before there is a tip.
    fn open_scan(&mut self, bits: u8, from: u8, to: Option<u8>) {
        let Some(tip) = self.rows.view.borrow().tip() else {
            return;
        };
        let part = |of: u8, heights: u32| u32::from(of) * heights / 256;
        let from = part(from, tip.height + 1);
        self.scans += 1;
        let scripts = (1..8).filter(|number| bits >> number & 1 == 1);
        self.request(Input::OpenScan {
            scan: ScanId(self.scans),
            scripts: scripts.map(script).collect(),
            from,
            to: to.map(|to| from + part(to, tip.height + 1 - from)),
            now: self.now.ms,
        });
    }

    /// What a person asks for; nobody answers while the process is down.
    fn request(&mut self, input: Input) {
        if let Some(process) = &mut self.process {
            self.witness.asked(&input);
            process.request(input);
        }
    }

    fn switch(&mut self, on: bool) {
        self.monitoring = on;
        self.with_process(|process, around| process.tell(FollowerEvent::Monitoring(on), around));
    }

    /// Does something with the process, which may die of it.
    fn with_process(
        &mut self,
        work: impl FnOnce(&mut Process, &mut Around) -> Result<(), crate::process::Died>,
    ) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        match work(&mut process, &mut self.around()) {
            Ok(()) => self.process = Some(process),
            Err(_) => self.die(process),
        }
    }

    fn around(&mut self) -> Around<'_> {
        Around {
            now: self.now,
            line: &self.line,
            rows: &mut self.rows,
            witness: &mut self.witness,
            random: &mut self.random,
            doom: &mut self.doom,
            drop_asks: &mut self.drop_asks,
            call_ms: self.call_ms,
            trace: self.trace,
        }
    }

    fn die(&mut self, process: Process) {
        drop(process);
        let doom = self.doom.take();
        if self.trace {
            eprintln!("{:>8} dead: {doom:?}", self.witness.ms(self.now));
        }
        self.witness.readers.stop();
        self.rows.die(doom.and_then(|doom| doom.loses));
        self.witness.readers.lose(&self.rows.log);
        self.witness.died(&self.rows.view.borrow());
        let ms = doom.map_or(0, |doom| doom.ms);
        self.starts_at = Some(self.now.instant + millis(ms));
    }

    fn start(&mut self) {
        self.starts_at = None;
        let (settings, endpoints) = (self.settings.clone(), self.endpoints.clone());
        let monitoring = self.monitoring;
        let started = Process::start(&settings, &endpoints, monitoring, &mut self.around());
        let process = started.unwrap_or_else(|_| unreachable!("nothing is committed yet"));
        self.process = Some(process);
        if let Some((writer, reader)) = self.rows.disk.as_ref().and_then(|it| it.open.as_ref()) {
            let head = writer.head();
            self.witness.readers.start(reader, head);
        }
    }

    /// Time passes, and everything happens that is due.
    fn pass(&mut self, ms: u64) {
        let end = later(self.now, ms);
        loop {
            self.come_to_rest();
            let next = self.next().map(|at| at.max(self.now.instant));
            let Some(next) = next.filter(|next| *next <= end.instant) else {
                break;
            };
            let passed = next.duration_since(self.now.instant);
            self.now = Now {
                instant: next,
                ms: self.now.ms + passed.as_millis() as u64,
            };
        }
        self.now = end;
        self.come_to_rest();
        self.witness.readers.pass(ms);
    }

    /// Strictly after now, when the process is at rest.
    fn next(&self) -> Option<Instant> {
        let process = self.process.as_ref().and_then(Process::next);
        let stalled = Some(self.stalled_until).filter(|until| *until > self.now.instant);
        let times = [
            self.node_next.map(|(at, _)| at),
            self.starts_at,
            process,
            stalled,
        ];
        let times = times.into_iter().flatten();
        times.filter(|at| *at > self.now.instant).min()
    }

    fn come_to_rest(&mut self) {
        for _ in 0..MOST {
            self.outside();
            let is_stalled = self.stalled_until > self.now.instant;
            let ready = match &self.process {
                Some(process) => process.ready(is_stalled, self.now.instant),
                None => return,
            };
            if ready.is_empty() {
                return;
            }
            let what = ready[self.random.below(ready.len() as u64) as usize];
            self.with_process(|process, around| process.run(what, around));
        }
        panic!("it does not come to rest");
    }

    /// What happens beside the process.
    fn outside(&mut self) {
        self.line.bitcoind.borrow_mut().time = self.now.ms;
        if let Some((_, next)) = self.node_next.take_if(|(at, _)| *at <= self.now.instant) {
            self.node_becomes(next);
        }
        let published = std::mem::take(&mut self.line.bitcoind.borrow_mut().published);
        for message in published {
            self.carry(&message);
        }
        if self.starts_at.is_some_and(|at| at <= self.now.instant) {
            self.start();
        }
        if let Some(mut process) = self.process.take() {
            process.feed.arrive(self.now);
            process.go_on(&mut self.around());
            self.process = Some(process);
        }
    }

    /// It is up, or has done what a start does.
    fn node_becomes(&mut self, next: State) {
        let mut bitcoind = self.line.bitcoind.borrow_mut();
        if next == State::Ready {
            bitcoind.finish_start();
            return;
        }
        bitcoind.start(next);
        drop(bitcoind);
        if let Some(process) = &mut self.process {
            process.feed.reconnect(self.now.instant);
        }
        let takes = self.random.below(3000);
        self.node_next = Some((self.now.instant + millis(takes), State::Ready));
    }

    /// A message goes its way.
    fn carry(&mut self, message: &ZmqMessage) {
        let place = index(message.topic);
        if let Some(left) = self.lines.lose[place].checked_sub(1) {
            self.lines.lose[place] = left;
            return;
        }
        if let Some(process) = &mut self.process {
            process.feed.publish(message, &self.lines, self.now.instant);
        }
        if std::mem::take(&mut self.lines.double[place]) {
            self.line.bitcoind.borrow_mut().publish_again(message);
        }
    }

    /// The node falls silent, all is delivered and looked at again.
    fn end(mut self) -> Tally {
        (self.doom, self.drop_asks, self.call_ms) = (None, 0, 1);
        self.lines = Lines::default();
        self.line.bitcoind.borrow_mut().failing = 0;
        self.stalled_until = self.now.instant;
        self.pass(10_000);
        self.switch(true);
        self.pass(SILENCE);
        let process = self.process.as_mut().expect("it runs");
        let status = process.follower.status(self.now).clone();
        let bitcoind = self.line.bitcoind.borrow();
        let view = self.rows.view.borrow();
        if let Some(known) = bitcoind
            .last_known(&view)
            .filter(|it| it + 1 < bitcoind.horizon)
        {
            let reason = status.reason.unwrap_or_default();
            assert!(
                !status.following && reason.contains("has pruned blocks"),
                "the node has no block {}, and we say: {reason}",
                known + 1
            );
            return Tally::of_a_gap();
        }
        assert!(status.following, "in the end: {:?}", status.reason);
        for number in &self.witness.watched {
            let row = view.watches.get(&script(*number));
            let row = row.expect("what a person was told to be watched is");
            assert!(
                row.coverage.utxos_complete && !row.coverage.pending,
                "the past of every script was found"
            );
        }
        let listed = view.watches.values().filter(|row| row.listed);
        assert_eq!(
            listed.count(),
            self.witness.watched.len(),
            "nothing else is watched"
        );
        assert!(
            view.forgetting.is_empty() && view.leaving.is_empty(),
            "all was forgotten"
        );
        assert!(view.joining.is_empty(), "all has joined");
        let kept = Kept {
            node: &bitcoind.node,
            view: &view,
            watched: &self.witness.watched,
            past: &self.rows.past,
        };
        kept.check();
        kept.check_descriptors(&self.witness.wallets.known, true);
        check_places(&view);
        self.witness.wallets.check(&view);
        let tally = self.witness.scans.check(&kept, &self.rows.log);
        if self.weather == Weather::Calm {
            kept.check_fates();
        }
        self.witness.readers.end(&self.rows.log);
        tally
    }
}
