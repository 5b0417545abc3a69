#!/usr/bin/env python3
# /// agent
# about = "Summarises a text, by the command in $NEWSROOM_LLM if there is one"
# handles = ["edit"]
# concurrency = 2
# timeout = "5m"
# max_rss = "500M"
# pass_env = ["NEWSROOM_LLM"]
# reload_on = ["agents/newsroom/*.py"]
# gate = "article"
# fallback = "excerpt"
# ///
"""Summarises one text.

A handler: one process a task, the payload on standard input, the result in $NIGHTCREW_OUTPUT, the exit code
(sysexits) saying how it went. If $NEWSROOM_LLM holds a command, that command gets the text on its standard input
and what it prints is the summary, which gates/article judges before anybody reads it. Otherwise sentences of the
text are chosen, and cost nothing.

The command costs money, so it is a step: what it answered for this text is recorded before it is used, and a retry,
a crash or a replay finds it there.
"""

import hashlib
import os
import re
import subprocess

from newsroom import luhn, texts

# How the command is asked. No answer is none to keep: the step records what ends with 0.
ASK = 'answer=$(timeout -k 5 180 sh -c "$NEWSROOM_LLM") && [ -n "$answer" ] && printf "%s\\n" "$answer"'


def ask(command, found):
    """The summary that the operator's command makes of the text, as paragraphs. Paid for once."""
    # Another command, such as one with a better prompt, is to be asked anew. The key is kept for people to read, and
    # a command may hold a secret: so its hash.
    key = f"{found.content} {hashlib.sha256(os.fsencode(command)).hexdigest()[:16]}"
    step = ["nightcrew", "step", "summary", "--key", key, "--", "sh", "-c", ASK]
    asked = subprocess.run(step, input=found.text.encode(), stdout=subprocess.PIPE)
    if asked.returncode == texts.TEMPFAIL:
        texts.stop(texts.TEMPFAIL, "not asked now: the crew is halted, or the command said 75")
    if asked.returncode != 0:
        # A failure, and not 69 (UNAVAILABLE), by which the task would wait without one being counted, for as long as
        # an hour and a half. Here plain beats late: failures that are counted are what lets the fallback act.
        texts.stop(texts.FAILED, f"$NEWSROOM_LLM gave no answer: exit {asked.returncode}")
    answer = asked.stdout.decode("utf-8", "replace").replace("\0", "").strip()
    return [part.strip() for part in re.split(r"\n\s*\n", answer) if part.strip()]


def main():
    found = texts.wanted()
    command = os.environ.get("NEWSROOM_LLM", "").strip()
    texts.hand_in(
        {
            "file": found.file,
            "content": found.content,
            "sources": [found.file],
            "summary": ask(command, found) if command else luhn.abstract(found.text),
            "method": "command" if command else "luhn",
        }
    )
    print(f"edited {found.file}")


if __name__ == "__main__":
    main()
