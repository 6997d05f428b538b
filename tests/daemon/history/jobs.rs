//! Scans as jobs: several at once, their progress and its events, their end by hand, and what
//! happens to them when something stops.

use serde_json::{Value, json};

use super::play::{confirmed_of, slow};
use super::{complete, ends, look, open, oracle::Chain, plausible, under_way};
use crate::baseline::SOMEBODY_ELSE;
use crate::common::rpc_proxy::Mood;
use crate::common::{COIN, Client, Daemon, Node, Program, RpcProxy, ledger, wait_until};
use crate::contract::events_are_as_told;
use crate::reorg::NEVER;

/// Two thousand blocks are too many for a test; with an answer every 40 ms a few hundred are long
/// enough.
const SLOW: u64 = 40;

/// Field order is drop order.
struct Line {
    daemon: Daemon,
    proxy: RpcProxy,
    node: Node,
    addresses: Vec<String>,
}

impl Line {
    /// Addresses that were paid, and some spent from, in some of 370 blocks.
    fn begin() -> Self {
        let node = Node::start();
        let addresses: Vec<String> = (0..4).map(|_| node.address()).collect();
        for round in 1..=6 {
            for address in &addresses {
                node.pay(address, round * COIN / 10);
            }
            node.mine(1);
            node.mine_to_nobody(20);
            let unspent = node.owner("listunspent", json!([0, 9_999_999, [addresses[0]]]));
            let coin = (
                unspent[0]["txid"].as_str().expect("it is paid").to_owned(),
                unspent[0]["vout"].as_u64().expect("a number"),
            );
            node.send(&node.signed(&[coin], &[(&addresses[1], round * COIN / 10 - 10_000)]));
            node.mine(1);
            node.mine_to_nobody(20);
        }
        let proxy = RpcProxy::of(&node);
        let daemon = Daemon::with(&node, &[NEVER, ("bitcoind.rpc_url", &proxy.url())]);
        for address in &addresses {
            daemon.watch(address);
        }
        Self {
            daemon,
            proxy,
            node,
            addresses,
        }
    }

    fn one(&self, place: usize) -> &[String] {
        &self.addresses[place..=place]
    }

    /// Every address has its whole history.
    fn is_true(&self) {
        self.daemon.wait_tip(&self.node);
        let chain = Chain::of(&self.node);
        for address in &self.addresses {
            assert_eq!(
                confirmed_of(&self.daemon, address),
                chain.transactions(address, 0, chain.height()),
                "{address}"
            );
            assert_eq!(self.daemon.balance(address)["coverage"]["from_height"], 0);
        }
        ledger::check(&self.daemon);
    }

    fn statuses(&self) -> Vec<(String, String)> {
        let all = self.daemon.get("/scans").json;
        let scans = all["scans"].as_array().expect("a list");
        assert_eq!(all["count"], scans.len(), "{all}");
        scans.iter().for_each(plausible);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        scans
            .iter()
            .map(|scan| (text(&scan["scan_id"]), text(&scan["status"])))
            .collect()
    }
}

#[test]
fn many_jobs_wait_for_each_other_and_a_short_one_passes_a_long_one() {
    let line = Line::begin();
    assert_eq!(line.statuses(), []);
    slow(&line.proxy, SLOW);
    let long = open(&line.daemon, &line.addresses, json!({ "from_height": 0 }));
    under_way(&line.daemon, &line.proxy, &long, 10);
    let short = open(&line.daemon, line.one(3), json!({ "blocks_back": 5 }));
    let others: Vec<String> = (0..30)
        .map(|n| {
            open(
                &line.daemon,
                line.one(n % 4),
                json!({ "from_height": 5 + n }),
            )
        })
        .collect();
    let shown: Vec<String> = line.statuses().into_iter().map(|(id, _)| id).collect();
    assert_eq!(shown.len(), 32, "{shown:?}");
    assert!(
        others.iter().chain([&long]).all(|id| shown.contains(id)),
        "{shown:?}"
    );
    let of_one = look(&line.daemon, &others[2]);
    assert_eq!(
        (&of_one["address"], &of_one["address_count"]),
        (&json!(line.addresses[2]), &json!(1)),
        "{of_one}"
    );
    assert!(
        look(&line.daemon, &long).get("address").is_none(),
        "it has several"
    );
    slow(&line.proxy, SLOW);
    complete(&line.daemon, &short);
    assert_ne!(
        look(&line.daemon, &long)["status"],
        "complete",
        "the short one is done first"
    );
    let status = line.daemon.get("/status").json;
    let open_ones = status["scans"].as_array().expect("a list");
    assert!(
        open_ones.len() >= 31
            && open_ones
                .iter()
                .all(|scan| scan["scan_id"] != *short && scan["status"] != "complete"),
        "{status}"
    );
    let order: Vec<bool> = line
        .statuses()
        .iter()
        .map(|(_, status)| status == "complete")
        .collect();
    assert!(order.is_sorted(), "open ones first: {order:?}");
    slow(&line.proxy, 0);
    let before = line.proxy.calls().get("rest").copied().unwrap_or(0);
    for id in others.iter().chain([&long]) {
        complete(&line.daemon, id);
    }
    let asked = line.proxy.calls().get("rest").copied().unwrap_or(0) - before;
    assert!(
        asked < 4 * line.node.height() as u64,
        "32 jobs do not read each block 32 times: {asked}"
    );
    assert_eq!(line.daemon.get("/status").json["scans"], json!([]));
    ends(&line.daemon, &long, &line.addresses);
    line.is_true();
    // What is known already is no work, and the end is told all the same.
    let asked = line.proxy.calls().get("rest").copied();
    let again = open(&line.daemon, &line.addresses, json!({ "from_height": 0 }));
    wait_until("its end", || {
        (look(&line.daemon, &again)["percent"] == 100.0).then_some(())
    });
    assert_eq!(
        (
            &look(&line.daemon, &again)["status"],
            line.proxy.calls().get("rest").copied()
        ),
        (&json!("complete"), asked)
    );
    ends(&line.daemon, &again, &line.addresses);
}

