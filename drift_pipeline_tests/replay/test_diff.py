"""`drift diff` tells what was set differently and what came of it, and refuses what cannot be compared."""

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.replays.diff import diff_facts, diff_folders, diff_table
from drift_pipeline.replays.folder import incidents
from drift_pipeline.replays.page import look_up
from drift_pipeline_tests.replay.pages import ReadPage, read_page
from drift_pipeline_tests.replay.worlds import BASELINE_AT, drift, replayed, tightened


def both() -> tuple[Path, Path]:
    return replayed()[1], tightened()[1]


def as_json() -> dict[str, Any]:
    ended = drift("diff", *both(), "--json")
    assert ended.code == 0
    return ended.summary


def copied(tmp_path: Path, name: str = "other") -> Path:
    folder = tmp_path / name
    folder.mkdir()
    for file in ("summary.json", "control.db", "kpis.parquet"):
        shutil.copy(replayed()[1] / file, folder / file)
    return folder


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    edit(summary)
    (folder / "summary.json").write_text(json.dumps(summary))


def lines(out: str) -> dict[str, list[str]]:
    """The table by label: a label ends where two spaces begin."""
    read = [line for line in out.splitlines() if line.strip()]
    return {line.strip().split("  ")[0]: [cell for cell in line.split("  ") if cell.strip()][1:] for line in read[1:]}


def test_only_what_was_set_differently_is_told() -> None:
    assert as_json()["differs"] == [
        {"key": "options.triggers", "values": ["both", "drift"]},
        {"key": "kpis.auroc.drop", "values": ["0.05", "0.02"]},
    ]


def test_a_replay_s_numbers_are_its_summary_s() -> None:
    for ended, told in zip((replayed()[0], tightened()[0]), as_json()["replays"], strict=True):
        said = ended.summary
        for name in ("auroc", "incidents", "alerts", "promotions", "rollbacks", "training_cpu_seconds", "to"):
            assert told[name] == said[name]
        assert {action: n for action, n in told["decisions"].items() if n} == said["decisions"]
        outcomes = [(retrain["cause"], retrain["accepted"]) for retrain in said["retrains"]]
        for cause, counted in told["retrains"].items():
            expected = {"accepted": outcomes.count((cause, True)), "rejected": outcomes.count((cause, False))}
            assert counted == expected


def test_the_first_incident_is_counted_from_the_end_of_the_reference_span() -> None:
    for side, told in zip(diff_folders(both()), as_json()["replays"], strict=True):
        first = incidents(side.records)[0]
        assert side.start == BASELINE_AT
        assert datetime.fromisoformat(told["first_incident"]) == first.opened
        assert told["first_incident_days"] == (first.opened - BASELINE_AT) / timedelta(days=1)
        assert len(told["spans"]) == told["incidents"]


def test_the_table_has_a_column_a_folder_and_fits_a_hundred_columns() -> None:
    ended = drift("diff", *both())
    assert ended.code == 0
    assert max(map(len, ended.out.splitlines())) <= 100
    table, first, second = lines(ended.out), replayed()[0].summary, tightened()[0].summary
    assert table["kpis.auroc.drop"] == ["0.05", "0.02"] or [c.strip() for c in table["kpis.auroc.drop"]] == [
        "0.05",
        "0.02",
    ]
    for label, values in {
        "AUROC loop": [f"{one['auroc']['loop']:.3f}" for one in (first, second)],
        "incidents": [str(one["incidents"]) for one in (first, second)],
        "training CPU seconds": [f"{one['training_cpu_seconds']:.1f}" for one in (first, second)],
    }.items():
        assert [cell.strip() for cell in table[label]] == values
    numbers = [line for line in ended.out.splitlines() if line.startswith(("AUROC", "incidents", "alerts"))]
    assert len({len(line) for line in numbers}) == 1


