"""The soak: seeded random operations on a real regtest node and the real daemon, ZMQ through a
proxy that drops messages, and checkpoints at which everything that the daemon says is compared with
what the node knows.

What it does. Each step is one operation, chosen by weight (OPERATIONS): payments, spends, chains,
replacements, eviction, expiry, comebacks; blocks with all, some or none of the mempool, with double
spends of it, with what no mempool takes; reorgs by `invalidateblock` (no block is published) and by
rival branches (`submitblock`: the node switches in one go and skips rawblocks, as it does for
blocks of a peer); restarts, kills and freezes of node and daemon; watches of new and of used
addresses; stop and start; scans of their history, addresses that are forgotten and added again;
wallets of three forms, two of which share scripts, that are paid near and far ahead, scanned,
removed and added again, and give addresses away;
moments in which every message is lost or late, and in which the node's answers are late or break
off (proxy.py, rpc_proxy.py). Every ten steps, and at the end, there is a checkpoint: the daemon has
60 seconds to say what the node says (truth.py), then the event log so far must hold together and
end there (log_check.py).

Meanwhile a crowd of stock clients lives on it and is killed, stopped, stalled and cut (clients.py):
subscribers in JavaScript and Python with cursors, one that cannot make up its mind, readers of `GET
/events`, of named consumers (alone, as rivals, over REST), receivers of webhooks that fail.
At each checkpoint all that each of them ever got must be the log, filtered to what it asked for, in
order, once, byte for byte (streams.py, consumers.py, webhooks.py). `check_checks.py` shows that
these checks can fail.

How to replay. `regtest/soak/run.sh --seed N --steps M` with the seed that a failure printed. The
choices of a step depend on the seed, the number of the step and the state of the node alone; keys
are made from the seed, so that transactions have the same ids again. What is not from the seed is
time: how far the daemon is when the next operation comes, which messages are dropped (these have a
random sequence of their own), at which moment of a step something is done to a client, and the
hashes of blocks. A failure that needs a certain moment may take some replays.

What a failure leaves. The folder that it names: `operations` (every operation with its step and
time), `differences`, `events`, `clients` with what each heard and its job, the node's folder with
debug.log, and the daemon's with a log of each start (`log.001`, ...) and its store. The exit code
is 0 only when nothing differed, 1 when something did, 2 when the soak itself could not go on.
"""

import argparse
import collections
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback

import blocks
import clients
import payments
import restarts
import scans
import wallet_operations
import webhooks
from daemon import Daemon
from log_check import AGAIN, EventLog
from node import Node
from process import Failure, wait_until
from proxy import Proxy
from rpc_proxy import RpcProxy
from truth import settle
from witness import Witness
from world import World

CHECK_EVERY = 10
SETTLE = 60.0


def daemon_kill_amid(world):
    """During something that takes a while."""
    amid = (
        blocks.branch,
        blocks.branch_deep,
        blocks.generate_many,
        blocks.invalidate,
        blocks.conflict,
        payments.burst,
    )
    restarts.daemon_kill_amid(world, world.random.choice(amid))


"""How often each is chosen, relative to the others; and whether it needs a daemon that is up."""
OPERATIONS = {
    payments.pay: 14,
    payments.pay_many: 3,
    payments.pay_strangers: 2,
    payments.burst: 5,
    payments.flood: 9,
    payments.spend: 16,
    payments.chain: 7,
    payments.replace: 14,
    payments.resend: 4,
    payments.expire: 1,
    payments.evict: 0.5,
    blocks.generate: 12,
    blocks.generate_many: 2,
    blocks.empty: 3,
    blocks.selected: 5,
    blocks.conflict: 6,
    blocks.odd: 2,
    blocks.invalidate: 5,
    blocks.invalidate_deep: 1,
    blocks.reconsider: 2,
    blocks.branch: 5,
    blocks.branch_deep: 1,
    blocks.equal_branch: 2,
    restarts.node_restart: 2,
    restarts.node_restart_forgetting: 1,
    restarts.node_kill: 1,
    restarts.node_reindex: 1,
    restarts.node_freeze: 1,
    restarts.silence: 4,
    restarts.lag: 3,
    restarts.feed_breaks: 2,
    restarts.slow_rpc: 5,
    restarts.bad_rpc: 2,
}
NEED_DAEMON = {
    restarts.daemon_kill: 3,
    daemon_kill_amid: 3,
    restarts.daemon_freeze: 1,
    restarts.both_restart: 1,
    restarts.daemon_terminate: 1,
    restarts.watch_late: 4,
    restarts.watch_new: 3,
    restarts.watch_bulk: 1,
    restarts.stop: 2,
    scans.scan: 5,
    scans.cancel: 1,
    scans.forget: 2,
    wallet_operations.add_wallet_late: 2,
    wallet_operations.scan_wallet: 2,
    wallet_operations.take_address: 4,
    wallet_operations.label: 3,
}


