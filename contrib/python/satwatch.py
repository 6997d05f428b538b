"""What a program in Python needs of satwatch: events, each once and in order (`follow`), work that
is acknowledged (`consume`), and webhooks that are satwatch's (`webhook`).

    from satwatch import follow

    async for event in follow("http://127.0.0.1:5005", [address], cursor_file="cursor"):
        print(event["event"], event["data"])
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping
from typing import Any, Callable, TypedDict

import socketio

# These carry a cursor that is no place to come back to: events before it may not have come yet.
NO_PLACE = ("connected", "lagged", "error")
# What the daemon says about the connection, and not about the chain: no work of a consumer.
CONTROL = (*NO_PLACE, "subscribed_consumer", "unsubscribed_consumer", "acked", "caught_up")
# Refusals that pass.
PASSES = (
    "rate_limited",
    "too_many_requests",
    "stopping",
    "overloaded",
    "not_ready",
    "internal",
    "consumer_changed",
    "primary_unavailable",
)
PAUSE = 5
# The name of the request for all addresses; a wallet's is the word that it was given as.
ADDRESSES = "addresses"

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
    # Depths to be told about, for listed addresses.
    confirmations: list[int]
    # The cursor to begin after; on a consumer that is there, the way back.
    after: str


class Refused(Exception):
    """The daemon refuses; what passes by itself is tried again instead. `code`: as the wire
    contract has it.
    """

    def __init__(self, error: str, code: str) -> None:
        super().__init__(error)
        self.code = code


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def requests(watched: list[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """A name and what to emit for each of them: a wallet by itself, all addresses together."""
    addresses = []
    for text in watched:
        if re.fullmatch("[0-9a-f]{64}", text):
            yield text, "subscribe_descriptor", {"descriptor_id": text}
        # No address is as long as an extended key.
        elif "(" in text or len(text) > 100:
            yield text, "subscribe_descriptor", {"descriptor": text}
        else:
            addresses.append(text)
    if addresses:
        yield ADDRESSES, "subscribe_addresses", {"addresses": addresses}


def read_places(file: str | None) -> dict[str, str]:
    """The cursor of each request, by its name."""
    if file is None or not os.path.exists(file):
        return {}
    with open(file, encoding="utf-8") as kept:
        try:
            return dict(json.load(kept))
        except (ValueError, TypeError):
            advice = "name another, or move it away to begin anew"
            raise ValueError(f"{file} is no file of cursors; {advice}.") from None


def write_places(file: str, places: dict[str, str]) -> None:
    """Whole or not at all: a power loss leaves these cursors or those of before."""
    with open(f"{file}.new", "w", encoding="utf-8") as made:
        made.write(f"{json.dumps(places)}\n")
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
        # What is done after a pause, each once; it belongs to the connection.
        self.pauses: dict[Any, asyncio.Task[None]] = {}
        # On every connection, the first and those after a break: subscriptions belong to one.
        self.sio.on("connect", self.connected)
        self.sio.on("connect_error", self.not_connected)
        self.sio.on("disconnect", self.disconnected)

    async def subscribe(self) -> None:
        raise NotImplementedError

    async def connected(self) -> None:
        self.unreachable = False
        await self.subscribe()

    def disconnected(self, reason: str) -> None:
        for pause in self.pauses.values():
            pause.cancel()
        self.pauses.clear()
        self.note(f"disconnected: {reason}")

    def not_connected(self, error: Any) -> None:
        if isinstance(error, dict) and "data" in error:
            # A refusal by the daemon; anything else is tried again by the library.
            if error["data"]["code"] not in PASSES:
                return self.fail(error["message"], error["data"]["code"])
            error = error["message"].removesuffix(".")
        if not self.unreachable:
            self.note(f"cannot connect to {self.url}: {error}. Trying again.")
        self.unreachable = True

    def fail(self, error: str, code: str) -> None:
        self.inbox.put_nowait(Refused(error, code))

    def later(self, what: Any, act: Callable[[], Awaitable[None]]) -> None:
        async def pause() -> None:
            await asyncio.sleep(PAUSE)
            del self.pauses[what]
            await act()

        if what not in self.pauses:
            self.pauses[what] = asyncio.create_task(pause())

    async def ask(
        self,
        event: str,
        request: Callable[[], dict[str, Any] | None],
        hear: Callable[[dict[str, Any]], None] = lambda answer: None,
    ) -> None:
        """Asks the daemon, and after a pause again when a refusal passes. `request`: what to ask by
        then, if anything. `hear`: is given the answer that is no refusal.
        """

        def answered(answer: dict[str, Any]) -> None:
            # A subscription that stands has a message; its error says that its cursor is lost.
            if "error" not in answer or "message" in answer:
                return hear(answer)
            error, code = answer["error"], answer["code"]
            if code not in PASSES:
                return self.fail(error, code)
            self.note(f"{error} Trying again in 5 seconds.")
            self.later(request, lambda: self.ask(event, request, hear))

        asked = request()
        if asked is not None:
            # The next connection asks again.
            with contextlib.suppress(socketio.exceptions.SocketIOError):
                await self.sio.emit(event, asked, callback=answered)

    def begin(self) -> asyncio.Task[None]:
        def ended(running: asyncio.Task[None]) -> None:
            # Nothing comes any more: whoever waits is told why.
            if not running.cancelled() and (broken := running.exception()):
                self.inbox.put_nowait(broken)

        running = asyncio.create_task(self.run())
        running.add_done_callback(ended)
        return running

    async def run(self) -> None:
        while True:
            # The library comes back by itself but for two cases: a refusal of the first connection,
            # and an end by the daemon.
            with contextlib.suppress(socketio.exceptions.ConnectionError):
                await self.sio.connect(self.url, auth={"token": self.token}, retry=True)
                await self.sio.wait()
            await asyncio.sleep(PAUSE)

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
        if isinstance(item, Exception):
            raise item
        return item


class Following(Connection):
    def __init__(
        self,
        url: str,
        watched: list[str],
        confirmations: list[int] | None,
        token: str | None,
        places: dict[str, str],
        note: Note,
    ) -> None:
        super().__init__(url, token, note)
        depths = {} if confirmations is None else {"confirmations": confirmations}
        # Where each request goes on after a break: a cursor belongs to what was asked for with it.
        self.places = places
        # Of the wallets, by their ids.
        self.names: dict[str, str] = {}
        self.requests = [
            (event, self.request(name, {**request, **depths}), self.answer(name))
            for name, event, request in requests(watched)
        ]
        self.sio.on("*", self.hear)

    def request(self, name: str, asked: dict[str, Any]) -> Callable[[], dict[str, Any]]:
        return lambda: {**asked, "after": self.places[name]} if name in self.places else asked

    def answer(self, name: str) -> Callable[[dict[str, Any]], None]:
        """The answer comes as an event, too; this one says what it answers."""

        def answered(data: dict[str, Any]) -> None:
            if "error" in data:
                self.note(data["error"])
            if "descriptor_id" in data:
                self.names[data["descriptor_id"]] = name
            self.put("subscribed", data, name)

        return answered

    async def subscribe(self) -> None:
        for event, request, answered in self.requests:
            await self.ask(event, request, answered)

    def hear(self, event: str, data: dict[str, Any]) -> None:
        if event == "error":
            # The token has ended. What else is refused is told as the answer to what was asked.
            if data["code"] == "unauthorized":
                self.fail(data["error"], data["code"])
        elif event != "subscribed":
            is_of_addresses = "address" in data or "addresses" in data
            name = ADDRESSES if is_of_addresses else self.names.get(data.get("descriptor_id", ""))
            self.put(event, data, name)

    def put(self, event: str, data: dict[str, Any], name: str | None) -> None:
        is_place = name is not None and event not in NO_PLACE and "cursor" in data
        if name is not None and is_place:
            self.places[name] = data["cursor"]
        self.inbox.put_nowait((Event(event=event, data=data), name if is_place else None))


async def follow(
    url: str,
    watched: list[str],
    *,
    cursor_file: str | None = None,
    confirmations: list[int] | None = None,
    token: str | None = None,
    note: Note = say,
) -> AsyncGenerator[Event, None]:
    """Every event about addresses and wallets (descriptors, or their ids), each once and in order,
    over breaks of the connection and restarts of the daemon. `confirmations`: depths to be told
    about.

    With one exception: a `subscribed` with a `code` (`cursor_unknown`, `cursor_expired`) says that
    events before it cannot be told any more: compare its balances, or GET /transactions, with your
    books. In order are the events of all addresses, and those of each wallet; where several have to
    catch up, one does so after the other.

    With `cursor_file` over the end of this program, too: the place is kept there once the next
    event is asked for, so that the work with the last one comes again at most. Who has a database
    keeps the cursor there instead, in the transaction that does the work.

    What has come and was not asked for yet waits in memory, without a bound: a program that works
    slowly on much reads a consumer by webhook or GET /events instead.

    Raises Refused when the daemon refuses any of it for good. SATWATCH_TOKEN is the token when none
    is given.
    """
    # What the work is done with comes behind what has come.
    done = read_places(cursor_file)
    following = Following(url, watched, confirmations, token, dict(done), note)
    running = following.begin()
    try:
        while True:
            event, name = await following.take()
            yield event
            # Who asks for the next event has done its work with this one.
            if cursor_file is not None and name is not None:
                done[name] = event["data"]["cursor"]
                write_places(cursor_file, done)
    finally:
        await following.end(running)


class Consuming(Connection):
    def __init__(self, url: str, consumer: str, token: str | None, note: Note) -> None:
        super().__init__(url, token, note)
        self.consumer = consumer
        # Readings are counted. Between two of them nothing is taken and nothing acknowledged: what
        # was not acknowledged comes again.
        self.reading = 0
        self.reads = False
        self.done: str | None = None
        self.sio.on("*", self.hear)

    async def subscribe(self) -> None:
        await self.ask("subscribe_consumer", lambda: {"consumer": self.consumer})

    def disconnected(self, reason: str) -> None:
        self.stop()
        super().disconnected(reason)

    def stop(self) -> None:
        self.reads = False
        for item in [self.inbox.get_nowait() for _ in range(self.inbox.qsize())]:
            if isinstance(item, Exception):
                self.inbox.put_nowait(item)

    def hear(self, event: str, data: dict[str, Any]) -> None:
        if event == "error":
            return self.refused(data)
        is_begin = event == "subscribed_consumer"
        if is_begin:
            self.reading += 1
            self.reads = True
            self.done = None
            self.note(data.get("error") or f"{data['lag']} events to catch up on")
        # A `subscribed_consumer` with an error says that events are lost.
        is_work = event not in CONTROL or (is_begin and "error" in data)
        if self.reads and is_work and "cursor" in data:
            self.inbox.put_nowait((Event(event=event, data=data), self.reading))

    def refused(self, data: dict[str, Any]) -> None:
        # `consumer`: its reading has ended. What else is refused is told as the answer to what was
        # asked.
        error, code = data["error"], data["code"]
        if "consumer" not in data and code != "unauthorized":
            return
        self.stop()
        # Somebody else does the work now, nobody shall, or the token has ended.
        if code in ("consumer_taken", "consumer_gone", "unauthorized"):
            return self.fail(error, code)
        self.note(f"{error} Trying again in 5 seconds.")
        self.later("subscribe", self.subscribe)

    async def acknowledge(self, cursor: str, reading: int) -> None:
        if reading == self.reading:
            # It says that everything before it is done, too.
            self.done = cursor
            await self.ask("ack", self.place)

    def place(self) -> dict[str, Any] | None:
        if not self.reads or self.done is None:
            return None
        return {"consumer": self.consumer, "cursor": self.done}

    async def define(self, definition: Definition) -> None:
        """At every start: a definition that is there already changes nothing."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        path = f"/consumers/{urllib.parse.quote(self.consumer, safe='')}"
        body = json.dumps(definition).encode()
        target = self.url.rstrip("/") + path
        request = urllib.request.Request(target, body, headers, method="PUT")
        while True:
            pause = PAUSE
            try:
                answer = await asyncio.to_thread(urllib.request.urlopen, request, timeout=30)
                return answer.close()  # type: ignore[no-any-return]
            except urllib.error.HTTPError as refused:
                error, code = refusal(refused)
                if refused.code < 500 and code not in PASSES:
                    raise Refused(error, code) from None
                self.note(f"{error} Trying again.")
                after = refused.headers.get("Retry-After", "")
                pause = int(after) if after.isdecimal() else PAUSE
            except OSError as unreachable:
                why = getattr(unreachable, "reason", unreachable)
                self.note(f"cannot reach {self.url}: {why}. Trying again.")
            await asyncio.sleep(pause)


