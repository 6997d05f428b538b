//! The node's moods: whatever its RPC does, the daemon says so, keeps answering what it knows, does
//! not press the node, and is exact again when the node is.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::node::Options;
use crate::common::oracle::{self, Balances};
use crate::common::rpc_proxy::{
    BUSY, FORBIDDEN, GARBAGE, Mood, NONSENSE, UNAUTHORIZED, WARMING_UP,
};
use crate::common::{COIN, Client, Daemon, Node, RpcProxy, ledger, wait_until};

/// Looks often, so that a mood is noticed soon.
const OFTEN: (&str, &str) = ("monitor.reconcile_interval", "1");
/// How long a mood is watched.
const WHILE: Duration = Duration::from_secs(2);

/// A node without ZMQ, so that all the daemon learns comes through the line with the moods.
fn moody() -> (Node, RpcProxy) {
    let node = Node::with(Options {
        topics: &[],
        ..Options::default()
    });
    let proxy = RpcProxy::of(&node);
    (node, proxy)
}

fn wait_unavailable(daemon: &Daemon) -> Value {
    wait_until("the daemon says that the node is away", || {
        let status = daemon.get("/status").json;
        (status["service_available"] == false).then_some(status)
    })
}

/// Seconds of processor time that the daemon has used.
fn processor_time(daemon: &Daemon) -> f64 {
    let stat =
        std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("the daemon runs");
    let (_, rest) = stat.rsplit_once(") ").expect("the name ends");
    let ticks: Vec<f64> = rest
        .split(' ')
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse().expect("a number"))
        .collect();
    ticks.iter().sum::<f64>() / 100.0
}

/// Lets the mood last a while: few calls, little work.
fn bear(daemon: &Daemon, proxy: &RpcProxy, mood: &str) {
    let (calls, worked) = (proxy.total(), processor_time(daemon));
    std::thread::sleep(WHILE);
    let (calls, worked) = (proxy.total() - calls, processor_time(daemon) - worked);
    assert!(
        calls <= 20,
        "{mood}: {calls} calls in {WHILE:?}: {:?}",
        proxy.calls()
    );
    assert!(
        worked < WHILE.as_secs_f64() / 2.0,
        "{mood}: {worked} s of work in {WHILE:?}"
    );
}

/// The daemon's numbers become the node's own.
fn agrees(daemon: &Daemon, node: &Node, address: &str) -> Balances {
    daemon.wait_tip(node);
    let right = oracle::balances(node, address);
    daemon.wait_balance(address, right.confirmed, right.unconfirmed);
    right
}

/// Goes through moods with one daemon; in each, a payment is made and one before it is confirmed.
fn survives(moods: &[(Mood, &str)]) {
    let (node, proxy) = moody();
    let daemon = Daemon::with(&node, &[OFTEN, ("bitcoind.rpc_url", &proxy.url())]);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);
    daemon.wait_complete(&address);
    for (number, (mood, words)) in moods.iter().enumerate() {
        let known = daemon.balance(&address);
        proxy.set(*mood);
        let status = wait_unavailable(&daemon);
        let error = status["node"]["error"]
            .as_str()
            .expect("it says why")
            .to_owned();
        assert!(error.contains(words), "{mood:?}: {error}");
        assert!(
            status["node"]["unavailable_since"].is_number(),
            "it says since when: {status}"
        );
        let ready = daemon.get("/health/ready");
        assert_eq!(ready.status, 503, "{}", ready.text);
        let txid = node.pay(&address, COIN);
        node.mine(u32::from(number % 2 == 1));
        bear(&daemon, &proxy, words);
        let (now, later) = (daemon.balance(&address), daemon.get("/status").json);
        assert_eq!(
            (&now["balance"], &now["tip"]),
            (&known["balance"], &known["tip"]),
            "what is known is still answered"
        );
        let age = |status: &Value| {
            status["data_age"]
                .as_f64()
                .unwrap_or_else(|| panic!("it says how old that is: {status}"))
        };
        assert!(age(&later) > age(&status), "and it grows older: {later}");
        proxy.set(Mood::Pass);
        client.event("new_transactions", |data| {
            data["transactions"][0]["txid"] == *txid
        });
        agrees(&daemon, &node, &address);
        let status = daemon.get("/status").json;
        assert_eq!(
            (
                &status["service_available"],
                &status["node"]["unavailable_since"]
            ),
            (&json!(true), &Value::Null)
        );
    }
    ledger::check(&daemon);
}

