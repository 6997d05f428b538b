//! Every remedy is followed by a test: the tables here do not compile while a remedy or an error of
//! the store is missing in them. And what else names a setting names one that there is.
//!
//! Covered are: [`Remedy`] (node, settings, port, limits of the machine) and [`StoreError`] by the
//! tables here; every other text in `src` that tells people to do something by the table in
//! [`super::advice`]; of the documents the lines for `bitcoin.conf` (here and in
//! `src/bitcoind/rpc/method.rs`), the proxies (`proxies.rs`), the example programs (`consumers.rs`,
//! `webhooks.rs`, `clients/`) and the commands (`documents.rs`); all examples in `settings.toml`
//! (`tests/command_line.rs`).
//!
//! Not covered are: the two remedies that are marked so below; and texts that say what is wrong, or
//! what a value must be, without telling anybody to do something.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bitcoin::Network;
use satwatch::remedy::Remedy;
use satwatch::store::{ChainInfo, StoreError};
use serde_json::json;

use super::doctor::{Doctor, bare, restarted};
use super::literals::{files, said};
use crate::common::node::{Options, free_port};
use crate::common::rpc_proxy::Mood;
use crate::common::{COIN, Daemon, Node, RpcProxy, repository, wait_until};

/// `all`: the tests that follow the remedies of these values. A value without one does not compile.
macro_rules! followed {
    ($all:ident, $values:ty, $($value:pat => $test:literal,)*) => {
        const $all: &[&str] = &[$($test,)*];
        const _: fn(&$values) = |value| match value {
            $($value => {})*
        };
    };
}

