//! `satwatch doctor` beside nodes that are set up in a broken way: it names the one cause, and the
//! remedy that it gives makes the problem go away. [`super::remedies`] says which test follows
//! which remedy.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use satwatch::app;
use satwatch::bitcoind::rpc::{Method, whitelist_line};
use satwatch::remedy::Remedy;
use serde_json::json;
use tempfile::TempDir;

use crate::common::node::{Options, bitcoin_cli, free_port};
use crate::common::rpc_proxy::{BUSY, GARBAGE, Mood, NONSENSE, WARMING_UP};
use crate::common::{COIN, Client, Daemon, Node, RpcProxy, ledger, repository, wait_until};

/// `rpcauth` lines for any user with the password [`PASSWORD`].
const HASH: &str = "5a17$e41aa2075e92e0e5a68e654c615fcc581007e54b529bb34a209eb13f5ebb7cc2";
const PASSWORD: &str = "a long secret";

/// `satwatch doctor` with a home and settings of its own.
pub struct Doctor {
    home: TempDir,
    settings: Vec<(String, String)>,
    /// What the binary is run by.
    wrapper: Vec<String>,
}

/// What it said.
#[derive(Debug)]
struct Report {
    code: Option<i32>,
    text: String,
    /// Each with its remedy.
    problems: Vec<(String, String)>,
}

impl Doctor {
    /// With nothing configured but a port to listen on.
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a temporary folder can be made");
        let doctor = Self {
            home,
            settings: Vec::new(),
            wrapper: Vec::new(),
        };
        // As many as any machine allows.
        doctor
            .with("server.listen", "127.0.0.1:0")
            .with("limits.connections", 100)
    }

    pub fn beside(node: &Node) -> Self {
        Self::new()
            .with("bitcoind.rpc_url", node.rpc_url())
            .with("bitcoind.cookie_file", node.cookie_file().display())
    }

    fn beside_as(node: &Node, user: &str) -> Self {
        Self::new()
            .with("bitcoind.rpc_url", node.rpc_url())
            .with("bitcoind.rpc_user", user)
            .with("bitcoind.rpc_password", PASSWORD)
    }

    /// With a setting; an empty value takes it away.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.retain(|(known, _)| known != name);
        if !value.to_string().is_empty() {
            self.settings.push((name.to_owned(), value.to_string()));
        }
        self
    }

    fn run(&self) -> Report {
        let (mut words, binary) = (self.wrapper.clone(), env!("CARGO_BIN_EXE_satwatch"));
        words.extend([binary, "doctor"].map(str::to_owned));
        let mut command = Command::new(&words[0]);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SATWATCH"))
        {
            command.env_remove(name);
        }
        for (name, value) in &self.settings {
            let twin = name.replace('.', "__").to_uppercase();
            command.env(format!("SATWATCH__{twin}"), value);
        }
        command
            .args(&words[1..])
            .current_dir(self.home.path())
            .env("HOME", self.home.path())
            .stdin(Stdio::null());
        Report::of(&command.output().expect("cargo has built the binary"))
    }

    /// The only problem that it finds, and the remedy.
    pub fn problem(&self) -> (String, String) {
        let mut report = self.run();
        assert_eq!(report.problems.len(), 1, "{}", report.text);
        assert_eq!(report.code, Some(1), "{}", report.text);
        report.problems.remove(0)
    }

    pub fn finds_nothing(&self) {
        let report = self.run();
        assert!(report.text.ends_with("all is well\n"), "{}", report.text);
        assert_eq!(report.code, Some(0));
    }

    fn conf_folder(&self) -> PathBuf {
        let folder = self.home.path().join(".bitcoin");
        fs::create_dir_all(&folder).expect("the folder is ours");
        folder
    }
}

impl Report {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut problems: Vec<(String, String)> = Vec::new();
        for line in text.lines() {
            if let Some(what) = line.strip_prefix(" BAD  ") {
                problems.push((what.to_owned(), String::new()));
            } else if let (Some(remedy), Some(last)) =
                (line.strip_prefix("      -> "), problems.last_mut())
            {
                remedy.clone_into(&mut last.1);
            }
        }
        Self {
            code: output.status.code(),
            text,
            problems,
        }
    }

    /// The remedy of the problem that is described with these words.
    fn remedy(&self, words: &str) -> &str {
        let found = self.problems.iter().find(|(what, _)| what.contains(words));
        &found
            .unwrap_or_else(|| panic!("no problem says {words:?}:\n{}", self.text))
            .1
    }
}

/// What a remedy puts into `bitcoin.conf`.
fn line_of(remedy: &str) -> &str {
    remedy
        .rsplit_once(": ")
        .expect("the line stands behind a colon")
        .1
}

/// A node without blocks, which is enough for a diagnosis.
pub fn bare() -> Node {
    bare_with(&[])
}

fn bare_with(extra: &[&str]) -> Node {
    Node::with(Options {
        blocks: 0,
        extra: extra.iter().map(|word| (*word).to_owned()).collect(),
        ..Options::default()
    })
}

/// The same with these topics.
pub fn with_topics(topics: &'static [&'static str]) -> Node {
    Node::with(Options {
        topics,
        blocks: 0,
        ..Options::default()
    })
}

pub fn restarted(node: &Node) {
    node.stop();
    node.restart();
}

