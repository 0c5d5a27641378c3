"""Are the candles sound? The source the bot trades on, and the check that never lets a gap pass in silence."""

from datetime import timedelta

import dagster as dg

from trading_ops.bot.client import BotError
from trading_ops.defs.alerting import Finding, conclude
from trading_ops.defs.presenting import table_of
from trading_ops.market.candles import HOUR
from trading_ops.market.soundness import CandleReport, check_candles
from trading_ops.notifications.alert import Severity
from trading_ops.services import Services

CHECKED = timedelta(days=7)  # what a bot is asked for; a folder is checked as a whole
STALE_AFTER = timedelta(hours=3)
NO_SYMBOL = (
    "no symbol is known: the bot holds no position and closed no trade in 7 days, and TRADING_OPS_SYMBOLS names none"
)

candles = dg.AssetSpec(
    "candles",
    group_name="market",
    description="Hourly candles of the bot's symbols, as recorded; never filled. Rules: trading_ops/market/candles.py",
)


@dg.asset_check(asset=candles.key)
def candles_sound(context: dg.AssetCheckExecutionContext, services: dg.ResourceParam[Services]) -> dg.AssetCheckResult:
    """Every symbol has candles up to the present, none repeated, unsorted or impossible; gaps are shown.

    A bot behind an address is asked for the symbols it trades, unless TRADING_OPS_SYMBOLS names them.
    """
    day = str(services.bot.calendar().last_day)
    reports, missing = _of_the_bot(services) if services.settings.bot_url else _of_the_source(services)
    findings = [
        Finding(day, Severity.ERROR, report.symbol, report.problems[0]) for report in reports if not report.sound
    ]
    findings += [Finding(day, Severity.ERROR, symbol, f"{symbol}: {why}") for symbol, why in missing.items()]
    findings += [
        Finding(day, Severity.WARNING, report.symbol, f"{report.symbol}: {bars} bars missing from {start:%d %H:%M}")
        for report in reports
        for start, _, bars in report.gaps
        if str(start.date()) == day
    ]
    rows = [
        {"symbol": r.symbol, "bars": r.bars, "last": str(r.last), "missing": r.missing_bars, "gaps": len(r.gaps),
         "duplicates": r.duplicates, "unsorted": r.unsorted, "impossible": r.impossible}
        for r in reports
    ]  # fmt: skip
    table = table_of(rows) if rows or missing else dg.MetadataValue.text(NO_SYMBOL)
    advice = "Repair or download the candle files again; a symbol without candles up to the present is not traded."
    return conclude(context, services, findings, what_to_do=advice, metadata={"symbols": table})


def _of_the_source(services: Services) -> tuple[list[CandleReport], dict[str, str]]:
    """All candles of the symbols the paper bot trades on, and why it has none of others."""
    source = services.candles
    present, stale = source.symbols(), source.stale_symbols()
    reports = [check_candles(source.candles(s), s) for s in services.settings.symbols if s in present]
    missing = {
        symbol: f"stale, ends {stale[symbol]:%Y-%m-%d %H:%M}" if symbol in stale else "no candles"
        for symbol in services.settings.symbols
        if symbol not in present
    }
    return reports, missing


def _of_the_bot(services: Services) -> tuple[list[CandleReport], dict[str, str]]:
    """The last week's candles as the bot has them, and why it gives none of some symbols."""
    from trading_ops.health.candles import recent_reports

    try:
        found, now = recent_reports(services.bot, services.bot_symbols(), CHECKED), services.bot.now()
    except BotError as error:
        return [], {"the bot's symbols": str(error)}
    reports = [report for report in found.values() if isinstance(report, CandleReport)]
    missing = {symbol: why for symbol, why in found.items() if isinstance(why, str)}
    for report in reports:
        if report.last is None or now - report.last > STALE_AFTER:
            ended = report.last and f"stale, ends {report.last + HOUR:%Y-%m-%d %H:%M}"
            missing[report.symbol] = ended or "no candles"
    return reports, missing


defs = dg.Definitions(assets=[candles], asset_checks=[candles_sound])
