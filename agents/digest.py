#!/usr/bin/env python3
# /// agent
# about = "Every morning: what was published in the day before"
# schedule = "0 7 * * *"
# timeout = "1m"
# max_rss = "200M"
# ///
"""Writes site/digests/DATE.md: the pages that were published within the 24 hours before the slot it is fired for.

A job: nightcrew starts it at 07:00, in the time zone of nightcrew.toml or else of the host; and if nobody was there at
07:00, once when somebody is again. $NIGHTCREW_SLOT tells which morning it is fired for, so that a late digest is the
one that it would have been, and a second one for the same morning is the first again. `nightcrew start digest --now`
has none: then it tells of the last 24 hours.
"""

import datetime
import json
import os
import re
import sys

NOINPUT = 66
DAY = datetime.timedelta(days=1)


def until():
    """The end of the day that this digest is about."""
    slot = os.environ.get("NIGHTCREW_SLOT")
    if slot is None:
        return datetime.datetime.now(datetime.timezone.utc)
    # AGENT@2026-11-20T06:00Z
    return datetime.datetime.fromisoformat(slot.partition("@")[2].replace("Z", "+00:00"))


def published(site, since, end):
    """The articles published within this span, by their pages' names."""
    found = {}
    for entry in sorted(os.scandir(site), key=lambda entry: entry.name) if os.path.isdir(site) else []:
        if not re.fullmatch(r"[a-z0-9-]+\.json", entry.name):
            continue
        try:
            at = datetime.datetime.fromtimestamp(entry.stat().st_mtime, datetime.timezone.utc)
            with open(entry.path, encoding="utf-8") as source:
                article = json.load(source)
            if since <= at < end:
                found[entry.name[:-5]] = (article["title"], article["minutes"], " ".join(article["summary"][:1]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            print(f"left out: site/{entry.name}: {error!r}")
    return found


def plain(text):
    """A text on one line, its marks escaped."""
    return re.sub(r"([\\`*_\[\]<>])", r"\\\1", " ".join(text.split()))


def digest(date, pages):
    """The digest as Markdown. Nothing in a text is taken for a mark."""
    lines = [f"# Published until {date}", ""]
    for slug, (title, minutes, teaser) in pages.items():
        lines += [f"- [{plain(title)}](../{slug}.html), {minutes} min", f"  {plain(teaser)}".rstrip()]
    return "\n".join(lines) + "\n"


def main():
    site = os.path.join(os.environ["NIGHTCREW_DIR"], "site")
    end = until()
    pages = published(site, end - DAY, end)
    if not pages:
        print("nothing was published")
        sys.exit(NOINPUT)
    # The date by the clocks that the slot was meant for.
    date = end.astimezone().date().isoformat()
    os.makedirs(os.path.join(site, "digests"), exist_ok=True)
    path, temp = (os.path.join(site, "digests", name) for name in (f"{date}.md", f".{date}.tmp"))
    with open(temp, "w", encoding="utf-8", errors="replace") as target:
        target.write(digest(date, pages))
        target.flush()
        os.fsync(target.fileno())
    os.rename(temp, path)
    with open(os.environ["NIGHTCREW_OUTPUT"], "w", encoding="utf-8") as output:
        json.dump({"digest": f"site/digests/{date}.md", "pages": len(pages)}, output)
    print(f"site/digests/{date}.md: {len(pages)} pages")


if __name__ == "__main__":
    main()
