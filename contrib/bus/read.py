#!/usr/bin/env python3
"""Reads satwatch's stream in Redis with the stock client, from now on or from a cursor: one JSON
line for each event, each once and in order. What to do at a gap and when the stream moves is in
contrib/docs/bus.md.

    pip install redis
    python read.py redis://127.0.0.1:6379 [satwatch:main] [CURSOR]
"""

from __future__ import annotations

import json
import sys

import redis


def knows(starts: list, cursor: str) -> bool:
    """Whether a cursor is of the log with these starts: [id, first number, last one before]."""
    start, _, number = cursor.rpartition("-")
    for index, (own, first, _) in enumerate(starts):
        after = starts[index + 1] if index + 1 < len(starts) else None
        if first <= int(number) and (after is None or int(number) < after[1]):
            return start == own and (after is None or int(number) <= after[2])
    return False


def follow(url: str, name: str, cursor: str | None):
    server = redis.Redis.from_url(url, decode_responses=True)
    pointer = "{" + name + "}"
    while True:
        current = server.hget(pointer, "current")
        if current and cursor is None:
            last = server.xrevrange(f"{pointer}:{current}", count=1)
            cursor = last[0][1]["cursor"] if last else None
        number = cursor.rpartition("-")[2] if cursor else "0"
        stream = f"{pointer}:{current or 0}"
        found = server.xread({stream: f"{number}-0"}, count=1000, block=1000)
        # Behind the entries: they are of the log that the pointer names by then.
        now, starts = server.hmget(pointer, "current", "starts")
        if now is None:
            continue
        if cursor and not knows(json.loads(starts), cursor):
            raise SystemExit(
                f"the log is another one now: take balances anew from satwatch, not from {cursor}"
            )
        if now != current:
            continue
        for _, fields in found[0][1] if found else []:
            if cursor and int(fields["after"]) != int(cursor.rpartition("-")[2]):
                raise SystemExit(
                    f"entries were trimmed: get what follows {cursor} from satwatch (GET /events?after=)"
                )
            cursor = fields["cursor"]
            yield fields | {"data": json.loads(fields["data"])}


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python read.py URL [NAME] [CURSOR]")
    words = sys.argv[1:] + ["satwatch:main", None][len(sys.argv) - 2 :]
    for event in follow(*words[:3]):
        print(json.dumps(event), flush=True)
