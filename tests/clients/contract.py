"""The contracts of a daemon, and what it said, beside each other.

    python contract.py FILE

FILE is JSON: the documents "openapi" and "asyncapi", and "cases": what was said ("value"), and
which document and schema it is to agree with. Ends with 1 and the differences if there are any.

A field that no schema has is a difference, although the documents allow it: tomorrow's daemon may
say more, today's may not.
"""

import json
import sys

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator


def closed(schema, inside=False):
    """Nothing beside what it names. `inside`: it is a part of one that is closed as a whole."""
    if isinstance(schema, list):
        return [closed(part, inside) for part in schema]
    if not isinstance(schema, dict):
        return schema
    is_object = "properties" in schema
    parts = ("anyOf", "oneOf", "allOf")
    shut = {
        name: closed(value, name in parts and (is_object or inside))
        for name, value in schema.items()
    }
    if is_object and not inside:
        shut.setdefault("unevaluatedProperties", False)
    return shut


def main():
    with open(sys.argv[1]) as file:
        given = json.load(file)
    faults = [
        f"openapi: {error.message}"
        for error in OpenAPIV31SpecValidator(given["openapi"]).iter_errors()
    ]
    shapes = {
        name: {key: closed(schema) for key, schema in given[name]["components"]["schemas"].items()}
        for name in ("openapi", "asyncapi")
    }
    for case in given["cases"]:
        schema = {**closed(case["schema"]), "components": {"schemas": shapes[case["document"]]}}
        for error in Draft202012Validator(schema).iter_errors(case["value"]):
            faults.append(f"{case['what']}: {error.json_path}: {error.message[:300]}")
    for fault in faults:
        print(fault)
    print(f"{len(given['cases'])} values, {len(faults)} faults")
    sys.exit(1 if faults else 0)


main()
