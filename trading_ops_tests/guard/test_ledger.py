"""Do trades that come in one by one, in any order, say the same as all of them at once?"""

from datetime import date

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.guard.ledger import Contradiction, Ledger
from trading_ops.guard.rules import Limits, judge

START = pd.Timestamp("2025-03-10T00:00", tz="UTC")

# quarters of a dollar add up without rounding, so that both sums are exact
TRADES = st.lists(
    st.tuples(
        st.integers(0, 2 * 24 * 4 - 1),  # quarters of an hour over two days: many share a time
        st.integers(-40, 12).map(lambda quarter: quarter / 4),
        st.sampled_from([None, None, None, "p1", "p2", "p3"]),
    ),
    max_size=60,
)


def frame(rows: list[tuple[int, float, str | None]]) -> pd.DataFrame:
    return pd.DataFrame({
        "trade_id": [f"t{i}" for i in range(len(rows))],
        "closed_at": (START + pd.to_timedelta([15 * at for at, _, _ in rows], "min")).as_unit("us"),
        "pnl_usdt": pd.Series([pnl for _, pnl, _ in rows], dtype=float),
        "position_id": pd.Series([position for _, _, position in rows], dtype=object),
    })  # fmt: skip


def fold(ledger: Ledger, trades: pd.DataFrame) -> Ledger:
    for row in trades.itertuples():
        ledger.add(row.trade_id, row.closed_at.to_pydatetime(), row.pnl_usdt, row.position_id or None)
    return ledger


@settings(deadline=None, max_examples=80)
@given(TRADES, st.randoms(use_true_random=False), st.sampled_from([None, 0, 50, 120]), st.floats(-30, 30))
def test_trades_folded_in_any_order_and_any_batches_are_judged_as_all_at_once(rows, random, since_quarter, marks):
    trades = frame(rows)
    since = None if since_quarter is None else (START + pd.Timedelta(minutes=15 * since_quarter)).to_pydatetime()
    order = list(range(len(rows)))
    random.shuffle(order)
    ledger = Ledger(since)
    while order:  # batches that overlap: what is read twice counts once
        size = random.randint(1, len(order))
        batch = [*order[:size], *random.sample(range(len(rows)), random.randint(0, 3) if len(rows) > 3 else 0)]
        fold(ledger, trades.iloc[batch])
        order = order[size:]
    for day in ("2025-03-09", "2025-03-10", "2025-03-11"):
        until = trades[trades["closed_at"] < pd.Timestamp(day, tz="UTC") + pd.Timedelta(days=1)]
        seen = ledger if len(until) == len(trades) else fold(Ledger(since), until)
        together = judge(trades, 100.0, Limits(consecutive_losses=3), day=day, unrealised_now=marks, since=since)
        risk = seen.risk(date.fromisoformat(day), 100.0, Limits(consecutive_losses=3), unrealised_now=marks)
        assert risk == together


def test_a_partial_exit_that_comes_later_moves_its_position_to_the_end():
    at = [(START + pd.Timedelta(hours=hour)).to_pydatetime() for hour in range(4)]
    ledger = Ledger()
    ledger.add("a", at[0], -5.0, "p")
    ledger.add("b", at[1], -1.0, None)
    assert ledger.risk(START.date(), 100.0).consecutive_losses == 2
    ledger.add("c", at[2], 8.0, "p")  # the position won after all, and went flat last
    assert ledger.risk(START.date(), 100.0).consecutive_losses == 0
    assert [t["trade_id"] for t in ledger.evidence(START.date(), 9)] == ["b", "c"]


def test_sums_do_not_depend_on_the_order_of_arrival():
    profits = [0.1, 0.2, -0.3, 1e16, -1e16]
    at = START.to_pydatetime()
    risks = set()
    for order in (profits, profits[::-1], sorted(profits)):
        ledger = Ledger()
        for pnl in order:
            ledger.add(f"t{pnl}", at, pnl, "p")
        risks.add((ledger.risk(START.date(), 1e-16).daily_loss_pct, ledger.risk(START.date(), 1.0).consecutive_losses))
    assert len(risks) == 1


def test_a_trade_that_changed_is_no_second_trade():
    ledger = Ledger()
    at = START.to_pydatetime()
    assert ledger.add("a", at, -5.0, None)
    assert not ledger.add("a", at, -5.0, None)
    with pytest.raises(Contradiction, match=r"trade a: .*-4\.0, but was read before with .*-5\.0"):
        ledger.add("a", at, -4.0, None)


def test_a_trade_closed_at_the_very_moment_counts_and_one_before_it_does_not_as_judge_says():
    at = START.to_pydatetime()
    ledger = Ledger(at)
    assert not ledger.add("before", (START - pd.Timedelta(1, "us")).to_pydatetime(), -5.0, None)
    assert ledger.add("at", at, -6.0, None)
    assert ledger.risk(START.date(), 100.0).daily_loss_pct == 6.0
    assert ledger.realised((START - pd.Timedelta(days=1)).date(), START.date(), before_resume=True) == -11.0


def test_the_evidence_is_the_days_trades_and_the_whole_streak():
    ledger = Ledger()
    for hour, pnl in enumerate([-1.0, 3.0, -1.0, 0.0, -1.0]):
        ledger.add(f"t{hour}", (START - pd.Timedelta(hours=4 - hour)).to_pydatetime(), pnl, None)
    assert [t["trade_id"] for t in ledger.evidence(START.date(), 9)] == ["t2", "t3", "t4"]  # t4 is the day's only one
    assert [t["trade_id"] for t in ledger.evidence(START.date(), 1)] == ["t4"]
