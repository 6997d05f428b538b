//! History scans over REST. Their work, which is the node's side, is played.

use serde_json::json;

use super::*;
use crate::history::{ScanMethod, ScanProgress};
use crate::tracker::{BlockId, ScanEnd, ScanId, ScriptHash};

pub fn script(n: u8) -> ScriptHash {
    ScriptHash::of(&address(n).script_pubkey())
}

pub fn id_of(answer: &Value) -> ScanId {
    ScanId(u64::from_str_radix(answer["scan_id"].as_str().unwrap(), 16).unwrap())
}

pub fn running(scan: ScanId, next: u32) -> ScanProgress {
    ScanProgress {
        scan,
        target: 99,
        next,
        running: true,
        method: Some(ScanMethod::Filters),
        rate: Some(10.0),
        waits_for: None,
    }
}

impl Daemon {
    /// Watched from now on.
    pub async fn watch_from_now(&self, n: u8) -> String {
        let text = address(n).to_string();
        let (status, answer) = self
            .post(
                "/add_address",
                &json!({"address": text, "history": "none"}).to_string(),
            )
            .await;
        assert_eq!(status, 200, "{answer}");
        text
    }

    pub async fn scan(&self, n: u8, body: Value) -> ScanId {
        let (status, answer) = self
            .post(&format!("/scan_history/{}", address(n)), &body.to_string())
            .await;
        assert_eq!(status, 202, "{answer}");
        id_of(&answer)
    }

    /// The node says that these own nothing.
    pub async fn merge_baseline(&self, numbers: &[u8]) {
        let scripts = numbers.iter().map(|n| script(*n)).collect();
        self.apply(Input::Baseline {
            block: self.tip(),
            scripts,
            outputs: Vec::new(),
            now: NOW,
        })
        .await;
    }

    /// Nothing is found in the blocks up to the tip.
    pub async fn complete(&self, scan: ScanId) {
        let (row, tip) = (
            self.reader.snapshot().scan(&scan).unwrap().unwrap(),
            self.tip(),
        );
        let scripts = self.reader.snapshot().scan_scripts(&scan).unwrap();
        let scripts = vec![Arc::new(scripts.into_iter().collect())];
        let past = Input::ScanBlocks {
            scans: vec![scan],
            scripts,
            first: row.next,
            blocks: Vec::new(),
            upto: tip,
            now: NOW,
        };
        self.apply(past).await;
        self.apply(Input::CloseScan {
            scan,
            end: ScanEnd::Complete(tip),
            now: NOW,
        })
        .await;
    }

    fn open_scans(&self) -> usize {
        self.reader.snapshot().open_scans().unwrap().len()
    }
}

