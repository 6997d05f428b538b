//! The API over a real store, tracker and indexer, without a network: requests go to the router,
//! Socket.IO packets to the layer.

mod audit;
mod auth;
mod consumers;
mod contract;
mod cursors;
mod descriptors;
mod edge;
mod ended;
mod held;
mod lag;
mod limits;
mod live;
mod metrics;
mod pasted;
mod progress;
mod quotas;
mod rest;
mod restart;
mod scans;
mod session;
mod strict;
mod unwatch;
mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{
    Address, Amount, Block, BlockHash, CompactTarget, KnownHrp, Network, OutPoint, ScriptBuf,
    Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness, WitnessProgram,
    WitnessVersion, absolute, block, transaction,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::socket::SocketApi;
use super::{Listening, Parts, Role, Router, Services};
use crate::derivation::DerivationTask;
use crate::engineio::internals::{Next, OutboxReceiver, outbox};
use crate::engineio::{Handler, Handshake, Message, MessageGroup, Outbox};
use crate::events::Dispatch;
use crate::server::{self, Peer};
use crate::socketio::internals::SocketIoHandler;
use crate::socketio::{self, Connection};
use crate::test_end::{IndexerThread, StoreFolder};
use crate::tracker::{Input, Seen};
use crate::{bitcoind, config, history, indexer, store};

const NOW: u64 = 1_754_336_318_173;
const PEER: Peer = Peer {
    address: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 40_000),
    over_tls: false,
};
/// Longer than anything here takes; it only ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// A regtest address of its own for each number.
fn address(n: u8) -> Address {
    let program = WitnessProgram::new(WitnessVersion::V0, &[n; 20]).unwrap();
    Address::from_witness_program(program, KnownHrp::Regtest)
}

/// What happened before this is old, whatever the chain says.
fn old_by_clock(before: u64) -> store::Cutoff {
    store::Cutoff {
        before,
        now: u64::MAX,
        young: u32::MAX,
    }
}

/// The daemon without node and network. The chain starts at height 100 with a block that nothing is
/// known of.
struct Daemon {
    reader: store::StoreReader,
    indexer: indexer::Handle,
    services: Arc<Services>,
    router: Arc<Router>,
    stop: CancellationToken,
    layer: SocketIoHandler<SocketApi>,
    node: watch::Sender<bitcoind::NodeStatus>,
    scans: watch::Sender<Vec<history::ScanProgress>>,
    limits: watch::Sender<config::Limits>,
    audits: mpsc::Receiver<history::AuditRequest>,
    /// Runs when it is asked to.
    derivation: std::sync::Mutex<Option<DerivationTask>>,
    thread: IndexerThread,
    _asks: mpsc::Receiver<crate::tracker::FollowUp>,
    folder: StoreFolder,
}

impl Daemon {
    async fn start() -> Self {
        Self::with(config::Config::default()).await
    }

    async fn with(config: config::Config) -> Self {
        let (daemon, dispatch) = Self::on(StoreFolder::new(), config);
        let stop = &daemon.stop;
        tokio::spawn(dispatch.run(stop.clone()));
        tokio::spawn(super::scans::progress::run(
            daemon.services.scans.clone(),
            stop.clone(),
        ));
        daemon
            .apply(Input::Start {
                first_height: 100,
                blocks: vec![(BlockHash::from_byte_array([1; 32]), 1_600_000_000)],
                now: NOW,
            })
            .await;
        daemon
    }

