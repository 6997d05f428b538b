//! The daemon, or an edge of one, as a child process, and requests to it.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{Node, RedisServer, http, tls, wait_until};

/// After SIGTERM it is given so long until it is killed: the five seconds that it promises, and
/// those in which this machine may be busy.
const STOP_TIME: Duration = Duration::from_secs(8);

/// A running daemon with a store of its own. Dropping it ends the process and removes the store.
///
/// An edge (`satwatch edge`) is one without a store: everything here that asks over HTTP is for
/// both.
pub struct Daemon {
    /// `run` or `edge`.
    word: &'static str,
    folder: TempDir,
    settings: Vec<(String, String)>,
    /// What runs it, with arguments: nothing as a rule.
    runner: Vec<String>,
    process: Option<Child>,
    /// As its log says it: `127.0.0.1:5005`.
    address: String,
}

/// An HTTP answer. `json` is null when the body is none.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: hyper::HeaderMap,
    pub text: String,
    pub json: Value,
}

impl Daemon {
    /// Starts it beside `node`, on a port that it picks, and waits until it follows the node.
    pub fn start(node: &Node) -> Self {
        Self::with(node, &[])
    }

    /// The same with settings, named as in `settings.toml`: `("monitor.reconcile_interval", "1")`.
    pub fn with(node: &Node, settings: &[(&str, &str)]) -> Self {
        let daemon = Self::launched(node, settings);
        daemon.wait_ready();
        daemon
    }

    /// Starts it, waiting only until it listens.
    pub fn launched(node: &Node, settings: &[(&str, &str)]) -> Self {
        Self::launched_by(&[], node, settings)
    }

    /// The same as an argument of another program, such as `prlimit`.
    pub fn launched_by(runner: &[&str], node: &Node, settings: &[(&str, &str)]) -> Self {
        let (url, cookie) = (node.rpc_url(), node.cookie_file().display().to_string());
        let of_node = [
            ("bitcoind.rpc_url", &*url),
            ("bitcoind.cookie_file", &cookie),
        ];
        let mut daemon = Self::prepared("run", &[&of_node, settings].concat());
        daemon.runner = runner.iter().map(|word| (*word).to_owned()).collect();
        let store = daemon.store().display().to_string();
        daemon.settings.insert(0, ("store.path".to_owned(), store));
        daemon.launch();
        daemon
    }

    /// An edge of the primary at this URL, not started.
    pub fn edge(primary: &str, redis: &RedisServer, settings: &[(&str, &str)]) -> Self {
        let bus = redis.url();
        let of_edge = [("edge.upstream", primary), ("bus.url", &bus)];
        Self::prepared("edge", &[&of_edge, settings].concat())
    }

    /// Not started. Of two settings with the same name the later one holds.
    fn prepared(word: &'static str, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("satwatch-daemon-")
            .tempdir()
            .expect("a temporary folder can be made");
        let always = [("server.listen", "127.0.0.1:0"), ("log.level", "debug")];
        let all = always.iter().chain(settings);
        let all = all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self {
            word,
            folder,
            settings: all.collect(),
            runner: Vec::new(),
            process: None,
            address: String::new(),
        }
    }

    /// Starts it again on its store, waiting for nothing.
    pub fn begin(&mut self) {
        let log = File::create(self.log_path()).expect("the folder is ours");
        self.process = Some(
            self.command()
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("cargo has built the binary"),
        );
    }

    fn launch(&mut self) {
        self.begin();
        self.wait_listening();
    }

    /// Waits until its log names the address.
    pub fn wait_listening(&mut self) {
        self.address = wait_until("the log line that names the address", || {
            if let Some(status) = self.exited() {
                panic!(
                    "the daemon ended at its start with {status}:\n{}",
                    self.log()
                );
            }
            address_in(&self.log())
        });
    }

    /// Waits until it follows the node's tip and its feeds.
    pub fn wait_ready(&self) {
        let mut last = String::new();
        let ready = super::wait_for(super::DEADLINE, || {
            let answer = self.get("/health/ready");
            last = answer.text;
            (answer.status == 200).then_some(())
        });
        assert!(
            ready.is_some(),
            "the daemon never became ready: {last}\n{}",
            self.log()
        );
    }

