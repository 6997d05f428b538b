//! What may happen to the wallets, the node and the daemon.

use serde_json::json;

use super::{Life, Wallet, list, outside, text};
use crate::common::COIN;
use crate::common::node::bitcoin;
use crate::descriptors::{add, id};

/// The wallet that pays the others.
const PAYER: &str = "payer";

impl Life {
    fn pick(&mut self) -> usize {
        self.rng.below(self.wallets.len())
    }

    fn amount(&mut self) -> i64 {
        10_000 + self.rng.below(COIN as usize / 2) as i64
    }

    /// An address that the node gives for a wallet.
    fn fresh(&self, wallet: usize) -> String {
        let wallet = &self.wallets[wallet];
        let request = json!(["", wallet.kind]);
        text(&self.node.wallet(wallet.name, "getnewaddress", request))
    }

    /// Gives each wallet a few coins.
    pub(super) fn fund(&mut self) {
        for wallet in (0..self.wallets.len()).flat_map(|it| [it; 4]) {
            let (to, amount) = (self.fresh(wallet), self.amount());
            self.node.pay(&to, amount);
        }
        self.node.mine(1);
    }

    /// One of the wallets pays to an address, if it has as much.
    fn send(&mut self, to: &str) -> String {
        let (from, amount) = (self.pick(), self.amount());
        let Wallet { name, kind, .. } = self.wallets[from];
        let options = json!({ "change_type": kind });
        let request = json!([[{ to: bitcoin(amount) }], null, null, 2, options]);
        match self.node.try_wallet(name, "send", request) {
            Ok(sent) => format!("{name} sent {sent}"),
            Err(refused) => format!("{name} did not send: {}", refused.message),
        }
    }

    /// Two payments in one transaction of the payer, perhaps to one wallet.
    fn pay(&mut self) -> String {
        let mut to = json!({});
        for _ in 0..2 {
            let wallet = self.pick();
            let address = self.fresh(wallet);
            to[address] = json!(bitcoin(self.amount()));
        }
        format!("payment {}", self.node.payer("sendmany", json!(["", to])))
    }

    /// Blocks that take back up to three, with the mempool's transactions or without any.
    fn reorg(&mut self) -> String {
        let depth = 1 + self.rng.below(3) as u32;
        let first = self.node.height() - i64::from(depth) + 1;
        let hash = self.node.rpc("getblockhash", json!([first]));
        self.node.rpc("invalidateblock", json!([hash]));
        if self.rng.one_in(2) {
            // To an address of its own: the same block again would be the one taken back.
            return format!("reorg to {:?}", self.node.mine(depth + 1));
        }
        for _ in 0..=depth {
            self.node.mine_only(&[]);
        }
        format!("reorg to {depth} and one blocks without transactions")
    }

    /// A payment or spend is replaced: by one with a higher fee, or by one that pays nobody.
    fn replace(&mut self) -> String {
        let picked = self.pick();
        let name = match self.rng.one_in(2) {
            true => PAYER,
            false => self.wallets[picked].name,
        };
        let listed = self.node.wallet(name, "listtransactions", json!(["*", 20]));
        let mut sent = list(&listed)
            .iter()
            .filter(|it| it["category"] == "send" && it["confirmations"] == 0);
        let Some(entry) = sent.next() else {
            return format!("{name} has nothing to replace");
        };
        let options = match self.rng.one_in(2) {
            true => json!({}),
            false => {
                let own = text(&self.node.payer("getnewaddress", json!([])));
                json!({ "outputs": [{ own: bitcoin(20_000) }] })
            }
        };
        let request = json!([entry["txid"], options]);
        match self.node.try_wallet(name, "bumpfee", request) {
            Ok(it) => format!("{name} replaced {it}"),
            Err(refused) => format!("{name} did not replace: {}", refused.message),
        }
    }

