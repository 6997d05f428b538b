use super::*;

fn inspection(rig: &Rig) -> Inspection {
    Inspection {
        node: blockchain(rig.tip.expect("there is a tip")),
        mempool: None,
        uptime: Some(1000 + (rig.now.ms - WALL) / 1000),
        network: Ok(Network::default()),
        notifications: Err(failure()),
    }
}

fn inspected(rig: &mut Rig, inspection: Inspection) -> Vec<String> {
    rig.answer(Answer::Inspection(Ok(Box::new(inspection))))
}

/// An inspection that shows nothing new.
fn inspected_again(rig: &mut Rig) -> Vec<String> {
    let inspection = inspection(rig);
    inspected(rig, inspection)
}

fn notifications(address: &str) -> Vec<Notification> {
    ["pubrawtx", "pubrawblock", "pubsequence"]
        .map(|kind| Notification {
            kind: kind.into(),
            address: address.into(),
            hwm: None,
        })
        .to_vec()
}

/// The feed comes from an endpoint of the settings.
fn hinted(endpoint: &str) -> Rig {
    let settings = config::Bitcoind {
        zmq_rawtx: Some(endpoint.into()),
        zmq_rawblock: Some(endpoint.into()),
        zmq_sequence: Some(endpoint.into()),
        ..config::Bitcoind::default()
    };
    let mut rig = Rig::new(settings, Some(id(100)));
    let endpoint = Some(endpoint.to_owned());
    rig.tell(FollowerEvent::Found(Endpoints {
        rawtx: endpoint.clone(),
        rawblock: endpoint.clone(),
        sequence: endpoint,
    }));
    rig.until("ReadMempool");
    rig.read(&[], 1);
    rig.notice(Notice::Connected(ZmqTopic::ALL.to_vec()));
    rig.until("ReadMempool");
    rig.read(&[], 1);
    rig
}

/// What is connected soon after the subscription is read once, with what it publishes.
#[test]
fn the_first_reading_waits_a_moment_for_the_feed() {
    let start = || {
        let mut rig = Rig::new(config::Bitcoind::default(), Some(id(100)));
        rig.tell(FollowerEvent::Found(shared()));
        assert_eq!(rig.looked(100, Relation::Same), [""; 0]);
        rig
    };
    let mut rig = start();
    assert_eq!(rig.pass(99), [""; 0]);
    assert_eq!(rig.pass(1), ["ReadMempool"], "nothing is connected");

    let mut rig = start();
    rig.pass(3);
    rig.notice(Notice::Connected(ZmqTopic::ALL.to_vec()));
    assert_eq!(rig.pass(50), ["Look"]);
    assert_eq!(rig.looked(100, Relation::Same), ["ReadMempool"]);
    rig.read(&[], 1);
    assert_eq!(rig.reason(), None);
    assert_eq!(rig.pass(9000), [""; 0]);
}

/// What the node tells until a subscription reaches it is heard by nobody.
#[test]
fn a_reading_that_was_wanted_earlier_waits_for_a_new_connection() {
    let mut rig = Rig::new(config::Bitcoind::default(), Some(id(100)));
    rig.tell(FollowerEvent::Found(shared()));
    rig.looked(100, Relation::Same);
    rig.pass(98);
    rig.notice(Notice::Connected(ZmqTopic::ALL.to_vec()));
    assert_eq!(rig.pass(2), [""; 0]);
    assert_eq!(rig.pass(48), ["Look"]);
    assert_eq!(rig.looked(100, Relation::Same), ["ReadMempool"]);
}

