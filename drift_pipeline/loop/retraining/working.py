"""Working on a retrain: its process tells that it goes on, and what another one took over it stores no more."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from drift_pipeline.clock import MINUTE, speed_of
from drift_pipeline.errors import DriftError
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.retraining.trainings import Trainings

LEASE = 5 * MINUTE  # of the machine's time since a process at work was last heard of; then another may take over
BEAT = LEASE / 5
_LOOK_S = 5.0  # a clock that was set back is told by, soon


@contextmanager
def working(trainings: Trainings, decision_id: str, holder: str) -> Iterator[None]:
    """While it lasts a thread tells that `holder`, who claimed the decision, is at it, however long one fit takes.

    A step whose decision was taken over, ended or cancelled meanwhile raises ConflictError instead of storing.
    """
    at, stop = trainings.context, Event()
    at.ledger.beat(beat_of(decision_id, holder))
    thread = Thread(target=_tell, args=(at, beat_of(decision_id, holder), stop), daemon=True)
    thread.start()
    trainings.holder = holder
    try:
        yield
    finally:
        trainings.holder = None
        stop.set()
        thread.join()


def _tell(at: Context, name: str, stop: Event) -> None:
    told, every = at.clock.now(), BEAT * speed_of(at.clock)
    while not stop.wait(_LOOK_S):
        if abs((now := at.clock.now()) - told) >= every:
            with suppress(DriftError):  # a store that is locked for a while: the lease is several beats long
                at.ledger.beat(name)
                told = now


def holder_of(decision_id: str) -> str:
    """Who holds a decision whose steps run in processes of their own: all of them together."""
    return f"drift train {decision_id}"


def beat_of(decision_id: str, holder: str) -> str:
    """The name under which a holder tells that it goes on."""
    return f"retrain/{decision_id}/{holder}"
