//! `GET /token`: who asks, and what they may do.

use schemars::JsonSchema;
use serde::Serialize;

use super::respond::{self, Reply};
use crate::auth::{Principal, Scope};

/// Who asks, and what they may do.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Token")]
pub struct TokenShape {
    /// Without authentication everybody may do everything.
    authentication: bool,
    id: Option<String>,
    name: Option<String>,
    scopes: Vec<Scope>,
    /// Seconds since the Unix epoch.
    created: Option<u64>,
    /// Seconds since the Unix epoch.
    expires: Option<u64>,
}

pub fn token(principal: &Principal) -> Reply<TokenShape> {
    let token = principal.token();
    let scopes = Scope::ALL.into_iter().filter(|it| principal.may(*it));
    respond::ok(&TokenShape {
        authentication: token.is_some(),
        id: token.map(|it| it.id.to_string()),
        name: token.map(|it| it.name.clone()),
        scopes: scopes.collect(),
        created: token.map(|it| it.created),
        expires: token.and_then(|it| it.expires),
    })
}
