"""python-socketio as it is, 5 or (for Engine.IO 3) 4, its synchronous client: prints what it hears
as JSON lines.

python listen.py URL ADDRESS polling|websocket|upgrade
"""

import json
import sys

import socketio

url, address, mode = sys.argv[1:]
transports = {
    "polling": ["polling"],
    "websocket": ["websocket"],
    "upgrade": ["polling", "websocket"],
}[mode]
sio = socketio.Client()


def show(event, data):
    # One write, because handlers run in threads of their own.
    sys.stdout.write(json.dumps({"event": event, "data": data}) + "\n")
    sys.stdout.flush()


@sio.event
def connect():
    sio.emit("subscribe_address", {"address": address}, callback=lambda answer: show("ack", answer))


# One argument and no more, as a user's handler has it.
@sio.event
def connected(data):
    show("connected", data)


@sio.event
def subscribed(data):
    show("subscribed", data)


@sio.event
def new_transactions(data):
    show("new_transactions", data)


@sio.event
def balance_change(data):
    show("balance_change", data)


@sio.event
def scan_progress(data):
    show("scan_progress", data)


@sio.event
def scan_complete(data):
    show("scan_complete", data)


@sio.event
def disconnect(*reason):
    show("disconnect", reason)


sio.connect(url, transports=transports)
show("transport", sio.transport())
sio.wait()