    /// Ends it as an operator does and checks that it says 0.
    pub fn stop(&mut self) {
        let status = self.terminate();
        assert!(
            status.success(),
            "SIGTERM ended the daemon with {status}:\n{}",
            self.log()
        );
    }

    fn terminate(&mut self) -> ExitStatus {
        let mut child = self.process.take().expect("the daemon runs");
        let sent = Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status()
            .expect("kill can be run");
        assert!(
            sent.success(),
            "the daemon had already ended:\n{}",
            self.log()
        );
        let ended = super::wait_for(STOP_TIME, || {
            child.try_wait().expect("the daemon is our child")
        });
        ended.unwrap_or_else(|| {
            child.kill().expect("the daemon is our child");
            child.wait().expect("the daemon is our child")
        })
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let mut child = self.process.take().expect("the daemon runs");
        child.wait().expect("the daemon is our child")
    }

    /// Ends it without any warning.
    pub fn kill(&mut self) {
        let mut child = self.process.take().expect("the daemon runs");
        child.kill().expect("the daemon is our child");
        child.wait().expect("the daemon is our child");
    }

    /// Starts it again on its store, and waits until it follows the node.
    pub fn restart(&mut self) {
        self.launch();
        self.wait_ready();
    }

    /// Starts it again on its store, waiting only until it listens.
    pub fn launch_again(&mut self) {
        self.launch();
    }

    /// Runs another daemon with the same settings until it ends; what it said.
    pub fn second(&self) -> Output {
        self.command()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .expect("cargo has built the binary")
    }

    fn command(&self) -> Command {
        self.command_of(&[self.word])
    }

    /// The binary with its settings and other words.
    pub fn command_of(&self, arguments: &[&str]) -> Command {
        let words: Vec<&str> = self
            .runner
            .iter()
            .map(String::as_str)
            .chain([env!("CARGO_BIN_EXE_satwatch")])
            .collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SATWATCH"))
        {
            command.env_remove(name);
        }
        for (name, value) in &self.settings {
            command.env(twin(name), value);
        }
        // The folder has no settings.toml, so the defaults are the built-in ones.
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        self.process
            .as_mut()
            .and_then(|child| child.try_wait().expect("the daemon is our child"))
    }

