"""How are all components, looked at side by side, each a second time where the first look was bad?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from trading_ops.health.rules import LABELS, Status, Verdict
from trading_ops.notifications.lanes import Lane, TookTooLong, side_by_side

TRIES = 2
PAUSE = 0.05  # of the time that a look may take: what passes in a moment is given one


class ProbeFailed(Exception):
    """No answer; the message says why, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Probe:
    """How one component is looked at; `look` raises ProbeFailed where nobody answers, which is `silent`."""

    component: str
    look: Callable[[], Verdict]
    address: str = ""  # where, as it may be shown
    silent: Status = Status.DOWN


def check_up(probes: Sequence[Probe], *, timeout_s: float) -> list[Verdict]:
    """A verdict a probe, in their order. It takes at most two timeouts, whatever the probes do.

    A look that hangs is left behind in its thread.
    """
    verdicts: dict[str, Verdict] = {}
    lanes = [_look(probe, verdicts, timeout_s) for probe in probes]
    side_by_side(lanes, workers=max(len(lanes), 1), timeout_s=timeout_s)
    return [verdicts[probe.component] for probe in probes]


def _look(probe: Probe, verdicts: dict[str, Verdict], timeout_s: float) -> Lane:
    for tries in range(1, TRIES + 1):
        seen: list[Verdict] = []
        error = yield _later(probe, seen, PAUSE * timeout_s if tries > 1 else 0.0)
        verdict = seen[0] if error is None else _unanswered(probe, error, timeout_s)
        verdicts[probe.component] = replace(verdict, address=probe.address, tries=tries)
        if verdict.status not in (Status.UNHEALTHY, Status.DOWN):
            return


def _later(probe: Probe, seen: list[Verdict], pause_s: float) -> Callable[[], object]:
    def look() -> None:
        time.sleep(pause_s)
        seen.append(probe.look())

    return look


def _unanswered(probe: Probe, error: Exception, timeout_s: float) -> Verdict:
    label = LABELS[probe.component]
    if isinstance(error, ProbeFailed | TookTooLong):
        why = f"no answer within {timeout_s:g} s" if isinstance(error, TookTooLong) else str(error)
        return Verdict(probe.component, probe.silent, f"{label} is {probe.silent}: {why}")
    # an error nobody thought of may quote an address with a password, so its kind alone is told
    return Verdict(probe.component, Status.UNKNOWN, f"{label} is unknown: the probe failed ({type(error).__name__})")
