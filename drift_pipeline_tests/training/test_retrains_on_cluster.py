"""A retrain on a real cluster: `drift tick` in a pod submits it; each step is a `drift train` in the product's image.

A pod that is evicted, or whose process is killed, is followed by another, which goes on from the last stored step.
"""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy.exc import OperationalError, ProgrammingError

from drift_pipeline.training.runners import Request
from drift_pipeline_tests.parts import postgres, s3
from drift_pipeline_tests.parts.fixtures import needed
from drift_pipeline_tests.parts.kubernetes import Cluster
from drift_pipeline_tests.parts.postgres import Postgres
from drift_pipeline_tests.parts.s3 import S3
from drift_pipeline_tests.parts.server import Server
from drift_pipeline_tests.training.on_cluster import NAMESPACE, TICKS, pods_of, prepare

pytestmark = [pytest.mark.live, pytest.mark.slow]
MODEL, HOME, USER = "recommendation_v3", "/var/lib/drift", 10001
TRIALS, WORKERS = 20, 2
ENDED = {"Succeeded", "Failed", "Error"}
ROOMY_S = 1800.0
LANES = {"retrain": "normal", "hotfix": "hotfix"}
ONCE = ("training.claimed", "training.started", "candidate.trained", "candidate.proven", "training.run_ended")


class Home:
    """Of one model; a pod that does nothing by itself is who ticks, and everything is shared with the pods of steps."""

    def __init__(self, cluster: Cluster, database: Postgres, folder: Path) -> None:
        self.cluster, self.database, self.folder = cluster, database, folder

    def drift(self, *arguments: str, runner: str = "inline") -> str:
        """What a command says. Raises RuntimeError with what it says against it."""
        command = ("exec", "ticks", "--", "env", f"DRIFT_RUNNER={runner}", "drift", *arguments)
        return self.cluster.kubectl("-n", NAMESPACE, *command, patience_s=ROOMY_S)

    def decided(self, verb: str) -> Request:
        """What was asked for by `retrain` or `hotfix`, and agreed to; again where the policy had no time to answer."""
        told = list[dict[str, Any]]()

        def agreed() -> bool:
            with suppress(RuntimeError):
                told.append(json.loads(self.drift(verb, MODEL, "--reason", "a test", "--actor", "tester", "--json")))
            return bool(told)

        self.until(f"agreement to a {verb}", agreed)
        return Request(MODEL, told[0]["decision"], LANES[verb])

    def events(self, request: Request) -> Counter[str]:
        """How often the audit has each, of one decision."""
        found = self.database.ask("SELECT body FROM audit ORDER BY seq", "drift")
        records = [json.loads(str(body)) for (body,) in found]
        return Counter(one["event"] for one in records if one["details"].get("decision") == request.decision)

    def trials(self, request: Request) -> list[str]:
        """How each trial of its search stands."""
        of = f"SELECT state FROM trials JOIN studies USING (study_id) WHERE study_name = '{MODEL} {request.decision}'"
        with suppress(ProgrammingError, OperationalError):  # nobody has searched yet
            return [str(state) for (state,) in self.database.ask(of, "drift_optuna")]
        return []

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """An API server that has more to do than to answer is asked again."""

        def heard() -> bool:
            with suppress(OSError):
                return holds()
            return False

        self.cluster.until(what, heard, ROOMY_S)


