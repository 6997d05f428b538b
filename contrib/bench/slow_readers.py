#!/usr/bin/env python3
"""What slow and hostile readers cost the others, and whether they lose anything.

    contrib/bench/slow_readers.py --bin PATH/TO/satwatch [--quick 100] [--slow 1000]
                                  [--answers 1000] [--subscriptions 100000] [--payments 300] [--tls]

Needs what fanout/run.py needs, and about 4000 open files. Everything is kept in a temporary folder
and ended afterwards; it takes about three minutes. Clients that read at once are subscribed to one
address, and payments to it are made in two phases of the same kind: 500 at once and payments to
many of the watched addresses, until all that has come, and then one payment after the other. In
the first phase the quick clients are alone. Before the second come

    one reader with 100 000 subscriptions that stops reading once they are answered,
    1000 readers of the quick ones' address that take one byte a second,
    1000 requests for 1000 events, over REST, whose answers are not read.

Whatever the daemon closes comes back at once, with its cursor, and goes on as before. Each line has
the first phase, the second and their ratio; only ratios mean something on another machine.

    latency      from the payment's message at a bare ZMQ subscriber to its events at the quick ones
    CPU          of the daemon while single payments were made
    resident     memory of the daemon at the end of the phase, and its peak until then
    kernel       memory of all TCP sockets of this machine

With --tls the slow ones come over TLS; the others, who know none, through HAProxy, in both phases.

Then all slow ones read on as fast as they can, until each has what the log says it should. Whoever
had one event twice or lacks one ends the run, and so does an answer that is not whole.
"""

import argparse
import array
import http.client
import itertools
import json
import os
import pathlib
import re
import select
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "fanout"))
import run as fanout  # noqa: E402

history, mempool = fanout.history, fanout.mempool

UPGRADE = (
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CURSOR = re.compile(rb'"cursor":"([0-9a-f]+-(\d+))"')
# Payments at once in each phase: to the one address, and transactions to many others.
BURST, MANY, OUTPUTS = 500, 100, 50
# Addresses of one request, and events of one answer.
LIST, PAGE = 10_000, 1000
GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR
# What is before the daemon when it speaks TLS, for those who do not: as many as there are.
PROXY = """
defaults
    mode tcp
    timeout connect 60s
    timeout client 600s
    timeout server 600s
listen plain
    bind 127.0.0.1:{}
    server satwatch 127.0.0.1:{} ssl ca-file {} verifyhost localhost
"""


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--bin", required=True, help="the satwatch to measure")
    options.add_argument("--quick", type=int, default=100, help="clients that read at once")
    options.add_argument("--slow", type=int, default=1000, help="that read a byte a second")
    options.add_argument("--answers", type=int, default=1000, help="over REST, not read")
    options.add_argument("--subscriptions", type=int, default=100_000, help="of the one reader")
    options.add_argument("--payments", type=int, default=300, help="by themselves, in each phase")
    options.add_argument("--tls", action="store_true", help="the slow ones come over TLS")
    options = options.parse_args()
    options.interval = 10
    fanout.raise_limit(options.quick + 2 * (options.slow + options.answers) + 500)
    print(f"$ {' '.join(sys.argv)}   ({os.cpu_count()} cores, load {os.getloadavg()[0]:.1f})")
    fanout.build()
    with tempfile.TemporaryDirectory(prefix="satwatch-bench-") as folder:
        bench = Bench(pathlib.Path(folder), options)
        try:
            bench.run()
        finally:
            bench.end()


def connect(at):
    """With a small receive buffer, so that it is the daemon that holds what is not read. `at`: port
    and, over TLS, the context.
    """
    port, context = at
    stream = socket.socket()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 13)
    # Segments as on a network; with those of the loopback a buffer as small takes next to nothing.
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
    stream.settimeout(60)
    stream.connect(("127.0.0.1", port))
    return context.wrap_socket(stream, server_hostname="localhost") if context else stream


def frame(text):
    """A masked text frame; the mask is zero."""
    size = len(text)
    if size < 126:
        length = bytes([0x80 | size])
    else:
        length = (
            b"\xfe" + size.to_bytes(2, "big")
            if size < 1 << 16
            else b"\xff" + size.to_bytes(8, "big")
        )
    return b"\x81" + length + bytes(4) + text


