"""Are the last bars of many symbols read in columns just as `candles` gives them, from every source?"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trading_ops.market.candles import CandleError, CandleSource, Columns, Span, UnknownSymbol, columns_of, frame_of
from trading_ops.market.parquet import ParquetCandles, write_candles
from trading_ops.market.replayed import WEEK, ReplayedCandles
from trading_ops.market.simulated import SimulatedCandles
from trading_ops_tests.fakes import ScriptedCandles

NOW = datetime(2025, 3, 10, 12, 30, tzinfo=UTC)
LATER = NOW + 3 * WEEK
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


def simulated(_: Path) -> SimulatedCandles:
    return SimulatedCandles(lambda: NOW, SYMBOLS)


def recorded(folder: Path, now: datetime = NOW) -> ParquetCandles:
    source = SimulatedCandles(lambda: NOW, SYMBOLS)
    for symbol in SYMBOLS:
        write_candles(folder / f"{symbol}-1h.parquet", source.candles(symbol).iloc[-9_000:])
    return ParquetCandles(folder, lambda: now)


def replayed(folder: Path) -> ReplayedCandles:
    return ReplayedCandles(recorded(folder, LATER), SYMBOLS, lambda: LATER)


def scripted(folder: Path) -> ScriptedCandles:
    return ScriptedCandles({symbol: simulated(folder).candles(symbol) for symbol in SYMBOLS}, NOW)


@pytest.mark.parametrize("make", [simulated, recorded, replayed, scripted])
@pytest.mark.parametrize("hours", [1, 500, 8_500])
def test_tails_are_the_last_of_the_candles(tmp_path: Path, make: Callable[[Path], CandleSource], hours: int):
    source = make(tmp_path)
    spans = source.survey().spans
    assert sorted(spans) == source.symbols() == list(SYMBOLS)
    for symbol, columns in source.tails(spans, hours):
        assert isinstance(columns, Columns)
        pd.testing.assert_frame_equal(frame_of(columns), source.candles(symbol).iloc[-hours:], check_freq=False)
        assert all(values.dtype == np.float64 for values in columns.values)
        back = columns_of(frame_of(columns))
        np.testing.assert_array_equal(back.times, columns.times)


def test_tails_come_in_the_order_asked_for_and_of_the_asked_symbols_alone(tmp_path: Path):
    source = recorded(tmp_path)
    spans = source.survey().spans
    chosen = {symbol: spans[symbol] for symbol in ("SOLUSDT", "BTCUSDT")}
    assert [symbol for symbol, _ in source.tails(chosen, 10)] == ["SOLUSDT", "BTCUSDT"]


def test_a_file_that_was_replaced_is_read_again_and_one_that_was_not_is_not(tmp_path: Path):
    source = recorded(tmp_path)
    spans = source.survey().spans
    (_, before), *_ = source.tails(spans, 100)
    (_, again), *_ = source.tails(spans, 100)
    assert again is before
    frame = source.candles("BTCUSDT")
    write_candles(tmp_path / "BTCUSDT-1h.parquet", frame.assign(close=frame["close"] * 2))
    (_, after), *_ = source.tails(spans, 100)
    assert isinstance(before, Columns)
    assert isinstance(after, Columns)
    np.testing.assert_array_equal(after.values[3], before.values[3] * 2)


def test_a_file_that_cannot_be_read_is_told_in_the_survey_and_stands_for_its_symbol_in_the_tails(tmp_path: Path):
    source = recorded(tmp_path)
    spans = source.survey().spans
    (tmp_path / "ETHUSDT-1h.parquet").write_bytes(b"half a downl")
    survey = source.survey()
    assert sorted(survey.spans) == ["BTCUSDT", "SOLUSDT"]
    assert "ETHUSDT-1h.parquet: cannot be read as parquet" in survey.unreadable["ETHUSDT"]
    found = dict(source.tails(spans, 10))
    assert isinstance(found["ETHUSDT"], CandleError)
    assert isinstance(found["SOLUSDT"], Columns)
    with pytest.raises(CandleError, match="ETHUSDT"):
        source.symbols()


def test_the_survey_tells_stale_symbols_too(tmp_path: Path):
    frame = simulated(tmp_path).candles("BTCUSDT")
    source = ScriptedCandles({"NEW": frame, "OLD": frame.iloc[:-100]}, NOW)
    spans = source.survey().spans
    assert spans["NEW"].end - spans["OLD"].end == timedelta(hours=100)
    assert source.symbols() == ["NEW"]


def test_the_others_of_a_folder_are_replayed_along_and_end_with_the_symbols_that_set_the_shift(tmp_path: Path):
    source = recorded(tmp_path, LATER)
    longer = SimulatedCandles(lambda: NOW + timedelta(days=5), ["DOGEUSDT"]).candles("DOGEUSDT")
    write_candles(tmp_path / "DOGEUSDT-1h.parquet", longer.iloc[-300:])
    write_candles(tmp_path / "GONEUSDT-1h.parquet", longer.iloc[-2_000:-1_000])
    narrow = ReplayedCandles(source, SYMBOLS, lambda: LATER)
    assert sorted(narrow.survey().spans) == list(SYMBOLS)
    with pytest.raises(UnknownSymbol):
        narrow.candles("DOGEUSDT")
    wide = ReplayedCandles(source, SYMBOLS, lambda: LATER, others=True)
    spans = wide.survey().spans
    assert wide.label == narrow.label == "replayed +3 weeks"
    assert spans["DOGEUSDT"].end == spans["BTCUSDT"].end == datetime(2025, 3, 31, 12, tzinfo=UTC)
    assert wide.symbols() == ["BTCUSDT", "DOGEUSDT", "ETHUSDT", "SOLUSDT"]
    assert list(wide.stale_symbols()) == ["GONEUSDT"]
    ((_, tail),) = wide.tails({"DOGEUSDT": spans["DOGEUSDT"]}, 48)
    assert isinstance(tail, Columns)
    pd.testing.assert_frame_equal(frame_of(tail), wide.candles("DOGEUSDT").iloc[-48:], check_freq=False)
    assert frame_of(tail).index[-1] == datetime(2025, 3, 31, 11, tzinfo=UTC)


def test_a_replay_whose_own_symbol_cannot_be_read_says_so(tmp_path: Path):
    source = recorded(tmp_path, LATER)
    (tmp_path / "ETHUSDT-1h.parquet").write_bytes(b"half a downl")
    with pytest.raises(CandleError, match=r"ETHUSDT-1h.parquet: cannot be read as parquet"):
        ReplayedCandles(source, SYMBOLS, lambda: LATER).survey()
    others = ReplayedCandles(source, ("BTCUSDT",), lambda: LATER, others=True).survey()
    assert list(others.unreadable) == ["ETHUSDT"]
    assert others.spans["BTCUSDT"] == Span(others.spans["BTCUSDT"].first, datetime(2025, 3, 31, 12, tzinfo=UTC))


def test_services_give_one_source_for_the_same_symbols_and_add_the_configured_ones(tmp_path: Path, make_services):
    recorded(tmp_path)
    services = make_services(candles=tmp_path, symbols=("BTCUSDT",))
    assert services.candles.symbols() == ["BTCUSDT"]
    assert services.candles_among(["BTCUSDT"]) is services.candles
    assert services.candles_among(["ETHUSDT"]).symbols() == ["BTCUSDT", "ETHUSDT"]
    assert services.candles_among(None).symbols() == list(SYMBOLS)
    assert services.candles_among(None) is services.candles_among(None)
    simulation = make_services(symbols=("BTCUSDT",))
    assert simulation.candles_among(None) is simulation.candles_among(["DOGEUSDT"]) is simulation.candles
