#!/usr/bin/env python3
"""What an idle connection costs: memory of the daemon for each WebSocket that is in the namespace
and says nothing, and for each HTTP connection that was asked once, without TLS and over TLS 1.3 and
1.2.

    contrib/bench/idle.py --bin PATH/TO/satwatch [--count 1000]

Needs what the tests need (a bitcoind, found by regtest/node.sh). Everything is kept in a temporary
folder and ended afterwards. The figures are growth of resident memory divided by connections,
taken after as many connections before them have warmed the daemon up. Sizes of the kernel's socket
buffers are not in them.
"""

import argparse
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import mempool  # noqa: E402

SETTLE = 2


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--bin", required=True, help="the satwatch to measure")
    options.add_argument("--count", type=int, default=1000, help="connections")
    options = options.parse_args()
    options.interval = 10
    with tempfile.TemporaryDirectory(prefix="satwatch-bench-") as folder:
        folder = pathlib.Path(folder)
        subprocess.run(
            [pathlib.Path(options.bin).resolve(), "cert", "new"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        node = mempool.Node(folder / "node")
        try:
            for name, version in [
                ("plain", None),
                ("TLS 1.3", ssl.TLSVersion.TLSv1_3),
                ("TLS 1.2", ssl.TLSVersion.TLSv1_2),
            ]:
                for what in ["websocket", "http"]:
                    each = measure(folder, node, options, version, what)
                    print(f"{name:8} {what:10} {each:6.1f} KiB/connection", flush=True)
        finally:
            node.process.kill()
            node.process.wait()


def measure(folder, node, options, version, what):
    at = pathlib.Path(tempfile.mkdtemp(dir=folder)) / "daemon"
    daemon = mempool.Daemon(at, options, node)
    if version:
        daemon.environment |= {
            "SATWATCH__SERVER__TLS__CERT": str(folder / "cert.pem"),
            "SATWATCH__SERVER__TLS__KEY": str(folder / "key.pem"),
        }
    daemon.start()
    try:
        warm = [connect(daemon.port, folder, version, what) for _ in range(options.count)]
        time.sleep(SETTLE)
        before = mempool.memory(daemon, "VmRSS")
        idle = [connect(daemon.port, folder, version, what) for _ in range(options.count)]
        time.sleep(SETTLE)
        grown = mempool.memory(daemon, "VmRSS") - before
        for stream in warm + idle:
            stream.close()
        return grown * 1024 / options.count
    finally:
        daemon.end(signal.SIGKILL)


def connect(port, folder, version, what):
    stream = socket.create_connection(("127.0.0.1", port))
    if version:
        context = ssl.create_default_context(cafile=folder / "cert.pem")
        context.minimum_version = context.maximum_version = version
        stream = context.wrap_socket(stream, server_hostname="localhost")
    host = f"Host: 127.0.0.1:{port}\r\n"
    if what == "http":
        stream.sendall(f"GET /health/live HTTP/1.1\r\n{host}\r\n".encode())
        read_until(stream, b"}")
        return stream
    stream.sendall(
        f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n{host}"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    read_until(stream, b"maxPayload")
    # "40", masked.
    mask = os.urandom(4)
    stream.sendall(b"\x81\x82" + mask + bytes(a ^ b for a, b in zip(b"40", mask, strict=False)))
    read_until(stream, b'"connected"')
    return stream


def read_until(stream, end):
    text = b""
    while end not in text:
        part = stream.recv(4096)
        if not part:
            raise RuntimeError(f"ended after {text!r}")
        text += part


if __name__ == "__main__":
    main()
