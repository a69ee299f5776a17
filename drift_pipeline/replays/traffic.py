"""Traffic of a replay: rows land when the clock passes them, served by whoever is champion; labels after the delay."""

from datetime import datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.loop import RECORDED, Loop, Version
from drift_pipeline.replays.options import outcomes_of
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline.rollout.route import split
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake


class Traffic:
    """A history that is played once; `landed` of its rows have been served, and `scores` (n,) holds what was said."""

    def __init__(self, frame: pl.DataFrame, spec: ModelSpec, lake: Lake, loop: Loop) -> None:
        self._frame, self._spec, self._lake, self._loop = frame, spec, lake, loop
        self._recorded = spec.prediction.column is not None
        self._outcomes = outcomes_of(frame, spec)
        self.scores: npt.NDArray[np.float64] = np.full(frame.height, np.nan)
        self.landed = self._labelled = self._batch = 0

    def land(self, until: datetime) -> None:
        """Serve and land the rows before `until`, and the outcomes that are known before it."""
        end = int(self._frame["_time"].search_sorted(until, side="left"))
        rows, start = self._frame[self.landed : end], self.landed
        if rows.height:
            served, mirrored = self._serve(rows)
            self.scores[start:end] = served["_score"].fill_null(np.nan).to_numpy()
            self._lake.append("predictions", served, self._batch)
            if mirrored is not None:
                self._lake.append("shadow", mirrored, self._batch)
        self.landed = end
        known = int(self._outcomes["_observed_at"].search_sorted(until, side="left"))
        outcomes, self._labelled = self._outcomes[self._labelled : known], known
        if outcomes.height:
            self._lake.append("outcomes", outcomes, self._batch)
        self._batch += 1

    def _serve(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame | None]:
        """What was answered, and what the other model would have said where a rollout mirrors traffic."""
        rows = rows.drop("_label")
        rollouts, champion = self._loop.rollouts, self._loop.champion
        candidate, rollout = rollouts.candidate, rollouts.status
        if champion is None:
            score = rows["_recorded"] if self._recorded else pl.Series([None] * rows.height, dtype=pl.Float64)
            return _answered(rows, score, RECORDED, "history"), None
        if candidate is None or rollout is None:
            return _answered(rows, champion.scores(rows, self._spec), champion.name, "stable"), None
        return self._split(rows, champion, candidate, rollout)

    def _split(
        self, rows: pl.DataFrame, champion: Version, candidate: Version, rollout: Status
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Both models score all rows; who answers is the phase's affair."""
        stable, canary = champion.scores(rows, self._spec), candidate.scores(rows, self._spec)
        chosen = np.zeros(rows.height, np.bool_)
        if rollout.phase is Phase.CANARY:
            keys = rows["_entity"].fill_null(rows["_id"]) if "_entity" in rows.columns else rows["_id"]
            chosen = split(keys, rollout.rollout_id, self._spec.rollout.canary_weight)
        answer = pl.lit(pl.Series(chosen))
        names = pl.lit(candidate.name), pl.lit(champion.name)
        served = rows.with_columns(
            pl.when(answer).then(canary).otherwise(stable).alias("_score"),
            pl.when(answer).then(names[0]).otherwise(names[1]).alias("_version"),
            pl.when(answer).then(pl.lit("canary")).otherwise(pl.lit("stable")).alias("_route"),
        )
        mirrored = rows.select(
            "_id",
            "_time",
            pl.when(answer).then(stable).otherwise(canary).alias("_score"),
            pl.when(answer).then(names[1]).otherwise(names[0]).alias("_version"),
        )
        return served, mirrored


def _answered(rows: pl.DataFrame, score: pl.Series, version: str, route: str) -> pl.DataFrame:
    return rows.with_columns(score.alias("_score"), _version=pl.lit(version), _route=pl.lit(route))
