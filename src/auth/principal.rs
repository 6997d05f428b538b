//! Who asks.

use super::Scope;

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody known asks.
    #[error("{0}")]
    Unauthorized(&'static str),
    #[error("This needs a token of scope {needed}; yours has {scope}.")]
    Forbidden { needed: Scope, scope: Scope },
}

const NO_TOKEN: &str = "This daemon wants a token: send the header Authorization: Bearer <token> or, over Socket.IO, auth {\"token\": \"<token>\"}; satwatch token new makes one.";

/// Who asks, for as long as their token lives.
#[derive(Debug, Clone)]
pub struct Principal {
    /// `None` of somebody unknown.
    scope: Option<Scope>,
}

impl Principal {
    /// Anybody, while there is no authentication.
    pub(super) fn anybody() -> Self {
        Self {
            scope: Some(Scope::Admin),
        }
    }

    /// Who asks for what is open, known or not.
    pub fn nobody() -> Self {
        Self { scope: None }
    }

    pub fn may(&self, needed: Scope) -> bool {
        self.require(needed).is_ok()
    }

    /// Whether they may do what needs `needed`.
    pub fn require(&self, needed: Scope) -> Result<(), Refusal> {
        match self.scope {
            None => Err(Refusal::Unauthorized(NO_TOKEN)),
            Some(scope) if scope.allows(needed) => Ok(()),
            Some(scope) => Err(Refusal::Forbidden { needed, scope }),
        }
    }
}
