//! What the events of clients are answered with: by the primary.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::api::access::{Access, Caller, Cost};
use crate::api::socket::{
    Admitted, Backend, BegunSubscription, Connected, OwnConsumers, Subscription,
};
use crate::auth::{Credential, KeptCredential, Principal};
use crate::bus::stream::PlacesTold;
use crate::events::EventLog;
use crate::primary::{Admission, Heard, PrimaryClient, Request};
use crate::wire::ApiError;

/// A primary that was killed writes again when its lease has lapsed, after ten seconds.
const PATIENCE: Duration = Duration::from_secs(12);

pub struct EdgeBackend {
    pub client: PrimaryClient,
    pub admission: Admission,
    pub primary: watch::Receiver<Heard>,
    pub log: Arc<EventLog>,
    pub access: Arc<Access>,
    pub places: PlacesTold,
}

impl EdgeBackend {
    /// The cursor of the last event of the stream.
    pub fn head(&self) -> String {
        self.log.encoder.cursor(self.log.head())
    }

    /// The number of a place that the primary names, once it is known to be one of the log that is
    /// served here: the stream tells of a new start when its writer has come.
    pub async fn place(&self, text: &str) -> Result<u64, ApiError> {
        let told = timeout(PATIENCE, self.places.tell(text)).await;
        told.ok().flatten().ok_or_else(unavailable)
    }
}

impl Backend for EdgeBackend {
    fn asks_who(&self) -> bool {
        self.admission.is_on()
    }

    fn admit<'a>(
        &'a self,
        credential: Credential<'a>,
        at: &'a Caller,
    ) -> BoxFuture<'a, Result<(Principal, Option<Arc<KeptCredential>>), ApiError>> {
        // That of a page is counted when it is wrong, as elsewhere.
        let is_token = matches!(credential, Credential::Token(_));
        let may_ask = move || match is_token {
            true => self.access.take(at, Cost::Costly),
            false => Ok(()),
        };
        let admitted = self.admission.admit(credential, at.address(), may_ask);
        admitted.boxed()
    }

    fn connected(&self) -> Result<Connected, ApiError> {
        let encoder = &self.log.encoder;
        let (tip, cursor) = (
            self.primary.borrow().tip.clone(),
            encoder.cursor(self.log.head()),
        );
        Ok(Connected::new(encoder.network, tip, cursor))
    }

    fn begin<'a>(
        &'a self,
        client: &'a Admitted,
        wanted: Arc<Subscription>,
    ) -> BoxFuture<'a, Result<BegunSubscription, ApiError>> {
        let begin = async move {
            let said = wanted.said().to_string();
            let mut request = Request::post("/edge/subscription", said);
            if let Some(shown) = &client.credential {
                request = request.shown_by(shown, &self.primary.borrow().cookie);
            }
            let request = request.on_behalf_of(client.caller.address());
            let begun: BegunSubscription = self.client.ask(request).await?;
            // Numbers of another log are those of other events.
            self.place(&begun.cursor).await?;
            Ok(begun)
        };
        begin.boxed()
    }

    fn consumers(&self) -> Result<&OwnConsumers, ApiError> {
        Err(at_primary())
    }
}

/// The stream has not what the primary names.
pub fn unavailable() -> ApiError {
    let message =
        "The stream of this edge has not come to where its primary is; try again in a moment.";
    ApiError::unavailable("primary_unavailable", message)
}

/// What an edge has not.
pub fn at_primary() -> ApiError {
    let message = "This is an edge: consumers are read at its primary. Ask that one, or follow addresses here.";
    ApiError::bad_request("at_primary", message)
}
