"""What a graph costs the gateway beside one pipeline, as a ratio: `python -m drift_pipeline_tests.benchmarks.graph`.

One pipeline of 24 features, 150 trees; and graphs of two and of three steps, each step 150 trees of as many features of
its own (12 or 8) and the output of the step before. Gateways are processes of their own, asked as in `gateway`, in turn
in each round; told are the medians over the rounds, and of the ratios within each. Then the scorers alone, in this
process: microseconds of CPU of one row, and of each of a hundred at once.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from drift_pipeline.control.canonical import sha256
from drift_pipeline.registry.bundle import Bundle, dump_pipeline, make_bundle
from drift_pipeline.registry.graph import GRAPH, MODEL, file_of
from drift_pipeline.serving.scoring import make_scorer
from drift_pipeline.training.graph import load_model
from drift_pipeline.training.trainers import TRAINERS, fit, score
from drift_pipeline_tests.benchmarks import gateway
from drift_pipeline_tests.benchmarks.gateway import SPEC, Figure, figure, load, ready, requests, rows, server
from drift_pipeline_tests.serving.worlds import AT, Home

PARAMS = {"max_iter": 150, "max_leaf_nodes": 8}
KINDS = {"one pipeline": 1, "two steps": 2, "three steps": 3}


@dataclass(frozen=True)
class Found:
    """By kind: a figure a round, and microseconds a row: alone, and of a hundred."""

    figures: Mapping[str, Sequence[Figure]]
    alone_us: Mapping[str, float]
    together_us: Mapping[str, float]


def bundle_of(steps: int) -> Bundle:
    """A model of so many steps; one is a plain pipeline."""
    fields = {"version": f"v{steps}", "features": dict(SPEC.features)}
    if steps == 1:
        return make_bundle(fields, {MODEL: gateway.model(0)})
    frame, names, graph, files = rows(5000, 0), [*SPEC.features], list[dict[str, Any]](), dict[str, bytes]()
    for number in range(steps):
        inputs = names[number::steps] + [one["name"] for one in graph[-1:]]
        of = SPEC.model_copy(update={"features": {one: SPEC.features.get(one, "numeric") for one in inputs}})
        pipeline = fit(TRAINERS["gradient_boosting"].build(PARAMS, of, number), frame, of.features)
        name, data = f"step_{number + 1}", dump_pipeline(pipeline)
        frame = frame.with_columns(pl.Series(name, score(pipeline, frame, of.features)))
        files[file_of(name)] = data
        graph.append({"name": name, "inputs": inputs, "threshold": None, "trainer": "given", "sha256": sha256(data)})
    return make_bundle({**fields, GRAPH: graph}, files)


def measure(seconds: float, rounds: int, connections: int) -> Found:
    bundles = {kind: bundle_of(steps) for kind, steps in KINDS.items()}
    figures: dict[str, list[Figure]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        key = home.producer(rows_per_second=1_000_000)
        asked, times = requests(key, 200), {"trained_from": AT.isoformat(), "unseen_from": AT.isoformat()}
        for number in range(rounds):
            for kind in sorted(KINDS, reverse=bool(number % 2)):
                fields = {name: value for name, value in bundles[kind].manifest.items() if name != "files"}
                digest = home.registry.put(fields, bundles[kind].files).digest
                home.champion({"digest": digest, "version": str(fields["version"]), **times})
                with server("gateway", home.settings.home) as port:
                    asyncio.run(ready(port, key))
                    asyncio.run(load(port, asked, connections, min(0.5, seconds)))
                    figures[kind].append(figure(asyncio.run(load(port, asked, connections, seconds)), seconds))
                print(f"round {number + 1} of {rounds}: {kind}", file=sys.stderr, flush=True)
        home.store.close()
    scorers = {kind: make_scorer(load_model(bundle), SPEC.features) for kind, bundle in bundles.items()}
    assert all(scorer.taken_apart for scorer in scorers.values())
    alone, together = ({kind: _us(scorer.score, n) for kind, scorer in scorers.items()} for n in (1, 100))
    return Found(figures, alone, together)


def _us(score_of: Any, size: int) -> float:
    """Microseconds of CPU a row, the best of five passes over 1,000 rows, `size` at once."""
    told = rows(1000, 9).select(*SPEC.features).rows()
    passes = []
    for _ in range(5):
        began = time.thread_time()
        for at in range(0, len(told), size):
            score_of(told[at : at + size])
        passes.append((time.thread_time() - began) / len(told))
    return 1e6 * min(passes)


def ratios(found: Found, kind: str) -> tuple[float, float]:
    """Requests a second and p95 beside one pipeline of the same round, the medians."""
    pairs = [*zip(found.figures[kind], found.figures["one pipeline"], strict=True)]
    rates = [one.requests_per_second / beside.requests_per_second for one, beside in pairs]
    return float(np.median(rates)), float(np.median([one.p95_ms / beside.p95_ms for one, beside in pairs]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    found = measure(options.seconds, options.rounds, options.connections)
    head = f"{'':14}{'requests/s':>12}{'p50 ms':>9}{'p95 ms':>9}{'rate':>8}{'p95':>8}{'us a row':>10}{'of 100':>8}"
    print(head)
    for kind, told in found.figures.items():
        middle = [
            np.median([getattr(one, name) for one in told]) for name in ("requests_per_second", "p50_ms", "p95_ms")
        ]
        rate, p95 = ratios(found, kind)
        figures = f"{middle[0]:12,.0f}{middle[1]:9.2f}{middle[2]:9.2f}{rate:7.2f}x{p95:7.2f}x"
        print(f"{kind:14}{figures}{found.alone_us[kind]:10.0f}{found.together_us[kind]:8.1f}")


if __name__ == "__main__":
    main()
