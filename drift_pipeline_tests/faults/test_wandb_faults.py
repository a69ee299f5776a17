"""W&B down, slow, hanging or refusing, its client killed, and two that deliver: nothing is lost, and nothing waits."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from drift_pipeline.clock import system_clock
from drift_pipeline.control.store import ControlStore, Put
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline_tests.components.worlds import MODEL, copied
from drift_pipeline_tests.fakes.wandb_server import FakeArtifact, FakeWandb, fake_wandb
from drift_pipeline_tests.registry.wandb_worlds import KEY, cores, delivered, online, runs_of

pytestmark = pytest.mark.live
DELIVER = """
import sys
from drift_pipeline_tests.registry.wandb_worlds import delivered, online
print(delivered(online(__import__("pathlib").Path(sys.argv[1]), sys.argv[2])))
"""


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT_TEST_MARK", str(os.getpid()))


@pytest.fixture
def fake() -> Iterator[FakeWandb]:
    with fake_wandb() as made:
        yield made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return copied(tmp_path / "home")


def names_of(fake: FakeWandb) -> set[str]:
    return {name.rpartition("-")[2] for name in fake.runs}


def complete(fake: FakeWandb, home: Path) -> None:
    """All is there, once, and the registry as it was."""
    assert {"adopt", "profile", "fit", "prove"} <= names_of(fake)
    model = fake.named(MODEL, "champion")
    assert model is not None
    digests = [one.digest for one in fake.artifacts[MODEL]]
    assert len(digests) == len({*digests}) == 2
    assert all(one.state == "COMMITTED" for one in fake.artifacts[MODEL])
    for one in fake.artifacts[MODEL]:
        LocalRegistry(home / "registry").get(one.said["digest"])
    assert runs_of(home) == []


@pytest.mark.parametrize(("answer", "said"), [("401", "the fake answers 401"), ("500", "within"), ("hang", "within")])
def test_what_is_not_taken_waits_is_told_and_goes_later(fake: FakeWandb, home: Path, answer: str, said: str) -> None:
    settings = online(home, fake.url)
    began, fake.answer = time.monotonic(), answer
    (line,) = delivered(settings, seconds=25.0)
    assert time.monotonic() - began < 40
    assert "runs wait for" in line
    assert said in line
    assert KEY not in line
    fake.answer = ""
    began = time.monotonic()
    assert delivered(settings, at_once=False) == [line], "its pause is not over"
    assert time.monotonic() - began < 2
    assert delivered(settings) == []
    complete(fake, home)
    assert not cores()


def test_a_server_that_is_not_there_holds_nothing_up(home: Path) -> None:
    began = time.monotonic()
    (line,) = delivered(online(home, "http://127.0.0.1:9"), seconds=20.0)
    assert time.monotonic() - began < 35
    assert "runs wait for http://127.0.0.1:9: " in line
    assert not cores()


def begun(home: Path, fake: FakeWandb) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", DELIVER, str(home), fake.url], text=True, stdout=subprocess.PIPE)


@pytest.mark.parametrize("when", ["writing", "sending"])
def test_a_delivery_that_is_killed_is_gone_on_with(fake: FakeWandb, home: Path, when: str) -> None:
    fake.pause_s = 0.05
    process = begun(home, fake)
    try:
        until = time.monotonic() + 60
        while not (fake.artifacts if when == "sending" else runs_of(home)) and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    fake.pause_s = 0.0
    settings = online(home, fake.url)
    assert delivered(settings) == [] or delivered(settings) == []  # what the killed one had open may be refused once
    complete(fake, home)


def test_what_was_taken_in_part_is_sent_again(fake: FakeWandb, home: Path) -> None:
    """As where wandb-core died between an artifact's beginning and its end, and marked its run as sent."""
    settings, fake.loses = online(home, fake.url), {"model": 1}
    (line,) = delivered(settings)
    assert "is there in part only: what was sent last is sent again" in line
    assert runs_of(home)
    assert delivered(settings) == []
    complete(fake, home)


@pytest.fixture
def half(fake: FakeWandb, home: Path) -> list[FakeArtifact]:
    """A model and an evaluation that are there in part, of a home whose runs are sent and forgotten: an earlier version
    did so without a look at what became of them, and what it remembered has no word of how it told."""
    settings, fake.loses = online(home, fake.url), {"model": 1, "evaluation": 1}
    assert "in part only" in delivered(settings)[0]
    shutil.rmtree(home / "wandb")
    with closing(ControlStore(settings.database_url, system_clock())) as store:
        told = store.recall("_wandb")
        assert told is not None
        old = {name: value for name, value in told.body.items() if name != "form"}
        done = {"told": old["written"], "failures": 0, "error": "", "again_at": 0.0}
        store.remember(Put("", "_wandb", {**old, **done}, told.generation))
    found = [one for known in fake.artifacts.values() for one in known if one.state == "PENDING"]
    assert sorted(one.kind for one in found) == ["evaluation", "model"]
    return found


def test_what_an_earlier_version_left_in_part_is_written_anew_from_the_audit(
    fake: FakeWandb, home: Path, half: list[FakeArtifact]
) -> None:
    settings, known = online(home, fake.url), {name: len(of) for name, of in fake.artifacts.items()}
    (line,) = delivered(settings)
    assert line.endswith("is there in part only: its run is written anew, and sent next")
    assert delivered(settings) == []
    assert [one.state for one in half] == ["COMMITTED", "COMMITTED"]
    assert {name: len(of) for name, of in fake.artifacts.items()} == known
    complete(fake, home)
    champion = LocalRegistry(home / "registry").get(fake.named(MODEL, "champion").said["digest"])  # type: ignore[union-attr]
    with closing(ControlStore(settings.database_url, system_clock())) as store:
        assert store.get("model", MODEL).body["digest"] == champion.digest  # type: ignore[union-attr]


