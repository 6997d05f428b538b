//! A random chain with a daemon that watched from the first block on, and one that comes late and
//! has to find all of it.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::oracle::Chain;
use super::world::{World, address};
use super::{after, complete, ends, listed, only, open};
use crate::common::node::Options;
use crate::common::rpc_proxy::Mood;
use crate::common::{DEADLINE, Daemon, Node, RpcProxy, wait_for};
use crate::reorg::NEVER;

pub const WATCHED: usize = 24;

/// What of a transaction does not depend on when we saw it.
const LASTING: [&str; 9] = [
    "txid",
    "received",
    "sent",
    "net",
    "status",
    "confirmations",
    "block_height",
    "block_hash",
    "block_time",
];
const OUTPUT: [&str; 9] = [
    "tx_hash",
    "output_index",
    "value",
    "address",
    "confirmed",
    "block_height",
    "confirmations",
    "coinbase",
    "mature",
];

/// Field order is drop order: the daemons go before their node.
pub struct Play {
    pub late: Daemon,
    pub twin: Daemon,
    pub proxy: RpcProxy,
    pub node: Node,
    pub world: World,
    pub chain: Chain,
    pub watched: Vec<String>,
}

/// Answers that take long, so that a scan is caught in the middle.
pub fn slow(proxy: &RpcProxy, milliseconds: u64) {
    for method in ["rest", "getblock", "scanblocks"] {
        proxy.set_for(
            method,
            Mood::Slow(std::time::Duration::from_millis(milliseconds)),
        );
    }
}

impl Play {
    /// A chain of 110 blocks and then `blocks` more of random life; the late daemon has no address
    /// yet.
    pub fn begin(seed: u64, blocks: usize, options: Options, settings: &[(&str, &str)]) -> Self {
        Self::grown(seed, options, settings, |world, node| {
            world.live(node, blocks)
        })
    }

