"""An environment of a part's own, for what cannot be in ours; made once and kept in DRIFT_PARTS."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from drift_pipeline_tests.parts.cache import HERE, MissingError, cache, pinned


@dataclass(frozen=True)
class Environment:
    """`requirements` lies beside: all that is in it, each at one version."""

    part: str
    requirements: str

    @property
    def version(self) -> str:
        return pinned(self.part)["version"]

    def find(self) -> Path:
        """Its interpreter."""
        if not (self._folder() / "whole").exists():
            how = f"python -m drift_pipeline_tests.parts install {self.part}"
            raise MissingError(f"no {self.part} {self.version}: {how}")
        return self._folder() / "bin" / "python"

    def install(self) -> Path:
        """Made anew where it is not whole; needs the package index. Raises MissingError."""
        folder = self._folder()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "whole").exists():
                self._make(folder)
        return self.find()

    def _folder(self) -> Path:
        locked = hashlib.sha256((HERE / self.requirements).read_bytes()).hexdigest()[:12]
        return cache() / f"{self.part}-{self.version}-{sys.version_info.major}{sys.version_info.minor}-{locked}"

    def _make(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        made, pip = [sys.executable, "-m", "venv", str(folder)], [str(folder / "bin" / "pip"), "install", "-q", "-r"]
        for step in (made, [*pip, str(HERE / self.requirements)]):
            ended = subprocess.run(step, capture_output=True, text=True, check=False)
            if ended.returncode:
                told = ended.stderr.strip().splitlines()[-1:]
                raise MissingError(f"{self.part} {self.version} cannot be installed here: {told}")
        (folder / "whole").touch()
