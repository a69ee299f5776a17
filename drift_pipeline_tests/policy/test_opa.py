"""OpaEngine: a server that is down, slow, unsigned, stale or says anything odd never decides anything."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.clock import DrillClock, ManualClock, SystemClock
from drift_pipeline.errors import UnavailableError
from drift_pipeline.loop.home import opened
from drift_pipeline.policy.decide import Action, decide
from drift_pipeline.policy.engines import PACKAGED_BUNDLE, Bundle, read_bundle
from drift_pipeline.policy.engines.opa import OpaEngine
from drift_pipeline.policy.release import may_release
from drift_pipeline.settings import Settings
from drift_pipeline_tests.contracts.decision_table import PLAIN
from drift_pipeline_tests.parts import opa as part
from drift_pipeline_tests.parts.opa import Opa
from drift_pipeline_tests.policy.test_decide import FACTS
from drift_pipeline_tests.policy.test_release import STEP_FORWARD

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
BUNDLE = {"drift": {"active_revision": "r1", "last_successful_request": "2026-03-02T11:59:00.123456789Z"}}
GOOD: dict[str, Any] = {
    "status": {"result": {"bundles": BUNDLE}},
    "config": {"result": {"bundles": {"drift": {"signing": {"keyid": "drift"}}}}},
    "policies": {"result": [{"id": "drift/a/drift.rego", "raw": "package drift"}]},
    "data/policy": {"result": {"a": 1}},
    "data/drift/decision": {
        "decision_id": "d1",
        "provenance": {"bundles": {"drift": {"revision": "r1"}}},
        "result": {"action": "retrain", "reasons": ["r"]},
    },
}


@contextmanager
def saying(answers: dict[str, Any], seconds: float = 0) -> Iterator[str]:
    """A server that answers by path: JSON, bytes, or an error's number; each byte `seconds` after another."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = answers[self.path.removeprefix("/v1/").partition("?")[0]]
            body = said if isinstance(said, bytes) else json.dumps({} if isinstance(said, int) else said).encode()
            self.send_response(said if isinstance(said, int) else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for at in range(0, len(body), 1 if seconds else len(body)):
                try:
                    self.wfile.write(body[at : at + 1] if seconds else body)
                    self.wfile.flush()
                except OSError:
                    return
                time.sleep(seconds)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            """Not to stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def engine(url: str, **more: Any) -> OpaEngine:
    return OpaEngine(url, ManualClock(NOW), **more)


def test_a_whole_answer_goes_through_with_who_gave_it_and_its_rules_are_filed_once() -> None:
    filed: list[Bundle] = []
    with saying(GOOD) as url:
        asked = engine(url, file=filed.append)
        answers = [asked.evaluate(PLAIN) for _ in range(3)]
    rules = Bundle({"drift.rego": "package drift", "data.json": '{"policy":{"a":1}}'})
    assert filed == [rules]
    assert [one.digest for one in answers] == [rules.digest] * 3
    assert answers[0].value == {"action": "retrain", "reasons": ["r"]}
    assert answers[0].by == {"engine": "opa", "decision_id": "d1", "bundle": "drift", "revision": "r1"}


def other(path: str, *keys: str, value: object = ...) -> dict[str, Any]:
    """GOOD with one thing changed, or left out."""
    answers = json.loads(json.dumps(GOOD))
    *nodes, last = (path, *keys)
    node = answers
    for key in nodes:
        node = node[key]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return answers  # type: ignore[no-any-return]


DECISION = "data/drift/decision"
DRIFT = ("status", "result", "bundles", "drift")


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (other(DECISION, "result"), r"undefined for these facts \(OPA's decision d1\)"),
        (other(DECISION, "result", value="yes"), "is not an object"),
        (other(DECISION, "decision_id"), "gives decisions no id: set decision_logs"),
        (other(DECISION, "provenance"), "took up other rules while it was asked"),
        (other(DECISION, "provenance", "bundles", "drift", "revision", value="r2"), "took up other rules"),
        (other(DECISION, value=500), "answers 500"),
        (other(DECISION, value=401), "answers 401"),
        (other(DECISION, value={"code": "x", "message": "boom"}), "took up other rules"),
        (other(DECISION, value=[]), "no JSON object"),
        ({**GOOD, DECISION: b"<html>"}, "no JSON object"),
        ({**GOOD, DECISION: b"[" * 200_000}, "no JSON object"),
        ({**GOOD, DECISION: b" " * (5 * 2**20)}, "more than 4,194,304 bytes"),
        (other("status", "result"), "has 0 bundles"),
        (other("status", value=500), "answers 500"),
        (other("status", "result", "bundles", "more", value={}), "has 2 bundles"),
        (other(*DRIFT, "active_revision"), "no bundle with a revision"),
        (other(*DRIFT, "active_revision", value=""), "no bundle with a revision"),
        (other(*DRIFT, "last_successful_request"), "no bundle with a revision"),
        (other(*DRIFT, "last_successful_request", value="soon"), "tells no time"),
        (other(*DRIFT, "last_successful_request", value="2026-03-02T11:49:59Z"), "is stale: .* for 601 s"),
        (other("config", "result", "bundles", "drift", "signing"), "does not verify who signed"),
        (other("config", "result"), "does not verify who signed"),
        (other("policies", "result", value=[{"id": "x"}]), "does not tell its rules"),
    ],
)
def test_anything_less_is_no_answer(answers: dict[str, Any], why: str) -> None:
    with saying(answers) as url, pytest.raises(UnavailableError, match=why):
        engine(url).evaluate(PLAIN)


def test_a_server_that_drips_has_one_deadline_and_is_not_waited_for_twice() -> None:
    with saying(GOOD, seconds=0.05) as url:
        asked, began = engine(url, timeout_seconds=0.5), time.monotonic()
        for _ in range(20):
            with pytest.raises(UnavailableError, match=r"did not answer within 0.5 s"):
                asked.evaluate(PLAIN)
        assert time.monotonic() - began < 2


def test_a_server_that_is_down_allows_nothing_and_says_so() -> None:
    down = engine("http://127.0.0.1:9")
    decision, permission = decide(FACTS, down), may_release(STEP_FORWARD, down)
    assert (decision.action, decision.policy_digest, decision.unavailable) == (Action.IGNORE, None, True)
    assert "OPA at http://127.0.0.1:9 cannot be reached" in decision.reasons[0]
    assert not permission.allowed
    assert "cannot be reached" in permission.reasons[0]


def until(asked: OpaEngine, said: str) -> str:
    """What it decides by, or why not, once that is so."""
    end, found = time.monotonic() + 20, ""
    while time.monotonic() < end:
        try:
            found = asked.evaluate(PLAIN).by["revision"]
        except UnavailableError as error:
            found = str(error)
        if said in found:
            return found
        time.sleep(0.1)
    return found


def test_in_a_drill_a_bundle_is_as_old_as_the_machine_says(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    heard = {"drift": {"active_revision": "r1", "last_successful_request": now.isoformat()}}
    drill = DrillClock(now - timedelta(hours=1), 60)
    with saying({**GOOD, "status": {"result": {"bundles": heard}}}) as url:
        settings = Settings(home=tmp_path / "home", database="", opa_url=url)
        with opened(settings, drill, new=True) as home:
            assert home.policy.evaluate(PLAIN).by["revision"] == "r1"


@pytest.fixture
def own() -> Iterator[Opa]:
    with part.running() as server:
        yield server


@pytest.mark.live
@pytest.mark.usefixtures("opa_server")  # skipped where there is none
def test_a_real_servers_rules_are_the_folders_and_no_strangers(own: Opa, tmp_path: Path) -> None:
    filed: list[Bundle] = []
    asked = OpaEngine(own.url, SystemClock(), file=filed.append)
    assert asked.evaluate(PLAIN).digest == read_bundle().digest
    other_rules = tmp_path / "rules"
    other_rules.mkdir()
    for path in PACKAGED_BUNDLE.iterdir():
        (other_rules / path.name).write_bytes(path.read_bytes())
    (other_rules / "drift.rego").write_text((PACKAGED_BUNDLE / "drift.rego").read_text() + "\n# changed\n")
    own.publish(other_rules, revision="r2", key=own.stranger())
    time.sleep(2.5)
    assert asked.evaluate(PLAIN).by["revision"] == "r1"
    own.publish(other_rules, revision="r3")
    assert until(asked, "r3") == "r3"
    assert asked.evaluate(PLAIN).digest == read_bundle(other_rules).digest
    assert [rules.digest for rules in filed] == [read_bundle().digest, read_bundle(other_rules).digest]


@pytest.mark.live
@pytest.mark.usefixtures("opa_server")
def test_a_real_server_that_hangs_dies_or_grows_old_decides_nothing_until_it_is_back(own: Opa) -> None:
    asked = OpaEngine(own.url, SystemClock(), timeout_seconds=0.5, stale=timedelta(seconds=4))
    assert asked.evaluate(PLAIN).by["revision"] == "r1"
    own.server.freeze(True)
    assert "did not answer within" in until(asked, "did not answer")
    own.server.freeze(False)
    assert until(asked, "r1") == "r1"
    own.server.kill()
    assert "cannot be reached" in until(asked, "cannot be reached")
    own.server.start()
    assert until(asked, "r1") == "r1"
    own.withdraw()
    assert "is stale" in until(asked, "stale")
