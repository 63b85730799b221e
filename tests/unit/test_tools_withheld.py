"""What models are neither shown nor let at by the file tools: keys, code that workers load, the stack's own folder."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ConfigurationError, ToolError
from holdfast.server.home import make_home
from holdfast.tools import ToolContext, files, queries
from holdfast.tools.builtin.withheld import is_withheld
from holdfast.tools.imports import is_loaded
from holdfast.tools.tool import AnyTool
from holdfast.tools.toolset import Toolset

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\n-----END OPENSSH PRIVATE KEY-----\n"

WITHHELD = [
    "holdfast.toml", "HOLDFAST.TOML", "sub/holdfast.toml", "holdfast.toml.bak", "holdfast.toml~", ".holdfast.toml.swp",
    ".ssh/config", ".ssh/id_ed25519", "home/.aws/credentials", ".aws/config", ".netrc", "_netrc", ".npmrc",
    ".yarnrc.yml", ".git-credentials", ".pypirc", ".pgpass", ".my.cnf", ".env", ".ENV", ".env.local", ".env-prod",
    ".envrc", "prod.env", "config/prod.ENV", ".env.swp", "prod.env.bak", "id_rsa", "id_rsa.old", "deploy_key.pem",
    "tls/server.key", "a.p12", "a.pfx", "a.jks", "a.kdbx", "a.ppk", ".kube/config", ".docker/config.json",
    ".gnupg/secring.gpg", ".vault-token", "credentials.json", "client_secret_1.apps.json", "service-account.json",
    "application_default_credentials.json", "terraform.tfstate", "terraform.tfstate.backup", "prod.tfvars",
    ".htpasswd", ".bash_history", ".psql_history", ".git/config", ".g\u200cit/config", ".\uff47it/config",
    ".git./config", ".holdfast/stack.json", ".Holdfast/stack.json", ".hg/hgrc", "repo.git/config", "secrets.yaml",
    ".config/gcloud/access_tokens.db",
]  # fmt: skip
SHOWN = [
    "README.md", "docs/env.md", "environment.txt", "environ.py", "src/hooks/use.ts", "keys.py", "key.txt", "id_rsa.pub",
    "monkey.py", "gitignore.txt", ".gitignore", ".github/workflows/ci.yml", "credentials.md", "pyproject.toml",
    "service_account_guide.md", "history.md", "holdfast.md", "token.py", "pem.txt",
]  # fmt: skip


def _context(number: int) -> ToolContext:
    return ToolContext(
        idempotency_key=f"{number:064x}", tenant="t", thread="c", run_id="r", step_no=1, deadline=time.monotonic() + 60
    )


_numbers = iter(range(1, 10**6))


def _call(tool: AnyTool, **args: Any) -> str:
    result: str = tool(**tool.bind(tool.validate(args), _context(next(_numbers))))
    return result


def _made(root: Path, *paths: str, text: str = "launch code\n") -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)


def test_files_with_keys_are_neither_shown_nor_written(tmp_path: Path) -> None:
    """By name, in whatever case, copy or spelling; listing, searching, reading and writing alike."""
    _made(tmp_path, *WITHHELD)
    _made(tmp_path, *SHOWN, text="nothing\n")
    tools = Toolset(files(tmp_path, write=True))
    assert set(_call(tools["list_files"]).splitlines()) == set(SHOWN)
    assert "launch" not in _call(tools["search_files"], query="nothing")
    assert "nothing found" in _call(tools["search_files"], query="launch code")
    for path in WITHHELD:
        for name, args in (("read_file", {}), ("write_file", {"content": "x", "overwrite": True}), ("delete_file", {})):
            with pytest.raises(ToolError, match=r"not shown|may not be written"):
                _call(tools[name], path=path, **args)
        assert (tmp_path / path).read_text() == "launch code\n"
    for path in SHOWN:
        assert _call(tools["read_file"], path=path).endswith("nothing")


async def test_queries_do_not_show_them_either(tmp_path: Path) -> None:
    """A CSV of keys is a file of keys."""
    _made(tmp_path, "prod.env", text="a,b\n1,2\n")
    tool = Toolset(queries(tmp_path))["csv_query"]
    with pytest.raises(ToolError, match="not shown"):
        await tool(**tool.bind(tool.validate({"sql": "select * from data", "path": "prod.env"}), _context(1)))


def test_a_private_key_is_not_shown_under_any_name(tmp_path: Path) -> None:
    """It is known by its text; words about one are not."""
    _made(tmp_path, "notes.txt", text=f"my key:\n{KEY}")
    _made(tmp_path, "about.md", text="A key begins with -----BEGIN PRIVATE KEY----- and a line end.\n")
    tools = Toolset(files(tmp_path))
    with pytest.raises(ToolError, match="private key"):
        _call(tools["read_file"], path="notes.txt")
    assert "nothing found" in _call(tools["search_files"], query="b3BlbnNzaC1rZXktdjEAAAAABG5vbmU")
    assert "BEGIN PRIVATE KEY" in _call(tools["read_file"], path="about.md")


def test_a_user_may_show_some(tmp_path: Path) -> None:
    """By pattern, those alone; what belongs to git and Holdfast is never shown."""
    _made(tmp_path, "certs/a.pem", "certs/b.key", ".npmrc", ".git/config", text=KEY)
    tools = Toolset(files(tmp_path, allow=["certs/*.pem", ".git/*"]))
    assert _call(tools["list_files"]) == "certs/a.pem"
    assert "BEGIN" in _call(tools["read_file"], path="certs/a.pem")
    for path in ("certs/b.key", ".npmrc", ".git/config"):
        with pytest.raises(ToolError, match="not shown"):
            _call(tools["read_file"], path=path)
    for wrong in ("certs/*.pem", ["../*"]):
        with pytest.raises(ConfigurationError, match="allow"):
            files(tmp_path, allow=wrong)


def test_the_stacks_folder_is_withheld_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HOLDFAST_HOME may give it any name, and it has a password in it."""
    _made(tmp_path, "state/stack.json", "a.txt")
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "state"))
    tools = Toolset(files(tmp_path))
    assert _call(tools["list_files"]) == "a.txt"
    with pytest.raises(ToolError, match="not shown"):
        _call(tools["read_file"], path="state/stack.json")


