"""What a cluster should run for a home: the same bytes of the same home, and no file of others is touched."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from drift_pipeline.clock import DAY
from drift_pipeline.control.manifests import to_yaml
from drift_pipeline.control.store import Entry, Put
from drift_pipeline.errors import ConflictError, InputError, IntegrityError
from drift_pipeline.evidence import kept_folder
from drift_pipeline.evidence.gitops.progress import STATE, read
from drift_pipeline.evidence.gitops.publishing import publish
from drift_pipeline.evidence.gitops.sealed import OWNER
from drift_pipeline.evidence.kept_folder import Changed, write_folder
from drift_pipeline.evidence.placing import file_key
from drift_pipeline.evidence.rendering import rendering
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.files import write_whole
from drift_pipeline.spec import ModelSpec, read_spec
from drift_pipeline_tests.evidence.test_gitops import adopted, git, home
from drift_pipeline_tests.evidence.worlds import DECLARED, MODEL, Home
from drift_pipeline_tests.replay.worlds import drift

__all__ = ["home"]


def declared(folder: Path, **changes: Any) -> ModelSpec:
    """A model's folder, as people write it."""
    folder.mkdir(parents=True, exist_ok=True)
    attributes = {name: value for name, value in DECLARED.items() if name != "declarations"}
    component = {"type": "drift_pipeline.components.MonitoredModel", "attributes": {**attributes, **changes}}
    (folder / "defs.yaml").write_text(yaml.safe_dump(component))
    (folder / "declarations.yaml").write_text("# nothing yet\n")
    return read_spec(folder / "defs.yaml")


def in_force(home: Home, digest: str = f"sha256:{'5' * 64}") -> None:
    home.store.commit(Entry("loop", "spec.declared", MODEL), [Put("spec", MODEL, {"digest": digest})])


def sealed(home: Home, text: bytes | None, name: str = "drift-database", generation: int = 0) -> Path:
    """A file of the repository that the audit names; None = names no more."""
    path = home.settings.gitops / "manifests" / "sealed" / "ml" / f"{name}.yaml"
    digest = f"sha256:{hashlib.sha256(text).hexdigest()}" if text is not None else None
    put = Put("file", file_key(home.settings.home, OWNER, path), {"digest": digest}, generation)
    home.store.commit(Entry("ada", "secret.sealed", "ml/drift-database"), [put])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text) if text is not None else path.unlink()
    return path


def of_home(home: Home, *specs: ModelSpec) -> dict[str, bytes]:
    return rendering(home.settings, home.store, specs)


def test_a_home_is_rendered_as_values_and_objects(home: Home, tmp_path: Path) -> None:
    adopted(home, event="rollout.promoted", approved_by=[{"key_id": "ab", "person": "ada"}], rollout_id="r1")
    in_force(home)
    sealed(home, b"sealed\n")
    trainer = "def build(trial, spec):\n    return None\n"
    folder = tmp_path / "models" / MODEL
    folder.mkdir(parents=True)
    (folder / "train.py").write_text(trainer)
    spec = declared(folder, retrain={"trainer": "./train.py"})
    home.settings = home.settings.model_copy(update={"store": "s3://drift/live"})
    files = of_home(home, spec)
    assert [*files] == ["values.yaml", f"manifests/models/{MODEL}.yaml", "manifests/sealed/ml/drift-database.yaml"]
    values = yaml.safe_load(files["values.yaml"])
    assert values["store"] == {"url": "s3://drift/live"}
    assert values["models"]["inline"][MODEL] == {path.name: path.read_text() for path in folder.iterdir()}
    told = yaml.safe_load(files[f"manifests/models/{MODEL}.yaml"])
    assert (told["kind"], told["metadata"]["name"]) == ("ConfigMap", "drift-fraud-model")
    assert told["data"]["spec"] == f"sha256:{'5' * 64}"
    champion = json.loads(told["data"]["champion.json"])
    assert (champion["digest"], champion["event"]) == (f"sha256:{'0' * 64}", "rollout.promoted")
    assert champion["approvals"] == [{"key_id": "ab", "person": "ada"}]
    assert files["manifests/sealed/ml/drift-database.yaml"] == b"sealed\n"
    assert of_home(home, spec) == files
    assert "models" not in yaml.safe_load(of_home(home)["values.yaml"])


