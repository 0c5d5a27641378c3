"""Does Dagster's side of the guard record, launch once an action, and prove a stop?"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._daemon.sensor import MIN_INTERVAL_LOOP_TIME

from trading_ops.bot.client import BotUnreachable
from trading_ops.bot.server import create_app
from trading_ops.definitions import defs
from trading_ops.defs.guard import emergency_strategy_disable, guard_sensor
from trading_ops.guard.actions import OBSERVED, RESUMING
from trading_ops.guard.by_hand import preflight, resume
from trading_ops.services import Services
from trading_ops_tests.conftest import NOON
from trading_ops_tests.guard.bots import Clock, TradingBot
from trading_ops_tests.servers.bot import serving
from trading_ops_tests.servers.vendors import WEBHOOK_PATH, WEBHOOK_SECRET, Answer, VendorServer


@pytest.fixture
def bot() -> TradingBot:
    return TradingBot(lambda: NOON)


@pytest.fixture
def served(bot: TradingBot, make_services: Callable[..., Services]) -> Iterator[Services]:
    """Services that watch the bot over HTTP, with a real store and a real outbox."""
    with serving(create_app(bot)) as url:
        yield make_services(bot_url=url, bot_timeout_s=30.0)


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


def test_a_look_that_hangs_holds_no_tick_up_and_what_it_finds_late_is_not_told_as_new(
    bot: TradingBot, served: Services
):
    goes_on, hung = threading.Event(), threading.Event()

    def hang(method: str) -> None:
        if not goes_on.is_set():
            hung.set()
            goes_on.wait(300)

    bot.before = hang
    first = served.guard.step(0.05)
    assert hung.wait(300)
    assert (first.risk, served.guard.step(0.05).risk) == (None, None)
    assert first.problem == "the bot has not answered since 12:30:00 UTC"
    goes_on.set()
    seen = served.guard.step(30)
    assert seen.risk is not None


def test_a_channel_that_hangs_holds_no_tick_up(bot: TradingBot, make_services: Callable[..., Services]):
    with VendorServer(lambda asked: Answer(hang_s=60.0)) as people, serving(create_app(bot)) as url:
        services = make_services(
            bot_url=url, notification_channels=("webhook",), webhook_url=people.url + WEBHOOK_PATH,
            webhook_secret=WEBHOOK_SECRET,
        )  # fmt: skip
        bot.lose("rsi", 1500.0)
        with dg.DagsterInstance.ephemeral() as instance:
            tick(services, instance)
        assert bot.switched == [("rsi", False)]
        (delivery,) = services.outbox.deliveries()
        assert delivery["alert"]["what"] == "rsi was stopped"
        assert delivery["channels"]["webhook"]["state"] in ("pending", "sending")  # it was not waited for


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


def observations(events: Any) -> list[list[tuple[Any, ...]]]:
    return [
        [
            (row.data["strategy"], row.data["left %"], row.data["losses left"])
            for row in event.metadata["strategies"].records
        ]
        for event in events
    ]


def test_the_running_days_value_is_observed_where_a_verdict_or_a_distance_changed(bot: TradingBot, served: Services):
    """A loss a minute for as long as nothing changes would be 1,440 observations a day."""
    clock = Clock(NOON.isoformat())
    bot.clock, services = clock, Services(served.settings, clock)
    observed, cursor = [], None
    with dg.DagsterInstance.ephemeral() as instance:
        for loss, seconds in [(0.0, 0), (99.0, 61), (0.5, 61), (1.0, 61), (150.0, 5), (0.0, 61), (0.0, 61)]:
            clock.go(seconds)
            if loss:
                bot.lose("rsi", loss)
                bot.lose("rsi", -0.1)  # no streak grows
            ticked = tick(services, instance, cursor)
            cursor = ticked.cursor
            observed.append(observations(ticked.asset_events))
    assert [len(events) for events in observed] == [1, 0, 0, 1, 0, 1, 0]
    first, _, _, after_a_point, _, a_minute_later, _ = observed
    assert first[0] == [("rsi", 10.0, 10.0), ("macd", 10.0, 10.0)]
    assert after_a_point[0][0][1] == pytest.approx(9.0, abs=0.01)
    assert a_minute_later[0][0][1] == pytest.approx(7.5, abs=0.01)


def test_an_action_is_observed_at_once(bot: TradingBot, served: Services):
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(served, instance)
        bot.lose("rsi", 1500.0)
        stopped = tick(served, instance, first.cursor)
        assert len(stopped.asset_events) == 1
        again = tick(served, instance, stopped.cursor)
        assert list(again.asset_events) == []


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


def test_what_is_only_observed_or_being_resumed_launches_nothing(bot: TradingBot, served: Services):
    with dg.DagsterInstance.ephemeral() as instance:
        bot.lose("rsi", 1500.0)
        first = tick(served, instance)
        guard = served.standing_guard

        def killed(method: str) -> None:
            if method == "enable":
                raise KeyboardInterrupt

        bot.before = killed
        watched = replace(guard, bot=bot)  # a server would survive it
        with pytest.raises(KeyboardInterrupt):
            resume(watched, "rsi", reason="again", by="ana", seen=preflight(watched, "rsi"))
        bot.before = lambda method: None
        assert guard.memory.get("rsi")["state"] == RESUMING
        resuming = tick(Services(served.settings, served.now), instance, None)
        assert resuming.run_requests == []
        guard.policy = replace(guard.policy, observe_only=True)
        bot.lose("macd", 1500.0)
        observed = tick(served, instance, first.cursor)
        assert guard.memory.get("macd")["state"] == OBSERVED
        assert observed.run_requests == []


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
