"""What a program in Python needs of satwatch: events, each once and in order (`follow`), work that
is acknowledged (`consume`), and webhooks that are satwatch's (`webhook`).

    from satwatch import follow

    async for event in follow("http://127.0.0.1:5005", [address], cursor_file="cursor"):
        print(event["event"], event["data"])
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any, Callable, TypedDict

import socketio

# These carry a cursor that is no place to come back to: events before it may not have come yet.
NO_PLACE = ("connected", "lagged", "error")
# The daemon wants a token, or another one.
NO_TOKEN = ("unauthorized", "forbidden")
# What a consumer works on.
WORK = (
    "new_transactions",
    "balance_change",
    "transaction_update",
    "scan_complete",
    "unwatched",
    "label_change",
)
PAUSE = 5

Note = Callable[[str], None]


class Event(TypedDict):
    """As the wire contract has it."""

    event: str
    data: dict[str, Any]


class Message(Event):
    """Of a webhook: the id is always the same for the same event."""

    id: str


class Definition(TypedDict, total=False):
    """What a consumer wants: the body of PUT /consumers/{name}."""

    addresses: list[str]
    descriptors: list[str] | str
    blocks: bool


class Refused(Exception):
    """The daemon refuses, and trying again does not help. `code`: as the wire contract has it."""

    def __init__(self, error: str, code: str) -> None:
        super().__init__(error)
        self.code = code


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def requests(watched: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
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


def read_cursor(file: str | None) -> str | None:
    if file is None or not os.path.exists(file):
        return None
    with open(file, encoding="ascii") as kept:
        return kept.read().strip() or None


def write_cursor(file: str, cursor: str) -> None:
    """Whole or not at all: a power loss leaves the cursor of before."""
    with open(f"{file}.new", "w", encoding="ascii") as made:
        made.write(f"{cursor}\n")
        made.flush()
        os.fsync(made.fileno())
    os.replace(f"{file}.new", file)


class Connection:
    """One that comes back, whatever ends it, until the daemon refuses it."""

    def __init__(self, url: str, token: str | None, note: Note) -> None:
        self.url, self.note = url, note
        self.token = os.environ.get("SATWATCH_TOKEN") if token is None else token
        # What has come and was not taken yet. Handlers that are no coroutines run one after the
        # other, in order.
        self.inbox: asyncio.Queue[Any] = asyncio.Queue()
        self.sio = socketio.AsyncClient(handle_sigint=False)
        # Whether it was said that there is no connection: once is enough.
        self.unreachable = False
        # Connections that are to be tried again: once, although each request may be refused.
        self.again: set[str] = set()
        # On every connection, the first and those after a break: subscriptions belong to one.
        self.sio.on("connect", self.connected)
        self.sio.on("connect_error", self.not_connected)
        self.sio.on("disconnect", lambda reason: note(f"disconnected: {reason}"))

    async def subscribe(self) -> None:
        raise NotImplementedError

    async def connected(self) -> None:
        self.unreachable = False
        await self.subscribe()

    def not_connected(self, error: Any) -> None:
        if isinstance(error, dict) and "data" in error:
            # A refusal by the daemon; anything else is tried again by the library.
            if error["data"]["code"] != "rate_limited":
                return self.fail(error["message"], error["data"]["code"])
            error = error["message"]
        if not self.unreachable:
            self.note(f"cannot connect to {self.url}: {error}. Trying again.")
        self.unreachable = True

    def fail(self, error: str, code: str) -> None:
        self.inbox.put_nowait(Refused(error, code))

    def later(self) -> None:
        sid = self.sio.get_sid()
        if sid not in self.again:
            self.again.add(sid)
            self.note("Trying again in 5 seconds.")
            self.sio.start_background_task(self.subscribe_later, sid)

    async def subscribe_later(self, sid: str) -> None:
        await self.sio.sleep(PAUSE)
        self.again.discard(sid)
        # A connection that is made meanwhile subscribes by itself.
        if self.sio.connected and self.sio.get_sid() == sid:
            await self.subscribe()

    async def run(self) -> None:
        while True:
            try:
                await self.sio.connect(self.url, auth={"token": self.token}, retry=True)
                break
            except socketio.exceptions.ConnectionError:
                # A refusal that passes: at the first connection the library tries only what fails
                # before.
                await asyncio.sleep(PAUSE)
        await self.sio.wait()
        # The daemon has ended it: the library comes back after anything else.
        self.fail("the daemon has ended the connection", "disconnected")

    async def end(self, running: asyncio.Task[None]) -> None:
        # Whoever waits for the library's connection would cancel it in the middle of its end.
        if self.sio.connected:
            await self.sio.disconnect()
            running.cancel()
        else:
            running.cancel()
            await self.sio.disconnect()

    async def take(self) -> Any:
        item = await self.inbox.get()
        if isinstance(item, Refused):
            raise item
        return item


class Following(Connection):
    def __init__(
        self, url: str, watched: list[str], token: str | None, cursor: str | None, note: Note
    ) -> None:
        super().__init__(url, token, note)
        self.requests = list(requests(watched))
        # Where to go on after a break: the cursor of the last event, `subscribed` or `caught_up`.
        self.cursor = cursor
        # A cursor belongs to what was asked for with it. On a new connection it is overwritten only
        # when every `subscribed` that is waited for has come: one for all addresses, and one for
        # each wallet.
        self.waiting = len(self.requests)
        self.sio.on("*", self.hear)

    async def subscribe(self) -> None:
        self.waiting = len(self.requests)
        after = {"after": self.cursor} if self.cursor else {}
        for event, request in self.requests:
            await self.sio.emit(event, {**request, **after})

    def hear(self, event: str, data: dict[str, Any]) -> None:
        if event == "error":
            return self.refused(data["error"], data["code"])
        if event == "subscribed":
            self.waiting -= 1
        place = None
        if self.waiting == 0 and event not in NO_PLACE and "cursor" in data:
            place = self.cursor = data["cursor"]
        self.inbox.put_nowait((Event(event=event, data=data), place))

    def refused(self, error: str, code: str) -> None:
        if code in ("cursor_unknown", "cursor_expired"):
            # `subscribed` comes next, with the balances as they are and a cursor to go on from. A
            # shop compares them, or GET /transactions, with its books.
            self.note(f"events after {self.cursor} cannot be told any more: {error}")
        elif code == "rate_limited" or (self.cursor and code not in NO_TOKEN):
            # What was right before is right still; it may pass.
            self.note(error)
            self.later()
        else:
            self.fail(error, code)


async def follow(
    url: str,
    watched: list[str],
    *,
    cursor_file: str | None = None,
    token: str | None = None,
    note: Note = say,
) -> AsyncGenerator[Event, None]:
    """Every event about addresses and wallets (descriptors, or their ids), each once and in order,
    over breaks of the connection and restarts of the daemon.

    With `cursor_file` over the end of this program, too: the place is kept there once the next
    event is asked for, so that the work with the last one comes again at most. Who has a database
    keeps the cursor there instead, in the transaction that does the work.

    Raises Refused when the daemon refuses it for good. SATWATCH_TOKEN is the token when none is
    given.
    """
    following = Following(url, watched, token, read_cursor(cursor_file), note)
    running = asyncio.create_task(following.run())
    try:
        while True:
            event, place = await following.take()
            yield event
            # Who asks for the next event has done its work with this one.
            if cursor_file is not None and place is not None:
                write_cursor(cursor_file, place)
    finally:
        await following.end(running)


class Consuming(Connection):
    def __init__(self, url: str, consumer: str, token: str | None, note: Note) -> None:
        super().__init__(url, token, note)
        self.consumer = consumer
        for event in WORK:
            self.sio.on(event, self.handler(event))
        self.sio.on("subscribed_consumer", self.subscribed)
        self.sio.on("error", self.refused)

    def handler(self, event: str) -> Callable[[dict[str, Any]], None]:
        return lambda data: self.inbox.put_nowait(Event(event=event, data=data))

    async def subscribe(self) -> None:
        # What was not acknowledged comes again.
        while not self.inbox.empty():
            self.inbox.get_nowait()
        await self.sio.emit("subscribe_consumer", {"consumer": self.consumer})

    def subscribed(self, data: dict[str, Any]) -> None:
        self.note(data.get("error") or f"{data['lag']} events to catch up on")

    async def refused(self, data: dict[str, str]) -> None:
        error, code = data["error"], data["code"]
        # Somebody else does the work now, nobody shall, or the token has ended.
        if code in ("consumer_taken", "consumer_gone", "unauthorized"):
            while not self.inbox.empty():
                self.inbox.get_nowait()
            return self.fail(error, code)
        self.note(error)
        if code in ("consumer_changed", "cursor_expired"):
            await self.subscribe()
        else:
            self.later()

    def define(self, definition: Definition) -> None:
        """At every start: a definition that is there already changes nothing."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        path = f"/consumers/{urllib.parse.quote(self.consumer, safe='')}"
        body = json.dumps(definition).encode()
        request = urllib.request.Request(self.url + path, body, headers, method="PUT")
        while True:
            try:
                return urllib.request.urlopen(request).close()  # type: ignore[no-any-return]
            except urllib.error.HTTPError as refused:
                answer = json.load(refused)
                if answer["code"] != "rate_limited":
                    raise Refused(answer["error"], answer["code"]) from None
                self.note(f"{answer['error']} Trying again.")
                time.sleep(int(refused.headers["Retry-After"]))
            except OSError as error:
                why = getattr(error, "reason", error)
                self.note(f"cannot reach {self.url}: {why}. Trying again.")
                time.sleep(PAUSE)


