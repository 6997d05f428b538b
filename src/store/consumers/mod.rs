//! Named readers of the event log: what each wants, how far it has come, and for those with a
//! webhook what became of single events.
//!
//! All of a consumer's rows stand in the family `cursors` under its name, which has no zero byte:
//!
//! | key | value | |
//! |---|---|---|
//! | name | created u64, all scripts bool, spks, blocks bool, webhook | its wants: [`Consumer`] |
//! | name, 0, `c` | number u64, moved u64 | all events up to this one are done: [`Place`] |
//! | name, 0, `q` | number u64 | nothing that it wants is between the place and this: quiet |
//! | name, 0, `p`, partition u64 | number u64 | a webhook's partition is done up to here, beyond the place |
//! | name, 0, `d`, number u64 | event, tries, error, again bool | [`DeadLetter`] |
//! | name, 0, `f`, number u64 | tries | an event that failed and is tried again: [`Failing`] |
//! | name, 0, `r`, number u64 | tries | a dead letter that is sent again and failed again |
//! | name, 0, `s` | since u64, reason | the receiver wants nothing any more: [`Stopped`] |
//!
//! Earlier builds wrote rows `o` (number u64: an event behind the place that is done), which are
//! deleted when their webhook begins.
//!
//! Tries: attempts u32, first_failed u64, last_tried u64. `webhook`: 0, or 2 and url, list of (key,
//! (expires u64)?), list of (header, value). Format 2 wrote 1 and url, key.

mod values;

use rocksdb::{ColumnFamily, ReadOptions, WriteBatch};

use super::codec::keys::parse_number_key;
use super::codec::{Malformed, StoredValue};
use super::families::{CURSORS, EVENTS};
use super::{StoreError, StoreReader, Writer};
use crate::tracker::Event;

/// What a named reader wants of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Milliseconds since the Unix epoch.
    pub created: u64,
    pub scripts: Scripts,
    /// Blocks and reorgs too.
    pub blocks: bool,
    pub webhook: Option<Webhook>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scripts {
    /// Every watched script, also those that are added later.
    All,
    These(Vec<bitcoin::ScriptBuf>),
}

/// Where events are sent to.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// May hold a token.
    pub url: String,
    /// Each signs; at least one.
    pub secrets: Vec<SigningSecret>,
    /// Sent with each request, names in lower case. The values are secret.
    pub headers: Vec<(String, String)>,
}

/// Shows nothing: everything in it may be secret.
impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

/// A key of the signatures; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret {
    pub key: Vec<u8>,
    /// It signs until then, in milliseconds since the Unix epoch.
    pub expires: Option<u64>,
}

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningSecret")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// How far a consumer has come: everything it wants up to `number` is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub number: u64,
    /// When it came there, in milliseconds since the Unix epoch.
    pub moved: u64,
}

/// An event that a webhook was told again and again and did not take. It holds the event, since
/// retention may take it from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub event: Event,
    pub attempts: u32,
    /// Milliseconds since the Unix epoch.
    pub first_failed: u64,
    pub last_tried: u64,
    /// What the last attempt met with.
    pub error: String,
    /// A person asked for it to be sent again, which is not done yet.
    pub again: bool,
}

/// An event that the receiver did not take yet, or a dead letter that is sent again. Times in
/// milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    pub attempts: u32,
    pub first_failed: u64,
    pub last_tried: u64,
}

/// The receiver said that it wants nothing any more; nothing is sent until a person resumes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// Milliseconds since the Unix epoch.
    pub since: u64,
    pub reason: String,
}

/// One step of [`Writer::edit_consumer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerEdit {
    Define(Consumer),
    /// Its place, further on than before.
    Move(Place),
    /// Nothing that it wants is between its place and this number.
    Quiet(u64),
    /// Its place, anywhere, with [`ConsumerEdit::ForgetBeyondPlace`].
    Rewind(Place),
    /// Events of this partition of a webhook are done up to this number.
    PartitionDone(u64, u64),
    /// Nothing beyond the place counts as done or as not wanted.
    ForgetBeyondPlace,
    /// Rows of earlier builds.
    DropDone,
    DeadLetter(u64, DeadLetter),
    /// A dead letter was sent after all, or is to be forgotten.
    DropDeadLetter(u64),
    /// All of them.
    DropDeadLetters,
    /// An event failed and is tried again; `resend`: it is a dead letter.
    Failing {
        number: u64,
        resend: bool,
        failing: Failing,
    },
    /// It is delivered or given up.
    NotFailing {
        number: u64,
        resend: bool,
    },
    /// Nothing is sent any more; that events failed before does not count.
    Stop(Stopped),
    Resume,
    /// That events failed before does not count.
    ForgetFailures,
    /// Everything of this consumer, from before this step.
    Forget,
}

