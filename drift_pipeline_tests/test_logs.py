"""What long-lived processes say: each line a JSON object with what it is about, and no value or person in it."""

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import IntegrityError
from drift_pipeline.logs import about, announce, is_json, to_stderr, told
from drift_pipeline.loop.ledger import Ledger
from drift_pipeline_tests.telemetry.test_capture import SPECS, Site, prediction

log = logging.getLogger("drift_pipeline.somewhere")
VALUE, PERSON = "4711.0815", "jane.doe@example.com"


def lines(err: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in err.splitlines()]


def test_a_line_is_one_object_that_says_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    with to_stderr("json"), about(model="fraud", trace_id="0af7"):
        log.info("two\nlines of %s", "words", extra={"incident": "fraud-1", "decision": "", "run": "r1"})
        log.debug("not told")
        logging.getLogger("strangers").info("not told either")
    (line,) = lines(capsys.readouterr().err)
    assert line.pop("time").endswith("Z")
    assert line == {
        **{"level": "INFO", "logger": "drift_pipeline.somewhere", "message": "two\nlines of words"},
        **{"model": "fraud", "trace_id": "0af7", "incident": "fraud-1", "run": "r1"},
    }
    log.warning("nothing is left behind")
    assert capsys.readouterr().err == ""


def test_on_a_terminal_it_is_text_in_which_nothing_can_pose_as_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with to_stderr("text"):
        log.error("a\nb\x1b[2J: %s", IntegrityError("ours"))
    assert capsys.readouterr().err[8:] == " ERROR   a\\nb\\x1b[2J: ours\n"
    assert (is_json("json"), is_json("text"), is_json("")) == (True, False, True)  # stderr is no terminal here


def raised() -> Exception:
    try:
        raise ValueError(f"could not convert {VALUE} of {PERSON}")
    except ValueError as error:
        return error


@pytest.mark.parametrize("form", ["json", "text"])
def test_the_words_of_an_error_that_is_not_ours_stay_out(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    with to_stderr(form):
        log.warning("%s: %s", "fraud", raised())
        try:
            raise IntegrityError("the chain is broken") from raised()
        except IntegrityError:
            log.exception("a step failed")
        log.error("with its trace", exc_info=raised())
    err = capsys.readouterr().err
    assert (VALUE in err, PERSON in err) == (False, False)
    assert "fraud: ValueError at test_logs.py:" in err
    assert "the chain is broken" in err
    assert told(OSError(28, "No space left on device", "/spool")) == "[Errno 28] No space left on device: '/spool'"


def test_an_error_that_nobody_expected_ends_as_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> None:
        with to_stderr("json"):
            thread = threading.Thread(target=lambda: int(VALUE), name="worker")
            thread.start()
            thread.join()
            raise raised()

    with pytest.raises(SystemExit, match="1"):
        run()
    first, last = lines(capsys.readouterr().err)
    assert first["message"] == "the thread worker ends by an error that was not expected"
    assert (last["level"], last["error"].partition(":")[0]) == ("CRITICAL", "ValueError at test_logs.py")
    assert VALUE not in json.dumps([first, last])


def test_an_address_stays_a_plain_line_unless_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    announce("gateway on http://127.0.0.1:8080")
    with to_stderr("json"):
        announce("gateway on http://127.0.0.1:8080", "json")
    plain, line = capsys.readouterr().err.splitlines()
    assert (plain, json.loads(line)["message"]) == ("gateway on http://127.0.0.1:8080",) * 2


def test_a_change_of_state_is_a_line_without_its_details(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ControlStore(f"sqlite:///{tmp_path / 'control.db'}", SystemClock())
    ledger = Ledger(SPECS["m"], store, SystemClock())
    details = {"features": [VALUE], "approved_by": [PERSON]}
    with to_stderr("json"):
        ledger.commit("incident.opened", {"key": "m-1", **details}, actor=PERSON)
        ledger.commit("decision.made", {"incident": "m-1", "decision": "m-d1", **details}, actor=PERSON)
        ledger.commit("rollout.canary", {"rollout_id": "m-r1", **details}, actor=PERSON)
    store.close()
    told = capsys.readouterr().err
    assert (VALUE in told, PERSON in told) == (False, False)
    first, second, third = lines(told)
    assert (first["message"], first["model"], first["incident"]) == ("m: incident.opened", "m", "m-1")
    assert (second["incident"], second["decision"]) == ("m-1", "m-d1")
    assert (third["message"], third["rollout"]) == ("m: rollout.canary", "m-r1")


def test_what_strangers_send_is_in_no_line_of_capture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path)
    site.capture._failed = site.capture._log
    land = site.capture._landing.land
    monkeypatch.setattr(
        site.capture._landing, "land", lambda model, *more: _refuse() if model == "m" else land(model, *more)
    )
    features = {"x": float(VALUE), "kind": PERSON}
    site.send(prediction("a", features=features), prediction("b", model=PERSON), b"{" + VALUE.encode())
    with to_stderr("json"):
        with pytest.raises(IntegrityError, match="ValueError at test_logs"):
            site.capture.step()
        log.warning("%s", told(raised()))
    err = capsys.readouterr().err
    assert (VALUE in err, PERSON in err) == (False, False)
    assert lines(err)


def _refuse() -> None:
    raise raised()
