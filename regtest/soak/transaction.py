"""Transactions and blocks as bytes: read, written and hashed here, independently of what the node
or the daemon say of them.
"""

import hashlib
import io
import struct
from dataclasses import dataclass

COIN = 100_000_000
NULL_TXID = "00" * 32


def sha256d(data):
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def display(digest):
    """A hash as bitcoind prints it."""
    return digest[::-1].hex()


def size(number):
    """A compact size."""
    if number < 0xFD:
        return bytes([number])
    if number <= 0xFFFF:
        return b"\xfd" + struct.pack("<H", number)
    return b"\xfe" + struct.pack("<I", number)


def push(data):
    """A script that pushes up to 75 bytes."""
    assert len(data) <= 75
    return bytes([len(data)]) + data


def _read_size(stream):
    first = stream.read(1)[0]
    if first < 0xFD:
        return first
    width = {0xFD: "<H", 0xFE: "<I", 0xFF: "<Q"}[first]
    return struct.unpack(width, stream.read(struct.calcsize(width)))[0]


@dataclass(frozen=True)
class Tx:
    """`inputs`: outpoints (txid, number); `outputs`: (satoshi, script)."""

    txid: str
    inputs: tuple
    outputs: tuple
    raw: bytes

    @property
    def coinbase(self):
        return self.inputs[0][0] == NULL_TXID

    @property
    def weight(self):
        return len(
            self.raw
        )  # The whole size, more than the virtual one: only fees are reckoned with it.


@dataclass(frozen=True)
class Block:
    hash: str
    previous: str
    time: int
    txs: tuple


def read_tx(stream):
    begin = stream.tell()
    version = stream.read(4)
    witness = False
    count = _read_size(stream)
    if count == 0:
        assert stream.read(1) == b"\x01"
        witness = True
        count = _read_size(stream)
    body = stream.tell()
    inputs = []
    for _ in range(count):
        txid, number = display(stream.read(32)), struct.unpack("<I", stream.read(4))[0]
        stream.read(_read_size(stream))
        stream.read(4)
        inputs.append((txid, number))
    outputs = []
    for _ in range(_read_size(stream)):
        value = struct.unpack("<q", stream.read(8))[0]
        outputs.append((value, stream.read(_read_size(stream))))
    end = stream.tell()
    if witness:
        for _ in inputs:
            for _ in range(_read_size(stream)):
                stream.read(_read_size(stream))
    locktime = stream.read(4)
    whole = stream.getbuffer()
    stripped = version + size(len(inputs)) + bytes(whole[body:end]) + locktime
    return Tx(
        display(sha256d(stripped)),
        tuple(inputs),
        tuple(outputs),
        bytes(whole[begin : stream.tell()]),
    )


def tx_of(raw):
    return read_tx(io.BytesIO(raw))


def block_of(raw):
    stream = io.BytesIO(raw)
    header = stream.read(80)
    txs = tuple(read_tx(stream) for _ in range(_read_size(stream)))
    return Block(
        display(sha256d(header)), display(header[4:36]), struct.unpack("<I", header[68:72])[0], txs
    )


def unsigned(inputs, outputs):
    """A transaction without signatures that may be replaced."""
    raw = struct.pack("<i", 2) + size(len(inputs))
    for txid, number in inputs:
        raw += (
            bytes.fromhex(txid)[::-1]
            + struct.pack("<I", number)
            + b"\x00"
            + struct.pack("<I", 0xFFFFFFFD)
        )
    raw += size(len(outputs))
    for value, script in outputs:
        raw += struct.pack("<q", value) + size(len(script)) + script
    return raw + struct.pack("<I", 0)


def merkle_root(leaves):
    while len(leaves) > 1:
        if len(leaves) % 2:
            leaves = leaves + leaves[-1:]
        leaves = [sha256d(leaves[i] + leaves[i + 1]) for i in range(0, len(leaves), 2)]
    return leaves[0]


def coinbase(height, extra, value, script, commitment):
    """`extra` makes coinbases of equal height differ; with the same one they are the same."""
    width = (height.bit_length() + 8) // 8
    unlock = push(height.to_bytes(width, "little")) + push(struct.pack("<I", extra))
    raw = (
        struct.pack("<i", 2)
        + b"\x00\x01"
        + b"\x01"
        + bytes(32)
        + b"\xff\xff\xff\xff"
        + size(len(unlock))
        + unlock
        + b"\xff\xff\xff\xff"
    )
    raw += b"\x02" + struct.pack("<q", value) + size(len(script)) + script
    promise = b"\x6a\x24\xaa\x21\xa9\xed" + commitment
    raw += struct.pack("<q", 0) + size(len(promise)) + promise
    return tx_of(raw + b"\x01" + push(bytes(32)) + struct.pack("<I", 0))


def make_block(previous, height, time, txs, script, extra):
    """A mined regtest block. It claims the subsidy and leaves the fees."""
    root = merkle_root([bytes(32)] + [sha256d(tx.raw) for tx in txs])
    first = coinbase(
        height, extra, (50 * COIN) >> (height // 150), script, sha256d(root + bytes(32))
    )
    txs = (first, *txs)
    root = merkle_root([bytes.fromhex(tx.txid)[::-1] for tx in txs])
    head = (
        struct.pack("<i", 0x20000000)
        + bytes.fromhex(previous)[::-1]
        + root
        + struct.pack("<II", time, 0x207FFFFF)
    )
    nonce = 0
    while True:
        header = head + struct.pack("<I", nonce)
        digest = sha256d(header)
        if digest[31] < 0x7F:
            raw = header + size(len(txs)) + b"".join(tx.raw for tx in txs)
            return Block(display(digest), previous, time, txs), raw
        nonce += 1
