"""`holdfast schedule …`: recurring messages: adding, listing, pausing, triggering, backfilling, deleting them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli import complete
from holdfast.cli.reach import with_client
from holdfast.cli.say import console as new_console
from holdfast.cli.say import say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rich.console import Console
    from rich.text import Text

    from holdfast.schedules import Occurrence, ScheduleDesk, ScheduleView

__all__ = ["app"]

app = typer.Typer(
    help="Recurring messages: adding, listing, pausing, triggering them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.", show_default=False)]
Note = Annotated[str | None, typer.Option(help="Why.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]
Overlap = Annotated[
    str | None,
    typer.Option(help="skip, buffer_one, buffer_all or allow_all.", show_default=False),
]

_SHOWN = 5  # next times that `show` lists


def _with_desk(work: Callable[[ScheduleDesk], Awaitable[Any]]) -> Any:
    return with_client(lambda client: work(client.schedules), temporal=True)


def _tell(line: str, name: str, did: str, *, as_json: bool) -> None:
    if as_json:
        _print_json({"schedule": name, "did": did})
    else:
        say(line)


def _calendar(line: str) -> dict[str, str]:
    """Return a calendar written as `hour=7 day_of_week=mon-fri`."""
    fields: dict[str, str] = {}
    for word in line.split():
        field, equals, value = word.partition("=")
        if not equals:
            raise typer.BadParameter(f"write a calendar like 'hour=7 day_of_week=mon-fri', not {word!r}")
        fields[field.replace("-", "_")] = value
    return fields


@app.command()
def add(
    name: Name,
    agent: Annotated[
        str,
        typer.Argument(metavar="AGENT", help="Name of the agent.", show_default=False, autocompletion=complete.agents),
    ],
    text: Annotated[
        str,
        typer.Argument(
            metavar="TEXT",
            help="The message; {time}, {date:%d.%m.%Y} and {schedule} are filled in.",
            show_default=False,
        ),
    ],
    cron: Annotated[list[str] | None, typer.Option(help="Cron line; may be repeated.", show_default=False)] = None,
    every: Annotated[
        list[str] | None, typer.Option(help="Interval such as 15m or 1d; may be repeated.", show_default=False)
    ] = None,
    calendar: Annotated[
        list[str] | None,
        typer.Option(help="'hour=7 day_of_week=mon-fri'; may be repeated.", show_default=False),
    ] = None,
    offset: Annotated[str | None, typer.Option(help="Shifts the interval.", show_default=False)] = None,
    zone: Annotated[str, typer.Option(help="Time zone, such as Europe/Berlin.")] = "UTC",
    jitter: Annotated[str | None, typer.Option(help="Put each off by up to so long.", show_default=False)] = None,
    overlap: Annotated[
        str, typer.Option(help="While an earlier run is under way: skip, buffer_one, buffer_all or allow_all.")
    ] = "buffer_one",
    catch_up: Annotated[str, typer.Option(help="Make good what fell due so long ago while nothing was up.")] = "1d",
    start: Annotated[str | None, typer.Option(help="Not before.", show_default=False)] = None,
    end: Annotated[str | None, typer.Option(help="Not after.", show_default=False)] = None,
    remaining: Annotated[int | None, typer.Option(help="End after so many.", show_default=False, min=1)] = None,
    thread: Annotated[
        str | None, typer.Option(help="One continuing conversation.", show_default="a thread for each")
    ] = None,
    pause_on_failure: Annotated[
        bool, typer.Option("--pause-on-failure", help="Pause when a run has no answer.")
    ] = False,
    paused: Annotated[bool, typer.Option("--paused", help="Begin paused.")] = False,
    note: Note = None,
    json: Json = False,
) -> None:
    """Ask an agent again and again: by cron line, interval or calendar."""
    calendars = [_calendar(line) for line in calendar or []]
    if not (cron or every or calendars):
        raise typer.BadParameter("say when: --cron '0 7 * * mon-fri', --every 2h or --calendar 'hour=7'")

    async def body(desk: ScheduleDesk) -> ScheduleView:
        given: dict[str, Any] = {
            "cron": cron or None,
            "every": every or None,
            "calendar": calendars or None,
            "overlap": overlap,
        }
        return await desk.create(
            name,
            agent,
            text,
            **given,
            offset=offset,
            time_zone=zone,
            jitter=jitter,
            catch_up=catch_up,
            start=start,
            end=end,
            remaining=remaining,
            thread=thread,
            pause_on_failure=pause_on_failure,
            paused=paused,
            note=note,
        )

    view: ScheduleView = _with_desk(body)
    if json:
        _print_json(view.as_json())
        return
    if view.paused:
        say(f"schedule {view.name} is there, paused: holdfast schedule resume {view.name}")
    elif view.next:
        say(f"schedule {view.name} fires next at {_local(view.next[0], view)}")
    else:
        say(f"schedule {view.name} is there, but these times never come: {view.when}")


@app.command("list")
def list_(json: Json = False) -> None:
    """List schedules: when, the last run and what it cost, the next."""
    views: list[ScheduleView] = _with_desk(lambda desk: desk.list())
    if json:
        for view in views:
            _print_json(view.as_json())
        return
    if not views:
        say('no schedules yet. Add one with: holdfast schedule add NAME AGENT "your question" --cron "0 7 * * *"')
        return
    from rich.table import Table
    from rich.text import Text

    from holdfast.cli.text import one_line

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for head in ("schedule", "agent", "when", "last", "cost", "next"):
        table.add_column(head, overflow="fold")
    for view in views:
        last = view.recent[-1] if view.recent else None
        table.add_row(
            Text(view.name, "bold"),
            view.agent,
            one_line(view.when + ("" if view.time_zone == "UTC" else f" {view.time_zone}"), 40),
            Text("never", "dim") if last is None else _outcome(last),
            "" if last is None else _cost(last),
            _next(view),
        )
    _console().print(table)


@app.command()
def show(name: Name, json: Json = False) -> None:
    """Show a schedule: its question, its last runs with outcome and cost, its next times."""
    view: ScheduleView = _with_desk(lambda desk: desk.get(name))
    if json:
        _print_json(view.as_json())
        return
    from rich.text import Text

    from holdfast.cli.text import clean

    console = _console()
    head = Text(view.name, "bold")
    head.append(f"  asks {view.agent}, {view.when}, {view.time_zone}", "not bold")
    console.print(head, soft_wrap=not console.is_terminal)
    console.print(Text(f"  {clean(view.text)}", "italic"), soft_wrap=not console.is_terminal)
    counts = {"skipped": view.skipped, "missed": view.missed, "dropped": view.dropped, "waiting": view.waiting}
    facts = [
        f"thread {view.thread}" if view.thread is not None else "a thread for each",
        f"overlap {view.overlap}",
        f"fired {view.fired}",
        *(f"{word} {count}" for word, count in counts.items() if count),
        *([f"{view.remaining} to come"] if view.remaining is not None else []),
    ]
    console.print(Text(f"  {', '.join(facts)}", "dim"), soft_wrap=not console.is_terminal)
    if view.paused or view.note:
        said = f": {clean(view.note)}" if view.note else ""
        state = f"  paused{said}" if view.paused else f"  note{said}"
        console.print(Text(state, "yellow" if view.paused else "dim"))
    for occurrence in view.recent:
        line = Text("  ")
        line.append(_local(occurrence.scheduled_at, view), "")
        line.append("  ").append_text(_outcome(occurrence))
        line.append(f"  {_cost(occurrence)}  {(occurrence.run_id or '')[:8]}", "dim")
        console.print(line, soft_wrap=not console.is_terminal)
    for moment in view.next[:_SHOWN]:
        console.print(Text(f"  {_local(moment, view)}  to come", "dim"))


@app.command()
def pause(name: Name, note: Note = None, json: Json = False) -> None:
    """Let a schedule fire no more until it is resumed."""
    _with_desk(lambda desk: desk.pause(name, note))
    _tell(f"paused {name}", name, "paused", as_json=json)


@app.command()
def resume(name: Name, note: Note = None, json: Json = False) -> None:
    """Let a paused schedule go on."""
    _with_desk(lambda desk: desk.resume(name, note))
    _tell(f"resumed {name}", name, "resumed", as_json=json)


@app.command()
def trigger(name: Name, overlap: Overlap = None, json: Json = False) -> None:
    """Let a schedule fire now, also if it is paused."""
    given: Any = overlap
    _with_desk(lambda desk: desk.trigger(name, given))
    _tell(f"triggered {name}: holdfast schedule show {name}", name, "triggered", as_json=json)


@app.command()
def backfill(
    name: Name,
    start: Annotated[str, typer.Argument(metavar="START", help="First time, 2026-01-31T07:00.", show_default=False)],
    end: Annotated[str, typer.Argument(metavar="END", help="Last time.", show_default=False)],
    overlap: Annotated[str, typer.Option(help="skip, buffer_one, buffer_all or allow_all.")] = "buffer_all",
    json: Json = False,
) -> None:
    """Let take place what would have between two times. What took place already is not done again."""
    given: Any = overlap
    due = _with_desk(lambda desk: desk.backfill(name, start, end, given))
    if json:
        _print_json({"schedule": name, "did": "backfilled", "times": [moment.isoformat() for moment in due]})
        return
    say(f"{len(due)} fell due then: holdfast schedule show {name}" if due else "nothing fell due then")


@app.command()
def delete(name: Name, json: Json = False) -> None:
    """Remove a schedule. Its runs stay."""
    _with_desk(lambda desk: desk.delete(name))
    _tell(f"deleted {name}", name, "deleted", as_json=json)


def _print_json(value: dict[str, Any]) -> None:
    from holdfast.cli.follow import print_json

    print_json(value)


def _console() -> Console:

    return new_console()


def _local(moment: Any, view: ScheduleView) -> str:
    from holdfast.template import zone

    return f"{moment.astimezone(zone(view.time_zone)):%a %Y-%m-%d %H:%M:%S %Z}"


def _next(view: ScheduleView) -> Text:
    from rich.text import Text

    if view.paused:
        return Text("paused" + (f": {view.note}" if view.note else ""), "yellow")
    return Text(_local(view.next[0], view)) if view.next else Text("never", "dim")


def _outcome(occurrence: Occurrence) -> Text:
    from rich.text import Text

    from holdfast.cli.screen import STATE_STYLE
    from holdfast.cli.text import ago, one_line

    out = Text(occurrence.state.replace("_", " "), STATE_STYLE.get(occurrence.state, "default"))
    out.append(f" {ago(occurrence.started_at)}", "dim")
    if occurrence.error:
        out.append(f" {one_line(occurrence.error, 60)}", "dim")
    return out


def _cost(occurrence: Occurrence) -> str:
    from holdfast.cli.text import cost

    return cost(occurrence.cost_usd, occurrence.unpriced)
