#!/usr/bin/env python3
"""Prints every event about the given addresses and wallets (descriptors, or their ids) as one JSON
line, each once and in order, also over breaks of the connection and restarts of the daemon. With a
file for the cursors (CURSOR_FILE), also over its own end.

    pip install -r requirements.txt
    python watch.py http://127.0.0.1:5005 ADDRESS|DESCRIPTOR|ID...
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from satwatch import Refused, follow


async def main(url: str, watched: list[str]) -> None:
    async for event in follow(url, watched, cursor_file=os.environ.get("CURSOR_FILE")):
        try:
            print(json.dumps(event), flush=True)
        except BrokenPipeError:
            os._exit(141)  # nobody reads on


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python watch.py URL ADDRESS|DESCRIPTOR|ID...")
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2:]))
    except Refused as refused:
        sys.exit(str(refused))
