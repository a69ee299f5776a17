"""The loop: the stages tied together, once. Replay, the Dagster skin and `drift tick` call these and nothing beside.

```
observe -> decide -> retrain (pin, fit, prove) -> release -> advance -> (new reference) -> observe
```
`loop.py` ties the steps. `arming.py` brings a champion under watch, and `watch.py` is that; `owed.py` says what drift
is to be made good, `queue.py` which retrains were decided on, `retraining.py` makes the next version, `releasing.py`
ships it. `state.py` is what is remembered between two ticks and `ledger.py` where that is written, in one transaction
with its audit record. `operating.py` is what people may do, `holds.py` what they hold. `home.py` opens loops on what
lies below one home, `routes.py` says who answers, `day.py` looks at one day in retrospect and changes nothing.
"""

from drift_pipeline.alerts.outbox import ALERTS
from drift_pipeline.loop.loop import Backends, Loop, Ticked
from drift_pipeline.loop.releasing import Trust
from drift_pipeline.loop.state import RECORDED, Assignment, Training, Version
from drift_pipeline.loop.watch import Watch, watch_at

__all__ = [
    "ALERTS",
    "RECORDED",
    "Assignment",
    "Backends",
    "Loop",
    "Ticked",
    "Training",
    "Trust",
    "Version",
    "Watch",
    "watch_at",
]
