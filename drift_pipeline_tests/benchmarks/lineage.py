"""What lineage costs: `python -m drift_pipeline_tests.benchmarks.lineage [--days 180] [--rounds 3]`.

The same synthetic history is replayed with lineage into files and without, in turn, each in a process of its own; then
everything is told of one home once more, and asked where nothing is new. Prints CPU seconds and the share of a replay
that telling costs, which may be 3 % at most: whole replays differ by more than that from run to run on a busy machine.
"""

import argparse
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.loop.lineage import deliver_lineage
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, Drift, synthetic_history

MOST = 1.03
_REPLAY = "from drift_pipeline.cli import main; import sys; main(sys.argv[1:])"
_CALLS = 200


def run(days: int, rounds: int) -> float:
    """One more than the share of a replay that telling costs."""
    spent: dict[str, list[float]] = {"off": [], "on": []}
    with tempfile.TemporaryDirectory() as folder:
        data, spec = Path(folder) / "history.parquet", Path(folder) / "spec.yaml"
        synthetic_history(days, 400, 3, drifts=(Drift("concept", day=days * 0.6),)).write_parquet(data)
        spec.write_text(SAMPLE_SPEC)
        for number in range(rounds):
            for lineage in ("off", "on") if number % 2 else ("on", "off"):
                spent[lineage].append(_replay(data, spec, Path(folder) / f"{lineage}-{number}", lineage))
        told, idle = _told(Path(folder) / "on-0")
    medians = {lineage: statistics.median(seconds) for lineage, seconds in spent.items()}
    print(f"{days} days, {rounds} rounds\n\n| lineage | CPU seconds, median | all |\n|---|---|---|")
    for lineage, seconds in spent.items():
        print(f"| {lineage} | {medians[lineage]:.2f} | {', '.join(f'{one:.2f}' for one in seconds)} |")
    ratio = 1 + told / medians["off"]
    print(f"\nratio of whole replays {medians['on'] / medians['off']:.3f}; telling alone {told:.2f} CPU seconds")
    print(f"{ratio:.3f} of {MOST} at most; a call where nothing is new: {idle * 1000:.2f} ms")
    return ratio


def _replay(data: Path, spec: Path, out: Path, lineage: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", _REPLAY, "replay", str(data), "--spec", str(spec), "--out", str(out), "--json"]
    asked = {**os.environ, "DRIFT_LINEAGE": lineage}
    subprocess.run(command, env=asked, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _told(home: Path) -> tuple[float, float]:
    """CPU seconds of telling all of a home, and seconds of a call where nothing is new."""
    settings, now = Settings(home=home, database=""), datetime.now(UTC)
    with closing(ControlStore(settings.database_url, SystemClock())) as store:
        store.forget(["_lineage/files"])
        before = time.process_time()
        deliver_lineage(settings, store, {}, now, seconds=math.inf, at_once=True)
        told = time.process_time() - before
        began = time.perf_counter()
        for _ in range(_CALLS):
            deliver_lineage(settings, store, {}, now)
        return told, (time.perf_counter() - began) / _CALLS


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=180)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    sys.exit(run(given.days, given.rounds) > MOST)


if __name__ == "__main__":
    main()
