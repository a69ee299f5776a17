"""The gateway over a real home: routes, canaries, keys and what is written down."""

import json
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import Put
from drift_pipeline.errors import UnavailableError
from drift_pipeline.registry.bundle import load_pipeline
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.rollout.route import in_canary
from drift_pipeline.serving.app import make_app
from drift_pipeline.serving.guard import SloCounts
from drift_pipeline.serving.keys import revoke_producer
from drift_pipeline.serving.recent import Recent
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline.training.trainers import score
from drift_pipeline_tests.serving.worlds import SPECS, Home, heard, infer, listening, model, until
from drift_pipeline_tests.training.worlds import history, spec

INFER = "/v2/models/fraud/infer"
ROW = [(0.5, 1.0, "tv")]
PEOPLE = [f"person {k}" for k in range(400)]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    home.store.close()


@contextmanager
def gateway(
    home: Home, key: str | None, specs: Mapping[str, ModelSpec] = SPECS, **options: Any
) -> Iterator[httpx.Client]:
    """A client of a gateway that has heard from the store once, with the key in its headers."""
    options = {"every_seconds": 0.05, "rotate_seconds": 60.0} | options
    limits = options.pop("limits", {})
    spool = options.pop("spool", None) or SpoolWriter(home.settings.home / "spool" / "gateway")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    app = make_app(home.settings, specs, spool, SystemClock(), **options)
    with listening(app, **limits) as address, httpx.Client(base_url=address, headers=headers, timeout=30) as client:
        heard(client)
        yield client


def events(home: Home) -> list[dict[str, Any]]:
    return [json.loads(line) for line in home.spooled()]


def ask(client: httpx.Client, entity: str | None = None) -> dict[str, Any]:
    told = client.post(INFER, json=infer(ROW, parameters={"entity": entity}))
    assert told.status_code == 200, told.text
    document: dict[str, Any] = told.json()
    return document


def answered_by(client: httpx.Client, entity: str) -> str:
    return str(ask(client, entity)["model_version"])


def test_an_answer_is_the_champions_score_and_is_written_down(home: Home) -> None:
    home.champion(home.version("v1", 0))
    rows = history(20, seed=9)
    told = [*rows.select("amount", "age", "device").iter_rows()]
    with gateway(home, home.producer()) as client:
        found = client.post(INFER, json=infer(told, id="r", parameters={"entity": "ada"})).json()
    wanted = score(load_pipeline(model(0)), rows, SPECS["fraud"].features)
    scores, decisions = found.pop("outputs")
    assert found == {"model_name": "fraud", "model_version": "v1", "id": "r", "parameters": {"route": "stable"}}
    assert scores == {"name": "score", "shape": [20], "datatype": "FP64", "data": wanted.tolist()}
    assert decisions["data"] == (wanted >= 0.5).tolist()
    written = events(home)
    assert [event["id"] for event in written] == [f"r-{k}" for k in range(20)]
    assert [event["score"] for event in written] == wanted.tolist()
    first = written[0]
    assert first["features"] == {"amount": told[0][0], "age": told[0][1], "device": told[0][2], "region": None}
    assert {k: first[k] for k in ("event", "model", "version", "route", "entity")} == {
        "event": "prediction",
        "model": "fraud",
        "version": "v1",
        "route": "stable",
        "entity": "ada",
    }
    assert first["latency_ms"] > 0


def test_a_canary_takes_its_share_by_the_sticky_split_and_each_event_names_its_version(home: Home) -> None:
    home.champion(home.version("v1", 0))
    home.rollout(home.version("v2", 1), Phase.CANARY)
    with gateway(home, home.producer()) as client:
        for _ in range(2):
            for person in PEOPLE[:100]:
                assert answered_by(client, person) == ("v2" if in_canary(person, "r1", 10) else "v1")
        body = infer(ROW * 400, parameters={"ids": PEOPLE})
        split = client.post(INFER, json=body).json()
        metrics = client.get("/metrics").text
    inside = [in_canary(person, "r1", 10) for person in PEOPLE]
    assert split["parameters"]["route"] == "split"
    assert split["parameters"]["versions"] == ["v2" if sent else "v1" for sent in inside]
    sent = Counter((event["version"], event["route"]) for event in events(home))
    canary = 2 * inside[:100].count(True) + inside.count(True)
    assert sent == {("v1", "stable"): 600 - canary, ("v2", "canary"): canary}
    assert 'drift_gateway_canary_weight_percent{model="fraud"} 10.0' in metrics


