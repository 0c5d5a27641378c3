"""A local server that speaks Binance's public spot interface: exchangeInfo and klines, in good and in bad moods."""

import json
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pandas as pd

from trading_ops_tests.servers.local import LocalHandler, LocalServer

HOUR_MS = 3_600_000
LARGEST_PAGE = 1_000


class Fault(NamedTuple):
    """What goes wrong with one klines request: a status, a silence, a broken connection or answer."""

    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = {}
    delay_s: float = 0.0  # then answer as usual, unless something else is wrong
    drop: bool = False  # close the connection instead of answering
    cut: bool = False  # close it in the middle of the answer


class Asked(NamedTuple):
    """One request as it came in, and how it was answered."""

    path: str
    query: dict[str, str]
    status: int
    authorization: str | None


class BinanceServer(LocalServer):
    """`bars`: a candle frame per symbol; those that opened before now are served, the running one too.

    `faults` are used up by klines requests in their order. `hold_after`: klines requests beyond this many wait for
    `released`. `served` counts how often each (symbol, open) went out.
    """

    def __init__(
        self,
        bars: dict[str, pd.DataFrame],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        names: Mapping[str, tuple[str, str]] | None = None,
        largest_page: int = LARGEST_PAGE,
    ) -> None:
        self.bars, self.now, self.largest_page = bars, now, largest_page
        self.names = dict(names or {symbol: (symbol.removesuffix("USDT"), "USDT") for symbol in bars})
        self.faults: deque[Fault] = deque()
        self.asked: list[Asked] = []
        self.served: Counter[tuple[str, pd.Timestamp]] = Counter()
        self.listing: Any = None  # what exchangeInfo answers instead of the markets of `bars`
        self.hold_after: int | None = None
        self.held = threading.Event()
        self.lock = threading.Lock()
        super().__init__(_Handler)

    def klines_asked(self) -> list[Asked]:
        with self.lock:
            return [asked for asked in self.asked if asked.path == "/api/v3/klines"]

    def forget(self) -> None:
        """Count from here on."""
        with self.lock:
            self.asked.clear()
            self.served.clear()


class _Handler(LocalHandler):
    server: BinanceServer

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        answers = {"/api/v3/exchangeInfo": self._exchange_info, "/api/v3/klines": self._klines}
        fault = self._fault(address.path)
        if fault.delay_s:
            self.server.released.wait(fault.delay_s)
        if fault.drop:
            self._note(address.path, query, 0)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault.status != 200 or fault.body:
            status, body = fault.status, fault.body
        elif address.path in answers:
            status, document = answers[address.path](query)
            body = json.dumps(document)
        else:
            status, body = 404, "<html><body><h2>404 Not found</h2></body></html>"
        self._note(address.path, query, status)
        self._send(status, body.encode(), fault)

    def _fault(self, path: str) -> Fault:
        if path != "/api/v3/klines":
            return Fault()
        with self.server.lock:
            held = self.server.hold_after is not None and self.server.hold_after <= sum(
                asked.path == path for asked in self.server.asked
            )
            fault = self.server.faults.popleft() if self.server.faults else Fault()
        if held:
            self.server.held.set()
            self.server.released.wait()
        return fault

    def _note(self, path: str, query: dict[str, str], status: int) -> None:
        with self.server.lock:
            self.server.asked.append(Asked(path, query, status, self.headers.get("Authorization")))

    def _send(self, status: int, body: bytes, fault: Fault) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json;charset=UTF-8" if body[:1] in b"[{" else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-MBX-USED-WEIGHT-1M", "2")
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault.cut else body)
        self.wfile.flush()
        if fault.cut:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _exchange_info(self, _: dict[str, str]) -> tuple[int, Any]:
        return 200, self.server.listing or {
            "timezone": "UTC",
            "serverTime": _ms(self.server.now()),
            "rateLimits": [
                {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
                {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 61000},
            ],
            "exchangeFilters": [],
            "symbols": [_market(symbol, *self.server.names[symbol]) for symbol in self.server.bars],
        }

    def _klines(self, query: dict[str, str]) -> tuple[int, Any]:
        symbol = query.get("symbol")
        if symbol is None:
            return _refused(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        if symbol not in self.server.bars:
            return _refused(-1121, "Invalid symbol.")
        if query.get("interval") != "1h":
            return _refused(-1120, "Invalid interval.")
        for name in ("startTime", "endTime", "limit"):
            if name in query and not query[name].isdigit():
                return _refused(
                    -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'."
                )
        limit = min(int(query.get("limit", 500)), self.server.largest_page)
        bars = self.server.bars[symbol]
        opens = bars.index.as_unit("ms").asi8
        inside = opens <= _ms(self.server.now())  # the running bar is among them
        if "startTime" in query:
            inside &= opens >= int(query["startTime"])
        if "endTime" in query:
            inside &= opens <= int(query["endTime"])
        chosen = bars[inside]
        chosen = chosen[:limit] if "startTime" in query else chosen[-limit:]
        with self.server.lock:
            self.server.served.update((symbol, time) for time in chosen.index)
        return 200, [
            [opened, *(f"{value:.8f}" for value in row), opened + HOUR_MS - 1, "0.00000000", 1, "0.0", "0.0", "0"]
            for opened, row in zip(chosen.index.as_unit("ms").asi8.tolist(), chosen.to_numpy().tolist(), strict=True)
        ]


def _refused(code: int, message: str) -> tuple[int, Any]:
    return 400, {"code": code, "msg": message}


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000)


def _market(symbol: str, base: str, quote: str) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "status": "TRADING",
        "baseAsset": base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": True,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "maxPrice": "1000000.0", "tickSize": "0.01000000"},
            {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.00000000", "stepSize": "0.00001000"},
            {
                "filterType": "NOTIONAL",
                "minNotional": "5.00000000",
                "applyMinToMarket": True,
                "maxNotional": "9000000.0",
            },
        ],
        "permissions": [],
        "permissionSets": [["SPOT", "MARGIN"]],
    }