    /// On the store in a folder, with a dispatch that does not run yet.
    fn on(folder: StoreFolder, config: config::Config) -> (Self, Dispatch) {
        let chain = store::ChainInfo {
            network: Network::Regtest,
            genesis: BlockHash::all_zeros(),
        };
        let (writer, reader) = store::open(folder.path(), Some(chain), NOW, &|| false).unwrap();
        let (follow_ups, asked) = mpsc::channel(1000);
        let tracker = indexer::load(&reader, [7; 16]).unwrap();
        let head = writer.head();
        let (indexer, thread) = indexer::spawn(tracker, writer, head, follow_ups);
        let (node, status) = watch::channel(bitcoind::NodeStatus::default());
        let (scans, audits) = (watch::Sender::new(Vec::new()), mpsc::channel(1));
        let (limits, limits_seen) = watch::channel(config.limits.clone());
        let (derivation, derived) = DerivationTask::new(reader.clone(), indexer.clone());
        let stop = CancellationToken::new();
        let parts = Parts {
            bus: None,
            reader: reader.clone(),
            indexer: indexer.clone(),
            node: status,
            scans: scans.subscribe(),
            left_out: watch::channel(history::LeftOut::new()).1,
            derived,
            audits: audits.0,
            monitoring: watch::channel(true).0,
            config: Arc::new(config),
            limits: limits_seen,
            settings: watch::channel(config::SettingsStatus::default()).1,
            auth: crate::auth::Guard::new(crate::auth::InForce::Open),
            listening: Listening {
                addresses: vec![([127, 0, 0, 1], 5005).into()],
                metrics: Vec::new(),
                usage: server::Usage::of_nobody(),
                metrics_usage: None,
                certificates: None,
            },
            socketio: socketio::Config::default(),
            stop: stop.clone(),
        };
        let policy = super::browser::OriginPolicy::new(&parts.config.server);
        let (services, socket, dispatch) = super::build(parts).unwrap();
        let socketio = socketio::service(socketio::Config::default(), socket.clone());
        let router = Arc::new(Router::new(
            Role::Own(services.clone()),
            policy,
            socketio,
            0,
        ));
        let layer = SocketIoHandler::new(socketio::LayerConfig::default(), socket);
        (
            Self {
                reader,
                indexer,
                services,
                router,
                stop,
                layer,
                node,
                scans,
                limits,
                audits: audits.1,
                derivation: std::sync::Mutex::new(Some(derivation)),
                thread: IndexerThread::new(thread),
                _asks: asked,
                folder,
            },
            dispatch,
        )
    }

    /// Ends it as a killed process ends: what is committed stays, and nothing more is sent.
    async fn kill(self) -> StoreFolder {
        let Self {
            reader,
            indexer,
            services,
            router,
            stop,
            layer,
            thread,
            folder,
            derivation,
            ..
        } = self;
        stop.cancel();
        drop((reader, indexer, services, router, layer, derivation));
        // The last handle is gone when dispatch is.
        thread.join().await;
        folder
    }

    /// Derives scripts from now on.
    fn derive(&self) {
        let derivation = self.derivation.lock().unwrap().take();
        let run = derivation.expect("it runs once").run(self.stop.clone());
        tokio::spawn(run);
    }

    async fn apply(&self, input: Input) {
        self.indexer.apply(input).await.unwrap();
    }

    fn tip(&self) -> crate::tracker::BlockId {
        self.reader.snapshot().tip().unwrap().unwrap()
    }

    /// A payment enters the mempool.
    async fn pay(&self, to: &Address, satoshi: u64, salt: u8) -> Transaction {
        let tx = spend(
            OutPoint {
                txid: Txid::from_byte_array([salt; 32]),
                vout: 0,
            },
            to.script_pubkey(),
            satoshi,
        );
        self.apply(Input::TxSeen {
            tx: (&tx).into(),
            seen: Seen::Accepted,
            now: NOW,
        })
        .await;
        tx
    }

    /// A block on the tip, its coinbase to `miner`.
    async fn mine(&self, miner: &Address, txs: Vec<Transaction>) -> Block {
        let tip = self.tip();
        let block = block_on(tip, miner, txs);
        self.apply(Input::Connect {
            block: (&block).into(),
            height: tip.height + 1,
            now: NOW,
        })
        .await;
        block
    }

    async fn request(&self, request: Request<Full<Bytes>>) -> (StatusCode, HeaderMap, String) {
        let answer = tokio::time::timeout(PATIENCE, self.router.handle(request, PEER))
            .await
            .expect("an answer in time");
        let (parts, body) = answer.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        (parts.status, parts.headers, body)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let request = Request::get(path)
            .header("host", "127.0.0.1:5005")
            .body(Full::default())
            .unwrap();
        let (status, headers, body) = self.request(request).await;
        assert_eq!(headers["content-type"], "application/json");
        (status.as_u16(), serde_json::from_str(&body).unwrap())
    }

    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let request = Request::post(path)
            .header("host", "localhost:5005")
            .header("content-type", "application/json");
        let (status, _, body) = self
            .request(request.body(Full::from(body.to_owned())).unwrap())
            .await;
        (status.as_u16(), serde_json::from_str(&body).unwrap())
    }

    async fn delete(&self, path: &str) -> (u16, Value) {
        let request = Request::delete(path)
            .header("host", "localhost:5005")
            .body(Full::default())
            .unwrap();
        let (status, _, body) = self.request(request).await;
        (status.as_u16(), serde_json::from_str(&body).unwrap())
    }

    /// Waits until the readers of everything that is in the log know that there is something.
    async fn told(&self) {
        let head = self.reader.snapshot().head().unwrap();
        while self
            .services
            .overview
            .dispatch
            .counts()
            .await
            .unwrap()
            .position
            < head
        {
            tokio::task::yield_now().await;
        }
    }

    /// A Socket.IO client that has joined. It has heard `connected`.
    async fn client(&self) -> Client {
        let (sender, queue) = outbox(1000, 1 << 20);
        let handshake = Handshake {
            headers: HeaderMap::new(),
            query: "EIO=4".to_owned(),
            peer: None,
        };
        let session = self.layer.open(sender.clone(), handshake);
        let mut client = Client {
            layer: self.layer.clone(),
            session,
            outbox: sender,
            queue,
        };
        client.say("0").await;
        assert!(client.hear().await.starts_with("0{\"sid\":"));
        assert_eq!(client.event().await.0, "connected");
        client
    }
}

