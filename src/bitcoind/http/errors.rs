//! What is wrong when a call gives no answer, as sentences that say what to do.

use std::error::Error;
use std::io;
use std::iter::successors;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use http_body_util::LengthLimitError;
use hyper_util::client::legacy;

use super::{Credentials, Http};
use crate::bitcoind::rpc::method::whitelist_line;
use crate::bitcoind::{NodeError, NodeErrorKind};
use crate::remedy::Remedy;

impl Http {
    pub(super) fn address_refused(&self, from: Option<IpAddr>) -> NodeError {
        let from = from.map(|from| from.to_string());
        let shown = from.as_deref().unwrap_or("of this machine");
        NodeError::new(
            NodeErrorKind::AddressRefused,
            format!(
                "bitcoind at {} takes no calls from the address {shown} (rpcallowip)",
                self.url
            ),
        )
        .advise(Remedy::AllowAddress {
            address: from.unwrap_or_else(|| "THIS-MACHINE".to_owned()),
        })
    }

    pub(super) fn method_refused(&self, method: &str) -> NodeError {
        let user = self.user();
        NodeError::new(
            NodeErrorKind::MethodRefused,
            format!(
                "bitcoind at {} does not let user {user} call {method} (rpcwhitelist)",
                self.url
            ),
        )
        .advise(Remedy::AllowCalls {
            line: whitelist_line(&user),
        })
    }

    pub(super) fn unauthorized(&self) -> NodeError {
        let refuses = format!("bitcoind at {} refuses", self.url);
        match &self.credentials {
            Credentials::Cookie(path) => {
                let cookie = path.display();
                let what = format!(
                    "{refuses} the cookie in {cookie}: it belongs to another node or to an earlier start"
                );
                NodeError::new(NodeErrorKind::CookieRefused, what).advise(Remedy::NameCredentials)
            }
            Credentials::User { user, conf, .. } => {
                let (password, remedy) = match conf {
                    None => ("password from the settings".into(), Remedy::CorrectLogin),
                    Some(conf) => (
                        format!("rpcpassword in {}", conf.display()),
                        Remedy::RestartForLogin { conf: conf.clone() },
                    ),
                };
                let what = format!("{refuses} user {user:?} with the {password}");
                NodeError::new(NodeErrorKind::LoginRefused, what).advise(remedy)
            }
        }
    }

    /// Whether the node runs says what is wrong with a cookie that is not there.
    pub(super) async fn no_cookie(self: &Arc<Self>, path: &Path, error: &io::Error) -> NodeError {
        if is_out_of_files(error) {
            return too_many_files("read bitcoind's cookie");
        }
        let (url, cookie) = (&self.url, path.display());
        let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
        match self.knock().await {
            Ok((401, _)) if forbidden => NodeError::new(
                NodeErrorKind::CookieForbidden,
                format!(
                    "bitcoind at {url} wants credentials, and this user may not read bitcoind's cookie {cookie}"
                ),
            )
            .advise(Remedy::OwnLogin),
            Ok((401, _)) => NodeError::new(
                NodeErrorKind::NoCookie,
                format!(
                    "bitcoind at {url} wants credentials, and its cookie cannot be read at {cookie} ({error})"
                ),
            )
            .advise(Remedy::NameCredentials),
            Ok((403, from)) => self.address_refused(from),
            Err(error) if error.kind == NodeErrorKind::TooManyFiles => error,
            _ => {
                let lacking = match forbidden {
                    true => "this user may not read the cookie",
                    false => "there is no cookie",
                };
                NodeError::new(
                    NodeErrorKind::Unreachable,
                    format!(
                        "bitcoind does not answer at {url}, and {lacking} {cookie} ({error})"
                    ),
                )
                .advise(Remedy::StartOrNameServer)
            }
        }
    }

    pub(super) fn busy(&self, method: &str) -> NodeError {
        NodeError::new(
            NodeErrorKind::Busy,
            format!(
                "bitcoind at {} has no room for {method} (rpcworkqueue is full)",
                self.url
            ),
        )
        .advise(Remedy::EnlargeWorkQueue)
    }

