"""python-socketio as it is, reading a consumer: prints what it hears as JSON lines and acknowledges
every few events.

python consume.py URL CONSUMER EVERY
"""

import asyncio
import json
import sys

import socketio

url, consumer, every = sys.argv[1:]
sio = socketio.AsyncClient()
count = 0


@sio.event
async def connect():
    await sio.emit("subscribe_consumer", {"consumer": consumer})


@sio.on("*")
async def any_event(event, data):
    global count
    print(json.dumps({"event": event, "data": data}), flush=True)
    if event in ("connected", "subscribed_consumer", "acked", "error"):
        return
    count += 1
    if event == "caught_up" or count % int(every) == 0:
        await sio.emit("ack", {"consumer": consumer, "cursor": data["cursor"]})


async def main():
    await sio.connect(url)
    await sio.wait()


asyncio.run(main())
