//! The families of RocksDB, the keys of `meta`, how those of `auth` begin, and RocksDB's options.

use std::sync::LazyLock;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, LogLevel,
    LruCacheOptions, Options, SliceTransform,
};
use rustix::process::{Resource, getrlimit};

pub const META: &str = "meta";
pub const BLOCKS: &str = "blocks";
pub const WATCHES: &str = "watches";
pub const OUTPUTS: &str = "outputs";
pub const UNSPENT: &str = "unspent";
pub const COINBASES: &str = "coinbases";
pub const TXS: &str = "txs";
pub const RAW_TXS: &str = "raw_txs";
pub const HISTORY: &str = "history";
pub const MEMPOOL: &str = "mempool";
pub const SINCE: &str = "since";
pub const PENDING: &str = "pending";
pub const SCANS: &str = "scans";
pub const SCAN_SCRIPTS: &str = "scan_scripts";
pub const SCRIPT_SCANS: &str = "script_scans";
pub const DESCRIPTOR_SCANS: &str = "descriptor_scans";
pub const FORGETTING: &str = "forgetting";
pub const OPEN_SCANS: &str = "open_scans";
pub const LISTED: &str = "listed";
pub const DESCRIPTORS: &str = "descriptors";
pub const WALLETS: &str = "wallets";
pub const DERIVATIONS: &str = "derivations";
pub const OWNED_OUTPUTS: &str = "owned_outputs";
pub const JOINING: &str = "joining";
pub const LEAVING: &str = "leaving";
pub const EVENTS: &str = "events";
pub const CURSORS: &str = "cursors";
pub const AUTH: &str = "auth";
/// RocksDB has it in every database; ours stays empty.
pub const DEFAULT: &str = "default";

pub const FAMILIES: [&str; 29] = [
    DEFAULT,
    META,
    BLOCKS,
    WATCHES,
    OUTPUTS,
    UNSPENT,
    COINBASES,
    TXS,
    RAW_TXS,
    HISTORY,
    MEMPOOL,
    SINCE,
    PENDING,
    SCANS,
    SCAN_SCRIPTS,
    SCRIPT_SCANS,
    DESCRIPTOR_SCANS,
    FORGETTING,
    OPEN_SCANS,
    LISTED,
    DESCRIPTORS,
    WALLETS,
    DERIVATIONS,
    OWNED_OUTPUTS,
    JOINING,
    LEAVING,
    EVENTS,
    CURSORS,
    AUTH,
];

/// Families that are read by whole key, so that a filter saves the look into most files.
const POINT_READ: [&str; 6] = [BLOCKS, WATCHES, OUTPUTS, TXS, RAW_TXS, DESCRIPTORS];

/// Bytes of a script's hash, of a descriptor's id, or of a scan's id, with which the keys of a
/// family begin that is read by them: a filter of these saves the look into most files for a script
/// that has nothing.
pub fn prefix_len(family: &str) -> Option<usize> {
    match family {
        UNSPENT | HISTORY | SCRIPT_SCANS | DERIVATIONS | OWNED_OUTPUTS => Some(32),
        SCAN_SCRIPTS => Some(8),
        _ => None,
    }
}

/// Keys of `meta`.
pub mod meta {
    pub const FORMAT: &str = "format";
    pub const UPGRADING: &str = "upgrading";
    pub const CHAIN: &str = "chain";
    /// Of formats 1 and 2; the id of the first start since.
    pub const LOG_ID: &str = "log_id";
    pub const STARTS: &str = "starts";
    pub const CREATED: &str = "created";
    pub const TIP: &str = "tip";
    pub const NEXT_SEQ: &str = "next_seq";
    pub const FIRST_SEQ: &str = "first_seq";
    pub const RESERVED: &str = "reserved";
    pub const BOOT: &str = "boot";
    pub const CLEAN: &str = "clean";
    pub const COUNTS: &str = "counts";
    pub const MONITORING: &str = "monitoring";
}

