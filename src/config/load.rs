//! From a file, the environment and flags to a checked [`Config`].

use std::ffi::OsString;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ::config::builder::DefaultState;
use ::config::{
    Config as Source, ConfigBuilder, ConfigError as SourceError, Environment, File, FileFormat,
    Value,
};
use serde::de::{Deserialize, Deserializer, Error, IntoDeserializer};

use super::Config;

/// Variables that start like this are ours; an unknown one is an error.
const PREFIX: &str = "SATWATCH__";

/// A setting given on the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// As it is written: `--listen`.
    pub flag: &'static str,
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
    /// names keeps its default. A wrong name or type is told of each source, and if there is none,
    /// all that [`Config::validate`] finds.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Flag],
    ) -> Result<Self, ConfigError> {
        let (mut sources, mut home) = (Sources::default(), None);
        if let Some(path) = file {
            sources.add_file(path);
        }
        for (name, value) in environment {
            if name == "HOME" && !value.is_empty() {
                home = Some(PathBuf::from(&value));
            }
            if let Some(name) = name.to_str() {
                sources.add_variable(name, value);
            }
        }
        for given in flags {
            let value = Some(given.value.as_str());
            let settings = Settings::default().set_override_option(given.setting, value);
            sources.add(given.flag.to_owned(), settings.and_then(read));
        }
        sources.into_config(home.as_deref())
    }

    /// Replaces the `~` of paths, as a shell would do it.
    fn expand(&mut self, home: &Path) {
        let paths = [
            Some(&mut self.store.path),
            self.bitcoind.cookie_file.as_mut(),
        ];
        for path in paths.into_iter().flatten() {
            if let Ok(rest) = path.strip_prefix("~") {
                *path = home.join(rest);
            }
        }
    }
}

type Settings = ConfigBuilder<DefaultState>;

/// The sources that can be read, each with its place, in the order in which later ones win.
#[derive(Default)]
struct Sources {
    sources: Vec<(String, Source)>,
    problems: Vec<String>,
}

impl Sources {
    fn add_file(&mut self, path: &Path) {
        let place = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let file = File::from_str(&text, FileFormat::Toml);
                self.add(place, read(Settings::default().add_source(file)));
            }
            Err(error) => self.problem(place, format!("cannot read the settings file: {error}")),
        }
    }

    fn add_variable(&mut self, name: &str, value: OsString) {
        let place = format!("environment variable {name}");
        if name.starts_with(PREFIX) {
            match value.into_string() {
                Ok(value) => self.add(place, variable(name, &value)),
                Err(_) => self.problem(place, "its value is not UTF-8 text".to_owned()),
            }
        } else if let Some(rest) = name.strip_prefix("SATWATCH_") {
            // It sets nothing, and would with two underscores where it has one.
            let meant = format!("{PREFIX}{}", rest.replacen('_', "__", 1));
            if variable(&meant, &value.to_string_lossy()).is_ok() {
                self.problem(place, format!("write {meant}"));
            }
        }
    }

    fn add(&mut self, place: String, source: Result<(Source, Config), SourceError>) {
        match source {
            Ok((source, _)) => self.sources.push((place, source)),
            Err(error) => self.problem(place, explained(error)),
        }
    }

    fn problem(&mut self, place: String, message: String) {
        self.problems.push(format!("{place}: {message}"));
    }

    fn into_config(self, home: Option<&Path>) -> Result<Config, ConfigError> {
        // What the values lack may stand in a source that cannot be read.
        if !self.problems.is_empty() {
            return Err(ConfigError {
                problems: self.problems,
            });
        }
        let sources = self.sources.iter().map(|(_, source)| source.clone());
        let all = sources.fold(Settings::default(), Settings::add_source);
        let (_, mut config) = read(all).map_err(|error| ConfigError {
            problems: vec![explained(error)],
        })?;
        if let Some(home) = home {
            config.expand(home);
        }
        let found = config.validate().into_iter();
        let problems: Vec<_> = found
            .map(|problem| format!("{}: {}", self.place(problem.name), problem.message))
            .collect();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError { problems })
        }
    }

    /// Where the value of a setting is from.
    fn place(&self, name: &str) -> &str {
        let mut latest = self.sources.iter().rev();
        let source = latest.find(|(_, source)| source.get::<Value>(name).is_ok());
        source.map_or("default", |(place, _)| place)
    }
}

