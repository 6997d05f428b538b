//! The follower against a node and an indexer that are played by hand, in time that is passed.

mod chain;
mod disconnects;
mod evictions;
mod mempool;
mod node;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::encode::serialize;
use bitcoin::hashes::Hash;
use bitcoin::{
    Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Transaction, TxIn, TxMerkleNode, Txid,
    transaction,
};

use super::Follower;
use super::actions::{Action, Answer, Call, FollowerEvent, Inspection, Now};
use super::node_link::NodeLink;
use super::status_builder::StatusBuilder;
use crate::bitcoind::rpc::{Blockchain, MempoolInfo, Network, Notification};
use crate::bitcoind::url::NodeUrl;
use crate::bitcoind::zmq::{
    MessageBody, Notice, Sequence, SequenceEvent, Stamped, ZmqMessage, ZmqTopic,
};
use crate::bitcoind::{Endpoints, NodeError, NodeErrorKind, NodeStatus};
use crate::config;
use crate::follower::fork::{Relation, TipComparison};
use crate::follower::mempool_snapshot::{MempoolRead, MempoolSnapshot};
use crate::indexer::Done;
use crate::tracker::raw::object;
use crate::tracker::{ApplyError, BlockId, FollowUp, Input, RawTx};

const WALL: u64 = 1_700_000_000_000;
/// Between two polls.
const INTERVAL: Duration = Duration::from_secs(3600);

/// The follower, its tip and its time. What it wants is told in words.
struct Rig {
    follower: Follower,
    now: Now,
    tip: Option<BlockId>,
    /// The tracker refuses the next input.
    refuse: bool,
    /// So many verdicts do not evict everything.
    unfinished: u32,
    /// What the tracker asks because of the next input.
    follow_ups: Vec<FollowUp>,
    /// Calls without an answer.
    open: Vec<&'static str>,
}

fn id(height: u32) -> BlockId {
    BlockId {
        height,
        hash: BlockHash::from_byte_array([height as u8; 32]),
    }
}

/// Block number `n` of those on `parent`.
fn block(parent: BlockHash, n: u32) -> Block {
    Block {
        header: Header {
            version: Version::ONE,
            prev_blockhash: parent,
            merkle_root: TxMerkleNode::all_zeros(),
            time: 0,
            bits: CompactTarget::from_consensus(0),
            nonce: n,
        },
        txdata: vec![coinbase()],
    }
}

fn coinbase() -> Transaction {
    spending(OutPoint::null(), 0)
}

fn tx(n: u32) -> Transaction {
    spending(OutPoint::new(Txid::from_byte_array([9; 32]), n), n)
}

fn spending(previous_output: OutPoint, n: u32) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::from_consensus(n),
        input: vec![TxIn {
            previous_output,
            script_sig: ScriptBuf::from_bytes(vec![1, 2]),
            ..TxIn::default()
        }],
        output: vec![],
    }
}

fn txid(n: u32) -> Txid {
    tx(n).compute_txid()
}

fn failure() -> NodeError {
    NodeError::new(NodeErrorKind::Unreachable, "no connection")
}

fn blockchain(tip: BlockId) -> Blockchain {
    Blockchain {
        chain: "main".into(),
        blocks: tip.height,
        headers: tip.height,
        bestblockhash: tip.hash,
        time: None,
        mediantime: None,
        verificationprogress: None,
        initialblockdownload: false,
        signet_challenge: None,
        pruned: false,
        pruneheight: None,
    }
}

/// The words for an action; transactions by the number in their lock time.
fn words(action: &Action) -> String {
    let number = |tx: &RawTx| object(tx.bytes()).map_or(0, |tx| tx.lock_time.to_consensus_u32());
    match action {
        Action::Apply(input) | Action::Post(input) => match input {
            Input::Start { blocks, .. } => format!("Start {}", blocks.len()),
            Input::Connect { height, .. } => format!("Connect {height}"),
            Input::Disconnect { to, .. } => format!("Disconnect {}", to.height),
            Input::TxSeen { tx, seen, .. } => format!("{seen:?} {}", number(tx)),
            Input::TxRemoved { txids } => format!("TxRemoved {}", txids.len()),
            Input::EvictMissing { spared, .. } if spared.is_empty() => "EvictMissing".into(),
            Input::EvictMissing { spared, .. } => format!("EvictMissing but {}", spared.len()),
            Input::MempoolSnapshot { txids, .. } => format!("MempoolSnapshot {}", txids.len()),
            Input::Policy(_) => "Policy".into(),
            other => panic!("not of the follower: {other:?}"),
        },
        Action::Call(Call::Transactions { txids, .. }) => format!("Transactions {}", txids.len()),
        Action::Call(Call::InMempool { txs, .. }) => {
            let txs = txs.iter().map(|tx| format!(" {}", number(tx)));
            format!("InMempool{}", txs.collect::<String>())
        }
        Action::Call(call) => name(call).into(),
        Action::Fetch(hashes) => format!("Fetch {}", hashes.len()),
        Action::StopFetch => "StopFetch".into(),
        Action::Subscribe(_) => "Subscribe".into(),
    }
}

