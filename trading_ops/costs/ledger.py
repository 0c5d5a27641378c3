"""Is every LLM call in the ledger before it is sent, and can all together never cost more than they may?"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from trading_ops.audit import chain
from trading_ops.audit.store import AuditStore, Conflict, Entry, StateDocument, StoreError, StoreUnavailable
from trading_ops.costs.budget import Limits
from trading_ops.costs.overrides import bot_spend, in_force
from trading_ops.costs.pricing import Price, Prices, UnknownPrice, bound, check_tokens, rounded
from trading_ops.costs.spending import CallRefused, Ceilings, Spending, nano
from trading_ops.costs.standing import Standing
from trading_ops.costs.usage import COLLECTION, RESERVED, LlmCall

STATE = "llm_budget"
KEY = "spending"
PATIENCE_S = 60.0  # of one who wants to write while many others do
LONGEST_WAIT_S = 4.0  # the more are first, the longer each waits, so that somebody always gets through
_BY_CONTENT = ("outcome", "tokens", "latency_s", "detail")


@dataclass(frozen=True, slots=True)
class Reservation:
    """A call that may start: it is in the ledger at `bound_usd`, which it counts as until it is settled."""

    call_id: str
    day: str
    purpose: str
    model: str
    prompt_sha256: str
    most_tokens: Mapping[str, int]
    bound_usd: Decimal
    price: Price
    reserved_at: datetime

    def row(self) -> dict[str, Any]:
        """The ledger's row of a call that nothing more is known of."""
        row = LlmCall(
            model=self.model,
            cost_usd=float(self.bound_usd),
            purpose=self.purpose,
            prompt_sha256=self.prompt_sha256,
            outcome=RESERVED,
            price=self.price.model_dump(mode="json"),
            most_tokens=dict(self.most_tokens),
            charged="bound",
            reserved_at=self.reserved_at.isoformat(),
        )
        return row.model_dump(mode="json")


