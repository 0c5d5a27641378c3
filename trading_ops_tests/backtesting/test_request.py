"""Does a request say what is wrong with it, and get the bars it is about?"""

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import pandas as pd
import pytest

from trading_ops.backtesting.preparation import WARM_UP, prepare
from trading_ops.backtesting.request import BacktestRequest, InvalidRequest
from trading_ops.market.candles import Span, SpannedCandles, digest_of
from trading_ops.market.simulated import SimulatedCandles
from trading_ops_tests.conftest import NOON

HOUR = timedelta(hours=1)
SYMBOLS = ("BTCUSDT", "ETHUSDT")


class Folder(SpannedCandles):
    """Given frames, as a folder of recorded candles gives them."""

    label, origin = "recorded", "a test"

    def __init__(self, frames: dict[str, pd.DataFrame]) -> None:
        super().__init__(lambda: NOON)
        self.frames = frames

    def spans(self) -> dict[str, Span]:
        return {s: Span(f.index[0].to_pydatetime(), f.index[-1].to_pydatetime() + HOUR) for s, f in self.frames.items()}

    def _bars(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        frame = self.frames[symbol]
        return frame[(frame.index >= start) & (frame.index < end)]


@pytest.fixture(scope="module")
def source() -> SimulatedCandles:
    return SimulatedCandles(lambda: NOON, SYMBOLS)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"strategy": "rsy"}, "strategy 'rsy' is unknown; there are bollinger, macd, rsi, volume"),
        ({"strategy": None}, "strategy is None: Input should be a valid string"),
        ({"start": "2025-02-30"}, "start is '2025-02-30'; a UTC day such as 2025-03-01 would be right"),
        ({"end": 20250301}, "end is 20250301; a UTC day such as 2025-03-01 would be right"),
        ({"start": datetime(2025, 3, 1, 5, tzinfo=UTC)}, "a UTC day such as 2025-03-01 would be right"),
        ({"start": "2025-03-02", "end": "2025-03-01"}, "start 2025-03-02 is not before end 2025-03-01"),
        ({"start": "2025-03-01", "end": "2025-03-01"}, "a later end would be right"),
        ({"parameters": {"period": "ten"}}, "rsi: period is 'ten'; a whole number from 2 to 1000 would be right"),
        ({"parameters": {"period": True}}, "rsi: period is True; a whole number from 2 to 1000"),
        ({"parameters": {"period": float("nan")}}, "rsi: period is nan; a whole number from 2 to 1000"),
        ({"parameters": {"perod": 3}}, "rsi: parameter 'perod' is unknown; there are period, oversold, overbought"),
        ({"parameters": {"oversold": 80}}, "oversold is 80 and overbought is 70; oversold must be below overbought"),
        ({"parameters": {"stop_loss_pct": 0}}, "rsi: stop_loss_pct is 0; a number from 0.01 to 99 would be right"),
        ({"parameters": [14]}, "parameters is [14]: Input should be a valid dictionary"),
        ({"fee_pct": -0.1}, "fee_pct is -0.1; a percentage from 0 to below 100 would be right"),
        ({"fee_pct": float("nan")}, "fee_pct is nan; a percentage from 0 to below 100 would be right"),
        ({"fee_pct": True}, "fee_pct is True: Input should be a valid number"),
        ({"slippage_pct": 100.0}, "slippage_pct is 100.0; a percentage from 0 to below 100 would be right"),
        ({"lot_step": 0.0}, "lot_step is 0.0; a quantity of 1e-12 or more, or None, would be right"),
        ({"min_notional_usdt": -5.0}, "min_notional_usdt is -5.0; 0 or more, or None, would be right"),
        ({"funding_pct": 0.01}, "funding_pct is 0.01 on market 'spot', which has no funding; 0 would be right"),
        ({"latency_bars": 10**400}, "latency_bars is 1000"),
        ({"parameters": {"period": 10**400}}, "period is 1000"),
        (
            {"side": "short", "market": "futures", "parameters": {"take_profit_pct": 100}},
            "take_profit_pct is 100 on side",
        ),
        ({"side": "up"}, "side is 'up'; long or short would be right"),
        ({"side": "short"}, "side is 'short' on market 'spot', which cannot go short; give market 'futures'"),
        ({"market": "margin"}, "market is 'margin'; spot or futures would be right"),
        ({"latency_bars": 1.5}, "latency_bars is 1.5: Input should be a valid integer"),
        ({"latency_bars": 169}, "latency_bars is 169; a whole number from 0 to 168 would be right"),
        ({"equity_pct": 0.0}, "equity_pct is 0.0; a percentage from 0.01 to 100 would be right"),
        ({"initial_usdt": 0.0}, "initial_usdt is 0.0; an amount of 0.01 or more would be right"),
        ({"initial_usdt": 1e16}, "initial_usdt is 1e+16; 1e+15 at most would be right"),
        ({"capital": 5}, "capital is unknown; there are strategy, symbol, fee_pct"),
    ],
)
def test_a_request_that_cannot_be_names_field_value_and_what_would_be_right(values, said):
    with pytest.raises(InvalidRequest) as error:
        BacktestRequest.parse(values)
    assert said in str(error.value)


def test_every_wrong_field_is_named_at_once():
    with pytest.raises(InvalidRequest, match=r"fee_pct is 'y': .*number.*; start is 'x'; .* would be right"):
        BacktestRequest.parse({"start": "x", "fee_pct": "y"})


def test_days_may_be_texts_or_dates_and_a_symbol_in_small_letters():
    asked = BacktestRequest.parse({"symbol": " btcusdt", "start": "2025-01-01", "end": date(2025, 3, 1)})
    assert (asked.symbol, asked.start, asked.end) == ("BTCUSDT", date(2025, 1, 1), date(2025, 3, 1))