followed! { REMEDIES, Remedy,
    Remedy::AllowAddress { .. } => "case_02_an_address_that_rpcallowip_refuses_is_the_cause_that_is_named",
    Remedy::AllowCalls { .. } => "case_03_every_call_that_is_not_permitted_is_named_and_the_line_helps",
    Remedy::Publish { .. } | Remedy::KeepMessages { .. } => "topics_are_published_after_the_lines_that_it_gives",
    Remedy::RelayTransactions | Remedy::SwitchNetworkOn | Remedy::NamePeer => "case_11_a_node_that_nothing_reaches_is_named_and_each_remedy_helps",
    Remedy::Wait | Remedy::NameRpcPort => "what_the_node_answers_instead_of_an_answer_is_told_apart",
    // These cannot be followed here: no bitcoind older than 22 or without ZMQ is at hand. The test
    // is that they are given, and that nothing is found once the node answers as others do.
    Remedy::PublishingBuild | Remedy::UpdateBitcoind => "what_the_node_answers_instead_of_an_answer_is_told_apart",
    Remedy::EnlargeWorkQueue => "a_work_queue_that_overflows_is_to_be_enlarged",
    Remedy::StartServer | Remedy::StartOrNameServer => "a_node_that_nobody_finds_is_to_be_started_or_named",
    Remedy::NameCredentials | Remedy::CorrectLogin | Remedy::OwnLogin => "what_is_wrong_with_credentials_is_told_apart",
    Remedy::RestartForLogin { .. } => "case_07_a_login_in_bitcoin_conf_that_is_newer_than_the_node_helps_after_its_restart",
    Remedy::SetClock => "a_block_from_the_future_is_the_clocks_fault",
    Remedy::RaiseFileLimit => "case_17_too_many_open_files_are_the_cause_that_is_named",
    Remedy::ScanFromZero => "a_node_that_does_not_tell_what_is_spent_is_scanned_from_height_0",
    Remedy::WatchFromNow => "an_address_whose_outputs_are_too_many_is_named_and_holds_up_no_other",
    Remedy::WatchDescriptorFromNow { .. } => "a_wallet_goes_on_without_an_address_whose_outputs_are_too_many",
    Remedy::CorrectEndpoint { .. } | Remedy::ReachEndpoint => "endpoints_of_the_settings_are_tried",
    Remedy::OtherNodeOrStore => "another_node_or_store_helps_when_they_do_not_fit",
    Remedy::BeginAnew => "a_daemon_that_was_down_for_longer_than_a_pruned_node_remembers_says_what_to_do",
    Remedy::RaiseHardLimit { .. } => "too_few_open_files_for_the_connections_are_to_be_more_or_the_connections_fewer",
    Remedy::ListenOnLoopback { .. } | Remedy::WholePathOrName => "what_is_wrong_with_settings_is_written_as_they_say",
    Remedy::NamePair | Remedy::FitPair | Remedy::RenewCertificate | Remedy::CloseFile { .. } | Remedy::OpenKey { .. } => "what_is_wrong_with_the_files_of_tls_is_told_apart_and_each_remedy_helps",
    Remedy::LetRead { .. } => "a_key_that_may_not_be_read_is_to_be_readable",
    Remedy::TokenOrLoopback { .. } => "others_are_listened_to_once_there_is_a_token",
    Remedy::BeginTokensAnew => "a_lost_or_damaged_file_is_put_back_or_begun_anew",
    Remedy::GiveTo { .. } => "files_of_another_user_are_named_and_given_to_who_runs_satwatch",
    Remedy::AnotherToken => "a_token_that_ends_soon_is_said_until_there_is_another_one",
    Remedy::AcceptTokens => "an_older_file_is_refused_until_it_is_accepted",
    Remedy::GenerateFirstToken => "the_first_token_comes_from_a_file_once_a_store",
    // Its second half is for the machine's /etc/hosts; the test takes a name that stands there.
    Remedy::LoopbackName { .. } => "case_19_without_tokens_every_address_of_a_name_must_be_loopback",
    Remedy::NameUpstream | Remedy::NameBus => "an_edge_without_a_primary_or_a_bus_says_which_setting_is_missing",
    Remedy::NameEdgeToken => "an_edge_needs_a_token_where_the_primary_asks_for_one",
    Remedy::StartPrimary => "an_edge_waits_for_its_primary_for_redis_and_for_the_stream",
    Remedy::TrustPrimary => "a_primary_is_asked_over_tls_once_its_certificate_is_trusted",
    Remedy::SameVersion => "an_edge_of_another_version_does_not_start_and_a_running_one_goes_on",
    Remedy::RestartEdge => "an_edge_whose_primary_is_on_another_network_ends_and_serves_that_when_it_is_restarted",
    Remedy::TokenAtPrimary => "an_edge_that_others_reach_has_a_primary_with_tokens",
    Remedy::StartDaemon | Remedy::NameDaemon | Remedy::GiveToken => "what_watch_says_of_a_daemon_that_it_cannot_follow_helps",
    Remedy::TrustDaemon => "watch_trusts_the_certificate_that_it_is_given",
    Remedy::WritableFolder | Remedy::FreePort { .. } | Remedy::OpenPort { .. } => "a_folder_that_cannot_be_written_and_a_port_that_is_taken_are_to_be_changed",
    Remedy::ReachRedis | Remedy::UpdateRedis | Remedy::OtherBusStream | Remedy::NameSentinelMaster => "what_is_no_redis_of_ours_is_told_apart_and_the_remedies_help",
    Remedy::TrustRedis => "tls_is_spoken_and_a_certificate_that_is_not_trusted_is_the_cause_that_is_named",
    Remedy::CorrectBusLogin | Remedy::AllowBus { .. } => "a_wrong_password_and_a_user_who_may_not_are_told_apart_and_the_remedies_help",
    Remedy::NameRedisMaster | Remedy::RedisMemory => "a_full_redis_and_a_replica_are_told_and_the_remedies_help",
    Remedy::StartReplicas => "a_master_that_is_to_have_replicas_writes_with_them_alone",
    Remedy::OneBusWriter => "a_second_daemon_waits_until_the_first_has_stopped",
}

followed! { STORE_ERRORS, StoreError,
    StoreError::Io { .. } => "a_disk_that_fills_up_under_a_living_daemon_ends_it_and_nothing_is_told_twice",
    StoreError::Corrupt { .. } | StoreError::Damaged { .. } => "a_damaged_folder_is_replaced_by_a_copy_or_moved_away",
    StoreError::Foreign { .. } | StoreError::Format { .. } | StoreError::WrongChain { .. } | StoreError::InUse { .. } => "a_folder_that_is_not_for_us_is_left_for_another_one",
    StoreError::Stopped => "sigterm_while_a_folder_of_an_earlier_format_is_brought_up_ends_it_and_the_next_start_goes_on",
    StoreError::UnknownChain { .. } => "a_daemon_that_starts_before_its_node_follows_it_when_it_comes",
}

