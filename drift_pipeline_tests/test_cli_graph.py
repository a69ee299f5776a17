"""A graph by the commands a person types: adopted, given as a folder, one step retrained, its documents and bundle
verified; what does not go together is one sentence and exit 2."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, START, synthetic_history
from drift_pipeline_tests.evidence.worlds import read_json
from drift_pipeline_tests.replay.worlds import drift

MODEL = "recommendation_v3"
GRAPH = """\
graph:
  retrieval: {inputs: [session_length_s, items_viewed, device], trainer: logistic_regression, threshold: 0.01}
  ranking:
    inputs: [retrieval, price_eur, days_since_visit, country, session_length_s]
    trainer: logistic_regression
retrain: {trials: 1}
"""


def laid_out(folder: Path) -> None:
    """One model and its history."""
    models = folder / "models" / MODEL
    models.mkdir(parents=True)
    (models / "defs.yaml").write_text(SAMPLE_SPEC + GRAPH)
    synthetic_history(40, 60, 0, start=START).write_parquet(folder / "history.parquet")


@pytest.fixture(scope="module")
def adopted_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the graph was adopted and its documents written; it is only copied."""
    folder = tmp_path_factory.mktemp("adopted")
    laid_out(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DRIFT_MODELS", str(folder / "models"))
        ended = drift("adopt", MODEL, "--data", folder / "history.parquet", "--home", folder / "home")
        assert ended.code == 0, ended.err
        assert drift("tick", "--home", folder / "home").code == 0
    return folder


@pytest.fixture
def place(tmp_path: Path, adopted_once: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(adopted_once, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("DRIFT_HOME", str(tmp_path / "home"))
    return tmp_path


def bundle_of(place: Path) -> Path:
    (model,) = (place / "home" / "registry").rglob("ranking.skops")
    return model.parent


def test_documents_name_each_step_its_version_its_file_and_what_it_takes(place: Path) -> None:
    folder, files = place / "home" / "evidence" / MODEL / "v1", read_json(bundle_of(place) / "manifest.json")["files"]
    fields = {field["id"]: field for part in read_json(folder / "card.json")["sections"] for field in part["fields"]}
    first, second = fields["details.steps"]["value"]
    assert (first["name"], first["version"], first["threshold"]) == ("retrieval", "v1", 0.01)
    assert first["sha256"] == files["retrieval.skops"]["sha256"]
    assert second["inputs"][0] == "retrieval"
    assert second["validation_auroc"] > 0.5
    for page in ("card.html", "card.md", "datasheet.html"):
        assert "ranking" in (folder / page).read_text()
    sheet = {
        field["id"]: field for part in read_json(folder / "datasheet.json")["sections"] for field in part["fields"]
    }
    assert [(one["name"], one["version"]) for one in sheet["composition.steps"]["value"]] == [
        ("retrieval", "v1"),
        ("ranking", "v1"),
    ]
    assert sheet["composition.steps"]["value"][0]["trained_from"].startswith("20")


def test_the_ml_bom_has_a_component_a_step_and_its_edges_and_is_valid_cyclonedx(place: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (place / "home" / "evidence" / MODEL / "v1" / "ml-bom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom, files = json.loads(text), read_json(bundle_of(place) / "manifest.json")["files"]
    parts = {one["name"]: one for one in bom["components"] if one["type"] == "machine-learning-model"}
    assert {*parts} == {MODEL, f"{MODEL}.retrieval", f"{MODEL}.ranking"}
    for name in ("retrieval", "ranking"):
        digest = files[f"{name}.skops"]["sha256"].removeprefix("sha256:")
        assert parts[f"{MODEL}.{name}"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    edges = {one["ref"]: one["dependsOn"] for one in bom["dependencies"]}
    first, second = (parts[f"{MODEL}.{name}"]["bom-ref"] for name in ("retrieval", "ranking"))
    assert edges[second] == [first]
    assert {first, second} <= {*edges[parts[MODEL]["bom-ref"]]}


def test_each_step_s_file_is_a_subject_of_the_attestation_and_a_byte_of_it_is_found(place: Path) -> None:
    home = place / "home"
    verify = ("verify", home / "evidence", "--registry", home / "registry", "--keys", home / "trust")
    whole = drift(*verify)
    assert whole.code == 0, whole.out + whole.err
    path = bundle_of(place) / "retrieval.skops"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    found = drift(*verify)
    assert (found.code, "retrieval.skops is not the file that was registered" in found.out + found.err) == (1, True)


def test_a_retrain_of_one_step_is_asked_for_and_one_of_a_stranger_is_refused(place: Path) -> None:
    odd = drift("retrain", MODEL, "--step", "rank", "--reason", "x")
    said = f"{MODEL}: 'rank' is no step of the graph; there are: retrieval, ranking"
    assert (odd.code, said in odd.err) == (2, True)
    asked = drift("retrain", MODEL, "--step", "ranking", "--reason", "a new catalogue", "--json")
    assert (asked.code, json.loads(asked.out)["steps"]) == (0, ["ranking"])


# given as a folder


def extra(folder: Path) -> None:
    (folder / "second.skops").write_bytes(b"x")


def missing(folder: Path) -> None:
    (folder / "ranking.skops").unlink()


def swapped(folder: Path) -> None:
    (folder / "ranking.skops").rename(folder / "x")
    (folder / "retrieval.skops").rename(folder / "ranking.skops")
    (folder / "x").rename(folder / "retrieval.skops")


def junk(folder: Path) -> None:
    (folder / "ranking.skops").write_bytes(b"junk")


def a_folder(folder: Path) -> None:
    (folder / "ranking.skops").unlink()
    (folder / "ranking.skops").mkdir()


def of_another_name(folder: Path) -> None:
    (folder / "ranking.skops").rename(folder / "..ranking.skops")


def one_file(folder: Path) -> None:
    data = (folder / "ranking.skops").read_bytes()
    shutil.rmtree(folder)
    folder.write_bytes(data)


GIVEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "an extra file": (extra, "second.skops is the file of no step of the spec's graph"),
    "a missing file": (missing, "ranking.skops is missing; a graph is given as a folder that holds retrieval.skops, "),
    "swapped files": (swapped, "retrieval.skops: was fitted on retrieval, price_eur"),
    "junk": (junk, "ranking.skops: ranking.skops: the model cannot be read"),
    "a folder": (a_folder, "ranking.skops: cannot be read: Is a directory"),
    "a hidden file": (of_another_name, "ranking.skops is missing"),
    "one file": (one_file, "the spec declares a graph, which is given as a folder of its steps: Not a directory"),
    "nothing": (shutil.rmtree, "given as a folder of its steps: No such file"),
}


def given(place: Path) -> Path:
    folder = place / "given"
    folder.mkdir()
    for name in ("retrieval", "ranking"):
        shutil.copy(bundle_of(place) / f"{name}.skops", folder)
    return folder


@pytest.mark.parametrize("what", GIVEN)
def test_a_folder_that_is_not_the_graph_of_the_spec_is_refused_in_a_sentence(place: Path, what: str) -> None:
    folder, (harm, said) = given(place), GIVEN[what]
    harm(folder)
    new = place / "new"
    ended = drift("adopt", MODEL, "--data", place / "history.parquet", "--bundle", folder, "--home", new)
    assert (ended.code, said in ended.err) == (2, True), ended.err
    assert "Traceback" not in ended.err
    assert not [*new.rglob("manifest.json")]


def test_a_graph_that_was_trained_elsewhere_answers_as_version_1_and_says_so(place: Path) -> None:
    new, folder = place / "new", given(place)
    ended = drift("adopt", MODEL, "--data", place / "history.parquet", "--bundle", folder, "--home", new)
    assert ended.code == 0, ended.err
    (manifest,) = (path for path in new.rglob("manifest.json") if b'"graph"' in path.read_bytes())
    told = read_json(manifest)
    assert [(step["name"], step["trainer"], step["version"]) for step in told["graph"]] == [
        ("retrieval", "given", "v1"),
        ("ranking", "given", "v1"),
    ]
    assert told["files"]["ranking.skops"]["size"] == os.path.getsize(folder / "ranking.skops")
    assert drift("tick", "--home", new).code == 0


def test_a_folder_is_no_bundle_of_one_pipeline(place: Path) -> None:
    (place / "models" / MODEL / "defs.yaml").write_text(SAMPLE_SPEC)
    new = place / "new"
    ended = drift("adopt", MODEL, "--data", place / "history.parquet", "--bundle", given(place), "--home", new)
    assert (ended.code, "cannot be read: Is a directory" in ended.err) == (2, True)
