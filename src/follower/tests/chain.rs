use super::*;

#[test]
fn an_empty_store_starts_with_a_window_of_the_nodes_chain() {
    let mut rig = Rig::new(config::Bitcoind::default(), None);
    rig.tell(FollowerEvent::Found(shared()));
    assert_eq!(rig.looked(50, Relation::Empty), ["StartWindow"]);
    // The tip moved; it looks again.
    assert_eq!(rig.answer(Answer::StartWindow(Ok(None))), [""; 0]);
    assert_eq!(rig.pass(50), ["Look"]);
    rig.looked(51, Relation::Empty);
    let window = (50, vec![(id(50).hash, 5), (id(51).hash, 6)]);
    assert_eq!(
        rig.answer(Answer::StartWindow(Ok(Some(window)))),
        ["Start 2", "Look"]
    );
    assert_eq!(rig.follower.position().tip, Some(id(51)));
    rig.looked(51, Relation::Same);
    assert!(rig.follower.position().at_node_tip);
}

/// It may be confirmed in the window.
#[test]
fn before_the_start_nothing_is_told_of_the_mempool() {
    let mut rig = Rig::new(config::Bitcoind::default(), None);
    rig.tell(FollowerEvent::Found(shared()));
    rig.notice(Notice::Connected(ZmqTopic::ALL.to_vec()));
    for said in [
        rig.rawtx(1),
        rig.accepted(1, 5),
        rig.accepted(2, 6),
        rig.removed(3, 7),
    ] {
        assert_eq!(said, [""; 0]);
    }
    // The first look is of before the connection.
    assert_eq!(rig.looked(51, Relation::Empty), ["Look"]);
    rig.looked(51, Relation::Empty);
    let window = (50, vec![(id(50).hash, 5), (id(51).hash, 6)]);
    let window = Answer::StartWindow(Ok(Some(window)));
    assert_eq!(rig.answer(window), ["Start 2", "Look"]);
    rig.looked(51, Relation::Same);
    rig.until("ReadMempool");
    rig.rawtx(4);
    assert_eq!(rig.accepted(4, 8), ["Accepted 4"]);
}

#[test]
fn a_block_on_our_tip_is_connected_without_a_call() {
    let mut rig = Rig::following();
    let next = block(rig.tip_hash(), 1);
    assert_eq!(rig.rawblock(&next), ["Connect 101"]);
    assert!(rig.follower.position().at_node_tip);
    assert_eq!(rig.status().node.blocks, 101);
    assert_eq!(rig.rawblock(&next), [""; 0], "it comes twice");
}

#[test]
fn a_block_elsewhere_or_none_at_all_is_a_reason_to_look() {
    let mut rig = Rig::following();
    assert_eq!(rig.rawblock(&block(id(7).hash, 1)), ["Look"]);
    rig.looked(100, Relation::Same);
    let mut damaged = serialize(&block(rig.tip_hash(), 1));
    damaged.truncate(90);
    let body = MessageBody::Block(damaged);
    rig.refuse = true;
    assert_eq!(
        rig.message(ZmqTopic::Rawblock, body),
        ["Connect 101", "Look"]
    );
    assert_eq!(rig.follower.position().tip, Some(id(100)));
    let garbage = MessageBody::Block(vec![1, 2, 3]);
    assert_eq!(rig.message(ZmqTopic::Rawblock, garbage), [""; 0]);
}

#[test]
fn an_announced_block_is_waited_for_and_then_looked_for() {
    let mut rig = Rig::following();
    let next = block(rig.tip_hash(), 1);
    assert_eq!(rig.announced(next.block_hash()), [""; 0]);
    assert_eq!(rig.sleeps(), 500);
    rig.rawblock(&next);
    assert!(
        rig.sleeps() > 500,
        "it came, and nothing is to be looked for"
    );
    let next = block(rig.tip_hash(), 1);
    rig.announced(next.block_hash());
    assert_eq!(rig.pass(499), [""; 0]);
    assert_eq!(rig.pass(1), ["Look"]);
}

#[test]
fn an_announced_block_that_cannot_come_is_looked_for_at_once() {
    let endpoints = Endpoints {
        rawblock: None,
        ..shared()
    };
    let mut rig = Rig::following_at(endpoints);
    let ours = rig.tip_hash();
    assert_eq!(rig.announced(ours), [""; 0], "we have it");
    assert_eq!(rig.announced(id(101).hash), ["Look"]);
}

