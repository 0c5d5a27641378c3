"""Does the MongoDB store survive tampering, crowds, outages and lost replies, and say what to do about each?"""

import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import bson
import pytest
from bson.code import Code
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from pymongo import DeleteMany, InsertOne, MongoClient
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, PyMongoError

import trading_ops
from trading_ops.audit.mongo import MongoStore
from trading_ops.audit.mongo_client import shown
from trading_ops.audit.store import (
    Break,
    Conflict,
    Entry,
    Head,
    InvalidRecord,
    Receipt,
    StoreError,
    StoreUnavailable,
    open_store,
)
from trading_ops_tests.servers.mongod import Mongod

ROOT = Path(trading_ops.__file__).parents[1]
FOREVER = 2**31 - 1
PASSWORD = "s3cret%2Fpass"

FORK = """
import os, sys
from trading_ops.audit.store import Entry, open_store

store = open_store(sys.argv[1])
store.append("c", [Entry("", "before", {})])
client = store._server._connection().database.client
child = os.fork()
assert (store._server._connection().database.client is client) == bool(child)
for n in range(20):
    store.append("c", [Entry("", f"{'parent' if child else 'child'}-{n}", {})])
if child:
    assert os.waitpid(child, 0)[1] == 0
    store.append("c", [Entry("", "after", {})])
"""


@pytest.fixture
def uri(mongod: Mongod) -> str:
    return mongod.address(f"mongo_{uuid4().hex}")


@pytest.fixture
def store(uri: str) -> Iterator[MongoStore]:
    with MongoStore(uri) as store:
        yield store


@pytest.fixture
def database(uri: str) -> Iterator[Database[dict[str, Any]]]:
    """The store's database as someone sees it who has the password and a Mongo shell."""
    with MongoClient[dict[str, Any]](uri) as client:
        yield client.get_default_database()


@pytest.fixture
def tampering(store: MongoStore, database: Database[dict[str, Any]]) -> Database[dict[str, Any]]:
    """Five records in `c`, one in `d`."""
    store.append("c", [Entry("2025-03-01", "rsi", {"value": n, "name": "ä€"}) for n in range(5)])
    store.append("d", [Entry("2025-03-01", "", {})])
    return database


def breaks(store: MongoStore, **options: Any) -> list[tuple[str, int]]:
    return [(found.collection, found.seq) for found in store.verify(**options)]


@pytest.mark.parametrize(("seq", "every"), [(1, 5), (3, 1), (5, 5)])
def test_one_flipped_bit_in_any_byte_of_a_document_is_found_and_named(
    store: MongoStore, tampering: Database[dict[str, Any]], seq: int, every: int
) -> None:
    # a tail moved to another collection is a cut tail: only a noted head names it where it belongs
    noted = store.heads()
    history = tampering.history
    sound = history.find_one({"collection": "c", "seq": seq})
    assert sound is not None
    raw, stored = bson.encode(sound), 0
    others = ["d/1", *(f"c/{n}" for n in range(1, 6) if n != seq)]
    for at in range(0, len(raw), every):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << (3 * at + 3) % 8
        try:
            # no BSON any more, or a place that is taken: such a document the server does not keep
            history.bulk_write([DeleteMany({"_id": {"$nin": others}}), InsertOne(RawBSONDocument(bytes(flipped)))])
        except (PyMongoError, bson.errors.BSONError):
            continue
        stored += 1
        assert ("c", seq) in breaks(store, expected=noted), (at, bytes(flipped))
    assert stored > len(raw) / every / 2
    history.bulk_write([DeleteMany({"_id": {"$nin": others}}), InsertOne(sound)])
    assert store.verify(expected=noted) == []


