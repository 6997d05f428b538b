"""The daemon under test, and requests to it."""

import http.client
import json
import os
import re
import time

from process import Failure, Process, free_port, wait_until


class Daemon:
    def __init__(self, program, folder, settings, command="run"):
        """`settings`: named as in settings.toml."""
        self.program, self.folder, self.command = program, folder, command
        self.settings = {
            "server.listen": f"127.0.0.1:{free_port()}",
            "store.path": str(folder / "store"),
            "log.level": "debug",
            **settings,
        }
        self.process, self.port, self.connection, self.starts = None, None, None, 0
        """Times at which it was ended, started or frozen: what was under way then may be done
        again.
        """
        self.moments = []
        folder.mkdir(parents=True)

    def start(self):
        self.launch()
        self.port = int(wait_until("the daemon listens", self.listens)[1])

    def launch(self):
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SATWATCH")
        }
        for name, value in self.settings.items():
            environment["SATWATCH__" + name.replace(".", "__").upper()] = value
        self.starts += 1
        self.moments.append(time.time())
        log = self.folder / f"log.{self.starts:03}"
        # Its folder has no settings.toml, so the other settings are the built-in ones.
        self.process = Process([str(self.program), self.command], log, environment, self.folder)

    def listens(self):
        log = self.folder / f"log.{self.starts:03}"
        said = re.search(
            r"listening on http://127\.0\.0\.1:(\d+)\D", log.read_text(errors="replace")
        )
        if said is None and not self.process.runs():
            raise Failure(
                f"the daemon ended at its start with {self.process.child.returncode}; see {log}"
            )
        return said

    @property
    def up(self):
        return self.process is not None

    def kill(self):
        self._ended(self.process.kill)

    def terminate(self):
        """As an operator does: it must end with 0."""
        code = self._ended(lambda: self.process.ask_to_end(20))
        if code != 0:
            raise Failure(f"SIGTERM ended the daemon with {code}")

    def _ended(self, end):
        if not self.process.runs():
            raise Failure(
                f"the daemon ended by itself with {self.process.child.returncode}; see its log.{self.starts:03}"
            )
        code = end()
        self.forget()
        return code

    def forget(self):
        """Its process has ended."""
        self.moments.append(time.time())
        if self.connection:
            self.connection.close()
        self.process = self.connection = None

    def request(self, method, path, body=None):
        """The status and the body, as it is."""
        if not self.process.runs():
            raise Failure(
                f"the daemon ended by itself with {self.process.child.returncode}; see its log.{self.starts:03}"
            )
        headers = {"Content-Type": "application/json"} if body is not None else {}
        for last in (False, True):
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            try:
                self.connection.request(
                    method, path, json.dumps(body) if body is not None else None, headers
                )
                answer = self.connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException) as cause:
                self.connection.close()
                self.connection = None
                if last:
                    raise Failure(f"{method} {path}: {cause}") from cause

    def ready(self):
        try:
            return self.request("GET", "/health/ready")[0] == 200
        except Failure:
            # An edge that begins anew does not listen meanwhile.
            if not self.process.runs():
                raise
            return False

    def get(self, path):
        return self._json("GET", path, None)

    def post(self, path, body):
        return self._json("POST", path, body)

    def text(self, path):
        """The body of the answer to a GET, as it came."""
        return self._text("GET", path, None)

    def _json(self, method, path, body):
        return json.loads(self._text(method, path, body))

    def _text(self, method, path, body):
        status, text = self.request(method, path, body)
        if status not in (200, 201, 202):
            raise Failure(f"{method} {path} {body or ''}: {status} {text.decode(errors='replace')}")
        return text.decode()
