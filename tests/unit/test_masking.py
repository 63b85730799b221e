"""What is secret shows nowhere: not in settings' errors, addresses, representations, logs, nor in another encoding."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import structlog

from holdfast.cli.stack import ready_screen
from holdfast.errors import ConfigurationError, StorageError
from holdfast.llm.resolve import key_variables
from holdfast.log import configure_logging
from holdfast.memory.database import connect
from holdfast.secrets import Mask, address, mask
from holdfast.server import doctor
from holdfast.settings import Settings, load_settings

SECRETS = [
    "hunter2!", "p@ss/w?rd#1", "kürzlich+geheim", "a b&c=d%e", "x<y>z'&+/=1",
    "key/with/slashes+1", "pair😀of&units", "sk-proj-0123456789abcdef", "s3cret\nof two lines",
    'quo"ted\\one', "tail~_-.", "\x1bescape", "日本語パスワード",
]  # fmt: skip


def every_percent(value: str) -> str:
    """Encode each byte, as some libraries do."""
    return "".join(f"%{byte:02x}" for byte in value.encode())


def escaped(value: str, characters: str, form: Callable[[str], str]) -> str:
    """Return JSON, without its quotes, with these characters in a form that some library gives them."""
    inner = json.dumps(value)[1:-1]
    return "".join(form(char) if char in characters else char for char in inner)


ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda value: value,
    "json": json.dumps,
    "json in json": lambda value: json.dumps(json.dumps(value)),
    "json, not ascii": lambda value: json.dumps(value, ensure_ascii=False),
    "json of PHP": lambda value: escaped(value, "/", lambda char: "\\/" + char[1:]),
    "json of Go": lambda value: escaped(value, "<>&", lambda char: f"\\u{ord(char):04x}"),
    "json of .NET": lambda value: escaped(value, "<>&+'`", lambda char: f"\\u{ord(char):04X}"),
    "json of Go in json": lambda value: json.dumps(escaped(value, "<>&", lambda char: f"\\u{ord(char):04x}")),
    "html": html.escape,
    "html by numbers": lambda value: "".join(
        c if c.isalnum() or not c.isprintable() else f"&#{ord(c)};" for c in value
    ),
    "html by hex numbers": lambda value: "".join(
        c if c.isalnum() or not c.isprintable() else f"&#x{ord(c):X};" for c in value
    ),
    "html by names": lambda value: (
        html.escape(value).replace("+", "&plus;").replace("/", "&sol;").replace("=", "&equals;")
    ),
    "html in json": lambda value: json.dumps(html.escape(value)),
    "html in json of Go": lambda value: html.escape(value).replace("&", "\\u0026"),
    "repr": repr,
    "quote": quote,
    "quote, all": lambda value: quote(value, safe=""),
    "quote, lower": lambda value: quote(value, safe="").replace("%2F", "%2f").replace("%3F", "%3f"),
    "quote of a script": lambda value: quote(value, safe="!*'()~"),
    "plus": quote_plus,
    "every byte": every_percent,
    "hex": lambda value: value.encode().hex(),
    "HEX": lambda value: value.encode().hex().upper(),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64url": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "base64url, no padding": lambda value: base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("value", SECRETS)
def test_a_secret_is_masked_in_every_encoding(value: str, encoding: str) -> None:
    """Libraries, servers and tools show values in forms of their own."""
    shown = Mask([value])(f"before {ENCODINGS[encoding](value)} after")
    assert shown.replace('"', "").replace("'", "").replace("\\", "").replace("=", "") == "before *** after"


@pytest.mark.parametrize("user", ["", "a", "an", "ann", "ännchen"])
@pytest.mark.parametrize("value", SECRETS)
def test_a_password_is_masked_within_basic_authentication(value: str, user: str) -> None:
    """There it is the end of a longer text, and its letters depend on how long the beginning is."""
    header = base64.b64encode(f"{user}:{value}".encode()).decode()
    shown = Mask([value])(f"authorization: Basic {header}")
    assert "***" in shown
    kept = shown.partition("Basic ")[2].partition("***")[0]
    left = base64.b64decode(kept[: len(kept) // 4 * 4], validate=True)
    assert len(left) <= len(f"{user}:".encode())


def test_other_text_stays_as_it_is() -> None:
    """Percent signs, Base64 and hex of other things are not touched."""
    text = "100% of %41 and aGVsbG8gd29ybGQ= and 68656c6c6f, a+b"
    assert Mask(SECRETS)(text) == text


ADDRESSES = {
    "postgresql://ann:hunter22@db.example:5432/shop": "db.example:5432/shop",
    "postgresql://db.example/shop?user=ann&password=hunter22": "db.example/shop",
    "postgresql://db.example/shop?password=hunter@22": None,
    "postgresql://ann:hunter22@one:1,two:2/shop?target_session_attrs=read-write": "one:1,two:2/shop",
    "postgresql://ann:hunter/22@db.example/shop": None,
    "postgresql://ann:hunter#22@db.example/shop": None,
    "postgresql://ann:hunter?22@db.example/shop": None,
    "postgresql://[::1]:5432/shop": "[::1]:5432/shop",
    "postgresql://ann:hunter22": None,
    "https://ann:hunter22@qdrant.example:6333": "qdrant.example:6333",
    "hunter22": None,
    "": None,
}


@pytest.mark.parametrize("url", ADDRESSES)
def test_an_address_is_shown_without_what_is_secret(url: str) -> None:
    """Host, port and path: a password stands before the @ or among the parameters; where it is not clear, nothing."""
    shown = address(url)
    assert shown == (
        ADDRESSES[url] or "an address that is not shown (it does not have the form scheme://host:port/name)"
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOLDFAST_DATABASE_URL", "mysql://ann:hunter22@db/shop"),
        ("HOLDFAST_DATABASE_URL", "ann:hunter22@db/shop"),
        ("HOLDFAST_QDRANT_URL", "ann:hunter22@qdrant"),
        ("HOLDFAST_API_BASE", "hunter22"),
        ("HOLDFAST_TEMPORAL_ADDRESS", "https://ann:hunter22@x"),
    ],
)
def test_a_wrong_setting_that_may_be_secret_is_not_echoed(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """The error names the variable and the form, and other settings are still shown."""
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("HOLDFAST_WORKERS", "many")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "hunter22" not in str(caught.value)
    assert variable in str(caught.value)
    assert "HOLDFAST_WORKERS='many'" in str(caught.value)


def test_settings_show_no_password_in_their_representation() -> None:
    """They are printed by debuggers, failed assertions and exceptions."""
    settings = Settings(
        database_url="postgresql://ann:hunter22@db:5432/shop",
        qdrant_url="http://bob:hunter22@qdrant:6333",
        qdrant_api_key="hunter22",
        api_base="http://carl:hunter22@models/v1",
    )
    for shown in (repr(settings), str(settings), f"{settings!r}"):
        assert "hunter22" not in shown
        assert "db:5432/shop" in shown


async def test_no_error_of_the_database_shows_the_password() -> None:
    """Neither where nothing answers nor where the driver quotes what it could not read."""
    for url in (
        "postgresql://127.0.0.1:1/x?user=ann&password=hunter22",
        "postgresql://ann:hunter#22@127.0.0.1:1/x",
        "postgresql://ann:hunter/22@127.0.0.1:1/x",
    ):
        with pytest.raises(StorageError) as caught:
            await connect(url)
        shown = mask("".join(traceback.format_exception(caught.value)))
        assert "hunter" not in shown.replace(url, ""), "but for the call in this file"


def test_neither_doctor_nor_the_ready_screen_shows_a_password(tmp_path: Path) -> None:
    """Both name the servers that the settings name."""
    from tests.unit.test_server_state import stack

    settings = load_settings(
        home=tmp_path,
        database_url="postgresql://db:5432/shop?user=ann&password=hunter22",
        qdrant_url="http://bob:hunter22@qdrant:6333",
        api_base="http://carl:hunter22@models/v1",
        temporal_address="temporal:7233",
    )
    said = " ".join(f"{check.detail} {check.hint}" for check in doctor(settings))
    assert "hunter22" not in said
    assert "db:5432/shop" in said
    assert "qdrant:6333" in said
    info = stack(tmp_path, pid=1, create_time=0.0).model_copy(
        update={"database_url": settings.database_url, "qdrant_url": settings.qdrant_url}
    )
    assert "hunter22" not in repr(info)
    cells = [str(cell) for column in ready_screen(info, [], 2, 1.0).columns for cell in column.cells]
    assert "hunter22" not in " ".join(cells)
    assert "db:5432/shop" in cells


# ----------------------------------------------------------------------------------------------------- known to `mask`


def test_the_servers_passwords_and_keys_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process loads as settings or finds as provider keys is masked wherever it logs or stores an error."""
    monkeypatch.setenv("MISTRAL_API_KEY", "mistral-key-0123456789")
    load_settings(
        database_url="postgresql://ann:p%40ssword1@db/shop",
        qdrant_url="http://bob:qdrantpassword@qdrant",
        qdrant_api_key="qdrantkey1",
    )
    load_settings(database_url="postgresql://db/shop?user=ann&password=inquery77")
    key_variables("mistral")
    said = mask("p%40ssword1 p@ssword1 qdrantpassword qdrantkey1 inquery77 mistral-key-0123456789")
    assert said == "*** *** *** *** *** ***"


