//! Every kind of node: with block filters, without REST, without its old blocks; and every kind of
//! range.

use serde_json::{Value, json};

use super::play::{Play, confirmed_of, slow};
use super::{complete, ends, look, open, plausible, under_way};
use crate::common::node::Options;
use crate::common::rpc_proxy::Mood;
use crate::common::{COIN, Daemon, Node, RpcProxy, ledger, wait_until};
use satwatch::remedy::Remedy;

fn with(extra: &[&str]) -> Options {
    Options {
        extra: extra.iter().map(|text| (*text).to_owned()).collect(),
        ..Options::default()
    }
}

fn calls(play: &Play, method: &str) -> u64 {
    play.proxy.calls().get(method).copied().unwrap_or(0)
}

fn filters_are_there(play: &Play) {
    wait_until("the filters are there", || {
        let index = play.node.rpc("getindexinfo", json!([]));
        (index["basic block filter index"]["synced"] == true).then_some(())
    });
}

#[test]
fn a_node_with_block_filters_is_not_asked_for_the_blocks_that_do_not_matter() {
    let mut play = Play::grown(3, with(&["-blockfilterindex=1"]), &[], |world, node| {
        world.live(node, 30);
        world.idle(node, 300);
        world.live(node, 130);
    });
    filters_are_there(&play);
    let cursor = play.add();
    let (height, before) = (
        play.world.height(),
        [calls(&play, "rest"), calls(&play, "getblock")],
    );
    slow(&play.proxy, 20);
    let id = play.scan_all(json!({ "from_height": 0 }));
    let mut methods = Vec::new();
    wait_until("its end", || {
        let scan = look(&play.late, &id);
        plausible(&scan);
        methods.push(scan["method"].clone());
        (scan["status"] == "complete").then_some(())
    });
    assert!(methods.contains(&json!("filters")), "{methods:?}");
    let asked = calls(&play, "rest") + calls(&play, "getblock") - before[0] - before[1];
    assert!(
        calls(&play, "scanblocks") > 0 && asked < height as u64 - 280,
        "{asked} questions for blocks of {height}"
    );
    play.scanned(&id);
    play.nothing_was_told(&cursor);
    ledger::check(&play.late);
}

#[test]
fn a_scan_that_joins_in_the_middle_of_a_filtered_range_misses_nothing() {
    let mut play = Play::begin(6, 200, with(&["-blockfilterindex=1"]), &[]);
    filters_are_there(&play);
    play.add();
    slow(&play.proxy, 200);
    let (one, others) = play.watched.split_first().expect("some are watched");
    let first = open(
        &play.late,
        std::slice::from_ref(one),
        json!({ "from_height": 1 }),
    );
    under_way(&play.late, &play.proxy, &first, 5);
    assert_eq!(play.late.request("POST", "/stop", &[], None).status, 200);
    slow(&play.proxy, 200);
    let stands = wait_until("it stands", || {
        let scan = look(&play.late, &first);
        (scan["status"] == "waiting").then_some(scan)
    });
    let next = stands["height"].as_u64().expect("it has come somewhere") as usize + 1;
    let second = open(&play.late, others, json!({ "from_height": next }));
    assert_eq!(play.late.request("POST", "/start", &[], None).status, 200);
    slow(&play.proxy, 0);
    for (id, addresses, from) in [
        (&first, std::slice::from_ref(one), 1),
        (&second, others, next),
    ] {
        complete(&play.late, id);
        for address in addresses {
            assert_eq!(
                confirmed_of(&play.late, address),
                play.chain.transactions(address, from, play.world.height()),
                "{address} from {from}"
            );
        }
    }
}

/// Also what a filter says by mistake, and filters that are not made yet or are behind, lose
/// nothing.
#[test]
fn filters_that_are_still_being_made_are_no_hindrance() {
    let mut play = Play::begin(4, 110, Options::default(), &[]);
    play.node.stop();
    play.node.restart_with(&["-blockfilterindex=1"]);
    play.late.wait_ready();
    play.add();
    let id = play.scan_all(json!({ "from_height": 0 }));
    play.scanned(&id);
}

#[test]
fn a_node_without_rest_is_read_over_rpc() {
    let mut play = Play::begin(5, 110, with(&["-rest=0"]), &[]);
    let cursor = play.add();
    slow(&play.proxy, 20);
    let id = play.scan_all(json!({ "from_height": 0 }));
    under_way(&play.late, &play.proxy, &id, 30);
    play.world.back(&play.node, 40);
    play.world.live(&play.node, 50);
    slow(&play.proxy, 0);
    let scan = play.scanned(&id);
    assert_eq!(
        scan["transactions"].as_u64().map(|found| found > 0),
        Some(true),
        "{scan}"
    );
    play.nothing_was_news(&cursor, 110);
    ledger::check(&play.late);
}

