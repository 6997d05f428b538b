//! Lost messages: whatever the feed loses, the daemon notices, asks the node little, counts it, and
//! ends with the node's numbers.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::opcodes::OP_TRUE;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use serde_json::{Value, json};

use crate::common::node::{Options, free_port};
use crate::common::oracle::{self, Balances};
use crate::common::{COIN, Client, Daemon, Feed, Node, RpcProxy, ledger, wait_until};

/// With an hour between reconciliations, only what is noticed is healed.
const NEVER: (&str, &str) = ("monitor.reconcile_interval", "3600");
const OFTEN: (&str, &str) = ("monitor.reconcile_interval", "1");

/// A node, a daemon that hears it over a lossy line and asks it over a counting one, and an address
/// that is watched.
struct Lossy {
    client: Client,
    daemon: Daemon,
    feed: Feed,
    proxy: RpcProxy,
    node: Node,
    address: String,
}

impl Lossy {
    fn start(interval: (&str, &str)) -> Self {
        Self::with(Options::default(), interval)
    }

    fn with(options: Options, interval: (&str, &str)) -> Self {
        let node = Node::with(options);
        let (feed, proxy) = (Feed::whole(&node), RpcProxy::of(&node));
        let url = proxy.url();
        let settings = [
            feed.settings().as_slice(),
            &[interval, ("bitcoind.rpc_url", &url)],
        ]
        .concat();
        let daemon = Daemon::with(&node, &settings);
        let address = node.address();
        let client = Client::subscribed(&daemon, &address);
        daemon.wait_complete(&address);
        let lossy = Self {
            client,
            daemon,
            feed,
            proxy,
            node,
            address,
        };
        // Every counter has a number from which a gap can be told, and the line is known to be the
        // node's.
        lossy.pay(COIN);
        wait_until("the feed is believed", || {
            (lossy.topic("sequence")["believed"] == true).then_some(())
        });
        lossy.node.mine(1);
        lossy.daemon.wait_balance(&lossy.address, COIN, 0);
        lossy
    }

    /// Pays the watched address; the transaction's id.
    fn pay(&self, satoshi: i64) -> String {
        self.node.pay(&self.address, satoshi)
    }

    /// Something that concerns nobody, so that the next message comes.
    fn stir(&self) {
        self.node.pay(&self.node.address(), COIN / 10);
    }

    fn topic(&self, topic: &str) -> Value {
        self.daemon.get("/status").json["zmq"][topic].clone()
    }

    fn repairs(&self) -> u64 {
        self.daemon.get("/status").json["reconcile"]["repairs"]
            .as_u64()
            .expect("a number")
    }

    fn wait_lost(&self, topic: &str, lost: u64) {
        wait_until("the lost messages are counted", || {
            (self.topic(topic)["lost"] == lost).then_some(())
        });
        assert!(
            self.topic(topic)["gaps"]
                .as_u64()
                .is_some_and(|gaps| gaps > 0)
        );
    }

    /// The daemon's numbers become the node's own, and its log keeps its laws.
    fn heals(&self) -> Balances {
        self.daemon.wait_tip(&self.node);
        let right = oracle::balances(&self.node, &self.address);
        self.daemon
            .wait_balance(&self.address, right.confirmed, right.unconfirmed);
        self.daemon.wait_ready();
        ledger::check(&self.daemon);
        right
    }

    /// Runs `work` and checks that it led to no more than so many calls.
    fn asks_at_most(&self, calls: u64, work: impl FnOnce()) {
        let before = self.proxy.calls();
        work();
        let after = self.proxy.calls();
        let made: Vec<_> = after
            .iter()
            .map(|(name, count)| (name, count - before.get(name).unwrap_or(&0)))
            .collect();
        assert!(
            made.iter().map(|(_, count)| count).sum::<u64>() <= calls,
            "{made:?}"
        );
    }
}

