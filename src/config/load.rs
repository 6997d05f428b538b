//! From a file, the environment and flags to a checked [`Config`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use ::config::{File, FileFormat, Map, Source, Value, ValueKind};

use super::table::{Form, PREFIX, SETTINGS, Setting, is_some};
use super::{Bitcoind, Config, Secret};
use crate::remedy::Remedy;

/// A setting given on the command line.
#[derive(Debug, Clone)]
pub struct Flag {
    /// As it is written: `--listen`.
    pub flag: &'static str,
    pub setting: &'static str,
    pub value: String,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingProblem {
    /// A file, a variable or a flag.
    pub place: String,
    pub message: String,
}

impl fmt::Display for SettingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Everything that is wrong with the settings, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub problems: Vec<SettingProblem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// The settings from `file`, the environment and `flags`, later ones winning; what none of them
    /// names keeps its default.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[Flag],
    ) -> Result<Self, ConfigError> {
        let environment: Vec<_> = environment.into_iter().collect();
        let home = environment
            .iter()
            .find(|(name, home)| name == "HOME" && !home.is_empty());
        let mut layers = Layers {
            home: home.and_then(|(_, home)| home.to_str()).map(str::to_owned),
            ..Layers::default()
        };
        if let Some(path) = file {
            layers.add_file(path);
        }
        layers.add_environment(environment);
        for flag in flags {
            layers.add(
                flag.setting,
                text_value(flag.setting, flag.flag, &flag.value),
            );
        }
        layers.into_config()
    }
}

/// What the sources say, by setting name; a value's origin is its place.
#[derive(Debug, Clone, Default)]
struct Layers {
    /// What `~` stands for.
    home: Option<String>,
    values: BTreeMap<String, Value>,
    problems: Vec<SettingProblem>,
}