    pub(super) fn not_json(&self, method: &str, status: u16) -> NodeError {
        NodeError::new(
            NodeErrorKind::Shape,
            format!(
                "{} answered {method} with HTTP {status} without JSON",
                self.url
            ),
        )
        .advise(Remedy::NameRpcPort)
    }

    pub(super) fn away(&self, method: &str, status: u16) -> NodeError {
        NodeError::new(
            NodeErrorKind::Busy,
            format!(
                "{} answered {method} with HTTP {status}: what stands before bitcoind has no answer of it",
                self.url
            ),
        )
    }

    pub(super) fn timed_out(&self, method: &str) -> NodeError {
        NodeError::new(
            NodeErrorKind::TimedOut,
            format!("bitcoind at {} did not answer {method} in time", self.url),
        )
    }

    /// There is no connection, or it ended before an answer.
    pub(super) fn unanswered(&self, method: &str, error: &legacy::Error) -> NodeError {
        let mut causes = successors(error.source(), |&cause| cause.source());
        let io = causes.find_map(|cause| cause.downcast_ref::<io::Error>());
        // A name that could not be looked up does not say why.
        if io.is_some_and(is_out_of_files) || error.is_connect() && no_file_can_be_opened() {
            return too_many_files(&format!("connect to bitcoind at {} for {method}", self.url));
        }
        if is_no_http(error) {
            return NodeError::new(
                NodeErrorKind::Shape,
                format!("{} does not speak HTTP ({})", self.url, last_cause(error)),
            )
            .advise(Remedy::NameRpcPort);
        }
        if !error.is_connect() {
            return self.broken(method, error);
        }
        let why = match io.map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => "connection refused".to_owned(),
            Some(io::ErrorKind::TimedOut) => "no connection in time".to_owned(),
            _ => last_cause(error),
        };
        NodeError::new(
            NodeErrorKind::Unreachable,
            format!("bitcoind does not answer at {} ({why})", self.url),
        )
        .advise(Remedy::StartServer)
    }

    /// An answer began, and ended too soon or not soon enough.
    pub(super) fn cut_off(
        &self,
        method: &str,
        error: &(dyn Error + 'static),
        most: usize,
    ) -> NodeError {
        match error.is::<LengthLimitError>() {
            true => self.too_long(method, most),
            false => self.broken(method, error),
        }
    }

    pub(super) fn too_long(&self, method: &str, most: usize) -> NodeError {
        NodeError::new(
            NodeErrorKind::TooLong,
            format!(
                "{} answered {method} with more than {} MB",
                self.url,
                most >> 20
            ),
        )
        .advise(Remedy::NameRpcPort)
    }

    fn broken(&self, method: &str, error: &(dyn Error + 'static)) -> NodeError {
        let why = last_cause(error);
        NodeError::new(
            NodeErrorKind::Unreachable,
            format!(
                "the connection to bitcoind at {} broke during {method} ({why})",
                self.url
            ),
        )
    }
}

pub(crate) fn cut_short() -> NodeError {
    NodeError::new(
        NodeErrorKind::Unreachable,
        "a call to bitcoind was cut short: the daemon stops",
    )
}

/// The other side is another program than a web server.
pub(super) fn is_no_http(error: &legacy::Error) -> bool {
    let mut causes = successors(error.source(), |&cause| cause.source());
    causes.any(|cause| {
        cause
            .downcast_ref()
            .is_some_and(|error: &hyper::Error| error.is_parse())
    })
}

fn too_many_files(doing: &str) -> NodeError {
    NodeError::new(
        NodeErrorKind::TooManyFiles,
        format!("cannot {doing}: satwatch has too many open files"),
    )
    .advise(Remedy::RaiseFileLimit)
}

fn last_cause(error: &(dyn Error + 'static)) -> String {
    let causes = successors(Some(error), |&cause| cause.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}

/// `EMFILE`, `ENFILE`: the process or the system has no file descriptor left.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

fn no_file_can_be_opened() -> bool {
    std::fs::File::open("/dev/null").is_err_and(|error| is_out_of_files(&error))
}
