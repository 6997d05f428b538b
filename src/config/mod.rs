//! Settings: built-in defaults, then a TOML file, then `SATWATCH__SECTION__NAME` from the
//! environment, then flags.
//!
//! No exit, no logging, no name resolution here. Below stands each setting with its type, its
//! default, and how it is read ([`read`]); [`load`] goes through the sources, which the `config`
//! crate reads. `settings.toml` in the repository lists every option with its default; tests hold
//! both together.
//!
//! In a file a value has a type, and one of another type is refused. In the environment and in
//! flags all is text: numbers in digits, booleans as `true` and `false`, lists with commas.

mod bus_url;
mod changes;
mod checks;
mod listen;
mod load;
mod proxies;
mod read;
mod targets;

use std::path::PathBuf;

pub use bus_url::BusUrl;
pub use changes::{Change, Changes, SettingsStatus};
pub use checks::{is_host, is_origin};
pub use listen::Listen;
pub use load::{ConfigError, Flag, overlooked};
pub use proxies::TrustedProxy;
pub use targets::{AllowedTarget, is_host_name};

/// No part of the interface: for the fuzz targets alone.
#[doc(hidden)]
pub mod internals {
    pub use super::load::load_text;
}

use checks::{
    is_endpoint, is_log_level, is_rpc_url, is_stream_name, is_token, is_upstream, is_user,
};
use read::{
    Given, boolean, hidden, hidden_parsed, list, one, optional, parsed, path, secret, text, whole,
    word,
};
use targets::is_proxy;

const LISTEN: &str = "a host and a port, such as \"127.0.0.1:5005\", \"localhost:5005\" or \"[::1]:5005\" (port 0 picks a free one)";
const ORIGINS: &str = "web origins, such as \"https://shop.example\", \"null\" and \"file://\" (local files), or \"*\"";
const HOSTS: &str = "host names without scheme and path, such as \"satwatch.example\"";
const RPC_URL: &str =
    "an address such as \"http://127.0.0.1:8332\" (http, without user and password)";
const ENDPOINT: &str = "a ZMQ endpoint to connect to, such as \"tcp://127.0.0.1:28332\" or \"ipc:///run/bitcoind/zmq.sock\"";
const PROXIES: &str = "addresses and networks of proxies, such as \"127.0.0.1\" or \"10.0.0.0/8\"";
const TARGETS: &str =
    "host names, IP addresses and networks, such as \"ntfy.lan\" and \"192.168.1.0/24\"";
const PROXY: &str =
    "a SOCKS proxy that resolves names itself, such as \"socks5h://127.0.0.1:9050\"";
const BUS_URL: &str = "where Redis is, such as \"redis://127.0.0.1:6379\", \"rediss://user:password@host:6379/0\", \"unix:///run/redis/redis.sock\" or \"redis+sentinel://host:26379,host:26379/master\"";
const STREAM_NAME: &str = "a name of up to 200 letters, digits and the characters :._-";
const UPSTREAM: &str = "the URL of the primary, such as \"http://10.0.0.5:5005\" (http or https, without user, password and path)";
const TOKEN: &str = "the text of a token, sw_ and what follows";
const LEVEL: &str = "a level (error, warn, info, debug, trace), or levels by part: \"info,satwatch::bitcoind=debug\"";

