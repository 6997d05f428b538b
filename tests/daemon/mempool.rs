//! What happens to unconfirmed transactions: replaced, conflicted, evicted, back again. Each life
//! is told as lines, the same for every kind of feed.

mod load;
mod races;
mod scripts;
pub mod stage;

use bitcoin::ScriptBuf;
use serde_json::json;

use self::stage::{COIN, Kind, Stage, Told, free, out, spend, stranger};

/// Fees; each pays for replacing the one before.
const FEE: u64 = 1_000;
const HIGH: u64 = 10_000;
const HIGHER: u64 = 100_000;

/// What anybody can spend.
fn anyone() -> ScriptBuf {
    free(1).to_p2wsh()
}

/// What happens, and to whom.
type Life = fn(&Stage) -> Vec<Told<'_>>;

/// Every life at the same time, each with addresses of its own; what needs the node for itself
/// comes after.
fn lives(kind: Kind) {
    let stage = Stage::new(kind);
    let together: [(&str, Life); 9] = [
        ("replaced by another payment", replaced_by_another_payment),
        (
            "replaced by a payment to strangers",
            replaced_by_a_payment_to_strangers,
        ),
        ("an ancestor is replaced", an_ancestor_is_replaced),
        (
            "replaced twice, then confirmed",
            replaced_twice_then_confirmed,
        ),
        ("conflicted by a block", conflicted_by_a_block),
        (
            "a spend is conflicted by a block",
            a_spend_is_conflicted_by_a_block,
        ),
        (
            "replaced, and mined after all",
            replaced_and_mined_after_all,
        ),
        ("a watched output's spend is replaced", a_spend_is_replaced),
        ("watched late", watched_late),
    ];
    let mut all: Vec<Told> = std::thread::scope(|scope| {
        let spawn = |(name, life): &(&str, Life)| {
            let (stage, life) = (&stage, *life);
            std::thread::Builder::new()
                .name((*name).to_owned())
                .spawn_scoped(scope, move || life(stage))
                .expect("a thread")
        };
        let running: Vec<_> = together.iter().map(spawn).collect();
        running
            .into_iter()
            .flat_map(|life| life.join().expect("this life is told right"))
            .collect()
    });
    stage.end(&all);
    all.extend(confirmed_unconfirmed_confirmed(&stage));
    all.extend(expired_and_back(&stage));
    all.extend(gone_with_a_restart_and_back(&stage));
    stage.end(&all);
}

#[test]
fn every_life_of_a_payment_is_told_right_when_all_is_pushed() {
    lives(Kind::Pushed);
}

#[test]
fn every_life_of_a_payment_is_told_right_without_the_sequence_topic() {
    lives(Kind::Unnumbered);
}

#[test]
fn every_life_of_a_payment_is_told_right_without_zmq() {
    lives(Kind::Polled);
}

fn replaced_by_another_payment(stage: &Stage) -> Vec<Told<'_>> {
    let told = stage.watched();
    let coin = stage.coin();
    stage.send(
        "first",
        &spend(
            &[coin],
            &[
                (&told.script, 1_000_000),
                (&stranger("a"), COIN - 1_000_000 - FEE),
            ],
        ),
    );
    told.is(&["new first mempool +1000000", "balance 0>1000000"]);
    stage.send(
        "second",
        &spend(
            &[coin],
            &[
                (&told.script, 3_000_000),
                (&stranger("a"), COIN - 3_000_000 - HIGH),
            ],
        ),
    );
    let lines = [
        "new first mempool +1000000",
        "balance 0>1000000",
        "first mempool>replaced by second",
        "new second mempool +3000000",
        "balance 1000000>3000000",
    ];
    told.is(&lines);
    vec![told]
}

