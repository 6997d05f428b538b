//! Which tokens are in force, from what the file says and what the store remembers of it. Pure.
//!
//! ```text
//! file            store: never on         store: on
//! missing         open                    problem: it is lost
//! unreadable      problem                 problem
//! older serial    problem: put back       problem: put back
//! says off        open                    open; a problem unless its serial is newer
//! says on         its tokens              its tokens, none of them if there is none
//! ```
//! Open is a problem, too, where others reach the daemon. At a start a problem refuses it; later
//! what was in force stays. So nothing opens the daemon but a file of which the store has seen
//! nothing newer and that says so (`satwatch token off`).

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
    #[error("it is missing, and this store has seen it; {}", Remedy::RestoreTokens)]
    Missing,
    #[error("it cannot be used ({0}); {remedy}", remedy = Remedy::RestoreTokens)]
    Unreadable(String),
    #[error(
        "it has serial {found}, and the newest that this store has seen is {known}: a copy was put back; {}",
        Remedy::AcceptTokens
    )]
    Older { found: u64, known: u64 },
    #[error(
        "it says that authentication is off, under the serial ({0}) with which it was on; {remedy}",
        remedy = Remedy::AcceptTokens
    )]
    SwitchedOff(u64),
    #[error("others can reach server.listen, and there are no tokens to keep them out; {0}")]
    Exposed(Remedy),
}

/// What is in force, and what the store is to remember of it. `exposed`: what to do where others
/// reach the daemon.
pub fn judge(
    seen: FileSeen,
    mark: AuthMark,
    exposed: Option<&Remedy>,
) -> Result<(InForce, AuthMark), Problem> {
    let open = |mark| match exposed {
        Some(remedy) => Err(Problem::Exposed(remedy.clone())),
        None => Ok((InForce::Open, mark)),
    };
    let TokensFile { serial, on, tokens } = match seen {
        FileSeen::Missing if mark.on => return Err(Problem::Missing),
        FileSeen::Missing => return open(mark),
        FileSeen::Unreadable(why) => return Err(Problem::Unreadable(why)),
        FileSeen::Good(file) => file,
    };
    if serial < mark.serial {
        let (found, known) = (serial, mark.serial);
        return Err(Problem::Older { found, known });
    }
    let seen = AuthMark { on, serial, ..mark };
    match on {
        true => Ok((InForce::Tokens(tokens), seen)),
        false if mark.on && serial == mark.serial => Err(Problem::SwitchedOff(serial)),
        false => open(seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Scope, TokenText};

    const NEVER: AuthMark = AuthMark {
        on: false,
        serial: 0,
        first_taken: false,
    };
    const ON: AuthMark = AuthMark {
        on: true,
        serial: 100,
        first_taken: false,
    };
    const OFF: AuthMark = AuthMark { on: false, ..ON };

    fn file(serial: u64, on: bool, names: &[&str]) -> FileSeen {
        let mut file = TokensFile::default();
        for name in names {
            file.add(name, Scope::Admin, &TokenText::random(), Some(5), 1000)
                .expect("a new name");
        }
        FileSeen::Good(TokensFile { serial, on, ..file })
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
        assert_eq!(
            judge(FileSeen::Missing, NEVER, None),
            Ok((InForce::Open, NEVER))
        );
        assert_eq!(judge(FileSeen::Missing, ON, None), Err(Problem::Missing));
        assert_eq!(
            judge(FileSeen::Missing, OFF, None),
            Ok((InForce::Open, OFF))
        );
    }

    #[test]
    fn the_first_token_switches_authentication_on_and_the_store_remembers_it() {
        let (found, mark) = names(judge(file(100, true, &["a"]), NEVER, None));
        assert_eq!((found, mark), (vec!["a".to_owned()], ON));
        // A copy of the store from before is put back: the file alone is enough.
        let (_, mark) = names(judge(file(100, true, &["a"]), NEVER, None));
        assert_eq!(mark, ON);
    }

    #[test]
    fn the_last_token_that_is_revoked_or_expires_leaves_everything_closed() {
        let (found, mark) = names(judge(file(101, true, &[]), ON, None));
        assert_eq!((found.len(), mark.on, mark.serial), (0, true, 101));
        // Expired ones are in the set; what they may do is looked at with each request.
        let expired = file(102, true, &["old"]);
        assert_eq!(names(judge(expired, ON, None)).0, ["old"]);
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
                let seen = FileSeen::Unreadable(why.clone());
                let problem = Problem::Unreadable(why.clone());
                assert_eq!(judge(seen, mark, None), Err(problem), "{cut}");
            }
        }
        for wrong in ["", " \n", "\u{0}", "serial = 1", "[[token]]", "{}"] {
            assert!(TokensFile::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_older_file_that_is_put_back_opens_and_closes_nothing() {
        for on in [true, false] {
            for mark in [ON, OFF] {
                let (found, known) = (99, 100);
                let judged = judge(file(99, on, &["revoked"]), mark, None);
                assert_eq!(
                    judged,
                    Err(Problem::Older { found, known }),
                    "{on} {mark:?}"
                );
            }
        }
    }

    #[test]
    fn off_is_taken_when_it_is_newer_and_nobody_else_reaches_the_daemon() {
        assert_eq!(
            judge(file(100, false, &[]), ON, None),
            Err(Problem::SwitchedOff(100))
        );
        let (in_force, mark) = judge(file(101, false, &["a"]), ON, None).expect("it is newer");
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
            assert_eq!(judge(seen, mark, Some(&remedy)), exposed);
        }
        names(judge(file(102, true, &["a"]), mark, Some(&remedy)));
    }

    #[test]
    fn what_the_store_remembers_of_the_first_token_stays() {
        let taken = AuthMark {
            first_taken: true,
            ..NEVER
        };
        let (_, mark) = judge(file(7, true, &[]), taken, None).expect("it is good");
        assert!(mark.first_taken && mark.on && mark.serial == 7);
    }
}
