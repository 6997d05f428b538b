"""python-socketio as it is, its asyncio client: prints what it hears as JSON lines.

python listen_async.py URL ADDRESS polling|websocket|upgrade
"""

import asyncio
import json
import sys

import socketio

url, address, mode = sys.argv[1:]
transports = {
    "polling": ["polling"],
    "websocket": ["websocket"],
    "upgrade": ["polling", "websocket"],
}[mode]
sio = socketio.AsyncClient()


def show(event, data):
    print(json.dumps({"event": event, "data": data}), flush=True)


@sio.event
async def connect():
    await sio.emit(
        "subscribe_address", {"address": address}, callback=lambda answer: show("ack", answer)
    )


# One argument and no more, as a user's handler has it.
@sio.event
async def connected(data):
    show("connected", data)


@sio.event
async def subscribed(data):
    show("subscribed", data)


@sio.event
async def new_transactions(data):
    show("new_transactions", data)


@sio.event
async def balance_change(data):
    show("balance_change", data)


@sio.event
async def disconnect(reason):
    show("disconnect", reason)


async def main():
    await sio.connect(url, transports=transports)
    show("transport", sio.transport())
    await sio.wait()


asyncio.run(main())
