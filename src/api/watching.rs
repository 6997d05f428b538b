//! Addresses: adding them, and reading what is known about them. Each answer comes from one snapshot.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;

use super::App;
use super::address::{self, KnownAddress};
use super::error::ApiError;
use super::fields::{Fields, Query};
use super::hub::Wire;
use super::json::{self, Balance, Block, Btc, CoverageShape, Transaction, Utxo};
use super::respond::{self, Answer};
use crate::clock::now_ms;
use crate::config::History;
use crate::store::{HistoryCursor, Snapshot};
use crate::tracker::{Input, Past, TxSummary, WatchRequest, WatchRow};

const ADDRESSES_DEFAULT: usize = 1000;
const ADDRESSES_MOST: usize = 10_000;
const TRANSACTIONS_DEFAULT: usize = 1000;
const TRANSACTIONS_MOST: usize = 5000;
/// Blocks that `scan_history` looks back when nobody says how many.
const BLOCKS_BACK: u32 = 1000;

/// The row of a watched address, or 404.
fn watched(snapshot: &Snapshot<'_>, address: &KnownAddress) -> Result<WatchRow, ApiError> {
    snapshot.watch(&address.script)?.ok_or_else(|| ApiError::not_watched(&address.text))
}

/// The balance of an address in a snapshot.
pub fn balance_in(snapshot: &Snapshot<'_>, address: &KnownAddress, wire: &Wire) -> Result<Balance, ApiError> {
    let row = watched(snapshot, address)?;
    let utxos = match row.utxo_count {
        0 => Vec::new(),
        _ => snapshot.utxos(&address.script, false)?,
    };
    Ok(Balance::new(&address.text, &row, &utxos, snapshot.tip()?, wire.cursor(snapshot.head()?)))
}

impl App {
    pub(super) fn address(&self, text: &str) -> Result<KnownAddress, ApiError> {
        address::parse(text, self.wire.network)
    }

    /// Watches those of the addresses that are not watched yet, or not with these depths.
    pub(super) async fn ensure_watched(self: &Arc<Self>, addresses: Arc<[KnownAddress]>, depths: Vec<u8>) -> Result<(), ApiError> {
        let past = past(self.config.watch.history);
        let missing = self.read(move |app| {
            let snapshot = app.reader.snapshot();
            let mut missing = Vec::new();
            for address in addresses.iter() {
                let row = snapshot.watch(&address.script)?;
                let enough = row.as_ref().is_some_and(|row| depths.iter().all(|depth| row.depths.contains(depth)));
                if !enough {
                    // An address that somebody added without its past keeps it that way.
                    let past = if row.is_none() { past } else { Past::Leave };
                    missing.push(WatchRequest { spk: address.spk.clone(), label: None, depths: depths.clone(), past });
                }
            }
            Ok(missing)
        });
        let missing = missing.await?;
        if !missing.is_empty() {
            self.indexer.apply(Input::Watch { scripts: missing, now: now_ms() }).await?;
        }
        Ok(())
    }

