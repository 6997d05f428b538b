//! Random lives of wallets of the node, of four kinds. After each step, what we say of a wallet is
//! what the node's own wallet says: balance, outputs, and what each transaction does to it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{add, id, of};
use crate::common::{COIN, Daemon, Node, wait_until};

const STEPS: u32 = 300;

/// Numbers that follow from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A wallet of the node that has one descriptor for addresses and one for change.
struct Wallet {
    name: &'static str,
    id: String,
}

/// The key of a fresh wallet of the node, up to its branches: private, or public with origin.
fn key(node: &Node, name: &str, private: bool) -> String {
    let listed = node.wallet(name, "listdescriptors", json!([private]));
    let all = listed["descriptors"].as_array().expect("a list").iter();
    let mut texts = all.map(|it| it["desc"].as_str().expect("a text"));
    let text = texts.find(|it| it.starts_with("wpkh(") && it.contains("/0/*)"));
    let text = text.expect("a wallet has such a descriptor");
    let (key, _) = text.split_once("/0/*").expect("its branch");
    key.trim_start_matches("wpkh(").to_owned()
}

/// A wallet whose only scripts are those of `template`, in which `@0` to `@2` are keys.
fn wallet(node: &Node, name: &'static str, template: &str) -> String {
    node.rpc("createwallet", json!([name, false, true]));
    let mut public = String::new();
    for (branch, internal) in [("0", false), ("1", true)] {
        let mut text = template.to_owned();
        for (number, private) in [("0", true), ("1", true), ("2", false)] {
            let place = format!("@{number}");
            if text.contains(&place) {
                let key = key(node, &format!("keys{number}"), private);
                text = text.replace(&place, &format!("{key}/{branch}/*"));
            }
        }
        let info = node.rpc("getdescriptorinfo", json!([text]));
        let checksum = info["checksum"].as_str().expect("a checksum");
        let import = json!([[{
            "desc": format!("{text}#{checksum}"), "active": true, "internal": internal, "timestamp": "now",
        }]]);
        let imported = node.wallet(name, "importdescriptors", import);
        assert_eq!(imported[0]["success"], true, "{imported}");
        if !internal {
            let text = info["descriptor"].as_str().expect("a text");
            let (text, _) = text.split_once('#').expect("a checksum");
            public = text.replace("/0/*", "/<0;1>/*");
        }
    }
    public
}

fn satoshi(amount: &Value) -> i64 {
    (amount.as_f64().unwrap_or_default() * 1e8).round() as i64
}

/// What each transaction that is in a block or the mempool does to a wallet, and whether it is in a
/// block.
type Nets = BTreeMap<String, (i64, bool)>;

fn theirs(node: &Node, wallet: &Wallet) -> (i64, Nets) {
    let balances = node.wallet(wallet.name, "getbalances", json!([]))["mine"].take();
    let parts = ["trusted", "untrusted_pending", "immature"];
    let balance = parts.iter().map(|part| satoshi(&balances[part])).sum();
    let listed = node.wallet(wallet.name, "listtransactions", json!(["*", 10_000]));
    let pool = node.rpc("getrawmempool", json!([]));
    let pool = pool.as_array().expect("a list").clone();
    let mut nets = Nets::new();
    for entry in listed.as_array().expect("a list") {
        let is_mined = entry["confirmations"].as_i64() > Some(0);
        if !is_mined && !pool.contains(&entry["txid"]) {
            continue;
        }
        let txid = entry["txid"].as_str().expect("a txid").to_owned();
        let shown = node.wallet(wallet.name, "gettransaction", json!([txid]));
        let net = satoshi(&shown["amount"]) + satoshi(&shown["fee"]);
        nets.insert(txid, (net, is_mined));
    }
    (balance, nets)
}

fn ours(daemon: &Daemon, wallet: &Wallet) -> (i64, Nets) {
    let balance = of(daemon, &wallet.id, "/balance")["balance"].as_i64();
    let (mut nets, mut next) = (Nets::new(), String::new());
    loop {
        let page = of(
            daemon,
            &wallet.id,
            &format!("/transactions?limit=100{next}"),
        );
        for entry in page["transactions"].as_array().expect("a list") {
            let status = entry["status"].as_str().expect("a word");
            if matches!(status, "mempool" | "confirmed") {
                let txid = entry["txid"].as_str().expect("a txid").to_owned();
                let net = entry["net"].as_i64().expect("a number");
                nets.insert(txid, (net, status == "confirmed"));
            }
        }
        let Some(before) = page["next"].as_str() else {
            return (balance.expect("a number"), nets);
        };
        next = format!("&before={before}");
    }
}

