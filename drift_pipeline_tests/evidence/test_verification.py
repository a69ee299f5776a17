"""`drift audit verify`: what is as it was left passes, what was changed is named."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from drift_pipeline.clock import MINUTE, ManualClock
from drift_pipeline.control.store import ControlStore, Entry
from drift_pipeline.control.trust import open_store
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.settings import Settings
from drift_pipeline_tests.replay.worlds import drift, replayed


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A replay's folder that may be broken."""
    return Path(shutil.copytree(replayed()[1], tmp_path / "home", ignore=shutil.ignore_patterns("lake")))


def change(home: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(home / "control.db")
    with connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


def refused(home: Path) -> tuple[int | None, str]:
    """First bad record and reason of a verification that ended with 1, the same in both ways of telling."""
    told, shown = (drift("audit", "verify", "--home", home, *way) for way in (["--json"], []))
    assert (told.code, shown.code) == (1, 1)
    assert told.err == shown.err == ""
    document = json.loads(told.out)
    assert document["ok"] is False
    assert document["reason"] in shown.out
    where = f"record {document['first_bad']}" if document["first_bad"] is not None else "evidence"
    assert f"NOT VERIFIED: {where}: " in shown.out
    return document["first_bad"], document["reason"]


def seq_naming(home: Path, digest: str) -> int:
    """The first record that names a digest."""
    connection = sqlite3.connect(home / "control.db")
    (found,) = connection.execute("SELECT min(seq) FROM audit WHERE instr(body, ?)", (digest,)).fetchone()
    connection.close()
    return int(found)


def bundle(home: Path) -> Path:
    """The model that was registered first."""
    models = [path.parent for path in (home / "registry").glob("??/*/model.skops")]
    return min(models, key=lambda path: seq_naming(home, f"sha256:{path.name}"))


def test_a_folder_that_was_copied_whole_verifies(home: Path) -> None:
    ended = drift("audit", "verify", "--home", home)
    assert ended.code == 0
    assert "records verified" in ended.out


@pytest.mark.parametrize("seq", [1, 7])
def test_a_flipped_byte_names_its_record(home: Path, seq: int) -> None:
    change(home, 'UPDATE audit SET body = replace(body, \'"actor":"\', \'"actor":"x\') WHERE seq = ?', seq)
    assert refused(home) == (seq, "its hash is not the hash of its content")


def test_a_byte_that_breaks_the_json_names_its_record(home: Path) -> None:
    change(home, "UPDATE audit SET body = substr(body, 2) WHERE seq = 4")
    assert refused(home)[0] == 4


def test_a_deleted_record_names_its_place(home: Path) -> None:
    change(home, "DELETE FROM audit WHERE seq = 5")
    assert refused(home) == (5, "record 5 is due, record 6 stands there")


def test_a_cut_tail_is_found_by_the_checkpoint(home: Path) -> None:
    change(home, "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)")
    first_bad, reason = refused(home)
    assert first_bad == replayed()[0].summary["audit"]["records"]
    assert "the checkpoint of" in reason


def test_swapped_model_bytes_name_the_file_and_the_record_that_registered_it(home: Path) -> None:
    broken = bundle(home)
    (broken / "model.skops").write_bytes(b"another model")
    first_bad, reason = refused(home)
    assert first_bad == seq_naming(home, f"sha256:{broken.name}")
    assert f"sha256:{broken.name}" in reason
    assert "model.skops is not the file that was registered" in reason


def test_a_model_that_is_gone_names_its_digest(home: Path) -> None:
    gone = bundle(home)
    shutil.rmtree(gone)
    assert refused(home) == (
        seq_naming(home, f"sha256:{gone.name}"),
        f"it names sha256:{gone.name}, which is neither there nor erased",
    )


def delete(path: Path) -> None:
    path.unlink()


def append_a_comment(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"# a comment\n")


@pytest.mark.parametrize("file", ["drift.rego", "release.rego", "data.json"])
@pytest.mark.parametrize("harm", [delete, append_a_comment])
def test_rules_that_are_not_those_that_decided_name_their_digest(
    home: Path, harm: Callable[[Path], None], file: str
) -> None:
    (rules,) = (home / "gitops" / "policies").rglob(file)
    harm(rules)
    first_bad, reason = refused(home)
    digest = f"sha256:{rules.parent.name}"
    assert first_bad == seq_naming(home, digest)
    assert digest in reason


@pytest.mark.parametrize("text", ["", "[]", "{", '{"payload": "e30="}', "\udcff"])
def test_a_checkpoint_that_cannot_be_read_is_a_finding(home: Path, text: str) -> None:
    max((home / "gitops" / "checkpoints").iterdir()).write_bytes(text.encode(errors="surrogateescape"))
    first_bad, reason = refused(home)
    assert first_bad is None
    assert "checkpoint" in reason


@pytest.mark.parametrize("text", ["", "[]", '{"keyid": "00", "label": null, "public": "00"}'])
def test_a_key_that_cannot_be_read_is_a_finding(home: Path, text: str) -> None:
    key = min((home / "keys").iterdir())
    key.write_text(text)
    assert key.name in refused(home)[1]


def test_a_store_that_is_none_is_damage(home: Path) -> None:
    for file in home.glob("control.db*"):
        file.unlink()
    (home / "control.db").write_bytes(b"no database at all, " * 300)
    ended = drift("audit", "verify", "--home", home)
    assert ended.code == 1
    assert "is damaged" in ended.err


@pytest.mark.parametrize("name", ["absent", "empty", "file"])
def test_a_folder_that_is_no_home_is_bad_input(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    ended = drift("audit", "verify", "--home", tmp_path / name)
    assert (ended.code, ended.out) == (2, "")
    assert "no control store (control.db)" in ended.err
    assert list((tmp_path / "empty").iterdir()) == []


def test_the_home_may_come_from_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT_HOME", str(home))
    assert drift("audit", "verify").code == 0


def test_a_home_that_a_url_cannot_spell_is_refused(tmp_path: Path) -> None:
    odd = tmp_path / "what?"
    odd.mkdir()
    (odd / "control.db").touch()
    ended = drift("audit", "verify", "--home", odd)
    assert ended.code == 2
    assert "cannot hold ?" in ended.err
    assert [p.name for p in tmp_path.iterdir()] == ["what?"]


def test_a_promoted_champions_file_names_who_approved_it() -> None:
    told = json.loads((replayed()[1] / "gitops" / "champions" / "recommendation_v3.json").read_bytes())
    assert told["event"] == "rollout.full"
    assert [one["person"] for one in told["approvals"]] == ["the replay's approver 1"]


def test_a_checkpoint_that_was_the_last_is_missed(home: Path) -> None:
    last = max((home / "gitops" / "checkpoints").iterdir())
    last.unlink()
    assert f"{last}: is gone, and was the last checkpoint" in refused(home)[1]


def test_processes_that_are_all_killed_before_their_checkpoint_leave_records_under_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, clock = Settings(home=tmp_path), ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    open_store(settings, clock).close()
    monkeypatch.setattr(ControlStore, "checkpoint", lambda *_, **__: None)  # what each does after its commit
    for number in range(5):
        clock.advance_to(clock.now() + 11 * MINUTE)
        store = open_store(settings, clock)
        store.commit(Entry("drift", "loop.tick", f"tick {number}"))
        store.close()
        found = verify_home(settings)
        assert found.ok, found.reason
    assert found.records - found.covered == 1