#[test]
fn a_lost_rawtx_is_fetched_when_it_is_announced() {
    let lossy = Lossy::start(NEVER);
    lossy.feed.lose("rawtx", 1);
    let txid = lossy.pay(COIN);
    lossy.client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == *txid
    });
    lossy.asks_at_most(40, || {
        lossy.stir();
        lossy.wait_lost("rawtx", 1);
        lossy.heals();
    });
}

#[test]
fn a_lost_acceptance_is_noticed_with_the_next_message() {
    let lossy = Lossy::start(NEVER);
    lossy.feed.lose("sequence", 1);
    let txid = lossy.pay(COIN);
    lossy.asks_at_most(40, || {
        lossy.stir();
        lossy.client.event("new_transactions", |data| {
            data["transactions"][0]["txid"] == *txid
        });
        lossy.wait_lost("sequence", 1);
        lossy.heals();
    });
    wait_until("one transaction was missed", || {
        (lossy.repairs() >= 1).then_some(())
    });
}

/// Replaced by a transaction to strangers: R, rawtx and A are lost.
#[test]
fn a_lost_removal_is_found_by_the_next_reading() {
    let lossy = Lossy::start(NEVER);
    let coin = lossy.node.coin(2 * COIN);
    let first = lossy.node.signed(
        std::slice::from_ref(&coin.outpoint),
        &[(&lossy.address, coin.satoshi - 2_000)],
    );
    let first = lossy.node.send(&first);
    lossy.client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == *first
    });
    // Both halves of the stranger too: nothing but the gap tells.
    let mut left = 3;
    lossy.feed.set(move |topic, _| {
        let lost = left > 0 && topic != "rawblock";
        left -= i32::from(lost);
        !lost
    });
    let stranger = lossy.node.address();
    let second = lossy
        .node
        .signed(&[coin.outpoint], &[(&stranger, coin.satoshi - 20_000)]);
    lossy.node.send(&second);
    lossy.stir();
    lossy.client.event("transaction_update", |data| {
        data["txid"] == *first && data["status"] == "replaced"
    });
    lossy.wait_lost("sequence", 2);
    lossy.heals();
}

#[test]
fn a_lost_removal_that_nothing_follows_is_found_by_the_poll() {
    let lossy = Lossy::start(OFTEN);
    let coin = lossy.node.coin(2 * COIN);
    let first = lossy.node.send(&lossy.node.signed(
        std::slice::from_ref(&coin.outpoint),
        &[(&lossy.address, coin.satoshi - 2_000)],
    ));
    lossy.client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == *first
    });
    let repairs = lossy.repairs();
    lossy.feed.set(|_, _| false);
    lossy.node.send(&lossy.node.signed(
        &[coin.outpoint],
        &[(&lossy.node.address(), coin.satoshi - 20_000)],
    ));
    lossy.client.event("transaction_update", |data| {
        data["txid"] == *first && data["status"] == "replaced"
    });
    lossy.heals();
    wait_until("the poll says that it repaired something", || {
        (lossy.repairs() > repairs).then_some(())
    });
}

#[test]
fn a_lost_rawblock_is_fetched() {
    let lossy = Lossy::start(NEVER);
    lossy.feed.lose("rawblock", 1);
    lossy.pay(COIN);
    lossy.asks_at_most(60, || {
        lossy.node.mine(1);
        // C announced it.
        lossy.daemon.wait_balance(&lossy.address, 2 * COIN, 0);
        lossy.node.mine(1);
        lossy.wait_lost("rawblock", 1);
        lossy.heals();
    });
}

#[test]
fn a_lost_block_announcement_changes_nothing() {
    let lossy = Lossy::start(NEVER);
    lossy.feed.lose("sequence", 1);
    lossy.node.mine_to(&lossy.address, 1);
    lossy.daemon.wait_balance(&lossy.address, 51 * COIN, 0);
    lossy.stir();
    lossy.wait_lost("sequence", 1);
    lossy.heals();
}

