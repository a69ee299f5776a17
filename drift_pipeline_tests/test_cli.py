"""The `drift` command: exit codes, messages, and what is left behind when it is refused or interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from drift_pipeline import __version__
from drift_pipeline.spec import read_spec
from drift_pipeline.telemetry.history import read_history
from drift_pipeline_tests.replay.worlds import SPEC, data, drift, history, replay, replayed

COMMAND = [sys.executable, "-c", "from drift_pipeline.cli import main; main()"]


# usage


@pytest.mark.parametrize("arguments", [(), ("--help",), ("audit",), ("replay", "--help"), ("sample", "--help")])
def test_help_is_no_error(arguments: tuple[str, ...]) -> None:
    ended = drift(*arguments)
    assert ended.code == 0
    assert ended.out.startswith("Usage: drift")
    assert ended.err == ""


def test_the_version_is_told() -> None:
    assert __version__ in drift("--version").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fly",), "No such command 'fly'"),
        (("replay", "--fly"), "--fly"),
        (("replay", "--spec", "s.yaml", "--out", "o"), "Missing argument 'DATA'"),
        (("replay", "h.csv", "--out", "o"), "Missing option '--spec'"),
        (("replay", "h.csv", "--spec", "s.yaml"), "Missing option '--out'"),
        (("replay", "h.csv", "--spec", "s.yaml", "--out", "o", "--reference", "90"), "'90' is not a duration"),
        (("replay", "h.csv", "--spec", "s.yaml", "--out", "o", "--from", "05/01/2026"), "'05/01/2026' is not a time"),
        (("replay", "h.csv", "--spec", "s.yaml", "--out", "o", "--triggers", "whim"), "'whim' is not one of"),
        (("replay", "h.csv", "--spec", "s.yaml", "--out", "o", "--seed", "-1"), "-1 is not in the range"),
        (("sample", "x", "--days", "3"), "3 is not in the range"),
    ],
)
def test_wrong_usage_ends_with_two(arguments: tuple[str, ...], said: str) -> None:
    ended = drift(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


# bad input leaves one message and nothing else


def bad_input(tmp_path: Path, frame: pl.DataFrame | bytes, *options: object, spec: str = SPEC) -> str:
    """The message of a refused replay, which left nothing in or beside --out."""
    source = tmp_path / "h.parquet"
    if isinstance(frame, bytes):
        source.write_bytes(frame)
    else:
        frame.write_parquet(source)
    (tmp_path / "out.yaml").write_text(spec)
    before = sorted(tmp_path.rglob("*"))
    command = ("replay", source, "--spec", tmp_path / "out.yaml", "--out", tmp_path / "new" / "out", *options)
    ended = drift(*command)
    assert (ended.code, ended.out) == (2, ""), ended
    assert ended.err.startswith("drift: ")
    assert "Traceback" not in ended.err
    assert sorted(tmp_path.rglob("*")) == before
    return ended.err


def head() -> pl.DataFrame:
    return history().head(300)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (lambda: head().drop("price_eur"), "price_eur"),
        (lambda: head().with_columns(ts=pl.lit("yesterday")), "'yesterday' is not a time"),
        (lambda: head().with_columns(prediction_id=pl.lit("p1")), "the prediction id 'p1' stands already"),
        (lambda: head().with_columns(clicked=pl.lit(1)), "holds only positive labels; both classes are needed"),
        (lambda: head().with_columns(clicked=pl.lit(None, pl.Int8)), "holds no label at all"),
        (lambda: head().head(0), "holds no rows"),
        (lambda: b"", "cannot be read"),
        (lambda: b"PAR1 and nothing more PAR1", "cannot be read"),
    ],
)
def test_data_that_cannot_be_used_is_refused(tmp_path: Path, frame: object, said: str) -> None:
    assert said in bad_input(tmp_path, frame())  # type: ignore[operator]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (SPEC + "retrian: {trials: 1}\n", "unknown key; did you mean 'retrain'?"),
        (SPEC.replace("owner: ", "owner: '{{ env.OWNER }}' # "), ":2: '{{' found"),
        (SPEC.replace("task: binary_classification", "task: multiclass"), ":3: task: 'multiclass' is not supported"),
        ("- a list\n", "a spec is a YAML mapping"),
    ],
)
def test_a_spec_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path, spec: str, said: str) -> None:
    assert said in bad_input(tmp_path, head(), spec=spec)


def test_an_unknown_key_is_told_with_its_line(tmp_path: Path) -> None:
    line = len(SPEC.splitlines()) + 1
    assert f"out.yaml:{line}: retrian: " in bad_input(tmp_path, head(), spec=SPEC + "retrian: {trials: 1}\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--set", "kpis.auroc.dorp=0.03"), "--set: kpis.auroc.dorp: unknown key; did you mean 'drop'?"),
        (("--set", "kpis.auroc.drop"), "write dotted.key=value"),
        (("--set", "retrain.trials=many"), "--set: retrain.trials: "),
        (("--reference", "200d"), "before the reference span does"),
        (("--reference", "5d"), "where retrain.min_rows is 1,000: give --reference 11d, in which as many are"),
        (("--reference", "0d"), "longer than nothing"),
        (("--step", "0h"), "longer than nothing"),
        (("--from", "2030-01-01"), "no row is left"),
        (("--outcomes", "absent.csv"), "there is no such file"),
        (("--timestamp", "when"), "'when'"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    assert said in bad_input(tmp_path, history().head(2000), *options)


def test_data_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SPEC)
    ended = drift("replay", tmp_path / "absent.csv", "--spec", tmp_path / "s.yaml", "--out", tmp_path / "out")
    assert (ended.code, ended.out) == (2, "")
    assert "there is no such file or folder" in ended.err
    assert not (tmp_path / "out").exists()


# --out


def test_an_out_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    ended = replay(data(), tmp_path / "file" / "out", "--to", "2026-02-03")
    assert ended.code == 2
    assert "cannot be written" in ended.err
    assert (tmp_path / "file").read_text() == "mine"


def test_an_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    ended = replay(data(), tmp_path / "out", "--overwrite")
    assert ended.code == 2
    assert "is a file" in ended.err
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("name", ["what?", "50%"])
def test_an_out_that_the_backends_cannot_spell_is_refused_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    ended = replay(data(), tmp_path / name, "--to", "2026-02-04")
    assert ended.code == 2
    assert "choose another folder" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_refused_without_overwrite(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    ended = replay(data(), tmp_path)
    assert ended.code == 2
    assert "is not empty; name a new folder, or replace it with --overwrite" in ended.err


@pytest.mark.parametrize("name", ["thesis.txt", "summary.json"])
def test_overwrite_replaces_no_folder_but_a_replays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    ended = replay(data(), tmp_path, "--overwrite")
    assert ended.code == 2
    assert "it is no replay's folder; it is not replaced" in ended.err
    assert (tmp_path / name).read_text() == "mine"


def test_overwrite_replaces_a_replay_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert replay(data(), out, "--to", "2026-02-04").code == 0
    (out / "leftover").write_text("x")
    ended = replay(data(), out, "--to", "2026-02-05", "--overwrite")
    assert json.loads((out / "summary.json").read_text()) == ended.summary
    assert not (out / "leftover").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_refused_overwrite_keeps_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    replay(data(), out, "--to", "2026-02-04")
    before = (out / "summary.json").read_text()
    assert replay(data(), out, "--reference", "500d", "--overwrite").code == 2
    assert (out / "summary.json").read_text() == before


def test_the_current_folder_may_be_the_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "s.yaml").write_text(SPEC)
    ended = drift("replay", data(), "--spec", "../s.yaml", "--out", ".", "--reference", "28d", "--to", "2026-02-04")
    assert ended.code == 0, ended.err
    assert (tmp_path / "here" / "summary.json").is_file()


def test_a_history_with_nothing_to_judge_after_the_reference_is_inconclusive(tmp_path: Path) -> None:
    ended = replay(data(), tmp_path / "out", "--to", "2026-02-02T06:00Z", "--step", "6h")
    assert ended.code == 3, ended.err
    assert ended.summary["auroc"]["loop"] is None


# the result in words


def test_without_json_the_summary_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SPEC)
    options = ("--reference", "28d", "--to", "2026-02-08")
    ended = drift("replay", data(), "--spec", tmp_path / "s.yaml", "--out", tmp_path / "out", *options)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("recommendation_v3: 3,400 rows, 2026-01-05 to 2026-02-08, 6 ticks\n")
    assert "records, verified" in ended.out
    assert str(tmp_path / "out") in ended.out
    assert ended.complaints == []


# sample


def test_a_sample_is_what_replay_reads(tmp_path: Path) -> None:
    ended = drift("sample", tmp_path / "s", "--days", 120, "--rows-per-day", 40, "--seed", 7)
    assert ended.code == 0, ended.err
    command = ("replay", tmp_path / "s" / "history.parquet", "--spec", tmp_path / "s" / "defs.yaml")
    ended = drift(*command, "--out", tmp_path / "out", "--to", "2026-04-10", "--json")
    assert ended.code == 0, ended.err
    assert ended.summary["rows"] == 95 * 40


def test_a_sample_may_be_of_numbers(tmp_path: Path) -> None:
    ended = drift("sample", tmp_path / "s", "--days", 120, "--rows-per-day", 20, "--regression")
    assert ended.code == 0, ended.err
    found = read_history(tmp_path / "s/history.parquet", read_spec(tmp_path / "s/defs.yaml"))
    assert found.frame["_label"].n_unique() > 1000


def test_a_calm_sample_is_the_same_until_the_change_that_it_does_not_have(tmp_path: Path) -> None:
    for name, options in (("changed", ()), ("calm", ("--calm",))):
        assert drift("sample", tmp_path / name, "--days", 120, "--rows-per-day", 20, *options).code == 0
    changed, calm = (pl.read_parquet(tmp_path / name / "history.parquet") for name in ("changed", "calm"))
    before = int(120 * 0.6) * 20
    assert changed[:before].equals(calm[:before])
    assert changed.drop("clicked").equals(calm.drop("clicked"))
    assert not changed["clicked"].equals(calm["clicked"])


def test_a_sample_says_in_json_where_it_is(tmp_path: Path) -> None:
    said = json.loads(drift("sample", tmp_path / "s", "--days", 120, "--rows-per-day", 20, "--json").out)
    assert (said["rows"], said["days"]) == (2400, 120)
    assert Path(said["history"]).is_file()
    assert Path(said["spec"]).is_file()


def test_a_sample_goes_into_no_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for taken in (tmp_path, tmp_path / "thesis.txt"):
        ended = drift("sample", taken)
        assert ended.code == 2
        assert "is not an empty folder" in ended.err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


# interrupted


def started(tmp_path: Path, *options: str) -> "subprocess.Popen[str]":
    (tmp_path / "s.yaml").write_text(SPEC)
    command = [*COMMAND, "replay", str(data()), "--spec", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out")]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*command, "--reference", "28d", *options], stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def group_of(leader: int) -> list[int]:
    """The processes, the dead excepted, of the group that a process leads."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.live
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_ctrl_c_leaves_a_partial_result_that_verifies_and_no_process(tmp_path: Path) -> None:
    process = started(tmp_path, "--json", "--step", "1h")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*/lake/*/predictions/_delta_log")) or len(group_of(process.pid)) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the policy's process too
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert json.loads(out) == summary
    assert summary["partial"] is True
    assert summary["audit"]["verified"] is True
    assert 0 < summary["evaluations"] < 56 * 24
    assert group_of(process.pid) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "s.yaml"]
    assert drift("audit", "verify", "--home", tmp_path / "out").code == 0


# no network

GUARD = """
import os, socket, sys
def refuse(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.client.", "ftplib.", "smtplib.")):
        print("REACHED OUT", event, file=sys.stderr, flush=True)
        os._exit(77)
sys.addaudithook(refuse)
"""


@pytest.mark.parametrize(
    "reach",
    [
        "socket.create_connection(('127.0.0.1', 9))",
        "socket.socket().connect(('127.0.0.1', 9))",
        "socket.socket().bind(('127.0.0.1', 0))",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "socket.getaddrinfo('localhost', 80)",
        "__import__('urllib.request').request.urlopen('http://127.0.0.1:9')",
    ],
)
def test_the_guard_against_sockets_fires(reach: str) -> None:
    found = subprocess.run([sys.executable, "-c", GUARD + reach], capture_output=True, text=True, check=False)
    assert found.returncode == 77, found.stderr
    assert "REACHED OUT " in found.stderr


def test_a_replay_opens_no_socket(tmp_path: Path) -> None:
    """Reference to the first scheduled training and its rollout: every stage works behind the guard."""
    (tmp_path / "s.yaml").write_text(SPEC)
    arguments = ["replay", str(data()), "--spec", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out"), "--json"]
    arguments += ["--reference", "28d", "--to", "2026-03-07", "--triggers", "schedule"]
    script = f"{GUARD}from drift_pipeline.cli import main; main({arguments!r})"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "REACHED OUT" not in found.stderr
    assert json.loads(found.stdout)["retrains"]


def test_json_is_all_that_stands_on_stdout() -> None:
    ended, out = replayed()
    assert ended.out == (out / "summary.json").read_text()
    assert ended.complaints == []
