//! What clients talk to: REST and Socket.IO over one state, the web page beside them.
//!
//! # Laws
//!
//! * This room reads requests and writes answers. What is behind them has rooms of its own, which
//!   do not know it: `crate::events` delivers the log, `crate::consumers` keeps the places of named
//!   readers, `crate::webhooks` posts events, `crate::reads` reads the store off the runtime, and
//!   `crate::wire` has what goes over the wire (shapes, fields of requests, cursors, addresses,
//!   errors).
//! * What one answer says (balance, tip, cursor) is read from one snapshot of the store, so it is
//!   true at one instant.
//! * Addresses exist only here, in `crate::wire` and where balances are told (`crate::reads`,
//!   `crate::events::cursors`); below, a watched thing is a script and its hash.
//! * A refused request has changed nothing, and says what to do instead (`crate::wire::error`).
//!
//! # Where a request goes
//!
//! ```text
//! server ──► router   Host and Origin (browser), cookie (session), CORS, path; who asks, and how
//!              │      often (access)
//!              ├─ /socket.io/ ─► socketio ─► socket   what clients say; what their readers give
//!              ├─ routes ─────► rest      a row of the table for each; a file for each resource
//!              └─ the rest ───► web
//! contract     describes all of it for programs, from the tables and types of the others
//! ```
//!
//! What routes and events of clients share has one owner each: [`watchlist`] (what is watched),
//! [`descriptors`] (likewise as wallets), [`scans`] (history scans, and telling of them beside the
//! log), [`monitoring`] (whether the node is followed). `build` makes them and the rooms behind
//! them; [`Services`] is what the routes answer with, each row of their table taking what it needs,
//! and `socket::SocketServices` what the events of clients are answered with.

mod access;
mod browser;
mod contract;
mod descriptors;
mod edge;
#[doc(hidden)]
pub mod internals;
mod monitoring;
mod quotas;
mod rest;
mod role;
mod router;
mod scans;
mod session;
mod socket;
#[cfg(test)]
mod tests;
mod watchlist;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::header::{AUTHORIZATION, COOKIE, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use crate::wire::ApiError;
pub use edge::{EdgeParts, start_edge};
pub use router::Router;

use crate::auth::{Credential, Guard};
use crate::bus::BusStatus;
use crate::certificates::Certificates;
use crate::clock::now_ms;
use crate::consumers::{Consumers, LOOK_MOST};
use crate::derivation::DerivedScripts;
use crate::events::{self, Dispatch, EventLog};
use crate::history::{AuditRequest, LeftOut, ScanProgress};
use crate::indexer::IndexerStopped;
use crate::limits::Places;
use crate::reads::Reads;
use crate::store::{StoreError, StoreReader};
use crate::tracker::ApplyError;
use crate::webhooks::Webhooks;
use crate::wire::request::history;
use crate::{auth, bitcoind, config, indexer, server, socketio, webhooks};
use access::Access;
use descriptors::Descriptors;
use monitoring::Monitoring;
use quotas::Quotas;
use rest::audit::Auditor;
use rest::budget::Budget;
use rest::consumers::ConsumerRoutes;
use rest::events::EventQueries;
use rest::sent::Intake;
use rest::session::PageSessions;
use rest::status::Overview;
use role::Role;
use scans::Scans;
use session::SessionCookie;
use socket::{OwnConsumers, Parsing, SocketApi, SocketServices, StoreBackend, Subscriptions};
use watchlist::Watchlist;

impl From<indexer::InputRefused> for ApiError {
    fn from(refused: indexer::InputRefused) -> Self {
        match refused {
            indexer::InputRefused::Stopped(_) => Self::stopping(),
            indexer::InputRefused::Apply(ApplyError::TooManyDepths {
                spk: None,
                has,
                asked,
            }) => watchlist::too_many_depths("The descriptor", &has, &asked),
            indexer::InputRefused::Apply(cause) => Self::internal(&cause),
        }
    }
}

impl From<auth::Refusal> for ApiError {
    fn from(refusal: auth::Refusal) -> Self {
        let (status, code) = match refusal {
            auth::Refusal::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "unauthorized"),
            auth::Refusal::Forbidden { .. } => (StatusCode::FORBIDDEN, "forbidden"),
        };
        Self::new(status, code, refusal.to_string())
    }
}

/// What the headers of a request say about who asks.
fn credential(headers: &HeaderMap) -> Credential<'_> {
    let values = headers.get_all(AUTHORIZATION).iter();
    match Credential::of_header(values.map(HeaderValue::as_bytes)) {
        Credential::None => session::credential(headers).unwrap_or(Credential::None),
        token => token,
    }
}

impl From<config::History> for history::HistoryOption {
    fn from(setting: config::History) -> Self {
        match setting {
            config::History::Utxo => Self::Utxo,
            config::History::None => Self::None,
        }
    }
}

