"""Training a graph: a step after the other, each on what earlier ones say of rows that they were not trained on.

Wolpert, "Stacked generalization", Neural Networks 5(2), 1992. A step that learnt from the answers of an overfitted one
would trust them too much: of rows that a step was trained on, later ones see what a copy of it says that was trained
without these rows, a fifth of them at a time. Each fifth is spread over all times, so that every copy knows the newest
world; rows of one moment may be in several.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.control.canonical import sha256
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.errors import SpecError
from drift_pipeline.registry.bundle import Bundle, dump_pipeline
from drift_pipeline.registry.graph import Listed, listed_steps
from drift_pipeline.registry.origin import libraries
from drift_pipeline.spec import ModelSpec, Step
from drift_pipeline.training.graph import Graph, Stage, as_input, load_step
from drift_pipeline.training.own import Source, digest_of, stored_as, told
from drift_pipeline.training.search import Trained, Trial, train
from drift_pipeline.training.trainers import fit, score

if TYPE_CHECKING:
    from optuna import Study
    from sklearn.pipeline import Pipeline

FOLDS = 5
_EVER = datetime(1970, 1, 1, tzinfo=UTC)  # a step that was trained elsewhere may have seen any row
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Made:
    """A step as it goes into a bundle: what its manifest says of it, its file, and its own trainer's, if it has one."""

    facts: Mapping[str, Any]
    model: bytes
    source: bytes | None


@dataclass(frozen=True)
class TrainedGraph(Trained):
    """`rows`, `start` and `used` are of the steps that were trained, `validation` of the last of them; `steps` are all
    that there are, in order, with their `params` as STEP.NAME.

    `oldest`: no row before it was trained on by any step.
    """

    steps: tuple[Made, ...] = ()
    oldest: datetime = _EVER
    sources: Mapping[str, Source] = field(default_factory=dict)

    @property
    def trainer_source(self) -> str | None:
        return digest_of(self.sources)


@dataclass(frozen=True)
class Plan:
    """What of a graph is trained: `only` these steps (none named = all); `champion` is whose others are taken."""

    only: tuple[str, ...] = ()
    champion: Bundle | None = None

    def taken(self, spec: ModelSpec) -> dict[str, Listed]:
        """The champion's steps that are taken as they are. Raises SpecError where it has not those of the spec."""
        if odd := [name for name in self.only if name not in spec.graph]:
            raise SpecError(f"{spec.name}: the graph has no step {odd[0]} any more; ask for another retrain")
        names = [name for name in spec.steps if self.only and name not in self.only]
        known = {step.name: step for step in (listed_steps(self.champion.manifest) if self.champion else ())}
        for name in names:
            if name not in known or not _same(known[name], spec, spec.graph[name]):
                raise SpecError(
                    f"{spec.name}: {', '.join(self.only)} cannot be trained alone: the champion has no step {name} as "
                    "the spec declares it; train that one too"
                )
        return {name: known[name] for name in names}


EVERY_STEP = Plan()


def train_graph(
    frame: pl.DataFrame,
    spec: ModelSpec,
    seed: int,
    version: str,
    plan: Plan = EVERY_STEP,
    fresh: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    sources: Mapping[str, Source] | None = None,
    keep: Callable[[str, "Study"], None] | None = None,
) -> TrainedGraph:
    """Search and fit the planned steps, in order; arguments as of `search.train`, `progress` and `keep` with the step's
    name first.

    Rows below a step's threshold do not train later ones, as those never see them.

    Raises:
        InputError: too few rows for a step. SpecError: as `Plan.taken`, or a step's own trainer failed.
    """
    taken, names = plan.taken(spec), [*spec.steps]
    work = _Work(frame, fresh)
    for place, name in enumerate(names):
        step, of = spec.graph[name], spec.of_step(name)
        if name in taken:
            work.take(taken[name], plan.champion)
        else:
            source = (sources or {}).get(stored_as(name))
            told, kept = partial(progress, name) if progress else None, partial(keep, name) if keep else None
            one = train(work.rows, of, seed, work.fresh, told, source, kept)
            work.add(name, step, of, one, version)
        if any(later not in taken for later in names[place + 1 :]):
            work.pass_on(name, step, of)
    return work.done(sources or {})


