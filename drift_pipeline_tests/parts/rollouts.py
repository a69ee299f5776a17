"""Argo Rollouts: its controller, built by Go, which runs beside a cluster with an administrator's rights."""

import shutil
from pathlib import Path

from drift_pipeline_tests.parts.building import BUILD, go_for_minutes, module, whole
from drift_pipeline_tests.parts.cache import HERE, MissingError, installed, pinned
from drift_pipeline_tests.parts.kubernetes import Cluster
from drift_pipeline_tests.parts.machine import Inside

PROGRAM = "rollouts-controller"
METRICS, HEALTH = 18090, 18091


def find() -> Path:
    """The folder of the controller and of its `crds`. Raises MissingError."""
    if (ours := installed("rollouts")).is_dir():
        return ours
    how = "python -m drift_pipeline_tests.parts install rollouts"
    raise MissingError(f"no Argo Rollouts: {how} builds it, {pinned('rollouts')['minutes']} minutes with Go")


def install() -> Path:
    """Build it with Go, where it is not in the cache; needs the module proxy. Raises MissingError."""
    return whole(installed("rollouts"), _build)


def _build(folder: Path) -> None:
    name = pinned("rollouts")["module"]
    command = [*BUILD, "-ldflags", "-s -w", "-o", f"{folder}/", f"{name}/cmd/{PROGRAM}"]
    go_for_minutes("rollouts", command, HERE / "go" / "rollouts")
    (folder / "crds").mkdir()
    for crd in (module("rollouts", name) / "manifests" / "crds").glob("*-crd.yaml"):
        shutil.copyfile(crd, folder / "crds" / crd.name)


def start(cluster: Cluster) -> Inside:
    """The controller, for all namespaces, with its kinds. Raises MissingError."""
    folder = find()
    cluster.define(folder / "crds")
    cluster.namespace("argo-rollouts")
    options = ("--leader-elect=false", "--namespace=argo-rollouts", "--istio-api-version=v1")
    ports = (f"--metricsport={METRICS}", f"--healthzPort={HEALTH}")
    command = [str(folder / PROGRAM), f"--kubeconfig={cluster.url}", *options, *ports]
    return cluster.add("rollouts", command, f"http://127.0.0.1:{HEALTH}/healthz")
