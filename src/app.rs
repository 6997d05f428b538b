//! Builds all parts and wires them; takes them down in the reverse order.
//!
//! ```text
//! start   node ─► store ─► port ─► tracker ─► indexer ─► follower ─► dispatch, router ─► server
//! stop    server (accepts nothing) ─► waiting requests, sessions, dispatch ─► follower ─► indexer (commits, closes the store)
//! ```
//! A store that remembers its chain starts without the node; a new one waits for it. If a part ends
//! by itself, the daemon ends: [`Running::failed`] says which and why.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::net::lookup_host;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::bitcoind::{self, DiscoveredNode, FollowerConfig, Retry};
use crate::clock::now_ms;
use crate::config::{self, Config, Limits, Listen};
use crate::remedy::Remedy;
use crate::server::{self, Server};
use crate::shutdown::Deadline;
use crate::store::{self, StoreError, StoreReader, Writer};
use crate::{api, engineio, indexer, open_files, socketio};

/// For all of a stop.
const STOP_TIME: Duration = Duration::from_millis(4500);
/// Of it, for clients: the rest is for the state.
const CLIENTS_TIME: Duration = Duration::from_millis(1500);
/// Of that, for answers that are being worked on.
const DRAIN_TIME: Duration = Duration::from_millis(1000);
/// Of what the tracker asks the follower for; what finds no room is asked for again by the next
/// look at the mempool.
const ASKS: usize = 65_536;
/// Between two looks for the node while a new store waits for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Between two looks for events that are too old.
const RETENTION_PAUSE: Duration = Duration::from_secs(3600);

/// A running daemon.
pub struct Running {
    /// The addresses in use.
    pub addrs: Vec<SocketAddr>,
    router: Arc<api::Router>,
    indexer: indexer::Handle,
    stop_clients: CancellationToken,
    stop_follower: CancellationToken,
    server_task: Task,
    dispatch_task: Task,
    follower_task: Task,
    indexer_task: Task,
}

/// Starts everything and returns when clients are served. Waits for the node only if the store is
/// new. Needs a tokio runtime.
pub async fn start(config: Config) -> Result<Running> {
    let config = Arc::new(config);
    let (found, writer, reader) = open_store(&config).await?;
    let server = match bind(&config).await {
        Ok(server) => server,
        Err(error) => {
            writer.close()?;
            return Err(error);
        }
    };
    let addrs = server.local_addrs()?;

    let (asks_sender, asks) = mpsc::channel(ASKS);
    let head = writer.head();
    let tracker = load_tracker(&reader).await?;
    let (indexer, thread) = indexer::spawn(tracker, writer, head, asks_sender);
    let indexer_task = Task::new(
        "indexer",
        spawn_blocking(move || {
            thread
                .join()
                .map_err(|_| anyhow!("it panicked"))?
                .map_err(Into::into)
        }),
    );

    let on = reader.monitoring()?.unwrap_or(config.monitor.autostart);
    let (monitoring, monitoring_seen) = watch::channel(on);
    let (stop_clients, stop_follower) = (CancellationToken::new(), CancellationToken::new());
    let follower = FollowerConfig {
        settings: config.bitcoind.clone(),
        found,
        reconcile_interval: Duration::from_secs(config.monitor.reconcile_interval),
    };
    let (node, follower_end) = bitcoind::spawn(
        follower,
        indexer.clone(),
        reader.clone(),
        asks,
        monitoring_seen,
        stop_follower.clone(),
    );
    let follower_task = Task::new(
        "follower",
        tokio::spawn(async move { Ok(follower_end.await??) }),
    );

    let retained = reader.clone();
    let (router, dispatch_end) = api::start(api::Parts {
        reader,
        indexer: indexer.clone(),
        node: node.status,
        scans: node.scans,
        audits: node.audits,
        monitoring,
        config: config.clone(),
        listen: addrs.clone(),
        socketio: socketio_config(&config.limits),
        stop: stop_clients.clone(),
    })?;
    if config.events.retention_days > 0 {
        let retention = Retention {
            reader: retained,
            indexer: indexer.clone(),
            router: router.clone(),
            keep: u64::from(config.events.retention_days) * 24 * 3600 * 1000,
        };
        let (retention, stop) = (Arc::new(retention), stop_follower.clone());
        tokio::spawn(async move {
            let passes = repeat(|| {
                let retention = retention.clone();
                async move { retention.pass().await }
            });
            stop.run_until_cancelled(passes).await
        });
    }
    let dispatch_task = Task::new(
        "dispatch",
        tokio::spawn(async move { Ok(dispatch_end.await??) }),
    );
    let routed = router.clone();
    let handler = Arc::new(move |request, peer| {
        let router = routed.clone();
        async move { router.handle(request, peer).await }
    });
    let serving = server.serve(handler, stop_clients.clone());
    let server_task = Task::new(
        "server",
        tokio::spawn(async move {
            serving.await;
            Ok(())
        }),
    );

    if !on {
        tracing::warn!("monitoring is off: POST /start begins it");
    }
    warn_of_open_origins(&config.server);
    let shown: Vec<String> = addrs.iter().map(|addr| format!("http://{addr}")).collect();
    tracing::info!("listening on {}", shown.join(" and "));
    Ok(Running {
        addrs,
        router,
        indexer,
        stop_clients,
        stop_follower,
        server_task,
        dispatch_task,
        follower_task,
        indexer_task,
    })
}