/// An address of this machine that is not a loopback one. Nothing is sent.
fn own_address() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
    socket
        .connect("198.51.100.1:9")
        .expect("this test needs a network interface besides loopback");
    let address = socket.local_addr().expect("it is connected");
    address.ip().to_string()
}

#[test]
fn case_02_an_address_that_rpcallowip_refuses_is_the_cause_that_is_named() {
    let address = own_address();
    let node = bare_with(&[&format!("-rpcbind={address}"), "-rpcbind=127.0.0.1"]);
    node.put("rpcallowip=127.0.0.1");
    restarted(&node);
    let url = node.rpc_url().replace("127.0.0.1", &address);
    let doctor = Doctor::beside(&node).with("bitcoind.rpc_url", url);
    let (what, remedy) = doctor.problem();
    assert!(
        what.contains(&format!(
            "takes no calls from the address {address} (rpcallowip)"
        )),
        "{what}"
    );
    let allow = Remedy::AllowAddress { address };
    assert_eq!(remedy, allow.to_string());
    node.put(line_of(&remedy));
    restarted(&node);
    doctor.finds_nothing();
}

#[test]
fn case_03_every_call_that_is_not_permitted_is_named_and_the_line_helps() {
    let names: Vec<_> = Method::ALL.iter().map(|method| method.name()).collect();
    let node = bare();
    for lacking in &names {
        let rest: Vec<_> = names
            .iter()
            .filter(|name| *name != lacking)
            .copied()
            .collect();
        node.put(&format!("rpcauth=no_{lacking}:{HASH}"));
        node.put(&format!("rpcwhitelist=no_{lacking}:{}", rest.join(",")));
    }
    node.put(&format!(
        "rpcauth=none:{HASH}\nrpcwhitelist=none:getblockchaininfo,getblockhash"
    ));
    restarted(&node);
    for lacking in &names {
        let user = format!("no_{lacking}");
        let (what, remedy) = Doctor::beside_as(&node, &user).problem();
        let words = format!("does not let user {user} call {lacking} (rpcwhitelist)");
        assert!(what.contains(&words), "{what}");
        let line = whitelist_line(&user);
        assert_eq!(remedy, Remedy::AllowCalls { line }.to_string());
    }
    let doctor = Doctor::beside_as(&node, "none");
    let (what, remedy) = doctor.problem();
    let refused = names
        .iter()
        .filter(|name| !["getblockchaininfo", "getblockhash"].contains(name));
    let refused: Vec<_> = refused.copied().collect();
    assert!(what.contains(&refused.join(", ")), "{what}");

    let conf = node.folder().join("bitcoin.conf");
    let text = fs::read_to_string(&conf).expect("it was written");
    let (others, _) = text
        .rsplit_once("rpcwhitelist=none:")
        .expect("the last line");
    fs::write(&conf, format!("{others}{}\n", line_of(&remedy))).expect("the folder is ours");
    restarted(&node);
    doctor.finds_nothing();
}

/// With the calls of the list alone everything works, so the list is whole.
#[test]
fn case_03_a_user_with_the_line_of_the_documents_is_enough_for_the_daemon() {
    let document = repository().join("contrib/docs/running.md");
    let text = fs::read_to_string(document).expect("it is there");
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("rpcwhitelist"))
        .collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let node = Node::with(Options {
        extra: vec![
            format!("-rpcauth=satwatch:{HASH}"),
            "-blockfilterindex=1".into(),
        ],
        ..Options::default()
    });
    lines.iter().for_each(|line| node.put(line));
    restarted(&node);
    let login = [
        ("bitcoind.rpc_user", "satwatch"),
        ("bitcoind.rpc_password", PASSWORD),
        ("monitor.reconcile_interval", "1"),
    ];
    let daemon = Daemon::with(&node, &login);
    let address = node.address();
    node.pay(&address, COIN);
    node.mine(1);
    let client = Client::subscribed(&daemon, &address);
    daemon.wait_complete(&address);
    let txid = node.pay(&address, COIN);
    client.event("new_transactions", |data| {
        data["transactions"][0]["txid"] == *txid
    });
    daemon.post(
        &format!("/scan_history/{address}"),
        &json!({"blocks_back": 50}),
    );
    client.event("scan_complete", |data| data["address"] == *address);
    let dropped = node.mine(1);
    daemon.wait_balance(&address, 2 * COIN, 0);
    node.rpc("invalidateblock", json!(dropped));
    daemon.wait_balance(&address, COIN, COIN);
    // The chain is one block lower now, and blocks that the node took back are undone with care.
    node.mine(2);
    daemon.wait_balance(&address, 2 * COIN, 0);
    assert!(!daemon.log().contains("(rpcwhitelist)"), "{}", daemon.log());
    ledger::check(&daemon);
}

