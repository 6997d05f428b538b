//! `subscribe_address`, `subscribe_addresses`, `unsubscribe_address`, `subscribe_blocks`.
//!
//! A subscription watches the addresses, registers with dispatch, takes a snapshot of the store and
//! tells the reader where to begin, in this order: what happens in between is marked for the reader
//! and comes behind the snapshot (`crate::events`, rules 2 and 3).

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::value::RawValue;

use super::answers::{CaughtUp, ErrorEvent, Names, Subscribed, SubscribedBlocks, Unsubscribed};
use super::client::{self, SubscriptionStart};
use super::descriptors::WantedDescriptor;
use super::requests::{SubscribeAddress, SubscribeAddresses, UnsubscribeAddress};
use super::{Call, Subscriptions};
use crate::api::access::Cost;
use crate::api::rest::watchlist::distinct;
use crate::events::{Registration, Topic, cursors};
use crate::limits::{Held, LimitUse};
use crate::reads::StoreView;
use crate::socketio::{Ack, Encoded};
use crate::wire::ApiError;
use crate::wire::address::{self, KnownAddress};
use crate::wire::json::{Balance, ServerEvent, to_raw};

/// The answer to a longer list carries no balances.
const BALANCES: usize = 1000;

/// How often an address that somebody takes off the list just when it is subscribed to is put on it
/// again.
const ADDED_AGAIN: u32 = 3;

/// What a client wants to subscribe to.
pub(super) struct Subscription {
    pub(super) subject: Subject,
    pub(super) depths: Vec<u8>,
    /// Replay what came after this cursor.
    pub(super) after: Option<String>,
    pub(super) snapshot: bool,
}

pub(super) enum Subject {
    Addresses {
        addresses: Arc<[KnownAddress]>,
        /// It asked for a list, and is answered with one.
        many: bool,
    },
    Descriptor(WantedDescriptor),
}

impl Subject {
    /// As answers name it: one address, a list when a list was asked for, or a descriptor.
    fn named(&self) -> Names {
        let mut names = Names::default();
        match self {
            Self::Addresses { addresses, many } => {
                let mut texts = addresses.iter().map(|address| address.text.clone());
                match many {
                    true => names.addresses = Some(texts.collect()),
                    false => names.address = texts.next(),
                }
            }
            Self::Descriptor(wanted) => names = Names::of_descriptor(wanted.id),
        }
        names
    }

    fn topics(&self) -> Vec<Topic> {
        match self {
            Self::Addresses { addresses, .. } => {
                let scripts = addresses.iter().map(|address| address.script);
                scripts.map(Topic::Script).collect()
            }
            Self::Descriptor(wanted) => vec![Topic::Descriptor(wanted.id)],
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Addresses { addresses, .. } => addresses.len(),
            Self::Descriptor(_) => 1,
        }
    }
}

/// Topics that are registered, and are given up again unless the subscription is made.
struct TopicsGuard {
    registration: Arc<Registration>,
    new: Vec<Topic>,
}

/// Places for topics that a client does not have yet.
fn places(subscriptions: &Subscriptions, count: usize) -> Result<Held, ApiError> {
    let LimitUse { name, limit, .. } = subscriptions.in_all.limit();
    subscriptions.in_all.take(count).ok_or_else(|| {
        let message = format!(
            "Clients have nearly {limit} subscriptions, as many as all together may (limits.{name}), and {count} more do not fit; try again when others have left."
        );
        let status = StatusCode::TOO_MANY_REQUESTS;
        ApiError::new(status, "quota_reached", message).of_limit(name)
    })
}

impl TopicsGuard {
    async fn add(registration: Arc<Registration>, new: Vec<Topic>) -> Result<Self, ApiError> {
        let registered = Self {
            registration: registration.clone(),
            new: new.clone(),
        };
        registration
            .add(new)
            .await
            .map_err(|_| ApiError::stopping())?;
        Ok(registered)
    }

    fn keep(mut self) {
        self.new.clear();
    }
}

impl Drop for TopicsGuard {
    fn drop(&mut self) {
        if !self.new.is_empty() {
            self.registration.remove(std::mem::take(&mut self.new));
        }
    }
}

impl Call {
    pub(super) async fn subscribe_address(
        &self,
        asked: SubscribeAddress,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let wanted = Subscription {
            subject: Subject::Addresses {
                addresses: [self.services.reads.address(&asked.address)?].into(),
                many: false,
            },
            depths: asked.confirmations.unwrap_or_default().0,
            after: asked.after,
            snapshot: asked.snapshot.unwrap_or(true),
        };
        self.subscribe(wanted, ack).await
    }

