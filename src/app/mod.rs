//! Builds all parts and wires them; takes them down in the reverse order.
//!
//! ```text
//! start   port is free ─► node ─► store ─► port ─► tracker ─► indexer ─► derivation, follower ─► dispatch, router ─► server
//! stop    server (accepts nothing) ─► waiting requests, sessions, dispatch ─► follower, derivation ─► indexer (commits, closes the store)
//! ```
//! A store that remembers its chain starts without a node that does not answer, or not at once; a
//! new one waits for it. If a part ends by itself, the daemon ends: [`Running::failed`] says which
//! and why.

mod bus;
mod edge;
mod limits;
mod listen;
mod reread;
mod retention;
mod task;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::FutureExt;
use futures_util::future::join;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::auth::{self, TokensTask};
use crate::bitcoind::{self, DiscoveredNode, NodeError, NodeErrorKind, Retry};
use crate::certificates::{CertificateFiles, Certificates};
use crate::clock::now_ms;
use crate::config::{self, Config};
use crate::derivation::DerivationTask;
use crate::follower::start::{self, FollowerConfig};
use crate::server::{Server, tls_config};
use crate::shutdown::{Deadline, Late};
use crate::store::{self, StoreError, StoreReader, Writer};
use crate::{api, indexer, progress};
pub use edge::{edge_problem, primary_client, run_edge};
use limits::{Layers, socketio_config};
use listen::{Bound, bind};
pub use listen::{
    LISTEN, METRICS_LISTEN, credentials, credentials_problem, listen_addresses, listen_remedy,
    metrics_addresses,
};
pub use reread::ReadSettings;
use reread::Reread;
use retention::Retention;
use task::Task;

/// For all of a stop.
const STOP_TIME: Duration = Duration::from_millis(4500);
/// Of it, for clients: the rest is for the state.
const CLIENTS_TIME: Duration = Duration::from_millis(1500);
/// Of what the tracker asks the follower for; what finds no room is asked for again by the next
/// look at the mempool.
const ASKS: usize = 65_536;
/// So long the node may take before a store that knows its chain is served without it. One that
/// answers says within this time whether it is on that chain.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two looks for the node while a new store waits for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A running daemon.
pub struct Running {
    /// The addresses in use.
    pub addrs: Vec<SocketAddr>,
    /// What it shows of itself on a terminal.
    pub progress: progress::Sources,
    router: Arc<api::Router>,
    indexer: indexer::Handle,
    stop_clients: CancellationToken,
    stop_follower: CancellationToken,
    server_task: Task,
    dispatch_task: Task,
    tokens_task: Task,
    follower_task: Task,
    derivation_task: Task,
    retention_task: Task,
    bus_task: Task,
    indexer_task: Task,
}

