"""A command that people copy means what it says, whatever was planted in the names it holds."""

import shlex
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trading_ops.cli.terminal import show_table
from trading_ops.commands import command, shell, visible
from trading_ops.guard.actions import CONFIRMED, OBSERVED, request, watching
from trading_ops.guard.telling import alert_of
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.incident import Incident, Policy
from trading_ops.notifications.text import CODE, message_of
from trading_ops.notifications.wording import worded

NOW = datetime(2025, 3, 9, 12, tzinfo=UTC)
HOSTILE = ["rsi; rm -rf ~", "$(reboot)", "`reboot`", "a'b\"c", "a  b", "x\nreboot", "\x1b[2Jrsi", "--by=x", "", "‮isr"]


@given(st.text(), st.text())
@example("rsi; rm -rf ~", "--by=x")
@example("x\nreboot", "")
@example("a'b\"c", "\u2028")
def test_a_shell_reads_the_names_back_as_they_were_but_for_what_nobody_can_see(name, reason):
    shown = command("strategies disable", name, reason=reason)
    assert shown.isprintable()  # one line, and nothing that a terminal obeys
    read = shlex.split(shown)
    options, names = ["--reason", visible(reason)], [visible(name)]
    assert read[:3] == ["trading-ops", "strategies", "disable"]
    assert read[3:] == ([*options, "--", *names] if name.startswith("-") else [*names, *options])
    if name.isprintable():
        assert visible(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_a_real_shell_runs_nothing_that_a_name_holds(name, tmp_path: Path):
    printed = subprocess.run(
        ["/bin/sh", "-c", shell("printf", "%s.", name)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (printed.stdout, printed.stderr) == (f"{visible(name)}.", "")


@pytest.mark.parametrize("name", HOSTILE)
def test_the_footer_of_a_critical_message_acknowledges_that_incident_and_does_nothing_else(name):
    alert = Alert(Severity.CRITICAL, "k", "it bleeds", "", "", incident=f"guard/{name}")
    _, _, copied = message_of(alert, possible_duplicate=False).footer.partition("acknowledge: ")
    assert shlex.split(copied) == ["trading-ops", "alerts", "ack", visible(f"guard/{name}")]
    assert copied.isprintable()


@pytest.mark.parametrize("name", [name for name in HOSTILE if "`" not in name])
def test_what_an_escalation_and_the_guard_advise_can_be_copied(name):
    alert = Alert(Severity.CRITICAL, "k", "it bleeds", "", "", incident=f"guard/{name}")
    incident = Incident(f"guard/{name}", alert, True, 1, NOW, NOW, NOW)
    escalated = worded(incident, Step.ESCALATED, "k2", NOW, Policy()).what_to_do
    assert copied(escalated) == [["trading-ops", "alerts", "ack", visible(f"guard/{name}")]]
    for phase, verb in ((CONFIRMED, "resume"), (OBSERVED, "disable")):
        stop = request(watching("bot", name), NOW, rule="daily_loss", why="it lost 12 %, the limit is 10 %")
        (words,) = copied(alert_of(stop, phase).what_to_do)
        assert words[:3] == ["trading-ops", "strategies", verb]
        assert visible(name) in words[3:]
        assert len(words) == 6 + name.startswith("-")


def copied(text: str) -> list[list[str]]:
    """The words of each command in a text, as people see it."""
    alert = Alert(Severity.CRITICAL, "k", "it bleeds", "", text)
    return [shlex.split(found) for found in CODE.findall(message_of(alert, possible_duplicate=False).what_to_do)]


def test_a_table_in_the_terminal_shows_a_name_as_it_is_and_obeys_none(capsys):
    show_table("strategies", ["strategy", "loss %"], [["[red]rsi[/red]\x1b[2J", 1.5]])
    said = capsys.readouterr().out
    assert "[red]rsi[/red]�[2J" in said
    assert "\x1b" not in said
