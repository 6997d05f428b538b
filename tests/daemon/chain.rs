//! Catching up: many blocks at once, restarts, addresses and clients that come while the chain
//! moves.

use std::net::TcpListener;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{Address, Network, PubkeyHash};
use serde_json::{Value, json};

use crate::common::oracle::Balances;
use crate::common::rpc_proxy::Mood;
use crate::common::{COIN, Client, Daemon, Node, RpcProxy, ledger, wait_until};
use crate::reorg::NEVER;
use crate::reorg::story::{self, Story, agrees, listener, tip};

#[test]
fn what_happened_while_the_daemon_was_down_is_caught_up_with_events() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let address = node.address();
    daemon.watch(&address);
    node.pay(&address, COIN);
    let lost = node.mine(1).remove(0);
    daemon.wait_balance(&address, COIN, 0);
    let before = daemon.balance(&address)["cursor"]
        .as_str()
        .expect("a cursor is text")
        .to_owned();
    daemon.stop();

    // A reorg, a payment in a block and one in the mempool.
    node.rpc("invalidateblock", json!([lost]));
    let mined = node.pay(&address, 2 * COIN);
    node.mine(3);
    let waiting = node.pay(&address, 4 * COIN);
    daemon.restart();

    assert_eq!(
        agrees(&daemon, &node, &address),
        Balances {
            confirmed: 3 * COIN,
            unconfirmed: 4 * COIN
        }
    );
    let events = daemon
        .get(&format!("/events?after={before}&address={address}"))
        .json;
    let events = events["events"].as_array().expect("a list of events");
    let announced: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "new_transactions")
        .map(|event| event["data"]["transactions"][0]["txid"].clone())
        .collect();
    assert_eq!(announced, [json!(mined), json!(waiting)]);
    let mut balance = json!(COIN);
    for change in events
        .iter()
        .filter(|event| event["event"] == "balance_change")
    {
        assert_eq!(
            change["data"]["old_balance"], balance,
            "each change starts where the one before ended"
        );
        balance = change["data"]["new_balance"].clone();
    }
    assert_eq!(balance, 7 * COIN);
}

#[test]
fn a_killed_daemon_goes_on_where_it_was() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let address = node.address();
    daemon.watch(&address);
    node.pay(&address, COIN);
    node.mine(1);
    node.pay(&address, 2 * COIN);
    daemon.wait_balance(&address, COIN, 2 * COIN);
    daemon.kill();
    node.mine(1);
    node.pay(&address, 4 * COIN);
    daemon.restart();
    assert_eq!(
        agrees(&daemon, &node, &address),
        Balances {
            confirmed: 3 * COIN,
            unconfirmed: 4 * COIN
        }
    );
    let history = daemon.get(&format!("/transactions/{address}")).json;
    assert_eq!(history["count"], 3, "none missing, none twice: {history}");
}

#[test]
fn a_second_daemon_on_the_same_store_is_refused() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let listen = format!("127.0.0.1:{}", daemon.port());
    for port in ["127.0.0.1:0", &listen] {
        daemon.set("server.listen", port);
        let output = daemon.second();
        assert!(!output.status.success(), "a second daemon must not start");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("uses the store"), "it says why: {said}");
        assert_eq!(
            daemon.get("/status").status,
            200,
            "the first is none the worse"
        );
    }
}

#[test]
fn a_start_whose_port_is_taken_leaves_the_store_alone() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = taken.local_addr().expect("an address").to_string();
    daemon.set("server.listen", &listen);
    let other = daemon.store().with_file_name("other");
    daemon.set("store.path", &other.display().to_string());
    let output = daemon.second();
    assert!(!output.status.success(), "nobody could reach it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot listen on"), "it says why: {said}");
    assert!(!other.exists(), "nothing is made");
}

/// Blocks in bursts, payments in between.
fn pay_in_bursts(node: &Node, address: &str, blocks: u32) -> i64 {
    for burst in 0..4 {
        node.pay(address, COIN);
        if burst % 2 == 0 {
            node.mine_to(address, 1);
        }
        node.mine_to_nobody(blocks / 4);
    }
    node.pay(address, COIN);
    5
}

#[test]
fn hundreds_of_blocks_are_followed_whether_they_come_at_once_or_came_while_the_daemon_was_down() {
    let node = Node::start();
    let mut daemon = Daemon::with(&node, &[NEVER]);
    let start = tip(&node);
    let address = node.address();
    let client = listener(&daemon, &[&address]);
    let live = pay_in_bursts(&node, &address, 200);
    agrees(&daemon, &node, &address);
    let told = Story::of(&daemon, &client, &address);
    assert_eq!(
        told.balances().len() as i64,
        live + 2,
        "five payments and two coinbases"
    );
    drop(client);
    daemon.stop();
    let down = pay_in_bursts(&node, &address, 320);
    daemon.restart();
    agrees(&daemon, &node, &address);
    assert_eq!(
        story::chain(&daemon, &node, &start),
        Vec::<i64>::new(),
        "every block is told, in order, each once"
    );
    let history = daemon
        .get(&format!("/transactions/{address}?limit=1000"))
        .json;
    assert_eq!(history["total"], live + down + 4);
}

