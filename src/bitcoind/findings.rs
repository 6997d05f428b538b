//! What is well with the node and what is not, each with its remedy: for the log at the start,
//! `/status` and `doctor`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::discover::{Endpoints, NodeInfo, is_ours, lists};
use super::rpc::{Method, Notification, Rpc, whitelist_line};
use super::zmq::ZmqTopic;
use super::{NodeError, NodeErrorKind};
use crate::clock::clock_is_behind;
use crate::config;
use crate::remedy::Remedy;

/// Below this high-water mark the node drops messages of an ordinary block, even for a fast reader.
const ENOUGH_HWM: i64 = 20_000;
/// Seconds. On a public chain a block takes longer once in some thousand years.
const OLD: u64 = 3 * 3600;
/// The node does not know the call.
const UNKNOWN_METHOD: i32 = -32601;

/// Something looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub ok: bool,
    /// A sentence.
    pub what: String,
    /// What to do when it is not well.
    pub remedy: Option<Remedy>,
}

impl Finding {
    fn well(what: String) -> Self {
        Self {
            ok: true,
            what,
            remedy: None,
        }
    }

    fn bad(what: String, remedy: Remedy) -> Self {
        Self {
            ok: false,
            what,
            remedy: Some(remedy),
        }
    }
}

impl From<&NodeError> for Finding {
    fn from(error: &NodeError) -> Self {
        Self {
            ok: false,
            what: error.message.clone(),
            remedy: error.remedy.clone(),
        }
    }
}

/// `network` and `notifications`: how the calls went on which the rest stands. `now`: seconds since
/// the Unix epoch.
pub(crate) fn findings(
    settings: &config::Bitcoind,
    node: &NodeInfo,
    rpc_host: &str,
    network: Result<(), &NodeError>,
    notifications: Result<&[Notification], &NodeError>,
    endpoints: &Endpoints,
    now: u64,
) -> Vec<Finding> {
    let mut findings = vec![Finding::well(format!(
        "bitcoind {} answers at {}, chain {}, height {}",
        node.subversion, node.url, node.chain, node.blocks
    ))];
    match network {
        Ok(()) => findings.extend(network_findings(node, now)),
        Err(error) => findings.push(error.into()),
    }
    findings.extend(clock_finding(node, now));
    findings.extend(download_finding(node, now));
    if node.pruned {
        let kept = node.prune_height.unwrap_or_default();
        findings.push(Finding::well(format!(
            "bitcoind is pruned: blocks below {kept} are gone, so history scans reach back to there"
        )));
    }
    match notifications {
        Ok(notifications) => findings.extend(zmq_findings(
            settings,
            notifications,
            endpoints,
            rpc_host,
        )),
        Err(error) if error.kind == NodeErrorKind::Rpc(UNKNOWN_METHOD) => findings.push(Finding::bad(
            "this bitcoind cannot publish anything over ZMQ: news come by the poll every monitor.reconcile_interval seconds".into(),
            Remedy::PublishingBuild,
        )),
        Err(error) => findings.push(error.into()),
    }
    findings
}

/// Makes every call that the daemon makes, with parameters that change nothing.
pub async fn try_calls(rpc: &Rpc) -> Vec<Finding> {
    let (mut known, mut refused, mut unknown) = (0, Vec::new(), Vec::new());
    let mut findings = Vec::new();
    for method in Method::ALL {
        match rpc.try_out(*method).await {
            Err(error) if error.kind == NodeErrorKind::Rpc(UNKNOWN_METHOD) => {
                unknown.push(method.name())
            }
            // It answers something, so it may be called.
            Ok(()) => known += 1,
            Err(error) if matches!(error.kind, NodeErrorKind::Rpc(_)) => known += 1,
            Err(error) if error.kind == NodeErrorKind::MethodRefused => refused.push(method.name()),
            Err(error) => {
                // The next calls would say it again.
                findings.push(Finding::from(&error));
                break;
            }
        }
    }
    if !refused.is_empty() {
        let user = rpc.user();
        findings.push(Finding::bad(
            format!(
                "bitcoind at {} does not let user {user} call {} (rpcwhitelist)",
                rpc.url(),
                refused.join(", ")
            ),
            Remedy::AllowCalls {
                line: whitelist_line(&user),
            },
        ));
    } else if findings.is_empty() {
        findings.push(Finding::well(match unknown.is_empty() {
            true => format!("bitcoind permits all {known} calls that satwatch makes"),
            false => format!(
                "bitcoind permits {known} of the calls that satwatch makes, and does not know {}",
                unknown.join(", ")
            ),
        }));
    }
    findings
}

