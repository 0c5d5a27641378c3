"""Is there one text, one digest and one hash for each record, and does the walk find the broken one?"""

import hashlib
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.audit.chain import GENESIS, Link, canonical_json, content_digest, extend, first_break, link_hash, seal
from trading_ops.audit.store import Entry, Head, InvalidRecord

WHEN = "2025-03-01T01:00:00.000000+00:00"

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def chain_of(*bodies: dict[str, Any], key: str = "") -> list[tuple[Link, int | None]]:
    """A sound chain of revisions of one key, each with the seq of the revision before it."""
    links, _ = extend("c", None, {}, seal("c", [Entry("2025-03-01", key, body) for body in bodies]), WHEN)
    return [(link, link.seq - 1 or None) for link in links]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [None, True, False, "ä€😀"]}, '{"a":[null,true,false,"ä€😀"],"b":1}'),
        ({"zero": 0, "float": 0.0, "minus": -0.0}, '{"float":0.0,"minus":-0.0,"zero":0}'),
        ((1, (2,)), "[1,[2]]"),
        ('quote " and \n', '"quote \\" and \\n"'),
        ({"n": np.int64(3), "x": np.float64(0.1), "yes": np.bool_(True)}, '{"n":3,"x":0.1,"yes":true}'),
        ({"half": np.float32(0.5)}, '{"half":0.5}'),
        ({"big": 2**70}, '{"big":1180591620717411303424}'),
    ],
)
def test_canonical_text_can_be_checked_by_hand(value: Any, text: str) -> None:
    assert canonical_json(value) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"metrics": {"sharpe_ratio": float("nan")}}, r"^metrics\.sharpe_ratio: NaN is not allowed; use null$"),
        ({"a": [1, {"b": float("-inf")}]}, r"^a\[1\]\.b: -Infinity is not allowed; use null$"),
        ({"a": np.float32("nan")}, r"^a: NaN is not allowed; use null$"),
        ([float("inf")], r"^\[0\]: Infinity is not allowed; use null$"),
        (float("nan"), r"^body: NaN is not allowed"),
        ({"at": datetime(2025, 3, 1, tzinfo=UTC)}, r"^at: datetime is not JSON; give its isoformat\(\)$"),
        ({"day": date(2025, 3, 1)}, r"^day: date is not JSON; give its isoformat\(\)$"),
        ({"at": np.datetime64("2025-03-01", "ns")}, r"^at: datetime64 is not JSON"),
        ({"price": Decimal("1.10")}, r"^price: Decimal is not JSON; give text, a number"),
        ({"all": {1, 2}}, r"^all: set is not JSON"),
        ({"array": np.zeros(3)}, r"^array: ndarray is not JSON"),
        ({"raw": b"x"}, r"^raw: bytes is not JSON"),
        ({"by_hour": {0: 1.5}}, r"^by_hour: key 0 is not valid text; use '0'$"),
        ({"by": {None: 1}}, r"^by: key None is not valid text; use 'None'$"),
        ({"text": "\ud800"}, r"^text: '\\ud800' holds a lone surrogate; give valid Unicode$"),
        ({"a": {"\udfff": 1}}, r"^a: key '\\udfff' is not valid text"),
        ({"n": 10**5000}, r"^n: too many digits; give text$"),
    ],
)
def test_what_is_not_json_is_refused_with_its_path(value: Any, message: str) -> None:
    with pytest.raises(InvalidRecord, match=message):
        canonical_json(value)


def test_a_body_that_holds_itself_is_refused() -> None:
    body: dict[str, Any] = {}
    body["self"] = [body]
    with pytest.raises(InvalidRecord, match=r"^self\[0\]\.self\[0\].*nested deeper than 100 levels$"):
        canonical_json(body)


def test_a_hundred_levels_are_accepted_and_more_are_not() -> None:
    def nested(levels: int) -> list[Any]:
        return [nested(levels - 1)] if levels else []

    assert canonical_json(nested(100)) == "[" * 101 + "]" * 101
    with pytest.raises(InvalidRecord, match="nested deeper"):
        canonical_json(nested(101))


