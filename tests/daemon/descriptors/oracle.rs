//! Random lives of wallets of the node, of four kinds, and what the node says of them after each
//! step as the measure of what we say:
//!
//! - what each transaction that is in a block or the mempool does to a wallet (`gettransaction`),
//!   and which of the two it is in;
//! - confirmed and unconfirmed balance: the sums of that; and `getbalances` where the wallet has no
//!   transaction outside of block and mempool, whose inputs it would take for spent;
//! - unspent outputs: each is in `gettxout`, and their sum is the balance;
//! - addresses given for receiving: each is the wallet's (`getaddressinfo`), and given once.
//!
//! `ORACLE_STEPS` and `ORACLE_SEED` ask for another life. Keys, and which coins a wallet of the
//! node spends, do not follow from the seed.

mod steps;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::{add, id, of};
use crate::common::node::Options;
use crate::common::{COIN, DEADLINE, Daemon, Node, wait_for};
use crate::history::world::Rng;

/// The node derives tens of thousands of scripts for each wallet that is added.
const ADDED: Duration = Duration::from_secs(300);

/// The wallet of the node whose keys the others have.
const KEYS: &str = "keys";

/// A wallet of the node that has one descriptor for addresses and one for change.
struct Wallet {
    name: &'static str,
    /// What the node calls the kind of its addresses.
    kind: &'static str,
    descriptor: String,
    id: String,
    /// What the node said that each transaction does to it, which does not change.
    nets: RefCell<BTreeMap<String, i64>>,
    /// The addresses that we gave for it.
    given: RefCell<BTreeSet<String>>,
}

/// What is said of a wallet.
#[derive(Debug, Default, PartialEq)]
struct Said {
    confirmed: i64,
    unconfirmed: i64,
    /// What each transaction that is in a block or the mempool does to it, and whether it is in a
    /// block.
    transactions: BTreeMap<String, (i64, bool)>,
}

/// A life.
struct Life {
    node: Node,
    daemon: Daemon,
    wallets: [Wallet; 4],
    rng: Rng,
    /// How often `getbalances` was a measure.
    balances: usize,
}

