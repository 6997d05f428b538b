"""The event log, read page by page over all restarts of the daemon, and what must hold of it.

Numbers without a hole; each balance from where the one before ended; a transaction announced once
per address; then only legal changes of its status, each from the status told before; blocks that
follow upon each other; and what was read once stays as it was.
"""

import bisect
import json
import pathlib

from wire import entries_of, number, subject_of

"""The table of legal changes in the documentation of src/tracker/event.rs."""
TABLE = pathlib.Path(__file__).parents[2] / "src" / "tracker" / "status_changes.md"
PAGE = 1000
"""Read again after each restart of the daemon; the whole log is at the end."""
AGAIN = 1000


def legal_changes():
    """(from, to) -> what the table says, without the number of its note."""
    head, _, *rows = [
        [cell.split(" (")[0].strip(" `") for cell in line.strip("|").split("|")]
        for line in TABLE.read_text().splitlines()
    ]
    return {(row[0], to): says for row in rows for to, says in zip(head[1:], row[1:])}


LEGAL = legal_changes()


def is_legal(told, status, corrected):
    """`corrected`: with other amounts than before. The soak's subscribers ask for no depths."""
    says = LEGAL[(told, status)]
    return says == "yes" or (says.endswith("new amounts") and corrected)


def is_wallet(subject):
    """By its text: 64 digits, no address of regtest has so many."""
    return subject is not None and len(subject) == 64 and not subject.startswith("bcrt1")


def facts(tx):
    return tx["status"], tx["block_hash"], tx["received"], tx["sent"]


