//! The task that follows the stream.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::connection::Connection;
use super::super::problem::Problem;
use super::super::status::StatusReporter;
use super::commands::{self, Raw};
use super::entries::{of_primary, of_stream};
use super::place::{Next, Place, Pointed};
use super::places::PlacesTold;
use super::source::{Known, KnownStarts, StreamSource};
use super::{BegunStream, OlderError, Stream, StreamEnd};
use crate::events::{EventLog, LogEntry, Page};
use crate::wire::EventEncoder;
use crate::wire::address::network_name;

/// Entries of one answer.
const BATCH: usize = 200;
/// So long Redis waits for entries, in milliseconds.
const WAIT: u64 = 1000;
/// So often we look at what names the current stream.
const LOOK: Duration = Duration::from_secs(1);
/// So long after an outage what comes first is taken for what happened in it: its writer has to
/// notice that Redis is back.
const BACK: Duration = Duration::from_secs(15);
/// Between two tries after failures.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The stream could not be read.
#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    /// When it could again.
    back: Option<Instant>,
}

/// Follows the stream of one log.
pub struct StreamFollower {
    source: StreamSource,
    places: PlacesTold,
    known: watch::Sender<Known>,
    head: watch::Sender<u64>,
    place: Place,
    connection: Option<Connection>,
    looked: Instant,
    failures: u32,
    outage: Option<Outage>,
    reporter: Arc<StatusReporter>,
    _ended: DropGuard,
}

impl Stream {
    /// Waits until there is a stream; may be given up at any moment.
    pub async fn begin(&self) -> BegunStream {
        let mut failures = 0;
        loop {
            match self.try_to_begin().await {
                Ok(begun) => return begun,
                Err(problem) => self.reporter.waiting(&problem),
            }
            pause(&mut failures).await;
        }
    }

    async fn try_to_begin(&self) -> Result<BegunStream, Problem> {
        let mut redis = Connection::open(&self.redis).await?;
        let pointer = commands::pointer(&mut redis).await?;
        let last = commands::last(&mut redis, pointer.current).await?;
        let last = last.as_ref().map(Raw::entry).transpose()?;
        let place = Place::begin(pointer, last.as_ref(), network_name(self.network))?;
        let (known, known_now) = watch::channel(Known {
            stream: place.stream(),
            starts: Arc::new(place.starts().clone()),
        });
        let (head, head_now) = watch::channel(place.number());
        let ended = CancellationToken::new();
        let places = PlacesTold::new(known_now.clone());
        let source = StreamSource {
            redis: self.redis.clone(),
            network: self.network,
            older: self.older.clone(),
            known: known_now.clone(),
            head: head_now.clone(),
            connection: Arc::new(Mutex::new(None)),
            ended: ended.clone(),
        };
        let stream = self.redis.keys.stream(place.stream());
        self.reporter.working(&stream, Some(place.number()), 0);
        Ok(BegunStream {
            source: source.clone(),
            encoder: EventEncoder::new(KnownStarts(known_now), self.network),
            head: head_now,
            places: places.clone(),
            follower: StreamFollower {
                source,
                places,
                known,
                head,
                place,
                connection: Some(redis),
                looked: Instant::now(),
                failures: 0,
                outage: None,
                reporter: self.reporter.clone(),
                _ended: ended.drop_guard(),
            },
        })
    }
}

async fn pause(failures: &mut u32) {
    let pause = FIRST_PAUSE * 2_u32.saturating_pow((*failures).min(8));
    *failures = failures.saturating_add(1);
    sleep(pause.min(LONGEST_PAUSE)).await;
}

impl Outage {
    /// It can be read; nothing once that is so for a while.
    fn reading(self) -> Option<Self> {
        let back = self.back.unwrap_or_else(Instant::now);
        let since = self.since;
        (back.elapsed() < BACK).then_some(Self {
            since,
            back: Some(back),
        })
    }
}

impl StreamFollower {
    /// Runs until the log is another one. `log`: made of what was begun with this.
    pub async fn run(mut self, log: &EventLog) -> StreamEnd {
        loop {
            match self.step(log).await {
                Ok(Pointed::OtherLog) => return StreamEnd::OtherLog,
                Ok(Pointed::Ours) => {
                    self.failures = 0;
                    self.outage = self.outage.and_then(Outage::reading);
                    let stream = self.source.redis.keys.stream(self.place.stream());
                    self.reporter.working(&stream, Some(self.place.number()), 0);
                }
                Err(problem) => {
                    self.connection = None;
                    let since = self.outage.map_or_else(Instant::now, |it| it.since);
                    self.outage = Some(Outage { since, back: None });
                    self.reporter.waiting(&problem);
                    pause(&mut self.failures).await;
                }
            }
        }
    }