    pub fn grown(
        seed: u64,
        options: Options,
        settings: &[(&str, &str)],
        grow: impl FnOnce(&mut World, &Node),
    ) -> Self {
        // Other chains than the usual ones.
        let other: u64 = std::env::var("HISTORY_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let seed = seed + other * 1_000;
        let node = Node::with(Options {
            blocks: 0,
            ..options
        });
        let twin = Daemon::with(&node, &[NEVER]);
        let watched: Vec<String> = (0..WATCHED).map(address).collect();
        let added = twin.post("/add_addresses", &json!({ "addresses": watched }));
        assert_eq!(added.status, 200, "{}", added.text);
        watched
            .iter()
            .for_each(|address| twin.wait_complete(address));
        let mut world = World::begin(&node, seed, WATCHED);
        grow(&mut world, &node);
        let proxy = RpcProxy::of(&node);
        let url = proxy.url();
        let settings: Vec<_> = [NEVER, ("bitcoind.rpc_url", &url)]
            .into_iter()
            .chain(settings.iter().copied())
            .collect();
        let late = Daemon::with(&node, &settings);
        Self {
            late,
            twin,
            proxy,
            chain: Chain::of(&node),
            node,
            world,
            watched,
        }
    }

    /// The late daemon gets the addresses, and knows their balances; the cursor of then.
    pub fn add(&mut self) -> Value {
        let added = self
            .late
            .post("/add_addresses", &json!({ "addresses": self.watched }));
        assert_eq!(added.status, 200, "{}", added.text);
        self.chain.follow(&self.node);
        for address in &self.watched {
            self.late.wait_complete(address);
            assert_eq!(
                self.late.balance(address)["confirmed_balance"],
                self.chain.balance(address),
                "{address}"
            );
        }
        self.late.get("/status").json["cursor"].clone()
    }

    pub fn scan_all(&self, body: Value) -> String {
        open(&self.late, &self.watched, body)
    }

    /// A scan of everything, and what it must have brought.
    pub fn scanned(&mut self, id: &str) -> Value {
        let scan = complete(&self.late, id);
        ends(&self.late, id, &self.watched);
        self.is_true();
        scan
    }

    /// Both daemons have come to the node's tip, and say what its blocks say.
    pub fn is_true(&mut self) {
        for daemon in [&self.twin, &self.late] {
            daemon.wait_tip(&self.node);
        }
        self.chain.follow(&self.node);
        for address in &self.watched {
            let whole = json!({ "from_height": 0, "complete": true, "utxos_complete": true, "pending": false });
            // What a reorg asked for once more may be under way.
            let mut coverage = Value::Null;
            wait_for(DEADLINE, || {
                coverage = self.late.balance(address)["coverage"].clone();
                (coverage == whole).then_some(())
            });
            assert_eq!(coverage, whole, "{address}");
            self.agrees(address);
        }
    }

    /// Balance, outputs and the whole history of an address are the chain's, and those of whoever
    /// watched all the time.
    fn agrees(&self, address: &str) {
        let top = self.chain.height();
        let said = |daemon: &Daemon| {
            let balance = only(
                &daemon.balance(address),
                &[
                    "confirmed_balance",
                    "unconfirmed_balance",
                    "balance",
                    "utxo_count",
                    "immature",
                ],
            );
            let mut outputs = daemon
                .get(&format!("/utxos/{address}?include_spent=true"))
                .json["utxos"]
                .clone();
            sort(&mut outputs, |output| {
                format!("{}:{}", output["tx_hash"], output["output_index"])
            });
            (balance, outputs, waiting(daemon, address))
        };
        let mut both = [said(&self.late), said(&self.twin)];
        wait_for(DEADLINE, || {
            both = [said(&self.late), said(&self.twin)];
            (both[0] == both[1]).then_some(())
        });
        let [(balance, outputs, unconfirmed), twin] = &both;
        assert_eq!(
            (balance, outputs, unconfirmed),
            (&twin.0, &twin.1, &twin.2),
            "{address}: both daemons say the same"
        );
        assert_eq!(
            balance["confirmed_balance"],
            self.chain.balance(address),
            "{address}"
        );
        let confirmed = outputs
            .as_array()
            .expect("a list")
            .iter()
            .filter(|output| output["confirmed"] == true);
        let confirmed: Vec<Value> = confirmed.map(|output| only(output, &OUTPUT)).collect();
        assert_eq!(confirmed, self.chain.unspent(address), "{address}");
        let right = self.chain.transactions(address, 0, top);
        for daemon in [&self.late, &self.twin] {
            assert_eq!(confirmed_of(daemon, address), right, "{address}");
        }
    }

    /// Nothing that was in blocks up to `height` before was told as if it had just happened.
    pub fn nothing_was_news(&self, cursor: &Value, height: usize) {
        let old: HashMap<&str, HashSet<String>> = self
            .watched
            .iter()
            .map(|address| (address.as_str(), self.txids(address, height)))
            .collect();
        for event in after(&self.late, cursor)
            .iter()
            .filter(|event| event["event"] == "new_transactions")
        {
            let found = &old[event["data"]["address"].as_str().expect("a text")];
            let all = event["data"]["transactions"].as_array().expect("a list");
            assert!(
                all.iter()
                    .all(|tx| !found.contains(tx["txid"].as_str().expect("a text"))),
                "it is old: {event}"
            );
        }
    }

    fn txids(&self, address: &str, height: usize) -> HashSet<String> {
        let old = self.chain.transactions(address, 0, height);
        old.iter()
            .filter_map(|tx| tx["txid"].as_str().map(str::to_owned))
            .collect()
    }

    /// Nothing happened but scans: no announcement, and no balance moved.
    pub fn nothing_was_told(&self, cursor: &Value) {
        let told = after(&self.late, cursor);
        let other: Vec<&Value> = told
            .iter()
            .filter(|event| event["event"] != "scan_complete")
            .collect();
        assert!(other.is_empty(), "{other:?}");
    }
}

/// The confirmed part of an address's history.
pub fn confirmed_of(daemon: &Daemon, address: &str) -> Vec<Value> {
    let all = listed(daemon, address);
    all.iter()
        .filter(|tx| tx["status"] == "confirmed")
        .map(|tx| only(tx, &LASTING))
        .collect()
}

/// What waits in the mempool. What died there is known only to who saw it.
fn waiting(daemon: &Daemon, address: &str) -> Value {
    let all = listed(daemon, address);
    let mut waiting: Value = all
        .iter()
        .filter(|tx| tx["status"] == "mempool")
        .map(|tx| only(tx, &LASTING))
        .collect();
    sort(&mut waiting, |tx| tx["txid"].to_string());
    waiting
}

fn sort(list: &mut Value, key: impl Fn(&Value) -> String) {
    list.as_array_mut().expect("a list").sort_by_key(key);
}
