//! Finds the node: address, credentials, chain, ZMQ endpoints. And says what is wrong with it, with
//! the line that mends it.
//!
//! What the settings leave out is looked for in bitcoind's default data directory and on the
//! default ports, main chain first. ZMQ endpoints come from `getzmqnotifications`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bitcoin::Network;

use super::http::Credentials;
use super::rpc::{self, Blockchain, Notification, Rpc};
use super::zmq::Topic;
use super::{Cause, Kind, NodeError};
use crate::config;
use crate::store::ChainInfo;

/// Name of the chain in RPC, port of RPC, folder below the data directory.
const CHAINS: [(Network, u16, &str); 5] = [
    (Network::Bitcoin, 8332, ""),
    (Network::Testnet, 18332, "testnet3"),
    (Network::Testnet4, 48332, "testnet4"),
    (Network::Signet, 38332, "signet"),
    (Network::Regtest, 18443, "regtest"),
];

/// Below this high-water mark the node drops messages of an ordinary block, even for a fast reader.
const ENOUGH_HWM: i64 = 20_000;

/// A node that answers, and what it is.
#[derive(Clone)]
pub struct Found {
    pub rpc: Rpc,
    pub chain: ChainInfo,
    pub node: NodeInfo,
    pub zmq: Endpoints,
    /// What was looked at, good and bad: for the log at start and for `doctor`.
    pub notes: Vec<Finding>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInfo {
    pub url: String,
    /// 290500 is 29.5.0.
    pub version: u64,
    pub subversion: String,
    /// As `getblockchaininfo` names it: `main`, `test`, `testnet4`, `signet`, `regtest`.
    pub chain: String,
    pub blocks: u32,
    pub headers: u32,
    pub initial_block_download: bool,
    pub pruned: bool,
    pub prune_height: Option<u32>,
}

/// Where each topic is subscribed; `None` is left to the poll.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    pub rawtx: Option<String>,
    pub rawblock: Option<String>,
    pub sequence: Option<String>,
}

/// Something looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub ok: bool,
    /// A sentence.
    pub what: String,
    /// What to put where, when it is not well.
    pub remedy: Option<String>,
}

impl Finding {
    fn well(what: String) -> Self {
        Self {
            ok: true,
            what,
            remedy: None,
        }
    }

    fn bad(what: String, remedy: String) -> Self {
        Self {
            ok: false,
            what,
            remedy: Some(remedy),
        }
    }
}

/// Finds the node that the settings name, or the first default one that answers.
pub async fn find(settings: &config::Bitcoind) -> Result<Found, NodeError> {
    find_on(settings, None).await
}

/// [`find`], passing over nodes of other chains than `network`.
pub(super) async fn find_on(
    settings: &config::Bitcoind,
    network: Option<Network>,
) -> Result<Found, NodeError> {
    let candidates = candidates(settings, data_dir().as_deref())?;
    let searching = settings.rpc_url.is_none() && given_credentials(settings)?.is_none();
    let mut best: Option<NodeError> = None;
    for (url, credentials) in candidates {
        let rpc = Rpc::new(&url, credentials);
        match rpc.blockchain().await {
            Ok(node) if network.is_some_and(|network| network.to_core_arg() != node.chain) => {
                let network = network.map(Network::to_core_arg).unwrap_or_default();
                keep_better(&mut best, wrong_chain(&url, &node.chain, network));
            }
            Ok(node) => return describe(rpc, node, settings).await,
            Err(error) => keep_better(&mut best, error),
        }
    }
    Err(match best {
        Some(error) if !searching || rank(&error) > 1 => error,
        _ => NodeError::transient(
            Cause::Unreachable,
            "no bitcoind found in the default data directory and on the default RPC ports: start bitcoind with server=1, \
             or set bitcoind.rpc_url and bitcoind.cookie_file"
                .into(),
        ),
    })
}

pub(super) fn wrong_chain(url: &str, found: &str, expected: &str) -> NodeError {
    NodeError::persistent(
        Cause::Setup,
        format!(
            "bitcoind at {url} follows chain {found}, the store belongs to {expected}: set bitcoind.rpc_url or store.path"
        ),
    )
}

/// Of several nodes that failed, the one that answered something is the one to talk about.
fn keep_better(best: &mut Option<NodeError>, error: NodeError) {
    if best.as_ref().is_none_or(|kept| rank(&error) > rank(kept)) {
        *best = Some(error);
    }
}

