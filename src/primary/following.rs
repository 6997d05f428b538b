//! What an edge hears of its primary, by one long poll of `GET /edge`.

use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::client::{PrimaryClient, Request};
use super::state::{EdgeState, Heard};
use crate::clock::now_ms;
use crate::remedy::Remedy;
use crate::wire::ApiError;

/// Seconds that one poll waits for news.
const WAIT: u64 = 25;
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks for tokens that have expired.
const LOOK: Duration = Duration::from_secs(1);
/// For one answer beside its waiting.
const ANSWER: Duration = Duration::from_secs(15);

/// So long what the primary said of its tokens holds without another word of it.
const TRUST: Duration = Duration::from_secs(600);

/// Why an edge cannot serve what this primary has.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Unfit {
    #[error(
        "the primary at {at} does not let this edge in ({}): {}",
        error.message.trim_end_matches('.'),
        Remedy::NameEdgeToken
    )]
    Token { at: String, error: Box<ApiError> },
    /// Also an edge.
    #[error(
        "what answers at {at} is no primary of this version: {}",
        Remedy::NameUpstream
    )]
    NoPrimary { at: String },
    #[error("the primary at {at} is away: {why}: {}", remedy_of(why))]
    Away { at: String, why: String },
    #[error("the primary at {at} refuses: {error}")]
    Refused { at: String, error: Box<ApiError> },
    #[error("the primary has version {theirs}, and this edge {}: {}", env!("CARGO_PKG_VERSION"), Remedy::SameVersion)]
    Version { theirs: String },
    #[error(
        "the primary is on {theirs}, and this edge serves {ours}: {}",
        Remedy::RestartEdge
    )]
    Network { theirs: String, ours: String },
    /// All is to be begun anew.
    #[error("the primary has another log")]
    OtherLog,
    /// Likewise.
    #[error(
        "the primary at {at} has not been heard of for {} minutes, and what it has revoked since would go on here",
        TRUST.as_secs() / 60
    )]
    Silent { at: String },
    #[error(
        "others reach this edge, and its primary asks nobody for a token: {}",
        Remedy::TokenAtPrimary
    )]
    Open,
}

fn remedy_of(why: &str) -> Remedy {
    match why.contains("certificate") {
        true => Remedy::TrustPrimary,
        false => Remedy::StartPrimary,
    }
}

/// Follows the primary.
pub struct Following {
    client: PrimaryClient,
    admission: Admission,
    told: watch::Sender<Heard>,
    /// Others reach the edge.
    is_exposed: bool,
}

/// Asks until the primary has said what it is.
pub async fn first(client: &PrimaryClient) -> Result<EdgeState, Unfit> {
    let mut is_told = false;
    loop {
        match ask_once(client).await {
            Err(unfit @ Unfit::Away { .. }) => {
                if !is_told {
                    tracing::warn!("waiting for the primary: {unfit}");
                    is_told = true;
                }
                sleep(PAUSE).await;
            }
            answered => return answered,
        }
    }
}

/// What the primary is, or why this edge is nothing for it.
pub async fn ask_once(client: &PrimaryClient) -> Result<EdgeState, Unfit> {
    ask(client, None).await
}

/// `after`: waits a while for another revision.
async fn ask(client: &PrimaryClient, after: Option<&str>) -> Result<EdgeState, Unfit> {
    let at = || client.url().to_owned();
    let (path, wait) = match after {
        Some(revision) => (format!("/edge?after={revision}&wait={WAIT}"), WAIT),
        None => ("/edge".to_owned(), 0),
    };
    let asked = async {
        let answer = client.send_own(Request::get(path)).await?;
        answer.read().await
    };
    let error: ApiError = match timeout(ANSWER + Duration::from_secs(wait), asked).await {
        Ok(Ok(state)) => return Ok(state),
        Ok(Err(error)) => error,
        Err(_) => client.note_away("it has not answered in time"),
    };
    let (at, status, error) = (at(), error.status, Box::new(error));
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Unfit::Token { at, error },
        StatusCode::NOT_FOUND => Unfit::NoPrimary { at },
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            let why = client.away().unwrap_or_else(|| error.to_string());
            Unfit::Away { at, why }
        }
        _ => Unfit::Refused { at, error },
    })
}

impl EdgeState {
    /// Whether this edge can serve what it has.
    pub fn check(&self, is_exposed: bool) -> Result<(), Unfit> {
        if is_exposed && !self.authentication {
            return Err(Unfit::Open);
        }
        if minor(&self.version) != minor(env!("CARGO_PKG_VERSION")) {
            let theirs = self.version.clone();
            return Err(Unfit::Version { theirs });
        }
        Ok(())
    }

