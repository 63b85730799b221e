"""The page about testing: its script is read, and its test passes."""

from __future__ import annotations

from holdfast.testing import Script
from tests.pages import Page


async def test_testing() -> None:
    """The block's own test runs."""
    with Page("docs/howto/testing.md") as page:
        names = page.python("async def test_it_looks_the_order_up")
        assert len(Script.parse(names["SCRIPT"]).conversations) == 2
        await names["test_it_looks_the_order_up"]()