@dataclass(frozen=True)
class Ledger:
    """Reserve, call, settle. A call that was reserved counts at its bound until it is settled, if need be for ever.

    One state document holds the sums, changed by compare-and-set; the rows are history (`llm_calls`, by UTC day of the
    reservation and call id). A row is in the document from the moment its cost is in the sums until it is known to be
    in the history, so that whoever comes next writes it where its own writer was killed. A store in one file does all
    of it in one transaction. Every method raises StoreUnavailable while the audit store is down: nothing is spooled.
    """

    store: AuditStore
    limits: Limits
    now: Callable[[], datetime]
    calls_an_hour: int | None = field(default=5, kw_only=True)
    prices: Prices = field(default=Prices(), kw_only=True)
    patience_s: float = field(default=PATIENCE_S, kw_only=True)

    def reserve(self, *, purpose: str, model: str, prompt_sha256: str, most_tokens: Mapping[str, int]) -> Reservation:
        """Take from the budget what the call can cost at most, by an upper bound of its tokens by class.

        Raises CallRefused where the call could overshoot the day's or the month's limit, would be one too many in 60
        minutes, or nobody knows its price; StoreUnavailable; ValueError for bad input.
        """
        _check_names(purpose=purpose, model=model)
        if not re.fullmatch("[0-9a-f]{64}", prompt_sha256):
            raise ValueError(f"prompt_sha256 is {prompt_sha256!r}; give the prompt's SHA-256 in hexadecimal")
        check_tokens(most_tokens)
        if missing := {"input", "output"} - most_tokens.keys():
            raise ValueError(f"most_tokens has no {' and no '.join(sorted(missing))}; a call needs a bound of both")
        answer: list[Reservation | CallRefused] = []
        ceilings: dict[date, Ceilings] = {}

        def reserve(spending: Spending) -> Spending:
            made = answer[0] if answer else None
            if isinstance(made, Reservation) and made.call_id in spending.pending:
                return spending  # the attempt that seemed to have failed had succeeded
            now = self._utc_now()  # of each attempt: a call starts when it gets its turn
            if now.date() not in ceilings:
                ceilings[now.date()] = self._ceilings(now)
            may = ceilings[now.date()]
            answer[:] = [self._answer(spending, may, now, purpose, model, prompt_sha256, most_tokens)]
            if isinstance(answer[0], CallRefused):
                return spending.with_refusal(now, answer[0].kind)
            call = answer[0]
            return spending.reserved(call.call_id, now, nano(call.bound_usd), call.row(), keep=self.calls_an_hour or 0)

        with self.store.together():
            self._change(reserve)
            said = answer[0]
            written = self._write(said.day, said.call_id, 1, said.row()) if isinstance(said, Reservation) else {}
            self._tidy(written)
        if isinstance(said, CallRefused):
            raise said
        return said

    def _answer(
        self,
        spending: Spending,
        ceilings: Ceilings,
        now: datetime,
        purpose: str,
        model: str,
        prompt_sha256: str,
        most_tokens: Mapping[str, int],
    ) -> Reservation | CallRefused:
        try:
            price = self.prices.of(model, now)
        except UnknownPrice as error:
            return CallRefused("price", str(error))
        most = bound(price, most_tokens)
        if refusal := spending.refusal(now, nano(most), ceilings):
            return refusal
        key = f"{now:%Y%m%dT%H%M%S}-{uuid4().hex}"
        return Reservation(key, str(now.date()), purpose, model, prompt_sha256, dict(most_tokens), most, price, now)

    def settle(
        self,
        reservation: Reservation,
        *,
        outcome: str,
        tokens: Mapping[str, int] | None,
        latency_s: float,
        detail: Mapping[str, Any] | None = None,
    ) -> LlmCall:
        """Record what became of a call and what it used by class; None: nobody knows, so it stays charged its bound.

        What was used beyond the reservation is recorded and counted as it is. Settling again with the same content
        changes nothing; with another one it raises ValueError, as for bad input.
        """
        _check_names(outcome=outcome)
        if outcome == RESERVED:
            raise ValueError(f"outcome is {outcome!r}, which is what an open call has; say what became of it")
        if tokens is not None:
            check_tokens(tokens)
        chain.canonical_document(detail or {})  # what cannot be recorded is told before anything is written
        cost = reservation.bound_usd if tokens is None else rounded(reservation.price.cost(tokens))
        settled = LlmCall.model_validate(
            reservation.row()
            | {
                "outcome": outcome,
                "tokens": dict(tokens or {}),
                "charged": "bound" if tokens is None else "tokens",
                "cost_usd": float(cost),
                "latency_s": float(latency_s),
                "settled_at": self._utc_now().isoformat(),
                "detail": None if detail is None else dict(detail),
            }
        )
        row = settled.model_dump(mode="json")
        day, key = reservation.day, reservation.call_id
        known: list[Mapping[str, Any]] = []

        def settle(spending: Spending) -> Spending:
            known.clear()
            if found := self._settled(spending, day, key):
                known.append(found)
                return spending
            return spending.settled(key, day, nano(reservation.bound_usd), nano(cost), row)

        with self.store.together():
            self._change(settle)
            kept = known[0] if known else row
            if any(kept[name] != row[name] for name in _BY_CONTENT):
                raise ValueError(f"call {key} was settled before as {kept['outcome']!r}, with another content")
            self._tidy(self._write(day, key, 2, kept))
        return LlmCall.model_validate(kept)

    def repair(self) -> None:
        """Write to the history the rows of those who were killed before they could."""
        with self.store.together():
            self._tidy({})

    def standing(self) -> Standing:
        """What is spent, what may be, and whether a call could start now; reads only."""
        now = self._utc_now()
        overrides = in_force(self.store, now.date())
        return Standing.of(self._load()[1], now, self._ceilings(now), self.limits, overrides)

    def spending(self) -> Spending:
        """The sums as the budget knows them; reads only."""
        return self._load()[1]

    def _utc_now(self) -> datetime:
        now = self.now()
        if now.tzinfo is None:
            raise ValueError(f"now is {now.isoformat()} without a time zone; give an aware datetime")
        return now.astimezone(UTC)

    def _ceilings(self, now: datetime) -> Ceilings:
        day_usd, month_usd = bot_spend(self.store, now)
        allowed = {period: word.up_to_usd for period, word in in_force(self.store, now.date()).items()}
        return Ceilings.of(self.limits, self.calls_an_hour, day_usd, month_usd).raised(allowed)

    def _load(self) -> tuple[int, Spending]:
        """The document's version and content; made of the ledger's rows where there is none yet."""
        document: Final[StateDocument | None] = self.store.get_state(STATE, KEY)
        if document is None:
            since = self._utc_now().date().replace(day=1) - timedelta(days=1)
            rows = self.store.read(COLLECTION, first=str(since.replace(day=1)))
            try:
                return 0, Spending.of_rows((record.partition, record.body) for record in rows)
            except ValueError as error:
                raise StoreError(f"{COLLECTION}: a row is damaged ({error}); run verify()") from error
        try:
            return document.version, Spending.from_document(document.body)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{STATE}: document {KEY!r} is damaged ({error!r}); run verify()") from error

    def _change(self, step: Callable[[Spending], Spending]) -> None:
        """Compare and set, again and again while others are first."""
        waits = wait_random_exponential(multiplier=0.005, max=LONGEST_WAIT_S)
        tries = Retrying(retry=retry_if_exception_type(Conflict), wait=waits, stop=stop_after_delay(self.patience_s))
        try:
            for attempt in tries:
                with attempt:
                    version, spending = self._load()
                    changed = step(spending)
                    if changed is not spending:
                        self.store.put_state(STATE, KEY, changed.to_document(), expected_version=version)
        except RetryError as error:
            raise StoreUnavailable(
                f"{STATE}: others changed it first for {self.patience_s:g} s; nothing was changed, try again"
            ) from error

    def _settled(self, spending: Spending, day: str, key: str) -> Mapping[str, Any] | None:
        """The row of a call that was settled before; the document was read before this."""
        pending = spending.pending.get(key)
        if pending:
            return pending.row if pending.revision == 2 else None
        for record in self.store.read(COLLECTION, partitions=[day], key=key):
            return None if record.body["outcome"] == RESERVED else record.body
        raise StoreError(f"{COLLECTION}: no call {key} on {day}; it was reserved in another store")

    def _write(self, day: str, key: str, revision: int, row: Mapping[str, Any]) -> dict[str, int]:
        self.store.append(COLLECTION, [Entry(day, key, row)], revision=revision)
        return {key: revision}

    def _tidy(self, written: Mapping[str, int]) -> None:
        """Take from the document what is in the history, after writing there what others left behind."""
        version, spending = self._load()
        if not spending.pending:
            return
        found = dict(written)
        if others := {key: one for key, one in spending.pending.items() if key not in written}:
            days = sorted({one.day for one in others.values()})
            found |= {record.key: record.revision for record in self.store.read(COLLECTION, partitions=days)}
            for key, one in others.items():
                if one.revision > found.get(key, 0):
                    with suppress(Conflict):  # its own writer is alive, and further by now
                        found |= self._write(one.day, key, one.revision, one.row)
        with suppress(Conflict):  # whoever was first, or comes next, does it
            self.store.put_state(STATE, KEY, spending.without(found).to_document(), expected_version=version)


def _check_names(**names: str) -> None:
    for name, text in names.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name} is {text!r}; give a text")
