//! What a change of what is in force did, for its line in the access log.

use std::collections::HashMap;
use std::fmt;
use std::ops::AddAssign;

use super::tokens_file::Token;

/// Names in a line; of more it is said how many.
const NAMED: usize = 20;

/// Who was let in by something that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// Of Socket.IO.
    pub sessions: usize,
    /// Under way: mostly those that wait for events.
    pub requests: usize,
}

impl AddAssign for Ended {
    fn add_assign(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.requests += other.requests;
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, requests } = self;
        write!(f, "sessions ended: {sessions}, requests ended: {requests}")
    }
}

/// Names of tokens, and who has ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changed {
    pub made: Vec<String>,
    pub revoked: Vec<String>,
    /// Those that have other rights now, or another end.
    pub changed: Vec<String>,
    pub ended: Ended,
}

impl Changed {
    /// Between two sets of tokens. Nobody has ended yet.
    pub fn between<'a>(
        before: impl Iterator<Item = &'a Token>,
        now: impl Iterator<Item = &'a Token>,
    ) -> Self {
        let mut gone: HashMap<_, _> = before.map(|token| (token.id, token)).collect();
        let mut changed = Self::default();
        for token in now {
            match gone.remove(&token.id) {
                None => changed.made.push(token.name.clone()),
                Some(before) if before != token => changed.changed.push(token.name.clone()),
                Some(_) => {}
            }
        }
        changed.revoked = gone.into_values().map(|token| token.name.clone()).collect();
        changed.revoked.sort();
        changed
    }

    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, names) in [
            ("made", &self.made),
            ("revoked", &self.revoked),
            ("changed", &self.changed),
        ] {
            if names.is_empty() {
                continue;
            }
            write!(f, "{what} {}", names[..names.len().min(NAMED)].join(", "))?;
            match names.len().saturating_sub(NAMED) {
                0 => f.write_str("; ")?,
                more => write!(f, " and {more} more; ")?,
            }
        }
        self.ended.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Scope, TokenText, TokensFile};

    #[test]
    fn a_line_names_what_was_made_revoked_and_changed_and_who_has_ended() {
        let mut file = TokensFile::default();
        let mut add = |name: &str| {
            let text = TokenText::random();
            file.add(name, Scope::Read, &text, None, 0).expect("new");
            file.tokens.pop().expect("it was made")
        };
        let [same, gone, other] = ["same", "gone", "other"].map(&mut add);
        let before = [same.clone(), gone, other.clone()];
        let less = Token {
            scope: Scope::Metrics,
            ..other
        };
        let now = [same, less, add("made")];
        let mut changed = Changed::between(before.iter(), now.iter());
        changed.ended += Ended {
            sessions: 2,
            requests: 1,
        };
        assert_eq!(
            changed.to_string(),
            "made made; revoked gone; changed other; sessions ended: 2, requests ended: 1"
        );
        assert!(Changed::between(before.iter(), before.iter()).is_none());
        let many: Vec<_> = (0..25).map(|n| add(&format!("n{n}"))).collect();
        let line = Changed::between([].iter(), many.iter()).to_string();
        assert!(
            line.contains("n19 and 5 more") && !line.contains("n20"),
            "{line}"
        );
    }
}
