//! Whatever the chain did before, during and after: a scan finds what live watching from the first
//! block on would have seen.

use serde_json::json;

use super::play::{Play, slow};
use super::{complete, ends, hold, look, open, under_way};
use crate::baseline::SOMEBODY_ELSE;
use crate::common::node::Options;
use crate::common::rpc_proxy::Mood;
use crate::common::{Client, Node, ledger, wait_until};

/// Reorganizations by hand, above the scan and below it, and life that goes on.
#[test]
fn a_history_found_while_blocks_are_taken_back_is_what_live_watching_had() {
    let mut play = Play::begin(1, 130, Options::default(), &[]);
    let cursor = play.add();
    let client = Client::connect(&play.late);
    client.ask("subscribe_address", &json!({ "address": play.watched[0] }));
    slow(&play.proxy, 30);
    let id = play.scan_all(json!({ "from_height": 0 }));

    let scan = under_way(&play.late, &play.proxy, &id, 20);
    assert_eq!(
        (&scan["method"], &scan["address_count"], &scan["status"]),
        (
            &json!("blocks"),
            &json!(play.watched.len()),
            &json!("scanning")
        )
    );
    for address in &play.watched {
        let balance = play.late.balance(address);
        assert_eq!(
            (
                &balance["coverage"]["pending"],
                &balance["coverage"]["complete"]
            ),
            (&json!(true), &json!(false))
        );
        assert_eq!(
            balance["confirmed_balance"],
            play.chain.balance(address),
            "a scan moves no balance"
        );
    }
    play.world.live(&play.node, 3);
    // Far below where it is. It can go on when the balances are known again, and not before.
    under_way(&play.late, &play.proxy, &id, 140);
    let depth = play.world.height() - 130;
    play.proxy.set_for("scantxoutset", SOMEBODY_ELSE);
    let Play {
        node,
        world,
        late,
        proxy,
        ..
    } = &mut play;
    world.back(node, depth);
    late.wait_tip(node);
    wait_until("it knows that it has to go over the new blocks", || {
        (look(late, &id)["height"].as_i64() <= Some(130)).then_some(())
    });
    world.floor = 126;
    world.live(node, depth - 20);
    proxy.set_for("scantxoutset", Mood::Pass);
    world.back(node, 3);
    world.live(node, 8);
    world.pay(node);
    slow(&play.proxy, 0);

    let scan = play.scanned(&id);
    assert_eq!(
        (&scan["from_height"], &scan["horizon"]),
        (&json!(0), &json!(null))
    );
    play.nothing_was_news(&cursor, 126);
    assert_eq!(
        client.all("new_transactions").len(),
        live_news(&play, &cursor),
        "the subscriber heard what was live, as always"
    );
    ledger::check(&play.late);
    // And after it.
    play.world.back(&play.node, 30);
    play.world.live(&play.node, 35);
    play.is_true();
    ledger::check(&play.late);
}

/// How many announcements the log has for the first address.
fn live_news(play: &Play, cursor: &serde_json::Value) -> usize {
    let log = super::after(&play.late, cursor);
    log.iter()
        .filter(|event| {
            event["event"] == "new_transactions" && event["data"]["address"] == *play.watched[0]
        })
        .count()
}

