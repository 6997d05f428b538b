//! A regtest bitcoind with a wallet, in a temporary folder of its own.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{http, repository, wait_for, wait_until};

/// What the tests themselves log in with: `rpcauth` with a password of "a long secret".
const HARNESS_LOGIN: &str =
    "-rpcauth=tests:5a17$e41aa2075e92e0e5a68e654c615fcc581007e54b529bb34a209eb13f5ebb7cc2";

/// Pays and mines.
const PAYER: &str = "payer";
/// Owns the addresses that tests watch; apart, so that the payer never spends from them unasked.
const OWNER: &str = "owner";

/// What a test may want different.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to publish, all on one address: the node keeps the order of events there. Empty: no
    /// ZMQ.
    pub topics: &'static [&'static str],
    /// High-water mark of each topic; 0 keeps every message of a big block.
    pub hwm: u32,
    /// Listens for other nodes ([`Node::connect`]).
    pub p2p: bool,
    /// `regtest`, or `signet` with a challenge of one's own in `extra` (and no blocks).
    pub chain: &'static str,
    /// Blocks to mine at the start; all but the last 100 give coins to spend. More than 121 by
    /// default: the wallet gives one payment in a thousand the lock time 21 below that height
    /// (against fee sniping), and Knots refuses it as a parasite.
    pub blocks: u32,
    pub extra: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            topics: &["rawblock", "rawtx", "sequence"],
            hwm: 0,
            p2p: false,
            chain: "regtest",
            blocks: 125,
            extra: Vec::new(),
        }
    }
}

/// A running node. Dropping it ends the process and removes the folder.
pub struct Node {
    folder: TempDir,
    options: Options,
    rpc_port: u16,
    zmq_port: u16,
    p2p_port: u16,
    process: Mutex<Option<Child>>,
}

/// An unspent output of the payer.
#[derive(Debug, Clone)]
pub struct Coin {
    /// Txid and output number.
    pub outpoint: (String, u64),
    pub satoshi: i64,
}

/// An error answer of the node.
#[derive(Debug)]
pub struct RpcError {
    pub code: i64,
    pub message: String,
}

