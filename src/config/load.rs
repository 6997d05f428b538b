//! From a file, the environment and flags to a checked [`Config`].

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};

use ::config::{
    ConfigError as SourceError, Environment, File, FileFormat, Source, Value, ValueKind,
};

use super::read::Given;
use super::{Config, NAMES};
use crate::remedy::Remedy;

/// Variables that start like this are ours; an unknown one is an error.
const PREFIX: &str = "SATWATCH__";

/// Settings of earlier builds. They do not stop the start.
const GONE: [&str; 3] = [
    "limits.audit_interval",
    "limits.queue_bytes",
    "limits.queue_messages",
];

/// A setting given on the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// As it is written: `--listen`.
    pub flag: &'static str,
    pub section: &'static str,
    pub setting: &'static str,
    pub value: String,
}

/// Everything that is wrong with the settings, one line each, which begins with the place: a file,
/// a variable or a flag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct ConfigError {
    pub problems: Vec<String>,
}

impl Config {
    /// The settings from `file`, the environment and `flags`, later ones winning; what none of them
    /// names keeps its default. Each value of each source must be good; if all are, what settings
    /// need of each other is looked at.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Flag],
    ) -> Result<Self, ConfigError> {
        let mut sources = Sources::default();
        if let Some(path) = file {
            sources.add_file(path);
        }
        sources.load(environment, flags)
    }
}

