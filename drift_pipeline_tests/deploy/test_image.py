"""deploy/Dockerfile: what a container of it may do; its root file system without Docker is made of the same."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from drift_pipeline_tests.parts import image
from drift_pipeline_tests.parts.cache import MissingError
from drift_pipeline_tests.parts.image import DOCKERFILE, TOP, described, instructions

TEXT = DOCKERFILE.read_text(encoding="utf-8")
STEPS = instructions(TEXT)
IMAGE = described(TEXT)
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_base_has_a_version_and_all_stages_are_of_one() -> None:
    bases = {rest.split(" ")[0] for word, rest in STEPS if word == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", bases.pop())
    assert IMAGE.python == re.match(r">=(3\.\d+)", PROJECT["project"]["requires-python"])[1]  # type: ignore[index]


def test_python_packages_come_from_the_lock_by_their_hashes_and_nothing_is_fetched_beside_it() -> None:
    commands = [part for word, rest in STEPS if word == "RUN" for part in rest.split(" && ") if "pip install" in part]
    locked, own = commands
    assert "--no-deps --require-hashes -r requirements.lock" in locked
    assert "--no-deps --no-index --no-build-isolation /src" in own
    assert ("COPY", "deploy/requirements.lock ./requirements.lock") in STEPS
    lock = (TOP / "deploy" / "requirements.lock").read_text(encoding="utf-8")
    for needed in PROJECT["build-system"]["requires"]:
        assert re.search(rf"^{needed}==", lock, flags=re.MULTILINE), needed


def test_no_compiler_is_in_the_image_and_nobody_in_it_is_root() -> None:
    assert set(IMAGE.packages) == {"git", "libatomic1", "libgomp1"}  # of the gitops copy, of regopy, of scikit-learn
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", IMAGE.user)
    assert IMAGE.entrypoint == '["drift"]'
    assert STEPS[-4:][0][0] == "USER"  # nothing is run after it


def test_what_is_copied_is_there_and_is_in_the_context() -> None:
    kept = (TOP / "deploy" / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    sources = [
        source for word, rest in STEPS if word == "COPY" and "--from" not in rest for source in rest.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (TOP / source).exists()
        assert f"!{source}" in kept


def test_what_is_written_lies_below_two_folders() -> None:
    places = {name: value for name, value in IMAGE.environment.items() if value.startswith("/") and name != "PATH"}
    assert set(places) == {"HOME", "NUMBA_CACHE_DIR", "DRIFT_HOME"}
    assert all(value.startswith(("/tmp", "/var/lib/drift")) for value in places.values())
    services = yaml.safe_load((TOP / "deploy" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    ours = [one for one in services.values() if one["image"] == "drift-pipeline:local"]
    assert ours
    assert all(one["read_only"] and one["tmpfs"] == ["/tmp"] and one["cap_drop"] == ["ALL"] for one in ours)
    assert services["prepare"]["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile"}


def test_a_dockerfile_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="one apt-get install"):
        described(TEXT.replace("-slim-", "-"))


def test_what_the_root_file_system_needs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    own, other = tmp_path / "own", tmp_path / "other"
    own.write_text(re.sub(r"python:3\.\d+", f"python:3.{sys.version_info.minor}", TEXT), encoding="utf-8")
    other.write_text(re.sub(r"python:3\.\d+", "python:3.99", TEXT), encoding="utf-8")
    monkeypatch.setattr(image, "DOCKERFILE", other)
    with pytest.raises(MissingError, match=r"the image has Python 3\.99"):
        image.install(tmp_path / "root")
    monkeypatch.setattr(image, "DOCKERFILE", own)
    with pytest.raises(MissingError, match="apt-get install debootstrap"):
        image.install(tmp_path / "root")
    (tmp_path / "debootstrap").touch(0o755)
    with pytest.raises(MissingError, match="is not empty"):
        image.install(tmp_path)