impl Layers {
    fn add_file(&mut self, path: &Path) {
        let place = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                return self.problem(&place, format!("cannot read the settings file: {error}"));
            }
        };
        match File::from_str(&text, FileFormat::Toml).collect() {
            Ok(sections) => sections
                .into_iter()
                .for_each(|(section, value)| self.add_section(&place, &section, value)),
            Err(error) => self.problem(&place, without_source_lines(&error.to_string())),
        }
    }

    fn add_section(&mut self, place: &String, section: &str, value: Value) {
        let known = SETTINGS
            .iter()
            .any(|setting| setting.name.split('.').next() == Some(section));
        match value.kind {
            ValueKind::Table(table) if known => {
                for (name, value) in table {
                    let name = format!("{section}.{name}");
                    match Setting::find(&name) {
                        Some(_) => self.add(&name, Value::new(Some(place), value.kind)),
                        None => self.unknown(place, &name),
                    }
                }
            }
            _ if known => self.problem(
                place,
                format!(
                    "`{section}` is a section: {}",
                    Remedy::WriteSection {
                        section: section.to_owned()
                    }
                ),
            ),
            _ => self.unknown(place, section),
        }
    }

    fn add_environment(&mut self, environment: impl IntoIterator<Item = (OsString, OsString)>) {
        for (variable, value) in environment {
            let Some(variable) = variable.to_str() else {
                continue;
            };
            if !variable.starts_with(PREFIX) {
                self.look_for_single_underscores(variable);
                continue;
            }
            let Some(setting) = SETTINGS
                .iter()
                .find(|setting| setting.variable() == variable)
            else {
                let guess = variable
                    .trim_start_matches(PREFIX)
                    .to_ascii_lowercase()
                    .replacen("__", ".", 1);
                self.unknown(&place_of(variable), &guess);
                continue;
            };
            match value.to_str() {
                Some(text) => self.add(
                    setting.name,
                    text_value(setting.name, &place_of(variable), text),
                ),
                None => self.problem(
                    &place_of(variable),
                    format!("{} is not UTF-8 text", setting.name),
                ),
            }
        }
    }

    /// A variable that would be a setting's if it had two underscores where it has one.
    fn look_for_single_underscores(&mut self, variable: &str) {
        let mut meant = SETTINGS.iter().map(Setting::variable);
        if let Some(meant) = meant.find(|meant| meant.replace("__", "_") == variable) {
            self.problem(&place_of(variable), format!("write {meant}"));
        }
    }

    fn add(&mut self, name: &str, mut value: Value) {
        let is_path = matches!(
            Setting::find(name).map(|setting| setting.form),
            Some(Form::Path)
        );
        let place = value.origin().unwrap_or_default().to_owned();
        if let (true, ValueKind::String(text)) = (is_path, &mut value.kind) {
            match self.expanded(text) {
                Ok(path) => *text = path,
                Err((why, remedy)) => {
                    self.problem(&place, format!("{name} = {text:?}: {why}; {remedy}"));
                }
            }
        }
        self.values.insert(name.to_owned(), value);
    }

    /// The path with its `~` replaced, as a shell would do it.
    fn expanded(&self, path: &str) -> Result<String, (&'static str, Remedy)> {
        let Some(rest) = path.strip_prefix('~') else {
            return Ok(path.to_owned());
        };
        if !rest.is_empty() && !rest.starts_with('/') {
            return Err((
                "only one's own home directory can be written as ~",
                Remedy::WholePathOrName,
            ));
        }
        let home = self.home.as_ref();
        home.map(|home| format!("{home}{rest}")).ok_or((
            "there is no HOME in the environment for ~ to stand for",
            Remedy::WholePath,
        ))
    }

    fn problem(&mut self, place: &str, message: String) {
        self.problems.push(SettingProblem {
            place: place.to_owned(),
            message,
        });
    }

    fn unknown(&mut self, place: &str, name: &str) {
        let section = name.split('.').next().unwrap_or(name);
        let near: Vec<&str> = SETTINGS
            .iter()
            .map(|setting| setting.name)
            .filter(|known| {
                known.split('.').next() == Some(section) || known.split('.').nth(1) == Some(name)
            })
            .collect();
        let mut sections: Vec<&str> = SETTINGS
            .iter()
            .filter_map(|setting| setting.name.split('.').next())
            .collect();
        sections.dedup();
        let hint = if near.is_empty() {
            format!("the sections are {}", sections.join(", "))
        } else {
            format!("there are {}", near.join(", "))
        };
        self.problem(place, format!("unknown setting `{name}`; {hint}"));
    }

    fn into_config(mut self) -> Result<Config, ConfigError> {
        for (name, value) in &self.values {
            let setting = Setting::find(name).expect("only known settings were added");
            if let Some(shown) = shown_if_malformed(setting, value) {
                let place = value.origin().unwrap_or("(unknown place)").to_owned();
                self.problems.push(SettingProblem {
                    place,
                    message: format!(
                        "{name} = {shown} is not valid: expected {}",
                        setting.expected
                    ),
                });
            }
        }
        if !self.problems.is_empty() {
            return Err(ConfigError {
                problems: self.problems,
            });
        }
        let merged = ::config::Config::builder()
            .add_source(Layer(self.values.clone()))
            .build()
            .and_then(|all| all.try_deserialize());
        let config: Config = merged.map_err(|error| ConfigError {
            problems: vec![SettingProblem {
                place: "settings".to_owned(),
                message: error.to_string(),
            }],
        })?;
        self.check_together(&config);
        if self.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError {
                problems: self.problems,
            })
        }
    }

    /// Rules between settings.
    fn check_together(&mut self, config: &Config) {
        let listen = &config.server.listen;
        let reachable = |address: IpAddr| !address.to_canonical().is_loopback();
        if listen.address().is_some_and(reachable) {
            let message = format!(
                "server.listen = {listen} is reachable by others, and there are no tokens to keep them out: without tokens only loopback \
                 addresses may be listened on; {}",
                Remedy::ListenOnLoopback { port: listen.port }
            );
            self.problem(&self.place("server.listen"), message);
        }
        let Bitcoind {
            rpc_user,
            rpc_password,
            ..
        } = &config.bitcoind;
        match (rpc_user, rpc_password) {
            (Some(_), None) => self.problem(
                &self.place("bitcoind.rpc_user"),
                "bitcoind.rpc_user needs bitcoind.rpc_password".to_owned(),
            ),
            (None, Some(Secret(_))) => {
                self.problem(
                    &self.place("bitcoind.rpc_password"),
                    "bitcoind.rpc_password needs bitcoind.rpc_user".to_owned(),
                );
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    fn place(&self, name: &str) -> String {
        self.values
            .get(name)
            .and_then(Value::origin)
            .unwrap_or("default")
            .to_owned()
    }
}

/// The values as a source of the `config` crate.
#[derive(Debug, Clone)]
struct Layer(BTreeMap<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(self.0.clone().into_iter().collect())
    }
}

fn place_of(variable: &str) -> String {
    format!("environment variable {variable}")
}

/// Text from the environment or a flag, as the type that the setting has; text that cannot be that
/// stays text and is refused later.
fn text_value(name: &str, place: &str, text: &str) -> Value {
    let as_text = || ValueKind::String(text.to_owned());
    let kind = match Setting::find(name).map(|setting| setting.form) {
        Some(Form::Flag) => text.parse().map_or_else(|_| as_text(), ValueKind::Boolean),
        Some(Form::Count { .. }) => text.parse().map_or_else(|_| as_text(), ValueKind::I64),
        Some(Form::List(_)) => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            ValueKind::Array(
                items
                    .map(|item| Value::new(Some(&place.to_owned()), item))
                    .collect(),
            )
        }
        Some(Form::Text(_) | Form::Path) | None => as_text(),
    };
    Value::new(Some(&place.to_owned()), kind)
}

