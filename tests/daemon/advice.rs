//! What the daemon advises besides [`satwatch::remedy::Remedy`] and the errors of the store: what
//! refused requests are told, and a few log lines. Each such text in `src` stands in [`ADVICE`]
//! with the test that follows it, or with the reason why none does; the tests of this file follow
//! those that one request more can follow. A text is taken for an advice when a part of it begins
//! with one of [`VERBS`].

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::literals::said;
use crate::common::{Answer, COIN, Client, Daemon, Node, wait_until};

/// Who follows an advice.
enum By {
    Test(&'static str),
    /// Nobody, because.
    None(&'static str),
}
use By::{None as Unfollowed, Test};

const REST: By = Test("what_is_said_of_a_refused_request_helps");
const SOCKET: By = Test("what_is_said_of_a_refused_event_helps");
const ADDRESS: By = Test("what_is_said_of_something_that_is_no_address_helps");
const DESCRIPTOR: By = Test("what_is_said_of_a_refused_descriptor_helps");
const REFUSED_WALLET: By = Test("what_is_said_of_a_refused_wallet_helps");
const LATER: By = Unfollowed("it passes by itself, and the same request is right then");
const ASK_ITS_SOURCE: By = Unfollowed("only the person that the address is from can tell");

/// A part of what is said, and who follows it.
#[rustfmt::skip]
const ADVICE: &[(&str, By)] = &[
    ("send it to POST /descriptors, which watches the wallet as one thing", REFUSED_WALLET),
    ("send the on-chain address of the wallet", ADDRESS),
    ("send a Bitcoin address", ADDRESS),
    ("send single addresses", ADDRESS),
    ("send the address alone", ADDRESS),
    ("send each by itself", ADDRESS),
    ("Send the address that belongs to it", ADDRESS),
    ("send the address that belongs to it", ADDRESS),
    ("send an address; GET /events tells of blocks", ADDRESS),
    ("send the address that the transaction pays", ADDRESS),
    ("ask where you have it from", ASK_ITS_SOURCE),
    ("copy the address again", ADDRESS),
    ("copy it again", ADDRESS),
    ("The address is empty; send a Bitcoin address", ADDRESS),
    ("in it, at most a way to pay over Lightning or by silent payment; send the on-chain address", ADDRESS),
    ("send an address of {ours}", ADDRESS),
    ("ask again when it is done", Test("a_node_that_is_away_or_busy_is_said_and_a_client_that_hangs_up_frees_it")),
    ("ask again in a moment", LATER),
    ("Remove some with DELETE /addresses/<address>, or have the limit raised", Test("a_token_has_a_quota_and_the_log_says_its_name")),
    ("Remove one with DELETE /consumers/<name>, or have the limit raised", Test("a_token_defines_so_many_consumers")),
    ("ask again in {seconds} s", Test("who_asks_too_often_is_refused_and_another_client_notices_nothing")),
    ("try again", Test("a_node_that_is_away_or_busy_is_said_and_a_client_that_hangs_up_frees_it")),
    ("send the address you connected to", REST),
    ("Use a loopback address, or add", Test("what_is_said_of_hosts_and_origins_helps")),
    ("To allow it, add", Test("what_is_said_of_hosts_and_origins_helps")),
    ("Have it ask with CORS", Test("what_is_said_of_hosts_and_origins_helps")),
    ("PUT /consumers/<name> with `after` moves it", SOCKET),
    ("end the one first, or use another connection", SOCKET),
    ("wait until that ends, or make a second consumer", Test("rest_reads_beside_nobody")),
    ("read it anew", Test("a_new_definition_or_a_deletion_ends_readings_and_an_equal_one_does_not")),
    ("use 1 to {MAX_NAME} of the characters", REST),
    ("write it as `after`", REST),
    ("POST /add_addresses takes them, too", REST),
    ("PUT with \"after\" moves it backwards", REST),
    ("is missing; send {what}", REST),
    ("Add it with POST /add_address", REST),
    ("is not allowed here; use {allow}", REST),
    ("try again when it is back", LATER),
    ("write a cursor as `after`", REST),
    ("send one as an event or an answer carried it", REST),
    ("Events after this cursor were deleted", Test("an_expired_cursor_comes_with_a_snapshot_from_which_one_goes_on_without_a_gap")),
    ("This cursor is not of this event log", Test("the_cursor_of_another_log_or_beyond_this_one_is_unknown_and_comes_with_a_snapshot")),
    ("unsubscribe from some, or use another connection", SOCKET),
    ("send text and numbers", Test("attachments_are_refused_and_the_session_goes_on")),
    ("ask for it in pages (limit, after)", Test("pages_of_outputs_join_to_what_is_listed_without_them")),
    ("POST /add_address takes a label", SOCKET),
    ("POST /add_address takes `\"history\"", SOCKET),
    ("read GET /addresses", Unfollowed("it is no refusal; the route is tested in many_addresses_are_added_at_once_and_paged_through")),
    ("see GET /consumers/{name}/dead_letters", Test("a_dead_letter_is_kept_through_a_restart_and_sent_again_or_dropped_when_a_person_says_so")),
    ("Say either blocks_back, or from_height and to_height", REST),
    ("leave it out to scan up to where live watching took over", REST),
    ("send a JSON object such as {}", REST),
    ("write the address alone into the path", REST),
    ("POST /start goes on where it was", REST),
    ("send less at a time", REST),
    ("send it again", LATER),
    ("send the header Content-Type: application/json", REST),
    ("POST /start starts it", REST),
    ("ask again when the daemon follows the node", LATER),
    ("wait until some are complete, or cancel some", Test("open_scans_are_bounded_and_the_newest_are_listed_first")),
    ("POST /scan_history takes a list", REST),
    ("put it into `addresses`, or into the path", REST),
    ("choose by that", REST),
    ("write the `next` of the page before as `before`", REST),
    ("write `\"history\": {\"from_height\": 0}`", REST),
    ("POST /add_addresses takes a list", REST),
    ("write the `next` of the page before as `after`", REST),
    ("Resume it with POST /consumers/{name}/retry", Test("gone_410_stops_a_webhook_until_retry_or_put_resumes_it_also_across_restarts")),
    ("POST /consumers/{name}/retry resumes it", Test("gone_410_stops_a_webhook_until_retry_or_put_resumes_it_also_across_restarts")),
    ("send one as the list carried it", Test("a_dead_letter_is_kept_through_a_restart_and_sent_again_or_dropped_when_a_person_says_so")),
    ("PUT it with a \"url\"", REST),
    ("send them as \"headers\"", Test("case_14_user_and_password_are_sent_as_a_header_as_the_refusal_says")),
    ("leave it out to get one made", REST),
    ("leave \"headers\" out to keep those that are known", Test("case_14_headers_are_sent_kept_and_never_shown")),
    ("The consumer was just changed, or the daemon stops; ask again", LATER),
    ("is on its way; ask again when it is answered", LATER),
    ("install the package ca-certificates", Unfollowed("it needs a machine without that package")),
    ("PUT it again", Unfollowed("a header that cannot be sent is refused when it is put")),
    ("SSL_CERT_FILE", Test("certificates_of_an_authority_of_ones_own_are_taken_as_the_error_says")),
    ("set webhooks.proxy", Test("case_15_an_onion_is_refused_with_the_reason_and_reached_through_the_proxy_of_the_remedy")),
    ("set webhooks.allowed_targets", Test("case_16_targets_on_the_allow_list_are_taken_and_others_are_refused_with_the_setting")),
    ("write {meant}", Test("what_is_wrong_with_settings_is_written_as_they_say")),
    ("better list the origins that need it", Test("who_opens_the_door_wide_is_told_so")),
    ("POST /start begins it", Test("start_and_stop_are_idempotent_and_remembered")),
    ("settings that differ from those in force and take a restart", Unfollowed("every test of a setting starts a daemon")),
    ("move it away first", Test("what_is_wrong_with_the_files_of_tls_is_told_apart_and_each_remedy_helps")),
    ("Set it (NTP)", Unfollowed("no test sets the clock of its machine")),
    ("set it (NTP)", Unfollowed("no test sets the clock of its machine")),
    ("give it to the user that runs satwatch, or chmod 700", Unfollowed("it needs a folder of another user")),
    ("write server.listen = \"127.0.0.1:{}\" first", Test("others_are_listened_to_once_there_is_a_token")),
    ("send the header Authorization: Bearer <token>", Test("stock_clients_come_in_with_a_token_and_leave_with_it")),
    ("Send it as satwatch token new printed it", Test("stock_clients_come_in_with_a_token_and_leave_with_it")),
    ("come back with one", Test("stock_clients_come_in_with_a_token_and_leave_with_it")),
    ("see bus in its /status", Test("a_stream_that_stays_behind_is_told_by_the_edge_and_its_cause_by_the_primary")),
    ("Ask that one, or follow addresses here", Test("wallets_and_blocks_are_followed_at_an_edge_and_consumers_at_the_primary")),
    ("Send the public descriptor, with extended public keys (xpub)", DESCRIPTOR),
    ("The descriptor is empty; send one, such as wpkh(xpub…/<0;1>/*)", DESCRIPTOR),
    ("send one that is shorter", DESCRIPTOR),
    ("send it in one piece, and of several each by itself", DESCRIPTOR),
    ("write the descriptor with ASCII characters alone", DESCRIPTOR),
    ("copy the descriptor again, whole, or leave # and what follows out", DESCRIPTOR),
    ("A word in the descriptor is longer than any key; copy the descriptor again, whole", DESCRIPTOR),
    ("copy the key again, whole", DESCRIPTOR),
    ("send one of pkh(), wpkh(), sh(), wsh() or tr(), or an extended public key", DESCRIPTOR),
    ("send the one that it uses: {pkh} or", Test("a_key_that_does_not_say_its_scripts_comes_with_the_descriptors_that_it_could_mean")),
    ("write /* at its end, or the key without a path", DESCRIPTOR),
    ("send the descriptor with the keys of all, such as", DESCRIPTOR),
    ("write the key as {plain}", DESCRIPTOR),
    ("it is one address; add it by itself (POST /add_address)", ADDRESS),
    ("it is one script; add its address by itself (POST /add_address)", ADDRESS),
    ("write tr(KEY) with the key before its tweak, or add its addresses", DESCRIPTOR),
    ("send pkh(KEY), wpkh(KEY) and sh(wpkh(KEY)) each by itself", DESCRIPTOR),
    ("write pkh(KEY), or wsh(pk(KEY)) if", DESCRIPTOR),
    ("write wsh(multi(…)), or sh(multi(…)) if", DESCRIPTOR),
    ("write wsh(sortedmulti(…)), or sh(sortedmulti(…)) if", DESCRIPTOR),
    ("add the addresses of the wallet by themselves (POST /add_addresses)", ADDRESS),
    ("write a script of miniscript as sh(wsh(…)), or wsh(…) if", DESCRIPTOR),
    ("write pkh(KEY) in its place", DESCRIPTOR),
    ("write multi(…) with the keys in the order of the wallet's scripts", DESCRIPTOR),
    ("write it with its first byte (02… or 03…)", DESCRIPTOR),
    ("send a descriptor whose keys are all of one", Test("a_descriptor_of_another_network_is_named_and_one_of_this_network_is_taken")),
    ("send the descriptor of a wallet on that network", Test("a_descriptor_of_another_network_is_named_and_one_of_this_network_is_taken")),
    ("send the key that the wallet shows for the account", DESCRIPTOR),
    ("write /<0;1>/*, or send the descriptors of more keychains each by itself", DESCRIPTOR),
    ("write every key once, or give each occurrence another path", DESCRIPTOR),
    ("write its compressed form", DESCRIPTOR),
    ("send one that is simpler", DESCRIPTOR),
    ("send the descriptor as the wallet exports it", DESCRIPTOR),
    ("send it as the wallet exports it", DESCRIPTOR),
    ("Remove that with DELETE /descriptors/<id>", REFUSED_WALLET),
    ("Remove it with DELETE /descriptors/<id>, and add it again", REFUSED_WALLET),
    ("Lower range or gap_limit, or have the limit raised", REFUSED_WALLET),
    ("Leave \"keychain\" out, or write \"external\"", REFUSED_WALLET),
    ("write it as `descriptor`", REFUSED_WALLET),
    ("write it as `descriptor_id`", REFUSED_WALLET),
    ("write both keychains into one descriptor", REFUSED_WALLET),
    ("write the `next` of the page before as `from`", REFUSED_WALLET),
    ("POST /descriptors takes it", REFUSED_WALLET),
    ("take `next` of an earlier page", Unfollowed("no client sees it: the API says what `before` must be")),
];

/// Imperatives, at the beginning of a sentence or of a part of it.
#[rustfmt::skip]
const VERBS: &[&str] = &[
    "add", "ask", "begin", "cancel", "change", "check", "choose", "come", "connect", "copy", "correct", "end", "give",
    "go", "have", "install", "keep", "leave", "let", "list", "lower", "move", "name", "open", "pass", "post", "put",
    "raise", "read", "remove", "repeat", "restart", "restore", "resume", "run", "say", "see", "send", "set", "start",
    "stop", "subscribe", "switch", "take", "try", "turn", "unsubscribe", "update", "use", "wait", "write",
];

/// Texts that begin like an advice and are none: descriptions of what is done here, lists of
/// methods, policies.
const NO_ADVICE: &[&str] = &[
    "HEAD, POST",
    "HEAD, PUT",
    "GET, POST",
    "POST, OPTIONS",
    "connect-src",
    "a namespace that the client is in",
    "CONNECT takes an object",
    "Open Engine.IO sessions",
    "a person stopped it",
    "(keep all)",
    "open files: ",
    "connect to bitcoind at",
    "read bitcoind's cookie",
    "read above",
    "BEGIN ENCRYPTED PRIVATE KEY",
    "may read or change the key in",
    "may read or change the token in",
    "read from the store where it is",
    "read from the store which is",
    "add it when nothing is any more",
    "take the next index",
    "write into the store's folder",
    "write to the store",
    "read the store",
    "open the store",
];

fn is_advice(text: &str) -> bool {
    let lower = text.to_lowercase();
    let parts = lower.split([':', ',', ';', '.', '(', '?', '!', '—']);
    parts
        .flat_map(|part| part.split(" or "))
        .flat_map(|part| part.split(" and "))
        .flat_map(|part| part.split(" then "))
        .map(str::trim_start)
        .map(|part| part.strip_prefix("or ").unwrap_or(part))
        .map(|part| part.strip_prefix("then ").unwrap_or(part))
        .any(|part| {
            let word = part.split(|c: char| !c.is_alphabetic()).next();
            word.is_some_and(|word| part.contains(' ') && VERBS.contains(&word))
        })
}

/// The tests that [`ADVICE`] names.
pub fn tests() -> impl Iterator<Item = &'static str> {
    ADVICE.iter().filter_map(|(_, by)| match by {
        Test(name) => Some(*name),
        Unfollowed(_) => None,
    })
}

#[test]
fn every_advice_is_in_the_table() {
    let mut used = vec![false; ADVICE.len()];
    let mut wrong = Vec::new();
    for (path, text) in said() {
        // These have tables of their own, which do not compile while something is missing.
        let own = path.ends_with("src/remedy.rs") || path.ends_with("store/error.rs");
        let none = NO_ADVICE.iter().any(|part| text.contains(part));
        if own || none || !text.contains(' ') {
            continue;
        }
        let mut is_listed = false;
        for (used, (part, _)) in used.iter_mut().zip(ADVICE) {
            if text.contains(part) {
                (*used, is_listed) = (true, true);
            }
        }
        if !is_listed && is_advice(&text) {
            wrong.push(format!("{}: {text}", path.display()));
        }
    }
    for (part, by) in ADVICE {
        let is_explained = !matches!(by, Unfollowed(reason) if reason.is_empty());
        assert!(is_explained, "nobody follows {part}, and why?");
    }
    let unused = used.iter().zip(ADVICE).filter(|(used, _)| !**used);
    wrong.extend(unused.map(|(_, (part, _))| format!("nobody says: {part}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn ask(daemon: &Daemon, method: &str, path: &str, body: &Value) -> Answer {
    let text = body.to_string();
    let headers = [("Content-Type", "application/json")];
    let body = (!body.is_null()).then_some(text.as_bytes());
    daemon.request(method, path, &headers, body)
}

fn helps(answer: &Answer, context: &str) {
    assert!(answer.status < 300, "{context}: {}", answer.text);
}

fn says(answer: &Answer, words: &str) {
    let sentence = answer.json["error"].as_str().unwrap_or_default();
    assert!(sentence.contains(words), "{words}: {}", answer.text);
}

#[test]
fn what_is_said_of_something_that_is_no_address_helps() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let (address, key) = (node.address(), format!("02{}", "ab".repeat(32)));
    let last = if address.ends_with('q') { "p" } else { "q" };
    let mistyped = format!("{}{last}", &address[..address.len() - 1]);
    let (two, required) = (
        format!("{address}, {}", node.address()),
        format!("bitcoin:{address}?req-x=1"),
    );
    #[rustfmt::skip]
    let cases = [
        ("xpub661MyMwAqRbcEZ1tju49pvCdvM1xxkw4iH9G78jHoPpjFmKSP2tkxBAbd3rS6o44DU5j37h2n5fDpL5PiZmQnKMcq2cfBCaN1M9qjfmniB3",
         "send it to POST /descriptors, which watches the wallet as one thing, or its addresses one by one"),
        ("lnbc20u1p3y0x3hpp5743k2g0fsqqxj7n8qzuhns5gmkk4djeejk3wkp64ppevgekvc0js", "send the on-chain address of the wallet"),
        ("npub1sn0wdenkukak0d9dfczzeacvhkrgz92ak56egt7vdgzn8pv2wfqqhrjdv9", "send a Bitcoin address"),
        ("sp1qqgqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqcqqypqxpq9qcrsszg2pvxq6rs0zqg3yyc5z5tpwxqergd3c8g7rureafuq", "send single addresses"),
        ("https://explorer.example/address/x", "send the address alone"),
        (&two, "send each by itself"),
        ("cMcfH8sRgBgDMfpBNG6H3haaxLkaYXgqMRef8Nev6tWyBSNr6c3n", "Send the address that belongs to it"),
        (&key, "send the address that belongs to it"),
        ("000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f", "send an address; GET /events tells of blocks"),
        ("4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b", "send the address that the transaction pays"),
        (&mistyped, "copy the address again"),
        ("", "The address is empty; send a Bitcoin address"),
        ("bitcoin:", "send the on-chain address"),
        (&required, "send the address alone"),
        ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "send an address of regtest"),
    ];
    for (text, words) in cases {
        let refused = ask(&daemon, "POST", "/add_address", &json!({ "address": text }));
        assert_eq!(refused.status, 400, "{text}: {}", refused.text);
        says(&refused, words);
        let single = ask(
            &daemon,
            "POST",
            "/add_address",
            &json!({ "address": address }),
        );
        helps(&single, text);
    }
    let many = json!({ "addresses": [address, node.address()] });
    helps(&ask(&daemon, "POST", "/add_addresses", &many), "many");
    helps(&daemon.get("/events"), "events");
}

#[test]
fn what_is_said_of_a_refused_request_helps() {
    let node = Node::start();
    let settings = [
        ("limits.body_bytes", "4096"),
        ("webhooks.allow_private", "true"),
    ];
    let daemon = Daemon::with(&node, &settings);
    let (a, b) = (node.address(), node.address());
    for address in [&a, &b] {
        daemon.watch(address);
    }
    node.pay(&a, COIN);
    node.pay(&a, COIN);
    daemon.wait_balance(&a, 0, 2 * COIN);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let (cursor, new) = (text(&daemon.get("/status").json["cursor"]), node.address());
    let next_address = text(&daemon.get("/addresses?limit=1").json["next"]);
    let next_tx = text(&daemon.get(&format!("/transactions/{a}?limit=1")).json["next"]);
    let uri = format!("bitcoin%3A{a}%3Famount%3D0.01");
    let scan = format!("/scan_history/{a}");
    let no = Value::Null;
    let url = json!({ "url": "http://127.0.0.1:9/" });
    let with = |secrets: Value| json!({ "url": "http://127.0.0.1:9/", "secrets": secrets });
    let long = |count: usize| {
        let address = json!({ "address": b, "label": "x".repeat(50) });
        json!({ "addresses": vec![address; count] })
    };
    // What is refused, what is said, and what is done then.
    #[rustfmt::skip]
    let cases: Vec<(&str, String, Value, &str, &str, String, Value)> = vec![
        ("POST", "/add_address".into(), no.clone(), "send a JSON object such as {\"address\"", "POST", "/add_address".into(), json!({ "address": a })),
        ("POST", "/add_address".into(), json!({}), "is missing; send {\"address\"", "POST", "/add_address".into(), json!({ "address": a })),
        ("POST", "/add_address".into(), json!({ "address": a, "from_height": 0 }), "write `\"history\": {\"from_height\": 0}`",
         "POST", "/add_address".into(), json!({ "address": a, "history": { "from_height": 0 } })),
        ("POST", "/add_address".into(), json!({ "addresses": [a] }), "POST /add_addresses takes a list", "POST", "/add_addresses".into(), json!({ "addresses": [a] })),
        ("GET", format!("/balance/{new}"), no.clone(), "Add it with POST /add_address", "POST", "/add_address".into(), json!({ "address": new })),
        ("DELETE", "/status".into(), no.clone(), "use GET", "GET", "/status".into(), no.clone()),
        ("GET", "/events?after=x".into(), no.clone(), "send one as an event or an answer carried it", "GET", format!("/events?after={cursor}"), no.clone()),
        ("GET", format!("/events?cursor={cursor}"), no.clone(), "write it as `after`", "GET", format!("/events?after={cursor}"), no.clone()),
        ("GET", "/events?since=5".into(), no.clone(), "write a cursor as `after`", "GET", format!("/events?after={cursor}"), no.clone()),
        ("GET", "/addresses?page=2".into(), no.clone(), "write the `next` of the page before as `after`", "GET", format!("/addresses?after={next_address}"), no.clone()),
        ("GET", format!("/transactions/{a}?page=2"), no.clone(), "write the `next` of the page before as `before`", "GET", format!("/transactions/{a}?before={next_tx}"), no.clone()),
        ("GET", format!("/transactions/{a}?before=zz"), no.clone(), "the \"next\" of an earlier page", "GET", format!("/transactions/{a}?before={next_tx}"), no.clone()),
        ("GET", format!("/utxos/{a}?min_confirmations=6"), no.clone(), "each output says its `confirmations`", "GET", format!("/utxos/{a}"), no.clone()),
        ("GET", format!("/balance/bitcoin:{a}?amount=0.01"), no.clone(), "percent-encoded", "GET", format!("/balance/{uri}"), no.clone()),
        ("POST", scan.clone(), json!({ "addresses": [a] }), "POST /scan_history takes a list", "POST", "/scan_history".into(), json!({ "addresses": [a] })),
        ("POST", "/scan_history".into(), json!({ "address": a }), "put it into `addresses`", "POST", "/scan_history".into(), json!({ "addresses": [a] })),
        ("POST", "/scan_history".into(), json!({ "address": a }), "or into the path", "POST", scan.clone(), json!({})),
        ("POST", scan.clone(), json!({ "blocks_back": 1, "from_height": 1 }), "Say either blocks_back, or from_height", "POST", scan.clone(), json!({ "blocks_back": 1 })),
        ("POST", scan.clone(), json!({ "blocks_back": 1, "to_height": 1 }), "Say either blocks_back, or from_height", "POST", scan.clone(), json!({ "from_height": 1, "to_height": 1 })),
        ("POST", scan.clone(), json!({ "to_height": 1_000_000 }), "leave it out", "POST", scan.clone(), json!({})),
        ("PUT", "/consumers/a%20b".into(), json!({}), "use 1 to 64 of the characters", "PUT", "/consumers/a_b-1".into(), json!({})),
        ("PUT", "/consumers/shop".into(), json!({ "cursor": cursor }), "write it as `after`", "PUT", "/consumers/shop".into(), json!({ "after": cursor })),
        ("PUT", "/consumers/all".into(), json!({ "addresses": "all", "confirmations": [3] }), "POST /add_addresses takes them, too",
         "POST", "/add_addresses".into(), json!({ "addresses": [a], "confirmations": [3] })),
        ("POST", "/consumers/shop/test".into(), no.clone(), "PUT it with a \"url\"", "PUT", "/consumers/shop".into(), url.clone()),
        ("PUT", "/consumers/hook".into(), with(json!(["hunter2"])), "leave it out to get one made", "PUT", "/consumers/hook".into(), url.clone()),
        ("POST", "/add_addresses".into(), long(60), "send less at a time", "POST", "/add_addresses".into(), long(1)),
    ];
    for (method, path, body, words, then, there, what) in &cases {
        let refused = ask(&daemon, method, path, body);
        assert!(
            (400..500).contains(&refused.status),
            "{method} {path}: {}",
            refused.text
        );
        says(&refused, words);
        let answer = ask(&daemon, then, there, what);
        helps(&answer, &format!("{words} {then} {there}"));
    }
    let address = json!({ "address": a }).to_string();
    let plain = daemon.request(
        "POST",
        "/add_address",
        &[("Content-Type", "text/plain")],
        Some(address.as_bytes()),
    );
    says(&plain, "send the header Content-Type: application/json");
    assert_eq!(daemon.post("/consumers/shop/test", &json!({})).status, 200);

    wait_until("the scans are over, so that nothing is written", || {
        (daemon.get("/status").json["scan_count"] == 0).then_some(())
    });
    let old = cursor;
    node.pay(&a, COIN);
    daemon.wait_balance(&a, 0, 3 * COIN);
    let head = text(&daemon.get("/status").json["cursor"]);
    helps(&ask(&daemon, "PUT", "/consumers/reader", &json!({})), "put");
    helps(
        &daemon.post("/consumers/reader/ack", &json!({ "cursor": head })),
        "ack",
    );
    let told = daemon.post("/consumers/reader/ack", &json!({ "cursor": old }));
    let message = text(&told.json["message"]);
    assert!(
        message.contains("PUT with \"after\" moves it backwards"),
        "{message}"
    );
    let back = ask(
        &daemon,
        "PUT",
        "/consumers/reader",
        &json!({ "after": old }),
    );
    assert_eq!(back.json["cursor"], old, "{}", back.text);

    let stopped = text(&daemon.post("/stop", &json!({})).json["message"]);
    assert!(
        stopped.contains("POST /start goes on where it was"),
        "{stopped}"
    );
    let ready = daemon.get("/health/ready");
    assert!(
        ready.text.contains("POST /start starts it"),
        "{}",
        ready.text
    );
    daemon.post("/start", &json!({}));
    daemon.wait_ready();
}

#[test]
fn what_is_said_of_a_refused_event_helps() {
    let node = Node::start();
    let daemon = Daemon::with(&node, &[("limits.subscriptions", "2")]);
    let [a, b, c] = [(); 3].map(|()| node.address());
    let subscribe = |client: &Client, address: &str| {
        client.ask("subscribe_address", &json!({ "address": address }))
    };
    let client = Client::connect(&daemon);
    let fine = |answer: &Value| assert!(answer["error"].is_null(), "{answer}");
    let refused = |answer: &Value, words: &str| {
        let sentence = answer["error"].as_str().unwrap_or_default();
        assert!(sentence.contains(words), "{words}: {answer}");
    };
    fine(&subscribe(&client, &a));
    fine(&subscribe(&client, &b));
    refused(&subscribe(&client, &c), "unsubscribe from some");
    fine(&subscribe(&Client::connect(&daemon), &c));
    fine(&client.ask("unsubscribe_address", &json!({ "address": b })));
    let subscribed = subscribe(&client, &c);
    fine(&subscribed);
    let cursor = &subscribed["cursor"];
    for (event, what) in [
        ("subscribe_address", json!({ "address": a })),
        ("subscribe_addresses", json!({ "addresses": [a] })),
    ] {
        for (field, value, words, then) in [
            ("cursor", cursor, "write it as `after`", "after"),
            ("label", &json!("x"), "POST /add_address takes a label", ""),
            (
                "from_height",
                &json!(0),
                "POST /add_address takes `\"history\": {\"from_height\": 0}`",
                "",
            ),
        ] {
            let with = |name: &str| {
                let mut what = what.clone();
                what[name] = value.clone();
                what
            };
            refused(&client.ask(event, &with(field)), words);
            if !then.is_empty() {
                fine(&client.ask(event, &with(then)));
            }
        }
    }
    let labelled = json!({ "address": a, "label": "x", "history": { "from_height": 0 } });
    helps(&daemon.post("/add_address", &labelled), "a label");

    let put = |body: &Value| ask(&daemon, "PUT", "/consumers/shop", body);
    helps(&put(&json!({})), "a consumer");
    let with_cursor = json!({ "consumer": "shop", "after": cursor });
    refused(
        &Client::connect(&daemon).ask("subscribe_consumer", &with_cursor),
        "PUT /consumers/<name> with `after` moves it",
    );
    assert_eq!(put(&json!({ "after": cursor })).json["cursor"], *cursor);
    let shop = json!({ "consumer": "shop" });
    refused(
        &client.ask("subscribe_consumer", &shop),
        "end the one first, or use another connection",
    );
    fine(&Client::connect(&daemon).ask("subscribe_consumer", &shop));
    for address in [&a, &c] {
        fine(&client.ask("unsubscribe_address", &json!({ "address": address })));
    }
    fine(&client.ask("subscribe_consumer", &shop));
}

#[test]
fn what_is_said_of_hosts_and_origins_helps() {
    let node = Node::start();
    let mut daemon = Daemon::start(&node);
    let get =
        |daemon: &Daemon, headers: &[(&str, &str)]| daemon.request("GET", "/status", headers, None);
    let host = [("Host", "shop.example:8080")];
    let origin = [("Origin", "http://shop.example")];
    let nameless = [("Sec-Fetch-Site", "cross-site")];
    let with_cors = [origin[0], nameless[0], ("Sec-Fetch-Mode", "cors")];
    says(
        &get(&daemon, &host),
        "Use a loopback address, or add \"shop.example\" to server.allowed_hosts",
    );
    helps(&get(&daemon, &[("Host", "localhost")]), "a loopback name");
    says(
        &get(&daemon, &origin),
        "add \"http://shop.example\" to server.allowed_origins",
    );
    says(
        &get(&daemon, &nameless),
        "Have it ask with CORS, as fetch and Socket.IO clients do, and add its origin to server.allowed_origins",
    );
    daemon.stop();
    daemon.set("server.allowed_hosts", "shop.example");
    daemon.set("server.allowed_origins", "http://shop.example");
    daemon.restart();
    helps(&get(&daemon, &host), "a listed host");
    helps(&get(&daemon, &origin), "a listed origin");
    helps(&get(&daemon, &with_cors), "with CORS");

    let raw = |headers: &str| {
        let mut socket = TcpStream::connect(("127.0.0.1", daemon.port())).expect("it listens");
        let request = format!("GET /status HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("it answers");
        answer
    };
    let refused = raw("");
    assert!(
        refused.contains("send the address you connected to"),
        "{refused}"
    );
    let answer = raw(&format!("Host: 127.0.0.1:{}\r\n", daemon.port()));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
