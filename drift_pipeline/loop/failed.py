"""A step of a model that did not come to its end."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Failed:
    """`again` where the next tick may simply do it again."""

    model: str
    reason: str
    again: bool
