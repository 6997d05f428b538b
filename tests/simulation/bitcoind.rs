//! The pretended node with its publisher and its RPC, as real ones are: what is published in which
//! order, which numbers it carries, what is answered while the node starts or builds its chain
//! state again.

use std::collections::{HashMap, HashSet};

use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, Transaction, Txid};
use satwatch::bitcoind::rpc::{Blockchain, Header, MempoolInfo, MempoolTxids};
use satwatch::bitcoind::zmq::{MessageBody, Sequence, SequenceEvent, ZmqMessage, ZmqTopic};
use satwatch::bitcoind::{NodeError, NodeErrorKind};
use satwatch::tracker::{MemoryView, RawBlock, RawTx, Status};

use crate::pretended::{Node, pick};

/// What calls meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ready,
    Down,
    /// It answers, and its mempool is being loaded.
    Loading,
    /// It answers from this height; the chain state is being built again.
    Rebuilding(usize),
}

pub struct Bitcoind {
    pub node: Node,
    pub state: State,
    /// Every block that it ever had.
    pub blocks: HashMap<BlockHash, Block>,
    /// Published and not taken yet.
    pub published: Vec<ZmqMessage>,
    /// Every transaction that was ever taken back or left the mempool without being mined.
    pub dropped: HashSet<Txid>,
    /// Every block that was ever disconnected.
    pub disconnected: HashSet<BlockHash>,
    /// Every transaction that its mempool or chain ever held.
    pub known: HashMap<Txid, Transaction>,
    /// It has thrown away the blocks below this height, and takes none of them back.
    pub horizon: usize,
    /// So many questions fail.
    pub failing: u8,
    /// In milliseconds since the Unix epoch: now, and at its start.
    pub time: u64,
    started: u64,
    rolled_back: Vec<Block>,
    mempool_sequence: u64,
    numbers: [u32; 3],
}

fn refusal(kind: NodeErrorKind) -> NodeError {
    NodeError {
        kind,
        message: "the node does not answer".into(),
        remedy: None,
    }
}

pub fn index(topic: ZmqTopic) -> usize {
    match topic {
        ZmqTopic::Rawtx => 0,
        ZmqTopic::Rawblock => 1,
        ZmqTopic::Sequence => 2,
    }
}

fn ids(txs: &[Transaction]) -> Vec<Txid> {
    txs.iter().map(Transaction::compute_txid).collect()
}

impl Bitcoind {
    pub fn new(time: u64) -> Self {
        let node = Node::new();
        let genesis = node.chain[0].clone();
        let known = genesis.txdata.iter();
        Self {
            state: State::Ready,
            known: known.map(|tx| (tx.compute_txid(), tx.clone())).collect(),
            blocks: HashMap::from([(genesis.block_hash(), genesis)]),
            node,
            published: Vec::new(),
            dropped: HashSet::new(),
            disconnected: HashSet::new(),
            horizon: 0,
            failing: 0,
            time,
            started: time,
            rolled_back: Vec::new(),
            mempool_sequence: 1,
            numbers: [0; 3],
        }
    }

    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    pub fn is_up(&self) -> bool {
        self.state != State::Down
    }

    /// It left at some time, or spends a coinbase that did: where a coinbase is in both branches,
    /// what spends it goes for the moment in which ours has neither.
    pub fn may_be_gone(&self, txid: &Txid) -> bool {
        let mut spent = self.known[txid].input.iter();
        self.dropped.contains(txid)
            || spent.any(|input| {
                let parent = input.previous_output.txid;
                let known = self.known.get(&parent);
                known.is_some_and(|tx| match tx.is_coinbase() {
                    true => self.dropped.contains(&parent),
                    false => self.may_be_gone(&parent),
                })
            })
    }

    fn publish(&mut self, topic: ZmqTopic, body: MessageBody) {
        let number = &mut self.numbers[index(topic)];
        self.published.push(ZmqMessage {
            topic,
            number: *number,
            body,
        });
        *number = number.wrapping_add(1);
    }

