"""The gateway's benchmark runs, and what it counts agrees."""

import pytest

from drift_pipeline_tests.benchmarks import graph, hostile
from drift_pipeline_tests.benchmarks.gateway import measure


@pytest.mark.live
def test_a_gateway_is_measured_beside_a_bare_endpoint_and_every_answer_is_in_the_spool() -> None:
    found, answered, spooled = measure(seconds=1, repeats=1, connections=2, kinds=("bare", "gateway, canary"))
    assert answered == spooled > 0
    assert found["gateway, canary"].requests_per_second > found["bare"].requests_per_second


@pytest.mark.live
def test_a_hostile_caller_is_refused_and_costs_the_gateway_no_memory() -> None:
    kinds = ("4 M nested numbers", "half requests without a key", "pipelined requests without a key")
    found, (before, peak) = hostile.measure(kinds, rounds=1, seconds=2, rate=30)
    assert set(found["4 M nested numbers", 10_000].told) == {"413"}
    assert found["half requests without a key", 10].told["begun"] > 0
    assert peak - before < 100


@pytest.mark.live
@pytest.mark.slow
def test_a_graph_is_measured_beside_one_pipeline() -> None:
    found = graph.measure(seconds=1, rounds=1, connections=2)
    assert all(rate > 0 for kind in graph.KINDS for rate in graph.ratios(found, kind))
    assert graph.ratios(found, "one pipeline") == (1.0, 1.0)
    assert 1 < found.alone_us["two steps"] / found.alone_us["one pipeline"] < 5
