//! From what a request carries to who asks.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::Scope;
use super::changed::{Changed, Ended};
use super::credential::Credential;
use super::judge::InForce;
use super::principal::{End, LiveToken, Principal, Refusal, Unknown};
use super::secret::{TokenHash, TokenId, TokenText};
use super::sessions::{SessionSecrets, Sessions};
use crate::clock::now_ms;
use crate::store::{AuthEdit, SessionKey, SessionRow};

/// Knows who may ask. Cheap to clone; all clones know the same.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    known: RwLock<Known>,
    /// Why the tokens file was not taken.
    problem: RwLock<Option<String>>,
    sessions: Sessions,
    /// Which process this is, in the form of a token's id.
    start: TokenId,
    /// How often it has changed who is let in.
    changes: watch::Sender<u64>,
}

/// A session that has just begun.
#[derive(Debug)]
pub struct LoggedIn {
    pub principal: Principal,
    pub secrets: SessionSecrets,
    pub edits: Vec<AuthEdit>,
}

#[derive(Debug)]
enum Known {
    Open(Arc<End>),
    Tokens(Vec<Arc<LiveToken>>),
}

impl Known {
    fn of(in_force: InForce) -> Self {
        match in_force {
            InForce::Open => Self::Open(Arc::default()),
            InForce::Tokens(tokens) => {
                let live = tokens.into_iter().map(LiveToken::new).map(Arc::new);
                Self::Tokens(live.collect())
            }
        }
    }

    fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    fn tokens(&self) -> &[Arc<LiveToken>] {
        match self {
            Self::Open(_) => &[],
            Self::Tokens(tokens) => tokens,
        }
    }

    /// What `now` does not go on with.
    fn ends(&self, now: &Self) -> Vec<Arc<End>> {
        match self {
            Self::Open(end) => vec![end.clone()],
            Self::Tokens(before) => {
                let kept: HashSet<_> = now.tokens().iter().map(Arc::as_ptr).collect();
                let gone = before.iter().filter(|it| !kept.contains(&Arc::as_ptr(it)));
                gone.map(|live| live.end.clone()).collect()
            }
        }
    }
}

impl Guard {
    pub fn new(in_force: InForce) -> Self {
        Self(Arc::new(Inner {
            known: RwLock::new(Known::of(in_force)),
            problem: RwLock::default(),
            sessions: Sessions::default(),
            start: TokenId::random(),
            changes: watch::Sender::new(0),
        }))
    }

    /// Another text whenever tokens or sessions are not what they were: made, ended, expired, with
    /// other rights; also after a restart.
    pub fn revision(&self) -> String {
        self.revision_of(*self.0.changes.borrow())
    }

    fn revision_of(&self, changes: u64) -> String {
        format!("{}-{changes}", self.0.start)
    }

    /// Waits until the revision is another one.
    pub async fn changed_from(&self, revision: &str) {
        let mut changes = self.0.changes.subscribe();
        // Whoever counts is not gone while we are here.
        let _ = changes
            .wait_for(|changes| self.revision_of(*changes) != revision)
            .await;
    }

    /// Who is let in has changed, and is in force.
    fn count_change(&self) {
        self.0.changes.send_modify(|changes| *changes += 1);
    }

    /// Counts it if a session has ended among what the store is to be told.
    fn count_ended(&self, edits: &[AuthEdit]) {
        if edits
            .iter()
            .any(|it| matches!(it, AuthEdit::SessionGone(_)))
        {
            self.count_change();
        }
    }

