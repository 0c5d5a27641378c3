"""How bad is what a probe saw? Tables that can be checked by hand."""

from itertools import permutations

import pytest

from trading_ops.health.rules import (
    LABELS,
    Limits,
    Status,
    judge_answer,
    judge_queues,
    judge_reply,
    judge_usage,
    worst,
)
from trading_ops.health.telling import ADVICE, alert_of
from trading_ops.health_settings import COMPONENTS
from trading_ops.notifications.alert import Severity
from trading_ops_tests.conftest import NOON

LIMITS = Limits()
HEALTHY, DEGRADED, UNHEALTHY = Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY
DOWN, CRITICAL, UNKNOWN, UNCONFIGURED = Status.DOWN, Status.CRITICAL, Status.UNKNOWN, Status.NOT_CONFIGURED


@pytest.mark.parametrize(
    ("code", "latency_s", "expected", "status", "found"),
    [
        (200, 0.2, (), HEALTHY, "HTTP 200 in 200ms"),
        (204, 0.2, (), HEALTHY, "HTTP 204 in 200ms"),
        pytest.param(200, 8.0, (), DEGRADED, "engine is slow: 8000ms", id="B005"),
        pytest.param(200, 5.0, (), DEGRADED, "engine is slow: 5000ms", id="B006"),
        (200, 4.999, (), HEALTHY, "HTTP 200 in 4999ms"),
        pytest.param(304, 0.1, (), HEALTHY, "HTTP 304 in 100ms", id="B007"),
        pytest.param(403, 0.1, (), UNHEALTHY, "engine is unhealthy: HTTP 403", id="B008"),
        pytest.param(403, 0.1, (401, 403), HEALTHY, "HTTP 403 in 100ms", id="B008-expected"),
        (403, 9.0, (403,), DEGRADED, "engine is slow: 9000ms"),
        (401, 0.1, (403,), UNHEALTHY, "engine is unhealthy: HTTP 401"),
        pytest.param(500, 0.1, (), UNHEALTHY, "engine is unhealthy: HTTP 500", id="B009"),
        (500, 9.0, (), UNHEALTHY, "engine is unhealthy: HTTP 500"),
        (302, 0.1, (), UNHEALTHY, "engine is unhealthy: HTTP 302"),
    ],
)
def test_a_status_of_http(code, latency_s, expected, status, found):
    verdict = judge_reply("engine", code, latency_s, LIMITS, expected=expected)
    assert (verdict.status, verdict.found) == (status, found)
    assert verdict.latency_ms == round(1000 * latency_s)


def test_an_answer_that_complains_is_unhealthy_however_quick():
    verdict = judge_reply("engine", 200, 0.1, LIMITS, complaint="exchange offline")
    assert (verdict.status, verdict.found) == (UNHEALTHY, "engine is unhealthy: exchange offline")


@pytest.mark.parametrize(
    ("used_pct", "status", "found"),
    [
        (0.0, HEALTHY, "0% used"),
        pytest.param(80.0, HEALTHY, "80% used", id="B010"),
        (80.1, DEGRADED, "Disk usage high: 80.1%"),
        pytest.param(85.0, DEGRADED, "Disk usage high: 85%", id="B011"),
        pytest.param(90.0, DEGRADED, "Disk usage high: 90%", id="B012"),
        (90.1, CRITICAL, "Disk usage critical: 90.1%"),
        (100.0, CRITICAL, "Disk usage critical: 100%"),
    ],
)
def test_the_usage_of_a_disk(used_pct, status, found):
    verdict = judge_usage("disk", used_pct, 80.0, 90.0)
    assert (verdict.status, verdict.found, verdict.numbers) == (status, found, {"used_pct": used_pct})


def test_memory_has_limits_of_its_own():
    assert judge_usage("memory", 85.0, 86.0, 90.0).status is HEALTHY
    assert judge_usage("memory", 85.0, 80.0, 84.0).found == "Memory usage critical: 85%"


@pytest.mark.parametrize(
    ("depths", "status"),
    [
        ({}, HEALTHY),
        pytest.param({"scheduled": 1000}, HEALTHY, id="B016-1000"),
        pytest.param({"scheduled": 1001}, DEGRADED, id="B016-1001"),
        ({"scheduled": 600, "backtesting": 600}, HEALTHY),  # each is worked off by workers of its own
    ],
)
def test_the_depth_of_queues(depths, status):
    verdict = judge_queues(depths, 0.01, LIMITS)
    assert (verdict.status, verdict.numbers) == (status, {"depths": depths})


def test_a_deep_queue_is_named_also_where_the_broker_is_slow_too():
    verdict = judge_queues({"scheduled": 1, "backtesting": 2000}, 6.0, LIMITS)
    assert verdict.found == "queue backtesting holds 2000 messages; message broker is slow: 6000ms"


@pytest.mark.parametrize(
    ("statuses", "overall"),
    [
        pytest.param([HEALTHY] * 8, HEALTHY, id="B001"),
        pytest.param([HEALTHY, DOWN], CRITICAL, id="B002"),
        pytest.param([DOWN, UNHEALTHY], CRITICAL, id="B003"),
        pytest.param([DOWN] * 8, CRITICAL, id="B004"),
        ([DEGRADED, HEALTHY, UNKNOWN], DEGRADED),
        ([CRITICAL, DEGRADED], CRITICAL),
        ([HEALTHY, UNCONFIGURED], HEALTHY),
        ([HEALTHY, UNKNOWN], UNKNOWN),
        ([UNCONFIGURED], UNCONFIGURED),
        ([], UNCONFIGURED),
    ],
)
def test_the_worst_status_wins_whatever_the_order(statuses, overall):
    for order in list(permutations(statuses))[:24]:
        assert worst(order) is overall


@pytest.mark.parametrize(
    ("status", "severity"),
    [
        (UNCONFIGURED, None), (HEALTHY, None), (UNKNOWN, None), (DEGRADED, Severity.WARNING),
        (UNHEALTHY, Severity.CRITICAL), (DOWN, Severity.CRITICAL), (CRITICAL, Severity.CRITICAL),
    ],
)  # fmt: skip
def test_how_loudly_a_status_is_told(status, severity):
    assert status.severity is severity


def test_a_bad_component_is_an_incident_of_its_own_with_what_to_do():
    alert = alert_of(judge_reply("ai_service", 500, 0.1, LIMITS), NOON)
    assert alert is not None
    assert (alert.severity, alert.incident) == (Severity.CRITICAL, "health/ai_service")
    assert alert.what == "AI service is unhealthy: HTTP 500"
    assert alert.what_to_do
    assert alert.numbers == {"latency_ms": 100}


def test_a_healthy_component_is_not_told():
    assert alert_of(judge_answer("cache", 0.1, LIMITS), NOON) is None


def test_every_component_can_be_switched_off_shown_and_advised_on():
    assert list(LABELS) == list(COMPONENTS)
    assert set(LABELS) == set(ADVICE)
