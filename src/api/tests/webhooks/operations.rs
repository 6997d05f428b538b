//! What happens to a webhook and what people do about it: 410, test, retry, resend, the last
//! attempts, and for how long events fail.

use super::*;
use crate::store::{ConsumerEdit, Delivery, Failing};

impl Daemon {
    async fn act(&self, what: &str) -> (u16, Value) {
        self.post(&format!("/consumers/shop/{what}"), "").await
    }

    async fn until_state(&self, state: &str) -> Value {
        until(state, async || self.webhook("shop").await["state"] == state).await;
        self.webhook("shop").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_410_stops_a_webhook_until_retry_or_put_resumes_it_also_across_restarts() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(410, ANY).await);
    daemon.add(1).await;
    daemon.define("shop", json!({ "url": receiver.url })).await;
    daemon.pay(&address(1), 5_000, 1).await;
    let webhook = daemon.until_state("stopped").await;
    let reason = webhook["stopped"]["reason"].as_str().unwrap();
    assert!(reason.contains("410 Gone"), "{webhook}");
    assert!(webhook["stopped"]["since"].is_f64(), "{webhook}");
    assert_eq!(webhook["attempts"][0]["status"], 410, "{webhook}");
    assert_eq!(
        daemon.act("dead_letters/resend").await.1["code"],
        "webhook_stopped"
    );

    let daemon = daemon.restarted(settings(1)).await;
    daemon.pay(&address(1), 6_000, 2).await;
    let log = daemon.cursors_of(1).await;
    until("all events wait", async || {
        daemon.webhook("shop").await["pending"] == log.len()
    })
    .await;
    let webhook = daemon.until_state("stopped").await;
    assert_eq!(
        (&webhook["in_flight"], &webhook["next_attempt"]),
        (&json!(0), &Value::Null)
    );
    assert_eq!(receiver.cursors().len(), 1, "nothing was posted since");

    let (status, answer) = daemon.act("retry").await;
    assert_eq!(
        (status, &answer["count"]),
        (202, &json!(log.len())),
        "{answer}"
    );
    assert!(
        answer["message"].as_str().unwrap().contains("stopped"),
        "{answer}"
    );
    until("it says 410 again", async || receiver.cursors().len() == 2).await;
    daemon.until_state("stopped").await;
    assert_eq!(
        daemon
            .define("shop", json!({ "url": receiver.url }))
            .await
            .0,
        200
    );
    until("the same definition resumes it", async || {
        receiver.cursors().len() == 3
    })
    .await;
    daemon.until_state("stopped").await;
    receiver.status.store(200, Ordering::SeqCst);
    let (_, changed) = daemon
        .define("shop", json!({ "url": format!("{}new", receiver.url) }))
        .await;
    assert_eq!(changed["webhook"]["stopped"], Value::Null, "{changed}");
    until("everything has come", async || {
        receiver.cursors().len() == 3 + log.len()
    })
    .await;
    assert_eq!(receiver.cursors()[3..], log);
    assert_eq!(daemon.reader.stopped("shop").unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn case_13_retry_sends_what_waits_now_and_resend_says_that_there_is_nothing() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(503, ANY).await);
    *receiver.answer.lock().unwrap() = ("retry-after: 3600\r\n", "closed");
    daemon.add(1).await;
    daemon.define("shop", json!({ "url": receiver.url })).await;
    let (status, nothing) = daemon.act("retry").await;
    assert_eq!((status, &nothing["count"]), (200, &json!(0)), "{nothing}");
    assert!(
        nothing["message"]
            .as_str()
            .unwrap()
            .contains("Nothing waits"),
        "{nothing}"
    );
    daemon.pay(&address(1), 5_000, 1).await;
    let webhook = daemon.until_state("failing").await;
    let now = crate::clock::now_ms() as f64 / 1000.0;
    assert!(
        webhook["next_attempt"].as_f64() > Some(now + 3000.0),
        "{webhook}"
    );

    let (status, resent) = daemon.act("dead_letters/resend").await;
    assert_eq!((status, &resent["count"]), (200, &json!(0)), "{resent}");
    let message = resent["message"].as_str().unwrap();
    assert!(message.contains("no dead letters"), "{message}");
    assert_eq!(receiver.cursors().len(), 1);

    receiver.status.store(200, Ordering::SeqCst);
    assert!(message.contains("POST /consumers/shop/retry"), "{message}");
    let (status, retried) = daemon.act("retry").await;
    assert_eq!((status, &retried["count"]), (202, &json!(2)), "{retried}");
    let log = daemon.cursors_of(1).await;
    until("both come, an hour early", async || {
        receiver.cursors().len() == 3
    })
    .await;
    assert_eq!(receiver.cursors()[1..], log);
    daemon.until_state("waiting").await;