    /// `POST /add_address`
    pub(super) async fn add_address(self: &Arc<Self>, fields: &Fields) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Added {
            address: String,
            message: String,
            label: String,
            coverage: CoverageShape,
            cursor: String,
        }
        let address = fields.address(self.wire.network)?;
        let (label, depths) = (fields.label()?, fields.depths()?);
        let past = past(fields.history(self.config.watch.history)?);
        let known = self.reader.snapshot().watch(&address.script)?.is_some();
        let request = WatchRequest { spk: address.spk.clone(), label, depths, past };
        let done = self.indexer.apply(Input::Watch { scripts: vec![request], now: now_ms() }).await?;
        let row = watched(&self.reader.snapshot(), &address)?;
        let message =
            if known { format!("{} was watched already.", address.text) } else { format!("Watching {} from now on.", address.text) };
        let (coverage, cursor) = (CoverageShape::from(&row.coverage), self.wire.cursor(done.head));
        let added = Added { address: address.text, message, label: row.label, coverage, cursor };
        Ok(respond::json_at(StatusCode::OK, &added.cursor, &added))
    }

    /// `POST /add_addresses`: all of them or, when one is bad, none.
    pub(super) async fn add_addresses(self: &Arc<Self>, fields: &Fields) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Added {
            count: usize,
            added: usize,
            message: String,
            cursor: String,
        }
        let addresses = fields.addresses(self.wire.network)?;
        let depths = fields.depths()?;
        let past = past(fields.history(self.config.watch.history)?);
        let mut places: HashMap<_, usize> = HashMap::new();
        let mut scripts: Vec<WatchRequest> = Vec::new();
        for (address, label) in addresses {
            let place = *places.entry(address.script).or_insert(scripts.len());
            match scripts.get_mut(place) {
                // Named twice: one request, with the last label.
                Some(request) => request.label = label.or(request.label.take()),
                None => scripts.push(WatchRequest { spk: address.spk, label, depths: depths.clone(), past }),
            }
        }
        let hashes: Vec<_> = places.into_keys().collect();
        let known = self.read(move |app| {
            let snapshot = app.reader.snapshot();
            let watches = hashes.iter().map(|script| Ok(usize::from(snapshot.watch(script)?.is_some())));
            watches.sum::<Result<usize, ApiError>>()
        });
        let known = known.await?;
        let count = scripts.len();
        let done = self.indexer.apply(Input::Watch { scripts, now: now_ms() }).await?;
        let added = count.saturating_sub(known);
        let message = format!("Watching {count} addresses, {added} of them from now on.");
        let added = Added { count, added, message, cursor: self.wire.cursor(done.head) };
        Ok(respond::json_at(StatusCode::OK, &added.cursor, &added))
    }

    /// `GET /addresses?limit=&after=`: in the order of their script hashes; `next` is the `after` of the next page.
    pub(super) async fn addresses(self: &Arc<Self>, query: &Query) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Watched {
            address: String,
            label: String,
            added: f64,
            confirmed_balance: i64,
            confirmed_balance_btc: Btc,
            unconfirmed_balance: i64,
            unconfirmed_balance_btc: Btc,
            balance: i64,
            balance_btc: Btc,
            utxo_count: u64,
            transaction_count: u64,
            last_updated: f64,
            confirmations: Vec<u8>,
            coverage: CoverageShape,
        }
        #[derive(Serialize)]
        struct Page<'a> {
            addresses: Vec<Watched>,
            count: usize,
            total: u64,
            next: Option<String>,
            tip: Option<Block>,
            cursor: &'a str,
        }
        let limit = query.whole("limit", ADDRESSES_DEFAULT, 1..=ADDRESSES_MOST)?;
        let after = query.get("after").map(|text| self.address(text)).transpose()?;
        self.read(move |app| {
            let snapshot = app.reader.snapshot();
            let rows = snapshot.watches(after.as_ref().map(|address| &address.script), limit)?;
            let shape = |row: &WatchRow| Watched {
                address: address::text(&row.spk, app.wire.network),
                label: row.label.clone(),
                added: json::seconds(row.added),
                confirmed_balance: row.balance.confirmed,
                confirmed_balance_btc: Btc(row.balance.confirmed),
                unconfirmed_balance: row.balance.unconfirmed,
                unconfirmed_balance_btc: Btc(row.balance.unconfirmed),
                balance: row.balance.total(),
                balance_btc: Btc(row.balance.total()),
                utxo_count: row.utxo_count,
                transaction_count: row.tx_count,
                last_updated: json::seconds(row.updated),
                confirmations: row.depths.clone(),
                coverage: CoverageShape::from(&row.coverage),
            };
            let addresses: Vec<_> = rows.iter().map(|(_, row)| shape(row)).collect();
            let next = addresses.last().filter(|_| addresses.len() == limit).map(|last| last.address.clone());
            let (count, total) = (addresses.len(), snapshot.counts()?.addresses);
            let (tip, cursor) = (snapshot.tip()?.map(Block::from), app.wire.cursor(snapshot.head()?));
            Ok(respond::state(&cursor, &Page { addresses, count, total, next, tip, cursor: &cursor }))
        })
        .await
    }

    /// `GET /balance/{address}`
    pub(super) async fn balance(self: &Arc<Self>, address: &str) -> Result<Answer, ApiError> {
        let address = self.address(address)?;
        self.read(move |app| {
            let balance = balance_in(&app.reader.snapshot(), &address, &app.wire)?;
            Ok(respond::state(&balance.cursor, &balance))
        })
        .await
    }

    /// `GET /utxos/{address}?include_spent=`
    pub(super) async fn utxos(self: &Arc<Self>, address: &str, query: &Query) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Utxos {
            address: String,
            count: usize,
            utxos: Vec<Utxo>,
            coverage: CoverageShape,
            tip: Option<Block>,
            cursor: String,
        }
        let address = self.address(address)?;
        let include_spent = query.flag("include_spent")?;
        self.read(move |app| {
            let snapshot = app.reader.snapshot();
            let row = watched(&snapshot, &address)?;
            let tip = snapshot.tip()?;
            let mut rows = snapshot.utxos(&address.script, include_spent)?;
            // Oldest first, unconfirmed last.
            rows.sort_by_key(|(outpoint, row)| (row.height.unwrap_or(u32::MAX), *outpoint));
            let utxos: Vec<_> = rows.iter().map(|(outpoint, row)| Utxo::new(&address.text, outpoint, row, tip)).collect();
            let (coverage, cursor) = (CoverageShape::from(&row.coverage), app.wire.cursor(snapshot.head()?));
            let (count, tip) = (utxos.len(), tip.map(Block::from));
            let utxos = Utxos { address: address.text, count, utxos, coverage, tip, cursor };
            Ok(respond::state(&utxos.cursor, &utxos))
        })
        .await
    }

    /// `GET /transactions/{address}?limit=&before=`: newest first; `next` is the `before` of the next page.
    pub(super) async fn transactions(self: &Arc<Self>, address: &str, query: &Query) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Page {
            address: String,
            count: usize,
            total: u64,
            transactions: Vec<Transaction>,
            next: Option<String>,
            coverage: CoverageShape,
            tip: Option<Block>,
            cursor: String,
        }
        let address = self.address(address)?;
        let limit = query.whole("limit", TRANSACTIONS_DEFAULT, 1..=TRANSACTIONS_MOST)?;
        let before = query.get("before").map(str::parse::<HistoryCursor>).transpose();
        let before = before.map_err(|_| ApiError::invalid_parameter("before", "the \"next\" of an earlier page"))?;
        self.read(move |app| {
            let snapshot = app.reader.snapshot();
            let row = watched(&snapshot, &address)?;
            let tip = snapshot.tip()?;
            let page = snapshot.history(&address.script, before.as_ref(), limit)?;
            let mut times: HashMap<u32, Option<u32>> = HashMap::new();
            let mut transactions = Vec::with_capacity(page.transactions.len());
            for (txid, row) in &page.transactions {
                let time = match row.status {
                    crate::tracker::Status::Confirmed { block, .. } => match times.get(&block.height) {
                        Some(time) => *time,
                        None => {
                            let time = snapshot.block(block.height)?.map(|block| block.time);
                            times.insert(block.height, time);
                            time
                        }
                    },
                    _ => None,
                };
                transactions.push(Transaction::new(&TxSummary::of(*txid, row, &address.script, time), tip));
            }
            let page = Page {
                address: address.text,
                count: transactions.len(),
                total: row.tx_count,
                transactions,
                next: page.next.map(|next| next.to_string()),
                coverage: CoverageShape::from(&row.coverage),
                tip: tip.map(Block::from),
                cursor: app.wire.cursor(snapshot.head()?),
            };
            Ok(respond::state(&page.cursor, &page))
        })
        .await
    }

    /// `POST /scan_history/{address}`: for now it asks the node for all unspent outputs of the address, and says so; past
    /// transactions come with the history scans.
    pub(super) async fn scan_history(self: &Arc<Self>, address: &str, fields: &Fields) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Scanning {
            address: String,
            blocks_back: u32,
            message: &'static str,
            status: &'static str,
            coverage: CoverageShape,
            cursor: String,
        }
        let address = self.address(address)?;
        let blocks_back = fields.whole("blocks_back", 1)?.unwrap_or(BLOCKS_BACK);
        let (from, to) = (fields.whole("from_height", 0)?, fields.whole("to_height", 0)?);
        let tip = {
            let snapshot = self.reader.snapshot();
            watched(&snapshot, &address)?;
            snapshot.tip()?.map_or(0, |tip| tip.height)
        };
        if from.is_some_and(|from| from > to.unwrap_or(tip).min(tip)) || to.is_some_and(|to| to > tip) {
            let message = format!("from_height must not be above to_height, and neither above the tip, which is at {tip}.");
            return Err(ApiError::bad_request("invalid_range", message));
        }
        let request = WatchRequest { spk: address.spk.clone(), label: None, depths: Vec::new(), past: Past::FindAgain };
        let done = self.indexer.apply(Input::Watch { scripts: vec![request], now: now_ms() }).await?;
        let coverage = CoverageShape::from(&watched(&self.reader.snapshot(), &address)?.coverage);
        let message = "Asking the node for all unspent outputs of the address. Past transactions that left none are not listed yet.";
        let cursor = self.wire.cursor(done.head);
        let answer = Scanning { address: address.text, blocks_back, message, status: "scanning", coverage, cursor };
        Ok(respond::json_at(StatusCode::ACCEPTED, &answer.cursor, &answer))
    }
}

/// What a watch request finds out.
fn past(history: History) -> Past {
    match history {
        History::Utxo => Past::Find,
        History::None => Past::Leave,
    }
}

/// The addresses without repetitions, in order.
pub fn distinct(addresses: Vec<(KnownAddress, Option<String>)>) -> Vec<KnownAddress> {
    let mut seen = HashSet::new();
    addresses.into_iter().map(|(address, _)| address).filter(|address| seen.insert(address.script)).collect()
}
