//! `POST /audit`: who may ask, and what becomes of the question. The node's side is played.

use std::future::poll_fn;
use std::task::Poll;

use serde_json::json;

use super::*;
use crate::bitcoind::{NodeError, NodeErrorKind};
use crate::history::{Audit, AuditRequest, Audited};
use crate::tracker::input::FoundOutput;
use crate::tracker::{Coverage, OutputRow};

/// Beside a node that answers.
async fn daemon() -> Daemon {
    let daemon = Daemon::start().await;
    daemon.node.send_modify(|node| node.available = true);
    daemon.watch_from_now(1).await;
    daemon
}

fn path() -> String {
    format!("/audit/{}", address(1))
}

impl Daemon {
    fn nothing(&self) -> Audited {
        let coverage = Some(Coverage {
            from_height: 5,
            utxos_complete: true,
            pending: false,
            ..Coverage::default()
        });
        Audited {
            block: self.tip(),
            head: 0,
            coverage,
            is_in_scan: false,
            ours: Vec::new(),
            theirs: Vec::new(),
        }
    }

    async fn refused(&self) -> (u16, String, Option<String>) {
        let request = Request::post(path())
            .header("host", "localhost")
            .body(Full::default())
            .unwrap();
        let (status, headers, body) = self.request(request).await;
        let error: Value = serde_json::from_str(&body).unwrap();
        let retry_after = headers
            .get("retry-after")
            .map(|value| value.to_str().unwrap().to_owned());
        (
            status.as_u16(),
            error["code"].as_str().unwrap_or_default().to_owned(),
            retry_after,
        )
    }
}

#[tokio::test]
async fn both_sides_are_compared_at_one_block() {
    let mut daemon = daemon().await;
    let (mut audits, answer) = (
        std::mem::replace(&mut daemon.audits, mpsc::channel(1).1),
        daemon.nothing(),
    );
    let place = OutPoint {
        txid: Txid::from_byte_array([7; 32]),
        vout: 1,
    };
    let script = super::scans::script(1);
    let row = OutputRow {
        script,
        value: 900,
        height: Some(99),
        coinbase: true,
        spent: None,
        earlier: Vec::new(),
    };
    let found = FoundOutput {
        outpoint: place,
        spk: ScriptBuf::new(),
        value: Amount::from_sat(900),
        height: 99,
        coinbase: true,
    };
    let answers = [
        answer.clone(),
        Audited {
            ours: vec![(place, row.clone())],
            theirs: vec![found.clone()],
            ..answer.clone()
        },
        Audited {
            theirs: vec![found],
            coverage: Some(Coverage::default()),
            ..answer.clone()
        },
        Audited {
            ours: vec![(place, row)],
            ..answer
        },
    ];
    tokio::spawn(async move {
        for answer in answers {
            let AuditRequest { of, answer: asked } = audits.recv().await.unwrap();
            assert_eq!(of, Audit::Script(address(1).script_pubkey()));
            asked.send(Ok(answer)).unwrap();
        }
    });
    for (agrees, ours, node, missing, extra) in [
        (true, 0, 0, 0, 0),
        (true, 900, 900, 0, 0),
        (false, 0, 900, 1, 0),
        (false, 900, 0, 0, 1),
    ] {
        let (status, audit) = daemon.post(&path(), "").await;
        assert_eq!(
            (status, &audit["agrees"], &audit["block"]["height"]),
            (200, &json!(agrees), &json!(100)),
            "{audit}"
        );
        assert_eq!(
            (&audit["ours"]["total"], &audit["node"]["total"]),
            (&json!(ours), &json!(node)),
            "{audit}"
        );
        let lengths =
            ["missing", "extra", "different"].map(|name| audit[name].as_array().unwrap().len());
        assert_eq!(lengths, [missing, extra, 0], "{audit}");
    }
}

