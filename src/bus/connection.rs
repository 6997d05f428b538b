//! To Redis: the way there, the scripts, and what an error means.

use std::collections::HashMap;
use std::time::Duration;

use bitcoin::Network;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, RedisError, Script, ServerErrorKind,
};

use super::entry::{self, Entry};
use super::exporter::{Found, LEASE, LastEntry, Position, Refusal, Take};
use super::keys::{CURRENT, EXPIRES, Keys, NETWORK, WRITER};
use super::problem::Problem;
use crate::config::BusUrl;
use crate::wire::address::network_name;

/// For a connection, and for each answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The oldest Redis that is taken: users came with 6.0, what an edge reads with 6.2.
const OLDEST: (u32, u32) = (6, 2);
/// For readers to finish with a stream that was left.
const LEFT_SECONDS: u64 = 86_400;
/// Redirections of a cluster that are followed.
const MOST_MOVES: usize = 3;

const TAKE: &str = include_str!("take.lua");
const APPEND: &str = include_str!("append.lua");
const RELEASE: &str = include_str!("release.lua");

/// Where Redis is and what is kept there.
#[derive(Debug, Clone)]
pub struct Place {
    pub url: BusUrl,
    pub keys: Keys,
}

/// A connection to the node that has the keys.
pub struct Connection {
    redis: MultiplexedConnection,
    keys: Keys,
    at: String,
    take: Script,
    append: Script,
    release: Script,
}

/// Whether all that is needed is there; changes nothing. `network`: of the node, if it answers.
pub async fn try_out(
    url: &BusUrl,
    stream: Option<&str>,
    network: Option<Network>,
) -> Result<(), Problem> {
    let keys = Keys::new(stream, network.unwrap_or(Network::Bitcoin));
    let url = url.clone();
    let mut connection = Connection::open(&Place { url, keys }).await?;
    let found = connection.look().await?;
    match network.map(network_name) {
        Some(ours) if found.current.is_some() && found.network != ours => {
            Err(Problem::OtherNetwork {
                network: found.network,
            })
        }
        _ => Ok(()),
    }
}

impl Connection {
    /// Follows Sentinels and the redirections of a cluster to the node that has the keys.
    pub async fn open(place: &Place) -> Result<Self, Problem> {
        let mut info = match &place.url {
            BusUrl::Server(url) => url.clone().into_connection_info().map_err(invalid)?,
            BusUrl::Sentinels {
                sentinels,
                master,
                server,
            } => {
                let server = server.clone().into_connection_info().map_err(invalid)?;
                let at = ask_sentinels(sentinels, master).await?;
                to_other(server, at)
            }
        };
        for _ in 0..MOST_MOVES {
            let mut connection = Self::connect(&info, &place.keys).await?;
            let asked: Result<Option<String>, _> = redis::cmd("HGET")
                .arg(place.keys.pointer())
                .arg(CURRENT)
                .query_async(&mut connection.redis)
                .await;
            let Err(cause) = asked else {
                return Ok(connection);
            };
            match moved(&cause) {
                Some(node) => info = to_other(info, node),
                None => return Err(connection.problem(&cause)),
            }
        }
        Err(Problem::Refused {
            cause: "the cluster sends on and on to another node".to_owned(),
        })
    }

    async fn connect(info: &ConnectionInfo, keys: &Keys) -> Result<Self, Problem> {
        let at = info.addr().to_string();
        let redis = connect(info)
            .await
            .map_err(|cause| problem(&cause, &at, keys))?;
        let mut connection = Self {
            redis,
            keys: keys.clone(),
            at,
            take: Script::new(TAKE),
            append: Script::new(APPEND),
            release: Script::new(RELEASE),
        };
        connection.check_version().await?;
        Ok(connection)
    }

    async fn check_version(&mut self) -> Result<(), Problem> {
        let info: String = self.ask(redis::cmd("INFO").arg("server")).await?;
        let mut lines = info.lines();
        let found = lines.find_map(|line| line.strip_prefix("redis_version:"));
        let found = found.unwrap_or_default();
        let mut parts = found.split('.').map(|part| part.parse::<u32>().ok());
        let version = parts.next().flatten().zip(parts.next().flatten());
        match version {
            Some(version) if version < OLDEST => Err(Problem::TooOld {
                found: found.to_owned(),
            }),
            // What does not say its version may still do.
            _ => Ok(()),
        }
    }