class Soak:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.witness = Witness()
        self.events = EventLog(self.witness)
        self.counts = collections.Counter()
        self.slowest = 0.0
        program = folder / "satwatch"
        # Others may build a new one meanwhile.
        shutil.copy2(options.bin, program)
        self.node = Node(options.bitcoind, folder / "node")
        self.proxy = Proxy(
            options.seed, self.node.zmq_port, options.drop, options.apart, self.witness
        )
        self.rpc_proxy = RpcProxy(options.seed, self.node.rpc_port)
        settings = {
            "bitcoind.rpc_url": f"http://127.0.0.1:{self.rpc_proxy.port}",
            "bitcoind.cookie_file": str(self.node.cookie_file),
            "monitor.reconcile_interval": "2",
            **webhooks.SETTINGS,
        }
        settings.update(
            {f"bitcoind.zmq_{topic}": address for topic, address in self.proxy.addresses.items()}
        )
        self.daemon = Daemon(program, folder / "daemon", settings)
        self.journal = open(folder / "operations", "w", encoding="utf-8")
        self.world = World(options.seed, self.node, self.daemon, self.proxy, self.journal)
        self.world.rpc_proxy = self.rpc_proxy
        self.world.read_events, self.world.witness = self.read_events, self.witness
        self.world.restart_node = lambda *extra: restarts.node_restart(self.world, *extra)
        self.events.late, self.events.scanned = self.world.late, self.world.scanned
        self.crowd = clients.Crowd(self.world, self.events, folder / "clients", sys.executable)

    def read_events(self, again=False):
        self.events.read(self.daemon, AGAIN if again else None)

    def set_up(self):
        self.node.start()
        self.proxy.start()
        self.rpc_proxy.start()
        self.world.set_up()
        self.daemon.start()
        first = [address.text for address in self.world.watched]
        wait_until("the daemon has a tip", lambda: self.daemon.get("/status")["tip"])
        self.daemon.post("/add_addresses", {"addresses": first})
        for wallet in self.world.wallets[:3]:
            wallet_operations.add_wallet(self.world, wallet)
        paths = [f"/balance/{text}" for text in first]
        paths += [f"/descriptors/{wallet.id}/balance" for wallet in self.world.added_wallets()]

        def covered():
            return all(self.daemon.get(path)["coverage"]["complete"] for path in paths)

        wait_until("the first addresses are covered", covered)
        self.world.from_the_start, self.world.watched_from = (
            set(first),
            self.world.ledger.height + 1,
        )
        self.world.say(f"watching {first}")
        if not self.options.alone:
            self.crowd.set_up()

    def run(self):
        """What differs, or nothing."""
        self.set_up()
        for step in range(1, self.options.steps + 1):
            # Every third stretch is in a hurry: operation upon operation.
            self.one(step, hurry=(step - 1) // CHECK_EVERY % 3 == 2)
            if step % CHECK_EVERY == 0 or step == self.options.steps:
                found = self.checkpoint(last=step == self.options.steps)
                if found:
                    return found
        return []

    def one(self, step, hurry):
        world = self.world
        world.begin(step)
        if world.daemon_back is not None and step >= world.daemon_back:
            restarts.daemon_start(world)
        table = dict(OPERATIONS)
        if self.daemon.up:
            table.update(NEED_DAEMON)
        # A daemon that was told to stop is told to go on before long.
        operation = (
            restarts.start
            if world.stopped and self.daemon.up and world.random.random() < 0.3
            else None
        )
        operation = operation or world.random.choices(list(table), list(table.values()))[0]
        world.ledger.refresh()
        self.witness.resolve(world.ledger)
        world.say(f"-- {operation.__name__}")
        self.counts[operation.__name__] += 1
        self.crowd.torment(step)
        operation(world)
        if not hurry:
            time.sleep(world.random.choice((0, 0, 0, 0.05, 0.2, 0.6)))

    def checkpoint(self, last):
        world = self.world
        if not self.daemon.up:
            restarts.daemon_start(world)
        if world.stopped:
            restarts.start(world)
        if self.proxy.failed:
            raise Failure(f"the proxy ended: {self.proxy.failed!r}")
        begin = time.monotonic()
        truth, found = settle(world, SETTLE)
        world.jumped = []
        took = time.monotonic() - begin
        self.slowest = max(self.slowest, took)
        self.events.read(self.daemon, len(self.events.entries) if last else None)
        self.witness.resolve(world.ledger)
        found += scans.differences(world)
        found += self.events.differences(truth)
        found += wallet_operations.label_differences(world, self.events)
        found += self.crowd.differences(last)
        if last and not found:
            found += wallet_operations.audit(world)
        outputs = sum(map(len, truth.outputs.values()))
        line = (
            f"checkpoint at height {truth.height} after {took:.1f} s: {len(truth.scripts)} addresses and {len(world.added_wallets())} wallets, {outputs} outputs, "
            f"{len(truth.ledger.mempool)} in the mempool, {len(self.events.entries)} events, {len(found)} differences"
        )
        world.say(line)
        print(f"step {world.step:4}  {line}", flush=True)
        return found

    def summary(self):
        operations = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.events.kinds.items()))
        return (
            f"operations: {operations}\nevents: {kinds}\n{self.crowd.summary()}\n"
            f"transactions: {self.world.accepted} taken, {self.world.refused} refused by the node; "
            f"messages: {self.proxy.passed} passed, {self.proxy.dropped} dropped; answers: {self.rpc_proxy.late} late, "
            f"{self.rpc_proxy.broken} broken; daemon starts: {self.daemon.starts}; "
            f"slowest checkpoint: {self.slowest:.1f} s"
        )

    def end(self):
        self.crowd.end()
        (self.folder / "events").write_text(
            "\n".join(
                f"{n} {event} {text}" for n, (event, _, text) in enumerate(self.events.entries, 1)
            )
            + "\n"
        )
        for part in (self.daemon, self.node):
            if part.process is not None and part.process.runs():
                part.process.kill()
        if self.proxy.is_alive():
            self.proxy.end()
        self.rpc_proxy.end()
        self.journal.close()


