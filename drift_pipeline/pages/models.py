"""The models of a home as their files say, each by itself: one that cannot be read leaves the others alone."""

from pathlib import Path

from drift_pipeline.errors import DriftError
from drift_pipeline.evidence.statements import PACKAGED_MODELS
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec, read_spec


class Models:
    """Looked at anew each time; a file is read again when it changed."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.models or PACKAGED_MODELS
        self._read: dict[Path, tuple[tuple[int, int, int], ModelSpec | str]] = {}

    def look(self) -> dict[str, ModelSpec | str]:
        """By name: the spec, or what is wrong with it; a file without a name to read goes by its folder's."""
        found: dict[str, ModelSpec | str] = {}
        for path in sorted(self._folder.glob("*/defs.yaml")):
            spec = self._one(path)
            name = spec if isinstance(spec, str) else spec.name
            if isinstance(spec, str) or name in found:
                twice = f"{path}: the model {name} is declared twice; give each its own name"
                found[path.parent.name] = spec if isinstance(spec, str) else twice
            else:
                found[name] = spec
        return found

    def _one(self, path: Path) -> ModelSpec | str:
        try:
            seen = path.stat()
            mark = seen.st_mtime_ns, seen.st_size, seen.st_ino
            if path not in self._read or self._read[path][0] != mark:
                self._read[path] = mark, read_spec(path)
        except (DriftError, OSError) as error:
            return str(error)
        return self._read[path][1]
