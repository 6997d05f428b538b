//! What a token may have on the watch list and among the consumers.

use serde_json::json;

use super::*;
use crate::auth::{InForce, Scope, Token, TokenText, TokensFile};
use crate::clock::now_ms;

/// A daemon with two tokens of scope `watch`, under these limits.
struct Shared {
    daemon: Daemon,
    tokens: Vec<Token>,
    texts: [TokenText; 3],
}

impl Shared {
    async fn start(addresses: usize, consumers: usize) -> Self {
        let mut config = config::Config::default();
        config.limits.addresses_per_token = addresses;
        config.limits.consumers_per_token = consumers;
        let daemon = Daemon::with(config).await;
        let mut file = TokensFile::default();
        let scopes = [
            ("one", Scope::Watch),
            ("two", Scope::Watch),
            ("owner", Scope::Admin),
        ];
        let texts = scopes.map(|(name, scope)| {
            let text = TokenText::random();
            file.add(name, scope, &text, None, now_ms()).expect("new");
            text
        });
        let tokens = file.tokens;
        let in_force = InForce::Tokens(tokens.clone());
        daemon.services.auth.put_in_force(in_force);
        Self {
            daemon,
            tokens,
            texts,
        }
    }

    async fn ask(&self, token: usize, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost:5005")
            .header("content-type", "application/json")
            .header(
                "authorization",
                format!("Bearer {}", self.texts[token].reveal()),
            );
        let body = match body {
            Value::Null => Full::default(),
            body => Full::from(body.to_string()),
        };
        let (status, _, body) = self.daemon.request(request.body(body).unwrap()).await;
        (status.as_u16(), serde_json::from_str(&body).unwrap())
    }

    /// Its status, and the limit that it names if it is a refusal.
    async fn add(&self, token: usize, path: &str, body: Value) -> (u16, Value) {
        let (status, answer) = self.ask(token, "POST", path, body).await;
        if status == 403 {
            assert_eq!(answer["code"], "quota_reached", "{answer}");
        }
        (status, answer["limit"].clone())
    }

    fn addresses(&self, token: usize) -> u64 {
        self.owned(token).addresses
    }

    fn owned(&self, token: usize) -> store::Owned {
        let id = self.tokens[token].id.0;
        self.daemon.reader.owned(&id).unwrap()
    }
}

fn one(n: u8) -> Value {
    json!({"address": address(n).to_string(), "history": "none"})
}

fn list(ns: impl IntoIterator<Item = u8>) -> Value {
    let addresses: Vec<_> = ns.into_iter().map(|n| address(n).to_string()).collect();
    json!({"addresses": addresses, "history": "none"})
}

