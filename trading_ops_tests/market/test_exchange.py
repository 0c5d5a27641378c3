"""Does a candle get from the exchange's socket through ccxt to us as it is, and does trouble there have a name?"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from trading_ops.market.candles import CandleError, UnknownSymbol
from trading_ops.market.exchange import ExchangeCandles, ExchangeUnavailable, UnknownExchange
from trading_ops.market.simulated import SimulatedCandles
from trading_ops_tests.servers.binance import BinanceServer, Fault

NOW = datetime(2025, 3, 10, 12, 30, tzinfo=UTC)
END = datetime(2025, 3, 10, 12, tzinfo=UTC)
BARS = {symbol: SimulatedCandles(lambda: NOW).candles(symbol) for symbol in ("BTCUSDT", "ETHUSDT")}


def hours(count: int) -> timedelta:
    return timedelta(hours=count)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[BinanceServer]:
    with BinanceServer(dict(BARS), lambda: NOW) as server:
        yield server


@pytest.fixture
def waited() -> list[float]:
    return []


@pytest.fixture
def exchange(server: BinanceServer, waited: list[float]) -> ExchangeCandles:
    return ExchangeCandles("binance", api_url=server.url, timeout_s=30.0, sleep=waited.append)


def fetched(exchange: ExchangeCandles, start: datetime, end: datetime = END, symbol: str = "BTCUSDT") -> pd.DataFrame:
    return pd.concat([page.bars for page in exchange.pages(symbol, start, end)])


def test_bars_arrive_as_they_are_a_thousand_a_page(server, exchange):
    start = END - hours(2_500)
    pages = list(exchange.pages("BTCUSDT", start, END))
    assert [len(page.bars) for page in pages] == [1_000, 1_000, 500]
    assert [page.end for page in pages] == [start + hours(1_000), start + hours(2_000), END]
    pd.testing.assert_frame_equal(pd.concat([page.bars for page in pages]), BARS["BTCUSDT"].loc[start : END - hours(1)])
    assert set(server.served.values()) == {1}


def test_only_the_public_spot_interface_is_asked(server, exchange):
    fetched(exchange, END - hours(1_500))
    assert [asked.path for asked in server.asked] == ["/api/v3/exchangeInfo", "/api/v3/klines", "/api/v3/klines"]
    assert [asked.authorization for asked in server.asked] == [None] * 3


def test_a_market_listed_later_begins_with_its_first_bar(server, exchange):
    server.bars["BTCUSDT"] = BARS["BTCUSDT"].loc[END - hours(700) :]
    pages = list(exchange.pages("BTCUSDT", END - hours(2_500), END))
    assert [len(page.bars) for page in pages] == [0, 200, 500]
    assert pd.concat([page.bars for page in pages]).index[0] == END - hours(700)


def test_a_standstill_longer_than_a_page_is_passed_over(server, exchange):
    start = END - hours(5_000)
    bars = BARS["BTCUSDT"]
    server.bars["BTCUSDT"] = bars[(bars.index < start + hours(1_200)) | (bars.index >= start + hours(4_100))]
    got = fetched(exchange, start)
    assert len(got) == 1_200 + 900
    assert set(server.served.values()) == {1}
    pd.testing.assert_frame_equal(got, server.bars["BTCUSDT"].loc[start : END - hours(1)])


def test_an_exchange_that_gives_smaller_pages_loses_no_bar(server, exchange):
    server.largest_page = 300
    start = END - hours(2_100)
    pd.testing.assert_frame_equal(fetched(exchange, start), BARS["BTCUSDT"].loc[start : END - hours(1)])


def test_a_rate_limited_request_waits_as_long_as_the_exchange_says(server, exchange, waited):
    server.faults.append(Fault(429, '{"code":-1003,"msg":"Too many requests."}', {"Retry-After": "47"}))
    assert len(fetched(exchange, END - hours(10))) == 10
    assert waited == [47.0]
    assert [asked.status for asked in server.klines_asked()] == [429, 200]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(500, "oops"),
        Fault(502, "<html>Bad Gateway</html>"),
        Fault(503, '{"code":-1000,"msg":"An unknown error occurred while processing the request."}'),
        Fault(429, ""),
        Fault(drop=True),
        Fault(cut=True),
    ],
    ids=["500", "502", "503", "429", "dropped", "cut"],
)
def test_what_passes_is_tried_again_with_growing_patience(server, exchange, waited, fault):
    server.faults.extend([fault, fault, fault])
    assert len(fetched(exchange, END - hours(10))) == 10
    assert len(waited) == 3
    assert 1.0 <= waited[0] <= 2.0
    assert 4.0 <= waited[2] <= 5.0


def test_a_slow_answer_is_asked_for_again(server, waited):
    exchange = ExchangeCandles("binance", api_url=server.url, timeout_s=3.0, sleep=waited.append)
    server.faults.append(Fault(delay_s=60.0))
    assert len(fetched(exchange, END - hours(10))) == 10
    assert waited  # a busy machine may be slow once more


def test_after_five_tries_the_exchange_counts_as_unavailable(server, exchange, waited):
    server.faults.extend([Fault(500, "the matching engine\nrests")] * 9)
    with pytest.raises(ExchangeUnavailable, match="answered HTTP 500: the matching engine rests, 5 times; try again"):
        fetched(exchange, END - hours(10))
    assert len(server.klines_asked()) == 5
    assert len(waited) == 4


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(418, '{"code":-1003,"msg":"Way too much"}', {"Retry-After": "900"}), "banned .*418.*wait 900 s"),
        (Fault(418, "banned"), "banned .*418.*wait some minutes"),
        (Fault(403, "<html>Request blocked.</html>"), "refuses this machine .*403.*TRADING_OPS_EXCHANGE_URL"),
        (Fault(403, '{"code":-1,"msg":"blocked"}'), "refuses this machine"),
        (Fault(451, '{"code":0,"msg":"Service unavailable from a restricted location."}'), "451.*TRADING_OPS_EXCHANGE"),
        (Fault(429, "", {"Retry-After": "3600"}), "wants no request for 3600 s"),
        (Fault(404, "not here"), "HTTP 404: not here; try again later"),
    ],
)
def test_an_exchange_that_refuses_is_not_asked_again(server, exchange, waited, fault, says):
    server.faults.append(fault)
    with pytest.raises(ExchangeUnavailable, match=says):
        fetched(exchange, END - hours(10))
    assert len(server.klines_asked()) == 1
    assert waited == []


def test_an_exchange_that_is_not_there_is_named(waited):
    with BinanceServer({}) as gone:
        pass
    exchange = ExchangeCandles("binance", api_url=gone.url, sleep=waited.append)
    with pytest.raises(ExchangeUnavailable, match=r"cannot be reached at 127.0.0.1:\d+: no connection, 5 times"):
        fetched(exchange, END - hours(10))


def test_a_slow_exchange_is_given_up_with_the_time_it_had(server, waited):
    exchange = ExchangeCandles("binance", api_url=server.url, timeout_s=0.2, sleep=waited.append)
    server.faults.extend([Fault(delay_s=5.0)] * 5)
    with pytest.raises(ExchangeUnavailable, match=r"no answer within 0.2 s, 5 times"):
        fetched(exchange, END - hours(10))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("<html>Welcome to the hotel's network</html>", "answered HTTP 200: <html>Welcome to the hotel"),
        ("[[1741", r"answered HTTP 200: \[\[1741"),
    ],
)
def test_an_answer_that_is_no_candles_does_not_pass_for_a_standstill(server, exchange, body, says):
    server.faults.append(Fault(200, body))
    with pytest.raises(CandleError, match=says):
        fetched(exchange, END - hours(10))


def test_markets_that_cannot_be_read_make_the_exchange_unavailable(server, exchange):
    server.listing = [1]
    with pytest.raises(ExchangeUnavailable, match=r"its markets: .* answered HTTP 200: \[1\] \(which ccxt cannot read"):
        fetched(exchange, END - hours(10))


def test_a_redirect_is_followed(server, exchange):
    query = f"symbol=BTCUSDT&interval=1h&startTime={int((END - hours(10)).timestamp() * 1000)}&limit=10"
    server.faults.append(Fault(307, "", {"Location": f"{server.url}/api/v3/klines?{query}"}))
    assert len(fetched(exchange, END - hours(10))) == 10
    assert [asked.status for asked in server.klines_asked()] == [307, 200]


def test_an_unknown_symbol_is_named_with_those_it_may_mean(server, exchange):
    with pytest.raises(UnknownSymbol, match=r"BTCUSD: no spot market of binance .*; did you mean BTCUSDT"):
        fetched(exchange, END - hours(10), symbol="BTCUSD")
    assert server.klines_asked() == []


def test_a_symbol_refused_by_the_exchange_is_told_in_its_words(server, exchange):
    assert len(fetched(exchange, END - hours(10))) == 10
    del server.bars["ETHUSDT"]
    with pytest.raises(CandleError, match=r'ETHUSDT: binance at .* answered HTTP 400: .*"Invalid symbol."') as caught:
        fetched(exchange, END - hours(10), symbol="ETHUSDT")
    assert not isinstance(caught.value, ExchangeUnavailable)


def test_a_market_is_found_by_base_and_quote_where_its_name_is_another(waited):
    bars = {"BTC-USDT": BARS["BTCUSDT"]}
    with BinanceServer(bars, lambda: NOW, names={"BTC-USDT": ("BTC", "USDT")}) as server:
        exchange = ExchangeCandles("binance", api_url=server.url, sleep=waited.append)
        assert len(fetched(exchange, END - hours(10))) == 10
        assert len(fetched(exchange, END - hours(10), symbol="BTC-USDT")) == 10


def test_a_mirrors_password_is_sent_but_never_shown(server, waited):
    address = server.url.replace("http://", "http://me:s3cret@")
    exchange = ExchangeCandles("binance", api_url=address, sleep=waited.append)
    server.faults.extend([Fault(500, "oops")] * 5)
    with pytest.raises(ExchangeUnavailable) as caught:
        fetched(exchange, END - hours(10))
    assert server.asked[0].authorization == "Basic bWU6czNjcmV0"  # me:s3cret
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cret" not in f"{error!r}"
        error = error.__cause__


def test_a_mirrors_path_comes_before_the_exchanges(server, waited):
    exchange = ExchangeCandles("binance", api_url=f"{server.url}/mirror/", sleep=waited.append)
    with pytest.raises(ExchangeUnavailable, match=r"its markets: .*HTTP 404"):
        fetched(exchange, END - hours(10))
    assert server.asked[0].path == "/mirror/api/v3/exchangeInfo"


def test_an_exchange_without_spot_markets_says_so(waited):
    with BinanceServer({}, lambda: NOW) as server:
        exchange = ExchangeCandles("binance", api_url=server.url, sleep=waited.append)
        with pytest.raises(ExchangeUnavailable, match=r"binance lists no spot market at 127.0.0.1:\d+"):
            fetched(exchange, END - hours(10))


@pytest.mark.parametrize(
    ("exchange_id", "says"),
    [
        ("binanze", r"'binanze' is none of ccxt's \d+, such as binance"),
        ("mtgox_of_old", "such as binance, bybit, kraken, okx"),
    ],
)
def test_an_unknown_exchange_is_refused_with_a_few_that_are_known(exchange_id, says):
    with pytest.raises(UnknownExchange, match=says):
        ExchangeCandles(exchange_id)


@pytest.mark.parametrize("address", ["localhost:1", "ftp://mirror", "https://", "https://mirror/?key=s3cret"])
def test_an_address_that_cannot_be_one_is_refused_without_being_shown(address):
    with pytest.raises(UnknownExchange, match="must be like https://host/path") as caught:
        ExchangeCandles("binance", api_url=address)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "exchange_id", ["binance", "bybit", "coinbase", "kraken", "kucoin", "okx", "htx", "mexc", "gate"]
)
def test_the_large_exchanges_can_be_chosen(exchange_id):
    assert ExchangeCandles(exchange_id).id == exchange_id
