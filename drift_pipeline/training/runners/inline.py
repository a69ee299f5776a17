"""The default: the steps run in the process that submits, one after the other."""

from collections.abc import Callable

from drift_pipeline.training.runners import Request, Run, State


class InlineRunner:
    """`submit` returns when the run is over. It knows the runs of its own process alone: what a decision came to, in
    whichever process, is in the control store, and `train` does not train again what was trained."""

    kind = "inline"

    def __init__(self, train: Callable[[Request], bool]) -> None:
        """train: all steps of a decision; False where nothing came of it."""
        self._train, self._runs = train, dict[str, Run]()

    def submit(self, request: Request) -> Run:
        """Also raises what `train` does; such a run was none. Of one that came to nothing `train` is asked again: it
        may have been another process's meanwhile."""
        known = self.status(request)
        if known.state is State.SUCCEEDED:
            return known
        came = self._train(request)
        state, reason = (State.SUCCEEDED, "") if came else (State.FAILED, "nothing came of it; the audit says why")
        self._runs[request.name] = Run(request.name, state, reason=reason)
        return self._runs[request.name]

    def status(self, request: Request) -> Run:
        return self._runs.get(request.name, Run(request.name, State.ABSENT))

    def cancel(self, request: Request) -> Run:
        """Nothing of it runs any more when anybody can ask."""
        return self.status(request)

    def logs(self, request: Request, lines: int = 50) -> str:  # noqa: ARG002
        """They are those of the process."""
        return ""
