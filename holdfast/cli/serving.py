"""`holdfast worker`: one worker process for production, beside servers that somebody else runs."""

from __future__ import annotations

from holdfast.cli.say import say
from holdfast.errors import ConfigurationError
from holdfast.runtime import serve
from holdfast.settings import Settings

__all__ = ["worker"]


def worker(settings: Settings, *, memory: bool = False) -> None:
    """Serve agents, or long-term memory, until the process is told to stop.

    Raises:
        ConfigurationError: settings, agents file or a model's key are wrong or missing.
        StackError: Temporal does not answer.
        StorageError: PostgreSQL or the long-term memory cannot be used.

    """
    given = {"TEMPORAL_ADDRESS": settings.temporal_address, "HOLDFAST_DATABASE_URL": settings.database_url}
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise ConfigurationError(
            f"a worker needs a Temporal and a PostgreSQL server, but {' and '.join(missing)} "
            f"{'are' if missing[1:] else 'is'} not set. Set {'them' if missing[1:] else 'it'} in the environment, in "
            ".env or in holdfast.toml; or run `holdfast dev`, which starts servers and workers on this machine."
        )
    if not memory and not settings.agents.is_file():
        raise ConfigurationError(
            f"there is no agents file {settings.agents.absolute()}. Create it, or name yours with --agents FILE or "
            "HOLDFAST_AGENTS."
        )
    what = "long-term memory" if memory else str(settings.agents)
    say(f"worker for {what}, Temporal at {settings.temporal_address}; Ctrl-C or SIGTERM lets calls in flight finish")
    serve(settings, "memory" if memory else "agents")
