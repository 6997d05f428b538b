#!/usr/bin/env python3
"""Prints every event about the given addresses and wallets (descriptors, or their ids) as one JSON
line, each once and in order, also over breaks of the connection and restarts of the daemon.

    pip install -r requirements.txt
    python watch.py http://127.0.0.1:5005 ADDRESS|DESCRIPTOR|ID...
"""

import asyncio
import json
import os
import re
import signal
import sys

import socketio

# These carry a cursor that is no place to come back to: events before it may not have come yet.
NO_PLACE = ("connected", "lagged", "error")
# The daemon wants a token, or another one.
NO_TOKEN = ("unauthorized", "forbidden")


def requests(watched):
    """What to emit for each of them: a wallet by itself, all addresses together."""
    addresses = []
    for text in watched:
        if re.fullmatch("[0-9a-f]{64}", text):
            yield "subscribe_descriptor", {"descriptor_id": text}
        # No address is as long as an extended key.
        elif "(" in text or len(text) > 100:
            yield "subscribe_descriptor", {"descriptor": text}
        else:
            addresses.append(text)
    if addresses:
        yield "subscribe_addresses", {"addresses": addresses}


class Watcher:
    def __init__(self, url, watched):
        self.url, self.requests = url, list(requests(watched))
        # Where to go on after a break: the cursor of the last event, `subscribed` or `caught_up`. A
        # program that must survive its own end, too, keeps it in its database, in the transaction
        # that does the work.
        self.cursor = None
        # A cursor belongs to what was asked for with it. On a new connection it is overwritten only
        # when every `subscribed` that is waited for has come: one for all addresses, and one for
        # each wallet.
        self.waiting = len(self.requests)
        # Handlers of the synchronous client run in threads, where one may overtake another. Those
        # of this one that are no coroutines run one after the other, in order.
        self.sio = socketio.AsyncClient(handle_sigint=False)
        # Whether it was said that there is no connection: once is enough.
        self.unreachable = False
        # On every connection, the first and those after a break: subscriptions belong to one.
        self.sio.on("connect", self.subscribe)
        self.sio.on("connect_error", self.not_connected)
        self.sio.on("disconnect", lambda reason: note(f"disconnected: {reason}"))
        self.sio.on("*", self.hear)

    async def subscribe(self):
        self.waiting, self.unreachable = len(self.requests), False
        after = {"after": self.cursor} if self.cursor else {}
        for event, request in self.requests:
            await self.sio.emit(event, {**request, **after})

    def not_connected(self, error):
        if isinstance(error, dict) and "data" in error:
            # A refusal by the daemon; anything else is tried again by the library.
            self.refused(error["data"])
        elif not self.unreachable:
            note(f"cannot connect to {self.url}: {error}. Trying again.")
        self.unreachable = True

    def hear(self, event, data):
        try:
            print(json.dumps({"event": event, "data": data}), flush=True)
        except BrokenPipeError:
            os._exit(141)  # nobody reads on
        if event == "error":
            self.refused(data)
        elif event == "subscribed":
            self.waiting -= 1
        if self.waiting == 0 and event not in NO_PLACE and "cursor" in data:
            self.cursor = data["cursor"]

    def refused(self, error):
        if error["code"] in ("cursor_unknown", "cursor_expired"):
            # `subscribed` comes next, with the balances as they are and a cursor to go on from. A
            # shop compares them, or GET /transactions, with its books.
            note(f"events after {self.cursor} cannot be told any more: {error['error']}")
        elif error["code"] == "rate_limited" or (self.cursor and error["code"] not in NO_TOKEN):
            # What was right before is right still; it may pass.
            note(f"{error['error']} Trying again in 5 seconds.")
            self.sio.start_background_task(self.subscribe_later, self.sio.get_sid())
        else:
            note(error["error"])
            os._exit(1)

    async def subscribe_later(self, sid):
        await self.sio.sleep(5)
        # A connection that is made meanwhile subscribes by itself.
        if self.sio.connected and self.sio.get_sid() == sid:
            await self.subscribe()

    async def run(self):
        token = os.environ.get("SATWATCH_TOKEN")
        while True:
            try:
                await self.sio.connect(self.url, auth={"token": token}, retry=True)
                break
            except socketio.exceptions.ConnectionError:
                # A refusal that passes: at the first connection the library tries only what fails
                # before.
                await asyncio.sleep(5)
        await self.sio.wait()
        # The daemon has ended it: the library comes back after anything else.
        sys.exit(1)


def note(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python watch.py URL ADDRESS|DESCRIPTOR|ID...")
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    asyncio.run(Watcher(sys.argv[1], sys.argv[2:]).run())
