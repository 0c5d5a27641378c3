"""Are many symbols judged, ranked and told, each by its own bars alone, and what fails named with its reason?"""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.analysis.bulk import AnalysisFailed, analyse, conclude, make_plan, record, sentence
from trading_ops.analysis.bulk import analyse_share as analyse_symbols
from trading_ops.analysis.request import InvalidRequest, make_request
from trading_ops.audit.chain import canonical_json
from trading_ops.audit.store import open_store
from trading_ops.market.parquet import ParquetCandles, write_candles
from trading_ops.market.simulated import SimulatedCandles
from trading_ops_tests.fakes import ScriptedCandles

NOW = datetime(2025, 3, 10, 12, 30, tzinfo=UTC)
END = datetime(2025, 3, 10, 12, tzinfo=UTC)  # the close of the last complete bar
HOUR = timedelta(hours=1)
NAMES = [f"C{i:03}USDT" for i in range(12)]


def bars(close: Any, end: datetime = END, volume: Any = None) -> pd.DataFrame:
    """Hourly bars whose last closes at `end`; each opens at the close before."""
    close = np.asarray(close, float)
    opened = np.concatenate((close[:1], close[:-1]))
    index = pd.date_range(end=end - HOUR, periods=len(close), freq="h", name="time").as_unit("us")
    volumes = np.ones(len(close)) if volume is None else np.asarray(volume, float)
    columns = {"open": opened, "high": np.maximum(opened, close), "low": np.minimum(opened, close), "close": close}
    return pd.DataFrame(columns | {"volume": volumes}, index=index)


def market(*, seed: int = 1, count: int = 12, hours: int = 260) -> dict[str, pd.DataFrame]:
    random = np.random.default_rng(seed)
    closes = 10.0 ** random.uniform(-6, 4, (count, 1)) * np.exp(np.cumsum(random.normal(0, 0.01, (count, hours)), 1))
    volumes = random.lognormal(2, 0.7, (count, hours))
    return {f"C{i:03}USDT": bars(closes[i], volume=volumes[i]) for i in range(count)}


def source(frames: dict[str, pd.DataFrame], now: datetime = NOW) -> ScriptedCandles:
    return ScriptedCandles(frames, now)


def analysed(frames: dict[str, pd.DataFrame], symbols: list[str] | None = None, **options: Any) -> dict[str, Any]:
    request = make_request(symbols, all_symbols=symbols is None, **({"lookback_bars": 250} | options))
    return analyse(source(frames), request)


def row(document: dict[str, Any], symbol: str) -> dict[str, Any]:
    """A symbol's row without its rank, which is about the others."""
    return {name: value for name, value in next(r for r in document["rows"] if r["symbol"] == symbol).items()
            if name != "rank"}  # fmt: skip


def reasons(document: dict[str, Any]) -> dict[str, str]:
    return {failure["symbol"]: failure["reason"] for failure in document["failed"]}


def test_100_symbols_are_ranked_by_score_and_progress_is_told_every_10_percent_B142():
    told: list[tuple[int, int]] = []
    request = make_request(None, all_symbols=True, lookback_bars=250)
    document = analyse(source(market(count=100)), request, lambda done, total: told.append((done, total)))
    assert told == [(done, 100) for done in range(10, 101, 10)]
    order = [(-r["score"], r["symbol"]) for r in document["rows"]]
    assert order == sorted(order)
    assert [r["rank"] for r in document["rows"]] == list(range(1, 101))
    assert sum(document["signals"].values()) == document["analysed"] == 100
    assert {"BUY", "SELL", "HOLD"} == {r["signal"] for r in document["rows"]}


