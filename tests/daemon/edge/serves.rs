//! The same through an edge as at its primary: Socket.IO, cursors, wallets and blocks.

use serde_json::{Value, json};

use super::{World, begun, heard, printed};
use crate::clients::{example, prints_an_unconfirmed_payment};
use crate::common::{COIN, Client, Program, wait_until};

#[test]
fn stock_clients_hear_the_same_at_edges_as_at_the_primary() {
    let world = World::start();
    let (one, two) = (world.edge(), world.edge());
    let address = world.node.address();
    let urls = [one.url(), two.url(), world.primary.url()];
    let [one, two, primary] = urls.each_ref().map(String::as_str);
    let in_order = [
        Program::node("listen.js", &[one, &address, "upgrade"]),
        Program::node("listen.js", &[two, &address, "polling"]),
        Program::node("listen.js", &[primary, &address, "websocket"]),
    ];
    // Handlers of this one run in threads, so that one may overtake another.
    let threaded = [
        Program::python("listen.py", &[one, &address, "polling"]),
        Program::python("listen.py", &[two, &address, "websocket"]),
    ];
    let mut from = 0;
    for client in in_order.iter().chain(&threaded) {
        let subscribed = client.event("subscribed", |data| data["address"] == *address);
        assert_eq!(client.event("ack", |_| true), subscribed);
        from = from.max(begun(&subscribed));
    }
    world.node.pay(&address, COIN);
    world.primary.wait_balance(&address, 0, COIN);
    world.pay_block(&address);
    for client in &in_order {
        world.has_heard_all(&address, from, || printed(client));
    }
    for client in &threaded {
        world.has_heard_all(&address, from, || {
            let mut printed = printed(client);
            printed.sort_by_key(|(number, ..)| *number);
            printed
        });
    }
}

impl World {
    /// Confirms what waits.
    fn pay_block(&self, address: &str) {
        self.node.mine(1);
        self.primary.wait_balance(address, COIN, 0);
    }
}

#[test]
fn the_examples_of_the_specification_work_at_an_edge() {
    let world = World::start();
    let edge = world.edge();
    let address = world.node.address();
    let script = format!(
        "const {{ io }} = require('socket.io-client');\n{}",
        example("spec_example.js", &address, edge.port())
    );
    let program = Program::node_text("the JavaScript example", &script);
    prints_an_unconfirmed_payment(&world.node, &edge, &address, &program);
    drop((program, edge, world));

    let world = World::start();
    let edge = world.edge();
    let text = example("spec_example.py", &address, edge.port());
    let program = Program::python_text("the Python example", &text);
    prints_an_unconfirmed_payment(&world.node, &edge, &address, &program);
}

#[test]
fn a_cursor_of_one_edge_is_good_at_the_other_and_at_the_primary() {
    let world = World::start();
    let (one, two) = (world.edge(), world.edge());
    let address = world.node.address();
    let first = Client::connect(&one);
    let answer = first.ask("subscribe_address", &json!({ "address": address }));
    let from = begun(&answer);
    // It is known now, and nothing happens: all say the same of it.
    one.wait_complete(&address);
    let of =
        |daemon| Client::connect(daemon).ask("subscribe_address", &json!({ "address": address }));
    let mut answers = [&one, &two, &world.primary].map(of);
    for answer in &mut answers {
        answer
            .as_object_mut()
            .expect("an object")
            .remove("last_updated");
        assert!(answer["cursor"].is_string(), "{answer}");
    }
    assert_eq!(answers[0], answers[2]);
    assert_eq!(answers[1], answers[2]);

    world.pay(&address);
    world.has_heard_all(&address, from, || heard(&first));
    let last = heard(&first).pop().expect("an event");
    let cursor = last.2["cursor"].as_str().expect("a cursor");
    world.pay(&address);
    for daemon in [&one, &two, &world.primary] {
        let client = Client::connect(daemon);
        let wanted = json!({ "address": address, "after": cursor });
        client.emit("subscribe_address", &wanted);
        world.has_heard_all(&address, last.0, || heard(&client));
        client.event("caught_up", |_| true);
        let malformed = json!({ "address": address, "after": "1-1" });
        let told = client.ask("subscribe_address", &malformed);
        assert_eq!(told["subscribed"], Value::Null, "{told}");
        client.event("error", |told| told["code"] == "cursor_unknown");
    }
}

#[test]
fn wallets_and_blocks_are_followed_at_an_edge_and_consumers_at_the_primary() {
    let world = World::start();
    let edge = world.edge();
    let listed = world.node.owner("listdescriptors", json!([]));
    let listed = listed["descriptors"].as_array().expect("a list");
    let wpkh = |one: &&Value| {
        let text = one["desc"].as_str().unwrap_or_default();
        text.starts_with("wpkh(") && one["internal"] == false
    };
    let wallet = &listed.iter().find(wpkh).expect("it has one")["desc"];
    let client = Client::connect(&edge);
    let answer = client.ask("subscribe_descriptor", &json!({ "descriptor": wallet }));
    let id = answer["descriptor_id"].as_str().expect("an id").to_owned();
    assert_eq!(
        client.ask("subscribe_blocks", &json!({}))["code"],
        Value::Null
    );
    world.node.pay(&world.node.address(), COIN);
    client.event("balance_change", |data| {
        data["descriptor_id"] == *id && data["new_balance"] == COIN
    });
    let hash = world.node.mine(1).remove(0);
    client.event("block", |data| data["hash"] == *hash);

    let told = Client::connect(&edge).event("connected", |_| true);
    assert_eq!(
        (&told["tip"]["hash"], &told["tip"]["height"]),
        (&json!(hash), &json!(world.node.height())),
        "{told}"
    );
    let head = wait_until("all is quiet", || {
        let head = world.primary.get("/edge").json["cursor"].clone();
        let told = Client::connect(&edge).event("connected", |_| true);
        (told["cursor"] == head).then_some(head)
    });
    assert!(head.is_string(), "{head}");

    let put = edge.request(
        "PUT",
        "/consumers/shop",
        &[("Content-Type", "application/json")],
        Some(b"{}"),
    );
    assert_eq!(put.status, 201, "{}", put.text);
    assert_eq!(world.primary.get("/consumers/shop").status, 200);
    for (name, data) in [
        ("subscribe_consumer", json!({ "consumer": "shop" })),
        ("ack", json!({ "consumer": "shop", "cursor": head })),
    ] {
        let refused = client.ask(name, &data);
        assert_eq!(refused["code"], "at_primary", "{name}: {refused}");
    }
    for path in ["/events?consumer=shop", "/events/stream?consumer=shop"] {
        let refused = edge.get(path);
        assert_eq!(
            (refused.status, &refused.json["code"]),
            (400, &json!("at_primary")),
            "{}",
            refused.text
        );
    }
    let page = world.primary.get("/events?consumer=shop");
    assert_eq!(page.status, 200, "{}", page.text);
}
