//! JSON-RPC over HTTP/1.1 with kept connections, as a transport of `bitcoincore-rpc`'s `jsonrpc`
//! crate.
//!
//! Its own transports either serialize all callers and send a request again after a time-out, or
//! open a connection per call; none re-reads the cookie, which is new at every start of the node.
//! What bitcoind answers (seen on 29.5):
//!
//! ```text
//! 200, 404, 500 with JSON   an answer; 500 and 404 carry an error object, a batch is always 200
//! 401                       wrong credentials, after 250 ms; none, at once
//! 403                       rpcallowip refuses the address, with or without credentials; or rpcwhitelist
//!                           refuses the method (a batch is refused whole)
//! 503, not JSON             the work queue is full
//! ```

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use bitcoincore_rpc::jsonrpc::{self, Request, Response};

use super::rpc::{self, whitelist_line};
use super::{Cause, NodeError};
use crate::remedy::Remedy;

/// What a call may take, from the connection to the last byte: time, and bytes of the answer. An
/// endless one must not fill the memory.
#[derive(Clone, Copy)]
struct Limit {
    time: Duration,
    bytes: u64,
}

impl Limit {
    const fn new(seconds: u64, megabytes: u64) -> Self {
        Self {
            time: Duration::from_secs(seconds),
            bytes: megabytes << 20,
        }
    }
}

/// A scan of the whole set of unspent outputs takes minutes on a slow disk, and a busy address has
/// very many.
const SCAN_LIMIT: Limit = Limit::new(3600, 1024);
/// A range of block filters takes a second or two; on a slow disk the first one may take longer.
const FILTER_LIMIT: Limit = Limit::new(120, 64);
/// The mempool and batches, and a block with all that it spends in JSON: a busy node on a slow disk
/// needs seconds. Five hundred transactions are 400 MB at worst.
const HEAVY_LIMIT: Limit = Limit::new(60, 512);
/// A block is at most 4 MB, and twice that in hex.
const BLOCK_LIMIT: Limit = Limit::new(60, 16);
const LIGHT_LIMIT: Limit = Limit::new(10, 8);
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// bitcoind closes idle connections after 30 s (`-rpcservertimeout`).
const IDLE_LIMIT: Duration = Duration::from_secs(25);

/// How we show the node who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The file that the node writes at each start.
    Cookie(PathBuf),
    User {
        user: String,
        password: String,
        /// The `bitcoin.conf` that they are from; otherwise from our settings.
        conf: Option<PathBuf>,
    },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cookie(path) => f.debug_tuple("Cookie").field(path).finish(),
            Self::User { user, .. } => f
                .debug_struct("User")
                .field("user", user)
                .finish_non_exhaustive(),
        }
    }
}

/// One pool of connections to the node. Calls block; see [`super::rpc`] for the async side.
pub(super) struct Http {
    agent: ureq::Agent,
    url: String,
    credentials: Credentials,
    /// The `Authorization` value that worked last.
    authorization: Mutex<Option<String>>,
}

/// Why an exchange gave no HTTP answer.
enum Failure {
    /// The connection broke. A kept connection that the node closed in this moment looks like this,
    /// so a read is sent again.
    Broken(NodeError),
    Other(NodeError),
}

