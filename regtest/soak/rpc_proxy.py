"""What stands between the daemon and the node's RPC: now and then answers come late, or a
connection breaks in the middle.

An answer that comes late was true when the node gave it, and the feed is ahead of it by then. Bytes
are passed on as they are.
"""

import random
import socket
import threading
import time


class RpcProxy(threading.Thread):
    def __init__(self, seed, node_port):
        super().__init__(name="rpc proxy", daemon=True)
        self.random, self.node_port = random.Random(f"rpc proxy {seed}"), node_port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self._slow_until = self._bad_until = 0.0
        self.late = self.broken = 0

    def slow(self, seconds):
        self._slow_until = time.monotonic() + seconds

    def bad(self, seconds):
        self._bad_until = time.monotonic() + seconds

    def end(self):
        self.listener.close()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                node = socket.create_connection(("127.0.0.1", self.node_port))
            except OSError:
                client.close()
                continue
            for args in ((client, node, False), (node, client, True)):
                threading.Thread(target=self._pass_on, args=args, daemon=True).start()

    def _pass_on(self, source, sink, answers):
        try:
            while data := source.recv(1 << 16):
                if answers:
                    self._disturb(source)
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        # Only one of the two directions closes each socket.
        source.close()

    def _disturb(self, source):
        now = time.monotonic()
        if now < self._slow_until and self.random.random() < 0.5:
            self.late += 1
            time.sleep(self.random.choice((0.05, 0.3, 1.0)) * self.random.random())
        if now < self._bad_until and self.random.random() < 0.3:
            self.broken += 1
            raise OSError("broken on purpose")
