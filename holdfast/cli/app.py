"""The commands of `holdfast`: what each takes and does. What a command needs is imported when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli import complete, mcp, schedule
from holdfast.cli.reach import with_client
from holdfast.cli.say import console as new_console
from holdfast.cli.say import say

if TYPE_CHECKING:
    from holdfast.cli.decide import Done
    from holdfast.client import Client
    from holdfast.settings import Settings

__all__ = ["app"]

app = typer.Typer(
    help="Durable AI agents: runs outlive any crash, and a ledger keeps their calls from taking effect twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(mcp.app, name="mcp")
app.add_typer(schedule.app, name="schedule")

Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Run id, or its beginning.", show_default=False, autocompletion=complete.runs),
]
Agent = Annotated[
    str,
    typer.Argument(metavar="AGENT", help="Name of the agent.", show_default=False, autocompletion=complete.agents),
]
AgentsFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="File that defines the agents.", show_default="agents.py")
]
Thread = Annotated[
    str | None,
    typer.Option(help="Conversation to go on with.", show_default="a new one", autocompletion=complete.threads),
]
Call = Annotated[
    str | None,
    typer.Argument(
        metavar="CALL", help="Step number of the call; may be left out if only one waits.", show_default=False
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Exit with code 3 when the run waits for a person; the run continues.")
]


def _version(wanted: bool) -> None:
    if wanted:
        from holdfast import __version__

        typer.echo(f"holdfast {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _settings(**overrides: Any) -> Settings:
    from holdfast.settings import load_settings

    return load_settings(**overrides)


def _tell(done: Done, *, as_json: bool) -> None:
    """Say what a command did: to a person on standard error, to a script on standard output."""
    if as_json:
        from holdfast.cli.follow import print_json

        print_json(done.data)
    else:
        say(done.line)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; it is made if need be.")] = Path(),
    json: Json = False,
) -> None:
    """Write a small project that runs at once: agents, a test, settings."""
    from holdfast.cli import init as project

    _tell(project.write(folder), as_json=json)


@app.command()
def dev(
    agents: Annotated[
        Path | None, typer.Argument(metavar="AGENTS", help="File that defines the agents.", show_default="agents.py")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.", show_default="2", min=1, max=64)] = None,
    reload: Annotated[
        bool | None,
        typer.Option("--reload/--no-reload", help="Load the agents file anew when it changes.", show_default="reload"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per line: ready, notices, stopped.")] = False,
) -> None:
    """Run Temporal, PostgreSQL, Qdrant and workers here until Ctrl-C."""
    from holdfast.cli import stack

    stack.dev(_settings(agents=agents, workers=workers, reload=reload), as_json=json)


@app.command()
def worker(
    agents: AgentsFile = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Serve long-term memory instead of agents, if there is no Qdrant server.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Write the log as JSON lines.")] = False,
) -> None:
    """Run one worker that uses your own servers, until Ctrl-C or SIGTERM. Exit code 2: restarting will not help."""
    from holdfast.cli import serving

    settings = _settings(agents=agents, log_format="json" if json else None)
    serving.worker(settings, memory=memory)


@app.command()
def run(
    agent: Agent,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="The message; - reads it from standard input.", show_default=False)
    ],
    agents: AgentsFile = None,
    thread: Thread = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per event, the answer last.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Print the run id and leave.")] = False,
    no_wait: NoWait = False,
    message_id: Annotated[
        str | None, typer.Option(help="The same id again names the same run.", show_default="a new one")
    ] = None,
    steer: Annotated[bool, typer.Option("--steer", help="Join the run under way on the thread.")] = False,
) -> None:
    """Send a message to an agent, show what happens, print the answer."""
    from holdfast.cli import ask

    if text == "-":
        text = sys.stdin.buffer.read().decode(errors="surrogateescape")
    if steer and thread is None:
        raise typer.BadParameter("--steer joins the run under way on a thread: name it with --thread")
    raise typer.Exit(
        ask.run(
            _settings(agents=agents),
            ask.Question(agent, text, thread=thread, message_id=message_id, steer=steer),
            given=agents,
            as_json=json,
            detach=detach,
            wait=not no_wait,
        )
    )


@app.command()
def chat(
    agent: Agent,
    thread: Thread = None,
    agents: AgentsFile = None,
    json: Annotated[bool, typer.Option("--json", help="A message per line in, JSON lines out.")] = False,
) -> None:
    """Talk with an agent; leave and come back with --thread. On a pipe each line is a message."""
    from holdfast.cli import converse

    raise typer.Exit(converse.converse(_settings(agents=agents), agent, thread, given=agents, as_json=json))


@app.command()
def runs(
    state: Annotated[str | None, typer.Option(help="Only runs in this state.", autocompletion=complete.states)] = None,
    thread: Annotated[
        str | None, typer.Option(help="Only runs of this thread.", autocompletion=complete.threads)
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 50,
    json: Json = False,
) -> None:
    """List runs, newest first."""
    from holdfast.cli.follow import print_json
    from holdfast.cli.show import render_runs

    found = with_client(lambda client: client.runs(state=state, thread=thread, limit=limit))
    if json:
        for summary in found:
            print_json(summary.model_dump(mode="json"))
    elif found:
        console = new_console()
        console.print(render_runs(found, console.width))
    else:
        say("no runs" if state or thread else 'no runs yet. Start one with: holdfast run AGENT "your question"')


@app.command()
def show(
    run: Run,
    step: Annotated[
        int | None,
        typer.Argument(
            metavar="STEP", help="Show everything that went into this step and came out of it.", show_default=False
        ),
    ] = None,
    steps: Annotated[
        bool, typer.Option("--steps", "-s", help="Show the result or error of each step on a line under it.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
    no_wait: NoWait = False,
    json: Json = False,
) -> None:
    """Show a run: its steps, costs, decisions, and what waits for you. With STEP: the step's full input and output."""
    from holdfast.cli import ask
    from holdfast.cli.follow import print_json

    if follow and (steps or step is not None):
        raise typer.BadParameter("--follow shows the whole run: leave out STEP and --steps")
    if no_wait and not follow:
        raise typer.BadParameter("--no-wait can be used only with --follow")
    if follow:
        raise typer.Exit(ask.watch(_settings(), run, as_json=json, wait=not no_wait))

    async def body(client: Client) -> None:
        from holdfast.cli.show import read_detail, render_detail
        from holdfast.cli.steps import render_step

        found = await client.get(run)
        if step is not None:
            detail = await found.step(step)
            if json:
                print_json(detail.model_dump(mode="json"))
            else:
                render_step(detail, new_console())
            return
        whole = await read_detail(found, whole=json)
        if json:
            print_json(whole.as_json())
        else:
            render_detail(whole, new_console(), lines=steps)

    with_client(body)


