"""The unit tests of a model's own trainer: pytest on the `tests` beside it, in a process of its own with a deadline."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import IO

from drift_pipeline.errors import SpecError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.own import digest_of, sources_of
from drift_pipeline.training.results import GateResult, judged, unknown

NAME = "trainer_tests"
FOLDER = "tests"
DEADLINE_S = 300.0
_LONGEST = 600  # of what pytest said
_PASSED, _FAILED, _INTERRUPTED, _NONE = 0, 1, 2, 5  # pytest's exit codes
_KEPT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "SYSTEMROOT")  # no DRIFT_ setting, no credential
_OPTIONS = ("-q", "--tb=line", "--color=no", "--import-mode=importlib", "-p", "no:cacheprovider", "-c", os.devnull)


def folder_of_tests(spec: ModelSpec) -> Path | None:
    """The folder of the tests; None where the model has no trainer of its own, or no tests of it."""
    trainers = [step.trainer for step in spec.graph.values()] or [spec.retrain.trainer]
    own = any(trainer.startswith("./") for trainer in trainers)
    folder = spec.folder / FOLDER if own and spec.folder is not None else None
    return folder if folder is not None and folder.is_dir() else None


def trainer_tests_gate(
    spec: ModelSpec, trained_by: str | None, deadline_s: float = DEADLINE_S, steps: Collection[str] = ()
) -> GateResult | None:
    """Do the tests pass? They import the trainer by its name. None where there are none to ask.

    A test that fails, or cannot be collected, is FAIL. UNKNOWN: no test is run, they do not end in time, or a trainer
    is another one by now than the one, by its digest, that trained.

    Args:
        trained_by: the digest of the trainers, None of packaged ones.
        steps: of a graph, those that were trained.
    """
    folder, facts = folder_of_tests(spec), {"tool": f"pytest {version('pytest')}"}
    if folder is None:
        return None
    if spec.graph and trained_by is None:  # packaged ones alone trained
        return None
    if problem := _changed(spec, trained_by, steps):
        return unknown(NAME, problem, 0.0, facts)
    with tempfile.TemporaryDirectory(prefix="drift-tests-") as empty, tempfile.TemporaryFile() as output:
        code = _run(folder, Path(empty), output, deadline_s)
        output.seek(0)
        said = _told(output.read().decode(errors="replace"), folder)
    if code is None:
        return unknown(NAME, f"they did not end in {deadline_s:g} s: {said}", 0.0, facts)
    if code in (_FAILED, _INTERRUPTED) or (code == _PASSED and re.search(r"\b[1-9]\d* passed", said)):
        found = judged(NAME, code == _PASSED, float(code != _PASSED), None, 0.0, said)
        return GateResult(**{**found.__dict__, "facts": facts})
    why = "no test was run" if code in (_NONE, _PASSED) else f"pytest ended with {code}"
    return unknown(NAME, f"{why}: {said}", 0.0, facts)


def _changed(spec: ModelSpec, trained_by: str | None, steps: Collection[str]) -> str:
    """Why the trainers that lie there are not those that trained, or ""."""
    try:
        sources = sources_of(spec, steps)
    except SpecError as error:
        return str(error)
    names = ", ".join(sorted({f"./{one.path.name}" for one in sources.values()}))
    return "" if digest_of(sources) == trained_by else f"{names} is another one by now than the one that trained"


def _run(folder: Path, empty: Path, output: IO[bytes], deadline_s: float) -> int | None:
    """Pytest's exit code; None where it was ended at the deadline, with all that it started."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    paths = os.pathsep.join([str(folder.parent), *filter(None, [kept.get("PYTHONPATH")])])
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(empty)}
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *_OPTIONS, f"--rootdir={folder}", f"--basetemp={empty / 'tmp'}", str(folder)],
        cwd=folder.parent,
        env={**kept, **alone, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(deadline_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Also what the tests left behind in their session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _told(text: str, folder: Path) -> str:
    """The end of what pytest said, on one line, without where the folder lies."""
    lines = [line.strip() for line in text.replace(f"{folder}{os.sep}", "").splitlines() if line.strip(" =_-.")]
    told = "; ".join(lines)
    return told if len(told) <= _LONGEST else f"… {told[-_LONGEST:]}"
