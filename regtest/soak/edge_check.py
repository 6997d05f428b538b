"""What the clients of edges wrote down, held against the logs of the primary.

A log is what the primary had to tell until its folder was replaced by an older copy: the first
part of the next one is the same, what follows is not. A record is all that a client ever got for
one thing that it asked for, over all connections, to whichever edge. Each connection begins where
the one before ended; from there on the record is that log, filtered to what was asked for, in
order, once, byte for byte. The client may go over to a later log only where a connection begins,
and only that way may it be told `cursor_unknown`. At the end it has everything of the last log.
"""

import bisect
import json
import random

from log_check import is_wallet
from wire import entries_of, number, subject_of

PAGE = 1000


class Log:
    def __init__(self):
        """(number, cursor, event, subject, data as it came); the starts that its cursors are of."""
        self.entries, self.starts, self.head = [], [], 0
        self.balances = {}

    def read(self, daemon):
        """On to the head, which is only known to be of this log if the starts are read behind."""
        while True:
            after = f"&after={self.entries[-1][1]}" if self.entries else ""
            path = f"/events?address=all&descriptor=all&limit={PAGE}{after}"
            found, page = entries_of(daemon.text(path))
            for cursor, event, raw in found:
                data = json.loads(raw)
                self.entries.append((number(cursor), cursor, event, subject_of(data), raw))
                if event == "balance_change":
                    moves = self.balances.setdefault(subject_of(data), [])
                    moves.append((number(cursor), data["new_balance"]))
            if not found:
                break
        self.head = max(self.head, number(page["head"]))
        self.starts = daemon.get("/edge")["starts"]
        return self

    def knows(self, cursor):
        own, place = cursor.rsplit("-", 1)[0], number(cursor)
        at = bisect.bisect_right([first for _, first, _ in self.starts], place) - 1
        held = self.starts[at + 1][2] if at + 1 < len(self.starts) else place
        return own == self.starts[at][0] and place <= held

    def balance_at(self, subject, place):
        moves = self.balances.get(subject, [])
        at = bisect.bisect_right(moves, (place, float("inf")))
        return moves[at - 1][1] if at else 0


class Wanted:
    """What a record is about."""

    def __init__(self, subjects):
        """`subjects`: addresses and wallets; None: blocks and reorgs; "all": those and every
        address.
        """
        self.subjects = subjects
        self.known = []

    def has(self, subject):
        if self.subjects is None:
            return subject is None
        if self.subjects == "all":
            # Whoever names nobody is not told of wallets.
            return not is_wallet(subject)
        return subject in self.subjects

    def of(self, log):
        """Numbers and places of its events in a log, which only grows."""
        for known in self.known:
            if known[0] is log:
                break
        else:
            known = [log, 0, [], []]
            self.known.append(known)
        for at in range(known[1], len(log.entries)):
            if self.has(log.entries[at][3]):
                known[2].append(log.entries[at][0])
                known[3].append(at)
        known[1] = len(log.entries)
        return known[2], known[3]


