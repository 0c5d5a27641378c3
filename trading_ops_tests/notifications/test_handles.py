"""Does a channel hear what it called the message that opened an incident, whatever happened in between?"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.backoff import Backoff
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.outbox import Outbox
from trading_ops_tests.audit.unreliable import DOWN, UP, UnreliableStore

OPENED = Alert(Severity.ERROR, "i/1", "began", "", "", incident="i")
REMINDED = replace(OPENED, dedup_key="i/2", step=Step.REMINDED, opening="i/1")
UPDATED = replace(REMINDED, dedup_key="i/3", step=Step.UPDATED)
RESOLVED = replace(REMINDED, dedup_key="i/4", step=Step.RESOLVED)
REPORT = Alert(Severity.INFO, "report/portfolio/2025-03-09", "w", "", "")


class Chat:
    """Names its messages m1, m2, ...; keeps what it was sent and as an answer to which."""

    deduplicates = False

    def __init__(self, name: str = "chat", *errors: Exception, updates: bool = False, reports: bool = True) -> None:
        self.name, self.updates, self.reports = name, updates, reports
        self.heard: list[tuple[str, str | None]] = []
        self._errors = list(errors)

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> str | None:
        if self._errors:
            raise self._errors.pop(0)
        self.heard.append((alert.dedup_key, opening))
        return f"m{len(self.heard)}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "audit.db") as store:
        yield store


@pytest.fixture
def box(store: SqliteStore) -> Callable[..., Outbox]:
    return lambda *channels: Outbox(store, {c.name: c for c in channels}, backoff=Backoff(first_s=0))


def test_each_channel_gets_its_own_name_of_the_opening_message(box):
    chat, mail = Chat(), Chat("mail")
    box(mail).publish(replace(OPENED, dedup_key="other"))
    for alert in (OPENED, REMINDED, RESOLVED):
        box(chat, mail).publish(alert)
    assert chat.heard == [("i/1", None), ("i/2", "m1"), ("i/4", "m1")]
    assert mail.heard == [("other", None), ("i/1", None), ("i/2", "m2"), ("i/4", "m2")]


def test_an_opening_message_that_a_later_try_delivers_has_its_name_too(box):
    chat = Chat("chat", DeliveryError("down"))
    box(chat).publish(OPENED)
    assert box(chat).drain() == 1
    box(chat).publish(REMINDED)
    assert chat.heard == [("i/1", None), ("i/2", "m1")]


def test_a_message_whose_opening_was_never_told_here_is_told_by_itself(box):
    chat = Chat()
    box(chat).publish(REMINDED)
    assert chat.heard == [("i/2", None)]


def test_a_damaged_opening_stops_no_later_message(box, tmp_path):
    chat = Chat()
    box(chat).publish(OPENED)
    with sqlite3.connect(tmp_path / "audit.db") as db:
        db.execute("UPDATE state SET body = '{' WHERE key = 'i/1'")
    box(chat).publish(REMINDED)
    assert chat.heard[1] == ("i/2", None)


def test_a_name_that_was_learnt_while_the_store_was_down_is_carried_over(tmp_path):
    with UnreliableStore(tmp_path) as main:
        chat = Chat()
        local = tmp_path / "local.db"
        outbox = Outbox(main, {"chat": chat}, fallback=lambda: SqliteStore(local), fallback_exists=local.exists)
        main.be(DOWN)
        outbox.publish(OPENED)
        main.be(UP)
        outbox.drain()
        outbox.publish(RESOLVED)
    assert chat.heard == [("i/1", None), ("i/4", "m1")]


def test_news_are_sent_only_where_they_can_be_shown(box):
    chat, mail = Chat(updates=True), Chat("mail")
    box(chat, mail).publish(OPENED)
    delivery = box(chat, mail).publish(UPDATED)
    assert list(delivery["channels"]) == ["chat"]
    assert (chat.heard, mail.heard) == ([("i/1", None), ("i/3", "m1")], [("i/1", None)])
    assert box(chat, mail).waiting() == 0


def test_a_report_goes_where_reports_have_a_place(box):
    chat, pager = Chat(), Chat("pager", reports=False)
    assert list(box(chat, pager).publish(REPORT)["channels"]) == ["chat"]
    assert list(box(chat, pager).publish(OPENED)["channels"]) == ["chat", "pager"]
