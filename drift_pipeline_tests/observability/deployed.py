"""The files of deploy/prometheus with the addresses of servers that tests started, and nothing else changed."""

from pathlib import Path
from typing import Any

import yaml

from drift_pipeline_tests.parts.prometheus import DEPLOY


def routes(folder: Path, key: str, pagerduty: str, ticket: str) -> dict[str, Any]:
    """Alertmanager's configuration.

    Args:
        folder: for the secrets.
        key: the integration key.
        pagerduty, ticket: addresses.
    """
    text = (DEPLOY / "alertmanager.yaml").read_text()
    for name, secret in (("pagerduty.key", key), ("ticket.url", ticket)):
        (folder / name).write_text(secret)
        assert name in text
        text = text.replace(name, str(folder / name))
    told: dict[str, Any] = yaml.safe_load(text)
    told["global"]["pagerduty_url"] = pagerduty
    return told


def scraping(exporter: str, alertmanager: str) -> dict[str, Any]:
    """Prometheus' configuration, with the exporter in place of a gateway; HOST:PORT of both."""
    told: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())
    told["rule_files"] = [str(DEPLOY / name) for name in told["rule_files"]]
    told["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager]}]}]
    told["scrape_configs"] = [{"job_name": "drift_exporter", "static_configs": [{"targets": [exporter]}]}]
    return told
