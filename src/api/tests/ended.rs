//! What clients have that do nothing while their token ends: over the whole service, by polling.

use serde_json::json;

use super::auth::Guarded;
use super::*;
use crate::auth::Scope;

/// A polling client of the service.
struct Polling<'a> {
    daemon: &'a Daemon,
    sid: String,
}

impl<'a> Polling<'a> {
    async fn join(daemon: &'a Daemon, token: &str) -> Self {
        let mut client = Self {
            daemon,
            sid: String::new(),
        };
        let open = client.ask("GET", "").await;
        let open: Value = serde_json::from_str(&open[1..]).unwrap();
        client.sid = format!("&sid={}", open["sid"].as_str().unwrap());
        client
            .tell(&format!("40{}", json!({"token": token})), "[\"connected\"")
            .await;
        client
    }

    async fn ask(&self, method: &str, body: &str) -> String {
        let uri = format!("/socket.io/?EIO=4&transport=polling{}", self.sid);
        let request = Request::builder().method(method).uri(uri);
        let request = request.header("host", "localhost:5005");
        let body = Full::from(body.to_owned());
        let (status, _, answer) = self.daemon.request(request.body(body).unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// Says this, and polls until the answer has come. No GET is under way afterwards.
    async fn tell(&self, packet: &str, answer: &str) {
        self.ask("POST", packet).await;
        while !self.ask("GET", "").await.contains(answer) {}
    }
}

#[tokio::test]
async fn clients_that_do_not_poll_give_back_what_they_have_when_their_token_ends() {
    let guarded = Guarded::start().await;
    let daemon = &guarded.daemon;
    let token = guarded.text(Scope::Watch);
    let (reads, subscribes) = (
        Polling::join(daemon, token).await,
        Polling::join(daemon, token).await,
    );
    let packet = json!(["subscribe_consumer", {"consumer": "shop"}]);
    reads
        .tell(&format!("42{packet}"), "[\"subscribed_consumer\"")
        .await;
    let packet = json!(["subscribe_address", {"address": address(1).to_string()}]);
    subscribes
        .tell(&format!("42{packet}"), "[\"subscribed\"")
        .await;
    let held = || {
        let shop = daemon.services.consumers.get("shop").unwrap();
        let used = daemon.services.overview.subscriptions.limit().used;
        (shop.readers(), used)
    };
    assert_eq!(held(), (1, 1));
    guarded.put_in_force(&[]);
    let given_back = async {
        while held() != (0, 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, given_back)
        .await
        .expect("all of it comes back");
}
