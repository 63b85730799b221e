"""From a page of HTML to text a model can read. Runs in the confined process, with the standard library alone."""

from __future__ import annotations

import re
from contextlib import suppress
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

_SILENT = {"script", "style", "noscript", "template", "svg", "math", "iframe", "object", "canvas", "select"}
_BLOCKS = {
    "p", "div", "section", "article", "main", "header", "footer", "nav", "aside", "figure", "figcaption", "form",
    "fieldset", "table", "ul", "ol", "dl", "dt", "dd", "blockquote", "address", "details", "summary", "hr", "body",
}  # fmt: skip
_HIDEABLE = {  # their end tags may not be left out, so what is hidden has an end
    "div", "section", "span", "nav", "aside", "article", "header", "footer", "form", "ul", "ol", "table", "dialog",
}  # fmt: skip
_INVISIBLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
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
        self._silent: list[str] = []
        self._lists: list[int | None] = []
        self._pre = 0
        self._in_title = False
        self._link: tuple[str, int] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "base" and given.get("href"):
            with suppress(ValueError):  # it is no URL
                self._base = urljoin(self._base, given["href"])
        if self._silent:
            if (tag in _SILENT or tag == self._silent[-1]) and tag not in _VOID and len(self._silent) < 1000:
                self._silent.append(tag)
            return
        if tag in _SILENT or (tag in _HIDEABLE and self._is_hidden(given)):
            self._silent.append(tag)
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

    @staticmethod
    def _is_hidden(given: dict[str, str]) -> bool:
        """Tell what a reader would not see: no model shall read what no person would."""
        return (
            "hidden" in given or given.get("aria-hidden") == "true" or bool(_INVISIBLE.search(given.get("style", "")))
        )

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if self._silent:
            if tag == self._silent[-1]:
                self._silent.pop()
            elif tag in self._silent:  # what it held was never closed
                del self._silent[self._silent.index(tag) :]
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
        elif not self._silent:
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
    for kind, block in reader.blocks:
        lines += [block] if not lines or (kind and kind == last) else ["", block]
        last = kind
    text = "\n".join(lines)
    page: dict[str, Any] = {"title": " ".join(reader.title.split())[:300], "text": text[:size], "links": reader.links}
    if len(text) > size:
        page["cut"] = f"the page has {len(text):,} characters of text; the first {size:,} are here"
    return page
