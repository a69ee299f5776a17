"""What a cluster should run for a home, as files: the chart's values, and the objects of the GitOps repository.

`manifests/` are plain Kubernetes objects, byte for byte those of the GitOps repository: a ConfigMap a model with who
answers, and the SealedSecrets. `values.yaml` is for the chart: the models' files, and where the lake lies. The same
home gives the same bytes.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from drift_pipeline.control.canonical import sha256
from drift_pipeline.control.manifests import to_yaml
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.evidence.champions import MANIFESTS, derived, manifest_of
from drift_pipeline.evidence.placing import FILE, waiting_for
from drift_pipeline.settings import Settings
from drift_pipeline.spec import DECLARATIONS, ModelSpec
from drift_pipeline.training.own import sources_of
from drift_pipeline.training.trainer_tests import folder_of_tests

VALUES, _SPEC_FILE = "values.yaml", "defs.yaml"
_MOST_BYTES = 1024 * 1024  # of a ConfigMap
_ELSEWHERE = "let the chart read the models from a repository (models.git), and say --without-models"


def rendering(settings: Settings, store: ControlReader, specs: Iterable[ModelSpec]) -> dict[str, bytes]:
    """By path.

    Args:
        specs: the models that the chart is given with all their files; none = it has them from elsewhere.

    Raises:
        InputError: a model's files do not fit into a ConfigMap.
        IntegrityError: an object is not what the audit says: left out, it would be taken out of the cluster.
    """
    inline = {spec.name: _files(spec) for spec in specs}
    if (size := sum(len(text.encode()) for files in inline.values() for text in files.values())) > _MOST_BYTES:
        raise InputError(f"the models' files have {size:,} bytes, and a ConfigMap has {_MOST_BYTES:,}; {_ELSEWHERE}")
    values: dict[str, Any] = {"models": {"inline": inline}} if inline else {}
    if settings.store:
        values["store"] = {"url": settings.store}
    return {VALUES: to_yaml(values), **_manifests(settings, store)}


def _manifests(settings: Settings, store: ControlReader) -> dict[str, bytes]:
    made, found = derived(store), {}
    for model in store.keys("model"):
        if (name := manifest_of(model)) not in made:
            raise IntegrityError(f"{model}: its row is not what the audit wrote; see drift audit verify")
        found[name] = made[name][1]
    for row in store.find(FILE, f"{MANIFESTS}/"):
        name = row.key.partition("/gitops/")[2]
        if name.startswith(f"{MANIFESTS}/") and (digest := store.attest(row).body["digest"]) is not None:
            found[name] = _audited(settings, settings.gitops / name, digest)
    return found


def _audited(settings: Settings, path: Path, digest: str) -> bytes:
    """What the audit names, also where it waits for its place."""
    for place in (path, waiting_for(settings.home, path, digest), path):
        with suppress(OSError):
            if sha256(data := place.read_bytes()) == digest:
                return data
    raise IntegrityError(f"{path}: is not what the audit names; restore it, or drift seal --remove takes it out")


def _files(spec: ModelSpec) -> dict[str, str]:
    """A model's spec, declarations and own trainers, by name."""
    folder = spec.folder
    if folder is None or folder_of_tests(spec) is not None:
        raise InputError(f"{spec.name}: has a folder of tests, and a ConfigMap has none; {_ELSEWHERE}")
    paths = [folder / _SPEC_FILE, folder / DECLARATIONS, *(one.path for one in sources_of(spec).values())]
    return {path.name: text for path in paths if path.exists() and (text := _text(path))}


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8: {error}") from error
