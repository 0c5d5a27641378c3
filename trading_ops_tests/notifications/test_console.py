"""Does the person at the terminal read what was written, and nothing else?"""

import io
import sys

import pytest

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.console import ConsoleChannel


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def printed(
    what: str = "w", why: str = "y", todo: str = "d", *, severity=Severity.ERROR, duplicate=False, to=None
) -> str:
    stream = io.StringIO() if to is None else to
    ConsoleChannel(stream).send(Alert(severity, "key", what, why, todo), possible_duplicate=duplicate)
    return stream.getvalue()


def test_an_alert_is_what_why_what_to_do_and_its_key():
    assert printed("rsi lost 12 %", "above 10 %", "Look.") == (
        " ERROR  rsi lost 12 %\n   why  above 10 %\n   do   Look.\n   key  key\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "[red]not a colour[/red]",
        "[/]",
        "[bold",
        "\\[escaped]",
        ":warning: :smile:",
        "<!channel> & <b>",
        "https://example.org/?a=1&b=2 12.5 'quoted' None",
        "Zürich 日本語 🚨 ±3 %",
        "x" * 400,
    ],
)
def test_a_text_is_printed_literally_and_on_one_line(text: str):
    assert printed(text, text, text) == f" ERROR  {text}\n   why  {text}\n   do   {text}\n   key  key\n"


def test_the_further_lines_of_a_text_are_indented_below_the_first():
    assert printed(why="rsi bled\nmacd too\n[red]x", todo="Look.") == (
        " ERROR  w\n   why  rsi bled\n        macd too\n        [red]x\n   do   Look.\n   key  key\n"
    )


@pytest.mark.parametrize("severity", list(Severity))
def test_colours_only_where_it_is_a_terminal(severity: Severity):
    assert "\x1b" not in printed(severity=severity)
    coloured = printed(severity=severity, to=Terminal())
    assert "\x1b[" in coloured
    assert f" {severity} " in coloured


def test_a_possible_duplicate_is_marked():
    assert printed(duplicate=True).splitlines()[0] == " ERROR  w (possible duplicate)"
    assert "duplicate" not in printed(duplicate=False)


def test_it_prints_to_standard_error_as_it_is_at_that_time(capsys: pytest.CaptureFixture[str]):
    channel = ConsoleChannel()
    with pytest.MonkeyPatch.context() as patch:
        replaced = io.StringIO()
        patch.setattr(sys, "stderr", replaced)
        channel.send(Alert(Severity.INFO, "k", "hello", "", ""), possible_duplicate=False)
    assert "hello" in replaced.getvalue()
    assert capsys.readouterr().out == ""


def test_an_escape_sequence_in_a_text_is_not_obeyed():
    assert "\x1b" not in printed("\x1b[2J\x1b[31mrsi", to=io.StringIO())


def test_a_stream_that_cannot_be_written_to_is_a_failed_delivery():
    closed = io.StringIO()
    closed.close()
    with pytest.raises(DeliveryError):
        ConsoleChannel(closed).send(Alert(Severity.INFO, "k", "w", "y", "d"), possible_duplicate=False)


def test_a_terminal_that_knows_no_unicode_still_tells_the_alert():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace", write_through=True)
    ConsoleChannel(stream).send(Alert(Severity.INFO, "k", "±3 % 🚨", "", ""), possible_duplicate=False)
    assert b"\\xb13 %" in stream.buffer.getvalue()