    /// What is neither in a block nor in the mempool is sent again, or given up.
    fn outside_again(&mut self) -> String {
        let mut done = Vec::new();
        let names: Vec<_> = self.wallets.iter().map(|it| it.name).collect();
        let pool = self.node.rpc("getrawmempool", json!([]));
        for name in names.into_iter().chain([PAYER]) {
            let request = json!(["*", 10_000]);
            let listed = self.node.wallet(name, "listtransactions", request);
            for txid in outside(&listed, &pool) {
                let shown = self.node.wallet(name, "gettransaction", json!([txid]));
                let raw = json!([shown["hex"]]);
                if self.rng.one_in(2) && self.node.try_rpc("sendrawtransaction", raw).is_ok() {
                    done.push(format!("{txid} sent again"));
                    continue;
                }
                let request = json!([txid]);
                let given_up = self.node.try_wallet(name, "abandontransaction", request);
                done.push(format!("{txid} given up: {}", given_up.is_ok()));
            }
        }
        format!("outside: {done:?}")
    }

    /// An address that we give, and perhaps a payment to it.
    fn give(&mut self) -> String {
        let picked = self.pick();
        let wallet = &self.wallets[picked];
        let path = format!("/descriptors/{}/next_address", wallet.id);
        let answer = self.daemon.post(&path, &json!({}));
        let address = text(&answer.json["address"]);
        let info = self
            .node
            .wallet(wallet.name, "getaddressinfo", json!([address]));
        assert_eq!(info["ismine"], true, "{} {info}", answer.text);
        // The node says no path where several keys make the script.
        if let Some(path) = info["hdkeypath"].as_str() {
            let end = format!("/0/{}", answer.json["index"]);
            assert!(path.ends_with(&end), "{} {info}", answer.text);
        }
        let is_new = wallet.given.borrow_mut().insert(address.clone());
        assert!(is_new, "given twice: {}", answer.text);
        match self.rng.one_in(2) {
            true => format!("{address} given"),
            false => {
                let amount = self.amount();
                format!("{address} given, {}", self.node.pay(&address, amount))
            }
        }
    }

    /// The daemon is started again, after a stop or a kill; perhaps something happened meanwhile.
    fn restart(&mut self) -> String {
        match self.rng.one_in(2) {
            true => self.daemon.stop(),
            false => self.daemon.kill(),
        }
        let meanwhile = match self.rng.below(3) {
            0 => "nothing".to_owned(),
            1 => format!("{}, {:?}", self.pay(), self.node.mine_to_nobody(1)),
            _ => format!("{}, {}", self.reorg(), self.pay()),
        };
        self.daemon.restart();
        format!("restart, meanwhile {meanwhile}")
    }

    /// One of the wallets is forgotten and added with its whole past.
    fn anew(&mut self) -> String {
        let picked = self.pick();
        let wallet = &mut self.wallets[picked];
        let path = format!("/descriptors/{}", wallet.id);
        let answer = self.daemon.request("DELETE", &path, &[], None);
        assert_eq!(answer.status, 200, "{}", answer.text);
        wallet.given.borrow_mut().clear();
        let body = json!({ "descriptor": wallet.descriptor, "history": { "from_height": 0 } });
        assert_eq!(id(&add(&self.daemon, &body)), wallet.id);
        let wallet = &self.wallets[picked];
        self.wait_complete(wallet);
        format!("{} anew", wallet.name)
    }

    pub(super) fn step(&mut self) -> String {
        match self.rng.below(22) {
            0..4 => self.pay(),
            4..7 => {
                let to = text(&self.node.payer("getnewaddress", json!([])));
                self.send(&to)
            }
            7..11 => {
                let wallet = self.pick();
                let to = self.fresh(wallet);
                self.send(&to)
            }
            11..14 => format!("block {:?}", self.node.mine_to_nobody(1)),
            14..16 => self.reorg(),
            16..18 => self.replace(),
            18..19 => self.outside_again(),
            19..21 => self.give(),
            _ if self.rng.one_in(3) => self.anew(),
            _ => self.restart(),
        }
    }
}
