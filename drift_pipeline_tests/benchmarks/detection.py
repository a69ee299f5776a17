"""How long drift detection takes beside the other tools, on the same files in one run: prints tables.

`python -m drift_pipeline_tests.benchmarks.detection --others --rows 100000 1000000 10000000`. Each figure is measured
in a process of its own: imports and compilation are done before, decoding of the files is included. Of 27 columns in
720 hourly zstd files a side are timed:

- ours, reference cached: the current side's profile, then all statistics and verdicts against a profile made before;
- ours, reference rebuilt: bins and the reference's profile too, each side decoded once while it fits into memory;
- Evidently: both sides decoded to pandas, then its own psi, hellinger and ks, of each number, psi and hellinger of
  each level column (0.7.23 keeps no reference profile); once, up to a million rows;
- bare Polars read: `read_parquet` of the current side, and nothing else;
- numpy, Polars: the same cuts by `searchsorted` and `bincount`, or by `cut` and `value_counts`; current side;
- scipy: `ks_2samp` of each number, asymptotic, both sides decoded; once, up to a million rows;
- with `--others`, each in an environment of its own, up to a million rows: DuckDB `histogram` on 999 quantiles that
  were taken before, current side; whylogs `log` of the current side; NannyML's univariate calculator fitted on the
  reference (KS, chi2 and Hellinger), both sides. Their first repeat is their warm-up.

The window is what the loop does by the day: 720 stored hourly profiles merged, of as many rows in total as said.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl

from drift_pipeline.detection.comparing.scan import (
    Named,
    Reread,
    profile_batches,
    profile_files,
    sample_batches,
    sample_rows,
)
from drift_pipeline.detection.counting.binning import Binning, NumericBins, freeze_binning
from drift_pipeline.detection.counting.layout import ColumnCounts, Layout
from drift_pipeline.detection.counting.profile import Profile
from drift_pipeline.detection.counting.stored import encode, merge_stored
from drift_pipeline.detection.judging.compared_columns import ComparedColumns
from drift_pipeline.detection.judging.verdict import FeatureFinding
from drift_pipeline.detection.reference.null import independent
from drift_pipeline.spec import ModelSpec

NUMERIC = tuple(f"x{k}" for k in range(20))
LEVELS = {"c0": 10, "c1": 50, "c2": 200, "c3": 1000}
NAMED = Named("_score", "_label")
HOURS = 720
WARM_ROWS = 120_000
SPEC = ModelSpec.model_validate(
    {
        "name": "benchmark",
        "owner": "nobody",
        "task": "binary_classification",
        "features": {**dict.fromkeys(NUMERIC, "numeric"), **dict.fromkeys(LEVELS, "categorical")},
        "outcome": {"column": "_label"},
        "protected": {"group": "categorical"},
    }
)

# Data


def generate(folder: Path, rows: int, files: int) -> None:
    """Both sides: hourly zstd Parquet files; the current one is moved by 0.1 sd."""
    for seed, side in enumerate(("reference", "current")):
        (folder / side).mkdir(parents=True)
        for hour, (start, end) in enumerate(pairwise(np.linspace(0, rows, files + 1).astype(int).tolist())):
            hourly = _rows(np.random.default_rng([seed, hour]), end - start, 0.1 * seed)
            hourly.write_parquet(folder / side / f"{hour:04d}.parquet", compression="zstd")


def _rows(random: np.random.Generator, n: int, shift: float) -> pl.DataFrame:
    """Normal, lognormal, exponential, small integers, zero-inflated and long-tailed columns; skewed levels."""
    columns: dict[str, Any] = {}
    for k, name in enumerate(NUMERIC):
        z = random.standard_normal(n) + shift
        match k % 6:
            case 0:
                columns[name] = z
            case 1:
                columns[name] = np.exp(z)
            case 2:
                columns[name] = random.exponential(1 + shift, n)
            case 3:
                columns[name] = random.integers(0, 100, n).astype(np.float64)
            case 4:
                columns[name] = np.where(random.random(n) < 0.3, 0.0, z)
            case _:
                columns[name] = random.standard_t(3, n) + shift
    for name, levels in LEVELS.items():
        codes = np.minimum(random.geometric(3 / levels, n), levels)
        columns[name] = "level " + pl.Series(codes).cast(pl.String)
    columns |= {"_score": random.random(n), "_label": (random.random(n) < 0.2).astype(np.int8)}
    columns["group"] = np.array(["a", "b", "c"])[random.integers(0, 3, n)]
    return pl.DataFrame(columns)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


# Measured: each takes the folder of both sides, prepares what is not timed and returns what is


def _statistics(reference: Profile, current: Profile) -> list[FeatureFinding]:
    """All statistics and the verdict of each column, as the live loop has them: the one place that evaluates them."""
    layout, names = Layout.of(reference.binning), tuple(reference.binning.columns)
    before, after = (ColumnCounts.of(layout, side) for side in (reference, current))
    null = independent(names)
    return ComparedColumns(before, after, timedelta(days=30), null=null, missing_null=null, rate=1e-3).findings()


def _frozen(folder: Path) -> Binning:
    sample = sample_rows([folder / "reference"], {**SPEC.watched, "_score": "numeric"})
    return freeze_binning(sample, sample["_score"], SPEC)


def ours(folder: Path) -> Callable[[], object]:
    binning = _frozen(folder)
    reference = profile_files([folder / "reference"], binning, NAMED)
    return lambda: _statistics(reference, profile_files([folder / "current"], binning, NAMED))


def rebuilt(folder: Path) -> Callable[[], object]:
    def run() -> object:
        reference = Reread([folder / "reference"], {**SPEC.watched, "_score": "numeric", "_label": "numeric"})
        sample = sample_batches(reference)
        binning = freeze_binning(sample, sample["_score"], SPEC)
        before = profile_batches(reference, binning, NAMED)
        return _statistics(before, profile_files([folder / "current"], binning, NAMED))

    return run


def bare_read(folder: Path) -> Callable[[], object]:
    return lambda: pl.read_parquet(_files(folder / "current"))


def searchsorted(folder: Path) -> Callable[[], object]:
    cuts = {n: b.cuts for n, b in _frozen(folder).columns.items() if isinstance(b, NumericBins)}

    def run() -> object:
        frame = pl.read_parquet(_files(folder / "current"))
        counts = {
            n: np.bincount(np.searchsorted(c, frame[n].to_numpy()), minlength=len(c) + 1) for n, c in cuts.items()
        }
        return counts, {name: frame[name].value_counts() for name in (*LEVELS, "group")}

    return run


def polars_only(folder: Path) -> Callable[[], object]:
    cuts = {n: b.cuts.tolist() for n, b in _frozen(folder).columns.items() if isinstance(b, NumericBins)}

    def run() -> object:
        frame = pl.read_parquet(_files(folder / "current"))
        counts = {n: frame[n].cut(c).to_physical().value_counts() for n, c in cuts.items()}
        return counts, {name: frame[name].value_counts() for name in (*LEVELS, "group")}

    return run


def scipy_ks(folder: Path) -> Callable[[], object]:
    from scipy.stats import ks_2samp

    def run() -> object:
        sides = [pl.read_parquet(_files(folder / side)) for side in ("reference", "current")]
        return [ks_2samp(*(side[n].to_numpy() for side in sides), method="asymp") for n in (*NUMERIC, "_score")]

    return run


def evidently(folder: Path) -> Callable[[], object]:
    """Its own psi, hellinger and ks on both sides' rows: it keeps no profile of a reference."""
    import os
    import warnings

    os.environ["DO_NOT_TRACK"] = "1"
    warnings.simplefilter("ignore")
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    numeric, levels = [*NUMERIC, "_score"], [*LEVELS, "group"]
    metrics = [ValueDrift(column=n, method=method) for n in numeric for method in ("psi", "hellinger", "ks")]
    metrics += [ValueDrift(column=n, method=method) for n in levels for method in ("psi", "hellinger")]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=levels)

    def run() -> object:
        frames = (pl.read_parquet(_files(folder / side)).to_pandas() for side in ("reference", "current"))
        reference, current = (Dataset.from_pandas(frame, data_definition=definition) for frame in frames)
        return Report(metrics).run(current, reference).dict()

    return run


