//! `satwatch doctor`: tries out what the daemon will need, and says for each problem what to put
//! where.
//!
//! It changes nothing, neither at the node nor in the store.

mod edge;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, remove_file};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;

use crate::auth::{self, Outlook};
use crate::bitcoind::{self, DiscoveredNode, Finding};
use crate::certificates::{self, CertificateFiles};
use crate::clock::now_ms;
use crate::config::{Config, ConfigError, Listen};
use crate::remedy::Remedy;
use crate::server::{Limits, Server};
use crate::store::{self, ChainInfo, Inspected, StoreError};
use crate::{app, bus, open_files};

/// For an endpoint to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bits of a file's mode with which others than its owner write it.
const OTHERS_WRITE: u32 = 0o022;

/// Where the settings come from, for people.
pub fn settings_place(file: Option<&Path>) -> String {
    file.map_or_else(
        || "built-in defaults and environment".to_owned(),
        |path| path.display().to_string(),
    )
}

/// All there is to say when the settings cannot be used.
pub fn settings_are_wrong(error: &ConfigError, out: &mut impl Write) -> ExitCode {
    let mut report = Report::new(out);
    error
        .problems
        .iter()
        .for_each(|problem| report.bad(&format!("settings: {problem}"), None));
    report.finish()
}

/// Examines everything and says what it found; success only when all is well.
pub async fn examine(config: &Config, settings: Option<&Path>, out: &mut impl Write) -> ExitCode {
    let mut report = Report::new(out);
    report.well(&format!("settings: {}", settings_place(settings)));
    for gone in &config.no_longer_needed {
        report.well(&format!("settings: {gone}"));
    }
    let addresses = app::listen_addresses(&config.server.listen).await;
    // An edge has neither node nor store.
    let running = match config.edge.upstream {
        Some(_) => {
            let exposed = addresses
                .as_ref()
                .map(|it| app::credentials(config, it).exposed);
            let is_exposed = exposed.is_ok_and(|remedy| remedy.is_some());
            edge::examine(config, is_exposed, &mut report).await;
            false
        }
        None => {
            let chain = examine_node(config, &mut report).await;
            let running = examine_store(&config.store.path, chain, &mut report);
            if let Ok(addresses) = &addresses {
                examine_credentials(config, addresses, &mut report);
            }
            examine_bus(config, chain, &mut report).await;
            running
        }
    };
    for (what, remedy) in open_files_with_credentials(config) {
        report.bad(&format!("tokens: {what}"), Some(remedy));
    }
    examine_port(
        &config.server.listen,
        addresses,
        app::LISTEN,
        running,
        &mut report,
    )
    .await;
    if let Some(listen) = &config.metrics.listen {
        let addresses = app::metrics_addresses(listen).await;
        examine_port(listen, addresses, app::METRICS_LISTEN, running, &mut report).await;
    }
    for finding in certificate_findings(config) {
        let what = format!("TLS: {}", finding.what);
        match finding.remedy {
            None => report.well(&what),
            remedy => report.bad(&what, remedy),
        }
    }
    match open_files::problem(config.limits.connections, open_files::limit()) {
        None => report.well("open files: enough for limits.connections"),
        // It works with those that there are.
        Some(problem) => report.well(&format!("open files: {problem}")),
    }
    report.finish()
}

async fn examine_node(config: &Config, report: &mut Report<impl Write>) -> Option<ChainInfo> {
    let found = match bitcoind::find(&config.bitcoind).await {
        Ok(found) => found,
        Err(error) => {
            report.finding(&Finding::from(&error));
            return None;
        }
    };
    let calls = bitcoind::try_calls(&found.rpc).await;
    // A call that is not permitted is in both.
    let refused = |note: &&Finding| matches!(note.remedy, Some(Remedy::AllowCalls { .. }));
    let notes = found.notes.iter().filter(|note| !refused(note));
    notes.chain(&calls).for_each(|note| report.finding(note));
    examine_endpoints(&found, report).await;
    Some(found.chain)
}

