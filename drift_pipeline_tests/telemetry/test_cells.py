"""A value that is looked up has the level that it has by itself, whatever was asked before it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.spec import Form
from drift_pipeline.telemetry.cells import TYPES, Levels, cells_of
from drift_pipeline.telemetry.tables.levels import level
from drift_pipeline_tests.detection.worlds import spec_of

FORMS: tuple[Form, ...] = ("text", "integer", "decimal", "boolean")
NUMBERS = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e19, 10**19, 2**63, 2.0**63, 2**53 + 1, -0.0, 0, 1, 1.0, True, False]),
)
VALUES = st.one_of(NUMBERS, st.text(max_size=5), st.sampled_from(["1", "1.0", "true", "True", "x", "?", ""]))


@given(st.sampled_from(FORMS), st.lists(VALUES, max_size=20))
def test_a_value_that_is_looked_up_has_the_level_that_it_has_by_itself(form: Form, values: list[object]) -> None:
    taken = [value for value in values if type(value) in TYPES[form]]
    known = Levels(form, ["?"])
    for _ in range(2):
        assert known.of(taken) == [level(value, form, ["?"]) for value in taken]


@pytest.mark.parametrize("form", FORMS)
def test_what_does_not_fit_is_counted_and_what_fits_is_not(form: Form) -> None:
    known = Levels(form)
    levels = known.of(["x", "", "1", "x" * 1000])
    assert known.count_off_form(levels) == (0 if form == "text" else 2)


def test_callers_with_ever_new_levels_fill_no_memory() -> None:
    known = Levels("integer")
    for request in range(50):
        levels = known.of([f"x{request}-{row}" for row in range(1000)])
        assert known.count_off_form(levels) == 1000
        assert len(known) <= 12_000
    known.of(["y" * 100_000])
    assert max(map(len, known)) <= 200  # type: ignore[arg-type]


def test_a_spec_has_its_levels_once_and_another_one_its_own() -> None:
    spec = spec_of("x", categorical=("kind",), forms={"kind": "integer"})
    assert cells_of(spec) is cells_of(spec)
    assert [*cells_of(spec).levels] == ["kind"]
    other = spec.model_copy(update={"forms": {}})
    assert (cells_of(spec).levels["kind"].form, cells_of(other).levels["kind"].form) == ("integer", "text")
