//! The application that clients see: REST and Socket.IO over one state, the web page beside them.
//!
//! # Laws
//!
//! * How events are delivered says `crate::events`.
//! * What one answer says (balance, tip, cursor) is read from one snapshot of the store, so it is
//!   true at one instant.
//! * Addresses exist only here and in `crate::wire`; below, a watched thing is a script and its
//!   hash.
//! * A refused request has changed nothing, and says what to do instead ([`error`]).
//!
//! # Where a request goes
//!
//! ```text
//! server ──► router   Host and Origin (browser), CORS, path
//!              ├─ /socket.io/ ─► socketio ─► socket   what clients say; what their readers give
//!              ├─ routes ─────► rest      a row of the table for each; a file for each resource
//!              │                `crate::consumers`, `crate::webhooks` behind their routes
//!              └─ the rest ───► web
//! ```
//! What goes over the wire (shapes, fields of requests, cursors, addresses, errors) is in
//! `crate::wire`. `progress` tells of scans beside the log.

mod browser;
mod progress;
mod rest;
mod router;
mod socket;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, RwLock, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use crate::wire::ApiError;
pub use router::Router;

use crate::consumers::Consumers;
use crate::events::EventLog;
use crate::reads::Reads;
use crate::store::{Reader, StoreError};
use crate::webhooks::Webhooks;
use crate::wire::EventEncoder;
use crate::wire::request::history;
use crate::{bitcoind, config, indexer, socketio, webhooks};

impl From<indexer::InputRefused> for ApiError {
    fn from(refused: indexer::InputRefused) -> Self {
        match refused {
            indexer::InputRefused::Stopped(_) => Self::stopping(),
            indexer::InputRefused::Apply(cause) => Self::internal(&cause),
        }
    }
}

impl From<config::History> for history::History {
    fn from(setting: config::History) -> Self {
        match setting {
            config::History::Utxo => Self::Utxo,
            config::History::None => Self::None,
        }
    }
}

/// The parts that the API stands on.
pub struct Parts {
    pub reader: Reader,
    pub indexer: indexer::Handle,
    pub node: watch::Receiver<bitcoind::NodeStatus>,
    pub scans: watch::Receiver<Vec<bitcoind::ScanProgress>>,
    pub audits: mpsc::Sender<bitcoind::AuditRequest>,
    /// Whether the follower follows; `/start` and `/stop` set it and remember it in the store.
    pub monitoring: watch::Sender<bool>,
    pub config: Arc<config::Config>,
    /// The addresses in use, which `server.listen` with port 0 does not say.
    pub listen: Vec<SocketAddr>,
    pub socketio: socketio::Config,
    /// Ends dispatch and waiting requests.
    pub stop: CancellationToken,
}

/// Ends when it is told to or, with an error, when the store cannot be read.
pub type DispatchTask = JoinHandle<Result<(), StoreError>>;

/// Starts dispatch and builds the router. Dispatch ends when `stop` says so or, with an error, when
/// the store cannot be read: then the daemon must end.
pub fn start(parts: Parts) -> Result<(Arc<Router>, DispatchTask), StoreError> {
    let (gate, socketio) = (
        browser::Gate::new(&parts.config.server),
        parts.socketio.clone(),
    );
    let (app, dispatch) = build(parts)?;
    app.webhooks.start();
    tokio::spawn(progress::run(app.clone()));
    let stop = app.stop.clone();
    Ok((
        Arc::new(Router::new(app, gate, socketio)),
        tokio::spawn(dispatch.run(stop)),
    ))
}

fn build(parts: Parts) -> Result<(Arc<App>, crate::events::Dispatch), StoreError> {
    let Parts {
        reader,
        indexer,
        node,
        scans,
        audits,
        monitoring,
        config,
        listen,
        stop,
        ..
    } = parts;
    let wire = EventEncoder {
        starts: reader.starts().clone(),
        network: reader.chain().network,
    };
    let log = EventLog::new(reader.clone(), wire.clone(), indexer.head());
    let (dispatch, handle) = crate::events::Dispatch::new(log.clone());
    let (switch, waiting) = (
        Mutex::new(()),
        Semaphore::new(config.limits.connections.min(Semaphore::MAX_PERMITS)),
    );
    let consumers = Consumers::load(&reader, indexer.clone(), config.limits.consumers)?;
    let consumers = Arc::new(consumers);
    let auditing = rest::audit::Turn::new(Duration::from_secs(config.limits.audit_interval));
    let (reads, budget) = (
        Reads::new(reader.clone()),
        rest::budget::Budget::new(config.limits.rest_bytes),
    );
    let webhooks = Webhooks::new(webhooks::Parts {
        settings: config.webhooks.clone(),
        consumers: consumers.clone(),
        reader: reader.clone(),
        reads: reads.clone(),
        indexer: indexer.clone(),
        log: log.clone(),
        dispatch: handle.clone(),
        stop: stop.clone(),
    });
    let app = App {
        reads,
        budget,
        reader,
        indexer,
        node,
        scans,
        audits,
        auditing,
        list: RwLock::default(),
        monitoring,
        switch,
        config,
        listen,
        wire,
        waiting,
        log,
        dispatch: handle,
        started: Instant::now(),
        stop,
        consumers,
        webhooks,
    };
    Ok((Arc::new(app), dispatch))
}

/// What all routes and events share.
struct App {
    reads: Reads,
    budget: rest::budget::Budget,
    reader: Reader,
    indexer: indexer::Handle,
    node: watch::Receiver<bitcoind::NodeStatus>,
    scans: watch::Receiver<Vec<bitcoind::ScanProgress>>,
    audits: mpsc::Sender<bitcoind::AuditRequest>,
    auditing: rest::audit::Turn,
    /// Held for reading by those who look whether addresses are watched and ask for something that
    /// would watch them; for writing by who takes one off the list: it must not come back by that.
    list: RwLock<()>,
    monitoring: watch::Sender<bool>,
    /// Held while monitoring is switched, so that the store and the follower are told the same of
    /// two requests at once.
    switch: Mutex<()>,
    config: Arc<config::Config>,
    listen: Vec<SocketAddr>,
    wire: EventEncoder,
    /// One is held by each request that waits for events.
    waiting: Semaphore,
    log: Arc<EventLog>,
    dispatch: crate::events::Handle,
    started: Instant,
    stop: CancellationToken,
    consumers: Arc<Consumers>,
    webhooks: Arc<Webhooks>,
}

impl App {
    /// Runs reads of the store where they hold up nobody else.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let app = self.clone();
        self.reads.run(move |_| read(&app)).await
    }

    /// The same for those that read or make many rows.
    async fn read_long<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&App) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let app = self.clone();
        self.reads.run_long(move |_| read(&app)).await
    }
}
