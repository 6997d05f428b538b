#!/usr/bin/env python3
"""Prints every event about the given addresses as one JSON line.

pip install -r requirements.txt
python watch.py http://127.0.0.1:5005 ADDRESS...
"""

import json
import sys

import socketio


def main(url, addresses):
    sio = socketio.Client()

    # On every connection, the first and those after a break: subscriptions belong to a connection.
    @sio.event
    def connect():
        for address in addresses:
            sio.emit("subscribe_address", {"address": address})

    @sio.event
    def disconnect(reason):
        print(f"disconnected: {reason}", file=sys.stderr)

    @sio.on("*")
    def any_event(event, data):
        # One write, because handlers run in threads of their own.
        sys.stdout.write(json.dumps({"event": event, "data": data}) + "\n")
        sys.stdout.flush()

    sio.connect(url, retry=True)
    try:
        sio.wait()
    except KeyboardInterrupt:
        sio.disconnect()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python watch.py URL ADDRESS...")
    main(sys.argv[1], sys.argv[2:])
