//! The watch list: putting addresses on it and taking them off.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::sleep;

use crate::api::quotas::{Quotas, Reserved, Whose};
use crate::auth::{Principal, Refusal, Scope};
use crate::clock::now_ms;
use crate::indexer::{self, Done, InputRefused};
use crate::limits::TokenId;
use crate::reads::{Reads, run_detached};
use crate::tracker::{
    ApplyError, Baseline, DEPTHS_MOST, Input, ScriptHash, WatchRequest, WatchRow, all_depths,
};
use crate::wire::ApiError;
use crate::wire::address::{self, KnownAddress};
use crate::wire::request::history::HistoryOption;

/// Between two tries to add what is still being removed.
pub const AGAIN: Duration = Duration::from_millis(100);

pub struct Watchlist {
    reads: Reads,
    indexer: indexer::Handle,
    /// What is found out about an address's past when the request does not say.
    history: HistoryOption,
    quotas: Arc<Quotas>,
    /// Held for reading by those who look whether addresses are watched and ask for something that
    /// would watch them; for writing by who takes one off the list: it must not come back by that.
    list: RwLock<()>,
}

impl Watchlist {
    pub fn new(
        reads: Reads,
        indexer: indexer::Handle,
        history: HistoryOption,
        quotas: Arc<Quotas>,
    ) -> Self {
        Self {
            reads,
            indexer,
            history,
            quotas,
            list: RwLock::default(),
        }
    }

    /// What a request asks for, or what the settings say.
    pub fn history(&self, asked: Option<HistoryOption>) -> HistoryOption {
        asked.unwrap_or(self.history)
    }

