"""The roll-up of a model: never OK without saying of how much, and INCONCLUSIVE where what gates retraining is due."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from drift_pipeline.clock import DAY
from drift_pipeline.detection.judging.verdict import (
    KpiResult,
    Report,
    Verdict,
    roll_up,
    told_reason,
    told_verdict,
    told_waiting,
)

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
LETTERS = {
    "B": Verdict.BREACH,
    "W": Verdict.WARN,
    "o": Verdict.OK,
    "?": Verdict.INCONCLUSIVE,
    "!": Verdict.INCONCLUSIVE,
    "-": Verdict.NOT_CONFIGURED,
}
MATRIX = ("psi", "range_z", "auroc", "latency_p95_ms", "demographic_parity")


def kpi(name: str, letter: str) -> KpiResult:
    """B breach, W warn, o ok, ? not judged yet, ! not judged and overdue, - not configured."""
    told = KpiResult(name, LETTERS[letter], None, None, None, DAY, 0, f"{name} says {letter}")
    return replace(told, overdue=letter == "!")


def kpis(letters: str, names: tuple[str, ...] = MATRIX) -> list[KpiResult]:
    return [kpi(name, letter) for name, letter in zip(names, letters, strict=False)]


@pytest.mark.parametrize(
    ("letters", "told"),
    [
        ("ooooo", "OK (5 of 5 judged)"),
        ("oo?oo", "OK (4 of 5 judged)"),
        ("?o?o?", "OK (2 of 5 judged)"),
        ("oo!oo", "INCONCLUSIVE (4 of 5 judged)"),
        ("!oooo", "INCONCLUSIVE (4 of 5 judged)"),
        ("oooo!", "INCONCLUSIVE (4 of 5 judged)"),
        ("o!ooo", "OK (4 of 5 judged)"),
        ("ooo!o", "OK (4 of 5 judged)"),
        ("?????", "INCONCLUSIVE (0 of 5 judged)"),
        ("W????", "WARN (1 of 5 judged)"),
        ("!B???", "BREACH (1 of 5 judged)"),
        ("WB!oo", "BREACH (4 of 5 judged)"),
        ("oo-o-", "OK (3 of 3 judged)"),
        ("o?-?-", "OK (1 of 3 judged)"),
        ("?----", "INCONCLUSIVE (0 of 1 judged)"),
        ("-----", "NOT_CONFIGURED"),
    ],
    ids=[
        "all judged",
        "one waits",
        "three wait",
        "labels overdue",
        "drift overdue",
        "parity overdue",
        "the range is no reason to retrain",
        "nor is latency",
        "nothing judged",
        "a warning outweighs what waits",
        "and so does a breach, also of what is overdue",
        "the worst counts",
        "what is switched off is not counted",
        "nor where others wait",
        "the only one waits",
        "nothing is asked for",
    ],
)
def test_a_roll_up_says_of_how_much_it_is(letters: str, told: str) -> None:
    found = roll_up(kpis(letters))
    assert found.told() == told
    report = Report(NOW, {one.name: one for one in kpis(letters)}, (), False)
    assert (report.rolled_up, report.verdict) == (found, found.verdict)


@pytest.mark.parametrize(
    ("letters", "hint", "told"),
    [
        ("ooooo", "?", "OK (5 of 5 judged)"),
        ("ooooo", "W", "WARN (5 of 5 judged)"),
        ("-----", "?", "INCONCLUSIVE"),
        ("-----", "W", "WARN"),
    ],
    ids=["a silent hint is not counted", "a hint may warn", "of hints alone nothing is known", "but a warning is"],
)
def test_a_hint_warns_and_never_counts(letters: str, hint: str, told: str) -> None:
    for name in ("estimated_auroc", "multivariate"):
        assert roll_up([*kpis(letters), kpi(name, hint)]).told() == told


def test_a_regression_waits_for_its_mae() -> None:
    names = ("psi", "range_z", "auroc", "latency_p95_ms", "demographic_parity", "mae", "residuals")
    assert roll_up(kpis("oo-o-??", names)).told() == "OK (3 of 5 judged)"
    assert roll_up(kpis("oo-o-!!", names)).told() == "INCONCLUSIVE (3 of 5 judged)"
    assert roll_up(kpis("oo-o-o!", names)).told() == "OK (4 of 5 judged)"


def test_the_json_has_a_plain_word_and_why_each_other_is_not_judged() -> None:
    waits = replace(kpi("auroc", "?"), judged_at=NOW + timedelta(hours=11, minutes=41))
    found = roll_up([kpi("psi", "o"), waits, kpi("mae", "-"), kpi("range_z", "?")]).to_json()
    assert found == {
        "verdict": "OK",
        "judged": 1,
        "configured": 3,
        "not_judged": {
            "auroc": {"reason": "auroc says ?", "judged_at": "2026-01-05T23:41:00+00:00"},
            "range_z": {"reason": "range_z says ?", "judged_at": None},
        },
    }
    assert told_waiting(found["not_judged"]) == [
        "auroc: auroc says ?; can be judged from 2026-01-05 23:41 UTC on",
        "range_z: range_z says ?",
    ]


def test_a_reason_that_names_the_time_is_not_told_it_twice() -> None:
    reason = "5 labels wait: the first whole 1d window of labels ends 2026-01-05 12:00 UTC"
    assert told_reason(reason, NOW) == reason


def test_documents_that_are_older_than_the_counts_are_told_by_their_word() -> None:
    assert told_verdict({"verdict": "OK"}) == "OK"
    assert told_verdict({"verdict": ""}) == ""


@pytest.mark.parametrize(
    ("columns", "letters", "told"),
    [
        ("oooo", "oo-o-", "OK (4 of 4 columns, 3 of 3 KPIs judged)"),
        ("ooo?", "?o---", "OK (3 of 4 columns, 1 of 2 KPIs judged)"),
        ("????", "?o-o-", "INCONCLUSIVE (0 of 4 columns, 2 of 3 KPIs judged)"),
        ("?W??", "?o---", "WARN (1 of 4 columns, 1 of 2 KPIs judged)"),
        ("oooo", "oo!--", "OK (4 of 4 columns, 2 of 3 KPIs judged)"),
        ("oooo", "ooB--", "BREACH (4 of 4 columns, 3 of 3 KPIs judged)"),
        ("oooo", "-----", "OK (4 of 4 columns judged)"),
        ("", "-----", "INCONCLUSIVE (0 of 0 columns judged)"),
    ],
    ids=[
        "all",
        "one thin column does not silence the others",
        "no column at all",
        "a warning of one",
        "two tables have no time in which a label is due",
        "a KPI's breach",
        "no KPI is asked for",
        "nothing to compare",
    ],
)
def test_two_tables_are_rolled_up_over_columns_and_kpis(columns: str, letters: str, told: str) -> None:
    of = {f"c{number}": (LETTERS[letter], "why") for number, letter in enumerate(columns)}
    found = roll_up(kpis(letters), of)
    assert found.told() == told
    assert list(found.silent) == [name for name, (verdict, _) in of.items() if verdict is Verdict.INCONCLUSIVE]


@pytest.mark.parametrize(
    ("least", "verdict"),
    [(1, "OK"), (3, "OK"), (4, "INCONCLUSIVE"), (0.75, "OK"), (0.76, "INCONCLUSIVE"), (1.0, "INCONCLUSIVE")],
)
def test_fewer_columns_than_asked_for_are_no_ok(least: float, verdict: str) -> None:
    found = roll_up(kpis("oo---"), {f"c{n}": (LETTERS[letter], "") for n, letter in enumerate("ooo?")})
    assert found.asking(least).verdict == verdict
    worse = replace(found, verdict=Verdict.WARN)
    assert worse.asking(least).verdict is Verdict.WARN


def test_a_share_is_not_lost_by_a_floats_last_bit() -> None:
    found = roll_up([], {f"c{n}": (Verdict.OK if n < 29 else Verdict.INCONCLUSIVE, "") for n in range(100)})
    assert found.asking(0.29).verdict is Verdict.OK