/// What is asked for by ranges, and what the histories then hold: just that, whole, with spends of
/// what came before.
fn ranges(mut play: Play) {
    let cursor = play.add();
    let top = play.world.height();
    let asked: [(Value, usize, usize); 6] = [
        (json!({ "blocks_back": 40 }), top - 39, top),
        (json!({ "from_height": top - 60 }), top - 60, top),
        (json!({ "from_height": 130, "to_height": 150 }), 130, 150),
        (json!({ "to_height": 140 }), 0, 140),
        (json!({ "from_height": top, "to_height": top }), top, top),
        (json!({}), 0, top),
    ];
    let groups: Vec<Vec<String>> = play
        .watched
        .chunks(play.watched.len() / asked.len())
        .map(<[String]>::to_vec)
        .collect();
    let ids: Vec<String> = groups
        .iter()
        .zip(&asked)
        .map(|(group, (body, _, _))| open(&play.late, group, body.clone()))
        .collect();
    for (id, (group, (body, from, to))) in ids.iter().zip(groups.iter().zip(&asked)) {
        let scan = complete(&play.late, id);
        assert_eq!(scan["from_height"], *from, "{scan}");
        for end in ends(&play.late, id, group) {
            assert_eq!(end["from_height"], *from, "{body}: {end}");
            assert!(
                end["to_height"].as_u64() >= Some(*to as u64),
                "{body}: {end}"
            );
        }
        for address in group {
            let right = play.chain.transactions(address, *from, *to);
            assert_eq!(
                confirmed_of(&play.late, address),
                right,
                "{body}: {address}"
            );
            let coverage = &play.late.balance(address)["coverage"];
            let from = if *to == top { *from } else { top + 1 };
            assert_eq!(
                *coverage,
                json!({ "from_height": from, "complete": true, "utxos_complete": true, "pending": false }),
                "{body}"
            );
        }
    }
    play.nothing_was_told(&cursor);
    // One that goes over all of that again, and life after it that takes found blocks back.
    let id = play.scan_all(json!({ "from_height": 0 }));
    play.scanned(&id);
    play.world.back(&play.node, 50);
    play.world.live(&play.node, 55);
    play.is_true();
    ledger::check(&play.late);
}

#[test]
fn a_range_brings_what_it_names_with_spends_of_older_coins() {
    ranges(Play::begin(6, 110, Options::default(), &[]));
}

#[test]
fn a_range_is_as_right_without_rest_and_with_filters() {
    ranges(Play::begin(
        7,
        150,
        with(&["-rest=0", "-blockfilterindex=1"]),
        &[],
    ));
}

#[test]
fn a_pruned_node_is_scanned_as_far_as_it_goes_and_the_horizon_is_told() {
    let mut play = Play::grown(8, with(&["-prune=1", "-fastprune"]), &[], |world, node| {
        world.live(node, 150);
        world.idle(node, 250);
        world.live(node, 50);
    });
    let cursor = play.add();
    let top = play.world.height();
    play.node.rpc("pruneblockchain", json!([top - 290]));
    let horizon = play.node.rpc("getblockchaininfo", json!([]))["pruneheight"]
        .as_u64()
        .expect("it is pruned") as usize;
    assert!(
        (120..top - 280).contains(&horizon),
        "half of the busy blocks are gone: {horizon} of {top}"
    );
    let id = play.scan_all(json!({ "from_height": 0 }));
    let near = open(
        &play.late,
        &play.watched[..1],
        json!({ "from_height": horizon }),
    );
    let scan = complete(&play.late, &id);
    assert_eq!(
        (&scan["horizon"], &scan["from_height"]),
        (&json!(horizon), &json!(0)),
        "{scan}"
    );
    assert_eq!(
        complete(&play.late, &near)["horizon"],
        Value::Null,
        "it asked for nothing that is gone"
    );
    assert!(
        ends(&play.late, &id, &play.watched)
            .iter()
            .all(|end| end["from_height"] == horizon)
    );
    for address in &play.watched {
        assert_eq!(
            confirmed_of(&play.late, address),
            play.chain.transactions(address, horizon, top),
            "{address}"
        );
        let coverage = &play.late.balance(address)["coverage"];
        assert_eq!(
            *coverage,
            json!({ "from_height": horizon, "complete": true, "utxos_complete": true, "pending": false })
        );
    }
    play.nothing_was_told(&cursor);
    ledger::check(&play.late);
}

#[test]
fn a_node_that_does_not_tell_what_is_spent_is_scanned_from_height_0() {
    let node = Node::start();
    let address = node.address();
    node.pay(&address, COIN);
    node.mine(1);
    let proxy = RpcProxy::of(&node);
    let neither = || {
        proxy.set_for("rest", Mood::Answer(404, ""));
        proxy.set_for("getblock", Mood::Without("prevout"));
    };
    neither();
    let daemon = Daemon::with(&node, &[("bitcoind.rpc_url", &proxy.url())]);
    daemon.watch(&address);
    let addresses = std::slice::from_ref(&address);
    let id = open(&daemon, addresses, json!({ "from_height": 50 }));
    let advice = Remedy::ScanFromZero.to_string();
    wait_until("it says what helps", || {
        daemon.log().contains(&advice).then_some(())
    });
    daemon.request("DELETE", &format!("/scans/{id}"), &[], None);
    complete(
        &daemon,
        &open(&daemon, addresses, json!({ "from_height": 0 })),
    );
    // A node that tells it.
    let id = open(&daemon, addresses, json!({ "from_height": 50 }));
    proxy.set(Mood::Pass);
    complete(&daemon, &id);
}
