//! The watch list: adding addresses, listing them, taking them off.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::respond::{self, Answer};
use super::scans;
use crate::api::App;
use crate::clock::now_ms;
use crate::reads::run_detached;
use crate::reads::watched;
use crate::tracker::{Input, Past, ScanId, ScriptHash, WatchRequest, WatchRow};
use crate::wire::address::{self, KnownAddress};
use crate::wire::error::ApiError;
use crate::wire::json::{self, Block, Btc, CoverageShape};
use crate::wire::request::Request;
use crate::wire::request::history::{History, Range};
use crate::wire::request::types::{Addresses, Depths, Label, Labelled, Limit};

const ADDRESSES_DEFAULT: usize = 1000;
const ADDRESSES_MOST: u32 = 10_000;
const FROM_HEIGHT: (&str, &str) = ("from_height", "write `\"history\": {\"from_height\": 0}`");

/// `POST /add_address`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddAddress {
    address: String,
    label: Option<Label>,
    history: Option<History>,
    confirmations: Option<Depths>,
}

impl Request for AddAddress {
    const EXAMPLE: &'static str = "{\"address\": \"<address>\"}";
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        FROM_HEIGHT,
        ("addresses", "POST /add_addresses takes a list"),
    ];
}

/// `POST /add_addresses`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddAddresses {
    addresses: Addresses<Labelled>,
    history: Option<History>,
    confirmations: Option<Depths>,
}

impl Request for AddAddresses {
    const EXAMPLE: &'static str = "{\"addresses\": [\"<address>\", …]}";
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        FROM_HEIGHT,
        (
            "label",
            "each address has its own: `{\"address\": \"<address>\", \"label\": \"<label>\"}`",
        ),
    ];
}

/// `GET /addresses`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListAddresses {
    limit: Option<Limit<ADDRESSES_MOST>>,
    after: Option<String>,
}

impl Request for ListAddresses {
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("page", "write the `next` of the page before as `after`"),
        ("offset", "write the `next` of the page before as `after`"),
    ];
}

impl App {
    /// Watches those of the addresses that are not watched yet, or not with these depths.
    pub(in crate::api) async fn ensure_watched(
        self: &Arc<Self>,
        addresses: Arc<[KnownAddress]>,
        depths: Vec<u8>,
    ) -> Result<(), ApiError> {
        let past = Past::from(History::from(self.config.watch.history));
        let _list = self.list.read().await;
        let missing = self.read(move |app| {
            let snapshot = app.reader.snapshot();
            let mut missing = Vec::new();
            for address in addresses.iter() {
                let row = snapshot.watch(&address.script)?;
                let enough = row
                    .as_ref()
                    .is_some_and(|row| depths.iter().all(|depth| row.depths.contains(depth)));
                if !enough {
                    // An address that somebody added without its past keeps it that way.
                    let past = if row.is_none() { past } else { Past::Leave };
                    missing.push(WatchRequest {
                        spk: address.spk.clone(),
                        label: None,
                        depths: depths.clone(),
                        past,
                    });
                }
            }
            Ok(missing)
        });
        let missing = missing.await?;
        if !missing.is_empty() {
            self.indexer
                .apply(Input::Watch {
                    scripts: missing,
                    now: now_ms(),
                })
                .await?;
        }
        Ok(())
    }

