"""A model's own trainer: one file beside the spec, run in a training only, stored with what it trained, its errors
told as ours."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from drift_pipeline.errors import SpecError
from drift_pipeline.loop.state import Training
from drift_pipeline.policy.decide import Trigger
from drift_pipeline.spec import ModelSpec, read_spec
from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, synthetic_history
from drift_pipeline.training.own import Source, source_of
from drift_pipeline.training.search import train
from drift_pipeline.training.trainers import score
from drift_pipeline_tests.replay.worlds import drift
from drift_pipeline_tests.test_loop import World
from drift_pipeline_tests.training.worlds import history, spec

GOOD = """
from __future__ import annotations

from dataclasses import dataclass

from sklearn.compose import ColumnTransformer
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


@dataclass
class Space:
    alpha: float


def build(trial, spec):
    space = Space(trial.suggest_float("alpha", 1e-5, 1e-2, log=True))
    numbers = [name for name, kind in spec.features.items() if kind == "numeric"]
    levels = [name for name in spec.features if name not in numbers]
    columns = [("n", StandardScaler(), numbers), ("l", OneHotEncoder(handle_unknown="ignore"), levels)]
    return Pipeline([("columns", ColumnTransformer(columns)), ("model", SGDClassifier("log_loss", alpha=space.alpha))])
"""


def with_trainer(folder: Path, text: str, **retrain: object) -> ModelSpec:
    (folder / "train.py").write_text(dedent(text))
    return spec(trainer="./train.py", **retrain).placed(folder)


# what it trains


def test_its_file_searches_and_fits_the_same_for_a_seed_and_every_seed_is_its_own(tmp_path: Path) -> None:
    own, rows = with_trainer(tmp_path, GOOD), history(3000)
    first, again, other = (train(rows, own, seed) for seed in (1, 1, 2))
    assert set(first.params) == {"alpha"}
    assert 0.7 < first.validation < 1
    scores = [score(made.pipeline, rows, own.features) for made in (first, again, other)]
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])
    assert first.source is not None
    assert first.source.text == (tmp_path / "train.py").read_bytes()


def test_a_packaged_trainer_has_no_source() -> None:
    assert source_of(spec()) is None
    assert train(history(2000), spec(trainer="logistic_regression", trials=1), 0).source is None


# what it is not


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def build(trial, spec:", "it cannot be run: SyntaxError"),
        ("import a_package_that_is_not_there", "it cannot be run: ModuleNotFoundError"),
        ("raise SystemExit(0)", "it cannot be run: SystemExit"),
        ("build = 3", "has no build(trial, spec)"),
        ("def build(trial): ...", "build failed: TypeError"),
        ("def build(trial, spec): return None", "build returned a NoneType, not a scikit-learn Pipeline"),
        ("def build(trial, spec): raise ValueError('no luck')", "build failed: ValueError: no luck"),
        ("def build(trial, spec): raise SystemExit(3)", "build failed: SystemExit: 3"),
        (GOOD.replace('SGDClassifier("log_loss", ', "SGDClassifier("), "has no predict_proba"),
        (GOOD.replace("numbers = [", "numbers = ['nothing'] + ["), "what it builds cannot be trained: ValueError"),
    ],
)
def test_what_it_does_wrong_is_told_with_its_file_and_what_it_raised(tmp_path: Path, text: str, said: str) -> None:
    own = with_trainer(tmp_path, text)
    with pytest.raises(SpecError) as told:
        train(history(2000), own, 0)
    assert str(told.value).startswith(f"{tmp_path / 'train.py'}: ")
    assert said in str(told.value)


def test_a_file_that_is_not_there_and_a_spec_of_no_file_are_told(tmp_path: Path) -> None:
    own = spec(trainer="./train.py")
    with pytest.raises(SpecError, match=r"train\.py: retrain\.trainer cannot be read: No such file"):
        source_of(own.placed(tmp_path))
    with pytest.raises(SpecError, match="lies beside the spec's file, and this spec is of no file"):
        source_of(own)


@pytest.mark.parametrize(
    "name", ["train.py", "../train.py", "/train.py", "./a/train.py", "./train", "./.py", "./.a.py"]
)
def test_only_a_file_beside_the_spec_is_a_trainer(name: str) -> None:
    with pytest.raises(ValueError, match=r"there is no trainer .* or \./train\.py beside this file"):
        spec(trainer=name)


def test_where_a_spec_lies_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "defs.yaml").write_text(
        "name: fraud\nowner: o\ntask: binary_classification\nfeatures: {a: numeric}\noutcome: {column: y}\n"
        "retrain: {trainer: ./train.py}\n"
    )
    read = read_spec(tmp_path / "defs.yaml")
    assert read.folder == read.with_forms({}).folder == tmp_path
    assert read == ModelSpec.model_validate(read.model_dump(mode="json"))
    assert "folder" not in read.model_dump_json()


# in the loop


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "home").mkdir()
    made = World(tmp_path / "home", with_trainer(tmp_path, GOOD, trials=1, min_rows=300))
    yield made
    made.store.close()


def test_the_version_keeps_the_source_and_the_digest_that_was_pinned(world: World) -> None:
    training = world.proven()
    text = (world.registry.parent.parent / "train.py").read_bytes()
    bundle = world.loop.rollouts.context.registry.get(training.digest)
    digest = Source(Path("train.py"), text).digest
    assert bundle.files["train.py"] == text
    assert bundle.manifest["files"]["train.py"]["sha256"] == bundle.manifest["trainer_source"] == digest
    assert world.loop.trainings.pinned("fraud-1").trainer_source == digest


@pytest.mark.parametrize("then", [None, "raise ValueError('no luck')", GOOD + "\n# another\n"])
def test_a_source_that_is_another_one_than_was_pinned_trains_nothing(world: World, then: str | None) -> None:
    report = world.day()
    pinned = world.loop.pin("fraud-1", report)
    assert pinned is not None
    path = world.registry.parent.parent / "train.py"
    path.unlink()
    if then is not None:
        path.write_text(then)
    said = r"cannot be read" if then is None else "was pinned for v2; ask for another retrain"
    with pytest.raises(SpecError, match=said):
        world.loop.fit(pinned)
    assert "candidate.trained" not in world.events()


def failed(world: World) -> Training | None:
    (world.registry.parent.parent / "train.py").write_text("def build(trial, spec): raise ValueError('no luck')")
    world.day()
    decided = world.loop.decide(Trigger.SCHEDULE, world.day())
    assert decided is not None
    return world.loop.train(decided[0])


def test_a_trainer_that_raises_is_a_training_that_failed_with_its_reason_and_a_page(world: World) -> None:
    assert failed(world) is None
    (record,) = [record for record in world.records() if record.event == "training.failed"]
    assert "train.py: build failed: ValueError: no luck" in record.details["because"]
    world.loop.deliver()
    assert "training.failed" in [message.body["what"] for message in world.pager.sent]


def test_nothing_but_a_training_runs_it(tmp_path: Path) -> None:
    """Reading the spec, the gateway's and the code location's modules: a trainer that would tell says nothing."""
    own = with_trainer(tmp_path, "print('it ran')\n" + GOOD)
    (tmp_path / "defs.yaml").write_text(
        f"type: drift_pipeline.components.MonitoredModel\nattributes: {own.model_dump_json()}\n"
    )
    script = f"""
