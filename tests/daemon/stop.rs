//! SIGTERM: whatever the daemon is at, it ends in order and in time ([`Daemon::stop`]), and what it
//! answered is kept.

use std::time::Duration;

use bitcoin::consensus::encode;
use bitcoin::hashes::Hash;
use bitcoin::{Address, Network, PubkeyHash};
use serde_json::json;

use crate::common::daemon::request;
use crate::common::rpc_proxy::Mood;
use crate::common::{COIN, Daemon, Node, RpcProxy, wait_until};
use crate::history::{complete, open, under_way};
use crate::mempool::stage::{free_coins, script, spend, stranger};
use crate::reorg::NEVER;

/// Addresses of one request.
const ADDED: usize = 10_000;
/// Outputs of the address that has many.
const OUTPUTS: i64 = 20_000;

fn count(daemon: &Daemon, name: &str) -> usize {
    let count = daemon.get("/status").json[name].as_u64();
    usize::try_from(count.expect("a number")).expect("small")
}

fn strangers(request: usize) -> Vec<String> {
    let address = |n: usize| {
        let hash = PubkeyHash::hash(&n.to_le_bytes());
        Address::p2pkh(hash, Network::Regtest).to_string()
    };
    (request * ADDED..(request + 1) * ADDED)
        .map(address)
        .collect()
}

/// An address that owns very many outputs, each of 1000 satoshi.
fn rich(node: &Node) -> String {
    // Of no wallet, which would be busy with them for minutes.
    let address = strangers(0).swap_remove(0);
    let script = script(&address);
    let outputs = vec![(&script, 1000); 2500];
    for coin in free_coins(node, 8, 5_000_000) {
        node.send(&encode::serialize_hex(&spend(&[coin], &outputs)));
    }
    // Knots puts a few of them into a block.
    node.mine(4);
    address
}

#[test]
fn sigterm_in_the_middle_of_large_requests_ends_it_in_time_and_each_is_whole_or_not_there() {
    let node = Node::start();
    let mut daemon = Daemon::with(&node, &[NEVER]);
    let paid = node.address();
    daemon.watch(&paid);
    let requests: Vec<_> = (0..5)
        .map(|n| json!({ "addresses": strangers(n) }).to_string())
        .collect();
    let url = format!("{}/add_addresses", daemon.url());
    let add = |body: &String| {
        let headers = [("Content-Type", "application/json")];
        let answer = request("POST", &url, &headers, Some(body.as_bytes()));
        answer.is_ok_and(|answer| answer.status == 200)
    };
    let answered = std::thread::scope(|scope| {
        let adding: Vec<_> = requests
            .iter()
            .map(|body| scope.spawn(|| add(body)))
            .collect();
        node.pay(&paid, COIN);
        wait_until("some are there", || {
            (count(&daemon, "address_count") > ADDED).then_some(())
        });
        node.pay(&paid, COIN);
        daemon.stop();
        let answered = adding.into_iter().map(|it| it.join().expect("no panic"));
        answered.filter(|it| *it).count()
    });
    daemon.restart();
    let kept = count(&daemon, "address_count") - 1;
    assert!(
        kept.is_multiple_of(ADDED) && kept >= answered * ADDED,
        "{kept} {answered}"
    );
    daemon.wait_balance(&paid, 0, 2 * COIN);
}

#[test]
fn sigterm_in_the_middle_of_very_many_outputs_ends_it_in_time_and_they_are_right_afterwards() {
    let node = Node::start();
    let address = rich(&node);
    let mut daemon = Daemon::with(&node, &[NEVER]);
    let path = format!("/addresses/{address}");
    for outputs_at_the_stop in [0, 1] {
        daemon.post("/add_address", &json!({ "address": address }));
        wait_until("its outputs come", || {
            (count(&daemon, "total_utxos") >= outputs_at_the_stop).then_some(())
        });
        daemon.stop();
        daemon.restart();
        daemon.wait_complete(&address);
        daemon.wait_balance(&address, OUTPUTS * 1000, 0);
        assert_eq!(daemon.request("DELETE", &path, &[], None).status, 200);
        daemon.stop();
        daemon.restart();
        wait_until("they are gone", || {
            (count(&daemon, "total_utxos") == 0).then_some(())
        });
    }
}

