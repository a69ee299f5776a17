"""The loop: the stages tied together, once. Replay, the Dagster skin and `drift tick` call these and nothing beside.

```
observe -> decide -> retrain (pin, fit, prove) -> release -> advance -> (new reference) -> observe
```
`loop.py` ties the steps; `watch.py` is one champion under watch, `retraining.py` how the next one is made, `state.py`
what is remembered between two ticks and `ledger.py` where that is written, in one transaction with its audit record.
`home.py` opens a loop on what lies below one home, `day.py` looks at one day in retrospect and changes nothing.
"""

from drift_pipeline.loop.ledger import ALERTS
from drift_pipeline.loop.loop import Backends, Loop, Trust
from drift_pipeline.loop.state import RECORDED, Assignment, Training, Version
from drift_pipeline.loop.watch import Watch, watch_at

__all__ = [
    "ALERTS",
    "RECORDED",
    "Assignment",
    "Backends",
    "Loop",
    "Training",
    "Trust",
    "Version",
    "Watch",
    "watch_at",
]
