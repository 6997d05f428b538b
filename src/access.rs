//! The access log: one line for each change and each refusal. Nothing else writes one.
//!
//! A line says who (the name of a token, or [`ANYBODY`]), from which address, what (a method and
//! the pattern of its route, or an event), whom or what that concerns, and how it ended. Never a
//! token, the URL of a webhook, or what a body says besides addresses and names.

use std::net::IpAddr;

/// Where the lines are found in the log (`log.level`).
const TARGET: &str = "satwatch::access";

/// Who has no token, or none that is known.
pub const ANYBODY: &str = "anybody";

#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    pub who: &'a str,
    /// `None`: it was no request.
    pub address: Option<IpAddr>,
    pub what: &'a str,
    /// Fit to be shown: shortened, and no secret.
    pub concerns: Option<&'a str>,
    pub outcome: &'a str,
}

impl Line<'_> {
    /// A change that was made.
    pub fn write_change(&self) {
        self.write("changed");
    }

    pub fn write_refusal(&self) {
        self.write("refused");
    }

    fn write(&self, happened: &str) {
        let Self {
            who,
            what,
            concerns,
            outcome,
            ..
        } = *self;
        let address = self.address.map(tracing::field::display);
        tracing::info!(target: TARGET, who, address, what, concerns, outcome, "{happened}");
    }
}

/// Lines of one client, or of all together, that there was no room for.
pub fn write_left_out(whose: &str, lines: u64) {
    tracing::info!(target: TARGET, whose, lines, "left out, because there were too many");
}
