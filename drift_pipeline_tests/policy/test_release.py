"""may_release(): a rollout goes on only where the policy says so in whole."""

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from drift_pipeline.errors import UnavailableError
from drift_pipeline.policy.engines.embedded import EmbeddedEngine
from drift_pipeline.policy.release import Permission, Step, may_release
from drift_pipeline_tests.contracts.decision_table import STEP
from drift_pipeline_tests.policy.test_decide import Said

STEP_FORWARD = Step("fraud", datetime(2026, 3, 2, 12, tzinfo=UTC), "canary", "production", None, True, 1, 1)


def test_the_step_is_the_document_of_the_table() -> None:
    assert STEP_FORWARD.to_json() == STEP


def test_the_packaged_rules_allow_what_gates_and_people_allow() -> None:
    with EmbeddedEngine() as engine:
        found = may_release(STEP_FORWARD, engine)
    assert found == Permission(True, ("gates and people allow canary",), engine.digest, {"engine": "embedded"})


@pytest.mark.parametrize(
    "answer",
    [
        UnavailableError("it is down"),
        {},
        {"allow": True},
        {"allow": True, "reasons": []},
        {"allow": "true", "reasons": ["r"]},
        {"allow": 1, "reasons": ["r"]},
        {"reasons": ["r"]},
    ],
)
def test_anything_less_holds_and_says_why(answer: Mapping[str, object] | UnavailableError) -> None:
    found = may_release(STEP_FORWARD, Said(answer))
    assert not found.allowed
    assert found.reasons[0].startswith("policy unavailable: ")
