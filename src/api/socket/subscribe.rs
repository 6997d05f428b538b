//! `subscribe_address`, `subscribe_addresses`, `unsubscribe_address`, `subscribe_blocks`.
//!
//! A subscription watches the addresses, registers with dispatch, takes a snapshot of the store and
//! tells the reader where to begin, in this order: what happens in between is marked for the reader
//! and comes behind the snapshot (`crate::events`, rules 2 and 3).

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Call;
use super::client::{Reply, SubscriptionStart};
use super::requests::{SubscribeAddress, SubscribeAddresses, UnsubscribeAddress};
use crate::api::rest::status::Tip;
use crate::api::rest::watchlist::distinct;
use crate::events::{Interest, Registration, Topic, cursors};
use crate::reads::{balance_in, watched};
use crate::socketio::{Ack, Encoded};
use crate::store::Snapshot;
use crate::wire::address::{self, KnownAddress};
use crate::wire::json::{self, Balance};
use crate::wire::{ApiError, EventEncoder, NAMESPACE};

/// The answer to a longer list carries no balances.
const BALANCES: usize = 1000;

/// How often an address that somebody takes off the list just when it is subscribed to is put on it
/// again.
const ADDED_AGAIN: u32 = 3;

/// What a client wants to subscribe to.
struct Subscription {
    addresses: Arc<[KnownAddress]>,
    /// It asked for a list, and is answered with one.
    many: bool,
    depths: Vec<u8>,
    /// Replay what came after this cursor.
    after: Option<String>,
    snapshot: bool,
}

impl Subscription {
    fn topics(&self) -> Vec<Topic> {
        self.addresses
            .iter()
            .map(|address| Topic::Script(address.script))
            .collect()
    }
}

/// The event `subscribed`: one address, or a list when a list was asked for.
#[derive(Serialize, Default)]
struct Subscribed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    balance: Option<Balance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balances: Option<Vec<Balance>>,
    /// Events after this one follow.
    cursor: String,
    /// Why there is no replay although one was asked for: the cursor is not good any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
}

/// Topics that are registered, and are given up again unless the subscription is made.
struct Registered {
    registration: Arc<Registration>,
    new: Vec<Topic>,
}

impl Registered {
    async fn add(registration: Arc<Registration>, new: Vec<Topic>) -> Result<Self, ApiError> {
        let registered = Self {
            registration: registration.clone(),
            new: new.clone(),
        };
        registration
            .add(Interest::Topics(new))
            .await
            .map_err(|_| ApiError::stopping())?;
        Ok(registered)
    }

    fn keep(mut self) {
        self.new.clear();
    }
}