    /// The same while it runs: when the primary was updated, clients are better served than sent
    /// away.
    pub fn check_again(&self, is_exposed: bool) -> Result<(), Unfit> {
        match self.check(is_exposed) {
            Err(unfit @ Unfit::Version { .. }) => {
                tracing::warn!("{unfit}");
                Ok(())
            }
            checked => checked,
        }
    }
}

/// What of a version has to be the same.
fn minor(version: &str) -> Vec<&str> {
    version.split('.').take(2).collect()
}

impl Following {
    pub fn new(
        client: PrimaryClient,
        admission: Admission,
        first: EdgeState,
        is_exposed: bool,
    ) -> (Self, watch::Receiver<Heard>) {
        let (told, seen) = watch::channel(Heard::now(first));
        let following = Self {
            client,
            admission,
            told,
            is_exposed,
        };
        (following, seen)
    }

    /// For who hears of a block before it is told of here.
    pub fn tips(&self) -> watch::Sender<Heard> {
        self.told.clone()
    }

    /// Until `stop`, or until the primary is one that this edge may not serve.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Unfit> {
        let expiring = async {
            loop {
                sleep(LOOK).await;
                self.admission.end_expired(now_ms());
            }
        };
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            () = expiring => Ok(()),
            unfit = self.follow() => Err(unfit),
        }
    }

    async fn follow(&self) -> Unfit {
        let (mut is_shut_out, mut heard) = (false, Instant::now());
        let mut is_away = false;
        loop {
            let revision = self.told.borrow().revision.clone();
            is_away |= self.client.away().is_some();
            // A primary that was away says at once that it is back.
            let after = (!is_away).then_some(&*revision);
            let answered = tokio::select! {
                answered = ask(&self.client, after) => answered,
                // A request of a client has found it away.
                () = self.client.goes_away(), if !is_away => continue,
            };
            match answered {
                Ok(primary) => {
                    if let Some(unfit) = self.take(primary).await {
                        return unfit;
                    }
                    (is_shut_out, heard) = (false, Instant::now());
                    if std::mem::take(&mut is_away) {
                        sleep(PAUSE).await;
                    }
                }
                // So a poll ends, too, over which the primary has begun or ceased to want tokens.
                Err(Unfit::Token { .. }) if !is_shut_out => is_shut_out = true,
                Err(Unfit::Away { at, .. })
                    if self.admission.is_on() && heard.elapsed() > TRUST =>
                {
                    return Unfit::Silent { at };
                }
                // Nobody knows whether it is for long: who was let in goes on.
                Err(Unfit::Away { .. }) => {
                    is_away = true;
                    sleep(PAUSE).await;
                }
                // What it takes away would not be heard of here any more.
                Err(unfit) => return unfit,
            }
        }
    }

    async fn take(&self, primary: EdgeState) -> Option<Unfit> {
        let ours = self.told.borrow().network.clone();
        if primary.network != ours {
            let theirs = primary.network;
            return Some(Unfit::Network { theirs, ours });
        }
        if primary.log_id() != self.told.borrow().log_id() {
            return Some(Unfit::OtherLog);
        }
        if let Err(unfit) = primary.check_again(self.is_exposed) {
            return Some(unfit);
        }
        let is_news = self.told.borrow().revision != primary.revision;
        if is_news {
            self.admission.put_in_force(&primary).await;
        }
        self.told.send_replace(Heard::now(primary));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Edge;

    fn of_nobody(authentication: bool) -> Following {
        let client = PrimaryClient::new(&Edge::default(), "http://127.0.0.1:1").expect("a URL");
        let state = EdgeState {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: "regtest".to_owned(),
            authentication,
            revision: "1".to_owned(),
            tokens: Vec::new(),
            cookie: "session".to_owned(),
            tip: None,
            cursor: "a-1".to_owned(),
            first: "a-0".to_owned(),
            starts: vec![("a".to_owned(), 1, 0)],
        };
        let admission = Admission::new(client.clone(), &state);
        Following::new(client, admission, state, false).0
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_primary_said_of_its_tokens_holds_for_ten_minutes_without_it() {
        let began = Instant::now();
        let end = of_nobody(true).run(CancellationToken::new()).await;
        assert!(matches!(end, Err(Unfit::Silent { .. })), "{end:?}");
        assert!(began.elapsed() > TRUST && began.elapsed() < 2 * TRUST);
        // Where nobody is asked for a token none is revoked.
        let open = of_nobody(false).run(CancellationToken::new());
        assert!(timeout(2 * TRUST, open).await.is_err());
    }
}
