//! The table of routes: one row for each method of each path, with what answers it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::respond::{self, Answer};
use super::sent::Sent;
use crate::api::App;
use crate::wire::error::ApiError;

/// Besides those of the table.
const ALWAYS: &str = "OPTIONS";

pub struct Route {
    pub method: Method,
    /// With at most one `{part}`, which may be anything.
    pub path: &'static str,
    answer: fn(Arc<App>, Sent) -> Answering,
}

type Answering = Pin<Box<dyn Future<Output = Result<Answer, ApiError>> + Send>>;

macro_rules! routes {
    ($($method:ident $path:literal |$app:ident, $sent:ident| $answer:expr;)*) => {
        /// All routes. GET answers HEAD, too. The answer to another method than GET is never
        /// refused for its weight: what it tells has happened.
        pub static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            answer: |$app, $sent| Box::pin(async move { $answer }),
        }),*];
    };
}

routes! {
    GET "/status" |app, sent| {
        sent.nothing()?;
        app.get_status(sent.sessions).await
    };
    POST "/start" |app, sent| {
        sent.nothing()?;
        app.start_monitoring(sent.sessions).await
    };
    POST "/stop" |app, sent| {
        sent.nothing()?;
        app.stop_monitoring().await
    };
    POST "/add_address" |app, sent| app.add_address(sent.body(&app).await?).await;
    POST "/add_addresses" |app, sent| app.add_addresses(sent.body(&app).await?).await;
    GET "/addresses" |app, sent| app.addresses(sent.query()?).await;
    DELETE "/addresses/{address}" |app, sent| {
        sent.nothing_of_address()?;
        app.remove_address(&sent.part).await
    };
    GET "/balance/{address}" |app, sent| {
        sent.nothing_of_address()?;
        app.balance(&sent.part).await
    };
    GET "/transactions/{address}" |app, sent| app.transactions(&sent.part, sent.query()?).await;
    GET "/utxos/{address}" |app, sent| app.utxos(&sent.part, sent.query()?).await;
    POST "/audit/{address}" |app, sent| {
        sent.nothing_of_address()?;
        app.audit(&sent.part).await
    };
    POST "/scan_history" |app, sent| app.scan_history_of_list(sent.body(&app).await?).await;
    POST "/scan_history/{address}" |app, sent| {
        let asked = sent.body_of_address(&app).await?;
        app.scan_history(&sent.part, asked).await
    };
    GET "/scans" |app, sent| {
        sent.nothing()?;
        app.list_scans().await
    };
    GET "/scans/{id}" |app, sent| {
        sent.nothing()?;
        app.scan(&sent.part).await
    };
    DELETE "/scans/{id}" |app, sent| {
        sent.nothing()?;
        app.cancel_scan(&sent.part).await
    };
    GET "/events" |app, sent| app.events(sent.query()?, sent.asked).await;
    GET "/consumers" |app, sent| {
        sent.nothing()?;
        app.list_consumers().await
    };
    GET "/consumers/{name}" |app, sent| {
        sent.nothing()?;
        app.consumer(&sent.part).await
    };
    PUT "/consumers/{name}" |app, sent| app.put_consumer(&sent.part, sent.body(&app).await?).await;
    DELETE "/consumers/{name}" |app, sent| {
        sent.nothing()?;
        app.delete_consumer(&sent.part).await
    };
    POST "/consumers/{name}/ack" |app, sent| app.ack(&sent.part, sent.body(&app).await?).await;
    GET "/consumers/{name}/dead_letters" |app, sent| app.dead_letters(&sent.part, sent.query()?).await;
    DELETE "/consumers/{name}/dead_letters" |app, sent| {
        app.drop_dead_letters(&sent.part, sent.query()?).await
    };
    POST "/consumers/{name}/dead_letters/resend" |app, sent| {
        app.resend_dead_letters(&sent.part, sent.body(&app).await?).await
    };
    POST "/consumers/{name}/test" |app, sent| {
        sent.nothing()?;
        app.test_webhook(&sent.part).await
    };
    POST "/consumers/{name}/retry" |app, sent| {
        sent.nothing()?;
        app.retry_webhook(&sent.part).await
    };
    GET "/metrics" |app, sent| {
        sent.nothing()?;
        app.metrics(sent.sessions).await
    };
    GET "/health/live" |app, sent| {
        sent.nothing()?;
        Ok(app.live())
    };
    GET "/health/ready" |app, sent| {
        sent.nothing()?;
        app.ready().await
    };
}

