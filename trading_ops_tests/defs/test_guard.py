"""Does Dagster's side of the guard record, launch once an action, and prove a stop?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._daemon.sensor import MIN_INTERVAL_LOOP_TIME

from trading_ops.bot.client import BotUnreachable
from trading_ops.bot.server import create_app
from trading_ops.definitions import defs
from trading_ops.defs.guard import emergency_strategy_disable, guard_sensor
from trading_ops.guard.by_hand import preflight, resume
from trading_ops.services import Services
from trading_ops_tests.conftest import NOON
from trading_ops_tests.guard.bots import TradingBot
from trading_ops_tests.servers.bot import serving


@pytest.fixture
def bot() -> TradingBot:
    return TradingBot(lambda: NOON)


@pytest.fixture
def served(bot: TradingBot, make_services: Callable[..., Services]) -> Iterator[Services]:
    """Services that watch the bot over HTTP, with a real store and a real outbox."""
    with serving(create_app(bot)) as url:
        yield make_services(bot_url=url, bot_timeout_s=1.0)


def tick(services: Services, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"services": services}, definitions=defs
    )
    return guard_sensor.evaluate_tick(context)


def run(services: Services, **config: Any) -> dg.ExecuteInProcessResult:
    return emergency_strategy_disable.execute_in_process(
        run_config={"ops": {"stop_and_prove": {"config": config}}},
        resources={"services": services},
        raise_on_error=False,
    )


def alerts(services: Services) -> list[str]:
    return [delivery["alert"]["what"] for delivery in services.outbox.deliveries()]


def test_a_step_that_hangs_holds_no_tick_up_and_is_what_comes_next(served: Services):
    with served.guard._turn:  # as a bot that does not answer would
        assert served.guard.step_within(0.05) is None
        assert served.guard.step_within(0.05) is None
    seen = served.guard.step_within(30)
    assert seen is not None
    assert seen.risk is not None


def test_the_sensor_stops_within_its_tick_and_launches_one_run_an_action_B097(bot: TradingBot, served: Services):
    with dg.DagsterInstance.ephemeral() as instance:
        calm = tick(served, instance)
        assert calm.run_requests == []
        bot.lose("rsi", 1500.0)
        ticked = tick(served, instance, calm.cursor)
        assert bot.switched == [("rsi", False)]
        assert alerts(served) == ["rsi was stopped"]
        (request,) = ticked.run_requests
        assert request.run_key == json.loads(ticked.cursor)["actions"][0]
        config = request.run_config["ops"]["stop_and_prove"]["config"]
        assert config == {"strategy": "rsi", "action": request.run_key, "dry_run": False}
        again = tick(served, instance, ticked.cursor)
        assert again.run_requests == []
        restarted = tick(Services(served.settings, served.now), instance, None)
        assert [r.run_key for r in restarted.run_requests] == [request.run_key]  # Dagster knows it by its key
    result = run(served, **config)
    assert result.success
    (record,) = served.store.read("strategy_actions")
    assert record.body["state"] == "confirmed"
    assert alerts(served) == ["rsi was stopped"]


def test_the_running_days_value_is_observed_when_it_changed(bot: TradingBot, served: Services):
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(served, instance)
        (observed,) = first.asset_events
        assert observed.asset_key == dg.AssetKey("strategy_risk")
        assert observed.metadata["day"].value == "2025-03-10"
        rows = [record.data for record in observed.metadata["strategies"].records]
        assert [(row["strategy"], row["left %"], row["losses left"]) for row in rows] == [
            ("rsi", 10.0, 10.0),
            ("macd", 10.0, 10.0),
        ]
        same = tick(served, instance, first.cursor)
        assert list(same.asset_events) == []
        bot.lose("rsi", 500.0)
        changed = tick(served, instance, same.cursor)
        assert len(changed.asset_events) == 1


def test_a_resume_opens_a_new_episode_with_a_run_of_its_own(bot: TradingBot, served: Services):
    with dg.DagsterInstance.ephemeral() as instance:
        bot.lose("rsi", 1500.0)
        first = tick(served, instance)
        guard = served.guard
        bot.clock = lambda: NOON + timedelta(minutes=1)
        resume(guard, "rsi", reason="the feed was wrong", by="ana", seen=preflight(guard, "rsi"))
        calm = tick(served, instance, first.cursor)
        assert (calm.run_requests, json.loads(calm.cursor)["actions"]) == ([], [])
        bot.clock = lambda: NOON + timedelta(minutes=2)
        bot.lose("rsi", 900.0)  # 10.6 % of the 8,500 that it was resumed with
        (request,) = tick(served, instance, calm.cursor).run_requests
        assert request.run_key != first.run_requests[0].run_key
        assert bot.switched == [("rsi", False), ("rsi", True), ("rsi", False)]


def test_a_bot_that_cannot_be_read_is_said_in_the_tick(bot: TradingBot, served: Services):
    def down(method: str) -> None:
        raise BotUnreachable("the exchange is away")

    bot.before = down
    with dg.DagsterInstance.ephemeral() as instance:
        ticked = tick(served, instance)
    assert "the exchange is away" in ticked.skip_message
    assert ticked.run_requests == []


def test_a_stop_by_hand_wants_a_reason_and_is_a_dry_run_unless_told_otherwise(bot: TradingBot, served: Services):
    assert not run(served, strategy="rsi").success
    assert run(served, strategy="rsi", reason="maintenance").success
    assert bot.switched == []
    assert run(served, strategy="rsi", reason="maintenance", dry_run=False).success
    assert bot.switched == [("rsi", False)]


def test_a_stop_that_is_not_confirmed_fails_the_run_and_says_what_to_do_by_hand_B098(bot: TradingBot, served: Services):
    bot.deaf = True
    result = run(served, strategy="rsi", reason="maintenance", dry_run=False, within_s=0.1)
    assert not result.success
    (event,) = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert "NOT confirmed" in str(event.step_failure_data.error)
    assert "Stop rsi by hand" in str(event.step_failure_data.error)


def test_the_sensors_job_is_the_emergency_job_and_runs_in_every_round_of_the_daemon():
    (sensor,) = [sensor for sensor in defs.sensors if sensor.name == "guard_sensor"]
    assert sensor.job_name == "emergency_strategy_disable"
    # a tick counts from the middle of its round: what is due after a whole one is left out every other time
    assert sensor.minimum_interval_seconds <= MIN_INTERVAL_LOOP_TIME / 2
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
