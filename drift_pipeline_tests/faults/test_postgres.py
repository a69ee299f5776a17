"""A PostgreSQL server that is down, restarts, hangs, refuses or is somebody else's; and a home that moves to it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from drift_pipeline.cli import drift
from drift_pipeline.clock import SystemClock
from drift_pipeline.control import postgres
from drift_pipeline.control.moving import move_store
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.store import ControlStore, Entry, Message, Put
from drift_pipeline.control.trust import open_store
from drift_pipeline.control.verifying import verify
from drift_pipeline.errors import DriftError, InputError, NothingToDoError, RefusedError, UnavailableError
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.serving import up
from drift_pipeline.settings import ASIDE, Settings
from drift_pipeline.training.search import make_study
from drift_pipeline.training.studies import keep_study
from drift_pipeline_tests.parts import postgres as part
from drift_pipeline_tests.parts.postgres import PASSWORD, Postgres

pytestmark = pytest.mark.live

ENTRY = Entry("loop", "promoted", "fraud")
SECRETS = (PASSWORD, quote(PASSWORD, safe=""), "hunter2")


@pytest.fixture
def own(postgres_server: Postgres) -> Iterator[Postgres]:
    """A server of the test's own, which it may break; skipped where there is none."""
    with part.running() as server:
        yield server


