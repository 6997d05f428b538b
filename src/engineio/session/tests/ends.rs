//! The last answer of a polling session that its client ends: by its close packet or by an error.

use super::*;

/// What the driver does with each message in these tests: it sends it back at once, as far as the
/// machine takes it.
fn echoed(rig: &mut Rig) -> Vec<String> {
    let mut seen = Vec::new();
    let mut outbox = VecDeque::new();
    loop {
        while rig.session.wants_message()
            && let Some(message) = outbox.pop_front()
        {
            rig.session.send(MessageGroup::One(message));
        }
        match rig.session.next_output(rig.now) {
            Some(Output::Deliver(message)) => outbox.push_back(message),
            Some(output) => seen.push(shown(&output)),
            None => return seen,
        }
    }
}

fn posted(rig: &mut Rig, body: &str) -> Vec<String> {
    assert_eq!(rig.session.post_opened(rig.now, false), Ok(()));
    rig.session
        .post_body(rig.now, Bytes::copy_from_slice(body.as_bytes()));
    echoed(rig)
}

#[test]
fn a_waiting_poll_gets_what_answers_the_packets_before_the_end() {
    for (body, seen) in [
        ("4a\x1ex", ["closed parse error", "poll 4a", "post Bad"]),
        (
            "4a\x1e4b\x1e2",
            ["closed transport error", "poll 4a|4b", "post Bad"],
        ),
        ("4a\x1e1", ["closed transport close", "poll 4a", "post Ok"]),
        (
            "4a\x1e1\x1e4b",
            ["closed transport close", "poll 4a", "post Ok"],
        ),
        ("x", ["closed parse error", "poll 400", "post Bad"]),
        ("1", ["closed transport close", "poll 6", "post Ok"]),
    ] {
        let mut rig = Rig::polling();
        assert!(rig.poll());
        assert_eq!(posted(&mut rig, body), seen, "{body:?}");
        assert!(!rig.poll());
    }
}

#[test]
fn so_does_one_of_revision_3() {
    const THREE: Encoding = Encoding::Three { base64: true };
    for (body, seen) in [
        (
            "2:4a1:3",
            ["closed transport error", "poll 2:4a", "post Bad"],
        ),
        (
            "2:4a1:1",
            ["closed transport close", "poll 2:4a", "post Ok"],
        ),
        ("1:21:1", ["closed transport close", "poll 1:3", "post Ok"]),
    ] {
        let mut rig = Rig::polling_in(THREE);
        assert!(rig.poll());
        assert_eq!(posted(&mut rig, body), seen, "{body:?}");
    }
}

#[test]
fn the_last_answer_is_one_answer() {
    let mut rig = Rig::polling();
    assert!(rig.poll());
    let body: Vec<String> = (0..40)
        .map(|_| "4".to_owned())
        .chain(["x".to_owned()])
        .collect();
    let sixteen = format!("poll {}", ["4"; 16].join("|"));
    assert_eq!(
        posted(&mut rig, &body.join("\x1e")),
        ["closed parse error".into(), sixteen, "post Bad".into()]
    );

    // Beyond the 100 bytes that an answer may have here.
    let mut rig = Rig::polling();
    assert!(rig.poll());
    let long = format!("4{}", "x".repeat(70));
    assert_eq!(
        posted(
            &mut rig,
            &[&long, &long, "1"].map(String::from).join("\x1e")
        ),
        [
            "closed transport close".into(),
            format!("poll {long}"),
            "post Ok".into()
        ]
    );
}

#[test]
fn close_of_the_client_answers_a_poll_that_crosses_it_too() {
    let mut rig = Rig::polling();
    let mut seen = vec![];
    assert_eq!(rig.session.post_opened(rig.now, false), Ok(()));
    rig.session
        .post_body(rig.now, Bytes::from_static(b"4a\x1e1"));
    while let Some(output) = rig.session.next_output(rig.now) {
        assert!(!rig.session.wants_message(), "nobody waits for it");
        seen.push(shown(&output));
    }
    assert_eq!(seen, ["deliver a"]);
    assert!(rig.poll());
    assert!(rig.session.wants_message());
    rig.send("a");
    assert_eq!(rig.out(), ["closed transport close", "poll 4a", "post Ok"]);
}

#[test]
fn work_before_the_end_is_done_and_answered() {
    for (body, last) in [
        ("4work\x1ex", "closed parse error"),
        ("4work\x1e1", "closed transport close"),
    ] {
        let mut rig = Rig::polling();
        assert!(rig.poll());
        assert_eq!(rig.session.post_opened(rig.now, false), Ok(()));
        rig.session
            .post_body(rig.now, Bytes::copy_from_slice(body.as_bytes()));
        assert_eq!(
            rig.session.next_output(rig.now),
            Some(Output::Deliver(Message::text("work")))
        );
        rig.session.pause();
        assert_eq!(rig.out(), ["post Ok"]);
        rig.session.resume(rig.now);
        rig.send("worked");
        assert_eq!(rig.out(), [last, "poll 4worked"]);
    }
}

#[test]
fn a_client_that_is_given_up_gets_nothing_of_it() {
    for reason in [CloseReason::SlowConsumer, CloseReason::PingTimeout] {
        let mut rig = Rig::polling();
        assert!(rig.poll());
        rig.send("a");
        rig.session.abandon(reason);
        assert_eq!(rig.out(), [format!("closed {reason}"), "poll 400".into()]);
    }
}
