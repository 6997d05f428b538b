"""Whether the checks of the crowd can fail: each client's file of a finished run, spoilt in every
way, must be found to be wrong.

python check_checks.py FOLDER       (of a run with --keep)
"""

import json
import pathlib
import random
import sys
import tempfile

from consumers import Consumer, ReadingCheck
from log_check import EventLog
from streams import Check, ReaderCheck

folder = pathlib.Path(sys.argv[1])
log = EventLog(None)
for line in (folder / "events").read_text().splitlines():
    place, event, text = line.split(" ", 2)
    cursor = json.loads(text)["cursor"]
    log._take(cursor, event, text)


def check_of(job, path):
    name = path.name
    if job["consumer"]:
        body = wants[job["consumer"]["name"]]
        consumer = Consumer("the consumer", log, body["addresses"], body["blocks"], body["wallets"])
        consumer.first = 0
        check = ReadingCheck(name, path, consumer, rival=True)
        check.missing = lambda: consumer.missing() if body["alone"] else []
        return check
    if "limit" in job:
        return ReaderCheck(name, path, log, job["addresses"] or None)
    groups = {group["name"]: group["addresses"] for group in job["groups"]}
    return Check(
        name,
        path,
        log,
        {**groups, **({"blocks": None} if job["blocks"] else {})},
        picky=job["random"] is None,
    )


def is_found(job, records):
    with tempfile.NamedTemporaryFile("w", suffix=".heard") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))
        file.flush()
        check = check_of(job, pathlib.Path(file.name))
        check.read()
        return check.wrong + check.missing()


def without(records, at):
    return records[:at] + records[at + 1 :]


def twice(records, at):
    return records[: at + 1] + records[at:]


def altered(records, at):
    return (
        records[:at]
        + [{**records[at], "raw": records[at]["raw"].replace('"cursor"', '"cursor" ', 1)}]
        + records[at + 1 :]
    )


def renamed(records, at):
    return (
        records[:at]
        + [{**records[at], "name": "block" if records[at]["name"] != "block" else "reorg"}]
        + records[at + 1 :]
    )


def swapped(records, at):
    other = next(
        n
        for n in range(at + 1, len(records))
        if records[n]["r"] == "event" and records[n].get("group") == records[at].get("group")
    )
    made = list(records)
    made[at], made[other] = made[other], made[at]
    return made


wants = json.loads((folder / "clients" / "consumers").read_text())
missed = tried = 0
for path in sorted((folder / "clients").glob("*.heard")):
    job = json.loads(path.with_suffix(".job").read_text())
    records = [json.loads(line) for line in path.read_text().splitlines()]
    found = is_found(job, records)
    if found:
        print(f"{path.name}: is wrong as it is: {found[0][:200]}")
        missed += 1
    # Followed by another one: that a connection told too little before it ended shows only in what
    # comes later.
    kinds = [(record["r"], record.get("group")) for record in records]
    events = [
        at
        for at in range(len(records) - 1)
        if kinds[at][0] == "event" and kinds[at] == kinds[at + 1]
    ]
    choice = random.Random(path.name)
    for spoil in (without, twice, altered, renamed, swapped):
        # The last events have none to be swapped with.
        for at in choice.sample(events[: len(events) * 3 // 4], 4):
            tried += 1
            if not is_found(job, spoil(records, at)):
                missed += 1
                print(
                    f"{path.name}: {spoil.__name__} {at} is not found: {json.dumps(records[at])[:300]}"
                )
print(f"{tried} files spoilt, {missed} not found")
sys.exit(bool(missed or not tried))
