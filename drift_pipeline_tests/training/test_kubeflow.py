"""The pipeline that Kubeflow is given: compiled by kfp and run by its own local runner, where kfp is installed.

It has an extra of its own and is not in `test`. For these tests `pip install --no-deps --target DIR kfp
kfp-pipeline-spec kfp-server-api docstring-parser click-option-group`, with DIR in PYTHONPATH, is enough.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from drift_pipeline.errors import InputError
from drift_pipeline.training.runners.declared import Place
from drift_pipeline.training.runners.kubeflow import KubeflowRunner, compiled

LOCALLY = """
import sys
from kfp import local
from drift_pipeline.training.runners.declared import Place
from drift_pipeline.training.runners.kubeflow import pipeline
local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[1])
place = Place(image="drift:1", search_workers=2, retries=0, command=("sh", "-c", sys.argv[2], "drift"))
pipeline(place)(model="fraud", decision="fraud-7")
"""


def test_it_wants_a_server() -> None:
    with pytest.raises(InputError, match="kubeflow wants a server"):
        KubeflowRunner(Place(image="drift:1"))


@pytest.mark.live
def test_the_compiled_pipeline_has_the_steps_in_order(tmp_path: Path) -> None:
    pytest.importorskip("kfp", reason="kfp is not installed: extra kubeflow", exc_type=ImportError)
    compiled(Place(image="drift:1", search_workers=2, retries=3), tmp_path / "pipeline.yaml", gpus=2)
    (document, *_) = yaml.safe_load_all((tmp_path / "pipeline.yaml").read_text())
    tasks: dict[str, Any] = document["root"]["dag"]["tasks"]
    after = {
        one["taskInfo"]["name"]: sorted(tasks[name]["taskInfo"]["name"] for name in one.get("dependentTasks", ()))
        for one in tasks.values()
    }
    assert after == {
        "pin": [],
        "search 0": ["pin"],
        "search 1": ["pin"],
        "fit": ["search 0", "search 1"],
        "prove": ["fit"],
        "register": ["prove"],
    }
    assert {one["retryPolicy"]["maxRetryCount"] for one in tasks.values()} == {3}
    assert {bool(one.get("cachingOptions")) for one in tasks.values()} == {False}
    made = document["deploymentSpec"]["executors"].values()
    with_gpus = [one for one in made if "accelerator" in one["container"].get("resources", {})]
    assert len(with_gpus) == 3


@pytest.mark.live
def test_kfps_local_runner_takes_every_step_once_and_ends_at_the_first_no(tmp_path: Path) -> None:
    pytest.importorskip("kfp", reason="kfp is not installed: extra kubeflow", exc_type=ImportError)
    seen = tmp_path / "seen"
    ran = locally(tmp_path, f'echo "$*" >> {seen}')
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert seen.read_text().splitlines() == [
        "train pin fraud --decision fraud-7",
        "train search fraud --decision fraud-7 --worker 0",
        "train search fraud --decision fraud-7 --worker 1",
        "train fit fraud --decision fraud-7",
        "train prove fraud --decision fraud-7",
        "train register fraud --decision fraud-7",
    ]
    seen.unlink()
    ran = locally(tmp_path, f'echo "$2" >> {seen}; [ "$2" != prove ]')
    assert (ran.returncode != 0, seen.read_text().split()) == (True, ["pin", "search", "search", "fit", "prove"])


def locally(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LOCALLY, str(folder / "root"), script],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=folder,
    )
