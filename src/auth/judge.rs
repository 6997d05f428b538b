//! What stands in the tokens file against what the store remembers of it, and what is put in force
//! of that. Pure, and the same for the daemon, `satwatch token`, `--check` and `doctor`.
//!
//! ```text
//! file                  store: never on         store: on
//! missing               open                    problem: it is lost
//! damaged, unreadable   problem                 problem
//! older serial          problem: put back       problem: put back
//! another's             problem                 problem
//! says off              open                    open
//! says on               its tokens              its tokens, none of them if there is none
//! ```
//! Open is a problem, too, where others reach the daemon. At a start a problem refuses it, and
//! `satwatch token` changes nothing of such a file; in a running daemon what was in force stays. So
//! nothing opens the daemon but a file of which the store has seen nothing newer and that says so
//! (`satwatch token off`). What only takes rights away is taken in any case ([`narrowed`]).

use super::tokens_file::{FileSeen, Token, TokensFile};
use crate::remedy::Remedy;
use crate::store::AuthMark;

/// What is put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InForce {
    /// Everybody may do everything.
    Open,
    /// Every request needs one of these.
    Tokens(Vec<Token>),
}

/// Why nothing is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error(
        "there is no such file, and this store has seen a tokens file; {}",
        Remedy::BeginTokensAnew
    )]
    Missing,
    #[error("it cannot be used ({0}); {remedy}", remedy = Remedy::BeginTokensAnew)]
    Damaged(String),
    #[error("it cannot be read ({why}){}", .remedy.as_ref().map_or(String::new(), |it| format!("; {it}")))]
    Unreadable { why: String, remedy: Option<Remedy> },
    #[error(
        "it has serial {found}, and the newest that this store has seen is {known}: a copy was put back; {}",
        Remedy::AcceptTokens
    )]
    Older { found: u64, known: u64 },
    #[error(
        "it is not the one that this store has seen, but one of another daemon; {}",
        Remedy::AcceptTokens
    )]
    Another,
    #[error("others can reach server.listen, and no token is asked for; {0}")]
    Exposed(Remedy),
}

/// The file, if it may be taken; `None`: there is none, and none is missed.
pub fn judge(seen: FileSeen, mark: AuthMark) -> Result<Option<TokensFile>, Problem> {
    let file = match seen {
        FileSeen::Missing if mark.on => return Err(Problem::Missing),
        FileSeen::Missing => return Ok(None),
        FileSeen::Damaged(why) => return Err(Problem::Damaged(why)),
        FileSeen::Unreadable { why, remedy } => return Err(Problem::Unreadable { why, remedy }),
        FileSeen::Good(file) => file,
    };
    let origins = file.origin.zip(mark.origin);
    if origins.is_some_and(|(found, known)| found.0 != known) {
        return Err(Problem::Another);
    }
    if file.serial < mark.serial {
        let (found, known) = (file.serial, mark.serial);
        return Err(Problem::Older { found, known });
    }
    Ok(Some(file))
}

/// What is in force with a file that may be taken, and what the store is to remember of it.
/// `exposed`: what to do where others reach the daemon.
pub fn in_force(
    file: Option<&TokensFile>,
    mark: AuthMark,
    exposed: Option<&Remedy>,
) -> Result<(InForce, AuthMark), Problem> {
    let mark = file.map_or(mark, |file| file.mark(mark));
    match (file, exposed) {
        (Some(file), _) if file.on => Ok((InForce::Tokens(file.tokens.clone()), mark)),
        (_, None) => Ok((InForce::Open, mark)),
        (_, Some(remedy)) => Err(Problem::Exposed(remedy.clone())),
    }
}