def test_columns_keep_their_width_with_long_names_and_many_folders(tmp_path: Path) -> None:
    folders = [copied(tmp_path, f"{'long' * 12}-{number}") for number in range(4)]
    table = diff_table(diff_facts(diff_folders(folders)))
    assert max(map(len, table.splitlines())) <= 100
    assert "-3" in table
    assert "options and spec are the same" in table


def test_the_page_shows_the_same_facts(tmp_path: Path) -> None:
    out = tmp_path / "diff.html"
    ended = drift("diff", *both(), "--html", out, "--json")
    assert ended.code == 0
    page: ReadPage = read_page(out.read_text(encoding="utf-8"))
    assert page.facts == ended.summary
    assert len(page.shown) > 30
    for shown in page.shown:
        assert shown.value == look_up(page.facts, shown.path)
    assert page.addresses == []
    assert [path.name for path in tmp_path.iterdir()] == ["diff.html"]


def test_a_month_that_one_side_lacks_is_a_gap(tmp_path: Path) -> None:
    other = copied(tmp_path)
    change(other, lambda summary: summary["auroc"]["by_month"].pop())
    out = tmp_path / "diff.html"
    assert drift("diff", replayed()[1], other, "--html", out).code == 0
    months = {month["month"]: month["loop"] for month in replayed()[0].summary["auroc"]["by_month"]}
    last = max(months)
    titles = [text for text in read_page(out.read_text()).texts if text.startswith(f"{last} ")]
    assert titles == [f"{last} out: {months[last]:.4f}"] * 2  # wide and narrow


def test_hostile_names_of_folders_are_text(tmp_path: Path) -> None:
    other, out = copied(tmp_path, "<script>alert(1)<"), tmp_path / "diff.html"
    assert drift("diff", replayed()[1], other, "--html", out).code == 0
    assert read_page(out.read_text()).tags["script"] == 1


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_folders_are_refused(count: int) -> None:
    ended = drift("diff", *both()[:count])
    assert (ended.code, ended.out) == (2, "")
    assert "name at least two" in ended.err


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (["summary.json"], "holds no summary.json,"),
        (["control.db", "kpis.parquet"], "holds no control.db, kpis.parquet,"),
    ],
)
def test_a_folder_that_is_no_replay_is_refused_with_what_is_missing(
    tmp_path: Path, missing: list[str], said: str
) -> None:
    other = copied(tmp_path)
    for name in missing:
        (other / name).unlink()
    ended = drift("diff", replayed()[1], other)
    assert ended.code == 2
    assert f"{other}: {said}" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_different_histories_are_refused_and_both_described(tmp_path: Path) -> None:
    other = copied(tmp_path)
    change(other, lambda summary: summary.update(history="sha256:" + "1" * 64, rows=77, to="2027-01-01T00:00:00+00:00"))
    ended = drift("diff", replayed()[1], other)
    assert (ended.code, ended.out) == (2, "")
    assert "different histories" in ended.err
    assert f"of {replayed()[0].summary['rows']:,} rows" in ended.err
    assert "of 77 rows, 2026-01-05 00:07 to 2027-01-01" in ended.err


@pytest.mark.parametrize("name", ["history", "options", "reigns"])
def test_a_summary_of_an_older_form_is_refused(tmp_path: Path, name: str) -> None:
    other = copied(tmp_path)
    change(other, lambda summary: summary.pop(name))
    ended = drift("diff", replayed()[1], other)
    assert ended.code == 2
    assert f"is of an older form, without {name}; replay the history again" in ended.err


def test_a_summary_that_is_no_json_is_refused(tmp_path: Path) -> None:
    other = copied(tmp_path)
    (other / "summary.json").write_text("{")
    ended = drift("diff", replayed()[1], other)
    assert ended.code == 2
    assert "is not the JSON of a replay's summary" in ended.err


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_printed(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    for out in (tmp_path / "taken" / "diff.html", tmp_path):
        ended = drift("diff", *both(), "--html", out)
        assert (ended.code, ended.out) == (2, "")
        assert f"{out}: cannot be written" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
