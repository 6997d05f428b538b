//! One process: the real follower and the real tracker, and what stands between them and the world.
//! It does what `follower::shell` and `indexer` do, with virtual time and without threads.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use satwatch::bitcoind::Endpoints;
use satwatch::indexer::{Done, must_last};
use satwatch::tracker::{
    ApplyError, BlockId, FollowUp, FoundOutput, Input, MemoryView, Overlay, ScriptHash, Tracker,
    View,
};
use satwatch::{config, tracker::Transition};

use crate::calls::{Fetch, Line, Pending};
use crate::clock::{Now, millis};
use crate::feed::Feed;
use crate::laws::Witness;
use crate::random::Random;
use crate::rows::Rows;
use crate::scanning::Scanning;
use crate::seam::{Action, Follower, FollowerEvent, NodeLink, NodeUrl, StatusBuilder};
use crate::wallets::Deriving;

/// Between two polls.
const INTERVAL: Duration = Duration::from_secs(10);
/// Between two looks for scripts whose past is to be found, and for history scans, without being
/// told.
pub const LOOK: Duration = Duration::from_secs(10);
/// Inputs of one commit.
const BATCH: u64 = 5;

/// The process is dead.
#[derive(Debug)]
pub struct Died;

/// When it dies, in commits from now.
#[derive(Debug, Clone, Copy)]
pub struct Doom {
    pub after: u8,
    pub loses: Option<u8>,
    pub ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Follower,
    Baseline,
    Scan,
    Deriving,
    Person,
    Nobody,
}

struct Job {
    input: Input,
    sender: Sender,
}

enum Baseline {
    /// The node is asked then.
    Wanted(Instant),
    /// What it answered arrives then.
    Scanned {
        at: Instant,
        block: BlockId,
        scripts: Vec<ScriptHash>,
        outputs: Vec<FoundOutput>,
    },
}

/// What a process meets beside itself.
pub struct Around<'a> {
    pub now: Now,
    pub line: &'a Line,
    pub rows: &'a mut Rows,
    pub witness: &'a mut Witness,
    pub random: &'a mut Random,
    pub doom: &'a mut Option<Doom>,
    pub drop_asks: &'a mut u8,
    pub call_ms: u64,
    pub trace: bool,
}

/// What can be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Index,
    Notices,
    Answer(usize),
    Block,
    FollowUp,
    Woken,
    Baseline,
    Scan,
    Evict,
    Forget,
    Derive,
    Join,
}

pub struct Process {
    pub follower: Follower,
    tracker: Tracker,
    pub feed: Feed,
    calls: Vec<Pending>,
    fetch: Option<Fetch>,
    /// A fetched block, or the end of them, waits for the follower.
    fetched: VecDeque<FollowerEvent>,
    inbox: VecDeque<Job>,
    /// They were refused because scripts which they watch are still being forgotten; tried again.
    too_early: Vec<Job>,
    follow_ups: VecDeque<FollowUp>,
    baseline: Baseline,
    scanning: Scanning,
    deriving: Deriving,
}

impl Process {
    pub fn start(
        settings: &config::Bitcoind,
        endpoints: &Endpoints,
        monitoring: bool,
        around: &mut Around,
    ) -> Result<Self, Died> {
        let tracker = around.rows.start([9; 16]);
        let now = around.now;
        let url = NodeUrl::parse("http://127.0.0.1:8332").expect("it is an address");
        let status = StatusBuilder::new(INTERVAL);
        let node = NodeLink::new(settings.clone(), url, "main", status, monitoring, now);
        let mut process = Self {
            follower: Follower::new(node, tracker.tip(), INTERVAL, now),
            tracker,
            feed: Feed::default(),
            calls: Vec::new(),
            fetch: None,
            fetched: VecDeque::new(),
            inbox: VecDeque::new(),
            too_early: Vec::new(),
            follow_ups: VecDeque::new(),
            baseline: Baseline::Wanted(now.instant),
            scanning: Scanning::Wanted(now.instant),
            deriving: Deriving::Wanted(now.instant),
        };
        process.tell(FollowerEvent::Found(endpoints.clone()), around)?;
        Ok(process)
    }

    /// What a person asks for.
    pub fn request(&mut self, input: Input) {
        let sender = Sender::Person;
        self.inbox.push_back(Job { input, sender });
    }

