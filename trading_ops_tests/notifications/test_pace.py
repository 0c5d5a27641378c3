"""How many lanes does a channel get, and what does each tell?"""

from __future__ import annotations

from collections.abc import Sequence

from trading_ops.notifications.pace import MOST, WIDENS_AFTER, Pace


def pace(*alerts: tuple[str, str | None]) -> Pace:
    return Pace(dict(alerts))


def takes(lanes: Pace, number: int) -> Sequence[bool]:
    return [lanes.widen() for _ in range(number)]


def test_every_few_sends_that_a_channel_takes_open_one_more_lane_up_to_a_bound():
    lanes = pace()
    for _ in range(1, MOST):
        assert takes(lanes, WIDENS_AFTER) == [False] * (WIDENS_AFTER - 1) + [True]
    assert not any(takes(lanes, 1_000))


def test_lanes_share_what_waits_and_the_oldest_goes_first():
    lanes = pace(("a", None), ("b", None), ("c", None))
    assert [lanes.next("one"), lanes.next("two"), lanes.next("one"), lanes.next("two")] == ["a", "b", "c", None]


def test_a_lane_tells_the_whole_of_an_incident_before_another_alert():
    lanes = pace(("a1", "a"), ("b", None), ("a2", "a"), ("c", None), ("a3", "a"))
    assert [lanes.next("one") for _ in range(3)] == ["a1", "a2", "a3"]
    assert [lanes.next("two"), lanes.next("one"), lanes.next("one")] == ["b", "c", None]


def test_an_alert_whose_key_is_the_name_of_an_incident_does_not_belong_to_it():
    lanes = pace(("a1", "a"), ("a", None), ("a2", "a"))
    assert [lanes.next("one"), lanes.next("two"), lanes.next("one")] == ["a1", "a", "a2"]


def test_who_hears_first_that_the_channel_asks_for_a_moment_goes_on_alone_with_what_the_others_held():
    lanes = pace(("a1", "a"), ("b1", "b"), ("a2", "a"), ("b2", "b"), ("c", None))
    assert [lanes.next("one"), lanes.next("two")] == ["a1", "b1"]
    assert (lanes.narrow("one"), lanes.narrow("two")) == (True, False)
    assert lanes.next("two") is None
    assert [lanes.next("one") for _ in range(4)] == ["a2", "b2", "c", None]
    assert not any(takes(lanes, 1_000))


def test_what_is_left_for_later_is_left_by_every_lane():
    lanes = pace(("a1", "a"), ("b1", "b"), ("a2", "a"), ("c", None))
    assert [lanes.next("one"), lanes.next("two")] == ["a1", "b1"]
    lanes.stop()
    assert [lanes.next("one"), lanes.next("two")] == [None, None]