@pytest.mark.parametrize(
    "change",
    [
        *({"$unset": {field: 1}} for field in ("partition", "key", "revision", "recorded_at", "digest", "body")),
        {"$set": {"note": "harmless?"}},
        {"$set": {"body": b"{}"}},
        {"$set": {"body": None}},
        {"$set": {"partition": Code("2025-03-01")}},
        {"$set": {"key": Code("rsi")}},
        {"$set": {"collection": Code("c")}},
        {"$set": {"seq": True}},
        {"$set": {"revision": True}},
        {"$set": {"revision": 3.0}},
        {"$set": {"revision": "3"}},
        {"$set": {"seq": 3.0}},
        {"$set": {"key": ["rsi"]}},
        {"$set": {"collection": ["c"]}},
        {"$set": {"partition": {"day": "2025-03-01"}}},
        {"$set": {"recorded_at": bson.DatetimeMS(2**60)}},
    ],
    ids=str,
)
def test_another_type_a_missing_and_an_extra_field_are_found(
    store: MongoStore, tampering: Database[dict[str, Any]], change: dict[str, Any]
) -> None:
    assert tampering.history.update_one({"_id": "c/3"}, change).modified_count == 1
    assert ("c", 3) in breaks(store)
    assert ("d", 1) not in breaks(store)


def test_a_field_that_came_twice_is_found(store: MongoStore, tampering: Database[dict[str, Any]]) -> None:
    # queries see the first of two, the driver decodes the last: the record hides from its day unless this is found
    for field, forged in (("partition", "1999-01-01"), ("key", "macd"), ("body", "{}"), ("revision", 9)):
        sound = tampering.history.find_one_and_delete({"_id": "c/5"})
        assert sound is not None
        raw = bson.encode({"_id": "c/5"})[4:-1] + bson.encode({field: forged})[4:-1]
        raw += bson.encode({name: value for name, value in sound.items() if name != "_id"})[4:-1] + b"\0"
        tampering.history.insert_one(RawBSONDocument((len(raw) + 4).to_bytes(4, "little") + raw))
        assert tampering.history.find_one({"_id": "c/5"}) == sound
        assert breaks(store) == [("c", 5)], field
        tampering.history.replace_one({"_id": "c/5"}, sound)
        assert breaks(store) == []


@pytest.mark.parametrize("field", ["partition", "key"])
def test_a_first_revision_that_became_code_is_found(
    store: MongoStore, tampering: Database[dict[str, Any]], field: str
) -> None:
    # it says the same and hashes the same, but its day and key no longer find it
    document = tampering.history.find_one({"_id": "d/1"})
    assert document is not None
    tampering.history.update_one({"_id": "d/1"}, {"$set": {field: Code(document[field])}})
    assert breaks(store) == [("d", 1)]


def test_a_number_that_a_restore_made_longer_is_no_tampering(
    store: MongoStore, tampering: Database[dict[str, Any]]
) -> None:
    tampering.history.update_one({"_id": "c/5"}, {"$set": {"seq": Int64(5), "revision": Int64(5)}})
    head = store.head("c")
    assert head is not None
    assert (head.seq, type(head.seq)) == (5, int)
    assert store.verify(expected=[head]) == []
    assert store.append("c", [Entry("2025-03-01", "rsi", {"value": 6})])[0].seq == 6


def test_a_collection_that_became_code_hides_nothing_and_stops_nothing(
    store: MongoStore, tampering: Database[dict[str, Any]]
) -> None:
    store.put_state("guard", "rsi", {}, expected_version=0)
    tampering.history.update_many({"collection": "d"}, {"$set": {"collection": Code("d")}})
    tampering.history.update_one({"_id": "c/2"}, {"$set": {"body": "{}"}})
    tampering.state.update_one({}, {"$set": {"collection": Code("guard")}})
    assert store.verify(expected=[Head("d", 1, "f" * 64)]) == [
        Break("Code('d', None)", 1, "not text"),
        Break("c", 2, "body and digest do not match"),
        Break("d", 1, "ends at 0, head 1 was noted"),
    ]
    assert (store.collections(), store.state_collections()) == (["c"], [])
    assert [head.collection for head in store.heads()] == ["c"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hash": Code("f" * 64)}, "record 5"),
        ({"hash": None}, "record 5"),
        ({"seq": True}, "record True"),
        ({"seq": "5"}, "record '5'"),
    ],
    ids=str,
)
def test_a_damaged_tail_is_named_and_never_given_out_as_a_head(
    store: MongoStore, tampering: Database[dict[str, Any]], change: dict[str, Any], named: str
) -> None:
    tampering.history.update_one({"_id": "c/5"}, {"$set": change})
    for what in (store.heads, lambda: store.head("c")):
        with pytest.raises(StoreError, match=rf"^c: {named} is damaged .*; run verify\(\)$"):
            what()
    assert breaks(store) == [("c", 5)]


