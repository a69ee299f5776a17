"""`drift seal` as a person types it: into a home's GitOps repository or a file, and no value is ever shown."""

import io
import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from drift_pipeline.clock import system_clock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.control.trust import open_store, read_store
from drift_pipeline.errors import ConflictError
from drift_pipeline.evidence.gitops import sealed as module
from drift_pipeline.evidence.gitops.publishing import publish
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.settings import Settings
from drift_pipeline_tests.control.test_sealed_secret import YEAR, certificate_of, private, unseal
from drift_pipeline_tests.evidence.test_gitops import git
from drift_pipeline_tests.replay.worlds import Ended, drift

VALUE = "hunter2 and more of it"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    now = system_clock().now()
    (tmp_path / "cert.pem").write_bytes(certificate_of(private(), now - YEAR, now + YEAR))
    (tmp_path / "old.pem").write_bytes(certificate_of(private(), now - 2 * YEAR, now - YEAR))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "REGISTRY_TOKEN").write_text(f"{VALUE}\n")
    monkeypatch.setenv("DRIFT_SECRETS_DIR", str(tmp_path / "secrets"))
    monkeypatch.setenv("SEALED_SECRETS_CERT", str(tmp_path / "cert.pem"))
    monkeypatch.setenv("DRIFT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DRIFT_GIT", "git")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    (tmp_path / "secrets" / "REGISTRY_TOKEN").unlink()
    shown = [path for path in tmp_path.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert shown == []


@pytest.fixture
def home(place: Path) -> Settings:
    settings = Settings(home=place / "home", database="")
    open_store(settings, system_clock()).close()
    return settings


def seal(*arguments: object) -> Ended:
    ended = drift("seal", "drift-registry", "--namespace", "ml", *arguments)
    assert "hunter2" not in ended.out + ended.err
    return ended


def read(path: Path) -> dict[str, bytes]:
    return unseal(yaml.safe_load(path.read_text()), private())


def tick(home: Settings) -> None:
    with closing(open_store(home, system_clock())) as store:
        publish(home, store, system_clock())


def events(home: Settings) -> list[tuple[str, str]]:
    with closing(read_store(home)) as store:
        return [(record.event, record.subject) for record in store.records()]


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_secret_is_sealed_into_the_repository_and_committed(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home.gitops / "manifests" / "sealed" / "ml" / "drift-registry.yaml"
    ended = seal("REGISTRY_TOKEN")
    assert (ended.code, ended.out) == (
        0,
        f"ml/drift-registry: REGISTRY_TOKEN sealed, strict\n{path}; the next tick commits it\n",
    )
    assert read(path) == {"REGISTRY_TOKEN": VALUE.encode()}
    typed(monkeypatch, b"second\n")
    told = json.loads(seal("--from-file", "OTHER=-", "--json").out)
    assert (told["sealed"], told["keys"]) == (["OTHER"], ["OTHER", "REGISTRY_TOKEN"])
    assert read(path) == {"REGISTRY_TOKEN": VALUE.encode(), "OTHER": b"second"}
    tick(home)
    assert git(home.gitops, "show", "HEAD:manifests/sealed/ml/drift-registry.yaml") == path.read_text()
    assert events(home)[1:] == [("secret.sealed", "ml/drift-registry")] * 2
    assert verify_home(home).ok
    removed = seal("--remove")
    assert (removed.code, path.exists()) == (0, False)
    tick(home)
    assert "drift-registry" not in git(home.gitops, "ls-tree", "-r", "--name-only", "HEAD")
    assert verify_home(home).ok
    assert seal("--remove").code == 4


def test_a_file_is_sealed_to_the_byte_and_needs_no_home(place: Path) -> None:
    (place / "key.pem").write_bytes(b"\x00 pem \n\n")
    out = place / "cluster" / "drift.yaml"
    assert seal("--from-file", "key.pem=key.pem", "--scope", "cluster-wide", "--out", out).code == 0
    assert read(out) == {"key.pem": b"\x00 pem \n\n"}
    assert not (place / "home").exists()
    other = seal("REGISTRY_TOKEN", "--out", out)
    assert (other.code, "key.pem are sealed cluster-wide; say --scope cluster-wide" in other.err) == (
        2,
        True,
    )
    assert read(out) == {"key.pem": b"\x00 pem \n\n"}
    assert seal("REGISTRY_TOKEN", "--out", out, "--replace").code == 0
    assert read(out) == {"REGISTRY_TOKEN": VALUE.encode()}


def test_a_file_of_others_is_left_alone(place: Path) -> None:
    (place / "theirs.yaml").write_text("kind: Secret\n")
    ended = seal("REGISTRY_TOKEN", "--out", place / "theirs.yaml", "--replace")
    assert (ended.code, "is no SealedSecret" in ended.err) == (2, True)
    assert (place / "theirs.yaml").read_text() == "kind: Secret\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no KEY"),
        (("REGISTRY_TOKEN", "--cert", "old.pem"), "old.pem: expired 2"),
        (("REGISTRY_TOKEN", "--cert", "none.pem"), "--cert: its file cannot be read"),
        (("REGISTRY_TOKEN", "--cert", "secrets/REGISTRY_TOKEN"), "is no certificate"),
        (("REGISTRY_TOKEN", "REGISTRY_TOKEN"), "is named twice"),
        (("REGISTRY_TOKEN=hunter2",), "its value is never typed"),
        (("ABSENT",), "DRIFT_SECRETS_DIR: ABSENT: its file cannot be read: No such file"),
        (("--from-file", "KEY=hunter2"), "KEY: its file cannot be read: No such file"),
        (("--from-file", "KEY"), "is KEY=FILE"),
        (("--from-file", "A=-", "--from-file", "B=-"), "stdin has one value"),
        (("--from-file", "A=empty"), "A: is empty"),
        (("--from-file", "A=large"), "A: is longer than 1,048,576 bytes"),
        (("--from-file", "A=/dev/zero"), "A: is longer than 1,048,576 bytes"),
        (("--remove", "REGISTRY_TOKEN"), "--remove takes all of NAME"),
        (("REGISTRY_TOKEN", "--home", "nowhere"), "no model is adopted here"),
    ],
)
def test_what_cannot_be_sealed_is_one_sentence_and_changes_nothing(
    home: Settings, place: Path, arguments: tuple[str, ...], said: str
) -> None:
    (place / "empty").write_text("")
    (place / "large").write_bytes(bytes(1024 * 1024 + 1))
    before = events(home)
    ended = seal(*arguments)
    assert (ended.code, ended.out, said in ended.err) == (2, "", True), ended.err
    assert len(ended.err.splitlines()) == 1
    assert events(home) == before
    assert not (home.gitops / "manifests").exists()


