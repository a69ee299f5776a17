"""The search is deterministic, looks forward, and forgets only a concept that was turned round."""

import logging
import subprocess
import sys

import polars as pl
import pytest

from drift_pipeline.errors import InputError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.search import search, start_row, train
from drift_pipeline.training.trainers import score
from drift_pipeline_tests.training.worlds import history, spec

QUICK = {"max_iter": 50, "max_leaf_nodes": 3, "learning_rate": 0.1}


@pytest.mark.parametrize("trainer", ["gradient_boosting", "logistic_regression"])
def test_a_seed_gives_one_model_to_the_last_bit(trainer: str) -> None:
    rows, model = history(1500), spec(trainer=trainer, trials=10)
    first, second, other = (train(rows, model, seed) for seed in (1, 1, 2))
    scores = [score(found.pipeline, rows, model.features) for found in (first, second, other)]
    assert first.params == second.params
    assert first.validation == second.validation
    assert (scores[0] == scores[1]).all()
    assert first.params != other.params


def test_what_was_found_is_told() -> None:
    calls: list[tuple[int, int]] = []
    rows = history(1200)
    found = train(rows, spec(trials=3), seed=0, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert (len(found.trials), found.rows, found.start) == (3, 1200, rows["_time"][0])
    assert 0.7 < found.validation < 0.9
    assert set(found.params) == {"max_leaf_nodes", "learning_rate", "max_iter", "min_samples_leaf", "l2_regularization"}


def validation(rows: pl.DataFrame, of: ModelSpec, seed: int) -> float:
    found = search(rows, of, seed)
    assert found is not None
    return found.validation


def test_the_best_of_the_trials_is_kept() -> None:
    rows = history(1500)
    values = [validation(rows, spec(trials=trials), seed=3) for trials in (1, 4, 12)]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_validation_looks_forward_not_back() -> None:
    """Shuffled folds would see both concepts on either side and call this learnable."""
    assert validation(history(2000, flipped_from=1100), spec(), seed=0) < 0.6


@pytest.mark.parametrize("seed", range(3))
def test_a_stationary_world_keeps_the_whole_window(seed: int) -> None:
    assert start_row(history(12_000, seed=seed), QUICK, spec(), seed=0) == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_flip_is_not_trained_across(seed: int) -> None:
    """The newest 3,000 of 16,000 rows obey the opposite rule."""
    rows = history(16_000, seed=seed, flipped_from=13_000)
    start = start_row(rows, QUICK, spec(), seed=0)
    assert 11_000 < start < 15_000
    found, new = train(rows, spec(trials=1), seed=0), history(2000, seed=9, flipped_from=0)
    assert (found.rows, found.start) == (16_000 - start, rows["_time"][start])
    assert _auroc(new, score(found.pipeline, new, spec().features)) > 0.75


def test_a_short_or_one_sided_history_is_never_cut() -> None:
    assert start_row(history(3000, flipped_from=2000), QUICK, spec(), seed=0) == 0
    assert start_row(history(16_000, flipped_from=13_000).with_columns(_label=pl.lit(1)), QUICK, spec(), seed=0) == 0
    late = pl.when(pl.col("_id").cast(pl.Int64) < 15_500).then(0).otherwise("_label").cast(pl.Int8)
    assert start_row(history(16_000).with_columns(_label=late), QUICK, spec(), seed=0) == 0


def test_a_history_with_one_class_is_refused_and_a_fold_with_one_is_left_out() -> None:
    with pytest.raises(InputError, match="no fold with both classes"):
        search(history(1000).with_columns(_label=pl.lit(0, dtype=pl.Int8)), spec(), seed=0)
    late = pl.when(pl.col("_id").cast(pl.Int64) < 800).then(0).otherwise("_label").cast(pl.Int8)
    assert validation(history(1000).with_columns(_label=late), spec(), seed=0) > 0.5


def test_optuna_stays_quiet_and_keeps_its_level(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.INFO)
    optuna.logging.enable_propagation()
    with caplog.at_level(logging.INFO):
        search(history(600), spec(), seed=0)
    optuna.logging.disable_propagation()
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    assert (caplog.text, *capfd.readouterr()) == ("", "", "")


def test_importing_the_rooms_loads_nothing_heavy() -> None:
    script = """
import sys
import drift_pipeline.training.dataset, drift_pipeline.training.gates, drift_pipeline.training.search
import drift_pipeline.registry.backends.local
print(sorted({"sklearn", "optuna", "pandas", "skops", "scipy"} & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def _auroc(frame: pl.DataFrame, scores: object) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(frame["_label"].to_numpy(), scores))
