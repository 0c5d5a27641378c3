"""Does the page hear GPT-4 only while its word came true? The asset, over a real store."""

from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import dagster as dg

from trading_ops.assessments.schema import Assessment
from trading_ops.audit.store import Entry
from trading_ops.defs.assessments import gpt4_assessment
from trading_ops.defs.resources import AuditIOManager
from trading_ops.services import Services
from trading_ops_tests.assessments.examples import opinion
from trading_ops_tests.conftest import NEWEST


def measured(services: Services, day: str) -> None:
    """The asset on one day; nobody answers where GPT-4 is asked."""
    none = SimpleNamespace(assessment=Assessment.none("no OPENAI_API_KEY"), attempts=())
    services.adviser = SimpleNamespace(consult=lambda *_: none)
    resources: dict[str, Any] = {"services": services, "audit": AuditIOManager(services)}
    assert dg.materialize([gpt4_assessment], partition_key=day, resources=resources).success


def wrong_for_weeks(services: Services) -> None:
    """Thirty days on which it was sure that nothing is due, and a retrain was."""
    for back in range(1, 31):
        day = str(date.fromisoformat(NEWEST) - timedelta(days=back))
        body = {"source": services.bot.source, "opinion": opinion("wait", 0.95).model_dump(mode="json"),
                "decision": {"due": True, "action": "wait", "gpt_vetoes": False, "veto_expired": False},
                "decision_id": f"{day}-0123456789", "evidence": {"present": True}}  # fmt: skip
        services.store.append("gpt4_analysis_history", [Entry(day, "", body)])


def adviser(services: Services, day: str) -> dict[str, Any]:
    (record,) = services.store.read("gpt4_analysis_history", partitions=[day])
    return record.body["evidence"]["adviser"]


def test_an_adviser_that_was_wrong_for_weeks_is_advisory_in_the_evidence_and_noted(services: Services):
    wrong_for_weeks(services)
    measured(services, NEWEST)
    found = adviser(services, NEWEST)
    assert (found["standing"], found["scored"]) == ("advisory", 23)
    assert "Brier score 0.902" in found["why"]
    (noted,) = services.store.read("adviser_standings", all_revisions=True)
    assert (noted.partition, noted.body["standing"], noted.body["before"]) == (NEWEST, "advisory", "deciding")


def test_a_run_of_past_days_judges_nobody(services: Services):
    wrong_for_weeks(services)
    past = str(date.fromisoformat(NEWEST) - timedelta(days=31))
    measured(services, past)
    assert adviser(services, past)["standing"] == "deciding"
    assert services.store.read("adviser_standings") == []


def test_without_opinions_it_is_said_how_many_are_known(services: Services):
    measured(services, NEWEST)
    assert adviser(services, NEWEST)["why"] == "0 of 20 opinions scored"
    assert services.store.read("adviser_standings") == []
