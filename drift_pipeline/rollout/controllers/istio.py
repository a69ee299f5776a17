"""Istio's VirtualService and DestinationRule, and what they have to be: its own webhook takes weights of 110 in all."""

import math
import re
from typing import Any

from drift_pipeline.errors import InputError

API = "networking.istio.io/v1"
DEBOUNCE_S = 1.0  # istiod's own is 10: for so long it keeps a route from the proxies while anything changes
PRIMARY, SHADOW, STICKY = "primary", "shadow", "sticky"  # the routes; Argo manages the last two


def virtual_service(name: str, namespace: str, hosts: list[str], gateways: list[str], path: str) -> dict[str, Any]:
    """All traffic to the stable Service; Argo moves the weights."""
    both = [{"destination": {"host": host_of(name, namespace, of)}, "weight": weight} for of, weight in _AT_REST]
    matched = [] if path == "/" else [{"uri": {"prefix": path}}]
    route = {"name": PRIMARY, **({"match": matched} if matched else {}), "route": both}
    spec = {"hosts": hosts, "gateways": gateways, "http": [route]}
    return {"apiVersion": API, "kind": "VirtualService", **_named(name, namespace), "spec": spec}


_AT_REST = (("stable", 100), ("canary", 0))


def destination_rule(name: str, namespace: str, of: str, tls: str, sticky_header: str) -> dict[str, Any] | None:
    """Of the stable or the canary Service; None where there is nothing to say. A bucket goes to one of its pods."""
    hashed = {"loadBalancer": {"consistentHash": {"httpHeaderName": sticky_header}}} if sticky_header else {}
    policy = {**hashed, **({"tls": {"mode": tls}} if tls else {})}
    if not policy:
        return None
    spec = {"host": host_of(name, namespace, of), "trafficPolicy": policy}
    return {"apiVersion": API, "kind": "DestinationRule", **_named(f"{name}-{of}", namespace), "spec": spec}


def host_of(name: str, namespace: str, of: str) -> str:
    return f"{name}-{of}.{namespace}.svc.cluster.local"


def _named(name: str, namespace: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}}


def buckets(percent: int) -> str:
    """Matches two digits below the percentage, as Envoy matches: whole.

    >>> buckets(3)
    '00|01|02'
    """
    return "|".join(f"{number:02d}" for number in range(percent))


def check(virtual: dict[str, Any]) -> None:
    """Raises InputError for what Istio takes, or may take, and that sends traffic nowhere or somewhere else."""
    if wrong := faults_of(virtual):
        name = (virtual.get("metadata") or {}).get("name", "?")
        raise InputError(f"VirtualService {name}: {'; '.join(wrong)}; nothing is applied")


def faults_of(virtual: dict[str, Any]) -> list[str]:
    """What is wrong with a VirtualService, in words."""
    spec = virtual.get("spec") or {}
    wrong = [f"{key} names none" for key in ("hosts", "gateways") if not spec.get(key)]
    routes = spec.get("http") or []
    if PRIMARY not in [route.get("name") for route in routes]:
        wrong.append(f"it has no route {PRIMARY!r}")
    named = [(route.get("name") or str(number), route) for number, route in enumerate(routes)]
    return wrong + [f"route {name}: {said}" for name, route in named for said in _faults(route)]


def _faults(route: dict[str, Any]) -> list[str]:
    to = route.get("route") or []
    weights = [one.get("weight", 100 if len(to) == 1 else 0) for one in to]
    wrong = [] if to else ["it leads nowhere"]
    if any(not _is_percent(weight) for weight in weights):
        wrong.append(f"weights are whole numbers from 0 to 100, not {weights}")
    elif to and sum(weights) != 100:
        wrong.append(f"the weights {weights} sum to {sum(weights)}, not 100")
    if any(not (one.get("destination") or {}).get("host") for one in to):
        wrong.append("a destination has no host")
    if "mirror" in route and "mirrors" in route:
        wrong.append("it has mirror and mirrors")
    shares = [route.get("mirrorPercentage"), *((one or {}).get("percentage") for one in route.get("mirrors") or [])]
    values = [share.get("value") for share in shares if share is not None]
    if any(not isinstance(value, int | float) or not 0 <= value <= 100 for value in values):
        wrong.append(f"it mirrors {values} %, which is not from 0 to 100")
    return wrong


def _is_percent(weight: Any) -> bool:
    return isinstance(weight, int) and not isinstance(weight, bool) and 0 <= weight <= 100


def share_of(virtual: dict[str, Any], canary: str, sticky_header: str) -> int:
    """Percent of the callers that the canary's host answers by the route that sends it most; of the route by buckets,
    of those that carry the header."""
    share = 0
    for route in (virtual.get("spec") or {}).get("http") or []:
        if route.get("name") == STICKY and sticky_header:
            headers = [(match.get("headers") or {}).get(sticky_header) or {} for match in route.get("match") or []]
            share = max(share, *(_matched(str(header.get("regex", ".*"))) for header in headers), 0)
            continue
        to = route.get("route") or []
        sent = (one.get("weight", 100 if len(to) == 1 else 0) for one in to if _host(one) in _names(canary))
        share = max(share, sum(sent))
    return share


def _names(host: str) -> set[str]:
    """Of a Service, for who is in its namespace: Argo writes the short one.

    >>> sorted(_names("a.drift.svc.cluster.local"))
    ['a', 'a.drift', 'a.drift.svc', 'a.drift.svc.cluster.local']
    """
    parts = host.split(".")
    return {".".join(parts[:count]) for count in (1, 2, 3)} | {host}


def _matched(regex: str) -> int:
    """Of a hundred buckets; all of them where it cannot be read: somebody else wrote it."""
    try:
        return sum(bool(re.fullmatch(regex, f"{number:02d}")) for number in range(100))
    except re.error:
        return 100


def _host(one: dict[str, Any]) -> str:
    return str((one.get("destination") or {}).get("host", ""))


def debounce_s(istiod: dict[str, Any]) -> float:
    """Of istiod's Deployment, in seconds; NaN where that cannot be read of it."""
    told = [
        one.get("value", "?")
        for container in istiod["spec"]["template"]["spec"]["containers"]
        for one in container.get("env") or []
        if one.get("name") == "PILOT_DEBOUNCE_MAX"
    ]
    return _seconds(str(told[-1])) if told else 10.0


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def _seconds(duration: str) -> float:
    """
    >>> _seconds("1m1.5s"), _seconds("900ms"), _seconds("1")
    (61.5, 0.9, nan)
    """
    parts = re.findall(r"([0-9.]+)(h|ms|m|us|µs|ns|s)", duration)
    if "".join(map("".join, parts)) != duration or not parts:
        return math.nan
    try:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    except ValueError:
        return math.nan
