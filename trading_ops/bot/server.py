"""How is a bot offered over the REST interface that `HttpBot` reads (docs/bot-interface.md)?"""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from trading_ops.bot.client import Bot, BotError, UnknownStrategy, UnknownSymbol
from trading_ops.bot.records import EARLIEST, ClosedTrades, Moment, StrictRecord, explain

if TYPE_CHECKING:
    import pandas as pd

PAGE = 1_000
MAX_BARS = 200_000
MAX_BODY = 65_536
FOR_EVER = datetime(2200, 1, 1, tzinfo=UTC)
RECENT = timedelta(hours=6)

_moment: TypeAdapter[datetime] = TypeAdapter(Moment)


def create_app(bot: Bot, *, token: str | None = None, wrapped: bool = True) -> Starlette:
    """The bot's REST interface. One question at a time reaches the bot, in a thread.

    `token`: the bearer token every request must carry. `wrapped`: answers as `{"success": true, "data": ...}`.
    A BotError is told as 503, an unknown strategy or symbol as 404, always with `success: false` and a message.
    """
    turn = threading.Lock()

    def route(path: str, question: Callable[[Bot, Request, bytes], Any], method: str = "GET") -> Route:
        def ask(request: Request, body: bytes) -> Any:
            with turn:
                return question(bot, request, body)

        async def endpoint(request: Request) -> JSONResponse:
            if token is not None:
                _require(request.headers.get("authorization", ""), token)
            data = await run_in_threadpool(ask, request, await _body(request))
            return JSONResponse({"success": True, "data": data} if wrapped else data)

        return Route(path, endpoint, methods=[method])

    return Starlette(
        routes=[
            route("/api/health", _health),
            route("/api/paper-trading/portfolio", _portfolio),
            route("/api/paper-trading/trades/closed", _closed_trades),
            route("/api/paper-trading/trades/open", lambda b, *_: [_plain(p) for p in b.open_positions()]),
            route("/api/paper-trading/orders/open", lambda b, *_: [_plain(o) for o in b.open_orders()]),
            route("/api/strategies", lambda b, *_: [_plain(s) for s in b.strategies()]),
            route("/api/strategies/{name:path}/disable", _disable, "POST"),
            route("/api/strategies/{name:path}/enable", _enable, "POST"),
            route("/api/market/chart/{symbol:path}/{timeframe}", _chart),
            route("/ai/cost/statistics", lambda b, *_: _plain(b.usage_statistics())),
        ],
        exception_handlers={HTTPException: _refused, BotError: _failed, Exception: _broken},
    )


def _health(bot: Bot, *_: Any) -> dict[str, Any]:
    return {**_plain(bot.health()), "now": _text(bot.now()), "label": bot.label}


def _portfolio(bot: Bot, *_: Any) -> dict[str, Any]:
    """The account, and of each strategy what the newest snapshot says where the account does not say it."""
    account = bot.portfolio()
    history = bot.equity_history(account.as_of - RECENT, account.as_of + timedelta(microseconds=1))
    newest = {"equity_by_strategy": _last(history.equity), "unrealised_by_strategy": _last(history.unrealised)}
    return {**{name: values for name, values in newest.items() if values}, **_plain(account)}


def _closed_trades(bot: Bot, request: Request, _: bytes) -> dict[str, Any]:
    """`limit` trades closed at or after `since`, ascending by (closed_at, trade_id), and whether there are more."""
    since = _time(request.query_params.get("since"))
    limit = min(_count(request, PAGE), PAGE)
    closed = bot.closed_trades(since, FOR_EVER)
    rows = _rows(closed, limit)
    there = len(closed.frame) + len(closed.quarantined)
    return {"trades": rows[:limit], "has_more": there > limit or not closed.complete}


def _rows(closed: ClosedTrades, limit: int) -> list[Any]:
    """The first believed trades as JSON, and among them the rows the bot's own list was not believed for."""
    first = closed.frame.head(limit).astype(object)
    first = first.where(first.notna(), None)
    ordered: list[tuple[datetime, str, Any]] = []
    for row in first.to_dict("records"):
        times = {name: _text(row[name].to_pydatetime()) for name in ("opened_at", "closed_at")}
        ordered.append((row["closed_at"].to_pydatetime(), row["trade_id"], {**row, **times}))
    for bad in closed.quarantined:
        ordered.append((bad.closed_at or EARLIEST, "", bad.row))
    return [row for *_, row in sorted(ordered, key=lambda entry: entry[:2])]


def _disable(bot: Bot, request: Request, body: bytes) -> dict[str, Any]:
    reason, key = _order(request, body)
    return _plain(bot.disable_strategy(request.path_params["name"], reason=reason, idempotency_key=key))


def _enable(bot: Bot, request: Request, body: bytes) -> dict[str, Any]:
    reason, key = _order(request, body)
    return _plain(bot.enable_strategy(request.path_params["name"], reason=reason, idempotency_key=key))


def _order(request: Request, body: bytes) -> tuple[str, str]:
    key = request.headers.get("idempotency-key", "")
    if not key:
        raise HTTPException(400, "the header Idempotency-Key is missing; a request sent twice must be known as one")
    try:
        reason = json.loads(body)["reason"]
    except (ValueError, TypeError, KeyError, RecursionError):
        reason = None
    if not isinstance(reason, str) or not reason.strip():
        raise HTTPException(400, 'the body must be JSON with a reason: {"reason": "..."}')
    return reason, key


def _chart(bot: Bot, request: Request, _: bytes) -> list[dict[str, Any]]:
    """The bars of the last `limit` hours, ascending."""
    if (timeframe := request.path_params["timeframe"]) != "1h":
        raise HTTPException(404, f"timeframe {timeframe!r:.40} is unknown; there is 1h")
    end = bot.now()
    hours = min(_count(request, PAGE), MAX_BARS, (end - EARLIEST) // timedelta(hours=1))
    frame = bot.candles(request.path_params["symbol"], end - timedelta(hours=hours), end)
    times = frame.index.strftime("%Y-%m-%dT%H:%M:%SZ")
    return [{"time": at, **bar} for at, bar in zip(times, frame.to_dict("records"), strict=True)]


def _time(text: str | None) -> datetime:
    if text is None:
        return EARLIEST
    try:
        return _moment.validate_python(text)
    except ValidationError as error:
        raise HTTPException(400, f"since={text[:40]!r}: {explain(error)}") from None


def _count(request: Request, default: int) -> int:
    text = request.query_params.get("limit", str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and int(text) > 0):
        raise HTTPException(400, f"limit={text[:40]!r}: a whole number above 0 is needed")
    return int(text)


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"the body is larger than {MAX_BODY} bytes")
    return body


def _require(authorization: str, token: str) -> None:
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), token.encode()):
        raise HTTPException(401, "the bearer token is missing or wrong", {"WWW-Authenticate": "Bearer"})


def _plain(record: StrictRecord) -> dict[str, Any]:
    return record.model_dump(mode="json", exclude_none=True)


def _last(frame: pd.DataFrame) -> dict[str, float]:
    """The newest snapshot of each strategy that has one."""
    return {} if frame.empty else {str(name): float(value) for name, value in frame.iloc[-1].dropna().items()}


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"success": False, "error": error.detail}, error.status_code, error.headers)


def _failed(_: Request, error: Exception) -> JSONResponse:
    status = 404 if isinstance(error, (UnknownStrategy, UnknownSymbol)) else 503
    return JSONResponse({"success": False, "error": str(error)}, status)


def _broken(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"success": False, "error": f"internal error ({type(error).__name__}); see the log"}, 500)