#[test]
fn a_lost_tail_is_healed_by_the_poll() {
    let lossy = Lossy::start(OFTEN);
    let repairs = lossy.repairs();
    lossy.feed.set(|_, _| false);
    let txid = lossy.pay(COIN);
    lossy.client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == *txid
    });
    lossy.node.mine(2);
    lossy.daemon.wait_balance(&lossy.address, 2 * COIN, 0);
    lossy.heals();
    assert_eq!(
        lossy.topic("sequence")["gaps"],
        0,
        "nothing came that could have told"
    );
    // A poll between both blocks finds the first; the look that follows it at once is no poll.
    wait_until("one transaction and the blocks were missed", || {
        (lossy.repairs() >= repairs + 2).then_some(())
    });
}

#[test]
fn of_every_second_message_nothing_is_missing_in_the_end() {
    let lossy = Lossy::start(OFTEN);
    let mut number = 0;
    lossy.feed.set(move |_, _| {
        number += 1;
        number % 2 == 0
    });
    lossy.asks_at_most(400, || {
        for round in 1..=12 {
            lossy.pay(COIN / 10 * round);
            lossy.stir();
            if round % 3 == 0 {
                lossy.node.mine(1);
            }
        }
        lossy.heals();
    });
    assert!(
        lossy.topic("rawtx")["lost"].as_u64() > Some(0)
            && lossy.topic("sequence")["lost"].as_u64() > Some(0)
    );
}

#[test]
fn counters_that_start_anew_make_it_look_again() {
    let lossy = Lossy::start(NEVER);
    for topic in ["rawtx", "sequence"] {
        // Lost without a gap: what is counted anew has no predecessor.
        let (gaps, txid) = (lossy.topic(topic)["gaps"].clone(), {
            lossy.feed.set(|_, _| false);
            lossy.pay(COIN)
        });
        lossy.feed.set(|_, _| true);
        lossy.feed.count_anew();
        lossy.stir();
        lossy.client.event("new_transactions", |data| {
            data["transactions"][0]["txid"] == *txid
        });
        assert_eq!(lossy.topic(topic)["gaps"], gaps);
    }
    lossy.heals();
}

#[test]
fn a_connection_that_was_away_is_not_trusted_to_have_been_silent() {
    let lossy = Lossy::start(NEVER);
    lossy.feed.cut();
    wait_until("it is noticed", || {
        (lossy.topic("rawtx")["connected"] == false).then_some(())
    });
    let ready = lossy.daemon.get("/health/ready");
    assert_eq!(ready.status, 503, "{}", ready.text);
    assert!(
        ready.text.contains("is not connected") && ready.text.contains(lossy.feed.endpoint()),
        "{}",
        ready.text
    );
    let txid = lossy.pay(COIN);
    lossy.node.mine(1);
    let waiting = lossy.pay(COIN);
    lossy.asks_at_most(60, || {
        lossy.feed.mend();
        for txid in [&txid, &waiting] {
            lossy.client.event("new_transactions", |data| {
                data["transactions"][0]["txid"] == **txid
            });
        }
        lossy.heals();
    });
}

#[test]
fn a_frozen_node_is_noticed_and_what_is_known_is_answered_with_its_age() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[OFTEN]);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);
    daemon.wait_complete(&address);
    node.pay(&address, COIN);
    daemon.wait_balance(&address, 0, COIN);
    node.freeze();
    wait_until("its feeds are given up", || {
        (daemon.get("/status").json["zmq"]["rawtx"]["connected"] == false).then_some(())
    });
    assert_eq!(
        daemon.balance(&address)["balance"],
        COIN,
        "what is known is answered"
    );
    let ready = daemon.get("/health/ready");
    assert_eq!(ready.status, 503, "{}", ready.text);
    let age = |status: &Value| {
        status["data_age"]
            .as_f64()
            .expect("it says how old that is")
    };
    wait_until("it grows old", || {
        (age(&daemon.get("/status").json) > 5.0).then_some(())
    });
    assert!(daemon.get("/status").json["node"]["last_answer_age"].as_f64() > Some(3.0));
    node.thaw();
    daemon.wait_ready();
    assert!(age(&daemon.get("/status").json) < 5.0, "and is new again");
    let txid = node.pay(&address, COIN);
    client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == *txid
    });
    node.mine(1);
    daemon.wait_balance(&address, 2 * COIN, 0);
    ledger::check(&daemon);
}

