"""The charts of a model's pages: what happened when, performance by month, a rollout's two sides, and one column beside
its reference."""

from drift_pipeline.replays.charts.columns import column
from drift_pipeline.replays.charts.lanes import NARROW, WIDE, Room, incident_lanes
from drift_pipeline.replays.charts.months import Line, by_month
from drift_pipeline.replays.charts.sides import sides
from drift_pipeline.replays.charts.spark import spark
from drift_pipeline.replays.charts.timeline import PHASES, Mark, Panel, Timeline, timeline

__all__ = [
    "NARROW",
    "PHASES",
    "WIDE",
    "Line",
    "Mark",
    "Panel",
    "Room",
    "Timeline",
    "by_month",
    "column",
    "incident_lanes",
    "sides",
    "spark",
    "timeline",
]
