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
//! - A session ends with its token, when it is ended by its person, and after [`UNUSED`]; of a
//!   token the [`MOST`] that were used last are kept.
//! - What changes here is returned as edits of the store, for the caller to write.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::DisplayHex;
use subtle::ConstantTimeEq;

use super::principal::End;
use super::secret::TokenId;
use crate::store::{AuthEdit, SessionKey, SessionRow};

/// Milliseconds after which a session that is not used ends: 30 days.
const UNUSED: u64 = 30 * 24 * 3_600_000;
/// Sessions of one token.
const MOST: usize = 32;
/// Milliseconds between two writes of when a session was used last.
const USES: u64 = 3_600_000;

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
    used: AtomicU64,
    /// As the store has it.
    written: AtomicU64,
}

impl LiveSession {
    fn new(key: SessionKey, row: SessionRow) -> Self {
        Self {
            key,
            page: row.page,
            token: TokenId(row.token),
            end: End::default(),
            used: row.used.into(),
            written: row.used.into(),
        }
    }

    fn row(&self, used: u64) -> SessionRow {
        SessionRow {
            token: self.token.0,
            page: self.page,
            used,
        }
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn is_stale(&self, now: u64) -> bool {
        now.saturating_sub(self.used()) > UNUSED
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
            used: now,
        };
        let mut held = self.held();
        let mut same: Vec<_> = held.values().filter(|it| it.token == token).collect();
        same.sort_by_key(|it| std::cmp::Reverse(it.used()));
        let least: Vec<_> = same.iter().skip(MOST - 1).map(|it| it.key).collect();
        let mut edits = end_all(&mut held, |it| least.contains(&it.key) || it.is_stale(now));
        held.insert(key, Arc::new(LiveSession::new(key, row)));
        edits.push(AuthEdit::Session(key, row));
        (secrets, edits)
    }

    /// The one that both halves fit. Asking counts as a use.
    pub fn find(&self, id: &str, page_key: &str, now: u64) -> Option<Arc<LiveSession>> {
        let found = self.held().get(&hash_of(id)).cloned()?;
        let fits: bool = found.page.ct_eq(&hash_of(page_key)).into();
        if !fits || found.is_stale(now) {
            return None;
        }
        found.used.fetch_max(now, Ordering::Relaxed);
        Some(found)
    }

    /// Ends one, wherever it is used.
    pub fn end(&self, session: &LiveSession) -> Vec<AuthEdit> {
        end_all(&mut self.held(), |it| it.key == session.key)
    }

    /// Ends those of tokens that are gone, and those that nobody uses any more, and tells when the
    /// others were used.
    pub fn sweep(&self, live: &HashSet<TokenId>, now: u64) -> Vec<AuthEdit> {
        let mut held = self.held();
        let is_over = |it: &LiveSession| !live.contains(&it.token) || it.is_stale(now);
        let mut edits = end_all(&mut held, is_over);
        for session in held.values() {
            let (used, written) = (session.used(), session.written.load(Ordering::Relaxed));
            if used.saturating_sub(written) >= USES {
                session.written.store(used, Ordering::Relaxed);
                edits.push(AuthEdit::Session(session.key, session.row(used)));
            }
        }
        edits
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
    fn sessions_end_with_their_token_and_when_nobody_uses_them() {
        let (sessions, token, gone) = (Sessions::default(), TokenId::random(), TokenId::random());
        let (of_gone, _) = sessions.begin(gone, NOW);
        let (used, _) = sessions.begin(token, NOW);
        let (unused, _) = sessions.begin(token, NOW);
        let held = find(&sessions, &of_gone, NOW).expect("it is one");
        let live = HashSet::from([token]);
        let edits = sessions.sweep(&live, NOW + 1);
        assert_eq!(edits, [AuthEdit::SessionGone(hash_of(&of_gone.id))]);
        assert!(held.end.is_over());
        assert!(find(&sessions, &used, NOW + UNUSED).is_some());
        assert!(
            find(&sessions, &unused, NOW + UNUSED + 1).is_none(),
            "at once"
        );
        let edits = sessions.sweep(&live, NOW + UNUSED + 1);
        let row = SessionRow {
            token: token.0,
            page: hash_of(&used.page_key),
            used: NOW + UNUSED,
        };
        assert_eq!(
            edits,
            [
                AuthEdit::SessionGone(hash_of(&unused.id)),
                AuthEdit::Session(hash_of(&used.id), row)
            ]
        );
        assert_eq!(sessions.sweep(&live, NOW + UNUSED + 1), [], "once");
    }

    #[test]
    fn uses_are_written_seldom() {
        let (sessions, token) = (Sessions::default(), TokenId::random());
        let (secrets, _) = sessions.begin(token, NOW);
        for (after, written) in [
            (0, 0),
            (USES - 1, 0),
            (USES, 1),
            (USES + 1, 0),
            (2 * USES, 1),
        ] {
            assert!(find(&sessions, &secrets, NOW + after).is_some());
            let edits = sessions.sweep(&HashSet::from([token]), NOW + after);
            assert_eq!(edits.len(), written, "{after}");
        }
    }

    #[test]
    fn a_token_has_the_sessions_that_were_used_last() {
        let (sessions, token) = (Sessions::default(), TokenId::random());
        let (other, _) = sessions.begin(TokenId::random(), 0);
        let begun: Vec<_> = (0..MOST as u64)
            .map(|at| sessions.begin(token, NOW + at).0)
            .collect();
        // The first one is used, so it is the second that is in the way.
        assert!(find(&sessions, &begun[0], NOW + 100).is_some());
        let second = find(&sessions, &begun[1], 0).expect("it is one");
        let (_, edits) = sessions.begin(token, NOW + 101);
        assert_eq!(edits[..1], [AuthEdit::SessionGone(hash_of(&begun[1].id))]);
        assert!(edits.len() == 2 && second.end.is_over());
        for it in begun[2..].iter().chain([&begun[0], &other]) {
            assert!(find(&sessions, it, NOW + 101).is_some());
        }
    }
}
