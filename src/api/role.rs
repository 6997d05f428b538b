//! What stands behind the routes, here and on an edge, as the router needs it.

use std::sync::Arc;

use super::Services;
use super::access::Access;
use super::edge::services::EdgeServices;
use super::rest::events::EventQueries;
use super::rest::sent::Intake;
use super::session::SessionCookie;
use super::socket::Backend;

pub enum Role {
    /// This daemon's store and node.
    Own(Arc<Services>),
    /// The log on Redis, and a primary to which the rest is passed on.
    Edge(Arc<EdgeServices>),
}

impl Role {
    pub fn access(&self) -> &Arc<Access> {
        &self.intake().access
    }

    pub fn intake(&self) -> &Intake {
        match self {
            Self::Own(services) => &services.intake,
            Self::Edge(edge) => &edge.intake,
        }
    }

    pub fn events(&self) -> &EventQueries {
        match self {
            Self::Own(services) => &services.events,
            Self::Edge(edge) => &edge.events,
        }
    }

    pub fn cookie(&self) -> SessionCookie {
        match self {
            Self::Own(services) => services.sessions.cookie.clone(),
            Self::Edge(edge) => edge.cookie(),
        }
    }

    /// Who lets clients in.
    pub fn backend(&self) -> &dyn Backend {
        match self {
            Self::Own(services) => &*services.backend,
            Self::Edge(edge) => &*edge.backend,
        }
    }
}
