"""Kubernetes objects as YAML that every reader reads alike."""

from collections.abc import Mapping
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Texts are quoted, keys too: readers of YAML differ on what `y`, `on` and `1e3` are. Lines stay lines."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # PyYAML's
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else '"')


_Dumper.add_representer(str, _text)


def to_yaml(document: Mapping[str, Any]) -> bytes:
    """Sorted, so that the same document gives the same bytes."""
    text: str = yaml.dump(dict(document), Dumper=_Dumper, allow_unicode=True, width=2**31, sort_keys=True)
    return text.encode()
