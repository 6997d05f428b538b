use super::*;

/// The resync that is due was used up by then.
#[test]
fn what_is_lost_after_a_reading_that_came_early_is_found_as_soon_as_losses_are() {
    let mut rig = Rig::following();
    rig.pass(10_000);
    rig.gap(ZmqTopic::Rawtx);
    rig.until("ReadMempool");
    rig.gap(ZmqTopic::Rawtx);
    rig.answer(Answer::Mempool(Ok(MempoolRead::Moved)));
    rig.until("ReadMempool");
    rig.read(&[], 1);
    rig.gap(ZmqTopic::Rawtx);
    assert!(rig.sleeps() <= 500, "{}", rig.sleeps());
    rig.pass(500);
    rig.until("ReadMempool");
}

/// Each topic on an address of its own.
fn apart() -> Endpoints {
    Endpoints {
        sequence: Some("tcp://127.0.0.1:28333".into()),
        ..shared()
    }
}

fn without_sequence() -> Endpoints {
    Endpoints {
        sequence: None,
        ..shared()
    }
}

#[test]
fn a_transaction_is_told_when_its_acceptance_is() {
    let mut rig = Rig::following();
    assert_eq!(rig.rawtx(1), [""; 0]);
    assert_eq!(rig.accepted(1, 5), ["Accepted 1"]);
    let mut rig = Rig::following_at(apart());
    assert_eq!(rig.accepted(1, 5), [""; 0]);
    assert_eq!(rig.rawtx(1), ["Accepted 1"]);
}

#[test]
fn an_accepted_transaction_that_cannot_come_any_more_is_fetched_at_once() {
    let mut rig = Rig::following();
    assert_eq!(rig.accepted(1, 5), ["Transactions 1"]);
    assert_eq!(rig.give(&[1], &[1]), ["Fetched 1"]);
    assert_eq!(rig.repairs(), 0);
}

#[test]
fn an_accepted_transaction_that_may_come_from_another_address_is_fetched_after_a_moment() {
    let mut rig = Rig::following_at(apart());
    rig.accepted(1, 5);
    assert_eq!(rig.sleeps(), 100);
    assert_eq!(rig.pass(100), ["Transactions 1"]);
}

#[test]
fn a_coinbase_and_what_is_no_transaction_are_nothing_of_the_mempool() {
    let mut rig = Rig::following_at(without_sequence());
    let body = MessageBody::Tx(serialize(&coinbase()));
    assert_eq!(rig.message(ZmqTopic::Rawtx, body), [""; 0]);
    let body = MessageBody::Tx(vec![1, 2, 3]);
    assert_eq!(rig.message(ZmqTopic::Rawtx, body), [""; 0]);
}

#[test]
fn without_sequence_the_node_is_asked_about_what_matters() {
    let mut rig = Rig::following_at(without_sequence());
    assert_eq!(rig.rawtx(1), ["Rawtx 1"]);
    let checks =
        |rig: &mut Rig, n| rig.tell(FollowerEvent::Asked(FollowUp::Check((&tx(n)).into())));
    assert_eq!(checks(&mut rig, 1), ["InMempool 1"]);
    assert_eq!(checks(&mut rig, 2), [""; 0], "one batch after the other");
    assert_eq!(checks(&mut rig, 3), [""; 0]);
    let held = |rig: &mut Rig, tip, held: &[(u32, bool)]| {
        rig.answer(Answer::InMempool {
            txs: held.iter().map(|(n, _)| (&tx(*n)).into()).collect(),
            tip,
            held: Ok(held.iter().map(|(_, held)| *held).collect()),
        })
    };
    let tip = rig.tip;
    assert_eq!(
        held(&mut rig, tip, &[(1, true)]),
        ["Accepted 1", "InMempool 2 3"]
    );
    // A block came in between.
    assert_eq!(
        held(&mut rig, Some(id(99)), &[(2, true), (3, true)]),
        ["InMempool 2 3"]
    );
    assert_eq!(
        held(&mut rig, tip, &[(2, false), (3, true)]),
        ["Accepted 3"]
    );
}

