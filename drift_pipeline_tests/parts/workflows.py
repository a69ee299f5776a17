"""Argo Workflows: its controller, and the executor that it puts into each pod as an image; built by Go.

The module that the proxy has lacks one file, which is a symbolic link in its repository: a copy is given it.
"""

import shutil
import tempfile
from pathlib import Path

from drift_pipeline_tests.parts import archive
from drift_pipeline_tests.parts.building import BUILD, go_for_minutes, module, whole
from drift_pipeline_tests.parts.cache import HERE, MissingError, installed, pinned
from drift_pipeline_tests.parts.kubernetes import Cluster
from drift_pipeline_tests.parts.machine import Inside

PROGRAMS = ("workflow-controller", "argoexec")
EXECUTOR = f"quay.io/argoproj/argoexec:{pinned('workflows')['version']}"
HEALTH = 6060


def find() -> Path:
    """The folder of both programs and of `crds`. Raises MissingError."""
    if (ours := installed("workflows")).is_dir():
        return ours
    how = "python -m drift_pipeline_tests.parts install workflows"
    raise MissingError(f"no Argo Workflows: {how} builds it, {pinned('workflows')['minutes']} minutes with Go")


def install() -> Path:
    """Build both with Go, where they are not in the cache; needs the module proxy. Raises MissingError."""
    return whole(installed("workflows"), _build)


def _build(folder: Path) -> None:
    pin, here = pinned("workflows"), HERE / "go" / "workflows"
    name = pin["module"]
    with tempfile.TemporaryDirectory(prefix="drift-workflows-") as temporary:
        copy, replaced = Path(temporary, "copy"), Path(temporary, "go.mod")
        shutil.copytree(module("workflows", name), copy)
        signals = copy / "workflow" / "executor" / "osspecific"
        shutil.copyfile(signals / "signal_darwin.go", signals / "signal_linux.go")
        told = (here / "go.mod").read_text(encoding="utf-8")
        replaced.write_text(f"{told}\nreplace {name} => {copy}\n", encoding="utf-8")
        shutil.copyfile(here / "go.sum", replaced.with_name("go.sum"))
        flags = f"-s -w -X {name}.version={pin['version']}"
        packages = [f"{name}/cmd/{program}" for program in PROGRAMS]
        command = [*BUILD, f"-modfile={replaced}", "-ldflags", flags, "-o", f"{folder}/", *packages]
        go_for_minutes("workflows", command, here)
        (folder / "crds").mkdir()
        for crd in (copy / "manifests" / "base" / "crds" / "full").glob("argoproj.io_*.yaml"):
            shutil.copyfile(crd, folder / "crds" / crd.name)


def start(cluster: Cluster) -> Inside:
    """The controller, for all namespaces, with its kinds and its executor's image. Raises MissingError.

    A workflow's service account needs a Role of its own: create and patch `workflowtaskresults`.
    """
    folder = find()
    cluster.define(folder / "crds")
    cluster.namespace("argo")
    off = "{enabled: false}"
    settings = {"metricsConfig": off, "telemetryConfig": off}
    named = {"name": "workflow-controller-configmap", "namespace": "argo"}
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": settings})
    if EXECUTOR not in cluster.containerd.images():
        with tempfile.TemporaryDirectory(dir=cluster.folder) as temporary:
            out = Path(temporary, "argoexec.tar")
            layer = archive.program_layer({"/bin/argoexec": folder / "argoexec"}, Path(temporary, "layer.tar"))
            archive.write(out, EXECUTOR, [layer], {"Entrypoint": ["argoexec"], "Env": ["PATH=/bin"]})
            cluster.containerd.take(out)
    image = (f"--executor-image={EXECUTOR}", "--executor-image-pull-policy=IfNotPresent")
    command = [str(folder / PROGRAMS[0]), f"--kubeconfig={cluster.url}", "--namespace=argo", *image]
    health = f"http://127.0.0.1:{HEALTH}/healthz"
    return cluster.add("workflows", command, health, {"LEADER_ELECTION_DISABLE": "true"})
