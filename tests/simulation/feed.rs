//! The way of what the node publishes: late, lost, doubled, one topic before the other; with the
//! notices that our receiver makes of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use satwatch::bitcoind::Endpoints;
use satwatch::bitcoind::rpc::Notification;
use satwatch::bitcoind::zmq::{Notice, Stamped, ZmqMessage, ZmqTopic};

use crate::bitcoind::index;
use crate::clock::{Now, millis};
use crate::script::Wiring;

/// From a broken connection, or from nothing, to one on which all is received.
const CONNECTING: Duration = Duration::from_millis(3);

/// Where the node publishes.
pub fn endpoints(wiring: Wiring) -> Endpoints {
    let at = |port: u16| Some(format!("tcp://127.0.0.1:{port}"));
    let (rawtx, rawblock, sequence) = match wiring {
        Wiring::Shared => (at(1), at(1), at(1)),
        Wiring::Apart => (at(1), at(2), at(3)),
        Wiring::NoSequence => (at(1), at(1), None),
        Wiring::NoBlocks => (at(1), None, at(1)),
        Wiring::Nothing => (None, None, None),
        Wiring::Hinted => {
            let away = Some("tcp://10.0.0.1:1".to_owned());
            (away.clone(), away.clone(), away)
        }
    };
    Endpoints {
        rawtx,
        rawblock,
        sequence,
    }
}

/// What `getzmqnotifications` lists.
pub fn listed(endpoints: &Endpoints) -> Vec<Notification> {
    let topics = [
        (ZmqTopic::Rawtx, &endpoints.rawtx),
        (ZmqTopic::Rawblock, &endpoints.rawblock),
        (ZmqTopic::Sequence, &endpoints.sequence),
    ];
    let listed = topics.into_iter().filter_map(|(topic, endpoint)| {
        Some(Notification {
            kind: format!("pub{}", topic.name()),
            address: endpoint.clone()?,
            hwm: None,
        })
    });
    listed.collect()
}

/// What is the same for whoever receives.
#[derive(Default)]
pub struct Lines {
    /// Of each topic.
    pub late: [u64; 3],
    pub lose: [u8; 3],
    pub double: [bool; 3],
}

struct Link {
    topics: Vec<ZmqTopic>,
    /// Whether it is up, or since when it will be.
    up: Result<(), Instant>,
    /// Of the last message of each topic.
    numbers: [Option<u32>; 3],
    on_its_way: VecDeque<(Instant, ZmqMessage)>,
}

#[derive(Default)]
pub struct Feed {
    links: Vec<Link>,
    /// They wait for the follower.
    notices: VecDeque<Stamped>,
}

impl Feed {
    pub fn open(endpoints: &Endpoints, now: Instant, is_node_up: bool) -> Self {
        let topics = [
            (ZmqTopic::Rawtx, &endpoints.rawtx),
            (ZmqTopic::Rawblock, &endpoints.rawblock),
            (ZmqTopic::Sequence, &endpoints.sequence),
        ];
        let mut groups: Vec<(&String, Vec<ZmqTopic>)> = Vec::new();
        for (topic, endpoint) in topics {
            let Some(endpoint) = endpoint else { continue };
            match groups.iter_mut().find(|(known, _)| *known == endpoint) {
                Some((_, topics)) => topics.push(topic),
                None => groups.push((endpoint, vec![topic])),
            }
        }
        let wait = if is_node_up { CONNECTING } else { FOREVER };
        let link = |(_, topics)| Link {
            topics,
            up: Err(now + wait),
            numbers: [None; 3],
            on_its_way: VecDeque::new(),
        };
        Self {
            links: groups.into_iter().map(link).collect(),
            notices: VecDeque::new(),
        }
    }

    /// The node publishes a message.
    pub fn publish(&mut self, message: &ZmqMessage, lines: &Lines, now: Instant) {
        let link = self
            .links
            .iter_mut()
            .find(|link| link.topics.contains(&message.topic));
        let Some(link) = link.filter(|link| link.up.is_ok()) else {
            return;
        };
        let late = millis(lines.late[index(message.topic)]);
        let last = link.on_its_way.back().map_or(now, |(at, _)| *at);
        link.on_its_way
            .push_back((last.max(now + late), message.clone()));
    }

    /// Connections break: that with this number, or all. What is on its way is lost.
    pub fn cut(&mut self, which: Option<u8>, until: Option<Instant>, now: Now) {
        let count = self.links.len();
        for (number, link) in self.links.iter_mut().enumerate() {
            if which.is_some_and(|which| usize::from(which) % count != number) {
                continue;
            }
            if link.up.is_ok() {
                let notice = Notice::Disconnected(link.topics.clone());
                self.notices.push_back(Stamped { at: now.ms, notice });
            }
            link.on_its_way.clear();
            link.up = Err(until.map_or(now.instant + FOREVER, |until| until + CONNECTING));
        }
    }

    /// The node is up again.
    pub fn reconnect(&mut self, now: Instant) {
        for link in self.links.iter_mut().filter(|link| link.up.is_err()) {
            link.up = Err(now + CONNECTING);
        }
    }

    /// When something arrives next.
    pub fn next(&self) -> Option<Instant> {
        let times = self.links.iter().filter_map(|link| match link.up {
            Ok(()) => link.on_its_way.front().map(|(at, _)| *at),
            Err(up) => Some(up),
        });
        times.min()
    }

    /// What arrives until now waits for the follower.
    pub fn arrive(&mut self, now: Now) {
        for link in &mut self.links {
            if link.up.is_err_and(|up| up <= now.instant) {
                link.up = Ok(());
                let notice = Notice::Connected(link.topics.clone());
                self.notices.push_back(Stamped { at: now.ms, notice });
            }
            while link
                .on_its_way
                .front()
                .is_some_and(|(at, _)| *at <= now.instant)
            {
                let Some((_, message)) = link.on_its_way.pop_front() else {
                    break;
                };
                let topic = message.topic;
                let last = link.numbers[index(topic)].replace(message.number);
                let expected = last.map(|last| last.wrapping_add(1));
                let odd = match expected {
                    Some(expected) if message.number > expected => {
                        let lost = (message.number - expected).into();
                        Some(Notice::Gap { topic, lost })
                    }
                    Some(expected) if message.number < expected => Some(Notice::Restarted(topic)),
                    _ => None,
                };
                let notices = odd.into_iter().chain([Notice::Message(message)]);
                self.notices
                    .extend(notices.map(|notice| Stamped { at: now.ms, notice }));
            }
        }
    }

    pub fn waits(&self) -> bool {
        !self.notices.is_empty()
    }

    pub fn take(&mut self) -> Option<Stamped> {
        self.notices.pop_front()
    }
}

/// Longer than any life.
const FOREVER: Duration = Duration::from_secs(1 << 30);
