//! What is no descriptor, or too much of one: refused, with nothing changed.

use super::*;

const PRIVATE: &str = "tprv8ZgxMBicQKsPeDgjzdC36fs6bMjGApWDNLR9erAXMs5skhMv36j9MV5ecvfavji5khqjWaWSFhN3YcCUUdiKH6isR4Pwy3U5y5egddBr16m";

#[tokio::test]
async fn a_private_key_is_refused_before_anything_else_and_never_said() {
    let daemon = Daemon::start().await;
    let wif = "cMzLdeGd5vEqxB8B6VFQoRopQ3sLAAvEzDAoQgvX54xwofSWj1fx";
    for (key, body) in [
        (
            PRIVATE,
            json!({"descriptor": format!("wpkh({PRIVATE}/0/*)")}),
        ),
        (PRIVATE, json!({"descriptor": PRIVATE})),
        (
            PRIVATE,
            json!({"descriptor": format!("wpkh({PRIVATE}/0/*)#wrongsum"), "gap_limit": 20}),
        ),
        (wif, json!({"descriptor": format!("wpkh({wif})")})),
    ] {
        let (status, error) = daemon.post("/descriptors", &body.to_string()).await;
        assert_eq!(
            (status, &error["code"]),
            (400, &json!("private_key")),
            "{error}"
        );
        assert!(!error.to_string().contains(&key[4..20]), "{error}");
    }
    // Wherever else it stands.
    for body in [
        json!({"descriptor": wallet(), PRIVATE: 1}).to_string(),
        json!({"descriptor": wallet(), "label": {PRIVATE: 1}}).to_string(),
        json!({"descriptor": [PRIVATE]}).to_string(),
        json!({"descriptor": wallet(), "keychain": PRIVATE}).to_string(),
        format!("{{\"descriptor\": \"{PRIVATE}"),
    ] {
        let (status, error) = daemon.post("/descriptors", &body).await;
        assert_eq!(status, 400, "{error}");
        assert!(!error.to_string().contains(&PRIVATE[4..20]), "{error}");
    }
    let (status, error) = daemon.get(&format!("/descriptors/{PRIVATE}")).await;
    assert_eq!(status, 404);
    assert!(!error.to_string().contains(&PRIVATE[4..20]), "{error}");
    assert_eq!(daemon.reader.snapshot().descriptor_count().unwrap(), 0);
}

#[tokio::test]
async fn what_cannot_be_a_descriptor_or_its_range_is_refused_with_nothing_changed() {
    let mut config = config::Config::default();
    config.limits.descriptor_scripts = 5000;
    let daemon = Daemon::with(config).await;
    daemon.derive();
    let main = "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";
    let with = |more: Value| {
        let mut body = json!({"descriptor": wallet(), "history": "none"});
        let fields = body.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        body
    };
    let text = |text: String| json!({"descriptor": text});
    for (body, code) in [
        (json!({}), "missing_field"),
        (json!({"descriptor": ""}), "invalid_descriptor"),
        (json!({"descriptor": 7}), "invalid_field"),
        (json!({"desc": wallet()}), "unknown_field"),
        (text(address(1).to_string()), "invalid_descriptor"),
        (text(format!("{}#00000000", wallet())), "invalid_descriptor"),
        (text(format!("wpkh({KEY}/0h/*)")), "invalid_descriptor"),
        (text(format!("combo({KEY}/0/*)")), "invalid_descriptor"),
        (text(KEY.to_owned()), "ambiguous_descriptor"),
        (text(format!("wpkh({main}/<0;1>/*)")), "wrong_network"),
        (with(json!({"gap_limit": 0})), "invalid_field"),
        (with(json!({"gap_limit": 10_001})), "invalid_field"),
        (with(json!({"gap_limit": -1})), "invalid_field"),
        (with(json!({"range": [5, 4]})), "invalid_field"),
        (with(json!({"range": [0]})), "invalid_field"),
        (with(json!({"range": 100})), "invalid_field"),
        (
            with(json!({"range": [0, 2_147_483_648_u32]})),
            "invalid_field",
        ),
        (
            with(json!({"range": [0, 2_147_483_647]})),
            "too_many_scripts",
        ),
        (with(json!({"range": [4_999, 4_999]})), "too_many_scripts"),
        (with(json!({"gap_limit": 2000})), "too_many_scripts"),
        (
            with(json!({"history": {"from_height": 1_000_000}})),
            "invalid_range",
        ),
        (with(json!({"history": "all"})), "invalid_field"),
        (with(json!({"confirmations": [0]})), "invalid_field"),
        (with(json!({"label": "x".repeat(257)})), "invalid_field"),
    ] {
        let (status, error) = daemon.post("/descriptors", &body.to_string()).await;
        assert_eq!(
            (status, &error["code"]),
            (400, &json!(code)),
            "{body} {error}"
        );
        let sentence = error["error"].as_str().unwrap();
        assert!(
            sentence.ends_with(['.', '}', ')']) || code == "ambiguous_descriptor",
            "{sentence}"
        );
    }
    assert_eq!(daemon.reader.snapshot().descriptor_count().unwrap(), 0);
    // Up to the limit, and then no further.
    let id = daemon.add_wallet(json!({"range": [0, 1499]})).await;
    let (status, error) = daemon
        .post(
            "/descriptors",
            &with(json!({"range": [0, 1500]})).to_string(),
        )
        .await;
    assert_eq!(
        (status, &error["limit"]),
        (400, &json!("descriptor_scripts")),
        "{error}"
    );
    assert_eq!(daemon.of(&id, "").await["keychains"][0]["watched_to"], 1499);
    let asked = json!({"descriptor": wallet(), "history": "utxo"}).to_string();
    let (status, error) = daemon.post("/descriptors", &asked).await;
    assert_eq!((status, &error["code"]), (409, &json!("history_is_none")));
}

