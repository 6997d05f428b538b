//! What an operator does by hand, and branches of equal height.

use serde_json::json;

use super::NEVER;
use super::story::{self, Story, agrees, listener, tip};
use crate::common::node::{Node, Options};
use crate::common::{COIN, Daemon, wait_until};

/// Thirty blocks with payments to the first address, one of which is passed on to the second.
fn busy_blocks(node: &Node, address: &str, elsewhere: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    for block in 0..30 {
        if block % 4 == 0 {
            let paid = node.send(&node.payment(&node.coin(2 * COIN), address, COIN));
            if block % 8 == 0 {
                node.send(&node.signed(&[(paid, 0)], &[(elsewhere, COIN - 10_000)]));
            }
        }
        blocks.extend(match block % 10 {
            5 => node.mine_to(address, 1),
            _ => node.mine(1),
        });
    }
    blocks
}

fn taken_back_and_given_again(node: &Node, daemon: &Daemon) {
    let start = tip(node);
    let (address, elsewhere) = (node.address(), node.address());
    let client = listener(daemon, &[&address, &elsewhere]);
    let blocks = busy_blocks(node, &address, &elsewhere);
    for address in [&address, &elsewhere] {
        agrees(daemon, node, address);
    }
    for depth in [1, 3, 30] {
        let before = [&address, &elsewhere].map(|address| daemon.state(address));
        let from = &blocks[blocks.len() - depth];
        node.rpc("invalidateblock", json!([from]));
        for address in [&address, &elsewhere] {
            agrees(daemon, node, address);
        }
        node.rpc("reconsiderblock", json!([from]));
        for address in [&address, &elsewhere] {
            agrees(daemon, node, address);
        }
        assert_eq!(
            [&address, &elsewhere].map(|address| daemon.state(address)),
            before,
            "{depth} deep: as if nothing had happened"
        );
    }
    let depths = story::chain(daemon, node, &start);
    assert_eq!(
        depths.iter().sum::<i64>(),
        1 + 3 + 30,
        "the node takes blocks back one by one; no one is told twice: {depths:?}"
    );
    for address in [&address, &elsewhere] {
        let listed = daemon.state(address)[1]["count"]
            .as_u64()
            .expect("a number") as usize;
        let announced: usize = client
            .all("new_transactions")
            .iter()
            .filter(|data| data["address"] == **address)
            .count();
        assert!(
            announced > 0 && announced <= listed,
            "nothing is announced again"
        );
        Story::of(daemon, &client, address);
    }
}

/// The node publishes no block at all when blocks are taken back, and beyond ten it gives their
/// transactions up.
#[test]
fn blocks_taken_back_by_hand_and_given_again_leave_everything_as_it_was() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[NEVER]);
    taken_back_and_given_again(&node, &daemon);
}

#[test]
fn the_poll_alone_finds_blocks_that_were_taken_back_and_given_again() {
    let node = Node::with(Options {
        topics: &[],
        ..Options::default()
    });
    let daemon = Daemon::with(&node, &[("monitor.reconcile_interval", "1")]);
    taken_back_and_given_again(&node, &daemon);
}

/// A block that the node makes without taking it, as hex, and its hash.
fn unsubmitted(node: &Node, to: &str, transactions: &[&str]) -> (String, String) {
    let block = node.rpc("generateblock", json!([to, transactions, false]));
    let text = |name: &str| block[name].as_str().expect("a text").to_owned();
    (text("hex"), text("hash"))
}

