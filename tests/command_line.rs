//! The binary as a person meets it: flags, settings, exit codes, signals and log lines, without a
//! node. Uses only `std` and a temporary folder, so this binary does not link the daemon. With a
//! node: `tests/daemon`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder can be made")
}

/// The binary in a folder of its own, with no home and none of our variables; no node answers at
/// its `rpc_url`.
fn satwatch(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_satwatch"));
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SATWATCH"))
    {
        command.env_remove(name);
    }
    command
        .args(args)
        .current_dir(folder)
        .env("HOME", folder)
        .stdin(Stdio::null());
    command
        .env("SATWATCH__BITCOIND__RPC_URL", "http://127.0.0.1:1")
        .env("SATWATCH__SERVER__LISTEN", "127.0.0.1:0");
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("cargo has built the binary");
    (
        status.code(),
        String::from_utf8_lossy(&stdout).into_owned(),
        String::from_utf8_lossy(&stderr).into_owned(),
    )
}

/// A running daemon whose log lines can be waited for. Dropping it ends the process.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cargo has built the binary");
        let stderr = child.stderr.take().expect("it is piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn line(&self, part: &str) -> String {
        let mut said = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => said.push(line),
                Err(_) => panic!("no line with {part:?} came, but:\n{}", said.join("\n")),
            }
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status()
            .expect("kill can be run");
        assert!(sent.success(), "the daemon has ended already");
    }

    fn ends_with(&mut self) -> Option<i32> {
        self.child.wait().expect("it is our child").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_says_its_version_and_its_flags() {
    let folder = folder();
    let (code, out, _) = run(&mut satwatch(folder.path(), &["--version"]));
    assert_eq!(
        (code, out.trim()),
        (Some(0), concat!("satwatch ", env!("CARGO_PKG_VERSION")))
    );
    let (code, out, _) = run(&mut satwatch(folder.path(), &["--help"]));
    assert_eq!(code, Some(0));
    for word in [
        "run",
        "doctor",
        "--settings",
        "--data-dir",
        "--listen",
        "--check",
        "--version",
    ] {
        assert!(out.contains(word), "{word} is missing in:\n{out}");
    }
    assert_eq!(
        run(&mut satwatch(folder.path(), &["walk"])).0,
        Some(2),
        "an unknown command"
    );
}

#[test]
fn what_may_be_a_key_is_not_shown_again() {
    let folder = folder();
    let key = "tprv8ZgxMBicQKsPd7Uf69XL1XwhmjHopUGep8GuEiJDZmbQz6o58LninorQAfcKZWARb";
    let with_password = "user:a-long-password@node.example";
    let (url, seed) = (
        format!("ftp://{with_password}"),
        "market nothing ".repeat(6),
    );
    let url_flag = format!("--url={url}");
    let flag = format!("--{key}");
    for (words, secret) in [
        (&[key][..], key),
        (&[&seed], "market"),
        (&["run", key], key),
        (&["doctor", &seed], "market"),
        (&["watch", "--url", &url, "x"], with_password),
        (&["watch", &url_flag, "x"], with_password),
        (&["watch", "--url", "http://a:bc@n", "x"], "a:bc@n"),
        (&["token", "new", "--scope", key], key),
        (&["watch", &flag], key),
    ] {
        let (code, out, said) = run(&mut satwatch(folder.path(), words));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("(not shown)"), "{said}");
        assert!(
            !out.contains(secret) && !said.contains(secret),
            "{out}{said}"
        );
    }
    let (_, _, said) = run(&mut satwatch(folder.path(), &["wach"]));
    assert!(
        said.contains("'wach'") && said.contains("'watch'"),
        "{said}"
    );
}

/// All commands, as their words.
const COMMANDS: &[&[&str]] = &[
    &["run"],
    &["doctor"],
    &["cert", "new"],
    &["token", "new"],
    &["token", "list"],
    &["token", "revoke"],
    &["token", "off"],
    &["token", "accept"],
    &["token", "generate"],
    &["watch"],
    &["completions"],
    &["man"],
];

