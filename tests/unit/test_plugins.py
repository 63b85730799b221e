"""Plugins are found, chosen and put in order; what is wrong with one is told; without them nothing costs."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast import Agent, Plugin
from holdfast import secrets as secrets_module
from holdfast.contracts import AgentDefinition
from holdfast.errors import AgentsFileError, ConfigurationError, PluginFailed
from holdfast.plugins.contract import At, ToolCall
from holdfast.plugins.host import Host
from holdfast.plugins.load import HOOKS, find_plugins, is_required
from holdfast.secrets import Secrets, leaks, mask, secret, secret_names
from holdfast.server.trial import _load
from holdfast.settings import Settings, load_settings
from holdfast.tools.registry import load_agents
from holdfast.tools.runner import ToolRunner

AGENT = 'from holdfast import Agent, Plugin\na = Agent("a", "offline/extractive")\n'

Install = Callable[[str, str, str], None]


class First(Plugin):
    """Stands in front."""

    order = -1

    def message(self, at: At, text: str) -> str | None:
        """Add a word."""
        return f"{text} first"


class Plain(Plugin):
    """Has no order of its own."""

    async def message(self, at: At, text: str) -> str | None:
        """Add a word."""
        return f"{text} plain"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a package: (name of the plugin, its module, its source)."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name: str, module: str, source: str) -> None:
        monkeypatch.delitem(sys.modules, module, raising=False)
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[holdfast.plugins]\n{name} = {module}:Made\n")

    return make


GOOD = "from holdfast import Plugin\nclass Made(Plugin):\n    def event(self, event): ...\n"


def names(setting: str = "none", *own: Plugin | str) -> list[tuple[str, bool]]:
    """Return the plugins found, and whether each is used."""
    return [(each.name, each.plugin is not None) for each in find_plugins(load_settings(plugins=setting), own)]


def test_order_is_explicit_and_stable(install: Install) -> None:
    """By number, then installed ones by name, then those of the file as they are listed."""
    install("zeta", "z_package", GOOD)
    install("beta", "b_package", GOOD)
    assert names("zeta, beta", Plain(), First()) == [("First", True), ("beta", True), ("zeta", True), ("Plain", True)]


def test_the_setting_chooses_among_installed_ones(install: Install) -> None:
    """By name, in the settings or in the agents file; those of the agents file itself are always used."""
    install("one", "one_package", GOOD)
    install("two", "two_package", GOOD)
    assert names("none", Plain()) == [("Plain", True), ("one", False), ("two", False)]
    assert names("two") == [("two", True), ("one", False)]
    assert names("none", "one", Plain()) == [("one", True), ("Plain", True), ("two", False)]
    with pytest.raises(ConfigurationError, match=r"names the plugin three, which is not installed\. .*Installed: one"):
        names("one,three")
    with pytest.raises(ConfigurationError, match="the agents file names the plugin three, which is not installed"):
        names("one", "three")
    for setting in ("all", "-two"):
        with pytest.raises(ConfigurationError, match=r"list the plugins to use by name\. Installed: one,two"):
            names(setting)


def test_an_installed_plugin_that_nobody_names_is_never_imported(install: Install, tmp_path: Path) -> None:
    """Any dependency may bring an entry point: by default, none of its code runs in a worker."""
    install("sly", "sly_package", f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{GOOD}")
    assert names(Settings().plugins) == [("sly", False)]
    assert "HOLDFAST_PLUGINS" in (find_plugins(Settings())[0].problem or "")
    assert not (tmp_path / "ran").exists()
    assert names("sly") == [("sly", True)]
    assert (tmp_path / "ran").exists()


class Ill(Plugin):
    """A guard that cannot do its work."""

    async def before_tool(self, at: At, call: ToolCall) -> None:
        """Fail."""
        raise ConnectionError("the guard's server is away")


async def test_a_guard_that_raises_lets_no_call_pass(caplog: pytest.LogCaptureFixture) -> None:
    """A plugin that may refuse is required unless it says otherwise; one that only listens is not."""
    at = At(tenant="t", thread="c", run_id="r", agent="a")
    call = ToolCall(tool="pay", args={}, effect="once", idempotency_key="k")
    open_door = Ill()
    open_door.required = False
    for plugin in (Ill(), open_door):
        plugin.name = "guard"
    async with ToolRunner() as runner:
        with caplog.at_level(logging.CRITICAL), pytest.raises(PluginFailed, match="the guard's server is away"):
            await Host([Ill()], Settings(), runner).before_tool(at, call, [])
        await Host([open_door], Settings(), runner).before_tool(at, call, [])
    assert [is_required(plugin) for plugin in (Ill(), open_door, Plain(), Plugin())] == [True, False, True, False]


@pytest.mark.parametrize("name", ["before_tools", "after_message"])
def test_a_misspelt_guard_is_an_error(name: str) -> None:
    """It would never be called, and everything would pass."""
    wrong = type("Wrong", (Plugin,), {name: lambda self, at, call: None})()
    with pytest.raises(ConfigurationError, match=f"{name} is not a hook and would never be called"):
        find_plugins(Settings(), [wrong])


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("raise SystemError('broken')\n", "SystemError: broken"),
        ("raise SystemExit('no licence')\n", "SystemExit: no licence"),
        ("Made = 7\n", "TypeError"),
        ("class Made: ...\n", "derive its class from holdfast.plugins.Plugin"),
        ("from holdfast import Plugin\nclass Made(Plugin):\n    timeout = -1\n", "use seconds over 0"),
    ],
)
def test_nothing_starts_without_one_that_is_named_and_does_not_load(install: Install, source: str, why: str) -> None:
    """The message says which package it is of, and why."""
    install("bad", "bad_package", source)
    with pytest.raises(ConfigurationError, match=r"the plugin bad of bad_package 1\.2 could not be loaded") as raised:
        names("bad")
    assert why in str(raised.value)


def test_two_of_one_name(install: Install) -> None:
    """The file's own stands in for an installed one; two in the file are an error."""
    install("Plain", "plain_package", GOOD)
    assert names("Plain", Plain()) == [("Plain", True), ("Plain", False)]
    with pytest.raises(ConfigurationError, match="two plugins called Plain"):
        names("none", Plain(), Plain())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("class P(Plugin): ...\nplugins = [P]", r"no plugin: make it: P\(\)"),
        ("class P(Plugin): ...\nplugins = [P(), 7]", "derive its class from Plugin"),
    ],
)
def test_a_list_with_something_else_in_it_is_an_error(tmp_path: Path, line: str, said: str) -> None:
    """The agents file says which entry, and what to write."""
    (tmp_path / "agents.py").write_text(AGENT + line)
    with pytest.raises(AgentsFileError, match=said):
        load_agents(tmp_path / "agents.py")


