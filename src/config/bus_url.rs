//! `bus.url`: what its text means.
//!
//! One server: `redis://` and `rediss://[user:password@]host[:port][/database]`, likewise
//! `valkey://` and `valkeys://`, and `unix://path[?db=…&user=…&pass=…]`.
//!
//! The master that Sentinels name: `redis+sentinel://` and
//! `rediss+sentinel://[user:password@]host[:port][,host[:port]…]/master[/database]`. User and
//! password are the master's, and the Sentinels are asked without.

use std::fmt;
use std::str::FromStr;

use url::Url;

const SENTINEL_PORT: u16 = 26379;

/// Where Redis is. `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub enum BusUrl {
    Server(Url),
    Sentinels {
        /// One URL for each, without user and password.
        sentinels: Vec<Url>,
        /// As the Sentinels call it.
        master: String,
        /// The URL of the master but for host and port.
        server: Url,
    },
}

impl BusUrl {
    fn server(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_good = match url.scheme() {
            "redis" | "rediss" | "valkey" | "valkeys" => {
                let database = url.path().trim_start_matches('/');
                url.host_str().is_some_and(|host| !host.is_empty())
                    && url.port() != Some(0)
                    && (database.is_empty() || database.parse::<u32>().is_ok())
                    && url.query().is_none()
            }
            "unix" => {
                let mut queries = url.query_pairs();
                url.host_str().is_none_or(str::is_empty)
                    && url.path().len() > 1
                    && queries.all(|(name, value)| match &*name {
                        "db" => value.parse::<u32>().is_ok(),
                        "user" | "pass" => true,
                        _ => false,
                    })
            }
            _ => false,
        };
        (is_good && url.fragment().is_none()).then_some(Self::Server(url))
    }

    fn sentinels(scheme: &str, rest: &str) -> Option<Self> {
        let (authority, path) = rest.split_once('/')?;
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (format!("{login}@"), hosts),
            None => (String::new(), authority),
        };
        let (master, database) = path.split_once('/').unwrap_or((path, ""));
        let sentinels = hosts.split(',').map(|host| {
            let Self::Server(mut url) = Self::server(&format!("{scheme}://{host}"))? else {
                return None;
            };
            let port = url.port().unwrap_or(SENTINEL_PORT);
            url.set_port(Some(port)).ok()?;
            Some(url)
        });
        let Self::Server(server) = Self::server(&format!("{scheme}://{login}master/{database}"))?
        else {
            return None;
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_good = !master.is_empty() && master.bytes().all(is_name);
        let sentinels = sentinels.collect::<Option<Vec<_>>>()?;
        is_good.then(|| Self::Sentinels {
            sentinels,
            master: master.to_owned(),
            server,
        })
    }
}

impl FromStr for BusUrl {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = match text.split_once("+sentinel://") {
            Some((scheme @ ("redis" | "rediss"), rest)) => Self::sentinels(scheme, rest),
            _ => Self::server(text),
        };
        url.ok_or(())
    }
}

/// Without user, password and whatever else is in a query.
impl fmt::Display for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(url) => {
                let mut shown = url.clone();
                shown.set_query(None);
                // A scheme without a host has neither.
                let _ = shown.set_username("");
                let _ = shown.set_password(None);
                write!(f, "{shown}")
            }
            Self::Sentinels {
                sentinels,
                master,
                server,
            } => {
                let host = |url: &Url| {
                    let host = url.host_str().unwrap_or_default();
                    format!("{host}:{}", url.port().unwrap_or(SENTINEL_PORT))
                };
                let hosts: Vec<_> = sentinels.iter().map(host).collect();
                let database = match server.path() {
                    "/" => "",
                    path => path,
                };
                let scheme = server.scheme();
                write!(
                    f,
                    "{scheme}+sentinel://{}/{master}{database}",
                    hosts.join(",")
                )
            }
        }
    }
}

impl fmt::Debug for BusUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_url_is_shown_without_its_secrets() {
        for (text, shown) in [
            ("redis://127.0.0.1", "redis://127.0.0.1"),
            (
                "redis://:hunter2@redis.lan:6380/3",
                "redis://redis.lan:6380/3",
            ),
            (
                "rediss://user:hunter2@[fd00::1]:6380/",
                "rediss://[fd00::1]:6380/",
            ),
            ("valkeys://user:hunter2@host", "valkeys://host"),
            (
                "unix:///run/redis.sock?pass=hunter2",
                "unix:///run/redis.sock",
            ),
            (
                "redis+sentinel://user:hunter2@a,b:5,[fd00::1]:7/main.1/2",
                "redis+sentinel://a:26379,b:5,[fd00::1]:7/main.1/2",
            ),
            ("rediss+sentinel://a/main", "rediss+sentinel://a:26379/main"),
        ] {
            let url: BusUrl = text.parse().expect(text);
            assert_eq!(url.to_string(), shown, "{text}");
            assert_eq!(format!("{url:?}"), shown, "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_bus_url() {
        #[rustfmt::skip]
        let texts = [
            "", "redis", "127.0.0.1:6379", "http://127.0.0.1", "redis://", "redis://:6379", "redis://host:0",
            "redis://host:70000", "redis://host/main", "redis://host/0/1", "redis://host#insecure",
            "rediss://host#insecure", "redis://host?x=1", "unix://host/path", "unix:///",
            "redis+sentinel://host", "redis+sentinel:///main", "redis+sentinel://a,/main", "redis+sentinel://a/ma in",
            "redis+sentinel://a/main/x", "redis+sentinel://a/main#insecure", "valkey+sentinel://a/main",
            "redis+cluster://a", "unix:///redis.sock?db=x", "unix:///redis.sock?password=x",
        ];
        for text in texts {
            assert_eq!(text.parse::<BusUrl>(), Err(()), "{text}");
        }
    }
}
