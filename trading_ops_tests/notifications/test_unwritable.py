"""Does what cannot be written, or computed with, stop nothing but itself?"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.notifications.alert import Alert
from trading_ops.notifications.channel import DeliveryError
from trading_ops_tests.notifications.test_damage import alert, keys
from trading_ops_tests.notifications.test_outbox import Clock, Recorder, outbox, states


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "audit.db") as store:
        yield store


UNFIT = {
    "cannot be written again": lambda body: body["alert"].update(numbers={"loss_pct": math.nan}),
    "cannot be computed with": lambda body: body["channels"]["chat"].update(
        state="sending", at="9999-12-31T23:59:59+00:00"
    ),
}


@pytest.mark.parametrize("spoil", [pytest.param(spoil, id=name) for name, spoil in UNFIT.items()])
def test_an_alert_that_cannot_be_taken_further_holds_up_no_other_on_its_channel(store, tmp_path, clock, spoil):
    chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 3)
    box = outbox(store, clock, chat)
    for key in "abc":
        box.publish(alert(key))
    document = store.get_state("outbox", "b")
    assert document
    body = json.loads(json.dumps(document.body))
    spoil(body)
    with closing(sqlite3.connect(tmp_path / "audit.db")) as db, db:
        db.execute("UPDATE state SET body = ? WHERE key = 'b'", (json.dumps(body),))
    assert (box.drain(), keys(chat)) == (2, ["a", "c"])
    assert "the alert 'b' " in str(box.store_error)


class Mute(Recorder):
    """Calls its message by half a character."""

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> str:  # type: ignore[override]
        super().send(alert, possible_duplicate=possible_duplicate)
        return "12\ud800"


def test_a_message_that_its_channel_calls_by_half_a_character_is_told_once(store, clock):
    chat = Mute()
    box = outbox(store, clock, chat)
    assert states(box.publish(alert("a"))) == {"chat": "sent"}
    clock.advance(timedelta(minutes=2))
    assert (box.drain(), len(chat.told)) == (0, 1)


def test_a_refusal_that_holds_half_a_character_is_noted_and_the_message_tried_again(store, clock):
    chat = Recorder("chat", DeliveryError("HTTP 500: bad \ud800 thing"))
    box = outbox(store, clock, chat)
    assert states(box.publish(alert("a"))) == {"chat": "failed"}
    assert (box.drain(), keys(chat), [doubt for _, doubt in chat.told]) == (1, ["a"], [False])
