"""What stands between the node's ZMQ and the daemon's: it drops messages, or holds them back for a
while.

What it passes on is unchanged and in order, counters included, so that the daemon sees a gap as it
would see one of the node. It stays while node and daemon restart. With `apart`, each topic has an
address of its own, and no order holds between them, as with a node that publishes so. Its choices
have a random sequence of their own, since the time of a message is not the seed's.
"""

import collections
import random
import threading
import time

import zmq
from process import free_port

TOPICS = ("rawtx", "rawblock", "sequence")
"""Seconds by which one topic is behind another, at most."""
SKEW = 0.1


class Proxy(threading.Thread):
    def __init__(self, seed, node_port, drop, apart, witness):
        super().__init__(name="proxy", daemon=True)
        self.random, self.drop, self.apart = random.Random(f"proxy {seed}"), drop, apart
        self.node_port, self.witness = node_port, witness
        ports = [free_port() for _ in TOPICS] if apart else [free_port()] * len(TOPICS)
        self.addresses = {topic: f"tcp://127.0.0.1:{port}" for topic, port in zip(TOPICS, ports)}
        self.passed = self.dropped = 0
        self._mute_until = self._hold_until = 0.0
        self._break = self._ending = False
        self.failed = None

    def mute(self, seconds):
        """Drops everything for so long; without `--drop`, nothing."""
        if self.drop:
            self._mute_until = time.monotonic() + seconds

    def hold(self, seconds):
        """Everything comes later: the node is ahead of its messages."""
        self._hold_until = time.monotonic() + seconds

    def break_connection(self):
        """The daemon's connections end and come back; nothing is sent again. Without `--drop`,
        nothing.
        """
        self._break = bool(self.drop)

    def end(self):
        self._ending = True
        self.join(10)

    def run(self):
        try:
            self._pass_on()
        except Exception as cause:  # noqa: BLE001  the soak looks at it, whatever it is
            self.failed = cause

    def _pass_on(self):
        context = zmq.Context()
        source = context.socket(zmq.SUB)
        for option, value in (
            (zmq.RCVHWM, 0),
            (zmq.RECONNECT_IVL, 50),
            (zmq.LINGER, 0),
            (zmq.RCVTIMEO, 20),
            (zmq.SUBSCRIBE, b""),
        ):
            source.setsockopt(option, value)
        source.connect(f"tcp://127.0.0.1:{self.node_port}")
        sinks = self._sinks(context)
        # Per address: what waits, with the time until which it does.
        queues = {address: collections.deque() for address in sinks}
        while not self._ending:
            try:
                frames = source.recv_multipart()
                self.witness.hear(frames)
                self._take(frames, queues[self.addresses[frames[0].decode()]])
            except zmq.Again:
                pass
            if self._break:
                self._break = False
                for sink in sinks.values():
                    sink.close(0)
                sinks = self._sinks(context)
            for address, queue in queues.items():
                while queue and time.monotonic() >= max(self._hold_until, queue[0][0]):
                    sinks[address].send_multipart(queue.popleft()[1])
                    self.passed += 1
        context.destroy(0)

    def _take(self, frames, queue):
        now = time.monotonic()
        if now < self._mute_until or self.random.random() < self.drop:
            self.dropped += 1
            return
        due = now
        if self.apart and self.random.random() < 0.2:
            due += SKEW * self.random.random()
        queue.append((due, frames))

    def _sinks(self, context):
        return {
            address: self._sink(context, address)
            for address in dict.fromkeys(self.addresses.values())
        }

    @staticmethod
    def _sink(context, address):
        sink = context.socket(zmq.PUB)
        sink.setsockopt(zmq.SNDHWM, 0)
        sink.setsockopt(zmq.LINGER, 0)
        for attempt in range(100):
            try:
                sink.bind(address)
                break
            except zmq.ZMQError:
                # The socket before it is not quite gone yet.
                if attempt == 99:
                    raise
                time.sleep(0.02)
        return sink