#[test]
fn case_07_bitcoin_conf_is_read_as_bitcoin_cli_reads_it() {
    let node = bare_with(&[&format!("-rpcauth=shop:{HASH}")]);
    let doctor = Doctor::new();
    let folder = doctor.conf_folder();
    let elsewhere = tempfile::tempdir().expect("a temporary folder can be made");
    for data_dir in [folder.as_path(), elsewhere.path()] {
        fs::create_dir(data_dir.join("regtest")).expect("the folder is ours");
    }
    let cookies = [
        folder.join("regtest/.cookie"),
        elsewhere.path().join("regtest/.cookie"),
    ];
    let port = node
        .rpc_url()
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    let more = format!("[regtest]\nrpcport={port}\n");
    fs::write(folder.join("more.conf"), &more).expect("the folder is ours");
    let login = format!("rpcuser=shop\nrpcpassword={PASSWORD}\n");
    let (dir, cookie) = (elsewhere.path().display(), node.cookie_file());
    let cookie = cookie.display();
    let file = |lines: &[&str]| lines.join("\n");
    let (login, more) = (login.as_str(), more.as_str());
    let (dir, cookie) = (format!("datadir={dir}"), format!("rpccookiefile={cookie}"));
    let here = Some(&cookies[0]);
    let there = Some(&cookies[1]);
    // Where there is a cookie, whether the node is found, the file.
    let cases = [
        (None, true, file(&["regtest=1", login, more])),
        (
            None,
            true,
            file(&["chain=regtest", &format!("regtest.rpcport={port}"), login]),
        ),
        (None, true, file(&["regtest=1", more, login, "# regtest=0"])),
        (here, true, file(&["regtest=1", more])),
        (None, false, file(&["regtest=1", more])),
        (None, false, file(&["regtest=1", more, "[signet]", login])),
        (
            None,
            true,
            file(&["regtest=1", login, "includeconf=more.conf"]),
        ),
        (there, true, file(&["regtest=1", &dir, more])),
        (here, false, file(&["regtest=1", &dir, more])),
        (None, true, file(&["regtest=1", more, &cookie])),
        (None, true, file(&["regtest=1", more, "rpcport=1", login])),
        (
            None,
            true,
            file(&["regtest=1", &format!("rpcport={port}"), login]),
        ),
        (
            None,
            true,
            file(&[
                "regtest=1",
                login,
                &format!("regtest.rpcconnect=127.0.0.1:{port}"),
            ]),
        ),
        (
            None,
            false,
            file(&["regtest=1", more, "rpcuser=shop", "rpcpassword=wrong"]),
        ),
    ];
    for (cookie, found, text) in cases {
        fs::write(folder.join("bitcoin.conf"), &text).expect("the folder is ours");
        for place in &cookies {
            let _ = fs::remove_file(place);
        }
        if let Some(place) = cookie {
            symlink(node.cookie_file(), place).expect("the folder is ours");
        }
        let asked = Command::new(bitcoin_cli())
            .arg("getblockcount")
            .env("HOME", doctor.home.path())
            .output()
            .expect("bitcoin-cli stands beside bitcoind");
        // It does not know the first, though bitcoind does; the second is for the main chain, on
        // whose port we look too.
        let overlooks = text.contains("includeconf") || text.contains("1\nrpcport=");
        let overlooks = overlooks && !text.contains("[regtest]");
        let found_by_cli = found && !overlooks;
        assert_eq!(
            asked.status.success(),
            found_by_cli,
            "bitcoin-cli: {text}\n{asked:?}"
        );
        let report = doctor.run();
        assert_eq!(report.code == Some(0), found, "{text}\n{}", report.text);
        assert!(!report.text.contains(PASSWORD), "{}", report.text);
    }
}

/// What a login or a cookie can lack, at one node.
#[test]
fn what_is_wrong_with_credentials_is_told_apart() {
    let node = bare_with(&[&format!("-rpcauth=shop:{HASH}")]);
    let said = |doctor: &Doctor, words: &str, remedy: Remedy| {
        let (what, given) = doctor.problem();
        assert!(what.contains(words), "{what}");
        assert_eq!(given, remedy.to_string());
    };

    let doctor = Doctor::beside_as(&node, "shop").with("bitcoind.rpc_password", "wrong");
    said(
        &doctor,
        "refuses user \"shop\" with the password from the settings",
        Remedy::CorrectLogin,
    );
    doctor
        .with("bitcoind.rpc_password", PASSWORD)
        .finds_nothing();

    let doctor = Doctor::beside_as(&node, "shop").with("bitcoind.rpc_user", "");
    let (what, _) = doctor.problem();
    assert!(
        what.contains("bitcoind.rpc_password needs bitcoind.rpc_user"),
        "{what}"
    );
    doctor.with("bitcoind.rpc_user", "shop").finds_nothing();

    // A cookie of another node, and none at all.
    let stale = Doctor::beside(&node);
    let file = stale.home.path().join("cookie");
    fs::write(&file, "__cookie__:00").expect("the folder is ours");
    for (file, words) in [
        (file, "refuses the cookie in"),
        (
            PathBuf::from("nowhere"),
            "wants credentials, and its cookie cannot be read",
        ),
    ] {
        let doctor = Doctor::beside(&node).with("bitcoind.cookie_file", file.display());
        said(&doctor, words, Remedy::NameCredentials);
        let right = node.cookie_file();
        doctor
            .with("bitcoind.cookie_file", right.display())
            .finds_nothing();
    }
    Doctor::beside_as(&node, "shop").finds_nothing();

    let mut doctor = Doctor::beside(&node);
    let file = doctor.home.path().join("cookie");
    fs::copy(node.cookie_file(), &file).expect("the node runs");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("it is ours");
    // root may read everything, unless it is without its capabilities.
    let nobody = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"].map(str::to_owned);
    let wrapper = match fs::read(&file) {
        Ok(_) => nobody.to_vec(),
        Err(_) => Vec::new(),
    };
    doctor.wrapper.clone_from(&wrapper);
    let doctor = doctor.with("bitcoind.cookie_file", file.display());
    said(
        &doctor,
        "this user may not read bitcoind's cookie",
        Remedy::OwnLogin,
    );
    doctor
        .with("bitcoind.cookie_file", "")
        .with("bitcoind.rpc_user", "shop")
        .with("bitcoind.rpc_password", PASSWORD)
        .finds_nothing();
    // As the user that bitcoind runs as.
    Doctor::beside(&node).finds_nothing();

    // The same of a cookie that is looked for: of the chosen chain, and of one that is asked first.
    let mut doctor = Doctor::new();
    doctor.wrapper = wrapper;
    let folder = doctor.conf_folder();
    fs::create_dir(folder.join("regtest")).expect("the folder is ours");
    for cookie in [".cookie", "regtest/.cookie"].map(|name| folder.join(name)) {
        fs::copy(node.cookie_file(), &cookie).expect("the node runs");
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o000)).expect("it is ours");
    }
    let write = |text: &str| {
        fs::write(folder.join("bitcoin.conf"), text).expect("the folder is ours");
    };
    let url = node.rpc_url();
    let port = url.rsplit(':').next().expect("a port");
    write(&format!("regtest=1\n[regtest]\nrpcport={port}\n"));
    let forbidden = "this user may not read bitcoind's cookie";
    said(&doctor, forbidden, Remedy::OwnLogin);
    write("");
    let doctor = doctor.with("bitcoind.rpc_url", &url);
    said(&doctor, forbidden, Remedy::OwnLogin);
    write("[main]\nrpcuser=shop\nrpcpassword=wrong\n");
    said(
        &doctor,
        "refuses user \"shop\" with the rpcpassword in",
        Remedy::RestartForLogin {
            conf: folder.join("bitcoin.conf"),
        },
    );
}

