//! Settings, from the text of a file and from the environment.

use std::ffi::OsString;

use satwatch::config::internals::load_text;
use satwatch::config::{Config, ConfigError};

use super::Secrets;

/// Settings that hold a secret, or may.
const SECRET: [(&str, &str); 4] = [
    ("bitcoind", "rpc_password"),
    ("bitcoind", "rpc_user"),
    ("webhooks", "proxy"),
    ("bitcoind", "zmq_rawtx"),
];
/// How its value may begin.
const BEGINNINGS: [&str; 9] = [
    " = \"",
    " = '",
    " = \"\"\"",
    " = [\"",
    " = ",
    "=",
    " = { a = \"",
    ".\"x\" = \"",
    " = 'socks5h://u:",
];

/// The first byte says what the others are: a file, a file in which they follow a secret, or the
/// environment, a variable a line.
pub fn settings(data: &[u8]) {
    let Some((which, rest)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    match which % 4 {
        0 | 1 => check(&text, &[]),
        2 => secret(&Secrets::of(data), &text),
        _ => check("", &variables(&text)),
    }
}

/// Whether it is good says the same text each time, and each problem has its place.
fn check(text: &str, environment: &[(OsString, OsString)]) {
    let read = load(text, environment);
    assert_eq!(read, load(text, environment));
    let Err(ConfigError { problems }) = read else {
        return;
    };
    assert!(!problems.is_empty());
    for problem in problems {
        let places = ["a.toml: ", "environment variable ", "default: "];
        assert!(
            places.iter().any(|place| problem.starts_with(place)),
            "{problem}"
        );
    }
}

fn load(text: &str, environment: &[(OsString, OsString)]) -> Result<Config, ConfigError> {
    load_text("a.toml", text, environment.iter().cloned())
}

/// Two bytes say which setting has a token and how, the others are the rest of the file. Nothing
/// that is said of it shows the token.
fn secret(secrets: &Secrets, text: &str) {
    let Secrets { token, key } = secrets;
    let mut chars = text.chars();
    let mut choice = |most: usize| chars.next().map_or(0, |c| c as usize % most);
    let (section, name) = SECRET[choice(SECRET.len())];
    let beginning = BEGINNINGS[choice(BEGINNINGS.len())];
    let file = format!(
        "[{section}]\n{name}{beginning}{token}@{key}{}",
        chars.as_str()
    );
    let variable = format!("SATWATCH__{section}__{name}").to_ascii_uppercase();
    let value = format!("{beginning}{token}@{key}{}", chars.as_str());
    for (file, environment) in [
        (&*file, vec![]),
        ("", vec![(variable.into(), value.into())]),
    ] {
        check(file, &environment);
        if let Err(ConfigError { problems }) = load(file, &environment) {
            problems.iter().for_each(|problem| secrets.check(problem));
        }
    }
}

fn variables(text: &str) -> Vec<(OsString, OsString)> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}
