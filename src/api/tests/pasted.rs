//! Addresses as people paste them, wherever one is taken, and what is none.

use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::*;
use crate::api::rest::routes::ROUTES;

/// Everything that is an address of somebody, in the forms in which people paste it.
fn forms(address: &str) -> Vec<String> {
    let (head, tail) = address.split_at(9);
    vec![
        format!("bitcoin:{address}"),
        format!("bitcoin:{address}?amount=0.01&label=a%20b"),
        format!("BITCOIN:{}", address.to_uppercase()),
        format!("Bitcoin:{address}?pj=https://shop.example/"),
        format!(" {address}\r\n"),
        format!("{head} {tail}"),
        format!("{head}\u{200b}{tail}"),
        format!("\u{feff}{address}"),
        format!("{address}\u{200e}"),
        format!("{head}\u{ad}{tail}\u{a0}"),
        format!("\u{2066}{address}\u{2069}"),
        address.to_uppercase(),
    ]
}

const SECRETS: [&str; 7] = [
    "KwFfpDsaF7yxCELuyrH9gP5XL7TAt5b9HPWC1xCQbmrxvhJgMQHb",
    "cMcfH8sRgBgDMfpBNG6H3haaxLkaYXgqMRef8Nev6tWyBSNr6c3n",
    // With a mistyped letter.
    "5HpjKrb7dH5kKQQzmbjB87Mxova7mek5bXUTWfndcX6tBoqUwzl",
    "6PRVWUbkzzsbcVac2qwfssoUJAN1Xhrg6bNk8J7Nzm5H7kxEbn2Nh2ZoGg",
    "xprv9s21ZrQH143K24wRdsX9TnFuNKBUZJDDM4DfJkKgF4HkNxzHqVaWQNr7mnpffA1Q6tHGs2QhJAfmJFL3zg3Rj45hjkA4qaPX6BFpzGf4WsL",
    "wpkh(tprv8ZgxMBicQKsPd7Uf69XL1XwhmjHopUGep8GuEiJDZmbQz6o58LninorQAfcKZWARbtRtfnLcJ5MQ2AtHcQJCCRUcMRvmDUjyEmNUWwx8UbK/0/*)",
    "legal winner thank year wave sausage worth useful legal winner thank yellow",
];

/// A text, percent-encoded.
fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Every request that takes an address, with this text for it, and whether it asks about one that
/// has to be watched.
fn requests(text: &str) -> Vec<(&'static str, String, Value, bool)> {
    let list = "/add_addresses".to_owned();
    let mut requests = vec![
        (
            "POST",
            "/scan_history".to_owned(),
            json!({"addresses": [text]}),
            true,
        ),
        (
            "GET",
            format!("/events?address={}", encoded(text)),
            Value::Null,
            true,
        ),
        (
            "GET",
            format!("/addresses?after={}", encoded(text)),
            Value::Null,
            false,
        ),
        (
            "PUT",
            "/consumers/shop".to_owned(),
            json!({"addresses": [text]}),
            false,
        ),
        (
            "POST",
            "/add_address".to_owned(),
            json!({"address": text}),
            false,
        ),
        ("POST", list.clone(), json!({"addresses": [text]}), false),
        (
            "POST",
            list,
            json!({"addresses": [{"address": text}]}),
            false,
        ),
    ];
    for entry in ROUTES {
        if let Some((before, _)) = entry.path.split_once("{address}") {
            let path = format!("{before}{}", encoded(text));
            let body = match entry.method == Method::PATCH {
                true => json!({"label": "x"}),
                false => Value::Null,
            };
            requests.push((entry.method.as_str(), path, body, true));
        }
    }
    requests
}

