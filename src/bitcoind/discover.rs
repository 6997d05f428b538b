//! Finds the node: address, credentials, chain, ZMQ endpoints.
//!
//! What the settings leave out is looked for in bitcoind's default data directory, in its
//! `bitcoin.conf` and on the default ports, main chain first. ZMQ endpoints come from
//! `getzmqnotifications`.

use std::path::{Path, PathBuf};

use bitcoin::Network;

use super::conf::Conf;
use super::findings::{Finding, findings};
use super::http::Credentials;
use super::rpc::{self, Blockchain, Notification, Rpc};
use super::url::NodeUrl;
use super::zmq::ZmqTopic;
use super::{NodeError, NodeErrorKind};
use crate::clock::now_ms;
use crate::config;
use crate::remedy::Remedy;
use crate::store::ChainInfo;

/// A node that answers, and what it is.
#[derive(Clone)]
pub struct DiscoveredNode {
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
    /// Nobody else may be mining on the chain: regtest, or a signet of one's own.
    pub private: bool,
    pub pruned: bool,
    pub prune_height: Option<u32>,
    /// When the tip was mined, by its header.
    pub tip_time: Option<u32>,
    /// To other nodes.
    pub connections: Option<u32>,
    pub network_active: Option<bool>,
    /// False with `blocksonly`.
    pub relays_transactions: Option<bool>,
}

impl NodeInfo {
    pub(crate) fn set_chain(&mut self, node: &Blockchain) {
        self.blocks = node.blocks;
        self.headers = node.headers;
        self.initial_block_download = node.initialblockdownload;
        self.private = node.is_private();
        self.pruned = node.pruned;
        self.prune_height = node.pruneheight;
        self.tip_time = node.tip_time();
    }

    pub(crate) fn set_network(&mut self, network: &rpc::Network) {
        self.version = network.version;
        self.subversion.clone_from(&network.subversion);
        self.connections = network.connections;
        self.network_active = network.networkactive;
        self.relays_transactions = network.localrelay;
    }
}

/// Where each topic is subscribed; `None` is left to the poll.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    pub rawtx: Option<String>,
    pub rawblock: Option<String>,
    pub sequence: Option<String>,
}

/// Finds the node that the settings name, or the first default one that answers.
pub async fn find(settings: &config::Bitcoind) -> Result<DiscoveredNode, NodeError> {
    find_on(settings, None).await
}

/// [`find`], passing over nodes of other chains than `network`.
pub(crate) async fn find_on(
    settings: &config::Bitcoind,
    network: Option<Network>,
) -> Result<DiscoveredNode, NodeError> {
    let conf = default_dir().map(|dir| Conf::read(&dir));
    let candidates = candidates(settings, conf.as_ref(), network)?;
    let named = settings.rpc_url.is_some();
    let mut asked: Vec<String> = Vec::new();
    let mut best: Option<NodeError> = None;
    for (index, candidate) in candidates.iter().enumerate() {
        let RpcCandidate {
            chain,
            url,
            credentials,
        } = candidate;
        let shown = url.to_string();
        if !asked.contains(&shown) {
            asked.push(shown);
        }
        let rpc = Rpc::new(url.clone(), credentials.clone());
        match rpc.blockchain().await {
            Ok(node) if network.is_some_and(|network| network.to_core_arg() != node.chain) => {
                let network = network.map(Network::to_core_arg).unwrap_or_default();
                keep_better(&mut best, wrong_chain(url, &node.chain, network));
            }
            Ok(node) => return describe(rpc, node, settings).await,
            Err(error) => keep_better(&mut best, error),
        }
        let next = candidates.get(index + 1);
        let more_of_it = !named && next.is_some_and(|next| next.chain == *chain);
        if !more_of_it && best.as_ref().is_some_and(|error| is_enough(error, named)) {
            break;
        }
    }
    let given = given_credentials(settings).is_some();
    let mut error = match best {
        Some(error) if named || given || rank(&error) > 0 => error,
        _ => nobody_answers(&asked),
    };
    let unread = conf.and_then(|conf| conf.problem);
    if let (Some(unread), false) = (unread, named && given) {
        error.message = format!("{}; {unread}", error.message);
    }
    Err(error)
}

