"""Are the bot's newest candles fresh, whole and possible?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pandas  # noqa: F401  # check_candles needs it, and is not to import it while a clock runs

from trading_ops.bot.client import BotError, BotUnreachable
from trading_ops.health.checkup import ProbeFailed
from trading_ops.health.rules import Verdict, judge_candles
from trading_ops.market.candles import CandleError
from trading_ops.market.inspection import judge
from trading_ops.market.soundness import CandleReport, check_candles

if TYPE_CHECKING:
    from trading_ops.bot.client import Bot
    from trading_ops.services import Services

WINDOW = timedelta(hours=24)  # a gap is told for a day


def look_at_candles(services: Services, fresh_within: timedelta) -> Verdict:
    """The last day's candles of the symbols the bot trades; raises ProbeFailed where the bot does not answer."""
    try:
        found = recent_reports(services.bot, services.bot_symbols(), WINDOW)
    except (BotError, CandleError) as error:
        raise ProbeFailed(str(error)) from None
    return judge_candles(judge(found, services.now(), fresh_within=fresh_within))


def recent_reports(bot: Bot, symbols: Sequence[str], window: timedelta) -> dict[str, CandleReport | str]:
    """What is to be said of each symbol's candles up to the bot's present, or why it gives none.

    Raises BotUnreachable: a bot that hangs would hang once more for each symbol.
    """
    now: datetime = bot.now()
    reports: dict[str, CandleReport | str] = {}
    for symbol in symbols:
        try:
            reports[symbol] = check_candles(bot.candles(symbol, now - window, now), symbol)
        except BotUnreachable:
            raise
        except (BotError, CandleError) as error:
            reports[symbol] = str(error)
    return reports
