//! Carries out what the exporter says: reads the log, and runs the scripts.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Place, TakeWords};
use super::entry::Entry;
use super::exporter::{Exporter, Position, RENEW, Span, Step, Take};
use super::keys::{Keys, starts_to_json};
use super::problem::{Problem, Side};
use super::status::{BusStatus, StatusReporter};
use crate::config::{Bus, BusUrl};
use crate::events::{self, EventLog, LogEntry, PageError, Reader, Selection};
use crate::store::StoreReader;
use crate::wire::EventEncoder;
use crate::wire::address::network_name;

/// Events of one script.
const BATCH: usize = 500;
/// For giving the lease back at a stop; then it lapses.
const RELEASE: std::time::Duration = std::time::Duration::from_millis(500);

/// What the task stands on.
pub struct BusParts {
    pub settings: Bus,
    pub url: BusUrl,
    pub reader: StoreReader,
}

/// Writes the log to Redis.
pub struct BusTask {
    place: Place,
    max_length: u64,
    network: &'static str,
    store: StoreReader,
    exporter: Exporter,
    connection: Option<Connection>,
    reporter: StatusReporter,
    /// When the lease is renewed if there is nothing to write.
    renew_at: Instant,
}

/// One event as it is sent.
struct Ready {
    entry: Arc<LogEntry>,
    after: u64,
    subject: String,
    cursor: String,
}

impl BusTask {
    pub fn new(parts: BusParts) -> (Self, watch::Receiver<BusStatus>) {
        let BusParts {
            settings,
            url,
            reader,
        } = parts;
        let network = reader.chain().network;
        let (reporter, seen) = StatusReporter::new(Side::Writer, url.to_string());
        let keys = Keys::new(settings.stream.as_deref(), network);
        let (network, max_length) = (network_name(network), settings.max_length);
        let task = Self {
            place: Place { url, keys },
            max_length,
            network,
            exporter: Exporter::new(reader.starts().as_ref().clone(), network, max_length),
            store: reader,
            connection: None,
            reporter,
            renew_at: Instant::now(),
        };
        (task, seen)
    }

    /// Until it is told to stop; gives the lease back then.
    pub async fn run(
        mut self,
        log: Arc<EventLog>,
        dispatch: events::Handle,
        stop: CancellationToken,
    ) {
        stop.run_until_cancelled(self.work(&log, &dispatch)).await;
        // Also when what it did last was not answered.
        if let Some(connection) = &mut self.connection {
            let released = timeout(RELEASE, connection.release(self.exporter.writer())).await;
            if !matches!(released, Ok(Ok(()))) {
                tracing::debug!("the lease of the bus was not given back, and lapses");
            }
        }
    }

    async fn work(&mut self, log: &Arc<EventLog>, dispatch: &events::Handle) {
        let everything = Selection {
            scripts: None,
            descriptors: None,
            blocks: true,
        };
        let mut reader = Reader::of_selection(log, dispatch, everything, log.head());
        loop {
            match self.exporter.step().clone() {
                Step::Wait(pause) => {
                    if let Some(problem) = self.exporter.problem() {
                        self.reporter.waiting(problem);
                    }
                    sleep(pause).await;
                    self.exporter.waited();
                }
                Step::Look => self.look(log).await,
                Step::Take(take) => self.take(&take, log).await,
                Step::Write(at) => self.write(&at, log, &mut reader).await,
            }
        }
    }

    fn failed(&mut self, problem: Problem) {
        self.connection = None;
        self.exporter.failed(problem);
    }

    async fn look(&mut self, log: &EventLog) {
        if self.connection.is_none() {
            match Connection::open(&self.place).await {
                Ok(connection) => self.connection = Some(connection),
                Err(problem) => return self.failed(problem),
            }
        }
        let Some(connection) = &mut self.connection else {
            return;
        };
        let found = match connection.look().await {
            Ok(found) => found,
            Err(problem) => return self.failed(problem),
        };
        let store = self.store.clone();
        let first = spawn_blocking(move || store.first_seq()).await;
        let Ok(Ok(first)) = first else {
            // Dispatch reads the same store, and the daemon ends with it.
            return std::future::pending().await;
        };
        let head = log.head();
        self.exporter.looked(&found, Span { first, head });
    }

    async fn take(&mut self, take: &Take, log: &EventLog) {
        let Some(connection) = &mut self.connection else {
            return self.exporter.waited();
        };
        let (writer, starts) = (self.exporter.writer(), starts_to_json(self.store.starts()));
        let words = TakeWords {
            writer,
            starts: &starts,
            network: self.network,
            from: &log.encoder.cursor(take.from),
            max_length: self.max_length,
        };
        match connection.take(take, &words).await {
            Ok(None) => {
                self.exporter.taken();
                // Whether it can be written is seen at once.
                self.renew_at = Instant::now();
                let stream = self.place.keys.stream(take.at.stream);
                if let Some(reason) = &take.begun {
                    tracing::info!(stream, after = take.at.place, "a stream is begun: {reason}");
                }
            }
            Ok(Some(refusal)) => self.exporter.refused(refusal),
            Err(problem) => self.failed(problem),
        }
    }

    async fn write(&mut self, at: &Position, log: &EventLog, reader: &mut Reader<()>) {
        let enough = sleep_until(self.renew_at);
        let batch = match reader.read_batch(at.place, BATCH, Some(enough)).await {
            Ok(batch) => batch,
            Err(PageError::Expired) => return self.exporter.expired(),
            // The daemon ends.
            Err(PageError::Stopped | PageError::Store(_)) => return std::future::pending().await,
        };
        let ready: Vec<_> = batch
            .events
            .into_iter()
            .map(|entry| Ready {
                after: self.exporter.before(entry.number),
                subject: entry
                    .event()
                    .map_or(String::new(), |event| log.encoder.subject(event)),
                cursor: log.encoder.cursor(entry.number),
                entry,
            })
            .collect();
        let entries = entries(&ready, &log.encoder, self.exporter.room());
        if let (true, Some(it)) = (entries.is_empty(), ready.first()) {
            let cause = format!("event {} cannot be encoded", it.entry.number);
            return self.failed(Problem::Refused { cause });
        }
        let Some(connection) = &mut self.connection else {
            return self.exporter.waited();
        };
        let writer = self.exporter.writer();
        let appended = connection.append(at, writer, self.max_length, &entries);
        match appended.await {
            Ok(None) => {
                let number = entries.last().map(|entry| entry.number);
                self.exporter.appended(number);
                self.renew_at = Instant::now() + RENEW;
                let stream = self.place.keys.stream(at.stream);
                self.reporter
                    .working(&stream, number.or(at.last), entries.len());
            }
            Ok(Some(refusal)) => self.exporter.refused(refusal),
            Err(problem) => self.failed(problem),
        }
    }
}

/// As many as go into one script. One that cannot be encoded, which cannot happen, is left out, and
/// the next one's `after` says so.
fn entries<'a>(ready: &'a [Ready], encoder: &EventEncoder, room: usize) -> Vec<Entry<'a>> {
    let mut bytes = 0_usize;
    let encoded = ready.iter().filter_map(|it| {
        let encoded = it.entry.encoded(encoder)?;
        Some(Entry {
            number: it.entry.number,
            after: it.after,
            event: encoded.name(),
            subject: &it.subject,
            cursor: &it.cursor,
            data: encoded.json(),
        })
    });
    let fits = |entry: &Entry<'_>| {
        let fits = bytes == 0 || bytes < room;
        bytes = bytes.saturating_add(entry.data.len());
        fits
    };
    encoded.take_while(fits).collect()
}
