//! `subscribe_descriptor`, `unsubscribe_descriptor`: which descriptor is meant. How a subscription
//! is made is in [`super::subscribe`].

use super::Call;
use super::answers::{Names, Unsubscribed};
use super::client;
use super::requests::{SubscribeDescriptor, UnsubscribeDescriptor};
use super::subscribe::{Subject, Subscription};
use crate::api::descriptors::Addition;
use crate::descriptors::WalletDescriptor;
use crate::events::Topic;
use crate::socketio::Ack;
use crate::tracker::DescriptorId;
use crate::wire::ApiError;
use crate::wire::request::descriptors::{DescriptorText, descriptor_id};

/// A descriptor that a client names.
pub(super) struct WantedDescriptor {
    pub(super) id: DescriptorId,
    /// If it came with its text, by which it can be added.
    wallet: Option<WalletDescriptor>,
}

impl WantedDescriptor {
    async fn read(
        call: &Call,
        id: Option<String>,
        text: Option<DescriptorText>,
    ) -> Result<Self, ApiError> {
        match (id, text) {
            (Some(id), None) => Ok(Self {
                id: descriptor_id(&id)?,
                wallet: None,
            }),
            (None, Some(text)) => {
                let wallet = call.services.descriptors.parse(text).await?;
                Ok(Self {
                    id: DescriptorId(wallet.id()),
                    wallet: Some(wallet),
                })
            }
            (Some(_), Some(text)) => {
                // What may be a private key is looked at first.
                call.services.descriptors.parse(text).await?;
                let what = "left out beside \"descriptor\": either of them names it";
                Err(ApiError::invalid_field("descriptor_id", what))
            }
            (None, None) => {
                let what =
                    "{\"descriptor_id\": \"<id>\"}, or the descriptor itself as \"descriptor\"";
                Err(ApiError::missing_field("descriptor_id", what))
            }
        }
    }

    /// Has it watched with these depths: whether that is new. `costly`: counts it if it has to be
    /// added, or refuses that.
    pub(super) async fn ensure_watched(
        &self,
        call: &Call,
        depths: Vec<u8>,
        costly: impl FnOnce() -> Result<(), ApiError> + Send,
    ) -> Result<bool, ApiError> {
        let (descriptors, principal) = (&call.services.descriptors, &call.client()?.principal);
        let told = descriptors.ensure_told(principal, self.id, depths.clone());
        let missing = match told.await {
            Err(error) if error.code == "no_such_descriptor" => error,
            told => return told,
        };
        let Some(wallet) = &self.wallet else {
            return Err(missing);
        };
        costly()?;
        let addition = Addition {
            depths,
            ..Addition::default()
        };
        descriptors.add(principal, wallet, addition).await?;
        Ok(true)
    }
}

impl Call {
    pub(super) async fn subscribe_descriptor(
        &self,
        asked: SubscribeDescriptor,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let descriptor = WantedDescriptor::read(self, asked.descriptor_id, asked.descriptor);
        let wanted = Subscription {
            subject: Subject::Descriptor(descriptor.await?),
            depths: asked.confirmations.unwrap_or_default().0,
            after: asked.after,
            snapshot: asked.snapshot.unwrap_or(true),
        };
        self.subscribe(wanted, ack).await
    }

    pub(super) async fn unsubscribe_descriptor(
        &self,
        asked: UnsubscribeDescriptor,
        ack: &mut Option<Ack>,
    ) -> Result<(), ApiError> {
        let descriptor = WantedDescriptor::read(self, asked.descriptor_id, asked.descriptor);
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
