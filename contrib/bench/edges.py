#!/usr/bin/env python3
"""What edges cost: CPU for each delivery at an edge beside the daemon alone, what the primary and
Redis spend, and what an edge adds to the latency. Everything is measured in one run.

    contrib/bench/edges.py --bin PATH/TO/satwatch [--clients 4000] [--payments 40] [--latencies 200]

Needs what fanout/run.py needs, and redis-server. Build satwatch in release mode, and compare ratios
only: on another or a busy machine all figures change together.

alone:    as many Socket.IO clients at the primary as at one edge, subscribed to one address.
          Payments are made one after the other; each comes to both crowds, whose servers so meet
          the same disturbances.
edges:    1 edge and then 3 with so many clients each, none at the primary: what a payment costs
          each of the processes.
latency:  one client at the primary and one at an edge that has the crowd besides, which is idle
          (subscribed to another address); from the transaction's message at a bare ZMQ subscriber
          to the second event.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "fanout"))
import run as fanout  # noqa: E402

mempool = fanout.mempool
WARM_UP = 3


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--bin", required=True, help="the satwatch to measure")
    options.add_argument("--clients", type=int, default=4000, help="at each edge")
    options.add_argument("--payments", type=int, default=40)
    options.add_argument("--latencies", type=int, default=200)
    options = options.parse_args()
    options.interval = 10
    fanout.raise_limit(options.clients + 500)
    print(f"$ {' '.join(sys.argv)}   ({os.cpu_count()} cores, load {os.getloadavg()[0]:.1f})")
    fanout.build()
    with tempfile.TemporaryDirectory(prefix="satwatch-bench-") as folder:
        redis = Redis(pathlib.Path(folder))
        os.environ["SATWATCH__BUS__URL"] = redis.url
        os.environ["SATWATCH__LIMITS__CONNECTIONS"] = str(max(10_000, options.clients + 500))
        try:
            bench = Bench(pathlib.Path(folder), options, redis)
            try:
                bench.alone()
                bench.edges(1)
                bench.edges(3)
                bench.latency()
            finally:
                bench.end()
        finally:
            redis.end()


class Redis:
    """A redis-server on a free port."""

    def __init__(self, folder):
        self.port = mempool.free_port()
        command = [shutil.which("redis-server") or "redis-server", "--port", str(self.port)]
        command += ["--save", "", "--dir", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.pid, self.url = self.process.pid, f"redis://127.0.0.1:{self.port}"

    def end(self):
        self.process.kill()
        self.process.wait()


class Edge:
    """`satwatch edge` before a daemon."""

    def __init__(self, options, daemon, folder):
        self.port = mempool.free_port()
        self.log = (folder / f"edge-{self.port}.log").open("w")
        upstream = f"http://127.0.0.1:{daemon.port}"
        self.process = subprocess.Popen(
            [options.bin, "edge", "--listen", f"127.0.0.1:{self.port}"],
            env=os.environ | {"SATWATCH__EDGE__UPSTREAM": upstream},
            stderr=self.log,
            cwd=folder,
        )
        self.pid = self.process.pid
        deadline = time.monotonic() + 30
        while not self.is_ready():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"the edge does not start: see {self.log.name}")
            time.sleep(0.1)

    def is_ready(self):
        try:
            url = f"http://127.0.0.1:{self.port}/health/ready"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def end(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


class Bench(fanout.Bench):
    def __init__(self, folder, options, redis):
        super().__init__(folder, options)
        self.redis, self.others = redis, []

    def end(self):
        self.end_edges()
        super().end()

    def end_edges(self):
        for edge in self.others:
            edge.end()
        self.others = []

    def anew(self, edges):
        self.end_edges()
        self.restart()
        self.others = [Edge(self.options, self.daemon, self.folder) for _ in range(edges)]

    def crowd(self, name, process, port, addresses):
        server = fanout.Server(name, process, self.start("load", port))
        server.connect(addresses, self.folder)
        return server

    def pay(self, servers, watched, coins):
        """CPU of each process for each payment, in microseconds; the mean of all but the first."""
        spent = {name: [] for name in watched}
        for coin in coins:
            payment = mempool.spend(coin, [(fanout.SCRIPT, coin[2] - 500)])
            before = {name: fanout.cpu(pid) for name, pid in watched.items()}
            self.node.send([payment])
            for server in servers:
                server.total += 2 * server.clients
                server.load.ask(f"wait {server.total}")
            time.sleep(0.02)
            for name, pid in watched.items():
                spent[name].append(1e6 * (fanout.cpu(pid) - before[name]))
        for server in servers:
            server.check()
        return {name: statistics.mean(all_of[WARM_UP:]) for name, all_of in spent.items()}

    def alone(self):
        coins = self.node.coins(self.options.payments + WARM_UP)
        self.anew(1)
        (edge,), clients = self.others, [self.address] * self.options.clients
        servers = [
            self.crowd("primary", self.daemon.process, self.daemon.port, clients),
            self.crowd("edge", edge.process, edge.port, clients),
        ]
        pids = {server.name: server.pid for server in servers}
        spent = self.pay(servers, pids, coins)
        each = {name: spent[name] / self.options.clients for name in spent}
        print(
            f"alone    {self.options.clients} clients each: CPU us/payment/client: daemon {each['primary']:.2f}, edge {each['edge']:.2f}, ratio {each['edge'] / each['primary']:.2f}"
        )
        print(
            "         KiB/connection: "
            + ", ".join(
                f"{server.name} {(fanout.resident(server.pid) - server.idle) / server.clients:.1f}"
                for server in servers
            )
            + "; CPU us/connect: "
            + ", ".join(f"{server.name} {1e6 * server.connect_cpu:.0f}" for server in servers),
            flush=True,
        )

    def edges(self, count):
        coins = self.node.coins(self.options.payments + WARM_UP)
        self.anew(count)
        began = fanout.cpu(self.daemon.process.pid)
        clients = [self.address] * self.options.clients
        servers = [
            self.crowd(f"edge {place}", edge.process, edge.port, clients)
            for place, edge in enumerate(self.others)
        ]
        asked = 1e6 * (fanout.cpu(self.daemon.process.pid) - began) / count / len(clients)
        pids = {server.name: server.pid for server in servers}
        pids |= {"primary": self.daemon.process.pid, "redis": self.redis.pid}
        spent = self.pay(servers, pids, coins)
        each = [spent[server.name] / server.clients for server in servers]
        print(
            f"edges    {count} with {self.options.clients} clients: CPU us/payment/client at an edge {statistics.mean(each):.2f}; CPU us/payment: primary {spent['primary']:.0f}, redis {spent['redis']:.0f}; the primary's CPU us for each client that subscribes {asked:.0f}",
            flush=True,
        )

    def latency(self):
        coins = self.node.coins(2 * self.options.latencies)
        self.anew(1)
        (edge,) = self.others
        other = self.node.rpc("decodescript", (fanout.SCRIPT[:-1] + b"!").hex())["address"]
        self.crowd("crowd", edge.process, edge.port, [other] * self.options.clients)
        near = self.probe("primary", self.daemon.process, self.daemon.port)
        far = self.probe("edge", edge.process, edge.port)
        times = {near: [], far: []}
        for coin in coins[: self.options.latencies]:
            payment = mempool.spend(coin, [(fanout.SCRIPT, coin[2] - 500)])
            before = {probe: probe.load.ask("wait 0")["zmq"] for probe in times}
            self.node.send([payment])
            for probe in times:
                probe.total += 2
                probe.load.ask(f"wait {probe.total}")
                while (zmq := probe.load.ask("wait 0")["zmq"]) == before[probe]:
                    pass
                times[probe].append((max(probe.load.ask("times")) - zmq) / 1e3)
            time.sleep(0.02)
        added = [at_edge - at_primary for at_primary, at_edge in zip(*times.values(), strict=True)]
        for probe, all_of in times.items():
            print(f"latency  at the {probe.name}: {fanout.spread(all_of)}")
        print(
            f"latency  added by the edge, with {self.options.clients} idle clients: {fanout.spread(added)}",
            flush=True,
        )

    def probe(self, name, process, port):
        server = fanout.Server(name, process, self.start("load", port, self.node.zmq_port))
        server.connect([self.address], self.folder)
        return server


if __name__ == "__main__":
    main()
