//! A script in another language, or a command, as a child process: the stock clients, as their
//! users run them.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

use super::{installed, repository, wait_for};

/// A running script; what it prints is kept line by line. Dropping it ends the process.
pub struct Program {
    name: String,
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
    collectors: Vec<JoinHandle<()>>,
}

impl Program {
    /// `tests/clients/{script}` under Node.js, with the packages that contrib/setup.sh installs.
    pub fn node(script: &str, args: &[&str]) -> Self {
        Self::start(node_command(), script, args)
    }

    /// JavaScript text under Node.js.
    pub fn node_text(name: &str, text: &str) -> Self {
        let mut command = node_command();
        command.args(["-e", text]);
        Self::spawn(command, name)
    }

    /// `tests/clients/{script}` under Python, with the packages that contrib/setup.sh installs.
    pub fn python(script: &str, args: &[&str]) -> Self {
        Self::start(python_command(), script, args)
    }

    /// The same with the clients of Socket.IO 2, which have an environment of their own.
    pub fn python_eio3(script: &str, args: &[&str]) -> Self {
        Self::start(python_in("python-eio3"), script, args)
    }

    /// Python text.
    pub fn python_text(name: &str, text: &str) -> Self {
        let mut command = python_command();
        command.args(["-c", text]);
        Self::spawn(command, name)
    }

    /// The same with variables in its environment.
    pub fn node_in(environment: &[(&str, &str)], script: &str, args: &[&str]) -> Self {
        let mut command = node_command();
        command.envs(environment.iter().copied());
        Self::start(command, script, args)
    }

    /// Likewise.
    pub fn python_in(environment: &[(&str, &str)], script: &str, args: &[&str]) -> Self {
        let mut command = python_command();
        command.envs(environment.iter().copied());
        Self::start(command, script, args)
    }

    fn start(mut command: Command, script: &str, args: &[&str]) -> Self {
        command
            .arg(repository().join("tests/clients").join(script))
            .args(args);
        Self::spawn(command, script)
    }

    /// Any command.
    pub fn of(command: Command, name: &str) -> Self {
        Self::spawn(command, name)
    }

    fn spawn(mut command: Command, name: &str) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be run ({error}): run contrib/setup.sh"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let collectors = vec![
            collect(
                process.stdout.take().expect("it is piped"),
                Arc::clone(&lines),
            ),
            collect(
                process.stderr.take().expect("it is piped"),
                Arc::clone(&lines),
            ),
        ];
        Self {
            name: name.to_owned(),
            process,
            lines,
            collectors,
        }
    }

    /// Ends it without any warning; everything that it has printed is there then.
    pub fn kill(&mut self) {
        self.process.kill().expect("it is our child");
        self.process.wait().expect("it is our child");
        for collector in self.collectors.drain(..) {
            collector.join().expect("reading lines does not panic");
        }
    }

    /// Ends it as a terminal does with Ctrl-C: how it ended.
    pub fn interrupt(&mut self) -> ExitStatus {
        let sent = Command::new("kill")
            .args(["-INT", &self.process.id().to_string()])
            .status();
        let sent = sent.expect("kill can be run");
        assert!(sent.success(), "{} has ended already", self.name);
        let ended = wait_for(super::DEADLINE, || {
            self.process.try_wait().expect("it is our child")
        });
        ended.unwrap_or_else(|| panic!("{} does not end", self.name))
    }

    /// Everything printed so far, standard error too.
    pub fn lines(&self) -> Vec<String> {
        self.lines
            .lock()
            .expect("no test panics while holding it")
            .clone()
    }

    /// The first line that `find` finds something in, printed already or waited for.
    pub fn line<T>(&self, what: &str, find: impl FnMut(&str) -> Option<T>) -> T {
        self.line_within(super::DEADLINE, find).unwrap_or_else(|| {
            panic!(
                "{} never printed {what}. It printed:\n{}",
                self.name,
                self.lines().join("\n")
            )
        })
    }

    pub fn line_within<T>(
        &self,
        time: std::time::Duration,
        mut find: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        wait_for(time, || self.lines().iter().find_map(|line| find(line)))
    }

    /// The data of the first `{"event", "data"}` line of that name that is `right`.
    pub fn event(&self, name: &str, mut right: impl FnMut(&Value) -> bool) -> Value {
        self.line(&format!("a fitting {name}"), |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["event"] == name && right(&line["data"])).then(|| line["data"].clone())
        })
    }

    /// Waits until it ends by itself and checks that it says 0.
    pub fn ends_well(&mut self) {
        self.ends(0);
    }

    /// Waits until it ends by itself with this exit code: all that it printed.
    pub fn ends(&mut self, code: i32) -> String {
        let status = wait_for(super::DEADLINE, || {
            self.process.try_wait().expect("it is our child")
        });
        let said = self.lines().join("\n");
        let status =
            status.unwrap_or_else(|| panic!("{} does not end. It printed:\n{said}", self.name));
        // Something that it has started may still hold its output.
        wait_for(super::DEADLINE, || {
            let mut collectors = self.collectors.iter();
            collectors.all(JoinHandle::is_finished).then_some(())
        });
        let said = self.lines().join("\n");
        assert_eq!(
            status.code(),
            Some(code),
            "{} ended with {status}. It printed:\n{said}",
            self.name
        );
        said
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn collect(
    output: impl std::io::Read + Send + 'static,
    lines: Arc<Mutex<Vec<String>>>,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            lines
                .lock()
                .expect("no test panics while holding it")
                .push(line);
        }
    })
}

/// Node.js that finds the installed packages.
pub fn node_command() -> Command {
    let packages = found(installed().join("js/node_modules"));
    let mut command = Command::new("node");
    command.env("NODE_PATH", packages);
    command
}

pub fn python_command() -> Command {
    python_in("python")
}

fn python_in(environment: &str) -> Command {
    let mut command = Command::new(found(installed().join(environment).join("bin/python")));
    command.env("PYTHONUNBUFFERED", "1");
    command
}

fn found(path: PathBuf) -> PathBuf {
    assert!(
        path.exists(),
        "{} is missing: run contrib/setup.sh, which installs the stock clients",
        path.display()
    );
    path
}
