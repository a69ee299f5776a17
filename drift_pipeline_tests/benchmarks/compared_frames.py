"""A comparison of frames in memory beside the same tables as files: what does the Python door cost?

`python -m drift_pipeline_tests.benchmarks.compared_frames [--rows 100000] [--columns 20] [--rounds 5]`. `dp.compare` of
two pandas frames and `drift compare` of the same rows as Parquet take turns, each in this process, after one round that
does not count; and the CPU seconds of `import drift_pipeline` in new processes.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from click.testing import CliRunner

import drift_pipeline as dp
from drift_pipeline.cli import drift

IMPORT = "import time; a = time.process_time(); import drift_pipeline; print(time.process_time() - a)"


def frame(rows: int, columns: int, seed: int) -> pd.DataFrame:
    """Three of four columns are numbers, the others text with 20 levels."""
    drawn = np.random.default_rng(seed)
    numbers = {f"n{k}": drawn.normal(size=rows) for k in range(columns - columns // 4)}
    levels = np.array([f"level {k}" for k in range(20)])
    return pd.DataFrame({**numbers, **{f"c{k}": levels[drawn.integers(0, 20, rows)] for k in range(columns // 4)}})


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    with redirect_stdout(StringIO()):
        work()
    return time.perf_counter() - began


def by_command(files: list[str]) -> None:
    found = CliRunner().invoke(drift, ["compare", *files])
    if found.exit_code:
        raise SystemExit(f"drift compare failed: {found.output}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(arguments)
    reference, current = sides = [frame(asked.rows, asked.columns, seed) for seed in (0, 1)]
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / f"{number}.parquet") for number in (0, 1)]
        for side, file in zip(sides, files, strict=True):
            side.to_parquet(file)
        took = [
            (seconds(lambda: str(dp.compare(reference, current))), seconds(lambda: by_command(files)))
            for _ in range(asked.rounds + 1)
        ][1:]
    frames, parquet = (statistics.median(side) for side in zip(*took, strict=True))
    print(f"{asked.rows:,} x {asked.columns}, medians of {asked.rounds} rounds:")
    print(f"dp.compare of pandas frames {frames:.3f} s, drift compare of Parquet {parquet:.3f} s")
    print(f"ratio {frames / parquet:.2f}")
    imports = [float(subprocess.check_output([sys.executable, "-c", IMPORT])) for _ in range(asked.rounds)]
    print(f"import drift_pipeline: {statistics.median(imports):.3f} s of CPU")


if __name__ == "__main__":
    main()
