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
use super::keys::{
    CURRENT, EXPIRES, Keys, LEFT, NETWORK, STARTS, WRITER, log_id, starts_from_json,
};
use super::problem::Problem;
use crate::config::BusUrl;
use crate::wire::address::network_name;

/// For a connection, and for each answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes per second for which the time of a single event is enough.
const SLOWEST: u64 = 16 << 10;
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

/// What is written when the lease is taken.
pub struct TakeWords<'a> {
    pub writer: &'a str,
    /// As JSON.
    pub starts: &'a str,
    pub network: &'a str,
    /// The cursor from which who has none reads.
    pub from: &'a str,
    pub max_length: u64,
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
        _ => connection.try_writing().await,
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

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) async fn ask<T: FromRedisValue>(
        &mut self,
        command: &redis::Cmd,
    ) -> Result<T, Problem> {
        let answer = command.query_async(&mut self.redis).await;
        answer.map_err(|cause| self.problem(&cause))
    }

    fn problem(&self, cause: &RedisError) -> Problem {
        problem(cause, &self.at, &self.keys)
    }

    pub async fn look(&mut self) -> Result<Found, Problem> {
        let fields = [CURRENT, NETWORK, STARTS, WRITER, EXPIRES, LEFT];
        let pointer = self.keys.pointer().to_owned();
        let fields: [Option<Vec<u8>>; 6] = self
            .ask(redis::cmd("HMGET").arg(pointer).arg(&fields))
            .await?;
        let (seconds, microseconds): (u64, u64) = self.ask(&redis::cmd("TIME")).await?;
        let [current, network, starts, writer, expires, left] =
            fields.map(|field| field.map(|bytes| lossy(&bytes)));
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        let current = current.map(|text| stream_number(&text)).transpose()?;
        let (last, greatest) = match current {
            Some(n) => self.end_of(n).await?,
            None => (None, String::new()),
        };
        let starts = starts.and_then(|text| starts_from_json(&text));
        Ok(Found {
            log: starts.and_then(|starts| log_id(&starts).map(str::to_owned)),
            now: seconds
                .saturating_mul(1000)
                .saturating_add(microseconds / 1000),
            current,
            network: network.unwrap_or_default(),
            writer: writer.unwrap_or_default(),
            expires: number(expires).unwrap_or_default(),
            left: number(left),
            last,
            greatest,
        })
    }

    /// The last entry of a stream and the greatest id that it has had, of one moment.
    async fn end_of(&mut self, n: u64) -> Result<(Option<LastEntry>, String), Problem> {
        let mut info = redis::cmd("XINFO");
        info.arg("STREAM").arg(self.keys.stream(n));
        let info: HashMap<String, redis::Value> = match info.query_async(&mut self.redis).await {
            Err(cause) if cause.to_string().contains("no such key") => HashMap::new(),
            answer => answer.map_err(|cause| self.problem(&cause))?,
        };
        let text = |value: &redis::Value| {
            let bytes = Vec::<u8>::from_redis_value(value.clone()).ok()?;
            Some(lossy(&bytes))
        };
        let greatest = info.get("last-generated-id").and_then(text);
        let greatest = greatest.filter(|id| id != "0-0").unwrap_or_default();
        let last = info.get("last-entry").cloned();
        let last = last
            .and_then(|value| <(String, Vec<(Vec<u8>, Vec<u8>)>)>::from_redis_value(value).ok());
        let last = last.map(|(id, fields)| {
            let mut fields = fields.into_iter();
            let cursor = fields.find(|(name, _)| name == b"cursor");
            LastEntry {
                id,
                cursor: cursor.map_or(String::new(), |(_, value)| lossy(&value)),
            }
        });
        Ok((last, greatest))
    }

    pub async fn take(
        &mut self,
        take: &Take,
        words: &TakeWords<'_>,
    ) -> Result<Option<Refusal>, Problem> {
        let stream = take.at.stream;
        let text = |n: Option<u64>| n.map_or(String::new(), |n| n.to_string());
        let mut script = self.take.prepare_invoke();
        script
            .key(self.keys.pointer())
            .key(self.keys.stream(stream));
        if let Some(left) = take.at.left {
            script.key(self.keys.stream(left));
        }
        script.arg(words.writer).arg(lease());
        script.arg(text(take.expected)).arg(stream);
        script.arg(words.starts).arg(words.network).arg(words.from);
        script.arg(text(take.at.left)).arg(LEFT_SECONDS);
        script.arg(words.max_length);
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
        if let Some(left) = at.left {
            script.key(self.keys.stream(left));
        }
        script.arg(writer).arg(lease()).arg(at.stream);
        script.arg(at.last.map_or(String::new(), entry::id));
        script.arg(max_length);
        for it in entries {
            script.arg(entry::id(it.number)).arg(it.after).arg(it.event);
            script.arg(it.subject).arg(it.cursor).arg(it.data);
        }
        // One event may be large; of more, fewer are tried.
        let patience = match entries {
            [only] => PATIENCE + Duration::from_secs(only.data.len() as u64 / SLOWEST),
            _ => PATIENCE,
        };
        self.redis.set_response_timeout(patience);
        let answer = script.invoke_async(&mut self.redis).await;
        self.redis.set_response_timeout(PATIENCE);
        answer.map(refusal).map_err(|cause| self.problem(&cause))
    }

    /// By what writes nothing and is refused where a write would be: for a user who may not, at a
    /// replica, without memory.
    async fn try_writing(&mut self) -> Result<(), Problem> {
        let (pointer, none) = (self.keys.pointer().to_owned(), self.keys.stream(0));
        let mut commands = ["HDEL", "XADD", "UNLINK", "EXPIRE"].map(redis::cmd);
        let [hdel, xadd, unlink, expire] = &mut commands;
        hdel.arg(pointer).arg("");
        xadd.arg(&none).arg("NOMKSTREAM").arg("1-0").arg("after");
        xadd.arg("0");
        unlink.arg(&none);
        expire.arg(&none).arg(LEFT_SECONDS);
        for command in &commands {
            let _: redis::Value = self.ask(command).await?;
        }
        self.release("").await
    }

    /// Gives the lease back.
    pub async fn release(&mut self, writer: &str) -> Result<(), Problem> {
        let mut script = self.release.prepare_invoke();
        script.key(self.keys.pointer()).arg(writer);
        let answer: Result<redis::Value, _> = script.invoke_async(&mut self.redis).await;
        answer.map(|_| ()).map_err(|cause| self.problem(&cause))
    }
}

