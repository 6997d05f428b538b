//! Primary, Redis and edges that go away and come back: clients hear everything once.

use std::time::Duration;
use std::{fs, thread};

use serde_json::{Value, json};

use super::{World, begun, heard, payments, printed};
use crate::auth::clients::of_guide;
use crate::common::{Answer, COIN, Client, Daemon, Program, wait_until};
use crate::event_stream::Stream;

/// Waits until an edge says that it is not ready, and why.
fn not_ready(edge: &Daemon, why: &str) {
    let answer = wait_until("it is not ready", || {
        let answer = edge.get("/health/ready");
        (answer.status == 503).then_some(answer)
    });
    let reason = answer.json["error"].as_str().unwrap_or_default();
    assert_eq!(answer.json["code"], "not_ready", "{}", answer.text);
    assert!(reason.contains(why), "{}", answer.text);
}

fn is_away(answer: &Answer) {
    assert_eq!(
        (answer.status, &answer.json["code"]),
        (503, &json!("primary_unavailable")),
        "{}",
        answer.text
    );
    assert!(
        answer.headers.contains_key("retry-after"),
        "{:?}",
        answer.headers
    );
}

#[test]
fn while_the_primary_is_away_sessions_stay_and_what_needs_it_waits_or_is_refused() {
    let mut world = World::start();
    let edge = world.edge();
    let (address, other) = (world.node.address(), world.node.address());
    let client = Client::subscribed(&edge, &address);
    let from = begun(&client.all("subscribed")[0]);
    let follower = Program::python("../../contrib/python/watch.py", &[&edge.url(), &address]);
    follower.event("subscribed", |_| true);
    let cursor = client.all("subscribed")[0]["cursor"].clone();
    let cursor = cursor.as_str().expect("a cursor");
    let mut stream = Stream::open(&edge, &format!("?address={address}&after={cursor}"));
    world.pay(&address);
    world.has_heard_all(&address, from, || heard(&client));
    let last = heard(&client).pop().expect("an event").2["cursor"].clone();
    let last = last.as_str().expect("a cursor");

    // A subscription that waits until it comes back.
    world.primary.kill();
    world.node.pay(&address, COIN);
    world.node.mine(1);
    let late = Client::connect(&edge);
    thread::scope(|scope| {
        let waits = scope.spawn(|| late.ask("subscribe_address", &json!({ "address": other })));
        // It has been asked, in vain.
        thread::sleep(Duration::from_millis(500));
        assert!(!waits.is_finished());
        world.primary.restart();
        let answer = waits.join().expect("it is answered");
        assert_eq!(answer["address"], *other, "{answer}");
    });
    world.primary.wait_balance(&address, 2 * COIN, 0);

    // The stream has told of the block, too.
    wait_until("the edge knows the tip", || {
        let ready = edge.get("/health/ready").json;
        (ready["tip"]["hash"] == *world.node.tip()).then_some(())
    });
    // And some that it does not come back for in time.
    world.primary.kill();
    let patient = [
        Program::node("../../contrib/js/watch.js", &[&edge.url(), &other]),
        Program::python("../../contrib/python/watch.py", &[&edge.url(), &other]),
    ];
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let examples = ["js", "python"].map(|language| {
        let file = folder.path().join(language).display().to_string();
        fs::write(&file, of_guide(&edge, language)).expect("the folder is ours");
        match language {
            "js" => Program::node(&file, &[&other]),
            _ => Program::python(&file, &[&other]),
        }
    });
    thread::scope(|scope| {
        let wanted = json!({ "address": address });
        let late = &late;
        let refused = scope.spawn(move || late.ask("subscribe_address", &wanted));
        is_away(&edge.get("/status"));
        is_away(&edge.post("/add_address", &json!({ "address": other })));
        is_away(&edge.get(&format!("/events?address={other}")));
        not_ready(&edge, "the primary is away");
        assert_eq!(edge.get("/health/live").status, 200);
        // What the edge has it tells.
        let page = edge.get(&format!("/events?after={last}"));
        assert_eq!(page.status, 200, "{}", page.text);
        let told = Client::connect(&edge).event("connected", |_| true);
        assert_eq!(told["tip"]["hash"], *world.node.tip(), "{told}");
        let refused = refused.join().expect("it is answered");
        assert_eq!(refused["code"], "primary_unavailable", "{refused}");
        assert!(refused["error"].is_string(), "{refused}");
    });
    for client in &patient {
        let is_refused = |line: &str| line.contains("Trying again in 5 seconds").then_some(());
        client.line("it asks again", is_refused);
    }
    for example in &examples {
        let is_refused = |line: &str| line.starts_with("The primary of this edge").then_some(());
        example.line("it is refused", is_refused);
    }
    assert!(!client.is_closed() && !late.is_closed());
    world.primary.restart();
    edge.wait_ready();
    for client in &patient {
        client.event("subscribed", |data| data["addresses"][0] == *other);
    }
    for example in &examples {
        let has = format!("{other} has ");
        example.line("it is subscribed", |line| {
            line.starts_with(&has).then_some(())
        });
    }
    world.primary.wait_balance(&address, 2 * COIN, 0);
    world.pay(&address);
    world.has_heard_all(&address, from, || heard(&client));
    world.has_heard_all(&address, from, || printed(&follower));
    assert_eq!(client.all("connected").len(), 1, "it is the same session");
    let logged = world.logged(&address, from);
    let mut streamed = Vec::new();
    while streamed.len() < logged.len() {
        let told = stream.event();
        streamed.extend(payments([(told.name, told.data)].into_iter()));
    }
    assert_eq!(streamed, logged);
}

