//! Carries out what the [`Follower`] wants, and brings it what comes.
//!
//! One task. It waits for the indexer only; calls, blocks and the feed come from beside it.

use std::collections::VecDeque;
use std::sync::Arc;

use bitcoin::BlockHash;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::actions::{Action, Answer, FollowerEvent, Now};
use super::{FollowError, Follower, calls, look};
use crate::bitcoind::SyncPosition;
use crate::bitcoind::rpc::Rpc;
use crate::bitcoind::zmq::{Feed, Stamped};
use crate::bitcoind::{Endpoints, NodeError, NodeStatus};
use crate::clock::now_ms;
use crate::history::NodeContext;
use crate::indexer::{Handle, InputRefused};
use crate::remedy::Remedy;
use crate::store::{StoreError, StoreReader};
use crate::tracker::{FollowUp, RawBlock};

/// Notices handled before everything else has its turn.
const TURN: usize = 256;

type Blocks = mpsc::Receiver<Result<RawBlock, NodeError>>;

pub(super) struct Shell {
    follower: Follower,
    rpc: Rpc,
    reader: StoreReader,
    indexer: Handle,
    follow_ups: mpsc::Receiver<FollowUp>,
    monitoring: watch::Receiver<bool>,
    status: watch::Sender<NodeStatus>,
    position: watch::Sender<SyncPosition>,
    /// Baselines are to be made.
    pub(super) baseline: Arc<Notify>,
    /// History scans were opened or ended.
    pub(super) scans: Arc<Notify>,
    feed: Option<Feed>,
    calls: JoinSet<Result<Answer, StoreError>>,
    blocks: Option<Blocks>,
}

pub(super) fn now() -> Now {
    Now {
        instant: tokio::time::Instant::now().into_std(),
        ms: now_ms(),
    }
}

impl Shell {
    pub(super) fn new(
        follower: Follower,
        rpc: Rpc,
        reader: StoreReader,
        indexer: Handle,
        follow_ups: mpsc::Receiver<FollowUp>,
        monitoring: watch::Receiver<bool>,
        status: watch::Sender<NodeStatus>,
    ) -> Self {
        let position = watch::Sender::new(follower.position());
        Self {
            follower,
            rpc,
            reader,
            indexer,
            follow_ups,
            monitoring,
            status,
            position,
            baseline: Arc::new(Notify::new()),
            scans: Arc::new(Notify::new()),
            feed: None,
            calls: JoinSet::new(),
            blocks: None,
        }
    }

    /// What the tasks beside it work with.
    pub(super) fn context(&self) -> NodeContext {
        NodeContext {
            rpc: self.rpc.clone(),
            reader: self.reader.clone(),
            indexer: self.indexer.clone(),
            position: self.position.subscribe(),
        }
    }