#[test]
fn the_first_node_that_answers_is_the_one_that_is_meant() {
    let node = bare_with(&[&format!("-rpcauth=shop:{HASH}")]);
    let proxy = RpcProxy::of(&node);
    let port = |url: &str| url.rsplit(':').next().expect("a port").to_owned();
    let doctor = Doctor::new();
    let text = format!(
        "rpcuser=shop\nrpcpassword={PASSWORD}\nrpcport={}\n[regtest]\nrpcport={}\n",
        port(&proxy.url()),
        port(&node.rpc_url())
    );
    fs::write(doctor.conf_folder().join("bitcoin.conf"), text).expect("the folder is ours");
    proxy.set(WARMING_UP);
    let (what, remedy) = doctor.problem();
    assert!(what.contains("is starting (Loading block index"), "{what}");
    assert_eq!(remedy, Remedy::Wait.to_string());
    // Nobody is there: the next place is asked.
    proxy.set(Mood::Refuse);
    doctor.finds_nothing();
}

#[test]
fn a_node_that_nobody_finds_is_to_be_started_or_named() {
    let node = bare_with(&[&format!("-rpcauth=shop:{HASH}")]);
    let closed = format!("http://127.0.0.1:{}", free_port());
    let somewhere = Doctor::beside_as(&node, "shop").with("bitcoind.rpc_url", &closed);
    let (what, remedy) = somewhere.problem();
    assert!(
        what.contains("does not answer at") && what.contains("refused"),
        "{what}"
    );
    assert_eq!(remedy, Remedy::StartServer.to_string());
    somewhere
        .with("bitcoind.rpc_url", node.rpc_url())
        .finds_nothing();

    node.stop();
    let words = ["there is no cookie", "no bitcoind found"];
    for (doctor, words) in [Doctor::beside(&node), Doctor::new()].iter().zip(words) {
        let (what, remedy) = doctor.problem();
        assert!(what.contains(words), "{what}");
        assert_eq!(remedy, Remedy::StartOrNameServer.to_string());
    }
    let login = Doctor::beside_as(&node, "shop");
    assert_eq!(login.problem().1, Remedy::StartServer.to_string());
    node.restart();
    login.finds_nothing();
    Doctor::beside(&node).finds_nothing();
    Doctor::new()
        .with("bitcoind.rpc_url", node.rpc_url())
        .with("bitcoind.cookie_file", node.cookie_file().display())
        .finds_nothing();
}

/// bitcoind and satwatch read one file, which was changed since bitcoind was started.
#[test]
fn case_07_a_login_in_bitcoin_conf_that_is_newer_than_the_node_helps_after_its_restart() {
    let node = bare();
    let doctor = Doctor::new();
    symlink(node.folder(), doctor.home.path().join(".bitcoin")).expect("the folder is ours");
    let port = node
        .rpc_url()
        .rsplit(':')
        .next()
        .expect("a port")
        .to_owned();
    node.put(&format!(
        "[regtest]\nrpcport={port}\nrpcuser=shop\nrpcpassword={PASSWORD}"
    ));
    let (what, remedy) = doctor.problem();
    let conf = doctor.home.path().join(".bitcoin/bitcoin.conf");
    assert!(
        what.contains("refuses user \"shop\" with the rpcpassword in"),
        "{what}"
    );
    assert_eq!(remedy, Remedy::RestartForLogin { conf }.to_string());
    assert!(!what.contains(PASSWORD), "{what}");
    restarted(&node);
    assert!(
        !node.cookie_file().exists(),
        "it has its login from the file"
    );
    doctor.finds_nothing();
}

