//! The tokens file: its text, and the one function that changes it.
//!
//! ```toml
//! # Written by satwatch token; do not edit.
//! check = "…"
//! serial = 1754336318173
//! authentication = "on"
//!
//! [[token]]
//! id = "…"
//! name = "shop"
//! scope = "watch"
//! hash = "…"
//! created = 1754336318
//! expires = 1762112318
//! ```
//!
//! `serial` grows with every change, so that an older file is known for one. `check` is the hash
//! of all that follows its line: a file that was cut, wherever, is half written, not one with fewer
//! tokens or without an expiry.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use bitcoin::hashes::{Hash, sha256};
use serde::Deserialize;

use super::{Scope, TokenHash, TokenId, TokenText};

/// Of the file. It bounds what a request's token is compared with.
const BYTES: u64 = 1 << 20;
/// Of a token's name.
const NAME: usize = 64;

/// What the file begins with.
const HEAD: &str = "# Written by satwatch token; do not edit.\ncheck = \"";

fn check_of(text: &str) -> String {
    sha256::Hash::hash(text.as_bytes()).to_string()
}

/// A token as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: TokenId,
    pub name: String,
    pub scope: Scope,
    pub hash: TokenHash,
    /// Seconds since the Unix epoch.
    pub created: u64,
    /// The same.
    pub expires: Option<u64>,
}

impl Token {
    /// `now`: milliseconds since the Unix epoch.
    pub fn has_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now / 1000)
    }
}

/// What a tokens file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokensFile {
    pub serial: u64,
    /// Every request needs a token.
    pub on: bool,
    pub tokens: Vec<Token>,
}

/// What is found in place of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSeen {
    Missing,
    /// Why.
    Unreadable(String),
    Good(TokensFile),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    serial: u64,
    authentication: Switch,
    #[serde(default)]
    token: Vec<RawToken>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Switch {
    On,
    Off,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawToken {
    id: String,
    name: String,
    scope: String,
    hash: String,
    created: u64,
    expires: Option<u64>,
}

impl TokensFile {
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("it is empty".to_owned());
        }
        let whole = text
            .strip_prefix(HEAD)
            .and_then(|text| text.split_once("\"\n"))
            .filter(|(check, rest)| *check == check_of(rest));
        let Some((_, rest)) = whole else {
            return Err("it is half written, or was not written by satwatch token".to_owned());
        };
        // The parser's own words quote the line.
        let raw: Raw = toml::from_str(rest).map_err(|error| error.message().to_owned())?;
        let mut file = Self {
            serial: raw.serial,
            on: raw.authentication == Switch::On,
            tokens: Vec::with_capacity(raw.token.len()),
        };
        for raw in raw.token {
            let token = token(raw)?;
            if file.tokens.iter().any(|other| other.id == token.id) {
                return Err(format!("two tokens have the id {}", token.id));
            }
            file.tokens.push(token);
        }
        Ok(file)
    }

    pub fn to_text(&self) -> String {
        let switch = if self.on { "on" } else { "off" };
        let mut text = format!("serial = {}\nauthentication = \"{switch}\"\n", self.serial);
        for token in &self.tokens {
            text += &format!(
                "\n[[token]]\nid = \"{}\"\nname = \"{}\"\nscope = \"{}\"\nhash = \"{}\"\ncreated = {}\n",
                token.id, token.name, token.scope, token.hash, token.created
            );
            if let Some(expires) = token.expires {
                text += &format!("expires = {expires}\n");
            }
        }
        format!("{HEAD}{}\"\n{text}", check_of(&text))
    }

    /// What is at a path.
    pub fn look(path: &Path) -> FileSeen {
        let read = |file: File| {
            let mut text = String::new();
            file.take(BYTES + 1).read_to_string(&mut text)?;
            Ok(text)
        };
        match File::open(path).and_then(read) {
            Ok(text) if text.len() as u64 > BYTES => {
                FileSeen::Unreadable(format!("it is longer than {BYTES} bytes"))
            }
            Ok(text) => Self::parse(&text).map_or_else(FileSeen::Unreadable, FileSeen::Good),
            Err(error) if error.kind() == ErrorKind::NotFound => FileSeen::Missing,
            Err(error) => FileSeen::Unreadable(error.to_string()),
        }
    }

    /// Those that have not expired.
    pub fn live(&self, now: u64) -> impl Iterator<Item = &Token> {
        self.tokens
            .iter()
            .filter(move |token| !token.has_expired(now))
    }

    /// Adds a token under a name that no live one has. `now`: milliseconds since the Unix epoch.
    pub fn add(
        &mut self,
        name: &str,
        scope: Scope,
        text: &TokenText,
        expires: Option<u64>,
        now: u64,
    ) -> Result<TokenId, String> {
        if !is_name(name) {
            return Err(format!(
                "a name has 1 to {NAME} letters, digits and characters of ._-"
            ));
        }
        if self.live(now).any(|token| token.name == name) {
            return Err(format!("there is a token {name} already"));
        }
        self.tokens.retain(|token| token.name != name);
        let id = TokenId::random();
        self.tokens.push(Token {
            id,
            name: name.to_owned(),
            scope,
            hash: TokenHash::of(text),
            created: now / 1000,
            expires,
        });
        self.on = true;
        Ok(id)
    }
}

