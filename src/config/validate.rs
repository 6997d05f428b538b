//! What the values must be: ranges, the forms of texts, and what settings need of each other.

use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;
use std::path::Path;
use std::slice;

use url::Url;

use super::targets::is_proxy;
use super::{Config, Secret};
use crate::remedy::Remedy;

/// A setting, by its name, whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub name: &'static str,
    pub message: String,
}

const ENDPOINT: &str = "a ZMQ endpoint to connect to, such as \"tcp://127.0.0.1:28332\" or \"ipc:///run/bitcoind/zmq.sock\"";

impl Config {
    /// All that is wrong with the values.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        macro_rules! within {
            ($($section:ident.$name:ident: $range:expr;)*) => {$({
                let name = concat!(stringify!($section), ".", stringify!($name));
                problems.extend(out_of(name, self.$section.$name, $range));
            })*};
        }
        // `$values` makes a list of the one value, of the optional one, or of those of a list.
        macro_rules! expect {
            ($($values:path, $section:ident.$name:ident: $check:path, $expected:expr;)*) => {$({
                let name = concat!(stringify!($section), ".", stringify!($name));
                let values = $values(&self.$section.$name).iter();
                let wrong = values.filter(|value| !$check(value));
                problems.extend(wrong.map(|value| unexpected(name, value, &$expected)));
            })*};
        }
        within! {
            monitor.reconcile_interval: 1..=86_400;
            events.retention_days: 0..=36_500;
            webhooks.timeout: 1..=300;
            webhooks.give_up_after: 1..=31_536_000;
            limits.connections: 1..=1_000_000;
            limits.body_bytes: 1024..=1 << 30;
            limits.rest_bytes: 1 << 20..=1 << 40;
            limits.packet_bytes: 1024..=1 << 30;
            limits.subscriptions: 1..=10_000_000;
            limits.consumers: 1..=100_000;
        }
        let path = format!(
            "a path, in which ~ stands for HOME; {}",
            Remedy::WholePathOrName
        );
        expect! {
            Vec::as_slice, server.allowed_origins: is_origin, "web origins, such as \"https://shop.example\", \"null\" and \"file://\" (local files), or \"*\"";
            Vec::as_slice, server.allowed_hosts: is_host, "host names without scheme and path, such as \"satwatch.example\"";
            slice::from_ref, store.path: is_path, path;
            Option::as_slice, bitcoind.rpc_url: is_rpc_url, "an address such as \"http://127.0.0.1:8332\" (http, without user and password)";
            Option::as_slice, bitcoind.cookie_file: is_path, path;
            Option::as_slice, bitcoind.rpc_user: is_user, "a user name without a colon";
            Option::as_slice, bitcoind.rpc_password: is_password, "a password";
            Option::as_slice, bitcoind.zmq_rawtx: is_endpoint, ENDPOINT;
            Option::as_slice, bitcoind.zmq_rawblock: is_endpoint, ENDPOINT;
            Option::as_slice, bitcoind.zmq_sequence: is_endpoint, ENDPOINT;
            Option::as_slice, webhooks.proxy: is_proxy, "a SOCKS proxy that resolves names itself, such as \"socks5h://127.0.0.1:9050\"";
            slice::from_ref, log.level: is_log_level, "a level (error, warn, info, debug, trace), or levels by part: \"info,satwatch::bitcoind=debug\"";
        }
        problems.extend(self.reachable_by_others());
        problems.extend(self.half_a_login());
        problems
    }

    fn reachable_by_others(&self) -> Option<Problem> {
        let listen = &self.server.listen;
        let is_loopback = listen.address()?.to_canonical().is_loopback();
        (!is_loopback).then(|| Problem {
            name: "server.listen",
            message: format!(
                "server.listen = {listen} is reachable by others, and there are no tokens to keep them out: without tokens only loopback \
                 addresses may be listened on; {}",
                Remedy::ListenOnLoopback { port: listen.port }
            ),
        })
    }

    fn half_a_login(&self) -> Option<Problem> {
        let (user, password) = ("bitcoind.rpc_user", "bitcoind.rpc_password");
        let (name, other) = match (&self.bitcoind.rpc_user, &self.bitcoind.rpc_password) {
            (Some(_), None) => (user, password),
            (None, Some(_)) => (password, user),
            (Some(_), Some(_)) | (None, None) => return None,
        };
        let message = format!("{name} needs {other}");
        Some(Problem { name, message })
    }
}