/// [`Config::load`] with the text of a file, and no flags.
pub fn load_text(
    place: &str,
    text: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, ConfigError> {
    let mut sources = Sources::default();
    sources.add_text(place, text);
    sources.load(environment, &[])
}

/// The credential of a service manager that holds the first token.
const FIRST_TOKEN: &str = "satwatch_first_token";
/// A token, for clients of ours.
const FOR_CLIENTS: &str = "SATWATCH_TOKEN";

/// Of these variables those that look as if they were for us, and set nothing.
pub fn overlooked(environment: impl Iterator<Item = OsString>) -> Vec<String> {
    let names = environment.filter_map(|name| name.into_string().ok());
    let is_like_ours = |name: &String| {
        let upper = name.to_ascii_uppercase();
        (upper == "SATWATCH" || upper.starts_with("SATWATCH_"))
            && !name.starts_with(PREFIX)
            && name != FOR_CLIENTS
    };
    names.filter(is_like_ours).collect()
}

/// What the sources say, in the order in which later ones win.
#[derive(Default)]
struct Sources {
    config: Config,
    /// Where a setting was given last.
    places: HashMap<String, String>,
    problems: Vec<String>,
}

impl Sources {
    /// Behind a file: the environment and flags.
    fn load(
        mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Flag],
    ) -> Result<Config, ConfigError> {
        let (mut home, mut credentials) = (None, None);
        for (name, value) in environment {
            if name == "HOME" && !value.is_empty() {
                home = Some(PathBuf::from(&value));
            }
            if name == "CREDENTIALS_DIRECTORY" {
                credentials = Some(PathBuf::from(&value).join(FIRST_TOKEN));
            }
            if let Some(name) = name.to_str() {
                self.add_variable(name, value);
            }
        }
        for given in flags {
            let value = Given::Text(&given.value);
            self.add(given.flag, given.section, given.setting, &value);
        }
        if self.problems.is_empty() {
            self.expand(home.as_deref());
            self.reachable_by_others();
            let first = &mut self.config.auth.first_token_file;
            // One that cannot be looked at is none that is not there.
            let is_there = |path: &PathBuf| !matches!(path.try_exists(), Ok(false));
            let credential = credentials.filter(is_there);
            *first = first.take().or(credential);
            self.half_a_login();
            self.half_of_tls();
        }
        let Sources {
            config, problems, ..
        } = self;
        match problems.is_empty() {
            true => Ok(config),
            false => Err(ConfigError { problems }),
        }
    }

    fn add_file(&mut self, path: &Path) {
        let place = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => self.add_text(&place, &text),
            Err(error) => self.problem(&place, &format!("cannot read the settings file: {error}")),
        }
    }

    fn add_text(&mut self, place: &str, text: &str) {
        match collect(&File::from_str(text, FileFormat::Toml)) {
            Ok(sections) => self.add_sections(place, sections),
            Err(SourceError::FileParse { cause, .. }) if cause.is::<ParseIntError>() => {
                let mut lines: Vec<&str> = text.lines().collect();
                let bad = lines.iter().position(|line| has_enormous_number(line));
                let line = bad.map_or(String::new(), |line| format!("line {}: ", line + 1));
                let message = format!("{line}a number is beyond what any setting may be");
                self.problem(place, &message);
                if let Some(line) = bad {
                    // What else is wrong.
                    lines[line] = "";
                    self.add_text(place, &lines.join("\n"));
                }
            }
            Err(error) => self.problem(place, &without_quoted_lines(&error.to_string())),
        }
    }

    fn add_sections(&mut self, place: &str, sections: BTreeMap<String, Value>) {
        for (section, values) in sections {
            match values.kind {
                _ if names_of(&section).is_none() => self.problem(place, &unknown(&section, "")),
                ValueKind::Table(values) => {
                    let (mut within, mut inner) = (Vec::new(), BTreeMap::new());
                    for (name, value) in BTreeMap::from_iter(values) {
                        let path = format!("{section}.{name}");
                        match names_of(&path) {
                            Some(_) => _ = inner.insert(path, value),
                            None => within.push((name, value)),
                        }
                    }
                    for (name, value) in within {
                        self.add(place, &section, &name, &Given::Typed(&value.kind));
                    }
                    self.add_sections(place, inner);
                }
                _ => self.problem(place, &format!("{section}: expected a section")),
            }
        }
    }

    fn add_variable(&mut self, name: &str, value: OsString) {
        let place = format!("environment variable {name}");
        // One spelling, so that no two variables set the same.
        if let Some(meant) = meant(name).filter(|meant| meant != name) {
            return self.problem(&place, &format!("write {meant}"));
        }
        if !name.starts_with(PREFIX) {
            return;
        }
        let Ok(value) = value.into_string() else {
            return self.problem(&place, "its value is not UTF-8 text");
        };
        let variable = Environment::with_prefix(PREFIX)
            .prefix_separator("")
            .separator("__")
            .source(Some([(name.to_owned(), value)].into()));
        match collect(&variable) {
            Ok(settings) => {
                for (setting, value) in settings {
                    let (section, name) = setting.rsplit_once('.').unwrap_or((&setting, ""));
                    self.add(&place, section, name, &Given::Text(&value.to_string()));
                }
            }
            Err(error) => self.problem(&place, &error.to_string()),
        }
    }

    fn add(&mut self, place: &str, section: &str, name: &str, given: &Given<'_>) {
        let setting = format!("{section}.{name}");
        match self.config.set(section, name, given) {
            Some(Ok(())) => _ = self.places.insert(setting, place.to_owned()),
            Some(Err(wrong)) => self.problem(place, &format!("{setting} {wrong}")),
            None if GONE.contains(&setting.as_str()) => {
                let gone = &mut self.config.no_longer_needed;
                gone.push(format!("{place}: {setting} is no longer needed"));
            }
            None => self.problem(place, &unknown(section, name)),
        }
    }

    fn problem(&mut self, place: &str, message: &str) {
        self.problems.push(format!("{place}: {message}"));
    }

    /// A problem with the value of a setting.
    fn problem_of(&mut self, name: &str, message: &str) {
        let place = self.places.get(name).map_or("default", String::as_str);
        self.problems.push(format!("{place}: {message}"));
    }

    /// Replaces the `~` of paths, as a shell would do it.
    fn expand(&mut self, home: Option<&Path>) {
        let Config {
            store,
            bitcoind,
            auth,
            tls,
            ..
        } = &mut self.config;
        let mut wrong = Vec::new();
        for (name, path) in [
            ("store.path", Some(&mut store.path)),
            ("bitcoind.cookie_file", bitcoind.cookie_file.as_mut()),
            ("server.tls.cert", tls.cert.as_mut()),
            ("server.tls.key", tls.key.as_mut()),
            ("auth.tokens_file", auth.tokens_file.as_mut()),
            ("auth.first_token_file", auth.first_token_file.as_mut()),
        ] {
            let Some(path) =
                path.filter(|path| path.as_os_str().as_encoded_bytes().starts_with(b"~"))
            else {
                continue;
            };
            match (path.strip_prefix("~"), home) {
                (Ok(rest), Some(home)) => *path = home.join(rest),
                _ => wrong.push((name, format!("{path:?}"))),
            }
        }
        for (name, path) in wrong {
            let remedy = Remedy::WholePathOrName;
            let message = format!(
                "{name} = {path} is not valid: expected a path, in which ~ stands for HOME; {remedy}"
            );
            self.problem_of(name, &message);
        }
    }

    fn reachable_by_others(&mut self) {
        let (listen, name) = (&self.config.server.listen, "server.listen");
        let is_loopback = |address: std::net::IpAddr| address.to_canonical().is_loopback();
        if listen.address().is_none_or(is_loopback) {
            return;
        }
        let remedy = Remedy::TokenOrLoopback { port: listen.port };
        let place = self.places.get(name).map_or("default", String::as_str);
        self.config.reachable_by_others = Some(format!(
            "{place}: {name} = {listen} is reachable by others, and no token is asked for: without tokens only \
             loopback addresses may be listened on; {remedy}"
        ));
    }

    fn half_a_login(&mut self) {
        let (user, password) = ("bitcoind.rpc_user", "bitcoind.rpc_password");
        let bitcoind = &self.config.bitcoind;
        let (name, other) = match (&bitcoind.rpc_user, &bitcoind.rpc_password) {
            (Some(_), None) => (user, password),
            (None, Some(_)) => (password, user),
            (Some(_), Some(_)) | (None, None) => return,
        };
        self.problem_of(name, &format!("{name} needs {other}"));
    }

    fn half_of_tls(&mut self) {
        let (cert, key) = ("server.tls.cert", "server.tls.key");
        let tls = &self.config.tls;
        let (name, other) = match (&tls.cert, &tls.key) {
            (Some(_), None) => (cert, key),
            (None, Some(_)) => (key, cert),
            (None, None) if self.config.server.hsts > 0 => ("server.hsts", cert),
            (Some(_), Some(_)) | (None, None) => return,
        };
        self.problem_of(name, &format!("{name} needs {other}"));
    }
}

