//! One stop signal, and one deadline that all parts share when they end.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

/// A signal that comes so soon after another does not ask for more: a process group and its
/// supervisor send such pairs.
const MOMENT: Duration = Duration::from_secs(1);

/// The signals of the process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    reloads: watch::Sender<u64>,
}

impl Signals {
    /// From here on the signals no longer end the process by themselves. Needs a tokio runtime.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            reloads: watch::Sender::new(0),
        })
    }

    /// Changes with each `SIGHUP`, as long as somebody waits for the other signals.
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.reloads.subscribe()
    }

    /// Waits for a signal that asks us to stop and names it. `SIGHUP` is passed on to
    /// [`Self::reloads`].
    /// Cancel-safe.
    pub async fn stop(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: settings, tokens and certificates are read again");
                    self.reloads.send_modify(|count| *count += 1);
                }
            }
        }
    }
}

impl Signals {
    /// Waits for a further signal that asks us to stop, of somebody who does not want to wait.
    pub async fn stop_again(&mut self) -> &'static str {
        let moment = sleep(MOMENT);
        tokio::pin!(moment);
        loop {
            tokio::select! {
                biased;
                _ = self.stop() => {}
                () = &mut moment => break,
            }
        }
        self.stop().await
    }
}

/// When everything has to be over.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

/// A part that did not end in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {0} did not end in time")]
pub struct Late(pub &'static str);

impl Deadline {
    pub fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// Waits for the end of `part`, at most until the deadline.
    pub async fn wait<T>(
        self,
        part: &'static str,
        end: impl Future<Output = T>,
    ) -> Result<T, Late> {
        timeout_at(self.0, end).await.map_err(|_| Late(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn parts_share_one_deadline() {
        let deadline = Deadline::after(Duration::from_secs(5));
        assert_eq!(
            deadline
                .wait("first", tokio::time::sleep(Duration::from_secs(4)))
                .await,
            Ok(())
        );
        assert_eq!(
            deadline
                .wait("second", tokio::time::sleep(Duration::from_secs(4)))
                .await,
            Err(Late("second"))
        );
        assert_eq!(
            deadline.wait("third", async { 3 }).await,
            Ok(3),
            "what has ended already is not late"
        );
    }
}