class EventLog:
    def __init__(self, witness):
        self.witness, self.checked = witness, 0
        """(address, txid) -> time at which it was told as gone."""
        self.gone = {}
        """Of each event, by its number less one: its name, its address if it has one, its data as
        it was sent.
        """
        self.cursors, self.entries = [], []
        """What is wrong with it, in words."""
        self.wrong = []
        self.balances = {}
        """address -> (number, balance from then on) of each change."""
        self.balance_moves = {}
        """(address, txid) -> status, block hash, received, sent: as told last."""
        self.told = {}
        """Addresses that had a past when they were added."""
        self.late = set()
        """Addresses whose history was scanned: what was found is listed and was never told."""
        self.scanned = set()
        """(address, scan) of each scan_complete."""
        self.completed = set()
        """Of each subject whose label was told."""
        self.labels = {}
        """Told hashes by height."""
        self.blocks = {}
        self.tip = None
        self.kinds = {}

    def read(self, daemon, again=None):
        """Reads on to the head; first, the last `again` entries that are known (or all of them)
        once more.
        """
        if again is not None:
            self._read_again(daemon, again)
        while True:
            entries, page = self._page(daemon, len(self.entries), PAGE)
            for cursor, event, data in entries:
                self._take(cursor, event, data)
            if not entries:
                if page["next"] != page["head"]:
                    self.wrong.append(
                        f"/events is empty before its head: next {page['next']}, head {page['head']}"
                    )
                return

    def _page(self, daemon, after, limit):
        after = f"&after={self.cursors[after - 1]}" if after else ""
        return entries_of(daemon.text(f"/events?address=all&descriptor=all&limit={limit}{after}"))

    def _read_again(self, daemon, count):
        start = max(0, len(self.entries) - count)
        while start < len(self.entries):
            entries, _ = self._page(daemon, start, min(PAGE, len(self.entries) - start))
            if not entries:
                self.wrong.append(
                    f"events after {start} are gone, {len(self.entries)} were read before"
                )
                return
            for cursor, event, data in entries:
                known, known_cursor = self.entries[start], self.cursors[start]
                start += 1
                if (cursor, event, data) != (known_cursor, known[0], known[2]):
                    self.wrong.append(
                        f"event {start} was {known} and now is {cursor} {event} {data}"
                    )

    def _take(self, cursor, event, text):
        data = json.loads(text)
        self.entries.append((event, subject_of(data), text))
        entry = {"cursor": cursor, "event": event, "data": data}
        self.cursors.append(cursor)
        if number(cursor) != len(self.entries):
            self._wrong(entry, f"number {len(self.entries)} was expected")
        if data["cursor"] != cursor:
            self._wrong(entry, "has another cursor inside")
        self.kinds[event] = self.kinds.get(event, 0) + 1
        check = getattr(self, "_" + event, None)
        if check is None:
            self._wrong(entry, "is of an unknown kind")
        else:
            check(entry, data)

    def _wrong(self, entry, what):
        self.wrong.append(f"event {what}: {json.dumps(entry)}")

    def _new_transactions(self, entry, data):
        if data["count"] != len(data["transactions"]) or not data["count"]:
            self._wrong(entry, "counts wrongly")
        for tx in data["transactions"]:
            key = (subject_of(data), tx["txid"])
            if key in self.told:
                self._wrong(entry, f"announces {tx['txid']} again")
            # One that returns from a stale block and falls with it may be news for a late address.
            if not is_legal("unknown", tx["status"], False) and not (
                tx["status"] == "evicted" and subject_of(data) in self.late
            ):
                self._wrong(entry, f"announces {tx['txid']} as {tx['status']}")
            self._tell(entry, key, tx)

    def _transaction_update(self, entry, data):
        key = (subject_of(data), data["txid"])
        told, _, *amounts = self.told.get(key, (None, None))
        if told is None and subject_of(data) in self.scanned:
            if data["previous_status"] != "confirmed":
                self._wrong(
                    entry,
                    f"says previous_status {data['previous_status']} of a transaction that only a scan can have found",
                )
        elif told is None:
            self._wrong(entry, "is about a transaction that was not announced")
        elif told != data["previous_status"]:
            self._wrong(
                entry, f"says previous_status {data['previous_status']}, told before was {told}"
            )
        elif not is_legal(told, data["status"], amounts != [data["received"], data["sent"]]):
            self._wrong(entry, "is no legal change")
        self._tell(entry, key, data)

    def _tell(self, entry, key, tx):
        self.told[key] = facts(tx)
        height, block = tx["block_height"], tx["block_hash"]
        # The block itself is told after what it confirms.
        if (
            tx["status"] == "confirmed"
            and self.tip
            and height <= self.tip
            and self.blocks.get(height, block) != block
        ):
            self._wrong(
                entry, f"confirms in a block that is not on the chain that was told: {block}"
            )

    def _balance_change(self, entry, data):
        before = self.balances.get(subject_of(data), 0)
        if data["old_balance"] != before:
            self._wrong(entry, f"starts from {data['old_balance']}, told before was {before}")
        if (
            data["new_balance"] == data["old_balance"]
            or data["delta"] != data["new_balance"] - data["old_balance"]
        ):
            self._wrong(entry, "has a wrong delta, or changes nothing")
        if data["confirmed_balance"] + data["unconfirmed_balance"] != data["new_balance"]:
            self._wrong(entry, "has parts that are not its sum")
        self.balance_moves.setdefault(subject_of(data), []).append(
            (len(self.entries), data["new_balance"])
        )
        self.balances[subject_of(data)] = data["new_balance"]

    def _scan_complete(self, entry, data):
        key = (subject_of(data), data["scan_id"])
        if key in self.completed:
            self._wrong(entry, "was told before")
        if subject_of(data) not in self.scanned:
            self._wrong(entry, "is about an address that was never scanned")
        self.completed.add(key)

    def _unwatched(self, entry, data):
        """If it is added again, all begins anew. An address of a wallet goes on."""
        if data.get("owners"):
            return
        address = subject_of(data)
        self.labels.pop(address, None)
        self.told = {key: last for key, last in self.told.items() if key[0] != address}
        if self.balances.pop(address, 0):
            self.balance_moves[address].append((len(self.entries), 0))

    def _label_change(self, entry, data):
        """The label that one is added with is not told."""
        subject, before = subject_of(data), data["previous_label"]
        if self.labels.get(subject, before) != before or data["label"] == before:
            self._wrong(entry, f"told before was {self.labels.get(subject)}")
        self.labels[subject] = data["label"]

    def _block(self, entry, data):
        if self.tip is not None and data["height"] != self.tip + 1:
            self._wrong(entry, f"is not the block after {self.tip}")
        self.tip = data["height"]
        self.blocks[self.tip] = data["hash"]

    def _reorg(self, entry, data):
        old, fork = data["old_tip"], data["fork_point"]
        if self.tip is not None and (
            old["height"] != self.tip or self.blocks.get(self.tip, old["hash"]) != old["hash"]
        ):
            self._wrong(
                entry,
                f"does not start from the tip that was told, {self.tip} {self.blocks.get(self.tip)}",
            )
        if data["depth"] != old["height"] - fork["height"] or data["depth"] < 1:
            self._wrong(entry, "has a wrong depth")
        if self.blocks.get(fork["height"], fork["hash"]) != fork["hash"]:
            self._wrong(entry, "has a fork point that was not told")
        self.blocks = {
            height: block for height, block in self.blocks.items() if height <= fork["height"]
        }
        self.tip = fork["height"]

    def _parted(self, address, listed, told):
        """Whether what is listed is not what was told last. A scan may have found it, or what else
        of the address it spent.
        """
        if address not in self.scanned or listed is None:
            return listed != told
        if told is None:
            return listed[0] != "confirmed"
        return listed[:2] != told[:2] or any(
            now < before for now, before in zip(listed[2:], told[2:])
        )

    def balance_at(self, address, number):
        """As told up to this event."""
        moves = self.balance_moves.get(address, [])
        place = bisect.bisect_right(moves, (number, float("inf")))
        return moves[place - 1][1] if place else 0

    def _check_witness(self, ledger):
        """What was told since the last time, beside what the node published."""
        for event, _, text in self.entries[self.checked :]:
            data = json.loads(text)
            entry, moment = {"event": event, "data": data}, data["timestamp"]
            if (
                event == "block"
                and data["hash"] not in self.witness.connected
                and data["hash"] not in ledger.blocks
            ):
                self._wrong(entry, "tells a block that the node never connected")
            for tx in data.get("transactions", [data] if event == "transaction_update" else []):
                self._check_seen(entry, subject_of(data), tx, moment)
        self.checked = len(self.entries)

    def _check_seen(self, entry, address, tx, moment):
        txid, status = tx["txid"], tx["status"]
        if status == "mempool" and not self.witness.came_before(txid, moment):
            self._wrong(entry, f"tells {txid} in a mempool that never took it")
        if status in ("replaced", "conflicted", "evicted"):
            if not self.witness.left_between(txid, self.gone.get((address, txid), 0), moment):
                self._wrong(entry, f"tells {txid} as gone, which it was not")
            self.gone[(address, txid)] = moment

    def differences(self, truth):
        """What was told in the end, beside what is: call it when daemon and node agree."""
        self._check_witness(truth.ledger)
        found, self.wrong = self.wrong, []
        daemon = truth.world.daemon
        about = {address.text: f"/{{}}/{address.text}" for address in truth.scripts.values()}
        for wallet in truth.world.added_wallets():
            about[wallet.id] = f"/descriptors/{wallet.id}/{{}}"
        for text, path in about.items():
            balance, told = (
                daemon.get(path.format("balance"))["balance"],
                self.balances.get(text, 0),
            )
            if balance != told:
                found.append(f"{text}: the events end with {told}, its balance is {balance}")
            said = daemon.get(path.format("transactions") + "?limit=5000")["transactions"]
            listed = {tx["txid"]: facts(tx) for tx in said}
            told = {txid: last for (who, txid), last in self.told.items() if who == text}
            for txid in listed.keys() | told.keys():
                if self._parted(text, listed.get(txid), told.get(txid)):
                    found.append(
                        f"{text}: the events end with {told.get(txid)} for {txid}, /transactions says {listed.get(txid)}"
                    )
        if self.tip is not None and (
            self.tip != truth.height or self.blocks.get(self.tip, truth.tip) != truth.tip
        ):
            found.append(
                f"the events end on block {self.tip} {self.blocks.get(self.tip)}, the tip is {truth.height} {truth.tip}"
            )
        chain = truth.ledger.chain
        found += [
            f"the events tell block {h} as {b}, it is {chain[h]}"
            for h, b in self.blocks.items()
            if h < len(chain) and chain[h] != b
        ]
        return found
