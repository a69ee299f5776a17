"""Simulated traffic: what is drawn, how each drift shows in it, and what a running gateway makes of it."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Timer
from typing import get_args

import httpx
import numpy as np
import polars as pl
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from drift_pipeline.clock import DAY, SystemClock
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.loop.state import RECORDED
from drift_pipeline.registry.bundle import load_pipeline
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.serving.app import make_app
from drift_pipeline.serving.simulate import Simulated, simulate
from drift_pipeline.serving.traffic import Injected, InjectedKind, Request, history_of, requests
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.event import OutcomeKnown, Prediction, read_event
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, synthetic_history
from drift_pipeline.training.gates import Outcome, poison_floor
from drift_pipeline.training.trainers import TRAINERS, fit, score
from drift_pipeline_tests.serving.worlds import AT, SPECS, Home, heard, listening, model, until
from drift_pipeline_tests.training.worlds import history, spec

SPEC = SPECS["fraud"]
HALF = 50.0  # seconds: when a drift begins in 100 seconds of traffic


def drawn(*drifts: Injected, rows: int = 4000, seed: int = 1, of: ModelSpec = SPEC) -> list[Request]:
    return list(requests(of, history(1500), rows_per_second=rows / 100, duration_seconds=100, seed=seed, drifts=drifts))


def table(traffic: Sequence[Request], of: ModelSpec = SPEC) -> pl.DataFrame:
    """The rows that were asked, with their labels."""
    types = {"numeric": pl.Float64, "categorical": pl.String}
    frames = []
    for request in traffic:
        tensors = {tensor["name"]: tensor["data"] for tensor in request.body["inputs"]}
        columns = [pl.Series(name, tensors[name], dtype=types[kind]) for name, kind in of.watched.items()]
        frames.append(pl.DataFrame([*columns, pl.Series("_label", request.labels)]))
    return pl.concat(frames)


def halves(*drifts: Injected, rows: int = 4000) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Before and after the drift."""
    traffic = drawn(*drifts, rows=rows)
    before = [request for request in traffic if request.at_seconds < HALF]
    return table(before), table(traffic[len(before) :])


def auroc(frame: pl.DataFrame, pipeline: object) -> float:
    return float(roc_auc_score(frame["_label"], score(pipeline, frame, SPEC.features)))


# what is drawn


def test_the_same_seed_draws_the_same_requests_and_another_draws_others() -> None:
    drifts = [Injected(kind, HALF) for kind in get_args(InjectedKind)]
    assert drawn(*drifts, rows=1200) == drawn(*drifts, rows=1200)
    assert drawn(rows=1200) != drawn(rows=1200, seed=2)


def test_ids_are_counted_through_and_carry_the_prefix() -> None:
    traffic = requests(SPEC, history(50), rows_per_second=130, duration_seconds=20, seed=0, prefix="sim-")
    assert [id for request in traffic for id in request.ids] == [f"sim-{row}" for row in range(2600)]


@pytest.mark.parametrize(("rate", "rows"), [(0.5, 1), (5, 1), (100, 5), (5000, 50)])
def test_a_request_carries_one_to_fifty_rows_and_is_due_at_the_rate(rate: float, rows: int) -> None:
    traffic = list(requests(SPEC, history(50), rows_per_second=rate, duration_seconds=20, seed=0))
    assert {len(request.ids) for request in traffic[:-1]} == {rows}
    assert sum(len(request.ids) for request in traffic) == int(rate * 20)
    np.testing.assert_allclose(np.diff([request.at_seconds for request in traffic]), rows / rate)


@pytest.mark.parametrize("kind", get_args(InjectedKind))
def test_before_it_begins_a_drift_changes_nothing(kind: InjectedKind) -> None:
    changed, plain = drawn(Injected(kind, HALF), rows=1200), drawn(rows=1200)
    begins = next(at for at, request in enumerate(plain) if request.at_seconds >= HALF)
    assert changed[:begins] == plain[:begins]
    assert changed[begins:] != plain[begins:]


@pytest.mark.parametrize("kind", ["covariate", "concept", "unfairness", "schema", "latency"])
def test_a_drift_without_size_changes_no_row(kind: InjectedKind) -> None:
    assert table(drawn(Injected(kind, 0, size=0), rows=500)).equals(table(drawn(rows=500)))


