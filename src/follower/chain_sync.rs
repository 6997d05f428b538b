//! The chain's side: blocks that come, and looks when something does not fit. No I/O, no clock.
//!
//! It is the only source of chain inputs, so it knows our tip.
//!
//! What a look shows, and the blocks that are fetched because of it, may be of before something
//! that was told meanwhile. Blocks that the node has taken back would be connected, and what its
//! mempool took in their place would be told to conflict with them. So what is under way does not
//! count any more when the node says that it disconnected a block of it, nor when it may have said
//! so: messages were lost, or a block came that is not on our tip. Losses and blocks may come
//! without pause, so the second reason counts only once until what was asked anew has ended: blocks
//! were fetched, there are none to fetch, or we wait. A feed that is connected always counts.
//!
//! News may be late as well. A block that a look made us disconnect, or that was announced before a
//! look and is not in what that shows, comes over `rawblock` after that: it is connected only if
//! the node, asked again, has it ([`RecentBlocks`]).

use std::time::Instant;

use bitcoin::BlockHash;

use super::actions::{Action, Call, Now};
use super::backoff::Backoff;
use super::node_link::NodeLink;
use super::recent_blocks::RecentBlocks;
use super::times::{BLOCK_FOLLOWS, SOON, WAIT};
use crate::bitcoind::{NodeError, NodeErrorKind, rpc};
use crate::follower::fork::{self, ChainAction, RollbackEvidence, StartWindow, TipComparison};
use crate::tracker::{ApplyError, BlockId, Input, RawBlock};

#[derive(Default)]
pub(super) struct ChainSync {
    tip: Option<BlockId>,
    /// The node's tip as far as we know.
    node_tip: Option<BlockHash>,
    want: Option<WantedLook>,
    call: Option<ChainCall>,
    /// These blocks are being fetched after a look.
    fetching: Option<Vec<BlockHash>>,
    pending: Option<Pending>,
    recent: RecentBlocks,
    /// Our tip and the node's tip at the last look, and since when they are the same.
    standing: Option<(Option<BlockId>, BlockHash, Instant)>,
    /// What was under way was asked again because a block may have been disconnected.
    doubted: bool,
    /// Why nothing happens although the tips differ.
    waiting: Option<String>,
    /// What looks led to was refused.
    refusals: Backoff,
}

struct WantedLook {
    at: Instant,
    /// Something told us to look; otherwise what is found has not come over ZMQ.
    prompted: bool,
    /// This block is expected; when it comes there is no need to look.
    until: Option<BlockHash>,
}

/// On its way.
enum ChainCall {
    Look(LookOf),
    StartWindow,
}

/// What is decided when an answer comes, which is the next event.
enum Pending {
    Connect {
        hash: BlockHash,
        over_zmq: bool,
    },
    Disconnect {
        next: Vec<BlockHash>,
        prompted: bool,
    },
    Start,
}

/// What happened to the chain, for the mempool's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChainNews {
    /// Blocks became ours, maybe the first ones.
    Connected,
    Disconnected,
    /// The node's tip is ours.
    AtNodeTip,
    /// The node's chain is not followed for now.
    Waiting,
}

impl ChainSync {
    pub(super) fn new(tip: Option<BlockId>) -> Self {
        Self {
            tip,
            ..Self::default()
        }
    }

    pub(super) fn tip(&self) -> Option<BlockId> {
        self.tip
    }

    pub(super) fn is_at(&self, hash: BlockHash) -> bool {
        self.tip.is_some_and(|tip| tip.hash == hash)
    }

    /// Not before the look that follows a fetch has said so: the node may have gone on meanwhile.
    pub(super) fn at_node_tip(&self) -> bool {
        self.fetching.is_none() && self.node_tip.is_some_and(|hash| self.is_at(hash))
    }

    pub(super) fn waiting(&self) -> Option<&String> {
        self.waiting.as_ref()
    }

