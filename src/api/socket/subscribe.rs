//! Subscribing and unsubscribing.
//!
//! A subscription registers its topics with dispatch, has what it wants watched and a snapshot
//! taken of it ([`Backend::begin`](super::backend::Backend)), and tells the reader where to begin,
//! in this order: what happens in between is marked for the reader and comes behind the snapshot
//! (`crate::events`, rules 2 and 3).

use std::sync::Arc;

use hyper::StatusCode;

use super::answers::{CaughtUp, ErrorEvent, Names, Unsubscribed};
use super::backend::BegunSubscription;
use super::client::{self, SubscriptionStart};
use super::requests::{Begins, UnsubscribeAddress, UnsubscribeDescriptor};
use super::subscription::NamedDescriptor;
use super::{Call, Subscriptions};
use crate::events::{Registration, Topic};
use crate::limits::{Held, LimitUse};
use crate::socketio::Ack;
use crate::wire::ApiError;
use crate::wire::json::ServerEvent;

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
    pub(super) async fn subscribe(
        &self,
        asked: impl Begins,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let services = &self.services;
        let wanted = Arc::new(asked.wanted(&services.parsing).await?);
        let (client, topics) = (self.client()?, wanted.subject.topics());
        let subscriptions = &services.subscriptions;
        let (registration, new) = client.may_subscribe(&topics, subscriptions.of_one())?;
        let held = places(subscriptions, new.len())?;
        let registered = TopicsGuard::add(registration, new).await?;
        let begun = services.backend.begin(&client.admitted, wanted.clone());
        let BegunSubscription {
            subscribed,
            number,
            cursor,
            after,
            error,
        } = begun.await?;
        let mut packets = Vec::new();
        if let Some(error) = error {
            packets.extend(client::written_packets(ErrorEvent::NAME, &error, None)?);
        }
        let answer = wanted.subject.answer();
        packets.extend(client::written_packets(answer, &subscribed, ack.take())?);
        let names = wanted.subject.named();
        let caught_up = match after {
            Some(_) => Some((number, CaughtUp::Replay { cursor, names }.encode()?)),
            None => None,
        };
        let from = SubscriptionStart {
            number: after.unwrap_or(number),
            caught_up,
        };
        client.subscribe(&topics, held, from, packets);
        registered.keep();
        Ok(())
    }

    pub(super) fn unsubscribe_address(
        &self,
        asked: UnsubscribeAddress,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let address = self.services.parsing.address(&asked.address)?;
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

    pub(super) async fn unsubscribe_descriptor(
        &self,
        asked: UnsubscribeDescriptor,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let parsing = &self.services.parsing;
        let descriptor = NamedDescriptor::read(parsing, asked.descriptor_id, asked.descriptor);
        let id = descriptor.await?.id;
        let unsubscribed = Unsubscribed {
            names: Names::of_descriptor(id),
            message: "No more events about this descriptor come here.".to_owned(),
        };
        let packets = client::packets(&unsubscribed, ack.take())?;
        self.client()?.unsubscribe(&Topic::Descriptor(id), packets);
        Ok(())
    }
}
