"""The mirror: what the version that did not answer would have said, scored from what landed, so that nobody waits."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import IntegrityError, UnavailableError
from drift_pipeline.logs import told
from drift_pipeline.loop.routes import Document, Route, route_of
from drift_pipeline.loop.state import RECORDED, Version
from drift_pipeline.registry.backends import Registry
from drift_pipeline.serving.scoring import Row, Scorer, make_scorer
from drift_pipeline.spec import ModelSpec

log = logging.getLogger(__name__)
TIMED_ROWS = 20  # single answers of a frame whose time is taken: enough for a percentile over some frames


class Mirror:
    """Follows the rollouts of all models; keeps the two versions of each that are compared."""

    def __init__(
        self,
        store: ControlStore,
        registry: Registry,
        specs: Mapping[str, ModelSpec],
        seconds: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._store, self._registry, self._specs, self._seconds = store, registry, specs, seconds
        self._loaded: dict[str, dict[str, Scorer]] = {}  # by model and digest
        self._said: dict[str, str] = {}

    def mirror(self, model: str, frame: pl.DataFrame) -> pl.DataFrame | None:
        """The rows of the lake's `shadow` for predictions that are about to land; None while no rollout mirrors.

        Rows of the candidate's version get the champion's score, all others the candidate's. A champion that is only
        recorded scores nothing. `_latency_ms` is that of single answers by the candidate, measured on a few rows: a
        batch's time says nothing of it. A version that cannot be loaded, or raises, scores null, which counts as its
        error.

        Raises:
            UnavailableError: the control store or the registry does not answer: nothing is known of the candidate.
        """
        spec = self._specs[model]
        route = self._route(spec)
        if route is None or not route.mirror or route.candidate is None or route.since is None:
            self._loaded.pop(model, None)
            return None
        rows = frame.filter(pl.col("_time") >= route.since)
        by_candidate = rows["_version"].eq_missing(str(route.candidate["version"]))
        self._forget(route)
        mirrored = [self._scored(spec, route.candidate, rows.filter(~by_candidate), TIMED_ROWS)]
        if route.champion["digest"] != RECORDED:
            mirrored.append(self._scored(spec, route.champion, rows.filter(by_candidate), 0))
        return pl.concat(mirrored).sort("_time", "_id")

    def _route(self, spec: ModelSpec) -> Route | None:
        """None also where what the store holds of a rollout is not what the audit says: it is not gone on with."""
        try:
            return route_of(self._store, spec)
        except IntegrityError as error:
            if self._said.get(spec.name) != str(error):
                self._said[spec.name] = str(error)
                log.error("%s", error, extra={"model": spec.name})
            return None

    def _scored(self, spec: ModelSpec, document: Document, frame: pl.DataFrame, timed: int) -> pl.DataFrame:
        """The frame's rows as this version answers them, the first `timed` of them one by one."""
        rows: Sequence[Row] = frame.select(*spec.features).rows()
        scores: Sequence[float | None] = [None] * len(rows)
        latencies: list[float] = []
        try:
            if rows:
                scorer = self._scorer(spec, document)
                scores = scorer.score(rows).tolist()
                latencies = [self._latency_ms(scorer, row) for row in rows[:timed]]
        except UnavailableError:
            raise
        except Exception as error:  # whatever a candidate's code raises is its error, not the mirror's
            self._say_once(spec.name, f"{document['version']} scored nothing: {told(error)}")
        return frame.select("_id", pl.col("^_producer$"), "_time").with_columns(
            _usable(pl.Series("_score", scores, dtype=pl.Float64)),
            pl.lit(document["version"], dtype=pl.String).alias("_version"),
            pl.Series("_latency_ms", [*latencies, *[None] * (len(rows) - len(latencies))], dtype=pl.Float64),
        )

    def _latency_ms(self, scorer: Scorer, row: Row) -> float:
        began = self._seconds()
        scorer.score([row])
        return 1000 * (self._seconds() - began)

    def _scorer(self, spec: ModelSpec, document: Mapping[str, Any]) -> Scorer:
        """Read once by digest; what failed is tried again with the next frame."""
        digest, kept = str(document["digest"]), self._loaded.setdefault(spec.name, {})
        if digest not in kept:
            pipeline = Version.load(document, self._registry).pipeline
            assert pipeline is not None, "a recorded model is told apart before"
            scorer = make_scorer(pipeline, spec.features)
            scorer.score([[None] * len(spec.features)])  # the first call of a library is slower than all the others
            kept[digest] = scorer
        return kept[digest]

    def _forget(self, route: Route) -> None:
        """The versions that this route does not compare any more."""
        compared = {str(document["digest"]) for document in (route.champion, route.candidate) if document}
        kept = self._loaded.get(route.model, {})
        self._loaded[route.model] = {digest: scorer for digest, scorer in kept.items() if digest in compared}

    def _say_once(self, model: str, failure: str) -> None:
        if self._said.get(model) != failure:
            self._said[model] = failure
            log.error("%s: %s", model, failure, extra={"model": model})


def _usable(scores: pl.Series) -> pl.Series:
    """Finite scores; null for the rest."""
    return scores.set(~scores.is_finite(), None)
