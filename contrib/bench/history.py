#!/usr/bin/env python3
"""How fast history scans are beside what the node can give: real-sized blocks on regtest,
downloaded bare and scanned, in turns.

    contrib/bench/history.py --bin PATH/TO/satwatch [--blocks 400] [--rounds 3]

Needs what the tests need (a bitcoind, found by regtest/node.sh) and `curl`. Everything is kept in a
temporary folder (about 2 MB for each block) and ended afterwards. Making the blocks takes about a
third of a second each. It prints blocks a second, the median of the rounds, of

    bare         curl, the blocks over REST, four at a time: the rate at which the node serves them
                 to anybody who does nothing with them
    catching up  a daemon that watches the used addresses and was away while all of these blocks
                 came, from the first one that it takes to the last
    1 address    a scan of all blocks for one address that was paid in one block of ten, and what
                 part of the bare rate that is
    1 000        the same for a thousand addresses in one job, twenty of them used
    10 000       the same for ten thousand
    from 1       the same for one address, above height 0: there the node also tells what each block
                 spends
    filters      one address again, after the node has built its block filter index

A scan's time is from its creation to its end, less that of a scan of one block (about 0.1 s: it
waits a moment for others to share the way with). Blocks are about 1 MB with 2 800 transactions of
two inputs and three outputs each. They are built here and submitted; the coins pay a script that
anybody can spend (P2WSH), so nothing is signed.
"""

import argparse
import hashlib
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import mempool  # noqa: E402  the node and the daemon of the other benchmark

SCRIPT = b"\x75\x51"  # OP_DROP OP_1, under 64 bytes that stand for a signature
FREE = b"\x00\x20" + hashlib.sha256(SCRIPT).digest()
WITNESS = b"\x02\x40" + bytes(64) + bytes([len(SCRIPT)]) + SCRIPT
TRANSACTIONS = 2_800
# Addresses that a round takes of those that were used: one that is scanned for once is not again.
USED = 1 + 20 + 20 + 1 + 1
FIXED = 3
CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--bin", required=True, help="the satwatch to measure")
    options.add_argument("--blocks", type=int, default=400, help="full blocks")
    options.add_argument("--rounds", type=int, default=3)
    options = options.parse_args()
    options.interval = 5
    with tempfile.TemporaryDirectory(prefix="satwatch-bench-") as folder:
        node = mempool.Node(pathlib.Path(folder, "node"))
        daemon = mempool.Daemon(pathlib.Path(folder, "daemon"), options, node)
        behind = mempool.Daemon(pathlib.Path(folder, "behind"), options, node)
        try:
            measure(node, daemon, behind, options)
        finally:
            daemon.end(signal.SIGKILL)
            behind.end(signal.SIGKILL)
            node.process.kill()
            node.process.wait()


def measure(node, daemon, behind, options):
    chain = Chain(node, FIXED + USED * options.rounds)
    used = [address(script) for script in chain.used]
    behind.start()
    behind.wait_ready()
    watch(behind, used)
    behind.end(signal.SIGTERM)
    began = time.time()
    chain.grow(options.blocks)
    print(
        f"made         {options.blocks} blocks of {chain.bytes / options.blocks / 1e6:.2f} MB in {time.time() - began:.0f} s",
        flush=True,
    )
    tip = node.rpc("getblockcount")
    hashes = [node.rpc("getblockhash", height) for height in range(tip + 1)]
    daemon.start()
    daemon.wait_ready()
    single, thousand, many, upper, late = [], [], [], [], []
    fixed = statistics.median(
        scan(daemon, [used.pop()], from_height=0, to_height=0) for _ in range(FIXED)
    )
    print(f"fixed        {fixed:.2f} s for a scan of one block", flush=True)
    bare = []
    for turn in range(options.rounds):
        bare.append(download(node, hashes))
        single.append(scan(daemon, [used.pop()], from_height=0))
        late.append(catch_up(behind, tip))
        bare.append(download(node, hashes))
        # Other addresses each time, or there would be nothing left to scan.
        for times, count in ((thousand, 1_000), (many, 10_000)):
            fresh = [
                address(hashlib.sha256(b"%d %d %d" % (turn, count, n)).digest()[:20])
                for n in range(count - 20)
            ]
            times.append(scan(daemon, [used.pop() for _ in range(20)] + fresh, from_height=0))
        upper.append(scan(daemon, [used.pop()], from_height=1))
    base = show("bare", bare, 0, len(hashes))
    show("catching up", [each * len(hashes) for each in late], 0, len(hashes), base)
    show("1 address", single, fixed, len(hashes), base)
    show("1 000", thousand, fixed, len(hashes), base)
    show("10 000", many, fixed, len(hashes), base)
    show("from 1", upper, fixed, len(hashes), base)
    restart_with_index(node)
    time.sleep(2 * options.interval)
    daemon.wait_ready()
    show(
        "filters",
        [scan(daemon, [used.pop()], from_height=0) for _ in range(options.rounds)],
        fixed,
        len(hashes),
        base,
    )


