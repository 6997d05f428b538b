//! A node, a daemon and coins that anybody can spend: transactions are built here, without a
//! wallet, and what the daemon told of an address is read as lines.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use bitcoin::absolute::LockTime;
use bitcoin::address::Address;
use bitcoin::consensus::encode;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use serde_json::{Value, json};

use crate::common::node::Options;
use crate::common::{Client, Daemon, Feed, Node, ledger, oracle, wait_for};

/// What every free coin is worth.
pub const COIN: u64 = 10_000_000;

/// How the daemon hears of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Everything is pushed, removals too; the poll would come an hour later.
    Pushed,
    /// No `sequence` topic: payments are pushed, the poll finds removals.
    Unnumbered,
    /// No ZMQ at all.
    Polled,
}

impl Kind {
    pub fn topics(self) -> &'static [&'static str] {
        match self {
            Self::Pushed => &["rawblock", "rawtx", "sequence"],
            Self::Unnumbered => &["rawblock", "rawtx"],
            Self::Polled => &[],
        }
    }

    pub fn interval(self) -> &'static str {
        if self == Self::Pushed { "3600" } else { "1" }
    }
}

/// Field order is drop order: the daemon goes before its node.
pub struct Stage {
    pub daemon: Daemon,
    pub feeds: Vec<Feed>,
    pub node: Node,
    coins: Mutex<Vec<OutPoint>>,
    /// One block at a time: two that are made at once have the same parent.
    mining: Mutex<()>,
    names: Mutex<HashMap<String, String>>,
}

impl Stage {
    pub fn new(kind: Kind) -> Self {
        Self::with(kind, &[], &[])
    }

    pub fn with(kind: Kind, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let extra = arguments.iter().map(|text| (*text).to_owned()).collect();
        let node = Node::with(Options {
            topics: kind.topics(),
            extra,
            ..Options::default()
        });
        Self::beside(node, kind, settings, Vec::new())
    }