    /// What a person asks for and what may be too late.
    pub fn try_to(&mut self, input: Input) {
        let sender = Sender::Nobody;
        self.inbox.push_back(Job { input, sender });
    }

    /// Calls and scans go on beside everything else.
    pub fn go_on(&mut self, around: &mut Around) {
        let (now, takes) = (around.now.instant, millis(around.call_ms));
        for call in &mut self.calls {
            while call.answer.is_none() && call.at <= now {
                call.step(takes);
            }
        }
        while let Some(fetch) = self.fetch.as_mut().filter(|fetch| fetch.at <= now) {
            let mut node = around.line.bitcoind.borrow_mut();
            if let Some(fetched) = fetch.step(&mut node, takes) {
                if !matches!(fetched, Some(Ok(_))) {
                    self.fetch = None;
                }
                self.fetched.push_back(FollowerEvent::Fetched(fetched));
            }
        }
        self.find_outputs(around);
        let is_at_tip = self.follower.position().at_node_tip;
        self.scanning.go_on(is_at_tip, around);
    }

    /// The node is asked what scripts owned before they were added.
    fn find_outputs(&mut self, around: &Around) {
        let now = around.now.instant;
        let Baseline::Wanted(at) = self.baseline else {
            return;
        };
        if at > now {
            return;
        }
        let view = around.rows.view.borrow();
        let pending = view.watches.iter().filter(|(_, row)| row.coverage.pending);
        let mut scripts: Vec<ScriptHash> = pending.map(|(script, _)| *script).collect();
        // As the store has them.
        scripts.sort_unstable();
        let node = around.line.bitcoind.borrow();
        self.baseline = if scripts.is_empty() {
            Baseline::Wanted(now + LOOK)
        } else if !self.follower.position().at_node_tip || !node.is_ready() {
            Baseline::Wanted(now + millis(200))
        } else {
            Baseline::Scanned {
                at: now + millis(around.call_ms * 2),
                block: node.node.tip(),
                outputs: node.node.found(&scripts),
                scripts,
            }
        };
    }

    /// When something happens although nothing is ready.
    pub fn next(&self) -> Option<Instant> {
        let baseline = match &self.baseline {
            Baseline::Wanted(at) | Baseline::Scanned { at, .. } => Some(*at),
        };
        let others = [
            self.fetch.as_ref().map(|fetch| fetch.at),
            baseline,
            Some(self.scanning.next()),
            self.deriving.next(),
            self.feed.next(),
            Some(self.follower.wake_at()),
        ];
        let calls = self.calls.iter().map(|call| call.at);
        calls.chain(others.into_iter().flatten()).min()
    }

    pub fn ready(&self, is_stalled: bool, now: Instant) -> Vec<Ready> {
        let mut ready = Vec::new();
        if !self.inbox.is_empty() {
            ready.push(Ready::Index);
        }
        if self.tracker.is_evicting() {
            ready.push(Ready::Evict);
        }
        if self.tracker.has_to_forget() {
            ready.push(Ready::Forget);
        }
        if self.tracker.has_to_join() {
            ready.push(Ready::Join);
        }
        if self.deriving.is_due(now) {
            ready.push(Ready::Derive);
        }
        if matches!(self.baseline, Baseline::Scanned { at, .. } if at <= now) {
            ready.push(Ready::Baseline);
        }
        if self.scanning.is_read(now) {
            ready.push(Ready::Scan);
        }
        if is_stalled {
            return ready;
        }
        match self.feed.waits() {
            true => ready.push(Ready::Notices),
            false if self.follower.wake_at() <= now => ready.push(Ready::Woken),
            false => {}
        }
        let answers = self.calls.iter().enumerate();
        let answers = answers.filter(|(_, call)| call.answer.is_some() && call.at <= now);
        ready.extend(answers.map(|(place, _)| Ready::Answer(place)));
        if !self.fetched.is_empty() {
            ready.push(Ready::Block);
        }
        if !self.follow_ups.is_empty() {
            ready.push(Ready::FollowUp);
        }
        ready
    }

