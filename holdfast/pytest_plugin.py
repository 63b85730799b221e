"""The pytest plugin: fixtures `stack`, `model_server` and `run_agent`. pytest loads it wherever Holdfast is installed.

So it imports nothing, adds no hook but those that declare options, and does nothing until a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from holdfast.testing import RunAgent, ScriptedModels, Stack

_MARKER = (
    "holdfast(agents=FILE, model='scripted' | 'own', time_skipping=False, **settings): the stack that this test's "
    "fixtures use; agents is a path from the root directory, settings are those of holdfast.toml"
)
_PARTS = {"agents", "model", "time_skipping"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what may stand in pytest's configuration."""
    parser.addini("holdfast_agents", "agents file of the fixtures, from the root directory (default: agents.py)")
    parser.addini(
        "holdfast_model", "scripted: model_server plays every model; own: agents use theirs", default="scripted"
    )
    parser.addini("holdfast_settings", "settings of the test stack, one `name = value` a line", type="linelist")
    parser.addini("holdfast_test_server", "a time-skipping Temporal test server (default: PATH, else Java and Maven)")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture(scope="session")
def _holdfast_stacks(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Stack]]:
    """Give the function that starts a stack, or returns the one that was started for the same settings."""
    started: dict[Any, Stack | Exception] = {}

    def get(command: list[str] | None, **given: Any) -> Stack:
        from holdfast.testing.skipping import SkippingServer
        from holdfast.testing.stack import Stack

        key = (command is None, *sorted((name, str(value)) for name, value in given.items()))
        found = started.get(key)
        if found is None:
            folder = tmp_path_factory.mktemp("holdfast")  # each xdist worker has folders of its own
            try:
                clock = SkippingServer(command, folder) if command is not None else None
                found = Stack.start(folder, clock=clock, hear=_teller(request.config), **given)
                ends.callback(found.close)
            except Exception as exc:  # noqa: BLE001  # told to every test that needs it, not tried again for each
                found = exc
            started[key] = found
        if isinstance(found, Exception):
            raise found.with_traceback(None)  # or it would grow with each test
        return found

    with ExitStack() as ends:
        yield get


def _teller(config: pytest.Config) -> Callable[[str], None]:
    """Return what shows a line in the terminal, past pytest's capture; a worker of xdist has no terminal."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")

    def tell(line: str) -> None:
        if reporter is not None:
            with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
                reporter.ensure_newline()
                reporter.write_line(f"holdfast: {line}")

    return tell


@pytest.fixture
def stack(request: pytest.FixtureRequest, _holdfast_stacks: Callable[..., Stack]) -> Stack:
    """The real servers, embedded, started once for all tests; Holdfast's `Stack`.

    Agents file, model and settings: options `holdfast_agents`, `holdfast_model`, `holdfast_settings`, or the marker
    `@pytest.mark.holdfast(...)`; each combination is a stack of its own.
    """
    config = request.config
    given: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("holdfast"))):  # the one nearest to the test comes last
        if marker.args:
            raise pytest.UsageError(f"@pytest.mark.holdfast takes names, not {marker.args!r}: {_MARKER}")
        given |= marker.kwargs
    settings: dict[str, Any] = {}
    for line in config.getini("holdfast_settings"):
        name, equals, value = line.partition("=")
        if not equals:
            raise pytest.UsageError(f"holdfast_settings has {line!r}: write name = value, such as time_scale = 3")
        settings[name.strip()] = value.strip()
    settings |= {name: value for name, value in given.items() if name not in _PARTS}
    model = given.get("model") or config.getini("holdfast_model")
    if model not in ("scripted", "own"):
        raise pytest.UsageError(f"holdfast model is {model!r}: write 'scripted' or 'own'")
    agents = Path(given.get("agents") or config.getini("holdfast_agents") or _agents_of_settings())
    command = _test_server(config) if given.get("time_skipping") else None
    return _holdfast_stacks(command, agents=config.rootpath / agents, scripted=model == "scripted", **settings)


def _agents_of_settings() -> Path:
    from holdfast.settings import load_settings

    return load_settings().agents


def _test_server(config: pytest.Config) -> list[str]:
    from holdfast.testing.skipping import NoTestServer, find_test_server

    try:
        return find_test_server(config.getini("holdfast_test_server") or None, _teller(config))
    except NoTestServer as exc:
        pytest.skip(f"time cannot be skipped here: {exc}")


@pytest.fixture
def model_server(stack: Stack) -> Iterator[ScriptedModels]:
    """The server that plays every model of this test: `play(script)`, and `journal`, the requests it was sent."""
    if stack.models is None:
        raise pytest.UsageError("model_server has no part in a test whose agents use models of their own")
    yield stack.models
    stack.models.reset()


@pytest.fixture
def run_agent(request: pytest.FixtureRequest, stack: Stack) -> Iterator[RunAgent]:
    """Start a run and wait for its end: `run_agent(agent, text, replies=[…])`; or `run_agent.start(…)` and go on.

    It blocks, in tests of every kind; an async test whose own loop must go on meanwhile calls it in a thread.
    """
    from holdfast.testing.running import RunAgent

    models = request.getfixturevalue("model_server") if stack.models is not None else None
    runs = RunAgent(stack, models)
    yield runs
    runs.close()
