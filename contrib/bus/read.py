#!/usr/bin/env python3
"""Reads satwatch's stream in Redis with the stock client, from now on or from a cursor: one JSON
line for each event, each once and in order, also over a restart of Redis. What to do at a gap and
when the stream moves is in contrib/docs/bus.md.

    pip install redis
    python read.py redis://127.0.0.1:6379 [satwatch:main] [CURSOR]
"""

from __future__ import annotations

import json
import sys
import time

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry


def number_of(cursor: str) -> str:
    return cursor.rpartition("-")[2]


def knows(starts: list, cursor: str) -> bool:
    """Whether a cursor is of the log with these starts: [id, first number, last one before]."""
    start, _, number = cursor.rpartition("-")
    if not number.isdigit():
        return False
    for index, (own, first, _) in enumerate(starts):
        after = starts[index + 1] if index + 1 < len(starts) else None
        if first <= int(number) and (after is None or int(number) < after[1]):
            return start == own and (after is None or int(number) <= after[2])
    return False


def follow(url: str, name: str, cursor: str | None):
    # Asks again, for ever, when the connection breaks.
    retry = Retry(ConstantBackoff(1), -1)
    server = redis.Redis.from_url(url, decode_responses=True, retry=retry)
    pointer = "{" + name + "}"
    n = None
    while True:
        current, left, start = server.hmget(pointer, "current", "left", "from")
        if current is None:
            time.sleep(1)
            continue
        if cursor is None:
            last = server.xrevrange(f"{pointer}:{current}", count=1)
            ends = [start] + [fields["cursor"] for _, fields in last]
            cursor = max(ends, key=lambda end: int(number_of(end)))
            n = current
        n = n or left or current
        place = {f"{pointer}:{n}": f"{number_of(cursor)}-0"}
        found = server.xread(place, count=1000, block=1000 if n == current else None)
        # Behind the entries: those that these starts know are of the log that the pointer names by
        # then.
        now, starts = server.hmget(pointer, "current", "starts")
        if now is None:
            continue
        log = json.loads(starts)
        if not knows(log, cursor):
            raise SystemExit(
                f"the log is another one now: take balances anew from satwatch, not from {cursor}"
            )
        entries = found[0][1] if found else []
        fits = True
        for _, fields in entries:
            fits = knows(log, fields.get("cursor", "")) and fields["after"] == number_of(cursor)
            if not fits:
                break
            cursor = fields["cursor"]
            yield fields | {"data": json.loads(fields["data"])}
        if entries and fits:
            continue
        # The stream that was left is read to its end before the next one.
        if n == now and not fits:
            raise SystemExit(
                f"entries were trimmed: get what follows {cursor} from satwatch (GET /events?after=)"
            )
        n = now


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python read.py URL [NAME] [CURSOR]")
    words = sys.argv[1:] + ["satwatch:main", None][len(sys.argv) - 2 :]
    for event in follow(*words[:3]):
        print(json.dumps(event), flush=True)
