"""What was paid into the account or out of it, where the bot does not tell that?"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from trading_ops.portfolio.equity import UNEXPLAINED_JUMP

if TYPE_CHECKING:
    from trading_ops.bot.records import Portfolio
    from trading_ops.guard.memory import Fact, GuardMemory
    from trading_ops.guard.watch import Watch

DEPOSITS = "deposits"
STOOD = timedelta(seconds=60)  # a trade that is listed later than the balance moved is no flow
COUNTED, KEPT = timedelta(days=7), timedelta(days=30)  # trades that come late are still set off


def with_deposits(account: Portfolio, memory: GuardMemory, watch: Watch) -> Portfolio:
    """The account with the net deposits that must be assumed where the bot tells none.

    A jump of the balance above 1 % that the trades do not explain is unknown, never a return: it is taken for a flow at
    once, and for good after a minute. What is less is a return. The fact that is kept says how things stood when flows
    were added up last: all processes that start from it find the same jump.
    """
    day = watch.day
    if account.net_deposits_usdt is not None or day is None:
        return account
    known = memory.fact(DEPOSITS) or _at_the_start(account, watch, day)
    jump = _jump(account, known, watch)
    if jump == 0.0:
        watch.unexplained_since = None
    else:
        watch.unexplained_since = watch.unexplained_since or watch.now()
    forgotten = watch.first_day is not None and date.fromisoformat(known["origin"]) < watch.first_day
    stood = watch.unexplained_since is None or watch.now() - watch.unexplained_since >= STOOD
    assumed = known["assumed"] + jump
    old = day - date.fromisoformat(known["origin"]) > KEPT
    if stood and (jump != 0.0 or known["number"] == 0 or old or forgotten):
        origin = max(day - COUNTED, watch.first_day or day)  # of trades before that the bot knows nothing
        memory.keep(
            DEPOSITS,
            {
                "number": max(int(watch.now().timestamp()), known["number"] + 1),
                "level": 0.0,
                "origin": str(origin),
                "realised": watch.realised_since(origin),
                "balance": account.balance_usdt,
                "assumed": assumed,
                "jump": jump,
            },
        )
    return account.model_copy(update={"net_deposits_usdt": assumed})


def _at_the_start(account: Portfolio, watch: Watch, day: date) -> Fact:
    origin = str(watch.first_day or day)
    return {
        "number": 0,
        "level": 0.0,
        "origin": origin,
        "realised": 0.0,
        "balance": account.initial_usdt,
        "assumed": 0.0,
    }


def _jump(account: Portfolio, known: Fact, watch: Watch) -> float:
    """USDT that the balance moved by and no trade explains; 0 where that is no more than 1 %, or cannot be known."""
    origin = date.fromisoformat(known["origin"])
    if watch.first_day is None or origin < watch.first_day:
        return 0.0
    jump = account.balance_usdt - known["balance"] - (watch.realised_since(origin) - known["realised"])
    return jump if abs(jump) > UNEXPLAINED_JUMP * abs(known["balance"]) else 0.0
