//! What clients say over REST and in the events of Socket.IO: paths, queries, bodies, headers.

use bitcoin::Network;
use hyper::Method;
use satwatch::api::ApiError;
use satwatch::api::internals::{SAID, find_route};
use satwatch::auth::Credential;
use satwatch::config::{TrustedProxy, Webhooks};
use satwatch::consumers::consumer_name;
use satwatch::limits::{Forwarding, client_address};
use satwatch::store::Starts;
use satwatch::store::internals::StoredValue;
use satwatch::webhooks::{self, TargetRequest};
use satwatch::wire::error::shortened;
use satwatch::wire::request::types::{Addresses, Labelled};
use satwatch::wire::request::{self, Request};
use satwatch::wire::{address, cursor};
use serde::Deserialize;

use super::Secrets;

const PARTS: &[fn(&Secrets, usize, &[u8])] = &[
    object,
    query,
    path,
    one_address,
    list,
    webhook,
    a_cursor,
    name,
    forwarding,
    authorization,
];

/// The first byte says what the third and all behind it are, the second one which of them. Each is
/// read, or refused with a sentence.
pub fn rest(data: &[u8]) {
    if let [part, which, rest @ ..] = data {
        let secrets = Secrets::of(data);
        let part = PARTS[usize::from(*part) % PARTS.len()];
        part(&secrets, usize::from(*which), &secrets.put(rest));
    }
}

/// Whether it was read. A refusal is the client's fault, and says why.
fn check<T>(secrets: &Secrets, read: Result<T, ApiError>) -> Option<T> {
    let error = match read {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    secrets.check(&error.message);
    assert!(
        error.status.is_client_error() && error.restart.is_none(),
        "{error:?}"
    );
    assert!(
        error
            .code
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    );
    assert!(!error.message.contains(char::is_control), "{error:?}");
    None
}

/// As a route or an event reads JSON.
fn object(secrets: &Secrets, which: usize, text: &[u8]) {
    check(secrets, (SAID[which % SAID.len()].object)(text));
}

/// As a route reads its query. What is refused is named.
fn query(secrets: &Secrets, which: usize, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let read = (SAID[which % SAID.len()].query)(&text);
    if let Err(error) = &read
        && error.code != "missing_field"
    {
        let mut names = form_urlencoded::parse(text.as_bytes()).map(|(name, _)| shortened(&name));
        assert!(names.any(|name| error.message.contains(&name)), "{error:?}");
    }
    check(secrets, read);
}

fn path(secrets: &Secrets, which: usize, text: &[u8]) {
    let path = String::from_utf8_lossy(text);
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::DELETE,
        Method::TRACE,
    ];
    if let Some(found) = check(secrets, find_route(&path, &methods[which % methods.len()])) {
        assert_eq!(found.split('/').count(), path.split('/').count());
    }
}

/// An address is written so that it is read again.
fn one_address(secrets: &Secrets, which: usize, text: &[u8]) {
    let networks = [Network::Bitcoin, Network::Testnet, Network::Regtest];
    let network = networks[which % networks.len()];
    if let Some(known) = check(
        secrets,
        address::parse(&String::from_utf8_lossy(text), network),
    ) {
        assert_eq!(address::parse(&known.text, network), Ok(known));
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    addresses: Addresses<Labelled>,
}

impl Request for List {}

fn list(secrets: &Secrets, _: usize, data: &[u8]) {
    if let Some(List { addresses }) = check(secrets, request::object(data)) {
        let count = addresses.count();
        if let Some(known) = check(secrets, addresses.parse(Network::Bitcoin)) {
            assert_eq!(known.len(), count);
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hook {
    url: Option<String>,
    secret: Option<String>,
    secrets: Option<webhooks::SigningSecrets>,
    headers: Option<webhooks::Headers>,
}

impl Request for Hook {}

fn webhook(secrets: &Secrets, _: usize, data: &[u8]) {
    let Some(hook) = check(secrets, request::object::<Hook>(data)) else {
        return;
    };
    let asked = TargetRequest {
        url: hook.url,
        secret: hook.secret,
        secrets: hook.secrets,
        headers: hook.headers,
    };
    let target = webhooks::target(&Webhooks::default(), asked);
    if let Some(Some(target)) = check(secrets, target) {
        let (webhook, _) = target.webhook(None).expect("there was none before");
        assert!(!webhook.secrets.is_empty());
    }
}

/// A cursor of a log of two starts is written as it was read.
fn a_cursor(_: &Secrets, _: usize, data: &[u8]) {
    let starts: Vec<(String, (u64, u64))> =
        vec![("a".to_owned(), (0, 0)), ("b".to_owned(), (100, 9))];
    let starts = Starts::from_bytes(&starts.to_bytes()).expect("two starts");
    let text = String::from_utf8_lossy(data);
    if let Ok(number) = cursor::read(&starts, &text) {
        assert_eq!(cursor::write(&starts, number), text);
    }
}

fn name(secrets: &Secrets, _: usize, data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(name) = check(secrets, consumer_name(&text)) {
        assert_eq!(name, text);
    }
}

/// Lines of `X-Forwarded-For`, of `Forwarded` behind `!`. Who is none of our proxies is believed
/// nothing.
fn forwarding(_: &Secrets, _: usize, data: &[u8]) {
    let mut said = Forwarding::default();
    for line in data.split(|byte| *byte == b'\n') {
        match line.strip_prefix(b"!") {
            Some(line) => said.forwarded.push(line),
            None => said.x_forwarded_for.push(line),
        }
    }
    let proxies: [TrustedProxy; 2] =
        ["10.0.0.0/8", "::1"].map(|text| text.parse().expect("a proxy"));
    let address = |text: &str| text.parse().expect("an address");
    let stranger = address("192.0.2.1");
    assert_eq!(client_address(&proxies, stranger, &said), stranger);
    let client = client_address(&proxies, address("10.0.0.1"), &said);
    assert_eq!(client.to_canonical(), client);
}

/// What is taken for a token stands in the header.
fn authorization(_: &Secrets, _: usize, data: &[u8]) {
    if let Credential::Token(token) = Credential::of_header([data]) {
        let header = std::str::from_utf8(data).expect("a token is text");
        assert!(header.contains(token));
    }
}
