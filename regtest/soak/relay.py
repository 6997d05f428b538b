"""A TCP relay between one client and the daemon that can stall, or cut its connections: a client
that takes nothing for a while.

Its buffers and segments are small, so that what a stalled client does not take waits in the daemon
and not in a kernel. (With the segments of the loopback device, which are bigger than the buffer,
the kernels would wait for each other with timers that grow.)
"""

import selectors
import socket
import threading
import time

SMALL, SEGMENT = 1 << 14, 1 << 10


class Relay(threading.Thread):
    def __init__(self, target):
        """`target`: a function that says the port to connect to."""
        super().__init__(name="relay", daemon=True)
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self._stall_until, self._cut, self._ending = 0.0, False, False
        self.failed = None

    def stall(self, seconds):
        """Passes nothing on from the daemon for so long; unless it does so already."""
        if not self.stalls():
            self._stall_until = time.monotonic() + seconds

    def stalls(self):
        return time.monotonic() < self._stall_until

    def flow(self):
        self._stall_until = 0.0

    def cut(self):
        self._cut = True

    def end(self):
        self._ending = True
        self.join(10)

    def run(self):
        try:
            while not self._ending:
                self._turn()
        except Exception as cause:  # noqa: BLE001  the soak looks at it, whatever it is
            self.failed = cause

    def _turn(self):
        if self._cut:
            self._cut = False
            for key in list(self.selector.get_map().values()):
                if key.data:
                    self._close(key.fileobj, key.data[0])
        stalled = self.stalls()
        for key, _ in self.selector.select(0.05):
            if key.data is None:
                self._accept()
            # It may have been closed with its other end.
            elif key.fileobj.fileno() >= 0 and not (stalled and key.data[1]):
                self._move(key.fileobj, key.data[0])
        if stalled:
            time.sleep(0.01)

    def _accept(self):
        client, _ = self.listener.accept()
        daemon = socket.socket()
        daemon.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        daemon.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        try:
            daemon.connect(("127.0.0.1", self.target()))
        except OSError:
            client.close()
            return
        # The other end, and whether this is the daemon's.
        self.selector.register(client, selectors.EVENT_READ, (daemon, False))
        self.selector.register(daemon, selectors.EVENT_READ, (client, True))

    def _move(self, source, sink):
        try:
            text = source.recv(SMALL)
            if text:
                return sink.sendall(text)
        except OSError:
            pass
        return self._close(source, sink)

    def _close(self, *pair):
        for end in pair:
            if end.fileno() >= 0:
                self.selector.unregister(end)
                end.close()