LOADED = [
    "agents.py", "AGENTS.py", "tools/pay.py", "tools/__init__.py", "tools/later.py", "words.py", "json.py", "yaml.py",
    "yaml/__init__.py", "pydantic.so", "sitecustomize.py", "usercustomize.py", "lazy.py",
]  # fmt: skip
NEW = [
    "colorama.py", "better_exceptions/__init__.py", "twisted/internet.py", "brotlicffi.so", "simplejson.pyc", "x.pth",
    "socks.cpython-311-x86_64-linux-gnu.so", "notes/agents.py", "Evil.dist-info/entry_points.txt",
    "evil.egg-info/entry_points.txt", "__pycache__/words.cpython-311.pyc", "my-notes/__pycache__/a.cpython-311.pyc",
]  # fmt: skip
FREE = ["notes/agents.md", "report/words.txt", "data.json", "my-notes/script.py", "my-script.py", "v1.2/a.py"]


def test_what_workers_load_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the agents file nor what it imports, there or not yet, nor a module that would hide another one."""
    _made(
        tmp_path,
        "agents.py",
        text="import words, tools.pay\ndef f():\n    from lazy import x\n    import tools.later\n",
    )
    _made(tmp_path, "tools/__init__.py", "tools/pay.py", text="")
    monkeypatch.setenv("HOLDFAST_AGENTS", str(tmp_path / "agents.py"))
    monkeypatch.syspath_prepend(tmp_path)
    _made(tmp_path / "elsewhere", "notes/a.txt", "report/b.txt")  # folders of these names are no modules
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    tools = Toolset(files(tmp_path, write=True))
    for path in LOADED:
        with pytest.raises(ToolError, match="run as code"):
            _call(tools["write_file"], path=path, content="x", overwrite=True)
    for path in ("agents.py", "tools/pay.py"):
        with pytest.raises(ToolError, match="run as code"):
            _call(tools["delete_file"], path=path)
        with pytest.raises(ToolError, match="run as code"):
            _call(tools["patch_file"], path=path, old="x", new="y")
    for path in FREE:
        assert _call(tools["write_file"], path=path, content="x").startswith("created")


def test_no_new_module_is_written_where_an_import_could_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries try modules that are not installed: what a model puts under such a name would run in the workers."""
    _made(tmp_path, "agents.py", "helper.py", "work/a.txt", text="")
    monkeypatch.setenv("HOLDFAST_AGENTS", str(tmp_path / "agents.py"))
    monkeypatch.syspath_prepend(tmp_path / "nowhere")  # load_agents has not run: the agents file's folder counts alone
    write = Toolset(files(tmp_path, write=True))["write_file"]
    for path in NEW:
        with pytest.raises(ToolError, match="may not be written"):
            _call(write, path=path, content="x")
    assert _call(write, path="helper.py", content="x", overwrite=True), "a person put it there"
    for path in FREE:
        assert _call(write, path=path, content="x").startswith("created")
    write = Toolset(files(tmp_path / "work", write=True))["write_file"]
    for path in ("colorama.py", "pkg/__init__.py"):
        assert _call(write, path=path, content="x").startswith("created"), "it is work.colorama to an import"


