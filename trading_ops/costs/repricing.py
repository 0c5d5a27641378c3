"""Does every row of the ledger cost again what was recorded, and do the budget's sums say the same?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from trading_ops.audit.store import Record
from trading_ops.costs.pricing import reprice
from trading_ops.costs.spending import Spending, nano, usd
from trading_ops.costs.usage import LlmCall


@dataclass(frozen=True, slots=True)
class Repriced:
    """`identical` rows cost the same to a billionth of a dollar; those of before prices were dated are `without_price`.

    `different`: rows that do not, with both amounts; `days`: those of which the budget counts another sum.
    """

    rows: int
    identical: int
    without_price: int
    cost_usd: float
    different: tuple[dict[str, Any], ...]
    days: tuple[dict[str, Any], ...]

    @property
    def whole(self) -> bool:
        return not self.different and not self.days


def reprice_rows(records: Iterable[Record], spending: Spending, first: str) -> Repriced:
    """Price the rows since the day `first` again from their raw tokens and their own dated prices.

    Raises pydantic's ValidationError for a row that is no LlmCall.
    """
    sums = dict.fromkeys((day for day in spending.days if day >= first), 0)
    identical = without_price = 0
    different: list[dict[str, Any]] = []
    for record in records:
        call = LlmCall.model_validate(record.body)
        sums[record.partition] = sums.get(record.partition, 0) + nano(call.cost_usd)
        if call.price is None:
            without_price += 1
            continue
        again: Decimal | str
        try:
            again = reprice(record.body)
        except (ValueError, KeyError, TypeError) as error:  # whatever stands where the price should
            again = f"cannot be priced: {error!r}"
        if not isinstance(again, str) and nano(again) == nano(call.cost_usd):
            identical += 1
        else:
            row = {"day": record.partition, "call": record.key, "model": call.model, "cost_usd": call.cost_usd}
            different.append(row | {"repriced": again if isinstance(again, str) else float(again)})
    days = tuple(
        {"day": day, "rows_usd": usd(amount), "budget_usd": usd(spending.days[day])}
        for day, amount in sorted(sums.items())
        if day in spending.days and spending.days[day] != amount
    )
    rows = identical + without_price + len(different)
    return Repriced(rows, identical, without_price, usd(sum(sums.values())), tuple(different), days)
