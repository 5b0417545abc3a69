#!/usr/bin/env python3
# /// agent
# about = "Writes a summary of a text and hands it on for publishing"
# handles = ["edit"]
# concurrency = 2
# timeout = "5m"
# max_rss = "500M"
# pass_env = ["NEWSROOM_LLM"]
# ///
"""Edits one text: title, summary, keywords, reading time.

A handler: one process a task, the payload on standard input, the result in $NIGHTCREW_OUTPUT, the exit
code (sysexits) saying how it went. If $NEWSROOM_LLM holds a command, that command gets the text on its
standard input and its standard output is the summary. Otherwise the sentences are chosen as H. P. Luhn
did in "The Automatic Creation of Literature Abstracts" (IBM Journal of Research and Development 2(2),
1958): those in which frequent words stand close together.
"""

import collections
import datetime
import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys

DATAERR, NOINPUT, UNAVAILABLE, TEMPFAIL = 65, 66, 69, 75

BYTES_MAX = 4 * 1024 * 1024
SUMMARY_SENTENCES_MAX = 4
SUMMARY_LEN_MAX = 8000
TITLE_LEN_MAX = 120
KEYWORDS = 6
WORDS_PER_MINUTE = 230
LLM_SECONDS_MAX = 180
SUBMIT_SECONDS_MAX = 30

# Luhn's two limits: how far apart significant words may stand and still belong together, and how often a
# word must occur to be significant (grown slowly with the length of the text).
GAP_MAX = 4
SIGNIFICANT_SHARE = 0.0012

COMMON = set(
    """a about above after again all also although always am an and another any are as at be became because been
    before being below between both but by can cannot could did do does doing done down during each either else even
    ever every few for from further get had has have having he her here hers him his how however i if in into is it
    its itself just least less like made make makes many may me might more most much must my neither no nor not
    nothing now of off often on once one only or other otherwise our out over own per rather said same shall she should
    since so some still such than that the their them then there these they this those three through thus to too
    two under until up upon us use used uses using very was way we well were what when where whether which while who
    whole whom whose why will with within without would yet you your""".split()
)

SENTENCE_WORDS = range(6, 46)
SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"”')\]]))\s+(?=[\"“'(\[]?[A-ZÀ-ÖØ-Þ0-9])")
ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf|dr|mr|mrs|ms|prof|st|no|fig|sec|inc|ltd|approx|[a-z])\.$", re.I)


def stop(code, why):
    """Ends the run: the code decides what becomes of the task, the text lands in the log."""
    print(why, file=sys.stderr)
    sys.exit(code)


def is_text(string):
    """False for what JSON can hold but UTF-8 cannot: half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in string)


def read_text(crew, file):
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


def paragraphs(text):
    """Blocks of prose, each on one line: without fenced code, headings, tables and rules."""
    text = re.sub(r"^(```|~~~).*?^\1[^\n]*$", "", text, flags=re.S | re.M)
    for block in re.split(r"\n\s*\n", text):
        lines = [re.sub(r"^\s*(?:[-*+>]|\d+[.)]|\([a-z0-9]\))\s+", "", line) for line in block.splitlines()]
        prose = [line.strip() for line in lines if not re.match(r"\s*(#{1,6}\s|\||[-=*_~\s]{3,}$)", line)]
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(prose))
        plain = re.sub(r"[`*]+", "", plain)
        if plain:
            yield re.sub(r"\s+", " ", plain)


def sentences(text):
    """The sentences of the text, in order: those that look like one."""
    found = []
    for paragraph in paragraphs(text):
        begun = ""
        for part in SENTENCE_END.split(paragraph):
            begun = f"{begun} {part}".strip()
            if ABBREVIATION.search(begun):
                continue
            if len(begun.split()) in SENTENCE_WORDS and re.search(r"[.!?][\"”')\]]?$", begun):
                found.append(begun)
            begun = ""
    return found


def words(text):
    """The words of the text, in lower case."""
    return re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text.lower())


def significant(text):
    """The words that carry the text, with how often each occurs."""
    all_words = words(text)
    counts = collections.Counter(word for word in all_words if len(word) > 2 and word not in COMMON)
    at_least = max(2, round(len(all_words) * SIGNIFICANT_SHARE))
    return {word: count for word, count in counts.items() if count >= at_least}


def score(sentence, carrying):
    """Luhn's factor: for the best cluster, significant words squared over the words it spans."""
    places = [place for place, word in enumerate(words(sentence)) if word in carrying]
    best, first, count = 0.0, 0, 0
    for index, place in enumerate(places):
        if index == 0 or place - places[index - 1] > GAP_MAX:
            first, count = place, 0
        count += 1
        best = max(best, count * count / (place - first + 1))
    return best


