//! What is known to be wrong, compared exactly: what is repaired is taken off, nothing is put on.

/// Files that import each other in a circle of more than two.
pub const CIRCLES: &[&[&str]] = &[
    &["bitcoind/http.rs", "bitcoind/rest.rs", "bitcoind/rpc.rs"],
    &[
        "store/db.rs",
        "store/log.rs",
        "store/reader.rs",
        "store/retention.rs",
        "store/writer.rs",
    ],
];

/// Files of more than 500 lines, what is for tests alone not counted.
pub const LONG_FILES: &[&str] = &[
    "api/scans.rs",
    "bitcoind/follower.rs",
    "bitcoind/follower/pool.rs",
    "bitcoind/http.rs",
    "bitcoind/rescan/runner.rs",
    "bitcoind/rpc.rs",
    "store/db.rs",
    "store/rows.rs",
    "tracker/past.rs",
];