fn rank(error: &NodeError) -> u8 {
    match error.cause {
        Cause::NoCookie => 0,
        Cause::Unreachable => 1,
        _ if error.kind == Kind::Transient => 3,
        _ => 2,
    }
}

async fn describe(
    rpc: Rpc,
    node: Blockchain,
    settings: &config::Bitcoind,
) -> Result<Found, NodeError> {
    let network = network_of(&node.chain)?;
    let genesis = rpc.genesis().await?;
    let program = rpc.network().await.unwrap_or_default();
    let notifications = rpc.notifications().await.unwrap_or_default();
    let zmq = endpoints(settings, &notifications, rpc::host_of(rpc.url()));
    let notes = findings(settings, rpc.url(), &node, &program, &notifications, &zmq);
    let node = NodeInfo {
        url: rpc.url().to_owned(),
        version: program.version,
        subversion: program.subversion,
        chain: node.chain,
        blocks: node.blocks,
        headers: node.headers,
        initial_block_download: node.initialblockdownload,
        pruned: node.pruned,
        prune_height: node.pruneheight,
    };
    Ok(Found {
        rpc,
        chain: ChainInfo { network, genesis },
        node,
        zmq,
        notes,
    })
}

pub(super) fn findings(
    settings: &config::Bitcoind,
    url: &str,
    node: &Blockchain,
    program: &rpc::Network,
    notifications: &[Notification],
    endpoints: &Endpoints,
) -> Vec<Finding> {
    let who = format!(
        "bitcoind {} answers at {url}, chain {}, height {}",
        program.subversion, node.chain, node.blocks
    );
    let mut findings = vec![Finding::well(who)];
    findings.extend(chain_findings(node));
    findings.extend(zmq_findings(
        settings,
        notifications,
        endpoints,
        rpc::host_of(url),
    ));
    findings
}

fn network_of(chain: &str) -> Result<Network, NodeError> {
    Network::from_core_arg(chain).map_err(|_| {
        NodeError::persistent(
            Cause::Setup,
            format!("bitcoind follows chain {chain:?}, which satwatch does not know"),
        )
    })
}

/// bitcoind's default data directory.
fn data_dir() -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME")?);
    Some(if cfg!(target_os = "macos") {
        home.join("Library/Application Support/Bitcoin")
    } else {
        home.join(".bitcoin")
    })
}

/// Every (RPC address, credentials) worth trying, best first. Never empty.
fn candidates(
    settings: &config::Bitcoind,
    data_dir: Option<&Path>,
) -> Result<Vec<(String, Credentials)>, NodeError> {
    let cookie = |folder: &str| data_dir.map(|dir| dir.join(folder).join(".cookie"));
    let url = settings.rpc_url.as_deref().map(clean_url).transpose()?;
    let given = given_credentials(settings)?;
    let mut chains = CHAINS.to_vec();
    // A port or a cookie's folder may say which chain is meant.
    let port = url
        .as_deref()
        .and_then(|url| url.rsplit(':').next())
        .and_then(|port| port.parse::<u16>().ok());
    let folder = settings
        .cookie_file
        .as_deref()
        .and_then(Path::parent)
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy());
    chains.sort_by_key(|(_, chain_port, name)| {
        Some(*chain_port) != port && folder.as_deref() != Some(*name)
    });

    let url_of = |port: u16| {
        url.clone()
            .unwrap_or_else(|| format!("http://127.0.0.1:{port}"))
    };
    let found: Vec<_> = match (&given, &url) {
        (Some(given), Some(url)) => vec![(url.clone(), given.clone())],
        (Some(given), None) => chains
            .iter()
            .map(|(_, port, _)| (url_of(*port), given.clone()))
            .collect(),
        (None, _) => chains
            .iter()
            .filter_map(|(_, port, name)| Some((url_of(*port), Credentials::Cookie(cookie(name)?))))
            .collect(),
    };
    if found.is_empty() {
        return Err(NodeError::persistent(
            Cause::Setup,
            "there is no home directory to look for bitcoind's cookie in: set bitcoind.cookie_file, or rpc_user and rpc_password".into(),
        ));
    }
    Ok(found)
}

fn given_credentials(settings: &config::Bitcoind) -> Result<Option<Credentials>, NodeError> {
    match (&settings.rpc_user, &settings.rpc_password, &settings.cookie_file) {
        (Some(user), Some(password), _) => Ok(Some(Credentials::User { user: user.clone(), password: password.0.clone() })),
        (None, None, Some(path)) => Ok(Some(Credentials::Cookie(path.clone()))),
        (None, None, None) => Ok(None),
        _ => Err(NodeError::persistent(
            Cause::Setup,
            "bitcoind.rpc_user and bitcoind.rpc_password belong together: set both, or none to use the cookie".into(),
        )),
    }
}

