"""deploy/helm/drift-pipeline/README.md, "From nothing to the first verdict", on a real cluster: its lines, as typed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline import __version__
from drift_pipeline_tests.deploy.charts import NAMESPACE, RELEASE
from drift_pipeline_tests.deploy.terminal import ASKS, LINES, MODEL, ROOMY_S, Terminal, at_cluster
from drift_pipeline_tests.parts.kubernetes import READY_S, Cluster

pytestmark = [pytest.mark.live, pytest.mark.slow]
USER = 10001
QUARTER_S, LEAST_ROWS = 900, 200  # the first window that can be judged


@pytest.fixture(scope="module")
def terminal(
    kubernetes_cluster: Cluster, product_image: str, helm_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Terminal]:
    with at_cluster(kubernetes_cluster, product_image, tmp_path_factory.mktemp("terminal")) as at:
        yield at


@pytest.fixture(scope="module")
def installed(terminal: Terminal) -> Terminal:
    terminal.install()
    return terminal


@pytest.fixture(scope="module")
def adopted(installed: Terminal) -> Terminal:
    installed.adopt()
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
    before = _landings(adopted)
    until = "until curl -sf -o health localhost:8080/v2/health/live; do sleep 1; done"
    waits = f"timeout {READY_S:.0f} bash -c '{until}'"
    told = adopted.type(f"{forward} >/dev/null & trap 'kill $!' EXIT", waits, ask, status)
    answer, end = json.JSONDecoder().raw_decode(told)
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("p1", MODEL, "v1")
    assert before > 0
    assert told[end:].split()[:2] == [MODEL, "v1"]
    adopted.cluster.until("answer in the lake", lambda: _landings(adopted) > before)


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


def _landings(terminal: Terminal) -> int:
    """How many commits the model's table of predictions has."""
    table = f"live/lake/{MODEL}/predictions/_delta_log/"
    return terminal.store.ask("GET", f"/drift?list-type=2&prefix={table}").count(b".json</Key>")
