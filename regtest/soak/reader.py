"""A client of the soak that reads `GET /events` with long polling: writes all that it gets to a
file, and goes on from the end of that.

python reader.py JOB       (JSON: see clients.py, which checks the file)
"""

import http.client
import json
import sys
import time

from wire import Records, entries_of

PAUSE = 0.2


class Reader:
    def __init__(self, job):
        self.job, self.records = job, Records(job["out"])
        self.group, self.after = job["groups"][0] if job["groups"] else None, None
        for record in self.records.known:
            self._take(record)
        self.records.write({"r": "start"})
        self.connection = None

    def _take(self, record):
        if record["r"] in ("event", "caught_up"):
            self.after = record["cursor"]

    def ask(self, method, path, body=None):
        if self.connection is None:
            host, port = self.job["url"].removeprefix("http://").split(":")
            self.connection = http.client.HTTPConnection(host, int(port), timeout=60)
        headers = {"Content-Type": "application/json"} if body else {}
        self.connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read().decode()

    def path(self):
        path = f"/events?limit={self.job['limit']}&wait=10"
        if self.job["consumer"]:
            return path + f"&consumer={self.job['consumer']['name']}"
        path += "".join(f"&address={address}" for address in self.job["addresses"])
        return path + (f"&after={self.after}" if self.after else "")

    def page(self):
        status, text = self.ask("GET", self.path())
        if status != 200:
            refusal = json.loads(text) if status != 503 else {"code": "stopping"}
            # An address that is forgotten is added again soon.
            if status != 503 and refusal["code"] != "not_watched":
                self.records.write({"r": "error", "status": status, **refusal})
            return time.sleep(PAUSE)
        entries, rest = entries_of(text)
        name = self.job["consumer"]["name"] if self.job["consumer"] else "log"
        records = [
            {"r": "event", "group": name, "name": event, "cursor": cursor, "raw": raw}
            for cursor, event, raw in entries
        ]
        records.append({"r": "caught_up", "group": name, "cursor": rest["next"]})
        if self.job["consumer"]:
            records.insert(0, {"r": "page"})
        self.records.write(*records)
        for record in records:
            self._take(record)
        if self.job["consumer"] and entries:
            self.acknowledge(entries[len(entries) * 2 // 3][0])
        return None

    def acknowledge(self, cursor):
        self.records.write({"r": "ack", "cursor": cursor})
        status, text = self.ask(
            "POST", f"/consumers/{self.job['consumer']['name']}/ack", {"cursor": cursor}
        )
        self.records.write({"r": "acked", "asked": cursor, "status": status, **json.loads(text)})

    def run(self):
        while True:
            try:
                self.page()
            except (OSError, http.client.HTTPException):
                self.connection = None
                time.sleep(PAUSE)


with open(sys.argv[1], encoding="utf-8") as file:
    Reader(json.load(file)).run()
