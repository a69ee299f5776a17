"""The commands of the live loop as a person types them: exit codes, words, JSON, one clear error."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from threading import Timer
from typing import Any

import httpx
import polars as pl
import pytest

from drift_pipeline.clock import SystemClock
from drift_pipeline.control.audit import AuditRecord, Entry
from drift_pipeline.control.store import ControlStore
from drift_pipeline.errors import UnavailableError
from drift_pipeline.loop.home import models_of
from drift_pipeline.serving.app import make_app
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.sources.spool import SpoolWriter
from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, START, synthetic_history
from drift_pipeline_tests.components.worlds import records
from drift_pipeline_tests.evidence.worlds import read_json
from drift_pipeline_tests.replay.worlds import drift
from drift_pipeline_tests.serving.worlds import listening, until

MODEL = "recommendation_v3"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    laid_out(tmp_path)
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("DRIFT_HOME", str(tmp_path / "home"))
    return tmp_path


def laid_out(folder: Path) -> None:
    """One model and its history."""
    models = folder / "models" / MODEL
    models.mkdir(parents=True)
    lines = "".join(f"  {line}\n" for line in SAMPLE_SPEC.splitlines())
    head = "type: drift_pipeline.components.MonitoredModel\nattributes:\n"
    more = "  retrain: {trials: 1, trainer: logistic_regression}\n"
    (models / "defs.yaml").write_text(head + lines + more)
    synthetic_history(40, 60, 0, start=START).write_parquet(folder / "history.parquet")


@pytest.fixture(scope="module")
def adopted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the model was adopted; it is only copied."""
    folder = tmp_path_factory.mktemp("adopted")
    laid_out(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIFT_MODELS", str(folder / "models"))
        ended = drift("adopt", MODEL, "--data", folder / "history.parquet", "--home", folder / "home")
    assert (ended.code, ended.out.splitlines()) == (
        0,
        [
            f"{MODEL}: v1 is watched from now on, against 2,400 rows",
            f"{MODEL}: at 60 rows a day drift can be judged from windows of 7d on (7 of 7 columns)",
        ],
    )
    return folder / "home"


@pytest.fixture
def adopted(place: Path, adopted_once: Path) -> Path:
    shutil.copytree(adopted_once, place / "home")
    return place


def test_adopting_twice_or_with_what_does_not_go_together_is_refused(adopted: Path) -> None:
    history = adopted / "history.parquet"
    again = drift("adopt", MODEL, "--data", history)
    assert (again.code, "is adopted already" in again.err) == (4, True)
    both = drift("adopt", MODEL, "--data", history, "--external", "--bundle", "x.skops")
    assert (both.code, "give one of them" in both.err) == (2, True)
    nobody = drift("adopt", "fraud", "--data", history)
    assert (nobody.code, f"there are: {MODEL}" in nobody.err) == (2, True)


def test_a_gateway_is_not_pinned_to_what_may_not_answer(adopted: Path) -> None:
    told = {
        (MODEL, "sha256:" + "0" * 64): (1, "may not answer for recommendation_v3: it is not the champion, which is v1"),
        (MODEL, "v1"): (2, "'v1' is not a digest"),
        ("fraud", "sha256:" + "0" * 64): (2, f"there are: {MODEL}"),
    }
    for pin, (code, said) in told.items():
        ended = drift("serve", "--port", "0", "--pin", *pin)
        assert (ended.code, said in ended.err) == (code, True), ended.err
    assert not (adopted / "home" / "spool").exists()


def test_an_adoption_that_was_refused_or_died_can_be_done_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = place / "short.parquet"
    pl.read_parquet(place / "history.parquet").head(300).write_parquet(short)
    refused = drift("adopt", MODEL, "--data", short)
    assert (refused.code, "300 labelled rows in the history" in refused.err) == (2, True)
    with monkeypatch.context() as patch:
        patch.setattr("drift_pipeline.loop.monitoring.rebaselining.keep_reference", _dies)
        assert drift("adopt", MODEL, "--data", place / "history.parquet").code == 3
    again = drift("adopt", MODEL, "--data", place / "history.parquet")
    assert (again.code, "v1 is watched from now on" in again.out) == (0, True)
    assert drift("tick").code == 0


def _dies(*_: object) -> str:
    raise UnavailableError("the disk is full")


def test_an_external_model_is_watched_by_its_scores_and_has_nothing_to_go_back_to(place: Path) -> None:
    ended = drift("adopt", MODEL, "--data", place / "history.parquet", "--external", "--json")
    assert json.loads(ended.out)["version"] == "recorded"
    back = drift("rollback", MODEL, "--reason", "complaints")
    assert (back.code, "hand the traffic back" in back.err) == (4, True)


def test_of_an_external_model_it_is_said_before_a_training_that_its_canary_is_sent_nothing(place: Path) -> None:
    adopted = drift("adopt", MODEL, "--data", place / "history.parquet", "--external")
    asked = drift("retrain", MODEL, "--reason", "a new catalogue")
    for said in (adopted.out, asked.out):
        assert "another system answers: what is retrained is scored in the shadow, but its canary is sent " in said
    (decided,) = (record for record in records(place / "home") if record.event == "decision.made")
    assert decided.details["note"].startswith("another system answers")


def test_a_bundle_that_was_trained_elsewhere_answers_as_version_1(place: Path) -> None:
    ended = drift("adopt", MODEL, "--data", place / "history.parquet")
    assert ended.code == 0
    (bundle,) = (place / "home" / "registry").rglob("model.skops")
    other = place / "other"
    given = drift("adopt", MODEL, "--data", place / "history.parquet", "--bundle", bundle, "--home", other, "--json")
    assert (given.code, json.loads(given.out)["version"]) == (0, "v1")
    (place / "junk.skops").write_bytes(b"junk")
    junk = drift(
        "adopt", MODEL, "--data", place / "history.parquet", "--bundle", place / "junk.skops", "--home", place / "x"
    )
    assert (junk.code, "cannot be read" in junk.err) == (2, True)


def test_the_first_version_has_a_card_once_somebody_ticks_and_the_home_verifies(adopted: Path) -> None:
    assert drift("tick").code == 0
    card = read_json(adopted / "home" / "evidence" / MODEL / "v1" / "card.json")
    fields = {field["id"]: field for section in card["sections"] for field in section["fields"]}
    assert not [name for name, field in fields.items() if field["state"] == "NOT_RECORDED"]
    assert fields["curves.roc"]["value"][-1]["true_positive_rate"] == 1
    assert {row["feature"] for row in fields["curves.importance"]["value"]} == set(fields["details.features"]["value"])
    assert fields["quantitative.groups"]["value"]
    assert drift("tick").code == 0
    assert read_json(adopted / "home" / "evidence" / MODEL / "v1" / "card.json") == card  # nothing moved
    verified = drift("audit", "verify", "--json").summary
    assert verified["ok"], verified


def test_tick_and_status_tell_how_a_model_stands(adopted: Path) -> None:
    assert drift("status").out == f"{MODEL}  v1  no tick yet\n"
    ticked = drift("tick")
    assert (ticked.code, ticked.out.split()[:2]) == (0, [f"{MODEL}:", "INCONCLUSIVE"])
    shown = drift("status").out.splitlines()
    assert shown[0].startswith(f"{MODEL}  v1  INCONCLUSIVE (0 of 5 judged)  last tick ")
    (told,) = json.loads(drift("status", "--json").out)
    assert (told["champion"], told["incident"], told["paused_by"]) == ("v1", "", "")
    assert (told["verdict"], told["judged"], told["configured"]) == ("INCONCLUSIVE", 0, 5)
    assert set(told["not_judged"]) == {"psi", "range_z", "auroc", "latency_p95_ms", "demographic_parity"}
    assert told["labels"] == {"landed": 0, "joined": 0, "judged": 0}
    words = {line.split()[0]: line.split(None, 1)[1] for line in shown[1:] if line[2] != " "}
    assert words["labels"] == "0 landed, 0 joined to predictions, 0 judged yet"
    assert words["auroc"].startswith("waits: no label has come yet: the first whole 7d window of")


def test_without_a_home_or_a_model_the_message_says_what_to_do(place: Path) -> None:
    for verb in ("status", "tick"):
        ended = drift(verb)
        assert (ended.code, "drift adopt" in ended.err) == (2, True)
    assert drift("producer", "add", "app").code == 0  # makes the home
    assert drift("tick").code == 3


def test_verbs_are_audited_with_actor_and_reason_and_shown(adopted: Path) -> None:
    assert drift("pause", MODEL, "--reason", "audit week", "--actor", "Ada").code == 0
    assert "paused  by Ada: retraining" in drift("status").out
    assert drift("resume", MODEL, "--reason", "done", "--actor", "Ada").code == 0
    asked = drift("retrain", MODEL, "--reason", "new catalogue", "--actor", "Ada", "--json")
    assert (asked.code, json.loads(asked.out)["action"]) == (0, "retrain")
    assert "normal wanted" in drift("status").out
    refused = drift("retrain", MODEL, "--reason", "again", "--actor", "Ada", "--json")
    assert (refused.code, json.loads(refused.out)["reasons"]) == (1, ["a retrain is running"])
    assert drift("hotfix", MODEL, "--reason", "urgent").code == 0
    assert drift("maintenance", "begin", MODEL, "--to", "2099-01-01", "--reason", "move", "--yes").code == 0
    assert drift("audit", "verify").code == 0


@pytest.mark.parametrize(("ticks", "code", "decisions"), [(2, 0, 1), (99, 1, 0)])
def test_a_verb_is_done_again_where_a_tick_came_in_between(
    adopted: Path, monkeypatch: pytest.MonkeyPatch, ticks: int, code: int, decisions: int
) -> None:
    commit, ahead = ControlStore.commit, iter(range(ticks))

    def raced(self: ControlStore, entry: Entry, *what: Any) -> AuditRecord:
        if entry.actor == "Ada" and next(ahead, None) is not None:
            assert drift("tick").code in (0, 3)
        return commit(self, entry, *what)

    monkeypatch.setattr(ControlStore, "commit", raced)
    asked = drift("hotfix", MODEL, "--reason", "urgent", "--actor", "Ada")
    assert asked.code == code, asked.err
    assert ("somebody else ticked meanwhile" in asked.err) == bool(code)
    assert len([record for record in records(adopted / "home") if record.actor == "Ada"]) == decisions
    assert len(list(ahead)) == (0 if not code else ticks - 5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pause", MODEL, "--reason", " "), "--reason: is empty"),
        (("maintenance", "begin", MODEL, "--to", "2020-01-01", "--reason", "x"), "is not after --from"),
        (("erase", "fraud", "--subject", "u1", "--reason", "x"), "there is no model 'fraud'"),
        (("producer", "revoke", "nobody", "--reason", "x"), "there is no producer 'nobody'"),
        (("producer", "add", "app", "fraud"), "there is no model 'fraud'"),
        (("simulate", MODEL, "--for", "1s"), "no key here"),
        (("simulate", MODEL, "--drift", "dance@3s"), "there is no drift 'dance'"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(adopted: Path, arguments: tuple[str, ...], said: str) -> None:
    ended = drift(*arguments)
    assert (ended.code, said in ended.err) == (2, True), ended.err
    assert "Traceback" not in ended.err


def test_a_key_is_shown_once_and_kept_as_a_hash(adopted: Path) -> None:
    key = drift("producer", "add", "app", MODEL, "--rows-per-second", "50").out.strip()
    listed = drift("producer", "list").out
    assert listed == f"app: 50 rows/s, {MODEL}\n"
    assert key.encode() not in (adopted / "home" / "control.db").read_bytes()
    assert drift("producer", "revoke", "app", "--reason", "it leaked").code == 0
    assert drift("producer", "list").out == "app: revoked\n"


def test_retention_tells_before_it_deletes_and_an_erasure_says_what_went(adopted: Path) -> None:
    told = drift("retain")
    assert (told.code, told.out.endswith(": nothing\n")) == (0, True)
    assert drift("retain", "--apply", "--json").code == 0
    gone = drift("erase", MODEL, "--subject", "u1", "--reason", "asked", "--json")
    assert (gone.code, json.loads(gone.out)["versions"]) == (0, ["v1"])
    assert drift("audit", "verify").code == 0


def test_capture_lands_what_is_there_and_ends(adopted: Path) -> None:
    ended = drift("capture", "--once", "--json")
    assert (ended.code, json.loads(ended.out)["segments"]) == (0, 0)


@pytest.mark.parametrize("beside", [["--once"], ["--source", "kafka://h:9092/t"]])
def test_a_spool_is_drained_at_the_end_and_with_no_source_beside_it(beside: list[str]) -> None:
    ended = drift("capture", "--drain", "5s", *beside)
    assert (ended.code, "give neither --once nor --source" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://h:1/t", "nats:// is not known; there are: kafka://HOST:PORT[,HOST:PORT]/TOPIC[,TOPIC]"),
        ("h:9092/t", "the address names no scheme; there are: kafka://"),
        ("kafka://h:9092", "kafka://h:9092: '' is no name of a topic"),
        ("kafka://u:secret@h:9092/t", "holds no user or password"),
    ],
)
def test_a_source_that_is_none_is_refused(adopted: Path, url: str, said: str) -> None:
    ended = drift("capture", "--once", "--source", url)
    assert ended.code == 2
    assert said in ended.err
    assert "secret" not in ended.err


def test_a_source_whose_package_is_not_installed_says_what_to_install(
    adopted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("drift_pipeline.telemetry.sources.kafka")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    ended = drift("capture", "--once", "--source", "kafka://h:9092/t")
    assert ended.code == 2
    assert "kafka:// needs confluent_kafka: pip install 'drift-pipeline[kafka]'" in ended.err


def test_a_source_that_does_not_answer_is_undecided(adopted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT_SOURCE", "kafka://127.0.0.1:9/t")
    ended = drift("capture", "--once")
    assert (ended.code, ended.err) == (3, "drift: kafka://127.0.0.1:9/t: no broker answers; capture waits for it\n")


def test_much_that_capture_lays_aside_is_an_alert_that_the_next_tick_sends(adopted: Path) -> None:
    spool = SpoolWriter(adopted / "home" / "spool" / "app")
    spool.write([b'{"event": "prediction", "model": "recommendation_v3", "id": 7}'] * 20)
    spool.rotate()
    spool.close()
    ended = drift("capture", "--once", "--json")
    assert (ended.code, json.loads(ended.out)["dead_letters"]) == (0, 20)
    assert drift("tick").code == 0
    told = [json.loads(line) for line in (adopted / "home" / "alerts.jsonl").read_text().splitlines()]
    assert [(one["model"], one["what"]) for one in told] == [(MODEL, "events.laid_aside")]
    assert "20 of the last 20 events were laid aside" in told[0]["why"]
    assert drift("audit", "verify").code == 0


def test_simulating_an_external_model_tells_its_scores_and_ctrl_c_keeps_the_counts(place: Path) -> None:
    assert drift("adopt", MODEL, "--data", place / "history.parquet", "--external").code == 0
    settings = Settings()
    spool = SpoolWriter(settings.home / "spool" / "gateway")
    key = drift("producer", "add", "app").out.strip()
    with listening(make_app(settings, models_of(settings), spool, SystemClock(), every_seconds=0.05)) as url:
        with httpx.Client(base_url=url, headers={"X-API-Key": key}, trust_env=False) as client:
            until(client, "served elsewhere", f"/v2/models/{MODEL}/ready")
        Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
        ended = drift("simulate", MODEL, "--url", url, "--key", key, "--for", "1m", "--label-delay", "0s", "--json")
    found = json.loads(ended.out)
    assert (ended.code, found["partial"], found["refused"]) == (130, True, {})
    assert 0 < found["routes"]["external"] == found["answered"] < 1000
    captured = json.loads(drift("capture", "--once", "--json").out)
    assert (captured["predictions"] >= found["answered"], captured["dead_letters"]) == (True, 0)
