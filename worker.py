"""A worker for production: `python worker.py`. Settings come from the environment; see docs/reference."""

from holdfast.runtime import run

if __name__ == "__main__":
    run()
