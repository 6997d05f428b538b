#!/usr/bin/env python3
"""Prints every event about one address as one JSON line, each once and in order, whatever happens
to the connection. Notes about the connection go to standard error. Python's own library only.

    listen.py URL ADDRESS [--payments N] [--deadline SECONDS]

With --payments it ends with exit code 0 once N different transactions came in `new_transactions`,
and with 1 when that takes longer than the deadline. A daemon with tokens takes the one in the
environment variable SATWATCH_TOKEN, of scope watch, or read when the address is watched already.

This is a Socket.IO client in its smallest form, over HTTP long-polling (Engine.IO 4, Socket.IO 5):
a session is opened, CONNECT and the subscription are posted, then one GET after the other brings
what the daemon pushes. A session that ends is followed by another one, which asks for what came
after the last event that was printed. A program that must survive its own end, too, keeps that
cursor in its database, in the transaction that does the work.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import sys
import threading
import time
import urllib.parse

SEPARATOR = "\x1e"  # between the packets of one polling body
LONGEST_PAUSE = 10  # seconds between two attempts to connect
# These carry a cursor that is no place to come back to: events before it may not have come yet.
NO_PLACE = ("connected", "lagged", "error")
# The daemon wants a token, or another one.
NO_TOKEN = ("unauthorized", "forbidden")
TOKEN = os.environ.get("SATWATCH_TOKEN")


class Session:
    """One Engine.IO session, connected to the namespace `/`."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        if parts.scheme not in kinds or not parts.hostname:
            sys.exit(f"listen.py: {url} is no address such as http://127.0.0.1:5005")
        self.kind = kinds[parts.scheme]
        self.host, self.port, self.timeout = parts.hostname, parts.port, 20
        self.path = "/socket.io/?EIO=4&transport=polling"
        with contextlib.closing(self.connection()) as connection:
            opened = json.loads(self.request(connection, "GET")[1:])
        self.path += "&sid=" + urllib.parse.quote(opened["sid"])
        # The daemon answers a poll with a ping when it has nothing else: longer silence is an end.
        self.timeout = (opened["pingInterval"] + opened["pingTimeout"]) / 1000
        self.send("40" + json.dumps({"token": TOKEN}))

    def connection(self):
        return self.kind(self.host, self.port, timeout=self.timeout)

    def request(self, connection, method, body=None):
        headers = {"Content-Type": "text/plain;charset=UTF-8"} if body else {}
        connection.request(method, self.path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        if "https_required" in text:
            sys.exit(f"listen.py: {json.loads(text)['error']}")
        if answer.status != 200:
            raise ConnectionError(f"{method} {self.path}: HTTP {answer.status} {text}")
        return text

    def send(self, packet):
        # Not the connection of the pending poll, behind which a post would wait; and a new one each
        # time, because some proxies close one that idles before the next ping.
        with contextlib.closing(self.connection()) as connection:
            self.request(connection, "POST", packet)

    def emit(self, event, data):
        self.send("42" + json.dumps([event, data]))

    def events(self):
        """Yields (event, data) until the session ends with an error; "connect" is the answer to
        CONNECT.
        """
        with contextlib.closing(self.connection()) as connection:
            while True:
                for packet in self.request(connection, "GET").split(SEPARATOR):
                    if packet == "2":  # ping
                        self.send("3")
                    elif packet.startswith("40"):
                        yield "connect", None
                    elif packet.startswith("42"):
                        event, *arguments = json.loads(packet[2:])
                        yield event, arguments[0] if arguments else {}
                    elif packet.startswith("44"):  # a refusal carries the object of an event
                        yield "error", json.loads(packet[2:])["data"]
                    elif packet[:2] == "41" or packet == "1":
                        raise ConnectionError(f"the daemon ended the session: {packet}")


class Follower:
    """Follows one address over any number of sessions."""

    def __init__(self, url, address):
        self.url, self.address = url, address
        # Where to go on: that of the last event, `subscribed` or `caught_up`.
        self.cursor = None
        self.failures = 0

    def events(self):
        """Yields (event, data) for ever. An event counts as done once the next one is asked for."""
        while True:
            try:
                yield from self.session()
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                pause = min(LONGEST_PAUSE, 0.5 * 2**self.failures) * random.uniform(0.5, 1)
                self.failures = min(self.failures + 1, 10)
                note(f"no connection to the daemon ({error}); again in {pause:.1f} s")
                time.sleep(pause)

    def session(self):
        session = Session(self.url)
        subscribed = False
        for event, data in session.events():
            if event == "connect":
                session.emit("subscribe_address", self.request())
                continue
            yield event, data
            if event == "error":
                self.refused(data)
            elif event == "subscribed":
                # Only now may the cursor be overwritten: no other subscription is waited for.
                subscribed = True
                if self.failures:
                    note("connected again")
                self.failures = 0
            if subscribed and event not in NO_PLACE and "cursor" in data:
                self.cursor = data["cursor"]

    def request(self):
        if self.cursor is None:
            return {"address": self.address}
        return {"address": self.address, "after": self.cursor}

    def refused(self, error):
        if error["code"] in ("cursor_unknown", "cursor_expired"):
            # `subscribed` comes next, with the balance as it is and a cursor to go on from. A shop
            # compares that balance, or GET /transactions, with its books.
            note(f"events after {self.cursor} cannot be told any more: {error['error']}")
        elif error["code"] == "rate_limited" or (self.cursor and error["code"] not in NO_TOKEN):
            # What was right before is right still; it may pass.
            raise ConnectionError(error["error"])
        else:
            sys.exit(f"listen.py: {error['error']}")


def note(text):
    print(f"listen.py: {text}", file=sys.stderr, flush=True)


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
    seen = set()
    for event, data in Follower(options.url, options.address).events():
        try:
            print(json.dumps({"event": event, "data": data}), flush=True)
        except BrokenPipeError:
            # Nobody reads on; and what is buffered must not be written at the exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        if event == "new_transactions":
            seen.update(transaction["txid"] for transaction in data["transactions"])
        if options.payments and len(seen) >= options.payments:
            return 0


def give_up(options):
    note(f"fewer than {options.payments} payments were pushed in {options.deadline:.0f} seconds")
    os._exit(1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
