//! What a path names, and the methods that it takes.

use hyper::Method;
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
    Metrics,
    Live,
    Ready,
}

impl Route {
    /// The route of a request's path; its parts are percent-decoded.
    pub fn of(path: &str) -> Option<Self> {
        let parts: Vec<String> = path
            .strip_prefix('/')?
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Some(match parts.as_slice() {
            ["status"] => Self::Status,
            ["start"] => Self::Start,
            ["stop"] => Self::Stop,
            ["add_address"] => Self::AddAddress,
            ["add_addresses"] => Self::AddAddresses,
            ["addresses"] => Self::Addresses,
            ["addresses", address] => Self::Address((*address).to_owned()),
            ["balance", address] => Self::Balance((*address).to_owned()),
            ["transactions", address] => Self::Transactions((*address).to_owned()),
            ["utxos", address] => Self::Utxos((*address).to_owned()),
            ["audit", address] => Self::Audit((*address).to_owned()),
            ["scan_history", address] => Self::ScanHistory((*address).to_owned()),
            ["scan_history"] => Self::ScanHistories,
            ["scans"] => Self::Scans,
            ["scans", id] => Self::Scan((*id).to_owned()),
            ["events"] => Self::Events,
            ["consumers"] => Self::Consumers,
            ["consumers", name] => Self::Consumer((*name).to_owned()),
            ["consumers", name, "ack"] => Self::Ack((*name).to_owned()),
            ["consumers", name, "dead_letters"] => Self::DeadLetters((*name).to_owned()),
            ["consumers", name, "dead_letters", "resend"] => Self::Resend((*name).to_owned()),
            ["metrics"] => Self::Metrics,
            ["health", "live"] => Self::Live,
            ["health", "ready"] => Self::Ready,
            _ => return None,
        })
    }

    /// The methods it takes, as the `Allow` header says them.
    pub fn allow(&self) -> &'static str {
        match self {
            Self::Start
            | Self::Stop
            | Self::AddAddress
            | Self::AddAddresses
            | Self::ScanHistory(_)
            | Self::ScanHistories => WRITE,
            Self::Ack(_) | Self::Resend(_) => WRITE,
            Self::Status
            | Self::Addresses
            | Self::Balance(_)
            | Self::Transactions(_)
            | Self::Utxos(_)
            | Self::Events => READ,
            Self::Audit(_)
            | Self::Scans
            | Self::Consumers
            | Self::Metrics
            | Self::Live
            | Self::Ready => READ,
            Self::Consumer(_) => DEFINE,
            Self::DeadLetters(_) | Self::Scan(_) => CLEAR,
            Self::Address(_) => REMOVE,
        }
    }

    /// It answers this method with state that events change, so it can wait for one (`min_cursor`).
    pub fn tells_state(&self, method: &Method) -> bool {
        match self {
            Self::Status
            | Self::Addresses
            | Self::Balance(_)
            | Self::Transactions(_)
            | Self::Utxos(_)
            | Self::Events => true,
            Self::Audit(_) | Self::Scans => true,
            Self::Scan(_) => method == Method::GET,
            Self::Start
            | Self::Stop
            | Self::AddAddress
            | Self::AddAddresses
            | Self::ScanHistory(_)
            | Self::ScanHistories => false,
            Self::Address(_) => false,
            Self::Consumers
            | Self::Consumer(_)
            | Self::Ack(_)
            | Self::DeadLetters(_)
            | Self::Resend(_) => false,
            Self::Metrics | Self::Live | Self::Ready => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_and_must_match_whole() {
        assert_eq!(Route::of("/status"), Some(Route::Status));
        assert_eq!(
            Route::of("/balance/bc1%71"),
            Some(Route::Balance("bc1q".to_owned()))
        );
        assert_eq!(Route::of("/balance/"), Some(Route::Balance(String::new())));
        assert_eq!(
            Route::of("/balance/a%2Fb"),
            Some(Route::Balance("a/b".to_owned()))
        );
        assert_eq!(
            Route::of("/balance/%FF%"),
            Some(Route::Balance("\u{fffd}%".to_owned()))
        );
        assert_eq!(Route::of("/scan_history"), Some(Route::ScanHistories));
        assert_eq!(
            Route::of("/scan_history/"),
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
            assert_eq!(Route::of(path), None, "{path}");
        }
    }
}
