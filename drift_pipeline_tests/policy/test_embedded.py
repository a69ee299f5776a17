"""EmbeddedEngine: a child that dies, hangs, babbles or is broken never decides anything."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.policy.decide import Action, decide
from drift_pipeline.policy.engines.embedded import PROBE, EmbeddedEngine
from drift_pipeline_tests.policy.test_decide import FACTS

RETRAIN = {"action": "retrain", "reasons": ["the scheduled retrain is due"], "capacity": "spot"}
# 10^12 steps, for every model but the probe: it loads well, then hangs
HANG = """
decision := {"action": "retrain", "reasons": ["r"]} if input.model == "probe"
decision := {"action": "retrain", "reasons": [sprintf("%v", [steps])]} if input.model != "probe"
million := numbers.range(1, 1000000)
steps := count([x | some x in million; some y in million; x + y < 0])
"""


def bundle(folder: Path, rules: str) -> Path:
    (folder / "drift.rego").write_text(f"package drift\nimport rego.v1\n{rules}")
    return folder


def child(folder: Path, answering: str) -> Path:
    """A stand-in for the child: `answering` is run for each question, with `n` questions before it."""
    body = "\n".join(f"    {line}" for line in answering.splitlines())
    program = folder / "child.py"
    program.write_text(
        "import json, os, sys, time\n"
        "for n, line in enumerate(sys.stdin):\n"
        "    question = json.loads(line)\n"
        '    good = {"id": question["id"], "decision": {"action": "retrain", "reasons": ["r"]}}\n'
        f"{body}\n"
    )
    return program


def wait_until_gone(pid: int) -> None:
    """Wait for a process that is not ours to reap; a zombie counts as gone."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
        if not state.stdout.strip() or state.stdout.startswith("Z"):
            return
        time.sleep(0.02)
    pytest.fail(f"process {pid} is still there")


def test_the_child_lives_on_from_question_to_question() -> None:
    with EmbeddedEngine() as engine:
        assert engine.pid is None
        assert engine.evaluate(PROBE).value == RETRAIN
        first = engine.pid
        assert engine.evaluate(PROBE).value == RETRAIN
        assert engine.pid == first


def test_a_child_killed_between_questions_is_replaced() -> None:
    with EmbeddedEngine() as engine:
        engine.evaluate(PROBE)
        first = engine.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert engine.evaluate(PROBE).value == RETRAIN
        assert engine.pid not in (None, first)


def test_a_child_killed_in_mid_question_is_asked_again_once(tmp_path: Path) -> None:
    """The first child dies on its first real question; a marker file lets the second one answer."""
    marker = tmp_path / "died"
    dies_once = f"""
if n == 1 and not os.path.exists({str(marker)!r}):
    open({str(marker)!r}, "w").close()
    os.kill(os.getpid(), 9)
print(json.dumps(good), flush=True)"""
    with EmbeddedEngine(program=child(tmp_path, dies_once)) as engine:
        assert engine.evaluate(PROBE).value == {"action": "retrain", "reasons": ["r"]}
    assert marker.exists()


def test_a_question_that_kills_every_child_is_ignored(tmp_path: Path) -> None:
    deadly = child(tmp_path, "print(json.dumps(good), flush=True) if n == 0 else os.kill(os.getpid(), 9)")
    with EmbeddedEngine(program=deadly) as engine:
        decision = decide(FACTS, engine)
        assert engine.pid is None
    assert decision.action is Action.IGNORE
    assert decision.reasons == ("policy unavailable: the policy engine died twice on one question",)


def test_a_real_child_killed_while_it_computes_is_replaced_and_the_next_question_answered(tmp_path: Path) -> None:
    with EmbeddedEngine(bundle(tmp_path, HANG), timeout_seconds=3) as engine:
        engine.evaluate(PROBE)
        first = engine.pid
        assert first is not None
        killer = threading.Timer(0.5, os.kill, (first, signal.SIGKILL))
        killer.start()
        with pytest.raises(UnavailableError, match="did not answer within 3 s"):
            engine.evaluate({**PROBE, "model": "fraud"})
        killer.join()
        assert engine.evaluate(PROBE).value["action"] == "retrain"


def test_a_policy_that_hangs_is_killed_and_ignored(tmp_path: Path) -> None:
    with EmbeddedEngine(bundle(tmp_path, HANG), timeout_seconds=1) as engine:
        engine.evaluate(PROBE)
        hanging = engine.pid
        decision = decide(FACTS, engine)
        assert hanging is not None
        wait_until_gone(hanging)
    assert decision.action is Action.IGNORE
    assert decision.reasons == ("policy unavailable: the policy engine did not answer within 1 s",)


def test_a_question_larger_than_the_pipe_cannot_block_the_parent(tmp_path: Path) -> None:
    deaf = child(tmp_path, "print(json.dumps(good), flush=True)\ntime.sleep(60)")
    late = pytest.raises(UnavailableError, match=r"did not answer within 0\.5 s")
    with EmbeddedEngine(program=deaf, timeout_seconds=0.5) as engine, late:
        engine.evaluate({**PROBE, "drifting_features": ["x" * 5_000_000]})