MEASURED: dict[str, Callable[[Path], Callable[[], object]]] = {
    "ours, reference cached": ours,
    "ours, reference rebuilt": rebuilt,
    "Evidently psi, hellinger, ks": evidently,
    "bare Polars read": bare_read,
    "numpy searchsorted, bincount": searchsorted,
    "Polars cut, value_counts": polars_only,
    "scipy ks_2samp, both sides": scipy_ks,
}
SLOW = {"Evidently psi, hellinger, ks": 1_000_000, "scipy ks_2samp, both sides": 1_000_000}  # up to so many rows
WHOLE = {"Polars cut, value_counts": 1_000_000, "numpy searchsorted, bincount": 10_000_000}

# Other tools, in environments of their own

_READ = """
import glob, json, resource, sys, time
folder, repeats = sys.argv[1], int(sys.argv[2])
files = lambda side: sorted(glob.glob(f"{folder}/{side}/*.parquet"))
numeric, levels = [f"x{k}" for k in range(20)] + ["_score"], ["c0", "c1", "c2", "c3", "group"]
"""
_TOLD = """
times = []
for _ in range(repeats):
    start = time.perf_counter()
    run()
    times.append(time.perf_counter() - start)
print(json.dumps({"seconds": times, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""
OTHERS: dict[str, tuple[tuple[str, ...], str]] = {
    "DuckDB histogram": (
        ("duckdb", "numpy"),
        """