#[test]
fn a_block_that_came_while_a_look_was_under_way_makes_it_look_again() {
    let mut rig = Rig::following();
    rig.rawblock(&block(id(7).hash, 1));
    rig.rawblock(&block(rig.tip_hash(), 2));
    let relation = Relation::Ahead(vec![id(101).hash]);
    assert_eq!(rig.looked(101, relation), ["Look"]);
}

/// What a look finds ahead of us is fetched.
fn fetching(count: usize) -> (Rig, Vec<Block>) {
    let mut rig = Rig::following();
    let (mut parent, mut blocks) = (rig.tip_hash(), Vec::new());
    for n in 0..count {
        let next = block(parent, n as u32);
        parent = next.block_hash();
        blocks.push(next);
    }
    rig.rawblock(&block(id(7).hash, 1));
    let next = blocks.iter().map(Block::block_hash).collect();
    let said = rig.looked(100 + count as u32, Relation::Ahead(next));
    assert_eq!(said, [format!("Fetch {count}")]);
    (rig, blocks)
}

#[test]
fn blocks_that_are_fetched_are_connected_and_then_looked_after() {
    let (mut rig, blocks) = fetching(2);
    assert_eq!(rig.fetched(&blocks[0]), ["Connect 101"]);
    // The second one comes over ZMQ first.
    assert_eq!(rig.rawblock(&blocks[1]), ["Connect 102"]);
    assert_eq!(rig.fetched(&blocks[1]), [""; 0], "it is ours already");
    assert!(!rig.follower.position().at_node_tip, "not before the look");
    assert_eq!(rig.tell(FollowerEvent::Fetched(None)), ["Look"]);
    rig.looked(102, Relation::Same);
    assert!(rig.follower.position().at_node_tip);
}

#[test]
fn a_fetched_block_that_does_not_fit_ends_the_fetch() {
    let (mut rig, blocks) = fetching(2);
    assert_eq!(rig.fetched(&blocks[1]), ["StopFetch"]);
    assert_eq!(rig.pass(50), ["Look"]);
}

#[test]
fn a_fetched_block_that_is_refused_is_fetched_again_after_pauses_that_grow() {
    let (mut rig, blocks) = fetching(1);
    for pause in [250, 500, 1000, 2000] {
        rig.refuse = true;
        assert_eq!(rig.fetched(&blocks[0]), ["Connect 101", "StopFetch"]);
        assert_eq!(rig.pass(pause - 1), [""; 0]);
        assert_eq!(rig.pass(1), ["Look"]);
        let ahead = Relation::Ahead(vec![blocks[0].block_hash()]);
        assert_eq!(rig.looked(101, ahead), ["Fetch 1"]);
    }
}

#[test]
fn a_block_over_zmq_that_is_refused_does_not_end_a_fetch() {
    let (mut rig, blocks) = fetching(2);
    rig.refuse = true;
    assert_eq!(rig.rawblock(&blocks[0]), ["Connect 101"]);
    assert_eq!(rig.fetched(&blocks[0]), ["Connect 101"]);
}

#[test]
fn a_block_that_was_pruned_before_it_was_fetched_is_told() {
    let (mut rig, _) = fetching(1);
    let gone = NodeError::new(NodeErrorKind::Rpc(-1), "Block not available (pruned data)");
    rig.tell(FollowerEvent::Fetched(Some(Err(gone))));
    let reason = rig.reason().expect("it says why");
    assert!(reason.contains("has pruned blocks"), "{reason}");
    assert_eq!(rig.pass(250), ["Look"]);
}

#[test]
fn another_branch_is_followed_from_the_fork() {
    let mut rig = Rig::following();
    rig.rawblock(&block(id(7).hash, 1));
    let branch = block(id(98).hash, 1);
    let parted = Relation::Parted {
        fork: id(98),
        next: vec![branch.block_hash()],
    };
    assert_eq!(rig.looked(99, parted), ["Disconnect 98", "Fetch 1"]);
    assert_eq!(rig.fetched(&branch), ["Connect 99"]);
    rig.tell(FollowerEvent::Fetched(None));
    rig.looked(99, Relation::Same);
    // What came back with the stale block is in the mempool.
    rig.until("ReadMempool");
}

#[test]
fn a_disconnect_that_is_refused_is_tried_again_later() {
    let mut rig = Rig::following();
    rig.rawblock(&block(id(7).hash, 1));
    rig.refuse = true;
    let parted = Relation::Parted {
        fork: id(98),
        next: vec![id(99).hash],
    };
    assert_eq!(rig.looked(99, parted), ["Disconnect 98"]);
    assert_eq!(rig.pass(249), [""; 0]);
    assert_eq!(rig.pass(1), ["Look"]);
}