/// Connections, and the age of the tip that comes of them.
fn network_findings(node: &NodeInfo, now: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    let old = tip_age(node, now).filter(|age| *age >= OLD);
    if let Some((what, remedy)) = isolation(node) {
        let old = old.map_or(String::new(), |age| {
            format!("; its newest block is {} old", span(age))
        });
        findings.push(Finding::bad(format!("{what}{old}"), remedy));
    } else if let (Some(age), false, false) = (old, node.private, node.initial_block_download) {
        findings.push(Finding::bad(
            format!(
                "bitcoind's newest block is {} old, though it is connected to {}: they have no newer one, or the clock here is wrong",
                span(age),
                nodes(node)
            ),
            Remedy::NamePeer,
        ));
    } else if node.connections.is_some() {
        findings.push(Finding::well(format!(
            "bitcoind is connected to {}",
            nodes(node)
        )));
    }
    if node.relays_transactions == Some(false) {
        findings.push(Finding::bad(
            "bitcoind takes no transactions from other nodes (blocksonly): payments are seen when they are in a block, not before".into(),
            Remedy::RelayTransactions,
        ));
    }
    findings
}

/// A block from the future: a node takes none that is two hours ahead of its own clock.
fn clock_finding(node: &NodeInfo, now: u64) -> Option<Finding> {
    let what = clock_is_behind(now.saturating_mul(1000), node.tip_time?)?;
    Some(Finding::bad(what, Remedy::SetClock))
}

/// Of an address that waits for its outputs. One that was not added by itself is of a descriptor.
pub fn too_many_outputs(address: &str, of: Option<String>) -> Finding {
    let what = format!(
        "bitcoind cannot tell what {address} owned when it was added: that is too much for one answer"
    );
    let remedy = match of {
        None => Remedy::WatchFromNow,
        Some(descriptor) => Remedy::WatchDescriptorFromNow { descriptor },
    };
    Finding::bad(what, remedy)
}

/// Why nothing reaches the node. On a private chain it may be alone.
fn isolation(node: &NodeInfo) -> Option<(&'static str, Remedy)> {
    if node.network_active == Some(false) {
        let what = "bitcoind's network is switched off, so nothing reaches it";
        Some((what, Remedy::SwitchNetworkOn))
    } else if node.connections == Some(0) && !node.private {
        let what = "bitcoind has no connection to another node, so nothing reaches it";
        Some((what, Remedy::NamePeer))
    } else {
        None
    }
}

/// What stands behind `initialblockdownload`, if that is not said by the connections already.
fn download_finding(node: &NodeInfo, now: u64) -> Option<Finding> {
    if !node.initial_block_download || isolation(node).is_some() {
        return None;
    }
    let fetching = node.headers > node.blocks && node.connections != Some(0);
    if node.private && !fetching {
        let age = tip_age(node, now).map_or("too".into(), span);
        return Some(Finding::well(format!(
            "bitcoind's newest block is {age} old, on a chain on which nobody else needs to mine: it is followed as it is"
        )));
    }
    Some(Finding::bad(initial_download(node, now), Remedy::Wait))
}

/// What a node that says it is in its initial download does or lacks.
pub(crate) fn initial_download(node: &NodeInfo, now: u64) -> String {
    if let Some((what, _)) = isolation(node) {
        return what.to_owned();
    }
    if node.headers > node.blocks {
        return format!(
            "bitcoind is in its initial download: block {} of {}",
            node.blocks, node.headers
        );
    }
    let age = tip_age(node, now).map_or("too".into(), span);
    format!(
        "bitcoind looks for newer blocks: its last one, {}, is {age} old",
        node.blocks
    )
}

fn tip_age(node: &NodeInfo, now: u64) -> Option<u64> {
    node.tip_time.map(|time| now.saturating_sub(time.into()))
}

fn nodes(node: &NodeInfo) -> String {
    match node.connections {
        Some(1) => "1 other node".to_owned(),
        count => format!("{} other nodes", count.unwrap_or_default()),
    }
}

fn span(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600, seconds / 60) {
        (days @ 2.., _, _) => format!("{days} days"),
        (_, hours @ 2.., _) => format!("{hours} hours"),
        (_, _, minutes) => format!("{minutes} minutes"),
    }
}

