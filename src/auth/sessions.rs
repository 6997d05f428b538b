//! Sessions of the web page: what speaks for a person after they have logged in with a token.
//!
//! A session has two halves of 32 random bytes, and neither is the token. The id is in a cookie,
//! which scripts cannot read. Browsers send a cookie to every port of its host, though: a server on
//! another port of this machine is handed it as soon as the person visits that, and could send it
//! to us with any header. So the cookie alone speaks for nothing. The other half, the page's key,
//! is in the page's `localStorage`, which browsers keep apart by port, and comes in a header and in
//! the CONNECT payload. A cookie that somebody else put into the browser does not fit the key.
//!
//! Laws:
//!
//! - Kept are hashes of both, here and in the store, and the id of the token.
//! - A session ends with its token, when it is ended by its person, and [`SESSION_LIFE`] after it
//!   began, when its cookie is gone, too; of a token the [`MOST`] newest are kept.
//! - What changes here is returned as edits of the store, for the caller to write.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::DisplayHex;
use subtle::ConstantTimeEq;

use super::principal::End;
use super::secret::TokenId;
use crate::store::{AuthEdit, SessionKey, SessionRow};

/// How long a session lasts.
pub const SESSION_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Sessions of one token.
const MOST: usize = 32;

/// What somebody who has just logged in is given.
pub struct SessionSecrets {
    /// For the cookie.
    pub id: String,
    pub page_key: String,
}

impl fmt::Debug for SessionSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A session that has not ended.
#[derive(Debug)]
pub(super) struct LiveSession {
    key: SessionKey,
    page: [u8; 32],
    pub token: TokenId,
    pub end: End,
    /// In milliseconds since the Unix epoch.
    began: u64,
}

impl LiveSession {
    fn new(key: SessionKey, row: SessionRow) -> Self {
        Self {
            key,
            page: row.page,
            token: TokenId(row.token),
            end: End::default(),
            began: row.began,
        }
    }

    fn is_over(&self, now: u64) -> bool {
        u128::from(now.saturating_sub(self.began)) > SESSION_LIFE.as_millis()
    }
}

#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<SessionKey, Arc<LiveSession>>>);

fn random() -> String {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes.to_lower_hex_string()
}

fn hash_of(half: &str) -> [u8; 32] {
    sha256::Hash::hash(half.as_bytes()).to_byte_array()
}

impl Sessions {
    fn held(&self) -> MutexGuard<'_, HashMap<SessionKey, Arc<LiveSession>>> {
        // No call under the lock can leave it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that the store has.
    pub fn load(&self, rows: Vec<(SessionKey, SessionRow)>) {
        let live = |(key, row)| (key, Arc::new(LiveSession::new(key, row)));
        self.held().extend(rows.into_iter().map(live));
    }

    /// A new one. `now`: milliseconds since the Unix epoch.
    pub fn begin(&self, token: TokenId, now: u64) -> (SessionSecrets, Vec<AuthEdit>) {
        let secrets = SessionSecrets {
            id: random(),
            page_key: random(),
        };
        let key = hash_of(&secrets.id);
        let row = SessionRow {
            token: token.0,
            page: hash_of(&secrets.page_key),
            began: now,
        };
        let mut held = self.held();
        let mut same: Vec<_> = held.values().filter(|it| it.token == token).collect();
        same.sort_by_key(|it| std::cmp::Reverse(it.began));
        let oldest: Vec<_> = same.iter().skip(MOST - 1).map(|it| it.key).collect();
        let mut edits = end_all(&mut held, |it| oldest.contains(&it.key) || it.is_over(now));
        held.insert(key, Arc::new(LiveSession::new(key, row)));
        edits.push(AuthEdit::Session(key, row));
        (secrets, edits)
    }

    /// The one that both halves fit. `ids`: of the cookies that may be it, one behind each space.
    pub fn find(&self, ids: &str, page_key: &str, now: u64) -> Option<Arc<LiveSession>> {
        let (held, page) = (self.held(), hash_of(page_key));
        let mut found = ids.split(' ').filter_map(|id| held.get(&hash_of(id)));
        found
            .find(|it| bool::from(it.page.ct_eq(&page)) && !it.is_over(now))
            .cloned()
    }

    /// Ends one, wherever it is used.
    pub fn end(&self, session: &LiveSession) -> Vec<AuthEdit> {
        end_all(&mut self.held(), |it| it.key == session.key)
    }

    /// Ends those of tokens that are gone, and those whose time is over.
    pub fn sweep(&self, live: &HashSet<TokenId>, now: u64) -> Vec<AuthEdit> {
        let is_over = |it: &LiveSession| !live.contains(&it.token) || it.is_over(now);
        end_all(&mut self.held(), is_over)
    }
}

