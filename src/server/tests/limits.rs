//! How many connections there may be, and which.

use super::*;

#[tokio::test]
async fn beyond_the_cap_clients_wait_for_a_slot() {
    let running = start(Limits {
        connections: 1,
        ..Limits::default()
    })
    .await;
    let mut first = connect(&running).await;
    first
        .write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    until(|| running.waiting.load(Ordering::SeqCst) == 1).await;
    let mut second = connect(&running).await;
    second
        .write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    pass(Duration::ZERO).await;
    assert_eq!(
        running.waiting.load(Ordering::SeqCst),
        1,
        "the second is not served yet"
    );
    drop(first);
    until(|| running.waiting.load(Ordering::SeqCst) == 2).await;
    running.gate.notify_waiters();
    read_until(&mut second, "/wait 0").await;
}

#[tokio::test]
async fn an_upgraded_connection_keeps_its_slot_as_long_as_its_owner_does() {
    let running = start(Limits {
        connections: 1,
        ..Limits::default()
    })
    .await;
    let mut first = connect(&running).await;
    first
        .write_all(
            b"GET /keep HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n!",
        )
        .await
        .expect("written");
    read_until(&mut first, "101 Switching").await;
    first.write_all(b"?").await.expect("written");
    read_until(&mut first, "?").await;
    let mut second = connect(&running).await;
    second
        .write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    pass(Duration::ZERO).await;
    assert_eq!(
        running.waiting.load(Ordering::SeqCst),
        0,
        "the only slot is taken"
    );
    drop(first);
    until(|| running.waiting.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn silent_clients_leave_half_of_the_connections_to_others() {
    let running = start(Limits {
        connections: 4,
        header_time: PATIENCE * 9,
        ..Limits::default()
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(connect(&running).await);
    }
    let mut stream = connect(&running).await;
    stream.write_all(GET).await.expect("written");
    read_until(&mut stream, "/ 0").await;
}

#[tokio::test]
async fn a_lower_limit_ends_nothing_and_a_higher_one_lets_those_in_who_wait() {
    let mut usage = None;
    let running = start_with(Limits::default(), |server| {
        usage = Some(server.usage());
        server
    })
    .await;
    let usage = usage.expect("it was asked for");
    let allow = |connections| {
        usage.set_limits(&Limits {
            connections,
            ..Limits::default()
        });
    };
    let mut open = [connect(&running).await, connect(&running).await];
    for stream in &mut open {
        stream.write_all(GET).await.expect("written");
        read_until(stream, "/ 0").await;
    }
    allow(1);
    let limit = usage.limits()[0];
    assert_eq!((limit.limit, limit.used), (1, 2));
    let mut later = connect(&running).await;
    later
        .write_all(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    for stream in &mut open {
        stream.write_all(GET).await.expect("written");
        read_until(stream, "/ 0").await;
    }
    assert_eq!(
        running.waiting.load(Ordering::SeqCst),
        0,
        "it is not let in"
    );
    allow(3);
    until(|| running.waiting.load(Ordering::SeqCst) == 1).await;
    assert_eq!(usage.limits()[0].used, 3);
}

#[tokio::test]
async fn a_connection_that_has_to_make_room_answers_a_request_that_it_has_begun() {
    let mut answered = 0;
    // Which of both is looked at first is random.
    for _ in 0..100 {
        let (mut client, server) = tokio::io::duplex(16 * 1024);
        let begun = Arc::new(AtomicUsize::new(0));
        let count = begun.clone();
        let handler = Arc::new(move |_: Request<Incoming>, _: Peer| {
            count.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::task::yield_now().await;
                Response::new(Full::from("answered"))
            }
        });
        let arrival = arrival();
        arrival.unfinished.displaced.notify_one();
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        client.write_all(request).await.expect("there is room");
        connections().http(server, arrival, false, handler).await;
        let text = read_to_end(&mut client).await;
        let begun = begun.load(Ordering::SeqCst);
        assert_eq!(text.contains("answered"), begun == 1, "{text}");
        answered += begun;
    }
    assert!(answered > 0);
}

#[tokio::test]
async fn the_usage_is_that_of_clients_alone() {
    let mut usage = None;
    let running = start_with(Limits::default(), |server| {
        usage = Some(server.usage());
        server
    })
    .await;
    let used = || usage.as_ref().map(|usage| usage.limits()[0].used);
    assert_eq!(used(), Some(0));
    let mut held = Vec::new();
    for count in 1..=3 {
        let mut stream = connect(&running).await;
        stream.write_all(GET).await.expect("written");
        read_until(&mut stream, "/ 0").await;
        assert_eq!(used(), Some(count));
        held.push(stream);
    }
}
