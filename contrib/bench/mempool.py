#!/usr/bin/env python3
"""What a big mempool costs: a regtest node with many transactions that concern nobody, and satwatch
started beside it.

    contrib/bench/mempool.py --bin PATH/TO/satwatch [--count 100000] [--interval 5]

Needs what the tests need (a bitcoind, found by regtest/node.sh) and `ss` (iproute2). Everything is
kept in a temporary folder and ended afterwards. Filling takes about a minute per 100 000. It
prints, as the daemon meets the full mempool:

    ready             from the start of the process to 200 of GET /health/ready
    requests, bytes   HTTP requests at the node (its log) and payload over the connections to it,
                      until ready
    CPU, RSS          of the daemon until ready, and the node's CPU in the same time
    meanwhile         from handing a payment to the node to its event over GET /events?wait, while
                      the mempool is being fetched
    after             the same afterwards, with polls going on
    poll              CPU of daemon and node for one reconciliation that finds nothing, and how long
                      the daemon says it took

The node does not check its mempool (-checkmempool=0 -checkblockindex=0), or it would be ten times
slower than a real one. The coins pay a script that anybody can spend (P2WSH of OP_TRUE), so nothing
is signed.
"""

import argparse
import base64
import hashlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time

TICKS = os.sysconf("SC_CLK_TCK")
ROOT = pathlib.Path(__file__).resolve().parents[2]
FREE = bytes([0x00, 0x20]) + hashlib.sha256(b"\x51").digest()


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--bin", required=True, help="the satwatch to measure")
    options.add_argument("--count", type=int, default=100_000, help="unrelated transactions")
    options.add_argument("--interval", type=int, default=5, help="seconds between reconciliations")
    options = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="satwatch-bench-") as folder:
        node = Node(pathlib.Path(folder, "node"))
        daemon = Daemon(pathlib.Path(folder, "daemon"), options, node)
        try:
            measure(node, daemon, options)
        finally:
            daemon.end(signal.SIGKILL)
            node.process.kill()
            node.process.wait()


def measure(node, daemon, options):
    coins = node.coins(options.count + 200)
    payments = coins[options.count :]
    daemon.start()
    daemon.wait_ready()
    script = bytes([0x00, 0x20]) + hashlib.sha256(b"\x52").digest()
    address = node.rpc("decodescript", script.hex())["address"]
    daemon.post("/add_address", {"address": address})
    while not daemon.get(f"/balance/{address}")["coverage"]["complete"]:
        time.sleep(0.1)
    daemon.end(signal.SIGTERM)

    began = time.time()
    other = bytes([0x00, 0x14]) + bytes(20)
    node.send(spend(coin, [(other, coin[2] - 500)]) for coin in coins[: options.count])
    took = time.time() - began
    print(
        f"filled       {options.count} transactions in {took:.1f} s ({options.count / took:.0f} a second)"
    )

    requests, node_cpu = node.requests(), cpu(node.process.pid)
    began = time.time()
    daemon.start()
    meanwhile = []
    while not daemon.ready():
        meanwhile.append(latency(node, daemon, payments, script))
        time.sleep(0.1)
    ready = time.time() - began
    received, sent = traffic(daemon, node.port)
    print(f"ready        {ready:.2f} s")
    print(
        f"requests     {node.requests() - requests - len(meanwhile)}, {received / 1e6:.1f} MB received, {sent / 1e6:.1f} MB sent"
    )
    print(
        f"CPU          daemon {cpu(daemon.process.pid):.2f} s, node {cpu(node.process.pid) - node_cpu:.2f} s"
    )
    print(
        f"RSS          {memory(daemon, 'VmRSS'):.0f} MB, at most {memory(daemon, 'VmHWM'):.0f} MB"
    )
    print(f"meanwhile    {spread(meanwhile)}")

    time.sleep(2 * options.interval)
    polls = 4
    before = cpu(daemon.process.pid), cpu(node.process.pid)
    time.sleep(polls * options.interval)
    used = [
        (cpu(pid) - start) / polls * 1000
        for pid, start in zip((daemon.process.pid, node.process.pid), before)
    ]
    duration = daemon.get("/status")["reconcile"]["last_duration"]
    print(
        f"poll         daemon {used[0]:.0f} ms CPU, node {used[1]:.0f} ms CPU, last took {duration} s"
    )
    print(
        f"RSS          {memory(daemon, 'VmRSS'):.0f} MB, at most {memory(daemon, 'VmHWM'):.0f} MB after polls"
    )
    after = []
    while len(after) < 60:
        after.append(latency(node, daemon, payments, script))
        time.sleep(0.2)
    print(f"after        {spread(after)}")


