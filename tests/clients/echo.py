"""A stock Python client against the library's echo server, once per connection: events,
acknowledgements and attachments both ways. What it hears comes as JSON lines, bytes as {"base64":
…}. For python-socketio 5 and, for Engine.IO 3, 4.

    python echo.py URL polling|websocket|upgrade
"""

import base64
import json
import sys

import socketio

url, mode = sys.argv[1:]
transports = {
    "polling": ["polling"],
    "websocket": ["websocket"],
    "upgrade": ["polling", "websocket"],
}[mode]
sio = socketio.Client(reconnection_delay=0.05, reconnection_delay_max=0.2, randomization_factor=0)
rounds = 0


def shown(value):
    if isinstance(value, (bytes, bytearray)):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, (list, tuple)):
        return [shown(inner) for inner in value]
    if isinstance(value, dict):
        return {key: shown(inner) for key, inner in value.items()}
    return value


def show(event, data):
    # One write, because handlers run in threads of their own.
    sys.stdout.write(json.dumps({"event": event, "data": shown(data)}) + "\n")
    sys.stdout.flush()


@sio.event
def connect():
    global rounds
    rounds += 1
    data = {"first": bytes([0, 1, 0x1E, 255]), "list": [b"", "é€😀", b"x" * 300]}
    sio.emit("echo", (rounds, data, None))
    sio.emit("ack", (rounds, data), callback=lambda *args: show("ack", args))
    sio.emit("ack", rounds, callback=lambda *args: show("ack", args))


@sio.on("echo")
def echo(*args):
    show("echo", args)


@sio.event
def disconnect(*reason):
    show("disconnect", reason)


sio.connect(url, transports=transports)
show("transport", sio.transport())
sio.wait()
