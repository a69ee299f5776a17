"""A candidate outside of the changes that people foresaw wants a review; one within does not."""

from dataclasses import replace
from typing import Any

import pytest

from drift_pipeline.errors import SpecError
from drift_pipeline.spec import ModelSpec, spec_of
from drift_pipeline.training.envelope import REVIEW, Change, envelope_gate, feature_schema
from drift_pipeline.training.gates import Outcome
from drift_pipeline_tests.evidence.worlds import DECLARED

FEATURES = {"amount": "numeric", "country": "categorical"}
ENVELOPE: dict[str, Any] = {
    "feature_schema": feature_schema(FEATURES),
    "trainers": ["gradient_boosting"],
    "hyperparameters": {"learning_rate": [0.01, 0.3], "loss": ["log_loss"]},
    "data_sources": ["history", "stable"],
    "floors": {"performance": 0.7, "parity_gap": 0.1},
}
INSIDE = Change(FEATURES, ("gradient_boosting",), {"learning_rate": 0.1, "loss": "log_loss"}, ("stable",), 0.75, 0.05)


def spec(envelope: dict[str, Any] | None = ENVELOPE, **risk: Any) -> ModelSpec:
    return spec_of({**DECLARED, "declarations": {"risk": risk, "change_envelope": envelope}})


def test_a_candidate_within_the_envelope_passes() -> None:
    found = envelope_gate(INSIDE, spec())
    assert found is not None
    assert (found.name, found.outcome) == ("change_envelope", Outcome.PASS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": {**FEATURES, "age": "numeric"}}, "the features are sha256:"),
        ({"features": {"amount": "categorical", "country": "categorical"}}, "the features are sha256:"),
        ({"trainers": ("logistic_regression",)}, "the trainer logistic_regression is none of gradient_boosting"),
        ({"params": {"learning_rate": 0.31, "loss": "log_loss"}}, "learning_rate is 0.31, not within [0.01, 0.3]"),
        ({"params": {"loss": "log_loss"}}, "learning_rate is None"),
        ({"params": {"learning_rate": True, "loss": "log_loss"}}, "learning_rate is True"),
        ({"params": {"learning_rate": "0.1", "loss": "log_loss"}}, "learning_rate is 0.1, not within"),
        ({"params": {"learning_rate": float("nan"), "loss": "log_loss"}}, "learning_rate is nan"),
        ({"params": {"learning_rate": 0.1, "loss": "hinge"}}, "loss is hinge"),
        ({"data_sources": ("stable", "canary")}, "rows came by canary"),
        ({"data_sources": None}, "where its rows came from is not known"),
        ({"performance": 0.69}, "AUROC is 0.6900, where 0.7 is declared"),
        ({"performance": None}, "AUROC is not known"),
        ({"parity_gap": 0.11}, "the gap between groups is 0.1100"),
        ({"parity_gap": None}, "the gap between groups is not known"),
        ({"performance": float("nan")}, "AUROC is nan"),
    ],
)
def test_what_is_outside_or_not_known_wants_a_review(change: dict[str, Any], said: str) -> None:
    found = envelope_gate(replace(INSIDE, **change), spec())
    assert found is not None
    assert found.outcome is Outcome.FAIL
    assert found.reason.startswith(f"{REVIEW}: ")
    assert said in found.reason


def test_of_a_regression_the_floor_is_the_largest_error() -> None:
    declared = {
        **DECLARED,
        "task": "regression",
        "outcome": {"column": "fraud"},
        "declarations": {"change_envelope": {"floors": {"performance": 2.0}}},
    }
    for error, outcome in ((1.9, Outcome.PASS), (2.1, Outcome.FAIL)):
        found = envelope_gate(replace(INSIDE, performance=error), spec_of(declared))
        assert found is not None
        assert found.outcome is outcome


def test_what_the_envelope_leaves_out_is_not_bounded() -> None:
    found = envelope_gate(Change({}, ("any",), {}, None, None, None), spec({}))
    assert found is not None
    assert found.outcome is Outcome.PASS


def test_without_an_envelope_only_a_high_risk_system_wants_a_review() -> None:
    for profile in ("limited_risk", "public_deployer", "art6_3_exempt"):
        assert envelope_gate(INSIDE, spec(None, profile=profile)) is None
    found = envelope_gate(INSIDE, spec(None, profile="high_risk"))
    assert found is not None
    assert found.outcome is Outcome.UNKNOWN
    assert found.reason.startswith(REVIEW)


@pytest.mark.parametrize(
    ("envelope", "said"),
    [
        ({"hyperparameters": {"learning_rate": [0.3, 0.1]}}, r"\[0.3, 0.1\] is no range"),
        ({"hyperparameters": {"learning_rate": []}}, "hyperparameters"),
        ({"hyperparameters": {"learning_rate": [0.1]}}, "hyperparameters"),
        ({"feature_schema": "abc"}, "feature_schema"),
        ({"floor": {}}, "unknown key; did you mean 'floors'"),
        ({"floors": {"parity_gap": 2}}, "floors.parity_gap"),
    ],
)
def test_an_envelope_that_bounds_nothing_sensible_is_refused(envelope: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        spec(envelope)
