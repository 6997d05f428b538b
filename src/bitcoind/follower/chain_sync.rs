//! The follower's side of the chain: blocks that come, and looks when something does not fit.

use std::collections::VecDeque;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::consensus::encode;
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{CONNECT_DELAY, CallOutcome, FollowError, Follower, StartWindow};
use crate::bitcoind::fork::{self, ChainAction, RollbackEvidence, TipComparison};
use crate::bitcoind::zmq::ZmqTopic;
use crate::bitcoind::{NodeError, NodeErrorKind, rpc};
use crate::clock::now_ms;
use crate::indexer::InputRefused;
use crate::tracker::{BlockId, Input};

/// The block itself follows its announcement (`C`), after as many messages as it has transactions.
const BLOCK_FOLLOWS: Duration = Duration::from_millis(500);
/// Many blocks are disconnected one after the other.
const MORE_DISCONNECTS: Duration = Duration::from_millis(10);
/// Between two looks at a node that is waited for.
const WAIT: Duration = Duration::from_secs(1);
/// Disconnected blocks that are remembered.
const TOLD: usize = 4096;

pub(super) type Blocks = mpsc::Receiver<Result<Block, NodeError>>;

#[derive(Default)]
pub(super) struct ChainSync {
    /// The node's tip as far as we know.
    node_tip: Option<BlockHash>,
    want: Option<Want>,
    looking: bool,
    /// Blocks being fetched after a look.
    pub(super) blocks: Option<Blocks>,
    /// The node said that it disconnected these.
    pub(super) told: VecDeque<BlockHash>,
    /// Our tip and the node's tip at the last look, and since when they are the same.
    standing: Option<(Option<BlockId>, BlockHash, Instant)>,
    /// Why nothing happens although the tips differ.
    pub(super) waiting: Option<String>,
}

struct Want {
    at: Instant,
    /// Something told us to look.
    prompted: bool,
    /// This block is expected; when it comes there is no need to look.
    until: Option<BlockHash>,
}

impl ChainSync {
    /// Monitoring was started or stopped.
    pub(super) fn stop(&mut self) {
        *self = Self {
            looking: self.looking,
            node_tip: self.node_tip,
            ..Self::default()
        };
    }
}

/// The next fetched block; never without a fetch.
pub(super) async fn next_block(blocks: &mut Option<Blocks>) -> Option<Result<Block, NodeError>> {
    match blocks {
        Some(blocks) => blocks.recv().await,
        None => std::future::pending().await,
    }
}

impl Follower {
    /// Not before the look that follows a fetch has said so: the node may have gone on meanwhile.
    pub(super) fn at_node_tip(&self) -> bool {
        self.chain.blocks.is_none()
            && self
                .tip
                .is_some_and(|tip| Some(tip.hash) == self.chain.node_tip)
    }

    pub(super) fn want_look(&mut self, after: Duration, prompted: bool) {
        let at = Instant::now() + after;
        self.chain.want = Some(match self.chain.want.take() {
            Some(known) => Want {
                at: known.at.min(at),
                prompted: known.prompted || prompted,
                until: None,
            },
            None => Want {
                at,
                prompted,
                until: None,
            },
        });
    }