@pytest.mark.parametrize("value", [None, 7, ["d"], "d\ud800"])
def test_a_collection_name_that_is_no_text_is_found(
    store: MongoStore, tampering: Database[dict[str, Any]], value: Any
) -> None:
    document = tampering.history.find_one_and_delete({"_id": "d/1"})
    assert document is not None
    raw = bson.encode({**document, "collection": "d" if isinstance(value, str) else value})
    if isinstance(value, str):
        raw = raw.replace(b"collection\0\x02\0\0\0d", b"collection\0\x02\0\0\0\xff")
    tampering.history.insert_one(RawBSONDocument(raw))
    assert [found.reason for found in store.verify()] == ["not text"]


def test_a_deleted_record_is_named(store: MongoStore, tampering: Database[dict[str, Any]]) -> None:
    tampering.history.delete_one({"collection": "c", "seq": 2})
    (broken,) = store.verify()
    assert (broken.seq, broken.reason) == (2, "record 2 is missing, 3 stands in its place")


def test_a_changed_seq_leaves_a_hole(store: MongoStore, tampering: Database[dict[str, Any]]) -> None:
    tampering.history.update_one({"collection": "c", "seq": 5}, {"$set": {"seq": 6}})
    assert breaks(store) == [("c", 5)]


def test_a_cut_tail_shows_against_the_noted_head_only(store: MongoStore, tampering: Database[dict[str, Any]]) -> None:
    noted = store.heads()
    tampering.history.delete_many({"$or": [{"collection": "d"}, {"seq": {"$gt": 3}}]})
    assert store.verify() == []
    assert [(found.collection, found.seq, found.reason) for found in store.verify(expected=noted)] == [
        ("c", 4, "ends at 3, head 5 was noted"),
        ("d", 1, "ends at 0, head 1 was noted"),
    ]
    store.append("c", [Entry("2025-03-01", "rsi", {"forged": n}) for n in range(9)])
    assert store.verify("c") == []
    assert breaks(store, expected=noted) == [("c", 5), ("d", 1)]


@pytest.mark.parametrize(
    "change",
    [{"body": "{"}, {"body": None}, {"body": "[]"}, {"body": "[" * 200_000}, {"recorded_at": "yesterday"},
     {"key": ["rsi"]}, {"seq": "5"}, {"recorded_at": bson.DatetimeMS(2**60)}],
    ids=lambda change: str(change)[:40],
)  # fmt: skip
def test_reading_a_damaged_record_points_to_verify(
    store: MongoStore, tampering: Database[dict[str, Any]], change: dict[str, Any]
) -> None:
    tampering.history.update_one({"_id": "c/5"}, {"$set": change})
    with pytest.raises(StoreError, match=r"verify\(\)") as damaged:
        store.read("c")
    assert not isinstance(damaged.value, StoreUnavailable)


def test_text_that_is_no_utf8_is_damage_too(store: MongoStore, tampering: Database[dict[str, Any]]) -> None:
    document = tampering.history.find_one_and_delete({"_id": "c/5"})
    assert document is not None
    tampering.history.insert_one(RawBSONDocument(bson.encode(document).replace("ä".encode(), b"\xff\xff")))
    with pytest.raises(StoreError, match=r"verify\(\) finds a damaged record"):
        store.read("c")
    assert breaks(store) == [("c", 5)]


