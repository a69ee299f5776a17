"""Small labelled histories with a known truth."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from drift_pipeline.spec import ModelSpec

START = datetime(2026, 1, 1, tzinfo=UTC)


def spec(**retrain: object) -> ModelSpec:
    document = {
        "name": "fraud",
        "owner": "ml@example.com",
        "task": "binary_classification",
        "features": {"amount": "numeric", "age": "numeric", "device": "categorical"},
        "outcome": {"column": "label", "delay": "6h"},
        "protected": {"region": "categorical"},
        "retrain": {"trials": 2, **retrain},
    }
    return ModelSpec.model_validate(document)


def history(rows: int, *, seed: int = 0, flipped_from: int | None = None) -> pl.DataFrame:
    """A row a minute: `amount` and the device `tv` raise the odds; from `flipped_from` on `amount` lowers them."""
    random = np.random.default_rng(seed)
    amount, age = random.normal(size=(2, rows))
    device = random.choice(["phone", "tv", "web"], size=rows)
    turn = np.where(np.arange(rows) < (rows if flipped_from is None else flipped_from), 1.0, -1.0)
    odds = 1.5 * turn * amount + (device == "tv")
    return pl.DataFrame(
        {
            "amount": amount,
            "age": age,
            "device": device,
            "region": random.choice(["north", "south"], size=rows),
            "_label": (random.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int8),
            "_time": pl.Series(
                [START + timedelta(minutes=minute) for minute in range(rows)], dtype=pl.Datetime("us", "UTC")
            ),
            "_id": [str(row) for row in range(rows)],
        }
    )
