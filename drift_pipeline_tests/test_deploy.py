"""Files of deploy/ that name each other's parts, or ours: what they name is there."""

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from drift_pipeline.cli import drift
from drift_pipeline.observability.series import SERIES
from drift_pipeline.settings import Settings

DEPLOY = Path(__file__).parents[1] / "deploy"
VECTOR: dict[str, Any] = yaml.safe_load((DEPLOY / "vector" / "vector.yaml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def outputs() -> set[str]:
    """Of sources and transforms, named ones included."""
    plain = {*VECTOR["sources"], *VECTOR["transforms"]} - {"otlp"}
    dropped = {f"{name}.dropped" for name, one in VECTOR["transforms"].items() if one["reroute_dropped"]}
    return plain | dropped | {f"otlp.{signal}" for signal in ("logs", "metrics", "traces")}


def test_vectors_inputs_and_tests_name_components_that_are_there_and_no_output_is_lost() -> None:
    taken = [name for kind in ("transforms", "sinks") for one in VECTOR[kind].values() for name in one["inputs"]]
    assert set(taken) <= outputs()
    assert {name for name in outputs() if not name.startswith("otlp.")} <= set(taken)
    assert {one["extract_from"] for test in VECTOR["tests"] for one in test["outputs"]} == {"events", "events.dropped"}
    assert {one["insert_at"] for test in VECTOR["tests"] for one in test["inputs"]} == {"events"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_of_compose_has_a_version_answers_this_machine_alone_and_waits_for_one_that_is_there(
    name: str,
) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[a-z/-]+:(local|v?\d+\.\d+[\w.-]*)", service["image"])
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in service.get("ports", ()))
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    assert ("build" in service) == (name == "prepare")
    published = [port for one in SERVICES.values() for port in one.get("ports", ())]
    assert len({port.rsplit(":", 1)[0] for port in published}) == len(published)


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_of_compose_mounts_is_there(name: str) -> None:
    service = SERVICES[name]
    sources = [volume.partition(":")[0] for volume in service.get("volumes", ()) if not volume.startswith("${")]
    assert [source for source in sources if source.startswith(".") and not (DEPLOY / source).exists()] == []
    assert {source for source in sources if not source.startswith(".")} <= set(COMPOSE["volumes"])
    assert {one["source"] for one in service.get("configs", ())} <= set(COMPOSE["configs"])
    secrets = [one if isinstance(one, str) else one["source"] for one in service.get("secrets", ())]
    assert set(secrets) <= set(COMPOSE["secrets"])


def test_what_compose_sets_is_read_and_what_it_runs_is_a_command() -> None:
    read = {f"DRIFT_{name.upper()}" for name in Settings.model_fields} | {"DRIFT_DAGSTER_DATABASE", "DRIFT_SOURCE"}
    for service in SERVICES.values():
        if service["image"] != "drift-pipeline:local":
            continue
        assert {name for name in service["environment"] if name.startswith("DRIFT_")} <= read
        if "entrypoint" not in service:
            word, *words = service["command"]
            command = drift.get_command(click.Context(drift), word)
            assert command is not None
            command.parse_args(click.Context(command), words)


def test_composes_prometheus_asks_what_is_there_and_reads_rules_that_are_there() -> None:
    """It is that of deploy/prometheus, but for where things are."""
    told = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])
    ours = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    for config in (told, ours):
        for job in (*config["scrape_configs"], *config["alerting"]["alertmanagers"]):
            ((target,),) = (one.pop("targets") for one in job["static_configs"])
            host, port = target.split(":")
            assert host == "127.0.0.1" or f":{port}" in str(SERVICES[host].get("ports"))
            if "authorization" in job:
                key = job["authorization"].pop("credentials_file")
                assert Path(key).name.replace("_", ".") == "gateway.key"
    assert told["rule_files"] == [f"drift/{name}" for name in ours["rule_files"]]
    assert {**told, "rule_files": ours["rule_files"]} == ours
    assert all((DEPLOY / "prometheus" / name).is_file() for name in ours["rule_files"])
    (file,) = (word for word in SERVICES["alertmanager"]["command"] if word.startswith("--config.file="))
    assert (DEPLOY / "prometheus" / Path(file).name).is_file()


def test_the_scraping_with_an_exporter_tells_nothing_twice() -> None:
    text = (DEPLOY / "prometheus" / "README.md").read_text()
    (told,) = (
        found
        for one in re.findall(r"```yaml\n(.*?)```", text, re.S)
        if "scrape_configs" in (found := yaml.safe_load(one))
    )
    gateway, exporter = told["scrape_configs"]
    (ours,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    (kept,) = gateway.pop("metric_relabel_configs")
    assert (gateway, exporter["job_name"]) == (ours, "drift_exporter")
    assert [name for name in SERIES if re.fullmatch(kept["regex"], name)] == []
    command = drift.get_command(click.Context(drift), "exporter")
    assert command is not None
    (port,) = (one.default for one in command.params if one.name == "port")
    assert exporter["static_configs"] == [{"targets": [f"127.0.0.1:{port}"]}]