impl StoreReader {
    /// All consumers with their places, in the order of their names.
    pub fn consumers(&self) -> Result<Vec<(String, Consumer, Place)>, StoreError> {
        let db = self.db();
        let mut found = Vec::new();
        for entry in db.scan(CURSORS, &[], None, ReadOptions::default()) {
            let (key, value) = entry?;
            if key.contains(&SEPARATOR) {
                continue;
            }
            let name = String::from_utf8(key.to_vec())
                .map_err(|_| db.corrupt(CURSORS, &key, "the name is not text"))?;
            let place = db
                .get(CURSORS, &place_key(&name))?
                .ok_or_else(|| db.corrupt(CURSORS, &key, "its place is missing"))?;
            found.push((name, db.decode(CURSORS, &key, &value)?, place));
        }
        Ok(found)
    }

    /// Nothing that a consumer wants is between its place and this number, if it was written down.
    pub fn quiet(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.db().get(CURSORS, &quiet_key(name))
    }

    /// Partitions of a webhook that are done further than the consumer's place, each with the
    /// number up to which it is.
    pub fn partitions_done(&self, name: &str) -> Result<Vec<(u64, u64)>, StoreError> {
        let rows = self.numbered(name, PARTITION, None).map(|entry| {
            let (partition, value) = entry?;
            let key = number_key(name, PARTITION, partition);
            let number = parse_number_key(&value);
            let corrupt = |Malformed(what)| self.db().corrupt(CURSORS, &key, what);
            Ok((partition, number.map_err(corrupt)?))
        });
        rows.collect()
    }

    /// Up to `limit` dead letters with a number above `after`, oldest first.
    pub fn dead_letters(
        &self,
        name: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, DeadLetter)>, StoreError> {
        let Some(from) = after.checked_add(1) else {
            return Ok(Vec::new());
        };
        let db = self.db();
        let letters = self
            .numbered(name, DEAD, Some(from))
            .take(limit)
            .map(|entry| {
                let (number, value) = entry?;
                Ok((
                    number,
                    db.decode(CURSORS, &number_key(name, DEAD, number), &value)?,
                ))
            });
        letters.collect()
    }

    pub fn dead_letter(&self, name: &str, number: u64) -> Result<Option<DeadLetter>, StoreError> {
        self.db().get(CURSORS, &number_key(name, DEAD, number))
    }

    /// How many dead letters there are; looks at all of them.
    pub fn dead_letter_count(&self, name: &str) -> Result<usize, StoreError> {
        self.numbered(name, DEAD, None)
            .try_fold(0, |count: usize, entry| {
                entry.map(|_| count.saturating_add(1))
            })
    }

    /// Events that failed and are tried again, ascending; `resend`: dead letters sent again.
    pub fn failing(&self, name: &str, resend: bool) -> Result<Vec<(u64, Failing)>, StoreError> {
        let (db, kind) = (self.db(), failing_kind(resend));
        let rows = self.numbered(name, kind, None).map(|entry| {
            let (number, value) = entry?;
            let key = number_key(name, kind, number);
            Ok((number, db.decode(CURSORS, &key, &value)?))
        });
        rows.collect()
    }

    /// Whether the webhook is stopped, and why.
    pub fn stopped(&self, name: &str) -> Result<Option<Stopped>, StoreError> {
        self.db().get(CURSORS, &stopped_key(name))
    }

    /// One event of the log; `None` when no event has this number (any more).
    pub fn event(&self, number: u64) -> Result<Option<Event>, StoreError> {
        self.db().get(EVENTS, &number.to_be_bytes())
    }

    /// Entries of one kind of a consumer.
    fn numbered<'a>(
        &'a self,
        name: &str,
        kind: u8,
        from: Option<u64>,
    ) -> impl Iterator<Item = Result<(u64, Box<[u8]>), StoreError>> + 'a {
        let prefix = [name.as_bytes(), &[SEPARATOR, kind]].concat();
        let from = number_key(name, kind, from.unwrap_or(0));
        self.db()
            .scan(CURSORS, &prefix, Some(&from), ReadOptions::default())
            .map(move |entry| {
                let (key, value) = entry?;
                let number = parse_number_key(key.get(prefix.len()..).unwrap_or_default());
                Ok((
                    number.map_err(|Malformed(what)| self.db().corrupt(CURSORS, &key, what))?,
                    value,
                ))
            })
    }
}