#[test]
fn a_cancelled_job_ends_at_once_and_can_be_made_again() {
    let line = Line::begin();
    slow(&line.proxy, SLOW);
    let client = Client::subscribed(&line.daemon, &line.addresses[0]);
    let first = open(&line.daemon, &line.addresses, json!({ "from_height": 120 }));
    let queued = open(&line.daemon, line.one(1), json!({ "from_height": 0 }));
    under_way(&line.daemon, &line.proxy, &first, 180);
    let before = look(&line.daemon, &first);
    for id in [&first, &queued] {
        let cancelled = line
            .daemon
            .request("DELETE", &format!("/scans/{id}"), &[], None);
        assert_eq!(
            (
                cancelled.status,
                &cancelled.json["status"],
                &cancelled.json["scan_id"]
            ),
            (200, &json!("cancelled"), &json!(id)),
            "{}",
            cancelled.text
        );
        let again = line
            .daemon
            .request("DELETE", &format!("/scans/{id}"), &[], None);
        assert_eq!(
            (again.status, &again.json["code"]),
            (409, &json!("scan_ended")),
            "{}",
            again.text
        );
        plausible(&look(&line.daemon, id));
    }
    let after = look(&line.daemon, &first);
    for name in ["to_height", "blocks_total"] {
        assert_eq!(after[name], before[name], "{before} {after}");
    }
    for name in ["blocks_done", "percent"] {
        let number = |data: &Value| data[name].as_f64().unwrap();
        assert!(number(&after) >= number(&before), "{before} {after}");
    }
    client.event("scan_progress", |data| {
        data["scan_id"] == *first && data["status"] == "cancelled"
    });
    for address in &line.addresses {
        let coverage = &line.daemon.balance(address)["coverage"];
        assert_eq!(
            (&coverage["pending"], &coverage["complete"]),
            (&json!(false), &json!(true)),
            "the balance is as whole as it was"
        );
        assert_ne!(coverage["from_height"], 0);
    }
    let height = look(&line.daemon, &first)["height"].clone();
    slow(&line.proxy, 0);
    let other = open(&line.daemon, line.one(2), json!({ "from_height": 0 }));
    complete(&line.daemon, &other);
    let ended = look(&line.daemon, &first);
    assert_eq!(
        (&ended["status"], &ended["height"]),
        (&json!("cancelled"), &height),
        "nobody goes on with it"
    );
    assert_eq!(
        ledger::read(&line.daemon)
            .iter()
            .filter(|event| event["event"] == "scan_complete")
            .count(),
        1,
        "only the other one came to its end"
    );
    let again = open(&line.daemon, &line.addresses, json!({ "from_height": 0 }));
    complete(&line.daemon, &again);
    line.is_true();
}