fn replaced_by_a_payment_to_strangers(stage: &Stage) -> Vec<Told<'_>> {
    let told = stage.watched();
    let coin = stage.coin();
    stage.send("to us", &spend(&[coin], &[(&told.script, COIN - FEE)]));
    told.is(&["new to us mempool +9999000", "balance 0>9999000"]);
    stage.send("to them", &spend(&[coin], &[(&stranger("b"), COIN - HIGH)]));
    told.is(&[
        "new to us mempool +9999000",
        "balance 0>9999000",
        "to us mempool>replaced by to them",
        "balance 9999000>0",
    ]);
    vec![told]
}

/// Strangers pay strangers, who pay us; the first payment is replaced.
fn an_ancestor_is_replaced(stage: &Stage) -> Vec<Told<'_>> {
    let told = stage.watched();
    let coin = stage.coin();
    let parent = spend(&[coin], &[(&anyone(), COIN - FEE)]);
    let middle = spend(&[out(&parent, 0)], &[(&anyone(), COIN - 2 * FEE)]);
    let child = spend(&[out(&middle, 0)], &[(&told.script, COIN - 3 * FEE)]);
    stage.send("parent", &parent);
    stage.send("middle", &middle);
    stage.send("child", &child);
    told.is(&["new child mempool +9997000", "balance 0>9997000"]);
    stage.send(
        "new parent",
        &spend(&[coin], &[(&stranger("c"), COIN - HIGH)]),
    );
    told.is(&[
        "new child mempool +9997000",
        "balance 0>9997000",
        "child mempool>replaced by new parent",
        "balance 9997000>0",
    ]);
    vec![told]
}

fn replaced_twice_then_confirmed(stage: &Stage) -> Vec<Told<'_>> {
    let told = stage.watched();
    let coin = stage.coin();
    let third = spend(&[coin], &[(&told.script, 300)]);
    stage.send("one", &spend(&[coin], &[(&told.script, 1_000_000)]));
    let mut lines = vec!["new one mempool +1000000", "balance 0>1000000"];
    told.is(&lines);
    stage.send("two", &spend(&[coin], &[(&told.script, 500_000)]));
    lines.extend([
        "one mempool>replaced by two",
        "new two mempool +500000",
        "balance 1000000>500000",
    ]);
    told.is(&lines);
    stage.send("three", &third);
    lines.extend([
        "two mempool>replaced by three",
        "new three mempool +300",
        "balance 500000>300",
    ]);
    told.is(&lines);
    stage.mine(&[&third]);
    lines.push("three mempool>confirmed");
    told.is(&lines);
    vec![told]
}

/// A double spend is mined: the payment and what was paid with it fall.
fn conflicted_by_a_block(stage: &Stage) -> Vec<Told<'_>> {
    let (first, second) = (stage.watched(), stage.watched());
    let coin = stage.coin();
    let payment = spend(
        &[coin],
        &[
            (&first.script, 2_000_000),
            (&anyone(), COIN - 2_000_000 - FEE),
        ],
    );
    let onward = spend(
        &[out(&payment, 1)],
        &[
            (&second.script, 1_000_000),
            (&stranger("d"), COIN - 3_000_000 - 2 * FEE),
        ],
    );
    stage.send("payment", &payment);
    stage.send("onward", &onward);
    first.is(&["new payment mempool +2000000", "balance 0>2000000"]);
    second.is(&["new onward mempool +1000000", "balance 0>1000000"]);
    let theft = spend(&[coin], &[(&stranger("e"), COIN - FEE)]);
    stage.name("theft", &theft);
    stage.mine(&[&theft]);
    first.is(&[
        "new payment mempool +2000000",
        "balance 0>2000000",
        "payment mempool>conflicted by theft",
        "balance 2000000>0",
    ]);
    second.is(&[
        "new onward mempool +1000000",
        "balance 0>1000000",
        "onward mempool>conflicted by theft",
        "balance 1000000>0",
    ]);
    vec![first, second]
}