def show(name, times, fixed, blocks, base=None):
    rate = blocks / (statistics.median(times) - fixed)
    part = f", {100 * rate / base:.0f} % of bare" if base else ""
    times = [round(time, 2) for time in times]
    print(f"{name:12} {rate:.0f} blocks/s{part}  ({times} s)", flush=True)
    return rate


def download(node, hashes):
    with tempfile.NamedTemporaryFile("w", suffix=".curl") as config:
        for block in hashes:
            config.write(
                f'url = "http://127.0.0.1:{node.port}/rest/block/{block}.bin"\noutput = "/dev/null"\n'
            )
        config.flush()
        began = time.time()
        subprocess.run(
            ["curl", "--no-progress-meter", "-f", "-Z", "--parallel-max", "4", "-K", config.name],
            check=True,
        )
        return time.time() - began


def catch_up(daemon, tip):
    """Seconds for each block that it takes until it is at `tip`; it is as it was before then."""
    store = daemon.folder / "store"
    shutil.copytree(store, daemon.folder / "before")
    daemon.start()
    began, first = time.time(), daemon.get("/status")["tip"]["height"]
    height = first
    while height < tip:
        time.sleep(0.01)
        now, height = time.time(), daemon.get("/status")["tip"]["height"]
        if height == first:
            began = now
    daemon.end(signal.SIGKILL)
    shutil.rmtree(store)
    (daemon.folder / "before").rename(store)
    return (now - began) / (tip - first)


def scan(daemon, addresses, **span):
    """Seconds from the creation of a scan of addresses that are watched already to its end."""
    watch(daemon, addresses)
    time.sleep(0.5)
    answer = daemon.post("/scan_history", {"addresses": addresses} | span)
    if "scan_id" not in answer:
        raise RuntimeError(answer)
    while True:
        state = daemon.get(f"/scans/{answer['scan_id']}")
        if state["status"] == "complete":
            return state["updated"] - state["created"]
        time.sleep(0.05)


def watch(daemon, addresses):
    """Until they are, with what they own."""
    for start in range(0, len(addresses), 1000):
        daemon.post("/add_addresses", {"addresses": addresses[start : start + 1000]})
    while not all(
        daemon.get(f"/balance/{address}")["coverage"]["complete"]
        for address in (addresses[0], addresses[-1])
    ):
        time.sleep(0.1)


def restart_with_index(node):
    node.rpc("stop")
    node.connection.close()
    node.process.wait()
    node.process = subprocess.Popen(
        [*node.process.args, "-blockfilterindex=1"], stdout=subprocess.DEVNULL
    )
    while True:
        try:
            if node.rpc("getindexinfo")["basic block filter index"]["synced"]:
                return
        except (OSError, RuntimeError, KeyError, mempool.http.client.HTTPException):
            node.connection.close()
        time.sleep(0.2)


def double(data):
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def merkle(hashes):
    while len(hashes) > 1:
        if len(hashes) % 2:
            hashes.append(hashes[-1])
        hashes = [double(hashes[at] + hashes[at + 1]) for at in range(0, len(hashes), 2)]
    return hashes[0]


