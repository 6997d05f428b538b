//! Consumers over REST.

use std::sync::Arc;

use bitcoin::Network;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::respond::{self, Answer};
use super::watchlist::distinct;
use crate::api::watchlist::Watchlist;
use crate::clock::now_ms;
use crate::config;
use crate::consumers::{Consumer, Consumers, Defined, EndReason, LeaseId, Unread, consumer_name};
use crate::events::cursors;
use crate::reads::{Reads, run_detached};
use crate::store::{self, Scripts};
use crate::webhooks::{self, Webhooks};
use crate::wire::EventEncoder;
use crate::wire::address::{self, KnownAddress};
use crate::wire::error::ApiError;
use crate::wire::json;
use crate::wire::request::Request;
use crate::wire::request::types::{AddressSelection, Depths};

/// `addresses` of a consumer.
#[derive(Serialize)]
#[serde(untagged)]
enum Addresses {
    /// `"all"`.
    All(&'static str),
    Count(usize),
    These(Vec<String>),
}

/// `GET /consumers/{name}`
#[derive(Serialize)]
struct Shape {
    name: String,
    addresses: Addresses,
    blocks: bool,
    cursor: String,
    head: String,
    lag: u64,
    lag_seconds: f64,
    created: f64,
    last_moved: f64,
    readers: usize,
    webhook: Option<webhooks::State>,
}

/// What an acknowledgement is answered with.
#[derive(Debug, Serialize)]
pub struct Acked {
    consumer: String,
    cursor: String,
    lag: u64,
    /// The consumer was further on already.
    #[serde(skip)]
    was_further: bool,
}

/// `PUT /consumers/{name}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutConsumer {
    addresses: Option<AddressSelection>,
    blocks: Option<bool>,
    confirmations: Option<Depths>,
    after: Option<String>,
    url: Option<String>,
    secret: Option<String>,
    secrets: Option<webhooks::SigningSecrets>,
    headers: Option<webhooks::Headers>,
}

impl Request for PutConsumer {
    const EXAMPLE: &'static str = "{\"addresses\": [\"<address>\", …]}";
    const INSTEAD: &'static [(&'static str, &'static str)] = &[("cursor", "write it as `after`")];
}

/// `POST /consumers/{name}/ack`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AckConsumer {
    cursor: String,
}

impl Request for AckConsumer {
    const EXAMPLE: &'static str = "{\"cursor\": \"<cursor of the last event that is done>\"}";
}

/// What the routes of consumers are answered with.
pub struct ConsumerRoutes {
    pub reads: Reads,
    pub encoder: EventEncoder,
    pub settings: config::Webhooks,
    pub consumers: Arc<Consumers>,
    pub webhooks: Arc<Webhooks>,
    pub watchlist: Arc<Watchlist>,
}

/// What `PUT` asks for.
struct Definition {
    scripts: Scripts,
    blocks: bool,
    target: Option<webhooks::Target>,
    at: Option<u64>,
    head: u64,
}

impl ConsumerRoutes {
    /// Reads the store.
    fn shape(
        &self,
        consumer: &Consumer,
        unread: Unread,
        addresses: Addresses,
        whole: bool,
    ) -> Result<Shape, ApiError> {
        Ok(Shape {
            name: consumer.name.clone(),
            addresses,
            blocks: consumer.wants.blocks,
            // One moment's: what is acknowledged since would make another lag.
            cursor: self.encoder.cursor(unread.acked),
            head: self.encoder.cursor(unread.head),
            lag: unread.lag(),
            lag_seconds: json::seconds(unread.age(now_ms())),
            created: json::seconds(consumer.wants.created),
            last_moved: json::seconds(consumer.place().moved),
            readers: consumer.readers(),
            webhook: self.webhooks.state(consumer, whole)?,
        })
    }

    /// With its list of addresses.
    async fn whole_shape(self: &Arc<Self>, consumer: Arc<Consumer>) -> Result<Shape, ApiError> {
        let (routes, unread) = (self.clone(), consumer.unread().await?);
        let shape = self.reads.run(move |_| {
            let text = |spk: &bitcoin::ScriptBuf| address::text(spk, routes.encoder.network);
            let addresses = match &consumer.wants.scripts {
                Scripts::All => Addresses::All("all"),
                Scripts::These(spks) => Addresses::These(spks.iter().map(text).collect()),
            };
            routes.shape(&consumer, unread, addresses, true)
        });
        shape.await
    }
}

