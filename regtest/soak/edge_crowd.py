"""Clients of edges, all in one thread: stock python-socketio over WebSocket and polling, readers of
`GET /events/stream` with Last-Event-ID, and of `GET /events` with long polling. Each keeps cursors
as the wire contract says, and comes back with them, wherever it comes to. What it gets is recorded
for edge_check.py.
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import json
import random
import threading

import aiohttp
import socketio
from edge_check import Wanted
from log_check import is_wallet
from wire import Json, entries_of, subject_of

PAUSE = 0.2
"""Refusals that pass."""
PASSES = (
    "primary_unavailable",
    "stopping",
    "not_ready",
    "overloaded",
    "rate_limited",
    "too_many_requests",
)
LOST = ("cursor_unknown", "cursor_expired")


class Client:
    """`urls`: where it connects to, one of them each time."""

    def __init__(self, crowd, name, urls, wants):
        """`wants`: name of a record -> its subjects (edge_check.Wanted)."""
        self.crowd, self.name, self.urls = crowd, name, urls
        self.choice = random.Random(f"{crowd.seed} {name}")
        self.wants = {of: Wanted(subjects) for of, subjects in wants.items()}
        self.records = {of: [] for of in wants}
        self.cursors, self.connects = {}, 0

    def note(self, of, *item):
        self.records[of].append(item)

    def fault(self, what):
        self.crowd.faults.append(f"{self.name}: {what}")

    def began(self, of, asked, cursor, code=None, balances=()):
        self.cursors[of] = cursor
        self.note(of, "begin", asked, cursor, code, list(balances))

    def heard(self, of, cursor, name, raw):
        self.cursors[of] = cursor
        self.note(of, "event", cursor, name, raw)

    def has_all_to(self, of, cursor):
        self.cursors[of] = cursor
        self.note(of, "place", cursor)

    async def keep_on(self):
        while True:
            try:
                await self.once(self.choice.choice(self.urls))
            except (aiohttp.ClientError, asyncio.TimeoutError, socketio.exceptions.SocketIOError):
                pass
            except Exception as cause:  # noqa: BLE001  the soak says it, whatever it is
                self.fault(f"ended by {cause!r}")
                raise
            await asyncio.sleep(PAUSE)


class Listener(Client):
    """On python-socketio."""

    def __init__(self, crowd, name, urls, wants, transport="websocket", source=None):
        super().__init__(crowd, name, urls, wants)
        self.transport, self.source = transport, source
        self.sio, self.asked, self.replaying = None, {}, set()
        self.of_subject = {
            subject: of
            for of, wanted in self.wants.items()
            for subject in wanted.subjects or [None]
        }

    async def once(self, url):
        # Whoever has one URL comes back by the library's own means.
        stays = len(self.urls) == 1
        source = aiohttp.TCPConnector(local_addr=(self.source, 0)) if self.source else None
        # By default there are no cookies for hosts without a name.
        cookies = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(connector=source, cookie_jar=cookies) as http:
            self.sio = socketio.AsyncClient(
                json=Json,
                http_session=http,
                reconnection=stays,
                reconnection_delay=0.1,
                reconnection_delay_max=0.3,
                handle_sigint=False,
            )
            self.sio.on("connect", self.connect)
            self.sio.on("connect_error", self.not_connected)
            self.sio.on("*", self.try_hear)
            try:
                await self.sio.connect(url, transports=[self.transport], wait_timeout=10)
                await self.sio.wait()
            finally:
                # The library may still try to come back.
                await self.sio.shutdown()

    def not_connected(self, data):
        code = data["data"]["code"] if isinstance(data, dict) and "data" in data else "no server"
        self.crowd.refusals[code] += 1
        if code != "no server" and code not in PASSES:
            self.fault(f"refused with {data}")

    async def leave(self):
        if self.sio is not None and self.sio.connected:
            await self.sio.disconnect()

    async def connect(self):
        self.connects += 1
        self.asked, self.replaying = {}, set()
        for of in self.wants:
            self.note(of, "connect")
        for of in self.wants:
            await self.subscribe(of, self.sio, self.connects)

    async def subscribe(self, of, sio, connection):
        subjects = self.wants[of].subjects
        if subjects is None:
            event, argument = "subscribe_blocks", {}
        elif len(subjects) > 1:
            event, argument = "subscribe_addresses", {"addresses": subjects}
        elif is_wallet(subjects[0]):
            event, argument = "subscribe_descriptor", {"descriptor_id": subjects[0]}
        else:
            event, argument = "subscribe_address", {"address": subjects[0]}
        if of in self.cursors and subjects is not None:
            argument["after"] = self.cursors[of]
        self.asked[of] = argument.get("after")

        def answered(answer):
            # One that stands has a message; its error says that the cursor is lost.
            if "error" in answer and "message" not in answer:
                self.crowd.refusals[answer["code"]] += 1
                if answer["code"] not in PASSES:
                    self.fault(f"{event} {argument}: {answer}")
                asyncio.get_running_loop().create_task(again())

        async def again():
            await asyncio.sleep(PAUSE)
            if sio.connected and connection == self.connects:
                await self.subscribe(of, sio, connection)

        # The next connection asks again.
        with contextlib.suppress(socketio.exceptions.SocketIOError):
            await sio.emit(event, argument, callback=answered)

    # Not a coroutine: the library starts each in the order of the messages, and it runs through.
    def try_hear(self, name, data, *more):
        try:
            if more:
                self.fault(f"{name} has more arguments: {more}")
            self.hear(name, data)
        except Exception as cause:  # noqa: BLE001  the library would only print it
            self.fault(f"{name} {data}: {cause!r}")

    def hear(self, name, data):
        first = subject_of(data) or (data.get("addresses") or [None])[0]
        of = self.of_subject.get(first)
        if name in ("subscribed", "subscribed_blocks"):
            balances = data.get("balances") or ([data["balance"]] if "balance" in data else [])
            balances = [(subject_of(it), it["balance"], it["cursor"]) for it in balances]
            asked, code = self.asked.pop(of), data.get("code")
            if asked and not code:
                self.replaying.add(of)
            self.began(of, asked, data["cursor"], code, balances)
        elif name == "caught_up" and first is not None:
            self.replaying.discard(of)
            self.has_all_to(of, data["cursor"])
        elif name in ("lagged", "caught_up"):
            self.crowd.lagged += name == "lagged"
            for live in self.wants.keys() - self.replaying - self.asked.keys():
                self.note(live, "told", data["cursor"])
        elif name == "error":
            if data["code"] not in PASSES + LOST:
                self.fault(f"error {data}")
        elif name not in ("connected", "scan_progress"):
            self.heard(of, data["cursor"], name, data.text)


class Reader(Client):
    """Over HTTP, from the first event on."""

    def __init__(self, crowd, name, urls, subjects):
        super().__init__(crowd, name, urls, {"log": subjects})
        self.query = [] if subjects == "all" else [("address", it) for it in subjects]
        self.cursors["log"] = crowd.first

    async def refused(self, answer):
        """Anything that is not 200. A page of the balancer's is no JSON."""
        text = await answer.text()
        code = json.loads(text)["code"] if text.startswith("{") else "no server"
        self.crowd.refusals[code] += 1
        if code in LOST:
            self.began("log", self.cursors["log"], json.loads(text)["cursor"], code)
        elif code not in PASSES and answer.status not in (502, 503, 504):
            self.fault(f"{answer.status} {text}")

    def begins(self):
        self.connects += 1
        self.note("log", "connect")
        self.began("log", self.cursors["log"], self.cursors["log"])


