//! Between a disconnect and the reading after it, and news from before it.

use super::*;

/// Found by `tests/simulation`: the feed was late by seconds, and what had been mined was told
/// replaced by what it had displaced.
#[test]
fn what_is_heard_after_a_disconnect_and_before_a_reading_is_asked_about() {
    let mut rig = disconnecting();
    rig.rawtx(1);
    assert_eq!(rig.accepted(1, 5), ["Rawtx 1"]);
    rig.tell(FollowerEvent::Fetched(None));
    rig.until("ReadMempool");
    rig.read(&[1], 6);
    rig.rawtx(2);
    assert_eq!(rig.accepted(2, 6), ["Accepted 2"]);
}

/// What the feed told before the stop may still wait when monitoring goes on.
#[test]
fn what_is_heard_after_a_start_and_before_a_reading_is_asked_about() {
    let mut rig = disconnecting();
    rig.tell(FollowerEvent::Monitoring(false));
    rig.tell(FollowerEvent::Monitoring(true));
    rig.rawtx(1);
    assert_eq!(rig.accepted(1, 5), ["Rawtx 1"]);
    rig.looked(0, Relation::Same);
    rig.until("ReadMempool");
    rig.read(&[1], 6);
    rig.rawtx(2);
    assert_eq!(rig.accepted(2, 6), ["Accepted 2"]);
}

/// Blocks are being fetched.
fn disconnecting() -> Rig {
    let mut rig = Rig::following();
    rig.rawblock(&block(id(7).hash, 1));
    let next = vec![id(200).hash];
    let fork = id(99);
    rig.looked(100, Relation::Parted { fork, next });
    rig
}

/// It is accepted, and the tracker wants to know whether it still is in the mempool.
fn check(rig: &mut Rig, n: u32, number: u64) -> Vec<String> {
    rig.rawtx(n);
    assert_eq!(rig.accepted(n, number), [format!("Rawtx {n}")]);
    rig.tell(FollowerEvent::Asked(FollowUp::Check((&tx(n)).into())))
}

fn held(rig: &mut Rig, held: &[(u32, bool)]) -> Vec<String> {
    let tip = rig.tip;
    rig.answer(Answer::InMempool {
        txs: held.iter().map(|(n, _)| (&tx(*n)).into()).collect(),
        tip,
        held: Ok(held.iter().map(|(_, held)| *held).collect()),
    })
}

#[test]
fn what_left_while_it_was_checked_is_checked_again() {
    let mut rig = disconnecting();
    assert_eq!(check(&mut rig, 1, 5), ["InMempool 1"]);
    assert_eq!(check(&mut rig, 2, 6), [""; 0]);
    assert_eq!(check(&mut rig, 3, 7), [""; 0]);
    assert_eq!(
        held(&mut rig, &[(1, true)]),
        ["Accepted 1", "InMempool 2 3"]
    );
    rig.removed(2, 8);
    let again = held(&mut rig, &[(2, true), (3, true)]);
    assert_eq!(again, ["Accepted 3", "InMempool 2"]);
    assert_eq!(held(&mut rig, &[(2, false)]), [""; 0]);
}

/// It may be the successor, which the node tells late while it lists its mempool.
#[test]
fn what_left_is_not_judged_while_its_successor_is_checked() {
    let mut rig = disconnecting();
    rig.tell(FollowerEvent::Fetched(None));
    rig.looked(0, Relation::Same);
    assert_eq!(rig.removed(1, 5), ["TxRemoved 1"]);
    assert_eq!(check(&mut rig, 2, 6), ["InMempool 2"]);
    assert_eq!(rig.pass(250), [""; 0]);
    assert_eq!(held(&mut rig, &[(2, true)]), ["Accepted 2"]);
    assert_eq!(rig.pass(0), ["EvictMissing"]);
}