async def consume(
    url: str,
    consumer: str,
    definition: Definition,
    *,
    token: str | None = None,
    note: Note = say,
) -> AsyncGenerator[Event, None]:
    """What a named consumer is to work on, in order.

    The daemon keeps its place: an event is acknowledged once the next one is asked for, and what
    was not comes again, so that doing it twice must do no harm. Raises Refused also when another
    program takes the consumer over.
    """
    consuming = Consuming(url, consumer, token, note)
    await asyncio.get_running_loop().run_in_executor(None, consuming.define, definition)
    running = asyncio.create_task(consuming.run())
    try:
        while True:
            event: Event = await consuming.take()
            yield event
            # It says that everything before it is done, too.
            if consuming.sio.connected:
                done = {"consumer": consumer, "cursor": event["data"]["cursor"]}
                await consuming.sio.emit("ack", done)
    finally:
        await consuming.end(running)


def webhook(secret: str) -> Callable[[bytes, Mapping[str, str]], Message]:
    """Reads webhooks: the message of a request that satwatch has signed with the secret.

    Raises standardwebhooks.WebhookVerificationError when the request is another's.
    """
    from standardwebhooks import Webhook

    verifier = Webhook(secret)

    def read(body: bytes, headers: Mapping[str, str]) -> Message:
        names = {name.lower(): value for name, value in headers.items()}
        message = verifier.verify(body, names)
        return Message(id=names["webhook-id"], event=message["event"], data=message["data"])

    return read
