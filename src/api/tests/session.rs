//! Sessions of the page on the wire: which requests a cookie speaks for, and what begins and ends
//! one. The page itself is tested in a browser (`tests/daemon/login.rs`).

use std::sync::LazyLock;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{COOKIE, HOST, ORIGIN, SET_COOKIE};
use hyper::{HeaderMap, Request};
use serde_json::{Value, json};

use super::limits::Captured;
use super::{Daemon, NOW, PEER};
use crate::auth::{InForce, Scope, TokenText, TokensFile};
use crate::clock::now_ms;
use crate::config;
use crate::server::Peer;
use crate::store::SessionRow;

const OWN: (&str, &str) = ("origin", "http://localhost:5005");
/// By port and store.
static COOKIE_NAME: LazyLock<String> = LazyLock::new(|| format!("satwatch_5005_{NOW:x}"));

struct Page {
    daemon: Daemon,
    file: TokensFile,
}

/// What the page has after it has logged in.
#[derive(Clone)]
struct Session {
    cookie: String,
    key: String,
}

impl Page {
    async fn start() -> Self {
        Self {
            daemon: Daemon::start().await,
            file: TokensFile::default(),
        }
    }

    fn token(&mut self, name: &str, scope: Scope) -> String {
        let text = TokenText::random();
        let added = self.file.add(name, scope, &text, None, now_ms());
        added.expect("a new name");
        self.put_in_force();
        text.reveal().to_owned()
    }

    fn put_in_force(&self) {
        let tokens = InForce::Tokens(self.file.tokens.clone());
        self.daemon.services.auth.put_in_force(tokens);
    }

    async fn ask(
        &self,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &Value,
    ) -> (u16, HeaderMap, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| HOST == *name) {
            request = request.header(HOST, "localhost:5005");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body: Full<Bytes> = match body {
            Value::Null => Full::default(),
            body => Full::from(body.to_string()),
        };
        let (status, headers, text) = self.daemon.request(request.body(body).unwrap()).await;
        let json = serde_json::from_str(&text).unwrap_or_default();
        (status.as_u16(), headers, json)
    }

    async fn log_in(&self, token: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, Value) {
        let body = json!({"token": token});
        self.ask(("POST", "/session"), headers, &body).await
    }

    async fn session(&self, token: &str) -> Session {
        let (status, headers, answer) = self.log_in(token, &[OWN]).await;
        assert_eq!(status, 200, "{answer}");
        let cookie = headers[SET_COOKIE].to_str().unwrap();
        Session {
            cookie: cookie.split(';').next().unwrap().to_owned(),
            key: answer["page_key"].as_str().unwrap().to_owned(),
        }
    }

    /// The status of what the page asks.
    async fn with(&self, session: &Session, what: (&str, &str), headers: &[(&str, &str)]) -> u16 {
        let halves = [
            ("cookie", &*session.cookie),
            ("satwatch-page", &session.key),
        ];
        let (status, _, _) = self
            .ask(what, &[&halves, headers].concat(), &Value::Null)
            .await;
        status
    }

    fn rows(&self) -> Vec<SessionRow> {
        let remembered = self.daemon.reader.remembered_auth().unwrap();
        remembered
            .sessions
            .into_iter()
            .map(|(_, row)| row)
            .collect()
    }
}

const STATUS: (&str, &str) = ("GET", "/status");

#[tokio::test]
async fn who_logs_in_gets_a_session_that_is_not_the_token() {
    let mut page = Page::start().await;
    let token = page.token("browser", Scope::Watch);
    let (status, headers, answer) = page.log_in(&token, &[OWN]).await;
    assert_eq!(status, 200, "{answer}");
    let key = answer["page_key"].as_str().unwrap().to_owned();
    assert_eq!(
        answer,
        json!({"name": "browser", "scope": "watch", "expires": null, "page_key": key})
    );
    assert_eq!(headers["cache-control"], "no-store");
    let cookie = headers[SET_COOKIE].to_str().unwrap();
    let (pair, rest) = cookie.split_once("; ").unwrap();
    assert_eq!(rest, "HttpOnly; SameSite=Strict; Path=/; Max-Age=2592000");
    let (name, id) = pair.split_once('=').unwrap();
    assert_eq!(name, COOKIE_NAME.as_str());
    assert!(id.len() == 64 && key.len() == 64 && id != key);
    assert!(!cookie.contains(&token) && !answer.to_string().contains(&token));
    // The store has neither half.
    let rows = format!("{:?}", page.daemon.reader.remembered_auth().unwrap());
    assert!(page.rows().len() == 1 && !rows.contains(id) && !rows.contains(&key));
}