def latency(node, daemon, payments, script):
    """Milliseconds from handing a payment to the node to the answer that has its event."""
    coin = payments.pop()
    raw, txid = spend(coin, [(script, coin[2] - 500)])
    began = time.perf_counter()
    node.rpc("sendrawtransaction", raw.hex(), 0)
    while True:
        for event in daemon.get(f"/events?wait=20&limit=1000{daemon.after}")["events"]:
            daemon.after = f"&after={event['cursor']}"
            if (
                event["event"] == "new_transactions"
                and event["data"]["transactions"][0]["txid"] == txid
            ):
                return (time.perf_counter() - began) * 1000


def spread(times):
    if not times:
        return "none"
    times = sorted(times)
    return f"{len(times)} payments, median {statistics.median(times):.1f} ms, 95 % {times[int(len(times) * 0.95)]:.1f} ms, most {times[-1]:.1f} ms"


def cpu(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(daemon, field):
    status = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+)", status)[1]) / 1024


def traffic(daemon, port):
    """Bytes over the daemon's connections to the node that are open now; it keeps them."""
    lines = subprocess.run(
        ["ss", "-tinpOH", f"dport = :{port}"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    ours = [line for line in lines if f"pid={daemon.process.pid}," in line]

    def total(field):
        found = (re.search(rf"{field}:(\d+)", line) for line in ours)
        return sum(int(match[1]) for match in found if match)

    return total("bytes_received"), total("bytes_sent")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def varint(n):
    return bytes([n]) if n < 0xFD else b"\xfd" + n.to_bytes(2, "little")


def spend(coin, outputs):
    """A replaceable spend of a free coin: the raw transaction and its id."""
    txid, vout, _ = coin
    version, lock_time = (2).to_bytes(4, "little"), bytes(4)
    inputs = (
        b"\x01"
        + txid[::-1]
        + vout.to_bytes(4, "little")
        + b"\x00"
        + 0xFFFFFFFD.to_bytes(4, "little")
    )
    body = (
        inputs
        + varint(len(outputs))
        + b"".join(
            value.to_bytes(8, "little") + bytes([len(script)]) + script for script, value in outputs
        )
    )
    witness = b"\x01\x01\x51"
    stripped = version + body + lock_time
    txid = hashlib.sha256(hashlib.sha256(stripped).digest()).digest()[::-1]
    return version + b"\x00\x01" + body + witness + lock_time, txid.hex()


class Node:
    """A regtest bitcoind without a wallet."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder, self.port, self.zmq_port = folder, free_port(), free_port()
        zmq = f"tcp://127.0.0.1:{self.zmq_port}"
        program = subprocess.run(
            ["bash", ROOT / "regtest/node.sh", "path"], capture_output=True, text=True, check=True
        ).stdout.strip()
        arguments = [
            "-regtest",
            f"-datadir={folder}",
            "-server",
            "-rest=1",
            "-listen=0",
            "-disablewallet",
            "-printtoconsole=0",
            "-debug=http",
            "-rpcservertimeout=600",
            "-checkmempool=0",
            "-checkblockindex=0",
            "-maxmempool=2000",
            "-blockmaxweight=4000000",
            f"-rpcport={self.port}",
        ]
        arguments += [
            text
            for topic in ("rawblock", "rawtx", "sequence")
            for text in (f"-zmqpub{topic}={zmq}", f"-zmqpub{topic}hwm=0")
        ]
        self.process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        while True:
            try:
                self.rpc("getblockcount")
                return
            except (OSError, RuntimeError, http.client.HTTPException):
                self.connection.close()
                time.sleep(0.1)

    def post(self, body):
        cookie = (self.folder / "regtest/.cookie").read_bytes()
        headers = {"Authorization": "Basic " + base64.b64encode(cookie).decode()}
        self.connection.request("POST", "/", json.dumps(body), headers)
        return json.loads(self.connection.getresponse().read())

    def rpc(self, method, *parameters):
        answer = self.post({"id": 0, "method": method, "params": parameters})
        if answer["error"]:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def send(self, transactions):
        batch = []
        for raw, _ in transactions:
            batch.append({"id": 0, "method": "sendrawtransaction", "params": [raw.hex(), 0]})
            if len(batch) == 200:
                self.send_batch(batch)
                batch = []
        self.send_batch(batch)

    def send_batch(self, batch):
        for answer in self.post(batch) if batch else []:
            if answer["error"]:
                raise RuntimeError(answer["error"])

    def mine(self, count=1):
        descriptor = self.rpc("getdescriptorinfo", f"raw({FREE.hex()})")["descriptor"]
        return self.rpc("generatetodescriptor", count, descriptor)

    def coins(self, count):
        """Confirmed coins that anybody can spend, 20 000 satoshi each."""
        each, value = 1_000, 20_000
        blocks = self.mine(-(-count // each) + 100)
        coins = []
        for start in range(0, count, each):
            coinbase = bytes.fromhex(self.rpc("getblock", blocks[start // each])["tx"][0])
            raw, txid = spend((coinbase, 0, 0), [(FREE, value)] * each)
            self.send([(raw, txid)])
            coins += [(bytes.fromhex(txid), vout, value) for vout in range(each)]
        while self.rpc("getmempoolinfo")["size"]:
            self.mine()
        return coins[:count]

    def requests(self):
        with open(self.folder / "regtest/debug.log", encoding="utf-8", errors="replace") as log:
            return sum(
                "Received a POST request" in line or "Received a GET request" in line
                for line in log
            )


class Daemon:
    def __init__(self, folder, options, node):
        folder.mkdir()
        self.folder, self.process, self.port, self.after = folder, None, free_port(), ""
        self.program = pathlib.Path(options.bin).resolve()
        settings = {
            "SERVER__LISTEN": f"127.0.0.1:{self.port}",
            "STORE__PATH": folder / "store",
            "BITCOIND__RPC_URL": f"http://127.0.0.1:{node.port}",
            "BITCOIND__COOKIE_FILE": node.folder / "regtest/.cookie",
            "MONITOR__RECONCILE_INTERVAL": options.interval,
        }
        self.environment = os.environ | {
            f"SATWATCH__{name}": str(value) for name, value in settings.items()
        }

    def start(self):
        log = open(self.folder / "log", "w", encoding="utf-8")
        self.process = subprocess.Popen(
            [self.program, "run"], cwd=self.folder, env=self.environment, stderr=log
        )
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.01)

    def end(self, how):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait()

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(
            method,
            path,
            body and json.dumps(body),
            {"Content-Type": "application/json"} if body else {},
        )
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text)

    def get(self, path):
        return self.request("GET", path)[1]

    def post(self, path, body):
        return self.request("POST", path, body)[1]

    def ready(self):
        return self.request("GET", "/health/ready")[0] == 200

    def wait_ready(self):
        while not self.ready():
            time.sleep(0.05)


if __name__ == "__main__":
    main()
