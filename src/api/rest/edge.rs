//! `/edge`: what edges ask. An edge is a process that serves Socket.IO and pages of the log beside
//! this daemon, and keeps nothing: subscriptions begin here, and who is let in is heard here.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use super::respond::{self, Reply};
use super::sent::Sent;
use crate::api::Services;
use crate::api::socket::{Backend, BegunSubscription, EVENTS, Subject, requests};
use crate::clock::now_ms;
use crate::primary::{EdgeState, EdgeToken};
use crate::reads::StoreView;
use crate::wire::request::types::Wait;
use crate::wire::request::{Later, Request};
use crate::wire::{ApiError, address};

/// `GET /edge`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FollowTokens {
    /// A revision: with `wait`, it is answered when there is another one.
    after: Option<String>,
    /// Seconds to wait at most.
    wait: Option<Wait>,
}

impl Request for FollowTokens {}

/// `GET /edge?after=&wait=`. `came`: when the request came; the wait counts from there.
pub async fn follow_tokens(
    services: &Services,
    asked: FollowTokens,
    came: Instant,
) -> Result<Reply<EdgeState>, ApiError> {
    let wait = asked.wait.map_or(Duration::ZERO, Wait::seconds);
    if let Some(known) = asked.after {
        let _place = services.events.place(wait)?;
        tokio::select! {
            biased;
            () = services.auth.changed_from(&known) => {}
            () = services.events.stop.cancelled() => {}
            () = sleep_until(came + wait) => {}
        }
    }
    // Before what it is of, so that what changes meanwhile is asked for again.
    let revision = services.auth.revision();
    let (authentication, now) = (services.auth.is_on(), now_ms());
    let live = services.auth.tokens().into_iter();
    let tokens = live.filter(|it| it.is_good(now)).map(|it| EdgeToken {
        id: it.token.id.to_string(),
        scope: it.token.scope,
        expires: it.token.expires,
    });
    let tokens = tokens.collect();
    let cookie = services.sessions.cookie.name().to_owned();
    let read = move |view: &StoreView<'_>| {
        let starts = view.encoder.starts();
        let starts = starts
            .parts()
            .map(|(id, first, held)| (id.to_owned(), first, held));
        Ok(EdgeState {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: address::network_name(view.encoder.network).to_owned(),
            authentication,
            revision,
            tokens,
            cookie,
            tip: view.tip_shape()?,
            cursor: view.cursor()?,
            first: view
                .encoder
                .cursor(view.reader.first_seq()?.saturating_sub(1)),
            starts: starts.collect(),
        })
    };
    let state = services.reads.run(read).await?;
    Ok(respond::ok_at(&state.cursor, &state))
}

/// The body of `POST /edge/subscription`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginSubscription {
    /// Of Socket.IO, that begins a subscription: `subscribe_address` and the like.
    event: String,
    /// As a client sends it with the event.
    argument: Option<Later>,
}

impl Request for BeginSubscription {
    const EXAMPLE: &'static str =
        "{\"event\": \"subscribe_address\", \"argument\": {\"address\": \"<address>\"}}";
}

/// `POST /edge/subscription`: the same as when the client had said it here.
pub async fn begin_subscription(
    services: &Services,
    sent: &Sent,
    asked: BeginSubscription,
) -> Result<Reply<BegunSubscription>, ApiError> {
    let Some(wanted) = requests::find(&asked.event)?.wanted else {
        return Err(begins_nothing());
    };
    let wanted = wanted(&services.descriptors.parsing, asked.argument).await?;
    if let Some(concerns) = concerns(&wanted.subject) {
        // It is said once.
        let _ = sent.concerns.set(concerns);
    }
    let client = sent.admitted();
    let begun = services.backend.begin(&client, wanted.into()).await?;
    Ok(respond::ok(&begun))
}

/// For the line of a refusal in the access log.
fn concerns(subject: &Subject) -> Option<String> {
    match subject {
        Subject::Addresses { addresses, many } => match addresses.first().filter(|_| !many) {
            Some(address) => Some(address.text.clone()),
            None => Some(address::count(addresses.len())),
        },
        Subject::Descriptor(wanted) => Some(wanted.id.short()),
        Subject::Blocks => None,
    }
}

fn begins_nothing() -> ApiError {
    let begin = EVENTS.iter().filter(|event| event.wanted.is_some());
    let names: Vec<_> = begin.map(|event| event.name).collect();
    let what = format!("an event that begins a subscription: {}", names.join(", "));
    ApiError::invalid_field("event", &what)
}