def test_labels_are_told_as_the_spec_reads_them() -> None:
    numbers = ((1, {0, 1}), (0, {0, 1}), (2, {2, 0}), (True, {True, False}))
    texts = (("yes", {"yes", "not yes"}), ("1", {"1", 0}), ("0", {"0", 1}), ("true", {"true", 0}))
    for positive, told in (*numbers, *texts):
        of = SPEC.model_copy(update={"outcome": SPEC.outcome.model_copy(update={"positive": positive})})
        traffic = drawn(of=of, rows=200)
        labels = [label for request in traffic for label in request.labels]
        assert set(labels) == told
        lines = [
            json.dumps(
                {"event": "outcome", "model": "fraud", "id": "1", "time": "2026-01-01T00:00:00Z", "label": label}
            )
            for label in labels
        ]
        known = [read_event(line.encode(), {"fraud": of}, datetime(2026, 2, 1, tzinfo=UTC)) for line in lines]
        read = [event.label for event in known if isinstance(event, OutcomeKnown)]
        assert read == [label for request in drawn(rows=200) for label in request.labels]


# drifts


def test_covariate_moves_numbers_by_their_deviation_and_half_of_the_levels_to_the_rarest() -> None:
    before, after = halves(Injected("covariate", HALF, size=1))
    for name in ("amount", "age"):
        mean, other = (np.asarray(frame[name]).mean() for frame in (before, after))
        assert other - mean == pytest.approx(1, abs=0.15)
    rarest = history(1500)["device"].value_counts(sort=True)["device"][-1]
    shares = [(frame["device"] == rarest).mean() for frame in (before, after)]
    assert shares == [pytest.approx(1 / 3, abs=0.05), pytest.approx(2 / 3, abs=0.05)]
    assert before["region"].value_counts().height == after["region"].value_counts().height


def test_concept_leaves_the_champion_behind_and_a_retraining_recovers_most_of_it() -> None:
    before, after = halves(Injected("concept", HALF, size=2), rows=6000)
    champion = load_pipeline(model(0))
    fresh, unseen = after[:2000], after[2000:]
    retrained = fit(TRAINERS["gradient_boosting"].build({"max_iter": 50}, SPEC, 0), fresh, SPEC.features)
    was, fell, recovered = auroc(before, champion), auroc(unseen, champion), auroc(unseen, retrained)
    assert was - fell > 0.3
    assert recovered > fell + 0.8 * (was - fell)


def test_concept_of_half_that_size_is_still_learnt_and_keeps_the_rate_of_positives() -> None:
    before, after = halves(Injected("concept", HALF, size=1), rows=6000)
    champion = load_pipeline(model(0))
    fresh, unseen = after[:2000], after[2000:]
    retrained = fit(TRAINERS["gradient_boosting"].build({"max_iter": 50}, SPEC, 0), fresh, SPEC.features)
    assert auroc(before, champion) - auroc(unseen, champion) > 0.2
    assert auroc(unseen, retrained) > auroc(unseen, champion) + 0.1
    rates = [float(np.asarray(frame["_label"]).mean()) for frame in (before, after)]
    assert rates[0] == pytest.approx(rates[1], abs=0.04)


def test_what_learns_a_changed_concept_of_several_reasons_stands_above_the_poison_floor_of_the_old_one() -> None:
    of = ModelSpec.model_validate(yaml.safe_load(SAMPLE_SPEC))
    rows = synthetic_history(40, 100, 0, score=False).rename({"clicked": "_label"})
    shared = {"rows_per_second": 30, "duration_seconds": 100, "seed": 0}
    changed = table(list(requests(of, rows, **shared, drifts=[Injected("concept", 0, size=1.25)])), of)  # type: ignore[arg-type]
    champion, learnt = (
        fit(TRAINERS["gradient_boosting"].build({"max_iter": 50}, of, 0), seen, of.features)
        for seen in (rows, changed[:2000])
    )
    unseen = changed[2000:]
    before, after = (float(roc_auc_score(unseen["_label"], score(m, unseen, of.features))) for m in (champion, learnt))
    assert after > before + 0.1
    assert poison_floor(rows["_label"], score(learnt, rows, of.features)).outcome is Outcome.PASS


