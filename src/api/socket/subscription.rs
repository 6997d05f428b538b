//! What subscriptions are about, read without looking anything up.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Parsing;
use super::answers::{Names, Subscribed, SubscribedBlocks};
use crate::descriptors::WalletDescriptor;
use crate::events::Topic;
use crate::tracker::DescriptorId;
use crate::wire::ApiError;
use crate::wire::address::KnownAddress;
use crate::wire::json::ServerEvent;
use crate::wire::request::descriptors::{DescriptorText, descriptor_id};
use crate::wire::request::types::Depths;

/// What a client wants to subscribe to.
#[derive(Debug)]
pub struct Subscription {
    pub subject: Subject,
    pub depths: Vec<u8>,
    /// Replay what came after this cursor.
    pub after: Option<String>,
    pub snapshot: bool,
}

#[derive(Debug)]
pub enum Subject {
    Addresses {
        addresses: Arc<[KnownAddress]>,
        /// It asked for a list, and is answered with one.
        many: bool,
    },
    Descriptor(NamedDescriptor),
    Blocks,
}

/// A descriptor that a client names.
#[derive(Debug)]
pub struct NamedDescriptor {
    pub id: DescriptorId,
    /// If it came with its text, by which it can be added.
    pub wallet: Option<WalletDescriptor>,
}

impl Subscription {
    pub fn new(
        subject: Subject,
        confirmations: Option<Depths>,
        after: Option<String>,
        snapshot: Option<bool>,
    ) -> Self {
        Self {
            subject,
            depths: confirmations.unwrap_or_default().0,
            after,
            snapshot: snapshot.unwrap_or(true),
        }
    }

    /// The event and its argument, as a client says the same: what `POST /edge/subscription` takes.
    pub fn said(&self) -> Value {
        let (event, mut argument) = match &self.subject {
            Subject::Addresses { addresses, many } => {
                let mut texts = addresses.iter().map(|address| &address.text);
                match many {
                    true => {
                        let texts: Vec<_> = texts.collect();
                        ("subscribe_addresses", json!({"addresses": texts}))
                    }
                    false => ("subscribe_address", json!({"address": texts.next()})),
                }
            }
            Subject::Descriptor(NamedDescriptor { id, wallet }) => {
                let argument = match wallet {
                    Some(wallet) => json!({"descriptor": wallet.text()}),
                    None => json!({"descriptor_id": id.to_string()}),
                };
                ("subscribe_descriptor", argument)
            }
            Subject::Blocks => return json!({"event": "subscribe_blocks", "argument": {}}),
        };
        argument["confirmations"] = json!(self.depths);
        argument["after"] = json!(self.after);
        argument["snapshot"] = json!(self.snapshot);
        json!({"event": event, "argument": argument})
    }
}

impl Subject {
    /// As answers name it: one address, a list when a list was asked for, or a descriptor.
    pub fn named(&self) -> Names {
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
            Self::Blocks => {}
        }
        names
    }

    pub fn topics(&self) -> Vec<Topic> {
        match self {
            Self::Addresses { addresses, .. } => {
                let scripts = addresses.iter().map(|address| address.script);
                scripts.map(Topic::Script).collect()
            }
            Self::Descriptor(wanted) => vec![Topic::Descriptor(wanted.id)],
            Self::Blocks => vec![Topic::Blocks],
        }
    }

    pub fn count(&self) -> usize {
        match self {
            Self::Addresses { addresses, .. } => addresses.len(),
            Self::Descriptor(_) | Self::Blocks => 1,
        }
    }

    /// The event that answers it.
    pub fn answer(&self) -> &'static str {
        match self {
            Self::Blocks => SubscribedBlocks::NAME,
            Self::Addresses { .. } | Self::Descriptor(_) => Subscribed::NAME,
        }
    }
}

impl NamedDescriptor {
    pub async fn read(
        parsing: &Parsing,
        id: Option<String>,
        text: Option<DescriptorText>,
    ) -> Result<Self, ApiError> {
        match (id, text) {
            (Some(id), None) => Ok(Self {
                id: descriptor_id(&id)?,
                wallet: None,
            }),
            (None, Some(text)) => {
                let wallet = parsing.descriptor(text).await?;
                Ok(Self {
                    id: DescriptorId(wallet.id()),
                    wallet: Some(wallet),
                })
            }
            (Some(_), Some(text)) => {
                // What may be a private key is looked at first.
                parsing.descriptor(text).await?;
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
}
