"""Tell the person at the terminal."""

from __future__ import annotations

from typing import TextIO

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.text import message_of

STYLES = {
    Severity.INFO: "cyan",
    Severity.WARNING: "yellow",
    Severity.ERROR: "red",
    Severity.CRITICAL: "bold white on red",
}
NEUTRAL = "bright_black"
RESOLVED = "green"


class ConsoleChannel:
    """Prints alerts to the stream (standard error by default); colours only where it is a terminal."""

    name = "console"
    deduplicates = False
    updates = False
    reports = True
    target = "the terminal and the run's log"

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> str | None:
        try:
            self._print(alert, possible_duplicate)
        except (OSError, ValueError) as error:
            raise DeliveryError(f"console: {error}") from error
        return None

    def _print(self, alert: Alert, possible_duplicate: bool) -> None:
        import sys

        from rich.console import Console
        from rich.text import Text

        console = Console(file=self._stream or sys.stderr, soft_wrap=True, highlight=False)
        # Text, not markup: what an alert quotes is data and may contain brackets
        message = message_of(alert, possible_duplicate=possible_duplicate)
        style = RESOLVED if message.resolved else STYLES.get(alert.severity, NEUTRAL)
        headline = Text(f" {message.label} ", style=style)
        headline.append(f" {_printable(alert.what)}", style="bold not reverse")
        if possible_duplicate:
            headline.append(" (possible duplicate)")
        console.print(headline)
        told = {"why": alert.why, "at ": message.since, "did": alert.done, "do ": alert.what_to_do, "see": message.link,
                "key": message.footer}  # fmt: skip
        for label, text in told.items():
            for line in _printable(text).splitlines():
                console.print(Text(f"   {label}  {line}"))
                label = "   "


def _printable(text: str) -> str:
    """The text without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