def test_promote_and_rollback_are_commits_of_the_manifest(home: Home) -> None:
    path = f"manifests/models/{MODEL}.yaml"
    for name, event in (("v1", "model.adopted"), ("v2", "rollout.promoted"), ("v1", "rollout.rolled_back")):
        adopted(home, name, event)
        publish(home.settings, home.store, home.clock)
        shown = git(home.settings.gitops, "show", f"HEAD:{path}")
        assert shown.encode() == of_home(home)[path]
        assert json.loads(yaml.safe_load(shown)["data"]["champion.json"])["version"] == name
    assert len(git(home.settings.gitops, "log", "--format=%H", "--", path).split()) == 3
    assert verify_home(home.settings).ok
    (home.settings.gitops / path).write_text("kind: Secret\n")
    assert "was changed" in verify_home(home.settings).reason


def test_a_home_that_knew_fewer_files_verifies_and_its_next_tick_writes_them(home: Home) -> None:
    adopted(home)
    publish(home.settings, home.store, home.clock)
    before, generation = read(home.store)
    old = {name: value for name, value in home.store.recall(STATE).body.items() if name != "forms"}  # type: ignore[union-attr]
    home.store.remember(Put("", STATE, old, generation))
    path = home.settings.gitops / "manifests" / "models" / f"{MODEL}.yaml"
    text = path.read_bytes()
    path.unlink()
    assert verify_home(home.settings).ok
    publish(home.settings, home.store, home.clock)
    assert path.read_bytes() == text
    assert read(home.store)[0] == before
    path.unlink()
    assert "is gone" in verify_home(home.settings).reason


def test_what_is_not_what_the_audit_says_is_not_left_out_of_the_cluster(home: Home) -> None:
    adopted(home)
    path = sealed(home, b"sealed\n")
    path.write_bytes(b"theirs\n")
    with pytest.raises(IntegrityError, match=r"drift-database\.yaml: is not what the audit names"):
        of_home(home)
    path.unlink()
    with pytest.raises(IntegrityError, match="is not what the audit names"):
        of_home(home)
    path.write_bytes(b"sealed\n")
    assert of_home(home)["manifests/sealed/ml/drift-database.yaml"] == b"sealed\n"
    sealed(home, None, generation=1)
    assert [*of_home(home)] == ["values.yaml", f"manifests/models/{MODEL}.yaml"]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("tests", "has a folder of tests"),
        ("bytes", "be read as UTF-8"),
    ],
)
def test_models_that_a_config_map_cannot_hold_are_refused(home: Home, tmp_path: Path, harm: str, said: str) -> None:
    folder = tmp_path / "models" / MODEL
    folder.mkdir(parents=True)
    (folder / "train.py").write_bytes(b"\xff" if harm == "bytes" else b"x = 1\n")
    if harm == "tests":
        (folder / "tests").mkdir()
    spec = declared(folder, retrain={"trainer": "./train.py"})
    with pytest.raises(InputError, match=said):
        of_home(home, spec)


def test_models_that_are_too_large_together_are_refused(home: Home, tmp_path: Path) -> None:
    specs = []
    for number in range(12):
        folder = tmp_path / "models" / f"m{number}"
        folder.mkdir(parents=True)
        (folder / "train.py").write_text(f"# {'x' * 100_000}\n")
        specs.append(declared(folder, name=f"m{number}", retrain={"trainer": "./train.py"}))
    with pytest.raises(InputError, match=r"bytes, and a ConfigMap has 1,048,576; .*--without-models"):
        of_home(home, *specs)


@pytest.mark.parametrize("text", ["y", "on", "1e3", "0x1F", "a\nb", " a\n", "a \nb", "\ta", "é\r\n", "", "~"])
def test_texts_come_back_as_they_were_and_none_stands_bare(text: str) -> None:
    made = to_yaml({text: text})
    assert yaml.safe_load(made) == {text: text}
    assert made[:1] in b"\"'?|"


FILES = {"values.yaml": b"1\n", "manifests/models/a.yaml": b"2\n", "manifests/sealed/ml/b.yaml": b"3\n"}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_changes_nothing_and_removes_what_is_no_more(tmp_path: Path) -> None:
    assert write_folder(tmp_path, FILES) == Changed(tuple(sorted(FILES)), ())
    (tmp_path / "manifests" / "models" / "theirs.yaml").write_text("x")
    before = tree(tmp_path)
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)
    assert write_folder(tmp_path, FILES) == Changed((), ())
    assert tree(tmp_path) == before
    less = {"values.yaml": b"changed\n"}
    gone = ("manifests/models/a.yaml", "manifests/sealed/ml/b.yaml")
    assert write_folder(tmp_path, less) == Changed(("values.yaml",), gone)
    assert {*tree(tmp_path)} == {"values.yaml", "SHA256SUMS", "manifests/models/theirs.yaml"}
    assert not (tmp_path / "manifests" / "sealed").exists()


