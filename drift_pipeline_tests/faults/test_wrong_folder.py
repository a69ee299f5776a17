"""A home in which no model is adopted: every command says so and what to do, and none runs on for nobody."""

from pathlib import Path

import pytest

from drift_pipeline_tests.replay.worlds import drift
from drift_pipeline_tests.test_cli_live import laid_out

RUNNING: list[tuple[str, ...]] = [("up",), ("serve", "--port", "0"), ("capture",), ("capture", "--once")]
LOOKING: list[tuple[str, ...]] = [
    ("tick",),
    ("status",),
    ("incident", "list"),
    ("retain",),
    ("producer", "list"),
    ("audit", "verify"),
]
OF_A_MODEL: list[tuple[str, ...]] = [
    ("rollback", "recommendation_v3", "--reason", "x"),
    ("simulate", "recommendation_v3", "--for", "1s"),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    laid_out(tmp_path)
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("DRIFT_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize("arguments", RUNNING + LOOKING + OF_A_MODEL, ids=" ".join)
def test_in_an_empty_folder_a_command_is_refused_with_what_to_do_and_leaves_nothing(
    place: Path, arguments: tuple[str, ...]
) -> None:
    ended = drift(*arguments)
    assert ended.code == 2, ended.err
    assert "drift adopt" in ended.err or "name a home" in ended.err
    assert "Traceback" not in ended.err
    assert not (place / "home").exists()


@pytest.mark.parametrize("arguments", RUNNING, ids=" ".join)
def test_where_a_home_has_no_adopted_model_nothing_is_started(place: Path, arguments: tuple[str, ...]) -> None:
    assert drift("producer", "add", "app").code == 0
    ended = drift(*arguments)
    assert (ended.code, "no model is adopted here: run drift adopt" in ended.err) == (2, True), ended.err
    assert not (place / "home" / "spool").exists()
    assert not (place / "home" / "logs").exists()


@pytest.mark.parametrize(("arguments", "code"), [(("tick",), 3), (("status",), 0)])
def test_who_looks_is_told_too(place: Path, arguments: tuple[str, ...], code: int) -> None:
    assert drift("producer", "add", "app").code == 0
    ended = drift(*arguments)
    assert (ended.code, "no model is adopted here: run drift adopt" in ended.err) == (code, True), ended.err


@pytest.mark.parametrize("arguments", [*RUNNING, ("tick",), ("status",)], ids=" ".join)
def test_models_of_another_folder_are_named(
    place: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert drift("adopt", "recommendation_v3", "--data", place / "history.parquet", "--external").code == 0
    other = place / "other" / "churn"
    other.mkdir(parents=True)
    text = (place / "models" / "recommendation_v3" / "defs.yaml").read_text()
    (other / "defs.yaml").write_text(text.replace("recommendation_v3", "churn"))
    monkeypatch.setenv("DRIFT_MODELS", str(place / "other"))
    ended = drift(*arguments)
    assert f"recommendation_v3 of this home have no spec below {place / 'other'}" in ended.err
    assert ended.code == {"tick": 3, "status": 0}.get(arguments[0], 2)


def test_a_home_that_is_a_file_is_refused(place: Path) -> None:
    (place / "home").write_text("")
    for arguments in (("tick",), ("adopt", "recommendation_v3", "--data", place / "history.parquet"), ("up",)):
        ended = drift(*arguments)
        assert (ended.code, str(place / "home") in ended.err) == (2, True), ended.err
