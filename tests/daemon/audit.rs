//! `POST /audit/{address}`: our outputs beside the node's own, at one block.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::node::Options;
use crate::common::rpc_proxy::Mood;
use crate::common::{COIN, Daemon, Node, RpcProxy, wait_until};
use crate::history::play::Play;
use crate::reorg::NEVER;

fn audit(daemon: &Daemon, address: &str) -> Value {
    let answer = daemon.post(&format!("/audit/{address}"), &json!({}));
    assert_eq!(
        (answer.status, &answer.json["address"]),
        (200, &json!(address)),
        "{}",
        answer.text
    );
    assert_eq!(
        answer.headers["satwatch-cursor"].to_str().expect("a text"),
        answer.json["cursor"]
    );
    answer.json
}

#[test]
fn after_reorganizations_and_with_a_mempool_it_agrees() {
    let mut play = Play::begin(11, 80, Options::default(), &[]);
    play.add();
    let agrees = |play: &mut Play| {
        play.late.wait_tip(&play.node);
        play.chain.follow(&play.node);
        for address in &play.watched[..12] {
            let audited = audit(&play.late, address);
            let (unspent, balance) = (play.chain.unspent(address), play.chain.balance(address));
            let both = json!({ "count": unspent.len(), "total": balance });
            assert_eq!(
                (&audited["agrees"], &audited["ours"], &audited["node"]),
                (&json!(true), &both, &both),
                "{audited}"
            );
            assert_eq!(
                audited["block"],
                json!({ "height": play.node.height(), "hash": play.node.tip() })
            );
            assert_eq!(
                [
                    &audited["missing"],
                    &audited["extra"],
                    &audited["different"]
                ],
                [&json!([]); 3],
                "{audited}"
            );
        }
    };
    agrees(&mut play);
    play.world.live(&play.node, 20);
    play.world.back(&play.node, 30);
    play.world.live(&play.node, 32);
    (0..5).for_each(|_| drop(play.world.pay(&play.node)));
    agrees(&mut play);
    let id = play.scan_all(json!({ "from_height": 0 }));
    play.scanned(&id);
    agrees(&mut play);
}

/// What an address had before it was added with `"history": "none"` is not known, and shown as
/// missing.
#[test]
fn what_we_do_not_know_is_named_as_missing() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[NEVER]);
    let address = node.address();
    let hex = node.payment(&node.coin(2 * COIN), &address, COIN);
    let txid = node.send(&hex);
    node.mine(1);
    let height = node.height();
    daemon.wait_tip(&node);
    daemon.post(
        "/add_address",
        &json!({ "address": address, "history": "none" }),
    );
    node.pay(&address, 3 * COIN);
    node.mine(1);
    daemon.wait_balance(&address, 3 * COIN, 0);
    let audited = audit(&daemon, &address);
    assert_eq!(
        (&audited["agrees"], &audited["coverage"]["utxos_complete"]),
        (&json!(false), &json!(false)),
        "{audited}"
    );
    assert_eq!(
        (&audited["ours"], &audited["node"]),
        (
            &json!({ "count": 1, "total": 3 * COIN }),
            &json!({ "count": 2, "total": 4 * COIN })
        )
    );
    let missing = json!([{ "tx_hash": txid, "output_index": 0, "value": COIN, "value_btc": 1.0, "block_height": height, "coinbase": false }]);
    assert_eq!(
        (
            &audited["missing"],
            &audited["extra"],
            &audited["different"]
        ),
        (&missing, &json!([]), &json!([]))
    );
    let scan = daemon.post(&format!("/scan_history/{address}"), &json!({}));
    assert_eq!(scan.status, 202, "{}", scan.text);
    daemon.wait_complete(&address);
    assert_eq!(
        audit(&daemon, &address)["agrees"],
        true,
        "a scan has found it"
    );
}