#[test]
fn what_left_is_judged_when_its_successor_is_out_of_time() {
    let mut rig = Rig::following();
    assert_eq!(rig.removed(1, 5), ["TxRemoved 1"]);
    assert_eq!(rig.sleeps(), 250);
    assert_eq!(rig.pass(249), [""; 0]);
    assert_eq!(rig.pass(1), ["EvictMissing"]);
    assert!(rig.sleeps() > 1000);
}

#[test]
fn what_left_later_is_judged_later() {
    let mut rig = Rig::following();
    rig.removed(1, 5);
    rig.pass(200);
    rig.removed(2, 6);
    assert_eq!(rig.pass(50), ["EvictMissing but 1"]);
    assert_eq!(rig.pass(200), ["EvictMissing"]);
}

#[test]
fn what_left_is_not_judged_while_its_successor_is_fetched() {
    let mut rig = Rig::following();
    rig.removed(1, 5);
    rig.accepted(2, 6);
    assert_eq!(rig.pass(250), [""; 0]);
    assert_eq!(rig.give(&[2], &[2]), ["Fetched 2"]);
    assert_eq!(rig.pass(0), ["EvictMissing"]);
}

/// Handled late, because the indexer held the follower up: the successor waits in the feed.
#[test]
fn what_left_is_not_judged_while_notices_wait() {
    let mut rig = Rig::following();
    rig.removed(1, 5);
    rig.now.instant += Duration::from_millis(300);
    assert_eq!(rig.rawtx(2), [""; 0]);
    assert_eq!(rig.accepted(2, 6), ["Accepted 2"]);
    assert_eq!(rig.sleeps(), 0);
    assert_eq!(rig.pass(0), ["EvictMissing"]);
}

/// Its verdict would be one on all that the reading did not hold.
#[test]
fn what_left_is_not_judged_while_what_a_reading_brought_is_fetched() {
    let mut rig = Rig::following();
    reading_after_reconnect(&mut rig);
    rig.follow_ups = vec![FollowUp::Fetch(vec![txid(1)])];
    assert_eq!(rig.read(&[1], 9), ["MempoolSnapshot 1", "Transactions 1"]);
    rig.removed(2, 10);
    assert_eq!(rig.pass(5000), [""; 0]);
    assert_eq!(rig.give(&[1], &[1]), ["Fetched 1", "EvictMissing but 1"]);
    assert_eq!(rig.pass(0), ["EvictMissing"]);
}

#[test]
fn fetches_without_pause_do_not_put_the_verdict_off_for_ever() {
    let mut rig = Rig::following();
    reading_after_reconnect(&mut rig);
    rig.follow_ups = vec![FollowUp::Fetch(vec![txid(1)])];
    rig.read(&[1], 9);
    rig.removed(2, 10);
    assert_eq!(rig.pass(59_000), [""; 0]);
    assert_eq!(rig.pass(1000), ["EvictMissing"]);
}

#[test]
fn what_left_is_not_judged_while_a_block_is_looked_for() {
    let mut rig = Rig::following();
    let next = block(rig.tip_hash(), 1);
    rig.removed(1, 5);
    rig.announced(next.block_hash());
    assert_eq!(rig.pass(500), ["Look"]);
    assert_eq!(rig.pass(5000), [""; 0]);
    let missing = Relation::Ahead(vec![next.block_hash()]);
    assert_eq!(rig.looked(101, missing), ["Fetch 1"]);
    assert_eq!(rig.fetched(&next), ["Connect 101"]);
    assert_eq!(rig.tell(FollowerEvent::Fetched(None)), ["Look"]);
    assert_eq!(rig.looked(101, Relation::Same), [""; 0]);
    assert_eq!(rig.pass(0), ["EvictMissing"]);
}

#[test]
fn what_left_is_not_judged_while_a_block_is_under_way() {
    let mut rig = Rig::following();
    let next = block(rig.tip_hash(), 1);
    rig.removed(1, 5);
    rig.message(ZmqTopic::Rawtx, MessageBody::Tx(serialize(&coinbase())));
    rig.announced(next.block_hash());
    assert_eq!(rig.pass(400), [""; 0]);
    assert_eq!(rig.rawblock(&next), ["Connect 101"]);
    assert_eq!(rig.pass(0), ["EvictMissing"]);
}

