"""A home read from Python: frames of what the commands print, with the store's own numbers, and a notebook."""

import ast
import html
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import drift_pipeline as dp
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.loop import chronicle
from drift_pipeline_tests.replay.worlds import MODEL, drift, replayed

NOTEBOOK = Path(__file__).with_name("first_look.ipynb")
_TIME = pl.Datetime("us", "UTC")


@pytest.fixture(scope="module")
def home() -> dp.Home:
    return dp.open_home(replayed()[1])


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    return replayed()[0].summary


def test_models_say_what_the_last_tick_said(home: dp.Home, summary: dict[str, Any]) -> None:
    (one,) = home.models().to_dicts()
    assert (one["model"], one["verdict"]) == (MODEL, summary["last"]["verdict"])
    assert one["answers"] == summary["reigns"][-1]["version"]
    assert home.models().schema["ticked_at"] == _TIME
    assert one["labels_judged"] <= one["labels_joined"] <= one["labels_landed"]


def test_versions_reign_and_were_gated_as_the_summary_says(home: dp.Home, summary: dict[str, Any]) -> None:
    found = {one["version"]: one for one in home.versions(MODEL).to_dicts()}
    assert set(found) == {"recorded", *(one["version"] for one in summary["retrains"])}
    for one in summary["retrains"]:
        assert (found[one["version"]]["gates"] == "passed") == one["accepted"]
    for reign in summary["reigns"]:
        assert found[reign["version"]]["answers_from"] is not None
    assert [v for v, one in found.items() if one["phase"] == "champion"] == [summary["reigns"][-1]["version"]]
    assert all(one["card"] is None or Path(one["card"]).is_file() for one in found.values())


def test_decisions_and_incidents_are_those_that_were_counted(home: dp.Home, summary: dict[str, Any]) -> None:
    decided = home.decisions(MODEL)
    assert dict(decided["action"].value_counts().iter_rows()) == {k: n for k, n in summary["decisions"].items() if n}
    assert decided["at"].is_sorted()
    assert home.incidents(MODEL).height == summary["incidents"]
    incident = home.models()["incident"][0]
    still = home.incidents(MODEL).filter(pl.col("closed_at").is_null())["key"].to_list()
    assert still == ([incident] if incident else [])


def test_the_kpis_are_those_that_the_replay_left(home: dp.Home) -> None:
    kept = pl.read_parquet(replayed()[1] / "kpis.parquet")
    told = home.kpis(MODEL)
    key = ["at", "name"]
    both = told.join(kept, on=key, suffix="_kept")
    assert (both.height, both["value"].equals(both["value_kept"])) == (told.height, True)
    assert told.height == kept.height > 0
    newest = told["at"].max()
    assert isinstance(newest, datetime)
    some = home.kpis(MODEL, newest - timedelta(days=3))
    assert (some["at"].min(), some.height) == (newest - timedelta(days=3), 4 * told["name"].n_unique())
    assert home.kpis(MODEL, newest.replace(tzinfo=None)).height == told["name"].n_unique()


def test_the_audit_is_the_chain_and_filters_narrow_it(home: dp.Home) -> None:
    whole = home.audit()
    assert whole["seq"].to_list() == list(range(1, whole.height + 1))
    of_model = home.audit(MODEL)
    assert of_model.equals(whole.filter(pl.col("subject") == MODEL))
    assert home.audit(MODEL, event="rollout").equals(of_model.filter(pl.col("event").str.starts_with("rollout.")))
    middle = whole["at"][whole.height // 2]
    assert home.audit(since=middle).equals(whole.filter(pl.col("at") >= middle))
    assert home.audit(actor="policy").equals(whole.filter(pl.col("actor") == "policy"))


@pytest.mark.parametrize("method", ["kpis", "versions", "incidents", "decisions", "audit"])
def test_a_model_that_nobody_knows_is_named(home: dp.Home, method: str) -> None:
    with pytest.raises(InputError, match=f"no model 'fraud' in this home; there are: {MODEL}"):
        getattr(home, method)("fraud")


def test_a_folder_that_is_no_home_is_refused_and_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="drift adopt"):
        dp.open_home(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_span_that_is_none_is_refused(home: dp.Home) -> None:
    with pytest.raises(InputError, match="since: 'soon' is not a duration"):
        home.kpis(MODEL, "soon")


def test_a_record_of_another_form_is_told_and_no_key_error(tmp_path: Path) -> None:
    from drift_pipeline.clock import SystemClock
    from drift_pipeline.control.store import ControlStore, Entry

    copy = tmp_path / "copy"
    shutil.copytree(replayed()[1], copy)
    store = ControlStore(f"sqlite:///{copy / 'control.db'}", SystemClock())
    store.commit(Entry("eve", "decision.made", MODEL, details={"decision": "x"}))
    store.close()
    with pytest.raises(IntegrityError, match="drift audit verify tells more"):
        dp.open_home(copy).decisions(MODEL)
    told = drift("decisions", MODEL, "--home", copy)
    assert (told.code, "drift audit verify" in told.err) == (1, True)
    assert drift("audit", "list", "--home", copy, "--actor", "eve").out.count("decision.made") == 1


def test_the_commands_print_what_the_frames_hold(home: dp.Home) -> None:
    folder = replayed()[1]
    for verb, frame in (("versions", home.versions(MODEL)), ("decisions", home.decisions(MODEL))):
        printed = json.loads(drift(verb, MODEL, "--home", folder, "--json").out)
        assert [list(row) for row in printed] == [frame.columns] * frame.height
        assert len(printed) == frame.height


def test_reigns_pass_on_and_come_back() -> None:
    store = ControlReader(f"sqlite:///{replayed()[1] / 'control.db'}")
    (adopted,) = [r for r in store.records(about=MODEL) if r.event == "model.adopted"]
    trained = next(r for r in store.records(about=MODEL) if r.event == "candidate.trained")
    shipped = [r for r in store.records(about=MODEL) if r.event.startswith("rollout.")]
    full = next(r for r in shipped if r.event == "rollout.full" and r.digests["candidate"] == trained.digests["bundle"])
    store.close()
    details = {**full.details, "phase": "rolled_back", "reason": "after full: complaints"}
    back = replace(full, event="rollout.rolled_back", details=details, at="2030-01-01T00:00:00Z")
    first, second = chronicle.versions([adopted, trained, full, back])
    assert (first.phase, first.answers_from, first.answers_to) == ("champion", datetime(2030, 1, 1, tzinfo=UTC), None)
    assert (second.phase, second.answers_to) == ("rolled_back", datetime(2030, 1, 1, tzinfo=UTC))


def cells() -> list[str]:
    document = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert all(not cell.get("outputs") for cell in document["cells"])
    return ["".join(cell["source"]) for cell in document["cells"] if cell["cell_type"] == "code"]


def shown(source: str, names: dict[str, Any]) -> str:
    """What a notebook shows of a cell: its last expression, as HTML."""
    *before, last = ast.parse(source).body
    assert isinstance(last, ast.Expr)
    exec(compile(ast.Module(before, []), "cell", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    page: str = value._repr_html_()
    return page


def test_the_notebook_runs_and_shows_each_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    pages = [shown(source, names) for source in cells()]
    assert all("<" in page for page in pages)
    comparison, story = (html.unescape(page) for page in pages if page.startswith("<iframe"))
    assert ("session_length_s" in comparison, "incident" in story) == (True, True)
    assert [MODEL in page for page in pages[4:5]] == [True]
    assert names["home"].kpis(MODEL).height > 0
