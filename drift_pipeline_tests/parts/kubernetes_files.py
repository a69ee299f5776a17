"""What the programs of a cluster are told: their keys, accounts, settings and flags, all of it below one folder."""

import base64
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from drift_pipeline_tests.parts.certificates import Authority, written_key
from drift_pipeline_tests.parts.machine import ADDRESS

PORT, ETCD = 16443, 12379  # of the machine's own network, where they are always free
NAMES = 53
SERVICES = "127.10.0.0/24"  # addresses of Services stay on `lo`; those of 10/8 would be sought outside
NODE = "localhost"  # by its name the API server reaches the kubelet
SILENT = "10m"  # a kubelet, before its pods are driven out: on a machine that has more to do it takes minutes
HEALTHY = {  # in the order of their start
    "etcd": f"http://127.0.0.1:{ETCD}/health",
    "apiserver": f"https://127.0.0.1:{PORT}/readyz",
    "controller-manager": f"https://127.0.0.1:{PORT + 1}/healthz",
    "scheduler": f"https://127.0.0.1:{PORT + 2}/healthz",
}
KUBELET_HEALTHY = "http://127.0.0.1:10248/healthz"
_USERS = {"admin": "system:masters", "controller-manager": "", "scheduler": ""}


def written(folder: Path) -> str:
    """Keys below `keys`, and USER.yaml, which kubectl calls a kubeconfig, of each who speaks to the API server.

    Returns:
        The administrator's token.
    """
    keys = folder / "keys"
    keys.mkdir()
    authority = Authority(keys)
    inside = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
    authority.give("apiserver", "kube-apiserver", hosts=("localhost", *inside, "127.0.0.1", "127.10.0.1"))
    authority.give("plane", "plane", hosts=("localhost", "127.0.0.1"))
    authority.give("to-kubelet", "kube-apiserver-kubelet-client", "system:masters")
    authority.give("kubelet", f"system:node:{NODE}", "system:nodes", (NODE, "127.0.0.1"))
    authority.give("proxy", "front-proxy-client")
    written_key(keys / "accounts.key")
    tokens = {user: secrets.token_hex(16) for user in _USERS}
    names = {user: user if user == "admin" else f"system:kube-{user}" for user in _USERS}
    lines = [f'{tokens[user]},{names[user]},{user},"{group}"' for user, group in _USERS.items()]
    (keys / "tokens.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for user in _USERS:
        _access(folder, user, {"token": tokens[user]})
    _access(folder, "node", {"client-certificate": f"{keys}/kubelet.crt", "client-key": f"{keys}/kubelet.key"})
    settings = _kubelet_settings(folder)
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return tokens["admin"]


def flags(name: str, folder: Path) -> Mapping[str, Any]:
    """Of one of its programs, where `written` has been."""
    match name:
        case "etcd":
            return _etcd(folder)
        case "apiserver":
            return _apiserver(folder / "keys")
        case "controller-manager":
            own = {"flex-volume-plugin-dir": folder / "plugins", "node-monitor-grace-period": SILENT}
            return {**_plane(folder, name, PORT + 1), **_signing(folder / "keys"), **own}
        case "scheduler":
            return _plane(folder, name, PORT + 2)
    kubelet = folder / "kubelet"
    return {
        "config": folder / "kubelet.yaml",
        "kubeconfig": folder / "node.yaml",
        "root-dir": kubelet,
        "cert-dir": kubelet / "pki",
        "hostname-override": NODE,
        "node-ip": ADDRESS,
    }


def _access(folder: Path, user: str, how: Mapping[str, str]) -> None:
    authority = base64.b64encode((folder / "keys" / "ca.crt").read_bytes()).decode()
    cluster = {"server": f"https://127.0.0.1:{PORT}", "certificate-authority-data": authority}
    told = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": user, "user": dict(how)}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
    }
    (folder / f"{user}.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")


def _etcd(folder: Path) -> Mapping[str, Any]:
    client, peer = f"http://127.0.0.1:{ETCD}", f"http://127.0.0.1:{ETCD + 1}"
    return {
        "data-dir": folder / "etcd",
        "log-level": "warn",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "unsafe-no-fsync": "true",  # the cluster may crash here, the machine does not
    }


def _apiserver(keys: Path) -> Mapping[str, Any]:
    return {
        "etcd-servers": f"http://127.0.0.1:{ETCD}",
        "bind-address": "127.0.0.1",
        "advertise-address": "127.0.0.1",
        "secure-port": PORT,
        "endpoint-reconciler-type": "none",
        "service-cluster-ip-range": SERVICES,
        "allow-privileged": "true",
        "tls-cert-file": keys / "apiserver.crt",
        "tls-private-key-file": keys / "apiserver.key",
        "client-ca-file": keys / "ca.crt",
        "token-auth-file": keys / "tokens.csv",
        "authorization-mode": "Node,RBAC",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": keys / "accounts.pub",
        "service-account-signing-key-file": keys / "accounts.key",
        "kubelet-client-certificate": keys / "to-kubelet.crt",
        "kubelet-client-key": keys / "to-kubelet.key",
        "kubelet-certificate-authority": keys / "ca.crt",
        "kubelet-preferred-address-types": "Hostname,InternalIP",
        "requestheader-client-ca-file": keys / "ca.crt",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "proxy-client-cert-file": keys / "proxy.crt",
        "proxy-client-key-file": keys / "proxy.key",
    }


def _plane(folder: Path, user: str, port: int) -> dict[str, Any]:
    file, keys = folder / f"{user}.yaml", folder / "keys"
    return {
        "kubeconfig": file,
        "authentication-kubeconfig": file,
        "authorization-kubeconfig": file,
        "bind-address": "127.0.0.1",
        "secure-port": port,
        "tls-cert-file": keys / "plane.crt",
        "tls-private-key-file": keys / "plane.key",
        "leader-elect": "false",
    }


def _signing(keys: Path) -> Mapping[str, Any]:
    return {
        "use-service-account-credentials": "true",
        "service-account-private-key-file": keys / "accounts.key",
        "root-ca-file": keys / "ca.crt",
        "cluster-signing-cert-file": keys / "ca.crt",
        "cluster-signing-key-file": keys / "ca.key",
    }


def _kubelet_settings(folder: Path) -> Mapping[str, Any]:
    keys = folder / "keys"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": f"unix://{folder}/containerd/containerd.sock",
        "volumePluginDir": f"{folder}/plugins",
        "address": "127.0.0.1",
        "port": 10250,
        "readOnlyPort": 0,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "failSwapOn": False,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(keys / "ca.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "tlsCertFile": str(keys / "kubelet.crt"),
        "tlsPrivateKeyFile": str(keys / "kubelet.key"),
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "1Mi", "imagefs.available": "1Mi"},
        "imageGCHighThresholdPercent": 100,  # no registry would give them again
        "imageGCLowThresholdPercent": 99,
        "maxPods": 200,
        "clusterDNS": ["127.0.0.1"],
        "clusterDomain": "cluster.local",
    }
