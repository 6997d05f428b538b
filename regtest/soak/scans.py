"""Operations about the past of watched addresses: history scans, their end before time, and
addresses that are forgotten and added again.
"""

import json
import time

from log_check import is_wallet
from process import Failure


def scan(world):
    """The history of some watched addresses, mostly all of it; also of some that are being scanned
    already.
    """
    count = min(len(world.watched), world.random.choice((1, 1, 2, 5)))
    texts = [address.text for address in world.random.sample(world.watched, count)]
    start = world.random.choice((0, 0, 0, world.random.randrange(world.ledger.height)))
    # Before the daemon can have ended it.
    world.scanned.update(texts)
    answer = world.daemon.post("/scan_history", {"addresses": texts, "from_height": start})
    world.scans[answer["scan_id"]] = (texts, start)
    world.say(f"scan {answer['scan_id']} of {texts} from {start}")


def cancel(world):
    if not world.scans:
        return scan(world)
    name = world.random.choice(sorted(world.scans))
    status, text = world.daemon.request("DELETE", f"/scans/{name}")
    world.say(f"cancel scan {name}: {status} {text.decode()}")
    if status == 200:
        del world.scans[name]
    elif status != 409:
        raise Failure(f"DELETE /scans/{name}: {status} {text!r}")
    return None


def forget(world):
    """Removes an address, and adds it again: with what it owns, and perhaps its history."""
    address = world.random.choice(world.watched)
    text = address.text
    status, answer = world.daemon.request("DELETE", f"/addresses/{text}")
    if status not in (200, 404):
        raise Failure(f"DELETE /addresses/{text}: {status} {answer!r}")
    world.say(f"forgot {text}: {status}")
    world.late.add(text)
    world.from_the_start.discard(text)
    world.scans = {
        name: ([known for known in texts if known != text], start)
        for name, (texts, start) in world.scans.items()
    }
    time.sleep(world.random.choice((0, 0, 0.1)))
    history = world.random.choice(("utxo", {"from_height": 0}))
    answer = world.daemon.post("/add_address", {"address": text, "history": history})
    world.say(f"watch {text} again with {json.dumps(history)}: {answer['message']}")
    if history != "utxo":
        world.scanned.add(text)
        world.scans[answer["scan_id"]] = ([text], 0)


def differences(world):
    """Call it when no address waits for anything: each scan that was not cancelled is complete, and
    its addresses are known from its start on.
    """
    found = []
    for name, (texts, start) in world.scans.items():
        status = world.daemon.get(f"/scans/{name}")
        if status["status"] != "complete" or status["percent"] != 100:
            found.append(f"scan {name} is {status}")
        for text in texts:
            path = f"/descriptors/{text}/balance" if is_wallet(text) else f"/balance/{text}"
            coverage = world.daemon.get(path)["coverage"]
            # What a reorg took back below its start is not known from there on any more, and nobody
            # says so.
            if text in world.from_the_start and coverage["from_height"] > start:
                found.append(f"{text} was scanned from {start} and has {coverage}")
    return found
