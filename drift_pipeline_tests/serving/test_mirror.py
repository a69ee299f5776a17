"""The mirror: whose score is written beside whose answer, and that no candidate stops what lands."""

import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import polars as pl
import pytest

from drift_pipeline.errors import UnavailableError
from drift_pipeline.loop.state import RECORDED, Version
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.registry.bundle import Bundle
from drift_pipeline.rollout.plan import Phase
from drift_pipeline.serving.mirror import TIMED_ROWS, Mirror
from drift_pipeline_tests.serving.worlds import AT, SPECS, Home
from drift_pipeline_tests.training.worlds import history

COLUMNS = ["_id", "_time", "_score", "_version", "_latency_ms"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    home.store.close()


def mirror(home: Home) -> Mirror:
    return Mirror(home.store, home.registry, SPECS)


def landed(versions: Sequence[str], start: datetime = AT) -> pl.DataFrame:
    """Predictions as capture lands them, a minute apart."""
    rows = history(len(versions)).drop("_label")
    times = [start + timedelta(minutes=minute) for minute in range(rows.height)]
    return rows.with_columns(
        pl.Series("_time", times, dtype=pl.Datetime("us", "UTC")), pl.Series("_version", versions), _score=pl.lit(0.5)
    ).sort("_time", "_id")


def said_by(home: Home, document: dict[str, str], frame: pl.DataFrame) -> list[float]:
    return Version.load(document, home.registry).scores(frame, SPECS["fraud"]).to_list()


def test_each_row_gets_the_score_of_the_version_that_did_not_answer(home: Home) -> None:
    champion, candidate = home.version("v1", 0), home.version("v2", 1)
    home.champion(champion)
    home.rollout(candidate, Phase.CANARY)
    frame = landed(["v1", "v2", "v1", "v2", "v7"])
    mirrored = mirror(home).mirror("fraud", frame)
    assert mirrored is not None
    assert mirrored.columns == COLUMNS
    assert mirrored.select("_id", "_time").equals(frame.select("_id", "_time"))
    assert mirrored["_version"].to_list() == ["v2", "v1", "v2", "v1", "v2"]
    of = said_by(home, champion, frame), said_by(home, candidate, frame)
    assert mirrored["_score"].to_list() == [of[1][0], of[0][1], of[1][2], of[0][3], of[1][4]]


def test_without_a_rollout_nothing_is_mirrored(home: Home) -> None:
    assert mirror(home).mirror("fraud", landed(["v1"])) is None
    home.champion(home.version("v1", 0))
    assert mirror(home).mirror("fraud", landed(["v1"])) is None
    for phase in (Phase.FULL, Phase.ROLLED_BACK):
        home.rollout(home.version("v2", 1), phase)
        assert mirror(home).mirror("fraud", landed(["v1"])) is None


def test_rows_from_before_the_rollout_are_left_out(home: Home) -> None:
    home.champion(home.version("v1", 0))
    home.rollout(home.version("v2", 1), Phase.SHADOW)
    frame = landed(["v1"] * 4, AT - timedelta(minutes=2))
    mirrored = mirror(home).mirror("fraud", frame)
    assert mirrored is not None
    assert mirrored["_id"].to_list() == frame["_id"][2:].to_list()


def test_a_recorded_champion_scores_nothing(home: Home) -> None:
    home.champion({**home.version("v1", 0), "digest": RECORDED})
    home.rollout(home.version("v2", 1), Phase.SHADOW)
    mirrored = mirror(home).mirror("fraud", landed(["v1", "v2", "v1"]))
    assert mirrored is not None
    assert mirrored["_version"].to_list() == ["v2", "v2"]
    assert mirrored["_score"].null_count() == 0


def test_latency_is_that_of_single_answers_by_the_candidate_on_a_few_rows(home: Home) -> None:
    home.champion(home.version("v1", 0))
    home.rollout(home.version("v2", 1), Phase.CANARY)
    ticks = count()
    timed = Mirror(home.store, home.registry, SPECS, lambda: next(ticks) * 0.003)
    mirrored = timed.mirror("fraud", landed(["v2"] * 3 + ["v1"] * (TIMED_ROWS + 5)))
    assert mirrored is not None
    assert mirrored["_latency_ms"].round(6).to_list() == [None] * 3 + [3.0] * TIMED_ROWS + [None] * 5


def test_a_candidate_that_cannot_be_loaded_scores_null_and_the_champion_goes_on(home: Home) -> None:
    home.champion(home.version("v1", 0))
    home.rollout(home.version("v2", 1, b"no model"), Phase.CANARY)
    mirrored = mirror(home).mirror("fraud", landed(["v1", "v2"]))
    assert mirrored is not None
    assert mirrored.schema["_score"] == pl.Float64
    assert mirrored["_version"].to_list() == ["v2", "v1"]
    assert [score is None for score in mirrored["_score"]] == [True, False]


def test_a_bundle_that_is_whole_in_the_place_of_the_candidates_scores_null(home: Home) -> None:
    home.champion(home.version("v1", 0))
    candidate, other = home.version("v2", 1), home.version("v3", 2)
    (ours,), (theirs,) = (home.settings.registry.glob(f"*/{one['digest'][7:]}") for one in (candidate, other))
    shutil.rmtree(ours)
    shutil.copytree(theirs, ours)
    home.rollout(candidate, Phase.CANARY)
    mirrored = mirror(home).mirror("fraud", landed(["v1", "v2"]))
    assert mirrored is not None
    assert [score is None for score in mirrored["_score"]] == [True, False]


def test_a_candidate_that_was_missing_is_tried_again(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.champion(home.version("v1", 0))
    candidate = home.version("v2", 1)
    home.rollout({**candidate, "digest": "sha256:" + "a" * 64}, Phase.SHADOW)
    asked = mirror(home)
    for _ in range(2):
        mirrored = asked.mirror("fraud", landed(["v1"]))
        assert mirrored is not None
        assert mirrored["_score"].to_list() == [None]
    assert len([record for record in caplog.records if "v2 scored nothing" in record.message]) == 1
    home.rollout(candidate, Phase.SHADOW)
    mirrored = asked.mirror("fraud", landed(["v1"]))
    assert mirrored is not None
    assert mirrored["_score"].null_count() == 0


class Counted(LocalRegistry):
    """A registry that counts, and may not answer."""

    asked = 0
    down = False

    def get(self, digest: str) -> Bundle:
        self.asked += 1
        if self.down:
            raise UnavailableError("the registry does not answer")
        return super().get(digest)


def test_a_version_is_read_once(home: Home) -> None:
    home.champion(home.version("v1", 0))
    home.rollout(home.version("v2", 1), Phase.CANARY)
    registry = Counted(home.settings.registry)
    asked = Mirror(home.store, registry, SPECS)
    asked.mirror("fraud", landed(["v1", "v2"]))
    once = registry.asked
    for _ in range(3):
        asked.mirror("fraud", landed(["v1", "v2"]))
    assert registry.asked == once > 0


def test_a_registry_that_is_down_is_not_the_candidates_error(home: Home) -> None:
    home.champion(home.version("v1", 0))
    home.rollout(home.version("v2", 1), Phase.SHADOW)
    registry = Counted(home.settings.registry)
    registry.down = True
    with pytest.raises(UnavailableError):
        Mirror(home.store, registry, SPECS).mirror("fraud", landed(["v1"]))


def test_a_frame_without_rows_of_the_rollout_gives_an_empty_frame_of_the_same_columns(home: Home) -> None:
    home.champion(home.version("v1", 0))
    home.rollout(home.version("v2", 1), Phase.SHADOW)
    mirrored = mirror(home).mirror("fraud", landed(["v1"], datetime(2020, 1, 1, tzinfo=UTC)))
    assert mirrored is not None
    assert (mirrored.height, mirrored.columns) == (0, COLUMNS)
