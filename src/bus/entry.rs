//! An entry of the stream, for who writes it and who reads it: id `<number>-0` and these fields, in
//! this order.
//!
//! ```text
//! after    number of the event before it in the log; 0: it is the first one
//! event    its name
//! subject  the address or descriptor_id that it is about; empty: it is about the chain
//! cursor   the place behind it
//! data     JSON: what every subscriber gets
//! ```

pub const FIELDS: [&str; 5] = ["after", "event", "subject", "cursor", "data"];

/// One event in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub number: u64,
    pub after: u64,
    pub event: &'a str,
    pub subject: &'a str,
    pub cursor: &'a str,
    pub data: &'a str,
}

/// The id of the event with this number.
pub fn id(number: u64) -> String {
    format!("{number}-0")
}

/// The number of the event with this id; `None`: it is not one of ours.
pub fn number(id: &str) -> Option<u64> {
    let number = id.strip_suffix("-0")?;
    // As it is written: no sign, no zeros before.
    let parsed: u64 = number.parse().ok()?;
    (parsed.to_string() == number).then_some(parsed)
}

impl<'a> Entry<'a> {
    /// What Redis answered; `None`: it is none of ours. Fields that are not known are passed over.
    pub fn parse(id: &str, fields: &'a [(String, String)]) -> Option<Self> {
        let field = |name: &str| {
            let mut fields = fields.iter();
            let found = fields.find(|(other, _)| other == name);
            found.map(|(_, value)| value.as_str())
        };
        let [after, event, subject, cursor, data] = FIELDS.map(field);
        Some(Self {
            number: number(id)?,
            after: after?.parse().ok()?,
            event: event?,
            subject: subject?,
            cursor: cursor?,
            data: data?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let entry = Entry {
            number: 12,
            after: 9,
            event: "block",
            subject: "",
            cursor: "5fa3-12",
            data: "{}",
        };
        let values = ["9", "block", "", "5fa3-12", "{}"];
        let fields = FIELDS.iter().zip(values);
        let mut fields: Vec<_> = fields
            .map(|(name, value)| ((*name).to_owned(), value.to_owned()))
            .collect();
        assert_eq!(Entry::parse(&id(12), &fields), Some(entry));
        fields.push(("later".to_owned(), "x".to_owned()));
        assert_eq!(Entry::parse("12-0", &fields), Some(entry));
        for id in ["12", "12-1", "012-0", "+1-0", "x-0", "-0"] {
            assert_eq!(Entry::parse(id, &fields), None, "{id}");
        }
        fields.remove(0);
        assert_eq!(Entry::parse("12-0", &fields), None);
    }
}