#[test]
fn progress_is_told_to_those_whom_it_concerns_and_no_more_than_once_a_second() {
    let line = Line::begin();
    slow(&line.proxy, SLOW);
    let (both, none) = (
        Client::connect(&line.daemon),
        Client::subscribed(&line.daemon, &line.addresses[3]),
    );
    both.ask(
        "subscribe_addresses",
        &json!({ "addresses": line.addresses[..2] }),
    );
    let id = open(
        &line.daemon,
        &line.addresses[..3],
        json!({ "from_height": 0 }),
    );
    complete(&line.daemon, &id);
    for address in &line.addresses[..2] {
        let end = both.event("scan_complete", |data| data["address"] == **address);
        let listed = line.daemon.get(&format!("/transactions/{address}")).json["total"].clone();
        assert_eq!(
            (
                &end["scan_id"],
                &end["transaction_count"],
                &end["from_height"]
            ),
            (&json!(id), &listed, &json!(0))
        );
    }
    let told = both.all("scan_progress");
    assert!(told.len() >= 2, "a scan of seconds: {told:?}");
    for pair in told.windows(2) {
        let step = |name: &str| [pair[0][name].as_f64(), pair[1][name].as_f64()];
        for name in ["height", "percent", "blocks_done", "transactions"] {
            let [before, now] = step(name);
            assert!(before <= now, "{name}: {pair:?}");
        }
        let [before, now] = step("timestamp").map(|time| time.expect("a time"));
        assert!(
            now - before > 0.9,
            "once a second, and once for two addresses: {pair:?}"
        );
    }
    for progress in &told {
        plausible(progress);
        assert!(
            progress.get("cursor").is_none() && progress["scan_id"] == *id,
            "{progress}"
        );
    }
    assert!(
        told.iter()
            .any(|progress| progress["blocks_per_second"].is_number()
                && progress["seconds_left"].is_number()),
        "{told:?}"
    );
    let log = ledger::read(&line.daemon);
    assert!(
        log.iter().all(|event| event["event"] != "scan_progress"),
        "progress is not in the log"
    );
    line.node.pay(&line.addresses[3], COIN);
    none.event("balance_change", |_| true);
    assert_eq!(
        (
            none.all("scan_progress").len(),
            none.all("scan_complete").len(),
            both.all("scan_complete").len()
        ),
        (0, 0, 2)
    );
}

#[test]
fn the_stock_clients_hear_of_a_scan() {
    let line = Line::begin();
    let (url, address) = (line.daemon.url(), &line.addresses[0]);
    let clients = [
        Program::node("listen.js", &[&url, address, "upgrade"]),
        Program::python("listen.py", &[&url, address, "websocket"]),
    ];
    for client in &clients {
        client.event("subscribed", |data| data["address"] == **address);
    }
    slow(&line.proxy, SLOW);
    let id = open(&line.daemon, line.one(0), json!({ "from_height": 0 }));
    let ends = clients.each_ref().map(|client| {
        let progress = client.event("scan_progress", |data| {
            data["scan_id"] == *id && data["address"] == **address
        });
        events_are_as_told(&line.daemon, [("scan_progress", &progress)]);
        client.event("scan_complete", |data| data["scan_id"] == *id)
    });
    assert_eq!(ends[0], ends[1]);
}

/// Payments that come while the blocks come slowly, or not at all.
#[test]
fn what_happens_during_a_scan_is_pushed_as_always() {
    let line = Line::begin();
    let client = Client::subscribed(&line.daemon, &line.addresses[2]);
    slow(&line.proxy, SLOW);
    let id = open(&line.daemon, &line.addresses, json!({ "from_height": 0 }));
    under_way(&line.daemon, &line.proxy, &id, 20);
    let mut all = Vec::new();
    for round in 0..4 {
        let txid = line.node.pay(&line.addresses[2], COIN + round);
        client.event("new_transactions", |data| {
            data["transactions"][0]["txid"] == *txid
        });
        line.node.mine(1);
        client.event("transaction_update", |data| {
            data["txid"] == *txid && data["status"] == "confirmed"
        });
        all.push(txid);
    }
    assert_ne!(
        look(&line.daemon, &id)["status"],
        "complete",
        "all that while the scan was under way"
    );
    slow(&line.proxy, 0);
    complete(&line.daemon, &id);
    let told: Vec<Value> = client
        .all("new_transactions")
        .iter()
        .map(|data| data["transactions"][0]["txid"].clone())
        .collect();
    assert_eq!(
        json!(told),
        json!(all),
        "the payments of now, each once, and nothing of the past"
    );
    assert_eq!(client.all("balance_change").len(), all.len());
    line.is_true();
}

#[test]
fn a_killed_daemon_goes_on_with_its_scans_where_it_was() {
    let mut line = Line::begin();
    slow(&line.proxy, SLOW);
    let id = open(&line.daemon, &line.addresses, json!({ "from_height": 0 }));
    let queued = open(&line.daemon, line.one(0), json!({ "from_height": 7 }));
    for round in 1..=2 {
        under_way(&line.daemon, &line.proxy, &id, 110 * round);
        line.daemon.kill();
        line.daemon.launch_again();
        let scan = look(&line.daemon, &id);
        assert!(
            scan["height"].as_i64() > Some(60 * round),
            "not from the beginning: {scan}"
        );
        assert_eq!(
            line.daemon.balance(&line.addresses[0])["coverage"]["pending"],
            true
        );
        line.daemon.wait_ready();
    }
    line.daemon.stop();
    slow(&line.proxy, 0);
    line.daemon.restart();
    for id in [&id, &queued] {
        complete(&line.daemon, id);
    }
    ends(&line.daemon, &id, &line.addresses);
    ends(&line.daemon, &queued, line.one(0));
    line.is_true();
    line.daemon.stop();
    line.daemon.restart();
    assert_eq!(
        look(&line.daemon, &id)["status"],
        "complete",
        "and it is remembered"
    );
}

