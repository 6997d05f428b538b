"""Receivers of webhooks that fail as receivers do, and what reached them held against the event
log.

Each event is accepted in the order of its address (blocks: their own), once unless the daemon was
killed or frozen meanwhile, signed as Standard Webhooks wants it, byte for byte; what was skipped is
a dead letter, and is accepted when it is sent again.
"""

import base64
import bisect
import collections
import hashlib
import hmac
import http.server
import json
import random
import threading
import time

from wire import number

"""Failures of one event in a row, so that it comes through while somebody waits."""
FAILURES = 3
"""Seconds for an attempt, and until an event becomes a dead letter (settings of the daemon)."""
TIMEOUT, GIVE_UP = 4, 6
SETTINGS = {
    "webhooks.allow_private": "true",
    "webhooks.timeout": str(TIMEOUT),
    "webhooks.give_up_after": str(GIVE_UP),
}


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """The daemon went away meanwhile."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        how = self.server.hook.receive(self.headers, body)
        if how == "hang":
            time.sleep(TIMEOUT + 1)
        if how in ("hang", "close"):
            self.close_connection = True
            return
        self.send_response(how)
        if how == 302:
            self.send_header("Location", self.path)
        if how == 503:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


class Hook:
    def __init__(self, seed, consumer, fails):
        """`fails`: part of the attempts that does."""
        self.consumer, self.fails, self.random = (
            consumer,
            fails,
            random.Random(f"hook {seed} {consumer.name}"),
        )
        self.secret, self.lock = None, threading.Lock()
        self.wrong, self.failures, self.attempts = [], collections.Counter(), collections.Counter()
        """(time, number, event, text) of what was accepted, in order; index of the first that was
        not looked at.
        """
        self.accepted, self.looked = [], 0
        """number -> time of its first acceptance; the last number of each address; what was
        skipped; what was ever a dead letter.
        """
        self.when, self.last, self.skipped, self.dead = {}, {}, set(), set()
        """Numbers that are wanted, by address; how many are in there."""
        self.by_key, self.sorted = collections.defaultdict(list), 0
        self.resending = False
        self.server, self.port = None, 0
        self.up()

    def begin(self, answer):
        """It was created."""
        self.secret, self.consumer.first = answer["secret"], number(answer["cursor"])

    def up(self):
        if self.server is None:
            self.server = Server(("127.0.0.1", self.port), Handler)
            self.server.hook, self.port = self, self.server.server_address[1]
            threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def down(self):
        """Connections are refused."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def receive(self, headers, body):
        """What is answered: a status, or another way to fail."""
        with self.lock:
            try:
                self._check(headers, body)
            except (KeyError, ValueError) as cause:
                self.wrong.append(
                    f"{self.consumer.name}: got what cannot be read, {cause!r}: {headers} {body[:200]}"
                )
            if self.server is None:
                # A connection from before it went down.
                self.attempts["down"] += 1
                return "close"
            name = headers["webhook-id"]
            fails = self.random.random() < self.fails and self.failures[name] < FAILURES
            how = (
                self.random.choice((500, 500, 503, 302, 404, "close", "close", "hang"))
                if fails
                else self.random.choice((200, 204))
            )
            self.attempts[how] += 1
            self.failures[name] = self.failures[name] + 1 if fails else 0
            if not fails:
                text = body.decode()
                self.accepted.append(
                    (
                        time.time(),
                        number(name),
                        json.loads(text)["event"],
                        text[text.index('"data":') + 7 : -1],
                    )
                )
            return how

    def _check(self, headers, body):
        name, moment = headers["webhook-id"], headers["webhook-timestamp"]
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        signature = hmac.new(key, f"{name}.{moment}.".encode() + body, hashlib.sha256).digest()
        if f"v1,{base64.b64encode(signature).decode()}" not in headers["webhook-signature"].split():
            self.wrong.append(f"{self.consumer.name}: {name} has a wrong signature")
        told = json.loads(body)
        if (
            name != f"{self.consumer.name}_{told['cursor']}"
            or told["consumer"] != self.consumer.name
        ):
            self.wrong.append(
                f"{self.consumer.name}: {name} is of {told['consumer']} and {told['cursor']}"
            )
        if headers["Content-Type"] != "application/json" or not headers["User-Agent"].startswith(
            "satwatch/"
        ):
            self.wrong.append(f"{self.consumer.name}: {name} has headers {dict(headers)}")

    def look(self, daemon):
        """Holds what was accepted since against the log, as far as that is read."""
        self.consumer.extend()
        for place in self.consumer.expected[self.sorted :]:
            self.by_key[self.consumer.log.entries[place - 1][1]].append(place)
        self.sorted = len(self.consumer.expected)
        with self.lock:
            fresh = self.accepted[self.looked :]
        for moment, place, event, text in fresh:
            if place > self.consumer.known:
                break
            self.looked += 1
            self._accept(daemon, moment, place, event, text)
        self.skipped -= self.consumer.got

    def _accept(self, daemon, moment, place, event, text):
        known = self.consumer.log.entries[place - 1]
        if (event, text) != (known[0], known[2]):
            self.wrong.append(
                f"{self.consumer.name}: got {event} {text}, the log has {place} {known}"
            )
        of_key = self.by_key[known[1]]
        index = bisect.bisect_left(of_key, place)
        if of_key[index : index + 1] != [place]:
            self.wrong.append(f"{self.consumer.name}: got {place} {known}, which it does not want")
        if place in self.when:
            if not any(self.when[place] - 1 <= at <= moment + 1 for at in daemon.moments):
                self.wrong.append(
                    f"{self.consumer.name}: got {place} {event} twice, at {self.when[place]} and {moment}"
                )
            return
        self.when[place] = moment
        self.consumer.got.add(place)
        before = self.last.get(known[1], 0)
        if place > before:
            self.skipped.update(of_key[bisect.bisect_right(of_key, before) : index])
            self.last[known[1]] = place
        elif place not in self.dead:
            self.wrong.append(
                f"{self.consumer.name}: got {place} {event} after {before} of the same address"
            )

    def dead_letters(self, daemon):
        """The numbers of those that are there now."""
        found, after = set(), ""
        while True:
            page = daemon.get(f"/consumers/{self.consumer.name}/dead_letters?limit=1000{after}")
            for letter in page["dead_letters"]:
                place = number(letter["cursor"])
                found.add(place)
                self.resending &= letter["resending"]
                event, _, text = self.consumer.log.entries[place - 1]
                if (letter["event"], letter["data"]) != (event, json.loads(text)) or letter[
                    "attempts"
                ] < 1:
                    self.wrong.append(
                        f"{self.consumer.name}: has the dead letter {letter}, the log has {event} {text}"
                    )
            if not page["next"] or not page["dead_letters"]:
                self.dead |= found
                return found
            after = f"&after={page['next']}"

    def differences(self, daemon):
        """At a checkpoint, without waiting for anything."""
        self.dead_letters(daemon)
        self.look(daemon)
        lost = sorted(self.skipped - self.dead)
        found = (
            [
                f"{self.consumer.name}: skipped {lost[0]} {self.consumer.log.entries[lost[0] - 1]} and others"
            ]
            if lost
            else []
        )
        return found + self.wrong

    def missing(self, daemon):
        """At the end: it answers well, and dead letters are sent again. What is still owed."""
        self.fails = 0
        self.up()
        # An attempt that was on its way may still fail, so there may be letters after the first
        # were sent again.
        self.resending = True
        dead = self.dead_letters(daemon)
        self.look(daemon)
        if dead:
            if not self.resending:
                daemon.post(f"/consumers/{self.consumer.name}/dead_letters/resend", None)
            return [f"{self.consumer.name}: {len(dead)} dead letters are not sent again yet"]
        return self.consumer.missing()
