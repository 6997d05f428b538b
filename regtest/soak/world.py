"""All that operations work on: the node, the daemon, the proxy, coins and addresses, and the random
choices of the step.
"""

import random
import time

from keys import KINDS, Keys
from ledger import Ledger, apply, mature
from node import RpcError
from transaction import make_block
from wallets import Wallet

FIRST_WATCHED = 18
PURSE = 6


class World:
    def __init__(self, seed, node, daemon, proxy, journal):
        self.seed, self.node, self.daemon, self.proxy, self.journal = (
            seed,
            node,
            daemon,
            proxy,
            journal,
        )
        self.keys, self.ledger = Keys(node, seed), Ledger(node)
        self.step, self.random = 0, random.Random(f"{seed} 0")
        self.watched, self.unwatched, self.purse = [], [], []
        """Wallets, of which some are added later; those that were paid far ahead since the last
        checkpoint.
        """
        self.wallets, self.jumped = [], []
        """Texts of addresses that may have had a past when they were added."""
        self.late = set()
        """The crowd's own addresses (clients.py): text -> script."""
        self.crowd = {}
        """Texts of addresses whose history was ever scanned, and scans that were not cancelled: id
        -> (texts, first height).
        """
        self.scanned, self.scans = set(), {}
        """Tips that were invalidated, to be reconsidered."""
        self.invalidated = []
        self.stopped = False
        """The step at which a daemon that is down comes back."""
        self.daemon_back = None
        self.accepted, self.refused, self.done = 0, 0, {}

    def begin(self, step):
        """Each step chooses anew from the seed: another outcome of one step does not change the
        choices of the next.
        """
        self.step, self.random = step, random.Random(f"{self.seed} {step}")

    def say(self, text):
        self.journal.write(f"{time.time():.3f} step {self.step}: {text}\n")
        self.journal.flush()

    def set_up(self):
        """Blocks, coins to pay with, and addresses of which most are watched before anything
        happens to them.
        """
        self.purse = self.keys.make(["wpkh({})"] * PURSE)
        self.watched = self.keys.make([KINDS[i % len(KINDS)] for i in range(FIRST_WATCHED)])
        self.new_addresses(6)
        first = Wallet(self, "first", "wpkh({})")
        self.wallets = [
            first,
            first.first_keychain(),
            Wallet(self, "second", "sh(wpkh({}))"),
            Wallet(self, "late", "pkh({})"),
        ]
        # Above height 122: a node of another make may refuse a transaction with lock time 21 below
        # it.
        for i in range(150):
            self.node.rpc("generatetoaddress", 1, self.purse[i % PURSE].text)
        self.ledger.refresh()
        for outpoint, coin in list(self.ledger.unspent().items())[:12]:
            share = (coin.value - 10_000) // 12
            self.send(
                self.keys.sign(
                    [(outpoint, coin)], [(share, self.purse[i % PURSE].script) for i in range(12)]
                ),
                "fund",
            )
        self.node.rpc("generatetoaddress", 1, self.purse[0].text)
        self.ledger.refresh()
        # Writes all to disk: a kill -9 of the node loses blocks, but not these.
        self.node.rpc("gettxoutsetinfo", "none")

    def new_addresses(self, count):
        """Addresses that are paid but not watched yet."""
        made = self.keys.make([self.random.choice(KINDS) for _ in range(count)])
        self.unwatched += made
        return made

    def send(self, tx, what):
        """Hands it to the node. True when its mempool took it."""
        self.ledger.txs[tx.txid] = tx
        try:
            self.node.rpc("sendrawtransaction", tx.raw.hex(), 0)
        except RpcError as refusal:
            self.refused += 1
            self.say(f"{what} {tx.txid}: refused, {refusal.message}")
            return False
        self.accepted += 1
        self.say(f"{what} {tx.txid}: {self.describe(tx)}")
        return True

    def describe(self, tx):
        inputs = ", ".join(f"{txid[:8]}:{number}" for txid, number in tx.inputs)
        outputs = ", ".join(f"{value} to {self.name(script)}" for value, script in tx.outputs)
        return f"{inputs} -> {outputs if len(tx.outputs) < 100 else len(tx.outputs)}"

    def name(self, script):
        address = self.keys.by_script.get(script)
        if address is None:
            return script.hex()
        return f"purse{self.purse.index(address)}" if address in self.purse else address.text

    def pay(self, inputs, outputs, rate=None, least_fee=0):
        """A signed transaction that returns the change to the purse; None when the inputs do not
        suffice.
        """
        rate = rate or self.random.choice((2, 2, 3, 5, 9))
        fee = max(least_fee, rate * (60 + 180 * len(inputs) + 45 * len(outputs)))
        change = sum(coin.value for _, coin in inputs) - sum(value for value, _ in outputs) - fee
        if change < 0:
            return None
        if change > 1000:
            outputs = [*outputs, (change, self.random.choice(self.purse).script)]
        if not outputs:
            return None
        outputs = list(outputs)
        self.random.shuffle(outputs)
        return self.keys.sign(inputs, outputs)

    def purse_coins(self, least=0, confirmed_only=False):
        """Coins of the purse, each of at least so much, smallest first."""
        scripts = {address.script for address in self.purse}
        free = self.ledger.unspent(confirmed_only).items()
        own = [
            (outpoint, coin)
            for outpoint, coin in free
            if coin.script in scripts and coin.value >= least
        ]
        return sorted(own, key=lambda item: (item[1].value, item[0]))

    def owned_coins(self, confirmed_only=False):
        """Coins of addresses that are watched, or may be later."""
        scripts = {address.script for address in self.watched + self.unwatched}
        scripts.update(*(wallet.scripts() for wallet in self.wallets))
        return [
            item
            for item in self.ledger.unspent(confirmed_only).items()
            if item[1].script in scripts
        ]

    def payee(self):
        """Mostly a watched address, or one of a wallet."""
        if self.wallets and self.random.random() < 0.3:
            return self.random.choice(self.wallets).next_to_pay(self.random)
        pool = self.unwatched if self.unwatched and self.random.random() < 0.15 else self.watched
        return self.random.choice(pool)

    def added_wallets(self):
        return [wallet for wallet in self.wallets if wallet.added]

    def lasting_wallets(self):
        """Those that are never removed: nobody can subscribe to one that is gone."""
        return [self.wallets[0], self.wallets[2]]

    def looked_at(self):
        """Watched addresses and those of wallets, each once."""
        known = {address.script: address for address in self.watched}
        for wallet in self.added_wallets():
            known.update((address.script, address) for address in wallet.own().values())
        return known

    def stranger(self):
        """A script that nobody will ever watch."""
        return b"\x00\x14" + self.random.randbytes(20)

    def amount(self):
        return self.random.choice((1000, 10_000, 1_000_000)) * self.random.randrange(1, 50)

    def miner(self):
        """Who gets a coinbase: few, so that rival branches pay the same one."""
        return self.random.choice(
            (self.payee(), self.watched[0], self.purse[0], self.purse[0], self.purse[1])
        )

    def choose_txs(self, coins, height, candidates, chance):
        """Those of `candidates` (parents first) that a block at `height` on `coins` may hold, each
        with a chance; `coins` moves on.
        """
        chosen = []
        for tx in candidates:
            if self.random.random() >= chance:
                continue
            if all(outpoint in coins and mature(coins[outpoint], height) for outpoint in tx.inputs):
                apply(coins, tx, height)
                chosen.append(tx)
        return chosen

    def build(self, previous, height, median, txs, payee=None):
        """A block made here, not yet handed in. The same payee and `extra` make the same coinbase
        in rival branches.
        """
        moment = max(median + 1, int(time.time()))
        extra = self.random.choice((0, 0, self.random.randrange(1 << 30)))
        return make_block(previous, height, moment, txs, payee or self.miner().script, extra)

    def hand_in(self, block, raw):
        self.ledger.know_block(block)
        answer = self.node.rpc("submitblock", raw.hex())
        self.say(
            f"block {block.hash} on {block.previous[:12]} with {[tx.txid for tx in block.txs]}: {answer or 'taken'}"
        )
        return answer
