//! The wall clock, as everything below the API counts time, and what the chain says of it. The core
//! and the protocol layers take the time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch; 0 on a machine whose clock is before it.
pub fn now_ms() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// Hours by which a block may differ from the clock: nodes refuse one that is further ahead.
const TOLERANCE_HOURS: u64 = 2;

/// What is to be said when the clock (in milliseconds) and the newest block (the time in its
/// header, in seconds) are further apart than that. A block that is old proves nothing by itself:
/// for hours none may have come.
pub fn note_on_chain_time(now: u64, block_time: u32) -> Option<String> {
    if let Some(behind) = clock_is_behind(now, block_time) {
        return Some(format!("{behind}. Set it (NTP)."));
    }
    let hours = (now / 1000).saturating_sub(block_time.into()) / 3600;
    (hours >= TOLERANCE_HOURS).then(|| {
        format!(
            "The newest block is {hours} hours older than this machine's clock says: no block came since, or the clock is ahead; set it (NTP) if it is."
        )
    })
}

/// The same of a block from the future alone, without advice.
pub fn clock_is_behind(now: u64, block_time: u32) -> Option<String> {
    let hours = u64::from(block_time).saturating_sub(now / 1000) / 3600;
    (hours >= TOLERANCE_HOURS).then(|| {
        format!("This machine's clock is wrong: it is {hours} hours behind the newest block")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_and_chain_may_be_two_hours_apart() {
        let now = 1_700_000_000;
        for (block_time, said) in [
            (now, None),
            (now + 7199, None),
            (now - 7199, None),
            (now + 7200, Some("2 hours behind the newest block")),
            (now - 7200, Some("2 hours older")),
            (0, Some("472222 hours older")),
        ] {
            let note = note_on_chain_time(u64::from(now) * 1000, block_time);
            assert_eq!(note.is_some(), said.is_some(), "{note:?}");
            assert!(note.is_none_or(|note| note.contains(said.unwrap_or_default())));
        }
        assert!(note_on_chain_time(0, now).is_some_and(|note| note.contains("behind")));
    }
}