    /// The last message of a topic again.
    pub fn publish_again(&mut self, message: &ZmqMessage) {
        self.publish(message.topic, message.body.clone());
    }

    fn publish_tx(&mut self, tx: &Transaction) {
        self.publish(ZmqTopic::Rawtx, MessageBody::Tx(serialize(tx)));
    }

    fn publish_sequence(&mut self, hash: [u8; 32], what: SequenceEvent) {
        let body = MessageBody::Sequence(Sequence { hash, what });
        self.publish(ZmqTopic::Sequence, body);
    }

    fn next_sequence(&mut self) -> u64 {
        self.mempool_sequence += 1;
        self.mempool_sequence - 1
    }

    fn removed(&mut self, txids: &[Txid]) {
        for txid in txids {
            self.dropped.insert(*txid);
            let number = self.next_sequence();
            self.publish_sequence(txid.to_byte_array(), SequenceEvent::Removed(number));
        }
    }

    fn accepted(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        self.known.insert(txid, tx.clone());
        self.publish_tx(tx);
        let number = self.next_sequence();
        self.publish_sequence(txid.to_byte_array(), SequenceEvent::Accepted(number));
    }

    pub fn accept(&mut self, tx: &Transaction) {
        let gone = self.node.take_in(tx);
        self.removed(&gone);
        self.accepted(tx);
    }

    pub fn evict(&mut self, victim: u16) {
        if let Some(victim) = pick(&self.node.mempool, victim) {
            let roots = [victim.compute_txid()];
            let gone = self.node.drop_with_descendants(&roots, Status::Evicted);
            self.removed(&gone);
        }
    }

    /// One that left, and whose inputs can be spent now.
    pub fn returning(&self, index: u16) -> Option<Transaction> {
        let open = self.node.spendable();
        let can_return = |tx: &&Transaction| {
            let is_open = |outpoint| open.iter().any(|(known, _)| *known == outpoint);
            !tx.is_coinbase() && tx.input.iter().all(|input| is_open(input.previous_output))
        };
        let gone = self
            .node
            .fates
            .keys()
            .filter_map(|txid| self.known.get(txid));
        let mut able: Vec<Transaction> = gone.filter(can_return).cloned().collect();
        able.sort_by_key(Transaction::compute_txid);
        pick(&able, index)
    }

    pub fn mine(&mut self, bits: u16, double_spend: Option<(u16, u8)>, to: u8) {
        let mut txs = self.node.minable(bits);
        let rival = double_spend.and_then(|(index, to)| self.node.double_spend(index, to, &txs));
        txs.extend(rival);
        let again = self.node.coinbase_again(bits, false);
        let again = again.filter(|_| bits.is_multiple_of(4));
        let coinbase = again.unwrap_or_else(|| self.node.coinbase(&[(to, 5_000)]));
        let block = self.node.next_block(coinbase, &txs);
        self.connect(block, true);
    }

    fn connect(&mut self, block: Block, publishes_block: bool) {
        let pool: HashSet<Txid> = ids(&self.node.mempool).into_iter().collect();
        let mined = ids(&block.txdata);
        let gone = self.node.adopt(block.clone());
        self.removed(&gone);
        self.mempool_sequence += mined.iter().filter(|txid| pool.contains(*txid)).count() as u64;
        for (txid, tx) in mined.into_iter().zip(&block.txdata) {
            self.known.insert(txid, tx.clone());
            self.publish_tx(tx);
        }
        let hash = block.block_hash();
        self.publish_sequence(hash.to_byte_array(), SequenceEvent::BlockConnected);
        if publishes_block {
            self.publish(ZmqTopic::Rawblock, MessageBody::Block(serialize(&block)));
        }
        self.blocks.insert(hash, block);
    }