#[test]
fn what_left_is_not_judged_while_blocks_are_missing() {
    let mut rig = Rig::following();
    rig.removed(1, 5);
    rig.rawblock(&block(id(7).hash, 1));
    let missing = vec![id(101).hash];
    rig.looked(101, Relation::Ahead(missing));
    assert_eq!(rig.pass(20_000), [""; 0]);
}

#[test]
fn a_reading_brings_what_was_missed_and_then_the_verdict() {
    let mut rig = Rig::following();
    rig.notice(Notice::Gap {
        topic: ZmqTopic::Sequence,
        lost: 2,
    });
    assert_eq!(rig.pass(50), ["Look"]);
    assert_eq!(rig.looked(100, Relation::Same), ["ReadMempool"]);
    // Told meanwhile, and not in the list yet.
    rig.rawtx(3);
    rig.accepted(3, 9);
    rig.follow_ups = vec![FollowUp::Fetch(vec![txid(1), txid(2)])];
    assert_eq!(
        rig.read(&[1, 2], 9),
        ["MempoolSnapshot 3", "Transactions 2"]
    );
    assert_eq!(rig.give(&[1, 2], &[1]), ["Fetched 1", "EvictMissing"]);
    assert_eq!(rig.repairs(), 1);
}

#[test]
fn what_came_may_make_others_matter_before_the_verdict() {
    let mut rig = Rig::following();
    reading_after_reconnect(&mut rig);
    rig.follow_ups = vec![FollowUp::Fetch(vec![txid(1)])];
    rig.read(&[1, 2], 9);
    rig.follow_ups = vec![FollowUp::Fetch(vec![txid(2)])];
    assert_eq!(
        rig.give(&[1], &[1]),
        ["Fetched 1", "EvictMissing", "Transactions 1"]
    );
    assert_eq!(rig.reason().as_deref(), Some("reading bitcoind's mempool"));
    assert_eq!(rig.give(&[2], &[2]), ["Fetched 2", "EvictMissing"]);
    assert_eq!(rig.reason(), None);
    assert_eq!(rig.repairs(), 0, "nobody was there to hear of it");
}

/// What was missed while the feed was away is not in a reading from before.
#[test]
fn a_round_from_before_the_feed_was_away_is_no_proof_that_nothing_is_missing() {
    let fetched = |rig: &mut Rig| assert!(rig.give(&[1], &[1]).contains(&"Fetched 1".into()));
    let broken: [fn(&mut Rig); 2] = [
        |rig| _ = rig.notice(Notice::Connected(vec![ZmqTopic::Sequence])),
        |rig| {
            rig.answer(Answer::Transactions {
                txids: vec![txid(1)],
                tip: rig.tip,
                found: Err(failure()),
            });
            rig.until("Transactions");
        },
    ];
    for break_off in broken {
        let mut rig = Rig::following();
        reading_after_reconnect(&mut rig);
        rig.follow_ups = vec![FollowUp::Fetch(vec![txid(1)])];
        rig.read(&[1], 9);
        break_off(&mut rig);
        fetched(&mut rig);
        let reading = Some("reading bitcoind's mempool");
        assert_eq!(rig.reason().as_deref(), reading);
        rig.until("ReadMempool");
        rig.read(&[1], 9);
        assert_eq!(rig.reason(), None);
    }
}

/// The feed was away; a reading has begun.
pub(super) fn reading_after_reconnect(rig: &mut Rig) {
    rig.notice(Notice::Disconnected(ZmqTopic::ALL.to_vec()));
    rig.notice(Notice::Connected(ZmqTopic::ALL.to_vec()));
    rig.until("Look");
    rig.looked(100, Relation::Same);
    rig.until("ReadMempool");
}

#[test]
fn what_left_during_a_reading_has_its_time() {
    let mut rig = Rig::following();
    reading_after_reconnect(&mut rig);
    rig.removed(1, 9);
    assert_eq!(
        rig.read(&[1], 9),
        ["MempoolSnapshot 0", "EvictMissing but 1"]
    );
    assert_eq!(rig.pass(250), ["EvictMissing"]);
}