@pytest.mark.parametrize("size", [1, 3, 64])
def test_whatever_the_chunks_progress_is_told_at_each_tenth_and_the_document_is_the_same(size: int):
    frames = market(count=30)
    told: list[int] = []
    request = make_request(None, all_symbols=True, lookback_bars=250, chunk_size=size, threads=3)
    document = analyse(source(frames), request, lambda done, total: told.append(10 * done // total))
    assert told == list(range(1, 11))
    assert canonical_json(document) == canonical_json(analysed(frames))


def test_symbols_with_one_score_are_in_order_of_their_names_B142():
    same = market(count=1)["C000USDT"]
    document = analysed(dict.fromkeys(("B", "C", "A"), same))
    assert [r["symbol"] for r in document["rows"]] == ["A", "B", "C"]


def test_a_constant_price_is_hold_with_score_0_and_only_rises_have_rsi_100_B143():
    document = analysed({"FLAT": bars(np.full(200, 0.1)), "RISE": bars(np.arange(1.0, 201.0))})
    flat, rise = row(document, "FLAT"), row(document, "RISE")
    assert (flat["rsi"], flat["signal"], flat["score"]) == (None, "HOLD", 0.0)
    assert (flat["bollinger_position"], flat["parts"]["macd"]) == (None, None)
    assert (rise["rsi"], rise["parts"]["rsi"]) == (100.0, -1.0)
    assert rise["probability"] is None


def test_symbols_asked_for_twice_are_analysed_once_B141():
    frames = market()
    twice = analysed(frames, [*NAMES, *NAMES[:3]])
    assert twice["asked"] == twice["analysed"] == 12
    assert canonical_json(twice) == canonical_json(analysed(frames, NAMES))


def test_where_all_symbols_fail_the_reasons_are_listed_B141():
    with pytest.raises(AnalysisFailed) as failure:
        analysed({"YOUNG": bars(np.arange(1.0, 20.0))}, ["YOUNG", "NOPE"])
    assert str(failure.value).splitlines() == [
        "all 2 symbols failed, so there is no result:",
        "NOPE: unknown: no scripted candles",
        "YOUNG: 19 bars in the last 250 hours; 34 are needed",
    ]


def test_a_source_without_any_symbol_has_nothing_to_analyse_B141():
    with pytest.raises(InvalidRequest, match="symbols: 0 are asked for"):
        analysed({})


def broken(**changes: float) -> pd.DataFrame:
    frame = bars(100 + np.sin(np.arange(200.0)))
    for field, value in changes.items():
        frame.loc[frame.index[150], field] = value
    return frame


def test_what_cannot_be_judged_is_named_with_its_reason_and_the_others_are_judged():
    good = market(count=2)
    doubled = good["C000USDT"].iloc[[*range(260), 259]]
    frames = good | {
        "NAN": broken(close=np.nan),
        "ENDLESS": broken(high=np.inf),
        "UPSIDE": broken(low=500.0),
        "FREE": broken(low=0.0),
        "OWED": broken(volume=-1.0),
        "DOUBLED": doubled,
        "BACKWARDS": good["C000USDT"].iloc[::-1],
        "HALF": good["C000USDT"].set_axis(good["C000USDT"].index - timedelta(minutes=30)),
        "YOUNG": bars(np.arange(1.0, 34.0)),
        "OLD": bars(np.full(200, 5.0), end=END - timedelta(hours=49)),
    }  # fmt: skip
    document = analysed(frames, [*frames, "NOPE"])
    assert [r["symbol"] for r in document["rows"]] == ["C000USDT", "C001USDT"]
    for symbol, reason in {
        "NAN": "close is nan; it must be a finite number",
        "ENDLESS": "high is inf; it must be a finite number",
        "UPSIDE": "low is 500; it must be at most min(open, close)",
        "FREE": "low is 0; it must be above 0",
        "OWED": "volume is -1; it must be 0 or more",
        "DOUBLED": "this bar appears twice",
        "BACKWARDS": "times must ascend",
        "HALF": "time is not on the hour",
        "YOUNG": "33 bars in the last 250 hours; 34 are needed",
        "OLD": "stale: its scripted bars end at 2025-03-08 11:00 UTC, while",
        "NOPE": "unknown: no scripted candles",
    }.items():
        assert reason in reasons(document)[symbol], symbol
    assert list(reasons(document)) == sorted(reasons(document))


def test_a_symbol_a_little_behind_is_judged_as_of_its_own_last_bar():
    frames = market(count=2)
    late = frames["C001USDT"].iloc[:-48]
    document = analysed(frames | {"C001USDT": late})
    assert row(document, "C001USDT")["as_of"] == "2025-03-08T12:00+00:00"
    assert document["as_of"] == "2025-03-10T12:00+00:00"
    assert row(document, "C001USDT")["bars"] == 212  # what it has of the 250 hours before its own end


def test_hours_in_which_the_exchange_stood_still_are_counted_and_skipped():
    frame = market(count=1)["C000USDT"]
    gap = frame.drop(frame.index[200:205])
    whole, missing = (row(analysed({"C000USDT": f}), "C000USDT") for f in (frame, gap))
    assert (whole["missing_bars"], missing["missing_bars"]) == (0, 5)
    assert (whole["bars"], missing["bars"]) == (250, 245)
    # the gap's bars do not exist: the rest, moved together, is judged alike
    moved = bars(gap["close"].to_numpy(), volume=gap["volume"].to_numpy()).assign(open=gap["open"].to_numpy())
    moved["high"], moved["low"] = gap["high"].to_numpy(), gap["low"].to_numpy()
    together = row(analysed({"C000USDT": moved}, lookback_bars=245), "C000USDT")
    assert {k: v for k, v in together.items() if k != "missing_bars"} == {
        k: v for k, v in missing.items() if k != "missing_bars"
    }


def test_scores_below_the_least_are_counted_and_not_listed():
    frames = market(count=40)
    everything, best = analysed(frames), analysed(frames, min_score=0.25)
    assert [r["symbol"] for r in best["rows"]] == [r["symbol"] for r in everything["rows"] if r["score"] >= 0.25]
    assert best["below_min_score"] == 40 - len(best["rows"]) > 0
    assert best["analysed"] == 40
    assert best["signals"] == everything["signals"]


FRAMES = market(seed=3)
WHOLE = analysed(FRAMES)


@settings(max_examples=25, deadline=None)
@given(st.permutations(NAMES), st.lists(st.sampled_from(NAMES), max_size=5))
def test_order_and_repetition_of_the_symbols_change_nothing(symbols: list[str], again: list[str]):
    shuffled = {symbol: FRAMES[symbol] for symbol in symbols}
    assert canonical_json(analysed(shuffled, [*symbols, *again])) == canonical_json(WHOLE)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.sampled_from(NAMES), min_size=1), st.integers(0, 48))
