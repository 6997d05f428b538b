"""Entries of `GET /events` with their data as the bytes that came, and files of records that
survive any kill of their writer.
"""

import json
import os

_DECODER = json.JSONDecoder()


def entries_of(text):
    """Each entry of the answer as (cursor, event, data as it stands there), and the answer without
    them.
    """
    found, place = [], text.index("[") + 1
    while text[place] != "]":
        # {"cursor":"…","event":"…","data":…}: the order in which the daemon writes them.
        place = text.index(":", place) + 1
        cursor, place = _DECODER.raw_decode(text, place)
        place = text.index(":", place) + 1
        event, place = _DECODER.raw_decode(text, place)
        begin = text.index(":", place) + 1
        _, place = _DECODER.raw_decode(text, begin)
        found.append((cursor, event, text[begin:place]))
        # Behind the data comes `}`, and a comma if there is another one.
        place += 2 if text[place + 1] == "," else 1
    return found, json.loads('{"events":[' + text[place:])


def number(cursor):
    return int(cursor.rsplit("-", 1)[1])


class Records:
    """JSON lines, each there as soon as it is written. A writer that was killed may leave half a
    line, which is taken away.
    """

    def __init__(self, path):
        self.known = []
        if os.path.exists(path):
            with open(path, "rb+") as file:
                text = file.read()
                whole = text.rfind(b"\n") + 1
                file.truncate(whole)
            self.known = [json.loads(line) for line in text[:whole].splitlines()]
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, *records):
        text = "".join(json.dumps(record) + "\n" for record in records).encode()
        while text:
            text = text[os.write(self.file, text) :]
