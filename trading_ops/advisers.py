"""Whom does this configuration ask for advice, and what may it cost?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from trading_ops import policies

if TYPE_CHECKING:
    from trading_ops.assessments.gpt4 import Gpt4
    from trading_ops.audit.store import AuditStore
    from trading_ops.costs.ledger import Ledger
    from trading_ops.settings import Settings


def configured_ledger(settings: Settings, store: Callable[[], AuditStore], now: Callable[[], datetime]) -> Ledger:
    """What LLM calls cost, and may cost; by the clock on the wall, also where the bot's is a recording's."""
    from trading_ops.audit.late import late
    from trading_ops.costs.ledger import Ledger
    from trading_ops.costs.pricing import Prices

    prices = Prices(settings.llm_prices, _address(settings))
    limits, calls = policies.cost_limits(settings), settings.llm_calls_an_hour
    return Ledger(late(store), limits, now, calls_an_hour=calls, prices=prices)


def configured_adviser(settings: Settings, ledger: Ledger) -> Gpt4:
    """Whom the assessments ask; without a key it says so."""
    from trading_ops.assessments.gpt4 import Gpt4

    key = settings.openai_api_key
    return Gpt4(
        ledger,
        api_key=key.get_secret_value() if key else None,
        base_url=_address(settings),
        model=settings.openai_model,
        api=settings.openai_api,
        timeout_s=settings.openai_timeout_s,
    )


def _address(settings: Settings) -> str | None:
    return str(settings.openai_base_url) if settings.openai_base_url else None
