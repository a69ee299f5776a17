"""What only a registry in a folder can suffer: swapped files, a crash in the middle, a disk that fails."""

import os
from pathlib import Path

import pytest

from drift_pipeline.errors import IntegrityError, UnavailableError
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.registry.bundle import Bundle

FIELDS = {"model": "fraud", "version": 1}
FILES = {"model.skops": b"weights", "card.json": b"{}"}


class Killed(BaseException):
    """As good as kill -9: nothing below the fault runs on."""


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return LocalRegistry(tmp_path).put(FIELDS, FILES)


def _folder(root: Path, bundle: Bundle) -> Path:
    hexadecimal = bundle.digest.removeprefix("sha256:")
    return root / hexadecimal[:2] / hexadecimal


def test_the_layout_is_the_digest(tmp_path: Path, bundle: Bundle) -> None:
    assert sorted(path.name for path in _folder(tmp_path, bundle).iterdir()) == [
        "card.json",
        "manifest.json",
        "model.skops",
    ]
    assert (_folder(tmp_path, bundle) / "model.skops").read_bytes() == b"weights"
    assert [path.name for path in tmp_path.iterdir()] == [_folder(tmp_path, bundle).parent.name]


@pytest.mark.parametrize("name", ["model.skops", "card.json", "manifest.json"])
@pytest.mark.parametrize("how", ["swapped", "cut", "missing"])
def test_a_damaged_file_is_refused_by_name_also_by_put(tmp_path: Path, bundle: Bundle, name: str, how: str) -> None:
    path = _folder(tmp_path, bundle) / name
    data = path.read_bytes()
    match how:
        case "swapped":
            path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        case "cut":
            path.write_bytes(data[:-1])
        case "missing":
            path.unlink()
    registry = LocalRegistry(tmp_path)
    with pytest.raises(IntegrityError, match=name):
        registry.get(bundle.digest)
    with pytest.raises(IntegrityError, match=name):
        registry.put(FIELDS, FILES)


def test_a_stranger_in_the_folder_is_not_part_of_the_bundle(tmp_path: Path, bundle: Bundle) -> None:
    (_folder(tmp_path, bundle) / "evil.py").write_text("boom")
    assert LocalRegistry(tmp_path).get(bundle.digest) == bundle


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_crash_before_the_rename_leaves_nothing_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def die(*args: object, **kwargs: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, step, die)
        patch.setattr("shutil.rmtree", die)  # a killed process does not clean up
        with pytest.raises(Killed):
            LocalRegistry(tmp_path).put(FIELDS, FILES)
    assert list(tmp_path.glob("*/*/manifest.json")) == []
    digest = LocalRegistry(tmp_path / "elsewhere").put(FIELDS, FILES).digest
    registry = LocalRegistry(tmp_path)
    assert not registry.exists(digest)
    assert registry.put(FIELDS, FILES) == registry.get(digest)


def test_a_full_disk_is_unavailable_and_cleaned_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UnavailableError, match="No space left"):
            LocalRegistry(tmp_path).put(FIELDS, FILES)
    assert list(tmp_path.rglob("model.skops")) == []
    assert LocalRegistry(tmp_path).put(FIELDS, FILES).files == FILES


def test_a_root_that_is_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("")
    with pytest.raises(UnavailableError, match="does not answer"):
        LocalRegistry(tmp_path / "root").put(FIELDS, FILES)


def test_who_loses_the_race_gets_the_winners_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = LocalRegistry(tmp_path)
    won = registry.put(FIELDS, FILES)
    answers = iter([False])  # looked just before the winner's rename
    monkeypatch.setattr(registry, "exists", lambda _: next(answers))
    assert registry.put(FIELDS, FILES) == won
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
