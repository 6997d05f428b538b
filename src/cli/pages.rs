//! What is made of the command line's description for shells and for `man`.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// The script that completes our words in a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "satwatch", &mut script);
    script
}

/// The manual page of satwatch, or of a command of it (`["token", "new"]`), in roff.
pub fn man(words: &[String]) -> io::Result<Vec<u8>> {
    let mut command = Cli::command();
    // Names commands as they are called.
    command.build();
    let mut found: &Command = &command;
    for word in words {
        let inner = found.find_subcommand(word);
        found = inner.ok_or_else(|| {
            io::Error::other(format!("{} has no command {word:?}", found.get_name()))
        })?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(found.clone()).render(&mut page)?;
    page.flush()?;
    Ok(page)
}
