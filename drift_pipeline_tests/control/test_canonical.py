"""Canonical JSON: whatever is written fast is what RFC 8785's own library writes."""

import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.control.canonical import canonical, read_canonical
from drift_pipeline.errors import InputError, IntegrityError

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


_SPELLINGS = st.fixed_dictionaries(
    {
        "ensure_ascii": st.booleans(),
        "sort_keys": st.booleans(),
        "separators": st.sampled_from([(",", ":"), (", ", ":")]),
    }
)


def spelled_so(text: str) -> bool:
    """Whether the text is how RFC 8785's library spells the value that it holds."""
    try:
        return rfc8785.dumps(json.loads(text, parse_int=float)).decode() == text
    except (ValueError, OverflowError):
        return False


@given(_VALUES, _SPELLINGS)
def test_a_text_is_read_only_where_rfc8785_spells_it_so(value: object, spelling: dict[str, object]) -> None:
    agree(json.dumps(value, **spelling))  # type: ignore[arg-type]


NUMBERS = """
0 -0 -0.0 1.0 1.5 1.50 1e2 1E2 1e21 1e+21 1e-7 1e-07 0.0001 0.00001 1e15 123456789012345.6 999999999999999.9
1000000000000000.5 9007199254740991 9007199254740992 9007199254740993 100000000000000000 1e400 NaN Infinity -Infinity
4.9e-324 5e-324
"""


@pytest.mark.parametrize("number", NUMBERS.split())
def test_a_number_is_read_only_where_rfc8785_spells_it_so(number: str) -> None:
    agree(f'{{"a":{number}}}')


def agree(text: str) -> None:
    try:
        read_canonical(text)
    except IntegrityError:
        assert not spelled_so(text)
    else:
        assert spelled_so(text)


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(IntegrityError, match="spelled otherwise"):
        read_canonical('{"a":1,"a":1}')
