"""A pinned gateway: it answers by its own digest alone, while that may answer, and what it tells is judged as ever."""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import numpy as np
import pytest

from drift_pipeline.clock import SystemClock
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.errors import DriftError, InputError, IntegrityError, RefusedError
from drift_pipeline.loop.state import RECORDED
from drift_pipeline.rollout.observe import observe
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline.serving import gateway
from drift_pipeline.serving.app import make_app
from drift_pipeline.serving.guard import SloCounts
from drift_pipeline.serving.mirror import Mirror
from drift_pipeline.serving.pinned import require
from drift_pipeline.serving.server import serve
from drift_pipeline.telemetry.capture import Capture
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline_tests.serving.worlds import AT, SPECS, Home, heard, infer, listening, until

INFER = "/v2/models/fraud/infer"
PEOPLE = [f"person {k}" for k in range(60)]
ROWS = infer([(0.5, 1.0, "tv")] * len(PEOPLE), parameters={"ids": PEOPLE})
COPY = {"Host": "fraud.example-shadow:8080"}  # as Envoy names the host of what it mirrors
LONG = {"every_seconds": 30.0}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    home.champion(home.version("v1", 0))
    with closing(home.store):
        yield home


@contextmanager
def pinned(home: Home, key: str, digest: str, **options: Any) -> Iterator[httpx.Client]:
    spool = SpoolWriter(home.settings.home / "spool" / "gateway")
    options = {"every_seconds": 0.05, "rotate_seconds": 60.0} | options
    app, headers = make_app(home.settings, SPECS, spool, SystemClock(), pin=digest, **options), _with(key)
    with listening(app) as address, httpx.Client(base_url=address, headers=headers, timeout=30) as client:
        heard(client)
        yield client


