#!/usr/bin/env python3
"""Receives webhooks of satwatch and prints each event as one JSON line.

    pip install -r requirements.txt
    WEBHOOK_SECRET=whsec_... python webhook.py 8080

The secret is in the answer of PUT /consumers/{name} that made it. While a secret is
changed ("secrets" of PUT) both sign, so a receiver with either goes on. POST /consumers/{name}/test
sends the event "test", with an id that never comes again. Answer 410 to get nothing more until
POST /consumers/{name}/retry.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from satwatch import webhook
from standardwebhooks import WebhookVerificationError

if not os.environ.get("WEBHOOK_SECRET"):
    print(
        "WEBHOOK_SECRET is not set: it is in the answer of PUT /consumers/{name}.", file=sys.stderr
    )
    sys.exit(2)
verify = webhook(os.environ["WEBHOOK_SECRET"])
# The same event may come twice, always with the same id. A shop keeps these in its database, in the
# transaction that does the work.
# (A store put back from a copy sends payments again under new ids: book by address+txid, too.)
done: set[str] = set()
# Of a body, in bytes.
LARGEST = 1024 * 1024


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 9 or int(length) > LARGEST:
            self.close_connection = True
            return self.answer(400, f"The body must have a length of at most {LARGEST} bytes.")
        body = self.rfile.read(int(length))
        try:
            message = verify(body, dict(self.headers))
        except WebhookVerificationError as error:
            return self.answer(400, str(error))
        if message["id"] not in done:
            sys.stdout.write(
                json.dumps({"event": message["event"], "data": message["data"]}) + "\n"
            )
            sys.stdout.flush()
            done.add(message["id"])
        # Only now: what is not answered with 2xx comes again.
        self.answer(200, "thank you")

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: WEBHOOK_SECRET=whsec_... python webhook.py PORT")
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    print(f"listening on port {server.server_port}", file=sys.stderr)
    server.serve_forever()
