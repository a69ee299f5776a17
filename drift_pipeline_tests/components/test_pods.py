"""Pods: a run's lane and capacity become what dagster-k8s asks of the cluster."""

import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from drift_pipeline.components.lanes import CAPACITY, FAST, LANE, retrain_tags
from drift_pipeline.components.pods import CONFIG, Pods
from drift_pipeline.errors import InputError
from drift_pipeline_tests.components.daemon import FROM_A_FOLDER, ROOT
from drift_pipeline_tests.components.test_lanes import submitted

pytestmark = FROM_A_FOLDER
SPOT = {"key": "spot", "operator": "Exists"}
GIVEN: dict[str, Any] = {
    "lanes": {
        "normal": {"resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "8Gi"}}},
        "hotfix": {"priority_class": "urgent", "node_selector": {"pool": "on-demand"}},
    },
    "capacities": {
        "spot": {"node_selector": {"pool": "spot"}, "tolerations": [SPOT], "resources": {"limits": {"gpu": 1}}},
    },
}


def asked(lane: str, capacity: str = "") -> Any:
    return json.loads(Pods.read(GIVEN).tags(lane, capacity).get(CONFIG, "{}"))


@pytest.mark.parametrize(
    ("lane", "capacity", "config"),
    [
        ("fast", "", {}),
        ("fast", "spot", asked("", "spot")),
        (
            "hotfix",
            "on_demand",
            {"pod_spec_config": {"node_selector": {"pool": "on-demand"}, "priority_class_name": "urgent"}},
        ),
        ("normal", "", {"container_config": {"resources": GIVEN["lanes"]["normal"]["resources"]}}),
        (
            "normal",
            "spot",
            {
                "container_config": {
                    "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "8Gi", "gpu": 1}}
                },
                "pod_spec_config": {"node_selector": {"pool": "spot"}, "tolerations": [SPOT]},
            },
        ),
    ],
)
def test_a_capacity_asks_over_what_the_lane_asks(lane: str, capacity: str, config: Any) -> None:
    assert asked(lane, capacity) == config


def test_a_pod_tolerates_what_either_does_once() -> None:
    both = Pods.read({"lanes": {"normal": {"tolerations": [SPOT]}}, "capacities": {"spot": {"tolerations": [SPOT]}}})
    assert json.loads(both.tags("normal", "spot")[CONFIG])["pod_spec_config"]["tolerations"] == [SPOT]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"lanes": {"urgent": {}}}, r"lanes\.urgent"),
        ({"lanes": {"normal": {"nodeSelector": {}}}}, r"lanes\.normal\.nodeSelector"),
        ({"capacities": {"spot": {"resources": {"requests": "2"}}}}, r"capacities\.spot\.resources\.requests"),
    ],
)
def test_what_cannot_be_used_is_named(given: Any, told: str) -> None:
    with pytest.raises(InputError, match=rf"run_coordinator\.config\.pods: {told}"):
        Pods.read(given)


def test_the_queue_tags_a_run_with_its_pod_and_leaves_who_brings_one_alone(tmp_path: Path) -> None:
    told = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    told["run_coordinator"]["config"] = {"pods": GIVEN}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        plain, fast = submitted(instance, {}), submitted(instance, FAST)
        spot = submitted(instance, retrain_tags("m", "d1", "normal", "spot"))
        own = submitted(instance, {CONFIG: '{"container_config": {}}'})
        tags = {
            run.run_id: dict(found.tags)
            for run in (plain, fast, spot, own)
            if (found := instance.get_run_by_id(run.run_id))
        }
    assert tags[plain.run_id][LANE] == "normal"
    assert json.loads(tags[plain.run_id][CONFIG]) == asked("normal")
    assert CONFIG not in tags[fast.run_id]
    assert tags[spot.run_id][CAPACITY] == "spot"
    assert json.loads(tags[spot.run_id][CONFIG]) == asked("normal", "spot")
    assert tags[own.run_id][CONFIG] == '{"container_config": {}}'


def test_a_queue_without_pods_tags_none(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert CONFIG not in submitted(instance, {}).tags