    pub fn with_topics(kind: Kind, topics: &'static [&'static str]) -> Self {
        Self::beside(
            Node::with(Options {
                topics,
                ..Options::default()
            }),
            kind,
            &[],
            Vec::new(),
        )
    }

    /// The daemon hears the node through these lines: of two, the first one brings `rawtx`.
    pub fn fed(lines: impl FnOnce(&Node) -> Vec<Feed>) -> Self {
        let node = Node::start();
        let feeds = lines(&node);
        let (rawtx, rest) = (
            feeds[0].endpoint().to_owned(),
            feeds[feeds.len() - 1].endpoint().to_owned(),
        );
        let settings = [
            ("bitcoind.zmq_rawtx", rawtx),
            ("bitcoind.zmq_rawblock", rest.clone()),
            ("bitcoind.zmq_sequence", rest),
        ];
        let settings: Vec<_> = settings
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Self::beside(node, Kind::Pushed, &settings, feeds)
    }

    fn beside(node: Node, kind: Kind, settings: &[(&str, &str)], feeds: Vec<Feed>) -> Self {
        let coins = free_coins(&node, 100, COIN);
        let settings: Vec<_> = [("monitor.reconcile_interval", kind.interval())]
            .into_iter()
            .chain(settings.iter().copied())
            .collect();
        let daemon = Daemon::with(&node, &settings);
        Self {
            daemon,
            feeds,
            node,
            coins: Mutex::new(coins),
            mining: Mutex::new(()),
            names: Mutex::default(),
        }
    }

    /// A confirmed coin that nobody else gets.
    pub fn coin(&self) -> OutPoint {
        lock(&self.coins).pop().expect("there are coins left")
    }

    /// Hands it to the node; `name` is what it is called in the lines.
    pub fn send(&self, name: &str, tx: &Transaction) {
        self.name(name, tx);
        self.node.send(&encode::serialize_hex(tx));
    }

    pub fn name(&self, name: &str, tx: &Transaction) {
        lock(&self.names).insert(tx.compute_txid().to_string(), name.to_owned());
    }

    /// Mines a block of exactly these.
    pub fn mine(&self, transactions: &[&Transaction]) -> String {
        let hex: Vec<_> = transactions
            .iter()
            .map(|tx| encode::serialize_hex(*tx))
            .collect();
        let _one = lock(&self.mining);
        self.node
            .mine_only(&hex.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The owner's signatures under what it owns; witnesses that are there stay.
    pub fn owner_signs(&self, tx: &Transaction) -> Transaction {
        let signed = self.node.owner(
            "signrawtransactionwithwallet",
            json!([encode::serialize_hex(tx)]),
        );
        assert_eq!(signed["complete"], true, "the owner can sign: {signed}");
        encode::deserialize_hex(signed["hex"].as_str().expect("hex")).expect("a transaction")
    }

    /// A fresh address of the owner, watched, with a subscriber.
    pub fn watched(&self) -> Told<'_> {
        let address = self.node.address();
        self.told(&address)
    }

    pub fn told(&self, address: &str) -> Told<'_> {
        let client = Client::subscribed(&self.daemon, address);
        self.daemon.wait_complete(address);
        Told {
            stage: self,
            address: address.to_owned(),
            script: script(address),
            client,
        }
    }

    /// What the log says of an address, one line an event.
    pub fn lines(&self, address: &str) -> Vec<String> {
        let events = self
            .daemon
            .get(&format!("/events?limit=1000&address={address}"));
        let names = lock(&self.names);
        let name = |txid: &Value| {
            let txid = txid.as_str().unwrap_or("nothing");
            names.get(txid).cloned().unwrap_or_else(|| txid.to_owned())
        };
        events.json["events"]
            .as_array()
            .expect("a list of events")
            .iter()
            .map(|event| line(event, name))
            .collect()
    }

    /// Nothing is on its way: all laws hold, and every one of these has heard exactly the log and
    /// has the node's balance.
    pub fn end(&self, all: &[Told]) {
        self.daemon.wait_tip(&self.node);
        for told in all {
            let right = oracle::balances(&self.node, &told.address);
            self.daemon
                .wait_balance(&told.address, right.confirmed, right.unconfirmed);
        }
        ledger::check(&self.daemon);
        for told in all {
            told.check();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// An address and who subscribed to it.
pub struct Told<'a> {
    stage: &'a Stage,
    pub address: String,
    pub script: ScriptBuf,
    client: Client,
}

impl Told<'_> {
    /// Waits until exactly this has been told.
    pub fn is(&self, lines: &[&str]) {
        let mut last = Vec::new();
        let right = wait_for(crate::common::DEADLINE, || {
            last = self.stage.lines(&self.address);
            (last == lines || last.len() > lines.len()).then_some(())
        });
        assert!(
            right.is_some() && last == lines,
            "told of {}: {last:#?}\nnot: {lines:#?}",
            self.address
        );
    }

    /// What the subscriber heard is what the log says, in its order, from the cursor on that came
    /// with `subscribed`: what the mempool held for a new address may be known by then.
    fn check(&self) {
        let subscribed = self
            .client
            .event("subscribed", |data| data["address"] == *self.address);
        let from = number(&subscribed["cursor"]);
        let log = self
            .stage
            .daemon
            .get(&format!("/events?limit=1000&address={}", self.address));
        let log: Vec<_> = log.json["events"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|event| event["data"].clone())
            .collect();
        let log: Vec<_> = log
            .into_iter()
            .filter(|data| number(&data["cursor"]) > from)
            .collect();
        let heard = |name: &str| self.client.all(name);
        let all = || {
            let mut all: Vec<_> = ["new_transactions", "transaction_update", "balance_change"]
                .into_iter()
                .flat_map(heard)
                .collect();
            all.sort_by_key(|data| number(&data["cursor"]));
            all
        };
        wait_for(crate::common::DEADLINE, || {
            (all().len() >= log.len()).then_some(())
        });
        assert_eq!(
            all(),
            log,
            "the subscriber of {} heard the log",
            self.address
        );
    }
}

