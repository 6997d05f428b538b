//! The command line.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError, Flag, is_host_name};

/// Where settings are looked for when `--settings` is not given.
const DEFAULT_SETTINGS: &str = "settings.toml";

/// Watches bitcoin addresses on your own node and pushes what happens to them over Socket.IO and
/// REST.
#[derive(Debug, Parser)]
#[command(name = "satwatch", version, about, max_term_width = 100)]
#[command(
    after_help = "Every setting is listed in settings.toml and has an environment twin, such as SATWATCH__SERVER__LISTEN=127.0.0.1:5005.\n\
    SIGTERM and SIGINT end the daemon in order. Log lines go to standard error."
)]
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
    Run,
    /// Try out node, credentials, ZMQ endpoints, database, port and certificate, and say what to
    /// change where
    Doctor,
    /// Certificates of TLS
    #[command(subcommand)]
    Cert(CertCommand),
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum CertCommand {
    /// Make a certificate that vouches for itself, for a home network: into the files that the
    /// settings name, else into cert.pem and key.pem in the working directory. Files that are there
    /// stay as they are
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
        Config::load(self.settings_file(), std::env::vars_os(), &self.flags())
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
