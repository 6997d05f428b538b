"""A test of one's own program against a node and satwatch of its own: pip install pytest, then

    SATWATCH_KIT=path/to/satwatch/regtest pytest test_payment.py

Put the fixture into a conftest.py. Each test gets an address of its own, so they do not meet.
"""

import json
import os
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
KIT = Path(os.environ.get("SATWATCH_KIT", HERE.parent.parent / "regtest"))


class Satwatch:
    """A running daemon, and the wallet of its node."""

    def __init__(self, kit):
        self.url = kit["url"]
        self._cli = kit["cli"]

    def cli(self, *arguments):
        """What bitcoin-cli says."""
        command = [*self._cli, *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def ask(self, path, body=None):
        """A request to the daemon: GET, or POST with a body."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def watched_address(self):
        """A new address that is watched, and the cursor behind which its payments come."""
        address = self.cli("getnewaddress")
        return address, self.ask("/add_address", {"address": address})["cursor"]

    def wait_for(self, event, address, cursor):
        """The next event of this name about the address, and its cursor."""
        while True:
            query = urllib.parse.urlencode({"address": address, "after": cursor, "wait": 30})
            page = self.ask(f"/events?{query}")
            assert page["events"], f"no {event} for {address} within 30 seconds"
            for entry in page["events"]:
                if entry["event"] == event:
                    return entry["data"], entry["cursor"]
            cursor = page["next"]


@pytest.fixture(scope="session")
def satwatch():
    binary = os.environ.get("SATWATCH_BIN")
    command = [KIT / "up.sh", "--detach", "--json", *(["--bin", binary] if binary else [])]
    up = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    kit = json.loads(up.stdout)
    yield Satwatch(kit)
    subprocess.run(kit["down"], check=True)


def test_a_payment_is_seen_and_confirmed(satwatch):
    address, cursor = satwatch.watched_address()
    txid = satwatch.cli("sendtoaddress", address, "0.001")
    seen, cursor = satwatch.wait_for("new_transactions", address, cursor)
    assert seen["transactions"][0]["txid"] == txid
    satwatch.cli("-generate", 1)
    confirmed, _ = satwatch.wait_for("transaction_update", address, cursor)
    assert confirmed["status"] == "confirmed"
    assert satwatch.ask(f"/balance/{address}")["balance"] == 100_000