#[test]
fn every_remedy_is_followed_by_a_test_that_there_is() {
    let tests = [files("tests", "rs"), files("src", "rs")].concat();
    for name in REMEDIES
        .iter()
        .chain(STORE_ERRORS)
        .copied()
        .chain(super::advice::tests())
    {
        let head = format!("fn {name}()");
        assert!(tests.iter().any(|(_, text)| text.contains(&head)), "{name}");
    }
}

/// `section.name` of every setting: `settings.toml` lists them all, as a test of `config` holds.
fn settings() -> BTreeSet<String> {
    let file = fs::read_to_string(repository().join("settings.toml")).expect("it is there");
    let (mut section, mut settings) = (String::new(), BTreeSet::new());
    for line in file.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((name, _)) = line.trim_start_matches("# ").split_once(" = ")
            && !name.contains(' ')
        {
            settings.insert(format!("{section}.{name}"));
        }
    }
    settings
}

/// `section.name` of our settings, wherever they are named.
fn named_settings(settings: &BTreeSet<String>, text: &str) -> BTreeSet<String> {
    let sections: BTreeSet<_> = settings
        .iter()
        .filter_map(|setting| setting.split('.').next())
        .collect();
    let part = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.' || c.is_ascii_digit();
    let words = text
        .split(|c: char| !part(c))
        .map(|word| word.trim_matches('.'));
    words
        .filter(|word| {
            let (section, name) = word.split_once('.').unwrap_or_default();
            sections.contains(section) && name.contains(|c: char| c.is_ascii_lowercase())
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_setting_that_is_named_anywhere_is_one() {
    let mut texts: Vec<(PathBuf, String)> = [
        "README.md",
        "settings.toml",
        "contrib/docs/api.md",
        "contrib/docs/guarantees.md",
        "contrib/docs/running.md",
        "contrib/docs/troubleshooting.md",
        "contrib/docs/upgrading.md",
        "contrib/docs/bus.md",
    ]
    .map(|name| {
        (
            Path::new(name).to_owned(),
            fs::read_to_string(repository().join(name)).expect("it is there"),
        )
    })
    .into();
    // Names of fields and of files are no settings, so only texts with a blank are looked at.
    texts.extend(said().into_iter().filter(|(_, text)| text.contains(' ')));
    let settings = settings();
    let mut named = BTreeSet::new();
    let mut wrong = Vec::new();
    for (path, text) in texts {
        for name in named_settings(&settings, &text) {
            let is_file = ["rs", "toml", "json", "js", "py", "sh", "md"]
                .iter()
                .any(|end| name.ends_with(&format!(".{end}")));
            // `bitcoind.zmq_{topic}`.
            let goes_on = name.ends_with('_');
            // `[server.tls]`.
            let section = format!("{name}.");
            let is_section = settings.iter().any(|it| it.starts_with(&section));
            if !is_file && !goes_on && !is_section && !settings.contains(&name) {
                wrong.push(format!("{}: {name}", path.display()));
            }
            named.insert(name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        named.contains("bitcoind.rpc_url") && named.len() > 20,
        "{named:?}"
    );
}

/// What the daemon says when it cannot start.
fn refusal(daemon: &Daemon) -> String {
    let output = daemon.second();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder is ours");
    for entry in fs::read_dir(from).expect("the folder is ours") {
        let (path, name) = entry
            .map(|entry| (entry.path(), entry.file_name()))
            .expect("the folder is ours");
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).expect("the folder is ours");
        }
    }
}

#[test]
fn a_damaged_folder_is_replaced_by_a_copy_or_moved_away() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let address = node.address();
    daemon.watch(&address);
    node.pay(&address, COIN);
    node.mine(1);
    daemon.wait_balance(&address, COIN, 0);
    daemon.stop();
    let (store, kept) = (daemon.store(), daemon.store().with_extension("copy"));
    copy(&store, &kept);
    let damage = || {
        fs::remove_file(store.join("db/CURRENT")).expect("every database has it");
        let said = refusal(&daemon);
        let advice = "restore a copy of the folder, or move it away and add the addresses again";
        assert!(said.contains(advice), "{said}");
    };
    damage();
    fs::remove_dir_all(&store).expect("the folder is ours");
    copy(&kept, &store);
    daemon.restart();
    assert_eq!(daemon.balance(&address)["confirmed_balance"], COIN);
    daemon.stop();

    let store = daemon.store();
    fs::remove_file(store.join("db/CURRENT")).expect("every database has it");
    fs::rename(&store, store.with_extension("away")).expect("the folder is ours");
    daemon.restart();
    daemon.watch(&address);
    daemon.wait_balance(&address, COIN, 0);
}

#[test]
fn a_folder_that_is_not_for_us_is_left_for_another_one() {
    let private = Options {
        chain: "signet",
        blocks: 0,
        extra: vec!["-signetchallenge=51".into()],
        ..Options::default()
    };
    let (node, signet) = (bare(), Node::with(private));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let at = |name: &str| folder.path().join(name);
    let made = |name: &str, node: &Node, network: Network| {
        let genesis = node.rpc("getblockhash", json!([0]));
        let genesis = genesis.as_str().expect("a hash is text").parse();
        let chain = ChainInfo {
            network,
            genesis: genesis.expect("a hash"),
        };
        drop(
            satwatch::store::open(&at(name), Some(chain), 0, &|| false)
                .expect("a new store can be made"),
        );
    };
    made("signet", &signet, Network::Signet);
    made("newer", &node, Network::Regtest);
    {
        let (options, db) = (rocksdb::Options::default(), at("newer/db"));
        let families = rocksdb::DB::list_cf(&options, &db).expect("it is a database");
        let raw = rocksdb::DB::open_cf(&options, &db, families).expect("it is a database");
        let meta = raw.cf_handle("meta").expect("it has rows");
        raw.put_cf(meta, "format", [1, 99, 0, 0, 0])
            .expect("written");
    }
    fs::create_dir(at("theirs")).expect("the folder is ours");
    fs::write(at("theirs/lock"), "host 5\n").expect("the folder is ours");
    for (name, words) in [
        ("signet", "belongs to chain signet"),
        ("newer", "has format 99"),
        ("theirs", "is not a store of satwatch"),
    ] {
        let doctor = Doctor::beside(&node).with("store.path", at(name).display());
        let (what, _) = doctor.problem();
        assert!(what.contains(words), "{what}");
        assert!(what.contains("set store.path to another folder"), "{what}");
        doctor
            .with("store.path", at("another").display())
            .finds_nothing();
    }
    // "connect to the right node"
    Doctor::beside(&signet)
        .with("store.path", at("signet").display())
        .finds_nothing();

    let mut daemon = Daemon::start(&node);
    let said = refusal(&daemon);
    assert!(
        said.contains("stop it, or set store.path to another folder"),
        "{said}"
    );
    daemon.stop();
    daemon.restart();
}

#[test]
fn another_node_or_store_helps_when_they_do_not_fit() {
    let node = Node::start();
    let proxy = RpcProxy::of(&node);
    let often = ("monitor.reconcile_interval", "1");
    let mut daemon = Daemon::with(&node, &[often, ("bitcoind.rpc_url", &proxy.url())]);
    proxy.set(Mood::Chain("signet"));
    wait_until("it says that they do not fit", || {
        let error = daemon.get("/status").json["node"]["error"].clone();
        let advice = Remedy::OtherNodeOrStore.to_string();
        error.as_str()?.ends_with(&advice).then_some(())
    });
    daemon.stop();
    let store = daemon.store();
    daemon.set(
        "store.path",
        &store.with_extension("other").display().to_string(),
    );
    daemon.restart();
    daemon.stop();
    daemon.set("store.path", &store.display().to_string());
    daemon.set("bitcoind.rpc_url", &node.rpc_url());
    daemon.restart();
}

#[test]
fn the_lines_of_the_documents_for_bitcoin_conf_are_right() {
    let document = repository().join("contrib/docs/running.md");
    let text = fs::read_to_string(document).expect("it is there");
    let (_, block) = text.split_once("```ini\nserver=1").expect("a block");
    let (block, _) = block.split_once("```").expect("the block ends");
    let node = super::doctor::with_topics(&[]);
    node.put(&block.replace("28332", &free_port().to_string()));
    restarted(&node);
    Doctor::beside(&node).finds_nothing();
}