class StreamReader(Reader):
    async def once(self, url):
        headers = {"Last-Event-ID": self.cursors["log"]}
        asked = {"params": self.query, "headers": headers}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=40)
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 20) as http:
            async with http.get(f"{url}/events/stream", **asked) as answer:
                if answer.status != 200:
                    return await self.refused(answer)
                self.begins()
                fields = {}
                async for line in answer.content:
                    name, _, value = line.decode().rstrip("\n").partition(": ")
                    if name:
                        fields[name] = value
                    else:
                        self.take(**fields)
                        fields = {}

    def take(self, id=None, event=None, data=None, **_):
        if event == "satwatch_error":
            told = json.loads(data)
            self.crowd.refusals[told["code"]] += 1
            if told["code"] in LOST:
                self.began("log", self.cursors["log"], told["cursor"], told["code"])
            elif told["code"] not in PASSES:
                self.fault(f"satwatch_error {data}")
        elif event is not None:
            self.heard("log", id, event, data)
        elif id is not None:
            self.has_all_to("log", id)


class PageReader(Reader):
    async def once(self, url):
        timeout = aiohttp.ClientTimeout(total=40)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            while True:
                place = [("after", self.cursors["log"]), ("limit", "50"), ("wait", "5")]
                async with http.get(f"{url}/events", params=self.query + place) as answer:
                    if answer.status != 200:
                        return await self.refused(answer)
                    found, page = entries_of(await answer.text())
                self.begins()
                for cursor, event, raw in found:
                    self.heard("log", cursor, event, raw)
                self.has_all_to("log", page["next"])


class Crowd(threading.Thread):
    def __init__(self, seed, first):
        """`first`: the cursor before all events."""
        super().__init__(name="crowd", daemon=True)
        self.seed, self.first = seed, first
        self.clients, self.faults, self.lagged = [], [], 0
        self.refusals = collections.Counter()
        self.loop, self.ended = None, None

    def run(self):
        asyncio.run(self.live())

    async def live(self):
        self.loop, self.ended = asyncio.get_running_loop(), asyncio.Event()
        living = [self.loop.create_task(client.keep_on()) for client in self.clients]
        await self.ended.wait()
        for task in living:
            task.cancel()

    def leave(self, client):
        # One that is at a frozen edge goes when that goes on.
        with contextlib.suppress(concurrent.futures.TimeoutError):
            asyncio.run_coroutine_threadsafe(client.leave(), self.loop).result(1)

    def end(self):
        if self.is_alive():
            self.loop.call_soon_threadsafe(self.ended.set)
            self.join(10)
