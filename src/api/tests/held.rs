//! What strangers can make the daemon hold: bodies over REST that stand still, answers that nobody
//! reads, long lists. The bound holds, and others are served.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Frame};
use serde_json::json;

use super::*;
use crate::api::rest::body::PART_BYTES;
use crate::api::rest::respond::Answer;
use crate::tracker::{
    ChangeSet, Coverage, Diff, OutputRow, ScriptHash, Spend, Transition, WatchRow,
};

/// Sends a part and then nothing more, or ends in the middle.
struct Partial {
    part: Option<Bytes>,
    breaks: bool,
}

impl Body for Partial {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match self.part.take() {
            Some(part) => Poll::Ready(Some(Ok(Frame::data(part)))),
            None if self.breaks => Poll::Ready(Some(Err(std::io::ErrorKind::BrokenPipe.into()))),
            None => Poll::Pending,
        }
    }
}

fn partial(breaks: bool) -> Request<Partial> {
    let part = Some(Bytes::from_static(&[b' '; 64 * 1024]));
    Request::post("/add_addresses")
        .header("host", "localhost:5005")
        .body(Partial { part, breaks })
        .unwrap()
}

/// Of one such body, those that count.
const COUNTED: usize = 60 * 1024;

async fn bounded(rest_bytes: usize) -> Daemon {
    let mut config = config::Config::default();
    config.limits.rest_bytes = rest_bytes;
    // All of them have one address.
    config.limits.costly_per_minute = 1_000_000;
    Daemon::with(config).await
}

impl Daemon {
    /// Small requests are answered.
    async fn serves(&self) {
        let adding = json!({"address": address(1).to_string(), "history": "none"});
        assert_eq!(self.post("/add_address", &adding.to_string()).await.0, 200);
        assert_eq!(self.get("/status").await.0, 200);
        let balance = format!("/balance/{}", address(1));
        assert_eq!(self.get(&balance).await.0, 200);
    }

    async fn open(&self, path: &str) -> Answer {
        let request = Request::get(path)
            .header("host", "localhost:5005")
            .body(Full::<Bytes>::default())
            .unwrap();
        tokio::time::timeout(PATIENCE, self.router.handle(request, PEER))
            .await
            .expect("an answer in time")
    }
}

