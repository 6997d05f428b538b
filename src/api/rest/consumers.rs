//! Consumers over REST.

use std::sync::Arc;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use super::respond::{self, Answer};
use super::watchlist::distinct;
use crate::api::App;
use crate::clock::now_ms;
use crate::consumers::{Consumer, Defined, EndReason, Unread, consumer_name};
use crate::reads::run_detached;
use crate::store::{self, Scripts};
use crate::webhooks;
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

/// What `PUT` asks for.
struct Definition {
    scripts: Scripts,
    blocks: bool,
    target: Option<webhooks::Target>,
    at: Option<u64>,
    head: u64,
}

impl App {
    fn consumer_shape(
        &self,
        consumer: &Consumer,
        unread: Unread,
        addresses: Addresses,
        whole: bool,
    ) -> Result<Shape, ApiError> {
        let place = consumer.place();
        Ok(Shape {
            name: consumer.name.clone(),
            addresses,
            blocks: consumer.wants.blocks,
            cursor: self.wire.cursor(place.number),
            head: self.wire.cursor(self.reader.snapshot().head()?),
            lag: unread.lag(),
            lag_seconds: json::seconds(unread.age(now_ms())),
            created: json::seconds(consumer.wants.created),
            last_moved: json::seconds(place.moved),
            readers: consumer.readers(),
            webhook: self.webhooks.state(consumer, whole)?,
        })
    }

    /// With its list of addresses.
    fn whole_shape(&self, consumer: &Consumer, unread: Unread) -> Result<Shape, ApiError> {
        let text = |spk: &bitcoin::ScriptBuf| address::text(spk, self.wire.network);
        let addresses = match &consumer.wants.scripts {
            Scripts::All => Addresses::All("all"),
            Scripts::These(spks) => Addresses::These(spks.iter().map(text).collect()),
        };
        self.consumer_shape(consumer, unread, addresses, true)
    }

