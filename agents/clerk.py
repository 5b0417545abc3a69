#!/usr/bin/env python3
# /// agent
# about = "Notes the facts of a text: title, keywords, length"
# handles = ["facts"]
# timeout = "1m"
# max_rss = "500M"
# reload_on = ["agents/newsroom/*.py"]
# ///
"""Notes what can be counted in one text. It goes on beside the editor, who may be slow; who publishes needs both."""

import re

from newsroom import luhn, texts

TITLE_LEN_MAX = 120
WORDS_PER_MINUTE = 230


def title_of(text, name):
    """The first heading, else a first line that could be one, else the file's name."""
    heading = re.search(r"^#\s+(.+?)\s*#*$", text, flags=re.M)
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if heading:
        return re.sub(r"[`*]+", "", heading.group(1))[:TITLE_LEN_MAX]
    if 2 < len(first) <= 80 and first[-1] not in ".,;:" and re.search(r"\w", first):
        return first
    return re.sub(r"\.(txt|text|md|markdown|rst)$", "", name, flags=re.I).strip()[:TITLE_LEN_MAX]


def main():
    found = texts.wanted()
    count = len(luhn.words(found.text))
    texts.hand_in(
        {
            "file": found.file,
            "content": found.content,
            "title": title_of(found.text, found.name),
            "keywords": luhn.keywords(found.text),
            "words": count,
            "minutes": max(1, round(count / WORDS_PER_MINUTE)),
            "changed": found.changed,
        }
    )
    print(f"noted {found.file}: {count} words")


if __name__ == "__main__":
    main()