/// Undone from our own rows; the node's word is needed for what comes instead.
#[test]
fn five_hundred_blocks_are_undone_while_the_daemon_runs_and_while_it_is_down() {
    let node = Node::start();
    let mut daemon = Daemon::with(&node, &[NEVER]);
    let start = tip(&node);
    let (address, lost) = (node.address(), node.address());
    let client = listener(&daemon, &[&address, &lost]);
    let txid = node.pay(&address, COIN);
    let old = node.mine_to(&lost, 1).remove(0);
    let old_tip = node.mine_to_nobody(499).pop();
    agrees(&daemon, &node, &address);
    agrees(&daemon, &node, &lost);

    // While it is down: back to the beginning, and up another way of the same length.
    daemon.stop();
    drop(client);
    node.rpc("invalidateblock", json!([old]));
    assert_eq!(tip(&node), start);
    node.mine_to_nobody(500);
    daemon.restart();
    agrees(&daemon, &node, &lost);
    let client = listener(&daemon, &[&address, &lost]);

    // While it runs: the first branch is given back and preferred.
    node.rpc("reconsiderblock", json!([old]));
    node.rpc("preciousblock", json!([old_tip]));
    wait_until("the node is on its old branch", || {
        (node.rpc("getblockhash", json!([126])) == *old).then_some(())
    });
    agrees(&daemon, &node, &address);
    agrees(&daemon, &node, &lost);
    assert_eq!(story::chain(&daemon, &node, &start), [500, 500]);
    client.event("reorg", |data| data["depth"] == 500);
    let history = daemon.get(&format!("/transactions/{address}")).json;
    let transaction = &history["transactions"][0];
    assert_eq!(
        (
            &history["count"],
            &transaction["txid"],
            &transaction["block_hash"]
        ),
        (&json!(1), &json!(txid), &json!(old))
    );
}

/// Something for the daemon to scan for.
fn strangers(count: u32) -> Vec<String> {
    let hash = |number: u32| PubkeyHash::hash(&number.to_le_bytes());
    (0..count)
        .map(|number| Address::p2pkh(hash(number), Network::Regtest).to_string())
        .collect()
}

/// What an address had spent before it was added is unspent again when the block of the spend is
/// gone; and a scan that is on its way speaks for a block that is gone.
#[test]
fn a_reorg_below_the_height_at_which_an_address_was_added_leaves_its_balance_right() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[NEVER]);
    let addresses: Vec<String> = (0..3).map(|_| node.address()).collect();
    let paid: Vec<String> = addresses
        .iter()
        .map(|address| node.pay(address, COIN))
        .collect();
    node.mine(1);
    let outputs = |paid: &str| {
        let tx = node.rpc("getrawtransaction", json!([paid, true, node.tip()]));
        let outputs = tx["vout"].as_array().cloned().expect("a list");
        let ours = outputs
            .iter()
            .find(|output| output["value"] == 1.0)
            .expect("the payment");
        (paid.to_owned(), ours["n"].as_u64().expect("a number"))
    };
    let coins: Vec<_> = paid.iter().map(|txid| outputs(txid)).collect();
    let spends: Vec<String> = coins
        .iter()
        .map(|coin| {
            node.signed(
                std::slice::from_ref(coin),
                &[(&node.address(), COIN - 10_000)],
            )
        })
        .collect();
    // The first spend stays in the mempool when its block is gone, the second one is replaced, the
    // third one is lost.
    spends.iter().for_each(|hex| drop(node.send(hex)));
    let lost = node.mine(1).remove(0);
    node.mine(2);
    daemon.wait_tip(&node);
    for address in &addresses {
        daemon.watch(address);
        assert_eq!(daemon.balance(address)["balance"], 0, "all is spent");
    }
    node.rpc("invalidateblock", json!([lost]));
    for address in &addresses {
        agrees(&daemon, &node, address);
        daemon.wait_complete(address);
    }
    node.send(&node.signed(&coins[1..2], &[(&node.address(), COIN - 40_000)]));
    for address in &addresses {
        assert_eq!(
            agrees(&daemon, &node, address),
            Balances {
                confirmed: COIN,
                unconfirmed: -COIN
            }
        );
    }
    let third = node.rpc("decoderawtransaction", json!([spends[2]]))["txid"]
        .as_str()
        .expect("a text")
        .to_owned();
    node.rpc("prioritisetransaction", json!([third, 0, -100_000_000]));
    node.mine(3);
    for (address, left) in addresses.iter().zip([0, 0, COIN]) {
        assert_eq!(
            agrees(&daemon, &node, address),
            Balances {
                confirmed: left,
                unconfirmed: -left
            }
        );
    }
    ledger::check(&daemon);
}

