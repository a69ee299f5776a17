"""What a scrape of the loop's metrics costs: `python -m drift_pipeline_tests.benchmarks.metrics [--models 100]`.

A home of N models whose ticks remembered what such ticks do (ten KPIs, twenty columns, an hour of KPI history each),
one in ten with an open incident and a rollout. It is read as `drift exporter` reads it, the store opened anew each
time.
"""

import argparse
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import Entry, Put
from drift_pipeline.control.trust import open_store
from drift_pipeline.loop.home import reading
from drift_pipeline.observability.metrics import LoopMetrics
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec

TICKS_AN_HOUR = 120


def remembered(now: str, number: int) -> dict[str, Any]:
    """What a tick leaves."""
    kpi = {
        "verdict": "OK",
        "value": 0.1,
        "threshold": 0.2,
        "bound": 0.05,
        "window": "28d",
        "n": 9000,
        "judged_at": None,
    }
    columns = [{"name": f"column_{k}", "psi": 0.1, "distance": 0.1, "drift": False, "window": "28d"} for k in range(20)]
    incident = {"open": number % 10 == 0, "key": f"k{number}", "opened_at": now}
    seen = {
        **{"verdict": "OK", "judged": 10, "configured": 10, "labels": {"landed": 9, "joined": 9, "judged": 9}},
        **{"kpis": {f"kpi_{k}": {**kpi, "reason": "x" * 80} for k in range(10)}},
        **{"drifting": [], "drifting_columns": 0, "worst": columns},
    }
    return {"at": now, "seen": seen, "decided": ["drift", "k", "ignore"], "incident": incident}


def made(spec: ModelSpec, number: int) -> tuple[list[Put], list[Put]]:
    """State and memory of one model."""
    now = SystemClock().now()
    puts = [
        Put("model", spec.name, {"version": "v1"}),
        Put("decisions", spec.name, {"count": 3}),
        Put("retrains", spec.name, {"at": [(now - timedelta(days=9)).isoformat()], "rejected_in_a_row": 0}),
    ]
    if number % 10 == 0:
        puts.append(Put("rollout", spec.name, {"rollout_id": "r-v2", "phase": "canary", "since": now.isoformat()}))
    body = remembered(now.isoformat(), number)
    history = [Put("", f"{spec.name}/kpis/{tick:012}", body["seen"]) for tick in range(TICKS_AN_HOUR)]
    return puts, [Put("", spec.name, body), *history]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--scrapes", type=int, default=50)
    asked = parser.parse_args()
    document = {"name": "m", "owner": "ml@example.com", "task": "binary_classification", "features": {"x": "numeric"}}
    base = ModelSpec.model_validate({**document, "outcome": {"column": "y"}})
    specs = {name: base.model_copy(update={"name": name}) for name in (f"m{k:03}" for k in range(asked.models))}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder, "home"), database="")
        store = open_store(settings, SystemClock())
        models = [made(spec, number) for number, spec in enumerate(specs.values())]
        store.commit(Entry("benchmark", "put", "all"), [put for puts, _ in models for put in puts])
        store.remember(*(put for _, memory in models for put in memory))
        metrics, took, used = LoopMetrics(settings, specs, SystemClock(), lambda: reading(settings)), [], []
        for _ in range(asked.scrapes):
            began, cpu = time.perf_counter(), time.process_time()
            text = metrics.text(0)
            took.append(time.perf_counter() - began)
            used.append(time.process_time() - cpu)
        store.close()
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    print(f"{asked.models} models: {series:,} series, {len(text):,} bytes")
    wall, cpu_ms = (np.percentile(times, [50, 95]) * 1000 for times in (took, used))
    print(f"a scrape: p50 {wall[0]:.0f} ms, p95 {wall[1]:.0f} ms; processor p50 {cpu_ms[0]:.0f}, p95 {cpu_ms[1]:.0f}")


if __name__ == "__main__":
    main()
