//! A reading lacks so many transactions that one verdict does not evict them all.

use super::mempool::reading_after_reconnect;
use super::*;

#[test]
fn the_mempool_counts_as_read_when_all_that_it_lost_is_evicted() {
    let mut rig = Rig::following();
    reading_after_reconnect(&mut rig);
    rig.unfinished = 2;
    assert_eq!(rig.read(&[], 9), ["MempoolSnapshot 0", "EvictMissing"]);
    let waits = |rig: &mut Rig| rig.reason().as_deref() == Some("reading bitcoind's mempool");
    assert!(waits(&mut rig));
    // Payments are told meanwhile, and what leaves has its time.
    rig.rawtx(1);
    assert_eq!(rig.accepted(1, 9), ["Accepted 1"]);
    assert_eq!(rig.removed(2, 10), ["TxRemoved 1"]);
    assert_eq!(rig.sleeps(), 50);
    assert_eq!(rig.pass(50), ["EvictMissing but 1"]);
    assert!(waits(&mut rig));
    assert_eq!(rig.pass(50), ["EvictMissing but 1"]);
    assert_eq!(rig.reason(), None);
    assert_eq!(rig.pass(150), ["EvictMissing"], "its own");
}

#[test]
fn a_reading_waits_until_all_that_the_last_one_lacked_is_evicted() {
    let mut rig = Rig::following();
    reading_after_reconnect(&mut rig);
    rig.unfinished = 3;
    rig.read(&[], 9);
    rig.notice(Notice::Gap {
        topic: ZmqTopic::Sequence,
        lost: 1,
    });
    rig.until("Look");
    assert_eq!(rig.looked(100, Relation::Same), [""; 0]);
    rig.until("ReadMempool");
    assert_eq!(rig.unfinished, 0);
    assert_eq!(rig.read(&[], 9), ["MempoolSnapshot 0", "EvictMissing"]);
    assert_eq!(rig.reason(), None);
}