/// What is left of the tokens in force with a newer file that is not taken otherwise: those that it
/// has, too, with the rights that both give.
pub fn narrowed<'a>(in_force: impl Iterator<Item = &'a Token>, newer: &TokensFile) -> Vec<Token> {
    let both = in_force.filter_map(|token| {
        let same = |it: &&Token| it.id == token.id && it.hash == token.hash;
        let newer = newer.tokens.iter().find(same)?;
        let expires = [token.expires, newer.expires].into_iter().flatten().min();
        let scope = token.scope.min(newer.scope);
        Some(Token {
            scope,
            expires,
            ..token.clone()
        })
    });
    both.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Scope, TokenId, TokenText};

    const NEVER: AuthMark = AuthMark {
        on: false,
        serial: 0,
        first_taken: false,
        origin: None,
    };
    const ON: AuthMark = AuthMark {
        on: true,
        serial: 100,
        ..NEVER
    };
    const OFF: AuthMark = AuthMark { on: false, ..ON };

    fn of(names: &[&str]) -> TokensFile {
        let mut file = TokensFile::default();
        for name in names {
            file.add(name, Scope::Admin, &TokenText::random(), Some(5), 1000)
                .expect("a new name");
        }
        file
    }

    fn file(serial: u64, on: bool, names: &[&str]) -> FileSeen {
        let file = of(names);
        FileSeen::Good(TokensFile { serial, on, ..file })
    }

    fn judged(
        seen: FileSeen,
        mark: AuthMark,
        exposed: Option<&Remedy>,
    ) -> Result<(InForce, AuthMark), Problem> {
        let file = judge(seen, mark)?;
        in_force(file.as_ref(), mark, exposed)
    }

    fn names(judged: Result<(InForce, AuthMark), Problem>) -> (Vec<String>, AuthMark) {
        match judged {
            Ok((InForce::Tokens(tokens), mark)) => {
                (tokens.into_iter().map(|it| it.name).collect(), mark)
            }
            other => panic!("tokens are in force, not {other:?}"),
        }
    }

    #[test]
    fn without_a_file_everything_is_open_until_one_was_seen() {
        let open = |mark| Ok((InForce::Open, mark));
        assert_eq!(judged(FileSeen::Missing, NEVER, None), open(NEVER));
        assert_eq!(judge(FileSeen::Missing, ON), Err(Problem::Missing));
        assert_eq!(judged(FileSeen::Missing, OFF, None), open(OFF));
    }

    #[test]
    fn the_first_token_switches_authentication_on_and_the_store_remembers_it() {
        let (found, mark) = names(judged(file(100, true, &["a"]), NEVER, None));
        assert_eq!((found, mark), (vec!["a".to_owned()], ON));
        // A copy of the store from before is put back: the file alone is enough.
        let (_, mark) = names(judged(file(100, true, &["a"]), NEVER, None));
        assert_eq!(mark, ON);
    }

    #[test]
    fn the_last_token_that_is_revoked_or_expires_leaves_everything_closed() {
        let (found, mark) = names(judged(file(101, true, &[]), ON, None));
        assert_eq!((found.len(), mark.on, mark.serial), (0, true, 101));
        // Expired ones are in the set; what they may do is looked at with each request.
        let expired = file(102, true, &["old"]);
        assert_eq!(names(judged(expired, ON, None)).0, ["old"]);
    }

    #[test]
    fn what_cannot_be_read_or_was_cut_puts_nothing_in_force() {
        let FileSeen::Good(whole) = file(100, true, &["a", "b"]) else {
            unreachable!("it is good")
        };
        let text = whole.to_text();
        assert_eq!(TokensFile::parse(&text), Ok(whole));
        for cut in 0..text.len() {
            let why = TokensFile::parse(&text[..cut]).expect_err("it is half written");
            for mark in [NEVER, ON, OFF] {
                let seen = FileSeen::Damaged(why.clone());
                let problem = Problem::Damaged(why.clone());
                assert_eq!(judge(seen, mark), Err(problem), "{cut}");
            }
        }
        for wrong in ["", " \n", "\u{0}", "serial = 1", "[[token]]", "{}"] {
            assert!(TokensFile::parse(wrong).is_err(), "{wrong:?}");
        }
        let why = "it is not ours to read".to_owned();
        let (seen, problem) = (
            FileSeen::Unreadable {
                why: why.clone(),
                remedy: None,
            },
            Problem::Unreadable { why, remedy: None },
        );
        assert_eq!(judge(seen, NEVER), Err(problem));
    }

    #[test]
    fn an_older_file_that_is_put_back_opens_and_closes_nothing() {
        for on in [true, false] {
            for mark in [ON, OFF] {
                let (found, known) = (99, 100);
                let judged = judge(file(99, on, &["revoked"]), mark);
                let older = Err(Problem::Older { found, known });
                assert_eq!(judged, older, "{on} {mark:?}");
            }
        }
    }

    #[test]
    fn the_file_of_another_daemon_is_not_taken_however_new_it_is() {
        let of_origin = |origin| {
            let file = of(&["theirs"]);
            FileSeen::Good(TokensFile {
                serial: 101,
                origin,
                ..file
            })
        };
        let origin = TokenId([1; 8]);
        let mark = AuthMark {
            origin: Some(origin.0),
            ..ON
        };
        for on_or_off in [mark, AuthMark { on: false, ..mark }] {
            let theirs = judge(of_origin(Some(TokenId([2; 8]))), on_or_off);
            assert_eq!(theirs, Err(Problem::Another));
        }
        let (_, told) = names(judged(of_origin(Some(origin)), ON, None));
        assert_eq!(
            told.origin,
            Some(origin.0),
            "remembered with the first look"
        );
        // One that was written before files had an origin.
        let (_, told) = names(judged(of_origin(None), mark, None));
        assert_eq!(told.origin, Some(origin.0));
    }

    #[test]
    fn off_is_taken_when_nothing_newer_was_seen_and_nobody_else_reaches_the_daemon() {
        let (in_force, mark) = judged(file(101, false, &["a"]), ON, None).expect("it is newer");
        assert_eq!(
            (in_force, mark.on, mark.serial),
            (InForce::Open, false, 101)
        );
        let remedy = Remedy::TokenOrLoopback { port: 1 };
        let exposed = Err(Problem::Exposed(remedy.clone()));
        for (seen, mark) in [
            (file(101, false, &["a"]), ON),
            (FileSeen::Missing, NEVER),
            (file(100, false, &[]), OFF),
        ] {
            assert_eq!(judged(seen, mark, Some(&remedy)), exposed);
        }
        names(judged(file(102, true, &["a"]), mark, Some(&remedy)));
    }

    #[test]
    fn a_newer_file_that_is_not_taken_takes_rights_away_and_gives_none() {
        let before = of(&["lost", "less", "shorter", "more", "same", "another"]).tokens;
        let mut newer = of(&["made"]);
        newer.tokens.extend(before[1..].iter().cloned());
        let [_, less, shorter, more, _, another] = &mut newer.tokens[..] else {
            unreachable!("as it was made")
        };
        less.scope = Scope::Read;
        shorter.expires = Some(4);
        (more.scope, more.expires) = (Scope::Admin, None);
        another.hash = crate::auth::TokenHash::of(&TokenText::random());
        let mut expected = before[1..5].to_vec();
        (expected[0].scope, expected[1].expires) = (Scope::Read, Some(4));
        assert_eq!(narrowed(before.iter(), &newer), expected);
        assert_eq!(narrowed(before.iter(), &TokensFile::default()), []);
    }

    #[test]
    fn what_the_store_remembers_of_the_first_token_stays() {
        let taken = AuthMark {
            first_taken: true,
            ..NEVER
        };
        let (_, mark) = judged(file(7, true, &[]), taken, None).expect("it is good");
        assert!(mark.first_taken && mark.on && mark.serial == 7);
    }
}