#[test]
fn a_node_that_refuses_is_waited_for() {
    survives(&[
        (Mood::Refuse, "connection refused"),
        (BUSY, "rpcworkqueue is full"),
        (UNAUTHORIZED, "refuses the cookie"),
        (FORBIDDEN, "takes no calls from the address 127.0.0.1"),
    ]);
}

#[test]
fn a_node_that_talks_nonsense_is_not_believed() {
    survives(&[
        (WARMING_UP, "Loading block index"),
        (GARBAGE, "without JSON"),
        (NONSENSE, "not understood"),
        (Mood::Chain("test"), "follows chain test"),
    ]);
}

#[test]
fn a_node_that_hangs_is_given_up_and_does_not_hold_up_the_end_of_the_daemon() {
    let (node, proxy) = moody();
    let mut daemon = Daemon::with(&node, &[OFTEN, ("bitcoind.rpc_url", &proxy.url())]);
    let address = node.address();
    daemon.watch(&address);
    proxy.set(Mood::Hang);
    node.pay(&address, COIN);
    let status = wait_unavailable(&daemon);
    assert!(
        status["node"]["error"]
            .as_str()
            .expect("it says why")
            .contains("did not answer getblockchaininfo in time"),
        "{status}"
    );
    assert_eq!(daemon.balance(&address)["balance"], 0);
    proxy.set(Mood::Pass);
    daemon.wait_balance(&address, 0, COIN);

    // What hangs now hangs until the end of the test.
    proxy.set(Mood::Hang);
    let known = proxy.total();
    wait_until("a call hangs", || (proxy.total() > known).then_some(()));
    daemon.stop();
    assert!(
        !daemon.log().contains("going on without"),
        "nothing had to be left behind: {}",
        daemon.log()
    );
}

#[test]
fn half_an_answer_is_none() {
    let (node, proxy) = moody();
    let daemon = Daemon::with(&node, &[OFTEN, ("bitcoind.rpc_url", &proxy.url())]);
    let address = node.address();
    daemon.watch(&address);
    proxy.set(Mood::Half);
    node.pay(&address, COIN);
    wait_unavailable(&daemon);
    assert_eq!(daemon.balance(&address)["balance"], 0);
    proxy.set(Mood::Pass);
    daemon.wait_balance(&address, 0, COIN);
    ledger::check(&daemon);
}

#[test]
fn an_endless_answer_does_not_fill_the_memory() {
    let (node, proxy) = moody();
    let daemon = Daemon::with(&node, &[OFTEN, ("bitcoind.rpc_url", &proxy.url())]);
    let address = node.address();
    daemon.watch(&address);
    proxy.set(Mood::Flood);
    node.pay(&address, COIN);
    let status = wait_unavailable(&daemon);
    assert!(
        status["node"]["error"]
            .as_str()
            .expect("it says why")
            .contains("MB"),
        "{status}"
    );
    bear(&daemon, &proxy, "endless");
    let memory =
        std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("the daemon runs");
    let peak = memory
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("Linux says it");
    let peak: u64 = peak
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    assert!(peak < 400 << 10, "{peak} kB");
    proxy.set(Mood::Pass);
    daemon.wait_balance(&address, 0, COIN);
}

/// News come over ZMQ and wait for no call.
#[test]
fn a_slow_node_delays_no_news() {
    let node = Node::start();
    let proxy = RpcProxy::of(&node);
    let daemon = Daemon::with(&node, &[OFTEN, ("bitcoind.rpc_url", &proxy.url())]);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);
    daemon.wait_complete(&address);
    proxy.set(Mood::Slow(Duration::from_secs(2)));
    bear(&daemon, &proxy, "slow");
    // Without a limit of their own these calls would take far longer than the test waits.
    let unheard = proxy.calls();
    let txid = node.pay(&address, COIN);
    client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == *txid
    });
    node.mine(1);
    client.event("transaction_update", |data| {
        data["txid"] == *txid && data["status"] == "confirmed"
    });
    assert_eq!(
        proxy.calls().get("getrawtransaction"),
        unheard.get("getrawtransaction"),
        "nothing had to be fetched"
    );
    agrees(&daemon, &node, &address);
    proxy.set(Mood::Pass);
    daemon.wait_ready();
    ledger::check(&daemon);
}

