"""The text that a person edits, what is read of it, and which editor opens."""

from __future__ import annotations

import sys

import pytest

from holdfast.cli.edit import editor_command, parse_edited, render_call
from holdfast.errors import InvalidInput

SCHEMA = {
    "type": "object",
    "properties": {"amount": {"type": "number", "description": "US dollars"}, "why": {"type": ["string", "null"]}},
    "required": ["amount"],
    "additionalProperties": False,
}


def test_what_is_not_touched_reads_as_it_was() -> None:
    """Arguments survive the way to the editor and back, lines that look like remarks too."""
    args = {"amount": 4.5, "why": "// not a remark\n# nor this\u2028 \x1b[2J"}
    text = render_call("refund", args, SCHEMA)
    assert "\x1b" not in text
    assert parse_edited(text, "refund", SCHEMA) == args


def test_the_text_says_what_the_tool_takes() -> None:
    """Each argument with its type, whether it must be there, and its description."""
    text = render_call("refund", {}, SCHEMA)
    assert "// amount: number, required. US dollars" in text
    assert "// why: string or null" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"amount": }', "line 1 column 12"),
        ("// remark\n{\n  'amount': 1}", "line 3"),
        ("[1]", "one JSON object"),
        ("{}", "'amount' is a required property"),
        ('{"amount": "x"}', "- amount: 'x' is not of type 'number'"),
        ('{"amount": 1, "other": 2}', "other"),
    ],
)
def test_what_does_not_fit_is_named(text: str, words: str) -> None:
    """With the line in the file as it is seen, or the argument."""
    with pytest.raises(InvalidInput) as wrong:
        parse_edited(text, "refund", SCHEMA)
    assert words in str(wrong.value)


def test_an_emptied_text_is_no_arguments() -> None:
    """Remarks alone mean that nothing shall be sent."""
    assert parse_edited("// only\n\n  // remarks\n", "refund", SCHEMA) is None


def test_the_editor_is_the_persons(monkeypatch: pytest.MonkeyPatch) -> None:
    """$VISUAL before $EDITOR, with its arguments; one that is not there is named; none at all has a way out."""
    monkeypatch.setenv("EDITOR", "no-such-editor")
    monkeypatch.setenv("VISUAL", f"'{sys.executable}' --wait")
    assert editor_command() == [sys.executable, "--wait"]
    monkeypatch.delenv("VISUAL")
    with pytest.raises(InvalidInput, match="no program no-such-editor"):
        editor_command()
    monkeypatch.setenv("EDITOR", "'unbalanced")
    with pytest.raises(InvalidInput, match="no command line"):
        editor_command()
    monkeypatch.delenv("EDITOR")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InvalidInput, match="--args"):
        editor_command()
