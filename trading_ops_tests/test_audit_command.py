"""Does `trading-ops audit` show what is broken, and refuse to leave behind what is not in the store?"""

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from trading_ops.audit.spool import SpooledStore
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import Entry, StoreError
from trading_ops.cli.audit import _require_nothing_waits
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.outbox import Outbox
from trading_ops_tests.audit.unreliable import DOWN, UP, UnreliableStore
from trading_ops_tests.test_cli import command


class Deaf:
    name = "chat"
    deduplicates = updates = False
    reports = True

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> None:
        raise OSError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").touch()
    with SqliteStore(tmp_path / "var" / "audit.db") as store:
        store.append("llm_calls", [Entry("", f"{n}", {"n": n}) for n in range(3)])
    return tmp_path


def test_a_noted_head_must_be_a_whole_one(home):
    with SqliteStore(home / "var" / "audit.db") as store:
        (head,) = store.heads()
    for wrong in (f"llm_calls:3:{head.hash[:16]}", f"llm_calls:0:{head.hash}", f":3:{head.hash}", "llm_calls:3"):
        done = command(["trading-ops", "audit", "verify", "--head", wrong], home)
        assert (done.returncode, done.stdout) == (2, "")
        assert "COLLECTION:SEQ:HASH is needed, SEQ from 1 and HASH of 64 hex digits" in done.stderr
    noted = f"llm_calls:3:{head.hash.upper()}"
    assert command(["trading-ops", "audit", "verify", "--head", noted], home).returncode == 0


def test_a_damaged_tail_is_shown_as_the_break_it_is(home):
    with sqlite3.connect(home / "var" / "audit.db") as db:
        db.execute("DROP TRIGGER history_keeps_records")
        db.execute("UPDATE history SET hash = CAST('no hash' AS BLOB) WHERE seq = 3")
    done = command(["trading-ops", "audit", "verify"], home)
    assert done.returncode == 1
    assert re.search("llm_calls is broken at record 3", " ".join(done.stdout.split()))
    assert "Traceback" not in done.stderr


# before a copy


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[UnreliableStore]:
    with UnreliableStore(tmp_path) as store:
        yield store


@pytest.fixture
def services(shared: UnreliableStore, tmp_path: Path) -> Any:
    """Services around a shared store that comes and goes."""
    store, local = SpooledStore(shared, tmp_path / "spool.db", retry_after_s=0), tmp_path / "outbox.db"
    outbox = Outbox(store, {"chat": Deaf()}, fallback=lambda: SqliteStore(local), fallback_exists=local.exists)
    return SimpleNamespace(spooled_store=store, outbox=outbox, settings=SimpleNamespace(data_dir=tmp_path))


def test_an_alert_nobody_was_told_goes_into_the_store_before_it_is_copied(services, shared):
    shared.be(DOWN)
    services.outbox.publish(Alert(Severity.CRITICAL, "k", "what", "why", "do"))
    with pytest.raises(StoreError, match="connection refused"):
        _require_nothing_waits(services)
    shared.be(UP)
    _require_nothing_waits(services)
    (document,) = shared.list_state("outbox")
    assert document.body["channels"]["chat"]["state"] == "failed"


def test_an_alert_that_somebody_tells_just_now_puts_the_copy_off(services, shared, tmp_path, capsys):
    shared.be(DOWN)
    services.outbox.publish(Alert(Severity.CRITICAL, "k", "what", "why", "do"))
    shared.be(UP)
    with SqliteStore(tmp_path / "outbox.db") as other:
        (told,) = other.list_state("outbox")

        def meanwhile() -> None:
            other.put_state("outbox", "k", told.body, expected_version=told.version)

        answer = shared.put_state

        def put_state(*arguments: Any, **options: Any) -> Any:
            if arguments[0] == "outbox":
                meanwhile()
            return answer(*arguments, **options)

        shared.put_state = put_state  # type: ignore[method-assign]
        with pytest.raises(typer.Exit):
            _require_nothing_waits(services)
    assert f"1 alerts in {tmp_path / 'outbox.db'} are not in the store" in capsys.readouterr().err


def test_what_the_store_refused_is_named_with_the_file_it_is_in(services, shared, tmp_path, capsys):
    shared.largest = 50
    shared.be(DOWN)
    services.spooled_store.append("c", [Entry("", "huge", {"text": "x" * 100})])
    with pytest.raises(typer.Exit):
        _require_nothing_waits(services)
    assert "1 entries still wait" in capsys.readouterr().err
    shared.be(UP)
    _require_nothing_waits(services)
    told = capsys.readouterr().err
    assert "1 entries that the store did not take (a record may have 50 bytes)" in told
    assert f"{tmp_path / 'spool.db'} and are not copied: keep that file" in told