/// The other way to lose blocks: another miner had more of them.
#[test]
fn a_history_found_while_the_node_goes_over_to_another_branch_is_what_live_watching_had() {
    let p2p = |topics| Options {
        p2p: true,
        topics,
        blocks: 0,
        ..Options::default()
    };
    let mut play = Play::begin(2, 100, p2p(Options::default().topics), &[]);
    let far = Node::with(p2p(&[]));
    play.node.connect(&far);
    play.node.part();
    let cursor = play.add();
    hold(&play.proxy);
    let half = play.watched.len() / 2;
    let first = open(
        &play.late,
        &play.watched[..half],
        json!({ "from_height": 0 }),
    );
    let each: Vec<(String, String)> = play.watched[half..]
        .iter()
        .map(|address| {
            (
                address.clone(),
                open(
                    &play.late,
                    std::slice::from_ref(address),
                    json!({ "from_height": 0 }),
                ),
            )
        })
        .collect();
    // One branch here and another one there, from the same block on.
    let fork = play.world.height();
    let mut other = play.world.clone();
    (other.rng.0, other.floor) = (other.rng.0 + 1, fork - 5);
    other.live(&far, 25);
    for _ in 0..20 {
        // Nothing is taken back here: the node would not go over to what builds on it.
        play.world.pay(&play.node);
        play.world.block(&play.node, 5);
    }
    under_way(&play.late, &play.proxy, &first, 60);
    play.node.connect(&far);
    play.node.part();
    play.world = other;
    slow(&play.proxy, 0);

    complete(&play.late, &first);
    ends(&play.late, &first, &play.watched[..half]);
    for (address, id) in &each {
        complete(&play.late, id);
        ends(&play.late, id, std::slice::from_ref(address));
    }
    play.is_true();
    play.nothing_was_news(&cursor, fork - 5);
    ledger::check(&play.late);
}

#[test]
fn a_history_found_by_a_daemon_that_was_killed_while_blocks_were_taken_back_is_what_live_watching_had()
 {
    let mut play = Play::begin(9, 120, Options::default(), &[]);
    play.add();
    slow(&play.proxy, 30);
    let near = open(
        &play.late,
        &play.watched[..9],
        json!({ "blocks_back": 100 }),
    );
    let id = play.scan_all(json!({ "from_height": 0 }));
    for (height, depth) in [(140, 30), (120, 70), (60, 100)] {
        let scan = look(&play.late, &id);
        if scan["status"] != "complete" {
            wait_until("it is under way", || {
                let scan = look(&play.late, &id);
                (scan["status"] == "complete" || scan["height"].as_i64() > Some(height))
                    .then_some(())
            });
        }
        play.late.kill();
        play.world.back(&play.node, depth);
        // Less than there was, and more.
        let blocks = if depth == 70 { 40 } else { depth + 10 };
        play.world.live(&play.node, blocks);
        play.late.restart();
    }
    slow(&play.proxy, 0);
    complete(&play.late, &near);
    play.scanned(&id);
    play.world.back(&play.node, 20);
    play.world.live(&play.node, 25);
    play.is_true();
    ledger::check(&play.late);
}

/// What they share with others stays, what they had alone is found again.
#[test]
fn addresses_that_leave_and_come_back_while_blocks_are_scanned_and_taken_back_have_it_all() {
    let mut play = Play::begin(10, 110, Options::default(), &[]);
    play.add();
    slow(&play.proxy, 60);
    let first = play.scan_all(json!({ "from_height": 0 }));
    let mut scans = Vec::new();
    for (round, some) in play.watched.chunks(8).enumerate() {
        under_way(&play.late, &play.proxy, &first, 40 * round as i64 + 20);
        for address in some {
            let removed = play
                .late
                .request("DELETE", &format!("/addresses/{address}"), &[], None);
            assert_eq!(removed.status, 200, "{}", removed.text);
        }
        if round == 1 {
            play.world.back(&play.node, 60);
            play.world.live(&play.node, 70);
        }
        let added = play.late.post(
            "/add_addresses",
            &json!({ "addresses": some, "history": { "from_height": 0 } }),
        );
        assert_eq!(added.status, 200, "{}", added.text);
        scans.push(
            added.json["scan_id"]
                .as_str()
                .unwrap_or_else(|| panic!("{}", added.text))
                .to_owned(),
        );
    }
    slow(&play.proxy, 0);
    for (id, some) in scans.iter().zip(play.watched.chunks(8)) {
        complete(&play.late, id);
        ends(&play.late, id, some);
    }
    play.is_true();
    play.world.back(&play.node, 40);
    play.world.live(&play.node, 45);
    play.is_true();
    ledger::check(&play.late);
}
