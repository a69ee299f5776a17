"""EmbeddedEngine: regopy in a long-lived child process."""

import importlib.util
import json
import math
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE
from types import MappingProxyType, TracebackType
from typing import Self

from drift_pipeline.errors import UnavailableError
from drift_pipeline.policy.engines import DECISION, PACKAGED_BUNDLE, RELEASE, Answer, read_bundle

CHILD = Path(__file__).with_name("_child.py")
_EMBEDDED = {"engine": "embedded"}

# A plain question that every bundle must answer with an object: regopy drops a rule it does not understand.
PROBE: Mapping[str, object] = {
    "model": "probe",
    "now": "2000-01-01T00:00:00+00:00",
    "trigger": "schedule",
    "incident": None,
    "kpis": dict.fromkeys(("psi", "range_z", "auroc", "latency_p95_ms", "demographic_parity"), "OK"),
    "drifting_features": [],
    "performance": "auroc",
    "fall": None,
    "fall_allowed": None,
    "retrain": {
        "running": False,
        "cooldown_left_hours": 0,
        "this_month": 0,
        "max_per_month": 1,
        "rejected_in_a_row": 0,
        "gpu_hours_this_month": 0,
        "max_gpu_hours": None,
        "candidate": None,
    },
    "rollout_active": False,
    "paused": False,
}


class UndefinedError(UnavailableError):
    """The rules answer nothing."""


class _DiedError(Exception):
    """The child ended before it answered."""


class _Child:
    """One process that answers a line with a line.

    Raises:
        UnavailableError: regopy is not installed, or no process can be started.
    """

    def __init__(self, program: Path) -> None:
        regopy = importlib.util.find_spec("regopy")
        if regopy is None or regopy.origin is None:
            raise UnavailableError("regopy is not installed; it evaluates the policy: pip install regopy")
        # -I would hide a regopy that stands on PYTHONPATH or in the user's site: its folder is handed over
        command = [sys.executable, "-I", str(program), str(Path(regopy.origin).parent.parent)]
        try:
            self.process = subprocess.Popen(command, env={}, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        except OSError as error:
            raise UnavailableError(f"the policy engine cannot be started: {error}") from error

    def answer(self, line: bytes, timeout_seconds: float) -> bytes:
        """The answer, newline included; a child that is not done in time is killed.

        Raises:
            UnavailableError: time is up.
            _DiedError: it ended before it answered.
        """
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self.process.kill()

        watchdog = threading.Timer(timeout_seconds, expire)
        watchdog.start()
        try:
            answer = self._write_and_read(line)
        finally:
            watchdog.cancel()
        if answer.endswith(b"\n"):
            return answer
        if expired.is_set():
            raise UnavailableError(f"the policy engine did not answer within {timeout_seconds:g} s")
        raise _DiedError

    def _write_and_read(self, line: bytes) -> bytes:
        questions, answers = self.process.stdin, self.process.stdout
        if questions is None or answers is None:
            return b""
        try:
            questions.write(line)
            questions.flush()
        except BrokenPipeError:
            return b""
        return answers.readline()

    def end(self) -> None:
        """Kill it, which loses nothing since it holds no state, and leave neither a zombie nor an open pipe."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):  # the unsent rest of a question
                if pipe is not None:
                    pipe.close()
        self.process.wait()


class EmbeddedEngine:
    """Evaluates a bundle in a child with an empty environment, which is started when first asked.

    The bundle is read once, here; every child gets that text. A child that dies is replaced and asked once
    more; one that is silent for `timeout_seconds` is killed. Threads take turns. Use it as a context manager
    or close() it; a closed engine starts again when asked. It must not be used across a fork.

    Raises:
        InputError: `bundle` holds no readable policy. Whether the policy works shows in `evaluate`.
    """

    def __init__(
        self,
        bundle: Path | None = None,
        timeout_seconds: float = 5.0,
        *,
        program: Path = CHILD,
        also: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """
        Args:
            also: more modules by the paths of their rules that may be asked, which the digest does not name: tests.
        """
        rules, self._also = read_bundle(bundle or PACKAGED_BUNDLE), also
        self._digest, self._modules = rules.digest, dict(rules.modules)
        self._timeout_seconds = timeout_seconds
        self._program = program
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._asked = 0

    @property
    def digest(self) -> str:
        return self._digest

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return self._child.process.pid if self._child else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._stop()

    def evaluate(self, facts: Mapping[str, object], rule: str = DECISION) -> Answer:
        return Answer(self.ask(f"drift/{rule}", facts), self._digest, _EMBEDDED)

    def ask(self, path: str, facts: Mapping[str, object]) -> Mapping[str, object]:
        """The value of one of its rules, by its whole path; errors as of `evaluate`."""
        question = {"rule": path, "input": facts}
        with self._lock:
            try:
                decision = self._ask(question)
            except _DiedError:
                decision = self._ask_again(question)
        if decision is None:
            raise UndefinedError("the policy is undefined for these facts: one is missing or of another type")
        return decision

    def _ask(self, question: Mapping[str, object]) -> Mapping[str, object] | None:
        return self._exchange(self._child or self._start(), question)

    def _ask_again(self, question: Mapping[str, object]) -> Mapping[str, object] | None:
        try:
            return self._ask(question)
        except _DiedError as error:
            raise UnavailableError("the policy engine died twice on one question") from error

    def _start(self) -> _Child:
        self._child = child = _Child(self._program)
        try:
            if self._exchange(child, {**self._loaded(), "rule": f"drift/{DECISION}", "input": PROBE}) is None:
                raise UnavailableError("the bundle gives no decision on a plain question: it is broken, or no policy")
        except UnavailableError:
            self._stop()
            raise
        return child

    def _loaded(self) -> Mapping[str, object]:
        modules = {**self._modules, **{f"{path}.rego": text for path, text in self._also.items()}}
        return {"modules": modules, "rules": [f"drift/{DECISION}", f"drift/{RELEASE}", *self._also]}

    def _exchange(self, child: _Child, message: Mapping[str, object]) -> Mapping[str, object] | None:
        """Send one message and read the decision; None = undefined.

        Only a child that answered in order is kept: whatever else happens, an interrupt included, ends it,
        so that no late answer is ever taken for the next question's.
        """
        self._asked += 1
        alarm_seconds = math.ceil(self._timeout_seconds) + 1
        question = json.dumps({"id": self._asked, "alarm_seconds": alarm_seconds, **message}, allow_nan=False)
        try:
            answer = _read(child.answer(question.encode() + b"\n", self._timeout_seconds), self._asked)
        except BaseException:
            self._stop()
            raise
        return _decision(answer)

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()


def _read(line: bytes, asked: int) -> dict[str, object]:
    try:
        answer = json.loads(line)
    except ValueError as error:
        raise UnavailableError("the policy engine answered something that is not JSON") from error
    if not isinstance(answer, dict) or answer.get("id") != asked:
        raise UnavailableError("the policy engine answered another question than the one asked")
    return answer


def _decision(answer: Mapping[str, object]) -> Mapping[str, object] | None:
    if "error" in answer:
        raise UnavailableError(f"the policy cannot be evaluated: {answer['error']}")
    decision = answer.get("decision")
    if decision is not None and not isinstance(decision, dict):
        raise UnavailableError(f"the policy's decision is not an object: {decision!r}")
    return decision
