"""Wallets whose private keys are made from the seed (BIP 32), so that the soak can spend what they
own; the daemon gets the public descriptor.

What is paid stays within what the daemon has derived ahead: behind the highest index that was used
at the last checkpoint lie twenty of the window and at least a thousand more.
"""

import hashlib
import hmac

from keys import Address, base58check, import_format

P = 2**256 - 2**32 - 977
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
NAMES = ("external", "internal")
"""How far a payment may go beyond the highest used index, once between two checkpoints."""
JUMP = 700


def add(a, b):
    """Of two points of secp256k1; None is the neutral one."""
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def public_key(secret):
    point, power = None, G
    while secret:
        if secret & 1:
            point = add(point, power)
        power, secret = add(power, power), secret >> 1
    return bytes([2 + (point[1] & 1)]) + point[0].to_bytes(32, "big")


def child(secret, chain_code, public, index):
    """CKDpriv of BIP 32, not hardened: secret and chain code."""
    made = hmac.new(chain_code, public + index.to_bytes(4, "big"), hashlib.sha512).digest()
    return (int.from_bytes(made[:32], "big") + secret) % ORDER, made[32:]


class Wallet:
    """`keychains`: two, or the first one alone."""

    def __init__(self, world, name, kind, keychains=2):
        self.world, self.name, self.kind = world, name, kind
        root = hashlib.sha512(f"satwatch soak {world.seed} wallet {name}".encode()).digest()
        secret, chain_code = int.from_bytes(root[:32], "big") % ORDER, root[32:]
        public = public_key(secret)
        text = base58check(bytes.fromhex("043587cf") + bytes(9) + chain_code + public)
        self.text = kind.format(f"{text}/{'<0;1>' if keychains == 2 else '0'}/*")
        """Of each keychain: secret, chain code, public key, and the highest index that was used."""
        self.keychains = []
        for number in range(keychains):
            secret_of, chain_code_of = child(secret, chain_code, public, number)
            self.keychains.append((secret_of, chain_code_of, public_key(secret_of)))
        self.used = [-1] * keychains
        self.addresses = {}
        """Whether the daemon has it, and under which id; indexes that it gave away."""
        self.id, self.added, self.given = None, False, set()

    def first_keychain(self):
        """The one that has the first keychain of this one, and so shares its scripts."""
        other = Wallet(self.world, self.name, self.kind, 1)
        other.used, other.addresses = self.used, self.addresses
        return other

    def own(self):
        """Its addresses that were ever used, by keychain and index."""
        own = self.addresses.items()
        return {place: address for place, address in own if place[0] < len(self.keychains)}

    def scripts(self):
        return {address.script for address in self.own().values()}

    def address(self, keychain, index) -> Address:
        """The one with this index, which counts as used."""
        self.used[keychain] = max(self.used[keychain], index)
        if (keychain, index) not in self.addresses:
            secret, chain_code, public = self.keychains[keychain]
            key = import_format(child(secret, chain_code, public, index)[0].to_bytes(32, "big"))
            (made,) = self.world.keys.of([key], [self.kind])
            self.addresses[(keychain, index)] = made
        return self.addresses[(keychain, index)]

    def next_to_pay(self, random):
        """Mostly one that was used, or near; now and then far away."""
        keychain = random.randrange(len(self.keychains))
        top = self.used[keychain] + 1
        if random.random() < 0.02 and self not in self.world.jumped:
            self.world.jumped.append(self)
            return self.address(keychain, top + random.randrange(JUMP))
        return self.address(keychain, random.choice((random.randrange(top + 1), top, top + 3)))