def test_the_database_itself_refuses_a_second_document_in_one_place(
    store: MongoStore, tampering: Database[dict[str, Any]]
) -> None:
    taken = tampering.history.find_one({"_id": "c/5"})
    assert taken is not None
    for change in ({"_id": "x", "revision": 9}, {"_id": "x", "seq": 9}, {"seq": 9, "revision": 9}):
        with pytest.raises(DuplicateKeyError):
            tampering.history.insert_one({**taken, **change})


def test_many_writers_of_singles_and_batches_all_succeed(uri: str) -> None:
    def work(worker: int) -> list[Receipt]:
        with MongoStore(uri) as store:
            single = [store.append("c", [Entry("", f"{worker}-{n}", {})])[0] for n in range(10)]
            return single + store.append("c", [Entry("", f"{worker}-{n}", {}) for n in range(10, 15)])

    with ThreadPoolExecutor(12) as pool:
        batches = list(pool.map(work, range(12)))
    assert sorted(receipt.seq for batch in batches for receipt in batch) == list(range(1, 181))
    assert all(batch[14].seq - batch[10].seq == 4 for batch in batches)
    with MongoStore(uri) as store:
        assert store.verify() == []


def test_a_thousand_records_are_one_batch_or_none(store: MongoStore, mongod: Mongod) -> None:
    entries = [Entry("2025-03-01", f"{n}", {"text": "x" * 500}) for n in range(1_500)]
    with failing(mongod, ["commitTransaction"], errorCode=13), pytest.raises(StoreUnavailable):
        store.append("c", entries)
    assert (store.head("c"), store.read("c")) == (None, [])
    assert [receipt.seq for receipt in store.append("c", entries)] == list(range(1, 1_501))
    assert [receipt.appended for receipt in store.append("c", entries)] == [False] * 1_500


def test_a_body_beyond_what_mongodb_holds_is_bad_input_and_no_outage(store: MongoStore) -> None:
    small, large = Entry("", "small", {}), Entry("2025-03-01", "large", {"text": "ä" * 8_400_000})
    for entries in ([large], [small, large]):
        with pytest.raises(InvalidRecord, match=r"body: 16,800,011 bytes are more than the 16 MB.*key 'large'"):
            store.append("c", entries)
    with pytest.raises(InvalidRecord, match="16 MB"):
        store.append("c", [Entry("", "k" * 17_000_000, {})])
    with pytest.raises(InvalidRecord, match="16 MB"):
        store.put_state("guard", "rsi", dict(large.body), expected_version=0)
    assert store.read("c") == store.list_state("guard") == []
    assert store.append("c", [Entry("", "fits", {"text": "x" * 16_000_000})])[0].appended


@pytest.mark.parametrize("code", [257, 388])
def test_more_than_a_transaction_holds_is_bad_input_and_no_outage(store: MongoStore, mongod: Mongod, code: int) -> None:
    entries = [Entry("", f"{n}", {}) for n in range(2)]
    with (
        failing(mongod, ["insert"], errorCode=code, times=FOREVER),
        pytest.raises(InvalidRecord, match="too much for one transaction; append fewer at a time"),
    ):
        store.append("c", entries)
    assert store.read("c") == []
    assert len(store.append("c", entries)) == 2


@contextmanager
def failing(
    server: Mongod, commands: list[str], point: str = "failCommand", times: int = 1, **how: Any
) -> Iterator[None]:
    """The server fails these commands in this way."""
    with MongoClient[dict[str, Any]](server.uri) as client:
        data = {"failCommands": commands, **how} if commands else how
        client.admin.command("configureFailPoint", point, mode={"times": times}, data=data)
        try:
            yield
        finally:
            client.admin.command("configureFailPoint", point, mode="off")


UNCONFIRMED = {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}}


