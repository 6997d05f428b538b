//! What the node's blocks say about an address, read one by one from the first to the last: the
//! naive way, with nothing of ours in it.

use serde_json::{Value, json};

use crate::common::Node;

/// The node's active chain.
#[derive(Default)]
pub struct Chain {
    blocks: Vec<Block>,
}

struct Block {
    hash: String,
    time: i64,
    transactions: Vec<Tx>,
}

struct Tx {
    txid: String,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
}

struct Input {
    outpoint: (String, u64),
    address: String,
    value: i64,
}

struct Output {
    address: String,
    value: i64,
}

impl Chain {
    pub fn of(node: &Node) -> Self {
        let mut chain = Self::default();
        chain.follow(node);
        chain
    }

    /// Reads what is new. What was read stays known if the node prunes it.
    pub fn follow(&mut self, node: &Node) {
        let height = node.height() as usize;
        self.blocks.truncate(height + 1);
        let hash = |height: usize| text(&node.rpc("getblockhash", json!([height])));
        while self
            .blocks
            .last()
            .is_some_and(|last| last.hash != hash(self.blocks.len() - 1))
        {
            self.blocks.pop();
        }
        for height in self.blocks.len()..=height {
            self.blocks
                .push(read(&node.rpc("getblock", json!([hash(height), 3]))));
        }
    }

    pub fn height(&self) -> usize {
        self.blocks.len() - 1
    }

    /// `GET /transactions`, as far as it is confirmed in blocks from height `from` up to `to`:
    /// newest first.
    pub fn transactions(&self, address: &str, from: usize, to: usize) -> Vec<Value> {
        let mut all = Vec::new();
        for (height, block) in self.blocks.iter().enumerate().take(to + 1).skip(from) {
            for tx in &block.transactions {
                let received: Vec<i64> = tx
                    .outputs
                    .iter()
                    .filter(|output| output.address == address)
                    .map(|output| output.value)
                    .collect();
                let sent: Vec<i64> = tx
                    .inputs
                    .iter()
                    .filter(|input| input.address == address)
                    .map(|input| input.value)
                    .collect();
                if received.is_empty() && sent.is_empty() {
                    continue;
                }
                let (received, sent) = (received.iter().sum::<i64>(), sent.iter().sum::<i64>());
                all.push(json!({
                    "txid": tx.txid, "received": received, "sent": sent, "net": received - sent, "status": "confirmed",
                    "confirmations": self.blocks.len() - height, "block_height": height, "block_hash": block.hash,
                    "block_time": block.time as f64,
                }));
            }
        }
        all.reverse();
        all
    }

    /// `GET /utxos?include_spent=true`, as far as it is confirmed; sorted by txid and number.
    pub fn unspent(&self, address: &str) -> Vec<Value> {
        let mut all: Vec<(String, u64, Value)> = Vec::new();
        for (height, block) in self.blocks.iter().enumerate() {
            for (position, tx) in block.transactions.iter().enumerate() {
                all.retain(|(txid, vout, _)| {
                    !tx.inputs
                        .iter()
                        .any(|input| input.outpoint.1 == *vout && input.outpoint.0 == *txid)
                });
                for (vout, output) in (0..)
                    .zip(&tx.outputs)
                    .filter(|(_, output)| output.address == address)
                {
                    let (deep, coinbase) = (self.blocks.len() - height, position == 0);
                    let shown = json!({
                        "tx_hash": tx.txid, "output_index": vout, "value": output.value, "address": address, "confirmed": true,
                        "block_height": height, "confirmations": deep, "coinbase": coinbase, "mature": !coinbase || deep >= 100,
                    });
                    all.push((tx.txid.clone(), vout, shown));
                }
            }
        }
        all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        all.into_iter().map(|(_, _, shown)| shown).collect()
    }

    pub fn balance(&self, address: &str) -> i64 {
        self.unspent(address)
            .iter()
            .filter_map(|output| output["value"].as_i64())
            .sum()
    }
}

fn read(block: &Value) -> Block {
    let transactions = list(&block["tx"]).iter().map(|tx| Tx {
        txid: text(&tx["txid"]),
        inputs: list(&tx["vin"])
            .iter()
            .filter(|input| input["coinbase"].is_null())
            .map(read_input)
            .collect(),
        outputs: list(&tx["vout"]).iter().map(read_output).collect(),
    });
    Block {
        hash: text(&block["hash"]),
        time: block["time"].as_i64().expect("a number"),
        transactions: transactions.collect(),
    }
}

fn read_input(input: &Value) -> Input {
    let Output { address, value } = read_output(&input["prevout"]);
    Input {
        outpoint: (
            text(&input["txid"]),
            input["vout"].as_u64().expect("a number"),
        ),
        address,
        value,
    }
}

fn read_output(output: &Value) -> Output {
    let value = output["value"]
        .as_f64()
        .unwrap_or_else(|| panic!("an amount is a number: {output}"));
    // bitcoind's amounts have 8 decimals, far within what a double holds exactly.
    let address = output["scriptPubKey"]["address"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    Output {
        address,
        value: (value * 1e8).round() as i64,
    }
}

fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("a list was expected, not {value}"))
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("a text was expected, not {value}"))
        .to_owned()
}