#[tokio::test]
async fn bodies_of_ten_thousand_connections_are_bounded_and_others_are_served() {
    const BODIES: usize = 10_000;
    let limit = 8 << 20;
    let daemon = bounded(limit).await;
    let requests: Vec<_> = (0..BODIES)
        .map(|_| {
            let router = daemon.router.clone();
            tokio::spawn(async move { router.handle(partial(false), PEER).await })
        })
        .collect();
    let fit = limit / COUNTED;
    while requests.iter().filter(|it| it.is_finished()).count() < BODIES - fit {
        tokio::task::yield_now().await;
    }
    assert_eq!(daemon.services.intake.budget.held(), fit * COUNTED);
    daemon.serves().await;
    let status = daemon.get("/status").await.1;
    assert_eq!(status["clients"]["rest_bytes"], fit * COUNTED);
    for request in requests {
        if !request.is_finished() {
            request.abort();
            continue;
        }
        let refused = request.await.unwrap();
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "1");
    }
    while daemon.services.intake.budget.held() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn where_no_token_is_needed_a_large_body_is_refused_and_holds_nothing() {
    let daemon = Daemon::start().await;
    let request = |method: &str, path: &str| {
        let mut request = partial(false);
        *request.method_mut() = method.parse().unwrap();
        *request.uri_mut() = path.parse().unwrap();
        request
    };
    let (router, patience) = (&daemon.router, PATIENCE);
    for (method, path) in [
        ("POST", "/session"),
        ("DELETE", "/session"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
    ] {
        let answer = tokio::time::timeout(patience, router.handle(request(method, path), PEER));
        assert_eq!(answer.await.expect(path).status(), 413, "{method} {path}");
    }
    let scrape = router.handle_metrics(request("GET", "/metrics"), PEER);
    let refused = tokio::time::timeout(patience, scrape)
        .await
        .expect("metrics");
    assert_eq!(refused.status(), 413);
    assert_eq!(daemon.services.intake.budget.held(), 0);
}

#[tokio::test]
async fn a_body_that_ends_in_the_middle_changes_nothing_and_holds_nothing() {
    let daemon = Daemon::start().await;
    let refused = daemon.router.handle(partial(true), PEER).await;
    assert_eq!(refused.status(), 400);
    drop(refused);
    // The client that is gone without a word.
    let mut request = Box::pin(daemon.router.handle(partial(false), PEER));
    assert!(futures_util::poll!(&mut request).is_pending());
    assert_eq!(daemon.services.intake.budget.held(), COUNTED);
    drop(request);
    assert_eq!(daemon.services.intake.budget.held(), 0);
    let counts = daemon.reader.snapshot().counts().unwrap();
    assert_eq!(counts.addresses, 0);
}

/// A daemon on a store in which an address has unspent outputs: each tenth in the mempool, each
/// tenth spent there.
async fn with_outputs(count: u32, config: config::Config) -> Daemon {
    let folder = StoreFolder::new();
    let chain = store::ChainInfo {
        network: Network::Regtest,
        genesis: BlockHash::all_zeros(),
    };
    let (mut writer, _) = store::open(folder.path(), Some(chain), NOW, &|| false).unwrap();
    let spk = address(1).script_pubkey();
    let script = ScriptHash::of(&spk);
    let outputs = (0..count).map(|n| output(script, n)).collect();
    let watch = Diff {
        old: None,
        new: Some(WatchRow {
            spk,
            listed: true,
            derivations: Vec::new(),
            label: String::new(),
            added: NOW,
            depths: vec![1],
            coverage: Coverage::default(),
            balance: crate::tracker::Balance::default(),
            utxo_count: u64::from(count - count / 10),
            outputs: u64::from(count),
            tx_count: 0,
            updated: NOW,
        }),
    };
    let transition = Transition {
        changes: ChangeSet {
            watches: [(script, watch)].into(),
            outputs,
            ..ChangeSet::default()
        },
        ..Transition::default()
    };
    writer.commit(&[transition], true).unwrap();
    drop(writer);
    let (daemon, dispatch) = Daemon::on(folder, config);
    tokio::spawn(dispatch.run(daemon.stop.clone()));
    daemon
}

fn output(script: ScriptHash, n: u32) -> (OutPoint, Diff<OutputRow>) {
    let mut txid = [0; 32];
    txid[..4].copy_from_slice(&n.wrapping_mul(2_654_435_761).to_be_bytes());
    let spender = Spend {
        txid: Txid::from_byte_array([9; 32]),
        height: None,
    };
    let row = OutputRow {
        script,
        value: u64::from(n),
        height: (n % 10 != 1).then_some(5),
        coinbase: false,
        spent: n.is_multiple_of(10).then_some(spender),
        earlier: Vec::new(),
    };
    let outpoint = OutPoint {
        txid: Txid::from_byte_array(txid),
        vout: n,
    };
    let new = Some(row);
    (outpoint, Diff { old: None, new })
}

/// Largest part, and the whole.
async fn read(answer: Answer) -> (usize, Value) {
    let (mut body, mut largest, mut text) = (answer.into_body(), 0, Vec::new());
    while let Some(frame) = body.frame().await {
        let part = frame.unwrap().into_data().unwrap();
        largest = largest.max(part.len());
        text.extend_from_slice(&part);
    }
    (largest, serde_json::from_slice(&text).unwrap())
}

#[tokio::test]
async fn a_hundred_thousand_outputs_are_written_in_small_parts_from_one_snapshot() {
    const COUNT: u32 = 100_000;
    let daemon = with_outputs(COUNT, config::Config::default()).await;
    let path = format!("/utxos/{}", address(1));
    let free = (0..u64::from(COUNT)).filter(|n| n % 10 != 0);
    let sums = (free.sum::<u64>(), (0..u64::from(COUNT)).sum::<u64>());
    // The second time with what is paid in the middle of the first.
    for (query, count, sum) in [
        ("", 90_000, sums.0),
        ("?include_spent=true", 100_001, sums.1 + 7),
    ] {
        let answer = daemon.open(&format!("{path}{query}")).await;
        let cursor = json!(answer.headers()["satwatch-cursor"].to_str().unwrap());
        assert_eq!(answer.body().size_hint().exact(), None);
        daemon
            .pay(&address(1), 7, 1 + u8::from(query.is_empty()))
            .await;
        let (largest, all) = read(answer).await;
        assert!(largest <= PART_BYTES, "a part of {largest} bytes");
        let listed = all["utxos"].as_array().unwrap();
        let total: u64 = listed.iter().map(|it| it["value"].as_u64().unwrap()).sum();
        assert_eq!((listed.len(), total), (count, sum));
        assert_eq!(
            [&all["count"], &all["total"], &all["next"], &all["cursor"]],
            [&json!(count), &json!(count), &Value::Null, &cursor]
        );
    }
    assert_eq!(daemon.services.intake.budget.held(), 0);
}

#[tokio::test]
async fn pages_of_outputs_join_to_what_is_listed_without_them() {
    let daemon = with_outputs(1500, config::Config::default()).await;
    let path = format!("/utxos/{}", address(1));
    for spent in ["false", "true"] {
        let all = daemon.get(&format!("{path}?include_spent={spent}")).await.1;
        let (mut listed, mut next) = (Vec::new(), String::new());
        loop {
            let query = format!("{path}?include_spent={spent}&limit=400{next}");
            let (status, page) = daemon.get(&query).await;
            assert_eq!((status, &page["total"]), (200, &all["total"]));
            let some = page["utxos"].as_array().unwrap();
            assert_eq!(page["count"], some.len());
            listed.extend(some.iter().cloned());
            match page["next"].as_str() {
                Some(after) => next = format!("&after={after}"),
                None => break,
            }
        }
        assert_eq!(all["utxos"], Value::Array(listed));
    }
    let first = daemon.get(&format!("{path}?limit=1")).await.1;
    let rest = format!("{path}?after={}", first["next"].as_str().unwrap());
    assert_eq!(daemon.get(&rest).await.1["count"], 1000);
    for bad in ["limit=0", "limit=5001", "after=x", "after=", "offset=3"] {
        let (status, error) = daemon.get(&format!("{path}?{bad}")).await;
        assert_eq!(status, 400, "{bad} {error}");
    }
}

#[tokio::test]
async fn a_thousand_answers_that_nobody_reads_are_bounded_and_others_are_served() {
    let mut config = config::Config::default();
    config.limits.rest_bytes = 16 << 20;
    let limit = config.limits.rest_bytes;
    let daemon = with_outputs(5000, config).await;
    let paths = [
        format!("/utxos/{}", address(1)),
        format!("/utxos/{}?limit=3000", address(1)),
    ];
    let (mut open, mut refused) = (Vec::new(), 0);
    // All at once: a refusal takes a second.
    let asked = (0..1000).map(|n| daemon.open(&paths[n % 2]));
    for mut answer in futures_util::future::join_all(asked).await {
        match answer.status().as_u16() {
            503 => {
                assert_eq!(answer.headers()["retry-after"], "1");
                refused += 1;
            }
            status => {
                assert_eq!(status, 200);
                // Its client takes the beginning.
                assert!(answer.body_mut().frame().await.unwrap().is_ok());
                open.push(answer);
            }
        }
        assert!(daemon.services.intake.budget.held() <= limit);
    }
    assert!(refused > 900 && open.len() > 10, "{refused} of 1000");
    daemon.serves().await;
    // What has room again is answered again, and what was begun ends as it should.
    let (first, second) = (open.swap_remove(0), open.swap_remove(1));
    drop(first);
    drop(open);
    assert_eq!(daemon.open(&paths[0]).await.status(), 200);
    assert!(second.into_body().collect().await.is_ok());
    assert_eq!(daemon.services.intake.budget.held(), 0);
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_ten_minutes_is_given_up() {
    let daemon = with_outputs(5000, config::Config::default()).await;
    let path = format!("/utxos/{}", address(1));
    let mut answer = daemon.open(&path).await;
    tokio::time::pause();
    for _ in 0..5 {
        assert!(answer.body_mut().frame().await.unwrap().is_ok());
        tokio::time::advance(Duration::from_secs(119)).await;
    }
    assert!(answer.body_mut().frame().await.unwrap().is_ok());
    tokio::time::advance(Duration::from_secs(6)).await;
    let given_up = answer.body_mut().frame().await.unwrap();
    assert_eq!(given_up.unwrap_err().code, "timeout");
    assert!(answer.body_mut().frame().await.is_none());
}

#[tokio::test]
async fn answers_over_socket_io_that_nobody_takes_hold_further_packets_back() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client().await;
    let addresses: Vec<_> = (0..200).map(|n| address(n).to_string()).collect();
    let is_full = |client: &Client| client.layer.is_full(&client.session);
    let mut sent = 0;
    while !is_full(&client) {
        sent += 1;
        assert!(sent < 10, "large answers count by their bytes");
        client
            .emit("subscribe_addresses", json!({"addresses": addresses}))
            .await;
    }
    while is_full(&client) {
        assert_eq!(client.event().await.0, "subscribed");
        sent -= 1;
    }
    for _ in 0..sent {
        assert_eq!(client.event().await.0, "subscribed");
    }
}
