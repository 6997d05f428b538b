#!/usr/bin/env python3
"""Prints every event about one address as one JSON line, as a Socket.IO client gets it. Python's
own library only.

    listen.py URL ADDRESS [--payments N] [--deadline SECONDS]

With --payments it ends with exit code 0 once N different transactions came in `new_transactions`,
and with 1 when that takes longer than the deadline. This is a Socket.IO client in its smallest
form, over HTTP long-polling (Engine.IO 4, Socket.IO 5): a session is opened, CONNECT and the
subscription are posted, then one GET after the other brings what the daemon pushes.
"""

import argparse
import http.client
import json
import os
import sys
import threading
import urllib.parse

SEPARATOR = "\x1e"  # between the packets of one polling body


class Session:
    def __init__(self, url, timeout=60):
        parts = urllib.parse.urlsplit(url)
        # Two connections, because a post must not wait behind the pending poll.
        self.poll = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout)
        self.push = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout)
        self.query = "/socket.io/?EIO=4&transport=polling"
        opened = json.loads(self.request(self.poll, "GET")[1:])
        self.query += "&sid=" + urllib.parse.quote(opened["sid"])
        self.send("40")

    def request(self, connection, method, body=None):
        connection.request(
            method, self.query, body, {"Content-Type": "text/plain;charset=UTF-8"} if body else {}
        )
        answer = connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise ConnectionError(f"{method} {self.query}: HTTP {answer.status} {text}")
        return text

    def send(self, packet):
        self.request(self.push, "POST", packet)

    def emit(self, event, data):
        self.send("42" + json.dumps([event, data]))

    def events(self):
        """Yields (event, data); "connect" is the answer to CONNECT."""
        while True:
            for packet in self.request(self.poll, "GET").split(SEPARATOR):
                if packet == "2":  # ping
                    self.send("3")
                elif packet.startswith("40"):
                    yield "connect", json.loads(packet[2:] or "{}")
                elif packet.startswith("42"):
                    event, *arguments = json.loads(packet[packet.index("[") :])
                    yield event, arguments[0] if arguments else None
                elif packet[:2] in ("41", "44") or packet == "1":
                    raise ConnectionError(f"the daemon ended the session: {packet}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("address")
    parser.add_argument("--payments", type=int)
    parser.add_argument("--deadline", type=float, default=120)
    options = parser.parse_args()
    if options.payments:
        watchdog = threading.Timer(options.deadline, give_up, [options])
        watchdog.daemon = True
        watchdog.start()
    session = Session(options.url)
    seen = set()
    for event, data in session.events():
        if event == "connect":
            session.emit("subscribe_address", {"address": options.address})
            continue
        print(json.dumps({"event": event, "data": data}), flush=True)
        if event == "error":
            return 1
        if event == "new_transactions":
            seen.update(transaction["txid"] for transaction in data["transactions"])
        if options.payments and len(seen) >= options.payments:
            return 0


def give_up(options):
    print(
        f"listen.py: fewer than {options.payments} payments were pushed within {options.deadline:.0f} seconds",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, http.client.HTTPException) as error:
        print(f"listen.py: the connection to the daemon is lost: {error}", file=sys.stderr)
        sys.exit(1)