/// Whatever bytes somebody else has put there.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The field [`CURRENT`], as it is written.
fn stream_number(text: &str) -> Result<u64, Problem> {
    let number = text.parse().ok();
    let number = number.filter(|number: &u64| number.to_string() == text);
    number.ok_or_else(|| Problem::OtherKeys {
        cause: format!("the field {CURRENT} is {text:?}"),
    })
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
            Err(cause) => {
                let at = info.addr().to_string();
                silent = Some(match cause.kind() {
                    ErrorKind::Io | ErrorKind::Parse => unreachable(&cause, &at),
                    _ => Problem::Refused {
                        cause: format!("the Sentinel at {at} says: {cause}"),
                    },
                });
            }
        }
    }
    let no_master = Problem::NoMaster {
        master: master.to_owned(),
    };
    Err(silent.filter(|_| !is_unknown).unwrap_or(no_master))
}

/// The same user, password and database at another node; without a host: at the same one.
fn to_other(info: ConnectionInfo, (host, port): (String, u16)) -> ConnectionInfo {
    let host = match info.addr() {
        ConnectionAddr::Tcp(own, _) | ConnectionAddr::TcpTls { host: own, .. }
            if host.is_empty() =>
        {
            own.clone()
        }
        _ => host,
    };
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
    // What a slot that is being moved asks for (`ASK`) is refused until it has arrived.
    if cause.kind() != ErrorKind::Server(ServerErrorKind::Moved) {
        return None;
    }
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
        // Without its kind, as the client tells it.
        _ if says("Authentication required") => Problem::Login { cause: text },
        _ if says("refused to switch database") && says("no permissions") => Problem::NotAllowed {
            cause: text,
            keys: keys.pointer().to_owned(),
        },
        _ if says("NOAUTH") || says("WRONGPASS") => Problem::Login { cause: text },
        _ if says("NOPERM") || says("executing the script can't") => Problem::NotAllowed {
            cause: text,
            keys: keys.pointer().to_owned(),
        },
        _ if says("READONLY") => Problem::Replica { at: at.to_owned() },
        _ if says("NOREPLICAS") => Problem::Replicas { cause: text },
        _ if says("OOM") => Problem::Memory { cause: text },
        _ if says("WRONGTYPE") => Problem::OtherKeys { cause: text },
        _ => Problem::Refused { cause: text },
    }
}