#[test]
fn a_node_that_goes_away_is_waited_for() {
    let line = Line::begin();
    slow(&line.proxy, SLOW);
    let id = open(&line.daemon, &line.addresses, json!({ "from_height": 0 }));
    let height = under_way(&line.daemon, &line.proxy, &id, 60)["height"].as_i64();
    slow(&line.proxy, SLOW);
    line.node.stop();
    let waiting = wait_until("it says what it waits for", || {
        let scan = look(&line.daemon, &id);
        (scan["status"] == "waiting").then_some(scan)
    });
    assert!(
        waiting["waits_for"]
            .as_str()
            .is_some_and(|why| why.len() > 10)
            && waiting["height"].as_i64() >= height,
        "{waiting}"
    );
    let later = open(&line.daemon, line.one(1), json!({ "from_height": 3 }));
    line.node.restart();
    slow(&line.proxy, 0);
    complete(&line.daemon, &id);
    complete(&line.daemon, &later);
    line.is_true();
}

#[test]
fn a_scan_stands_still_while_monitoring_is_stopped() {
    let line = Line::begin();
    slow(&line.proxy, SLOW);
    let id = open(&line.daemon, &line.addresses, json!({ "from_height": 0 }));
    under_way(&line.daemon, &line.proxy, &id, 60);
    assert_eq!(line.daemon.request("POST", "/stop", &[], None).status, 200);
    slow(&line.proxy, SLOW);
    let waiting = wait_until("it says what it waits for", || {
        let scan = look(&line.daemon, &id);
        (scan["status"] == "waiting").then_some(scan)
    });
    assert!(
        waiting["waits_for"]
            .as_str()
            .is_some_and(|why| why.contains("stopped")),
        "{waiting}"
    );
    line.node.pay(&line.addresses[1], COIN);
    line.node.mine(1);
    assert_eq!(look(&line.daemon, &id)["status"], "waiting");
    assert_eq!(line.daemon.request("POST", "/start", &[], None).status, 200);
    slow(&line.proxy, 0);
    complete(&line.daemon, &id);
    line.is_true();
}

#[test]
fn a_scan_does_not_hold_up_the_end_of_the_daemon() {
    let mut line = Line::begin();
    slow(&line.proxy, SLOW);
    let id = open(&line.daemon, &line.addresses, json!({ "from_height": 0 }));
    under_way(&line.daemon, &line.proxy, &id, 60);
    for method in ["rest", "getblock"] {
        line.proxy.set_for(method, Mood::Hang);
    }
    line.daemon.stop();
    let proxy = RpcProxy::of(&line.node);
    assert!(proxy.total() == 0 && !line.daemon.log().contains("panicked"));
}

/// What is unspent must be known before the past is looked at.
#[test]
fn a_scan_waits_until_the_balance_is_known() {
    let line = Line::begin();
    let late = line.node.address();
    line.node.pay(&late, COIN);
    line.node.mine(1);
    line.daemon.wait_tip(&line.node);
    line.proxy.set_for("scantxoutset", SOMEBODY_ELSE);
    let added = line.daemon.post(
        "/add_address",
        &json!({ "address": late, "history": { "from_height": 0 } }),
    );
    assert_eq!(
        (added.status, &added.json["coverage"]["pending"]),
        (200, &json!(true)),
        "{}",
        added.text
    );
    let id = added.json["scan_id"]
        .as_str()
        .expect("it says which scan")
        .to_owned();
    let other = open(&line.daemon, line.one(0), json!({ "from_height": 0 }));
    complete(&line.daemon, &other);
    let scan = look(&line.daemon, &id);
    assert!(
        scan["status"] == "waiting" && scan["waits_for"].as_str().is_some_and(|why| why.len() > 10),
        "{scan}"
    );
    line.proxy.set(Mood::Pass);
    complete(&line.daemon, &id);
    ends(&line.daemon, &id, std::slice::from_ref(&late));
    let chain = Chain::of(&line.node);
    assert_eq!(
        confirmed_of(&line.daemon, &late),
        chain.transactions(&late, 0, chain.height())
    );
    assert_eq!(line.daemon.balance(&late)["confirmed_balance"], COIN);
}
