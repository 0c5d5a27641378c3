"""`trading-ops alerts`: who was told what, who was not and why, and does a channel work?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli import incidents
from trading_ops.cli.terminal import (
    Json,
    fail,
    line,
    minute,
    open_services,
    plain,
    reported,
    show,
    show_entry,
    show_json,
    show_table,
)

if TYPE_CHECKING:
    from trading_ops.services import Services

app = typer.Typer(help="Alerts, what they are about, and the channels they go to.", no_args_is_help=True)
app.add_typer(incidents.app)

STATES = ("pending", "sending", "sent", "superseded", "failed", "dead")
DISABLED = "NOTIFICATIONS_ENABLED=false sends everything to the terminal"
Channel = Annotated[str | None, typer.Option(help="Such as slack; default: all.", show_default=False)]


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help=f"Only alerts with a channel that is {', '.join(STATES)}.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List alerts with their keys, who was told, and why somebody was not; the newest first."""
    if state is not None and state not in STATES:
        fail(f"--state {state}: any of {', '.join(STATES)} is needed", code=2)
    services = open_services()
    with reported():
        deliveries = services.outbox.deliveries()[::-1]
    chosen = [d for d in deliveries if state is None or state in _states(d).values()]
    if as_json:
        show_json(chosen[:limit])
        return
    if not chosen:
        show("no alert" if state is None else f"no alert is {state}")
        return
    for delivery in chosen[:limit]:
        alert = _alert(delivery)
        first = [minute(delivery["created_at"]), _severity(alert), alert["what"]]
        show_entry(first, alert["dedup_key"], *_told(services, delivery))
    if len(chosen) > limit:
        show(f"{len(chosen) - limit} more: --limit {len(chosen)}")


@app.command("show")
def show_(
    key: Annotated[str, typer.Argument(help="The alert's key, as `alerts list` gives it.")], as_json: Json = False
) -> None:
    """Show one alert, and its way to each channel."""
    services = open_services()
    with reported(LookupError):
        delivery = services.outbox.delivery(key)
    if as_json:
        show_json(delivery)
        return
    from trading_ops.notifications.channels.email import text_of
    from trading_ops.notifications.delivery import alert_of
    from trading_ops.notifications.text import message_of

    with reported():
        alert = alert_of(delivery, key)
    typer.echo(text_of(message_of(alert, possible_duplicate=False)))
    rows = [
        [name, _states(delivery)[name], c["attempts"], c.get("at") and minute(c["at"]), _next(services, c)]
        for name, c in delivery["channels"].items()
    ]
    show_table("channels", ["channel", "state", "attempts", "last (UTC)", "next (UTC)"], rows)
    for name, why in (_superseded(delivery) | _reasons(services, delivery)).items():
        typer.echo(f"{name}: {why}")


@app.command("retry")
def retry_(
    key: Annotated[
        str | None,
        typer.Argument(help="The alert's key; default: all but what waits in quiet hours.", show_default=False),
    ] = None,
    channel: Channel = None,
    as_json: Json = False,
) -> None:
    """Send again what failed or was given up; exits 1 when something was not taken, or is damaged."""
    services = open_services()
    if channel is not None and channel not in services.channels:
        fail(_not_chosen(services, channel), code=2)
    with reported(LookupError):
        tried = services.outbox.retry(key, channel)
    damaged = services.outbox.store_error
    reasons = [(_alert(one)["dedup_key"], _reasons(services, one, only=channel, held=False)) for one in tried]
    missing = [(one, why) for one, why in reasons if why]
    if as_json:
        show_json(tried)
    else:
        for one, why in missing:
            for name, said in why.items():
                typer.echo(f"{line(one)}  {name}: {said}", err=True)
        replaced = [(one, by) for one in tried if (by := _superseded(one, only=channel))]
        for delivery, by in replaced:
            for name, said in by.items():
                typer.echo(f"{line(_alert(delivery)['dedup_key'])}  {name}: not sent, {said}")
        if damaged:
            typer.echo(damaged, err=True)
        sent = sum(not (why or _superseded(one, only=channel)) for one, (_, why) in zip(tried, reasons, strict=True))
        show(f"{sent} of {len(tried)} alerts are now sent" if tried else "nothing to send again")
    if missing or damaged:
        raise typer.Exit(1)


