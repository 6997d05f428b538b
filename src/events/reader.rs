//! One who reads the log: a filter and a place. The rules are in the module above.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::dispatch::{DispatchStopped, Handle, LAG_AGE, Notice, Registration};
use super::filter::{Selection, Topic, TopicFilter};
use super::log::EventLog;
use super::page::{LogEntry, Page};
use super::source::PageError;

/// Pages without anything for the reader that are looked at in one go.
const PAGES: usize = 64;

/// What a reader gives, in order.
#[derive(Debug)]
pub enum Given<I> {
    /// Its page is not kept for it.
    Event(Arc<LogEntry>),
    Item(I),
    /// It does not keep up: it has been given everything up to `place`, and the log goes to `head`.
    Lagged {
        place: u64,
        head: u64,
    },
    /// It does again.
    CaughtUp {
        place: u64,
    },
    /// What has no place in the order.
    Notice(Notice),
}

/// A part of the log that is read for some topics before the reader goes on where it was.
#[derive(Debug)]
struct Replay {
    topics: HashMap<Topic, u64>,
    /// Where the reader was.
    until: u64,
}

struct Fetch {
    after: u64,
    page: Pin<Box<dyn Future<Output = Result<Arc<Page>, PageError>> + Send>>,
}

/// `I`: what its owner puts into the order of the events.
pub struct Reader<I> {
    log: Arc<EventLog>,
    registration: Arc<Registration>,
    /// Topics that come and go; each is wanted after its number.
    topics: HashMap<Topic, u64>,
    /// What is wanted in place of topics.
    selection: Option<Selection>,
    /// Everything up to here was given; of the replay's topics while there is one.
    place: u64,
    /// Up to here the log is to be read. The reader is clean when its place is not before this.
    unread: u64,
    /// It is read on at the end of the log.
    follows: bool,
    replay: Option<Replay>,
    /// By the number behind which each is given.
    items: VecDeque<(u64, I)>,
    /// Where dispatch wakes us last, whether an event of ours comes or not.
    woken_at: u64,
    fetch: Option<Fetch>,
    /// `None`: it is not told of its lag.
    is_lagging: Option<bool>,
}

impl<I> Reader<I> {
    /// A reader of topics that come and go, from now on. It is told when it lags.
    pub fn of_topics(log: &Arc<EventLog>, dispatch: &Handle) -> Self {
        let place = log.head();
        Self {
            is_lagging: Some(false),
            ..Self::new(log, dispatch, None, place)
        }
    }

    /// A reader of a selection of the log after the number `place`. Without
    /// [`Reader::follow`] it goes no further than the log does now.
    pub fn of_selection(
        log: &Arc<EventLog>,
        dispatch: &Handle,
        selection: Selection,
        place: u64,
    ) -> Self {
        Self::new(log, dispatch, Some(selection), place)
    }

    fn new(
        log: &Arc<EventLog>,
        dispatch: &Handle,
        selection: Option<Selection>,
        place: u64,
    ) -> Self {
        Self {
            log: log.clone(),
            registration: Arc::new(dispatch.registration(selection.is_none())),
            topics: HashMap::new(),
            selection,
            place,
            unread: log.head(),
            follows: false,
            replay: None,
            items: VecDeque::new(),
            woken_at: 0,
            fetch: None,
            is_lagging: None,
        }
    }

    /// A selection is read on at the end of the log.
    pub async fn follow(&mut self) -> Result<(), DispatchStopped> {
        if let (false, Some(selection)) = (self.follows, &self.selection) {
            self.registration.add(selection.topics().collect()).await?;
            self.follows = true;
            // What dispatch had read until it knew of us is ours to find. It may have read what is
            // not announced yet, with a commit before.
            let position = self.registration.progress().position();
            self.unread = self.unread.max(self.log.head()).max(position);
        }
        Ok(())
    }

    #[cfg(test)]
    pub fn follows(&self) -> bool {
        self.follows
    }

    /// Dispatch does not know of it any more. What is asked of it still is read from the log.
    pub fn unfollow(&mut self) {
        self.registration = Arc::new(self.registration.another());
        self.follows = false;
    }

    pub(super) fn log(&self) -> &EventLog {
        &self.log
    }

    pub fn registration(&self) -> &Arc<Registration> {
        &self.registration
    }

    /// Everything up to here was given.
    pub fn place(&self) -> u64 {
        self.place
    }

    /// Items that wait.
    pub fn waiting(&self) -> usize {
        self.items.len()
    }

    /// How many topics it has, if these are added.
    pub fn count_with(&self, new: &[Topic]) -> usize {
        let new = new.iter().filter(|topic| !self.holds(topic));
        self.topics.len().saturating_add(new.count())
    }

