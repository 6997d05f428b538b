//! Those who read the real log of a life on the disk: they come, read a little, vanish and come
//! back, and each must have been given every event once, in order.

use std::sync::Arc;

use bitcoin::Network;
use satwatch::events::{Dispatch, EventLog, Handle, Reader, Selection, Topic};
use satwatch::store::{Starts, StoreReader};
use satwatch::tracker::Event;
use satwatch::wire::EventEncoder;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::pretended::descriptors::Wallet;
use crate::pretended::script;

/// What somebody wants, and what of it came.
struct Wish {
    /// `None`: everything.
    topics: Option<Vec<Topic>>,
    /// Events after this number.
    from: u64,
    got: Vec<u64>,
}

impl Wish {
    fn wants(&self, event: &Event) -> bool {
        let topic = Topic::of(&event.kind);
        self.topics
            .as_ref()
            .map_or(!matches!(topic, Topic::Descriptor(_)), |topics| {
                topics.contains(&topic)
            })
    }

    /// It was given the first of what it wants, each once.
    fn check(&self, log: &[(u64, Event)], is_end: bool) {
        let wanted = log
            .iter()
            .filter(|(number, event)| *number > self.from && self.wants(event));
        let wanted: Vec<u64> = wanted.map(|(number, _)| *number).collect();
        if is_end {
            assert_eq!(self.got, wanted, "a reader gets every event once, in order");
        } else {
            assert!(
                wanted.starts_with(&self.got),
                "a reader gets every event once, in order: {:?} of {wanted:?}",
                self.got
            );
        }
    }
}

/// What runs for them in one process.
struct Service {
    runtime: Runtime,
    log: Arc<EventLog>,
    dispatch: Handle,
    head: watch::Sender<u64>,
    starts: Arc<Starts>,
    stop: CancellationToken,
}

#[derive(Default)]
pub struct Readers {
    service: Option<Service>,
    readers: Vec<(Wish, Option<Reader<()>>)>,
}

impl Readers {
    /// A process has started.
    pub fn start(&mut self, reader: &StoreReader, head: u64) {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("the system can make a runtime");
        let head = watch::Sender::new(head);
        let starts = reader.starts().clone();
        let encoder = EventEncoder::new(starts.clone(), Network::Regtest);
        let (log_of, stop) = (
            EventLog::new(reader.clone(), encoder, head.subscribe()),
            CancellationToken::new(),
        );
        let (dispatch, handle) = Dispatch::new(log_of.clone());
        runtime.spawn(dispatch.run(stop.clone()));
        self.service = Some(Service {
            runtime,
            log: log_of,
            dispatch: handle,
            head,
            starts,
            stop,
        });
        for (wish, _) in std::mem::take(&mut self.readers) {
            self.come(wish);
        }
    }

    /// The process is dead.
    pub fn stop(&mut self) {
        self.readers
            .iter_mut()
            .for_each(|(_, reader)| *reader = None);
        if let Some(service) = self.service.take() {
            service.stop.cancel();
        }
    }

    /// What a power loss took of the log comes again under other numbers.
    pub fn lose(&mut self, log: &[(u64, Event)]) {
        let last = log.last().map_or(0, |(number, _)| *number);
        for (wish, _) in &mut self.readers {
            wish.got.retain(|number| *number <= last);
            wish.from = wish.from.min(last);
        }
    }

    pub fn committed(&self, head: u64) {
        if let Some(service) = &self.service {
            service.head.send_replace(head);
        }
    }

    /// Somebody new, from now on.
    pub fn join(&mut self, topics: u8) {
        let Some(service) = &self.service else { return };
        let numbers = (1..8).filter(|bit| topics & (1 << bit) != 0);
        let mut wanted: Vec<Topic> = numbers
            .map(|number| Topic::Script(script(number)))
            .collect();
        let wallets = [(7, Wallet(1)), (6, Wallet(2))].into_iter();
        let wallets = wallets.filter(|(bit, _)| topics & (1 << bit) != 0);
        wanted.extend(wallets.map(|(_, wallet)| Topic::Descriptor(wallet.id())));
        if topics & 1 != 0 {
            wanted.push(Topic::Blocks);
        }
        let wish = Wish {
            topics: (topics != 255 && !wanted.is_empty()).then_some(wanted),
            from: service.log.head(),
            got: Vec::new(),
        };
        self.come(wish);
    }

    fn come(&mut self, wish: Wish) {
        let service = self.service.as_ref().expect("a process runs");
        let place = wish.got.last().map_or(wish.from, |last| *last);
        let (id, number) = service.starts.cursor(place);
        assert!(
            service.starts.knows(id, number),
            "the cursor behind {place} is of this log"
        );
        let reader = service.runtime.block_on(async {
            match &wish.topics {
                None => {
                    let all = Selection::everything();
                    let mut reader =
                        Reader::of_selection(&service.log, &service.dispatch, all, place);
                    reader.follow().await.expect("dispatch runs");
                    reader
                }
                Some(topics) => {
                    let mut reader = Reader::of_topics(&service.log, &service.dispatch);
                    let registration = reader.registration().clone();
                    registration
                        .add(topics.clone())
                        .await
                        .expect("dispatch runs");
                    reader.subscribe(topics, place, false);
                    reader
                }
            }
        });
        self.readers.push((wish, Some(reader)));
    }

    fn at(&self, number: u8) -> Option<usize> {
        usize::from(number).checked_rem(self.readers.len())
    }

    pub fn read(&mut self, number: u8, count: u8) {
        if let Some(place) = self.at(number) {
            self.take(place, usize::from(count));
        }
    }

    fn take(&mut self, place: usize, count: usize) {
        let Some(service) = &self.service else { return };
        let (wish, reader) = &mut self.readers[place];
        let Some(reader) = reader else { return };
        let head = service.log.head();
        service.runtime.block_on(async {
            for _ in 0..count {
                let next = reader.next_within(u64::MAX, head).await;
                match next.expect("nothing is pruned") {
                    Some(entry) => wish.got.push(entry.number),
                    None => return,
                }
            }
        });
    }

    pub fn leave(&mut self, number: u8, comes_back: bool, log: &[(u64, Event)]) {
        let Some(place) = self.at(number) else { return };
        let (wish, reader) = self.readers.remove(place);
        drop(reader);
        wish.check(log, false);
        if comes_back && self.service.is_some() {
            self.come(wish);
        }
    }

    pub fn pass(&self, ms: u64) {
        if let Some(service) = &self.service {
            let time = std::time::Duration::from_millis(ms);
            service.runtime.block_on(tokio::time::advance(time));
        }
    }

    /// Everybody reads to the end.
    pub fn end(&mut self, log: &[(u64, Event)]) {
        for place in 0..self.readers.len() {
            self.take(place, usize::MAX);
            self.readers[place].0.check(log, true);
        }
    }
}
