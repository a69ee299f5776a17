"""Several processes search one study: each trial is done once, what died is done again, the last one knows the best."""

from pathlib import Path

from drift_pipeline.training.search import WORKER, search
from drift_pipeline.training.studies import shared_study
from drift_pipeline_tests.training.worlds import history, spec

ROWS, MODEL = history(1200), spec(trials=4, trainer="logistic_regression")


def test_workers_share_the_trials_and_one_that_died_is_made_good(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    with shared_study(url, "fraud fraud-7", 0, 0, maximize=True) as first:
        first.study.ask().set_user_attr(WORKER, 0)  # and its process dies
    with shared_study(url, "fraud fraud-7", 0, 1, maximize=True) as second:
        assert search(ROWS, MODEL, 0, shared=second) is None, "worker 0 is still at one, for all that anybody knows"
        assert len(second.study.trials) == 4
    with shared_study(url, "fraud fraud-7", 0, 0, maximize=True) as again:
        found = search(ROWS, MODEL, 0, shared=again)
        assert [one.user_attrs[WORKER] for one in again.study.trials] == [0, 1, 1, 1, 0]
    assert found is not None
    assert (len(found.trials), found.validation) == (4, max(trial.validation or 0 for trial in found.trials))


def test_another_decision_has_a_study_of_its_own(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    for name in ("fraud fraud-7", "fraud fraud-8"):
        with shared_study(url, name, 0, 0, maximize=True) as shared:
            assert shared.study.trials == []
            shared.study.ask()
