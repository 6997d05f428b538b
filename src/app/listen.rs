//! The addresses to listen on.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow, bail};
use tokio::net::lookup_host;

use super::limits::server_limits;
use crate::config::{Config, Listen};
use crate::remedy::Remedy;
use crate::server::Server;

/// The addresses that `server.listen` names. All of them must be loopback, because there are no
/// tokens yet to keep others out.
pub async fn listen_addresses(listen: &Listen) -> Result<Vec<SocketAddr>> {
    let Listen { host, port } = listen;
    let found = lookup_host((host.as_str(), *port)).await.with_context(|| {
        let remedy = Remedy::ListenOnLoopback { port: *port };
        format!("cannot listen on {listen}: {host} is not known; {remedy}")
    })?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
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
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

pub async fn bind(config: &Config) -> Result<Server> {
    let listen = &config.server.listen;
    let addresses = listen_addresses(listen).await?;
    Server::bind(&addresses, server_limits(&config.limits))
        .await
        .map_err(|error| {
            let advice = listen_remedy(&error);
            let advice = advice.map_or(String::new(), |remedy| format!(": {remedy}"));
            anyhow!("cannot listen on {listen}: {error}{advice}")
        })
}

/// What helps when the addresses cannot be bound.
pub fn listen_remedy(error: &io::Error) -> Option<Remedy> {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::AddrInUse, _) => Some(Remedy::FreePort),
        (io::ErrorKind::PermissionDenied, _) => Some(Remedy::OpenPort),
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