/// Waits until we say of each wallet what the node says.
fn agree(node: &Node, daemon: &Daemon, wallets: &[Wallet], step: &str) {
    daemon.wait_tip(node);
    for wallet in wallets {
        let mut last = None;
        let theirs = theirs(node, wallet);
        let agreed = crate::common::wait_for(crate::common::DEADLINE, || {
            let ours = ours(daemon, wallet);
            let is_so = ours == theirs;
            last = Some(ours);
            is_so.then_some(())
        });
        assert!(
            agreed.is_some(),
            "after {step}, of {}: the node says {theirs:?}, we say {last:?}",
            wallet.name
        );
    }
}

fn text(value: Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// One step of a life: what it was, or nothing if it could not be.
fn step(node: &Node, daemon: &mut Daemon, wallets: &[Wallet], chance: &mut Chance) -> String {
    let pick = |chance: &mut Chance| &wallets[chance.below(wallets.len() as u64) as usize];
    let wallet = pick(chance);
    let amount = 10_000 + chance.below(COIN as u64 / 2) as i64;
    let fresh = |wallet: &Wallet| text(node.wallet(wallet.name, "getnewaddress", json!([])));
    let send = |to: String| {
        let amount = crate::common::node::bitcoin(amount);
        let sent = node.try_wallet(wallet.name, "sendtoaddress", json!([to, amount]));
        sent.map_or_else(|refused| refused.message, |txid| txid.to_string())
    };
    match chance.below(20) {
        0..4 => format!("payment {}", node.pay(&fresh(wallet), amount)),
        4..7 => send(text(node.payer("getnewaddress", json!([])))),
        7..10 => send(fresh(pick(chance))),
        10..11 => send(fresh(wallet)),
        11..15 => format!("block {:?}", node.mine_to_nobody(1)),
        15..16 => {
            let depth = 1 + chance.below(3) as i64;
            let hash = node.rpc("getblockhash", json!([node.height() - depth + 1]));
            node.rpc("invalidateblock", json!([hash]));
            format!("reorg {:?}", node.mine_to_nobody(depth as u32 + 1))
        }
        16..17 => {
            let unspent = node.wallet(wallet.name, "listtransactions", json!(["*", 20]));
            let all = unspent.as_array().expect("a list").iter();
            let mut sent = all.filter(|it| it["category"] == "send" && it["confirmations"] == 0);
            let Some(entry) = sent.next() else {
                return String::new();
            };
            let bumped = node.try_wallet(wallet.name, "bumpfee", json!([entry["txid"]]));
            bumped.map_or_else(|refused| refused.message, |it| format!("replaced {it}"))
        }
        17..19 => {
            let path = format!("/descriptors/{}/next_address", wallet.id);
            let given = daemon.post(&path, &json!({}));
            let address = given.json["address"]
                .as_str()
                .expect(&given.text)
                .to_owned();
            let info = node.wallet(wallet.name, "getaddressinfo", json!([address]));
            assert_eq!(info["ismine"], true, "{}", given.text);
            match chance.below(2) {
                0 => "an address given".to_owned(),
                _ => format!("payment of it {}", node.pay(&address, amount)),
            }
        }
        _ => {
            daemon.stop();
            daemon.restart();
            "restart".to_owned()
        }
    }
}

#[test]
fn wallets_of_four_kinds_are_what_the_node_says_through_300_random_steps() {
    let node = Node::start();
    for name in ["keys0", "keys1", "keys2"] {
        node.rpc("createwallet", json!([name]));
    }
    let mut daemon = Daemon::start(&node);
    let kinds = [
        ("w-wpkh", "wpkh(@0)"),
        ("w-tr", "tr(@0)"),
        ("w-nested", "sh(wpkh(@0))"),
        ("w-multi", "wsh(sortedmulti(2,@0,@1,@2))"),
    ];
    let wallets = kinds.map(|(name, template)| {
        let descriptor = wallet(&node, name, template);
        let added = add(&daemon, &json!({ "descriptor": descriptor }));
        Wallet {
            name,
            id: id(&added),
        }
    });
    for wallet in &wallets {
        wait_until("nothing was there before", || {
            let shown = of(&daemon, &wallet.id, "");
            (shown["coverage"]["pending"] == false).then_some(())
        });
    }
    let seed = 0x5eed;
    let mut chance = Chance(seed);
    for number in 0..STEPS {
        let what = step(&node, &mut daemon, &wallets, &mut chance);
        agree(
            &node,
            &daemon,
            &wallets,
            &format!("step {number} of seed {seed}, {what}"),
        );
    }
    let moved = wallets.iter().filter(|it| ours(&daemon, it).1.len() > 10);
    assert_eq!(moved.count(), 4, "each has lived");
}
