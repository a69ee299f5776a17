"""Who types the lines of "From nothing to the first verdict" in the chart's README, at a real cluster.

Left out is what a test cluster has otherwise: its image is imported, and its pods share one network, which the
restricted standard forbids. So a port is there once: a gateway takes the place of the one before it, and 8080 is no
longer free for who forwards.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from drift_pipeline_tests.deploy.charts import CHART, NAMESPACE, RELEASE
from drift_pipeline_tests.deploy.test_chart_values import merged
from drift_pipeline_tests.parts import helm, postgres, s3
from drift_pipeline_tests.parts.fixtures import needed
from drift_pipeline_tests.parts.kubernetes import Cluster
from drift_pipeline_tests.parts.postgres import Postgres
from drift_pipeline_tests.parts.product import REPOSITORY
from drift_pipeline_tests.parts.s3 import KEY, S3, SECRET
from drift_pipeline_tests.test_readmes import TOP, console_lines

MODEL = "recommendation_v3"
ROOMY_S = 1800.0  # two processors import Dagster in all its parts at once, and may have more to do
LEFT_OUT = ("docker ", "kubectl label namespace")
SMALL = {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}
ONE_PORT = {"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}}
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

    def install(self) -> None:
        """Back once the code location is ready."""
        self.type(*LINES[:ADOPTS])
        gateway = f"deployment/{RELEASE}-gateway"
        self.cluster.kubectl("-n", NAMESPACE, "patch", gateway, "-p", json.dumps(ONE_PORT))

    def adopt(self) -> None:
        """Back once the gateway is ready."""
        self.type(*LINES[ADOPTS:ASKS])

    def inside(self, *command: str) -> str:
        """What a command says in the code location."""
        code = ("exec", f"deployment/{RELEASE}-code", "-c", "code", "--")
        return self.cluster.kubectl("-n", NAMESPACE, *code, *command)


@contextmanager
def at_cluster(cluster: Cluster, image: str, folder: Path, **values: Any) -> Iterator[Terminal]:
    """With a database and a bucket on the cluster's machine, a volume for the home, and the page's values and these."""
    needed("postgres"), needed("s3")
    with cluster.machine.joined(), postgres.running() as database, s3.running() as store:
        store.ask("PUT", "/drift")
        cluster.apply(_volume(cluster))
        told = merged(_values(image, store), values)
        (folder / "values.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
        (folder / "request.json").write_text(_request(), encoding="utf-8")
        yield Terminal(cluster, folder, database, store)


def _means(database: Postgres) -> Mapping[str, str]:
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
