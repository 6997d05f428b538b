//! Wallets: who derives their scripts, and what a person knows of them.

use std::collections::BTreeSet;
use std::time::Instant;

use satwatch::tracker::{Derivation, Input, MemoryView};

use crate::clock::millis;
use crate::pretended::descriptors::{KEYCHAINS, LOOKAHEAD, Wallet, next_derived};
use crate::process::LOOK;

/// Scripts of one portion.
const PORTION: u32 = 3;

/// Derives what is wanted, as the rows say.
pub enum Deriving {
    Wanted(Instant),
    /// A portion is with the tracker.
    Sent,
}

impl Deriving {
    pub fn wake(&mut self, now: Instant) {
        if let Self::Wanted(at) = self {
            *at = now;
        }
    }

    pub fn next(&self) -> Option<Instant> {
        match self {
            Self::Wanted(at) => Some(*at),
            Self::Sent => None,
        }
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.next().is_some_and(|at| at <= now)
    }

    /// The next portion that is wanted; without any, there is a look again later.
    pub fn take(&mut self, view: &MemoryView, now: (Instant, u64)) -> Option<Input> {
        *self = Self::Wanted(now.0 + LOOK);
        let mut wallets: Vec<Wallet> = view.descriptors.keys().map(Wallet::of).collect();
        wallets.sort_unstable();
        let mut places = wallets
            .iter()
            .flat_map(|it| KEYCHAINS.map(|keychain| (*it, keychain)));
        let (wallet, keychain, (first, spks)) = places.find_map(|(wallet, keychain)| {
            let next = next_derived(view, wallet, keychain, LOOKAHEAD, PORTION)?;
            Some((wallet, keychain, next))
        })?;
        *self = Self::Sent;
        Some(Input::Derived {
            descriptor: wallet.id(),
            keychain,
            first,
            spks,
            now: now.1,
        })
    }

    /// The tracker has taken a portion, or could not do so yet.
    pub fn answered(&mut self, is_taken: bool, now: Instant) {
        let pause = if is_taken { 0 } else { 200 };
        *self = Self::Wanted(now + millis(pause));
    }
}

/// What a person knows of wallets.
#[derive(Default)]
pub struct Wallets {
    pub known: BTreeSet<Wallet>,
    /// What was asked for and not answered yet.
    asked: Vec<Wallet>,
    reserved: BTreeSet<Derivation>,
}

impl Wallets {
    pub fn asked(&mut self, input: &Input) {
        self.asked.extend(of(input));
    }

    /// `is_done`: it was not refused.
    pub fn answered(&mut self, input: &Input, is_done: bool) {
        if let Input::Reserve { place, .. } = input {
            let is_new = !is_done || self.reserved.insert(*place);
            assert!(is_new, "{place:?} is given away a second time");
        }
        let Some(wallet) = of(input) else { return };
        let place = self.asked.iter().position(|asked| *asked == wallet);
        self.asked.remove(place.expect("it was asked for"));
        match input {
            Input::AddDescriptor { .. } => _ = self.known.insert(wallet),
            _ => self.is_gone(wallet),
        }
    }

    fn is_gone(&mut self, wallet: Wallet) {
        self.known.remove(&wallet);
        self.reserved
            .retain(|place| place.descriptor != wallet.id());
    }

    /// The process is dead. What was asked for may have been done or not.
    pub fn died(&mut self, rows: &MemoryView) {
        for wallet in std::mem::take(&mut self.asked) {
            // It may be another one with the same scripts.
            self.is_gone(wallet);
            if rows.descriptors.contains_key(&wallet.id()) {
                self.known.insert(wallet);
            }
        }
    }

    /// In the end nothing is awaited, and what was given away is known to be.
    pub fn check(&self, rows: &MemoryView) {
        for wallet in &self.known {
            let row = &rows.descriptors[&wallet.id()];
            assert!(
                !row.is_pending() && row.awaited == 0,
                "nothing of {wallet:?} is awaited: {row:?}"
            );
            for keychain in KEYCHAINS {
                assert_eq!(
                    row.wants_beyond(keychain, LOOKAHEAD),
                    None,
                    "all is derived"
                );
            }
        }
        for place in &self.reserved {
            let row = &rows.descriptors[&place.descriptor];
            let row = row.keychain(place.keychain).expect("it is there");
            assert!(row.reserved > place.index, "{place:?} stays reserved");
        }
    }
}

/// The wallet that a person adds or removes.
fn of(input: &Input) -> Option<Wallet> {
    match input {
        Input::AddDescriptor { descriptor, .. } | Input::RemoveDescriptor { descriptor, .. } => {
            Some(Wallet::of(descriptor))
        }
        _ => None,
    }
}
