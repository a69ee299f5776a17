"""The unit tests of a model's own trainer: pytest on the `tests` beside it, in a process of its own with a deadline."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import IO

from drift_pipeline.errors import SpecError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.training.own import source_of
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
    own = spec.retrain.trainer.startswith("./") and spec.folder is not None
    folder = spec.folder / FOLDER if own and spec.folder is not None else None
    return folder if folder is not None and folder.is_dir() else None


def trainer_tests_gate(spec: ModelSpec, trained_by: str | None, deadline_s: float = DEADLINE_S) -> GateResult | None:
    """Do the tests pass? They import the trainer by its name. None where there are none to ask.

    A test that fails, or cannot be collected, is FAIL. UNKNOWN: no test is run, they do not end in time, or the
    trainer is another one by now than the one, by its digest, that trained.
    """
    folder, facts = folder_of_tests(spec), {"tool": f"pytest {version('pytest')}"}
    if folder is None:
        return None
    try:
        source = source_of(spec)
    except SpecError as error:
        return unknown(NAME, str(error), 0.0, facts)
    if source is None or source.digest != trained_by:
        return unknown(NAME, f"{spec.retrain.trainer} is another one by now than the one that trained", 0.0, facts)
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