def test_a_symbols_row_does_not_depend_on_its_neighbours(chosen: set[str], behind: int):
    frames = dict(FRAMES)
    others = sorted(set(NAMES) - chosen)
    for other in others:  # some longer, some shorter, one with a gap
        frames[other] = frames[other].iloc[: len(frames[other]) - behind]
    if others:
        frames[others[0]] = frames[others[0]].drop(frames[others[0]].index[100:120])
    document = analysed(frames)
    for symbol in chosen:
        assert row(document, symbol) == row(WHOLE, symbol)
        assert row(analysed(frames, [symbol]), symbol) == row(WHOLE, symbol)


@settings(max_examples=20, deadline=None)
@given(power=st.integers(-40, 40))
def test_prices_times_a_power_of_two_change_no_signal(power: int):
    prices = ["open", "high", "low", "close"]
    scaled = {symbol: frame.assign(**(frame[prices] * 2.0**power)) for symbol, frame in FRAMES.items()}
    for there, here in zip(analysed(scaled)["rows"], WHOLE["rows"], strict=True):
        assert there | {"close": 0} == here | {"close": 0}


@settings(max_examples=20, deadline=None)
@given(hours=st.integers(1, 200))
def test_a_row_as_of_an_earlier_hour_is_that_of_candles_cut_there(hours: int):
    request = make_request(None, all_symbols=True, lookback_bars=50)
    then = NOW - timedelta(hours=hours)
    cut = {symbol: frame[frame.index < END - timedelta(hours=hours)] for symbol, frame in FRAMES.items()}
    as_of_then = analyse(source(FRAMES, now=then), request)
    assert canonical_json(as_of_then) == canonical_json(analyse(source(cut, now=then), request))
    assert as_of_then["as_of"] == (END - timedelta(hours=hours)).isoformat(timespec="minutes")


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 20))
def test_shares_of_a_plan_come_to_the_whole(count: int):
    candles, request = source(FRAMES), make_request(None, all_symbols=True, lookback_bars=250)
    plan = make_plan(candles, request)
    shares = plan.shares(count)
    assert len(shares) == min(count, 12)
    assert sorted(symbol for share in shares for symbol in share) == NAMES
    document = conclude(plan, [analyse_symbols(candles, plan, share) for share in shares])
    assert canonical_json(document) == canonical_json(WHOLE)


