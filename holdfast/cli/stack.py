"""Commands around the embedded stack: dev, down, doctor, and the stack that `run` starts by itself."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from holdfast.cli.follow import print_json
from holdfast.cli.say import console as new_console
from holdfast.cli.text import clean, duration, one_line
from holdfast.cli.waiting import Waiting
from holdfast.errors import AgentsFileError, ConfigurationError, MissingModelKey
from holdfast.secrets import address, mask
from holdfast.settings import Settings

if TYPE_CHECKING:
    from holdfast.contracts import AgentDefinition, ToolDefinition
    from holdfast.server import StackInfo

__all__ = ["AgentLine", "dev", "doctor", "down", "ensure_stack", "inspect_agents", "progress", "ready_screen"]

_PLACES = {"temporal_address", "temporal_ui", "namespace", "qdrant_url", "home"}  # no password among them


@dataclass(frozen=True, slots=True)
class AgentLine:
    """What there is to say about an agent before it runs. `model` is what will be called."""

    name: str
    wanted: str
    model: str
    tools: tuple[tuple[str, str], ...]  # (name, remarks)
    keys: tuple[str, ...] = ()  # variables of which one would give the wanted model
    typed: bool = False  # it answers in a type: perhaps one that is asked in another, too

    @property
    def stand_in(self) -> bool:
        """Whether the offline model answers in place of the one that is named."""
        return self.model != self.wanted and self.model.startswith("offline/")


def inspect_agents(settings: Settings) -> list[AgentLine]:
    """Load the agents file as a worker would, and say what it holds.

    Raises:
        AgentsFileError: it is another user's or cannot be loaded; the message has file, line and source line.
        ConfigurationError: an agent's model cannot be used.

    """
    from holdfast.tools.registry import load_agents

    lines = []
    for agent in load_agents(settings.agents).values():
        line = _agent_line(agent.definition, settings)
        come = tuple((f"{source.name}__*", source.kind) for source in agent.sources)  # known once a worker runs
        lines.append(replace(line, tools=line.tools + come))
    return lines


def _agent_line(agent: AgentDefinition, settings: Settings) -> AgentLine:
    from holdfast.llm.resolve import KEY_VARIABLES, resolve_model, split_model

    wanted = settings.model or agent.model
    try:
        model = resolve_model(
            agent.model,
            settings,
            embedded=settings.temporal_address is None,
            api_base=agent.api_base,
            keyed="api_key" in agent.params,
        )
    except MissingModelKey as exc:
        raise ConfigurationError(f"agent {agent.name!r}: {exc}") from exc
    tools = tuple((tool.name, _remarks(tool)) for tool in agent.tools)
    keys = KEY_VARIABLES.get(split_model(wanted)[0], ())
    return AgentLine(agent.name, wanted, model, tools, keys, typed=agent.output is not None)


def _remarks(tool: ToolDefinition) -> str:
    kind = "hand-off" if tool.handoff else "agent" if tool.agent else tool.effect
    return f"{kind}, asks first" if tool.approval == "always" else kind


def ready_screen(info: StackInfo, agents: list[AgentLine], workers: int, took: float, width: int = 100) -> Table:
    """Return what `holdfast dev` shows once all is up: where it is, who answers, what to try."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    from holdfast.mcp.away import away

    grid.add_row("", "")
    grid.add_row("Holdfast", Text(f"is up, after {duration(took)}", style="bold green"))
    grid.add_row("Web UI", Text(info.temporal_ui or "none", style="cyan"))
    grid.add_row("Temporal", f"{info.temporal_address}, namespace {info.namespace}")
    grid.add_row("Postgres", address(info.database_url))
    grid.add_row("Qdrant", address(info.qdrant_url) if info.qdrant_url else "embedded, in the memory process")
    grid.add_row("Workers", str(workers))
    grid.add_row("Data, logs", str(info.home))
    grid.add_row("Agents", str(info.agents))
    for agent in agents:
        line = Text(agent.name, style="bold")
        line.append(f"  {agent.model}", style="not bold yellow" if agent.stand_in else "not bold")
        if agent.stand_in:
            line.append(f" in place of {agent.wanted}", style="not bold dim")
        grid.add_row("", line)
        if agent.tools:
            tools = ", ".join(f"{name} ({remarks})" for name, remarks in agent.tools)
            grid.add_row("", Text(f"  {one_line(tools, max(width * 3, 200))}", style="dim"))
    for server, why in away(info.home).items():
        grid.add_row("MCP", Text(f"{server} is away: {one_line(why, 500)}", style="yellow"))
    stand_ins = [agent for agent in agents if agent.stand_in]
    if stand_ins or any(agent.model.startswith("offline/") for agent in agents):
        grid.add_row("", "")
        note = "offline/extractive is not a language model: it picks tools by meaning and quotes what they return."
        keys = stand_ins[0].keys if stand_ins else ()
        if keys:
            note += f" For {stand_ins[0].wanted}, set {keys[0]} and start again."
        grid.add_row("Offline", Text(note, style="yellow"))
    grid.add_row("", "")
    name = next((agent.name for agent in agents if not agent.typed), "AGENT")
    grid.add_row("Try", Text(f'holdfast run {name} "your question"', style="bold"))
    grid.add_row("", Text("holdfast runs", style="bold"))
    grid.add_row("", Text("holdfast ui RUN", style="bold"))
    grid.add_row("", "")
    grid.add_row("Ctrl-C", "stops everything; runs go on where they were at the next start")
    return grid


