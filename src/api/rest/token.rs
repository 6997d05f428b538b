//! `GET /token`: who asks, and what they may do.

use super::respond::{self, Answer};
use crate::auth::{Principal, Scope};
use crate::wire::json::object;

pub fn token(principal: &Principal) -> Answer {
    let token = principal.token();
    let scopes = Scope::ALL.into_iter().filter(|it| principal.may(*it));
    let scopes: Vec<&str> = scopes.map(Scope::name).collect();
    respond::ok(&object! {
        // Without authentication everybody may do everything.
        authentication: token.is_some(),
        id: token.map(|it| it.id.to_string()),
        name: token.map(|it| it.name.clone()),
        scopes,
        created: token.map(|it| it.created),
        expires: token.and_then(|it| it.expires),
    })
}