    daemon.define("shop", json!({})).await;
    for what in ["retry", "test", "dead_letters/resend"] {
        let (status, body) = daemon.act(what).await;
        assert_eq!(
            (status, &body["code"]),
            (409, &json!("no_webhook")),
            "{what}"
        );
        let (_, body) = daemon.post(&format!("/consumers/none/{what}"), "").await;
        assert_eq!(body["code"], "no_such_consumer", "{what}");
    }
    assert_eq!(daemon.get("/consumers/shop/test").await.0, 405);
    assert_eq!(daemon.post("/consumers/shop/test?x=1", "").await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn case_13_a_test_delivery_tells_its_answer_and_changes_nothing() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(200, ANY).await);
    *receiver.answer.lock().unwrap() = ("", "thank\nyou");
    daemon.define("shop", json!({ "url": receiver.url })).await;
    let (_, before) = daemon.get("/consumers/shop").await;
    let (status, tested) = daemon.act("test").await;
    assert_eq!(status, 200, "{tested}");
    assert_eq!(
        (
            &tested["delivered"],
            &tested["status"],
            &tested["answer"],
            &tested["error"]
        ),
        (&json!(true), &json!(200), &json!("thank you"), &Value::Null)
    );
    assert!(
        tested["duration"].is_f64() && tested["time"].is_f64(),
        "{tested}"
    );
    let body = receiver.bodies.lock().unwrap()[0].clone();
    assert_eq!(
        (&body["consumer"], &body["event"], &body["cursor"]),
        (&json!("shop"), &json!("test"), &Value::Null)
    );
    receiver.status.store(410, Ordering::SeqCst);
    let (_, refused) = daemon.act("test").await;
    assert_eq!(
        (&refused["delivered"], &refused["status"]),
        (&json!(false), &json!(410))
    );
    assert!(
        refused["message"].as_str().unwrap().contains("410 Gone"),
        "{refused}"
    );
    let ids = [&tested["webhook_id"], &refused["webhook_id"]];
    assert_ne!(ids[0], ids[1], "random");
    assert!(
        ids[0].as_str().unwrap().starts_with("shop_test_"),
        "{tested}"
    );
    let (_, after) = daemon.get("/consumers/shop").await;
    assert_eq!(after["webhook"], before["webhook"], "a test stops nothing");
    assert_eq!(after["head"], before["head"], "it is not in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_ten_attempts_are_shown_with_their_answers_newest_first() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(200, ANY).await);
    let long: &'static str = "x".repeat(5_000).leak();
    *receiver.answer.lock().unwrap() = ("", long);
    daemon.add(1).await;
    daemon.define("shop", json!({ "url": receiver.url })).await;
    for n in 1..=6 {
        daemon.pay(&address(1), 5_000 + u64::from(n), n).await;
    }
    until("all have come", async || receiver.cursors().len() == 12).await;
    let webhook = daemon.until_state("waiting").await;
    let attempts = webhook["attempts"].as_array().unwrap();
    let ids: Vec<_> = attempts.iter().map(|it| it["webhook_id"].clone()).collect();
    let log = daemon.cursors_of(1).await;
    let expected: Vec<_> = log
        .iter()
        .rev()
        .take(10)
        .map(|it| json!(format!("shop_{it}")))
        .collect();
    assert_eq!(ids, expected);
    for attempt in attempts {
        assert_eq!(
            (&attempt["status"], &attempt["error"]),
            (&json!(200), &Value::Null)
        );
        assert_eq!(
            attempt["answer"].as_str().map(str::len),
            Some(200),
            "bounded"
        );
    }
    let (_, list) = daemon.get("/consumers").await;
    assert!(
        list["consumers"][0]["webhook"]["attempts"].is_null(),
        "not in the list"
    );
}

/// Of events, or of dead letters that are sent again.
fn failing_rows(daemon: &Daemon, resend: bool) -> Vec<(u64, Failing)> {
    let rows = daemon.reader.failing("shop").unwrap().into_iter();
    rows.filter(|(delivery, _)| delivery.resend == resend)
        .map(|(delivery, row)| (delivery.number, row))
        .collect()
}

impl Daemon {
    /// The row of the one event that fails.
    async fn failing_row(&self, resend: bool) -> (u64, Failing) {
        let rows = || failing_rows(self, resend);
        until("it failed", async || !rows().is_empty()).await;
        rows()[0]
    }
}

impl Receiver {
    /// What a killed daemon had in flight is gone here, too.
    async fn until_idle(&self) {
        until("its attempts have ended", async || {
            self.open.load(Ordering::SeqCst) == 0
        })
        .await;
    }
}

/// One answer at a time, so that nothing here depends on how long anything takes.
#[tokio::test(flavor = "multi_thread")]
async fn give_up_counts_from_the_first_failure_also_across_restarts() {
    const GIVE_UP: u64 = 1_000;
    let settings = config::Webhooks {
        timeout: 600,
        ..settings(GIVE_UP)
    };
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(500, 1).await);
    let daemon = daemon.restarted(settings.clone()).await;
    daemon.add(1).await;
    daemon.define("shop", json!({ "url": receiver.url })).await;
    daemon.pay(&address(1), 5_000, 1).await;
    let (number, mut failing) = daemon.failing_row(false).await;
    assert_eq!(failing.attempts, 1);
    failing.first_failed -= GIVE_UP * 1_000;
    let resend = false;
    let earlier = ConsumerEdit::Failing(Delivery { resend, number }, failing);
    let consumer = daemon.services.consumers.get("shop").unwrap();
    let written = consumer.edit(vec![earlier]).await;
    assert_eq!(written, Ok(true));
    drop(consumer);
    let daemon = daemon.restarted(settings.clone()).await;
    receiver.until_idle().await;
    receiver.gate.add_permits(1);
    until(
        "the first failure after the restart is the last",
        async || daemon.webhook("shop").await["dead_letters"] == 1,
    )
    .await;
    let (_, list) = daemon.get("/consumers/shop/dead_letters").await;
    let letter = &list["dead_letters"][0];
    assert_eq!(
        letter["first_failed"],
        json!(failing.first_failed as f64 / 1000.0),
        "{letter}"
    );
    assert_eq!(
        letter["attempts"], 2,
        "that before the restart counts, too: {letter}"
    );

