//! Pages of the log that the stream has not, or not any more.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Duration, timeout};

use super::client::{PrimaryClient, Request};
use crate::bus::stream::{Older, OlderError, OlderEvent, OlderPage};
use crate::wire::ApiError;

/// For one page.
const PATIENCE: Duration = Duration::from_secs(30);

/// `GET /events`
#[derive(Deserialize)]
struct Page {
    events: Vec<Logged>,
    next: String,
}

#[derive(Deserialize)]
struct Logged {
    cursor: String,
    event: String,
    data: Box<RawValue>,
}

impl Older for PrimaryClient {
    fn page(&self, after: String) -> BoxFuture<'_, Result<OlderPage, OlderError>> {
        let read = async move {
            // A cursor needs no escapes.
            let path = format!("/events?address=all&descriptor=all&limit=1000&after={after}");
            let asked = async {
                let answer = self.send_own(Request::get(path)).await?;
                answer.read::<Page>().await
            };
            let Page { events, next } = match timeout(PATIENCE, asked).await {
                Ok(answered) => answered.map_err(older_error)?,
                Err(_) => {
                    return Err(OlderError::Away(
                        "the primary has not answered in time".to_owned(),
                    ));
                }
            };
            let events = events.into_iter().map(|it| OlderEvent {
                cursor: it.cursor,
                event: it.event,
                data: it.data.get().to_owned(),
            });
            let events = events.collect();
            Ok(OlderPage { events, next })
        };
        read.boxed()
    }
}

fn older_error(error: ApiError) -> OlderError {
    match error.code {
        "cursor_expired" => OlderError::Expired,
        "cursor_unknown" => OlderError::Unknown,
        _ if error.status.is_server_error() || error.status.as_u16() == 429 => {
            OlderError::Away(format!("the primary is away: {error}"))
        }
        _ => OlderError::Refused(format!("the primary refuses: {error}")),
    }
}
