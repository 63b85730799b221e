"""Replays a recorded run against today's code: the workflows take its decisions, the agents would take its calls.

Nothing is started and nobody is asked: it takes about a second. `replay` is for users' tests.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast import __version__
from holdfast.agent import Agent
from holdfast.contracts import AgentDefinition, ToolDefinition
from holdfast.errors import OutputInvalid, ToolError
from holdfast.settings import load_settings
from holdfast.testing.calls import values
from holdfast.testing.recording import RecordedCall, RecordedRun, Recording
from holdfast.tools.registry import load_agents
from holdfast.typed.answers import answer_value
from holdfast.typed.found import NotOneJson

__all__ = ["Replayed", "replay"]

_SHOWN = 300  # characters of a value in a message
_TREATED = ("effect", "approval", "agent", "handoff")  # what decides how a call is treated


@dataclass(frozen=True)
class Replayed:
    """What a replay went through. `drift` says how today's agents differ without changing what the run would do."""

    histories: int
    rounds: int
    calls: int
    drift: list[str] = field(default_factory=list)


def replay(
    recording: Recording | Path | str,
    agents: Path | str | Agent | Iterable[Agent] | None = None,
    *,
    strict: bool = False,
) -> Replayed:
    """Check that a recorded run would go the same way with today's code, given the same replies of the model.

    Three things are checked. Holdfast's workflows, as installed, take the decisions that the recorded histories have.
    Each recorded call is one that the agent's tool of today accepts or refuses as then, with the same effect class and
    approval. The recorded answer is one of the agent's output type, and what the run spent is within its budget.

    Args:
        recording: what `holdfast export` wrote: its path, or a `Recording`.
        agents: the agents file, an agent or several; unset, the agents file of the settings.
        strict: any difference of an agent's definition counts, also of instructions, descriptions and model.

    Raises:
        AssertionError: it would go another way; the message says in what, and what was recorded.
        ConfigurationError: the file is no recording, or the agents file cannot be loaded.

    """
    __tracebackhide__ = True
    name = str(recording) if isinstance(recording, str | Path) else "the recording"
    read = recording if isinstance(recording, Recording) else Recording.load(Path(recording))
    today = _agents(agents)
    problems = _workflow_problems(read)
    drift: list[str] = []
    for run in read.runs:
        _check_run(run, today, problems, drift)
    problems, drift = list(dict.fromkeys(problems)), list(dict.fromkeys(drift))
    if strict:
        problems, drift = problems + drift, []
    if problems:
        count = "1 change" if len(problems) == 1 else f"{len(problems)} changes"
        lines = [
            f"the recorded run would go another way today, {count} since {name} was written (Holdfast {read.holdfast}):"
        ]
        lines += [f"  - {problem}" for problem in problems]
        lines.append(
            "If this is meant, record a run anew: holdfast export RUN --out FILE. Runs under way keep the definition "
            "they began with; only the code of their tools changes."
        )
        raise AssertionError("\n".join(lines))
    return Replayed(
        histories=sum(len(run.histories) for run in read.runs),
        rounds=sum(len(run.replies) for run in read.runs),
        calls=sum(len(reply.calls) for run in read.runs for reply in run.replies),
        drift=drift,
    )


def _agents(given: Path | str | Agent | Iterable[Agent] | None) -> dict[str, Agent]:
    if given is None:
        given = load_settings().agents
    if isinstance(given, str | Path):
        return load_agents(Path(given))
    return {agent.name: agent for agent in ([given] if isinstance(given, Agent) else given)}


# --------------------------------------------------------------------------------------------------------- workflows


def _workflow_problems(recording: Recording) -> list[str]:
    """Replay all histories, on a loop of a thread of its own: the test may have one running."""
    found: list[str] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.extend(asyncio.run(_replay_all(recording)))
        except BaseException as exc:  # noqa: BLE001  # handed to the caller's thread
            failed.append(exc)

    thread = threading.Thread(target=work, name="holdfast-replay")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found


async def _replay_all(recording: Recording) -> list[str]:
    from temporalio.client import WorkflowHistory
    from temporalio.worker import Replayer

    from holdfast.convert import data_converter, quiet_runtime
    from holdfast.runtime import WORKFLOWS, workflow_runner

    replayer = Replayer(
        workflows=WORKFLOWS,
        data_converter=data_converter,
        workflow_runner=workflow_runner(),
        runtime=quiet_runtime(),
    )
    problems = []
    for run in recording.runs:
        for history in run.histories:
            read = WorkflowHistory.from_json(run.workflow_id, history)
            result = await replayer.replay_workflow(read, raise_on_replay_failure=False)
            if result.replay_failure is not None:
                problems.append(
                    f"the workflows of Holdfast {__version__} decide otherwise than those of {recording.holdfast}, so "
                    f"runs under way would stand still: {_cut(str(result.replay_failure))}"
                )
    return problems


# ------------------------------------------------------------------------------------------------------------ agents


