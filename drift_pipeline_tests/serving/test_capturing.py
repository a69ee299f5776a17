"""Which names sources have in the lake of a home that several machines share."""

import pytest

from drift_pipeline.serving.capturing import is_shared


@pytest.mark.parametrize(
    ("source", "shared"),
    [
        ("gateway", False),
        ("otlp", False),
        ("kafka.drift.6b1f.0", True),
        ("kafka.drift.6b1f.0.read", True),
        ("kafka.drift.waiting.6b1f.11", True),
        ("kafka.drift.6b1f.0.waiting", False),
        ("kafka.drift.6b1f.0.waiting.fraud", False),
    ],
)
def test_a_partition_is_of_all_machines_and_what_was_set_aside_of_one(source: str, shared: bool) -> None:
    assert is_shared(source) == shared
