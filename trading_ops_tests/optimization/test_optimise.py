"""Does a whole search prove what it says, with nothing to find, with something planted, and with days forged?"""

import json
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from trading_ops.audit.store import AuditStore, open_store
from trading_ops.backtesting.engine import backtest
from trading_ops.backtesting.orders import AT_ONCE, Costs, Execution
from trading_ops.backtesting.scores import score_sets
from trading_ops.optimization.figures import hold, trade_set
from trading_ops.optimization.moments import Moments, sharpe_over, sharpe_per_day
from trading_ops.optimization.optimise import COLLECTION, Optimization, optimise, record
from trading_ops.optimization.periods import Splitting, TooFewDays, bar_days, split_days
from trading_ops.optimization.request import OptimizationRequest
from trading_ops.optimization.space import build_space
from trading_ops.optimization.walk_forward import walk_forward
from trading_ops.performance.metrics import sharpe_ratio
from trading_ops_tests.optimization.markets import corrupted, mean_reverting, random_walk

FREE = Costs(0.0, 0.0)
TINY = {"period": [7, 14], "oversold": [25, 30, 35], "overbought": [60, 70]}
WIDE = {"period": {"low": 5, "high": 30, "step": 1}, "oversold": {"low": 15, "high": 45, "step": 1}}


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with open_store(f"sqlite:///{tmp_path / 'audit.db'}") as opened:
        yield opened


def find(candles: pd.DataFrame, store: AuditStore, folder: Path, **values: Any) -> Optimization:
    request = OptimizationRequest.parse({"space": TINY, "threads": 1, **values})
    return optimise(request, candles, symbol="BTCUSDT", label="recorded", folder=folder, store=store)


def moments_of(candles: pd.DataFrame, request: OptimizationRequest, costs: Costs) -> Moments:
    split = split_days(candles, request.splitting)
    seen = candles.iloc[: np.searchsorted(bar_days(candles), split.final.days[0])]
    space = request.search_space
    scores = score_sets(seen, request.strategy, space.columns(space.grid()), costs, day_blocks=split.day_blocks)
    return Moments(scores.block_days, scores.block_returns, scores.block_squares, scores.block_trades)


def walked(moments: Moments, train_blocks: int = 7, min_trades: int = 5) -> tuple[float, float]:
    """The walk-forward's annualised Sharpe ratio and its sum of daily returns, from moments alone."""
    steps = walk_forward(moments, train_blocks, min_trades)
    days = moments.days[train_blocks:].sum()
    returns, squares = (
        np.array([sum(sums[step.chosen, step.block] for step in steps if step.chosen is not None)], dtype=float)
        for sums in (moments.returns, moments.squares)
    )
    return float(sharpe_per_day(days, returns, squares)[0]) * sqrt(365), float(returns[0])


def standard_errors_from_zero(values: list[float]) -> float:
    return abs(float(np.mean(values))) / (float(np.std(values, ddof=1)) / sqrt(len(values)))


def test_on_a_fair_game_without_costs_the_walk_forward_earns_nothing_on_average():
    request = OptimizationRequest.parse({"space": TINY, "min_trades": 1})
    ratios, earned, in_sample = [], [], []
    for seed in range(100):
        moments = moments_of(random_walk(seed), request, FREE)
        ratio, returns = walked(moments, min_trades=1)
        ratios.append(ratio)
        earned.append(returns)
        in_sample.append(float(np.nanmax(sharpe_over(moments, slice(7)))))
    assert standard_errors_from_zero(ratios) < 1.96
    assert standard_errors_from_zero(earned) < 1.96
    assert standard_errors_from_zero(in_sample) > 5  # the best in sample looks like skill


@pytest.mark.chaos
@pytest.mark.parametrize("strategy", ["rsi", "macd", "bollinger", "volume"])
def test_on_many_fair_games_no_strategy_earns_anything_on_average(strategy):
    """Returns, not ratios: the Sharpe ratio of few and skewed trades is biased where the mean return is exactly 0."""
    request = OptimizationRequest.parse({"strategy": strategy, "min_trades": 1})
    earned = [walked(moments_of(random_walk(seed, 730), request, FREE), min_trades=1)[1] for seed in range(400)]
    assert standard_errors_from_zero(earned) < 2.5  # 95 % for four strategies together


