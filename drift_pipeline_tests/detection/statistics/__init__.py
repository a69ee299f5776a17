"""What the tests of statistics share: strategies of counts."""

from hypothesis import strategies as st

Pair = tuple[list[int], list[int]]


def pairs_of_counts(bins: int = 12, largest: int = 500) -> st.SearchStrategy[Pair]:
    """Two sides' counts over the same 1 to `bins` bins, empty bins among them, rows on both sides."""
    sides = st.integers(1, bins).flatmap(
        lambda size: st.tuples(*[st.lists(st.integers(0, largest), min_size=size, max_size=size)] * 2)
    )
    return sides.filter(lambda pair: any(pair[0]) and any(pair[1]))