/// Nothing is changed there. Whether the stream is of this node's chain is told when that is known.
async fn examine_bus(config: &Config, chain: Option<ChainInfo>, report: &mut Report<impl Write>) {
    let Some(url) = &config.bus.url else {
        return;
    };
    let network = chain.map(|chain| chain.network);
    match bus::try_out(url, config.bus.stream.as_deref(), network).await {
        Ok(()) => report.well(&format!("bus: Redis answers at {url}")),
        Err(problem) => report.bad(
            &format!("bus: {problem}"),
            problem.remedy(bus::Side::Writer),
        ),
    }
}

/// An endpoint that is named but cannot be reached looks like silence to a subscriber.
async fn examine_endpoints(found: &DiscoveredNode, report: &mut Report<impl Write>) {
    let zmq = &found.zmq;
    let endpoints: BTreeSet<&String> = [&zmq.rawtx, &zmq.rawblock, &zmq.sequence]
        .into_iter()
        .flatten()
        .collect();
    for endpoint in endpoints {
        let asked = endpoint.clone();
        let answers = spawn_blocking(move || bitcoind::zmq::answers(&asked, PATIENCE))
            .await
            .unwrap_or(Some(false));
        match answers {
            Some(true) => report.well(&format!("node: a publisher answers at {endpoint}")),
            Some(false) => report.bad(
                &format!("node: no publisher answers at {endpoint}"),
                Some(Remedy::ReachEndpoint),
            ),
            None => report.bad(
                &format!("node: {endpoint} cannot be tried: satwatch has too many open files"),
                Some(Remedy::RaiseFileLimit),
            ),
        }
    }
}

/// Returns whether a running daemon uses the store.
fn examine_store(path: &Path, chain: Option<ChainInfo>, report: &mut Report<impl Write>) -> bool {
    let shown = path.display();
    if !path.exists() {
        let parent = existing_parent(path);
        match try_writing(&parent) {
            Ok(()) => report.well(&format!("store: {shown} will be made at the first start")),
            Err(error) => report.bad(
                &format!(
                    "store: {shown} cannot be made: {} refuses: {error}",
                    parent.display()
                ),
                Some(Remedy::WritableFolder),
            ),
        }
        return false;
    }
    match inspect(path, chain) {
        Ok(found) => {
            let what = found.map_or("is empty and may be written".into(), |found| {
                describe(&found)
            });
            report.well(&format!("store: {shown} {what}"));
        }
        Err(StoreError::InUse { process, .. }) => {
            let process = process.map_or(String::new(), |id| format!(" (process {id})"));
            report.well(&format!(
                "store: {shown} is in use by a running satwatch{process}"
            ));
            return true;
        }
        Err(error) => report.bad(&format!("store: {error}"), None),
    }
    false
}

fn describe(found: &Inspected) -> String {
    let chain = found.chain.network.to_core_arg();
    let height = found.tip.map_or("no block yet".to_owned(), |tip| {
        format!("height {}", tip.height)
    });
    let format = match found.format {
        store::FORMAT => String::new(),
        earlier => format!(
            "; it has format {earlier}, and the next start of this satwatch brings it up to format {}, \
             which the release that wrote it cannot read",
            store::FORMAT
        ),
    };
    format!("can be opened and belongs to chain {chain}, {height}{format}")
}

/// `None` when there is no store in the folder yet.
fn inspect(path: &Path, chain: Option<ChainInfo>) -> Result<Option<Inspected>, StoreError> {
    let found = store::inspect(path, chain)?;
    // What is there is opened for writing, and not written.
    let writable = match found {
        None => try_writing(path),
        Some(_) => OpenOptions::new()
            .append(true)
            .open(path.join("lock"))
            .map(|_| ())
            .or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => try_writing(path),
                _ => Err(error),
            }),
    };
    writable.map_err(|error| StoreError::Io {
        doing: "write into the store's folder",
        path: path.to_owned(),
        cause: error.to_string(),
    })?;
    Ok(found)
}

fn existing_parent(path: &Path) -> PathBuf {
    let parent = path
        .ancestors()
        .skip(1)
        .find(|parent| parent.exists() || parent.as_os_str().is_empty());
    parent
        .filter(|parent| !parent.as_os_str().is_empty())
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn try_writing(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".satwatch-doctor-{}", std::process::id()));
    let written = File::create_new(&path).and_then(|mut file| file.write_all(b"x"));
    let removed = remove_file(&path);
    written.and(removed)
}