#[test]
fn after_a_failed_call_the_node_is_left_alone_for_a_while_and_then_all_is_looked_at_anew() {
    let mut rig = Rig::following();
    rig.accepted(1, 5);
    let failed = Answer::Transactions {
        txids: vec![txid(1)],
        tip: rig.tip,
        found: Err(failure()),
    };
    assert_eq!(rig.answer(failed), [""; 0]);
    let status = rig.status();
    assert!(!status.available && status.unavailable_since == Some(rig.now.ms));
    assert_eq!(status.reason.as_deref(), Some("no connection"));
    assert_eq!(rig.sleeps(), 250);
    assert_eq!(rig.pass(249), [""; 0]);
    assert_eq!(rig.pass(1), ["Look", "Transactions 1"]);
    rig.looked(100, Relation::Same);
    assert_eq!(rig.reason().as_deref(), Some("reading bitcoind's mempool"));
    rig.give(&[1], &[1]);
    rig.until("ReadMempool");
    rig.read(&[1], 6);
    let status = rig.status();
    assert!(status.following && status.available && status.error.is_none());
    assert_eq!(status.current_at, Some(rig.now.ms));
}

#[test]
fn every_call_that_fails_is_told_and_made_again() {
    for (answer, call) in [
        (Answer::Look(Err(failure())), "Look"),
        (Answer::Mempool(Err(failure())), "ReadMempool"),
        (Answer::Inspection(Err(failure())), "Inspect"),
    ] {
        let mut rig = Rig::following();
        rig.notice(Notice::Restarted(ZmqTopic::Rawtx));
        rig.until(call);
        rig.answer(answer);
        assert_eq!(rig.reason().as_deref(), Some("no connection"), "{call}");
        rig.until("Look");
        rig.until(call);
    }
}

#[test]
fn gaps_are_healed_together_and_not_too_often() {
    let mut rig = Rig::following();
    let gap = |topic| Notice::Gap { topic, lost: 1 };
    for topic in [ZmqTopic::Rawtx, ZmqTopic::Sequence, ZmqTopic::Rawtx] {
        assert_eq!(rig.notice(gap(topic)), [""; 0]);
    }
    let zmq = rig.status().zmq;
    assert_eq!((zmq.rawtx.gaps, zmq.rawtx.lost), (2, 2));
    assert_eq!(rig.sleeps(), 50);
    assert_eq!(rig.pass(50), ["Look"]);
    rig.looked(100, Relation::Same);
    rig.until("ReadMempool");
    rig.read(&[], 1);
    rig.notice(gap(ZmqTopic::Rawtx));
    assert!(rig.sleeps() > 300, "half a second between two");
    rig.notice(gap(ZmqTopic::Rawblock));
    assert_eq!(rig.sleeps(), 50, "a lost block does not come any more");
}

#[test]
fn a_feed_that_was_away_is_not_trusted_to_have_been_silent() {
    let mut rig = Rig::following();
    rig.notice(Notice::Disconnected(vec![ZmqTopic::Rawtx]));
    let down = Some("ZMQ at tcp://127.0.0.1:28332 is not connected");
    assert_eq!(rig.reason().as_deref(), down);
    rig.notice(Notice::Connected(vec![ZmqTopic::Rawtx]));
    assert_eq!(rig.reason().as_deref(), Some("reading bitcoind's mempool"));
    assert_eq!(rig.pass(50), ["Look"]);
    rig.looked(100, Relation::Same);
    rig.until("ReadMempool");
}

#[test]
fn a_restarted_node_is_known_by_its_numbers_and_by_its_clock() {
    let mut rig = Rig::following();
    let restarted = rig.notice(Notice::Restarted(ZmqTopic::Sequence));
    // The first inspection is under way.
    assert!(restarted.is_empty(), "{restarted:?}");
    assert_eq!(inspected_again(&mut rig), ["Inspect"]);
    rig.until("Look");
    rig.looked(100, Relation::Same);
    let started_anew = Inspection {
        uptime: Some(2),
        ..inspection(&rig)
    };
    assert_eq!(inspected(&mut rig, started_anew), ["Inspect"]);
    assert_eq!(rig.pass(50), ["Look"]);
}

