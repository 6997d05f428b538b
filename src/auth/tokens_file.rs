//! The tokens file: its text, and the one function that changes it.
//!
//! ```toml
//! # Written by satwatch token; do not edit.
//! check = "…"
//! serial = 1754336318173
//! origin = "…"
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
//! `serial` grows with every change, so that an older file is known for one. `origin` is made at
//! random with the file and kept, so that another daemon's file is known, too. `check` is the hash
//! of all that follows its line: a file that was cut, wherever, is half written, not one with fewer
//! tokens or without an expiry.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bitcoin::hashes::{Hash, sha256};
use rustix::fs::OFlags;
use rustix::process::geteuid;
use serde::Deserialize;

use super::{Scope, TokenHash, TokenId, TokenText};
use crate::remedy::Remedy;
use crate::store::AuthMark;

/// Of the file. It bounds what a request's token is compared with.
const BYTES: u64 = 1 << 20;
/// Of a token's name.
const NAME: usize = 64;
/// Seconds before its end in which a token is called one that ends soon.
const SOON: u64 = 21 * 86_400;

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

    /// When it ends, if that is in three weeks or less and in the last quarter of its life, and has
    /// not come. Seconds since the Unix epoch. `now`: as above.
    pub fn ends_soon(&self, now: u64) -> Option<u64> {
        let expires = self.expires.filter(|_| !self.has_expired(now))?;
        let soon = SOON.min(expires.saturating_sub(self.created) / 4);
        (expires - now / 1000 <= soon).then_some(expires)
    }
}

/// Seconds since the Unix epoch, for people.
pub fn date(seconds: u64) -> String {
    // The format ends with the year 9999.
    let time = Some(seconds).filter(|it| *it < 253_402_300_800);
    let time = time.map(|it| UNIX_EPOCH + Duration::from_secs(it));
    time.map_or("far away".to_owned(), httpdate::fmt_http_date)
}

/// What a tokens file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokensFile {
    pub serial: u64,
    /// Of the form of a token's id. Files from before there was one have none.
    pub origin: Option<TokenId>,
    /// Every request needs a token.
    pub on: bool,
    pub tokens: Vec<Token>,
}

/// What is found in place of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSeen {
    Missing,
    /// It is not as it was written: why.
    Damaged(String),
    /// What is in it is not known.
    Unreadable {
        why: String,
        remedy: Option<Remedy>,
    },
    Good(TokensFile),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    serial: u64,
    origin: Option<String>,
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
        let origin = raw.origin.map(|text| {
            let parsed = TokenId::parse(&text);
            parsed.ok_or_else(|| "it has an origin that is none".to_owned())
        });
        let mut file = Self {
            serial: raw.serial,
            origin: origin.transpose()?,
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
        let mut text = format!("serial = {}\n", self.serial);
        if let Some(origin) = self.origin {
            text += &format!("origin = \"{origin}\"\n");
        }
        text += &format!("authentication = \"{switch}\"\n");
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
                return Ok(Err("it is no file".to_owned()));
            }
            let mut bytes = Vec::new();
            file.take(BYTES + 1).read_to_end(&mut bytes)?;
            Ok(match String::from_utf8(bytes) {
                Ok(text) if text.len() as u64 > BYTES => {
                    Err(format!("it is longer than {BYTES} bytes"))
                }
                Ok(text) => Self::parse(&text),
                Err(_) => Err("it is no text".to_owned()),
            })
        };
        // A pipe is not waited for.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
        match opened.and_then(read) {
            Ok(read) => read.map_or_else(FileSeen::Damaged, FileSeen::Good),
            // Below a file there is none: what is wrong with its folder, the store says.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                FileSeen::Missing
            }
            Err(error) => FileSeen::Unreadable {
                why: error.to_string(),
                remedy: (error.kind() == ErrorKind::PermissionDenied).then(|| to_be_read(path)),
            },
        }
    }

    /// What the store is to remember of this one.
    pub fn mark(&self, before: AuthMark) -> AuthMark {
        AuthMark {
            on: self.on,
            serial: self.serial,
            origin: self.origin.map(|it| it.0).or(before.origin),
            ..before
        }
    }

    /// Those that have not expired.
    pub fn live(&self, now: u64) -> impl Iterator<Item = &Token> {
        self.tokens
            .iter()
            .filter(move |token| !token.has_expired(now))
    }

    /// Takes a token out: by its name or, where none has that name, by its id. Whether there was
    /// one.
    pub fn remove(&mut self, wanted: &str) -> bool {
        let count = self.tokens.len();
        self.tokens.retain(|token| token.name != wanted);
        if self.tokens.len() == count {
            let id = TokenId::parse(wanted);
            self.tokens.retain(|token| Some(token.id) != id);
        }
        self.tokens.len() < count
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
    #[error("cannot change the tokens file {path} ({cause}){}", .remedy.as_ref().map_or(String::new(), |it| format!("; {it}")))]
    Io {
        path: PathBuf,
        cause: io::Error,
        remedy: Option<Remedy>,
    },
    #[error("{0}")]
    Refused(String),
}

