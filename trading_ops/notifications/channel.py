"""What must a way to reach people be able to do, and what does it say when it could not?"""

from __future__ import annotations

from typing import Protocol

from trading_ops.notifications.alert import Alert, Severity, Step


class Channel(Protocol):
    """One way to reach people; raises DeliveryError with a reason fit to be stored and shown."""

    name: str

    @property
    def deduplicates(self) -> bool:
        """Whether the receiver recognises an alert that it was sent before, so that a repeat is told once."""
        ...

    @property
    def updates(self) -> bool:
        """Whether an incident's news can be shown where it was told, so that nobody is told anew."""
        ...

    @property
    def reports(self) -> bool:
        """Whether what is no emergency, such as a daily report, has a place here."""
        ...

    @property
    def target(self) -> str:
        """Who is reached, fit to be shown: no secret and no part of one."""
        ...

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> str | None:
        """Deliver it; what the receiver calls the message, None where it gives no name.

        `opening`: the name that the message got which opened the alert's incident.
        """
        ...


def concerns(channel: Channel, alert: Alert) -> bool:
    """Whether the alert has a place on the channel."""
    if alert.step is Step.UPDATED and not channel.updates:
        return False
    if alert.step is Step.GROUPED:  # people read of it in the message about several
        return not channel.reports
    no_emergency = alert.incident is None and alert.severity == Severity.INFO
    return channel.reports or not (no_emergency or alert.step is Step.SEVERAL)


class DeliveryError(Exception):
    """A channel did not take the alert; the message says why and holds no secret.

    `retry_after_s`: what the receiver asked to wait. `permanent`: the same message will not be taken later either.
    `in_doubt`: it may have arrived all the same, for the answer is missing. `unanswered`: nobody was there in time, so
    the next message will hardly fare better.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        permanent: bool = False,
        in_doubt: bool = False,
        unanswered: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.permanent = permanent
        self.in_doubt = in_doubt
        self.unanswered = unanswered
