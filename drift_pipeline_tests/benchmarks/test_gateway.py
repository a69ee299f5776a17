"""The gateway's benchmark runs, and what it counts agrees."""

import pytest

from drift_pipeline_tests.benchmarks.gateway import measure


@pytest.mark.live
def test_a_gateway_is_measured_beside_a_bare_endpoint_and_every_answer_is_in_the_spool() -> None:
    found, answered, spooled = measure(seconds=1, repeats=1, connections=2, kinds=("bare", "gateway, canary"))
    assert answered == spooled > 0
    assert found["gateway, canary"].requests_per_second > found["bare"].requests_per_second
