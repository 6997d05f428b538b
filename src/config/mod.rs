//! Settings: built-in defaults, then a TOML file, then `SATWATCH__SECTION__NAME` from the
//! environment, then flags.
//!
//! No exit, no logging, no name resolution here. The structs name the settings, [`load`] reads them
//! with the `config` crate, [`Config::validate`] says what the values must be. `settings.toml` in
//! the repository lists every option with its default; tests hold it and the structs together.

mod listen;
mod load;
mod targets;
mod validate;

use std::path::PathBuf;

use serde::Deserialize;

pub use listen::Listen;
pub use load::{ConfigError, Flag};
pub use targets::AllowedTarget;
pub use validate::{is_host, is_origin};

/// All settings. Each part of the daemon gets only its own section.
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a section")]
pub struct Config {
    pub server: Server,
    pub store: Store,
    pub bitcoind: Bitcoind,
    pub monitor: Monitor,
    pub watch: Watch,
    pub events: Events,
    pub webhooks: Webhooks,
    pub limits: Limits,
    pub log: Log,
}

/// Where clients connect, and from which web pages.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a section")]
pub struct Server {
    pub listen: Listen,
    #[serde(deserialize_with = "load::list")]
    pub allowed_origins: Vec<String>,
    #[serde(deserialize_with = "load::list")]
    pub allowed_hosts: Vec<String>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: Listen {
                host: "127.0.0.1".to_owned(),
                port: 5005,
            },
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a section")]
pub struct Store {
    pub path: PathBuf,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data"),
        }
    }
}

/// The node. Everything absent is found (`crate::bitcoind::discover`).
#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a section")]
pub struct Bitcoind {
    pub rpc_url: Option<String>,
    pub cookie_file: Option<PathBuf>,
    pub rpc_user: Option<String>,
    pub rpc_password: Option<Secret>,
    pub zmq_rawtx: Option<String>,
    pub zmq_rawblock: Option<String>,
    pub zmq_sequence: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a section")]
pub struct Monitor {
    pub autostart: bool,
    /// Seconds between two reconciliations, at least 1.
    #[serde(deserialize_with = "load::number")]
    pub reconcile_interval: u64,
}

impl Default for Monitor {
    fn default() -> Self {
        Self {
            autostart: true,
            reconcile_interval: 10,
        }
    }
}

/// What happens with an added address's past when the caller does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum History {
    /// Find its confirmed unspent outputs with `scantxoutset`.
    #[default]
    Utxo,
    /// Watch from now on.
    None,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a section")]
pub struct Watch {
    #[serde(deserialize_with = "load::word")]
    pub history: History,
}

#[derive(Debug, Clone, PartialEq, Deserialize, Default)]
#[serde(deny_unknown_fields, default, expecting = "a section")]
pub struct Events {
    /// 0 keeps all.
    #[serde(deserialize_with = "load::number")]
    pub retention_days: u32,
}

/// How events are posted to the URLs of consumers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a section")]
pub struct Webhooks {
    /// Also to loopback, private and other addresses that are not on the public internet.
    pub allow_private: bool,
    /// To these of them.
    #[serde(deserialize_with = "load::list")]
    pub allowed_targets: Vec<AllowedTarget>,
    /// A SOCKS proxy for all others, `socks5h://host:port`. It may hold a password.
    pub proxy: Option<Secret>,
    /// Seconds for one attempt.
    #[serde(deserialize_with = "load::number")]
    pub timeout: u64,
    /// Seconds from an event's first failed attempt until it becomes a dead letter.
    #[serde(deserialize_with = "load::number")]
    pub give_up_after: u64,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            allow_private: false,
            allowed_targets: Vec::new(),
            proxy: None,
            timeout: 15,
            give_up_after: 3 * 86_400,
        }
    }
}

/// Bounds on what clients may ask for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a section")]
pub struct Limits {
    #[serde(deserialize_with = "load::number")]
    pub connections: usize,
    /// Bytes of a REST request body.
    #[serde(deserialize_with = "load::number")]
    pub body_bytes: usize,
    /// Bytes of REST requests and answers under way, of all clients together.
    #[serde(deserialize_with = "load::number")]
    pub rest_bytes: usize,
    /// Bytes of one Engine.IO packet or polling body from a client (`maxPayload`).
    #[serde(deserialize_with = "load::number")]
    pub packet_bytes: usize,
    /// Subscribed addresses of one Socket.IO client.
    #[serde(deserialize_with = "load::number")]
    pub subscriptions: usize,
    /// Named consumers.
    #[serde(deserialize_with = "load::number")]
    pub consumers: usize,
}

impl Default for Limits {
    /// Generous: they protect the daemon from a client that misbehaves, not from one that has much
    /// to do.
    fn default() -> Self {
        Self {
            connections: 10_000,
            body_bytes: 4 << 20,
            rest_bytes: 256 << 20,
            packet_bytes: 1_000_000,
            subscriptions: 100_000,
            consumers: 1000,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a section")]
pub struct Log {
    #[serde(deserialize_with = "load::word")]
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or `tracing` directives such as
    /// `info,satwatch::bitcoind=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

/// A value that never shows in logs.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
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
