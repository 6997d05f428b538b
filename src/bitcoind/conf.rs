//! `bitcoin.conf`, as far as it says how to reach the node's RPC: what `bitcoin-cli` reads from it,
//! in the way in which it does.
//!
//! ```text
//! # comment, up to the end of the line
//! name=value                 for the main chain; for others too, but for the names in CHAIN_ONLY
//! noname=1                   the name is off; what stands before it does not count
//! [signet]                   what follows is for this chain, up to the next section
//! signet.name=value          the same in one line
//! ```
//!
//! Of several values the first counts. A section's values come before those without a section.
//! `includeconf` names further files, which cannot include others. `bitcoin.conf` is looked for in
//! the default data directory; its `datadir` names another one for all else.

use std::io;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use bitcoin::Network;

use super::http::Credentials;
use crate::config::Secret;

/// A chain, its port of RPC, its folder below the data directory, its section.
pub(super) const CHAINS: [(Network, u16, &str, &str); 5] = [
    (Network::Bitcoin, 8332, "", "main"),
    (Network::Testnet, 18332, "testnet3", "test"),
    (Network::Testnet4, 48332, "testnet4", "testnet4"),
    (Network::Signet, 38332, "signet", "signet"),
    (Network::Regtest, 18443, "regtest", "regtest"),
];

/// Outside a section these count for the main chain only.
const CHAIN_ONLY: [&str; 2] = ["rpcbind", "rpcport"];

/// Larger files are not read.
const MOST_BYTES: u64 = 1 << 20;

/// What the files say.
#[derive(Default)]
pub(super) struct Conf {
    file: PathBuf,
    data_dir: PathBuf,
    lines: Vec<Line>,
    /// Why a file was not read that is there.
    pub(super) problem: Option<String>,
}

struct Line {
    /// Empty outside a section.
    section: String,
    name: String,
    /// `None`: the name is off.
    value: Option<String>,
}

/// How the node of one chain is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) network: Network,
    pub(super) port: u16,
    /// Name of the chain's folder.
    pub(super) folder: &'static str,
    /// `http://host:port`, best first; never empty.
    pub(super) urls: Vec<String>,
    pub(super) credentials: Credentials,
    /// They are a login from outside a section, and the file neither chooses this chain nor says
    /// where its node is: they are meant for another node.
    pub(super) borrowed: bool,
}

impl Conf {
    /// Reads `bitcoin.conf` in a data directory; a file that is not there says nothing.
    pub(super) fn read(default_dir: &Path) -> Self {
        let file = default_dir.join("bitcoin.conf");
        let mut conf = Self {
            data_dir: default_dir.to_owned(),
            file: file.clone(),
            ..Self::default()
        };
        conf.include(&file);
        let chosen = section_of(conf.chain());
        if let Some(dir) = conf.value(chosen, "datadir") {
            conf.data_dir = default_dir.join(dir);
        }
        // As bitcoind does: what the chain's section names comes first, and sections of other
        // chains include nothing.
        let mut included = Vec::new();
        for section in [chosen, ""] {
            let of_section = |line: &&Line| line.section == section && line.name == "includeconf";
            let names = conf.lines.iter().filter(of_section);
            included.extend(names.filter_map(|line| line.value.clone()));
        }
        for name in included {
            conf.include(&conf.data_dir.join(name));
        }
        conf
    }

    fn include(&mut self, file: &Path) {
        match text_of(file) {
            Ok(text) => self.lines.extend(parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let problem = format!("{} was not read ({error})", file.display());
                self.problem.get_or_insert(problem);
            }
        }
    }

    /// The chain that a node started without options follows.
    fn chain(&self) -> Network {
        let on = |name: &str| {
            let values = self.values("", name);
            values.last().is_some_and(|value| is_true(value))
        };
        let named = self.values("", "chain").last().copied();
        let found = CHAINS.into_iter().find(|(_, _, _, section)| {
            let switch = if *section == "test" {
                "testnet"
            } else {
                section
            };
            named == Some(section) || (*section != "main" && on(switch))
        });
        found.map_or(Network::Bitcoin, |(network, ..)| network)
    }

    /// For every chain, the one that the file chooses first.
    pub(super) fn accesses(&self) -> Vec<Access> {
        let chosen = self.chain();
        let mut all: Vec<_> = CHAINS
            .into_iter()
            .map(|(network, port, folder, section)| Access {
                network,
                port,
                folder,
                urls: self.urls(section, port),
                credentials: self.credentials(section, folder),
                borrowed: network != chosen && self.is_borrowed(section),
            })
            .collect();
        all.sort_by_key(|access| access.network != chosen);
        all
    }

