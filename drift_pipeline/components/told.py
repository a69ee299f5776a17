"""What a tick tells in one line, however many models there are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from drift_pipeline.detection.judging.verdict import Verdict, told_verdict
from drift_pipeline.loop import Ticked

MOST_MODELS, MOST_WAITING, MOST_LETTERS = 10, 2, 80
_WORST_FIRST = (Verdict.BREACH, Verdict.WARN, Verdict.INCONCLUSIVE, Verdict.OK, Verdict.NOT_CONFIGURED)


def told_ticks(ticked: Sequence[tuple[Ticked, Mapping[str, Any]]], now: datetime) -> str:
    """Each model with its verdict and what that waits for, the worst first; of many models the others are counted.

    Args:
        ticked: with what each tick has seen, as the loop's memory keeps it.
    """
    ranked = sorted(ticked, key=lambda pair: (_WORST_FIRST.index(_verdict(pair[1])), pair[0].model))
    told = [_told(one, seen, now) for one, seen in ranked[:MOST_MODELS]]
    more = Counter(_verdict(seen) for _, seen in ranked[MOST_MODELS:])
    if more:
        told.append(f"and {more.total()} more: " + ", ".join(f"{count} {verdict}" for verdict, count in more.items()))
    return "; ".join(told)


def _verdict(seen: Mapping[str, Any]) -> Verdict:
    return Verdict(seen["verdict"])


def _told(one: Ticked, seen: Mapping[str, Any], now: datetime) -> str:
    news = [
        *(["an incident is open"] if one.incident else []),
        *(f"decided {decision}" for decision in one.decisions),
        *([f"its rollout is in {one.moved}"] if one.moved else []),
        *_waiting(seen.get("not_judged", {}), now),
    ]
    return ", ".join([f"{one.model}: {told_verdict(seen)}", *news])


def _waiting(not_judged: Mapping[str, Mapping[str, Any]], now: datetime) -> list[str]:
    """Those first of which it is known when they can be judged."""
    known = sorted(not_judged.items(), key=lambda item: (item[1].get("judged_at") or "~", item[0]))
    told = [f"{name} waits {_until(one, now)}" for name, one in known[:MOST_WAITING]]
    return [*told, *([f"{len(known) - MOST_WAITING} more wait"] if len(known) > MOST_WAITING else [])]


def _until(one: Mapping[str, Any], now: datetime) -> str:
    if not one.get("judged_at"):
        reason = str(one["reason"])
        return f"({reason if len(reason) <= MOST_LETTERS else reason[: MOST_LETTERS - 1] + '…'})"
    at = datetime.fromisoformat(one["judged_at"]).astimezone(UTC)
    return f"until {at:%H:%M} UTC" if at.date() == now.astimezone(UTC).date() else f"until {at:%Y-%m-%d %H:%M} UTC"