    /// The running process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the daemon runs").id()
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_some() && self.exited().is_none()
    }

    /// Changes a setting for its next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.unset(name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Takes a setting away for its next start.
    pub fn unset(&mut self, name: &str) {
        self.settings.retain(|(known, _)| known != name);
    }

    /// Has the port that it picked for its next starts, too.
    pub fn keep_port(&mut self) {
        let address = self.address.clone();
        self.set("server.listen", &address);
    }

    /// `settings.toml`, which it reads at its start if it is there, and after [`Self::hang_up`].
    pub fn settings_file(&self) -> PathBuf {
        self.folder.path().join("settings.toml")
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        let sent = Command::new("kill")
            .args(["-HUP", &self.pid().to_string()])
            .status()
            .expect("kill can be run");
        assert!(sent.success(), "the daemon has ended:\n{}", self.log());
    }

    /// Has it read its settings again, with this file, or none.
    pub fn reread(&self, toml: Option<&str>) {
        // What the log says each time.
        const DONE: [&str; 2] = [
            "the settings were read again",
            "the settings of before stay in force",
        ];
        let times = || {
            let log = self.log();
            let said = |line: &&str| DONE.iter().any(|words| line.contains(words));
            log.lines().filter(said).count()
        };
        match toml {
            Some(toml) => fs::write(self.settings_file(), toml),
            None => fs::remove_file(self.settings_file()),
        }
        .expect("the folder is ours");
        let before = times();
        self.hang_up();
        wait_until("the settings are read again", || {
            (times() > before).then_some(())
        });
    }

    /// The folder of its store.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn port(&self) -> u16 {
        let (_, port) = self.address.rsplit_once(':').expect("host and port");
        port.parse().expect("a port is a number")
    }

    pub fn url(&self) -> String {
        let scheme = match self.certificate() {
            Some(_) => "https",
            None => "http",
        };
        format!("{scheme}://{}", self.address)
    }

    /// What clients are to trust, if it speaks TLS.
    pub fn certificate(&self) -> Option<PathBuf> {
        let mut settings = self.settings.iter();
        let found = settings.find(|(name, _)| name == "server.tls.cert");
        found.map(|(_, path)| path.into())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], None)
    }

    /// POST with a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(
            "POST",
            path,
            &[("Content-Type", "application/json")],
            Some(body.to_string().as_bytes()),
        )
    }

    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let answer = self.try_request(method, path, headers, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }

    fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> io::Result<Answer> {
        let url = format!("{}{path}", self.url());
        match self.certificate() {
            None => request(method, &url, headers, body),
            Some(certificate) => {
                let stream = tls::connect(self.port(), &certificate, tls::VERSIONS);
                stream.and_then(|stream| {
                    let body = body.unwrap_or_default();
                    http::exchange(stream, method, &url, headers, body).and_then(Answer::of)
                })
            }
        }
    }

    /// Adds an address and waits until its balance is whole.
    pub fn watch(&self, address: &str) {
        let added = self.post("/add_address", &serde_json::json!({ "address": address }));
        assert_eq!(added.status, 200, "{}", added.text);
        self.wait_complete(address);
    }

    /// Waits until all is known about what the address had when it was added.
    pub fn wait_complete(&self, address: &str) {
        wait_until("the confirmed balance from before is found", || {
            (self.balance(address)["coverage"]["complete"] == true).then_some(())
        });
    }

    /// The body of `GET /balance/{address}`.
    pub fn balance(&self, address: &str) -> Value {
        let answer = self.get(&format!("/balance/{address}"));
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json
    }

    /// All that REST says of an address, without the place in the log and the time.
    pub fn state(&self, address: &str) -> [Value; 3] {
        let paths = [
            format!("/balance/{address}"),
            format!("/transactions/{address}?limit=1000"),
            format!("/utxos/{address}?include_spent=true"),
        ];
        paths.map(|path| {
            let mut answer = self.get(&path).json;
            for volatile in ["cursor", "last_updated"] {
                answer.as_object_mut().expect("an object").remove(volatile);
            }
            answer
        })
    }

    /// Waits until `GET /balance` says that confirmed and unconfirmed balance are these.
    pub fn wait_balance(&self, address: &str, confirmed: i64, unconfirmed: i64) {
        let mut last = Value::Null;
        let right = super::wait_for(super::DEADLINE, || {
            last = self.balance(address);
            (last["confirmed_balance"] == confirmed && last["unconfirmed_balance"] == unconfirmed)
                .then_some(())
        });
        assert!(
            right.is_some(),
            "expected {confirmed} confirmed and {unconfirmed} unconfirmed, got {last}\n{}",
            self.log()
        );
    }

    /// Waits until the daemon's tip is the node's.
    pub fn wait_tip(&self, node: &Node) {
        let tip = node.tip();
        wait_until("the daemon follows to the node's tip", || {
            (self.get("/status").json["tip"]["hash"] == *tip).then_some(())
        });
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for path in ["/status", "/events?limit=1000"] {
                let told = self.try_request("GET", path, &[], None);
                let told = told.map(|answer| answer.text);
                eprintln!("--- the daemon's {path}\n{told:?}");
            }
        }
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!(
                "--- the daemon's log\n{}--- end of the daemon's log",
                self.log()
            );
        }
    }
}

/// The environment twin of a setting: `server.listen` is `SATWATCH__SERVER__LISTEN`. A name without
/// a dot is no setting, but a variable itself.
fn twin(name: &str) -> String {
    if !name.contains('.') {
        return name.to_owned();
    }
    format!("SATWATCH__{}", name.replace('.', "__").to_uppercase())
}

/// One HTTP request on a connection of its own.
pub fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> io::Result<Answer> {
    let body = body.unwrap_or_default();
    http::send(method, url, headers, body, Duration::from_secs(60)).and_then(Answer::of)
}

impl Answer {
    fn of(answer: http::Response) -> io::Result<Self> {
        let text = String::from_utf8(answer.body).map_err(io::Error::other)?;
        Ok(Self {
            status: answer.status,
            headers: answer.headers,
            json: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        })
    }
}

/// The first address in `listening on http://127.0.0.1:PORT`, be the line text or JSON.
fn address_in(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("listening on http")?;
    let rest = rest.strip_prefix('s').unwrap_or(rest).strip_prefix("://")?;
    // A number that ends with the text may be half a number.
    let end = rest.find(|c: char| !c.is_ascii_hexdigit() && !".:[]".contains(c))?;
    Some(rest[..end].to_owned())
}
