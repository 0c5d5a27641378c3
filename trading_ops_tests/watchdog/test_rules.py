"""What counts as silence, and what as over? Times by hand, around a heartbeat at noon."""

from datetime import UTC, datetime, timedelta

import pytest

from trading_ops.notifications.alert import Severity
from trading_ops.watchdog.heartbeat import (
    Daemon,
    DaemonHeartbeat,
    GuardHeartbeat,
    Heartbeat,
    Heartbeats,
    HeartbeatUnreadable,
    Outage,
    Ticker,
    alive_since,
)
from trading_ops.watchdog.rules import ended, guard_ended, guard_overdue, overdue, watchdog_overdue

NOON = datetime(2025, 3, 10, 12, tzinfo=UTC)
MORNING = NOON - timedelta(hours=4)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def beat(*tickers: Ticker, daemons: tuple[Daemon, ...] = (), since: datetime = MORNING) -> DaemonHeartbeat:
    return DaemonHeartbeat(at=NOON, since=since, tickers=tickers, daemons=daemons)


def ticker(kind: str = "schedule", **fields) -> Ticker:
    return Ticker(name="x", kind=kind, **{"running": True, "last": at(-3600), "due": at(3600), **fields})


def found(heartbeat: DaemonHeartbeat | None, now: datetime = NOON, watching_since: datetime = MORNING, **fields):
    return overdue(heartbeat, now, watching_since=watching_since, stale_s=180, **fields)


@pytest.mark.parametrize(("age_s", "silent"), [(0, False), (180, False), (181, True), (-180, False), (-181, True)])
def test_a_daemon_is_silent_when_its_heartbeat_is_older_than_180_s_or_from_the_future(age_s, silent):
    findings = found(beat(), at(age_s))
    assert [(f.name, f.severity, f.since) for f in findings] == [("daemon", Severity.CRITICAL, NOON)] * silent


def test_a_silent_daemon_is_told_with_since_when():
    (finding,) = found(beat(), at(200))
    assert finding.what == "Dagster's daemon has not ticked since 2025-03-10 12:00:00 UTC"
    assert "200 s old" in finding.why
    assert "the clock was set back" in found(beat(), at(-200))[0].why


@pytest.mark.parametrize(("watching_s", "told"), [(180, False), (181, True)])
def test_who_began_to_watch_gives_the_daemon_time_to_start(watching_s, told):
    """After a night both start together: the heartbeat is of yesterday, the next one comes in a moment."""
    old = DaemonHeartbeat(at=at(-40_000), since=at(-80_000))
    for heartbeat in (old, None):
        assert bool(found(heartbeat, watching_since=at(-watching_s))) == told


def test_a_daemon_that_never_beat_is_told_with_why_it_cannot_be_read():
    (finding,) = found(None, why="daemon.json cannot be read: it is no heartbeat.")
    assert (finding.name, finding.severity, finding.since) == ("daemon", Severity.CRITICAL, MORNING)
    assert "it is no heartbeat" in finding.why


@pytest.mark.parametrize("kind", ["schedule", "sensor"])
@pytest.mark.parametrize(("due_s", "late"), [(60, False), (-180, False), (-181, True)])
def test_a_tick_is_late_180_s_after_it_was_due(kind, due_s, late):
    findings = found(beat(ticker(kind, due=at(due_s))))
    assert [(f.name, f.severity, f.since) for f in findings] == [(f"{kind}/x", Severity.ERROR, at(due_s))] * late


def test_a_tick_is_judged_as_of_the_heartbeat_and_not_as_of_now():
    """What was due a moment after the heartbeat may have ticked since; only the next heartbeat knows."""
    assert found(beat(ticker(due=at(-179))), now=at(100)) == []


def test_a_daemon_that_just_started_has_time_to_make_up_for_what_was_due():
    assert found(beat(ticker(due=at(-40_000)), since=at(-170))) == []
    assert found(beat(ticker(due=at(-40_000)), since=at(-190))) != []


def test_what_a_person_stopped_is_not_late_and_does_not_fail():
    assert found(beat(ticker(running=False, due=at(-9_000), failures=9, failing_since=at(-9_000)))) == []


