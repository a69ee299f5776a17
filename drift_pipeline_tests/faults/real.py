"""A home on the real clock, and the real commands on it, each of which may be armed with a fault of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from drift_pipeline.clock import DAY, MINUTE, Clock, DrillClock
from drift_pipeline.telemetry.sources.spool import SpoolReader
from drift_pipeline_tests.faults.invariants import broken
from drift_pipeline_tests.faults.world import BEGINS_AT, NAME, Site, document_of

UNARMED = "from drift_pipeline.cli import main; main()"


def broke(told: str) -> bool:
    """Whether a process said on stderr that an error ended it that nobody expected."""
    return "Traceback" in told or '"level": "CRITICAL"' in told


@dataclass
class Real:
    """A home whose traffic is of the last half hour, and the processes that work on it."""

    site: Site
    environment: dict[str, str]
    clock: Clock

    def started(self, armed: str, *arguments: str) -> "subprocess.Popen[str]":
        """A command; `armed` is a script that does something to itself and then calls `main`."""
        return subprocess.Popen(
            [sys.executable, "-c", armed, *arguments],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended(self, armed: str, *arguments: str) -> int:
        """Its exit code, once it came to its end or was told to."""
        process = self.started(armed, *arguments)
        _, told = process.communicate(timeout=60)
        assert not broke(told), told
        return process.returncode

    def until_now(self, step: int = 1) -> None:
        """What users asked for until now, a segment each `step` minutes."""
        now, site = self.clock.now(), self.site
        while site.clock.now() < now:
            site.clock.advance_to(min(site.clock.now() + step * MINUTE, now))
            site.serve()

    def left(self) -> int:
        """Segments that nobody has landed."""
        return len(SpoolReader(self.site.settings.home / "spool" / "gateway").closed())

    def landed(self) -> None:
        assert self.ended(UNARMED, "capture", "--once") == 0
        assert self.left() == 0

    def holds(self) -> None:
        found = broken(self.site, [])
        assert not found, found


def real_home(folder: Path, speed: int) -> Iterator[Real]:
    """Its clock is the real one, which runs `speed` times as fast from now on."""
    models = folder / "models" / NAME
    models.mkdir(parents=True)
    declared = {"type": "drift_pipeline.components.MonitoredModel", "attributes": document_of()}
    (models / "defs.yaml").write_text(json.dumps(declared))
    now = datetime.now(UTC)
    site = Site(folder, hours=3, reference_days=2, starts=now - 30 * MINUTE - 2 * DAY - BEGINS_AT)
    home = {"DRIFT_HOME": str(site.settings.home), "DRIFT_MODELS": str(models.parent), "DRIFT_DATABASE": ""}
    drill = {"DRIFT_DRILL": f"{speed}@{now.isoformat()}"}
    yield Real(site, {**os.environ, **home, **drill}, DrillClock(now, speed))
    site.close()