    /// `POST /add_address`
    pub(in crate::api) async fn add_address(
        self: &Arc<Self>,
        asked: AddAddress,
    ) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Added {
            address: String,
            message: String,
            label: String,
            coverage: CoverageShape,
            #[serde(skip_serializing_if = "Option::is_none")]
            scan_id: Option<String>,
            cursor: String,
        }
        let address = self.address(&asked.address)?;
        let history = asked.history.unwrap_or(self.config.watch.history.into());
        let script = address.script;
        let known = self
            .reads
            .snapshot(move |snapshot| Ok(snapshot.watch(&script)?.is_some()));
        let known = known.await?;
        let request = WatchRequest {
            spk: address.spk.clone(),
            label: asked.label.map(|Label(label)| label),
            depths: asked.confirmations.unwrap_or_default().0,
            past: history.into(),
        };
        let (scan, head) = self.add(vec![request], history).await?;
        let (row, address) = self
            .reads
            .snapshot(move |snapshot| Ok((watched(snapshot, &address)?, address)))
            .await?;
        let message = if known {
            format!("{} was watched already.", address.text)
        } else {
            format!("Watching {} from now on.", address.text)
        };
        let (coverage, cursor) = (CoverageShape::from(&row.coverage), self.wire.cursor(head));
        let scan_id = scan.map(|scan| scan.to_string());
        let added = Added {
            address: address.text,
            message,
            label: row.label,
            coverage,
            scan_id,
            cursor,
        };
        Ok(respond::json_at(StatusCode::OK, &added.cursor, &added))
    }

    /// `POST /add_addresses`: all of them or, when one is bad, none.
    pub(in crate::api) async fn add_addresses(
        self: &Arc<Self>,
        asked: AddAddresses,
    ) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Added {
            count: usize,
            added: usize,
            message: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            scan_id: Option<String>,
            cursor: String,
        }
        let history = asked.history.unwrap_or(self.config.watch.history.into());
        let (requests, known) = self
            .read_long(move |app| app.requests(asked, history))
            .await?;
        let count = requests.len();
        let (scan, head) = self.add(requests, history).await?;
        let added = count.saturating_sub(known);
        let message = format!("Watching {count} addresses, {added} of them from now on.");
        let added = Added {
            count,
            added,
            message,
            scan_id: scan.map(|scan| scan.to_string()),
            cursor: self.wire.cursor(head),
        };
        Ok(respond::json_at(StatusCode::OK, &added.cursor, &added))
    }

    /// What is to be watched, each script once, and how many of these are watched already.
    fn requests(
        &self,
        asked: AddAddresses,
        history: History,
    ) -> Result<(Vec<WatchRequest>, usize), ApiError> {
        let Addresses(listed) = asked.addresses;
        let texts = listed.iter().map(|listed| listed.address.as_str());
        let addresses = address::parse_all(texts, self.wire.network)?;
        let Depths(depths) = asked.confirmations.unwrap_or_default();
        let mut places: HashMap<_, usize> = HashMap::new();
        let mut requests: Vec<WatchRequest> = Vec::new();
        for (address, listed) in addresses.into_iter().zip(listed) {
            let label = listed.label.map(|Label(label)| label);
            let place = *places.entry(address.script).or_insert(requests.len());
            match requests.get_mut(place) {
                // Named twice: one request, with the last label.
                Some(request) => request.label = label.or(request.label.take()),
                None => requests.push(WatchRequest {
                    spk: address.spk,
                    label,
                    depths: depths.clone(),
                    past: history.into(),
                }),
            }
        }
        let snapshot = self.reader.snapshot();
        let watches = places
            .keys()
            .map(|script| Ok(usize::from(snapshot.watch(script)?.is_some())));
        let known = watches.sum::<Result<usize, ApiError>>()?;
        Ok((requests, known))
    }

    /// Watches scripts, and has their history scanned if that is wanted: the scan, and the head
    /// after that. A history that the chain does not have is refused before anything is watched.
    async fn add(
        self: &Arc<Self>,
        scripts: Vec<WatchRequest>,
        history: History,
    ) -> Result<(Option<ScanId>, u64), ApiError> {
        let ranged = self.read(move |app| match history {
            History::None | History::Utxo => Ok(None),
            History::From(from) => {
                let snapshot = app.reader.snapshot();
                let range = Range::starting(from, scans::tip(&snapshot)?)?;
                scans::check_room(&snapshot)?;
                Ok(Some(range))
            }
        });
        let Some(range) = ranged.await? else {
            return Ok((
                None,
                self.indexer
                    .apply(Input::Watch {
                        scripts,
                        now: now_ms(),
                    })
                    .await?
                    .head,
            ));
        };
        let app = self.clone();
        let adding = async move {
            let _list = app.list.read().await;
            let hashes = scripts
                .iter()
                .map(|request| ScriptHash::of(&request.spk))
                .collect();
            app.indexer
                .apply(Input::Watch {
                    scripts,
                    now: now_ms(),
                })
                .await?;
            let (scan, head) = app.open_scan(hashes, range).await?;
            Ok((Some(scan), head))
        };
        run_detached(adding).await
    }

    /// `DELETE /addresses/{address}`: as if it had never been watched. Who is subscribed to it
    /// stays so, and hears of it again if somebody adds it again.
    pub(in crate::api) async fn remove_address(
        self: &Arc<Self>,
        address: &str,
    ) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Removed {
            address: String,
            message: String,
            cursor: String,
        }
        let address = self.address(address)?;
        let (app, script, text) = (self.clone(), address.script, address.text.clone());
        let removing = async move {
            let _list = app.list.write().await;
            if app
                .read(move |app| Ok(app.reader.snapshot().watch(&script)?))
                .await?
                .is_none()
            {
                return Err(ApiError::not_watched(&text));
            }
            Ok(app
                .indexer
                .apply(Input::Unwatch {
                    scripts: vec![script],
                    now: now_ms(),
                })
                .await?)
        };
        let cursor = self.wire.cursor(run_detached(removing).await?.head);
        let message = format!(
            "{} is not watched any more, and what was known of it is forgotten.",
            address.text
        );
        let removed = Removed {
            address: address.text,
            message,
            cursor,
        };
        Ok(respond::json_at(StatusCode::OK, &removed.cursor, &removed))
    }

    /// `GET /addresses?limit=&after=`: in the order of their script hashes; `next` is the `after`
    /// of the next page.
    pub(in crate::api) async fn addresses(
        self: &Arc<Self>,
        query: ListAddresses,
    ) -> Result<Answer, ApiError> {
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
        let limit = query.limit.map_or(ADDRESSES_DEFAULT, Limit::get);
        let after = query.after.map(|text| self.address(&text)).transpose()?;
        self.read_long(move |app| {
            let snapshot = app.reader.snapshot();
            let rows = snapshot.watches(after.as_ref().map(|address| &address.script), limit)?;
            app.budget.check_room(rows.len() as u64)?;
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
            let next = addresses
                .last()
                .filter(|_| addresses.len() == limit)
                .map(|last| last.address.clone());
            let (count, total) = (addresses.len(), snapshot.counts()?.addresses);
            let (tip, cursor) = (
                snapshot.tip()?.map(Block::from),
                app.wire.cursor(snapshot.head()?),
            );
            Ok(respond::json_at(
                StatusCode::OK,
                &cursor,
                &Page {
                    addresses,
                    count,
                    total,
                    next,
                    tip,
                    cursor: &cursor,
                },
            ))
        })
        .await
    }
}

/// The addresses without repetitions, in order.
pub fn distinct(addresses: Vec<KnownAddress>) -> Vec<KnownAddress> {
    let mut seen = HashSet::new();
    addresses
        .into_iter()
        .filter(|address| seen.insert(address.script))
        .collect()
}
