"""A checkpoint: what the node knows of every watched address, and what the daemon says of it.

Outputs and balances come from one `scantxoutset` and the decoded mempool; the history from the
soak's ledger of raw blocks, which is itself held against `scantxoutset` first.
"""

import time

from node import RpcError, satoshi
from process import Failure

FORMER = ("replaced", "conflicted", "evicted")
MATURITY = 100


class Truth:
    def __init__(self, world):
        world.ledger.refresh()
        self.world, self.ledger = world, world.ledger
        self.scripts = world.looked_at()
        """Watched too; of these only the sums are looked at here."""
        self.crowd = set(world.crowd.values())
        self.tip, self.height = self.ledger.tip, self.ledger.height
        """Per script: outpoint -> what `GET /utxos` should say of it."""
        self.outputs = {script: {} for script in self.scripts}
        """Per script: the sum of its confirmed outputs, and the mempool's effect on that."""
        self.confirmed = dict.fromkeys(self.scripts, 0)
        self.unconfirmed = dict.fromkeys(self.scripts, 0)
        self._scan()
        self._mempool()
        self.history = self._history()

    def _scan(self):
        wanted = [f"raw({script.hex()})" for script in self.scripts]
        deadline = time.monotonic() + 60
        while True:
            try:
                found = self.world.node.rpc("scantxoutset", "start", wanted)
                break
            except RpcError as refusal:
                # The daemon has a scan running; there is only one at a time.
                if refusal.code != -8 or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        if found["bestblock"] != self.tip:
            raise Failure("the node moved during a checkpoint")
        for output in found["unspents"]:
            script, value = bytes.fromhex(output["scriptPubKey"]), satoshi(output["amount"])
            self._put(
                script, output["txid"], output["vout"], value, output["height"], output["coinbase"]
            )
            self.confirmed[script] += value
        self._check_ledger()

    def _put(self, script, txid, number, value, height, coinbase):
        deep = self.height - height + 1 if height is not None else 0
        self.outputs[script][(txid, number)] = {
            "value": value,
            "confirmed": height is not None,
            "block_height": height,
            "confirmations": deep,
            "coinbase": coinbase,
            "mature": not coinbase or deep >= MATURITY,
            "spent_by": None,
        }

    def _check_ledger(self):
        ours = {
            outpoint: (coin.value, coin.height)
            for outpoint, coin in self.ledger.coins.items()
            if coin.script in self.scripts
        }
        nodes = {
            outpoint: (o["value"], o["block_height"])
            for outputs in self.outputs.values()
            for outpoint, o in outputs.items()
        }
        if ours != nodes:
            raise Failure(f"the soak's ledger is wrong: {set(ours.items()) ^ set(nodes.items())}")

    def _mempool(self):
        node = self.world.node
        txs = node.batch([("getrawtransaction", txid, 1) for txid in node.rpc("getrawmempool")])
        for tx in txs:
            for output in tx["vout"]:
                script = bytes.fromhex(output["scriptPubKey"]["hex"])
                if script in self.scripts:
                    self._put(
                        script, tx["txid"], output["n"], satoshi(output["value"]), None, False
                    )
                    self.unconfirmed[script] += satoshi(output["value"])
        for tx in txs:
            for spent in tx["vin"]:
                for script, outputs in self.outputs.items():
                    output = outputs.get((spent["txid"], spent["vout"]))
                    if output:
                        output["spent_by"] = tx["txid"]
                        self.unconfirmed[script] -= output["value"]

    def _history(self):
        """Per script: txid -> (received, sent) of all that is in the chain or in the mempool."""
        history = {script: {} for script in self.scripts}
        for txid in [*self.ledger.confirmed, *self.ledger.mempool]:
            tx = self.ledger.txs[txid]
            touched = {script for _, script in tx.outputs}
            if not tx.coinbase:
                touched |= {
                    self.ledger.txs[parent].outputs[number][1] for parent, number in tx.inputs
                }
            for script in touched & self.scripts.keys():
                history[script][txid] = self.ledger.touches(tx, script)
        return history

    def differences(self):
        """What the daemon says otherwise; empty when nothing."""
        daemon = self.world.daemon
        status = daemon.get("/status")
        if (status["tip"] or {}).get("hash") != self.tip:
            return [f"the daemon's tip is {status['tip']}, the node's {self.height} {self.tip}"]
        found = []
        watched = len(self.world.watched) + len(self.world.crowd)
        if status["address_count"] != watched:
            found.append(
                f"/status counts {status['address_count']} addresses, {watched} are watched"
            )
        unspent = sum(coin.script in self.crowd for coin in self.ledger.unspent().values())
        unspent += sum(
            output["spent_by"] is None
            for outputs in self.outputs.values()
            for output in outputs.values()
        )
        if status["total_utxos"] != unspent:
            found.append(f"/status counts {status['total_utxos']} utxos, there are {unspent}")
        for script, address in self.scripts.items():
            found += self._subject(address.text, f"/{{}}/{address.text}", {script})
        for wallet in self.world.added_wallets():
            found += self._subject(wallet.id, f"/descriptors/{wallet.id}/{{}}", wallet.scripts())
            found += given_away(daemon, wallet)
        return found

    def _subject(self, text, path, scripts):
        return [f"{text}: {what}" for what in self._about(text, path, scripts)]

    def _about(self, text, path, scripts):
        """An address, or a wallet with its scripts together."""
        daemon = self.world.daemon
        balance = daemon.get(path.format("balance"))
        outputs = {}
        for script in scripts:
            outputs.update(self.outputs[script])
        free = [output for output in outputs.values() if output["spent_by"] is None]
        confirmed = sum(self.confirmed[script] for script in scripts)
        unconfirmed = sum(self.unconfirmed[script] for script in scripts)
        expected = {
            "confirmed_balance": confirmed,
            "unconfirmed_balance": unconfirmed,
            "balance": confirmed + unconfirmed,
            "utxo_count": len(free),
            "immature": sum(output["value"] for output in free if not output["mature"]),
        }
        found = differing("/balance", balance, expected)
        coverage = balance["coverage"]
        if not coverage["complete"]:
            found.append(f"/balance: coverage is {coverage}")
        # No reorg goes below the height at which these were added.
        first = min(
            [start for texts, start in self.world.scans.values() if text in texts]
            + [self.world.watched_from]
        )
        if text in self.world.from_the_start and coverage["from_height"] != first:
            found.append(
                f"/balance: coverage is {coverage}, watched since {self.world.watched_from}, known from {first}"
            )
        said = daemon.get(path.format("utxos") + "?include_spent=true&limit=5000")
        listed = {(output["tx_hash"], output["output_index"]): output for output in said["utxos"]}
        if len(listed) != said["count"] or len(said["utxos"]) != said["count"]:
            found.append(
                f"/utxos counts {said['count']} and lists {len(said['utxos'])}, {len(listed)} of them different"
            )
        for outpoint in listed.keys() | outputs.keys():
            found += self._output(outpoint, listed.get(outpoint), outputs.get(outpoint))
        return found + self._transactions(path, scripts, coverage["from_height"])

    @staticmethod
    def _output(outpoint, listed, expected):
        name = f"/utxos {outpoint[0]}:{outpoint[1]}"
        if listed is None:
            return [f"{name}: is not listed, the node has {expected}"]
        if expected is None:
            return [f"{name}: is listed as {listed}, the node has no such output"]
        return differing(name, {**listed, "spent_by": listed.get("spent_by")}, expected)

    def _transactions(self, path, scripts, known_from):
        said = self.world.daemon.get(path.format("transactions") + "?limit=5000")["transactions"]
        listed = {tx["txid"]: tx for tx in said}
        found = [] if len(listed) == len(said) else ["/transactions lists a transaction twice"]
        history = {}
        for script in scripts:
            for txid, (received, sent) in self.history[script].items():
                before = history.get(txid, (0, 0))
                history[txid] = (before[0] + received, before[1] + sent)
        for txid, tx in listed.items():
            found += self._transaction(history, txid, tx, known_from)
        for txid in history.keys() - listed.keys():
            height = self.ledger.confirmed.get(txid, (None,))[0]
            # What was before an address was watched is not known; from that height on, everything
            # is.
            if height is None or (known_from is not None and height >= known_from):
                found.append(
                    f"/transactions: {txid} is missing, height {height}, all known from {known_from}"
                )
        return found

    def _transaction(self, history, txid, listed, known_from):
        name = f"/transactions {txid} (all known from {known_from})"
        if txid in self.ledger.confirmed:
            height, block = self.ledger.confirmed[txid]
            expected = {
                "status": "confirmed",
                "block_height": height,
                "block_hash": block,
                "confirmations": self.height - height + 1,
            }
        elif txid in self.ledger.mempool:
            expected = {
                "status": "mempool",
                "block_height": None,
                "block_hash": None,
                "confirmations": 0,
            }
        else:
            return self._former(name, txid, listed)
        received, sent = history.get(txid, (0, 0))
        if (
            listed["status"] == "confirmed"
            and (known_from is None or height < known_from)
            and listed["sent"] < sent
        ):
            # It spent what the address owned before it was watched, and that is not claimed to be
            # known.
            sent = listed["sent"]
        return differing(
            name, listed, {**expected, "received": received, "sent": sent, "net": received - sent}
        )

    def _former(self, name, txid, listed):
        if listed["status"] not in FORMER:
            return [
                f"{name}: is {listed['status']}, the node has it neither in the chain nor in the mempool"
            ]
        found = differing(
            name, listed, {"block_height": None, "block_hash": None, "confirmations": 0}
        )
        for status, field in (("replaced", "replaced_by"), ("conflicted", "conflicted_by")):
            other = listed[field]
            if (listed["status"] == status) != (other is not None):
                found.append(f"{name}: is {listed['status']} and {field} is {other}")
            if other is not None and not self._rivals(txid, other):
                found.append(
                    f"{name}: {field} {other}, which spends nothing that it or an ancestor of it spends"
                )
        return found

    def _rivals(self, txid, other):
        """Whether `other` spends what `txid` or an ancestor of it spends."""
        if other not in self.ledger.txs:
            return False
        spent, todo, met = set(self.ledger.txs[other].inputs), [txid], set()
        while todo:
            here = todo.pop()
            if here in met or here not in self.ledger.txs or self.ledger.txs[here].coinbase:
                continue
            met.add(here)
            if here != other and spent & set(self.ledger.txs[here].inputs):
                return True
            todo += [parent for parent, _ in self.ledger.txs[here].inputs]
        return False


def given_away(daemon, wallet):
    """Indexes that were given away stay given away."""
    said = {(row["keychain"]): row for row in daemon.get(f"/descriptors/{wallet.id}")["keychains"]}
    return [
        f"{wallet.id}: {keychain}/{index} was given away, and {said[keychain]['next_index']} is the next"
        for keychain, index in wallet.given
        if said[keychain]["next_index"] <= index
    ]


def differing(name, said, expected):
    return [
        f"{name}: {field} is {said[field]}, the node says {value}"
        for field, value in expected.items()
        if said[field] != value
    ]


def settle(world, seconds):
    """The truth, once the daemon says nothing else; with what still differs after so long."""
    truth = Truth(world)
    deadline = time.monotonic() + seconds
    while True:
        found = truth.differences()
        if not found or time.monotonic() > deadline:
            return truth, found
        time.sleep(0.1)
