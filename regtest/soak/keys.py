"""Keys and addresses from the seed, and signatures (which the node makes, with
`signrawtransactionwithkey`).
"""

import hashlib
from dataclasses import dataclass
from decimal import Decimal

from transaction import COIN, sha256d, tx_of, unsigned

DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
KINDS = ("wpkh({})", "sh(wpkh({}))", "pkh({})", "rawtr({})", "wsh(pkh({}))", "sh(pkh({}))")


def private_key(seed, index):
    return import_format(hashlib.sha256(f"satwatch soak {seed} {index}".encode()).digest())


def import_format(secret):
    """Regtest's, of a compressed key."""
    return base58check(b"\xef" + secret + b"\x01")


def base58check(data):
    """`data` does not begin with a zero byte."""
    data += sha256d(data)[:4]
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = DIGITS[digit] + text
    return text


@dataclass(frozen=True)
class Address:
    text: str
    kind: str
    script: bytes
    key: str
    """What `prevtxs` of signrawtransactionwithkey wants besides: redeemScript or witnessScript."""
    inner: tuple
    """The script that is the bare key, of which no address is told."""
    bare: bytes


class Keys:
    def __init__(self, node, seed):
        self.node, self.seed = node, seed
        self.used = 0
        self.by_script = {}

    def make(self, kinds):
        """One address of each kind in `kinds`, each with a key of its own."""
        keys = [private_key(self.seed, self.used + i) for i in range(len(kinds))]
        self.used += len(kinds)
        return self.of(keys, kinds)

    def of(self, keys, kinds):
        """The address of each key, of its kind."""
        plain = [
            self.derive([form.format(key) for key in keys]) for form in ("pkh({})", "wpkh({})")
        ]
        public = [
            found["descriptor"]
            for found in self.node.batch([("getdescriptorinfo", f"pkh({key})") for key in keys])
        ]
        outer = self.derive([kind.format(key) for kind, key in zip(kinds, keys)])
        made = []
        for i, kind in enumerate(kinds):
            inner = ()
            if kind == "sh(wpkh({}))":
                inner = (("redeemScript", plain[1][i][1]),)
            elif kind == "sh(pkh({}))":
                inner = (("redeemScript", plain[0][i][1]),)
            elif kind == "wsh(pkh({}))":
                inner = (("witnessScript", plain[0][i][1]),)
            bare = bytes.fromhex("21" + public[i][4:70] + "ac")
            address = Address(outer[i][0], kind, bytes.fromhex(outer[i][1]), keys[i], inner, bare)
            self.by_script[address.script] = address
            made.append(address)
        return made

    def derive(self, descriptors):
        """(address, script) of each."""
        public = [
            found["descriptor"]
            for found in self.node.batch([("getdescriptorinfo", text) for text in descriptors])
        ]
        texts = [
            found[0] for found in self.node.batch([("deriveaddresses", text) for text in public])
        ]
        scripts = [
            found["scriptPubKey"]
            for found in self.node.batch([("validateaddress", text) for text in texts])
        ]
        return list(zip(texts, scripts))

    def sign(self, inputs, outputs):
        """The whole transaction. `inputs`: (outpoint, coin), of addresses that were made here."""
        previous, keys = [], []
        for (txid, number), coin in inputs:
            address = self.by_script[coin.script]
            amount = str(Decimal(coin.value) / COIN)
            previous.append(
                {
                    "txid": txid,
                    "vout": number,
                    "scriptPubKey": coin.script.hex(),
                    "amount": amount,
                    **dict(address.inner),
                }
            )
            keys.append(address.key)
        raw = unsigned([outpoint for outpoint, _ in inputs], outputs)
        signed = self.node.rpc("signrawtransactionwithkey", raw.hex(), keys, previous)
        if not signed["complete"]:
            raise AssertionError(f"not signed: {signed}")
        return tx_of(bytes.fromhex(signed["hex"]))
