"""What a person who decides sees: nothing hidden, nothing reordered, and never the beginning alone."""

from __future__ import annotations

import io
import json
import unicodedata
from datetime import UTC, datetime

import pytest
from rich.console import Console

from holdfast.cli.questions import Question, Questions, is_bare_answer
from holdfast.cli.show import Detail, render_detail
from holdfast.cli.text import WHOLE, call_text
from holdfast.errors import InvalidInput
from holdfast.mcp.desk import ToolView
from holdfast.memory.pins import Offer
from holdfast.views import ApprovalView, RunStatus, WaitingCall
from holdfast.visible import first_line, fitted, is_fitted, visible, without_hidden


def test_hidden_characters_are_escapes_that_mean_the_same() -> None:
    """Bidirectional, zero-width and other characters that are not drawn are written out; JSON reads the same value."""
    hidden = "a\u202eb\u200bc\u2066d\ufeffe\u00adf\U000e0041g\u3164h\u2800i\x85"
    args = {"to": hidden, "name": "Zoë 😀 日本"}
    shown = visible(json.dumps(args, ensure_ascii=False))
    assert json.loads(shown) == args
    assert "Zoë 😀 日本" in shown
    assert not any(unicodedata.category(char) in ("Cf", "Cc") for char in shown)
    assert "\\u202e" in call_text("pay", args)


UNSEEN = (
    "\u3164\u115f\uffa0\u2800\u034f\u17b4\u2028\ufff9\U0001d173\U000e0041\u200b\u202e\u00ad\u0085\U0001d159\U00013430"
)


@pytest.mark.parametrize("char", UNSEEN, ids=lambda char: f"U+{ord(char):04X}")
def test_one_list_of_hidden_characters_serves_all(char: str) -> None:
    """What an approval writes out makes an MCP server's tool suspect too, is written out there, and cut from pages."""
    text = f"pay{char}ments"
    offer = Offer("pay", text, {})
    view = ToolView("s", "pay", "s__pay", "new", {}, {}, None, offer)
    assert char not in visible(text)
    assert offer.hides
    assert Offer("pay", "", {"properties": {text: {}}}).hides
    assert not any(char in line for line in view.diff())
    assert without_hidden(text) == "payments"


def test_ordinary_texts_hide_nothing() -> None:
    """Emoji are joined and have selectors, lines end in CR LF; runs of such characters carry messages."""
    for text in ("Zoë ❤️\u200d🔥 👩\u200d💻 ✏️", "one\r\ntwo\tthree", "日本 العربية"):
        assert not Offer("a", text, {}).hides
        assert without_hidden(text) == text
    for text in ("a\ufe01\ufe02", "a\u200d\u200d", "a\ufe01\u200d\ufe02\u200d", "a\rb"):
        assert Offer("a", text, {}).hides


def test_a_call_that_is_decided_on_is_shown_to_its_end() -> None:
    """However long the arguments are, the last of them is there."""
    text = call_text("pay", {"note": "x" * 1990, "to": "mallory"}, WHOLE)
    assert text.endswith('to="mallory")')


def test_no_blank_of_an_argument_is_lost_or_hidden() -> None:
    """Two blanks are another argument than one, and a blank that is not U+0020 stands as its escape."""
    assert call_text("rm", {"path": "a  b"}) == 'rm(path="a  b")'
    assert call_text("rm", '{"path": "a  b", "x": "cut') == 'rm(path="a  b", x="cut…'
    blanks = [chr(code) for code in range(0x110000) if chr(code).isspace() and chr(code) != " "]
    for blank in blanks:
        shown = call_text("rm", {"path": f"a{blank}b"}, WHOLE)
        assert blank not in shown
        assert json.loads(shown.removeprefix("rm(path=").removesuffix(")")) == f"a{blank}b"


def test_a_pending_call_is_shown_whole_where_it_is_decided_on() -> None:
    """`holdfast show` cut a padded argument at its end, where the amount was."""
    args = {"note": "x" * 5000 + "   ", "to": "mallory  "}
    approval = ApprovalView(
        step_no=1, call_id="c", tool="pay", args_hash="h", state="pending", args=args, asked_at=datetime.now(UTC)
    )
    status = RunStatus(run_id="r" * 32, thread="t", agent="a", state="waiting", message="m")
    call = WaitingCall(run_id="s" * 32, thread="t", agent="b", step_no=1, tool="pay", kind="approval", args=args)
    console = Console(file=io.StringIO(), width=80)
    render_detail(Detail(status, [], [approval], [], None, None, waiting=[call]), console)
    assert console.file.getvalue().count(f'{"x" * 5000}   ", to="mallory  ")') == 2  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def test_what_is_too_long_loses_its_middle() -> None:
    """Beginning and end stay, and how much is left out between is said."""
    text = fitted("a" * 500 + "b" * 5000 + "c" * 500, 1000)
    assert text.startswith("a" * 460)
    assert text.endswith("c" * 460)
    assert "5,080 of 6,000" in text
    assert len(text) <= 1000
    assert is_fitted(text)
    assert fitted("short", 1000) == "short"


def test_the_first_line_of_a_message() -> None:
    """It is the first that has words, on one line, and not longer than is asked for."""
    assert first_line("\n  \n refund \t 17\nplease", 64) == "refund 17"
    assert first_line("x" * 100, 64) == "x" * 63 + "…"
    assert first_line("", 64) == ""


class _Run:
    def __init__(self, run_id: str) -> None:
        self.run_id = run_id


def _question(run: str, step: int) -> Question:
    return Question(_Run(run), step, "pay")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("text", ["yes", "Y", " no. ", "ok", "Edit", "okay!"])
def test_a_bare_answer_is_known(text: str) -> None:
    """What may be for the model's question as well."""
    assert is_bare_answer(text)
    assert not is_bare_answer(f"{text} please do")


def test_a_command_without_a_step_counts_for_what_was_seen() -> None:
    """A question that came up while the person typed is not the one they meant; a step always names one."""
    questions = Questions()
    with pytest.raises(InvalidInput, match="nothing waits"):
        questions.meant("")
    questions.line_begun()
    questions.add(_question("one", 7))
    with pytest.raises(InvalidInput, match="give the step"):
        questions.meant("")
    assert questions.meant("7 too much") == (_question_of(questions), "too much")
    questions.head(80)
    questions.line_begun()
    assert questions.meant("too much")[1] == "too much"
    questions.add(_question("two", 7))
    with pytest.raises(InvalidInput, match="several runs"):
        questions.meant("7")
    questions.drop("one")
    with pytest.raises(InvalidInput, match="give the step"):
        questions.meant("")
    questions.drop("two", 7)
    assert not questions


def _question_of(questions: Questions) -> Question:
    return questions.meant("7")[0]