def test_a_variable_of_that_name_that_is_the_users_own_stays_so(tmp_path: Path) -> None:
    """A list of numbers called `plugins` is nothing to us; texts are names of installed plugins."""
    (tmp_path / "agents.py").write_text(AGENT + "plugins = [1, 2]")
    assert load_agents(tmp_path / "agents.py").plugins == ()
    (tmp_path / "agents.py").write_text(AGENT + 'plugins = ["mails"]')
    assert load_agents(tmp_path / "agents.py").plugins == ("mails",)


def test_the_host_without_plugins_has_nothing() -> None:
    """Each question whether there is a hook is a look into an empty dict, and no time is added to a step."""
    host = Host()
    assert not any(host.has(hook) for hook in HOOKS)
    assert host.seconds == 0.0
    assert host.secrets == Secrets()


async def test_hooks_are_tried_within_their_time(caplog: pytest.LogCaptureFixture) -> None:
    """A plugin that cannot start is left out, unless it is required; sync and async hooks are called in order."""

    class Late(Plugin):
        required: bool | None = False

        async def start(self) -> None:
            raise OSError("no network")

        def message(self, at: At, text: str) -> str | None:
            return "never"

    at = At(tenant="t", thread="c", run_id="r", agent="a")
    async with ToolRunner() as runner:
        host = Host([First(), Late(), Plain()], Settings(), runner)
        for plugin in host.plugins:
            plugin.name = type(plugin).__name__
        with caplog.at_level(logging.ERROR):
            await host.start()
        assert [plugin.name for plugin in host.plugins] == ["First", "Plain"]
        assert await host.message(at, "hello", []) == "hello first plain"
        await host.stop()
        ill = Late()
        ill.required = None  # it has `message`, so it is a guardrail
        with pytest.raises(ConfigurationError, match="is required and cannot start: OSError: no network"):
            await Host([ill], Settings(), runner).start()


