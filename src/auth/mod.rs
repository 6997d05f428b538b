//! Who asks, and what they may do.
//!
//! # Laws
//!
//! 1. One function makes a [`Principal`] from what a request carries ([`Guard::admit`]), and one
//!    checks it ([`Principal::require`]): REST, Socket.IO and the page go through both.
//! 2. What a route or an event needs stands in its row of the table (`crate::api`), which does not
//!    compile without. What depends on the content of a request is required where that is known.
//! 3. A principal ends with its token, at once; every check looks whether it has. Those of the time
//!    without tokens end with the first one.
//! 4. Nothing opens a daemon that had a token once, but a file that says so and is the newest that
//!    was seen ([`judge`] has all cases, and is pure: the daemon, `satwatch token`, `--check` and
//!    `doctor` go by it). What takes rights away is taken in any case.
//! 5. Of a token its hash is kept and nothing else. All hashes are compared, each in constant time.
//! 6. A session of the page ends with its token, too, and may what that may ([`sessions`]). A
//!    cookie alone speaks for nothing.
//!
//! ```text
//! Authorization header, CONNECT payload,
//! cookie and key of the page ─────────────► Credential ──► Guard::admit ──► Principal ──► require(scope)
//!                                                              ▲ in force
//! tokens file, what the store remembers ──► judge ──► TokensTask ──► indexer: what was seen and used
//!      ▲ one function, under a lock          │
//! satwatch token (`crate::token`) ◄──────────┘, the first token
//! ```

mod begin;
mod changed;
mod credential;
mod guard;
mod judge;
mod principal;
mod scope;
mod secret;
mod sessions;
mod tokens_file;
mod tokens_task;

pub use begin::{AuthStart, BeginError, Outlook, Place, begin, outlook};
pub use changed::{Changed, Ended};
pub use credential::{Credential, KeptCredential};
pub use guard::{Guard, LoggedIn};
pub use judge::{InForce, Problem, judge};
pub use principal::{Principal, Refusal, Unknown, Waits};
pub use scope::Scope;
pub(crate) use scope::needed;
pub use secret::{TokenHash, TokenId, TokenText};
pub use sessions::{SESSION_LIFE, SessionSecrets};
pub use tokens_file::{ChangeError, FileSeen, Token, TokensFile, change, date, keep_aside};
pub use tokens_task::TokensTask;
