"""Lanes: what a run is tagged with, so that the queue's limits in dagster.yaml keep slots free for what is urgent.

```
normal   trainings and reports; of ten slots they may fill seven
submit   a proven candidate goes into the shadow; one at a time, for many may come at once
hotfix   an urgent retrain, beside a normal one of the same model
fast     what people do to a rollout: promote, roll back
```
"""

import logging
import multiprocessing
import os
from collections.abc import Mapping
from typing import Any, Self

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext  # where Dagster's guide takes it from
from dagster._grpc.types import ExecuteExternalJobArgs  # what a worker is told is nowhere else
from dagster._serdes import ConfigurableClassData, deserialize_value

from drift_pipeline.components.pods import CONFIG, Pods

log = logging.getLogger(__name__)

MODEL = "drift/model"
DECISION = "drift/decision"  # the retrain that a run carries out
CLAIMED = "drift/claimed"  # the same, once this run, or the one that it retries, took it
TRACE = "drift/trace"  # the id of the trace that the decision is part of
CANDIDATE = "drift/candidate"  # the bundle that a run submits
LANE = "drift/lane"
CAPACITY = "drift/capacity"  # what the policy wants a retrain run on: spot or on_demand, for who places runs
RETRAIN = "drift/retrain"  # one at a time for each value: the model
PRIORITY = "dagster/priority"
NORMAL, HOTFIX = "normal", "hotfix"
ALL_ASSETS = "__ASSET_JOB"  # Dagster's own job; one of ours could not hold models whose days begin at different dates
NICE = 15
FAST = {LANE: "fast", PRIORITY: "20", "dagster/max_runtime": "600"}
SUBMIT = {**FAST, LANE: "submit", PRIORITY: "5"}
_TRAINS = frozenset({"training_dataset", "candidate_model"})


def retrain_tags(model: str, decision_id: str, lane: str, capacity: str | None = None) -> dict[str, str]:
    """Of a run that carries out a decision; a hotfix does not wait for the model's normal retrain."""
    lane_of = {LANE: HOTFIX, PRIORITY: "10"} if lane == HOTFIX else {LANE: NORMAL, RETRAIN: model}
    return {MODEL: model, DECISION: decision_id, **lane_of, **({CAPACITY: capacity} if capacity else {})}


def lacking_tags(run: dg.DagsterRun) -> Mapping[str, str]:
    """What a run that was launched in the UI, by a backfill or by a retry lacks: who gives no lane is in the normal."""
    lane = run.tags.get(LANE, NORMAL)
    trained = {key.path[0] for key in run.asset_selection or () if key.path[-1] in _TRAINS}
    tags = {LANE: lane}
    if lane == NORMAL and len(trained) == 1:
        tags[RETRAIN] = trained.pop()
    return {name: value for name, value in tags.items() if name not in run.tags}


def give_way(run: dg.DagsterRun) -> None:
    """In a worker of a normal run: seven of them on a small machine must not hold up ticks, hotfixes and people.
    Backfills may be hundreds."""
    if run.tags.get(LANE) == NORMAL:
        _be_nice()


def run_of_worker() -> dg.DagsterRun | None:
    """The run for which Dagster's code server began this process; None in every other process."""
    told = [given for given in getattr(multiprocessing.current_process(), "_args", ()) if isinstance(given, str)]
    if len(told) != 1:
        return None
    try:
        asked = deserialize_value(told[0], ExecuteExternalJobArgs)
        assert asked.instance_ref is not None
        with dg.DagsterInstance.from_ref(asked.instance_ref) as instance:
            return instance.get_run_by_id(asked.run_id)
    except Exception:  # of Dagster's inside: whatever it is, the run itself tells it, if it matters
        log.warning("what this process was begun for is not known: all models are loaded", exc_info=True)
        return None


def models_of_run(run: dg.DagsterRun) -> frozenset[str]:
    """The models that it is about, by its assets or its configuration; none where it says none."""
    keys = [*(run.asset_selection or ()), *(check.asset_key for check in run.asset_check_selection or ())]
    ops: Any = run.run_config.get("ops", {})
    configured = (op.get("config", {}).get("model") for op in ops.values())
    return frozenset({key.path[0] for key in keys} | {model for model in configured if isinstance(model, str)})


def steps_apart(run: dg.DagsterRun) -> bool:
    """Whether each of its steps is a pod of its own: a run says so that was asked for with isolation.placed."""
    return "execution" in run.run_config


def _be_nice() -> None:
    if multiprocessing.parent_process() is not None:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)  # of this thread, and of those that it begins from now on


class LanedRunCoordinator(QueuedRunCoordinator[dg.DagsterInstance]):
    """Dagster's queue; every run has a lane before it waits in it, whoever launched it, and on a cluster its pod.

    `pods` in its configuration says which (pods.py); a run that brings `dagster-k8s/config` keeps its own.
    """

    def __init__(
        self, pods: Mapping[str, Any] | None = None, inst_data: ConfigurableClassData | None = None, **queue: Any
    ) -> None:
        """Raises InputError where `pods` is none."""
        self.pods = Pods.read(pods or {})
        super().__init__(inst_data=inst_data, **queue)

    @classmethod
    def config_type(cls) -> Any:
        queue: Any = super().config_type()
        return {**queue, "pods": dg.Field(dict, is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, **config_value)

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        run = context.dagster_run
        lacking = dict(lacking_tags(run))
        tags = {**run.tags, **lacking}
        if CONFIG not in tags:
            lacking |= self.pods.tags(tags[LANE], tags.get(CAPACITY, ""), waits=steps_apart(run))
        if lacking:
            self._instance.add_run_tags(run.run_id, lacking)
        return super().submit_run(context)