#[tokio::test]
async fn an_address_that_is_not_watched_is_no_reason_to_ask_the_node() {
    let daemon = daemon().await;
    assert_eq!(
        daemon.post(&format!("/audit/{}", address(2)), "").await.1["code"],
        "not_watched"
    );
    assert_eq!(
        daemon.post("/audit/nonsense", "").await.1["code"],
        "invalid_address"
    );
    assert!(daemon.audits.is_empty());
}

#[tokio::test]
async fn one_runs_at_a_time_and_who_hangs_up_makes_room() {
    let mut daemon = daemon().await;
    let router = daemon.router.clone();
    let request = Request::post(path())
        .header("host", "localhost")
        .body(Full::<Bytes>::default())
        .unwrap();
    let mut asking = Box::pin(router.handle(request, PEER));
    let mut asked = loop {
        assert!(
            poll_fn(|context| Poll::Ready(asking.as_mut().poll(context)))
                .await
                .is_pending()
        );
        tokio::task::yield_now().await;
        if let Ok(asked) = daemon.audits.try_recv() {
            break asked;
        }
    };
    let (status, code, retry_after) = daemon.refused().await;
    assert_eq!(
        (status, code.as_str(), retry_after.as_deref()),
        (429, "too_many_requests", Some("10"))
    );
    assert!(!asked.answer.is_closed());
    drop(asking);
    asked.answer.closed().await;
    let answer = daemon.nothing();
    let mut audits = std::mem::replace(&mut daemon.audits, mpsc::channel(1).1);
    tokio::spawn(async move { audits.recv().await.unwrap().answer.send(Ok(answer)) });
    assert_eq!(daemon.post(&path(), "").await.0, 200);
}

#[tokio::test]
async fn without_the_node_nobody_is_asked_and_its_errors_are_told() {
    let mut daemon = daemon().await;
    let mut audits = std::mem::replace(&mut daemon.audits, mpsc::channel(1).1);
    daemon.node.send_modify(|node| {
        (node.available, node.error) = (false, Some("cannot reach bitcoind".to_owned()))
    });
    let (status, error) = daemon.post(&path(), "").await;
    assert_eq!(
        (status, &error["code"], &error["error"]),
        (
            503,
            &json!("node_unavailable"),
            &json!("Cannot reach bitcoind.")
        )
    );
    assert!(audits.try_recv().is_err());
    daemon.node.send_modify(|node| node.available = true);
    tokio::spawn(async move {
        let failed = NodeError::new(NodeErrorKind::TimedOut, "bitcoind did not answer");
        audits
            .recv()
            .await
            .unwrap()
            .answer
            .send(Err(failed))
            .unwrap();
        // And then its side ends.
    });
    let (status, error) = daemon.post(&path(), "").await;
    assert_eq!(
        (status, &error["code"], &error["error"]),
        (
            503,
            &json!("node_unavailable"),
            &json!("Bitcoind did not answer.")
        )
    );
    assert_eq!(daemon.refused().await.1, "stopping");
}

#[tokio::test]
async fn a_daemon_that_stops_does_not_wait_for_the_node() {
    let mut daemon = daemon().await;
    let mut audits = std::mem::replace(&mut daemon.audits, mpsc::channel(1).1);
    let path = path();
    let (answer, _asked) = tokio::join!(daemon.post(&path, ""), async {
        let asked = audits.recv().await;
        daemon.stop.cancel();
        asked
    });
    assert_eq!((answer.0, &answer.1["code"]), (503, &json!("stopping")));
}

#[tokio::test]
async fn an_address_that_is_taken_off_the_list_meanwhile_is_not_watched() {
    let mut daemon = daemon().await;
    let answer = Audited {
        coverage: None,
        ..daemon.nothing()
    };
    let mut audits = std::mem::replace(&mut daemon.audits, mpsc::channel(1).1);
    tokio::spawn(async move { audits.recv().await.unwrap().answer.send(Ok(answer)) });
    assert_eq!(daemon.post(&path(), "").await.1["code"], "not_watched");
}
