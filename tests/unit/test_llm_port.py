"""The port without a model: names, keys, errors, the pieces of a stream."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.errors import ConfigurationError, ContextTooLong, MissingModelKey, ModelRefused, ModelUnavailable
from holdfast.llm import OFFLINE_MODEL, resolve_model
from holdfast.llm.refusals import model_error, retry_after_seconds
from holdfast.llm.resolve import KEY_VARIABLES, split_model
from holdfast.llm.streams import Assembly, named_calls
from holdfast.settings import Settings


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start without any provider's key, in an empty folder."""
    for names in KEY_VARIABLES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def settings(**values: Any) -> Settings:
    """Return settings with these values."""
    return Settings.model_construct(**({"model": None, "api_base": None, "offline": None} | values))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("openai/gpt-5-mini", ("openai", "gpt-5-mini")),
        ("openai:gpt-5-mini", ("openai", "gpt-5-mini")),
        ("ollama/llama3:8b", ("ollama", "llama3:8b")),
        ("ollama:llama3:8b", ("ollama", "llama3:8b")),
        ("bedrock/anthropic.claude-v2:1", ("bedrock", "anthropic.claude-v2:1")),
        ("openrouter/anthropic/claude-sonnet-4", ("openrouter", "anthropic/claude-sonnet-4")),
        ("gpt-5-mini", ("openai", "gpt-5-mini")),
        ("claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
        ("llama3:8b", ("", "llama3:8b")),
    ],
)
def test_names_are_split(name: str, parts: tuple[str, str]) -> None:
    """Both spellings are understood, and a colon within a model's name is left alone."""
    assert split_model(name) == parts


def test_without_a_key_the_stand_in_comes_only_where_it_may() -> None:
    """Embedded, offline/extractive stands in unless forbidden; elsewhere the message names the variable."""
    assert resolve_model("openai/gpt-5-mini", settings(), embedded=True) == OFFLINE_MODEL
    assert resolve_model("openai/gpt-5-mini", settings(offline=True), embedded=False) == OFFLINE_MODEL
    for embedded, offline in ((False, None), (True, False)):
        with pytest.raises(MissingModelKey, match="OPENAI_API_KEY"):
            resolve_model("openai/gpt-5-mini", settings(offline=offline), embedded=embedded)
    assert resolve_model("offline/extractive", settings(), embedded=False) == OFFLINE_MODEL
    assert resolve_model("ollama/llama3", settings(), embedded=False) == "ollama/llama3"


def test_a_key_or_a_server_of_ones_own_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A key in the environment or in .env, or an api_base, and the model is called."""
    named, base = "openai:gpt-5-mini", "http://127.0.0.1:1/v1"
    assert resolve_model(named, settings(), embedded=True, api_base=base) == "openai/gpt-5-mini"
    assert resolve_model(named, settings(api_base=base), embedded=False) == "openai/gpt-5-mini"
    assert resolve_model("my-model", settings(api_base=base), embedded=False) == "openai/my-model"
    assert resolve_model("anthropic/x", settings(api_base=base), embedded=False) == "openai/x"
    assert resolve_model("anthropic/x", settings(), embedded=False, api_base=base) == "anthropic/x"
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-1\n")
    assert resolve_model(named, settings(), embedded=True) == "openai/gpt-5-mini"
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    assert resolve_model(named, settings(model="claude-x"), embedded=False) == "anthropic/claude-x"


@pytest.mark.parametrize("name", ["", "openai/", "offline/nothing"])
def test_no_model_is_a_clear_error(name: str) -> None:
    """A name that can be no model's is refused with what to write."""
    with pytest.raises(ConfigurationError):
        resolve_model(name, settings(), embedded=True)


NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 2026 12:01:30 GMT"}, 90.0),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 02 Jan 2026 12:01:30 GMT", "Date": "Fri, 02 Jan 2026 12:01:00 GMT"}, 30.0),
        ({"llm_provider-retry-after": "4"}, 4.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
        (None, None),
    ],
)
def test_retry_after(headers: dict[str, str] | None, seconds: float | None) -> None:
    """Seconds, milliseconds and HTTP dates are read; nonsense is none."""
    assert retry_after_seconds(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, ModelUnavailable) for status in (None, 408, 429, 500, 529)),
        *((status, ModelRefused) for status in (400, 401, 402, 422)),
    ],
)
def test_errors_by_status(status: int | None, kind: type[Exception]) -> None:
    """What may pass is unavailable, the rest refused; both quote the provider and are not endless."""
    error = model_error(status, "because. " * 500, model="groq/x", headers={"retry-after": "2"})
    assert type(error) is kind
    assert "because." in str(error)
    assert len(str(error)) < 1000
    assert getattr(error, "retry_after", 2.0) == 2.0
    assert type(model_error(400, "long", model="groq/x", too_long=True)) is ContextTooLong


def delta(index: int | None, call_id: str | None, name: str | None, arguments: str | None) -> Any:
    """Return a tool call delta as LiteLLM has it."""
    return SimpleNamespace(index=index, id=call_id, function=SimpleNamespace(name=name, arguments=arguments))


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        (
            [
                (0, "a", "f", ""),
                (1, "b", "g", ""),
                (0, None, None, '{"x"'),
                (1, None, None, "{}"),
                (0, None, None, ":1}"),
            ],
            [("a", "f", '{"x":1}'), ("b", "g", "{}")],
        ),
        ([(0, "a", "f", "{}"), (0, "b", "f", "{}")], [("a", "f", "{}"), ("b", "f", "{}")]),
        ([(0, "a", "f", "{"), (0, "a", "f", "}")], [("a", "f", "{}")]),
        ([(0, "a", "get_", ""), (0, None, "it", "{}")], [("a", "get_it", "{}")]),
        ([(0, None, "f", "{}"), (1, None, "g", None)], [("", "f", "{}"), ("", "g", "")]),
    ],
    ids=["interleaved", "same index", "name repeated", "name in pieces", "no ids"],
)
def test_calls_are_put_together(deltas: list[tuple[Any, ...]], calls: list[tuple[str, str, str]]) -> None:
    """Each way in which servers send the pieces of calls gives whole calls, in order."""
    assembly = Assembly()
    for parts in deltas:
        assembly.add_call(delta(*parts))
    assert assembly.calls == calls


def test_ids_are_given_where_they_miss_or_repeat() -> None:
    """A call without an id, or with one used before, gets one that the same request always gives."""
    messages = [{"role": "assistant", "tool_calls": [{"id": "call_0"}]}]
    asked = [("", "f", "{}"), ("call_0", "f", "{}"), ("own", "g", ""), ("own", "g", "")]
    first, again = named_calls(asked, messages), named_calls(asked, messages)
    assert first == again
    ids = [call.id for call in first]
    assert len(set(ids)) == 4
    assert "call_0" not in ids
    assert ids[2] == "own"


def test_importing_the_port_is_light() -> None:
    """Importing the port loads neither LiteLLM nor the embeddings: the CLI and workflows start fast."""
    heavy = ("litellm", "numpy", "aiohttp")
    code = f"import sys, holdfast.llm, holdfast.testing; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"
