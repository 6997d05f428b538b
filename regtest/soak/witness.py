"""What the node published, all of it, read before anything is dropped: no status may be told that
never was.

A transaction that is told as gone must have left the mempool or a block since it was told as gone
the time before; one that is told as in the mempool must have been taken by it; a block that is told
must have been connected. The end of a step is compared elsewhere; this finds what was wrong in
between, such as an eviction that never happened.
"""

import time

from node import RpcError

"""The daemon may know from RPC what we get from the feed a little later."""
SLACK = 1.0


class Witness:
    def __init__(self):
        self.messages = []
        self.resolved = 0
        """Times of node stops and starts: a mempool and the last blocks may go without a message.
        """
        self.restarts = []
        """txid -> times at which the mempool took it, or at which it left the mempool or a block.
        """
        self.came, self.left = {}, {}
        self.connected = set()
        """Times of disconnects of blocks that nobody can read any more."""
        self.unknown = []

    def hear(self, frames):
        """Called for each message by the thread that receives them."""
        if frames[0] == b"sequence":
            self.messages.append((time.time(), frames[1][32:33], frames[1][:32].hex()))

    def restarted(self):
        self.restarts.append(time.time())

    def resolve(self, ledger):
        """Turns the messages so far into times per transaction."""
        end = len(self.messages)
        for moment, label, name in self.messages[self.resolved : end]:
            if label == b"A":
                self.came.setdefault(name, []).append(moment)
            elif label == b"R":
                self.left.setdefault(name, []).append(moment)
            elif label == b"C":
                self.connected.add(name)
            else:
                self._disconnected(ledger, moment, name)
        self.resolved = end

    def _disconnected(self, ledger, moment, name):
        try:
            txs = ledger.block(name).txs
        except RpcError:
            self.unknown.append(moment)
            return
        for tx in txs:
            self.left.setdefault(tx.txid, []).append(moment)
            # Back to the mempool, until the node says that it did not take it.
            self.came.setdefault(tx.txid, []).append(moment)

    def left_between(self, txid, begin, end):
        times = self.left.get(txid, []) + self.restarts + self.unknown
        return any(begin - SLACK <= moment <= end + SLACK for moment in times)

    def came_before(self, txid, end):
        return any(
            moment <= end + SLACK
            for moment in self.came.get(txid, []) + self.restarts + self.unknown
        )