def test_variables_named_like_secrets_are_known_to_a_process_that_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM and tools take keys from the environment that nobody declared as secrets."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    monkeypatch.setenv("SOME_TOKEN", "default")  # an ordinary word
    out = io.StringIO()
    configure_logging(load_settings(), process="x", stream=out)
    logging.getLogger("theirs").warning("signed with wJalrXUtnFEMI/K7MDENG by default")
    assert "signed with *** by default" in out.getvalue()


def test_a_password_that_is_an_ordinary_word_blots_out_nothing() -> None:
    """Compose's trial has user, database and password of one name, which stands in every other line of a log."""
    load_settings(database_url="postgresql://shopper:shopper@db:5432/shop")
    assert mask("the shopper came") == "the shopper came"
    assert "shopper:shopper" not in mask("postgresql://shopper:shopper@db:5432/shop")


def test_the_command_line_masks_what_it_reports() -> None:
    """Also the traceback of HOLDFAST_DEBUG, which quotes arguments of the driver."""
    code = (
        "from holdfast.cli.problems import report\n"
        "from holdfast.settings import load_settings\n"
        "s = load_settings()\n"
        "try:\n    raise RuntimeError('bad ' + s.database_url)\n"
        "except RuntimeError as exc:\n    report(exc); report(exc, as_json=True)\n"
    )
    environment = {
        **os.environ,
        "HOLDFAST_DATABASE_URL": "postgresql://ann:hunter22@db/shop",
        "HOLDFAST_DEBUG": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert "RuntimeError" in done.stderr
    assert "hunter22" not in done.stderr + done.stdout


# ---------------------------------------------------------------------------------------------------------------- logs


@pytest.fixture
def restored() -> Iterator[None]:
    """Put the root logger and structlog back as they were."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("restored")
def test_a_console_line_is_one_line_and_drives_no_terminal() -> None:
    """What a model, tool or server said stands in logs: it can neither forge a line nor send an escape sequence."""
    out = io.StringIO()
    configure_logging(load_settings(log_format="console"), process="x", stream=out)
    hostile = "gone\x1b[2J\r\n2026-01-01T00:00:00Z [info] all is well\u202e\x9b31m"
    logging.getLogger("theirs").warning("failed: %s", hostile, extra={"why": hostile, "more": [hostile]})
    structlog.get_logger("ours").warning(hostile, tool=hostile)
    try:
        raise ValueError(hostile)
    except ValueError:
        logging.getLogger("theirs").exception("failed")
        structlog.get_logger("ours").exception("failed")
    said = out.getvalue()
    assert not [char for char in said if not char.isprintable() and char != "\n"]
    assert not [line for line in said.splitlines() if line.startswith("2026-01-01")]
    assert "ValueError: gone" in said
    assert said.count("Traceback (most recent call last)") == 2


def test_the_supervisors_log_is_as_safe(tmp_path: Path) -> None:
    """The detached server has a log of its own, which people read with `cat`."""
    log = tmp_path / "log"
    code = (
        "import logging, sys\n"
        "from pathlib import Path\n"
        "from holdfast.server.__main__ import _leave_terminal\n"
        f"_leave_terminal(Path({str(log)!r}))\n"
        "logging.getLogger('x').error('gone\\x1b[2J\\nforged')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    (line,) = log.read_text().splitlines()
    assert "gone\\x1b[2J\\nforged" in line