pub(crate) fn wrong_chain(url: &NodeUrl, found: &str, expected: &str) -> NodeError {
    NodeError::new(
        NodeErrorKind::OtherChain,
        format!("bitcoind at {url} follows chain {found}, the store belongs to {expected}"),
    )
    .advise(Remedy::OtherNodeOrStore)
}

fn nobody_answers(asked: &[String]) -> NodeError {
    let (first, others) = match asked {
        [] | [_] => (asked.concat(), String::new()),
        [first, others @ ..] => (first.clone(), format!(", nor at {}", others.join(", "))),
    };
    NodeError::new(
        NodeErrorKind::Unreachable,
        format!(
            "no bitcoind found: none answers at {first} (from the default data directory and its bitcoin.conf){others}"
        ),
    )
    .advise(Remedy::StartOrNameServer)
}

/// Of several nodes that failed, the first of those that said most is the one to talk about.
fn keep_better(best: &mut Option<NodeError>, error: NodeError) {
    if best.as_ref().is_none_or(|kept| rank(&error) > rank(kept)) {
        *best = Some(error);
    }
}

/// Nobody was there; a node of another chain; a node for which we have no credentials; one that has
/// seen ours.
fn rank(error: &NodeError) -> u8 {
    match error.kind {
        NodeErrorKind::Unreachable => 0,
        NodeErrorKind::OtherChain => 1,
        NodeErrorKind::NoCookie => 2,
        _ => 3,
    }
}

/// Who answered is the node that is meant, whatever it said: the credentials for it are nobody
/// else's, and a node of another chain is not taken in its place. At an address that is `named`
/// there is only one node, for which further cookies may be the right ones.
fn is_enough(error: &NodeError, named: bool) -> bool {
    rank(error) >= 2 + u8::from(named)
}

async fn describe(
    rpc: Rpc,
    node: Blockchain,
    settings: &config::Bitcoind,
) -> Result<DiscoveredNode, NodeError> {
    let network = network_of(&node.chain)?;
    let genesis = rpc.genesis().await?;
    let mut info = NodeInfo {
        url: rpc.url().to_string(),
        chain: node.chain.clone(),
        ..NodeInfo::default()
    };
    info.set_chain(&node);
    let program = rpc
        .network()
        .await
        .map(|program| info.set_network(&program));
    let notifications = rpc.notifications().await;
    let listed = notifications.as_deref().unwrap_or_default();
    let zmq = endpoints(settings, listed, rpc.url().host());
    let notes = findings(
        settings,
        &info,
        rpc.url().host(),
        program.as_ref().copied(),
        notifications.as_deref(),
        &zmq,
        now_ms() / 1000,
    );
    Ok(DiscoveredNode {
        rpc,
        chain: ChainInfo { network, genesis },
        node: info,
        zmq,
        notes,
    })
}

fn network_of(chain: &str) -> Result<Network, NodeError> {
    Network::from_core_arg(chain).map_err(|_| {
        NodeError::new(
            NodeErrorKind::Setup,
            format!("bitcoind follows chain {chain:?}, which satwatch does not know"),
        )
    })
}

/// bitcoind's default data directory.
fn default_dir() -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME")?);
    Some(if cfg!(target_os = "macos") {
        home.join("Library/Application Support/Bitcoin")
    } else {
        home.join(".bitcoin")
    })
}

/// Where a node may be, and how it may let us in.
#[derive(Debug, PartialEq, Eq)]
struct RpcCandidate {
    /// The chain whose place that is.
    chain: Network,
    url: NodeUrl,
    credentials: Credentials,
}

