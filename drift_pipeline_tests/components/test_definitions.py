"""The code location: what Dagster loads, with how many modules, from where, and how the graph hangs together."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph  # not exported

import drift_pipeline.defs
from drift_pipeline.components.monitoring import monitoring_assets
from drift_pipeline.components.partitions import days_of
from drift_pipeline.components.training import training_assets
from drift_pipeline.definitions import models_of
from drift_pipeline.errors import InputError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.synthetic import DELIVERY_SPEC
from drift_pipeline_tests.components.worlds import ATTRIBUTES, MODEL, SPEC, write_model

pytestmark = [  # what Dagster does to itself when it loads a folder of models
    pytest.mark.filterwarnings("ignore:.parse_obj_as. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Function .load_definitions_from_modules?. is currently in preview"),
]

ROOT = Path(__file__).parents[2]
DG = shutil.which("dg", path=str(Path(sys.executable).parent))
MODULES = 1800  # most of them Dagster's
HEAVY = (
    "evidently",
    "fairlearn",
    "great_expectations",
    "kubernetes",
    "optuna",
    "plotly",
    "skops",
    "sklearn",
    "wandb",
)
SCRIPT = f"""
import json, sys
from drift_pipeline.definitions import defs
graph = defs().resolve_asset_graph()
print(json.dumps({{
    "modules": len(sys.modules),
    "heavy": [name for name in {HEAVY!r} if name in sys.modules],
    "models": sorted({{key.path[0] for key in graph.get_all_asset_keys()}}),
}}))
"""
EDGES = {
    "telemetry": set[str](),
    "telemetry_snapshot": {"telemetry"},
    "drift_report": {"telemetry_snapshot"},
    "training_dataset": {"telemetry"},
    "candidate_model": {"training_dataset"},
    "evaluation": {"candidate_model"},
    "registered_model": {"evaluation"},
    "audit_artifacts": {"registered_model"},
}
BY_DAY = {"telemetry", "telemetry_snapshot", "drift_report"}
KINDS = {
    "telemetry": {"deltalake"},
    "telemetry_snapshot": {"deltalake", "greatexpectations"},
    "drift_report": {"evidently"},
    "training_dataset": {"deltalake", "opa"},
    "candidate_model": {"scikitlearn", "optuna"},
    "evaluation": {"scikitlearn"},
    "registered_model": {"skops"},
    "audit_artifacts": {"markdown"},
}


def environment(**changes: str) -> Mapping[str, str]:
    """This process's, without what it says of drift_pipeline and Dagster."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DRIFT_", "DAGSTER_"))}
    return {**kept, **changes}


def python(script: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment(**changes)
    )


