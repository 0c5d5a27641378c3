"""What does the bot behind TRADING_OPS_BOT_URL answer? A `Bot` over its REST interface (docs/bot-interface.md)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from trading_ops.bot import replies
from trading_ops.bot.client import BotError, BotUnreachable, Calendar, EquityHistory, UnknownStrategy
from trading_ops.bot.paging import Page, read_trades
from trading_ops.bot.records import (
    EARLIEST,
    BotHealth,
    ClosedTrades,
    InvalidRecord,
    OpenOrder,
    OpenPosition,
    Portfolio,
    StrategyState,
    UsageStatistics,
    believe_trades,
)

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.bot.transport import Transport

HEALTH = "/api/health"
PORTFOLIO = "/api/paper-trading/portfolio"
CLOSED_TRADES = "/api/paper-trading/trades/closed"
OPEN_TRADES = "/api/paper-trading/trades/open"
OPEN_ORDERS = "/api/paper-trading/orders/open"
STRATEGIES = "/api/strategies"
CHART = "/api/market/chart"
USAGE = "/ai/cost/statistics"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LIVE_WITHIN = timedelta(days=2)
LABEL = "live"  # of a bot that does not say otherwise


class HttpBot:
    """Implements `trading_ops.bot.client.Bot`. Usable from several threads; a forked process connects anew.

    `token` goes into the Authorization header only. `ca_file`: PEM of the authority that signed the bot's certificate,
    else the system's. `timeout_s` bounds each attempt as a whole. `since`: the first UTC day to measure. `now`: the
    wall clock, UTC. Raises BotError for an address or token that cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        ca_file: Path | str | None = None,
        timeout_s: float = 10.0,
        since: date = date(2024, 1, 1),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._base_url = _address(base_url)
        if token is not None and not _fits_a_header(token):
            raise BotError("TRADING_OPS_BOT_TOKEN: it must be of printable ASCII characters without spaces")
        self._token = token
        self._ca_file = Path(ca_file) if ca_file else None
        self._timeout_s = timeout_s
        self._since = since
        self._wall_clock = now
        self._label: str | None = None
        self._connected: tuple[int, Transport] | None = None

    @property
    def label(self) -> str:
        if self._label is None:
            self._label = self.health().label or LABEL
        return self._label

    @property
    def source(self) -> str:
        return f"http-{hashlib.sha256(self._base_url.encode()).hexdigest()[:12]}"

    def now(self) -> datetime:
        return self.health().now or self._wall_clock()

    def calendar(self) -> Calendar:
        health, wall = self.health(), self._wall_clock()
        now = health.now or wall
        last_day = now.astimezone(UTC).date() - DAY
        if self._since > last_day:
            raise BotError(
                f"TRADING_OPS_BOT_SINCE: {self._since} is after the bot's last complete day, {last_day}"
                f" (its clock says {now:%Y-%m-%d %H:%M} UTC)"
            )
        live = all(abs(wall - moment) < LIVE_WITHIN for moment in (now, health.last_candle_at or now))
        return Calendar(self._since, last_day, live, health.now)

    def strategies(self) -> list[StrategyState]:
        data = self._get(STRATEGIES).data
        return replies.many(data, StrategyState, STRATEGIES, inside="strategies", key="name")

    def closed_trades(self, start: datetime, end: datetime) -> ClosedTrades:
        start, end = _utc(start, "start"), _utc(end, "end")

        def ask(since: datetime, limit: int) -> Page:
            moment = since.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            data, facts = self._get(CLOSED_TRADES, since=moment, limit=str(limit))
            facts = {**facts, **data} if isinstance(data, dict) else facts
            more, total = facts.get("has_more"), facts.get("total")
            return Page(
                replies.rows(data, CLOSED_TRADES, "trades"),
                more if isinstance(more, bool) else None,
                total if type(total) is int else None,
            )

        return read_trades(ask, start, end) if start < end else believe_trades([])

    def open_positions(self) -> list[OpenPosition]:
        data = self._get(OPEN_TRADES).data
        return replies.many(data, OpenPosition, OPEN_TRADES, inside="trades", key="position_id")

    def open_orders(self) -> list[OpenOrder]:
        data = self._get(OPEN_ORDERS).data
        return replies.many(data, OpenOrder, OPEN_ORDERS, inside="orders", key="order_id")

    def portfolio(self) -> Portfolio:
        data = self._get(PORTFOLIO).data
        if isinstance(data, dict) and data.get("as_of") is None:
            data = {**data, "as_of": self._wall_clock()}
        return replies.one(data, Portfolio, PORTFOLIO)

    def equity_history(self, start: datetime, end: datetime) -> EquityHistory:
        """Nothing: the interface knows only the present."""
        import pandas as pd

        none = pd.DataFrame(index=pd.DatetimeIndex([], tz="UTC", name="time").as_unit("us"), dtype=float)
        return EquityHistory(none, none.copy(), none.copy())

    def usage_statistics(self) -> UsageStatistics:
        return replies.one(self._get(USAGE).data, UsageStatistics, USAGE)

    def health(self) -> BotHealth:
        return replies.one(self._get(HEALTH).data, BotHealth, HEALTH)

    def disable_strategy(self, name: str, *, reason: str, idempotency_key: str) -> StrategyState:
        return self._switch(name, False, reason, idempotency_key)

    def enable_strategy(self, name: str, *, reason: str, idempotency_key: str) -> StrategyState:
        return self._switch(name, True, reason, idempotency_key)

    def candles(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        """Raises BotError where the bot's chart does not reach back to `start`, naming the first bar it has."""
        start, end = _utc(start, "start"), _utc(end, "end")
        if start > end:
            raise BotError(f"{symbol}: the period ends ({end}) before it starts ({start}); swap start and end")
        now = self.now()
        limit = max((now - start) // HOUR, 0) + 2
        where = f"{CHART}/{_segment(symbol, 'symbol')}/1h"
        frame = replies.candle_frame(self._get(where, limit=str(limit)).data, where)
        if frame.empty:
            raise BotError(f"{where}: the bot has no bars of {symbol}")
        if (first := frame.index[0].to_pydatetime()) - start >= HOUR:
            raise BotError(f"{symbol}: the bot's bars begin at {first}, not at {start}; ask for a later period")
        complete = (frame.index >= start) & (frame.index < end) & (frame.index <= now - HOUR)
        return frame.loc[complete]

    def _switch(self, name: str, enabled: bool, reason: str, idempotency_key: str) -> StrategyState:
        """Tell the bot, then believe its list alone: what it answers to the request itself proves nothing."""
        self._require_known(name)
        if not _fits_a_header(idempotency_key):
            raise BotError(f"idempotency key {idempotency_key!r:.80}: printable ASCII without spaces is needed")
        done = "enabled" if enabled else "disabled"
        failure = self._tell(name, enabled, reason, idempotency_key)
        unclear = failure is None or isinstance(failure, BotUnreachable)
        looks = Retrying(
            retry=retry_if_result(lambda state: state is None),
            stop=stop_after_delay(self._timeout_s if unclear else 0),
            wait=wait_exponential(0.1, max=1.0),
            retry_error_callback=lambda _: None,
        )
        try:
            state = looks(self._shown, name, enabled)
        except BotError as error:
            kind = BotUnreachable if isinstance(error, BotUnreachable) else BotError
            raise kind(f"{name} may or may not be {done}: {failure or error}") from error
        if state is None:
            why = f"the request failed: {failure}" if failure else "the bot's list does not show it"
            raise BotError(f"{name} is not confirmed to be {done}: {why}") from failure
        return state

    def _tell(self, name: str, enabled: bool, reason: str, idempotency_key: str) -> BotError | None:
        """Send the request; why it failed, as far as that is known: it may have arrived all the same."""
        path = f"{STRATEGIES}/{_segment(name, 'strategy')}/{'enable' if enabled else 'disable'}"
        headers = {"Idempotency-Key": idempotency_key, "Content-Type": "application/json"}
        content = json.dumps({"reason": reason}).encode()
        try:
            reply = self._transport().ask("POST", path, headers=headers, content=content)
            replies.payload(reply.body, reply.content_type, path)
        except InvalidRecord:
            return None  # it arrived, whatever the answer is
        except BotError as error:
            return error
        return None

    def _shown(self, name: str, enabled: bool) -> StrategyState | None:
        return next((state for state in self.strategies() if (state.name, state.enabled) == (name, enabled)), None)

    def _require_known(self, name: str) -> None:
        known = [state.name for state in self.strategies()]
        if name not in known:
            raise UnknownStrategy(f"strategy {name!r} is unknown; there are {', '.join(known) or 'none'}")

    def _get(self, path: str, **params: str) -> replies.Payload:
        reply = self._transport().ask("GET", path, params)
        return replies.payload(reply.body, reply.content_type, path)

    def _transport(self) -> Transport:
        from trading_ops.bot.transport import Transport

        if self._connected is None or self._connected[0] != os.getpid():
            # a fork must not share its parent's sockets; two threads at once make one connection too many, no harm
            transport = Transport(self._base_url, self._token, self._ca_file, self._timeout_s)
            self._connected = os.getpid(), transport
        return self._connected[1]


def _address(base_url: str) -> str:
    """The base URL in one spelling. Raises BotError; the address is not shown where it may hold a password."""
    try:
        url = urlsplit(base_url.strip())
        port = url.port
    except ValueError as error:
        raise BotError(f"TRADING_OPS_BOT_URL is no address: {error}") from None
    if "@" in url.netloc:
        raise BotError("TRADING_OPS_BOT_URL holds a user or password; put the bot's token into TRADING_OPS_BOT_TOKEN")
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise BotError("TRADING_OPS_BOT_URL must be like http://127.0.0.1:8900, without a query or fragment")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    default = {"http": 80, "https": 443}[url.scheme]
    return f"{url.scheme}://{host}{'' if port in (None, default) else f':{port}'}{url.path.rstrip('/')}"


def _segment(name: str, what: str) -> str:
    """The name as one segment of a path; raises BotError for one that would lead elsewhere."""
    try:
        if name not in ("", ".", ".."):
            return quote(name, safe="")
    except UnicodeEncodeError:
        pass
    raise BotError(f"{what} {name!r:.80} cannot be part of an address")


def _utc(moment: datetime, what: str) -> datetime:
    """The moment in UTC, not before Bitcoin's first block; raises BotError for a naive one."""
    if moment.tzinfo is None:
        raise BotError(f"{what} {moment} has no time zone; UTC is needed")
    return max(moment, EARLIEST).astimezone(UTC)


def _fits_a_header(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and " " not in text
