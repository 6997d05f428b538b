//! What the official Engine.IO 4 suite asserts, here with our own clients. Where another test
//! asserts it already, the table names it.
//!
//! | the suite                                      | here |
//! |------------------------------------------------|------|
//! | handshake, both transports                     | `engineio::handshake_over_polling_answers_the_open_packet`, `..::handshake_over_a_websocket_sends_the_open_packet_first` |
//! | wrong `EIO`, `transport`, method               | `engineio::request_that_is_wrong_gets_the_exact_refusal`, `..::handshake_that_is_wrong_gets_a_400_with_the_bare_message` |
//! | text, several texts, text and bytes            | `engineio::message_of_text_or_bytes_goes_both_ways_on_both_transports`, `poll_gets_several_texts_in_one_body` |
//! | invalid packet                                 | `engineio::packet_that_is_bad_ends_the_session_after_those_before_it` |
//! | two polls at once                              | `poll_that_came_first_is_told_that_the_session_is_over` |
//! | cancelled poll                                 | `engineio::poll_or_body_that_is_dropped_ends_the_session`, `..::poll_that_is_dropped_before_it_is_read_ends_its_session_too` |
//! | pings                                          | `heartbeat_goes_on`, `engineio::heartbeat_keeps_a_session_alive_and_silence_ends_it` |
//! | silence, exactly interval and timeout long     | `engineio::session::tests::heartbeat::a_silent_session_is_over_at_interval_plus_timeout_whether_or_not_its_timer_fired` |
//! | close by the client                            | `close_by_the_client_and_a_poll_at_the_same_time`, `engineio::session::tests::polling::close_of_the_client_waits_a_little_for_a_poll_that_crosses_it`, `engineio::packet_that_is_bad_ends_the_session_after_those_before_it` |
//! | upgrade, and requests with the same id after it | `engineio::upgrade_takes_the_session_along` |

use std::time::Duration;

use satwatch::engineio::Config;

use super::engineio_rig::{Server, answer};

/// The suite's times.
fn times(config: &mut Config) {
    config.ping_interval = Duration::from_millis(300);
    config.ping_timeout = Duration::from_millis(200);
}

#[tokio::test]
async fn poll_gets_several_texts_in_one_body() {
    let server = Server::start(times).await;
    let sid = server.open_polling().await;
    assert!(
        server
            .post(&sid, "4test1\x1e4test2\x1e4test3")
            .await
            .is(200, "ok")
    );
    assert!(server.get(&sid).await.is(200, "4test1\x1e4test2\x1e4test3"));
}

#[tokio::test]
async fn poll_that_came_first_is_told_that_the_session_is_over() {
    let server = Server::start(times).await;
    let sid = server.open_polling().await;
    let mut first = server.pending_get(&sid).await;
    // Answered behind the first poll, because this test has one thread and connections are read in
    // their order.
    assert!(server.post(&sid, "3").await.is(200, "ok"));
    assert_eq!(server.get(&sid).await.status, 400);
    assert!(answer(&mut first).await.is(200, "1"));
    assert_eq!(server.get(&sid).await.status, 400);
}

#[tokio::test]
async fn heartbeat_goes_on() {
    // Long enough that a busy machine is no silent client.
    let server = Server::start(|config| {
        config.ping_interval = Duration::from_millis(50);
        config.ping_timeout = Duration::from_secs(20);
    })
    .await;
    let sid = server.open_polling().await;
    for _ in 0..3 {
        assert!(server.get(&sid).await.is(200, "2"));
        assert!(server.post(&sid, "3").await.is(200, "ok"));
    }
    let mut socket = server.open_websocket().await;
    for _ in 0..3 {
        assert_eq!(socket.text().await, "2");
        socket.send("3").await;
    }
}

#[tokio::test]
async fn close_by_the_client_and_a_poll_at_the_same_time() {
    let server = Server::start(|_| {}).await;
    let sid = server.open_polling().await;
    let mut poll = server.pending_get(&sid).await;
    assert!(server.post(&sid, "1").await.is(200, "ok"));
    assert!(answer(&mut poll).await.is(200, "6"));
    assert_eq!(server.get(&sid).await.status, 400);
}