/// The owner spends what it has; a block has another spend of the same.
fn a_spend_is_conflicted_by_a_block(stage: &Stage) -> Vec<Told<'_>> {
    let told = stage.watched();
    let payment = spend(
        &[stage.coin()],
        &[
            (&told.script, 5_000_000),
            (&stranger("f"), COIN - 5_000_000 - FEE),
        ],
    );
    stage.send("payment in", &payment);
    let mut lines = vec!["new payment in mempool +5000000", "balance 0>5000000"];
    told.is(&lines);
    stage.mine(&[&payment]);
    lines.push("payment in mempool>confirmed");
    told.is(&lines);
    let spent = stage.owner_signs(&spend(
        &[out(&payment, 0)],
        &[(&stranger("g"), 5_000_000 - FEE)],
    ));
    stage.send("out", &spent);
    lines.extend(["new out mempool -5000000", "balance 5000000>0"]);
    told.is(&lines);
    let other = stage.owner_signs(&spend(
        &[out(&payment, 0)],
        &[(&told.script, 1_000_000), (&stranger("h"), 4_000_000 - FEE)],
    ));
    stage.name("other", &other);
    stage.mine(&[&other]);
    lines.extend([
        "out mempool>conflicted by other",
        "new other confirmed -4000000",
        "balance 0>1000000",
    ]);
    told.is(&lines);
    vec![told]
}

fn replaced_and_mined_after_all(stage: &Stage) -> Vec<Told<'_>> {
    let told = stage.watched();
    let coin = stage.coin();
    let old = spend(
        &[coin],
        &[
            (&told.script, 4_000_000),
            (&stranger("i"), COIN - 4_000_000 - FEE),
        ],
    );
    let new = spend(
        &[coin],
        &[
            (&told.script, 2_000_000),
            (&stranger("i"), COIN - 2_000_000 - HIGH),
        ],
    );
    stage.send("old", &old);
    let mut lines = vec!["new old mempool +4000000", "balance 0>4000000"];
    told.is(&lines);
    stage.send("new", &new);
    lines.extend([
        "old mempool>replaced by new",
        "new new mempool +2000000",
        "balance 4000000>2000000",
    ]);
    told.is(&lines);
    stage.mine(&[&old]);
    lines.extend([
        "new mempool>conflicted by old",
        "old replaced>confirmed",
        "balance 2000000>4000000",
    ]);
    told.is(&lines);
    vec![told]
}

/// A spend of what we own is replaced by one that leaves it alone: the coin is ours again.
fn a_spend_is_replaced(stage: &Stage) -> Vec<Told<'_>> {
    let told = stage.watched();
    let payment = spend(&[stage.coin()], &[(&told.script, COIN - FEE)]);
    stage.send("wage", &payment);
    let mut lines = vec!["new wage mempool +9999000", "balance 0>9999000"];
    told.is(&lines);
    let coin = stage.coin();
    let both = stage.owner_signs(&spend(
        &[out(&payment, 0), coin],
        &[(&stranger("j"), 2 * COIN - 2 * FEE)],
    ));
    stage.send("both", &both);
    lines.extend(["new both mempool -9999000", "balance 9999000>0"]);
    told.is(&lines);
    stage.send(
        "without us",
        &spend(&[coin], &[(&stranger("k"), COIN - HIGHER)]),
    );
    lines.extend(["both mempool>replaced by without us", "balance 0>9999000"]);
    told.is(&lines);
    vec![told]
}