    /// Follows the node that publishes at these endpoints.
    pub(super) async fn run(
        mut self,
        endpoints: Endpoints,
        shutdown: CancellationToken,
    ) -> Result<(), FollowError> {
        self.handle(FollowerEvent::Found(endpoints)).await?;
        loop {
            self.publish();
            let wake = tokio::time::Instant::from_std(self.follower.wake_at());
            let event = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                notice = next_notice(&mut self.feed) => {
                    self.notices(notice).await?;
                    continue;
                }
                Some(answer) = self.calls.join_next() => match answer {
                    Ok(answer) => FollowerEvent::Answered(answer?),
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => continue,
                },
                block = next_block(&mut self.blocks) => FollowerEvent::Fetched(block),
                Some(ask) = self.follow_ups.recv() => match self.asked(ask) {
                    Some(event) => event,
                    None => continue,
                },
                Ok(()) = self.monitoring.changed() => {
                    FollowerEvent::Monitoring(*self.monitoring.borrow_and_update())
                }
                () = tokio::time::sleep_until(wake) => {
                    // What came until now goes first.
                    if let Some(first) = self.feed.as_mut().and_then(Feed::try_recv) {
                        self.notices(Some(first)).await?;
                        continue;
                    }
                    FollowerEvent::Woken
                }
            };
            self.handle(event).await?;
        }
    }

    async fn notices(&mut self, first: Option<Stamped>) -> Result<(), FollowError> {
        if first.is_none() {
            // The thread never ends by itself, so this is the end of a dying process; the poll goes
            // on.
            self.feed = None;
        }
        let (mut next, mut turn) = (first, TURN);
        while let Some(stamped) = next {
            self.handle(FollowerEvent::Notice(stamped)).await?;
            turn -= 1;
            next = match turn {
                0 => None,
                _ => self.feed.as_mut().and_then(Feed::try_recv),
            };
        }
        Ok(())
    }

    /// Hands the follower an event and carries out what comes of it.
    async fn handle(&mut self, event: FollowerEvent) -> Result<(), FollowError> {
        let (mut next, mut events) = (Some(event), VecDeque::new());
        while let Some(event) = next {
            for action in self.follower.handle(event, now()) {
                self.carry_out(action, &mut events).await?;
            }
            next = events.pop_front();
        }
        Ok(())
    }

    async fn carry_out(
        &mut self,
        action: Action,
        events: &mut VecDeque<FollowerEvent>,
    ) -> Result<(), FollowError> {
        match action {
            Action::Apply(input) => {
                let result = match self.indexer.apply(input).await {
                    Ok(done) => Ok(done),
                    Err(InputRefused::Apply(error)) => Err(error),
                    Err(InputRefused::Stopped(stopped)) => return Err(stopped.into()),
                };
                // The indexer hands these out before it answers.
                while let Ok(ask) = self.follow_ups.try_recv() {
                    events.extend(self.asked(ask));
                }
                events.push_back(FollowerEvent::Applied(result));
            }
            Action::Post(input) => self.indexer.post(input).await?,
            Action::Call(call) => {
                let (rpc, reader) = (self.rpc.clone(), self.reader.clone());
                self.calls.spawn(calls::make(call, rpc, reader));
            }
            Action::Fetch(hashes) => self.fetch(hashes),
            Action::StopFetch => self.blocks = None,
            Action::Subscribe(endpoints) => self.subscribe(&endpoints),
        }
        Ok(())
    }

    /// What the tracker asks the follower; the rest wakes others.
    fn asked(&mut self, follow_up: FollowUp) -> Option<FollowerEvent> {
        match follow_up {
            FollowUp::Baseline => self.baseline.notify_one(),
            FollowUp::Scans => self.scans.notify_one(),
            // The indexer tells those who derive, whether we follow or not.
            FollowUp::Derive => {}
            FollowUp::Check(_) | FollowUp::Fetch(_) => {
                return Some(FollowerEvent::Asked(follow_up));
            }
        }
        None
    }

    fn fetch(&mut self, hashes: Vec<BlockHash>) {
        let (sender, blocks) = mpsc::channel(1);
        self.blocks = Some(blocks);
        tokio::spawn(look::fetch(self.rpc.clone(), hashes, sender));
    }

    fn subscribe(&mut self, endpoints: &Endpoints) {
        self.feed = Feed::open(endpoints).unwrap_or_else(|error| {
            tracing::error!(
                "cannot subscribe to ZMQ ({error}), only the poll works: {}",
                Remedy::ReachEndpoint
            );
            None
        });
    }

    fn publish(&mut self) {
        let position = self.follower.position();
        self.position
            .send_if_modified(|known| std::mem::replace(known, position) != position);
        let status = self.follower.status(now());
        self.status.send_if_modified(|known| {
            let is_new = known != status;
            if is_new {
                known.clone_from(status);
            }
            is_new
        });
    }
}

/// The next notice; never without a feed.
async fn next_notice(feed: &mut Option<Feed>) -> Option<Stamped> {
    match feed {
        Some(feed) => feed.recv().await,
        None => std::future::pending().await,
    }
}

/// The next fetched block, `None` once after the last one; never without a fetch.
async fn next_block(blocks: &mut Option<Blocks>) -> Option<Result<RawBlock, NodeError>> {
    let Some(fetched) = blocks else {
        return std::future::pending().await;
    };
    let block = fetched.recv().await;
    if block.is_none() {
        *blocks = None;
    }
    block
}
