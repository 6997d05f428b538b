//! Forks: through P2P, where the node publishes no block at or below the height of its old tip, and
//! by hand, where it may publish none at all. ZMQ alone must do, so the poll is an hour away.

mod by_hand;
mod rebuild;
pub mod story;

use std::time::Duration;

use serde_json::json;

use self::story::{Story, agrees, listener, tip};
use crate::common::node::Options;
use crate::common::rpc_proxy::Mood;
use crate::common::{COIN, Daemon, Node, RpcProxy};

/// With an hour between reconciliations, only ZMQ can bring it.
pub const NEVER: (&str, &str) = ("monitor.reconcile_interval", "3600");

/// Two nodes with one chain; the daemon follows the first.
struct Pair {
    near: Node,
    far: Node,
}

impl Pair {
    fn start() -> Self {
        let near = Node::with(Options {
            p2p: true,
            ..Options::default()
        });
        let far = Node::with(Options {
            p2p: true,
            blocks: 0,
            topics: &[],
            ..Options::default()
        });
        let pair = Self { near, far };
        pair.part();
        pair
    }

    /// The nodes see each other until they agree.
    fn unite(&self) {
        self.near.connect(&self.far);
    }

    fn part(&self) {
        self.unite();
        self.near.part();
    }
}

/// What each branch holds: the same payment; a payment in the old one alone, and in the new one
/// alone; a payment in the old one whose coin the new one gives to somebody else, and one that
/// builds on it; a coinbase in the old one; a payment that waits in the mempool and loses its coin
/// late in the new branch.
fn forked(pair: &Pair, daemon: &Daemon, depth: u32) {
    let Pair { near, far } = pair;
    let addresses: [String; 7] = std::array::from_fn(|_| near.address());
    let [both, old_only, new_only, twice, child, coinbase, waiting] =
        addresses.each_ref().map(String::as_str);
    let client = listener(
        daemon,
        &[both, old_only, new_only, twice, child, coinbase, waiting],
    );

    let send = |address: &str| {
        let hex = near.payment(&near.coin(2 * COIN), address, COIN);
        (near.send(&hex), hex)
    };
    let (both_id, both_hex) = send(both);
    let (old_only_id, _) = send(old_only);
    let coin = near.coin(10 * COIN);
    let (old_hex, new_hex) = (
        near.payment(&coin, twice, 3 * COIN),
        near.payment(&coin, twice, 2 * COIN),
    );
    let old_id = near.send(&old_hex);
    let waiting_coin = near.coin(2 * COIN);
    let waiting_id = near.send(&near.payment(&waiting_coin, waiting, COIN));
    let stranger_hex = near.payment(&waiting_coin, &near.address(), COIN / 2);
    let new_only_hex = near.payment(&near.coin(2 * COIN), new_only, COIN);
    near.rpc(
        "prioritisetransaction",
        json!([waiting_id, 0, -100_000_000]),
    );
    near.mine_to(coinbase, 1);
    assert!(
        near.in_mempool(&waiting_id),
        "a payment without a fee is not mined"
    );
    let child_id = near.send(&near.signed(&[(old_id.clone(), 0)], &[(child, 3 * COIN - 10_000)]));
    near.rpc("prioritisetransaction", json!([child_id, 0, -100_000_000]));
    if depth > 1 {
        near.mine_to_nobody(depth - 1);
    }
    daemon.wait_tip(near);
    daemon.wait_balance(child, 0, 3 * COIN - 10_000);

    far.send(&both_hex);
    far.mine(1);
    let new_only_id = far.send(&new_only_hex);
    let new_id = far.send(&new_hex);
    far.mine_to_nobody(depth - depth / 2);
    far.send(&stranger_hex);
    far.mine_to_nobody(depth / 2 + 1);
    pair.unite();

    for address in &addresses {
        agrees(daemon, near, address);
    }
    near.mine(1);
    for address in &addresses {
        agrees(daemon, near, address);
    }
    let story = |address| Story::of(daemon, &client, address);
    let again = ["mempool", "confirmed", "mempool", "confirmed"];
    assert_eq!(
        (story(both).statuses(&both_id), story(both).balances()),
        (again.to_vec(), vec![COIN]),
        "depth {depth}: in both branches"
    );
    assert_eq!(
        (
            story(old_only).statuses(&old_only_id),
            story(old_only).balances()
        ),
        (again.to_vec(), vec![COIN]),
        "depth {depth}"
    );
    assert_eq!(
        (
            story(new_only).statuses(&new_only_id),
            story(new_only).balances()
        ),
        (vec!["confirmed"], vec![COIN]),
        "depth {depth}"
    );
    let told = story(twice);
    assert_eq!(
        told.statuses(&old_id),
        ["mempool", "confirmed", "mempool", "conflicted"],
        "depth {depth}"
    );
    assert_eq!(
        (told.statuses(&new_id), told.balances()),
        (vec!["confirmed"], vec![3 * COIN, 0, 2 * COIN]),
        "depth {depth}"
    );
    assert_eq!(
        story(child).statuses(&child_id),
        ["mempool", "conflicted"],
        "depth {depth}: what builds on a lost payment is lost with it"
    );
    assert!(
        matches!(story(coinbase).balances()[..], [won, 0] if won > 0),
        "depth {depth}: a coinbase is gone with its block"
    );
    let told = story(waiting);
    assert_eq!(
        (told.statuses(&waiting_id), told.balances()),
        (vec!["mempool", "conflicted"], vec![COIN, 0]),
        "depth {depth}"
    );
}

#[test]
fn a_fork_of_any_depth_is_followed_from_the_one_block_that_is_published() {
    let pair = Pair::start();
    let daemon = Daemon::with(&pair.near, &[NEVER]);
    let start = tip(&pair.near);
    for depth in [1, 3, 12, 100] {
        forked(&pair, &daemon, depth);
        pair.part();
    }
    assert_eq!(
        story::chain(&daemon, &pair.near, &start),
        [1, 3, 12, 100],
        "each fork is one reorg"
    );
    assert_eq!(
        daemon.get("/status").json["reconcile"]["repairs"],
        0,
        "nothing waited for the poll"
    );
}

/// The node says at once that the payment left its mempool, and why is in the last of several
/// blocks that take long to fetch.
#[test]
fn what_the_last_block_of_a_fork_conflicts_with_is_told_as_conflicted_however_long_the_blocks_take()
{
    let pair = Pair::start();
    let Pair { near, far } = &pair;
    let proxy = RpcProxy::of(near);
    let daemon = Daemon::with(near, &[NEVER, ("bitcoind.rpc_url", &proxy.url())]);
    let start = tip(near);
    let waiting = near.address();
    let client = listener(&daemon, &[&waiting]);
    near.mine(1);
    let coin = near.coin(2 * COIN);
    let (ours, strangers) = (
        near.payment(&coin, &waiting, COIN),
        near.payment(&coin, &near.address(), COIN),
    );
    let txid = near.send(&ours);
    far.mine(5);
    far.send(&strangers);
    far.mine(1);
    daemon.wait_balance(&waiting, 0, COIN);
    proxy.set_for("rest", Mood::Slow(Duration::from_millis(400)));
    pair.unite();
    agrees(&daemon, near, &waiting);
    let told = Story::of(&daemon, &client, &waiting);
    assert_eq!(
        (told.statuses(&txid), told.balances()),
        (vec!["mempool", "conflicted"], vec![COIN, 0])
    );
    assert_eq!(story::chain(&daemon, near, &start), [1]);
}