def test_unfairness_has_one_group_scored_low_while_the_champion_is_still_right() -> None:
    before, after = halves(Injected("unfairness", HALF, size=1))
    champion = load_pipeline(model(0))
    shares = []
    for frame in (before, after):
        scored = frame.with_columns(pl.Series("_score", score(champion, frame, SPEC.features)))
        groups = scored.group_by("region").agg((pl.col("_score") >= 0.5).mean()).sort("region")
        shares.append(groups["_score"].to_list())
    assert abs(shares[0][0] - shares[0][1]) < 0.06
    assert abs(shares[1][0] - shares[1][1]) > 0.3
    assert auroc(before, champion) - auroc(after, champion) < 0.05


def test_unfairness_without_a_protected_column_is_refused_before_anything_is_sent() -> None:
    bare = SPEC.model_copy(update={"protected": {}})
    with pytest.raises(InputError, match="no protected column"):
        requests(bare, history(9), rows_per_second=1, duration_seconds=1, seed=0, drifts=[Injected("unfairness", 0)])


def test_schema_nulls_a_number_or_brings_a_level_that_nobody_saw() -> None:
    before, after = halves(Injected("schema", HALF, size=0.5))
    assert before["amount"].null_count() == 0
    assert after["amount"].null_count() / after.height == pytest.approx(0.5, abs=0.05)
    levels = SPEC.model_copy(update={"features": {"device": "categorical", "amount": "numeric"}})
    unseen = set(table(drawn(Injected("schema", 0), of=levels), levels)["device"]) - set(history(1500)["device"])
    assert len(unseen) == 1


def test_a_broken_schema_leaves_a_tensor_out_and_latency_asks_for_a_delay() -> None:
    traffic = drawn(Injected("schema_break", HALF), Injected("latency", HALF, size=2))
    named = [{tensor["name"] for tensor in request.body["inputs"]} for request in (traffic[0], traffic[-1])]
    assert named[0] - named[1] == {"amount"}
    assert ["delay_ms" in request.body["parameters"] for request in (traffic[0], traffic[-1])] == [False, True]
    assert traffic[-1].body["parameters"]["delay_ms"] == 300


def test_a_regression_has_a_concept_to_lose_and_to_learn() -> None:
    declared = {**spec().model_dump(), "task": "regression", "outcome": {"column": "label"}, "retrain": {}}
    for part in ("prediction", "kpis"):
        declared.pop(part)
    of = ModelSpec.model_validate(declared)
    rows = history(1500).with_columns(_label=10 + 3 * pl.col("amount"))
    shared = {"rows_per_second": 20, "duration_seconds": 100, "seed": 0}
    traffic = list(requests(of, rows, **shared, drifts=[Injected("concept", 0, size=2)]))  # type: ignore[arg-type]
    turned = table(traffic, of)
    line = np.polyfit(turned["amount"].to_numpy(), turned["_label"].to_numpy(), 1)
    assert line[0] < -2
    assert line[1] == pytest.approx(10, abs=0.5)


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match="no drift 'earthquake'"):
        Injected("earthquake", 0)  # type: ignore[arg-type]
    for at, size in ((-1, 1), (float("nan"), 1), (0, -1), (0, float("inf"))):
        with pytest.raises(InputError):
            Injected("covariate", at, size)
    for rate, duration, rows in ((0, 1, 9), (1, 0, 9), (1, 1, 1)):
        with pytest.raises(InputError):
            requests(SPEC, history(rows), rows_per_second=rate, duration_seconds=duration, seed=0)


# the history


def test_the_history_is_what_the_model_was_adopted_with_rather_than_what_it_answered_since(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "fraud")
    now = datetime(2026, 1, 3, tzinfo=UTC)
    with pytest.raises(InputError, match="no labelled row"):
        history_of(lake, SPEC, now)
    rows = history(20).with_columns(_route=pl.Series(["stable"] * 10 + ["history"] * 10), _version=pl.lit("v1"))
    known = rows.select("_id", (pl.col("_time") + timedelta(hours=6)).alias("_observed_at"), "_label")
    for batch, part in enumerate((slice(0, 10), slice(10, 20))):
        lake.append("predictions", rows[part].drop("_label"), batch)
        lake.append("outcomes", known[part], batch)
        expected = [str(row) for row in range(20)][part]
        assert history_of(lake, SPEC, now)["_id"].to_list() == expected


