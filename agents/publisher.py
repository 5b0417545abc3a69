#!/usr/bin/env python3
# /// agent
# about = "Joins a text's summary and facts into a page of site/, and renews the index"
# handles = ["publish"]
# concurrency = 1
# timeout = "1m"
# max_rss = "200M"
# ///
"""Publishes one article as site/SLUG.html and renews site/index.html.

Its task needs two others, by the editor and the clerk: $NIGHTCREW_NEEDS tells where their results lie, and the
payload which is which, {"summary":ID,"facts":ID}.

Publishing again makes the same pages again: a task may be tried more than once. The article itself is
kept in site/SLUG.json, from which every page can be made anew; each file is replaced whole, by rename. One
process at a time (`concurrency = 1`) reads and writes the index.
"""

import hashlib
import html
import json
import os
import re
import sys
import unicodedata

DATAERR, NOINPUT = 65, 66
SLUG_LEN_MAX = 60
NO_BREAK_HYPHEN = "\N{NON-BREAKING HYPHEN}"
HOW = {
    "command": "by a language model",
    "luhn": "in its own sentences",
    "excerpt": "in its own sentences, because the editor was not available",
}

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1b; --paper: #fbfaf7; --quiet: #66625a; --line: #e2ded4; --link: #0b5394; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e1; --paper: #171715; --quiet: #a09b90; --line: #34322d; --link: #8ab8e6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 1.125rem/1.6 Charter, "Iowan Old Style", Georgia, Cambria, serif; overflow-wrap: break-word; }
main { max-width: 38rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: clamp(1.6rem, 6vw, 2.3rem); line-height: 1.2; margin: 0 0 .5rem; text-wrap: balance; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0; }
p { margin: 0 0 1.1rem; hyphens: auto; }
a { color: var(--link); text-underline-offset: .15em; }
.quiet, footer, nav { color: var(--quiet); font: .875rem/1.5 system-ui, sans-serif; }
.words { list-style: none; display: flex; flex-wrap: wrap; gap: .4rem; padding: 0; margin: 2rem 0; }
.words li { border: 1px solid var(--line); border-radius: 1rem; padding: .1rem .75rem; }
.list { list-style: none; padding: 0; margin: 2rem 0 0; }
.list li { border-top: 1px solid var(--line); padding: 1.1rem 0; }
.list p { margin: .35rem 0 0; }
header { margin-bottom: 2rem; }
nav { margin-bottom: 2.5rem; }
footer { border-top: 1px solid var(--line); padding-top: 1rem; margin-top: 2.5rem; }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
</main></body>
</html>
"""


def stop(code, why):
    """Ends the run: the code decides what becomes of the task, the text lands in the log."""
    print(why, file=sys.stderr)
    sys.exit(code)


def result_of(task, needs):
    """The result of one of the tasks that this one needed."""
    need = needs.get(task) if isinstance(task, str) else None
    if need is None:
        stop(DATAERR, f"{task!r} is none of the tasks that this one needs: see agents/intake.sh")
    if need["output"] is None:
        stop(NOINPUT, f"task {task} found nothing to do, so there is nothing to publish")
    with open(need["output"], encoding="utf-8") as source:
        return json.load(source)


def joined(payload):
    """The article: what the editor and the clerk made of one text."""
    if not isinstance(payload, dict) or "NIGHTCREW_NEEDS" not in os.environ:
        raise ValueError('it should be {"summary":ID,"facts":ID}, of a task that needs these two')
    with open(os.environ["NIGHTCREW_NEEDS"], encoding="utf-8") as source:
        needs = json.load(source)
    summary, facts = (result_of(payload.get(part), needs) for part in ("summary", "facts"))
    if summary["content"] != facts["content"]:
        # One read it before the change and one after. The new content has three tasks of its own.
        stop(NOINPUT, f"{facts['file']} changed meanwhile: nothing to publish")
    return checked({**facts, "summary": summary["summary"], "method": summary["method"]})


def checked(article):
    """The article, if it has every part that a page shows."""
    shape = {"file": str, "title": str, "summary": list, "method": str}
    shape |= {"keywords": list, "words": int, "minutes": int, "changed": str}
    if not isinstance(article, dict):
        raise ValueError("not an object")
    for part, kind in shape.items():
        if not isinstance(article.get(part), kind):
            raise ValueError(f"{part!r} should be a {kind.__name__}")
    if not all(isinstance(text, str) for text in article["summary"] + article["keywords"]):
        raise ValueError("'summary' and 'keywords' should hold strings")
    return {part: article[part] for part in shape}


def slug_of(file, site):
    """The page's name: made from the file's, and the same each time for the same file."""
    name = re.sub(r"\.(txt|text|md|markdown|rst)$", "", file.rpartition("/")[2], flags=re.I)
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:SLUG_LEN_MAX].strip("-")
    # A name without one Latin letter, the index's own, or one that another file's page has already.
    owner = load(os.path.join(site, f"{slug}.json")) if slug else None
    if not slug or slug == "index" or (owner is not None and owner["file"] != file):
        digest = hashlib.sha256(file.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        slug = f"{slug or 'page'}-{digest}"
    return slug


def load(path):
    """An article published before; None if it is missing or damaged."""
    try:
        with open(path, encoding="utf-8") as source:
            return checked(json.load(source))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        print(f"left out: {path}: {error}", file=sys.stderr)
        return None


def replace(path, text):
    """Replaces a file whole: a reader sees the old content or the new, also after a power cut.

    The temp file's name is always the same, so that what a crash left of one is used up by the next try.
    """
    temp = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.tmp")
    with open(temp, "w", encoding="utf-8", errors="replace") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    os.rename(temp, path)


def facts(article):
    """One line on the text that the page is about."""
    return f"{article['minutes']} min to read the whole · {article['words']:,} words · {article['changed'][:10].replace('-', NO_BREAK_HYPHEN)}"


def page(article):
    """The page of one article. Everything that came from outside is escaped."""
    text = html.escape
    body = [
        '<nav><a href="index.html">All pages</a></nav>',
        f"<header><h1>{text(article['title'])}</h1>",
        f'<div class="quiet">{text(facts(article))}</div></header>',
        *(f"<p>{text(paragraph)}</p>" for paragraph in article["summary"]),
    ]
    if article["keywords"]:
        items = "".join(f"<li>{text(word)}</li>" for word in article["keywords"])
        body.append(f'<ul class="words quiet">{items}</ul>')
    how = HOW.get(article["method"], f"by {article['method']}")
    body.append(f"<footer>Summary of {text(article['file'])}, {text(how)}</footer>")
    return PAGE.format(title=text(article["title"]), style=STYLE, body="\n".join(body))


def index(articles):
    """The list of all pages, the text changed last at the top."""
    text = html.escape
    rows = []
    for slug, article in sorted(articles.items(), key=lambda row: (row[1]["changed"], row[0]), reverse=True):
        teaser = article["summary"][0] if article["summary"] else ""
        teaser = teaser if len(teaser) <= 180 else teaser[:180].rpartition(" ")[0] + " …"
        rows.append(
            f'<li><h2><a href="{slug}.html">{text(article["title"])}</a></h2>\n'
            f'<div class="quiet">{text(facts(article))}</div><p>{text(teaser)}</p></li>'
        )
    count = "1 page" if len(rows) == 1 else f"{len(rows)} pages"
    body = f'<header><h1>Newsroom</h1><div class="quiet">{count}</div></header>\n<ul class="list">' + "\n".join(rows) + "</ul>"
    return PAGE.format(title="Newsroom", style=STYLE, body=body)


def main():
    try:
        article = joined(json.load(sys.stdin))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        stop(DATAERR, f"no article can be made of the payload: {error!r}")
    site = os.path.join(os.environ["NIGHTCREW_DIR"], "site")
    os.makedirs(site, exist_ok=True)
    slug = slug_of(article["file"], site)
    # The article first: whatever a crash leaves undone, the next publishing makes from it.
    replace(os.path.join(site, f"{slug}.json"), json.dumps(article, indent=1) + "\n")
    replace(os.path.join(site, f"{slug}.html"), page(article))
    names = sorted(name[:-5] for name in os.listdir(site) if name.endswith(".json") and not name.startswith("."))
    articles = {name: load(os.path.join(site, f"{name}.json")) for name in names if re.fullmatch(r"[a-z0-9-]+", name)}
    replace(os.path.join(site, "index.html"), index({name: found for name, found in articles.items() if found}))
    result = {"slug": slug, "page": f"site/{slug}.html", "title": article["title"], "minutes": article["minutes"]}
    with open(os.environ["NIGHTCREW_OUTPUT"], "w", encoding="utf-8") as output:
        json.dump(result, output)
    print(f"published site/{slug}.html: {article['title']}")


if __name__ == "__main__":
    main()