/// Fills the mempool with so many transactions that concern nobody. Their outputs need no
/// signature, so this is quick.
fn crowd(node: &Node, count: usize) {
    const VALUE: i64 = 10_000;
    let anyone = ScriptBuf::from_bytes(vec![OP_TRUE.to_u8()]);
    let output = |satoshi: i64| TxOut {
        value: Amount::from_sat(satoshi.unsigned_abs()),
        script_pubkey: anyone.to_p2wsh(),
    };
    let transaction = |previous_output, witness, output| {
        let input = vec![TxIn {
            previous_output,
            witness,
            sequence: Sequence::MAX,
            ..TxIn::default()
        }];
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input,
            output,
        }
    };
    let coin = node.coin(count as i64 * VALUE + 2 * COIN);
    let outpoint = OutPoint::new(
        coin.outpoint.0.parse().expect("an id"),
        u32::try_from(coin.outpoint.1).expect("small"),
    );
    let rest = output(coin.satoshi - count as i64 * VALUE - COIN / 10);
    let fan = transaction(
        outpoint,
        Witness::new(),
        (0..count).map(|_| output(VALUE)).chain([rest]).collect(),
    );
    let signed = node.payer("signrawtransactionwithwallet", json!([serialize_hex(&fan)]));
    let fan = node.send(signed["hex"].as_str().expect("it is signed"));
    node.mine(1);
    let spend = |vout| {
        let outpoint = OutPoint::new(fan.parse().expect("an id"), vout);
        serialize_hex(&transaction(
            outpoint,
            Witness::from_slice(&[anyone.as_bytes()]),
            vec![output(VALUE - 1_000)],
        ))
    };
    node.send_all(&(0..count as u32).map(spend).collect::<Vec<_>>());
}

/// The node queues five messages only and drops what comes faster: most of a big block's burst.
#[test]
fn a_node_that_drops_most_of_a_burst_is_followed_exactly_and_asked_little() {
    for (hwm, transactions) in [(5, 2000), (1000, 2000)] {
        let node = Node::with(Options {
            hwm,
            extra: vec!["-blockmaxweight=4000000".into()],
            ..Options::default()
        });
        let proxy = RpcProxy::of(&node);
        let daemon = Daemon::with(&node, &[NEVER, ("bitcoind.rpc_url", &proxy.url())]);
        let address = node.address();
        daemon.watch(&address);
        crowd(&node, transactions);
        node.pay(&address, COIN);
        let calls = proxy.total();
        node.mine(1);
        let txid = node.pay(&address, COIN);
        daemon.wait_tip(&node);
        daemon.wait_balance(&address, COIN, COIN);
        daemon.wait_ready();
        assert!(proxy.total() - calls < 150, "{:?}", proxy.calls());
        assert!(node.in_mempool(&txid));
        let status = daemon.get("/status").json;
        if hwm == 5 {
            let lost = status["zmq"]["rawtx"]["lost"].as_u64().expect("a number");
            assert!(lost > 0, "most of the burst was dropped: {}", status["zmq"]);
        }
        let notes = status["node"]["notes"].to_string();
        assert!(
            notes.contains("zmqpubrawblockhwm=0"),
            "and there is a line against it: {notes}"
        );
        ledger::check(&daemon);
    }
}

