"""A two-step graph live: adopted, served through spool and capture, found drifted by the ticks, one step retrained by
the policy's word, shadow, approval, canary, champion, and back; damage to one step's file is damage to the whole."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from drift_pipeline.clock import MINUTE
from drift_pipeline.loop import operating
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.synthetic import Drift
from drift_pipeline_tests.faults.invariants import broken
from drift_pipeline_tests.faults.machine import flipped
from drift_pipeline_tests.faults.world import Live, Process, Site, document_of

pytestmark = pytest.mark.live  # minutes of faults or of history

GRAPH = {
    "retrieval": {"inputs": ["session_length_s", "items_viewed", "device"], "trainer": "logistic_regression"},
    "ranking": {
        "inputs": ["retrieval", "price_eur", "days_since_visit", "country", "session_length_s"],
        "trainer": "logistic_regression",
    },
}


def spec() -> ModelSpec:
    document = document_of(steps=["ranking"])
    retrain = document["retrain"]
    assert isinstance(retrain, dict)
    retrain.pop("trainer")
    return ModelSpec.model_validate({**document, "graph": GRAPH})


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    """The concept drifts half an hour after the adoption."""
    drifts = [Drift("concept", 0.5 / 24)]
    site = Site(tmp_path, seed=3, hours=2.5, reference_days=2, drifts=drifts, spec=spec())
    kept = Process(site, inline=True)
    yield Live(site, kept)
    kept.store.close()
    site.close()


def until(live: Live, phase: Phase) -> None:
    for _ in range(30):
        live.minutes(5, 5 * MINUTE)
        if live.site.phase() is phase:
            return
        live.approve()
    raise AssertionError(f"the rollout stays in {live.site.phase()}")


def steps_of(live: Live, digest: str) -> dict[str, tuple[str, str]]:
    return {
        step["name"]: (step["version"], step["sha256"]) for step in live.site.registry.get(digest).manifest["graph"]
    }


def test_a_graph_lives_through_drift_a_retrain_of_one_step_its_rollout_and_a_rollback(live: Live) -> None:
    site = live.site
    first = str(site.route.champion["digest"])
    until(live, Phase.SHADOW)
    assert site.route.candidate is not None
    second = str(site.route.candidate["digest"])
    before, after = steps_of(live, first), steps_of(live, second)
    assert after["retrieval"] == before["retrieval"]
    assert (after["ranking"][0], after["ranking"][1] != before["ranking"][1]) == ("v2", True)
    until(live, Phase.CANARY)
    until(live, Phase.FULL)
    assert site.route.champion["digest"] == second
    live.minutes(10, 5 * MINUTE)
    landed = site.lake().read("predictions", site.landed())
    mirrored = site.lake().read("shadow", site.landed())
    assert {"v1", "v2"} <= {*landed["_version"]}
    assert mirrored.filter(pl.col("_version") == "v2")["_score"].null_count() == 0
    events = [record.event for record in site.records()]
    order = ["incident.opened", "training.started", "candidate.proven", "rollout.shadow", "rollout.canary"]
    places = [events.index(event) for event in (*order, "rollout.full", "model.promoted")]
    assert places == sorted(places)
    operating.roll_back(site.by_hand(), "ada", "complaints")
    assert site.route.champion["digest"] == first
    live.kept.inline = False
    live.minutes(2)
    assert broken(site, [live.kept]) == []


def test_a_bit_of_the_kept_step_flipped_in_the_canary_promotes_nothing(live: Live) -> None:
    site = live.site
    until(live, Phase.CANARY)
    assert site.route.candidate is not None
    name = str(site.route.candidate["digest"]).removeprefix("sha256:")
    live.kept.restart()
    with flipped(site.settings.registry / name[:2] / name / "retrieval.skops"):
        for _ in range(3):
            site.clock.advance_to(site.clock.now() + 4 * MINUTE)
            site.take()
            live.kept.tick()
            assert site.phase() in (Phase.CANARY, Phase.ROLLED_BACK)
    assert site.route.champion["version"] == "v1"
