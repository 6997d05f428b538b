//! Case 1: `replaceable` of an unconfirmed transaction is what its node would do, beside what the
//! node itself says and does.

use serde_json::{Value, json};

use crate::common::node::{Coin, Options, bitcoin};
use crate::common::{COIN, Client, Daemon, Node};

const FEE: i64 = 10_000;

struct Life {
    node: Node,
    daemon: Daemon,
    address: String,
    client: Client,
}

/// Sequences: the second one signals (BIP 125).
const FINAL: u32 = 0xffff_ffff;
const SIGNALS: u32 = 0xffff_fffd;

impl Life {
    fn begin(policy: &str) -> Self {
        let node = Node::with(Options {
            extra: vec![policy.to_owned()],
            ..Options::default()
        });
        let daemon = Daemon::start(&node);
        let address = node.address();
        let client = Client::subscribed(&daemon, &address);
        Self {
            node,
            daemon,
            address,
            client,
        }
    }

    /// A signed transaction over one output.
    fn signed(&self, input: &(String, u64), sequence: u32, to: &str, satoshi: i64) -> String {
        let input = json!({ "txid": input.0, "vout": input.1, "sequence": sequence });
        let output = json!({ to: bitcoin(satoshi) });
        let raw = self
            .node
            .rpc("createrawtransaction", json!([[input], [output]]));
        let signed = self
            .node
            .payer("signrawtransactionwithwallet", json!([raw]));
        signed["hex"].as_str().expect("hex").to_owned()
    }

    /// The watched address gets a whole coin.
    fn pays(&self, coin: &Coin, sequence: u32) -> String {
        let hex = self.signed(&coin.outpoint, sequence, &self.address, coin.satoshi - FEE);
        self.node.send(&hex)
    }

    /// What the daemon says of it, in its event and in its answer, which must agree.
    fn says(&self, txid: &str) -> bool {
        let is_it = |transaction: &&Value| transaction["txid"] == *txid;
        let find = |list: &Value| {
            let list = list["transactions"].as_array().expect("a list");
            list.iter().find(is_it).map(|it| it["replaceable"].clone())
        };
        let event = self
            .client
            .event("new_transactions", |data| find(data).is_some());
        let path = format!("/transactions/{}", self.address);
        let answer = find(&self.daemon.get(&path).json);
        assert_eq!(answer, find(&event), "{txid}");
        answer.and_then(|it| it.as_bool()).expect("it is listed")
    }

    /// Whether the node takes another payment with this coin, for more fee.
    fn replaces(&self, coin: &Coin) -> bool {
        let other = self.payer_address();
        let hex = self.signed(&coin.outpoint, FINAL, &other, coin.satoshi - 20 * FEE);
        let tried = self.node.rpc("testmempoolaccept", json!([[hex]]));
        tried[0]["allowed"].as_bool().expect("yes or no")
    }

    fn payer_address(&self) -> String {
        let address = self.node.payer("getnewaddress", json!(["", "bech32"]));
        address.as_str().expect("an address").to_owned()
    }

    fn coins(&self) -> Vec<Coin> {
        let coins = self.node.payer("listunspent", json!([1]));
        let coin = |coin: &Value| Coin {
            outpoint: (
                coin["txid"].as_str().expect("text").to_owned(),
                coin["vout"].as_u64().expect("a number"),
            ),
            satoshi: (coin["amount"].as_f64().expect("a number") * COIN as f64).round() as i64,
        };
        coins.as_array().expect("a list").iter().map(coin).collect()
    }

    fn node_says(&self, txid: &str) -> bool {
        let entry = self.node.rpc("getmempoolentry", json!([txid]));
        entry["bip125-replaceable"].as_bool().expect("yes or no")
    }
}

/// A payment whose every sequence is final, and one that signals.
fn case_01(policy: &str, final_one_is_replaceable: bool, signalling_one_is: bool) {
    let life = Life::begin(policy);
    let coins = life.coins();
    for (coin, sequence, expected) in [
        (&coins[0], FINAL, final_one_is_replaceable),
        (&coins[1], SIGNALS, signalling_one_is),
    ] {
        let txid = life.pays(coin, sequence);
        assert_eq!(life.says(&txid), expected, "{policy} {sequence:x}");
        assert_eq!(life.replaces(coin), expected, "{policy} {sequence:x}");
    }
    life.node.mine(1);
    life.daemon.wait_tip(&life.node);
    let path = format!("/transactions/{}", life.address);
    let confirmed = life.daemon.get(&path).json;
    for transaction in confirmed["transactions"].as_array().expect("a list") {
        assert_eq!(transaction["replaceable"], false, "{transaction}");
    }
}

#[test]
fn case_01_a_full_rbf_node_lets_everything_be_replaced() {
    case_01("-mempoolfullrbf=1", true, true);
}

#[test]
fn case_01_a_node_without_full_rbf_lets_be_replaced_what_signals() {
    case_01("-mempoolfullrbf=0", false, true);
}

#[test]
fn case_01_a_node_without_replacement_lets_nothing_be_replaced() {
    case_01("-mempoolreplacement=0", false, false);
}

#[test]
fn case_01_a_child_inherits_from_its_unconfirmed_parent() {
    let life = Life::begin("-mempoolfullrbf=0");
    let coins = life.coins();
    let change = life.payer_address();
    let family = |coin: &Coin, sequence| {
        let parent = life.signed(&coin.outpoint, sequence, &change, coin.satoshi - FEE);
        let parent = life.node.send(&parent);
        let output = Coin {
            outpoint: (parent.clone(), 0),
            satoshi: coin.satoshi - FEE,
        };
        (parent, life.pays(&output, FINAL))
    };
    for (coin, sequence, expected) in [(&coins[0], SIGNALS, true), (&coins[1], FINAL, false)] {
        let (parent, child) = family(coin, sequence);
        assert_eq!(life.says(&child), expected, "{sequence:x}");
        assert_eq!(life.node_says(&child), expected, "{sequence:x}");
        if !expected {
            continue;
        }
        life.node.mine_only(&[&parent]);
        life.daemon.wait_tip(&life.node);
        let path = format!("/transactions/{}", life.address);
        let now = &life.daemon.get(&path).json["transactions"][0];
        assert_eq!(
            (&now["txid"], &now["replaceable"]),
            (&json!(child), &json!(false))
        );
        assert!(!life.node_says(&child));
    }
}