@given(values)
@settings(max_examples=60, deadline=None)
def test_any_json_value_comes_back_identical(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(values)
def test_the_text_is_the_one_that_any_json_library_makes_with_these_settings(value: Any) -> None:
    assert canonical_json(value) == json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


@given(st.dictionaries(st.text(), st.dictionaries(st.text(), scalars)), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_order_of_keys_does_not_matter(body: dict[str, dict[str, Any]], random: Any) -> None:
    def shuffled(document: dict[str, Any]) -> dict[str, Any]:
        return dict(random.sample(sorted(document.items(), key=lambda item: item[0]), len(document)))

    again = shuffled({key: shuffled(inner) for key, inner in body.items()})
    assert canonical_json(again) == canonical_json(body)


def test_digest_and_hash_can_be_recomputed_with_any_sha256() -> None:
    assert content_digest('{"a":"ä"}') == hashlib.sha256('{"a":"ä"}'.encode()).hexdigest()
    fields = f'["{GENESIS}","c",1,"2025-03-01","rsi",2,"{WHEN}","d"]'
    assert link_hash(GENESIS, "c", 1, "2025-03-01", "rsi", 2, WHEN, "d") == hashlib.sha256(fields.encode()).hexdigest()


@pytest.mark.parametrize(
    "entry",
    [
        Entry("2025-03-01", "nul\0", {}),
        Entry("2025-03-01", "\ud800", {}),
        Entry("2025-03-01", SimpleNamespace(), {}),  # type: ignore[arg-type]
        Entry("2025-03-01", "", ["no", "document"]),  # type: ignore[arg-type]
        Entry(date(2025, 3, 1), "", {}),  # type: ignore[arg-type]
    ],
)
def test_entries_that_no_store_could_keep_are_refused(entry: Entry) -> None:
    with pytest.raises(InvalidRecord):
        seal("c", [entry])


def test_a_collection_needs_a_name() -> None:
    with pytest.raises(InvalidRecord, match="collection: ''"):
        seal("", [])


def test_a_sound_chain_has_no_break() -> None:
    assert first_break("c", chain_of({"n": 1}, {"n": 2}, {"n": 3})) is None
    assert first_break("c", []) is None


def test_a_hole_names_the_missing_record() -> None:
    links = chain_of({"n": 1}, {"n": 2}, {"n": 3})
    found = first_break("c", [links[0], links[2]])
    assert found is not None
    assert (found.seq, found.reason) == (2, "record 2 is missing, 3 stands in its place")


def test_a_chain_rewritten_with_correct_hashes_shows_against_a_noted_head() -> None:
    noted = chain_of({"n": 1}, {"n": 2}, {"n": 3})[2][0]
    forged = chain_of({"n": 1}, {"n": 9}, {"n": 3})
    assert first_break("c", forged) is None
    found = first_break("c", forged, [Head("c", 3, noted.hash)])
    assert found is not None
    assert (found.seq, "rewritten" in found.reason) == (3, True)


class Dressed(str):
    """What looks like text and is of another type in its database, as a driver's code or symbol."""


@pytest.mark.parametrize("field", [field for field in Link._fields if field not in ("seq", "revision")])
def test_a_text_of_another_type_is_a_break_even_if_it_says_the_same(field: str) -> None:
    ((link, _),) = chain_of({"n": 1})
    found = first_break("c", [(link._replace(**{field: Dressed(getattr(link, field))}), None)])
    assert found is not None
    assert (found.seq, found.reason) == (1, "a column has another type than it was written with")


@pytest.mark.parametrize("field", ["seq", "revision"])
@pytest.mark.parametrize("value", [True, 1.0])
def test_a_number_of_another_type_is_a_break_even_if_it_is_equal(field: str, value: Any) -> None:
    ((link, _),) = chain_of({"n": 1})
    found = first_break("c", [(link._replace(**{field: value}), None)])
    assert found is not None
    assert (found.seq, found.reason) == (1, "a column has another type than it was written with")


@pytest.mark.parametrize(("revision", "previous_seq"), [(2, None), (1, 1), (2, 3), (0, None), (3, None)])
def test_a_revision_must_follow_an_earlier_one_even_if_its_hash_is_right(
    revision: int, previous_seq: int | None
) -> None:
    (first, _), (second, _) = chain_of({"n": 1}, {"n": 2})
    hash_ = link_hash(first.hash, "c", 2, second.partition, second.key, revision, WHEN, second.digest)
    found = first_break("c", [(first, None), (second._replace(revision=revision, hash=hash_), previous_seq)])
    assert found is not None
    assert (found.seq, found.reason) == (2, f"revision {revision} does not follow an earlier one")
