//! Webhooks: a consumer with a URL has its events posted there (Standard Webhooks:
//! standardwebhooks.com).
//!
//! # Laws
//!
//! 1. Every event that the consumer wants is posted until the receiver answers 2xx or it becomes a
//!    dead letter. What the receiver took may come again, with the same `webhook-id`, when the
//!    answer was lost or the daemon ended before it was written down.
//! 2. Events are spread over [`partitions::PARTITIONS`] partitions by script; blocks and reorgs are
//!    in one of them. Those of a partition come in the order of their numbers, one at a time. A
//!    failing event holds up those behind it in its partition until it is given up, and no others.
//! 3. Memory is bounded: only numbers are kept, at most [`partitions::WINDOW`] of each partition;
//!    the event is read again when it is sent.
//! 4. What became of an event is in the store before the next step counts on it; the consumer's
//!    place is before the oldest event that nothing has become of. How far each partition is
//!    beyond it has a row, and so has a failing event: since when it fails outlives restarts. Time
//!    in which the daemon was off does not count.
//! 5. A receiver that answers 410 gets nothing more until a person resumes the webhook, with
//!    `retry` or with `PUT`. Its events wait, and their failures before do not count then.
//! 6. Nothing is posted to addresses that are not on the public internet, whatever a name resolves
//!    to, unless a setting allows it ([`targets`]).
//! 7. Secrets are never shown: keys, values of headers, what may be a token in a URL ([`hidden`]).
//!
//! ```text
//! signature     secrets and signatures
//! definition    what PUT says of a webhook
//! targets       where may be posted to, and on which way; addresses: which are public
//! lookup        addresses of names, apart from the reads of the store
//! hidden        what is not shown
//! partitions    what is sent when: order, back-off, giving up; pure
//! sender        one request and its answer
//! task          one for each webhook: log -> partitions -> attempt -> rows
//! attempt       event -> sender -> what came of it; time and chance
//! dead_letters  what people ask of dead letters, and to try again, done by the task
//! stats         how each is doing
//! requests      what people ask of a webhook, with its answers
//! ```

mod addresses;
mod attempt;
mod dead_letters;
mod definition;
mod hidden;
mod lookup;
mod partitions;
mod requests;
mod sender;
mod signature;
mod stats;
mod targets;
mod task;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::consumers::{Consumer, Consumers};
use crate::events::{self, EventLog};
use crate::reads::Reads;
use crate::store::StoreReader;
use crate::wire::EventEncoder;
use crate::wire::error::ApiError;
use crate::wire::json;
use crate::{config, indexer};
pub use definition::{Headers, SigningSecrets, Target, TargetRequest, target};
pub use requests::{Retried, Tested};
use sender::HttpSender;
pub use sender::Record;
pub use stats::{Shown, WebhookState, WebhookStats, WebhookWord};

/// Requests to one webhook's task that may wait.
const COMMANDS: usize = 16;

/// What webhooks stand on.
pub struct WebhookParts {
    pub settings: config::Webhooks,
    pub consumers: Arc<Consumers>,
    pub reader: StoreReader,
    pub reads: Reads,
    pub indexer: indexer::Handle,
    pub log: Arc<EventLog>,
    pub dispatch: events::Handle,
    /// Ends them all.
    pub stop: CancellationToken,
}

/// All webhooks that are at work.
pub struct Webhooks {
    parts: WebhookParts,
    /// Made for the first webhook: it reads the system's root certificates.
    sender: OnceLock<HttpSender>,
    handles: Mutex<BTreeMap<String, Arc<WebhookHandle>>>,
}

/// Where one webhook's task takes requests and shows how it is doing.
struct WebhookHandle {
    commands: mpsc::Sender<Command>,
    stats: Mutex<WebhookStats>,
    /// Held by a test delivery.
    testing: Semaphore,
    /// The task has ended.
    closed: CancellationToken,
}

type CommandReply<T> = oneshot::Sender<Result<T, ApiError>>;

/// What people ask of a webhook's task.
enum Command {
    /// Send these dead letters, or all, again. How many.
    Resend {
        numbers: Option<Vec<u64>>,
        answer: CommandReply<usize>,
    },
    /// Forget this dead letter, or all. How many.
    Drop {
        number: Option<u64>,
        answer: CommandReply<usize>,
    },
    /// Send what waits, now; a webhook that is stopped goes on. `if_stopped`: only such a one.
    Retry {
        if_stopped: bool,
        answer: CommandReply<Retried>,
    },
}

impl Webhooks {
    pub fn new(parts: WebhookParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            sender: OnceLock::new(),
            handles: Mutex::default(),
        })
    }

    /// Starts those that are defined already.
    pub fn start(self: &Arc<Self>) {
        for consumer in self.parts.consumers.all() {
            self.spawn(&consumer);
        }
    }

    /// Starts to post the consumer's events if it has a webhook; ends with the consumer, or when
    /// the daemon stops.
    pub fn spawn(self: &Arc<Self>, consumer: &Arc<Consumer>) {
        if consumer.wants.webhook.is_none() {
            return;
        }
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let handle = Arc::new(WebhookHandle {
            commands,
            stats: Mutex::default(),
            testing: Semaphore::new(1),
            closed: CancellationToken::new(),
        });
        let before = {
            let mut handles = self.lock();
            if consumer.ended.is_cancelled() {
                // A newer definition has overtaken this one: its handle must stay.
                return;
            }
            handles.insert(consumer.name.clone(), handle.clone())
        };
        let (webhooks, consumer) = (self.clone(), consumer.clone());
        tokio::spawn(async move {
            let _closed = handle.closed.clone().drop_guard();
            if let Some(before) = before {
                // Two at once could send two events of a partition at once.
                before.closed.cancelled().await;
            }
            task::run(&webhooks, &consumer, &handle, inbox).await;
            let mut handles = webhooks.lock();
            handles.retain(|_, other| !Arc::ptr_eq(other, &handle));
        });
    }

    fn encoder(&self) -> &EventEncoder {
        &self.parts.log.encoder
    }

    fn sender(&self) -> &HttpSender {
        self.sender
            .get_or_init(|| HttpSender::new(&self.parts.settings))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<WebhookHandle>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is at work.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.lock().is_empty()
    }

    fn handle(&self, name: &str) -> Option<Arc<WebhookHandle>> {
        self.lock().get(name).cloned()
    }
}

impl WebhookHandle {
    fn stats(&self) -> MutexGuard<'_, WebhookStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the task; an error when it has ended.
    async fn ask<T>(
        &self,
        command: impl FnOnce(CommandReply<T>) -> Command,
    ) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.commands.send(command(answer)).await;
        sent.map_err(|_| changed())?;
        answered.await.map_err(|_| changed())?
    }
}

fn changed() -> ApiError {
    ApiError::conflict(
        "consumer_changed",
        "The consumer was just changed, or the daemon stops; ask again.",
    )
}

/// The body of a delivery. `data` is JSON: byte for byte what subscribers of the socket get.
fn body(
    consumer: &str,
    cursor: Option<&str>,
    event: &'static str,
    data: String,
) -> Result<String, ApiError> {
    #[derive(Serialize)]
    struct DeliveryBody<'a> {
        consumer: &'a str,
        cursor: Option<&'a str>,
        event: &'static str,
        data: Box<RawValue>,
    }
    let data = RawValue::from_string(data).map_err(|cause| ApiError::internal(&cause))?;
    Ok(json::to_text(&DeliveryBody {
        consumer,
        cursor,
        event,
        data,
    }))
}
