//! What `satwatch edge` will need, tried out.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use tokio::time::timeout;

use super::Report;
use crate::app;
use crate::bus;
use crate::bus::keys::log_id;
use crate::bus::stream::{Stream, StreamParts};
use crate::config::Config;
use crate::primary::{self, EdgeState, PrimaryClient};
use crate::remedy::Remedy;

/// For the primary, and for the stream, to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Primary and stream. `is_exposed`: others reach the edge.
pub async fn examine(config: &Config, is_exposed: bool, report: &mut Report<impl Write>) {
    if let Some((what, remedy)) = app::edge_problem(config) {
        return report.bad(&format!("edge: {what}"), Some(remedy));
    }
    let Some(upstream) = &config.edge.upstream else {
        return;
    };
    let client = match app::primary_client(config, upstream) {
        Ok(client) => client,
        Err(error) => return report.bad(&format!("edge: {error:#}"), None),
    };
    let state = match timeout(PATIENCE, primary::ask_once(&client)).await {
        Ok(Ok(state)) => state,
        Ok(Err(unfit)) => return report.bad(&format!("edge: {unfit}"), None),
        Err(_) => {
            let what = format!("edge: no primary answers at {upstream}");
            return report.bad(&what, Some(Remedy::StartPrimary));
        }
    };
    match state.check(is_exposed) {
        Ok(()) => report.well(&format!(
            "edge: the primary at {upstream} answers, on {}",
            state.network
        )),
        Err(unfit) => report.bad(&format!("edge: {unfit}"), None),
    }
    examine_stream(config, &client, &state, report).await;
}

async fn examine_stream(
    config: &Config,
    client: &PrimaryClient,
    state: &EdgeState,
    report: &mut Report<impl Write>,
) {
    let network = Network::from_core_arg(&state.network);
    let (Some(url), Ok(network)) = (config.bus.url.clone(), network) else {
        return;
    };
    let (stream, status) = Stream::new(StreamParts {
        url,
        stream: config.bus.stream.clone(),
        network,
        older: Arc::new(client.clone()),
    });
    let begun = timeout(PATIENCE, stream.begin()).await;
    let starts = begun.map(|begun| begun.encoder.starts());
    let status = status.borrow().clone();
    match status.problem {
        None if starts
            .as_ref()
            .is_ok_and(|it| log_id(it) != Some(state.log_id())) =>
        {
            let what = "edge: the stream is of another log than that of the primary";
            report.bad(what, Some(Remedy::NameBus));
        }
        None if starts.is_ok() => {
            let key = status.stream.unwrap_or_default();
            report.well(&format!("edge: the stream {key} is at {}", status.url));
        }
        Some(problem) => report.bad(
            &format!("edge: {problem}"),
            problem.remedy(bus::Side::Reader),
        ),
        None => report.bad(
            &format!("edge: Redis does not answer at {}", status.url),
            Some(Remedy::ReachRedis),
        ),
    }
}
