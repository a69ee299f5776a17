"""Canonical JSON: whatever is written fast is what RFC 8785's own library writes."""

import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.control.canonical import canonical, read_canonical
from drift_pipeline.errors import InputError

_NUMBERS = st.integers() | st.integers(-(2**53) - 2, 2**53 + 2) | st.floats() | st.floats(1e-8, 1e22)
_TEXTS = st.text() | st.text(st.characters(categories=("Cs", "Cc", "Co", "Zl", "Zp", "So")))
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda part: st.lists(part) | st.dictionaries(_TEXTS, part),
    max_leaves=20,
)


@given(_VALUES)
def test_a_value_is_spelled_and_refused_as_by_rfc8785(value: object) -> None:
    try:
        expected = rfc8785.dumps(value)  # type: ignore[arg-type]
    except ValueError:
        expected = None
    try:
        found = canonical(value)
    except InputError:
        found = None
    assert found == expected
    if found is not None:
        assert canonical(read_canonical(found)) == found


def test_a_value_of_many_levels_is_spelled_like_a_flat_one() -> None:
    value: object = 1
    for _ in range(200):
        value = {"a": [value]}
    assert canonical(value) == rfc8785.dumps(value)  # type: ignore[arg-type]
