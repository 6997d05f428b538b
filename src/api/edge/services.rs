//! What the routes of an edge answer with.

use std::time::Instant;

use bitcoin::Network;
use tokio::sync::watch;

use crate::api::rest::events::EventQueries;
use crate::api::rest::sent::Intake;
use crate::api::session::SessionCookie;
use crate::bus::stream::StreamStatus;
use crate::primary::{Admission, EdgeState, PrimaryClient};
use crate::wire::ApiError;

/// One for all routes.
pub struct EdgeServices {
    pub intake: Intake,
    pub admission: Admission,
    pub events: EventQueries,
    pub client: PrimaryClient,
    pub primary: watch::Receiver<EdgeState>,
    pub stream: watch::Receiver<StreamStatus>,
    pub network: Network,
    pub started: Instant,
}

impl EdgeServices {
    pub fn cookie(&self) -> SessionCookie {
        SessionCookie::named(&self.primary.borrow().cookie)
    }
}

/// What an edge has not.
pub fn at_primary() -> ApiError {
    let message = "This is an edge: consumers are read at its primary. Ask that one, or follow addresses here.";
    ApiError::bad_request("at_primary", message)
}