/// `GET /consumers`
pub async fn list_consumers(routes: &Arc<ConsumerRoutes>) -> Result<Answer, ApiError> {
    #[derive(Serialize)]
    struct List {
        consumers: Vec<Shape>,
        count: usize,
        cursor: String,
    }
    let (owned, all) = (routes.clone(), routes.consumers.unread(usize::MAX).await?);
    let answer = routes.reads.run(move |reader| {
        let cursor = owned.encoder.cursor(reader.snapshot().head()?);
        let shape = |(consumer, unread): &(Arc<Consumer>, Unread)| {
            let addresses = match &consumer.wants.scripts {
                Scripts::All => Addresses::All("all"),
                Scripts::These(spks) => Addresses::Count(spks.len()),
            };
            owned.shape(consumer, *unread, addresses, false)
        };
        let consumers = all.iter().map(shape).collect::<Result<Vec<_>, _>>()?;
        let answer = List {
            count: consumers.len(),
            consumers,
            cursor,
        };
        Ok(respond::json_at(StatusCode::OK, &answer.cursor, &answer))
    });
    answer.await
}

/// `GET /consumers/{name}`
pub async fn consumer(routes: &Arc<ConsumerRoutes>, name: &str) -> Result<Answer, ApiError> {
    let consumer = routes.consumers.get(consumer_name(name)?)?;
    let shape = routes.whole_shape(consumer).await?;
    Ok(respond::json(StatusCode::OK, &shape))
}

/// `PUT /consumers/{name}`
pub async fn put_consumer(
    routes: &Arc<ConsumerRoutes>,
    name: &str,
    asked: PutConsumer,
) -> Result<Answer, ApiError> {
    #[derive(Serialize)]
    struct Put {
        #[serde(flatten)]
        shape: Shape,
        message: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        secret: Option<String>,
    }
    consumer_name(name)?;
    let (blocks, encoder) = (asked.blocks.unwrap_or(false), routes.encoder.clone());
    let (wanted, after) = (asked.addresses.unwrap_or_default(), asked.after);
    let read = routes.reads.run_long(move |reader| {
        let addresses = named(wanted, blocks, encoder.network)?;
        let at = after.map(|text| cursors::place(reader, &encoder, &text));
        // A new one begins here: what its addresses do from now on is for it.
        Ok((addresses, at.transpose()?, reader.snapshot().head()?))
    });
    let (addresses, at, head) = read.await?;
    let target = webhooks::Asked {
        url: asked.url,
        secret: asked.secret,
        secrets: asked.secrets,
        headers: asked.headers,
    };
    let target = webhooks::target(&routes.settings, target)?;
    routes.consumers.check_room(name)?;
    if let (Some(target), Ok(known)) = (&target, routes.consumers.get(name)) {
        // Before anything is watched for it.
        target.check(known.wants.webhook.as_ref())?;
    }
    let Depths(depths) = asked.confirmations.unwrap_or_default();
    let definition = Definition {
        scripts: watch(&routes.watchlist, addresses, depths).await?,
        blocks,
        target,
        at,
        head,
    };
    let (owned, owned_name) = (routes.clone(), name.to_owned());
    let (consumer, defined, secret) =
        run_detached(async move { define(&owned, &owned_name, definition).await }).await?;
    let (status, what) = match defined {
        Defined::Created => (StatusCode::CREATED, "is there now"),
        Defined::Changed => (
            StatusCode::OK,
            "is changed; whoever read it has to begin anew",
        ),
        Defined::Same => (StatusCode::OK, "was like that already"),
    };
    let answer = Put {
        shape: routes.whole_shape(consumer).await?,
        message: format!("The consumer {name} {what}."),
        secret,
    };
    Ok(respond::json(status, &answer))
}

/// The consumer, and its webhook's secret when that is new.
async fn define(
    routes: &ConsumerRoutes,
    name: &str,
    definition: Definition,
) -> Result<(Arc<Consumer>, Defined, Option<String>), ApiError> {
    let Definition {
        scripts,
        blocks,
        target,
        at,
        head,
    } = definition;
    let (now, mut secret) = (now_ms(), None);
    let wants = |known: Option<&store::Consumer>| {
        let webhook = target
            .map(|target| target.webhook(known.and_then(|known| known.webhook.as_ref())))
            .transpose()?;
        let (webhook, generated) = webhook.unzip();
        secret = generated.flatten();
        Ok(store::Consumer {
            created: now,
            scripts,
            blocks,
            webhook,
        })
    };
    let defined = routes.consumers.define(name, wants, at, head, now);
    let (consumer, defined) = defined.await?;
    match defined {
        Defined::Same => routes.webhooks.resume(name).await?,
        Defined::Created | Defined::Changed => routes.webhooks.spawn(&consumer),
    }
    Ok((consumer, defined, secret))
}

