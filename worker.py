"""A worker for production: `python worker.py`. Settings come from the environment; see docs/reference."""

from holdfast.runtime import main

if __name__ == "__main__":
    raise SystemExit(main())