/// An unconfirmed chain over two addresses that are added only now, the later one first.
fn watched_late(stage: &Stage) -> Vec<Told<'_>> {
    let (x, y) = (stage.node.address(), stage.node.address());
    let first = spend(&[stage.coin()], &[(&stage::script(&x), COIN - FEE)]);
    stage.send("1st", &first);
    let second = stage.owner_signs(&spend(
        &[out(&first, 0)],
        &[(&stage::script(&y), COIN - 2 * FEE)],
    ));
    stage.send("2nd", &second);
    stage.send(
        "3rd",
        &stage.owner_signs(&spend(
            &[out(&second, 0)],
            &[(&stranger("l"), COIN - 3 * FEE)],
        )),
    );
    // Of these the daemon knows when it has heard of one that came after them.
    let marker = stage.watched();
    stage.send(
        "marker",
        &spend(&[stage.coin()], &[(&marker.script, COIN - FEE)]),
    );
    marker.is(&["new marker mempool +9999000", "balance 0>9999000"]);
    let y = stage.told(&y);
    y.is(&[
        "new 2nd mempool +9998000",
        "balance 0>9998000",
        "new 3rd mempool -9998000",
        "balance 9998000>0",
    ]);
    let x = stage.told(&x);
    // What spends it is known by now, so both are told together and no balance changes.
    x.is(&["new 1st mempool +9999000, 2nd mempool -9999000"]);
    vec![x, y, marker]
}

fn confirmed_unconfirmed_confirmed(stage: &Stage) -> Vec<Told<'_>> {
    let told = stage.watched();
    let payment = spend(&[stage.coin()], &[(&told.script, COIN - FEE)]);
    stage.send("p", &payment);
    let mut lines = vec!["new p mempool +9999000", "balance 0>9999000"];
    told.is(&lines);
    let block = stage.mine(&[&payment]);
    lines.push("p mempool>confirmed");
    told.is(&lines);
    stage.node.rpc("invalidateblock", json!([block]));
    lines.push("p confirmed>mempool");
    told.is(&lines);
    stage.mine(&[&payment]);
    lines.push("p mempool>confirmed");
    told.is(&lines);
    vec![told]
}

/// The node forgets what has waited for two weeks, at its next chance; then somebody sends it
/// again.
fn expired_and_back(stage: &Stage) -> Vec<Told<'_>> {
    let told = stage.watched();
    let (payment, trigger) = (
        spend(&[stage.coin()], &[(&told.script, COIN - FEE)]),
        spend(&[stage.coin()], &[(&stranger("m"), COIN - FEE)]),
    );
    stage.send("old one", &payment);
    let mut lines = vec!["new old one mempool +9999000", "balance 0>9999000"];
    told.is(&lines);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    stage.node.rpc("setmocktime", json!([now + 15 * 86_400]));
    stage.send("trigger", &trigger);
    lines.extend(["old one mempool>evicted", "balance 9999000>0"]);
    told.is(&lines);
    stage.send("old one", &payment);
    lines.extend(["old one evicted>mempool", "balance 0>9999000"]);
    told.is(&lines);
    stage.node.rpc("setmocktime", json!([0]));
    vec![told]
}

/// The node starts again without its mempool; one of two comes back.
fn gone_with_a_restart_and_back(stage: &Stage) -> Vec<Told<'_>> {
    let (told, lost) = (stage.watched(), stage.watched());
    let payment = spend(&[stage.coin()], &[(&told.script, COIN - FEE)]);
    stage.send("again", &payment);
    stage.send(
        "never",
        &spend(&[stage.coin()], &[(&lost.script, COIN - FEE)]),
    );
    told.is(&["new again mempool +9999000", "balance 0>9999000"]);
    lost.is(&["new never mempool +9999000", "balance 0>9999000"]);
    stage.node.stop();
    stage
        .node
        .restart_with(&["-persistmempool=0", "-walletbroadcast=0"]);
    lost.is(&[
        "new never mempool +9999000",
        "balance 0>9999000",
        "never mempool>evicted",
        "balance 9999000>0",
    ]);
    stage.send("again", &payment);
    let lines = [
        "new again mempool +9999000",
        "balance 0>9999000",
        "again mempool>evicted",
        "balance 9999000>0",
    ];
    told.is(&[&lines[..], &["again evicted>mempool", "balance 0>9999000"]].concat());
    vec![told, lost]
}
