//! A Redis of its own: Debian's redis-server in a temporary folder, on a free port. Dropping it
//! ends the process.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use redis::{Client, Connection, FromRedisValue};
use tempfile::TempDir;

use super::node::free_port;
use super::wait_until;

pub struct RedisServer {
    folder: TempDir,
    pub port: u16,
    arguments: Vec<String>,
    password: Option<String>,
    process: Option<Child>,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With lines of `redis.conf`, as arguments: `["--requirepass", "x"]`. It saves only when it is
    /// told to.
    pub fn with(arguments: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("satwatch-redis-")
            .tempdir()
            .expect("a temporary folder can be made");
        let mut words = arguments.iter();
        let password = words.find(|word| **word == "--requirepass");
        let password = password.and_then(|_| words.next());
        let mut server = Self {
            folder,
            port: free_port(),
            password: password.map(|word| (*word).to_owned()),
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            process: None,
        };
        server.restart();
        server
    }

    /// A Sentinel with this file.
    pub fn sentinel(conf: &str) -> Self {
        Self::with(&[conf, "--sentinel"])
    }

    /// Starts it again, with what it has saved.
    pub fn restart(&mut self) {
        let log = fs::File::create(self.folder.path().join("log")).expect("the folder is ours");
        let mut command = Command::new("redis-server");
        let port = self.port.to_string();
        // A file comes first, and a Sentinel saves nothing.
        match self.arguments.ends_with(&["--sentinel".to_owned()]) {
            true => command.args(&self.arguments).args(["--port", &port]),
            false => command
                .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
                .args(&self.arguments),
        };
        let child = command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is missing: run contrib/setup.sh");
        self.process = Some(child);
        wait_until("redis-server answers", || {
            self.try_ask::<String>(&["PING"]).ok()
        });
    }

    /// Ends it without any warning.
    pub fn kill(&mut self) {
        let mut child = self.process.take().expect("it runs");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    pub fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("it runs");
        let sent = Command::new("kill")
            .args([name, &process.id().to_string()])
            .status();
        assert!(sent.expect("kill can be run").success());
    }

    /// Without a password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn connection(&self) -> redis::RedisResult<Connection> {
        let login = self.password.as_ref().map(|it| format!(":{it}@"));
        let login = login.unwrap_or_default();
        let url = format!("redis://{login}127.0.0.1:{}", self.port);
        Client::open(url)?.get_connection()
    }

    pub fn try_ask<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut connection = self.connection()?;
        let (name, rest) = words.split_first().expect("a command");
        redis::cmd(name).arg(rest).query(&mut connection)
    }

    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words)
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
