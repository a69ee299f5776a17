"""The pages as they are served: read only, each model by itself, to this machine alone or to who has the key."""

import base64
import shutil
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from pydantic import SecretStr

from drift_pipeline.errors import InputError
from drift_pipeline.loop.home import reading
from drift_pipeline.loop.monitoring.kpi_history import read_kpis
from drift_pipeline.pages.app import csv_of
from drift_pipeline.pages.door import KEY_FILE, key_for
from drift_pipeline.pages.kept import MOST, Kept
from drift_pipeline.settings import Settings
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline_tests.pages.worlds import BROKEN, app_of, ask, copied, settings_of, shown, store_of, whole
from drift_pipeline_tests.replay.pages import read_page
from drift_pipeline_tests.replay.worlds import MODEL

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


def test_an_index_shows_a_broken_model_on_its_own_row(settings: Settings) -> None:
    page = shown(app_of(settings), "/")
    rows = {row["model"]: row for row in page.facts["models"]}
    assert page.rows["data-row"] == [BROKEN, MODEL]  # worst first
    assert "did you mean 'features'" in rows[BROKEN]["error"]
    with reading(settings) as store:
        seen = (store.recall(MODEL) or pytest.fail("no tick")).body["seen"]
        incident = (store.recall(MODEL) or pytest.fail("no tick")).body["incident"]
        champion = (store.get("model", MODEL) or pytest.fail("no model")).body["version"]
    row = rows[MODEL]
    assert (row["error"], row["verdict"], row["judged"]) == ("", seen["verdict"], seen["judged"])
    assert row["incident"] == (incident["key"] if incident["open"] else "")
    assert row["champion"] == champion
    assert f"/{MODEL}" in page.addresses


def test_a_model_whose_lake_is_broken_leaves_the_others_alone(tmp_path: Path) -> None:
    """Also where the error is none that was foreseen."""
    settings = copied(tmp_path)
    for log in (settings.home / "lake" / MODEL / "kpis" / "_delta_log").glob("*"):
        log.write_bytes(b"\0 no JSON") if log.is_file() else shutil.rmtree(log)
    assert settings.models is not None
    (settings.models / "other").mkdir()
    spec = (settings.models / MODEL / "defs.yaml").read_text().replace(MODEL, "other")
    (settings.models / "other" / "defs.yaml").write_text(spec)
    page = shown(app_of(settings), "/")
    rows = {row["model"]: row for row in page.facts["models"]}
    assert rows[MODEL]["error"]
    assert rows["other"]["told"] == "not adopted"
    answer = ask(app_of(settings), f"/{MODEL}")
    assert answer.status_code in (500, 503)
    assert "This cannot be shown" in answer.text


def test_a_model_s_page_is_the_page_that_drift_report_writes(settings: Settings) -> None:
    """With addresses of its own, and a script that asks for it again."""
    app = app_of(settings)
    page = shown(app, f"/{MODEL}?since=1y")
    assert page.facts["kpis"]
    assert f"/{MODEL}/kpis.csv?since=1y" in page.addresses
    assert f"/{MODEL}/v2/card.html" in page.addresses
    assert "http://127.0.0.1:3000/asset-groups" in page.addresses
    policy = ask(app, f"/{MODEL}").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    key = page.facts["incidents"][0]["key"]
    assert f'id="incident-{key}"' in ask(app, f"/{MODEL}?since=1y").text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/{MODEL}?since=2w", 400),
        ("/nobody", 404),
        (f"/{BROKEN}", 503),
        ("/<script>", 404),
        (f"/{MODEL}/v99/card.html", 404),
        (f"/{MODEL}/../card.html", 404),
        (f"/{MODEL}/..%2f..%2fkeys/card.html", 404),
        (f"/{MODEL}/%2e%2e/card.html", 404),
        (f"/{MODEL}/v1/card.json", 404),
        (f"/{MODEL}/drift/2026-01-01.html", 404),
        (f"/{MODEL}/drift/..%2f..%2fcontrol.html", 404),
        ("/control.db", 404),
    ],
)
def test_what_is_not_there_is_refused_without_markup_of_the_asker(settings: Settings, path: str, status: int) -> None:
    answer = ask(app_of(settings), path)
    assert answer.status_code == status
    assert "<script>'" not in answer.text
    assert "/<script>" not in answer.text


def test_a_card_is_served_as_it_lies_there_and_may_run_nothing(settings: Settings) -> None:
    answer = ask(app_of(settings), f"/{MODEL}/v2/card.html")
    assert answer.content == (settings.evidence / MODEL / "v2" / "card.html").read_bytes()
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "script-src" not in answer.headers["content-security-policy"]


def test_a_link_out_of_the_evidence_leads_nowhere(tmp_path: Path) -> None:
    settings = copied(tmp_path)
    (settings.evidence / MODEL / "v7").mkdir()
    (settings.evidence / MODEL / "v7" / "card.html").symlink_to(settings.home / "control.db")
    assert ask(app_of(settings), f"/{MODEL}/v7/card.html").status_code == 404


