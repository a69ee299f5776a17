"""Forms of a home: what a model's categorical columns, and its labels, were found to hold at its adoption, which stays.

Whoever opens a model of a home works with `frozen`: the loop, the gateway, capture, Dagster's assets.
"""

import logging
from collections.abc import Iterator, Mapping

from drift_pipeline.control.reader import ControlReader
from drift_pipeline.errors import SpecError
from drift_pipeline.spec import Form, ModelSpec

log = logging.getLogger(__name__)
FORMS, LABELS = "forms", "labels"  # the kinds of state


def frozen(store: ControlReader, spec: ModelSpec) -> ModelSpec:
    """The spec with the forms that its model was adopted with; as it is where the model is not adopted.

    Raises:
        SpecError: the spec declares another form than the model was adopted with.
    """
    found = _found(store, spec.name)
    return spec if found is None else _with(spec, found, _negative(store, spec.name))


class FrozenSpecs(Mapping[str, ModelSpec]):
    """The specs of a home by name, each `frozen`; a model that is adopted later is taken up when it is next asked for,
    and so is a spec that was changed. One that was changed to what the model was not adopted with is not taken up.

    Raises SpecError as `frozen` does, of all models at once when it is made.
    """

    def __init__(self, store: ControlReader, specs: Mapping[str, ModelSpec]) -> None:
        self._store, self._specs = store, specs
        self._frozen: dict[str, tuple[ModelSpec, ModelSpec]] = {}  # as declared, and with the forms
        for name in specs:
            self[name]

    def __getitem__(self, name: str) -> ModelSpec:
        spec, kept = self._specs[name], self._frozen.get(name)
        if kept is not None and kept[0] is spec:
            return kept[1]
        if (found := _found(self._store, name)) is None:
            return spec
        try:
            self._frozen[name] = spec, _with(spec, found, _negative(self._store, name))
        except SpecError as error:
            if kept is None:
                raise
            log.error("%s", error)
            self._frozen[name] = spec, kept[1]
        return self._frozen[name][1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)


def _found(store: ControlReader, model: str) -> Mapping[str, Form] | None:
    record = store.get(FORMS, model)
    return None if record is None else record.body


def _negative(store: ControlReader, model: str) -> str | None:
    """None of a regression."""
    record = store.get(LABELS, model)
    return None if record is None else record.body["negative"]


def _with(spec: ModelSpec, found: Mapping[str, Form], negative: str | None) -> ModelSpec:
    for name, form in spec.forms.items():
        if found.get(name, form) != form:
            raise SpecError(
                f"{spec.name}: forms.{name} is {form}, but the model was adopted with {found[name]}, which its lake, "
                f"its reference and its versions hold: take forms.{name} out of the spec, or adopt the model anew in "
                "another home"
            )
    return spec.with_forms(found).with_negative(negative)
