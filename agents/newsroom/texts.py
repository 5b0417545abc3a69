"""What the handlers of the newsroom share: the text that a task is about, and how they end.

No agent itself: nightcrew passes over directories in agents/. Those that import this say so by `reload_on`, so
that a change here restarts them.
"""

import collections
import datetime
import hashlib
import json
import os
import stat
import sys

# What an exit code makes of the task (sysexits): see README, "exit code of a handler".
FAILED, DATAERR, NOINPUT, TEMPFAIL = 1, 65, 66, 75

BYTES_MAX = 4 * 1024 * 1024

# file: its path in the crew. content: the SHA-256 of the text. changed: when, as RFC 3339.
Text = collections.namedtuple("Text", "file name text content changed")


def stop(code, why):
    """Ends the run: the code decides what becomes of the task, what was said lands in the log."""
    print(why, file=sys.stderr)
    sys.exit(code)


def payload():
    """The payload of the task, from standard input."""
    try:
        return json.load(sys.stdin)
    except (ValueError, RecursionError) as error:
        stop(DATAERR, f"the payload is not JSON: {error}")


def hand_in(result):
    """Writes the result. It counts once this run has ended with 0; until then it may be half."""
    with open(os.environ["NIGHTCREW_OUTPUT"], "w", encoding="utf-8") as output:
        json.dump(result, output)


def wanted():
    """The text that the payload of the task names."""
    task = payload()
    file = task.get("file") if isinstance(task, dict) else None
    title = task.get("title", "") if isinstance(task, dict) else None
    if not isinstance(file, str) or not isinstance(title, str) or not is_text(file + title):
        stop(DATAERR, 'the payload should be {"file":"inbox/NAME","title":"…"}')
    text, changed = read(os.environ["NIGHTCREW_DIR"], file)
    if not text.strip():
        stop(NOINPUT, f"{file} is empty: nothing to do")
    content = hashlib.sha256(text.encode()).hexdigest()
    return Text(file, title or file.partition("/")[2], text, content, changed)


def is_text(string):
    """False for what JSON can hold but UTF-8 cannot: half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in string)


def read(crew, file):
    """The text and when it was last changed. Whoever filled in the payload is not trusted with a path."""
    folder, slash, name = file.partition("/")
    if folder != "inbox" or not slash or not name or "/" in name or name.startswith("."):
        stop(DATAERR, f"{file!r} is not a file in inbox/")
    try:
        # No symlink is followed, and a FIFO does not block.
        handle = os.open(os.path.join(crew, "inbox", name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        stop(NOINPUT, f"{file} is gone: nothing to do")
    except (OSError, ValueError) as error:
        stop(DATAERR, f"{file}: {error}")
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        stop(DATAERR, f"{file}: not a regular file")
    with open(handle, "rb") as source:
        data = source.read(BYTES_MAX + 1)
    if len(data) > BYTES_MAX:
        stop(DATAERR, f"{file}: more than {BYTES_MAX} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        stop(DATAERR, f"{file}: not UTF-8 text: {error}")
    if "\0" in text:
        stop(DATAERR, f"{file}: holds NUL bytes, so it is no text")
    changed = datetime.datetime.fromtimestamp(int(status.st_mtime), datetime.timezone.utc)
    return text.replace("\r\n", "\n"), changed.isoformat().replace("+00:00", "Z")