fn out_of<T>(name: &'static str, value: T, range: RangeInclusive<u64>) -> Option<Problem>
where
    T: Copy + Debug + TryInto<u64>,
{
    let is_within = value.try_into().is_ok_and(|value| range.contains(&value));
    let (first, last) = range.into_inner();
    let expected = format!("a whole number from {first} to {last}");
    (!is_within).then(|| unexpected(name, &value, &expected))
}

fn unexpected(name: &'static str, value: &impl Debug, expected: &impl Display) -> Problem {
    let value = format!("{value:?}");
    // An address with a user and a password in it must not be printed.
    let shown = if value.contains('@') {
        "(hidden)"
    } else {
        &value
    };
    let message = format!("{name} = {shown} is not valid: expected {expected}");
    Problem { name, message }
}

fn is_password(password: &Secret) -> bool {
    !password.0.is_empty()
}

fn is_path(path: &Path) -> bool {
    let first = path.as_os_str().as_encoded_bytes().first();
    first.is_some_and(|first| *first != b'~')
}

/// `scheme://host[:port]` as browsers send it in `Origin`, what they send for local files, or the
/// star.
pub fn is_origin(text: &str) -> bool {
    matches!(text, "*" | "null" | "file://")
        || text
            .split_once("://")
            .is_some_and(|(scheme, rest)| is_word(scheme) && is_host(rest))
}

pub fn is_host(text: &str) -> bool {
    !text.is_empty()
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "/?#@*".contains(c))
}

fn is_rpc_url(text: &str) -> bool {
    text.starts_with("http://")
        && !text.contains(|c: char| c.is_whitespace() || "@?#".contains(c))
        && Url::parse(text).is_ok_and(|url| url.port() != Some(0))
}

fn is_user(text: &str) -> bool {
    !text.is_empty() && !text.contains(':')
}