    fn urls(&self, section: &str, default_port: u16) -> Vec<String> {
        let rpcport = self.value(section, "rpcport");
        let rpcport = rpcport.and_then(|port| port.parse().ok());
        // As in bitcoin-cli, `rpcport` comes before a port of `rpcconnect`.
        if let Some((host, port)) = self.value(section, "rpcconnect").map(host_and_port) {
            return vec![url(host, rpcport.or(port).unwrap_or(default_port))];
        }
        // bitcoin-cli asks 127.0.0.1 only; a node that listens elsewhere says so here. Without
        // `rpcallowip` it does not.
        let bound = self.values(section, "rpcbind");
        if bound.is_empty() || self.values(section, "rpcallowip").is_empty() {
            return vec![url("127.0.0.1", rpcport.unwrap_or(default_port))];
        }
        let listening = bound.into_iter().map(host_and_port);
        listening
            .map(|(host, port)| url(host, port.or(rpcport).unwrap_or(default_port)))
            .collect()
    }

    fn credentials(&self, section: &str, folder: &str) -> Credentials {
        let password = self.value(section, "rpcpassword");
        if let Some(password) = password.filter(|password| !password.is_empty()) {
            return Credentials::User {
                user: self
                    .value(section, "rpcuser")
                    .unwrap_or_default()
                    .to_owned(),
                password: Secret(password.to_owned()),
                conf: Some(self.file.clone()),
            };
        }
        let name = self.value(section, "rpccookiefile").unwrap_or(".cookie");
        Credentials::Cookie(self.data_dir.join(folder).join(name))
    }

    fn is_borrowed(&self, section: &str) -> bool {
        let in_section = |line: &Line| line.section == section && line.name == "rpcpassword";
        let connects = |line: &Line| line.section == section && line.name == "rpcconnect";
        let is_placed = CHAIN_ONLY
            .iter()
            .any(|name| self.value(section, name).is_some())
            || self.lines.iter().any(connects);
        let password = self.value(section, "rpcpassword");
        password.is_some_and(|password| !password.is_empty())
            && !self.lines.iter().any(in_section)
            && !is_placed
    }

    fn value(&self, section: &str, name: &str) -> Option<&str> {
        self.values(section, name).first().copied()
    }

    /// The values of a name for a chain, the one that counts first.
    fn values(&self, section: &str, name: &str) -> Vec<&str> {
        let of = |section: &str| {
            let mut values = Vec::new();
            for line in &self.lines {
                if line.section == section && line.name == name {
                    match &line.value {
                        Some(value) => values.push(value.as_str()),
                        None => values.clear(),
                    }
                }
            }
            values
        };
        let mut values = if section.is_empty() {
            Vec::new()
        } else {
            of(section)
        };
        if matches!(section, "" | "main") || !CHAIN_ONLY.contains(&name) {
            values.extend(of(""));
        }
        values
    }
}

fn section_of(network: Network) -> &'static str {
    let found = CHAINS.into_iter().find(|(chain, ..)| *chain == network);
    found.map_or("main", |(_, _, _, section)| section)
}

fn text_of(file: &Path) -> io::Result<String> {
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    if found.len() > MOST_BYTES {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(String::from_utf8_lossy(&std::fs::read(file)?).into_owned())
}

/// Lines that are neither a section nor an assignment are left out: bitcoind does not start with
/// them.
fn parse(text: &str) -> Vec<Line> {
    let mut section = "";
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name;
        } else if let Some((name, value)) = line.split_once('=') {
            let (own_section, name) = match name.trim().rsplit_once('.') {
                Some((own, name)) => (own, name),
                None => (section, name.trim()),
            };
            let (name, value) = match (name.strip_prefix("no"), value.trim()) {
                (Some(name), value) => (name, (!is_true(value)).then(|| "1".to_owned())),
                (None, value) => (name, Some(value.to_owned())),
            };
            lines.push(Line {
                section: own_section.to_owned(),
                name: name.to_owned(),
                value,
            });
        }
    }
    lines
}

/// As bitcoind reads a switch: nothing is true, text is the number that it begins with.
fn is_true(value: &str) -> bool {
    let digits = value.trim_start_matches(['+', '-']);
    let end = digits.find(|c: char| !c.is_ascii_digit());
    let number = &digits[..end.unwrap_or(digits.len())];
    value.is_empty() || number.bytes().any(|digit| digit != b'0')
}