@contextmanager
def hanging(server: Postgres) -> Iterator[None]:
    """It takes connections, and nobody answers."""
    children = Path(f"/proc/{server.server.pid}/task/{server.server.pid}/children").read_text().split()
    pids = [server.server.pid, *map(int, children)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_server_that_is_gone_for_a_while_loses_nothing_and_is_taken_up_again(own: Postgres) -> None:
    with closing(ControlStore(own.url, SystemClock())) as store, closing(ControlReader(own.url)) as reader:
        for n in range(5):
            store.commit(ENTRY, [Put("model", f"m{n}", {})], [Message(f"m{n}", "alert", {})])
        own.server.kill()
        for call in (lambda: store.commit(ENTRY), store.head, reader.snapshot, lambda: store.delivered("m1")):
            with pytest.raises(UnavailableError, match="did not answer"):
                call()
        own.server.start()
        assert store.commit(ENTRY).seq == 6
        assert verify(reader.records(), snapshot=reader.snapshot()).ok
        assert len(store.pending()) == 5


def test_connections_that_the_server_ends_are_made_anew(own: Postgres) -> None:
    with closing(ControlStore(own.url, SystemClock())) as store:
        store.commit(ENTRY)
        own.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'drift_pipeline'")
        assert store.commit(ENTRY).seq == 2


def test_a_server_that_hangs_is_not_waited_for_without_an_end(own: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "ANSWER_S", 1.0)
    monkeypatch.setattr(postgres, "CONNECT_S", 1.0)
    with closing(ControlStore(own.url, SystemClock())) as store:
        store.commit(ENTRY)
        with hanging(own):
            began = time.monotonic()
            for call in (
                lambda: store.commit(ENTRY),
                lambda: ControlReader(own.url),
                lambda: ControlStore(own.url, SystemClock()),
            ):
                with pytest.raises(UnavailableError, match="did not answer: no answer within 1 s"):
                    call()
            assert time.monotonic() - began < 20
        head = store.head()
        assert head is not None
        assert store.commit(ENTRY).seq == head.seq + 1
        assert verify(store.records()).ok


def test_a_writer_that_waits_too_long_for_another_gives_up(own: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "STATEMENT_S", 1)
    with closing(ControlStore(own.url, SystemClock())) as one, closing(ControlStore(own.url, SystemClock())) as other:
        with one.alone():
            with pytest.raises(UnavailableError, match="statement timeout"):
                other.commit(ENTRY)
            assert other.head() is None  # readers do not wait
        assert other.commit(ENTRY).seq == 1


def test_a_writer_that_was_killed_in_its_commit_holds_nobody_up(own: Postgres) -> None:
    script = (
        "import os, signal, sys\nfrom drift_pipeline.clock import SystemClock\n"
        "from drift_pipeline.control.store import ControlStore\n"
        "with ControlStore(sys.argv[1], SystemClock()).alone():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, own.url], check=False).returncode == -signal.SIGKILL
    with closing(ControlStore(own.url, SystemClock())) as store:
        assert store.commit(ENTRY).seq == 1


def test_a_store_restored_from_an_older_copy_is_found_by_its_checkpoints(own: Postgres, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", database=own.url)
    with closing(open_store(settings, SystemClock())) as store:
        store.commit(ENTRY)
        store.checkpoint()
    assert verify_home(settings).ok
    own.ask("CREATE DATABASE older TEMPLATE drift")
    with closing(open_store(settings, SystemClock())) as store:
        for _ in range(3):
            store.commit(ENTRY)
        store.checkpoint()
    assert verify_home(settings).ok
    own.ask("DROP DATABASE drift WITH (FORCE)")
    own.ask("ALTER DATABASE older RENAME TO drift")
    said = verify_home(settings)
    assert not said.ok
    assert "checkpoint" in said.reason


def test_a_locale_that_sorts_otherwise_changes_nothing(own: Postgres) -> None:
    locale = "LOCALE_PROVIDER icu ICU_LOCALE 'en' LOCALE 'C.UTF-8' ENCODING 'UTF8' TEMPLATE template0"
    own.ask(f"CREATE DATABASE drift {locale}")
    with closing(ControlStore(own.url, SystemClock())) as store:
        names = ["fraud/kpis/000000000001", "fraud/kpis/000000000002", "fraud_2/kpis/1", "FRAUD/kpis/1"]
        store.remember(*(Put("", name, {}) for name in names))
        assert [record.key for record in store.recalled("fraud/kpis/")] == names[:2]


def test_another_programs_database_is_refused(own: Postgres) -> None:
    own.ask("CREATE DATABASE drift")
    own.ask("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)", "drift")
    with pytest.raises(InputError, match="another program's"):
        ControlStore(own.url, SystemClock())


def test_a_user_who_may_make_no_database_is_told_which_to_make(own: Postgres) -> None:
    own.ask("CREATE ROLE poor LOGIN PASSWORD 'hunter2'")
    url = own.url.replace(f"drift:{SECRETS[1]}", "poor:hunter2")
    with pytest.raises(InputError, match=r"no database 'drift' .* CREATE DATABASE") as told:
        ControlStore(url, SystemClock())
    assert "hunter2" not in str(told.value)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


VERBS = [
    ["status"],
    ["models"],
    ["versions", "recommendation_v3"],
    ["decisions", "recommendation_v3"],
    ["incident", "list"],
    ["audit", "verify"],
    ["audit", "list"],
    ["tick"],
    ["retrain", "recommendation_v3", "--reason", "x"],
    ["rollback", "recommendation_v3", "--reason", "x"],
    ["promote", "recommendation_v3", "--reason", "x"],
    ["pause", "recommendation_v3", "--reason", "x"],
    ["producer", "add", "shop"],
    ["producer", "list"],
    ["serve", "--port", "0"],
    ["capture", "--once"],
    ["pages", "--port", "0"],
    ["up", "--port", str(free_port())],
    ["lineage"],
    ["retain"],
    ["key", "ada.json", "--label", "ada", "--identity", "ada"],
]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: " ".join(verb[:2]))
def test_each_verb_says_in_one_sentence_that_the_server_is_down(
    verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFT_HOME", "home")
    monkeypatch.setenv("DRIFT_DATABASE", f"postgresql://drift:hunter2@127.0.0.1:{free_port()}/drift")
    ran = CliRunner().invoke(drift, verb, standalone_mode=False)
    assert isinstance(ran.exception, DriftError), (ran.output, ran.exception)
    assert (ran.exception.exit_code, str(ran.exception).count("\n")) == (3, 0)
    assert "did not answer: Connection refused" in str(ran.exception).replace('connection to server at "127.0.0.1"', "")
    assert "hunter2" not in str(ran.exception) + ran.output


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@h:port/x",
        "postgresql://u:hunter2@hunter2@h/x",
        "postgresql+psycopg://u:hunter2@h/x",
        "postgresql+nosuch://u:hunter2@h/x",
        "postgresql://u:hunter2@h",
        "mysql://u:hunter2@h/x",
        "://u:hunter2@h/x",
        "hunter2",
        "postgresql://u:hunter2@nosuch.invalid/x?password=hunter2",
    ],
)
def test_no_url_that_is_wrong_shows_its_password(url: str) -> None:
    store, reader = partial(ControlStore, url, SystemClock()), partial(ControlReader, url)
    openings: tuple[Callable[[], ControlReader], ...] = (store, reader)
    for opening in openings:
        with pytest.raises((InputError, UnavailableError)) as told:
            opening()
        assert "hunter2" not in str(told.value)


def test_settings_show_no_password() -> None:
    settings = Settings(database="postgresql://u:hunter2@h/x")
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


# a home moves


def home_of(folder: Path, records: int = 30) -> Settings:
    settings = Settings(home=folder, database="", checkpoint_records=7)
    with closing(open_store(settings, SystemClock())) as store:
        for n in range(records):
            puts = [Put("model", f"é '{n}", {"n": n, "text": 'a "b" \\ \x00 😀'})]
            store.commit(Entry("loop", "x", "y", details={"n": n}), puts, [Message(f"m{n}", "alert", {"n": n})])
        store.delivered("m0")
        store.remember(Put("", "fraud", {"n": 1}))
    return settings


def told(url: str) -> Any:
    with closing(ControlReader(url)) as reader:
        assert verify(reader.records(), snapshot=reader.snapshot()).ok
        return (
            list(reader.records()),
            reader.snapshot(),
            reader.pending(limit=1000),
            reader.recalled(""),
            reader.find("model"),
        )


def test_a_home_moves_with_its_chain_and_goes_on(own: Postgres, tmp_path: Path) -> None:
    settings = home_of(tmp_path / "home")
    before = told(settings.database_url)
    environment = {"DRIFT_DATABASE": own.url, "DRIFT_HOME": str(settings.home)}
    ran = CliRunner(env=environment).invoke(drift, ["home", "migrate", "--json"], standalone_mode=False)
    assert ran.return_value == 0, ran.exception
    moved = json.loads(ran.stdout)
    assert moved["rows"] == {"state": 32, "memory": 2, "audit": 31, "outbox": 31}
    assert not any(secret in ran.output for secret in SECRETS)
    assert told(own.url) == before
    assert told(f"sqlite:///{settings.home / 'control.db.moved'}") == before
    there = Settings(home=settings.home, database=own.url, checkpoint_records=7)
    assert verify_home(there).ok
    with closing(open_store(there, SystemClock())) as store:
        assert store.commit(ENTRY, messages=[Message("new", "alert", {})]).seq == 32
        assert store.pending(limit=1000)[-1].id == "new"
    assert verify_home(there).ok
    for opening in (open_store, lambda settings, _: verify_home(settings)):
        with pytest.raises(InputError, match="moved to a server; set DRIFT_DATABASE"):
            opening(settings, SystemClock())
    for verb in ("status", "lineage", "capture", "tick"):
        ran = CliRunner(env={"DRIFT_HOME": str(settings.home), "DRIFT_DATABASE": ""}).invoke(drift, [verb])
        assert "moved to a server; set DRIFT_DATABASE" in str(ran.exception)
    assert not (settings.home / "control.db").exists()
    with pytest.raises(NothingToDoError, match="was moved already"):
        move_store(settings.home, own.url)


def test_who_still_has_the_old_store_open_is_told_and_writes_nothing(own: Postgres, tmp_path: Path) -> None:
    settings = home_of(tmp_path / "home", 3)
    with closing(ControlStore(settings.database_url, SystemClock())) as open_still:
        move_store(settings.home, own.url)
        for call in (
            lambda: open_still.commit(ENTRY),
            lambda: open_still.remember(Put("", "x", {})),
            lambda: open_still.delivered("m0"),
        ):
            with pytest.raises(InputError, match=r"moved to postgresql://drift:\*\*\*@"):
                call()


def test_a_database_that_holds_something_else_is_refused_and_nothing_moves(own: Postgres, tmp_path: Path) -> None:
    with closing(ControlStore(own.url, SystemClock())) as store:
        store.commit(ENTRY)
    settings = home_of(tmp_path / "home", 3)
    with pytest.raises(RefusedError, match="another control store's rows"):
        move_store(settings.home, own.url)
    with closing(open_store(settings, SystemClock())) as store:
        assert store.commit(ENTRY).seq == 5


@pytest.mark.parametrize("url", ["sqlite:///x.db", "", "mysql://a:hunter2@b/c", "postgresql://a:hunter2@b"])
def test_a_home_moves_to_nothing_else(url: str, tmp_path: Path) -> None:
    settings = home_of(tmp_path / "home", 1)
    with pytest.raises(InputError) as refused:
        move_store(settings.home, url)
    assert "hunter2" not in str(refused.value)
    assert verify_home(settings).ok


_KILLED_AT = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import Engine, event
from drift_pipeline.control.moving import move_store

count = 0
def step(*_):
    global count
    count += 1
    if count == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

event.listen(Engine, "before_cursor_execute", step)
event.listen(Engine, "commit", step)
move_store(Path(sys.argv[1]), sys.argv[2])
print(count)
"""


def test_a_kill_at_any_statement_leaves_one_store_in_use_and_the_move_can_be_done_again(
    own: Postgres, tmp_path: Path
) -> None:
    def run(home: Path, database: str, at: int) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", _KILLED_AT, str(home), own.of(database), str(at)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    whole = run(home_of(tmp_path / "whole", 3).home, "whole", 0)
    assert whole.returncode == 0, whole.stderr
    statements = int(whole.stdout)
    for at in sorted({*range(1, statements, max(statements // 6, 1)), *range(statements - 14, statements + 1, 2)}):
        settings = home_of(tmp_path / f"home{at}", 3)
        before = told(settings.database_url)
        assert run(settings.home, f"at{at}", at).returncode == -signal.SIGKILL
        assert told(settings.database_url) == before
        assert verify_home(settings).ok
        move_store(settings.home, own.of(f"at{at}"))
        assert told(own.of(f"at{at}")) == before
        assert (settings.home / ASIDE).is_file()


# what else lies beside the control store


def test_dagster_keeps_its_runs_beside_the_control_store_and_no_password_in_a_file(
    own: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    settings = Settings(home=tmp_path / "home", database=own.url)
    (settings.home / "dagster").mkdir(parents=True)
    with closing(open_store(settings, SystemClock())):
        up._keep_instance_config(settings)
        written = (settings.home / "dagster" / "dagster.yaml").read_text()
        assert not any(secret in written for secret in SECRETS)
        monkeypatch.setenv("DAGSTER_HOME", str(settings.home / "dagster"))
        monkeypatch.setenv(up.DAGSTER_DATABASE, up._beside(settings))
        with dg.DagsterInstance.get() as instance:
            kept = {type(one).__name__ for one in (instance.run_storage, instance.event_log_storage)}
            assert kept == {"PostgresRunStorage", "PostgresEventLogStorage"}
            run = instance.create_run_for_job(dg.GraphDefinition(name="nothing").to_job())
            assert instance.get_run_by_id(run.run_id) is not None
    assert own.ask("SELECT count(*) FROM runs", "drift_dagster") == [(1,)]


def test_the_trials_of_a_training_are_kept_and_a_server_that_is_down_costs_it_nothing(
    own: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    study = make_study(0, maximize=True)
    for n in range(3):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, float(n))
    url = postgres.beside(own.url, "optuna")
    keep_study(study, url, "fraud v2 now")
    assert own.ask("SELECT study_name FROM studies", "drift_optuna") == [("fraud v2 now",)]
    assert own.ask("SELECT count(*) FROM trials", "drift_optuna") == [(3,)]
    assert caplog.text == ""
    keep_study(study, url, "fraud v2 now")
    own.server.kill()
    keep_study(study, url, "fraud v2 later")
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert not any(secret in caplog.text for secret in SECRETS)
