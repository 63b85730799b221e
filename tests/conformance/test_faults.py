"""What faults do follows the times of the product, and so does what the auditor lets pass because of them."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from holdfast.settings import Settings
from tests.conformance.bookkeeping import BOOK
from tests.conformance.books import Books
from tests.conformance.faults.processes import Freeze, beyond_lease


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_freeze_is_longer_than_the_lease_and_shorter_than_lease_and_settle(scale: float) -> None:
    """Else it would let nobody take over, or allow a `verifiable` call to take effect twice."""
    settings = Settings(time_scale=scale)
    chance = random.Random(7)
    spans = [beyond_lease(settings, chance, Freeze.longest) for _ in range(1000)]
    settle = max(row["settles"] for row in Books.load(BOOK)["effects"])
    assert min(spans) > settings.scaled(settings.lease)
    assert max(spans) < settings.scaled(settings.lease + settle)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_auditor_knows_the_lease(scale: float) -> None:
    """It shares no setting with the product, so that its own figure is compared here."""
    code = "from tests.conformance.books import LEASE; print(LEASE)"
    environment = {**os.environ, "HOLDFAST_TIME_SCALE": str(scale)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    settings = Settings(time_scale=scale)
    assert float(found.stdout) == settings.scaled(settings.lease)
