"""Every PolicyEngine decides by the same tables and refuses the same way: embedded, and a real OPA server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_pipeline.clock import SystemClock
from drift_pipeline.errors import UnavailableError
from drift_pipeline.policy.engines import DECISION, RELEASE, PolicyEngine, read_bundle
from drift_pipeline.policy.engines.embedded import EmbeddedEngine
from drift_pipeline.policy.engines.opa import OpaEngine
from drift_pipeline_tests.contracts.decision_table import PLAIN, ROWS, STEP, STEPS, Row, StepRow, changed


@pytest.fixture(scope="module", params=["embedded", pytest.param("opa", marks=pytest.mark.live)])
def engine(request: pytest.FixtureRequest) -> Iterator[PolicyEngine]:
    match request.param:
        case "embedded":
            with EmbeddedEngine() as embedded:
                yield embedded
        case "opa":
            yield OpaEngine(request.getfixturevalue("opa_server").url, SystemClock(), timeout_seconds=10)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.claim)
def test_it_decides_by_the_table(engine: PolicyEngine, row: Row) -> None:
    if row.action is None:
        with pytest.raises(UnavailableError, match="undefined"):
            engine.evaluate(row.document)
    else:
        assert engine.evaluate(row.document).value == row.decision


@pytest.mark.parametrize("row", STEPS, ids=lambda row: row.claim)
def test_it_lets_go_on_by_the_table(engine: PolicyEngine, row: StepRow) -> None:
    if row.allow is None:
        with pytest.raises(UnavailableError, match="undefined"):
            engine.evaluate(row.document, RELEASE)
    else:
        assert engine.evaluate(row.document, RELEASE).value == {"allow": row.allow, "reasons": row.reasons}


def test_a_refusal_does_not_change_the_next_answer(engine: PolicyEngine) -> None:
    with pytest.raises(UnavailableError):
        engine.evaluate({})
    assert engine.evaluate(PLAIN).value == {"action": "ignore", "reasons": ["nothing drifts any more"]}


def test_threads_that_ask_at_once_get_their_own_answers(engine: PolicyEngine) -> None:
    rows = [row for row in ROWS if row.action is not None]
    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = list(pool.map(lambda row: engine.evaluate(row.document).value, rows))
    assert answers == [row.decision for row in rows]


def test_its_digest_names_the_packaged_rules(engine: PolicyEngine) -> None:
    assert engine.evaluate(PLAIN).digest == read_bundle().digest


def test_a_rule_that_there_is_not_is_undefined(engine: PolicyEngine) -> None:
    with pytest.raises(UnavailableError):
        engine.evaluate(PLAIN, "nosuch")


VERDICT = st.sampled_from(["OK", "WARN", "BREACH", "INCONCLUSIVE", "NOT_CONFIGURED"])
SHARE = st.none() | st.floats(-1, 1, allow_nan=False, width=32)
COUNT = st.integers(0, 12)
ODD: st.SearchStrategy[Any] = st.sampled_from([None, "1", True, [], {}])  # in the place of anything
FACTS = st.fixed_dictionaries(
    {},
    optional={
        "trigger": st.sampled_from(["drift", "schedule", "operator", "hotfix", "nobody"]),
        "incident": st.none(),
        **{f"kpis.{kpi}": VERDICT for kpi in (*PLAIN["kpis"], "mae", "residuals", "own")},
        "drifting_features": st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)),
        "performance": st.sampled_from(["auroc", "mae", "own"]),
        "fall": SHARE,
        "fall_allowed": SHARE,
        "retrain.running": st.booleans(),
        "retrain.cooldown_left_hours": st.floats(0, 1000, width=32),
        "retrain.this_month": COUNT,
        "retrain.max_per_month": COUNT,
        "retrain.rejected_in_a_row": COUNT | ODD,
        "retrain.gpu_hours_this_month": st.floats(0, 100, width=32) | ODD,
        "retrain.max_gpu_hours": st.none() | COUNT,
        "retrain.candidate": st.sampled_from([None, "v2", 2, []]),
        "rollout_active": st.booleans() | ODD,
        "paused": st.booleans(),
    },
)
STEP_FACTS = st.fixed_dictionaries(
    {},
    optional={
        "step": st.sampled_from(["awaiting_approval", "canary", "full", "rollback", "shadow"]),
        "gates_passed": st.booleans() | ODD,
        "approvals": COUNT | ODD,
        "approvals_wanted": COUNT,
        "weekday": st.sampled_from(["Monday", "Saturday"]),
    },
)


@pytest.fixture(scope="module")
def both(opa_server: Any) -> Iterator[tuple[PolicyEngine, PolicyEngine]]:
    with EmbeddedEngine() as embedded:
        yield embedded, OpaEngine(opa_server.url, SystemClock(), timeout_seconds=10)


def said(engine: PolicyEngine, document: dict[str, Any], rule: str) -> object:
    try:
        return engine.evaluate(document, rule).value
    except UnavailableError as error:
        return "undefined" if "undefined" in str(error) else str(error)


@pytest.mark.live
@settings(max_examples=200)
@given(FACTS)
def test_both_engines_decide_alike(both: tuple[PolicyEngine, PolicyEngine], facts: dict[str, Any]) -> None:
    embedded, opa = (said(engine, changed(PLAIN, facts), DECISION) for engine in both)
    assert embedded == opa


@pytest.mark.live
@settings(max_examples=100)
@given(STEP_FACTS)
def test_both_engines_let_go_on_alike(both: tuple[PolicyEngine, PolicyEngine], facts: dict[str, Any]) -> None:
    embedded, opa = (said(engine, changed(STEP, facts), RELEASE) for engine in both)
    assert embedded == opa
    assert facts.get("step") != "rollback" or embedded == {"allow": True, "reasons": ["back to what answered before"]}