def messages(inbox):
    """The whole messages at the beginning of what came, which are taken out of it."""
    place, found, pieces, taken = 0, [], b"", 0
    while len(inbox) - place >= 2:
        length, begin = inbox[place + 1], place + 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length, begin = int.from_bytes(inbox[begin : begin + size], "big"), begin + size
        if len(inbox) < begin + length:
            break
        pieces += inbox[begin : begin + length]
        is_last, place = inbox[place] & 0x80, begin + length
        if is_last:
            found.append(pieces)
            pieces, taken = b"", place
    del inbox[:taken]
    return found


class Reader:
    """A client over WebSocket that comes back with its cursor when it is closed."""

    def __init__(self, at, lists):
        """`cursor` is what it may save; `numbers` are those of its events; `came_back` says how
        many it had at each connection but the first.
        """
        self.at, self.lists, self.cursor = at, lists, None
        self.numbers, self.came_back = array.array("Q"), []
        self.connect()
        self.start = int(self.cursor.split("-")[1])

    def connect(self):
        """Reads until all subscriptions are answered."""
        self.stream, self.inbox = connect(self.at), bytearray()
        self.unanswered, self.subscribing = len(self.lists), iter(self.lists)
        self.stream.sendall(UPGRADE.format(self.at[0]).encode() + frame(b"40"))
        while b"\r\n\r\n" not in self.inbox:
            self.inbox += self.receive(1)
        self.inbox.clear()
        self.subscribe()
        while self.unanswered:
            self.inbox += self.receive(1 << 16)
            self.take_in()
        self.stream.setblocking(False)

    def receive(self, most):
        data = self.stream.recv(most)
        if not data:
            raise ConnectionError("closed")
        return data

    def subscribe(self):
        """The next list, once the one before is answered."""
        for addresses in itertools.islice(self.subscribing, 1):
            wish = {"addresses": addresses, "snapshot": False}
            if self.cursor:
                wish["after"] = self.cursor
            text = json.dumps(["subscribe_addresses", wish], separators=(",", ":"))
            self.stream.settimeout(60)
            self.stream.sendall(frame(b"42" + text.encode()))

    def read(self, most):
        """What there is, once; comes back when it is closed."""
        try:
            self.inbox += self.receive(most)
            self.take_in()
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except (ConnectionError, ssl.SSLError):
            self.come_back()

    def come_back(self):
        self.stream.close()
        self.came_back.append(len(self.numbers))
        while True:
            try:
                return self.connect()
            except (ConnectionError, TimeoutError, ssl.SSLError):
                self.stream.close()

    def take_in(self):
        for message in messages(self.inbox):
            if message == b"2":
                self.stream.setblocking(True)
                self.stream.sendall(frame(b"3"))
                self.stream.settimeout(60 if self.unanswered else 0)
            elif message.startswith(b'42["error"'):
                raise SystemExit(message)
            elif message.startswith(b'42["') and (found := CURSOR.findall(message)):
                self.event(message, found[-1])

    def event(self, message, found):
        cursor, number = found[0].decode(), int(found[1])
        name = message[4 : message.index(b'"', 4)]
        if name == b"subscribed":
            self.unanswered -= 1
            self.subscribe()
            if self.cursor is None or not self.unanswered and self.first_time():
                self.cursor = cursor
        elif name not in (b"connected", b"lagged", b"caught_up"):
            self.numbers.append(number)
            if not self.unanswered:
                self.cursor = cursor

    def first_time(self):
        return not self.came_back and not self.numbers

    def check(self, expected):
        """`expected`: numbers of the events that concern it, from its first cursor on."""
        if len(self.lists) == 1 and self.numbers.tolist() == expected:
            return
        # Of several subscriptions, what came before all were answered comes again after a break.
        bounds = [0, *self.came_back, len(self.numbers)]
        parts = [self.numbers[a:b].tolist() for a, b in itertools.pairwise(bounds)]
        if len(self.lists) == 1 or any(len(set(part)) != len(part) for part in parts):
            raise SystemExit(f"not each event once: {self.numbers.tolist()} for {expected}")
        if set(self.numbers) != set(expected):
            raise SystemExit(f"{len(set(self.numbers))} events for {len(expected)}")