def test_routes_are_followed_without_a_restart_and_the_former_champion_stays_loaded(home: Home) -> None:
    first, second = home.version("v1", 0), home.version("v2", 1)
    home.champion(first)
    with gateway(home, home.producer()) as client:
        assert answered_by(client, "ada") == "v1"
        home.rollout(second, Phase.CANARY)
        until(client, 'canary_weight_percent{model="fraud"} 10.0')
        home.champion(second, previous=first)
        home.rollout(second, Phase.FULL)
        until(client, 'canary_weight_percent{model="fraud"} 0.0')
        until(client, 'role="previous",version="v1"')
        assert answered_by(client, "ada") == "v2"
        (folder,) = home.settings.registry.glob(f"*/{first['digest'].removeprefix('sha256:')}")
        (folder / "model.skops").write_bytes(b"gone")
        home.champion(first)
        until(client, 'role="champion",version="v1"')
        assert answered_by(client, "ada") == "v1"


def test_a_candidate_in_the_shadow_is_not_loaded(home: Home) -> None:
    home.champion(home.version("v1", 0))
    home.rollout({**home.version("v2", 1), "digest": "sha256:" + "0" * 64}, Phase.SHADOW)
    with gateway(home, home.producer()) as client:
        assert answered_by(client, "ada") == "v1"
        assert client.get("/v2/health/ready").json() == {"ready": True}


@pytest.mark.parametrize("swapped", ["bytes", "bundle"])
@pytest.mark.parametrize("role", ["champion", "candidate"])
def test_swapped_bytes_are_refused_told_and_the_old_version_goes_on(home: Home, role: str, swapped: str) -> None:
    first, second, third = (home.version(f"v{number + 1}", number) for number in range(3))
    home.champion(first)
    (folder,) = home.settings.registry.glob(f"*/{second['digest'].removeprefix('sha256:')}")
    (folder / "model.skops").write_bytes(model(2))
    if swapped == "bundle":  # one that is whole by itself
        (other,) = home.settings.registry.glob(f"*/{third['digest'].removeprefix('sha256:')}")
        shutil.rmtree(folder)
        shutil.copytree(other, folder)
    with gateway(home, home.producer()) as client:
        if role == "champion":
            home.champion(second, previous=first)
        else:
            home.rollout(second, Phase.CANARY)
        until(client, 'load_problems{model="fraud"} 1.0')
        assert {answered_by(client, person) for person in PEOPLE[:50]} == {"v1"}
        told = client.get("/v2/health/ready")
    assert told.status_code == 200
    assert told.json()["problems"] == {"fraud": "a version cannot be loaded; the gateway's log tells why"}


def test_a_champion_that_never_loaded_is_503_with_its_reason_everywhere(home: Home) -> None:
    home.champion({**home.version("v1", 0), "digest": "sha256:" + "0" * 64})
    with gateway(home, home.producer()) as client:
        until(client, 'load_problems{model="fraud"} 1.0')
        for told in (
            client.get("/v2/health/ready"),
            client.get("/v2/models/fraud/ready"),
            client.post(INFER, json=infer(ROW)),
        ):
            assert told.status_code == 503
            assert "fraud: its champion cannot be loaded" in told.json()["error"]
            assert told.headers["Retry-After"] == "1"
        assert client.get("/v2/health/live").status_code == 200
    assert events(home) == []


def failing(home: Home, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Any], Any]) -> None:
    """Version v2 scores with a fault."""
    from drift_pipeline.serving import models
    from drift_pipeline.serving.scoring import Scorer, make_scorer

    bad = load_pipeline(model(1))[-1]._baseline_prediction.item()

    def made(pipeline: Any, features: Any) -> Scorer:
        scorer = make_scorer(pipeline, features)
        if pipeline[-1]._baseline_prediction.item() != bad:
            return scorer
        return Scorer(lambda rows: fault(scorer.score(rows)) if rows[0][0] is not None else scorer.score(rows), True)

    monkeypatch.setattr(models, "make_scorer", made)