/// The parts that the API stands on.
pub struct Parts {
    pub reader: StoreReader,
    pub indexer: indexer::Handle,
    pub node: watch::Receiver<bitcoind::NodeStatus>,
    pub scans: watch::Receiver<Vec<ScanProgress>>,
    pub left_out: watch::Receiver<LeftOut>,
    /// For those who wait for the scripts of a descriptor.
    pub derived: DerivedScripts,
    pub audits: mpsc::Sender<AuditRequest>,
    /// Whether the follower follows; `/start` and `/stop` set it and remember it in the store.
    pub monitoring: watch::Sender<bool>,
    /// As the daemon was started.
    pub config: Arc<config::Config>,
    /// Those in force, which may change: whoever keeps to one asks each time.
    pub limits: watch::Receiver<config::Limits>,
    /// What came of reading the settings again.
    pub settings: watch::Receiver<config::SettingsStatus>,
    /// Who may ask.
    pub auth: Guard,
    pub listening: Listening,
    /// `None`: there is no bus.
    pub bus: Option<watch::Receiver<BusStatus>>,
    pub socketio: socketio::Config,
    /// Ends dispatch and waiting requests.
    pub stop: CancellationToken,
}

/// Where clients are listened to.
pub struct Listening {
    /// The addresses in use, which `server.listen` with port 0 does not say.
    pub addresses: Vec<SocketAddr>,
    /// Likewise of `metrics.listen`.
    pub metrics: Vec<SocketAddr>,
    pub usage: server::Usage,
    pub metrics_usage: Option<server::Usage>,
    /// `None`: there is no TLS.
    pub certificates: Option<Certificates>,
}

impl Listening {
    pub fn urls(&self) -> Vec<String> {
        let scheme = match self.certificates {
            Some(_) => "https",
            None => "http",
        };
        let addresses = self.addresses.iter();
        addresses
            .map(|address| format!("{scheme}://{address}"))
            .collect()
    }
}

/// Ends when it is told to or, with an error, when the store cannot be read.
pub type DispatchTask = JoinHandle<Result<(), StoreError>>;

/// Starts dispatch and builds the router. Dispatch ends when `stop` says so or, with an error, when
/// the store cannot be read: then the daemon must end.
pub fn start(parts: Parts) -> Result<(Arc<Router>, Upkeep, DispatchTask), StoreError> {
    let policy = browser::OriginPolicy::new(&parts.config.server);
    let (mut config, stop) = (parts.socketio.clone(), parts.stop.clone());
    // Older clients have no other place for a token, and the page for its session's id.
    config.engine.keep_headers = &[AUTHORIZATION, COOKIE];
    let hsts = parts.config.server.hsts;
    let (services, socket, dispatch) = build(parts)?;
    let (consumers, stopped) = (services.consumers.clone(), stop.clone());
    tokio::spawn(async move {
        let started = stopped.run_until_cancelled(consumers.start()).await;
        if let Some(Err(cause)) = started {
            tracing::warn!(%cause, "consumers were not looked through");
        }
    });
    services.consumer_routes.webhooks.start();
    tokio::spawn(scans::progress::run(services.scans.clone(), stop.clone()));
    tokio::spawn(services.intake.access.clone().keep_telling(stop.clone()));
    let socketio = socketio::service(config, socket);
    let upkeep = Upkeep(services.clone());
    let router = Arc::new(Router::new(Role::Own(services), policy, socketio, hsts));
    Ok((router, upkeep, tokio::spawn(dispatch.run(stop))))
}

/// What looks after the log beside its clients.
#[derive(Clone)]
pub struct Upkeep(Arc<Services>);

impl Upkeep {
    /// For who sends the whole log to others.
    pub fn event_log(&self) -> (Arc<EventLog>, events::Handle) {
        let events = &self.0.events;
        (events.log.clone(), events.dispatch.clone())
    }

    /// Deletes old events, a portion with each `prune`, so that no consumer misses what it did not
    /// want.
    pub async fn retain<Pruned>(&self, prune: impl Fn() -> Pruned) -> Result<usize, ApiError>
    where
        Pruned: Future<Output = Result<usize, IndexerStopped>>,
    {
        self.0.consumers.retain(prune).await
    }

    /// What is to be said when the machine's clock and the chain differ.
    pub async fn clock_note(&self) -> Result<Option<String>, ApiError> {
        let Services {
            reads, overview, ..
        } = &*self.0;
        let monitoring = overview.monitoring.clone();
        reads
            .run(move |view| Ok(monitoring.clock_note(view, now_ms())?))
            .await
    }
}

