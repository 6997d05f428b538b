#!/usr/bin/env python3
"""What slow readers cost the quick ones: many subscribers of one address over WebSocket, half of
which hardly read.

    contrib/bench/slow_readers.py --bin PATH/TO/satwatch [--clients 500] [--burst 500] [--bursts 4]
                                  [--singles 40] [--queue 64]

Needs what the tests need (a bitcoind, found by regtest/node.sh) and nothing but Python's own
library. Everything is kept in a temporary folder and ended afterwards; it takes about a minute. The
same is done in two phases: payments to the one address in bursts and by themselves, two events
each. In the first the quick half is alone. Then the slow half joins, and takes a few KB now and
then, so that it is not disconnected at once as one that takes nothing is; payments are made until
what the operating system holds for it is full and all of it lags; and then the second phase begins.
Each line has the first phase, the second, and their ratio; only ratios mean something on another
machine.

    latency     from handing one payment to the node until each quick client has its events
    burst       from the first payment of a burst until the last quick client has its last event
    CPU         of the daemon, in the phase and for each event that a quick client got
    RSS         of the daemon at the end of the phase
    lagging     subscribers that the daemon counted as such at the end of the second phase, and how
                many it had closed by then
    memory      what RSS grew by since the slow ones joined, beyond the growth in the first phase,
                for each of them
    live again  from the moment at which the slow ones read on, until all of them have all that they
                missed and none lags. One that was closed (a write that did not get on for 10
                seconds, a ping that was not answered) comes back with its cursor, as a real one
                would

This process reads for all clients on one core, so it is part of every time; it has the same to do
in both phases but for the few KB. Every client checks that each event comes once and in order; the
first that does not ends the run.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import re
import selectors
import signal
import socket
import tempfile
import threading
import time

spec = importlib.util.spec_from_file_location(
    "mempool", pathlib.Path(__file__).with_name("mempool.py")
)
mempool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mempool)

SCRIPT = bytes([0x00, 0x14]) + b"slow readers' place."
UPGRADE = (
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
# Bursts that may be needed until all slow clients lag.
FILL = 12
# Seconds after which a slow client takes something again.
SIP = 4.0
CURSOR = re.compile(rb'"cursor":"([0-9a-f]+)-(\d+)"')


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--bin", required=True, help="the satwatch to measure")
    options.add_argument("--clients", type=int, default=500, help="half of them stop reading")
    options.add_argument("--burst", type=int, default=500, help="payments in a burst")
    options.add_argument("--bursts", type=int, default=4, help="in each phase")
    options.add_argument(
        "--singles", type=int, default=40, help="payments by themselves, in each phase"
    )
    options.add_argument("--queue", type=int, default=64, help="limits.queue_messages")
    options.add_argument("--interval", type=int, default=10, help="seconds between reconciliations")
    options = options.parse_args()
    os.environ["SATWATCH__LIMITS__QUEUE_MESSAGES"] = str(options.queue)
    with tempfile.TemporaryDirectory(prefix="satwatch-bench-") as folder:
        node = mempool.Node(pathlib.Path(folder, "node"))
        daemon = mempool.Daemon(pathlib.Path(folder, "daemon"), options, node)
        try:
            Bench(node, daemon, options).run()
        finally:
            daemon.end(signal.SIGKILL)
            node.process.kill()
            node.process.wait()


def frame(text):
    """A masked text frame; the mask is zero."""
    length = (
        bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
    )
    return b"\x81" + length + bytes(4) + text


def frames(inbox):
    """The whole messages at the beginning of what came, which are taken out of it."""
    place, found = 0, []
    while len(inbox) - place >= 2:
        length, begin = inbox[place + 1], place + 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length, begin = int.from_bytes(inbox[begin : begin + size], "big"), begin + size
        if len(inbox) < begin + length:
            break
        found.append(bytes(inbox[begin : begin + length]))
        place = begin + length
    del inbox[:place]
    return found


class Client:
    def __init__(self, bench):
        """`last`: number of the last event that it has, or of the cursor that it began with."""
        self.bench, self.last, self.comebacks = bench, None, 0
        self.connect()

    def connect(self):
        port = self.bench.daemon.port
        self.socket, self.inbox, self.upgraded = socket.socket(), bytearray(), False
        # Small, so that it is the daemon that holds what a client does not take, and not the
        # operating system.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 13)
        self.socket.connect(("127.0.0.1", port))
        after = {} if self.last is None else {"after": f"{self.bench.log}-{self.last}"}
        wish = json.dumps(
            ["subscribe_address", {"address": self.bench.address, **after}], separators=(",", ":")
        )
        self.socket.sendall(UPGRADE.format(port).encode())
        self.socket.sendall(frame(b"40") + frame(b"42" + wish.encode()))
        self.socket.setblocking(False)

    def read(self, most=1 << 17):
        """What there is, once; comes back when the daemon has closed the connection."""
        try:
            data = self.socket.recv(most)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.bench.forget(self)
            self.comebacks += 1
            self.connect()
            if self not in self.bench.slow:
                self.bench.listen(self)
            return
        self.inbox += data
        if not self.upgraded:
            end = self.inbox.find(b"\r\n\r\n")
            if end < 0:
                return
            self.upgraded = True
            del self.inbox[: end + 4]
        events, last = 0, None
        for message in frames(self.inbox):
            # new_transactions, balance_change; all others concern the connection.
            if message[:5] in (b'42["n', b'42["b'):
                events, last = events + 1, message
            else:
                self.control(message)
        if events:
            number = int(CURSOR.findall(last)[-1][1])
            if number != self.last + events:
                raise SystemExit(
                    f"{events} events after {self.last}, and the last is {number}: not each once and in order"
                )
            self.last = number

    def control(self, message):
        if message == b"2":
            self.socket.send(frame(b"3"))
        elif message.startswith(b'42["subscribed"') and self.last is None:
            log, number = CURSOR.findall(message)[-1]
            self.bench.log, self.last = log.decode(), int(number)
        elif message.startswith(b'42["error"'):
            raise SystemExit(message)


class Bench:
    def __init__(self, node, daemon, options):
        self.node, self.daemon, self.options = node, daemon, options
        self.selector, self.log, self.slow, self.sip = selectors.DefaultSelector(), None, [], 0.0
        self.address = node.rpc("decodescript", SCRIPT.hex())["address"]

    def run(self):
        options = self.options
        self.coins = self.node.coins(
            2 * (options.singles + options.burst * options.bursts) + FILL * options.burst + 1
        )
        self.daemon.start()
        self.daemon.wait_ready()
        self.daemon.post("/add_address", {"address": self.address, "history": "none"})
        self.quick = self.join(options.clients // 2)
        self.head = self.quick[0].last
        began = memory(self.daemon)
        alone = self.phase()
        grown = alone["RSS"] - began
        stalled = self.join(options.clients - len(self.quick))
        for client in stalled:
            self.selector.unregister(client.socket)
        self.slow, before = stalled, memory(self.daemon)
        self.fill()
        beside = self.phase()
        self.tell(alone, beside)
        counts = self.daemon.get("/status")["clients"]
        closed = len(self.quick) + len(stalled) - counts["sessions"]
        print(
            f"lagging      {counts['lagging']} of {len(stalled)}, {closed} closed; queues of at most {options.queue} messages"
        )
        print(
            f"memory       {(beside['RSS'] - before - grown) * 1024 / len(stalled):.0f} KiB for each of them"
        )
        self.wake(stalled)

    def join(self, count):
        clients = [Client(self) for _ in range(count)]
        for client in clients:
            self.listen(client)
        self.read_until(lambda: all(client.last is not None for client in clients))
        return clients

    def listen(self, client):
        self.selector.register(client.socket, selectors.EVENT_READ, client)

    def forget(self, client):
        if client.socket in self.selector.get_map():
            self.selector.unregister(client.socket)
        client.socket.close()

    def read_until(self, is_done, each=lambda client: None):
        while not is_done():
            if self.slow and time.perf_counter() > self.sip:
                self.sip = time.perf_counter() + SIP / len(self.slow)
                self.slow.append(self.slow.pop(0))
                self.slow[-1].read(1 << 13)
            for key, _ in self.selector.select(0.05):
                key.data.read()
                each(key.data)

    def pay(self, count):
        """From the first call to the node; until all quick ones have it, and when each had."""
        payments = [
            mempool.spend(coin, [(SCRIPT, coin[2] - 500)])
            for coin in (self.coins.pop() for _ in range(count))
        ]
        self.head += 2 * count
        waiting, times, began = set(self.quick), [], time.perf_counter()

        def each(client):
            if client.last == self.head and client in waiting:
                waiting.remove(client)
                times.append(time.perf_counter() - began)

        sender = threading.Thread(target=self.node.send, args=(payments,))
        sender.start()
        self.read_until(lambda: not waiting, each)
        sender.join()
        return times

    def fill(self):
        while self.daemon.get("/status")["clients"]["lagging"] < len(self.slow):
            if len(self.coins) < self.options.burst:
                raise SystemExit("the operating system holds all of it; make the bursts larger")
            self.pay(self.options.burst)

    def phase(self):
        cpu = mempool.cpu(self.daemon.process.pid)
        options, before, latencies, bursts = self.options, self.head, [], []
        for _ in range(options.bursts):
            bursts.append(max(self.pay(options.burst)))
            for _ in range(options.singles // options.bursts):
                latencies += self.pay(1)
        sent = (self.head - before) * len(self.quick)
        cpu = mempool.cpu(self.daemon.process.pid) - cpu
        latencies.sort()
        return {
            "latency, median (ms)": latencies[len(latencies) // 2] * 1000,
            "latency, 95 % (ms)": latencies[int(len(latencies) * 0.95)] * 1000,
            "latency, most (ms)": latencies[-1] * 1000,
            "burst, mean (s)": sum(bursts) / len(bursts),
            "burst, most (s)": max(bursts),
            "events/s to quick": 2 * options.burst * len(self.quick) * len(bursts) / sum(bursts),
            "CPU (s)": cpu,
            "CPU (us/event)": cpu / sent * 1e6,
            "RSS": memory(self.daemon),
        }

    def tell(self, alone, beside):
        print(
            f"{'':22} {'alone':>10} {'beside':>10} {'ratio':>8}   {len(self.quick)} quick clients, alone and beside as many that hardly read"
        )
        for name, value in alone.items():
            print(f"{name:22} {value:10.2f} {beside[name]:10.2f} {beside[name] / value:8.2f}")

    def wake(self, stalled):
        self.slow, began = [], time.perf_counter()
        behind = [self.head - client.last for client in stalled]
        for client in stalled:
            self.listen(client)
        times, waiting = [], set(stalled)

        def each(client):
            if client.last == self.head and client in waiting:
                waiting.remove(client)
                times.append(time.perf_counter() - began)

        self.read_until(lambda: not waiting, each)
        everything = time.perf_counter() - began
        while self.daemon.get("/status")["clients"]["lagging"]:
            self.read_until(lambda: True)
        took, comebacks = time.perf_counter() - began, sum(client.comebacks for client in stalled)
        print(
            f"live again   {took:.2f} s, all events there after {everything:.2f} s (half of them after {sorted(times)[len(times) // 2]:.2f} s); "
            f"{sum(behind)} events, {sum(behind) / everything:.0f} a second; {comebacks} came back with their cursor"
        )
        before = {client: client.last for client in stalled}
        self.quick += stalled
        times = sorted(self.pay(1))
        print(
            f"then         one payment reaches all {len(self.quick)} within {times[-1] * 1000:.1f} ms"
        )
        assert all(client.last == last + 2 for client, last in before.items())


def memory(daemon):
    """MB."""
    return mempool.memory(daemon, "VmRSS")


if __name__ == "__main__":
    main()