def test_a_day_s_report_is_served_and_its_scripts_see_nothing_of_these_pages(tmp_path: Path) -> None:
    settings = copied(tmp_path)
    (settings.drift_reports / MODEL).mkdir(parents=True)
    (settings.drift_reports / MODEL / "2026-03-01.html").write_text("<p>a day</p>")
    app = app_of(settings)
    assert f"/{MODEL}/drift/2026-03-01.html" in shown(app, f"/{MODEL}").addresses
    answer = ask(app, f"/{MODEL}/drift/2026-03-01.html")
    assert answer.text == "<p>a day</p>"
    assert "sandbox allow-scripts;" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", f"/{MODEL}", f"/{MODEL}/kpis.csv", f"/{MODEL}/v2/card.html"])
def test_nothing_can_be_sent(settings: Settings, method: str, path: str) -> None:
    assert ask(app_of(settings), path, method).status_code == 405


def test_the_csv_has_every_tick(settings: Settings) -> None:
    answer = ask(app_of(settings), f"/{MODEL}/kpis.csv?since=1y")
    with closing(store_of(settings)) as store:
        ticks = read_kpis(store, Lake(settings.lake / MODEL, source="tests"), MODEL, whole())
    found = pl.read_csv(answer.content)
    assert answer.headers["content-disposition"] == f'attachment; filename="{MODEL}-kpis-1y.csv"'
    assert found.height == ticks.height > 100
    for name in ("name", "verdict", "value", "threshold", "bound", "n"):
        assert found[name].to_list() == ticks[name].to_list()


def test_no_text_of_a_csv_begins_as_a_formula() -> None:
    texts = ["=1+1", "+1", "-1", "@x", "\tx", "plain", "a=b"]
    frame = pl.DataFrame({"reason": texts, "worst": [[text, "b"] for text in texts], "value": [-1.0] * 7})
    found = pl.read_csv(csv_of(frame))
    assert found["reason"].to_list() == ["'=1+1", "'+1", "'-1", "'@x", "'\tx", "plain", "a=b"]
    assert found["worst"].to_list()[0] == "'=1+1 b"
    assert found["value"].to_list() == [-1.0] * 7


# who may look


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_on_this_machine_no_key_is_asked_for(settings: Settings, host: str) -> None:
    assert key_for(settings, host) == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "drift.example"])
def test_where_others_can_reach_it_there_is_no_page_without_a_key(tmp_path: Path, host: str) -> None:
    settings = Settings(home=tmp_path, database="")
    with pytest.raises(InputError, match="DRIFT_PAGES_KEY"):
        key_for(settings, host)
    with pytest.raises(InputError, match="at least 16"):
        key_for(settings.model_copy(update={"pages_key": SecretStr("secret")}), host)
    settings.keys.mkdir()
    (settings.keys / KEY_FILE).write_text(f"{KEY}\n")
    assert key_for(settings, host) == KEY
    assert key_for(settings.model_copy(update={"pages_key": SecretStr(KEY[::-1])}), host) == KEY[::-1]
    assert KEY[::-1] not in repr(settings.model_copy(update={"pages_key": SecretStr(KEY[::-1])}))


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("", 401),
        (f"Bearer {KEY}", 200),
        (basic("anybody", KEY), 200),
        (basic("", KEY), 200),
        (f"Bearer {KEY[:-1]}", 401),
        (f"Bearer {KEY}x", 401),
        (basic(KEY, ""), 401),
        ("Basic %%%", 401),
        (f"Digest {KEY}", 401),
        ("Bearer ", 401),
    ],
)
@pytest.mark.parametrize("path", ["/", f"/{MODEL}/kpis.csv", f"/{MODEL}/v2/card.html", "/nobody"])
def test_with_a_key_nothing_is_shown_to_who_does_not_have_it(
    settings: Settings, path: str, authorization: str, status: int
) -> None:
    wanted = 404 if status == 200 and path == "/nobody" else status
    answer = ask(app_of(settings, KEY), path, authorization=authorization, host="drift.example")
    assert answer.status_code == wanted
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert MODEL not in answer.text


def test_whether_it_lives_is_told_to_anybody_and_nothing_else_is(settings: Settings) -> None:
    assert ask(app_of(settings, KEY), "/health").text == "ok\n"


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8081", 200), ("127.0.0.1", 200), ("[::1]:8081", 200), ("evil.example", 403), ("", 403)],
)
def test_without_a_key_a_name_that_was_made_to_lead_here_is_refused(settings: Settings, host: str, status: int) -> None:
    """A page of somebody else, whose name is this machine's address by its second look-up, would read these."""
    assert ask(app_of(settings), "/", host=host).status_code == status


# drawn once


def test_a_page_is_drawn_once_in_some_seconds_and_an_error_is_not_kept() -> None:
    now, drawn = [0.0], []
    kept = Kept[bytes](3, lambda: now[0])

    def draw() -> bytes:
        drawn.append(now[0])
        if len(drawn) == 1:
            raise InputError("broken")
        return b"page"

    with pytest.raises(InputError):
        kept.get("a", draw)
    for _ in range(3):
        assert kept.get("a", draw) == b"page"
    now[0] += 3.1
    kept.get("a", draw)
    assert len(drawn) == 3
    for number in range(3 * MOST):
        kept.get(number, lambda: b"")
    assert len(kept) == MOST


def test_an_unknown_model_tells_no_more_than_that(settings: Settings) -> None:
    page = read_page(ask(app_of(settings), "/nobody").text)
    assert page.facts == {"why": "there is no model 'nobody' here; all that are there stand on /"}
