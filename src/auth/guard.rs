//! From what a request carries to who asks.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::Scope;
use super::credential::Credential;
use super::judge::InForce;
use super::principal::{End, LiveToken, Principal, Refusal, Unknown};
use super::secret::{TokenHash, TokenText};
use super::sessions::{SessionSecrets, Sessions};
use crate::clock::now_ms;
use crate::store::{AuthEdit, SessionKey, SessionRow};

/// Knows who may ask. Cheap to clone; all clones know the same.
#[derive(Debug, Clone, Default)]
pub struct Guard(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: RwLock<Known>,
    /// Why the tokens file was not taken.
    problem: RwLock<Option<String>>,
    sessions: Sessions,
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

impl Default for Known {
    fn default() -> Self {
        Self::Open(Arc::default())
    }
}

impl Guard {
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
        found.map_or_else(Vec::new, |session| sessions.end(&session))
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
            Known::Tokens(tokens) => self
                .0
                .sessions
                .sweep(|id| tokens.iter().any(|live| live.token.id == id), now),
        }
    }

    /// Whether every request needs a token.
    pub fn is_on(&self) -> bool {
        matches!(&*self.known(), Known::Tokens(_))
    }

    pub fn tokens(&self) -> Vec<Arc<LiveToken>> {
        match &*self.known() {
            Known::Open(_) => Vec::new(),
            Known::Tokens(tokens) => tokens.clone(),
        }
    }

    /// From now on these are in force. Whoever was let in by what is not any more has ended;
    /// a token that is the same as before goes on.
    pub fn put_in_force(&self, in_force: InForce) {
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        let new = match (in_force, &*known) {
            (InForce::Open, Known::Open(_)) => return,
            (InForce::Open, Known::Tokens(_)) => Known::default(),
            (InForce::Tokens(tokens), Known::Open(_)) => {
                let live = tokens.into_iter().map(LiveToken::new).map(Arc::new);
                Known::Tokens(live.collect())
            }
            (InForce::Tokens(tokens), Known::Tokens(before)) => {
                let live = tokens.into_iter().map(|token| {
                    let same = before.iter().find(|live| live.token == token);
                    same.cloned()
                        .unwrap_or_else(|| Arc::new(LiveToken::new(token)))
                });
                Known::Tokens(live.collect())
            }
        };
        let before = std::mem::replace(&mut *known, new);
        match (before, &*known) {
            (Known::Open(end), _) => end.end(),
            (Known::Tokens(before), Known::Tokens(now)) => {
                let is_gone = |live: &&Arc<LiveToken>| !now.iter().any(|it| Arc::ptr_eq(it, live));
                before.iter().filter(is_gone).for_each(|live| live.end());
            }
            (Known::Tokens(before), Known::Open(_)) => before.iter().for_each(|live| live.end()),
        }
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

    /// Ends what is due. `now`: milliseconds since the Unix epoch.
    pub fn end_expired(&self, now: u64) {
        if let Known::Tokens(tokens) = &*self.known() {
            let expired = tokens.iter().filter(|live| live.token.has_expired(now));
            expired.for_each(|live| live.end());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::auth::Scope;
    use crate::auth::tokens_file::{Token, TokensFile};

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
        let guard = Guard::default();
        let anybody = guard.admit(Credential::Token("whatever")).expect("open");
        assert!(anybody.may(Scope::Admin) && !anybody.has_ended());
        let mut ended = Box::pin(anybody.ended());
        assert!(ended.as_mut().now_or_never().is_none());
        let (file, texts) = tokens(&[("a", Scope::Read)]);
        guard.put_in_force(InForce::Tokens(file));
        assert!(anybody.has_ended() && ended.now_or_never().is_some());
        let refused = anybody.require(Scope::Metrics);
        assert_eq!(refused, Err(Refusal::Unauthorized(Unknown::OpenEnded)));
        let reader = guard.admit(Credential::Token(texts[0].reveal()));
        assert!(reader.expect("it is known").may(Scope::Read));
    }

    #[test]
    fn who_is_not_known_is_told_why() {
        let guard = Guard::default();
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
        let guard = Guard::default();
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
        let guard = Guard::default();
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
        guard.end_expired(soon);
        assert_eq!(ended(&principals), [false, true, true, true]);
        guard.put_in_force(InForce::Open);
        assert_eq!(ended(&principals), [true; 4]);
    }
}
