//! Consumers over REST.

use std::sync::Arc;

use bitcoin::{Network, ScriptBuf};
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::consumer_shape::{
    Acked, Acknowledged, ConsumerList, ConsumerShape, DefinedConsumer, DeletedConsumer, FilterShape,
};
use super::respond::{self, Reply, WithCursor};
use super::watchlist::distinct;
use crate::api::descriptors::Descriptors;
use crate::api::quotas::Quotas;
use crate::api::watchlist::{Watchlist, check_depths};
use crate::auth::{Principal, Scope};
use crate::clock::now_ms;
use crate::config;
use crate::consumers::{Consumer, Consumers, Defined, EndReason, LeaseId, Unread, consumer_name};
use crate::events::cursors;
use crate::reads::{Reads, run_detached};
use crate::store;
use crate::tracker::DescriptorId;
use crate::webhooks::{self, Webhooks};
use crate::wire::address::KnownAddress;
use crate::wire::error::ApiError;
use crate::wire::json::seconds;
use crate::wire::request::Request;
use crate::wire::request::descriptors::DescriptorSelection;
use crate::wire::request::types::{AddressSelection, Depths};

/// The field of `PUT /consumers/{name}` whose places refusals name.
const DESCRIPTORS: &str = "descriptors";

/// `PUT /consumers/{name}`. `costly`: counts addresses that it adds, if there are several.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PutConsumer {
    /// Whose events it wants; all when absent.
    addresses: Option<AddressSelection>,
    /// Whose events it wants; none when absent.
    descriptors: Option<DescriptorSelection>,
    /// It wants blocks and reorgs.
    blocks: Option<bool>,
    confirmations: Option<Depths>,
    /// Where it begins.
    after: Option<String>,
    /// Where its events are sent to; it takes the scope `admin`.
    url: Option<String>,
    /// What the deliveries are signed with; made when absent.
    secret: Option<String>,
    /// Several, while one takes the place of another.
    secrets: Option<webhooks::SigningSecrets>,
    /// Headers of the deliveries.
    headers: Option<webhooks::Headers>,
}

impl Request for PutConsumer {
    const EXAMPLE: &'static str = "{\"addresses\": [\"<address>\", …]}";
    const INSTEAD: &'static [(&'static str, &'static str)] = &[("cursor", "write it as `after`")];
}

/// `POST /consumers/{name}/ack`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AckConsumer {
    /// Of the last event that is done.
    cursor: String,
}

impl Request for AckConsumer {
    const EXAMPLE: &'static str = "{\"cursor\": \"<cursor of the last event that is done>\"}";
}

/// What the routes of consumers are answered with.
pub struct ConsumerRoutes {
    pub reads: Reads,
    pub settings: config::Webhooks,
    pub consumers: Arc<Consumers>,
    pub webhooks: Arc<Webhooks>,
    pub watchlist: Arc<Watchlist>,
    pub descriptors: Arc<Descriptors>,
    pub quotas: Arc<Quotas>,
}

impl PutConsumer {
    /// Something of a webhook.
    fn says_where(&self) -> bool {
        self.url.is_some()
            || self.secret.is_some()
            || self.secrets.is_some()
            || self.headers.is_some()
    }
}

/// What is shown of a webhook to who may not set it.
fn shown_to(principal: &Principal, shown: webhooks::Shown) -> webhooks::Shown {
    match principal.may(Scope::Admin) {
        true => shown,
        false => webhooks::Shown::Restricted,
    }
}

impl ConsumerRoutes {
    /// Reads the store.
    fn shape(
        &self,
        consumer: &Consumer,
        unread: Unread,
        [addresses, descriptors]: [FilterShape; 2],
        shown: webhooks::Shown,
    ) -> Result<ConsumerShape, ApiError> {
        Ok(ConsumerShape {
            name: consumer.name.clone(),
            addresses,
            descriptors,
            blocks: consumer.wants.blocks,
            // One moment's: what is acknowledged since would make another lag.
            cursor: self.reads.encoder.cursor(unread.acked),
            head: self.reads.encoder.cursor(unread.head),
            lag: unread.lag(),
            lag_seconds: seconds(unread.age(now_ms())),
            created: seconds(consumer.wants.created),
            last_moved: seconds(consumer.place().moved),
            readers: consumer.readers(),
            webhook: self.webhooks.state(consumer, shown)?,
        })
    }