impl Drop for Registered {
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
            addresses: [self.address(&asked.address)?].into(),
            many: false,
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
        let (listed, network) = (asked.addresses, self.services.encoder.network);
        let parse = move |_: &_| Ok(distinct(listed.parse(network)?).into());
        let wanted = Subscription {
            addresses: self.services.reads.run_long(parse).await?,
            many: true,
            depths: asked.confirmations.unwrap_or_default().0,
            after: asked.after,
            snapshot: asked.snapshot.unwrap_or(true),
        };
        self.subscribe(wanted, ack).await
    }

    async fn subscribe(&self, wanted: Subscription, ack: &mut Option<Ack>) -> Result<(), ApiError> {
        let topics = wanted.topics();
        let limit = self.services.subscriptions;
        let (registration, new) = self.client()?.may_subscribe(&topics, limit)?;
        let wanted = Arc::new(wanted);
        let (after, problem) = self.begin(&wanted).await?;
        let mut tries = ADDED_AGAIN;
        let (registered, json, head) = loop {
            let depths = wanted.depths.clone();
            self.services
                .watchlist
                .ensure_watched(wanted.addresses.clone(), depths)
                .await?;
            let registered = Registered::add(registration.clone(), new.clone()).await?;
            let (read, why) = (wanted.clone(), problem.clone());
            let encoder = self.services.encoder.clone();
            let described = self.services.reads.snapshot(move |snapshot| {
                subscribed(snapshot, &encoder, &read, after, why.as_ref())
            });
            match described.await {
                Ok((json, head)) => break (registered, json, head),
                // Somebody has taken it off the list meanwhile. Who is answered with `subscribed`
                // hears of what is watched.
                Err(error) if error.code == "not_watched" && tries > 0 => tries -= 1,
                Err(error) => return Err(error),
            }
        };
        let mut packets = Vec::new();
        if let Some(error) = problem {
            let (name, json) = ("error", json::to_text(&error));
            packets.extend(Reply::without_ack(name, json).packets()?);
        }
        let (name, ack) = ("subscribed", ack.take());
        packets.extend(Reply { name, json, ack }.packets()?);
        let caught_up = match after {
            Some(_) => Some((head, self.caught_up(&wanted, head)?)),
            None => None,
        };
        let from = SubscriptionStart {
            number: after.unwrap_or(head),
            is_replay: after.is_some(),
            caught_up,
        };
        self.client()?.subscribe(&topics, from, packets);
        registered.keep();
        Ok(())
    }

    fn address(&self, text: &str) -> Result<KnownAddress, ApiError> {
        address::parse(text, self.services.encoder.network)
    }

    /// The number to replay from, or what is wrong with the cursor.
    async fn begin(
        &self,
        wanted: &Arc<Subscription>,
    ) -> Result<(Option<u64>, Option<ApiError>), ApiError> {
        if wanted.after.is_none() {
            return Ok((None, None));
        }
        let (wanted, encoder) = (wanted.clone(), self.services.encoder.clone());
        let place = self.services.reads.run(move |reader| {
            let text = wanted.after.as_deref();
            text.map(|text| cursors::place(reader, &encoder, text))
                .transpose()
        });
        match place.await {
            Ok(number) => Ok((number, None)),
            Err(error) if matches!(error.code, "cursor_unknown" | "cursor_expired") => {
                Ok((None, Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// The end of a replay.
    fn caught_up(&self, wanted: &Subscription, head: u64) -> Result<Encoded, ApiError> {
        let mut shape = Map::new();
        match (wanted.many, wanted.addresses.first()) {
            (false, Some(address)) => {
                shape.insert("address".to_owned(), address.text.clone().into());
            }
            _ => {
                let texts = wanted
                    .addresses
                    .iter()
                    .map(|address| Value::from(address.text.clone()));
                shape.insert("addresses".to_owned(), texts.collect());
            }
        }
        shape.insert(
            "cursor".to_owned(),
            self.services.encoder.cursor(head).into(),
        );
        Encoded::event(NAMESPACE, "caught_up", &shape).map_err(|cause| ApiError::internal(&cause))
    }

    pub(super) async fn subscribe_blocks(&self, ack: &mut Option<Ack>) -> Result<(), ApiError> {
        #[derive(Serialize)]
        struct SubscribedBlocks {
            message: &'static str,
            tip: Option<Tip>,
            cursor: String,
        }
        let topics = [Topic::Blocks];
        let limit = self.services.subscriptions;
        let (registration, new) = self.client()?.may_subscribe(&topics, limit)?;
        let registered = Registered::add(registration, new).await?;
        let encoder = self.services.encoder.clone();
        let described = self.services.reads.snapshot(move |snapshot| {
            let (head, tip) = (snapshot.head()?, Tip::of(snapshot)?);
            let shape = SubscribedBlocks {
                message: "Subscribed to blocks and reorgs.",
                tip,
                cursor: encoder.cursor(head),
            };
            Ok((json::to_text(&shape), head))
        });
        let (json, number) = described.await?;
        let (name, ack) = ("subscribed_blocks", ack.take());
        let packets = Reply { name, json, ack }.packets()?;
        let from = SubscriptionStart {
            number,
            is_replay: false,
            caught_up: None,
        };
        self.client()?.subscribe(&topics, from, packets);
        registered.keep();
        Ok(())
    }

    pub(super) fn unsubscribe_address(
        &self,
        asked: UnsubscribeAddress,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        #[derive(Serialize)]
        struct Unsubscribed {
            address: String,
            message: String,
        }
        let address = self.address(&asked.address)?;
        let message = format!("No more events about {} come here.", address.text);
        let json = json::to_text(&Unsubscribed {
            address: address.text,
            message,
        });
        let (name, ack) = ("unsubscribed", ack.take());
        let packets = Reply { name, json, ack }.packets()?;
        self.client()?
            .unsubscribe(&Topic::Script(address.script), packets);
        Ok(())
    }
}

/// The event `subscribed` as JSON, and the head of the snapshot in it, in which all are
/// watched. `after`: the cursor of a replay instead of the snapshot's.
fn subscribed(
    snapshot: &Snapshot<'_>,
    encoder: &EventEncoder,
    wanted: &Subscription,
    after: Option<u64>,
    problem: Option<&ApiError>,
) -> Result<(String, u64), ApiError> {
    let head = snapshot.head()?;
    let short = wanted.addresses.len() <= BALANCES;
    let balances = match short && (wanted.snapshot || problem.is_some()) {
        true => Some(
            wanted
                .addresses
                .iter()
                .map(|address| balance_in(snapshot, address, encoder))
                .collect::<Result<Vec<_>, _>>()?,
        ),
        false => {
            wanted
                .addresses
                .iter()
                .try_for_each(|address| watched(snapshot, address).map(drop))?;
            None
        }
    };
    let cursor = encoder.cursor(after.unwrap_or(head));
    let mut shape = Subscribed {
        cursor,
        error: problem.map(|it| it.message.as_str()),
        code: problem.map(|it| it.code),
        ..Default::default()
    };
    match (wanted.many, wanted.addresses.first()) {
        (false, Some(address)) => {
            shape.address = Some(&address.text);
            shape.message = format!("Subscribed to {}.", address.text);
            shape.balance = balances.and_then(|balances| balances.into_iter().next());
        }
        _ => {
            shape.addresses = Some(
                wanted
                    .addresses
                    .iter()
                    .map(|address| address.text.as_str())
                    .collect(),
            );
            shape.count = Some(wanted.addresses.len());
            let hint = if short {
                ""
            } else {
                " For balances of so many, read GET /addresses."
            };
            shape.message = format!("Subscribed to {} addresses.{hint}", wanted.addresses.len());
            shape.balances = balances;
        }
    }
    Ok((json::to_text(&shape), head))
}