/// What [`start`] sets going.
fn build(parts: Parts) -> Result<(Arc<Services>, SocketApi, Dispatch), StoreError> {
    let Parts {
        reader,
        indexer,
        node,
        config,
        limits,
        auth,
        stop,
        ..
    } = parts;
    let access = Access::new(&config.server, limits.clone());
    let places = |name, most| Places::new(name, limits.clone(), most);
    let subscriptions = Subscriptions {
        limits: limits.clone(),
        in_all: places("subscriptions_in_all", |it| it.subscriptions_in_all),
    };
    let reads = Reads::new(reader.clone());
    let log = EventLog::new(reader.clone(), reads.encoder.clone(), indexer.head());
    let (dispatch, handle) = Dispatch::new(log.clone());
    let consumers = Consumers::load(
        &reader,
        reads.clone(),
        indexer.clone(),
        log.clone(),
        handle.clone(),
        limits.clone(),
        LOOK_MOST,
    )?;
    let webhooks = Webhooks::new(webhooks::WebhookParts {
        settings: config.webhooks.clone(),
        consumers: consumers.clone(),
        reader: reader.clone(),
        reads: reads.clone(),
        indexer: indexer.clone(),
        log: log.clone(),
        dispatch: handle.clone(),
        stop: stop.clone(),
    });
    let history = config.watch.history.into();
    let quotas = Quotas::new(reader.clone(), limits.clone());
    let watchlist = Watchlist::new(reads.clone(), indexer.clone(), history, quotas.clone());
    let watchlist = Arc::new(watchlist);
    let scans = Arc::new(Scans {
        reads: reads.clone(),
        watchlist: watchlist.clone(),
        indexer: indexer.clone(),
        dispatch: handle.clone(),
        progress: parts.scans,
    });
    let descriptors = Arc::new(Descriptors {
        scans: scans.clone(),
        derived: parts.derived,
        parsing: Parsing {
            network: reads.encoder.network,
            threads: reads.threads.clone(),
        },
        quotas: quotas.clone(),
        limits: limits.clone(),
        giving: Mutex::default(),
        stop: stop.clone(),
    });
    let step_times = indexer.step_times();
    let sessions = PageSessions {
        auth: auth.clone(),
        indexer: indexer.clone(),
        cookie: SessionCookie::new(&parts.listening.addresses, reader.created()?),
    };
    let monitoring = Monitoring::new(indexer, node.clone(), parts.monitoring);
    let budget = Budget::new(limits.clone());
    let events = Arc::new(EventQueries {
        threads: reads.threads.clone(),
        budget: budget.clone(),
        log: log.clone(),
        dispatch: handle.clone(),
        stop: stop.clone(),
        waiting: places("waiting_requests", |it| it.waiting_requests),
    });
    let overview = Arc::new(Overview {
        reads: reads.clone(),
        budget: budget.clone(),
        dispatch: handle.clone(),
        monitoring: Arc::new(monitoring),
        scans: scans.clone(),
        events: events.clone(),
        consumers: consumers.clone(),
        webhooks: webhooks.clone(),
        started: Instant::now(),
        step_times,
        left_out: parts.left_out,
        auth: auth.clone(),
        listening: parts.listening,
        access: access.clone(),
        quotas: quotas.clone(),
        subscriptions: subscriptions.in_all.clone(),
        limits: limits.clone(),
        settings: parts.settings,
        bus: parts.bus,
    });
    let auditor = Auditor {
        reads: reads.clone(),
        node,
        requests: parts.audits,
        running: Mutex::default(),
        stop,
    };
    let consumer_routes = Arc::new(ConsumerRoutes {
        reads: reads.clone(),
        settings: config.webhooks.clone(),
        consumers: consumers.clone(),
        webhooks: webhooks.clone(),
        watchlist: watchlist.clone(),
        descriptors: descriptors.clone(),
        quotas,
    });
    let backend = Arc::new(StoreBackend {
        auth: auth.clone(),
        watchlist,
        descriptors: descriptors.clone(),
        consumers: OwnConsumers {
            consumers: consumers.clone(),
            reads: reads.clone(),
        },
        access: access.clone(),
    });
    let socket = SocketApi(Arc::new(SocketServices {
        backend: backend.clone(),
        parsing: descriptors.parsing.clone(),
        log,
        dispatch: handle,
        subscriptions,
        access: access.clone(),
    }));
    let services = Arc::new(Services {
        auth,
        backend,
        intake: Intake {
            access,
            limits,
            budget,
            threads: reads.threads.clone(),
        },
        reads,
        scans,
        descriptors,
        auditor,
        overview,
        events,
        consumers,
        consumer_routes,
        sessions,
    });
    Ok((services, socket, dispatch))
}

/// What the routes answer with.
struct Services {
    auth: Guard,
    backend: Arc<StoreBackend>,
    intake: Intake,
    reads: Reads,
    scans: Arc<Scans>,
    descriptors: Arc<Descriptors>,
    auditor: Auditor,
    overview: Arc<Overview>,
    events: Arc<EventQueries>,
    consumers: Arc<Consumers>,
    consumer_routes: Arc<ConsumerRoutes>,
    sessions: PageSessions,
}
