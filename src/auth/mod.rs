//! Who asks, and what they may do.
//!
//! # Laws
//!
//! 1. One function makes a [`Principal`] from what a request carries ([`Guard::admit`]), and one
//!    checks it ([`Principal::require`]): REST, Socket.IO and the page go through both.
//! 2. What a route or an event needs stands in its row of the table (`crate::api`), which does not
//!    compile without. What depends on the content of a request is required where that is known.
//! 3. A principal ends with its token. Every check looks whether it has.
//!
//! ```text
//! Authorization header, CONNECT payload ──► Credential ──► Guard::admit ──► Principal ──► require(scope)
//! ```

mod credential;
mod guard;
mod principal;
mod scope;

pub use credential::Credential;
pub use guard::Guard;
pub use principal::{Principal, Refusal};
pub use scope::Scope;
pub(crate) use scope::needed;
