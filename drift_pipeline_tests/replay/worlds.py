"""One small world that turns round on day 45, replayed once for all tests that read what came of it."""

import atexit
import functools
import json
import re
import shutil
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl

from drift_pipeline.cli import main
from drift_pipeline.clock import Window
from drift_pipeline.telemetry.lake import Lake, Table
from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, START, Drift, synthetic_history

DAYS, ROWS_PER_DAY, TURN, REFERENCE = 84, 100, 45, 28
BASELINE_AT = START + timedelta(days=REFERENCE)
MODEL = "recommendation_v3"
SPEC = SAMPLE_SPEC + "retrain: {trials: 1, trainer: logistic_regression}\n"
WHOLE = Window(datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))


@dataclass(frozen=True)
class Ended:
    """What a call of the command came to."""

    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """Lines on stderr but those of progress, which a busy machine makes it tell."""
        return [line for line in self.err.splitlines() if not re.match(r"[\d,]+( of [\d,]+)? (tick|row|window)s", line)]

    @property
    def summary(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        return document


def drift(*arguments: object) -> Ended:
    """The command in this process."""
    out, err = StringIO(), StringIO()
    code: object = None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return Ended(code, out.getvalue(), err.getvalue())


def replay(data: Path, out: Path, *options: object, spec: str = SPEC) -> Ended:
    """`drift replay DATA --json` with the spec written beside the data."""
    path = data.with_name(f"{out.name}.yaml")
    path.write_text(spec)
    return drift("replay", data, "--spec", path, "--out", out, "--json", "--reference", f"{REFERENCE}d", *options)


@functools.cache
def folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="drift-world-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@functools.cache
def history() -> pl.DataFrame:
    return synthetic_history(DAYS, ROWS_PER_DAY, 3, drifts=(Drift("concept", day=TURN),))


@functools.cache
def data() -> Path:
    path = folder() / "history.parquet"
    history().write_parquet(path)
    return path


@functools.cache
def replayed() -> tuple[Ended, Path]:
    """How the shared replay ended, and its folder, which is only read; copy it to break it."""
    out = folder() / "out"
    return replay(data(), out), out


@functools.cache
def tightened() -> tuple[Ended, Path]:
    """The same history with `--triggers drift` and a smaller allowed drop."""
    out = folder() / "tight"
    return replay(data(), out, "--triggers", "drift", "--set", "kpis.auroc.drop=0.02"), out


def landed(out: Path, table: Table) -> pl.DataFrame:
    return Lake(out / "lake" / MODEL, source="tests").read(table, WHOLE)