def test_a_planted_edge_is_found_and_nothing_speaks_against_it(store, tmp_path):
    found = find(mean_reverting(1), store, tmp_path / "searches", strategy="bollinger", space={}).document
    assert found["verdict"] == []
    assert found["deflated_sharpe"] > 0.99
    assert found["overfitting"]["probability"] < 0.1
    assert found["walk_forward"]["sharpe_ratio"] > 5
    assert found["final"]["winner"]["total_return_pct"] > 20
    assert found["final"]["winner"]["sharpe_ratio"] > found["final"]["buy_and_hold"]["sharpe_ratio"]


def test_without_an_edge_the_verdict_says_so_plainly(store, tmp_path):
    said = " ".join(find(random_walk(2), store, tmp_path / "searches", space={}).document["verdict"])
    assert "cannot be told from luck: deflated Sharpe ratio" in said
    assert "does not beat buy-and-hold" in said or "Nothing beats buy-and-hold" in said


def test_the_walk_forward_is_made_of_the_chosen_sets_own_days(store, tmp_path):
    candles = random_walk(5)
    document = find(candles, store, tmp_path / "searches").document
    request = OptimizationRequest.parse({"space": TINY})
    split = split_days(candles, Splitting())
    seen = candles[bar_days(candles) < split.final.days[0]]
    moments = moments_of(candles, request, Costs())
    assert document["walk_forward"]["sharpe_ratio"] == pytest.approx(walked(moments)[0], rel=1e-9)
    parts, trades = [], 0
    for fold, days in zip(document["walk_forward"]["folds"], split.folds, strict=True):
        traded = trade_set(seen, "rsi", fold["parameters"], Costs(), AT_ONCE)
        parts.append(traded.returns(days.days))
        trades += len(traded.trades(days.days))
        assert fold["sharpe_ratio"] == sharpe_ratio(parts[-1])
    assert document["walk_forward"]["sharpe_ratio"] == sharpe_ratio(np.concatenate(parts))
    assert document["walk_forward"]["total_trades"] == trades


def test_sets_are_ranked_by_days_out_of_sample_and_told_with_those_in_sample(store, tmp_path):
    candles = random_walk(6)
    document = find(candles, store, tmp_path / "searches", min_trades=1).document
    request = OptimizationRequest.parse({"space": TINY})
    moments, space = moments_of(candles, request, Costs()), request.search_space
    inside, outside = sharpe_over(moments, slice(7)), sharpe_over(moments, slice(7, 12))
    by_set = {tuple(space.parameters(places).values()): i for i, places in enumerate(space.grid())}
    shown = [row["out_of_sample"]["sharpe_ratio"] for row in document["top"]]
    assert len(shown) == 10
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == pytest.approx(np.nanmax(outside))
    for row in document["top"]:
        i = by_set[tuple(row["parameters"].values())]
        assert row["out_of_sample"]["sharpe_ratio"] == pytest.approx(outside[i])
        assert row["in_sample"]["sharpe_ratio"] == pytest.approx(inside[i])
        assert row["out_of_sample"]["total_trades"] == moments.trades[i, 7:].sum()
        assert row["in_sample"]["total_trades"] == moments.trades[i, :7].sum()


def test_buy_and_hold_pays_the_same_costs_over_the_same_days():
    candles = random_walk(7, days=120)
    split = split_days(candles)
    first = int(split.final.days[0])
    shorting = Execution("short", "futures", latency_bars=3, equity_pct=50.0)
    held = hold(candles, Costs(1.0, 0.0), shorting, first).figures(split.final.days)
    bars = candles[bar_days(candles) >= first]
    growth = bars["close"].iloc[-1] / bars["open"].iloc[0] / 1.01
    assert held["total_return_pct"] == pytest.approx(100.0 * (growth - 1.0))
    assert held["total_trades"] == 0


