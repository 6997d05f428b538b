//! Giving the addresses of a descriptor away: each index once, and none that the chain has used, as
//! far as that is known.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::ScriptBuf;
use hyper::StatusCode;
use tokio::time::{Instant, sleep};

use super::Descriptors;
use crate::api::quotas::Whose;
use crate::api::watchlist::AGAIN;
use crate::auth::Principal;
use crate::clock::now_ms;
use crate::indexer::InputRefused;
use crate::limits::TokenId;
use crate::reads::{StoreView, run_detached};
use crate::tracker::{ApplyError, Derivation, DescriptorId, DescriptorRow, Input, Keychain};
use crate::wire::ApiError;
use crate::wire::json::keychain as word;
use crate::wire::request::descriptors::no_such_descriptor;

/// Unused addresses in a row after which other wallets look no further (BIP 44).
const LOOKED_AT: u32 = 20;
/// So long who asks for an address waits for what the descriptor had before: it may be used.
const PAST_AWAITED: Duration = Duration::from_secs(10);

/// An address that was given away.
pub struct Given {
    pub place: Derivation,
    pub spk: ScriptBuf,
    /// So many before it are unused since the last used one.
    pub unused: u32,
    pub head: u64,
}

impl Given {
    /// Other wallets would not find a payment to it.
    pub fn is_beyond_gap(&self) -> bool {
        self.unused >= LOOKED_AT
    }
}

/// What came of a try to give an address away.
enum Tried {
    Given(Given),
    /// Somebody else got it, or it had to be derived first.
    Again,
    /// What the descriptor had before is not known yet.
    PastAwaited,
}

impl Descriptors {
    /// Gives the next unused address away. It is on the disk when this returns, and goes to nobody
    /// else, also when who asked has left.
    pub async fn give(
        self: &Arc<Self>,
        principal: &Principal,
        id: DescriptorId,
        keychain: Keychain,
        label: Option<String>,
    ) -> Result<Given, ApiError> {
        let descriptors = self.clone();
        let asking = principal.token().map(|token| token.id.0);
        run_detached(async move {
            let most = Instant::now() + PAST_AWAITED;
            loop {
                let tried = descriptors.try_to_give(asking, id, keychain, label.clone());
                match tried.await? {
                    Tried::Given(given) => return Ok(given),
                    Tried::Again => {}
                    Tried::PastAwaited if Instant::now() >= most => return Err(past_awaited()),
                    Tried::PastAwaited => {
                        let pause = descriptors.stop.run_until_cancelled(sleep(AGAIN));
                        pause.await.ok_or_else(ApiError::stopping)?;
                    }
                }
            }
        })
        .await
    }

    /// One try. `asking`: the token of who asks, if they have one.
    async fn try_to_give(
        &self,
        asking: Option<TokenId>,
        id: DescriptorId,
        keychain: Keychain,
        label: Option<String>,
    ) -> Result<Tried, ApiError> {
        let turn = self.giving.lock().await;
        let most = self.limits.borrow().descriptor_scripts;
        let look = move |view: &StoreView<'_>| next(view, id, keychain, most);
        let Some(next) = self.scans.reads.run(look).await? else {
            return Ok(Tried::PastAwaited);
        };
        let Next {
            place,
            spk,
            unused,
            owner,
        } = next;
        let index = place.index;
        let Some(spk) = spk else {
            drop(turn);
            let is_there = |row: &DescriptorRow| {
                let indexes = row.keychain(keychain);
                indexes.is_some_and(|it| it.derived > index)
            };
            self.wait_for(&id, is_there).await?;
            return Ok(Tried::Again);
        };
        // One script more is looked ahead for each that is given.
        let whose = match asking == owner {
            true => Whose::Asking,
            false => Whose::Descriptor,
        };
        let reserved = owner.map(|owner| self.reserve(owner, 1, whose));
        let _reserved = reserved.transpose()?;
        let now = now_ms();
        let reserve = Input::Reserve { place, label, now };
        match self.scans.indexer.apply(reserve).await {
            Ok(done) => {
                let keychain = word(keychain).word();
                tracing::info!(descriptor = %id, keychain, index, "an address was given away");
                Ok(Tried::Given(Given {
                    place,
                    spk,
                    unused,
                    head: done.head,
                }))
            }
            // It was used meanwhile, or the descriptor was removed and is another one now.
            Err(InputRefused::Apply(ApplyError::AlreadyGiven(_) | ApplyError::NotDerivedTo(_))) => {
                Ok(Tried::Again)
            }
            Err(InputRefused::Apply(ApplyError::NoSuchDescriptor(_))) => Err(no_such_descriptor()),
            Err(refused) => Err(refused.into()),
        }
    }
}

/// What is given next.
struct Next {
    place: Derivation,
    /// `None` until it is derived.
    spk: Option<ScriptBuf>,
    unused: u32,
    /// The token for which one script more counts, if there is one more.
    owner: Option<TokenId>,
}

/// `None` while the past of the descriptor is awaited. `most`: scripts that it may have.
fn next(
    view: &StoreView<'_>,
    id: DescriptorId,
    keychain: Keychain,
    most: usize,
) -> Result<Option<Next>, ApiError> {
    let (row, _) = view.wallet_rows(&id)?;
    let indexes = *row.keychain(keychain).ok_or_else(no_such_keychain)?;
    let place = Derivation {
        descriptor: id,
        keychain,
        index: indexes.next_index(),
    };
    if !row.is_ranged && place.index > 0 {
        return Err(no_more_addresses());
    }
    if row.is_pending() {
        return Ok(None);
    }
    let window = place.index.saturating_add(1).saturating_add(row.gap_limit);
    let is_more = row.is_ranged && window > indexes.window;
    if is_more && row.scripts() >= most as u64 {
        return Err(as_many_as_may_be(most));
    }
    let owner = match is_more {
        true => view.reader.owner_of(&id)?,
        false => None,
    };
    let script = view.derivation(&place)?;
    let watch = script.map(|script| view.watch(&script)).transpose()?;
    let first_unused = indexes.last_used.map_or(0, |last| last.saturating_add(1));
    Ok(Some(Next {
        place,
        spk: watch.flatten().map(|watch| watch.spk),
        unused: place.index.saturating_sub(first_unused),
        owner,
    }))
}

fn as_many_as_may_be(most: usize) -> ApiError {
    let message = format!(
        "This descriptor has {most} scripts or more, its lookahead included, and no more come by giving addresses away (limits.descriptor_scripts)."
    );
    ApiError::conflict("too_many_scripts", message).of_limit("descriptor_scripts")
}

fn past_awaited() -> ApiError {
    let message = "What this descriptor had before is still being found out, and its next address may be a used one; ask again in a moment, or when GET /descriptors/<id> says `\"pending\": false`.";
    ApiError::conflict("past_awaited", message)
}

pub fn no_such_keychain() -> ApiError {
    let message = "This descriptor has no internal keychain: only one with a multipath (/<0;1>/*) has two. Leave \"keychain\" out, or write \"external\".";
    ApiError::bad_request("no_such_keychain", message)
}

fn no_more_addresses() -> ApiError {
    let message = "The address of this descriptor has been given away: without a wildcard (/*) it has one alone.";
    ApiError::new(StatusCode::CONFLICT, "no_more_addresses", message)
}
