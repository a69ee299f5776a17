"""Parts are pinned once, and a part that was installed for a run is not skipped in it."""

from pathlib import Path

import pytest

from drift_pipeline_tests.parts import postgres
from drift_pipeline_tests.parts.__main__ import main
from drift_pipeline_tests.parts.cache import HERE, PINS, MissingError, module_of
from drift_pipeline_tests.parts.fixtures import REQUIRED, lacking

BY_GO = [part for part, pin in PINS.items() if "module" in pin]


def test_every_part_is_pinned_and_the_ci_installs_it() -> None:
    assert all(pin["version"] for pin in PINS.values())
    assert f"for part in {' '.join(PINS)};" in (HERE.parents[1] / ".ci" / "run").read_text()


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
    for part, told in (*((part, "no go") for part in BY_GO), ("prometheus", "no apt-get")):
        with pytest.raises(MissingError, match=told):
            module_of(part).install()


@pytest.mark.parametrize("arguments", [[], ["install"], ["nosuch"], ["install", "opa", "nosuch"]])
def test_a_name_that_is_none_is_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert f"there are: {', '.join(PINS)}" in capsys.readouterr().out
