"""The charts of a replay's pages: what happened when, performance by month, and one column beside its reference."""

from drift_pipeline.replays.charts.columns import column
from drift_pipeline.replays.charts.lanes import incident_lanes
from drift_pipeline.replays.charts.months import Line, by_month
from drift_pipeline.replays.charts.timeline import PHASES, Mark, Panel, Timeline, timeline

__all__ = ["PHASES", "Line", "Mark", "Panel", "Timeline", "by_month", "column", "incident_lanes", "timeline"]
