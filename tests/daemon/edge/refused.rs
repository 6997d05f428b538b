//! Settings of an edge that cannot be right, and streams that are not its primary's: what is said,
//! and that it helps.

use satwatch::remedy::Remedy;
use serde_json::{Value, json};

use super::{World, heard, refusal, says};
use crate::bus::KEY;
use crate::common::tls::Files;
use crate::common::{Client, Daemon, Node, Program, RedisServer};

#[test]
fn an_edge_without_a_primary_or_a_bus_says_which_setting_is_missing() {
    let world = World::start();
    let (primary, bus) = (world.primary.url(), world.redis.url());
    let mut edge = world.edge_to_be(&[]);
    for words in [&[][..], &["--check"]] {
        for (setting, remedy, value) in [
            ("edge.upstream", Remedy::NameUpstream, &primary),
            ("bus.url", Remedy::NameBus, &bus),
        ] {
            edge.unset(setting);
            let said = refusal(&edge, words, 2);
            let expected = format!("satwatch edge: {setting} is not set: {remedy}");
            assert_eq!(said, expected);
            edge.set(setting, value);
        }
    }
    for (setting, value) in [
        ("edge.upstream", "127.0.0.1:5005"),
        ("edge.upstream", "http://127.0.0.1:5005/path"),
        ("bus.url", "http://127.0.0.1"),
        ("edge.token", "nonsense"),
    ] {
        let wrong = world.edge_to_be(&[(setting, value)]);
        for words in [&[][..], &["--check"]] {
            let said = refusal(&wrong, words, 2);
            assert!(said.contains(setting), "{said}");
        }
    }
    let unknown = world.edge_to_be(&[("edge.upsteam", "http://127.0.0.1:1")]);
    assert!(refusal(&unknown, &["--check"], 2).contains("upsteam"));
    let checked = refusal(&edge, &["--check"], 0);
    assert!(!checked.contains("listening"), "{checked}");
    edge.restart();
    // A port that somebody has.
    let taken = world.edge_to_be(&[("server.listen", &format!("127.0.0.1:{}", edge.port()))]);
    let said = refusal(&taken, &[], 1);
    assert!(said.contains("set server.listen to another"), "{said}");
}

#[test]
fn another_edge_is_no_primary() {
    let world = World::start();
    let first = world.edge();
    let mut edge = Daemon::edge(&first.url(), &world.redis, &[]);
    let said = refusal(&edge, &[], 1);
    assert!(said.contains(&first.url()), "{said}");
    assert!(said.contains(&Remedy::NameUpstream.to_string()), "{said}");
    edge.set("edge.upstream", &world.primary.url());
    edge.restart();
}

#[test]
fn an_edge_waits_for_its_primary_for_redis_and_for_the_stream() {
    let (node, mut redis) = (Node::start(), RedisServer::start());
    let mut primary = Daemon::start(&node);
    primary.keep_port();
    primary.stop();
    redis.kill();
    let mut edge = Daemon::edge(&primary.url(), &redis, &[]);
    edge.begin();
    says(
        &edge,
        &format!(
            "waiting for the primary: the primary at {} is away",
            primary.url()
        ),
    );
    says(&edge, &Remedy::StartPrimary.to_string());
    primary.restart();
    says(&edge, "Redis cannot be reached");
    says(&edge, &Remedy::ReachRedis.to_string());
    redis.restart();
    says(&edge, &format!("no satwatch writes a stream {KEY}"));
    primary.stop();
    primary.set("bus.url", &redis.url());
    primary.restart();
    edge.wait_listening();
    edge.wait_ready();
    let address = node.address();
    let client = Client::subscribed(&edge, &address);
    node.pay(&address, 5_000);
    client.event("balance_change", |data| data["new_balance"] == 5_000);
    drop(edge);

    // Stopped while it waits.
    let mut edge = Daemon::edge(&primary.url(), &redis, &[("bus.stream", "nobodys")]);
    edge.begin();
    says(&edge, "no satwatch writes a stream {nobodys}");
    edge.stop();
}

/// No authority has signed it.
#[test]
fn a_primary_is_asked_over_tls_once_its_certificate_is_trusted() {
    let (node, redis, files) = (Node::start(), RedisServer::start(), Files::new());
    let bus = redis.url();
    let tls = files.settings();
    let mut settings: Vec<(&str, &str)> = tls.iter().map(|(name, it)| (*name, &**it)).collect();
    settings.push(("bus.url", &bus));
    let primary = Daemon::with(&node, &settings);
    assert!(primary.url().starts_with("https://"), "{}", primary.url());
    let mut edge = Daemon::edge(&primary.url(), &redis, &[]);
    edge.begin();
    says(&edge, "invalid peer certificate");
    says(&edge, &Remedy::TrustPrimary.to_string());
    edge.stop();
    edge.set("SSL_CERT_FILE", &files.cert().display().to_string());
    edge.restart();
    edge.wait_ready();
    let address = node.address();
    let client = Client::subscribed(&edge, &address);
    node.pay(&address, 5_000);
    client.event("balance_change", |data| data["new_balance"] == 5_000);
    // And what is passed on.
    assert_eq!(edge.get(&format!("/balance/{address}")).status, 200);
}

#[test]
fn a_stream_of_another_network_or_log_is_not_served() {
    let world = World::start();
    let address = world.node.address();
    world.primary.watch(&address);
    world.pay(&address);
    // Of another network.
    let fields: Vec<(String, String)> = world.redis.ask(&["HGETALL", KEY]);
    for (name, value) in &fields {
        let value = if name == "network" { "signet" } else { value };
        let _: u64 = world.redis.ask(&["HSET", "{other}", name, value]);
    }
    let mut edge = world.edge_to_be(&[("bus.stream", "other")]);
    edge.begin();
    says(&edge, "the stream is of another network (signet)");
    says(&edge, &Remedy::NameBus.to_string());
    edge.stop();
    edge.unset("bus.stream");
    edge.restart();
    drop(edge);

    // Of another satwatch.
    let theirs = RedisServer::start();
    let stranger = Daemon::with(&world.node, &[("bus.url", &theirs.url())]);
    crate::bus::caught_up(&stranger);
    let mut edge = world.edge_to_be(&[("bus.url", &theirs.url())]);
    edge.begin();
    let remedy = Remedy::NameBus;
    says(
        &edge,
        &format!("the stream is of another log than that of the primary: {remedy}"),
    );
    assert!(!edge.log().contains("listening on"), "{}", edge.log());
    let doctor = edge.command_of(&["doctor"]);
    let said = Program::of(doctor, "satwatch doctor").ends(1);
    assert!(said.contains("of another log than that"), "{said}");
    edge.stop();
    edge.set("bus.url", &world.redis.url());
    edge.restart();
    let client = Client::connect(&edge);
    client.emit("subscribe_address", &json!({ "address": address }));
    client.event("subscribed", |told| told["code"] == Value::Null);
    world.pay(&address);
    client.event("balance_change", |_| true);
    assert!(!heard(&client).is_empty());
}