def crash(_: Any) -> Any:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize("fault", [crash, lambda scores: scores * np.nan], ids=["raises", "nan"])
def test_where_the_canary_fails_the_champion_answers_and_the_one_event_is_the_failure(
    home: Home, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Any], Any]
) -> None:
    failing(home, monkeypatch, fault)
    home.champion(home.version("v1", 0))
    home.rollout(home.version("v2", 1), Phase.CANARY)
    with gateway(home, home.producer()) as client:
        found = [ask(client, person) for person in PEOPLE[:60]]
        metrics = client.get("/metrics").text
    inside = [in_canary(person, "r1", 10) for person in PEOPLE[:60]]
    champion = {one["outputs"][0]["data"][0] for one, sent in zip(found, inside, strict=True) if not sent}
    assert {one["model_version"] for one in found} == {"v1"}
    assert {one["outputs"][0]["data"][0] for one in found} == champion
    assert len(champion) == 1
    written = events(home)
    assert [(e["version"], e["route"], e["score"] is None) for e in written] == [
        ("v2", "canary", True) if sent else ("v1", "stable", False) for sent in inside
    ]
    assert len({event["id"] for event in written}) == 60
    assert f'row_errors_total{{model="fraud",route="canary",version="v2"}} {inside.count(True)}.0' in metrics


