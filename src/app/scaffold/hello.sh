#!/bin/sh
# /// agent
# about = "A first agent: says hello once a minute"
# heartbeat = "5m"
# ///
set -eu
# Without this, a shell would finish its sleep before it stops.
trap 'exit 0' TERM INT

count=0
while :; do
    count=$((count + 1))
    echo "hello number $count from $NIGHTCREW_AGENT"
    # Any change of this file is a sign of life; progress that rises says that something gets done.
    echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) progress=$count" >>"$NIGHTCREW_HEARTBEAT"
    sleep 60 &
    wait $!
done
