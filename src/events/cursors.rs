//! What a client's cursor means in this log: its number, or a refusal that says where to go on.
//! Reads the store.

use crate::reads::balance_in;
use crate::store::{StoreError, StoreReader};
use crate::wire::address::KnownAddress;
use crate::wire::cursor::{self, BadCursor};
use crate::wire::error::Restart;
use crate::wire::{ApiError, EventEncoder};

/// Balances that come with a cursor that is not good any more.
pub const BALANCES: usize = 1000;

/// The number in a cursor of this log, which may be ahead of it.
pub fn number(reader: &StoreReader, encoder: &EventEncoder, text: &str) -> Result<u64, ApiError> {
    match cursor::read(&encoder.starts, text) {
        Ok(number) => Ok(number),
        Err(BadCursor::Malformed) => Err(ApiError::bad_request(
            "invalid_cursor",
            "This is not a cursor; send one as an event or an answer carried it.",
        )),
        Err(BadCursor::Unknown) => Err(unknown(reader, encoder)?),
    }
}

/// Where in the log a client's cursor stands.
pub fn place(reader: &StoreReader, encoder: &EventEncoder, text: &str) -> Result<u64, ApiError> {
    let number = number(reader, encoder, text)?;
    if number > reader.snapshot().head()? {
        return Err(unknown(reader, encoder)?);
    }
    if is_expired(reader, number)? {
        let message = "Events after this cursor were deleted (events.retention_days). Take the balance anew (GET /balance/{address} or subscribe_address) and go on from the cursor beside it.";
        return Err(gone(reader, encoder, "cursor_expired", message)?);
    }
    Ok(number)
}

/// Whether retention has taken an event after this number.
pub fn is_expired(reader: &StoreReader, after: u64) -> Result<bool, StoreError> {
    Ok(after.saturating_add(1) < reader.first_seq()?)
}

fn unknown(reader: &StoreReader, encoder: &EventEncoder) -> Result<ApiError, ApiError> {
    let message = "This cursor is not of this event log: the store was replaced, a copy of it was put back, or a power loss took what was not on the disk yet. Take the balance anew (GET /balance/{address} or subscribe_address) and go on from the cursor beside it.";
    gone(reader, encoder, "cursor_unknown", message)
}

fn gone(
    reader: &StoreReader,
    encoder: &EventEncoder,
    code: &'static str,
    message: &str,
) -> Result<ApiError, ApiError> {
    let head = reader.snapshot().head()?;
    let first = reader.first_seq()?.saturating_sub(1);
    let restart = Restart {
        cursor: encoder.cursor(head),
        first: encoder.cursor(first),
        balances: None,
    };
    Ok(ApiError {
        restart: Some(Box::new(restart)),
        ..ApiError::gone(code, message)
    })
}

/// The refusal of a cursor with the balances of the addresses and the cursor of the same instant.
pub fn with_balances(
    reader: &StoreReader,
    encoder: &EventEncoder,
    mut error: ApiError,
    addresses: &[KnownAddress],
) -> ApiError {
    let Some(restart) = &mut error.restart else {
        return error;
    };
    if addresses.is_empty() || addresses.len() > BALANCES {
        return error;
    }
    let snapshot = reader.snapshot();
    let balances = addresses
        .iter()
        .map(|address| balance_in(&snapshot, address, encoder));
    // One that is not watched any more has none.
    let balances =
        balances.filter(|balance| !matches!(balance, Err(error) if error.code == "not_watched"));
    let balances = balances.collect::<Result<Vec<_>, _>>();
    match balances.and_then(|balances| Ok((balances, snapshot.head()?))) {
        Ok((balances, head)) => {
            (restart.balances, restart.cursor) = (Some(balances), encoder.cursor(head));
            error
        }
        Err(cause) => cause,
    }
}
