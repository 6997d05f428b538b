//! What is followed, and the place from which to go on: decides what a message of the stream means,
//! and waits for nothing.

use std::time::Duration;

use form_urlencoded::Serializer;
use serde_json::Value;

use super::client::Failure;
use super::stream_text::Message;
use crate::remedy::Remedy;

/// Before the daemon has said how long to wait.
const RETRY: Duration = Duration::from_secs(1);
const MOST_RETRY: Duration = Duration::from_secs(60);
/// Before the first look at a balance that is not complete; each later one waits longer.
const LOOK: Duration = Duration::from_secs(2);
const MOST_LOOK: Duration = Duration::from_secs(30);

/// An address as the daemon writes it, or the id of a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Address(String),
    Descriptor(String),
}

impl Subject {
    pub fn balance_path(&self) -> String {
        match self {
            Self::Address(text) => format!("/balance/{text}"),
            Self::Descriptor(id) => format!("/descriptors/{id}/balance"),
        }
    }
}

/// Whom an event or a balance is about.
pub fn subject_of(data: &Value) -> Option<Subject> {
    let text = |field: &str| data[field].as_str().map(str::to_owned);
    let address = text("address").map(Subject::Address);
    address.or_else(|| text("descriptor_id").map(Subject::Descriptor))
}

/// The number in a cursor: its events have greater ones.
fn number(cursor: &str) -> Option<u64> {
    cursor.rsplit_once('-')?.1.parse().ok()
}

/// What a message of the stream means.
#[derive(Debug, PartialEq)]
pub enum Heard {
    Nothing,
    /// `data` is JSON as it came.
    Event {
        name: String,
        data: String,
    },
    /// What came behind the place cannot be told; the balances are those of the place from which it
    /// goes on.
    Restart {
        why: String,
        balances: Vec<Value>,
    },
    End(Failure),
}

#[derive(Debug)]
struct Followed {
    subject: Subject,
    /// The number behind which its events are not in the balance that was printed.
    from: u64,
    /// The number of the last event that was told of it.
    told: u64,
    /// How often it was looked at.
    looks: u32,
    is_complete: bool,
}

/// State of `satwatch watch`.
#[derive(Debug)]
pub struct Following {
    followed: Vec<Followed>,
    place: String,
    /// Balances that have events in them that were not told yet.
    held: Vec<Value>,
    retry: Duration,
}

