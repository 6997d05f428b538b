//! Rows of consumers as bytes, as the table in [`super`] gives them.

use super::{Consumer, DeadLetter, Failing, Place, Scripts, SigningSecret, Stopped, Webhook};
use crate::store::codec::{In, Malformed, Out, StoredValue};

impl StoredValue for Consumer {
    fn encode(&self, out: &mut Out) {
        let (all, spks) = match &self.scripts {
            Scripts::All => (true, &[][..]),
            Scripts::These(spks) => (false, spks.as_slice()),
        };
        out.put(&self.created)
            .put(&all)
            .list(spks, |out, spk| _ = out.put(spk))
            .put(&self.blocks);
        match &self.webhook {
            None => _ = out.tag(NO_WEBHOOK),
            Some(webhook) => _ = out.tag(WEBHOOK).part(webhook),
        }
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let created = input.get()?;
        let all = input.get()?;
        let spks = input.list(In::get)?;
        let scripts = if all {
            Scripts::All
        } else {
            Scripts::These(spks)
        };
        let blocks = input.get()?;
        let webhook = match input.tag()? {
            NO_WEBHOOK => None,
            WEBHOOK_OF_FORMAT_2 => Some(Webhook {
                url: input.get()?,
                secrets: vec![SigningSecret {
                    key: input.get()?,
                    expires: None,
                }],
                headers: Vec::new(),
            }),
            WEBHOOK => Some(input.part()?),
            tag => return Err(Malformed(format!("{tag} is no kind of webhook"))),
        };
        Ok(Self {
            created,
            scripts,
            blocks,
            webhook,
        })
    }
}

const NO_WEBHOOK: u8 = 0;
const WEBHOOK_OF_FORMAT_2: u8 = 1;
const WEBHOOK: u8 = 2;

impl StoredValue for Webhook {
    fn encode(&self, out: &mut Out) {
        out.put(&self.url)
            .list(&self.secrets, |out, secret| {
                out.put(&secret.key)
                    .option(secret.expires.as_ref(), |out, expires| _ = out.put(expires));
            })
            .list(&self.headers, |out, (name, value)| {
                _ = out.put(name).put(value);
            });
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            url: input.get()?,
            secrets: input.list(|input| {
                Ok(SigningSecret {
                    key: input.get()?,
                    expires: input.option(In::get)?,
                })
            })?,
            headers: input.list(|input| Ok((input.get()?, input.get()?)))?,
        })
    }
}

impl StoredValue for Failing {
    fn encode(&self, out: &mut Out) {
        out.put(&self.attempts)
            .put(&self.first_failed)
            .put(&self.last_tried);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            attempts: input.get()?,
            first_failed: input.get()?,
            last_tried: input.get()?,
        })
    }
}

impl StoredValue for Stopped {
    fn encode(&self, out: &mut Out) {
        out.put(&self.since).put(&self.reason);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            since: input.get()?,
            reason: input.get()?,
        })
    }
}

impl StoredValue for Place {
    fn encode(&self, out: &mut Out) {
        out.put(&self.number).put(&self.moved);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            number: input.get()?,
            moved: input.get()?,
        })
    }
}

impl StoredValue for DeadLetter {
    fn encode(&self, out: &mut Out) {
        out.part(&self.event)
            .put(&self.attempts)
            .put(&self.first_failed)
            .put(&self.last_tried)
            .put(&self.error)
            .put(&self.again);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            event: input.part()?,
            attempts: input.get()?,
            first_failed: input.get()?,
            last_tried: input.get()?,
            error: input.get()?,
            again: input.get()?,
        })
    }
}