fn url(host: &str, port: u16) -> String {
    let host = match host {
        "" | "*" | "0.0.0.0" | "::" => "127.0.0.1",
        host => host,
    };
    match host.parse::<Ipv6Addr>() {
        Ok(host) => format!("http://[{host}]:{port}"),
        Err(_) => format!("http://{host}:{port}"),
    }
}

/// `host`, `host:port`, `[::1]:port` or a bare IPv6 address.
fn host_and_port(place: &str) -> (&str, Option<u16>) {
    let split = place.rsplit_once(':').and_then(|(host, port)| {
        let plain = !host.contains(':') || host.starts_with('[') && host.ends_with(']');
        Some((host, port.parse().ok()?)).filter(|_| plain)
    });
    let (host, port) = split.map_or((place, None), |(host, port)| (host, Some(port)));
    (host.trim_matches(['[', ']']), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The accesses that a file makes, in a folder of its own; `more`: further files.
    fn read(text: &str, more: &[(&str, &str)]) -> (tempfile::TempDir, Vec<Access>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in [("bitcoin.conf", text)].iter().chain(more) {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        let found = Conf::read(folder.path()).accesses();
        (folder, found)
    }

    fn login(access: &Access) -> (&str, &str) {
        match &access.credentials {
            Credentials::User { user, password, .. } => (user, &password.0),
            Credentials::Cookie(_) => ("", ""),
        }
    }

    #[test]
    fn case_07_the_login_of_bitcoin_conf_is_used() {
        let (folder, found) = read("rpcuser = shop # ours\nrpcpassword=a secret\n", &[]);
        assert_eq!(found.len(), 5);
        assert_eq!(found[0].urls, ["http://127.0.0.1:8332"]);
        assert!(
            found
                .iter()
                .all(|access| login(access) == ("shop", "a secret"))
        );
        let Credentials::User { conf, .. } = &found[0].credentials else {
            panic!("{found:?}")
        };
        assert_eq!(conf.as_deref(), Some(&*folder.path().join("bitcoin.conf")));
        assert!(!format!("{found:?}").contains("a secret"), "never in a log");
    }

    #[test]
    fn without_a_file_there_are_the_cookies() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let found = Conf::read(folder.path()).accesses();
        let cookie = |folder_of_chain: &str| {
            Credentials::Cookie(folder.path().join(folder_of_chain).join(".cookie"))
        };
        assert_eq!(found[0].credentials, cookie(""));
        assert_eq!(found[4].credentials, cookie("regtest"));
        assert_eq!(found[4].urls, ["http://127.0.0.1:18443"]);
    }

    #[test]
    fn sections_are_for_their_chain() {
        let text = "rpcport=1\nrpcuser=all\nrpcpassword=x\nrpcbind=10.0.0.1\n\
                    [regtest]\nrpcport=2\nrpcuser=tester\nsignet.rpcport=3\n[main]\nrpcconnect=node.lan\n";
        let (_folder, found) = read(text, &[]);
        let of = |network| {
            found
                .iter()
                .find(|access| access.network == network)
                .unwrap()
        };
        assert_eq!(of(Network::Bitcoin).urls, ["http://node.lan:1"]);
        assert_eq!(of(Network::Regtest).urls, ["http://127.0.0.1:2"]);
        assert_eq!(login(of(Network::Regtest)), ("tester", "x"));
        assert_eq!(of(Network::Signet).urls, ["http://127.0.0.1:3"]);
        assert_eq!(
            of(Network::Testnet).urls,
            ["http://127.0.0.1:18332"],
            "a port outside a section is the main chain's"
        );
    }

    #[test]
    fn the_chain_that_the_file_chooses_comes_first() {
        for (text, network) in [
            ("", Network::Bitcoin),
            ("chain=signet", Network::Signet),
            ("testnet=1", Network::Testnet),
            ("testnet4=", Network::Testnet4),
            ("regtest=1\nregtest=0", Network::Bitcoin),
            ("noregtest=0", Network::Regtest),
            ("[main]\nregtest=1", Network::Bitcoin),
        ] {
            assert_eq!(read(text, &[]).1[0].network, network, "{text}");
        }
    }

    #[test]
    fn the_first_value_counts_unless_it_is_taken_back() {
        let (_folder, found) = read("rpcport=1\nrpcport=2\n", &[]);
        assert_eq!(found[0].urls, ["http://127.0.0.1:1"]);
        let (_folder, found) = read("rpcport=1\nnorpcport=1\nrpcport=2\n", &[]);
        assert_eq!(found[0].urls, ["http://127.0.0.1:2"]);
    }

    #[test]
    fn included_files_and_another_data_directory_are_read() {
        let other = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(
            other.path().join("more.conf"),
            "rpcport=7\nincludeconf=third.conf",
        )
        .expect("written");
        std::fs::write(other.path().join("third.conf"), "rpccookiefile=no").expect("written");
        let text = format!(
            "datadir={}\nincludeconf=more.conf\n",
            other.path().display()
        );
        let (_folder, found) = read(&text, &[("more.conf", "rpcport=8")]);
        assert_eq!(found[0].urls, ["http://127.0.0.1:7"]);
        assert_eq!(
            found[0].credentials,
            Credentials::Cookie(other.path().join(".cookie"))
        );
        let (_folder, found) = read("rpccookiefile=/run/bitcoind/cookie", &[]);
        assert_eq!(
            found[0].credentials,
            Credentials::Cookie("/run/bitcoind/cookie".into())
        );
    }

    /// As bitcoind 29.5 does, by its log.
    #[test]
    fn what_the_section_includes_comes_before_what_the_file_includes() {
        let text = "regtest=1\nincludeconf=a.conf\n[regtest]\nincludeconf=b.conf\n";
        let more = [
            ("a.conf", "[regtest]\nrpcport=1\n"),
            ("b.conf", "[regtest]\nrpcport=2\n"),
        ];
        assert_eq!(read(text, &more).1[0].urls, ["http://127.0.0.1:2"]);
    }

    #[test]
    fn a_login_outside_a_section_is_for_the_chosen_chain_and_for_ports_that_are_named() {
        let borrowed = |text: &str| {
            let (_folder, found) = read(text, &[]);
            let borrowed = found.into_iter().filter(|access| access.borrowed);
            borrowed.map(|access| access.folder).collect::<Vec<_>>()
        };
        let login = "rpcuser=a\nrpcpassword=b\n";
        let others = ["testnet3", "testnet4", "signet", "regtest"];
        assert_eq!(borrowed(login), others);
        assert_eq!(
            borrowed(&format!("{login}rpcport=1\nrpcconnect=node.lan")),
            others
        );
        assert_eq!(
            borrowed(&format!("{login}regtest=1")),
            ["", "testnet3", "testnet4", "signet"]
        );
        let named = "rpcport=1\n[test]\nrpcport=2\n[signet]\nrpcconnect=node.lan\n\
                     [testnet4]\nrpcpassword=c";
        assert_eq!(borrowed(&format!("{login}regtest=1\n{named}")), [""; 0]);
        assert_eq!(borrowed(""), [""; 0], "cookies are each chain's own");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("bitcoin.conf");
        assert_eq!(Conf::read(folder.path()).problem, None, "there is none");
        std::fs::write(&file, "rpcport=1\n").expect("written");
        assert_eq!(Conf::read(folder.path()).problem, None);
        std::fs::write(&file, "#".repeat(MOST_BYTES as usize + 1)).expect("written");
        let told = Conf::read(folder.path()).problem.expect("it is too large");
        assert!(
            told.ends_with("bitcoin.conf was not read (it is larger than 1 MiB)"),
            "{told}"
        );
        std::fs::remove_file(&file).expect("removed");
        std::fs::create_dir(&file).expect("made");
        assert!(Conf::read(folder.path()).problem.is_some());
    }

    #[test]
    fn addresses_are_read_with_and_without_a_port() {
        for (text, urls) in [
            ("rpcconnect=10.0.0.2:9", &["http://10.0.0.2:9"][..]),
            ("rpcconnect=10.0.0.2:9\nrpcport=1", &["http://10.0.0.2:1"]),
            ("rpcbind=10.0.0.2", &["http://127.0.0.1:8332"]),
            ("rpcconnect=::1", &["http://[::1]:8332"]),
            ("rpcconnect=[::1]:9", &["http://[::1]:9"]),
            (
                "rpcallowip=10.0.0.0/8\nrpcbind=10.0.0.2\nrpcbind=0.0.0.0:9\nrpcport=8332",
                &["http://10.0.0.2:8332", "http://127.0.0.1:9"],
            ),
        ] {
            assert_eq!(read(text, &[]).1[0].urls, urls, "{text}");
        }
    }
}