    /// Blocks go, tip first, and what they held is accepted again.
    fn disconnect(&mut self, depth: usize) -> Vec<Block> {
        let before = ids(&self.node.mempool);
        let (stale, gone) = self.node.abandon(depth);
        self.dropped.extend(gone);
        for block in stale.iter().rev() {
            block.txdata.iter().for_each(|tx| self.publish_tx(tx));
            let hash = block.block_hash();
            self.disconnected.insert(hash);
            self.publish_sequence(hash.to_byte_array(), SequenceEvent::BlockDisconnected);
        }
        let now = ids(&self.node.mempool);
        let back = self.node.mempool.clone().into_iter().zip(&now);
        for (tx, _) in back.filter(|(_, txid)| !before.contains(txid)) {
            self.accepted(&tx);
        }
        let left: Vec<Txid> = before.into_iter().filter(|it| !now.contains(it)).collect();
        self.removed(&left);
        stale
    }

    /// The last block of its chain that is in these rows as well.
    pub fn last_known(&self, view: &MemoryView) -> Option<usize> {
        let is_known = |height: &usize| {
            let row = view.blocks.get(&(*height as u32));
            row.is_some_and(|row| row.hash == self.node.id(*height).hash)
        };
        (0..self.node.chain.len()).rev().find(is_known)
    }

    fn depth(&self, wanted: u8) -> usize {
        usize::from(wanted).min(self.node.chain.len() - 1 - self.horizon)
    }

    pub fn reorganize(&mut self, depth: u8, longer: u8, bits: u16, same_coinbases: bool) {
        let depth = self.depth(depth);
        if depth == 0 {
            return;
        }
        let old = self.node.chain.len();
        let stale = self.disconnect(depth);
        let count = depth + usize::from(longer);
        for place in 0..count {
            let txs = self.node.minable(bits.rotate_left(place as u32));
            let same = stale.get(place).filter(|_| same_coinbases);
            let same = same.map(|block| block.txdata[0].clone());
            let coinbase = match same.filter(|same| !self.node.is_overwritten_by(same)) {
                Some(same) => same,
                None => self.node.coinbase(&[(2, 5_000)]),
            };
            let block = self.node.next_block(coinbase, &txs);
            // On a fork only blocks above the old tip, or the new tip, are published.
            let is_published = self.node.chain.len() >= old || place + 1 == count;
            self.connect(block, is_published);
        }
    }

    pub fn roll_back(&mut self, depth: u8) {
        let mut stale = Vec::new();
        for _ in 0..self.depth(depth) {
            stale.splice(0..0, self.disconnect(1));
        }
        self.rolled_back = stale;
    }

    pub fn reconsider(&mut self) {
        for block in std::mem::take(&mut self.rolled_back) {
            if block.header.prev_blockhash == self.node.tip().hash {
                self.connect(block, true);
            }
        }
    }

    /// It ends. Everything that it counts begins anew.
    pub fn stop(&mut self, keeps_mempool: bool) {
        self.state = State::Down;
        self.published.clear();
        (self.numbers, self.mempool_sequence) = ([0; 3], 1);
        if !keeps_mempool {
            let roots = ids(&self.node.mempool);
            let gone = self.node.drop_with_descendants(&roots, Status::Evicted);
            self.dropped.extend(gone);
        }
    }

    /// It answers again.
    pub fn start(&mut self, state: State) {
        (self.state, self.started) = (state, self.time);
    }

    /// It has loaded its mempool, or has built its chain state again.
    pub fn finish_start(&mut self) {
        if let State::Rebuilding(height) = self.state {
            let chain = self.node.chain.clone();
            for block in chain.iter().skip(height) {
                block.txdata.iter().for_each(|tx| self.publish_tx(tx));
                let hash = block.block_hash().to_byte_array();
                self.publish_sequence(hash, SequenceEvent::BlockConnected);
            }
        }
        for tx in self.node.mempool.clone() {
            self.accepted(&tx);
        }
        self.state = State::Ready;
    }

    // What it answers.

    fn up(&mut self) -> Result<(), NodeError> {
        if self.state == State::Down {
            return Err(refusal(NodeErrorKind::Unreachable));
        }
        match self.failing.checked_sub(1) {
            Some(left) => {
                self.failing = left;
                Err(refusal(NodeErrorKind::TimedOut))
            }
            None => Ok(()),
        }
    }