/// All that are worth trying, best first; `network`: the chain that is looked for. Never empty.
fn candidates(
    settings: &config::Bitcoind,
    conf: Option<&Conf>,
    network: Option<Network>,
) -> Result<Vec<RpcCandidate>, NodeError> {
    let url = settings
        .rpc_url
        .as_deref()
        .map(NodeUrl::parse)
        .transpose()?;
    let given = given_credentials(settings);
    let none = Conf::default();
    let mut accesses = conf.unwrap_or(&none).accesses();
    // A port or a cookie's folder may say which chain is meant.
    let port = url.as_ref().and_then(|url| url.uri().port_u16());
    let shown = url.as_ref().map(NodeUrl::to_string);
    let folder = settings
        .cookie_file
        .as_deref()
        .and_then(Path::parent)
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy());
    accesses.sort_by_key(|access| {
        let named = shown.as_ref().is_some_and(|url| access.urls.contains(url));
        (
            !named && Some(access.port) != port && folder.as_deref() != Some(access.folder),
            network.is_some_and(|network| network != access.network),
        )
    });
    if given.is_none() && conf.is_none() {
        return Err(NodeError::new(
            NodeErrorKind::Setup,
            "there is no home directory to look for bitcoind's cookie in",
        )
        .advise(Remedy::NameCredentials));
    }
    let mut found: Vec<RpcCandidate> = Vec::new();
    for access in accesses {
        // A login that is not for this chain is for no port that we only guess.
        if access.borrowed && given.is_none() && url.is_none() {
            continue;
        }
        let credentials = given.as_ref().unwrap_or(&access.credentials);
        let urls = match &url {
            Some(url) => vec![url.clone()],
            None => {
                let urls = access.urls.iter().map(|url| NodeUrl::parse(url));
                urls.collect::<Result<_, _>>()?
            }
        };
        for url in urls {
            let is_known =
                |known: &RpcCandidate| known.url == url && known.credentials == *credentials;
            if !found.iter().any(is_known) {
                found.push(RpcCandidate {
                    chain: access.network,
                    url,
                    credentials: credentials.clone(),
                });
            }
        }
    }
    Ok(found)
}

/// Of user and password the settings have both or neither.
fn given_credentials(settings: &config::Bitcoind) -> Option<Credentials> {
    match (&settings.rpc_user, &settings.rpc_password) {
        (Some(user), Some(password)) => Some(Credentials::User {
            user: user.clone(),
            password: password.clone(),
            conf: None,
        }),
        _ => settings.cookie_file.clone().map(Credentials::Cookie),
    }
}

