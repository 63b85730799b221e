"""Checks a final reply against the agent's type, and words the correction. Only the model step calls it."""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast.activities.deps import Deps
from holdfast.contracts import AgentDefinition, AnswerDefinition
from holdfast.errors import ConfigurationError
from holdfast.ids import canonical_json
from holdfast.llm import OFFLINE_MODEL
from holdfast.typed import NotOneJson, answer_value, schema_problem

__all__ = ["CORRECTION", "check_model", "correction", "gave_up", "problem_of"]

CORRECTION = "correction"
"""The role under which a thread has a message that is ours; the model is sent it as a user's."""

_QUOTED = 300  # characters of the last reply that the run's error quotes


def check_model(definition: AgentDefinition, model: str) -> None:
    """Refuse a model that cannot give what is asked.

    Raises:
        ConfigurationError: the agent gives typed answers, and the offline model stands in.

    """
    if definition.output is not None and model == OFFLINE_MODEL:
        raise ConfigurationError(
            f"agent {definition.name} gives typed answers, and {OFFLINE_MODEL}, which stands in for "
            f"{definition.model}, only quotes what tools return. Set the key of {definition.model}, or an api_base."
        )


async def problem_of(deps: Deps, definition: AgentDefinition, text: str | None, finish: str) -> str | None:
    """Say why a final reply is not the answer that was asked for; None when it is, or when any text is."""
    answer = definition.output
    if answer is None:
        return None
    problem = await asyncio.to_thread(_problem, deps, definition, answer, text or "")
    if problem is not None and finish == "length":
        problem += "; it was cut at the longest reply that is allowed (max_tokens)"
    return problem


def _problem(deps: Deps, definition: AgentDefinition, answer: AnswerDefinition, text: str) -> str | None:
    try:
        value = answer_value(answer, text)
    except NotOneJson as exc:
        return str(exc)
    loaded = deps.agents.get(definition.name)
    if loaded is None or loaded.answers is None or not _same(loaded.definition.output, answer):
        return schema_problem(answer, value)  # the agents file was edited since: the run keeps what it began with
    return loaded.answers.problem(value)


def _same(loaded: AnswerDefinition | None, answer: AnswerDefinition) -> bool:
    return loaded is not None and (loaded.shape, loaded.wrapped) == (answer.shape, answer.wrapped)


def correction(answer: AnswerDefinition, problem: str) -> dict[str, Any]:
    """Return the message that asks the model again. It has the schema: not every provider shows it to the model."""
    return {
        "role": "user",
        "content": (
            f"(An automatic check, not a person.) Your answer cannot be used: {problem}.\n"
            "Answer again, with all of it, as one JSON value of this JSON schema and nothing else, no words around it, "
            f"no code fence:\n{canonical_json(answer.shape)}"
        ),
    }


def gave_up(answer: AnswerDefinition, problem: str, text: str | None) -> str:
    """Return the error of a run whose model did not get it right."""
    tries = f", after {answer.corrections} correction{'s' if answer.corrections != 1 else ''}" * bool(
        answer.corrections
    )
    said = (text or "").strip()
    quoted = said if len(said) <= _QUOTED else said[:_QUOTED] + "…"
    return (
        f"the answer is not the {answer.name} it must be{tries}: {problem}. The last reply: {quoted!r}. "
        "Try a stronger model, a simpler type, or more corrections."
    )