fn zmq_findings(
    settings: &config::Bitcoind,
    notifications: &[Notification],
    endpoints: &Endpoints,
    rpc_host: &str,
) -> Vec<Finding> {
    let topics = [
        (
            ZmqTopic::Rawtx,
            &endpoints.rawtx,
            &settings.zmq_rawtx,
            "payments are seen",
        ),
        (
            ZmqTopic::Rawblock,
            &endpoints.rawblock,
            &settings.zmq_rawblock,
            "blocks are seen",
        ),
        (
            ZmqTopic::Sequence,
            &endpoints.sequence,
            &settings.zmq_sequence,
            "replacements and evictions are seen",
        ),
    ];
    let place = publishing_place(notifications, rpc_host);
    let mut findings = Vec::new();
    for (which, endpoint, set, effect) in topics {
        let topic = which.name();
        match endpoint {
            Some(endpoint) if set.is_some() && !lists(notifications, rpc_host, which, endpoints) => findings.push(Finding::bad(
                format!(
                    "ZMQ {topic} at {endpoint} (from the settings) is not where bitcoind says that it publishes it: what comes from there \
                     is checked until it has proved to be bitcoind's"
                ),
                Remedy::CorrectEndpoint { topic },
            )),
            Some(endpoint) => {
                let origin = if set.is_some() { " (from the settings)" } else { "" };
                findings.push(Finding::well(format!("ZMQ {topic} at {endpoint}{origin}")));
            }
            None => findings.push(Finding::bad(
                format!("bitcoind does not publish {topic} over ZMQ: {effect} only by the poll every monitor.reconcile_interval seconds"),
                Remedy::Publish { topic, endpoint: place.clone() },
            )),
        }
    }
    findings.extend(hwm_findings(notifications));
    findings
}

