//! The backend that has the store: it watches, and takes the snapshot of what is subscribed to.
//!
//! The cursor is judged first, so that one that is no cursor has changed nothing; then what is
//! wanted is watched, and the snapshot is taken.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;

use super::answers::{Connected, ErrorEvent, Subscribed, SubscribedBlocks};
use super::backend::{Admitted, Backend, BegunSubscription, OwnConsumers, WhoItIs};
use super::subscription::{NamedDescriptor, Subject, Subscription};
use crate::api::access::{Access, Caller, Cost};
use crate::api::descriptors::{Addition, Descriptors};
use crate::api::watchlist::Watchlist;
use crate::auth::{Credential, Guard, Principal};
use crate::events::cursors;
use crate::reads::StoreView;
use crate::wire::ApiError;
use crate::wire::address::{self, KnownAddress};
use crate::wire::json::{Balance, to_raw};

/// The answer to a longer list carries no balances.
const BALANCES: usize = 1000;

/// How often an address that somebody takes off the list just when it is subscribed to is put on it
/// again.
const ADDED_AGAIN: u32 = 3;

pub struct StoreBackend {
    pub auth: Guard,
    pub watchlist: Arc<Watchlist>,
    pub descriptors: Arc<Descriptors>,
    pub consumers: OwnConsumers,
    pub access: Arc<Access>,
}

impl Backend for StoreBackend {
    fn asks_who(&self) -> bool {
        self.auth.is_on()
    }

    fn admit<'a>(
        &'a self,
        credential: Credential<'a>,
        _at: &'a Caller,
    ) -> BoxFuture<'a, Result<WhoItIs, ApiError>> {
        let admitted = self.auth.admit(credential);
        let admitted = admitted.map(|principal| (principal, None));
        std::future::ready(admitted.map_err(ApiError::from)).boxed()
    }

    fn connected(&self) -> Result<Connected, ApiError> {
        self.consumers.reads.on_the_spot(|view| {
            let (network, tip) = (view.encoder.network, view.tip_shape()?);
            Ok(Connected::new(network, tip, view.cursor()?))
        })
    }

    fn begin<'a>(
        &'a self,
        client: &'a Admitted,
        wanted: Arc<Subscription>,
    ) -> BoxFuture<'a, Result<BegunSubscription, ApiError>> {
        self.begin_wanted(client, wanted).boxed()
    }

    fn consumers(&self) -> Result<&OwnConsumers, ApiError> {
        Ok(&self.consumers)
    }
}

impl StoreBackend {
    async fn begin_wanted(
        &self,
        client: &Admitted,
        wanted: Arc<Subscription>,
    ) -> Result<BegunSubscription, ApiError> {
        let (after, problem) = self.judge_cursor(&wanted).await?;
        let mut tries = ADDED_AGAIN;
        loop {
            self.ensure_watched(client, &wanted).await?;
            let (read, why) = (wanted.clone(), problem.clone());
            let begun = move |view: &StoreView<'_>| begun(view, &read, after, why);
            let reads = &self.consumers.reads;
            match reads.run_rows(wanted.subject.count(), begun).await {
                // Somebody has taken it off the list meanwhile. Who is answered with `subscribed`
                // hears of what is watched.
                Err(error) if is_gone(&error) && tries > 0 => tries -= 1,
                begun => return begun,
            }
        }
    }

