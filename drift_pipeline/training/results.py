"""What a gate says: PASS, FAIL, or UNKNOWN where the question could not be answered, which blocks like FAIL."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class GateResult:
    """What was measured (`value`), its cautious bound where the gate has one, and the `limit` it was held against.

    `facts` is JSON that is recorded with it, such as the version of the tool that was asked.
    """

    name: str
    outcome: Outcome
    value: float | None
    bound: float | None
    limit: float | None
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gates:
    """`not_asked` tells of gates that there are and that were not asked, and why."""

    results: tuple[GateResult, ...]
    not_asked: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Every gate passed, and there was one: no result is no proof."""
        return bool(self.results) and all(result.outcome is Outcome.PASS for result in self.results)

    def to_json(self) -> dict[str, object]:
        results = [{**asdict(result), "outcome": result.outcome.value} for result in self.results]
        told = [{name: value for name, value in result.items() if name != "facts" or value} for result in results]
        return {"passed": self.passed, "results": told, **({"not_asked": self.not_asked} if self.not_asked else {})}


def judged(name: str, passed: bool, value: float, bound: float | None, limit: float | None, reason: str) -> GateResult:
    """PASS or FAIL."""
    return GateResult(name, Outcome.PASS if passed else Outcome.FAIL, value, bound, limit, reason)


def unknown(name: str, reason: str, limit: float | None = None, facts: Mapping[str, Any] | None = None) -> GateResult:
    """What could not be answered, and why."""
    return GateResult(name, Outcome.UNKNOWN, None, None, limit, reason, facts or {})