fn collect(source: &impl Source) -> Result<BTreeMap<String, Value>, SourceError> {
    Ok(source.collect()?.into_iter().collect())
}

/// Whether a line gives a number that the parser cannot hold.
fn has_enormous_number(line: &str) -> bool {
    let value = line.split_once('=').map_or("", |(_, value)| value);
    let value = value
        .split('#')
        .next()
        .unwrap_or_default()
        .trim()
        .replace('_', "");
    let digits = value.trim_start_matches(['+', '-']);
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && value.parse::<i64>().is_err()
}

/// The parser's message without the lines of the file that it quotes: one of them may hold the
/// password.
fn without_quoted_lines(message: &str) -> String {
    let is_quoted = |line: &&str| {
        line.split_once('|')
            .is_some_and(|(before, _)| before.trim().bytes().all(|byte| byte.is_ascii_digit()))
    };
    let lines = message
        .lines()
        .filter(|line| !is_quoted(line))
        .map(str::trim);
    lines
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(": ")
}

fn names_of(section: &str) -> Option<&'static [&'static str]> {
    let found = NAMES.iter().find(|(known, _)| *known == section);
    found.map(|(_, names)| *names)
}

fn unknown(section: &str, name: &str) -> String {
    match names_of(section) {
        Some(names) => {
            let what = match name {
                "" => format!("{section}: no setting is named"),
                _ => format!("{section}.{name}: unknown setting"),
            };
            format!("{what}, expected one of {}", names.join(", "))
        }
        None => {
            let sections: Vec<_> = NAMES.iter().map(|(section, _)| *section).collect();
            let what = match section {
                "" => "no section is named".to_owned(),
                _ => format!("{section}: unknown section"),
            };
            format!("{what}, expected one of {}", sections.join(", "))
        }
    }
}

