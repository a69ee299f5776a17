"""How soon an alert that was committed is with its receiver, and what a storm costs, on this machine.

    python -m drift_pipeline_tests.benchmarks.alerts [--runs 10] [--storm 1000]

Real parts: the control store on disk, the delivery of a tick, HTTP to an endpoint here. What a tick waits before it
begins (up to DRIFT_TICK_SECONDS) and what it counts and judges before come on top.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np

from drift_pipeline.alerts.delivery import Alerting
from drift_pipeline_tests.alerts.worlds import KEY, World, listening

KEYS = {"PD_KEY": "a1" * 16, "HOOK_KEY": "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--storm", type=int, default=1000)
    given = parser.parse_args()
    os.environ |= KEYS
    with tempfile.TemporaryDirectory() as folder, listening() as pager, listening() as hook:
        world = World(Path(folder, "home"))
        channels = {
            "pager": {"kind": "pagerduty", "secret": "PD_KEY", "url": pager.url},
            "hook": {"kind": "webhook", "secret": "HOOK_KEY", "url": hook.url},
        }
        world.routes(channels)
        alerting = Alerting(world.settings, world.store, world.clock)
        alerting.deliver()
        took = [timed(partial(told, world, alerting, f"model_{n}")) for n in range(given.runs)]
        p50, p95 = np.percentile(took, [50, 95]) * 1000
        print(f"from the commit of an incident to two receivers, {given.runs} runs: p50 {p50:.0f}, p95 {p95:.0f} ms")
        before = len(pager.posted)
        seconds = timed(partial(storm, world, alerting, given.storm))
        pages = len(pager.posted) - before
        print(f"{given.storm:,} alerts of 10 incidents: {pages} pages in {seconds:.1f} s, commits included")
        world.store.close()


def timed(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def told(world: World, alerting: Alerting, model: str) -> None:
    world.opened(model)
    alerting.deliver()


def storm(world: World, alerting: Alerting, alerts: int) -> None:
    """Over a minute of the clock, a tick each ten seconds."""
    for model in range(10):
        world.opened(f"storm_{model}")
    for part in range(6):
        world.clock.advance_to(world.clock.now() + timedelta(seconds=10))
        for number in range((alerts - 10) // 6 + (part < (alerts - 10) % 6)):
            one = world.alert(f"storm_{number % 10}", f"{part}-{number}", "incident.opened")
            named = replace(one, body={**one.body, "incident": KEY})
            world.commit("incident.joined", f"storm_{number % 10}", {"key": KEY, "kpis": {}}, messages=[named])
        alerting.deliver()


if __name__ == "__main__":
    main()