#[test]
fn case_03_the_daemon_names_the_call_that_is_not_permitted() {
    let (node, proxy) = moody();
    let daemon = Daemon::with(&node, &[OFTEN, ("bitcoind.rpc_url", &proxy.url())]);
    let address = node.address();
    daemon.watch(&address);
    proxy.set_for("getrawmempool", Mood::NotPermitted);
    let reason = || {
        let answer = daemon.get("/health/ready");
        (answer.status == 503).then(|| answer.json["error"].to_string())
    };
    let named = |reason: &str| {
        reason.contains("does not let user __cookie__ call getrawmempool (rpcwhitelist)")
            && reason.contains("rpcwhitelist=__cookie__:getbestblockhash,getblock,")
    };
    wait_until("the call is named", || reason().filter(|text| named(text)));
    let mut said = Vec::new();
    for _ in 0..100 {
        said.extend(reason().filter(|text| !named(text)));
        std::thread::sleep(Duration::from_millis(20));
    }
    said.retain(|text| !text.contains("reading bitcoind's mempool"));
    assert_eq!(said, [""; 0], "no other reason is given meanwhile");
    let status = daemon.get("/status").json;
    assert_eq!(status["service_available"], true, "it answers: {status}");
    proxy.set(Mood::Pass);
    daemon.wait_ready();
}

/// A look goes well and what follows it fails, again and again: the pauses grow all the same.
#[test]
fn one_call_that_always_fails_does_not_become_a_storm_of_others() {
    let (node, proxy) = moody();
    let daemon = Daemon::with(&node, &[OFTEN, ("bitcoind.rpc_url", &proxy.url())]);
    let address = node.address();
    daemon.watch(&address);
    proxy.set_for("getrawmempool", BUSY);
    node.pay(&address, COIN);
    node.mine(1);
    daemon.wait_balance(&address, COIN, 0);
    let txid = node.pay(&address, COIN);
    // After the first pauses.
    std::thread::sleep(WHILE);
    let failed = |proxy: &RpcProxy| proxy.calls()["getrawmempool"];
    let known = failed(&proxy);
    bear(&daemon, &proxy, "one call fails");
    assert!(failed(&proxy) <= known + 2, "{:?}", proxy.calls());
    let ready = daemon.get("/health/ready");
    assert_eq!(ready.status, 503, "{}", ready.text);
    proxy.set(Mood::Pass);
    daemon.wait_balance(&address, COIN, COIN);
    assert!(node.in_mempool(&txid));
    ledger::check(&daemon);
}

#[test]
fn a_scan_whose_answer_never_comes_is_given_up() {
    let (node, proxy) = moody();
    let daemon = Daemon::with(&node, &[OFTEN, ("bitcoind.rpc_url", &proxy.url())]);
    let address = node.address();
    node.pay(&address, COIN);
    node.mine(1);
    daemon.wait_tip(&node);
    proxy.set_for("scantxoutset", Mood::Hang);
    daemon.post("/add_address", &json!({ "address": address }));
    wait_until("the scan is asked for", || {
        proxy.calls().get("scantxoutset").copied()
    });
    assert_eq!(daemon.balance(&address)["coverage"]["complete"], false);
    proxy.set(Mood::Pass);
    daemon.wait_complete(&address);
    daemon.wait_balance(&address, COIN, 0);
}

#[test]
fn a_user_and_a_password_do_instead_of_the_cookie_over_a_restart_of_the_node() {
    // What contrib's rpcauth.py makes of "a long secret".
    let login =
        "-rpcauth=watcher:5a17$e41aa2075e92e0e5a68e654c615fcc581007e54b529bb34a209eb13f5ebb7cc2";
    let node = Node::with(Options {
        extra: vec![login.into()],
        ..Options::default()
    });
    let (user, password) = (
        ("bitcoind.rpc_user", "watcher"),
        ("bitcoind.rpc_password", "a long secret"),
    );
    let daemon = Daemon::with(&node, &[OFTEN, user, password]);
    let address = node.address();
    daemon.watch(&address);
    node.pay(&address, COIN);
    daemon.wait_balance(&address, 0, COIN);
    node.stop();
    wait_unavailable(&daemon);
    node.restart();
    node.mine(1);
    daemon.wait_balance(&address, COIN, 0);
    daemon.wait_ready();
    ledger::check(&daemon);
}

