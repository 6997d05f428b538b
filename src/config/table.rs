//! Every setting: its name, what a value looks like, and the sentence that says so.

use super::Listen;

use super::targets::{AllowedTarget, is_proxy};

/// How a value is written: in TOML with its own type, in the environment as text.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// `true` or `false`.
    Flag,
    /// A whole number within these bounds.
    Count {
        min: i64,
        max: i64,
    },
    Text(fn(&str) -> bool),
    /// Text; a `~` at its beginning is the home directory.
    Path,
    /// In the environment separated by commas.
    List(fn(&str) -> bool),
}

/// One row of [`SETTINGS`].
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// `section.name`.
    pub name: &'static str,
    pub form: Form,
    /// Completes "expected …".
    pub expected: &'static str,
    /// The value is never shown.
    pub secret: bool,
}

impl Setting {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!(
            "{PREFIX}{}",
            self.name.to_ascii_uppercase().replace('.', "__")
        )
    }

    pub fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }
}

/// Variables that start like this are ours; an unknown one is an error.
pub const PREFIX: &str = "SATWATCH__";

const ENDPOINT: &str = "a ZMQ endpoint to connect to, such as \"tcp://127.0.0.1:28332\" or \"ipc:///run/bitcoind/zmq.sock\"";

pub const SETTINGS: &[Setting] = &[
    row(
        "server.listen",
        Form::Text(is_address),
        "a host and a port, such as \"127.0.0.1:5005\", \"localhost:5005\" or \"[::1]:5005\" (port 0 picks a free one)",
    ),
    row(
        "server.allowed_origins",
        Form::List(is_origin),
        "a list of web origins, such as [\"https://shop.example\"], of \"null\" and \"file://\" (local files), or [\"*\"]",
    ),
    row(
        "server.allowed_hosts",
        Form::List(is_host),
        "a list of host names without scheme and path, such as [\"satwatch.example\"]",
    ),
    row("store.path", Form::Path, "the path of a folder"),
    row(
        "bitcoind.rpc_url",
        Form::Text(is_rpc_url),
        "an address such as \"http://127.0.0.1:8332\" (http, without user and password)",
    ),
    row(
        "bitcoind.cookie_file",
        Form::Path,
        "the path of the node's .cookie file",
    ),
    row(
        "bitcoind.rpc_user",
        Form::Text(is_user),
        "a user name without a colon",
    ),
    Setting {
        name: "bitcoind.rpc_password",
        form: Form::Text(is_some),
        expected: "a password",
        secret: true,
    },
    row("bitcoind.zmq_rawtx", Form::Text(is_endpoint), ENDPOINT),
    row("bitcoind.zmq_rawblock", Form::Text(is_endpoint), ENDPOINT),
    row("bitcoind.zmq_sequence", Form::Text(is_endpoint), ENDPOINT),
    row("monitor.autostart", Form::Flag, "true or false"),
    row(
        "monitor.reconcile_interval",
        Form::Count {
            min: 1,
            max: 86_400,
        },
        "seconds, a whole number from 1 to 86400",
    ),
    row(
        "watch.history",
        Form::Text(is_history),
        "\"utxo\" or \"none\"",
    ),
    row(
        "events.retention_days",
        Form::Count {
            min: 0,
            max: 36_500,
        },
        "days, a whole number from 0 (keep all) to 36500",
    ),
    row("webhooks.allow_private", Form::Flag, "true or false"),
    row(
        "webhooks.allowed_targets",
        Form::List(|text| text.parse::<AllowedTarget>().is_ok()),
        "a list of host names, IP addresses and networks, such as [\"ntfy.lan\", \"192.168.1.0/24\"]",
    ),
    Setting {
        name: "webhooks.proxy",
        form: Form::Text(is_proxy),
        expected: "a SOCKS proxy that resolves names itself, such as \"socks5h://127.0.0.1:9050\"",
        secret: true,
    },
    row(
        "webhooks.timeout",
        Form::Count { min: 1, max: 300 },
        "seconds, a whole number from 1 to 300",
    ),
    row(
        "webhooks.give_up_after",
        Form::Count {
            min: 1,
            max: 31_536_000,
        },
        "seconds, a whole number from 1 to 31536000",
    ),
    row(
        "limits.connections",
        Form::Count {
            min: 1,
            max: 1_000_000,
        },
        "a whole number from 1 to 1000000",
    ),
    row(
        "limits.body_bytes",
        Form::Count {
            min: 1024,
            max: 1 << 30,
        },
        "bytes, a whole number from 1024 to 1073741824",
    ),
    row(
        "limits.rest_bytes",
        Form::Count {
            min: 1 << 20,
            max: 1 << 40,
        },
        "bytes, a whole number from 1048576 to 1099511627776",
    ),
    row(
        "limits.packet_bytes",
        Form::Count {
            min: 1024,
            max: 1 << 30,
        },
        "bytes, a whole number from 1024 to 1073741824",
    ),
    row(
        "limits.subscriptions",
        Form::Count {
            min: 1,
            max: 10_000_000,
        },
        "a whole number from 1 to 10000000",
    ),
    row(
        "limits.consumers",
        Form::Count {
            min: 1,
            max: 100_000,
        },
        "a whole number from 1 to 100000",
    ),
    row(
        "limits.audit_interval",
        Form::Count {
            min: 0,
            max: 86_400,
        },
        "seconds, a whole number from 0 (no pause) to 86400",
    ),
    row(
        "log.format",
        Form::Text(is_log_format),
        "\"text\" or \"json\"",
    ),
    row(
        "log.level",
        Form::Text(is_log_level),
        "a level (error, warn, info, debug, trace), or levels by part: \"info,satwatch::bitcoind=debug\"",
    ),
];