/// Found by `tests/simulation`: the feed came seconds late, and what the mempool held was told
/// replaced by what it had replaced.
#[test]
fn what_is_heard_after_a_reading_that_held_it_is_old() {
    let mut rig = Rig::following();
    reading_after_reconnect(&mut rig);
    rig.read(&[2], 9);
    rig.rawtx(1);
    assert_eq!(rig.accepted(1, 7), [""; 0]);
    assert_eq!(rig.removed(1, 8), [""; 0]);
    rig.rawtx(3);
    assert_eq!(rig.accepted(3, 9), ["Accepted 3"]);
    // The first block since the node's start says nothing of the changes.
    rig.notice(Notice::Restarted(ZmqTopic::Rawblock));
    rig.rawtx(1);
    assert_eq!(rig.accepted(1, 7), [""; 0]);
    // The node may count anew.
    rig.notice(Notice::Disconnected(ZmqTopic::ALL.to_vec()));
    rig.notice(Notice::Connected(ZmqTopic::ALL.to_vec()));
    rig.rawtx(4);
    assert_eq!(rig.accepted(4, 1), ["Accepted 4"]);
}

/// Found by `tests/simulation`: a block came before what `sequence` had told until then. The
/// payment with which it conflicts was told; its removal was forgotten in a restart, and at the
/// block's disconnect what it held was told replaced by that payment.
#[test]
fn what_is_accepted_before_a_block_that_overtook_it_is_asked_about() {
    let mut rig = Rig::following_at(apart());
    let mined = block(id(100).hash, 1);
    rig.rawtx(1);
    assert_eq!(rig.rawblock(&mined), ["Connect 101"]);
    assert_eq!(rig.accepted(1, 5), ["Rawtx 1"]);
    rig.rawtx(2);
    rig.announced(mined.block_hash());
    assert_eq!(rig.accepted(2, 6), ["Accepted 2"]);
    // In the usual order.
    let next = block(mined.block_hash(), 2);
    rig.announced(next.block_hash());
    rig.rawblock(&next);
    rig.rawtx(3);
    assert_eq!(rig.accepted(3, 7), ["Accepted 3"]);
}

/// The whole mempool, after a start: what is fetched then takes minutes.
#[test]
fn what_is_accepted_before_such_a_block_is_asked_about_while_what_a_reading_brought_is_fetched() {
    let mut rig = Rig::following_at(apart());
    reading_after_reconnect(&mut rig);
    rig.follow_ups = vec![FollowUp::Fetch(vec![txid(1)])];
    assert_eq!(rig.read(&[1], 5), ["MempoolSnapshot 1", "Transactions 1"]);
    assert_eq!(rig.rawblock(&block(id(100).hash, 1)), ["Connect 101"]);
    rig.rawtx(2);
    assert_eq!(rig.accepted(2, 5), ["Rawtx 2"]);
}

/// `sequence` is ahead of blocks that are missing.
#[test]
fn blocks_from_before_the_first_reading_are_no_reason_to_ask() {
    let mut rig = Rig::new(config::Bitcoind::default(), Some(id(100)));
    rig.tell(FollowerEvent::Found(apart()));
    rig.looked(100, Relation::Same);
    rig.notice(Notice::Connected(ZmqTopic::ALL.to_vec()));
    rig.rawblock(&block(id(100).hash, 1));
    rig.rawtx(1);
    assert_eq!(rig.accepted(1, 5), ["Accepted 1"]);
}

#[test]
fn what_was_asked_before_a_reading_is_asked_again_after_it() {
    let mut rig = Rig::following();
    reading_after_reconnect(&mut rig);
    rig.accepted(1, 5);
    rig.read(&[], 7);
    assert_eq!(rig.give(&[1], &[1]), ["Transactions 1"]);
    assert_eq!(rig.removed(1, 6), [""; 0]);
    // That was before the reading, and the question after it.
    assert_eq!(rig.give(&[1], &[1]), ["Fetched 1", "EvictMissing"]);
}

