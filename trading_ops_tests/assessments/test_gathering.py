"""Does the evidence say what was recorded, name what is missing, and keep still about later days? On a real store."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.assessments.decision import decide
from trading_ops.assessments.evidence import Attempts, Evidence
from trading_ops.assessments.gathering import gather
from trading_ops.assessments.past import COLLECTION, RETRAINS
from trading_ops.assessments.schema import Assessment
from trading_ops.audit.store import AuditStore, Entry, StoreUnavailable, open_store
from trading_ops.bot.client import BotUnreachable
from trading_ops.training.retrain import Trigger, failed
from trading_ops_tests.assessments.examples import AS_OF, DAY, model_of, opinion
from trading_ops_tests.assessments.filled_store import (
    DAYS,
    END,
    HOUR,
    MODEL,
    ONE_DAY,
    SOURCE,
    TRAINED_UNTIL,
    bars_of,
    decide_on,
    documents,
    gathered,
    market,
    record,
    record_all,
    setting,
)

WEEK = DAYS[-7:]
DUE = {"models": (model_of(drift=True),)}
NO_KEY = Assessment.none("no OPENAI_API_KEY")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[AuditStore]:
    with open_store(f"sqlite:///{tmp_path}/audit.db") as store:
        yield store


@pytest.fixture
def store(empty: AuditStore) -> AuditStore:
    record_all(empty)
    return empty


# what is recorded


def test_seven_days_run_from_the_oldest_to_the_current_one(store):
    found = gathered(store)
    assert [day.day for day in found.days] == WEEK
    assert found.current == found.days[-1]
    assert (found.day, found.as_of, found.present) == (DAY, AS_OF, True)
    assert found.missing == ()


def test_counts_rates_and_intervals_are_those_of_the_documents(store):
    today = gathered(store).days[-1]
    account = documents()["performance_metrics"][DAY]["portfolio"]
    assert (today.trades, today.wins, today.win_rate_pct) == (12, 7, pytest.approx(100 * 7 / 12))
    assert (today.window_trades, today.window_win_rate_pct) == (84, pytest.approx(100 * 7 / 12))
    assert today.window_win_rate_interval_pct == tuple(account["intervals"]["win_rate_pct"])
    assert today.window_avg_profit_pct == pytest.approx((7 - 5) / 12)  # 1 % won or lost a trade
    assert today.window_avg_profit_interval_pct == tuple(account["intervals"]["avg_profit_pct"])
    assert today.window_sharpe_ratio == account["sharpe_ratio"]
    assert today.window_sharpe_standard_error == account["sharpe_standard_error"]
    pooled = documents()["model_accuracy_history"][DAY]["pooled"]
    assert (today.accuracy, today.accuracy_n) == (pooled["accuracy"], 24)


def test_the_ninety_day_ratio_is_the_accounts(store):
    account = documents()["performance_metrics"][DAY]["portfolio"]
    found = gathered(store)
    assert found.sharpe_ratio_90d == account["sharpe_ratio_90d"] is not None
    assert found.sharpe_standard_error_90d == account["sharpe_standard_error_90d"]


def test_trades_are_grouped_by_what_the_bot_says_of_them_the_largest_group_first(store):
    groups = gathered(store).trades
    assert sum(group.trades for group in groups) == 84
    assert [(g.strategy, g.close_reason, g.trades, g.wins) for g in groups] == [
        ("macd", "signal", 35, 28), ("rsi", "signal", 28, 21), ("rsi", "stop_loss", 14, 0), ("macd", "stop_loss", 7, 0),
    ]  # fmt: skip
    assert groups[0].avg_profit_pct == pytest.approx((28 - 7) / 35)
    assert {(group.symbol, group.side) for group in groups} == {("BTCUSDT", "long")}


def test_a_strategys_critical_metric_is_told_with_its_interval_and_a_warning_is_not(store):
    found = gathered(store)
    alerts = {
        (name, alert["metric"]): alert
        for name, metrics in documents()["performance_metrics"][DAY]["strategies"].items()
        for alert in metrics["alerts"]
    }
    critical = {key for key, alert in alerts.items() if alert["severity"] == "CRITICAL"}
    assert {(breach.strategy, breach.metric) for breach in found.breaches} == critical
    assert ("macd", "win_rate_pct") in alerts.keys() - critical  # 28 of 42: below 70 %, above 55 %
    assert ("rsi", "win_rate_pct") in critical  # 21 of 42
    for breach in found.breaches:
        alert = alerts[breach.strategy, breach.metric]
        assert (breach.value, breach.limit, breach.confirmed) == (alert["value"], alert["limit"], alert["confirmed"])
        assert breach.interval == (alert["interval"] and tuple(alert["interval"]))


def test_a_models_age_and_accuracy_are_those_of_the_day(store):
    (model,) = gathered(store).models
    row = documents()["model_accuracy_history"][DAY]["models"][MODEL]
    assert (model.name, model.model_id, model.age_days) == (MODEL, "lstm-BTCUSDT-000000000001", 17.4583)
    assert (model.n_7d, model.accuracy_7d, model.drop_7d_pp) == (168, row["accuracy_7d"], row["drop_7d_pp"])
    assert model.drop_7d_interval_pp == tuple(row["drop_7d_interval_pp"])
    assert model.drift == row["drift_7d"]


def test_new_bars_are_those_that_are_there_since_the_models_candles_ended(store):
    whole = market()
    hours = int((END - TRAINED_UNTIL) / HOUR)
    assert gathered(store).models[0].new_bars == hours == 419
    closed = (whole.index >= END - 3 * ONE_DAY) & (whole.index < END - 2 * ONE_DAY)
    assert gathered(store, frames={"BTCUSDT": whole[~closed]}).models[0].new_bars == hours - 24


def test_new_bars_of_a_symbol_that_is_not_read_are_the_hours(store):
    assert gathered(store, symbols=("ETHUSDT",), frames={"ETHUSDT": market()}).models[0].new_bars == 419


def test_a_model_that_is_not_deployed_any_more_is_not_asked_about(empty):
    record_all(empty)
    body = documents()["model_accuracy_history"][DAY]
    row = {**body["models"][MODEL], "deployed": False, "model_age_days": None}
    record(empty, "model_accuracy_history", {DAY: {**body, "models": {MODEL: row}}})
    assert gathered(empty).models == ()


def test_the_newest_revision_of_a_day_counts(store):
    body = documents()["closed_trades"][DAY]
    record(store, "closed_trades", {DAY: {**body, "trades": body["trades"][:5], "total": 5}})
    assert (gathered(store).days[-1].trades, gathered(store).days[-1].win_rate_pct) == (5, 100.0)


def test_a_trade_without_profit_is_no_win(store):
    body = documents()["closed_trades"][DAY]
    rows = [{**trade, "pnl_usdt": 0.0, "pnl_pct": 0.0} for trade in body["trades"]]
    record(store, "closed_trades", {DAY: {**body, "trades": rows}})
    found = gathered(store)
    assert (found.days[-1].wins, found.days[-1].win_rate_pct) == (0, 0.0)
    assert sum(group.wins for group in found.trades) == 6 * 7


def test_a_day_without_trades_has_no_win_rate_and_is_not_missing(store):
    record(store, "closed_trades", {DAY: {**documents()["closed_trades"][DAY], "trades": [], "total": 0}})
    found = gathered(store)
    assert (found.days[-1].trades, found.days[-1].win_rate_pct, found.missing) == (0, None, ())


def test_of_more_than_thirty_groups_the_largest_are_told(store):
    body = documents()["closed_trades"][DAY]
    rows = [{**body["trades"][0], "close_reason": f"reason {n}"} for n in range(40)]
    record(store, "closed_trades", {DAY: {**body, "trades": rows}})
    groups = gathered(store).trades
    assert len(groups) == 30
    assert groups[0].trades == 30  # of the six days before
    assert gathered(store).days[-1].trades == 40


# what is missing

UNKNOWN = "the market of XYZUSDT (XYZUSDT: no candles; there are BTCUSDT)"
MISSING: dict[str, tuple[tuple[tuple[str, str], ...], dict[str, Any], str]] = {
    "a day's metrics": ((("performance_metrics", WEEK[2]),), {}, f"performance_metrics of {WEEK[2]}"),
    "two days' trades": (
        (("closed_trades", WEEK[0]), ("closed_trades", DAY)), {}, f"closed_trades of {WEEK[0]}, {DAY}"
    ),
    "the accuracy of the day": ((("model_accuracy_history", DAY),), {}, f"model_accuracy_history of {DAY}"),
    "a symbol without candles": ((), {"symbols": ("BTCUSDT", "XYZUSDT")}, UNKNOWN),
    "half a week of bars": (
        (), {"frames": {"BTCUSDT": market().iloc[:-96]}}, "the market of BTCUSDT (84 of 168 bars of the week)"
    ),
    "no symbol": ((), {"symbols": ()}, "the market (the bot names no symbol)"),
}  # fmt: skip


@pytest.mark.parametrize(("without", "changes", "why"), MISSING.values(), ids=MISSING)
def test_what_is_missing_is_named_and_keeps_models_from_being_retrained(empty, without, changes, why):
    record_all(empty, without=without)
    found = gathered(empty, **changes)
    assert found.missing == (why,)
    decision = decide(found, opinion(confidence=1.0, urgency="high"))
    assert (decision.action, decision.allowed, decision.rule) == ("wait", False, "blocked")
    assert f"{why} is missing" in decision.why


def test_with_all_inputs_the_same_opinion_retrains(store):
    assert decide(gathered(store), opinion()).action == "retrain"


def test_a_trade_list_that_may_be_cut_off_is_missing(store):
    record(store, "closed_trades", {DAY: {**documents()["closed_trades"][DAY], "complete": False}})
    (why,) = gathered(store).missing
    assert why == f"a part of the trades of {DAY}, whose list may be cut off,"
    assert not decide(gathered(store), opinion()).allowed


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"complete": False}, "whose list may be cut off"),
        ({"quarantined": [{"row": {}, "reason": "price"}]}, "of which 1 cannot be right (trading-ops quarantine)"),
        ({"vanished": ["t1"]}, "of which the bot forgot some"),
    ],
)
def test_a_day_of_the_week_whose_trades_are_not_all_known_is_missing(store, changes, why):
    """Where it is the winning trades that are not known, the days look like losing ones."""
    record(store, "closed_trades", {DAYS[-3]: {**documents()["closed_trades"][DAYS[-3]], **changes}})
    assert gathered(store).missing == (f"a part of the trades of {DAYS[-3]}, {why},",)


@pytest.mark.parametrize(
    ("collection", "body"),
    [
        ("closed_trades", {"pnl": 1}),
        ("closed_trades", {"trades": None, "quarantined": [], "complete": True}),
        ("closed_trades", {"trades": [], "quarantined": 3, "complete": True}),
        ("performance_metrics", {"strategies": {"rsi": None}}),
        ("model_accuracy_history", {"models": {"lstm/BTCUSDT": {"accuracy": 0.5}}}),
        ("closed_trades", {"trades": [{"pnl_pct": 1.0}], "quarantined": [], "complete": True}),
        ("performance_metrics", {"win_rate": 55}),
        ("model_accuracy_history", {"accuracy": 0.5}),
    ],
)
def test_a_record_of_another_program_is_missing_and_no_error(store, collection, body):
    record(store, collection, {DAY: body})
    assert gathered(store).missing == (f"{collection} of {DAY}",)


def test_decisions_and_retrains_that_another_program_recorded_break_nothing(store):
    record(store, COLLECTION, {DAYS[-2]: {"recommendation": "retrain"}, DAYS[-3]: {"decision": {}, "evidence": None}})
    store.append(
        RETRAINS, [Entry("2025-03-08", "x", {"model": "lstm"}), Entry("2025-03-07", "y", {"at": "2025-03-07"})]
    )
    assert tried(store) == Attempts(hours_since_last=51.0, last_7_days=2)
    assert gathered(store).vetoed_since is None


def test_a_retrain_that_waits_for_its_turn_is_an_attempt(store):
    assert tried(store, retraining=True) == Attempts(hours_since_last=0.0, last_7_days=1)
    decide_on(store, DAYS[-2], opinion(), hour=5)
    assert tried(store, retraining=True) == Attempts(hours_since_last=22.0, last_7_days=1)
    assert tried(store, DAYS[-2], retraining=True) == Attempts()


def test_predictions_whose_outcomes_cannot_be_read_are_missing(store):
    body = documents()["model_accuracy_history"][DAY]
    row = {**body["models"][MODEL], "outcome": "no_candles", "error": "no candles"}
    record(store, "model_accuracy_history", {DAY: {**body, "models": {MODEL: row}}})
    assert gathered(store).missing == (f"what came of the predictions of {MODEL}",)


@pytest.mark.parametrize(
    ("links", "missing"),
    [({}, ()), ({"rsi": ("lstm/LUNAUSDT",)}, ("what came of the predictions of lstm/LUNAUSDT",))],
)
def test_a_model_of_a_delisted_symbol_that_nobody_uses_holds_no_other_back(store, links, missing):
    body = documents()["model_accuracy_history"][DAY]
    row = {**body["models"][MODEL], "symbol": "LUNAUSDT", "outcome": "no_candles", "error": "no candles"}
    record(store, "model_accuracy_history", {DAY: {**body, "models": {**body["models"], "lstm/LUNAUSDT": row}}})
    assert gathered(store, links=links).missing == missing


def test_accuracy_of_earlier_days_may_be_missing(empty):
    record_all(empty, without=tuple(("model_accuracy_history", day) for day in DAYS[:-1]))
    assert gathered(empty).missing == ()


def test_an_empty_store_misses_everything_but_the_market(empty):
    found = gathered(empty)
    days = ", ".join(WEEK)
    assert found.missing == (
        f"closed_trades of {days}", f"performance_metrics of {days}", f"model_accuracy_history of {DAY}",
    )  # fmt: skip
    assert [day.trades for day in found.days] == [0] * 7
    assert {day.window_trades for day in found.days} == {None}


def test_days_before_the_bots_first_are_not_missed(empty):
    record_all(empty, without=tuple((name, day) for name in documents() for day in WEEK[:4]))
    found = gathered(empty, first_day=date.fromisoformat(WEEK[4]))
    assert [day.day for day in found.days] == WEEK[4:]
    assert found.missing == ()


@pytest.mark.parametrize("collection", documents())
def test_what_another_bot_recorded_does_not_count(store, collection):
    record(store, collection, {DAY: documents()[collection][DAY]}, source="another")
    found = gathered(store)
    assert found.missing == (f"{collection} of {DAY}",)
    assert decide(found, opinion()).action == "wait"


@pytest.mark.parametrize("why", ["nan", "twice"])
def test_bars_that_cannot_be_true_are_missing(store, why):
    bars = market()
    if why == "nan":
        bars.iloc[-20, 3] = float("nan")
    else:
        bars = bars.iloc[[*range(len(bars) - 20), -20, *range(-20, 0)]]
    found = gathered(store, frames={"BTCUSDT": bars})
    (missing,) = found.missing
    assert missing.startswith("the market of BTCUSDT (BTCUSDT 2025-03-09 16:00")
    assert found.market == ()


def test_a_fault_of_a_month_ago_does_not_hide_the_week(store):
    bars = market()
    bars.iloc[-24 * 25, 3] = float("nan")
    found = gathered(store, frames={"BTCUSDT": bars})
    assert found.missing == ()
    assert found.market == gathered(store).market


def test_a_store_that_is_down_is_no_empty_one(make_services):
    down = make_services(mongodb_uri="mongodb://127.0.0.1:9/x?timeoutMS=100").store
    with pytest.raises(StoreUnavailable):
        gathered(down)


def test_a_bot_that_is_down_leaves_the_market_missing(store):
    def bars(symbol: str, start: datetime, end: datetime) -> Any:
        raise BotUnreachable("connection refused")

    found = gather(store, bars, [DAY], setting())[DAY]
    assert found.missing == ("the market of BTCUSDT (connection refused)",)


# what was tried before


def retried(store: AuditStore, at: datetime, decision: str = "d-1", name: str = MODEL) -> None:
    failed(store, name, Trigger(decision, "why"), "out of memory", at)


def tried(store: AuditStore, *days: str, **changes: Any) -> Attempts:
    return gathered(store, *days, **changes).attempts


def test_without_any_there_was_none(store):
    assert tried(store) == Attempts(hours_since_last=None, last_7_days=0)


def test_hours_since_a_retrain_count_from_when_it_was_told(store):
    retried(store, AS_OF - 71.5 * HOUR)
    assert tried(store) == Attempts(hours_since_last=71.5, last_7_days=1)
    assert not decide(gathered(store), opinion()).allowed


@pytest.mark.parametrize(
    ("fields", "hours"),
    [
        ({"at": "2025-03-08T01:00:00+00:00", "holdout": ["2025-02-01T00:00+00:00", "2025-03-07T00:00+00:00"]}, 50),
        ({"holdout": ["2025-02-01T00:00+00:00", "2025-03-08T12:00+00:00"]}, 39),
        ({}, 51),
    ],
)  # fmt: skip
def test_a_retrain_was_when_it_says_else_at_the_end_of_its_candles_else_on_its_day(store, fields, hours):
    body = {"name": MODEL, "trigger": {"decision": "d-1", "reason": "", "by": "by hand"}, **fields}
    store.append(RETRAINS, [Entry("2025-03-08", f"d-1/{MODEL}", body)])
    assert tried(store) == Attempts(hours_since_last=float(hours), last_7_days=1)


def test_a_decision_about_many_models_is_one_attempt_and_its_last_counts(store):
    for hours, name in ((80, "lstm/BTCUSDT"), (79, "gru/ETHUSDT")):
        retried(store, AS_OF - hours * HOUR, name=name)
    assert tried(store) == Attempts(hours_since_last=79.0, last_7_days=1)


def test_a_decision_to_retrain_counts_at_once_and_with_its_outcome_still_once(store):
    document = decide_on(store, DAYS[-2], opinion(), hour=5)
    assert document["decision"]["action"] == "retrain"
    assert tried(store) == Attempts(hours_since_last=22.0, last_7_days=1)
    retried(store, AS_OF - 21 * HOUR, document["decision_id"])
    assert tried(store) == Attempts(hours_since_last=21.0, last_7_days=1)


def test_a_decision_that_nothing_came_of_within_a_day_was_no_attempt(store):
    """Its sensor launches it on its own day alone."""
    decide_on(store, DAYS[-2], opinion(), hour=3)
    assert tried(store, DAY, now=AS_OF - timedelta(seconds=1)).last_7_days == 1
    assert tried(store) == Attempts()
    assert decide(gathered(store), opinion()).action == "retrain"


def test_a_decision_to_retrain_that_was_decided_again_is_still_an_attempt(store):
    decide_on(store, DAYS[-2], NO_KEY, **DUE, hour=4)
    decide_on(store, DAYS[-2], opinion("wait", 0.9), hour=5)
    assert tried(store) == Attempts(hours_since_last=23.0, last_7_days=1)


@pytest.mark.parametrize("changes", [{"present": False, **DUE}, {"source": "another", **DUE}, {}])
def test_what_launched_nothing_is_no_attempt(store, changes):
    decide_on(store, DAYS[-2], NO_KEY, hour=4, **changes)
    assert tried(store) == Attempts()


def test_a_retrain_of_seven_days_ago_is_not_in_the_week_any_more(store):
    retried(store, AS_OF - 7 * ONE_DAY + timedelta(seconds=1), "d-1")
    assert tried(store).last_7_days == 1
    retried(store, AS_OF - 7 * ONE_DAY, "d-0")
    retried(store, AS_OF - 8 * ONE_DAY, "d-00")
    assert tried(store).last_7_days == 1
    retried(store, AS_OF - 4 * ONE_DAY, "d-2")
    assert tried(store) == Attempts(hours_since_last=96.0, last_7_days=2)
    assert "2 retrains in the last 7 days" in decide(gathered(store), opinion()).why


def test_no_attempt_after_the_moment_counts(store):
    retried(store, END + HOUR)
    assert tried(store, DAY) == Attempts(hours_since_last=2.0, last_7_days=1)
    assert tried(store, DAY, present=None) == Attempts()  # a past day, seen from its end
    assert tried(store, DAYS[-2]) == Attempts()


def test_an_attempt_is_still_known_of_a_past_day_after_it_was_made_again(store):
    """A run that failed and was started again two days later does not take its first attempt out of the past."""
    decision = decide_on(store, DAYS[-3], opinion())["decision_id"]
    before = tried(store, DAYS[-2])
    retried(store, AS_OF - HOUR, decision)
    assert tried(store, DAYS[-2]) == before == Attempts(hours_since_last=21.0, last_7_days=1)
    assert tried(store) == Attempts(hours_since_last=1.0, last_7_days=1)


# what was held back


def vetoed(store: AuditStore, *days: str) -> None:
    for day in days:
        document = decide_on(store, day, opinion("wait", 0.9), **DUE)
        assert document["decision"]["gpt_vetoes"]


def test_a_veto_lasts_over_unbroken_days(store):
    assert gathered(store).vetoed_since is None
    vetoed(store, DAYS[-2])
    assert gathered(store).vetoed_since == DAYS[-2]
    vetoed(store, *DAYS[-4:-2])
    assert gathered(store).vetoed_since == DAYS[-4]


@pytest.mark.parametrize("between", ["nothing recorded", "a quiet day", "another bot's", "a retrain"])
def test_a_veto_is_broken_by(store, between):
    vetoed(store, DAYS[-5], DAYS[-4], DAYS[-2])
    if between == "a quiet day":
        decide_on(store, DAYS[-3], opinion("wait", 0.9))
    elif between == "another bot's":
        decide_on(store, DAYS[-3], opinion("wait", 0.9), source="another", **DUE)
    elif between == "a retrain":
        assert decide_on(store, DAYS[-3], opinion("wait", 0.6), **DUE)["decision"]["action"] == "retrain"
    assert gathered(store).vetoed_since == DAYS[-2]


def test_a_veto_goes_on_beside_a_retrain_of_models_that_are_too_old(store):
    vetoed(store, DAYS[-4], DAYS[-3])
    models = (model_of("gru/ETHUSDT", age_days=31.0, new_bars=700), model_of(drift=True))
    document = decide_on(store, DAYS[-2], opinion("wait", 0.9), models=models, links={"rsi": ("gru/ETHUSDT", MODEL)})
    assert (document["decision"]["models"], document["decision"]["gpt_vetoes"]) == (["gru/ETHUSDT"], True)
    assert document["decision"]["decided_by"] == "gpt"
    assert gathered(store).vetoed_since == DAYS[-4]


def test_a_veto_of_the_day_itself_is_not_before_it(store):
    vetoed(store, DAY)
    assert gathered(store).vetoed_since is None


def test_a_veto_that_is_over_stays_over_while_the_retrain_is_not_allowed(store):
    """After seven days of it the rules decide; what then blocks them does not begin the veto anew."""
    vetoed(store, *DAYS[-8:-1])
    over = decide_on(store, DAYS[-2], opinion("wait", 0.9), **DUE, vetoed_since="2025-03-01", missing=("the market",))
    assert (over["decision"]["veto_expired"], over["decision"]["action"]) == (True, "wait")
    found = gathered(store)
    assert found.vetoed_since == DAYS[-8]
    assert decide(found.model_copy(update=DUE), opinion("wait", 0.9)).action == "retrain"


# the digests, and other days


def corrected(store: AuditStore, collection: str, day: str) -> None:
    record(store, collection, {day: {**documents()[collection][day], "label": "new"}})


@pytest.mark.parametrize("day", [WEEK[0], WEEK[3], DAY])
@pytest.mark.parametrize("collection", documents())
def test_a_digest_changes_with_its_input_and_with_no_other(store, collection, day):
    before = gathered(store)
    corrected(store, collection, day)
    after = gathered(store)
    assert {name for name in before.digests if before.digests[name] != after.digests[name]} == {collection}
    assert before.digest != after.digest


@pytest.mark.parametrize("collection", documents())
def test_a_digest_does_not_change_with_days_outside_the_week(store, collection):
    before = gathered(store, DAYS[-2])
    for day in (DAYS[0], DAY):
        corrected(store, collection, day)
    assert gathered(store, DAYS[-2]) == before


@pytest.mark.parametrize(("hours_before_the_end", "changed"), [(168, True), (1, True), (169, False), (0, False)])
def test_the_markets_digest_is_of_the_weeks_bars(store, hours_before_the_end, changed):
    before = gathered(store)
    bars = market()
    bars.loc[END - hours_before_the_end * HOUR, "volume"] += 1e-9
    after = gathered(store, frames={"BTCUSDT": bars})
    assert (before.digests["market BTCUSDT"] != after.digests["market BTCUSDT"]) == changed
    assert {name for name in before.digests if before.digests[name] != after.digests[name]} <= {"market BTCUSDT"}


def test_the_evidence_of_a_past_day_does_not_change_when_later_days_are_recorded(empty):
    day = DAYS[8]
    record_all(empty, last=day)
    decide_on(empty, DAYS[7], opinion(), hour=4)
    vetoed(empty, DAYS[7])
    before = gathered(empty, day, frames={"BTCUSDT": market().loc[:day]})
    record_all(empty)
    for later in DAYS[9:]:
        decide_on(empty, later, opinion())
    vetoed(empty, day, DAYS[9])
    retried(empty, AS_OF)
    assert gathered(empty, day) == before
    assert before.vetoed_since == DAYS[7]
    assert before.attempts.last_7_days == 1


def together(store: AuditStore, days: list[str], bars: Any, **changes: Any) -> dict[str, Evidence]:
    return gather(store, bars, days, setting(**changes))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 13), st.integers(0, 13), st.integers(24, 24 * 50), st.integers(1, 60))
def test_a_range_gives_the_same_evidence_as_each_day_alone(tmp_path_factory, one, other, listed_hours, age_days):
    path = tmp_path_factory.mktemp("range") / "audit.db"
    with open_store(f"sqlite:///{path}") as store:
        record_all(store, without=(("closed_trades", DAYS[3]),))
        aged = {
            day: {**body, "models": {MODEL: {**body["models"][MODEL], "model_age_days": float(age_days)}}}
            for day, body in documents()["model_accuracy_history"].items()
        }
        record(store, "model_accuracy_history", aged)
        for day in DAYS[:2]:
            retried(store, datetime.fromisoformat(f"{day}T05:00:00+00:00"), f"d {day}")
        decide_on(store, DAYS[4], opinion())
        vetoed(store, DAYS[5], DAYS[6])
        days = DAYS[min(one, other) : max(one, other) + 1]
        bars = bars_of({"BTCUSDT": market(), "ETHUSDT": market(listed_hours)})
        symbols = ("BTCUSDT", "ETHUSDT", "XYZUSDT")
        found = together(store, days, bars, symbols=symbols)
        assert found == {day: together(store, [day], bars, symbols=symbols)[day] for day in days}


def test_a_long_ago_retrain_is_as_unknown_in_a_range_as_alone(store):
    retried(store, datetime.fromisoformat(f"{DAYS[0]}T05:00:00+00:00") - 3 * ONE_DAY)
    found = together(store, DAYS, bars_of({"BTCUSDT": market()}))
    assert found[DAY] == gathered(store)


def test_a_veto_is_followed_back_for_a_fortnight_in_a_range_as_alone(store):
    vetoed(store, *(str(date.fromisoformat(DAY) - back * ONE_DAY) for back in range(1, 21)))
    found = together(store, DAYS[3:], bars_of({"BTCUSDT": market()}))
    assert found[DAY].vetoed_since == gathered(store).vetoed_since == str(date.fromisoformat(DAY) - 14 * ONE_DAY)


def test_a_source_that_does_not_reach_back_gives_a_range_what_it_gives_each_day(store):
    """As a bot whose chart refuses what is older than 16 days."""
    all_bars = bars_of({"BTCUSDT": market()})

    def bars(symbol: str, start: datetime, end: datetime) -> Any:
        if start < END - 16 * ONE_DAY:
            raise BotUnreachable("the chart goes back 16 days")
        return all_bars(symbol, start, end)

    found = together(store, DAYS[-5:], bars)
    assert {evidence.missing for evidence in found.values()} == {()}
    assert [of.market for of in found.values()] == [gathered(store, day).market for day in DAYS[-5:]]


def test_a_past_day_is_seen_from_its_end_and_is_never_the_present(store):
    found = gathered(store, DAYS[-2])
    assert (found.present, found.as_of) == (False, END - ONE_DAY)
    assert not gathered(store, present=None).present


def test_what_is_asked_about_is_passed_on(store):
    found = gathered(store, links={"rsi": ("gru/ETHUSDT",)}, trainable=False, forced=True, candles="recorded")
    assert (found.links, found.trainable, found.forced) == ({"rsi": ("gru/ETHUSDT",)}, False, True)
    assert (found.source, found.candles) == (SOURCE, "recorded")


def test_the_decision_recorded_of_a_day_does_not_change_its_own_evidence(store):
    before = gathered(store, DAYS[-2])
    decide_on(store, DAYS[-2], opinion())
    assert gathered(store, DAYS[-2]) == before
    assert [r.partition for r in store.read(COLLECTION)] == [DAYS[-2]]