class Chain:
    """Blocks without a miner: built here, submitted to the node."""

    def __init__(self, node, used):
        self.node, self.bytes, self.coins, self.count = node, 0, [], 0
        self.used = [hashlib.sha256(b"used%d" % n).digest()[:20] for n in range(used)]
        descriptor = node.rpc("getdescriptorinfo", f"raw({FREE.hex()})")["descriptor"]
        blocks = node.rpc("generatetodescriptor", 104, descriptor)
        funds = [bytes.fromhex(node.rpc("getblock", block)["tx"][0]) for block in blocks[:2]]
        # Two coinbases of 50 bitcoin become the coins of the first block.
        outputs, each = TRANSACTIONS, 1_500_000
        paid = (each.to_bytes(8, "little") + b"\x22" + FREE) * outputs
        after = bytes(4) + b"\x00" + b"\xff" * 4 + mempool.varint(outputs) + paid
        transactions = [transaction(b"\x01" + txid[::-1] + after, 1) for txid in funds]
        self.submit(transactions)
        self.coins = [(txid, vout) for _, txid, _ in transactions for vout in range(outputs)]
        self.value = each

    def grow(self, blocks):
        # One in ten of the used addresses is paid in each block.
        paid = len(self.used) // 10
        for block in range(blocks):
            self.value -= 1_000
            free = (self.value.to_bytes(8, "little") + b"\x22" + FREE) * 2
            transactions, coins = [], []
            for n in range(0, len(self.coins), 2):
                self.count += 1
                script = (
                    self.used[(paid * block + n // 2) % len(self.used)]
                    if n < 2 * paid
                    else hashlib.sha256(b"%d" % self.count).digest()[:20]
                )
                inputs = b"\x02" + b"".join(
                    txid + vout.to_bytes(4, "little") + b"\x00" + b"\xff" * 4
                    for txid, vout in self.coins[n : n + 2]
                )
                made = transaction(
                    inputs
                    + b"\x03"
                    + free
                    + (600).to_bytes(8, "little")
                    + b"\x16\x00\x14"
                    + script,
                    2,
                )
                transactions.append(made)
                coins += [(made[1], 0), (made[1], 1)]
            self.submit(transactions)
            self.coins = coins

    def submit(self, transactions):
        height, tip = self.node.rpc("getblockcount") + 1, self.node.rpc("getbestblockhash")
        parent = self.node.rpc("getblockheader", tip)
        root = merkle([bytes(32)] + [wtxid for _, _, wtxid in transactions])
        commitment = b"\x6a\x24\xaa\x21\xa9\xed" + double(root + bytes(32))
        size = 1 if height < 128 else 2
        sig = bytes([size]) + height.to_bytes(size, "little") + b"\x00"
        outputs = (
            b"\x02" + bytes(8) + b"\x01\x51" + bytes(8) + bytes([len(commitment)]) + commitment
        )
        body = b"\x01" + bytes(32) + b"\xff" * 4 + bytes([len(sig)]) + sig + b"\xff" * 4 + outputs
        stripped = (2).to_bytes(4, "little") + body + bytes(4)
        coinbase = (
            (2).to_bytes(4, "little") + b"\x00\x01" + body + b"\x01\x20" + bytes(32) + bytes(4)
        )
        merkle_root = merkle([double(stripped)] + [txid for _, txid, _ in transactions])
        start = (0x20000000).to_bytes(4, "little") + bytes.fromhex(tip)[::-1] + merkle_root
        start += (parent["time"] + 1).to_bytes(4, "little") + 0x207FFFFF.to_bytes(4, "little")
        nonce = next(
            nonce
            for nonce in range(1 << 20)
            if double(start + nonce.to_bytes(4, "little"))[31] < 0x7F
        )
        block = (
            start
            + nonce.to_bytes(4, "little")
            + mempool.varint(len(transactions) + 1)
            + coinbase
            + b"".join(raw for raw, _, _ in transactions)
        )
        answer = self.node.rpc("submitblock", block.hex())
        if answer is not None:
            raise RuntimeError(f"the node refuses a block: {answer}")
        self.bytes += len(block)


def transaction(body, inputs):
    """Raw, txid and wtxid in internal byte order; `body` is its inputs and outputs."""
    version, lock_time = (2).to_bytes(4, "little"), bytes(4)
    raw = version + b"\x00\x01" + body + WITNESS * inputs + lock_time
    return raw, double(version + body + lock_time), double(raw)


def address(program):
    """A P2WPKH address of regtest."""
    bits = int.from_bytes(program, "big")
    data = [0] + [bits >> shift & 31 for shift in range(155, -1, -5)]
    checksum = 1
    for value in [3] * 4 + [0] + [ord(c) & 31 for c in "bcrt"] + data + [0] * 6:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for n, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            checksum ^= generator if top >> n & 1 else 0
    checksum ^= 1
    return "bcrt1" + "".join(
        CHARSET[value] for value in data + [checksum >> 5 * (5 - n) & 31 for n in range(6)]
    )


if __name__ == "__main__":
    main()