class _Work:
    """Between two steps: the rows that go on, and what was made of them."""

    def __init__(self, frame: pl.DataFrame, fresh: int) -> None:
        self._frame, self.rows, self.fresh = frame, frame, fresh
        self._going = np.arange(frame.height)  # their places in the frame
        self._used = np.zeros(frame.height, dtype=bool)
        self._stages, self._made, self._trained = list[Stage](), list[Made](), list[Trained]()
        self._tried = list[Trial]()  # their params by step.name
        self._seen: Bools = np.zeros(0, dtype=bool)
        self._source: Source | None = None

    def take(self, listed: Listed, champion: Bundle | None) -> None:
        """A step of the champion as it is."""
        assert champion is not None, "what is taken is somebody's"
        data, facts = champion.files[listed.file], listed.facts
        self._stages.append(Stage(listed.name, listed.inputs, listed.threshold, load_step(data, listed)))
        self._made.append(Made(facts, data, champion.files.get(stored_as(listed.name))))
        times, seen = self.rows["_time"], np.ones(self.rows.height, dtype=bool)
        if "trained_from" in facts:
            start, end = (datetime.fromisoformat(facts[name]) for name in ("trained_from", "trained_until"))
            seen = times.is_between(start, end).to_numpy()
        self._seen, self._source = seen, None

    def add(self, name: str, step: Step, of: ModelSpec, one: Trained, version: str) -> None:
        """A step that was trained now, on the newest `one.rows` of the rows."""
        self._stages.append(Stage(name, of.features, step.threshold, one.pipeline))
        model = dump_pipeline(one.pipeline)
        facts = {
            "name": name,
            "inputs": [*step.inputs],
            "threshold": step.threshold,
            "trainer": step.trainer,
            "params": one.params,
            f"validation_{performance_of(of).kpi}": one.validation,
            "rows": one.rows,
            "trained_from": one.start.isoformat(),
            "trained_until": self.rows["_time"][-1].isoformat(),
            "version": version,
            "libraries": libraries(),
            "sha256": sha256(model),
        }
        self._made.append(Made(facts, model, one.source.text if one.source else None))
        self._trained.append(one)
        self._tried += [
            replace(trial, params={f"{name}.{key}": value for key, value in trial.params.items()})
            for trial in one.trials
        ]
        self._seen = np.arange(self.rows.height) >= self.rows.height - one.rows
        self._used[self._going[self._seen]] = True
        self._source = one.source

    def pass_on(self, name: str, step: Step, of: ModelSpec) -> None:
        """The last step's output becomes a column; rows below its threshold end here."""
        try:
            output, known = unseen_scores(self._stages[-1].pipeline, self.rows, of, self._seen)
        except Exception as error:
            if self._source is None:
                raise
            raise told(self._source, "what it builds cannot be trained on a part of the rows", error) from error
        kept = known if step.threshold is None else known & ~(output < step.threshold)
        self.fresh = int(kept[len(kept) - self.fresh :].sum()) if self.fresh else 0
        self.rows = self.rows.with_columns(pl.Series(name, as_input(output))).filter(pl.Series(kept))
        self._going = self._going[kept]

    def done(self, sources: Mapping[str, Source]) -> TrainedGraph:
        made, used = tuple(self._made), self._frame.filter(pl.Series(self._used))
        froms = [datetime.fromisoformat(one.facts["trained_from"]) for one in made if "trained_from" in one.facts]
        return TrainedGraph(
            pipeline=Graph(tuple(self._stages)),
            params={f"{one.facts['name']}.{key}": value for one in made for key, value in _params(one)},
            validation=self._trained[-1].validation,
            rows=used.height,
            trials=tuple(self._tried),
            start=min(one.start for one in self._trained),
            used=used,
            steps=made,
            oldest=min(froms) if len(froms) == len(made) else _EVER,
            sources=sources,
        )


def unseen_scores(
    pipeline: "Pipeline", rows: pl.DataFrame, spec: ModelSpec, seen: Bools
) -> tuple[npt.NDArray[np.float64], Bools]:
    """What a fitted step says of rows (n,) as if it had been trained on none of them, and of which that is known (n,).

    Args:
        spec: the step's.
        seen: the rows that it was trained on (n,); of the others it is asked itself. Not known are those of a fifth
            whose other rows have one label only.
    """
    from sklearn.base import clone

    output, known = score(pipeline, rows, spec.features), np.ones(rows.height, dtype=bool)
    for held, others in _folds(np.flatnonzero(seen)):
        if rows["_label"][others].n_unique() < 2:
            known[held] = False
        else:
            copy = fit(clone(pipeline), rows[others], spec.features)
            output[held] = score(copy, rows[held], spec.features)
    return output, known


def _folds(places: npt.NDArray[np.intp]) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """(held out, the others), a fold each."""
    fold = np.arange(len(places)) % FOLDS
    for number in range(min(FOLDS, len(places))):
        yield places[fold == number], places[fold != number]


def _same(listed: Listed, spec: ModelSpec, step: Step) -> bool:
    wanted = [(one, spec.features.get(one, "numeric")) for one in step.inputs]
    return [*listed.inputs.items()] == wanted and listed.threshold == step.threshold


def _params(made: Made) -> Collection[tuple[str, Any]]:
    return (made.facts.get("params") or {}).items()
