"""What the chart lays out, as processes: one home has the keys, a gateway's pod has another, and both have the rest."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import polars as pl
import pytest

from drift_pipeline.bucket import Bucket
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.serving.demo import MODEL, SPEC
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.synthetic import synthetic_history
from drift_pipeline_tests.integration.drill import command, free_port, is_ready
from drift_pipeline_tests.parts.postgres import Postgres

pytestmark = [pytest.mark.live, pytest.mark.slow]  # 40 s of processor, which .ci/run has not
NUMERIC = {"session_length_s": 312.5, "items_viewed": 8.0, "price_eur": 40.0, "days_since_visit": 2.0}
LEVELS = {"device": "phone", "country": "DE", "age_band": "30-44"}


def drift(environment: dict[str, str], *arguments: str, code: int = 0) -> str:
    ended = subprocess.run(
        command(arguments), env=environment, capture_output=True, text=True, check=False, timeout=200
    )
    assert ended.returncode == code, (arguments, ended.stdout, ended.stderr)
    return ended.stdout


@contextmanager
def begun(environment: dict[str, str], *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(command(arguments), env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def infer(name: str) -> dict[str, object]:
    numbers = [{"name": key, "shape": [1], "datatype": "FP64", "data": [value]} for key, value in NUMERIC.items()]
    texts = [{"name": key, "shape": [1], "datatype": "BYTES", "data": [value]} for key, value in LEVELS.items()]
    return {"id": name, "parameters": {"entity": "u7"}, "inputs": [*numbers, *texts]}


def wait_for(url: str) -> None:
    end = time.monotonic() + 120
    while not is_ready(url):
        assert time.monotonic() < end, f"{url} is not ready"
        time.sleep(0.2)


def test_a_pod_answers_and_lands_from_an_empty_folder_and_holds_no_key(
    s3_place: Bucket, postgres_server: Postgres, tmp_path: Path
) -> None:
    (tmp_path / "models" / MODEL).mkdir(parents=True)
    (tmp_path / "models" / MODEL / "defs.yaml").write_text(SPEC)
    start = (datetime.now(UTC) - timedelta(days=28)).replace(hour=0, minute=0, second=0, microsecond=0)
    synthetic_history(28, 120, 0, score=False, start=start).write_parquet(tmp_path / "history.parquet")
    url = postgres_server.of("homes apart")
    shared = {"DRIFT_MODELS": str(tmp_path / "models"), "DRIFT_DATABASE": url, "DRIFT_STORE": s3_place.url}
    claim, pod = ({**os.environ, **shared, "DRIFT_HOME": str(tmp_path / name)} for name in ("claim", "pod"))

    drift(pod, "capture", "--drain", "5s", code=2)  # no home is begun here, whose key would lie in a pod's folder
    drift(claim, "adopt", MODEL, "--data", str(tmp_path / "history.parquet"))
    key, port = drift(claim, "producer", "add", "checkout", MODEL).strip(), free_port()
    lands, serves = ("capture", "--every", "1h", "--drain", "60s"), ("serve", "--port", str(port))
    with begun(pod, *lands) as capture, begun(pod, *serves) as gateway:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/v2/health/ready")
        with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as client:
            for name in ("a", "b", "c"):
                told = client.post(f"/v2/models/{MODEL}/infer", json=infer(name), timeout=60)
                assert told.status_code == 200, told.text
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(60) == 0
        capture.send_signal(signal.SIGTERM)
        assert capture.wait(120) == 0
    settings = Settings(home=tmp_path / "claim", database=url, store=s3_place.url)
    landed = Lake(settings.lake / MODEL).find("predictions", pl.col("_id").is_in(["a", "b", "c"]), ("_id",))
    assert sorted(landed["_id"]) == ["a", "b", "c"]
    assert list((tmp_path / "claim" / "keys").glob("*.pem"))
    assert not list((tmp_path / "pod").rglob("*.pem"))
    assert verify_home(settings).ok, verify_home(settings).reason
