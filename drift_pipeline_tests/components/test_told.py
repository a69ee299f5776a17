"""What a tick says, and the pictures of a report: short whatever there is to tell."""

from datetime import UTC, datetime
from typing import Any

import pytest

from drift_pipeline.clock import DAY
from drift_pipeline.components.pictures import MOST_DRAWN, drawn, svg
from drift_pipeline.components.told import told_ticks
from drift_pipeline.detection.counting.shape import Shape
from drift_pipeline.detection.judging.verdict import FeatureFinding, Verdict
from drift_pipeline.loop import Ticked

NOW = datetime(2026, 5, 1, 20, 0, tzinfo=UTC)


def seen(verdict: str = "OK", judged: int = 5, **waiting: Any) -> dict[str, Any]:
    not_judged = {name: dict(zip(("reason", "judged_at"), one, strict=True)) for name, one in waiting.items()}
    return {"verdict": verdict, "judged": judged, "configured": 5, "not_judged": not_judged}


def ticked(model: str = "fraud", **more: Any) -> Ticked:
    return Ticked(model, Verdict.OK, **more)


@pytest.mark.parametrize(
    ("one", "found", "told"),
    [
        (ticked(), seen(), "fraud: OK (5 of 5 judged)"),
        (
            ticked(),
            seen("OK", 4, auroc=("labels", "2026-05-01T23:41:00+00:00")),
            "fraud: OK (4 of 5 judged), auroc waits until 23:41 UTC",
        ),
        (
            ticked(),
            seen("OK", 4, auroc=("labels", "2026-05-02T01:00:00+02:00")),
            "fraud: OK (4 of 5 judged), auroc waits until 23:00 UTC",
        ),
        (
            ticked(),
            seen("OK", 4, auroc=("labels", "2026-05-03T01:00:00+00:00")),
            "fraud: OK (4 of 5 judged), auroc waits until 2026-05-03 01:00 UTC",
        ),
        (
            ticked(),
            seen(
                "INCONCLUSIVE", 2, psi=("no rows", None), auroc=("labels", "2026-05-01T23:41:00+00:00"), mae=("x", None)
            ),
            "fraud: INCONCLUSIVE (2 of 5 judged), auroc waits until 23:41 UTC, mae waits (x), 1 more wait",
        ),
        (
            ticked(incident="20260501T1900", decisions=("fraud-1 retrain",), moved="canary"),
            seen("BREACH"),
            "fraud: BREACH (5 of 5 judged), an incident is open, decided fraud-1 retrain, its rollout is in canary",
        ),
    ],
)
def test_a_tick_says_its_verdict_and_what_that_waits_for(one: Ticked, found: dict[str, Any], told: str) -> None:
    assert told_ticks([(one, found)], NOW) == told


def test_of_a_hundred_models_the_worst_are_told_and_the_others_counted() -> None:
    long = dict.fromkeys(("psi", "auroc", "range_z"), ("because " * 100, None))
    some = [(ticked(f"m{number:03d}"), seen("OK", 2, **long)) for number in range(98)]
    told = told_ticks([*some, (ticked("worse"), seen("BREACH")), (ticked("bad"), seen("WARN"))], NOW)
    assert told.startswith("worse: BREACH (5 of 5 judged); bad: WARN (5 of 5 judged); m000: OK (2 of 5 judged), ")
    assert told.endswith("; and 90 more: 90 OK")
    assert len(told) < 3000


def finding(name: str, *, drift: bool = True) -> FeatureFinding:
    return FeatureFinding(name, DAY, 400, 400.0, 0.5, 0.4, 0.1, 0.2, 0.3, 0.0, 0.3, 0.2, 0, drift, "up", "")


NUMBERS = Shape((0.0, 1.0, 2.0), (), (0.5, 0.5), (0.1, 0.9))
LEVELS = Shape((), ("</svg><script>", "b" * 300, "c"), (0.5, 0.5, 0.0), (0.2, 0.3, 0.5))


def test_columns_beyond_the_first_few_are_named_and_not_drawn() -> None:
    told = drawn([(finding(f"x{number}"), NUMBERS) for number in range(8)])
    assert told.count("data:image/svg") == MOST_DRAWN
    assert told.endswith("Not drawn: x4, x5, x6, x7")


def test_a_picture_is_xml_whatever_the_levels_are_and_bounded() -> None:
    from xml.etree import ElementTree

    many = Shape((), tuple(f"level {number}" for number in range(5000)), (0.0002,) * 5000, (0.0002,) * 5000)
    for shape in (NUMBERS, LEVELS, many):
        drawing = svg("a <name> & more", shape)
        ElementTree.fromstring(drawing)  # our own
        assert len(drawing) < 12_000


def test_names_are_no_markdown_and_a_column_without_a_value_has_no_picture() -> None:
    told = drawn([(finding("a_b](http://x)"), Shape((), (), (), ()))])
    assert told.startswith(r"**a\_b\]\(http://x\)**: up; PSI 0.5; 400 rows over 1d")
    assert "data:image" not in told
    assert drawn([]) == "no column has a value to draw"