#[tokio::test]
async fn a_scan_is_asked_for_looked_at_and_cancelled() {
    let daemon = Daemon::start().await;
    let mine = daemon.watch_from_now(1).await;
    let (status, answer) = daemon
        .post(&format!("/scan_history/{mine}"), r#"{"blocks_back":50}"#)
        .await;
    assert_eq!(
        (status, &answer["address"], &answer["count"]),
        (202, &json!(mine), &json!(1))
    );
    assert_eq!(
        (
            &answer["blocks_back"],
            &answer["from_height"],
            &answer["to_height"]
        ),
        (&json!(50), &json!(51), &Value::Null)
    );
    assert_eq!(
        (&answer["status"], &answer["coverage"]["pending"]),
        (&json!("scanning"), &json!(true))
    );
    assert_eq!(answer["coverage"]["complete"], false);
    let path = format!("/scans/{}", answer["scan_id"].as_str().unwrap());

    let (status, queued) = daemon.get(&path).await;
    assert_eq!(
        (
            status,
            &queued["status"],
            &queued["address"],
            &queued["from_height"]
        ),
        (200, &json!("queued"), &json!(mine), &json!(51))
    );
    let scan = id_of(&answer);
    let past = Input::ScanBlocks {
        scans: vec![scan],
        scripts: vec![Arc::new([script(1)].into())],
        first: 51,
        blocks: Vec::new(),
        upto: BlockId {
            height: 59,
            ..daemon.tip()
        },
        now: NOW,
    };
    daemon.apply(past).await;
    daemon.scans.send_replace(vec![running(scan, 60)]);
    let (_, scanning) = daemon.get(&path).await;
    assert_eq!(
        (
            &scanning["status"],
            &scanning["method"],
            &scanning["to_height"]
        ),
        (&json!("scanning"), &json!("filters"), &json!(99))
    );
    assert_eq!(
        (
            &scanning["blocks_done"],
            &scanning["blocks_total"],
            &scanning["percent"]
        ),
        (&json!(9), &json!(49), &json!(18.3))
    );
    assert_eq!(
        (&scanning["blocks_per_second"], &scanning["seconds_left"]),
        (&json!(10.0), &json!(4))
    );
    let listed = daemon.get("/scans").await.1;
    assert_eq!(listed, json!({"scans": [scanning], "count": 1}));
    let told = daemon.get("/status").await.1;
    assert_eq!(
        (&told["scans"], &told["scan_count"]),
        (&json!([scanning]), &json!(1))
    );

    let (status, cancelled) = daemon.delete(&path).await;
    assert_eq!(
        (status, &cancelled["status"], &cancelled["method"]),
        (200, &json!("cancelled"), &Value::Null)
    );
    assert!(cancelled.get("address").is_none(), "{cancelled}");
    for field in ["to_height", "blocks_done", "blocks_total", "percent"] {
        assert_eq!(cancelled[field], scanning[field], "{field}");
    }
    assert_eq!(daemon.get(&path).await.1, cancelled);
    assert_eq!(
        daemon.get("/scans").await.1,
        json!({"scans": [cancelled], "count": 1})
    );
    assert_eq!(daemon.get("/status").await.1["scans"], json!([]));
    let (status, error) = daemon.delete(&path).await;
    assert_eq!((status, &error["code"]), (409, &json!("scan_ended")));
    assert_eq!(
        daemon.get(&format!("/balance/{mine}")).await.1["coverage"]["pending"],
        true,
        "its baseline is still to come"
    );
    daemon.merge_baseline(&[1]).await;
    assert_eq!(
        daemon.get(&format!("/balance/{mine}")).await.1["coverage"]["complete"],
        true
    );
}

#[tokio::test]
async fn a_complete_scan_reaches_down_in_the_coverage() {
    let daemon = Daemon::start().await;
    let mine = daemon.watch_from_now(1).await;
    let scan = daemon.scan(1, json!({"from_height": 0})).await;
    daemon.merge_baseline(&[1]).await;
    assert_eq!(
        daemon.get(&format!("/transactions/{mine}")).await.1["coverage"]["pending"],
        true
    );
    daemon.complete(scan).await;
    let coverage = daemon.get(&format!("/transactions/{mine}")).await.1["coverage"].clone();
    assert_eq!(
        coverage,
        json!({"from_height": 0, "complete": true, "utxos_complete": true, "pending": false})
    );
    let (_, told) = daemon.get(&format!("/scans/{scan}")).await;
    assert_eq!(
        (
            &told["status"],
            &told["percent"],
            &told["height"],
            &told["to_height"]
        ),
        (&json!("complete"), &json!(100.0), &json!(100), &json!(100))
    );
    let (status, error) = daemon.delete(&format!("/scans/{scan}")).await;
    assert_eq!((status, &error["code"]), (409, &json!("scan_ended")));
    let (_, log) = daemon.get(&format!("/events?address={mine}")).await;
    let last = log["events"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (
            &last["event"],
            &last["data"]["scan_id"],
            &last["data"]["transaction_count"]
        ),
        (&json!("scan_complete"), &json!(scan.to_string()), &json!(0))
    );
    assert_eq!(
        (&last["data"]["from_height"], &last["data"]["to_height"]),
        (&json!(0), &json!(100))
    );
}

#[tokio::test]
async fn one_scan_is_for_a_whole_list_or_for_none_of_it() {
    let daemon = Daemon::start().await;
    let (one, two, three) = (
        daemon.watch_from_now(1).await,
        daemon.watch_from_now(2).await,
        address(3).to_string(),
    );
    let (status, error) = daemon
        .post(
            "/scan_history",
            &json!({"addresses": [one, two, three]}).to_string(),
        )
        .await;
    assert_eq!((status, &error["code"]), (404, &json!("not_watched")));
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .starts_with("addresses[2]: "),
        "{error}"
    );
    assert_eq!(daemon.open_scans(), 0);
    let pending = |answer: (u16, Value)| answer.1["coverage"]["pending"] == true;
    assert!(
        !pending(daemon.get(&format!("/balance/{one}")).await),
        "no baseline was asked for"
    );
    let body =
        json!({"addresses": [one, {"address": two}, one], "from_height": 10, "to_height": 20});
    let (status, answer) = daemon.post("/scan_history", &body.to_string()).await;
    assert_eq!(
        (status, &answer["count"], &answer["blocks_back"]),
        (202, &json!(2), &Value::Null)
    );
    assert_eq!(
        (&answer["from_height"], &answer["to_height"]),
        (&json!(10), &json!(20))
    );
    assert!(answer.get("address").is_none() && answer.get("coverage").is_none());
    assert!(
        pending(daemon.get(&format!("/balance/{one}")).await)
            && pending(daemon.get(&format!("/balance/{two}")).await)
    );
    let (_, scan) = daemon.get(&format!("/scans/{}", id_of(&answer))).await;
    assert_eq!(
        (&scan["address_count"], &scan["blocks_total"]),
        (&json!(2), &json!(11))
    );
    assert!(scan.get("address").is_none());
}

