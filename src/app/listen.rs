//! The addresses to listen on.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow, bail};
use tokio::net::lookup_host;

use super::limits::server_limits;
use crate::config::{Config, Listen};
use crate::remedy::Remedy;
use crate::server::{self, Server};

/// As the settings are called.
pub const LISTEN: &str = "server.listen";
pub const METRICS_LISTEN: &str = "metrics.listen";

/// The bound ports.
pub struct Bound {
    pub clients: Server,
    /// Of `metrics.listen`.
    pub metrics: Option<Server>,
}

/// Connections for metrics at the same time; more wait.
const METRICS_CONNECTIONS: usize = 64;

/// The addresses that `server.listen` names. All of them must be loopback, because there are no
/// tokens yet to keep others out.
pub async fn listen_addresses(listen: &Listen) -> Result<Vec<SocketAddr>> {
    let Listen { host, port } = listen;
    let addresses = addresses_of(listen).await.with_context(|| {
        let remedy = Remedy::ListenOnLoopback { port: *port };
        format!("cannot listen on {listen}: {host} is not known; {remedy}")
    })?;
    for address in &addresses {
        if !address.ip().to_canonical().is_loopback() {
            bail!(
                "cannot listen on {listen}: {host} is {}, where others can reach it, and there are no tokens to keep them out; {}",
                address.ip(),
                Remedy::LoopbackName {
                    host: host.clone(),
                    port: *port
                }
            );
        }
    }
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

pub async fn bind(config: &Config) -> Result<Bound> {
    let (listen, limits) = (&config.server.listen, server_limits(&config.limits));
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
    async fn case_19_every_address_of_a_name_must_be_loopback() {
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
        let refused = addresses("192.0.2.1:5005")
            .await
            .expect_err("others reach it");
        let message = format!("{refused:#}");
        assert!(
            message.contains("write server.listen = \"127.0.0.1:5005\"")
                && message.contains("/etc/hosts"),
            "{message}"
        );
        addresses("127.0.0.1:5005").await.expect("as it says");
    }
}
