//! Lives many lives, and makes the script of one that fails as small as it gets.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::Instant;

use crate::life::Life;
use crate::scan_laws::Tally;
use crate::script::{Script, Store, Weather, Wiring};

/// So many lives hold everything that is counted.
const ENOUGH: u64 = 200;

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    static FAILURE: RefCell<String> = const { RefCell::new(String::new()) };
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("it is a number"))
}

/// Lives `count` lives, the same ones each time; or as many others as the environment says; or that
/// of its seed alone.
pub fn hunt(test: &str, weather: Weather, store: Store, count: u64) {
    if let Some(seed) = number("SIMULATION_SEED") {
        let script = Script::draw(seed, weather, store);
        if let Err(failure) = try_life(&script) {
            let (shrunk, _) = shrink(script, failure);
            eprintln!("{shrunk:#?}");
            Life::begin(&shrunk, true).live(&shrunk);
        }
        return;
    }
    let (first, count) = match number("SIMULATION_LIVES") {
        Some(lives) => (RandomState::new().build_hasher().finish() >> 20, lives),
        None => (0, count),
    };
    let (began, mut tally) = (Instant::now(), Tally::default());
    for seed in first..first + count {
        let script = Script::draw(seed, weather, store);
        match try_life(&script) {
            Ok(life) => tally += life,
            Err(failure) => {
                let (shrunk, failure) = shrink(script, failure);
                panic!(
                    "{failure}\n\nlife {} of this test; SIMULATION_SEED={seed} cargo test --test simulation {test}\n{shrunk:#?}",
                    seed - first + 1
                );
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    eprintln!(
        "{test}: {count} lives from seed {first}, {:.0} a second; {tally:?}",
        count as f64 / seconds
    );
    check_tally(&tally, weather, count);
}

/// Of each kind there was one: else laws hold because nothing happened.
fn check_tally(tally: &Tally, weather: Weather, count: u64) {
    let mut counts = vec![tally.complete, tally.skipped, tally.bounded];
    if weather != Weather::Calm {
        counts.push(tally.cancelled);
    }
    if weather == Weather::Rough {
        counts.push(tally.gaps);
    }
    assert!(count < ENOUGH || !counts.contains(&0), "{tally:?}");
}

/// Why a life fails.
fn try_life(script: &Script) -> Result<Tally, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| match IS_QUIET.get() {
            true => FAILURE.set(info.to_string()),
            false => loud(info),
        }));
    });
    IS_QUIET.set(true);
    let lived = panic::catch_unwind(AssertUnwindSafe(|| Life::begin(script, false).live(script)));
    IS_QUIET.set(false);
    lived.map_err(|_| FAILURE.take())
}

/// Removes parts while it still fails, larger ones first.
fn shrink(mut script: Script, mut failure: String) -> (Script, String) {
    let simpler = Script {
        wiring: Wiring::Shared,
        ..script.clone()
    };
    if let Err(other) = try_life(&simpler) {
        (script, failure) = (simpler, other);
    }
    while let Some(past) = script.past.checked_sub(1) {
        let shorter = Script {
            past,
            ..script.clone()
        };
        match try_life(&shorter) {
            Err(other) => (script, failure) = (shorter, other),
            Ok(_) => break,
        }
    }
    let mut part = script.steps.len().div_ceil(2);
    while part > 0 {
        let (mut start, mut has_shrunk) = (0, false);
        while start < script.steps.len() {
            let mut smaller = script.clone();
            let end = (start + part).min(smaller.steps.len());
            smaller.steps.drain(start..end);
            match try_life(&smaller) {
                Err(other) => (script, failure, has_shrunk) = (smaller, other, true),
                Ok(_) => start += part,
            }
        }
        part = match (part, has_shrunk) {
            (1, true) => 1,
            _ => part / 2,
        };
    }
    (script, failure)
}

pub fn check_repeatable() {
    for seed in 0..20 {
        let script = Script::draw(seed, Weather::Rough, Store::Memory);
        let told = || Life::begin(&script, false).told(&script);
        assert_eq!(told(), told(), "seed {seed}");
    }
}
