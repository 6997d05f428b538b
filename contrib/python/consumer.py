#!/usr/bin/env python3
"""The backend of a shop that stores no cursor of its own: the daemon knows what it has done, and
after any crash goes on from there.

pip install -r requirements.txt
python consumer.py http://127.0.0.1:5005 shop ADDRESS...
"""

import asyncio
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import socketio

TOKEN = os.environ.get("SATWATCH_TOKEN")
EVENTS = ("new_transactions", "balance_change", "transaction_update", "scan_complete", "unwatched", "label_change")


async def work(event, data):
    """What was not acknowledged comes again after a crash, so doing it twice must do no harm: keep
    the cursor with the result.
    """
    print(json.dumps({"event": event, "data": data}), flush=True)


def define(url, consumer, addresses):
    """At every start: a definition that is there already changes nothing."""
    body = json.dumps({"addresses": addresses}).encode()
    headers = {"Content-Type": "application/json"}
    if TOKEN:
        headers["Authorization"] = f"Bearer {TOKEN}"
    path = f"/consumers/{urllib.parse.quote(consumer, safe='')}"
    request = urllib.request.Request(url + path, body, headers, method="PUT")
    while True:
        try:
            return urllib.request.urlopen(request).close()
        except urllib.error.HTTPError as refused:
            answer = json.load(refused)
            if answer["code"] != "rate_limited":
                sys.exit(answer["error"])
            print(f"{answer['error']} Trying again.", file=sys.stderr)
            time.sleep(int(refused.headers["Retry-After"]))
        except OSError as error:
            cannot_reach(url, getattr(error, "reason", error))
            time.sleep(5)


def cannot_reach(url, why):
    print(f"cannot reach {url}: {why}. Trying again.", file=sys.stderr)


def give_up(why):
    print(why, file=sys.stderr, flush=True)
    os._exit(1)


async def main(url, consumer, *addresses):
    define(url, consumer, addresses)
    sio = socketio.AsyncClient(handle_sigint=False)
    # One after the other: an acknowledgement says that everything before it is done, too.
    todo = asyncio.Queue()

    async def subscribe():
        # What was not acknowledged comes again.
        while not todo.empty():
            todo.get_nowait()
        await sio.emit("subscribe_consumer", {"consumer": consumer})

    sio.on("connect", subscribe)
    # Connections that are to be tried again: once, although each acknowledgement may be refused.
    again = set()

    async def subscribe_later(sid):
        await sio.sleep(5)
        again.discard(sid)
        # A connection that is made meanwhile subscribes by itself.
        if sio.connected and sio.get_sid() == sid:
            await subscribe()

    for event in EVENTS:
        sio.on(event, lambda data, event=event: todo.put_nowait((event, data)))

    @sio.event
    async def subscribed_consumer(data):
        print(data.get("error") or f"{data['lag']} events to catch up on", file=sys.stderr)

    @sio.event
    def connect_error(error):
        is_refusal = isinstance(error, dict) and "data" in error
        # Anything but a refusal by the daemon is tried again by the library.
        if is_refusal and error["data"]["code"] != "rate_limited":
            give_up(error["message"])
        cannot_reach(url, error)

    @sio.event
    async def error(data):
        # Somebody else does the work now, nobody shall, or the token has ended.
        if data["code"] in ("consumer_taken", "consumer_gone", "unauthorized"):
            give_up(data["error"])
        print(data["error"], file=sys.stderr)
        if data["code"] in ("consumer_changed", "cursor_expired"):
            await subscribe()
        elif sio.get_sid() not in again:
            again.add(sio.get_sid())
            print("Trying again in 5 seconds.", file=sys.stderr)
            sio.start_background_task(subscribe_later, sio.get_sid())

    async def do():
        while True:
            event, data = await todo.get()
            await work(event, data)
            if sio.connected:
                await sio.emit("ack", {"consumer": consumer, "cursor": data["cursor"]})

    while True:
        try:
            await sio.connect(url, auth={"token": TOKEN}, retry=True)
            break
        except socketio.exceptions.ConnectionError:
            # A refusal that passes: at the first connection the library tries only what fails
            # before.
            await asyncio.sleep(5)
    done, _ = await asyncio.wait(
        [asyncio.create_task(do()), asyncio.create_task(sio.wait())],
        return_when=asyncio.FIRST_COMPLETED,
    )
    for task in done:
        task.result()
    # The daemon has ended the connection: the library comes back after anything else.
    sys.exit(1)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: python consumer.py URL NAME ADDRESS...")
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    asyncio.run(main(*sys.argv[1:]))
