//! What is in force follows the tokens file, and the store what was seen of it and used.
//!
//! At a start [`begin`] looks at the file, and a [`Problem`] refuses it. Later the task looks twice
//! a second, and at once when it is told to (`SIGHUP`); then a problem is said and what was in
//! force stays. What closes is put in force before the store remembers it, what opens after that.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Scope;
use super::guard::Guard;
use super::judge::{InForce, Problem, judge};
use super::secret::TokenText;
use super::tokens_file::{ChangeError, FileSeen, TokensFile, change};
use crate::access::Line;
use crate::clock::now_ms;
use crate::indexer::{self, IndexerStopped};
use crate::remedy::Remedy;
use crate::store::{AuthEdit, AuthMark, RememberedAuth, TokenKey};

/// Between two looks at the file.
const LOOK: Duration = Duration::from_millis(500);
/// Milliseconds between two writes of when a token was used last.
const USES: u64 = 60_000;
/// Of the token that a file, or the service manager, gives.
const FIRST: &str = "first";

/// Where credentials are, and who reaches the daemon.
#[derive(Debug, Clone)]
pub struct Place {
    pub tokens_file: PathBuf,
    pub first_token_file: Option<PathBuf>,
    /// Where others reach the daemon: what to do about that without tokens.
    pub exposed: Option<Remedy>,
}

/// Why a start is refused.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    #[error("tokens file {path}: {problem}")]
    Problem { path: PathBuf, problem: Problem },
    #[error("auth.first_token_file {path}: {why}; {}", Remedy::GenerateFirstToken)]
    FirstToken { path: PathBuf, why: String },
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// What is in force from the start on.
#[derive(Debug)]
pub struct Begun {
    pub in_force: InForce,
    remembered: RememberedAuth,
    /// As the store is to remember it.
    mark: AuthMark,
}

/// Looks at the file, makes it if the first token is to be taken, and judges it. `now`:
/// milliseconds since the Unix epoch.
pub fn begin(place: &Place, remembered: RememberedAuth, now: u64) -> Result<Begun, BeginError> {
    let (path, mut mark) = (&place.tokens_file, remembered.mark);
    let mut seen = TokensFile::look(path);
    if let Some(first) = &place.first_token_file
        && takes_first(&seen, mark)
    {
        take_first(path, first, mark.serial, now)?;
        mark.first_taken = true;
        seen = TokensFile::look(path);
    }
    let judged = judge(seen, mark, place.exposed.as_ref());
    let (in_force, mark) = judged.map_err(|problem| BeginError::Problem {
        path: path.clone(),
        problem,
    })?;
    Ok(Begun {
        in_force,
        remembered,
        mark,
    })
}

/// What the settings and the file alone say of the next start, for who looks from outside: whether
/// authentication will be on.
pub fn outlook(place: &Place, remembered: &RememberedAuth) -> Result<bool, BeginError> {
    let seen = TokensFile::look(&place.tokens_file);
    if let Some(first) = &place.first_token_file
        && takes_first(&seen, remembered.mark)
    {
        return first_token(first).map(|_| true);
    }
    match judge(seen, remembered.mark, place.exposed.as_ref()) {
        Ok((in_force, _)) => Ok(in_force != InForce::Open),
        Err(problem) => Err(BeginError::Problem {
            path: place.tokens_file.clone(),
            problem,
        }),
    }
}

/// Once a store, and only where there never was a token.
fn takes_first(seen: &FileSeen, mark: AuthMark) -> bool {
    *seen == FileSeen::Missing && !mark.on && !mark.first_taken
}

fn first_token(first: &Path) -> Result<TokenText, BeginError> {
    let refused = |why: String| BeginError::FirstToken {
        path: first.to_owned(),
        why,
    };
    let text = fs::read_to_string(first).map_err(|error| refused(error.to_string()))?;
    let token = TokenText::parse(text.trim());
    token.ok_or_else(|| refused("there is no token in it".to_owned()))
}

fn take_first(path: &Path, first: &Path, known: u64, now: u64) -> Result<(), BeginError> {
    let token = first_token(first)?;
    change(path, known, now, |seen| match seen {
        FileSeen::Missing => {
            let mut file = TokensFile::default();
            file.add(FIRST, Scope::Admin, &token, None, now)?;
            Ok((file, ()))
        }
        // Somebody made one this moment.
        FileSeen::Good(file) => Ok((file, ())),
        FileSeen::Unreadable(why) => Err(why),
    })?;
    tracing::info!(
        "the first token, of scope admin, is the one in {}; it can be revoked: satwatch token revoke {FIRST}",
        first.display()
    );
    Ok(())
}

/// By what a change of the file shows; what kind of error, if it cannot be looked at.
type Appearance = Result<[i64; 6], ErrorKind>;