/// Every event that takes an address.
fn events(text: &str) -> [(&'static str, Value); 3] {
    [
        ("subscribe_address", json!({"address": text})),
        ("subscribe_addresses", json!({"addresses": [text]})),
        ("unsubscribe_address", json!({"address": text})),
    ]
}

#[tokio::test]
async fn events_of_several_addresses_name_each_bad_one() {
    let daemon = Daemon::start().await;
    let good = address(1).to_string();
    daemon
        .post("/add_address", &json!({ "address": good }).to_string())
        .await;
    let path = format!("/events?address=bad&address={good}&address=worse");
    let (status, code, sentence) = daemon.follow_ups("GET", &path, &Value::Null).await;
    assert_eq!((status, code.as_str()), (400, "invalid_address"));
    for bad in ["address[0]: This is not", "address[2]: This is not"] {
        assert!(sentence.contains(bad), "{sentence}");
    }
    let (_, _, sentence) = daemon
        .follow_ups("GET", "/events?address=bad", &Value::Null)
        .await;
    assert!(sentence.starts_with("This is not"), "{sentence}");
}

#[tokio::test]
async fn case_09_what_people_paste_is_taken_wherever_an_address_is() {
    let daemon = Daemon::start().await;
    let (some, unknown) = (address(1).to_string(), address(2).to_string());
    for form in forms(&unknown) {
        for (method, path, body, must_be_watched) in requests(&form) {
            if must_be_watched {
                let (status, code, sentence) = daemon.follow_ups(method, &path, &body).await;
                assert_eq!(
                    (status, code.as_str()),
                    (404, "not_watched"),
                    "{path} {sentence}"
                );
                assert!(sentence.contains(&unknown), "{path} {sentence}");
            }
        }
    }
    let mut client = daemon.client().await;
    for form in forms(&some) {
        for (method, path, body, must_be_watched) in requests(&form) {
            if !must_be_watched {
                let (status, _, sentence) = daemon.follow_ups(method, &path, &body).await;
                assert!([200, 201].contains(&status), "{form:?} {path} {sentence}");
            }
        }
        for (name, argument) in events(&form) {
            client.emit(name, argument).await;
            let (heard, data) = client.event().await;
            assert!(heard.ends_with("subscribed"), "{form:?} {name} {data}");
            let named = data.get("address").unwrap_or(&data["addresses"][0]);
            assert_eq!(named, &json!(some), "{form:?} {name} {data}");
        }
    }
    assert_eq!(daemon.reader.snapshot().counts().unwrap().addresses, 1);
    let consumer = daemon.get("/consumers/shop").await.1;
    assert_eq!(consumer["addresses"], json!([some]));
}

#[tokio::test]
async fn case_09_keys_and_seeds_are_refused_and_never_shown() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client().await;
    let hides = |secret: &str, said: &str| {
        for word in secret.split(' ').filter(|word| word.len() > 4) {
            assert!(!said.contains(word), "{said}");
            assert!(!said.contains(&word[..word.len() / 2 + 2]), "{said}");
        }
    };
    for secret in SECRETS {
        for (method, path, body, _) in requests(secret) {
            let (status, code, sentence) = daemon.follow_ups(method, &path, &body).await;
            assert_eq!(
                (status, code.as_str()),
                (400, "invalid_address"),
                "{method} {path}"
            );
            assert!(
                sentence.contains("This looks like"),
                "{method} {path} {sentence}"
            );
            hides(secret, &sentence);
        }
        for (name, argument) in events(secret) {
            client.emit(name, argument).await;
            let error = client.expect("error").await;
            assert_eq!(error["code"], "invalid_address", "{name}");
            hides(secret, &error.to_string());
        }
        // In places where nothing like it is expected.
        let path = format!("/adress/{}", encoded(secret));
        for (method, path, body) in [
            ("GET", path.clone(), Value::Null),
            ("GET", format!("/status?{}=1", encoded(secret)), Value::Null),
            ("GET", format!("/scans/{}", encoded(secret)), Value::Null),
            ("POST", "/add_address".to_owned(), json!({secret: 1})),
            (
                "POST",
                "/add_address".to_owned(),
                json!({"address": {secret: 1}}),
            ),
            (
                "POST",
                "/add_addresses".to_owned(),
                json!({"addresses": [{secret: 1}]}),
            ),
        ] {
            let (status, _, sentence) = daemon.follow_ups(method, &path, &body).await;
            assert!([400, 404].contains(&status), "{path} {status}");
            hides(secret, &sentence);
        }
        client.emit(secret, json!({})).await;
        hides(secret, &client.expect("error").await.to_string());
    }
    let hex = format!("0x{}", "1f3c5b7a".repeat(8));
    let seed = SECRETS[6];
    let japanese = ["あいこくしん"; 12].join("　");
    let (head, tail) = SECRETS[0].split_at(20);
    for (secret, path) in [
        (hex.as_str(), hex.clone()),
        (seed, seed.replace(' ', "%0A")),
        (seed, seed.replace(' ', "%2C")),
        (&japanese, encoded(&japanese)),
        (SECRETS[0], format!("{head}%E2%80%8B{tail}")),
    ] {
        let (status, _, sentence) = daemon
            .follow_ups("GET", &format!("/adress/{path}"), &Value::Null)
            .await;
        assert_eq!(status, 404, "{sentence}");
        assert!(sentence.contains("(not shown"), "{sentence}");
        for (path, body) in [
            ("/add_address", json!({secret: 1})),
            ("/add_address", json!({path: 1})),
        ] {
            let (_, _, sentence) = daemon.follow_ups("POST", path, &body).await;
            assert!(sentence.contains("(not shown"), "{sentence}");
        }
        client.emit(secret, json!({})).await;
        let error = client.expect("error").await.to_string();
        assert!(error.contains("(not shown"), "{error}");
    }
    assert_eq!(daemon.reader.snapshot().counts().unwrap().addresses, 0);
}

