"""Which code made something: its commit where it is known, and null where it is not."""

import re
import subprocess
from pathlib import Path

import pytest

from drift_pipeline import __version__
from drift_pipeline.registry import origin
from drift_pipeline.registry.origin import code_of


def commit_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """As if the package lay in this folder."""
    monkeypatch.setattr(origin, "__file__", str(root / "drift_pipeline" / "registry" / "origin.py"))
    code_of.cache_clear()
    try:
        return code_of()["commit"]
    finally:
        code_of.cache_clear()


def git(root: Path, *arguments: str) -> str:
    named = ("-c", "user.name=ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", "-C", root, *named, *arguments], capture_output=True, text=True, check=True).stdout


def test_the_commit_of_a_checkout_is_told_and_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    git(tmp_path, "tag", "-a", "v9", "-m", "a tag is no commit")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook of another repository
    assert re.fullmatch(r"[0-9a-f]{40}", head)
    assert commit_of(tmp_path, monkeypatch) == head
    (tmp_path / "code.py").write_text("2")
    assert commit_of(tmp_path, monkeypatch) == f"{head}-dirty"


@pytest.mark.parametrize("holds", ["nothing", "no repository", "a repository without a commit"])
def test_where_no_commit_is_known_it_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: str) -> None:
    if holds == "no repository":
        (tmp_path / ".git").write_text("gitdir: /nowhere")
    elif holds != "nothing":
        git(tmp_path, "init", "-q")
    assert commit_of(tmp_path, monkeypatch) is None


def test_the_package_and_its_version_are_told() -> None:
    assert {name: code_of()[name] for name in ("package", "version")} == {
        "package": "drift-pipeline",
        "version": __version__,
    }
