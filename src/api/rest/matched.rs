//! Which routes the path of a request means.

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::route::Route;
use super::routes::ROUTES;
use crate::wire::error::ApiError;

/// Besides those of the table.
const ALWAYS: &str = "OPTIONS";

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