fn clean_url(url: &str) -> Result<String, NodeError> {
    let url = url.trim();
    let wrong = |why: &str| {
        NodeError::persistent(
            Cause::Setup,
            format!("bitcoind.rpc_url {why}: write it as http://127.0.0.1:8332"),
        )
    };
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let rest = rest.trim_end_matches('/');
    if scheme != "http" {
        return Err(wrong(
            "must start with http:// (bitcoind speaks nothing else)",
        ));
    }
    if rest.contains('@') {
        return Err(wrong(
            "must not hold a password; bitcoind.rpc_user and bitcoind.rpc_password are for that",
        ));
    }
    if rest.is_empty() {
        return Err(wrong("is empty"));
    }
    Ok(format!("http://{rest}"))
}

/// Which endpoint serves which topic. Settings win; of several addresses the one that serves most
/// topics is taken, because on one address the order of messages is that of the events.
pub(super) fn endpoints(
    settings: &config::Bitcoind,
    notifications: &[Notification],
    rpc_host: &str,
) -> Endpoints {
    let served = |address: &str| {
        notifications
            .iter()
            .filter(|n| n.address == address && is_ours(&n.kind))
            .count()
    };
    let found = |kind: &str| {
        let address = notifications
            .iter()
            .filter(|n| n.kind == kind)
            .map(|n| n.address.as_str())
            .rev()
            .max_by_key(|a| served(a))?;
        Some(reachable(address, rpc_host))
    };
    Endpoints {
        rawtx: settings.zmq_rawtx.clone().or_else(|| found("pubrawtx")),
        rawblock: settings
            .zmq_rawblock
            .clone()
            .or_else(|| found("pubrawblock")),
        sequence: settings
            .zmq_sequence
            .clone()
            .or_else(|| found("pubsequence")),
    }
}

/// Whether the node says that it publishes a topic where we hear it.
pub(super) fn lists(
    notifications: &[Notification],
    rpc_host: &str,
    topic: Topic,
    endpoints: &Endpoints,
) -> bool {
    let endpoint = match topic {
        Topic::Rawtx => &endpoints.rawtx,
        Topic::Rawblock => &endpoints.rawblock,
        Topic::Sequence => &endpoints.sequence,
    };
    let plain = |address: &str| address.replace("//localhost:", "//127.0.0.1:");
    let here = |n: &Notification| {
        n.kind.strip_prefix("pub") == Some(topic.name())
            && Some(plain(&reachable(&n.address, rpc_host))) == endpoint.as_deref().map(plain)
    };
    notifications.iter().any(here)
}

fn is_ours(kind: &str) -> bool {
    matches!(kind, "pubrawtx" | "pubrawblock" | "pubsequence")
}

/// An address that the node binds to, as seen from here: a wildcard is the host that answers RPC.
fn reachable(address: &str, rpc_host: &str) -> String {
    let Some((host, port)) = address
        .strip_prefix("tcp://")
        .and_then(|rest| rest.rsplit_once(':'))
    else {
        return address.to_owned();
    };
    let host = if matches!(host, "0.0.0.0" | "*" | "[::]" | "::") {
        rpc_host
    } else {
        host
    };
    format!("tcp://{host}:{port}")
}

fn chain_findings(node: &Blockchain) -> Vec<Finding> {
    let mut findings = Vec::new();
    if node.initialblockdownload && node.chain != "regtest" {
        findings.push(Finding::bad(
            format!(
                "bitcoind is in its initial download: block {} of {}",
                node.blocks,
                node.headers.max(node.blocks)
            ),
            "wait until it has caught up; satwatch follows by itself then".into(),
        ));
    }
    if node.pruned {
        let kept = node.pruneheight.unwrap_or_default();
        findings.push(Finding::well(format!(
            "bitcoind is pruned: blocks below {kept} are gone, so history scans reach back to there"
        )));
    }
    findings
}

