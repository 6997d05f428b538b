//! The layer above works, or has no room.

use super::*;

#[test]
fn nothing_is_taken_from_the_client_while_the_layer_above_works() {
    let mut rig = Rig::websocket();
    assert!(rig.session.wants_frame(SocketRole::Main));
    assert_eq!(rig.main("4a"), ["deliver a"]);
    rig.session.pause();
    assert!(!rig.session.wants_frame(SocketRole::Main));
    assert_eq!(rig.main("4b"), [""; 0]);
    rig.send("news");
    assert_eq!(rig.out(), ["main 4news"], "messages go out");
    rig.written();
    assert_eq!(rig.at(300), ["main 2"], "pings too");
    rig.written();
    assert_eq!(
        (rig.at(5000), rig.due()),
        (vec![], None),
        "the pong may be waiting behind the work"
    );
    rig.session.resume(rig.now);
    assert_eq!(
        (rig.out(), rig.due()),
        (vec!["deliver b".into()], Some(5200))
    );
}

#[test]
fn a_post_is_answered_when_its_packets_are_handled_or_work_begins() {
    let mut rig = Rig::polling();
    assert_eq!(rig.session.post_opened(rig.now, false), Ok(()));
    rig.session
        .post_body(rig.now, Bytes::from_static(b"4a\x1e4b"));
    assert_eq!(
        rig.session.next_output(rig.now).as_ref().map(shown),
        Some("deliver a".into())
    );
    rig.session.pause();
    assert_eq!(rig.out(), ["post Ok"]);
    assert_eq!(
        rig.post("4c\x1e1"),
        [""; 0],
        "the next one waits for the work"
    );
    rig.session.resume(rig.now);
    assert_eq!(rig.out(), ["deliver b", "deliver c"]);
    assert_eq!(rig.at(50), ["closed transport close", "post Ok"]);
}

#[test]
fn packets_wait_while_there_is_no_room_for_answers() {
    let mut rig = Rig::websocket();
    rig.send("a");
    assert_eq!(rig.out(), ["main 4a"]);
    rig.session.hold_back(rig.now, true);
    assert!(!rig.session.wants_frame(SocketRole::Main));
    assert_eq!(rig.main("4b"), [""; 0]);
    rig.written();
    assert_eq!(rig.at(300), ["main 2"]);
    rig.written();
    assert_eq!(rig.at(5000), [""; 0], "the pong may be waiting");
    rig.session.hold_back(rig.now, false);
    assert_eq!(
        (rig.out(), rig.due()),
        (vec!["deliver b".into()], Some(5200))
    );
}

#[test]
fn a_polling_client_that_is_held_back_has_to_poll() {
    let mut rig = Rig::polling();
    rig.session.hold_back(rig.now, true);
    assert_eq!(rig.post("4a"), [""; 0], "the body waits");
    assert_eq!(rig.at(300), [""; 0]);
    assert_eq!(rig.at(500), ["closed ping timeout", "post Gone"]);

    let mut rig = Rig::polling();
    rig.session.hold_back(rig.now, true);
    rig.send("answer");
    assert_eq!(rig.post("4a"), [""; 0]);
    assert!(rig.poll());
    rig.session.hold_back(rig.now, false);
    assert_eq!(rig.out(), ["deliver a", "post Ok", "poll 4answer"]);
}
