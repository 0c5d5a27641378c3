"""When is what told about an incident, to the second, and do people always end up knowing what is so?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.incident import Incident, Policy, unsettled
from trading_ops.notifications.incidents import acknowledge, adopt, observe, recover, sent, settle, told_together
from trading_ops.notifications.text import message_of
from trading_ops.notifications.wording import together

KEY = "strategy_risk/risk_within_limits"
NOON = datetime(2025, 3, 10, 12, tzinfo=UTC)
POLICY = Policy(escalation_steps=2)
INFO, WARNING, ERROR, CRITICAL = Severity


def alert(severity: Severity = ERROR, what: str = "rsi lost 12 %") -> Alert:
    return Alert(severity, "unused", what, "above 10 %", "Look.", incident=KEY)


class Story:
    """One incident through time: `at` minutes (or a moment) something happens; what is told is kept and taken out."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.incident: Incident | None = None
        self.told: list[tuple[str, Step, str]] = []
        self.alerts: list[Alert] = []
        self.now = NOON
        self.silenced = False

    def at(self, when: float | str) -> Story:
        self.now = datetime.fromisoformat(f"{when}+00:00") if isinstance(when, str) else NOON + timedelta(minutes=when)
        return self

    def seen(
        self,
        severity: Severity = ERROR,
        *findings: str,
        held_until: datetime | None = None,
        what: str = "rsi lost 12 %",
    ) -> Story:
        return self._keep(
            observe(
                self.incident, alert(severity, what), dict.fromkeys(findings, severity), self.now, self.policy,
                silenced=self.silenced, held_until=held_until,
            )
        )  # fmt: skip

    def well(self) -> Story:
        assert self.incident
        return self._keep(recover(self.incident, self.now, self.policy, silenced=self.silenced))

    def tick(self) -> Story:
        assert self.incident
        return self._keep(settle(self.incident, self.now, self.policy, silenced=self.silenced, release=True))

    def answered(self) -> Story:
        assert self.incident
        return self._keep(acknowledge(self.incident, "ana", self.now))

    @property
    def steps(self) -> list[tuple[str, str]]:
        return [(when, str(step)) for when, step, _ in self.told]

    def _keep(self, incident: Incident) -> Story:
        document = json.loads(json.dumps(incident.to_document()))
        assert Incident.from_document(document) == incident  # what another process goes on with
        for message in incident.unsent:
            self.told.append((f"{self.now:%H:%M}", message.step, message.what))
            self.alerts.append(message)
        self.incident = sent(incident, [message.dedup_key for message in incident.unsent])
        return self


def test_the_first_time_is_told_at_once_with_all_that_is_known():
    story = Story().seen()
    (told,) = story.alerts
    assert (told.dedup_key, told.incident, told.step, told.opening) == (f"{KEY}/1/1", KEY, Step.OPENED, None)
    assert (told.what, told.why, told.what_to_do) == ("rsi lost 12 %", "above 10 %", "Look.")
    assert told.since == NOON.isoformat()


def test_a_repeat_is_counted_and_told_as_an_update_where_its_figures_changed_every_hour_at_most():
    story = Story().seen()
    for minute, loss in ((5, 12), (30, 13), (59, 13), (60, 13), (90, 13), (125, 13), (130, 12)):
        story.at(minute).seen(what=f"rsi lost {loss} %")
    assert story.told == [
        ("12:00", Step.OPENED, "rsi lost 12 %"),
        ("13:00", Step.UPDATED, "rsi lost 13 %"),
        ("14:10", Step.UPDATED, "rsi lost 12 %"),
    ]
    assert story.incident
    assert (story.incident.count, story.incident.seen_at) == (8, NOON + timedelta(minutes=130))
    assert story.alerts[-1].opening == story.alerts[0].dedup_key
    assert "Seen 8 times." in story.alerts[-1].why