/// Which endpoint serves which topic. Settings win; of several addresses the one that serves most
/// topics is taken, because on one address the order of messages is that of the events.
pub(crate) fn endpoints(
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
pub(crate) fn lists(
    notifications: &[Notification],
    rpc_host: &str,
    topic: ZmqTopic,
    endpoints: &Endpoints,
) -> bool {
    let endpoint = match topic {
        ZmqTopic::Rawtx => &endpoints.rawtx,
        ZmqTopic::Rawblock => &endpoints.rawblock,
        ZmqTopic::Sequence => &endpoints.sequence,
    };
    let here = |n: &Notification| {
        n.kind.strip_prefix("pub") == Some(topic.name())
            && endpoint
                .as_deref()
                .is_some_and(|endpoint| is_same_place(&reachable(&n.address, rpc_host), endpoint))
    };
    notifications.iter().any(here)
}

/// `localhost` is either loopback address.
fn is_same_place(one: &str, other: &str) -> bool {
    let forms = |address: &str| {
        ["//127.0.0.1:", "//[::1]:", "//localhost:"]
            .map(|host| address.replace("//localhost:", host))
    };
    forms(other).contains(&one.to_owned()) || forms(one).contains(&other.to_owned())
}

pub(crate) fn is_ours(kind: &str) -> bool {
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
        let found = candidates(
            &settings(),
            Some(&Conf::read(Path::new("/home/a/.bitcoin"))),
            None,
        )
        .unwrap();
        assert_eq!(found.len(), 5);
        assert_eq!(
            (&*found[0].url.to_string(), &found[0].credentials),
            (
                "http://127.0.0.1:8332",
                &Credentials::Cookie("/home/a/.bitcoin/.cookie".into())
            )
        );
        assert_eq!(
            (&*found[4].url.to_string(), &found[4].credentials),
            (
                "http://127.0.0.1:18443",
                &Credentials::Cookie("/home/a/.bitcoin/regtest/.cookie".into())
            )
        );
    }

    #[test]
    fn the_port_of_the_address_picks_the_cookie() {
        let settings = config::Bitcoind {
            rpc_url: Some("127.0.0.1:38332/".into()),
            ..settings()
        };
        let found = candidates(&settings, Some(&Conf::read(Path::new("/d"))), None).unwrap();
        assert_eq!(
            (&*found[0].url.to_string(), &found[0].credentials),
            (
                "http://127.0.0.1:38332",
                &Credentials::Cookie("/d/signet/.cookie".into())
            )
        );
        assert!(
            found
                .iter()
                .all(|candidate| candidate.url.to_string() == "http://127.0.0.1:38332")
        );
    }

    #[test]
    fn the_folder_of_the_cookie_picks_the_port() {
        let settings = config::Bitcoind {
            cookie_file: Some("/x/regtest/.cookie".into()),
            ..settings()
        };
        assert_eq!(
            candidates(&settings, None, None).unwrap()[0]
                .url
                .to_string(),
            "http://127.0.0.1:18443"
        );
    }

    #[test]
    fn a_login_that_is_not_for_a_chain_is_not_offered_at_its_port() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("bitcoin.conf");
        let text = "rpcuser=a\nrpcpassword=b\n[regtest]\nrpcport=5\n";
        std::fs::write(file, text).expect("written");
        let conf = Conf::read(folder.path());
        let urls = |settings: &config::Bitcoind, network| {
            let found = candidates(settings, Some(&conf), network).unwrap();
            found
                .into_iter()
                .map(|it| it.url.to_string())
                .collect::<Vec<_>>()
        };
        let (main, regtest) = ("http://127.0.0.1:8332", "http://127.0.0.1:5");
        assert_eq!(urls(&settings(), None), [main, regtest]);
        assert_eq!(urls(&settings(), Some(Network::Regtest)), [regtest, main]);
        let named = config::Bitcoind {
            rpc_url: Some("http://127.0.0.1:18332".into()),
            ..settings()
        };
        assert_eq!(urls(&named, None), ["http://127.0.0.1:18332"]);
    }

    #[test]
    fn of_nodes_that_fail_the_one_that_said_most_is_told_and_ends_the_search() {
        let error = |kind| NodeError::new(kind, format!("{kind:?}"));
        let away = error(NodeErrorKind::Unreachable);
        let other = error(NodeErrorKind::OtherChain);
        let no_cookie = error(NodeErrorKind::NoCookie);
        let forbidden = error(NodeErrorKind::CookieForbidden);
        let refused = error(NodeErrorKind::LoginRefused);
        let starting = error(NodeErrorKind::WarmingUp);
        for (first, second, told) in [
            (&away, &other, &other),
            (&other, &away, &other),
            (&away, &forbidden, &forbidden),
            (&forbidden, &no_cookie, &forbidden),
            (&refused, &no_cookie, &refused),
            (&refused, &starting, &refused),
            (&no_cookie, &starting, &starting),
        ] {
            let mut best = None;
            keep_better(&mut best, first.clone());
            keep_better(&mut best, second.clone());
            assert_eq!(best.as_ref(), Some(told), "{first}, {second}");
        }
        // The error; whether it ends the search; at an address that the settings name.
        for (error, searching, named) in [
            (&away, false, false),
            (&other, false, false),
            (&no_cookie, true, false),
            (&forbidden, true, true),
            (&refused, true, true),
            (&starting, true, true),
        ] {
            assert_eq!(is_enough(error, false), searching, "{error}");
            assert_eq!(is_enough(error, true), named, "{error}");
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
}