def test_without_a_folder_of_secrets_or_a_certificate_it_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRIFT_SECRETS_DIR")
    ended = seal("REGISTRY_TOKEN", "--out", "x.yaml")
    assert (ended.code, "DRIFT_SECRETS_DIR: is not set" in ended.err) == (2, True)
    monkeypatch.delenv("SEALED_SECRETS_CERT")
    ended = seal("REGISTRY_TOKEN", "--out", "x.yaml")
    assert (ended.code, "--cert: names no certificate" in ended.err) == (2, True)


def test_what_was_changed_beside_the_audit_is_not_built_upon(home: Settings) -> None:
    path = home.gitops / "manifests" / "sealed" / "ml" / "drift-registry.yaml"
    seal("REGISTRY_TOKEN")
    path.write_bytes(path.read_bytes() + b"# theirs\n")
    assert not verify_home(home).ok
    ended = seal("REGISTRY_TOKEN")
    assert (ended.code, "is not what the audit names; restore it, or take it out by --remove" in ended.err) == (2, True)
    assert seal("--remove").code == 0
    assert seal("REGISTRY_TOKEN").code == 0
    assert verify_home(home).ok


def test_killed_before_its_place_the_next_one_puts_it_there(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    path, calls = home.gitops / "manifests" / "sealed" / "ml" / "drift-registry.yaml", list[int]()

    def killed(folder: Path, store: ControlStore) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "put_in_place", killed)
        assert seal("REGISTRY_TOKEN").code == 130
    assert (path.exists(), verify_home(home).ok) == (False, True)
    (home.home.parent / "more").write_text("1")
    assert seal("--from-file", "MORE=more").code == 0
    assert read(path) == {"REGISTRY_TOKEN": VALUE.encode(), "MORE": b"1"}


def test_who_seals_the_same_meanwhile_loses_none_of_it(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    path, commit, lost = (
        home.gitops / "manifests" / "sealed" / "ml" / "drift-registry.yaml",
        ControlStore.commit,
        list[int](),
    )
    (home.home.parent / "more").write_text("1")

    def after_another(self: ControlStore, entry: Any, *arguments: Any, **more: Any) -> Any:
        if not lost and entry.event == "secret.sealed":
            lost.append(1)
            assert seal("--from-file", "MORE=more").code == 0
        return commit(self, entry, *arguments, **more)

    monkeypatch.setattr(ControlStore, "commit", after_another)
    assert seal("REGISTRY_TOKEN").code == 0
    assert read(path) == {"REGISTRY_TOKEN": VALUE.encode(), "MORE": b"1"}

    def always(*_: object, **__: object) -> None:
        raise ConflictError("moved on")

    monkeypatch.setattr(ControlStore, "commit", always)
    assert seal("REGISTRY_TOKEN").code == 1
