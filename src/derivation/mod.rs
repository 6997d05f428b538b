//! The scripts that descriptors want, derived and handed to the indexer.
//!
//! # Laws
//!
//! 1. What is wanted stands in the store ([`DescriptorRow::wants`](crate::tracker::DescriptorRow)).
//!    A wake-up only says that something changed; a dropped one is made good by a look. So what a
//!    stop or a power loss cut short goes on at the next start.
//! 2. It asks nothing of the node and goes on while that is away, which is why it is no part of
//!    `history`.
//! 3. Scripts are derived beside the runtime and beside the indexer, in portions of at most
//!    [`PORTION`]. A stop waits for one portion at most.
//! 4. A descriptor that wants few scripts is not held up by those that want many, nor those for
//!    ever by others: every second portion is for the one that is next ([`DerivationQueue`]).
//!
//! # Flow
//!
//! ```text
//! indexer: FollowUp::Derive --wake--> store: which are wanted --> portion --Derived--> indexer
//!                                                                    |
//!                                                  DerivedScripts: who waits reads the row again
//! ```

mod queue;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::ScriptBuf;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::now_ms;
use crate::descriptors::WalletDescriptor;
use crate::indexer::{self, InputRefused};
use crate::store::{StoreError, StoreReader};
use crate::tracker::{ApplyError, DescriptorId, DescriptorRow, Input};
use queue::{DerivationQueue, KeychainRange};

/// Scripts that are derived at once: the indexer needs less than ten milliseconds for them.
const PORTION: u32 = 500;
/// Between two looks at the store while scripts are derived: so long a new descriptor waits.
const BUSY_LOOK: Duration = Duration::from_millis(100);
/// The same without being told, and without anything to do.
const LOOK: Duration = Duration::from_secs(10);
/// Until scripts are tried again of which rows from before are still going.
const AGAIN: Duration = Duration::from_millis(200);
/// After so many scripts of a keychain their number is told.
const TOLD: u32 = 10_000;

/// Why no more scripts are derived. The daemon cannot go on: payments would be missed.
#[derive(Debug, thiserror::Error)]
pub enum DerivationError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was read when the descriptor was added.
    #[error("the descriptor {0} in the store cannot be read any more: {1}")]
    Unreadable(DescriptorId, String),
    #[error("the descriptor {0} has no scripts at index {1}, which the store says that it has")]
    NoScripts(DescriptorId, u32),
    #[error("scripts of the descriptor {0} are refused: {1}")]
    Refused(DescriptorId, ApplyError),
}

/// Derives until it is told to stop.
pub struct DerivationTask {
    reader: StoreReader,
    indexer: indexer::Handle,
    portions: watch::Sender<()>,
    wanted: DerivationQueue,
    look_at: Instant,
    /// Of the descriptors that want scripts.
    parsed: HashMap<DescriptorId, Arc<WalletDescriptor>>,
}

/// For those who wait until a descriptor has its scripts.
#[derive(Clone)]
pub struct DerivedScripts {
    reader: StoreReader,
    portions: watch::Receiver<()>,
}

impl DerivedScripts {
    /// Whether no more scripts are derived: the daemon stops.
    pub fn has_ended(&self) -> bool {
        self.portions.has_changed().is_err()
    }

