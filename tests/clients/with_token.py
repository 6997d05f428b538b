"""python-socketio as it is, 5 or (for Engine.IO 3) 4, with a token: prints what becomes of the
connection as JSON lines.

python with_token.py URL TOKEN auth|header polling|websocket
"""

import json
import sys

import socketio

url, token, how, transport = sys.argv[1:]
options = {
    "auth": {"auth": {"token": token}},
    "header": {"headers": {"Authorization": f"Bearer {token}"}},
}[how]
sio = socketio.Client(reconnection=False)


def show(event, data):
    # One write, because handlers run in threads of their own.
    sys.stdout.write(json.dumps({"event": event, "data": data}) + "\n")
    sys.stdout.flush()


@sio.event
def connected(data):
    show("connected", data)
    sio.emit("subscribe_blocks", {}, callback=lambda answer: show("ack", answer))


@sio.event
def block(data):
    show("block", data)


@sio.on("error")
def told(data):
    show("refused", data)


@sio.event
def connect_error(data):
    show("refused", data.get("data", data) if isinstance(data, dict) else str(data))


@sio.event
def disconnect(*reason):
    show("disconnect", reason)


try:
    sio.connect(url, transports=[transport], **options)
    sio.wait()
except socketio.exceptions.ConnectionError as error:
    show("not_connected", str(error))