fn name(call: &Call) -> &'static str {
    match call {
        Call::Look { .. } => "Look",
        Call::StartWindow => "StartWindow",
        Call::ReadMempool => "ReadMempool",
        Call::Transactions { .. } => "Transactions",
        Call::InMempool { .. } => "InMempool",
        Call::Inspect => "Inspect",
    }
}

/// Where all topics come from one address.
fn shared() -> Endpoints {
    let endpoint = Some("tcp://127.0.0.1:28332".to_owned());
    Endpoints {
        rawtx: endpoint.clone(),
        rawblock: endpoint.clone(),
        sequence: endpoint,
    }
}

impl Rig {
    fn new(settings: config::Bitcoind, tip: Option<BlockId>) -> Self {
        let now = Now {
            instant: Instant::now(),
            ms: WALL,
        };
        let url = NodeUrl::parse("http://127.0.0.1:8332").expect("an address");
        let status = StatusBuilder::new(INTERVAL);
        let node = NodeLink::new(settings, url, "main", status, true, now);
        Self {
            follower: Follower::new(node, tip, INTERVAL, now),
            now,
            tip,
            refuse: false,
            unfinished: 0,
            follow_ups: Vec::new(),
            open: Vec::new(),
        }
    }

    /// At the node's tip, block 100, with an empty mempool; all topics up.
    fn following() -> Self {
        Self::following_at(shared())
    }

    fn following_at(endpoints: Endpoints) -> Self {
        let mut rig = Self::new(config::Bitcoind::default(), Some(id(100)));
        assert_eq!(
            rig.tell(FollowerEvent::Found(endpoints.clone())),
            ["Subscribe", "Inspect", "Look"]
        );
        assert_eq!(rig.looked(100, Relation::Same), [""; 0]);
        let offered = [endpoints.rawtx, endpoints.rawblock, endpoints.sequence];
        let topics = ZmqTopic::ALL.into_iter().zip(offered);
        let topics = topics.filter_map(|(topic, offered)| offered.map(|_| topic));
        rig.notice(Notice::Connected(topics.collect()));
        assert_eq!(rig.pass(50), ["Look"]);
        assert_eq!(rig.looked(100, Relation::Same), ["ReadMempool"]);
        assert_eq!(
            rig.read(&[], 1),
            ["Policy", "MempoolSnapshot 0", "EvictMissing"]
        );
        assert_eq!(rig.reason(), None);
        rig
    }

    /// What it does when this happens. Inputs are answered, calls are not.
    fn tell(&mut self, event: FollowerEvent) -> Vec<String> {
        let (mut events, mut said) = (VecDeque::from([event]), Vec::new());
        while let Some(event) = events.pop_front() {
            for action in self.follower.handle(event, self.now) {
                said.push(words(&action));
                match action {
                    Action::Call(call) => self.open.push(name(&call)),
                    Action::Apply(input) => {
                        events.extend(self.follow_ups.drain(..).map(FollowerEvent::Asked));
                        events.push_back(FollowerEvent::Applied(self.apply(input)));
                    }
                    _ => {}
                }
            }
        }
        said
    }

    fn apply(&mut self, input: Input) -> Result<Done, ApplyError> {
        if std::mem::take(&mut self.refuse) {
            return Err(ApplyError::BadBlock(BlockHash::all_zeros()));
        }
        let is_verdict = matches!(input, Input::EvictMissing { .. });
        let is_evicting = is_verdict && self.unfinished > 0;
        self.unfinished -= u32::from(is_evicting);
        self.tip = match input {
            Input::Start {
                first_height,
                blocks,
                ..
            } => blocks.last().map(|(hash, _)| BlockId {
                height: first_height + blocks.len() as u32 - 1,
                hash: *hash,
            }),
            Input::Connect { block, height, .. } => Some(BlockId {
                height,
                hash: block.hash(),
            }),
            Input::Disconnect { to, .. } => Some(to),
            _ => self.tip,
        };
        Ok(Done {
            tip: self.tip,
            is_evicting,
            ..Done::default()
        })
    }

    /// What it does after so many milliseconds.
    fn pass(&mut self, ms: u64) -> Vec<String> {
        self.now.instant += Duration::from_millis(ms);
        self.now.ms += ms;
        self.tell(FollowerEvent::Woken)
    }

    /// Passes time as it wants to be woken, until this call is on its way. Looks meanwhile find
    /// nothing new.
    fn until(&mut self, call: &str) {
        for _ in 0..100 {
            if self.open.contains(&call) {
                return;
            }
            if self.open.contains(&"Look") {
                self.looked(0, Relation::Same);
            } else {
                let rest = self.follower.wake_at() - self.now.instant;
                self.pass(rest.as_millis() as u64 + 1);
            }
        }
        panic!("it never does {call}");
    }