# against a gateway


@dataclass
class Gateway:
    url: str
    key: str
    home: Home

    def simulate(self, seconds: float = 0.6, rate: float = 400, **more: object) -> Simulated:
        shared = {
            "rows_per_second": rate,
            "duration": timedelta(seconds=seconds),
            "label_delay": timedelta(seconds=0.1),
        }
        source = more.pop("source", history(300))
        return simulate(self.url, self.key, SPEC, source, **(shared | {"seed": 1} | more))  # type: ignore[arg-type]

    def told(self) -> tuple[list[Prediction], list[OutcomeKnown]]:
        events = [read_event(line, SPECS, SystemClock().now() + DAY) for line in self.home.spooled()]
        return [e for e in events if isinstance(e, Prediction)], [e for e in events if isinstance(e, OutcomeKnown)]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    home = Home(tmp_path / "home")
    home.champion(home.version("v1", 0))
    spool, key = SpoolWriter(home.settings.home / "spool" / "gateway"), home.producer()
    with listening(make_app(home.settings, SPECS, spool, SystemClock(), every_seconds=0.05)) as url:
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
            heard(client)
        yield Gateway(url, key, home)
    home.store.close()


def test_every_row_is_answered_and_its_label_told_once(gateway: Gateway) -> None:
    found = gateway.simulate()
    assert (found.sent, found.answered, found.labels) == (240, 240, 240)
    assert (found.versions, found.routes, found.refused, found.labels_refused) == ({"v1": 240}, {"stable": 240}, {}, {})
    assert found.latency_ms is not None
    assert 0 < found.latency_ms["p50"] <= found.latency_ms["p95"] <= found.latency_ms["p99"]
    predictions, outcomes = gateway.told()
    wanted = list(requests(SPEC, history(300), rows_per_second=400, duration_seconds=0.6, seed=1, prefix="sim1-"))
    labels = {id: label for request in wanted for id, label in zip(request.ids, request.labels, strict=True)}
    assert {outcome.id: outcome.label for outcome in outcomes} == labels
    assert len(outcomes) == len(labels)
    amounts = dict(zip(labels, table(wanted)["amount"], strict=True))
    assert {one.id: one.features["amount"] for one in predictions} == amounts
    assert json.loads(json.dumps(found.to_json()))["answered"] == 240


def test_a_broken_schema_is_counted_and_the_traffic_goes_on(gateway: Gateway) -> None:
    found = gateway.simulate(drifts=[Injected("schema_break", 0.3), Injected("latency", 0)])
    assert (found.sent, found.answered, found.refused) == (240, 120, {"400": 120})
    assert found.labels == 120


def test_rows_are_counted_by_the_version_that_answered(gateway: Gateway) -> None:
    gateway.home.rollout(gateway.home.version("v2", 1), Phase.CANARY)
    with httpx.Client(base_url=gateway.url) as client:
        for _ in range(400):
            if 'role="candidate"' in client.get("/metrics").text:
                break
    found = gateway.simulate()
    assert set(found.versions) == {"v1", "v2"}
    assert found.answered == 240
    assert found.versions["v2"] == sum(one.route == "canary" for one in gateway.told()[0])
    assert sum(found.routes.values()) == 240


ELSEWHERE = {"digest": RECORDED, "version": RECORDED, "trained_from": AT.isoformat(), "unseen_from": AT.isoformat()}


def with_records(rows: int = 300) -> pl.DataFrame:
    """A history whose scores tell the row: each is told of the row that it was recorded of, or this shows it."""
    scores = np.arange(rows) / rows
    return history(rows).with_columns(pl.Series("_score", scores), pl.Series("_latency_ms", 100 * scores))