#[test]
fn blocks_that_were_only_lost_are_believed_to_be_when_the_node_said_so_or_in_a_second_look() {
    let rolled_back = || Relation::Parted {
        fork: id(99),
        next: vec![],
    };
    let mut rig = Rig::following();
    let ours = rig.tip_hash();
    assert_eq!(rig.disconnected(ours), [""; 0]);
    assert_eq!(rig.pass(50), ["Look"], "others may follow");
    assert_eq!(rig.looked(99, rolled_back()), ["Disconnect 99", "Fetch 0"]);

    let mut rig = Rig::following();
    rig.rawblock(&block(id(7).hash, 1));
    assert_eq!(rig.looked(99, rolled_back()), [""; 0]);
    assert_eq!(rig.reason().as_deref(), Some("bitcoind took back blocks"));
    assert_eq!(rig.pass(1000), ["Look"]);
    assert_eq!(rig.looked(99, rolled_back()), ["Disconnect 99", "Fetch 0"]);
}

/// Found by `tests/simulation`: it was connected, and what the mempool had taken in its place was
/// told to conflict with it.
#[test]
fn a_block_that_the_node_takes_back_while_it_is_fetched_is_not_connected() {
    let mut rig = Rig::following();
    let next = block(rig.tip_hash(), 1);
    let ahead = Relation::Ahead(vec![next.block_hash()]);
    rig.rawblock(&block(id(7).hash, 1));
    assert_eq!(rig.looked(101, ahead), ["Fetch 1"]);
    assert_eq!(rig.disconnected(next.block_hash()), ["StopFetch"]);
    assert_eq!(rig.fetched(&next), [""; 0]);
    assert_eq!(rig.pass(50), ["Look"]);
}

#[test]
fn a_look_during_which_the_node_takes_back_a_block_does_not_count() {
    let mut rig = Rig::following();
    let next = block(rig.tip_hash(), 1);
    assert_eq!(rig.rawblock(&block(id(7).hash, 1)), ["Look"]);
    assert_eq!(rig.disconnected(next.block_hash()), [""; 0]);
    let ahead = Relation::Ahead(vec![next.block_hash()]);
    assert_eq!(rig.looked(101, ahead), ["Look"]);
    rig.looked(100, Relation::Same);
    assert_eq!(rig.rawblock(&next), ["Look"], "it comes late");
}

/// Found by `tests/simulation`: the announcement that a block was disconnected was lost, and a look
/// or a fetch of before that had it connected.
#[test]
fn what_is_under_way_while_a_block_may_have_been_taken_back_is_asked_again_once() {
    let doubts: [fn(&mut Rig) -> Vec<String>; 4] = [
        |rig| rig.rawblock(&block(id(99).hash, 2)),
        |rig| rig.gap(ZmqTopic::Sequence),
        |rig| rig.gap(ZmqTopic::Rawblock),
        |rig| rig.notice(Notice::Disconnected(vec![ZmqTopic::Sequence])),
    ];
    for doubt in doubts {
        let mut rig = Rig::following();
        for is_fetched in [false, true, false] {
            let next = block(rig.tip_hash(), 1);
            let height = rig.tip.map_or(0, |tip| tip.height) + 1;
            let ahead = || Relation::Ahead(vec![next.block_hash()]);
            let fetch = "Fetch 1".to_owned();
            rig.rawblock(&block(id(7).hash, 1));
            rig.until("Look");
            if is_fetched {
                assert!(rig.looked(height, ahead()).contains(&fetch));
                assert!(doubt(&mut rig).contains(&"StopFetch".to_owned()));
                assert_eq!(rig.fetched(&next), [""; 0]);
            } else {
                doubt(&mut rig);
                assert!(!rig.looked(height, ahead()).contains(&fetch));
            }
            rig.until("Look");
            // What comes without pause does not keep it from following.
            doubt(&mut rig);
            assert!(rig.looked(height, ahead()).contains(&fetch));
            doubt(&mut rig);
            assert_eq!(rig.fetched(&next), [format!("Connect {height}")]);
            rig.tell(FollowerEvent::Fetched(None));
            rig.until("Look");
            rig.looked(height, Relation::Same);
        }
    }
}

