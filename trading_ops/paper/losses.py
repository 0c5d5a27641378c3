"""What if a strategy of the paper bot lost this much just now? Trades that nobody made, for a fire drill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from trading_ops.audit.store import AuditStore, Conflict
from trading_ops.bot.records import TRADE_FIELDS
from trading_ops.paper.ledger import Ledger

LOSSES = "losses"  # the document's key, beside those of the strategies
DROP = 0.1  # of the price, in each of these trades


def inject(store: AuditStore, state: str, losses: Sequence[Mapping[str, Any]]) -> None:
    """Add the losses, all at once; each is {strategy, usdt, at}, a negative one is a win."""
    while True:
        document = store.get_state(state, LOSSES)
        known = list(document.body["losses"]) if document else []
        try:
            body = {"losses": [*known, *losses]}
            store.put_state(state, LOSSES, body, expected_version=document.version if document else 0)
        except Conflict:
            continue  # another process was first: add to what it wrote
        return


def with_losses(ledger: Ledger, losses: Sequence[Mapping[str, Any]], symbol: str) -> Ledger:
    """The ledger as if each loss were one more long trade that closed at its `at` and took its USDT from the equity."""
    if not losses:
        return ledger
    import pandas as pd

    rows = [_trade(number, loss, symbol) for number, loss in enumerate(losses)]
    trades = pd.DataFrame(rows, columns=list(ledger.trades.columns)).astype(dict(ledger.trades.dtypes))
    equity = ledger.equity.copy()
    for loss in losses:
        at = min(pd.Timestamp(loss["at"]), equity.index[-1])
        equity.loc[equity.index >= at, loss["strategy"]] -= loss["usdt"]
    merged = pd.concat([ledger.trades, trades]).sort_values(["closed_at", "trade_id"], ignore_index=True)
    return replace(ledger, trades=merged, equity=equity)


def _trade(number: int, loss: Mapping[str, Any], symbol: str) -> dict[str, Any]:
    """A row whose profit follows from its prices; its id comes behind those of real trades that closed with it."""
    usdt, at = loss["usdt"], datetime.fromisoformat(loss["at"])
    quantity, exit_price = abs(usdt) / (100.0 * DROP), 100.0 * (1.0 - DROP if usdt > 0 else 1.0 + DROP)
    values = {
        "trade_id": f"{loss['strategy']}-injected-{number:04}",
        "strategy": loss["strategy"],
        "symbol": symbol,
        "side": "long",
        "quantity": quantity,
        "entry_price": 100.0,
        "exit_price": exit_price,
        "opened_at": at,
        "closed_at": at,
        "fee_usdt": 0.0,
        "funding_usdt": 0.0,
        "pnl_usdt": -usdt,
        "pnl_pct": 100.0 * (exit_price / 100.0 - 1.0),
        "close_reason": "injected",
        "market": "spot",
        "position_id": f"{loss['strategy']}-injected-{number:04}",
    }
    assert set(values) == set(TRADE_FIELDS)
    return {**values, "open_at_end": False}