/// The value as an error shows it, if it is not what the setting expects.
fn shown_if_malformed(setting: &Setting, value: &Value) -> Option<String> {
    let good = match (setting.form, &value.kind) {
        (Form::Flag, ValueKind::Boolean(_)) => true,
        (Form::Count { min, max }, ValueKind::I64(number)) => (min..=max).contains(number),
        (Form::Text(check), ValueKind::String(text)) => check(text),
        (Form::Path, ValueKind::String(text)) => is_some(text),
        (Form::List(check), ValueKind::Array(items)) => items
            .iter()
            .all(|item| matches!(&item.kind, ValueKind::String(text) if check(text))),
        _ => false,
    };
    if good {
        return None;
    }
    // An address with a user and a password in it is refused, and must not be printed either.
    let hidden =
        setting.secret || matches!(&value.kind, ValueKind::String(text) if text.contains('@'));
    Some(if hidden {
        "(hidden)".to_owned()
    } else {
        shown(&value.kind)
    })
}

/// As TOML would have it, roughly.
fn shown(kind: &ValueKind) -> String {
    match kind {
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Array(items) => format!(
            "[{}]",
            items
                .iter()
                .map(|item| shown(&item.kind))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        ValueKind::Table(_) => "{ … }".to_owned(),
        other => other.to_string(),
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

    use serde::de::{self, Deserialize, Visitor};

    use super::*;
    use crate::config::History;

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
            .map(|problem| problem.to_string())
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
        let expected: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn the_table_names_exactly_the_fields_of_the_structs() {
        fn fields<T: for<'de> Deserialize<'de>>() -> Vec<&'static str> {
            let mut found = Vec::new();
            let _ = T::deserialize(Names(&mut found));
            found
        }
        let mut expected = Vec::new();
        let mut section = |name: &str, of: Vec<&str>| {
            of.iter()
                .for_each(|field| expected.push(format!("{name}.{field}")))
        };
        section("server", fields::<crate::config::Server>());
        section("store", fields::<crate::config::Store>());
        section("bitcoind", fields::<Bitcoind>());
        section("monitor", fields::<crate::config::Monitor>());
        section("watch", fields::<crate::config::Watch>());
        section("events", fields::<crate::config::Events>());
        section("webhooks", fields::<crate::config::Webhooks>());
        section("limits", fields::<crate::config::Limits>());
        section("log", fields::<crate::config::Log>());
        assert_eq!(
            fields::<Config>().len(),
            9,
            "a new section needs a line above"
        );
        assert_eq!(
            SETTINGS
                .iter()
                .map(|setting| setting.name)
                .collect::<Vec<_>>(),
            expected
        );
    }

    /// Takes down the field names of a struct.
    struct Names<'a>(&'a mut Vec<&'static str>);

    impl<'de> de::Deserializer<'de> for Names<'_> {
        type Error = de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("only structs"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            self.0.extend_from_slice(fields);
            Err(de::Error::custom("taken down"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
            tuple_struct map enum identifier ignored_any
        }
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
    fn an_unknown_setting_is_named_with_its_place() {
        let lines = problems(load_toml(
            "[server]\nlisten = \"127.0.0.1:1\"\nport = 5\n",
            &[],
        ));
        assert_eq!(
            lines,
            [
                "settings.toml: unknown setting `server.port`; there are server.listen, server.allowed_origins, server.allowed_hosts"
            ]
        );
        assert_eq!(
            problems(load_toml("listen = \"x\"\n", &[])),
            ["settings.toml: unknown setting `listen`; there are server.listen"]
        );
        assert_eq!(
            problems(load_toml("store = 5\n", &[])),
            ["settings.toml: `store` is a section: write [store] and its settings below"]
        );
        let lines = problems(load_toml(
            "[wallet]\n",
            &[
                ("SATWATCH__SERVER__PORT", "5"),
                ("SATWATCH__SERVER__Listen", "x"),
                ("SATWATCH_SERVER_ALLOWED_HOSTS", "shop.example"),
            ],
        ));
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert_eq!(
            lines[3],
            "environment variable SATWATCH_SERVER_ALLOWED_HOSTS: write \
             SATWATCH__SERVER__ALLOWED_HOSTS"
        );
        assert!(
            lines[0]
                .starts_with("settings.toml: unknown setting `wallet`; the sections are server,"),
            "{}",
            lines[0]
        );
        assert!(
            lines[1].starts_with(
                "environment variable SATWATCH__SERVER__PORT: unknown setting `server.port`"
            ),
            "{}",
            lines[1]
        );
        assert!(
            lines[2].starts_with("environment variable SATWATCH__SERVER__Listen: unknown setting"),
            "{}",
            lines[2]
        );
    }

    #[test]
    fn a_malformed_value_is_named_with_its_place_and_what_is_expected() {
        let cases = [
            (
                "[monitor]\nreconcile_interval = 0",
                "monitor.reconcile_interval = 0",
                "a whole number from 1 to 86400",
            ),
            (
                "[monitor]\nreconcile_interval = 1.5",
                "monitor.reconcile_interval = 1.5",
                "a whole number",
            ),
            (
                "[monitor]\nautostart = \"yes\"",
                "monitor.autostart = \"yes\"",
                "true or false",
            ),
            (
                "[server]\nlisten = 5005",
                "server.listen = 5005",
                "a host and a port",
            ),
            (
                "[server]\nallowed_origins = \"*\"",
                "server.allowed_origins = \"*\"",
                "a list of web origins",
            ),
            (
                "[server]\nallowed_origins = [\"x\"]",
                "server.allowed_origins = [\"x\"]",
                "a list of web origins",
            ),
            (
                "[watch]\nhistory = \"all\"",
                "watch.history = \"all\"",
                "\"utxo\" or \"none\"",
            ),
            (
                "[store]\npath = { a = 1 }",
                "store.path = { … }",
                "the path of a folder",
            ),
            (
                "[bitcoind]\nrpc_url = \"http://me:secret@h\"",
                "bitcoind.rpc_url = (hidden)",
                "without user and password",
            ),
            (
                "[bitcoind]\nrpc_password = 123456",
                "bitcoind.rpc_password = (hidden)",
                "a password",
            ),
        ];
        for (text, value, expected) in cases {
            let lines = problems(load_toml(text, &[]));
            assert_eq!(lines.len(), 1, "{text}: {lines:?}");
            assert!(
                lines[0].starts_with(&format!("settings.toml: {value} is not valid: expected ")),
                "{text}: {}",
                lines[0]
            );
            assert!(lines[0].contains(expected), "{text}: {}", lines[0]);
        }
        let lines = problems(load_toml(
            "",
            &[
                ("SATWATCH__MONITOR__AUTOSTART", "1"),
                ("SATWATCH__LIMITS__CONNECTIONS", ""),
            ],
        ));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines
                .iter()
                .all(|line| line.starts_with("environment variable SATWATCH__")),
            "{lines:?}"
        );
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