    /// When the next look is due; `None` while another one, or what it led to, is under way.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.chain
            .want
            .as_ref()
            .filter(|_| !self.chain_moves())
            .map(|want| want.at.max(self.pause_until))
    }

    /// A look, or what it led to, is under way.
    pub(super) fn chain_moves(&self) -> bool {
        self.chain.looking || self.chain.blocks.is_some()
    }

    pub(super) fn look(&mut self) {
        let Some(want) = self.chain.want.take() else {
            return;
        };
        self.chain.looking = true;
        let (rpc, reader, ours) = (self.rpc.clone(), self.reader.clone(), self.tip);
        self.work.spawn(async move {
            let result = fork::look(&rpc, &reader, ours).await;
            CallOutcome::Looked {
                ours,
                prompted: want.prompted,
                result,
            }
        });
    }

    /// A block over `rawblock`.
    pub(super) async fn block(&mut self, raw: Vec<u8>, at: u64) -> Result<(), FollowError> {
        let Some(header) = raw
            .get(..80)
            .and_then(|bytes| encode::deserialize::<Header>(bytes).ok())
        else {
            return Ok(());
        };
        let hash = header.block_hash();
        let Some(tip) = self.tip.filter(|tip| tip.hash != hash) else {
            return Ok(());
        };
        if header.prev_blockhash != tip.hash {
            self.want_look(Duration::ZERO, true);
            return Ok(());
        }
        // Megabytes take milliseconds to parse.
        let parsed = tokio::task::spawn_blocking(move || encode::deserialize::<Block>(&raw)).await;
        let connected = match parsed {
            Ok(Ok(block)) => self.connect(block, at).await?,
            _ => false,
        };
        if connected {
            self.chain.node_tip = Some(hash);
            self.publisher.node_height(tip.height.saturating_add(1));
        } else {
            self.want_look(Duration::ZERO, true);
        }
        Ok(())
    }

    /// The node said that it connected a block; the block itself follows, if all goes well.
    pub(super) fn block_announced(&mut self, hash: BlockHash) {
        self.chain.told.retain(|told| *told != hash);
        if self.tip.is_some_and(|tip| tip.hash == hash) {
            return;
        }
        let follows = self.publisher.topic_up(ZmqTopic::Rawblock);
        let after = if follows {
            BLOCK_FOLLOWS
        } else {
            Duration::ZERO
        };
        if follows && self.chain.want.is_none() {
            self.chain.want = Some(Want {
                at: Instant::now() + after,
                prompted: true,
                until: Some(hash),
            });
        } else {
            self.want_look(after, true);
        }
    }

    pub(super) fn block_disconnected(&mut self, hash: BlockHash) {
        if self.chain.told.len() >= TOLD {
            self.chain.told.pop_front();
        }
        self.chain.told.push_back(hash);
        self.want_look(MORE_DISCONNECTS, true);
    }

    pub(super) async fn looked(
        &mut self,
        ours: Option<BlockId>,
        prompted: bool,
        result: Result<TipComparison, NodeError>,
    ) -> Result<(), FollowError> {
        self.chain.looking = false;
        let look = match result {
            Ok(look) => look,
            Err(error) => {
                self.node_failed(&error);
                return Ok(());
            }
        };
        self.node_answered();
        self.publisher.node(&look.node);
        let network = self.reader.chain().network.to_core_arg();
        if look.node.chain != network {
            let error =
                crate::bitcoind::discover::wrong_chain(self.rpc.url(), &look.node.chain, network);
            self.node_failed(&error);
            return Ok(());
        }
        self.chain.node_tip = Some(look.node.bestblockhash);
        if !self.on {
            return Ok(());
        }
        if ours != self.tip {
            // A block came over ZMQ meanwhile.
            self.want_look(Duration::ZERO, prompted);
            return Ok(());
        }
        let evidence = self.evidence(&look);
        let action = fork::decide(ours, &look, evidence);
        self.act(action, prompted).await
    }

    fn evidence(&mut self, look: &TipComparison) -> RollbackEvidence {
        let (now, best) = (Instant::now(), look.node.bestblockhash);
        let since = match self.chain.standing {
            Some((ours, known, since)) if ours == self.tip && known == best => since,
            _ => now,
        };
        self.chain.standing = Some((self.tip, best, since));
        RollbackEvidence {
            told: self
                .tip
                .is_some_and(|tip| self.chain.told.contains(&tip.hash)),
            stood: now - since,
        }
    }

    async fn act(&mut self, action: ChainAction, prompted: bool) -> Result<(), FollowError> {
        let waited = self.chain.waiting.take();
        match action {
            ChainAction::Nothing => self.mempool.eviction.block_ends(),
            ChainAction::Start => self.fetch_window(),
            ChainAction::Wait(why) => {
                if waited.is_none() {
                    tracing::warn!("{why}");
                }
                self.chain.waiting = Some(why);
                self.reconciling = None;
                self.want_look(WAIT, prompted);
            }
            ChainAction::Connect(next) => self.fetch(next, prompted),
            ChainAction::Disconnect { to, next } => {
                match self
                    .indexer
                    .apply(Input::Disconnect { to, now: now_ms() })
                    .await
                {
                    Ok(done) => {
                        tracing::info!("disconnected blocks down to {} {}", to.height, to.hash);
                        self.set_tip(done.tip);
                        self.want_reading(Duration::ZERO, true);
                        self.fetch(next, prompted);
                    }
                    Err(InputRefused::Stopped(stopped)) => return Err(stopped.into()),
                    Err(InputRefused::Apply(error)) => {
                        tracing::warn!("{error}");
                        self.want_look(WAIT, prompted);
                    }
                }
            }
        }
        Ok(())
    }

    fn fetch(&mut self, next: Vec<BlockHash>, prompted: bool) {
        if !prompted && self.endpoints.rawblock.is_some() {
            tracing::debug!("{} blocks have not come over ZMQ", next.len());
            self.publisher.repaired(next.len().max(1) as u64);
        }
        let (sender, blocks) = mpsc::channel(1);
        self.chain.blocks = Some(blocks);
        tokio::spawn(fork::fetch(self.rpc.clone(), next, sender));
    }

    /// A block that was fetched after a look, or the end of them.
    pub(super) async fn fetched_block(
        &mut self,
        block: Option<Result<Block, NodeError>>,
    ) -> Result<(), FollowError> {
        match block {
            // Whether that was all is for the next look to say.
            None => {
                (self.chain.blocks, self.chain.node_tip) = (None, None);
                self.want_look(Duration::ZERO, true);
            }
            Some(Err(error)) => {
                self.chain.blocks = None;
                self.node_failed(&pruned(error));
            }
            Some(Ok(block)) => {
                let on_tip = self
                    .tip
                    .is_some_and(|tip| tip.hash == block.header.prev_blockhash);
                let fits = if on_tip {
                    self.connect(block, now_ms()).await?
                } else {
                    self.is_ours(&block)?
                };
                if !fits {
                    self.chain.blocks = None;
                    self.want_look(CONNECT_DELAY, true);
                }
            }
        }
        Ok(())
    }

    /// It came over ZMQ as well, and was faster.
    fn is_ours(&self, block: &Block) -> Result<bool, FollowError> {
        let hash = block.block_hash();
        let Some(tip) = self.tip else {
            return Ok(false);
        };
        let snapshot = self.reader.snapshot();
        // It cannot be far below: what is fetched was above our tip a moment ago.
        for height in (tip.height.saturating_sub(100)..=tip.height).rev() {
            if snapshot.block(height)?.is_some_and(|row| row.hash == hash) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Connects a block whose parent is our tip. False if the tracker refused it.
    async fn connect(&mut self, block: Block, now: u64) -> Result<bool, FollowError> {
        let hash = block.block_hash();
        let height = self.tip.map_or(0, |tip| tip.height.saturating_add(1));
        self.flush_gone().await?;
        match self
            .indexer
            .apply(Input::Connect { block, height, now })
            .await
        {
            Ok(done) => {
                tracing::debug!(
                    "connected block {height} {hash}, event {} is the last",
                    done.head
                );
                self.set_tip(done.tip);
                self.mempool.eviction.block_ends();
                if self
                    .chain
                    .want
                    .as_ref()
                    .is_some_and(|want| want.until == Some(hash))
                {
                    self.chain.want = None;
                }
                Ok(true)
            }
            Err(InputRefused::Stopped(stopped)) => Err(stopped.into()),
            Err(InputRefused::Apply(error)) => {
                tracing::warn!("block {height} {hash} is not connected: {error}");
                Ok(false)
            }
        }
    }

    fn fetch_window(&mut self) {
        self.chain.looking = true;
        let rpc = self.rpc.clone();
        self.work
            .spawn(async move { CallOutcome::Windowed(fork::start_window(&rpc).await) });
    }

    pub(super) async fn windowed(
        &mut self,
        result: Result<Option<StartWindow>, NodeError>,
    ) -> Result<(), FollowError> {
        self.chain.looking = false;
        match result {
            Err(error) => self.node_failed(&error),
            Ok(Some((first_height, blocks))) if self.on && self.tip.is_none() => {
                match self
                    .indexer
                    .apply(Input::Start {
                        first_height,
                        blocks,
                        now: now_ms(),
                    })
                    .await
                {
                    Ok(done) => self.set_tip(done.tip),
                    Err(InputRefused::Stopped(stopped)) => return Err(stopped.into()),
                    Err(InputRefused::Apply(error)) => tracing::warn!("{error}"),
                }
                self.want_look(Duration::ZERO, true);
            }
            // The node's tip moved.
            Ok(_) => self.want_look(CONNECT_DELAY, true),
        }
        Ok(())
    }
}

/// Thrown away between the look and the fetch.
fn pruned(error: NodeError) -> NodeError {
    if !rpc::is_pruned(&error) {
        return error;
    }
    NodeError::persistent(NodeErrorKind::Setup, fork::pruned())
}

/// A block hash from `sequence`.
pub(super) fn block_hash(hash: [u8; 32]) -> BlockHash {
    BlockHash::from_byte_array(hash)
}