impl Writer {
    /// Writes the edits of one consumer, all or nothing. `sync`: they must survive a power loss.
    pub fn edit_consumer(
        &mut self,
        name: &str,
        edits: &[ConsumerEdit],
        sync: bool,
    ) -> Result<(), StoreError> {
        let db = self.db();
        let family = db.family(CURSORS);
        let mut batch = WriteBatch::default();
        for edit in edits {
            match edit {
                ConsumerEdit::Define(consumer) => batch.put_cf(family, name, consumer.to_bytes()),
                ConsumerEdit::Move(place) => {
                    batch.put_cf(family, place_key(name), place.to_bytes())
                }
                ConsumerEdit::Rewind(place) => {
                    batch.put_cf(family, place_key(name), place.to_bytes());
                    forget_beyond_place(&mut batch, family, name);
                    delete_kind(&mut batch, family, name, FAILING);
                }
                ConsumerEdit::PartitionDone(partition, number) => batch.put_cf(
                    family,
                    number_key(name, PARTITION, *partition),
                    number.to_be_bytes(),
                ),
                ConsumerEdit::ForgetBeyondPlace => forget_beyond_place(&mut batch, family, name),
                ConsumerEdit::Quiet(number) => {
                    batch.put_cf(family, quiet_key(name), number.to_bytes());
                }
                ConsumerEdit::DropDone => delete_kind(&mut batch, family, name, DONE),
                ConsumerEdit::DeadLetter(number, letter) => {
                    batch.put_cf(family, number_key(name, DEAD, *number), letter.to_bytes())
                }
                ConsumerEdit::DropDeadLetter(number) => {
                    batch.delete_cf(family, number_key(name, DEAD, *number));
                    batch.delete_cf(family, number_key(name, RESENT, *number));
                }
                ConsumerEdit::DropDeadLetters => {
                    delete_kind(&mut batch, family, name, DEAD);
                    delete_kind(&mut batch, family, name, RESENT);
                }
                ConsumerEdit::Failing {
                    number,
                    resend,
                    failing,
                } => batch.put_cf(
                    family,
                    number_key(name, failing_kind(*resend), *number),
                    failing.to_bytes(),
                ),
                ConsumerEdit::NotFailing { number, resend } => {
                    batch.delete_cf(family, number_key(name, failing_kind(*resend), *number))
                }
                ConsumerEdit::Stop(stopped) => {
                    batch.put_cf(family, stopped_key(name), stopped.to_bytes());
                    delete_failures(&mut batch, family, name);
                }
                ConsumerEdit::ForgetFailures => delete_failures(&mut batch, family, name),
                ConsumerEdit::Resume => batch.delete_cf(family, stopped_key(name)),
                ConsumerEdit::Forget => {
                    batch.delete_cf(family, name);
                    let (start, end) = (
                        [name.as_bytes(), &[SEPARATOR]].concat(),
                        [name.as_bytes(), &[SEPARATOR + 1]].concat(),
                    );
                    batch.delete_range_cf(family, start.as_slice(), end.as_slice());
                }
            }
        }
        db.write(batch, sync)
    }
}

/// Behind the name.
const SEPARATOR: u8 = 0;
const PLACE: u8 = b'c';
const QUIET: u8 = b'q';
const PARTITION: u8 = b'p';
const DONE: u8 = b'o';
const DEAD: u8 = b'd';
const FAILING: u8 = b'f';
const RESENT: u8 = b'r';
const STOPPED: u8 = b's';

fn failing_kind(resend: bool) -> u8 {
    if resend { RESENT } else { FAILING }
}

/// Deletes all entries of one kind of a consumer.
fn delete_failures(batch: &mut WriteBatch, family: &ColumnFamily, name: &str) {
    delete_kind(batch, family, name, FAILING);
    delete_kind(batch, family, name, RESENT);
}

fn delete_kind(batch: &mut WriteBatch, family: &ColumnFamily, name: &str, kind: u8) {
    let start = number_key(name, kind, 0);
    let end = [name.as_bytes(), &[SEPARATOR, kind + 1]].concat();
    batch.delete_range_cf(family, start.as_slice(), end.as_slice());
}

fn forget_beyond_place(batch: &mut WriteBatch, family: &ColumnFamily, name: &str) {
    batch.delete_cf(family, quiet_key(name));
    delete_kind(batch, family, name, PARTITION);
}

fn quiet_key(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[SEPARATOR, QUIET]].concat()
}

fn stopped_key(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[SEPARATOR, STOPPED]].concat()
}

fn place_key(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[SEPARATOR, PLACE]].concat()
}

fn number_key(name: &str, kind: u8, number: u64) -> Vec<u8> {
    [name.as_bytes(), &[SEPARATOR, kind], &number.to_be_bytes()].concat()
}