    // Asked for again, it has its time once more, and that outlives restarts, too. The event behind
    // it is in flight before it.
    let (status, _) = daemon.act("dead_letters/resend").await;
    assert_eq!(status, 202);
    receiver.gate.add_permits(2);
    let (_, again) = daemon.failing_row(true).await;
    assert!(again.first_failed > failing.first_failed);
    let daemon = daemon.restarted(settings).await;
    receiver.until_idle().await;
    receiver.gate.add_permits(ANY);
    until("it is tried after the restart", async || {
        daemon.failing_row(true).await.1.attempts > again.attempts
    })
    .await;
    let (_, now) = daemon.failing_row(true).await;
    assert_eq!(now.first_failed, again.first_failed);
    receiver.status.store(200, Ordering::SeqCst);
    daemon.act("retry").await;
    until("everything has come", async || {
        let webhook = daemon.webhook("shop").await;
        webhook["dead_letters"] == 0 && webhook["state"] == "waiting"
    })
    .await;
    for resend in [false, true] {
        let left = failing_rows(&daemon, resend);
        assert_eq!(left, [], "no rows are left behind");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_url_gets_its_own_time_before_events_are_given_up() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(500, 1).await);
    let settings = config::Webhooks {
        timeout: 600,
        ..settings(1_000)
    };
    let daemon = daemon.restarted(settings).await;
    daemon.add(1).await;
    daemon.define("shop", json!({ "url": receiver.url })).await;
    daemon.pay(&address(1), 5_000, 1).await;
    let (number, _) = daemon.failing_row(false).await;
    let same_url = json!({ "url": receiver.url, "blocks": true });
    daemon.define("shop", same_url).await;
    assert_eq!(daemon.failing_row(false).await.0, number, "it stays");
    // This one never answers.
    let silent = Receiver::start(200, 0).await;
    let (status, _) = daemon.define("shop", json!({ "url": silent.url })).await;
    assert_eq!(status, 200);
    assert_eq!(failing_rows(&daemon, false), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_right_after_a_start_resumes_a_webhook_that_was_stopped_before() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(410, ANY).await);
    let definition = json!({ "url": receiver.url });
    daemon.add(1).await;
    daemon.define("shop", definition.clone()).await;
    daemon.pay(&address(1), 5_000, 1).await;
    daemon.until_state("stopped").await;
    receiver.status.store(200, Ordering::SeqCst);
    let daemon = daemon.restarted(settings(1)).await;
    let (status, same) = daemon.define("shop", definition).await;
    assert_eq!(
        (status, &same["webhook"]["stopped"]),
        (200, &Value::Null),
        "{same}"
    );
    let log = daemon.cursors_of(1).await;
    until("everything has come", async || {
        receiver.cursors().len() == 1 + log.len()
    })
    .await;
    assert_eq!(daemon.reader.stopped("shop").unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_test_delivery_of_a_consumer_at_a_time() {
    let (daemon, receiver) = (Daemon::posting().await, Receiver::start(200, 0).await);
    daemon.define("shop", json!({ "url": receiver.url })).await;
    let ((first, _), _) = tokio::join!(daemon.act("test"), async {
        until("it is on its way", async || {
            receiver.open.load(Ordering::SeqCst) == 1
        })
        .await;
        let (status, refused) = daemon.act("test").await;
        assert_eq!(
            (status, &refused["code"]),
            (429, &json!("too_many_requests"))
        );
        receiver.gate.add_permits(ANY);
    });
    assert_eq!((first, daemon.act("test").await.0), (200, 200));
}
