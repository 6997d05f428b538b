//! Calls to the pretended node that take their time: it may change between any two questions of
//! one, and before its answer arrives.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use satwatch::bitcoind::NodeError;
use satwatch::bitcoind::rpc::{
    Blockchain, Header, MempoolInfo, MempoolTxids, Network, Notification,
};
use satwatch::tracker::{MemoryView, RawBlock, RawTx};

use crate::bitcoind::Bitcoind;
use crate::clock::Now;
use crate::seam::{
    Answer, Call, Inspection, LookError, Questions, look, read_mempool, start_window,
};

type Answered<T> = Result<T, NodeError>;

#[derive(Clone)]
struct Asker {
    bitcoind: Rc<RefCell<Bitcoind>>,
    /// The next question is answered.
    turn: Rc<Cell<bool>>,
}

impl Asker {
    async fn ask<T>(&self, answer: impl FnOnce(&mut Bitcoind) -> T) -> T {
        let turn = |_: &mut Context<'_>| match self.turn.replace(false) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        };
        poll_fn(turn).await;
        answer(&mut self.bitcoind.borrow_mut())
    }
}

impl Questions for Asker {
    async fn blockchain(&self) -> Answered<Blockchain> {
        self.ask(Bitcoind::blockchain).await
    }

    async fn best_block(&self) -> Answered<BlockHash> {
        self.ask(Bitcoind::best_block).await
    }

    async fn hashes(&self, heights: Vec<u32>) -> Answered<Vec<Option<BlockHash>>> {
        self.ask(|node| node.hashes(&heights)).await
    }

    async fn headers(&self, hashes: Vec<BlockHash>) -> Answered<Vec<Option<Header>>> {
        self.ask(|node| node.headers(&hashes)).await
    }

    async fn mempool_info(&self) -> Answered<MempoolInfo> {
        self.ask(Bitcoind::mempool_info).await
    }

    async fn mempool_txids(&self) -> Answered<MempoolTxids> {
        self.ask(Bitcoind::mempool_txids).await
    }
}

/// What a call is made with.
#[derive(Clone)]
pub struct Line {
    pub bitcoind: Rc<RefCell<Bitcoind>>,
    pub rows: Rc<RefCell<MemoryView>>,
    /// What `getzmqnotifications` lists.
    pub listed: Vec<Notification>,
}

/// A call that is on its way.
pub struct Pending {
    future: Pin<Box<dyn Future<Output = Answer>>>,
    turn: Rc<Cell<bool>>,
    /// When the next question reaches the node, or the answer us.
    pub at: Instant,
    pub answer: Option<Answer>,
}

impl Pending {
    pub fn begin(call: Call, line: Line, now: Now, takes: Duration) -> Self {
        let turn = Rc::new(Cell::new(false));
        let asker = Asker {
            bitcoind: line.bitcoind.clone(),
            turn: turn.clone(),
        };
        Self {
            future: Box::pin(make(call, line, asker)),
            turn,
            at: now.instant + takes,
            answer: None,
        }
    }

    /// The node answers the next question.
    pub fn step(&mut self, takes: Duration) {
        self.turn.set(true);
        let polled = self
            .future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(answer) = polled {
            self.answer = Some(answer);
        }
        self.at += takes;
    }
}

async fn make(call: Call, line: Line, asker: Asker) -> Answer {
    match call {
        Call::Look { ours } => {
            let our_block = |height| Ok(line.rows.borrow().blocks.get(&height).map(|row| row.hash));
            Answer::Look(match look(&asker, our_block, ours).await {
                Ok(look) => Ok(look),
                Err(LookError::Node(error)) => Err(error),
                Err(LookError::Store(error)) => panic!("{error}"),
            })
        }
        Call::StartWindow => Answer::StartWindow(start_window(&asker).await),
        Call::ReadMempool => Answer::Mempool(read_mempool(&asker).await),
        Call::Transactions { txids, tip } => {
            let found = asker.ask(|node| node.transactions(&txids)).await;
            Answer::Transactions { txids, tip, found }
        }
        Call::InMempool { txs, tip } => {
            let txids: Vec<_> = txs.iter().map(RawTx::txid).collect();
            let found = asker.ask(|node| node.transactions(&txids)).await;
            let held = found.map(|found| found.iter().map(Option::is_some).collect());
            Answer::InMempool { txs, tip, held }
        }
        Call::Inspect => {
            let inspect = |node: &mut Bitcoind| {
                Ok(Box::new(Inspection {
                    node: node.blockchain()?,
                    mempool: node.mempool_info().ok(),
                    uptime: node.uptime().ok(),
                    network: Ok(Network::default()),
                    notifications: Ok(line.listed.clone()),
                }))
            };
            Answer::Inspection(asker.ask(inspect).await)
        }
    }
}

/// Blocks that are fetched one after the other.
pub struct Fetch {
    hashes: VecDeque<BlockHash>,
    /// When the node is asked for the next one, or it arrives.
    pub at: Instant,
    fetched: Option<Answered<RawBlock>>,
}

impl Fetch {
    pub fn begin(hashes: Vec<BlockHash>, now: Now, takes: Duration) -> Self {
        Self {
            hashes: hashes.into(),
            at: now.instant + takes,
            fetched: None,
        }
    }

    /// What arrives now; `Some(None)` behind the last block.
    #[allow(
        clippy::option_option,
        reason = "nothing yet, or what the follower is told"
    )]
    pub fn step(
        &mut self,
        node: &mut Bitcoind,
        takes: Duration,
    ) -> Option<Option<Answered<RawBlock>>> {
        if let Some(fetched) = self.fetched.take() {
            return Some(Some(fetched));
        }
        let Some(hash) = self.hashes.pop_front() else {
            return Some(None);
        };
        self.fetched = Some(node.block(&hash));
        self.at += takes;
        None
    }
}
