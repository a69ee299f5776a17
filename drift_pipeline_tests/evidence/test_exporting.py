"""`drift audit verify --from` and of an exported file: held against what an auditor has, and nothing else."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.control.canonical import canonical
from drift_pipeline.control.checkpoints import sign
from drift_pipeline.control.signing import PublicKey, Signer
from drift_pipeline.control.store import Entry
from drift_pipeline.control.trust import read_store, rotate
from drift_pipeline_tests.evidence.worlds import Home
from drift_pipeline_tests.faults.test_audit_attacks import rehash
from drift_pipeline_tests.replay.worlds import Ended, drift

Lines = list[bytes]
ALL = 9  # records


def lived(folder: Path) -> Home:
    made = Home(folder)
    for number in range(7):
        made.store.commit(Entry("loop", "tick", f"m{number}"))
    made.store.checkpoint()
    made.signer("ada")
    made.store.checkpoint()
    return made


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = lived(tmp_path / "home")
    yield made
    made.store.close()


@pytest.fixture
def trusted(home: Home, tmp_path: Path) -> Path:
    """A folder of the auditor's, with the home's key."""
    (tmp_path / "trusted").mkdir()
    home.trainer.public.save(tmp_path / "trusted" / "home.pub.json")
    return tmp_path / "trusted"


@pytest.fixture
def exported(home: Home, tmp_path: Path) -> Path:
    ended = drift("audit", "export", "--home", home.settings.home, "--out", tmp_path / "audit.jsonl")
    assert (ended.code, ended.err) == (0, "")
    return tmp_path / "audit.jsonl"


def verified(*arguments: object) -> dict[str, Any]:
    ended = drift("audit", "verify", *arguments, "--json")
    document: dict[str, Any] = json.loads(ended.out)
    assert ended.code == (0 if document["ok"] else 1)
    return document


def test_an_export_verifies_without_the_home_and_is_the_same_each_time(
    home: Home, exported: Path, trusted: Path, tmp_path: Path
) -> None:
    drift("audit", "export", "--home", home.settings.home, "--out", tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == exported.read_bytes()
    home.settings.home.rename(tmp_path / "gone")
    found = verified(exported, "--keys", trusted)
    assert (found["ok"], found["records"], found["covered_by_checkpoint"]) == (True, ALL, ALL)
    assert found["signed_by"] == [home.trainer.key_id]
    told = drift("audit", "verify", exported, "--keys", trusted / "home.pub.json")
    assert f"{exported}: {ALL} records verified, {ALL} of them under a checkpoint" in told.out


def test_a_line_of_an_export_is_canonical_json(exported: Path) -> None:
    for line in exported.read_bytes().splitlines():
        assert canonical(json.loads(line)) == line


def say_3(ended: Ended, *said: str) -> None:
    assert ended.code == 3
    assert ended.out == ""
    assert all(part in ended.err for part in said), ended.err


def test_without_a_trusted_key_nothing_is_said(home: Home, exported: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    say_3(drift("audit", "verify", exported, "--keys", empty), "holds no trusted key", "--keys DIR")
    say_3(drift("audit", "verify", exported, "--home", empty), str(empty / "trust"))
    Signer.generate("eve").public.save(empty / "eve.pub.json")
    say_3(drift("audit", "verify", exported, "--keys", empty), "holds together", home.trainer.key_id[:16])
    say_3(drift("audit", "verify", "--home", home.settings.home, "--keys", empty), "holds together")
    assert verified(exported, "--pinned")["ok"]
    assert verified("--home", home.settings.home, "--keys", home.settings.keys / "trainer.pub.json")["ok"]


def test_a_forged_home_that_is_whole_in_itself_is_signed_by_nobody_trusted(trusted: Path, tmp_path: Path) -> None:
    forged = lived(tmp_path / "forged" / "home")
    forged.store.close()
    drift("audit", "export", "--home", forged.settings.home, "--out", tmp_path / "forged.jsonl")
    assert verified(tmp_path / "forged.jsonl", "--pinned")["ok"]
    say_3(drift("audit", "verify", tmp_path / "forged.jsonl", "--keys", trusted), "holds together")


def test_either_key_of_a_home_that_was_given_a_new_one_will_do(home: Home, tmp_path: Path) -> None:
    new = rotate(home.settings, home.store, "ops")
    home.store.commit(Entry("loop", "tick", "m"))
    home.store.checkpoint()
    drift("audit", "export", "--home", home.settings.home, "--out", tmp_path / "audit.jsonl")
    for number, key in enumerate((home.trainer.public, PublicKey(new.raw, "new"))):
        key.save(tmp_path / f"{number}.pub.json")
        assert verified(tmp_path / "audit.jsonl", "--keys", tmp_path / f"{number}.pub.json")["ok"]


def flip(lines: Lines) -> Lines:
    return [line.replace(b'"subject":"m2"', b'"subject":"m9"') for line in lines]


def cut(lines: Lines) -> Lines:
    return lines[:-1]


def swap(lines: Lines) -> Lines:
    return [*lines[:-3], lines[-2], lines[-3], lines[-1]]


def drop(lines: Lines) -> Lines:
    return [line for line in lines if b'"subject":"m2"' not in line]


def twice(lines: Lines) -> Lines:
    return [*lines, lines[-1]]


def space(lines: Lines) -> Lines:
    return [line.replace(b'"subject":"m2"', b'"subject": "m2"') for line in lines]


def no_checkpoints(lines: Lines) -> Lines:
    return [line for line in lines if not line.startswith(b'{"checkpoint"')]


def cut_with_its_checkpoint(lines: Lines) -> Lines:
    return [line for line in lines if b'"seq":9' not in line and b"000000000009" not in line]


def binary(lines: Lines) -> Lines:
    return [*lines[:-2], b"\xff\x00", lines[-1]]


def a_list(lines: Lines) -> Lines:
    return [*lines[:-2], b"[]", lines[-1]]


@pytest.mark.parametrize(
    ("harm", "first_bad", "said"),
    [
        (flip, 4, "its hash is not the hash of its content"),
        (cut, 9, "counts 9 records, 8 hold"),
        (swap, 7, "record 7 is due, record 8 stands there"),
        (drop, 4, "record 4 is due, record 5 stands there"),
        (twice, 10, "record 10 is due, record 9 stands there"),
        (space, 4, "not canonical JSON"),
        (no_checkpoints, None, "no checkpoint covers any"),
        (cut_with_its_checkpoint, 9, "other records than its first line says"),
        (binary, 8, "not canonical JSON"),
        (a_list, 8, "a line is a JSON object"),
    ],
)
def test_an_export_that_was_changed_names_the_first_bad_record(
    exported: Path, trusted: Path, harm: Callable[[Lines], Lines], first_bad: int | None, said: str
) -> None:
    exported.write_bytes(b"".join(line + b"\n" for line in harm(exported.read_bytes().splitlines())))
    for way in (("--keys", trusted), ("--pinned",)):
        found = verified(exported, *way)
        assert (found["ok"], found["first_bad"]) == (False, first_bad)
        assert said in found["reason"]


@pytest.mark.parametrize("text", [b"", b"{}\n", b"\xff", b"[]\n", b'{"form":"drift-audit-export/2"}\n'])
def test_what_is_no_export_is_bad_input(trusted: Path, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "file").write_bytes(text)
    for file in (tmp_path / "file", tmp_path, tmp_path / "nowhere"):
        ended = drift("audit", "verify", file, "--keys", trusted)
        assert (ended.code, ended.out) == (2, "")
        assert str(file) in ended.err


def test_an_export_of_a_home_that_is_damaged_writes_nothing(home: Home, tmp_path: Path) -> None:
    home.store.close()
    with sqlite3.connect(home.settings.home / "control.db") as connection:
        connection.execute("UPDATE audit SET body = substr(body, 2) WHERE seq = 4")
    ended = drift("audit", "export", "--home", home.settings.home, "--out", tmp_path / "audit.jsonl")
    assert (ended.code, ended.out) == (1, "")
    assert not list(tmp_path.glob("*audit*"))


@pytest.fixture
def kept(home: Home, tmp_path: Path) -> Path:
    """The checkpoint of 8 records, which the auditor copied when it was new."""
    return Path(shutil.copy(home.settings.checkpoints / "000000000008.dsse.json", tmp_path / "kept.json"))


def test_a_chain_that_goes_on_from_a_kept_checkpoint_holds(home: Home, exported: Path, kept: Path) -> None:
    assert verified("--home", home.settings.home, "--from", kept)["ok"]
    assert verified(exported, "--pinned", "--from", kept)["ok"]


def resigned(home: Home, edit: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """What somebody does who holds the storage and the signing key: the chain is rewritten and signed anew."""
    home.store.close()
    rehash(home.settings.home, edit)
    shutil.rmtree(home.settings.checkpoints)
    home.settings.checkpoints.mkdir()
    store = read_store(home.settings)
    records = list(store.records())
    envelope = sign(records, home.trainer, home.clock.now())
    (home.settings.checkpoints / f"{len(records):012d}.dsse.json").write_text(json.dumps(envelope))
    store.close()


@pytest.mark.parametrize(
    ("edit", "first_bad", "said"),
    [
        (
            lambda record: {**record, "actor": "eve"} if record["seq"] == 4 else record,
            1,
            "records 1 to 8 are not those",
        ),
        (lambda one: one if one["seq"] < 6 else None, 6, "counts 8 records, 5 hold"),
    ],
)
def test_a_chain_that_was_rewritten_and_signed_anew_is_found_by_a_kept_checkpoint(
    home: Home, kept: Path, edit: Callable[[dict[str, Any]], dict[str, Any] | None], first_bad: int, said: str
) -> None:
    resigned(home, edit)
    found = verified("--home", home.settings.home, "--from", kept)
    assert found["first_bad"] == first_bad
    assert said in found["reason"]
    assert str(kept) in found["reason"]


def test_the_first_subtree_that_differs_is_named(home: Home, kept: Path) -> None:
    home.store.commit(Entry("loop", "tick", "m"))
    home.store.commit(Entry("loop", "tick", "m"))
    home.store.checkpoint()
    shutil.copy(home.settings.checkpoints / "000000000011.dsse.json", kept)
    resigned(home, lambda record: {**record, "actor": "eve"} if record["seq"] == 10 else record)
    assert verified("--home", home.settings.home, "--from", kept)["first_bad"] == 9


def test_a_checkpoint_of_another_home_is_not_what_this_one_goes_on_from(home: Home, tmp_path: Path) -> None:
    other = lived(tmp_path / "other" / "home")
    other.store.close()
    theirs = other.settings.checkpoints / "000000000008.dsse.json"
    found = verified("--home", home.settings.home, "--from", theirs)
    assert found["first_bad"] == 1
    assert "no known key signed this" in found["reason"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"payload": "e30="}'])
def test_a_file_that_is_no_checkpoint_is_bad_input(home: Home, tmp_path: Path, text: str) -> None:
    (tmp_path / "kept.json").write_text(text)
    ended = drift("audit", "verify", "--home", home.settings.home, "--from", tmp_path / "kept.json")
    assert (ended.code, ended.out) == (2, "")
    assert "kept.json" in ended.err
