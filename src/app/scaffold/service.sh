#!/bin/sh
# /// agent
# about = "@NAME@: say in one line what it does"
# heartbeat = "5m"
# ///
set -eu
# Without this, a shell would finish its sleep before it stops.
trap 'exit 0' TERM INT

progress=0
while :; do
    # The work of one round goes here. What is printed is in `nightcrew logs @NAME@`.
    progress=$((progress + 1))
    echo "round $progress"
    # Any change of this file is a sign of life; progress that rises says that something gets done.
    echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) progress=$progress" >>"$NIGHTCREW_HEARTBEAT"
    sleep 60 &
    wait $!
done
