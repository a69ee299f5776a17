"""All commands in one table: what their help shows, how they name a model and a home, and what they end with."""

import ctypes
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import click
import pytest

from drift_pipeline.cli import PURPOSES
from drift_pipeline.cli import drift as top
from drift_pipeline_tests.replay.worlds import Ended, drift, replayed
from drift_pipeline_tests.test_cli_live import MODEL, adopted, adopted_once, laid_out, place

__all__ = ["adopted", "adopted_once", "place"]


def every(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for word, below in command.commands.items():
            yield from every(below, f"{name} {word}".strip())
    else:
        yield name, command


COMMANDS = dict(every(top))
GROUPS = [(), *((name,) for name, command in top.commands.items() if isinstance(command, click.Group))]


# help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_the_screen_and_ends_with_an_example_that_the_command_takes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = drift(*name.split(), "--help").out
    assert max(map(len, shown.splitlines())) <= 80
    _, _, examples = shown.partition("  Example:\n")
    assert examples, shown
    for line in examples.splitlines():
        words = shlex.split(line.partition("|")[0].partition(" > ")[0])
        assert words[: 1 + len(name.split())] == ["drift", *name.split()]
        command = COMMANDS[name]
        command.parse_args(click.Context(command), words[1 + len(name.split()) :])


@pytest.mark.parametrize("words", GROUPS, ids=lambda words: " ".join(words) or "drift")
def test_an_overview_tells_whole_sentences_of_every_command(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = drift(*words, "--help").out
    group = top.commands[words[0]] if words else top
    assert isinstance(group, click.Group)
    assert ("..." in shown.partition("Options:")[2], max(map(len, shown.splitlines())) <= 80) == (False, True)
    assert set(group.commands) <= set(re.findall(r"^  ([a-z]+) +", shown, flags=re.MULTILINE))


def test_commands_stand_in_the_order_in_which_somebody_new_needs_them() -> None:
    shown = drift("--help").out
    assert re.findall(r"^([A-Z][a-z ]+):$", shown, flags=re.MULTILINE)[1:] == list(PURPOSES)
    assert shown.index("demo ") < shown.index("compare ") < shown.index("adopt ") < shown.index("audit ")


def test_no_command_names_a_model_or_a_home_in_another_way() -> None:
    options = {
        (name, option)
        for name, command in COMMANDS.items()
        for one in command.params
        for option in one.opts
        if isinstance(one, click.Option) and one.name in ("model", "models")
    }
    assert options == {("init", "--model")}  # a new one's name
    options_of = [one for command in COMMANDS.values() for one in command.params if isinstance(one, click.Option)]
    homes = {(one.help or "").rpartition("; else ")[2] for one in options_of if one.name == "home"}
    assert homes == {"DRIFT_HOME, or drift_home."}


def test_names_of_models_are_completed(place: Path) -> None:
    asked = {**os.environ, "_DRIFT_COMPLETE": "bash_complete", "COMP_WORDS": "drift status rec", "COMP_CWORD": "2"}
    command = [sys.executable, "-c", "from drift_pipeline.cli import main; main()"]
    found = subprocess.run(command, env=asked, capture_output=True, text=True, check=False)
    assert found.stdout.split() == [f"plain,{MODEL}"], found.stderr


# what they end with: 1 refused, 2 a typo, 4 nothing to do

LOOKING: list[tuple[str, ...]] = [
    ("status", "{model}"),
    ("status", "{model}", "--json"),
    ("versions", "{model}"),
    ("decisions", "{model}"),
    ("card", "{model}", "v1"),
    ("docs", "{model}", "v1"),
    ("incident", "list", "{model}"),
    ("audit", "show", "{model}"),
    ("audit", "list", "{model}"),
]
DOING: list[tuple[str, ...]] = [
    ("retrain", "{model}", "--reason", "x"),
    ("hotfix", "{model}", "--reason", "x"),
    ("promote", "{model}", "--reason", "x"),
    ("rollback", "{model}", "--reason", "x"),
    ("pause", "{model}", "--reason", "x"),
    ("resume", "{model}", "--reason", "x"),
    ("maintenance", "begin", "{model}", "--to", "2099-01-01", "--yes", "--reason", "x"),
    ("maintenance", "end", "{model}", "--reason", "x"),
    ("incident", "ack", "{model}", "--reason", "x"),
    ("incident", "snooze", "{model}", "--for", "1h", "--reason", "x"),
    ("incident", "close", "{model}", "--reason", "x"),
    ("erase", "{model}", "--subject", "u1", "--reason", "x"),
    ("tick", "{model}"),
    ("simulate", "{model}", "--for", "1s"),
]


def of(arguments: tuple[str, ...], model: str) -> Ended:
    return drift(*(word.format(model=model) for word in arguments))


def one_line(ended: Ended) -> str:
    assert (ended.out, len(ended.err.splitlines()), ended.err[:7]) == ("", 1, "drift: "), ended
    return ended.err


@pytest.mark.parametrize("arguments", [*LOOKING, *DOING, ("producer", "add", "app", "{model}")], ids=" ".join)
def test_a_model_that_nobody_knows_is_one_line_and_2(adopted: Path, arguments: tuple[str, ...]) -> None:
    ended = of(arguments, "fraud")
    assert (ended.code, "there is no model 'fraud'" in one_line(ended), MODEL in ended.err) == (2, True, True)


@pytest.mark.parametrize("arguments", [*LOOKING, *DOING, ("models",), ("audit", "list")], ids=" ".join)
def test_an_empty_folder_is_one_line_and_2_and_stays_empty(place: Path, arguments: tuple[str, ...]) -> None:
    ended = of(arguments, MODEL)
    assert (ended.code, "adopt" in one_line(ended)) == (2, True), ended.err
    assert not (place / "home").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("promote", MODEL, "--reason", "now"), 4, "no rollout is under way"),
        (("rollback", MODEL, "--reason", "now"), 4, "no earlier version to go back to"),
        (("incident", "ack", MODEL, "--reason", "me"), 4, "no incident is open"),
        (("incident", "close", MODEL, "--reason", "me"), 4, "no incident is open"),
        (
            ("resume", MODEL, "--reason", "on"),
            4,
            f"is not paused; a maintenance is ended by drift maintenance end {MODEL}",
        ),
        (("maintenance", "end", MODEL, "--reason", "done"), 4, "no maintenance goes on"),
        (("card", MODEL, "v1"), 4, "has no card below"),
        (("card", MODEL, "v7"), 2, f"{MODEL} has no version 'v7'; there are: v1"),
        (("card", MODEL, "v1", "--md", "--json"), 2, "give one of them"),
        (("status", "--watch", "--json"), 2, "give one of them"),
        (("decisions", MODEL, "--since", "soon"), 2, "'soon' is not a time"),
        (("maintenance", "begin", MODEL, "--to", "2099-12-01", "--reason", "x"), 2, "days; say --yes if that is meant"),
        (("maintenance", "begin", MODEL, "--reason", "x"), 2, "--to and --for"),
        (("maintenance", "begin", MODEL, "--for", "31d", "--reason", "x"), 2, "for 31 days; say --yes"),
        (("maintenance", "begin", MODEL, "--for", "999999999d", "--yes", "--reason", "x"), 2, "--for"),
        (("incident", "snooze", MODEL, "--for", "999999999d", "--reason", "x"), 2, "--for"),
        (("producer", "revoke", "app"), 2, "Missing option '--reason'"),
        (("producer", "revoke", "app", "--reason", " "), 2, "--reason: is empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_nothing_to_do_is_told_apart_from_a_typo(
    adopted: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    before = drift("audit", "list", "--json").out
    ended = drift(*arguments)
    assert (ended.code, said in ended.err, "Traceback" in ended.err) == (code, True, False), ended
    assert drift("audit", "list", "--json").out == before


def test_what_the_policy_refuses_again_is_refused_again(adopted: Path) -> None:
    asked = ("retrain", MODEL, "--reason", "x")
    assert [drift(*asked).code for _ in range(3)] == [0, 1, 1]


def test_a_producer_is_revoked_once_with_a_reason(adopted: Path) -> None:
    drift("producer", "add", "app")
    revoke = ("producer", "revoke", "app", "--reason", "it leaked", "--actor", "Ada")
    assert [drift(*revoke).code for _ in range(2)] == [0, 4]
    shown = drift("audit", "list", "--event", "producer.revoked", "--actor", "Ada").out
    assert "reason it leaked" in shown


# reading


def test_a_maintenance_is_ended_and_called_off(adopted: Path) -> None:
    begin = ("maintenance", "begin", MODEL, "--reason", "move", "--actor", "Ada")
    end = ("maintenance", "end", MODEL, "--reason", "moved", "--actor", "Ada")
    assert drift(*begin, "--to", "2099-01-01", "--yes").code == 0
    assert re.search(r"maintenance  20\d\d-\d\d-\d\d \d\d:\d\d to 2099-01-01 00:00 UTC, announced\s+by Ada", status())
    assert drift(*end).code == 0
    assert "maintenance" not in status()
    assert drift(*begin, "--from", "2098-12-31", "--to", "2099-01-01").code == 0
    assert "2098-12-31 00:00 to 2099-01-01" in status()
    assert (drift(*end).code, drift(*end).code) == (0, 4)
    told = drift("audit", "list", "--event", "maintenance").out
    assert re.findall(r"maintenance\.[a-z]+", told) == ["maintenance.announced", "maintenance.ended"] * 2
    assert drift("audit", "verify").code == 0


def status() -> str:
    return drift("status", MODEL).out


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_screen_is_as_wide_as_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    home = replayed()[1]
    for arguments in (("status",), ("models",), ("decisions", MODEL), ("audit", "list"), ("incident", "list")):
        shown = drift(*arguments, "--home", home).out.splitlines()
        longest = max(map(len, shown))
        assert longest <= columns or " " not in max(shown, key=len).strip(), arguments


def test_what_became_of_a_replayed_model_can_be_read() -> None:
    home = replayed()[1]
    versions: list[dict[str, Any]] = json.loads(drift("versions", MODEL, "--home", home, "--json").out)
    told = drift("versions", MODEL, "--home", home).out
    for one in versions:
        assert f"{one['version']}  {one['phase'].replace('_', ' ')} since" in told
        if one["card"] is None:
            continue
        assert drift("card", MODEL, one["version"], "--home", home).out == f"{one['card']}\n"
        assert drift("card", MODEL, one["version"], "--home", home, "--md").out.startswith("# ")
        assert drift("card", MODEL, one["digest"], "--home", home, "--json").summary["version"] == one["version"]
    assert {one["version"] for one in versions if one["card"]} >= {"v2"}
    decided = drift("decisions", MODEL, "--home", home)
    assert " retrain " in decided.out
    none = drift("decisions", MODEL, "--home", home, "--since", "1d")
    assert (none.code, none.out, none.err) == (0, "", f"{MODEL}: nothing was decided\n")


def test_watching_goes_on_until_ctrl_c(adopted: Path) -> None:
    Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    ended = drift("status", "--watch")
    assert (ended.code, "UTC, every 3 s until Ctrl-C" in ended.out, f"{MODEL}  v1" in ended.out) == (130, True, True)
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)], ids=["terminal", "NO_COLOR"])
def test_colour_is_for_terminals_that_want_it(env: dict[str, str], coloured: bool) -> None:
    home = replayed()[1]
    command = [sys.executable, "-c", "from drift_pipeline.cli import main; main()", "status", "--home", str(home)]
    master, slave = os.openpty()
    with subprocess.Popen(command, stdout=slave, env={**os.environ, "TERM": "xterm", **env}) as process:
        os.close(slave)
        shown = os.read(master, 10_000).decode()
        process.wait()
    os.close(master)
    assert ("\x1b[3" in shown, "BREACH" in shown or "OK" in shown or "INCONCLUSIVE" in shown) == (coloured, True)
    assert "\x1b[" not in drift("status", "--home", home).out


