"""From a page of HTML to text a model can read. Runs in the confined process, with the standard library alone."""

from __future__ import annotations

import re
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from runpy import run_path
from typing import Any
from urllib.parse import urljoin

_SILENT = {"script", "style", "noscript", "template", "svg", "math", "iframe", "object", "canvas", "select",
           "audio", "video", "datalist", "noframes", "noembed"}  # fmt: skip
_BLOCKS = {
    "p", "div", "section", "article", "main", "header", "footer", "nav", "aside", "figure", "figcaption", "form",
    "fieldset", "table", "ul", "ol", "dl", "dt", "dd", "blockquote", "address", "details", "summary", "hr", "body",
}  # fmt: skip
_STYLES = re.compile(
    r"(?:^|;)(?:display:none|visibility:(?:hidden|collapse)"
    r"|(?:opacity|font-size):[+-]?(?:0+\.?0*|\.0+)(?:[a-z]+|%)?(?:[;!]|$))"
)
# What keeps applying behind the end of its parent, as browsers have it.
_FORMATS = {"a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"}
_BOUNDS = {"td", "th", "caption", "table", "template", "html"}  # an end tag within one ends nothing outside of it
_DEEPEST = 1000
# Whose end tag may be left out: by tag, what it ends, and within what.
_ROWS = {"tr", "td", "th", "thead", "tbody", "tfoot", "caption", "colgroup"}
_ENDS: dict[str, tuple[set[str], set[str]]] = {
    "li": ({"li"}, {"ul", "ol"}),
    "dt": ({"dt", "dd"}, {"dl"}),
    "dd": ({"dt", "dd"}, {"dl"}),
    "td": ({"td", "th", "caption"}, {"tr", "table"}),
    "th": ({"td", "th", "caption"}, {"tr", "table"}),
    "tr": ({"tr", "td", "th", "caption", "colgroup"}, {"table"}),
    "thead": (_ROWS, {"table"}),
    "tbody": (_ROWS, {"table"}),
    "tfoot": (_ROWS, {"table"}),
}
_VOID = {"br", "hr", "img", "input", "meta", "link", "area", "base", "col", "embed", "source", "track", "wbr"}
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{1,40})", re.IGNORECASE)