class Following:
    """One pass over a record. Its items are tuples, the first says what they are:

    connect
    begin    cursor asked for (or None), cursor answered, code or None, balances
    event    cursor, name, data as it came
    place    cursor up to which all was told
    told     the same, of a cursor that is no place to come back to
    """

    def __init__(self, name, wanted, logs):
        self.name, self.wanted, self.logs = name, wanted, logs
        """Those that the present connection may be of; the cursor that it has everything up to."""
        self.possible, self.cursor = list(logs), None
        self.live = False
        self.wrong, self.events, self.unknown = [], 0, 0

    def say(self, what):
        self.wrong.append(f"{self.name}: {what}")

    def follow(self, items):
        for item in items:
            getattr(self, "_" + item[0])(*item[1:])
        return self

    def _connect(self):
        self.live = False

    def _begin(self, asked, cursor, code, balances):
        if self.cursor is not None and asked is not None and asked != self.cursor:
            self.say(f"asked for what is after {asked}, it had everything up to {self.cursor}")
        knowing = [log for log in self.logs if log.knows(cursor)]
        if not knowing:
            self.say(f"begins at {cursor}, which is of no log")
        if code == "cursor_unknown":
            self.unknown += 1
            knowing = [log for log in knowing if not log.knows(asked)]
            if not knowing:
                self.say(f"{asked} was cursor_unknown, but the log that has {cursor} knows it")
        elif code:
            self.say(f"{code} after {asked}, and nothing was ever deleted")
        elif asked is not None and cursor != asked:
            self.say(f"asked for what is after {asked} and begins at {cursor}")
        for subject, balance, at in balances:
            told = [log.balance_at(subject, number(at)) for log in knowing if log.knows(at)]
            if balance not in told:
                self.say(f"{subject} has {balance} at {at}; by the events up to there {told}")
        self.possible, self.cursor, self.live = knowing or list(self.logs), cursor, True

    def _place(self, cursor):
        place = number(cursor)
        knowing = [log for log in self.possible if log.knows(cursor)]
        if not knowing:
            self.say(f"is at {cursor}, which is not of the log of this connection")
        elif self.cursor is not None and place < number(self.cursor):
            self.say(f"is back at {cursor} from {self.cursor}")
        else:
            whole = [log for log in knowing if not self._owed(log, place)]
            if not whole:
                due = self._owed(knowing[-1], place)
                self.say(f"is told to have all up to {cursor}, MISSING {due}")
            knowing = whole or knowing
        self.possible, self.cursor = knowing or list(self.logs), cursor

    def _told(self, cursor):
        place = number(cursor)
        dues = [self._owed(log, place) for log in self.possible if log.knows(cursor)]
        if not dues:
            self.say(f"is told of {cursor}, which is not of the log of this connection")
        elif all(dues):
            self.say(f"is told to have all up to {cursor}, MISSING {dues[-1]}")

    def _next(self, log):
        numbers, places = self.wanted.of(log)
        at = bisect.bisect_right(numbers, number(self.cursor)) if self.cursor else 0
        return log.entries[places[at]] if at < len(places) else None

    def _owed(self, log, place):
        """The first event up to there that it has not got."""
        due = self._next(log)
        return due if due is not None and due[0] <= place else None

    def _event(self, cursor, name, raw):
        self.events += 1
        dues = [(log, self._next(log)) for log in self.possible]
        fitting = [log for log, due in dues if due is not None and due[1] == cursor]
        if not fitting:
            self._say_unfit(cursor, name, raw, [due for _, due in dues])
        elif all((due[2], due[4]) != (name, raw) for log, due in dues if log in fitting):
            due = fitting[0].entries
            self.say(f"{cursor} is {name} {raw}, the log has {[e for e in due if e[1] == cursor]}")
        fitting = fitting or [log for log in self.logs if log.knows(cursor)]
        self.possible, self.cursor = fitting or list(self.logs), cursor

    def _say_unfit(self, cursor, name, raw, dues):
        last = number(self.cursor) if self.cursor else 0
        known = any(log.knows(cursor) for log in self.possible)
        what = "is DOUBLED, or out of order" if number(cursor) <= last else "comes too EARLY"
        if not known:
            what = "is of another log than this connection"
        self.say(f"{cursor} {name} {what}: behind {self.cursor} follows {dues}: {raw[:300]}")

    def missing(self):
        """What it should still get of the last log, in words."""
        last = self.logs[-1]
        if not self.live:
            return [f"{self.name}: is not subscribed"]
        if self.cursor is not None and not last.knows(self.cursor):
            return [f"{self.name}: stands at {self.cursor}, which is of a log that is gone"]
        due = self._next(last)
        return [f"{self.name}: MISSING what is behind {self.cursor}: {due}"] if due else []


def without(items, at):
    return items[:at] + items[at + 1 :]


def twice(items, at):
    return items[: at + 1] + items[at:]


def altered(items, at):
    kind, cursor, name, raw = items[at]
    return [*items[:at], (kind, cursor, name, raw.replace("{", "{ ", 1)), *items[at + 1 :]]


def swapped(items, at):
    return [*items[:at], items[at + 1], items[at], *items[at + 2 :]]


def spoil(name, wanted, items, logs, seed):
    """How many spoilt copies of a record were tried, and those that were not found to be wrong.

    Only events that are followed by another one are spoilt: that a connection told too little
    before it ended shows in what comes later.
    """
    choice, tried, unseen = random.Random(f"{seed} {name}"), 0, []
    pairs = zip(items, items[1:])
    places = [at for at, pair in enumerate(pairs) if pair[0][0] == pair[1][0] == "event"]
    for way in (without, twice, altered, swapped):
        for at in choice.sample(places, min(3, len(places))):
            tried += 1
            spoilt = Following(name, wanted, logs).follow(way(items, at))
            if not spoilt.wrong + spoilt.missing():
                unseen.append(f"{name}: {way.__name__} {at} is not seen: {items[at]}")
    return tried, unseen