/// As the next start would take them.
fn examine_credentials(config: &Config, addresses: &[SocketAddr], report: &mut Report<impl Write>) {
    let place = app::credentials(config, addresses);
    let remembered = match store::remembered_auth(&config.store.path) {
        Ok(remembered) => remembered.unwrap_or_default(),
        Err(error) => {
            let what = "tokens: not known, because what the store has seen of them cannot be read";
            return report.bad(&format!("{what}: {error}"), None);
        }
    };
    let (path, now) = (place.tokens_file.display(), now_ms());
    match auth::outlook(&place, remembered.mark) {
        Ok(Outlook::Never | Outlook::Off) if config.is_behind_proxy() => {
            report.well(&format!("tokens: {}", app::OPEN_BEHIND_PROXY));
        }
        Ok(Outlook::Never) => {
            report.well("tokens: none; whoever reaches the daemon may do everything");
        }
        Ok(Outlook::Off) => report.well(&format!(
            "tokens: authentication is off, as {path} says; whoever reaches the daemon may do everything"
        )),
        Ok(Outlook::First) => {
            report.well("tokens: the next start makes the first one, of auth.first_token_file");
        }
        Ok(Outlook::On(tokens)) => {
            let expired = tokens.iter().filter(|it| it.has_expired(now)).count();
            let live = tokens.len() - expired;
            report.well(&format!(
                "tokens: every request needs one of {path}, which has {live} that are good, and {expired} that have expired"
            ));
            for token in &tokens {
                if let Some(ends) = token.ends_soon(now) {
                    let what = format!("tokens: {} ends on {}", token.name, auth::date(ends));
                    report.bad(&what, Some(Remedy::AnotherToken));
                }
            }
        }
        Err(error) => report.bad(&format!("tokens: {error}"), None),
    }
}

/// The files of tokens that others may read or change, which is not wise. Hashes may be read.
pub fn open_files_with_credentials(config: &Config) -> Vec<(String, Remedy)> {
    let first = config.auth.first_token_file.clone();
    let first = first.filter(|path| certificates::is_open_to_others(path));
    let first = first.map(|path| ("may read or change the token in", path));
    let file = Some(config.tokens_file()).filter(|path| {
        let mode = fs::metadata(path).map(|found| found.permissions().mode());
        mode.is_ok_and(|mode| mode & OTHERS_WRITE != 0)
    });
    let file = file.map(|path| ("may change the tokens file", path));
    let found = first.into_iter().chain(file);
    let found = found.map(|(may, path)| {
        let what = format!("others on this machine {may} {}", path.display());
        (what, Remedy::CloseFile { path })
    });
    found.collect()
}

/// About the files of TLS, if there is to be TLS, and the names that they are for.
pub fn certificate_findings(config: &Config) -> Vec<certificates::Finding> {
    CertificateFiles::of(&config.tls).map_or(Vec::new(), |files| {
        certificates::examine(&files, SystemTime::now(), &config.server.allowed_hosts)
    })
}

/// By binding it as the daemon does.
async fn examine_port(
    listen: &Listen,
    addresses: anyhow::Result<Vec<SocketAddr>>,
    setting: &'static str,
    running: bool,
    report: &mut Report<impl Write>,
) {
    let addresses = match addresses {
        Ok(addresses) => addresses,
        Err(error) => return report.bad(&format!("port: {error:#}"), None),
    };
    match Server::bind(&addresses, Limits::default()).await {
        Ok(_) => report.well(&format!("port: {listen} is free")),
        Err(error) if running && error.kind() == io::ErrorKind::AddrInUse => report.well(&format!(
            "port: {listen} is listened on, by the running satwatch presumably"
        )),
        Err(error) => report.bad(
            &format!("port: {listen} cannot be listened on: {error}"),
            app::listen_remedy(&error, setting),
        ),
    }
}

/// Writes findings and counts the bad ones.
struct Report<W> {
    out: W,
    problems: usize,
}

impl<W: Write> Report<W> {
    fn new(out: W) -> Self {
        Self { out, problems: 0 }
    }

    fn well(&mut self, what: &str) {
        self.line(&format!("  ok  {what}"));
    }

    /// Of the node.
    fn finding(&mut self, finding: &Finding) {
        let what = format!("node: {}", finding.what);
        match finding.ok {
            true => self.well(&what),
            false => self.bad(&what, finding.remedy.clone()),
        }
    }