impl Running {
    /// Waits until a part ends although nobody asked it to. Cancel-safe.
    pub async fn failed(&mut self) -> anyhow::Error {
        let Self {
            server_task,
            dispatch_task,
            follower_task,
            indexer_task,
            indexer,
            ..
        } = self;
        let error = tokio::select! {
            biased;
            error = indexer_task.failed() => return error,
            error = follower_task.failed() => error,
            error = dispatch_task.failed() => error,
            error = server_task.failed() => error,
        };
        // When the indexer ends, the others do, and may be noticed before it: its reason is the one
        // to tell.
        if indexer.has_stopped() {
            indexer_task.failed().await
        } else {
            error
        }
    }

    /// Stops in order and within five seconds. An error means that not everything could be brought
    /// to its end in order.
    pub async fn stop(self) -> Result<()> {
        let deadline = Deadline::after(STOP_TIME);
        let clients = Deadline::after(CLIENTS_TIME);
        self.stop_clients.cancel();
        // Clients that do not listen are no reason to hold the state up, nor to call the stop a
        // failure.
        for late in [
            clients
                .wait("sessions of clients", self.router.shutdown())
                .await
                .err(),
            clients
                .wait("requests of clients", self.server_task.finish())
                .await
                .err(),
            clients
                .wait("dispatch", self.dispatch_task.finish())
                .await
                .err(),
        ]
        .into_iter()
        .flatten()
        {
            tracing::info!("{late}: going on without");
        }
        self.stop_follower.cancel();
        let halfway = Deadline::after(STOP_TIME / 3);
        let follower = match halfway.wait("follower", self.follower_task.finish()).await {
            Ok(ended) => ended,
            Err(late) => {
                tracing::warn!("{late}: going on without");
                Ok(())
            }
        };
        deadline.wait("indexer", self.indexer.stop()).await?;
        deadline
            .wait("indexer", self.indexer_task.finish())
            .await??;
        follower
    }
}

/// A part that runs until it is told to end.
struct Task {
    name: &'static str,
    /// `None` once its end has been told.
    end: Option<JoinHandle<Result<()>>>,
}

impl Task {
    fn new(name: &'static str, end: JoinHandle<Result<()>>) -> Self {
        Self {
            name,
            end: Some(end),
        }
    }

    async fn ended(&mut self) -> Result<()> {
        let Some(end) = &mut self.end else {
            return Ok(());
        };
        let ended = end.await;
        self.end = None;
        ended
            .map_err(anyhow::Error::from)
            .and_then(|result| result)
            .with_context(|| format!("the {} failed", self.name))
    }