@pytest.mark.parametrize(
    ("entries", "failure"),
    [
        (1, {"commands": ["insert"], "closeConnection": True, "times": 2}),
        (1, {"commands": ["insert"], "errorCode": 91, "errorLabels": ["RetryableWriteError"]}),
        (1, {"commands": ["insert", "find"], "errorCode": 50, "times": 4}),
        (3, {"commands": ["insert"], "closeConnection": True, "errorLabels": ["TransientTransactionError"]}),
        (3, {"commands": ["insert"], "errorCode": 112, "errorLabels": ["TransientTransactionError"]}),
        (3, {"commands": ["commitTransaction"], "closeConnection": True, "times": 2}),
        # stored, and then the connection is cut, or the confirmation fails
        (1, {"commands": [], "point": "onPrimaryTransactionalWrite", "closeConnection": True}),
        (1, {"commands": ["insert"], **UNCONFIRMED}),
        (3, {"commands": ["commitTransaction"], **UNCONFIRMED, "times": 2}),
    ],
    ids=str,
)
def test_a_write_of_unknown_outcome_is_stored_exactly_once(
    store: MongoStore, mongod: Mongod, failure: dict[str, Any], entries: int
) -> None:
    store.append("c", [Entry("", "before", {})])
    with failing(mongod, **failure):
        receipts = store.append("c", [Entry("", f"key-{n}", {}) for n in range(entries)])
    assert [(receipt.seq, receipt.appended) for receipt in receipts] == [(2 + n, True) for n in range(entries)]
    assert [record.key for record in store.read("c")] == ["before", *(f"key-{n}" for n in range(entries))]
    assert store.verify() == []


@pytest.mark.parametrize("entries", [1, 3])
def test_what_was_stored_but_never_confirmed_is_not_stored_again(
    uri: str, mongod: Mongod, entries: int, database: Database[dict[str, Any]]
) -> None:
    batch = [Entry("", f"key-{n}", {}) for n in range(entries)]
    with MongoStore(uri, timeout_s=1) as store:
        store.append("c", [Entry("", "before", {})])
        slow = {"blockConnection": True, "blockTimeMS": 1_500}
        with failing(mongod, ["find", "aggregate"], times=FOREVER, **slow), pytest.raises(StoreUnavailable):
            store.append("c", batch)
        assert database.history.count_documents({}) == 1
        unconfirmed = {"writeConcernError": {"code": 91, "errmsg": "shutting down"}}
        commands = ["insert"] if entries == 1 else ["commitTransaction"]
        with failing(mongod, commands, times=FOREVER, **unconfirmed), pytest.raises(StoreUnavailable):
            store.append("c", batch)
        assert database.history.count_documents({}) == 1 + entries
        receipts = store.append("c", batch)
        assert [(receipt.seq, receipt.appended) for receipt in receipts] == [(2 + n, False) for n in range(entries)]
        assert store.verify() == []


def unavailable(address: str, what: Callable[[MongoStore], object] = MongoStore.heads) -> str:
    """What a store says about an address that cannot be used now; never its password, not in the traceback either."""
    with MongoStore(address, timeout_s=0.5) as store, pytest.raises(StoreUnavailable) as said:
        what(store)
    assert "s3cret" not in "".join(traceback.format_exception(said.value)) + repr(said.value) + repr(vars(said.value))
    return str(said.value)


def write(store: MongoStore) -> object:
    return store.append("c", [Entry("", "k", {"n": 1})])


def put(store: MongoStore) -> object:
    return store.put_state("c", "k", {}, expected_version=0)


def test_a_server_that_is_down_is_told_with_hosts_and_database_only() -> None:
    with socket.socket() as taken:  # bound but not listening: refused
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for what in (write, put, MongoStore.heads, MongoStore.verify):
            said = unavailable(f"mongodb://ops:{PASSWORD}@127.0.0.1:{port}/audit?authSource=admin", what)
            assert said.startswith(f"mongodb://127.0.0.1:{port}/audit cannot be reached; check that mongod runs")
            assert "Connection refused" in said


