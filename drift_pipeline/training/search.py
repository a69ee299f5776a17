"""Search hyperparameters forward in time, choose how far back to train, and fit.

Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011 (TPE). Forward folds: a model is judged
only on rows that are newer than all it was fitted on.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.detection.judging.performance import Performance, performance_of
from drift_pipeline.errors import InputError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.own import Source, source_of, told
from drift_pipeline.training.trainers import Params, Trainer, fit, one_thread, predicted, score, table, trainer_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna import Trial as Asked
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial
    from sklearn.pipeline import Pipeline

    from drift_pipeline.training.graph import Model

Progress = Callable[[int, int], None]
Keep = Callable[["Study"], None]
FOLDS = 3
FOLDS_SHARE = 0.45  # of the rows, the newest, are judged on
MOST_SEARCH_ROWS = 50_000
MOST_FOLD_ROWS = 8_000
STARTUP_TRIALS = 8
SHORTER = (4, 16, 64)
LEAST_START_ROWS = 1000
LEAST_FRESH_ROWS = 250
WORKER = "worker"  # the attribute of a shared study's trials
START_MARGIN, START_Z = 0.05, 3.0


@dataclass(frozen=True)
class Trial:
    """What was tried, and its mean AUROC or MAE over the folds; None where that is no number."""

    params: Params
    validation: float | None


@dataclass(frozen=True)
class Found:
    """The best of the trials; rows before `start_row` of the searched frame are better left out.

    `validation` is its mean AUROC or MAE over the folds.
    """

    params: Params
    validation: float
    trials: "tuple[Trial, ...]"
    start_row: int


@dataclass(frozen=True)
class Trained:
    """What was fitted on the `used` rows, `rows` in number, the oldest of them at `start`; `source` is the model's own
    trainer, if any."""

    pipeline: "Model"
    params: Params
    validation: float
    rows: int
    trials: "tuple[Trial, ...]"
    start: datetime
    used: pl.DataFrame
    source: Source | None = None

    @property
    def trainer_source(self) -> str | None:
        """The digest of the model's own trainers; None of packaged ones."""
        return self.source.digest if self.source else None


@dataclass(frozen=True)
class Shared:
    """A study that several processes work on, of which this is the worker of that number."""

    study: "Study"
    worker: int


@dataclass(frozen=True)
class _Fold:
    """Prepared columns and labels: the older ones to fit on, the newer ones to judge on."""

    columns: Any
    labels: npt.NDArray[Any]
    newer_columns: Any
    newer_labels: npt.NDArray[Any]


def train(
    frame: pl.DataFrame,
    spec: ModelSpec,
    seed: int,
    fresh: int = 0,
    progress: Progress | None = None,
    source: Source | None = None,
    keep: Keep | None = None,
    found: Found | None = None,
) -> Trained:
    """Search, then fit on every row from the start row on. Deterministic for a seed.

    Args:
        fresh: how many of the newest rows are of a world that changed; 0 = none that is known of.
        progress: is called with (trials done, trials in all).
        source: the file of the model's own trainer, as it was pinned; None = as it lies there, if it has one.
        keep: is called with the study when it is over.
        found: of a search that is over already; nothing is searched then.

    Raises:
        InputError: see `search`; SpecError: the model's own trainer failed.
    """
    source = source or source_of(spec)
    with blamed(source):
        trainer = trainer_of(spec, source)
        found = found or search(frame, spec, seed, fresh, progress, trainer, keep)
        assert found is not None, "a study that nobody shares is over when it was searched"
        rows = frame[found.start_row :]
        pipeline = _fitted(rows, found.params, spec, seed, trainer)
    start = rows["_time"][0]
    return Trained(pipeline, found.params, found.validation, rows.height, found.trials, start, rows, source)


@contextmanager
def blamed(source: Source | None) -> Iterator[None]:
    """What fails inside is told as a SpecError of the model's own trainer, where it has one."""
    try:
        yield
    except Exception as error:
        if source is None:
            raise
        raise told(source, "what it builds cannot be trained", error) from error


def search(
    frame: pl.DataFrame,
    spec: ModelSpec,
    seed: int,
    fresh: int = 0,
    progress: Progress | None = None,
    trainer: Trainer | None = None,
    keep: Keep | None = None,
    shared: "Shared | None" = None,
) -> Found | None:
    """Find params and start row for rows (in order of time) with features and `_label`.

    `spec.retrain.trials` trials maximise the mean AUROC, or minimise the mean MAE, over three expanding forward folds
    on the newest 45 % of the newest 50,000 rows, each fitted on at most 8,000 rows evenly spaced over its past: on a
    real market's data the models found so were as good as with all rows, for two thirds of the CPU. A fold that lacks a
    class on either side, or has one label only, is left out.

    Args:
        progress: is called with (trials done, trials in all).
        shared: a study that other processes work on as well (`studies.shared_study`); None = of this search alone.

    Returns:
        What was found; None where others are still at trials of the same study.

    Raises:
        InputError: every fold lacks a class, or has one label only.
    """
    trainer = trainer or trainer_of(spec)
    with one_thread():
        folds = list(_folds(frame.tail(MOST_SEARCH_ROWS), trainer, spec, seed))
        if not folds:
            raise InputError(
                f"{spec.name}: {frame.height:,} rows hold no fold with {performance_of(spec).needs} to judge on; "
                "wait for more labels"
            )
        study = _searched(folds, spec, seed, progress, trainer, shared)
    tried = _tried(study)
    if any(not one.state.is_finished() for one in tried):
        return None
    if keep is not None:
        keep(study)
    best = study.best_trial
    start = start_row(frame, best.params, spec, seed, fresh, trainer)
    trials = tuple(Trial(dict(one.params), one.value) for one in tried)
    return Found(dict(best.params), float(study.best_value), trials, start)