    /// With its list of addresses.
    async fn whole_shape(
        self: &Arc<Self>,
        principal: &Principal,
        consumer: Arc<Consumer>,
    ) -> Result<ConsumerShape, ApiError> {
        let (routes, unread) = (self.clone(), consumer.unread().await?);
        let shown = shown_to(principal, webhooks::Shown::Whole);
        let shape = self.reads.run(move |view| {
            let wants = &consumer.wants;
            let addresses =
                FilterShape::listed(wants.scripts.as_deref(), |spk| view.address_of(spk));
            let descriptors =
                FilterShape::listed(wants.descriptors.as_deref(), ToString::to_string);
            routes.shape(&consumer, unread, [addresses, descriptors], shown)
        });
        shape.await
    }
}

/// `GET /consumers`
pub async fn list_consumers(
    routes: &Arc<ConsumerRoutes>,
    principal: &Principal,
) -> Result<Reply<WithCursor<ConsumerList>>, ApiError> {
    let shown = shown_to(principal, webhooks::Shown::Brief);
    let (owned, all) = (routes.clone(), routes.consumers.unread(usize::MAX).await?);
    let answer = routes.reads.run(move |view| {
        let cursor = view.cursor()?;
        let shape = |(consumer, unread): &(Arc<Consumer>, Unread)| {
            let wants = &consumer.wants;
            let counts = [
                FilterShape::count(wants.scripts.as_deref()),
                FilterShape::count(wants.descriptors.as_deref()),
            ];
            owned.shape(consumer, *unread, counts, shown)
        };
        let consumers = all.iter().map(shape).collect::<Result<Vec<_>, _>>()?;
        let list = ConsumerList {
            consumers,
            count: all.len(),
        };
        Ok(respond::with_cursor(StatusCode::OK, &cursor, list))
    });
    answer.await
}

/// `GET /consumers/{name}`
pub async fn consumer(
    routes: &Arc<ConsumerRoutes>,
    principal: &Principal,
    name: &str,
) -> Result<Reply<ConsumerShape>, ApiError> {
    let consumer = routes.consumers.get(consumer_name(name)?)?;
    Ok(respond::ok(&routes.whole_shape(principal, consumer).await?))
}