#[test]
fn a_redis_that_goes_and_loses_all_or_nothing_takes_no_event_with_it() {
    let mut world = World::start();
    let edge = world.edge();
    let address = world.node.address();
    let client = Client::subscribed(&edge, &address);
    let from = begun(&client.all("subscribed")[0]);
    let polling = Program::node("listen.js", &[&edge.url(), &address, "polling"]);
    polling.event("subscribed", |_| true);
    world.pay(&address);
    for keeps in [false, true] {
        if keeps {
            let _: String = world.redis.ask(&["SAVE"]);
        }
        world.redis.kill();
        not_ready(&edge, "the stream is not read: Redis cannot be reached");
        world.pay(&address);
        if keeps {
            // As long as it takes to lag.
            thread::sleep(Duration::from_secs(6));
        }
        // REST and new subscriptions know of it; the latter wait for what comes before.
        let balance = edge.balance(&address)["balance"].as_i64();
        assert_eq!(balance, world.primary.balance(&address)["balance"].as_i64());
        let late = Client::connect(&edge);
        late.emit("subscribe_address", &json!({ "address": address }));
        world.redis.restart();
        edge.wait_ready();
        let late_from = begun(&late.event("subscribed", |_| true));
        world.pay(&address);
        world.has_heard_all(&address, from, || heard(&client));
        world.has_heard_all(&address, from, || printed(&polling));
        world.has_heard_all(&address, late_from, || heard(&late));
    }
    for told in ["lagged", "caught_up"] {
        client.event(told, |_| true);
    }
    assert_eq!(client.all("connected").len(), 1, "it is the same session");
}

#[test]
fn a_client_goes_on_at_another_edge_and_at_one_that_was_killed() {
    let world = World::start();
    let (mut one, two) = (world.edge(), world.edge());
    let address = world.node.address();
    let first = Client::subscribed(&one, &address);
    let follower = Program::node("../../contrib/js/watch.js", &[&one.url(), &address]);
    follower.event("subscribed", |_| true);
    let from = begun(&first.all("subscribed")[0]);
    world.pay(&address);
    world.has_heard_all(&address, from, || heard(&first));
    let (number, _, data) = heard(&first).pop().expect("an event");
    let after = data["cursor"].clone();
    one.kill();
    first.wait_closed();
    world.pay(&address);
    let second = Client::connect(&two);
    let wanted = json!({ "address": address, "after": after });
    second.emit("subscribe_address", &wanted);
    world.has_heard_all(&address, number, || heard(&second));
    assert_ne!(second.event("caught_up", |_| true)["cursor"], Value::Null);
    one.restart();
    world.pay(&address);
    world.has_heard_all(&address, number, || heard(&second));
    world.has_heard_all(&address, from, || printed(&follower));
    // Stopped in time while clients are there.
    one.stop();
    let log = one.log();
    assert!(!log.contains("going on without"), "{log}");
}

#[test]
fn a_stream_that_stays_behind_is_told_by_the_edge_and_its_cause_by_the_primary() {
    let world = World::start();
    let edge = world.edge();
    let address = world.node.address();
    world.primary.watch(&address);
    let set = |bytes: &str| {
        let _: String = world.redis.ask(&["CONFIG", "SET", "maxmemory", bytes]);
    };
    set("1");
    world.pay(&address);
    not_ready(&edge, "the stream has come to");
    // As it says.
    let bus = world.primary.get("/status").json["bus"].clone();
    let problem = bus["problem"].as_str().unwrap_or_default();
    assert!(problem.contains("no memory left"), "{bus}");
    set("0");
    edge.wait_ready();
}