#[test]
fn a_port_where_nobody_publishes_is_named() {
    let node = Node::start();
    let http = node.rpc_url().replace("http://", "tcp://");
    let silent = format!("tcp://127.0.0.1:{}", free_port());
    for (endpoint, speaks_http) in [(silent, false), (http, true)] {
        let settings = [
            "bitcoind.zmq_rawtx",
            "bitcoind.zmq_rawblock",
            "bitcoind.zmq_sequence",
        ]
        .map(|name| (name, endpoint.as_str()));
        let daemon = Daemon::launched(&node, &[settings.as_slice(), &[OFTEN]].concat());
        let address = node.address();
        let client = Client::subscribed(&daemon, &address);
        daemon.wait_complete(&address);
        let txid = node.pay(&address, COIN);
        client.event("new_transactions", |data| {
            data["transactions"][0]["txid"] == *txid
        });
        node.mine(1);
        daemon.wait_balance(&address, COIN, 0);
        wait_until("the address is named as the reason", || {
            let ready = daemon.get("/health/ready");
            (ready.status == 503 && ready.text.contains(&endpoint)).then_some(())
        });
        let zmq = daemon.get("/status").json["zmq"].to_string();
        assert!(
            !zmq.contains("\"connected\":true"),
            "http: {speaks_http}: {zmq}"
        );
        ledger::check(&daemon);
    }
}

/// No order holds between addresses.
#[test]
fn topics_on_addresses_of_their_own_are_put_together() {
    let ports: Vec<_> = (0..3).map(|_| free_port()).collect();
    let extra = ["rawtx", "rawblock", "sequence"].iter().zip(&ports);
    let extra = extra
        .map(|(topic, port)| format!("-zmqpub{topic}=tcp://127.0.0.1:{port}"))
        .collect();
    let node = Node::with(Options {
        topics: &[],
        extra,
        ..Options::default()
    });
    let daemon = Daemon::with(&node, &[NEVER]);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);
    daemon.wait_complete(&address);
    for round in 0..5 {
        let txid = node.pay(&address, COIN);
        client.event("new_transactions", |data| {
            data["transactions"][0]["txid"] == *txid
        });
        let bumped = node.payer("bumpfee", json!([txid]))["txid"].clone();
        client.event("transaction_update", |data| {
            data["txid"] == *txid && data["status"] == "replaced"
        });
        node.mine(1);
        daemon.wait_balance(&address, COIN * (round + 1), 0);
        client.event("transaction_update", |data| {
            data["txid"] == bumped && data["status"] == "confirmed"
        });
    }
    daemon.wait_ready();
    ledger::check(&daemon);
}

#[test]
fn a_node_without_sequence_is_checked_before_it_is_believed() {
    let node = Node::with(Options {
        topics: &["rawblock", "rawtx"],
        ..Options::default()
    });
    let daemon = Daemon::with(&node, &[OFTEN]);
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);
    daemon.wait_complete(&address);
    let old = node.pay(&address, COIN);
    client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == *old
    });
    let new = node.payer("bumpfee", json!([old]))["txid"].clone();
    client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == new
    });
    client.event("transaction_update", |data| {
        data["txid"] == *old && data["status"] == "replaced"
    });
    node.mine(1);
    daemon.wait_balance(&address, COIN, 0);
    let lost = node.tip();
    node.rpc("invalidateblock", json!([lost]));
    daemon.wait_balance(&address, 0, COIN);
    let status = daemon.get("/status").json;
    assert_eq!(status["zmq"]["sequence"]["endpoint"], Value::Null);
    assert!(
        status["node"]["notes"]
            .to_string()
            .contains("zmqpubsequence="),
        "{status}"
    );
    daemon.wait_ready();
    ledger::check(&daemon);
}