    pub fn run(&mut self, what: Ready, around: &mut Around) -> Result<(), Died> {
        match what {
            Ready::Index => self.commit(around).map(|_| ()),
            Ready::Notices => {
                for _ in 0..around.random.within(1, 256) {
                    let Some(stamped) = self.feed.take() else {
                        break;
                    };
                    self.tell(FollowerEvent::Notice(stamped), around)?;
                }
                Ok(())
            }
            Ready::Answer(place) => {
                let call = self.calls.swap_remove(place);
                let answer = call.answer.expect("it is ready");
                self.tell(FollowerEvent::Answered(answer), around)
            }
            Ready::Block => match self.fetched.pop_front() {
                Some(event) => self.tell(event, around),
                None => Ok(()),
            },
            Ready::FollowUp => match self
                .follow_ups
                .pop_front()
                .and_then(|ask| self.asked(ask, around))
            {
                Some(event) => self.tell(event, around),
                None => Ok(()),
            },
            Ready::Evict => {
                let (input, sender) = (Input::EvictMore, Sender::Nobody);
                self.inbox.push_back(Job { input, sender });
                self.commit(around).map(|_| ())
            }
            Ready::Forget => {
                let (input, sender) = (Input::Forget { now: around.now.ms }, Sender::Nobody);
                self.inbox.push_back(Job { input, sender });
                self.commit(around)?;
                self.inbox.extend(self.too_early.drain(..));
                Ok(())
            }
            Ready::Join => {
                let (input, sender) = (Input::Join { now: around.now.ms }, Sender::Nobody);
                self.inbox.push_back(Job { input, sender });
                self.commit(around).map(|_| ())
            }
            Ready::Derive => {
                let now = (around.now.instant, around.now.ms);
                if let Some(input) = self.deriving.take(&around.rows.view.borrow(), now) {
                    let sender = Sender::Deriving;
                    self.inbox.push_back(Job { input, sender });
                }
                Ok(())
            }
            Ready::Woken => self.tell(FollowerEvent::Woken, around),
            Ready::Baseline => {
                self.merge(around);
                Ok(())
            }
            Ready::Scan => {
                if let Some(input) = self.scanning.take(around.now.instant) {
                    let sender = Sender::Scan;
                    self.inbox.push_back(Job { input, sender });
                }
                Ok(())
            }
        }
    }

    fn merge(&mut self, around: &Around) {
        let again = Baseline::Wanted(around.now.instant + millis(200));
        let scanned = std::mem::replace(&mut self.baseline, again);
        let Baseline::Scanned {
            block,
            scripts,
            outputs,
            ..
        } = scanned
        else {
            return;
        };
        if self.follower.position().at_node_tip {
            let now = around.now.ms;
            let input = Input::Baseline {
                block,
                scripts,
                outputs,
                now,
            };
            let sender = Sender::Baseline;
            self.inbox.push_back(Job { input, sender });
        }
    }

    fn asked(&mut self, ask: FollowUp, around: &Around) -> Option<FollowerEvent> {
        match ask {
            FollowUp::Derive => {
                self.deriving.wake(around.now.instant);
                None
            }
            FollowUp::Baseline => {
                if matches!(self.baseline, Baseline::Wanted(_)) {
                    self.baseline = Baseline::Wanted(around.now.instant);
                }
                None
            }
            FollowUp::Scans => {
                self.scanning.wake(around.now.instant);
                None
            }
            FollowUp::Check(_) | FollowUp::Fetch(_) => Some(FollowerEvent::Asked(ask)),
        }
    }