#[test]
fn sigterm_while_the_node_is_slow_or_hangs_ends_it_in_time() {
    let node = Node::start();
    let proxy = RpcProxy::of(&node);
    let settings = [NEVER, ("bitcoind.rpc_url", &proxy.url())];
    let mut daemon = Daemon::with(&node, &settings);
    let address = node.address();
    daemon.watch(&address);

    // In the middle of a history scan.
    let id = open(
        &daemon,
        std::slice::from_ref(&address),
        json!({ "from_height": 0 }),
    );
    under_way(&daemon, &proxy, &id, 20);
    daemon.stop();
    proxy.set(Mood::Pass);
    daemon.restart();
    complete(&daemon, &id);

    // In the middle of the mempool.
    daemon.stop();
    let crowd = free_coins(&node, 1000, 10_000).into_iter();
    let crowd =
        crowd.map(|coin| encode::serialize_hex(&spend(&[coin], &[(&stranger("crowd"), 9_000)])));
    node.send_all(&crowd.collect::<Vec<_>>());
    node.pay(&address, COIN);
    proxy.set_for("getrawtransaction", Mood::Slow(Duration::from_secs(3)));
    let fetched = || proxy.calls().get("getrawtransaction").copied().unwrap_or(0);
    let before = fetched();
    daemon.launch_again();
    wait_until("it reads the mempool", || {
        (fetched() > before).then_some(())
    });
    daemon.stop();
    proxy.set(Mood::Pass);
    daemon.restart();
    daemon.wait_balance(&address, 0, COIN);

    // While the node hangs: in the middle of its work, and at the start.
    let other = node.address();
    node.freeze();
    daemon.post("/add_address", &json!({ "address": other }));
    daemon.stop();
    daemon.launch_again();
    daemon.stop();
    node.thaw();
    daemon.restart();
    daemon.wait_complete(&other);
}

#[test]
fn sigterm_while_a_folder_of_an_earlier_format_is_brought_up_ends_it_and_the_next_start_goes_on() {
    let node = Node::start();
    let mut daemon = Daemon::with(&node, &[NEVER]);
    daemon.stop();
    {
        let (options, db) = (rocksdb::Options::default(), daemon.store().join("db"));
        let families = rocksdb::DB::list_cf(&options, &db).expect("it is a database");
        let mut raw = rocksdb::DB::open_cf(&options, &db, families).expect("it is a database");
        raw.drop_cf("raw_txs").expect("it is there");
        let transaction = spend(&[], &[(&script(&strangers(0)[0]), 1000)]);
        // Evicted, first seen and in order at 0, touches nobody; then the transaction.
        let row = [&[1, 4], &[0; 17][..], &encode::serialize(&transaction)].concat();
        let mut batch = rocksdb::WriteBatch::default();
        let txs = raw.cf_handle("txs").expect("it has rows");
        for n in 0..500_000_u32 {
            batch.put_cf(txs, [n.to_be_bytes(); 8].concat(), &row);
        }
        let meta = raw.cf_handle("meta").expect("it has rows");
        batch.put_cf(meta, "format", [1, 5, 0, 0, 0]);
        batch.put_cf(meta, "counts", [&[1][..], &[0; 24]].concat());
        raw.write(batch).expect("written");
    }
    for step in [
        "bringing it up to format",
        "rows are checked",
        "rows are brought up",
    ] {
        daemon.begin();
        wait_until(step, || daemon.log().contains(step).then_some(()));
        daemon.stop();
        assert!(daemon.log().contains("the next one goes on with it"));
    }
    daemon.restart();
    let log = daemon.log();
    assert!(
        log.contains("the store has format 8 now") && !log.contains("are checked"),
        "{log}"
    );
}
