"""Operations on wallets: added late and again, removed, scanned, asked for addresses,
labelled.
"""

import json
import time

from process import Failure
from wallets import NAMES


def add_wallet(world, wallet, **options):
    answer = world.daemon.post("/descriptors", {"descriptor": wallet.text, **options})
    wallet.id, wallet.added = answer["descriptor_id"], True
    world.say(f"wallet {wallet.id}: {wallet.text} {json.dumps(options)}")
    return answer


def has_past(world, wallet):
    """It may have had transactions when it was added."""
    texts = [address.text for address in wallet.own().values()]
    world.late.update([wallet.id, *texts])
    return texts


def add_wallet_late(world):
    """One that was paid before; or one that is removed, and added again."""
    waiting = [wallet for wallet in world.wallets if not wallet.added]
    if not waiting:
        lasting = world.lasting_wallets()
        return remove_wallet(
            world, world.random.choice([w for w in world.wallets if w not in lasting])
        )
    wallet = world.random.choice(waiting)
    history = world.random.choice(("utxo", {"from_height": 0}))
    answer = add_wallet(world, wallet, history=history)
    texts = has_past(world, wallet)
    if history != "utxo":
        scanned(world, wallet, texts, answer["scan_id"], 0)
    return None


def remove_wallet(world, wallet):
    status, answer = world.daemon.request("DELETE", f"/descriptors/{wallet.id}")
    if status not in (200, 202):
        raise Failure(f"DELETE /descriptors/{wallet.id}: {status} {answer!r}")
    world.say(f"removed wallet {wallet.id}: {answer!r}")
    wallet.added, wallet.given = False, set()
    world.scans = {
        name: (texts, start) for name, (texts, start) in world.scans.items() if texts != [wallet.id]
    }


def label(world):
    """Of a wallet, or of an address that is watched by itself."""
    wallet, address = world.random.choice(world.added_wallets()), world.random.choice(world.watched)
    path = world.random.choice((f"/descriptors/{wallet.id}", f"/addresses/{address.text}"))
    body = {"label": world.random.choice((None, "rent", "shop", "gift"))}
    status, text = world.daemon.request("PATCH", path, body)
    world.say(f"label {path} {body}: {status}")
    if status != 200 or json.loads(text)["label"] != (body["label"] or ""):
        raise Failure(f"PATCH {path} {body}: {status} {text!r}")


def label_differences(world, log):
    """What was told last is what is so."""
    found = []
    for wallet in world.added_wallets():
        said = world.daemon.get(f"/descriptors/{wallet.id}")["label"]
        if log.labels.get(wallet.id, said) != said:
            found.append(f"{wallet.id} has the label {said}, told was {log.labels[wallet.id]}")
    return found


def scanned(world, wallet, texts, scan, start):
    world.scanned.update([wallet.id, *texts])
    world.scans[scan] = ([wallet.id], start)


def scan_wallet(world):
    wallet = world.random.choice(world.added_wallets())
    start = world.random.choice((0, 0, world.random.randrange(world.ledger.height)))
    texts = [address.text for address in wallet.own().values()]
    # Before the daemon can have ended it.
    world.scanned.update([wallet.id, *texts])
    body = {"descriptor_id": wallet.id, "from_height": start}
    answer = world.daemon.post("/scan_history", body)
    scanned(world, wallet, texts, answer["scan_id"], start)
    world.say(f"scan {answer['scan_id']} of wallet {wallet.id} from {start}")


def take_address(world):
    """The next address, which nobody was given, and which is paid mostly."""
    wallet = world.random.choice(world.added_wallets())
    number = world.random.randrange(len(wallet.keychains))
    path = f"/descriptors/{wallet.id}/next_address"
    status, text = world.daemon.request("POST", path, {"keychain": NAMES[number]})
    world.say(f"next address of {wallet.id} {NAMES[number]}: {status} {text.decode()}")
    answer = json.loads(text)
    if status == 409 and answer["code"] == "past_awaited":
        return time.sleep(0.2)
    if status not in (200, 201):
        raise Failure(f"POST {path}: {status} {text!r}")
    place = (answer["keychain"], answer["index"])
    if place in wallet.given or answer["keychain"] != NAMES[number]:
        raise Failure(f"{path} gave {place} again, or of another keychain")
    wallet.given.add(place)
    address = wallet.address(number, answer["index"])
    if answer["address"] != address.text:
        raise Failure(f"{path} gave {answer['address']}, {place} is {address.text}")
    return None


def audit(world):
    """Compared with the node by the daemon itself, at the end of all."""
    found = []
    for wallet in world.added_wallets():
        answer = world.daemon.post(f"/audit/descriptors/{wallet.id}", {})
        if answer["agrees"] is not True:
            found.append(f"the audit of {wallet.id} says {answer}")
    return found