/// Starts everything and returns when clients are served. Waits for the node only if the store is
/// new. With each change of `reloads` files that are followed are looked at once more, and the
/// settings are read again. Needs a tokio runtime.
pub async fn start(
    config: Config,
    read: ReadSettings,
    reloads: watch::Receiver<u64>,
) -> Result<Running> {
    let config = Arc::new(config);
    let certificates = match CertificateFiles::of(&config.tls) {
        Some(files) => Some(Certificates::load(files).context("TLS")?),
        None => None,
    };
    let place = credentials(&config, &listen_addresses(&config.server.listen).await?);
    refuse_to_be_open(&config, &place).await?;
    refuse_taken_port(&config).await?;
    let (found, writer, reader) = open_store(&config).await?;
    let (bound, place, begun) = match serve_with(&config, &reader).await {
        Ok(found) => found,
        Err(error) => {
            writer.close()?;
            return Err(error);
        }
    };
    let listening = listening(&bound, certificates.clone())?;
    let addrs = listening.addresses.clone();
    let (urls, metrics_at) = (listening.urls(), listening.metrics.clone());
    let (in_use, metrics_in_use) = (listening.usage.clone(), listening.metrics_usage.clone());

    let (asks_sender, asks) = mpsc::channel(ASKS);
    let head = writer.head();
    let tracker = load_tracker(&reader).await?;
    let (indexer, thread) = indexer::spawn(tracker, writer, head, asks_sender);
    let indexer_end = spawn_blocking(move || thread.join().map_err(|_| anyhow!("it panicked")));
    let indexer_task = Task::spawn("indexer", async { Ok(indexer_end.await???) });
    indexer::undo_unfinished_add(&indexer, &reader, now_ms()).await?;

    let (tokens, guard) = TokensTask::new(place, begun, indexer.clone()).await?;
    if !guard.is_on() && config.is_behind_proxy() {
        tracing::warn!("{OPEN_BEHIND_PROXY}");
    }

    let on = reader.monitoring()?.unwrap_or(config.monitor.autostart);
    let (monitoring, monitoring_seen) = watch::channel(on);
    let (stop_clients, stop_follower) = (CancellationToken::new(), CancellationToken::new());
    let following = FollowerConfig {
        settings: config.bitcoind.clone(),
        found,
        reconcile_interval: Duration::from_secs(config.monitor.reconcile_interval),
    };
    let (node, follower_end) = start::spawn(
        following,
        indexer.clone(),
        reader.clone(),
        asks,
        monitoring_seen,
        stop_follower.clone(),
    );
    let follower_task = Task::spawn("follower", async { Ok(follower_end.await??) });

    let (derivation, derived) = DerivationTask::new(reader.clone(), indexer.clone());
    let derivation_end = derivation.run(stop_follower.clone());
    let derivation_task = Task::spawn("derivation", async { Ok(derivation_end.await?) });

    let (limits, limits_seen) = watch::channel(config.limits.clone());
    let (settings, settings_seen) = watch::channel(config::SettingsStatus::default());
    let retained = reader.clone();
    let progress = progress::Sources {
        reader: reader.clone(),
        node: node.status.clone(),
        scans: node.scans.clone(),
        monitoring: monitoring.subscribe(),
    };
    let (bus, bus_status) = bus::build(&config, &reader);
    let (router, upkeep, dispatch_end) = api::start(api::Parts {
        bus: bus_status,
        reader,
        indexer: indexer.clone(),
        node: node.status,
        scans: node.scans,
        left_out: node.left_out,
        derived,
        audits: node.audits,
        monitoring,
        config: config.clone(),
        limits: limits_seen,
        settings: settings_seen,
        auth: guard,
        listening,
        socketio: socketio_config(&config.limits),
        stop: stop_clients.clone(),
    })?;
    let layers = Layers {
        clients: in_use,
        metrics: metrics_in_use,
        router: router.clone(),
    };
    let reread = Reread {
        in_force: Config::clone(&config),
        read,
        limits,
        status: settings,
        layers,
    };
    tokio::spawn(reread.run(reloads.clone(), stop_clients.clone()));
    let retention = Retention {
        reader: retained,
        indexer: indexer.clone(),
        upkeep: upkeep.clone(),
        keep: u64::from(config.events.retention_days) * 24 * 3600 * 1000,
    };
    let retention_end = retention.run(stop_follower.clone());
    let retention_task = Task::spawn("retention", retention_end.map(Ok));
    let dispatch_task = Task::spawn("dispatch", async { Ok(dispatch_end.await??) });
    let bus_task = bus::spawn(bus, &upkeep, &stop_clients);
    let tokens_end = tokens.run(reloads.clone(), stop_clients.clone());
    let tokens_task = Task::spawn("tokens", async { Ok(tokens_end.await?) });
    let serving = serve(bound, certificates, &router, reloads, &stop_clients);
    let server_task = Task::spawn("server", serving.map(Ok));

    if !on {
        tracing::warn!("monitoring is off: POST /start begins it");
    }
    warn_of_open_origins(&config.server);
    tracing::info!("listening on {}", urls.join(" and "));
    for address in metrics_at {
        tracing::info!("metrics and health at http://{address}");
        if !address.ip().to_canonical().is_loopback() {
            tracing::warn!(
                "metrics.listen: whoever reaches {address} reads the metrics, names of consumers among them, without a token"
            );
        }
    }
    Ok(Running {
        addrs,
        progress,
        router,
        indexer,
        stop_clients,
        stop_follower,
        server_task,
        dispatch_task,
        tokens_task,
        follower_task,
        derivation_task,
        retention_task,
        bus_task,
        indexer_task,
    })
}