def test_a_server_that_hangs_costs_the_timeout_and_nothing_is_lost(uri: str, mongod: Mongod) -> None:
    with MongoStore(uri, timeout_s=0.5) as store:
        write(store)
        with mongod.frozen():
            for what in (put, MongoStore.verify, MongoStore.heads):
                with pytest.raises(StoreUnavailable):
                    what(store)
        # a write that was under way may be stored after all; repeated, it is still one
        write(store)
        assert len(store.read("c", all_revisions=True)) == 1


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (13, "grant it the role readWrite on the database"),
        (18, "check user, password and authSource in the address"),
        (20, "start mongod with --replSet rs0"),
        (14031, r"the disk is full\. Free some space; nothing of this call was stored"),
        (11601, "look at mongod's log, then try again"),
    ],
)
@pytest.mark.parametrize("what", [write, put])
def test_a_refusal_says_what_to_do_and_stores_nothing(
    store: MongoStore, mongod: Mongod, code: int, advice: str, what: Callable[[MongoStore], object]
) -> None:
    with failing(mongod, ["insert"], errorCode=code), pytest.raises(StoreUnavailable, match=advice):
        what(store)
    assert store.read("c") == store.list_state("c") == []
    what(store)


def test_a_primary_that_stepped_down_is_told_or_with_more_patience_waited_for(uri: str, mongod: Mongod) -> None:
    with MongoStore(uri, timeout_s=0.5) as hasty, MongoStore(uri, timeout_s=30) as patient:
        assert hasty.heads() == patient.heads() == []
        with MongoClient[dict[str, Any]](mongod.uri) as client:
            client.admin.command("replSetStepDown", 2, force=True)
        with pytest.raises(StoreUnavailable, match=r"has no primary to write to at present; look at rs\.status\(\)"):
            write(hasty)
        write(patient)
        assert len(hasty.read("c")) == 1


def test_a_standalone_server_is_told_how_to_become_a_replica_set(tmp_path: Path) -> None:
    with Mongod(tmp_path / "alone", replica_set=False) as alone:
        assert "is a standalone server, which has no transactions; make it a replica set" in unavailable(
            alone.address("a")
        )
        assert "start mongod with --replSet and run rs.initiate()" in unavailable(alone.address("a", replicaSet="rs0"))


def test_tls_where_the_server_has_none_is_told(mongod: Mongod) -> None:
    assert "could not agree on TLS; check the tls options" in unavailable(mongod.address("a", tls="true"))


def test_logins_are_checked_and_passwords_never_told(tmp_path: Path) -> None:
    keyfile = tmp_path / "key"
    keyfile.write_text("a" * 32)
    keyfile.chmod(0o400)
    with Mongod(tmp_path / "auth", "--auth", "--keyFile", str(keyfile)) as server:
        with MongoClient[dict[str, Any]](server.uri) as client:  # the first user may be made without a login
            client.admin.command("createUser", "root", pwd="s3cret/pass", roles=["root"])
        with MongoClient[dict[str, Any]](server.address("admin", f"root:{PASSWORD}")) as client:
            client.admin.command("createUser", "reader", pwd="s3cret/pass", roles=[{"role": "read", "db": "audit"}])
            client.admin.command("createUser", "ops", pwd="s3cret/pass", roles=[{"role": "readWrite", "db": "audit"}])

        def address(login: str) -> str:
            return server.address("audit", login, authSource="admin")

        with MongoStore(address(f"ops:{PASSWORD}")) as store:
            write(store)
            assert store.verify() == []
        assert "refused the login; check user, password and authSource" in unavailable(address("ops:s3cretwrong"))
        assert "refused the login" in unavailable(server.address("audit", f"ops:{PASSWORD}"))
        for what in (write, put):
            assert "grant it the role readWrite" in unavailable(address(f"reader:{PASSWORD}"), what)
        assert "grant it the role readWrite" in unavailable(server.address("audit"), write)