const fn row(name: &'static str, form: Form, expected: &'static str) -> Setting {
    Setting {
        name,
        form,
        expected,
        secret: false,
    }
}

pub(super) fn is_some(text: &str) -> bool {
    !text.is_empty()
}

fn is_address(text: &str) -> bool {
    text.parse::<Listen>().is_ok()
}

/// `scheme://host[:port]` as browsers send it in `Origin`, what they send for local files, or the
/// star.
fn is_origin(text: &str) -> bool {
    matches!(text, "*" | "null" | "file://")
        || text
            .split_once("://")
            .is_some_and(|(scheme, rest)| is_word(scheme) && is_host(rest))
}

fn is_host(text: &str) -> bool {
    !text.is_empty()
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "/?#@*".contains(c))
}

fn is_rpc_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://") else {
        return false;
    };
    let (authority, _path) = rest.split_once('/').unwrap_or((rest, ""));
    is_host(authority) && !text.contains(['@', '?', '#']) && authority_port_is_good(authority)
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

/// Whether what follows the last colon, unless that is inside an IPv6 address, is a port.
fn authority_port_is_good(authority: &str) -> bool {
    let after_host = match authority.rsplit_once(']') {
        Some((_, rest)) => rest,
        None => authority
            .find(':')
            .and_then(|at| authority.get(at..))
            .unwrap_or(""),
    };
    match after_host.strip_prefix(':') {
        Some(port) => port.parse::<u16>().is_ok_and(|port| port != 0),
        None => after_host.is_empty(),
    }
}

fn is_history(text: &str) -> bool {
    matches!(text, "utxo" | "none")
}

fn is_log_format(text: &str) -> bool {
    matches!(text, "text" | "json")
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

    fn accepts(name: &str, value: &str) -> bool {
        match Setting::find(name).expect("a setting of this name").form {
            Form::Text(check) | Form::List(check) => check(value),
            Form::Flag | Form::Count { .. } | Form::Path => unreachable!("only text is tried here"),
        }
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
            assert_eq!(accepts(name, value), good, "{name} = {value:?}");
        }
    }

    #[test]
    fn the_environment_twin_is_the_name_in_capitals() {
        let setting = Setting::find("bitcoind.rpc_url").expect("in the table");
        assert_eq!(setting.variable(), "SATWATCH__BITCOIND__RPC_URL");
    }
}