    async fn step(&mut self, log: &EventLog) -> Result<Pointed, Problem> {
        let mut redis = match self.connection.take() {
            Some(redis) => redis,
            None => {
                let mut redis = Connection::open(&self.source.redis).await?;
                if self.look(&mut redis).await? == Pointed::OtherLog {
                    return Ok(Pointed::OtherLog);
                }
                redis
            }
        };
        let (stream, after) = (self.place.stream(), self.place.number());
        let found = commands::tail(&mut redis, stream, after, BATCH, WAIT).await?;
        let is_whole = self.take(&found, log).await?;
        if !is_whole || self.looked.elapsed() >= LOOK {
            let pointed = self.look(&mut redis).await?;
            if pointed == Pointed::OtherLog {
                return Ok(pointed);
            }
            if !is_whole && self.place.stream() == stream && !self.take(&found, log).await? {
                return Err(Problem::OtherKeys {
                    cause: format!("the events behind {after} are of another log"),
                });
            }
        }
        self.connection = Some(redis);
        Ok(Pointed::Ours)
    }

    async fn look(&mut self, redis: &mut Connection) -> Result<Pointed, Problem> {
        let pointer = commands::pointer(redis).await?;
        let pointed = self.place.pointed(pointer)?;
        self.looked = Instant::now();
        if pointed == Pointed::Ours {
            let (stream, starts) = (self.place.stream(), self.place.starts());
            self.known.send_if_modified(|known| {
                let is_news = known.stream != stream || *known.starts != *starts;
                if is_news {
                    let starts = Arc::new(starts.clone());
                    *known = Known { stream, starts };
                }
                is_news
            });
            // Behind that: whoever is told of a place meanwhile looks at these starts.
            if !self.places.are_of(starts) {
                return Ok(Pointed::OtherLog);
            }
        }
        Ok(pointed)
    }

    /// Takes what follows; `false`: there is an entry with a cursor that we do not know.
    async fn take(&mut self, found: &[Raw], log: &EventLog) -> Result<bool, Problem> {
        let (mut ready, mut had) = (Vec::new(), self.place.number());
        let mut is_whole = true;
        for raw in found {
            let entry = raw.entry()?;
            let mut next = self.place.next(had, &entry);
            if let Next::Gap(until) = next {
                self.give(std::mem::take(&mut ready), had, log);
                self.fill(until, log).await?;
                had = self.place.number();
                next = self.place.next(had, &entry);
            }
            match next {
                Next::Take => {
                    ready.push(of_stream(&entry, self.source.network)?);
                    had = entry.number;
                }
                Next::Skip => {}
                Next::Unknown | Next::Gap(_) => {
                    is_whole = false;
                    break;
                }
            }
        }
        self.give(ready, had, log);
        Ok(is_whole)
    }

    /// To the readers: the page first, then the head.
    fn give(&mut self, entries: Vec<LogEntry>, next: u64, log: &EventLog) {
        if next > self.place.number() {
            log.keep(Page::new(self.place.number(), next, entries));
            if let Some(outage) = self.outage.take() {
                // Who has not heard of it since then is told that it lags.
                log.note_moment(next, outage.since);
            }
            self.place.come_to(next);
            self.head.send_replace(next);
        }
    }

    /// The stretch up to this number, from the primary.
    async fn fill(&mut self, until: u64, log: &EventLog) -> Result<(), Problem> {
        while self.place.number() < until {
            let after = self.place.number();
            let missing = |cause: String| Problem::Missing { cause };
            match self.source.older.page(self.place.cursor()).await {
                Ok(page) => {
                    let (starts, network) = (self.place.starts(), self.source.network);
                    let (entries, next) = of_primary(&page, starts, (after, u64::MAX), network)?;
                    if next <= after {
                        return Err(missing(format!("it has none behind {after} that we know")));
                    }
                    self.give(entries, next, log);
                }
                // Whoever wants any of it hears so as it reads.
                Err(OlderError::Expired) => {
                    tracing::warn!(after, until, "events were deleted before they were read");
                    self.give(Vec::new(), until, log);
                }
                Err(cause) => return Err(missing(cause.to_string())),
            }
        }
        Ok(())
    }
}
