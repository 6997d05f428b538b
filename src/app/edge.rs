//! `satwatch edge`: the log of another daemon, its primary, served from the stream on Redis.
//!
//! ```text
//! start   port is free ─► primary answers ─► stream is there ─► port ─► dispatch, router ─► server
//! stop    server (accepts nothing) ─► waiting requests, sessions, dispatch
//! ```
//! When the stream turns out to be of another log, or the primary has not been heard of for so long
//! that tokens may have been revoked, all of that is taken down and begun anew: who comes back is
//! judged by what holds then.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bitcoin::Network;
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::limits::{Layers, socketio_config};
use super::listen::{bind, credentials, listen_addresses};
use super::reread::{ReadSettings, Reread};
use super::task::Task;
use super::{CLIENTS_TIME, late, listening, serve, warn_of_open_origins};
use crate::api::{self, EdgeParts};
use crate::bus::BusStatus;
use crate::bus::keys::log_id;
use crate::bus::stream::{BegunStream, Stream, StreamEnd, StreamParts};
use crate::certificates::{CertificateFiles, Certificates};
use crate::config::{self, Config};
use crate::events::{self, EventLog, Given, Reader, Selection};
use crate::primary::{self, Admission, EdgeState, Following, Heard, PrimaryClient, Unfit};
use crate::remedy::Remedy;
use crate::shutdown::Deadline;

/// Why these settings are none of an edge.
pub fn edge_problem(config: &Config) -> Option<(&'static str, Remedy)> {
    let upstream = config
        .edge
        .upstream
        .is_none()
        .then_some(("edge.upstream is not set", Remedy::NameUpstream));
    let bus = config
        .bus
        .url
        .is_none()
        .then_some(("bus.url is not set", Remedy::NameBus));
    upstream.or(bus)
}

/// Asks the primary at this URL.
pub fn primary_client(config: &Config, upstream: &str) -> Result<PrimaryClient> {
    let client = PrimaryClient::new(&config.edge, upstream);
    client.context("edge.upstream")
}

/// Between two looks whether stream and primary have the same log.
const PAUSE: Duration = Duration::from_secs(1);

/// Why one log is not served any more.
enum End {
    Stopped,
    /// All is to be begun anew, for this reason.
    Anew(String),
    Failed(anyhow::Error),
}

/// Serves until `stop`.
pub async fn run_edge(
    mut config: Config,
    read: ReadSettings,
    reloads: watch::Receiver<u64>,
    stop: CancellationToken,
) -> Result<()> {
    let (Some(upstream), Some(url)) = (config.edge.upstream.clone(), config.bus.url.clone()) else {
        let problem = edge_problem(&config).map(|(what, remedy)| format!("{what}: {remedy}"));
        bail!(problem.unwrap_or_default());
    };
    // A start that cannot serve waits for nobody.
    drop(bind(&config).await?);
    let client = primary_client(&config, &upstream)?;
    let Some(first) = stop.run_until_cancelled(primary::first(&client)).await else {
        return Ok(());
    };
    let first = first?;
    let addresses = listen_addresses(&config.server.listen).await?;
    let is_exposed = credentials(&config, &addresses).exposed.is_some();
    let network = Network::from_core_arg(&first.network).with_context(|| {
        format!(
            "the primary is on {}, which is not known here",
            first.network
        )
    })?;
    let (stream, stream_status) = Stream::new(StreamParts {
        url,
        stream: config.bus.stream.clone(),
        network,
        older: Arc::new(client.clone()),
    });
    first.check(is_exposed)?;
    let mut state = first;
    loop {
        let begun = stop
            .run_until_cancelled(begin(&client, &stream, state, is_exposed))
            .await;
        let Some(begun) = begun else {
            return Ok(());
        };
        let (begun, agreed) = begun?;
        let edge = Edge {
            config: Arc::new(config.clone()),
            read: read.clone(),
            reloads: reloads.clone(),
            client: client.clone(),
            state: agreed,
            is_exposed,
            stream: stream_status.clone(),
        };
        let (end, port) = edge.serve(begun, &stop).await?;
        match end {
            End::Stopped => return Ok(()),
            End::Failed(error) => return Err(error),
            End::Anew(why) => {
                tracing::warn!("{why}: clients are sent away, and judged anew when they come back");
                // The one that was picked, if it was picked.
                config.server.listen.port = port;
                let Some(again) = stop.run_until_cancelled(primary::first(&client)).await else {
                    return Ok(());
                };
                state = again?;
            }
        }
    }
}

/// The stream, once it is of the log that the primary has.
async fn begin(
    client: &PrimaryClient,
    stream: &Stream,
    mut state: EdgeState,
    is_exposed: bool,
) -> Result<(BegunStream, EdgeState)> {
    let mut is_told = false;
    loop {
        state.check_again(is_exposed)?;
        let begun = stream.begin().await;
        if log_id(&begun.encoder.starts()) == Some(state.log_id()) {
            return Ok((begun, state));
        }
        if !is_told {
            tracing::warn!(
                "the stream is of another log than that of the primary: {}",
                Remedy::NameBus
            );
            is_told = true;
        }
        sleep(PAUSE).await;
        state = primary::first(client).await?;
    }
}

