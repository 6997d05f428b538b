//! What each call may take.

use std::time::Duration;

use bitcoincore_rpc::jsonrpc::Request;

/// What a call may take, from the connection to the last byte: time, and bytes of the answer. An
/// endless one must not fill the memory.
#[derive(Clone, Copy)]
pub(super) struct CallLimit {
    pub(super) time: Duration,
    pub(super) bytes: u64,
}

impl CallLimit {
    const fn new(seconds: u64, megabytes: u64) -> Self {
        Self {
            time: Duration::from_secs(seconds),
            bytes: megabytes << 20,
        }
    }
}

/// A scan of the whole set of unspent outputs takes minutes on a slow disk, and a busy address has
/// very many.
const SCAN_LIMIT: CallLimit = CallLimit::new(3600, 1024);
/// A range of block filters takes a second or two; on a slow disk the first one may take longer.
const FILTER_LIMIT: CallLimit = CallLimit::new(120, 64);
/// The mempool and batches, and a block with all that it spends in JSON: a busy node on a slow disk
/// needs seconds. Five hundred transactions are 400 MB at worst.
pub(super) const HEAVY_LIMIT: CallLimit = CallLimit::new(60, 512);
/// A block is at most 4 MB, and twice that in hex.
const BLOCK_LIMIT: CallLimit = CallLimit::new(60, 16);
pub(super) const LIGHT_LIMIT: CallLimit = CallLimit::new(10, 8);

pub(super) fn limit_of(request: &Request) -> CallLimit {
    match request.method {
        "scantxoutset" if starts_scan(request) => SCAN_LIMIT,
        "scanblocks" if starts_scan(request) => FILTER_LIMIT,
        "getrawmempool" => HEAVY_LIMIT,
        "getblock" if !is_hex(request) => HEAVY_LIMIT,
        "getblock" => BLOCK_LIMIT,
        _ => LIGHT_LIMIT,
    }
}

/// The same method also asks for the state of a scan, and ends it.
pub(super) fn starts_scan(request: &Request) -> bool {
    let scans = matches!(request.method, "scantxoutset" | "scanblocks");
    scans
        && request
            .params
            .is_some_and(|params| params.get().starts_with(r#"["start""#))
}

/// `getblock` with verbosity 0; the others answer with many times the block's size.
fn is_hex(request: &Request) -> bool {
    request
        .params
        .is_some_and(|params| params.get().ends_with(",0]"))
}