    /// Blocks of the chain that it has built so far.
    fn built(&self) -> &[Block] {
        match self.state {
            State::Rebuilding(height) => &self.node.chain[..height],
            _ => &self.node.chain,
        }
    }

    pub fn blockchain(&mut self) -> Result<Blockchain, NodeError> {
        self.up()?;
        let built = self.built();
        let tip = built.last().expect("there is a genesis");
        let is_whole = built.len() == self.node.chain.len();
        Ok(Blockchain {
            chain: "main".into(),
            blocks: built.len() as u32 - 1,
            headers: self.node.chain.len() as u32 - 1,
            bestblockhash: tip.block_hash(),
            time: Some(tip.header.time),
            mediantime: None,
            verificationprogress: None,
            initialblockdownload: !is_whole,
            signet_challenge: None,
            pruned: self.horizon > 0,
            pruneheight: Some(self.horizon as u32).filter(|horizon| *horizon > 0),
        })
    }

    /// Seconds.
    pub fn uptime(&mut self) -> Result<u64, NodeError> {
        self.up()?;
        Ok((self.time - self.started) / 1000)
    }

    pub fn best_block(&mut self) -> Result<BlockHash, NodeError> {
        Ok(self.blockchain()?.bestblockhash)
    }

    pub fn hashes(&mut self, heights: &[u32]) -> Result<Vec<Option<BlockHash>>, NodeError> {
        self.up()?;
        let hash = |height: &u32| self.built().get(*height as usize).map(Block::block_hash);
        Ok(heights.iter().map(hash).collect())
    }

    pub fn headers(&mut self, hashes: &[BlockHash]) -> Result<Vec<Option<Header>>, NodeError> {
        self.up()?;
        let header = |hash: &BlockHash| {
            let block = self.blocks.get(hash)?;
            let previous = block.header.prev_blockhash;
            Some(Header {
                hash: *hash,
                height: 0,
                time: block.header.time,
                previousblockhash: Some(previous).filter(|_| previous != BlockHash::all_zeros()),
            })
        };
        Ok(hashes.iter().map(header).collect())
    }

    pub fn block(&mut self, hash: &BlockHash) -> Result<RawBlock, NodeError> {
        self.up()?;
        let mut pruned = self.node.chain.iter().take(self.horizon);
        if pruned.any(|block| block.block_hash() == *hash) {
            return Err(NodeError {
                message: "Block not available (pruned data)".into(),
                ..refusal(NodeErrorKind::Rpc(-1))
            });
        }
        let block = self.blocks.get(hash).map(RawBlock::from);
        block.ok_or_else(|| refusal(NodeErrorKind::Rpc(-5)))
    }

    /// What of its mempool it has loaded.
    fn loaded(&self) -> &[Transaction] {
        let mempool = &self.node.mempool;
        match self.state {
            State::Ready => mempool,
            State::Loading => &mempool[..mempool.len() / 2],
            State::Down | State::Rebuilding(_) => &[],
        }
    }

    pub fn mempool_info(&mut self) -> Result<MempoolInfo, NodeError> {
        self.up()?;
        Ok(MempoolInfo {
            loaded: self.is_ready(),
            size: self.loaded().len() as u64,
            // It lets be replaced what signals, so that inheritance counts.
            fullrbf: Some(false),
            ..MempoolInfo::default()
        })
    }

    pub fn mempool_txids(&mut self) -> Result<MempoolTxids, NodeError> {
        self.up()?;
        Ok(MempoolTxids {
            txids: ids(self.loaded()),
            mempool_sequence: Some(self.mempool_sequence),
        })
    }

    pub fn transactions(&mut self, txids: &[Txid]) -> Result<Vec<Option<RawTx>>, NodeError> {
        self.up()?;
        let held = self.loaded();
        let find = |txid: &Txid| {
            let found = held.iter().find(|tx| tx.compute_txid() == *txid);
            found.map(RawTx::from)
        };
        Ok(txids.iter().map(find).collect())
    }
}