impl Following {
    /// With the balance of each, in the order in which they were asked for.
    pub fn new(subjects: Vec<Subject>, balances: &[Value]) -> Self {
        let cursors = || {
            balances
                .iter()
                .map(|balance| balance["cursor"].as_str().unwrap_or_default())
        };
        let followed = subjects.into_iter().zip(balances).zip(cursors());
        let followed = followed.map(|((subject, balance), cursor)| Followed {
            subject,
            from: number(cursor).unwrap_or_default(),
            told: 0,
            looks: 0,
            is_complete: is_settled(balance),
        });
        Self {
            followed: followed.collect(),
            place: cursors().next().unwrap_or_default().to_owned(),
            held: Vec::new(),
            retry: RETRY,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.followed.is_empty()
    }

    /// The cursor behind which the stream goes on.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// How long to wait before a stream that has ended is opened again. `asked`: what an answer
    /// says of that.
    pub fn retry(&self, asked: Option<Duration>) -> Duration {
        asked.unwrap_or(self.retry).min(MOST_RETRY)
    }

    pub fn path(&self) -> String {
        let mut query = Serializer::new(String::new());
        for followed in &self.followed {
            match &followed.subject {
                Subject::Address(address) => query.append_pair("address", address),
                Subject::Descriptor(id) => query.append_pair("descriptor", id),
            };
        }
        format!("/events/stream?{}", query.finish())
    }

    pub fn hear(&mut self, message: Message) -> Heard {
        if let Some(retry) = message.retry {
            self.retry = Duration::from_millis(retry);
        }
        if let Some(id) = &message.id {
            self.place.clone_from(id);
        }
        if message.data.is_empty() {
            return Heard::Nothing;
        }
        let data: Value = serde_json::from_str(&message.data).unwrap_or_default();
        if message.event == "satwatch_error" {
            return self.refused(data);
        }
        let subject = subject_of(&data);
        let is_told = |it: &Followed| {
            Some(&it.subject) == subject.as_ref() && number(&self.place) <= Some(it.from)
        };
        if self.followed.iter().any(is_told) {
            return Heard::Nothing;
        }
        let place = number(&self.place).unwrap_or_default();
        let mut followed = self.followed.iter_mut();
        if let Some(it) = followed.find(|it| Some(&it.subject) == subject.as_ref()) {
            it.told = place;
        }
        // One that stays watched for a descriptor is told with its owners.
        if message.event == "unwatched" && data["owners"].is_null() {
            self.followed
                .retain(|it| Some(&it.subject) != subject.as_ref());
        }
        Heard::Event {
            name: message.event,
            data: message.data,
        }
    }

    /// Why the stream ends.
    fn refused(&mut self, mut data: Value) -> Heard {
        let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
        let (why, code, cursor) = (text("error"), text("code"), text("cursor"));
        match &*code {
            "cursor_unknown" | "cursor_expired" if !cursor.is_empty() => {
                let from = number(&cursor).unwrap_or_default();
                for it in &mut self.followed {
                    (it.from, it.told) = (from, 0);
                }
                (self.place, self.retry) = (cursor, RETRY);
                self.held.clear();
                let balances = match data["balances"].take() {
                    Value::Array(balances) => balances,
                    _ => Vec::new(),
                };
                Heard::Restart { why, balances }
            }
            // The stream ends, and is asked for again.
            "stopping" => {
                self.retry = RETRY;
                Heard::Nothing
            }
            "unauthorized" => Heard::End(Failure::Problem {
                what: why,
                remedy: Remedy::GiveToken,
            }),
            _ => Heard::End(Failure::Refused { code, error: why }),
        }
    }

    /// Whose balance is to be looked at next, since it may still become complete, and after which
    /// pause. They take turns.
    pub fn next_look(&mut self) -> Option<(Subject, Duration)> {
        let waiting = self.followed.iter_mut().filter(|it| !it.is_complete);
        let next = waiting.min_by_key(|it| it.looks)?;
        let wait = LOOK.saturating_mul(2_u32.saturating_pow(next.looks));
        next.looks = next.looks.saturating_add(1);
        Some((next.subject.clone(), wait.min(MOST_LOOK)))
    }

    /// Takes the balance that a look has found. If it will not change any more for what was before,
    /// it is told once all that is in it was told.
    pub fn looked(&mut self, subject: &Subject, balance: Option<Value>) {
        let Some(balance) = balance.filter(is_settled) else {
            return;
        };
        let mut followed = self.followed.iter_mut();
        let Some(it) = followed.find(|it| it.subject == *subject) else {
            return;
        };
        // A balance that is older than what was told of it would take that back.
        if cursor_of(&balance) >= it.told {
            it.is_complete = true;
            self.held.push(balance);
        }
    }

    /// Balances that come before this message.
    pub fn due_before(&mut self, message: &Message) -> Vec<Value> {
        match message.id.as_deref().and_then(number) {
            Some(number) => self.take_held(number.saturating_sub(1)),
            None => Vec::new(),
        }
    }

    /// Balances that come at this place.
    pub fn due(&mut self) -> Vec<Value> {
        self.take_held(number(&self.place).unwrap_or_default())
    }

    fn take_held(&mut self, up_to: u64) -> Vec<Value> {
        let is_due = |balance: &mut Value| cursor_of(balance) <= up_to;
        self.held.extract_if(.., is_due).collect()
    }
}

/// The number of the last event in it.
fn cursor_of(balance: &Value) -> u64 {
    let cursor = balance["cursor"].as_str().and_then(number);
    cursor.unwrap_or_default()
}

/// What was before it was watched is known, or is not asked for.
fn is_settled(balance: &Value) -> bool {
    balance["coverage"]["pending"] != true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(id: &str, event: &str, data: &Value) -> Message {
        Message {
            id: Some(id.to_owned()).filter(|id| !id.is_empty()),
            event: event.to_owned(),
            data: data.to_string(),
            retry: None,
        }
    }

    /// An address `a` at number 5, and a wallet at 7, which came later.
    fn two() -> Following {
        let wallet = Subject::Descriptor("d0".to_owned());
        let balances = [
            json!({ "address": "a", "cursor": "s-5", "coverage": { "pending": true } }),
            json!({ "descriptor_id": "d0", "cursor": "s-7", "coverage": { "pending": false } }),
        ];
        Following::new(vec![Subject::Address("a".to_owned()), wallet], &balances)
    }

    fn name(heard: Heard) -> Option<String> {
        match heard {
            Heard::Event { name, .. } => Some(name),
            _ => None,
        }
    }

    #[test]
    fn what_a_printed_balance_has_in_it_is_not_told_again() {
        let mut following = two();
        assert_eq!(following.place(), "s-5");
        assert_eq!(following.path(), "/events/stream?address=a&descriptor=d0");
        let (address, wallet) = (json!({ "address": "a" }), json!({ "descriptor_id": "d0" }));
        for (id, data, is_told) in [
            ("s-6", &wallet, false),
            ("s-6", &address, true),
            ("s-7", &wallet, false),
            ("s-8", &wallet, true),
        ] {
            let heard = following.hear(message(id, "balance_change", data));
            assert_eq!(name(heard).is_some(), is_told, "{id} {data}");
        }
        assert_eq!(following.place(), "s-8");
    }

    #[test]
    fn a_sign_of_life_moves_the_place() {
        let mut following = two();
        let beat = Message {
            id: Some("s-9".to_owned()),
            retry: Some(u64::MAX),
            ..Message::default()
        };
        assert_eq!(following.hear(beat), Heard::Nothing);
        assert_eq!(
            (following.place(), following.retry(None)),
            ("s-9", MOST_RETRY)
        );
    }

    #[test]
    fn no_answer_makes_it_wait_for_long() {
        let of = |seconds| two().retry(Some(Duration::from_secs(seconds)));
        assert_eq!([of(5), of(65_535)], [Duration::from_secs(5), MOST_RETRY]);
    }

    #[test]
    fn after_a_cursor_of_no_use_it_goes_on_from_the_balances() {
        let mut following = two();
        let refusal =
            json!({ "error": "Gone.", "code": "cursor_expired", "cursor": "t-2", "balances": [1] });
        let heard = following.hear(Message {
            retry: Some(60_000),
            ..message("", "satwatch_error", &refusal)
        });
        let (why, balances) = ("Gone.".to_owned(), vec![json!(1)]);
        assert_eq!(heard, Heard::Restart { why, balances });
        assert_eq!((following.place(), following.retry(None)), ("t-2", RETRY));
        let next = message("t-3", "block", &json!({ "descriptor_id": "d0" }));
        assert_eq!(name(following.hear(next)).as_deref(), Some("block"));
    }

    #[test]
    fn other_reasons_end_it_or_pass() {
        for (code, ends) in [
            ("unauthorized", true),
            ("forbidden", true),
            ("stopping", false),
        ] {
            let refusal = json!({ "error": "No.", "code": code });
            let heard = two().hear(message("", "satwatch_error", &refusal));
            assert_eq!(matches!(heard, Heard::End(_)), ends, "{code}");
        }
    }

    #[test]
    fn what_is_removed_is_not_asked_for_again() {
        let mut following = two();
        let owned = json!({ "address": "a", "owners": [{}] });
        let alone = json!({ "address": "a" });
        for (data, path) in [
            (owned, "/events/stream?address=a&descriptor=d0"),
            (alone, "/events/stream?descriptor=d0"),
        ] {
            let heard = following.hear(message("s-9", "unwatched", &data));
            assert_eq!(name(heard).as_deref(), Some("unwatched"));
            assert_eq!(following.path(), path);
        }
        let wallet = json!({ "descriptor_id": "d0" });
        following.hear(message("s-10", "unwatched", &wallet));
        assert!(following.is_empty());
    }

    fn found(cursor: &str, pending: bool) -> Value {
        json!({ "address": "a", "cursor": cursor, "coverage": { "pending": pending } })
    }

    #[test]
    fn a_balance_is_told_once_it_is_complete() {
        let mut following = two();
        let address = Subject::Address("a".to_owned());
        for (balance, is_told) in [
            (None, false),
            (Some(found("s-5", true)), false),
            (Some(found("s-5", false)), true),
        ] {
            let looked_at = following.next_look().map(|(subject, _)| subject);
            assert_eq!(looked_at.as_ref(), Some(&address));
            following.looked(&address, balance);
            assert_eq!(!following.due().is_empty(), is_told);
        }
        assert_eq!(following.next_look(), None);
        assert_eq!(following.due(), [] as [Value; 0]);
    }

    /// Numbers of the events and cursors of the balance, in the order in which they are told.
    fn told(following: &mut Following, ids: &[&str]) -> Vec<String> {
        let mut told = Vec::new();
        let balance = |it: Value| format!("balance {}", it["cursor"]);
        for id in ids {
            let event = message(id, "balance_change", &json!({ "address": "a" }));
            told.extend(following.due_before(&event).into_iter().map(balance));
            told.extend(name(following.hear(event)).map(|_| (*id).to_owned()));
            told.extend(following.due().into_iter().map(balance));
        }
        told
    }

    #[test]
    fn a_balance_stands_behind_the_events_that_it_counts_and_before_the_others() {
        let address = Subject::Address("a".to_owned());
        for (cursor, order) in [
            ("s-8", ["s-6", "balance \"s-8\"", "s-9"]),
            ("s-9", ["s-6", "s-9", "balance \"s-9\""]),
        ] {
            let mut following = two();
            following.looked(&address, Some(found(cursor, false)));
            assert_eq!(following.due(), [] as [Value; 0]);
            assert_eq!(told(&mut following, &["s-6", "s-9"]), order);
        }
        // A sign of life moves the place, too.
        let mut following = two();
        following.looked(&address, Some(found("s-8", false)));
        following.hear(message("s-8", "", &json!(null)));
        assert_eq!(following.due().len(), 1);
    }

    #[test]
    fn a_balance_that_is_older_than_what_was_told_is_asked_for_again() {
        let mut following = two();
        let address = Subject::Address("a".to_owned());
        assert_eq!(told(&mut following, &["s-9"]), ["s-9"]);
        following.looked(&address, Some(found("s-8", false)));
        assert_eq!(following.due(), [] as [Value; 0]);
        assert!(following.next_look().is_some());
        following.looked(&address, Some(found("s-9", false)));
        assert_eq!(following.due().len(), 1);
    }

    #[test]
    fn looks_take_turns_and_become_rare() {
        let address = |name: &str| Subject::Address(name.to_owned());
        let subjects = vec![address("a"), address("b"), address("c")];
        let [a, c] = [found("s-5", true), found("s-5", true)];
        let mut following = Following::new(subjects, &[a, found("s-5", false), c]);
        let mut looks = Vec::new();
        for _ in 0..12 {
            looks.extend(following.next_look());
        }
        let (names, waits): (Vec<_>, Vec<_>) = looks.into_iter().unzip();
        for pair in names.chunks(2) {
            assert_eq!(pair, [address("a"), address("c")]);
        }
        let seconds: Vec<u64> = waits.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [2, 2, 4, 4, 8, 8, 16, 16, 30, 30, 30, 30]);
    }
}