#[test]
fn topics_are_published_after_the_lines_that_it_gives() {
    let node = with_topics(&[]);
    // The default port may be another node's.
    let endpoint = format!("tcp://127.0.0.1:{}", free_port());
    let doctor = Doctor::beside(&node);
    let report = doctor.run();
    assert_eq!(report.problems.len(), 3, "{}", report.text);
    for topic in ["rawtx", "rawblock", "sequence"] {
        let remedy = report.remedy(&format!("does not publish {topic} over ZMQ"));
        let line = line_of(remedy);
        let default = "tcp://127.0.0.1:28332".to_owned();
        let publish = Remedy::Publish {
            topic,
            endpoint: default.clone(),
        };
        assert_eq!(remedy, publish.to_string());
        node.put(&line.replace(&default, &endpoint));
    }
    restarted(&node);
    // Each topic that bounds the queue of its address.
    for _ in 0..3 {
        let report = doctor.run();
        if report.problems.is_empty() {
            break;
        }
        let remedy = report
            .remedy("bitcoind queues only 1000 ZMQ messages")
            .to_owned();
        assert!(remedy.ends_with("hwm=0"), "{remedy}");
        node.put(line_of(&remedy));
        restarted(&node);
    }
    doctor.finds_nothing();

    // One topic is missing beside others that are bound to all addresses.
    let text = fs::read_to_string(node.folder().join("bitcoin.conf")).expect("it was written");
    let everywhere = endpoint.replace("127.0.0.1", "0.0.0.0");
    let without: String = text
        .lines()
        .filter(|line| !line.starts_with("zmqpubrawtx="))
        .map(|line| line.replace(&endpoint, &everywhere) + "\n")
        .collect();
    fs::write(node.folder().join("bitcoin.conf"), without).expect("the folder is ours");
    restarted(&node);
    let (_, remedy) = doctor.problem();
    node.put(line_of(&remedy));
    restarted(&node);
    doctor.finds_nothing();
}

#[test]
fn endpoints_of_the_settings_are_tried() {
    let node = bare();
    let closed = format!("tcp://127.0.0.1:{}", free_port());
    let doctor = Doctor::beside(&node).with("bitcoind.zmq_sequence", &closed);
    let report = doctor.run();
    assert_eq!(report.problems.len(), 2, "{}", report.text);
    assert_eq!(
        report.remedy("is not where bitcoind says"),
        Remedy::CorrectEndpoint { topic: "sequence" }.to_string()
    );
    assert_eq!(
        report.remedy("no publisher answers at"),
        Remedy::ReachEndpoint.to_string()
    );
    let doctor = doctor.with("bitcoind.zmq_sequence", "");
    doctor.finds_nothing();
    doctor
        .with("bitcoind.zmq_rawtx", node.zmq_endpoint())
        .with("bitcoind.zmq_rawblock", node.zmq_endpoint())
        .with("bitcoind.zmq_sequence", node.zmq_endpoint())
        .finds_nothing();
}

#[test]
fn what_the_node_answers_instead_of_an_answer_is_told_apart() {
    let node = bare();
    let proxy = RpcProxy::of(&node);
    let doctor = Doctor::beside(&node).with("bitcoind.rpc_url", proxy.url());
    let unknown = Mood::Answer(
        404,
        r#"{"result":null,"error":{"code":-32601,"message":"Method not found"},"id":0}"#,
    );
    for (method, mood, words, remedy) in [
        (
            "",
            WARMING_UP,
            "is starting (Loading block index",
            Remedy::Wait,
        ),
        (
            "",
            GARBAGE,
            "answered getblockchaininfo with HTTP 200 without JSON",
            Remedy::NameRpcPort,
        ),
        (
            "",
            NONSENSE,
            "answer to getblockchaininfo is not understood",
            Remedy::UpdateBitcoind,
        ),
        (
            "getzmqnotifications",
            unknown,
            "cannot publish anything over ZMQ",
            Remedy::PublishingBuild,
        ),
    ] {
        match method {
            "" => proxy.set(mood),
            method => proxy.set_for(method, mood),
        }
        let (what, given) = doctor.problem();
        assert!(what.contains(words), "{what}");
        assert_eq!(given, remedy.to_string());
        if remedy == Remedy::NameRpcPort {
            // What answers there stays what it is.
            Doctor::beside(&node).finds_nothing();
        }
        proxy.set(Mood::Pass);
        doctor.finds_nothing();
    }
    // A call that an older node does not have, and calls that nobody answers any more.
    proxy.set_for("scanblocks", unknown);
    let report = doctor.run();
    assert!(
        report.text.contains("permits 14 of the calls") && report.text.contains("know scanblocks"),
        "{}",
        report.text
    );
    assert_eq!(report.code, Some(0), "{}", report.text);
    for method in ["getindexinfo", "getmempoolentry", "getrawmempool"] {
        proxy.set_for(method, BUSY);
    }
    assert_eq!(doctor.problem().1, Remedy::EnlargeWorkQueue.to_string());
    proxy.set(Mood::Pass);
    // Two calls that are not permitted are one problem.
    proxy.set_for("getblock", Mood::NotPermitted);
    proxy.set_for("scantxoutset", Mood::NotPermitted);
    let (what, _) = doctor.problem();
    assert!(
        what.contains("call getblock, scantxoutset (rpcwhitelist)"),
        "{what}"
    );
}

