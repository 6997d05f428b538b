"""What a client wrote down, held against the event log: all that it asked for, in order, once, byte
for byte.

A stream is what a client asked for at once (an address, or a list) and keeps one cursor for. From
its first `subscribed` on, over all connections, restarts and kills, its events must be exactly
those of the log, and what `subscribed`, `lagged` and `caught_up` claim must be true.
"""

import bisect
import collections
import json

from log_check import is_wallet
from wire import number


class Stream:
    def __init__(self, name):
        self.name = name
        """Numbers of the events that it should get, as far as the log is known; index of the next
        one.
        """
        self.expected, self.next = [], 0
        """Up to there it has everything; None before the first answer."""
        self.done = None
        """Asked for on the present connection; and told all that there was, so that it hears what
        comes.
        """
        self.wanted = self.live = False

    def go_to(self, place):
        self.done, self.next = place, bisect.bisect_right(self.expected, place)

    def owed(self, place):
        """The first event up to this number that it has not got."""
        due = self.expected[self.next] if self.next < len(self.expected) else None
        return due if due is not None and due <= place else None


class Tail:
    """The records of a file, as they come."""

    def __init__(self, path):
        self.path, self.place, self.records = path, 0, collections.deque()

    def read(self):
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(self.place)
            text = file.read()
        whole = text.rfind(b"\n") + 1
        self.place += whole
        self.records.extend(json.loads(line) for line in text[:whole].splitlines())


class Check:
    """One client's file. `wants`: stream name -> its addresses and wallets, None for blocks and
    reorgs.
    """

    def __init__(self, name, path, log, wants, picky=True):
        self.name, self.log, self.tail = name, log, Tail(path)
        self.streams = {stream: Stream(stream) for stream in wants}
        self.owners, self.known = collections.defaultdict(list), 0
        for stream, addresses in wants.items():
            for address in addresses if addresses is not None else [None]:
                self.owners[address].append(self.streams[stream])
        """Whether it always wants all of its streams."""
        self.picky, self.connected = picky, False
        self.wrong, self.counts = [], collections.Counter()

    def extend(self):
        """The log was read on."""
        entries = self.log.entries
        for place in range(self.known, len(entries)):
            for stream in self.owners.get(entries[place][1], ()):
                stream.expected.append(place + 1)
        self.known = len(entries)

    def read(self):
        """Takes in what the client wrote since, as far as the log is known."""
        self.extend()
        self.tail.read()
        while self.tail.records:
            record = self.tail.records[0]
            cursors = [record["cursor"]] if record.get("cursor") and record["r"] != "error" else []
            if any(
                number(cursor) > self.known
                for cursor in cursors + [cursor for _, _, cursor in record.get("balances", ())]
            ):
                return
            self.tail.records.popleft()
            self.counts[record["r"]] += 1
            getattr(self, "_" + record["r"])(record)

    def missing(self):
        """What it should still get, in words; empty when it has everything."""
        if self.tail.records:
            return [f"{self.name}: is ahead of the log with {self.tail.records[0]}"]
        if not self.connected:
            return [f"{self.name}: has no connection"]
        found = []
        for stream in self.streams.values():
            if not stream.wanted and self.picky:
                found.append(f"{self.name}: {stream.name} is not subscribed")
            elif stream.wanted and stream.next < len(stream.expected):
                due = stream.expected[stream.next]
                found.append(
                    f"{self.name}: {stream.name} has not got {len(stream.expected) - stream.next} events, the first is {self._show(due)}"
                )
        return found

    def _show(self, place):
        return f"{place} {self.log.entries[place - 1]}"

    def _say(self, what):
        self.wrong.append(f"{self.name}: {what}")

    def _start(self, record):
        self._connect(record)
        self.connected = False

    def _connect(self, record):
        self.connected = True
        for stream in self.streams.values():
            stream.wanted = stream.live = False

    def _disconnect(self, record):
        self.connected = False

    def _subscribed(self, record):
        stream, place = self.streams[record["group"]], number(record["cursor"])
        if record.get("code"):
            self._say(f"{stream.name}: subscribed with {record['code']}")
        for address, balance, cursor in record["balances"]:
            told = self.log.balance_at(address, number(cursor))
            if balance != told:
                self._say(
                    f"{stream.name}: subscribed says that {address} has {balance} at {cursor}, the events up to there say {told}"
                )
        if not record["fresh"]:
            if place != stream.done:
                self._say(
                    f"{stream.name}: subscribed after {stream.done} and was answered with {record['cursor']}"
                )
        elif stream.wanted and stream.owed(place):
            self._say(
                f"{stream.name}: subscribed again at {place} and was not told {self._show(stream.owed(place))}"
            )
        stream.go_to(place)
        stream.live = record["fresh"]
        stream.wanted = True

    def _unsubscribed(self, record):
        stream = self.streams[record["group"]]
        stream.wanted = stream.live = False

    def _caught_up(self, record):
        place = number(record["cursor"])
        if record["group"] is None:
            return self._all_told(record, place)
        stream = self.streams[record["group"]]
        if stream.owed(place):
            self._say(
                f"{stream.name}: caught up at {place} without {self._show(stream.owed(place))}"
            )
        stream.go_to(place)
        stream.live = True
        return None

    def _lagged(self, record):
        self._all_told(record, number(record["cursor"]))

    def _all_told(self, record, place):
        for stream in self.streams.values():
            if stream.live and stream.owed(place):
                self._say(
                    f"{stream.name}: {record['r']} at {place} without {self._show(stream.owed(place))}"
                )

    def _error(self, record):
        # A daemon that ends says so.
        if record["code"] != "stopping":
            self._say(f"error {record}")

    def _bug(self, record):
        self._say(record["text"])

    def _event(self, record):
        stream, place = self.streams[record["group"]], number(record["cursor"])
        if not stream.wanted:
            self._say(f"{stream.name}: is not subscribed and got {self._show(place)}")
        due = stream.expected[stream.next] if stream.next < len(stream.expected) else None
        if place != due:
            self._say(
                f"{stream.name}: got {self._show(place)}, the next should have been {due and self._show(due)}"
            )
        event, _, text = self.log.entries[place - 1]
        if (record["name"], record["raw"]) != (event, text):
            self._say(
                f"{stream.name}: got {record['name']} {record['raw']}, the log has {self._show(place)}"
            )
        stream.go_to(place)


class ReaderCheck(Check):
    """Of `GET /events`: from the first event on, connection or not."""

    def __init__(self, name, path, log, addresses):
        """`addresses`: None for all, and blocks."""
        super().__init__(name, path, log, {"log": addresses or []})
        self.all = addresses is None
        self.connected = True
        self.streams["log"].go_to(0)
        self.streams["log"].wanted = True

    def extend(self):
        if self.all:
            # Whoever names nobody is not told of wallets.
            self.streams["log"].expected.extend(
                place + 1
                for place in range(self.known, len(self.log.entries))
                if not is_wallet(self.log.entries[place][1])
            )
        super().extend()

    def _start(self, record):
        pass