fn end_all(
    held: &mut HashMap<SessionKey, Arc<LiveSession>>,
    which: impl Fn(&LiveSession) -> bool,
) -> Vec<AuthEdit> {
    let gone = held.extract_if(|_, it| which(it));
    let end = |(key, session): (SessionKey, Arc<LiveSession>)| {
        session.end.end();
        AuthEdit::SessionGone(key)
    };
    gone.map(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000_000;
    const LIFE: u64 = SESSION_LIFE.as_millis() as u64;

    fn find(sessions: &Sessions, of: &SessionSecrets, now: u64) -> Option<Arc<LiveSession>> {
        sessions.find(&of.id, &of.page_key, now)
    }

    #[test]
    fn only_both_halves_together_are_a_session() {
        let (sessions, token) = (Sessions::default(), TokenId::random());
        let (one, _) = sessions.begin(token, NOW);
        let (other, _) = sessions.begin(token, NOW);
        assert_eq!(find(&sessions, &one, NOW).expect("it is one").token, token);
        for (id, page_key) in [
            (&*one.id, &*other.page_key),
            (&other.id, &one.page_key),
            (&one.page_key, &one.id),
            (&one.id, &one.id),
            (&one.id, ""),
            ("", &one.page_key),
            (&one.id[1..], &one.page_key),
            (&one.id.to_uppercase(), &one.page_key),
        ] {
            assert!(
                sessions.find(id, page_key, NOW).is_none(),
                "{id} {page_key}"
            );
        }
        assert_eq!(format!("{one:?}"), "(hidden)");
    }

    #[test]
    fn cookies_that_do_not_fit_do_not_keep_out_the_one_that_does() {
        let (sessions, token) = (Sessions::default(), TokenId::random());
        let (one, _) = sessions.begin(token, NOW);
        let (other, _) = sessions.begin(token, NOW);
        for ids in [
            format!("x {}", one.id),
            format!("{} {}", other.id, one.id),
            format!("{} {}", one.id, other.id),
        ] {
            let found = sessions.find(&ids, &one.page_key, NOW).expect("it is one");
            assert_eq!(found.key, hash_of(&one.id), "{ids}");
        }
        let neither = format!("{} x", other.id);
        assert!(sessions.find(&neither, &one.page_key, NOW).is_none());
    }

    #[test]
    fn the_store_has_hashes_and_from_them_the_sessions_come_back() {
        let (sessions, token) = (Sessions::default(), TokenId::random());
        let (secrets, edits) = sessions.begin(token, NOW);
        let [AuthEdit::Session(key, row)] = edits[..] else {
            panic!("{edits:?}");
        };
        assert_eq!(key, hash_of(&secrets.id));
        assert_eq!(row.page, hash_of(&secrets.page_key));
        let again = Sessions::default();
        again.load(vec![(key, row)]);
        assert_eq!(find(&again, &secrets, NOW).expect("it is one").token, token);
    }

    #[test]
    fn a_session_that_is_ended_has_ended_for_whoever_holds_it() {
        let sessions = Sessions::default();
        let (secrets, _) = sessions.begin(TokenId::random(), NOW);
        let (other, _) = sessions.begin(TokenId::random(), NOW);
        let held = find(&sessions, &secrets, NOW).expect("it is one");
        let edits = sessions.end(&held);
        assert_eq!(edits, [AuthEdit::SessionGone(hash_of(&secrets.id))]);
        assert!(held.end.is_over() && find(&sessions, &secrets, NOW).is_none());
        assert!(find(&sessions, &other, NOW).is_some());
        assert_eq!(sessions.end(&held), [], "once");
    }

    #[test]
    fn sessions_end_with_their_token_and_when_their_time_is_over() {
        let (sessions, token, gone) = (Sessions::default(), TokenId::random(), TokenId::random());
        let (of_gone, _) = sessions.begin(gone, NOW);
        let (old, _) = sessions.begin(token, NOW);
        let (newer, _) = sessions.begin(token, NOW + 1);
        let held = find(&sessions, &of_gone, NOW).expect("it is one");
        let live = HashSet::from([token]);
        let edits = sessions.sweep(&live, NOW + LIFE);
        assert_eq!(edits, [AuthEdit::SessionGone(hash_of(&of_gone.id))]);
        assert!(held.end.is_over());
        assert!(find(&sessions, &old, NOW + LIFE).is_some());
        assert!(find(&sessions, &old, NOW + LIFE + 1).is_none(), "at once");
        let edits = sessions.sweep(&live, NOW + LIFE + 1);
        assert_eq!(edits, [AuthEdit::SessionGone(hash_of(&old.id))]);
        assert!(find(&sessions, &newer, NOW + LIFE + 1).is_some());
        assert_eq!(sessions.sweep(&live, NOW + LIFE + 1), [], "once");
    }

    #[test]
    fn of_a_token_the_newest_sessions_are_kept() {
        let (sessions, token) = (Sessions::default(), TokenId::random());
        let (other, _) = sessions.begin(TokenId::random(), 0);
        let begun: Vec<_> = (0..MOST as u64)
            .map(|at| sessions.begin(token, NOW + at).0)
            .collect();
        let first = find(&sessions, &begun[0], NOW + 100).expect("it is one");
        let (_, edits) = sessions.begin(token, NOW + 101);
        assert_eq!(edits[..1], [AuthEdit::SessionGone(hash_of(&begun[0].id))]);
        assert!(edits.len() == 2 && first.end.is_over());
        for it in begun[1..].iter().chain([&other]) {
            assert!(find(&sessions, it, NOW + 101).is_some());
        }
    }
}
