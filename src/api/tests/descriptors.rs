//! Descriptors over REST: added, looked at, their addresses given away, taken off.

mod labels;
mod refused;
mod socket;

use serde_json::json;

use super::*;
use crate::api::tests::limits::Captured;
use crate::auth::{InForce, Scope, TokenText, TokensFile};
use crate::clock::now_ms;
use crate::descriptors::WalletDescriptor;

/// The account of BIP 84's test vectors, on the test networks.
const KEY: &str = "tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M";

pub(super) fn wallet() -> String {
    format!("wpkh({KEY}/<0;1>/*)")
}

/// One of its addresses; `keychain` 1 is change.
fn derived(keychain: usize, index: u32) -> Address {
    let wallet = WalletDescriptor::parse(&wallet(), Network::Regtest).unwrap();
    let spk = wallet.derive(keychain, index..index + 1).remove(0);
    Address::from_script(&spk, Network::Regtest).unwrap()
}

impl Daemon {
    async fn with_wallet() -> (Self, String) {
        let daemon = Self::start().await;
        daemon.derive();
        let id = daemon.add_wallet(json!({})).await;
        (daemon, id)
    }

    /// Nothing is looked for in its past.
    async fn add_wallet(&self, more: Value) -> String {
        let mut body = json!({"descriptor": wallet(), "history": "none"});
        let fields = body.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        let (status, added) = self.post("/descriptors", &body.to_string()).await;
        assert_eq!(status, 201, "{added}");
        added["descriptor_id"].as_str().unwrap().to_owned()
    }

