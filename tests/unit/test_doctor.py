"""What `holdfast doctor` says of model keys, and `holdfast dev` of other accounts on the machine."""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from holdfast.errors import AgentsFileError
from holdfast.llm.resolve import KEY_VARIABLES
from holdfast.server import Check
from holdfast.server.checks import _agents, _model_key  # the check alone: the others look at the whole machine
from holdfast.server.neighbours import warning
from holdfast.server.reload import file_hash
from holdfast.settings import load_settings
from holdfast.tools.imports import imported_files
from holdfast.tools.registry import load_agents

OWN = 'Agent("a", "openai/x", api_base="http://ann:hunter22@127.0.0.1:8000/v1")\n'
READ = 'Agent(name="b", model="openai/x", api_base=os.environ["MODELS"])\n'


def found(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Return what the check says of an agents file, where no key is set."""
    for names in KEY_VARIABLES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    (folder / "agents.py").write_text(source, encoding="utf-8")
    return _model_key(load_settings())


def test_no_key_is_missing_where_each_agent_names_its_server(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the servers, without passwords, and asks for nothing."""
    check = found(OWN + READ, empty_folder, monkeypatch)
    assert check.detail == "not needed: each agent names its own server (127.0.0.1:8000/v1, by an expression)"
    assert check.hint == ""


@pytest.mark.parametrize("source", [OWN + 'Agent("c", "openai/x")\n', "", "Agent(", 'Agent("d", "m", api_base=None)\n'])
def test_a_missing_key_is_told_where_one_agent_needs_it(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """One agent without a server of its own is enough; so is a file that cannot be read."""
    check = found(source, empty_folder, monkeypatch)
    assert check.detail == "none is set: offline/extractive stands in"
    assert "OPENAI_API_KEY" in check.hint


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "huge", "folder", "import"])
def test_no_agents_file_keeps_doctor_waiting(empty_folder: Path, kind: str) -> None:
    """A pipe without a writer hung it, and a file without an end took all memory; a file it imports counts as well."""
    path = empty_folder / "agents.py"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/dev/zero")
    elif kind == "huge":
        path.touch()
        os.truncate(path, 1 << 40)  # takes no room
    elif kind == "folder":
        path.mkdir()
    elif kind == "import":
        path.write_text("import helper\n")
        os.mkfifo(empty_folder / "helper.py")
        assert imported_files(path) == {path, empty_folder / "helper.py"}
        assert file_hash(empty_folder / "helper.py") is None
    settings = load_settings(agents="/dev/zero" if kind == "device" else None)
    check = _agents(settings)
    assert check.ok == (kind == "import")
    assert kind in ("import", "folder") or re.search("no plain file|larger than", check.detail)
    assert _model_key(settings).ok
    if kind != "import":
        with pytest.raises(AgentsFileError):
            load_agents(settings.agents)


def account(name: str, uid: int, shell: str) -> pwd.struct_passwd:
    """Return an account of the machine."""
    return pwd.struct_passwd((name, "x", uid, uid, "", f"/home/{name}", shell))


@pytest.mark.parametrize(
    ("accounts", "logged_in", "named"),
    [
        ([], [], []),
        ([account("ann", 1001, "/bin/bash"), account("daemon", 2, "/bin/sh")], [], ["ann"]),
        ([account("svc", 1002, "/usr/sbin/nologin"), account("off", 1003, "/bin/false")], [], []),
        ([account("embedded_postgres", 1004, "/bin/bash")], [], []),
        ([], ["bob", "root"], ["bob"]),
        ([account(f"u{n}", 1001 + n, "/bin/zsh") for n in range(7)], [], ["u0", "u4", "and 2 more"]),
    ],
)
def test_others_on_the_machine_are_named(
    monkeypatch: pytest.MonkeyPatch, accounts: list[pwd.struct_passwd], logged_in: list[str], named: list[str]
) -> None:
    """Whoever starts servers without a password hears who can reach them; oneself, root and daemons do not count."""
    mine = account("me", os.geteuid() or 1000, "/bin/bash")
    monkeypatch.setattr(os, "geteuid", lambda: mine.pw_uid)
    monkeypatch.setattr(pwd, "getpwall", lambda: [mine, account("root", 0, "/bin/bash"), *accounts])
    monkeypatch.setattr(psutil, "users", lambda: [SimpleNamespace(name=name) for name in ["me", *logged_in]])
    said = warning()
    assert (said is None) == (named == [])
    assert all(name in (said or "") for name in named)
    assert "can read runs and decide approvals" in (said or "can read runs and decide approvals")
