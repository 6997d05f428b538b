//! What the store remembers of credentials. The tokens themselves are in a file beside it.
//!
//! | key of family `auth` | value | |
//! |---|---|---|
//! | `m` | on bool, serial u64, first_taken bool, list of the origin (8 bytes) if there is one | [`AuthMark`], absent until something was remembered |
//! | `u`, token id (8 bytes) | at u64 | [`AuthEdit::Used`]: when the token was used last |
//! | `s`, hash of the session's id (32 bytes) | token id (8 bytes), hash of the page's key (32 bytes), used u64 | [`SessionRow`] |

use rocksdb::{ReadOptions, WriteBatch};

use super::codec::{In, Malformed, Out, StoredValue};
use super::families::AUTH;
use super::{StoreError, StoreReader, TokenKey, Writer};

const MARK: &[u8] = b"m";
const USED: u8 = b'u';
const SESSION: u8 = b's';

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
    /// When it was used last, as far as that was written, in milliseconds since the Unix epoch.
    pub used: u64,
}

impl StoredValue for SessionRow {
    fn encode(&self, out: &mut Out) {
        out.put(&u64::from_le_bytes(self.token));
        out.put(&self.page).put(&self.used);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            token: input.get::<u64>()?.to_le_bytes(),
            page: input.get()?,
            used: input.get()?,
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
    /// A session began, or was used.
    Session(SessionKey, SessionRow),
    SessionGone(SessionKey),
}

fn used_key(token: &TokenKey) -> Vec<u8> {
    [&[USED][..], token].concat()
}

fn session_key(session: &SessionKey) -> Vec<u8> {
    [&[SESSION][..], session].concat()
}

fn parse_session_key(key: &[u8]) -> Result<SessionKey, Malformed> {
    let hash = key.strip_prefix(&[SESSION]).unwrap_or_default();
    let hash = hash.try_into();
    hash.map_err(|_| Malformed("the key is of no session".to_owned()))
}

fn parse_used_key(key: &[u8]) -> Result<TokenKey, Malformed> {
    let id = key.strip_prefix(&[USED]).unwrap_or_default();
    let id = id.try_into();
    id.map_err(|_| Malformed("the key is of no token".to_owned()))
}

impl Writer {
    /// `sync`: the machine may lose power afterwards.
    pub fn edit_auth(&mut self, edits: &[AuthEdit], sync: bool) -> Result<(), StoreError> {
        let (db, mut batch) = (self.db(), WriteBatch::default());
        let family = db.family(AUTH);
        for edit in edits {
            match edit {
                AuthEdit::Mark(mark) => batch.put_cf(family, MARK, mark.to_bytes()),
                AuthEdit::Used(token, at) => batch.put_cf(family, used_key(token), at.to_bytes()),
                AuthEdit::Gone(token) => batch.delete_cf(family, used_key(token)),
                AuthEdit::Session(session, row) => {
                    batch.put_cf(family, session_key(session), row.to_bytes())
                }
                AuthEdit::SessionGone(session) => batch.delete_cf(family, session_key(session)),
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
                // What tokens own comes behind.
                Some(kind) if *kind > USED => break,
                Some(&USED) => parse_used_key(key)
                    .and_then(|token| Ok((token, u64::from_bytes(value)?)))
                    .map(|used| found.used.push(used)),
                Some(&SESSION) => parse_session_key(key)
                    .and_then(|session| Ok((session, SessionRow::from_bytes(value)?)))
                    .map(|session| found.sessions.push(session)),
                _ if key == MARK => AuthMark::from_bytes(value).map(|mark| found.mark = mark),
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
