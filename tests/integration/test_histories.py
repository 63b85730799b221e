"""What workflow histories really carry: a run's are exported and read, payload by payload."""

from __future__ import annotations

import base64
import json
from typing import Any

from holdfast import RunHandle
from holdfast.testing import ModelServer
from tests.conftest import MakeWorld
from tests.kit import PATIENCE

AGENTS = """
from holdfast import Agent, tool

@tool(effect="pure")
async def echo(text: str) -> str:
    "Give a long result. TOOLDOC"
    return "RESULT " + 5000 * "r"

agent = Agent("agent", "openai/test", "INSTRUCTIONS " + 3000 * "i", tools=[echo], window=100_000)
"""
SCRIPT = """
conversations:
  - replies:
      - say: SAID {said}
        call: [{{echo: {{text: "SMALL {small}"}}}}, {{echo: {{text: "LARGE {large}"}}}}]
      - say: ANSWER {said}
""".format(small="s" * 600, large="l" * 5000, said="w" * 3000)


async def test_histories_carry_small_texts_and_previews_and_nothing_longer(make_world: MakeWorld) -> None:
    """Messages up to 2 KiB and arguments up to 1 KiB travel in them, all else as previews of 64 characters."""
    async with ModelServer(SCRIPT) as models:
        world = await make_world(AGENTS, api_base=models.base_url)
        await world.worker()
        client = await world.client()
        short = await client.start("agent", "SHORT " + 1500 * "q", thread="short")
        long = await client.start("agent", "LONG " + 9000 * "q", thread="long")
        for run in (short, long):
            await run.result(timeout=PATIENCE)
        told, untold = await texts(short), await texts(long)
    assert any(text.startswith("SHORT ") and len(text) > 1500 for text in told)
    assert not any("LONG qqq" in text for text in untold)
    for found in (told, untold):
        whole = "\n".join(found)
        assert any("SMALL sss" in text and len(text) > 600 for text in found)
        assert "INSTRUCTIONS" not in whole
        assert "TOOLDOC" not in whole
        for word, most in (("LARGE lll", 64), ("RESULT rrr", 64), ("SAID www", 64), ("ANSWER www", 64)):
            carried = [text for text in found if word in text]
            assert all(len(text) <= most for text in carried), word
        assert max(map(len, found)) <= 2048
        assert not any("l" * 65 in text or "r" * 65 in text or "w" * 65 in text for text in found)


async def texts(run: RunHandle) -> list[str]:
    """Return every text in a run's histories, those within payloads taken apart."""
    return [text for history in await run.histories() for text in _texts(json.loads(history.to_json()))]


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        if set(value) == {"metadata", "data"}:
            return _inside(base64.b64decode(value["data"]))
        return [text for each in value.values() for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [value] if isinstance(value, str) else []


def _inside(data: bytes) -> list[str]:
    try:
        return _texts(json.loads(data))
    except ValueError:
        return [data.decode(errors="replace")]