@pytest.fixture(scope="module")
def home(kubernetes_cluster: Cluster, product_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Adopted."""
    needed("postgres"), needed("s3")
    prepare(kubernetes_cluster)
    folder = kubernetes_cluster.folder / "retrains"
    folder.mkdir()
    os.chown(folder, USER, USER)
    with kubernetes_cluster.machine.joined(), postgres.running() as database, s3.running() as store:
        store.ask("PUT", "/drift")
        (folder / "runner.yaml").write_text(yaml.safe_dump(_place(product_image, folder)), encoding="utf-8")
        kubernetes_cluster.apply(_environment(database, store), _ticks(product_image, folder))
        wait = ("wait", "--for=condition=Ready", "pod/ticks", f"--timeout={ROOMY_S:.0f}s")
        kubernetes_cluster.kubectl("-n", NAMESPACE, *wait, patience_s=ROOMY_S)
        at = Home(kubernetes_cluster, database, folder)
        at.drift("sample", f"{HOME}/models/{MODEL}", "--calm", "--rows-per-day", "600")
        _say_trials(folder, 2)
        at.drift("adopt", MODEL, "--data", f"{HOME}/models/{MODEL}/history.parquet")
        _say_trials(folder, TRIALS)
        yield at


def test_a_job_whose_pods_are_taken_away_goes_on_from_the_last_stored_step(home: Home) -> None:
    request = home.decided("retrain")
    home.drift("tick", MODEL, runner="kubernetes")
    (first,) = _names(home, request, "kubernetes")
    _under_search(home, request)
    _evict(home.cluster, first)
    home.until("pod in its place", lambda: bool(set(_names(home, request, "kubernetes")) - {first}))
    _kill(home, request, "fit")
    home.until("Job that is complete", lambda: bool(_conditions(home.cluster, request) & {"Complete", "Failed"}))
    assert "Complete" in _conditions(home.cluster, request)
    _assert_trained_once(home, request, "kubernetes", searches=1)
    assert len(_names(home, request, "kubernetes")) == 2  # of the killed and of the last; the evicted is deleted


def test_a_workflow_whose_pods_are_taken_away_goes_on_from_the_last_stored_step(
    home: Home, workflows_controller: Server
) -> None:
    home.cluster.kubectl("apply", "-f", "-", told=home.drift("train", "manifests", runner="argo"))
    request = home.decided("hotfix")
    home.drift("tick", MODEL, runner="argo")
    _under_search(home, request)
    _delete(home.cluster, next(name for name in _names(home, request, "argo") if "-search-" in name))
    _kill(home, request, "fit")
    path = f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/workflows/{request.name}"
    home.until("workflow that has ended", lambda: home.cluster.ask(path)["status"].get("phase") in ENDED)
    assert home.cluster.ask(path)["status"]["phase"] == "Succeeded"
    _assert_trained_once(home, request, "argo", searches=WORKERS)


def _assert_trained_once(home: Home, request: Request, runner: str, searches: int) -> None:
    pods = _names(home, request, runner)
    home.drift("tick", MODEL, runner=runner)
    home.drift("tick", MODEL, runner=runner)
    told = home.events(request)
    assert {event: told[event] for event in ONCE} == dict.fromkeys(ONCE, 1), told
    assert told["training.searched"] == searches
    assert home.trials(request).count("COMPLETE") == TRIALS
    assert set(_names(home, request, runner)) <= set(pods)
    home.drift("audit", "verify")


def _under_search(home: Home, request: Request) -> None:
    """Back in the midst of it."""
    home.until("trials", lambda: home.events(request)["training.started"] == 1 and "COMPLETE" in home.trials(request))
    assert home.events(request)["training.searched"] == 0


def _names(home: Home, request: Request, runner: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in pods_of(home.cluster, request, runner)]


def _conditions(cluster: Cluster, request: Request) -> set[str]:
    status = cluster.ask(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{request.name}")["status"]
    return {one["type"] for one in status.get("conditions", ()) if one["status"] == "True"}


def _evict(cluster: Cluster, pod: str) -> None:
    """As the drain of its node does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    cluster.kubectl("create", "--raw", path, "-f", "-", told=json.dumps(body))


def _delete(cluster: Cluster, pod: str) -> None:
    cluster.kubectl("-n", NAMESPACE, "delete", "pod", pod, "--wait=false")


def _kill(home: Home, request: Request, step: str) -> None:
    """The process of the step, as the kernel does where memory is short."""
    home.until(f"process of {step}", lambda: bool(_processes(request, step)))
    for pid in _processes(request, step):
        os.kill(pid, signal.SIGKILL)


def _processes(request: Request, step: str) -> list[int]:
    """Those of the command itself, not of what started it."""
    words = f"drift train {step} {request.model} --decision {request.decision}".split()
    found = list[int]()
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            given = place.read_text(errors="replace").rstrip("\0").split("\0")
            if "python" in given[0] and [Path(given[1]).name, *given[2:]] == words:
                found.append(int(place.parent.name))
    return found


def _say_trials(folder: Path, trials: int) -> None:
    spec = folder / "models" / MODEL / "defs.yaml"
    document = yaml.safe_load(spec.read_text(encoding="utf-8"))
    document["attributes"]["retrain"] = {"trials": trials}
    spec.write_text(yaml.safe_dump(document), encoding="utf-8")


def _place(image: str, folder: Path) -> dict[str, Any]:
    volume = {"name": "home", "mount": HOME, "source": {"hostPath": {"path": str(folder)}}}
    steps = {"cpu": "800m", "memory": "1500Mi", "search_workers": WORKERS, "timeout_seconds": 60}
    return {"image": image, "namespace": NAMESPACE, "config_maps": ["drift-env"], "volumes": [volume], **steps}


def _environment(database: Postgres, store: S3) -> dict[str, Any]:
    own = {"DRIFT_DATABASE": database.url, "DRIFT_STORE": "s3://drift/live", "DRIFT_HOME": HOME}
    own |= {"DRIFT_MODELS": f"{HOME}/models", "DRIFT_RUNNER_FILE": f"{HOME}/runner.yaml"}
    meta = {"name": "drift-env", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {**own, **store.environment}}


def _ticks(image: str, folder: Path) -> dict[str, Any]:
    """With the account's token, as Dagster's code location would have it."""
    mounts = [{"name": "tmp", "mountPath": "/tmp"}, {"name": "home", "mountPath": HOME}]
    container = {
        "name": "ticks",
        "image": image,
        "command": ["sleep", "infinity"],
        "envFrom": [{"configMapRef": {"name": "drift-env"}}],
        "volumeMounts": mounts,
        "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False},
    }
    spec = {
        "serviceAccountName": TICKS,
        "securityContext": {"runAsUser": USER, "runAsGroup": USER, "runAsNonRoot": True},
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "home", "hostPath": {"path": str(folder)}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ticks", "namespace": NAMESPACE}, "spec": spec}
