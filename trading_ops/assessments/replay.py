"""Does a recorded decision come out the same again? Recomputed from its own document alone: no store, no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import ValidationError

from trading_ops.assessments.assessing import decision_id, outcome_of, tokens_of
from trading_ops.assessments.decision import decide
from trading_ops.assessments.evidence import VERSION, Evidence, digest_of
from trading_ops.assessments.prompt import build_prompt, instructions, sha256_of
from trading_ops.assessments.rules import Limits, skipped
from trading_ops.assessments.schema import Assessment
from trading_ops.audit.store import InvalidRecord

SHOWN = 60  # characters of a value that are shown
KINDS = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of it: identical, or the first field that differs, with both values shortened.

    `notes` say what could not be recomputed and is no difference, such as a prompt whose text this release lacks.
    """

    day: str
    decision_id: str
    identical: bool
    difference: str = ""
    notes: tuple[str, ...] = ()


class _Differs(Exception):
    """The first difference, in words."""


@dataclass(slots=True)
class _Document:
    """A document of unknown health: what is missing or of another type is a difference."""

    body: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)

    def get(self, name: str, kind: type, *, null: bool = False) -> Any:
        if name not in self.body:
            raise _Differs(f"{name}: missing")
        value = self.body[name]
        if not (isinstance(value, kind) or (null and value is None)):
            raise _Differs(f"{name}: recorded {_shown(value)}, {KINDS[kind]} would be right")
        return value

    def same(self, name: str, recomputed: Any) -> None:
        if name not in self.body:
            raise _Differs(f"{name}: missing")
        _same(name, self.body[name], recomputed)