def test_the_final_period_is_entered_from_its_first_day_on_with_warm_indicators():
    candles = random_walk(21)
    split, parameters = split_days(candles), {"period": 14, "oversold": 45.0, "overbought": 55.0}
    first = int(split.final.days[0])
    traded = trade_set(candles, "rsi", parameters, Costs(), AT_ONCE, first_day=first)
    days = bar_days(candles)
    assert not traded.returns(split.search_days).any()
    expected = backtest(candles, "rsi", parameters, Costs(), entries_allowed=days >= first)
    assert traded.figures(split.final.days)["total_return_pct"] == pytest.approx(expected.total_return_pct)
    assert expected.trades["entry_time"].iloc[0] < pd.Timestamp(split.final.first, tz="UTC") + pd.Timedelta(hours=14)


def test_what_is_left_out_at_a_blocks_start_is_in_no_figure(store, tmp_path):
    candles = random_walk(8)
    split = split_days(candles, Splitting(purge_days=3))
    assert not set(split.search_days[split.day_blocks < 0]) & set(split.out_of_sample.days)
    document = find(candles, store, tmp_path / "searches", purge_days=3).document
    assert document["walk_forward"]["days"] == len(split.out_of_sample.days)
    assert document["periods"]["train"]["days"] == (split.day_blocks[split.day_blocks >= 0] < 7).sum()


def test_forging_every_bar_of_the_folds_changes_no_proposal(store, tmp_path):
    candles = random_walk(9, days=200)
    split = split_days(candles)
    days = bar_days(candles)
    first = int(np.searchsorted(days, split.search_days[np.flatnonzero(split.day_blocks == 6)[-1]] + 1))
    forged = corrupted(candles, first, len(candles))
    assert not (forged.iloc[first:] == candles.iloc[first:]).any().any()
    tried = []
    for name, frame in (("true", candles), ("forged", forged)):
        find(frame, store, tmp_path / name, space=WIDE, sets=210)
        (folder,) = (tmp_path / name).iterdir()
        files = sorted(folder.glob("*.npz"))
        tried.append([np.load(path)["places"] for path in files])
        assert len(files) == 3
    assert all(np.array_equal(one, other) for one, other in zip(*tried, strict=True))


def test_forging_the_final_period_changes_the_final_figures_alone(store, tmp_path):
    candles = random_walk(10)
    split = split_days(candles)
    first = int(np.searchsorted(bar_days(candles), split.final.days[0]))
    forged = corrupted(candles, first, len(candles))
    true, other = (dict(find(frame, store, tmp_path / "searches").document) for frame in (candles, forged))
    assert true["digest"] == other["digest"]
    finals = [document.pop("final") for document in (true, other)]
    verdicts = [[s for s in document.pop("verdict") if "final period" not in s] for document in (true, other)]
    assert true == other
    assert verdicts[0] == verdicts[1]
    assert finals[0]["parameters"] == finals[1]["parameters"]
    for changed in ("winner", "buy_and_hold", "candles_digest"):
        assert finals[0][changed] != finals[1][changed]


def test_the_same_search_is_the_same_document_remembered_and_counted_once(store, tmp_path):
    candles = random_walk(11)
    texts = set()
    for folder in ("one", "one", "other"):
        found = find(candles, store, tmp_path / folder)
        record(store, found)
        texts.add(json.dumps(found.document, sort_keys=True))
    assert len(texts) == 1
    (remembered,) = store.read(COLLECTION, all_revisions=True)
    assert json.dumps(remembered.body, sort_keys=True) in texts
    assert remembered.body["trials"] == remembered.body["trials"] | {"total": 12, "searches": 1}
    assert remembered.body["final"]["looks"] == 1


def test_a_second_search_counts_its_trials_upon_the_first_ones_and_looks_again(store, tmp_path):
    candles = random_walk(12)
    one = find(candles, store, tmp_path / "searches").document
    two = find(candles, store, tmp_path / "searches", space=TINY | {"period": [8, 9]}).document
    assert two["digest"] != one["digest"]
    assert (two["trials"]["this_search"], two["trials"]["total"]) == (12, 24)
    assert two["final"]["looks"] == 2
    assert "looked at 2 times" in " ".join(two["verdict"])