def test_a_key_counts_in_the_home_that_the_environment_names(adopted: Path) -> None:
    made = drift("key", adopted / "ada.pem", "--label", "ada")
    assert (made.code, f"trusted by  {adopted / 'home' / 'keys'}" in made.out) == (0, True)
    assert drift("key", adopted / "ada.pub.json").code == 4  # trusted already
    assert [drift("key", adopted / "ada.pub.json", "--revoke").code for _ in range(2)] == [0, 4]
    assert drift("key", "--rotate").code == 0


# a home that nobody may write


@pytest.fixture(scope="module")
def locked(adopted_once: Path) -> Iterator[Path]:
    """A copy of a home whose folders and files may only be read."""
    folder = Path(tempfile.mkdtemp(prefix="drift-locked-"))
    laid_out(folder)
    shutil.copytree(adopted_once, folder / "home")
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    shutil.rmtree(folder)


def without_privilege() -> None:
    """Root, too, is held to the modes of files from now on (PR_CAPBSET_DROP, CAP_DAC_OVERRIDE and _READ_SEARCH)."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability)


def as_somebody(locked: Path, commands: list[tuple[str, ...]]) -> dict[tuple[str, ...], Ended]:
    """Each command by a user who may not write."""
    said = [[word.format(model=MODEL) for word in words] for words in commands]
    env = {**os.environ, "DRIFT_HOME": str(locked / "home"), "DRIFT_MODELS": str(locked / "models")}
    script = "import json, sys; from drift_pipeline_tests.replay.worlds import drift; "
    script += "print(json.dumps([vars(drift(*words)) for words in json.loads(sys.argv[1])]))"
    command = [sys.executable, "-c", script, json.dumps(said)]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, preexec_fn=without_privilege, check=True)
    return {words: Ended(**ended) for words, ended in zip(commands, json.loads(ran.stdout), strict=True)}


def test_a_home_that_nobody_may_write_can_be_read(locked: Path) -> None:
    for words, ended in as_somebody(locked, [*LOOKING, ("models",), ("audit", "list")]).items():
        assert (ended.code, "Traceback" in ended.err) == (4 if words[0] in ("card", "docs") else 0, False), (
            words,
            ended,
        )


def test_a_home_that_nobody_may_write_is_one_line_for_who_would(locked: Path, tmp_path: Path) -> None:
    mine = str(tmp_path / "ada.pem")
    changing = [("producer", "add", "app"), ("key", mine, "--label", "ada"), ("key", "--rotate"), ("retain", "--apply")]
    for words, ended in as_somebody(locked, [*DOING[:-1], *changing]).items():
        assert (ended.code, str(locked / "home") in one_line(ended)) == (3, True), (words, ended)
    assert [*tmp_path.iterdir()] == []  # no key is left that counts nowhere


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--live", "--json"), "--json: is of the demo without --live"),
        (("--live", "--seed", "3"), "--seed: is of the demo without --live"),
        (("--end",), "--end: is of the live demo"),
        (("--live",), "is not empty; name a new folder"),
        (("--live", "--overwrite"), "is not empty; name a new folder"),
    ],
)
def test_a_live_demo_refuses_what_it_would_not_do(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "mine").write_text("mine")
    ended = drift("demo", "--home", str(tmp_path), *arguments)
    assert (ended.code, said in ended.err) == (2, True), ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
