//! How much a token may have on the watch list and among the consumers.
//!
//! What it has is counted in the store, in the batch of each change. What it is being given counts
//! here until it is written, so that many requests at once get no further than one after the other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::StatusCode;
use tokio::sync::watch;

use crate::config::Limits;
use crate::limits::{LimitUse, TokenId};
use crate::store::{StoreError, StoreReader};
use crate::wire::error::ApiError;

const ADDRESSES: &str = "addresses_per_token";
const CONSUMERS: &str = "consumers_per_token";

pub struct Quotas {
    reader: StoreReader,
    limits: watch::Receiver<Limits>,
    /// Addresses that are being added, by themselves or with a descriptor.
    reserved: Mutex<HashMap<TokenId, usize>>,
    addresses_refused: AtomicU64,
    consumers_refused: AtomicU64,
}

/// Which token has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// That of who asks.
    Asking,
    /// The one that added the descriptor of which more is asked for.
    Descriptor,
}

/// Addresses that are being added for a token, until it is dropped.
pub struct Reserved {
    quotas: Arc<Quotas>,
    owner: TokenId,
    count: usize,
}

impl Quotas {
    pub fn new(reader: StoreReader, limits: watch::Receiver<Limits>) -> Arc<Self> {
        Arc::new(Self {
            reader,
            limits,
            reserved: Mutex::default(),
            addresses_refused: AtomicU64::new(0),
            consumers_refused: AtomicU64::new(0),
        })
    }

    fn most_addresses(&self) -> usize {
        self.limits.borrow().addresses_per_token
    }

    fn most_consumers(&self) -> usize {
        self.limits.borrow().consumers_per_token
    }

    fn reserved(&self) -> MutexGuard<'_, HashMap<TokenId, usize>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for so many more addresses of a token; `None` if there is none.
    pub fn reserve(
        self: &Arc<Self>,
        owner: TokenId,
        count: usize,
    ) -> Result<Option<Reserved>, StoreError> {
        let mut reserved = self.reserved();
        // Read while nothing that is being added can become what is there.
        let owned = self.reader.owned(&owner)?.addresses;
        let under_way = reserved.get(&owner).copied().unwrap_or_default();
        let sum = usize::try_from(owned).ok().and_then(|owned| {
            let sum = owned.checked_add(under_way)?.checked_add(count)?;
            (count == 0 || sum <= self.most_addresses()).then_some(under_way + count)
        });
        let Some(sum) = sum else {
            return Ok(None);
        };
        reserved.insert(owner, sum);
        let quotas = self.clone();
        Ok(Some(Reserved {
            quotas,
            owner,
            count,
        }))
    }

    /// That there was no room for so many.
    pub fn addresses_refused(
        &self,
        owner: &TokenId,
        count: usize,
        whose: Whose,
    ) -> Result<ApiError, StoreError> {
        self.addresses_refused.fetch_add(1, Ordering::Relaxed);
        let (has, most) = (self.reader.owned(owner)?.addresses, self.most_addresses());
        let whose = match whose {
            Whose::Asking => "This token",
            Whose::Descriptor => "The token that added the descriptor",
        };
        let message = format!(
            "{whose} has {has} addresses on the watch list, those of its descriptors included, and may have {most} (limits.{ADDRESSES}); {count} more do not fit. Remove some with DELETE /addresses/<address>, or have the limit raised."
        );
        Ok(refused(ADDRESSES, message))
    }

    /// Refuses one more consumer of a token when it has as many as it may. To be asked while none
    /// is defined.
    pub fn check_consumer(&self, owner: &TokenId) -> Result<(), ApiError> {
        let (has, most) = (self.reader.owned(owner)?.consumers, self.most_consumers());
        if has < most as u64 {
            return Ok(());
        }
        self.consumers_refused.fetch_add(1, Ordering::Relaxed);
        let message = format!(
            "This token has {has} consumers and may have {most} (limits.{CONSUMERS}). Remove one with DELETE /consumers/<name>, or have the limit raised."
        );
        Err(refused(CONSUMERS, message))
    }

    /// Used is what the token has that has most.
    pub fn limits(&self) -> Result<[LimitUse; 2], StoreError> {
        let most = self.reader.owned_most()?;
        let of = |name, limit, used, refused: &AtomicU64| LimitUse {
            name,
            limit,
            used: usize::try_from(used).unwrap_or(usize::MAX),
            refused: refused.load(Ordering::Relaxed),
        };
        Ok([
            of(
                ADDRESSES,
                self.most_addresses(),
                most.addresses,
                &self.addresses_refused,
            ),
            of(
                CONSUMERS,
                self.most_consumers(),
                most.consumers,
                &self.consumers_refused,
            ),
        ])
    }
}

fn refused(name: &'static str, message: String) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "quota_reached", message).of_limit(name)
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut reserved = self.quotas.reserved();
        if let Some(count) = reserved.get_mut(&self.owner) {
            *count = count.saturating_sub(self.count);
            if *count == 0 {
                reserved.remove(&self.owner);
            }
        }
    }
}