/// Changes the file: takes the lock beside it, so that of two who change it at once the second one
/// sees what the first has written; reads, changes, writes beside it, syncs, and renames, so that
/// whoever reads it finds the old or the new one whole. What is written is newer than what the
/// store has seen of it (`known`), and of the same origin. `now`: milliseconds since the Unix
/// epoch.
pub fn change<T>(
    path: &Path,
    known: AuthMark,
    now: u64,
    work: impl FnOnce(FileSeen) -> Result<(TokensFile, T), String>,
) -> Result<T, ChangeError> {
    let folder = folder_of(path);
    let failed = |cause: io::Error| ChangeError::Io {
        path: path.to_owned(),
        remedy: (cause.kind() == ErrorKind::PermissionDenied)
            .then(|| given_to_us(folder).or_else(|| given_to_us(&beside(path, "lock"))))
            .flatten(),
        cause,
    };
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
        FileSeen::Missing | FileSeen::Damaged(_) | FileSeen::Unreadable { .. } => 0,
    };
    let (mut file, told) = work(seen).map_err(ChangeError::Refused)?;
    // TOML has no greater numbers.
    let highest = i64::MAX.unsigned_abs();
    let seen = before.max(known.serial);
    file.serial = seen.saturating_add(1).max(now).min(highest);
    let origin = known.origin.map(TokenId).or(file.origin);
    file.origin = Some(origin.unwrap_or_else(TokenId::random));
    let text = file.to_text();
    if text.len() as u64 > BYTES {
        let what = "so many tokens do not fit into the file: revoke some that nobody uses";
        return Err(ChangeError::Refused(what.to_owned()));
    }
    replace(path, folder, &text).map_err(failed)?;
    Ok(told)
}

/// Keeps what is there under another name, too, until the file is replaced: at no moment is there
/// none. Tells the name.
pub fn keep_aside(path: &Path, now: u64) -> io::Result<PathBuf> {
    let aside = beside(path, &format!("broken-{now}"));
    fs::hard_link(path, &aside)?;
    Ok(aside)
}

/// What helps who may not read the file.
fn to_be_read(path: &Path) -> Remedy {
    let whole = path.to_owned();
    match fs::metadata(path) {
        Ok(_) => given_to_us(path).unwrap_or(Remedy::CloseFile { path: whole }),
        // Its folder keeps it from being looked at.
        Err(_) => given_to_us(folder_of(path)).unwrap_or(Remedy::LetRead { path: whole }),
    }
}

/// What helps with what belongs to another user.
fn given_to_us(path: &Path) -> Option<Remedy> {
    let (owner, user) = (fs::metadata(path).ok()?.uid(), geteuid().as_raw());
    let path = path.to_owned();
    (owner != user).then_some(Remedy::GiveTo { path, owner, user })
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
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
        change(path, AuthMark::default(), 1000, |seen| {
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
            assert!(matches!(seen, FileSeen::Damaged(_)), "{seen:?}");
        }
    }

    #[test]
    fn a_token_ends_soon_in_its_last_quarter_or_three_weeks() {
        const DAY: u64 = 86_400;
        let (text, mut file) = (TokenText::random(), TokensFile::default());
        for (life, soon) in [(1000 * DAY, 21 * DAY), (40 * DAY, 10 * DAY), (4, 1)] {
            let (now, ends) = (5000, 5 + life);
            file.add("a", Scope::Read, &text, Some(ends), now)
                .expect("new");
            let token = file.tokens.remove(0);
            let left = |left: u64| token.ends_soon((ends - left) * 1000);
            assert_eq!(left(soon + 1), None, "{life}");
            assert_eq!((left(soon), left(1)), (Some(ends), Some(ends)), "{life}");
            assert_eq!(left(0), None, "it has ended");
        }
        file.add("b", Scope::Read, &text, None, 0).expect("new");
        assert_eq!(file.tokens[0].ends_soon(u64::MAX), None);
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(u64::MAX), "far away");
    }

    #[test]
    fn a_token_is_taken_out_by_its_name_before_the_id_of_another_one() {
        let mut file = TokensFile::default();
        let text = TokenText::random();
        let first = file.add("first", Scope::Read, &text, None, 0).expect("new");
        let id = first.to_string();
        file.add(&id, Scope::Read, &text, None, 0).expect("new");
        assert!(file.remove(&id) && file.tokens[0].name == "first");
        assert!(file.remove(&id) && file.tokens.is_empty() && !file.remove(&id));
    }

    #[test]
    fn what_is_kept_aside_stays_in_its_place_until_it_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens.toml");
        fs::write(&path, "broken").expect("ours");
        let aside = keep_aside(&path, 7).expect("ours");
        for path in [&path, &aside] {
            assert_eq!(fs::read_to_string(path).expect("ours"), "broken");
        }
        assert!(keep_aside(&path, 7).is_err(), "nothing is written over");
        add(&path, "a").expect("ours");
        assert_eq!(fs::read_to_string(&aside).expect("ours"), "broken");
    }
}