fn read(settings: Settings) -> Result<(Source, Config), SourceError> {
    let source = settings.build()?;
    let config = source.clone().try_deserialize()?;
    Ok((source, config))
}

fn variable(name: &str, value: &str) -> Result<(Source, Config), SourceError> {
    let environment = Environment::with_prefix(PREFIX)
        .prefix_separator("")
        .separator("__")
        .source(Some([(name.to_owned(), value.to_owned())].into()));
    read(Settings::default().add_source(environment))
}

/// A whole number. The crate would round others, and take `true` for 1.
pub fn number<'de, D: Deserializer<'de>, T: FromStr>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| Error::custom("expected a whole number"))
}

/// One of the words of an enum. With the crate alone an error would not say which there are.
pub fn word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    T::deserialize(String::deserialize(deserializer)?.into_deserializer())
}

/// A list; in the environment its items stand between commas.
pub fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    #[derive(serde::Deserialize)]
    #[serde(untagged, expecting = "expected a list of texts")]
    enum Written {
        Items(Vec<String>),
        Text(String),
    }
    let items = match Written::deserialize(deserializer)? {
        Written::Items(items) => items,
        Written::Text(text) => {
            let items = text.split(',').map(|item| item.trim().to_owned());
            items.filter(|item| !item.is_empty()).collect()
        }
    };
    let parsed = items.iter().map(|item| {
        let refused = |error| Error::custom(format_args!("{item:?} is not valid: {error}"));
        item.parse().map_err(refused)
    });
    parsed.collect()
}

/// The error with its key first, and without a value of the wrong type, which may be a secret.
fn explained(error: SourceError) -> String {
    let (key, message) = match error {
        SourceError::Type { expected, key, .. } => (key, format!("expected {expected}")),
        SourceError::At { error, key, .. } => (key, explained(*error)),
        error => (None, without_source_lines(&error.to_string())),
    };
    // `invalid type: string "…", expected …`
    let wrong = message.strip_prefix("invalid type: ");
    let message = match wrong.and_then(|text| text.rsplit_once(", expected ")) {
        Some((_, expected)) => format!("expected {expected}"),
        None => message,
    };
    match key {
        Some(key) => format!("{key}: {message}"),
        None => message,
    }
}

