"""A KPI that Prometheus measures: what is no number of now is INCONCLUSIVE, and never OK."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from drift_pipeline.components.checks import configured_kpis
from drift_pipeline.detection.judging.verdict import KpiResult, Report, Verdict
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.loop.monitoring.elsewhere import LATENCY, measured
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.promql import MOST_BYTES, PrometheusServer
from drift_pipeline_tests.parts import prometheus

OFF = KpiResult(LATENCY, Verdict.NOT_CONFIGURED, None, None, None, None, 0, "the data has no latency column")
REPORT = Report(datetime(2026, 3, 1, tzinfo=UTC), {LATENCY: OFF}, (), provisional=False)


def spec(promql: str = "p95_ms") -> ModelSpec:
    return ModelSpec.model_validate(
        {
            **{"name": "fraud", "owner": "ml@example.com", "task": "binary_classification"},
            **{"features": {"amount": "numeric"}, "outcome": {"column": "label"}},
            "kpis": {"latency_p95_ms": {"threshold": 150, "source": {"promql": promql}}},
        }
    )


def judged(server: PrometheusServer | None, promql: str = "p95_ms") -> KpiResult:
    return measured(REPORT, spec(promql), server).kpis[LATENCY]


@contextmanager
def answering(body: bytes, status: int = 200, hangs: bool = False) -> Iterator[str]:
    """A server that gives this answer to whatever it is asked, or a byte of it now and then."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                for place in range(0, len(body), 1 if hangs else len(body)):
                    self.wfile.write(body[place : place + (1 if hangs else len(body))])
                    self.wfile.flush()
                    if hangs and done.wait(0.05):
                        return
            except OSError:
                return

        def log_message(self, format: str, *args: object) -> None:
            """Not to stderr."""

    done = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            done.set()
            server.shutdown()
            thread.join()


def vector(*values: Any, status: str = "success") -> bytes:
    """The answer; a value without a time is of now."""
    values = tuple([time.time(), value] if isinstance(value, str) else value for value in values)
    result = [{"metric": {"n": str(number)}, "value": value} for number, value in enumerate(values)]
    return json.dumps({"status": status, "data": {"resultType": "vector", "result": result}}).encode()


HOSTILE = {
    "empty": (vector, 200, "no series"),
    "NaN": (lambda: vector("NaN"), 200, "no traffic"),
    "infinite": (lambda: vector("+Inf"), 200, "no number"),
    "negative": (lambda: vector("-5"), 200, "less than none"),
    "two series": (lambda: vector("1", "2"), 200, "2 series"),
    "stale": (lambda: vector([time.time() - 3600, "20"]), 200, "another time"),
    "of no time": (lambda: vector([float("nan"), "20"]), 200, "another time"),
    "a matrix": (
        lambda: b'{"status":"success","data":{"resultType":"matrix","result":[{"values":[[1,"2"]]}]}}',
        200,
        "no.* samples",
    ),
    "no success": (lambda: vector("20", status="error"), 200, "series"),
    "an error": (lambda: b'{"status":"error","errorType":"bad_data","error":"parse error"}', 400, "400: parse error"),
    "a page": (lambda: b"<html>sign in</html>", 200, "does not answer with samples"),
    "nothing": (lambda: b"{}", 200, "does not answer with samples"),
    "deep": (lambda: b"[" * 100_000, 200, "does not answer with samples"),
    "long": (lambda: b" " * (MOST_BYTES + 1), 200, "bytes"),
    "elsewhere": (lambda: b"", 302, "302"),
}


@pytest.mark.parametrize(("body", "status", "told"), HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_number_of_now_is_inconclusive(body: Callable[[], bytes], status: int, told: str) -> None:
    with answering(body() or b"-", status) as url:
        found = judged(PrometheusServer(url))
        assert (found.verdict, found.value) == (Verdict.INCONCLUSIVE, None)
        with pytest.raises((UnavailableError, AssertionError), match=told):
            assert found.value is not None, found.reason


def test_a_server_that_drips_is_waited_for_once_and_no_longer_than_was_said() -> None:
    with answering(vector("20"), hangs=True) as url:
        server = PrometheusServer(url, timeout_seconds=0.3)
        began = time.monotonic()
        assert "within 0.3 s" in judged(server).reason
        waited, began = time.monotonic() - began, time.monotonic()
        assert judged(server).verdict is Verdict.INCONCLUSIVE
        assert time.monotonic() - began < 0.2 < waited


def test_nobody_to_ask_and_nobody_there_is_inconclusive() -> None:
    assert "DRIFT_PROMETHEUS_URL" in judged(None).reason
    with answering(b"") as url:
        pass
    found = judged(PrometheusServer(url))
    assert (found.verdict, "cannot be reached" in found.reason) == (Verdict.INCONCLUSIVE, True)


@pytest.mark.parametrize(("value", "verdict"), [("149.9", Verdict.OK), ("150.1", Verdict.BREACH)])
def test_a_number_is_held_against_the_threshold(value: str, verdict: Verdict) -> None:
    with answering(vector(value)) as url:
        found = judged(PrometheusServer(url))
    assert (found.verdict, found.value, found.threshold) == (verdict, float(value), 150)
    assert LATENCY in configured_kpis(spec())


def test_a_spec_without_a_source_is_left_as_it_is_and_an_address_that_is_none_is_refused() -> None:
    plain = spec().model_copy(update={"kpis": ModelSpec.model_validate({**spec().model_dump(), "kpis": {}}).kpis})
    assert measured(REPORT, plain, None) is REPORT
    assert plain.model_dump()["kpis"]["latency_p95_ms"] == {"threshold": 150}  # its digest is that of earlier versions
    with pytest.raises(InputError, match="PROMETHEUS_URL"):
        Settings(prometheus_url="http://user:secret@host")


@pytest.mark.live
@pytest.mark.usefixtures("promtool")
def test_a_real_prometheus_answers_and_a_target_that_is_gone_is_inconclusive() -> None:
    registry = CollectorRegistry()
    Gauge("p95_ms", "A latency.", registry=registry).set(180)
    target, thread = start_http_server(0, "127.0.0.1", registry)
    scraped = {"job_name": "model", "static_configs": [{"targets": [f"127.0.0.1:{target.server_port}"]}]}
    configuration = {"global": {"scrape_interval": "500ms"}, "scrape_configs": [scraped]}
    with prometheus.running(configuration) as part:
        server = PrometheusServer(part.url)
        part.until("p95_ms", bool)
        found = judged(server)
        assert (found.verdict, found.value) == (Verdict.BREACH, 180)
        assert judged(server, "p95_ms / 2").verdict is Verdict.OK
        assert judged(server, "scalar(p95_ms)").verdict is Verdict.BREACH
        assert "no traffic" in judged(server, "p95_ms * NaN").reason
        assert "400: " in judged(server, "p95_ms[").reason
        assert "no series" in judged(server, "nosuch").reason
        target.shutdown()
        target.server_close()
        thread.join()
        part.until("p95_ms", lambda found: not found)
        assert "no series" in judged(server).reason
        part.server.kill()
        assert judged(server).verdict is Verdict.INCONCLUSIVE