#[tokio::test]
async fn ids_and_pages_that_there_are_not_are_refused() {
    let (daemon, id) = Daemon::with_wallet().await;
    for id in ["0", "nonsense", &"0".repeat(64), &id.to_uppercase(), "%20"] {
        for path in ["", "/balance", "/transactions", "/utxos", "/addresses"] {
            let (status, error) = daemon.get(&format!("/descriptors/{id}{path}")).await;
            assert_eq!(
                (status, &error["code"]),
                (404, &json!("no_such_descriptor")),
                "{id}"
            );
            assert!(
                error["error"].as_str().unwrap().contains("64 hex digits"),
                "{error}"
            );
        }
        let (status, error) = daemon.next_address(id, json!({})).await;
        assert_eq!(
            (status, &error["code"]),
            (404, &json!("no_such_descriptor")),
            "{id}"
        );
        assert_eq!(daemon.delete(&format!("/descriptors/{id}")).await.0, 404);
    }
    for (path, code) in [
        ("?after=zz", "invalid_parameter"),
        ("?limit=0", "invalid_parameter"),
        ("?limit=1001", "invalid_parameter"),
        ("?page=2", "unknown_field"),
    ] {
        let (status, error) = daemon.get(&format!("/descriptors{path}")).await;
        assert_eq!(
            (status, &error["code"]),
            (400, &json!(code)),
            "{path} {error}"
        );
    }
    for (path, code) in [
        ("/addresses?keychain=change", "invalid_parameter"),
        ("/addresses?from=2147483648", "invalid_parameter"),
        ("/addresses?limit=1001", "invalid_parameter"),
        ("/addresses?after=7", "unknown_field"),
        ("/transactions?before=zz", "invalid_parameter"),
        ("/utxos?after=zz", "invalid_parameter"),
        ("/balance?x=1", "unknown_field"),
    ] {
        let (status, error) = daemon.get(&format!("/descriptors/{id}{path}")).await;
        assert_eq!(
            (status, &error["code"]),
            (400, &json!(code)),
            "{path} {error}"
        );
    }
    let (status, error) = daemon
        .next_address(&id, json!({"keychain": "change"}))
        .await;
    assert_eq!(
        (status, &error["code"]),
        (400, &json!("invalid_field")),
        "{error}"
    );
    let (status, error) = daemon.next_address(&id, json!({"index": 3})).await;
    assert_eq!(
        (status, &error["code"]),
        (400, &json!("unknown_field")),
        "{error}"
    );
    assert_eq!(daemon.of(&id, "").await["keychains"][0]["next_index"], 0);
    // Behind the last one that is derived there is nothing.
    let empty = daemon.of(&id, "/addresses?from=5000").await;
    assert_eq!((&empty["count"], &empty["next"]), (&json!(0), &Value::Null));
    // One keychain alone.
    let body = json!({"descriptor": format!("wpkh({KEY}/5/*)"), "history": "none"});
    let (_, added) = daemon.post("/descriptors", &body.to_string()).await;
    let single = added["descriptor_id"].as_str().unwrap();
    let (status, error) = daemon
        .next_address(single, json!({"keychain": "internal"}))
        .await;
    assert_eq!(
        (status, &error["code"]),
        (400, &json!("no_such_keychain")),
        "{error}"
    );
}