/// Also when the test fails, so that nobody is waited for.
struct SetAtTheEnd<'a>(&'a AtomicBool);

impl Drop for SetAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The same load overflows the queue that a node has by itself (64 calls), and not the larger one.
#[test]
fn a_work_queue_that_overflows_is_to_be_enlarged() {
    let node = bare_with(&["-rpcthreads=2"]);
    let doctor = Doctor::beside(&node);
    let during_calls = |look: &dyn Fn()| {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..120 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        if node.try_rpc("waitfornewblock", json!([5])).is_err() {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                    }
                });
            }
            let _over = SetAtTheEnd(&is_over);
            look();
        });
    };
    let remedy = Remedy::EnlargeWorkQueue.to_string();
    during_calls(&|| {
        wait_until("it finds the queue full", || {
            let problems = doctor.run().problems.into_iter();
            let mut full = problems.filter(|(what, _)| what.contains("has no room for get"));
            full.find(|(_, given)| *given == remedy)
        });
    });
    node.put(line_of(&remedy));
    restarted(&node);
    during_calls(&|| doctor.finds_nothing());
}

#[test]
fn too_few_open_files_for_the_connections_are_to_be_more_or_the_connections_fewer() {
    let node = bare();
    let of_limit = |files: usize| {
        let mut doctor = Doctor::beside(&node).with("limits.connections", 1000);
        let script = format!("ulimit -n {files}; exec \"$@\"");
        doctor.wrapper = ["bash", "-c", &script, "bash"].map(str::to_owned).to_vec();
        doctor
    };
    let (to, room) = (1512, 450);
    let remedy = Remedy::RaiseHardLimit { to, room }.to_string();
    let text = of_limit(900).run().text;
    assert!(text.contains(&remedy), "{text}");
    for doctor in [of_limit(to), of_limit(900).with("limits.connections", room)] {
        let text = doctor.run().text;
        assert!(
            text.contains("open files: enough for limits.connections"),
            "{text}"
        );
    }
}

#[test]
fn what_is_wrong_with_settings_is_written_as_they_say() {
    let node = bare();
    let doctor = Doctor::beside(&node).with("server.listen", "0.0.0.0:0");
    let (what, _) = doctor.problem();
    let remedy = Remedy::TokenOrLoopback { port: 0 }.to_string();
    assert!(what.ends_with(&remedy), "{what}");
    let file = doctor.home.path().join("settings.toml");
    let (_, line) = remedy.split_once("server.").expect("it names the setting");
    fs::write(&file, format!("[server]\n{line}\n")).expect("the folder is ours");
    doctor.with("server.listen", "").finds_nothing();

    let doctor = Doctor::beside(&node).with("server.listen", "no-such-host.invalid:0");
    let (what, _) = doctor.problem();
    let remedy = Remedy::ListenOnLoopback { port: 0 }.to_string();
    assert!(what.contains(&remedy), "{what}");
    doctor.with("server.listen", "127.0.0.1:0").finds_nothing();

    let doctor = Doctor::beside(&node);
    let file = doctor.home.path().join("settings.toml");
    fs::write(&file, "monitor = 5\n").expect("the folder is ours");
    let (what, _) = doctor.problem();
    assert!(what.ends_with("monitor: expected a section"), "{what}");
    fs::write(&file, "[monitor]\nreconcile_interval = 5\n").expect("the folder is ours");
    doctor.finds_nothing();

    let mut doctor = Doctor::beside(&node);
    doctor.wrapper = ["env", "SATWATCH_MONITOR_AUTOSTART=true"]
        .map(str::to_owned)
        .to_vec();
    let (what, _) = doctor.problem();
    let (_, variable) = what.rsplit_once("write ").expect("it says what to write");
    doctor.wrapper[1] = format!("{variable}=true");
    doctor.finds_nothing();

    let doctor = Doctor::beside(&node).with("store.path", "~other/data");
    let (what, _) = doctor.problem();
    let remedy = Remedy::WholePathOrName.to_string();
    assert!(what.ends_with(&remedy), "{what}");
    let whole = doctor.home.path().join("data").display().to_string();
    for good in [whole.as_str(), "./~other/data"] {
        let mut doctor = Doctor::beside(&node).with("store.path", good);
        doctor.finds_nothing();
        // Without a home, `~` stands for nothing.
        doctor.wrapper = ["env", "-u", "HOME"].map(str::to_owned).to_vec();
        doctor.finds_nothing();
        let (what, _) = doctor.with("store.path", "~/data").problem();
        assert!(what.ends_with(&remedy), "{what}");
    }
}