def dg_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    if DG is None:
        pytest.skip("dg is not installed beside this interpreter (dagster-dg-cli, in the extra `test`)")
    return subprocess.run(
        [DG, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=environment(DAGSTER_DG_CLI_CONFIG=os.devnull, PATH=f"{Path(DG).parent}{os.pathsep}{os.environ['PATH']}"),
    )


@pytest.fixture(scope="module")
def loaded() -> dict[str, Any]:
    """What a fresh interpreter tells of loading the code location."""
    found = python(SCRIPT)
    assert found.returncode == 0, found.stderr
    told: dict[str, Any] = json.loads(found.stdout)
    return told


@pytest.fixture(scope="module")
def graph() -> AssetGraph:
    """Of the packaged model."""
    return models_of(None).resolve_asset_graph()


def key(name: str, model: str = MODEL) -> dg.AssetKey:
    return dg.AssetKey([model, name])


# loading


def test_the_code_location_loads_without_what_only_the_work_needs(loaded: dict[str, Any]) -> None:
    assert loaded["heavy"] == []


def test_the_code_location_loads_with_few_modules(loaded: dict[str, Any]) -> None:
    assert loaded["modules"] < MODULES


def test_without_drift_models_the_packaged_model_is_loaded(loaded: dict[str, Any]) -> None:
    assert loaded["models"] == [MODEL]
    assert (Path(str(drift_pipeline.defs.__file__)).parent / MODEL / "defs.yaml").is_file()


def test_drift_models_chooses_another_folder_in_which_models_stand_side_by_side(tmp_path: Path) -> None:
    write_model(tmp_path, "fraud", owner="payments@example.com")
    write_model(tmp_path, "churn")
    found = python(SCRIPT, DRIFT_MODELS=str(tmp_path))
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["models"] == ["churn", "fraud"]


def test_two_models_share_nothing_but_the_names_of_their_assets(tmp_path: Path) -> None:
    write_model(tmp_path, "fraud", owner="payments@example.com")
    write_model(tmp_path, "churn")
    both = models_of(tmp_path).resolve_asset_graph()
    assert both.get_all_asset_keys() == {key(name, model) for model in ("fraud", "churn") for name in EDGES}
    for asset_key in both.get_all_asset_keys():
        assert {parent.path[0] for parent in both.get(asset_key).parent_keys} <= {asset_key.path[0]}
    assert both.get(key("evaluation", "fraud")).owners == ["payments@example.com"]
    assert both.get(key("evaluation", "churn")).owners == [SPEC.owner]


@pytest.mark.parametrize("there", [False, True], ids=["missing", "empty"])
def test_a_folder_without_models_is_one_clear_error(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "models"
    if there:
        folder.mkdir()
    with pytest.raises(InputError) as raised:
        models_of(folder)
    assert str(raised.value) == f"DRIFT_MODELS {folder}: no NAME/defs.yaml here; `dg scaffold defs` writes one"


def test_an_unknown_key_names_the_file_and_the_line(tmp_path: Path) -> None:
    path = write_model(tmp_path, retrain={**ATTRIBUTES["retrain"], "crno": "0 3 1 * *"})
    line = 1 + path.read_text().splitlines().index("    crno: 0 3 1 * *")
    found = python(SCRIPT, DRIFT_MODELS=str(tmp_path))
    assert found.returncode == 1
    assert f"{MODEL}/defs.yaml:{line}" in found.stderr
    assert "attributes.retrain.crno" in found.stderr
    assert "Extra inputs are not permitted" in found.stderr


# the graph


def test_the_edges_are_those_of_the_loop(graph: AssetGraph) -> None:
    found = {k.path[-1]: {parent.path[-1] for parent in graph.get(k).parent_keys} for k in graph.get_all_asset_keys()}
    assert found == EDGES


@pytest.mark.parametrize("name", EDGES)
def test_an_asset_says_whose_it_is_what_it_is_and_what_makes_it(graph: AssetGraph, name: str) -> None:
    node = graph.get(key(name))
    assert node.owners == [SPEC.owner]
    assert node.group_name == MODEL
    assert node.kinds == KINDS[name]
    assert node.description is not None
    assert len(node.description) > 40
    assert node.is_external == (name == "telemetry")


def test_only_the_monitoring_half_is_partitioned_by_day(graph: AssetGraph) -> None:
    assert {name for name in EDGES if graph.get(key(name)).is_partitioned} == BY_DAY


def test_the_partitions_are_the_utc_days_that_are_over_since_the_spec_says() -> None:
    days = days_of(SPEC.model_copy(update={"since": date(2026, 1, 5)}))
    known = days.get_partition_keys(current_time=datetime.fromisoformat("2026-01-08T12:00:00+00:00"))
    assert list(known) == ["2026-01-05", "2026-01-06", "2026-01-07"]


def test_what_blocks_is_the_quality_of_a_day_and_the_gates(graph: AssetGraph) -> None:
    blocking = {c.name for c in graph.asset_check_keys if graph.get(c).blocking}
    scans = {"allowed_types", "secrets"}
    assert blocking == {"fit_to_judge", "auroc", "parity_age_band", "latency", "poison_floor"} | scans
    at = {
        name: sorted(c.name for c in graph.asset_check_keys if c.asset_key == key(name) and graph.get(c).blocking)
        for name in EDGES
    }
    assert at["drift_report"] == []
    assert at["telemetry_snapshot"] == ["fit_to_judge"]
    assert at["evaluation"] == ["allowed_types", "auroc", "latency", "parity_age_band", "poison_floor", "secrets"]


# dg


@pytest.mark.live
@pytest.mark.parametrize("arguments", [("check", "yaml"), ("check", "defs")], ids=" ".join)
def test_dg_finds_nothing_wrong_in_the_checkout(arguments: Sequence[str]) -> None:
    found = dg_command(*arguments)
    assert found.returncode == 0, found.stdout + found.stderr


def test_dg_lists_the_component_with_the_first_line_of_its_docstring() -> None:
    found = dg_command("list", "components", "--json")
    assert found.returncode == 0, found.stderr
    (listed,) = (entry for entry in json.loads(found.stdout)["items"] if entry["key"].startswith("drift_pipeline."))
    assert listed["key"] == "drift_pipeline.components.MonitoredModel"
    assert listed["summary"].startswith("A model in production that is watched for drift")


def test_a_regression_has_the_same_graph_with_checks_of_its_own() -> None:
    regression = ModelSpec.model_validate(yaml.safe_load(DELIVERY_SPEC))
    made = dg.Definitions(assets=[*monitoring_assets(regression), *training_assets(regression)])
    found = made.resolve_asset_graph()
    assert {key.path[-1] for key in found.get_all_asset_keys()} == set(EDGES)
    checks = {check.name for check in found.asset_check_keys if check.asset_key.path[-1] == "drift_report"}
    assert checks == {"psi", "range_z", "mae", "residuals"}
    gates = {check.name for check in found.asset_check_keys if check.asset_key.path[-1] == "evaluation"}
    assert gates == {"mae", "latency", "poison_floor", "allowed_types", "secrets"}
