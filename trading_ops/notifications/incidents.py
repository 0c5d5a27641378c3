"""What has to be told about something that goes wrong, goes on, gets worse, comes back and ends?

Every change first alters what is so; `settle` then compares that with what people were told. So what they know follows
what is so, whatever was silenced, held back or killed in between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from trading_ops.audit.plain import plain
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.incident import MOMENTS, Incident, Policy
from trading_ops.notifications.wording import worded


def observe(
    known: Incident | None,
    alert: Alert,
    findings: Mapping[str, Severity],
    now: datetime,
    policy: Policy,
    *,
    silenced: bool = False,
    held_until: datetime | None = None,
) -> Incident:
    """It is seen. An opening that others may follow is held back until `held_until`, unless it is CRITICAL."""
    known = known and _steady(known, now, policy)
    if known is None or not known.open:
        known = _opened(known, alert, now, policy, now if silenced else held_until)
    seen = _rising(findings or {"": alert.severity})
    left = _left(known, now, policy)
    fresh = bool(seen - left.keys()) and not _told_locally(known, alert)
    gone = {about: since or now for about, since in left.items() if about not in seen}
    incident = replace(
        known,
        alert=alert,
        seen_at=now,
        count=known.count + 1,
        findings={**gone, **dict.fromkeys(sorted(seen))},
        news=known.news or fresh,
        outdated=known.outdated or fresh or _shown(alert) != _shown(known.alert),
    )
    if fresh and incident.acknowledged_by:
        incident = replace(incident, acknowledged_by=None, acknowledged_at=None, escalated=0)
    return settle(incident, now, policy, silenced=silenced)


def recover(known: Incident, now: datetime, policy: Policy, *, silenced: bool = False) -> Incident:
    """It is over."""
    known = _steady(known, now, policy)
    if known.open:
        gone = {about: since or now for about, since in _left(known, now, policy).items()}
        known = replace(known, open=False, changed_at=now, findings=gone)
        if (
            known.also and not known.told_open
        ):  # who was told without the store hears of the end, also of a held opening
            known = _told_as_open(replace(known, opening=known.also[0], also=known.also[1:]), now)
    return settle(known, now, policy, silenced=silenced)


def acknowledge(known: Incident, by: str, now: datetime) -> Incident:
    """Somebody looks after it: no reminder and no escalation until there is something new."""
    return replace(known, acknowledged_by=by, acknowledged_at=now, unanswered_since=None)


def settle(
    incident: Incident, now: datetime, policy: Policy, *, silenced: bool = False, release: bool = False
) -> Incident:
    """With the message that is due by now, if one is, in `unsent`; only a tick may `release` what is held back."""
    incident = _steady(incident, now, policy)
    if not silenced and (step := due(incident, now, policy, release=release)):
        incident = _tell(incident, step, now, policy)
    if not incident.urgent:
        return replace(incident, unanswered_since=None)
    if incident.open and incident.told_open and not (silenced or incident.unanswered_since or incident.acknowledged_by):
        return replace(incident, unanswered_since=now)
    return incident


def due(incident: Incident, now: datetime, policy: Policy, *, release: bool) -> Step | None:
    """The message that is due by now."""
    if not incident.open:
        return Step.RESOLVED if incident.told_open and not incident.flapping else None
    if not incident.told_open:
        ready = incident.held_until is None or (release and now >= incident.held_until)
        return Step.OPENED if ready or incident.urgent else None
    worse = incident.level.rank > incident.told_severity.rank
    if incident.flapping:
        if worse or not incident.announced:
            return Step.REMINDED
    elif worse or incident.news or incident.steadied or _to_be_reminded(incident, now, policy):
        return Step.REMINDED
    if incident.unanswered_since and incident.urgent and incident.escalated < policy.escalation_steps:
        waited = now - incident.unanswered_since
        if waited >= (incident.escalated + 1) * policy.escalate_after:
            return Step.ESCALATED
    if incident.flapping or policy.update_every is None or incident.updated_at is None:
        return None
    return Step.UPDATED if incident.outdated and now - incident.updated_at >= policy.update_every else None


def told_together(
    known: Incident | None,
    *,
    group: Alert,
    episode: int,
    findings: Collection[str] | None,
    now: datetime,
    policy: Policy,
) -> Incident | None:
    """Its opening was told in `group`, as it was then, and is told where each stands by itself.

    `findings`: those that it had then (None: nobody knows); what came later is news.
    """
    if known is None or known.episode != episode or known.told_open:
        return known
    then = replace(known, alert=replace(known.alert, severity=group.severity), group=group.dedup_key)
    later = findings is not None and any(gone is None for a, gone in known.findings.items() if a not in findings)
    return replace(_tell(then, Step.GROUPED, now, policy), alert=known.alert, news=later)


def adopt(known: Incident | None, *, alert: Alert, at: datetime, policy: Policy) -> Incident | None:
    """It was seen at that moment and told as it was, while nobody could look it up."""
    if known and alert.dedup_key in (known.opening, *known.also) and (known.goes_on or at <= known.changed_at):
        return known  # else another machine told it again, under the key of the day
    if known is None or (not known.open and known.changed_at <= at):
        known = _opened(known, alert, at, policy, None)
    elif not known.open and not known.told_open:  # over by then, and who was told so is still to hear of it
        told = _told_as_open(replace(known, opening=alert.dedup_key, group=None, also=()), at)
        return replace(told, told=(alert.level,))
    if at < known.opened_at:
        return replace(known, also=(*known.also, alert.dedup_key))
    if at >= known.seen_at:
        known = replace(known, alert=alert, seen_at=at)
    if known.told_open:
        told = replace(known, also=(*known.also, alert.dedup_key), told_at=max(at, known.told_at or at))
        return replace(told, told=tuple(dict.fromkeys((*known.told, alert.level))))
    return _told_as_open(replace(known, opening=alert.dedup_key), at)


def is_its_own(alert: Alert) -> bool:
    """Whether it is a message that its incident wrote: its key is incident, episode and number.

    >>> is_its_own(Alert(Severity.ERROR, "run/a/3/1", "", "", "", incident="run/a"))
    True
    >>> is_its_own(Alert(Severity.ERROR, "run/a/2025-03-01", "", "", "", incident="run/a"))
    False
    """
    incident, *numbers = alert.dedup_key.rsplit("/", 2)
    return incident == alert.incident and len(numbers) == 2 and all(number.isdecimal() for number in numbers)


def sent(incident: Incident, keys: Iterable[str]) -> Incident:
    """The outbox has the messages with these keys."""
    return replace(incident, unsent=tuple(alert for alert in incident.unsent if alert.dedup_key not in set(keys)))


def _steady(incident: Incident, now: datetime, policy: Policy) -> Incident:
    """No longer flapping, where it has not changed for long enough."""
    incident = _righted(incident, now, policy)
    if not incident.flapping or now - incident.changed_at < policy.steady_after:
        return incident
    return replace(incident, flapping=False, openings=(), steadied=incident.announced and incident.open)


def _righted(incident: Incident, now: datetime, policy: Policy) -> Incident:
    """What a clock that was ahead wrote counts from now on, else everything would wait until then."""
    latest = dict.fromkeys(MOMENTS, now) | {"held_until": now + policy.group_within}
    early: dict[str, Any] = {
        name: most for name, most in latest.items() if (moment := getattr(incident, name)) and moment > most
    }
    return replace(
        incident,
        **early,
        openings=tuple(min(moment, now) for moment in incident.openings),
        findings={about: gone and min(gone, now) for about, gone in incident.findings.items()},
    )


def _opened(
    known: Incident | None, alert: Alert, now: datetime, policy: Policy, held_until: datetime | None
) -> Incident:
    began = _began(alert, now)
    if known is None:
        key = alert.incident or alert.dedup_key
        return Incident(key, alert, True, 1, began, now, now, openings=(now,), held_until=held_until)
    recent = [moment for moment in known.openings if now - moment < policy.flapping_within]
    openings = (*recent, now)[-policy.flapping_openings :]
    again = replace(
        known,
        open=True,
        episode=known.episode + 1,
        changed_at=now,
        openings=openings,
        flapping=known.flapping or len(openings) >= policy.flapping_openings,
        messages=0,
    )
    if known.told_open:
        return again
    return replace(
        again,
        opened_at=began,
        count=0,
        findings={},
        news=False,
        opening=None,
        group=None,
        also=(),
        held_until=held_until,
    )


def _began(alert: Alert, now: datetime) -> datetime:
    """Since when it is so; now, where nobody says so or not as an aware time."""
    try:
        since = datetime.fromisoformat(alert.since or "")
    except (TypeError, ValueError):
        return now
    return min(now, since) if since.tzinfo else now


def _rising(findings: Mapping[str, Severity]) -> set[str]:
    """Every finding at its level and at each lower one: so a rise is a finding of its own, and a fall is none.

    >>> sorted(_rising({"rsi loss": Severity.WARNING}))
    ['INFO rsi loss', 'WARNING rsi loss']
    """
    levels = [
        (level, about) for about, severity in findings.items() for level in Severity if level.rank <= severity.rank
    ]
    return {plain(f"{level} {about}").strip() for level, about in levels}


def _left(incident: Incident, now: datetime, policy: Policy) -> dict[str, datetime | None]:
    """The findings that are no news: there, or gone for a short while only."""
    return {a: gone for a, gone in incident.findings.items() if gone is None or now - gone < policy.steady_after}


def _shown(alert: Alert) -> tuple[str, ...]:
    return alert.severity, alert.what, alert.why, alert.done


def _told_locally(incident: Incident, alert: Alert) -> bool:
    """Whether these findings, which its key names, were told while nobody could look it up, and not seen since."""
    told = alert.dedup_key in (incident.opening, *incident.also)
    return told and incident.told_at is not None and incident.seen_at <= incident.told_at


def _to_be_reminded(incident: Incident, now: datetime, policy: Policy) -> bool:
    told = incident.told_at
    if incident.acknowledged_by or told is None or told.date() >= now.date():
        return False
    seen_today = incident.seen_at.date() == now.date()
    return now - told >= (policy.remind_repeat_after if seen_today else policy.remind_after)


def _tell(incident: Incident, step: Step, now: datetime, policy: Policy) -> Incident:
    key = f"{incident.key}/{incident.episode}/{incident.messages + 1}"  # see is_its_own
    alert = worded(incident, step, key, now, policy)
    # of updates that no channel has shown yet the newest is enough
    unsent = tuple(waiting for waiting in incident.unsent if waiting.step is not Step.UPDATED)
    told = replace(incident, unsent=(*unsent, alert), messages=incident.messages + 1, updated_at=now, outdated=False)
    if step in (Step.OPENED, Step.GROUPED):
        return _told_as_open(replace(told, opening=key), now)
    if step is Step.REMINDED:
        # told anew after it was no longer CRITICAL, or after somebody answered: it waits for an answer anew
        return _told_as_open(told if incident.unanswered_since else replace(told, escalated=0), now)
    if step is Step.ESCALATED:
        step_reached = incident.escalated + 1
        return replace(told, escalated=step_reached, reached=max(incident.reached, step_reached))
    if step is Step.RESOLVED:
        over = replace(told, told_open=False, told_at=now, news=False, steadied=False, announced=False)
        return replace(over, escalated=0, reached=0, acknowledged_by=None, acknowledged_at=None, unanswered_since=None)
    return told


def _told_as_open(incident: Incident, now: datetime) -> Incident:
    known = incident.told if incident.told_open else ()
    return replace(
        incident,
        told_open=True,
        told_at=now,
        updated_at=now,
        told=tuple(dict.fromkeys((*known, incident.level))),
        news=False,
        steadied=False,
        announced=incident.flapping,
        held_until=None,
    )