import duckdb
before, after = (f"read_parquet('{folder}/{side}/*.parquet')" for side in ("reference", "current"))
ranks = [i / 1000 for i in range(1, 1000)]
quantiles = ", ".join(f"approx_quantile({n}, {ranks})" for n in numeric)
edges = duckdb.execute(f"select {quantiles} from (select * from {before} limit 200000)").fetchone()
wanted = [f"histogram({n}, {sorted(set(e))})" for n, e in zip(numeric, edges)] + [f'histogram("{n}")' for n in levels]
query = f"select {', '.join(wanted)} from {after}"
def run(): duckdb.execute(query).fetchone()
""",
    ),
    "whylogs profile": (
        ("whylogs", "pandas<2.3", "pyarrow<18", "numpy<2", "setuptools<81"),
        """
import pandas as pd, whylogs
def run(): whylogs.log(pd.concat([pd.read_parquet(f) for f in files('current')], ignore_index=True)).view()
""",
    ),
    "NannyML univariate": (
        ("nannyml", "statsmodels", "setuptools<81"),
        """
import pandas as pd, nannyml
def run():
    sides = [pd.concat([pd.read_parquet(f) for f in files(s)], ignore_index=True) for s in ('reference', 'current')]
    tool = nannyml.UnivariateDriftCalculator(column_names=numeric + levels, chunk_number=1, treat_as_categorical=levels,
        continuous_methods=['kolmogorov_smirnov', 'hellinger'], categorical_methods=['chi2', 'hellinger'])
    tool.fit(sides[0]).calculate(sides[1]).to_df()
""",
    ),
}


@dataclass(frozen=True)
class Figure:
    """Median seconds and peak memory of the process; or why there are none."""

    seconds: float = float("nan")
    rss_mb: float = float("nan")
    runs: int = 0
    failed: str = ""


def _other(name: str, folder: Path, repeats: int, home: Path) -> Figure:
    packages, body = OTHERS[name]
    venv = home / name.split(maxsplit=1)[0].lower()
    if not (venv / "installed").exists():
        made = _run([sys.executable, "-m", "venv", "--clear", venv])
        if made.returncode:
            return Figure(failed=f"no environment: {_last(made.stderr or made.stdout)}")
        found = _run([venv / "bin" / "python", "-m", "pip", "install", "-q", "--no-input", *packages])
        if found.returncode:
            return Figure(failed=f"does not install: {_last(found.stderr)}")
        (venv / "installed").touch()
    return _figure(_run([venv / "bin" / "python", "-c", _READ + body + _TOLD, folder, str(repeats)]))


# Measuring


def measure(name: str, folder: Path, warm: Path, repeats: int) -> dict[str, Any]:
    """Seconds of each repeat and the peak memory, of this process."""
    MEASURED[name](warm)()
    run = MEASURED[name](folder)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return {"seconds": times, "rss_mb": _peak_mb()}


def measure_window(folder: Path, repeats: int) -> dict[str, Any]:
    """The 30-day window from stored hourly profiles: seconds to merge them, and the largest one's bytes."""
    binning = _frozen(folder)
    start = time.perf_counter()
    stored = [encode(profile_files([file], binning, NAMED)) for file in _files(folder / "current")]
    made = time.perf_counter() - start
    merge_stored(binning, stored[:2])
    times = []
    for _ in range(max(repeats, 3)):
        start = time.perf_counter()
        merge_stored(binning, stored)
        times.append(time.perf_counter() - start)
    return {"seconds": times, "rss_mb": _peak_mb(), "bytes": max(map(len, stored)), "made": made, "hours": len(stored)}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def _self(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "-m", "drift_pipeline_tests.benchmarks.detection", *arguments])