/// The parser's message without the lines of the file that it quotes: one of them may hold the
/// password.
fn without_source_lines(message: &str) -> String {
    let quoted = |line: &&str| {
        line.split_once('|')
            .is_some_and(|(before, _)| before.trim().bytes().all(|byte| byte.is_ascii_digit()))
    };
    let lines: Vec<&str> = message
        .lines()
        .filter(|line| !quoted(line))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join(": ")
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
        assert_eq!(listed, names());
    }

    /// Of all settings, in the order of the structs.
    fn names() -> Vec<String> {
        let (mut section, mut names) = (String::new(), Vec::new());
        for line in format!("{:#?}", Config::default()).lines() {
            let name = line.trim_start();
            let depth = line.len() - name.len();
            match name.split_once(": ") {
                Some((name, _)) if depth == 4 => section = name.to_owned(),
                Some((name, _)) if depth == 8 => names.push(format!("{section}.{name}")),
                _ => {}
            }
        }
        names
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
            setting: "server.listen",
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
                "settings.toml: server: unknown field `port`, expected one of `listen`, `allowed_origins`, `allowed_hosts`"
            ]
        );
        let lines = file("wallet = 5\n");
        assert!(
            lines[0]
                .starts_with("settings.toml: unknown field `wallet`, expected one of `server`, "),
            "{lines:?}"
        );
        let environment = [
            ("SATWATCH__SERVER__PORT", "5"),
            ("SATWATCH__A", "x"),
            ("SATWATCH_SERVER_ALLOWED_HOSTS", "shop.example"),
            ("SATWATCH_PORT", "tcp://10.0.0.1:5005"),
        ];
        let lines = problems(load_toml("", &environment));
        let begin = [
            "environment variable SATWATCH__SERVER__PORT: server: unknown field `port`, ",
            "environment variable SATWATCH__A: unknown field `a`, ",
            "environment variable SATWATCH_SERVER_ALLOWED_HOSTS: write SATWATCH__SERVER__ALLOWED_HOSTS",
        ];
        assert_eq!(lines.len(), begin.len(), "{lines:?}");
        for (line, begin) in lines.iter().zip(begin) {
            assert!(line.starts_with(begin), "{line}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_place_and_not_shown() {
        #[rustfmt::skip]
        let cases = [
            ("monitor.reconcile_interval = 1.5", "monitor.reconcile_interval: expected a whole number"),
            ("events.retention_days = true", "events.retention_days: expected a whole number"),
            ("limits.connections = -1", "limits.connections: expected a whole number"),
            ("limits.connections = [1]", "limits.connections: expected a string"),
            ("monitor.autostart = \"maybe\"", "monitor.autostart: expected a boolean"),
            ("server.listen = 5005", "server.listen: expected a host and a port, such as"),
            ("server.allowed_origins = 5", "server.allowed_origins: expected a list of texts"),
            ("server.allowed_hosts = [5]", "server.allowed_hosts: expected a list of texts"),
            ("webhooks.allowed_targets = [\"a\", \"10.0.0.0/33\"]", "webhooks.allowed_targets: \"10.0.0.0/33\" is not valid: expected host names,"),
            ("watch.history = \"all\"", "watch.history: unknown variant `all`, expected `utxo` or `none`"),
            ("log.format = \"xml\"", "log.format: unknown variant `xml`, expected `text` or `json`"),
            ("store.path = { a = 1 }", "store.path: expected a string"),
            ("store = 5", "store: expected a section"),
            ("bitcoind = \"hunter2, expected x\"", "bitcoind: expected a section"),
            ("bitcoind.rpc_password = [\"hunter2\"]", "bitcoind.rpc_password: expected a string"),
        ];
        for (text, expected) in cases {
            let lines = problems(load_toml(text, &[]));
            assert_eq!(lines.len(), 1, "{text}: {lines:?}");
            let start = format!("settings.toml: {expected}");
            assert!(lines[0].starts_with(&start), "{text}: {}", lines[0]);
            assert!(!lines[0].contains("hunter2"), "{}", lines[0]);
        }
        let environment = [
            ("SATWATCH__MONITOR__AUTOSTART", ""),
            ("SATWATCH__LIMITS__CONNECTIONS", ""),
            ("SATWATCH__EVENTS__RETENTION_DAYS", "yes"),
        ];
        let lines = problems(load_toml("", &environment));
        assert_eq!(
            lines,
            [
                "environment variable SATWATCH__MONITOR__AUTOSTART: monitor.autostart: expected a boolean",
                "environment variable SATWATCH__LIMITS__CONNECTIONS: limits.connections: expected a whole number",
                "environment variable SATWATCH__EVENTS__RETENTION_DAYS: events.retention_days: expected a whole number",
            ]
        );
    }

    #[test]
    fn all_bad_values_are_named_at_once_each_with_its_place_and_what_is_expected() {
        let file = "[monitor]\nreconcile_interval = 0\n[limits]\nconsumers = 0\n\
                    [server]\nallowed_origins = [\"http://a\", \"x\"]\n\
                    [bitcoind]\nrpc_url = \"http://me:secret@h\"\nrpc_user = \"alice\"";
        let environment = [
            ("SATWATCH__STORE__PATH", ""),
            ("SATWATCH__LIMITS__CONSUMERS", "100001"),
            ("SATWATCH__BITCOIND__RPC_PASSWORD", ""),
            ("SATWATCH__WEBHOOKS__PROXY", "socks5://me:secret@tor:9050"),
        ];
        let lines = problems(load_toml(file, &environment));
        let begin = [
            "settings.toml: monitor.reconcile_interval = 0 is not valid: expected a whole number from 1 to 86400",
            "environment variable SATWATCH__LIMITS__CONSUMERS: limits.consumers = 100001 is not valid: expected a whole number from 1 to 100000",
            "settings.toml: server.allowed_origins = \"x\" is not valid: expected web origins",
            "environment variable SATWATCH__STORE__PATH: store.path = \"\" is not valid: expected a path",
            "settings.toml: bitcoind.rpc_url = (hidden) is not valid: expected an address such as",
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
    fn without_tokens_only_loopback_addresses_are_listened_on() {
        for listen in ["0.0.0.0:5005", "[::]:5005", "192.168.1.5:80"] {
            let lines = problems(load_toml("", &[("SATWATCH__SERVER__LISTEN", listen)]));
            assert_eq!(lines.len(), 1);
            assert!(
                lines[0]
                    .starts_with("environment variable SATWATCH__SERVER__LISTEN: server.listen = "),
                "{}",
                lines[0]
            );
            assert!(
                lines[0].contains("without tokens only loopback addresses may be listened on"),
                "{}",
                lines[0]
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
}
