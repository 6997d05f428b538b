"""What stands between the primary and its clients: Redis with a replica, edges, HAProxy."""

import shutil
import signal
import subprocess
import sys

from daemon import Daemon
from process import Failure, Process, free_port, wait_until


class Redis:
    """Saves only when it is told to."""

    def __init__(self, folder, port, master=None):
        self.folder, self.port, self.process = folder, port, None
        self.follows = [] if master is None else ["--replicaof", "127.0.0.1", str(master)]
        folder.mkdir()

    def start(self):
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        # A replica is there at once, also of one that was empty a moment ago.
        words += ["--repl-diskless-sync-delay", "0", *self.follows]
        self.process = Process(["redis-server", *words], self.folder / "log", folder=self.folder)
        wait_until("redis-server answers", lambda: self.ask("PING", check=False) == "PONG")

    def ask(self, *words, check=True):
        command = ["redis-cli", "-h", "127.0.0.1", "-p", str(self.port), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        answer = done.stdout.strip()
        if check and (done.returncode or answer.startswith("ERR")):
            raise Failure(f"{words}: {answer} {done.stderr}")
        return answer

    def save(self):
        # It refuses while it saves for a replica.
        wait_until("redis-server saves", lambda: self.ask("SAVE", check=False) == "OK")

    def kill(self):
        self.process.kill()
        self.process = None

    def forget(self):
        """What it has saved."""
        (self.folder / "dump.rdb").unlink(missing_ok=True)

    def follows_now(self):
        return "master_link_status:up" in self.ask("INFO", "replication")

    def end(self):
        if self.process is not None:
            self.process.child.send_signal(signal.SIGCONT)
            self.kill()


class RedisPair:
    """The one that everybody talks to, and a replica."""

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        folder.mkdir()
        self.master = Redis(folder / "0", free_port())
        self.replica = None

    def start(self):
        self.master.start()
        self.follow()

    def follow(self):
        self.count += 1
        self.replica = Redis(self.folder / str(self.count), free_port(), self.master.port)
        self.replica.start()
        wait_until("the replica follows", self.replica.follows_now)

    def detach(self):
        """The replica gets nothing any more."""
        wait_until("the replica follows", self.replica.follows_now)
        self.replica.ask("REPLICAOF", "NO", "ONE")

    def promote(self):
        """The replica takes the place of the master, with what it has."""
        self.replica.save()
        self.replica.kill()
        self.master.kill()
        port, self.master = self.master.port, self.replica
        self.master.port, self.master.follows = port, []
        self.master.start()

    def end(self):
        for server in (self.master, self.replica):
            if server is not None:
                server.end()


BALANCER = """
global
    maxconn 1000
    stats socket {folder}/stats level admin
defaults
    mode http
    timeout connect 2s
    timeout client 90s
    timeout server 90s
    timeout tunnel 90s
    option redispatch
    retries 2
    default-server check inter 300ms fall 2 rise 1
frontend by_cookie
    bind 127.0.0.1:{by_cookie}
    default_backend by_cookie
frontend by_hash
    bind 127.0.0.1:{by_hash}
    default_backend by_hash
backend by_cookie
    balance roundrobin
    cookie EDGE insert indirect nocache
    option httpchk GET /health/live
{cookie_servers}
backend by_hash
    balance source
    hash-type consistent
    option httpchk GET /health/live
{hash_servers}
"""


class Balancer:
    """HAProxy before the edges: polling stays at one by a cookie, or by the client's address."""

    def __init__(self, folder, edges):
        self.folder, self.edges, self.process = folder, edges, None
        self.by_cookie, self.by_hash = free_port(), free_port()
        folder.mkdir()

    def start(self):
        ports = [edge.settings["server.listen"] for edge in self.edges]
        servers = [f"    server edge{n} {port}" for n, port in enumerate(ports)]
        cookies = [f"{line} cookie edge{n}" for n, line in enumerate(servers)]
        text = BALANCER.format(
            folder=self.folder,
            by_cookie=self.by_cookie,
            by_hash=self.by_hash,
            cookie_servers="\n".join(cookies),
            hash_servers="\n".join(servers),
        )
        (self.folder / "haproxy.cfg").write_text(text.lstrip())
        command = ["haproxy", "-db", "-f", str(self.folder / "haproxy.cfg")]
        self.process = Process(command, self.folder / "log")

    def kill(self):
        if not self.process.runs():
            raise Failure(f"HAProxy ended by itself, see {self.folder}/log")
        self.process.kill()
        self.process = None

    def urls(self):
        return [f"http://127.0.0.1:{port}" for port in (self.by_cookie, self.by_hash)]

    def end(self):
        if self.process is not None and self.process.runs():
            self.process.kill()


def edge(program, folder, primary, bus):
    settings = {
        "edge.upstream": f"http://{primary.settings['server.listen']}",
        "bus.url": bus,
        "limits.waiting_requests": "200",
    }
    return Daemon(program, folder, settings, "edge")


def copy(source, target):
    """A folder as it is, in place of what is there."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def need():
    """What has to be installed."""
    missing = [name for name in ("redis-server", "haproxy") if shutil.which(name) is None]
    if missing:
        print(f"{' and '.join(missing)} missing: run contrib/setup.sh", file=sys.stderr)
        sys.exit(2)
