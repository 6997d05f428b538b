//! What goes to standard output: one line for each event.

use std::io::{self, Write};

use serde_json::Value;
use serde_json::value::RawValue;

use super::told::Told;
use super::words;

/// Where lines go, and for whom.
pub struct Printer<W> {
    out: W,
    is_for_people: bool,
    /// Lines for people say whom they are about.
    pub names_subjects: bool,
    told: Told,
}

impl<W: Write> Printer<W> {
    pub fn new(out: W, is_for_people: bool) -> Self {
        Self {
            out,
            is_for_people,
            names_subjects: false,
            told: Told::default(),
        }
    }

    /// Takes note of a wallet's label.
    pub fn wallet(&mut self, wallet: &Value) {
        self.told.label(wallet);
    }

    pub fn balance(&mut self, balance: &Value) -> io::Result<()> {
        match self.is_for_people {
            true => {
                let mut balance = balance.clone();
                self.told.add_label(&mut balance);
                self.line(&words::balance(&balance))
            }
            false => self.json("balance", &balance.to_string()),
        }
    }

    /// `data`: JSON as it came.
    pub fn event(&mut self, name: &str, data: &str) -> io::Result<()> {
        if !self.is_for_people {
            return self.json(name, data);
        }
        let mut data: Value = serde_json::from_str(data).unwrap_or_default();
        self.told.add(name, &mut data);
        for line in words::event(name, &data, self.names_subjects) {
            self.line(&line)?;
        }
        Ok(())
    }

    fn json(&mut self, name: &str, data: &str) -> io::Result<()> {
        // Outside of its texts JSON may have line ends, inside it has none.
        let data = data.replace(['\n', '\r'], " ");
        let data = match serde_json::from_str::<&RawValue>(&data) {
            Ok(data) => data.get(),
            Err(_) => "null",
        };
        self.write(&format!(
            "{{\"event\":{},\"data\":{data}}}\n",
            Value::from(name)
        ))
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        self.write(&format!("{}\n", words::plain(text)))
    }

    /// At once: whoever reads wants it now, and a line is never half there.
    fn write(&mut self, line: &str) -> io::Result<()> {
        self.out.write_all(line.as_bytes())?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(is_for_people: bool, name: &str, data: &str) -> String {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, is_for_people);
        printer.event(name, data).expect("a vector takes all");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn json_comes_as_it_came_on_one_line() {
        for (data, line) in [
            (
                "{\"a\": 0.10000000}",
                "{\"event\":\"block\",\"data\":{\"a\": 0.10000000}}\n",
            ),
            ("{\n\"a\":1}", "{\"event\":\"block\",\"data\":{ \"a\":1}}\n"),
            ("no JSON", "{\"event\":\"block\",\"data\":null}\n"),
        ] {
            assert_eq!(printed(false, "block", data), line);
        }
        assert_eq!(
            printed(false, "a\"b", "1"),
            "{\"event\":\"a\\\"b\",\"data\":1}\n"
        );
    }

    #[test]
    fn control_characters_do_not_come_to_a_terminal() {
        let line = printed(true, "label_change", "{\"label\":\"\\u001b[2Jrent\\n\"}");
        assert!(
            !line.trim_end_matches('\n').contains(char::is_control),
            "{line:?}"
        );
        assert!(line.contains("rent"), "{line}");
    }
}
