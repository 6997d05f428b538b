//! What a client's cursor means in this log: its number, or a refusal that says where to go on.
//! Reads the store.

use crate::reads::StoreView;
use crate::store::{StoreError, StoreReader};
use crate::tracker::DescriptorId;
use crate::wire::ApiError;
use crate::wire::address::KnownAddress;
use crate::wire::cursor::{self, BadCursor};
use crate::wire::error::Restart;

/// Balances that come with a cursor that is not good any more.
pub const BALANCES: usize = 1000;

/// The number in a cursor of this log, which may be ahead of it.
pub fn number(view: &StoreView<'_>, text: &str) -> Result<u64, ApiError> {
    match cursor::read(&view.encoder.starts(), text) {
        Ok(number) => Ok(number),
        Err(BadCursor::Malformed) => Err(ApiError::bad_request(
            "invalid_cursor",
            "This is not a cursor; send one as an event or an answer carried it.",
        )),
        Err(BadCursor::Unknown) => Err(unknown(view)?),
    }
}

/// Where in the log a client's cursor stands.
pub fn place(view: &StoreView<'_>, text: &str) -> Result<u64, ApiError> {
    let number = number(view, text)?;
    check(view, number)?;
    Ok(number)
}

/// Whether the log has what follows a number.
pub fn check(view: &StoreView<'_>, number: u64) -> Result<(), ApiError> {
    if number > view.head()? {
        return Err(unknown(view)?);
    }
    if is_expired(view.reader, number)? {
        let message = "Events after this cursor were deleted (events.retention_days). Take the balance anew (GET /balance/{address} or subscribe_address) and go on from the cursor beside it.";
        return Err(gone(view, "cursor_expired", message)?);
    }
    Ok(())
}

/// Whether retention has taken an event after this number.
pub fn is_expired(reader: &StoreReader, after: u64) -> Result<bool, StoreError> {
    Ok(after.saturating_add(1) < reader.first_seq()?)
}

fn unknown(view: &StoreView<'_>) -> Result<ApiError, ApiError> {
    let message = "This cursor is not of this event log: the store was replaced, a copy of it was put back, or a power loss took what was not on the disk yet. Take the balance anew (GET /balance/{address} or subscribe_address) and go on from the cursor beside it.";
    gone(view, "cursor_unknown", message)
}

fn gone(view: &StoreView<'_>, code: &'static str, message: &str) -> Result<ApiError, ApiError> {
    let first = view.reader.first_seq()?.saturating_sub(1);
    let restart = Restart {
        cursor: view.cursor()?,
        first: view.encoder.cursor(first),
        balances: None,
    };
    Ok(ApiError {
        restart: Some(Box::new(restart)),
        ..ApiError::gone(code, message)
    })
}

/// The refusal of a cursor with the balances of these at the same instant.
pub fn with_balances(
    view: &StoreView<'_>,
    mut error: ApiError,
    addresses: &[KnownAddress],
    descriptors: &[DescriptorId],
) -> ApiError {
    let Some(restart) = &mut error.restart else {
        return error;
    };
    let count = addresses.len().saturating_add(descriptors.len());
    if count == 0 || count > BALANCES {
        return error;
    }
    let of_descriptors = descriptors.iter().map(|id| view.descriptor_balance(id));
    let balances = addresses.iter().map(|address| view.balance(address));
    let balances = balances.chain(of_descriptors);
    // One that is not watched any more has none.
    let is_gone = |error: &ApiError| matches!(error.code, "not_watched" | "no_such_descriptor");
    let balances = balances.filter(|balance| !balance.as_ref().is_err_and(is_gone));
    match balances.collect() {
        Ok(balances) => {
            restart.balances = Some(balances);
            error
        }
        Err(cause) => cause,
    }
}