#[test]
fn the_node_is_inspected_now_and_then_and_when_it_is_back() {
    let mut rig = Rig::following();
    inspected_again(&mut rig);
    assert!(rig.sleeps() <= 10_000);
    rig.until("Inspect");
    inspected_again(&mut rig);
    rig.rawblock(&block(id(7).hash, 1));
    rig.answer(Answer::Look(Err(failure())));
    assert_eq!(rig.pass(250), ["Look"]);
    assert_eq!(rig.looked(100, Relation::Same), ["Inspect", "ReadMempool"]);
}

#[test]
fn a_node_that_publishes_elsewhere_is_subscribed_there() {
    let mut rig = Rig::following();
    let elsewhere = Inspection {
        notifications: Ok(notifications("tcp://127.0.0.1:5555")),
        ..inspection(&rig)
    };
    assert_eq!(
        inspected(&mut rig, elsewhere.clone()),
        ["Subscribe", "Look"]
    );
    let endpoint = rig.status().zmq.rawtx.endpoint;
    assert_eq!(endpoint.as_deref(), Some("tcp://127.0.0.1:5555"));
    rig.until("Inspect");
    let elsewhere = Inspection {
        uptime: None,
        ..elsewhere
    };
    assert_eq!(
        inspected(&mut rig, elsewhere),
        [""; 0],
        "and it stays there"
    );
}

#[test]
fn a_node_of_another_chain_is_not_subscribed() {
    let mut rig = Rig::following();
    let mut other = Inspection {
        notifications: Ok(notifications("tcp://127.0.0.1:5555")),
        ..inspection(&rig)
    };
    other.node.chain = "test".into();
    assert_eq!(inspected(&mut rig, other), [""; 0]);
}

#[test]
fn what_a_feed_tells_that_the_node_does_not_list_is_a_reason_to_ask() {
    let mut rig = hinted("tcp://10.0.0.1:1");
    assert!(!rig.status().zmq.sequence.believed);
    let next = block(rig.tip_hash(), 1);
    assert_eq!(rig.rawblock(&next), ["Look"], "and not Connect");
    rig.looked(100, Relation::Same);
    assert_eq!(rig.announced(next.block_hash()), [""; 0]);
    assert_eq!(rig.pass(50), ["Look"]);
    rig.looked(100, Relation::Same);
    assert_eq!(rig.removed(1, 5), [""; 0], "and not TxRemoved");
    rig.until("Look");
    rig.looked(100, Relation::Same);
    rig.until("ReadMempool");
    rig.read(&[], 1);
    assert_eq!(rig.rawtx(2), ["Rawtx 2"], "the node is asked if it matters");
    assert_eq!(rig.accepted(2, 6), [""; 0], "and not Accepted");
}

#[test]
fn a_feed_is_believed_when_it_told_the_last_acceptance_before_the_nodes_next_number() {
    let mut rig = hinted("tcp://10.0.0.1:1");
    rig.rawtx(1);
    rig.accepted(1, 5);
    rig.until("ReadMempool");
    rig.read(&[1], 8);
    assert!(!rig.status().zmq.sequence.believed, "another node's number");
    rig.accepted(1, 8);
    rig.until("ReadMempool");
    rig.read(&[1], 9);
    let zmq = rig.status().zmq;
    assert!(zmq.sequence.believed && zmq.rawblock.believed);
    let next = block(rig.tip_hash(), 1);
    assert_eq!(rig.rawblock(&next), ["Connect 101"]);
    rig.notice(Notice::Disconnected(ZmqTopic::ALL.to_vec()));
    assert!(!rig.status().zmq.sequence.believed, "whoever comes now");
}

/// Its transaction may have come already, or come while nothing says that it was accepted.
#[test]
fn what_was_heard_during_the_reading_that_proves_the_feed_is_read_too() {
    let mut rig = hinted("tcp://10.0.0.1:1");
    rig.accepted(1, 8);
    rig.until("ReadMempool");
    rig.accepted(2, 9);
    rig.read(&[1], 9);
    assert!(rig.status().zmq.sequence.believed);
    assert_eq!(rig.pass(50), ["ReadMempool"]);
}

