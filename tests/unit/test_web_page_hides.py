"""What a page hides from its readers is not given to a model, in whatever element it hides it."""

from __future__ import annotations

import pytest

from holdfast.tools.builtin.confined_html import read_page

HIDDEN = [
    "<p hidden>TEXT</p>",
    "<p hidden>TEXT<p>",
    "<b style=display:none>TEXT</b>",
    "<h2 style='Display : None !important'>TEXT</h2>",
    "<li style='color:red;visibility:hidden'>TEXT</li>",
    "<td style=opacity:0>TEXT</td>",
    "<table><tr><td hidden>TEXT<td>seen</table>",
    "<ul><li hidden>TEXT<li>seen</ul>",
    "<dl><dt hidden>TEXT<dd>seen</dl>",
    "<em style='font-size:0px'>TEXT</em>",
    "<em style='font-size: 0'>TEXT</em>",
    "<i style='opacity:.0;'>TEXT</i>",
    "<i style='dis/**/play:none'>TEXT</i>",
    "<i style='d\\69 splay:none'>TEXT</i>",
    "<img hidden alt=TEXT src=x>",
    "<img style='display:none' alt=TEXT src=x>",
    "<img width=0 alt=TEXT src=x>",
    "<a href=/TEXT hidden>TEXT</a>",
    "<div hidden><p>a</p><div>b</div>TEXT</div>",
    "<div hidden/>TEXT</div>",
    "<div hidden><table><td></div>TEXT</table></div>",
    "<p><b hidden></p>TEXT</b>",
    "<dialog>TEXT</dialog>",
    "<video>TEXT</video>",
    "<blockquote aria-hidden=True>TEXT</blockquote>",
    "<custom-tag hidden><svg/>TEXT</custom-tag>",
    "<i>" * 2000 + "<b hidden>TEXT</b>" + "</i>" * 2000,
]


@pytest.mark.parametrize("page", HIDDEN, ids=lambda page: page[:50])
def test_what_a_page_hides_is_not_read(page: str) -> None:
    """By attribute or style of its own, with the end tag left out too; what follows is read."""
    read = read_page(f"<p>before {page} <p>after".encode(), None, "http://x/", 10, 10_000)
    assert "TEXT" not in str(read)
    assert "before" in read["text"]
    if "2000" not in page and len(page) < 1000:
        assert "after" in read["text"]
    if "seen" in page:
        assert "seen" in read["text"]


def test_what_is_seen_is_read() -> None:
    """Styles that hide nothing, and characters of ordinary texts."""
    page = "<p style='opacity:0.5;font-size:0.9em;display:block'>one <b style='font-size:10px'>two</b></p>three ❤️"
    assert read_page(page.encode(), None, "http://x/", 10, 100)["text"] == "one two\n\nthree ❤️"


def test_characters_that_no_reader_sees_are_dropped() -> None:
    """Tags, fillers and direction marks carry messages to a model alone."""
    page = "<title>a\u3164b</title><p>pay\U000e0041\u200b\u202e\u2800<a href='/x'>li\u200bnk</a>"
    read = read_page(page.encode(), None, "http://x/", 10, 100)
    assert (read["title"], read["text"], read["links"][0]["text"]) == ("ab", "paylink", "link")
