#!/bin/sh
# /// agent
# about = "@NAME@: say in one line what it does"
# handles = ["@KIND@"]
# timeout = "10m"
# ///
# One process a task. Its payload is on standard input; its result goes to $NIGHTCREW_OUTPUT.
# Exit 0: done. 75: not now, try later. 65: the payload is bad, do not retry. Any other: failed, retried.
set -eu

payload=$(cat)
[ -n "$payload" ] || { echo "the payload is empty" >&2; exit 65; }

# The work goes here. What is printed is in `nightcrew logs @NAME@`.
echo "handling a task of kind @KIND@"
printf '%s\n' "$payload" >"$NIGHTCREW_OUTPUT"
