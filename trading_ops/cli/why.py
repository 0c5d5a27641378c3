"""`trading-ops decisions why`: what was a day's decision based on, who took it, and what happened after?"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli.terminal import Json, fail, open_services, reported, show, show_json, show_table

if TYPE_CHECKING:
    from trading_ops.assessments.evidence import Evidence
    from trading_ops.assessments.schema import Assessment
    from trading_ops.audit.store import Record

LONGEST = 2000  # characters of what GPT-4 says that anybody reads
NAMED = 10  # days that are named where another was asked for


def why(
    day: Annotated[str | None, typer.Argument(help="A UTC day, such as 2025-03-01; default the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Explain a day's decision: its evidence, both opinions, the rule that settled it, and what happened after."""
    from trading_ops.assessments.aftermath import aftermath
    from trading_ops.assessments.past import COLLECTION
    from trading_ops.assessments.replay import replay

    store = open_services().store
    with reported():
        revisions = store.read(COLLECTION, all_revisions=True)
        chosen = _of_the_day(revisions, day)
        if not chosen:
            show_json(None) if as_json else show("nothing recorded: gpt4_self_analysis decides daily at 03:00 UTC")
            return
        record = chosen[-1]
        ids = [str(one.body.get("decision_id")) for one in chosen]
        after = aftermath(store, record.partition, ids, str(record.body.get("source")))
    again = replay(record.body)
    if as_json:
        show_json({"document": record.body, "revision": record.revision, "after": after, "replay": asdict(again)})
        return
    _show(record, after)
    came = "identical" if again.identical else f"DIFFERENT, {again.difference}"
    _say("Recomputed from the record", "; ".join([came, *again.notes]))


def _of_the_day(revisions: Sequence[Record], day: str | None) -> list[Record]:
    """All revisions of the day's decision, of the newest day by default; exits 2 where that day has none."""
    days = sorted({record.partition for record in revisions})
    if day is None and not days:
        return []
    if day is None:
        return [record for record in revisions if record.partition == days[-1]]
    try:
        wanted = str(date.fromisoformat(day))
    except ValueError:
        fail(f"DAY {day!r} is no day: one such as {days[-1] if days else '2025-03-01'} would be right", code=2)
    if wanted not in days:
        fail(f"no decision is recorded of {wanted}; {_named(days)}", code=2)
    return [record for record in revisions if record.partition == wanted]


def _named(days: Sequence[str]) -> str:
    if not days:
        return "there is none of any day"
    earlier = f", and {len(days) - NAMED} from {days[0]} on" if len(days) > NAMED else ""
    return f"there are those of {', '.join(days[: -NAMED - 1 : -1])}{earlier}"


def _show(record: Record, after: Mapping[str, Any]) -> None:
    """The whole page; a document that cannot be read ends with words."""
    from pydantic import TypeAdapter, ValidationError

    from trading_ops.assessments.decision import Decision
    from trading_ops.assessments.evidence import Evidence
    from trading_ops.assessments.schema import Assessment

    body = record.body
    try:
        evidence, opinion = Evidence.model_validate(body["evidence"]), Assessment.model_validate(body["opinion"])
        decision = TypeAdapter(Decision).validate_python(body["decision"])
        decision_id, candles = body["decision_id"], body["candles"]
    except (KeyError, ValidationError) as error:
        said = f"{type(error).__name__}: {error}"
        fail(f"the decision of {record.partition} cannot be read ({_line(said)}); --json shows what is there,"
             " trading-ops audit verify whether it is as it was written", code=1)  # fmt: skip
    again = f", revision {record.revision}" if record.revision > 1 else ""
    _say(f"{record.partition}: {decision.action}", f"{decision.why} ({candles} candles)")
    _say("Decided by", f"{decision.decided_by}, rule {decision.rule}, decision {decision_id}{again}")
    _say("To be trained anew", ", ".join(decision.models) or "nothing")
    for note in decision.notes:
        _say("Note", note)
    _say(
        "Rules alone",
        f"{decision.rules_alone}; due: {'; '.join(decision.due_because) or 'nothing'};"
        f" too old: {'; '.join(decision.aged) or 'none'}",
    )
    _say("Allowed", "yes" if decision.allowed else f"no: {'; '.join(decision.blocked)}")
    _show_opinion(opinion, evidence, decision)
    _say("Missing", "; ".join(evidence.missing) or "nothing")
    _show_evidence(evidence)
    _show_after(after, decision_id)


def _show_opinion(opinion: Assessment, evidence: Evidence, decision: Any) -> None:
    if opinion.unavailable is not None:
        _say("GPT-4", f"no opinion: {opinion.unavailable}")
        return
    counts = {"says retrain": decision.gpt_says_retrain, "holds back": decision.gpt_vetoes,
              "held back for 7 days, no longer": decision.veto_expired}  # fmt: skip
    effect = ", ".join(name for name, is_so in counts.items() if is_so) or "moves nothing"
    said = f"{opinion.recommendation}, confidence {opinion.confidence:.2f}, urgency {opinion.urgency}: {effect}"
    agreed = {True: "; agrees with the rules", False: "; disagrees with the rules"}.get(decision.agreed, "")
    _say("GPT-4", said + agreed)
    if evidence.adviser.standing != "deciding":
        _say("Its word", f"does not count: {evidence.adviser.why}")
    for heading, text in (("It says", opinion.reasoning), ("It expects", opinion.estimated_improvement or "")):
        if text:
            _say(heading, f'"{text}"')
    for action in opinion.suggested_actions:
        _say("It suggests", f'"{action}"')