#[test]
fn a_feed_that_is_connected_makes_what_is_under_way_be_asked_again_always() {
    let (next, topics) = (block(id(100).hash, 1), || vec![ZmqTopic::Sequence]);
    let ahead = || Relation::Ahead(vec![next.block_hash()]);
    // It broke off during a look, and the node takes the block back before it is there again.
    let mut rig = Rig::following();
    rig.rawblock(&block(id(7).hash, 1));
    rig.notice(Notice::Disconnected(topics()));
    rig.looked(101, ahead());
    rig.until("Look");
    assert!(rig.looked(101, ahead()).contains(&"Fetch 1".to_owned()));
    let mut said = rig.notice(Notice::Connected(topics()));
    said.extend(rig.gap(ZmqTopic::Sequence));
    assert!(said.contains(&"StopFetch".to_owned()), "{said:?}");
    // The first one, which has no number before it.
    let mut rig = Rig::new(config::Bitcoind::default(), Some(id(100)));
    rig.tell(FollowerEvent::Found(shared()));
    rig.notice(Notice::Connected(topics()));
    assert_eq!(rig.looked(101, ahead()), ["Look"]);
    assert_eq!(rig.looked(101, ahead()), ["Fetch 1"]);
}

/// What comes next is paced, so that losses without pause do not keep it from following.
#[test]
fn after_what_ended_in_a_wait_what_is_under_way_is_asked_again_once_more() {
    let next = block(id(100).hash, 1);
    let ahead = || Relation::Ahead(vec![next.block_hash()]);
    let fetch = |rig: &mut Rig| {
        rig.until("Look");
        assert!(rig.looked(101, ahead()).contains(&"Fetch 1".to_owned()));
    };
    let ends: [fn(&mut Rig, &Block); 4] = [
        |rig, _| drop(rig.answer(Answer::Look(Err(failure())))),
        |rig, _| {
            let (fork, next) = (id(99), vec![]);
            rig.looked(99, Relation::Parted { fork, next });
            assert_eq!(rig.reason().as_deref(), Some("bitcoind took back blocks"));
        },
        |rig, next| {
            rig.looked(101, Relation::Ahead(vec![next.block_hash()]));
            rig.tell(FollowerEvent::Fetched(Some(Err(failure()))));
        },
        |rig, next| {
            rig.looked(101, Relation::Ahead(vec![next.block_hash()]));
            rig.refuse = true;
            assert_eq!(rig.fetched(next), ["Connect 101", "StopFetch"]);
        },
    ];
    for end in ends {
        let mut rig = Rig::following();
        rig.rawblock(&block(id(7).hash, 1));
        rig.gap(ZmqTopic::Sequence);
        rig.looked(101, ahead());
        rig.until("Look");
        end(&mut rig, &next);
        fetch(&mut rig);
        assert!(
            rig.gap(ZmqTopic::Sequence)
                .contains(&"StopFetch".to_owned())
        );
    }
}

#[test]
fn a_thousand_blocks_are_followed_while_others_and_losses_come_without_pause() {
    let (mut rig, blocks) = fetching(1000);
    let (mut looks, mut next) = (1, 0);
    while next < blocks.len() {
        let mut said = rig.fetched(&blocks[next]);
        next += 1;
        said.extend(rig.rawblock(&block(id(7).hash, next as u32)));
        said.extend(rig.gap(ZmqTopic::Sequence));
        if said.contains(&"StopFetch".to_owned()) {
            rig.until("Look");
            looks += 1;
            let rest = blocks[next..].iter().map(Block::block_hash).collect();
            rig.gap(ZmqTopic::Rawblock);
            rig.looked(1100, Relation::Ahead(rest));
        }
    }
    assert_eq!((rig.tip.map(|tip| tip.height), looks), (Some(1100), 2));
}

#[test]
fn a_look_of_before_monitoring_was_stopped_does_not_count() {
    let mut rig = Rig::following();
    rig.rawblock(&block(id(7).hash, 1));
    rig.tell(FollowerEvent::Monitoring(false));
    rig.tell(FollowerEvent::Monitoring(true));
    let ahead = Relation::Ahead(vec![id(101).hash]);
    assert_eq!(rig.looked(101, ahead), ["Look"]);
}

/// What the missing blocks hold would be told evicted.
#[test]
fn while_blocks_are_missing_of_a_fetch_that_was_stopped_we_are_not_at_the_nodes_tip() {
    let (mut rig, blocks) = fetching(3);
    rig.fetched(&blocks[0]);
    rig.rawblock(&blocks[1]);
    assert!(
        rig.gap(ZmqTopic::Sequence)
            .contains(&"StopFetch".to_owned())
    );
    assert!(!rig.follower.position().at_node_tip);
}

