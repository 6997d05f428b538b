//! A primary whose folder was put back as it was before.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::{World, begun, heard};
use crate::common::daemon::request;
use crate::common::{Client, wait_until};

#[test]
fn a_primary_that_was_put_back_ends_sessions_and_lost_cursors_are_told() {
    let mut world = World::start();
    let (edge, other) = (world.edge(), world.edge());
    let address = world.node.address();
    world.primary.watch(&address);
    world.primary.stop();
    let (store, kept) = (
        world.primary.store(),
        world.primary.store().with_extension("copy"),
    );
    let copy = |from, to| {
        let copied = Command::new("cp").arg("-a").args([from, to]).status();
        assert!(copied.expect("cp can be run").success());
    };
    copy(&store, &kept);
    world.primary.restart();
    let client = Client::subscribed(&edge, &address);
    let stays = Client::connect(&other);
    world.pay(&address);
    world.has_heard_all(&address, begun(&client.all("subscribed")[0]), || {
        heard(&client)
    });
    let lost = heard(&client).pop().expect("an event").2["cursor"].clone();
    assert!(!client.is_closed());

    world.primary.stop();
    fs::remove_dir_all(&store).expect("the folder is ours");
    copy(&kept, &store);
    world.primary.restart();
    client.wait_closed();
    stays.wait_closed();
    let back = wait_until("the edge serves the log that there is", || {
        let path = format!("/events?address={address}&after={}", lost.as_str()?);
        // It listens anew.
        let answer = request("GET", &format!("{}{path}", edge.url()), &[], None).ok()?;
        (answer.json["code"] == "cursor_unknown").then(|| Client::connect(&edge))
    });
    let wanted = json!({ "address": address, "after": lost });
    let answer = back.ask("subscribe_address", &wanted);
    back.event("error", |told| told["code"] == "cursor_unknown");
    assert_eq!(answer["address"], *address, "{answer}");
    let from = begun(&answer);
    world.pay(&address);
    world.has_heard_all(&address, from, || heard(&back));
    assert_eq!(edge.get("/health/ready").status, 200);
    assert_ne!(answer["cursor"], Value::Null);
}
