//! Named readers of the event log: what each wants, how far it has come, and for those with a
//! webhook what became of single events.
//!
//! All of a consumer's rows stand in the family `cursors` under its name, which has no zero byte:
//!
//! | key | value | |
//! |---|---|---|
//! | name | created u64, all scripts bool, spks, blocks bool, webhook, (all descriptors bool, list of ids)? | its wants: [`ConsumerRow`]; what is behind the webhook came with format 8, and is left out for no descriptors |
//! | name, 0, `c` | number u64, moved u64 | all events up to this one are done: [`ConsumerPlace`] |
//! | name, 0, `q` | number u64 | nothing that it wants is between the place and this: quiet |
//! | name, 0, `p`, partition u64 | number u64 | a webhook's partition is done up to here, beyond the place |
//! | name, 0, `d`, number u64 | event, tries, error, again bool | [`DeadLetter`] |
//! | name, 0, `f`, number u64 | tries | an event that failed and is tried again: [`Failing`] |
//! | name, 0, `r`, number u64 | tries | a dead letter that is sent again and failed again |
//! | name, 0, `s` | since u64, reason | the receiver wants nothing any more: [`WebhookStop`] |
//!
//! Earlier builds left rows `o`, which mean nothing any more.
//!
//! Tries: attempts u32, first_failed u64, last_tried u64. `webhook`: 0, or 2 and url, list of (key,
//! (expires u64)?), list of (header, value). Format 2 wrote 1 and url, key.

mod values;

use std::collections::BTreeMap;

use rocksdb::{ColumnFamily, ReadOptions, WriteBatch};

use super::codec::keys::parse_number_key;
use super::codec::{Malformed, StoredValue};
use super::families::{CURSORS, EVENTS};
use super::{OwnerEdits, StoreError, StoreReader, TokenKey, Writer};
use crate::tracker::{DescriptorId, Event};

/// What a named reader wants of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerRow {
    /// Milliseconds since the Unix epoch.
    pub created: u64,
    /// `None`: every watched script, also those that are added later.
    pub scripts: Option<Vec<bitcoin::ScriptBuf>>,
    /// Likewise descriptors.
    pub descriptors: Option<Vec<DescriptorId>>,
    /// Blocks and reorgs too.
    pub blocks: bool,
    pub webhook: Option<Webhook>,
}

impl ConsumerRow {
    /// What of the log is for it.
    pub fn selects(&self) -> impl PartialEq {
        (&self.scripts, &self.descriptors, self.blocks)
    }
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
pub struct ConsumerPlace {
    pub number: u64,
    /// When it came there, in milliseconds since the Unix epoch.
    pub moved: u64,
}

/// An event that a webhook was told again and again and did not take. It holds the event, since
/// retention may take it from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub event: Event,
    pub failing: Failing,
    /// What the last attempt met with.
    pub error: String,
    /// A person asked for it to be sent again, which is not done yet.
    pub again: bool,
}

/// What a webhook delivers: an event of the log, or a dead letter that is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delivery {
    pub resend: bool,
    pub number: u64,
}

/// That the receiver did not take a delivery yet. Times in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    pub attempts: u32,
    pub first_failed: u64,
    pub last_tried: u64,
}

/// The receiver said that it wants nothing any more; nothing is sent until a person resumes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookStop {
    /// Milliseconds since the Unix epoch.
    pub since: u64,
    pub reason: String,
}

/// One step of [`Writer::edit_consumer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerEdit {
    Define(ConsumerRow),
    /// Of a new one: which token has defined it.
    Owner(TokenKey),
    /// Its place, further on than before.
    Move(ConsumerPlace),
    /// Nothing that it wants is between its place and this number.
    Quiet(u64),
    /// Its place, anywhere, with [`ConsumerEdit::ForgetBeyondPlace`].
    Rewind(ConsumerPlace),
    /// Events of this partition of a webhook are done up to this number.
    PartitionDone(u64, u64),
    /// Nothing beyond the place counts as done or as not wanted.
    ForgetBeyondPlace,
    DeadLetter(u64, DeadLetter),
    /// A dead letter was sent after all, or is to be forgotten.
    DropDeadLetter(u64),
    /// All of them.
    DropDeadLetters,
    /// It failed and is tried again.
    Failing(Delivery, Failing),
    /// It is delivered or given up.
    NotFailing(Delivery),
    /// Nothing is sent any more; that deliveries failed before does not count.
    Stop(WebhookStop),
    Resume,
    /// That deliveries failed before does not count.
    ForgetFailures,
    /// Everything of this consumer, from before this step.
    Forget,
}

