#!/usr/bin/env python3
# /// agent
# about = "Keeps the reading list in shared memory: what is published, under reading/list"
# heartbeat = "20s"
# max_rss = "200M"
# ///
"""Keeps reading/list in step with site/.

A service. Shared memory has one writer, the supervisor's steward, so the list is changed by asking: one
merge (RFC 7396) that holds only what differs, and null for what is gone. Asking twice changes nothing, so
nothing has to be remembered here, and after any crash the first look puts things right.
"""

import datetime
import json
import os
import re
import subprocess
import time

NOINPUT = 66  # what `nightcrew recall` ends with where there is no value

KEY = "reading/list"
LOOK_SECONDS = 1
BEAT_SECONDS = 5
COMMAND_SECONDS_MAX = 30
# An update may hold 1 MiB. What does not fit into this many entries goes into the next one.
ENTRIES_PER_UPDATE = 500


def beat(progress, note):
    """A sign of life, and of progress. Appended: the file is never replaced."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    with open(os.environ["NIGHTCREW_HEARTBEAT"], "a", encoding="utf-8") as heartbeat:
        heartbeat.write(f'{now} progress={progress} note="{note}"\n')


def published(site):
    """The reading list as it should be: by page, its title and how long the text takes."""
    reading = {}
    for name in sorted(os.listdir(site)):
        if not re.fullmatch(r"[a-z0-9-]+\.json", name):
            continue
        try:
            with open(os.path.join(site, name), encoding="utf-8") as source:
                article = json.load(source)
            entry = {"title": article["title"], "minutes": article["minutes"], "page": f"site/{name[:-5]}.html"}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            print(f"left out: site/{name}: {error!r}", flush=True)
            continue
        reading[name[:-5]] = entry
    return reading


def remembered():
    """The list as shared memory has it; an empty one if there is none yet."""
    recalled = subprocess.run(["nightcrew", "recall", KEY], stdout=subprocess.PIPE, timeout=COMMAND_SECONDS_MAX)
    if recalled.returncode == NOINPUT:
        return {}
    recalled.check_returncode()
    value = json.loads(recalled.stdout)
    if not isinstance(value, dict):
        raise ValueError(f"{KEY} holds no list of pages: `nightcrew remember set {KEY} {{}}` begins a new one")
    return value


def difference(have, want):
    """The merge that makes `want` of `have`."""
    patch = {slug: entry for slug, entry in want.items() if have.get(slug) != entry}
    patch.update({slug: None for slug in have if slug not in want})
    return dict(sorted(patch.items())[:ENTRIES_PER_UPDATE])


def keep(site):
    """Brings shared memory up to date; gives how many entries were changed."""
    patch = difference(remembered(), published(site))
    if patch:
        # --wait returns once the steward has applied it, so the next look compares with the new list.
        subprocess.run(
            ["nightcrew", "remember", "--wait", "merge", KEY, "-"],
            input=json.dumps(patch).encode(),
            stdout=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS_MAX,
            check=True,
        )
        print(f"reading list: {', '.join(patch)}", flush=True)
    return len(patch)


def main():
    site = os.path.join(os.environ["NIGHTCREW_DIR"], "site")
    os.makedirs(site, exist_ok=True)
    seen, changes, beaten = None, 0, None
    # A TERM ends the process at once, wherever it is: it holds nothing that could be left half.
    while True:
        # Every page is renamed into place, which changes the directory: one stat(2) a look at rest.
        look = os.stat(site).st_mtime_ns
        if look != seen:
            try:
                changed = keep(site)
                changes += changed
                seen = look if changed < ENTRIES_PER_UPDATE else None
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                # The supervisor may be busy or being replaced: the next look tries again, and beats tell of it.
                print(f"not remembered yet: {error}", flush=True)
        if beaten is None or time.monotonic() - beaten >= BEAT_SECONDS:
            beat(changes, f"{changes} changes of {KEY}")
            beaten = time.monotonic()
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main()