fn wallet(path: &str, more: Value) -> Value {
    const KEY: &str = "tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M";
    let mut body = json!({"descriptor": format!("wpkh({KEY}/{path})"), "history": "none"});
    let fields = body.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn more_of_a_descriptor_is_watched_for_the_token_that_added_it_alone() {
    let shared = Shared::start(3000, 1).await;
    shared.daemon.derive();
    let more = wallet("0/*", json!({"range": [0, 99]}));
    let one = wallet("0/*", json!({}));
    assert_eq!(
        shared.ask(0, "POST", "/descriptors", one.clone()).await.0,
        201
    );
    let (status, refused) = shared.ask(1, "POST", "/descriptors", more.clone()).await;
    assert_eq!(
        (status, &refused["code"]),
        (403, &json!("not_yours")),
        "{refused}"
    );
    assert_eq!(shared.addresses(0), 1020);
    // What takes no script is for all.
    let labelled = wallet("0/*", json!({"label": "x"}));
    assert_eq!(shared.ask(1, "POST", "/descriptors", labelled).await.0, 200);
    assert_eq!(shared.ask(0, "POST", "/descriptors", more).await.0, 200);
    // Whoever has all rights may, also when that token is gone; it counts for it still.
    let most = wallet("0/*", json!({"range": [0, 199]}));
    assert_eq!(shared.ask(2, "POST", "/descriptors", most).await.0, 200);
    assert!(shared.addresses(0) >= 1200 && shared.addresses(2) == 0);
    // One that no token has added counts for nobody.
    let body = wallet("1/*", json!({})).to_string();
    let (guard, in_force) = (
        &shared.daemon.services.auth,
        InForce::Tokens(shared.tokens.clone()),
    );
    guard.put_in_force(InForce::Open);
    assert_eq!(shared.daemon.post("/descriptors", &body).await.0, 201);
    guard.put_in_force(in_force);
    let more = wallet("1/*", json!({"range": [0, 99]}));
    assert_eq!(shared.ask(1, "POST", "/descriptors", more).await.0, 200);
}

#[tokio::test]
async fn addresses_that_are_given_away_count_for_who_added_the_descriptor() {
    let shared = Shared::start(1025, 1).await;
    shared.daemon.derive();
    let (_, added) = shared
        .ask(0, "POST", "/descriptors", wallet("0/*", json!({})))
        .await;
    let path = format!(
        "/descriptors/{}/next_address",
        added["descriptor_id"].as_str().unwrap()
    );
    let mut given = 0;
    let refused = loop {
        let (status, answer) = shared.ask(given % 2, "POST", &path, json!({})).await;
        match status {
            200 => given += 1,
            _ => break answer,
        }
        assert!(given < 200, "it ends");
    };
    assert_eq!(
        (&refused["code"], &refused["limit"]),
        (&json!("quota_reached"), &json!("addresses_per_token"))
    );
    let (_, other) = shared.ask(1, "POST", &path, json!({})).await;
    let why = other["error"].as_str().unwrap();
    assert!(
        why.starts_with("The token that added the descriptor has "),
        "{why}"
    );
    assert_eq!(shared.addresses(1), 0);
}

#[tokio::test]
async fn addresses_of_a_descriptor_that_are_listed_are_more_of_a_token() {
    let shared = Shared::start(1020, 1).await;
    shared.daemon.derive();
    let (_, added) = shared
        .ask(0, "POST", "/descriptors", wallet("0/*", json!({})))
        .await;
    let path = format!(
        "/descriptors/{}/addresses?limit=2",
        added["descriptor_id"].as_str().unwrap()
    );
    let (_, page) = shared.ask(0, "GET", &path, Value::Null).await;
    let mine = json!({"address": page["addresses"][0]["address"], "history": "none"});
    let refused = (403, json!("addresses_per_token"));
    assert_eq!(shared.add(0, "/add_address", mine).await, refused);
    assert_eq!(shared.addresses(0), 1020);
}

#[tokio::test]
async fn a_token_adds_so_many_addresses_and_who_removes_one_makes_room() {
    let shared = Shared::start(3, 1).await;
    let refused = (403, json!("addresses_per_token"));
    let good = (200, Value::Null);
    assert_eq!(shared.add(0, "/add_addresses", list([1, 2])).await, good);
    // What is there already costs nothing.
    assert_eq!(shared.add(0, "/add_addresses", list([1, 2, 3])).await, good);
    assert_eq!(shared.add(0, "/add_addresses", list([1, 2, 3])).await, good);
    assert_eq!(shared.add(0, "/add_address", one(4)).await, refused);
    assert_eq!(shared.add(0, "/add_address", one(3)).await, good);
    // Of two that do not both fit, none.
    assert_eq!(shared.add(1, "/add_addresses", list([5, 6])).await, good);
    assert_eq!(shared.add(1, "/add_addresses", list([7, 8])).await, refused);
    assert_eq!((shared.addresses(0), shared.addresses(1)), (3, 2));
    let counts = shared.daemon.reader.snapshot().counts().unwrap();
    assert_eq!(counts.addresses, 5);
    // The other one takes it away, and it is the first one's that goes.
    let path = format!("/addresses/{}", address(1));
    assert_eq!(shared.ask(1, "DELETE", &path, Value::Null).await.0, 200);
    assert_eq!((shared.addresses(0), shared.addresses(1)), (2, 2));
    assert_eq!(shared.add(0, "/add_address", one(4)).await, good);
    let limits = shared.ask(0, "GET", "/status", Value::Null).await.1["limits"].take();
    let expected = json!({"limit": 3, "used": 3, "refused": 2});
    assert_eq!(limits["addresses_per_token"], expected);
}

#[tokio::test]
async fn every_way_to_watch_counts() {
    let shared = Shared::start(3, 9).await;
    let from = json!({"address": address(1).to_string(), "history": {"from_height": 100}});
    assert_eq!(shared.add(0, "/add_address", from).await.0, 200);
    assert_eq!(shared.addresses(0), 1);
    let consumer = json!({"addresses": [address(2).to_string()]});
    let put = shared.ask(0, "PUT", "/consumers/a", consumer).await;
    assert_eq!(put.0, 201, "{}", put.1);
    assert_eq!(shared.addresses(0), 2);
    let again = json!({"addresses": [address(2).to_string(), address(3).to_string()]});
    let put = shared.ask(0, "PUT", "/consumers/a", again).await;
    assert_eq!(put.0, 200, "{}", put.1);
    assert_eq!(shared.addresses(0), 3);
    let consumer = json!({"addresses": [address(4).to_string()]});
    let (status, refusal) = shared.ask(0, "PUT", "/consumers/b", consumer).await;
    assert_eq!(
        (status, &refusal["limit"]),
        (403, &json!("addresses_per_token"))
    );
    let none = shared.ask(0, "GET", "/consumers/b", Value::Null).await;
    assert_eq!(none.0, 404, "a refused definition defines nothing");
}

#[tokio::test]
async fn many_requests_at_once_get_no_further_than_one_after_the_other() {
    let shared = Shared::start(10, 1).await;
    let adds = (1..=40).map(|n| shared.add(0, "/add_address", one(n)));
    let answers = futures_util::future::join_all(adds).await;
    let good = answers.iter().filter(|(status, _)| *status == 200).count();
    assert_eq!((good, shared.addresses(0)), (10, 10));
}

#[tokio::test]
async fn a_large_list_that_is_added_in_portions_has_its_owner() {
    let shared = Shared::start(10_000, 1).await;
    let many: Vec<_> = (0..1200u32)
        .map(|n| {
            let program = [&n.to_be_bytes()[..], &[9; 16]].concat();
            let program = WitnessProgram::new(WitnessVersion::V0, &program).unwrap();
            Address::from_witness_program(program, KnownHrp::Regtest).to_string()
        })
        .collect();
    let body = json!({"addresses": many, "history": "none"});
    assert_eq!(shared.add(0, "/add_addresses", body).await.0, 200);
    assert_eq!(shared.addresses(0), 1200);
    let path = format!("/addresses/{}", many[1199]);
    assert_eq!(shared.ask(0, "DELETE", &path, Value::Null).await.0, 200);
    assert_eq!(shared.addresses(0), 1199);
}

#[tokio::test]
async fn a_token_defines_so_many_consumers() {
    let shared = Shared::start(9, 1).await;
    let put = async |token, name: &str, body| {
        let path = format!("/consumers/{name}");
        let (status, answer) = shared.ask(token, "PUT", &path, body).await;
        (status, answer["limit"].clone())
    };
    let all = || json!({"addresses": "all"});
    assert_eq!(put(0, "a", all()).await.0, 201);
    assert_eq!(
        put(0, "b", all()).await,
        (403, json!("consumers_per_token"))
    );
    let blocks = json!({"addresses": "all", "blocks": true});
    assert_eq!(put(0, "a", blocks.clone()).await.0, 200, "it is its own");
    assert_eq!(put(1, "b", all()).await.0, 201);
    assert_eq!(put(1, "a", all()).await.0, 200, "a change is no definition");
    let deleted = shared.ask(1, "DELETE", "/consumers/a", Value::Null).await;
    assert_eq!(deleted.0, 200);
    assert_eq!(
        (shared.owned(0).consumers, shared.owned(1).consumers),
        (0, 1)
    );
    assert_eq!(put(0, "c", all()).await.0, 201);
}

#[tokio::test]
async fn what_nobody_with_a_token_added_counts_for_nobody() {
    let shared = Shared::start(1, 1).await;
    shared.daemon.services.auth.put_in_force(InForce::Open);
    let both = list([1, 2]).to_string();
    let added = shared.daemon.post("/add_addresses", &both).await;
    assert_eq!(added.0, 200);
    let again = InForce::Tokens(shared.tokens.clone());
    shared.daemon.services.auth.put_in_force(again);
    assert_eq!(
        shared.add(0, "/add_addresses", list([1, 2, 3])).await.0,
        200
    );
    assert_eq!(shared.addresses(0), 1);
}
