//! `satwatch token …`: makes, lists and revokes tokens. It changes the tokens file; a running
//! daemon notices.
//!
//! What a program may want to read (the text of a token, the list) goes to standard output, all
//! else to standard error.

use std::io::{Write, stderr, stdout};
use std::thread::sleep;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Result, bail};

use crate::auth::{self, FileSeen, Scope, Token, TokenId, TokenText, TokensFile};
use crate::cli::{TokenCommand, TokenScope};
use crate::clock::now_ms;
use crate::config::Config;
use crate::remedy::Remedy;
use crate::store::{self, RememberedAuth};

/// So long a daemon may take before it is said that it has not.
const TAKEN_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks for that.
const LOOK: Duration = Duration::from_millis(100);

/// What `satwatch token` does. An error says why it did not.
pub fn carry_out(config: &Config, command: TokenCommand) -> Result<()> {
    match command {
        TokenCommand::New {
            name,
            scope,
            expires,
        } => new(config, &name, scope.into(), expires),
        TokenCommand::List => list(config),
        TokenCommand::Revoke { token } => revoke(config, &token),
        TokenCommand::Off => off(config),
        TokenCommand::Accept => accept(config),
        TokenCommand::Generate => {
            say(&mut stdout(), TokenText::random().reveal());
            Ok(())
        }
    }
}

impl From<TokenScope> for Scope {
    fn from(scope: TokenScope) -> Self {
        match scope {
            TokenScope::Read => Self::Read,
            TokenScope::Watch => Self::Watch,
            TokenScope::Admin => Self::Admin,
            TokenScope::Metrics => Self::Metrics,
        }
    }
}

/// A reader that has gone away is no reason to fail: what was to be done is done.
fn say(out: &mut impl Write, text: &str) {
    let _ = writeln!(out, "{text}");
}

fn note(text: &str) {
    say(&mut stderr(), text);
}

/// What the store remembers, as far as it can be read beside a running daemon.
fn remembered(config: &Config) -> Option<RememberedAuth> {
    match store::remembered_auth(&config.store.path) {
        Ok(remembered) => Some(remembered.unwrap_or_default()),
        Err(error) => {
            note(&format!("the store cannot be looked at: {error}"));
            None
        }
    }
}

/// Changes the file as [`auth::change`] does.
fn change<T>(
    config: &Config,
    work: impl FnOnce(FileSeen) -> Result<(TokensFile, T), String>,
) -> Result<T> {
    let known = remembered(config).map_or(0, |it| it.mark.serial);
    Ok(auth::change(&config.tokens_file(), known, now_ms(), work)?)
}

/// A file that is good, for who changes something in it.
fn good(seen: FileSeen) -> Result<TokensFile, String> {
    match seen {
        FileSeen::Good(file) => Ok(file),
        FileSeen::Missing => Err("there are no tokens".to_owned()),
        FileSeen::Unreadable(why) => Err(format!(
            "the tokens file cannot be used ({why}); {}",
            Remedy::RestoreTokens
        )),
    }
}

fn new(config: &Config, name: &str, scope: Scope, lifetime: Option<Duration>) -> Result<()> {
    let (text, now) = (TokenText::random(), now_ms());
    let expires = lifetime.map(|lifetime| (now / 1000).saturating_add(lifetime.as_secs()));
    let closes = change(config, |seen| {
        let mut file = match seen {
            FileSeen::Missing => TokensFile::default(),
            other => good(other)?,
        };
        let closes = !file.on;
        file.add(name, scope, &text, expires, now)?;
        Ok((file, closes))
    })?;
    if closes {
        note(
            "This is the first token: from now on every request needs one. Scripts, browsers and Socket.IO \
             clients without a token are refused, and their sessions end; this stays so when \
             the last token is revoked or expires. The way back: satwatch token off",
        );
    }
    note(&format!(
        "The token {name} of scope {scope}; it is shown this once:"
    ));
    say(&mut stdout(), text.reveal());
    tell_who_has_taken_it(config);
    Ok(())
}

/// A change is in force when a daemon has taken it.
fn tell_who_has_taken_it(config: &Config) {
    let (path, store) = (config.tokens_file(), &config.store.path);
    let FileSeen::Good(file) = TokensFile::look(&path) else {
        return;
    };
    let (path, store) = (path.display(), store.display());
    let began = Instant::now();
    loop {
        if !store::is_in_use(&config.store.path) {
            return note(&format!(
                "No daemon uses {store} now; the next one that starts there takes {path}."
            ));
        }
        let seen = store::remembered_auth(&config.store.path);
        if matches!(seen, Ok(Some(seen)) if seen.mark.serial >= file.serial) {
            return note("The daemon has taken it.");
        }
        if began.elapsed() > TAKEN_WITHIN {
            return note(&format!(
                "The daemon that uses {store} has not taken {path} yet: its log and GET /status say why."
            ));
        }
        sleep(LOOK);
    }
}