fn is_name(text: &str) -> bool {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME).contains(&text.len()) && text.bytes().all(right)
}

fn token(raw: RawToken) -> Result<Token, String> {
    let wrong = |what: &str| format!("a token has a {what} that is none");
    let known = Scope::ALL.into_iter();
    let scope = known.clone().find(|scope| scope.name() == raw.scope);
    if !is_name(&raw.name) {
        return Err(wrong("name"));
    }
    Ok(Token {
        id: TokenId::parse(&raw.id).ok_or_else(|| wrong("id"))?,
        name: raw.name,
        scope: scope.ok_or_else(|| wrong("scope"))?,
        hash: TokenHash::parse(&raw.hash).ok_or_else(|| wrong("hash"))?,
        created: raw.created,
        expires: raw.expires,
    })
}

/// Why the file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("cannot change the tokens file {path} ({cause})")]
    Io { path: PathBuf, cause: io::Error },
    #[error("{0}")]
    Refused(String),
}

/// Changes the file: takes the lock beside it, so that of two who change it at once the second one
/// sees what the first has written; reads, changes, writes beside it, syncs, and renames, so that
/// whoever reads it finds the old or the new one whole. `known` is a serial that was seen of it
/// elsewhere: the new one is higher. `now`: milliseconds since the Unix epoch.
pub fn change<T>(
    path: &Path,
    known: u64,
    now: u64,
    work: impl FnOnce(FileSeen) -> Result<(TokensFile, T), String>,
) -> Result<T, ChangeError> {
    let failed = |cause| ChangeError::Io {
        path: path.to_owned(),
        cause,
    };
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed)?;
    let lock = private(&beside(path, "lock")).map_err(failed)?;
    give_to_owner_of(folder, &lock);
    lock.lock().map_err(failed)?;
    let seen = TokensFile::look(path);
    let before = match &seen {
        FileSeen::Good(file) => file.serial,
        FileSeen::Missing | FileSeen::Unreadable(_) => 0,
    };
    let (mut file, told) = work(seen).map_err(ChangeError::Refused)?;
    // TOML has no greater numbers.
    let highest = i64::MAX.unsigned_abs();
    file.serial = before.max(known).saturating_add(1).max(now).min(highest);
    let text = file.to_text();
    if text.len() as u64 > BYTES {
        let what = "so many tokens do not fit into the file: revoke some that nobody uses";
        return Err(ChangeError::Refused(what.to_owned()));
    }
    replace(path, folder, &text).map_err(failed)?;
    Ok(told)
}

fn replace(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let new = beside(path, "new");
    // One that a death has left; whoever holds the lock may.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private(&new)?;
    give_to_owner_of(folder, &file);
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    name.into()
}

/// Whoever administers the machine may run the command as another user than the daemon's, which has
/// to read the file.
fn give_to_owner_of(folder: &Path, file: &File) {
    let owners =
        fs::metadata(folder).and_then(|of| Ok((of.uid(), of.gid(), file.metadata()?.uid())));
    if let Ok((user, group, ours)) = owners
        && user != ours
        && let Err(error) = fchown(file, Some(user), Some(group))
    {
        tracing::warn!(%error, "{} belongs to another user", folder.display());
    }
}

/// For its user only.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path)
}