def _figure(found: subprocess.CompletedProcess[str]) -> Figure:
    if found.returncode:
        return Figure(failed=f"fails: {_last(found.stderr)}")
    told = json.loads(found.stdout.splitlines()[-1])
    return Figure(median(told["seconds"]), told["rss_mb"], len(told["seconds"]))


def _last(text: str) -> str:
    """The line that names the error, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no message"]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Exit): ", line)]
    return (named or lines)[-1][:100].replace("|", "/")


def figures(folder: Path, warm: Path, rows: int, options: argparse.Namespace) -> dict[str, Figure]:
    found = {}
    for name in MEASURED:
        if options.only and not any(name.startswith(start) for start in options.only):
            continue
        if rows > min(SLOW.get(name, rows), WHOLE.get(name, rows)):
            found[name] = Figure(failed="not run at this size")
            continue
        repeats = 1 if name in SLOW else options.repeats
        found[name] = _figure(_self("--measure", name, "--data", folder, "--warm", warm, "--repeats", str(repeats)))
    if options.others and rows <= 1_000_000:
        found |= {name: _other(name, folder, options.repeats, options.home) for name in OTHERS}
    return found


# Tables


def table(rows: int, found: dict[str, Figure]) -> str:
    """Markdown; ratios to Evidently (times faster) and to a bare read of the same columns (times longer)."""
    slow, bare = (found.get(name, Figure()).seconds for name in ("Evidently psi, hellinger, ks", "bare Polars read"))
    lines = [
        f"| {rows:,} rows a side | median s | runs | peak MB | Evidently / it | it / bare read |",
        "|---|---|---|---|---|---|",
    ]
    for name, figure in found.items():
        if figure.failed:
            lines.append(f"| {name} | {figure.failed} | | | | |")
            continue
        ratios = f"{slow / figure.seconds:.0f} | {figure.seconds / bare:.2f}"
        lines.append(f"| {name} | {figure.seconds:.3f} | {figure.runs} | {figure.rss_mb:.0f} | {ratios} |")
    return "\n".join(lines)


def window_table(told: Iterable[tuple[int, dict[str, Any]]]) -> str:
    lines = [
        "| rows | hourly profiles | merge, median s | / smallest | max bytes | making all, s |",
        "|---|---|---|---|---|---|",
    ]
    smallest = 0.0
    for rows, one in told:
        seconds = median(one["seconds"])
        smallest = smallest or seconds
        ratio = seconds / smallest
        lines.append(
            f"| {rows:,} | {one['hours']} | {seconds:.3f} | {ratio:.2f} | {one['bytes']:,} | {one['made']:.1f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--files", type=int, default=HOURS, help="hourly files a side")
    parser.add_argument("--warm-rows", type=int, default=WARM_ROWS)
    parser.add_argument("--only", nargs="+", default=[], help="measurements whose names begin so")
    parser.add_argument("--others", action="store_true", help="also DuckDB, whylogs and NannyML, installed meanwhile")
    parser.add_argument("--keep", type=Path, help="a folder for the data, used again when it is there")
    for hidden in ("--measure", "--window", "--generate"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    for hidden in ("--data", "--warm"):
        parser.add_argument(hidden, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.generate:
        generate(options.data, int(options.generate), options.files)
    elif options.measure:
        print(json.dumps(measure(options.measure, options.data, options.warm, options.repeats)))
    elif options.window:
        print(json.dumps(measure_window(options.data, options.repeats)))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            options.home = Path(scratch)
            _report(options, options.keep or Path(scratch))


def _report(options: argparse.Namespace, home: Path) -> None:
    warm = _data(home, options.warm_rows, min(4, options.files))
    windows = []
    for rows in options.rows:
        folder = _data(home, rows, options.files)
        print(table(rows, figures(folder, warm, rows, options)), flush=True, end="\n\n")
        found = _self("--window", "yes", "--data", folder, "--repeats", str(options.repeats))
        if found.returncode:
            raise RuntimeError(found.stderr)
        windows.append((rows, json.loads(found.stdout.splitlines()[-1])))
    print(window_table(windows))


def _data(home: Path, rows: int, files: int) -> Path:
    """Made by another process: this one must stay small, for a child's peak memory begins at its parent's."""
    folder = home / f"{rows}-{files}"
    if not folder.exists():
        found = _self("--generate", str(rows), "--data", folder, "--files", str(files))
        if found.returncode:
            raise RuntimeError(found.stderr)
    return folder


if __name__ == "__main__":
    main()