def progress(*, as_json: bool = False) -> Console:
    """Return the console for what a person may want to see: standard error; for scripts only if it is a terminal."""
    return new_console(stderr=True, quiet=as_json and not sys.stderr.isatty())


def dev(settings: Settings, *, as_json: bool = False) -> None:
    """Run the stack in the foreground until Ctrl-C. With *as_json* a line on standard output tells each thing.

    Raises:
        ConfigurationError: the agents file or a setting is wrong; nothing was started.
        StackError: something is missing, busy or did not start.

    """
    from holdfast.log import configure_logging
    from holdfast.server import run_stack
    from holdfast.server.neighbours import warning

    console = progress(as_json=as_json)
    agents = inspect_agents(settings)
    quiet = (
        settings if "log_level" in settings.model_fields_set else settings.model_copy(update={"log_level": "warning"})
    )
    configure_logging(quiet, process="dev")
    logging.getLogger("holdfast.server").propagate = (
        "log_level" in settings.model_fields_set
    )  # its lines come by notify
    began = time.monotonic()
    status = Waiting(console, "starting Temporal, PostgreSQL, memory and workers")
    status.start()
    up = False
    shared = warning() if settings.temporal_address is None else None

    def ready(info: StackInfo) -> None:
        nonlocal up
        up = True
        status.stop()
        if as_json:
            places = info.model_dump(mode="json", include=_PLACES)
            places = {name: mask(place) if place else place for name, place in places.items()}
            names = [agent.name for agent in agents]
            print_json({"kind": "ready", **places, "agents_file": str(info.agents), "agents": names})
            if shared:
                notify(shared)
            return
        console.print(ready_screen(info, agents, settings.workers, time.monotonic() - began, console.width))
        console.print()
        if shared:
            notify(shared)

    def notify(line: str) -> None:
        if as_json:
            print_json({"kind": "notice", "text": line})
            return
        console.print(Text(f"  {clean(line)}", style="yellow" if up else "dim"))

    try:
        asyncio.run(run_stack(settings, on_ready=ready, notify=notify))
    finally:
        status.stop()
    if as_json:
        print_json({"kind": "stopped"})
    else:
        console.print(Text("  stopped; nothing is left running", style="dim"))