/// A Socket.IO client below which everything is real but the transport.
struct Client {
    layer: SocketIoHandler<SocketApi>,
    session: Arc<Connection>,
    outbox: Outbox,
    queue: OutboxReceiver,
}

impl Client {
    /// Sends a packet and waits until it is worked on.
    async fn say(&self, packet: &str) {
        if let Some(work) = self.layer.message(&self.session, Message::text(packet)) {
            tokio::time::timeout(PATIENCE, work)
                .await
                .expect("the work ends");
        }
    }

    async fn emit(&self, name: &str, argument: Value) {
        self.say(&format!("2{}", serde_json::json!([name, argument])))
            .await;
    }

    /// The next packet, as the session pulls it.
    async fn hear(&mut self) -> String {
        let next = std::future::poll_fn(|cx| self.poll_packet(cx));
        let packet = tokio::time::timeout(PATIENCE, next);
        packet.await.expect("something in time")
    }

    fn poll_packet(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        if let Next::Group(group) = self.queue.take() {
            return Poll::Ready(packet_text(group));
        }
        let next = self.layer.poll_next(&self.session, cx);
        if next.is_pending() && self.layer.poll_end(&self.session, cx).is_ready() {
            return self.poll_packet(cx);
        }
        next.map(packet_text)
    }

    /// The next packet if there is one.
    fn packet(&mut self) -> Option<String> {
        match self.poll_packet(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(packet) => Some(packet),
            Poll::Pending => None,
        }
    }

    /// The next packet, an event: name and data.
    async fn event(&mut self) -> (String, Value) {
        event_of(&self.hear().await)
    }

    async fn expect(&mut self, name: &str) -> Value {
        let (heard, data) = self.event().await;
        assert_eq!(heard, name, "{data}");
        data
    }

    /// The next packet, the acknowledgement with this number: its argument.
    async fn acknowledgement(&mut self, number: u64) -> Value {
        let packet = self.hear().await;
        let array = packet
            .strip_prefix(&format!("3{number}"))
            .unwrap_or_else(|| panic!("{packet} is no such acknowledgement"));
        let [argument] = serde_json::from_str::<[Value; 1]>(array).expect("exactly one argument");
        argument
    }

    /// Everything that is there now.
    fn queued(&mut self) -> Vec<(String, Value)> {
        let packets = std::iter::from_fn(|| self.packet());
        packets.map(|packet| event_of(&packet)).collect()
    }
}

fn packet_text(group: MessageGroup) -> String {
    match group {
        MessageGroup::One(Message::Text(text)) => text.as_str().to_owned(),
        other => panic!("text is all that we send, not {other:?}"),
    }
}

fn event_of(packet: &str) -> (String, Value) {
    let array: Vec<Value> = serde_json::from_str(
        packet
            .strip_prefix('2')
            .unwrap_or_else(|| panic!("{packet} is no event")),
    )
    .unwrap();
    let [name, data] = <[Value; 2]>::try_from(array).expect("exactly one argument");
    (name.as_str().unwrap().to_owned(), data)
}

fn spend(outpoint: OutPoint, spk: ScriptBuf, satoshi: u64) -> Transaction {
    let input = TxIn {
        previous_output: outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    let output = TxOut {
        value: Amount::from_sat(satoshi),
        script_pubkey: spk,
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![input],
        output: vec![output],
    }
}

fn block_on(tip: crate::tracker::BlockId, miner: &Address, txs: Vec<Transaction>) -> Block {
    let mut coinbase = spend(OutPoint::null(), miner.script_pubkey(), 5_000_000_000);
    coinbase.input[0].script_sig = ScriptBuf::from_bytes((tip.height + 1).to_le_bytes().to_vec());
    let txdata: Vec<_> = std::iter::once(coinbase).chain(txs).collect();
    let header = block::Header {
        version: block::Version::TWO,
        prev_blockhash: tip.hash,
        merkle_root: TxMerkleNode::all_zeros(),
        time: 1_600_000_000 + tip.height,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    let mut block = Block { header, txdata };
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    block
}
