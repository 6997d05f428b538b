//! A part of the daemon that runs by itself.

use anyhow::{Context, Result, anyhow};
use tokio::task::JoinHandle;

/// A part that runs until it is told to end.
pub struct Task {
    name: &'static str,
    /// `None` once its end has been told.
    end: Option<JoinHandle<Result<()>>>,
}

impl Task {
    /// `run`: until it is told to end.
    pub fn spawn(
        name: &'static str,
        run: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Self {
        Self {
            name,
            end: Some(tokio::spawn(run)),
        }
    }

    /// In place of a part that there is not.
    pub fn none(name: &'static str) -> Self {
        Self { name, end: None }
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

    /// Its end, when nobody asked for it; for ever pending once somebody was told.
    pub async fn failed(&mut self) -> anyhow::Error {
        if self.end.is_none() {
            return std::future::pending().await;
        }
        match self.ended().await {
            Ok(()) => anyhow!("the {} ended by itself", self.name),
            Err(error) => error,
        }
    }

    /// Its end, if nobody was told before.
    pub async fn finish(mut self) -> Result<()> {
        self.ended().await
    }
}