def test_installed_code_and_this_processs_own_is_not_written() -> None:
    """Whatever the root is: a model that may write there runs code in the worker."""
    for module in (os, pytest, time):
        assert is_loaded(Path(getattr(module, "__file__", None) or os.__file__))
    assert is_loaded(Path(pytest.__file__).parent / "new.txt")
    assert is_loaded(Path(__file__))


def test_what_git_and_editors_run_is_not_written(tmp_path: Path) -> None:
    """Hooks of a repository without a work tree too; a folder that is only called hooks is nothing special."""
    _made(tmp_path, "bare/HEAD")
    write = Toolset(files(tmp_path, write=True))["write_file"]
    for path in (".git/hooks/pre-commit", "x/.git/hooks/post-merge", "bare/hooks/post-receive", ".husky/pre-push",
                 ".vscode/tasks.json"):  # fmt: skip
        with pytest.raises(ToolError, match=r"may not be written"):
            _call(write, path=path, content="x")
    assert _call(write, path="src/hooks/use.ts", content="x").startswith("created")


def test_the_journals_folder_is_nobody_elses(tmp_path: Path) -> None:
    """Whoever makes `.holdfast`, a tool or the stack, and whatever it was before."""
    for name in ("new", "open"):
        (tmp_path / name).mkdir()
    (tmp_path / "open/.holdfast").mkdir(mode=0o755)
    for name in ("new", "open"):
        _call(Toolset(files(tmp_path / name, write=True))["write_file"], path="a.txt", content="x")
        assert (tmp_path / name / ".holdfast").stat().st_mode & 0o777 == 0o700
    (tmp_path / "home").mkdir(mode=0o755)
    make_home(tmp_path / "home")
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("part", ["", ".", "a" * 300, "\u200b", "...", " "])
def test_odd_names_are_only_names(part: str) -> None:
    """Nothing is left of some when what has no width is dropped."""
    assert not is_withheld((part,))


@pytest.mark.parametrize(
    "path", ["proc/self/environ", "proc/1/cmdline", "dev/stdin", "sys/kernel/uevent_seqnum", "run/secrets/x"]
)
def test_what_the_system_shows_of_processes_is_withheld(path: str) -> None:
    """The environment of a worker has its keys, and a root may be as wide as `/`."""
    with pytest.raises(ToolError, match="not shown"):
        _call(Toolset(files("/"))["read_file"], path=path)