/// What one log is served with.
struct Edge {
    config: Arc<Config>,
    read: ReadSettings,
    reloads: watch::Receiver<u64>,
    client: PrimaryClient,
    state: EdgeState,
    is_exposed: bool,
    stream: watch::Receiver<BusStatus>,
}

impl Edge {
    /// Until `stop`, until all is to be begun anew, or until something fails; and the port.
    async fn serve(self, begun: BegunStream, stop: &CancellationToken) -> Result<(End, u16)> {
        let config = self.config;
        let stop = stop.child_token();
        let bound = bind(&config).await?;
        let certificates = match CertificateFiles::of(&config.tls) {
            Some(files) => Some(Certificates::load(files).context("TLS")?),
            None => None,
        };
        let listening = listening(&bound, certificates.clone())?;
        let port = listening.addresses.first().map_or(0, |it| it.port());
        let (urls, metrics_at) = (listening.urls(), listening.metrics.clone());
        let (in_use, metrics_in_use) = (listening.usage.clone(), listening.metrics_usage.clone());

        let admission = Admission::new(self.client.clone(), &self.state);
        let (following, primary) = Following::new(
            self.client.clone(),
            admission.clone(),
            self.state,
            self.is_exposed,
        );
        let tips = following.tips();
        let log = EventLog::new(begun.source, begun.encoder, begun.head);
        let (limits, limits_seen) = watch::channel(config.limits.clone());
        let (router, dispatch, dispatch_end) = api::start_edge(EdgeParts {
            log: log.clone(),
            client: self.client,
            admission,
            primary,
            stream: self.stream,
            places: begun.places,
            config: config.clone(),
            limits: limits_seen,
            listening,
            socketio: socketio_config(&config.limits),
            stop: stop.clone(),
        });
        let reread = Reread {
            in_force: Config::clone(&config),
            read: self.read,
            limits,
            status: watch::channel(config::SettingsStatus::default()).0,
            layers: Layers {
                clients: in_use,
                metrics: metrics_in_use,
                router: router.clone(),
            },
        };
        tokio::spawn(reread.run(self.reloads.clone(), stop.clone()));
        let blocks = follow_blocks(log.clone(), dispatch, tips);
        let blocks = stop.clone().run_until_cancelled_owned(blocks);
        tokio::spawn(blocks);
        let mut dispatch_task = Task::spawn("dispatch", async { Ok(dispatch_end.await??) });
        let mut following_task =
            Task::spawn("primary", following.run(stop.clone()).map(|it| Ok(it?)));
        let serving = serve(bound, certificates, &router, self.reloads, &stop);
        let mut server_task = Task::spawn("server", serving.map(Ok));
        warn_of_open_origins(&config.server);
        tracing::info!("listening on {}", urls.join(" and "));
        for address in metrics_at {
            tracing::info!("metrics and health at http://{address}");
        }
        let end = tokio::select! {
            biased;
            () = stop.cancelled() => End::Stopped,
            StreamEnd::OtherLog = begun.follower.run(&log) => {
                End::Anew("the stream is of another log now".to_owned())
            }
            error = dispatch_task.failed() => End::Failed(error),
            error = following_task.failed() => match error.downcast_ref() {
                Some(unfit @ (Unfit::OtherLog | Unfit::Silent { .. })) => {
                    End::Anew(unfit.to_string())
                }
                _ => End::Failed(error),
            },
            error = server_task.failed() => End::Failed(error),
        };
        stop.cancel();
        let by = Deadline::after(CLIENTS_TIME * 2);
        for late in [
            late(&by, "sessions of clients", router.shutdown()).await,
            late(&by, "requests of clients", server_task.finish()).await,
            late(&by, "dispatch", dispatch_task.finish()).await,
            late(&by, "primary", following_task.finish()).await,
        ]
        .into_iter()
        .flatten()
        {
            tracing::info!("{late}: going on without");
        }
        Ok((end, port))
    }
}

/// Has the state name the last block of the stream, which may be newer than what the primary told
/// last. Until the log ends.
async fn follow_blocks(log: Arc<EventLog>, dispatch: events::Handle, state: watch::Sender<Heard>) {
    let blocks = Selection {
        scripts: Some(Arc::default()),
        descriptors: Some(Arc::default()),
        blocks: true,
    };
    let mut reader: Reader<()> = Reader::of_selection(&log, &dispatch, blocks, log.head());
    if reader.follow().await.is_err() {
        return;
    }
    while let Ok(given) = reader.next().await {
        let Given::Event(entry) = given else {
            continue;
        };
        let told = entry.encoded(&log.encoder);
        let block = told.filter(|event| event.name() == "block");
        let tip = block.and_then(|event| serde_json::from_str(event.json()).ok());
        if let Some(tip) = tip {
            state.send_modify(|heard| heard.state.tip = Some(tip));
        }
    }
}
