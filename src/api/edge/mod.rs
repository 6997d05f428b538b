//! What clients of an edge (`satwatch edge`) talk to: the same routes and events as at its primary.
//!
//! # Laws
//!
//! 1. The log is the edge's own (`crate::bus::stream`): `GET /events`, `GET /events/stream` and
//!    what Socket.IO clients are told come from it, also while the primary is away.
//! 2. Everything that needs the store is asked of the primary with what the client showed: a
//!    subscription with one request ([`backend`]), a cursor or a name that is not known to be good
//!    here by reading one event there ([`judge`]), every other route as it came ([`pass`]).
//! 3. A place that the primary names counts once the stream says that it is of its log
//!    ([`PlacesTold`]). It may be beyond the stream's end: what a subscription begins with waits
//!    until the stream is there (`crate::events`, rule 2).
//! 4. Consumers are read at the primary, and so is the progress of scans: an edge says so.
//! 5. An edge has no state: whoever comes back to another one goes on there with the same cursor.
//!
//! ```text
//! router ─► pass     a route of the primary ─► PrimaryClient::pass
//!        ─► own      events, health, metrics
//!        ─► socket ─► backend ─► POST /edge/subscription
//! ```

mod backend;
mod judge;
mod local_routes;
mod pass;
pub mod services;

use std::sync::Arc;
use std::time::Instant;

use hyper::header::{AUTHORIZATION, COOKIE};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::browser::OriginPolicy;
use super::rest::budget::Budget;
use super::rest::events::EventQueries;
use super::rest::sent::Intake;
use super::role::Role;
use super::router::Router;
use super::socket::{Parsing, SocketApi, SocketServices, Subscriptions};
use super::{DispatchTask, Listening};
use crate::bus::BusStatus;
use crate::bus::stream::PlacesTold;
use crate::config::{Config, Limits};
use crate::events::{self, Dispatch, EventLog};
use crate::limits::Places;
use crate::primary::{Admission, Heard, PrimaryClient};
use crate::reads::Threads;
use crate::socketio;
use backend::EdgeBackend;
use services::EdgeServices;

/// What an edge stands on.
pub struct EdgeParts {
    pub log: Arc<EventLog>,
    pub client: PrimaryClient,
    pub admission: Admission,
    pub primary: watch::Receiver<Heard>,
    pub stream: watch::Receiver<BusStatus>,
    pub places: PlacesTold,
    pub config: Arc<Config>,
    pub limits: watch::Receiver<Limits>,
    pub listening: Listening,
    pub socketio: socketio::Config,
    pub stop: CancellationToken,
}

/// Starts dispatch and builds the router of an edge. Dispatch ends when `stop` says so.
pub fn start_edge(parts: EdgeParts) -> (Arc<Router>, events::Handle, DispatchTask) {
    let EdgeParts { log, limits, .. } = parts;
    let mut socketio_config = parts.socketio;
    // Older clients have no other place for a token, and the page for its session's id.
    socketio_config.engine.keep_headers = &[AUTHORIZATION, COOKIE];
    let policy = OriginPolicy::new(&parts.config.server);
    let access = Access::new(&parts.config.server, limits.clone());
    tokio::spawn(access.clone().keep_telling(parts.stop.clone()));
    let places = |name, most| Places::new(name, limits.clone(), most);
    let (dispatch, handle) = Dispatch::new(log.clone());
    let intake = Intake {
        access: access.clone(),
        limits: limits.clone(),
        budget: Budget::new(limits.clone()),
        threads: Threads::default(),
    };
    let network = log.encoder.network;
    let backend = Arc::new(EdgeBackend {
        client: parts.client,
        admission: parts.admission,
        primary: parts.primary,
        log: log.clone(),
        access: access.clone(),
        places: parts.places,
    });
    let subscriptions = Subscriptions {
        limits: limits.clone(),
        in_all: places("subscriptions_in_all", |it| it.subscriptions_in_all),
    };
    let socket = SocketApi(Arc::new(SocketServices {
        backend: backend.clone(),
        parsing: Parsing {
            network,
            threads: intake.threads.clone(),
        },
        log: log.clone(),
        dispatch: handle.clone(),
        subscriptions,
        access,
    }));
    let events = EventQueries {
        threads: intake.threads.clone(),
        budget: intake.budget.clone(),
        log,
        dispatch: handle.clone(),
        stop: parts.stop.clone(),
        waiting: places("waiting_requests", |it| it.waiting_requests),
    };
    let services = Arc::new(EdgeServices {
        intake,
        backend,
        events,
        stream: parts.stream,
        network,
        started: Instant::now(),
    });
    let socketio = socketio::service(socketio_config, socket);
    let hsts = parts.config.server.hsts;
    let router = Router::new(Role::Edge(services), policy, socketio, hsts);
    let dispatch = tokio::spawn(dispatch.run(parts.stop));
    (Arc::new(router), handle, dispatch)
}