#[tokio::test]
async fn an_unknown_id_in_a_list_is_named_by_its_place_and_nothing_is_changed() {
    let (daemon, id) = Daemon::with_wallet().await;
    // It sorts before the known one.
    let unknown = "00".repeat(32);
    let asked = json!({"addresses": [address(5).to_string()], "descriptors": [id, unknown]});
    let (status, code, sentence) = daemon.follow_ups("PUT", "/consumers/shop", &asked).await;
    assert_eq!((status, &*code), (404, "no_such_descriptor"));
    assert!(sentence.starts_with("descriptors[1]: "), "{sentence}");
    assert_eq!(daemon.get("/addresses").await.1["total"], 0);
    for other in [&*unknown, "nonsense"] {
        let path = format!("/events?descriptor={id}&descriptor={other}");
        let (status, code, sentence) = daemon.follow_ups("GET", &path, &Value::Null).await;
        assert_eq!((status, &*code), (404, "no_such_descriptor"));
        assert!(sentence.starts_with("descriptor[1]: "), "{sentence}");
    }
}

#[tokio::test]
async fn who_reads_a_stream_alone_is_told_in_it_why_there_is_none() {
    let (daemon, id) = Daemon::with_wallet().await;
    let unknown = "00".repeat(32);
    let ask = async |query: &str, headers: &[(&str, &str)]| {
        let request = Request::get(format!("/events/stream?{query}")).header("host", "localhost");
        let headers = headers.iter();
        let request = headers.fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        let (status, headers, body) = daemon.request(request.body(Full::default()).unwrap()).await;
        let content_type = headers["content-type"].to_str().unwrap().to_owned();
        (status.as_u16(), content_type, body)
    };
    let alone = ("accept", "text/event-stream");
    let of_it = format!("descriptor={id}");
    for (query, last, code) in [
        (&*format!("descriptor={unknown}"), "", "no_such_descriptor"),
        (&of_it, "nonsense", "invalid_cursor"),
        ("consumer=nobody", "", "no_such_consumer"),
        ("limit=1", "", "unknown_field"),
    ] {
        let (status, content_type, body) = ask(query, &[alone, ("last-event-id", last)]).await;
        assert_eq!(
            (status, &*content_type),
            (200, "text/event-stream"),
            "{body}"
        );
        let begin = "retry: 60000\nevent: satwatch_error\ndata: {";
        assert!(body.starts_with(begin) && body.ends_with("}\n\n"), "{body}");
        assert!(body.contains(&format!("\"code\":\"{code}\"")), "{body}");
        // A program that takes anything reads the status.
        for accept in ["*/*", "text/html, text/event-stream"] {
            let headers = [("accept", accept), ("last-event-id", last)];
            let (status, content_type, _) = ask(query, &headers).await;
            assert!([400, 404].contains(&status), "{status}");
            assert_eq!(content_type, "application/json");
        }
    }
}