#[tokio::test]
async fn bad_requests_for_scans_are_refused_and_change_nothing() {
    let daemon = Daemon::start().await;
    let known = daemon.watch_from_now(1).await;
    let single = format!("/scan_history/{known}");
    let list = |rest: &str| format!(r#"{{"addresses":["{known}"],{rest}}}"#);
    let before = daemon.get(&format!("/balance/{known}")).await.1["coverage"].clone();
    let head = daemon.reader.snapshot().head().unwrap();
    let mut cases = vec![
        (
            "/scan_history/x".to_owned(),
            String::new(),
            400,
            "invalid_address",
        ),
        (
            format!("/scan_history/{}", address(9)),
            String::new(),
            404,
            "not_watched",
        ),
        (
            "/scan_history".to_owned(),
            String::new(),
            400,
            "missing_field",
        ),
        (
            "/scan_history".to_owned(),
            "{}".to_owned(),
            400,
            "missing_field",
        ),
        (
            "/scan_history".to_owned(),
            r#"{"addresses":[]}"#.to_owned(),
            400,
            "invalid_field",
        ),
        // Addresses that would be overlooked.
        (
            single.clone(),
            list(r#""from_height":0"#),
            400,
            "unknown_field",
        ),
        (
            "/scan_history".to_owned(),
            list(&format!(r#""address":"{known}""#)),
            400,
            "unknown_field",
        ),
    ];
    for (rest, code) in [
        (r#""from_height":101"#, "invalid_range"),
        (r#""from_height":4294967295"#, "invalid_range"),
        (r#""to_height":101"#, "invalid_range"),
        (r#""from_height":9,"to_height":8"#, "invalid_range"),
        (r#""blocks_back":1,"from_height":1"#, "invalid_range"),
        (r#""blocks_back":1,"to_height":1"#, "invalid_range"),
        (r#""blocks_back":0"#, "invalid_field"),
        (r#""blocks_back":-5"#, "invalid_field"),
        (r#""blocks_back":1.5"#, "invalid_field"),
        (r#""from_height":-1"#, "invalid_field"),
        (r#""from_height":0.5"#, "invalid_field"),
        (r#""from_height":"7""#, "invalid_field"),
        (r#""from_height":99999999999999999999"#, "invalid_field"),
        (r#""to_height":[]"#, "invalid_field"),
    ] {
        cases.push((single.clone(), format!("{{{rest}}}"), 400, code));
        cases.push(("/scan_history".to_owned(), list(rest), 400, code));
    }
    for (path, body, status, code) in cases {
        let (got, error) = daemon.post(&path, &body).await;
        assert_eq!(
            (got, error["code"].as_str().unwrap()),
            (status, code),
            "{path} {body} {error}"
        );
        if code == "invalid_range" && !body.contains("blocks_back") {
            assert!(
                error["error"].as_str().unwrap().contains("height 100"),
                "it names the tip: {error}"
            );
        }
    }
    for id in [
        "0123456789abcdef",
        "0123456789ABCDEF",
        "x",
        "",
        "%00",
        "00112233445566778",
        "../status",
    ] {
        let path = format!("/scans/{}", id.replace('/', "%2F"));
        assert_eq!(
            daemon.get(&path).await,
            (404, daemon.delete(&path).await.1),
            "{id}"
        );
        assert_eq!(daemon.get(&path).await.1["code"], "no_such_scan", "{id}");
    }
    assert_eq!(
        (
            daemon.open_scans(),
            daemon.reader.snapshot().head().unwrap()
        ),
        (0, head)
    );
    assert_eq!(
        daemon.get(&format!("/balance/{known}")).await.1["coverage"],
        before
    );
}

#[tokio::test]
async fn before_the_first_block_there_is_nothing_to_scan() {
    let (daemon, dispatch) = Daemon::on(StoreFolder::new(), config::Config::default());
    tokio::spawn(dispatch.run(daemon.stop.clone()));
    let mine = daemon.watch_from_now(1).await;
    let (status, error) = daemon.post(&format!("/scan_history/{mine}"), "").await;
    assert_eq!((status, &error["code"]), (503, &json!("not_ready")));
    let body = json!({"address": address(2).to_string(), "history": {"from_height": 0}});
    let (status, error) = daemon.post("/add_address", &body.to_string()).await;
    assert_eq!((status, &error["code"]), (503, &json!("not_ready")));
    assert_eq!(daemon.reader.snapshot().counts().unwrap().addresses, 1);
}

#[tokio::test]
async fn an_address_is_added_with_its_history() {
    let daemon = Daemon::start().await;
    let body =
        json!({"address": address(1).to_string(), "label": "old", "history": {"from_height": 7}});
    let (status, added) = daemon.post("/add_address", &body.to_string()).await;
    assert_eq!(
        (status, &added["label"], &added["coverage"]["pending"]),
        (200, &json!("old"), &json!(true))
    );
    let (_, scan) = daemon
        .get(&format!("/scans/{}", added["scan_id"].as_str().unwrap()))
        .await;
    assert_eq!(
        (&scan["from_height"], &scan["address"]),
        (&json!(7), &json!(address(1).to_string()))
    );
    assert_eq!(daemon.reader.snapshot().pending_baselines().count(), 1);

    let texts: Vec<_> = (2..=30).map(|n| address(n).to_string()).collect();
    let body = json!({"addresses": texts, "history": {"from_height": 0}});
    let (status, added) = daemon.post("/add_addresses", &body.to_string()).await;
    assert_eq!((status, &added["added"]), (200, &json!(29)));
    let (_, scan) = daemon
        .get(&format!("/scans/{}", added["scan_id"].as_str().unwrap()))
        .await;
    assert_eq!(
        (&scan["from_height"], &scan["address_count"]),
        (&json!(0), &json!(29))
    );
    assert_eq!(daemon.open_scans(), 2);
    let (_, plain) = daemon
        .post(
            "/add_address",
            &json!({"address": address(31).to_string()}).to_string(),
        )
        .await;
    assert!(plain.get("scan_id").is_none(), "{plain}");
}

#[tokio::test]
async fn a_history_that_is_refused_adds_no_address() {
    let daemon = Daemon::start().await;
    for (from, code) in [
        (json!(101), "invalid_range"),
        (json!(u32::MAX), "invalid_range"),
        (json!(-1), "invalid_field"),
        (json!(0.5), "invalid_field"),
        (json!("0"), "invalid_field"),
        (Value::Null, "invalid_field"),
    ] {
        let history = json!({ "from_height": from });
        let one = json!({"address": address(1).to_string(), "history": history});
        let many = json!({"addresses": [address(1).to_string(), address(2).to_string()], "history": history});
        for (path, body) in [("/add_address", one), ("/add_addresses", many)] {
            let (status, error) = daemon.post(path, &body.to_string()).await;
            assert_eq!(
                (status, error["code"].as_str().unwrap()),
                (400, code),
                "{path} {body} {error}"
            );
        }
    }
    assert_eq!(
        (
            daemon.reader.snapshot().counts().unwrap().addresses,
            daemon.open_scans()
        ),
        (0, 0)
    );
}

#[tokio::test]
async fn open_scans_are_bounded_and_the_newest_are_listed_first() {
    let daemon = Daemon::start().await;
    let mine = daemon.watch_from_now(1).await;
    for n in 0..10_000_u64 {
        // Nobody waits for each: they are committed many at a time.
        let open = Input::OpenScan {
            scan: ScanId(n),
            scripts: vec![script(1)],
            from: 0,
            to: None,
            now: NOW + n % 7,
        };
        daemon.indexer.post(open).await.unwrap();
    }
    daemon
        .apply(Input::EvictMissing {
            spared: Vec::new(),
            now: NOW,
        })
        .await;
    assert_eq!(daemon.open_scans(), 10_000);
    let add = json!({"address": address(2).to_string(), "history": {"from_height": 0}}).to_string();
    for (path, body) in [
        (format!("/scan_history/{mine}"), "{}"),
        ("/add_address".to_owned(), add.as_str()),
    ] {
        let request = Request::post(&path)
            .header("host", "localhost")
            .header("content-type", "application/json");
        let (status, headers, error) = daemon
            .request(request.body(Full::from(body.to_owned())).unwrap())
            .await;
        assert_eq!(status, 429, "{error}");
        assert!(
            error.contains("too_many_scans") && headers.contains_key("retry-after"),
            "{error}"
        );
    }
    assert_eq!(daemon.reader.snapshot().counts().unwrap().addresses, 1);
    assert_eq!(daemon.delete("/scans/0000000000000006").await.0, 200);
    let new = daemon.scan(1, json!({})).await;
    let (_, listed) = daemon.get("/scans").await;
    assert_eq!(
        (&listed["count"], &listed["scans"][0]["scan_id"]),
        (&json!(1000), &json!(new.to_string()))
    );
    let created: Vec<f64> = listed["scans"]
        .as_array()
        .unwrap()
        .iter()
        .map(|scan| scan["created"].as_f64().unwrap())
        .collect();
    assert!(created.is_sorted_by(|a, b| a >= b));
    let (_, status) = daemon.get("/status").await;
    assert_eq!(
        (
            status["scans"].as_array().unwrap().len(),
            &status["scan_count"]
        ),
        (100, &json!(10_000))
    );
}

#[tokio::test]
async fn open_scans_come_before_newer_ones_that_have_ended() {
    let daemon = Daemon::start().await;
    daemon.watch_from_now(1).await;
    for (scan, now) in [(ScanId(1), NOW), (ScanId(2), NOW + 5)] {
        daemon
            .apply(Input::OpenScan {
                scan,
                scripts: vec![script(1)],
                from: 0,
                to: None,
                now,
            })
            .await;
    }
    daemon
        .apply(Input::CloseScan {
            scan: ScanId(2),
            end: ScanEnd::Cancelled(None),
            now: NOW + 6,
        })
        .await;
    let (_, listed) = daemon.get("/scans").await;
    let ids: Vec<_> = listed["scans"]
        .as_array()
        .unwrap()
        .iter()
        .map(id_of)
        .collect();
    assert_eq!(ids, [ScanId(1), ScanId(2)]);
    assert_eq!(listed["scans"][1]["status"], "cancelled");
}

#[tokio::test]
async fn routes_of_scans_say_what_they_take_and_how_new_they_are() {
    let daemon = Daemon::start().await;
    let mine = daemon.watch_from_now(1).await;
    let scan = daemon.scan(1, json!({})).await;
    let ask = async |method: &str, path: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .body(Full::default())
            .unwrap();
        daemon.request(request).await
    };
    for (path, allow) in [
        (format!("/scan_history/{mine}"), "POST, OPTIONS"),
        ("/scan_history".to_owned(), "POST, OPTIONS"),
        ("/scans".to_owned(), "GET, HEAD, OPTIONS"),
        (format!("/scans/{scan}"), "GET, HEAD, DELETE, OPTIONS"),
        (format!("/audit/{mine}"), "POST, OPTIONS"),
        (format!("/addresses/{mine}"), "PATCH, DELETE, OPTIONS"),
    ] {
        let (status, headers, _) = ask("OPTIONS", &path).await;
        assert_eq!(
            (status.as_u16(), headers["allow"].to_str().unwrap()),
            (204, allow),
            "{path}"
        );
        let (status, headers, _) = ask("PUT", &path).await;
        assert_eq!(
            (status.as_u16(), headers["allow"].to_str().unwrap()),
            (405, allow),
            "{path}"
        );
    }
    for path in ["/scans".to_owned(), format!("/scans/{scan}")] {
        let (status, headers, body) = ask("GET", &path).await;
        let (head, head_headers, nothing) = ask("HEAD", &path).await;
        assert_eq!(
            (status.as_u16(), head.as_u16(), nothing.as_str()),
            (200, 200, ""),
            "{path}"
        );
        assert_eq!(head_headers["content-length"], body.len().to_string());
        assert!(headers.contains_key("satwatch-cursor"));
    }
}

/// What a scan found is in the histories, and no event but its end says so.
#[tokio::test]
async fn what_a_scan_finds_is_history_and_no_news() {
    let daemon = Daemon::start().await;
    let mine = daemon.watch_from_now(1).await;
    let scan = daemon.scan(1, json!({"from_height": 40})).await;
    daemon.merge_baseline(&[1]).await;
    let head = daemon.reader.snapshot().head().unwrap();
    let paying = spend(
        OutPoint {
            txid: Txid::from_byte_array([5; 32]),
            vout: 0,
        },
        address(1).script_pubkey(),
        700,
    );
    let spending = spend(
        OutPoint {
            txid: paying.compute_txid(),
            vout: 0,
        },
        address(2).script_pubkey(),
        600,
    );
    let past = |position, tx: &Transaction| crate::tracker::input::ScannedTx {
        position,
        tx: tx.clone(),
        spent: Vec::new(),
    };
    let block = BlockId {
        height: 50,
        hash: BlockHash::from_byte_array([50; 32]),
    };
    let found = crate::tracker::input::ScannedBlock {
        block,
        time: 1_500_000_000,
        transactions: vec![past(1, &paying), past(2, &spending)],
    };
    let scripts = vec![Arc::new([script(1)].into())];
    let upto = daemon.tip();
    daemon
        .apply(Input::ScanBlocks {
            scans: vec![scan],
            scripts,
            first: 40,
            blocks: vec![found],
            upto,
            now: NOW,
        })
        .await;
    daemon
        .apply(Input::CloseScan {
            scan,
            end: ScanEnd::Complete(upto),
            now: NOW,
        })
        .await;
    let (_, page) = daemon.get(&format!("/transactions/{mine}")).await;
    assert_eq!(
        (&page["total"], &page["coverage"]["from_height"]),
        (&json!(2), &json!(40))
    );
    assert_eq!(
        page["transactions"][1]["txid"],
        paying.compute_txid().to_string()
    );
    assert_eq!(
        (
            &page["transactions"][0]["sent"],
            &page["transactions"][1]["received"]
        ),
        (&json!(700), &json!(700))
    );
    assert_eq!(page["transactions"][0]["block_time"], 1_500_000_000.0);
    assert_eq!(
        daemon.get(&format!("/scans/{scan}")).await.1["transactions"],
        2
    );
    let events = daemon.reader.read_events(head, 100).unwrap();
    assert!(
        matches!(events.as_slice(), [(_, only)] if matches!(only.kind, crate::tracker::EventKind::ScanComplete { transactions: 2, .. })),
        "{events:?}"
    );
}
