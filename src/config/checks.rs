//! The forms of texts.

use url::Url;

/// `scheme://host[:port]` as browsers send it in `Origin`, what they send for local files, or the
/// star.
/// Bytes of a name (RFC 1035), a colon and a port.
const LONGEST_HOST: usize = 253 + 6;

pub fn is_origin(text: &str) -> bool {
    matches!(text, "*" | "null" | "file://")
        || text
            .split_once("://")
            .is_some_and(|(scheme, rest)| is_word(scheme) && is_host(rest))
}

pub fn is_host(text: &str) -> bool {
    (1..=LONGEST_HOST).contains(&text.len())
        && !text.contains(|c: char| c.is_whitespace() || c.is_control() || "/?#@*".contains(c))
}

pub fn is_rpc_url(text: &str) -> bool {
    text.starts_with("http://")
        && !text.contains(|c: char| c.is_whitespace() || "@?#".contains(c))
        && Url::parse(text).is_ok_and(|url| url.port() != Some(0))
}

/// Of another daemon.
pub fn is_upstream(text: &str) -> bool {
    let is_good = |url: Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.port() != Some(0)
            && url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
    };
    Url::parse(text).is_ok_and(is_good)
}

/// What may be one; whether it is one says who made it.
pub fn is_token(text: &str) -> bool {
    let rest = text.strip_prefix("sw_");
    rest.is_some_and(|rest| {
        (1..=128).contains(&rest.len()) && rest.bytes().all(|it| it.is_ascii_alphanumeric())
    })
}

/// Neither braces, which are for Redis's hash tag, nor what a pattern of keys means otherwise.
pub fn is_stream_name(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b":._-".contains(&byte);
    (1..=200).contains(&text.len()) && text.bytes().all(is_good)
}

pub fn is_user(text: &str) -> bool {
    !text.is_empty() && !text.contains(':')
}

pub fn is_endpoint(text: &str) -> bool {
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
pub fn is_log_level(text: &str) -> bool {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    text.split(',')
        .all(|directive| match directive.split_once('=') {
            None => LEVELS.contains(&directive),
            Some((part, level)) => LEVELS.contains(&level) && part.split("::").all(is_word),
        })
}

pub fn is_word(text: &str) -> bool {
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
            ("edge.upstream", "http://10.0.0.5:5005", true), ("edge.upstream", "https://node.lan/", true), ("edge.upstream", "http://[fd00::5]:5005", true),
            ("edge.upstream", "node.lan:5005", false), ("edge.upstream", "http://u:p@node", false), ("edge.upstream", "http://node/path", false),
            ("edge.upstream", "http://node:0", false), ("edge.upstream", "ftp://node", false), ("edge.upstream", "http://node?a=b", false),
            ("edge.token", "sw_ab1", true), ("edge.token", "sw_", false), ("edge.token", "ab1", false), ("edge.token", "sw_a b", false),
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
                "edge.upstream" => is_upstream(value),
                "edge.token" => is_token(value),
                "log.level" => is_log_level(value),
                _ => unreachable!("{name}"),
            };
            assert_eq!(is_good, good, "{name} = {value:?}");
        }
    }
}
