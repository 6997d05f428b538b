//! A feed that is slow, torn or lossy at the worst moment: what happened is told as what it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::stage::{COIN, Kind, Stage, spend, stranger};
use crate::common::{Feed, wait_until};

const FEE: u64 = 1_000;
const HIGH: u64 = 10_000;

/// A payment that is replaced by one to strangers, and what is told of it.
fn replaced(stage: &Stage) {
    let told = stage.watched();
    let coin = stage.coin();
    stage.send("to us", &spend(&[coin], &[(&told.script, COIN - FEE)]));
    let mut lines = vec!["new to us mempool +9999000", "balance 0>9999000"];
    told.is(&lines);
    stage.send(
        "to them",
        &spend(&[coin], &[(&stranger("them"), COIN - HIGH)]),
    );
    lines.extend(["to us mempool>replaced by to them", "balance 9999000>0"]);
    told.is(&lines);
    stage.end(&[told]);
}

/// Between the removal and its successor lies more than the wallet's work on both.
#[test]
fn a_replacement_is_told_as_one_on_a_slow_line() {
    let stage = Stage::fed(|node| vec![Feed::whole(node)]);
    stage.feeds[0].set(|_, _| {
        std::thread::sleep(Duration::from_millis(60));
        true
    });
    replaced(&stage);
}

/// `rawtx` comes from an address of its own and is lost: the successor must be fetched, and the
/// removal waits for it.
#[test]
fn a_replacement_is_told_as_one_when_its_transaction_is_lost_on_another_address() {
    let lost = Box::new(|topic: &str, _| topic != "rawtx");
    replaced(&Stage::fed(|node| {
        vec![Feed::of(node, lost), Feed::whole(node)]
    }));
}

/// Removal and successor are lost together; the next message shows the gap, and the next reading
/// both.
#[test]
fn a_lost_replacement_is_told_as_one_after_the_gap_is_noticed() {
    let (dark, lost) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let (deaf, count) = (Arc::clone(&dark), Arc::<AtomicUsize>::clone(&lost));
    let stage = Stage::fed(|node| {
        let fate = move |topic: &str, _| {
            let is_lost = topic != "rawblock" && deaf.load(Ordering::Relaxed);
            count.fetch_add(usize::from(is_lost), Ordering::Relaxed);
            !is_lost
        };
        vec![Feed::of(node, Box::new(fate))]
    });
    let told = stage.watched();
    let coin = stage.coin();
    stage.send("to us", &spend(&[coin], &[(&told.script, COIN - FEE)]));
    let mut lines = vec!["new to us mempool +9999000", "balance 0>9999000"];
    told.is(&lines);
    dark.store(true, Ordering::Relaxed);
    stage.send(
        "to them",
        &spend(&[coin], &[(&stranger("them"), COIN - HIGH)]),
    );
    wait_until("removal, successor and its transaction are lost", || {
        (lost.load(Ordering::Relaxed) >= 3).then_some(())
    });
    dark.store(false, Ordering::Relaxed);
    stage.send(
        "unrelated",
        &spend(&[stage.coin()], &[(&stranger("others"), COIN - FEE)]),
    );
    lines.extend(["to us mempool>replaced by to them", "balance 9999000>0"]);
    told.is(&lines);
    stage.end(&[told]);
}

/// `rawtx` alone, from a node that publishes more: nothing says what left but the poll.
#[test]
fn transactions_alone_are_enough_for_payments_and_replacements() {
    replaced(&Stage::with_topics(Kind::Unnumbered, &["rawtx"]));
}