/// Neither cookie nor port: a new store waits for the node, one that knows its chain answers at
/// once.
#[test]
fn a_daemon_that_starts_before_its_node_follows_it_when_it_comes() {
    let node = Node::start();
    node.stop();
    assert!(!node.cookie_file().exists(), "there is no cookie");
    let mut daemon = std::thread::scope(|scope| {
        let daemon = scope.spawn(|| Daemon::launched(&node, &[OFTEN]));
        std::thread::sleep(Duration::from_secs(1));
        node.restart();
        daemon
            .join()
            .expect("the daemon came up when the node was there")
    });
    daemon.wait_ready();
    let address = node.address();
    daemon.watch(&address);
    node.pay(&address, COIN);
    node.mine(1);
    daemon.wait_balance(&address, COIN, 0);
    daemon.stop();
    node.stop();

    daemon.launch_again();
    let status = wait_unavailable(&daemon);
    assert_eq!(
        status["data_age"],
        Value::Null,
        "nothing is known of the node since the start: {status}"
    );
    assert_eq!(daemon.balance(&address)["confirmed_balance"], COIN);
    let worked = processor_time(&daemon);
    std::thread::sleep(WHILE);
    assert!(processor_time(&daemon) - worked < WHILE.as_secs_f64() / 2.0);
    node.restart();
    daemon.wait_ready();
    node.pay(&address, COIN);
    daemon.wait_balance(&address, COIN, COIN);
    ledger::check(&daemon);
}

/// A new store waits for a slow node; one that knows its chain is served before the call that hangs
/// is given up.
#[test]
fn a_daemon_that_starts_while_its_node_hangs_answers_from_what_it_knows() {
    let (node, proxy) = moody();
    proxy.set(Mood::Slow(Duration::from_millis(1200)));
    let mut daemon = Daemon::launched(&node, &[OFTEN, ("bitcoind.rpc_url", &proxy.url())]);
    proxy.set(Mood::Pass);
    daemon.wait_ready();
    let address = node.address();
    daemon.watch(&address);
    node.pay(&address, COIN);
    daemon.wait_balance(&address, 0, COIN);
    daemon.stop();

    proxy.set(Mood::Hang);
    daemon.launch_again();
    let log = daemon.log();
    assert!(
        log.contains("from what is known: bitcoind has not answered yet"),
        "{log}"
    );
    assert_eq!(daemon.balance(&address)["balance"], COIN);
    assert_eq!(daemon.get("/status").json["service_available"], false);
    proxy.set(Mood::Pass);
    daemon.wait_ready();
    ledger::check(&daemon);
}

#[test]
fn a_node_that_warms_up_at_the_start_of_the_daemon_is_waited_for() {
    let (node, proxy) = moody();
    let mut daemon = Daemon::with(&node, &[OFTEN, ("bitcoind.rpc_url", &proxy.url())]);
    let address = node.address();
    daemon.watch(&address);
    daemon.stop();
    node.pay(&address, COIN);
    proxy.set(WARMING_UP);
    daemon.launch_again();
    wait_until("it says why it waits", || {
        let status = wait_unavailable(&daemon);
        status["node"]["error"]
            .as_str()
            .is_some_and(|error| error.contains("bitcoind is starting"))
            .then_some(())
    });
    bear(&daemon, &proxy, "warming up");
    proxy.set(Mood::Pass);
    daemon.wait_ready();
    daemon.wait_balance(&address, 0, COIN);
    ledger::check(&daemon);
}

/// The same genesis block, and nothing else in common: to the daemon it is a reorganization down to
/// there.
#[test]
fn another_node_on_another_chain_of_the_same_network_is_followed_as_a_reorganization() {
    let node = Node::start();
    let other = Node::with(Options {
        blocks: 130,
        ..Options::default()
    });
    let proxy = RpcProxy::of(&node);
    let daemon = Daemon::with(&node, &[OFTEN, ("bitcoind.rpc_url", &proxy.url())]);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);
    daemon.wait_complete(&address);
    node.pay(&address, COIN);
    node.mine(1);
    node.pay(&address, 2 * COIN);
    daemon.wait_balance(&address, COIN, 2 * COIN);
    other.pay(&address, 4 * COIN);
    other.mine(1);
    other.pay(&address, 8 * COIN);

    proxy.lead_to(&other);
    client.event("balance_change", |data| data["new_balance"] == 12 * COIN);
    assert_eq!(
        agrees(&daemon, &other, &address),
        Balances {
            confirmed: 4 * COIN,
            unconfirmed: 8 * COIN
        }
    );
    // Its feeds are found, and its news come.
    other.mine(1);
    daemon.wait_balance(&address, 12 * COIN, 0);
    daemon.wait_ready();
    ledger::check(&daemon);
}