def _show_evidence(evidence: Evidence) -> None:
    from trading_ops.performance.intervals import wilson_interval

    rows: list[list[Any]]
    drifted: dict[bool | None, str] = {True: "yes", False: "no"}
    if evidence.days:
        rows = [
            [
                day.day,
                _share(day.wins, day.trades, wilson_interval(day.wins, day.trades)),
                _accuracy(day.accuracy, day.accuracy_n),
            ]
            for day in evidence.days
        ]
        show_table("the days, with 95 % intervals", ["day", "won % of trades", "right % of predictions"], rows)
        rows = [
            [day.day, day.window_trades, _span(day.window_win_rate_pct, day.window_win_rate_interval_pct, 1),
             _span(day.window_avg_profit_pct, day.window_avg_profit_interval_pct, 2),
             _give(day.window_sharpe_ratio, day.window_sharpe_standard_error)]
            for day in evidence.days
        ]  # fmt: skip
        columns = ["until", "trades", "won %", "profit %", "Sharpe"]
        show_table("the seven days ending with each", columns, rows)
    for breach in evidence.breaches:
        sure = "confirmed" if breach.confirmed else "may be chance"
        _say("Critical", f"{breach.strategy}: {breach.metric} {_span(breach.value, breach.interval, 2)},"
                         f" limit {breach.limit:g}, {sure}")  # fmt: skip
    if evidence.models:
        rows = [
            [model.name, f"{model.age_days:.1f}", model.new_bars, _accuracy(model.accuracy_7d, model.n_7d),
             _span(model.drop_7d_pp, model.drop_7d_interval_pp, 1),
             drifted.get(model.drift)]
            for model in evidence.models
        ]  # fmt: skip
        show_table(
            "models: days and bars since they were trained, the last 7 days",
            ["model", "days", "bars", "right %", "fell, points", "drift"],
            rows,
        )
    if evidence.market:
        rows = [
            [of.symbol, of.bars_7d, *(_number(value, 2) for value in (
                of.volatility_24h_pct, of.volatility_7d_pct, of.change_24h_pct, of.change_7d_pct, of.volume_ratio))]
            for of in evidence.market
        ]  # fmt: skip
        columns = ["symbol", "bars", "vol. 24 h %", "vol. 7 d %", "24 h %", "7 d %", "volume"]
        show_table("market", columns, rows)


def _show_after(after: Mapping[str, Any], decision_id: str) -> None:
    for one in after["retrains"]:
        earlier = "" if one["decision_id"] == decision_id else f", by the earlier decision {one['decision_id']}"
        _say(f"Retrained {one['name']}", f"{one['outcome']}{earlier}: {one['why']}")
        scores = one["scores"] if isinstance(one["scores"], dict) else {}
        for who, found in scores.items():
            if isinstance(found, dict):
                told = {name: found.get(name) for name in ("n", "accuracy", "brier")}
                _say(f"Scores of the {who}", ", ".join(f"{name} {_number(value, 4)}" for name, value in told.items()))
    if not after["retrains"]:
        _say("Retrained", "nothing is recorded")
    rows = [
        [day["day"], day["window_trades"], _span(day["window_win_rate_pct"], day["window_win_rate_interval_pct"], 1),
         _accuracy(day["accuracy"], day["accuracy_n"])]
        for day in after["days"]
    ]  # fmt: skip
    if rows:
        show_table("what happened after", ["until", "trades 7 d", "won % 7 d", "right % of the day"], rows)
    else:
        _say("The days after", "none is recorded yet")


def _say(heading: str, text: str) -> None:
    """One paragraph of 80 columns at most; what others say is data, which no terminal obeys."""
    typer.echo(textwrap.fill(f"{_line(heading, 80)}: {_line(text)}", 80, subsequent_indent="    "))


def _line(text: str, most: int = LONGEST) -> str:
    from trading_ops.notifications.text import fit, one_line

    return fit(one_line(text), most)


def _number(value: Any, digits: int) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def _span(value: Any, interval: Iterable[Any] | None, digits: int) -> str | None:
    said = _number(value, digits)
    ends = [end for part in interval or () if (end := _number(part, digits)) is not None]
    return f"{said} [{', '.join(ends)}]" if said is not None and len(ends) == 2 else said


def _share(part: int, whole: int, interval: tuple[float, float] | None) -> str | None:
    if interval is None:
        return None
    return f"{_span(100 * part / whole, [100 * end for end in interval], 0)} of {whole}"


def _accuracy(share: Any, n: Any) -> str | None:
    return None if (said := _number(share and 100 * share, 1)) is None else f"{said} of {n}"


def _give(value: float | None, standard_error: float | None) -> str | None:
    said, error = _number(value, 2), _number(standard_error, 1)
    return said if said is None or error is None else f"{said} ± {error}"
