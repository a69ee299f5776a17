"""Dagster's own page, as `dagster dev` serves it: a person materialises both halves of a model's graph by hand."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from drift_pipeline_tests.browser.chromium import Heard, needs_chromium, page
from drift_pipeline_tests.components.worlds import (
    ATTRIBUTES,
    MODEL,
    copied,
    first_breach,
    records,
    tick_after,
    write_model,
)

DAGSTER = shutil.which("dagster", path=str(Path(sys.executable).parent))
pytestmark = [
    *needs_chromium,
    pytest.mark.skipif(DAGSTER is None, reason="dagster is not installed beside this interpreter"),
]

ROOT = Path(__file__).parents[2]
MONITORING = ("telemetry_snapshot", "drift_report")
TRAINING = ("training_dataset", "candidate_model", "evaluation", "registered_model", "audit_artifacts")
UP_SECONDS, RUN_SECONDS = 180, 300
MOST_TOLD = 5000  # letters of a run's failure
# the home's champion is months old: by any usual calendar a retrain is due, which the schedule would ask for at each
# tenth minute of an hour, and a person who asks just then is refused
RARELY = "0 0 29 2 *"
RUNS = "{ runsOrError { ... on Runs { results { jobName status assetSelection { path } } } } }"
BACKFILLS = """{ partitionBackfillsOrError { ... on PartitionBackfills {
  results { id status numPartitions runs { status } } } } }"""
EXECUTED = """query($asset: AssetKeyInput!, $check: String!) {
  assetCheckExecutions(assetKey: $asset, checkName: $check, limit: 1) {
    status evaluation { severity success description } } }"""
DAGSTERS_OWN = (
    "https://go.apollo.dev/c/err#"  # its GraphQL client on its own queries' caches; they name no fault of ours
)
LEFT = "WebSocket is closed before the connection is established"  # of a page that the test left at once


@dataclass(frozen=True)
class Served:
    """A running `dagster dev`, and the folders that it works on."""

    url: str
    cwd: Path
    home: Path

    def ask(self, query: str, **variables: Any) -> Any:
        """The `data` of a GraphQL answer."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            told = json.load(answer)
        assert "errors" not in told, told
        return told["data"]

    def runs(self) -> dict[frozenset[str], str]:
        """Status by the assets that a run is of; the rollout that loop_tick submits meanwhile is of none."""
        found = [run for run in self.ask(RUNS)["runsOrError"]["results"] if run["assetSelection"]]
        return {frozenset(asset["path"][-1] for asset in run["assetSelection"]): run["status"] for run in found}

    def submissions(self) -> list[str]:
        """Statuses of the rollouts that loop_tick submitted."""
        found = self.ask(RUNS)["runsOrError"]["results"]
        return [run["status"] for run in found if run["jobName"] == "submit_rollout"]

    def backfills(self) -> Any:
        return self.ask(BACKFILLS)["partitionBackfillsOrError"]["results"]

    def failure(self) -> str:
        """The first step's failure in what `dagster dev` and its runs printed; its end where no step failed."""
        printed = (self.cwd.parent / "dagster.log").read_text()
        found = printed.find("STEP_FAILURE")
        return printed[found:][:MOST_TOLD] if found >= 0 else printed[-MOST_TOLD:]

    def check(self, asset: str, name: str) -> Any:
        """The last execution of a check."""
        (found,) = self.ask(EXECUTED, asset={"path": [MODEL, asset]}, check=name)["assetCheckExecutions"]
        return found


