//! `satwatch watch ADDRESS…`: a client of a running daemon that prints what happens to addresses
//! and wallets as it comes.
//!
//! # Laws
//!
//! 1. It is a client as any other: REST and `GET /events/stream`, a token, the daemon's
//!    certificate. It imports nothing of the daemon but settings, remedies and what tells a private
//!    key.
//! 2. Each event is printed once and in order, over breaks of the connection and restarts of the
//!    daemon: the stream goes on behind the last id that was read (`Last-Event-ID`). When events
//!    cannot be told any more, that is said, with the balances as they are. A balance stands behind
//!    the events that it counts and before the others.
//! 3. What is for the reader goes to standard output: lines for people on a terminal, JSON lines
//!    otherwise. What is about the connection goes to standard error.
//! 4. What the daemon says is text of others: no control character of it comes to a terminal, and
//!    what is kept of it is bounded.
//! 5. What may be a private key is neither sent nor shown.
//!
//! ```text
//! words ──► argument ──► client: GET /balance, or POST /add_address, /descriptors ──► balances ──► printer
//!           client: GET /events/stream ──► stream_text ──► following (what is new, where to go on) ──► printer
//! ```

mod argument;
mod client;
mod following;
mod printer;
mod stream_text;
mod told;
mod words;

use std::future::pending;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Error, Result, bail};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::config::Config;
use argument::Argument;
pub use client::parse_url;
use client::{Client, Failure};
use following::{Following, Heard, Subject};
use printer::Printer;
use stream_text::{Message, StreamText};

/// Between two requests that are refused for now, if the daemon names no time; and at most.
const PAUSE: Duration = Duration::from_secs(5);
const MOST_PAUSE: Duration = Duration::from_secs(30);

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
    let all = argument::parse(&request.words)?;
    let client = Client::new(config, request)?;
    let status = get(&client, "/status").await?;
    note(&words::daemon(client.url(), &status));
    let is_for_people = !request.json && stdout().is_terminal();
    let mut printer = Printer::new(stdout(), is_for_people);
    let mut subjects = Vec::new();
    let mut balances = Vec::new();
    for argument in all {
        let (subject, balance) = begin(&client, argument, &mut printer).await?;
        if !subjects.contains(&subject) {
            subjects.push(subject);
            balances.push(balance);
        }
    }
    printer.names_subjects = subjects.len() > 1;
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
async fn begin(
    client: &Client,
    argument: Argument,
    printer: &mut Printer<impl Write>,
) -> Result<(Subject, Value), Failure> {
    let named = match argument {
        Argument::Address(address) => Subject::Address(address),
        Argument::DescriptorId(id) => {
            printer.wallet(&find_wallet(client, &id).await?);
            Subject::Descriptor(id)
        }
        Argument::Descriptor(text) => {
            let wallet = json!({ "descriptor": text });
            let added = post(client, "/descriptors", &wallet).await?;
            printer.wallet(&added);
            let id = added["descriptor_id"].as_str().unwrap_or_default();
            Subject::Descriptor(id.to_owned())
        }
    };
    let balance = match (get(client, &named.balance_path()).await, &named) {
        (Err(Failure::Refused { code, .. }), Subject::Address(address))
            if code == "not_watched" =>
        {
            let body = json!({ "address": address });
            post(client, "/add_address", &body).await?;
            get(client, &named.balance_path()).await?
        }
        (answer, _) => answer?,
    };
    // As the daemon writes it, which is how events name it.
    let subject = following::subject_of(&balance);
    Ok((subject.unwrap_or(named), balance))
}

