//! What settings that are read again change, and what of it takes a restart.

use std::fmt;

use super::{Config, ConfigError};

/// The section that a running daemon takes over.
const TAKEN_OVER: &str = "limits";

/// A setting that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) before: String,
    pub(super) after: String,
}

/// `limits.connections from 10000 to 20`
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            section,
            name,
            before,
            after,
        } = self;
        write!(f, "{section}.{name} from {before} to {after}")
    }
}

/// How settings differ from those in force.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    pub limits: Vec<Change>,
    /// Names of the others that differ.
    pub take_restart: Vec<String>,
}

impl Config {
    /// How `next` differs from these, which are in force.
    pub fn changes(&self, next: &Self) -> Changes {
        let (limits, others): (Vec<_>, Vec<_>) = self
            .differing(next)
            .into_iter()
            .partition(|change| change.section == TAKEN_OVER);
        // By their names only: they may be secrets.
        let name = |change: Change| format!("{}.{}", change.section, change.name);
        Changes {
            limits,
            take_restart: others.into_iter().map(name).collect(),
        }
    }
}

/// What came of reading the settings again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SettingsStatus {
    /// Why those that were read last are not in force.
    pub problem: Option<ConfigError>,
    /// Those that differ from what is in force until a restart.
    pub take_restart: Vec<String>,
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Secret;

    #[test]
    fn limits_are_taken_over_and_whatever_else_differs_takes_a_restart() {
        let (before, mut next) = (Config::default(), Config::default());
        assert_eq!(before.changes(&next), Changes::default());
        next.limits.connections = 20;
        next.limits.costly_per_minute = 1;
        next.server.hsts = 5;
        next.tls.cert = Some(PathBuf::from("cert.pem"));
        next.bitcoind.rpc_password = Some(Secret("hunter2".to_owned()));
        // What is no setting is no change.
        next.no_longer_needed = vec!["settings.toml: limits.audit_interval".to_owned()];
        let changes = before.changes(&next);
        let limits: Vec<String> = changes.limits.iter().map(Change::to_string).collect();
        assert_eq!(
            limits,
            [
                "limits.connections from 10000 to 20",
                "limits.costly_per_minute from 3000 to 1"
            ]
        );
        assert_eq!(
            changes.take_restart,
            ["server.hsts", "server.tls.cert", "bitcoind.rpc_password"]
        );
        assert!(!format!("{changes:?}").contains("hunter2"));
    }
}
