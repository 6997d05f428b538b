//! What is wrong when a call gives no answer, as sentences that say what to do.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

use super::{Credentials, Http};
use crate::bitcoind::rpc::method::whitelist_line;
use crate::bitcoind::url::{authority, host_of};
use crate::bitcoind::{NodeError, NodeErrorKind};
use crate::remedy::Remedy;

/// Why an exchange gave no HTTP answer.
pub(super) enum HttpFailure {
    /// The connection broke. A kept connection that the node closed in this moment looks like this,
    /// so a read is sent again.
    Broken(NodeError),
    Other(NodeError),
}

impl Http {
    pub(super) fn address_refused(&self) -> NodeError {
        let seen = own_address(&self.url);
        let shown = seen.as_deref().unwrap_or("of this machine");
        NodeError::persistent(
            NodeErrorKind::AddressRefused,
            format!(
                "bitcoind at {} takes no calls from the address {shown} (rpcallowip)",
                self.url
            ),
        )
        .advise(Remedy::AllowAddress {
            address: seen.unwrap_or_else(|| "THIS-MACHINE".to_owned()),
        })
    }

    pub(super) fn method_refused(&self, method: &str) -> NodeError {
        let user = self.user();
        NodeError::persistent(
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
        match &self.credentials {
            Credentials::Cookie(path) => NodeError::transient(
                NodeErrorKind::Unauthorized,
                format!(
                    "bitcoind at {} refuses the cookie in {}: it belongs to another node or to an earlier start",
                    self.url,
                    path.display()
                ),
            )
            .advise(Remedy::NameCredentials),
            Credentials::User {
                user, conf: None, ..
            } => NodeError::persistent(
                NodeErrorKind::Unauthorized,
                format!(
                    "bitcoind at {} refuses user {user:?} with the password from the settings",
                    self.url
                ),
            )
            .advise(Remedy::CorrectLogin),
            Credentials::User {
                user,
                conf: Some(conf),
                ..
            } => NodeError::persistent(
                NodeErrorKind::Unauthorized,
                format!(
                    "bitcoind at {} refuses user {user:?} with the rpcpassword in {}",
                    self.url,
                    conf.display()
                ),
            )
            .advise(Remedy::RestartForLogin { conf: conf.clone() }),
        }
    }

    /// Whether the node runs says what is wrong with a cookie that is not there.
    pub(super) fn no_cookie(&self, path: &Path, error: &io::Error) -> NodeError {
        if is_out_of_files(error) {
            return self.too_many_files("read bitcoind's cookie");
        }
        let cookie = path.display();
        let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
        match self.knock() {
            Ok(401) if forbidden => NodeError::persistent(
                NodeErrorKind::NoCookie,
                format!(
                    "bitcoind at {} wants credentials, and this user may not read bitcoind's cookie {cookie}",
                    self.url
                ),
            )
            .advise(Remedy::OwnLogin),
            Ok(401) => NodeError::transient(
                NodeErrorKind::NoCookie,
                format!(
                    "bitcoind at {} wants credentials, and its cookie cannot be read at {cookie} ({error})",
                    self.url
                ),
            )
            .advise(Remedy::NameCredentials),
            Ok(403) => self.address_refused(),
            Err(error) if error.kind == NodeErrorKind::TooManyFiles => error,
            _ => {
                let lacking = match forbidden {
                    true => "this user may not read the cookie",
                    false => "there is no cookie",
                };
                NodeError::transient(
                    NodeErrorKind::Unreachable,
                    format!(
                        "bitcoind does not answer at {}, and {lacking} {cookie} ({error})",
                        self.url
                    ),
                )
                .advise(Remedy::StartOrNameServer)
            }
        }
    }

    pub(super) fn too_many_files(&self, doing: &str) -> NodeError {
        NodeError::transient(
            NodeErrorKind::TooManyFiles,
            format!("cannot {doing}: satwatch has too many open files"),
        )
        .advise(Remedy::RaiseFileLimit)
    }

    pub(super) fn failure(&self, method: &str, error: ureq::Error) -> HttpFailure {
        let url = &self.url;
        if is_out_of_files_in(&error) {
            return HttpFailure::Other(
                self.too_many_files(&format!("connect to bitcoind at {url} for {method}")),
            );
        }
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                HttpFailure::Other(self.unreachable("no connection in time"))
            }
            ureq::Error::Timeout(_) => HttpFailure::Other(NodeError::transient(
                NodeErrorKind::TimedOut,
                format!("bitcoind at {url} did not answer {method} in time"),
            )),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                HttpFailure::Other(self.unreachable("connection refused"))
            }
            ureq::Error::BodyExceedsLimit(bytes) => HttpFailure::Other(
                NodeError::persistent(
                    NodeErrorKind::Shape,
                    format!("{url} answered {method} with more than {} MB", bytes >> 20),
                )
                .advise(Remedy::NameRpcPort),
            ),
            ureq::Error::HostNotFound => HttpFailure::Other(self.unreachable("no such host")),
            ureq::Error::ConnectionFailed => {
                HttpFailure::Other(self.unreachable("connection failed"))
            }
            ureq::Error::BadUri(what) => HttpFailure::Other(
                NodeError::persistent(
                    NodeErrorKind::Setup,
                    format!("bitcoind.rpc_url {url:?} is not an address ({what})"),
                )
                .advise(Remedy::NameRpcPort),
            ),
            other => HttpFailure::Broken(NodeError::transient(
                NodeErrorKind::Unreachable,
                format!("the connection to bitcoind at {url} broke during {method} ({other})"),
            )),
        }
    }

    pub(super) fn unreachable(&self, why: &str) -> NodeError {
        NodeError::transient(
            NodeErrorKind::Unreachable,
            format!("bitcoind does not answer at {} ({why})", self.url),
        )
        .advise(Remedy::StartServer)
    }
}

/// `EMFILE`, `ENFILE`: the process or the system has no file descriptor left.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(23 | 24))
}

fn is_out_of_files_in(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => {
            is_out_of_files(error)
                // A name that could not be looked up does not say why.
                || error.raw_os_error().is_none() && no_file_can_be_opened()
        }
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => no_file_can_be_opened(),
        _ => false,
    }
}

fn no_file_can_be_opened() -> bool {
    std::fs::File::open("/dev/null").is_err_and(|error| is_out_of_files(&error))
}

/// The address under which the node sees us, unless it is changed on the way.
fn own_address(url: &str) -> Option<String> {
    let node = match authority(url).to_socket_addrs() {
        Ok(mut found) => found.next()?,
        Err(_) => (host_of(url).trim_matches(['[', ']']), 80)
            .to_socket_addrs()
            .ok()?
            .next()?,
    };
    let any: SocketAddr = match node {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Sends nothing: it only chooses the way.
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(node).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}
