//! Ten thousand subscriptions on one socket, as many as it may have, and more.

use serde_json::{Value, json};

use super::well_behaved::WellBehaved;
use crate::common::node::bitcoin;
use crate::common::{Client, Daemon, wait_until};
use crate::lag::addresses;

const MOST: u32 = 10_000;

#[test]
fn ten_thousand_subscriptions_on_a_socket_cost_the_others_nothing_and_come_back() {
    let node = super::node();
    let most = MOST.to_string();
    let daemon = Daemon::with(&node, &[("limits.subscriptions", &*most)]);
    let well_behaved = WellBehaved::begin(&node, &daemon);
    let used = || daemon.get("/status").json["limits"]["subscriptions_in_all"]["used"].clone();

    let client = Client::connect(&daemon);
    // One by one, without waiting for an answer; and again, which takes nothing.
    let first = addresses(0..2000);
    for address in first.iter().chain(&first) {
        let wish = json!({ "address": address, "snapshot": false });
        client.emit("subscribe_address", &wish);
    }
    // The rest in lists.
    for from in (2000..MOST).step_by(2000) {
        let wish = json!({ "addresses": addresses(from..from + 2000), "snapshot": false });
        let answer = client.ask("subscribe_addresses", &wish);
        assert_eq!(answer["code"], Value::Null, "{answer}");
    }
    assert_eq!(used(), MOST + 2, "and those of the others");
    well_behaved.hear();
    // One more, and a list that does not fit as a whole.
    for (event, wish) in [
        (
            "subscribe_address",
            json!({ "address": addresses(MOST..MOST + 1)[0] }),
        ),
        (
            "subscribe_addresses",
            json!({ "addresses": addresses(MOST - 1..MOST + 1) }),
        ),
    ] {
        let refused = client.ask(event, &wish);
        assert_eq!(refused["code"], "too_many_subscriptions", "{refused}");
        assert_eq!(refused["limit"], "subscriptions");
    }
    assert_eq!(used(), MOST + 2, "nothing of it was done");
    let watched = daemon.get("/addresses?limit=1").json["total"].clone();
    assert_eq!(watched, MOST + 1, "nor watched");
    // It hears of each.
    let (near, far) = (&first[0], &addresses(MOST - 1..MOST)[0]);
    for address in [near, far] {
        node.payer("sendtoaddress", json!([address, bitcoin(50_000)]));
        client.event("balance_change", |data| data["address"] == **address);
    }
    well_behaved.hear();
    for address in &first {
        client.emit("unsubscribe_address", &json!({ "address": address }));
    }
    wait_until("their places are free", || {
        (used() == MOST + 2 - 2000).then_some(())
    });
    drop(client);
    well_behaved.end();
}
