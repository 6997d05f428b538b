//! The command line: flags and commands ([`Cli`]), what `--help` says behind them (`help`), and
//! what is made of both for shells and `man` (`pages`).
//!
//! Every command has an example in its help; a test parses them all.

mod help;
mod pages;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
pub use pages::{completions, man};

use crate::config::{Config, ConfigError, Flag, is_host_name};
use crate::watch;

/// Where settings are looked for when `--settings` is not given.
const DEFAULT_SETTINGS: &str = "settings.toml";

/// Watches bitcoin addresses on your own node and pushes what happens to them over Socket.IO and
/// REST.
#[derive(Debug, Clone, Parser)]
#[command(name = "satwatch", version, about, max_term_width = 100)]
#[command(after_help = help::SATWATCH)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// Settings file [default: settings.toml in the working directory, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    settings: Option<PathBuf>,

    /// Folder of the database, instead of store.path
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<String>,

    /// Address and port to listen on, instead of server.listen
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    listen: Option<String>,

    /// Read the settings, say what is wrong with them, and exit
    #[arg(long, global = true)]
    check: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Subcommand)]
pub enum Command {
    /// Run the daemon (the default)
    #[default]
    #[command(after_help = help::RUN)]
    Run,
    /// Serve the log of another satwatch, the primary, from its stream on Redis: for many clients,
    /// and clients that survive the loss of one
    #[command(after_help = help::EDGE)]
    Edge,
    /// Try out node, credentials, ZMQ endpoints, database, port and certificate, and say what to
    /// change where
    #[command(after_help = help::DOCTOR)]
    Doctor,
    /// Certificates of TLS
    #[command(subcommand, after_help = help::CERT)]
    Cert(CertCommand),
    /// Make, list and revoke tokens; a running daemon notices
    #[command(subcommand, after_help = help::TOKEN)]
    Token(TokenCommand),
    /// Print what happens to addresses and wallets as it comes, from the running daemon
    #[command(after_help = help::WATCH)]
    Watch(WatchCommand),
    /// Print the script that completes commands and flags in a shell
    #[command(after_help = help::COMPLETIONS)]
    Completions { shell: Shell },
    /// Print the manual page, or that of a command, for man
    #[command(after_help = help::MAN)]
    Man {
        /// The command
        #[arg(value_name = "COMMAND")]
        words: Vec<String>,
    },
}

/// What is to be watched, and where.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct WatchCommand {
    /// Addresses, descriptors, extended public keys, ids of descriptors, up to 200; what is not
    /// watched yet is added
    #[arg(required = true, value_name = "ADDRESS|DESCRIPTOR")]
    words: Vec<String>,
    /// Where the daemon is [default: what server.listen says]
    #[arg(long, value_parser = watch::parse_url)]
    url: Option<String>,
    /// File with a token [default: SATWATCH_TOKEN in the environment]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificate to trust, in PEM, besides those of the system and server.tls.cert
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// JSON lines, as when standard output is no terminal
    #[arg(long)]
    json: bool,
}

impl From<WatchCommand> for watch::Request {
    fn from(command: WatchCommand) -> Self {
        let WatchCommand {
            words,
            url,
            token_file,
            cacert,
            json,
        } = command;
        Self {
            words,
            url,
            token_file,
            cacert,
            json,
        }
    }
}

/// What is to be done with tokens.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it; the first one switches authentication on
    #[command(after_help = help::TOKEN_NEW)]
    New {
        /// For the list, and to revoke it by
        #[arg(long)]
        name: String,
        #[arg(long)]
        scope: TokenScope,
        /// When it ends: a number and s, m, h, d or w (90d) [default: never]
        #[arg(long, value_parser = lifetime)]
        expires: Option<Duration>,
        /// Begin anew with this token in place of a tokens file that is lost or damaged: all others
        /// end
        #[arg(long)]
        anew: bool,
    },
    /// Show all tokens, when they expire and were used last
    #[command(after_help = help::TOKEN_LIST)]
    List,
    /// End a token and its sessions
    #[command(after_help = help::TOKEN_REVOKE)]
    Revoke {
        /// Its name or id
        token: String,
    },
    /// Switch authentication off; only where nobody else reaches the daemon
    #[command(after_help = help::TOKEN_OFF)]
    Off,
    /// Take a tokens file that was put back from a copy, or is another daemon's
    #[command(after_help = help::TOKEN_ACCEPT)]
    Accept,
    /// Print a token and keep nothing: for auth.first_token_file
    #[command(after_help = help::TOKEN_GENERATE)]
    Generate,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenScope {
    /// See what is watched and what happens to it
    Read,
    /// And change what is watched
    Watch,
    /// Everything
    Admin,
    /// GET /metrics alone
    Metrics,
}