#[test]
fn every_command_has_a_help_with_examples_and_a_manual_page() {
    let folder = folder();
    std::fs::write(folder.path().join("settings.toml"), "wrong").expect("written");
    let (_, whole, _) = run(&mut satwatch(folder.path(), &["man"]));
    for words in COMMANDS {
        let (code, help, _) = run(&mut satwatch(
            folder.path(),
            &[words, &["--help"][..]].concat(),
        ));
        assert_eq!(code, Some(0), "{words:?}");
        let example = format!("\n  satwatch {}", words.join(" "));
        assert!(help.contains(&example), "{words:?}: {help}");
        let (code, page, log) = run(&mut satwatch(folder.path(), &[&["man"], *words].concat()));
        assert_eq!((code, &*log), (Some(0), ""), "{words:?}");
        let name = format!("satwatch\\-{}", words.join("\\-"));
        assert!(page.contains(&name), "{name}: {page}");
        let listed = format!("satwatch\\-{}(1)", words[0]);
        assert!(whole.contains(&listed), "{listed}: {whole}");
        formats(&page);
    }
    formats(&whole);
    let (code, out, log) = run(&mut satwatch(folder.path(), &["man", "token", "gold"]));
    assert_eq!((code, &*out), (Some(1), ""));
    assert_eq!(log, "token has no command \"gold\"\n");
}

/// Without a warning, by groff where it is installed.
fn formats(page: &str) {
    let groff = Command::new("groff")
        .args(["-man", "-Tutf8", "-ww", "-z"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut groff = match groff {
        Ok(groff) => groff,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => panic!("groff: {error}"),
    };
    let mut stdin = groff.stdin.take().expect("it is piped");
    stdin.write_all(page.as_bytes()).expect("groff reads");
    drop(stdin);
    let said = groff.wait_with_output().expect("it ends").stderr;
    assert!(
        said.is_empty(),
        "{}\n{page}",
        String::from_utf8_lossy(&said)
    );
}

#[test]
fn bash_completes_commands_and_flags() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, log) = run(&mut satwatch(folder.path(), &["completions", shell]));
        assert_eq!((code, &*log), (Some(0), ""), "{shell}");
        for words in COMMANDS {
            assert!(script.contains(words[0]), "{shell}: {words:?}");
        }
        std::fs::write(folder.path().join(shell), script).expect("written");
    }
    let bash = |script: &str| {
        let mut bash = Command::new("bash");
        run(bash
            .current_dir(folder.path())
            .args(["--norc", "-c", script]))
    };
    assert_eq!(
        bash("bash -n ./bash"),
        (Some(0), String::new(), String::new())
    );
    // As bash calls it: the words, which of them is completed, and that one and the one before.
    for (words, completed, expected) in [
        ("satwatch wat", "wat", "watch"),
        ("satwatch token re", "re", "revoke"),
        ("satwatch watch --tok", "--tok", "--token-file"),
        ("satwatch completions fi", "fi", "fish"),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let (line, last) = (words.join(" "), words.len() - 1);
        let before = words[last - 1];
        let (code, out, log) = bash(&format!(
            ". ./bash; COMP_WORDS=({line}); COMP_CWORD={last}; _satwatch satwatch {completed} {before}; echo \"${{COMPREPLY[@]}}\""
        ));
        assert_eq!((code, out.trim(), &*log), (Some(0), expected, ""), "{line}");
    }
}