    pub fn holds(&self, topic: &Topic) -> bool {
        self.topics.contains_key(topic)
    }

    /// Adds topics, of which the events after `from` are wanted. `again`: also those that it has
    /// already are read again from there. The topics must be registered already, and `from` must
    /// not be beyond the log.
    pub fn subscribe(&mut self, topics: &[Topic], from: u64, again: bool) {
        self.look();
        let (place, until) = (self.place, self.replay.as_ref().map(|replay| replay.until));
        let main = until.unwrap_or(place);
        let mut past = Vec::new();
        for topic in topics {
            if again || !self.holds(topic) {
                let later = self.topics.entry(*topic).or_insert(u64::MAX);
                // Never raised: what was promised before comes.
                *later = from.max(main).min(*later);
                past.push(*topic);
            }
        }
        if from < main && !past.is_empty() {
            self.replay(past, from, main);
        }
    }

    /// Reads (`from`, `until`] for these topics first; joins a replay that is under way.
    fn replay(&mut self, topics: Vec<Topic>, from: u64, until: u64) {
        let place = self.place;
        let replay = self.replay.get_or_insert_with(|| Replay {
            topics: HashMap::new(),
            until,
        });
        if from < place {
            // It goes back: the others were given up to here.
            let replayed = replay.topics.values_mut();
            replayed.for_each(|it| *it = place.max(*it));
        }
        for topic in topics {
            // Never raised: what was promised before comes.
            let later = replay.topics.entry(topic).or_insert(from);
            *later = from.min(*later);
        }
        self.place = place.min(from);
        self.unread = self.unread.max(until);
    }

    /// Puts an item into the order: it is given when everything up to `at` was, which may be beyond
    /// the log's end.
    pub fn put(&mut self, at: u64, item: I) {
        let place = self.items.partition_point(|(other, _)| *other <= at);
        self.items.insert(place, (at, item));
        self.unread = self.unread.max(at);
    }

    /// Puts an item behind all that wait.
    pub fn put_last(&mut self, item: I) {
        let last = self.items.back().map_or(self.place, |(at, _)| *at);
        self.put(last.max(self.place), item);
    }

    /// No event of this topic is given any more.
    pub fn unsubscribe(&mut self, topic: &Topic) {
        if self.topics.remove(topic).is_some() {
            self.registration.remove(vec![*topic]);
        }
        if let Some(Replay { topics, until }) = &mut self.replay {
            topics.remove(topic);
            if topics.is_empty() {
                self.place = *until;
                self.replay = None;
            }
        }
    }

    fn is_clean(&self) -> bool {
        self.place >= self.unread && self.replay.is_none()
    }

    /// Takes over what dispatch says: the position first, then the mark.
    fn look(&mut self) {
        // A selection whose registration is not acknowledged may have been passed by events that it
        // was not marked for.
        let is_marked = match self.selection {
            Some(_) => self.follows,
            None => self.registration.is_known(),
        };
        if !is_marked {
            return;
        }
        let progress = self.registration.progress();
        let position = progress.position();
        let marked = self.registration.mark().take();
        let is_clean = self.is_clean();
        match marked {
            Some(first) => {
                if is_clean {
                    self.place = self.place.max(first.saturating_sub(1));
                }
                self.unread = self.unread.max(progress.read());
            }
            None if is_clean => self.place = self.place.max(position),
            None => {}
        }
    }

