"""A client of the soak, on the stock python-socketio: writes all that it hears to a file, and comes
back with the cursors in there.

python client.py JOB       (JSON: see clients.py, which checks the file)
"""

import asyncio
import json
import sys

import socketio
from wire import Json, Records, subject_of


class Client:
    def __init__(self, job):
        self.job, self.records = job, Records(job["out"])
        self.group_of = {
            address: group["name"] for group in job["groups"] for address in group["addresses"]
        }
        self.cursors = {}
        for record in self.records.known:
            self._take(record)
        self.asked, self.unacked = {}, 0
        self._write(r="start")
        self.sio = socketio.AsyncClient(
            json=Json, reconnection_delay=0.1, reconnection_delay_max=0.3, handle_sigint=False
        )
        self.sio.on("connect", self.connect)
        self.sio.on("disconnect", lambda reason: self._write(r="disconnect", reason=reason))
        # Not coroutines, and the asynchronous client: it starts them in the order of the messages
        # and each runs through.
        self.sio.on("*", self.try_hear)

    def _take(self, record):
        if record["r"] in ("subscribed", "event") or (
            record["r"] == "caught_up" and record["group"]
        ):
            self.cursors[record["group"]] = record["cursor"]

    def _write(self, **record):
        self._take(record)
        self.records.write(record)

    async def connect(self):
        self._write(r="connect")
        self.asked = {}
        if self.job["consumer"]:
            await self.sio.emit(
                "subscribe_consumer",
                {"consumer": self.job["consumer"]["name"]},
            )
        for group in self.job["groups"]:
            options = (
                {"after": self.cursors[group["name"]]} if group["name"] in self.cursors else {}
            )
            self.asked.setdefault(group["name"], []).append(not options)
            if group["descriptor"]:
                await self.sio.emit(
                    "subscribe_descriptor", {"descriptor_id": group["addresses"][0], **options}
                )
            elif group["many"]:
                await self.sio.emit(
                    "subscribe_addresses", {"addresses": group["addresses"], **options}
                )
            else:
                await self.sio.emit(
                    "subscribe_address", {"address": group["addresses"][0], **options}
                )
        if self.job["blocks"]:
            await self.sio.emit("subscribe_blocks", {})

    def try_hear(self, name, *arguments):
        try:
            self.hear(name, *arguments)
        except Exception as cause:  # noqa: BLE001  the library would only print it
            self._write(r="bug", text=f"{name} {arguments}: {cause!r}")

    def hear(self, name, data, *more):
        if name == "scan_progress":
            # Not in the log.
            return None
        if more:
            self._write(r="bug", text=f"{name} has more arguments: {more}")
        reply = getattr(self, "_" + name, None)
        if reply:
            return reply(data)
        group = self.group_of.get(subject_of(data)) if subject_of(data) else "blocks"
        self._write(r="event", group=group, name=name, cursor=data["cursor"], raw=data.text)
        self.unacked += 1
        if self.job["consumer"] and self.unacked >= self.job["consumer"]["every"]:
            self.unacked = 0
            self.sio.start_background_task(self._acknowledge, data["cursor"])
        return None

    async def _acknowledge(self, cursor):
        self._write(r="ack", cursor=cursor)
        await self.sio.emit(
            "ack",
            {"consumer": self.job["consumer"]["name"], "cursor": cursor},
            callback=lambda answer: self._acknowledged(cursor, answer),
        )

    def _acknowledged(self, cursor, answer):
        self._write(r="acked", asked=cursor, **answer)

    def _connected(self, data):
        pass

    _acked = _connected

    def _subscribed(self, data):
        group = self.group_of[subject_of(data) or data["addresses"][0]]
        balances = data.get("balances") or ([data["balance"]] if "balance" in data else [])
        balances = [[subject_of(it), it["balance"], it["cursor"]] for it in balances]
        fresh = self.asked[group].pop(0)
        self._write(
            r="subscribed",
            group=group,
            cursor=data["cursor"],
            fresh=fresh,
            balances=balances,
            code=data.get("code"),
        )

    def _subscribed_blocks(self, data):
        self._write(r="subscribed", group="blocks", cursor=data["cursor"], fresh=True, balances=[])

    def _caught_up(self, data):
        first = subject_of(data) or (data.get("addresses") or [None])[0]
        self._write(
            r="caught_up",
            group=self.group_of.get(first),
            consumer=data.get("consumer"),
            cursor=data["cursor"],
        )

    def _lagged(self, data):
        self._write(r="lagged", cursor=data["cursor"])

    def _error(self, data):
        self._write(r="error", **data)

    def _subscribed_consumer(self, data):
        self._write(r="reading", cursor=data["cursor"], code=data.get("code"))


async def main(job):
    client = Client(job)
    while True:
        try:
            await client.sio.connect(job["url"], transports=job["transports"], retry=True)
            break
        except socketio.exceptions.ConnectionError:
            # It was stopped, or the daemon was, behind the handshake: that is not tried again.
            await asyncio.sleep(0.1)
    await client.sio.wait()


with open(sys.argv[1], encoding="utf-8") as file:
    asyncio.run(main(json.load(file)))