/// Keys of `auth`: a byte that says what the row is, and what it is about. What is in the rows is
/// in the table of [`super::auth`].
pub mod auth {
    pub const MARK: u8 = b'm';
    pub const SESSION: u8 = b's';
    pub const USED: u8 = b'u';
    /// What tokens own comes last.
    pub const OWNED: u8 = b'v';
    pub const ADDRESS: u8 = b'w';
    pub const CONSUMER: u8 = b'x';
    pub const DESCRIPTOR: u8 = b'y';
    pub const DERIVED: u8 = b'z';

    pub fn key(kind: u8, what: &[u8]) -> Vec<u8> {
        [&[kind], what].concat()
    }
}

pub const MIB: usize = 1 << 20;

/// Uncompressed blocks, indexes and filters in memory, all families together.
const CACHE: usize = 64 * MIB;
/// Not yet sorted into files, all families together.
const WRITE_BUFFERS: usize = 64 * MIB;
/// Write-ahead logs, all together.
const LOGS: usize = 64 * MIB;
/// What rows that are written take on the disk beside their files, for a while: in logs, and in
/// files that are being written anew. No more than what is written.
pub const BESIDE_FILES: u64 = (LOGS + WRITE_BUFFERS) as u64;
/// Tables that are kept open at most; a quarter of the files that the process may open, if that is
/// less. Sockets need most of them.
const OPEN_FILES: i32 = 256;

/// A process that died may leave half a batch at the end of the write-ahead log, never answered: it
/// counts as never written. Anything else that cannot be read there is damage, and what was
/// promised to clients would be lost with it.
pub const PROCESS_DIED: DBRecoveryMode = DBRecoveryMode::TolerateCorruptedTailRecords;
/// A machine that lost power may have written the end of it in any order. All up to the first gap
/// counts: it was synced if it had to be.
pub const POWER_FAILED: DBRecoveryMode = DBRecoveryMode::PointInTime;

pub fn database_options(recovery: DBRecoveryMode) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_wal_recovery_mode(recovery);
    options.set_max_open_files(open_files());
    options.set_db_write_buffer_size(WRITE_BUFFERS);
    // Families that are seldom written would otherwise keep old logs for long, and make the next
    // start slow.
    options.set_max_total_wal_size(LOGS as u64);
    options.set_bytes_per_sync(MIB as u64);
    options.set_max_background_jobs(2);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(3);
    options.set_max_log_file_size(4 * MIB);
    options
}

/// One for all families, whenever they were made.
static BLOCKS_IN_MEMORY: LazyLock<Cache> = LazyLock::new(|| {
    // Few shards: each must hold many of the largest blocks.
    let mut cache = LruCacheOptions::default();
    cache.set_capacity(CACHE);
    cache.set_num_shard_bits(2);
    Cache::new_lru_cache_opts(&cache)
});

pub fn families() -> impl Iterator<Item = (&'static str, Options)> {
    FAMILIES.into_iter().map(|name| {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&BLOCKS_IN_MEMORY);
        blocks.set_format_version(5);
        // Indexes and filters come in small parts. One of a million keys is a megabyte otherwise,
        // and pushes all else out.
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_partition_filters(true);
        blocks.set_pin_top_level_index_and_filter(true);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        if let Some(len) = prefix_len(name) {
            options.set_prefix_extractor(SliceTransform::create_fixed_prefix(len));
            options.set_memtable_prefix_bloom_ratio(0.1);
            blocks.set_whole_key_filtering(false);
        }
        if POINT_READ.contains(&name) || prefix_len(name).is_some() {
            blocks.set_bloom_filter(10.0, false);
            blocks.set_optimize_filters_for_memory(true);
        }
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(16 * MIB);
        (name, options)
    })
}

fn open_files() -> i32 {
    let limit = getrlimit(Resource::Nofile).current;
    let quarter = limit.and_then(|limit| i32::try_from(limit / 4).ok());
    quarter.map_or(OPEN_FILES, |quarter| quarter.min(OPEN_FILES))
}