def test_a_server_that_comes_up_late_or_comes_back_is_used_without_reopening(tmp_path: Path) -> None:
    with Mongod(tmp_path / "late") as server:
        server.kill()
        with MongoStore(server.address("late"), timeout_s=20) as store:
            server.start()
            assert store.append("c", [Entry("", "", {"n": 1})])[0].seq == 1
            server.restart()
            assert store.append("c", [Entry("", "", {"n": 2})])[0].seq == 2


def test_the_first_use_creates_unique_indexes(uri: str, database: Database[dict[str, Any]]) -> None:
    with open_store(uri) as store:
        assert store.heads() == []
    found = {
        name: [list(index["key"]) for index in database[name].list_indexes() if index.get("unique")]
        for name in ("history", "state")
    }
    assert found == {
        "history": [["collection", "seq"], ["collection", "partition", "key", "revision"]],
        "state": [["collection", "key"]],
    }


def test_a_forked_child_uses_its_own_client(uri: str) -> None:
    command = [sys.executable, "-W", "error::UserWarning", "-c", FORK, uri]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with open_store(uri) as store:
        assert len(store.read("c")) == 42
        assert store.verify() == []


def test_a_closed_store_says_so(uri: str) -> None:
    with MongoStore(uri) as store:
        store.heads()
    store.close()
    for what in (write, put, MongoStore.heads, MongoStore.verify):
        with pytest.raises(StoreUnavailable, match="was closed; open it again"):
            what(store)


def test_keys_are_ordered_by_code_point_and_prefixes_are_literal(store: MongoStore) -> None:
    keys = ["", "Z", "a", "a*", "a.b", "axb", "a\uffff", "a😀", "é", "\uffff", "😀", "^a", "$a", "[a"]
    for key in keys:
        store.put_state("outbox", key, {"key": key}, expected_version=0)
    assert [document.key for document in store.list_state("outbox")] == sorted(keys)
    for prefix in ("a", "a.", "a*", "^", "$", "[", "a\uffff", "😀", "nothing"):
        listed = [document.key for document in store.list_state("outbox", prefix)]
        assert listed == sorted(key for key in keys if key.startswith(prefix)), prefix
    assert (store.state_collections(), store.collections()) == (["outbox"], [])


def test_a_damaged_state_document_is_told(store: MongoStore, database: Database[dict[str, Any]]) -> None:
    store.put_state("guard", "rsi", {}, expected_version=0)
    sound = database.state.find_one({})
    for field, value in (("body", "{"), ("body", "[]"), ("body", "[" * 200_000), ("version", "1"), ("version", True)):
        database.state.update_one({}, {"$set": {field: value}})
        for read in (lambda: store.get_state("guard", "rsi"), lambda: store.list_state("guard")):
            with pytest.raises(StoreError, match="guard: document 'rsi' is damaged"):
                read()
        if field == "version":  # no conflict, which its writer would try again for ever
            with pytest.raises(StoreError, match=rf"guard: document 'rsi' is damaged \(version is {value!r}\)"):
                store.put_state("guard", "rsi", {}, expected_version=1)
        database.state.replace_one({}, sound or {})