def test_what_changed_within_the_hour_is_shown_at_its_end():
    story = Story().seen().at(10).seen(what="rsi lost 13 %").at(59).tick().at(60).tick().at(120).tick()
    assert story.steps == [("12:00", "opened"), ("13:00", "updated")]


def test_a_week_without_a_change_is_a_reminder_a_day():
    story = Story().seen()
    for quarter in range(1, 4 * 24 * 7):
        story.at(quarter * 15).seen().tick()
    assert [step for _, step in story.steps] == ["opened"] + ["reminded"] * 7


def test_without_a_channel_that_shows_updates_a_repeat_is_told_nobody():
    story = Story(replace(POLICY, update_every=None)).seen().at(70).seen(what="rsi lost 13 %").at(140).seen()
    assert story.steps == [("12:00", "opened")]


def test_of_updates_that_nobody_took_the_newest_is_enough():
    incident = observe(None, alert(), {}, NOON, POLICY)
    for minutes in (60, 120):
        incident = observe(incident, alert(what=f"rsi lost {minutes} %"), {}, NOON + timedelta(minutes=minutes), POLICY)
    assert [(message.step, message.dedup_key) for message in incident.unsent] == [
        (Step.OPENED, f"{KEY}/1/1"), (Step.UPDATED, f"{KEY}/1/3"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("opened", "seen", "reminded"),
    [
        pytest.param("2025-03-10T01:00", ["2025-03-11T00:58"], ["00:58"], id="a daily check, a little earlier"),
        pytest.param("2025-03-10T01:00", ["2025-03-10T23:59"], [], id="the same day"),
        pytest.param("2025-03-10T23:50", ["2025-03-11T00:05", "2025-03-11T11:45", "2025-03-11T11:50"], ["11:50"],
                     id="midnight alone is no reason"),
        pytest.param("2025-03-10T01:00", ["2025-03-11T01:00", "2025-03-11T09:00", "2025-03-12T01:00"],
                     ["01:00", "01:00"], id="once a day"),
    ],
)  # fmt: skip
def test_what_is_seen_on_a_new_day_is_reminded_of_once(opened, seen, reminded):
    story = Story(replace(POLICY, update_every=None)).at(opened).seen()
    for moment in seen:
        story.at(moment).seen()
    assert [when for when, step, _ in story.told if step is Step.REMINDED] == reminded
    assert [what for _, step, what in story.told if step is Step.REMINDED] == ["rsi lost 12 %"] * len(reminded)


def test_what_nobody_looks_at_any_more_is_reminded_of_an_hour_later_than_a_day():
    story = Story().at("2025-03-10T01:00").seen()
    for moment in ("2025-03-11T01:59", "2025-03-11T02:00", "2025-03-11T02:01"):
        story.at(moment).tick()
    assert story.steps == [("01:00", "opened"), ("02:00", "reminded")]
    assert story.alerts[-1].since == "2025-03-10T01:00:00+00:00"


def test_a_new_finding_and_a_higher_severity_are_told_at_once_and_a_lower_one_is_not():
    story = Story().seen(WARNING, "rsi").at(1).seen(WARNING, "rsi", "macd").at(2).seen(CRITICAL, "rsi", "macd")
    story.at(3).seen(WARNING, "rsi", "macd").at(4).seen(WARNING, "rsi")
    assert story.told == [
        ("12:00", Step.OPENED, "rsi lost 12 %"),
        ("12:01", Step.REMINDED, "More: rsi lost 12 %"),
        ("12:02", Step.REMINDED, "More: rsi lost 12 %"),
    ]


@pytest.mark.parametrize(("gone_min", "told_again"), [(29, False), (30, True)])
def test_a_finding_that_comes_back_is_new_when_it_was_gone_for_half_an_hour(gone_min, told_again):
    story = Story(replace(POLICY, update_every=None)).seen(ERROR, "rsi", "macd").at(1).seen(ERROR, "rsi")
    story.at(1 + gone_min).seen(ERROR, "rsi", "macd")
    assert ("reminded" in [step for _, step in story.steps]) == told_again


def test_recovery_tells_how_long_it_lasted_and_how_often_it_was_seen():
    story = Story().seen().at(10).seen().at(125).well()
    told = story.alerts[-1]
    assert (told.step, told.what, told.opening) == (Step.RESOLVED, "rsi lost 12 %", f"{KEY}/1/1")
    assert told.why == "It lasted 2 h 5 min, until 2025-03-10 14:05 UTC, and was seen 2 times."
    story.at(126).well().tick()
    assert story.steps == [("12:00", "opened"), ("14:05", "resolved")]
    assert not unsettled(story.incident.to_document())  # type: ignore[union-attr]


def test_a_new_opening_is_a_new_episode_with_keys_of_its_own():
    story = Story().seen().at(1).well().at(61).seen()
    assert [message.dedup_key for message in story.alerts] == [f"{KEY}/1/1", f"{KEY}/1/2", f"{KEY}/2/1"]
    assert story.alerts[-1].since == (NOON + timedelta(minutes=61)).isoformat()


def test_four_openings_in_an_hour_are_told_once_as_flapping_then_its_state_when_steady():
    story = Story()
    for minute in (0, 10, 20, 30, 40, 50):
        story.at(minute).seen().at(minute + 5).well()
    assert [step for _, step in story.steps] == ["opened", "resolved"] * 3 + ["opened"]
    assert story.told[-1] == ("12:30", Step.OPENED, "Flapping: rsi lost 12 %")
    assert (
        "It came 4 times within 1 h. You hear of it again when nothing has changed for 30 min." in story.alerts[-1].why
    )
    story.at(84.9).tick()
    assert len(story.told) == 7
    story.at(85).tick()  # the last change was at 55
    assert (story.told[-1][:2], story.alerts[-1].opening) == (("13:25", Step.RESOLVED), f"{KEY}/4/1")
    story.at(90).seen()
    assert story.told[-1] == ("13:30", Step.OPENED, "rsi lost 12 %")


def test_what_flapped_and_stays_broken_is_told_as_open_when_steady():
    story = Story(replace(POLICY, update_every=None))
    for minute in (0, 10, 20, 30):
        story.at(minute).seen()
        story.at(minute + 5).well()
    story.at(36).seen()
    for minute in range(40, 66, 5):
        story.at(minute).seen()
    assert story.steps[-1] == ("12:30", "opened")
    story.at(66).tick()
    assert story.told[-1] == ("13:06", Step.REMINDED, "rsi lost 12 %")


def test_three_openings_in_an_hour_are_not_flapping():
    story = Story()
    for minute in (0, 20, 40, 60):  # the first is an hour old at the fourth
        story.at(minute).seen().at(minute + 5).well()
    assert [step for _, step in story.steps] == ["opened", "resolved"] * 4


def test_what_gets_worse_while_it_flaps_is_told_all_the_same_once():
    story = Story()
    for minute in (0, 10, 20, 30):
        story.at(minute).seen(WARNING).at(minute + 5).well()
    for minute in (36, 38, 40):
        story.at(minute).seen(CRITICAL).at(minute + 1).well()
    assert story.steps[6:] == [("12:30", "opened"), ("12:36", "reminded")]


def test_what_is_held_back_is_told_by_a_tick_when_the_window_is_over_unless_it_ended_before():
    until = NOON + timedelta(minutes=1)
    story = Story().at(0.5).seen(held_until=until).at(0.9).tick().at(1.5).seen()
    assert story.told == []
    assert story.at(2).tick().steps == [("12:02", "opened")]
    ended = Story().at(0.5).seen(held_until=until).at(0.9).well().at(2).tick()
    assert ended.told == []


def test_critical_never_waits_for_others():
    until = NOON + timedelta(minutes=1)
    assert Story().seen(CRITICAL, held_until=until).steps == [("12:00", "opened")]
    assert Story().seen(WARNING, held_until=until).at(0.2).seen(CRITICAL).steps == [("12:00", "opened")]


def test_what_is_silenced_is_recorded_and_told_when_the_silence_ends_while_it_is_open():
    story = Story()
    story.silenced = True
    story.seen().at(5).seen().at(10).tick()
    assert (story.told, story.incident and story.incident.count) == ([], 2)
    story.silenced = False
    story.at(20).tick()
    assert story.steps == [("12:20", "opened")]
    assert (story.alerts[0].since, story.alerts[0].why) == (NOON.isoformat(), "above 10 %\nSeen 2 times.")


def test_what_opened_and_ended_in_a_silence_is_told_nobody_and_what_ended_in_one_is_told_after_it():
    story = Story()
    story.silenced = True
    story.seen().at(5).well()
    story.silenced = False
    story.at(20).tick()
    assert story.told == []
    story.at(30).seen()
    story.silenced = True
    story.at(35).well().at(36).tick()
    story.silenced = False
    story.at(60).tick()
    assert story.steps == [("12:30", "opened"), ("13:00", "resolved")]
    assert "until 2025-03-10 12:35 UTC" in story.alerts[-1].why


def test_an_unacknowledged_critical_escalates_once_a_step_and_no_further():
    story = Story(replace(POLICY, update_every=None)).seen(CRITICAL)
    for minute in (14, 15, 16, 29, 30, 45, 60):
        story.at(minute).tick()
    assert story.steps == [("12:00", "opened"), ("12:15", "escalated"), ("12:30", "escalated")]
    assert [message.escalation for message in story.alerts] == [0, 1, 2]
    assert story.at(61).well().alerts[-1].escalation == 2  # who was told of it hears of its end
    assert f"trading-ops alerts ack {KEY}" in story.alerts[1].what_to_do


def test_a_rise_to_critical_is_told_with_how_to_acknowledge_it():
    story = Story().seen(WARNING, "rsi").at(5).seen(CRITICAL, "rsi")
    footers = [message_of(message, possible_duplicate=False).footer for message in story.alerts]
    assert story.steps == [("12:00", "opened"), ("12:05", "reminded")]
    assert footers == [f"{KEY}/1/1", f"{KEY}/1/2 · acknowledge: trading-ops alerts ack {KEY}"]


def test_what_is_below_critical_does_not_escalate():
    assert Story().seen(ERROR).at(60).tick().steps == [("12:00", "opened")]


def test_who_acknowledges_ends_reminders_and_escalation_until_something_is_new():
    story = Story(replace(POLICY, update_every=None)).seen(CRITICAL, "rsi").at(10).answered().at(60).tick()
    story.at("2025-03-11T12:00:00").seen(CRITICAL, "rsi")
    assert story.steps == [("12:00", "opened")]
    story.at("2025-03-11T13:00:00").seen(CRITICAL, "rsi", "macd").at("2025-03-11T13:15:00").tick()
    assert story.steps[1:] == [("13:00", "reminded"), ("13:15", "escalated")]
    assert story.incident
    assert story.incident.acknowledged_by is None


@pytest.mark.parametrize("silent", [False, True])
def test_what_is_told_as_critical_anew_escalates_anew(silent):
    story = Story(replace(POLICY, update_every=None, escalation_steps=1)).seen(CRITICAL, "rsi").at(15).tick()
    story.at(20).seen(WARNING, "rsi").at(100).tick()
    story.silenced = silent
    story.at(120).seen(CRITICAL, "rsi").at(130).seen(CRITICAL, "rsi")
    story.silenced = False
    for minute in range(140, 200, 5):
        story.at(minute).tick()
    reminded, escalated = ("14:20", "14:35") if silent else ("14:00", "14:20")  # the first tick after a quarter
    assert story.steps == [
        ("12:00", "opened"),
        ("12:15", "escalated"),
        (reminded, "reminded"),
        (escalated, "escalated"),
    ]


def test_a_critical_that_comes_back_at_once_is_not_escalated_again():
    story = Story(replace(POLICY, update_every=None, escalation_steps=1)).seen(CRITICAL, "rsi").at(15).tick()
    for minute in range(16, 80, 2):
        story.at(minute).seen(WARNING if minute % 20 == 16 else CRITICAL, "rsi")
    assert story.steps == [("12:00", "opened"), ("12:15", "escalated")]


def test_new_findings_do_not_put_an_escalation_off():
    story = Story().seen(CRITICAL, "rsi").at(10).seen(CRITICAL, "rsi", "macd").at(15).tick()
    assert story.steps[-1] == ("12:15", "escalated")


def test_a_message_about_several_says_what_was_done_and_what_to_do_and_links_to_the_first_that_a_run_found():
    found = [
        replace(alert(), what="rsi lost 12 %"),
        replace(alert(), what="macd is late", what_to_do="Look.", link="http://127.0.0.1:3000/runs/a", done="Kept."),
        replace(alert(), what="disk is full", what_to_do="Free some.", link="http://127.0.0.1:3000/runs/b"),
    ]
    incidents = [Incident(f"risk/{n}", one, True, 1, NOON, NOON, NOON) for n, one in enumerate(found)]
    told = together(incidents, "incidents_together/1")
    assert told.what == "rsi lost 12 %, and 2 more"
    assert told.why == "rsi lost 12 %: above 10 %\nmacd is late: above 10 %\ndisk is full: above 10 %"
    assert told.what_to_do == "Look.\nFree some.\nEach by itself: `trading-ops alerts incidents`."
    assert (told.done, told.link) == ("Kept.", "http://127.0.0.1:3000/runs/a")


def test_what_is_told_together_with_others_is_told_once_and_ends_by_itself():
    incident = observe(None, alert(), {}, NOON, POLICY, held_until=NOON)
    together = partial(
        told_together, group=replace(alert(), dedup_key="together/1"), episode=1, findings=None, now=NOON, policy=POLICY
    )
    told = together(incident)
    assert told
    resolved = recover(told, NOON + timedelta(minutes=1), POLICY).unsent[-1]
    assert (resolved.step, resolved.opening, resolved.group) == (Step.RESOLVED, f"{KEY}/1/1", "together/1")
    assert together(told) == told
    again = observe(recover(incident, NOON, POLICY), alert(), {}, NOON, POLICY, held_until=NOON)
    assert together(again) == again


def test_what_was_told_without_the_store_is_not_told_again_and_its_end_is():
    elsewhere = replace(alert(), dedup_key="spool/waiting/12:00")
    adopted = adopt(None, alert=elsewhere, at=NOON, policy=POLICY)
    assert adopted
    later = observe(adopted, elsewhere, {"a": ERROR}, NOON + timedelta(minutes=5), POLICY)
    assert later.unsent == ()
    (message,) = recover(later, NOON + timedelta(minutes=6), POLICY).unsent
    assert (message.step, message.opening) == (Step.RESOLVED, "spool/waiting/12:00")
    over = recover(later, NOON + timedelta(minutes=6), POLICY)
    assert adopt(over, alert=elsewhere, at=NOON, policy=POLICY) == over


def test_of_several_messages_told_without_the_store_each_counts():
    first, worse = replace(alert(WARNING), dedup_key="risk/a"), replace(alert(CRITICAL), dedup_key="risk/b")
    adopted: Incident | None = None
    for told, minutes in ((first, 0), (worse, 5), (first, 0), (worse, 5)):
        adopted = adopt(adopted, alert=told, at=NOON + timedelta(minutes=minutes), policy=POLICY)
    assert adopted
    assert (adopted.opening, adopted.also, adopted.told) == ("risk/a", ("risk/b",), (WARNING, CRITICAL))
    again = observe(adopted, worse, {"a": CRITICAL, "b": CRITICAL}, NOON + timedelta(minutes=9), POLICY)
    assert again.unsent == ()
    (over,) = recover(again, NOON + timedelta(minutes=10), POLICY).unsent
    assert (over.severity, over.opening, over.also) == (CRITICAL, "risk/a", ("risk/b",))
    reopened = observe(sent(recover(again, NOON, POLICY), [over.dedup_key]), alert(), {}, NOON, POLICY)
    assert (reopened.opening, reopened.also) == (f"{KEY}/2/1", ())


def test_a_message_from_before_a_held_opening_does_not_count_as_its_own():
    held = observe(None, alert(), {}, NOON, POLICY, held_until=NOON + timedelta(minutes=1))
    adopted = adopt(held, alert=replace(alert(), dedup_key="risk/a"), at=NOON - timedelta(minutes=1), policy=POLICY)
    assert adopted
    assert (adopted.told_open, adopted.also) == (False, ("risk/a",))


@pytest.mark.parametrize("silent", [False, True])
def test_what_got_worse_or_was_found_while_the_store_came_back_is_told(silent):
    """Told as a WARNING without the store; seen as CRITICAL, and with another finding, when it is back."""
    elsewhere = replace(alert(WARNING), dedup_key="risk/a")
    for severity, findings in ((CRITICAL, ["a"]), (WARNING, ["a", "b"])):
        story = Story(replace(POLICY, update_every=None))
        story.incident = adopt(None, alert=elsewhere, at=NOON, policy=POLICY)
        story.silenced = silent
        story.at(5).seen(severity, *findings)
        story.silenced = False
        story.at(6).tick().at(7).tick()
        assert story.told == [("12:06" if silent else "12:05", Step.REMINDED, "More: rsi lost 12 %")]


def test_a_level_that_only_a_newer_version_knows_counts_as_critical():
    strange = replace(alert(), severity="FATAL")  # type: ignore[arg-type]
    incident = observe(None, strange, {"x": ERROR}, NOON, POLICY, held_until=NOON + timedelta(minutes=1))
    assert (len(incident.unsent), incident.told_severity) == (1, CRITICAL)
    assert Incident.from_document(incident.to_document()) == incident


def test_an_incident_stored_without_what_it_was_told_as_goes_on_and_ends_at_its_level():
    known = sent(observe(None, alert(), {"a": ERROR}, NOON, POLICY), [f"{KEY}/1/1"])
    document = {name: value for name, value in known.to_document().items() if name not in ("told", "also", "outdated")}
    stored = Incident.from_document(document)
    again = observe(stored, alert(), {"a": ERROR}, NOON, POLICY)
    assert again.unsent == ()
    (over,) = recover(again, NOON, POLICY).unsent
    assert (over.step, over.severity) == (Step.RESOLVED, ERROR)


def test_a_finding_that_is_no_text_is_told_once():
    story = Story().seen(ERROR, "file\udcff").at(1).seen(ERROR, "file\udcff")
    assert story.steps == [("12:00", "opened")]


# a clock that was a year ahead and is set right


def test_a_held_opening_waits_for_the_minute_and_not_for_the_year():
    story = Story().at("2026-03-10T12:00").seen(held_until=datetime(2026, 3, 10, 12, 1, tzinfo=UTC)).at(0).tick()
    assert story.at(1).tick().steps == [("12:01", "opened")]


def test_what_flapped_is_told_when_it_has_been_steady_since_the_clock_is_right():
    story = Story().at("2026-03-10T12:00")
    for _ in range(4):
        story.seen().well()
    assert story.at(0).tick().at(29).tick().steps[-1] == ("12:00", "opened")
    assert story.at(30).tick().steps[-1] == ("12:30", "resolved")


def test_an_escalation_and_a_reminder_come_as_if_it_had_been_told_when_the_clock_was_set_right():
    story = Story(replace(POLICY, update_every=None, escalation_steps=1)).at("2026-03-10T12:00").seen(CRITICAL)
    for minutes in (0, 14, 15, 25 * 60):
        story.at(minutes).tick()
    assert story.steps == [("12:00", "opened"), ("12:15", "escalated"), ("13:00", "reminded")]


def test_a_finding_that_left_is_new_again_half_an_hour_after_the_clock_is_right():
    story = Story(replace(POLICY, update_every=None)).at("2026-03-10T12:00").seen(ERROR, "rsi", "macd")
    story.seen(ERROR, "rsi").at(0).seen(ERROR, "rsi").at(30).seen(ERROR, "rsi", "macd")
    assert story.steps[1:] == [("12:30", "reminded")]


# whatever happens

FINDINGS = st.frozensets(st.sampled_from(["rsi", "macd"]), min_size=1)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["seen", "seen", "well", "tick", "answered", "silence", "speak"]),
        st.integers(0, 600),  # seconds since the one before
        st.sampled_from(Severity),
        FINDINGS,
        st.booleans(),
    ),
    min_size=1,
    max_size=80,
)
NERVOUS = st.lists(
    st.tuples(
        st.sampled_from(["seen", "well"]), st.integers(0, 22), st.sampled_from(Severity), FINDINGS, st.just(False)
    ),
    min_size=70,
    max_size=80,
)


