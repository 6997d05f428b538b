"""The crowd: stock clients beside the soak that are killed, stopped, stalled and cut at random
while the node lives on.

Each writes all that it hears to a file at once, with the cursors to come back with; `streams.py`
holds the files against the event log at every checkpoint. Some stay dead over a checkpoint, and
then have the more to catch up with; at the end all are back. The choices come from the seed and the
number of the step (another sequence than that of the operations); moments do not.

Besides the watched addresses there are many of the crowd's own, which now and then are paid all at
once (`payments.flood`), so that queues of clients overflow.
"""

import contextlib
import http.client
import json
import os
import random
import signal
import threading
import time

from consumers import Consumer, ReadingCheck
from log_check import is_wallet
from process import Failure, Process
from relay import Relay
from streams import Check, ReaderCheck
from webhooks import Hook
from wire import number

OWN_ADDRESSES = 1500
"""Chance of each client, at each step, that something is done to it."""
CHANCE = 0.05
"""Longer than a client may take nothing."""
LONG_STALL = 50
SETTLE = 60.0


def define(port, name, definition):
    """The consumer is as `definition` says. A connection of its own: also other threads do this."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(
        "PUT", f"/consumers/{name}", json.dumps(definition), {"Content-Type": "application/json"}
    )
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status not in (200, 201, 503):
        raise Failure(f"PUT /consumers/{name}: {answer.status} {text}")
    return json.loads(text)


class Client:
    def __init__(self, crowd, name, program, groups, **job):
        self.name, self.process, self.back, self.relay = name, None, None, None
        self.stopped, self.length = False, 0
        self.out, self.log = crowd.folder / f"{name}.heard", crowd.folder / f"{name}.log"
        self.command, self.job_file = (
            [*program, str(crowd.folder / f"{name}.job")],
            crowd.folder / f"{name}.job",
        )
        if job.pop("relay", False):
            self.relay = Relay(lambda: crowd.daemon.port)
            self.relay.start()
        job = {
            "transports": ["websocket"],
            "blocks": False,
            "random": None,
            "consumer": None,
            **job,
        }
        self.job = {
            "url": f"http://127.0.0.1:{self.relay.port if self.relay else crowd.daemon.port}",
            "out": str(self.out),
            **job,
        }
        self.job["groups"] = [
            {
                "name": n,
                "addresses": list(of),
                "many": len(of) > 1,
                "descriptor": is_wallet(of[0]),
            }
            for n, of in groups.items()
        ]
        self.check = None

    def start(self):
        self.job_file.write_text(json.dumps(self.job))
        self.length = self._written()
        self.process, self.back = Process(self.command, self.log, os.environ), None

    def _written(self):
        return self.out.stat().st_size if self.out.exists() else 0

    def cut(self):
        """Its connection, once it listens to that."""
        if self.relay:
            self.relay.cut()
        elif self._written() > self.length:
            self.signal(signal.SIGUSR2)

    def kill(self):
        if not self.process.runs():
            raise Failure(f"the client {self.name} ended by itself; see {self.log}")
        self.process.kill()
        self.process, self.stopped = None, False

    def signal(self, number):
        if self.process is not None:
            self.process.child.send_signal(number)
            self.stopped = (self.stopped or number == signal.SIGSTOP) and number != signal.SIGCONT

    def rest(self):
        """Nothing is done to it any more."""
        if self.stopped:
            self.signal(signal.SIGCONT)
        if self.relay:
            self.relay.flow()
            if self.relay.failed:
                raise Failure(f"the relay of {self.name} ended: {self.relay.failed!r}")

    def is_away(self):
        return self.relay is not None and self.relay.stalls()

    def end(self):
        if self.process is not None and self.process.runs():
            self.process.kill()
        if self.relay:
            self.relay.end()


class Crowd:
    def __init__(self, world, log, folder, python):
        self.world, self.daemon, self.log, self.folder, self.python = (
            world,
            world.daemon,
            log,
            folder,
            python,
        )
        self.clients, self.consumers, self.hooks = [], [], []
        self.pending, self.acts, self.failed = [], 0, None
        self.slowest = (0.0, "nobody")
        folder.mkdir()

    def set_up(self):
        """The daemon runs, the world has its first addresses."""
        choice = random.Random(f"{self.world.seed} crowd")
        scripts = [b"\x00\x14" + choice.randbytes(20) for _ in range(OWN_ADDRESSES)]
        own = [
            text
            for text, _ in self.world.keys.derive([f"raw({script.hex()})" for script in scripts])
        ]
        self.world.crowd = dict(zip(own, scripts))
        self._make(choice, [address.text for address in self.world.watched], own)
        # The first one watches all of them.
        self.clients[0].start()
        self._settle(self.clients[:1])
        for client in self.clients[1:]:
            client.start()
        self._settle(self.clients)

    def _settle(self, clients):
        found = self._wait(clients) + [what for client in clients for what in client.check.wrong]
        if found:
            raise Failure(f"the crowd did not get together: {found[:5]}")

    def _make(self, choice, watched, own):
        js = ["node", str(self._program("client.js"))]
        py = [str(self.python), "-B", str(self._program("client.py"))]
        rest = [str(self.python), "-B", str(self._program("reader.py"))]

        def groups(single, listed, more):
            """Some by themselves, some in a list, of the crowd's own in another."""
            some = choice.sample(watched, single + listed)
            made = {text: [text] for text in some[:single]}
            made.update({"list": some[single:]} if listed else {})
            return {**made, **({"own": choice.sample(own, more)} if more else {})}

        wallets = {wallet.id: [wallet.id] for wallet in self.world.lasting_wallets()}
        self._add("bulk", js, {"all": watched + own, **wallets}, blocks=True)
        self._add("js", js, groups(4, 6, 300), transports=["polling", "websocket"], blocks=True)
        self._add("python", py, {**groups(4, 6, 300), **wallets}, blocks=True)
        self._add("slow", js, {"all": watched + choice.sample(own, 500)}, relay=True)
        self._add("polling", js, groups(3, 8, 200), transports=["polling"])
        fickle = choice.sample(watched, 8) + choice.sample(own, 30)
        self._add(
            "fickle",
            js,
            {text: [text] for text in fickle},
            random={"seed": choice.randrange(1 << 32)},
        )
        self._consumers(choice, watched, own, js, py, rest)
        self._reader("rest", rest, None, 1000)
        self._reader("rest-some", rest, choice.sample(watched, 6) + choice.sample(own, 20), 7)

    def _consumers(self, choice, watched, own, js, py, rest):
        def some(count, more):
            return choice.sample(watched, count) + choice.sample(own, more)

        self._read("shop", {"shop": js}, None, True, 5)
        self._read("treasury", {"treasury": js}, [], False, 5, wallets=True)
        self._read("wallet", {"wallet": py}, some(8, 50), False, 7)
        self._read("rivals", {"rival-1": js, "rival-2": js}, some(8, 100), True, 3)
        self._read("second", {"second": js}, some(6, 20), False, 4)
        self._read("desk", {"desk": rest}, some(10, 100), True, 0, limit=9)
        for name, fails, wants in (("hook-half", 0.5, some(12, 30)), ("hook-down", 0.02, None)):
            hook = Hook(self.world.seed, self._consumer(name, wants, wants is None), fails)
            hook.consumer.definition["url"] = f"http://127.0.0.1:{hook.port}/"
            hook.begin(define(self.daemon.port, name, hook.consumer.definition))
            self.hooks.append(hook)

    def _consumer(self, name, addresses, blocks, wallets=False):
        self.consumers.append(Consumer(name, self.log, addresses, blocks, wallets))
        return self.consumers[-1]

    def _read(self, name, readers, addresses, blocks, every, limit=0, wallets=False):
        """A consumer and those who read it."""
        consumer = self._consumer(name, addresses, blocks, wallets)
        consumer.first = number(define(self.daemon.port, name, consumer.definition)["cursor"])
        for reader, program in readers.items():
            client = Client(
                self,
                reader,
                program,
                {},
                limit=limit,
                consumer={"name": name, "every": every},
            )
            client.check = ReadingCheck(reader, client.out, consumer, rival=len(readers) > 1)
            self.clients.append(client)

    @staticmethod
    def _program(name):
        return os.path.join(os.path.dirname(os.path.abspath(__file__)), name)

    def _add(self, name, program, groups, **job):
        client = Client(self, name, program, groups, **job)
        wants = {**groups, **({"blocks": None} if job.get("blocks") else {})}
        client.check = Check(name, client.out, self.log, wants, picky="random" not in job)
        self.clients.append(client)

    def _reader(self, name, program, addresses, limit):
        client = Client(self, name, program, {}, limit=limit, addresses=addresses or [])
        client.check = ReaderCheck(name, client.out, self.log, addresses)
        self.clients.append(client)

    def torment(self, step):
        """Decides what happens to whom during this step, and does it at some moment of it."""
        for timer in self.pending:
            timer.join()
        self.pending = []
        choice = random.Random(f"{self.world.seed} crowd {step}")
        for client in self.clients:
            roll, moment = choice.random(), choice.random() * 0.5
            kind, length = (
                choice.choice(("kill", "stop", "cut", "kill", "stall")),
                choice.choice((0.05, 0.3, 1, 3)),
            )
            away = choice.choice((0, 0, 1, 3, 12))
            if client.back is not None and step >= client.back:
                self.say(f"{client.name} started")
                client.start()
            elif client.process is not None and roll < CHANCE and not client.is_away():
                self._later(moment, kind, client, length, step + away)
        if self.consumers and choice.random() < 0.1:
            consumer = choice.choice(self.consumers)
            self._later(choice.random() * 0.5, "define again", consumer, 0, step)
        for hook in self.hooks:
            if choice.random() < 0.02 and not hook.fails == 0.5:
                self.say(f"{hook.consumer.name} is down")
                hook.down()
            elif hook.server is None and choice.random() < 0.05:
                self.say(f"{hook.consumer.name} is up")
                hook.up()
        slow = next((client for client in self.clients if client.relay), None)
        if slow and step % 150 == 60:
            self._later(0, "stall", slow, LONG_STALL, step)

    def _later(self, moment, kind, client, length, back):
        self.acts += 1
        self.say(f"{kind} {client.name}, {length} s or back in step {back}")
        timer = threading.Timer(moment, self._try_act, (kind, client, length, back))
        timer.start()
        self.pending.append(timer)

    def _try_act(self, *what):
        try:
            self._act(*what)
        except Exception as cause:  # noqa: BLE001  said at the next checkpoint, whatever it is
            self.failed = cause

    def _act(self, kind, client, length, back):
        if kind == "define again":
            # As scripts do at every start; it changes nothing for whoever reads.
            with contextlib.suppress(OSError, http.client.HTTPException):
                define(self.daemon.port, client.name, client.definition)
        elif kind == "kill" or (kind == "cut" and "client.js" not in client.command[1]):
            client.kill()
            client.back = back
        elif kind == "cut":
            client.cut()
        elif client.relay:
            client.relay.stall(length)
        else:
            client.signal(signal.SIGSTOP)
            time.sleep(length)
            client.signal(signal.SIGCONT)

    def differences(self, last):
        """What a client has otherwise than the log, when the daemon is where the node is and the
        log is read. Waits for those that run.
        """
        self.torments_over()
        if self.failed:
            raise Failure(f"the crowd: {self.failed!r}")
        awake = [client for client in self.clients if last or not client.is_away()]
        for client in awake:
            client.rest()
            # Some stay away over a checkpoint.
            choice = random.Random(f"{self.world.seed} rest {self.world.step} {client.name}")
            if client.back is not None and (last or choice.random() < 0.6):
                client.start()
        found = self._wait([client for client in awake if client.process is not None], last)
        for client in self.clients:
            client.check.read()
            found += client.check.wrong
        for consumer in self.consumers:
            consumer.extend()
            found += consumer.false_claims() + consumer.shown(self.daemon)
        for hook in self.hooks:
            found += hook.differences(self.daemon)
        return found + self._balances()

    def torments_over(self):
        for timer in self.pending:
            timer.join()
        self.pending = []

    def _wait(self, clients, last=False):
        """Until each has everything; what is missing after so long."""
        begin, last_missing = time.monotonic(), "nobody"
        while True:
            self.world.read_events()
            missing = []
            for client in self.clients:
                # Also of those that are away: what one reader of a consumer got and acknowledged
                # does not come to the others.
                client.check.read()
            for client in clients:
                missing += client.check.missing()
                if client.check.wrong:
                    return missing
            missing += self._consumers_miss(clients, last)
            took = time.monotonic() - begin
            if not missing or took > SETTLE:
                self.slowest = max(self.slowest, (took, last_missing))
                self.say(f"caught up in {took:.1f} s, the last was {last_missing}")
                return missing
            last_missing = missing[0][:120]
            time.sleep(0.05)

    def _consumers_miss(self, clients, last):
        """Of consumers that are read now; of all at the end."""
        found = []
        for consumer in self.consumers:
            readers = [
                client.check
                for client in clients
                if getattr(client.check, "consumer", None) is consumer
            ]
            if any(reader.place is not None for reader in readers) or (last and readers):
                found += consumer.missing()
        return found + [what for hook in self.hooks if last for what in hook.missing(self.daemon)]

    def _balances(self):
        """The balances of the crowd's own addresses, which are too many to ask for."""
        sums = dict.fromkeys(self.world.crowd.values(), 0)
        for coin in self.world.ledger.unspent().values():
            if coin.script in sums:
                sums[coin.script] += coin.value
        told = {text: self.log.balances.get(text, 0) for text in self.world.crowd}
        return [
            f"{text}: the events end with {told[text]}, it has {sums[s]}"
            for text, s in self.world.crowd.items()
            if told[text] != sums[s]
        ]

    def say(self, text):
        self.world.say(f"crowd: {text}")

    def summary(self):
        heard = ", ".join(
            f"{c.name} {c.check.counts['event']} in {c.check.counts['connect']}"
            for c in self.clients
        )
        more = {
            kind: sum(c.check.counts[kind] for c in self.clients)
            for kind in ("lagged", "unsubscribed")
        }
        hooks = "; ".join(
            f"{h.consumer.name} {len(h.when)} events, {len(h.dead)} dead letters, {dict(h.attempts)}"
            for h in self.hooks
        )
        return f"crowd: {self.acts} torments; events and connections: {heard}; {more}; {hooks}; slowest to catch up: {self.slowest[0]:.1f} s, {self.slowest[1]}"

    def end(self):
        wants = {
            c.name: {
                "addresses": None if c.addresses is None else sorted(c.addresses),
                "blocks": c.blocks,
                "wallets": c.wallets,
                "alone": c.name in ("shop", "treasury", "wallet", "desk"),
            }
            for c in self.consumers
        }
        (self.folder / "consumers").write_text(json.dumps(wants))
        for timer in self.pending:
            timer.cancel()
        for client in self.clients:
            client.end()
        for hook in self.hooks:
            hook.down()