def test_the_whole_contract_is_one_short_file() -> None:
    """Whoever writes a plugin reads it in a minute, and every hook that is called stands in it."""
    source = (Path(__file__).parents[2] / "holdfast/plugins/contract.py").read_text()
    assert len(source.splitlines()) < 160
    assert all(f"def {hook}(" in source for hook in HOOKS)


async def test_every_form_of_a_value_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is, in JSON, in a URL, in base64, and the password within an address; short values are left."""
    monkeypatch.setenv("A_DSN", "postgresql://me:p%40ss-w0rd!@host/db")
    monkeypatch.setenv("SHORT", "abc")
    monkeypatch.setenv("ODD", 'quo"te\\and/slash')
    box = Secrets()
    await box.reveal([secret("A_DSN"), {"x": (secret("SHORT"), f"a {secret('ODD')} b")}])
    assert mask("could not connect to postgresql://me:p%40ss-w0rd!@host/db") == "could not connect to ***"
    assert mask("password p@ss-w0rd! is wrong") == "password *** is wrong"
    assert mask(json.dumps({"k": 'quo"te\\and/slash'})) == '{"k": "***"}'
    assert mask("abc") == "abc"
    assert leaks(ValueError("outer")) is False
    inner, outer = KeyError('quo"te\\and/slash'), ValueError("outer")
    outer.__cause__ = inner
    assert leaks(outer)
    assert leaks(ExceptionGroup("several", [ValueError("a"), ExceptionGroup("more", [inner])]))
    assert not leaks(ExceptionGroup("several", [ValueError("a")]))


def test_a_long_chain_of_errors_that_tells_nothing_does_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each link names the one before it twice; to take that for a leak would cost a history its causes."""
    monkeypatch.setenv("CHAINED", "chained-value")
    asyncio.run(Secrets().value("CHAINED"))

    def chained(first: Exception) -> Exception:
        last = first
        for number in range(100):
            try:
                raise RuntimeError(f"link {number}") from last
            except RuntimeError as exc:
                exc.__context__ = last
                last = exc
        return last

    assert not leaks(chained(ValueError("harmless")))
    assert leaks(chained(ValueError("it was chained-value")))


async def test_a_store_that_gives_a_new_value_each_time_fills_nothing() -> None:
    """The last hundred are masked; what was kept for ever would be looked for in every line of the log."""
    number = 0

    async def fresh(name: str) -> str:
        nonlocal number
        number += 1
        return f"token-{number:06}"

    before = len(secrets_module._known)
    box = Secrets([("sts", fresh)])
    for _ in range(1000):
        await box.value("STS_TOKEN")
    assert mask("used token-001000 and token-000901") == "used *** and ***"
    assert len(secrets_module._known) - before <= 100 * 8


def test_a_secret_in_instructions_is_refused() -> None:
    """Models are told those."""
    with pytest.raises(ConfigurationError, match="which models are told"):
        Agent("a", "openai/x", f"The key is {secret('K')}.")


def test_a_reload_is_told_of_a_missing_secret(tmp_path: Path) -> None:
    """The trial of a changed agents file fails, so the old workers stay; where a plugin may keep it, workers see."""
    path = tmp_path / "agents.py"
    path.write_text(
        "from holdfast import Agent, Plugin, secret\n"
        'a = Agent("a", "openai/x", api_base="http://127.0.0.1:9", params={"api_key": secret("NOT_SET_HERE")})\n'
    )
    assert "a: the secret NOT_SET_HERE is not set" in (_load(Settings(agents=path)).error or "")
    with path.open("a") as file:
        file.write("class Vault(Plugin):\n    async def secret(self, name): ...\nplugins = [Vault()]\n")
    assert _load(Settings(agents=path)).error is None


def test_definitions_have_names() -> None:
    """What is stored of an agent has the placeholder, and names are found however deep they stand."""
    body = AgentDefinition(
        name="a", model="openai/x", params={"api_key": secret("K"), "deep": [{"x": secret("L/m.n")}]}
    )
    assert secret_names(body.model_dump(mode="json")) == {"K", "L/m.n"}