    async fn failed(&mut self) -> anyhow::Error {
        if self.end.is_none() {
            return std::future::pending().await;
        }
        match self.ended().await {
            Ok(()) => anyhow!("the {} ended by itself", self.name),
            Err(error) => error,
        }
    }

    /// Its end, if nobody was told before.
    async fn finish(mut self) -> Result<()> {
        self.ended().await
    }
}

/// Opens the store, with the chain that the node is on if the node answers.
async fn open_store(config: &Config) -> Result<(Option<DiscoveredNode>, Writer, StoreReader)> {
    let mut pause = Duration::from_millis(250);
    loop {
        let found = bitcoind::find(&config.bitcoind).await;
        let chain = found.as_ref().ok().map(|found| found.chain);
        let path = config.store.path.clone();
        let opened = spawn_blocking(move || store::open(&path, chain, now_ms()))
            .await
            .context("opening the store panicked")?;
        match (opened, found) {
            (Ok((writer, reader)), Ok(found)) => return Ok((Some(found), writer, reader)),
            (Ok((writer, reader)), Err(error)) => {
                tracing::warn!("starting without the node, from what is known: {error}");
                return Ok((None, writer, reader));
            }
            (Err(StoreError::UnknownChain { .. }), Err(error))
                if error.retry == Retry::Transient =>
            {
                tracing::warn!(again_in = ?pause, "waiting for the node, because the store is new and its chain not known yet: {error}");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            (Err(StoreError::UnknownChain { .. }), Err(error)) => bail!(error),
            (Err(error), _) => bail!(error),
        }
    }
}

async fn load_tracker(reader: &StoreReader) -> Result<crate::tracker::Tracker> {
    let mut key = [0; 16];
    getrandom::fill(&mut key)
        .map_err(|error| anyhow!("the system has no random numbers: {error}"))?;
    let reader = reader.clone();
    let tracker = spawn_blocking(move || indexer::load(&reader, key))
        .await
        .context("loading the state panicked")??;
    Ok(tracker)
}

/// Deletes old events.
struct Retention {
    reader: StoreReader,
    indexer: indexer::Handle,
    router: Arc<api::Router>,
    /// Milliseconds.
    keep: u64,
}

impl Retention {
    async fn pass(&self) -> Result<()> {
        if let Some(note) = self.router.clock_note().await? {
            tracing::warn!("{note}");
        }
        let (reader, keep) = (self.reader.clone(), self.keep);
        let cutoff = spawn_blocking(move || reader.snapshot().cutoff(now_ms(), keep)).await??;
        let prune = self.indexer.prune_events(cutoff);
        let count = self.router.retain(prune).await??;
        if count > 0 {
            tracing::info!(count, "events older than events.retention_days deleted");
        }
        Ok(())
    }
}

/// Again and again, also when it fails.
async fn repeat<Pass: Future<Output = Result<()>>>(pass: impl Fn() -> Pass) {
    loop {
        if let Err(cause) = pass().await {
            tracing::warn!("old events could not be deleted, trying again in an hour: {cause:#}");
        }
        sleep(RETENTION_PAUSE).await;
    }
}

/// The addresses that `server.listen` names. All of them must be loopback, because there are no
/// tokens yet to keep others out.
pub async fn listen_addresses(listen: &Listen) -> Result<Vec<SocketAddr>> {
    let Listen { host, port } = listen;
    let found = lookup_host((host.as_str(), *port)).await.with_context(|| {
        let remedy = Remedy::ListenOnLoopback { port: *port };
        format!("cannot listen on {listen}: {host} is not known; {remedy}")
    })?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !address.ip().to_canonical().is_loopback() {
            bail!(
                "cannot listen on {listen}: {host} is {}, where others can reach it, and there are no tokens to keep them out; {}",
                address.ip(),
                Remedy::LoopbackName {
                    host: host.clone(),
                    port: *port
                }
            );
        }
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

async fn bind(config: &Config) -> Result<Server> {
    let listen = &config.server.listen;
    let addresses = listen_addresses(listen).await?;
    Server::bind(&addresses, server_limits(&config.limits))
        .await
        .map_err(|error| {
            let advice = listen_remedy(&error);
            let advice = advice.map_or(String::new(), |remedy| format!(": {remedy}"));
            anyhow!("cannot listen on {listen}: {error}{advice}")
        })
}

/// What helps when the addresses cannot be bound.
pub fn listen_remedy(error: &io::Error) -> Option<Remedy> {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::AddrInUse, _) => Some(Remedy::FreePort),
        (io::ErrorKind::PermissionDenied, _) => Some(Remedy::OpenPort),
        (_, Some(23 | 24)) => Some(Remedy::RaiseFileLimit),
        _ => None,
    }
}

