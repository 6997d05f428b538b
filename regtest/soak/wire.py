"""What comes from the daemon with its data as the bytes that came: entries of `GET /events`, events
of Socket.IO. And files of records that survive any kill of their writer.
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


def subject_of(data):
    """The address that an event is about, or the wallet; None for a block and a reorg."""
    return data.get("address") or data.get("descriptor_id")


class Told(dict):
    """The data of an event, with its text as it came."""

    text = None


class Json:
    """The `json` that python-socketio is given: the standard one, which keeps the text too."""

    dumps = staticmethod(json.dumps)

    @staticmethod
    def loads(text):
        parsed = json.loads(text)
        if isinstance(parsed, list) and len(parsed) > 1 and isinstance(parsed[1], dict):
            parsed[1] = Told(parsed[1])
            parsed[1].text = text[text.index(",") + 1 : -1]
        return parsed


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