impl Node {
    /// A node with a wallet that has coins to spend.
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("satwatch-node-")
            .tempdir()
            .expect("a temporary folder can be made");
        let mut node = Self {
            folder,
            options,
            rpc_port: 0,
            zmq_port: 0,
            p2p_port: 0,
            process: Mutex::new(None),
        };
        // Somebody else may take a port between our look and the node's start.
        let started = (0..5).any(|_| {
            (node.rpc_port, node.zmq_port, node.p2p_port) = (free_port(), free_port(), free_port());
            node.launch(&[])
        });
        assert!(started, "bitcoind does not start: {}", node.log());
        for wallet in [PAYER, OWNER] {
            // SQLite has been seen to fail once in a thousand, on a busy machine.
            let shape = json!([wallet, false, false, "", false, true, true]);
            let made = wait_for(super::DEADLINE, || {
                let made = node.try_rpc("createwallet", shape.clone());
                made.or_else(|_| node.try_rpc("loadwallet", json!([wallet])))
                    .ok()
            });
            assert!(made.is_some(), "no wallet {wallet}: {}", node.log());
        }
        if node.options.blocks > 0 {
            node.mine(node.options.blocks);
        }
        node
    }

    /// Starts the process and waits until it answers; false when it ended instead.
    fn launch(&self, once: &[&str]) -> bool {
        let output = File::create(self.folder.path().join("output")).expect("the folder is ours");
        let mut command = Command::new(bitcoind());
        command
            .arg(format!("-datadir={}", self.folder.path().display()))
            .args([
                "-server",
                "-rest=1",
                HARNESS_LOGIN,
                "-rpcwhitelistdefault=0",
            ])
            .arg(format!("-chain={}", self.options.chain));
        command.args([
            "-dnsseed=0",
            "-fixedseeds=0",
            "-fallbackfee=0.0002",
            "-printtoconsole=0",
            "-dbcache=16",
            "-par=1",
            // A thousand keys of each kind for each wallet take longer than all else at a start.
            "-keypool=5",
        ]);
        command
            .args(["-checkmempool=0", "-checkblockindex=0"])
            .arg(format!("-rpcport={}", self.rpc_port));
        match self.options.p2p {
            true => command
                .args(["-listen=1", "-discover=0"])
                .arg(format!("-bind=127.0.0.1:{}", self.p2p_port)),
            false => command.arg("-listen=0"),
        };
        for topic in self.options.topics {
            command
                .arg(format!("-zmqpub{topic}={}", self.zmq_endpoint()))
                .arg(format!("-zmqpub{topic}hwm={}", self.options.hwm));
        }
        command.args(&self.options.extra).args(once);
        let errors = output.try_clone().expect("a file handle can be cloned");
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .expect("the bitcoind that node.sh found can be run");
        *self
            .process
            .lock()
            .expect("no test panics while holding it") = Some(child);
        let answers = wait_for(super::DEADLINE, || {
            let ended = !self.is_running();
            (ended || self.try_rpc("getblockchaininfo", json!([])).is_ok()).then_some(!ended)
        });
        answers.unwrap_or(false)
            && (self.options.topics.is_empty()
                || self.rpc("getzmqnotifications", json!([])) != json!([]))
    }

    pub fn is_running(&self) -> bool {
        let mut process = self
            .process
            .lock()
            .expect("no test panics while holding it");
        process
            .as_mut()
            .is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// Ends the node cleanly and waits until it is gone; its chain and mempool stay in the folder.
    pub fn stop(&self) {
        let _ = self.try_rpc("stop", json!([]));
        let mut process = self
            .process
            .lock()
            .expect("no test panics while holding it");
        if let Some(mut child) = process.take() {
            child.wait().expect("the node is our child");
        }
    }

    /// Ends the node without any warning and waits until it is gone.
    pub fn kill(&self) {
        let mut process = self
            .process
            .lock()
            .expect("no test panics while holding it");
        if let Some(mut child) = process.take() {
            child.kill().expect("the node is our child");
            child.wait().expect("the node is our child");
        }
    }

    /// Starts a stopped node again, with the same ports and a new cookie.
    pub fn restart(&self) {
        self.restart_with(&[]);
    }

    /// The same with further arguments for this one run.
    pub fn restart_with(&self, once: &[&str]) {
        assert!(
            self.launch(once),
            "bitcoind does not start again: {}",
            self.log()
        );
    }

    /// Stops every thread of the process: it answers nothing, and its connections stay open.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self
            .process
            .lock()
            .expect("no test panics while holding it");
        let pid = process.as_ref().expect("the node runs").id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .expect("kill can be run")
                .success(),
            "the node had ended"
        );
    }

    /// Connects to another node, which must listen (`p2p`), and waits until both have the same
    /// chain.
    pub fn connect(&self, other: &Node) {
        for node in [self, other] {
            node.rpc("setnetworkactive", json!([true]));
        }
        let address = format!("127.0.0.1:{}", other.p2p_port);
        wait_until("the nodes have the same tip", || {
            if self.rpc("getconnectioncount", json!([])) == 0 {
                let _ = self.try_rpc("addnode", json!([address, "onetry"]));
            }
            (self.tip() == other.tip()).then_some(())
        });
    }

    /// Ends its connections to other nodes, and takes no new ones until [`Self::connect`].
    pub fn part(&self) {
        self.rpc("setnetworkactive", json!([false]));
        wait_until("the node is alone", || {
            (self.rpc("getconnectioncount", json!([])) == 0).then_some(())
        });
    }

    /// Where it publishes.
    pub fn zmq_endpoint(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.zmq_port)
    }

    pub fn rpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.rpc_port)
    }

    pub fn cookie_file(&self) -> PathBuf {
        self.folder.path().join(self.options.chain).join(".cookie")
    }

    fn log(&self) -> String {
        let tail = |name: &str| {
            let text = fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(5).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        let chain = self.options.chain;
        format!(
            "{}\n{}",
            tail("output"),
            tail(&format!("{chain}/debug.log"))
        )
    }

    /// Adds a line to its `bitcoin.conf`, which it reads at its next start.
    pub fn put(&self, line: &str) {
        let file = self.folder.path().join("bitcoin.conf");
        let known = fs::read_to_string(&file).unwrap_or_default();
        fs::write(file, format!("{known}{line}\n")).expect("the folder is ours");
    }

    /// Where it listens for other nodes.
    pub fn p2p_address(&self) -> String {
        format!("127.0.0.1:{}", self.p2p_port)
    }

    /// Asks the node; panics with its words when it refuses.
    pub fn rpc(&self, method: &str, params: Value) -> Value {
        let answer = wait_until("the end of another scan", || {
            match self.try_rpc(method, params.clone()) {
                // The daemon's; a node makes one at a time.
                Err(error) if error.message.contains("Scan already in progress") => None,
                answer => Some(answer),
            }
        });
        answer
            .unwrap_or_else(|error| panic!("{method} {params}: {} ({})", error.message, error.code))
    }

    /// Asks the wallet that owns the watched addresses.
    pub fn owner(&self, method: &str, params: Value) -> Value {
        self.wallet(OWNER, method, params)
    }

    /// Asks the wallet that pays and mines.
    pub fn payer(&self, method: &str, params: Value) -> Value {
        self.wallet(PAYER, method, params)
    }

    /// Asks one of its wallets.
    pub fn wallet(&self, wallet: &str, method: &str, params: Value) -> Value {
        let answer = self.try_wallet(wallet, method, params.clone());
        answer
            .unwrap_or_else(|error| panic!("{method} {params}: {} ({})", error.message, error.code))
    }

    pub fn try_wallet(&self, wallet: &str, method: &str, params: Value) -> Result<Value, RpcError> {
        self.ask(&format!("/wallet/{wallet}"), method, params)
    }

    /// Asks the node. `code` is 0 when it could not be asked at all.
    pub fn try_rpc(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.ask("/", method, params)
    }

    fn ask(&self, path: &str, method: &str, params: Value) -> Result<Value, RpcError> {
        let silent = |message: String| RpcError { code: 0, message };
        let request = json!({ "jsonrpc": "1.0", "id": 0, "method": method, "params": params });
        let (status, text) = self
            .exchange(path, &request.to_string())
            .map_err(|error| silent(error.to_string()))?;
        let answer: Value =
            serde_json::from_str(&text).map_err(|_| silent(format!("HTTP {status}: {text}")))?;
        match &answer["error"] {
            Value::Null => Ok(answer["result"].clone()),
            error => Err(RpcError {
                code: error["code"].as_i64().unwrap_or(0),
                message: error["message"].as_str().unwrap_or_default().to_owned(),
            }),
        }
    }

    /// HTTP status and body.
    fn exchange(&self, path: &str, body: &str) -> io::Result<(u16, String)> {
        let url = format!("{}{path}", self.rpc_url());
        let headers = [("Authorization", &*login())];
        let silence = Duration::from_secs(120);
        let answer = http::send("POST", &url, &headers, body.as_bytes(), silence)?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        Ok((answer.status, text))
    }

    /// A fresh address to watch.
    pub fn address(&self) -> String {
        text(self.owner("getnewaddress", json!(["", "bech32"])))
    }

    /// Pays `satoshi` to `address`; the transaction's id.
    pub fn pay(&self, address: &str, satoshi: i64) -> String {
        let txid = text(self.payer("sendtoaddress", json!([address, bitcoin(satoshi)])));
        // A wallet also answers with the id of a transaction that its own node did not take.
        assert!(
            self.in_mempool(&txid),
            "the node did not take the payment {txid}: {}",
            self.log()
        );
        txid
    }

    /// A coin of the payer, worth at least `satoshi`, confirmed and spendable.
    pub fn coin(&self, satoshi: i64) -> Coin {
        let minimum = json!([1, 9_999_999, [], true, { "minimumAmount": bitcoin(satoshi) }]);
        let coins = self.payer("listunspent", minimum);
        let coin = coins
            .as_array()
            .and_then(|coins| coins.first())
            .unwrap_or_else(|| panic!("the payer has no coin of {satoshi}"));
        let value = coin["amount"].as_f64().expect("an amount is a number");
        Coin {
            outpoint: (
                text(coin["txid"].clone()),
                coin["vout"].as_u64().expect("a number"),
            ),
            satoshi: (value * 1e8).round() as i64,
        }
    }

    /// A signed, replaceable transaction over outputs of both wallets, as hex; what the outputs
    /// leave over is the fee.
    pub fn signed(&self, inputs: &[(String, u64)], outputs: &[(&str, i64)]) -> String {
        let inputs: Vec<_> = inputs
            .iter()
            .map(|(txid, vout)| json!({ "txid": txid, "vout": vout, "sequence": 0xffff_fffd_u32 }))
            .collect();
        let outputs: Vec<_> = outputs
            .iter()
            .map(|(address, satoshi)| json!({ *address: bitcoin(*satoshi) }))
            .collect();
        let raw = self.rpc("createrawtransaction", json!([inputs, outputs]));
        let half = self.payer("signrawtransactionwithwallet", json!([raw]));
        let whole = if half["complete"] == true {
            half
        } else {
            self.owner("signrawtransactionwithwallet", json!([half["hex"]]))
        };
        assert_eq!(
            whole["complete"], true,
            "both wallets together can sign: {whole}"
        );
        text(whole["hex"].clone())
    }

    /// A signed transaction that spends `coin`: output 0 pays `satoshi` to `address`, output 1
    /// gives the rest back to the payer.
    pub fn payment(&self, coin: &Coin, address: &str, satoshi: i64) -> String {
        const FEE: i64 = 10_000;
        let back = text(self.payer("getrawchangeaddress", json!(["bech32"])));
        self.signed(
            std::slice::from_ref(&coin.outpoint),
            &[(address, satoshi), (&back, coin.satoshi - satoshi - FEE)],
        )
    }

    /// Hands a block to the node; what it says of it (null: taken).
    pub fn submit(&self, hex: &str) -> Value {
        self.rpc("submitblock", json!([hex]))
    }

    /// Hands a transaction to the node; its id.
    pub fn send(&self, hex: &str) -> String {
        text(self.rpc("sendrawtransaction", json!([hex, 0])))
    }

    /// Hands many to the node, 200 in one request; panics if it does not take one of them.
    pub fn send_all(&self, transactions: &[String]) {
        for some in transactions.chunks(200) {
            let calls: Vec<_> = some
                .iter()
                .map(|hex| json!({ "id": 0, "method": "sendrawtransaction", "params": [hex, 0] }))
                .collect();
            let body = Value::from(calls).to_string();
            let text = self.exchange("/", &body).expect("the node answers").1;
            let answers: Vec<Value> = serde_json::from_str(&text)
                .unwrap_or_else(|_| panic!("a batch is answered with a list: {text}"));
            assert!(
                answers.len() == some.len()
                    && answers.iter().all(|answer| answer["error"].is_null()),
                "{text}"
            );
        }
    }

    /// Mines one block of exactly these transactions (ids of the mempool's, or hex); its hash.
    pub fn mine_only(&self, transactions: &[&str]) -> String {
        let address = text(self.payer("getnewaddress", json!(["", "bech32"])));
        text(self.rpc("generateblock", json!([address, transactions]))["hash"].clone())
    }

    /// Mines blocks to an address that nobody watches; their hashes.
    pub fn mine(&self, blocks: u32) -> Vec<String> {
        let address = text(self.payer("getnewaddress", json!(["", "bech32"])));
        self.mine_to(&address, blocks)
    }

    /// The same to an address that is in no wallet either: many times faster for hundreds of
    /// blocks.
    pub fn mine_to_nobody(&self, blocks: u32) -> Vec<String> {
        self.mine_to("mfWxJ45yp2SFn7UciZyNpvDKrzbhyfKrY8", blocks)
    }

    pub fn mine_to(&self, address: &str, blocks: u32) -> Vec<String> {
        let hashes = self.rpc("generatetoaddress", json!([blocks, address]));
        hashes
            .as_array()
            .expect("generatetoaddress answers with hashes")
            .iter()
            .cloned()
            .map(text)
            .collect()
    }

    pub fn tip(&self) -> String {
        text(self.rpc("getbestblockhash", json!([])))
    }

    pub fn height(&self) -> i64 {
        self.rpc("getblockcount", json!([]))
            .as_i64()
            .expect("getblockcount answers with a number")
    }

    pub fn in_mempool(&self, txid: &str) -> bool {
        self.try_rpc("getmempoolentry", json!([txid])).is_ok()
    }

    /// The node's folder, for what a test wants to look at.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self
            .process
            .lock()
            .ok()
            .and_then(|mut process| process.take())
        {
            // Its folder goes too, so nothing is lost by not asking politely.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Satoshi as the text in bitcoin that bitcoind takes as an amount.
pub fn bitcoin(satoshi: i64) -> String {
    format!("{}.{:08}", satoshi / super::COIN, satoshi % super::COIN)
}

fn text(value: Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("a text was expected, not {value}"))
        .to_owned()
}

fn login() -> String {
    let login = base64::engine::general_purpose::STANDARD.encode("tests:a long secret");
    format!("Basic {login}")
}

/// `bitcoin-cli`, which stands beside bitcoind.
pub fn bitcoin_cli() -> PathBuf {
    let beside = bitcoind().with_file_name("bitcoin-cli");
    if beside.exists() {
        beside
    } else {
        PathBuf::from("bitcoin-cli")
    }
}

/// The bitcoind that `regtest/node.sh` finds or unpacks.
fn bitcoind() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let script = repository().join("regtest/node.sh");
        let found = Command::new("bash")
            .arg(&script)
            .arg("path")
            .stdin(Stdio::null())
            .output()
            .expect("bash can be run");
        let errors = String::from_utf8_lossy(&found.stderr);
        assert!(
            found.status.success(),
            "these tests run a real node, and there is none: run contrib/setup.sh. {errors}"
        );
        PathBuf::from(String::from_utf8_lossy(&found.stdout).trim())
    })
}

/// A port below the kernel's own range, so that no outgoing connection takes it; no two calls in
/// this process get the same.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        AtomicU16::new((std::process::id().wrapping_mul(997) % u32::from(COUNT)) as u16)
    });
    wait_until("a free port", || {
        let port = FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT;
        std::net::TcpListener::bind(("127.0.0.1", port))
            .is_ok()
            .then_some(port)
    })
}