#[test]
fn a_look_that_is_old_does_not_say_where_the_nodes_tip_is() {
    let mut rig = Rig::following();
    rig.rawblock(&block(id(7).hash, 1));
    rig.rawblock(&block(rig.tip_hash(), 2));
    rig.looked(102, Relation::Ahead(vec![id(101).hash, id(102).hash]));
    assert!(rig.follower.position().at_node_tip);
}

#[test]
fn a_block_that_is_fetched_may_come_over_zmq() {
    let (mut rig, blocks) = fetching(2);
    assert_eq!(rig.rawblock(&blocks[1]), [""; 0]);
    assert_eq!(rig.fetched(&blocks[0]), ["Connect 101"]);
}

#[test]
fn a_look_during_which_transactions_are_lost_counts() {
    let mut rig = Rig::following();
    rig.rawblock(&block(id(7).hash, 1));
    rig.gap(ZmqTopic::Rawtx);
    let ahead = Relation::Ahead(vec![id(101).hash]);
    assert_eq!(rig.looked(101, ahead), ["Fetch 1"]);
}

#[test]
fn a_disconnected_block_that_is_connected_again_is_no_witness() {
    let mut rig = Rig::following();
    let ours = rig.tip_hash();
    rig.disconnected(ours);
    rig.announced(ours);
    rig.pass(50);
    let rolled_back = Relation::Parted {
        fork: id(99),
        next: vec![],
    };
    assert_eq!(rig.looked(99, rolled_back), [""; 0]);
}

#[test]
fn a_disconnected_block_that_came_again_is_no_witness() {
    let rolled_back = || Relation::Parted {
        fork: id(99),
        next: vec![],
    };
    let mut rig = Rig::following();
    let take_back = |rig: &mut Rig, hash| {
        rig.disconnected(hash);
        rig.until("Look");
        assert_eq!(rig.looked(99, rolled_back()), ["Disconnect 99", "Fetch 0"]);
        rig.tell(FollowerEvent::Fetched(None));
        rig.looked(99, Relation::Same);
    };
    let ours = rig.tip_hash();
    take_back(&mut rig, ours);
    let next = block(rig.tip_hash(), 1);
    assert_eq!(rig.rawblock(&next), ["Connect 100"]);
    take_back(&mut rig, next.block_hash());
    assert_eq!(rig.rawblock(&next), ["Look"], "it may have come late");
    let again = Relation::Ahead(vec![next.block_hash()]);
    assert_eq!(rig.looked(100, again), ["Fetch 1"]);
    assert_eq!(rig.fetched(&next), ["Connect 100"]);
    rig.tell(FollowerEvent::Fetched(None));
    rig.looked(100, Relation::Same);
    rig.rawblock(&block(id(7).hash, 1));
    assert_eq!(rig.looked(99, rolled_back()), [""; 0]);
}

#[test]
fn a_node_of_another_chain_is_not_followed() {
    let mut rig = Rig::following();
    rig.rawblock(&block(id(7).hash, 1));
    let mut node = blockchain(id(101));
    node.chain = "test".into();
    let relation = Relation::Ahead(vec![id(101).hash]);
    let look = TipComparison { node, relation };
    assert_eq!(rig.answer(Answer::Look(Ok(look))), [""; 0]);
    let status = rig.status();
    assert!(!status.available && status.error.is_some(), "{status:?}");
}

#[test]
fn what_the_poll_finds_counts_as_a_repair_and_what_was_told_does_not() {
    let (mut told, _) = fetching(3);
    assert_eq!(told.repairs(), 0);
    for topic in [ZmqTopic::Rawblock, ZmqTopic::Sequence] {
        for is_looking in [false, true] {
            let mut lost = Rig::following();
            if is_looking {
                lost.pass(3_600_000);
            }
            lost.gap(topic);
            lost.until("Look");
            let ahead = || Relation::Ahead(vec![id(101).hash]);
            if is_looking {
                lost.looked(101, ahead());
                lost.until("Look");
            }
            assert!(lost.looked(101, ahead()).contains(&"Fetch 1".to_owned()));
            assert_eq!(lost.repairs(), 1, "{topic:?}, {is_looking}");
        }
    }
    let mut polled = Rig::following();
    assert!(polled.pass(3_600_000).contains(&"Look".to_owned()));
    let next = vec![id(101).hash, id(102).hash];
    assert!(
        polled
            .looked(102, Relation::Ahead(next))
            .contains(&"Fetch 2".to_owned())
    );
    assert_eq!(polled.repairs(), 2);
}
