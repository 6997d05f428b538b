//! A session that polls.

use super::*;

#[test]
fn a_poll_waits_for_packets_and_takes_all_of_them() {
    let mut rig = Rig::polling();
    assert!(
        !rig.session.wants_message(),
        "nothing is taken from the outbox while no poll waits"
    );
    assert!(rig.poll());
    assert_eq!(rig.out(), [""; 0]);
    assert!(rig.session.wants_message());
    rig.send("a");
    rig.session
        .send(MessageGroup::One(Message::Binary(Bytes::from_static(&[
            1, 2, 3, 4,
        ]))));
    assert_eq!(rig.out(), ["poll 4a|bAQIDBA=="]);
    assert!(!rig.session.wants_message());
}

#[test]
fn an_answer_is_bounded_and_the_rest_comes_with_the_next_one() {
    let mut rig = Rig::polling();
    rig.poll();
    let group: Vec<_> = (0..20).map(|_| Message::text("x")).collect();
    rig.session.send(MessageGroup::Many(group.into()));
    assert!(
        !rig.session.wants_message(),
        "sixteen packets are the limit"
    );
    assert_eq!(rig.out(), [format!("poll {}", ["4x"; 16].join("|"))]);
    rig.poll();
    assert_eq!(rig.out(), [format!("poll {}", ["4x"; 4].join("|"))]);
    let long = "y".repeat(60);
    rig.poll();
    rig.send(&long);
    assert!(rig.session.wants_message());
    rig.send(&long);
    assert!(!rig.session.wants_message(), "the bytes are the limit");
    assert_eq!(rig.out(), [format!("poll 4{long}")]);
}

#[test]
fn two_polls_at_once_end_the_session() {
    let mut rig = Rig::polling();
    assert!(rig.poll());
    assert_eq!(rig.session.poll_opened(rig.now), Err(Refused::BadRequest));
    assert_eq!(rig.out(), ["closed transport error", "poll 1"]);
    assert_eq!(
        rig.session.poll_opened(rig.now),
        Err(Refused::SessionUnknown)
    );
}

#[test]
fn two_polls_at_once_are_two_even_when_the_first_is_due_an_answer() {
    let mut rig = Rig::probed();
    assert!(rig.poll());
    rig.now = rig.start + Duration::from_millis(150);
    assert_eq!(
        rig.session.poll_opened(rig.now),
        Err(Refused::BadRequest),
        "no timer fired between"
    );
    assert_eq!(
        rig.out(),
        ["poll 6", "closed transport error", "close probe"],
        "the answer is the first one's"
    );
}

#[test]
fn a_session_that_is_over_answers_no_poll_twice() {
    let mut rig = Rig::probed();
    assert!(rig.poll() && !rig.poll());
    assert_eq!(
        rig.out(),
        ["closed transport error", "poll 1", "close probe"]
    );
    assert_eq!(rig.at(150), [""; 0], "the noop that was due is not");
}

#[test]
fn two_posts_at_once_end_the_session() {
    let mut rig = Rig::polling();
    rig.poll();
    assert_eq!(rig.session.post_opened(rig.now, false), Ok(()));
    assert_eq!(
        rig.session.post_opened(rig.now, false),
        Err(Refused::BadRequest)
    );
    assert_eq!(rig.out(), ["closed transport error", "poll 400"]);
    rig.session.post_body(rig.now, Bytes::from_static(b"4a"));
    assert_eq!(rig.out(), ["post Gone"]);
}

#[test]
fn posts_one_after_the_other_are_handled() {
    let table: &[(&str, &[&str])] = &[
        ("4a\x1e4b", &["deliver a", "deliver b", "post Ok"]),
        (
            "4é\x1ebAQ==",
            &["deliver é", r#"deliver b"\x01""#, "post Ok"],
        ),
        ("0\x1e5\x1e6\x1e3", &["post Ok"]),
        (
            "4a\x1eabc\x1e4b",
            &["deliver a", "closed parse error", "post Bad"],
        ),
        ("abc", &["closed parse error", "post Bad"]),
        ("", &["closed parse error", "post Bad"]),
        ("2", &["closed transport error", "post Bad"]),
    ];
    for (body, expected) in table {
        let mut rig = Rig::polling();
        assert_eq!(&rig.post(body), expected, "{body}");
        if rig.session.is_closed() {
            assert!(!rig.poll());
        } else {
            assert_eq!(rig.post("4z"), ["deliver z", "post Ok"]);
        }
    }
}

#[test]
fn close_of_the_client_answers_its_poll() {
    let mut rig = Rig::polling();
    rig.poll();
    assert_eq!(
        rig.post("1"),
        ["closed transport close", "poll 6", "post Ok"]
    );
}

#[test]
fn close_of_the_client_waits_a_little_for_a_poll_that_crosses_it() {
    let mut rig = Rig::polling();
    assert_eq!(
        rig.post("4a\x1e1\x1e4b"),
        ["deliver a"],
        "what comes behind a close packet is not heard"
    );
    assert_eq!(rig.due(), Some(50));
    rig.at(49);
    assert!(rig.poll());
    assert_eq!(rig.out(), ["closed transport close", "poll 6", "post Ok"]);
    assert!(!rig.poll());

    let mut rig = Rig::polling();
    assert_eq!(rig.post("1"), [""; 0]);
    assert!(!rig.socket(), "no upgrade any more");
    assert_eq!(rig.close(CloseReason::ForcedClose), [""; 0]);
    assert_eq!(rig.at(50), ["closed transport close", "post Ok"]);
    assert!(!rig.poll(), "one that is sent behind the answer");
}

#[test]
fn lost_requests_large_bodies_and_octets_end_a_polling_session() {
    let mut rig = Rig::polling();
    rig.poll();
    rig.session.request_lost(rig.now);
    assert_eq!(rig.out(), ["closed transport close", "poll 400"]);
    let mut rig = Rig::polling();
    assert_eq!(rig.session.post_opened(rig.now, false), Ok(()));
    rig.session.post_refused(rig.now);
    assert_eq!(rig.out(), ["closed transport error"]);
    let mut rig = Rig::polling();
    assert_eq!(
        rig.session.post_opened(rig.now, true),
        Err(Refused::BadRequest)
    );
    assert_eq!(rig.out(), ["closed transport error"]);
    let mut rig = Rig::websocket();
    rig.session.request_lost(rig.now);
    assert_eq!(
        (rig.poll(), rig.session.post_opened(rig.now, true)),
        (false, Err(Refused::BadRequest))
    );
    assert_eq!(
        rig.main("4a"),
        ["deliver a"],
        "a session on a WebSocket does not care"
    );
}
