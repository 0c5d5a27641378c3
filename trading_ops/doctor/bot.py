"""Does the bot answer, is its clock right, and has it candles?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from trading_ops.bot.client import BotError, BotUnreachable
from trading_ops.bot.http import LABEL as LIVE
from trading_ops.doctor.diagnosis import Diagnosis, State, looked, milliseconds
from trading_ops.market.candles import FRESH_WITHIN, CandleError

if TYPE_CHECKING:
    from trading_ops.bot.client import Calendar
    from trading_ops.bot.records import BotHealth
    from trading_ops.services import Services

CLOCK_TOLERANCE = timedelta(seconds=60)
CANDLE = timedelta(hours=1)  # a bot on candles lives at the end of the last complete one
RECENT = timedelta(days=7)


def bot(services: Services) -> Iterator[Diagnosis]:
    """The bot answers, says it is well, and is believed; its clock, and its candles where it has its own."""
    began = time.monotonic()
    health, ours = services.bot.health(), services.now()
    calendar = services.bot.calendar()
    answers = True
    for diagnosis in looked("bot", _answers, services, health, calendar, began):
        answers = diagnosis.state != "failed"
        yield diagnosis
    yield from looked("clocks", _clocks, services, health, calendar, ours)
    if answers and services.settings.bot_url is not None:  # a bot that hangs would hang once more for each symbol
        yield from looked("candles", _bot_candles, services)


def _answers(services: Services, health: BotHealth, calendar: Calendar, began: float) -> Iterator[Diagnosis]:
    strategies = services.bot.strategies()
    services.bot.portfolio()
    running = sum(state.enabled for state in strategies)
    said = (
        f"{services.bot_label}: {running} of {len(strategies)} strategies enabled, days {calendar.first_day} to"
        f" {calendar.last_day}{'' if calendar.live else ', which is in the past'}, answered in {milliseconds(began)}"
    )
    if not health.healthy:
        yield Diagnosis("bot", "failed", f"it says it is not well: {health.detail}", "See the bot's own log.")
    elif not calendar.live:
        yield Diagnosis("bot", "warning", said, "Its data is not fresh, so nothing alerts or acts: see its candles.")
    else:
        yield Diagnosis("bot", "ok", said)


def _clocks(services: Services, health: BotHealth, calendar: Calendar, ours: datetime) -> Iterator[Diagnosis]:
    """The bot's clock against ours, as it was when it answered: the UTC days depend on both."""
    built_in = services.settings.bot_url is None
    if health.now is None and not built_in:
        advice = "Until /api/health gives `now`, compare both machines' clocks by hand: the UTC days depend on them."
        yield Diagnosis("clocks", "warning", "the bot does not tell its clock", advice)
        return
    theirs = health.now or services.bot.now()
    label = services.bot.label if built_in else health.label or LIVE
    ends = f"the bot's clock stands at {theirs:%Y-%m-%d %H:%M} UTC, where its {label} candles end"
    behind = ours - theirs
    if label != LIVE and not calendar.live:
        yield Diagnosis("clocks", "ok", ends)
    elif -CLOCK_TOLERANCE <= behind <= CLOCK_TOLERANCE + (CANDLE if label != LIVE else timedelta(0)):
        apart = f"the bot's and ours are {abs(behind).total_seconds():.0f} s apart"
        yield Diagnosis("clocks", "ok", apart if label == LIVE else ends)
    elif built_in:  # the same machine: only its candles can be late
        yield Diagnosis("clocks", "warning", ends, "Bring them up to now: trading-ops candles download")
    else:
        order = "behind" if behind > timedelta(0) else "ahead of"
        said = f"the bot's clock, {theirs:%Y-%m-%d %H:%M:%S} UTC, is {abs(behind).total_seconds():.0f} s {order} ours"
        also = "" if label == LIVE or order != "behind" else f"; or bring its {label} candles up to now"
        yield Diagnosis(
            "clocks", "failed", said, f"Synchronise both machines with NTP (timedatectl set-ntp true){also}."
        )


def _bot_candles(services: Services) -> Iterator[Diagnosis]:
    """The bot has the last days' candles of the symbols it trades."""
    now, symbols = services.bot.now(), services.bot_symbols()
    missing = {}
    for symbol in symbols:
        try:
            bars = services.bot.candles(symbol, now - RECENT, now)
            if bars.empty or now - bars.index[-1] > FRESH_WITHIN:
                missing[symbol] = f"none since {now - RECENT if bars.empty else bars.index[-1]:%Y-%m-%d %H:%M} UTC"
        except BotUnreachable:
            raise
        except BotError as error:
            missing[symbol] = str(error)
    if missing:
        said = f"the bot lacks candles of {', '.join(missing)}: {next(iter(missing.values()))}"
        yield Diagnosis("candles", "warning", said, "What is measured on them is left out until the bot has them.")
    else:
        yield Diagnosis("candles", "ok", f"{len(symbols)} symbols of {RECENT.days} days, the bot's own")


def local_candles(services: Services) -> Iterator[Diagnosis]:
    """The symbols have candles up to the present on this machine, where the bot or the operator uses those."""
    aside = services.settings.bot_url is not None  # the bot behind an address has candles of its own
    if aside and services.settings.candles is None:
        return
    bad: State
    subject, bad = ("local candles", "warning") if aside else ("candles", "failed")
    try:
        source = services.candles
        present, stale = source.symbols(), source.stale_symbols()
    except CandleError as error:
        yield Diagnosis(subject, bad, str(error), "Correct TRADING_OPS_CANDLES in .env.")
        return
    missing = [symbol for symbol in services.settings.symbols if symbol not in present]
    if missing:
        said = ", ".join(f"{s} (ends {stale[s]:%Y-%m-%d})" if s in stale else s for s in missing)
        yield Diagnosis(subject, bad, f"{source.label} candles lack {said}", "trading-ops candles download")
    else:
        yield Diagnosis(subject, "ok", f"{len(services.settings.symbols)} symbols, {source.label}")
