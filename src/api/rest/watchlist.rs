//! Adding addresses to the watch list, and taking them off.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::respond::{self, Reply, WithCursor};
use crate::api::scans::Scans;
use crate::auth::Principal;
use crate::reads::StoreView;
use crate::tracker::WatchRequest;
use crate::wire::ApiError;
use crate::wire::address::{self, KnownAddress};
use crate::wire::json::CoverageShape;
use crate::wire::request::Request;
use crate::wire::request::history::HistoryOption;
use crate::wire::request::types::{Addresses, Depths, Label, Labelled};

const FROM_HEIGHT: (&str, &str) = ("from_height", "write `\"history\": {\"from_height\": 0}`");

/// `POST /add_address`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddAddress {
    /// An address of the daemon's network, or a `bitcoin:` URI.
    address: String,
    label: Option<Label>,
    history: Option<HistoryOption>,
    confirmations: Option<Depths>,
}

impl Request for AddAddress {
    const EXAMPLE: &'static str = "{\"address\": \"<address>\"}";
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        FROM_HEIGHT,
        ("addresses", "POST /add_addresses takes a list"),
    ];

    fn concerns(&self) -> Option<String> {
        Some(self.address.clone())
    }
}

/// `POST /add_addresses`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddAddresses {
    addresses: Addresses<Labelled>,
    history: Option<HistoryOption>,
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

    fn concerns(&self) -> Option<String> {
        Some(address::count(self.addresses.count()))
    }
}

/// An address that is watched now.
#[derive(Serialize, JsonSchema)]
pub struct AddedAddress {
    address: String,
    message: String,
    label: String,
    coverage: CoverageShape,
    /// The history scan that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    scan_id: Option<String>,
}

/// Addresses that are watched now.
#[derive(Serialize, JsonSchema)]
pub struct AddedAddresses {
    count: usize,
    /// Those that were not watched before.
    added: usize,
    message: String,
    /// The history scan that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    scan_id: Option<String>,
}

/// An address that is not watched any more.
#[derive(Serialize, JsonSchema)]
pub struct RemovedAddress {
    address: String,
    message: String,
}

/// `POST /add_address`
pub async fn add_address(
    scans: &Arc<Scans>,
    principal: &Principal,
    asked: AddAddress,
) -> Result<Reply<WithCursor<AddedAddress>>, ApiError> {
    let Scans {
        reads, watchlist, ..
    } = &**scans;
    let address = reads.address(&asked.address)?;
    let history = watchlist.history(asked.history);
    let request = WatchRequest {
        spk: address.spk.clone(),
        label: asked.label.map(|Label(label)| label),
        depths: asked.confirmations.unwrap_or_default().0,
        baseline: history.into(),
    };
    let (scan, done) = scans.watch(principal, vec![request], history).await?;
    let text = address.text.clone();
    let read = move |view: &StoreView<'_>| {
        let row = view.watched(&address)?;
        let coverage = view.coverage(&address.script, &row)?;
        Ok((row.label, coverage))
    };
    let (label, coverage) = reads.run(read).await?;
    let message = match done.added {
        0 => format!("{text} was watched already."),
        _ => format!("Watching {text} from now on."),
    };
    let added = AddedAddress {
        address: text,
        message,
        label,
        coverage,
        scan_id: scan.map(|scan| scan.to_string()),
    };
    let cursor = reads.encoder.cursor(done.head);
    Ok(respond::with_cursor(StatusCode::OK, &cursor, added))
}

/// `POST /add_addresses`: all of them or, when one is bad, none.
pub async fn add_addresses(
    scans: &Arc<Scans>,
    principal: &Principal,
    asked: AddAddresses,
) -> Result<Reply<WithCursor<AddedAddresses>>, ApiError> {
    let Scans {
        reads, watchlist, ..
    } = &**scans;
    let history = watchlist.history(asked.history);
    let requests = reads
        .run_long(move |view| requests(view, asked, history))
        .await?;
    let count = requests.len();
    let (scan, done) = scans.watch(principal, requests, history).await?;
    let added = done.added;
    let message = format!("Watching {}, {added} from now on.", address::count(count));
    let scan_id = scan.map(|scan| scan.to_string());
    let added = AddedAddresses {
        count,
        added,
        message,
        scan_id,
    };
    let cursor = reads.encoder.cursor(done.head);
    Ok(respond::with_cursor(StatusCode::OK, &cursor, added))
}

/// What is to be watched, each script once.
fn requests(
    view: &StoreView<'_>,
    asked: AddAddresses,
    history: HistoryOption,
) -> Result<Vec<WatchRequest>, ApiError> {
    let listed = asked.addresses.parse(view.encoder.network)?;
    let Depths(depths) = asked.confirmations.unwrap_or_default();
    let mut places: HashMap<_, usize> = HashMap::new();
    let mut requests: Vec<WatchRequest> = Vec::new();
    for (address, listed) in listed {
        let label = listed.label.map(|Label(label)| label);
        let place = *places.entry(address.script).or_insert(requests.len());
        match requests.get_mut(place) {
            // Named twice: one request, with the last label.
            Some(request) => request.label = label.or(request.label.take()),
            None => requests.push(WatchRequest {
                spk: address.spk,
                label,
                depths: depths.clone(),
                baseline: history.into(),
            }),
        }
    }
    Ok(requests)
}

/// `DELETE /addresses/{address}`: as if it had never been watched. Who is subscribed to it stays
/// so, and hears of it again if somebody adds it again.
pub async fn remove_address(
    scans: &Scans,
    address: &str,
) -> Result<Reply<WithCursor<RemovedAddress>>, ApiError> {
    let known = scans.reads.address(address)?;
    let address = known.text.clone();
    let head = scans.watchlist.remove(known).await?;
    let message =
        format!("{address} is not watched any more, and what was known of it is forgotten.");
    let (removed, cursor) = (
        RemovedAddress { address, message },
        scans.reads.encoder.cursor(head),
    );
    Ok(respond::with_cursor(StatusCode::OK, &cursor, removed))
}

/// The addresses without repetitions, in order.
pub fn distinct(addresses: impl IntoIterator<Item = KnownAddress>) -> Vec<KnownAddress> {
    let mut seen = HashSet::new();
    addresses
        .into_iter()
        .filter(|address| seen.insert(address.script))
        .collect()
}
