//! Settings that are read again while the daemon runs (`SIGHUP`): the limits are taken over, the
//! rest takes a restart.
//!
//! Each time they are read from the same sources and looked at as a whole, as at a start. If
//! anything is wrong with them, all stays as it is.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::limits::Layers;
use crate::config::{Config, ConfigError, Limits, SettingsStatus};

/// Reads the settings from the sources that the daemon was started with.
pub type ReadSettings = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

pub struct Reread {
    pub in_force: Config,
    pub read: ReadSettings,
    /// The owner of those in force.
    pub limits: watch::Sender<Limits>,
    pub status: watch::Sender<SettingsStatus>,
    pub layers: Layers,
}

impl Reread {
    /// Reads them with each change of `reloads`, until `stop`.
    pub async fn run(mut self, mut reloads: watch::Receiver<u64>, stop: CancellationToken) {
        while let Some(Ok(())) = stop.run_until_cancelled(reloads.changed()).await {
            let read = self.read.clone();
            match spawn_blocking(move || read()).await {
                Ok(Ok(next)) => self.take_over(&next),
                Ok(Err(error)) => self.refuse(error),
                Err(cause) => tracing::error!(%cause, "the settings were not read again"),
            }
        }
    }

    fn take_over(&mut self, next: &Config) {
        let changes = self.in_force.changes(next);
        if !changes.limits.is_empty() {
            self.in_force.limits = next.limits.clone();
            self.limits.send_replace(next.limits.clone());
            self.layers
                .set(&next.limits, &self.in_force.server.trusted_proxies);
        }
        let listed: Vec<String> = changes.limits.iter().map(ToString::to_string).collect();
        match listed.is_empty() {
            true => tracing::info!("the settings were read again; no limit has changed"),
            false => tracing::info!("the settings were read again: {}", listed.join(", ")),
        }
        for warning in &next.no_longer_needed {
            tracing::warn!("{warning}");
        }
        if !changes.take_restart.is_empty() {
            let names = changes.take_restart.join(", ");
            tracing::warn!("settings that differ from those in force and take a restart: {names}");
        }
        self.status.send_replace(SettingsStatus {
            problem: None,
            take_restart: changes.take_restart,
        });
    }

    fn refuse(&self, error: ConfigError) {
        for problem in &error.problems {
            tracing::warn!("{problem}");
        }
        tracing::warn!(
            "the settings of before stay in force, because what was read again is no good"
        );
        let problem = Some(error);
        self.status.send_modify(|status| status.problem = problem);
    }
}
