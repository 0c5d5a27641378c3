"""What does an LLM call cost at the prices of its day, and did a past one cost what was recorded?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_EVEN, ROUND_UP, Decimal, InvalidOperation
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

MILLION = 1_000_000
NANO = Decimal("1e-9")  # amounts are kept to a billionth of a dollar: a token's price has rarely more digits
BILLED_AS = {"input": "input", "cached_input": "cached_input", "output": "output", "reasoning": "output"}
OWN = "TRADING_OPS_LLM_PRICES"
HOW = f"set {OWN} to model=input/cached/output in USD per million tokens, such as my-model=0.15/0.075/0.60"


class UnknownPrice(Exception):
    """Nobody knows what a model costs; the message says what to do."""


class Rates(BaseModel):
    """USD per million tokens, as decimal text; they hold for a call of more input tokens than `above_input_tokens`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    above_input_tokens: int = Field(-1, ge=-1)
    input: str
    cached_input: str
    output: str

    @field_validator("input", "cached_input", "output")
    @classmethod
    def _is_a_price(cls, value: str) -> str:
        try:
            price = Decimal(value)
        except InvalidOperation as error:
            raise ValueError(f"{value!r} is no price; give USD per million tokens") from error
        if not price.is_finite() or price < 0:
            raise ValueError(f"{value!r} is no price; give USD per million tokens, 0 or more")
        return value


class Price(BaseModel):
    """What a model costs on a day, dated and whole: a call is priced again from this record alone.

    `source` is the library, or the setting, that says so and `version` its own; `since` the day these prices began,
    where the source says it. Reasoning is billed as output.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    model: str
    source: str
    version: str | None
    provider: str | None
    known_as: str
    since: str | None
    day: str
    rates: tuple[Rates, ...] = Field(min_length=1, strict=False)

    def cost(self, tokens: Mapping[str, int]) -> Decimal:
        """USD of these tokens by class, exact. Raises ValueError for a class or a count that is none."""
        check_tokens(tokens)
        sent = tokens.get("input", 0) + tokens.get("cached_input", 0)
        rates = next(rates for rates in reversed(self.rates) if sent > rates.above_input_tokens)
        return self._at(rates, tokens)

    def most(self, tokens: Mapping[str, int]) -> Decimal:
        """USD that no call within these tokens can exceed, whatever of its input is cached."""
        check_tokens(tokens)
        sent = tokens.get("input", 0) + tokens.get("cached_input", 0)
        costs = []
        for rates in self.rates:
            if sent > rates.above_input_tokens:
                dearest = max(rates.input, rates.cached_input, key=Decimal)
                costs.append(self._at(rates.model_copy(update={"input": dearest, "cached_input": dearest}), tokens))
        return max(costs)

    @staticmethod
    def _at(rates: Rates, tokens: Mapping[str, int]) -> Decimal:
        return sum(
            (Decimal(getattr(rates, BILLED_AS[name])) * count / MILLION for name, count in tokens.items()), Decimal(0)
        )


def check_tokens(tokens: Mapping[str, int]) -> None:
    """Raise ValueError, by name, for what is no count of a class of tokens."""
    for name, count in tokens.items():
        if name not in BILLED_AS:
            raise ValueError(f"tokens.{name} is no class of tokens; give any of {', '.join(BILLED_AS)}")
        if type(count) is not int or count < 0:
            raise ValueError(f"tokens.{name} is {count!r}; a whole number of at least 0 is needed")


def rounded(usd: Decimal) -> Decimal:
    """To a billionth of a dollar, as costs are recorded.

    >>> rounded(Decimal("0.0000000125"))
    Decimal('1.2E-8')
    """
    return usd.quantize(NANO, ROUND_HALF_EVEN)


def reprice(row: Mapping[str, Any]) -> Decimal:
    """USD of a row of the ledger, from its tokens and its own dated price; equals its `cost_usd` unless one is wrong.

    A row that was charged its bound (the call is open, or nobody knows what it used) is priced at the bound again.
    Raises ValueError for a row that has no price, as those of before there was one.
    """
    if not row.get("price"):
        raise ValueError("the row has no price")
    price = Price.model_validate(row["price"])
    if row.get("charged") == "bound":
        return bound(price, row["most_tokens"])
    return rounded(price.cost(row["tokens"]))


def bound(price: Price, most_tokens: Mapping[str, int]) -> Decimal:
    """USD reserved for a call, rounded up."""
    return price.most(most_tokens).quantize(NANO, ROUND_UP)


@dataclass(frozen=True, slots=True)
class Prices:
    """Own prices first, then those that genai-prices has bundled: nothing is asked of the network.

    `api_url` tells the provider where several sell a model; a model at an unknown address is priced as its maker's.
    """

    own: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    api_url: str | None = None

    def of(self, model: str, at: datetime) -> Price:
        """The price of a model at a moment (aware). Raises UnknownPrice."""
        if given := self.own.get(model):
            rates = Rates(input=given[0], cached_input=given[1], output=given[2])
            return Price(model=model, source=OWN, version=None, provider=None, known_as=model, since=None,
                         day=str(at.date()), rates=(rates,))  # fmt: skip
        from genai_prices import __version__, types
        from genai_prices.data_snapshot import get_snapshot

        vendor = None if self.api_url else "openai"  # which the SDK asks where no address is given
        for place in ((vendor, self.api_url), (None, None)):
            try:
                provider, known = get_snapshot().find_provider_model(model, None, *place)
                break
            except LookupError:
                continue
        else:
            raise UnknownPrice(f"no price is known for the model {model!r}; {HOW}")
        prices, since = known.get_prices(at), None
        for conditional in known.prices if isinstance(known.prices, list) else ():
            if conditional.prices is prices and isinstance(conditional.constraint, types.StartDateConstraint):
                since = str(conditional.constraint.start_date)
        if prices.input_mtok is None or prices.output_mtok is None:
            raise UnknownPrice(f"{model!r} is not billed by tokens of text; {HOW}")
        cached = prices.input_mtok if prices.cache_read_mtok is None else prices.cache_read_mtok
        columns = {"input": prices.input_mtok, "cached_input": cached, "output": prices.output_mtok}
        return Price(model=model, source="genai-prices", version=__version__, provider=provider.id, known_as=known.id,
                     since=since, day=str(at.date()), rates=_tiers(columns))  # fmt: skip


def _tiers(columns: Mapping[str, Any]) -> tuple[Rates, ...]:
    """From the cheapest up; the price of a tier holds for all tokens of a call that is beyond its start."""
    starts = {-1} | {tier.start for column in columns.values() for tier in getattr(column, "tiers", ())}

    def at(column: Any, start: int) -> str:
        if not hasattr(column, "tiers"):
            return _plain(column)
        return _plain(next((tier.price for tier in reversed(column.tiers) if start >= tier.start), column.base))

    return tuple(
        Rates(above_input_tokens=start, **{name: at(column, start) for name, column in columns.items()})
        for start in sorted(starts)
    )


def _plain(price: Decimal) -> str:
    return format(price.normalize(), "f")
