"""Files of deploy/ that name each other's parts: each input of Vector's is a component that is there."""

from pathlib import Path
from typing import Any

import yaml

VECTOR: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "deploy" / "vector" / "vector.yaml").read_text())


def outputs() -> set[str]:
    """Of sources and transforms, named ones included."""
    plain = {*VECTOR["sources"], *VECTOR["transforms"]} - {"otlp"}
    dropped = {f"{name}.dropped" for name, one in VECTOR["transforms"].items() if one["reroute_dropped"]}
    return plain | dropped | {f"otlp.{signal}" for signal in ("logs", "metrics", "traces")}


def test_vectors_inputs_and_tests_name_components_that_are_there_and_no_output_is_lost() -> None:
    taken = [name for kind in ("transforms", "sinks") for one in VECTOR[kind].values() for name in one["inputs"]]
    assert set(taken) <= outputs()
    assert {name for name in outputs() if not name.startswith("otlp.")} <= set(taken)
    assert {one["extract_from"] for test in VECTOR["tests"] for one in test["outputs"]} == {"events", "events.dropped"}
    assert {one["insert_at"] for test in VECTOR["tests"] for one in test["inputs"]} == {"events"}