@app.command("test")
def try_(channel: Channel = None) -> None:
    """Send one test message on a channel, or on each that is configured; exits 1 when one does not take it."""
    from trading_ops.settings import unknown_variables

    services = open_services()
    if unknown := unknown_variables():
        typer.echo(f"nothing reads {', '.join(unknown)}: correct the name or remove it", err=True)
    if channel is not None and channel not in services.channels:
        fail(_not_chosen(services, channel), code=2)
    if not services.settings.notifications_enabled:
        typer.echo(DISABLED, err=True)
    failed = False
    for name in [channel] if channel else services.channels:
        why = _try(services, name)
        failed = failed or why is not None
        if why is None:
            show(f"[green]{name}: the test message was taken[/green] ({plain(services.channels[name].target)})")
        else:
            typer.echo(f"{name}: {why}", err=True)
    if failed:
        raise typer.Exit(1)


def _try(services: Services, name: str) -> str | None:
    """Send a test message straight to the channel, past the outbox; why it was not taken."""
    from trading_ops.notifications.alert import Alert, Severity
    from trading_ops.notifications.lanes import Lane, side_by_side, told_of
    from trading_ops.notifications.outbox import SEND_S

    alert = Alert(
        Severity.INFO,
        f"test/{name}/{services.now():%Y-%m-%dT%H:%M:%S}",
        "test message of trading_ops",
        "somebody ran trading-ops alerts test",
        "Nothing: this channel works.",
    )
    outcome: list[Exception | None] = []

    def lane() -> Lane:
        outcome.append((yield lambda: services.channels[name].send(alert, possible_duplicate=False)))

    side_by_side([lane()], workers=1, timeout_s=SEND_S)
    (error,) = outcome
    return told_of(error) if error else None


def _not_chosen(services: Services, name: str) -> str:
    from trading_ops.notifications.configuration import NEEDS

    if name not in NEEDS:
        return f"no channel is called {name}; give any of {', '.join(NEEDS)}"
    if name in services.settings.notification_channels:
        return f"{name} is not used: {DISABLED}"
    chosen = ", ".join(services.channels)
    return f"{name} is not configured: name it in NOTIFICATION_CHANNELS (alerts go to {chosen})"


def _alert(delivery: Mapping[str, Any]) -> Mapping[str, Any]:
    """What there is of the alert, where it is damaged."""
    stored = delivery.get("alert")
    known = stored if isinstance(stored, Mapping) else {}
    return {"severity": "UNKNOWN", "what": "(damaged)", "dedup_key": "(damaged)", **known}


def _states(delivery: Mapping[str, Any]) -> dict[str, str]:
    """Each channel's; `superseded` where a later message was told instead."""
    replaced = _superseded(delivery)
    return {name: "superseded" if name in replaced else c["state"] for name, c in delivery["channels"].items()}


def _severity(alert: Mapping[str, Any]) -> str:
    step = alert.get("step", "opened")
    return str(alert["severity"]) if step in ("opened", "several") else f"{alert['severity']}, {step}"


def _told(services: Services, delivery: Mapping[str, Any]) -> list[str]:
    """Who was told, and a line for each who was not."""
    superseded = _superseded(delivery)
    sent = [name for name, state in _states(delivery).items() if state == "sent"]
    others = [f"{name}: {why}" for name, why in (superseded | _reasons(services, delivery)).items()]
    return [f"sent: {', '.join(sent)}", *others] if sent else others or ["kept, told nobody"]


def _superseded(delivery: Mapping[str, Any], only: str | None = None) -> dict[str, str]:
    """Where a later message said what it says, which counts as sent."""
    channels = delivery["channels"].items()
    by = {name: channel.get("superseded_by") for name, channel in channels if only in (None, name)}
    return {name: f"superseded by {line(key)}, which was told instead" for name, key in by.items() if key}


def _reasons(
    services: Services, delivery: Mapping[str, Any], only: str | None = None, *, held: bool = True
) -> dict[str, str]:
    """Why channels have not got it; `held`: also where they only wait for the end of quiet hours."""
    from trading_ops.notifications.delivery import quiet_until

    reasons = {}
    for name, channel in delivery["channels"].items():
        until = quiet_until(channel, services.now()) if channel["state"] == "pending" else None
        if channel["state"] == "sent" or only not in (None, name) or (until and not held):
            continue
        waits = f"waits until {until:%H:%M} UTC: quiet hours" if until else None
        why = waits or f"{channel['state']}: {channel.get('error') or 'not tried yet'}"
        gone = "" if name in services.channels else "; the channel is not configured any more"
        reasons[name] = why + gone
    return reasons


def _next(services: Services, channel: Mapping[str, Any]) -> str | None:
    from trading_ops.notifications.delivery import quiet_until

    until = quiet_until(channel, services.now()) if channel["state"] == "pending" else None
    moment = until.isoformat() if until else channel.get("next_at")
    return minute(moment) if moment else None