#[test]
fn a_wrong_setting_stops_the_start_with_its_name_and_place() {
    let folder = folder();
    std::fs::write(
        folder.path().join("settings.toml"),
        "[server]\nport = 5005\n",
    )
    .expect("written");
    for args in [&["run"][..], &[], &["--check"], &["run", "--check"]] {
        let (code, out, log) = run(&mut satwatch(folder.path(), args));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{log}");
        assert!(
            log.starts_with(
                "settings.toml: server.port: unknown setting, expected one of listen, "
            ),
            "{log}"
        );
    }
    let (code, out, _) = run(&mut satwatch(folder.path(), &["doctor"]));
    assert_eq!(code, Some(1));
    assert!(
        out.contains(" BAD  settings: settings.toml: server.port: unknown setting"),
        "{out}"
    );
    std::fs::write(
        folder.path().join("settings.toml"),
        "[monitor]\nreconcile_interval = 0\n[limits]\nconsumers = 0\n",
    )
    .expect("written");
    let (code, _, log) = run(&mut satwatch(folder.path(), &["--check"]));
    assert_eq!(code, Some(2));
    for wrong in ["monitor.reconcile_interval = 0", "limits.consumers = 0"] {
        let problem = format!("settings.toml: {wrong} is not valid: expected a whole number");
        assert!(log.contains(&problem), "{log}");
    }
    let (code, _, log) = run(satwatch(folder.path(), &["--settings", "none.toml"])
        .env("SATWATCH__SERVER__LISTEN", "0.0.0.0:5005"));
    assert_eq!(code, Some(2));
    assert!(
        log.contains("none.toml: cannot read the settings file"),
        "{log}"
    );
    assert!(!folder.path().join("data").exists(), "nothing was made");
}

#[test]
fn others_cannot_be_listened_to_without_tokens() {
    let folder = folder();
    let (code, _, log) = run(&mut satwatch(folder.path(), &["--listen", "0.0.0.0:0"]));
    assert_eq!(code, Some(2));
    assert!(
        log.starts_with("--listen: server.listen = 0.0.0.0:0 is reachable by others"),
        "{log}"
    );
}

#[test]
fn check_says_where_the_settings_come_from() {
    let folder = folder();
    let (code, out, _) = run(&mut satwatch(folder.path(), &["--check"]));
    assert_eq!(
        (code, out.as_str()),
        (
            Some(0),
            "the settings are good (built-in defaults and environment)\n"
        )
    );
    std::fs::write(
        folder.path().join("settings.toml"),
        include_str!("../settings.toml"),
    )
    .expect("written");
    let (code, out, _) = run(&mut satwatch(folder.path(), &["--check"]));
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "the settings are good (settings.toml)\n")
    );
    let mut check = satwatch(folder.path(), &["run", "--check"]);
    let (code, _, log) = run(check.env("SATWATCH_X", "1"));
    assert_eq!(code, Some(0));
    assert!(log.contains(": SATWATCH_X\n"), "{log}");
    for args in [["--check", "doctor"], ["doctor", "--check"]] {
        let (code, out, log) = run(&mut satwatch(folder.path(), &args));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{log}");
        assert!(log.contains("they exclude each other"), "{log}");
    }
}

