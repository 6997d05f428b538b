//! The addresses of a descriptor, and the next one to give away.

use std::sync::Arc;

use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::descriptors::{Descriptors, Given, no_such_keychain};
use crate::api::rest::budget::Budget;
use crate::api::rest::respond::{self, Reply, WithCursor};
use crate::auth::Principal;
use crate::reads::{Reads, StoreView};
use crate::tracker::{Derivation, Keychain};
use crate::wire::ApiError;
use crate::wire::json::{Block, DerivedAddress, KeychainName, derived_address, keychain as word};
use crate::wire::request::Request;
use crate::wire::request::descriptors::{Index, KeychainWord, descriptor_id};
use crate::wire::request::types::{Label, Limit, Whole};

const PAGE_DEFAULT: usize = 100;
const PAGE_MOST: u32 = 1000;

/// `GET /descriptors/{id}/addresses`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListDerived {
    /// `external` when absent.
    keychain: Option<KeychainWord>,
    /// The first index.
    from: Option<Index>,
    /// 100 when absent.
    limit: Option<Limit<PAGE_MOST>>,
}

impl Request for ListDerived {
    const INSTEAD: &'static [(&'static str, &'static str)] = &[
        ("after", NEXT_PAGE),
        ("page", NEXT_PAGE),
        ("offset", NEXT_PAGE),
    ];
}

const NEXT_PAGE: &str = "write the `next` of the page before as `from`";

/// `POST /descriptors/{id}/next_address`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NextAddress {
    /// `external` when absent.
    keychain: Option<KeychainWord>,
    label: Option<Label>,
}

impl Request for NextAddress {
    const EXAMPLE: &'static str = "{\"label\": \"<label>\"}";
    const INSTEAD: &'static [(&'static str, &'static str)] =
        &[("index", "the next unused one is given, by itself")];
}

/// A page of the addresses of one keychain, the lookahead among them.
#[derive(Serialize, JsonSchema)]
pub struct DerivedPage {
    descriptor_id: String,
    keychain: KeychainName,
    addresses: Vec<DerivedAddress>,
    count: usize,
    /// On all pages.
    total: u32,
    /// The index of the next address that is given away.
    next_index: u32,
    /// The last index that the descriptor's `coverage` speaks for.
    watched_to: Option<u32>,
    /// The `from` of the next page; `null` on the last one.
    next: Option<u32>,
    tip: Option<Block>,
}

/// An address that is given to nobody else.
#[derive(Serialize, JsonSchema)]
pub struct GivenAddress {
    address: String,
    descriptor_id: String,
    keychain: KeychainName,
    index: u32,
    /// It lies farther behind the last used one than other wallets look.
    beyond_gap: bool,
}

fn asked_for(keychain: Option<KeychainWord>) -> Keychain {
    keychain.map_or(Keychain::External, |KeychainWord(keychain)| keychain)
}

/// `GET /descriptors/{id}/addresses?keychain=&from=&limit=`: those of one keychain that are
/// watched, the lookahead among them; `next` is the `from` of the next page.
pub async fn addresses(
    reads: &Reads,
    budget: &Budget,
    id: &str,
    query: ListDerived,
) -> Result<Reply<WithCursor<DerivedPage>>, ApiError> {
    let (id, budget) = (descriptor_id(id)?, budget.clone());
    let limit = query.limit.map_or(PAGE_DEFAULT, Limit::get);
    let keychain = asked_for(query.keychain);
    let from = Derivation {
        descriptor: id,
        keychain,
        index: query.from.map_or(0, |Whole(index)| index),
    };
    let read = move |view: &StoreView<'_>| {
        let (row, _) = view.wallet_rows(&id)?;
        let indexes = row.keychain(keychain).ok_or_else(no_such_keychain)?;
        budget.check_rows(limit as u64)?;
        let derived = view.derived(&from, limit)?;
        let shapes = derived.iter().map(|(place, script, row)| {
            let coverage = view.coverage(script, row)?;
            Ok(derived_address(
                &view.address_of(&row.spk),
                place,
                row,
                coverage,
            ))
        });
        let next = derived
            .last()
            .map(|(place, ..)| place.index.saturating_add(1));
        let page = DerivedPage {
            descriptor_id: id.to_string(),
            keychain: word(keychain),
            addresses: shapes.collect::<Result<Vec<_>, ApiError>>()?,
            count: derived.len(),
            total: indexes.derived,
            next_index: indexes.next_index(),
            watched_to: indexes.watched_to.checked_sub(1),
            next: next.filter(|next| *next < indexes.derived),
            tip: view.tip()?.map(Block::from),
        };
        Ok(respond::with_cursor(StatusCode::OK, &view.cursor()?, page))
    };
    reads.run_long(read).await
}

/// `POST /descriptors/{id}/next_address`
pub async fn next_address(
    descriptors: &Arc<Descriptors>,
    principal: &Principal,
    id: &str,
    asked: NextAddress,
) -> Result<Reply<WithCursor<GivenAddress>>, ApiError> {
    let id = descriptor_id(id)?;
    let label = asked.label.map(|Label(label)| label);
    let given = descriptors.give(principal, id, asked_for(asked.keychain), label);
    let given = given.await?;
    let beyond_gap = given.is_beyond_gap();
    let Given {
        place, spk, head, ..
    } = given;
    let encoder = &descriptors.scans.reads.encoder;
    let answer = GivenAddress {
        address: crate::wire::address::text(&spk, encoder.network),
        descriptor_id: id.to_string(),
        keychain: word(place.keychain),
        index: place.index,
        beyond_gap,
    };
    let cursor = encoder.cursor(head);
    Ok(respond::with_cursor(StatusCode::OK, &cursor, answer))
}