impl StoreReader {
    /// All consumers with their places, in the order of their names.
    pub fn consumers(&self) -> Result<Vec<(String, ConsumerRow, ConsumerPlace)>, StoreError> {
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
                .get(CURSORS, &kind_key(&name, PLACE))?
                .ok_or_else(|| db.corrupt(CURSORS, &key, "its place is missing"))?;
            found.push((name, db.decode(CURSORS, &key, &value)?, place));
        }
        Ok(found)
    }

    /// Nothing that a consumer wants is between its place and this number, if it was written down.
    pub fn quiet(&self, name: &str) -> Result<Option<u64>, StoreError> {
        self.db().get(CURSORS, &kind_key(name, QUIET))
    }

    /// Partitions of a webhook that are done further than the consumer's place, each with the
    /// number up to which it is.
    pub fn partitions_done(&self, name: &str) -> Result<Vec<(u64, u64)>, StoreError> {
        let done = |key: &[u8], value: &[u8]| {
            let number = parse_number_key(value);
            number.map_err(|Malformed(what)| self.db().corrupt(CURSORS, key, what))
        };
        self.numbered(name, PARTITION, 0, done).collect()
    }

    /// Dead letters with a number above `after`, oldest first.
    pub fn dead_letters(
        &self,
        name: &str,
        after: u64,
    ) -> impl Iterator<Item = Result<(u64, DeadLetter), StoreError>> {
        let from = after.checked_add(1).into_iter();
        from.flat_map(move |from| self.values(name, DEAD, from))
    }

    pub fn dead_letter(&self, name: &str, number: u64) -> Result<Option<DeadLetter>, StoreError> {
        self.db().get(CURSORS, &number_key(name, DEAD, number))
    }

    /// How many dead letters there are; looks at all of them.
    pub fn dead_letter_count(&self, name: &str) -> Result<usize, StoreError> {
        let mut all = self.numbered(name, DEAD, 0, |_, _| Ok(()));
        all.try_fold(0_usize, |count, entry| {
            entry.map(|_| count.saturating_add(1))
        })
    }

    /// Deliveries that failed and are tried again.
    pub fn failing(&self, name: &str) -> Result<BTreeMap<Delivery, Failing>, StoreError> {
        let of = |resend: bool| {
            let rows = self.values(name, failing_kind(resend), 0);
            rows.map(move |row| row.map(|(number, row)| (Delivery { resend, number }, row)))
        };
        of(false).chain(of(true)).collect()
    }

    /// Whether the webhook is stopped, and why.
    pub fn stopped(&self, name: &str) -> Result<Option<WebhookStop>, StoreError> {
        self.db().get(CURSORS, &kind_key(name, STOPPED))
    }

    /// One event of the log; `None` when no event has this number (any more).
    pub fn event(&self, number: u64) -> Result<Option<Event>, StoreError> {
        self.db().get(EVENTS, &number.to_be_bytes())
    }

    fn values<T: StoredValue>(
        &self,
        name: &str,
        kind: u8,
        from: u64,
    ) -> impl Iterator<Item = Result<(u64, T), StoreError>> {
        self.numbered(name, kind, from, |key, value| {
            self.db().decode(CURSORS, key, value)
        })
    }

    /// Entries of one kind of a consumer from a number on.
    fn numbered<T>(
        &self,
        name: &str,
        kind: u8,
        from: u64,
        read: impl Fn(&[u8], &[u8]) -> Result<T, StoreError>,
    ) -> impl Iterator<Item = Result<(u64, T), StoreError>> {
        let (db, prefix) = (self.db(), kind_key(name, kind));
        let from = number_key(name, kind, from);
        let entries = db.scan(CURSORS, &prefix, Some(&from), ReadOptions::default());
        entries.map(move |entry| {
            let (key, value) = entry?;
            let number = parse_number_key(key.get(prefix.len()..).unwrap_or_default())
                .map_err(|Malformed(what)| db.corrupt(CURSORS, &key, what))?;
            Ok((number, read(&key, &value)?))
        })
    }
}

