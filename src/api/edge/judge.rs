//! What is meant by the cursor of a request, and by those whom it names.
//!
//! A cursor of this log up to the stream's end is known to be good; what is gone behind it shows
//! when it is read. Every other one, and whoever is named, is asked about at the primary, by
//! reading one event there: its refusals, with their balances, are the client's.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::backend::unavailable;
use super::services::EdgeServices;
use crate::api::rest::events::{Judge, Named};
use crate::auth::KeptCredential;
use crate::primary::{EdgeState, Request};
use crate::wire::ApiError;
use crate::wire::cursor::{self, BadCursor};

/// Of one request.
pub struct EdgeJudge {
    pub edge: Arc<EdgeServices>,
    pub shown: Option<Arc<KeptCredential>>,
    pub client: std::net::IpAddr,
    /// As the request names them.
    pub addresses: Vec<String>,
    pub descriptors: Vec<String>,
}

/// Of a page of the log there is only looked whether it comes.
#[derive(Deserialize)]
struct Page {
    #[serde(rename = "next")]
    _next: IgnoredAny,
}

impl Judge for EdgeJudge {
    fn begin(
        &self,
        addresses: Vec<String>,
        descriptors: Vec<String>,
        after: Option<String>,
    ) -> BoxFuture<'_, Result<(Named, u64), ApiError>> {
        let begin = async move {
            let named = Named::parse(&addresses, descriptors, self.edge.network)?;
            let number = match &after {
                Some(text) => self.number(text).await?,
                None => self.first().await?,
            };
            if named.names_some() {
                // From the end on: what is behind a place in the past would be looked for.
                let end = self.edge.backend.head();
                match self.ask_ours(&end).await {
                    // It goes on without: of what is not watched nothing comes.
                    Err(_) if self.edge.backend.client.away().is_some() => {}
                    asked => asked?,
                }
            }
            Ok((named, number))
        };
        begin.boxed()
    }

    fn expired(&self, _named: Named, number: u64) -> BoxFuture<'_, ApiError> {
        let cursor = self.edge.events.log.encoder.cursor(number);
        let ask = async move {
            let kept = || ApiError::internal(&"events that are kept were not found");
            self.ask_ours(&cursor).await.err().unwrap_or_else(kept)
        };
        ask.boxed()
    }
}

impl EdgeJudge {
    async fn number(&self, text: &str) -> Result<u64, ApiError> {
        let log = &self.edge.events.log;
        match cursor::read(&log.encoder.starts(), text) {
            Ok(number) if number <= log.head() => Ok(number),
            Err(BadCursor::Malformed) => Err(ApiError::invalid_cursor()),
            // Of a start that the stream has not told of yet, or of no log that there is.
            Ok(_) | Err(BadCursor::Unknown) => {
                self.ask(Some(text)).await?;
                self.edge.backend.place(text).await
            }
        }
    }

    /// The number before the first event that is kept.
    async fn first(&self) -> Result<u64, ApiError> {
        let asked = self.shown(Request::get("/edge"));
        let state: EdgeState = self.edge.backend.client.ask(asked).await?;
        self.edge.backend.place(&state.first).await
    }

    /// As the client asks.
    fn shown(&self, request: Request) -> Request {
        let request = request.on_behalf_of(self.client);
        match &self.shown {
            Some(shown) => request.shown_by(shown, &self.edge.backend.primary.borrow().cookie),
            None => request,
        }
    }

    /// Reads behind a place of the edge's log. Where the primary does not know that, the edge is
    /// about to begin anew, and the client's own cursor may be good all the same.
    async fn ask_ours(&self, cursor: &str) -> Result<(), ApiError> {
        let asked = self.ask(Some(cursor)).await;
        asked.map_err(|error| match error.code {
            "cursor_unknown" => unavailable(),
            _ => error,
        })
    }

    fn query(&self, after: Option<&str>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", "1");
        let named = [
            ("address", &self.addresses),
            ("descriptor", &self.descriptors),
        ];
        for (name, texts) in named {
            query.extend_pairs(texts.iter().map(|text| (name, text)));
        }
        query.extend_pairs(after.map(|after| ("after", after)));
        query.finish()
    }

    /// Reads one event at the primary.
    async fn ask(&self, after: Option<&str>) -> Result<(), ApiError> {
        let request = Request::get(format!("/events?{}", self.query(after)));
        let asked = self.edge.backend.client.ask(self.shown(request));
        let Page { .. } = asked.await?;
        Ok(())
    }
}
