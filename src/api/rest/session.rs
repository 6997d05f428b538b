//! `/session`: the page logs in with a token, and out.

use hyper::header::SET_COOKIE;
use hyper::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::respond::{self, Reply};
use crate::api::session::{self, Asking, SessionCookie};
use crate::auth::{Credential, Guard, LoggedIn, Principal, Scope};
use crate::indexer;
use crate::wire::error::ApiError;
use crate::wire::request::Request;

/// The body of `POST /session`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogIn {
    token: String,
}

impl Request for LogIn {
    const EXAMPLE: &'static str = "{\"token\": \"sw_…\"}";
}

/// A session of the page, whose other half is a cookie.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Session")]
pub struct SessionShape {
    /// Of the token.
    name: Option<String>,
    scope: Option<Scope>,
    /// Seconds since the Unix epoch.
    expires: Option<u64>,
    /// To be sent with each request, as the header `Satwatch-Page`.
    page_key: String,
}

/// There is no session any more.
#[derive(Serialize, JsonSchema)]
pub struct LoggedOut {
    success: bool,
}

/// What a request says of the page and its session besides its body.
pub struct FromPage {
    /// Another page asks.
    foreign: bool,
    /// The cookie is to be sent over TLS only.
    secure: bool,
    /// Id and key of the page.
    halves: Option<(String, String)>,
}

impl FromPage {
    pub fn read(asking: Option<Asking>, headers: &HeaderMap) -> Self {
        let halves = match session::credential(headers) {
            Some(Credential::Session { id, page_key }) => {
                Some((id.to_owned(), page_key.to_owned()))
            }
            _ => None,
        };
        Self {
            foreign: asking.is_none_or(|it| it.foreign),
            secure: asking.is_some_and(|it| it.secure),
            halves,
        }
    }
}

/// Goes with the answer to the router, for the access log: who began or ended a session.
#[derive(Clone)]
pub struct LoggedInOrOut(pub Principal);

/// Begins and ends sessions.
pub struct PageSessions {
    pub auth: Guard,
    pub indexer: indexer::Handle,
    pub cookie: SessionCookie,
}

/// Another page wants to log in.
pub fn not_of_our_page() -> ApiError {
    let message = "Only the daemon's own page, and pages of origins that server.allowed_origins names, may log in.";
    ApiError::new(StatusCode::FORBIDDEN, "origin_not_allowed", message)
}

/// `POST /session`. `count`: counts what it costs.
pub async fn log_in(
    sessions: &PageSessions,
    page: &FromPage,
    asked: LogIn,
    count: impl FnOnce(&Principal) -> Result<(), ApiError>,
) -> Result<Reply<SessionShape>, ApiError> {
    if page.foreign {
        return Err(not_of_our_page());
    }
    // It is written down for the token, whose own limit that is: wrong ones of others keep it from
    // nothing.
    let principal = sessions.auth.admit(Credential::Token(&asked.token))?;
    if principal.token().is_some() {
        count(&principal)?;
    }
    let Some(logged_in) = sessions.auth.log_in(&asked.token)? else {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "authentication_off",
            "This daemon has no tokens: everything is open, and nobody needs to log in.",
        ));
    };
    let LoggedIn {
        principal,
        secrets,
        edits,
    } = logged_in;
    // Whom a power failure has forgotten logs in again.
    let written = sessions.indexer.edit_auth(edits, false).await;
    written.map_err(|_| ApiError::stopping())?;
    let token = principal.token();
    let mut reply = respond::ok(&SessionShape {
        name: token.map(|it| it.name.clone()),
        scope: token.map(|it| it.scope),
        expires: token.and_then(|it| it.expires),
        page_key: secrets.page_key,
    });
    let cookie = sessions.cookie.set(&secrets.id, page.secure);
    reply.headers_mut().insert(SET_COOKIE, cookie);
    let extensions = reply.answer.extensions_mut();
    extensions.insert(LoggedInOrOut(principal));
    Ok(reply)
}

/// `DELETE /session`. Whoever has no session is out already.
pub async fn log_out(
    sessions: &PageSessions,
    page: &FromPage,
) -> Result<Reply<LoggedOut>, ApiError> {
    let mut reply = respond::ok(&LoggedOut { success: true });
    if let Some((id, page_key)) = &page.halves {
        let credential = Credential::Session { id, page_key };
        let principal = sessions.auth.admit(credential);
        let edits = sessions.auth.log_out(id, page_key);
        if !edits.is_empty() {
            let written = sessions.indexer.edit_auth(edits, true).await;
            written.map_err(|_| ApiError::stopping())?;
            let principal = principal.unwrap_or_else(|_| Principal::nobody());
            let extensions = reply.answer.extensions_mut();
            extensions.insert(LoggedInOrOut(principal));
        }
        let cookie = sessions.cookie.taken_back();
        reply.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(reply)
}
