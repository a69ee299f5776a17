"""Every PolicyEngine decides by the same table and refuses the same way."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from drift_pipeline.errors import UnavailableError
from drift_pipeline.policy.engines import PolicyEngine, read_bundle
from drift_pipeline.policy.engines.embedded import EmbeddedEngine
from drift_pipeline_tests.contracts.decision_table import PLAIN, ROWS, Row


@pytest.fixture(scope="module", params=["embedded"])
def engine(request: pytest.FixtureRequest) -> Iterator[PolicyEngine]:
    match request.param:
        case "embedded":
            with EmbeddedEngine() as embedded:
                yield embedded


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.claim)
def test_it_decides_by_the_table(engine: PolicyEngine, row: Row) -> None:
    if row.action is None:
        with pytest.raises(UnavailableError, match="undefined"):
            engine.evaluate(row.document)
    else:
        assert engine.evaluate(row.document) == {"action": row.action, "reasons": row.reasons}


def test_a_refusal_does_not_change_the_next_answer(engine: PolicyEngine) -> None:
    with pytest.raises(UnavailableError):
        engine.evaluate({})
    assert engine.evaluate(PLAIN) == {"action": "ignore", "reasons": ["nothing drifts any more"]}


def test_threads_that_ask_at_once_get_their_own_answers(engine: PolicyEngine) -> None:
    rows = [row for row in ROWS if row.action is not None]
    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = list(pool.map(lambda row: engine.evaluate(row.document), rows))
    assert answers == [{"action": row.action, "reasons": row.reasons} for row in rows]


def test_its_digest_names_the_packaged_rules(engine: PolicyEngine) -> None:
    assert engine.digest == read_bundle().digest