    /// Nothing is taken off the list while this is held.
    pub async fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.list.read().await
    }

    /// Nobody else holds the list while this is held: something may be taken off.
    pub async fn hold_for_removal(&self) -> RwLockWriteGuard<'_, ()> {
        self.list.write().await
    }

    /// Watches scripts for who asks. While one of them is still being removed it waits, so nobody
    /// who holds the list asks for that.
    pub async fn watch(
        &self,
        principal: &Principal,
        scripts: Vec<WatchRequest>,
    ) -> Result<Done, ApiError> {
        loop {
            match self.try_to_watch(principal, scripts.clone()).await? {
                Some(done) => return Ok(done),
                None => sleep(AGAIN).await,
            }
        }
    }

    /// `None` while one of the scripts is still being removed.
    pub async fn try_to_watch(
        &self,
        principal: &Principal,
        scripts: Vec<WatchRequest>,
    ) -> Result<Option<Done>, ApiError> {
        if scripts.len() > indexer::PORTION {
            self.check_depths(&scripts).await?;
        }
        let owner = principal.token().map(|token| token.id.0);
        let reserved = match owner {
            Some(owner) => Some(self.reserve(owner, &scripts).await?),
            None => None,
        };
        let (indexer, now) = (self.indexer.clone(), now_ms());
        let network = self.reads.encoder.network;
        // Also when nobody waits for it any more, what is reserved is held until it is written.
        run_detached(async move {
            let watch = Input::Watch { scripts, now };
            let watched = indexer.apply_of(watch, owner).await;
            drop(reserved);
            match watched {
                Ok(done) => Ok(Some(done)),
                Err(InputRefused::Apply(ApplyError::StillForgetting(_))) => Ok(None),
                Err(InputRefused::Apply(ApplyError::TooManyDepths {
                    spk: Some(spk),
                    has,
                    asked,
                })) => Err(too_many_depths(&address::text(&spk, network), &has, &asked)),
                Err(refused) => Err(refused.into()),
            }
        })
        .await
    }

    /// Refuses depths that are too many beside those that the scripts have. The tracker does that,
    /// too, but in a large add when it comes to them.
    async fn check_depths(&self, scripts: &[WatchRequest]) -> Result<(), ApiError> {
        let asked = scripts.iter().filter(|it| !it.depths.is_empty());
        let asked: Vec<_> = asked
            .map(|it| (it.spk.clone(), it.depths.clone()))
            .collect();
        if asked.is_empty() {
            return Ok(());
        }
        let check = self.reads.run_rows(asked.len(), move |view| {
            for (spk, depths) in &asked {
                let row = view.watch(&ScriptHash::of(spk))?;
                let has = row.map(|row| row.depths).unwrap_or_default();
                check_depths(&view.address_of(spk), &has, depths)?;
            }
            Ok(())
        });
        check.await
    }

    /// Room for those of the scripts that are not on the list yet. Which these are is looked at
    /// only when there is no room for all.
    async fn reserve(
        &self,
        owner: TokenId,
        scripts: &[WatchRequest],
    ) -> Result<Reserved, ApiError> {
        if let Some(reserved) = self.quotas.reserve(owner, scripts.len())? {
            return Ok(reserved);
        }
        let hashes: BTreeSet<_> = scripts.iter().map(|it| ScriptHash::of(&it.spk)).collect();
        let count = self.reads.run_rows(hashes.len(), move |view| {
            let mut new = 0;
            for script in &hashes {
                let row = view.watch(script)?;
                new += usize::from(row.is_none_or(|row| !row.listed));
            }
            Ok(new)
        });
        let count = count.await?;
        match self.quotas.reserve(owner, count)? {
            Some(reserved) => Ok(reserved),
            None => Err(self
                .quotas
                .addresses_refused(&owner, count, Whose::Asking)?),
        }
    }

    /// Puts those of the addresses on the list that are not there yet, or not with these depths:
    /// how many. Who may only read is refused if there are any; `costly` counts them if there are
    /// several, or refuses them.
    ///
    /// One that is watched for a descriptor alone is not on the list: whoever listens to it must
    /// not become deaf when the descriptor is removed, of which only its own listeners hear.
    pub async fn ensure_watched(
        &self,
        principal: &Principal,
        addresses: Arc<[KnownAddress]>,
        depths: Vec<u8>,
        costly: impl FnOnce() -> Result<(), ApiError> + Send,
    ) -> Result<usize, ApiError> {
        let mut costly = Some(costly);
        loop {
            let (addresses, depths) = (addresses.clone(), depths.clone());
            let tried = self.try_to_ensure_watched(principal, addresses, depths, &mut costly);
            match tried.await? {
                Some(count) => return Ok(count),
                None => sleep(AGAIN).await,
            }
        }
    }

    async fn try_to_ensure_watched(
        &self,
        principal: &Principal,
        addresses: Arc<[KnownAddress]>,
        depths: Vec<u8>,
        costly: &mut Option<impl FnOnce() -> Result<(), ApiError> + Send>,
    ) -> Result<Option<usize>, ApiError> {
        let baseline = Baseline::from(self.history);
        let allowed = principal.require(Scope::Watch);
        let _list = self.hold().await;
        let missing = self.reads.run_rows(addresses.len(), move |view| {
            let mut missing = Vec::new();
            // An add that fails takes back what is new in it, unless somebody else wants it, too.
            let adding = view.adding()?;
            for address in addresses.iter() {
                let row = view.watch(&address.script)?;
                let enough = row.as_ref().is_some_and(|row| {
                    row.listed && depths.iter().all(|depth| row.depths.contains(depth))
                });
                if !enough && let Err(refusal) = &allowed {
                    return Err(may_not_watch(&address.text, row.as_ref(), refusal));
                }
                let is_new = adding.binary_search(&address.script).is_ok();
                if !enough || (is_new && allowed.is_ok()) {
                    // An address that somebody added without its past keeps it that way.
                    let baseline = if row.is_none() {
                        baseline
                    } else {
                        Baseline::Skip
                    };
                    missing.push(WatchRequest {
                        spk: address.spk.clone(),
                        label: None,
                        depths: depths.clone(),
                        baseline,
                    });
                }
            }
            Ok(missing)
        });
        let missing = missing.await?;
        let count = missing.len();
        if count == 0 {
            return Ok(Some(0));
        }
        if count > 1
            && let Some(costly) = costly.take()
        {
            costly()?;
        }
        let watched = self.try_to_watch(principal, missing).await?;
        Ok(watched.map(|_| count))
    }

    /// Takes an address off the list: the head after that.
    pub async fn remove(self: &Arc<Self>, address: KnownAddress) -> Result<u64, ApiError> {
        let watchlist = self.clone();
        run_detached(async move {
            let _list = watchlist.hold_for_removal().await;
            let (scripts, now) = (vec![address.script], now_ms());
            let row = watchlist
                .reads
                .run(move |view| match view.watched(&address)? {
                    row if row.listed => Ok(()),
                    _ => Err(not_listed(&address.text)),
                });
            row.await?;
            let unwatch = Input::Unwatch { scripts, now };
            Ok(watchlist.indexer.apply(unwatch).await?.head)
        })
        .await
    }
}

/// Refuses depths that are too many beside those that somebody has.
pub fn check_depths(name: &str, has: &[u8], asked: &[u8]) -> Result<(), ApiError> {
    let all = all_depths(None, has, asked);
    all.map_err(|_| too_many_depths(name, has, asked))?;
    Ok(())
}

pub fn too_many_depths(name: &str, has: &[u8], asked: &[u8]) -> ApiError {
    let message = format!(
        "{name} has the confirmations {has:?} already, and with {asked:?} it would have more than the {DEPTHS_MOST} that all clients together may give it; removing it, and adding it again, gives back what it has."
    );
    ApiError::conflict("too_many_confirmations", message)
}

/// An address that is watched for descriptors alone.
fn not_listed(address: &str) -> ApiError {
    let message = format!(
        "{address} was not added by itself: it is an address of a descriptor (GET /balance/{address} works as for others). Remove that with DELETE /descriptors/<id> if nobody needs it."
    );
    ApiError::conflict("not_listed", message)
}

/// An address that is not on the list, or not with the depths that are asked for, by who may only
/// read.
fn may_not_watch(address: &str, row: Option<&WatchRow>, refusal: &Refusal) -> ApiError {
    let what = match row {
        None => "is not watched",
        Some(row) if !row.listed => "is watched for its descriptor alone, not by itself",
        Some(_) => "is not watched with these confirmations",
    };
    let error = ApiError::from(refusal.clone());
    let message = format!("{address} {what}. {}", error.message);
    ApiError { message, ..error }
}
