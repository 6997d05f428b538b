//! The table of routes: one row for each method of each path, with the scope that it needs and what
//! answers it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::event_stream::{self, StreamEvents};
use super::events::ReadEvents;
use super::respond::{self, Answer};
use super::sent::Sent;
use super::{
    address_queries, addresses, consumers, descriptors, labels, reading, scans, session, status,
    token, utxos, watchlist, webhooks,
};
use crate::api::Services;
use crate::auth::{Principal, Scope, needed};
use crate::wire::error::ApiError;

/// Besides those of the table.
const ALWAYS: &str = "OPTIONS";

pub struct Route {
    pub method: Method,
    /// With at most one `{part}`, which may be anything.
    pub path: &'static str,
    /// What who asks must be allowed to do; `None` for anybody, also with authentication.
    pub scope: Option<Scope>,
    pub marks: &'static [Mark],
    answer: fn(Arc<Services>, Sent) -> Answering,
}

/// What is special about a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Counts for `limits.costly_per_minute`, too, once it is read and says what it may.
    Costly,
    /// Counts for no limit of rates: what looks after the daemon is not kept out by what others do.
    Uncounted,
    /// Changes something, but so often that it has no line in the access log.
    Unlogged,
}

type Answering = Pin<Box<dyn Future<Output = Result<Answer, ApiError>> + Send>>;

/// Marks, method, path, scope, `any` (token) or `open`. `nothing`: the request may say nothing
/// besides its path.
macro_rules! routes {
    ($(
        $(#[$mark:ident])* $method:ident $path:literal $scope:ident $($nothing:ident)? |$services:ident, $sent:ident| $answer:expr;
    )*) => {
        /// All routes. GET answers HEAD, too. The answer to another method than GET is never
        /// refused for its weight: what it tells has happened.
        pub static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            scope: needed!($scope),
            marks: &[$(Mark::$mark),*],
            answer: |$services, $sent| Box::pin(async move {
                $($sent.$nothing()?;)?
                $answer
            }),
        }),*];
    };
}