    fn known_to_change(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who asks with this credential. Without authentication it says nothing: it may be for a proxy
    /// in front.
    pub fn admit(&self, credential: Credential<'_>) -> Result<Principal, Refusal> {
        let refused = |why| Err(Refusal::Unauthorized(why));
        let known = self.known();
        let tokens = match &*known {
            Known::Open(end) => return Ok(Principal::anybody(end.clone())),
            Known::Tokens(tokens) => tokens,
        };
        let text = match credential {
            Credential::Token(text) => text,
            Credential::Session { id, page_key } => {
                return self
                    .of_session(tokens, id, page_key)
                    .map_err(Refusal::Unauthorized);
            }
            Credential::None => return refused(Unknown::NoToken),
        };
        let Some(text) = TokenText::parse(text) else {
            return refused(Unknown::Malformed);
        };
        let hash = TokenHash::of(&text);
        // With all of them, so that the time says nothing of which it is.
        let equal = |found: Option<Arc<LiveToken>>, live: &Arc<LiveToken>| {
            let is_it = live.token.hash == hash;
            if is_it { Some(live.clone()) } else { found }
        };
        let Some(live) = tokens.iter().fold(None, equal) else {
            return refused(Unknown::NotKnown);
        };
        match live.check(now_ms()) {
            Ok(()) => Ok(Principal::of_token(live)),
            Err(why) => refused(why),
        }
    }

    /// Who has the token with this id, if it is in force.
    pub fn principal_of(&self, id: TokenId) -> Option<Principal> {
        let known = self.known();
        let live = known.tokens().iter().find(|it| it.token.id == id)?;
        live.check(now_ms()).ok()?;
        Some(Principal::of_token(live.clone()))
    }

    fn of_session(
        &self,
        tokens: &[Arc<LiveToken>],
        id: &str,
        page_key: &str,
    ) -> Result<Principal, Unknown> {
        let now = now_ms();
        let session = self.0.sessions.find(id, page_key, now);
        let session = session.ok_or(Unknown::NoSession)?;
        let token = tokens.iter().find(|live| live.token.id == session.token);
        let token = token.ok_or(Unknown::NoSession)?;
        token.check(now)?;
        Ok(Principal::of_session(token.clone(), session))
    }

    /// Begins a session of the page for who sends this token. `None`: there is no authentication.
    /// The edits are to be written before it is answered.
    pub fn log_in(&self, token: &str) -> Result<Option<LoggedIn>, Refusal> {
        let principal = self.admit(Credential::Token(token))?;
        principal.require(Scope::Read)?;
        let begun = principal.token().map(|token| {
            let (secrets, edits) = self.0.sessions.begin(token.id, now_ms());
            self.count_ended(&edits);
            LoggedIn {
                principal: principal.clone(),
                secrets,
                edits,
            }
        });
        Ok(begun)
    }

    /// Ends the session that both halves fit, if there is one, wherever it is used. The edits are
    /// to be written before it is answered.
    pub fn log_out(&self, id: &str, page_key: &str) -> Vec<AuthEdit> {
        let sessions = &self.0.sessions;
        let found = sessions.find(id, page_key, now_ms());
        let edits = found.map_or_else(Vec::new, |session| sessions.end(&session));
        self.count_ended(&edits);
        edits
    }

    pub(super) fn load_sessions(&self, rows: Vec<(SessionKey, SessionRow)>) {
        self.0.sessions.load(rows);
    }

    /// Ends what is over of the sessions, and tells the store of that and of uses.
    pub(super) fn sweep_sessions(&self, now: u64) -> Vec<AuthEdit> {
        let known = self.known();
        match &*known {
            // They are of use again when authentication is on again, as the tokens are.
            Known::Open(_) => Vec::new(),
            Known::Tokens(tokens) => {
                let live = tokens.iter().map(|live| live.token.id).collect();
                let edits = self.0.sessions.sweep(&live, now);
                self.count_ended(&edits);
                edits
            }
        }
    }

    /// Whether every request needs a token.
    pub fn is_on(&self) -> bool {
        !self.known().is_open()
    }

    /// Those of the file; also those that have expired.
    pub fn tokens(&self) -> Vec<Arc<LiveToken>> {
        self.known().tokens().to_vec()
    }

    /// From now on these are in force. Whoever was let in by what is not any more has ended;
    /// a token that is the same as before goes on.
    pub fn put_in_force(&self, in_force: InForce) -> Changed {
        let (mut changed, ends, is_switched) = {
            let mut known = self.known_to_change();
            let mut new = match (in_force, &*known) {
                (InForce::Open, Known::Open(_)) => return Changed::default(),
                (in_force, _) => Known::of(in_force),
            };
            if let Known::Tokens(new) = &mut new {
                let same: HashMap<_, _> =
                    known.tokens().iter().map(|it| (it.token.id, it)).collect();
                for live in new {
                    let before = same.get(&live.token.id);
                    if let Some(before) = before.filter(|it| it.token == live.token) {
                        *live = Arc::clone(before);
                    }
                }
            }
            let before = std::mem::replace(&mut *known, new);
            // Without authentication they are not asked for, and neither made nor revoked.
            let changed = match &*known {
                Known::Open(_) => Changed::default(),
                Known::Tokens(now) => {
                    let before = before.tokens().iter().map(|it| &it.token);
                    Changed::between(before, now.iter().map(|it| &it.token))
                }
            };
            let is_switched = before.is_open() != known.is_open();
            (changed, before.ends(&known), is_switched)
        };
        // Without the lock, which every request takes.
        ends.iter().for_each(|end| changed.ended += end.end());
        if is_switched || !changed.is_none() {
            self.count_change();
        }
        changed
    }

    /// Why the tokens file is not taken as it is, while what was in force before stays.
    pub fn problem(&self) -> Option<String> {
        let problem = self.0.problem.read();
        problem.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_problem(&self, problem: Option<String>) {
        let held = self.0.problem.write();
        *held.unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Ends what has expired, and tells of it. A clock that was set back makes tokens good again
    /// that had expired by it. `now`: milliseconds since the Unix epoch.
    pub fn end_expired(&self, now: u64) -> Vec<(String, Ended)> {
        let is_over = |live: &LiveToken| live.end.is_over() && !live.token.has_expired(now);
        let (ends, again) = {
            let known = self.known();
            let tokens = known.tokens().iter();
            let due = tokens.filter(|it| it.token.has_expired(now) && !it.end.is_over());
            let ends: Vec<_> = due
                .map(|it| (it.token.name.clone(), it.end.clone()))
                .collect();
            (ends, known.tokens().iter().any(|live| is_over(live)))
        };
        if again && let Known::Tokens(tokens) = &mut *self.known_to_change() {
            for live in tokens.iter_mut().filter(|live| is_over(live)) {
                *live = Arc::new(LiveToken::new(live.token.clone()));
            }
        }
        let ended: Vec<_> = ends
            .into_iter()
            .map(|(name, end)| (name, end.end()))
            .collect();
        if again || !ended.is_empty() {
            self.count_change();
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::auth::tokens_file::{Token, TokensFile};
    use crate::auth::{Scope, Waits};

    fn tokens(names: &[(&str, Scope)]) -> (Vec<Token>, Vec<TokenText>) {
        let mut file = TokensFile::default();
        let texts = names.iter().map(|(name, scope)| {
            let text = TokenText::random();
            file.add(name, *scope, &text, None, now_ms()).expect("new");
            text
        });
        let texts = texts.collect();
        (file.tokens, texts)
    }

    fn why(refused: Result<Principal, Refusal>) -> Unknown {
        match refused {
            Err(Refusal::Unauthorized(why)) => why,
            other => panic!("{other:?} is no refusal of that kind"),
        }
    }

    #[test]
    fn without_tokens_anybody_may_do_everything_until_the_first_one_ends_that() {
        let guard = Guard::new(InForce::Open);
        let anybody = guard.admit(Credential::Token("whatever")).expect("open");
        assert!(anybody.may(Scope::Admin) && !anybody.has_ended());
        let mut ended = Box::pin(anybody.ended(Waits::Session));
        assert!(ended.as_mut().now_or_never().is_none());
        let (file, texts) = tokens(&[("a", Scope::Read)]);
        let changed = guard.put_in_force(InForce::Tokens(file));
        assert_eq!(
            (changed.made, changed.ended.sessions),
            (vec!["a".to_owned()], 1)
        );
        assert!(anybody.has_ended() && ended.now_or_never().is_some());
        let refused = anybody.require(Scope::Metrics);
        assert_eq!(refused, Err(Refusal::Unauthorized(Unknown::OpenEnded)));
        let reader = guard.admit(Credential::Token(texts[0].reveal()));
        assert!(reader.expect("it is known").may(Scope::Read));
    }

    #[test]
    fn who_is_not_known_is_told_why() {
        let guard = Guard::new(InForce::Open);
        let (mut file, texts) = tokens(&[("a", Scope::Admin), ("old", Scope::Admin)]);
        file[1].expires = Some(1);
        guard.put_in_force(InForce::Tokens(file));
        let admit = |text: &str| guard.admit(Credential::Token(text));
        assert_eq!(why(guard.admit(Credential::None)), Unknown::NoToken);
        assert_eq!(why(admit("")), Unknown::Malformed);
        assert_eq!(why(admit(&texts[0].reveal()[1..])), Unknown::Malformed);
        assert_eq!(why(admit(TokenText::random().reveal())), Unknown::NotKnown);
        assert_eq!(why(admit(texts[1].reveal())), Unknown::Expired);
        assert!(admit(texts[0].reveal()).is_ok());
        guard.put_in_force(InForce::Tokens(Vec::new()));
        assert_eq!(why(admit(texts[0].reveal())), Unknown::NotKnown);
    }

    #[test]
    fn a_token_may_what_its_scope_says() {
        let guard = Guard::new(InForce::Open);
        let scopes = Scope::ALL.map(|scope| (scope.name(), scope));
        let (file, texts) = tokens(&scopes);
        guard.put_in_force(InForce::Tokens(file));
        for (has, text) in Scope::ALL.into_iter().zip(&texts) {
            let principal = guard
                .admit(Credential::Token(text.reveal()))
                .expect("known");
            for needed in Scope::ALL {
                assert_eq!(principal.may(needed), needed <= has, "{has} {needed}");
            }
        }
        let refused = Principal::nobody().require(Scope::Metrics);
        assert_eq!(refused, Err(Refusal::Unauthorized(Unknown::NoToken)));
    }

    #[test]
    fn a_token_ends_when_it_is_revoked_changed_or_expires_and_others_go_on() {
        let guard = Guard::new(InForce::Open);
        let (mut file, texts) = tokens(&[
            ("stays", Scope::Read),
            ("revoked", Scope::Read),
            ("changed", Scope::Read),
            ("expires", Scope::Read),
        ]);
        file[3].expires = Some(now_ms() / 1000 + 1000);
        guard.put_in_force(InForce::Tokens(file.clone()));
        let principals: Vec<_> = texts
            .iter()
            .map(|text| {
                guard
                    .admit(Credential::Token(text.reveal()))
                    .expect("known")
            })
            .collect();
        file.remove(1);
        file[1].scope = Scope::Metrics;
        guard.put_in_force(InForce::Tokens(file));
        let ended = |principals: &[Principal]| -> Vec<bool> {
            principals.iter().map(Principal::has_ended).collect()
        };
        assert_eq!(ended(&principals), [false, true, true, false]);
        assert_eq!(
            principals[1].require(Scope::Read),
            Err(Refusal::Unauthorized(Unknown::Ended))
        );
        let soon = now_ms() + 1_001_000;
        let waits = principals[3].ended(Waits::Request);
        let over = Ended {
            sessions: 0,
            requests: 1,
        };
        assert_eq!(guard.end_expired(soon), [("expires".to_owned(), over)]);
        assert_eq!(guard.end_expired(soon), [], "once");
        drop(waits);
        assert_eq!(ended(&principals), [false, true, true, true]);
        guard.put_in_force(InForce::Open);
        assert_eq!(ended(&principals), [true; 4]);
    }

    #[test]
    fn a_clock_that_was_wrong_for_a_moment_ends_no_token_for_good() {
        let (mut file, texts) = tokens(&[("a", Scope::Read)]);
        let expires = now_ms() / 1000 + 1000;
        file[0].expires = Some(expires);
        let guard = Guard::new(InForce::Tokens(file));
        let admit = || guard.admit(Credential::Token(texts[0].reveal()));
        let before = admit().expect("it is good");
        guard.end_expired(expires * 1000);
        assert!(before.has_ended());
        assert_eq!(guard.end_expired(now_ms()), []);
        assert!(before.has_ended() && admit().is_ok());
    }

    #[test]
    fn the_revision_is_another_one_when_who_is_let_in_is_not_the_same() {
        let guard = Guard::new(InForce::Open);
        let mut known = guard.revision();
        let mut changed = |guard: &Guard| {
            let is = guard.revision() != known;
            known = guard.revision();
            is
        };
        assert!(Guard::new(InForce::Open).revision() != guard.revision());
        let put = |tokens: &[Token]| guard.put_in_force(InForce::Tokens(tokens.to_vec()));
        guard.put_in_force(InForce::Open);
        assert!(!changed(&guard));
        put(&[]);
        assert!(changed(&guard), "it is switched on");
        let (mut all, _) = tokens(&[("a", Scope::Read), ("b", Scope::Read)]);
        all[1].expires = Some(now_ms() / 1000 + 60);
        for _ in 0..2 {
            put(&all);
            assert!(changed(&guard));
            put(&all);
            assert!(!changed(&guard), "the same file");
            all[0].scope = Scope::Watch;
        }
        let late = now_ms() + 120_000;
        for (now, is_change) in [(now_ms(), false), (late, true), (late, false)] {
            guard.end_expired(now);
            assert_eq!(changed(&guard), is_change);
        }
        guard.end_expired(now_ms());
        assert!(changed(&guard), "the clock was set back");
        let before = guard.revision();
        assert!(guard.changed_from(&before).now_or_never().is_none());
        put(&all[..1]);
        assert!(changed(&guard) && guard.changed_from(&before).now_or_never().is_some());
        guard.put_in_force(InForce::Open);
        assert!(changed(&guard), "it is switched off");
    }
}