fn appearance(path: &Path) -> Appearance {
    let found = fs::metadata(path).map_err(|error| error.kind())?;
    Ok([
        found.ino().cast_signed(),
        found.size().cast_signed(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ])
}

/// Keeps what is in force up to date.
pub struct TokensTask {
    place: Place,
    guard: Guard,
    indexer: indexer::Handle,
    mark: AuthMark,
    /// As the store has it.
    used: HashMap<TokenKey, u64>,
    appearance: Option<Appearance>,
    problem: Option<Problem>,
}

impl TokensTask {
    /// Puts in force what was begun with, once the store remembers it.
    pub async fn new(
        place: Place,
        begun: Begun,
        guard: Guard,
        indexer: indexer::Handle,
    ) -> Result<Self, IndexerStopped> {
        let before = begun.remembered.mark;
        let mut task = Self {
            place,
            guard,
            indexer,
            mark: before,
            used: begun.remembered.used.into_iter().collect(),
            appearance: None,
            problem: None,
        };
        task.remember(begun.mark).await?;
        task.guard.load_sessions(begun.remembered.sessions);
        task.guard.put_in_force(begun.in_force);
        Ok(task)
    }

    /// Until it is told to stop; then it writes what is not written. An error: the indexer has
    /// stopped.
    pub async fn run(
        mut self,
        mut reloads: watch::Receiver<u64>,
        stop: CancellationToken,
    ) -> Result<(), IndexerStopped> {
        loop {
            let anew = tokio::select! {
                () = stop.cancelled() => break,
                // Whoever sends has ended: then nobody asks any more.
                Ok(()) = reloads.changed() => true,
                () = sleep(LOOK) => false,
            };
            self.guard.end_expired(now_ms());
            self.look(anew).await?;
            self.write_uses(USES).await?;
            self.write_sessions().await?;
        }
        self.write_uses(0).await
    }

    /// At the file, if it has changed or is to be read anew.
    async fn look(&mut self, anew: bool) -> Result<(), IndexerStopped> {
        let (path, before) = (self.place.tokens_file.clone(), self.appearance);
        let looked = spawn_blocking(move || {
            let now = appearance(&path);
            let changed = anew || before != Some(now);
            changed.then(|| (now, TokensFile::look(&path)))
        });
        let Ok(Some((appearance, seen))) = looked.await else {
            return Ok(());
        };
        let is_first = self.appearance.replace(appearance).is_none();
        match judge(seen, self.mark, self.place.exposed.as_ref()) {
            Ok((in_force, mark)) => {
                if !is_first || mark != self.mark {
                    say(&in_force, mark);
                }
                self.problem = None;
                self.guard.set_problem(None);
                self.take(in_force, mark).await
            }
            Err(problem) => {
                let path = self.place.tokens_file.display();
                if self.problem.as_ref() != Some(&problem) {
                    tracing::warn!("tokens file {path}: {problem}. What was in force stays");
                }
                self.guard.set_problem(Some(problem.to_string()));
                self.problem = Some(problem);
                Ok(())
            }
        }
    }

    async fn take(&mut self, in_force: InForce, mark: AuthMark) -> Result<(), IndexerStopped> {
        if in_force == InForce::Open {
            self.remember(mark).await?;
            self.guard.put_in_force(in_force);
            return Ok(());
        }
        self.guard.put_in_force(in_force);
        self.remember(mark).await?;
        let live: Vec<_> = self.guard.tokens();
        let is_gone = |id: &TokenKey| !live.iter().any(|live| live.token.id.0 == *id);
        let gone: Vec<_> = self.used.keys().copied().filter(is_gone).collect();
        if !gone.is_empty() {
            gone.iter().for_each(|id| _ = self.used.remove(id));
            let edits = gone.into_iter().map(AuthEdit::Gone).collect();
            self.indexer.edit_auth(edits, false).await?;
        }
        Ok(())
    }

    async fn remember(&mut self, mark: AuthMark) -> Result<(), IndexerStopped> {
        if mark != self.mark {
            self.indexer
                .edit_auth(vec![AuthEdit::Mark(mark)], true)
                .await?;
            self.mark = mark;
        }
        Ok(())
    }

    async fn write_sessions(&mut self) -> Result<(), IndexerStopped> {
        let edits = self.guard.sweep_sessions(now_ms());
        match edits.is_empty() {
            true => Ok(()),
            false => self.indexer.edit_auth(edits, false).await,
        }
    }

    /// Those whose last one is so many milliseconds younger than what the store has.
    async fn write_uses(&mut self, younger: u64) -> Result<(), IndexerStopped> {
        let mut edits = Vec::new();
        for live in self.guard.tokens() {
            let (id, Some(used)) = (live.token.id.0, live.last_used()) else {
                continue;
            };
            let known = self.used.get(&id).copied().unwrap_or_default();
            if used > known && used - known >= younger {
                self.used.insert(id, used);
                edits.push(AuthEdit::Used(id, used));
            }
        }
        match edits.is_empty() {
            true => Ok(()),
            false => self.indexer.edit_auth(edits, false).await,
        }
    }
}

fn say(in_force: &InForce, mark: AuthMark) {
    let line = Line {
        who: "satwatch token",
        address: None,
        what: "tokens file",
        concerns: None,
        outcome: match in_force {
            InForce::Open => "off",
            InForce::Tokens(_) => "on",
        },
    };
    line.write_change();
    match in_force {
        InForce::Open => tracing::warn!(
            serial = mark.serial,
            "authentication is off: whoever reaches the daemon may do everything"
        ),
        InForce::Tokens(tokens) => tracing::info!(
            serial = mark.serial,
            tokens = tokens.len(),
            "authentication is on: every request needs a token"
        ),
    }
}
