"""deploy/helm as Helm renders it, for each file of values below ci/: every object, and what it names."""

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from drift_pipeline.alerts.routing import read_routing
from drift_pipeline.cli import drift
from drift_pipeline.rollout.controllers import Served, Wanted
from drift_pipeline.rollout.controllers import declared as controllers
from drift_pipeline.rollout.controllers.rendering import rendered as routed
from drift_pipeline_tests.deploy.api_fields import wrong_fields
from drift_pipeline_tests.deploy.charts import (
    CASES,
    CHART,
    NAMESPACE,
    RELEASE,
    Object,
    Refused,
    case,
    claims,
    config_maps,
    containers,
    dagster_config,
    databases,
    pods,
    rendered,
    routing_files,
    secrets,
)
from drift_pipeline_tests.deploy.test_chart_values import VALUES, merged

pytestmark = pytest.mark.live
LABELS = {"name", "instance", "component", "version", "managed-by"}


@pytest.fixture(scope="module", params=CASES)
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    return merged(VALUES, case(request.param))


@pytest.fixture(scope="module")
def objects(values: dict[str, Any], helm_program: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    return rendered(helm_program, values, tmp_path_factory.mktemp("values"))


def named(objects: list[Object], kind: str) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


@pytest.mark.parametrize("name", CASES)
def test_helm_lints_it(name: str, helm_program: Path) -> None:
    command = [str(helm_program), "lint", "--strict", str(CHART), "-f", str(CHART / "ci" / f"{name}.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_field_is_one_that_the_api_has(objects: list[Object]) -> None:
    """No server's dry run, but what it says of misspelt fields, of types and of what is missing."""
    assert {one["metadata"]["name"]: wrong for one in objects if (wrong := wrong_fields(one))} == {}


def test_a_field_that_the_api_has_not_is_found() -> None:
    container = {"name": "a", "image": "a:1", "readinessProb": {}, "env": [{"name": "A", "value": 1}]}
    spec = {"selector": {}, "template": {"spec": {"containers": [container], "nodeSelector": {"pool": True}}}}
    at = ".spec.template.spec"
    assert wrong_fields({"kind": "Deployment", "metadata": {"name": "a"}, "spec": spec}) == [
        f"{at}.containers[0].readinessProb",
        f"{at}.containers[0].env[0].value: 1 is no str",
        f"{at}.nodeSelector.pool: True is no str",
    ]
    with pytest.raises(ValueError, match="containers"):
        wrong_fields({"kind": "Pod", "spec": {}})


def test_every_object_has_its_name_once_its_namespace_and_the_recommended_labels(objects: list[Object]) -> None:
    ids = Counter((one["kind"], one["metadata"]["name"]) for one in objects)
    assert max(ids.values()) == 1
    for one in objects:
        metadata = one["metadata"]
        assert metadata["namespace"] == NAMESPACE
        assert metadata["name"].startswith(RELEASE)
        assert {f"app.kubernetes.io/{label}" for label in LABELS} <= metadata["labels"].keys()
        assert all(re.fullmatch(r"[A-Za-z0-9][\w.-]{0,62}", label) for label in metadata["labels"].values())


def test_no_pod_may_more_than_the_restricted_standard_lets_it(objects: list[Object]) -> None:
    for name, pod in pods(objects):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert pod["enableServiceLinks"] is False  # of a release that is called drift they would be DRIFT_...
        assert all(set(one) - {"name"} <= {"emptyDir", "configMap", "persistentVolumeClaim"} for one in pod["volumes"])
        for one in containers(pod):
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_every_container_has_requests_a_limit_of_memory_a_version_and_a_folder_for_what_it_writes(
    objects: list[Object],
) -> None:
    for name, pod in pods(objects):
        assert len({one["name"] for one in containers(pod)}) == len(containers(pod)), name
        made = (one["spec"] for one in objects if one["metadata"]["name"] == name and "template" in one.get("spec", ()))
        claimed = {one["metadata"]["name"] for spec in made for one in spec.get("volumeClaimTemplates", ())}
        volumes = {one["name"] for one in pod["volumes"]} | claimed
        for one in containers(pod):
            assert {"cpu", "memory"} <= one["resources"]["requests"].keys()
            assert "memory" in one["resources"]["limits"]
            assert re.search(r"(:v?\d[\w.-]*|@sha256:[0-9a-f]{64})$", one["image"])
            mounts = {mount["mountPath"]: mount for mount in one["volumeMounts"]}
            assert len(mounts) == len(one["volumeMounts"])
            assert {mount["name"] for mount in mounts.values()} <= volumes
            assert "readOnly" not in mounts["/tmp"]


def test_config_maps_claims_and_accounts_are_rendered_and_secrets_are_values(
    objects: list[Object], values: dict[str, Any]
) -> None:
    told = {values["database"]["secret"], values["store"]["secret"], values["models"]["git"]["secret"]}
    told |= {*values["secrets"], *values["gateway"]["secrets"], *values["capture"]["secrets"]}
    told |= set(values["image"]["pullSecrets"])
    used = set[str]()
    for _, pod in pods(objects):
        assert config_maps(pod) <= named(objects, "ConfigMap").keys()
        assert claims(pod) <= {*named(objects, "PersistentVolumeClaim"), values["home"]["existingClaim"]}
        assert pod["serviceAccountName"] in named(objects, "ServiceAccount")
        used |= secrets(pod)
    launcher = dagster_config(objects)["run_launcher"]["config"]
    assert {launcher["instance_config_map"], *launcher["env_config_maps"]} <= named(objects, "ConfigMap").keys()
    assert launcher["service_account_name"] in named(objects, "ServiceAccount")
    assert used | set(launcher["env_secrets"]) == told - {""}


def test_a_service_and_a_budget_find_pods_and_a_port_that_is_there(objects: list[Object]) -> None:
    made = [one for one in objects if one.get("spec", {}).get("template")]
    for one in objects:
        if one["kind"] not in ("Service", "PodDisruptionBudget", "ServiceMonitor"):
            continue
        spec = one["spec"]
        wanted = spec["selector"].get("matchLabels", spec["selector"])
        if one["kind"] == "ServiceMonitor":
            found = [service for service in named(objects, "Service").values() if has(service["metadata"], wanted)]
            assert {port["name"] for port in found[0]["spec"]["ports"]} >= {end["port"] for end in spec["endpoints"]}
            assert spec["jobLabel"] in found[0]["metadata"]["labels"]
        else:
            found = [work for work in made if has(work["spec"]["template"]["metadata"], wanted)]
        assert len(found) == 1, one["metadata"]["name"]
        if one["kind"] == "Service":
            pod = found[0]["spec"]["template"]["spec"]
            open_ports = {port["name"] for each in pod["containers"] for port in each.get("ports", ())}
            assert {port["targetPort"] for port in spec["ports"]} <= open_ports


def has(metadata: Object, labels: dict[str, str]) -> bool:
    return bool(labels.items() <= metadata["labels"].items())


def test_a_probe_tells_alive_from_ready_and_asks_a_port_that_is_open(objects: list[Object]) -> None:
    for name, pod in pods(objects):
        (main,) = pod["containers"]
        probes = {kind: main[kind] for kind in ("startupProbe", "livenessProbe", "readinessProbe") if kind in main}
        open_ports = {key for port in main.get("ports", ()) for key in (port["name"], port["containerPort"])}
        for probe in probes.values():
            asked = [how["port"] for kind in ("httpGet", "tcpSocket", "grpc") if (how := probe.get(kind))]
            assert set(asked) <= open_ports
        expected = {"daemon": 2, "capture": 1}.get(name.rpartition("-")[2], 3)
        assert len(probes) == expected, name
    (gateway,) = (pod["containers"][0] for name, pod in pods(objects) if name.endswith("-gateway"))
    assert gateway["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert gateway["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"


def test_a_gateways_capture_outlives_it_on_the_same_spool_and_has_time_to_land_it(
    objects: list[Object], values: dict[str, Any]
) -> None:
    found = [pod for name, pod in pods(objects) if name.endswith(("-gateway", "-pinned"))]
    assert len(found) == 1 + bool(values["routing"])
    for pod in found:
        (capture,) = (one for one in pod["initContainers"] if one["name"] == "capture")
        assert capture["restartPolicy"] == "Always"
        assert capture["args"] == ["capture", "--drain", f"{values['gateway']['drainSeconds']}s"]
        mounts = [
            [mount for mount in one["volumeMounts"] if mount["mountPath"] == "/var/lib/drift"]
            for one in (capture, pod["containers"][0])
        ]
        assert mounts[0] == mounts[1]
        assert pod["terminationGracePeriodSeconds"] > values["gateway"]["drainSeconds"] + 30
        assert claims(pod) == set()


def test_the_controller_makes_pods_of_a_version_that_are_the_gateways_and_pinned_to_it(
    objects: list[Object], values: dict[str, Any], tmp_path: Path
) -> None:
    files = routing_files(objects)
    told = {
        variable["name"]: variable["value"]
        for name, pod in pods(objects)
        for one in containers(pod)
        for variable in one.get("env", ())
        if "CONTROLLER" in variable["name"] and (name, one["name"]) == (f"{RELEASE}-code", "code")
    }
    if not values["routing"]:
        assert (files, told) == ([], {})
        return
    assert told == {"DRIFT_CONTROLLER": "argo", "DRIFT_CONTROLLER_FILE": "/opt/dagster/routing.yaml"}
    (tmp_path / "routing.yaml").write_text(files[0], encoding="utf-8")
    served = Served(f"sha256:{7:064}", "v7", "fraud-v7")
    wanted = Wanted("fraud", served, None, None, "", 10)
    made = routed(controllers.read_routing(tmp_path / "routing.yaml"), wanted)
    (template,) = (one["spec"]["template"] for one in made if one["kind"] == "Rollout")
    (gateway,) = template["spec"]["containers"]
    words = ["serve", "--host", "0.0.0.0", "--port", "8080", "--pin", "fraud", served.digest]
    assert (gateway["command"], gateway["args"]) == (["drift"], words)
    command = drift.get_command(click.Context(drift), words[0])
    assert command is not None
    command.parse_args(click.Context(command), words[1:])
    (shared,) = (pod["containers"][0] for name, pod in pods(objects) if name.endswith("-gateway"))
    assert {**gateway, "args": gateway["args"][:5]} == shared
    assert wrong_fields({"kind": "Pod", "metadata": {"name": "pinned"}, "spec": template["spec"]}) == []
    assert {one["metadata"]["namespace"] for one in made} == {NAMESPACE}
    services = [one["spec"]["selector"] for one in objects if one["kind"] == "Service"]
    assert not any(selector.items() <= template["metadata"]["labels"].items() for selector in services)
    (policy, monitor) = (named(objects, kind)[f"{RELEASE}-pinned"]["spec"] for kind in ("NetworkPolicy", "PodMonitor"))
    for selector in (policy["podSelector"], monitor["selector"]):
        assert has(template["metadata"], selector["matchLabels"])
    assert template["metadata"]["labels"][monitor["jobLabel"]] == "drift_gateway"
    assert {end["port"] for end in monitor["podMetricsEndpoints"]} <= {port["name"] for port in gateway["ports"]}


def test_who_speaks_to_the_api_may_no_more_than_it_does(objects: list[Object], values: dict[str, Any]) -> None:
    speaking = {pod["serviceAccountName"] for _, pod in pods(objects) if pod["automountServiceAccountToken"]}
    routes = {f"{RELEASE}-code"} if values["routing"] else set()
    assert speaking == {f"{RELEASE}-daemon", f"{RELEASE}-webserver"} | routes
    roles = named(objects, "Role")
    may = {
        name: {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
        for name, role in roles.items()
    }
    looks = {("jobs", "list"), ("jobs/status", "get"), ("pods/log", "get"), ("events", "list")}
    ends = {("jobs", "delete"), ("pods", "delete"), ("pods", "list")}
    moves = {(kind, verb) for kind in ("rollouts", "analysistemplates") for verb in ("get", "create", "update")}
    moves |= {(kind, verb) for kind in ("virtualservices", "destinationrules") for verb in ("get", "create")}
    moves |= {("rollouts/status", "patch"), ("replicasets", "list"), ("services", "create")}
    own = {f"{RELEASE}-daemon": looks | ends | {("jobs", "create")}, f"{RELEASE}-webserver": ends}
    launcher = dagster_config(objects)["run_launcher"]["config"]
    account, token = launcher["service_account_name"], launcher["run_k8s_config"]["pod_spec_config"]
    apart = {f"{RELEASE}-run"} if values["dagster"]["executor"] == "k8s_job" else set[str]()
    assert ({account} - {RELEASE}, token["automount_service_account_token"]) == (apart, bool(apart))
    steps = ends | {("jobs", "create"), ("jobs/status", "get"), ("pods", "get")}
    assert may == own | dict.fromkeys(routes, moves) | dict.fromkeys(apart, steps)
    bound = {(one["roleRef"]["name"], one["subjects"][0]["name"]) for one in named(objects, "RoleBinding").values()}
    assert bound == {(name, name) for name in roles}
    assert not {"ClusterRole", "ClusterRoleBinding"} & {one["kind"] for one in objects}


def test_a_part_is_told_of_the_database_that_it_reads_and_of_no_other(objects: list[Object]) -> None:
    ours, dagsters = {"DRIFT_DATABASE"}, {"DRIFT_DAGSTER_DATABASE"}
    both = {"prepare": ours | dagsters, "code": ours | dagsters}
    told = {
        one["name"]: (
            databases(one),
            both.get(one["name"], dagsters if one["name"] in ("daemon", "webserver") else ours),
        )
        for _, pod in pods(objects)
        for one in containers(pod)
        if "command" in one  # git-sync is run as its image says
    }
    assert {name: found for name, (found, _) in told.items()} == {name: wanted for name, (_, wanted) in told.items()}


def test_who_tells_the_channels_has_them(objects: list[Object], values: dict[str, Any], tmp_path: Path) -> None:
    told = {
        one["name"]: variable["value"]
        for _, pod in pods(objects)
        for one in containers(pod)
        for variable in one.get("env", ())
        if variable["name"] == "DRIFT_ALERTS"
    }
    assert told == ({"code": "/opt/dagster/alerts.yaml"} if values["alerts"] else {})
    if told:
        (file,) = (one["data"]["alerts.yaml"] for one in objects if "alerts.yaml" in one.get("data", {}))
        (tmp_path / "alerts.yaml").write_text(file, encoding="utf-8")
        assert read_routing(tmp_path / "alerts.yaml").channels.keys() == values["alerts"]["channels"].keys()


def test_one_process_has_the_keys_and_who_only_looks_cannot_write_them(objects: list[Object]) -> None:
    writers = set[str]()
    for name, pod in pods(objects):
        if claims(pod):
            for one in containers(pod):
                home = [mount for mount in one["volumeMounts"] if mount["name"] == "home"]
                writers |= {name} if any("readOnly" not in mount for mount in home) else set()
    assert writers == {f"{RELEASE}-code"}
    deployments = named(objects, "Deployment")
    for name in (f"{RELEASE}-code", f"{RELEASE}-daemon"):
        assert deployments[name]["spec"]["replicas"] == 1
        assert deployments[name]["spec"]["strategy"] == {"type": "Recreate"}


def test_everything_is_closed_but_what_a_policy_opens(objects: list[Object], values: dict[str, Any]) -> None:
    policies = named(objects, "NetworkPolicy")
    if not values["networkPolicy"]["enabled"]:
        assert policies == {}
        return
    assert set(policies[f"{RELEASE}-all"]["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in policies[f"{RELEASE}-all"]["spec"]
    parts = dict(pods(objects))
    for name, policy in policies.items():
        if name.endswith("-all"):
            continue
        ports = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
        assert ports <= {port["containerPort"] for one in parts[name]["containers"] for port in one["ports"]}


def test_the_rules_are_those_of_deploy_prometheus_and_a_job_is_called_as_they_ask(
    objects: list[Object], values: dict[str, Any]
) -> None:
    folder, found = CHART.parents[1] / "prometheus", named(objects, "PrometheusRule")
    assert bool(found) == values["monitoring"]["prometheusRule"]
    for one in found.values():
        files = [yaml.safe_load((folder / name).read_text()) for name in ("recording.yaml", "alerts.yaml")]
        assert one["spec"]["groups"] == [group for file in files for group in file["groups"]]
    scraped = "".join((folder / name).read_text(encoding="utf-8") for name in ("prometheus.yaml", "README.md"))
    told = {labels["drift/job"] for one in objects if "drift/job" in (labels := one["metadata"]["labels"])}
    assert told <= set(re.findall(r"job_name: (\w+)", scraped))  # the exporter's is in the page


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"models": {"inline": None}}, "no models"),
        ({"models": {"git": {"repository": "https://git.example.com/m.git"}}}, "both name the models"),
        (
            {"home": {"accessMode": "ReadWriteOnce"}, "dagster": {"runs": {"pods": {"capacities": {"spot": {}}}}}},
            "ReadWriteMany",
        ),
        ({"gateway": {"autoscaling": {"min": 9, "max": 8}}}, "gateway.autoscaling.min is more"),
        ({"dagster": {"runs": {"normal": 11}}}, "leave slots for hotfixes"),
        ({"gatewy": {}}, "gatewy"),
        ({"store": {"url": "files"}}, "url"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_values_that_cannot_work_are_refused(
    wrong: dict[str, Any], told: str, helm_program: Path, tmp_path: Path
) -> None:
    with pytest.raises(Refused) as refused:
        rendered(helm_program, merged(case("least"), wrong), tmp_path)
    assert told in refused.value.told


def test_the_loop_is_told_by_one_of_exporter_and_gateway(objects: list[Object], values: dict[str, Any]) -> None:
    monitors = named(objects, "ServiceMonitor")
    if found := monitors.get(f"{RELEASE}-gateway"):
        kept = [rule["regex"] for rule in found["spec"]["endpoints"][0].get("metricRelabelings", ())]
        assert kept == (["drift_gateway_.*"] if values["exporter"]["enabled"] else [])
    assert (f"{RELEASE}-exporter" in monitors) == (bool(monitors) and values["exporter"]["enabled"])
