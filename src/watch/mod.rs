//! `satwatch watch ADDRESS…`: a client of a running daemon that prints what happens to addresses
//! and wallets as it comes.
//!
//! # Laws
//!
//! 1. It is a client as any other: REST and `GET /events/stream`, a token, the daemon's
//!    certificate. It imports nothing of the daemon but settings and remedies.
//! 2. Each event is printed once and in order, over breaks of the connection and restarts of the
//!    daemon: the stream goes on behind the last id that was read (`Last-Event-ID`). When events
//!    cannot be told any more, that is said, with the balances as they are.
//! 3. What is for the reader goes to standard output: lines for people on a terminal, JSON lines
//!    otherwise. What is about the connection goes to standard error.
//! 4. What the daemon says is text of others: no control character of it comes to a terminal.
//!
//! ```text
//! words ──► client: GET /balance, or POST /add_address, /descriptors ──► balances ──► printer
//!           client: GET /events/stream ──► stream_text ──► following (what is new, where to go on) ──► printer
//! ```

mod client;
mod following;
mod printer;
mod stream_text;
mod words;

use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Error, Result, bail};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::config::Config;
pub use client::parse_url;
use client::{Client, Failure};
use following::{Following, Heard, Subject};
use printer::Printer;
use stream_text::StreamText;

/// Between two looks at balances that are not complete.
const LOOK: Duration = Duration::from_secs(2);

/// What the command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Addresses, descriptors and ids of descriptors.
    pub words: Vec<String>,
    /// Where the daemon is, unless it is where the settings say.
    pub url: Option<String>,
    pub token_file: Option<PathBuf>,
    /// PEM: a certificate that is trusted besides those of the system and of the settings.
    pub cacert: Option<PathBuf>,
    pub json: bool,
}

/// Prints until it is interrupted; returns when nobody reads what it prints. An error says why it
/// cannot go on. Needs a tokio runtime.
pub async fn watch(config: &Config, request: &Request) -> Result<()> {
    let client = Client::new(config, request)?;
    let status = client.get("/status").await?;
    note(&words::daemon(client.url(), &status));
    let mut subjects = Vec::new();
    let mut balances = Vec::new();
    for word in &request.words {
        let (subject, balance) = begin(&client, word).await?;
        if !subjects.contains(&subject) {
            subjects.push(subject);
            balances.push(balance);
        }
    }
    let is_for_people = !request.json && stdout().is_terminal();
    let mut printer = Printer::new(stdout(), is_for_people, subjects.len() > 1);
    let mut following = Following::new(subjects, &balances);
    match follow(&client, &mut following, &mut printer, &balances).await {
        Err(End::Unread) => Ok(()),
        Err(End::Failed(failure)) => Err(Error::new(failure)),
        Ok(()) => bail!("nothing of it is watched any more"),
    }
}

/// Why it does not go on.
enum End {
    /// Whoever read has gone away.
    Unread,
    Failed(Failure),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Unread
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What a word of the command line means to the daemon, and its balance. What is not watched is
/// added.
async fn begin(client: &Client, word: &str) -> Result<(Subject, Value), Failure> {
    if following::is_descriptor(word) {
        let wallet = json!({ "descriptor": word });
        let added = client.post("/descriptors", &wallet).await?;
        let id = added["descriptor_id"].as_str().map(str::to_owned);
        let subject = Subject::Descriptor(id.unwrap_or_default());
        let balance = client.get(&subject.balance_path()).await?;
        return Ok((subject, balance));
    }
    let asked = Subject::of_word(word);
    let balance = match client.get(&asked.balance_path()).await {
        Err(Failure::Refused { code, .. }) if code == "not_watched" => {
            client
                .post("/add_address", &json!({ "address": word }))
                .await?;
            client.get(&asked.balance_path()).await?
        }
        answer => answer?,
    };
    // As the daemon writes it, which is how events name it.
    let subject = following::subject_of(&balance);
    Ok((subject.unwrap_or(asked), balance))
}

/// Returns when nothing is left to follow.
async fn follow(
    client: &Client,
    following: &mut Following,
    printer: &mut Printer<impl Write>,
    balances: &[Value],
) -> Result<(), End> {
    for balance in balances {
        printer.balance(balance)?;
    }
    let mut is_away = false;
    while !following.is_empty() {
        let wait = match client.stream(&following.path(), following.place()).await {
            Ok(answer) => {
                if std::mem::take(&mut is_away) {
                    note("connected again: what was missed comes first");
                }
                read(client, following, printer, answer).await?;
                if following.is_empty() {
                    break;
                }
                say_away(&mut is_away, "the daemon has ended the stream");
                following.retry()
            }
            Err(Failure::Away { why }) => {
                say_away(&mut is_away, &why);
                following.retry()
            }
            Err(Failure::Later { why, again_in }) => {
                say_away(&mut is_away, &why);
                again_in.unwrap_or(following.retry())
            }
            Err(failure) => return Err(failure.into()),
        };
        sleep(wait).await;
    }
    Ok(())
}

/// Says once why it has to wait.
fn say_away(is_away: &mut bool, why: &str) {
    if !std::mem::replace(is_away, true) {
        note(&format!("{why} (trying again until it is back)"));
    }
}

/// One answer of the stream, to its end. What is not complete is looked at meanwhile.
async fn read(
    client: &Client,
    following: &mut Following,
    printer: &mut Printer<impl Write>,
    mut answer: Response,
) -> Result<(), End> {
    let mut text = StreamText::default();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let chunk = tokio::select! {
            chunk = answer.chunk() => chunk,
            _ = look.tick(), if following.incomplete().is_some() => {
                look_again(client, following, printer).await?;
                continue;
            }
        };
        let Ok(Some(chunk)) = chunk else {
            return Ok(());
        };
        for message in text.read(&chunk) {
            match following.hear(message) {
                Heard::Nothing => {}
                Heard::Event { name, data } => printer.event(&name, &data)?,
                Heard::Restart { why, balances } => {
                    note(&format!("{why} What happened meanwhile is not told; now:"));
                    for balance in &balances {
                        printer.balance(balance)?;
                    }
                }
                Heard::End(failure) => return Err(failure.into()),
            }
            if following.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Says the balance of the first that was not complete, once it is.
async fn look_again(
    client: &Client,
    following: &mut Following,
    printer: &mut Printer<impl Write>,
) -> Result<(), End> {
    let Some(subject) = following.incomplete().cloned() else {
        return Ok(());
    };
    // A daemon that is away ends the stream, too.
    if let Ok(balance) = client.get(&subject.balance_path()).await
        && following.is_complete_now(&subject, &balance)
    {
        printer.balance(&balance)?;
    }
    Ok(())
}

/// A line about the connection.
fn note(text: &str) {
    let _ = writeln!(stderr(), "{}", words::plain(text));
}
