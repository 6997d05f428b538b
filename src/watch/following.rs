//! What is followed, and the place from which to go on: decides what a message of the stream means,
//! and waits for nothing.

use std::time::Duration;

use form_urlencoded::Serializer;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::client::Failure;
use super::stream_text::Message;
use crate::remedy::Remedy;

/// Before the daemon has said how long to wait.
const RETRY: Duration = Duration::from_secs(1);
const MOST_RETRY: Duration = Duration::from_secs(60);
/// No address is as long as an extended public key.
const LONGEST_ADDRESS: usize = 100;

/// An address as the daemon writes it, or the id of a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Address(String),
    Descriptor(String),
}

impl Subject {
    /// Of a word that is no descriptor.
    pub fn of_word(word: &str) -> Self {
        let is_id = word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        match is_id {
            true => Self::Descriptor(word.to_ascii_lowercase()),
            false => Self::Address(word.to_owned()),
        }
    }

    pub fn balance_path(&self) -> String {
        match self {
            Self::Address(text) => {
                format!("/balance/{}", utf8_percent_encode(text, NON_ALPHANUMERIC))
            }
            Self::Descriptor(id) => format!("/descriptors/{id}/balance"),
        }
    }
}

/// Whether a word of the command line is a descriptor or an extended public key.
pub fn is_descriptor(word: &str) -> bool {
    let is_link = word
        .get(..8)
        .is_some_and(|it| it.eq_ignore_ascii_case("bitcoin:"));
    !is_link && (word.contains('(') || word.len() > LONGEST_ADDRESS)
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
    is_complete: bool,
}

/// State of `satwatch watch`.
#[derive(Debug)]
pub struct Following {
    followed: Vec<Followed>,
    place: String,
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
            is_complete: is_settled(balance),
        });
        Self {
            followed: followed.collect(),
            place: cursors().next().unwrap_or_default().to_owned(),
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

    /// How long to wait before a stream that has ended is opened again.
    pub fn retry(&self) -> Duration {
        self.retry
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
            self.retry = Duration::from_millis(retry).min(MOST_RETRY);
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
                self.followed.iter_mut().for_each(|it| it.from = from);
                (self.place, self.retry) = (cursor, RETRY);
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

    /// One whose balance may still become complete.
    pub fn incomplete(&self) -> Option<&Subject> {
        let found = self.followed.iter().find(|it| !it.is_complete);
        found.map(|it| &it.subject)
    }

    /// Takes note of a new balance: whether it is to be told, since it will not change for what was
    /// before.
    pub fn is_complete_now(&mut self, subject: &Subject, balance: &Value) -> bool {
        let is_complete = is_settled(balance);
        if is_complete {
            let mut followed = self.followed.iter_mut();
            let found = followed.find(|it| it.subject == *subject);
            found.into_iter().for_each(|it| it.is_complete = true);
        }
        is_complete
    }
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
        Following::new(vec![Subject::of_word("a"), wallet], &balances)
    }

    fn name(heard: Heard) -> Option<String> {
        match heard {
            Heard::Event { name, .. } => Some(name),
            _ => None,
        }
    }

    #[test]
    fn words_are_told_apart() {
        for (word, is) in [
            ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", false),
            ("wpkh(xpub)", true),
            (&"x".repeat(111), true),
            (&format!("BITCOIN:bc1q?label={}(2)", "x".repeat(111)), false),
            ("é", false),
            ("", false),
        ] {
            assert_eq!(is_descriptor(word), is, "{word}");
        }
        let id = "AB".repeat(32);
        let wallet = Subject::of_word(&id);
        assert_eq!(wallet, Subject::Descriptor(id.to_lowercase()));
        let strange = Subject::of_word("a/b?ä").balance_path();
        assert_eq!(strange, "/balance/a%2Fb%3F%C3%A4");
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
        assert_eq!((following.place(), following.retry()), ("s-9", MOST_RETRY));
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
        assert_eq!((following.place(), following.retry()), ("t-2", RETRY));
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

    #[test]
    fn a_balance_is_told_once_it_is_complete() {
        let mut following = two();
        let address = Subject::of_word("a");
        assert_eq!(following.incomplete(), Some(&address));
        for (pending, is_complete) in [(true, false), (false, true)] {
            let balance = json!({ "coverage": { "pending": pending } });
            assert_eq!(following.is_complete_now(&address, &balance), is_complete);
        }
        assert_eq!(following.incomplete(), None);
    }
}