    /// What comes next. Pending: the waker is woken when there may be something.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Given<I>, PageError>> {
        let next = self.poll_given(cx);
        let unread = (!self.is_clean()).then_some(self.place);
        self.registration.mark().set_unread(unread);
        next
    }

    fn poll_given(&mut self, cx: &mut Context<'_>) -> Poll<Result<Given<I>, PageError>> {
        self.registration.mark().wake_by(cx.waker());
        for _ in 0..PAGES {
            self.look();
            if let Some((at, _)) = self.items.front()
                && *at <= self.place
                && let Some((_, item)) = self.items.pop_front()
            {
                if self.items.is_empty() {
                    // Most readers have none.
                    self.items = VecDeque::new();
                }
                return Poll::Ready(Ok(Given::Item(item)));
            }
            if self.is_clean() {
                let given = self.at_the_end();
                if given.is_none() {
                    self.wait_for_item();
                }
                return given.map_or(Poll::Pending, |given| Poll::Ready(Ok(given)));
            }
            let page = match self.poll_page(cx) {
                Poll::Ready(Ok(page)) => page,
                Poll::Ready(Err(cause)) => return Poll::Ready(Err(cause)),
                Poll::Pending => return Poll::Pending,
            };
            if let Some(given) = self.step(&page) {
                return Poll::Ready(Ok(given));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Nothing up to this number is wanted any more.
    pub fn skip_to(&mut self, number: u64) {
        self.place = self.place.max(number);
    }

    /// What comes after this number is next, also if it was given before.
    pub(super) fn go_to(&mut self, number: u64) {
        self.unread = self.unread.max(self.place);
        self.place = number;
    }

    pub async fn next(&mut self) -> Result<Given<I>, PageError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn at_the_end(&mut self) -> Option<Given<I>> {
        if self.is_lagging == Some(true) {
            self.is_lagging = Some(false);
            return Some(Given::CaughtUp { place: self.place });
        }
        let notice = self.registration.mark().take_notice(self.place);
        notice.map(Given::Notice)
    }

    /// Its item waits for what is beyond the log's end, where none of its events need be.
    fn wait_for_item(&mut self) {
        if let Some((at, _)) = self.items.front()
            && self.woken_at != *at
        {
            self.woken_at = *at;
            self.registration.wake_at(*at);
        }
    }

    fn poll_page(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arc<Page>, PageError>> {
        let after = self.place;
        self.fetch = self.fetch.take().filter(|fetch| fetch.after == after);
        if self.fetch.is_none()
            && let Some(page) = self.log.cached(after)
        {
            return Poll::Ready(Ok(page));
        }
        let log = &self.log;
        let fetch = self.fetch.get_or_insert_with(|| Fetch {
            after,
            page: Box::pin(log.clone().page(after)),
        });
        let read = fetch.page.as_mut().poll(cx);
        if read.is_ready() {
            self.fetch = None;
        }
        read
    }

    /// The next event in this page, or the place moves to the end of what was looked at.
    fn step(&mut self, page: &Arc<Page>) -> Option<Given<I>> {
        let (filter, until) = match (&self.replay, &self.selection) {
            (Some(replay), _) => (TopicFilter::Topics(&replay.topics), replay.until),
            (None, Some(selection)) => (TopicFilter::Selection(selection), u64::MAX),
            (None, None) => (TopicFilter::Topics(&self.topics), u64::MAX),
        };
        let bound = self.items.front().map_or(until, |(at, _)| until.min(*at));
        let wanted = page.next_wanted(self.place, &filter);
        if let Some(entry) = wanted.filter(|entry| entry.number <= bound) {
            if self.has_begun_to_lag(entry.number) {
                self.is_lagging = Some(true);
                return Some(Given::Lagged {
                    place: self.place,
                    head: self.log.head(),
                });
            }
            self.move_to(entry.number);
            return Some(Given::Event(entry.clone()));
        }
        if page.next <= self.place {
            // The log ends here. What waits beyond is given when dispatch has come there.
            self.unread = self.place;
        }
        self.move_to(page.next.min(bound));
        None
    }

    fn has_begun_to_lag(&self, number: u64) -> bool {
        self.is_lagging == Some(false)
            && self.replay.is_none()
            && self.log.age(number, Instant::now()) >= LAG_AGE
    }

    fn move_to(&mut self, number: u64) {
        self.place = self.place.max(number);
        if let Some(replay) = &self.replay
            && self.place >= replay.until
        {
            self.replay = None;
        }
    }
}

/// Its items are ends of what is read at a time.
impl Reader<()> {
    /// An item is given when everything was given up to `end`, or `most` numbers of the log further
    /// than now; takes the place of one that waits. Answers where that is.
    pub fn end_within(&mut self, most: u64, end: u64) -> u64 {
        self.look();
        // A number that was skipped has no cursor of its own: who polls would come back to the one
        // before.
        let most = self.place.saturating_add(most);
        let end = end.min(self.log.encoder.starts().not_skipped(most));
        self.items.clear();
        self.put(end, ());
        end
    }

    /// The next event, if there is one up to `end` and within the next `most` numbers of the log.
    pub async fn next_within(
        &mut self,
        most: u64,
        end: u64,
    ) -> Result<Option<Arc<LogEntry>>, PageError> {
        self.end_within(most, end);
        self.next_event().await
    }

    /// The next event; `None` at the end that was set.
    pub(super) async fn next_event(&mut self) -> Result<Option<Arc<LogEntry>>, PageError> {
        loop {
            match self.next().await? {
                Given::Event(event) => return Ok(Some(event)),
                Given::Item(()) => return Ok(None),
                // For clients alone.
                Given::Lagged { .. } | Given::CaughtUp { .. } | Given::Notice(_) => {}
            }
        }
    }
}