def abstract(text):
    """The best sentences, in the order in which they stand."""
    carrying = significant(text)
    candidates = list(dict.fromkeys(sentences(text)))
    ranked = sorted(range(len(candidates)), key=lambda i: (-score(candidates[i], carrying), i))
    chosen = [candidates[i] for i in sorted(ranked[:SUMMARY_SENTENCES_MAX])]
    # A text without a sentence, such as a list, is summed up by how it begins.
    return chosen or [next(paragraphs(text), text.strip())[:400]]


def ask(command, text):
    """The summary that the operator's command makes of the text, as paragraphs."""
    process = subprocess.Popen(
        command, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        answer, _ = process.communicate(text.encode(), timeout=LLM_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        stop(UNAVAILABLE, f"$NEWSROOM_LLM gave no answer within {LLM_SECONDS_MAX} s: killed, to be tried later")
    if process.returncode != 0:
        stop(UNAVAILABLE, f"$NEWSROOM_LLM ended with {process.returncode}: to be tried later")
    summary = answer.decode("utf-8", "replace").replace("\0", "").strip()[:SUMMARY_LEN_MAX]
    if not summary:
        stop(UNAVAILABLE, "$NEWSROOM_LLM answered nothing: to be tried later")
    return [part.strip() for part in re.split(r"\n\s*\n", summary) if part.strip()]


def title_of(text, name):
    """The first heading, else a first line that could be one, else the file's name."""
    heading = re.search(r"^#\s+(.+?)\s*#*$", text, flags=re.M)
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if heading:
        return re.sub(r"[`*]+", "", heading.group(1))[:TITLE_LEN_MAX]
    if 2 < len(first) <= 80 and first[-1] not in ".,;:" and re.search(r"\w", first):
        return first
    return re.sub(r"\.(txt|text|md|markdown|rst)$", "", name, flags=re.I).strip()[:TITLE_LEN_MAX]


def edit(payload, crew):
    """Everything that the publisher needs of the text that the payload names."""
    file = payload.get("file") if isinstance(payload, dict) else None
    title = payload.get("title", "") if isinstance(payload, dict) else None
    if not isinstance(file, str) or not isinstance(title, str) or not is_text(file + title):
        stop(DATAERR, 'the payload should be {"file":"inbox/NAME","title":"…"}')
    text, changed = read_text(crew, file)
    if not text.strip():
        stop(NOINPUT, f"{file} is empty: nothing to do")
    command = os.environ.get("NEWSROOM_LLM", "").strip()
    carrying = significant(text)
    name = title or file.partition("/")[2]
    count = len(words(text))
    return {
        "file": file,
        "content": hashlib.sha256(text.encode()).hexdigest(),
        "title": title_of(text, name),
        "summary": ask(command, text) if command else abstract(text),
        "method": "command" if command else "luhn",
        "keywords": sorted(carrying, key=lambda word: (-carrying[word], word))[:KEYWORDS],
        "words": count,
        "minutes": max(1, round(count / WORDS_PER_MINUTE)),
        "changed": changed,
    }


def hand_on(article):
    """Submits the article for publishing. The key makes a second try of this very task a duplicate."""
    command = ["nightcrew", "submit", "publish", "-", "--key", f"{article['file']} {article['content']}"]
    try:
        submitted = subprocess.run(
            command, input=json.dumps(article).encode(), stdout=subprocess.DEVNULL, timeout=SUBMIT_SECONDS_MAX
        )
    except (OSError, subprocess.SubprocessError) as error:
        stop(TEMPFAIL, f"could not submit: {error}")
    # Its own message is in the log already. What it refuses as bad input it will refuse again.
    if submitted.returncode != 0:
        stop(DATAERR if submitted.returncode == DATAERR else TEMPFAIL, "could not submit")


def main():
    try:
        payload = json.load(sys.stdin)
    except (ValueError, RecursionError) as error:
        stop(DATAERR, f"the payload is not JSON: {error}")
    article = edit(payload, os.environ["NIGHTCREW_DIR"])
    # The result counts once this run has ended with 0; until then it may be half.
    with open(os.environ["NIGHTCREW_OUTPUT"], "w", encoding="utf-8") as output:
        json.dump(article, output, ensure_ascii=False)
    hand_on(article)
    print(f"edited {article['file']}: {article['title']}")


if __name__ == "__main__":
    main()