/// What a request's path names: the routes of that path, one for each method, and its part.
pub struct Matched {
    routes: Vec<&'static Route>,
    pub part: String,
}

/// The routes of a request's path, whose parts are percent-decoded.
pub fn find(path: &str) -> Option<Matched> {
    let parts: Vec<String> = path
        .strip_prefix('/')?
        .split('/')
        .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect();
    let mut matched = ROUTES
        .iter()
        .filter_map(|route| Some((route, route.matches(&parts)?)))
        .peekable();
    let (_, part) = matched.peek()?;
    let part = part.to_string();
    let routes = matched.map(|(route, _)| route).collect();
    Some(Matched { routes, part })
}

impl Matched {
    /// What answers a method.
    pub fn route(&self, method: &Method) -> Result<&'static Route, ApiError> {
        let asked = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let found = self.routes.iter().find(|route| route.method == *asked);
        found
            .copied()
            .ok_or_else(|| ApiError::method_not_allowed(method.as_str(), self.allow()))
    }

    /// As the `Allow` header says it.
    pub fn allow(&self) -> String {
        let mut allow = String::new();
        for route in &self.routes {
            allow.push_str(route.method.as_str());
            allow.push_str(if route.method == Method::GET {
                ", HEAD, "
            } else {
                ", "
            });
        }
        allow + ALWAYS
    }
}

impl Route {
    pub async fn answer(&self, app: Arc<App>, sent: Sent) -> Result<Answer, ApiError> {
        let (budget, is_read) = (app.budget.clone(), self.method == Method::GET);
        let mut answer = (self.answer)(app, sent).await?;
        respond::charge(&mut answer, &budget, is_read)?;
        Ok(answer)
    }

    /// What stands in place of the `{part}`, nothing if there is none.
    fn matches<'a>(&self, parts: &'a [String]) -> Option<&'a str> {
        let pattern = self.path.split('/').skip(1);
        if pattern.clone().count() != parts.len() {
            return None;
        }
        let mut named = "";
        for (word, part) in pattern.zip(parts) {
            if word.starts_with('{') {
                named = part;
            } else if word != part {
                return None;
            }
        }
        Some(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str) -> Option<(&'static str, String)> {
        find(path).map(|matched| (matched.routes[0].path, matched.part))
    }

    #[test]
    fn paths_are_decoded_and_must_match_whole() {
        let of = |path, part: &str| Some((path, part.to_owned()));
        assert_eq!(found("/status"), of("/status", ""));
        assert_eq!(found("/balance/bc1%71"), of("/balance/{address}", "bc1q"));
        assert_eq!(found("/balance/"), of("/balance/{address}", ""));
        assert_eq!(found("/balance/a%2Fb"), of("/balance/{address}", "a/b"));
        assert_eq!(
            found("/balance/%FF%"),
            of("/balance/{address}", "\u{fffd}%")
        );
        assert_eq!(found("/scan_history"), of("/scan_history", ""));
        assert_eq!(found("/scan_history/"), of("/scan_history/{address}", ""));
        for path in [
            "",
            "/",
            "status",
            "/status/",
            "//status",
            "/balance",
            "/balance/a/b",
            "/STATUS",
            "/health",
            "*",
            "/../status",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn methods_are_those_of_the_table() {
        let consumer = find("/consumers/shop").expect("a route");
        assert_eq!(consumer.allow(), "GET, HEAD, PUT, DELETE, OPTIONS");
        for (method, answered_as) in [
            (Method::HEAD, Some(Method::GET)),
            (Method::PUT, Some(Method::PUT)),
            (Method::POST, None),
        ] {
            let route = consumer.route(&method);
            assert_eq!(route.ok().map(|route| route.method.clone()), answered_as);
        }
        let refused = consumer.route(&Method::PATCH).err().expect("a refusal");
        assert_eq!(
            refused.allow.as_deref(),
            Some("GET, HEAD, PUT, DELETE, OPTIONS")
        );
    }

    #[test]
    fn no_two_rows_are_the_same() {
        for (place, route) in ROUTES.iter().enumerate() {
            let same = |other: &&Route| other.path == route.path && other.method == route.method;
            assert!(
                !ROUTES.iter().skip(place + 1).any(|other| same(&other)),
                "{}",
                route.path
            );
        }
    }
}
