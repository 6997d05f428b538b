#!/usr/bin/env python3
"""What watching many wallets costs: memory of the daemon with so many wpkh descriptors of two
keychains, each with its lookahead of a thousand scripts a keychain and more.

    contrib/bench/descriptors.py --bin PATH/TO/satwatch [--count 1000]

Needs what the tests need (a bitcoind, found by regtest/node.sh). Everything is kept in a temporary
folder and ended afterwards. It prints the number of scripts, how long they took, and resident
memory: before, after, and after a restart; the goal is 700 MiB for 1000 descriptors. The wallets
have no past (history "none"), so that the node's time is not measured.
"""

import argparse
import pathlib
import signal
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import mempool  # noqa: E402

KEY = "tpubDC8msFGeGuwnKG9Upg7DM2b4DaRqg3CUZa5g8v2SRQ6K4NSkxUgd7HsL2XVWbVm39yBA4LAxysQAm397zwQSQoQgewGiYZqrA9DsP4zbQ1M"


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--bin", required=True, help="the satwatch to measure")
    options.add_argument("--count", type=int, default=1000, help="descriptors")
    options = options.parse_args()
    options.interval = 10
    with tempfile.TemporaryDirectory(prefix="satwatch-bench-") as folder:
        node = mempool.Node(pathlib.Path(folder, "node"))
        daemon = mempool.Daemon(pathlib.Path(folder, "daemon"), options, node)
        daemon.environment["SATWATCH__LIMITS__ADDRESSES_PER_TOKEN"] = "10000000"
        try:
            node.mine()
            measure(daemon, options.count)
        finally:
            daemon.end(signal.SIGKILL)
            node.process.kill()
            node.process.wait()


def measure(daemon, count):
    daemon.start()
    daemon.wait_ready()
    tell("empty", daemon)
    begin = time.monotonic()
    for number in range(count):
        body = {"descriptor": f"wpkh({KEY}/{number}/<0;1>/*)", "history": "none"}
        status, answer = daemon.request("POST", "/descriptors", body)
        if status != 201:
            raise SystemExit(f"{status} {answer}")
    print(f"{count} descriptors added in {time.monotonic() - begin:.1f} s")
    tell("added", daemon)
    daemon.end(signal.SIGTERM)
    daemon.start()
    daemon.wait_ready()
    tell("restarted", daemon)


def tell(when, daemon):
    scripts = daemon.get("/status")["derived_scripts"]
    resident, peak = (mempool.memory(daemon, field) for field in ("VmRSS", "VmHWM"))
    print(f"{when:10} {scripts:8} scripts {resident:7.1f} MiB, at most {peak:.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
