"""Is a search that cannot be refused with the field, the value and what would be right?"""

import re

import pytest

from trading_ops.backtesting.request import InvalidRequest
from trading_ops.optimization.request import OptimizationRequest


def test_a_search_needs_no_setting():
    request = OptimizationRequest.parse({})
    assert (request.strategy, request.sets, request.symbol) == ("rsi", 200, None)
    assert request.search_space.size == 150


@pytest.mark.parametrize("sets", [0, -1, 9, 100_001])
def test_too_few_and_too_many_sets_are_refused_B147(sets):
    with pytest.raises(InvalidRequest) as refused:
        OptimizationRequest.parse({"sets": sets})
    assert str(refused.value) == f"sets is {sets}; 10-100000 would be right"


@pytest.mark.parametrize("sets", [10, 100_000])
def test_both_ends_of_sets_are_accepted_B147(sets):
    assert OptimizationRequest.parse({"sets": sets}).sets == sets


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"strategy": "scalper"}, "strategy 'scalper' is unknown"),
        ({"sets": "many"}, "sets is 'many': Input should be a valid integer"),
        ({"sets": 20.5}, "sets is 20.5: Input should be a valid integer"),
        ({"colour": "red"}, "colour is unknown; there are strategy, symbol, fee_pct"),
        ({"space": {"period": [1]}}, "period is 1; a whole number from 2 to 1000"),
        ({"start": "March"}, "start is 'March'; a UTC day such as 2025-03-01 would be right"),
        ({"start": "2025-03-01", "end": "2025-03-01"}, "start 2025-03-01 is not before end 2025-03-01"),
        ({"folds": 4}, "train_blocks and folds are 11 together; an even number up to 16"),
        ({"train_blocks": 14, "folds": 10}, "train_blocks and folds are 24 together"),
        ({"train_blocks": 1}, "train_blocks is 1: Input should be greater than or equal to 2"),
        ({"final_pct": 51}, "final_pct is 51: Input should be less than or equal to 50"),
        ({"final_pct": float("nan")}, "final_pct is nan: Input should be a finite number"),
        ({"min_trades": 0}, "min_trades is 0: Input should be greater than or equal to 1"),
        ({"purge_days": -1}, "purge_days is -1: Input should be greater than or equal to 0"),
        ({"fee_pct": -0.1}, "fee_pct is -0.1; a percentage from 0 to below 100"),
        ({"side": "short"}, "side is 'short' on market 'spot'"),
        ({"side": "sideways"}, "side is 'sideways'; long or short would be right"),
        ({"latency_bars": 169}, "latency_bars is 169; a whole number from 0 to 168"),
        ({"equity_pct": 0}, "equity_pct is 0"),
        ({"funding_pct": 0.01}, "funding_pct is 0.01 on market 'spot'"),
        ({"threads": 0}, "threads is 0: Input should be greater than or equal to 1"),
    ],
)
def test_what_cannot_be_is_named_with_its_value(values, said):
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        OptimizationRequest.parse(values)


def test_everything_that_is_wrong_is_told_at_once():
    with pytest.raises(InvalidRequest, match=r"sets is 5; 10-100000 would be right; folds is 1: "):
        OptimizationRequest.parse({"sets": 5, "folds": 1})
