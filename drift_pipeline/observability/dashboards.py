"""Grafana's dashboards as code; `python -m drift_pipeline.observability.dashboards FOLDER` writes their JSON."""

import json
import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common as vizes
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, VisibilityMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from drift_pipeline.files import write_whole
from drift_pipeline.observability.panels import BOARDS, Board, Panel

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "drift"
_VERDICTS = {
    code: models.ValueMappingResult(text, color)
    for code, text, color in (
        ("-1", "INCONCLUSIVE", "text"),
        ("0", "OK", "green"),
        ("1", "WARN", "yellow"),
        ("2", "BREACH", "red"),
    )
}
_KINDS = {"lines": timeseries.Panel, "number": stat.Panel, "states": statetimeline.Panel, "table": table.Panel}
_OF_INTERVALS = ("auto", "auto_count", "auto_min")  # which the SDK writes of each variable, and the types do not know
_PHASES = 'drift_rollout_info{model=~"$model"} unless drift_rollout_info{model=~"$model"} offset 1m'


def dashboards() -> dict[str, str]:
    """The JSON of each dashboard, by the name of its file."""
    return {f"{board.uid}.json": _encoded(board) for board in BOARDS}


def write(folder: Path) -> None:
    """The files of `dashboards`, in a folder; raises OSError where they cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in dashboards().items():
        write_whole(folder / name, text)


def _encoded(board: Board) -> str:
    made: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(_dashboard(board)))
    for variable in made["templating"]["list"]:
        for key in _OF_INTERVALS:
            variable.pop(key, None)
    for annotation in made.get("annotations", {}).get("list", []):
        annotation |= {"titleFormat": "{{phase}}", "textFormat": "{{candidate}}", "step": "60s"}
    return json.dumps(made, indent=1, sort_keys=True) + "\n"


def _dashboard(board: Board) -> models.Dashboard:
    made = (
        build.Dashboard(board.title)
        .uid(board.uid)
        .description(board.told)
        .tags([TAG])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .link(build.DashboardLink("Drift").type(models.DashboardLinkType.DASHBOARDS).tags([TAG]).keep_time(True))
        .with_variable(build.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for name, values, several in board.variables:
        made.with_variable(_variable(name, values, several))
    if board.phases:
        phases = build.AnnotationQuery().name("Rollout").datasource(SOURCE).enable(True).icon_color("purple")
        made.annotation(phases.expr(_PHASES))
    for number, panel in enumerate(board.panels, 1):
        made.with_panel(_panel(number, panel))
    return made.build()


def _variable(name: str, values: str, several: bool) -> build.QueryVariable:
    made = (
        build.QueryVariable(name).datasource(SOURCE).query(values).refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    )
    if several:
        made.multi(True).include_all(True).all_value(".+").current(models.VariableOption(text="All", value="$__all"))
    return made


def _panel(number: int, panel: Panel) -> Any:
    """The SDK's builders share their methods, and no type."""
    kind: Any = _KINDS[panel.kind]
    made = kind().id(number).title(panel.title).datasource(SOURCE).unit(panel.unit).span(panel.width)
    made = made.height(4 if panel.kind == "number" else 8)
    if panel.told:
        made = made.description(panel.told)
    if panel.repeat:
        made = made.repeat(panel.repeat).repeat_direction("h").max_per_row(2)
    if panel.verdicts:
        made = made.mappings([models.ValueMap(_VERDICTS)])
    if panel.quiet:
        made = made.no_value("none")
    if panel.kind == "lines":
        made = made.show_points(VisibilityMode.NEVER).legend(_legend())
    for place, (expr, legend) in enumerate(panel.queries):
        query = prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(chr(ord("A") + place)).datasource(SOURCE)
        query = query.format(PromQueryFormat.TABLE) if panel.kind == "table" else query
        made = made.with_target(query.instant() if panel.kind in ("number", "table") else query.range())
    return made


def _legend() -> vizes.VizLegendOptions:
    legend = vizes.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    return legend.show_legend(True)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