def test_a_champion_without_a_usable_score_is_a_500_whose_event_is_written(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(home, monkeypatch, crash)
    home.champion(home.version("v2", 1))
    with gateway(home, home.producer()) as client:
        told = client.post(INFER, json=infer(ROW))
    assert (told.status_code, [event["score"] for event in events(home)]) == (500, [None])


def test_a_breach_stops_the_canary_at_once_and_is_reported_until_it_is_heard(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []

    def judge(counts: SloCounts) -> str | None:
        return f"{counts.errors} errors" if counts.errors >= 3 and counts.version == "v2" else None

    def rolled_back(name: str, _rollout: str, reason: str) -> None:
        told.append((name, reason))
        if len(told) == 1:
            raise UnavailableError("the store is busy")

    failing(home, monkeypatch, crash)
    home.champion(home.version("v1", 0))
    candidate = home.version("v2", 1)
    home.rollout(candidate, Phase.CANARY)
    with gateway(home, home.producer(), judge_slo=judge, rolled_back=rolled_back) as client:
        body = infer(ROW * 400, parameters={"ids": PEOPLE})
        assert client.post(INFER, json=body).json()["parameters"]["route"] == "split"
        until(client, 'canary_weight_percent{model="fraud"} 0.0')
        assert client.post(INFER, json=body).json()["parameters"] == {"route": "stable"}
        home.rollout(candidate, Phase.CANARY, "r2")
        until(client, 'canary_weight_percent{model="fraud"} 10.0')
        assert client.post(INFER, json=body).json()["parameters"]["route"] == "split"
    errors = sum(in_canary(person, "r1", 10) for person in PEOPLE)
    assert told[:2] == [("fraud", f"{errors} errors")] * 2


def test_keys(home: Home) -> None:
    """401 without a known key, 403 and one audit record for another's model, 429 and 413 above the rate."""
    home.champion(home.version("v1", 0))
    other = home.producer(models=["churn"], name="other")
    key = home.producer(rows_per_second=10)
    with gateway(home, None) as client:
        for headers in ({}, {"Authorization": "Bearer x"}, {"X-API-Key": "x"}, {"Authorization": f"Basic {key}"}):
            told = client.post(INFER, json=infer(ROW), headers=headers)
            assert (told.status_code, told.headers["WWW-Authenticate"]) == (401, "Bearer")
        for path in ("/v2", "/v2/models/fraud"):
            assert client.get(path).status_code == 401
        for _ in range(3):
            assert client.post(INFER, json=infer(ROW), headers={"X-API-Key": other}).status_code == 403
            assert client.get("/v2/models/nobody's", headers={"X-API-Key": key}).status_code == 403
        assert client.post(INFER, json=infer(ROW * 21), headers={"X-API-Key": key}).status_code == 413
        assert client.post(INFER, json=infer(ROW * 20), headers={"X-API-Key": key}).status_code == 200
        told = client.post(INFER, json=infer(ROW * 10), headers={"X-API-Key": key})
        assert (told.status_code, told.headers["Retry-After"]) == (429, "1")
        revoke_producer(home.store, "app", "test", "it leaked")
        time.sleep(0.5)
        assert client.get("/v2", headers={"X-API-Key": key}).status_code == 401
        assert client.get("/v2/health/live").status_code == 200
    refusals = [(r.subject, r.details) for r in home.store.records() if r.event == "producer.refused"]
    assert refusals == [("other", {"model": "fraud"}), ("app", {"model": ""})]
    assert len(events(home)) == 20


class FullSpool(SpoolWriter):
    def write(self, lines: Sequence[bytes]) -> None:  # noqa: ARG002
        raise UnavailableError("the spool's disk is full; make room")


def test_what_the_spool_does_not_take_is_not_answered(home: Home) -> None:
    home.champion(home.version("v1", 0))
    with gateway(home, home.producer(), spool=FullSpool(home.settings.home / "spool" / "full")) as client:
        told = client.post(INFER, json=infer(ROW))
        assert (told.status_code, told.headers["Retry-After"]) == (503, "1")
        assert told.json()["error"].startswith("fraud: the events cannot be written down, so nothing is answered")
        assert 'spool_failures_total{model="fraud"} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("how", ["answered", "told of"])
def test_an_outcome_of_a_prediction_that_nobody_knows_waits(home: Home, how: str) -> None:
    home.champion(home.version("v1", 0))
    with gateway(home, home.producer()) as client:
        if how == "answered":
            assert client.post(INFER, json=infer(ROW, id="known")).status_code == 200
        else:
            features = {"amount": 1.0, "age": None, "device": "tv", "region": "north"}
            event = {"id": "known", "time": "2026-03-01T00:00:00+00:00", "version": "theirs", "score": 0.5}
            event |= {"entity": None, "features": features, "latency_ms": None}
            assert client.post("/v2/models/fraud/events", json={"events": [event]}).json() == {"taken": 1}
        told = [{"id": "known", "label": 1}, {"id": "unknown", "label": 1}]
        for _ in range(2):  # a retry is answered alike
            said = client.post("/v2/models/fraud/outcomes", json={"outcomes": told})
            assert (said.status_code, said.json()) == (202, {"taken": 1, "waiting": 1})
    landed = [one["id"] for one in events(home) if one["event"] == "outcome"]
    assert landed == ["known", "unknown"] * 2  # what waits is written down, too


def test_what_is_known_of_predictions_is_bounded() -> None:
    recent = Recent(most=10)
    for at in range(100):
        recent.add("fraud", [str(at)])
    known = [at for at in range(100) if recent.knows("fraud", str(at))]
    assert (10 <= len(known) < 20, known[-1], recent.knows("churn", "99")) == (True, 99, False)


def test_outcomes_and_events_of_others_are_taken_whole_or_not_at_all(home: Home) -> None:
    features = {"amount": 1.0, "age": None, "device": "tv", "region": "north"}
    event = {"id": "x", "time": "2026-03-01T00:00:00+00:00", "version": "theirs", "score": 0.5, "latency_ms": None}
    event |= {"entity": None, "features": features}
    with gateway(home, home.producer()) as client:
        told = client.post(
            "/v2/models/fraud/outcomes", json={"outcomes": [{"id": "a", "label": 1}, {"id": "b", "label": 0}]}
        )
        assert (told.status_code, told.json()) == (202, {"taken": 0, "waiting": 2})
        told = client.post(
            "/v2/models/fraud/outcomes", json={"outcomes": [{"id": "c", "label": 1}, {"id": "", "label": 1}]}
        )
        assert told.status_code == 400
        assert told.json()["error"].startswith("outcomes.1: ")
        told = client.post("/v2/models/fraud/events", json={"events": [event, {**event, "id": "y", "route": "stable"}]})
        assert (told.status_code, told.json()) == (202, {"taken": 2})
        told = client.post("/v2/models/fraud/events", json={"events": [{**event, "features": {"amount": 1.0}}]})
        assert (told.status_code, told.json()["error"][:10]) == (400, "events.0: ")
        assert client.post("/v2/models/fraud/outcomes", json={"outcomes": []}).status_code == 400
        assert client.post("/v2/models/fraud/outcomes", content=b"x" * (16 * 1024 * 1024 + 1)).status_code == 413
    written = events(home)
    assert [(one["event"], one["id"], one["model"]) for one in written] == [
        ("outcome", "a", "fraud"),
        ("outcome", "b", "fraud"),
        ("prediction", "x", "fraud"),
        ("prediction", "y", "fraud"),
    ]
    assert [one["route"] for one in written[2:]] == ["external"] * 2
    assert [(one["producer"], one.get("stamped")) for one in written] == [("app", True)] * 2 + [("app", None)] * 2


def test_a_model_that_is_served_elsewhere_is_not_waited_for(home: Home) -> None:
    home.champion({**home.version("recorded", 0), "digest": "recorded"})
    with gateway(home, home.producer()) as client:
        assert client.get("/v2/health/ready").json() == {"ready": True}
        told = client.post(INFER, json=infer(ROW))
    assert (told.status_code, "served elsewhere" in told.json()["error"]) == (404, True)


def test_a_model_without_a_champion_is_503_and_holds_nobody_up(home: Home) -> None:
    with gateway(home, home.producer()) as client:
        assert client.get("/v2/health/ready").status_code == 200
        told = client.post(INFER, json=infer(ROW))
    assert (told.status_code, told.json()["error"]) == (503, "fraud has no champion yet: adopt it first")


def test_without_the_control_store_the_old_routes_hold_and_it_is_told(home: Home) -> None:
    home.champion(home.version("v1", 0))
    with gateway(home, home.producer()) as client:
        with sqlite3.connect(home.settings.home / "control.db") as connection:
            connection.execute("DROP TABLE state")
        connection.close()
        until(client, "the control store", "/v2/health/ready")
        assert client.get("/v2/health/ready").status_code == 200
        assert answered_by(client, "ada") == "v1"


def test_what_the_spools_reader_would_not_take_is_refused_and_not_written(home: Home) -> None:
    home.champion(home.version("v1", 0))
    with gateway(home, home.producer()) as client:
        long = client.post(INFER, json=infer(ROW, parameters={"entity": "x" * 1_000_001}))
        half = client.post(INFER, content=json.dumps(infer(ROW, id="\ud800")))
    assert [long.status_code, half.status_code] == [400, 400]
    assert events(home) == []


def test_metadata_tells_columns_and_loaded_versions(home: Home) -> None:
    home.champion(home.version("v1", 0))
    with gateway(home, home.producer(models=["*"])) as client:
        assert client.get("/v2").json()["name"] == "drift_pipeline"
        told = client.get("/v2/models/fraud").json()
        assert client.get("/v2/models/fraud/versions/v1").json() == told
        for path in ("/v2/models/fraud/versions/v9", "/v2/models/churn", "/nothing"):
            wrong = client.get(path)
            assert wrong.status_code == 404
            assert wrong.json()["error"]
    assert told["versions"] == ["v1"]
    assert [column["name"] for column in told["inputs"]] == ["amount", "age", "device", "region"]


def test_a_regression_has_no_decision(home: Home) -> None:
    document = spec().model_dump(mode="json") | {"task": "regression", "kpis": {}, "prediction": {}}
    document["outcome"] = {"column": "label"}
    home.champion(home.version("v1", 0))
    with gateway(home, home.producer(), {"fraud": ModelSpec.model_validate(document)}) as client:
        assert [output["name"] for output in ask(client)["outputs"]] == ["score"]


def test_metrics_tell_when_each_models_loop_last_ticked(home: Home) -> None:
    home.champion(home.version("v1", 0))
    home.store.remember(Put("", "fraud", {"at": "2026-03-01T12:00:00+00:00"}))
    with gateway(home, home.producer()) as client:
        until(client, 'drift_gateway_ticked_at_seconds{model="fraud"} 1.7723')


def test_metrics_tell_of_the_loop_of_the_keys_models_and_of_the_home_to_a_key_of_all(home: Home) -> None:
    home.champion(home.version("v1", 0))
    home.put("model", "churn", {"version": "v7"})
    every = home.producer(models=["*"], name="scraper")
    with gateway(home, home.producer()) as client:
        told = until(client, 'drift_model_info{model="fraud"')
        assert "churn" not in told
        assert "\ndrift_up" not in told
        text = client.get("/metrics", headers={"Authorization": f"Bearer {every}"}).text
    assert 'drift_model_info{model="churn"' in text
    assert "\ndrift_up 1.0" in text
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(names) == len(set(names))
