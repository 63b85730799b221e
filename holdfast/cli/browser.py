"""Opens a page in the user's browser where there is one, and is silent where there is none."""

from __future__ import annotations

import os
import sys
import webbrowser

__all__ = ["open_page"]


def open_page(address: str) -> bool:
    """Open *address* in a graphical browser; a text browser would take over the terminal."""
    graphical = sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if not (graphical and sys.stdout.isatty()):
        return False
    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False
