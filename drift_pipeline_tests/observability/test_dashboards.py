"""Dashboards are what the code makes of them, and ask for nothing that is not told."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from drift_pipeline.observability.dashboards import dashboards
from drift_pipeline.observability.panels import BOARDS, Board
from drift_pipeline.observability.series import DELIVERY, SERIES
from drift_pipeline.serving.metrics import Metrics
from drift_pipeline_tests.parts.cache import HERE

DEPLOY = HERE.parents[1] / "deploy" / "grafana"
MADE: dict[str, dict[str, Any]] = {name: json.loads(text) for name, text in dashboards().items()}


def test_what_is_committed_is_what_the_code_makes() -> None:
    committed = {path.name: path.read_text() for path in (DEPLOY / "dashboards").glob("*")}
    assert committed == dashboards(), "python -m drift_pipeline.observability.dashboards deploy/grafana/dashboards"


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_each_query_of_a_panel_is_in_its_dashboard(board: Board) -> None:
    made = MADE[f"{board.uid}.json"]
    asked = [(panel["title"], target["expr"]) for panel in made["panels"] for target in panel["targets"]]
    assert asked == [(panel.title, expr) for panel in board.panels for expr, _ in panel.queries]
    assert len({panel["id"] for panel in made["panels"]}) == len(board.panels)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in made["panels"])


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_variable_that_a_query_names_is_one_of_the_dashboard(board: Board) -> None:
    named = set(re.findall(r"\$(?!__)(\w+)", " ".join(expr for panel in board.panels for expr, _ in panel.queries)))
    assert named <= {name for name, _, _ in board.variables}
    assert {panel.repeat for panel in board.panels} - {""} <= {name for name, _, _ in board.variables}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_panels_stand_side_by_side_and_none_lies_on_another(board: Board) -> None:
    cells = [
        (x, y)
        for panel in MADE[f"{board.uid}.json"]["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_what_is_provisioned_is_there() -> None:
    (sources,) = (DEPLOY / "provisioning" / "datasources").glob("*.yaml")
    assert [one["type"] for one in yaml.safe_load(sources.read_text())["datasources"]] == ["prometheus", "loki"]
    (boards,) = (DEPLOY / "provisioning" / "dashboards").glob("*.yaml")
    (provider,) = yaml.safe_load(boards.read_text())["providers"]
    assert Path(provider["options"]["path"]).is_relative_to("/var/lib/grafana")


def told() -> dict[str, set[str]]:
    """The labels of each series that the exporter and the gateway tell."""
    labels = {name: {*one.labels} for name, one in SERIES.items()} | {f"{DELIVERY}_bucket": {"le"}}
    for collector in dict.fromkeys(vars(Metrics()).values()):
        for family in collector.describe() if hasattr(collector, "describe") else ():
            names = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
            labels |= {f"{family.name}{ending}": {*collector._labelnames, "le"} for ending in names}
    return labels


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_panel_asks_for_series_that_are_told_and_names_their_labels(board: Board) -> None:
    known = told()
    for panel in board.panels:
        for expr, legend in panel.queries:
            names = re.findall(r"\bdrift_[a-z0-9_]+(?=[^a-z0-9_*]|$)", expr)
            assert set(names) <= known.keys(), (panel.title, expr)
            labels = set().union(*(known[name] for name in names)) | {"instance", "job"}
            assert set(re.findall(r"{{(\w+)}}", legend)) - labels in (set(), {"model"}), (panel.title, legend)
            assert set(re.findall(r"(\w+)=~", expr)) <= labels, (panel.title, expr)
