"""With a key, W&B's real client and wandb-core send to a FAKE of the service; the real one was never tried."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.errors import InputError, IntegrityError, UnavailableError
from drift_pipeline.registry.backends import registry_of
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.registry.backends.wandb import PAUSE_S, WandbRegistry
from drift_pipeline_tests.components.worlds import MODEL, copied, records
from drift_pipeline_tests.fakes.wandb_server import ORGANISATION, FakeArtifact, FakeWandb, fake_wandb
from drift_pipeline_tests.registry.wandb_worlds import KEY, delivered, files_of, online, runs_of

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, FakeWandb]]:
    """A home of which all was sent."""
    home = copied(tmp_path_factory.mktemp("wandb") / "home")
    with fake_wandb() as fake:
        assert delivered(online(home, fake.url)) == []
        yield home, fake


def named(fake: FakeWandb, name: str, alias: str) -> FakeArtifact:
    found = fake.named(name, alias)
    assert found is not None, (name, alias)
    return found


def bundle_of(home: Path, event: str) -> str:
    return next(one for one in records(home) if one.event == event).digests["bundle"]


def test_lineage_goes_from_the_dataset_by_the_run_to_the_model_and_on_to_its_evaluation(
    sent: tuple[Path, FakeWandb],
) -> None:
    _, fake = sent
    model, evaluation = named(fake, MODEL, "drift-v2"), named(fake, f"{MODEL}-evaluation", "drift-v2")
    dataset = named(fake, f"{MODEL}-dataset", "drift-v2")
    assert model.run.endswith("-fit")
    assert evaluation.run.endswith("-prove")
    assert {(model.run, dataset.name, dataset.index), (evaluation.run, model.name, model.index)} <= {*fake.used}
    assert (evaluation.run, dataset.name, dataset.index) in fake.used


def test_versions_stand_as_the_audit_says(sent: tuple[Path, FakeWandb]) -> None:
    home, fake = sent
    champion = named(fake, MODEL, "champion")
    assert champion.said["digest"] == bundle_of(home, "model.promoted")
    assert champion.said["passed"] is True
    assert [one["phase"] for one in champion.said["phases"].values()][-1] == "full"
    assert [one["outcome"] for one in champion.said["approvals"].values()] == ["accepted"]
    assert {"candidate", "rolled-back"}.isdisjoint(champion.aliases)
    assert named(fake, f"{MODEL}-reference", "in-force").kind == "reference"


def test_what_may_be_shipped_is_linked_to_a_collection_of_the_registry(sent: tuple[Path, FakeWandb]) -> None:
    home, fake = sent
    champion = named(fake, MODEL, f"sha256-{bundle_of(home, 'model.registered')[7:]}")
    assert (f"{ORGANISATION}/wandb-registry-model/{MODEL}", champion.id) in fake.links


def test_trials_and_the_auroc_arrive(sent: tuple[Path, FakeWandb]) -> None:
    _, fake = sent
    fit, prove = (next(run for run in fake.runs if run.endswith(f"-{kind}")) for kind in ("fit", "prove"))
    assert next(step["trial"] for step in fake.history[fit]) == 0
    assert 0.5 < fake.summaries[prove]["auroc"] < 1


def test_what_is_sent_is_not_kept_twice_and_the_registry_is_whole(sent: tuple[Path, FakeWandb]) -> None:
    home, fake = sent
    assert runs_of(home) == []
    assert not [path for path in (home / "wandb" / "copies").rglob("*") if path.is_file()]
    for artifact in fake.artifacts[MODEL]:
        LocalRegistry(home / "registry").get(artifact.said["digest"])


def test_the_key_is_in_no_file_of_the_home(sent: tuple[Path, FakeWandb]) -> None:
    home, fake = sent
    assert any(fake.keys)
    assert [path for path, data in files_of(home, ".").items() if KEY.encode() in data] == []


def test_all_of_it_again_makes_no_second_version(sent: tuple[Path, FakeWandb], tmp_path: Path) -> None:
    _, fake = sent
    before = {name: len(known) for name, known in fake.artifacts.items() if not name.startswith("run-")}
    assert delivered(online(copied(tmp_path / "again"), fake.url)) == []
    assert {name: len(known) for name, known in fake.artifacts.items() if not name.startswith("run-")} == before


def lost(home: Path, digest: str) -> None:
    name = digest.removeprefix("sha256:")
    shutil.rmtree(home / "registry" / name[:2] / name)


def test_a_bundle_that_is_lost_here_is_fetched_and_verified(sent: tuple[Path, FakeWandb], tmp_path: Path) -> None:
    home, fake = sent
    mine = shutil.copytree(home, tmp_path / "home")
    digest = bundle_of(mine, "model.promoted")
    before = LocalRegistry(mine / "registry").get(digest)
    lost(mine, digest)
    registry = registry_of(online(mine, fake.url))
    assert not registry.exists(digest)
    assert registry.get(digest) == before
    assert LocalRegistry(mine / "registry").get(digest) == before


def changed(path: str, data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1]) if path.endswith("model.skops") else data


def other_manifest(path: str, data: bytes) -> bytes:
    if path.endswith("/manifest.json"):
        return data.replace(b'"model.skops"', b'"../evil.txt"')
    return re.sub(rb'"(model.skops|manifest.json)":', rb'"../\1":', data) if "wandb_manifest" in path else data


@pytest.mark.parametrize("lie", [changed, other_manifest], ids=["bytes of the model", "names of files"])
def test_a_server_that_gives_other_bytes_is_refused_and_nothing_is_kept(
    sent: tuple[Path, FakeWandb], tmp_path: Path, lie: Any
) -> None:
    home, fake = sent
    mine = shutil.copytree(home, tmp_path / "home")
    digest = bundle_of(mine, "model.promoted")
    lost(mine, digest)
    before = files_of(mine)
    try:
        fake.lie = lie
        with pytest.raises((IntegrityError, UnavailableError)):
            registry_of(online(mine, fake.url)).get(digest)
    finally:
        fake.lie = None
    assert files_of(mine) == before
    assert not list(tmp_path.rglob("evil.txt"))


def test_a_stranger_is_not_found_there_either(sent: tuple[Path, FakeWandb]) -> None:
    home, fake = sent
    with pytest.raises(InputError, match="was registered here"):
        registry_of(online(home, fake.url)).get("sha256:" + "0" * 64)


def test_a_fetch_that_failed_is_not_tried_again_at_once(sent: tuple[Path, FakeWandb], tmp_path: Path) -> None:
    home, fake = sent
    mine, now = shutil.copytree(home, tmp_path / "home"), [0.0]
    digest = bundle_of(mine, "model.promoted")
    lost(mine, digest)
    registry = WandbRegistry(online(mine, fake.url), lambda: now[0])
    fake.answer = "401"
    try:
        for _ in range(2):
            asked = len(fake.keys), len(fake.asked)
            with pytest.raises(UnavailableError):
                registry.get(digest)
    finally:
        fake.answer = ""
    assert (len(fake.keys), len(fake.asked)) == asked
    now[0] = PAUSE_S + 1
    assert registry.get(digest).digest == digest