    /// The number to replay from, or what is wrong with the cursor.
    async fn judge_cursor(
        &self,
        wanted: &Subscription,
    ) -> Result<(Option<u64>, Option<ApiError>), ApiError> {
        let Some(after) = wanted.after.clone() else {
            return Ok((None, None));
        };
        let place = move |view: &StoreView<'_>| cursors::place(view, &after);
        match self.consumers.reads.run(place).await {
            Ok(number) => Ok((Some(number), None)),
            Err(error) if matches!(error.code, "cursor_unknown" | "cursor_expired") => {
                Ok((None, Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// Has what is wanted watched.
    async fn ensure_watched(
        &self,
        client: &Admitted,
        wanted: &Subscription,
    ) -> Result<(), ApiError> {
        let (access, depths) = (&self.access, wanted.depths.clone());
        let costly = || access.take(&client.caller, Cost::Costly);
        let (addresses, many) = match &wanted.subject {
            Subject::Blocks => return Ok(()),
            Subject::Addresses { addresses, many } => (addresses, *many),
            Subject::Descriptor(descriptor) => {
                let told = self.ensure_told(&client.principal, descriptor, depths, costly);
                if told.await? {
                    let short = descriptor.id.short();
                    access.changed(&client.caller, "subscribe_descriptor", Some(&short));
                }
                return Ok(());
            }
        };
        let (watchlist, principal) = (&self.watchlist, &client.principal);
        let added = watchlist.ensure_watched(principal, addresses.clone(), depths, costly);
        let added = added.await?;
        if added > 0 {
            // The line of what was put on the watch list, or given further depths.
            let (what, concerns) = match addresses.first().filter(|_| !many) {
                Some(address) => ("subscribe_address", address.text.clone()),
                None => ("subscribe_addresses", address::count(added)),
            };
            access.changed(&client.caller, what, Some(&concerns));
        }
        Ok(())
    }

    /// Has a descriptor watched with these depths: whether that is new. `costly`: counts it if it
    /// has to be added, or refuses that.
    async fn ensure_told(
        &self,
        principal: &Principal,
        wanted: &NamedDescriptor,
        depths: Vec<u8>,
        costly: impl FnOnce() -> Result<(), ApiError> + Send,
    ) -> Result<bool, ApiError> {
        let told = self
            .descriptors
            .ensure_told(principal, wanted.id, depths.clone());
        let missing = match told.await {
            Err(error) if error.code == "no_such_descriptor" => error,
            told => return told,
        };
        let Some(wallet) = &wanted.wallet else {
            return Err(missing);
        };
        costly()?;
        let addition = Addition {
            depths,
            ..Addition::default()
        };
        self.descriptors.add(principal, wallet, addition).await?;
        Ok(true)
    }
}

/// What is told of the snapshot, in which all are watched. `after`: the number of a replay.
/// `problem`: why there is no replay although one was asked for.
fn begun(
    view: &StoreView<'_>,
    wanted: &Subscription,
    after: Option<u64>,
    problem: Option<ApiError>,
) -> Result<BegunSubscription, ApiError> {
    let number = view.head()?;
    let cursor = view.encoder.cursor(after.unwrap_or(number));
    let subscribed = subscribed(view, wanted, cursor, problem.as_ref())?;
    Ok(BegunSubscription {
        subscribed,
        number,
        cursor: view.encoder.cursor(number),
        after,
        error: problem.map(|problem| to_raw(&ErrorEvent::from(problem))),
    })
}

/// The event `subscribed`, or `subscribed_blocks`. `cursor`: of the snapshot, or of a replay.
fn subscribed(
    view: &StoreView<'_>,
    wanted: &Subscription,
    cursor: String,
    problem: Option<&ApiError>,
) -> Result<Box<RawValue>, ApiError> {
    let names = wanted.subject.named();
    let has_balances = wanted.snapshot || problem.is_some();
    let (mut balance, mut balances, mut count) = (None, None, None);
    let message = match &wanted.subject {
        Subject::Blocks => {
            return Ok(to_raw(&SubscribedBlocks {
                message: "Subscribed to blocks and reorgs.",
                tip: view.tip_shape()?,
                cursor,
            }));
        }
        Subject::Descriptor(descriptor) => {
            let told = view.descriptor_balance(&descriptor.id)?;
            balance = Some(told).filter(|_| has_balances);
            format!("Subscribed to the descriptor {}.", descriptor.id)
        }
        Subject::Addresses { addresses, many } => {
            let is_short = addresses.len() <= BALANCES;
            let told = balances_of(view, addresses, is_short && has_balances)?;
            match many {
                true => (balances, count) = (told, Some(addresses.len())),
                false => balance = told.and_then(|mut it| it.pop()),
            }
            match addresses.first().filter(|_| !many) {
                Some(address) => format!("Subscribed to {}.", address.text),
                None if is_short => format!("Subscribed to {}.", address::count(addresses.len())),
                None => format!(
                    "Subscribed to {} addresses. For balances of so many, read GET /addresses.",
                    addresses.len()
                ),
            }
        }
    };
    Ok(to_raw(&Subscribed {
        message,
        names,
        count,
        balance,
        balances,
        cursor,
        error: problem.map(|it| it.message.clone()),
        code: problem.map(|it| it.code),
    }))
}

/// The balances of addresses, all of which must be watched; `None` if they are not to be told.
fn balances_of(
    view: &StoreView<'_>,
    addresses: &[KnownAddress],
    are_told: bool,
) -> Result<Option<Vec<Balance>>, ApiError> {
    if !are_told {
        for address in addresses {
            view.watched(address)?;
        }
        return Ok(None);
    }
    let balances = addresses.iter().map(|it| view.balance(it));
    balances.collect::<Result<Vec<_>, _>>().map(Some)
}

/// It was taken off the list.
fn is_gone(error: &ApiError) -> bool {
    matches!(error.code, "not_watched" | "no_such_descriptor")
}
