//! What the events of clients are answered with: by the primary.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::api::access::{Access, Caller, Cost};
use crate::api::socket::{Admitted, Backend, Begun, Connected, OwnConsumers, Subscription};
use crate::auth::{Credential, KeptCredential, Principal};
use crate::events::EventLog;
use crate::primary::{Admission, EdgeState, PrimaryClient, Request};
use crate::wire::ApiError;

pub struct EdgeBackend {
    pub client: PrimaryClient,
    pub admission: Admission,
    pub primary: watch::Receiver<EdgeState>,
    pub log: Arc<EventLog>,
    pub access: Arc<Access>,
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
        let may_ask = || self.access.take(at, Cost::Costly);
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
    ) -> BoxFuture<'a, Result<Begun, ApiError>> {
        let begin = async move {
            let said = wanted.said().to_string();
            let mut request = Request::post("/edge/subscription", said);
            if let Some(shown) = &client.credential {
                request = request.shown_by(shown, &self.primary.borrow().cookie);
            }
            let request = request.on_behalf_of(client.caller.address());
            self.client.ask(request).await
        };
        begin.boxed()
    }

    fn consumers(&self) -> Result<&OwnConsumers, ApiError> {
        Err(at_primary())
    }
}

/// What an edge has not.
pub fn at_primary() -> ApiError {
    let message = "This is an edge: consumers are read at its primary. Ask that one, or follow addresses here.";
    ApiError::bad_request("at_primary", message)
}