def until(said: Callable[[], bool], seconds: float, what: str) -> None:
    ended = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < ended, f"after {seconds} s still not: {what}"
        time.sleep(0.5)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/server_info", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def dagster_dev(cwd: Path, home: Path, models: Path) -> Iterator[str]:
    """`dagster dev` in a folder that holds the repository's workspace.yaml and dagster.yaml; its address.

    Ctrl-C ends it with all that it started, and it left nothing but, perhaps, Dagster's own temporary home, which an
    evaluation that was under way makes again after Dagster has removed it; that is asserted.
    """
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(ROOT / name, cwd / name)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "DRIFT_"))}
    told = {"DRIFT_HOME": str(home), "DRIFT_MODELS": str(models), "HOME": str(cwd.parent)}
    port, log = free_port(), cwd.parent / "dagster.log"
    with log.open("w") as out:
        running = subprocess.Popen(
            [str(DAGSTER), "dev", "-p", str(port)],
            cwd=cwd,
            env={**kept, **told},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            until(lambda: running.poll() is not None or answers(f"http://127.0.0.1:{port}"), UP_SECONDS, "up")
            assert running.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            left = end(running)
    assert left == []
    ours = [path.name for path in cwd.iterdir() if not path.name.startswith(".tmp_dagster_home_")]
    assert sorted(ours) == ["dagster.yaml", "workspace.yaml"]


def end(running: "subprocess.Popen[bytes]") -> list[int]:
    """Interrupt it; what of its session is left after that is killed, and returned."""
    try:
        os.kill(running.pid, signal.SIGINT)
        running.wait(timeout=120)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass
    ended = time.monotonic() + 10
    while (left := session(running.pid)) and time.monotonic() < ended:
        time.sleep(0.2)
    for member in left:
        os.kill(member, signal.SIGKILL)
    running.wait(timeout=10)
    return left


def session(leader: int) -> list[int]:
    """The living processes of a session: children that began a process group of their own are in it, too."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("dagster")
    home, models, cwd = copied(folder / "home"), folder / "models", folder / "cwd"
    write_model(models, retrain={**ATTRIBUTES["retrain"], "cron": RARELY})
    cwd.mkdir()
    with dagster_dev(cwd, home, models) as url:
        yield Served(url, cwd, home)


@pytest.fixture(scope="module")
def opened(served: Served) -> Iterator[tuple[Page, Heard]]:
    with page() as (shown, heard):
        shown.set_default_timeout(20_000)
        yield shown, heard


@pytest.fixture(scope="module")
def launched(served: Served, opened: tuple[Page, Heard]) -> tuple[Page, Heard]:
    """Both halves were asked for in the graph, the first for the day of the breach, and have succeeded."""
    shown, _ = opened
    graph(served, shown)
    picture(shown, "asset_graph_before")
    choose(shown, MONITORING)
    shown.get_by_text("Show all partitions").click()
    days = shown.get_by_role("dialog").locator("input[type=text]").first
    days.fill(first_breach())
    days.press("Tab")
    shown.get_by_role("button", name="Launch 1 run").click()
    until(lambda: frozenset(MONITORING) in served.runs(), 20, "the monitoring half was launched")
    graph(served, shown)
    choose(shown, TRAINING)
    wanted = {frozenset(MONITORING): "SUCCESS", frozenset(TRAINING): "SUCCESS"}
    until(
        lambda: served.runs() == wanted or "FAILURE" in served.runs().values(), RUN_SECONDS, "both halves are through"
    )
    assert served.runs() == wanted, served.failure()
    until(lambda: served.submissions() == ["SUCCESS"], RUN_SECONDS, "loop_tick submitted the rollout by itself")
    return opened


def graph(served: Served, shown: Page) -> None:
    shown.goto(f"{served.url}/locations/drift_pipeline/asset-groups/{MODEL}")
    shown.get_by_text("audit_artifacts", exact=True).first.wait_for()


def choose(shown: Page, names: tuple[str, ...]) -> None:
    """Click the assets in the graph, and the button."""
    for number, name in enumerate(names):
        shown.get_by_text(name, exact=True).first.click(modifiers=["Shift"] if number else [])
    shown.get_by_role("button", name=f"Materialize selected ({len(names)})").click()


def picture(shown: Page, name: str) -> None:
    """A screenshot, where DRIFT_SCREENSHOTS names a folder for them."""
    if folder := os.environ.get("DRIFT_SCREENSHOTS"):
        shown.wait_for_timeout(1500)  # animations
        shown.screenshot(path=Path(folder) / f"{name}.png")


def test_the_graph_shows_every_asset_at_1280_pixels(served: Served, launched: tuple[Page, Heard]) -> None:
    shown, _ = launched
    graph(served, shown)
    for name in ("telemetry", *MONITORING, *TRAINING):
        box = shown.get_by_text(name, exact=True).first.bounding_box()
        assert box is not None
        assert 240 < box["x"] < box["x"] + box["width"] < 1280
    picture(shown, "asset_graph")


def test_the_breached_kpi_is_a_failed_check_that_only_warns(served: Served, launched: tuple[Page, Heard]) -> None:
    shown, _ = launched
    said = tick_after(first_breach())["auroc"]
    found = served.check("drift_report", "auroc")
    assert found["status"] == "FAILED"
    assert found["evaluation"] == {
        "severity": "WARN",
        "success": False,
        "description": f"BREACH: {said['reason']}",
    }
    shown.goto(f"{served.url}/assets/{MODEL}/drift_report?view=checks&checkDetail=auroc")
    shown.get_by_text(said["reason"]).first.wait_for()
    picture(shown, "failed_check")


def test_every_other_check_of_the_day_passed(served: Served, launched: tuple[Page, Heard]) -> None:
    for name, said in tick_after(first_breach()).items():
        assert served.check("drift_report", name)["evaluation"]["success"] is (said["verdict"] == "OK")
    assert served.check("telemetry_snapshot", "fit_to_judge")["status"] == "SUCCEEDED"


def test_the_report_says_in_the_ui_what_was_found_and_where_its_page_is(
    served: Served, launched: tuple[Page, Heard]
) -> None:
    shown, _ = launched
    shown.goto(f"{served.url}/assets/{MODEL}/drift_report?view=partitions&partition={first_breach()}")
    for name in ("verdict", "champion", "reference", "kpis", "features"):
        shown.get_by_text(name, exact=True).first.wait_for()
    html = served.home / "drift_reports" / MODEL / f"{first_breach()}.html"
    shown.get_by_text(str(html)).first.wait_for()
    assert html.is_file()
    picture(shown, "drift_report")


def test_the_columns_that_differ_most_are_drawn_in_the_ui(served: Served, launched: tuple[Page, Heard]) -> None:
    shown, heard = launched
    shown.goto(f"{served.url}/assets/{MODEL}/drift_report?view=partitions&partition={first_breach()}")
    shown.get_by_text("[Show Markdown]").first.click()
    drawn = shown.locator("img[src^='data:image/svg+xml;base64,']")
    drawn.first.wait_for()
    assert drawn.evaluate_all("all => all.map(one => one.naturalWidth)") == [460] * drawn.count()
    picture(shown, "columns_that_differ_most")
    assert [said for said in heard.errors if "data:" in said or "Content Security" in said] == []


def test_the_numbers_of_a_report_are_plotted(served: Served, launched: tuple[Page, Heard]) -> None:
    """By event: by partition Dagster shows the last 120 days, and these lie further back."""
    shown, _ = launched
    shown.goto(f"{served.url}/assets/{MODEL}/drift_report")
    shown.get_by_text("Plots", exact=True).first.click()
    shown.get_by_text("Events", exact=True).last.click()
    shown.get_by_text("auroc_bound", exact=True).first.wait_for()
    shown.get_by_text("drifting_share", exact=True).first.wait_for()
    assert shown.locator("canvas").count() >= 10
    picture(shown, "plots")


@pytest.mark.slow  # three runs of ten days each
def test_thirty_days_are_backfilled_from_the_graph_and_open_no_incident(
    served: Served, launched: tuple[Page, Heard]
) -> None:
    shown, _ = launched
    written = records(served.home)
    watched_since = next(one.at for one in written if one.event == "reference.frozen")
    first, before = date.fromisoformat(watched_since[:10]), [one.event for one in written]
    last = first + timedelta(days=29)
    graph(served, shown)
    choose(shown, MONITORING)
    shown.get_by_text("Show all partitions").click()
    days = shown.get_by_role("dialog").locator("input[type=text]").first
    days.fill(f"[{first}...{last}]")
    days.press("Tab")
    picture(shown, "backfill_asked")
    shown.get_by_role("button", name=re.compile("Launch")).click()
    until(lambda: len(served.backfills()) == 1, 30, "the backfill was launched")
    until(lambda: served.backfills()[0]["status"] not in ("REQUESTED",), 600, "the backfill is over")
    (backfill,) = served.backfills()
    assert (backfill["status"], backfill["numPartitions"]) == ("COMPLETED_SUCCESS", 30)
    assert [run["status"] for run in backfill["runs"]] == ["SUCCESS"] * 3
    made = {page.stem for page in (served.home / "drift_reports" / MODEL).glob("*.html")}
    assert {str(first + timedelta(days=day)) for day in range(30)} <= made
    incidents = [event for event in (one.event for one in records(served.home)) if event.startswith("incident.")]
    assert incidents == [event for event in before if event.startswith("incident.")]
    shown.goto(f"{served.url}/runs/b/{backfill['id']}")
    shown.get_by_text("Completed").first.wait_for()
    picture(shown, "backfill")
    shown.goto(f"{served.url}/assets/{MODEL}/drift_report?view=partitions")
    shown.get_by_text("Materialized (30)").first.wait_for()
    picture(shown, "backfilled_days")


def test_the_ticks_of_the_loops_sensor_are_shown(served: Served, launched: tuple[Page, Heard]) -> None:
    shown, _ = launched
    shown.goto(f"{served.url}/locations/drift_pipeline/sensors/loop_tick")
    shown.get_by_text("Latest tick").first.wait_for()
    shown.get_by_text(re.compile(r"^\d+ runs? requested$")).first.wait_for()
    picture(shown, "sensor_ticks")


def test_the_control_store_has_what_the_ui_started(served: Served, launched: tuple[Page, Heard]) -> None:
    """The sensors, which run beside it, write records of their own in between."""
    written = records(served.home)
    (asked,) = (one for one in written if one.details.get("reason") == "materialised in Dagster")
    assert (asked.event, asked.actor, asked.details["trigger"]) == ("decision.made", "dagster:unnamed", "operator")
    steps = ["training.claimed", "training.started", "candidate.trained", "candidate.proven", "model.registered"]
    assert [one.event for one in written if one.seq > asked.seq and one.event in steps] == steps
    assert [one.actor for one in written if one.event == "rollout.shadow"][-1] == "dagster:loop_tick"


def test_the_pages_say_no_error_and_ask_for_nothing_from_elsewhere(
    served: Served, launched: tuple[Page, Heard]
) -> None:
    _, heard = launched
    assert [error for error in heard.errors if DAGSTERS_OWN not in error and LEFT not in error] == []
    elsewhere = [url for url in heard.requests if not url.startswith((served.url, "data:", "blob:"))]
    assert elsewhere == []