    /// An answer is the next event.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// A look, or what it led to, is under way.
    pub(super) fn is_moving(&self) -> bool {
        self.call.is_some() || self.fetching.is_some()
    }

    pub(super) fn want_look(&mut self, at: Instant, prompted: bool) {
        let known = self.want.take();
        self.want = Some(WantedLook {
            at: known.as_ref().map_or(at, |known| known.at.min(at)),
            prompted: prompted || known.is_some_and(|known| known.prompted),
            until: None,
        });
    }

    /// When the next look is due; `None` while another one, or what it led to, is under way.
    pub(super) fn look_at(&self, node: &NodeLink) -> Option<Instant> {
        let want = self.want.as_ref().filter(|_| !self.is_moving())?;
        Some(node.not_before(want.at))
    }

    pub(super) fn start_look(&mut self, node: &NodeLink, now: Now, actions: &mut Vec<Action>) {
        let due = self.look_at(node).is_some_and(|at| at <= now.instant);
        let Some(want) = self.want.take_if(|_| due) else {
            return;
        };
        self.recent.look_begins();
        self.call = Some(ChainCall::Look(LookOf::at(self.tip, want.prompted)));
        actions.push(Action::Call(Call::Look { ours: self.tip }));
    }

    /// Monitoring was started or stopped.
    pub(super) fn stop(&mut self, actions: &mut Vec<Action>) {
        self.look_is_old();
        self.stop_fetch(actions);
        self.recent.forget_notices();
        *self = Self {
            tip: self.tip,
            call: self.call.take(),
            recent: std::mem::take(&mut self.recent),
            ..Self::default()
        };
    }

    /// What the node said before does not count any more.
    pub(super) fn forget_notices(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.recent.forget_notices();
        self.doubt(true, now, actions);
    }

    /// What was published before is not known to have come.
    pub(super) fn feed_is_new(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.doubted = false;
        self.doubt(true, now, actions);
    }

    /// The node may have disconnected a block without our hearing of it. `prompted`: as of a look.
    pub(super) fn doubt(&mut self, prompted: bool, now: Now, actions: &mut Vec<Action>) {
        let is_asked = self.fetching.is_some() || matches!(self.call, Some(ChainCall::Look(_)));
        if !is_asked || self.doubted {
            return;
        }
        self.look_is_old();
        self.stop_fetch(actions);
        self.doubted = true;
        self.want_look(now.instant + SOON, prompted);
    }

    fn look_is_old(&mut self) {
        if let Some(ChainCall::Look(of)) = &mut self.call {
            of.is_old = true;
        }
    }

    /// A block over `rawblock`.
    pub(super) fn block(&mut self, raw: Vec<u8>, at: u64, now: Now, actions: &mut Vec<Action>) {
        let (Some(block), Some(tip)) = (RawBlock::parse(raw.into()), self.tip) else {
            return;
        };
        if block.hash() == tip.hash {
            return;
        }
        let is_gone = self.recent.is_gone(&block.hash());
        if block.header().prev_blockhash != tip.hash || is_gone {
            if !self.is_fetching(block.hash()) {
                self.doubt(true, now, actions);
            }
            return self.want_look(now.instant, true);
        }
        self.connect(block, true, at, actions);
    }

    /// The node said that it connected a block; the block itself follows if its feed is up and all
    /// goes well.
    pub(super) fn block_announced(&mut self, hash: BlockHash, follows: bool, now: Now) {
        self.recent.announced(hash);
        if self.is_at(hash) {
            return;
        }
        let at = match follows {
            true => now.instant + BLOCK_FOLLOWS,
            false => now.instant,
        };
        let is_all = follows && self.want.is_none();
        self.want_look(at, true);
        if let Some(want) = self.want.as_mut().filter(|_| is_all) {
            want.until = Some(hash);
        }
    }

    /// The node said that it disconnected a block: what it answered before may hold that.
    pub(super) fn block_disconnected(
        &mut self,
        hash: BlockHash,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        self.look_is_old();
        if self.is_fetching(hash) {
            self.stop_fetch(actions);
        }
        self.recent.taken_back(hash);
        self.want_look(now.instant + SOON, true);
    }

