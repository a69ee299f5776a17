"""Alertmanager and amtool, built by Go.

The module that the proxy has lacks the page that the server shows to people, and does not build without it: a copy is
given an empty one. For tests alone; what it does with alerts is its own.
"""

import json
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from drift_pipeline_tests.parts.building import go
from drift_pipeline_tests.parts.cache import HERE, MissingError, installed, pinned
from drift_pipeline_tests.parts.server import Server, free_port

VARIABLE = "ALERTMANAGER_URL"
_PAGE = "<!doctype html><title>Alertmanager</title>no page in this build\n"


def find() -> Path:
    """The folder of `alertmanager` and `amtool`. Raises MissingError."""
    if ((ours := installed("alertmanager")) / "alertmanager").is_file():
        return ours
    if (found := shutil.which("alertmanager")) and shutil.which("amtool"):
        return Path(found).parent
    raise MissingError(
        "no Alertmanager: python -m drift_pipeline_tests.parts install alertmanager builds it, some minutes with Go"
    )


def install() -> Path:
    """Build both with Go, where they are not in the cache; needs the module proxy. Raises MissingError."""
    with suppress(MissingError):
        return find()
    module, folder = pinned("alertmanager")["module"], installed("alertmanager")
    told = json.loads(go("alertmanager", ["mod", "download", "-json", module], HERE / "go" / "alertmanager"))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="drift-alertmanager-") as temporary:
        copy = Path(temporary, "copy")
        shutil.copytree(told["Dir"], copy)
        for page in ("elm", "mantine"):
            (copy / "ui" / "app" / "dist" / page).mkdir(parents=True)
            (copy / "ui" / "app" / "dist" / page / "index.html").write_text(_PAGE, encoding="utf-8")
        built = ["build", "-trimpath", "-tags", "netgo", "-ldflags", "-s -w", "-o", f"{temporary}/"]
        go("alertmanager", [*built, "./cmd/alertmanager", "./cmd/amtool"], copy)
        for name in ("amtool", "alertmanager"):  # the one that `find` looks for comes last
            shutil.copyfile(Path(temporary, name), folder / f"{name}.part")
            (folder / f"{name}.part").chmod(0o755)
            (folder / f"{name}.part").rename(folder / name)
    return find()


def amtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Raises MissingError."""
    return subprocess.run([str(find() / "amtool"), *arguments], capture_output=True, text=True, check=False)


class Alertmanager:
    """A server at `url`, alone."""

    def __init__(self, folder: Path, configuration: Mapping[str, Any]) -> None:
        port, file = free_port(), folder / "alertmanager.yaml"
        self.url = f"http://127.0.0.1:{port}"
        file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
        where = (f"--config.file={file}", f"--storage.path={folder / 'data'}", "--cluster.listen-address=")
        listen = f"--web.listen-address=127.0.0.1:{port}"
        self.server = Server([str(find() / "alertmanager"), *where, listen], folder / "alertmanager.log", self._answers)

    def alerts(self) -> list[dict[str, Any]]:
        """Those that it holds."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as answer:
            found: list[dict[str, Any]] = json.loads(answer.read())
        return found

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
        return False


_NOWHERE = {"route": {"receiver": "nobody"}, "receivers": [{"name": "nobody"}]}


@contextmanager
def running(configuration: Mapping[str, Any] = _NOWHERE) -> Iterator[Alertmanager]:
    """A server; without a configuration it tells nobody. Raises MissingError."""
    with tempfile.TemporaryDirectory(prefix="drift-alertmanager-") as folder:
        part = Alertmanager(Path(folder), configuration)
        try:
            part.server.start()
            yield part
        finally:
            part.server.stop()