@pytest.mark.parametrize(
    ("answering", "why"),
    [
        ('print("{not json", flush=True)', "not JSON"),
        ('print("[]", flush=True)', "another question"),
        ('print(json.dumps({**good, "id": 0}), flush=True)', "another question"),
        ('print(json.dumps({**good, "decision": "retrain"}), flush=True)', "not an object: 'retrain'"),
        ('sys.stdout.write("{"); sys.stdout.flush(); os._exit(0)', "died twice"),
    ],
)
def test_a_child_that_babbles_is_not_believed(tmp_path: Path, answering: str, why: str) -> None:
    well_then_odd = f"print(json.dumps(good), flush=True) if n == 0 else None\nif n: {answering}"
    with EmbeddedEngine(program=child(tmp_path, well_then_odd)) as engine:
        with pytest.raises(UnavailableError, match=why):
            engine.evaluate(PROBE)
        assert decide(FACTS, engine).action is Action.IGNORE


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ("", "no decision on a plain question|cannot be evaluated"),
        ("other := 1", "no decision on a plain question|cannot be evaluated"),
        ("decision := 1 if {", "cannot be evaluated"),
        ("decision := nosuch(1)", "cannot be evaluated"),
        ("decision := nosuch", "no decision on a plain question|cannot be evaluated"),
        ('decision := {"action": "retrain"} if input.nowhere', "no decision on a plain question"),
        ('decision := "retrain"', "not an object: 'retrain'"),
        ('decision := {"action": "retrain"}\ndecision := {"action": "ignore"}', "cannot be evaluated"),
    ],
)
def test_a_broken_bundle_is_found_when_it_is_loaded(tmp_path: Path, rules: str, why: str) -> None:
    with EmbeddedEngine(bundle(tmp_path, rules)) as engine:
        with pytest.raises(UnavailableError, match=why):
            engine.evaluate(PROBE)
        decision = decide(FACTS, engine)
        assert (decision.action, engine.pid) == (Action.IGNORE, None)
        assert decision.reasons[0].startswith("policy unavailable: ")


def test_a_decision_that_is_undefined_for_the_facts_is_ignored(tmp_path: Path) -> None:
    only_probe = 'decision := {"action": "retrain", "reasons": ["r"]} if input.model == "probe"'
    with EmbeddedEngine(bundle(tmp_path, only_probe)) as engine:
        assert decide(FACTS, engine).action is Action.IGNORE
        assert engine.evaluate(PROBE).value["action"] == "retrain"


def test_the_environment_is_empty_to_the_policy_and_to_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFT_SECRET", "hunter2")
    with EmbeddedEngine(bundle(tmp_path, 'decision := {"env": object.get(opa.runtime(), "env", {})}')) as engine:
        assert engine.evaluate(PROBE).value == {"env": {}}
        environ = Path(f"/proc/{engine.pid}/environ")
        if environ.exists():
            assert environ.read_bytes() == b""


def test_what_changes_on_disk_changes_neither_decisions_nor_digest(tmp_path: Path) -> None:
    folder = bundle(tmp_path, 'decision := {"action": "ignore", "reasons": ["old"]}')
    with EmbeddedEngine(folder) as engine:
        digest = engine.digest
        bundle(tmp_path, 'decision := {"action": "retrain", "reasons": ["new"]}')
        assert engine.evaluate(PROBE).value["reasons"] == ["old"]
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        assert engine.evaluate(PROBE).value["reasons"] == ["old"]
        assert engine.digest == digest
    with EmbeddedEngine(folder) as engine:
        assert engine.evaluate(PROBE).value["reasons"] == ["new"]
        assert engine.digest != digest


def test_a_folder_without_a_policy_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "drift_test.rego").write_text("package drift")
    with pytest.raises(InputError, match="no policy here"):
        EmbeddedEngine(tmp_path)


def test_closing_leaves_no_process_and_a_closed_engine_starts_again() -> None:
    engine = EmbeddedEngine()
    engine.close()
    engine.evaluate(PROBE)
    pid = engine.pid
    assert pid is not None
    engine.close()
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert engine.evaluate(PROBE).value == RETRAIN
    engine.close()


@pytest.mark.parametrize("model", ["probe", "fraud"], ids=["idle", "computing"])
def test_the_child_ends_when_its_parent_is_killed(tmp_path: Path, model: str) -> None:
    """Idle it sees the end of its input; while it computes the alarm ends it."""
    folder = bundle(tmp_path, HANG)
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time, pathlib\n"
            "from drift_pipeline.policy.engines.embedded import PROBE, EmbeddedEngine\n"
            f"engine = EmbeddedEngine(pathlib.Path({str(folder)!r}), timeout_seconds=2)\n"
            "engine.evaluate(PROBE)\n"
            "print(engine.pid, flush=True)\n"
            f"engine.evaluate({{**PROBE, 'model': {model!r}}})\n"
            "time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    wait_until_gone(pid)


def test_ctrl_c_is_the_parents_business() -> None:
    with EmbeddedEngine() as engine:
        engine.evaluate(PROBE)
        first = engine.pid
        assert first is not None
        os.kill(first, signal.SIGINT)
        assert engine.evaluate(PROBE).value == RETRAIN
        assert engine.pid == first
