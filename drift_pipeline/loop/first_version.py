"""The first version: what answers when a model is adopted, and the reference that it is monitored against."""

import time
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.curves import curves_of
from drift_pipeline.evidence.groups import group_analysis
from drift_pipeline.evidence.sbom import environment_digest
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.forms import FORMS, LABELS
from drift_pipeline.loop.monitoring.champion_monitor import ChampionMonitor
from drift_pipeline.loop.monitoring.rebaselining import Rebaselining
from drift_pipeline.loop.retraining.fitting import fitted, register, register_given
from drift_pipeline.loop.state import RECORDED, Retrains, Version
from drift_pipeline.training.dataset import composition, split_newest
from drift_pipeline.training.graph import load_model

HELD_OUT = 0.2  # of the reference span, the newest: the first baseline and the fixed trusted holdout
Given = tuple[Mapping[str, bytes], str]  # skops pipelines by file, and where they came from


def adopt(
    context: Context, rebaselining: Rebaselining, span: Window, recorded: bool, given: Given | None
) -> ChampionMonitor:
    """Make version 1, and freeze the first reference on the span.

    Recorded scores serve until the first retrain; without them a model is trained on the older 80 % of the span. The
    newest 20 % is the held-out baseline, and from then on the fixed trusted holdout.

    Args:
        recorded: the span's rows have `_recorded` scores, and the model that made them answers on.
        given: skops pipelines that answer from now on, and where they came from; nothing is trained.

    Raises:
        InputError: too few labelled rows in the span, or their labels are all the same; or adopted already.
    """
    if (model := context.ledger.find("model")) is not None:
        if context.ledger.all("reference"):
            raise InputError(f"{context.spec.name}: is adopted already; a new version comes by drift retrain")
        # a former try died before it had a reference
        return rebaselining.freeze(Version.load(model, context.registry), span)
    now, versions = context.clock.now(), context.lake.versions()
    older, holdout = split_newest(*_labelled(context, span, now, versions))
    unseen_from = holdout["_time"][0]
    began = time.perf_counter(), time.process_time()
    champion, told = _version_1(context, older, span.start, unseen_from, recorded, given)
    cost = {"wall_seconds": time.perf_counter() - began[0], "cpu_seconds": time.process_time() - began[1]}
    held = {"from": unseen_from.isoformat(), "to": span.end.isoformat(), "at": now.isoformat(), "delta": versions}
    puts: dict[str, Mapping[str, Any]] = {
        "holdout": held,
        "retrains": Retrains(versions=1).to_json(),
        FORMS: context.spec.forms,
        LABELS: {"negative": context.spec.outcome.negative},
        "model": {**champion.to_json(), "previous": None},
    }
    if not champion.recorded:
        puts[f"adopted/{champion.digest}"] = {
            **_evaluated(context, champion, holdout, cost if given is None else None),
            "composition": composition(older.filter(pl.col("_time") >= champion.trained_from), context.spec)
            if given is None
            else None,
            "environment": environment_digest() if given is None else None,
        }
    digests = {} if recorded else {"bundle": champion.digest}
    freeze = rebaselining.prepared(champion, span)  # a tick that finds the model wants its reference, too
    context.ledger.commit("model.adopted", {**told, FORMS: context.spec.forms}, digests, puts=puts)
    return freeze()


def _evaluated(
    context: Context, champion: Version, holdout: pl.DataFrame, cost: Mapping[str, float] | None
) -> dict[str, Any]:
    """What the card of a version that no champion was before is drawn of: held-out rows, and who trained it."""
    spec, known = context.spec, {"digest": champion.digest, "version": champion.name}
    scored = holdout.with_columns(champion.scores(holdout, spec))
    drawn = {
        "groups": group_analysis(scored, spec),
        "curves": curves_of(scored, spec, partial(champion.scores, spec=spec)),
    }
    seconds = {name: round(spent, 3) for name, spent in cost.items()} if cost else None
    return {**known, **drawn, "trainer": context.trust.trainer_key_id, "cost": seconds}


def _labelled(context: Context, span: Window, now: datetime, versions: Mapping[str, int]) -> tuple[pl.DataFrame, int]:
    """The span's labelled rows, and how many of them are held out. Raises InputError where they are too few."""
    spec = context.spec
    rows = context.lake.labelled(span, as_of=now, delay=spec.outcome.delay, versions=versions)
    if rows.height < spec.retrain.min_rows or rows["_label"].n_unique() < 2:
        raise InputError(
            f"{spec.name}: {rows.height:,} labelled rows from {span.start:%Y-%m-%d} to {span.end:%Y-%m-%d}, "
            f"where {spec.retrain.min_rows:,} (retrain.min_rows) with {context.performance.needs} are needed: "
            "give a longer --reference"
        )
    return rows, int(rows.height * HELD_OUT)


def _version_1(
    context: Context, older: pl.DataFrame, start: datetime, unseen_from: datetime, recorded: bool, given: Given | None
) -> tuple[Version, dict[str, Any]]:
    """The version, and what the audit says of it."""
    if recorded:
        back = {"version": RECORDED, "rollback": "hand back: only its scores are known"}
        return Version(RECORDED, RECORDED, start, start, None), back
    told = {"version": "v1", "rows": older.height}
    if given is not None:
        digest, origin = register_given(context, *given), given[1]
        made = partial(load_model, context.registry.get(digest))
        return Version(digest, "v1", start, unseen_from, made), {**told, "origin": origin}
    trained = fitted(context, older, "v1")
    digest = register(context, trained, "v1")
    return Version(digest, "v1", trained.start, unseen_from, lambda: trained.pipeline), told