/// The wallet with this id. It is looked for in the list, since an id that the daemon does not have
/// may be a private key, and is not sent.
async fn find_wallet(client: &Client, id: &str) -> Result<Value, Failure> {
    let mut path = "/descriptors".to_owned();
    loop {
        let page = get(client, &path).await?;
        let listed = page["descriptors"].as_array().into_iter().flatten();
        let found = listed.into_iter().find(|it| it["descriptor_id"] == id);
        match (found, page["next"].as_str()) {
            (Some(wallet), _) => return Ok(wallet.clone()),
            (None, Some(next)) => path = format!("/descriptors?after={next}"),
            (None, None) => {
                return Err(Failure::Refused {
                    code: "no_such_descriptor".to_owned(),
                    error: "64 hexadecimal digits are the id of no wallet that satwatch watches (GET /descriptors \
                            lists them); they were not sent, and are not shown, since they may be a private key"
                        .to_owned(),
                });
            }
        }
    }
}

async fn get(client: &Client, path: &str) -> Result<Value, Failure> {
    until_answered(async || client.get(path).await).await
}

/// What may be done twice.
async fn post(client: &Client, path: &str, body: &Value) -> Result<Value, Failure> {
    until_answered(async || client.post(path, body).await).await
}

/// Asks again while the daemon says that what is wrong passes.
async fn until_answered(ask: impl AsyncFn() -> Result<Value, Failure>) -> Result<Value, Failure> {
    let mut is_away = false;
    loop {
        match ask().await {
            Err(Failure::Later { why, again_in }) => {
                say_away(&mut is_away, &why);
                sleep(again_in.unwrap_or(PAUSE).min(MOST_PAUSE)).await;
            }
            answer => return answer,
        }
    }
}

/// Returns when nothing is left to follow.
async fn follow(
    client: &Client,
    following: &mut Following,
    printer: &mut Printer<impl Write>,
    balances: &[Value],
) -> Result<(), End> {
    print_all(printer, balances)?;
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
                following.retry(None)
            }
            Err(Failure::Away { why }) => {
                say_away(&mut is_away, &why);
                following.retry(None)
            }
            Err(Failure::Later { why, again_in }) => {
                say_away(&mut is_away, &why);
                following.retry(again_in)
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
    let mut look = pin!(look_at(client, following.next_look()));
    loop {
        let chunk = tokio::select! {
            chunk = answer.chunk() => chunk,
            (subject, balance) = look.as_mut() => {
                following.looked(&subject, balance);
                print_all(printer, &following.due())?;
                look.set(look_at(client, following.next_look()));
                continue;
            }
        };
        let Ok(Some(chunk)) = chunk else {
            return Ok(());
        };
        let messages = text.read(&chunk).map_err(|_| client.too_much())?;
        for message in messages {
            tell(following, printer, message)?;
            if following.is_empty() {
                return Ok(());
            }
        }
    }
}

fn tell(
    following: &mut Following,
    printer: &mut Printer<impl Write>,
    message: Message,
) -> Result<(), End> {
    print_all(printer, &following.due_before(&message))?;
    match following.hear(message) {
        Heard::Nothing => {}
        Heard::Event { name, data } => printer.event(&name, &data)?,
        Heard::Restart { why, balances } => {
            note(&format!("{why} What happened meanwhile is not told; now:"));
            print_all(printer, &balances)?;
        }
        Heard::End(failure) => return Err(failure.into()),
    }
    print_all(printer, &following.due())
}

fn print_all(printer: &mut Printer<impl Write>, balances: &[Value]) -> Result<(), End> {
    for balance in balances {
        printer.balance(balance)?;
    }
    Ok(())
}

/// A balance, after a pause; never, if there is none to look at. A daemon that is away ends the
/// stream, too, so why there is no answer is not told.
async fn look_at(client: &Client, next: Option<(Subject, Duration)>) -> (Subject, Option<Value>) {
    let Some((subject, wait)) = next else {
        return pending().await;
    };
    sleep(wait).await;
    let balance = client.get(&subject.balance_path()).await.ok();
    (subject, balance)
}

/// A line about the connection.
fn note(text: &str) {
    let _ = writeln!(stderr(), "{}", words::plain(text));
}