def test_what_is_there_in_part_and_is_here_no_more_is_told_once_and_stops_nothing(
    fake: FakeWandb, home: Path, half: list[FakeArtifact]
) -> None:
    settings = online(home, fake.url)
    model, evaluation = sorted(half, key=lambda one: one.kind, reverse=True)
    digest = model.said["digest"].removeprefix("sha256:")
    shutil.rmtree(home / "registry" / digest[:2] / digest)
    delivered(settings)
    lines = delivered(settings)
    assert any("is there in part only, and nothing here has what it lacks" in line for line in lines), lines
    assert (model.state, evaluation.state) == ("PENDING", "COMMITTED")
    asked = len(fake.asked)
    assert delivered(settings) == lines
    assert len(fake.asked) == asked


def test_two_that_deliver_at_once_do_it_once(fake: FakeWandb, home: Path) -> None:
    both = [begun(home, fake) for _ in range(2)]
    for process in both:
        process.communicate(timeout=150)
        assert process.returncode == 0
    assert delivered(online(home, fake.url)) == []
    complete(fake, home)


def test_an_alias_that_somebody_moved_decides_nothing_and_is_put_back_by_the_next_word(
    fake: FakeWandb, home: Path
) -> None:
    settings = online(home, fake.url)
    delivered(settings)
    champion, old = fake.named(MODEL, "champion"), fake.named(MODEL, "drift-v1")
    assert champion is not None
    assert old is not None
    fake.call(["champion"], old)
    told = online(home, fake.url, wandb_project="another")  # another destination is told everything
    assert delivered(told) == []
    assert fake.named(MODEL, "champion") is champion


def test_what_is_refused_for_good_is_left_out_and_told_and_the_others_go_on(
    fake: FakeWandb, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run, whose model is then not there to stand, and how a version stands that is there."""
    settings = online(home, fake.url)
    fake.refuses = lambda name, given: 400 if (name, "-fit" in given) == ("UpsertBucket", True) else 0
    delivered(settings)
    (run,) = runs_of(home)
    assert run.name.endswith("-fit")
    assert {"adopt", "profile", "prove"} <= names_of(fake)
    assert f"{run.name} is left out" in caplog.text
    assert fake.named(f"{MODEL}-reference", "in-force") is not None, "the others stand as they should"
    asked = len(fake.asked)
    (line,) = delivered(settings)
    assert "were left out" in line
    assert (len(fake.asked), runs_of(home)) == (asked, [run])
    assert not cores()


def test_an_artifact_that_is_refused_with_its_run_taken_is_told(fake: FakeWandb, home: Path) -> None:
    """`wandb sync` marks such a run as sent, and says nothing."""
    fake.refuses = lambda name, given: 400 if (name, "-evaluation" in given) == ("CreateArtifact", True) else 0
    (line,) = delivered(online(home, fake.url))
    assert f"{MODEL}-evaluation sha256-" in line
    assert "is not there: it was not taken with its run, or is deleted" in line
    complete(fake, home)


def test_how_a_version_stands_may_be_refused_for_good(fake: FakeWandb, home: Path) -> None:
    settings = online(home, fake.url)
    fake.refuses = lambda name, given: 422 if (name, "-reference-1" in given) == ("UpdateArtifact", True) else 0
    (line,) = delivered(settings)
    assert f"{MODEL}-reference does not stand as it should: it is refused" in line
    complete(fake, home)
    assert delivered(settings) == [line]


def test_a_run_that_is_refused_for_now_waits_while_the_others_go_and_goes_later(fake: FakeWandb, home: Path) -> None:
    settings = online(home, fake.url)
    fake.refuses = lambda name, given: 403 if (name, "-fit" in given) == ("UpsertBucket", True) else 0
    (line,) = delivered(settings)
    (fit,) = (run for run in runs_of(home) if run.name.endswith("-fit"))
    assert line.startswith(f"1 runs wait for {fake.url}: {fit.name} is not taken")
    fake.refuses = lambda _name, _given: 0
    assert delivered(settings) == []
    complete(fake, home)


def test_an_organisation_without_a_registry_is_told_once_and_stops_nothing(fake: FakeWandb, home: Path) -> None:
    fake.registry = False
    (line,) = delivered(online(home, fake.url))
    assert "is not linked to the registry model" in line
    assert fake.links == []
    complete(fake, home)


def test_a_damaged_bundle_is_not_sent_and_the_others_are(fake: FakeWandb, home: Path) -> None:
    settings = online(home, fake.url)
    store = ControlStore(settings.database_url, system_clock())
    digest = next(one for one in store.records() if one.event == "candidate.trained").digests["bundle"][7:]
    store.close()
    (home / "registry" / digest[:2] / digest / "model.skops").write_bytes(b"other")
    (line,) = delivered(settings)
    assert "records were left out" in line
    assert digest in line
    assert [one.said["manifest"]["version"] for one in fake.artifacts[MODEL]] == ["v1"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_that_nobody_may_write_raises_nothing(home: Path) -> None:
    home.chmod(0o500)
    try:
        assert delivered(online(home, "http://127.0.0.1:9")) == []
    finally:
        home.chmod(0o700)


def test_a_folder_that_is_a_file_is_told(home: Path) -> None:
    (home / "wandb").write_text("in the way")
    (line,) = delivered(online(home, "http://127.0.0.1:9"))
    assert f"{home / 'wandb'}: cannot be made" in line
    assert (home / "wandb").read_text() == "in the way"