#[tokio::test]
async fn sixteen_depths_are_the_most_by_everybody_together() {
    let (daemon, id) = Daemon::with_wallet().await;
    let mine = daemon.watch_from_now(1).await;
    let add = async |depths: std::ops::RangeInclusive<u8>| {
        let depths: Vec<u8> = depths.collect();
        let body = json!({"address": mine, "confirmations": depths}).to_string();
        daemon.post("/add_address", &body).await
    };
    let add_wallet = async |depths: std::ops::RangeInclusive<u8>| {
        let depths: Vec<u8> = depths.collect();
        let body = json!({"descriptor": wallet(), "confirmations": depths}).to_string();
        daemon.post("/descriptors", &body).await
    };
    for depths in [1..=8, 9..=16] {
        assert_eq!(add(depths.clone()).await.0, 200);
        assert_eq!(add_wallet(depths).await.0, 200);
    }
    let code = json!("too_many_confirmations");
    let (status, refused) = add(16..=17).await;
    assert_eq!((status, &refused["code"]), (409, &code), "{refused}");
    let (status, refused) = add_wallet(16..=17).await;
    assert_eq!((status, &refused["code"]), (409, &code), "{refused}");
    // What they have already may be asked for again.
    assert_eq!((add(2..=9).await.0, add_wallet(2..=9).await.0), (200, 200));
    let mut client = daemon.client().await;
    let argument = json!({"address": mine, "confirmations": [99]});
    client.emit("subscribe_address", argument).await;
    assert_eq!(client.expect("error").await["code"], code);
    let argument = json!({"descriptor_id": id, "confirmations": [99]});
    client.emit("subscribe_descriptor", argument).await;
    assert_eq!(client.expect("error").await["code"], code);
    // Of a list with one that may have no more, the others are not added either.
    let new = address(7).to_string();
    let both = json!({"addresses": [new, mine], "confirmations": [99]}).to_string();
    assert_eq!(daemon.post("/add_addresses", &both).await.1["code"], code);
    let other = json!({"descriptor": format!("wpkh({KEY}/9/*)"), "history": "none"});
    let (_, other) = daemon.post("/descriptors", &other.to_string()).await;
    let wallets = json!([other["descriptor_id"], id]);
    let consumer = json!({"addresses": [new], "descriptors": wallets, "confirmations": [99]});
    let (status, refused, said) = daemon.follow_ups("PUT", "/consumers/shop", &consumer).await;
    assert_eq!((status, json!(refused)), (409, code));
    assert!(said.starts_with("descriptors[1]: "), "{said}");
    let listed = daemon.get("/addresses").await.1;
    assert_eq!(listed["total"], 1);
    assert_eq!(
        listed["addresses"][0]["confirmations"]
            .as_array()
            .unwrap()
            .len(),
        16
    );
    assert_eq!(
        daemon.of(&id, "").await["confirmations"]
            .as_array()
            .unwrap()
            .len(),
        16
    );
}

#[tokio::test]
async fn who_adds_a_wallet_again_without_a_gap_limit_leaves_it_as_it_is() {
    let daemon = Daemon::start().await;
    daemon.derive();
    let id = daemon.add_wallet(json!({"gap_limit": 5})).await;
    let before = daemon.of(&id, "").await;
    assert_eq!(before["gap_limit"], 5);
    let again = json!({"descriptor": wallet(), "label": "till"}).to_string();
    let (status, answer) = daemon.post("/descriptors", &again).await;
    assert_eq!((status, &answer["gap_limit"]), (200, &json!(5)), "{answer}");
    let mut client = daemon.client().await;
    client
        .emit("subscribe_descriptor", json!({"descriptor": wallet()}))
        .await;
    client.expect("subscribed").await;
    let argument = json!({"descriptor": wallet(), "confirmations": [6]});
    client.emit("subscribe_descriptor", argument).await;
    client.expect("subscribed").await;
    let after = daemon.of(&id, "").await;
    assert_eq!(
        (&after["gap_limit"], &after["keychains"]),
        (&before["gap_limit"], &before["keychains"])
    );
}

#[tokio::test]
async fn a_lower_gap_limit_leaves_the_greater_one_and_says_so() {
    let daemon = Daemon::start().await;
    daemon.derive();
    let id = daemon
        .add_wallet(json!({"gap_limit": 30, "range": [0, 99]}))
        .await;
    for (more, said) in [
        (
            json!({"gap_limit": 10, "range": [0, 9]}),
            "with a gap limit of 30, which stays",
        ),
        (json!({"gap_limit": 30}), "was watched already."),
        (json!({}), "was watched already."),
    ] {
        let mut body = json!({"descriptor": wallet()});
        let fields = body.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        let (status, answer) = daemon.post("/descriptors", &body.to_string()).await;
        assert_eq!(
            (status, &answer["gap_limit"]),
            (200, &json!(30)),
            "{answer}"
        );
        assert_eq!(answer["keychains"][0]["watched_to"], 99);
        assert!(
            answer["message"].as_str().unwrap().contains(said),
            "{answer}"
        );
    }
    assert_eq!(daemon.of(&id, "").await["gap_limit"], 30);
}
