"""Lines of real processes are found again, by their fields, where log lines are kept: in VictoriaLogs, not in Loki."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.parts import otel
from drift_pipeline_tests.parts.cache import HERE
from drift_pipeline_tests.parts.server import free_port
from drift_pipeline_tests.parts.victorialogs import VictoriaLogs
from drift_pipeline_tests.replay.worlds import drift
from drift_pipeline_tests.test_cli_live import MODEL, laid_out

DEPLOY = HERE.parents[1] / "deploy" / "loki"
VALUE, PERSON = "4711.0815", "jane.doe@example.com"
LAID_ASIDE = f'model:"{MODEL}" events.laid_aside'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one adopted model, to which much comes that is no event of it."""
    folder = tmp_path_factory.mktemp("lines")
    laid_out(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIFT_MODELS", str(folder / "models"))
        assert drift("adopt", MODEL, "--data", folder / "history.parquet", "--home", folder / "home").code == 0
    return folder / "home"


def capture_once(home: Path, **environment: str) -> list[dict[str, Any]]:
    """The lines of a `drift capture --once` that laid 30 events aside."""
    spool = SpoolWriter(home / "spool" / "app")
    event = {"event": "prediction", "model": MODEL, "id": PERSON, "features": {"price_eur": VALUE}}
    spool.write([json.dumps(event).encode()] * 30)
    spool.rotate()
    spool.close()
    command = [
        sys.executable,
        "-c",
        "from drift_pipeline.cli import main; main()",
        "capture",
        "--once",
        "--home",
        str(home),
    ]
    of = {**os.environ, "DRIFT_MODELS": str(home.parent / "models"), **environment}
    ended = subprocess.run(command, env=of, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert (VALUE in ended.stderr, PERSON in ended.stderr) == (False, False)
    return [json.loads(line) for line in ended.stderr.splitlines()]


def test_the_files_for_loki_name_parts_that_are_there() -> None:
    collector, files = (yaml.safe_load((DEPLOY / name).read_text()) for name in ("collector.yaml", "files.yaml"))
    (pipeline,) = collector["service"]["pipelines"].values()
    assert {*pipeline["receivers"]} == {*collector["receivers"]}
    assert {*pipeline["exporters"]} == {*collector["exporters"]}
    assert {*files["service"]["pipelines"]["logs"]["receivers"]} == {*collector["receivers"], *files["receivers"]}
    assert files["receivers"]["filelog"]["storage"] in collector["extensions"]


@pytest.mark.live
@pytest.mark.usefixtures("otel_collector")
def test_lines_reach_victorialogs_which_is_not_loki_through_a_real_collector(
    home: Path, victorialogs_server: VictoriaLogs
) -> None:
    with otel.running(DEPLOY / "collector.yaml", {"DRIFT_LOKI_URL": victorialogs_server.otlp}) as collector:
        said = capture_once(home, DRIFT_LOG_OTLP=collector.url)
        line = victorialogs_server.line(LAID_ASIDE)
    (own,) = (one for one in said if "events.laid_aside" in one["message"])
    assert {name: line[name] for name in ("model", "level", "logger")} == {
        "model": MODEL,
        "level": "WARNING",
        "logger": "drift_pipeline.loop.concerns",
    }
    assert (line["_msg"], line["_time"][:23]) == (own["message"], own["time"][:23])
    assert line["service.name"] == "drift-capture"
    everything = json.dumps(victorialogs_server.lines("*"))
    assert (VALUE in everything, PERSON in everything) == (False, False)


@pytest.mark.live
def test_lines_reach_victorialogs_which_is_not_loki_by_lokis_push_protocol(
    home: Path, victorialogs_server: VictoriaLogs
) -> None:
    (own,) = (one for one in capture_once(home) if one["message"].startswith("landed "))
    labels = {"job": "pushed", "level": own["level"]}
    at = str(time.time_ns())
    push = {"streams": [{"stream": labels, "values": [[at, own["message"], {"logger": own["logger"]}]]}]}
    told = json.dumps(push).encode()
    request = urllib.request.Request(victorialogs_server.push, told, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 204
    line = victorialogs_server.line('{job="pushed"}')
    assert {**labels, "logger": own["logger"], "_msg": own["message"]}.items() <= line.items()


@pytest.mark.live
def test_a_collector_that_is_not_there_costs_no_line_and_holds_nobody_up(home: Path) -> None:
    said = capture_once(home, DRIFT_LOG_OTLP=f"http://127.0.0.1:{free_port()}")
    assert any(one["message"].startswith("landed ") for one in said)
