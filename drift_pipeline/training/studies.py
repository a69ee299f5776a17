"""Studies: the trials of each training, kept in Optuna's own tables for its dashboard. Nothing reads them here."""

import logging
import warnings
from typing import TYPE_CHECKING

from drift_pipeline.control.postgres import make_database, shown

if TYPE_CHECKING:
    from optuna import Study

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