#[test]
fn what_a_reading_lacks_is_not_judged_while_blocks_are_missing() {
    let mut rig = Rig::following();
    reading_after_reconnect(&mut rig);
    rig.follow_ups = vec![FollowUp::Fetch(vec![txid(1)])];
    rig.read(&[1], 9);
    rig.rawblock(&block(id(7).hash, 1));
    let next = block(rig.tip_hash(), 1);
    rig.looked(101, Relation::Ahead(vec![next.block_hash()]));
    assert_eq!(rig.give(&[1], &[1]), ["Fetched 1"]);
    assert_eq!(rig.fetched(&next), ["Connect 101"]);
    assert_eq!(rig.tell(FollowerEvent::Fetched(None)), ["Look"]);
    assert_eq!(rig.looked(101, Relation::Same), ["EvictMissing"]);
}

#[test]
fn a_reading_that_a_block_overtook_is_thrown_away() {
    let mut rig = Rig::following();
    reading_after_reconnect(&mut rig);
    let next = block(rig.tip_hash(), 1);
    rig.rawblock(&next);
    assert_eq!(rig.read(&[], 9), [""; 0]);
    assert_eq!(rig.pass(50), ["ReadMempool"]);
}

#[test]
fn a_node_whose_tip_moves_or_that_loads_its_mempool_is_read_again() {
    let mut rig = Rig::following();
    reading_after_reconnect(&mut rig);
    rig.answer(Answer::Mempool(Ok(MempoolRead::Moved)));
    assert_eq!(rig.pass(50), ["Look"]);
    rig.looked(100, Relation::Same);
    rig.until("ReadMempool");
    let info = MempoolInfo::default();
    rig.answer(Answer::Mempool(Ok(MempoolRead::Loading(info))));
    let loading = Some("bitcoind is loading its mempool");
    assert_eq!(rig.reason().as_deref(), loading);
    assert_eq!(rig.sleeps(), 1000);
    assert_eq!(rig.pass(1000), ["ReadMempool"]);
}

#[test]
fn the_mempool_is_read_at_the_nodes_tip_only() {
    let mut rig = Rig::following();
    rig.rawblock(&block(id(7).hash, 1));
    rig.looked(101, Relation::Ahead(vec![id(101).hash]));
    rig.notice(Notice::Gap {
        topic: ZmqTopic::Rawtx,
        lost: 1,
    });
    assert_eq!(rig.pass(5000), [""; 0]);
    assert_eq!(rig.tell(FollowerEvent::Fetched(None)), ["Look"]);
    rig.looked(100, Relation::Same);
    rig.until("ReadMempool");
}

#[test]
fn an_answer_about_what_left_meanwhile_does_not_stand() {
    let mut rig = Rig::following();
    rig.accepted(1, 5);
    rig.removed(1, 6);
    assert_eq!(rig.give(&[1], &[1]), ["Transactions 1"], "once more");
    assert_eq!(rig.give(&[1], &[]), [""; 0]);
    rig.accepted(2, 7);
    rig.removed(2, 8);
    assert_eq!(rig.accepted(2, 9), [""; 0], "it is being asked for");
    assert_eq!(rig.give(&[2], &[2]), ["Fetched 2"], "it came back");
    rig.accepted(3, 10);
    rig.removed(3, 11);
    rig.accepted(3, 12);
    assert_eq!(
        rig.give(&[3], &[]),
        ["Transactions 1"],
        "it was not back yet"
    );
}

#[test]
fn an_answer_from_before_a_block_is_asked_for_again() {
    let mut rig = Rig::following();
    rig.accepted(1, 5);
    let before = rig.tip;
    rig.rawblock(&block(rig.tip_hash(), 1));
    assert_eq!(rig.give_at(before, &[1], &[1]), ["Transactions 1"]);
    assert_eq!(rig.give(&[1], &[1]), ["Fetched 1"]);
}

#[test]
fn what_is_fetched_is_told_parents_first() {
    let mut rig = Rig::following();
    let parent = tx(1);
    let child = spending(OutPoint::new(parent.compute_txid(), 0), 2);
    let txids = vec![child.compute_txid(), parent.compute_txid()];
    rig.tell(FollowerEvent::Asked(FollowUp::Fetch(txids.clone())));
    let tip = rig.tip;
    let said = rig.answer(Answer::Transactions {
        txids,
        tip,
        found: Ok([child, parent].iter().map(|tx| Some(tx.into())).collect()),
    });
    assert_eq!(said, ["Fetched 1", "Fetched 2"]);
}

