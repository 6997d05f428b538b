//! Dead letters over REST.

use std::sync::Arc;

use crate::api::App;
use crate::api::error::ApiError;
use crate::api::fields::{Fields, Query};
use crate::api::respond::Answer;

impl App {
    /// `GET /consumers/{name}/dead_letters?limit=&after=`
    pub(in crate::api) async fn dead_letters(self: &Arc<Self>, _name: &str, _query: &Query) -> Result<Answer, ApiError> {
        Err(ApiError::no_such_route("/consumers"))
    }

    /// `DELETE /consumers/{name}/dead_letters?cursor=`
    pub(in crate::api) async fn drop_dead_letters(self: &Arc<Self>, _name: &str, _query: &Query) -> Result<Answer, ApiError> {
        Err(ApiError::no_such_route("/consumers"))
    }

    /// `POST /consumers/{name}/dead_letters/resend`
    pub(in crate::api) async fn resend_dead_letters(self: &Arc<Self>, _name: &str, _fields: &Fields) -> Result<Answer, ApiError> {
        Err(ApiError::no_such_route("/consumers"))
    }
}