def _check_run(run: RecordedRun, today: dict[str, Agent], problems: list[str], drift: list[str]) -> None:
    for definition in run.definitions:
        agent = today.get(definition.name)
        if agent is None:
            known = ", ".join(sorted(today)) or "none"
            problems.append(f"there is no agent {definition.name!r} any more; there are: {known}")
            continue
        _check_tools(run, definition, agent, problems)
        drift += _drift(definition, agent)
    for number, reply in enumerate(run.replies, 1):
        if reply.definition < 0:
            continue
        definition = run.definitions[reply.definition]
        agent = today.get(definition.name)
        if agent is None:
            continue
        for call in reply.calls:
            problem = _call_problem(call, definition, agent)
            if problem is not None:
                problems.append(f"{agent.name}, round {number}: {problem}")
    last = today.get(run.definitions[-1].name) if run.definitions else None
    if last is not None:
        problems += _end_problems(run, run.definitions[-1], last)


def _tool(definition: AgentDefinition, name: str) -> ToolDefinition | None:
    return next((tool for tool in definition.tools if tool.name == name), None)


def _check_tools(run: RecordedRun, before: AgentDefinition, agent: Agent, problems: list[str]) -> None:
    """Say how calls that the run made would be treated otherwise, once for each tool."""
    for name in dict.fromkeys(call.tool for reply in run.replies for call in reply.calls):
        was, now = _tool(before, name), _tool(agent.definition, name)
        problems += [
            f"{agent.name}: {part} of {name} was {getattr(was, part)!r} and is {getattr(now, part)!r}"
            for part in (_TREATED if was is not None and now is not None else ())
            if getattr(was, part) != getattr(now, part)
        ]


def _call_problem(call: RecordedCall, before: AgentDefinition, agent: Agent) -> str | None:
    """Say why a recorded call would not be made, or why one that was refused would be."""
    was, now = _tool(before, call.tool), _tool(agent.definition, call.tool)
    told = f"{call.tool}({_told(call.arguments)})"
    if was is not None and now is None:
        if agent.sources:
            return None  # it may be a tool of one of its servers: those are known where a worker runs
        known = ", ".join(tool.name for tool in agent.definition.tools) or "none"
        return f"{told} was {call.state}, and there is no tool {call.tool!r} any more; there are: {known}"
    refusal = _refusal(call, agent) if now is not None else "there is no such tool"
    if was is None and refusal is not None:
        return None
    schema = ""
    if was is not None and now is not None and was.parameters != now.parameters:
        schema = f"\n    schema then:  {_json(was.parameters)}\n    schema today: {_json(now.parameters)}"
    if call.state != "invalid" and refusal is not None:
        return f"{told} was {call.state}, and would be refused today: {refusal}{schema}"
    if call.state == "invalid" and refusal is None:
        return f"{told} was refused, and would be made today{schema}"
    return None


def _refusal(call: RecordedCall, agent: Agent) -> str | None:
    try:
        args = json.loads(call.arguments or "{}")
        if not isinstance(args, dict):
            return "the arguments are no JSON object"
        agent.tool(call.tool).validate(args)
    except ValueError:
        return "the arguments are no JSON"
    except ToolError as exc:
        lines = str(exc).removesuffix("\nMend them and call again.").splitlines()  # that is for the model
        return "\n    ".join(lines)
    return None


def _end_problems(run: RecordedRun, before: AgentDefinition, agent: Agent) -> list[str]:
    found = []
    now = agent.definition
    budget = now.budget
    spent = (("rounds", run.rounds), ("tokens", run.tokens), ("usd", run.cost_usd))
    for name, used in spent:
        limit, old = getattr(budget, name), getattr(before.budget, name)
        if limit is not None and used > limit and not (old is not None and used > old):
            found.append(f"{agent.name}: the run used {used:g} {name}, and its budget is {limit:g} today")
    if run.state != "done" or run.answer is None:
        return found
    if now.output is None:
        if before.output is not None:
            found.append(f"{agent.name}: the answer was JSON ({before.output.name}), and is text today: no output=")
        return found
    try:
        value = answer_value(now.output, run.answer)
        if agent.answers is not None and (problem := agent.answers.problem(value)) is not None:
            raise OutputInvalid(problem)
    except (NotOneJson, OutputInvalid) as exc:
        found.append(f"{agent.name}: the recorded answer is not of its output {now.output.name!r} today: {exc}")
    return found


def _drift(before: AgentDefinition, agent: Agent) -> list[str]:
    """Say how the definition differs, part by part."""
    found = []
    now = agent.definition
    for part in type(before).model_fields:
        old, new = getattr(before, part), getattr(now, part)
        if part != "tools" and old != new:
            found.append(f"{agent.name}: {part} was {_json(old)} and is {_json(new)}")
    tools = {tool.name: tool for tool in now.tools}
    for tool in before.tools:
        today = tools.pop(tool.name, None)
        if today is None:
            if not agent.sources:
                found.append(f"{agent.name}: there is no tool {tool.name!r} any more")
            continue
        for part in type(tool).model_fields:
            old, new = getattr(tool, part), getattr(today, part)
            if old != new:
                found.append(f"{agent.name}: {part} of {tool.name} was {_json(old)} and is {_json(new)}")
    return found + [f"{agent.name}: the tool {name!r} is new" for name in tools]


def _json(value: Any) -> str:
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    return _cut(json.dumps(value, ensure_ascii=False, default=str))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _told(arguments: str) -> str:
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = arguments
    return values(value if isinstance(value, dict) else str(arguments))
