"""The loop: the stages tied together, once. Replay, the Dagster skin and `drift tick` call these and nothing beside.

```
observe -> decide -> retrain (pin, fit, prove) -> release -> advance -> (new baseline) -> observe
```
`loop.py` conducts: which stage comes when. Each stage reads and writes state through `ledger.py`, in one transaction
with its audit record, and all share one `context.py`:

- `observing.py`: the tick's report and the incident that comes of it; below it `monitoring/`, one champion, what it
  answered and the baseline it is held against, and re-baselining when another one answers
- `deciding.py`: facts to the policy; what it wants retrained waits in `queue.py`; `recovery.py` is the drift that no
  training made good yet
- `retraining/`: pin the rows, fit on them, prove on them
- `candidates.py`: which of those that were trained may be released; `releasing/`: start a rollout, advance it, roll it
  back, with people's approvals

`session.py` is what one process has taken up of a model, `state.py` what is remembered between two ticks, and
`first_version.py` how a model begins. `operating.py` is what people may do, `pauses.py` what they asked to leave alone.
`home.py` opens loops on what lies below one home, `adopting.py` lands a history there, `fleet.py` ticks all of them,
`retention.py` deletes what is old, `erasure.py` what a person wants gone, `concerns.py` tells people of what goes wrong
beside the loop. To look at: `status.py` how models stand, `chronicle.py` what became of versions, incidents and
decisions, `routes.py` who answers, `day.py` one day in retrospect.
"""

from drift_pipeline.alerts.outbox import ALERTS
from drift_pipeline.loop.context import Backends, Context, Trust
from drift_pipeline.loop.loop import Loop, Ticked
from drift_pipeline.loop.state import RECORDED, Assignment, Training, Version

__all__ = [
    "ALERTS",
    "RECORDED",
    "Assignment",
    "Backends",
    "Context",
    "Loop",
    "Ticked",
    "Training",
    "Trust",
    "Version",
]