def harmed(folder: Path, how: str) -> None:
    path = folder / "manifests" / "models" / "a.yaml"
    listed = folder / "SHA256SUMS"
    digest = hashlib.sha256(b"outside").hexdigest()
    if how in ("changed", "no more"):
        path.write_text("theirs")
    elif how == "link":
        path.unlink()
        path.symlink_to(folder / "values.yaml")
    elif how == "folder behind a link":
        (folder / "manifests").rename(folder / "elsewhere")
        (folder / "manifests").symlink_to(folder / "elsewhere")
    elif how == "a file where a folder was":
        path.unlink()
        path.parent.rmdir()
        path.parent.write_text("x")
    elif how == "listed outside":
        listed.write_text(f"{digest}  ../outside\n")
    elif how == "listed absolute":
        listed.write_text(f"{digest}  {folder.parent / 'outside'}\n")
    elif how == "no list":
        listed.write_bytes(b"\xff\xfe")
    else:
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    "how",
    [
        *("changed", "no more", "link", "folder behind a link", "a file where a folder was", "listed outside"),
        *("listed absolute", "no list", "a folder"),
    ],
)
def test_what_others_wrote_or_changed_is_never_touched(tmp_path: Path, how: str) -> None:
    (tmp_path / "outside").write_bytes(b"outside")
    folder = tmp_path / "cluster"
    write_folder(folder, FILES)
    harmed(folder, how)
    before = tree(tmp_path)
    with pytest.raises(InputError, match="move it away"):
        write_folder(folder, {} if how == "no more" else {**FILES, "values.yaml": b"new\n", "manifests/c.yaml": b"4\n"})
    assert tree(tmp_path) == before


def test_a_file_of_others_is_not_written_over_and_one_of_the_same_bytes_is_taken(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text("theirs\n")
    with pytest.raises(InputError, match=r"values\.yaml: was not written here"):
        write_folder(tmp_path, FILES)
    assert tree(tmp_path) == {"values.yaml": b"theirs\n"}
    (tmp_path / "values.yaml").write_bytes(FILES["values.yaml"])
    assert "values.yaml" not in write_folder(tmp_path, FILES).written


@pytest.mark.parametrize("after", range(1, 5))
def test_killed_between_two_files_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    write_folder(tmp_path, FILES)
    wanted, writes, write = {"values.yaml": b"new\n", "manifests/c.yaml": b"4\n"}, list[Path](), write_whole

    def killed(path: Path, data: bytes | str) -> Path:
        writes.append(path)
        if len(writes) == after:
            raise KeyboardInterrupt
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(kept_folder, "write_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            write_folder(tmp_path, wanted)
    write_folder(tmp_path, wanted)
    assert {name: data for name, data in tree(tmp_path).items() if name != "SHA256SUMS"} == wanted


def test_two_at_once_are_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, tried = write_whole, list[int]()

    def another(path: Path, data: bytes | str) -> Path:
        tried.append(1)
        with pytest.raises(ConflictError, match="another process writes it"):
            write_folder(tmp_path, FILES)
        return write(path, data)

    monkeypatch.setattr(kept_folder, "write_whole", another)
    write_folder(tmp_path, FILES)
    assert len(tried) == 5


def test_the_command_writes_a_folder_and_says_what(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adopted(home)
    declared(tmp_path / "models" / MODEL)
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    out, run = tmp_path / "cluster", ("deploy", "render", "--home", home.settings.home, "--out")
    first = drift(*run, out)
    assert first.code == 0, first.err
    assert first.out.split() == [str(out / f"manifests/models/{MODEL}.yaml"), str(out / "values.yaml")]
    assert "give store.url in values of your own" in first.err
    before = tree(out)
    assert drift(*run, out).out == f"{out}: nothing changed\n"
    assert tree(out) == before
    adopted(home, "v2", "rollout.promoted")
    home.clock.advance_to(home.clock.now() + DAY)
    told = json.loads(drift(*run, out, "--json").out)
    assert told == {"folder": str(out), "written": [f"manifests/models/{MODEL}.yaml"], "removed": []}
    drift(*run, out, "--without-models")
    assert yaml.safe_load((out / "values.yaml").read_text()) == {}
    inside = drift(*run, home.settings.gitops / "cluster")
    assert (inside.code, "lies in the home's GitOps repository" in inside.err) == (2, True)
    assert drift("deploy", "render", "--home", tmp_path / "nowhere", "--out", out).code == 2
