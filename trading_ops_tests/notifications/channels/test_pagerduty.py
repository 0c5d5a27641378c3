"""What does PagerDuty get?"""

import pytest

from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.channels.pagerduty import PagerDutyChannel, event_of
from trading_ops.notifications.text import MARKER, message_of, short_key
from trading_ops_tests.servers.vendors import ROUTING_KEY, VendorServer, pagerduty


def event(**changes):
    fields = {"severity": Severity.ERROR, "dedup_key": "k", "what": "w", "why": "y", "what_to_do": "d", **changes}
    return event_of(message_of(Alert(**fields), possible_duplicate=False), fields["dedup_key"])


@pytest.mark.parametrize(
    ("severity", "theirs"),
    [("INFO", "info"), ("WARNING", "warning"), ("ERROR", "error"), ("CRITICAL", "critical"), ("NOTICE", "info")],
)
def test_B122_a_level_is_one_of_theirs(severity, theirs):
    assert event(severity=severity)["payload"]["severity"] == theirs


@pytest.mark.parametrize("length", [1_023, 1_024, 1_025, 63_000])
def test_a_summary_is_cut_with_a_marker_at_1024_characters(length):
    summary = event(what="x" * length)["payload"]["summary"]
    assert len(summary) == min(length, 1_024)
    assert summary.endswith(MARKER) == (length > 1_024)


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "ключ", "a\nb"])
def test_a_key_that_pagerduty_would_not_take_is_a_digest_and_always_the_same(key):
    assert short_key(key) == short_key(key) != key
    assert len(short_key(key)) == 64
    assert short_key("x" * 255) == "x" * 255


def test_a_repeat_has_the_same_key_so_that_it_is_one_incident():
    with VendorServer(pagerduty) as server:
        channel = PagerDutyChannel(routing_key=ROUTING_KEY, base_url=server.url)
        for _ in range(2):
            channel.send(Alert(Severity.CRITICAL, "guard/rsi", "w", "", ""), possible_duplicate=False)
        events = [asked.document for asked in server.taken]
    assert channel.deduplicates
    assert [(e["event_action"], e["dedup_key"]) for e in events] == [("trigger", "guard/rsi")] * 2


def test_all_that_was_opened_for_one_incident_ends_with_it():
    over = Alert(
        Severity.CRITICAL, "risk/1/2", "w", "", "", step=Step.RESOLVED, opening="risk/1/1", also=("risk/away",)
    )
    with VendorServer(pagerduty) as server:
        PagerDutyChannel(routing_key=ROUTING_KEY, base_url=server.url).send(over, possible_duplicate=False)
        events = [asked.document for asked in server.taken]
    assert [(e["event_action"], e["dedup_key"]) for e in events] == [("resolve", "risk/1/1"), ("resolve", "risk/away")]


def test_an_event_stays_below_what_they_take():
    nasty = "\u65e5" * 200_000
    with VendorServer(pagerduty) as server:
        alert = Alert(Severity.CRITICAL, nasty, nasty, nasty, nasty, None, {nasty[:99]: nasty})
        PagerDutyChannel(routing_key=ROUTING_KEY, base_url=server.url).send(alert, possible_duplicate=True)
        assert len(server.taken[0].body) < 512 * 1024