/// A node that lists a hundred thousand transactions is busy with it.
#[test]
fn the_poll_leaves_the_mempool_to_a_feed_that_tells_everything() {
    let mut rig = Rig::following();
    assert!(rig.pass(3_600_000).contains(&"Look".to_owned()));
    rig.looked(100, Relation::Same);
    rig.until("ReadMempool");
    rig.now.instant += Duration::from_millis(500);
    assert_eq!(rig.read(&[], 1), ["MempoolSnapshot 0", "EvictMissing"]);
    let interval = Duration::from_secs(1);
    (rig.follower.interval, rig.follower.next_poll) = (interval, rig.now.instant);
    let mut rested = 0;
    while !rig.open.contains(&"ReadMempool") {
        rig.pass(1000);
        rig.looked(100, Relation::Same);
        rested += 1;
    }
    assert_eq!(rested, 25, "fifty times as long as the reading took");
}

#[test]
fn what_the_poll_finds_in_the_mempool_counts_as_a_repair() {
    let mut rig = Rig::following();
    assert!(rig.pass(3_600_000).contains(&"Look".to_owned()));
    rig.looked(100, Relation::Same);
    rig.until("ReadMempool");
    rig.follow_ups = vec![FollowUp::Fetch(vec![txid(1)])];
    rig.read(&[1], 9);
    rig.give(&[1], &[1]);
    assert_eq!(rig.repairs(), 1);
    let status = rig.status().reconcile;
    assert_eq!(status.last_run, Some(rig.now.ms));
}

#[test]
fn the_tracker_is_told_which_transactions_the_node_lets_be_replaced_when_that_changes() {
    let mut rig = Rig::following();
    reading_after_reconnect(&mut rig);
    assert_eq!(
        rig.read(&[], 9),
        ["MempoolSnapshot 0", "EvictMissing"],
        "as it was"
    );
    reading_after_reconnect(&mut rig);
    let info = MempoolInfo {
        fullrbf: Some(false),
        ..MempoolInfo::default()
    };
    let read = MempoolRead::Loading(info);
    assert_eq!(rig.answer(Answer::Mempool(Ok(read))), ["Policy"]);
}

#[test]
fn what_was_announced_before_a_reading_does_not_meet_its_transaction_after_it() {
    let mut rig = Rig::following_at(apart());
    reading_after_reconnect(&mut rig);
    rig.accepted(1, 5);
    rig.read(&[2], 9);
    assert_eq!(rig.rawtx(1), [""; 0], "2 may have replaced it");
}

#[test]
fn what_was_checked_before_a_reading_is_checked_again_after_it() {
    let mut rig = Rig::following_at(without_sequence());
    let ask = FollowerEvent::Asked(FollowUp::Check((&tx(1)).into()));
    assert_eq!(rig.tell(ask), ["InMempool 1"]);
    reading_after_reconnect(&mut rig);
    rig.read(&[2], 9);
    let held = |rig: &mut Rig| {
        let (txs, tip) = (vec![(&tx(1)).into()], rig.tip);
        let held = Ok(vec![true]);
        rig.answer(Answer::InMempool { txs, tip, held })
    };
    assert_eq!(held(&mut rig), ["InMempool 1"], "2 may have replaced it");
    assert_eq!(held(&mut rig), ["Accepted 1"]);
}

#[test]
fn changes_count_from_the_connection_on() {
    let mut rig = Rig::following();
    rig.notice(Notice::Disconnected(ZmqTopic::ALL.to_vec()));
    rig.until("Look");
    rig.looked(100, Relation::Same);
    rig.until("ReadMempool");
    rig.read(&[], 1000);
    // Another run of the node.
    rig.notice(Notice::Connected(ZmqTopic::ALL.to_vec()));
    rig.rawtx(1);
    assert_eq!(rig.accepted(1, 1), ["Accepted 1"]);
}