    pub(super) async fn subscribe_addresses(
        &self,
        asked: SubscribeAddresses,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let listed = asked.addresses;
        let parse = move |view: &StoreView<'_>| {
            let parsed = listed.parse(view.encoder.network)?;
            Ok(distinct(parsed.into_iter().map(|(address, _)| address)).into())
        };
        let wanted = Subscription {
            subject: Subject::Addresses {
                addresses: self.services.reads.run_long(parse).await?,
                many: true,
            },
            depths: asked.confirmations.unwrap_or_default().0,
            after: asked.after,
            snapshot: asked.snapshot.unwrap_or(true),
        };
        self.subscribe(wanted, ack).await
    }

    pub(super) async fn subscribe(
        &self,
        wanted: Subscription,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let topics = wanted.subject.topics();
        let subscriptions = &self.services.subscriptions;
        let limit = subscriptions.of_one();
        let (registration, new) = self.client()?.may_subscribe(&topics, limit)?;
        let held = places(subscriptions, new.len())?;
        let wanted = Arc::new(wanted);
        let (after, problem) = self.begin(&wanted).await?;
        let mut tries = ADDED_AGAIN;
        let (registered, json, head) = loop {
            self.ensure_watched(&wanted).await?;
            let registered = TopicsGuard::add(registration.clone(), new.clone()).await?;
            let (read, why) = (wanted.clone(), problem.clone());
            let described = self
                .services
                .reads
                .run_rows(wanted.subject.count(), move |view| {
                    subscribed(view, &read, after, why.as_ref())
                });
            match described.await {
                Ok((json, head)) => break (registered, json, head),
                // Somebody has taken it off the list meanwhile. Who is answered with `subscribed`
                // hears of what is watched.
                Err(error) if is_gone(&error) && tries > 0 => tries -= 1,
                Err(error) => return Err(error),
            }
        };
        let mut packets = Vec::new();
        if let Some(error) = problem {
            packets.extend(client::packets(&ErrorEvent::from(error), None)?);
        }
        packets.extend(client::written_packets::<Subscribed>(&json, ack.take())?);
        let caught_up = match after {
            Some(_) => Some((head, self.caught_up(&wanted, head)?)),
            None => None,
        };
        let from = SubscriptionStart {
            number: after.unwrap_or(head),
            caught_up,
        };
        self.client()?.subscribe(&topics, held, from, packets);
        registered.keep();
        Ok(())
    }

    /// Has what is wanted watched.
    async fn ensure_watched(&self, wanted: &Subscription) -> Result<(), ApiError> {
        let (client, depths) = (self.client()?, wanted.depths.clone());
        let costly = || self.services.access.take(&client.caller, Cost::Costly);
        let (addresses, many) = match &wanted.subject {
            Subject::Addresses { addresses, many } => (addresses, *many),
            Subject::Descriptor(descriptor) => {
                if descriptor.ensure_watched(self, depths, costly).await? {
                    let access = &self.services.access;
                    let short = descriptor.id.short();
                    access.changed(&client.caller, "subscribe_descriptor", Some(&short));
                }
                return Ok(());
            }
        };
        let watchlist = &self.services.watchlist;
        let added = watchlist.ensure_watched(&client.principal, addresses.clone(), depths, costly);
        let added = added.await?;
        if added > 0 {
            // The line of what was put on the watch list, or given further depths.
            let (what, concerns) = match addresses.first().filter(|_| !many) {
                Some(address) => ("subscribe_address", address.text.clone()),
                None => ("subscribe_addresses", address::count(added)),
            };
            let access = &self.services.access;
            access.changed(&client.caller, what, Some(&concerns));
        }
        Ok(())
    }

    /// The number to replay from, or what is wrong with the cursor.
    async fn begin(
        &self,
        wanted: &Subscription,
    ) -> Result<(Option<u64>, Option<ApiError>), ApiError> {
        let Some(after) = wanted.after.clone() else {
            return Ok((None, None));
        };
        let place = move |view: &StoreView<'_>| cursors::place(view, &after);
        match self.services.reads.run(place).await {
            Ok(number) => Ok((Some(number), None)),
            Err(error) if matches!(error.code, "cursor_unknown" | "cursor_expired") => {
                Ok((None, Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// The end of a replay.
    fn caught_up(&self, wanted: &Subscription, head: u64) -> Result<Encoded, ApiError> {
        let names = wanted.subject.named();
        let cursor = self.services.reads.encoder.cursor(head);
        Ok(CaughtUp::Replay { cursor, names }.encode()?)
    }

    pub(super) async fn subscribe_blocks(&self, ack: &mut Option<Ack>) -> Result<(), ApiError> {
        let topics = [Topic::Blocks];
        let subscriptions = &self.services.subscriptions;
        let limit = subscriptions.of_one();
        let (registration, new) = self.client()?.may_subscribe(&topics, limit)?;
        let held = places(subscriptions, new.len())?;
        let registered = TopicsGuard::add(registration, new).await?;
        let described = self.services.reads.run(|view| {
            let shape = SubscribedBlocks {
                message: "Subscribed to blocks and reorgs.",
                tip: view.tip_shape()?,
                cursor: view.cursor()?,
            };
            Ok((shape, view.head()?))
        });
        let (shape, number) = described.await?;
        let packets = client::packets(&shape, ack.take())?;
        let from = SubscriptionStart {
            number,
            caught_up: None,
        };
        self.client()?.subscribe(&topics, held, from, packets);
        registered.keep();
        Ok(())
    }

    pub(super) fn unsubscribe_address(
        &self,
        asked: UnsubscribeAddress,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let address = self.services.reads.address(&asked.address)?;
        let message = format!("No more events about {} come here.", address.text);
        let names = Names {
            address: Some(address.text),
            ..Names::default()
        };
        let packets = client::packets(&Unsubscribed { names, message }, ack.take())?;
        self.client()?
            .unsubscribe(&Topic::Script(address.script), packets);
        Ok(())
    }
}

/// The event `subscribed` as JSON, and the head of the snapshot in it, in which all are
/// watched. `after`: the cursor of a replay instead of the snapshot's. `problem`: why there is no
/// replay although one was asked for.
fn subscribed(
    view: &StoreView<'_>,
    wanted: &Subscription,
    after: Option<u64>,
    problem: Option<&ApiError>,
) -> Result<(Box<RawValue>, u64), ApiError> {
    let (head, names) = (view.head()?, wanted.subject.named());
    let has_balances = wanted.snapshot || problem.is_some();
    let (mut balance, mut balances, mut count) = (None, None, None);
    let message = match &wanted.subject {
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
    let shape = Subscribed {
        message,
        names,
        count,
        balance,
        balances,
        cursor: view.encoder.cursor(after.unwrap_or(head)),
        error: problem.map(|it| it.message.clone()),
        code: problem.map(|it| it.code),
    };
    Ok((to_raw(&shape), head))
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
