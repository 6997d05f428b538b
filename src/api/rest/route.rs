//! Routes: what a row of their table says. The table is in [`routes`](super::routes).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hyper::Method;

use super::respond::{self, Answer};
use super::sent::Sent;
use crate::api::Services;
use crate::auth::Scope;
use crate::wire::error::ApiError;
use crate::wire::schema::SchemaOf;

pub struct Route {
    pub method: Method,
    /// With at most one `{part}`, which may be anything.
    pub path: &'static str,
    /// What who asks must be allowed to do; `None` for anybody, also with authentication.
    pub scope: Option<Scope>,
    pub marks: &'static [Mark],
    /// What it does.
    pub summary: &'static str,
    pub sent: SentShape,
    /// Of its answers; 200 alone when there is none.
    pub statuses: &'static [u16],
    /// Of refusals that not every such route has.
    pub refusals: &'static [u16],
    /// How its answers look.
    pub reply: SchemaOf,
    pub(super) answer: fn(Arc<Services>, Sent) -> Answering,
}

/// What a request says besides its path.
#[derive(Clone, Copy)]
pub enum SentShape {
    Nothing,
    Query(SchemaOf),
    Body(SchemaOf),
}

/// What is special about a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Counts for `limits.costly_per_minute`, too, once it is read and says what it may.
    Costly,
    /// Counts for no limit of rates: what looks after the daemon is not kept out by what others do.
    Uncounted,
    /// Its answer is a stream of server-sent events, and so is a refusal to who reads nothing else.
    Stream,
    /// Changes something, but so often that it has no line in the access log.
    Unlogged,
}

pub type Answering = Pin<Box<dyn Future<Output = Result<Answer, ApiError>> + Send>>;

/// Marks, method, path, scope (`any` token or `open`), what it does; what is sent besides the path
/// (`nothing`, or a `query` or a `body` of a type); the statuses of its answers if
/// they are not 200 alone, and how these look; the statuses of refusals that not every such route
/// has.
macro_rules! routes {
    ($(
        $(#[$mark:ident])* $method:ident $path:literal $scope:ident $summary:literal
        $kind:ident $(($asked:ident: $request:ty))?
            => $($status:literal)* $answer:ty $(, $refused:literal)*
            |$services:ident, $sent:ident| $made:expr;
    )*) => {
        /// All routes. GET answers HEAD, too. The answer to another method than GET is never
        /// refused for its weight: what it tells has happened.
        pub static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            scope: needed!($scope),
            marks: &[$(Mark::$mark),*],
            summary: $summary,
            sent: crate::api::rest::route::sent_shape!($kind $($request)?),
            statuses: &[$($status),*],
            refusals: &[$($refused),*],
            reply: schema::of::<$answer>,
            answer: |$services, $sent| Box::pin(async move {
                $(let $asked: $request =)?
                    crate::api::rest::route::take!($sent $kind)?;
                let reply: Result<Reply<$answer>, ApiError> = $made;
                Ok(reply?.answer)
            }),
        }),*];
    };
}
pub(super) use routes;

/// Reads what a request says besides its path.
macro_rules! take {
    ($sent:ident nothing) => {
        $sent.nothing()
    };
    ($sent:ident query) => {
        $sent.query()
    };
    ($sent:ident body) => {
        $sent.body().await
    };
}
pub(super) use take;

macro_rules! sent_shape {
    (nothing) => {
        SentShape::Nothing
    };
    (query $request:ty) => {
        SentShape::Query(schema::whole::<$request>)
    };
    (body $request:ty) => {
        SentShape::Body(schema::of::<$request>)
    };
}
pub(super) use sent_shape;

impl Route {
    pub fn has(&self, mark: Mark) -> bool {
        self.marks.contains(&mark)
    }

    /// Whether its success has a line in the access log.
    pub fn is_logged_change(&self) -> bool {
        self.method != Method::GET && !self.has(Mark::Unlogged)
    }

    pub async fn answer(&self, services: Arc<Services>, sent: Sent) -> Result<Answer, ApiError> {
        let (budget, is_read) = (services.intake.budget.clone(), self.method == Method::GET);
        let mut answer = (self.answer)(services, sent).await?;
        respond::charge(&mut answer, &budget, is_read)?;
        Ok(answer)
    }

    /// What stands in place of the `{part}`, nothing if there is none.
    pub fn matches<'a>(&self, parts: &'a [String]) -> Option<&'a str> {
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
