//! Where we are in the log, and what is found there. Pure.

use super::super::entry::{self, Entry};
use super::super::keys::{log_id, starts_from_json};
use super::super::problem::Problem;
use crate::store::Starts;
use crate::wire::cursor;

/// What the hash says that names the current stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    pub current: u64,
    /// As JSON.
    pub starts: String,
    pub network: String,
    pub from: String,
}

/// What an entry is at our place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// We have it.
    Skip,
    Take,
    /// What is missing in front of it goes up to this number.
    Gap(u64),
    /// Its cursor is not of the log that we know.
    Unknown,
}

/// What a look at the pointer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointed {
    /// It is our log, be it in another stream or with more starts.
    Ours,
    OtherLog,
}

#[derive(Debug, Clone)]
pub struct Place {
    /// As it was seen last.
    pointer: Pointer,
    starts: Starts,
    /// Everything up to here was had.
    number: u64,
}

impl Place {
    /// For who has nothing yet: at the end of the stream, and no earlier than where its writer's
    /// log ended when it came. What a new stream is filled with is no news. `last`: the last entry.
    pub fn begin(
        pointer: Pointer,
        last: Option<&Entry<'_>>,
        network: &str,
    ) -> Result<Self, Problem> {
        let starts = read_starts(&pointer, network)?;
        let number = |cursor: &str| {
            cursor::read(&starts, cursor).map_err(|_| Problem::OtherKeys {
                cause: format!("{cursor:?} is no cursor of the log of the stream"),
            })
        };
        let from = number(&pointer.from)?;
        let last = last.map(|last| number(last.cursor)).transpose()?;
        Ok(Self {
            number: from.max(last.unwrap_or_default()),
            pointer,
            starts,
        })
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn cursor(&self) -> String {
        cursor::write(&self.starts, self.number)
    }

    pub fn stream(&self) -> u64 {
        self.pointer.current
    }

    pub fn starts(&self) -> &Starts {
        &self.starts
    }

    /// The pointer was looked at.
    pub fn pointed(&mut self, pointer: Pointer) -> Result<Pointed, Problem> {
        if pointer == self.pointer {
            return Ok(Pointed::Ours);
        }
        let starts = read_starts(&pointer, &self.pointer.network)?;
        if is_older(&starts, &self.starts) {
            return Err(Problem::WentBack);
        }
        let (start, number) = self.starts.cursor(self.number);
        if log_id(&starts) != log_id(&self.starts) || !starts.knows(start, number) {
            return Ok(Pointed::OtherLog);
        }
        self.starts = starts;
        self.pointer = pointer;
        Ok(Pointed::Ours)
    }

    /// `had`: the number up to which everything was had, ours or a later one.
    pub fn next(&self, had: u64, entry: &Entry<'_>) -> Next {
        if cursor::read(&self.starts, entry.cursor) != Ok(entry.number) {
            return Next::Unknown;
        }
        if entry.number <= had {
            return Next::Skip;
        }
        // Ours may be a number that is no event's: the one before the entry is before it then.
        match entry.after <= had {
            true => Next::Take,
            false => Next::Gap(entry.after),
        }
    }

    /// Everything up to this number was had.
    pub fn come_to(&mut self, number: u64) {
        self.number = self.number.max(number);
    }
}

/// Whether starts that we know are missing at the end: a copy of the daemon's folder would have one
/// of its own there, so it is Redis that has lost what was written last.
fn is_older(found: &Starts, known: &Starts) -> bool {
    let same = found.parts().zip(known.parts()).all(|(a, b)| a == b);
    same && found.parts().count() < known.parts().count()
}

fn read_starts(pointer: &Pointer, network: &str) -> Result<Starts, Problem> {
    if pointer.network != network {
        return Err(Problem::OtherNetwork {
            network: pointer.network.clone(),
        });
    }
    starts_from_json(&pointer.starts).ok_or_else(|| Problem::OtherKeys {
        cause: format!("the field starts is {:?}", pointer.starts),
    })
}

/// The entries after a number that follow each other, up to `head`. `None`: what follows the number
/// is not here.
pub fn stretch<'a>(
    starts: &Starts,
    after: u64,
    head: u64,
    entries: impl IntoIterator<Item = Entry<'a>>,
) -> Option<Vec<Entry<'a>>> {
    let (mut place, mut all) = (after, None);
    for entry in entries {
        let is_ours = cursor::read(starts, entry.cursor) == Ok(entry.number);
        if !is_ours || entry.after > place {
            break;
        }
        let all = all.get_or_insert_with(Vec::new);
        if entry.number > head {
            break;
        }
        place = entry.number;
        all.push(entry);
    }
    all
}

/// The id from which on what follows a number is asked for.
pub fn behind(number: u64) -> String {
    entry::id(number.saturating_add(1))
}