/// A node that lists a hundred thousand transactions is busy with it.
#[test]
fn readings_for_the_proof_leave_the_node_time() {
    let mut rig = hinted("tcp://10.0.0.1:1");
    rig.accepted(1, 5);
    rig.until("ReadMempool");
    rig.accepted(1, 8);
    rig.now.instant += Duration::from_secs(1);
    rig.read(&[1], 5);
    assert_eq!(rig.pass(49_999), [""; 0]);
    assert_eq!(rig.pass(1), ["ReadMempool"], "what came meanwhile");
    rig.read(&[1], 9);
    assert!(rig.status().zmq.sequence.believed);
}

#[test]
fn an_endpoint_of_the_settings_that_the_node_lists_is_its_own() {
    let mut rig = hinted("tcp://127.0.0.1:28332");
    let listed = Inspection {
        notifications: Ok(notifications("tcp://127.0.0.1:28332")),
        ..inspection(&rig)
    };
    inspected(&mut rig, listed);
    assert!(rig.status().zmq.sequence.believed);
}

#[test]
fn stopped_it_takes_no_news_and_says_so() {
    let mut rig = Rig::following();
    rig.rawblock(&block(id(7).hash, 1));
    rig.looked(101, Relation::Ahead(vec![id(101).hash]));
    assert_eq!(rig.tell(FollowerEvent::Monitoring(false)), ["StopFetch"]);
    assert_eq!(rig.reason().as_deref(), Some("monitoring is stopped"));
    assert!(!rig.follower.position().at_node_tip);
    let next = block(rig.tip_hash(), 1);
    for said in [
        rig.rawblock(&next),
        rig.rawtx(1),
        rig.accepted(1, 5),
        rig.removed(1, 6),
        rig.announced(next.block_hash()),
        rig.tell(FollowerEvent::Asked(FollowUp::Fetch(vec![txid(1)]))),
    ] {
        assert_eq!(said, [""; 0]);
    }
    assert_eq!(rig.tell(FollowerEvent::Monitoring(false)), [""; 0]);
    assert_eq!(rig.tell(FollowerEvent::Monitoring(true)), ["Look"]);
    rig.looked(100, Relation::Same);
    rig.until("ReadMempool");
}

/// What was under way when monitoring stopped comes back, and counts for nothing.
#[test]
fn answers_to_questions_from_before_a_stop_do_not_count() {
    let mut rig = Rig::following();
    rig.notice(Notice::Restarted(ZmqTopic::Rawtx));
    rig.until("Look");
    rig.looked(100, Relation::Same);
    rig.until("ReadMempool");
    rig.accepted(1, 5);
    rig.rawblock(&block(id(7).hash, 1));
    rig.tell(FollowerEvent::Monitoring(false));
    let ahead = Relation::Ahead(vec![id(101).hash]);
    assert_eq!(rig.looked(101, ahead), [""; 0]);
    assert_eq!(rig.read(&[1], 6), ["Policy"]);
    assert_eq!(rig.give(&[1], &[1]), [""; 0]);
}

#[test]
fn a_node_in_its_initial_download_is_waited_for() {
    let mut rig = Rig::new(config::Bitcoind::default(), None);
    rig.tell(FollowerEvent::Found(Endpoints::default()));
    let node = Blockchain {
        initialblockdownload: true,
        headers: 900,
        ..blockchain(id(50))
    };
    let relation = Relation::Empty;
    let look = TipComparison { node, relation };
    assert_eq!(rig.answer(Answer::Look(Ok(look))), [""; 0]);
    let reason = rig.reason().expect("it says why");
    assert!(reason.contains("block 50 of 900"), "{reason}");
    assert_eq!(rig.pass(1000), ["Look"]);
}