def test_compare_and_set_holds_without_the_indexes_a_restore_left_out(uri: str) -> None:
    with MongoStore(uri) as store, MongoClient[dict[str, Any]](uri) as client:
        assert store.heads() == []
        client.drop_database(client.get_default_database().name)
        store.put_state("a", "b", {"who": 1}, expected_version=0)
        with pytest.raises(Conflict, match="a, 'b': expected version 0, found 1"):
            store.put_state("a", "b", {"who": 2}, expected_version=0)
        assert store.put_state("a", '","b', {}, expected_version=0).version == 1
        assert store.put_state('a","', "b", {}, expected_version=0).version == 1
        assert [document.body for document in store.list_state("a", "b")] == [{"who": 1}]


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("mongodb://", "InvalidURI"),
        ("mongodb://ops:s3cret@host:port/audit", "ValueError"),
        ("mongodb://ops:s3@cret@db/audit", "InvalidURI"),
        ("mongodb+srv://ops:s3@cret@db/audit", "InvalidURI"),
        ("mongodb://ops:1/s3cret@db", "an @ stands behind the first /"),
        ("mongodb://ops:s3?cret@db/audit", "InvalidURI"),
        ("mongodb://ops:s3cret@db/audit?tls=maybe", "ValueError about tls"),
        ("mongodb://ops:s3cret@db/audit?tsl=true", "ConfigurationError about tsl"),
        ("mongodb://ops:s3cret@db/?tls=true&tlsCAFile=/no/ca.pem", "No such file or directory, /no/ca.pem"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_without_telling_it(uri: str, reason: str) -> None:
    with pytest.raises(ValueError, match="the MongoDB address cannot be used") as refused:
        open_store(uri)
    assert f"({reason}" in str(refused.value) or reason in str(refused.value)
    assert "cret" not in "".join(traceback.format_exception(refused.value)).replace(uri, "")


def test_a_timeout_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="timeout_s is 0; give a positive number of seconds"):
        MongoStore("mongodb://db/audit", timeout_s=0)


@pytest.mark.parametrize(
    ("options", "seconds"),
    [("?timeoutMS=300", 0.3), ("?tls=true&timeoutms=2500&w=1", 2.5), ("", 10.0), ("?timeoutMS=0", 10.0)],
)
def test_the_address_says_how_long_a_call_may_take(options: str, seconds: float) -> None:
    store = MongoStore(f"mongodb://db/audit{options}")
    limits = store._server._connection().database.client.options
    assert (limits.timeout, limits.server_selection_timeout) == (seconds, seconds)


def test_the_database_is_the_path_or_trading_ops_and_weaker_promises_are_overruled() -> None:
    store = MongoStore("mongodb://db1,db2:27018/?w=0&journal=false&readPreference=secondary&retryWrites=false")
    assert store._server.shown == "mongodb://db1,db2:27018/trading_ops"
    database = store._server._connection().database
    assert database.write_concern.document == {"w": "majority", "j": True}
    assert (database.read_preference.mode, database.read_concern.level) == (0, "majority")
    assert database.client.options.retry_writes is True
    assert MongoStore("mongodb+srv://ops:s3cret@cluster.example.com/audit")._server.shown == (
        "mongodb+srv://cluster.example.com/audit"
    )


@pytest.mark.parametrize(
    ("uri", "label"),
    [
        ("mongodb://ops:s3cret@db1:27017,db2/audit?replicaSet=rs0", "MongoDB db1:27017,db2/audit"),
        ("mongodb://db1", "MongoDB db1/trading_ops"),
        ("mongodb://db1/?tls=true", "MongoDB db1/trading_ops"),
        ("mongodb+srv://ops:s3cret@cluster.example.com", "MongoDB cluster.example.com/trading_ops"),
        ("mongodb://ops:s3cret@[::1]:27017/audit", "MongoDB [::1]:27017/audit"),
        ("mongodb://[::1/audit", "MongoDB"),
        ("mongodb:/ops:s3cret@db/audit", "MongoDB"),
        ("mongodb+srv:ops:s3cret@db/audit", "MongoDB"),
        ("ops:s3cret@db:27017/audit", "MongoDB"),
        ("mongodb://ops:s3@cret@db/audit", "MongoDB db/audit"),
        ("mongodb://ops:1/s3cret@db", "MongoDB"),
        ("mongodb://ops:s3?cret@db/audit", "MongoDB"),
        ("mongodb://ops:s3cret/audit", "MongoDB"),
        ("mongodb://db/audit?tlsCertificateKeyFilePassword=s3cret", "MongoDB db/audit"),
        ("", "MongoDB"),
    ],
)
def test_any_address_can_be_shown_without_its_password(uri: str, label: str) -> None:
    assert shown(uri) == label