fn is_endpoint(text: &str) -> bool {
    if let Some(path) = text.strip_prefix("ipc://") {
        return !path.is_empty();
    }
    let Some(authority) = text.strip_prefix("tcp://") else {
        return false;
    };
    // An endpoint without a port, or with the star of a binding address, is one that nobody can
    // connect to.
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    is_host(authority) && port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

/// Stricter than `tracing`'s own parser, which takes any word for the name of a part and then logs
/// nothing else.
fn is_log_level(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    text.split(',')
        .all(|directive| match directive.split_once('=') {
            None => LEVELS.contains(&directive),
            Some((part, level)) => LEVELS.contains(&level) && part.split("::").all(is_word),
        })
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-+.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listen;

    #[test]
    fn every_number_has_a_first_and_a_last_good_value() {
        fn check(first: u64, last: u64, set: impl Fn(&mut Config, u64)) {
            let good = |number: u64| {
                let mut config = Config::default();
                set(&mut config, number);
                config.validate().is_empty()
            };
            assert!(
                good(first) && good(last) && !good(last + 1),
                "{first} to {last}"
            );
            assert!(first == 0 || !good(first - 1), "{first} to {last}");
        }
        let size = |number: u64| number as usize;
        check(1, 86_400, |config, number| {
            config.monitor.reconcile_interval = number
        });
        check(0, 36_500, |config, number| {
            config.events.retention_days = number as u32
        });
        check(1, 300, |config, number| config.webhooks.timeout = number);
        check(1, 31_536_000, |config, number| {
            config.webhooks.give_up_after = number
        });
        check(1, 1_000_000, |config, number| {
            config.limits.connections = size(number)
        });
        check(1024, 1 << 30, |config, number| {
            config.limits.body_bytes = size(number)
        });
        check(1 << 20, 1 << 40, |config, number| {
            config.limits.rest_bytes = size(number)
        });
        check(1024, 1 << 30, |config, number| {
            config.limits.packet_bytes = size(number)
        });
        check(1, 10_000_000, |config, number| {
            config.limits.subscriptions = size(number)
        });
        check(1, 100_000, |config, number| {
            config.limits.consumers = size(number)
        });
    }

    #[test]
    fn texts_that_are_good_and_texts_that_are_not() {
        #[rustfmt::skip]
        let cases = [
            ("server.listen", "127.0.0.1:5005", true), ("server.listen", "[::1]:0", true), ("server.listen", "localhost:5005", true),
            ("server.listen", "satwatch.example.:80", true), ("server.listen", "localhost", false), ("server.listen", ":5005", false),
            ("server.listen", "*:5005", false), ("server.listen", "::1:5005", false), ("server.listen", "127.1:5005", false), ("server.listen", "a..b:1", false),
            ("server.listen", "127.0.0.1", false), ("server.listen", "127.0.0.1:70000", false), ("server.listen", "", false),
            ("server.allowed_origins", "*", true), ("server.allowed_origins", "https://shop.example", true),
            ("server.allowed_origins", "http://localhost:3000", true), ("server.allowed_origins", "shop.example", false),
            ("server.allowed_origins", "https://shop.example/", false), ("server.allowed_origins", "null", true),
            ("server.allowed_origins", "file://", true), ("server.allowed_origins", "file:///home", false), ("server.allowed_origins", "tauri://localhost", true),
            ("server.allowed_hosts", "satwatch.example", true), ("server.allowed_hosts", "https://satwatch.example", false),
            ("bitcoind.rpc_url", "http://127.0.0.1:8332", true), ("bitcoind.rpc_url", "http://node/wallet/w", true),
            ("bitcoind.rpc_url", "http://[::1]:8332/", true), ("bitcoind.rpc_url", "http://node:port", false),
            ("bitcoind.rpc_url", "127.0.0.1:8332", false), ("bitcoind.rpc_url", "https://node", false), ("bitcoind.rpc_url", "http://u:p@node", false),
            ("bitcoind.rpc_user", "alice", true), ("bitcoind.rpc_user", "a:b", false),
            ("bitcoind.zmq_rawtx", "tcp://127.0.0.1:28332", true), ("bitcoind.zmq_rawtx", "ipc:///tmp/x", true), ("bitcoind.zmq_rawtx", "tcp://[::1]:28332", true),
            ("bitcoind.zmq_rawtx", "tcp://*:28332", false), ("bitcoind.zmq_rawtx", "tcp://127.0.0.1", false), ("bitcoind.zmq_rawtx", "127.0.0.1:28332", false),
            ("bitcoind.zmq_rawtx", "tcp://127.0.0.1:0", false), ("bitcoind.zmq_rawtx", "ipc://", false),
            ("log.level", "info", true), ("log.level", "info,satwatch::bitcoind=debug", true), ("log.level", "off", true),
            ("log.level", "verbose", false), ("log.level", "info,", false), ("log.level", "satwatch=loud", false), ("log.level", "", false),
        ];
        for (name, value, good) in cases {
            let is_good = match name {
                "server.listen" => value.parse::<Listen>().is_ok(),
                "server.allowed_origins" => is_origin(value),
                "server.allowed_hosts" => is_host(value),
                "bitcoind.rpc_url" => is_rpc_url(value),
                "bitcoind.rpc_user" => is_user(value),
                "bitcoind.zmq_rawtx" => is_endpoint(value),
                "log.level" => is_log_level(value),
                _ => unreachable!("{name}"),
            };
            assert_eq!(is_good, good, "{name} = {value:?}");
        }
    }
}
