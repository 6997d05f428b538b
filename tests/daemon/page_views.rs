//! What a person sees on the web page, and what they can do there, in a real browser beside a real
//! node.

use serde_json::{Value, json};

use crate::common::daemon::request;
use crate::common::node::free_port;
use crate::common::{COIN, Daemon, Node, Program, wait_until};

/// A page that does what it is told (`tests/clients/page_driver.mjs`).
pub struct Page {
    program: Program,
    driver: String,
}

impl Page {
    pub fn open(daemon: &Daemon) -> Self {
        Self::with(daemon, &[])
    }

    pub fn with(daemon: &Daemon, size: &[&str]) -> Self {
        let url = format!("{}/", daemon.url());
        let program = Program::node("page_driver.mjs", &[&[&*url], size].concat());
        let driver = program.line("where it listens", |line| {
            line.starts_with("http://").then(|| line.to_owned())
        });
        Self { program, driver }
    }

    pub fn act(&self, what: Value) -> Value {
        let body = what.to_string();
        let answer = request("POST", &self.driver, &[], Some(body.as_bytes()));
        let answer = answer.expect("the driver answers").json;
        assert!(answer["error"].is_null(), "{}", answer["error"]);
        answer["value"].clone()
    }

    pub fn wait(&self, at: &str, text: &str) -> String {
        let seen = self.act(json!({ "do": "wait", "at": at, "text": text }));
        seen.as_str().unwrap_or_default().to_owned()
    }

    pub fn gone(&self, at: &str) {
        self.act(json!({ "do": "gone", "at": at }));
    }

    pub fn click(&self, at: &str) {
        self.act(json!({ "do": "click", "at": at }));
    }

    pub fn fill(&self, at: &str, text: &str) {
        self.act(json!({ "do": "fill", "at": at, "text": text }));
    }

    pub fn run(&self, script: &str) -> Value {
        self.act(json!({ "do": "run", "text": script }))
    }

    pub fn go(&self, hash: &str) {
        self.run(&format!("location.hash = '{hash}'"));
    }

    pub fn count(&self, at: &str) -> usize {
        let texts = self.act(json!({ "do": "texts", "at": at }));
        texts.as_array().map_or(0, Vec::len)
    }

    /// Nobody is kept out by how it looks here.
    pub fn is_for_everybody(&self, view: &str) {
        assert_eq!(self.act(json!({ "do": "axe" })), json!([]), "{view}");
    }

    pub fn ends_well(mut self) {
        self.act(json!({ "do": "end" }));
        self.program.ends_well();
    }
}

