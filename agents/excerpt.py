#!/usr/bin/env python3
# /// agent
# about = "Takes the editor's tasks while that keeps failing: better plain than silent"
# handles = ["excerpt"]
# timeout = "1m"
# max_rss = "500M"
# reload_on = ["agents/newsroom/*.py"]
# gate = "article"
# ///
"""Summarises one text by sentences of its own, which needs nobody and costs nothing.

The editor names this agent as its `fallback`: after three failures in a row, of more than one text, it gets the
editor's tasks for ten minutes, $NIGHTCREW_MODE being "fallback". What it makes passes the same gate.
"""

import os

from newsroom import luhn, texts


def main():
    found = texts.wanted()
    texts.hand_in(
        {
            "file": found.file,
            "content": found.content,
            "sources": [found.file],
            "summary": luhn.abstract(found.text),
            "method": "excerpt",
        }
    )
    mode = os.environ.get("NIGHTCREW_MODE", "normal")
    print(f"made an excerpt of {found.file} (mode {mode})")


if __name__ == "__main__":
    main()