def replay(document: Mapping[str, Any]) -> Replay:
    """Recompute what `assessing.assess` put down, as it is recorded; a damaged document is a difference, no error.

    In this order: the evidence and its digest, whether GPT-4 was asked, the prompt, the opinion from the raw reply, the
    decision field by field, its id, and the sums. A prompt of a version that this release lacks is noted.
    """
    opened = _Document(document)
    try:
        _recompute(opened)
        difference = ""
    except _Differs as found:
        difference = str(found)
    # what a field of the right type but with an impossible value, such as a day that is none, leads to
    except (
        ArithmeticError,
        AttributeError,
        InvalidRecord,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        difference = f"cannot be recomputed: {type(error).__name__}: {_cut(str(error), 2 * SHOWN)}"
    names = {name: document.get(name) for name in ("day", "decision_id")}
    said = {name: value if isinstance(value, str) else "" for name, value in names.items()}
    return Replay(**said, identical=not difference, difference=difference, notes=tuple(opened.notes))


def _recompute(document: _Document) -> None:
    evidence = _evidence(document)
    limits = _limits(document)
    why = skipped(evidence, limits)
    prompt, attempts = document.get("prompt", dict, null=True), document.get("attempts", list)
    if why is not None and (prompt is not None or attempts):
        said = "prompt" if prompt is not None else "attempts"
        raise _Differs(f"{said}: recorded, but GPT-4 is not asked about this day ({why})")
    if why is None and prompt is None:
        raise _Differs("prompt: none recorded, but GPT-4 is asked about this day")
    if prompt is not None:
        _prompt(document, prompt, evidence)
    opinion = _opinion(document, attempts, why)
    document.same("outcome", outcome_of(opinion, asked=prompt is not None))
    decision = decide(evidence, opinion, limits)
    recorded = document.get("decision", dict)
    for name, value in decision.document.items():
        if name not in recorded:
            raise _Differs(f"decision.{name}: missing")
        _same(f"decision.{name}", recorded[name], value)
    if unknown := sorted(recorded.keys() - decision.document.keys()):
        raise _Differs(
            f"decision.{unknown[0]}: recorded {_shown(recorded[unknown[0]])}, this release has no such field"
        )
    document.same("decision_id", decision_id(evidence, opinion, decision))
    document.same("cost_usd", sum(attempt.get("cost_usd") or 0.0 for attempt in attempts))
    document.same("tokens", tokens_of(attempts))


def _evidence(document: _Document) -> Evidence:
    recorded = document.get("evidence", dict)
    if recorded.get("version") != VERSION:
        said = _shown(recorded.get("version"))
        raise _Differs(f"evidence.version: recorded {said}, this release reads version {VERSION}")
    try:
        evidence = Evidence.model_validate(recorded)
    except ValidationError as error:
        raise _Differs(f"evidence{_first(error)}") from error
    document.same("evidence_digest", digest_of(recorded))
    if evidence.digest != digest_of(recorded):  # such as a number that was written as a text
        for name, value in evidence.model_dump(mode="json").items():
            _same(f"evidence.{name}", recorded.get(name), value)
    document.same("day", evidence.day)
    document.same("candles", evidence.candles)
    return evidence


def _limits(document: _Document) -> Limits:
    recorded = document.get("limits", dict)
    known = {one.name for one in fields(Limits)}
    for name, value in sorted(recorded.items()):
        if name not in known:
            raise _Differs(f"limits.{_cut(name)}: this release has no such limit")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _Differs(f"limits.{name}: recorded {_shown(value)}, a number would be right")
    return Limits(**recorded)


def _prompt(document: _Document, recorded: Mapping[str, Any], evidence: Evidence) -> None:
    for name in ("version", "sha256", "system", "user"):
        if not isinstance(recorded.get(name), str):
            raise _Differs(f"prompt.{name}: recorded {_shown(recorded.get(name))}, a text would be right")
    try:
        instructions(recorded["version"])
        _same("prompt.sha256 of the evidence", recorded["sha256"], build_prompt(evidence, recorded["version"]).sha256)
    except KeyError:
        document.notes.append(f"prompt version {_cut(recorded['version'])} is not in this release")
    _same("prompt.sha256 of its texts", recorded["sha256"], sha256_of(recorded["system"], recorded["user"]))


def _opinion(document: _Document, attempts: list[Any], not_asked: str | None) -> Assessment:
    recorded = document.get("opinion", dict)
    try:
        opinion = Assessment.model_validate(recorded)
    except ValidationError as error:
        raise _Differs(f"opinion{_first(error)}") from error
    for place, attempt in enumerate(attempts):
        if not isinstance(attempt, dict):
            raise _Differs(f"attempts.{place}: recorded {_shown(attempt)}, an object would be right")
    valid = [attempt for attempt in attempts if attempt.get("outcome") == "ok"]
    if not_asked is not None:
        said = Assessment.none(f"not asked: {not_asked}")
    elif valid:
        said = _read(valid[-1].get("raw"))
    elif opinion.unavailable is None:
        raise _Differs("opinion: recorded one, but no attempt with a valid reply")
    else:  # why there is none was known to the client alone
        said = Assessment.none(opinion.unavailable)
    for name, value in said.model_dump(mode="json").items():
        _same(f"opinion.{name}", recorded.get(name), value)
    return opinion


def _read(raw: Any) -> Assessment:
    from trading_ops.assessments.schema import parse_reply

    if not isinstance(raw, str):
        raise _Differs(f"attempts: the raw reply is {_shown(raw)}, a text would be right")
    try:
        return parse_reply(raw)
    except ValueError as error:
        raise _Differs(f"opinion: the raw reply is none that is valid ({_cut(str(error))})") from error


def _same(name: str, recorded: Any, recomputed: Any) -> None:
    if digest_of(recorded) != digest_of(recomputed):  # as JSON: 1, 1.0 and true are three values
        raise _Differs(f"{name}: recorded {_shown(recorded)}, recomputed {_shown(recomputed)}")


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False)[0]
    place = "".join(f".{part}" for part in found["loc"])
    return f"{_cut(place)}: recorded {_shown(found['input'])}: {_cut(found['msg'], 2 * SHOWN)}"


def _shown(value: Any) -> str:
    return _cut(repr(value))


def _cut(text: str, most: int = SHOWN) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