fn zmq_findings(
    settings: &config::Bitcoind,
    notifications: &[Notification],
    endpoints: &Endpoints,
    rpc_host: &str,
) -> Vec<Finding> {
    let topics = [
        (
            Topic::Rawtx,
            &endpoints.rawtx,
            &settings.zmq_rawtx,
            "payments are seen",
        ),
        (
            Topic::Rawblock,
            &endpoints.rawblock,
            &settings.zmq_rawblock,
            "blocks are seen",
        ),
        (
            Topic::Sequence,
            &endpoints.sequence,
            &settings.zmq_sequence,
            "replacements and evictions are seen",
        ),
    ];
    let used = topics
        .iter()
        .find_map(|(_, endpoint, _, _)| endpoint.as_deref())
        .unwrap_or("tcp://127.0.0.1:28332");
    let mut findings = Vec::new();
    for (which, endpoint, set, effect) in topics {
        let topic = which.name();
        match endpoint {
            Some(endpoint) if set.is_some() && !lists(notifications, rpc_host, which, endpoints) => findings.push(Finding::bad(
                format!(
                    "ZMQ {topic} at {endpoint} (from the settings) is not where bitcoind says that it publishes it: what comes from there \
                     is checked until it has proved to be bitcoind's"
                ),
                format!("correct or remove bitcoind.zmq_{topic}; it is right as it is if the port is forwarded"),
            )),
            Some(endpoint) => {
                let origin = if set.is_some() { " (from the settings)" } else { "" };
                findings.push(Finding::well(format!("ZMQ {topic} at {endpoint}{origin}")));
            }
            None => findings.push(Finding::bad(
                format!("bitcoind does not publish {topic} over ZMQ: {effect} only by the poll every monitor.reconcile_interval seconds"),
                format!("put into bitcoin.conf and restart bitcoind: zmqpub{topic}={used}"),
            )),
        }
    }
    findings.extend(hwm_findings(notifications));
    findings
}