/// The addresses that a definition names, `None` for all. There may be none at all only when the
/// consumer is told of blocks.
fn named(
    wanted: AddressSelection,
    blocks: bool,
    network: Network,
) -> Result<Option<Vec<KnownAddress>>, ApiError> {
    match wanted {
        AddressSelection::All => Ok(None),
        AddressSelection::These(list) if list.0.is_empty() && !blocks => {
            let what =
                "\"all\" or an array of addresses, which may be empty when \"blocks\" is true";
            Err(ApiError::invalid_field("addresses", what))
        }
        AddressSelection::These(list) => Ok(Some(distinct(list.parse(network)?))),
    }
}

/// Watches the addresses that a definition names. Their scripts in an order that says nothing, so
/// that equal lists are equal.
async fn watch(
    watchlist: &Watchlist,
    addresses: Option<Vec<KnownAddress>>,
    depths: Vec<u8>,
) -> Result<Scripts, ApiError> {
    let addresses = match addresses {
        Some(addresses) => addresses,
        None if depths.is_empty() => return Ok(Scripts::All),
        None => {
            let what = "left out when \"addresses\" is \"all\": depths belong to addresses (POST /add_addresses takes them, too)";
            return Err(ApiError::invalid_field("confirmations", what));
        }
    };
    let spks = addresses.iter().map(|address| address.spk.clone());
    let mut spks: Vec<_> = spks.collect();
    spks.sort_unstable();
    watchlist.ensure_watched(addresses.into(), depths).await?;
    Ok(Scripts::These(spks))
}

/// `DELETE /consumers/{name}`
pub async fn delete_consumer(consumers: &Arc<Consumers>, name: &str) -> Result<Answer, ApiError> {
    #[derive(Serialize)]
    struct Deleted<'a> {
        name: &'a str,
        message: String,
    }
    let (consumers, owned) = (consumers.clone(), consumer_name(name)?.to_owned());
    run_detached(async move { consumers.forget(&owned).await }).await?;
    let message = format!("The consumer {name} is deleted; its addresses are still watched.");
    Ok(respond::json(StatusCode::OK, &Deleted { name, message }))
}

/// `POST /consumers/{name}/ack`
pub async fn ack(
    routes: &ConsumerRoutes,
    name: &str,
    asked: AckConsumer,
) -> Result<Answer, ApiError> {
    #[derive(Serialize)]
    struct Answered {
        #[serde(flatten)]
        acked: Acked,
        message: String,
    }
    let (name, cursor) = (consumer_name(name)?, asked.cursor);
    let acked = loop {
        let consumer = routes.consumers.get(name)?;
        match acknowledge(&routes.reads, &routes.encoder, &consumer, None, &cursor).await? {
            Ok(acked) => break acked,
            // It was defined anew this moment.
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let message = match acked.was_further {
        false => format!("Everything up to this cursor is done for {name}."),
        true => format!(
            "{name} was further on already and stays there; PUT with \"after\" moves it backwards."
        ),
    };
    Ok(respond::json(StatusCode::OK, &Answered { acked, message }))
}

/// Moves a consumer's place forward; why not, when that has ended, or the lease under which its
/// client read.
pub async fn acknowledge(
    reads: &Reads,
    encoder: &EventEncoder,
    consumer: &Arc<Consumer>,
    lease: Option<LeaseId>,
    cursor: &str,
) -> Result<Result<Acked, EndReason>, ApiError> {
    let name = &consumer.name;
    if consumer.wants.webhook.is_some() {
        let message = format!("{name} has a webhook: its cursor moves with the deliveries.");
        return Err(ApiError::conflict("consumer_has_webhook", message));
    }
    let (text, owned) = (cursor.to_owned(), encoder.clone());
    let number = reads.run(move |reader| {
        let number = cursors::number(reader, &owned, &text)?;
        if number > reader.snapshot().head()? {
            // Says what is wrong with it.
            cursors::place(reader, &owned, &text)?;
        }
        Ok(number)
    });
    let (number, moving) = (number.await?, consumer.clone());
    let moved = run_detached(async move { moving.acknowledge(number, lease, now_ms()).await });
    let place = match moved.await? {
        Ok(place) => place,
        Err(reason) => return Ok(Err(reason)),
    };
    Ok(Ok(Acked {
        consumer: name.clone(),
        cursor: encoder.cursor(place.number),
        lag: consumer.unread().await?.lag(),
        was_further: place.number > number,
    }))
}