def _searched(
    folds: Sequence[_Fold],
    spec: ModelSpec,
    seed: int,
    progress: Progress | None,
    trainer: Trainer,
    shared: "Shared | None",
) -> "Study":
    """The study, once nobody has to begin another trial of it."""
    performance, trials = performance_of(spec), spec.retrain.trials
    study = shared.study if shared else make_study(seed, maximize=performance.higher_is_better)
    while (trial := _next(study, trials)) is not None:
        if shared is not None:
            trial.set_user_attr(WORKER, shared.worker)
        whole = trainer.build(trainer.suggest(trial), spec, seed)
        model = whole[-1] if trainer.shares_columns else whole
        study.tell(trial, float(np.mean([_validated(model, fold, performance) for fold in folds])))
        if progress is not None:
            progress(trial.number + 1, trials)
    return study


def start_row(
    frame: pl.DataFrame, params: Params, spec: ModelSpec, seed: int, fresh: int = 0, trainer: Trainer | None = None
) -> int:
    """First row to train on: 0, unless a shorter window is decisively better on the newest rows.

    Shorter windows are the newest 1/4, 1/16 and 1/64, and what is fresh. Decisively: fitted without the newest rows
    (half of the fresh ones, or 5 % of all where none is known to be fresh) and compared on them, the shorter window's
    gain over the whole one is more than 5 % (points of AUROC, or of the MAE) at three standard errors. Old rows are
    worth keeping in any world but one whose concept was turned round, and a shorter window that wins by chance costs
    more than one that is missed: hence the margin. Each fit sees at most 50,000 rows, evenly spaced over its window.
    """
    newest = min(max(fresh // 2, LEAST_FRESH_ROWS) if fresh else max(500, frame.height // 20), 20_000)
    cut = frame.height - newest
    judged = frame[max(cut, 0) :]
    labels, performance = judged["_label"].to_numpy(), performance_of(spec)
    spans = [cut // part for part in SHORTER if cut // part >= LEAST_START_ROWS]
    spans += [fresh - newest] if LEAST_FRESH_ROWS <= fresh - newest < cut else []
    if not spans or not performance.enough(labels, 50):
        return 0

    def scores(rows: pl.DataFrame) -> npt.NDArray[np.float64] | None:
        rows = rows.gather_every(-(-rows.height // MOST_SEARCH_ROWS))
        if not _both(rows["_label"]):
            return None
        return score(_fitted(rows, params, spec, seed, trainer or trainer_of(spec)), judged, spec.features)

    whole = scores(frame[:cut])
    if whole is None:
        return 0
    best, start = START_MARGIN, 0
    for span in spans:
        shorter = scores(frame[cut - span : cut])
        if shorter is None:
            continue
        found = performance.compare(labels, shorter, whole)
        bound = found.gain - START_Z * found.standard_error
        if bound > best:
            best, start = bound, cut - span
    return start


def _folds(frame: pl.DataFrame, trainer: Trainer, spec: ModelSpec, seed: int) -> Iterator[_Fold]:
    """Each fold's columns are prepared once, on its older rows only, for all trials; those of a model's own trainer as
    each trial has them."""
    from sklearn.preprocessing import FunctionTransformer

    X, labels = table(frame, spec.features), frame["_label"]
    y = labels.to_numpy()
    edges = np.linspace(frame.height * (1 - FOLDS_SHARE), frame.height, FOLDS + 1).astype(int)
    for cut, end in pairwise(edges):
        older, newer = slice(0, cut, -(-cut // MOST_FOLD_ROWS) or 1), slice(cut, end)
        if _both(labels[older]) and _both(labels[newer]):
            columns = trainer.build({}, spec, seed)[:-1] if trainer.shares_columns else FunctionTransformer()
            yield _Fold(columns.fit_transform(X[older]), y[older], columns.transform(X[newer]), y[newer])


def _validated(model: Any, fold: _Fold, performance: Performance) -> float:
    told = predicted(model.fit(fold.columns, fold.labels), fold.newer_columns)
    return performance.compare(fold.newer_labels, told, told).candidate


def _fitted(rows: pl.DataFrame, params: Params, spec: ModelSpec, seed: int, trainer: Trainer) -> "Pipeline":
    return fit(trainer.build(params, spec, seed), rows, spec.features)


def _both(labels: pl.Series) -> bool:
    return labels.n_unique() > 1


def _next(study: "Study", trials: int) -> "Asked | None":
    """The next trial, while there are fewer than that. Of two processes that ask at once both get one."""
    return study.ask() if len(_tried(study)) < trials else None


def _tried(study: "Study") -> "list[FrozenTrial]":
    """All but those that were lost with their process."""
    from optuna.trial import TrialState

    return [one for one in study.get_trials(deepcopy=False) if one.state != TrialState.PRUNED]


def make_study(seed: int, *, maximize: bool, storage: "BaseStorage | None" = None, name: str | None = None) -> "Study":
    """In memory, unless there is a storage; there it may be known already, and goes on.

    Optuna says at INFO that it made one; its level is put back at once.
    """
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP_TRIALS, constant_liar=storage is not None
        )
        return optuna.create_study(
            direction="maximize" if maximize else "minimize",
            sampler=sampler,
            storage=storage,
            study_name=name,
            load_if_exists=storage is not None,
        )
    finally:
        optuna.logging.set_verbosity(level)