/// A word that is longer than any command or flag may be a private key or the words of a seed that
/// were pasted by mistake, and a URL may have a password before its `@`: it is not shown.
const LONGEST_SHOWN: usize = 20;

/// The error as it may be shown.
pub fn without_secrets(mut error: clap::Error) -> clap::Error {
    let kind = match error.kind() {
        ErrorKind::InvalidSubcommand => ContextKind::InvalidSubcommand,
        ErrorKind::UnknownArgument => ContextKind::InvalidArg,
        _ => ContextKind::InvalidValue,
    };
    let is_secret = |it: &ContextValue| match it {
        ContextValue::String(word) => word.len() > LONGEST_SHOWN || word.contains('@'),
        _ => false,
    };
    if error.get(kind).is_some_and(is_secret) {
        error.insert(kind, ContextValue::String("(not shown)".to_owned()));
        // Which repeats it.
        error.remove(ContextKind::Suggested);
    }
    error
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let wrong = || "a number of s, m, h, d or w, such as 90d".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let count = text
        .strip_suffix(unit)
        .and_then(|it| it.parse::<u32>().ok());
    let count = count.filter(|count| *count > 0).ok_or_else(wrong)?;
    Ok(Duration::from_secs(u64::from(count) * seconds))
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum CertCommand {
    /// Make a certificate that vouches for itself, for a home network: into the files that the
    /// settings name, else into cert.pem and key.pem in the working directory. Files that are there
    /// stay as they are
    #[command(after_help = help::CERT_NEW)]
    New {
        /// A name or an address under which clients reach this machine, besides its own name and
        /// loopback; may be repeated
        #[arg(long = "host", value_name = "HOST", value_parser = host)]
        hosts: Vec<String>,
    },
}

fn host(text: &str) -> Result<String, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) if is_host_name(text) => Ok(text.to_ascii_lowercase()),
        Err(_) => {
            Err("expected a name or an address, such as satwatch.lan or 192.168.1.5".to_owned())
        }
    }
}

impl Cli {
    pub fn task(&self) -> Command {
        self.command.clone().unwrap_or_default()
    }

    pub fn check(&self) -> bool {
        self.check
    }

    /// The settings file in use, if any.
    pub fn settings_file(&self) -> Option<&Path> {
        match &self.settings {
            Some(path) => Some(path),
            None => Some(Path::new(DEFAULT_SETTINGS)).filter(|path| path.exists()),
        }
    }

    /// The settings from file, environment and flags.
    pub fn load(&self) -> Result<Config, ConfigError> {
        self.load_with(self.settings_file())
    }

    /// The same once more: with the `file` that was used then, even if it is gone, else with one
    /// that is there now.
    pub fn load_again(&self, file: Option<&Path>) -> Result<Config, ConfigError> {
        self.load_with(file.or_else(|| self.settings_file()))
    }

    fn load_with(&self, file: Option<&Path>) -> Result<Config, ConfigError> {
        Config::load(file, std::env::vars_os(), &self.flags())
    }