def test_every_field_is_described_and_has_a_default():
    for name, field in BacktestRequest.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name


def test_a_request_is_light_to_import():
    heavy = ("numpy", "pandas", "numba")
    code = f"import sys, trading_ops.backtesting.request; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"symbol": "BTCUSD"}, r"'BTCUSD' is unknown, did you mean BTCUSDT.*there are simulated candles of BTCUSDT"),
        ({"symbol": "DOGE"}, r"symbol 'DOGE' is unknown; there are simulated candles of BTCUSDT, ETHUSDT"),
        ({"start": "2023-12-31"}, r"start is 2023-12-31; the simulated candles of BTCUSDT cover the complete UTC days "
                                  r"2024-01-01 to 2025-03-09, so a day from 2024-01-01 to 2025-03-09 would be right"),
        ({"start": "2025-03-10"}, r"start is 2025-03-10; .* cover the complete UTC days 2024-01-01 to 2025-03-09"),
        ({"end": "2025-03-11"}, r"end is 2025-03-11, itself left out; .* a day from 2024-01-02 to 2025-03-10"),
        ({"end": "2024-01-01"}, r"end is 2024-01-01, itself left out; .* a day from 2024-01-02 to 2025-03-10"),
        ({"end": "0001-01-01"}, r"end is 0001-01-01"),
        ({"end": "2024-01-03", "parameters": {"period": 47}}, r"rsi looks back 48 bars, .* there are 48 of BTCUSDT"),
    ],
)  # fmt: skip
def test_what_the_candles_do_not_cover_is_refused_with_their_coverage(source, values, said):
    with pytest.raises(InvalidRequest, match=said):
        prepare(BacktestRequest.parse(values), source, SYMBOLS)


def test_without_a_period_it_is_the_last_365_days_the_candles_cover(source):
    prepared = prepare(BacktestRequest(), source, ("NOSUCH", "ETHUSDT"))
    asked = prepared.request
    assert (asked.symbol, asked.start, asked.end) == ("ETHUSDT", date(2024, 3, 10), date(2025, 3, 10))
    assert asked.parameters == {"period": 14, "oversold": 30.0, "overbought": 70.0}
    assert len(prepared.candles) - prepared.warm_up == 365 * 24
    assert prepare(BacktestRequest.parse({"end": "2024-02-01"}), source, SYMBOLS).request.start == date(2024, 1, 1)
    assert prepare(BacktestRequest.parse({"start": "2025-03-09"}), source, SYMBOLS).request.end == date(2025, 3, 10)


def test_the_bars_before_the_start_warm_the_indicators_up_as_far_as_there_are_any(source):
    asked = {"strategy": "macd", "start": "2024-06-01", "end": "2024-06-08"}
    prepared = prepare(BacktestRequest.parse(asked), source, SYMBOLS)
    assert prepared.warm_up == WARM_UP * 34  # slow, and the average of its signal
    assert prepared.candles.index[prepared.warm_up] == pd.Timestamp("2024-06-01", tz="UTC")
    assert prepared.candles.index[-1] == pd.Timestamp("2024-06-07 23:00", tz="UTC")
    assert prepare(BacktestRequest.parse(asked | {"start": "2024-01-02"}), source, SYMBOLS).warm_up == 24
    assert prepare(BacktestRequest.parse(asked | {"start": "2024-01-01"}), source, SYMBOLS).warm_up == 0


def test_a_symbol_whose_candles_ended_long_ago_can_be_asked_for_its_own_life(source):
    bars = source.candles("BTCUSDT", datetime(2025, 1, 1, tzinfo=UTC), NOON)
    folder = Folder({"BTCUSDT": bars, "OLDUSDT": bars[: 20 * 24]})
    asked = prepare(BacktestRequest.parse({"symbol": "OLDUSDT", "start": "2025-01-10"}), folder, SYMBOLS).request
    assert asked.end == date(2025, 1, 21)
    with pytest.raises(InvalidRequest, match=r"end is 2025-01-22.*recorded candles of OLDUSDT .* 2025-01-20"):
        prepare(BacktestRequest.parse({"symbol": "OLDUSDT", "end": "2025-01-22"}), folder, SYMBOLS)
    assert prepare(BacktestRequest(), folder, ("OLDUSDT", "BTCUSDT")).request.symbol == "BTCUSDT"


def test_a_period_in_which_the_exchange_stood_still_is_refused(source):
    bars = source.candles("BTCUSDT", datetime(2025, 1, 1, tzinfo=UTC), NOON)
    hole = (bars.index < "2025-02-01") | (bars.index >= "2025-02-02")
    with pytest.raises(InvalidRequest, match="holds 0 bars of BTCUSDT, the exchange stood still"):
        prepare(
            BacktestRequest.parse({"start": "2025-02-01", "end": "2025-02-02"}),
            Folder({"BTCUSDT": bars[hole]}),
            SYMBOLS,
        )


def test_a_few_hours_of_candles_have_no_day_to_trade(source):
    bars = source.candles("BTCUSDT", NOON - 10 * HOUR, NOON)
    with pytest.raises(InvalidRequest, match="recorded candles of BTCUSDT cover no complete UTC day"):
        prepare(BacktestRequest(), Folder({"BTCUSDT": bars}), SYMBOLS)


def test_one_changed_number_or_time_changes_the_digest(source):
    bars = source.candles("BTCUSDT", NOON - 50 * HOUR, NOON)
    changed = bars.copy()
    changed.iloc[3, 4] += 0.001
    shifted = bars.set_axis(bars.index + HOUR)
    assert len({digest_of(frame) for frame in (bars, changed, shifted, bars[1:])}) == 4
    assert digest_of(bars.set_axis(bars.index.as_unit("ns"))) == digest_of(bars)