    async fn of(&self, id: &str, what: &str) -> Value {
        let (status, answer) = self.get(&format!("/descriptors/{id}{what}")).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn next_address(&self, id: &str, body: Value) -> (u16, Value) {
        let path = format!("/descriptors/{id}/next_address");
        self.post(&path, &body.to_string()).await
    }
}

#[tokio::test]
async fn a_descriptor_is_added_once_and_shown_with_its_keychains() {
    let daemon = Daemon::start().await;
    daemon.derive();
    let body =
        json!({"descriptor": wallet(), "label": "shop", "history": "none", "confirmations": [3]});
    let (status, added) = daemon.post("/descriptors", &body.to_string()).await;
    assert_eq!(status, 201, "{added}");
    let id = added["descriptor_id"].as_str().unwrap();
    assert_eq!(id.len(), 64);
    let text = added["descriptor"].as_str().unwrap();
    assert!(text.starts_with(&format!("{}#", wallet())), "{text}");
    assert_eq!(
        (&added["label"], &added["gap_limit"]),
        (&json!("shop"), &json!(20))
    );
    assert_eq!(added["confirmations"], json!([1, 3]));
    let keychain =
        |name| json!({"keychain": name, "next_index": 0, "last_used": null, "watched_to": 19});
    assert_eq!(
        added["keychains"],
        json!([keychain("external"), keychain("internal")])
    );
    let coverage =
        json!({"from_height": 101, "complete": false, "utxos_complete": false, "pending": false});
    assert_eq!(added["coverage"], coverage, "from now on");
    assert!(added["cursor"].is_string());

    // The same wallet in another spelling is one; what it says anew counts.
    let slip = json!({"descriptor": format!("wpkh([73c5da0a/84h/1h/0h]{KEY}/<0;1>/*)"), "gap_limit": 30, "range": [0, 99], "label": "till"});
    let (status, again) = daemon.post("/descriptors", &slip.to_string()).await;
    assert_eq!(
        (status, &again["descriptor_id"]),
        (200, &added["descriptor_id"]),
        "{again}"
    );
    assert_eq!(
        (&again["label"], &again["gap_limit"]),
        (&json!("till"), &json!(30))
    );
    assert_eq!(again["keychains"][1]["watched_to"], 99);
    assert_eq!(again["descriptor"], added["descriptor"], "as it was added");

    let shown = daemon.of(id, "").await;
    assert_eq!(
        (&shown["label"], &shown["keychains"]),
        (&again["label"], &again["keychains"])
    );
    let (_, listed) = daemon.get("/descriptors").await;
    assert_eq!(
        (&listed["total"], &listed["next"]),
        (&json!(1), &Value::Null)
    );
    assert_eq!(
        listed["descriptors"][0]["descriptor_id"],
        added["descriptor_id"]
    );
}

#[tokio::test]
async fn descriptors_are_listed_in_pages() {
    let daemon = Daemon::start().await;
    daemon.derive();
    let mut ids = vec![];
    for path in ["0/*", "1/*", "2/*"] {
        let body = json!({"descriptor": format!("wpkh({KEY}/{path})"), "history": "none"});
        let (status, added) = daemon.post("/descriptors", &body.to_string()).await;
        assert_eq!(
            (status, added["keychains"].as_array().unwrap().len()),
            (201, 1)
        );
        ids.push(added["descriptor_id"].as_str().unwrap().to_owned());
    }
    ids.sort();
    let (_, first) = daemon.get("/descriptors?limit=2").await;
    assert_eq!(
        (&first["count"], &first["next"]),
        (&json!(2), &json!(ids[1]))
    );
    let (_, rest) = daemon
        .get(&format!("/descriptors?limit=2&after={}", ids[1]))
        .await;
    assert_eq!((&rest["count"], &rest["next"]), (&json!(1), &Value::Null));
    assert_eq!(rest["descriptors"][0]["descriptor_id"], json!(ids[2]));
}

#[tokio::test]
async fn what_a_wallet_does_is_told_once_and_netted() {
    let (daemon, id) = Daemon::with_wallet().await;
    let (first, change) = (derived(0, 0), derived(1, 4));
    let paid = daemon.pay(&first, 100_000, 1).await;
    daemon.mine(&address(9), vec![paid.clone()]).await;
    // It pays 30 000 to somebody, and the rest but a fee to itself.
    let outpoint = OutPoint {
        txid: paid.compute_txid(),
        vout: 0,
    };
    let mut spent = spend(outpoint, address(9).script_pubkey(), 30_000);
    spent.output.push(TxOut {
        value: Amount::from_sat(69_000),
        script_pubkey: change.script_pubkey(),
    });
    daemon
        .apply(Input::TxSeen {
            tx: (&spent).into(),
            seen: Seen::Accepted,
            now: NOW,
        })
        .await;

    let balance = daemon.of(&id, "/balance").await;
    let told = [
        "confirmed_balance",
        "unconfirmed_balance",
        "balance",
        "utxo_count",
        "immature",
    ];
    let told = told.map(|field| balance[field].as_i64().unwrap());
    assert_eq!(told, [100_000, -31_000, 69_000, 1, 0]);
    assert_eq!(
        (&balance["descriptor_id"], &balance["address"]),
        (&json!(id), &Value::Null)
    );

    let list = daemon.of(&id, "/transactions").await;
    assert_eq!(
        (&list["count"], &list["total"], &list["descriptor_id"]),
        (&json!(2), &json!(2), &json!(id))
    );
    let nets: Vec<_> = list["transactions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tx| tx["net"].as_i64().unwrap())
        .collect();
    assert_eq!(nets, [-31_000, 100_000], "newest first");
    let page = daemon.of(&id, "/transactions?limit=1").await;
    let next = page["next"].as_str().unwrap();
    let rest = daemon
        .of(&id, &format!("/transactions?limit=1&before={next}"))
        .await;
    assert_eq!(
        (&rest["transactions"][0], &rest["next"]),
        (&list["transactions"][1], &Value::Null)
    );

    let utxos = daemon.of(&id, "/utxos").await;
    assert_eq!((&utxos["count"], &utxos["total"]), (&json!(1), &json!(1)));
    let utxo = &utxos["utxos"][0];
    assert_eq!(
        (&utxo["address"], &utxo["keychain"], &utxo["index"]),
        (&json!(change.to_string()), &json!("internal"), &json!(4))
    );
    let all = daemon.of(&id, "/utxos?include_spent=true").await;
    assert_eq!((&all["count"], &all["total"]), (&json!(2), &json!(2)));
    let page = daemon.of(&id, "/utxos?include_spent=true&limit=1").await;
    let after = page["next"].as_str().unwrap();
    let rest = daemon
        .of(
            &id,
            &format!("/utxos?include_spent=true&limit=1&after={after}"),
        )
        .await;
    assert_eq!(
        (&rest["utxos"][0], &rest["next"]),
        (&all["utxos"][1], &Value::Null)
    );

    let used = daemon
        .of(&id, "/addresses?keychain=internal&from=3&limit=2")
        .await;
    let shown = used["addresses"].as_array().unwrap();
    let shown: Vec<_> = shown
        .iter()
        .map(|it| {
            (
                it["index"].as_u64(),
                it["used"].as_bool(),
                it["balance"].as_i64(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (Some(3), Some(false), Some(0)),
            (Some(4), Some(true), Some(69_000))
        ]
    );
    assert_eq!(
        (&used["next"], &used["next_index"], &used["watched_to"]),
        (&json!(5), &json!(5), &json!(24))
    );

    // Its addresses are read like others, and are not on the list.
    let (status, one) = daemon.get(&format!("/balance/{change}")).await;
    assert_eq!((status, &one["balance"]), (200, &json!(69_000)));
    let (_, listed) = daemon.get("/addresses").await;
    assert_eq!((&listed["total"], &listed["count"]), (&json!(0), &json!(0)));
    let (_, status) = daemon.get("/status").await;
    assert_eq!(
        (&status["address_count"], &status["descriptor_count"]),
        (&json!(0), &json!(1))
    );
    assert!(
        status["derived_scripts"].as_u64().unwrap() >= 2040,
        "{}",
        status["derived_scripts"]
    );
    assert_eq!(status["limits"]["descriptor_scripts"]["limit"], 250_000);
}

#[tokio::test]
async fn immature_coins_are_counted_and_no_others() {
    let (daemon, id) = Daemon::with_wallet().await;
    daemon.mine(&derived(0, 3), vec![]).await;
    for _ in 0..2 {
        let tx = daemon
            .pay(&derived(0, 0), 1000, daemon.tip().height as u8)
            .await;
        daemon.mine(&derived(1, 0), vec![tx]).await;
    }
    let told = async || {
        let balance = daemon.of(&id, "/balance").await;
        ["balance", "immature"].map(|field| balance[field].as_i64().unwrap())
    };
    assert_eq!(told().await, [15_000_002_000, 15_000_000_000]);
    // The first one is mature when the next block may spend it: when it has 100 confirmations.
    for _ in 0..97 {
        daemon.mine(&address(9), vec![]).await;
    }
    assert_eq!(told().await, [15_000_002_000, 10_000_000_000]);
}

#[tokio::test]
async fn an_address_is_given_once_also_to_many_at_once() {
    let (daemon, id) = Daemon::with_wallet().await;
    let asked = (0..30).map(|_| daemon.next_address(&id, json!({})));
    let answers = futures_util::future::join_all(asked).await;
    let mut given: Vec<_> = answers
        .iter()
        .map(|(status, answer)| {
            assert_eq!(*status, 200, "{answer}");
            let index = answer["index"].as_u64().unwrap();
            let address = derived(0, index as u32).to_string();
            assert_eq!(answer["address"], json!(address));
            assert_eq!(answer["beyond_gap"], json!(index >= 20), "{answer}");
            index
        })
        .collect();
    given.sort_unstable();
    assert_eq!(given, (0..30).collect::<Vec<_>>());
    let body = json!({"keychain": "internal", "label": "rest"});
    let (_, change) = daemon.next_address(&id, body).await;
    assert_eq!(
        (&change["keychain"], &change["index"]),
        (&json!("internal"), &json!(0))
    );
    let shown = daemon.of(&id, "/addresses?keychain=internal&limit=1").await;
    assert_eq!(shown["addresses"][0]["label"], "rest");
    // A use further on is passed over, and ends the gap.
    daemon.pay(&derived(0, 40), 1000, 1).await;
    let (_, next) = daemon.next_address(&id, json!({})).await;
    assert_eq!(
        (&next["index"], &next["beyond_gap"]),
        (&json!(41), &json!(false))
    );
    let keychain = daemon.of(&id, "").await["keychains"][0].take();
    assert_eq!(
        keychain,
        json!({"keychain": "external", "next_index": 42, "last_used": 40, "watched_to": 61})
    );
}

#[tokio::test]
async fn more_addresses_than_are_derived_are_given_when_they_are() {
    let daemon = Daemon::start().await;
    daemon.derive();
    let body = json!({"descriptor": format!("wpkh({KEY}/0/*)"), "history": "none", "gap_limit": 1});
    let (_, added) = daemon.post("/descriptors", &body.to_string()).await;
    let id = added["descriptor_id"].as_str().unwrap();
    for index in 0..1100 {
        let (status, given) = daemon.next_address(id, json!({})).await;
        assert_eq!((status, &given["index"]), (200, &json!(index)), "{given}");
    }
}

#[tokio::test]
async fn no_address_is_given_while_it_may_turn_out_to_be_used() {
    let daemon = Daemon::start().await;
    daemon.derive();
    let body = json!({"descriptor": wallet(), "history": "utxo"}).to_string();
    let (_, added) = daemon.post("/descriptors", &body).await;
    let id = added["descriptor_id"].as_str().unwrap();
    assert_eq!(added["coverage"]["pending"], true, "{added}");
    tokio::time::pause();
    let (status, refused) = daemon.next_address(id, json!({})).await;
    assert_eq!(
        (status, &refused["code"]),
        (409, &json!("past_awaited")),
        "{refused}"
    );
    assert_eq!(daemon.of(id, "").await["keychains"][0]["next_index"], 0);
    // A stop ends the waiting.
    let waiting = daemon.next_address(id, json!({}));
    let stopping = async {
        tokio::task::yield_now().await;
        daemon.stop.cancel();
    };
    let ((status, refused), ()) = tokio::join!(waiting, stopping);
    assert_eq!((status, &refused["code"]), (503, &json!("stopping")));
}

#[tokio::test]
async fn who_waits_for_scripts_hears_of_a_stop() {
    let daemon = Daemon::start().await;
    let body = json!({"descriptor": wallet(), "history": "none"}).to_string();
    let waiting = daemon.post("/descriptors", &body);
    let stopping = async {
        while daemon.reader.snapshot().descriptor_count().unwrap() == 0 {
            tokio::task::yield_now().await;
        }
        daemon.stop.cancel();
    };
    let ((status, refused), ()) = tokio::join!(waiting, stopping);
    assert_eq!((status, &refused["code"]), (503, &json!("stopping")));
}

#[tokio::test]
async fn a_descriptor_has_so_many_scripts_also_when_its_addresses_are_given_away() {
    let mut config = config::Config::default();
    config.limits.descriptor_scripts = 1022;
    let daemon = Daemon::with(config).await;
    daemon.derive();
    let body = json!({"descriptor": format!("wpkh({KEY}/0/*)"), "history": "none"}).to_string();
    let (_, added) = daemon.post("/descriptors", &body).await;
    let id = added["descriptor_id"].as_str().unwrap();
    let mut given = 0;
    let refused = loop {
        let (status, answer) = daemon.next_address(id, json!({})).await;
        match status {
            200 => given += 1,
            _ => break (status, answer),
        }
        assert!(given < 200, "it ends");
    };
    assert_eq!(
        (refused.0, &refused.1["limit"]),
        (409, &json!("descriptor_scripts"))
    );
}

#[tokio::test]
async fn a_descriptor_is_not_complete_while_a_scan_of_it_waits_to_begin() {
    let (daemon, id) = Daemon::with_wallet().await;
    let descriptor = crate::wire::request::descriptors::descriptor_id(&id).unwrap();
    assert_eq!(daemon.of(&id, "").await["coverage"]["pending"], false);
    daemon
        .apply(Input::OpenDescriptorScan {
            scan: crate::tracker::ScanId(7),
            descriptor,
            from: 0,
            to: None,
            now: NOW,
        })
        .await;
    let coverage = daemon.of(&id, "").await["coverage"].take();
    assert_eq!(
        (&coverage["complete"], &coverage["pending"]),
        (&json!(false), &json!(true))
    );
}

#[tokio::test]
async fn the_line_of_a_change_tells_which_descriptor_it_is() {
    let (daemon, id) = Daemon::with_wallet().await;
    let (log, _guard) = Captured::begin();
    let again = json!({"descriptor": wallet()}).to_string();
    assert_eq!(daemon.post("/descriptors", &again).await.0, 200);
    daemon.next_address(&id, json!({})).await;
    daemon
        .label(&format!("/descriptors/{id}"), json!("x"))
        .await;
    daemon.delete(&format!("/descriptors/{id}")).await;
    let concerned: Vec<_> = log
        .lines()
        .into_iter()
        .map(|line| line[4].clone())
        .collect();
    assert_eq!(concerned, [&id[..16]; 4]);
}

#[tokio::test]
async fn one_without_a_wildcard_has_one_address() {
    let daemon = Daemon::start().await;
    daemon.derive();
    let body = json!({"descriptor": format!("wpkh({KEY}/0/7)"), "history": "none"});
    let (status, added) = daemon.post("/descriptors", &body.to_string()).await;
    assert_eq!(status, 201, "{added}");
    let id = added["descriptor_id"].as_str().unwrap();
    let (_, given) = daemon.next_address(id, json!({})).await;
    assert_eq!(given["address"], json!(derived(0, 7).to_string()));
    let (status, none) = daemon.next_address(id, json!({})).await;
    assert_eq!((status, &none["code"]), (409, &json!("no_more_addresses")));
    let shown = daemon.of(id, "/addresses").await;
    assert_eq!((&shown["total"], &shown["next"]), (&json!(1), &Value::Null));
}

#[tokio::test]
async fn a_removed_descriptor_leaves_addresses_that_were_added_by_themselves() {
    let (daemon, id) = Daemon::with_wallet().await;
    let (mine, other) = (derived(0, 1), derived(0, 2));
    let (_, refused) = daemon.delete(&format!("/addresses/{mine}")).await;
    assert_eq!(refused["code"], "not_listed", "{refused}");
    assert_eq!(
        daemon.get(&format!("/balance/{mine}")).await.0,
        200,
        "nothing is changed"
    );
    let body = json!({"address": mine.to_string(), "history": "none"}).to_string();
    let (_, added) = daemon.post("/add_address", &body).await;
    assert_eq!(
        added["message"],
        json!(format!("Watching {mine} from now on."))
    );
    assert_eq!(daemon.get("/addresses").await.1["total"], 1);

    let (status, removed) = daemon.delete(&format!("/descriptors/{id}")).await;
    assert_eq!(
        (status, &removed["descriptor_id"]),
        (200, &json!(id)),
        "{removed}"
    );
    for path in ["", "/balance", "/transactions", "/utxos", "/addresses"] {
        let (status, error) = daemon.get(&format!("/descriptors/{id}{path}")).await;
        assert_eq!(
            (status, &error["code"]),
            (404, &json!("no_such_descriptor")),
            "{path}"
        );
    }
    let (status, error) = daemon.delete(&format!("/descriptors/{id}")).await;
    assert_eq!(
        (status, &error["code"]),
        (404, &json!("no_such_descriptor"))
    );
    // Added again while its rows are still going: as if it had never been there.
    let again = daemon.add_wallet(json!({})).await;
    assert_eq!(again, id);
    assert_eq!(daemon.get(&format!("/balance/{other}")).await.0, 200);
    daemon.delete(&format!("/descriptors/{id}")).await;
    while daemon.reader.snapshot().leaving().next().is_some() {
        daemon.apply(Input::Forget { now: NOW }).await;
    }
    assert_eq!(daemon.get(&format!("/balance/{mine}")).await.0, 200);
    assert_eq!(daemon.get(&format!("/balance/{other}")).await.0, 404);
    assert_eq!(daemon.reader.snapshot().counts().unwrap().derived, 0);
}

#[tokio::test]
async fn the_mark_of_an_address_goes_and_it_is_watched_for_its_descriptor() {
    let (daemon, _) = Daemon::with_wallet().await;
    let mine = derived(0, 1);
    let body = json!({"address": mine.to_string(), "history": "none"}).to_string();
    daemon.post("/add_address", &body).await;
    let (status, removed) = daemon.delete(&format!("/addresses/{mine}")).await;
    assert_eq!(status, 200, "{removed}");
    assert_eq!(daemon.get("/addresses").await.1["total"], 0);
    assert_eq!(daemon.get(&format!("/balance/{mine}")).await.0, 200);
}

#[tokio::test]
async fn a_quota_counts_the_scripts_of_descriptors() {
    let mut config = config::Config::default();
    config.limits.addresses_per_token = 2500;
    let daemon = Daemon::with(config).await;
    daemon.derive();
    let (mut file, text) = (TokensFile::default(), TokenText::random());
    file.add("shop", Scope::Watch, &text, None, now_ms())
        .expect("new");
    let token = file.tokens[0].id.0;
    daemon
        .services
        .auth
        .put_in_force(InForce::Tokens(file.tokens));
    let ask = async |method: &str, path: &str, body: Value| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost:5005")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", text.reveal()));
        let body = match body {
            Value::Null => Full::default(),
            body => Full::from(body.to_string()),
        };
        let (status, _, body) = daemon.request(request.body(body).unwrap()).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        (status.as_u16(), body)
    };
    let one = json!({"descriptor": wallet(), "history": "none"});
    let (status, added) = ask("POST", "/descriptors", one.clone()).await;
    assert_eq!(status, 201, "{added}");
    let owned = || daemon.reader.owned(&token).unwrap().addresses;
    assert_eq!(owned(), 2040);
    assert_eq!(
        ask("POST", "/descriptors", one).await.0,
        200,
        "it is its own"
    );
    let other = json!({"descriptor": format!("wpkh({KEY}/2/*)"), "history": "none"});
    let (status, refused) = ask("POST", "/descriptors", other.clone()).await;
    assert_eq!(
        (status, &refused["limit"]),
        (403, &json!("addresses_per_token"))
    );
    assert_eq!(daemon.reader.snapshot().descriptor_count().unwrap(), 1);
    let (_, limits) = ask("GET", "/status", Value::Null).await;
    assert_eq!(limits["limits"]["addresses_per_token"]["used"], 2040);
    let path = format!("/descriptors/{}", added["descriptor_id"].as_str().unwrap());
    assert_eq!(ask("DELETE", &path, Value::Null).await.0, 200);
    assert_eq!(owned(), 0);
    assert_eq!(ask("POST", "/descriptors", other).await.0, 201);
}

#[tokio::test]
async fn the_history_of_a_descriptor_is_scanned_as_one() {
    let daemon = Daemon::start().await;
    daemon.derive();
    let body = json!({"descriptor": wallet(), "history": {"from_height": 100}});
    let (status, added) = daemon.post("/descriptors", &body.to_string()).await;
    assert_eq!(status, 201, "{added}");
    assert_eq!(added["coverage"]["pending"], true);
    let id = added["descriptor_id"].as_str().unwrap();
    let scan = added["scan_id"].as_str().unwrap();
    let (_, shown) = daemon.get(&format!("/scans/{scan}")).await;
    assert_eq!(
        (&shown["descriptor_id"], &shown["from_height"]),
        (&json!(id), &json!(100)),
        "{shown}"
    );
    let ask = async |body: Value| daemon.post("/scan_history", &body.to_string()).await;
    let (log, _guard) = Captured::begin();
    let (status, begun) = ask(json!({"descriptor_id": id, "from_height": 100})).await;
    assert_eq!(log.lines()[0][4], id[..16]);
    assert_eq!((status, &begun["descriptor_id"]), (202, &json!(id)));
    assert_ne!(begun["scan_id"], added["scan_id"]);
    for (body, status, code) in [
        (json!({}), 400, "missing_field"),
        (json!({"descriptor_id": "0"}), 404, "no_such_descriptor"),
        (
            json!({"descriptor_id": id, "addresses": [address(1).to_string()]}),
            400,
            "invalid_field",
        ),
        (
            json!({"descriptor_id": id, "from_height": 101}),
            400,
            "invalid_range",
        ),
    ] {
        let (found, error) = ask(body).await;
        assert_eq!((found, &error["code"]), (status, &json!(code)), "{error}");
    }
    let body = json!({"descriptor": format!("wpkh({KEY}/2/*)"), "history": "none"});
    let (_, added) = daemon.post("/descriptors", &body.to_string()).await;
    let (status, error) = ask(json!({"descriptor_id": added["descriptor_id"]})).await;
    assert_eq!((status, &error["code"]), (409, &json!("history_is_none")));
}