def test_of_a_model_that_is_served_elsewhere_the_recorded_scores_are_told_as_events(gateway: Gateway) -> None:
    gateway.home.champion(ELSEWHERE)
    with httpx.Client(base_url=gateway.url, headers={"X-API-Key": gateway.key}) as client:
        until(client, "served elsewhere", f"/v2/models/{SPEC.name}/ready")
    found = gateway.simulate(source=with_records(), drifts=[Injected("covariate", 0), Injected("latency", 0.3, size=2)])
    assert (found.sent, found.answered, found.labels, found.partial) == (240, 240, 240, False)
    assert (found.routes, found.versions, found.refused) == ({"external": 240}, {RECORDED: 240}, {})
    predictions, outcomes = gateway.told()
    assert {outcome.id for outcome in outcomes} == {one.id for one in predictions}
    assert {one.route for one in predictions} == {"external"}
    recorded = {row["_score"]: row for row in with_records().iter_rows(named=True)}
    spread = float(history(300)["amount"].std())  # type: ignore[arg-type]
    for number, one in enumerate(sorted(predictions, key=lambda one: int(one.id.removeprefix("sim1-")))):
        assert one.score is not None
        row = recorded[one.score]
        assert one.features["amount"] == pytest.approx(row["amount"] + spread)
        assert one.latency_ms == pytest.approx(row["_latency_ms"] + (300 if number >= 120 else 0))
        assert one.features.keys() == SPEC.watched.keys()


def test_what_was_not_recorded_cannot_be_told(gateway: Gateway) -> None:
    gateway.home.champion(ELSEWHERE)
    with httpx.Client(base_url=gateway.url, headers={"X-API-Key": gateway.key}) as client:
        until(client, "served elsewhere", f"/v2/models/{SPEC.name}/ready")
    with pytest.raises(InputError, match="records no score"):
        gateway.simulate()
    with pytest.raises(InputError, match="inject another drift"):
        gateway.simulate(source=with_records(), drifts=[Injected("unfairness", 0)])
    assert gateway.home.spooled() == []


def test_ctrl_c_ends_it_with_what_was_counted(gateway: Gateway) -> None:
    Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    found = gateway.simulate(60, label_delay=timedelta(seconds=0))
    assert found.partial
    assert 0 < found.labels <= found.answered <= found.sent < 4000
    assert len(gateway.told()[0]) >= found.answered


def test_progress_is_told_while_labels_are_waited_for(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drift_pipeline.serving.simulate._TELL_EVERY_S", 0.2)
    lines: list[str] = []
    gateway.simulate(0.2, label_delay=timedelta(seconds=0.6), progress=lines.append)
    assert any("80 sent, 80 answered, 0 refused, 0 labels told, p95" in line for line in lines)


def test_a_gateway_that_dies_is_counted_as_unreachable(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.champion(home.version("v1", 0))
    spool = SpoolWriter(home.settings.home / "spool" / "gateway")
    with listening(make_app(home.settings, SPECS, spool, SystemClock())) as url:
        pass
    home.store.close()
    with pytest.raises(UnavailableError, match="no gateway answers"):
        Gateway(url, "key", home).simulate()


def test_a_key_that_is_not_known_or_a_model_that_is_not_there_is_refused(gateway: Gateway) -> None:
    with pytest.raises(InputError, match="answers 401 for fraud"):
        Gateway(gateway.url, "guess", gateway.home).simulate()
    for url in ("localhost:8080", "http://h:port", "http://", ""):
        with pytest.raises(InputError, match="is no address"):
            Gateway(url, gateway.key, gateway.home).simulate()
    nothing = SPEC.model_copy(update={"name": "nothing"})
    with pytest.raises(InputError, match="answers 403 for nothing"):
        simulate(gateway.url, gateway.key, nothing, history(9), rows_per_second=1, duration=timedelta(1), seed=0)


def test_more_than_the_producer_may_send_is_counted_and_the_labels_come_all_the_same(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.champion(home.version("v1", 0))
    spool, key = SpoolWriter(home.settings.home / "spool" / "gateway"), home.producer(rows_per_second=100)
    with listening(make_app(home.settings, SPECS, spool, SystemClock(), every_seconds=0.05)) as url:
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
            heard(client)
        found = Gateway(url, key, home).simulate(1, rate=400)
    home.store.close()
    assert found.refused.keys() == {"429"}
    assert 0 < found.answered < 400
    assert found.labels == found.answered
