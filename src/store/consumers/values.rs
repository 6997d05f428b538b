//! Rows of consumers as bytes, as the table in [`super`] gives them.

use super::{ConsumerPlace, ConsumerRow, DeadLetter, Failing, SigningSecret, Webhook, WebhookStop};
use crate::store::codec::{In, Malformed, Out, StoredValue, value_of_fields};

impl StoredValue for ConsumerRow {
    fn encode(&self, out: &mut Out) {
        out.part(&self.created).part(&self.scripts.is_none());
        out.list(self.scripts.as_deref().unwrap_or_default())
            .part(&self.blocks);
        match &self.webhook {
            None => out.tag(NO_WEBHOOK),
            Some(webhook) => out.tag(WEBHOOK).part(webhook),
        };
        match self.descriptors.as_deref() {
            Some([]) => {}
            descriptors => {
                out.part(&descriptors.is_none());
                out.list(descriptors.unwrap_or_default());
            }
        }
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let created = input.part()?;
        let all: bool = input.part()?;
        let scripts = Some(input.part()?).filter(|_| !all);
        let blocks = input.part()?;
        let webhook = match input.tag()? {
            NO_WEBHOOK => None,
            WEBHOOK_OF_FORMAT_2 => Some(Webhook {
                url: input.part()?,
                secrets: vec![SigningSecret {
                    key: input.part()?,
                    expires: None,
                }],
                headers: Vec::new(),
            }),
            WEBHOOK => Some(input.part()?),
            tag => return Err(Malformed(format!("{tag} is no kind of webhook"))),
        };
        let descriptors = match input.next() {
            None => Some(Vec::new()),
            Some(_) => {
                let all: bool = input.part()?;
                Some(input.part()?).filter(|_| !all)
            }
        };
        Ok(Self {
            created,
            scripts,
            descriptors,
            blocks,
            webhook,
        })
    }
}

const NO_WEBHOOK: u8 = 0;
const WEBHOOK_OF_FORMAT_2: u8 = 1;
const WEBHOOK: u8 = 2;

value_of_fields!(Webhook: url, secrets, headers);
value_of_fields!(SigningSecret: key, expires);
value_of_fields!(Failing: attempts, first_failed, last_tried);
value_of_fields!(WebhookStop: since, reason);
value_of_fields!(ConsumerPlace: number, moved);
value_of_fields!(DeadLetter: event, failing, error, again);