/// What stands commented out there, too.
#[test]
fn every_example_of_the_settings_file_is_accepted() {
    let folder = folder();
    let is_setting = |line: &&str| {
        let name = line
            .strip_prefix("# ")
            .and_then(|line| line.split_once(" = "));
        name.is_some_and(|(name, _)| name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'))
    };
    let text = include_str!("../settings.toml");
    assert!(text.lines().filter(is_setting).count() >= 7);
    let whole: String = text
        .lines()
        .map(|line| match is_setting(&line) {
            true => format!("{}\n", &line[2..]),
            false => format!("{line}\n"),
        })
        .collect();
    // `--check` reads the files that the settings name.
    let (code, token, _) = run(&mut satwatch(folder.path(), &["token", "generate"]));
    assert_eq!(code, Some(0));
    std::fs::write(folder.path().join("first_token"), token).expect("written");
    let (code, _, log) = run(&mut satwatch(folder.path(), &["cert", "new"]));
    assert_eq!(code, Some(0), "{log}");
    let mut whole = whole;
    for (example, made) in [
        ("/etc/satwatch/cert.pem", "cert.pem"),
        ("/etc/satwatch/key.pem", "key.pem"),
        ("/run/secrets/satwatch_first_token", "first_token"),
    ] {
        assert!(whole.contains(example), "{example}");
        whole = whole.replace(example, &folder.path().join(made).to_string_lossy());
    }
    std::fs::write(folder.path().join("settings.toml"), whole).expect("written");
    let (code, _, log) = run(&mut satwatch(folder.path(), &["--check"]));
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn a_reader_that_goes_away_does_not_make_a_command_fail() {
    let folder = folder();
    for words in [&["cert", "new"][..], &["token", "generate"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = satwatch(folder.path(), words);
        let (code, _, log) = run(command.stdout(writer));
        assert_eq!((code, &*log), (Some(0), ""), "{words:?}");
    }
    assert!(folder.path().join("cert.pem").exists());
}

#[test]
fn what_cert_new_prints_for_the_settings_is_good_in_a_folder_of_any_name() {
    let folder = folder();
    let folder = folder.path().join("a \"b\" \\ c");
    std::fs::create_dir(&folder).expect("it is new");
    let (code, out, log) = run(&mut satwatch(
        &folder,
        &["cert", "new", "--listen", "127.0.0.1:0"],
    ));
    assert_eq!(code, Some(0), "{log}");
    assert!(out.contains("https://localhost:PORT/status"), "{out}");
    let (_, rest) = out.split_once("[server.tls]").expect("the section");
    let (section, _) = rest.split_once("\n\n").expect("its end");
    let settings = format!("[server.tls]{section}\n");
    std::fs::write(folder.join("settings.toml"), settings).expect("written");
    let (code, _, log) = run(&mut satwatch(&folder, &["--check"]));
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn doctor_says_what_to_do_without_a_node_and_leaves_nothing_behind() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = taken.local_addr().expect("an address").to_string();
    let (code, out, _) = run(&mut satwatch(
        folder.path(),
        &["doctor", "--listen", &listen],
    ));
    assert_eq!(code, Some(1));
    assert!(
        out.contains("  ok  settings: built-in defaults and environment"),
        "{out}"
    );
    assert!(out.contains(" BAD  node: "), "{out}");
    assert!(
        out.contains("  ok  store: data will be made at the first start"),
        "{out}"
    );
    assert!(
        out.contains(&format!(" BAD  port: {listen} cannot be listened on"))
            && out.contains("-> set server.listen"),
        "{out}"
    );
    assert!(out.ends_with("2 problems\n"), "{out}");
    assert_eq!(folder.path().read_dir().expect("readable").count(), 0);
}

#[test]
fn a_new_store_waits_for_the_node_and_signals_are_heard_meanwhile() {
    let folder = folder();
    std::fs::write(folder.path().join("cookie"), "__cookie__:00").expect("written");
    let mut command = satwatch(folder.path(), &["run"]);
    command
        .env("SATWATCH__BITCOIND__COOKIE_FILE", "cookie")
        .env("SATWATCH__LOG__FORMAT", "json");
    let mut running = Running::start(&mut command);
    let line = running.line("waiting for the node");
    assert!(
        line.starts_with('{') && line.ends_with('}') && line.contains(r#""level":"WARN""#),
        "{line}"
    );
    running.signal("-HUP");
    running.line("SIGHUP");
    running.signal("-TERM");
    running.line("stopped before the start was complete");
    assert_eq!(running.ends_with(), Some(0));
}

#[test]
fn log_lines_have_no_colours_when_nobody_sees_them() {
    let folder = folder();
    std::fs::write(folder.path().join("cookie"), "__cookie__:00").expect("written");
    let running = Running::start(
        satwatch(folder.path(), &[]).env("SATWATCH__BITCOIND__COOKIE_FILE", "cookie"),
    );
    let line = running.line("satwatch starts");
    assert!(!line.contains('\u{1b}'), "{line:?}");
}