/// Topics on one address share one queue, and its bound is the one of the alphabetically first
/// topic.
fn hwm_findings(notifications: &[Notification]) -> Vec<Finding> {
    let mut first: BTreeMap<&str, &Notification> = BTreeMap::new();
    for notification in notifications {
        let kept = first
            .entry(notification.address.as_str())
            .or_insert(notification);
        if notification.kind < kept.kind {
            *kept = notification;
        }
    }
    first.retain(|address, _| {
        notifications
            .iter()
            .any(|n| n.address == *address && is_ours(&n.kind))
    });
    first
        .into_iter()
        .filter_map(|(address, notification)| {
            let hwm = notification.hwm.filter(|hwm| *hwm != 0 && *hwm < ENOUGH_HWM)?;
            Some(Finding::bad(
                format!(
                    "bitcoind queues only {hwm} ZMQ messages on {address}: it drops some at every big block (they are found again, later)"
                ),
                format!("put into bitcoin.conf and restart bitcoind: zmq{}hwm=0", notification.kind),
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(kind: &str, address: &str, hwm: i64) -> Notification {
        Notification {
            kind: kind.into(),
            address: address.into(),
            hwm: Some(hwm),
        }
    }

    fn settings() -> config::Bitcoind {
        config::Bitcoind::default()
    }

    #[test]
    fn without_settings_the_main_chain_is_tried_first() {
        let found = candidates(&settings(), Some(Path::new("/home/a/.bitcoin"))).unwrap();
        assert_eq!(found.len(), 5);
        assert_eq!(
            found[0],
            (
                "http://127.0.0.1:8332".into(),
                Credentials::Cookie("/home/a/.bitcoin/.cookie".into())
            )
        );
        assert_eq!(
            found[4],
            (
                "http://127.0.0.1:18443".into(),
                Credentials::Cookie("/home/a/.bitcoin/regtest/.cookie".into())
            )
        );
    }

    #[test]
    fn the_port_of_the_address_picks_the_cookie() {
        let settings = config::Bitcoind {
            rpc_url: Some("127.0.0.1:38332/".into()),
            ..settings()
        };
        let found = candidates(&settings, Some(Path::new("/d"))).unwrap();
        assert_eq!(
            found[0],
            (
                "http://127.0.0.1:38332".into(),
                Credentials::Cookie("/d/signet/.cookie".into())
            )
        );
        assert!(found.iter().all(|(url, _)| url == "http://127.0.0.1:38332"));
    }

    #[test]
    fn the_folder_of_the_cookie_picks_the_port() {
        let settings = config::Bitcoind {
            cookie_file: Some("/x/regtest/.cookie".into()),
            ..settings()
        };
        assert_eq!(
            candidates(&settings, None).unwrap()[0].0,
            "http://127.0.0.1:18443"
        );
    }

    #[test]
    fn half_a_login_and_bad_addresses_are_refused() {
        let half = config::Bitcoind {
            rpc_user: Some("a".into()),
            ..settings()
        };
        assert_eq!(candidates(&half, None).unwrap_err().kind, Kind::Persistent);
        for url in [
            "https://127.0.0.1:8332",
            "http://a:b@127.0.0.1:8332",
            "http://",
            "",
        ] {
            let settings = config::Bitcoind {
                rpc_url: Some(url.into()),
                ..self::settings()
            };
            assert!(
                candidates(&settings, Some(Path::new("/d"))).is_err(),
                "{url}"
            );
        }
    }

    #[test]
    fn a_wildcard_endpoint_is_reached_at_the_rpc_host() {
        for (bound, seen) in [
            ("tcp://0.0.0.0:28332", "tcp://10.0.0.7:28332"),
            ("tcp://*:28332", "tcp://10.0.0.7:28332"),
            ("tcp://[::]:28332", "tcp://10.0.0.7:28332"),
            ("tcp://127.0.0.1:28332", "tcp://127.0.0.1:28332"),
            ("ipc:///run/a.sock", "ipc:///run/a.sock"),
        ] {
            assert_eq!(reachable(bound, "10.0.0.7"), seen);
        }
    }

    #[test]
    fn the_address_with_most_topics_is_taken_and_settings_win() {
        let all = [
            notification("pubrawtx", "tcp://127.0.0.1:1", 0),
            notification("pubrawtx", "tcp://127.0.0.1:2", 0),
            notification("pubsequence", "tcp://127.0.0.1:2", 0),
        ];
        let found = endpoints(&settings(), &all, "127.0.0.1");
        assert_eq!(found.rawtx.as_deref(), Some("tcp://127.0.0.1:2"));
        assert_eq!(found.rawblock, None);
        let set = config::Bitcoind {
            zmq_rawtx: Some("tcp://127.0.0.1:9".into()),
            ..settings()
        };
        assert_eq!(
            endpoints(&set, &all, "127.0.0.1").rawtx.as_deref(),
            Some("tcp://127.0.0.1:9")
        );
    }

    #[test]
    fn missing_topics_come_with_their_line() {
        let findings = zmq_findings(&settings(), &[], &Endpoints::default(), "127.0.0.1");
        assert_eq!(findings.len(), 3);
        assert!(findings.iter().all(|f| !f.ok));
        assert!(
            findings[0]
                .remedy
                .as_deref()
                .unwrap()
                .ends_with("zmqpubrawtx=tcp://127.0.0.1:28332")
        );
    }

    #[test]
    fn an_endpoint_that_the_node_does_not_list_is_named() {
        let listed = [
            notification("pubsequence", "tcp://0.0.0.0:1", 0),
            notification("pubrawtx", "tcp://127.0.0.1:2", 0),
        ];
        let bad = |set: &str| {
            let settings = config::Bitcoind {
                zmq_sequence: Some(set.into()),
                ..settings()
            };
            let endpoints = endpoints(&settings, &listed, "127.0.0.1");
            let findings = zmq_findings(&settings, &listed, &endpoints, "127.0.0.1");
            findings.iter().any(|finding| {
                finding
                    .remedy
                    .as_deref()
                    .is_some_and(|remedy| remedy.contains("bitcoind.zmq_sequence"))
            })
        };
        assert!(!bad("tcp://127.0.0.1:1") && !bad("tcp://localhost:1"));
        assert!(bad("tcp://127.0.0.1:2"), "that is where another topic is");
        assert!(bad("tcp://10.0.0.7:1"));
    }

    #[test]
    fn the_first_topic_of_an_address_bounds_its_queue() {
        let a = "tcp://127.0.0.1:1";
        let shared = [
            notification("pubrawtx", a, 100_000),
            notification("pubrawblock", a, 1000),
        ];
        let findings = hwm_findings(&shared);
        assert_eq!(findings.len(), 1);
        assert!(
            findings[0]
                .remedy
                .as_deref()
                .unwrap()
                .ends_with("zmqpubrawblockhwm=0")
        );
        assert_eq!(
            hwm_findings(&[
                notification("pubrawblock", a, 0),
                notification("pubrawtx", a, 1000)
            ]),
            []
        );
        assert_eq!(
            hwm_findings(&[notification("pubhashblock", "tcp://127.0.0.1:5", 1000)]),
            []
        );
    }

    #[test]
    fn hosts_are_read_from_addresses() {
        for (url, host) in [
            ("http://127.0.0.1:8332", "127.0.0.1"),
            ("http://[::1]:8332/wallet", "[::1]"),
            ("http://node", "node"),
        ] {
            assert_eq!(rpc::host_of(url), host);
        }
    }
}
