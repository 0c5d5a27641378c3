"""Which hourly candles does an exchange publish?"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from trading_ops.market.candles import FIELDS, HOUR, CandleError, UnknownSymbol, utc

if TYPE_CHECKING:
    import pandas as pd
    from tenacity import RetryCallState

TRIES = 5
LONGEST_WAIT_S = 120.0  # an exchange that wants to be left alone for longer is not waited for
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_PAGE_BARS = 1_000
_UNSTATED_PAGE_BARS = 100  # no exchange gives fewer, and a page must not be cut without our knowing
_PASSING = (408, 425, 429)  # the client errors that pass by themselves
_REFUSALS = {
    403: "refuses this machine (HTTP 403: its firewall, or a restricted location)",
    418: "has banned this address for asking too often (HTTP 418)",
    451: "may not be used from this location (HTTP 451)",
}
_ELSEWHERE = (
    "set TRADING_OPS_EXCHANGE to another exchange, or TRADING_OPS_EXCHANGE_URL to a mirror"
    " (Binance's own for market data is https://data-api.binance.vision)"
)
_Reply = TypeVar("_Reply")


class UnknownExchange(ValueError):
    """No such exchange, or none that publishes hourly candles; the message lists a few."""


class ExchangeUnavailable(CandleError):
    """The exchange does not answer or wants to be left alone: asking for another symbol would be in vain."""


class Page(NamedTuple):
    """The bars that open after the page before and before `end`: a candle frame, sorted, each bar once."""

    end: datetime
    bars: pd.DataFrame


class ExchangeCandles:
    """An exchange's hourly spot candles, through ccxt's public interface: no account, no key.

    `api_url` replaces scheme and host of all the exchange's addresses by a mirror's (its path comes first). Throttled
    as ccxt knows the exchange's limits; what may pass (no connection, HTTP 429, 5xx) is tried 5 times in all.
    """

    def __init__(
        self,
        exchange_id: str,
        *,
        api_url: str | None = None,
        timeout_s: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        ccxt = _ccxt()
        if exchange_id not in ccxt.exchanges:
            near = difflib.get_close_matches(exchange_id, ccxt.exchanges, 3) or ["binance", "bybit", "kraken", "okx"]
            raise UnknownExchange(
                f"exchange {exchange_id!r} is none of ccxt's {len(ccxt.exchanges)}, such as {', '.join(near)}"
            )
        self.id = exchange_id
        self._timeout_s, self._sleep = timeout_s, sleep
        self._reply: Any = None  # the newest HTTP response, which ccxt's errors do not carry
        options = {"defaultType": "spot", "fetchCurrencies": False}
        self._client: Any = getattr(ccxt, exchange_id)(
            {"enableRateLimit": True, "timeout": int(timeout_s * 1_000), "options": options}
        )
        if not self._client.has["fetchOHLCV"] or "1h" not in (self._client.timeframes or {}):
            raise UnknownExchange(f"{exchange_id} publishes no hourly candles; take another, such as binance or kraken")
        self._client.has["fetchCurrencies"] = False  # a second, larger request that candles do not need
        self._load_spot_only()
        session = self._client.session
        session.trust_env = True  # HTTPS_PROXY and the like, as everything else on the machine
        session.hooks["response"].append(self._note)
        if api_url is not None:
            self._go_through(api_url)

    def pages(self, symbol: str, start: datetime, end: datetime) -> Iterator[Page]:
        """The bars opening in [start, end), both full hours, oldest first; the last page's `end` is the period's.

        A page may be empty (before the listing, a standstill). Whether bars are complete or possible is not looked at.
        Raises UnknownSymbol, ExchangeUnavailable, or CandleError with the exchange's own words.
        """
        start, end = utc(start, "start"), utc(end, "end")
        market = self._market(symbol)
        while start < end:
            until = min(end, start + self.page_bars(symbol) * HOUR)
            arguments = (market, "1h", (start - _EPOCH) // _MS, (until - start) // HOUR)
            # the end is stated too: without it some exchanges answer with their newest bars instead of the first ones
            rows = self._ask(symbol, self._client.fetch_ohlcv, *arguments, {"until": (until - _EPOCH) // _MS - 1})
            bars = _frame(rows, start, until)
            # a shorter page may have been cut or be a standstill, so the next begins behind what is really there
            start = until if bars.empty else min(until, bars.index[-1].floor("h").to_pydatetime() + HOUR)
            yield Page(start, bars)

    def page_bars(self, symbol: str) -> int:
        """How many bars one request brings at most."""
        limit = self._client.feature_value(self._market(symbol), "fetchOHLCV", "limit")
        return min(int(limit or _UNSTATED_PAGE_BARS), _PAGE_BARS)

    def _market(self, symbol: str) -> str:
        """ccxt's name of the spot market that the exchange, or base and quote written together, call `symbol`."""
        if symbol not in self._spot:
            near = difflib.get_close_matches(symbol, self._spot, 3)
            advice = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UnknownSymbol(f"{symbol}: no spot market of {self.id} has this name{advice}")
        return self._spot[symbol]

    @cached_property
    def _spot(self) -> dict[str, str]:
        try:
            markets = self._ask("its markets", self._client.load_markets).values()
        except CandleError as error:
            raise ExchangeUnavailable(str(error)) from error
        spot = [market for market in markets if market.get("spot")]
        if not spot:
            raise ExchangeUnavailable(f"{self.id} lists no spot market at {self._host()}; {_ELSEWHERE}")
        plain = {f"{market['base']}{market['quote']}": market["symbol"] for market in spot}
        return plain | {market["id"]: market["symbol"] for market in spot}

    def _load_spot_only(self) -> None:
        """Where ccxt lets the kinds of markets be chosen, futures and options are not asked for."""
        wanted = self._client.options.get("fetchMarkets")
        if isinstance(wanted, dict) and "spot" in (kinds := wanted.get("types", ())):
            wanted["types"] = ["spot"] if isinstance(kinds, list) else {"spot": True}

    def _go_through(self, api_url: str) -> None:
        parts = urlsplit(api_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise UnknownExchange(
                "the exchange's address (TRADING_OPS_EXCHANGE_URL) must be like https://host/path, without a query"
            )
        if parts.username:  # kept out of the addresses, which errors show
            self._client.session.auth = (unquote(parts.username), unquote(parts.password or ""))
        base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"

        def moved(address: Any) -> Any:
            if isinstance(address, dict):
                return {name: moved(part) for name, part in address.items()}
            return base + urlsplit(address).path if isinstance(address, str) else address

        self._client.urls["api"] = moved(self._client.urls["api"])

    def _ask(self, what: str, call: Callable[..., _Reply], *arguments: Any) -> _Reply:
        from tenacity import Retrying, retry_if_exception, stop_after_attempt

        ccxt = _ccxt()

        def attempt() -> _Reply:
            self._reply = None
            return call(*arguments)

        retrying = Retrying(
            stop=stop_after_attempt(TRIES),
            retry=retry_if_exception(self._may_pass),
            wait=self._wait,
            sleep=self._sleep,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except ccxt.BaseError as error:
            if isinstance(error, ccxt.NetworkError) or self._may_pass(error) or self._status() in _REFUSALS:
                raise ExchangeUnavailable(self._unavailable(what, error)) from error
            raise CandleError(f"{what}: {self._said(error)}") from error
        except (TypeError, ValueError, LookupError, AttributeError) as error:  # ccxt's parser met what it does not know
            raise CandleError(f"{what}: {self._said(error)} (which ccxt cannot read: {error!r})") from error

    def _may_pass(self, error: BaseException) -> bool:
        """The status decides where there is one: to ccxt a server's 503 may be final and its 404 may pass."""
        ccxt, status = _ccxt(), self._status()
        if status is not None and status >= 400:
            passing = isinstance(error, ccxt.BaseError) and (status >= 500 or status in _PASSING)
        else:
            passing = isinstance(error, ccxt.NetworkError)
        return passing and self._retry_after() <= LONGEST_WAIT_S

    def _wait(self, state: RetryCallState) -> float:
        from tenacity import wait_exponential_jitter

        return max(self._retry_after(), wait_exponential_jitter(initial=1.0, max=30.0)(state))

    def _note(self, response: Any, *_: Any, **__: Any) -> None:
        """Keep the response; a success that is no JSON (a login page, say) must not pass for an empty answer."""
        self._reply = response
        if response.status_code == 200:
            response.json()  # raises what ccxt reports as an ExchangeError

    def _status(self) -> int | None:
        return None if self._reply is None else self._reply.status_code

    def _retry_after(self) -> float:
        """Seconds the exchange asked to wait, as a number or a date; 0 where it did not."""
        text = "" if self._reply is None else self._reply.headers.get("Retry-After", "").strip()
        if text.isdigit():
            return float(text)
        try:
            return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
        except (TypeError, ValueError):
            return 0.0

    def _unavailable(self, what: str, error: Exception) -> str:
        status, wait_s = self._status(), self._retry_after()
        if status in _REFUSALS:
            pause = f"wait {wait_s:.0f} s at least" if wait_s else "wait some minutes"
            return f"{what}: {self.id} {_REFUSALS[status]}; {pause if status == 418 else _ELSEWHERE}"
        if wait_s > LONGEST_WAIT_S:
            return f"{what}: {self.id} wants no request for {wait_s:.0f} s (HTTP {status}); try again then"
        if status is not None:
            return f"{what}: {self._said(error)}{f', {TRIES} times' if self._may_pass(error) else ''}; try again later"
        silent = (
            f"no answer within {self._timeout_s:g} s" if isinstance(error, _ccxt().RequestTimeout) else "no connection"
        )
        return f"{what}: {self.id} cannot be reached at {self._host()}: {silent}, {TRIES} times; check the network"

    def _said(self, error: Exception) -> str:
        """The exchange's own words in one line, at most 200 characters; ccxt's where nothing was answered."""
        if self._reply is None:
            return f"{self.id} at {self._host()}: {type(error.__cause__ or error).__name__}"
        words = " ".join(self._reply.text.split())[:200] or self._reply.reason
        return f"{self.id} at {self._host()} answered HTTP {self._reply.status_code}: {words}"

    def _host(self) -> str:
        if self._reply is not None:
            return urlsplit(self._reply.url).netloc
        addresses = self._client.urls["api"]
        while isinstance(addresses, dict):
            addresses = addresses.get("public") or next(iter(addresses.values()))
        return urlsplit(self._client.implode_hostname(addresses)).netloc


def _frame(rows: list[list[Any]], start: datetime, end: datetime) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame([row[:6] for row in rows], columns=["time", *FIELDS])
    index = pd.DatetimeIndex(pd.to_datetime(frame.pop("time"), unit="ms", utc=True), name="time").as_unit("us")
    frame = frame.astype("float64").set_axis(index).sort_index()
    frame = frame[~frame.index.duplicated(keep="last")]
    return frame[(frame.index >= start) & (frame.index < end)]


def _ccxt() -> Any:
    """Loaded when an exchange is first spoken to: half a second that nothing else needs."""
    import ccxt  # type: ignore[import-untyped]

    return ccxt
