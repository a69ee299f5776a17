"""What ran elsewhere: each retrain that another system ran to its end is one materialisation of `candidate_model`.

Dagster is asked which of them it has: none is lost with the process that saw it end, and none is told twice.
"""

from collections.abc import Iterator

import dagster as dg

from drift_pipeline.clock import DAY
from drift_pipeline.loop import Loop
from drift_pipeline.loop.following import Followed

MOST_LOGS = 20_000  # letters, the newest
LATEST = 30 * DAY  # after which nobody is told of it any more
MOST_MATERIALISATIONS = 1_000  # of a model's candidates, the newest, that are looked through


class Elsewhere:
    """Remembers what Dagster was found to have, so that it is asked only about what is new."""

    def __init__(self) -> None:
        self._told = set[tuple[str, str]]()

    def untold(self, loop: Loop, instance: dg.DagsterInstance) -> Iterator[dg.AssetMaterialization]:
        """What ended and Dagster does not have yet; what it is given now it is asked about at the next look."""
        if not loop.following.outside:
            return
        model, ended = loop.spec.name, loop.following.ended(loop.clock.now() - LATEST)
        if {(model, one.decision) for one in ended} <= self._told:
            return
        found = instance.fetch_materializations(_key(model), limit=MOST_MATERIALISATIONS).records
        known = [record.asset_materialization.metadata for record in found if record.asset_materialization]
        self._told |= {(model, str(told["decision"].value)) for told in known if "decision" in told}
        for one in ended:
            if (model, one.decision) not in self._told:
                yield materialised(model, one, loop.following.logs(one))


def materialised(model: str, ended: Followed, logs: str) -> dg.AssetMaterialization:
    """How it ended, its link and its logs."""
    run = ended.run
    told = {"decision": ended.decision, "version": ended.version or "none", "outcome": ended.outcome}
    known = {"reason": run.reason, "gpu_hours": run.gpu_hours}
    return dg.AssetMaterialization(
        _key(model),
        description=f"{ended.runner} run {run.name} {run.state}",
        metadata={
            **told,
            "runner": ended.runner,
            "run": dg.MetadataValue.url(run.link) if run.link else run.name,
            "state": str(run.state),
            **{name: value for name, value in known.items() if value},
            "logs": dg.MetadataValue.md(f"```\n{logs[-MOST_LOGS:]}\n```"),
        },
    )


def _key(model: str) -> dg.AssetKey:
    return dg.AssetKey([model, "candidate_model"])
