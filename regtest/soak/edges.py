"""The soak of edges: a node, a primary with Redis and a replica, three edges behind HAProxy, and a
crowd of stock clients, while all of these are killed, frozen, emptied, promoted and put back.

What it does. Each step is one trouble (edge_trouble.py), from decks of all of them that the seed
shuffles, with payments, blocks and small reorgs before, amid and behind it; some last over a few
steps, and so come together. Every 25 steps and at the end all is brought up again, and within 60
seconds each client must have what the primary's log has for it, over all its connections, to
whichever edge, in order, once, byte for byte (edge_check.py). At the end every record is spoilt in
four ways, and each must be found to be wrong.

How to replay. `regtest/soak/edges.sh --seed N --steps M`, with what a failure printed. Choices
depend on the seed, the step and the node; moments do not.

What a failure leaves. The folder that it names: `operations`, `differences`, the records of each
client (`clients/`), the logs that the primary had (`log.N`), and of each part its folder. The exit
code is 0 only when nothing differed, 1 when something did, 2 when the soak itself could not go on.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback

import blocks
import payments
import wallet_operations
from daemon import Daemon
from edge_check import Following, Log, spoil
from edge_crowd import Crowd, Listener, PageReader, StreamReader
from edge_parts import Balancer, RedisPair, copy, edge, need
from edge_trouble import TROUBLES
from node import Node
from process import Failure, free_port, wait_until
from relay import Relay
from world import World

CHECK_EVERY = 25
SETTLE = 60.0
EDGES = 3
OWN_ADDRESSES = 120


def small_branch(world):
    blocks.branch(world, most=3)


def small_reorg(world):
    blocks.invalidate(world, most=3)


OPERATIONS = {
    payments.pay: 6,
    payments.burst: 2,
    payments.flood: 2,
    payments.spend: 4,
    payments.chain: 2,
    payments.replace: 3,
    blocks.generate: 4,
    blocks.selected: 1,
    small_branch: 1,
    small_reorg: 1,
}


class Soak:
    def __init__(self, options, folder):
        self.options, self.folder, self.step = options, folder, 0
        self.random = random.Random(f"{options.seed} edges 0")
        self.counts, self.deck, self.pending = collections.Counter(), [], []
        program = folder / "satwatch"
        # Others may build a new one meanwhile.
        shutil.copy2(options.bin, program)
        self.node = Node(options.bitcoind, folder / "node")
        self.redis = RedisPair(folder / "redis")
        bus = f"redis://127.0.0.1:{self.redis.master.port}"
        self.key = "{satwatch:regtest}"
        self.kept, self.newest = folder / "kept", folder / "newest"
        settings = {
            "bitcoind.rpc_url": f"http://127.0.0.1:{self.node.rpc_port}",
            "bitcoind.cookie_file": str(self.node.cookie_file),
            "monitor.reconcile_interval": "2",
            "bus.url": bus,
            # Soon longer than the stream may be.
            "bus.max_length": "500",
        }
        self.primary = Daemon(program, folder / "primary", settings)
        self.aside = f"127.0.0.1:{free_port()}"
        self.edges = [edge(program, folder / f"edge{n}", self.primary, bus) for n in range(EDGES)]
        self.balancer = Balancer(folder / "haproxy", self.edges)
        # HAProxy would take what a slow client does not.
        ports = [int(it.settings["server.listen"].split(":")[1]) for it in self.edges]
        self.slow = Relay(lambda: random.choice(ports))
        self.journal = open(folder / "operations", "w", encoding="utf-8")
        self.world = World(options.seed, self.node, self.primary, None, self.journal)
        self.logs, self.crowd = [], None

    def some_edge(self):
        return self.random.choice(self.edges)

    def set_up(self):
        self.node.start()
        self.redis.start()
        self.world.set_up()
        self.primary.start()
        wait_until("the primary has a tip", lambda: self.primary.get("/status")["tip"])
        own = self.own_addresses()
        watched = [address.text for address in self.world.watched]
        self.primary.post("/add_addresses", {"addresses": watched + own})
        self.world.wallets = self.world.wallets[:1]
        wallet = self.world.wallets[0]
        wallet_operations.add_wallet(self.world, wallet)
        paths = [f"/balance/{text}" for text in watched] + [f"/descriptors/{wallet.id}/balance"]
        wait_until(
            "all is covered",
            lambda: all(self.primary.get(path)["coverage"]["complete"] for path in paths),
        )
        self.primary.terminate()
        for target in (self.kept, self.newest):
            copy(self.primary.folder / "store", target)
        self.primary.start()
        self.logs = [Log().read(self.primary)]
        for part in (*self.edges, self.balancer):
            getattr(part, "launch", part.start)()
        self.slow.start()
        self.bring_up()
        self.crowd = Crowd(self.options.seed, f"{self.logs[0].starts[0][0]}-0")
        self.gather(watched, own, wallet.id)
        self.crowd.start()
        self.settle()

    def own_addresses(self):
        """Of the crowd, to be paid all at once (payments.flood)."""
        scripts = [b"\x00\x14" + self.random.randbytes(20) for _ in range(OWN_ADDRESSES)]
        found = self.world.keys.derive([f"raw({script.hex()})" for script in scripts])
        self.world.crowd = {text: script for (text, _), script in zip(found, scripts)}
        return list(self.world.crowd)

    def gather(self, watched, own, wallet):
        choice = random.Random(f"{self.options.seed} crowd of edges")
        by_cookie, by_hash = self.balancer.urls()
        places = [f"http://{it.settings['server.listen']}" for it in (*self.edges, self.primary)]
        anywhere, slow = [by_cookie, *places], f"http://127.0.0.1:{self.slow.port}"

        def listener(name, urls, single, many, more=None, **how):
            some = choice.sample(watched, single + 4)
            wants = {text: [text] for text in some[:single]}
            wants["list"] = some[single:] + choice.sample(own, many)
            self.crowd.clients.append(
                Listener(self.crowd, name, urls, {**wants, **(more or {})}, **how)
            )

        listener("all", [by_cookie], 3, OWN_ADDRESSES, {"wallet": [wallet], "blocks": None})
        for n in range(4):
            listener(f"websocket{n}", [by_cookie], 2, 20 * n)
        for n in range(3):
            listener(f"polling{n}", [by_cookie], 2, 10 * n, transport="polling")
        for n in range(2):
            how = {"transport": "polling", "source": f"127.0.0.{20 + n}"}
            listener(f"hash{n}", [by_hash], 2, 10, **how)
        listener("roaming0", anywhere, 4, 30, {"wallet": [wallet]})
        listener("roaming1", anywhere, 2, 60, {"blocks": None})
        listener("roaming2", anywhere, 1, 10, transport="polling")
        listener("slow", [slow], 1, OWN_ADDRESSES)
        mine = choice.sample(watched, 6) + choice.sample(own, 20)
        self.crowd.clients += [
            StreamReader(self.crowd, "stream-all", [by_cookie], "all"),
            StreamReader(self.crowd, "stream-some", anywhere, mine),
            StreamReader(self.crowd, "stream-hash", [by_hash], "all"),
            PageReader(self.crowd, "pages", [by_hash], mine),
        ]

    def run(self):
        """What differs, or nothing."""
        self.set_up()
        for step in range(1, self.options.steps + 1):
            self.one(step)
            last = step == self.options.steps
            if last or step % CHECK_EVERY == 0:
                found = self.checkpoint()
                if found or last:
                    return found or self.check_the_check()
        return []

    def one(self, step):
        self.step = step
        self.world.begin(step)
        self.random = random.Random(f"{self.options.seed} edges {step}")
        for other in [it for it in self.pending if it[0] <= step]:
            self.go_on(other)
        trouble = self.next_trouble()
        if trouble is not None:
            self.say(trouble.__name__)
            self.counts[trouble.__name__] += 1
            away = self.random.choice((0, 0, 1, 2, 3))
            running = [step + away, trouble, trouble(self)]
            self.pending.append(running)
            self.go_on(running)
            while away == 0 and running in self.pending:
                self.operate()
                self.go_on(running)
        self.operate()

    def next_trouble(self):
        """The next one of the deck for which nothing is busy."""
        if not self.deck:
            self.deck = [it for it in TROUBLES if it.__name__ not in self.options.without]
            self.random.shuffle(self.deck)
        busy = {part for _, trouble, _ in self.pending for part in TROUBLES[trouble]}
        free = [trouble for trouble in self.deck if not busy & set(TROUBLES[trouble])]
        if not free:
            return None
        self.deck.remove(free[0])
        return free[0]

    def go_on(self, running):
        if next(running[2], self) is self:
            self.pending.remove(running)
            self.say(f"{running[1].__name__} is over")

    def say(self, text):
        self.world.say(f"-- {text}")

    def operate(self):
        for _ in range(self.random.choice((1, 1, 2, 3))):
            self.world.ledger.refresh()
            operation = self.world.random.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
            self.world.say(f"- {operation.__name__}")
            self.counts[operation.__name__] += 1
            operation(self.world)
            time.sleep(self.random.choice((0, 0, 0.1, 0.5, 1)))

    def bring_up(self):
        while self.pending:
            for running in list(self.pending):
                self.go_on(running)
        for part in self.edges:
            part.port = int(wait_until("an edge listens", part.listens)[1])
        for part in (self.primary, *self.edges):
            wait_until(f"{part.folder.name} is ready", part.ready)

    def checkpoint(self):
        self.bring_up()
        self.world.ledger.refresh()
        begin = time.monotonic()
        found = self.settle()
        line = (
            f"all are where the log is after {time.monotonic() - begin:.1f} s: {self.delivered()} events "
            f"given to {len(self.crowd.clients)} clients, {len(self.logs[-1].entries)} in log {len(self.logs)}, {len(found)} differences"
        )
        self.say(line)
        print(f"step {self.step:4}  {line}", flush=True)
        return found

    def followings(self):
        for client in self.crowd.clients:
            for of, wanted in client.wants.items():
                # The crowd goes on writing.
                items = list(client.records[of])
                yield f"{client.name} {of}", wanted, items

    def settle(self):
        """Until each has everything of the last log; what differs, or is missing after so long."""
        deadline = time.monotonic() + SETTLE
        height = self.world.node.rpc("getblockcount")
        while True:
            self.logs[-1].read(self.primary)
            passes = [Following(n, w, self.logs).follow(i) for n, w, i in self.followings()]
            wrong = self.crowd.faults + [what for it in passes for what in it.wrong]
            wrong += self.begun_anew()
            missing = [what for it in passes for what in it.missing()]
            tip = self.primary.get("/status")["tip"]
            if tip["height"] != height:
                missing.append(f"the primary is at {tip}, the node at height {height}")
            if wrong or not missing:
                return wrong
            if time.monotonic() > deadline:
                return missing
            time.sleep(0.3)

    def begun_anew(self):
        """Edges that took the log for another one although the primary was never put back."""
        if len(self.logs) > 1:
            return []
        found = []
        for part in self.edges:
            texts = [path.read_text(errors="replace") for path in part.folder.glob("log.*")]
            if any("the stream is of another log now" in text for text in texts):
                found.append(f"{part.folder.name} began anew, and the log has always been the same")
        return found

    def delivered(self):
        return sum(item[0] == "event" for _, _, items in self.followings() for item in items)

    def check_the_check(self):
        """Whether it sees what is wrong."""
        tried, unseen = 0, []
        for name, wanted, items in self.followings():
            count, found = spoil(name, wanted, items, self.logs, self.options.seed)
            tried, unseen = tried + count, unseen + found
        print(f"{tried} records spoilt, {len(unseen)} not found to be wrong", flush=True)
        return unseen if tried else ["no record could be spoilt"]

    def summary(self):
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        if self.crowd is None:
            return counts
        clients = self.crowd.clients
        unknown = sum(
            item[0] == "begin" and item[3] is not None
            for _, _, items in self.followings()
            for item in items
        )
        refusals = ", ".join(f"{code} {count}" for code, count in self.crowd.refusals.items())
        return (
            f"done: {counts}\nevents: {self.delivered()} given to {len(clients)} clients over {sum(it.connects for it in clients)} connections, "
            f"{self.crowd.lagged} times lagged, {unknown} cursors of a log that is gone, {len(self.logs)} logs; refusals: {refusals or 'none'}"
        )

    def end(self):
        if self.crowd is not None:
            self.crowd.end()
            self.write_down()
        for part in (*self.edges, self.primary, self.node):
            if part.process is not None and part.process.runs():
                part.process.kill()
        self.balancer.end()
        self.redis.end()
        if self.slow.is_alive():
            self.slow.end()
        self.journal.close()

    def write_down(self):
        (self.folder / "clients").mkdir()
        for name, _, items in self.followings():
            text = "".join(f"{json.dumps(item)}\n" for item in items)
            (self.folder / "clients" / name.replace(" ", "-")).write_text(text)
        for n, log in enumerate(self.logs, 1):
            lines = [json.dumps(log.starts), *map(json.dumps, log.entries)]
            (self.folder / f"log.{n}").write_text("\n".join(lines) + "\n")


def options():
    parser = argparse.ArgumentParser(
        description="Edges, Redis and the primary killed and put back beside clients. See the head of edges.py."
    )
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--bin", required=True, help="the satwatch to test")
    parser.add_argument("--bitcoind", required=True)
    parser.add_argument("--keep", action="store_true", help="keep the folder in any case")
    parser.add_argument(
        "--without", action="append", default=[], metavar="TROUBLE", help="it does not happen"
    )
    return parser.parse_args()


def interrupted(signum, frame):
    raise Failure(f"ended by signal {signum}")


def main():
    asked = options()
    need()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    parent = os.environ.get("TMPDIR", "/tmp")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="satwatch-edges-", dir=parent))
    print(f"seed {asked.seed}, {asked.steps} steps, in {folder}", flush=True)
    begin, soak, found, code = time.monotonic(), None, [], 0
    try:
        soak = Soak(asked, folder)
        found = soak.run()
        code = 1 if found else 0
    except Exception as cause:  # noqa: BLE001  whatever it is, the folder with the logs stays
        code = 2
        found = [f"the soak could not go on: {cause}"]
        found += soak.crowd.faults if soak and soak.crowd else []
        (folder / "traceback").write_text(traceback.format_exc())
    finally:
        if soak:
            soak.end()
    if found:
        (folder / "differences").write_text("\n".join(found) + "\n")
        step = soak.step if soak else 0
        again = f"regtest/soak/edges.sh --seed {asked.seed} --steps {asked.steps}"
        again += "".join(f" --without {it}" for it in asked.without)
        print(f"\nFAILED: seed {asked.seed}, step {step}. To replay: {again}\nAll logs: {folder}")
        for what in found[:10]:
            print(f"  - {what[:600]}")
        print(f"  All {len(found)}: {folder}/differences")
    if soak:
        print(soak.summary())
    if code == 0:
        seconds = time.monotonic() - begin
        print(f"nothing differs: seed {asked.seed}, {asked.steps} steps, {seconds:.0f} s")
        if not asked.keep:
            shutil.rmtree(folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