class _Reader(HTMLParser):
    """Collects text block by block. Unclosed tags do no more than spoil their own block."""

    def __init__(self, base: str, links: int) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self.blocks: list[tuple[str, str]] = []
        self.links: list[dict[str, str]] = []
        self._base = base
        self._most = links
        self._known: set[str] = set()
        self._line: list[str] = []
        self._prefix = ""
        self._kind = ""
        self._open: list[tuple[str, bool]] = []  # elements, and whether each hides what is in it
        self._hidden = 0  # of them hide
        self._lists: list[int | None] = []
        self._pre = 0
        self._in_title = False
        self._link: tuple[str, int] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "base" and given.get("href"):
            with suppress(ValueError):  # it is no URL
                self._base = urljoin(self._base, given["href"])
        hidden = tag in _SILENT or _is_hidden(tag, given)
        if tag not in _VOID:
            self._implied_ends(tag)
            self._push(tag, hidden)
        if hidden or self._hidden:
            return
        if tag == "title" and not self.title:
            self._in_title = True
        if tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
            self._end()
            self._prefix = "#" * int(tag[1]) + " "
        elif tag == "li":
            self._end()
            self._kind = "item"
            number = self._lists[-1] if self._lists else None
            self._prefix = "  " * min(len(self._lists) - 1, 8) + (f"{number}. " if number else "- ")
            if number and self._lists:
                self._lists[-1] = number + 1
        elif tag in ("ul", "ol"):
            self._end()
            self._lists.append(1 if tag == "ol" else None)
        elif tag == "tr":
            self._end()
            self._kind = "row"
        elif tag in ("td", "th"):
            if "".join(self._line).strip():
                self._line.append(" | ")
        elif tag == "pre":
            self._end()
            self._pre += 1
        elif tag == "br":
            self._line.append("\n")
        elif tag == "img" and given.get("alt", "").strip():
            self._line.append(f"[image: {given['alt'].strip()[:200]}]")
        elif tag == "a" and given.get("href"):
            self._link = (given["href"], len(self._line))
        elif tag in _BLOCKS:
            self._end()

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """Take a section that HTML does not know for a comment, as browsers do; the library gives the page up."""
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:
            return self.parse_bogus_comment(i)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take `<div/>` for `<div>`, as browsers do: only drawings and formulas have such elements."""
        self.handle_starttag(tag, attrs)
        if tag in ("svg", "math") or any(each in ("svg", "math") for each, _ in self._open):
            self.handle_endtag(tag)

    def _push(self, tag: str, hidden: bool) -> None:
        if len(self._open) < _DEEPEST:
            self._open.append((tag, hidden))
            self._hidden += hidden
        elif hidden and not self._open[-1][1]:  # no deeper: what hides must not get lost
            self._open[-1] = (self._open[-1][0], True)
            self._hidden += 1

    def _cut(self, at: int) -> None:
        """End the elements from *at* on, but for formats that were not: they go on behind the end of their parent."""
        ended, self._open = self._open[at:], self._open[:at]
        self._hidden -= sum(hidden for _, hidden in ended)
        for tag, hidden in ended[1:]:
            if hidden and tag in _FORMATS:
                self._push(tag, hidden)

    def _implied_ends(self, tag: str) -> None:
        """End what the start of *tag* ends: a paragraph, an item, a cell."""
        ends, within = _ENDS.get(tag, (set(), set()))
        if tag in _BLOCKS or tag in _ENDS or tag == "pre" or re.fullmatch("h[1-6]", tag):
            self._end_last({"p"}, _BOUNDS)
        for _ in ends:
            self._end_last(ends, within)

    def _end_last(self, tags: set[str], within: set[str]) -> None:
        """End the last open element of *tags*, if it is inside the last one of *within*."""
        for at in range(len(self._open) - 1, -1, -1):
            if self._open[at][0] in tags:
                self._cut(at)
                return
            if self._open[at][0] in within:
                return

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        seen = not self._hidden
        if tag not in _VOID:
            self._end_last({tag}, {"table"} if tag in _ROWS | {"table"} else _BOUNDS - {tag})
        if not seen:
            return
        if tag in ("ul", "ol") and self._lists:
            self._end()
            self._lists.pop()
        elif tag == "pre":
            self._end()
            self._pre = max(0, self._pre - 1)
        elif tag == "a" and self._link is not None:
            self._close_link()
        elif tag in ("li", "tr", "h1", "h2", "h3", "h4", "h5", "h6") or tag in _BLOCKS:
            self._end()

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        elif not self._hidden:
            self._line.append(data if self._pre else re.sub(r"\s+", " ", data))

    def _close_link(self) -> None:
        assert self._link is not None
        href, begun = self._link
        self._link = None
        text = " ".join("".join(self._line[begun:]).split())[:200]
        try:
            url = urljoin(self._base, href.strip())
        except ValueError:
            return
        if url.startswith(("http://", "https://")) and text and url not in self._known and len(self.links) < self._most:
            self._known.add(url)
            self.links.append({"text": text, "url": url})

    def _end(self) -> None:
        """End the block under way."""
        text = "".join(self._line)
        if self._pre:
            text = text.strip("\n")
        else:
            text = "\n".join(line for line in (re.sub(r" +", " ", each).strip() for each in text.split("\n")) if line)
        if text.strip():
            self.blocks.append((self._kind, self._prefix + text))
        self._line.clear()
        self._prefix = self._kind = ""
        self._link = None

    def finish(self) -> None:
        """Take what is left."""
        self.close()
        self._end()


def _is_hidden(tag: str, given: dict[str, str]) -> bool:
    """Tell what a reader would not see by the page's own words: no model shall read what no person would."""
    if "hidden" in given or given.get("aria-hidden", "").strip().lower() == "true":
        return True
    if (tag == "dialog" and "open" not in given) or (tag == "img" and "0" in (given.get("width"), given.get("height"))):
        return True
    style = re.sub(r"/\*.*?(\*/|$)", "", given.get("style", ""), flags=re.DOTALL)
    style = re.sub(r"\\([0-9a-fA-F]{1,6})\s?", lambda found: chr(min(int(found[1], 16), 0x10FFFF)), style)
    style = re.sub(r"[\s\\]", "", style).lower()
    return _STYLES.search(style) is not None


def _decoded(data: bytes, charset: str | None) -> str:
    declared = _CHARSET.search(data[:4096])
    for name in (charset, declared[1].decode() if declared else None, "utf-8"):
        if name:
            try:
                return data.decode(name, "replace")
            except (LookupError, ValueError):
                continue
    return data.decode("utf-8", "replace")


def read_page(data: bytes, charset: str | None, base: str, links: int, size: int) -> dict[str, Any]:
    """Return title, text (headings with #, lists, tables by rows) and links of a page; *size* is in characters."""
    reader = _Reader(base, links)
    reader.feed(_decoded(data, charset))
    reader.finish()
    lines: list[str] = []
    last = ""
    clean = run_path(str(Path(__file__).parents[2] / "visible.py"))["without_hidden"]
    for kind, block in reader.blocks:
        lines += [block] if not lines or (kind and kind == last) else ["", block]
        last = kind
    text = clean("\n".join(lines))
    found = [{name: clean(value) for name, value in link.items()} for link in reader.links]
    page: dict[str, Any] = {"title": " ".join(clean(reader.title).split())[:300], "text": text[:size], "links": found}
    if len(text) > size:
        page["cut"] = f"the page has {len(text):,} characters of text; the first {size:,} are here"
    return page