class Answer:
    """A request whose answer is not read before the end."""

    def __init__(self, at, path):
        self.at, self.path, self.came_back = at, path, []
        self.ask()

    def ask(self):
        self.stream = connect(self.at)
        self.stream.sendall(
            f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.at[0]}\r\nConnection: close\r\n\r\n".encode()
        )

    def come_back(self):
        self.stream.close()
        self.came_back.append(0)
        self.ask()

    def finish(self, expected):
        """Reads it; asks again when it was refused or cut."""
        while True:
            answer = bytearray()
            try:
                while data := self.stream.recv(1 << 17):
                    answer += data
                head, _, body = bytes(answer).partition(b"\r\n\r\n")
                if head.startswith(b"HTTP/1.1 200") and json.loads(body)["events"] == expected:
                    return
                if head.startswith(b"HTTP/1.1 200"):
                    raise SystemExit(f"not the answer of before: {bytes(body[:300])}")
            except (ConnectionError, ValueError, ssl.SSLError):
                pass
            self.come_back()


class Bench(fanout.Bench):
    def __init__(self, folder, options):
        super().__init__(folder, options)
        self.at, self.proxy = (self.daemon.port, None), None
        if options.tls:
            self.speak_tls(folder)

    def speak_tls(self, folder):
        """The daemon on a port of its own, over TLS, and the proxy on the one that all know."""
        port, cert, key = mempool.free_port(), folder / "cert.pem", folder / "key.pem"
        settings = {"TLS__CERT": cert, "TLS__KEY": key, "LISTEN": f"127.0.0.1:{port}"}
        environment = {f"SATWATCH__SERVER__{name}": str(it) for name, it in settings.items()}
        self.daemon.environment |= environment
        command = [self.daemon.program, "cert", "new"]
        subprocess.run(command, env=self.daemon.environment, check=True, stdout=subprocess.DEVNULL)
        self.at = port, ssl.create_default_context(cafile=cert)
        (folder / "haproxy.cfg").write_text(PROXY.format(self.daemon.port, port, cert))
        self.proxy = subprocess.Popen(["haproxy", "-db", "-f", folder / "haproxy.cfg"])
        self.daemon.wait_ready = self.wait_ready

    def wait_ready(self):
        """The proxy is there before the daemon is."""
        while True:
            try:
                return mempool.Daemon.wait_ready(self.daemon)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)

    def end(self):
        super().end()
        if self.proxy:
            self.proxy.kill()
            self.proxy.wait()

    def run(self):
        options = self.options
        addresses = [history.address(n.to_bytes(20, "big")) for n in range(options.subscriptions)]
        self.coins = self.node.coins(2 * (BURST + MANY + 2 * options.payments) + 100)
        self.script = itertools.count()
        self.restart()
        self.watch(addresses)
        self.quick = fanout.Server("satwatch", self.daemon.process, self.listener())
        self.quick.connect([self.address] * options.quick, self.folder)
        start = self.daemon.get("/events?limit=1")["next"]
        alone = self.phase()
        lists = [addresses[n : n + LIST] for n in range(0, len(addresses), LIST)]
        path = f"/events?after={start}&limit={PAGE}"
        page = self.daemon.get(path)["events"]
        self.big = Reader(self.at, lists)
        self.slow = [Reader(self.at, [[self.address]]) for _ in range(options.slow)]
        self.answers = [Answer(self.at, path) for _ in range(options.answers)]
        hostile = threading.Thread(target=self.linger, daemon=True)
        self.is_over = False
        hostile.start()
        beside = self.phase()
        self.is_over = True
        hostile.join()
        self.tell(alone, beside)
        self.resume(page, addresses)

    def pay_many(self):
        """A transaction to many of the watched addresses."""
        numbers = (next(self.script) % self.options.subscriptions for _ in range(OUTPUTS))
        outputs = [(bytes([0x00, 0x14]) + n.to_bytes(20, "big"), 330) for n in numbers]
        self.node.send([mempool.spend(self.coins.pop(), outputs)])

    def phase(self):
        payments = (self.coins.pop() for _ in range(BURST))
        payments = [mempool.spend(coin, [(fanout.SCRIPT, coin[2] - 500)]) for coin in payments]
        self.quick.pay(lambda: self.node.send(payments), 2 * BURST)
        for _ in range(MANY):
            self.pay_many()
        time.sleep(5)
        self.quick.load.ask("times")
        cpu, times = fanout.cpu(self.daemon.process.pid), []
        for n in range(self.options.payments):
            if n % 10 == 0:
                self.pay_many()
            time.sleep(0.05)
            times += self.pay_one(self.quick, self.coins.pop())
        times.sort()
        return {
            "latency, p50 (ms)": times[len(times) // 2] / 1e3,
            "latency, p99 (ms)": times[int(len(times) * 0.99)] / 1e3,
            "latency, most (ms)": times[-1] / 1e3,
            "CPU (s)": fanout.cpu(self.daemon.process.pid) - cpu,
            "resident (MB)": mempool.memory(self.daemon, "VmRSS"),
            "resident, peak (MB)": mempool.memory(self.daemon, "VmHWM"),
            "kernel (MB)": kernel(),
        }

    def linger(self):
        """What the slow ones do in the second phase."""
        while not self.is_over:
            poll, known = select.poll(), {}
            for reader in (self.big, *self.slow, *self.answers):
                poll.register(reader.stream, GONE)
                known[reader.stream.fileno()] = reader
            for number, _ in poll.poll(0):
                known[number].come_back()
            for reader in self.slow:
                reader.read(1)
                time.sleep(1 / len(self.slow))

    def tell(self, alone, beside):
        print(f"{'':22} {'alone':>10} {'beside':>10} {'ratio':>8}")
        for name, value in alone.items():
            print(
                f"{name:22} {value:10.2f} {beside[name]:10.2f} {beside[name] / max(value, 0.01):8.2f}"
            )
        for name in "big", "slow", "answers":
            these = getattr(self, name)
            these = these if isinstance(these, list) else [these]
            closed = sum(len(reader.came_back) for reader in these)
            print(f"closed       {name}: {closed} times, {len(these)} there")

    def resume(self, page, addresses):
        log, after = [], f"&after={self.big.cursor.split('-')[0]}-{self.big.start}"
        while events := self.daemon.get(f"/events?limit=8{after}")["events"]:
            log += [
                (int(event["cursor"].split("-")[1]), event["data"].get("address"))
                for event in events
            ]
            after = f"&after={events[-1]['cursor']}"
        mine, began = set(addresses), time.monotonic()
        expected = {
            reader: [
                number
                for number, address in log
                if number > reader.start
                and (address in mine if reader is self.big else address == self.address)
            ]
            for reader in [self.big, *self.slow]
        }
        for reader in (*expected, *self.answers):
            reader.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        waiting = {reader for reader in expected if expected[reader]}
        while waiting:
            for reader in list(waiting):
                for _ in range(8):
                    reader.read(1 << 17)
                if reader.numbers and reader.numbers[-1] == expected[reader][-1]:
                    waiting.remove(reader)
            if time.monotonic() - began > fanout.DEADLINE:
                raise SystemExit(f"{len(waiting)} readers do not come to the end")
        took = time.monotonic() - began
        time.sleep(1)
        for reader, numbers in expected.items():
            reader.read(1 << 17)
            reader.check(numbers)
        for answer in self.answers:
            answer.finish(page)
        total = sum(map(len, expected.values()))
        print(
            f"resumed      {total} events in {took:.1f} s; every reader has each of its events once, every answer is whole"
        )
        self.quick.check()
        print(f"resident     {mempool.memory(self.daemon, 'VmRSS'):.0f} MB then")


def kernel():
    """MB in all TCP sockets."""
    line = re.search(r"TCP:.* mem (\d+)", pathlib.Path("/proc/net/sockstat").read_text())
    return int(line[1]) * 4096 / 1e6


if __name__ == "__main__":
    main()
