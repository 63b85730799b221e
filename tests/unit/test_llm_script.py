"""Scripts of the model server: what is wrong in one is told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import ConfigurationError
from holdfast.testing import Script
from holdfast.testing.script import Turn


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping"),
        ("conversations: [", "line 1"),
        ("conversations:\n  - replies:\n      - sya: hello\n", r"line 3: conversations\[1\]\.replies\[1\]"),
        ("conversations:\n  - replies:\n      - say: a\n        fault: {status: 99}\n", "line 4.*fault.*status"),
        ("conversations:\n  - replies:\n      - say: a\n      - {}\n", "line 4.*needs one of say, call, fault"),
        ("conversations:\n  - when: /(/\n    replies: [{say: a}]\n", "line 2.*no regular expression"),
        ("conversations:\n  - replies:\n    - call: nonsense\n", "line 3.*write a call as"),
        ("conversations:\n  - replies:\n    - call: {a: 3}\n", "line 3.*arguments of a must be"),
        ("model: a\nmodel: b\n", "line 2: model twice"),
        ("model: a\n", "conversations: Field required"),
    ],
)
def test_a_wrong_script_names_its_line(text: str, message: str) -> None:
    """Each mistake is a ConfigurationError that says where and what."""
    with pytest.raises(ConfigurationError, match=message):
        Script.parse(text)


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    """A script that is not there is named."""
    with pytest.raises(ConfigurationError, match=r"none\.yaml could not be read"):
        Script.load(tmp_path / "none.yaml")


def test_the_first_match_wins_and_regexes_match() -> None:
    """Conversations are tried in order, by the user's last message, the system's, or all of the thread."""
    script = Script.parse(
        "conversations:\n"
        "  - {when: '/orders? \\d+/', replies: [{say: regex}]}\n"
        "  - {when: {system: judge}, replies: [{say: system}]}\n"
        "  - {when: {thread: blue, user: go}, replies: [{say: thread}]}\n"
        "  - {replies: [{say: rest}]}\n"
    )

    def said(*messages: tuple[str, str]) -> str | None:
        turn = script.choose({"messages": [{"role": role, "content": text} for role, text in messages]})
        assert isinstance(turn, Turn)
        return turn.reply.say

    assert said(("user", "Order 17")) == "regex"
    assert said(("system", "You judge."), ("user", "go")) == "system"
    assert said(("user", "blue"), ("assistant", "ok"), ("user", "go")) == "thread"
    assert said(("user", "blue")) == "rest"


def test_calls_are_read_in_each_spelling() -> None:
    """One mapping, a list of mappings, raw text: all are calls, in their order."""
    script = Script.parse(
        "conversations:\n  - replies:\n"
        "    - call: {a: {x: 1}, b: }\n    - call: [{a: {}}, {a: {}}]\n    - call: {a: '{\"x\": '}\n"
    )
    replies = script.conversations[0].replies
    assert replies[0].call == [("a", {"x": 1}), ("b", {})]
    assert [name for name, _ in replies[1].call] == ["a", "a"]
    assert replies[2].call == [("a", '{"x": ')]


def test_replies_may_be_counted_from_one_message_on() -> None:
    """With `since`, a later message of a user, such as a correction, does not begin anew."""
    script = Script.parse(
        "conversations:\n  - since: |\n      do it\n    replies: [{say: one}, {say: two}, {say: three}]\n"
        "  - replies: [{say: rest}]\n"
    )

    def said(*messages: str) -> str | None:
        roles = {"u": "user", "a": "assistant"}
        turn = script.choose({"messages": [{"role": roles[m[0]], "content": m[2:]} for m in messages]})
        return turn.reply.say if isinstance(turn, Turn) else turn

    assert said("u:do it") == "one"
    assert said("u:before", "a:x", "u:do it", "a:one", "u:mend it", "a:two", "u:again") == "three"
    assert said("u:do it", "a:x", "u:do it", "a:one") == "two", "the same message again is another run"
    assert said("u:please do it") == "rest", "it is the whole message, not a part of it"
    assert "has 3 replies" in str(said("u:do it", "a:1", "a:2", "a:3"))