    /// The row of a descriptor, as soon as it is as asked for, such as
    /// [`DescriptorRow::is_derived`]. `None`: there is no such descriptor any more, or the daemon
    /// stops.
    pub async fn wait_for(
        &self,
        descriptor: &DescriptorId,
        is_enough: impl Fn(&DescriptorRow) -> bool,
    ) -> Result<Option<DescriptorRow>, StoreError> {
        let mut portions = self.portions.clone();
        loop {
            portions.mark_unchanged();
            let row = self.reader.snapshot().descriptor(descriptor)?;
            if row.as_ref().is_none_or(&is_enough) {
                return Ok(row);
            }
            if portions.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

impl DerivationTask {
    pub fn new(reader: StoreReader, indexer: indexer::Handle) -> (Self, DerivedScripts) {
        let (portions, derived) = watch::channel(());
        let waiting = DerivedScripts {
            reader: reader.clone(),
            portions: derived,
        };
        let derivation = Self {
            reader,
            indexer,
            portions,
            wanted: DerivationQueue::default(),
            look_at: Instant::now(),
            parsed: HashMap::new(),
        };
        (derivation, waiting)
    }

    /// Until it is told to stop, or the indexer has ended.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), DerivationError> {
        let wake = self.indexer.derive();
        while !stop.is_cancelled() && !self.indexer.has_stopped() {
            if self.look_at <= Instant::now() {
                self.look().await?;
            }
            if let Some(wanted) = self.wanted.next() {
                self.derive(wanted).await?;
                continue;
            }
            self.parsed.clear();
            tokio::select! {
                () = wake.notified() => self.look_at = Instant::now(),
                () = tokio::time::sleep_until(self.look_at) => {}
                () = stop.cancelled() => {}
                () = self.indexer.stopped() => {}
            }
        }
        Ok(())
    }

    /// Reads what is wanted.
    async fn look(&mut self) -> Result<(), DerivationError> {
        let reader = self.reader.clone();
        let wanted = blocking(move || Ok(queue::read(&reader)?)).await?;
        self.wanted.replace(wanted);
        let pause = match self.wanted.is_empty() {
            true => LOOK,
            false => BUSY_LOOK,
        };
        self.look_at = Instant::now() + pause;
        // Who waits for a descriptor that was removed hears of it.
        self.portions.send_replace(());
        Ok(())
    }

    /// A portion of what is wanted.
    async fn derive(&mut self, wanted: KeychainRange) -> Result<(), DerivationError> {
        let (descriptor, keychain, first) = (wanted.descriptor, wanted.keychain, wanted.from);
        let Some(spks) = self.portion(wanted).await? else {
            // It was removed.
            self.wanted.remove(&wanted);
            return Ok(());
        };
        let count = u32::try_from(spks.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return Err(DerivationError::NoScripts(descriptor, first));
        }
        let input = Input::Derived {
            descriptor,
            keychain,
            first,
            spks,
            now: now_ms(),
        };
        match self.indexer.apply(input).await {
            Ok(_) => {
                self.wanted.advance(&wanted, count);
                tell(&wanted, count);
                self.portions.send_replace(());
            }
            // As soon as it ends the loop does.
            Err(InputRefused::Stopped(_)) => {}
            Err(InputRefused::Apply(ApplyError::StillForgetting(_))) => {
                self.wanted.remove(&wanted);
                self.look_at = Instant::now() + AGAIN;
            }
            Err(InputRefused::Apply(ApplyError::NotDerivedTo(_))) => {
                self.wanted.remove(&wanted);
                self.look_at = Instant::now();
            }
            Err(InputRefused::Apply(error)) => {
                return Err(DerivationError::Refused(descriptor, error));
            }
        }
        Ok(())
    }

    /// The first scripts of it; `None`: there is no such descriptor any more.
    async fn portion(
        &mut self,
        wanted: KeychainRange,
    ) -> Result<Option<Vec<ScriptBuf>>, DerivationError> {
        let known = self.parsed.get(&wanted.descriptor).cloned();
        let reader = self.reader.clone();
        let derived = blocking(move || {
            let parsed = match known {
                Some(parsed) => Some(parsed),
                None => parse(&reader, wanted.descriptor)?,
            };
            Ok(parsed.map(|parsed| {
                let to = wanted.to.min(wanted.from.saturating_add(PORTION));
                let spks = parsed.derive(wanted.keychain as usize, wanted.from..to);
                (parsed, spks)
            }))
        });
        let Some((parsed, spks)) = derived.await? else {
            return Ok(None);
        };
        self.parsed.insert(wanted.descriptor, parsed);
        Ok(Some(spks))
    }
}

/// `None`: there is no such descriptor any more.
fn parse(
    reader: &StoreReader,
    descriptor: DescriptorId,
) -> Result<Option<Arc<WalletDescriptor>>, DerivationError> {
    let Some(wallet) = reader.snapshot().wallet(&descriptor)? else {
        return Ok(None);
    };
    let parsed = WalletDescriptor::parse(&wallet.text, reader.chain().network);
    let parsed = parsed.map_err(|problem| {
        // What it says names no more of the text than short pieces.
        DerivationError::Unreadable(descriptor, problem.to_string())
    })?;
    Ok(Some(Arc::new(parsed)))
}

fn tell(wanted: &KeychainRange, count: u32) {
    let KeychainRange {
        descriptor,
        keychain,
        from,
        to,
    } = wanted;
    let next = from.saturating_add(count);
    tracing::debug!(
        "derived the scripts {from} to {next} ({keychain:?}) of descriptor {descriptor}"
    );
    let left = to.saturating_sub(next);
    if from / TOLD != next / TOLD && left > 0 {
        tracing::info!(
            "descriptor {descriptor}: {next} scripts are derived ({keychain:?}), {left} are left"
        );
    }
}

/// Work that takes long or reads much, beside the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DerivationError> + Send + 'static,
) -> Result<T, DerivationError> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends: so does whoever waits for this.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
