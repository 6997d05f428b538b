//! Edges (`satwatch edge`) of a real primary, with a real Redis: what clients get there is what
//! they get at the primary, whatever goes away meanwhile, and nobody is let in whom the primary
//! does not let in.

mod away;
mod balanced;
mod pages;
mod refused;
mod restored;
mod serves;
mod tokens;
mod unfit;

use serde_json::Value;

use crate::common::{
    COIN, Client, DEADLINE, Daemon, Node, Program, RedisServer, ledger, wait_for, wait_until,
};

/// A primary that writes its log to a Redis.
struct World {
    node: Node,
    redis: RedisServer,
    primary: Daemon,
}

/// Number, name and data.
type Event = (u64, String, Value);

impl World {
    fn start() -> Self {
        let (node, redis) = (Node::start(), RedisServer::start());
        let mut primary = Daemon::with(&node, &[("bus.url", &redis.url())]);
        primary.keep_port();
        Self {
            node,
            redis,
            primary,
        }
    }

    fn edge(&self) -> Daemon {
        self.edge_with(&[])
    }

    fn edge_with(&self, settings: &[(&str, &str)]) -> Daemon {
        let mut edge = self.edge_to_be(settings);
        edge.restart();
        edge.keep_port();
        edge
    }

    /// Not started.
    fn edge_to_be(&self, settings: &[(&str, &str)]) -> Daemon {
        Daemon::edge(&self.primary.url(), &self.redis, settings)
    }

    /// Pays in a block, and waits until the primary knows.
    fn pay(&self, address: &str) {
        let before = self.primary.balance(address)["balance"].as_i64();
        self.node.pay(address, COIN);
        self.node.mine(1);
        let after = before.expect("satoshi") + COIN;
        self.primary.wait_balance(address, after, 0);
    }

    /// What the primary's log has of the payments of an address behind a number.
    fn logged(&self, address: &str, after: u64) -> Vec<Event> {
        let page = self
            .primary
            .get(&format!("/events?limit=1000&address={address}"));
        let events = page.json["events"].as_array().expect("events").iter();
        let events = events.map(|it| (it["event"].as_str().unwrap_or_default(), &it["data"]));
        let mut events = payments(events.map(|(name, data)| (name.to_owned(), data.clone())));
        events.retain(|(number, ..)| *number > after);
        assert!(!events.is_empty(), "{}", page.text);
        events
    }

    /// Waits until a client has heard all of that, and checks that it was in order and once.
    fn has_heard_all(&self, address: &str, after: u64, heard: impl Fn() -> Vec<Event>) {
        let expected = self.logged(address, after);
        // When it is not, the comparison says what is missing.
        wait_for(DEADLINE, || {
            (heard().last() == expected.last()).then_some(())
        });
        assert_eq!(heard(), expected);
    }
}

/// JavaScript writes 5.0 as 5.
fn with_plain_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(all) => all.into_iter().map(with_plain_numbers).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            let fields = fields.map(|(name, value)| (name, with_plain_numbers(value)));
            Value::Object(fields.collect())
        }
        other => other,
    }
}

/// The changes of a balance and new transactions.
fn payments(events: impl Iterator<Item = (String, Value)>) -> Vec<Event> {
    let of_payments =
        events.filter(|(name, _)| ["balance_change", "new_transactions"].contains(&name.as_str()));
    of_payments
        .map(|(name, data)| {
            let number = ledger::number(&data["cursor"]);
            (number, name, with_plain_numbers(data))
        })
        .collect()
}

fn heard(client: &Client) -> Vec<Event> {
    payments(client.heard().into_iter())
}

fn printed(program: &Program) -> Vec<Event> {
    let lines = program.lines();
    let lines = lines.iter();
    let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    payments(events.filter_map(|line| {
        let name = line["event"].as_str()?.to_owned();
        Some((name, line["data"].clone()))
    }))
}

/// The number that a subscription began with.
fn begun(subscribed: &Value) -> u64 {
    ledger::number(&subscribed["cursor"])
}

/// What an edge that does not start says.
fn refusal(edge: &Daemon, words: &[&str], code: i32) -> String {
    let command = edge.command_of(&[&["edge"], words].concat());
    Program::of(command, "satwatch edge").ends(code)
}

fn says(edge: &Daemon, words: &str) {
    wait_until(words, || edge.log().contains(words).then_some(()));
}
