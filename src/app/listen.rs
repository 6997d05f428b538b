//! The addresses to listen on.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow};
use tokio::net::lookup_host;

use super::limits::{METRICS_CONNECTIONS, server_limits};
use crate::auth::{self, BeginError, Outlook};
use crate::config::{Config, Listen};
use crate::remedy::Remedy;
use crate::server::{self, Server};
use crate::store;

/// As the settings are called.
pub const LISTEN: &str = "server.listen";
pub const METRICS_LISTEN: &str = "metrics.listen";

/// The bound ports.
pub struct Bound {
    pub clients: Server,
    /// Of `metrics.listen`.
    pub metrics: Option<Server>,
}

/// The addresses that `server.listen` names.
pub async fn listen_addresses(listen: &Listen) -> Result<Vec<SocketAddr>> {
    let Listen { host, port } = listen;
    let addresses = addresses_of(listen).await.with_context(|| {
        let remedy = Remedy::ListenOnLoopback { port: *port };
        format!("cannot listen on {listen}: {host} is not known; {remedy}")
    })?;
    Ok(addresses)
}

/// The addresses that `metrics.listen` names, which may be any.
pub async fn metrics_addresses(listen: &Listen) -> Result<Vec<SocketAddr>> {
    let host = &listen.host;
    let addresses = addresses_of(listen).await;
    addresses.with_context(|| format!("cannot listen on {listen} for metrics: {host} is not known"))
}

async fn addresses_of(listen: &Listen) -> io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in lookup_host((listen.host.as_str(), listen.port)).await? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Where tokens are, and whether others reach these addresses.
pub fn credentials(config: &Config, addresses: &[SocketAddr]) -> auth::Place {
    let is_exposed = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
    let Listen { host, port } = &config.server.listen;
    let exposed = addresses.iter().any(is_exposed).then(|| {
        let (host, port) = (host.clone(), *port);
        match config.server.listen.address() {
            Some(_) => Remedy::TokenOrLoopback { port },
            None => Remedy::LoopbackName { host, port },
        }
    });
    auth::Place {
        tokens_file: config.tokens_file(),
        first_token_file: config.auth.first_token_file.clone(),
        exposed,
    }
}

/// Why a start would be refused for its credentials.
pub struct CredentialsProblem {
    pub what: String,
    /// The settings are to be corrected, not the tokens file.
    pub is_of_settings: bool,
}

/// What is wrong with tokens and addresses, without a look at what names mean.
pub fn credentials_problem(config: &Config) -> Option<CredentialsProblem> {
    let place = credentials(config, &[]);
    // What is wrong with the store is told when it is opened.
    let remembered = store::remembered_auth(&config.store.path).ok().flatten();
    let (what, is_of_settings) = match auth::outlook(&place, remembered.unwrap_or_default().mark) {
        Ok(Outlook::First | Outlook::On(_)) => return None,
        Ok(Outlook::Never | Outlook::Off) => (config.reachable_by_others.clone()?, true),
        Err(error) => {
            let is_of_settings = matches!(error, BeginError::FirstToken { .. });
            (error.to_string(), is_of_settings)
        }
    };
    Some(CredentialsProblem {
        what,
        is_of_settings,
    })
}

pub async fn bind(config: &Config) -> Result<Bound> {
    let Config { server, limits, .. } = config;
    let (listen, limits) = (
        &server.listen,
        server_limits(limits, &server.trusted_proxies),
    );
    let addresses = listen_addresses(listen).await?;
    let clients = bind_at(listen, &addresses, limits.clone(), LISTEN).await?;
    let metrics = match &config.metrics.listen {
        None => None,
        Some(listen) => {
            let addresses = metrics_addresses(listen).await?;
            let limits = server::Limits {
                connections: METRICS_CONNECTIONS,
                ..limits
            };
            Some(bind_at(listen, &addresses, limits, METRICS_LISTEN).await?)
        }
    };
    Ok(Bound { clients, metrics })
}

async fn bind_at(
    listen: &Listen,
    addresses: &[SocketAddr],
    limits: server::Limits,
    setting: &'static str,
) -> Result<Server> {
    Server::bind(addresses, limits).await.map_err(|error| {
        let advice = listen_remedy(&error, setting);
        let advice = advice.map_or(String::new(), |remedy| format!(": {remedy}"));
        anyhow!("cannot listen on {listen}: {error}{advice}")
    })
}

/// What helps when the addresses that a setting names cannot be bound.
pub fn listen_remedy(error: &io::Error, setting: &'static str) -> Option<Remedy> {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::AddrInUse, _) => Some(Remedy::FreePort { setting }),
        (io::ErrorKind::PermissionDenied, _) => Some(Remedy::OpenPort { setting }),
        (_, Some(23 | 24)) => Some(Remedy::RaiseFileLimit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn case_19_without_tokens_every_address_of_a_name_must_be_loopback() {
        let addresses = async |text: &str| {
            let listen: Listen = text.parse().expect("a host and a port");
            listen_addresses(&listen).await
        };
        let local = addresses("localhost:5005").await.expect("it is known");
        assert!(!local.is_empty() && local.iter().all(|it| it.ip().is_loopback()));
        assert_eq!(
            addresses("[::1]:0").await.expect("an address"),
            ["[::1]:0".parse().expect("an address")]
        );
        // As a name would be that means this.
        let others = addresses("192.0.2.1:5005").await.expect("an address");
        let mut config = Config::default();
        config.server.listen.host = "node.example".to_owned();
        let remedy = credentials(&config, &others)
            .exposed
            .map(|it| it.to_string());
        let remedy = remedy.expect("others reach it");
        assert!(
            remedy.contains("write server.listen = \"127.0.0.1:5005\"")
                && remedy.contains("/etc/hosts")
                && remedy.contains("satwatch token new"),
            "{remedy}"
        );
        let local = addresses("127.0.0.1:5005").await.expect("as it says");
        assert_eq!(credentials(&config, &local).exposed, None);
    }
}
