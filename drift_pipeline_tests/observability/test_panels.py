"""Each query of a dashboard, asked of a real Prometheus that scrapes a real gateway with traffic, and nothing else."""

import json
import math
import re
import shutil
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from drift_pipeline.observability.dashboards import dashboards
from drift_pipeline.observability.panels import BOARDS, Panel
from drift_pipeline.serving.up import DRIFT
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.parts import prometheus
from drift_pipeline_tests.parts.server import Server, free_port
from drift_pipeline_tests.replay.worlds import MODEL, SPEC, drift, replayed

pytestmark = pytest.mark.live

ROW = {"session_length_s": 312.5, "items_viewed": 6, "price_eur": 19.9, "days_since_visit": 2}
LEVELS = {"device": "phone", "country": "DE", "age_band": "30-44"}
CHOSEN = {"$model": MODEL, "$kpi": ".+", "$__rate_interval": "10s"}


def of(expr: str) -> str:
    """As Grafana asks it, with what somebody chose."""
    for name, value in CHOSEN.items():
        expr = expr.replace(name, value)
    return expr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a replay, with its incidents, retrains and rollouts; this process and its children know its model."""
    folder = tmp_path_factory.mktemp("panels")
    ended, out = replayed()
    assert ended.code == 0, ended.err
    shutil.copytree(out, folder / "home")
    spec = folder / "models" / MODEL / "defs.yaml"
    spec.parent.mkdir(parents=True)
    lines = "".join(f"  {line}\n" for line in SPEC.splitlines())
    spec.write_text(f"type: drift_pipeline.components.MonitoredModel\nattributes:\n{lines}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIFT_MODELS", str(folder / "models"))
        patch.setenv("DRIFT_HOME", str(folder / "home"))
        yield folder / "home"


def serving(home: Path, log: str, path: str, command: Sequence[str], port: int) -> Server:
    def answers() -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    return Server([*DRIFT, *command, "--port", str(port)], home.parent / log, answers)


@contextmanager
def asked(url: str, key: str) -> Iterator[None]:
    """Somebody asks the model all the time, until the block ends."""
    numbers = [{"name": name, "shape": [1], "datatype": "FP64", "data": [value]} for name, value in ROW.items()]
    texts = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [value]} for name, value in LEVELS.items()]
    stop = threading.Event()

    def ask() -> None:
        number = 0
        while not stop.wait(0.1):
            number += 1
            told = json.dumps({"id": f"p{number}", "inputs": [*numbers, *texts]}).encode()
            request = urllib.request.Request(f"{url}/v2/models/{MODEL}/infer", told, {"X-API-Key": key})
            with suppress(OSError):
                urllib.request.urlopen(request, timeout=5).close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def scraped(home: Path, promtool: None) -> Iterator[prometheus.Prometheus]:
    """A Prometheus with the job of deploy/prometheus: the gateway of a home with traffic, as `drift up` starts one."""
    key, port = drift("producer", "add", "prometheus").out.strip(), free_port()
    spool = SpoolWriter(home / "spool" / "app")
    spool.write([b'{"event": "outcome"}'])
    spool.rotate()
    spool.close()
    assert drift("capture", "--once").code == 0
    told = yaml.safe_load((prometheus.DEPLOY / "prometheus.yaml").read_text())
    (job,) = told["scrape_configs"]
    job |= {"authorization": {"credentials": key}, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    configuration = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
    gateway = serving(home, "gateway.log", "/v2/health/ready", ["serve"], port)
    with ExitStack() as stack:
        stack.callback(gateway.stop)
        gateway.start()
        stack.enter_context(asked(f"http://127.0.0.1:{port}", key))
        yield stack.enter_context(prometheus.running(configuration))


def panels(*, quiet: bool) -> list[object]:
    found = [(board.uid, panel) for board in BOARDS for panel in board.panels if panel.quiet == quiet]
    return [pytest.param(panel, id=f"{uid}: {panel.title}") for uid, panel in found]


@pytest.mark.parametrize("panel", panels(quiet=False))
def test_a_panel_shows_data(panel: Panel, scraped: prometheus.Prometheus) -> None:
    for expr, _ in panel.queries:
        scraped.until(of(expr), lambda found: any(math.isfinite(value) for _, value in found))


@pytest.mark.parametrize("panel", panels(quiet=True))
def test_a_panel_that_may_be_empty_can_be_asked(panel: Panel, scraped: prometheus.Prometheus) -> None:
    for expr, _ in panel.queries:
        scraped.query(of(expr))


@pytest.mark.parametrize("name", sorted(dashboards()))
def test_variables_have_values_and_annotations_can_be_asked(name: str, scraped: prometheus.Prometheus) -> None:
    made = json.loads(dashboards()[name])
    for variable in made["templating"]["list"]:
        if variable["type"] == "query":
            asked_for = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            assert asked_for, variable
            scraped.until(of(asked_for[1]), bool)
            assert all(asked_for[2] in labels for labels, _ in scraped.query(of(asked_for[1])))
    for annotation in made.get("annotations", {}).get("list", []):
        scraped.query(of(annotation["expr"]))