pub fn started() -> (Node, Daemon, String) {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let address = node.address();
    let body = json!({ "address": address, "label": "Order 1042" });
    assert_eq!(daemon.post("/add_address", &body).status, 200);
    daemon.wait_complete(&address);
    (node, daemon, address)
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

pub const CONNECTED: (&str, &str) = ("#connection", "^Connected$");
const STATUS: &str = "#feed .pay .status";

#[test]
fn a_payment_is_one_row_that_changes_in_place() {
    let (node, daemon, address) = started();
    let page = Page::open(&daemon);
    page.wait(
        "#truth[data-state=good]",
        "following block.*feed alive.*nothing lost",
    );
    page.wait("#first", "No payment yet.*sendtoaddress");
    let txid = node.pay(&address, 12_345_678);
    page.wait(STATUS, "^seen, ");
    page.wait("#feed .pay.fresh .name", "^Order 1042$");
    page.wait("#say", "Received 0.123.456.78 BTC, Order 1042: seen");
    let block = node.mine(1).remove(0);
    page.wait(STATUS, "^1 of 6 confirmations$");
    node.rpc("invalidateblock", json!([block]));
    page.wait(STATUS, "^back in the mempool, its block was undone$");
    node.mine(6);
    page.wait(STATUS, "^confirmed$");
    assert_eq!(page.count("#feed .pay"), 1);
    let row = page.act(json!({ "do": "attribute", "at": "#feed .pay", "text": "data-txid" }));
    assert_eq!(row, txid);
    page.ends_well();
}

#[test]
fn a_replaced_payment_stays_with_what_became_of_it() {
    let (node, daemon, address) = started();
    let page = Page::open(&daemon);
    page.wait(CONNECTED.0, CONNECTED.1);
    let outputs = json!([{ &address: 0.001 }]);
    let sent = node.payer(
        "send",
        json!({ "outputs": outputs, "fee_rate": 2, "options": { "replaceable": true } }),
    );
    page.wait(STATUS, "^seen, can still be replaced$");
    let bumped = node.payer("bumpfee", json!([sent["txid"]]));
    let by = bumped["txid"].as_str().unwrap_or_default();
    page.wait(
        "#feed .pay.gone .status",
        &format!("^replaced by {}", &by[..8]),
    );
    page.wait("#feed .pay:not(.gone) .status", "^seen, ");
    assert_eq!(page.count("#feed .pay"), 2);
    page.ends_well();
}

#[test]
fn what_happened_while_nobody_was_there_is_told_by_number() {
    let node = Node::start();
    let listen = format!("127.0.0.1:{}", free_port());
    let mut daemon = Daemon::with(&node, &[("server.listen", &listen)]);
    let address = node.address();
    daemon.watch(&address);
    let page = Page::open(&daemon);
    page.wait("#first", "No payment yet");
    node.pay(&address, 4_000);
    page.wait("#feed .pay .amount", "0.000.040.00");
    // It saves its place when it is left.
    page.act(json!({ "do": "open", "text": "about:blank" }));
    node.pay(&address, 1_000);
    node.pay(&address, 2_000);
    daemon.wait_balance(&address, 0, 7_000);
    page.act(json!({ "do": "open" }));
    page.wait("#away-text", "^2 things while you were away$");
    page.wait("#feed .pay:nth-child(3)", "0.000.040.00");
    page.click("#away-show");
    page.gone("#feed .pay:nth-child(3)");
    assert_eq!(page.count("#feed .pay"), 2, "only what is new");
    page.click("#away-show");
    page.wait("#feed .pay:nth-child(3)", "0.000.040.00");
    page.click("#away-close");
    page.gone("#away");
    daemon.stop();
    page.wait(
        "#truth[data-state=waiting]",
        "Reconnecting.*What you see is from",
    );
    // Whether it is told as one that was missed depends on who is faster after the start.
    node.pay(&address, 8_000);
    daemon.restart();
    page.wait("#feed .pay .amount", "0.000.080.00");
    assert_eq!(page.count("#feed .pay"), 4, "each once");
    page.ends_well();
}

/// Of a wallet of the node.
pub fn descriptor(node: &Node) -> String {
    let listed = node.owner("listdescriptors", json!([]));
    let all = listed["descriptors"].as_array().expect("a list");
    let mut descriptors = all.iter().filter_map(|one| one["desc"].as_str());
    let found = descriptors.find(|text| text.starts_with("wpkh("));
    found.expect("the wallet has one").to_owned()
}

/// The one wallet, once it is known what it had before: addresses are given away then.
pub fn known_wallet(daemon: &Daemon) -> String {
    wait_until("the wallet is known", || {
        let wallet = &daemon.get("/descriptors").json["descriptors"][0];
        let id = wallet["descriptor_id"].as_str()?;
        (wallet["coverage"]["pending"] == false).then(|| id.to_owned())
    })
}

#[test]
fn a_wallet_is_one_thing_with_its_sum_and_gives_addresses() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let page = Page::open(&daemon);
    page.wait("#first", "Nothing is watched yet");
    page.is_for_everybody("nothing is watched");
    page.fill("#address", &descriptor(&node));
    page.wait("#add-more", "Watch");
    page.fill("#label", "Shop");
    page.click("#watch");
    page.wait("#detail-title", "^Shop$");
    known_wallet(&daemon);
    page.click(".next");
    page.wait(".receive", "reserved");
    page.fill("#amount", "0.0123");
    page.wait(".given .link", "amount=0.0123");
    let link = page.act(json!({ "do": "qr", "at": ".qr" }));
    let link = link.as_str().unwrap_or_default().to_owned();
    assert_eq!(
        link,
        page.wait(".given .link", "bitcoin:"),
        "what a phone reads"
    );
    let (address, _) = link
        .trim_start_matches("bitcoin:")
        .split_once('?')
        .expect("an amount");
    let lists = "performance.getEntriesByType('resource').filter((it) => /addresses[?]limit=1000/.test(it.name)).length";
    let before = page.run(lists);
    node.pay(address, 1_230_000);
    page.wait("#feed .name", "^Shop$");
    let sum = page.wait("#list [data-kind=descriptor] .sum", "0.012");
    assert_eq!(digits(&sum), "001230000");
    page.wait("#detail .parts", "used");
    // The status is asked for beside it, and would have it read as well.
    let asked = "new Promise((done) => { const all = () => performance.getEntriesByType('resource').filter((it) => /status$/.test(it.name)).length; const [first, look] = [all(), setInterval(() => all() > first && (clearInterval(look), done(null)), 50)]; })";
    page.run(asked);
    assert_eq!(page.run(lists), before, "the list was read again");
    page.is_for_everybody("a wallet");
    page.ends_well();
}

