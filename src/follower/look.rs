//! Looking at the node: its chain, compared with ours, and its whole mempool. What changes at the
//! node while it is asked is found here or by the next look.

use bitcoin::BlockHash;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::fork::{Compared, ForkSearch, Relation, StartWindow, TipComparison};
use super::mempool_snapshot::{MempoolRead, MempoolSnapshot};
use crate::bitcoind::rpc::{Blockchain, Header, MempoolInfo, MempoolTxids, Rpc};
use crate::bitcoind::{NodeError, NodeErrorKind, cut_short};
use crate::store::StoreError;
use crate::tracker::{BlockId, RawBlock};

/// Blocks fetched after one look.
const WINDOW: u32 = 2000;
/// Blocks that an empty store starts with, so that a reorg soon after finds its fork point: one
/// period of difficulty.
const START_WINDOW: u32 = 2016;
/// Blocks fetched at the same time.
const AHEAD: usize = 3;

type Answered<T> = Result<T, NodeError>;

/// What is asked. The node may change between any two of these.
pub trait Questions {
    fn blockchain(&self) -> impl Future<Output = Answered<Blockchain>>;
    fn best_block(&self) -> impl Future<Output = Answered<BlockHash>>;
    /// `None` above the tip.
    fn hashes(&self, heights: Vec<u32>) -> impl Future<Output = Answered<Vec<Option<BlockHash>>>>;
    /// `None` of an unknown block.
    fn headers(
        &self,
        hashes: Vec<BlockHash>,
    ) -> impl Future<Output = Answered<Vec<Option<Header>>>>;
    fn mempool_info(&self) -> impl Future<Output = Answered<MempoolInfo>>;
    fn mempool_txids(&self) -> impl Future<Output = Answered<MempoolTxids>>;
}

impl Questions for Rpc {
    async fn blockchain(&self) -> Answered<Blockchain> {
        self.blockchain().await
    }

    async fn best_block(&self) -> Answered<BlockHash> {
        self.best_block().await
    }

    async fn hashes(&self, heights: Vec<u32>) -> Answered<Vec<Option<BlockHash>>> {
        self.hashes(heights).await
    }

    async fn headers(&self, hashes: Vec<BlockHash>) -> Answered<Vec<Option<Header>>> {
        self.headers(hashes).await
    }

    async fn mempool_info(&self) -> Answered<MempoolInfo> {
        self.mempool_info().await
    }

    async fn mempool_txids(&self) -> Answered<MempoolTxids> {
        self.mempool_txids().await
    }
}

/// Why a look shows nothing.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The daemon cannot go on.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks at the node from our tip. `our_block`: ours at a height, `None` below our first.
pub async fn look(
    node: &impl Questions,
    our_block: impl Fn(u32) -> Result<Option<BlockHash>, StoreError>,
    ours: Option<BlockId>,
) -> Result<TipComparison, LookError> {
    // The node's chain may move while we compare; what leads to a disconnect must have stood still.
    for _ in 0..5 {
        let chain = node.blockchain().await?;
        let relation = match ours {
            None => Some(Relation::Empty),
            Some(tip) if tip.hash == chain.bestblockhash => Some(Relation::Same),
            Some(tip) => compare(node, &our_block, tip, &chain).await?,
        };
        if let Some(relation) = relation {
            return Ok(TipComparison {
                node: chain,
                relation,
            });
        }
    }
    let what = "bitcoind's chain moves faster than it can be compared";
    Err(NodeError::new(NodeErrorKind::Busy, what).into())
}

/// `None` if the node's chain moved meanwhile.
async fn compare(
    node: &impl Questions,
    our_block: impl Fn(u32) -> Result<Option<BlockHash>, StoreError>,
    tip: BlockId,
    chain: &Blockchain,
) -> Result<Option<Relation>, LookError> {
    let our_hash = |height| match height == tip.height {
        true => Ok(Some(tip.hash)),
        false => our_block(height),
    };
    let mut search = ForkSearch::new(tip.height.min(chain.blocks));
    while let Some(height) = search.next() {
        let theirs = node.hashes(vec![height]).await?.pop().flatten();
        let compared = match our_hash(height)? {
            Some(ours) if Some(ours) != theirs => Compared::Different,
            _ => Compared::Common,
        };
        search.tell(height, compared);
    }
    let Some(fork) = search.common else {
        return Ok(Some(Relation::Unrelated));
    };
    let last = chain.blocks.min(fork.saturating_add(WINDOW));
    let next = node.hashes((fork.saturating_add(1)..=last).collect());
    let Some(next) = next.await?.into_iter().collect() else {
        return Ok(None);
    };
    if fork == tip.height {
        return Ok(Some(Relation::Ahead(next)));
    }
    if node.best_block().await? != chain.bestblockhash {
        return Ok(None);
    }
    Ok(Some(match our_hash(fork)? {
        Some(hash) => Relation::Parted {
            fork: BlockId { height: fork, hash },
            next,
        },
        None => Relation::Unrelated,
    }))
}

/// [`StartWindow`]; `None` if the node's tip moved meanwhile.
pub async fn start_window(node: &impl Questions) -> Answered<Option<StartWindow>> {
    let chain = node.blockchain().await?;
    let first = chain.blocks.saturating_sub(START_WINDOW - 1);
    let hashes: Option<Vec<_>> = node
        .hashes((first..=chain.blocks).collect())
        .await?
        .into_iter()
        .collect();
    let Some(hashes) = hashes else {
        return Ok(None);
    };
    let headers: Option<Vec<_>> = node.headers(hashes).await?.into_iter().collect();
    let Some(headers) = headers else {
        return Ok(None);
    };
    let linked = headers
        .windows(2)
        .all(|pair| matches!(pair, [below, above] if above.previousblockhash == Some(below.hash)));
    if !linked
        || headers
            .last()
            .is_none_or(|tip| tip.hash != chain.bestblockhash)
    {
        return Ok(None);
    }
    Ok(Some((
        first,
        headers
            .into_iter()
            .map(|header| (header.hash, header.time))
            .collect(),
    )))
}

/// Reads the whole mempool.
pub async fn read_mempool(node: &impl Questions) -> Answered<MempoolRead> {
    let state = node.mempool_info().await?;
    if !state.loaded {
        return Ok(MempoolRead::Loading(state));
    }
    let tip = node.best_block().await?;
    let list = node.mempool_txids().await?;
    if node.best_block().await? != tip {
        return Ok(MempoolRead::Moved);
    }
    Ok(MempoolRead::Whole(MempoolSnapshot {
        tip,
        txids: list.txids.into_iter().collect(),
        sequence: list.mempool_sequence,
        info: state,
    }))
}

/// Fetches blocks in order, some at the same time. Ends at the first failure, or when nobody takes
/// them.
pub(super) async fn fetch(
    rpc: Rpc,
    hashes: Vec<BlockHash>,
    blocks: mpsc::Sender<Result<RawBlock, NodeError>>,
) {
    let calls = hashes.into_iter().map(|hash| {
        let rpc = rpc.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let block = rpc.block(hash).await?;
            // Here and not by the indexer, which is to match one block while the next is hashed.
            let hashed = tokio::task::spawn_blocking(move || block.with_txids());
            hashed.await.map_err(|_| cut_short())
        }))
    });
    let mut fetched = stream::iter(calls).buffered(AHEAD);
    loop {
        let block = tokio::select! {
            block = fetched.next() => block,
            () = blocks.closed() => return,
        };
        let Some(Ok(block)) = block else { return };
        let failed = block.is_err();
        if blocks.send(block).await.is_err() || failed {
            return;
        }
    }
}
