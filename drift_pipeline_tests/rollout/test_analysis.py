"""The queries that Argo's analysis asks, as a real Prometheus answers them: nothing where too few requests came."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from drift_pipeline.rollout.controllers.rendering import rendered
from drift_pipeline_tests.parts import prometheus
from drift_pipeline_tests.rollout.test_controllers import IDLE, ROUTING

OF = 'destination_service_name="drift-fraud-canary",destination_service_namespace="drift"'
OTHER = OF.replace("canary", "stable")


def queries() -> dict[str, str]:
    (made,) = [one for one in rendered(ROUTING, IDLE) if one["kind"] == "AnalysisTemplate"]
    return {one["name"]: one["provider"]["prometheus"]["query"] for one in made["spec"]["metrics"]}


def series(ok: int, bad: int | None, fast: int, slow: int) -> list[dict[str, str]]:
    """Requests a 15 s of the canary, by answer and by how long they took; the stable pods' are many and all bad."""
    told = {
        f'istio_requests_total{{{OF},response_code="200"}}': ok,
        f'istio_requests_total{{{OTHER},response_code="503"}}': 1000,
        f'istio_request_duration_milliseconds_bucket{{{OF},le="100"}}': fast,
        f'istio_request_duration_milliseconds_bucket{{{OF},le="1000"}}': fast + slow,
        f'istio_request_duration_milliseconds_bucket{{{OF},le="+Inf"}}': fast + slow,
    }
    if bad is not None:
        told[f'istio_requests_total{{{OF},response_code="503"}}'] = bad
    return [{"series": name, "values": f"0+{step}x20"} for name, step in told.items()]


def asked(given: list[dict[str, str]], errors: float | None, latency: float | None) -> dict[str, Any]:
    wanted = {"errors": errors, "latency": latency}
    tests = [
        {
            "expr": query,
            "eval_time": "4m",
            "exp_samples": [] if wanted[name] is None else [{"labels": "{}", "value": wanted[name]}],
        }
        for name, query in queries().items()
    ]
    return {"interval": "15s", "input_series": given, "promql_expr_test": tests}


@pytest.mark.live
@pytest.mark.usefixtures("promtool")
def test_too_few_requests_give_nothing_and_enough_give_the_share_and_the_latency(tmp_path: Path) -> None:
    document = {
        "tests": [
            asked(series(ok=100, bad=None, fast=100, slow=0), 0, 95),
            asked(series(ok=75, bad=25, fast=0, slow=100), 0.25, 955),
            asked(series(ok=5, bad=5, fast=10, slow=0), None, None),
            asked(series(ok=0, bad=0, fast=0, slow=0), None, None),
            asked([], None, None),
        ]
    }
    path = tmp_path / "analysis.yaml"
    path.write_text(yaml.safe_dump(document))
    tested = prometheus.promtool("test", "rules", str(path))
    assert tested.returncode == 0, tested.stdout + tested.stderr