@pytest.mark.parametrize(
    ("kind", "failures", "since_s", "told"),
    [
        ("schedule", 1, -180, False),  # Dagster tries it again while the code is being loaded
        ("schedule", 1, -181, True),
        ("sensor", 2, -9_000, False),
        ("sensor", 3, -10, True),
    ],
)
def test_a_schedule_that_failed_and_a_sensor_that_fails_three_times_are_told(kind, failures, since_s, told):
    findings = found(beat(ticker(kind, failures=failures, failing_since=at(since_s), error="KeyError: 'a'")))
    assert [(f.name, f.why) for f in findings] == [(f"{kind}/x", "KeyError: 'a'")] * told


def test_a_silent_scheduler_is_one_finding_and_not_one_for_each_schedule():
    silent = Daemon(name="SCHEDULER", last=at(-301))
    findings = found(beat(ticker(due=at(-900)), ticker("sensor", due=at(-900)), daemons=(silent,)))
    assert [f.name for f in findings] == ["daemon/scheduler", "sensor/x"]


@pytest.mark.parametrize(
    ("daemon", "told"),
    [
        (Daemon(name="MONITORING", last=at(-300)), False),
        (Daemon(name="MONITORING", last=at(-301)), True),
        (Daemon(name="MONITORING"), True),
        (Daemon(name="MONITORING", last=at(-10), errors=2), False),
        (Daemon(name="MONITORING", last=at(-10), errors=3, error="disk full"), True),
        (Daemon(name="SENSOR", last=at(-10), errors=5), False),  # its sensors tell of their ticks
    ],
)
def test_one_of_dagsters_daemons_is_told_when_it_is_silent_or_fails_again_and_again(daemon, told):
    assert bool(found(beat(daemons=(daemon,)))) == told


KNOWN = Outage(since=at(-900), opening="key", severity=Severity.ERROR, what="x is late")


@pytest.mark.parametrize(
    ("now", "over"),
    [
        (ticker(last=at(-901)), False),  # not late any more, for the daemon started anew; but it has not ticked
        (ticker(last=None), False),
        (ticker(last=at(-900)), True),
        (ticker(last=at(-901), running=False), True),  # somebody stopped it
        (None, True),  # it was removed
    ],
)
def test_an_outage_is_over_when_it_ticked_and_not_when_it_was_given_time(now, over):
    assert ended({"schedule/x": KNOWN}, beat(*([now] if now else [])), []) == ({"schedule/x"} if over else set())


def test_a_silent_daemon_is_over_with_its_next_heartbeat():
    assert ended({"daemon": KNOWN}, beat(), []) == {"daemon"}


def test_what_is_found_again_is_not_over():
    heartbeat = beat(ticker("sensor", failures=3, failing_since=at(-950), last=at(-10)))
    assert ended({"sensor/x": KNOWN}, heartbeat, found(heartbeat)) == set()


@pytest.mark.parametrize(
    ("looked_s", "alive_s", "told"), [(-300, -900, False), (-301, -900, True), (-40_000, -300, False)]
)
def test_the_watchdog_is_missed_after_five_minutes_of_both_its_silence_and_our_life(looked_s, alive_s, told):
    last = Heartbeat(at=at(looked_s), since=at(-90_000))
    findings = watchdog_overdue(last, NOON, alive_since=at(alive_s))
    assert [(f.name, f.severity, f.since) for f in findings] == [("watchdog", Severity.ERROR, last.at)] * told


def test_a_watchdog_that_never_ran_is_not_missed():
    assert watchdog_overdue(None, NOON, alive_since=MORNING) == []


def guard(at_s: float = 0, seen_s: float | None = 0, since: datetime = MORNING) -> GuardHeartbeat:
    seen_at = None if seen_s is None else at(seen_s)
    return GuardHeartbeat(at=at(at_s), since=since, pid=1, seen_at=seen_at, problem="no answer")


def of_the_guard(beat: GuardHeartbeat | None, watching_since: datetime = MORNING, stale_s: float = 180, why: str = ""):
    return guard_overdue(beat, NOON, watching_since=watching_since, stale_s=stale_s, why=why)


