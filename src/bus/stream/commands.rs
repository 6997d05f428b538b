//! What is asked of Redis.

use super::super::connection::Connection;
use super::super::entry::{self, Entry};
use super::super::keys::{CURRENT, FROM, NETWORK, STARTS};
use super::super::problem::Problem;
use super::place::{Pointer, behind};

/// Id and fields of an entry.
pub struct Raw(String, Vec<(String, String)>);

type Answered = Vec<(String, Vec<(String, String)>)>;

impl Raw {
    /// What is none of ours is said, not passed over: it may hide an event.
    pub fn entry(&self) -> Result<Entry<'_>, Problem> {
        Entry::parse(&self.0, &self.1).ok_or_else(|| Problem::OtherKeys {
            cause: format!("the entry {:?} is none of satwatch", self.0),
        })
    }
}

fn raw(answered: Answered) -> Vec<Raw> {
    let answered = answered.into_iter();
    answered.map(|(id, fields)| Raw(id, fields)).collect()
}

/// Which stream is written.
pub async fn pointer(redis: &mut Connection) -> Result<Pointer, Problem> {
    let key = redis.keys().pointer().to_owned();
    let fields = [CURRENT, STARTS, NETWORK, FROM];
    let fields: [Option<String>; 4] = redis
        .ask(redis::cmd("HMGET").arg(&key).arg(&fields))
        .await?;
    let [current, starts, network, from] = fields;
    let current = current.and_then(|text| text.parse().ok());
    match (current, starts, network, from) {
        (Some(current), Some(starts), Some(network), Some(from)) => Ok(Pointer {
            current,
            starts,
            network,
            from,
        }),
        _ => Err(Problem::NoStream { key }),
    }
}

/// The last entry of a stream.
pub async fn last(redis: &mut Connection, stream: u64) -> Result<Option<Raw>, Problem> {
    let mut command = redis::cmd("XREVRANGE");
    command.arg(redis.keys().stream(stream)).arg("+").arg("-");
    let found: Answered = redis.ask(command.arg("COUNT").arg(1)).await?;
    Ok(raw(found).pop())
}

/// What follows a number in a stream now.
pub async fn range(
    redis: &mut Connection,
    stream: u64,
    after: u64,
    most: usize,
) -> Result<Vec<Raw>, Problem> {
    let mut command = redis::cmd("XRANGE");
    command.arg(redis.keys().stream(stream));
    command.arg(behind(after)).arg("+").arg("COUNT").arg(most);
    redis.ask(&command).await.map(raw)
}

/// What follows a number in a stream, when there is some; nothing when `wait` (ms) is over.
pub async fn tail(
    redis: &mut Connection,
    stream: u64,
    after: u64,
    most: usize,
    wait: u64,
) -> Result<Vec<Raw>, Problem> {
    let mut command = redis::cmd("XREAD");
    command.arg("COUNT").arg(most).arg("BLOCK").arg(wait);
    command.arg("STREAMS").arg(redis.keys().stream(stream));
    command.arg(entry::id(after));
    let found: Option<Vec<(String, Answered)>> = redis.ask(&command).await?;
    let streams = found.unwrap_or_default().into_iter();
    Ok(streams.flat_map(|(_, found)| raw(found)).collect())
}