#[test]
fn messages_that_are_none_do_no_harm() {
    let lossy = Lossy::start(NEVER);
    let (huge, zero) = (vec![7; 8 << 20], [0; 4]);
    let sequence = [[1; 32].as_slice(), b"A", &[9; 8]].concat();
    let messages: &[&[&[u8]]] = &[
        &[b"rawtx"],
        &[b"rawtx", b"x"],
        &[b"rawtx", b"", b"", b"", b""],
        &[b"rawtx", b"x", &[1, 2, 3]],
        &[b"", b"", b""],
        &[b"rawtxfoo", b"x", &zero],
        &[b"rawwallettx", b"x", &zero],
        &[b"rawtx-mempool", b"x", &zero],
        &[b"rawblocks", &huge, &zero],
        &[b"sequences", &sequence, &zero],
        &[b"sequence", &sequence[..40]],
        &[b"hashblock", &[2; 32], &zero],
    ];
    for message in messages {
        lossy.feed.inject(message);
        let txid = lossy.pay(COIN / 10);
        lossy.client.event("new_transactions", |data| {
            data["transactions"][0]["txid"] == *txid
        });
    }
    for topic in ["rawtx", "rawblock", "sequence"] {
        assert_eq!(
            (
                &lossy.topic(topic)["gaps"],
                &lossy.topic(topic)["connected"]
            ),
            (&json!(0), &json!(true)),
            "{topic}"
        );
    }
    // Their form is right and their content is not: the numbers go astray, which is noticed and
    // healed.
    let far = 1_000_000_000_u32.to_le_bytes();
    lossy.feed.inject(&[b"rawtx", b"no transaction", &far]);
    lossy.feed.inject(&[b"rawblock", &[0; 80], &far]);
    lossy.feed.inject(&[b"rawblock", &huge, &far]);
    lossy.feed.inject(&[b"sequence", &sequence, &far]);
    lossy
        .feed
        .inject(&[b"sequence", &[[1; 32].as_slice(), b"D"].concat(), &far]);
    lossy
        .feed
        .inject(&[b"sequence", &[[1; 32].as_slice(), b"C"].concat(), &far]);
    lossy.pay(COIN / 10);
    lossy.node.mine(1);
    lossy.heals();
    // Larger than anything that a node publishes: the line is ended rather than the memory filled.
    lossy.feed.inject(&[b"rawblock", &vec![0; 64 << 20], &zero]);
    lossy.pay(COIN / 10);
    lossy.node.mine(1);
    lossy.heals();
}

#[test]
fn a_feed_of_another_node_is_not_believed() {
    let node = Node::start();
    let other = Node::with(Options {
        p2p: true,
        blocks: 0,
        ..Options::default()
    });
    // A common chain with coins for both, on which the other one then goes its own way.
    node.connect(&other);
    let shared = other.mine(1).remove(0);
    wait_until("the block is shared", || {
        (node.tip() == shared).then_some(())
    });
    node.mine(101);
    node.connect(&other);
    node.part();
    let endpoint = other.zmq_endpoint();
    let settings = [
        "bitcoind.zmq_rawtx",
        "bitcoind.zmq_rawblock",
        "bitcoind.zmq_sequence",
    ]
    .map(|name| (name, endpoint.as_str()));
    let daemon = Daemon::launched(&node, &[settings.as_slice(), &[OFTEN]].concat());
    let address = node.address();
    let client = Client::subscribed(&daemon, &address);
    daemon.wait_complete(&address);
    for round in 1..=3 {
        other.pay(&address, 7 * COIN);
        other.mine(1);
        let txid = node.pay(&address, COIN);
        client.event("new_transactions", |data| {
            data["transactions"][0]["txid"] == *txid
        });
        if round == 2 {
            node.mine(1);
        }
        daemon.wait_tip(&node);
    }
    wait_until("the node's own are known", || {
        (daemon.balance(&address)["balance"] == 3 * COIN).then_some(())
    });
    let changes: Vec<_> = client
        .all("balance_change")
        .iter()
        .map(|data| data["delta"].clone())
        .collect();
    assert_eq!(
        changes,
        vec![json!(COIN); 3],
        "nothing of the other node was ever told"
    );
    ledger::check(&daemon);
}
