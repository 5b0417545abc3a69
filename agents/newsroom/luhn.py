"""Which words and sentences carry a text.

The sentences are chosen as H. P. Luhn did in "The Automatic Creation of Literature Abstracts" (IBM Journal of
Research and Development 2(2), 1958): those in which frequent words stand close together.
"""

import collections
import re

SUMMARY_SENTENCES_MAX = 4
KEYWORDS = 6

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


def keywords(text):
    """The words that occur most often of those that carry the text."""
    carrying = significant(text)
    return sorted(carrying, key=lambda word: (-carrying[word], word))[:KEYWORDS]
