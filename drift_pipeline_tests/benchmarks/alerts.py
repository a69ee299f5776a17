"""How soon an incident that was committed is a page, by the outbox and by Prometheus, and what a storm costs.

    python -m drift_pipeline_tests.benchmarks.alerts [--runs 10] [--storm 1000]

Real parts: the control store on disk, the delivery, HTTP to endpoints here that check PagerDuty's schema; a process
`drift exporter`, Prometheus and Alertmanager with the files of deploy/prometheus as they are. Three measures:

- the delivery alone: from the commit to two receivers, asked for at once;
- both ways at once, some 4 minutes: the outbox is looked at each 5 s, as the sensor `alerts` of `drift up` does
  (Dagster's own lateness, some seconds, is not in it); Prometheus scrapes each 15 s, and `DriftIncident` leaves the
  outbox 2 minutes. The channel's name does not inhibit it. The incidents begin at seeded moments;
- a storm.

From the deciding event to the commit it is `...benchmarks.faults --detections`: add it.
"""

import argparse
import os
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from drift_pipeline.alerts.alert import dedup_key
from drift_pipeline.alerts.delivery import Alerting
from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import Put
from drift_pipeline.serving.up import DRIFT
from drift_pipeline_tests.alerts.pagerduty import PagerDuty, paging
from drift_pipeline_tests.alerts.worlds import KEY, World, listening
from drift_pipeline_tests.observability import deployed
from drift_pipeline_tests.parts import alertmanager, prometheus
from drift_pipeline_tests.parts.cache import MissingError

KEYS = {"PD_KEY": "a1" * 16, "HOOK_KEY": "whsec_YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4"}
LOOK_S, PATIENCE_S, APART_S = 5.0, 300.0, (2.0, 8.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--storm", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ |= KEYS
    delivery(given.runs, given.storm)
    try:
        both_ways(given.runs, random.Random(given.seed))
    except MissingError as error:
        print(f"by Prometheus: not measured: {error}")


def delivery(runs: int, alerts: int) -> None:
    """Asked for at once, and in a storm."""
    with tempfile.TemporaryDirectory() as folder, paging() as pager, listening() as hook:
        world = World(Path(folder, "home"))
        channels = {
            "pager": {"kind": "pagerduty", "secret": "PD_KEY", "url": pager.url},
            "hook": {"kind": "webhook", "secret": "HOOK_KEY", "url": hook.url},
        }
        world.routes(channels)
        alerting = Alerting(world.settings, world.store, world.clock)
        alerting.deliver()
        tell("the delivery alone", [timed(partial(told, world, alerting, f"model_{n}")) for n in range(runs)])
        before = len(pager.events)
        seconds = timed(partial(storm, world, alerting, alerts))
        pages = len(pager.events) - before
        print(f"{alerts:,} alerts of 10 incidents: {pages} pages in {seconds:.1f} s, commits included", flush=True)
        world.store.close()


def tell(what: str, seconds: Sequence[float]) -> None:
    p50, p95 = np.percentile(seconds, [50, 95])
    print(f"from the commit to the page, {what}: p50 {p50:.3f}, p95 {p95:.3f} s of {len(seconds)} runs", flush=True)


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


def both_ways(runs: int, chance: random.Random) -> None:
    """Raises MissingError where Prometheus or Alertmanager is not here."""
    models = [f"model_{number}" for number in range(runs)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pager, tickets = stack.enter_context(paging()), stack.enter_context(listening())
        world = World(folder / "home")
        stack.callback(world.store.close)
        world.routes({"outbox": {"kind": "pagerduty", "secret": "PD_KEY", "url": pager.url}})
        for model in models:
            world.commit("model.adopted", model, {}, puts=[Put("model", model, {"version": "v1"})])
            ticked(world, model)
        routes = deployed.routes(folder, KEYS["PD_KEY"], pager.url, tickets.url)
        at = stack.enter_context(alertmanager.running(routes))
        exporter = stack.enter_context(exporting(world.settings.home))
        scraping = deployed.scraping(exporter, at.url.removeprefix("http://"))
        server = stack.enter_context(prometheus.running(scraping, lookback="5m"))
        server.until("drift_up == 1", bool)
        stack.enter_context(looking(Alerting(world.settings, world.store, world.clock)))
        began = {}
        for model in models:
            time.sleep(chance.uniform(*APART_S))
            began[dedup_key(f"production/{model}/{KEY}")] = time.monotonic()
            world.opened(model)
            ticked(world, model, open=True)
        for what, about in (("the outbox", "incident.opened"), ("Prometheus and Alertmanager", "DriftIncident")):
            tell(f"by {what}", [came - began[key] for key, came in arrived(pager, about, runs).items()])
    pages = [pager.pages[key] for key in began]
    print(f"pages of {runs} incidents that both told: {sum(pages)}; refused: {len(pager.refused)}")


def ticked(world: World, model: str, **incident: Any) -> None:
    """What a tick leaves for the exporter."""
    now, found = SystemClock().now().isoformat(), world.store.recall(model)
    one = {"open": False, "key": KEY, "opened_at": now, **incident}
    body = {"at": now, "seen": {}, "decided": None, "incident": one}
    world.store.remember(Put("", model, body, found.generation if found else 0))


def arrived(pager: PagerDuty, about: str, wanted: int) -> dict[str, float]:
    """By dedup key, when its first event of that class came."""
    end = time.monotonic() + PATIENCE_S
    while len(first := {one["dedup_key"]: came for came, one in reversed(pager.triggers(about))}) < wanted:
        if time.monotonic() > end:
            raise TimeoutError(f"{about}: {len(first)} of {wanted} came; refused: {pager.refused}")
        time.sleep(0.1)
    return first


@contextmanager
def exporting(home: Path) -> Iterator[str]:
    """HOST:PORT of a process."""
    command = [*DRIFT, "exporter", "--port", "0", "--home", str(home)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            yield process.stderr.readline().split("http://")[1].partition("/")[0]
        finally:
            process.terminate()


@contextmanager
def looking(alerting: Alerting) -> Iterator[None]:
    """Somebody looks at the outbox each 5 s, until the block ends."""
    stop = threading.Event()
    alerting.deliver()

    def look() -> None:
        while not stop.wait(LOOK_S):
            alerting.deliver()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
