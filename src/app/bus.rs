//! The bus, if there is one.

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::task::Task;
use crate::api;
use crate::bus::{BusParts, BusStatus, BusTask};
use crate::config::Config;
use crate::store::StoreReader;

/// With `bus.url`.
pub fn build(
    config: &Config,
    reader: &StoreReader,
) -> (Option<BusTask>, Option<watch::Receiver<BusStatus>>) {
    let parts = |url| BusParts {
        settings: config.bus.clone(),
        url,
        reader: reader.clone(),
    };
    let url = config.bus.url.clone();
    url.map(|url| BusTask::new(parts(url))).unzip()
}

/// Until `stop`.
pub fn spawn(bus: Option<BusTask>, upkeep: &api::Upkeep, stop: &CancellationToken) -> Task {
    let Some(bus) = bus else {
        return Task::none("bus");
    };
    let (log, dispatch) = upkeep.event_log();
    Task::spawn("bus", bus.run(log, dispatch, stop.clone()).map(Ok))
}
