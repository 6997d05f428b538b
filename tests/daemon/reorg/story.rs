//! What was told of an address and of the chain, in order: the log and the subscriber must have the
//! same, and the chain's events must lead from block to block to the node's tip.

use serde_json::{Value, json};

use crate::common::oracle::{self, Balances};
use crate::common::{Client, Daemon, Node, ledger, wait_until};

/// The events about one address, oldest first.
pub struct Story(Vec<Value>);

/// The daemon's numbers become the node's own.
pub fn agrees(daemon: &Daemon, node: &Node, address: &str) -> Balances {
    daemon.wait_tip(node);
    let right = oracle::balances(node, address);
    daemon.wait_balance(address, right.confirmed, right.unconfirmed);
    right
}

/// A client that is subscribed to all of these and to the chain.
pub fn listener(daemon: &Daemon, addresses: &[&str]) -> Client {
    let client = Client::connect(daemon);
    client.ask("subscribe_blocks", &json!({}));
    for address in addresses {
        client.ask("subscribe_address", &json!({ "address": address }));
        daemon.wait_complete(address);
    }
    client
}

impl Story {
    /// What the log says of `address`; `client`, which listened from its first event on, has heard
    /// just that.
    pub fn of(daemon: &Daemon, client: &Client, address: &str) -> Self {
        let log: Vec<Value> = ledger::read(daemon)
            .into_iter()
            .filter(|event| event["data"]["address"] == *address)
            .collect();
        let heard =
            || {
                let mut heard = Vec::new();
                for name in ["new_transactions", "transaction_update", "balance_change"] {
                    let of_it = client
                        .all(name)
                        .into_iter()
                        .filter(|data| data["address"] == *address);
                    heard.extend(of_it.map(
                        |data| json!({ "cursor": data["cursor"], "event": name, "data": data }),
                    ));
                }
                heard.sort_by_key(number);
                heard
            };
        wait_until("the subscriber has heard what the log has", || {
            (heard().len() >= log.len()).then_some(())
        });
        assert_eq!(
            heard(),
            log,
            "the subscriber hears the log, each event once"
        );
        Self(log)
    }

    /// Where a transaction was, from its announcement on.
    pub fn statuses(&self, txid: &str) -> Vec<&str> {
        let status = |event: &'_ Value| match event["event"].as_str() {
            Some("new_transactions") => {
                let all = event["data"]["transactions"].as_array().expect("a list");
                all.iter()
                    .find(|transaction| transaction["txid"] == *txid)
                    .map(|transaction| transaction["status"].clone())
            }
            Some("transaction_update") => {
                (event["data"]["txid"] == *txid).then(|| event["data"]["status"].clone())
            }
            _ => None,
        };
        let words = ["mempool", "confirmed", "replaced", "conflicted", "evicted"];
        let known = |status: Value| {
            words
                .into_iter()
                .find(|word| status == *word)
                .expect("one of the contract's words")
        };
        self.0.iter().filter_map(status).map(known).collect()
    }

    /// The balance after each change.
    pub fn balances(&self) -> Vec<i64> {
        let changes = self
            .0
            .iter()
            .filter(|event| event["event"] == "balance_change");
        changes
            .map(|event| event["data"]["new_balance"].as_i64().expect("satoshi"))
            .collect()
    }
}

/// Checks the log's laws, and that its block and reorg events lead without a gap from `from` (the
/// tip before the first of them) to the node's tip. Answers with the depths of the reorgs.
pub fn chain(daemon: &Daemon, node: &Node, from: &Value) -> Vec<i64> {
    let mut chain = vec![from.clone()];
    let mut depths = Vec::new();
    for event in ledger::check(daemon) {
        let data = &event["data"];
        match event["event"].as_str() {
            Some("block") => {
                let height = chain
                    .last()
                    .and_then(|tip| tip["height"].as_i64())
                    .expect("a tip");
                assert_eq!(
                    data["height"],
                    height + 1,
                    "a block comes on the tip: {event}"
                );
                chain.push(json!({ "height": data["height"], "hash": data["hash"] }));
            }
            Some("reorg") => {
                assert_eq!(
                    Some(&data["old_tip"]),
                    chain.last(),
                    "a reorg starts at the tip: {event}"
                );
                let depth = data["depth"].as_i64().expect("a number");
                let fork = data["fork_point"]["height"].as_i64().expect("a number");
                assert_eq!(
                    data["old_tip"]["height"],
                    fork + depth,
                    "the depth is the number of lost blocks: {event}"
                );
                chain.retain(|block| block["height"].as_i64() <= Some(fork));
                // Below the first tip there is nothing to compare with.
                match chain.last() {
                    Some(known) => assert_eq!(
                        known, &data["fork_point"],
                        "the fork point is in the chain: {event}"
                    ),
                    None => chain.push(data["fork_point"].clone()),
                }
                depths.push(depth);
            }
            _ => {}
        }
    }
    let tip = json!({ "height": node.height(), "hash": node.tip() });
    assert_eq!(
        chain.last(),
        Some(&tip),
        "the events lead to the node's tip"
    );
    depths
}

/// The node's tip as events show one.
pub fn tip(node: &Node) -> Value {
    json!({ "height": node.height(), "hash": node.tip() })
}

fn number(event: &Value) -> u64 {
    let cursor = event["cursor"].as_str().expect("a cursor is text");
    cursor
        .rsplit('-')
        .next()
        .and_then(|number| number.parse().ok())
        .expect("a cursor ends with a number")
}