    /// `GET /consumers`
    pub(in crate::api) async fn list_consumers(self: &Arc<Self>) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Consumers {
            consumers: Vec<Shape>,
            count: usize,
            cursor: String,
        }
        let all = self.consumers.unread(usize::MAX).await?;
        self.read(move |app| {
            let shape = |(consumer, unread): &(Arc<Consumer>, Unread)| {
                let addresses = match &consumer.wants.scripts {
                    Scripts::All => Addresses::All("all"),
                    Scripts::These(spks) => Addresses::Count(spks.len()),
                };
                app.consumer_shape(consumer, *unread, addresses, false)
            };
            let consumers = all.iter().map(shape).collect::<Result<Vec<_>, _>>()?;
            let cursor = app.wire.cursor(app.reader.snapshot().head()?);
            let answer = Consumers {
                count: consumers.len(),
                consumers,
                cursor,
            };
            Ok(respond::json_at(StatusCode::OK, &answer.cursor, &answer))
        })
        .await
    }

    /// `GET /consumers/{name}`
    pub(in crate::api) async fn consumer(self: &Arc<Self>, name: &str) -> Result<Answer, ApiError> {
        let consumer = self.consumers.get(consumer_name(name)?)?;
        let unread = consumer.unread().await?;
        self.read(move |app| {
            let shape = app.whole_shape(&consumer, unread)?;
            Ok(respond::json(StatusCode::OK, &shape))
        })
        .await
    }

    /// `PUT /consumers/{name}`
    pub(in crate::api) async fn put_consumer(
        self: &Arc<Self>,
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
        let blocks = asked.blocks.unwrap_or(false);
        let addresses = self.named(asked.addresses.unwrap_or_default(), blocks)?;
        let Depths(depths) = asked.confirmations.unwrap_or_default();
        let at = asked.after.map(|text| self.place(&text)).transpose()?;
        let target = webhooks::Asked {
            url: asked.url,
            secret: asked.secret,
            secrets: asked.secrets,
            headers: asked.headers,
        };
        let target = webhooks::target(&self.config.webhooks, target)?;
        self.consumers.check_room(name)?;
        if let (Some(target), Ok(known)) = (&target, self.consumers.get(name)) {
            // Before anything is watched for it.
            target.check(known.wants.webhook.as_ref())?;
        }
        // A new one begins here: what its addresses do from now on is for it.
        let head = self.reader.snapshot().head()?;
        let scripts = self.scripts_of(addresses, depths).await?;
        let definition = Definition {
            scripts,
            blocks,
            target,
            at,
            head,
        };
        let (app, owned) = (self.clone(), name.to_owned());
        let (consumer, defined, secret) =
            run_detached(async move { app.define(&owned, definition).await }).await?;
        let (status, what) = match defined {
            Defined::Created => (StatusCode::CREATED, "is there now"),
            Defined::Changed => (
                StatusCode::OK,
                "is changed; whoever read it has to begin anew",
            ),
            Defined::Same => (StatusCode::OK, "was like that already"),
        };
        let message = format!("The consumer {name} {what}.");
        let unread = consumer.unread().await?;
        self.read(move |app| {
            Ok(respond::json(
                status,
                &Put {
                    shape: app.whole_shape(&consumer, unread)?,
                    message,
                    secret,
                },
            ))
        })
        .await
    }

    /// The consumer, and its webhook's secret when that is new.
    async fn define(
        self: &Arc<Self>,
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
        let (consumer, defined) = self.consumers.define(name, wants, at, head, now).await?;
        match defined {
            Defined::Same => self.webhooks.resume(name).await?,
            Defined::Created | Defined::Changed => self.webhooks.spawn(&consumer),
        }
        Ok((consumer, defined, secret))
    }

    /// The addresses that a definition names, `None` for all. There may be none at all only when
    /// the consumer is told of blocks.
    fn named(
        &self,
        wanted: AddressSelection,
        blocks: bool,
    ) -> Result<Option<Vec<KnownAddress>>, ApiError> {
        match wanted {
            AddressSelection::All => Ok(None),
            AddressSelection::These(list) if list.0.is_empty() && !blocks => {
                let what =
                    "\"all\" or an array of addresses, which may be empty when \"blocks\" is true";
                Err(ApiError::invalid_field("addresses", what))
            }
            AddressSelection::These(list) => Ok(Some(distinct(list.parse(self.wire.network)?))),
        }
    }

    /// Watches the addresses that a definition names. Their scripts in an order that says nothing,
    /// so that equal lists are equal.
    async fn scripts_of(
        self: &Arc<Self>,
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
        let mut spks: Vec<_> = addresses
            .iter()
            .map(|address| address.spk.clone())
            .collect();
        spks.sort_unstable();
        self.watchlist
            .ensure_watched(addresses.into(), depths)
            .await?;
        Ok(Scripts::These(spks))
    }

    /// `DELETE /consumers/{name}`
    pub(in crate::api) async fn delete_consumer(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Deleted<'a> {
            name: &'a str,
            message: String,
        }
        let (app, owned) = (self.clone(), consumer_name(name)?.to_owned());
        run_detached(async move { app.consumers.forget(&owned).await }).await?;
        let message = format!("The consumer {name} is deleted; its addresses are still watched.");
        Ok(respond::json(StatusCode::OK, &Deleted { name, message }))
    }

    /// `POST /consumers/{name}/ack`
    pub(in crate::api) async fn ack(
        self: &Arc<Self>,
        name: &str,
        asked: AckConsumer,
    ) -> Result<Answer, ApiError> {
        #[derive(Serialize)]
        struct Answered {
            #[serde(flatten)]
            acked: Acked,
            message: String,
        }
        let (cursor, name) = (asked.cursor, consumer_name(name)?);
        let acked = loop {
            let consumer = self.consumers.get(name)?;
            match self.acknowledge(&consumer, &cursor).await? {
                Ok(acked) => break acked,
                // It was defined anew this moment.
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let message = match self.number(&acked.cursor)? == self.number(&cursor)? {
            true => format!("Everything up to this cursor is done for {name}."),
            false => format!(
                "{name} was further on already and stays there; PUT with \"after\" moves it backwards."
            ),
        };
        Ok(respond::json(StatusCode::OK, &Answered { acked, message }))
    }

    /// Moves a consumer's place forward; why not, when it has ended.
    pub(in crate::api) async fn acknowledge(
        self: &Arc<Self>,
        consumer: &Arc<Consumer>,
        cursor: &str,
    ) -> Result<Result<Acked, EndReason>, ApiError> {
        let name = &consumer.name;
        if consumer.wants.webhook.is_some() {
            let message = format!("{name} has a webhook: its cursor moves with the deliveries.");
            return Err(ApiError::conflict("consumer_has_webhook", message));
        }
        let number = self.number(cursor)?;
        if number > self.reader.snapshot().head()? {
            // Says what is wrong with it.
            self.place(cursor)?;
        }
        let moving = consumer.clone();
        let moved = run_detached(async move { moving.move_to(number, Vec::new(), now_ms()).await });
        let Some(place) = moved.await? else {
            return Ok(Err(consumer.leases.closed().unwrap_or(EndReason::Changed)));
        };
        Ok(Ok(Acked {
            consumer: name.clone(),
            cursor: self.wire.cursor(place.number),
            lag: consumer.unread().await?.lag(),
        }))
    }
}
