#!/usr/bin/env python3
"""What a payment costs with many subscribers: satwatch, a bare program and socketioxide, measured
side by side in one run.

    contrib/bench/fanout/run.py --bin PATH/TO/satwatch [--sizes 500,2000,8000] [--payments N]
                                [--watched 0] [--latencies 300] [--parts fanout,block,latency]

Needs what the tests need (a bitcoind, found by regtest/node.sh) and cargo, which builds the small
package in this folder (load generator, bare program, socketioxide server) in release mode into
target/fanout. Everything is kept in a temporary folder and ended afterwards. The open-file limit is
raised to what the largest size needs; where that is not allowed, the run ends at once and says so.
Build satwatch in release mode, and compare ratios only: on another or a busy machine all figures
change together.

fanout: for each size, so many Socket.IO clients over WebSocket connect to each of the three servers
and subscribe to one address. Then payments to it are made through a real node, one after the other,
each when all clients have the one before. Satwatch pushes its two events (`new_transactions`,
`balance_change`); the same two texts are then given to the bare program, which writes both with one
call a socket, and to socketioxide, which emits them to a room. Taking turns payment by payment,
the three meet the same disturbances. Each client must get every event once, in order and byte for
byte the same as the others; otherwise the run fails.

    CPU us/payment/client   user and system time of the server's threads from before the payment
                            until all clients have it, divided by clients; the mean of all payments
    KiB/connection          growth of resident memory when the clients had connected, and when all
                            payments had been made
    CPU us/connect          the server's CPU time from the first connection to the last `subscribed`
    confirmed               satwatch alone: the block that confirms all payments of this size, one
                            event each; CPU time for each event and client

block: 4000 clients subscribe to one address each; a block confirms 5000 payments, so that every
client gets one event or two. The same once more with nobody connected; the difference is what the
deliveries cost. The time is from the block's message at a bare ZMQ subscriber to the last event.

latency: one client, one payment at a time; from the transaction's message at a bare ZMQ subscriber
to the second event at the client, both in the load generator. With --watched, so many addresses
are added first, and it is measured before and after.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import history  # noqa: E402
import mempool  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
SCRIPT = bytes([0x00, 0x14]) + b"a popular address..."
SERVERS = ("satwatch", "bare", "socketioxide")
WARM_UP = 3
# The block: subscribers, events, payments in one transaction.
SUBSCRIBERS, EVENTS, OUTPUTS = 4000, 5000, 50
# Seconds for one answer of the load generator.
DEADLINE = 300


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--bin", required=True, help="the satwatch to measure")
    options.add_argument("--sizes", default="500,2000,8000", help="numbers of clients")
    options.add_argument("--payments", type=int, help="for each size; otherwise 40 to 200")
    options.add_argument("--watched", type=int, default=0, help="addresses for the latency")
    options.add_argument("--latencies", type=int, default=300, help="payments for the latency")
    options.add_argument("--parts", default="fanout,block,latency", help="what to measure")
    options = options.parse_args()
    options.interval, parts = 10, options.parts.split(",")
    sizes = [int(size) for size in options.sizes.split(",")] if "fanout" in parts else []
    raise_limit(max([SUBSCRIBERS, *sizes]) + 200)
    environment = {"SATWATCH__LIMITS__CONNECTIONS": max([10_000, *(size + 100 for size in sizes)])}
    os.environ.update({name: str(value) for name, value in environment.items()})
    print(f"$ {' '.join(sys.argv)}   ({os.cpu_count()} cores, load {os.getloadavg()[0]:.1f})")
    build()
    with tempfile.TemporaryDirectory(prefix="satwatch-bench-") as folder:
        bench = Bench(pathlib.Path(folder), options)
        try:
            bench.fanout([(size, options.payments or payments(size)) for size in sizes])
            if "block" in parts:
                bench.block()
            if "latency" in parts:
                bench.latency()
        finally:
            bench.end()


def payments(size):
    return min(200, max(40, 200_000 // size))


def raise_limit(files):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < files:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
        except (ValueError, OSError):
            raise SystemExit(
                f"the open-file limit is {most} at most (ulimit -Hn), and {files} are needed: raise it or take smaller --sizes"
            ) from None
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))


def build():
    target = HERE.parents[2] / "target/fanout"
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--target-dir", target]
    subprocess.run(command, cwd=HERE, check=True)
    Program.path = target / "release/fanout"


class Program:
    """One of the programs of this folder: it reads orders and writes answers, a line each."""

    path = None

    def __init__(self, *arguments):
        command = [self.path, *map(str, arguments)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.pid = self.process.pid

    def answer(self):
        watchdog = threading.Timer(DEADLINE, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        if not line:
            raise SystemExit(f"{self.process.args} ended, or said nothing for {DEADLINE} seconds")
        return json.loads(line)

    def order(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, line):
        self.order(line)
        return self.answer()

    def end(self):
        self.process.kill()
        self.process.wait()


class Server:
    """A server, its clients, and what it spent."""

    def __init__(self, name, program, load):
        self.name, self.program, self.pid = name, program, program.pid
        self.load = load
        self.total, self.spent = 0, []

    def connect(self, addresses, folder):
        file = folder / "addresses"
        file.write_text("\n".join(addresses))
        self.clients, self.idle = len(addresses), resident(self.pid)
        began = cpu(self.pid)
        self.load.ask(f"connect {file}")
        time.sleep(0.5)
        self.connect_cpu = (cpu(self.pid) - began) / self.clients
        self.connected = resident(self.pid)

    def pay(self, send, events):
        """`send` makes `events` come to each client; notes what that cost."""
        began = cpu(self.pid)
        send()
        self.total += events * self.clients
        self.load.ask(f"wait {self.total}")
        time.sleep(0.02)
        self.spent.append((cpu(self.pid) - began) / self.clients)

    def check(self):
        """Every client has every event, and nothing comes twice."""
        time.sleep(0.3)
        answer = self.load.ask(f"wait {self.total}")
        if answer["total"] != self.total or len(answer["counts"]) != 1:
            raise SystemExit(f"{self.name}: {self.total} events in all, but {answer}")

    def measures(self):
        return {
            "CPU us/payment/client": 1e6 * statistics.mean(self.spent[WARM_UP:]),
            "KiB/connection, connected": (self.connected - self.idle) / self.clients,
            "KiB/connection, paid": (resident(self.pid) - self.idle) / self.clients,
            "CPU us/connect": 1e6 * self.connect_cpu,
        }


class Bench:
    def __init__(self, folder, options):
        self.folder, self.options, self.programs = folder, options, []
        self.node = mempool.Node(folder / "node")
        self.daemon = mempool.Daemon(folder / "daemon", options, self.node)
        self.address = self.node.rpc("decodescript", SCRIPT.hex())["address"]

    def end(self):
        for program in reversed(self.programs):
            program.end()
        self.daemon.end(signal.SIGKILL)
        self.node.process.kill()
        self.node.process.wait()

    def start(self, *arguments):
        self.programs.append(Program(*arguments))
        return self.programs[-1]

    def restart(self):
        """Everything anew but the node, so that each part finds memory as it is after a start."""
        for program in reversed(self.programs):
            program.end()
        self.programs = []
        self.daemon.end(signal.SIGTERM)
        self.daemon.start()
        self.daemon.wait_ready()
        time.sleep(2)

    def fanout(self, sizes):
        for at, (size, count) in enumerate(sizes):
            coins = self.node.coins(count + WARM_UP)
            self.restart()
            servers = []
            for name in SERVERS:
                is_ours = name == "satwatch"
                program = self.daemon.process if is_ours else self.start(name)
                port = self.daemon.port if is_ours else program.answer()
                servers.append(Server(name, program, self.start("load", port)))
            for server in servers:
                server.connect([self.address] * size, self.folder)
            before = threads(self.daemon.process.pid)
            for coin in coins:
                self.pay_all(servers, coin)
            rows = [server.measures() for server in servers]
            table(size, count, rows, with_head=at == 0)
            spent = threads(self.daemon.process.pid)
            spent = {name: spent[name] - before.get(name, 0) for name in spent}
            whole = sum(spent.values())
            most = sorted(spent.items(), key=lambda item: -item[1])[:6]
            print(
                "  satwatch's threads: "
                + ", ".join(f"{name} {share / whole:.0%}" for name, share in most)
            )
            servers[0].pay(self.node.mine, len(coins))
            print(
                f"  satwatch, confirmed: {1e6 * servers[0].spent[-1] / len(coins):.2f} us CPU/event/client in a block of {len(coins)} events"
            )
            for server in servers:
                server.check()

    def pay_all(self, servers, coin):
        payment = mempool.spend(coin, [(SCRIPT, coin[2] - 500)])
        known = servers[0].total // servers[0].clients
        servers[0].pay(lambda: self.node.send([payment]), 2)
        texts = servers[0].load.ask(f"events {known}")
        names = [json.loads(text[2:])[0] for text in texts]
        if sorted(names) != ["balance_change", "new_transactions"] or payment[1] not in texts[0]:
            raise SystemExit(f"not the events of {payment[1]}: {texts}")
        for server in servers[1:]:
            server.pay(lambda server=server: server.program.order(json.dumps(texts)), 2)

    def block(self):
        scripts = [bytes([0x00, 0x14]) + b"subscriber%10d" % n for n in range(SUBSCRIBERS)]
        addresses = [history.address(script[2:]) for script in scripts]
        coins = self.node.coins(2 * EVENTS // OUTPUTS)
        self.restart()
        self.watch(addresses)
        alone, _ = self.confirm(coins[::2], scripts)
        server = Server("satwatch", self.daemon.process, self.listener())
        server.connect(addresses, self.folder)
        with_all, delays = self.confirm(coins[1::2], scripts, server)
        print(
            f"block        {EVENTS} events for {SUBSCRIBERS} subscribers of one address each: CPU {with_all:.3f} s, "
            f"with nobody connected {alone:.3f} s; {1e6 * (with_all - alone) / EVENTS:.1f} us for each event; "
            f"first after {delays[0] / 1e3:.0f} ms, last after {delays[1] / 1e3:.0f} ms"
        )

    def confirm(self, coins, scripts, server=None):
        """CPU seconds for a block that confirms payments to all of the scripts and some twice."""
        outputs = [(script, 330) for script in scripts + scripts[: EVENTS - SUBSCRIBERS]]
        self.node.send(
            mempool.spend(coin, outputs[n * OUTPUTS : (n + 1) * OUTPUTS])
            for n, coin in enumerate(coins)
        )
        if server:
            server.load.ask(f"wait {2 * EVENTS}")
            server.load.ask("times")
        settle(self.daemon.process.pid)
        began, delays = cpu(self.daemon.process.pid), None
        self.node.mine()
        if server:
            zmq = server.load.ask(f"wait {3 * EVENTS}")["zmq"]
            times = server.load.ask("times")
            delays = times[0] - zmq, times[-1] - zmq
        settle(self.daemon.process.pid)
        spent = cpu(self.daemon.process.pid) - began
        if server:
            answer, twice = server.load.ask("wait 0"), EVENTS - SUBSCRIBERS
            if answer["counts"] != {"3": SUBSCRIBERS - twice, "6": twice}:
                raise SystemExit(f"block: not every event once: {answer}")
        return spent, delays

    def latency(self):
        coins = self.node.coins(2 * self.options.latencies)
        self.restart()
        self.latencies(coins[::2], "1 address")
        if self.options.watched:
            self.watch(history.address(n.to_bytes(20, "big")) for n in range(self.options.watched))
            self.restart()
            self.latencies(coins[1::2], f"{self.options.watched} addresses")

    def latencies(self, coins, what):
        server = Server("satwatch", self.daemon.process, self.listener())
        server.connect([self.address], self.folder)
        times = [max(self.pay_one(server, coin)) / 1e3 for coin in coins]
        server.check()
        rss = resident(self.daemon.process.pid) / 1024
        print(f"latency      {what} watched: added {spread(times)}; resident {rss:.0f} MB")

    def listener(self):
        """A load generator that also is a bare ZMQ subscriber."""
        return self.start("load", self.daemon.port, self.node.zmq_port)

    def pay_one(self, server, coin):
        """Microseconds from the message at the bare subscriber to each event of a payment."""
        payment = mempool.spend(coin, [(SCRIPT, coin[2] - 500)])
        before = server.load.ask("wait 0")["zmq"]
        server.pay(lambda: self.node.send([payment]), 2)
        # The subscriber's thread may be the later one.
        while (zmq := server.load.ask("wait 0")["zmq"]) == before:
            pass
        time.sleep(random.uniform(0.005, 0.03))
        return [at - zmq for at in server.load.ask("times")]

    def watch(self, addresses):
        batch = []
        for address in addresses:
            batch.append(address)
            if len(batch) == 10_000:
                self.daemon.post("/add_addresses", {"addresses": batch, "history": "none"})
                batch = []
        if batch:
            self.daemon.post("/add_addresses", {"addresses": batch, "history": "none"})


def threads(pid):
    """Seconds of CPU time by name of thread, of those that there are."""
    spent = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            name = (task / "comm").read_text().strip()
            seconds = int((task / "schedstat").read_text().split()[0]) / 1e9
            spent[name] = spent.get(name, 0) + seconds
    return spent


def cpu(pid):
    """Seconds of user and system time of all threads, ended ones too: what /proc/PID/stat says, but
    by the nanosecond (the id of another process's clock: clock_getcpuclockid).
    """
    return time.clock_gettime(~pid << 3 | 2)


def spread(times):
    """Of milliseconds."""
    times = sorted(times)
    return f"p50 {statistics.median(times):.2f} ms, p99 {times[int(len(times) * 0.99)]:.2f} ms, most {times[-1]:.2f} ms ({len(times)})"


def settle(pid):
    """Until the process has nothing to do."""
    quiet, last = 0, cpu(pid)
    while quiet < 4:
        time.sleep(0.1)
        now = cpu(pid)
        quiet, last = quiet + 1 if now - last < 0.005 else 0, now


def resident(pid):
    """KiB."""
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024


def table(size, count, rows, with_head):
    if with_head:
        print(
            f"{'':28}{'clients':>8}{'satwatch':>10}{'bare':>10}{'socketioxide':>14}{'/bare':>8}{'/socketioxide':>15}"
        )
    for name in rows[0]:
        ours, bare, oxide = (row[name] for row in rows)
        print(
            f"{name:28}{size:8}{ours:10.2f}{bare:10.2f}{oxide:14.2f}{ours / bare:8.2f}{ours / oxide:15.2f}"
        )
    print(f"  {count} payments of two events, every client got each once", flush=True)


if __name__ == "__main__":
    main()
