//! Routes to what answers them, and reading bodies.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde::Serialize;
use tokio::time::Instant;

use super::App;
use super::error::{ApiError, shortened};
use super::request::{self, Nothing, NothingOfAddress};
use super::respond::{self, Answer};
use super::route::Route;
use super::status::Status;

/// From the first to the last byte of a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What a request says besides its path. Each route takes it with one of the functions, so that
/// nothing in it is overlooked.
pub struct Sent {
    method: Method,
    query: String,
    body: Option<Bytes>,
}

impl Sent {
    /// The query of a route that takes no body.
    fn query<Q: request::Request>(&self) -> Result<Q, ApiError> {
        let Nothing {} = request::body(self.body.as_deref())?;
        request::query(&self.query)
    }

    /// The body of a route that takes no query.
    fn body<B: request::Request>(&self) -> Result<B, ApiError> {
        let Nothing {} = request::query(&self.query)?;
        request::body(self.body.as_deref())
    }

    /// For routes that take neither.
    fn nothing(&self) -> Result<(), ApiError> {
        let Nothing {} = self.query()?;
        Ok(())
    }

    /// For routes that take nothing but an address in their path.
    fn nothing_of_address(&self) -> Result<(), ApiError> {
        let NothingOfAddress {} = self.query()?;
        Ok(())
    }
}

/// Reads a request with one of the methods that the route takes.
pub async fn sent<B>(app: &App, allow: &'static str, request: Request<B>) -> Result<Sent, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let method = match request.method() {
        &Method::HEAD => Method::GET,
        method => method.clone(),
    };
    if !allow.split(", ").any(|allowed| allowed == method.as_str()) {
        return Err(ApiError::method_not_allowed(method.as_str(), allow));
    }
    Ok(Sent {
        method,
        query: request.uri().query().unwrap_or_default().to_owned(),
        body: body(app, request).await?,
    })
}

/// Answers one request. `sessions`: Socket.IO sessions that are open, for the status.
pub async fn answer(
    app: &Arc<App>,
    route: Route,
    sent: Sent,
    sessions: usize,
) -> Result<Answer, ApiError> {
    let asked = Instant::now();
    match route {
        Route::Status => {
            sent.nothing()?;
            let status = app.status(sessions).await?;
            Ok(respond::json_at(StatusCode::OK, &status.cursor, &status))
        }
        Route::Start => {
            sent.nothing()?;
            start(app, sessions).await
        }
        Route::Stop => {
            sent.nothing()?;
            stop(app).await
        }
        Route::AddAddress => app.add_address(sent.body()?).await,
        Route::AddAddresses => app.add_addresses(sent.body()?).await,
        Route::Addresses => app.addresses(sent.query()?).await,
        Route::Balance(address) => {
            sent.nothing_of_address()?;
            app.balance(&address).await
        }
        Route::Transactions(address) => app.transactions(&address, sent.query()?).await,
        Route::Utxos(address) => app.utxos(&address, sent.query()?).await,
        Route::Address(address) => {
            sent.nothing_of_address()?;
            app.remove_address(&address).await
        }
        Route::Audit(address) => {
            sent.nothing_of_address()?;
            app.audit(&address).await
        }
        Route::ScanHistory(address) => {
            let NothingOfAddress {} = request::query(&sent.query)?;
            app.scan_history(&address, sent.body()?).await
        }
        Route::ScanHistories => app.scan_history_of_list(sent.body()?).await,
        Route::Scans => {
            sent.nothing()?;
            app.list_scans().await
        }
        Route::Scan(id) if sent.method == Method::DELETE => {
            sent.nothing()?;
            app.cancel_scan(&id).await
        }
        Route::Scan(id) => {
            sent.nothing()?;
            app.scan(&id).await
        }
        Route::Events => app.events(sent.query()?, asked).await,
        Route::Consumers => {
            sent.nothing()?;
            app.list_consumers().await
        }
        Route::Consumer(name) if sent.method == Method::PUT => {
            app.put_consumer(&name, sent.body()?).await
        }
        Route::Consumer(name) => {
            sent.nothing()?;
            if sent.method == Method::DELETE {
                app.delete_consumer(&name).await
            } else {
                app.consumer(&name).await
            }
        }
        Route::Ack(name) => app.ack(&name, sent.body()?).await,
        Route::DeadLetters(name) if sent.method == Method::DELETE => {
            app.drop_dead_letters(&name, sent.query()?).await
        }
        Route::DeadLetters(name) => app.dead_letters(&name, sent.query()?).await,
        Route::Resend(name) => app.resend_dead_letters(&name, sent.body()?).await,
        Route::Test(name) => {
            sent.nothing()?;
            app.test_webhook(&name).await
        }
        Route::Retry(name) => {
            sent.nothing()?;
            app.retry_webhook(&name).await
        }
        Route::Metrics => {
            sent.nothing()?;
            app.metrics(sessions).await
        }
        Route::Live => {
            sent.nothing()?;
            Ok(app.live())
        }
        Route::Ready => {
            sent.nothing()?;
            app.ready()
        }
    }
}