fn number(name: &str, usual: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(usual, |text| text.parse().expect("a number"))
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn satoshi(amount: &Value) -> i64 {
    (amount.as_f64().unwrap_or_default() * COIN as f64).round() as i64
}

/// The descriptors of a wallet of the node.
fn descriptors(node: &Node, name: &str, private: bool) -> Vec<String> {
    let listed = node.wallet(name, "listdescriptors", json!([private]));
    let all = list(&listed["descriptors"]).iter();
    all.map(|it| text(&it["desc"])).collect()
}

/// The key, up to its branches, of the descriptor of a fresh wallet that begins so: private, or
/// public with origin.
fn key(node: &Node, begin: &str, private: bool) -> String {
    let mut all = descriptors(node, KEYS, private).into_iter();
    let found = all.find(|it| it.starts_with(begin) && it.contains("/0/*)"));
    let found = found.expect("a wallet has such a descriptor");
    let (key, _) = found.split_once("/0/*").expect("its branch");
    key.trim_start_matches(begin).to_owned()
}

/// Makes a wallet of the node whose only scripts are those of `template`, in which `@0` to `@2` are
/// keys. Its public descriptor, with both branches.
fn made(node: &Node, name: &str, template: &str) -> String {
    node.rpc("createwallet", json!([name, false, true]));
    for (branch, internal) in [("0", false), ("1", true)] {
        let mut script = template.to_owned();
        for (place, begin, private) in [
            ("@0", "wpkh(", true),
            ("@1", "tr(", true),
            ("@2", "pkh(", false),
        ] {
            let key = key(node, begin, private);
            script = script.replace(place, &format!("{key}/{branch}/*"));
        }
        let info = node.rpc("getdescriptorinfo", json!([script]));
        let whole = format!("{script}#{}", text(&info["checksum"]));
        let import =
            json!([[{ "desc": whole, "active": true, "internal": internal, "timestamp": "now" }]]);
        let imported = node.wallet(name, "importdescriptors", import);
        assert_eq!(imported[0]["success"], true, "{imported}");
    }
    let mut all = descriptors(node, name, false).into_iter();
    let found = all.find(|it| it.contains("/0/*"));
    let found = found.expect("that of its addresses");
    let (script, _) = found.split_once('#').expect("a checksum");
    script.replace("/0/*", "/<0;1>/*")
}

/// The transactions of a wallet of the node that are in no block, conflict with none, and are not
/// in the mempool: replaced or dropped, and not given up. Its balance takes their inputs for spent.
fn outside(listed: &Value, pool: &Value) -> BTreeSet<String> {
    let all = list(listed).iter();
    let mut found: BTreeSet<_> = all
        .filter(|it| it["confirmations"] == 0 && it["abandoned"] != true)
        .map(|it| text(&it["txid"]))
        .collect();
    for txid in list(pool) {
        found.remove(&text(txid));
    }
    found
}

impl Life {
    fn start(seed: u64) -> Self {
        let node = Node::with(Options {
            blocks: 130,
            // Enough keys for such a life, and not thousands to derive for each wallet.
            extra: vec!["-keypool=200".to_owned()],
            ..Options::default()
        });
        node.rpc("createwallet", json!([KEYS]));
        let kinds = [
            ("wpkh", "bech32", "wpkh(@0)"),
            ("tr", "bech32m", "tr(@0)"),
            ("nested", "p2sh-segwit", "sh(wpkh(@0))"),
            ("multi", "bech32", "wsh(sortedmulti(2,@0,@1,@2))"),
        ];
        let daemon = Daemon::start(&node);
        let wallets = kinds.map(|(name, kind, template)| {
            let descriptor = made(&node, name, template);
            let id = id(&add(&daemon, &json!({ "descriptor": descriptor })));
            Wallet {
                name,
                kind,
                descriptor,
                id,
                nets: RefCell::default(),
                given: RefCell::default(),
            }
        });
        node.rpc("unloadwallet", json!([KEYS]));
        let life = Self {
            node,
            daemon,
            wallets,
            rng: Rng(seed),
            balances: 0,
        };
        for wallet in &life.wallets {
            life.wait_complete(wallet);
        }
        life
    }

    fn wait_complete(&self, wallet: &Wallet) {
        let mut last = Value::Null;
        let complete = wait_for(ADDED, || {
            last = of(&self.daemon, &wallet.id, "/balance");
            (last["coverage"]["complete"] == true).then_some(())
        });
        assert!(complete.is_some(), "the past of {}: {last}", wallet.name);
    }

    /// Nothing is on its way in the node when this is asked.
    fn theirs(&self, wallet: &Wallet) -> (Said, bool) {
        let node = &self.node;
        let listed = node.wallet(wallet.name, "listtransactions", json!(["*", 10_000]));
        let pool = node.rpc("getrawmempool", json!([]));
        let mut said = Said::default();
        let mut known = wallet.nets.borrow_mut();
        for entry in list(&listed) {
            let is_in_block = entry["confirmations"].as_i64() > Some(0);
            if is_in_block || list(&pool).contains(&entry["txid"]) {
                let txid = text(&entry["txid"]);
                let net = *known.entry(txid.clone()).or_insert_with(|| {
                    let shown = node.wallet(wallet.name, "gettransaction", json!([txid]));
                    satoshi(&shown["amount"]) + satoshi(&shown["fee"])
                });
                said.transactions.insert(txid, (net, is_in_block));
            }
        }
        for (net, is_in_block) in said.transactions.values() {
            match is_in_block {
                true => said.confirmed += net,
                false => said.unconfirmed += net,
            }
        }
        let is_whole = outside(&listed, &pool).is_empty();
        if is_whole {
            let balances = node.wallet(wallet.name, "getbalances", json!([]))["mine"].take();
            let parts = ["trusted", "untrusted_pending", "immature"];
            let sum: i64 = parts.iter().map(|part| satoshi(&balances[part])).sum();
            assert_eq!(
                sum,
                said.confirmed + said.unconfirmed,
                "of {} the node says {balances} and {listed}",
                wallet.name
            );
        }
        (said, is_whole)
    }

    fn ours(&self, wallet: &Wallet) -> Said {
        let balance = of(&self.daemon, &wallet.id, "/balance");
        let mut said = Said {
            confirmed: balance["confirmed_balance"].as_i64().expect("a number"),
            unconfirmed: balance["unconfirmed_balance"].as_i64().expect("a number"),
            transactions: BTreeMap::new(),
        };
        let mut next = String::new();
        loop {
            let path = format!("/transactions?limit=100{next}");
            let page = of(&self.daemon, &wallet.id, &path);
            for entry in list(&page["transactions"]) {
                let status = text(&entry["status"]);
                if matches!(&*status, "mempool" | "confirmed") {
                    let net = entry["net"].as_i64().expect("a number");
                    let told = (net, status == "confirmed");
                    let twice = said.transactions.insert(text(&entry["txid"]), told);
                    assert_eq!(twice, None, "{entry} is listed twice");
                }
            }
            let Some(before) = page["next"].as_str() else {
                return said;
            };
            next = format!("&before={before}");
        }
    }

    /// Waits until we say of each wallet what the node says.
    fn agree(&mut self, step: &str) {
        // Its wallets hear of its own news late, too.
        self.node.rpc("syncwithvalidationinterfacequeue", json!([]));
        self.daemon.wait_tip(&self.node);
        for wallet in &self.wallets {
            let (theirs, is_whole) = self.theirs(wallet);
            let mut ours = Said::default();
            let agreed = wait_for(DEADLINE, || {
                ours = self.ours(wallet);
                (ours == theirs).then_some(())
            });
            assert!(
                agreed.is_some(),
                "after {step}, of {} the node says {theirs:?}, and we say {ours:?}",
                wallet.name,
            );
            self.unspent(wallet, theirs.confirmed + theirs.unconfirmed);
            self.balances += usize::from(is_whole);
        }
    }

    /// Each output that we list is unspent for the node, too, and together they are the balance.
    fn unspent(&self, wallet: &Wallet, balance: i64) {
        let listed = of(&self.daemon, &wallet.id, "/utxos");
        let mut sum = 0;
        for output in list(&listed["utxos"]) {
            let place = json!([output["tx_hash"], output["output_index"], true]);
            let theirs = self.node.rpc("gettxout", place);
            assert_eq!(
                (
                    satoshi(&theirs["value"]),
                    &theirs["scriptPubKey"]["address"]
                ),
                (
                    output["value"].as_i64().expect("a number"),
                    &output["address"]
                ),
                "{output}"
            );
            sum += satoshi(&theirs["value"]);
        }
        assert_eq!(sum, balance, "of {}: {listed}", wallet.name);
    }
}

#[test]
fn wallets_of_four_kinds_are_what_the_node_says_after_every_random_step() {
    let (seed, steps) = (number("ORACLE_SEED", 0x5eed), number("ORACLE_STEPS", 60));
    let mut life = Life::start(seed);
    life.fund();
    life.agree("the first payments");
    for number in 0..steps {
        let what = format!("step {number} of seed {seed}: {}", life.step());
        println!("{what}");
        life.agree(&what);
    }
    println!("getbalances was a measure {} times", life.balances);
    let mut spends = 0;
    for wallet in &life.wallets {
        let known = wallet.nets.borrow();
        let spent = known.values().filter(|net| **net < 0).count();
        println!("{}: {}, {spent} spends", wallet.name, known.len());
        spends += spent;
    }
    assert!(steps < 60 || life.balances > 0 && spends > 3, "{spends}");
}