/// Where a topic that is missing should be published, as bitcoind binds to it: on the address of
/// the others in the same words, because another address on the same port could not be bound to,
/// and bitcoind would start without ZMQ.
fn publishing_place(notifications: &[Notification], rpc_host: &str) -> String {
    let ours = notifications.iter().find(|n| is_ours(&n.kind));
    if let Some(known) = ours.or(notifications.first()) {
        return known.address.clone();
    }
    let host = match rpc_host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) if !address.is_loopback() => rpc_host,
        Err(_) if rpc_host != "localhost" => "0.0.0.0",
        _ => "127.0.0.1",
    };
    format!("tcp://{host}:28332")
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
                Remedy::KeepMessages { kind: notification.kind.clone() },
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::discover::endpoints;
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

    const NOW: u64 = 1_800_000_000;

    /// A main-chain node with a block of a minute ago and eight connections.
    fn node() -> NodeInfo {
        NodeInfo {
            blocks: 900,
            headers: 900,
            tip_time: Some(NOW as u32 - 60),
            connections: Some(8),
            network_active: Some(true),
            relays_transactions: Some(true),
            ..NodeInfo::default()
        }
    }

    /// What is said of it besides that it answers, and the remedies.
    fn said(node: &NodeInfo) -> (String, Vec<Remedy>) {
        let all = findings(
            &settings(),
            node,
            "127.0.0.1",
            Ok(()),
            Err(&NodeError::new(NodeErrorKind::Busy, "busy")),
            &Endpoints::default(),
            NOW,
        );
        let all = &all[1..all.len() - 1];
        let what: Vec<_> = all.iter().map(|finding| finding.what.as_str()).collect();
        let remedies = all.iter().filter_map(|finding| finding.remedy.clone());
        (what.join("\n"), remedies.collect())
    }

    #[test]
    fn case_11_each_thing_that_keeps_news_from_the_node_is_said_once_with_its_remedy() {
        let cases: [(&str, NodeInfo, &str, Option<Remedy>); 10] = [
            (
                "the clock is behind",
                NodeInfo {
                    tip_time: Some(NOW as u32 + 5 * 3600),
                    ..node()
                },
                "clock is wrong: it is 5 hours behind the newest block",
                Some(Remedy::SetClock),
            ),
            ("well", node(), "connected to 8 other nodes", None),
            (
                "alone",
                NodeInfo {
                    connections: Some(0),
                    tip_time: Some(NOW as u32 - 3 * 86_400),
                    initial_block_download: true,
                    ..node()
                },
                "no connection to another node, so nothing reaches it; its newest block is 3 days old",
                Some(Remedy::NamePeer),
            ),
            (
                "switched off",
                NodeInfo {
                    connections: Some(0),
                    network_active: Some(false),
                    ..node()
                },
                "network is switched off",
                Some(Remedy::SwitchNetworkOn),
            ),
            (
                "no transactions",
                NodeInfo {
                    relays_transactions: Some(false),
                    ..node()
                },
                "blocksonly",
                Some(Remedy::RelayTransactions),
            ),
            (
                "old tip",
                NodeInfo {
                    tip_time: Some(NOW as u32 - 5 * 3600),
                    ..node()
                },
                "newest block is 5 hours old, though it is connected to 8",
                Some(Remedy::NamePeer),
            ),
            (
                "downloads",
                NodeInfo {
                    headers: 90_000,
                    initial_block_download: true,
                    ..node()
                },
                "initial download: block 900 of 90000",
                Some(Remedy::Wait),
            ),
            (
                "looks for headers",
                NodeInfo {
                    tip_time: Some(NOW as u32 - 3 * 86_400),
                    initial_block_download: true,
                    ..node()
                },
                "looks for newer blocks: its last one, 900, is 3 days old",
                Some(Remedy::Wait),
            ),
            (
                "a private chain that rests",
                NodeInfo {
                    connections: Some(0),
                    private: true,
                    tip_time: Some(NOW as u32 - 3 * 86_400),
                    initial_block_download: true,
                    ..node()
                },
                "it is followed as it is",
                None,
            ),
            (
                "a private chain that is downloaded",
                NodeInfo {
                    headers: 90_000,
                    private: true,
                    initial_block_download: true,
                    ..node()
                },
                "initial download: block 900 of 90000",
                Some(Remedy::Wait),
            ),
        ];
        for (case, node, words, remedy) in cases {
            let (what, remedies) = said(&node);
            assert!(what.contains(words), "{case}: {what}");
            assert_eq!(remedies, Vec::from_iter(remedy), "{case}: {what}");
        }
    }

    #[test]
    fn a_call_that_fails_is_not_taken_for_what_it_would_have_told() {
        let forbidden = NodeError::new(NodeErrorKind::MethodRefused, "no");
        let all = findings(
            &settings(),
            &node(),
            "127.0.0.1",
            Err(&forbidden),
            Err(&forbidden),
            &Endpoints::default(),
            NOW,
        );
        let said: Vec<_> = all[1..].iter().map(|finding| &*finding.what).collect();
        assert_eq!(said, ["no", "no"], "nothing about ZMQ or connections");
    }

    #[test]
    fn missing_topics_come_with_their_line() {
        let findings = zmq_findings(&settings(), &[], &Endpoints::default(), "127.0.0.1");
        assert_eq!(findings.len(), 3);
        assert!(findings.iter().all(|f| !f.ok));
        let remedy = findings[0].remedy.as_ref().expect("there is advice");
        assert!(
            remedy
                .to_string()
                .ends_with("zmqpubrawtx=tcp://127.0.0.1:28332")
        );
    }

    #[test]
    fn a_topic_is_to_be_published_where_the_others_are_or_where_it_can_be_reached() {
        for (known, rpc_host, place) in [
            (Some("tcp://0.0.0.0:5"), "127.0.0.1", "tcp://0.0.0.0:5"),
            (None, "localhost", "tcp://127.0.0.1:28332"),
            (None, "[::1]", "tcp://127.0.0.1:28332"),
            (None, "10.0.0.7", "tcp://10.0.0.7:28332"),
            (None, "node.lan", "tcp://0.0.0.0:28332"),
        ] {
            let known = known.map(|address| notification("pubrawblock", address, 0));
            let listed = Vec::from_iter(known);
            assert_eq!(publishing_place(&listed, rpc_host), place, "{rpc_host}");
        }
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
                finding.remedy == Some(Remedy::CorrectEndpoint { topic: "sequence" })
            })
        };
        assert!(!bad("tcp://127.0.0.1:1") && !bad("tcp://localhost:1"));
        assert!(bad("tcp://127.0.0.1:2"), "that is where another topic is");
        assert!(bad("tcp://10.0.0.7:1"));
    }

    #[test]
    fn localhost_is_either_loopback_address() {
        for (bound, set, same) in [
            ("tcp://[::1]:1", "tcp://localhost:1", true),
            ("tcp://127.0.0.1:1", "tcp://localhost:1", true),
            ("tcp://localhost:1", "tcp://[::1]:1", true),
            ("tcp://[::1]:1", "tcp://127.0.0.1:1", false),
            ("tcp://[::1]:1", "tcp://localhost:2", false),
        ] {
            let endpoints = Endpoints {
                rawtx: Some(set.into()),
                ..Endpoints::default()
            };
            let listed = [notification("pubrawtx", bound, 0)];
            assert_eq!(
                lists(&listed, "127.0.0.1", ZmqTopic::Rawtx, &endpoints),
                same,
                "{bound} {set}"
            );
        }
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
        let kind = "pubrawblock".to_owned();
        assert_eq!(findings[0].remedy, Some(Remedy::KeepMessages { kind }));
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
}
