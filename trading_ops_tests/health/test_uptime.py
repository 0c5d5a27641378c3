"""How much of the time was a component up? What nobody looked at is unknown, not up."""

from datetime import UTC, datetime, timedelta

import pytest

from trading_ops.health.rules import Status
from trading_ops.health.uptime import SLOT, Uptime, by_slot, slot_of, strip, uptime

AT = datetime(2025, 3, 10, 12, 30, tzinfo=UTC)
DAY = timedelta(hours=24)


def checks(*statuses: Status | None) -> dict[datetime, Status]:
    """The newest last, a quarter of an hour apart; None: nobody looked."""
    slots = [AT - i * SLOT for i in range(len(statuses))][::-1]
    return {slot: status for slot, status in zip(slots, statuses, strict=True) if status is not None}


UP, SLOW, DOWN, UNKNOWN = Status.HEALTHY, Status.DEGRADED, Status.DOWN, Status.UNKNOWN


@pytest.mark.parametrize(
    ("seen", "pct", "known"),
    [
        ([UP] * 96, 100.0, 96),
        ([UP] * 95 + [DOWN], 100 * 95 / 96, 96),
        ([SLOW] * 2, 100.0, 2),  # it answers
        ([Status.UNHEALTHY, Status.CRITICAL, DOWN, UP], 25.0, 4),
        ([UP, None, None, DOWN], 50.0, 2),  # a check that never ran is unknown, neither up nor down
        ([UNKNOWN, Status.NOT_CONFIGURED], None, 0),
        ([], None, 0),
        ([DOWN] + [UP] * 96, 100.0, 96),  # the window ends with the newest check and begins after the oldest
    ],
)
def test_the_uptime_of_a_day_counts_what_is_known(seen, pct, known):
    assert uptime(checks(*seen), AT, DAY) == Uptime(pytest.approx(pct), pytest.approx(100 * known / 96))


def test_a_week_without_checks_is_not_up():
    assert str(uptime(checks(*[UP] * 96), AT, 7 * DAY)) == "100.00 % (14 % known)"
    assert str(uptime({}, AT, 7 * DAY)) == "-"


def test_a_slot_is_as_bad_as_the_worst_look_in_it():
    moments = [AT + timedelta(minutes=2), AT + timedelta(minutes=9), AT + SLOT]
    assert by_slot(zip(moments, [UP, DOWN, UP], strict=True)) == {AT: DOWN, AT + SLOT: UP}
    assert slot_of(AT + timedelta(minutes=14, seconds=59)) == AT


def test_the_strip_shows_an_hour_as_its_worst_check_and_the_newest_last():
    hours = [[UP] * 4, [None] * 4, [UP, SLOW, UP, UP], [UP, DOWN, SLOW, UP], [None, None, None, UP], [UNKNOWN] * 4]
    seen = [status for hour in hours for status in hour]
    assert strip(checks(*seen), AT, hours=7) == "⬜🟩⬜🟨🟥🟩⬜"
    assert strip({}, AT) == 24 * "⬜"
