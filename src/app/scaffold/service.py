#!/usr/bin/env python3
# /// agent
# about = "@NAME@: say in one line what it does"
# heartbeat = "5m"
# ///
import datetime
import os
import signal
import threading

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
signal.signal(signal.SIGINT, lambda *_: stop.set())


def beat(progress):
    """Any change of this file is a sign of life; progress that rises says that something gets done."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    with open(os.environ["NIGHTCREW_HEARTBEAT"], "a", encoding="utf-8") as heartbeat:
        heartbeat.write(f"{now} progress={progress}\n")


progress = 0
while not stop.is_set():
    # The work of one round goes here. What is printed is in `nightcrew logs @NAME@`.
    progress += 1
    print(f"round {progress}")
    beat(progress)
    stop.wait(60)
