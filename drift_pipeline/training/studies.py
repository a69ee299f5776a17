"""Studies: the trials of each training in Optuna's own tables, for its dashboard, and for several processes that
search at once."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from drift_pipeline.control.postgres import make_database, shown
from drift_pipeline.errors import UnavailableError
from drift_pipeline.training.search import WORKER, Shared, make_study

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage

TRIES = 3  # processes that begin at once may all make Optuna's tables

log = logging.getLogger(__name__)


def keep_study(study: "Study", url: str, name: str) -> None:
    """Copy a finished study to a database, which is made where it is absent.

    It was searched in memory: what a training comes to does not depend on a server, and a server that is down, or has a
    study of the name, costs it no more than this copy, which the log tells.
    """
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        make_database(url)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Optuna, about its own storages
            storage = optuna.storages.RDBStorage(url)
            try:
                optuna.copy_study(
                    from_study_name=study.study_name,
                    from_storage=study._storage,
                    to_storage=storage,
                    to_study_name=name,
                )
            finally:
                storage.engine.dispose()
    except Exception as error:  # whatever the server or its driver says
        log.warning("the study %s is not kept in %s: %s", name, shown(url), str(error).splitlines()[0])
    finally:
        optuna.logging.set_verbosity(level)


@contextmanager
def shared_study(url: str, name: str, seed: int, worker: int, *, maximize: bool) -> Iterator[Shared]:
    """The study of that name, which is made where there is none, while several processes work on it.

    What the worker of this number had under way belonged to a process that died: it is let go, and tried anew.

    Raises:
        UnavailableError: the server does not answer.
    """
    from optuna.trial import TrialState

    storage, study = _opened(url, name, seed + worker, maximize=maximize)
    try:
        for lost in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if lost.user_attrs.get(WORKER) == worker:
                study.tell(lost.number, state=TrialState.PRUNED)
        yield Shared(study, worker)
    finally:
        storage.engine.dispose()


def _opened(url: str, name: str, seed: int, *, maximize: bool) -> "tuple[RDBStorage, Study]":
    from optuna.storages import RDBStorage

    if not url.startswith("sqlite"):
        make_database(url)
    for tries_left in reversed(range(TRIES)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Optuna, about its own storages
                storage = RDBStorage(url)
                return storage, make_study(seed, maximize=maximize, storage=storage, name=name)
        except Exception as error:  # whatever the server or its driver says
            if not tries_left:
                why = str(error).splitlines()[0]
                raise UnavailableError(f"the study {name} in {shown(url)} cannot be opened: {why}") from error
    raise AssertionError("the last try returns or raises")