#[test]
fn a_rival_of_equal_height_is_silent_until_the_node_prefers_it() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[NEVER]);
    let start = tip(&node);
    let (first, second, both) = (node.address(), node.address(), node.address());
    let client = listener(&daemon, &[&first, &second, &both]);

    let both_id = node.send(&node.payment(&node.coin(2 * COIN), &both, COIN));
    let coin = node.coin(2 * COIN);
    let (first_hex, second_hex) = (
        node.payment(&coin, &first, COIN),
        node.payment(&coin, &second, COIN),
    );
    let (rival_hex, rival) = unsubmitted(&node, &node.address(), &[&both_id, &second_hex]);
    let first_id = node.send(&first_hex);
    let block = node.mine(1).remove(0);
    agrees(&daemon, &node, &first);
    let known = story::chain(&daemon, &node, &start);
    assert_eq!(
        (node.submit(&rival_hex), known),
        (json!("inconclusive"), vec![])
    );
    // What comes after it is told, so it would have been told itself.
    let later = node.address();
    let late = listener(&daemon, &[&later]);
    node.pay(&later, COIN);
    late.event("balance_change", |_| true);
    assert_eq!(client.all("reorg").len(), 0, "a stale block is no event");

    for (winner, here, gone) in [
        (&rival, &second, &first),
        (&block, &first, &second),
        (&rival, &second, &first),
    ] {
        node.rpc("preciousblock", json!([winner]));
        wait_until("the node prefers it", || {
            (node.tip() == *winner).then_some(())
        });
        for address in [&first, &second, &both] {
            agrees(&daemon, &node, address);
        }
        let balances =
            [here, gone, &both].map(|address| daemon.balance(address)["balance"].clone());
        assert_eq!(balances, [json!(COIN), json!(0), json!(COIN)]);
    }
    // The rival is thrown away, which leads to the first block again; given back, it is one of two
    // equals, and older.
    node.rpc("invalidateblock", json!([rival]));
    agrees(&daemon, &node, &first);
    node.rpc("reconsiderblock", json!([rival]));
    for address in [&first, &second, &both] {
        agrees(&daemon, &node, address);
    }
    let depths = story::chain(&daemon, &node, &start);
    assert!(
        depths.len() >= 4 && depths.iter().all(|depth| *depth == 1),
        "{depths:?}"
    );
    let told = Story::of(&daemon, &client, &first);
    let statuses = told.statuses(&first_id);
    assert_eq!(
        statuses[..4],
        ["mempool", "confirmed", "mempool", "conflicted"],
        "{statuses:?}"
    );
    assert_eq!(
        Story::of(&daemon, &client, &both).balances(),
        [COIN],
        "the same payment in both branches moves no balance"
    );
}

#[test]
fn a_coinbase_with_the_same_id_in_both_branches_is_one_transaction_in_two_places() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[NEVER]);
    let start = tip(&node);
    let address = node.address();
    let client = listener(&daemon, &[&address]);
    let (rival_hex, rival) = unsubmitted(&node, &address, &[]);
    // Time makes the difference of the blocks, which is not in the coinbase.
    let time = node.rpc("getblockheader", json!([node.tip()]))["time"]
        .as_i64()
        .expect("a number");
    node.rpc("setmocktime", json!([time + 1000]));
    let block = node.mine_to(&address, 1).remove(0);
    node.rpc("setmocktime", json!([0]));
    assert_ne!(block, rival);
    assert_eq!(node.submit(&rival_hex), "inconclusive");
    let coinbase = |block: &str| {
        node.rpc("getblock", json!([block]))["tx"][0]
            .as_str()
            .expect("a text")
            .to_owned()
    };
    let txid = coinbase(&block);
    assert_eq!(txid, coinbase(&rival), "the trap that this test is about");

    for winner in [&block, &rival, &block] {
        node.rpc("preciousblock", json!([winner]));
        daemon.wait_tip(&node);
        agrees(&daemon, &node, &address);
        let history = daemon.get(&format!("/transactions/{address}")).json;
        assert_eq!(
            (&history["count"], &history["transactions"][0]["block_hash"]),
            (&json!(1), &json!(winner))
        );
    }
    assert_eq!(story::chain(&daemon, &node, &start), [1, 1]);
    let told = Story::of(&daemon, &client, &address);
    assert_eq!(
        told.statuses(&txid),
        ["confirmed", "evicted", "confirmed", "evicted", "confirmed"]
    );
}

#[test]
fn depths_are_told_again_when_they_are_reached_again() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[NEVER]);
    let start = tip(&node);
    let address = node.address();
    let client = listener(&daemon, &[&address]);
    client.ask(
        "subscribe_address",
        &json!({ "address": address, "confirmations": [1, 3, 6] }),
    );
    let txid = node.pay(&address, COIN);
    let blocks = node.mine(7);
    agrees(&daemon, &node, &address);
    let told = || {
        agrees(&daemon, &node, &address);
        Story::of(&daemon, &client, &address);
        let updates = client
            .all("transaction_update")
            .into_iter()
            .filter(|data| data["txid"] == *txid);
        updates
            .map(|data| data["confirmations"].as_i64().expect("a number"))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(), [1, 3, 6]);
    // From 7 down to 2, up to 6: 3 and 6 are reached again, 1 is not.
    node.rpc("invalidateblock", json!([blocks[2]]));
    agrees(&daemon, &node, &address);
    node.mine(4);
    assert_eq!(told(), [1, 3, 6, 3, 6]);
    // The block of the payment itself: back in the mempool (0), and all over again.
    node.rpc("invalidateblock", json!([blocks[0]]));
    agrees(&daemon, &node, &address);
    node.mine(6);
    assert_eq!(told(), [1, 3, 6, 3, 6, 0, 1, 3, 6]);
    let depths = story::chain(&daemon, &node, &start);
    assert_eq!(depths.iter().sum::<i64>(), 5 + 6, "{depths:?}");
}
