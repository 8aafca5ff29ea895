"""Prints what `replay.two_logs` found: how two logs are related, and where submissions differ."""

from __future__ import annotations

from typing import Any

from replay.screen import Screen
from replay.two_logs import Group, LogDifference, OnlyIn, Relation


def print_logs(found: LogDifference, logs: tuple[str, str], screen: Screen) -> None:
    """Print how the two logs are related, and each kind of difference with examples."""
    kin = found.kinship
    for side, log, end in zip("AB", logs, kin.ends, strict=True):
        screen.hanging([(f"{side}  ", "strong")], [(f"{log}  ", ""), (f"ends at {end:,}", "dim")])
    style = "bad" if kin.relation is Relation.FORKED else "strong"
    screen.line((kin.relation.value, style))
    if kin.relation is not Relation.STRANGERS:
        screen.line((f"the same up to position {kin.shared:,}, hash {kin.hash.hex()}", "dim"))
    screen.line()
    style = "good" if found.same else ""
    screen.line((f"{found.alike:,}", style), (" submissions are in both and went alike", ""))
    _print_only("A", found.only_a, screen)
    _print_only("B", found.only_b, screen)
    if found.elsewhere:
        why = " can't be compared: one of the files has them elsewhere, by its own account"
        screen.line((f"{found.elsewhere:,}{why}", ""))
    groups = sorted(found.groups.values(), key=lambda group: -group.count)
    if groups:
        differ = sum(group.count for group in groups)
        screen.line((f"{differ:,}", "bad"), (" differ, and first in this:", ""))
    for group in groups:
        screen.hanging([(f"  {group.count:>6,}  ", "strong")], [(group.kind, "strong")])
        screen.hanging([(" " * 10, "")], [(_examples(group), "dim")])
    if groups:
        stream = groups[0].places[0][0]
        hint = f"replay diff {logs[0]} {logs[1]} --run {stream}"
        screen.line((f"see one step by step: {hint}", "dim"))


def _print_only(side: str, only: OnlyIn, screen: Screen) -> None:
    if only.count:
        names = ", ".join(name for _stream, name in only.places)
        more = ", …" if only.count > len(only.places) else ""
        screen.hanging(
            [(f"{only.count:,}", "bad"), (f" are only in {side}: ", "")], [(names + more, "dim")]
        )


def _examples(group: Group) -> str:
    parts = []
    for _stream, name, left, right in group.places:
        where = [f"{side} {at}" for side, at in (("A", left), ("B", right)) if at is not None]
        parts.append(f"{name} (at {', '.join(where)})")
    return ", ".join(parts) + (", …" if group.count > len(group.places) else "")


def logs_object(found: LogDifference) -> dict[str, Any]:
    """Return what was found as JSON values."""
    kin = found.kinship
    return {
        "same": found.same,
        "relation": kin.relation.name.lower(),
        "shared_position": kin.shared,
        "shared_hash": kin.hash.hex(),
        "ends": {"a": kin.ends[0], "b": kin.ends[1]},
        "alike": found.alike,
        "elsewhere": found.elsewhere,
        "only_in_a": _only_object(found.only_a),
        "only_in_b": _only_object(found.only_b),
        "kinds": [
            {
                "kind": group.kind,
                "count": group.count,
                "first": [
                    {"stream": stream, "run": name, "position_a": left, "position_b": right}
                    for stream, name, left, right in group.places
                ],
            }
            for group in found.groups.values()
        ],
    }


def _only_object(only: OnlyIn) -> dict[str, Any]:
    first = [{"stream": stream, "run": name} for stream, name in only.places]
    return {"count": only.count, "first": first}