/// The variable of the setting whose name differs from this at most in capitals and separators.
fn meant(name: &str) -> Option<String> {
    let parts = |name: &str| -> Vec<String> {
        let parts = name.split(['_', '.']).filter(|part| !part.is_empty());
        parts.map(str::to_ascii_uppercase).collect()
    };
    let given = parts(name);
    let variables = NAMES.iter().flat_map(|(section, names)| {
        names.iter().map(move |name| {
            let path = format!("{section}.{name}").to_ascii_uppercase();
            format!("{PREFIX}{}", path.replace('.', "__"))
        })
    });
    variables.into_iter().find(|it| parts(it) == given)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{History, Secret};

    const SETTINGS_TOML: &str = include_str!("../../settings.toml");

    fn pairs(list: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        list.iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    fn load_toml(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("settings.toml");
        std::fs::write(&path, text).expect("the settings file is written");
        Config::load(Some(&path), pairs(environment), &[])
    }

    /// The problems, each with the temporary folder taken off its place.
    fn problems(result: Result<Config, ConfigError>) -> Vec<String> {
        let error = result.expect_err("the settings are wrong");
        error
            .problems
            .iter()
            .map(|line| line[line.find("settings.toml").unwrap_or(0)..].to_owned())
            .collect()
    }

    #[test]
    fn the_settings_file_in_the_repository_says_the_defaults() {
        assert_eq!(
            load_toml(SETTINGS_TOML, &[]).expect("settings.toml is good"),
            Config::default()
        );
    }

    #[test]
    fn the_settings_file_in_the_repository_explains_every_option_in_its_section() {
        let (mut section, mut is_explained) = ("", false);
        let mut listed = Vec::new();
        for line in SETTINGS_TOML.lines() {
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
            {
                section = name;
            } else if let Some((name, _)) = line
                .trim_start_matches("# ")
                .split_once(" = ")
                .filter(|(name, _)| !name.contains(' '))
            {
                assert!(is_explained, "no comment stands above {section}.{name}");
                listed.push(format!("{section}.{name}"));
                is_explained = false;
                continue;
            }
            is_explained = line.starts_with("# ");
        }
        let of = |(section, names): &(&'static str, &'static [&'static str])| {
            let names = names.iter();
            names
                .map(move |name| format!("{section}.{name}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(listed, NAMES.iter().flat_map(of).collect::<Vec<_>>());
    }

    #[test]
    fn every_setting_can_be_set_from_the_environment() {
        let environment = [
            ("SATWATCH__SERVER__LISTEN", "[::1]:0"),
            (
                "SATWATCH__SERVER__ALLOWED_ORIGINS",
                "https://a.example, http://b.example:81",
            ),
            ("SATWATCH__SERVER__ALLOWED_HOSTS", ""),
            ("SATWATCH__SERVER__TLS__CERT", "cert.pem"),
            ("SATWATCH__SERVER__TLS__KEY", "key.pem"),
            ("SATWATCH__STORE__PATH", "/var/lib/satwatch"),
            ("SATWATCH__BITCOIND__RPC_URL", "http://127.0.0.1:18443"),
            ("SATWATCH__BITCOIND__RPC_USER", "007"),
            ("SATWATCH__BITCOIND__RPC_PASSWORD", "1e5"),
            ("SATWATCH__BITCOIND__ZMQ_RAWTX", "tcp://127.0.0.1:28332"),
            ("SATWATCH__MONITOR__AUTOSTART", "false"),
            ("SATWATCH__MONITOR__RECONCILE_INTERVAL", "3600"),
            ("SATWATCH__WATCH__HISTORY", "none"),
            ("SATWATCH__LIMITS__CONNECTIONS", "12"),
            ("SATWATCH__LOG__FORMAT", "json"),
            ("SATWATCH_OTHER", "not ours"),
            ("PATH", "/bin"),
        ];
        let config = Config::load(None, pairs(&environment), &[]).expect("the environment is good");
        assert_eq!(
            config.server.listen,
            "[::1]:0".parse().expect("a host and a port")
        );
        assert_eq!(
            config.server.allowed_origins,
            ["https://a.example", "http://b.example:81"]
        );
        assert_eq!(config.server.allowed_hosts, [""; 0]);
        assert_eq!(
            (config.tls.cert, config.tls.key),
            (Some("cert.pem".into()), Some("key.pem".into()))
        );
        assert_eq!(config.store.path, PathBuf::from("/var/lib/satwatch"));
        assert_eq!(config.bitcoind.rpc_user.as_deref(), Some("007"));
        assert_eq!(config.bitcoind.rpc_password, Some(Secret("1e5".into())));
        assert!(!config.monitor.autostart);
        assert_eq!(config.monitor.reconcile_interval, 3600);
        assert_eq!(config.watch.history, History::None);
        assert_eq!(config.limits.connections, 12);
        assert_eq!(config.log.format, crate::config::LogFormat::Json);
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("s.toml");
        std::fs::write(&path, "[store]\npath = \"file\"\n[monitor]\nreconcile_interval = 7\n[server]\nlisten = \"127.0.0.1:1\"\n")
            .expect("written");
        let environment = pairs(&[
            ("SATWATCH__STORE__PATH", "variable"),
            ("SATWATCH__SERVER__LISTEN", "127.0.0.1:2"),
        ]);
        let flag = Flag {
            flag: "--listen",
            section: "server",
            setting: "listen",
            value: "127.0.0.1:3".into(),
        };
        let config = Config::load(Some(&path), environment, &[flag]).expect("good settings");
        assert_eq!(
            (
                config.store.path,
                config.server.listen.port,
                config.monitor.reconcile_interval
            ),
            (PathBuf::from("variable"), 3, 7)
        );
    }

    #[test]
    fn an_unknown_setting_is_named_with_its_place_and_those_that_there_are() {
        let file = |text: &str| problems(load_toml(text, &[]));
        assert_eq!(
            file("[server]\nport = 5\n"),
            [
                "settings.toml: server.port: unknown setting, expected one of listen, allowed_origins, allowed_hosts, trusted_proxies, hsts"
            ]
        );
        let lines = file("wallet = 5\n[purse]\na = 1\nb = 2\n");
        let begin = [
            "settings.toml: purse: unknown section, expected one of server, ",
            "settings.toml: wallet: unknown section, expected one of server, ",
        ];
        assert_eq!(lines.len(), begin.len(), "{lines:?}");
        for (line, begin) in lines.iter().zip(begin) {
            assert!(line.starts_with(begin), "{line}");
        }
        let environment = [
            ("SATWATCH__SERVER__PORT", "5"),
            ("SATWATCH__A", "x"),
            ("SATWATCH_SERVER_ALLOWED_HOSTS", "shop.example"),
            ("SATWATCH_PORT", "tcp://10.0.0.1:5005"),
            ("satwatch__server__listen", "0.0.0.0:1"),
            ("SATWATCH__Server__listen", "0.0.0.0:1"),
            ("SATWATCH__SERVER.LISTEN", "0.0.0.0:1"),
            ("Satwatch_Log___Level", "info"),
            ("SATWATCH__SERVER", "x"),
            ("SATWATCH_SERVER_TLS_CERT", "x"),
            ("SATWATCH__SERVER__TLS__CHAIN", "x"),
            ("SATWATCH__", "x"),
        ];
        let lines = problems(load_toml("", &environment));
        let begin = [
            "environment variable SATWATCH__SERVER__PORT: server.port: unknown setting, ",
            "environment variable SATWATCH__A: a: unknown section, ",
            "environment variable SATWATCH_SERVER_ALLOWED_HOSTS: write SATWATCH__SERVER__ALLOWED_HOSTS",
            "environment variable satwatch__server__listen: write SATWATCH__SERVER__LISTEN",
            "environment variable SATWATCH__Server__listen: write SATWATCH__SERVER__LISTEN",
            "environment variable SATWATCH__SERVER.LISTEN: write SATWATCH__SERVER__LISTEN",
            "environment variable Satwatch_Log___Level: write SATWATCH__LOG__LEVEL",
            "environment variable SATWATCH__SERVER: server: no setting is named, expected one of listen, ",
            "environment variable SATWATCH_SERVER_TLS_CERT: write SATWATCH__SERVER__TLS__CERT",
            "environment variable SATWATCH__SERVER__TLS__CHAIN: server.tls.chain: unknown setting, expected one of cert, key",
            "environment variable SATWATCH__: no section is named, expected one of server, ",
        ];
        assert_eq!(lines.len(), begin.len(), "{lines:?}");
        for (line, begin) in lines.iter().zip(begin) {
            assert!(line.starts_with(begin), "{line}");
        }
    }

    #[test]
    fn an_enormous_number_hides_no_other_mistake() {
        let text = "log.level = 99999999999999999999\nlimits.connections = 18446744073709551615\nserver.port = 1";
        let lines = problems(load_toml(text, &[]));
        let begin = [
            "settings.toml: line 1: a number is beyond",
            "settings.toml: line 2: a number is beyond",
            "settings.toml: server.port: unknown setting",
        ];
        assert_eq!(lines.len(), begin.len(), "{lines:?}");
        for (line, begin) in lines.iter().zip(begin) {
            assert!(line.starts_with(begin), "{line}");
        }
    }

    #[test]
    fn a_setting_that_is_gone_is_named_and_stops_nothing() {
        let loaded = load_toml(
            "limits.audit_interval = 3",
            &[("SATWATCH__LIMITS__QUEUE_BYTES", "5")],
        );
        let gone = loaded.expect("the settings are good").no_longer_needed;
        assert!(
            gone[0].ends_with("settings.toml: limits.audit_interval is no longer needed"),
            "{gone:?}"
        );
        assert_eq!(
            gone[1..],
            [
                "environment variable SATWATCH__LIMITS__QUEUE_BYTES: limits.queue_bytes is no longer needed"
            ]
        );
    }

    #[test]
    fn variables_that_look_like_ours_and_are_none_are_named() {
        let names = [
            "SATWATCH",
            "SATWATCH_X",
            "satwatch_y",
            "SATWATCH__A__B",
            "SATWATCHES",
            "PATH",
        ];
        let found = overlooked(names.iter().map(OsString::from));
        assert_eq!(found, ["SATWATCH", "SATWATCH_X", "satwatch_y"]);
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_place_and_not_shown() {
        #[rustfmt::skip]
        let cases = [
            ("monitor.reconcile_interval = 10.0", "monitor.reconcile_interval is a number with a point: expected a whole number from 1 to 86400"),
            ("monitor.reconcile_interval = \"10\"", "monitor.reconcile_interval is a text: expected a whole number from 1 to 86400"),
            ("events.retention_days = true", "events.retention_days is a boolean: expected a whole number from 0 to 36500"),
            ("limits.connections = [1]", "limits.connections is a list: expected a whole number"),
            ("monitor.autostart = \"yes\"", "monitor.autostart is a text: expected true or false"),
            ("monitor.autostart = 1", "monitor.autostart is a whole number: expected true or false"),
            ("webhooks.allow_private = 0.0", "webhooks.allow_private is a number with a point: expected true or false"),
            ("server.listen = 5005", "server.listen is a whole number: expected a host and a port, such as"),
            ("server.allowed_origins = 5", "server.allowed_origins is a whole number: expected a list of web origins"),
            ("server.allowed_hosts = [5]", "server.allowed_hosts has a whole number in it: expected a list of host names"),
            ("server.allowed_hosts = \"a,b\"", "server.allowed_hosts is a text: expected a list of host names"),
            ("watch.history = true", "watch.history is a boolean: expected \"utxo\" or \"none\""),
            ("log.level = 3", "log.level is a whole number: expected a level"),
            ("store.path = true", "store.path is a boolean: expected a path"),
            ("store.path = { a = 1 }", "store.path is a section: expected a path"),
            ("store = 5", "store: expected a section"),
            ("bitcoind = \"hunter2, expected x\"", "bitcoind: expected a section"),
            ("bitcoind.rpc_user = \"alice:hunter2\"", "bitcoind.rpc_user = (hidden) is not valid: expected a user name"),
            ("bitcoind.rpc_user = 7", "bitcoind.rpc_user is a whole number: expected a user name"),
            ("bitcoind.rpc_password = [\"hunter2\"]", "bitcoind.rpc_password is a list: expected a password"),
        ];
        for (text, expected) in cases {
            let lines = problems(load_toml(text, &[]));
            assert_eq!(lines.len(), 1, "{text}: {lines:?}");
            let start = format!("settings.toml: {expected}");
            assert!(lines[0].starts_with(&start), "{text}: {}", lines[0]);
            assert!(!lines[0].contains("hunter2"), "{}", lines[0]);
        }
    }

    #[test]
    fn a_value_that_is_not_good_is_shown_with_what_is_expected() {
        #[rustfmt::skip]
        let cases = [
            ("limits.connections = -1", "limits.connections = -1 is not valid: expected a whole number from 1 to 1000000"),
            ("limits.connections = 0xfffff", "limits.connections = 1048575 is not valid: expected a whole number from 1 to 1000000"),
            ("limits.connections = 18446744073709551615", "line 1: a number is beyond what any setting may be"),
            ("monitor.reconcile_interval = 99999999999999999999", "line 1: a number is beyond what any setting may be"),
            ("webhooks.allowed_targets = [\"a\", \"10.0.0.0/33\"]", "webhooks.allowed_targets = \"10.0.0.0/33\" is not valid: expected a list of host names,"),
            ("watch.history = \"all\"", "watch.history = \"all\" is not valid: expected \"utxo\" or \"none\""),
            ("log.format = \"xml\"", "log.format = \"xml\" is not valid: expected \"text\" or \"json\""),
            ("store.path = \"\"", "store.path = \"\" is not valid: expected a path"),
        ];
        for (text, expected) in cases {
            let lines = problems(load_toml(text, &[]));
            assert_eq!(lines.len(), 1, "{text}: {lines:?}");
            let start = format!("settings.toml: {expected}");
            assert!(lines[0].starts_with(&start), "{text}: {}", lines[0]);
        }
        let good = load_toml("limits.connections = 0xf_f\nmonitor.autostart = false", &[]);
        assert_eq!(
            good.map(|good| (good.limits.connections, good.monitor.autostart)),
            Ok((255, false))
        );
        #[rustfmt::skip]
        let cases = [
            ("SATWATCH__MONITOR__AUTOSTART", "", "monitor.autostart = \"\" is not valid: expected true or false"),
            ("SATWATCH__MONITOR__AUTOSTART", "yes", "monitor.autostart = \"yes\" is not valid: expected true or false"),
            ("SATWATCH__MONITOR__AUTOSTART", "False", "monitor.autostart = \"False\" is not valid: expected true or false"),
            ("SATWATCH__LIMITS__CONNECTIONS", "", "limits.connections = \"\" is not valid: expected a whole number from 1 to 1000000"),
            ("SATWATCH__LIMITS__CONNECTIONS", "99999999999999999999", "limits.connections = \"99999999999999999999\" is not valid: expected a whole number"),
            ("SATWATCH__EVENTS__RETENTION_DAYS", "yes", "events.retention_days = \"yes\" is not valid: expected a whole number from 0 to 36500"),
        ];
        for (name, text, expected) in cases {
            let lines = problems(load_toml("", &[(name, text)]));
            assert_eq!(lines.len(), 1, "{lines:?}");
            let start = format!("environment variable {name}: {expected}");
            assert!(lines[0].starts_with(&start), "{}", lines[0]);
        }
    }

    #[test]
    fn every_number_has_a_first_and_a_last_good_value() {
        let ranges: [(&str, &str, u64, u64); 20] = [
            ("server", "hsts", 0, 63_072_000),
            ("monitor", "reconcile_interval", 1, 86_400),
            ("events", "retention_days", 0, 36_500),
            ("webhooks", "timeout", 1, 300),
            ("webhooks", "give_up_after", 1, 31_536_000),
            ("limits", "connections", 1, 1_000_000),
            ("limits", "connections_per_address", 1, 1_000_000),
            ("limits", "unfinished_handshakes", 1, 1_000_000),
            ("limits", "body_bytes", 1024, 1 << 30),
            ("limits", "rest_bytes", 1 << 20, 1 << 40),
            ("limits", "packet_bytes", 1024, 1 << 30),
            ("limits", "requests_per_second", 1, 1_000_000),
            ("limits", "costly_per_minute", 1, 1_000_000),
            ("limits", "waiting_requests", 1, 1_000_000),
            ("limits", "subscriptions", 1, 10_000_000),
            ("limits", "subscriptions_in_all", 1, 100_000_000),
            ("limits", "consumers", 1, 100_000),
            ("limits", "addresses_per_token", 1, 100_000_000),
            ("limits", "consumers_per_token", 1, 100_000),
            ("limits", "descriptor_scripts", 1, 100_000_000),
        ];
        for (section, name, first, last) in ranges {
            let is_good = |number: u64| {
                let text = number.to_string();
                let read = Config::default().set(section, name, &Given::Text(&text));
                read.expect("a setting").is_ok()
            };
            assert!(
                is_good(first) && is_good(last) && !is_good(last + 1),
                "{name}"
            );
            assert!(first == 0 || !is_good(first - 1), "{name}");
        }
    }

    #[test]
    fn all_bad_values_are_named_at_once_each_with_its_place_and_what_is_expected() {
        let file = "[monitor]\nreconcile_interval = 0\n[limits]\nconsumers = true\nconnections = -1\n\
                    [server]\nlisten = [\"x\"]\nallowed_origins = [\"http://a\", \"x\", \"y\"]\n\
                    [bitcoind]\nrpc_url = \"http://me:secret@h\"\nrpc_user = \"alice\"";
        let environment = [
            ("SATWATCH__STORE__PATH", ""),
            ("SATWATCH__LIMITS__CONSUMERS", "100001"),
            ("SATWATCH__BITCOIND__RPC_PASSWORD", ""),
            ("SATWATCH__WEBHOOKS__PROXY", "socks5://me:secret@tor:9050"),
        ];
        let lines = problems(load_toml(file, &environment));
        let begin = [
            "settings.toml: bitcoind.rpc_url = (hidden) is not valid: expected an address such as",
            "settings.toml: limits.connections = -1 is not valid: expected a whole number from 1 to 1000000",
            "settings.toml: limits.consumers is a boolean: expected a whole number from 1 to 100000",
            "settings.toml: monitor.reconcile_interval = 0 is not valid: expected a whole number from 1 to 86400",
            "settings.toml: server.allowed_origins = \"x\", \"y\" is not valid: expected a list of web origins",
            "settings.toml: server.listen is a list: expected a host and a port",
            "environment variable SATWATCH__STORE__PATH: store.path = \"\" is not valid: expected a path",
            "environment variable SATWATCH__LIMITS__CONSUMERS: limits.consumers = \"100001\" is not valid: expected a whole number from 1 to 100000",
            "environment variable SATWATCH__BITCOIND__RPC_PASSWORD: bitcoind.rpc_password = (hidden) is not valid",
            "environment variable SATWATCH__WEBHOOKS__PROXY: webhooks.proxy = (hidden) is not valid: expected a SOCKS proxy",
        ];
        assert_eq!(lines.len(), begin.len(), "{lines:?}");
        for (line, begin) in lines.iter().zip(begin) {
            assert!(line.starts_with(begin), "{line}");
        }
    }

    #[test]
    fn a_file_that_is_no_toml_is_named_with_the_line_but_not_quoted() {
        let lines = problems(load_toml(
            "[bitcoind]\nrpc_password = \"hunter2\nrpc_user = \"a\"\n",
            &[],
        ));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("line 2"), "{}", lines[0]);
        assert!(!lines[0].contains("hunter2"), "{}", lines[0]);
        let missing = Config::load(Some(Path::new("no/such/settings.toml")), pairs(&[]), &[])
            .expect_err("no such file");
        assert!(
            missing
                .to_string()
                .starts_with("no/such/settings.toml: cannot read the settings file: "),
            "{missing}"
        );
    }

    #[test]
    fn addresses_that_others_reach_are_told_apart() {
        for listen in ["0.0.0.0:5005", "[::]:5005", "192.168.1.5:80"] {
            let config = load_toml("", &[("SATWATCH__SERVER__LISTEN", listen)]).expect("good");
            let line = config.reachable_by_others.expect("others reach it");
            assert!(
                line.starts_with("environment variable SATWATCH__SERVER__LISTEN: server.listen = "),
                "{line}"
            );
            assert!(
                line.contains("without tokens only loopback addresses may be listened on"),
                "{line}"
            );
        }
        for listen in [
            "127.0.0.2:0",
            "[::1]:5005",
            "[::ffff:127.0.0.1]:5005",
            // What a name means is looked at when it is listened on.
            "localhost:5005",
        ] {
            Config::load(None, pairs(&[("SATWATCH__SERVER__LISTEN", listen)]), &[]).expect(listen);
        }
    }

    #[test]
    fn case_12_a_tilde_is_the_home_directory() {
        let file =
            "[store]\npath = \"~/.satwatch\"\n[bitcoind]\ncookie_file = \"~/.bitcoin/.cookie\"";
        let config = load_toml(file, &[("HOME", "/home/a")]).expect("good settings");
        assert_eq!(config.store.path, PathBuf::from("/home/a/.satwatch"));
        assert_eq!(
            config.bitcoind.cookie_file,
            Some(PathBuf::from("/home/a/.bitcoin/.cookie"))
        );
        let path = |text: &str| {
            let environment = pairs(&[("HOME", "/home/a"), ("SATWATCH__STORE__PATH", text)]);
            Config::load(None, environment, &[]).map(|config| config.store.path)
        };
        for (text, expected) in [
            ("~", "/home/a"),
            ("./~", "./~"),
            ("a/~/b", "a/~/b"),
            ("data~", "data~"),
        ] {
            assert_eq!(path(text), Ok(PathBuf::from(expected)), "{text}");
        }
        let message = path("~bob/data").expect_err("not ours").to_string();
        assert!(message.contains("write the whole path"), "{message}");
        let homeless = pairs(&[("SATWATCH__STORE__PATH", "~/data"), ("HOME", "")]);
        let message = Config::load(None, homeless, &[]).expect_err("no home");
        assert!(message.to_string().contains("HOME"), "{message}");
    }

    #[test]
    fn a_user_without_password_is_refused_and_the_other_way_round() {
        let lines = problems(load_toml("[bitcoind]\nrpc_user = \"alice\"", &[]));
        assert_eq!(
            lines,
            ["settings.toml: bitcoind.rpc_user needs bitcoind.rpc_password"]
        );
        let lines = problems(load_toml("", &[("SATWATCH__BITCOIND__RPC_PASSWORD", "x")]));
        assert_eq!(
            lines,
            [
                "environment variable SATWATCH__BITCOIND__RPC_PASSWORD: bitcoind.rpc_password needs bitcoind.rpc_user"
            ]
        );
    }
    #[test]
    fn the_files_of_tls_are_a_section_within_a_section_and_need_each_other() {
        let whole = "[server]\nhsts = 60\n[server.tls]\ncert = \"~/c.pem\"\nkey = \"k.pem\"";
        let config = load_toml(whole, &[("HOME", "/home/a")]).expect("good settings");
        assert_eq!(
            (config.tls.cert, config.tls.key, config.server.hsts),
            (Some("/home/a/c.pem".into()), Some("k.pem".into()), 60)
        );
        for (text, expected) in [
            (
                "server.tls.cert = \"c\"",
                "server.tls.cert needs server.tls.key",
            ),
            (
                "server.tls.key = \"k\"",
                "server.tls.key needs server.tls.cert",
            ),
            ("server.hsts = 1", "server.hsts needs server.tls.cert"),
            ("server.tls = 5", "server.tls: expected a section"),
            (
                "server.tls.port = 5",
                "server.tls.port: unknown setting, expected one of cert, key",
            ),
        ] {
            let lines = problems(load_toml(text, &[]));
            assert_eq!(lines, [format!("settings.toml: {expected}")]);
        }
    }
}