impl Http {
    /// `url`: `http://host:port[/path]`, no slash at the end.
    pub(super) fn new(url: &str, credentials: Credentials) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(8)
            .max_idle_connections_per_host(8)
            .max_idle_age(IDLE_LIMIT)
            .timeout_connect(Some(CONNECT_LIMIT))
            .build()
            .new_agent();
        Self {
            agent,
            url: url.to_owned(),
            credentials,
            authorization: Mutex::new(None),
        }
    }

    /// Ends all calls, those that wait for an answer included. Later calls fail.
    pub(super) fn close(&self) {
        self.agent.clone().shutdown();
    }

    /// Sends one JSON body, calls of `method`, and returns the JSON that came back, whatever it
    /// says.
    fn exchange(
        &self,
        method: &str,
        body: &[u8],
        limit: Limit,
        repeatable: bool,
    ) -> Result<Vec<u8>, NodeError> {
        let mut repeats = u8::from(repeatable);
        let mut renewed = false;
        loop {
            let authorization = self.authorization(false)?;
            match self.send(method, body, Some(&authorization), limit) {
                Ok((401, _)) if !renewed && self.authorization(true)? != authorization => {
                    renewed = true
                }
                Ok((401, _)) => return Err(self.unauthorized()),
                Ok((status, body)) => return self.judge(method, status, body),
                Err(Failure::Broken(_)) if repeats > 0 => repeats -= 1,
                Err(Failure::Broken(error) | Failure::Other(error)) => return Err(error),
            }
        }
    }

    /// HTTP status and body.
    fn send(
        &self,
        method: &str,
        body: &[u8],
        authorization: Option<&str>,
        limit: Limit,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let mut request = self
            .agent
            .post(self.url.as_str())
            .header("Content-Type", "application/json");
        if let Some(authorization) = authorization {
            request = request.header("Authorization", authorization);
        }
        let request = request.config().timeout_global(Some(limit.time)).build();
        let mut answer = request
            .send(body)
            .map_err(|error| self.failure(method, error))?;
        let body = answer
            .body_mut()
            .with_config()
            .limit(limit.bytes)
            .read_to_vec()
            .map_err(|error| self.failure(method, error))?;
        Ok((answer.status().as_u16(), body))
    }

    fn judge(&self, method: &str, status: u16, body: Vec<u8>) -> Result<Vec<u8>, NodeError> {
        let json = matches!(
            body.iter().find(|byte| !byte.is_ascii_whitespace()),
            Some(b'{' | b'[')
        );
        match status {
            200 | 404 | 500 if json => Ok(body),
            403 => Err(match self.knock() {
                Ok(403) => self.address_refused(),
                _ => self.method_refused(method),
            }),
            503 => Err(NodeError::transient(
                Cause::Busy,
                format!(
                    "bitcoind at {} has no room for {method} (rpcworkqueue is full)",
                    self.url
                ),
            )
            .advise(Remedy::EnlargeWorkQueue)),
            _ => Err(NodeError::persistent(
                Cause::Shape,
                format!(
                    "{} answered {method} with HTTP {status} without JSON",
                    self.url
                ),
            )
            .advise(Remedy::NameRpcPort)),
        }
    }

    /// The HTTP status of a call without credentials: 401 from a node that lets our address in.
    fn knock(&self) -> Result<u16, NodeError> {
        match self.send("uptime", br#"{"method":"uptime"}"#, None, LIGHT_LIMIT) {
            Ok((status, _)) => Ok(status),
            Err(Failure::Broken(error) | Failure::Other(error)) => Err(error),
        }
    }

    fn address_refused(&self) -> NodeError {
        let seen = own_address(&self.url);
        let shown = seen.as_deref().unwrap_or("of this machine");
        NodeError::persistent(
            Cause::AddressRefused,
            format!(
                "bitcoind at {} takes no calls from the address {shown} (rpcallowip)",
                self.url
            ),
        )
        .advise(Remedy::AllowAddress {
            address: seen.unwrap_or_else(|| "THIS-MACHINE".to_owned()),
        })
    }

    fn method_refused(&self, method: &str) -> NodeError {
        let user = self.user();
        NodeError::persistent(
            Cause::MethodRefused,
            format!(
                "bitcoind at {} does not let user {user} call {method} (rpcwhitelist)",
                self.url
            ),
        )
        .advise(Remedy::AllowCalls {
            line: whitelist_line(&user),
        })
    }

    /// As it stands in `rpcwhitelist`.
    pub(super) fn user(&self) -> String {
        match &self.credentials {
            Credentials::User { user, .. } => user.clone(),
            Credentials::Cookie(path) => std::fs::read_to_string(path)
                .ok()
                .and_then(|cookie| Some(cookie.split_once(':')?.0.to_owned()))
                .unwrap_or_else(|| "__cookie__".to_owned()),
        }
    }

    /// The header's value; `renew` reads the cookie again.
    fn authorization(&self, renew: bool) -> Result<String, NodeError> {
        let mut kept = self
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let (Some(value), false) = (kept.as_ref(), renew) {
            return Ok(value.clone());
        }
        let pair = match &self.credentials {
            Credentials::User { user, password, .. } => format!("{user}:{password}"),
            Credentials::Cookie(path) => std::fs::read_to_string(path)
                .map_err(|error| self.no_cookie(path, &error))?
                .trim()
                .to_owned(),
        };
        let value = format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(pair)
        );
        *kept = Some(value.clone());
        Ok(value)
    }

    fn unauthorized(&self) -> NodeError {
        match &self.credentials {
            Credentials::Cookie(path) => NodeError::transient(
                Cause::Unauthorized,
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
                Cause::Unauthorized,
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
                Cause::Unauthorized,
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
    fn no_cookie(&self, path: &Path, error: &io::Error) -> NodeError {
        if is_out_of_files(error) {
            return self.too_many_files("read bitcoind's cookie");
        }
        let cookie = path.display();
        let forbidden = error.kind() == io::ErrorKind::PermissionDenied;
        match self.knock() {
            Ok(401) if forbidden => NodeError::persistent(
                Cause::NoCookie,
                format!(
                    "bitcoind at {} wants credentials, and this user may not read bitcoind's cookie {cookie}",
                    self.url
                ),
            )
            .advise(Remedy::OwnLogin),
            Ok(401) => NodeError::transient(
                Cause::NoCookie,
                format!(
                    "bitcoind at {} wants credentials, and its cookie cannot be read at {cookie} ({error})",
                    self.url
                ),
            )
            .advise(Remedy::NameCredentials),
            Ok(403) => self.address_refused(),
            Err(error) if error.cause == Cause::TooManyFiles => error,
            _ => {
                let lacking = match forbidden {
                    true => "this user may not read the cookie",
                    false => "there is no cookie",
                };
                NodeError::transient(
                    Cause::Unreachable,
                    format!(
                        "bitcoind does not answer at {}, and {lacking} {cookie} ({error})",
                        self.url
                    ),
                )
                .advise(Remedy::StartOrNameServer)
            }
        }
    }

    fn too_many_files(&self, doing: &str) -> NodeError {
        NodeError::transient(
            Cause::TooManyFiles,
            format!("cannot {doing}: satwatch has too many open files"),
        )
        .advise(Remedy::RaiseFileLimit)
    }

    fn failure(&self, method: &str, error: ureq::Error) -> Failure {
        let url = &self.url;
        if is_out_of_files_in(&error) {
            return Failure::Other(
                self.too_many_files(&format!("connect to bitcoind at {url} for {method}")),
            );
        }
        match error {
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                Failure::Other(self.unreachable("no connection in time"))
            }
            ureq::Error::Timeout(_) => Failure::Other(NodeError::transient(
                Cause::TimedOut,
                format!("bitcoind at {url} did not answer {method} in time"),
            )),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Failure::Other(self.unreachable("connection refused"))
            }
            ureq::Error::BodyExceedsLimit(bytes) => Failure::Other(
                NodeError::persistent(
                    Cause::Shape,
                    format!("{url} answered {method} with more than {} MB", bytes >> 20),
                )
                .advise(Remedy::NameRpcPort),
            ),
            ureq::Error::HostNotFound => Failure::Other(self.unreachable("no such host")),
            ureq::Error::ConnectionFailed => Failure::Other(self.unreachable("connection failed")),
            ureq::Error::BadUri(what) => Failure::Other(
                NodeError::persistent(
                    Cause::Setup,
                    format!("bitcoind.rpc_url {url:?} is not an address ({what})"),
                )
                .advise(Remedy::NameRpcPort),
            ),
            other => Failure::Broken(NodeError::transient(
                Cause::Unreachable,
                format!("the connection to bitcoind at {url} broke during {method} ({other})"),
            )),
        }
    }

    fn unreachable(&self, why: &str) -> NodeError {
        NodeError::transient(
            Cause::Unreachable,
            format!("bitcoind does not answer at {} ({why})", self.url),
        )
        .advise(Remedy::StartServer)
    }
}

