"""The label of a prediction: what everybody reads who joins outcomes to predictions.

Of several outcomes the one that was told last counts, by the time that its producer told; so a correction wins,
whenever it and what it corrects came. Where two producers used one id, an outcome is of its teller's own prediction;
whoever has none of that id tells of all of them.
"""

import polars as pl

_LAST = ("_told_at", "_observed_at", "_label")  # which tells last; the others decide between equal times


def owned(rows: pl.DataFrame) -> pl.DataFrame:
    """With `_producer`, which rows that were adopted lack: "" there."""
    if "_producer" in rows.columns:
        return rows.with_columns(pl.col("_producer").fill_null(""))
    return rows.with_columns(pl.lit("").alias("_producer"))


def labelled(rows: pl.DataFrame, outcomes: pl.DataFrame) -> pl.DataFrame:
    """The rows (`_id` and, if known, `_producer`) whose outcome is known, with `_label`; in their order.

    Args:
        outcomes: rows of the lake's `outcomes`, any number a prediction; may be empty, without columns.
    """
    if rows.is_empty() or outcomes.is_empty():
        return rows.clear().with_columns(_label=pl.Series(dtype=pl.Float64))
    told = _told(outcomes)
    known = owned(rows).select("_id", "_producer").with_row_index("_row").join(told, on="_id", how="semi")
    pairs = _pairs(known, told).sort(_LAST).unique("_row", keep="last").sort("_row")
    return rows[pairs["_row"]].with_columns(pairs["_label"])


def _told(outcomes: pl.DataFrame) -> pl.DataFrame:
    """Who told what of which id, and when; by the time of landing where no time was told."""
    told_at = pl.col("_observed_at")
    if "_told_at" in outcomes.columns:
        told_at = pl.col("_told_at").fill_null(told_at)
    return owned(outcomes).select("_id", "_producer", "_observed_at", "_label", told_at.alias("_told_at"))


def _pairs(known: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
    """Each row beside each outcome that is of it."""
    if known["_id"].is_unique().all():
        return known.join(told, on="_id")
    both = ["_id", "_producer"]
    own, others = (told.join(known, on=both, how=how) for how in ("semi", "anti"))
    found = (known.join(own, on=both), known.join(others.drop("_producer"), on="_id"))
    return pl.concat([pairs.select("_row", *_LAST) for pairs in found])