    /// Hands the follower an event and carries out what comes of it.
    pub fn tell(&mut self, event: FollowerEvent, around: &mut Around) -> Result<(), Died> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if around.trace {
                eprintln!("{:>8} {}", around.witness.ms(around.now), brief(&event));
            }
            for action in self.follower.handle(event, around.now) {
                if around.trace {
                    eprintln!("{:>8}   -> {}", "", brief(&action));
                }
                self.carry_out(action, &mut events, around)?;
            }
        }
        let _ = self.follower.status(around.now);
        Ok(())
    }

    fn carry_out(
        &mut self,
        action: Action,
        events: &mut VecDeque<FollowerEvent>,
        around: &mut Around,
    ) -> Result<(), Died> {
        let takes = millis(around.call_ms);
        match action {
            Action::Apply(input) => {
                let sender = Sender::Follower;
                self.inbox.push_back(Job { input, sender });
                let result = loop {
                    if let Some(result) = self.commit(around)? {
                        break result;
                    }
                };
                while let Some(ask) = self.follow_ups.pop_front() {
                    events.extend(self.asked(ask, around));
                }
                events.push_back(FollowerEvent::Applied(result));
            }
            Action::Post(input) => {
                let sender = Sender::Nobody;
                self.inbox.push_back(Job { input, sender });
            }
            Action::Call(call) => {
                let line = around.line.clone();
                self.calls
                    .push(Pending::begin(call, line, around.now, takes));
            }
            Action::Fetch(hashes) => {
                self.fetched.clear();
                self.fetch = Some(Fetch::begin(hashes, around.now, takes));
            }
            Action::StopFetch => {
                self.fetched.clear();
                self.fetch = None;
            }
            Action::Subscribe(endpoints) => {
                let is_up = around.line.bitcoind.borrow().is_up();
                self.feed = Feed::open(&endpoints, around.now.instant, is_up);
            }
        }
        Ok(())
    }

    /// One batch of the inputs that wait. What the follower waits for, if that was among them.
    fn commit(&mut self, around: &mut Around) -> Result<Option<Result<Done, ApplyError>>, Died> {
        let mut jobs = Vec::new();
        while let Some(next) = self.inbox.front() {
            let is_large = matches!(
                next.input,
                Input::Start { .. } | Input::Connect { .. } | Input::Disconnect { .. }
            );
            if !jobs.is_empty() && (is_large || around.random.once_in(BATCH)) {
                break;
            }
            jobs.extend(self.inbox.pop_front());
        }
        let view = around.rows.view.clone();
        let applied = match around
            .rows
            .disk
            .as_ref()
            .and_then(|disk| disk.open.as_ref())
        {
            Some((writer, _)) => apply(&mut self.tracker, writer, jobs, around),
            None => apply::<MemoryView>(&mut self.tracker, &view.borrow(), jobs, around),
        };
        let dies = matches!(around.doom, Some(doom) if doom.after == 0);
        if dies && around.random.once_in(2) {
            return Err(Died);
        }
        let head = around.rows.commit(&applied.transitions, applied.sync);
        around
            .witness
            .committed(&applied.transitions, head, around.line);
        if dies {
            return Err(Died);
        }
        if let Some(doom) = around.doom {
            doom.after -= 1;
        }
        for ask in applied.transitions.into_iter().flat_map(|it| it.follow_ups) {
            match around.drop_asks.checked_sub(1) {
                Some(left) => *around.drop_asks = left,
                None => self.follow_ups.push_back(ask),
            }
        }
        for (sender, input, result) in applied.results {
            match sender {
                Sender::Follower => return Ok(Some(result)),
                Sender::Person => match result {
                    Err(ApplyError::StillForgetting(_) | ApplyError::StillLeaving(_)) => {
                        self.too_early.push(Job { input, sender });
                    }
                    // Somebody else was faster.
                    Err(ApplyError::NoSuchDescriptor(_)) => {
                        around.witness.wallets.answered(&input, false);
                    }
                    Err(ApplyError::AlreadyGiven(_) | ApplyError::NotDerivedTo(_)) => {}
                    result => {
                        result.expect("what a person asks for is not refused");
                        around.witness.acknowledged(&input);
                    }
                },
                Sender::Deriving => self.deriving.answered(result.is_ok(), around.now.instant),
                Sender::Baseline | Sender::Scan | Sender::Nobody => {}
            }
        }
        Ok(None)
    }
}

struct Applied {
    transitions: Vec<Transition>,
    sync: bool,
    results: Vec<(Sender, Input, Result<Done, ApplyError>)>,
}

fn apply<V: View>(tracker: &mut Tracker, view: &V, jobs: Vec<Job>, around: &Around) -> Applied {
    let mut overlay = Overlay::new(view);
    let mut applied = Applied {
        transitions: Vec::new(),
        sync: false,
        results: Vec::new(),
    };
    for Job { input, sender } in jobs {
        let lasting = must_last(&input);
        let result = match tracker.apply(&overlay, input.clone()) {
            Ok(transition) => {
                if around.trace {
                    for event in &transition.events {
                        eprintln!("{:>8}      {}", "", brief(&event.kind));
                    }
                }
                overlay.add(transition.changes.clone());
                applied.sync |= lasting;
                applied.transitions.push(transition);
                Ok(Done {
                    tip: tracker.tip(),
                    is_evicting: tracker.is_evicting(),
                    ..Done::default()
                })
            }
            Err(error) => {
                assert!(!error.is_fatal(), "{error}");
                Err(error)
            }
        };
        applied.results.push((sender, input, result));
    }
    applied
}

fn brief(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    text.chars().take(300).collect()
}
