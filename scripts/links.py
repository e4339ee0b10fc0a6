#!/usr/bin/env python3
"""Checks the links of all tracked Markdown files and of the notebooks' Markdown cells. Nothing is fetched.

    python scripts/links.py [FOLDER]      # a git checkout; default: this one

The target of a relative link must be a tracked file or folder, and its anchor (`page.md#heading`) a heading of that
page. A path in backticks, such as `infer/cost/model.py`, must be a tracked file, relative to the top of the checkout or
to the page's own folder. Prints one line for each dead link and exits with 1 if there is any.
"""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

PATH = re.compile(r"[\w.-]+(/[\w.-]+)+\.(py|md|toml|sh|ipynb)")
"""A word in backticks that names a file of this repository."""
MARKDOWN = MarkdownIt("commonmark").enable("table")


class Text(NamedTuple):
    """A Markdown file, or one cell of a notebook."""

    path: Path
    place: str
    """The path to print, with the number of the cell in a notebook, counted from 0."""
    lines: list[str]
    tokens: list[Token]


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    listed = subprocess.run(["git", "-C", root, "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    # resolved, since some folders are links, such as infer/strategies
    files = {path.resolve() for name in listed.split("\0") if name and (path := root / name).exists()}
    pages = {path: list(texts(path, root)) for path in sorted(files) if path.suffix in (".md", ".ipynb")}
    found = [line for page in pages.values() for text in page for line in check(text, root, files, pages)]
    print("\n".join(found) or f"{len(pages)} pages: every link and path in them leads somewhere")
    return bool(found)


def texts(path: Path, root: Path) -> Iterator[Text]:
    """The Markdown texts of a file."""
    name, source = str(path.relative_to(root)), path.read_text(encoding="utf-8")
    found = {name: source}
    if path.suffix == ".ipynb":
        cells = enumerate(json.loads(source)["cells"])
        found = {f"{name}, cell {n}": "".join(cell["source"]) for n, cell in cells if cell["cell_type"] == "markdown"}
    for place, text in found.items():
        yield Text(path, place, text.splitlines(), MARKDOWN.parse(text))


def check(text: Text, root: Path, files: set[Path], pages: dict[Path, list[Text]]) -> Iterator[str]:
    """One line for each dead link of a text."""
    for token in text.tokens:
        for child in token.children or []:
            for target, problem in dead(child, text.path, root, files, pages):
                assert token.map is not None
                here = (n for n in range(*token.map) if target in text.lines[n])
                yield f"{text.place}:{next(here, token.map[0]) + 1}: {target}: {problem}"


def dead(
    token: Token, page: Path, root: Path, files: set[Path], pages: dict[Path, list[Text]]
) -> Iterator[tuple[str, str]]:
    """The dead targets of a link, an image or a piece of code in backticks, each with its problem."""
    if target := str(token.attrs.get("href") or token.attrs.get("src") or ""):
        link = urlsplit(unquote(target))
        aim = (page.parent / link.path).resolve() if link.path else page
        if link.scheme or link.netloc:
            return
        if aim not in files and not any(aim in file.parents for file in files):
            yield target, "no such file"
        elif link.fragment and aim in pages and link.fragment not in anchors(pages[aim]):
            yield target, "no such heading"
    elif token.type == "code_inline":
        for path in filter(PATH.fullmatch, token.content.split()):
            if not {(folder / path).resolve() for folder in (root, page.parent)} & files:
                yield path, "no such file"


def anchors(page: list[Text]) -> set[str]:
    """The anchors that GitHub gives to a page's headings. The second of equal anchors ends in -1."""
    seen: Counter[str] = Counter()
    found = set()
    for text in page:
        for opening, heading in zip(text.tokens, text.tokens[1:], strict=False):
            if opening.type == "heading_open":
                words = "".join(child.content for child in heading.children or [])
                name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
                found.add(f"{name}-{seen[name]}" if seen[name] else name)
                seen[name] += 1
    return found


if __name__ == "__main__":
    sys.exit(main())
