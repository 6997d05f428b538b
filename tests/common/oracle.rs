//! What the node itself says about an address: the naive way, by looking at everything.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::Node;

/// Satoshi: in the chain, and the effect of the mempool on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balances {
    pub confirmed: i64,
    pub unconfirmed: i64,
}

pub fn balances(node: &Node, address: &str) -> Balances {
    let scan = node.rpc(
        "scantxoutset",
        json!(["start", [format!("addr({address})")]]),
    );
    Balances {
        confirmed: satoshi(&scan["total_amount"]),
        unconfirmed: unconfirmed(node, address),
    }
}

fn unconfirmed(node: &Node, address: &str) -> i64 {
    let txids = node.rpc("getrawmempool", json!([]));
    let txids = txids.as_array().expect("getrawmempool answers with a list");
    let pool: HashMap<String, Value> = txids
        .iter()
        .filter_map(Value::as_str)
        .map(|txid| {
            (
                txid.to_owned(),
                node.rpc("getrawtransaction", json!([txid, true])),
            )
        })
        .collect();
    let received = pool
        .values()
        .flat_map(outputs)
        .filter(|output| pays(output, address))
        .map(|output| satoshi(&output["value"]));
    let spent = pool
        .values()
        .flat_map(|tx| tx["vin"].as_array().cloned().unwrap_or_default())
        .map(|input| {
            let output = match pool.get(input["txid"].as_str().unwrap_or_default()) {
                Some(parent) => outputs(parent)
                    .into_iter()
                    .find(|output| output["n"] == input["vout"])
                    .unwrap_or_default(),
                None => node.rpc("gettxout", json!([input["txid"], input["vout"], false])),
            };
            if pays(&output, address) {
                satoshi(&output["value"])
            } else {
                0
            }
        });
    received.sum::<i64>() - spent.sum::<i64>()
}

fn outputs(tx: &Value) -> Vec<Value> {
    tx["vout"].as_array().cloned().unwrap_or_default()
}

fn pays(output: &Value, address: &str) -> bool {
    output["scriptPubKey"]["address"] == *address
}

/// bitcoind's amounts are decimal numbers with 8 places, far within what a double holds exactly.
fn satoshi(amount: &Value) -> i64 {
    (amount.as_f64().unwrap_or_default() * 1e8).round() as i64
}