def play(story: Story, events: Iterable[tuple[str, int, Severity, frozenset[str], bool]]) -> None:
    for what, after_s, severity, findings, held in events:
        story.now += timedelta(seconds=after_s)
        if what == "seen":
            until = story.now + story.policy.group_within if held else None
            story.seen(severity, *findings, held_until=until)
        elif what in ("silence", "speak"):
            story.silenced = what == "silence"
        elif story.incident and (what != "answered" or story.incident.open):
            {"well": story.well, "tick": story.tick, "answered": story.answered}[what]()


@settings(max_examples=150, deadline=None)
@given(events=EVENTS)
def test_whatever_happens_people_end_up_knowing_what_is_so(events: Any):
    story = Story()
    play(story, [*events, ("speak", 0, ERROR, frozenset(), False)])
    if story.incident is None:
        return
    for _ in range(90):
        story.now += timedelta(minutes=1)
        story.tick()
    incident = story.incident
    assert incident.told_open == incident.open
    assert (incident.flapping, incident.unsent) == (False, ())
    loud = [message for message in story.alerts if message.step in (Step.OPENED, Step.REMINDED, Step.RESOLVED)]
    assert [message.step is Step.RESOLVED for message in loud[-1:]] in ([], [not incident.open])
    if incident.open:
        assert (incident.news, incident.steadied) == (False, False)
        assert incident.told_severity.rank >= incident.level.rank
        assert loud
    keys = [message.dedup_key for message in story.alerts]
    assert len(set(keys)) == len(keys)
    known: str | None = None
    for message in story.alerts:  # whatever goes on or ends belongs to the opening before it
        known = message.dedup_key if message.step is Step.OPENED else known
        assert message.opening == (None if message.step is Step.OPENED else known)


@settings(max_examples=40, deadline=None)
@given(events=NERVOUS)
def test_however_often_it_comes_and_goes_the_messages_in_half_an_hour_are_few(events: Any):
    """Three openings with their ends and what was new in each, the flapping, and 3 rises while it flaps."""
    story = Story(replace(POLICY, update_every=None))
    play(story, events)
    assert story.now - NOON < timedelta(minutes=30)
    steps = [message.step for message in story.alerts]
    assert steps.count(Step.OPENED) <= 4
    assert steps.count(Step.RESOLVED) <= 3
    assert steps.count(Step.REMINDED) <= 3 * 7 + 3  # of 8 findings at a level one at least is in the opening
    assert steps.count(Step.ESCALATED) <= 2