async fn start(app: &Arc<App>, sessions: usize) -> Result<Answer, ApiError> {
    #[derive(Serialize)]
    struct Started {
        message: &'static str,
        status: Status,
    }
    let message = match app.switch_monitoring(true).await? {
        true => "Monitoring started; what was missed while it was stopped is being caught up on.",
        false => "Monitoring was on already.",
    };
    Ok(respond::json(
        StatusCode::OK,
        &Started {
            message,
            status: app.status(sessions).await?,
        },
    ))
}

async fn stop(app: &Arc<App>) -> Result<Answer, ApiError> {
    #[derive(Serialize)]
    struct Stopped {
        message: &'static str,
    }
    let message = match app.switch_monitoring(false).await? {
        true => "Monitoring stopped, also across restarts; POST /start goes on where it was.",
        false => "Monitoring was stopped already.",
    };
    Ok(respond::json(StatusCode::OK, &Stopped { message }))
}

/// The JSON text of a body; `None` when there is no body at all.
async fn body<B>(app: &App, request: Request<B>) -> Result<Option<Bytes>, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if request.body().is_end_stream() {
        return Ok(None);
    }
    check_content_type(request.headers())?;
    let limit = app.config.limits.body_bytes;
    let too_large = || {
        let message = format!(
            "The body is larger than {limit} bytes (limits.body_bytes); send less at a time."
        );
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
    };
    if request.body().size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(
        BODY_TIMEOUT,
        Limited::new(request.into_body(), limit).collect(),
    )
    .await;
    let bytes = match collected {
        Err(_) => {
            return Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                "The body did not arrive within 30 seconds; send it again.",
            ));
        }
        Ok(Err(cause)) if cause.is::<http_body_util::LengthLimitError>() => return Err(too_large()),
        Ok(Err(_)) => {
            return Err(ApiError::bad_request(
                "incomplete_body",
                "The body ended too early; send it again.",
            ));
        }
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
}

/// JSON, or nothing said. The type that curl says by default is refused like any other, with what
/// to add.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let essence = text
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
    {
        return Ok(());
    }
    let message = format!(
        "The body must be JSON, not {}; send the header Content-Type: application/json (curl: -H 'Content-Type: application/json').",
        shortened(&text)
    );
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        message,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_or_nothing_is_a_content_type() {
        let check = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, text.parse().unwrap());
            check_content_type(&headers).map_err(|error| error.status.as_u16())
        };
        assert_eq!(check_content_type(&HeaderMap::new()), Ok(()));
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.x+json",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "application/x-www-form-urlencoded",
            "text/plain",
            "",
            "multipart/form-data; boundary=x",
            "application/jsonp",
        ] {
            assert_eq!(check(bad), Err(415), "{bad}");
        }
    }
}