fn listening(bound: &Bound, certificates: Option<Certificates>) -> Result<api::Listening> {
    let metrics = bound.metrics.as_ref().map(Server::local_addrs);
    Ok(api::Listening {
        addresses: bound.clients.local_addrs()?,
        metrics: metrics.transpose()?.unwrap_or_default(),
        usage: bound.clients.usage(),
        metrics_usage: bound.metrics.as_ref().map(Server::usage),
        certificates,
    })
}

/// Serves until `stop`.
fn serve(
    bound: Bound,
    certificates: Option<Certificates>,
    router: &Arc<api::Router>,
    reloads: watch::Receiver<u64>,
    stop: &CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    let Bound {
        mut clients,
        metrics,
    } = bound;
    if let Some(certificates) = certificates {
        let (config, routed) = (tls_config(Arc::new(certificates.clone())), router.clone());
        let on_plain = Arc::new(move |request: &_, peer| routed.note_plain(request, peer));
        clients = clients.with_tls(config, on_plain);
        tokio::spawn(certificates.follow(reloads, stop.clone()));
    }
    let routed = router.clone();
    let handler = Arc::new(move |request, peer| {
        let router = routed.clone();
        async move { router.handle(request, peer).await }
    });
    let clients = clients.serve(handler, stop.clone());
    let routed = router.clone();
    let handler = Arc::new(move |request, peer| {
        let router = routed.clone();
        async move { router.handle_metrics(request, peer).await }
    });
    let stop = stop.clone();
    let metrics = async move {
        if let Some(metrics) = metrics {
            // So its limits are not taken for those of the other port in the log.
            let serving = metrics.serve(handler, stop);
            serving
                .instrument(tracing::error_span!(METRICS_LISTEN))
                .await;
        }
    };
    join(clients, metrics).map(|_| ())
}