    /// A look or the question for the start has its answer, maybe none that is good.
    pub(super) fn call_ended(&mut self, has_failed: bool) -> LookOf {
        self.doubted &= !has_failed;
        match self.call.take() {
            Some(ChainCall::Look(of)) => of,
            Some(ChainCall::StartWindow) | None => LookOf::at(self.tip, true),
        }
    }

    /// What a look showed, of a node of our chain.
    pub(super) fn looked(
        &mut self,
        of: LookOf,
        look: &TipComparison,
        node: &mut NodeLink,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Option<ChainNews> {
        if of.ours != self.tip || of.is_old {
            // A block came or went over ZMQ meanwhile.
            self.want_look(now.instant, of.prompted);
            return None;
        }
        self.node_tip = Some(look.node.bestblockhash);
        if let Some(above) = look.above() {
            self.recent.looked(above);
        }
        let evidence = self.evidence(look, now);
        let waited = self.waiting.take();
        let action = fork::decide(of.ours, look, evidence);
        self.doubted &= !matches!(action, ChainAction::Nothing | ChainAction::Wait(_));
        match action {
            ChainAction::Nothing => return Some(ChainNews::AtNodeTip),
            ChainAction::Start => {
                self.call = Some(ChainCall::StartWindow);
                actions.push(Action::Call(Call::StartWindow));
            }
            ChainAction::Wait(why) => {
                if waited.is_none() {
                    tracing::warn!("{why}");
                }
                self.waiting = Some(why);
                self.want_look(now.instant + WAIT, of.prompted);
                return Some(ChainNews::Waiting);
            }
            ChainAction::Connect(next) => self.fetch(next, of.prompted, node, actions),
            ChainAction::Disconnect { to, next } => {
                let prompted = of.prompted;
                self.pending = Some(Pending::Disconnect { next, prompted });
                actions.push(Action::Apply(Input::Disconnect { to, now: now.ms }));
            }
        }
        None
    }

    fn evidence(&mut self, look: &TipComparison, now: Now) -> RollbackEvidence {
        let best = look.node.bestblockhash;
        let since = match self.standing {
            Some((ours, known, since)) if ours == self.tip && known == best => since,
            _ => now.instant,
        };
        self.standing = Some((self.tip, best, since));
        RollbackEvidence {
            told: self.tip.is_some_and(|tip| self.recent.is_told(&tip.hash)),
            stood: now.instant.saturating_duration_since(since),
        }
    }

    fn fetch(
        &mut self,
        next: Vec<BlockHash>,
        prompted: bool,
        node: &mut NodeLink,
        actions: &mut Vec<Action>,
    ) {
        if !prompted && node.offers_blocks() {
            tracing::debug!("{} blocks have not come over ZMQ", next.len());
            node.status.repaired(next.len().max(1) as u64);
        }
        self.fetching = Some(next.clone());
        actions.push(Action::Fetch(next));
    }

    fn is_fetching(&self, hash: BlockHash) -> bool {
        self.fetching.iter().flatten().any(|next| *next == hash)
    }

    /// Blocks may be missing, so that a tip which came over ZMQ meanwhile says nothing.
    fn stop_fetch(&mut self, actions: &mut Vec<Action>) {
        if self.fetching.take().is_some() {
            (self.node_tip, self.doubted) = (None, false);
            actions.push(Action::StopFetch);
        }
    }

    /// A block that was fetched after a look, or the end of them.
    pub(super) fn fetched(
        &mut self,
        block: Option<Result<RawBlock, NodeError>>,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Result<(), NodeError> {
        if self.fetching.is_none() {
            return Ok(());
        }
        match block {
            // Whether that was all is for the next look to say.
            None => {
                (self.fetching, self.node_tip, self.doubted) = (None, None, false);
                self.want_look(now.instant, true);
            }
            Some(Err(error)) => {
                self.stop_fetch(actions);
                return Err(pruned(error));
            }
            Some(Ok(block)) if self.is_at(block.header().prev_blockhash) => {
                self.connect(block, false, now.ms, actions)
            }
            // It came over ZMQ as well, and was faster.
            Some(Ok(block)) if self.recent.is_connected(&block.hash()) => {}
            Some(Ok(_)) => {
                self.stop_fetch(actions);
                self.want_look(now.instant + SOON, true);
            }
        }
        Ok(())
    }

    /// Connects a block whose parent is our tip.
    fn connect(&mut self, block: RawBlock, over_zmq: bool, at: u64, actions: &mut Vec<Action>) {
        let hash = block.hash();
        let height = self.tip.map_or(0, |tip| tip.height.saturating_add(1));
        self.pending = Some(Pending::Connect { hash, over_zmq });
        actions.push(Action::Apply(Input::Connect {
            block,
            height,
            now: at,
        }));
    }

    pub(super) fn windowed(
        &mut self,
        window: Option<StartWindow>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        match window.filter(|_| self.tip.is_none()) {
            Some((first_height, blocks)) => {
                self.pending = Some(Pending::Start);
                actions.push(Action::Apply(Input::Start {
                    first_height,
                    blocks,
                    now: now.ms,
                }));
            }
            // The node's tip moved.
            None => self.want_look(now.instant + SOON, true),
        }
    }

    /// The answer to what is pending.
    pub(super) fn applied(
        &mut self,
        result: Result<Option<BlockId>, ApplyError>,
        node: &mut NodeLink,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> Option<ChainNews> {
        let (pending, before) = (self.pending.take()?, self.tip);
        self.tip = match result {
            Ok(tip) => tip,
            Err(error) => {
                tracing::warn!("{error}");
                self.refused(&pending, now, actions);
                return None;
            }
        };
        match pending {
            Pending::Connect { hash, over_zmq } => {
                self.recent.connect(hash);
                self.want.take_if(|want| want.until == Some(hash));
                if over_zmq {
                    self.node_tip = Some(hash);
                    node.status.node_height(self.tip.map_or(0, |at| at.height));
                }
                Some(ChainNews::Connected)
            }
            Pending::Disconnect { next, prompted } => {
                if let (Some(before), Some(fork)) = (before, self.tip) {
                    let BlockId { height, hash } = fork;
                    tracing::info!("disconnected blocks down to {height} {hash}");
                    self.recent.disconnect(before, fork);
                }
                self.fetch(next, prompted, node, actions);
                Some(ChainNews::Disconnected)
            }
            Pending::Start => {
                self.want_look(now.instant, true);
                Some(ChainNews::Connected)
            }
        }
    }

    /// The tracker refused the input. A block that came over ZMQ may be damaged; what a look led to
    /// will be found again, and if it is damaged too, again and again.
    fn refused(&mut self, pending: &Pending, now: Now, actions: &mut Vec<Action>) {
        let at = match pending {
            Pending::Connect { over_zmq: true, .. } => now.instant,
            Pending::Connect { .. } | Pending::Disconnect { .. } | Pending::Start => {
                self.stop_fetch(actions);
                self.refusals.failed(now.instant);
                self.refusals.not_before(now.instant)
            }
        };
        self.want_look(at, true);
    }
}

/// From where a look was made, and whether something told us to.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookOf {
    ours: Option<BlockId>,
    prompted: bool,
    /// The node disconnected a block meanwhile, or may have.
    is_old: bool,
}

impl LookOf {
    fn at(ours: Option<BlockId>, prompted: bool) -> Self {
        Self {
            ours,
            prompted,
            is_old: false,
        }
    }
}

/// Thrown away between the look and the fetch.
fn pruned(error: NodeError) -> NodeError {
    if !rpc::is_pruned(&error) {
        return error;
    }
    NodeError::new(NodeErrorKind::Setup, fork::pruned())
}
