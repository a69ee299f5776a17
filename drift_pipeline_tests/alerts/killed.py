"""A process that delivers, and is killed between the sending of an alert and its mark: `killed.py HOME`."""

import os
import signal
import sys
import time
from pathlib import Path

from drift_pipeline.alerts.delivery import Alerting, ChannelRun, Progress
from drift_pipeline.clock import SystemClock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.settings import Settings


def main(home: Path) -> None:
    """Kills itself, as `kill -9` would, when what was sent is about to be marked."""
    keep = ChannelRun._keep

    def killed(run: ChannelRun, progress: Progress) -> None:
        if progress.sent:
            os.kill(os.getpid(), signal.SIGKILL)
        keep(run, progress)

    ChannelRun._keep = killed  # type: ignore[assignment, method-assign]
    settings, clock = Settings(home=home, database=""), SystemClock()
    Alerting(settings, ControlStore(settings.database_url, clock), clock).deliver()
    time.sleep(30)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