def ensure_stack(settings: Settings, given: Path | None, console: Console) -> Settings:
    """Return settings that lead to servers: those that are set, else the stack of this folder, started if need be.

    Raises:
        ConfigurationError: the agents file is wrong, or the running stack serves another than the one *given*.
        StackError: the stack could not be started.

    """
    if settings.temporal_address and settings.database_url:
        return settings
    from holdfast.server import read_stack, settings_for, start_detached

    info = read_stack(settings.home)
    if info is not None:
        if given is not None and given.resolve() != info.agents.resolve():
            raise ConfigurationError(
                f"The stack that runs here serves {info.agents}, not {given.resolve()}. Nothing was sent. "
                "Leave out --agents to use it, or stop it with `holdfast down` and run this again."
            )
        _until_loaded(settings, info, console)
        return settings_for(settings, info)
    if given is None and not settings.agents.is_file():
        raise AgentsFileError(
            f"There is no agents file {settings.agents} and no stack runs here. `holdfast init my-agents` writes "
            "a project to start from; or name another file with --agents FILE or `agents = …` in holdfast.toml."
        )
    agents = inspect_agents(settings)
    began = time.monotonic()
    try:
        with Waiting(console, "starting a stack in the background") as waiting:
            info = start_detached(settings, hear=waiting.say)
    except KeyboardInterrupt:
        console.print(Text("the stack goes on starting; `holdfast down` ends it", style="dim"))
        raise
    line = f"started a stack in the background ({duration(time.monotonic() - began)}); it ends after "
    line += f"{settings.idle_exit / 60:.0f} idle minutes, or by `holdfast down`. Web UI: {info.temporal_ui}"
    console.print(Text(line, style="dim"), soft_wrap=not console.is_terminal)
    stand_ins = [agent for agent in agents if agent.stand_in]
    if stand_ins:
        keys = f"; set {stand_ins[0].keys[0]} for the real one" if stand_ins[0].keys else ""
        line = f"no key for {stand_ins[0].wanted}: offline/extractive stands in, which is not a language model{keys}"
        console.print(Text(line, style="yellow"), soft_wrap=not console.is_terminal)
    return settings_for(settings, info)


def _until_loaded(settings: Settings, info: StackInfo, console: Console) -> None:
    """Wait until the workers have loaded the agents file as it is now; say so if it does not load.

    Somebody who has just saved it and runs an agent means the agent as it is saved.
    """
    from holdfast.server import read_stack
    from holdfast.server.reload import file_hash

    wanted, found, deadline = file_hash(info.agents), info, time.monotonic() + settings.scaled(settings.start_timeout)
    if info.agents_version is None or wanted in (None, info.agents_version):
        return
    with Waiting(console, f"{info.agents.name} has changed: the workers load it"):
        while found.agents_version != wanted and found.agents_refused != wanted and time.monotonic() < deadline:
            time.sleep(0.1)
            found = read_stack(settings.home) or found
    if found.agents_version == wanted:
        return
    line = f"the workers are still loading {info.agents.name} as it is now; one that has not may answer this"
    if found.agents_refused == wanted:
        line = f"{info.agents.name} as it is now cannot be used; the workers go on with what they loaded before:\n"
        line += clean(found.agents_error or "")
    console.print(Text(line, style="yellow"), soft_wrap=not console.is_terminal)


def down(settings: Settings, *, as_json: bool = False) -> None:
    """Stop the stack of this folder, and whatever a killed one left."""
    from holdfast.server import stop_stack

    console = progress(as_json=as_json)
    with Waiting(console, "stopping"):
        ran = stop_stack(settings.home, grace=settings.stop_grace)
    where = settings.home.absolute()
    if as_json:
        print_json({"home": str(where), "stopped": ran})
        return
    console.print(Text(f"stopped the stack in {where}" if ran else f"no stack runs in {where}", style="dim"))


def doctor(settings: Settings, *, as_json: bool = False) -> int:
    """Show what is there and what is missing; return the exit code: 1 if something required is missing."""
    from holdfast.server import doctor as look

    console = new_console()
    with Waiting(progress(as_json=as_json), "looking"):
        checks = look(settings)
    good = all(check.ok for check in checks)
    if as_json:
        print_json({"ok": good, "checks": [asdict(check) for check in checks]})
        return 0 if good else 1
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        mark = Text("✓", style="green") if check.ok else Text("✗", style="bold red")
        detail = Text(clean(check.detail))
        if check.hint:
            detail.append(f"\n→ {clean(check.hint)}", style="dim" if check.ok else "yellow")
        table.add_row(mark, check.name, detail)
    console.print(table)
    return 0 if good else 1