    /// For how many milliseconds it sleeps.
    fn sleeps(&self) -> u128 {
        let wake = self.follower.wake_at();
        wake.saturating_duration_since(self.now.instant).as_millis()
    }

    fn answer(&mut self, answer: Answer) -> Vec<String> {
        let call = match answer {
            Answer::Look(_) => "Look",
            Answer::StartWindow(_) => "StartWindow",
            Answer::Mempool(_) => "ReadMempool",
            Answer::Transactions { .. } => "Transactions",
            Answer::InMempool { .. } => "InMempool",
            Answer::Inspection(_) => "Inspect",
        };
        let at = self.open.iter().position(|open| *open == call);
        self.open.remove(at.expect("it asked for that"));
        self.tell(FollowerEvent::Answered(answer))
    }

    /// The node at block `blocks` answers a look.
    fn looked(&mut self, blocks: u32, relation: Relation) -> Vec<String> {
        let tip = match (relation.clone(), self.tip) {
            (Relation::Same, Some(tip)) => tip,
            _ => id(blocks),
        };
        let node = blockchain(tip);
        self.answer(Answer::Look(Ok(TipComparison { node, relation })))
    }

    /// The node's mempool holds these, and `sequence` is its next number.
    fn read(&mut self, txids: &[u32], sequence: u64) -> Vec<String> {
        let snapshot = MempoolSnapshot {
            tip: self.tip.expect("there is a tip").hash,
            txids: txids.iter().map(|n| txid(*n)).collect(),
            sequence: Some(sequence),
            info: MempoolInfo {
                loaded: true,
                ..MempoolInfo::default()
            },
        };
        self.answer(Answer::Mempool(Ok(MempoolRead::Whole(snapshot))))
    }

    /// The node gives these of the transactions that were asked for.
    fn give(&mut self, asked: &[u32], given: &[u32]) -> Vec<String> {
        let tip = self.tip;
        self.give_at(tip, asked, given)
    }

    fn give_at(&mut self, tip: Option<BlockId>, asked: &[u32], given: &[u32]) -> Vec<String> {
        let found = asked
            .iter()
            .map(|n| given.contains(n).then(|| RawTx::from(&tx(*n))));
        self.answer(Answer::Transactions {
            txids: asked.iter().map(|n| txid(*n)).collect(),
            tip,
            found: Ok(found.collect()),
        })
    }

    fn notice(&mut self, notice: Notice) -> Vec<String> {
        let at = self.now.ms;
        self.tell(FollowerEvent::Notice(Stamped { at, notice }))
    }

    fn gap(&mut self, topic: ZmqTopic) -> Vec<String> {
        self.notice(Notice::Gap { topic, lost: 1 })
    }

    fn message(&mut self, topic: ZmqTopic, body: MessageBody) -> Vec<String> {
        let number = 0;
        self.notice(Notice::Message(ZmqMessage {
            topic,
            number,
            body,
        }))
    }

    fn rawtx(&mut self, n: u32) -> Vec<String> {
        self.message(ZmqTopic::Rawtx, MessageBody::Tx(serialize(&tx(n))))
    }

    fn rawblock(&mut self, block: &Block) -> Vec<String> {
        self.message(ZmqTopic::Rawblock, MessageBody::Block(serialize(block)))
    }

    fn sequence(&mut self, hash: [u8; 32], what: SequenceEvent) -> Vec<String> {
        let body = MessageBody::Sequence(Sequence { hash, what });
        self.message(ZmqTopic::Sequence, body)
    }

    fn accepted(&mut self, n: u32, number: u64) -> Vec<String> {
        self.sequence(txid(n).to_byte_array(), SequenceEvent::Accepted(number))
    }

    fn removed(&mut self, n: u32, number: u64) -> Vec<String> {
        self.sequence(txid(n).to_byte_array(), SequenceEvent::Removed(number))
    }

    fn announced(&mut self, hash: BlockHash) -> Vec<String> {
        self.sequence(hash.to_byte_array(), SequenceEvent::BlockConnected)
    }

    fn disconnected(&mut self, hash: BlockHash) -> Vec<String> {
        self.sequence(hash.to_byte_array(), SequenceEvent::BlockDisconnected)
    }

    fn fetched(&mut self, block: &Block) -> Vec<String> {
        self.tell(FollowerEvent::Fetched(Some(Ok(block.into()))))
    }

    fn status(&mut self) -> NodeStatus {
        self.follower.status(self.now).clone()
    }

    /// Why it does not follow.
    fn reason(&mut self) -> Option<String> {
        self.status().reason
    }

    fn repairs(&mut self) -> u64 {
        self.status().reconcile.repairs
    }

    fn tip_hash(&self) -> BlockHash {
        self.tip.expect("there is a tip").hash
    }
}