def test_a_document_is_stored_once_under_its_last_bar_and_its_request(tmp_path: Path):
    with open_store(f"sqlite:///{tmp_path}/audit.db") as store:
        receipts = [record(store, analysed(FRAMES, threads=threads)) for threads in (1, 2)]
        other = record(store, analysed(FRAMES, min_score=0.5))
        assert [r.appended for r in (*receipts, other)] == [True, False, True]
        first, second = store.read("bulk_analyses")
    assert first.partition == second.partition == "2025-03-10"
    assert first.key.startswith("2025-03-10T12:00Z-")
    assert first.key != second.key
    assert json.dumps(WHOLE) == json.dumps(analysed(FRAMES))
    assert "12 of 12 symbols as of 2025-03-10 12:00 UTC, scripted candles: " in sentence(WHOLE)


def test_one_broken_file_fails_alone_and_all_that_are_recorded_are_found(tmp_path: Path):
    for symbol, frame in market(count=3).items():
        write_candles(tmp_path / f"{symbol}-1h.parquet", frame)
    (tmp_path / "HALFUSDT-1h.parquet").write_bytes(b"half a downl")
    document = analyse(ParquetCandles(tmp_path, lambda: NOW), make_request(all_symbols=True))
    assert document["analysed"] == 3
    assert "HALFUSDT-1h.parquet: cannot be read as parquet" in reasons(document)["HALFUSDT"]


SOURCES: dict[str, Callable[[Path], Any]] = {
    "simulated": lambda _: SimulatedCandles(lambda: NOW),
    "recorded": lambda folder: recorded_simulation(folder),
}


def recorded_simulation(folder: Path) -> ParquetCandles:
    simulated = SimulatedCandles(lambda: NOW)
    for symbol in simulated.symbols():
        write_candles(folder / f"{symbol}-1h.parquet", simulated.candles(symbol))
    return ParquetCandles(folder, lambda: NOW)


def test_the_same_bars_give_the_same_rows_whichever_source_they_come_from(tmp_path: Path):
    first, second = (analyse(make(tmp_path), make_request(all_symbols=True)) for make in SOURCES.values())
    assert first["rows"] == second["rows"]
    assert (first["candles"], second["candles"]) == ("simulated", "recorded")


def test_500_symbols_are_one_table(tmp_path: Path, market: Path):
    recorded = ParquetCandles(market, lambda: datetime(2025, 9, 19, 23, 30, tzinfo=UTC))
    symbols = recorded.symbols()
    for symbol in symbols:
        frame = recorded.candles(symbol, start=datetime(2025, 8, 1, tzinfo=UTC))
        file = tmp_path / f"{symbol}_T00-1h.parquet"
        write_candles(file, frame)
        for tile in range(1, -(-500 // len(symbols))):
            (tmp_path / f"{symbol}_T{tile:02}-1h.parquet").hardlink_to(file)
    tiled = ParquetCandles(tmp_path, recorded.now)
    names = sorted(tiled.spans())[:500]
    document = analyse(tiled, make_request(names))
    assert (document["analysed"], document["failed"]) == (500, [])
    assert [r["rank"] for r in document["rows"]] == list(range(1, 501))
    for symbol in symbols:  # a copy is judged as what it was copied from
        copies = [r for r in document["rows"] if r["symbol"].rpartition("_T")[0] == symbol]
        assert len({r["score"] for r in copies}) == 1
