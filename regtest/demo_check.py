#!/usr/bin/env python3
"""Whether the demo stays: `up.sh` in a terminal of its own, through a `kill -9` of the daemon, a
restart of the node and some pings, until the terminal is closed.

    regtest/demo_check.py --bin PATH/TO/satwatch [--seconds 80]

Exit code 0 only if its listener has printed all that the event log has of the address, each event
once and in order; if these are the payments that the node made, all of them; if it needed no more
connections than the daemon had lives; if the demo did not end by itself; and if nothing is left of
it afterwards. --seconds is the time that it is left alone after the restarts, by default more than
three ping intervals. It mostly sleeps: run it beside something else.
"""

import argparse
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
OF_THE_CONNECTION = ("connected", "subscribed", "caught_up", "lagged")


class Wrong(Exception):
    pass


class Demo:
    def __init__(self, program, work):
        self.work, self.lines, self.code = work, work / "lines", None
        self.lines.touch()
        self.child, self.terminal = pty.fork()
        if self.child == 0:
            # Whoever runs this in the background may ignore it.
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.environ["TMPDIR"] = str(work)
            os.dup2(os.open(self.lines, os.O_WRONLY | os.O_APPEND), 1)
            os.execv(HERE / "up.sh", ["up.sh", "--port", "0", "--bin", str(program)])
        self.said, self.closing = "", False
        self.reader = threading.Thread(target=self.read_terminal)
        self.reader.start()

    def read_terminal(self):
        while not self.closing:
            if select.select([self.terminal], [], [], 0.2)[0]:
                try:
                    self.said += os.read(self.terminal, 4096).decode(errors="replace")
                except OSError:
                    return  # the other side is closed

    def wait_until_up(self):
        self.wait_for(lambda: "What a client receives" in self.said, "it does not come up", 180)
        self.url = re.search(r"satwatch is up: (\S+)", self.said)[1]
        self.address = re.search(r"Watching (\w+)", self.said)[1]
        self.folder = next(self.work.glob("satwatch.*"))

    def wait_for(self, condition, problem, seconds):
        deadline = time.monotonic() + seconds
        while not condition():
            if self.has_ended():
                raise Wrong(f"the demo ended by itself, exit code {self.code}")
            if time.monotonic() > deadline:
                raise Wrong(problem if isinstance(problem, str) else problem())
            time.sleep(0.5)

    def has_ended(self):
        if self.code is None:
            process, status = os.waitpid(self.child, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if process else None
        return self.code is not None

    def leave_alone(self, seconds):
        end = time.monotonic() + seconds
        self.wait_for(lambda: time.monotonic() > end, "", seconds + 60)

    def node(self, *arguments):
        command = [HERE / "node.sh", arguments[0], self.folder / "node", *arguments[1:]]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def daemon(self):
        return int((self.folder / "daemon.pid").read_text())

    def printed(self):
        """What the listener has printed."""
        text = self.lines.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def logged(self):
        """What the event log has of the address."""
        entries, after = [], ""
        while True:
            with urllib.request.urlopen(f"{self.url}/events?address={self.address}{after}") as page:
                page = json.load(page)
            if not page["events"]:
                return entries
            entries += [{"event": one["event"], "data": one["data"]} for one in page["events"]]
            after = f"&after={page['next']}"

    def paid(self):
        """The transactions that paid the address, by the node."""
        known = json.loads(self.node("cli", "listtransactions", "*", "1000000"))
        return {one["txid"] for one in known if one.get("address") == self.address}

    def differences(self):
        paid, logged = self.paid(), self.logged()
        heard = [line for line in self.printed() if line["event"] not in OF_THE_CONNECTION]
        new = [
            line["data"]["transactions"] for line in heard if line["event"] == "new_transactions"
        ]
        told = [transaction["txid"] for transactions in new for transaction in transactions]
        if len(told) != len(set(told)):
            return f"{len(told) - len(set(told))} of {len(told)} payments were printed twice"
        if set(told) != paid:
            return f"the node made {len(paid)} payments, {len(set(told) & paid)} were printed"
        if heard != logged:
            return f"the log has {len(logged)} events, other {len(heard)} were printed"
        return None

    def compare(self):
        """Waits for a moment at which all three have the same; the payments then."""
        self.wait_for(lambda: not self.differences(), self.differences, 30)
        return len(self.paid())

    def connections(self):
        return sum(line["event"] == "connected" for line in self.printed())

    def close_terminal(self):
        node = int(re.search(r"NODE_PID=(\d+)", (self.folder / "node/node.env").read_text())[1])
        processes = [self.daemon(), node]
        self.hang_up()
        left = [process for process in processes if runs(process)]
        if self.code != 129 or left or self.folder.exists():
            raise Wrong(f"the terminal was closed: exit code {self.code}, {left} still run")

    def hang_up(self):
        """Closes the terminal, and waits for the end."""
        self.closing = True
        self.reader.join()
        os.close(self.terminal)
        deadline = time.monotonic() + 60
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(0.1)


def runs(process):
    try:
        # One that has ended and that nobody waited for has no command line any more.
        return pathlib.Path(f"/proc/{process}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


def check(demo, seconds):
    demo.wait_until_up()
    demo.leave_alone(10)
    killed = demo.daemon()
    os.kill(killed, signal.SIGKILL)
    demo.wait_for(lambda: demo.daemon() != killed, "the daemon is not started again", 30)
    demo.wait_for(lambda: demo.connections() == 2, "the listener does not come back", 60)
    demo.node("stop")
    demo.leave_alone(10)
    demo.node("start")
    before = demo.compare()
    demo.leave_alone(seconds)
    paid = demo.compare()
    if paid <= before:
        raise Wrong(f"no payment since the restart of the node: {paid}")
    if demo.connections() != 2:
        raise Wrong(f"{demo.connections()} connections for two lives of the daemon")
    demo.close_terminal()
    print(
        f"demo_check.py: {paid} payments, each printed once, over {demo.connections()} connections"
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True, type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=80)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="satwatch-demo.") as work:
        demo = Demo(options.bin.resolve(), pathlib.Path(work))
        try:
            check(demo, options.seconds)
        except Wrong as wrong:
            print(f"{demo.said}\ndemo_check.py: {wrong}", file=sys.stderr)
            return 1
        finally:
            if not demo.closing:
                demo.hang_up()
    return 0


if __name__ == "__main__":
    sys.exit(main())