routes! {
    GET "/status" read nothing |services, sent| status::status(&services.overview, sent.sessions).await;
    POST "/start" admin nothing |services, sent| {
        status::start_monitoring(&services.overview, sent.sessions).await
    };
    POST "/stop" admin nothing |services, sent| status::stop_monitoring(&services.overview).await;
    POST "/add_address" watch |services, sent| {
        watchlist::add_address(&services.scans, &sent.principal, sent.body().await?).await
    };
    #[Costly]
    POST "/add_addresses" watch |services, sent| {
        watchlist::add_addresses(&services.scans, &sent.principal, sent.body().await?).await
    };
    GET "/addresses" read |services, sent| {
        addresses::addresses(&services.reads, &services.budget, sent.query()?).await
    };
    PATCH "/addresses/{address}" watch |services, sent| {
        labels::label_address(&services.scans, &sent.part, sent.body().await?).await
    };
    DELETE "/addresses/{address}" watch nothing |services, sent| {
        watchlist::remove_address(&services.scans, &sent.part).await
    };
    GET "/balance/{address}" read nothing |services, sent| {
        address_queries::balance(&services.reads, &sent.part).await
    };
    GET "/transactions/{address}" read |services, sent| {
        let Services { reads, budget, overview, .. } = &*services;
        let policy = overview.monitoring.replacement();
        address_queries::transactions(reads, budget, policy, &sent.part, sent.query()?).await
    };
    GET "/utxos/{address}" read |services, sent| {
        utxos::utxos(&services.reads, &services.budget, &sent.part, sent.query()?).await
    };
    #[Costly]
    POST "/descriptors" watch |services, sent| {
        let (descriptors, asked) = (&services.descriptors, sent.body().await?);
        descriptors::add_descriptor(descriptors, &sent.principal, asked, &sent.concerns).await
    };
    GET "/descriptors" read |services, sent| {
        descriptors::list_descriptors(&services.reads, &services.budget, sent.query()?).await
    };
    GET "/descriptors/{id}" read nothing |services, sent| {
        descriptors::descriptor(&services.reads, &sent.part).await
    };
    PATCH "/descriptors/{id}" watch |services, sent| {
        labels::label_descriptor(&services.scans, &sent.part, sent.body().await?).await
    };
    DELETE "/descriptors/{id}" watch nothing |services, sent| {
        descriptors::remove_descriptor(&services.descriptors, &sent.part).await
    };
    GET "/descriptors/{id}/balance" read nothing |services, sent| {
        descriptors::queries::balance(&services.reads, &sent.part).await
    };
    GET "/descriptors/{id}/transactions" read |services, sent| {
        let Services { reads, budget, overview, .. } = &*services;
        let (policy, query) = (overview.monitoring.replacement(), sent.query()?);
        descriptors::queries::transactions(reads, budget, policy, &sent.part, query).await
    };
    GET "/descriptors/{id}/utxos" read |services, sent| {
        let Services { reads, budget, .. } = &*services;
        descriptors::queries::utxos(reads, budget, &sent.part, sent.query()?).await
    };
    GET "/descriptors/{id}/addresses" read |services, sent| {
        let Services { reads, budget, .. } = &*services;
        descriptors::addresses::addresses(reads, budget, &sent.part, sent.query()?).await
    };
    #[Costly]
    POST "/descriptors/{id}/next_address" watch |services, sent| {
        let asked = sent.body().await?;
        let (descriptors, principal) = (&services.descriptors, &sent.principal);
        descriptors::addresses::next_address(descriptors, principal, &sent.part, asked).await
    };
    #[Costly]
    POST "/audit/{address}" admin nothing |services, sent| {
        services.auditor.audit(&sent.part).await
    };
    #[Costly]
    POST "/audit/descriptors/{id}" admin nothing |services, sent| {
        services.auditor.audit_descriptor(&sent.part).await
    };
    #[Costly]
    POST "/scan_history" watch |services, sent| {
        let (descriptors, asked) = (&services.descriptors, sent.body().await?);
        scans::scan_history_of_list(descriptors, &sent.principal, asked, &sent.concerns).await
    };
    #[Costly]
    POST "/scan_history/{address}" watch |services, sent| {
        scans::scan_history(&services.scans, &sent.principal, &sent.part, sent.body().await?).await
    };
    GET "/scans" read nothing |services, sent| scans::list_scans(&services.scans).await;
    GET "/scans/{id}" read nothing |services, sent| scans::scan(&services.scans, &sent.part).await;
    DELETE "/scans/{id}" watch nothing |services, sent| {
        scans::cancel_scan(&services.scans, &sent.part).await
    };
    GET "/events" read |services, sent| {
        let query: ReadEvents = sent.query()?;
        let events = &services.events;
        match query.consumer.clone() {
            Some(name) => {
                sent.principal.require(Scope::Watch)?;
                reading::consumer_events(events, &services.consumers, &name, query).await
            }
            None => events.events(query, sent.asked).await,
        }
    };
    GET "/events/stream" read |services, sent| {
        let stream = async {
            let query: StreamEvents = sent.query()?;
            if query.consumer.is_some() {
                sent.principal.require(Scope::Watch)?;
            }
            let Services { events, consumers, .. } = &*services;
            let (principal, last) = (sent.principal.clone(), sent.last_event_id.clone());
            event_stream::stream_events(events, consumers, principal, query, last).await
        };
        match stream.await {
            Err(refused) if sent.is_event_source => Ok(event_stream::refusal(&refused)),
            answered => answered,
        }
    };
    GET "/consumers" read nothing |services, sent| {
        consumers::list_consumers(&services.consumer_routes, &sent.principal).await
    };
    GET "/consumers/{name}" read nothing |services, sent| {
        consumers::consumer(&services.consumer_routes, &sent.principal, &sent.part).await
    };
    PUT "/consumers/{name}" watch |services, sent| {
        let (routes, asked) = (&services.consumer_routes, sent.body().await?);
        let costly = || sent.count_costly(&sent.principal);
        consumers::put_consumer(routes, &sent.principal, &sent.part, asked, costly).await
    };
    DELETE "/consumers/{name}" watch nothing |services, sent| {
        consumers::delete_consumer(&services.consumers, &sent.principal, &sent.part).await
    };
    #[Unlogged]
    POST "/consumers/{name}/ack" watch |services, sent| {
        consumers::ack(&services.consumer_routes, &sent.part, sent.body().await?).await
    };
    GET "/consumers/{name}/dead_letters" admin |services, sent| {
        webhooks::dead_letters(&services.consumer_routes, &sent.part, sent.query()?).await
    };
    DELETE "/consumers/{name}/dead_letters" admin |services, sent| {
        webhooks::drop_dead_letters(&services.consumer_routes, &sent.part, sent.query()?).await
    };
    #[Costly]
    POST "/consumers/{name}/dead_letters/resend" admin |services, sent| {
        let asked = sent.body().await?;
        webhooks::resend_dead_letters(&services.consumer_routes, &sent.part, asked).await
    };
    #[Costly]
    POST "/consumers/{name}/test" admin nothing |services, sent| {
        webhooks::test_webhook(&services.consumer_routes, &sent.part).await
    };
    #[Costly]
    POST "/consumers/{name}/retry" admin nothing |services, sent| {
        webhooks::retry_webhook(&services.consumer_routes, &sent.part).await
    };
    GET "/token" any nothing |_services, sent| Ok(token::token(&sent.principal));
    POST "/session" open |services, sent| {
        let asked = sent.body().await?;
        let count = |principal: &Principal| sent.count_costly(principal);
        session::log_in(&services.sessions, &sent.page, asked, count).await
    };
    DELETE "/session" open nothing |services, sent| {
        session::log_out(&services.sessions, &sent.page).await
    };
    GET "/metrics" metrics nothing |services, sent| services.overview.metrics(sent.sessions).await;
    #[Uncounted]
    GET "/health/live" open nothing |_services, sent| Ok(status::live());
    #[Uncounted]
    GET "/health/ready" open nothing |services, sent| status::ready(&services.overview).await;
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
        let methods = self.routes.iter().flat_map(|route| {
            let also = (route.method == Method::GET).then_some("HEAD");
            [Some(route.method.as_str()), also].into_iter().flatten()
        });
        methods.chain([ALWAYS]).collect::<Vec<_>>().join(", ")
    }
}

impl Route {
    pub fn has(&self, mark: Mark) -> bool {
        self.marks.contains(&mark)
    }

    /// Whether its success has a line in the access log.
    pub fn is_logged_change(&self) -> bool {
        self.method != Method::GET && !self.has(Mark::Unlogged)
    }

    pub async fn answer(&self, services: Arc<Services>, sent: Sent) -> Result<Answer, ApiError> {
        let (budget, is_read) = (services.budget.clone(), self.method == Method::GET);
        let mut answer = (self.answer)(services, sent).await?;
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