@pytest.mark.parametrize(("age_s", "stale_s", "silent"), [(60, 180, False), (61, 180, True), (31, 30, True)])
def test_a_guard_is_silent_after_a_minute_or_sooner_where_less_is_asked_for(age_s, stale_s, silent):
    findings = of_the_guard(guard(-age_s, -age_s), stale_s=stale_s)
    assert [(f.name, f.severity, f.since) for f in findings] == [("guard", Severity.CRITICAL, at(-age_s))] * silent


@pytest.mark.parametrize(("watching_s", "told"), [(60, False), (61, True)])
def test_who_began_to_watch_gives_the_guard_time_to_start(watching_s, told):
    assert bool(of_the_guard(guard(-40_000, -40_000), at(-watching_s))) == told


@pytest.mark.parametrize(("seen_s", "blind"), [(-180, False), (-181, True), (None, True)])
def test_a_guard_that_looks_and_does_not_see_is_blind_after_180_s(seen_s, blind):
    findings = of_the_guard(guard(0, seen_s))
    assert [(f.name, f.severity, f.why) for f in findings] == [
        ("guard", Severity.CRITICAL, "Its watcher runs, but: no answer")
    ] * blind


def test_a_guard_that_never_ran_is_not_missed_and_one_that_cannot_be_read_is():
    assert of_the_guard(None) == []
    (finding,) = of_the_guard(None, why="guard.json cannot be read: it is no heartbeat.")
    assert (finding.severity, finding.why) == (Severity.CRITICAL, "guard.json cannot be read: it is no heartbeat.")


@pytest.mark.parametrize(
    ("expected_s", "watching_s", "told"), [(180, 900, False), (181, 900, True), (900, 180, False), (900, 181, True)]
)
def test_a_guard_that_is_expected_and_never_looked_is_missed_after_the_stale_time(expected_s, watching_s, told):
    since = at(-min(expected_s, watching_s))
    findings = guard_overdue(None, NOON, watching_since=at(-watching_s), stale_s=180, expected_since=at(-expected_s))
    assert [(f.name, f.severity, f.since) for f in findings] == [("guard", Severity.CRITICAL, since)] * told


def test_an_outage_of_an_expected_guard_is_not_over_while_nobody_sees_it():
    outage = Outage(since=at(-900), opening="key", severity=Severity.CRITICAL, what="never looked")
    assert guard_ended({"guard": outage}, None, [], expected=True) == set()
    assert guard_ended({"guard": outage}, guard(0, 0), [], expected=True) == {"guard"}


@pytest.mark.parametrize(
    ("now", "over"),
    [
        (guard(0, -901), False),  # it runs again and has not seen the bot since
        (guard(0, None), False),
        (guard(0, -899), True),
        (None, True),  # its file was removed
    ],
)
def test_the_guards_outage_is_over_when_it_has_seen_the_bot_and_not_when_it_was_given_time(now, over):
    outage = Outage(since=at(-900), opening="key", severity=Severity.CRITICAL, what="silent")
    assert guard_ended({"guard": outage}, now, []) == ({"guard"} if over else set())
    assert guard_ended({"guard": outage}, now, of_the_guard(guard(-900, -900))) == set()
    assert ended({"guard": outage}, beat(), []) == set()  # the daemon says nothing of it


def test_a_process_is_alive_since_it_began_and_anew_after_a_pause():
    last = Heartbeat(at=at(-180), since=MORNING)
    assert alive_since(last, NOON, 180) == MORNING
    assert alive_since(last, at(1), 180) == at(1)
    assert alive_since(None, NOON, 180) == NOON


def test_a_heartbeat_is_read_as_it_was_written_and_what_is_none_is_named(tmp_path):
    heartbeats = Heartbeats(tmp_path / "heartbeats")
    assert heartbeats.daemon() is None
    whole = beat(ticker(), ticker("sensor", failures=2, failing_since=at(-9), error="e"), daemons=(Daemon(name="A"),))
    heartbeats.write(whole)
    assert heartbeats.daemon() == whole
    assert heartbeats.watchdog() is None
    heartbeats.daemon_file.write_text("{}")
    with pytest.raises(HeartbeatUnreadable, match=r"daemon\.json cannot be read: it is no heartbeat"):
        heartbeats.daemon()
