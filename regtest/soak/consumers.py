"""What readers of named consumers wrote down, held against the event log.

Each reading goes on from where the consumer stands, in order and without a gap, byte for byte; it
stands at what was acknowledged and never before that; and all readers together got every event that
the consumer wants. So what is repeated is what was not acknowledged.
"""

import bisect
import collections

from log_check import is_wallet
from streams import Tail
from wire import number


class Consumer:
    """`addresses`: None for all. `wallets`: all of them, too."""

    def __init__(self, name, log, addresses, blocks, wallets=False):
        self.name, self.log, self.blocks, self.wallets = name, log, blocks, wallets
        self.addresses = None if addresses is None else set(addresses)
        self.definition = {
            "addresses": "all" if addresses is None else addresses,
            "blocks": blocks,
            **({"descriptors": "all"} if wallets else {}),
        }
        """Where it began; numbers of the events it wants, as far as the log is known."""
        self.first, self.expected, self.known = None, [], 0
        """Events that some reader got, places that some reader acknowledged, and places at which
        readings began with who says so.
        """
        self.got, self.sent, self.claims = set(), set(), []

    def extend(self):
        entries = self.log.entries
        for place in range(max(self.known, self.first), len(entries)):
            if self.wants(entries[place][1]):
                self.expected.append(place + 1)
        self.known = len(entries)

    def wants(self, subject):
        if subject is None:
            return self.blocks
        if is_wallet(subject):
            return self.wallets
        return self.addresses is None or subject in self.addresses

    def after(self, place):
        """The first event that it wants after this place."""
        index = bisect.bisect_right(self.expected, place)
        return self.expected[index] if index < len(self.expected) else None

    def missing(self):
        lost = [place for place in self.expected if place not in self.got]
        return (
            [
                f"{self.name}: {len(lost)} events reached no reader, the first is {lost[0]} {self.log.entries[lost[0] - 1]}"
            ]
            if lost
            else []
        )

    def shown(self, daemon):
        """What the daemon says of it, when the log is read; what of that is wrong."""
        said = daemon.get(f"/consumers/{self.name}")
        place = number(said["cursor"])
        oldest = self.after(place)
        owed = 0 if oldest is None else number(said["head"]) - oldest + 1
        found = []
        if said["lag"] != owed:
            found.append(
                f"{self.name}: lags by {said['lag']} at {place}, says the daemon; the first event that it wants after that is {oldest} of {said['head']}"
            )
        if (said["lag_seconds"] > 0) != (owed > 0):
            found.append(f"{self.name}: lags by {said['lag_seconds']} seconds with {owed} events")
        return found

    def false_claims(self):
        """Once all files are read."""
        claims, self.claims = self.claims, []
        return [
            f"{who}: reads from {place}, which nobody acknowledged"
            for who, place in claims
            if place not in self.sent | {self.first}
        ]


class ReadingCheck:
    """The file of one reader."""

    def __init__(self, name, path, consumer, rival=False):
        self.name, self.consumer, self.tail, self.rival = name, consumer, Tail(path), rival
        self.wrong, self.counts = [], collections.Counter()
        """The place up to which this reading has come; None when it does not read."""
        self.place = None
        """By this reader: answered acknowledgements, and those on their way."""
        self.answered, self.asked = None, []
        """A page begins, from wherever the consumer stands."""
        self.page = False

    def read(self):
        self.consumer.extend()
        self.tail.read()
        while self.tail.records:
            record = self.tail.records[0]
            if (
                record["r"] != "error"
                and record.get("cursor")
                and number(record["cursor"]) > self.consumer.known
            ):
                return
            self.tail.records.popleft()
            self.counts[record["r"]] += 1
            getattr(self, "_" + record["r"])(record)

    def missing(self):
        """The consumer's: any reader will do."""
        return []

    def _say(self, what):
        self.wrong.append(f"{self.name}: {what}")

    def _show(self, place):
        return f"{place} {self.consumer.log.entries[place - 1]}" if place else "nothing"

    def _start(self, record):
        # What it had acknowledged when it was killed may have come to the daemon.
        self.place = None

    _unread = _connect = _start

    def _disconnect(self, record):
        """The client's library may hand out what came before only now."""

    def _reading(self, record):
        if record.get("code"):
            self._say(f"its reading begins with {record['code']}")
        self.place = number(record["cursor"])
        self.consumer.claims.append((self.name, self.place))
        if self.answered is not None and self.place < self.answered:
            self._say(f"reads from {self.place}, and had acknowledged up to {self.answered}")

    def _page(self, record):
        self.page = True

    def _caught_up(self, record):
        due = self.place is not None and self.consumer.after(self.place)
        if due and due <= number(record["cursor"]):
            self._say(f"caught up at {record['cursor']} without {self._show(due)}")

    def _event(self, record):
        place = number(record["cursor"])
        if self.page:
            self.page = False
            stands = [
                self.answered if self.answered is not None else self.consumer.first,
                *(asked for asked in self.asked if asked > (self.answered or 0)),
            ]
            due = [self.consumer.after(at) for at in stands]
        else:
            due = [] if self.place is None else [self.consumer.after(self.place)]
        if place not in due:
            self._say(
                f"got {self._show(place)}, the next should have been {' or '.join(map(self._show, due)) or 'nothing'}"
            )
        event, _, text = self.consumer.log.entries[place - 1]
        if (record["name"], record["raw"]) != (event, text):
            self._say(f"got {record['name']} {record['raw']}, the log has {self._show(place)}")
        self.place = place
        self.consumer.got.add(place)

    def _ack(self, record):
        self.asked.append(number(record["cursor"]))
        self.consumer.sent.add(number(record["cursor"]))

    def _acked(self, record):
        asked = number(record["asked"])
        self.asked = [place for place in self.asked if place != asked]
        if "code" in record:
            # Its rival may have taken over while the acknowledgement was on its way.
            taken = record["code"] == "consumer_taken" and self.rival
            if record["code"] != "stopping" and not taken:
                self._say(f"its acknowledgement of {asked} was refused: {record}")
            return
        if number(record["cursor"]) < asked:
            self._say(f"acknowledged {asked} and the consumer stands at {record['cursor']}")
        self.answered = max(self.answered or 0, number(record["cursor"]))

    def _error(self, record):
        code = record["code"]
        if code == "consumer_taken" and self.rival:
            self.place = None
        # One that was killed may be missed a moment later than it is back.
        elif code not in ("stopping", "consumer_busy"):
            self._say(f"error {record}")

    def _bug(self, record):
        self._say(record["text"])