#[test]
fn case_11_a_node_that_nothing_reaches_is_named_and_each_remedy_helps() {
    let other = Node::with(Options {
        p2p: true,
        blocks: 0,
        ..Options::default()
    });
    let node = bare();
    node.put("blocksonly=1");
    restarted(&node);
    let doctor = Doctor::beside(&node);
    let (what, remedy) = doctor.problem();
    assert!(
        what.contains("takes no transactions from other nodes (blocksonly)"),
        "{what}"
    );
    assert_eq!(remedy, Remedy::RelayTransactions.to_string());
    fs::write(node.folder().join("bitcoin.conf"), "").expect("the folder is ours");
    restarted(&node);
    doctor.finds_nothing();

    node.rpc("setnetworkactive", json!([false]));
    let (what, remedy) = doctor.problem();
    assert!(what.contains("network is switched off"), "{what}");
    assert_eq!(remedy, Remedy::SwitchNetworkOn.to_string());
    node.rpc("setnetworkactive", json!([true]));
    doctor.finds_nothing();

    // On regtest a node may be alone; on the main chain it may not.
    let proxy = RpcProxy::of(&node);
    proxy.set(Mood::Chain("main"));
    let doctor = Doctor::beside(&node).with("bitcoind.rpc_url", proxy.url());
    let (what, remedy) = doctor.problem();
    assert!(
        what.contains("no connection to another node") && what.contains("days old"),
        "{what}"
    );
    assert_eq!(remedy, Remedy::NamePeer.to_string());
    node.rpc("addnode", json!([other.p2p_address(), "onetry"]));
    wait_until("they are connected", || {
        (node.rpc("getconnectioncount", json!([])) == 1).then_some(())
    });
    let (what, remedy) = doctor.problem();
    assert!(what.contains("looks for newer blocks"), "{what}");
    assert_eq!(remedy, Remedy::Wait.to_string());
    other.mine_to_nobody(1);
    wait_until("the block has come", || (node.height() == 1).then_some(()));
    doctor.finds_nothing();

    let daemon = Daemon::start(&node);
    let told = |status: &serde_json::Value| {
        let node = &status["node"];
        (node["connections"].clone(), node["network_active"].clone())
    };
    let status = daemon.get("/status").json;
    assert_eq!(told(&status), (json!(1), json!(true)), "{status}");
    assert_eq!(status["node"]["relays_transactions"], true);
    let age = status["node"]["tip_age"].as_f64().expect("it is known");
    assert!((0.0..600.0).contains(&age), "{age}");
    let metrics = daemon.get("/metrics").text;
    assert!(
        metrics.contains("satwatch_node_connections 1\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("satwatch_node_tip_age_seconds "),
        "{metrics}"
    );
}

#[test]
fn a_block_from_the_future_is_the_clocks_fault() {
    let node = Node::start();
    let now = SystemTime::UNIX_EPOCH.elapsed();
    let ahead = now.expect("the clock is right").as_secs() + 5 * 3600 + 60;
    node.rpc("setmocktime", json!([ahead]));
    let block = node.mine(1);
    let doctor = Doctor::beside(&node);
    let (what, remedy) = doctor.problem();
    assert!(what.contains("5 hours behind the newest block"), "{what}");
    assert_eq!(remedy, Remedy::SetClock.to_string());
    // A test must not set the machine's clock: the block goes instead.
    node.rpc("setmocktime", json!([0]));
    node.rpc("invalidateblock", json!(block));
    doctor.finds_nothing();
}

/// A chain on which nobody mines: the node calls it initial download for ever.
#[test]
fn a_private_chain_that_rests_is_followed_and_a_public_one_is_not() {
    let signet = |challenge: &[&str]| {
        Node::with(Options {
            chain: "signet",
            blocks: 0,
            extra: challenge.iter().map(|word| (*word).to_owned()).collect(),
            ..Options::default()
        })
    };
    let private = signet(&["-signetchallenge=51"]);
    assert_eq!(
        private.rpc("getblockchaininfo", json!([]))["initialblockdownload"],
        true
    );
    Doctor::beside(&private).finds_nothing();
    let daemon = Daemon::start(&private);
    assert_eq!(daemon.get("/status").json["tip"]["height"], 0);

    let public = signet(&[]);
    let (what, remedy) = Doctor::beside(&public).problem();
    assert!(what.contains("no connection to another node"), "{what}");
    assert_eq!(remedy, Remedy::NamePeer.to_string());
    let daemon = Daemon::launched(&public, &[]);
    wait_until("it says what it waits for", || {
        let answer = daemon.get("/health/ready");
        (answer.status == 503 && answer.text.contains("no connection to another node"))
            .then_some(())
    });
}

#[test]
fn a_regtest_chain_that_was_left_alone_is_followed() {
    let node = Node::start();
    node.stop();
    let now = SystemTime::UNIX_EPOCH.elapsed();
    let later = now.expect("the clock is right").as_secs() + 3 * 86_400;
    node.restart_with(&[&format!("-mocktime={later}")]);
    assert_eq!(
        node.rpc("getblockchaininfo", json!([]))["initialblockdownload"],
        true
    );
    let daemon = Daemon::start(&node);
    let address = node.address();
    daemon.watch(&address);
    node.pay(&address, COIN);
    daemon.wait_balance(&address, 0, COIN);
    node.mine(1);
    daemon.wait_balance(&address, COIN, 0);
}

#[test]
fn case_17_too_many_open_files_are_the_cause_that_is_named() {
    let node = bare();
    let mut doctor = Doctor::beside(&node);
    let mut limit = |files: u32| {
        let script = format!("ulimit -n {files}; exec \"$@\"");
        doctor.wrapper = ["bash", "-c", &script, "bash"].map(str::to_owned).to_vec();
        doctor.run()
    };
    let few: Vec<_> = (8..64).map(&mut limit).collect();
    let told = few.iter().find_map(|report| {
        let found =
            |(what, _): &&(String, String)| what.contains("satwatch has too many open files");
        report.problems.iter().find(found)
    });
    let (_, remedy) = told.expect("at some limit the node cannot be connected to");
    assert_eq!(*remedy, Remedy::RaiseFileLimit.to_string());
    let others = [
        Remedy::StartServer,
        Remedy::StartOrNameServer,
        Remedy::NameCredentials,
        Remedy::ReachEndpoint,
        Remedy::FreePort {
            setting: app::LISTEN,
        },
    ]
    .map(|remedy| remedy.to_string());
    for report in few {
        let wrong = report.problems.iter().find(|(_, it)| others.contains(it));
        assert_eq!(wrong, None, "{}", report.text);
    }
    assert_eq!(limit(1024).code, Some(0));
    // With fewer clients than are allowed the daemon works.
    let report = doctor.with("limits.connections", 10_000).run();
    assert!(
        report.text.contains("leave room for 512"),
        "{}",
        report.text
    );
    assert_eq!(report.code, Some(0), "{}", report.text);
}

/// Name, content and time of change of all files.
fn state_of(folder: &Path) -> Vec<(PathBuf, Vec<u8>, SystemTime)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is ours") {
        let path = entry.expect("the folder is ours").path();
        let changed = fs::metadata(&path).and_then(|file| file.modified());
        let changed = changed.expect("it is ours");
        if path.is_dir() {
            files.push((path.clone(), Vec::new(), changed));
            files.extend(state_of(&path));
        } else {
            files.push((path.clone(), fs::read(&path).expect("it is ours"), changed));
        }
    }
    files.sort();
    files
}

