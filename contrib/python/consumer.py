#!/usr/bin/env python3
"""The backend of a shop that stores no cursor of its own: the daemon knows what it has done, and
after any crash goes on from there.

pip install -r requirements.txt
python consumer.py http://127.0.0.1:5005 shop ADDRESS...
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from satwatch import Refused, consume


async def main(url: str, name: str, addresses: list[str]) -> None:
    async for event in consume(url, name, {"addresses": addresses}):
        # The work. What was not acknowledged comes again after a crash, so doing it twice must do
        # no harm: keep the cursor with the result.
        print(json.dumps(event), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python consumer.py URL NAME ADDRESS...")
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
    except Refused as refused:
        sys.exit(str(refused))