def refusal(refused: urllib.error.HTTPError) -> tuple[str, str]:
    """What the daemon says; a proxy before it answers otherwise."""
    try:
        answer = json.load(refused)
        return answer["error"], answer["code"]
    except (ValueError, TypeError, KeyError):
        return f"{refused.url} answers {refused.code}.", "refused"


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
    was not comes again, so that doing it twice must do no harm. A `subscribed_consumer` among them
    says that events are lost, and why. What has come and was not asked for yet waits in memory,
    without a bound. Raises Refused also when another program takes the consumer over.
    """
    consuming = Consuming(url, consumer, token, note)
    await consuming.define(definition)
    running = consuming.begin()
    try:
        while True:
            event, reading = await consuming.take()
            yield event
            await consuming.acknowledge(event["data"]["cursor"], reading)
    finally:
        await consuming.end(running)


def webhook(secret: str) -> Callable[[bytes, Mapping[str, str]], Message]:
    """Reads webhooks: the message of a request that satwatch has signed with the secret.

    Raises standardwebhooks.WebhookVerificationError when the request is another's.
    """
    from standardwebhooks import Webhook, WebhookVerificationError

    verifier = Webhook(secret)

    def read(body: bytes, headers: Mapping[str, str]) -> Message:
        names = {name.lower(): value for name, value in headers.items()}
        try:
            message = verifier.verify(body, names)
        except ValueError as error:
            # No base64, no UTF-8, or a signature without a version.
            raise WebhookVerificationError(f"Not readable: {error}") from error
        return Message(id=names["webhook-id"], event=message["event"], data=message["data"])

    return read