#[test]
fn case_22_a_diagnosis_changes_nothing_in_a_store_of_an_older_format() {
    let node = bare();
    let mut daemon = Daemon::start(&node);
    daemon.stop();
    let store = daemon.store();
    let doctor = Doctor::beside(&node).with("store.path", store.display());
    let known = state_of(&store);
    doctor.finds_nothing();
    assert_eq!(state_of(&store), known);

    // As an earlier release left it: the second format had another identity of its log.
    {
        let (options, db) = (rocksdb::Options::default(), store.join("db"));
        let families = rocksdb::DB::list_cf(&options, &db).expect("it is a database");
        let raw = rocksdb::DB::open_cf(&options, &db, families).expect("it is a database");
        let meta = raw.cf_handle("meta").expect("it has rows");
        let log_id = [&[1, 16][..], b"0123456789abcdef"].concat();
        raw.put_cf(meta, "format", [1, 2, 0, 0, 0])
            .and_then(|()| raw.put_cf(meta, "log_id", log_id))
            .and_then(|()| raw.put_cf(meta, "counts", [&[1][..], &[0; 24]].concat()))
            .and_then(|()| raw.delete_cf(meta, "starts"))
            .expect("written");
    }
    let known = state_of(&store);
    let report = doctor.run();
    assert!(
        report.text.contains("it has format 2, and the next start"),
        "{}",
        report.text
    );
    assert_eq!(report.code, Some(0), "{}", report.text);
    assert!(state_of(&store) == known, "nothing has changed");

    // A copy may be without it.
    fs::remove_file(store.join("lock")).expect("it is ours");
    let names = || -> Vec<_> {
        let files = state_of(&store).into_iter();
        files.map(|(path, ..)| path).collect()
    };
    let known = names();
    doctor.finds_nothing();
    assert_eq!(names(), known);

    daemon.restart();
    assert!(
        doctor
            .run()
            .text
            .contains("is in use by a running satwatch (process")
    );
}

#[test]
fn settings_that_are_gone_are_named_and_are_no_problem() {
    let node = bare();
    let doctor = Doctor::beside(&node).with("limits.audit_interval", 3);
    doctor.finds_nothing();
    let text = doctor.run().text;
    let gone = "SATWATCH__LIMITS__AUDIT_INTERVAL: limits.audit_interval is no longer needed";
    assert!(text.contains(gone), "{text}");
}

#[test]
fn a_folder_that_cannot_be_written_and_a_port_that_is_taken_are_to_be_changed() {
    let node = bare();
    let doctor = Doctor::beside(&node);
    let file = doctor.home.path().join("file");
    fs::write(&file, "").expect("the folder is ours");
    let doctor = doctor.with("store.path", file.join("data").display());
    assert_eq!(doctor.problem().1, Remedy::WritableFolder.to_string());
    let doctor = doctor.with("store.path", "data");
    doctor.finds_nothing();

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = taken.local_addr().expect("an address");
    let doctor = doctor.with("server.listen", listen);
    assert_eq!(
        doctor.problem().1,
        Remedy::FreePort {
            setting: app::LISTEN
        }
        .to_string()
    );
    Doctor::beside(&node)
        .with("server.listen", "127.0.0.1:0")
        .finds_nothing();
    drop(taken);
    doctor.finds_nothing();

    let first: u16 = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024);
    if first > 1 {
        let mut doctor = doctor.with("server.listen", format!("127.0.0.1:{}", first - 1));
        doctor.wrapper = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(
            doctor.problem().1,
            Remedy::OpenPort {
                setting: app::LISTEN
            }
            .to_string()
        );
        doctor.with("server.listen", "127.0.0.1:0").finds_nothing();
    }
}