/// What a batch changes of the rows of one consumer.
struct RowEdits<'a> {
    batch: WriteBatch,
    family: &'a ColumnFamily,
    name: &'a str,
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
        let mut rows = RowEdits {
            batch: WriteBatch::default(),
            family: db.family(CURSORS),
            name,
        };
        let mut owners = OwnerEdits::default();
        for edit in edits {
            match edit {
                ConsumerEdit::Owner(token) => owners.consumer(name, Some(*token)),
                ConsumerEdit::Forget => owners.consumer(name, None),
                _ => {}
            }
            rows.apply(edit);
        }
        owners.put(db, &mut rows.batch)?;
        db.write(rows.batch, sync)
    }
}

impl RowEdits<'_> {
    fn apply(&mut self, edit: &ConsumerEdit) {
        let number_key = |kind, number| number_key(self.name, kind, number);
        match edit {
            ConsumerEdit::Define(row) => {
                self.batch.put_cf(self.family, self.name, row.to_bytes());
            }
            // A row of another family.
            ConsumerEdit::Owner(_) => {}
            ConsumerEdit::Move(place) => self.put(PLACE, place),
            ConsumerEdit::Quiet(number) => self.put(QUIET, number),
            ConsumerEdit::Rewind(place) => {
                self.put(PLACE, place);
                self.delete_all(&[QUIET, PARTITION, FAILING]);
            }
            ConsumerEdit::PartitionDone(partition, number) => {
                let key = number_key(PARTITION, *partition);
                self.batch.put_cf(self.family, key, number.to_be_bytes());
            }
            ConsumerEdit::ForgetBeyondPlace => self.delete_all(&[QUIET, PARTITION]),
            ConsumerEdit::DeadLetter(number, letter) => {
                let key = number_key(DEAD, *number);
                self.batch.put_cf(self.family, key, letter.to_bytes());
            }
            ConsumerEdit::DropDeadLetter(number) => {
                for kind in [DEAD, RESENT] {
                    self.batch.delete_cf(self.family, number_key(kind, *number));
                }
            }
            ConsumerEdit::DropDeadLetters => self.delete_all(&[DEAD, RESENT]),
            ConsumerEdit::Failing(Delivery { resend, number }, failing) => {
                let key = number_key(failing_kind(*resend), *number);
                self.batch.put_cf(self.family, key, failing.to_bytes());
            }
            ConsumerEdit::NotFailing(Delivery { resend, number }) => {
                let key = number_key(failing_kind(*resend), *number);
                self.batch.delete_cf(self.family, key);
            }
            ConsumerEdit::Stop(stop) => {
                self.put(STOPPED, stop);
                self.delete_all(&[FAILING, RESENT]);
            }
            ConsumerEdit::ForgetFailures => self.delete_all(&[FAILING, RESENT]),
            ConsumerEdit::Resume => self.delete_all(&[STOPPED]),
            ConsumerEdit::Forget => {
                self.batch.delete_cf(self.family, self.name);
                let all = |end| [self.name.as_bytes(), &[end]].concat();
                let (start, end) = (all(SEPARATOR), all(SEPARATOR + 1));
                self.batch.delete_range_cf(self.family, start, end);
            }
        }
    }

    /// The one row of this kind.
    fn put(&mut self, kind: u8, value: &impl StoredValue) {
        let key = kind_key(self.name, kind);
        self.batch.put_cf(self.family, key, value.to_bytes());
    }

    /// All rows of these kinds.
    fn delete_all(&mut self, kinds: &[u8]) {
        for kind in kinds {
            let (start, end) = (kind_key(self.name, *kind), kind_key(self.name, kind + 1));
            self.batch.delete_range_cf(self.family, start, end);
        }
    }
}

/// Behind the name.
const SEPARATOR: u8 = 0;
const PLACE: u8 = b'c';
const QUIET: u8 = b'q';
const PARTITION: u8 = b'p';
const DEAD: u8 = b'd';
const FAILING: u8 = b'f';
const RESENT: u8 = b'r';
const STOPPED: u8 = b's';

fn failing_kind(resend: bool) -> u8 {
    if resend { RESENT } else { FAILING }
}

fn kind_key(name: &str, kind: u8) -> Vec<u8> {
    [name.as_bytes(), &[SEPARATOR, kind]].concat()
}

fn number_key(name: &str, kind: u8, number: u64) -> Vec<u8> {
    [name.as_bytes(), &[SEPARATOR, kind], &number.to_be_bytes()].concat()
}