#[test]
fn labels_and_removals_are_the_daemons_and_removing_asks_first() {
    let (node, daemon, address) = started();
    node.pay(&address, COIN);
    let page = Page::open(&daemon);
    page.click("#list a");
    page.wait("#detail .transactions", "seen");
    page.click("#detail .edit");
    page.fill("#new-label", "Order 1043");
    page.click("#detail .label-form button");
    page.wait("#list .name", "^Order 1043$");
    page.wait("#feed .name", "^Order 1043$");
    let listed = daemon.get("/addresses").json;
    assert_eq!(listed["addresses"][0]["label"], "Order 1043");
    page.click("#detail .remove");
    page.wait("#confirm", "Stop watching Order 1043\\?");
    page.is_for_everybody("a question");
    page.click("#confirm .no");
    page.gone("#confirm");
    assert_eq!(daemon.get(&format!("/balance/{address}")).status, 200);
    page.click("#detail .remove");
    page.click("#confirm .main");
    page.wait("#first", "Nothing is watched yet");
    assert_eq!(daemon.get(&format!("/balance/{address}")).status, 404);
    page.ends_well();
}

#[test]
fn a_label_that_one_page_changes_is_that_of_another() {
    let (_node, daemon, _) = started();
    let (page, other) = (Page::open(&daemon), Page::open(&daemon));
    other.wait("#list .name", "^Order 1042$");
    page.click("#list a");
    page.click("#detail .edit");
    page.fill("#new-label", "Order 1043");
    page.click("#detail .label-form button");
    page.wait("#detail-title", "^Order 1043$");
    other.wait("#list .name", "^Order 1043$");
    for page in [page, other] {
        page.ends_well();
    }
}

#[test]
fn an_address_of_a_wallet_is_labelled_where_it_is_shown() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    daemon.post("/descriptors", &json!({ "descriptor": descriptor(&node) }));
    let id = known_wallet(&daemon);
    let given = daemon.post(&format!("/descriptors/{id}/next_address"), &json!({}));
    let address = given.json["address"].as_str().expect("an address");
    let page = Page::open(&daemon);
    page.go(&format!("#/wallet/{id}"));
    page.click("#detail .parts a");
    page.wait("#detail-title", "^bcrt1");
    page.click("#detail .edit");
    page.fill("#new-label", "Order 7");
    page.click("#detail .label-form button");
    page.wait("#detail-title", "^Order 7$");
    let labelled = daemon.get(&format!("/balance/{address}")).json;
    assert_eq!(labelled["label"], "Order 7");
    assert_eq!(page.count("#list li"), 1, "it is not on the list");
    page.act(json!({ "do": "reload" }));
    page.wait("#detail-title", "^Order 7$");
    // What somebody else calls it is seen, too.
    let path = format!("/addresses/{address}");
    let headers = [("Content-Type", "application/json")];
    let body = json!({ "label": "Order 8" }).to_string();
    daemon.request("PATCH", &path, &headers, Some(body.as_bytes()));
    page.wait("#detail-title", "^Order 8$");
    page.go(&format!("#/wallet/{id}"));
    page.wait("#detail .parts .status", "^Order 8$");
    page.ends_well();
}

#[test]
fn history_is_read_and_outputs_are_compared_with_the_node() {
    let node = Node::start();
    let address = node.address();
    node.pay(&address, COIN);
    node.mine(1);
    let daemon = Daemon::start(&node);
    daemon.watch(&address);
    daemon.wait_complete(&address);
    let page = Page::open(&daemon);
    page.go(&format!("#/address/{address}"));
    page.wait("#detail .value", "1.000");
    page.wait("#detail .transactions", "None is known");
    page.wait("#detail .outputs", "block ");
    page.click("#detail .scan button");
    page.wait(
        "#detail .scan",
        "Its whole history is known[^]*History read",
    );
    page.wait("#detail .transactions", "confirmation");
    page.click("#detail .audit");
    page.wait("#detail .audit-note", "^Agrees with the node at block");
    page.is_for_everybody("an address");
    page.ends_well();
}

#[test]
fn deliveries_and_the_node_are_shown_and_acted_on() {
    let (_node, daemon, _) = started();
    let url = format!("http://127.0.0.1:{}/hook", free_port());
    let mut daemon = daemon;
    daemon.set("webhooks.allow_private", "true");
    daemon.stop();
    daemon.restart();
    let put = daemon.request(
        "PUT",
        "/consumers/shop",
        &[("Content-Type", "application/json")],
        Some(json!({ "url": url }).to_string().as_bytes()),
    );
    assert_eq!(put.status, 201, "{}", put.text);
    let page = Page::open(&daemon);
    page.go("#/deliveries");
    page.wait("#consumers h3", "^shop$");
    page.click("#consumers button");
    page.wait("#consumers .note", "The test was not delivered");
    page.wait("#consumers", "Up to date");
    page.is_for_everybody("deliveries");
    page.go("#/node");
    page.wait("#node table", "rawtx");
    page.is_for_everybody("the node");
    page.click("#node .row button");
    page.click("#confirm .main");
    page.wait("#truth[data-state=resting]", "resting at block");
    page.wait("#notice", "Monitoring is stopped");
    page.click("#start");
    page.wait("#truth[data-state=good]", "following block");
    page.ends_well();
}

