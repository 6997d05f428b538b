//! Every length of time by which the follower decides, with its reason.

use std::time::Duration;

/// Until something that is under way at the node has come to rest: the topics that lose messages
/// together, a subscription that reaches the node a moment after the connection, blocks that are
/// disconnected one after the other, a tip that moved while it was looked at.
pub(crate) const SOON: Duration = Duration::from_millis(50);
/// From a subscription to the first reading of the mempool. A topic that is connected meanwhile
/// wants a reading too, which is the same one then.
pub(crate) const CONNECTED: Duration = Duration::from_millis(100);
/// Between two looks at a node that is waited for: it rebuilds its chain, loads its mempool.
pub(crate) const WAIT: Duration = Duration::from_secs(1);
/// Between two looks because of gaps, at least. A feed that loses something all the time must not
/// keep the node at answering.
pub(crate) const GAP_SPACING: Duration = Duration::from_millis(500);
/// Between two inspections of the node at most: how it is must be known also when it is seldom
/// reconciled.
pub(crate) const INSPECTION: Duration = Duration::from_secs(10);

/// Pause after the first failed call, or block that the tracker refused, doubled with each further
/// one up to [`LONGEST_PAUSE`]: a node that restarts is away for a second, one that is overloaded
/// must not be asked for more.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// So long may a node that is back go unnoticed.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// After so long without a failure the next one is a first one. Three times [`LONGEST_PAUSE`], so
/// that one call that always fails between others that go well does not count as such.
pub(crate) const FORGIVEN: Duration = Duration::from_secs(15);

/// The block itself follows its announcement, after as many messages as it has transactions.
pub(crate) const BLOCK_FOLLOWS: Duration = Duration::from_millis(500);
/// A parted chain that only lost blocks must have stood so long before it is believed: less than
/// [`WAIT`], so that the second look decides.
pub(crate) const ROLLBACK: Duration = Duration::from_millis(900);
/// The same of a private chain whose node says that it is in its initial download, maybe for ever.
pub(crate) const PRIVATE_INITIAL: Duration = Duration::from_secs(5);
/// The same while headers are ahead: they may belong to blocks that are being fetched.
pub(crate) const HEADERS_AHEAD: Duration = Duration::from_secs(60);

/// A node that lists a hundred thousand transactions answers nothing else for half a second,
/// payments included. While every change is told, the poll takes at most one fiftieth of the node's
/// time for that …
pub(crate) const REST: u32 = 50;
/// … and reads at least once a minute.
pub(crate) const LONGEST_REST: Duration = Duration::from_secs(60);

/// How long `rawtx` and the acceptance of one transaction wait for each other. A wallet that works
/// in the node's publishing thread puts more than a second between them. The `rawtx` of a block's
/// transactions wait in vain.
pub(crate) const KEEP: Duration = Duration::from_secs(3);
/// How long an acceptance waits for its `rawtx` from another address, before the transaction is
/// fetched: a payment must not be told much later than it could be.
pub(crate) const FETCH_AFTER: Duration = Duration::from_millis(100);

/// After a removal, its reason follows within moments (a replacement, a block) or not at all. The
/// node's wallets work between both, with the disk.
pub(crate) const SUCCESSORS: Duration = Duration::from_millis(250);
/// A removal just before a block is a conflict with it, and the block comes after all of its
/// transactions. A successor that is being fetched comes within the same time.
pub(crate) const BLOCK: Duration = Duration::from_secs(1);
/// Upper bound of the wait for a verdict, so that blocks without pause do not put it off for ever.
pub(crate) const LONGEST: Duration = Duration::from_secs(2);
/// Upper bound of the same wait while what a reading brought is fetched: announced transactions
/// without pause, which are fetched too, must not put it off for ever.
pub(crate) const LONGEST_ROUND: Duration = Duration::from_secs(60);
/// Between two verdicts: each names what it spares, and hundreds may leave in a second.
pub(crate) const VERDICT_SPACING: Duration = Duration::from_millis(100);
