"""`trading-ops alerts incidents`: what is wrong now, who looks after it, and what should not be told for a while?"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from trading_ops.cli.terminal import Json, fail, minute, open_services, reported, show, show_entry, show_json, user
from trading_ops.commands import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trading_ops.notifications.incident import Incident
    from trading_ops.notifications.silences import Silence

app = typer.Typer()

By = Annotated[str | None, typer.Option(help="Who says so; default: the user's name.", show_default=False)]
UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@app.command("incidents")
def incidents_(as_json: Json = False) -> None:
    """List what is wrong now, the oldest first: since when, how often it was seen, and who looks after it."""
    services = open_services()
    with reported():
        found, damaged = services.incidents.readable()
        silenced = {incident.key: services.incidents.silences.covering(incident.key) for incident in found}
    if as_json:
        names = {key: [silence.name for silence in silences] for key, silences in silenced.items()}
        show_json([{**incident.to_document(), "silences": names[incident.key]} for incident in found])
    elif not found and not damaged:
        show("no open incident")
    else:
        _list(found, silenced)
    _named(damaged)


def _list(found: Sequence[Incident], silenced: Mapping[str, Sequence[Silence]]) -> None:
    for incident in found:
        state = "flapping" if incident.flapping else "open" if incident.open else "over, not told yet"
        after = f"{incident.acknowledged_by} looks after it" if incident.acknowledged_by else "nobody looks after it"
        quiet = [f"silenced until {minute(one.until.isoformat())} UTC" for one in silenced[incident.key]]
        show_entry(
            [minute(incident.opened_at.isoformat()), incident.alert.severity, incident.alert.what],
            incident.key,
            "; ".join([f"{state}, seen {incident.count} time{'' if incident.count == 1 else 's'}", after, *quiet]),
        )


def _named(damaged: Sequence[str]) -> None:
    """What could not be read was left out: a part must not pass for the whole."""
    for why in damaged:
        typer.echo(why, err=True)
    if damaged:
        raise typer.Exit(1)


@app.command()
def ack(
    key: Annotated[str, typer.Argument(help="The incident's key, or that of one of its messages.")],
    by: By = None,
    as_json: Json = False,
) -> None:
    """Say that somebody looks after an incident: no reminder and no escalation until there is something new.

    The key of a message about several incidents acknowledges all of them; --json then prints a list.
    """
    services = open_services()
    found: list[tuple[Incident, str | None]] = []
    with reported(LookupError):
        named = services.incidents.named(key)
        several = len(named) > 1
        before = {one: services.incidents.incident(one) for one in named}
        still = [one for one, known in before.items() if known and known.goes_on] if several else named
        for one in still or [key]:
            known = before.get(one)
            found.append((services.incidents.acknowledge(one, by or user()), known.acknowledged_by if known else None))
    if as_json:
        documents = [incident.to_document() for incident, _ in found]
        show_json(documents if several else documents[0])
        return
    for incident, earlier in found:
        other = f" (before: {earlier})" if earlier and earlier != incident.acknowledged_by else ""
        typer.echo(f"{visible(incident.key)}: {incident.acknowledged_by} looks after it{other}")


@app.command()
def resolve(
    key: Annotated[str, typer.Argument(help="The incident's key, or that of one of its messages.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    by: By = None,
    as_json: Json = False,
) -> None:
    """End an incident that nothing looks at any more, such as a removed job's; what is seen again opens again."""
    services = open_services()
    with reported(ValueError, code=2), reported(LookupError):
        incident = services.incidents.resolve(key, by=by or user(), reason=reason)
    if as_json:
        show_json(incident.to_document())
    else:
        typer.echo(f"{visible(incident.key)}: {'over, told later' if incident.told_open else 'over'}")


@app.command()
def silence(
    pattern: Annotated[str, typer.Argument(help="An incident's key, or a pattern of keys such as 'run/*'.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    for_: Annotated[
        str | None, typer.Option("--for", help="How long, such as 30m, 2h or 1d.", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Or its end (ISO, UTC where it says no other).", show_default=False)
    ] = None,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Tell nothing of some incidents for a while; what is open at the end is told then."""
    services = open_services()
    if (for_ is None) == (until is None):
        fail("give either --for or --until: a silence has an end", code=2)
    end = services.now() + _length(for_) if for_ is not None else _moment(until or "")
    with reported(ValueError, code=2):
        begun = services.incidents.silences.add(pattern, end, reason=reason, by=by or user())
    if not as_json:
        typer.echo(f"{begun.name}: {visible(begun.pattern)} is silenced until {minute(begun.until.isoformat())} UTC")
    with reported():
        found, damaged = services.incidents.readable()
    covered = [one.key for one in found if one.open and begun.covers(one.key, begun.since)]
    if as_json:
        show_json({**begun.to_document(), "covers": covered})
    elif covered:
        named = ", ".join(map(visible, covered))
        typer.echo(f"covers {len(covered)} open incident{'s' if len(covered) > 1 else ''}: {named}")
    else:
        typer.echo("matches no open incident now")
    _named(damaged)


@app.command()
def silences(as_json: Json = False) -> None:
    """List the silences that hold, and those that ended in the last 30 days."""
    services = open_services()
    with reported():
        found = services.incidents.silences.all()
    if as_json:
        show_json([one.to_document() for one in found])
        return
    if not found:
        show("no silence")
        return
    for one in found:
        since, until = minute(one.since.isoformat()), minute(one.until.isoformat())
        state = "holds" if services.now() < one.until else "over"
        show_entry([one.name, state, one.pattern], f"{since} to {until} UTC, by {one.by}: {one.reason}")


@app.command()
def unsilence(
    name: Annotated[str, typer.Argument(help="The silence's name, as `alerts silences` gives it.")],
    by: By = None,
    as_json: Json = False,
) -> None:
    """End a silence now; what is open is told within a minute."""
    services = open_services()
    with reported(LookupError):
        ended = services.incidents.silences.end(name, by=by or user())
    if as_json:
        show_json(ended.to_document())
    else:
        typer.echo(f"{ended.name}: {visible(ended.pattern)} is told again")


def _length(text: str) -> timedelta:
    parts = re.findall(r"(\d+)\s*([mhd])", text.lower())
    try:
        length = sum((timedelta(**{UNITS[unit]: int(count)}) for count, unit in parts), timedelta())
    except OverflowError:
        length = timedelta()
    if not length or re.sub(r"(\d+)\s*([mhd])\s*", "", text.lower()).strip() or length > timedelta(days=3_650):
        fail(f"--for {text}: a length such as 30m, 2h or 1d is needed", code=2)
    return length


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        fail(f"--until {text}: a moment such as 2025-03-01T18:00 is needed", code=2)
