"""A model's own trainer: `build(trial, spec) -> sklearn Pipeline` in the file beside its `defs.yaml` that
`retrain.trainer`, or a step of its graph, names, such as ./train.py.

It is run by its path, inside a training and nowhere else, and stored with what it trained. It is one file: what it
imports is installed.
"""

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.errors import DriftError, SpecError
from drift_pipeline.spec import ModelSpec

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.trial import BaseTrial
    from sklearn.pipeline import Pipeline

STORED_AS = "train.py"  # in the bundle
MOST_BYTES = 1_000_000
_LONGEST = 500


@dataclass(frozen=True)
class Source:
    """The trainer's file as it was read, once: what is run is what is stored."""

    path: Path
    text: bytes

    @property
    def digest(self) -> str:
        return sha256(self.text)


def source_of(spec: ModelSpec) -> Source | None:
    """The file of the spec's own trainer; None where it names one of the packaged ones.

    Raises:
        SpecError: it cannot be read, or nobody knows where the spec lies.
    """
    name = spec.retrain.trainer
    if not name.startswith("./"):
        return None
    if spec.folder is None:
        raise SpecError(f"{spec.name}: retrain.trainer {name} lies beside the spec's file, and this spec is of no file")
    path = spec.folder / name
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise SpecError(f"{path}: retrain.trainer cannot be read: {error.strerror}") from error
    if len(text) > MOST_BYTES:
        raise SpecError(f"{path}: retrain.trainer is longer than {MOST_BYTES:,} bytes; a trainer is one file of source")
    return Source(path, text)


def sources_of(spec: ModelSpec, steps: Collection[str] = ()) -> dict[str, Source]:
    """The files of the spec's own trainers, by what they are stored as; errors as of `source_of`.

    Args:
        steps: of a graph, those that are trained; none named = all.
    """
    if not spec.graph:
        source = source_of(spec)
        return {STORED_AS: source} if source else {}
    named = {name: source_of(spec.of_step(name)) for name in spec.graph if not steps or name in steps}
    return {stored_as(name): source for name, source in named.items() if source}


def stored_as(step: str) -> str:
    return f"{step}.py"


def digest_of(sources: Mapping[str, Source]) -> str | None:
    """By which they are pinned: of a model's one trainer its file's, of a graph's that of their list; None of none."""
    if [*sources] == [STORED_AS]:
        return sources[STORED_AS].digest
    return sha256(canonical({name: one.digest for name, one in sources.items()})) if sources else None


class OwnTrainer:
    """A `Trainer` of what the file's `build` makes; what it draws from the trial is the search space."""

    shares_columns = False

    def __init__(self, source: Source, spec: ModelSpec) -> None:
        """Raises SpecError where the file cannot be run, or has no `build`."""
        self._source, self._spec, self._build = source, spec, _loaded(source)

    def suggest(self, trial: "Trial") -> dict[str, Any]:
        self._built(trial)
        return dict(trial.params)

    def build(self, params: dict[str, Any], spec: ModelSpec, seed: int) -> "Pipeline":  # noqa: ARG002
        """With these params; every `random_state` that is left open is the seed."""
        from optuna.trial import FixedTrial

        pipeline = self._built(FixedTrial(params))
        left = [name for name, value in pipeline.get_params().items() if value is None]
        return pipeline.set_params(**{name: seed for name in left if name.endswith("random_state")})

    def _built(self, trial: "BaseTrial") -> "Pipeline":
        from sklearn.pipeline import Pipeline

        try:
            made = self._build(trial, self._spec)
        except (Exception, SystemExit) as error:  # of the user's own code
            raise told(self._source, "build failed", error) from error
        if not isinstance(made, Pipeline):
            raise SpecError(f"{self._source.path}: build returned a {type(made).__name__}, not a scikit-learn Pipeline")
        if self._spec.task == "binary_classification" and not hasattr(made[-1], "predict_proba"):
            raise SpecError(f"{self._source.path}: build's last step, {type(made[-1]).__name__}, has no predict_proba")
        return made


def told(source: Source, what: str, error: BaseException) -> DriftError:
    """What the user's own code raised, as ours; an error of ours stays what it is."""
    if isinstance(error, DriftError):
        return error
    return SpecError(f"{source.path}: {what}: {type(error).__name__}: {error}"[:_LONGEST])


def _loaded(source: Source) -> Callable[..., Any]:
    module = ModuleType(f"drift_pipeline_trainer_{source.digest.removeprefix('sha256:')[:16]}")
    module.__file__ = str(source.path)
    sys.modules[module.__name__] = module  # dataclasses look there
    try:
        exec(compile(source.text, str(source.path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # of the user's own code
        raise told(source, "it cannot be run", error) from error
    build = getattr(module, "build", None)
    if not callable(build):
        raise SpecError(f"{source.path}: has no build(trial, spec), which returns a scikit-learn Pipeline")
    return build  # type: ignore[no-any-return]