/// `section: Type { name: type = default, how it is read; }`; `section: Type in outer` is called
/// `outer.section` in a file.
macro_rules! settings {
    ($($(#[$about:meta])* $section:ident: $Section:ident $(in $outer:ident)? {
        $($(#[$doc:meta])* $name:ident: $type:ty = $default:expr, $read:expr;)*
    })*) => {
        /// All settings. Each part of the daemon gets only its own section.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct Config {
            $(pub $section: $Section,)*
            /// What was given, with its place, and is no setting any more.
            pub no_longer_needed: Vec<String>,
            /// With the place of `server.listen`, if others reach that address: what is wrong with
            /// it unless there are tokens.
            pub reachable_by_others: Option<String>,
        }

        $(
            $(#[$about])*
            #[derive(Debug, Clone, PartialEq)]
            pub struct $Section {
                $($(#[$doc])* pub $name: $type,)*
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $($name: $default,)* }
                }
            }
        )*

        /// The names of all settings, by section.
        const NAMES: &[(&str, &[&str])] =
            &[$((title!($section $(in $outer)?), &[$(stringify!($name),)*]),)*];

        impl Config {
            /// Takes a value, or says what is wrong with it. `None`: there is no such setting.
            fn set(&mut self, section: &str, name: &str, given: &Given<'_>) -> Option<Result<(), String>> {
                $(if section == title!($section $(in $outer)?) {
                    return match name {
                        $(stringify!($name) => {
                            let read = $read(given);
                            Some(read.map(|value| self.$section.$name = value))
                        })*
                        _ => None,
                    };
                })*
                None
            }

            /// The settings that `other` has otherwise. Values are shown as for a log.
            fn differing(&self, other: &Self) -> Vec<Change> {
                let mut changes = Vec::new();
                $(let section = title!($section $(in $outer)?);
                $(
                    let (before, after) = (&self.$section.$name, &other.$section.$name);
                    if before != after {
                        changes.push(Change {
                            section,
                            name: stringify!($name),
                            before: format!("{before:?}"),
                            after: format!("{after:?}"),
                        });
                    }
                )*)*
                changes
            }
        }
    };
}

/// What a section is called in a file.
macro_rules! title {
    ($section:ident) => {
        stringify!($section)
    };
    ($section:ident in $outer:ident) => {
        concat!(stringify!($outer), ".", stringify!($section))
    };
}

settings! {
    /// Where clients connect, and from which web pages.
    server: Server {
        listen: Listen = Listen { host: "127.0.0.1".to_owned(), port: 5005 }, one(parsed, LISTEN);
        allowed_origins: Vec<String> = Vec::new(), list(text(is_origin), ORIGINS);
        allowed_hosts: Vec<String> = Vec::new(), list(text(is_host), HOSTS);
        /// Proxies whose `X-Forwarded-For` and `Forwarded` say who asks.
        trusted_proxies: Vec<TrustedProxy> = Vec::new(), list(parsed, PROXIES);
        /// Seconds for which browsers keep to TLS once they were here; 0 says nothing about it.
        hsts: u64 = 0, whole(0..=63_072_000);
    }

    /// The files of TLS, in PEM; both or none.
    tls: Tls in server {
        /// The certificate, and its chain behind it.
        cert: Option<PathBuf> = None, optional(path);
        key: Option<PathBuf> = None, optional(path);
    }

    store: Store {
        path: PathBuf = PathBuf::from("data"), path;
    }

    /// Who may ask for what.
    auth: Auth {
        /// `tokens.toml` beside the database without one.
        tokens_file: Option<PathBuf> = None, optional(path);
        /// A file with the text of a token, which is the first one of a new store.
        first_token_file: Option<PathBuf> = None, optional(path);
    }

    /// The node. Everything absent is found (`crate::bitcoind::discover`).
    bitcoind: Bitcoind {
        rpc_url: Option<String> = None, optional(one(text(is_rpc_url), RPC_URL));
        cookie_file: Option<PathBuf> = None, optional(path);
        rpc_user: Option<String> = None, optional(hidden(is_user, "a user name without a colon"));
        rpc_password: Option<Secret> = None, secret(|text| !text.is_empty(), "a password");
        zmq_rawtx: Option<String> = None, optional(one(text(is_endpoint), ENDPOINT));
        zmq_rawblock: Option<String> = None, optional(one(text(is_endpoint), ENDPOINT));
        zmq_sequence: Option<String> = None, optional(one(text(is_endpoint), ENDPOINT));
    }

    monitor: Monitor {
        autostart: bool = true, boolean;
        /// Seconds between two reconciliations.
        reconcile_interval: u64 = 10, whole(1..=86_400);
    }

    watch: Watch {
        history: History = History::Utxo, word(&[("utxo", History::Utxo), ("none", History::None)]);
    }

    events: Events {
        /// 0 keeps all.
        retention_days: u32 = 0, whole(0..=36_500);
    }

    /// How events are posted to the URLs of consumers.
    webhooks: Webhooks {
        /// Also to loopback, private and other addresses that are not on the public internet.
        allow_private: bool = false, boolean;
        /// To these of them.
        allowed_targets: Vec<AllowedTarget> = Vec::new(), list(parsed, TARGETS);
        /// A SOCKS proxy for all others, `socks5h://host:port`. It may hold a password.
        proxy: Option<Secret> = None, secret(is_proxy, PROXY);
        /// Seconds for one attempt.
        timeout: u64 = 15, whole(1..=300);
        /// Seconds from an event's first failed attempt until it becomes a dead letter.
        give_up_after: u64 = 3 * 86_400, whole(1..=31_536_000);
    }

    /// The log on Redis.
    bus: Bus {
        url: Option<BusUrl> = None, optional(hidden_parsed(BUS_URL));
        /// `satwatch:<network>` without one.
        stream: Option<String> = None, optional(one(text(is_stream_name), STREAM_NAME));
        /// Entries that the stream keeps, about; 0 keeps all.
        max_length: u64 = 1_000_000, whole(0..=1_000_000_000_000);
    }

    /// Of `satwatch edge`, which serves the log of another daemon, its primary.
    edge: Edge {
        /// Where the primary is.
        upstream: Option<String> = None, optional(one(text(is_upstream), UPSTREAM));
        /// A token of the primary, of scope read.
        token: Option<Secret> = None, secret(is_token, TOKEN);
    }

    /// Bounds on what clients may ask for. Generous: they protect the daemon from a client that
    /// misbehaves, not from one that has much to do.
    limits: Limits {
        connections: usize = 10_000, whole(1..=1_000_000);
        /// Of one address, an IPv6 network of 64 bits counting as one.
        connections_per_address: usize = 1000, whole(1..=1_000_000);
        /// Connections that have not sent their first request, handshake of TLS and head included.
        unfinished_handshakes: usize = 1000, whole(1..=1_000_000);
        /// Bytes of a REST request body.
        body_bytes: usize = 4 << 20, whole(1024..=1 << 30);
        /// Bytes of REST requests and answers under way, of all clients together.
        rest_bytes: usize = 256 << 20, whole(1 << 20..=1 << 40);
        /// Bytes of one Engine.IO packet or polling body from a client (`maxPayload`).
        packet_bytes: usize = 1_000_000, whole(1024..=1 << 30);
        /// Requests over REST, connects and events over Socket.IO of one client: a token or,
        /// without one, an address. Ten times as many may come at once.
        requests_per_second: u32 = 5000, whole(1..=1_000_000);
        /// Of them those that cost much, and credentials that are wrong.
        costly_per_minute: u32 = 3000, whole(1..=1_000_000);
        /// Requests that wait for events (`wait`), of all clients together.
        waiting_requests: usize = 5000, whole(1..=1_000_000);
        /// Subscribed addresses of one Socket.IO connection.
        subscriptions: usize = 100_000, whole(1..=10_000_000);
        /// Those of all connections together.
        subscriptions_in_all: usize = 2_000_000, whole(1..=100_000_000);
        /// Named consumers.
        consumers: usize = 1000, whole(1..=100_000);
        /// Addresses on the watch list that one token has put there.
        addresses_per_token: usize = 1_000_000, whole(1..=100_000_000);
        /// Consumers that one token has defined.
        consumers_per_token: usize = 1000, whole(1..=100_000);
        /// Scripts of one descriptor when it is added, its lookahead included.
        descriptor_scripts: usize = 250_000, whole(1..=100_000_000);
    }

    metrics: Metrics {
        /// A port for `/metrics` and the health routes alone, without TLS.
        listen: Option<Listen> = None, optional(one(parsed, LISTEN));
    }

    log: Log {
        format: LogFormat = LogFormat::Text, word(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        /// `error`, `warn`, `info`, `debug`, `trace`, or `tracing` directives such as
        /// `info,satwatch::bitcoind=debug`.
        level: String = "info".to_owned(), one(text(is_log_level), LEVEL);
    }
}

impl Config {
    pub fn tokens_file(&self) -> PathBuf {
        let named = self.auth.tokens_file.clone();
        named.unwrap_or_else(|| self.store.path.join("tokens.toml"))
    }

    /// Whether others are expected although only loopback is listened on.
    pub fn is_behind_proxy(&self) -> bool {
        !self.server.trusted_proxies.is_empty() || !self.server.allowed_hosts.is_empty()
    }
}

/// What happens with an added address's past when the caller does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// Find its confirmed unspent outputs with `scantxoutset`.
    Utxo,
    /// Watch from now on.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// A value that never shows in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show() {
        let config = Config {
            bitcoind: Bitcoind {
                rpc_password: Some(Secret("hunter2".into())),
                ..Default::default()
            },
            ..Default::default()
        };
        let shown = format!("{config:?}");
        assert!(
            shown.contains("(hidden)") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
