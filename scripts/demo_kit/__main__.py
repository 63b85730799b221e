"""Starts the demo: `python -m scripts.demo_kit` from the checkout. `scripts/demo` does so after the set-up."""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends us without a traceback
    from scripts.demo_kit.program import main

    sys.exit(main())
