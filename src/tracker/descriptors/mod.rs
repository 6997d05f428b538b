//! Descriptors: wallets whose scripts are watched as one thing.
//!
//! What a descriptor is and which scripts follow from it, the tracker does not know: it is told
//! ([`Input::Derived`](super::Input::Derived)). It knows which watched script stands where in which
//! descriptor, and follows for each what it follows for a script: balance, history, events.
//!
//! # Laws
//!
//! 1. A script is watched for each descriptor that it is of, and by itself if it was added
//!    ([`WatchRow::listed`](super::WatchRow)). It goes when the last of these goes.
//! 2. What a transaction does to a descriptor ([`Net`](super::Net)) is the sum of what it does to
//!    its scripts, and is told once, however many of them it touches.
//! 3. The balance of a descriptor is the sum over its `owned_outputs`. While its first baseline is
//!    awaited it is not told ([`DescriptorRow::held`]); payments are. Nor is it while a script with
//!    a past joins, or the outputs of one come in portions: what that brings is told as a whole.
//! 4. A script is used when one of its outputs has a row. Its use moves the window in the same
//!    transition. What takes the use back, takes back `last_used`, in portions when the one before
//!    it is far below; the window never shrinks, what was reserved stays reserved, and what was
//!    used counts as reserved: it is given to nobody.
//! 5. A script that had a past when it came to a descriptor joins it in portions, in which nothing
//!    is announced but what is unconfirmed.
//! 6. A script whose outputs the node cannot tell is left out ([`DescriptorRow::left_out`]):
//!    nothing waits for its past, and coverage says so, until it is known after all.
//!
//! # Indexes of a keychain
//!
//! ```text
//! 0 ............ last_used ... watched_to ... window ............................ derived
//!                reserved      all below is   gap_limit beyond      lookahead:    all below is
//!                              known, as      last use and last     watched, not  watched
//!                              coverage says  reservation           spoken for
//! ```
//!
//! A use in the lookahead moves the window there. Then more is to be derived
//! ([`FollowUp::Derive`](super::FollowUp)); what was used beyond all that is derived is found by
//! the baseline of the new scripts.

mod deriving;
mod ids;
mod joining;
mod leaving;
mod rows;
mod sums;
mod windows;

pub use ids::{Derivation, DescriptorId, Keychain, LOOKAHEAD};
pub use rows::{DescriptorRow, KeychainRow, WalletRow};
