"""The daily assets, run by Dagster on an ephemeral instance over a real store."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from trading_ops.audit.chain import canonical_json
from trading_ops.audit.store import Entry, StoreUnavailable
from trading_ops.costs.ledger import CallRefused
from trading_ops.costs.overrides import allow
from trading_ops.definitions import defs
from trading_ops.defs.alerting import root_cause, summarise_backfill
from trading_ops.defs.notifications import run_failure_alert_sensor
from trading_ops.defs.partitions import RANGE_END, RANGE_START
from trading_ops.defs.resources import AuditIOManager
from trading_ops.notifications.channel import DeliveryError
from trading_ops.services import Services
from trading_ops_tests.conftest import NEWEST
from trading_ops_tests.fakes import NO_USAGE, ScriptedBot, trade
from trading_ops_tests.notifications.test_outbox import Recorder

COLLECTIONS = ("closed_trades", "performance_metrics", "strategy_risk", "portfolio_reports", "api_cost_history",
               "model_accuracy_history")  # fmt: skip
ACCOUNT = {
    "as_of": "2025-03-10T00:00:00Z",
    "initial_usdt": 10_000.0,
    "balance_usdt": 9_500.0,
    "equity_usdt": 9_500.0,
    "total_return_pct": -5.0,
    "total_trades": 10,
    "winning_trades": 4,
    "initial_by_strategy": {"rsi": 10_000.0},
}
FLAT = {f"2025-03-{day:02}": 10_000.0 for day in range(1, 10)}


@pytest.fixture
def run() -> Callable[..., dg.ExecuteInProcessResult]:
    def run(
        services: Services, *names: str, first: str = NEWEST, last: str | None = None, instance: Any = None
    ) -> dg.ExecuteInProcessResult:
        keys = [dg.AssetKey(name) for name in names] or [
            s.key for s in defs.resolve_all_asset_specs() if s.partitions_def
        ]
        tags = {RANGE_START: first, RANGE_END: last} if last else {"dagster/partition": first}
        return (
            dg.Definitions(
                assets=defs.assets,
                asset_checks=defs.asset_checks,
                resources={"services": services, "audit": AuditIOManager(services)},
                executor=dg.in_process_executor,
            )
            .resolve_implicit_global_asset_job_def()
            .execute_in_process(
                asset_selection=keys,
                tags=tags,
                instance=instance or dg.DagsterInstance.ephemeral(),
                raise_on_error=False,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        )

    return run


def with_bot(services: Services, bot: ScriptedBot) -> Services:
    services.__dict__["bot"] = bot  # a cached property holds what was put there
    return services


def stored(services: Services, collection: str) -> dict[str, Any]:
    return {record.partition: dict(record.body) for record in services.store.read(collection)}


def check(result: dg.ExecuteInProcessResult, name: str) -> Any:
    (evaluation,) = [e for e in result.get_asset_check_evaluations() if e.check_name == name]
    return evaluation


def error_of(result: dg.ExecuteInProcessResult) -> str:
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return "\n".join(failure.error_display_string for failure in failures)


def test_a_day_materialises_every_measurement_and_the_store_holds_each(run, services):
    assert run(services).success
    for collection in COLLECTIONS:
        assert list(stored(services, collection)) == [NEWEST], collection
    assert services.store.verify() == []


def test_a_range_in_one_run_stores_the_same_bytes_as_day_by_day(run, make_services, tmp_path):
    one, each = (
        make_services(store=f"sqlite:///{tmp_path}/one.db"),
        make_services(store=f"sqlite:///{tmp_path}/each.db"),
    )
    days = [f"2025-03-{day:02}" for day in range(5, 10)]
    assert run(one, first=days[0], last=days[-1]).success
    for day in days:
        assert run(each, first=day).success
    for collection in COLLECTIONS:
        assert canonical_json(stored(one, collection)) == canonical_json(stored(each, collection)), collection


def test_measuring_a_day_again_appends_nothing(run, services):
    assert run(services).success
    heads = [head for head in services.store.heads() if head.collection in COLLECTIONS]
    assert run(services).success
    assert [head for head in services.store.heads() if head.collection in COLLECTIONS] == heads


def test_a_corrected_trade_appends_a_revision_and_readers_get_the_newest(run, services):
    bot = ScriptedBot([trade("1", f"{NEWEST}T10:00:00+00:00", 10.0)], equity=FLAT, account=ACCOUNT)
    assert run(with_bot(services, bot), "closed_trades").success
    bot.rows = [trade("1", f"{NEWEST}T10:00:00+00:00", 20.0)]
    assert run(services, "closed_trades").success
    assert stored(services, "closed_trades")[NEWEST]["trades"][0]["pnl_usdt"] == 20.0
    revisions = services.store.read("closed_trades", all_revisions=True)
    assert [record.body["trades"][0]["pnl_usdt"] for record in revisions] == [10.0, 20.0]


def test_trades_the_bot_forgot_are_kept_once_and_told_until_it_tells_them_again(run, services):
    rows = [trade(i, f"{NEWEST}T1{i}:00:00+00:00") for i in "12"]
    bot = ScriptedBot(rows, equity=FLAT, account=ACCOUNT)
    assert run(with_bot(services, bot), "closed_trades").success
    bot.rows = []  # restarted with an empty list
    for _ in range(2):
        result = run(services, "closed_trades")
    document = stored(services, "closed_trades")[NEWEST]
    assert [t["trade_id"] for t in document["trades"]] == document["vanished"] == ["1", "2"]
    assert document["outcome"] == "incomplete"
    assert not check(result, "closed_trades_believed").passed
    assert check(result, "closed_trades_believed").severity == dg.AssetCheckSeverity.ERROR
    (delivery,) = services.outbox.deliveries()
    said = "2 trades the bot told before are missing from its list (1, 2)"
    assert delivery["alert"]["what"] == f"{said}, {NEWEST} (scripted candles)"
    assert delivery["alert"]["why"] == f"The check closed_trades/closed_trades_believed failed:\n{said}"
    bot.rows = rows
    assert check(run(services, "closed_trades"), "closed_trades_believed").passed
    revisions = services.store.read("closed_trades", all_revisions=True)
    assert [record.body["vanished"] for record in revisions] == [[], ["1", "2"], []]


def test_trades_of_another_bot_are_not_missed_in_this_ones_list(run, services):
    other = ScriptedBot([trade("1", f"{NEWEST}T10:00:00+00:00")])
    other.source = "another"
    assert run(with_bot(services, other), "closed_trades").success
    assert run(with_bot(services, ScriptedBot([])), "closed_trades").success
    document = stored(services, "closed_trades")[NEWEST]
    assert (document["outcome"], document["vanished"]) == ("no_trades", [])


def test_past_days_are_left_alone_while_the_audit_store_is_down_and_the_newest_is_measured(run, make_services):
    services = make_services(mongodb_uri="mongodb://127.0.0.1:9/x?timeoutMS=100")
    with_bot(services, ScriptedBot(equity=FLAT, account=ACCOUNT))
    past = run(services, "closed_trades", "portfolio_report", first="2025-03-06", last="2025-03-08")
    assert not past.success
    assert "StoreUnavailable" in error_of(past)
    assert services.spooled_store.backlog().waiting == 0
    run(services, "closed_trades", "portfolio_report")
    assert services.spooled_store.backlog().waiting == 2
    assert services.spooled_store.read("closed_trades", partitions=[NEWEST], key="")[0].body["outcome"] == "no_trades"


def test_reading_again_by_hand_without_days_says_at_once_what_to_do(services):
    (job,) = [job for job in defs.jobs if job.name == "reread_recent_days"]
    result = (
        dg.Definitions(
            assets=defs.assets,
            jobs=[job],
            resources={"services": services, "audit": AuditIOManager(services)},
            executor=dg.in_process_executor,
        )
        .resolve_job_def(job.name)
        .execute_in_process(
            raise_on_error=False, run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        )
    )
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    said = root_cause(failure.error)
    assert "reread_recent_days was started without days: choose the UTC days" in said
    assert "or wait for its schedule" in said


def test_an_impossible_row_is_quarantined_with_its_reason_and_told(run, services):
    rows = [trade("1", f"{NEWEST}T10:00:00+00:00"), trade("2", f"{NEWEST}T11:00:00+00:00", pnl_usdt=float("nan"))]
    result = run(with_bot(services, ScriptedBot(rows)), "closed_trades")
    assert result.success
    document = stored(services, "closed_trades")[NEWEST]
    assert (document["total"], len(document["quarantined"])) == (1, 1)
    assert "pnl_usdt" in document["quarantined"][0]["reason"]
    assert not check(result, "closed_trades_believed").passed
    (delivery,) = services.outbox.deliveries()
    assert delivery["alert"]["severity"] == "ERROR"
    assert "pnl_usdt" in delivery["alert"]["why"]


def test_no_trades_too_few_trades_and_an_unreachable_bot_are_three_outcomes(run, make_services, tmp_path):
    outcomes = {}
    few = [trade(str(i), f"{NEWEST}T0{i}:00:00+00:00") for i in range(9)]  # B057: 9 trades, no verdict
    for name, bot in {"none": ScriptedBot([], equity=FLAT), "few": ScriptedBot(few, equity=FLAT)}.items():
        services = with_bot(make_services(store=f"sqlite:///{tmp_path}/{name}.db"), bot)
        result = run(services, "closed_trades", "performance_metrics")
        outcomes[name] = stored(services, "performance_metrics")[NEWEST]
        assert check(result, "performance_within_limits").passed
        assert services.outbox.deliveries() == []
    assert outcomes["none"]["outcome"] == "no_trades"
    assert outcomes["few"]["outcome"] == "too_few_trades"
    assert not outcomes["few"]["trigger_ai_analysis"]
    services = with_bot(make_services(store=f"sqlite:///{tmp_path}/down.db"), ScriptedBot(reachable=False))
    result = run(services, "closed_trades", "performance_metrics")
    assert not result.success
    assert "connection refused" in error_of(result)
    assert stored(services, "performance_metrics") == {}


def test_todays_metrics_come_from_trades_never_from_yesterdays_record_B062(run, services):
    winning = [trade(str(i), f"{NEWEST}T{i:02}:00:00+00:00", 10.0) for i in range(12)]
    services.store.append(
        "performance_metrics",
        [Entry("2025-03-08", "", {"status": "critical", "source": "scripted-1", "strategies": {}})],
    )
    assert run(with_bot(services, ScriptedBot(winning, equity=FLAT)), "closed_trades", "performance_metrics").success
    assert stored(services, "performance_metrics")[NEWEST]["strategies"]["rsi"]["win_rate_pct"] == 100.0


def test_a_confirmed_breach_on_the_newest_day_is_critical_and_told_once(run, services):
    losing = [trade(str(i), f"{NEWEST}T{i:02}:00:00+00:00", -10.0) for i in range(20)]
    bot = ScriptedBot(losing, equity=FLAT, account=ACCOUNT)
    for _ in range(2):
        result = run(with_bot(services, bot), "closed_trades", "performance_metrics")
        assert check(result, "performance_within_limits").severity == dg.AssetCheckSeverity.ERROR
    (delivery,) = services.outbox.deliveries()
    assert delivery["alert"]["severity"] == "CRITICAL"
    said = "rsi: win rate 0.0 % is below 55 %"
    assert delivery["alert"]["what"] == f"{said} (and 1 more), {NEWEST} (scripted candles)"
    first, *lines = delivery["alert"]["why"].splitlines()
    assert first == "The check performance_metrics/performance_within_limits failed:"
    assert lines == [said, "rsi: average profit -1.00 % is below 1.5 %"]
    assert delivery["channels"]["console"] == delivery["channels"]["console"] | {"state": "sent", "attempts": 1}
    assert stored(services, "performance_metrics")[NEWEST]["trigger_ai_analysis"]


def test_an_unconfirmed_breach_warns_at_most(run, services):
    # 5 of 10 won: below 55 %, but the interval reaches to 76 %; the profits' interval reaches over 2.6 %
    mixed = [trade(str(i), f"{NEWEST}T{i:02}:00:00+00:00", 90.0 if i % 2 else -90.0) for i in range(10)]
    run(with_bot(services, ScriptedBot(mixed, equity=FLAT)), "closed_trades", "performance_metrics")
    (delivery,) = services.outbox.deliveries()
    assert delivery["alert"]["severity"] == "WARNING"
    assert "unconfirmed" in delivery["alert"]["why"]


def test_a_past_day_is_recorded_but_alerts_nobody_by_itself(run, services):
    losing = [trade(str(i), f"2025-03-05T{i:02}:00:00+00:00", -10.0) for i in range(20)]
    bot = ScriptedBot(losing, equity=FLAT)
    result = run(with_bot(services, bot), "closed_trades", "performance_metrics", "strategy_risk", first="2025-03-05")
    assert not check(result, "performance_within_limits").passed
    assert not check(result, "risk_within_limits").passed
    assert stored(services, "strategy_risk")["2025-03-05"]["strategies"]["rsi"]["breach"] == "consecutive_losses"
    assert services.outbox.deliveries() == []


def test_a_range_tells_the_newest_day_only_and_lists_every_failing_day(run, services):
    rows = [trade(f"{d}-{i}", f"2025-03-0{d}T{i:02}:00:00+00:00", -10.0) for d in (7, 8, 9) for i in range(12)]
    result = run(
        with_bot(services, ScriptedBot(rows, equity=FLAT)), "closed_trades", "performance_metrics", "strategy_risk",
        first="2025-03-07", last=NEWEST,
    )  # fmt: skip
    assert check(result, "performance_within_limits").metadata["failed_days"].value == 3
    assert {d["alert"]["day"] for d in services.outbox.deliveries()} == {NEWEST}


def test_the_summary_counts_the_past_days_alone_and_links_to_the_run(run, services):
    rows = [trade(f"{d}-{i}", f"2025-03-0{d}T{i:02}:00:00+00:00", -10.0) for d in (8, 9) for i in range(12)]
    services, instance = with_bot(services, ScriptedBot(rows, equity=FLAT)), dg.DagsterInstance.ephemeral()
    result = run(services, "closed_trades", "performance_metrics", first="2025-03-08", last=NEWEST, instance=instance)
    told = summarise_backfill(instance, result.dagster_run, services)
    assert told.what == "1 past day measured, 2025-03-08 (scripted candles)"
    assert told.why == "performance_metrics/performance_within_limits failed on 1 of 1 day"
    assert told.link.endswith(f"/runs/{result.dagster_run.run_id}")


def test_an_empty_portfolio_reply_fails_and_is_no_balance_of_zero_B023(run, services):
    bot = ScriptedBot([trade("1", f"{NEWEST}T10:00:00+00:00")], equity=FLAT, account={})
    result = run(with_bot(services, bot), "closed_trades", "portfolio_report")
    assert not result.success
    assert "initial_usdt: Field required" in error_of(result)
    assert stored(services, "portfolio_reports") == {}


def test_more_wins_than_trades_is_a_data_failure_B028(run, services):
    bot = ScriptedBot(equity=FLAT, account=ACCOUNT | {"winning_trades": 3, "total_trades": 2})
    result = run(with_bot(services, bot), "closed_trades", "portfolio_report")
    assert not result.success
    assert "winning_trades 3 exceeds total_trades 2" in error_of(result)


def test_a_day_without_trades_is_still_reported_B022(run, services):
    result = run(with_bot(services, ScriptedBot(equity=FLAT, account=ACCOUNT)), "closed_trades", "portfolio_report")
    assert result.success
    report = stored(services, "portfolio_reports")[NEWEST]
    assert (report["total_trades"], report["win_rate_pct"], report["return_pct"]) == (0, 0.0, 0.0)


def test_a_losing_day_keeps_its_sign_B029(run, services):
    equity = FLAT | {NEWEST: 9_500.0}
    rows = [trade(str(i), f"{NEWEST}T{i:02}:00:00+00:00", -50.0) for i in range(10)]
    assert run(
        with_bot(services, ScriptedBot(rows, equity=equity, account=ACCOUNT)), "closed_trades", "portfolio_report"
    )
    report = stored(services, "portfolio_reports")[NEWEST]
    assert report["return_pct"] == pytest.approx(-5.0)
    assert report["return_since_start_pct"] == pytest.approx(-5.0)
    assert (report["realised_pnl_usdt"], report["total_trades"]) == (-500.0, 10)


def test_a_day_without_a_snapshot_is_rebuilt_from_closed_trades_marked_and_told(run, services):
    equity = {day: value for day, value in FLAT.items() if day != NEWEST}
    bot = ScriptedBot([trade("1", f"{NEWEST}T10:00:00+00:00", 10.0)], equity=equity, account=ACCOUNT)
    result = run(with_bot(services, bot), "closed_trades", "portfolio_report", "performance_metrics", "strategy_risk")
    report = stored(services, "portfolio_reports")[NEWEST]
    assert (report["equity_usdt"], report["equity_basis"]) == (10_010.0, "closed_only")
    assert stored(services, "performance_metrics")[NEWEST]["closed_only_days"] == [NEWEST]
    assert stored(services, "strategy_risk")[NEWEST]["strategies"]["rsi"]["basis"] == "closed_only"
    assert not check(result, "portfolio_accounted").passed
    assert "rebuilt from closed trades" in str([d["alert"]["why"] for d in services.outbox.deliveries()])


def test_a_strategy_without_start_capital_or_snapshot_is_of_unknown_equity(run, services):
    bot = ScriptedBot([trade("1", f"{NEWEST}T10:00:00+00:00", strategy="macd")], account=ACCOUNT)
    run(with_bot(services, bot), "closed_trades", "portfolio_report")
    report = stored(services, "portfolio_reports")[NEWEST]
    assert (report["strategies"]["macd"]["equity_usdt"], report["strategies"]["macd"]["equity_basis"]) == (None, None)


def test_a_corrected_trade_revises_what_depends_on_it_and_keeps_what_was_seen_before(run, services):
    days = ("2025-03-07", "2025-03-08")
    bot = ScriptedBot(
        [trade("1", f"{days[0]}T10:00:00+00:00", 10.0), trade("2", f"{days[1]}T10:00:00+00:00", 5.0)],
        equity=FLAT, account=ACCOUNT,
    )  # fmt: skip
    measured = ("closed_trades", "strategy_risk", "performance_metrics", "portfolio_report")
    with dg.DagsterInstance.ephemeral() as instance:
        for day in days:
            run(with_bot(services, bot), *measured, first=day)
        bot.rows[0] = trade("1", f"{days[0]}T10:00:00+00:00", -30.0)  # corrected
        bot.rows.append(trade("late", f"{days[1]}T23:00:00+00:00", 7.0))
        again = run(services, *measured, first=days[0], last=days[1], instance=instance)
        alert = summarise_backfill(instance, again.dagster_run, services)
        assert alert is not None
        assert "closed_trades of 2025-03-07 changed: revision 2" in alert.why
        assert (
            summarise_backfill(
                instance, run(services, *measured, first=days[0], last=days[1], instance=instance).dagster_run, services
            )
            is None
        )
    for collection in ("closed_trades", "strategy_risk", "performance_metrics", "portfolio_reports"):
        for day in days:
            revisions = [r.revision for r in services.store.read(collection, partitions=[day], all_revisions=True)]
            unchanged = (collection, day) == ("strategy_risk", days[1])  # two profits more: no risk changed
            assert revisions == ([1] if unchanged else [1, 2]), (collection, day)
    first, second = services.store.read("performance_metrics", partitions=[days[0]], all_revisions=True)
    assert first.body["portfolio"]["avg_profit_pct"] == pytest.approx(1.0)  # what was decided on is still there
    assert second.body["portfolio"]["avg_profit_pct"] == pytest.approx(-3.0)
    assert [t["trade_id"] for t in stored(services, "closed_trades")[days[1]]["trades"]] == ["2", "late"]


@pytest.mark.parametrize(
    ("usage", "severities"),
    [
        pytest.param({"daily_cost_usd": 2.34, "monthly_cost_usd": 70.20}, ["WARNING", "WARNING"], id="B032"),
        pytest.param({}, [], id="B033"),
        pytest.param({"daily_cost_usd": 2.00, "monthly_cost_usd": 50.00}, [], id="B034"),
        pytest.param({"daily_cost_usd": 2.01, "monthly_cost_usd": 50.01}, ["WARNING", "WARNING"], id="B035"),
        pytest.param({"daily_cost_usd": 5.00, "monthly_cost_usd": 100.00}, ["WARNING", "WARNING"], id="B036"),
        pytest.param({"daily_cost_usd": 5.01}, ["CRITICAL"], id="B037"),
        pytest.param({"monthly_cost_usd": 100.01}, ["CRITICAL"], id="B038"),
        pytest.param({"daily_cost_usd": 60.0, "monthly_cost_usd": 1800.0}, ["CRITICAL", "CRITICAL"], id="B039"),
    ],
)
def test_the_bots_costs_are_judged_by_the_limits(run, services, usage, severities):
    bot = ScriptedBot(
        usage={"total_requests": 234, "total_cost_usd": 1.87, "daily_cost_usd": 0.0, "monthly_cost_usd": 0.0} | usage
    )
    result = run(with_bot(services, bot), "api_costs")
    document = stored(services, "api_cost_history")[NEWEST]
    assert [alert["severity"] for alert in document["alerts"]] == severities
    assert document["llm_allowed"] == ("CRITICAL" not in severities)
    assert check(result, "costs_within_budget").passed == (not severities)
    assert severities_told(services) == sorted(set(severities))


def test_the_report_says_of_the_newest_day_what_a_call_would_be_told_now(run, services):
    """B037, B038: what the bot says it spends stops our calls too, until a recorded override."""
    most = {"input": 1_000, "output": 100}
    asked = {"purpose": "test", "model": "gpt-4.1-mini", "prompt_sha256": "ab" * 32, "most_tokens": most}
    with_bot(services, ScriptedBot(usage=NO_USAGE | {"daily_cost_usd": 5.01}))
    call = services.ledger.reserve(**asked)
    result = run(services, "api_costs")
    document = stored(services, "api_cost_history")[NEWEST]
    assert (document["llm_allowed"], document["stop_lifts_at"]) == (False, "2025-03-11T00:00:00+00:00")
    with pytest.raises(CallRefused, match="the stop lifts at 2025-03-11 00:00 UTC"):
        services.ledger.reserve(**asked)
    assert not check(result, "costs_within_budget").passed
    (told,) = [d["alert"] for d in services.outbox.deliveries() if d["alert"]["severity"] == "CRITICAL"]
    assert "no LLM call starts until 2025-03-11 00:00 UTC" in told["why"]
    assert "trading-ops costs allow" in told["what_to_do"]
    allow(services.store, services.now(), "day", 6.0, reason="release", by="ann", limits=services.cost_limits)
    run(services, "api_costs")
    document = stored(services, "api_cost_history")[NEWEST]
    assert (document["llm_allowed"], document["stop_lifts_at"]) == (True, None)
    assert document["left_day_usd"] == pytest.approx(6.0 - 5.01 - float(call.bound_usd))
    services.ledger.reserve(**asked)


def test_a_days_costs_read_again_add_no_revision(run, services):
    for _ in range(2):
        assert run(services, "api_costs").success
    assert len(services.store.read("api_cost_history", all_revisions=True)) == 1


def severities_told(services):
    """Of what is no daily report."""
    return [d["alert"]["severity"] for d in services.outbox.deliveries() if d["alert"]["severity"] != "INFO"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        pytest.param(float("nan"), "nan", id="B040"),
        pytest.param(float("inf"), "inf", id="B041"),
        pytest.param(None, "None", id="B043-null"),
        pytest.param("3", "'3'", id="B043-string"),
        pytest.param(-1.0, "-1.0", id="negative"),
    ],
)
def test_a_cost_that_is_no_amount_is_bad_data_that_names_the_field(run, services, value, said):
    bot = ScriptedBot(
        usage={"total_requests": 1, "total_cost_usd": 1.0, "daily_cost_usd": value, "monthly_cost_usd": 0.0}
    )
    result = run(with_bot(services, bot), "api_costs")
    assert result.success
    document = stored(services, "api_cost_history")[NEWEST]
    assert document["outcome"] == "bad_data"
    assert "daily_cost_usd" in document["error"]
    assert said in document["error"]
    assert not check(result, "costs_within_budget").passed
    assert severities_told(services) == ["ERROR"]


def test_costs_of_a_past_day_come_from_the_ledger_alone(run, services):
    call = {"model": "gpt-4o", "tokens": {"input": 1000, "output": 200}, "cost_usd": 2.5}
    services.store.append("llm_calls", [Entry("2025-03-02", "a", call), Entry("2025-03-05", "b", call)])
    bot = ScriptedBot(
        usage={"total_requests": 9, "total_cost_usd": 9.0, "daily_cost_usd": 9.0, "monthly_cost_usd": 9.0}
    )
    assert run(with_bot(services, bot), "api_costs", first="2025-03-05").success
    document = stored(services, "api_cost_history")["2025-03-05"]
    assert (document["requests"], document["day_usd"], document["month_usd"]) == (1, 2.5, 5.0)
    assert document["platform_month_projected_usd"] == pytest.approx(5.0 / 5 * 31)
    assert document["cost_by_model_usd"] == {"gpt-4o": 2.5}
    assert [alert["severity"] for alert in document["alerts"]] == ["WARNING"]
    assert services.outbox.deliveries() == []


def test_days_stored_from_other_candles_are_read_again_from_the_bot(run, services):
    other = {"source": "another bot", "trades": [trade("x", "2025-03-08T10:00:00+00:00", -500.0)]}
    services.store.append("closed_trades", [Entry("2025-03-08", "", other)])
    rows = [trade(str(i), f"2025-03-08T{i:02}:00:00+00:00", 10.0) for i in range(12)]
    assert run(with_bot(services, ScriptedBot(rows, equity=FLAT)), "performance_metrics").success
    metrics = stored(services, "performance_metrics")[NEWEST]["strategies"]["rsi"]
    assert (metrics["total_trades"], metrics["win_rate_pct"]) == (12, 100.0)


def test_the_newest_days_materialisation_shows_a_plot_a_table_and_the_formula(run, services):
    result = run(services, "closed_trades", "performance_metrics", first="2025-03-07", last=NEWEST)
    events = {m.partition: m.metadata for m in result.asset_materializations_for_node("performance_metrics")}
    assert "data:image/png;base64," in events[NEWEST]["equity_and_win_rate"].value
    assert len(events[NEWEST]["strategies"].value.records) == 5
    assert events["2025-03-07"]["candles"].value == "simulated"
    assert "equity_and_win_rate" not in events["2025-03-07"]
    assert events["2025-03-07"]["status"].value


def test_a_day_the_bot_does_not_cover_yet_fails_and_is_not_stored_as_complete(run, services):
    bot = ScriptedBot([trade("1", "2025-03-09T02:00:00+00:00")], last_day="2025-03-08", equity=FLAT)
    result = run(with_bot(services, bot), "closed_trades")
    assert not result.success
    assert "the bot's complete days are 2025-02-01 to 2025-03-08" in error_of(result)
    assert stored(services, "closed_trades") == {}


def test_data_that_is_not_fresh_alerts_nobody(run, services):
    losing = [trade(str(i), f"{NEWEST}T{i:02}:00:00+00:00", -10.0) for i in range(20)]
    bot = ScriptedBot(losing, equity=FLAT, live=False)
    result = run(with_bot(services, bot), "closed_trades", "performance_metrics", "strategy_risk")
    assert not check(result, "risk_within_limits").passed
    assert services.outbox.deliveries() == []


def test_the_newest_days_report_is_sent_once_with_its_numbers_and_the_audit_heads(run, services):
    bot = ScriptedBot([trade("1", f"{NEWEST}T10:00:00+00:00")], equity=FLAT | {NEWEST: 10_010.0}, account=ACCOUNT)
    for _ in range(2):
        assert run(with_bot(services, bot), "closed_trades", "portfolio_report").success
    (delivery,) = services.outbox.deliveries()
    assert (delivery["alert"]["severity"], delivery["alert"]["dedup_key"]) == ("INFO", f"report/portfolio/{NEWEST}")
    assert delivery["alert"]["what"] == "Portfolio on 2025-03-09: 10,010.00 USDT, +0.10 % (scripted candles)"
    assert delivery["alert"]["link"].startswith("http://127.0.0.1:3000/runs/")
    assert delivery["alert"]["numbers"]["equity_usdt"] == 10_010.0
    assert delivery["alert"]["picture"]["days"] == [NEWEST]  # no day before it is stored
    assert delivery["alert"]["picture"]["series"] == {"equity": [10_010.0]}
    assert "account: equity 10,010.00 USDT, day +0.10 %, since start +0.10 %, 1 trades" in delivery["alert"]["why"]
    head = services.store.head("portfolio_reports")
    heads = delivery["alert"]["numbers"]["audit_heads"]
    assert heads["portfolio_reports"] == f"portfolio_reports:{head.seq}:{head.hash}"


def test_the_costs_of_the_newest_day_are_told_once_beside_their_limits_and_with_the_days_before(run, services):
    call = {"model": "gpt-4o", "tokens": {"input": 1000, "output": 200}, "cost_usd": 1.5}
    services.store.append("llm_calls", [Entry("2025-03-08", "a", call), Entry(NEWEST, "b", call)])
    services.__dict__["bot"] = ScriptedBot()
    assert run(services, "api_costs", first="2025-03-06", last="2025-03-08").success
    for _ in range(2):
        assert run(services, "api_costs").success
    (delivery,) = services.outbox.deliveries()
    told = delivery["alert"]
    assert (told["severity"], told["dedup_key"]) == ("INFO", f"report/api_costs/{NEWEST}")
    assert told["what"] == "API costs on 2025-03-09: $1.50 on the day, $3.00 this month"
    assert "day: $1.50 of $5.00, warning above $2.00" in told["why"]
    assert told["numbers"]["month_projected_usd"] == pytest.approx(3.0 / 9 * 31)
    assert told["picture"]["days"] == ["2025-03-06", "2025-03-07", "2025-03-08", NEWEST]
    assert told["picture"]["series"] == {"spent": [0.0, 0.0, 1.5, 1.5]}
    assert told["picture"]["limits"] == {"warning above": 2.0, "critical above": 5.0}


@pytest.mark.parametrize("asset", ["portfolio_report", "api_costs"])
def test_a_backfill_tells_no_daily_report_not_even_of_the_newest_day(run, services, asset):
    bot = ScriptedBot(equity=FLAT, account=ACCOUNT)
    assert run(with_bot(services, bot), "closed_trades", asset, first="2025-03-06", last=NEWEST).success
    assert severities_told(services) == [d["alert"]["severity"] for d in services.outbox.deliveries()]


def test_a_bot_that_fails_later_hides_no_cost_it_had_told(run, services):
    bot = ScriptedBot(
        usage={"total_requests": 1, "total_cost_usd": 6.0, "daily_cost_usd": 6.0, "monthly_cost_usd": 6.0}
    )
    assert run(with_bot(services, bot), "api_costs").success
    bot.usage = {}
    assert run(services, "api_costs").success
    document = stored(services, "api_cost_history")[NEWEST]
    assert (document["status"], document["llm_allowed"], document["day_usd"]) == ("critical", False, 6.0)


def test_another_breach_of_the_same_severity_on_the_same_day_is_told_too(run, services):
    bad = {"rsi": [trade(f"r{i}", f"{NEWEST}T{i:02}:00:00+00:00", -10.0) for i in range(20)]}
    bad["macd"] = [trade(f"m{i}", f"{NEWEST}T{i:02}:30:00+00:00", -10.0, "macd") for i in range(20)]
    bot = ScriptedBot(bad["rsi"], equity=FLAT)
    run(with_bot(services, bot), "closed_trades", "performance_metrics")
    bot.rows = bad["rsi"] + bad["macd"]
    run(services, "closed_trades", "performance_metrics")
    assert {"macd" in d["alert"]["why"] for d in services.outbox.deliveries()} == {False, True}


def test_a_check_that_fails_and_then_passes_tells_its_opening_and_its_end(run, services):
    good = trade("1", f"{NEWEST}T10:00:00+00:00")
    bot = ScriptedBot([good | {"pnl_usdt": float("nan")}], equity=FLAT)
    assert run(with_bot(services, bot), "closed_trades").success
    bot.rows = [good]
    for _ in range(2):
        assert check(run(services, "closed_trades"), "closed_trades_believed").passed
    opened, resolved = (delivery["alert"] for delivery in services.outbox.deliveries())
    assert (opened["incident"], opened["step"]) == ("closed_trades/closed_trades_believed", "opened")
    assert (resolved["step"], resolved["opening"]) == ("resolved", opened["dedup_key"])


def test_a_past_day_that_passes_or_data_that_is_not_fresh_ends_no_incident(run, services):
    good = trade("1", f"{NEWEST}T10:00:00+00:00")
    bot = ScriptedBot([good | {"pnl_usdt": float("nan")}], equity=FLAT)
    assert run(with_bot(services, bot), "closed_trades").success
    assert check(run(services, "closed_trades", first="2025-03-05"), "closed_trades_believed").passed
    stale = ScriptedBot([good], equity=FLAT, live=False)
    assert check(run(with_bot(services, stale), "closed_trades"), "closed_trades_believed").passed
    assert [delivery["alert"]["step"] for delivery in services.outbox.deliveries()] == ["opened"]


def test_a_verdict_stands_where_neither_the_store_nor_the_outbox_can_be_written(run, services):
    class Shut:
        def __getattr__(self, name: str) -> Any:
            raise StoreUnavailable("the disk is full")

    services.__dict__["incidents"] = Shut()
    bot = ScriptedBot([trade("1", f"{NEWEST}T10:00:00+00:00", pnl_usdt=float("nan"))], equity=FLAT)
    result = run(with_bot(services, bot), "closed_trades")
    assert result.success
    assert not check(result, "closed_trades_believed").passed


@pytest.mark.parametrize(
    "error", [None, DeliveryError("HTTP 404", permanent=True), DeliveryError("HTTP 503"), RuntimeError("a slip in it")]
)
def test_a_delivery_never_changes_a_verdict(run, services, error):
    chat = Recorder("chat", *[error] * 9)
    services.__dict__["channels"] = {"chat": chat}
    rows = [trade(f"r{i}", f"{NEWEST}T{i:02}:00:00+00:00", -10.0) for i in range(20)]
    result = run(with_bot(services, ScriptedBot(rows, equity=FLAT)), "closed_trades", "performance_metrics")
    assert result.success
    assert chat.tries > 0
    verdicts = {e.check_name: (e.passed, e.severity) for e in result.get_asset_check_evaluations()}
    assert verdicts["performance_within_limits"] == (False, dg.AssetCheckSeverity.ERROR)


def test_a_failed_run_is_told_with_its_own_error(run, services):
    instance = dg.DagsterInstance.ephemeral()
    result = run(with_bot(services, ScriptedBot(reachable=False)), "closed_trades", instance=instance)
    assert not result.success
    for _ in range(2):
        run_failure_alert_sensor(dg.build_sensor_context(instance, resources={"services": services}))
    (delivery,) = services.outbox.deliveries()
    assert delivery["alert"]["severity"] == "ERROR"
    assert delivery["alert"]["why"] == "trading_ops.bot.client.BotUnreachable: connection refused"
    assert delivery["alert"]["day"] == NEWEST


def test_the_summary_of_past_days_is_told_once_and_only_when_something_was_recorded(run, services):
    instance = dg.DagsterInstance.ephemeral()
    told = []
    for _ in range(2):
        result = run(services, first="2025-03-05", last="2025-03-07", instance=instance)
        told.append(summarise_backfill(instance, result.dagster_run, services))
    assert told[0].what == "3 past days measured, 2025-03-05 to 2025-03-07 (simulated candles)"
    assert told[1] is None
    assert len(services.outbox.deliveries()) == 1
