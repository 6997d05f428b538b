//! What a path names, and the methods that it takes.

use percent_encoding::percent_decode_str;

const READ: &str = "GET, HEAD, OPTIONS";
const WRITE: &str = "POST, OPTIONS";
const DEFINE: &str = "GET, HEAD, PUT, DELETE, OPTIONS";
const CLEAR: &str = "GET, HEAD, DELETE, OPTIONS";
const REMOVE: &str = "DELETE, OPTIONS";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Status,
    Start,
    Stop,
    AddAddress,
    AddAddresses,
    Addresses,
    Address(String),
    Balance(String),
    Transactions(String),
    Utxos(String),
    Audit(String),
    ScanHistory(String),
    ScanHistories,
    Scans,
    Scan(String),
    Events,
    Consumers,
    Consumer(String),
    Ack(String),
    DeadLetters(String),
    Resend(String),
    Test(String),
    Retry(String),
    Metrics,
    Live,
    Ready,
}

/// A path with at most one `{part}` that may be anything, its methods as the `Allow` header says
/// them, and what it names.
pub struct Entry {
    pub path: &'static str,
    pub allow: &'static str,
    route: fn(String) -> Route,
}

const fn entry(path: &'static str, allow: &'static str, route: fn(String) -> Route) -> Entry {
    Entry { path, allow, route }
}

/// All routes.
pub static ROUTES: &[Entry] = &[
    entry("/status", READ, |_| Route::Status),
    entry("/start", WRITE, |_| Route::Start),
    entry("/stop", WRITE, |_| Route::Stop),
    entry("/add_address", WRITE, |_| Route::AddAddress),
    entry("/add_addresses", WRITE, |_| Route::AddAddresses),
    entry("/addresses", READ, |_| Route::Addresses),
    entry("/addresses/{address}", REMOVE, Route::Address),
    entry("/balance/{address}", READ, Route::Balance),
    entry("/transactions/{address}", READ, Route::Transactions),
    entry("/utxos/{address}", READ, Route::Utxos),
    entry("/audit/{address}", WRITE, Route::Audit),
    entry("/scan_history", WRITE, |_| Route::ScanHistories),
    entry("/scan_history/{address}", WRITE, Route::ScanHistory),
    entry("/scans", READ, |_| Route::Scans),
    entry("/scans/{id}", CLEAR, Route::Scan),
    entry("/events", READ, |_| Route::Events),
    entry("/consumers", READ, |_| Route::Consumers),
    entry("/consumers/{name}", DEFINE, Route::Consumer),
    entry("/consumers/{name}/ack", WRITE, Route::Ack),
    entry("/consumers/{name}/dead_letters", CLEAR, Route::DeadLetters),
    entry(
        "/consumers/{name}/dead_letters/resend",
        WRITE,
        Route::Resend,
    ),
    entry("/consumers/{name}/test", WRITE, Route::Test),
    entry("/consumers/{name}/retry", WRITE, Route::Retry),
    entry("/metrics", READ, |_| Route::Metrics),
    entry("/health/live", READ, |_| Route::Live),
    entry("/health/ready", READ, |_| Route::Ready),
];

impl Route {
    /// The route of a request's path, and the methods that it takes. The path's parts are
    /// percent-decoded.
    pub fn of(path: &str) -> Option<(Self, &'static str)> {
        let parts: Vec<String> = path
            .strip_prefix('/')?
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect();
        ROUTES.iter().find_map(|entry| {
            let part = entry.matches(&parts)?;
            Some(((entry.route)(part), entry.allow))
        })
    }
}

impl Entry {
    /// What stands in place of the `{part}`, nothing if there is none.
    fn matches(&self, parts: &[String]) -> Option<String> {
        let pattern = self.path.split('/').skip(1);
        if pattern.clone().count() != parts.len() {
            return None;
        }
        let mut named = String::new();
        for (word, part) in pattern.zip(parts) {
            if word.starts_with('{') {
                named.clone_from(part);
            } else if word != part {
                return None;
            }
        }
        Some(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_and_must_match_whole() {
        let route = |path| Route::of(path).map(|(route, _)| route);
        assert_eq!(route("/status"), Some(Route::Status));
        assert_eq!(
            route("/balance/bc1%71"),
            Some(Route::Balance("bc1q".to_owned()))
        );
        assert_eq!(route("/balance/"), Some(Route::Balance(String::new())));
        assert_eq!(
            route("/balance/a%2Fb"),
            Some(Route::Balance("a/b".to_owned()))
        );
        assert_eq!(
            route("/balance/%FF%"),
            Some(Route::Balance("\u{fffd}%".to_owned()))
        );
        assert_eq!(route("/scan_history"), Some(Route::ScanHistories));
        assert_eq!(
            route("/scan_history/"),
            Some(Route::ScanHistory(String::new()))
        );
        for path in [
            "",
            "/",
            "status",
            "/status/",
            "//status",
            "/balance",
            "/balance/a/b",
            "/STATUS",
            "/health",
            "*",
            "/../status",
        ] {
            assert_eq!(route(path), None, "{path}");
        }
    }
}