    fn bad(&mut self, what: &str, remedy: Option<Remedy>) {
        self.problems += 1;
        self.line(&format!(" BAD  {what}"));
        if let Some(remedy) = remedy {
            self.line(&format!("      -> {remedy}"));
        }
    }

    fn finish(mut self) -> ExitCode {
        let sentence = match self.problems {
            0 => "all is well".to_owned(),
            1 => "1 problem".to_owned(),
            many => format!("{many} problems"),
        };
        self.line(&sentence);
        if self.problems == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// A reader that has gone away is no reason to stop: the exit code still says how it went.
    fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn said(examine: impl FnOnce(&mut Report<&mut Vec<u8>>)) -> String {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out);
        examine(&mut report);
        let _ = report.finish();
        String::from_utf8(out).expect("the report is text")
    }

    #[test]
    fn a_store_that_does_not_exist_yet_is_well_if_it_can_be_made() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = said(|report| assert!(!examine_store(&folder.path().join("a/b"), None, report)));
        assert!(
            text.contains("will be made at the first start") && text.ends_with("all is well\n"),
            "{text}"
        );
        assert_eq!(
            folder.path().read_dir().expect("readable").count(),
            0,
            "nothing is left behind"
        );
    }

    #[test]
    fn a_file_in_place_of_the_store_is_a_problem() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("written");
        let text = said(|report| assert!(!examine_store(&file.join("data"), None, report)));
        assert!(
            text.contains(" BAD  store: ")
                && text.contains("set store.path")
                && text.ends_with("1 problem\n"),
            "{text}"
        );
    }

    async fn said_of_port(listen: &str, running: bool) -> String {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out);
        let listen = listen.parse().expect("a host and a port");
        let addresses = app::listen_addresses(&listen).await;
        examine_port(&listen, addresses, app::LISTEN, running, &mut report).await;
        let _ = report.finish();
        String::from_utf8(out).expect("the report is text")
    }

    #[tokio::test]
    async fn a_taken_port_is_a_problem_unless_the_daemon_runs() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let listen = taken.local_addr().expect("an address").to_string();
        let free = Remedy::FreePort {
            setting: app::LISTEN,
        };
        let free = free.to_string();
        assert!(said_of_port(&listen, false).await.contains(&free));
        assert!(said_of_port(&listen, true).await.ends_with("all is well\n"));
        drop(taken);
        let text = said_of_port(&listen, false).await;
        assert!(text.ends_with("all is well\n"), "{text}");
    }

    #[test]
    fn another_program_is_the_cause_only_where_an_address_is_in_use() {
        let remedy = |kind| app::listen_remedy(&io::Error::from(kind), app::LISTEN);
        let setting = app::LISTEN;
        assert_eq!(
            remedy(io::ErrorKind::AddrInUse),
            Some(Remedy::FreePort { setting })
        );
        assert_eq!(
            remedy(io::ErrorKind::PermissionDenied),
            Some(Remedy::OpenPort { setting })
        );
        assert_eq!(remedy(io::ErrorKind::AddrNotAvailable), None);
    }

    #[test]
    fn every_problem_of_the_settings_is_a_line() {
        let error = Config::load(
            None,
            [
                ("SATWATCH__LOG__FORMAT".into(), "xml".into()),
                ("SATWATCH__A".into(), "b".into()),
            ],
            &[],
        )
        .expect_err("two problems");
        let mut out = Vec::new();
        let code = settings_are_wrong(&error, &mut out);
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text.matches(" BAD  settings: environment variable SATWATCH__")
                .count(),
            2,
            "{text}"
        );
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
    }

    #[test]
    fn tokens_of_a_store_that_cannot_be_read_are_not_known() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let db = folder.path().join("db");
        std::fs::create_dir(&db).expect("ours");
        let mut config = Config::default();
        config.store.path = folder.path().to_owned();
        let text = |config: &Config| said(|report| examine_credentials(config, &[], report));
        assert!(text(&config).contains("  ok  tokens: none"));
        std::fs::write(db.join("CURRENT"), "nonsense").expect("ours");
        let text = text(&config);
        assert!(text.contains(" BAD  tokens: not known"), "{text}");
    }
}