/// Every `Origin` with every `Sec-Fetch-Site`, and of those that pass every cookie with every key.
#[tokio::test]
async fn both_halves_together_speak_unless_the_request_says_that_another_page_asks() {
    let mut config = config::Config::default();
    config.server.allowed_origins = ["https://shop.example", "null"].map(str::to_owned).into();
    let mut page = Page {
        daemon: Daemon::with(config).await,
        file: TokensFile::default(),
    };
    let token = page.token("browser", Scope::Watch);
    let (session, other) = (page.session(&token).await, page.session(&token).await);
    let id = |session: &Session| session.cookie.split_once('=').unwrap().1.to_owned();
    let both = format!("{}=x; {}; {}", *COOKIE_NAME, other.cookie, session.cookie);
    let cookies = [
        ("", false),
        ("a=b", false),
        (&*session.cookie, true),
        (&other.cookie, false),
        (&both, true),
    ];
    let other_id = id(&session);
    let keys = [
        ("", false),
        (&*session.key, true),
        (&other.key, false),
        (&other_id, false),
    ];
    #[derive(PartialEq, Clone, Copy)]
    enum Is {
        Refused,
        Foreign,
        Heard,
    }
    use Is::{Foreign, Heard, Refused};
    // Said, and no site; same-origin; none; same-site; cross-site.
    let sites = ["", "same-origin", "none", "same-site", "cross-site"];
    for (origin, kinds) in [
        ("", [Heard, Heard, Heard, Refused, Refused]),
        (OWN.1, [Heard, Heard, Heard, Foreign, Foreign]),
        ("https://shop.example", [Heard; 5]),
        ("null", [Foreign; 5]),
        ("http://localhost:3000", [Foreign; 5]),
        ("http://127.0.0.1:5005", [Foreign; 5]),
        ("http://app.localhost:5005", [Foreign; 5]),
        ("http://evil.example", [Refused; 5]),
    ] {
        for (site, kind) in sites.into_iter().zip(kinds) {
            let said = [("origin", origin), ("sec-fetch-site", site)];
            let said = said.into_iter().filter(|(_, value)| !value.is_empty());
            let said: Vec<_> = said.collect();
            let log_in = page.log_in(&token, &said).await.0;
            assert_eq!(log_in, if kind == Heard { 200 } else { 403 }, "{said:?}");
            for ((cookie, fits), (key, is_key)) in cookies
                .into_iter()
                .flat_map(|cookie| keys.map(|key| (cookie, key)))
            {
                let halves = [("cookie", cookie), ("satwatch-page", key)];
                let halves = halves.into_iter().filter(|(_, value)| !value.is_empty());
                let headers: Vec<_> = said.iter().copied().chain(halves).collect();
                // Only the key of the other session fits its cookie, too.
                let speaks =
                    (fits && is_key) || (cookie.contains(&other.cookie) && key == other.key);
                let status = match kind {
                    Refused => 403,
                    Heard if speaks => 200,
                    Heard | Foreign => 401,
                };
                let answer = page.ask(STATUS, &headers, &Value::Null).await;
                assert_eq!(answer.0, status, "{headers:?}: {}", answer.2);
            }
        }
    }
    // It may what its token may.
    assert_eq!(page.with(&session, ("POST", "/stop"), &[OWN]).await, 403);
    assert_eq!(page.with(&session, ("GET", "/token"), &[OWN]).await, 200);
}

#[tokio::test]
async fn nobody_logs_in_with_a_wrong_token_or_from_another_page() {
    let mut page = Page::start().await;
    let open = page.log_in("whatever", &[OWN]).await;
    assert_eq!(
        (open.0, &open.2["code"]),
        (409, &json!("authentication_off"))
    );
    let token = page.token("browser", Scope::Watch);
    let metrics = page.token("prometheus", Scope::Metrics);
    let none = TokenText::random();
    for (token, headers, status, code) in [
        (none.reveal(), &[OWN][..], 401, "unauthorized"),
        ("", &[OWN], 401, "unauthorized"),
        (&token[1..], &[OWN], 401, "unauthorized"),
        (&metrics, &[OWN], 403, "forbidden"),
        (
            &token,
            &[("origin", "http://localhost:3000")],
            403,
            "origin_not_allowed",
        ),
        (
            &token,
            &[("origin", "http://evil.example")],
            403,
            "origin_not_allowed",
        ),
    ] {
        let (found, headers, answer) = page.log_in(token, headers).await;
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{answer}");
        assert!(!headers.contains_key(SET_COOKIE), "{answer}");
    }
    assert_eq!(page.rows(), []);
    // A program may; what it gets is of use to a page only.
    assert_eq!(page.log_in(&token, &[]).await.0, 200);
}

