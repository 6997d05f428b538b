"""The soak's own account of the chain and the mempool, folded from raw blocks: what operations
choose from, and the history that the daemon's is compared with.
"""

from collections import namedtuple

from transaction import NULL_TXID, block_of, tx_of

"""`height`: None while unconfirmed."""
Coin = namedtuple("Coin", "value script height coinbase")

MATURITY = 100


def mature(coin, height):
    """Whether a block at `height` may spend it."""
    return not coin.coinbase or height - coin.height >= MATURITY


def spendable(script):
    return not script.startswith(b"\x6a")


def apply(coins, tx, height):
    """Spends and adds the coins of one transaction."""
    for outpoint in tx.inputs:
        coins.pop(outpoint, None)
    for number, (value, script) in enumerate(tx.outputs):
        if spendable(script):
            coins[(tx.txid, number)] = Coin(value, script, height, tx.coinbase)


class Ledger:
    def __init__(self, node):
        self.node = node
        self.blocks = {}
        """Every transaction that was ever made, or found in a block."""
        self.txs = {}
        self.chain = []
        """Of the active chain: unspent outputs, and (height, block) of each transaction."""
        self.coins, self.confirmed = {}, {}
        """In an order in which parents come first; the outputs that it spends, with the spender."""
        self.mempool, self.spender = {}, {}

    @property
    def height(self):
        return len(self.chain) - 1

    @property
    def tip(self):
        return self.chain[-1]

    def refresh(self):
        best = self.node.rpc("getbestblockhash")
        if not self.chain or best != self.tip:
            self._follow(best)
        self._read_mempool()

    def block(self, block_hash):
        if block_hash not in self.blocks:
            self.know_block(block_of(bytes.fromhex(self.node.rpc("getblock", block_hash, 0))))
        return self.blocks[block_hash]

    def know_block(self, block):
        self.blocks[block.hash] = block
        for tx in block.txs:
            self.txs[tx.txid] = tx

    def _follow(self, best):
        place = {block_hash: height for height, block_hash in enumerate(self.chain)}
        branch, block_hash = [], best
        while block_hash not in place and block_hash != NULL_TXID:
            branch.append(block_hash)
            block_hash = self.block(block_hash).previous
        fork = place.get(block_hash, -1)
        if fork < self.height:
            self.chain = self.chain[: fork + 1]
            self.coins, self.confirmed = {}, {}
            start = 0
        else:
            start = fork + 1
        self.chain += reversed(branch)
        # The genesis output can never be spent.
        for height in range(max(start, 1), len(self.chain)):
            for tx in self.blocks[self.chain[height]].txs:
                apply(self.coins, tx, height)
                self.confirmed[tx.txid] = (height, self.chain[height])

    def _read_mempool(self):
        txids = sorted(self.node.rpc("getrawmempool"))
        unknown = [txid for txid in txids if txid not in self.txs]
        for raw in self.node.batch([("getrawtransaction", txid) for txid in unknown]):
            tx = tx_of(bytes.fromhex(raw))
            self.txs[tx.txid] = tx
        self.mempool = self.in_order({txid: self.txs[txid] for txid in txids})
        self.spender = {
            outpoint: txid for txid, tx in self.mempool.items() for outpoint in tx.inputs
        }

    @staticmethod
    def in_order(txs):
        """The same with parents first."""
        ordered = {}

        def visit(txid):
            if txid in txs and txid not in ordered:
                for parent, _ in txs[txid].inputs:
                    visit(parent)
                ordered[txid] = txs[txid]

        for txid in txs:
            visit(txid)
        return ordered

    def coins_at(self, height):
        """What was unspent after the block at `height`."""
        coins = {}
        for place in range(1, height + 1):
            for tx in self.blocks[self.chain[place]].txs:
                apply(coins, tx, place)
        return coins

    def unspent(self, confirmed_only=False):
        """What a transaction may spend now."""
        free = {
            outpoint: coin for outpoint, coin in self.coins.items() if outpoint not in self.spender
        }
        free = {outpoint: coin for outpoint, coin in free.items() if mature(coin, self.height + 1)}
        if not confirmed_only:
            for txid, tx in self.mempool.items():
                for number, (value, script) in enumerate(tx.outputs):
                    if (txid, number) not in self.spender and spendable(script):
                        free[(txid, number)] = Coin(value, script, None, False)
        return free

    def coin(self, outpoint):
        """The output of any known transaction, as it stands."""
        txid, number = outpoint
        value, script = self.txs[txid].outputs[number]
        return Coin(value, script, self.confirmed.get(txid, (None,))[0], self.txs[txid].coinbase)

    def fee(self, tx):
        return sum(self.coin(outpoint).value for outpoint in tx.inputs) - sum(
            value for value, _ in tx.outputs
        )

    def former(self, coins):
        """Transactions that are neither in the chain nor in the mempool, and could be with these
        coins.
        """
        gone = [
            tx
            for txid, tx in self.txs.items()
            if txid not in self.confirmed and txid not in self.mempool and not tx.coinbase
        ]
        possible = [
            tx
            for tx in gone
            if all(o in coins and mature(coins[o], self.height + 1) for o in tx.inputs)
        ]
        return sorted(possible, key=lambda tx: tx.txid)

    def with_descendants(self, txid):
        """`txid` and what depends on it in the mempool, parents first."""
        family = {txid}
        for other, tx in self.mempool.items():
            if any(parent in family for parent, _ in tx.inputs):
                family.add(other)
        return [other for other in self.mempool if other in family]

    def touches(self, tx, script):
        """What one transaction does with one script: received and sent."""
        received = sum(value for value, own in tx.outputs if own == script)
        sent = 0
        if not tx.coinbase:
            spent = [
                self.txs[txid].outputs[number] for txid, number in tx.inputs if txid in self.txs
            ]
            sent = sum(value for value, own in spent if own == script)
        return received, sent

    def median_time(self, height):
        times = sorted(
            self.blocks[block_hash].time
            for block_hash in self.chain[max(0, height - 10) : height + 1]
        )
        return times[len(times) // 2]
