//! What is in force from a start on: the tokens file as it is found, or the first token, from a
//! file or the service manager.

use std::fs;
use std::path::{Path, PathBuf};

use super::Scope;
use super::judge::{InForce, Problem, in_force, judge};
use super::secret::TokenText;
use super::tokens_file::{ChangeError, FileSeen, Token, TokensFile, change};
use crate::remedy::Remedy;
use crate::store::{AuthMark, RememberedAuth};

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
pub struct AuthStart {
    pub in_force: InForce,
    pub(super) remembered: RememberedAuth,
    /// As the store is to remember it.
    pub(super) mark: AuthMark,
}

/// Looks at the file, makes it if the first token is to be taken, and judges it. `now`:
/// milliseconds since the Unix epoch.
pub fn begin(place: &Place, remembered: RememberedAuth, now: u64) -> Result<AuthStart, BeginError> {
    let (path, mut mark) = (&place.tokens_file, remembered.mark);
    let mut seen = TokensFile::look(path);
    if let Some(first) = &place.first_token_file
        && takes_first(&seen, mark)
    {
        take_first(path, first, mark, now)?;
        // A file that is gone by now is a lost one.
        (mark.on, mark.first_taken) = (true, true);
        seen = TokensFile::look(path);
    }
    let (in_force, mark) = judged(place, seen, mark)?;
    Ok(AuthStart {
        in_force,
        remembered,
        mark,
    })
}

fn judged(
    place: &Place,
    seen: FileSeen,
    mark: AuthMark,
) -> Result<(InForce, AuthMark), BeginError> {
    let file = judge(seen, mark);
    let judged = file.and_then(|file| in_force(file.as_ref(), mark, place.exposed.as_ref()));
    judged.map_err(|problem| BeginError::Problem {
        path: place.tokens_file.clone(),
        problem,
    })
}

/// How the next start begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// There never was a token.
    Never,
    /// The tokens file says so.
    Off,
    /// With the token of `first_token_file`.
    First,
    On(Vec<Token>),
}

impl Outlook {
    fn of(in_force: InForce, mark: AuthMark) -> Self {
        match in_force {
            InForce::Tokens(tokens) => Self::On(tokens),
            InForce::Open if mark.serial == 0 => Self::Never,
            InForce::Open => Self::Off,
        }
    }
}

/// As a start would begin, for who looks from outside.
pub fn outlook(place: &Place, mark: AuthMark) -> Result<Outlook, BeginError> {
    let seen = TokensFile::look(&place.tokens_file);
    if let Some(first) = &place.first_token_file
        && takes_first(&seen, mark)
    {
        return first_token(first).map(|_| Outlook::First);
    }
    let (in_force, mark) = judged(place, seen, mark)?;
    Ok(Outlook::of(in_force, mark))
}

impl AuthStart {
    /// One line of the log.
    pub(super) fn say(&self, path: &Path, now: u64) {
        let path = path.display();
        match Outlook::of(self.in_force.clone(), self.mark) {
            Outlook::Never | Outlook::First => tracing::info!(
                "authentication: there never was a token; whoever reaches the daemon may do everything"
            ),
            Outlook::Off => tracing::warn!(
                "authentication is off, as the tokens file {path} says: whoever reaches the daemon may do everything"
            ),
            Outlook::On(tokens) => {
                let expired = tokens.iter().filter(|it| it.has_expired(now)).count();
                let live = tokens.len() - expired;
                tracing::info!(
                    live,
                    expired,
                    "authentication is on: every request needs a token of {path}"
                );
            }
        }
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

fn take_first(path: &Path, first: &Path, known: AuthMark, now: u64) -> Result<(), BeginError> {
    let token = first_token(first)?;
    let is_taken = change(path, known, now, |seen| match seen {
        FileSeen::Missing => {
            let mut file = TokensFile::default();
            file.add(FIRST, Scope::Admin, &token, None, now)?;
            Ok((file, true))
        }
        // Somebody made one this moment.
        FileSeen::Good(file) => Ok((file, false)),
        FileSeen::Damaged(why) | FileSeen::Unreadable { why, .. } => Err(why),
    })?;
    if is_taken {
        tracing::info!(
            "the first token, of scope admin, is the one in {}; it can be revoked: satwatch token revoke {FIRST}",
            first.display()
        );
    }
    Ok(())
}
