//! Consumers over REST.

use std::sync::Arc;

use crate::api::App;
use crate::api::error::ApiError;
use crate::api::fields::{Fields, Query};
use crate::api::respond::Answer;

impl App {
    /// `GET /consumers`
    pub(in crate::api) async fn list_consumers(self: &Arc<Self>) -> Result<Answer, ApiError> {
        Err(ApiError::no_such_route("/consumers"))
    }

    /// `PUT /consumers/{name}`
    pub(in crate::api) async fn put_consumer(self: &Arc<Self>, _name: &str, _fields: &Fields) -> Result<Answer, ApiError> {
        Err(ApiError::no_such_route("/consumers"))
    }

    /// `DELETE /consumers/{name}`
    pub(in crate::api) async fn delete_consumer(self: &Arc<Self>, _name: &str) -> Result<Answer, ApiError> {
        Err(ApiError::no_such_route("/consumers"))
    }

    /// `GET /consumers/{name}`
    pub(in crate::api) async fn consumer(self: &Arc<Self>, _name: &str) -> Result<Answer, ApiError> {
        Err(ApiError::no_such_route("/consumers"))
    }

    /// `POST /consumers/{name}/ack`
    pub(in crate::api) async fn ack(self: &Arc<Self>, _name: &str, _fields: &Fields) -> Result<Answer, ApiError> {
        Err(ApiError::no_such_route("/consumers"))
    }

    /// `GET /events?consumer=`
    pub(in crate::api) async fn consumer_events(self: &Arc<Self>, _name: &str, _query: &Query) -> Result<Answer, ApiError> {
        Err(ApiError::no_such_route("/consumers"))
    }
}