/// A node that says something else than it did.
#[test]
fn every_kind_of_difference_is_shown() {
    let node = Node::start();
    let proxy = RpcProxy::of(&node);
    let daemon = Daemon::with(&node, &[NEVER, ("bitcoind.rpc_url", &proxy.url())]);
    let address = node.address();
    let paid: Vec<String> = [3, 4, 5]
        .map(|coins| node.send(&node.payment(&node.coin(6 * COIN), &address, coins * COIN)))
        .into();
    node.mine(1);
    daemon.wait_tip(&node);
    daemon.watch(&address);
    daemon.wait_balance(&address, 12 * COIN, 0);
    let mut answer = node.rpc(
        "scantxoutset",
        json!(["start", [format!("addr({address})")]]),
    );
    let unspents = answer["unspents"].as_array_mut().expect("a list");
    let place = |unspents: &[Value], txid: &str| {
        unspents
            .iter()
            .position(|output| output["txid"] == *txid)
            .expect("it is found")
    };
    let gone = place(unspents, &paid[0]);
    unspents.remove(gone);
    let other = place(unspents, &paid[1]);
    unspents[other]["amount"] = json!(4.5);
    unspents[other]["height"] = json!(7);
    let mut invented = unspents[place(unspents, &paid[2])].clone();
    invented["vout"] = json!(77);
    unspents.push(invented);
    let text = json!({ "result": answer, "error": null, "id": 0 }).to_string();
    proxy.set_for(
        "scantxoutset",
        Mood::Answer(200, Box::leak(text.into_boxed_str())),
    );
    let audited = audit(&daemon, &address);
    assert_eq!(audited["agrees"], false);
    let names = |list: &Value| -> Vec<Value> {
        list.as_array()
            .expect("a list")
            .iter()
            .map(|one| json!([one["tx_hash"], one["output_index"]]))
            .collect()
    };
    assert_eq!(
        names(&audited["missing"]),
        [json!([paid[2], 77])],
        "{audited}"
    );
    assert_eq!(names(&audited["extra"]), [json!([paid[0], 0])], "{audited}");
    let (ours, theirs) = (
        json!({ "value": 4 * COIN, "block_height": node.height(), "coinbase": false }),
        json!({ "value": 450_000_000, "block_height": 7, "coinbase": false }),
    );
    assert_eq!(
        audited["different"],
        json!([{ "tx_hash": paid[1], "output_index": 0, "ours": ours, "node": theirs }]),
        "{audited}"
    );
    assert_eq!(
        daemon.balance(&address)["balance"],
        12 * COIN,
        "an audit changes nothing"
    );
}

#[test]
fn a_node_that_is_away_or_busy_is_said_and_a_client_that_hangs_up_frees_it() {
    let node = Node::start();
    let proxy = RpcProxy::of(&node);
    let mut daemon = Daemon::with(
        &node,
        &[
            ("monitor.reconcile_interval", "1"),
            ("bitcoind.rpc_url", &proxy.url()),
        ],
    );
    let address = node.address();
    daemon.watch(&address);
    let asked = || proxy.calls().get("scantxoutset").copied().unwrap_or(0);
    let before = asked();
    // The node is at it for long; a second one is refused, and the first client loses its patience.
    proxy.set_for("scantxoutset", Mood::Late(Duration::from_secs(2)));
    let mut impatient =
        TcpStream::connect(("127.0.0.1", daemon.port())).expect("the daemon listens");
    write!(
        impatient,
        "POST /audit/{address} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n",
        daemon.port()
    )
    .expect("it reads");
    wait_until("the node is asked", || (asked() > before).then_some(()));
    let second = daemon.post(&format!("/audit/{address}"), &json!({}));
    assert_eq!(
        (second.status, &second.json["code"]),
        (429, &json!("too_many_requests")),
        "{}",
        second.text
    );
    drop(impatient);
    wait_until("the node is told to end it", || {
        (asked() > before + 1).then_some(())
    });
    proxy.set(Mood::Pass);
    wait_until("the next one is answered", || {
        let answer = daemon.post(&format!("/audit/{address}"), &json!({}));
        assert!([200, 429, 503].contains(&answer.status), "{}", answer.text);
        (answer.status == 200).then_some(())
    });
    // Its end does not wait for a scan.
    proxy.set_for("scantxoutset", Mood::Late(Duration::from_secs(20)));
    let mut patient = TcpStream::connect(("127.0.0.1", daemon.port())).expect("the daemon listens");
    let before = asked();
    write!(
        patient,
        "POST /audit/{address} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n",
        daemon.port()
    )
    .expect("it reads");
    wait_until("the node is asked", || (asked() > before).then_some(()));
    daemon.stop();
    proxy.set(Mood::Pass);
    daemon.restart();
    node.stop();
    wait_until("the node is missed", || {
        (daemon.get("/health/ready").status == 503).then_some(())
    });
    let away = daemon.post(&format!("/audit/{address}"), &json!({}));
    assert_eq!(
        (away.status, &away.json["code"]),
        (503, &json!("node_unavailable")),
        "{}",
        away.text
    );
}
