"""The READMEs' "Run it live", word for word but for the ports: adopt, ask, tell how it turned out, operate."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import httpx
import numpy as np
import polars as pl
import pytest

from drift_pipeline_tests.integration.drill import end_all, free_port, is_ready

TOP = Path(__file__).parents[2]
README = "\n".join((TOP / file).read_text() for file in ("README.md", "drift_pipeline/serving/README.md"))
MARKET = ("period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer")
NOTHING_TO = {"rollback": "no earlier version", "promote": "no rollout is under way", "incident": "no incident is open"}
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine"),
]


def commands(mark: str) -> list[str]:
    """Of the fence after the mark; what follows a line without a "$ " of its own belongs to it."""
    fence = re.search(rf"<!-- test: {mark} -->\n```console\n\$ (.*?)\n```", README, flags=re.DOTALL)
    assert fence is not None, mark
    return fence[1].split("\n$ ")


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Terminal"]:
    made = Terminal(tmp_path_factory.mktemp("readme"))
    yield made
    made.close()


class Terminal:
    """A folder in which the README's lines are typed; the ports are free ones instead of the defaults."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.dagster_port, self.pages_port = free_port(), free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "DRIFT_"))}
        paths = (str(Path(sys.executable).parent), kept.get("PATH", ""))
        self.environment = {**kept, "PATH": os.pathsep.join(paths), "no_proxy": "localhost,127.0.0.1"}
        self._running: list[subprocess.Popen[bytes]] = []

    def type(self, *lines: str) -> "subprocess.CompletedProcess[str]":
        """All of them in one shell, which ends at the first that fails."""
        script = "\n".join(["set -e", *lines]).replace("localhost:8080", f"localhost:{self.port}")
        script = script.replace("drift simulate", f"drift simulate --url http://localhost:{self.port}")
        typed = ["bash", "-c", script]
        return subprocess.run(
            typed, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=180
        )

    def start(self, line: str) -> None:
        with (self.folder / "up.log").open("wb") as log:
            ports = f"--port {self.port} --dagster-port {self.dagster_port} --pages-port {self.pages_port}"
            command = f"exec {line} {ports}"
            self._running.append(
                subprocess.Popen(["bash", "-c", command], cwd=self.folder, env=self.environment, stdout=log, stderr=log)
            )
        end = time.monotonic() + 120
        while not is_ready(f"http://127.0.0.1:{self.port}/v2/health/ready"):
            assert time.monotonic() < end, (self.folder / "up.log").read_text()
            time.sleep(0.5)

    def metrics(self) -> str:
        """What the gateway of `drift up` tells Prometheus, by the key that it made."""
        (key,) = self.folder.rglob("keys/gateway.key")
        headers = {"Authorization": f"Bearer {key.read_text().strip()}"}
        return httpx.get(f"http://127.0.0.1:{self.port}/metrics", headers=headers, timeout=30, trust_env=False).text

    def close(self) -> None:
        assert end_all(self._running) in ([0], [130])


def test_the_section_on_ones_own_data_does_what_it_says(tmp_path: Path) -> None:
    """Word for word, on a market's history of another one's making."""
    random = np.random.default_rng(0)
    times = pl.datetime_range(date(2026, 1, 1), date(2026, 5, 31), "30m", time_zone="UTC", eager=True)
    frame = pl.DataFrame({"timestamp": times, **{name: random.normal(size=len(times)) for name in MARKET}})
    up = frame["nswprice"] + random.normal(size=len(times)) > 0
    frame = frame.with_columns(price_up=up.cast(pl.Int8), note=pl.lit("x"))
    (tmp_path / "elec2.csv.gz").write_bytes(gzip.compress(frame.drop("note").write_csv().encode()))
    ref, cur = frame.head(2000), frame.tail(2000)
    ref.write_parquet(tmp_path / "ref.parquet")
    cur.write_csv(tmp_path / "cur.csv")
    terminal = Terminal(tmp_path)
    typed = terminal.type(*commands("own"))
    assert typed.returncode == 0, typed.stderr
    assert (tmp_path / "compare.html").is_file()
    code = re.search(r"```python\n(.*?)\n```", README, flags=re.DOTALL)
    assert code is not None
    begin = "import polars as pl\nref, cur = pl.read_parquet('ref.parquet'), pl.read_csv('cur.csv')"
    lines = [begin, "history = 'elec2.csv.gz'", code[1]]
    ran = terminal.type(f"python - <<'PYTHON'\n{chr(10).join(lines)}\nPYTHON")
    assert ran.returncode == 0, ran.stderr


def test_the_live_section_does_what_it_says(terminal: Terminal) -> None:
    first = commands("up")
    assert first[-1] == "drift up"
    ended = terminal.type(*first[:-1])
    assert ended.returncode == 0, ended.stderr
    exports = first[0]
    terminal.start(f"env {exports.removeprefix('export ')} drift up")

    end = time.monotonic() + 60
    while "\ndrift_up 1.0\n" not in (told := terminal.metrics()):  # left out while the control store is slow
        assert time.monotonic() < end, told
    assert '\ndrift_model_info{model="recommendation_v3",' in told  # so nobody has to start drift exporter

    ended = terminal.type(*commands("ask"))
    assert ended.returncode == 0, ended.stderr
    answer, taken, simulated = (json.loads(line) for line in ended.stdout.replace("}{", "}\n{").splitlines())
    assert (answer["id"], answer["model_version"], taken["taken"]) == ("p1", "v1", 1)
    assert simulated["answered"] == simulated["labels"] == 500

    for line in commands("verbs"):
        verb = line.split()[1]
        ended = terminal.type(exports, line)
        said = NOTHING_TO.get(verb)
        assert (ended.returncode, said is None or said in ended.stderr) == (4 if said else 0, True), (line, ended)
    for line in commands("audit"):
        ended = terminal.type(line)
        assert (ended.returncode, ended.stdout != "") == (0, True), (line, ended)
    found = json.loads(terminal.type(exports, "drift status --json").stdout)
    assert [one["model"] for one in found] == ["recommendation_v3"]
