//! Clients of revision 3.

use super::*;

const THREE: Encoding = Encoding::Three { base64: false };

#[test]
fn a_client_of_revision_3_pings_and_anything_it_sends_shows_that_it_lives() {
    let mut rig = Rig::websocket_in(THREE);
    assert_eq!(rig.due(), Some(500));
    rig.at(400);
    assert_eq!(rig.main("2"), ["main 3"]);
    rig.written();
    assert_eq!(rig.due(), Some(900));
    assert_eq!(
        rig.main("2probe"),
        ["main 3"],
        "a probe is one only on a probing WebSocket"
    );
    rig.written();
    rig.at(600);
    assert_eq!(
        (rig.main("4a"), rig.due()),
        (vec!["deliver a".into()], Some(1100))
    );
    assert_eq!(rig.at(1099), [""; 0], "the server does not ping");
    assert_eq!(rig.at(1100), ["closed ping timeout", "close main"]);
    assert_eq!(
        Rig::websocket_in(THREE).main("3"),
        ["closed transport error", "close main"]
    );
}

#[test]
fn pings_that_are_not_read_do_not_pile_up() {
    let mut rig = Rig::polling_in(THREE);
    assert_eq!(rig.post(&"1:2".repeat(1000)), ["post Ok"]);
    assert_eq!(rig.session.queue.len(), 1);
    rig.poll();
    assert_eq!(rig.out(), ["poll 1:3"]);
    assert_eq!(rig.post("1:2"), ["post Ok"]);
    rig.poll();
    assert_eq!(rig.out(), ["poll 1:3"]);
}

#[test]
fn the_time_of_work_is_no_silence_in_revision_3() {
    let mut rig = Rig::websocket_in(THREE);
    assert_eq!(rig.main("4a"), ["deliver a"]);
    rig.session.pause();
    assert_eq!((rig.at(5000), rig.due()), (vec![], None));
    rig.session.resume(rig.now);
    assert_eq!(rig.due(), Some(5200));
}

#[test]
fn polling_bodies_of_revision_3_say_how_long_their_packets_are() {
    let bytes = || MessageGroup::One(Message::Binary(Bytes::from_static(&[1, 2])));
    let mut rig = Rig::polling_in(THREE);
    rig.poll();
    assert_eq!(rig.post("1:23:4é€"), ["deliver é€", "post Ok", "poll 1:3"]);
    rig.send("é");
    rig.session.send(bytes());
    rig.poll();
    assert_eq!(
        rig.out(),
        [r#"poll b"\0\x03\xff4\xc3\xa9\x01\x03\xff\x04\x01\x02""#]
    );
    assert_eq!(
        rig.session.post_opened(rig.now, true),
        Ok(()),
        "binary bodies are legal"
    );
    rig.session.post_body(
        rig.now,
        Bytes::from_static(&[1, 2, 255, 4, 9, 0, 1, 255, b'1']),
    );
    assert_eq!(rig.out(), [r#"deliver b"\t""#]);
    assert!(rig.poll());
    assert_eq!(rig.out(), ["closed transport close", "poll 1:6", "post Ok"]);

    let mut rig = Rig::polling_in(Encoding::Three { base64: true });
    rig.session.send(bytes());
    rig.poll();
    assert_eq!(rig.out(), ["poll 6:b4AQI="]);
    rig.poll();
    assert_eq!(rig.session.poll_opened(rig.now), Err(Refused::BadRequest));
    assert_eq!(rig.out(), ["closed transport error", "poll 1:1"]);
    assert_eq!(
        Rig::polling_in(THREE).post("4a"),
        ["closed parse error", "post Bad"]
    );
}

#[test]
fn a_session_of_revision_3_upgrades_and_keeps_its_base64() {
    let mut rig = Rig::polling_in(Encoding::Three { base64: true });
    rig.poll();
    assert!(rig.socket());
    rig.frame(SocketRole::Probe, "2probe");
    assert_eq!(rig.out(), ["probe 3probe", "poll 1:6"]);
    rig.session.written(rig.now, SocketRole::Probe);
    rig.frame(SocketRole::Probe, "5");
    assert_eq!(rig.out(), ["promote"]);
    rig.session
        .send(MessageGroup::One(Message::Binary(Bytes::from_static(&[
            1, 2,
        ]))));
    assert_eq!(rig.out(), ["main b4AQI="]);
}
