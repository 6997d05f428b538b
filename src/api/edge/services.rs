//! What the routes of an edge answer with.

use std::sync::Arc;
use std::time::Instant;

use bitcoin::Network;
use tokio::sync::watch;

use super::backend::EdgeBackend;
use crate::api::rest::events::EventQueries;
use crate::api::rest::sent::Intake;
use crate::api::session::SessionCookie;
use crate::bus::BusStatus;

/// One for all routes.
pub struct EdgeServices {
    pub intake: Intake,
    pub backend: Arc<EdgeBackend>,
    pub events: EventQueries,
    pub stream: watch::Receiver<BusStatus>,
    pub network: Network,
    pub started: Instant,
}

impl EdgeServices {
    pub fn cookie(&self) -> SessionCookie {
        SessionCookie::named(&self.backend.primary.borrow().cookie)
    }
}
