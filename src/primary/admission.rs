//! Who may ask an edge: whom the primary lets in.
//!
//! A token's text is asked about while it is not known, and then kept as a hash; what the primary
//! says of its tokens later only takes away. A session of the page is asked about each time, and
//! ends here with every change of the tokens or of the sessions: its page comes back and is asked
//! about again.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::Mutex;

use super::client::{PrimaryClient, Request};
use super::state::{EdgeState, EdgeToken};
use crate::auth::{
    Credential, Guard, InForce, KeptCredential, Principal, Refusal, Scope, Token, TokenHash,
    TokenId, TokenText, Unknown,
};
use crate::wire::ApiError;

/// How often it is asked again because the tokens change meanwhile.
const TRIES: u32 = 3;

/// Who was let in, and what they showed, for what is asked in their name.
pub type Admitted = (Principal, Option<Arc<KeptCredential>>);

/// Cheap to clone; all clones know the same.
#[derive(Clone)]
pub struct Admission(Arc<Inner>);

struct Inner {
    client: PrimaryClient,
    /// By the text of a token, or without authentication.
    texts: Guard,
    /// By a session of the page.
    pages: Guard,
    learned: Mutex<Learned>,
}

/// Changed under the lock with what is in force.
struct Learned {
    revision: String,
    is_open: bool,
    cookie: String,
    live: Vec<EdgeToken>,
    texts: Vec<Token>,
    pages: Vec<Token>,
}

/// `GET /token`
#[derive(Deserialize)]
struct Verdict {
    id: Option<String>,
    name: Option<String>,
    scopes: Vec<String>,
    created: Option<u64>,
    expires: Option<u64>,
}

impl Verdict {
    /// `hash`: of the text, if it was one. `None`: the primary asks nobody any more.
    fn token(self, hash: TokenHash) -> Option<Token> {
        let may = |scope: &Scope| self.scopes.iter().any(|it| it == scope.name());
        Some(Token {
            id: TokenId::parse(&self.id?)?,
            name: self.name.unwrap_or_default(),
            scope: Scope::ALL.into_iter().filter(may).max()?,
            hash,
            created: self.created.unwrap_or_default(),
            expires: self.expires,
        })
    }
}

impl Learned {
    fn of(primary: &EdgeState) -> Self {
        Self {
            revision: primary.revision.clone(),
            is_open: !primary.authentication,
            cookie: primary.cookie.clone(),
            live: primary.tokens.clone(),
            texts: Vec::new(),
            pages: Vec::new(),
        }
    }

    fn is_live(&self, token: &Token) -> bool {
        let (id, scope) = (token.id.to_string(), token.scope);
        let mut live = self.live.iter();
        live.any(|it| it.id == id && it.scope == scope && it.expires == token.expires)
    }

    fn in_force(&self, tokens: &[Token]) -> InForce {
        match self.is_open {
            true => InForce::Open,
            false => InForce::Tokens(tokens.to_vec()),
        }
    }
}

impl Admission {
    pub fn new(client: PrimaryClient, primary: &EdgeState) -> Self {
        let learned = Learned::of(primary);
        let guard = || Guard::new(learned.in_force(&[]));
        Self(Arc::new(Inner {
            client,
            texts: guard(),
            pages: guard(),
            learned: Mutex::new(learned),
        }))
    }

    /// Whether every request needs a token.
    pub fn is_on(&self) -> bool {
        self.0.texts.is_on()
    }

    /// Who asks with this credential. `client`: from where. `may_ask`: counts a question to the
    /// primary, or refuses it.
    pub async fn admit(
        &self,
        credential: Credential<'_>,
        client: IpAddr,
        may_ask: impl FnOnce() -> Result<(), ApiError>,
    ) -> Result<Admitted, ApiError> {
        let shown = KeptCredential::of(credential).map(Arc::new);
        match self.0.texts.admit(credential) {
            Ok(principal) => Ok((principal, shown)),
            Err(Refusal::Unauthorized(Unknown::NotKnown | Unknown::NoSession)) => {
                let Some(shown) = shown else {
                    return Err(Refusal::Unauthorized(Unknown::NoToken).into());
                };
                may_ask()?;
                let principal = self.learn(credential, &shown, client).await?;
                Ok((principal, Some(shown)))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Asks the primary, and keeps what it says.
    async fn learn(
        &self,
        credential: Credential<'_>,
        shown: &KeptCredential,
        client: IpAddr,
    ) -> Result<Principal, ApiError> {
        for _ in 0..TRIES {
            let (revision, cookie) = {
                let learned = self.0.learned.lock().await;
                // Somebody else with the same token has asked meanwhile.
                if let Ok(principal) = self.0.texts.admit(credential) {
                    return Ok(principal);
                }
                (learned.revision.clone(), learned.cookie.clone())
            };
            let request = Request::get("/token").shown_by(shown, &cookie);
            let verdict: Verdict = self.0.client.ask(request.on_behalf_of(client)).await?;
            let mut learned = self.0.learned.lock().await;
            // What ended meanwhile is not put in force again.
            if learned.revision == revision
                && let Some(principal) = self.keep(&mut learned, credential, verdict)
            {
                return Ok(principal);
            }
        }
        let message = "The tokens of the primary are changing; try again in a moment.";
        Err(ApiError::unavailable("primary_unavailable", message))
    }

    /// Puts in force what the primary has let in; `None`: it asks nobody any more.
    fn keep(
        &self,
        learned: &mut Learned,
        credential: Credential<'_>,
        verdict: Verdict,
    ) -> Option<Principal> {
        let text = match credential {
            Credential::Token(text) => TokenText::parse(text),
            _ => None,
        };
        let is_text = text.is_some();
        // That of a session is no text's.
        let hash = TokenHash::of(&text.unwrap_or_else(TokenText::random));
        let token = verdict.token(hash)?;
        let (guard, kept) = match is_text {
            true => (&self.0.texts, &mut learned.texts),
            false => (&self.0.pages, &mut learned.pages),
        };
        let known = kept.iter().find(|it| it.id == token.id);
        // Of sessions one entry stands for all of a token.
        let is_known = known.is_some_and(|it| !is_text || it.hash == token.hash);
        if !is_known {
            kept.retain(|it| it.id != token.id);
            kept.push(token.clone());
            let tokens = kept.clone();
            guard.put_in_force(learned.in_force(&tokens));
        }
        guard.principal_of(token.id)
    }

    /// What the primary has in force now: takes away what was learned and is not in it.
    pub async fn put_in_force(&self, primary: &EdgeState) {
        let mut learned = self.0.learned.lock().await;
        let mut now = Learned::of(primary);
        let before = std::mem::take(&mut learned.texts);
        now.texts = before.into_iter().filter(|it| now.is_live(it)).collect();
        *learned = now;
        let texts = self.0.texts.put_in_force(learned.in_force(&learned.texts));
        let pages = self.0.pages.put_in_force(learned.in_force(&[]));
        let mut ended = texts.ended;
        ended += pages.ended;
        match ended.sessions + ended.requests {
            // Also a restart of the primary comes here.
            0 => tracing::debug!("the tokens of the primary are read"),
            _ => tracing::info!("the tokens of the primary have changed: {ended}"),
        }
    }

    /// `now`: milliseconds since the Unix epoch.
    pub fn end_expired(&self, now: u64) {
        self.0.texts.end_expired(now);
        self.0.pages.end_expired(now);
    }
}
