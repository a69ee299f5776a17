"""Boosted trees of scikit-learn, walked row by row as machine code: what `_raw_predict` adds up, in the same order.

scikit-learn prepares each call for many rows; for one row that takes 500 times as long as the walk itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_Bits = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Trees:
    """All nodes of all trees after each other, in scikit-learn's own record; `roots` says where each tree begins.

    `left_levels` (a node's `bitset_idx`, 8) and `known_levels` (8 words a column, which `known_row` names) are sets of
    levels, a bit each.
    """

    nodes: npt.NDArray[np.void]
    roots: npt.NDArray[np.int64]
    left_levels: _Bits
    known_levels: _Bits
    known_row: npt.NDArray[np.int64]
    baseline: float
    link: Callable[[Floats], Floats]

    @classmethod
    def of(cls, model: Any) -> "Trees":
        """Raises AttributeError, TypeError or ValueError for a model that is no boosting of one tree an iteration."""
        predictors = [predictor for (predictor,) in model._predictors]
        lengths = [len(predictor.nodes) for predictor in predictors]
        levels = [len(predictor.raw_left_cat_bitsets) for predictor in predictors]
        first_node, first_set = np.cumsum([0, *lengths])[:-1], np.cumsum([0, *levels])[:-1]
        nodes = np.concatenate([predictor.nodes for predictor in predictors])
        for side in ("left", "right"):
            nodes[side] += np.repeat(first_node, lengths).astype(nodes.dtype[side])
        nodes["bitset_idx"] += np.repeat(first_set, lengths).astype(nodes.dtype["bitset_idx"])
        known_levels, known_row = model._bin_mapper.make_known_categories_bitsets()
        return cls(
            nodes,
            first_node.astype(np.int64),
            np.concatenate([predictor.raw_left_cat_bitsets for predictor in predictors]).astype(np.uint32),
            np.asarray(known_levels, np.uint32).reshape(-1, 8),
            np.asarray(known_row, np.int64),
            float(model._baseline_prediction.item()),
            model._loss.link.inverse,
        )

    def predict(self, rows: Floats) -> Floats:
        """Of prepared rows (rows, columns): the probability of class 1, or a regression's value (rows,)."""
        raw = np.full(len(rows), self.baseline)
        _compiled()(rows, self.nodes, self.roots, self.left_levels, self.known_levels, self.known_row, raw)
        return np.asarray(self.link(raw), dtype=np.float64)


@cache
def _compiled() -> Callable[..., None]:
    """The loop as machine code, kept on disk where there is a folder that can be written."""
    import numba

    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(_walk)
    except RuntimeError:  # no such folder: compiled anew in each process
        return numba.njit(nogil=True, error_model="numpy")(_walk)


def _walk(
    rows: Floats,
    nodes: npt.NDArray[np.void],
    roots: npt.NDArray[np.int64],
    left_levels: _Bits,
    known_levels: _Bits,
    known_row: npt.NDArray[np.int64],
    raw: Floats,
) -> None:
    """The loop that numba compiles; a missing value, and a level that training has not seen, go where the node says."""
    for row in range(len(rows)):
        total = raw[row]
        for root in roots:
            at = root
            while not nodes[at]["is_leaf"]:
                node = nodes[at]
                value = rows[row, node["feature_idx"]]
                left = node["missing_go_to_left"] != 0
                if not np.isnan(value):
                    if not node["is_categorical"]:
                        left = value <= node["num_threshold"]
                    elif value >= 0:
                        level = np.int64(value) & 255
                        word, bit = level >> 5, np.uint32(level & 31)
                        if (left_levels[node["bitset_idx"], word] >> bit) & 1:
                            left = True
                        elif (known_levels[known_row[node["feature_idx"]], word] >> bit) & 1:
                            left = False
                at = np.int64(node["left"]) if left else np.int64(node["right"])
            total += nodes[at]["value"]
        raw[row] = total