@pytest.mark.parametrize(
    "change",
    [{"sets": 10}, {"fee_pct": 0.2}, {"purge_days": 2}, {"min_trades": 6}, {"latency_bars": 1}, {"final_pct": 21},
     {"space": TINY | {"period": [7, 15]}}, {"equity_pct": 50.0}, {"train_blocks": 5}],
)  # fmt: skip
def test_whatever_bears_on_a_search_makes_it_another_one(store, tmp_path, change):
    candles = random_walk(13, days=200)
    assert find(candles, store, tmp_path, **change).digest != find(candles, store, tmp_path).digest


@pytest.mark.parametrize("change", [{"seed": 2}, {"sets": 300}])
def test_what_does_nothing_to_a_whole_grid_makes_it_no_other_search(store, tmp_path, change):
    candles = random_walk(13, days=200)
    assert find(candles, store, tmp_path, **change).document == find(candles, store, tmp_path).document


def test_cores_do_not_bear_on_a_search(store, tmp_path):
    candles = random_walk(14)
    alone, together = (find(candles, store, tmp_path / str(n), threads=n) for n in (1, 3))
    assert alone.document == together.document


def test_one_changed_price_makes_it_another_search(store, tmp_path):
    candles = random_walk(15, days=200)
    changed = candles.copy()
    changed.iloc[100, 4] += 1e-9  # a volume
    assert find(candles, store, tmp_path).digest != find(changed, store, tmp_path).digest


def test_a_guided_search_has_no_probability_of_overfitting_and_says_why(store, tmp_path):
    document = find(random_walk(16, days=200), store, tmp_path, space=WIDE, sets=100).document
    assert document["overfitting"] is None
    assert "a search that was guided chose its own sets" in document["overfitting_note"]


def test_where_nothing_is_traded_everything_is_undefined_and_said(store, tmp_path):
    space = {"period": 14, "oversold": [1, 1.1], "overbought": [98, 99]}
    document = find(random_walk(17), store, tmp_path, space=space).document
    assert document["top"] == []
    assert document["final"]["winner"] is document["deflated_sharpe"] is None
    assert document["overfitting_note"] == "not computed: no set traded enough in half of the blocks to be chosen"
    assert [fold["parameters"] for fold in document["walk_forward"]["folds"]] == [None] * 5
    (sentence,) = document["verdict"]
    assert "there is nothing to choose" in sentence


def test_shorts_of_futures_are_searched_too(store, tmp_path):
    document = find(random_walk(18), store, tmp_path, side="short", market="futures", funding_pct=0.01).document
    assert document["top"]
    assert document["buy_and_hold"]["total_return_pct"] != 0


def test_too_few_days_are_told(store, tmp_path):
    with pytest.raises(TooFewDays, match="have 50 whole days, and 90 are needed"):
        find(random_walk(19, days=50), store, tmp_path)


def test_the_heat_map_is_a_picture_of_mean_sharpe_ratios(store, tmp_path):
    candles = random_walk(20)
    found = find(candles, store, tmp_path)
    moments, space = moments_of(candles, OptimizationRequest.parse({"space": TINY}), Costs()), build_space("rsi", TINY)
    sharpe, grid = sharpe_over(moments, slice(7, 12)), space.grid()
    by_pair = {(surface.rows, surface.columns): surface.mean_sharpe for surface in found.surfaces}
    assert set(by_pair) == {("period", "oversold"), ("period", "overbought"), ("oversold", "overbought")}
    assert by_pair["period", "overbought"][1, 0] == pytest.approx(sharpe[(grid[:, 0] == 1) & (grid[:, 2] == 0)].mean())
    rows = found.document["sensitivity"]["oversold"]
    assert rows[2] == {"value": 35.0, "mean_sharpe": pytest.approx(sharpe[grid[:, 1] == 2].mean()), "sets": 4}
    assert found.heat_map().startswith(b"\x89PNG")
    assert (
        find(candles, store, tmp_path, space={"period": [5, 6, 7], "oversold": 30, "overbought": 70}).heat_map() is None
    )
