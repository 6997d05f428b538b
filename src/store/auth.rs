//! What the store remembers of credentials. The tokens themselves are in a file beside it.
//!
//! | key of family `auth` | value | |
//! |---|---|---|
//! | `m` | on bool, serial u64, first_taken bool, list of the origin (8 bytes) if there is one | [`AuthMark`], absent until something was remembered |
//! | `s`, hash of the session's id (32 bytes) | token id (8 bytes), hash of the page's key (32 bytes), began u64 | [`SessionRow`] |
//! | `u`, token id (8 bytes) | at u64 | [`AuthEdit::Used`]: when the token was used last |
//! | `v`, token id (8 bytes) | addresses u64, consumers u64 | [`super::Owned`]: how many rows below have it; absent when none has |
//! | `w`, script hash | token id | who put a watched address there ([`super::owners`]) |
//! | `x`, name | token id | who defined a consumer |
//! | `y`, descriptor id | token id | who added a descriptor; how many scripts that is stands in its row |
//! | `z`, token id | u64 | how many that is of all its descriptors; made anew by each start, absent when there is none |

use rocksdb::{ReadOptions, WriteBatch};

use super::codec::{In, Malformed, Out, StoredValue};
use super::families::AUTH;
use super::families::auth::{MARK, OWNED, SESSION, USED, key};
use super::{StoreError, StoreReader, TokenKey, Writer};

/// What was seen of the tokens file last. It makes a file that is lost, or put back, look different
/// from one that never was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuthMark {
    /// Every request needs a token.
    pub on: bool,
    /// The highest that any file had which was taken, if only in what it takes away.
    pub serial: u64,
    /// The first token was taken from a file or from the service manager.
    pub first_taken: bool,
    /// Of the file: another daemon's has another.
    pub origin: Option<[u8; 8]>,
}

impl StoredValue for AuthMark {
    fn encode(&self, out: &mut Out) {
        let origin = self.origin.map(u64::from_le_bytes);
        out.part(&self.on).part(&self.serial);
        out.part(&self.first_taken).last(origin.as_slice());
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let mut mark = Self {
            on: input.part()?,
            serial: input.part()?,
            first_taken: input.part()?,
            origin: None,
        };
        mark.origin = match input.last::<u64>()?[..] {
            [] => None,
            [origin] => Some(origin.to_le_bytes()),
            _ => return Err(Malformed("a file has one origin".to_owned())),
        };
        Ok(mark)
    }
}

/// Identifies a session of the page: the hash of its id.
pub type SessionKey = [u8; 32];

/// A session of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRow {
    pub token: TokenKey,
    /// The hash of the half that the page itself has.
    pub page: [u8; 32],
    /// In milliseconds since the Unix epoch.
    pub began: u64,
}

impl StoredValue for SessionRow {
    fn encode(&self, out: &mut Out) {
        out.put(&u64::from_le_bytes(self.token));
        out.put(&self.page).put(&self.began);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            token: input.get::<u64>()?.to_le_bytes(),
            page: input.get()?,
            began: input.get()?,
        })
    }
}

/// A change of these rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthEdit {
    Mark(AuthMark),
    /// A token was used, in milliseconds since the Unix epoch.
    Used(TokenKey, u64),
    /// There is no such token any more.
    Gone(TokenKey),
    /// A session began.
    Session(SessionKey, SessionRow),
    SessionGone(SessionKey),
}

/// What a key of this kind is about.
fn parse_key<const LEN: usize>(kind: u8, key: &[u8]) -> Result<[u8; LEN], Malformed> {
    let what = key.strip_prefix(&[kind]).unwrap_or_default();
    let what = what.try_into();
    what.map_err(|_| Malformed(format!("the key has not {LEN} bytes behind its kind")))
}

impl Writer {
    /// `sync`: the machine may lose power afterwards.
    pub fn edit_auth(&mut self, edits: &[AuthEdit], sync: bool) -> Result<(), StoreError> {
        let (db, mut batch) = (self.db(), WriteBatch::default());
        let family = db.family(AUTH);
        for edit in edits {
            match edit {
                AuthEdit::Mark(mark) => batch.put_cf(family, [MARK], mark.to_bytes()),
                AuthEdit::Used(token, at) => batch.put_cf(family, key(USED, token), at.to_bytes()),
                AuthEdit::Gone(token) => batch.delete_cf(family, key(USED, token)),
                AuthEdit::Session(session, row) => {
                    batch.put_cf(family, key(SESSION, session), row.to_bytes())
                }
                AuthEdit::SessionGone(session) => batch.delete_cf(family, key(SESSION, session)),
            }
        }
        db.write(batch, sync)
    }
}

/// All that is remembered of credentials.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RememberedAuth {
    pub mark: AuthMark,
    /// When each token was used last, in milliseconds since the Unix epoch.
    pub used: Vec<(TokenKey, u64)>,
    pub sessions: Vec<(SessionKey, SessionRow)>,
}

impl RememberedAuth {
    /// From the entries of the family.
    pub(super) fn read<K: AsRef<[u8]>>(
        entries: impl Iterator<Item = Result<(K, K), StoreError>>,
        corrupt: impl Fn(&[u8], Malformed) -> StoreError,
    ) -> Result<Self, StoreError> {
        let mut found = Self::default();
        for entry in entries {
            let (key, value) = entry?;
            let (key, value) = (key.as_ref(), value.as_ref());
            let read = match key.first() {
                Some(kind) if *kind >= OWNED => break,
                Some(&USED) => parse_key(USED, key)
                    .and_then(|token| Ok((token, u64::from_bytes(value)?)))
                    .map(|used| found.used.push(used)),
                Some(&SESSION) => parse_key(SESSION, key)
                    .and_then(|session| Ok((session, SessionRow::from_bytes(value)?)))
                    .map(|session| found.sessions.push(session)),
                _ if key == [MARK] => AuthMark::from_bytes(value).map(|mark| found.mark = mark),
                _ => Err(Malformed("there is no such row".to_owned())),
            };
            read.map_err(|malformed| corrupt(key, malformed))?;
        }
        Ok(found)
    }
}

impl StoreReader {
    pub fn remembered_auth(&self) -> Result<RememberedAuth, StoreError> {
        let entries = self.db().scan(AUTH, &[], None, ReadOptions::default());
        RememberedAuth::read(entries, |key, Malformed(what)| {
            self.db().corrupt(AUTH, key, what)
        })
    }
}
