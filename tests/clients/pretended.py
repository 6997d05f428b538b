"""Pretends to be the daemon, for what the daemon does seldom: refusals that pass, events of a
reading that has ended, and an end of the connection. Prints what clients ask as JSON lines.

usage: pretended.py PORT
"""

from __future__ import annotations

import json
import sys
from typing import Any

import socketio
from aiohttp import web

sio = socketio.AsyncServer(async_mode="aiohttp")
# What was refused once.
refused: set[str] = set()
# Of the one reader of a consumer.
readings = 0


def say(event: str, data: Any) -> None:
    print(json.dumps({"event": event, "data": data}), flush=True)


async def refuse_once(sid: str, what: str) -> dict[str, Any] | None:
    """As the daemon does: with an event, and with the acknowledgement."""
    if what in refused:
        return None
    refused.add(what)
    refusal = {"error": f"You ask more often than you may ({what}).", "code": "rate_limited"}
    await sio.emit("error", refusal, to=sid)
    return refusal


async def tell(sid: str, event: str, number: int, **subject: str) -> None:
    await sio.emit(event, {**subject, "cursor": f"p-{number}"}, to=sid)


@sio.event
async def subscribe_addresses(sid: str, data: dict[str, Any]) -> dict[str, Any]:
    say("subscribe_addresses", data)
    answer = {"message": "Subscribed.", "addresses": data["addresses"], "cursor": "p-1"}
    await sio.emit("subscribed", answer, to=sid)
    # Behind the acknowledgement, as the daemon does.
    sio.start_background_task(tell, sid, "balance_change", 2, address="address")
    return answer


@sio.event
async def subscribe_descriptor(sid: str, data: dict[str, Any]) -> dict[str, Any]:
    say("subscribe_descriptor", data)
    if refusal := await refuse_once(sid, "subscribe_descriptor"):
        return refusal
    wallet = data["descriptor_id"]
    answer = {"message": "Subscribed.", "descriptor_id": wallet, "cursor": "p-1"}
    await sio.emit("subscribed", answer, to=sid)
    sio.start_background_task(tell, sid, "label_change", 3, descriptor_id=wallet)
    return answer


@sio.event
async def subscribe_consumer(sid: str, data: dict[str, Any]) -> dict[str, Any]:
    global readings
    readings += 1
    say("subscribe_consumer", data)
    # Still on its way from the reading before.
    await tell(sid, "balance_change", 9)
    answer = {"message": "Reading.", "consumer": "shop", "cursor": "p-0", "lag": 3}
    await sio.emit("subscribed_consumer", answer, to=sid)
    for number in range(1, 4):
        await tell(sid, "balance_change", 10 * readings + number)
    return answer


@sio.event
async def ack(sid: str, data: dict[str, Any]) -> dict[str, Any]:
    say("ack", data)
    number = int(data["cursor"][2:])
    # The last one of the first reading, once.
    refusal = await refuse_once(sid, "ack") if number == 13 else None
    if refusal:
        return refusal
    if number == 13:
        changed = {"error": "shop was changed.", "code": "consumer_changed", "consumer": "shop"}
        await sio.emit("error", changed, to=sid)
    if number == 23:
        await sio.disconnect(sid)
    return {"consumer": "shop", "cursor": data["cursor"], "lag": 0}


async def define(request: web.Request) -> web.Response:
    say("define", await request.json())
    if "define" not in refused:
        refused.add("define")
        # As a proxy answers while the daemon is away.
        return web.Response(status=502, text="Bad Gateway")
    return web.json_response({})


app = web.Application()
app.router.add_put("/consumers/shop", define)
sio.attach(app)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