def _with(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def told(home: Home) -> Counter[tuple[str, str]]:
    """Versions and routes in the spool."""
    events = map(json.loads, home.spooled())
    return Counter((event["version"], event["route"]) for event in events if event["event"] == "prediction")


def answers(client: httpx.Client, headers: dict[str, str]) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/v2", headers=headers).status_code == 200
    return False


def until_true(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(("name", "route"), [("v1", "stable"), ("v2", "canary")])
def test_in_a_canary_each_answers_whatever_it_is_sent_by_its_own_version_and_tells_that(
    home: Home, name: str, route: str
) -> None:
    home.rollout(home.version("v2", 1), Phase.CANARY)
    digests = {"v1": home.version("v1", 0)["digest"], "v2": home.version("v2", 1)["digest"]}
    with pinned(home, home.producer(), digests[name]) as client:
        answered = client.post(INFER, json=ROWS).json()
        metrics, versions = client.get("/metrics").text, client.get("/v2/models/fraud").json()["versions"]
    assert (answered["model_version"], answered["parameters"], versions) == (name, {"route": route}, [name])
    assert told(home) == {(name, route): len(PEOPLE)}
    assert f'digest="{digests[name]}",model="fraud"' in metrics
    assert metrics.count("loaded_version{") == 1


def test_a_candidate_before_its_canary_scores_copies_and_answers_nobody_until_this_very_moment(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "AGAIN_SECONDS", 3.0)  # and by itself it looks each 30 s
    candidate = home.version("v2", 1)
    home.rollout(candidate, Phase.SHADOW)
    with pinned(home, home.producer(), candidate["digest"], **LONG) as client:
        assert client.get("/v2/health/ready").status_code == 200
        refused, copied = client.post(INFER, json=ROWS), client.post(INFER, json=ROWS, headers=COPY)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert "v2 may not answer" in refused.json()["error"]
        assert (copied.status_code, copied.content, home.spooled()) == (204, b"", [])
        assert 'rows_total{model="fraud",route="shadow",version="v2"} 60.0' in client.get("/metrics").text
        home.rollout(candidate, Phase.CANARY)
        answers = [client.post(INFER, json=ROWS, headers=headers) for headers in ({}, COPY)]
        assert [answer.status_code for answer in answers] == [200, 204]
    assert told(home) == {("v2", "canary"): len(PEOPLE)}


def test_a_copy_of_an_outcome_is_not_written_twice(home: Home) -> None:
    body = {"outcomes": [{"id": "person 1", "label": 1}]}
    with pinned(home, home.producer(), home.version("v1", 0)["digest"]) as client:
        codes = [client.post("/v2/models/fraud/outcomes", json=body, headers=of).status_code for of in ({}, COPY)]
        assert (codes, len(home.spooled())) == ([202, 202], 1)


def test_a_canary_that_is_taken_back_answers_nobody_and_a_champion_until_it_is_replaced(home: Home) -> None:
    first, second, third = (home.version(f"v{n + 1}", n) for n in range(3))
    home.rollout(second, Phase.CANARY)
    with pinned(home, home.producer(), second["digest"]) as client:
        assert client.post(INFER, json=ROWS).status_code == 200
        home.rollout(second, Phase.ROLLED_BACK)
        until(client, 'canary_weight_percent{model="fraud"} 0.0')
        assert [client.post(INFER, json=ROWS, headers=of).status_code for of in ({}, COPY)] == [503, 204]
        home.champion(second, previous=first)
        until(client, 'role="champion"')
        assert client.post(INFER, json=ROWS).json()["parameters"] == {"route": "stable"}
        for champion, previous in ((third, second), (first, None)):  # the one before, and then taken back as well
            home.champion(champion, previous)
            home.rollout(third, Phase.SHADOW, f"of {champion['version']}")
            later = _with(home.producer(name=f"after {champion['version']}"))  # known once the routes were read anew
            until_true(partial(answers, client, later))
            answered = client.post(INFER, json=ROWS).json()
            assert (answered["model_version"], answered["parameters"]) == ("v2", {"route": "stable"})


def test_where_its_version_fails_no_other_answers_and_the_event_is_the_failure(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from drift_pipeline.serving import models
    from drift_pipeline.serving.scoring import Scorer

    def score(rows: Any) -> Any:
        if rows[0][0] is None:  # which it is tried with when it is loaded
            return np.zeros(len(rows))
        raise RuntimeError("out of memory")

    candidate = home.version("v2", 1)
    home.rollout(candidate, Phase.CANARY)
    monkeypatch.setattr(models, "make_scorer", lambda *_: Scorer(score, True))
    with pinned(home, home.producer(), candidate["digest"]) as client:
        assert [client.post(INFER, json=ROWS, headers=of).status_code for of in ({}, COPY)] == [500, 204]
        failed = 'row_errors_total{model="fraud",route="shadow",version="v2"} 60.0'
        assert failed in client.get("/metrics").text
    assert {(e["version"], e["score"]) for e in map(json.loads, home.spooled())} == {("v2", None)}


def test_its_guard_counts_its_own_version_alone_and_a_canary_that_it_stops_answers_nobody(home: Home) -> None:
    first, second = home.version("v1", 0), home.version("v2", 1)
    seen, stopped = list[SloCounts](), list[tuple[str, str, str]]()

    def judge(counts: SloCounts) -> str | None:
        seen.append(counts)
        return "too slow" if counts.rows >= len(PEOPLE) else None

    def back(*what: str) -> None:
        stopped.append((what[0], what[1], what[2]))

    home.rollout(second, Phase.CANARY)
    key = home.producer()
    with pinned(home, key, first["digest"], judge_slo=judge, rolled_back=back) as client:
        client.post(INFER, json=ROWS)
        until_true(lambda: any(counts.stable_rows for counts in seen))
        assert (client.post(INFER, json=ROWS).status_code, stopped) == (200, [])
        assert {(counts.version, counts.rows) for counts in seen} == {("v2", 0)}
    with pinned(home, key, second["digest"], judge_slo=judge, rolled_back=back) as client:
        assert client.post(INFER, json=ROWS).status_code == 200
        until(client, 'canary_weight_percent{model="fraud"} 0.0')
        until_true(lambda: bool(stopped))
        assert client.post(INFER, json=ROWS).status_code == 503
    assert stopped[0] == ("fraud", "r1", "too slow")


def test_what_two_of_them_tell_is_a_rollouts_evidence(home: Home, tmp_path: Path) -> None:
    candidate, key = home.version("v2", 1), home.producer()
    home.rollout(candidate, Phase.CANARY)
    for number, digest in enumerate((home.version("v1", 0)["digest"], candidate["digest"])):
        ids = [f"{number}-{person}" for person in PEOPLE]
        with pinned(home, key, digest) as client:
            assert client.post(INFER, json={**ROWS, "parameters": {"ids": ids}}).status_code == 200
    lake, clock = Lake(tmp_path / "lake", source="gateway"), SystemClock()
    mirror = Mirror(home.store, home.registry, SPECS).mirror
    Capture(home.settings.home / "spool", lambda *_: lake, SPECS, clock, mirror).once(Event())
    status = Status("r1", "fraud", "v2", "v1", Phase.CANARY, since=AT, started=AT, reason="a test")
    now = clock.now() + timedelta(minutes=1)
    found = observe(lake, status, "v2", "v1", now, performance_of(SPECS["fraud"]), SPECS["fraud"])
    assert (found.candidate_rows, found.candidate_errors, found.champion_errors) == (len(PEOPLE), 0, 0)
    assert (found.champion_rows, found.agreement["all"][1]) == (2 * len(PEOPLE), 2 * len(PEOPLE))


SCRIPT = """
import sys
from pathlib import Path
from drift_pipeline.clock import SystemClock
from drift_pipeline.serving.server import serve
from drift_pipeline.settings import Settings
from drift_pipeline_tests.serving.worlds import SPECS
serve(Settings(home=Path(sys.argv[1]), database=""), SPECS, "127.0.0.1", 0, SystemClock(), pin=sys.argv[2])
"""


@pytest.mark.live
def test_a_killed_process_has_written_what_it_answered_and_its_version_does_not_come_back_once_it_was_taken_back(
    home: Home,
) -> None:
    candidate, key = home.version("v2", 1), home.producer()
    home.rollout(candidate, Phase.CANARY)
    command = [sys.executable, "-c", SCRIPT, str(home.settings.home), candidate["digest"]]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = process.stderr.readline().removeprefix("gateway on ").strip()
            with httpx.Client(base_url=address, headers=_with(key), timeout=30) as client:
                until_true(partial(answers, client, {}), 240)
                assert client.post(INFER, json=ROWS).json()["model_version"] == "v2"
                home.rollout(candidate, Phase.ROLLED_BACK)
                until_true(lambda: client.post(INFER, json=ROWS).status_code == 503)
        finally:
            process.kill()
    assert told(home).keys() == {("v2", "canary")}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert (ended.returncode, "may not answer for fraud" in ended.stderr) == (1, True)


def test_a_digest_that_may_not_answer_is_refused_before_anything_listens(home: Home) -> None:
    spec, second = SPECS["fraud"], home.version("v2", 1)
    refused(home, second["digest"], RefusedError, "it is not the champion, which is v1 with sha256:")
    for phase in (Phase.SHADOW, Phase.CANARY):
        home.rollout(second, phase)
        require(home.store, home.registry, spec, second["digest"])
    for phase in (Phase.ROLLED_BACK, Phase.FULL):
        home.rollout(second, phase)
        refused(home, second["digest"], RefusedError, "nor the candidate of a rollout under way")
    lost = "sha256:" + "0" * 64
    home.champion({**second, "digest": lost}, previous=second)
    require(home.store, home.registry, spec, second["digest"])
    refused(home, lost, InputError, "no bundle sha256:000")
    file = next(home.settings.registry.rglob(f"{second['digest'][7:]}/model.skops"))
    file.chmod(0o644)
    file.write_bytes(b"another model")
    refused(home, second["digest"], IntegrityError, "model.skops")
    home.champion({**second, "digest": RECORDED})
    refused(home, second["digest"], InputError, "is served elsewhere")


def test_of_a_model_that_is_not_adopted_nothing_is_served(tmp_path: Path) -> None:
    home = Home(tmp_path / "empty")
    with closing(home.store):
        refused(home, home.version("v1", 0)["digest"], InputError, "is not adopted here")


def refused(home: Home, digest: str, error: type[DriftError], said: str) -> None:
    with pytest.raises(error, match=re.escape(said)):
        serve(home.settings, SPECS, "127.0.0.1", 0, SystemClock(), pin=digest)
    assert not (home.settings.home / "spool" / "gateway").exists()
