"""Does somebody hear of the alerts that were given up, once a day, and never of that alert itself?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from trading_ops.audit.store import StoreError
from trading_ops.defs.notifications import outbox_sensor
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.desk import IncidentDesk
from trading_ops.notifications.outbox import Outbox
from trading_ops.services import Services
from trading_ops_tests.conftest import NOON
from trading_ops_tests.notifications.test_outbox import Recorder


def use(services: Services, *channels: Any) -> None:
    by_name = {channel.name: channel for channel in channels}
    services.__dict__["channels"] = by_name
    services.__dict__["outbox"] = Outbox(services.store, by_name, services.now)


def look(services: Services) -> str:
    context = dg.build_sensor_context(resources={"services": services})
    return str(outbox_sensor(context).skip_message)  # type: ignore[union-attr]


def refused() -> Recorder:
    return Recorder("chat", *[DeliveryError("HTTP 404: no_service", permanent=True)] * 99)


def publish(services: Services, *keys: str) -> None:
    for key in keys:
        services.outbox.publish(Alert(Severity.CRITICAL, key, "w", "y", "d"))


def test_what_was_given_up_is_logged_counted_and_told_once_a_day_where_a_channel_works(services, capfd):
    mail = Recorder("mail")
    use(services, refused(), mail)
    publish(services, "a", "b")
    mail.told.clear()
    for _ in range(3):
        assert "2 alerts were given up" in look(services)
    assert "ERROR - 2 alerts were given up and did not reach everybody: 2 on chat: HTTP 404" in capfd.readouterr().err
    ((alert, _),) = mail.told
    assert (alert.dedup_key, alert.severity) == ("alerts_dead/2025-03-10", Severity.ERROR)
    assert "2 on chat: HTTP 404: no_service" in alert.why
    services.now = lambda: NOON + timedelta(days=1)
    assert "2 alerts were given up" in look(services)
    assert [a.dedup_key for a, _ in mail.told] == ["alerts_dead/2025-03-10", "alerts_dead/2025-03-11"]


def test_where_no_channel_works_the_alert_about_it_is_not_told_of(services):
    use(services, refused())
    publish(services, "a")
    for day in range(2):
        services.now = lambda day=day: NOON + timedelta(days=day)
        assert "1 alert was given up" in look(services)


def test_what_is_dead_for_good_is_told_no_more_after_a_day_but_every_monday(services):
    mail = Recorder("mail")
    use(services, refused(), mail)
    publish(services, "a")
    mail.told.clear()
    for day in range(8):
        services.now = lambda day=day: NOON + timedelta(days=day)
        look(services)
    assert [alert.day for alert, _ in mail.told] == ["2025-03-10", "2025-03-11", "2025-03-17"]
    assert services.outbox.dead() == 4  # with those of the three notices that the dead channel refused too


def test_of_what_is_dead_only_what_died_since_the_day_before_is_counted(services):
    mail = Recorder("mail")
    use(services, refused(), mail)
    publish(services, "a", "b")
    services.now = lambda: NOON + timedelta(days=3)
    use(services, refused(), mail)
    publish(services, "c")
    assert "1 alert was given up" in look(services)


def test_what_was_sent_again_or_was_for_a_channel_no_longer_chosen_is_not_told_of(services):
    use(services, refused())
    publish(services, "a")
    use(services, Recorder("mail"))
    assert look(services) == "0 waiting alerts delivered"
    use(services, Recorder("chat"))
    services.outbox.retry()
    assert look(services) == "0 waiting alerts delivered"
    assert services.outbox.dead() == 0


@pytest.mark.parametrize("times", [1, 2])
def test_looking_reads_what_was_given_up_and_not_what_was_ever_told(services, times, monkeypatch):
    use(services, refused())
    publish(services, "a")
    use(services, Recorder("chat"))
    publish(services, *map(str, range(30)))
    look(services)  # the first one looks at everything once
    read: list[str] = []
    whole = services.store.list_state
    monkeypatch.setattr(services.store, "list_state", lambda name, *prefix: read.append(name) or whole(name, *prefix))
    for _ in range(times):
        assert "1 alert was given up" in look(services)
    assert "outbox" not in read


def test_the_sensor_tells_what_became_due_of_incidents(services):
    chat = Recorder("chat")
    use(services, chat)
    for name in "ab":
        services.incidents.observe(Alert(Severity.ERROR, name, name, "y", "d", incident=name))
    assert look(services) == "0 waiting alerts delivered"
    services.now = lambda: NOON + timedelta(minutes=1)
    assert look(services) == "0 waiting alerts delivered; 1 message about incidents"
    assert [(alert.incident, str(alert.step)) for alert, _ in chat.told] == [("a", "opened"), ("b", "opened")]


def test_one_that_is_damaged_keeps_nobody_from_hearing_of_the_others_and_is_named(services):
    mail = Recorder("mail")
    use(services, refused(), mail)
    publish(services, "a", "b", "c")
    known = services.store.get_state("outbox", "a")
    body = {name: value for name, value in known.body.items() if name != "created_at"}
    services.store.put_state("outbox", "a", body, expected_version=known.version)
    said = look(services)
    assert "2 alerts were given up" in said
    assert "left for later: the alert 'a' is damaged" in said
    assert mail.told[-1][0].why.startswith("2 on chat: HTTP 404")
    with pytest.raises(StoreError, match="the alert 'a' is damaged"):
        services.outbox.dead()


class Falling(IncidentDesk):
    """A desk whose tick fails as nobody foresaw."""

    def tick(self):
        raise ZeroDivisionError("at the desk")


def test_where_a_tick_of_the_incidents_fails_what_waits_is_sent_what_is_dead_told_and_the_failure_shown(
    services, capfd
):
    use(services, refused(), Recorder("mail", DeliveryError("HTTP 503")))
    publish(services, "a")
    services.now = lambda: NOON + timedelta(hours=1)
    mail = Recorder("mail")
    use(services, refused(), mail)
    services.__dict__["incidents"] = Falling(services.store, services.outbox, services.now)
    with pytest.raises(ZeroDivisionError, match="at the desk"):
        look(services)
    assert [alert.dedup_key for alert, _ in mail.told] == ["a", "alerts_dead/2025-03-10"]
    assert "1 alert was given up" in capfd.readouterr().err
