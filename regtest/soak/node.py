"""The regtest node, without a wallet: the soak keeps its own coins."""

import base64
import http.client
import json
from decimal import Decimal

from process import Failure, Process, free_port, wait_until
from transaction import COIN


class RpcError(Exception):
    def __init__(self, method, code, message):
        super().__init__(f"{method}: {message} ({code})")
        self.code, self.message = code, message


def satoshi(amount):
    return int(amount * COIN)


class Node:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        self.rpc_port, self.zmq_port = free_port(), free_port()
        self.process, self.connection, self.login = None, None, None
        folder.mkdir(parents=True)

    @property
    def cookie_file(self):
        return self.folder / "regtest" / ".cookie"

    def start(self, *extra):
        command = [
            self.program,
            f"-datadir={self.folder}",
            "-regtest",
            "-server",
            "-rest=1",
            "-listen=0",
            "-dnsseed=0",
            "-fixedseeds=0",
        ]
        command += [
            "-printtoconsole=0",
            "-dbcache=16",
            "-par=1",
            "-checkmempool=0",
            "-checkblockindex=0",
            "-disablewallet",
        ]
        command += [f"-rpcport={self.rpc_port}"]
        for topic in ("rawblock", "rawtx", "sequence"):
            command += [f"-zmqpub{topic}=tcp://127.0.0.1:{self.zmq_port}", f"-zmqpub{topic}hwm=0"]
        self.process = Process([*command, *extra], self.folder / "output")
        self.login = None
        wait_until("the node answers", self._answers)

    def _answers(self):
        if not self.process.runs():
            raise Failure(f"bitcoind ended at its start; see {self.folder}")
        try:
            self.rpc("getblockchaininfo")
            return self.rpc("getmempoolinfo")["loaded"]
        except (OSError, http.client.HTTPException, RpcError):
            return False

    def stop(self):
        self.rpc("stop")
        self._close()
        self.process.wait()

    def kill(self):
        self._close()
        self.process.kill()

    def _close(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    def _post(self, body):
        if self.login is None:
            self.login = base64.b64encode(self.cookie_file.read_bytes().strip()).decode()
        for last in (False, True):
            if self.connection is None:
                self.connection = http.client.HTTPConnection(
                    "127.0.0.1", self.rpc_port, timeout=120
                )
            try:
                self.connection.request("POST", "/", body, {"Authorization": f"Basic {self.login}"})
                answer = self.connection.getresponse()
                text = answer.read()
                break
            except (OSError, http.client.HTTPException):
                # The node closes a connection that was idle; nothing was run then.
                self._close()
                if last:
                    raise
        if answer.status == 401:
            self.login = None
            raise OSError("the cookie is old")
        try:
            return json.loads(text, parse_float=Decimal)
        except ValueError:
            raise OSError(f"HTTP {answer.status}: {text[:200]!r}") from None

    def rpc(self, method, *params):
        answer = self._post(
            json.dumps({"jsonrpc": "1.0", "id": 0, "method": method, "params": params})
        )
        if answer["error"]:
            raise RpcError(method, answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    def batch(self, calls):
        """The results of many calls (method, params...) in one request, in their order."""
        if not calls:
            return []
        body = [
            {"jsonrpc": "1.0", "id": i, "method": call[0], "params": call[1:]}
            for i, call in enumerate(calls)
        ]
        results = []
        for call, answer in zip(calls, self._post(json.dumps(body))):
            if answer["error"]:
                raise RpcError(call[0], answer["error"]["code"], answer["error"]["message"])
            results.append(answer["result"])
        return results
