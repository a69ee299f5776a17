"""The real pip-audit asks a fake OSV database on this machine; what is no answer is told as none."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from drift_pipeline.clock import DAY
from drift_pipeline.training.results import Outcome
from drift_pipeline.training.vulnerabilities import KNOWN, Scan, vulnerabilities_gate

PASS, FAIL, UNKNOWN = Outcome.PASS, Outcome.FAIL, Outcome.UNKNOWN
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
INSTALLED = (("click", "8.4.0"), ("numpy", "2.1.0"))


class FakeOsv:
    """Answers `/v1/query` as the database does: `{}` where nothing is known of a pin."""

    def __init__(self) -> None:
        self.known, self.at, self.asked = {KNOWN: "PYSEC-2018-28"}, NOW - DAY, list[tuple[str, str]]()
        self.answer: Callable[[dict[str, Any]], bytes] = lambda found: json.dumps(found).encode()
        self.status, self.dated = 200, True

    def found(self, name: str, version: str) -> dict[str, Any]:
        self.asked.append((name, version))
        id = self.known.get((name, version))
        affected = [{"package": {"name": name, "ecosystem": "PyPI"}, "ranges": []}]
        vulnerability = {"id": id, "modified": "2026-01-01T00:00:00Z", "summary": "bad", "affected": affected}
        return {"vulns": [vulnerability]} if id else {}


@pytest.fixture
def osv() -> Iterator[tuple[FakeOsv, Scan]]:
    fake = FakeOsv()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            data = fake.answer(fake.found(asked["package"]["name"], asked["version"]))
            self.send_response(fake.status)
            if fake.dated:
                self.send_header("Last-Modified", format_datetime(fake.at, usegmt=True))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield fake, Scan(f"http://127.0.0.1:{server.server_address[1]}/v1/query", 7 * DAY, INSTALLED)
    server.shutdown()
    server.server_close()
    thread.join()


def test_what_is_not_known_to_be_vulnerable_passes_with_tool_and_age_recorded(osv: tuple[FakeOsv, Scan]) -> None:
    fake, scan = osv
    found = vulnerabilities_gate(scan, NOW)
    assert found.outcome is PASS, found
    assert found.facts["tool"].startswith("pip-audit ")
    assert (found.facts["database_at"], found.facts["packages"]) == ((NOW - DAY).isoformat(), 2)
    assert set(fake.asked) == {KNOWN, *INSTALLED}


def test_what_is_known_to_be_vulnerable_fails_and_is_named(osv: tuple[FakeOsv, Scan]) -> None:
    fake, scan = osv
    fake.known[INSTALLED[1]] = "PYSEC-2026-1"
    found = vulnerabilities_gate(scan, NOW)
    assert (found.outcome, found.value) == (FAIL, 1.0)
    assert "numpy 2.1.0 PYSEC-2026-1" in found.reason


def knows_nothing(fake: FakeOsv) -> None:
    fake.known.clear()


def is_old(fake: FakeOsv) -> None:
    fake.at = NOW - 8 * DAY


def does_not_say_how_old_it_is(fake: FakeOsv) -> None:
    fake.dated = False


def answers_nonsense(fake: FakeOsv) -> None:
    fake.answer = lambda _: b"<html>sign in</html>"


def is_broken(fake: FakeOsv) -> None:
    fake.status = 503


def breaks_after_the_self_test(fake: FakeOsv) -> None:
    def answer(found: dict[str, Any]) -> bytes:
        return json.dumps(found).encode() if fake.asked[-1] == KNOWN else b"{"

    fake.answer = answer


@pytest.mark.parametrize(
    ("arrange", "said"),
    [
        (knows_nothing, "self-test: requests==2.19.1 is known to be vulnerable, and not reported"),
        (is_old, "is stale: of 2026-11-21, older than 7d (DRIFT_SCAN_STALE_DAYS)"),
        (does_not_say_how_old_it_is, "does not say how old its copy of the database is"),
        (answers_nonsense, "pip-audit gave no answer (exit code 1)"),
        (is_broken, "cannot be reached: HTTP Error 503"),
        (breaks_after_the_self_test, "pip-audit gave no answer (exit code 1)"),
    ],
)
def test_what_is_no_answer_is_unknown(osv: tuple[FakeOsv, Scan], arrange: Callable[[FakeOsv], None], said: str) -> None:
    fake, scan = osv
    arrange(fake)
    found = vulnerabilities_gate(scan, NOW)
    assert found.outcome is UNKNOWN
    assert said in found.reason


def test_a_database_that_nobody_answers_at_is_unknown() -> None:
    found = vulnerabilities_gate(Scan("http://127.0.0.1:9/v1/query", installed=INSTALLED), NOW)
    assert (found.outcome, "cannot be reached" in found.reason) == (UNKNOWN, True)


@pytest.mark.slow
@pytest.mark.parametrize("pin", [("not a name", "1"), ("click", "no version")])
def test_a_package_that_cannot_be_asked_about_is_unknown(osv: tuple[FakeOsv, Scan], pin: tuple[str, str]) -> None:
    _, scan = osv
    assert vulnerabilities_gate(replace(scan, installed=(*INSTALLED, pin)), NOW).outcome is UNKNOWN


def test_a_copy_as_old_as_is_allowed_is_an_answer(osv: tuple[FakeOsv, Scan]) -> None:
    fake, scan = osv
    assert vulnerabilities_gate(scan, fake.at + 7 * DAY).outcome is PASS
    assert vulnerabilities_gate(scan, fake.at + 7 * DAY + timedelta(seconds=1)).outcome is UNKNOWN


@pytest.mark.slow
def test_this_environment_is_asked_about_whole(osv: tuple[FakeOsv, Scan]) -> None:
    fake, scan = osv
    found = vulnerabilities_gate(replace(scan, installed=None), NOW)
    assert found.outcome is PASS, found
    assert {"numpy", "dagster", "scikit-learn"} <= {name for name, _ in fake.asked}
    assert "drift-pipeline" not in {name for name, _ in fake.asked}