fn list(config: &Config) -> Result<()> {
    let path = config.tokens_file();
    let file = match TokensFile::look(&path) {
        FileSeen::Good(file) => file,
        FileSeen::Missing => {
            note(&format!("there is no {}", path.display()));
            return Ok(());
        }
        FileSeen::Unreadable(why) => bail!("{} cannot be used ({why})", path.display()),
    };
    let (now, remembered) = (now_ms(), remembered(config));
    let mut out = stdout();
    let row = |cells: [&str; 6]| {
        let [id, name, scope, created, expires, used] = cells;
        format!("{id:<16}  {name:<20}  {scope:<7}  {created:<29}  {expires:<29}  {used}")
    };
    say(
        &mut out,
        &row(["id", "name", "scope", "created", "expires", "last used"]),
    );
    for token in &file.tokens {
        let id = token.id.to_string();
        let (created, expires) = (shown(token.created), expiry(token, now));
        let used = match &remembered {
            None => "not known".to_owned(),
            Some(remembered) => {
                let mut used = remembered.used.iter();
                let found = used.find(|(id, _)| *id == token.id.0);
                found.map_or("never".to_owned(), |(_, at)| shown(at / 1000))
            }
        };
        let cells = [
            &id,
            &token.name,
            token.scope.name(),
            &created,
            &expires,
            &used,
        ];
        say(&mut out, &row(cells));
    }
    if !file.on {
        note("Authentication is off: these tokens are not asked for.");
    }
    if let Some(older) = remembered.filter(|it| file.serial < it.mark.serial) {
        note(&format!(
            "This file is an older one (serial {}, and the daemon has seen {}): it is not taken. If it is right: satwatch token accept",
            file.serial, older.mark.serial
        ));
    }
    Ok(())
}

fn expiry(token: &Token, now: u64) -> String {
    match token.expires {
        None => "never".to_owned(),
        Some(_) if token.has_expired(now) => "has expired".to_owned(),
        Some(expires) => shown(expires),
    }
}

/// Seconds since the Unix epoch.
fn shown(time: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(time));
    time.map_or("far away".to_owned(), httpdate::fmt_http_date)
}

fn revoke(config: &Config, wanted: &str) -> Result<()> {
    let left = change(config, |seen| {
        let mut file = good(seen)?;
        let id = TokenId::parse(wanted);
        let is_it = |token: &Token| token.name == wanted || Some(token.id) == id;
        if !file.tokens.iter().any(is_it) {
            return Err(format!(
                "there is no token {wanted}; satwatch token list shows those that there are"
            ));
        }
        file.tokens.retain(|token| !is_it(token));
        let left = file.live(now_ms()).count();
        Ok((file, left))
    })?;
    note(&format!("The token {wanted} is revoked."));
    if left == 0 {
        note(
            "No token is left, and every request is refused. A new one: satwatch token new; or the way back: satwatch token off",
        );
    }
    tell_who_has_taken_it(config);
    Ok(())
}

fn off(config: &Config) -> Result<()> {
    if config.reachable_by_others.is_some() {
        bail!(
            "others can reach server.listen = {}; write server.listen = \"127.0.0.1:{}\" first",
            config.server.listen,
            config.server.listen.port
        );
    }
    let kept = change(config, |seen| {
        let mut file = match seen {
            FileSeen::Good(file) => file,
            // What was in it is lost.
            FileSeen::Missing | FileSeen::Unreadable(_) => TokensFile::default(),
        };
        file.on = false;
        let kept = file.tokens.len();
        Ok((file, kept))
    })?;
    note("Authentication is off: whoever reaches the daemon may do everything.");
    if kept > 0 {
        note(&format!(
            "Tokens that stay in the file ({kept}) are good again with the next satwatch token new."
        ));
    }
    tell_who_has_taken_it(config);
    Ok(())
}

fn accept(config: &Config) -> Result<()> {
    let (on, tokens) = change(config, |seen| {
        let file = good(seen)?;
        let said = (file.on, file.tokens.len());
        Ok((file, said))
    })?;
    note(&match on {
        true => format!("The file is accepted as it is, with its {tokens} tokens."),
        false => "The file is accepted as it is: it says that authentication is off, so whoever \
                  reaches the daemon may do everything."
            .to_owned(),
    });
    tell_who_has_taken_it(config);
    Ok(())
}
