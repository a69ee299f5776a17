"""`drift` with versions that are mirrored to W&B: the demo without a network, and a package that is not installed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from drift_pipeline_tests.components.worlds import copied
from drift_pipeline_tests.registry.wandb_runs import read_run
from drift_pipeline_tests.registry.wandb_worlds import runs_of

WITHOUT = 'import sys; sys.modules["wandb"] = None; from drift_pipeline.cli import main; main()'
WITH = "from drift_pipeline.cli import main; main()"


Ended = subprocess.CompletedProcess[str]


def ran(script: str, *arguments: str, before: Sequence[str] = (), environment: Mapping[str, str] = {}) -> Ended:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "DRIFT_"))}
    command = [*before, sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**ours, **environment})


@pytest.mark.parametrize("arguments", [("tick",), ("serve", "--port", "0"), ("capture", "--once"), ("demo",)])
def test_a_package_that_is_not_installed_is_told_with_what_to_install(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    home = tmp_path / "home" if arguments == ("demo",) else copied(tmp_path / "home")
    ended = ran(WITHOUT, *arguments, "--home", str(home), environment={"DRIFT_REGISTRY": "wandb"})
    assert ended.returncode == 2, ended.stderr
    assert "install drift-pipeline[wandb]" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("mode", "key", "said"),
    [
        ("", "", "since WANDB_API_KEY is not set"),
        ("offline", "k", "since WANDB_MODE says so"),
        ("disabled", "k", "nothing is written: WANDB_MODE=disabled is set"),
    ],
)
def test_status_tells_in_a_line_how_what_is_kept_offline_is_sent(
    tmp_path: Path, mode: str, key: str, said: str
) -> None:
    home = copied(tmp_path / "home")
    (home / "wandb" / "offline-run-1").mkdir(parents=True)
    given = {"DRIFT_REGISTRY": "wandb", "WANDB_MODE": mode, "WANDB_API_KEY": key}
    _, line = ran(WITH, "status", "--home", str(home), environment=given).stdout.split("wandb: ")
    assert said in " ".join(line.split())
    assert "wandb: " not in ran(WITH, "status", "--home", str(home)).stdout


@pytest.mark.live
def test_the_demo_ends_as_it_does_and_no_network_is_there(tmp_path: Path) -> None:
    """In a network namespace of its own, where this machine lets anybody make one, that has not even a loopback."""
    alone = ("unshare", "-rn") if shutil.which("unshare") else ()
    alone = alone if alone and subprocess.run([*alone, "true"], check=False).returncode == 0 else ()
    ended = ran(WITH, "demo", "--registry", "wandb", "--home", str(tmp_path / "home"), before=alone)
    assert ended.returncode == 0, ended.stderr
    assert "runs are kept offline, since WANDB_API_KEY is not set" in ended.stdout
    kinds = [read_run(path).kind for path in runs_of(tmp_path / "home")]
    assert kinds[:3] == ["adopt", "profile", "fit"]
    assert kinds[-1] == "stand"


@pytest.mark.live
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_written_offline_it_asks_for_no_address(tmp_path: Path) -> None:
    """Telemetry and error reporting, too. A library binds ::1 to see whether the machine has IPv6; nobody connects."""
    home, trace = copied(tmp_path / "home"), tmp_path / "trace"
    script = "import sys; from pathlib import Path; from drift_pipeline_tests.registry.wandb_worlds import *; "
    script += "delivered(offline(Path(sys.argv[1])))"
    strace = ("strace", "-f", "-e", "trace=connect,sendto", "-o", str(trace))
    assert ran(script, str(home), before=strace).returncode == 0
    assert len(runs_of(home)) > 4
    asked = [line for line in trace.read_text().splitlines() if "AF_INET" in line]
    assert asked == []
