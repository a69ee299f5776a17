"""Small labelled histories with a known truth."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

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


GRAPH: dict[str, dict[str, Any]] = {
    "ranking": {"inputs": ["retrieval", "age", "device"], "trainer": "gradient_boosting"},
    "retrieval": {"inputs": ["amount", "age"], "trainer": "logistic_regression"},
}
FILTERED: dict[str, dict[str, Any]] = {
    "prefilter": {"inputs": ["amount", "device"], "trainer": "logistic_regression", "threshold": 0.2},
    "model": {"inputs": ["amount", "age", "device", "prefilter"], "trainer": "gradient_boosting"},
    "calibration": {"inputs": ["model"], "trainer": "isotonic"},
}


def graph_spec(graph: Mapping[str, Any] | None = None, **retrain: object) -> ModelSpec:
    """`spec` with a graph: a candidate retrieval and a ranking, unless another one is given."""
    document = spec().model_dump(mode="json")
    document["retrain"].pop("trainer")
    more = {"graph": graph or GRAPH, "retrain": {**document["retrain"], **retrain}}
    return ModelSpec.model_validate({**document, **more})