import os, pathlib
os.environ["DRIFT_MODELS"] = {str(tmp_path.parent)!r}
import drift_pipeline.serving.gateway, drift_pipeline.definitions, drift_pipeline.components.monitored_model
from drift_pipeline.spec import read_spec
from drift_pipeline.components.training import training_assets
training_assets(read_spec(pathlib.Path({str(tmp_path / "defs.yaml")!r})))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, ""), ended


def test_its_tests_are_a_gate_and_what_was_asked_of_a_version_is_in_its_record(world: World) -> None:
    folder = world.registry.parent.parent
    (folder / "tests").mkdir()
    (folder / "tests" / "test_train.py").write_text("import train\ndef test_it(): assert train.build is None")
    world.day()
    training = world.loop.retrain("fraud-1", world.day())
    assert training is not None
    assert not training.accepted
    record = world.loop.trainings.candidate(training.digest)
    said = {gate["name"]: gate for gate in record["results"]}
    assert [gate["outcome"] for gate in said.values()].count("pass") == len(said) - 1
    assert said["trainer_tests"]["outcome"] == "fail"
    assert said["trainer_tests"]["facts"]["tool"].startswith("pytest ")
    assert said["secrets"]["facts"]["files"] == ["model.skops", "train.py"]
    assert said["allowed_types"]["facts"]["tool"].startswith("skops ")
    assert record["not_asked"] == {"vulnerabilities": "the vulnerability scan of the environment is off (DRIFT_SCAN)"}


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [(GOOD, 0, ""), ("def build(trial, spec): raise ValueError('no luck')", 2, "ValueError: no luck")],
)
def test_adopting_by_it_trains_v1_or_ends_with_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, code: int, said: str
) -> None:
    own = tmp_path / "models" / "recommendation_v3"
    own.mkdir(parents=True)
    (own / "train.py").write_text(text)
    lines = SAMPLE_SPEC.replace("score: score, ", "") + "retrain: {trials: 1, trainer: ./train.py}\n"
    (own / "defs.yaml").write_text(lines)
    synthetic_history(40, 60, 0, score=False).write_parquet(tmp_path / "history.parquet")
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    ended = drift("adopt", "recommendation_v3", "--data", tmp_path / "history.parquet", "--home", tmp_path / "home")
    assert ended.code == code, ended
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert bool(list((tmp_path / "home" / "registry").rglob("train.py"))) == (code == 0)