    async fn ask<T: FromRedisValue>(&mut self, command: &redis::Cmd) -> Result<T, Problem> {
        let answer = command.query_async(&mut self.redis).await;
        answer.map_err(|cause| self.problem(&cause))
    }

    fn problem(&self, cause: &RedisError) -> Problem {
        problem(cause, &self.at, &self.keys)
    }

    pub async fn look(&mut self) -> Result<Found, Problem> {
        let fields = [CURRENT, NETWORK, WRITER, EXPIRES];
        let pointer = self.keys.pointer().to_owned();
        let fields: [Option<String>; 4] = self
            .ask(redis::cmd("HMGET").arg(pointer).arg(&fields))
            .await?;
        let (seconds, microseconds): (u64, u64) = self.ask(&redis::cmd("TIME")).await?;
        let [current, network, writer, expires] = fields;
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        let current = number(current);
        let last = match current {
            Some(n) => self.last_entry(n).await?,
            None => None,
        };
        Ok(Found {
            now: seconds
                .saturating_mul(1000)
                .saturating_add(microseconds / 1000),
            current,
            network: network.unwrap_or_default(),
            writer: writer.unwrap_or_default(),
            expires: number(expires).unwrap_or_default(),
            last,
        })
    }

    async fn last_entry(&mut self, n: u64) -> Result<Option<LastEntry>, Problem> {
        let stream = self.keys.stream(n);
        let mut last = redis::cmd("XREVRANGE");
        last.arg(&stream).arg("+").arg("-").arg("COUNT").arg(1);
        let entries: Vec<(String, HashMap<String, String>)> = self.ask(&last).await?;
        let Some((id, mut fields)) = entries.into_iter().next() else {
            return Ok(None);
        };
        let info: HashMap<String, redis::Value> = self
            .ask(redis::cmd("XINFO").arg("STREAM").arg(&stream))
            .await?;
        let greatest = info.get("last-generated-id").cloned();
        let greatest = greatest.and_then(|value| String::from_redis_value(value).ok());
        Ok(Some(LastEntry {
            cursor: fields.remove("cursor").unwrap_or_default(),
            greatest: greatest.unwrap_or_else(|| id.clone()),
            id,
        }))
    }

    pub async fn take(
        &mut self,
        take: &Take,
        writer: &str,
        starts: &str,
        network: &str,
    ) -> Result<Option<Refusal>, Problem> {
        let stream = take.at.stream;
        let current = take.expected.map_or(String::new(), |n| n.to_string());
        let mut script = self.take.prepare_invoke();
        script
            .key(self.keys.pointer())
            .key(self.keys.stream(stream));
        if let Some(left) = take.expected {
            script.key(self.keys.stream(left));
        }
        script.arg(writer).arg(lease()).arg(current).arg(stream);
        script.arg(starts).arg(network).arg(LEFT_SECONDS);
        let answer = script.invoke_async(&mut self.redis).await;
        answer.map(refusal).map_err(|cause| self.problem(&cause))
    }

    /// Without entries it looks whether all is as it was, and renews the lease.
    pub async fn append(
        &mut self,
        at: &Position,
        writer: &str,
        max_length: u64,
        entries: &[Entry<'_>],
    ) -> Result<Option<Refusal>, Problem> {
        let mut script = self.append.prepare_invoke();
        script
            .key(self.keys.pointer())
            .key(self.keys.stream(at.stream));
        script.arg(writer).arg(lease()).arg(at.stream);
        script.arg(at.last.map_or(String::new(), entry::id));
        script.arg(max_length);
        for it in entries {
            script.arg(entry::id(it.number)).arg(it.after).arg(it.event);
            script.arg(it.subject).arg(it.cursor).arg(it.data);
        }
        let answer = script.invoke_async(&mut self.redis).await;
        answer.map(refusal).map_err(|cause| self.problem(&cause))
    }

    /// Gives the lease back.
    pub async fn release(&mut self, writer: &str) -> Result<(), Problem> {
        let mut script = self.release.prepare_invoke();
        script.key(self.keys.pointer()).arg(writer);
        let answer: Result<redis::Value, _> = script.invoke_async(&mut self.redis).await;
        answer.map(|_| ()).map_err(|cause| self.problem(&cause))
    }
}

fn lease() -> u64 {
    u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX)
}