def options():
    parser = argparse.ArgumentParser(
        description="Random operations on node and daemon, compared. See the head of soak.py."
    )
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument(
        "--drop", type=float, default=0.0, help="part of the ZMQ messages that is lost, 0 to 1"
    )
    parser.add_argument("--apart", action="store_true", help="each topic on an address of its own")
    parser.add_argument("--bin", required=True, help="the satwatch to test")
    parser.add_argument("--bitcoind", required=True)
    parser.add_argument("--alone", action="store_true", help="without the crowd of clients")
    parser.add_argument(
        "--keep", action="store_true", help="keep the folder also when nothing differs"
    )
    return parser.parse_args()


def interrupted(signum, frame):
    raise Failure(f"ended by signal {signum}")


def main():
    asked = options()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    folder = pathlib.Path(
        tempfile.mkdtemp(prefix="satwatch-soak-", dir=os.environ.get("TMPDIR", "/tmp"))
    )
    again = f"regtest/soak/run.sh --seed {asked.seed} --steps {asked.steps} --drop {asked.drop}{' --apart' if asked.apart else ''}"
    print(
        f"seed {asked.seed}, {asked.steps} steps, {asked.drop:.0%} of the messages dropped, in {folder}",
        flush=True,
    )
    begin, soak, found, code = time.monotonic(), None, [], 0
    try:
        soak = Soak(asked, folder)
        found = soak.run()
        code = 1 if found else 0
    except Exception as cause:  # noqa: BLE001  whatever it is, the folder with the logs stays
        code = 2
        found = [f"the soak could not go on: {cause}"]
        (folder / "traceback").write_text(traceback.format_exc())
    finally:
        step = soak.world.step if soak else 0
        if soak:
            soak.end()
    if found:
        (folder / "differences").write_text("\n".join(found) + "\n")
        print(
            f"\nFAILED: seed {asked.seed}, step {step}. To replay: {again}\nAll logs: {folder}",
            flush=True,
        )
        for what in found[:10]:
            print(f"  - {what[:400]}")
        print(f"  All {len(found)}: {folder}/differences")
    if soak:
        print(soak.summary())
    if code == 0:
        print(
            f"nothing differs: seed {asked.seed}, {asked.steps} steps, {time.monotonic() - begin:.0f} s"
        )
        if not asked.keep:
            shutil.rmtree(folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
