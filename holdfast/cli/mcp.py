"""`holdfast mcp …`: the MCP servers that workers have met, what changed about their tools, and accepting it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.reach import with_client
from holdfast.cli.say import console as new_console
from holdfast.cli.say import say

if TYPE_CHECKING:
    from rich.text import Text

    from holdfast.client import Client
    from holdfast.mcp.desk import ServerView, ToolView

__all__ = ["app"]

app = typer.Typer(
    help="MCP servers: their tools, what changed about them, and accepting it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Server = Annotated[str, typer.Argument(metavar="SERVER", help="Name of the server.", show_default=False)]
Tool = Annotated[
    str | None, typer.Argument(metavar="TOOL", help="One of its tools; else all of them.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON.")]

_STYLES = {"pinned": "green", "changed": "bold yellow", "new": "bold yellow", "gone": "dim"}
_WORDS = {"pinned": "pinned", "changed": "suspended: changed", "new": "suspended: new", "gone": "gone"}
_LEAST = 6  # digits of a hash that name what one has looked at


@app.command("list")
def list_(json: Json = False) -> None:
    """List servers and their tools: state, effect class, and the server's own hints."""

    async def look(client: Client) -> tuple[list[ServerView], dict[str, str]]:
        return await client.mcp.servers(), client.mcp.away()

    servers, away = with_client(look)
    if json:
        from holdfast.cli.follow import print_json

        for server in servers:
            print_json(
                {
                    "server": server.server,
                    "said": server.said,
                    "away": away.get(server.server),
                    "first_seen": server.first_seen.isoformat(),
                    "last_seen": server.last_seen.isoformat(),
                    "tools": [tool.as_json() for tool in server.tools],
                }
            )
        return

    from holdfast.cli.text import one_line

    for name in sorted(away):
        say(f"{name} is away: {one_line(away[name], 500)}")
    if not servers and not away:
        say("no worker has met an MCP server yet: name one in an agent's tools, and start a worker")
        return
    console = new_console()
    for server in servers:
        _print_server(server, console)


def _print_server(server: ServerView, console: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    from holdfast.cli.text import ago, one_line

    said = " ".join(str(server.said[key]) for key in ("name", "version") if server.said.get(key))
    head = Text(server.server, style="bold")
    head.append(f"  {one_line(said, 60)}, protocol {server.said.get('protocol')}, seen {ago(server.last_seen)}", "dim")
    console.print(head, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 2), header_style="dim", pad_edge=False)
    for name in ("tool", "state", "agents", "the server hints"):
        table.add_column(name, overflow="fold")
    for tool in server.tools:
        table.add_row(tool.tool, Text(_WORDS[tool.state], _STYLES[tool.state]), _agents(tool), _hints(tool))
    console.print(table)
    waiting = [tool for tool in server.tools if tool.suspended]
    if waiting:
        console.print(Text(f"  {len(waiting)} suspended: holdfast mcp diff {server.server}", style="yellow"))
    console.print()


def _agents(tool: ToolView) -> Text:
    from rich.text import Text

    words = [
        f"{agent}: {effect}{', asks first' if approval == 'always' else ''}"
        for agent, (effect, approval) in sorted(tool.agents.items())
    ]
    return Text("\n".join(words) or "none", style="" if words else "dim")


def _hints(tool: ToolView) -> Text:
    from rich.text import Text

    from holdfast.cli.text import one_line

    said = [name.removesuffix("Hint") for name, value in sorted(tool.annotations.items()) if value is True]
    return Text(one_line(", ".join(said), 60), style="dim")


@app.command()
def diff(server: Server, tool: Tool = None, json: Json = False) -> None:
    """Show what a server says of its tools now, against what was accepted. Exit code 1: something is suspended."""
    views: list[ToolView] = with_client(lambda client: client.mcp.tools(server, tool))
    waiting = [view for view in views if view.suspended]
    if json:
        from holdfast.cli.follow import print_json

        for view in waiting:
            print_json({**view.as_json(), "diff": view.diff()})
    elif not waiting:
        say(f"nothing is suspended: {len(views)} tools are as accepted, or gone")
    else:
        console = new_console()
        for view in waiting:
            _print_diff(view, console)
    raise typer.Exit(1 if waiting else 0)


def _print_diff(view: ToolView, console: Any) -> None:
    from rich.text import Text

    for line in view.diff():
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        console.print(Text(line, style="bold" if line[:3] in ("+++", "---") else style), soft_wrap=True)
    console.print(
        Text(f"\naccept: holdfast mcp accept {view.server} {view.tool} --hash {view.offered.hash[:12]}\n", style="dim"),
        soft_wrap=True,
    )


@app.command()
def accept(
    server: Server,
    tool: Tool = None,
    hash_: Annotated[
        str | None,
        typer.Option("--hash", help="Only if it is still what `diff` showed (its first digits).", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Accept what a server says of its suspended tools now. Workers take it up within seconds."""
    from holdfast.cli.follow import me, print_json
    from holdfast.errors import InvalidInput

    if hash_ is not None and (tool is None or len(hash_) < _LEAST):
        raise InvalidInput(
            f"--hash goes with one TOOL, and has at least {_LEAST} digits. `holdfast mcp diff` shows it."
        )

    async def body(client: Client) -> tuple[list[ToolView], list[str]]:
        views = await client.mcp.tools(server, tool)
        if hash_ is not None and not views[0].offered.hash.startswith(hash_.lower()):
            raise InvalidInput(f"{views[0].name} has changed again since. Look anew: holdfast mcp diff {server} {tool}")
        return views, await client.mcp.accept(views, actor=me())

    views, done = with_client(body)
    if json:
        print_json({"accepted": done})
        return
    if not done:
        say("nothing was suspended")
    for name in done:
        say(f"accepted {name}")
    left = sum(view.suspended for view in views) - len(done)
    if left:
        raise InvalidInput(f"{left} changed while you looked and are still suspended: holdfast mcp diff {server}")