#[test]
fn a_block_that_is_taken_back_while_it_is_being_scanned_does_not_hold_up_the_balance() {
    let node = Node::start();
    let proxy = RpcProxy::of(&node);
    let daemon = Daemon::with(&node, &[NEVER, ("bitcoind.rpc_url", &proxy.url())]);
    let (before, with) = (node.address(), node.address());
    node.pay(&before, COIN);
    node.mine(1);
    node.pay(&with, COIN);
    let lost = node.mine(1).remove(0);
    daemon.wait_tip(&node);
    // The scan's answer is on its way for so long that the daemon has gone back when it comes.
    proxy.set_for("scantxoutset", Mood::Late(Duration::from_secs(1)));
    let added = daemon.post("/add_addresses", &json!({ "addresses": [&before, &with] }));
    assert_eq!(added.status, 200, "{}", added.text);
    wait_until("the scan is asked for", || {
        proxy.calls().get("scantxoutset").map(drop)
    });
    node.rpc("invalidateblock", json!([lost]));
    for (address, right) in [
        (
            &before,
            Balances {
                confirmed: COIN,
                unconfirmed: 0,
            },
        ),
        (
            &with,
            Balances {
                confirmed: 0,
                unconfirmed: COIN,
            },
        ),
    ] {
        daemon.wait_complete(address);
        assert_eq!(agrees(&daemon, &node, address), right);
    }
    ledger::check(&daemon);
}

#[test]
fn addresses_that_are_added_while_blocks_come_and_go_are_right() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[NEVER]);
    let addresses: Vec<String> = (0..6).map(|_| node.address()).collect();
    for address in &addresses {
        node.pay(address, COIN);
    }
    node.mine(1);
    for (round, address) in addresses.iter().enumerate() {
        // The more there is to scan for, the longer it takes.
        let strangers = strangers(2000 * u32::try_from(round).expect("small") + 1);
        daemon.post("/add_addresses", &json!({ "addresses": strangers }));
        let added = daemon.post("/add_address", &json!({ "address": address }));
        assert_eq!(added.status, 200, "{}", added.text);
        node.pay(address, 2 * COIN);
        let lost = node.mine(1).remove(0);
        if round % 2 == 1 {
            node.rpc("invalidateblock", json!([lost]));
            node.mine(2);
        }
    }
    for address in &addresses {
        daemon.wait_complete(address);
        assert_eq!(
            agrees(&daemon, &node, address),
            Balances {
                confirmed: 3 * COIN,
                unconfirmed: 0
            }
        );
    }
    ledger::check(&daemon);
}

/// A client that comes back hears what it missed, and what happens meanwhile, in the log's order
/// and once.
#[test]
fn a_reorg_during_a_replay_is_told_in_its_place() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[NEVER]);
    let address = node.address();
    daemon.watch(&address);
    let cursor = daemon.balance(&address)["cursor"].clone();
    let mut blocks = Vec::new();
    for _ in 0..100 {
        blocks.extend(node.mine_to(&address, 1));
    }
    agrees(&daemon, &node, &address);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let clients: Vec<Client> = std::thread::scope(|threads| {
        threads.spawn(|| {
            for depth in [3, 10, 30] {
                node.rpc("invalidateblock", json!([blocks[blocks.len() - depth]]));
                node.mine(1);
                node.rpc("reconsiderblock", json!([blocks[blocks.len() - depth]]));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut clients = Vec::new();
        while !stop.load(std::sync::atomic::Ordering::Relaxed) && clients.len() < 30 {
            let client = Client::connect(&daemon);
            client.emit(
                "subscribe_address",
                &json!({ "address": address, "after": cursor }),
            );
            client.event("caught_up", |_| true);
            clients.push(client);
        }
        clients
    });
    agrees(&daemon, &node, &address);
    for client in &clients {
        Story::of(&daemon, client, &address);
        assert_eq!(client.all("caught_up").len(), 1);
    }
    let told: Vec<Value> = ledger::check(&daemon)
        .into_iter()
        .filter(|event| event["event"] == "reorg")
        .collect();
    assert!(
        clients.len() > 1 && told.len() >= 3,
        "{} clients, {} reorgs",
        clients.len(),
        told.len()
    );
}