/// `EMFILE`, `ENFILE`: the process or the system has no file descriptor left.
pub(super) fn is_out_of_files(error: &io::Error) -> bool {
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
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split('/').next()?;
    let node = match authority.to_socket_addrs() {
        Ok(mut found) => found.next()?,
        Err(_) => (rpc::host_of(url).trim_matches(['[', ']']), 80)
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

fn limit_of(request: &Request) -> Limit {
    match request.method {
        "scantxoutset" if starts_scan(request) => SCAN_LIMIT,
        "scanblocks" if starts_scan(request) => FILTER_LIMIT,
        "getrawmempool" => HEAVY_LIMIT,
        "getblock" if !is_hex(request) => HEAVY_LIMIT,
        "getblock" => BLOCK_LIMIT,
        _ => LIGHT_LIMIT,
    }
}

/// The same method also asks for the state of a scan, and ends it.
fn starts_scan(request: &Request) -> bool {
    let scans = matches!(request.method, "scantxoutset" | "scanblocks");
    scans
        && request
            .params
            .is_some_and(|params| params.get().starts_with(r#"["start""#))
}

/// `getblock` with verbosity 0; the others answer with many times the block's size.
fn is_hex(request: &Request) -> bool {
    request
        .params
        .is_some_and(|params| params.get().ends_with(",0]"))
}

fn transport_error(error: NodeError) -> jsonrpc::Error {
    jsonrpc::Error::Transport(Box::new(error))
}

/// The pool as a transport: `jsonrpc` wants to own what it uses.
pub(super) struct Shared(pub(super) std::sync::Arc<Http>);

impl jsonrpc::client::Transport for Shared {
    fn send_request(&self, request: Request) -> Result<Response, jsonrpc::Error> {
        let body = serde_json::to_vec(&request)?;
        // A scan that is sent twice would fail with "Scan already in progress"; everything else
        // that we ask is a read.
        let answer = self
            .0
            .exchange(
                request.method,
                &body,
                limit_of(&request),
                !starts_scan(&request),
            )
            .map_err(transport_error)?;
        Ok(serde_json::from_slice(&answer)?)
    }

    fn send_batch(&self, requests: &[Request]) -> Result<Vec<Response>, jsonrpc::Error> {
        let body = serde_json::to_vec(requests)?;
        // All of a batch are of one method.
        let method = requests.first().map_or("nothing", |request| request.method);
        let answer = self
            .0
            .exchange(method, &body, HEAVY_LIMIT, true)
            .map_err(transport_error)?;
        match serde_json::from_slice::<Vec<Response>>(&answer) {
            Ok(responses) => Ok(responses),
            // A batch that is refused whole (warm-up) comes back as one error.
            Err(error) => match serde_json::from_slice::<Response>(&answer)
                .ok()
                .and_then(|response| response.error)
            {
                Some(refusal) => Err(jsonrpc::Error::Rpc(refusal)),
                None => Err(error.into()),
            },
        }
    }

    fn fmt_target(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.url)
    }
}
