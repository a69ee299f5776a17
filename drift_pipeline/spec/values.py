"""Values of a spec: durations with a unit, zones, texts, and the closed lists of tasks, column types and forms."""

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from drift_pipeline.clock import format_duration, parse_duration


def _duration(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError(f"{value!r} has no unit: write a number and a unit of s, m, h, d, w, such as 6h")
    return parse_duration(value) if isinstance(value, str) else value


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _zone(name: str) -> str:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"there is no time zone {name!r}; write one such as Europe/Berlin or UTC") from error
    return name


def _approvals(value: object) -> object:
    """A number of approvers, or how many people of each role."""
    roles = value if isinstance(value, dict) else {APPROVER: value}
    well = all(isinstance(role, str) and re.fullmatch(ROLE, role) for role in roles) and 0 < len(roles) <= MOST_ROLES
    if not well or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in roles.values()):
        raise ValueError(
            f"{value!r} is no number of people from 1 on, such as 2, and not how many of each role, "
            "such as {approver: 1, risk: 1}"
        )
    return value


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    Field(ge=timedelta()),
]
Approvals = Annotated[int | dict[str, int], BeforeValidator(_approvals)]
Text = Annotated[str, BeforeValidator(_as_text)]
TimeZone = Annotated[str, AfterValidator(_zone)]
ColumnType = Literal["numeric", "categorical"]
Form = Literal["text", "integer", "decimal", "boolean"]
Task = Literal["binary_classification", "regression"]
TRAINERS: dict[Task, tuple[str, ...]] = {
    "binary_classification": ("gradient_boosting", "logistic_regression"),
    "regression": ("gradient_boosting", "ridge"),
}
STEP_TRAINERS = ("isotonic",)  # of a step of a graph alone
OWN_TRAINER = re.compile(r"\./[A-Za-z0-9_][A-Za-z0-9_-]{0,63}\.py")  # beside the spec
ROLE = r"^[a-z][a-z0-9_-]{0,31}$"  # in which somebody approves
APPROVER = "approver"
MOST_ROLES = 6
