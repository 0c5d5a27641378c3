"""Are the candles sound? The source the bot trades on, and the check that never lets a gap pass in silence."""

import dagster as dg

from trading_ops.defs.alerting import Finding, conclude
from trading_ops.defs.presenting import table_of
from trading_ops.defs.resources import SERVICES
from trading_ops.market.candles import check_candles
from trading_ops.notifications.alert import Severity
from trading_ops.services import Services

candles = dg.AssetSpec(
    "candles",
    group_name="market",
    description="Hourly candles of the bot's symbols, as recorded; never filled. Rules: trading_ops/market/candles.py",
    metadata={"source": SERVICES.bot.label},
)


@dg.asset_check(asset=candles.key)
def candles_sound(context: dg.AssetCheckExecutionContext, services: dg.ResourceParam[Services]) -> dg.AssetCheckResult:
    """Every symbol has candles up to the present, none repeated, unsorted or impossible; gaps are shown."""
    bot, present = services.bot, services.candles.symbols()
    day = str(bot.calendar().last_day)
    reports = [check_candles(services.candles.candles(s), s) for s in services.settings.symbols if s in present]
    findings = [
        Finding(day, Severity.ERROR, report.symbol, report.problems[0]) for report in reports if not report.sound
    ]
    stale = services.candles.stale_symbols()
    findings += [
        Finding(
            day, Severity.ERROR, s, f"{s}: stale, ends {stale[s]:%Y-%m-%d %H:%M}" if s in stale else f"{s}: no candles"
        )
        for s in services.settings.symbols
        if s not in present
    ]
    findings += [
        Finding(day, Severity.WARNING, report.symbol, f"{report.symbol}: {missing} bars missing from {start:%d %H:%M}")
        for report in reports
        for start, _, missing in report.gaps
        if str(start.date()) == day
    ]
    rows = [
        {"symbol": r.symbol, "bars": r.bars, "last": str(r.last), "missing": r.missing_bars, "gaps": len(r.gaps),
         "duplicates": r.duplicates, "unsorted": r.unsorted, "impossible": r.impossible}
        for r in reports
    ]  # fmt: skip
    advice = "Repair or download the candle files again; a symbol without candles up to the present is not traded."
    return conclude(context, services, findings, what_to_do=advice, metadata={"symbols": table_of(rows)})


defs = dg.Definitions(assets=[candles], asset_checks=[candles_sound])
