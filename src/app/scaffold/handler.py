#!/usr/bin/env python3
# /// agent
# about = "@NAME@: say in one line what it does"
# handles = ["@KIND@"]
# timeout = "10m"
# ///
"""One process a task. Its payload is on standard input; its result goes to $NIGHTCREW_OUTPUT.

Exit 0: done. 75: not now, try later. 65: the payload is bad, do not retry. Any other: failed, retried.
"""
import json
import os
import sys

try:
    payload = json.load(sys.stdin)
except ValueError as error:
    print(f"the payload is no JSON: {error}", file=sys.stderr)
    sys.exit(65)

# The work goes here. What is printed is in `nightcrew logs @NAME@`.
print("handling a task of kind @KIND@")
result = {"received": payload}

with open(os.environ["NIGHTCREW_OUTPUT"], "w", encoding="utf-8") as output:
    json.dump(result, output)
