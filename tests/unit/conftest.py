"""Fixtures of unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder without a stack, an agents file or settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("TEMPORAL_ADDRESS", "HOLDFAST_TEMPORAL_ADDRESS", "HOLDFAST_DATABASE_URL", "HOLDFAST_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path
