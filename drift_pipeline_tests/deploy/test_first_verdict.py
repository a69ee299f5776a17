"""deploy/helm/drift-pipeline/README.md, "From nothing to the first verdict", on a real cluster: its lines, as typed.

Left out is what a test cluster has otherwise: its image is imported, and its pods share one network, which the
restricted standard forbids. So a port is there once: a gateway takes the place of the one before it, and 8080 is no
longer free for who forwards.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from drift_pipeline import __version__
from drift_pipeline_tests.deploy.charts import CHART, NAMESPACE, RELEASE
from drift_pipeline_tests.deploy.test_chart_values import merged
from drift_pipeline_tests.parts import helm, postgres, s3
from drift_pipeline_tests.parts.fixtures import needed
from drift_pipeline_tests.parts.kubernetes import READY_S, Cluster
from drift_pipeline_tests.parts.postgres import Postgres
from drift_pipeline_tests.parts.product import REPOSITORY
from drift_pipeline_tests.parts.s3 import KEY, S3, SECRET
from drift_pipeline_tests.test_readmes import TOP, console_lines

pytestmark = [pytest.mark.live, pytest.mark.slow]
MODEL = "recommendation_v3"
LEFT_OUT = ("docker ", "kubectl label namespace")
SMALL = {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}
ROOMY_S = 1800.0  # two processors import Dagster in all its parts at once, and may have more to do
ONE_PORT = {"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}}
USER = 10001
QUARTER_S, LEAST_ROWS = 900, 200  # the first window that can be judged
SECTION = (CHART / "README.md").read_text(encoding="utf-8").split("\n## ")[1]
LINES = [line for line in console_lines(SECTION) if not line.startswith(LEFT_OUT)]
ADOPTS, ASKS = (next(at for at, line in enumerate(LINES) if word in line) for word in ("POD=", "port-forward"))


class Terminal:
    """A folder with a checkout's `deploy`, in which lines are typed; variables live on from one `type` to the next."""

    def __init__(self, cluster: Cluster, folder: Path, database: Postgres, store: S3) -> None:
        self.cluster, self.folder, self.database, self.store = cluster, folder, database, store
        (folder / "deploy").symlink_to(TOP / "deploy")
        paths = (helm.find().parent, helm.kubectl().parent, Path(sys.executable).parent)
        self._environment = [f"PATH={':'.join(map(str, paths))}:{os.environ['PATH']}", "no_proxy=localhost"]

    def type(self, *lines: str) -> str:
        """What they say. Raises RuntimeError with what the first says that fails."""
        script = "\n".join([f"cd {self.folder}", "touch variables; . ./variables", "set -e", *lines])
        for word, meant in _means(self.database).items():
            script = script.replace(word, meant)
        script += "\ndeclare -p POD KEY >variables 2>/dev/null || true"
        return self.cluster.command(["env", *self._environment, "bash", "-c", script], patience_s=ROOMY_S)

    def landings(self) -> int:
        """How many commits the model's table of predictions has."""
        table = f"live/lake/{MODEL}/predictions/_delta_log/"
        return self.store.ask("GET", f"/drift?list-type=2&prefix={table}").count(b".json</Key>")

    def inside(self, *command: str) -> str:
        """What a command says in the code location."""
        code = ("exec", f"deployment/{RELEASE}-code", "-c", "code", "--")
        return self.cluster.kubectl("-n", NAMESPACE, *code, *command)


@pytest.fixture(scope="module")
def terminal(
    kubernetes_cluster: Cluster, product_image: str, helm_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Terminal]:
    """With a database and a bucket on the cluster's machine, a volume for the home, and the page's values."""
    needed("postgres"), needed("s3")
    folder = tmp_path_factory.mktemp("terminal")
    with kubernetes_cluster.machine.joined(), postgres.running() as database, s3.running() as store:
        store.ask("PUT", "/drift")
        kubernetes_cluster.apply(_volume(kubernetes_cluster))
        (folder / "values.yaml").write_text(yaml.safe_dump(_values(product_image, store)), encoding="utf-8")
        (folder / "request.json").write_text(_request(), encoding="utf-8")
        yield Terminal(kubernetes_cluster, folder, database, store)


@pytest.fixture(scope="module")
def installed(terminal: Terminal) -> Terminal:
    """The code location is ready."""
    terminal.type(*LINES[:ADOPTS])
    gateway = f"deployment/{RELEASE}-gateway"
    terminal.cluster.kubectl("-n", NAMESPACE, "patch", gateway, "-p", json.dumps(ONE_PORT))
    return terminal


@pytest.fixture(scope="module")
def adopted(installed: Terminal) -> Terminal:
    """The gateway is ready."""
    installed.type(*LINES[ADOPTS:ASKS])
    return installed


@pytest.fixture(scope="module")
def busy(adopted: Terminal) -> Terminal:
    """The gateway is asked once a second, by its name in the cluster."""
    url, key = f"http://{RELEASE}-gateway.{NAMESPACE}:8080", adopted.type("echo $KEY").strip()
    asks = f"drift simulate {MODEL} --url {url} --key {key} --rate 1 --for 2h"
    adopted.inside("sh", "-c", f"nohup {asks} </dev/null >/tmp/asks 2>&1 &")
    return adopted