/// Found by `tests/simulation`: the whole feed was late by seconds, and the block was connected a
/// second time. What the mempool had taken in its place was told to conflict with it.
#[test]
fn a_block_that_was_undone_after_a_look_is_not_connected_by_late_news_of_it() {
    let mut rig = Rig::following();
    let mut blocks = vec![block(rig.tip_hash(), 1)];
    blocks.push(block(blocks[0].block_hash(), 2));
    let hashes: Vec<_> = blocks.iter().map(Block::block_hash).collect();
    rig.rawblock(&block(id(7).hash, 1));
    rig.looked(102, Relation::Ahead(hashes.clone()));
    rig.fetched(&blocks[0]);
    rig.fetched(&blocks[1]);
    rig.tell(FollowerEvent::Fetched(None));
    let (fork, next) = (id(100), vec![id(201).hash]);
    let parted = Relation::Parted { fork, next };
    assert_eq!(rig.looked(201, parted), ["Disconnect 100", "Fetch 1"]);
    rig.tell(FollowerEvent::Fetched(None));
    rig.looked(100, Relation::Same);
    for _ in 0..2 {
        rig.announced(hashes[0]);
        assert_eq!(rig.rawblock(&blocks[0]), ["Look"]);
        rig.looked(100, Relation::Same);
    }
    // The node has it again.
    rig.announced(hashes[0]);
    assert_eq!(rig.rawblock(&blocks[0]), ["Look"]);
    rig.looked(101, Relation::Ahead(vec![hashes[0]]));
    assert_eq!(rig.fetched(&blocks[0]), ["Connect 101"]);
    rig.tell(FollowerEvent::Fetched(None));
    rig.looked(101, Relation::Same);
    assert_eq!(rig.rawblock(&blocks[1]), ["Look"], "the second is not");
}

/// The tip that it started with, too, of which it has seen no block.
#[test]
fn a_tip_from_before_the_start_that_was_undone_is_not_connected_by_late_news_of_it() {
    let parent = block(id(98).hash, 1);
    let ours = block(parent.block_hash(), 2);
    let tip = BlockId {
        height: 100,
        hash: ours.block_hash(),
    };
    let mut rig = Rig::new(config::Bitcoind::default(), Some(tip));
    rig.tell(FollowerEvent::Found(shared()));
    let (height, hash) = (99, parent.block_hash());
    let fork = BlockId { height, hash };
    let next = vec![id(200).hash];
    let said = rig.looked(100, Relation::Parted { fork, next });
    assert_eq!(said, ["Disconnect 99", "Fetch 1"]);
    rig.notice(Notice::Connected(ZmqTopic::ALL.to_vec()));
    rig.until("Look");
    rig.looked(99, Relation::Same);
    assert!(!rig.rawblock(&ours).contains(&"Connect 100".to_owned()));
}

/// Found by `tests/simulation`: `rawblock` was late by seconds.
#[test]
fn a_block_that_was_announced_before_a_look_and_is_not_there_is_not_connected_by_late_news() {
    let mut rig = Rig::following();
    let next = block(rig.tip_hash(), 1);
    rig.announced(next.block_hash());
    assert_eq!(rig.pass(500), ["Look"]);
    rig.looked(100, Relation::Same);
    assert_eq!(rig.rawblock(&next), ["Look"]);
    // The node has it again.
    rig.looked(101, Relation::Ahead(vec![next.block_hash()]));
    assert_eq!(rig.fetched(&next), ["Connect 101"]);
}

#[test]
fn a_block_that_is_announced_during_a_look_is_connected_when_it_comes() {
    let mut rig = Rig::following();
    let next = block(rig.tip_hash(), 1);
    assert_eq!(rig.rawblock(&block(id(7).hash, 1)), ["Look"]);
    rig.announced(next.block_hash());
    rig.looked(100, Relation::Same);
    assert_eq!(rig.rawblock(&next), ["Connect 101"]);
}

/// A look shows a window of what is ahead.
#[test]
fn a_block_that_was_announced_and_is_beyond_what_a_look_shows_is_connected_when_it_comes() {
    let mut rig = Rig::following();
    let first = block(rig.tip_hash(), 1);
    let second = block(first.block_hash(), 2);
    rig.announced(second.block_hash());
    rig.until("Look");
    rig.looked(102, Relation::Ahead(vec![first.block_hash()]));
    assert_eq!(rig.fetched(&first), ["Connect 101"]);
    assert_eq!(rig.rawblock(&second), ["Connect 102"]);
}
