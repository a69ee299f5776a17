"""decide(): what the engine says goes through whole, and anything less becomes IGNORE."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from drift_pipeline.errors import UnavailableError
from drift_pipeline.policy.decide import (
    Action,
    Capacity,
    Decision,
    Facts,
    IncidentFacts,
    RetrainFacts,
    Trigger,
    decide,
)
from drift_pipeline.policy.engines import DECISION, Answer
from drift_pipeline.policy.engines.embedded import PROBE, EmbeddedEngine
from drift_pipeline_tests.contracts.decision_table import PLAIN

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
INCIDENT = IncidentFacts("fraud|sha256:ab", NOW - timedelta(days=1), 24.0, 2000, 1000)
FACTS = Facts(
    model="fraud",
    now=NOW,
    trigger=Trigger.DRIFT,
    incident=INCIDENT,
    kpis=dict.fromkeys(("psi", "range_z", "auroc", "latency_p95_ms", "demographic_parity"), "OK"),
    drifting_features=(),
    performance="auroc",
    fall=0.01,
    fall_allowed=0.05,
    retrain=RetrainFacts(running=False, cooldown_left_hours=0.0, this_month=1, max_per_month=6, rejected_in_a_row=0),
    rollout_active=False,
    paused=False,
)


class Said:
    """An engine that gives one answer, or one error."""

    digest = "sha256:00"

    def __init__(self, answer: Mapping[str, object] | UnavailableError) -> None:
        self.answer = answer

    def evaluate(self, facts: Mapping[str, object], rule: str = DECISION) -> Answer:  # noqa: ARG002
        if isinstance(self.answer, UnavailableError):
            raise self.answer
        return Answer(self.answer, self.digest)


@pytest.mark.parametrize("action", list(Action))
def test_a_whole_answer_is_the_decision(action: Action) -> None:
    decision = decide(FACTS, Said({"action": str(action), "reasons": ["one", "two"]}))
    assert decision == Decision(action, ("one", "two"), "sha256:00")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (UnavailableError("it is down"), "it is down"),
        ({}, "it answered the action None; there are: retrain, hotfix_retrain, suggest, ignore"),
        ({"action": "RETRAIN", "reasons": ["r"]}, "it answered the action 'RETRAIN'"),
        ({"action": ["retrain"], "reasons": ["r"]}, "it answered the action ['retrain']"),
        ({"action": True, "reasons": ["r"]}, "it answered the action True"),
        ({"action": "retrain"}, "it answered 'retrain' with the reasons None"),
        ({"action": "retrain", "reasons": []}, "with the reasons []"),
        ({"action": "retrain", "reasons": "r"}, "with the reasons 'r'"),
        ({"action": "retrain", "reasons": ["r", 1]}, "with the reasons ['r', 1]"),
        ({"action": "retrain", "reasons": [""]}, "with the reasons ['']"),
        ({"action": "retrain", "reasons": ["r"], "capacity": "cheap"}, "it answered the capacity 'cheap'"),
        ({"action": "retrain", "reasons": ["r"], "force": True}, "it answered keys that nobody reads: force"),
    ],
)
def test_anything_less_is_ignored_and_says_why(answer: Mapping[str, object] | UnavailableError, why: str) -> None:
    decision = decide(FACTS, Said(answer))
    assert decision.action is Action.IGNORE
    assert decision.unavailable
    assert decision.policy_digest == "sha256:00"
    (reason,) = decision.reasons
    assert reason.startswith("policy unavailable: ")
    assert why in reason


def test_facts_are_the_document_of_the_decision_table() -> None:
    assert FACTS.to_json() == PLAIN
    assert json.loads(json.dumps(FACTS.to_json())) == PLAIN
    assert replace(FACTS, incident=None).to_json() == {**PLAIN, "incident": None}


def test_the_probe_of_the_embedded_engine_has_the_facts_shape() -> None:
    assert PROBE.keys() == PLAIN.keys()


@pytest.mark.parametrize(
    "wrong",
    [
        {"fall": float("nan")},
        {"fall": float("inf")},
        {"incident": replace(INCIDENT, age_hours=float("nan"))},
        {"now": datetime(2026, 3, 2)},  # noqa: DTZ001
        {"incident": replace(INCIDENT, opened_at=datetime(2026, 3, 2))},  # noqa: DTZ001
    ],
)
def test_facts_refuse_numbers_that_are_none_and_times_without_a_zone(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"not JSON compliant|aware times"):
        replace(FACTS, **wrong)  # type: ignore[arg-type]


def test_on_the_packaged_rules_a_fall_of_auroc_retrains_and_names_the_rules() -> None:
    fallen = replace(FACTS, kpis={**FACTS.kpis, "auroc": "BREACH"}, fall=0.062)
    with EmbeddedEngine() as engine:
        why = ("auroc BREACH: fell 6.20 pp, allowed are 5.00 pp",)
        by = {"engine": "embedded"}
        assert decide(fallen, engine) == Decision(Action.RETRAIN, why, engine.digest, Capacity.SPOT, by)


def test_a_verdict_that_nobody_knows_is_ignored() -> None:
    with EmbeddedEngine() as engine:
        decision = decide(replace(FACTS, kpis={**FACTS.kpis, "auroc": "breach"}), engine)
    assert decision.action is Action.IGNORE
    assert decision.reasons == (
        "policy unavailable: the policy is undefined for these facts: one is missing or of another type",
    )
