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
use rustix::fs::OFlags;
use serde::Deserialize;

use super::{Scope, TokenHash, TokenId, TokenText};

/// Of the file. It bounds what a request's token is compared with.
const BYTES: u64 = 1 << 20;
/// Of a token's name.
const NAME: usize = 64;

/// What the file begins with.
const HEAD: &str = "# Written by satwatch token; do not edit.\ncheck = \"";
/// With the check.
const LINES_OF_HEAD: usize = 2;

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
        let raw: Raw = toml::from_str(rest).map_err(|error| {
            // The parser's own words show what stands there.
            let before = error.span().and_then(|span| rest.get(..span.start));
            let line = before.unwrap_or_default().matches('\n').count() + LINES_OF_HEAD + 1;
            format!("line {line} is not as satwatch token writes it")
        })?;
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
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is no file"));
            }
            let mut text = String::new();
            file.take(BYTES + 1).read_to_string(&mut text)?;
            Ok(text)
        };
        let mut options = OpenOptions::new();
        // A pipe is not waited for.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        match options
            .read(true)
            .custom_flags(flags)
            .open(path)
            .and_then(read)
        {
            Ok(text) if text.len() as u64 > BYTES => {
                FileSeen::Unreadable(format!("it is longer than {BYTES} bytes"))
            }
            Ok(text) => Self::parse(&text).map_or_else(FileSeen::Unreadable, FileSeen::Good),
            // Below a file there is none: what is wrong with its folder, the store says.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                FileSeen::Missing
            }
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
    let lock = open_lock(&beside(path, "lock"), folder).map_err(failed)?;
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

/// Whoever owns the folder may have put a link there: it is not followed, and only what is made
/// here is given away.
fn open_lock(path: &Path, folder: &Path) -> io::Result<File> {
    match private().create_new(true).open(path) {
        Ok(made) => {
            give_to_owner_of(folder, &made)?;
            Ok(made)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let found = private().open(path)?;
            match found.metadata()?.is_file() {
                true => Ok(found),
                false => Err(io::Error::other("the lock beside it is no file")),
            }
        }
        Err(error) => Err(error),
    }
}

fn replace(path: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let new = beside(path, "new");
    // One that a death has left; whoever holds the lock may.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private().create_new(true).open(&new)?;
    let written = give_to_owner_of(folder, &file)
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&new, path));
    if let Err(error) = written {
        _ = fs::remove_file(&new);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    name.into()
}

/// Whoever administers the machine may run the command as another user than the daemon's, which has
/// to read the file. `made`: by this process, since the owner of the folder could have put anything
/// else there.
fn give_to_owner_of(folder: &Path, made: &File) -> io::Result<()> {
    let (folder, ours) = (fs::metadata(folder)?, made.metadata()?.uid());
    // The superuser reads it as it is.
    if folder.uid() == ours || folder.uid() == 0 {
        return Ok(());
    }
    fchown(made, Some(folder.uid()), Some(folder.gid())).map_err(|error| {
        let what = format!("its folder belongs to another user, who could not read it: {error}");
        io::Error::new(error.kind(), what)
    })
}

/// For its user only. Neither a link is followed, nor a pipe waited for.
fn private() -> OpenOptions {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options
        .write(true)
        .mode(0o600)
        .custom_flags(flags.bits().cast_signed());
    options
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn add(path: &Path, name: &str) -> Result<TokenId, ChangeError> {
        change(path, 0, 1000, |seen| {
            let mut file = match seen {
                FileSeen::Good(file) => file,
                _ => TokensFile::default(),
            };
            let id = file.add(name, Scope::Read, &TokenText::random(), None, 1000)?;
            Ok((file, id))
        })
    }

    #[test]
    fn what_somebody_put_in_place_of_the_lock_or_the_new_file_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, theirs) = (
            folder.path().join("tokens.toml"),
            folder.path().join("theirs"),
        );
        fs::write(&theirs, "theirs").expect("ours");
        let lock = beside(&path, "lock");
        symlink(&theirs, &lock).expect("ours");
        assert!(add(&path, "a").is_err());
        fs::remove_file(&lock).expect("ours");
        symlink(folder.path().join("nothing"), &lock).expect("ours");
        assert!(add(&path, "a").is_err());
        assert!(!folder.path().join("nothing").exists() && !path.exists());
        fs::remove_file(&lock).expect("ours");
        fs::create_dir(&lock).expect("ours");
        assert!(add(&path, "a").is_err());
        fs::remove_dir(&lock).expect("ours");
        symlink(&theirs, beside(&path, "new")).expect("ours");
        add(&path, "a").expect("nothing is in the way");
        add(&path, "b").expect("the lock is there");
        assert_eq!(fs::read_to_string(&theirs).expect("ours"), "theirs");
        assert!(!fs::symlink_metadata(&path).expect("ours").is_symlink());
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("tokens.toml");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo can be run").success());
        for path in [pipe.as_path(), folder.path()] {
            let seen = TokensFile::look(path);
            assert!(matches!(seen, FileSeen::Unreadable(_)), "{seen:?}");
        }
    }
}