def test_a_container_is_no_root_and_writes_to_no_file_of_the_image(installed: Terminal) -> None:
    assert installed.inside("id", "-u").strip() == str(USER)
    assert __version__ in installed.inside("drift", "--version")
    with pytest.raises(RuntimeError, match="Read-only file system"):
        installed.inside("touch", "/opt/drift/written")


def test_a_gateway_answers_who_has_a_key_and_the_answer_lands(adopted: Terminal) -> None:
    forward, ask, status = LINES[ASKS:]
    before = adopted.landings()
    until = "until curl -sf -o health localhost:8080/v2/health/live; do sleep 1; done"
    waits = f"timeout {READY_S:.0f} bash -c '{until}'"
    told = adopted.type(f"{forward} >/dev/null & trap 'kill $!' EXIT", waits, ask, status)
    answer, end = json.JSONDecoder().raw_decode(told)
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("p1", MODEL, "v1")
    assert before > 0
    assert told[end:].split()[:2] == [MODEL, "v1"]
    adopted.cluster.until("answer in the lake", lambda: adopted.landings() > before)


def test_the_loop_tells_a_verdict(adopted: Terminal) -> None:
    adopted.cluster.until("verdict", lambda: bool(_standing(adopted)["verdict"]), ROOMY_S)
    standing = _standing(adopted)
    assert standing["champion"] == "v1"
    assert standing["judged"] + len(standing["not_judged"]) == standing["configured"] > 0
    assert all(waits["reason"] for waits in standing["not_judged"].values())


def test_a_hotfix_is_trained_in_a_pod_of_its_own(busy: Terminal) -> None:
    """By Dagster's daemon, with its rights; a Job that ended well, and its run."""
    busy.inside("drift", "hotfix", MODEL, "--reason", "to be trained in a pod", "--actor", "tester")

    def job() -> dict[str, Any]:
        found = busy.cluster.ask(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs")["items"]
        jobs = [one for one in found if one["metadata"]["name"].startswith("dagster-run-")]
        return dict(jobs[0]["status"]) if jobs else {}

    busy.cluster.until("Job that has ended", lambda: bool({"succeeded", "failed"} & job().keys()), ROOMY_S)
    assert job().get("succeeded") == 1
    runs = "SELECT status FROM runs JOIN run_tags USING (run_id) WHERE key = 'drift/lane' AND value = 'hotfix'"
    ended = [("SUCCESS",)]
    busy.cluster.until("run that has ended", lambda: busy.database.ask(runs, "drift_dagster") == ended)


def test_a_verdict_is_of_what_the_gateway_answered(busy: Terminal) -> None:
    """No window reaches behind the adoption; so the rows of one are answers that landed, each of them once."""

    def judged() -> dict[str, Any]:
        return dict(_standing(busy)["kpis"]["range_z"])

    busy.cluster.until("verdict on rows", lambda: judged()["n"] >= LEAST_ROWS, ROOMY_S)
    found = judged()
    assert LEAST_ROWS <= found["n"] <= QUARTER_S + 1
    assert found["verdict"] == "OK", found
    assert _standing(busy)["judged"] > 0


def _standing(terminal: Terminal) -> dict[str, Any]:
    (found,) = json.loads(terminal.inside("drift", "status", MODEL, "--json"))
    return dict(found)


def _means(database: Postgres) -> dict[str, str]:
    """What the page leaves to its reader."""
    return {
        "drift:PASSWORD@postgres.db:5432": urlsplit(database.url).netloc,
        "AWS_ACCESS_KEY_ID=...": f"AWS_ACCESS_KEY_ID={KEY}",
        "AWS_SECRET_ACCESS_KEY=...": f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"service/{RELEASE}-gateway 8080": f"service/{RELEASE}-gateway 18080:8080",
        "localhost:8080": "localhost:18080",
    }


def _values(image: str, store: S3) -> dict[str, Any]:
    """The page's, with this cluster's image and bucket, as small as its machine."""
    page = re.search(r"```yaml\n(.*?)\n```", SECTION, flags=re.DOTALL)
    assert page is not None
    own = {
        "image": {"repository": REPOSITORY, "tag": image.rpartition(":")[2]},
        "environment": {"AWS_ENDPOINT_URL": store.url},
        "gateway": {"replicas": 1, "autoscaling": {"enabled": False}, **SMALL, "capture": SMALL},
        "exporter": SMALL,
        "dagster": {"code": SMALL, "daemon": SMALL, "webserver": SMALL, "runs": SMALL},
    }
    return merged(yaml.safe_load(page[1]), own)


def _request() -> str:
    """The one of the README at the top."""
    found = re.search(r"/infer -d '(.*?)'", (TOP / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert found is not None
    return found[1]


def _volume(cluster: Cluster) -> dict[str, Any]:
    """Of which the home's claim takes hold."""
    folder = cluster.folder / "home"
    folder.mkdir()
    folder.chmod(0o777)
    spec = {
        "capacity": {"storage": "20Gi"},
        "accessModes": ["ReadWriteMany"],
        "hostPath": {"path": str(folder)},
        "claimRef": {"name": f"{RELEASE}-home", "namespace": NAMESPACE},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "home"}, "spec": spec}
