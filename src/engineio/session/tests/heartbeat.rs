//! Pings, pongs and silence.

use super::*;

#[test]
fn the_first_ping_comes_one_interval_after_the_opening_and_the_next_after_the_pong() {
    let mut rig = Rig::websocket();
    assert_eq!(rig.due(), Some(300));
    assert_eq!(rig.at(299), [""; 0]);
    assert_eq!(rig.at(300), ["main 2"]);
    rig.written();
    assert_eq!(rig.due(), Some(500));
    rig.at(350);
    assert_eq!(rig.main("3"), [""; 0]);
    assert_eq!(rig.due(), Some(650));
    assert_eq!(rig.at(650), ["main 2"]);
}

#[test]
fn a_silent_session_is_over_at_interval_plus_timeout_whether_or_not_its_timer_fired() {
    let mut rig = Rig::websocket();
    rig.at(302);
    rig.written();
    assert_eq!(
        rig.due(),
        Some(500),
        "a ping that is queued a little late counts from when it was due"
    );
    assert_eq!(rig.at(500), ["closed ping timeout", "close main"]);

    let mut rig = Rig::polling();
    rig.now = rig.start + Duration::from_millis(300);
    rig.session.tick(rig.now);
    rig.now = rig.start + Duration::from_millis(500);
    assert!(
        !rig.poll(),
        "no timer fired between, the poll finds the session over"
    );
    assert_eq!(rig.out(), ["closed ping timeout"]);
}

#[test]
fn a_machine_that_slept_gives_its_clients_the_whole_timeout() {
    let mut rig = Rig::websocket();
    assert_eq!(rig.at(60_000), ["main 2"]);
    rig.written();
    assert_eq!(rig.due(), Some(60_200));
}

#[test]
fn a_ping_answers_the_waiting_poll_and_counts_even_when_no_poll_takes_it() {
    let mut rig = Rig::polling();
    assert!(rig.poll());
    assert_eq!(rig.at(300), ["poll 2"]);
    assert_eq!(rig.post("3"), ["post Ok"]);
    assert_eq!(rig.at(600), [""; 0], "queued, but nobody polls");
    assert_eq!(rig.at(800), ["closed ping timeout"]);
}

#[test]
fn other_packets_prolong_the_wait_for_a_pong_once() {
    let mut rig = Rig::websocket();
    rig.at(300);
    rig.written();
    rig.at(400);
    assert_eq!(rig.main("4a"), ["deliver a"]);
    assert_eq!(rig.due(), Some(600));
    rig.at(550);
    rig.main("4b");
    assert_eq!(rig.due(), Some(600));
    assert_eq!(rig.at(600), ["closed ping timeout", "close main"]);
}

#[test]
fn pongs_out_of_turn_change_nothing() {
    let mut rig = Rig::websocket();
    rig.at(100);
    assert_eq!(
        (rig.main("3"), rig.main("3x"), rig.due()),
        (vec![], vec![], Some(300))
    );
}
