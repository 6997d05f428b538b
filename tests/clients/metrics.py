"""Reads the metrics of a daemon (its URL is the argument) with the parser of Prometheus' own client
and prints one line for each sample.
"""

import json
import sys
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

with urllib.request.urlopen(sys.argv[1] + "/metrics", timeout=60) as answer:
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8", (
        answer.headers["Content-Type"]
    )
    text = answer.read().decode()

for family in text_string_to_metric_families(text):
    assert family.documentation, f"{family.name} has no HELP"
    assert family.type in ("gauge", "counter", "histogram"), f"{family.name} is {family.type}"
    for sample in family.samples:
        data = {
            "name": sample.name,
            "type": family.type,
            "labels": sample.labels,
            "value": sample.value,
        }
        print(json.dumps({"event": "sample", "data": data}))
print(json.dumps({"event": "end", "data": {}}))