@app.command()
def ui(run: Run, json: Json = False) -> None:
    """Print the run's address in the Temporal Web UI, and open it."""

    async def body(client: Client) -> tuple[str, str | None]:
        found = await client.get(run)
        return found.run_id, found.ui_url()

    run_id, address = with_client(body)
    if address is None:
        from holdfast.errors import ConfigurationError

        raise ConfigurationError("No Web UI is known. Set HOLDFAST_TEMPORAL_UI to its base URL.")
    if json:
        from holdfast.cli.follow import print_json

        print_json({"run_id": run_id, "url": address})
        return
    typer.echo(address)
    from holdfast.cli.browser import open_page

    open_page(address)


@app.command()
def approve(
    run: Run,
    call: Call = None,
    args: Annotated[str | None, typer.Option(help="Make the call with these arguments instead: a JSON object.")] = None,
    edit: Annotated[bool, typer.Option("--edit", "-e", help="Change the arguments in $EDITOR first.")] = False,
    json: Json = False,
) -> None:
    """Approve a call that waits. Exit code 1: --edit, and nothing was sent."""
    from holdfast.cli import decide

    edited = decide.parse_args(args)
    if edit and edited is not None:
        raise typer.BadParameter("give --args or --edit, not both")
    if edit:
        from holdfast.cli.stack import progress

        done = with_client(lambda client: decide.edit(client, run, call, progress()), asks=True)
        if done is None:
            raise typer.Exit(1)
    else:
        done = with_client(lambda client: decide.approve(client, run, call, edited))
    _tell(done, as_json=json)


@app.command()
def reject(
    run: Run,
    reason: Annotated[str, typer.Option(help="Why; the model sees it.", show_default=False)],
    call: Call = None,
    json: Json = False,
) -> None:
    """Reject a call that waits; the model sees the reason and goes on."""
    from holdfast.cli import decide

    _tell(with_client(lambda client: decide.reject(client, run, call, reason)), as_json=json)


@app.command()
def stop(run: Run, reason: Annotated[str | None, typer.Option(help="Why.")] = None, json: Json = False) -> None:
    """Stop a run."""
    from holdfast.cli import decide

    _tell(with_client(lambda client: decide.stop(client, run, reason)), as_json=json)


@app.command()
def resolve(
    run: Run,
    step: Annotated[
        int, typer.Argument(metavar="STEP", help="Step number, as `holdfast show` has it.", show_default=False)
    ],
    done: Annotated[str | None, typer.Option(help="It took effect; this is what it returned.")] = None,
    not_done: Annotated[bool, typer.Option("--not-done", help="It did not take effect: make the call.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Go on without it.")] = False,
    json: Json = False,
) -> None:
    """Say what became of a call in doubt."""
    from holdfast.cli import decide

    if sum([done is not None, not_done, abandon]) != 1:
        raise typer.BadParameter("give exactly one of --done RESULT, --not-done, --abandon")
    word: dict[str, Any] = {
        "done": done,
        "not_done": not_done,
        "abandon": abandon,
    }
    _tell(with_client(lambda client: decide.resolve(client, run, step, word)), as_json=json)


@app.command()
def plugins(agents: AgentsFile = None, json: Json = False) -> None:
    """List plugins, outermost first, and the secrets that agents need."""
    from holdfast.cli import plugins as shown

    shown.show(_settings(agents=agents), as_json=json)


@app.command()
def export(
    run: Run,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to.", show_default="standard output")] = None,
    json: Annotated[bool, typer.Option("--json", help="With --out: say as JSON what was written.")] = False,
) -> None:
    """Write a run down for tests: its histories, the model's replies, its calls. See `holdfast.testing.replay`."""
    from holdfast.cli.export import export as write

    done = with_client(lambda client: write(client, run, out))
    if done is not None:
        _tell(done, as_json=json)


@app.command()
def doctor(json: Json = False) -> None:
    """Show what is there, what is missing, and how to get it."""
    from holdfast.cli import stack

    raise typer.Exit(stack.doctor(_settings(), as_json=json))


@app.command()
def down(json: Json = False) -> None:
    """Stop the stack of this folder. Its data stays."""
    from holdfast.cli import stack

    stack.down(_settings(), as_json=json)