    fn flags(&self) -> Vec<Flag> {
        let listen = self.listen.iter().map(|value| Flag {
            flag: "--listen",
            section: "server",
            setting: "listen",
            value: value.clone(),
        });
        let data_dir = self.data_dir.iter().map(|value| Flag {
            flag: "--data-dir",
            section: "store",
            setting: "path",
            value: value.clone(),
        });
        listen.chain(data_dir).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &[&str]) -> Cli {
        Cli::try_parse_from(std::iter::once("satwatch").chain(words.iter().copied()))
            .expect("a good command line")
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_is_what_happens_without_a_command() {
        assert_eq!(parse(&[]).task(), Command::Run);
        assert_eq!(parse(&["run"]).task(), Command::Run);
        assert_eq!(parse(&["doctor"]).task(), Command::Doctor);
        let hosts = ["Home.lan", "192.168.1.5", "fd00::0005"];
        let words = hosts.iter().flat_map(|host| ["--host", host]);
        let words: Vec<&str> = ["cert", "new"].into_iter().chain(words).collect();
        let hosts = ["home.lan", "192.168.1.5", "fd00::5"]
            .map(str::to_owned)
            .into();
        assert_eq!(
            parse(&words).task(),
            Command::Cert(CertCommand::New { hosts })
        );
    }

    /// The words of a line of a shell, up to where its output goes.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        for word in line.split_whitespace() {
            match word {
                "|" | ">" | "#" => break,
                word => words.push(word.trim_matches('\'').to_owned()),
            }
        }
        words
    }

    fn check_examples(command: &clap::Command) {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_else(|| panic!("{command} has examples"));
        let examples = help.lines().filter(|line| line.starts_with("  satwatch"));
        let mut count = 0;
        for example in examples {
            count += 1;
            let shown = |error: &clap::Error| {
                use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
                matches!(error.kind(), DisplayHelp | DisplayVersion)
            };
            let parsed = Cli::try_parse_from(words(example));
            let parsed = parsed.map(drop).or_else(|error| match shown(&error) {
                true => Ok(()),
                false => Err(error),
            });
            parsed.unwrap_or_else(|error| panic!("{example}: {error}"));
        }
        assert!(count > 0, "{command} has an example: {help}");
        let inner = command.get_subcommands();
        inner
            .filter(|it| it.get_name() != "help")
            .for_each(check_examples);
    }

    #[test]
    fn every_command_has_examples_and_all_of_them_parse() {
        check_examples(&Cli::command());
    }

    #[test]
    fn a_token_lives_for_a_number_of_something() {
        let words = [
            "token",
            "new",
            "--name",
            "a",
            "--scope",
            "read",
            "--expires",
        ];
        for (text, seconds) in [
            ("90d", Some(7_776_000)),
            ("2w", Some(1_209_600)),
            ("1s", Some(1)),
            ("5m", Some(300)),
            ("4294967295w", Some(4_294_967_295 * 604_800)),
            ("0d", None),
            ("d", None),
            ("", None),
            ("90", None),
            ("-1d", None),
            ("1.5d", None),
            ("1ä", None),
        ] {
            let parsed = Cli::try_parse_from(["satwatch"].into_iter().chain(words).chain([text]));
            let parsed = parsed.ok().map(|cli| cli.task());
            let found = match parsed {
                Some(Command::Token(TokenCommand::New { expires, .. })) => expires,
                _ => None,
            };
            assert_eq!(found.map(|it| it.as_secs()), seconds, "{text}");
        }
    }

    #[test]
    fn flags_may_stand_before_and_after_the_command() {
        for words in [
            ["--settings", "s.toml", "run"],
            ["run", "--settings", "s.toml"],
        ] {
            assert_eq!(
                parse(&words).settings_file(),
                Some(Path::new("s.toml")),
                "{words:?}"
            );
        }
        let cli = parse(&["run", "--listen", "127.0.0.1:0", "--data-dir", "d"]);
        let config = Config::load(None, [], &cli.flags()).expect("good settings");
        assert_eq!(
            (config.server.listen.port, config.store.path),
            (0, PathBuf::from("d"))
        );
    }

    #[test]
    fn a_bad_flag_is_named() {
        let error =
            Config::load(None, [], &parse(&["--listen", "here"]).flags()).expect_err("no address");
        assert!(
            error.to_string().starts_with(
                "--listen: server.listen = \"here\" is not valid: expected a host and a port, such as"
            ),
            "{error}"
        );
    }

    #[test]
    fn unknown_words_are_refused() {
        for words in [
            &["walk"][..],
            &["--password", "x"],
            &["run", "now"],
            &["cert"],
            &["cert", "new", "--host", "a b"],
        ] {
            assert!(
                Cli::try_parse_from(std::iter::once("satwatch").chain(words.iter().copied()))
                    .is_err(),
                "{words:?}"
            );
        }
    }
}
