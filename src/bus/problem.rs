//! What can be wrong with the bus, and what to do about it.

use crate::remedy::Remedy;

/// What keeps events from being written or read, or makes `satwatch doctor` complain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("Redis cannot be reached at {at}: {cause}")]
    Unreachable { at: String, cause: String },
    #[error("no secure connection to Redis at {at}: {cause}")]
    Tls { at: String, cause: String },
    #[error("Redis does not take user and password of bus.url: {cause}")]
    Login { cause: String },
    #[error("Redis does not let the user of bus.url do what is needed: {cause}")]
    NotAllowed { cause: String, keys: String },
    #[error("Redis {found} is too old")]
    TooOld { found: String },
    #[error("the Redis at {at} is a replica, which cannot be written")]
    Replica { at: String },
    #[error("no Sentinel knows a master {master}")]
    NoMaster { master: String },
    #[error("Redis has no memory left: {cause}")]
    Memory { cause: String },
    #[error("Redis does not write without its replicas: {cause}")]
    Replicas { cause: String },
    #[error("there is something else at the keys of the bus: {cause}")]
    OtherKeys { cause: String },
    #[error("the stream is of another network ({network})")]
    OtherNetwork { network: String },
    #[error("the stream is of another log, whose first start is {log}")]
    OtherLog { log: String },
    #[error("no satwatch writes a stream {key}")]
    NoStream { key: String },
    #[error("Redis has lost what its writer wrote last")]
    WentBack,
    #[error("events that the stream has no more cannot be had from the primary: {cause}")]
    Missing { cause: String },
    #[error("another satwatch ({writer}) writes the stream")]
    Held { writer: String },
    /// Redis says itself what is wrong.
    #[error("Redis refuses: {cause}")]
    Refused { cause: String },
}

/// Which end of the stream a problem is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Writer,
    Reader,
}

impl Problem {
    pub fn remedy(&self, side: Side) -> Option<Remedy> {
        Some(match self {
            Self::Unreachable { .. } => Remedy::ReachRedis,
            Self::Tls { .. } => Remedy::TrustRedis,
            Self::Login { .. } => Remedy::CorrectBusLogin,
            Self::NotAllowed { keys, .. } => Remedy::AllowBus { keys: keys.clone() },
            Self::TooOld { .. } => Remedy::UpdateRedis,
            Self::Replica { .. } => Remedy::NameRedisMaster,
            Self::NoMaster { .. } => Remedy::NameSentinelMaster,
            Self::Memory { .. } => Remedy::RedisMemory,
            Self::Replicas { .. } => Remedy::StartReplicas,
            Self::OtherKeys { .. } | Self::OtherNetwork { .. } | Self::OtherLog { .. } => {
                match side {
                    Side::Writer => Remedy::OtherBusStream,
                    // What is there is its writer's.
                    Side::Reader => Remedy::NameBus,
                }
            }
            Self::Held { .. } => Remedy::OneBusWriter,
            Self::NoStream { .. } => Remedy::NameBus,
            Self::Refused { .. } | Self::Missing { .. } | Self::WentBack => return None,
        })
    }
}