#[test]
fn a_node_that_is_away_is_named_with_what_helps() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let page = Page::open(&daemon);
    page.wait("#truth[data-state=good]", "following");
    node.stop();
    page.wait("#truth[data-state=bad]", "not following the node");
    page.wait(
        "#first",
        "The Bitcoin node does not answer.*satwatch doctor",
    );
    page.is_for_everybody("no node");
    node.restart();
    page.wait("#truth[data-state=good]", "following");
    page.ends_well();
}

#[test]
fn ten_thousand_addresses_cost_what_is_seen_of_them() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let addresses: Vec<_> = (0..10_000).map(address_of).collect();
    let body = json!({ "addresses": addresses, "history": "none" });
    assert_eq!(daemon.post("/add_addresses", &body).status, 200);
    let page = Page::with(&daemon, &["360", "740"]);
    page.go("#/watching");
    page.wait("#watched-count", "10.000 addresses");
    assert!(page.count("#list li") < 40);
    page.run("document.querySelector('#list-window').scrollTop = 300000");
    page.wait("#list li[aria-posinset='5370']", "");
    assert!(page.count("#list li") < 40);
    // With the keyboard, beyond what is in the document.
    page.run("document.querySelector('#list-window').scrollTop = 0");
    page.wait("#list li[aria-posinset='1']", "");
    page.run("document.querySelector(\"#list li[aria-posinset='1'] a\").focus()");
    for _ in 0..30 {
        page.act(json!({ "do": "press", "at": "#list a:focus", "text": "ArrowDown" }));
    }
    page.wait("#list li[aria-posinset='31'] a:focus", "");
    let wanted = addresses.last().expect("there are some");
    page.fill("#address", wanted);
    page.wait("#list a", &wanted[..8]);
    assert_eq!(page.count("#list li"), 1);
    for view in ["#/", "#/watching", "#/deliveries", "#/node"] {
        page.go(view);
        let width = page.run("document.documentElement.scrollWidth");
        assert_eq!(width, 360, "{view} fits");
    }
    page.ends_well();
}

/// An address of nobody, of its own for each number.
fn address_of(number: u32) -> String {
    let mut program = [0; 20];
    program[..4].copy_from_slice(&number.to_be_bytes());
    let hash = bitcoin::WPubkeyHash::from_raw_hash(bitcoin::hashes::Hash::from_byte_array(program));
    let script = bitcoin::ScriptBuf::new_p2wpkh(&hash);
    let address = bitcoin::Address::from_script(&script, bitcoin::Network::Regtest);
    address.expect("it has one").to_string()
}

#[test]
fn amounts_are_in_the_unit_that_was_chosen_or_hidden() {
    let (node, daemon, address) = started();
    node.pay(&address, 12_345);
    let page = Page::open(&daemon);
    page.wait("#feed .amount", "0.000.123.45");
    page.click("#unit");
    page.wait("#feed .amount", "\\+12.345$");
    page.click("#hide");
    page.wait("#feed .amount", "••••");
    page.act(json!({ "do": "reload" }));
    page.wait("#list .sum", "••••");
    page.click("#hide");
    page.wait("#list .sum", "12.345");
    page.click("#alerts");
    page.wait("#alerts-panel", "Sound");
    page.is_for_everybody("alerts");
    page.ends_well();
}

#[test]
fn the_reference_shows_the_contracts_to_everybody() {
    let node = Node::start();
    let daemon = Daemon::start(&node);
    let page = Page::with(&daemon, &["360", "740"]);
    page.act(json!({ "do": "open", "text": format!("{}/docs", daemon.url()) }));
    page.wait("#get_balance_address h3", "^GET /balance/\\{address\\}$");
    page.wait("#told_balance_change", "new_balance");
    page.wait(
        "#asked_subscribe_address",
        "Answered by subscribed, or error",
    );
    let contracts = ["/openapi.json", "/asyncapi.json"].map(|path| daemon.get(path).json);
    let routes = contracts[0]["paths"].as_object().expect("paths").values();
    let routes: usize = routes
        .map(|it| it.as_object().map_or(0, |it| it.len()))
        .sum();
    let messages = contracts[1]["components"]["messages"].as_object();
    let articles = page.count("article:not([id^=shape])");
    assert_eq!(articles, routes + messages.map_or(0, |it| it.len()));
    let lost = "[...document.querySelectorAll('a[href^=\"#\"]')].filter((it) => !document.getElementById(it.hash.slice(1))).length";
    assert_eq!(page.run(lost), 0, "links that lead nowhere");
    assert_eq!(page.run("document.documentElement.scrollWidth"), 360);
    page.is_for_everybody("the reference");
    page.ends_well();
}