impl Running {
    /// Waits until a part ends although nobody asked it to. Cancel-safe.
    pub async fn failed(&mut self) -> anyhow::Error {
        let error = tokio::select! {
            biased;
            error = self.indexer_task.failed() => return error,
            error = self.follower_task.failed() => error,
            error = self.derivation_task.failed() => error,
            error = self.dispatch_task.failed() => error,
            error = self.tokens_task.failed() => error,
            error = self.retention_task.failed() => error,
            error = self.bus_task.failed() => error,
            error = self.server_task.failed() => error,
        };
        // When the indexer ends, the others do, and may be noticed before it: its reason is the one
        // to tell.
        if self.indexer.has_stopped() {
            self.indexer_task.failed().await
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
            late(&clients, "sessions of clients", self.router.shutdown()).await,
            late(&clients, "requests of clients", self.server_task.finish()).await,
            late(&clients, "dispatch", self.dispatch_task.finish()).await,
            late(&clients, "tokens", self.tokens_task.finish()).await,
            late(&clients, "bus", self.bus_task.finish()).await,
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
        for late in [
            late(&halfway, "retention", self.retention_task.finish()).await,
            late(&halfway, "derivation", self.derivation_task.finish()).await,
        ]
        .into_iter()
        .flatten()
        {
            tracing::warn!("{late}: going on without");
        }
        deadline.wait("indexer", self.indexer.stop()).await?;
        deadline
            .wait("indexer", self.indexer_task.finish())
            .await??;
        follower
    }
}

/// Whether a part does not end in time.
async fn late<T>(by: &Deadline, part: &'static str, end: impl Future<Output = T>) -> Option<Late> {
    by.wait(part, end).await.err()
}

/// A start that would be refused for want of tokens leaves the store alone.
async fn refuse_to_be_open(config: &Config, place: &auth::Place) -> Result<()> {
    let (path, place) = (config.store.path.clone(), place.clone());
    let looked = spawn_blocking(move || {
        // What is wrong with the store is told when it is opened.
        let remembered = store::remembered_auth(&path).ok().flatten();
        auth::outlook(&place, remembered.unwrap_or_default().mark)
    });
    looked.await??;
    Ok(())
}

/// The ports, and the credentials that it begins with there.
async fn serve_with(
    config: &Config,
    reader: &StoreReader,
) -> Result<(Bound, auth::Place, auth::AuthStart)> {
    let bound = bind(config).await?;
    // By what is listened on: a name may mean another address from one question to the next.
    let place = credentials(config, &bound.clients.local_addrs()?);
    let (at, remembered) = (place.clone(), reader.remembered_auth()?);
    let begun = spawn_blocking(move || auth::begin(&at, remembered, now_ms()));
    Ok((bound, place, begun.await??))
}

/// A start that cannot serve leaves the store alone, which may be one of an earlier format. It is
/// bound for good when there is something to serve.
async fn refuse_taken_port(config: &Config) -> Result<()> {
    let Err(error) = bind(config).await else {
        return Ok(());
    };
    let path = config.store.path.clone();
    match spawn_blocking(move || store::inspect(&path, None)).await? {
        // By the satwatch that listens there, presumably.
        Err(in_use @ StoreError::InUse { .. }) => bail!(in_use),
        _ => Err(error),
    }
}

/// Opens the store, with the chain that the node is on if the node answers.
async fn open_store(config: &Config) -> Result<(Option<DiscoveredNode>, Writer, StoreReader)> {
    let (mut pause, mut limit) = (Duration::from_millis(250), ANSWER);
    let stop = CancellationToken::new();
    // A start that is given up ends what still runs of it.
    let _stops = stop.clone().drop_guard();
    loop {
        let found = timeout(limit, bitcoind::find(&config.bitcoind)).await;
        let found = found.unwrap_or_else(|_| {
            let what = "bitcoind has not answered yet";
            Err(NodeError::new(NodeErrorKind::TimedOut, what))
        });
        limit = Duration::MAX;
        let chain = found.as_ref().ok().map(|found| found.chain);
        let path = config.store.path.clone();
        let stop = stop.clone();
        let opened = move || {
            let opened = store::open(&path, chain, now_ms(), &|| stop.is_cancelled());
            // By then nobody waits for it.
            if let Err(error @ StoreError::Stopped) = &opened {
                tracing::info!("{error}");
            }
            opened
        };
        let opened = spawn_blocking(opened)
            .await
            .context("opening the store panicked")?;
        match (opened, found) {
            (Ok((writer, reader)), Ok(found)) => return Ok((Some(found), writer, reader)),
            (Ok((writer, reader)), Err(error)) => {
                tracing::warn!("starting without the node, from what is known: {error}");
                return Ok((None, writer, reader));
            }
            (Err(StoreError::UnknownChain { .. }), Err(error))
                if error.retry() == Retry::Transient =>
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
    let loaded = spawn_blocking(move || indexer::load(&reader, key)).await;
    Ok(loaded.context("loading the state panicked")??)
}

/// Said at a start, and by `doctor`, where the settings expect others through a proxy and no token
/// is asked for.
pub const OPEN_BEHIND_PROXY: &str = "server.trusted_proxies or server.allowed_hosts expects others, through a proxy, and no token is asked for: \
     whoever the proxy lets through may do everything";

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

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;
    use crate::store::ChainInfo;

    #[tokio::test]
    async fn what_is_listened_on_decides_whether_others_reach_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let chain = ChainInfo {
            network: bitcoin::Network::Regtest,
            genesis: bitcoin::BlockHash::all_zeros(),
        };
        let opened = store::open(folder.path(), Some(chain), 0, &|| false);
        let (_writer, reader) = opened.expect("a new store");
        let mut config = Config::default();
        config.auth.tokens_file = Some(folder.path().join("tokens.toml"));
        // Whatever a name meant when it was asked before.
        for (listen, is_open) in [("127.0.0.1:0", true), ("0.0.0.0:0", false)] {
            config.server.listen = listen.parse().expect("an address");
            let served = serve_with(&config, &reader).await;
            assert_eq!(served.is_ok(), is_open, "{listen}");
        }
    }
}