#[tokio::test]
async fn case_09_what_is_no_address_is_named_for_what_it_is() {
    let daemon = Daemon::start().await;
    for (text, words) in [
        (
            "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt081",
            "the checksum is wrong: a letter is mistyped",
        ),
        (
            "ltc1qqqqsyqcyq5rqwzqfpg9scrgwpugpzysn3s44dy",
            "a Litecoin address",
        ),
        (
            "xpub661MyMwAqRbcEZ1tju49pvCdvM1xxkw4iH9G78jHoPpjFmKSP2tkxBAbd3rS6o44DU5j37h2n5fDpL5PiZmQnKMcq2cfBCaN1M9qjfmniB3",
            "an extended public key",
        ),
        (
            "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b",
            "a transaction id",
        ),
        (
            "lnbc20u1p3y0x3hpp5743k2g0fsqqxj7n8qzuhns5gmkk4djeejk3wkp64ppevgekvc0js",
            "a Lightning invoice",
        ),
        (
            "bitcoin:ADDRESS?req-something=1",
            "has to be understood (BIP 21)",
        ),
    ] {
        for (method, path, body, _) in requests(text) {
            let (status, code, sentence) = daemon.follow_ups(method, &path, &body).await;
            assert_eq!(
                (status, code.as_str()),
                (400, "invalid_address"),
                "{method} {path}"
            );
            assert!(sentence.contains(words), "{method} {path} {sentence}");
        }
        let mut client = daemon.client().await;
        for (name, argument) in events(text) {
            client.emit(name, argument).await;
            let error = client.expect("error").await;
            assert_eq!(error["code"], "invalid_address", "{name}");
            assert!(error["error"].as_str().unwrap().contains(words), "{error}");
        }
    }
    let mainnet = "BITCOIN:BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4?amount=1";
    for (method, path, body, _) in requests(mainnet) {
        let (status, code, sentence) = daemon.follow_ups(method, &path, &body).await;
        assert_eq!(
            (status, code.as_str()),
            (400, "wrong_network"),
            "{method} {path}"
        );
        let named = "of mainnet, but this daemon follows regtest";
        assert!(sentence.contains(named), "{method} {path} {sentence}");
    }
    assert_eq!(daemon.reader.snapshot().counts().unwrap().addresses, 0);
}