#[tokio::test]
async fn a_session_ends_by_logging_out_and_with_its_token_and_others_go_on() {
    let mut page = Page::start().await;
    let (token, other) = (page.token("a", Scope::Read), page.token("b", Scope::Read));
    let (one, two) = (page.session(&token).await, page.session(&token).await);
    let three = page.session(&other).await;
    let out = ("DELETE", "/session");
    // Half a session ends nothing.
    let half = [("cookie", &*one.cookie), OWN];
    let (status, headers, _) = page.ask(out, &half, &Value::Null).await;
    assert!(status == 200 && !headers.contains_key(SET_COOKIE));
    assert_eq!(
        page.with(&one, out, &[("origin", "http://localhost:1")])
            .await,
        200
    );
    assert_eq!(
        (page.with(&one, STATUS, &[OWN]).await, page.rows().len()),
        (200, 3)
    );

    let halves = [("cookie", &*one.cookie), ("satwatch-page", &one.key), OWN];
    let (status, headers, _) = page.ask(out, &halves, &Value::Null).await;
    let taken = headers[SET_COOKIE].to_str().unwrap();
    assert!(status == 200 && taken.contains("=; ") && taken.ends_with("; Max-Age=0"));
    assert_eq!(page.with(&one, STATUS, &[OWN]).await, 401);
    assert_eq!(
        (page.with(&two, STATUS, &[OWN]).await, page.rows().len()),
        (200, 2)
    );

    page.file.tokens.remove(0);
    page.put_in_force();
    assert_eq!(page.with(&two, STATUS, &[OWN]).await, 401);
    assert_eq!(page.with(&three, STATUS, &[OWN]).await, 200);
}

#[tokio::test]
async fn over_tls_the_cookie_is_for_tls_alone() {
    let mut page = Page::start().await;
    let token = page.token("browser", Scope::Read);
    let origin = "https://localhost:5005";
    let request = Request::post("/session")
        .header(HOST, "localhost:5005")
        .header(ORIGIN, origin)
        .body(Full::<Bytes>::from(json!({"token": token}).to_string()))
        .unwrap();
    let peer = Peer {
        over_tls: true,
        ..PEER
    };
    let answer = page.daemon.router.handle(request, peer).await;
    let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
    assert!(cookie.ends_with("; Secure"), "{cookie}");
    // And so behind a proxy that speaks TLS.
    let (_, headers, _) = page.log_in(&token, &[("origin", origin)]).await;
    assert!(headers[SET_COOKIE].to_str().unwrap().ends_with("; Secure"));
    assert!(headers.get(COOKIE).is_none());
}

#[tokio::test]
async fn who_has_no_session_makes_the_daemon_write_nothing_and_may_not_ask_for_ever() {
    let mut config = config::Config::default();
    config.limits.requests_per_second = 1;
    let page = Page {
        daemon: Daemon::with(config).await,
        file: TokensFile::default(),
    };
    let nobody = Session {
        cookie: format!("{}=a", *COOKIE_NAME),
        key: "b".to_owned(),
    };
    let steps = || {
        let times = page.daemon.indexer.step_times();
        times.with_label_values(&["other"]).get_sample_count()
    };
    let (before, mut answered) = (steps(), 0);
    loop {
        match page.with(&nobody, ("DELETE", "/session"), &[OWN]).await {
            200 => answered += 1,
            429 => break,
            other => panic!("answered {other}"),
        }
        assert!(answered < 1000, "never refused");
    }
    // A step may be counted a moment after it was answered: one from before these requests.
    assert!(answered >= 10 && steps() - before <= 1, "{answered}");
}

#[tokio::test]
async fn logging_in_is_costly_for_the_token_and_wrong_ones_keep_nobody_out() {
    let mut config = config::Config::default();
    config.limits.costly_per_minute = 1;
    let mut page = Page {
        daemon: Daemon::with(config).await,
        file: TokensFile::default(),
    };
    let token = page.token("browser", Scope::Read);
    let wrong = TokenText::random();
    for status in [401, 429, 429] {
        assert_eq!(page.log_in(wrong.reveal(), &[OWN]).await.0, status);
    }
    // What a good one costs is its own.
    for status in [200, 429] {
        assert_eq!(page.log_in(&token, &[OWN]).await.0, status);
    }
    let other = page.token("other", Scope::Read);
    assert_eq!(page.log_in(&other, &[OWN]).await.0, 200);
    assert_eq!(page.rows().len(), 2, "who is refused has no session");
}

#[tokio::test]
async fn who_logs_in_and_out_is_in_the_log_and_what_ends_nothing_is_not() {
    let mut page = Page::start().await;
    let token = page.token("browser", Scope::Read);
    let (log, _guard) = Captured::begin();
    let session = page.session(&token).await;
    for _ in 0..2 {
        let status = page.with(&session, ("DELETE", "/session"), &[OWN]).await;
        assert_eq!(status, 200);
    }
    let line = |what: &str| ["changed", "browser", "127.0.0.1", what, "", "ok"].map(str::to_owned);
    assert_eq!(
        log.lines(),
        [line("POST /session"), line("DELETE /session")]
    );
}
