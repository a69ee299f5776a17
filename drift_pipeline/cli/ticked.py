"""How `drift tick` tells what came of a model's tick."""

from typing import Any


def plain_of(one: Any) -> dict[str, Any]:
    """As JSON takes it."""
    plain = {name: getattr(one, name) for name in one.__dataclass_fields__ if name != "ended"}
    runs = [
        {"decision": of.decision, "runner": of.runner, "run": of.run.name, "state": of.run.state, "link": of.run.link}
        for of in _elsewhere(one)
    ]
    return {**plain, **({"runs": runs} if runs else {})}


def line_of(one: Any) -> str:
    """As people read it."""
    from drift_pipeline.detection.judging.verdict import told_verdict
    from drift_pipeline.loop.fleet import Failed

    if isinstance(one, Failed):
        return f"{one.model}: {'taken by another tick' if one.again else 'FAILED'}: {one.reason}"
    told = [
        f"incident {one.incident}" if one.incident else "",
        *one.decisions,
        *(f"trained {version}" for version in one.trained),
        *(f"{of.runner} run {of.run.name} {of.run.state}" for of in _elsewhere(one)),
        f"released {one.released}" if one.released else "",
        f"rollout {one.moved}" if one.moved else "",
    ]
    verdict = told_verdict({"verdict": one.verdict, "judged": one.judged, "configured": one.configured})
    return "  ".join([f"{one.model}: {verdict}", *filter(None, told)])


def _elsewhere(one: Any) -> list[Any]:
    """The runs that ended in another system."""
    return [run for run in getattr(one, "ended", ()) if run.runner != "inline"]