/// `PUT /consumers/{name}`
pub async fn put_consumer(
    routes: &Arc<ConsumerRoutes>,
    principal: &Principal,
    name: &str,
    asked: PutConsumer,
    costly: impl FnOnce() -> Result<(), ApiError> + Send,
) -> Result<Reply<DefinedConsumer>, ApiError> {
    consumer_name(name)?;
    let known = routes.consumers.get(name).ok();
    if asked.says_where() || known.is_some_and(|known| known.wants.webhook.is_some()) {
        principal.require(Scope::Admin)?;
    }
    let blocks = asked.blocks.unwrap_or(false);
    let (wanted, after) = (asked.addresses.unwrap_or_default(), asked.after);
    let none = DescriptorSelection(Some(Vec::new()));
    let descriptors = asked.descriptors.unwrap_or(none).parse(DESCRIPTORS)?;
    let has_none = descriptors.as_ref().is_some_and(Vec::is_empty);
    let named_count = descriptors.as_ref().map(Vec::len);
    let listed = descriptors.clone().unwrap_or_default();
    let Depths(depths) = asked.confirmations.unwrap_or_default();
    let (has_depths, wanted_depths) = (!depths.is_empty(), depths.clone());
    let read = routes.reads.run_long(move |view| {
        let may_be_empty = blocks || !has_none;
        let addresses = named(wanted, may_be_empty, view.encoder.network)?;
        let counts = (addresses.as_ref().map(Vec::len), named_count);
        if has_depths && matches!(counts, (None, _) | (_, None) | (Some(0), Some(0))) {
            return Err(depths_of_nobody());
        }
        let descriptors = descriptors.map(|ids| view.known_descriptors(DESCRIPTORS, ids));
        let descriptors = descriptors.transpose()?;
        for (place, id) in listed.iter().enumerate() {
            let (row, _) = view.wallet_rows(id)?;
            let enough = check_depths("The descriptor", &row.depths, &wanted_depths);
            enough.map_err(|error| error.at(DESCRIPTORS, place))?;
        }
        let scripts = scripts_of(addresses.as_deref());
        let at = after.map(|text| cursors::place(view, &text));
        // A new one begins here: what its addresses do from now on is for it.
        Ok((
            addresses,
            descriptors,
            listed,
            scripts,
            at.transpose()?,
            view.head()?,
        ))
    });
    let (addresses, descriptors, listed, scripts, at, head) = read.await?;
    let target = webhooks::TargetRequest {
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
    let changed = match addresses {
        Some(addresses) => {
            let (addresses, depths) = (addresses.into(), depths.clone());
            routes
                .watchlist
                .ensure_watched(principal, addresses, depths, costly)
                .await?
        }
        None => 0,
    };
    for (place, id) in listed.into_iter().enumerate() {
        let told = routes
            .descriptors
            .ensure_told(principal, id, depths.clone());
        told.await.map_err(|error| error.at(DESCRIPTORS, place))?;
    }
    let (owned, owned_name) = (routes.clone(), name.to_owned());
    let definition = Definition {
        principal: principal.clone(),
        scripts,
        descriptors,
        blocks,
        target,
        at,
        head,
    };
    let defined = run_detached(async move { define(&owned, &owned_name, definition).await });
    let (consumer, defined, secret) = defined.await?;
    let (status, what) = match defined {
        Defined::Created => (StatusCode::CREATED, "is there now"),
        Defined::Changed => (
            StatusCode::OK,
            "is changed; whoever read it has to begin anew",
        ),
        Defined::Same => (StatusCode::OK, "was like that already"),
    };
    let shape = routes.whole_shape(principal, consumer).await?;
    let also = match (status, changed) {
        (StatusCode::CREATED, _) | (_, 0) => String::new(),
        (_, changed) => {
            format!(
                " Of its addresses {changed} were not watched yet, or not with these confirmations, and are now."
            )
        }
    };
    let message = format!("The consumer {name} {what}.{also}");
    let answer = DefinedConsumer {
        shape,
        message,
        secret,
    };
    Ok(Reply::json(status, &answer))
}

/// What a consumer is to be, and who wants that.
struct Definition {
    principal: Principal,
    scripts: Option<Vec<ScriptBuf>>,
    descriptors: Option<Vec<DescriptorId>>,
    blocks: bool,
    target: Option<webhooks::Target>,
    at: Option<u64>,
    head: u64,
}

/// The consumer, and its webhook's secret when that is new.
async fn define(
    routes: &ConsumerRoutes,
    name: &str,
    definition: Definition,
) -> Result<(Arc<Consumer>, Defined, Option<String>), ApiError> {
    let Definition {
        principal,
        scripts,
        descriptors,
        blocks,
        target,
        at,
        head,
    } = definition;
    let (now, mut secret) = (now_ms(), None);
    let owner = principal.token().map(|token| token.id.0);
    let wants = |known: Option<&store::ConsumerRow>| {
        if let (None, Some(owner)) = (known, owner) {
            routes.quotas.check_consumer(&owner)?;
        }
        if known.is_some_and(|known| known.webhook.is_some()) {
            // It may have one since this was looked at first.
            principal.require(Scope::Admin)?;
        }
        let webhook = target
            .map(|target| target.webhook(known.and_then(|known| known.webhook.as_ref())))
            .transpose()?;
        let (webhook, generated) = webhook.unzip();
        secret = generated.flatten();
        Ok(store::ConsumerRow {
            created: now,
            scripts,
            descriptors,
            blocks,
            webhook,
        })
    };
    let defined = routes.consumers.define(name, wants, at, head, now, owner);
    let (consumer, defined) = defined.await?;
    match defined {
        Defined::Same => routes.webhooks.resume(name).await?,
        Defined::Created | Defined::Changed => routes.webhooks.spawn(&consumer),
    }
    Ok((consumer, defined, secret))
}

/// The addresses that a definition names, `None` for all. There may be none at all only when the
/// consumer is told of something else.
fn named(
    wanted: AddressSelection,
    may_be_empty: bool,
    network: Network,
) -> Result<Option<Vec<KnownAddress>>, ApiError> {
    match wanted.0 {
        None => Ok(None),
        Some(list) if list.count() == 0 && !may_be_empty => {
            let what = "\"all\" or an array of addresses, which may be empty beside \"descriptors\" or when \"blocks\" is true";
            Err(ApiError::invalid_field("addresses", what))
        }
        Some(list) => Ok(Some(distinct(
            list.parse(network)?.into_iter().map(|it| it.0),
        ))),
    }
}

/// Depths of an address or a descriptor are told to all who listen to it, so they are not asked for
/// of all there are, nor of none.
fn depths_of_nobody() -> ApiError {
    let what = "left out unless \"addresses\" and \"descriptors\" name some, and neither is \"all\": depths belong to single ones (POST /add_addresses takes them, too)";
    ApiError::invalid_field("confirmations", what)
}

/// In an order that says nothing, so that equal lists are equal.
fn scripts_of(addresses: Option<&[KnownAddress]>) -> Option<Vec<ScriptBuf>> {
    let addresses = addresses?;
    let spks = addresses.iter().map(|address| address.spk.clone());
    let mut spks: Vec<_> = spks.collect();
    spks.sort_unstable();
    Some(spks)
}

/// `DELETE /consumers/{name}`
pub async fn delete_consumer(
    consumers: &Arc<Consumers>,
    principal: &Principal,
    name: &str,
) -> Result<Reply<DeletedConsumer>, ApiError> {
    let (consumers, owned) = (consumers.clone(), consumer_name(name)?.to_owned());
    let principal = principal.clone();
    run_detached(async move {
        let may = |known: &store::ConsumerRow| match known.webhook {
            Some(_) => Ok(principal.require(Scope::Admin)?),
            None => Ok(()),
        };
        consumers.forget(&owned, may).await
    })
    .await?;
    let message = format!("The consumer {name} is deleted; its addresses are still watched.");
    let name = name.to_owned();
    Ok(respond::ok(&DeletedConsumer { name, message }))
}

/// `POST /consumers/{name}/ack`
pub async fn ack(
    routes: &ConsumerRoutes,
    name: &str,
    asked: AckConsumer,
) -> Result<Reply<Acknowledged>, ApiError> {
    let (name, cursor) = (consumer_name(name)?, asked.cursor);
    let acked = loop {
        let consumer = routes.consumers.get(name)?;
        match acknowledge(&routes.reads, &consumer, None, &cursor).await? {
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
    Ok(respond::ok(&Acknowledged { acked, message }))
}

/// Moves a consumer's place forward; why not, when that has ended, or the lease under which its
/// client read.
pub async fn acknowledge(
    reads: &Reads,
    consumer: &Arc<Consumer>,
    lease: Option<LeaseId>,
    cursor: &str,
) -> Result<Result<Acked, EndReason>, ApiError> {
    let name = &consumer.name;
    if consumer.wants.webhook.is_some() {
        let message = format!("{name} has a webhook: its cursor moves with the deliveries.");
        return Err(ApiError::conflict("consumer_has_webhook", message));
    }
    let text = cursor.to_owned();
    let number = reads.run(move |view| {
        let number = cursors::number(view, &text)?;
        if number > view.head()? {
            // Says what is wrong with it.
            cursors::check(view, number)?;
        }
        Ok(number)
    });
    let (number, moving) = (number.await?, consumer.clone());
    let moved =
        run_detached(async move { moving.move_to(number, lease, Vec::new(), now_ms()).await });
    let place = match moved.await? {
        Ok(place) => place,
        Err(reason) => return Ok(Err(reason)),
    };
    Ok(Ok(Acked {
        consumer: name.clone(),
        cursor: reads.encoder.cursor(place.number),
        lag: consumer.unread().await?.lag(),
        was_further: place.number > number,
    }))
}