/// Settings that let more in than most people want.
fn warn_of_open_origins(settings: &config::Server) {
    for (origin, who) in [
        ("*", "every web page that somebody opens on this machine"),
        (
            "null",
            "every local file, and any web page that makes itself nameless,",
        ),
    ] {
        if settings
            .allowed_origins
            .iter()
            .any(|listed| listed == origin)
        {
            tracing::warn!(
                "server.allowed_origins has \"{origin}\": {who} may read and change everything here; better list the origins that need it"
            );
        }
    }
}

fn server_limits(limits: &Limits) -> server::Limits {
    let open_files = open_files::limit();
    if let Some(problem) = open_files::problem(limits.connections, open_files) {
        tracing::warn!("{problem}");
    }
    server::Limits {
        connections: limits.connections.min(open_files::for_clients(open_files)),
        drain_time: DRAIN_TIME,
        ..server::Limits::default()
    }
}

fn socketio_config(limits: &Limits) -> socketio::Config {
    let default = socketio::Config::default();
    let engine = engineio::Config {
        max_payload: limits.packet_bytes,
        max_sessions: limits.connections,
        ..default.engine
    };
    // No event takes attachments.
    let layer = socketio::LayerConfig {
        keep_attachments: false,
        max_packet_bytes: limits.packet_bytes,
        ..default.layer
    };
    socketio::Config { engine, layer }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pass_of_retention_that_fails_is_tried_again() {
        let passes = Cell::new(0);
        let pass = || {
            passes.set(passes.get() + 1);
            let fails = passes.get() == 1;
            async move {
                match fails {
                    true => Err(anyhow!("the store cannot be read")),
                    false => Ok(()),
                }
            }
        };
        let day = tokio::time::timeout(RETENTION_PAUSE * 47 / 2, repeat(pass));
        assert!(day.await.is_err(), "it never ends by itself");
        assert_eq!(passes.get(), 24);
    }

    #[tokio::test]
    async fn case_19_every_address_of_a_name_must_be_loopback() {
        let addresses = async |text: &str| {
            let listen: Listen = text.parse().expect("a host and a port");
            listen_addresses(&listen).await
        };
        let local = addresses("localhost:5005").await.expect("it is known");
        assert!(!local.is_empty() && local.iter().all(|it| it.ip().is_loopback()));
        assert_eq!(
            addresses("[::1]:0").await.expect("an address"),
            ["[::1]:0".parse().expect("an address")]
        );
        // As a name would be that means this.
        let refused = addresses("192.0.2.1:5005")
            .await
            .expect_err("others reach it");
        let message = format!("{refused:#}");
        assert!(
            message.contains("write server.listen = \"127.0.0.1:5005\"")
                && message.contains("/etc/hosts"),
            "{message}"
        );
        addresses("127.0.0.1:5005").await.expect("as it says");
    }

    #[test]
    fn a_connection_may_idle_twice_as_long_as_a_ping_takes() {
        let limits = Limits::default();
        let pings = socketio_config(&limits).engine;
        assert!(
            server_limits(&limits).idle_time >= (pings.ping_interval + pings.ping_timeout) * 2,
            "a polling client answers pings on a connection that idles meanwhile"
        );
    }
}
