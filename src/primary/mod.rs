//! The primary of an edge (`satwatch edge`), as the edge talks to it: requests over kept
//! connections, who may ask, and what is news of both.
//!
//! # Laws
//!
//! 1. An edge has no rights of its own. What a client wants is asked with what the client showed
//!    (`crate::auth::KeptCredential`); `edge.token` reads the log and the state of the primary, and
//!    nothing else.
//! 2. An edge lets in whom its primary lets in. A token is asked about while it is not known; what
//!    was answered holds until the primary says that its tokens have changed
//!    ([`EdgeState::revision`]).
//! 3. While the primary is away nothing is learned: who was let in goes on, and everything that
//!    needs an answer is refused with `primary_unavailable`, soon. Where tokens are wanted that
//!    ends after ten minutes: what was revoked meanwhile would not be heard of.
//!
//! ```text
//! state      what an edge goes by: GET /edge
//! client     HTTP to the primary, what its refusals mean, whether it is away
//! following  GET /edge, a long poll: version, network, tokens in force, tip
//! admission  credential -> GET /token, once -> Guard, narrowed by what following hears
//! older      pages of the log that the stream has not: GET /events
//! ```

mod admission;
mod client;
mod following;
mod older;
mod state;

pub use admission::Admission;
pub use client::{PrimaryAnswer, PrimaryClient, Request, cookies};
pub use following::{Following, Unfit, ask_once, first};
pub use state::{EdgeState, EdgeToken, Heard};