/// What a script answers; `None`: it is done.
fn refusal(answer: Vec<String>) -> Option<Refusal> {
    let mut words = answer.into_iter();
    match words.next().as_deref() {
        Some("done") => None,
        Some("held") => {
            let writer = words.next().unwrap_or_default();
            let left = words.next().and_then(|left| left.parse().ok());
            let left = Duration::from_millis(left.unwrap_or_default());
            Some(Refusal::Held { writer, left })
        }
        _ => Some(Refusal::Changed),
    }
}

async fn connect(info: &ConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
    // TLS takes the provider of the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let patience = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let client = Client::open(info.clone())?;
    client
        .get_multiplexed_async_connection_with_config(&patience)
        .await
}

/// Where the master is, by the first Sentinel that knows.
async fn ask_sentinels(sentinels: &[url::Url], master: &str) -> Result<(String, u16), Problem> {
    let (mut silent, mut is_unknown) = (None, false);
    for sentinel in sentinels {
        let info = sentinel.clone().into_connection_info().map_err(invalid)?;
        let asked = async {
            let mut redis = connect(&info).await?;
            let mut command = redis::cmd("SENTINEL");
            command.arg("get-master-addr-by-name").arg(master);
            command.query_async(&mut redis).await
        };
        match asked.await {
            Ok(Some(at)) => return Ok(at),
            Ok(None) => is_unknown = true,
            Err(cause) => silent = Some(unreachable(&cause, &info.addr().to_string())),
        }
    }
    let no_master = Problem::NoMaster {
        master: master.to_owned(),
    };
    Err(silent.filter(|_| !is_unknown).unwrap_or(no_master))
}

/// The same user, password and database at another node.
fn to_other(info: ConnectionInfo, (host, port): (String, u16)) -> ConnectionInfo {
    let addr = match info.addr() {
        ConnectionAddr::TcpTls { .. } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.set_addr(addr)
}

/// Where a cluster's node sends to.
fn moved(cause: &RedisError) -> Option<(String, u16)> {
    let (at, _) = cause.redirect_node()?;
    let (host, port) = at.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host.to_owned(), port.parse().ok()?))
}

fn invalid(cause: RedisError) -> Problem {
    Problem::Refused {
        cause: cause.to_string(),
    }
}

fn unreachable(cause: &RedisError, at: &str) -> Problem {
    let (at, cause) = (at.to_owned(), cause.to_string());
    match ["certificate", "Tls", "TLS", "handshake"]
        .iter()
        .any(|word| cause.contains(word))
    {
        true => Problem::Tls { at, cause },
        false => Problem::Unreachable { at, cause },
    }
}

/// What Redis says names no password of ours.
fn problem(cause: &RedisError, at: &str, keys: &Keys) -> Problem {
    let text = cause.to_string();
    // In a script of an older Redis the kind is in the text alone.
    let says = |word: &str| text.contains(word);
    match cause.kind() {
        ErrorKind::AuthenticationFailed => Problem::Login { cause: text },
        ErrorKind::Server(ServerErrorKind::NoPerm) => Problem::NotAllowed {
            cause: text,
            keys: keys.pointer().to_owned(),
        },
        ErrorKind::Server(ServerErrorKind::ReadOnly) => Problem::Replica { at: at.to_owned() },
        ErrorKind::Io | ErrorKind::Parse => unreachable(cause, at),
        _ if says("NOAUTH") || says("WRONGPASS") => Problem::Login { cause: text },
        _ if says("NOPERM") || says("executing the script can't") => Problem::NotAllowed {
            cause: text,
            keys: keys.pointer().to_owned(),
        },
        _ if says("READONLY") => Problem::Replica { at: at.to_owned() },
        _ if says("OOM") => Problem::Memory { cause: text },
        _ if says("WRONGTYPE") => Problem::OtherKeys { cause: text },
        _ => Problem::Refused { cause: text },
    }
}
