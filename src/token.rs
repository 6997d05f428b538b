//! `satwatch token …`: makes, lists and revokes tokens. It changes the tokens file; a running
//! daemon notices.
//!
//! Whatever changes the file judges it first, as the daemon does, by what the store remembers: one
//! that is lost, damaged, older or another daemon's is left as it is. Then it says where the file
//! is, and whether a daemon has taken it.
//!
//! What a program may want to read (the text of a token, the list) goes to standard output, all
//! else to standard error.

use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::auth::{self, FileSeen, Problem, Scope, Token, TokenText, TokensFile, date, judge};
use crate::cli::{TokenCommand, TokenScope};
use crate::clock::now_ms;
use crate::config::Config;
use crate::store::{self, AuthMark, RememberedAuth};

/// So long a daemon may take before it is said that it has not.
const TAKEN_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks for that.
const LOOK: Duration = Duration::from_millis(100);

/// What `satwatch token` does. An error says why it did not.
pub fn carry_out(config: &Config, command: TokenCommand) -> Result<()> {
    let place = Place::of(config)?;
    match command {
        TokenCommand::New {
            name,
            scope,
            expires,
            anew,
        } => new(&place, &name, scope.into(), expires, anew),
        TokenCommand::List => list(&place),
        TokenCommand::Revoke { token } => revoke(&place, &token),
        TokenCommand::Off => off(config, &place),
        TokenCommand::Accept => accept(&place),
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

/// Whole paths: what a setting names depends on the folder that a command is run in.
struct Place {
    file: PathBuf,
    store: PathBuf,
}

impl Place {
    fn of(config: &Config) -> Result<Self> {
        Ok(Self {
            file: std::path::absolute(config.tokens_file())?,
            store: std::path::absolute(&config.store.path)?,
        })
    }

    /// What the store remembers, also beside a running daemon.
    fn remembered(&self) -> Result<RememberedAuth> {
        let remembered = store::remembered_auth(&self.store);
        let remembered = remembered.context("what the store has seen of tokens cannot be read")?;
        Ok(remembered.unwrap_or_default())
    }

    /// Changes the file as [`auth::change`] does. `work` is also given what the store remembers.
    fn change<T>(
        &self,
        work: impl FnOnce(FileSeen, &RememberedAuth) -> Result<(TokensFile, T), String>,
    ) -> Result<T> {
        let remembered = self.remembered()?;
        let work = |seen| work(seen, &remembered);
        Ok(auth::change(&self.file, remembered.mark, now_ms(), work)?)
    }

    fn refused(&self, problem: &Problem) -> String {
        format!("tokens file {}: {problem}", self.file.display())
    }

    /// For what changes something that must be there.
    fn there(&self, seen: FileSeen, mark: AuthMark) -> Result<TokensFile, String> {
        let file = judge(seen, mark).map_err(|problem| self.refused(&problem))?;
        file.ok_or_else(|| format!("there are no tokens: {} is not there", self.file.display()))
    }
}

fn new(
    place: &Place,
    name: &str,
    scope: Scope,
    lifetime: Option<Duration>,
    anew: bool,
) -> Result<()> {
    let (text, now) = (TokenText::random(), now_ms());
    let expires = lifetime.map(|lifetime| (now / 1000).saturating_add(lifetime.as_secs()));
    let (is_first, notes) = place.change(|seen, remembered| {
        let (mut file, notes) = match judge(seen, remembered.mark) {
            Ok(Some(_)) if anew => {
                let path = place.file.display();
                return Err(format!(
                    "{path} is good: --anew is for one that is lost or damaged"
                ));
            }
            Ok(file) => (file.unwrap_or_default(), Vec::new()),
            Err(Problem::Missing | Problem::Damaged(_)) if anew => {
                begin_anew(place, remembered, now)?
            }
            Err(problem) => return Err(place.refused(&problem)),
        };
        let is_first = file.tokens.is_empty() && remembered.mark == AuthMark::default();
        file.add(name, scope, &text, expires, now)?;
        Ok((file, (is_first, notes)))
    })?;
    notes.iter().for_each(|text| note(text));
    if is_first {
        note(
            "This is the first token: with it every request needs one. Scripts, browsers and Socket.IO \
             clients without a token are refused, and their sessions end; this stays so when \
             the last token is revoked or expires. The way back: satwatch token off",
        );
    }
    note(&format!(
        "The token {name} of scope {scope} is in {}; it is shown this once:",
        place.file.display()
    ));
    say(&mut stdout(), text.reveal());
    tell_who_has_taken_it(place)
}

/// A file in place of one that is lost or damaged. Everything stays closed: the store remembers
/// that tokens are asked for.
fn begin_anew(
    place: &Place,
    remembered: &RememberedAuth,
    now: u64,
) -> Result<(TokensFile, Vec<String>), String> {
    let mut notes = vec![format!(
        "Every other token of this daemon ends by this; {} of them were used.",
        remembered.used.len()
    )];
    if place.file.symlink_metadata().is_ok() {
        let aside = auth::keep_aside(&place.file, now)
            .map_err(|error| format!("{} cannot be kept aside: {error}", place.file.display()))?;
        notes.push(format!("What was there is kept as {}.", aside.display()));
    }
    Ok((TokensFile::default(), notes))
}

/// A change is in force when a daemon has taken it.
fn tell_who_has_taken_it(place: &Place) -> Result<()> {
    let FileSeen::Good(file) = TokensFile::look(&place.file) else {
        bail!("{} was changed again meanwhile", place.file.display());
    };
    let (path, store) = (place.file.display(), place.store.display());
    let began = Instant::now();
    loop {
        let seen = store::remembered_auth(&place.store);
        if !store::is_in_use(&place.store) {
            note(&match seen {
                Ok(None) => format!(
                    "There is no store of this release in {store}: a daemon that runs elsewhere notices nothing. The first one that starts there takes {path}."
                ),
                _ => format!(
                    "No daemon runs on {store} now; the next one that starts there takes {path}."
                ),
            });
            return Ok(());
        }
        if let Ok(Some(RememberedAuth { mark, .. })) = seen
            && mark.serial >= file.serial
        {
            note(match mark.on && !file.on {
                false => "The daemon has taken it.",
                true => {
                    "The daemon has seen it, and goes on asking for tokens: the file says that authentication is off, \
                     and others can reach that daemon. What the file takes away from tokens has ended; all else is as before."
                }
            });
            return Ok(());
        }
        if began.elapsed() > TAKEN_WITHIN {
            bail!(
                "the daemon that runs on {store} has not taken {path}, so nothing has changed there: either its log and GET /status say why, \
                 or it has another auth.tokens_file (this command takes the daemon's settings and environment)"
            );
        }
        sleep(LOOK);
    }
}

fn list(place: &Place) -> Result<()> {
    let (seen, now) = (TokensFile::look(&place.file), now_ms());
    let remembered = place.remembered();
    let mark = remembered
        .as_ref()
        .map_or(AuthMark::default(), |it| it.mark);
    let judged = judge(seen.clone(), mark);
    if let FileSeen::Good(file) = &seen {
        let used = remembered.as_ref().ok().map(|it| &it.used[..]);
        list_tokens(file, used, now);
        if !file.on {
            note("Authentication is off: these tokens are not asked for.");
        }
    }
    if let Err(error) = &remembered {
        note(&format!("{error:#}"));
    }
    match judged {
        Ok(Some(_)) => {}
        Ok(None) => note(&format!("there is no {}", place.file.display())),
        Err(problem) if matches!(seen, FileSeen::Good(_)) => note(&place.refused(&problem)),
        Err(problem) => bail!(place.refused(&problem)),
    }
    Ok(())
}

/// `used`: when each was used last, if that is known.
fn list_tokens(file: &TokensFile, used: Option<&[(store::TokenKey, u64)]>, now: u64) {
    let mut out = stdout();
    let row = |cells: [&str; 6]| {
        let [id, name, scope, created, expires, used] = cells;
        format!("{id:<16}  {name:<20}  {scope:<7}  {created:<29}  {expires:<29}  {used}")
    };
    let head = ["id", "name", "scope", "created", "expires", "last used"];
    say(&mut out, &row(head));
    for token in &file.tokens {
        let id = token.id.to_string();
        let (created, expires) = (date(token.created), expiry(token, now));
        let used = used.map_or("not known".to_owned(), |used| {
            let found = used.iter().find(|(id, _)| *id == token.id.0);
            found.map_or("never".to_owned(), |(_, at)| date(at / 1000))
        });
        let (name, scope) = (&token.name, token.scope.name());
        say(
            &mut out,
            &row([&id, name, scope, &created, &expires, &used]),
        );
    }
}

fn expiry(token: &Token, now: u64) -> String {
    match token.expires {
        None => "never".to_owned(),
        Some(_) if token.has_expired(now) => "has expired".to_owned(),
        Some(expires) => date(expires),
    }
}

fn revoke(place: &Place, wanted: &str) -> Result<()> {
    let is_last = place.change(|seen, remembered| {
        let mut file = place.there(seen, remembered.mark)?;
        if !file.remove(wanted) {
            return Err(format!(
                "there is no token {wanted}; satwatch token list shows those that there are"
            ));
        }
        let is_last = file.on && file.live(now_ms()).next().is_none();
        Ok((file, is_last))
    })?;
    let path = place.file.display();
    note(&format!("The token {wanted} is no longer in {path}."));
    if is_last {
        note(
            "No token is left, and with this file every request is refused. A new one: satwatch token new; or the way back: satwatch token off",
        );
    }
    tell_who_has_taken_it(place)
}

fn off(config: &Config, place: &Place) -> Result<()> {
    if config.reachable_by_others.is_some() {
        bail!(
            "others can reach server.listen = {}; write server.listen = \"127.0.0.1:{}\" first",
            config.server.listen,
            config.server.listen.port
        );
    }
    let kept = place.change(|seen, remembered| {
        let mut file = place.there(seen, remembered.mark)?;
        file.on = false;
        let kept = file.tokens.len();
        Ok((file, kept))
    })?;
    note(&format!(
        "{} says now that authentication is off: whoever reaches a daemon that takes it may do everything.",
        place.file.display()
    ));
    if kept > 0 {
        note(&format!(
            "Tokens that stay in the file ({kept}) are good again with the next satwatch token new."
        ));
    }
    tell_who_has_taken_it(place)
}

fn accept(place: &Place) -> Result<()> {
    let (on, tokens) = place.change(|seen, remembered| {
        // However old it is, and whose it was.
        let any = AuthMark {
            serial: 0,
            origin: None,
            ..remembered.mark
        };
        let file = place.there(seen, any)?;
        let said = (file.on, file.tokens.len());
        Ok((file, said))
    })?;
    let path = place.file.display();
    note(&match on {
        true => format!("{path} is accepted as it is, with its {tokens} tokens."),
        false => format!(
            "{path} is accepted as it is: it says that authentication is off, so whoever \
             reaches a daemon that takes it may do everything."
        ),
    });
    tell_who_has_taken_it(place)
}