/// `new A mempool +5`, `A mempool>replaced by B`, `balance 0>5`.
fn line(event: &Value, name: impl Fn(&Value) -> String) -> String {
    let data = &event["data"];
    let word = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
    match event["event"].as_str().expect("an event has a name") {
        "new_transactions" => {
            let of = |tx: &Value| {
                format!(
                    "{} {} {:+}",
                    name(&tx["txid"]),
                    tx["status"].as_str().unwrap_or_default(),
                    tx["net"].as_i64().unwrap_or(0)
                )
            };
            let all: Vec<_> = data["transactions"]
                .as_array()
                .expect("a list")
                .iter()
                .map(of)
                .collect();
            format!("new {}", all.join(", "))
        }
        "transaction_update" => {
            let by = match data["status"].as_str() {
                Some("replaced") => format!(" by {}", name(&data["replaced_by"])),
                Some("conflicted") => format!(" by {}", name(&data["conflicted_by"])),
                _ => String::new(),
            };
            format!(
                "{} {}>{}{by}",
                name(&data["txid"]),
                word("previous_status"),
                word("status")
            )
        }
        "balance_change" => format!("balance {}>{}", data["old_balance"], data["new_balance"]),
        other => other.to_owned(),
    }
}

fn number(cursor: &Value) -> u64 {
    cursor
        .as_str()
        .and_then(|text| text.rsplit('-').next())
        .and_then(|number| number.parse().ok())
        .expect("a cursor ends with a number")
}

/// The script of an address.
pub fn script(address: &str) -> ScriptBuf {
    address
        .parse::<Address<_>>()
        .expect("an address")
        .require_network(Network::Regtest)
        .expect("of regtest")
        .script_pubkey()
}

/// A script that nobody watches, another for each name.
pub fn stranger(name: &str) -> ScriptBuf {
    let hash = sha256::Hash::hash(name.as_bytes());
    Builder::new()
        .push_int(0)
        .push_slice(hash.to_byte_array())
        .into_script()
}

/// The witness script of free coins, one of 1 to 16: anybody can spend what pays its hash. (Knots
/// takes a dropped push for data.)
pub fn free(n: i64) -> ScriptBuf {
    Builder::new().push_int(n).into_script()
}

/// A replaceable spend of free coins.
pub fn spend(inputs: &[OutPoint], outputs: &[(&ScriptBuf, u64)]) -> Transaction {
    let input = |previous_output: &OutPoint| TxIn {
        previous_output: *previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::from_slice(&[free(1).as_bytes()]),
    };
    let output = |(script, value): &(&ScriptBuf, u64)| TxOut {
        value: Amount::from_sat(*value),
        script_pubkey: (*script).clone(),
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output: outputs.iter().map(output).collect(),
    }
}

/// The output `vout` of `tx`.
pub fn out(tx: &Transaction, vout: u32) -> OutPoint {
    OutPoint {
        txid: tx.compute_txid(),
        vout,
    }
}

/// Makes confirmed free coins.
pub fn free_coins(node: &Node, count: u32, value: u64) -> Vec<OutPoint> {
    let coin = node.coin(50 * crate::common::COIN);
    let total = u64::try_from(coin.satoshi).expect("positive") - 100_000;
    let from = OutPoint {
        txid: coin.outpoint.0.parse().expect("a txid"),
        vout: u32::try_from(coin.outpoint.1).expect("small"),
    };
    let script = free(1).to_p2wsh();
    let mut outputs = vec![(&script, value); count as usize];
    let change = stranger("change");
    outputs.push((&change, total - value * u64::from(count)));
    let mut tx = spend(&[from], &outputs);
    tx.input[0].witness.clear();
    let signed = node.payer(
        "signrawtransactionwithwallet",
        json!([encode::serialize_hex(&tx)]),
    );
    let txid = node
        .send(signed["hex"].as_str().expect("the payer signs"))
        .parse()
        .expect("a txid");
    node.mine(1);
    (0..count).map(|vout| OutPoint { txid, vout }).collect()
}
